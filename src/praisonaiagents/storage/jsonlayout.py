"""The session file as bytes: how it is written, and how any file that is found is read.

    {
    "session_id": "my-session",
    "user_id": "default_user",
    "storage": {"format":1,"revision":0,"first":0,"start":0},
    "agent_name": null,
    "created_at": "2026-11-22T09:30:00+00:00",
    "metadata": {},
    "state": {},
    "archived_messages": [                      only where there are any
    {"role":"user","content":"Long ago"}
    ],
    "messages": [
    {"role":"user","content":"My name is Alice","timestamp":1795253400.0,"id":"msg-1"},
    {"role":"assistant","content":"Hello Alice","timestamp":1795253401.5,"id":"msg-2"}
    ],
    "message_count": 2,
    "updated_at": "2026-11-22T09:30:01.500000+00:00"
    }

It is one JSON object, with one message a line, because that makes three things cheap: an append overwrites the short footer
with the message and a new footer; the last fifty messages are found from the end; a torn or damaged line is one message and
not the file. `first` is the number of the first message in the file, `start` of the first in `messages`; both only change
when the file is rewritten. A message line always starts with `{` and a footer line never does, and JSON escapes line ends
inside text, so the two can't be confused whatever a message says.

Anything else that is a JSON object with `messages` is read too: that is how PraisonAI's own files get in, and files that an
editor laid out anew. What is no valid JSON is read by its lines, as far as they are whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from praisonaiagents.errors import InvalidId
from praisonaiagents.model.ids import DEFAULT_USER, check_session_id, check_user_id
from praisonaiagents.model.message import Message, decode, encode
from praisonaiagents.model.record import RESERVED, Key, Record

FORMAT = 1
FOOTER_ROOM = 192  # bytes in which a footer always fits, with what stands before it

_HEAD = re.compile(
    rb'(\{\n"session_id": ".*",\n"user_id": ".*",\n"storage": \{)'
    rb'"format":(\d+),"revision":(\d+),"first":(\d+),"start":(\d+)\},\n'
)
# A time of another length would let the end of one footer pass for the end of another, halfway through an append.
_FOOTER = re.compile(rb'\n\],\n"message_count": (\d+),\n"updated_at": "([0-9T:.+-]{25,32})"\n\}\n?\Z')
MESSAGES = b'"messages": ['
_ARCHIVE = b'"archived_messages": ['
_LINES = re.compile(rb'^"(?:session_id|storage|messages|message_count)": ', re.MULTILINE)
_BETWEEN = re.compile(rb'^.{0,2}(?=\{"role":)')  # what a bad byte or two make of a comma and a line end
_END_OF_HEADER = re.compile(rb'^"(?:archived_)?messages": \[', re.MULTILINE)
_DERIVED = (b'"message_count": ', b'"updated_at": "')
_NOISE = b"\0\r ,"
_ENTRY = re.compile(r'^([ \t]*)(?:\{|"((?:[^"\\\n]|\\.)*)"[ \t]*:[ \t]*)', re.MULTILINE)
_KINDS = {"agent_name": (str, type(None)), "metadata": (dict, type(None)), "state": (dict, type(None))}
_LISTS = ("archived_messages", "messages")
_DEFAULT_USER_IN_REFERENCE = ("", "praison", "default", DEFAULT_USER)
_MIRRORED = ("model", "llm", "total_tokens", "token_count", "cost", "source")
_YEAR_9999_S = 253_370_764_800  # the last year that ISO 8601 and `datetime` know


class Head(NamedTuple):
    """The first lines of a file in our layout, which say whose it is and how it is numbered. `size` is in bytes."""

    prefix: bytes
    revision: int
    first: int
    start: int
    size: int

    def key(self) -> Key | None:
        """Whose file it is, if the ids can be read."""
        return _key_in(_pairs(self.prefix[2 : self.prefix.rindex(b",")]))


class Footer(NamedTuple):
    """The last lines of a file in our layout. `raw` are their bytes; `follows_message` tells whether there is any message."""

    message_count: int
    raw: bytes
    follows_message: bool

    @property
    def updated_at(self) -> float:
        match = _FOOTER.match(self.raw)
        return _seconds(match[2].decode()) if match else 0.0


class Loaded(NamedTuple):
    """A whole file. `damage` are the pieces that could not be read; `broken` tells whether it has to be written anew."""

    record: Record
    first: int
    messages: list[Message]
    damage: list[bytes]
    broken: bool


class _Found(NamedTuple):
    """What was found in a file: top-level keys and values, messages, and pieces that could not be read."""

    values: dict[str, Any]
    archived: list[Message]
    messages: list[Message]
    damage: list[bytes]

    @property
    def total(self) -> int:
        return len(self.archived) + len(self.messages)


class Unreadable(ValueError):
    """The bytes are no session file, and no part of one was found in them."""


class TooNew(ValueError):
    """The bytes are a session file of a newer version."""


def head_prefix(key: Key) -> bytes:
    """The bytes with which this session's file starts, if it is in our layout."""
    return b'{\n"session_id": %b,\n"user_id": %b,\n"storage": {' % (_json(key.session_id), _json(key.user_id))


def find_head(data: bytes) -> Head | None:
    """The head at the start of `data`, or None if the file is not in our layout. Raises `TooNew`."""
    match = _HEAD.match(data)
    if match is None:
        return None
    number, revision, first, start = map(int, match.groups()[1:])
    _check_format(number)
    return Head(match[1], revision, first, start, match.end()) if first <= start else None


def find_footer(data: bytes) -> Footer | None:
    """The footer at the end of `data`, or None if there is none, as after a crash in the middle of a write."""
    match = _FOOTER.search(data, max(0, len(data) - FOOTER_ROOM))
    if match is None:
        return None
    return Footer(int(match[1]), match[0], data[match.start() - 1 : match.start()] == b"}")


def footer_bytes(message_count: int, updated_at: float) -> bytes:
    """The closing lines of a file."""
    return b'\n],\n"message_count": %d,\n"updated_at": "%b"\n}\n' % (message_count, _iso(updated_at).encode())


def header_record(key: Key, data: bytes) -> Record | None:
    """The record in the header lines at the start of `data`, or None if the header is not whole within it."""
    head = find_head(data)
    end = _END_OF_HEADER.search(data, head.size) if head else None
    if head is None or end is None:
        return None
    try:
        values = msgspec.json.decode(b"{%b}" % data[head.size : end.start()].removesuffix(b",\n"))
    except (ValueError, RecursionError):
        return None
    return _record(key, values, start=head.start, revision=head.revision)


def render(record: Record, first: int, messages: Sequence[Message | bytes]) -> bytes:
    """A whole file. `messages`, encoded or not, are numbered from `first`; those before `record.start` are archived."""
    lines = [line if isinstance(line, bytes) else encode(line) for line in messages]
    archived, visible = lines[: record.start - first], lines[record.start - first :]
    header: dict[str, Any] = {
        "agent_name": record.agent_name,
        "created_at": _iso(record.created_at),
        "metadata": record.metadata,
        "state": record.state,
    }
    header |= {key: value for key, value in record.extra.items() if key not in RESERVED}
    pieces = [
        head_prefix(record.key),
        b'"format":%d,"revision":%d,"first":%d,"start":%d},\n' % (FORMAT, record.revision, first, record.start),
        *(b"%b: %b,\n" % (_json(key), _json(value)) for key, value in header.items()),
    ]
    if archived:
        pieces += [_ARCHIVE, b"\n", b",\n".join(archived), b"\n],\n"]
    pieces += [MESSAGES, b"\n" if visible else b"", b",\n".join(visible)]
    return b"".join([*pieces, footer_bytes(len(visible), record.updated_at)])


def load(data: bytes, named: Key | None = None) -> Loaded:
    """Read any session file: ours, whole or torn or laid out anew by an editor, or PraisonAI's.

    `named` is the session that the file's name tells, for a file that does not say it itself. Raises `Unreadable` where
    nothing of a session was found, `TooNew`.
    """
    ours = find_head(data) is not None
    found = _by_lines(data) if _LINES.search(data) else None
    by_value = None
    if found is None or not ours or found.damage:
        # an editor may have spread over several lines what we write in one
        by_value = _by_value(data)
        if by_value is not None and (found is None or by_value.total >= found.total):
            found = by_value
    found = found or _by_depth(data)
    return _loaded(found, named, broken=ours or found is not by_value or bool(found.damage))


def _loaded(found: _Found, named: Key | None, *, broken: bool) -> Loaded:
    values = found.values
    storage = values.get("storage") if isinstance(values.get("storage"), dict) else None
    numbers = {name: _number(storage or {}, name) for name in ("format", "revision", "first")}
    _check_format(numbers["format"])
    key = _key_in(values, of_reference=storage is None) or named
    if key is None:
        raise Unreadable("the file does not say which session it holds")
    misfits = [_json({name: values[name]}) for name, kind in _KINDS.items() if not isinstance(values.get(name), kind)]
    messages = found.archived + found.messages
    updated = [values.get("updated_at"), *(message.timestamp for message in messages[-1:]), values.get("created_at")]
    record = _record(
        key,
        _with_mirrored(values) if storage is None else values,
        start=numbers["first"] + len(found.archived),
        revision=numbers["revision"],
        length=numbers["first"] + len(messages),
        updated_at=next(filter(None, map(_seconds, updated)), 0.0),
    )
    return Loaded(record, numbers["first"], messages, found.damage + misfits, broken or bool(misfits))


def _record(
    key: Key, values: dict[str, Any], *, start: int, revision: int, length: int = 0, updated_at: float = 0.0
) -> Record:
    agent_name, metadata, state = (
        value if isinstance(value := values.get(name), kinds) else None for name, kinds in _KINDS.items()
    )
    return Record(
        *key,
        created_at=_seconds(values.get("created_at")),
        agent_name=agent_name,
        metadata=metadata or {},
        state=state or {},
        start=start,
        revision=revision,
        extra={key: value for key, value in values.items() if key not in RESERVED},
        length=length,
        updated_at=updated_at,
    )


def _key_in(values: dict[str, Any], *, of_reference: bool = False) -> Key | None:
    """Whose file it is. PraisonAI's user names `praison` and `default` mean the default user."""
    owner = values.get("user_id")
    if of_reference and (not isinstance(owner, str) or owner in _DEFAULT_USER_IN_REFERENCE):
        owner = DEFAULT_USER
    try:
        return Key(check_user_id(owner), check_session_id(values.get("session_id")))
    except InvalidId:
        return None


def _with_mirrored(values: dict[str, Any]) -> dict[str, Any]:
    """PraisonAI repeats some keys of the metadata above it, where old versions of it have them alone."""
    metadata = values.get("metadata")
    mirrored = {key: values[key] for key in _MIRRORED if values.get(key) is not None}
    return values | {"metadata": mirrored | (metadata if isinstance(metadata, dict) else {})}


# Three ways to read a file. Each gives what `_Found` holds.


def _by_value(data: bytes) -> _Found | None:
    """A file that is one JSON object with messages, however it is laid out; None if it is not."""
    text = data.removeprefix(b"\xef\xbb\xbf")
    damage: list[bytes] = []
    try:
        values = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        try:
            values = json.loads(text, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            return None
        damage.append(data)  # Python reads some more than JSON has, such as NaN, and that cannot be kept
    if not isinstance(values, dict) or not isinstance(values.get("messages"), list):
        return None
    archived = _messages(values.pop("archived_messages", None), damage)
    messages = _messages(values.pop("messages"), damage)
    return _Found(_storable(values) if damage else values, archived, messages, damage)


def _by_lines(data: bytes) -> _Found:
    """A file in our layout, as far as its lines are whole."""
    found = _Found({}, [], [], [])
    into = found.messages
    for piece in (piece for line in data.split(b"\n") for piece in _pieces(line)):
        rest = piece
        if piece.startswith(b'{"'):
            messages, rest = _on_line(piece)
            into.extend(messages)
        elif piece == _ARCHIVE:
            into = found.archived
        elif piece == MESSAGES or piece.strip(_NOISE) == b"]":
            into = found.messages
        elif pair := _pairs(piece):
            found.values.update(pair)
            continue
        if _is_damage(rest):
            found.damage.append(rest)
    return found


def _pieces(line: bytes) -> list[bytes]:
    """A line; or the opening of a list, with what stands before and after it on its line."""
    for opening in () if line.startswith(b'{"') else (_ARCHIVE, MESSAGES):
        before, begins, after = line.partition(opening[:-1])
        if begins and not (before and _pairs(line)):
            return [before, opening, _BETWEEN.sub(b"", after)]
    return [line]


def _is_damage(line: bytes) -> bool:
    """True for a line that holds more than brackets, commas and what a file's end is made of."""
    derived = any(key.startswith(line[: len(key)]) for key in _DERIVED)
    return not derived and line.strip(_NOISE) not in (b"", MESSAGES, _ARCHIVE, b"{", b"}", b"[", b"[]", b"]")


def _on_line(line: bytes) -> tuple[list[Message], bytes]:
    """The messages on a line, and what could not be read: one message and scraps, or several whose line ends are gone."""
    # a write torn after its first byte leaves the comma of the new line and the bracket of the old footer
    rest = line.rstrip(_NOISE + b"]")
    if message := _message(rest):
        return [message], b""
    messages: list[Message] = []
    while message := _message(rest[: _end_of_object(rest)]):
        messages.append(message)
        rest = _BETWEEN.sub(b"", rest[_end_of_object(rest) :])
    return messages, rest if messages else line


def _end_of_object(data: bytes) -> int:
    """Where the JSON value at the start of `data` ends; 0 if there is none."""
    text = data.decode("utf-8", errors="surrogateescape")
    _, end = _value_at(text, 0)
    return len(text[:end].encode("utf-8", errors="surrogateescape"))


def _by_depth(data: bytes) -> _Found:
    """A file of PraisonAI's that is no longer valid JSON: its keys and messages are told by how far they are indented.

    Raises `Unreadable`.
    """
    text = data.decode("utf-8", errors="surrogateescape")
    values: dict[str, Any] = {}
    lists: dict[str, list[Any]] = {}
    depths: dict[bool, str] = {}
    into: list[Any] | None = None
    position = 0
    for entry in _ENTRY.finditer(text):
        depth, name = entry.groups()
        item = name is None
        if entry.start() < position or (item and into is None) or depth != depths.setdefault(item, depth):
            continue
        if name in _LISTS and text.startswith("[", entry.end()):
            into = lists.setdefault(name, [])
            continue
        value, position = _value_at(text, entry.end() - item)
        if into is not None and item:
            into += [value] if position > entry.end() else []
        else:
            into = None
            values |= {name: value} if position > entry.end() else {}
    if "session_id" not in values or "messages" not in lists:
        raise Unreadable("the file holds no session")
    archived, messages = (_messages(lists.get(name), []) for name in _LISTS)
    return _Found(_storable(values), archived, messages, [data])


def _value_at(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at a position, and where it ends: `position` itself if there is none."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, position)
    except (ValueError, RecursionError):
        return None, position
    return value, end


def _messages(values: object, damage: list[bytes]) -> list[Message]:
    """The messages in a JSON list; what is none goes to `damage`."""
    messages: list[Message] = []
    if values is not None and not isinstance(values, list):
        damage.append(json.dumps(values).encode())
        return messages
    for value in values or []:
        try:
            messages.append(decode(encode(Message.from_dict(value))))
        except (ValueError, AttributeError, RecursionError):
            damage.append(json.dumps(value).encode())
    return messages


def _message(line: bytes) -> Message | None:
    try:
        return decode(line)
    except (ValueError, RecursionError):
        return None


def _pairs(lines: bytes) -> dict[str, Any]:
    """The keys and values in header lines; nothing if they are not whole."""
    try:
        pairs = msgspec.json.decode(b"{%b}" % lines.rstrip(_NOISE))
    except (ValueError, RecursionError):
        return {}
    return pairs if isinstance(pairs, dict) else {}


def _storable(values: dict[str, Any]) -> dict[str, Any]:
    """What of it JSON can hold."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        with suppress(ValueError, RecursionError):
            kept |= msgspec.json.decode(_json({key: value}))
    return kept


def _number(values: dict[str, Any], name: str) -> int:
    value = values.get(name)
    return value if type(value) is int and value >= 0 else 0


def _check_format(number: int) -> None:
    if number > FORMAT:
        raise TooNew(f"format {number}, this version reads up to {FORMAT}: upgrade")


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _iso(seconds: float) -> str:
    whole, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_iso_second(whole)}.{microseconds:06}+00:00" if microseconds else f"{_iso_second(whole)}+00:00"


@lru_cache(maxsize=8)
def _iso_second(seconds: int) -> str:
    """Date and time of a whole second: a busy process asks for the same one thousands of times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _seconds(value: object) -> float:
    """Seconds since 1970 from what a file holds: ISO 8601 text or a number; 0.0 where it is neither."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() if moment else value
    except (ValueError, OverflowError):
        return 0.0
    return float(seconds) if isinstance(seconds, (int, float)) and 0 <= seconds < _YEAR_9999_S else 0.0
