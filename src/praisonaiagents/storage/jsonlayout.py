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

Anything else that is a JSON object with `messages` is read too: that is how PraisonAI's own files get in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from praisonaiagents.model.ids import DEFAULT_USER
from praisonaiagents.model.message import Message, decode, encode
from praisonaiagents.model.record import Key, Record

FORMAT = 1
FOOTER_ROOM = 192  # bytes in which a footer always fits

_HEAD = re.compile(
    rb'(\{\n"session_id": ".*",\n"user_id": ".*",\n"storage": \{)'
    rb'"format":(\d+),"revision":(\d+),"first":(\d+),"start":(\d+)\},\n'
)
_FOOTER = re.compile(rb'\n\],\n"message_count": (\d+),\n"updated_at": "([^"\n]*)"\n\}\n?\Z')
MESSAGES = b'"messages": ['
_ARCHIVE = b'"archived_messages": ['
_DEFAULT_USER_IN_REFERENCE = ("", "praison", "default", DEFAULT_USER)
_OWN_KEYS = ("session_id", "user_id", "storage", "agent_name", "created_at", "metadata", "state")
_DERIVED_KEYS = ("archived_messages", "messages", "message_count", "updated_at")


class Head(NamedTuple):
    """The first lines of a file in our layout, which say whose it is and how it is numbered. `size` is in bytes."""

    prefix: bytes
    format: int
    revision: int
    first: int
    start: int
    size: int

    def key(self) -> Key:
        """Whose file it is."""
        ids = msgspec.json.decode(self.prefix[: self.prefix.rindex(b",")] + b"}")
        return Key(ids["user_id"], ids["session_id"])


class Footer(NamedTuple):
    """The last lines of a file in our layout. `size` is in bytes, counted from the end of the file."""

    message_count: int
    updated_at: float
    size: int


class Loaded(NamedTuple):
    """A whole file. `damage` are the pieces of it that could not be read; `ours` tells whether it is in our layout."""

    record: Record
    first: int
    messages: list[Message]
    damage: list[bytes]
    ours: bool


class Unreadable(ValueError):
    """The bytes are no session file, and no part of one was found in them."""


def head_prefix(key: Key) -> bytes:
    """The bytes with which this session's file starts, if it is in our layout."""
    return b'{\n"session_id": %b,\n"user_id": %b,\n"storage": {' % (_json(key.session_id), _json(key.user_id))


def find_head(data: bytes) -> Head | None:
    """The head at the start of `data`, or None if the file is not in our layout."""
    match = _HEAD.match(data)
    if match is None:
        return None
    return Head(match[1], int(match[2]), int(match[3]), int(match[4]), int(match[5]), match.end())


def find_footer(data: bytes) -> Footer | None:
    """The footer at the end of `data`, or None if there is none, as after a crash in the middle of a write."""
    match = _FOOTER.search(data, max(0, len(data) - FOOTER_ROOM))
    if match is None:
        return None
    return Footer(int(match[1]), _seconds(match[2].decode(errors="replace")), len(data) - match.start())


def footer_bytes(message_count: int, updated_at: float) -> bytes:
    """The closing lines of a file."""
    return b'\n],\n"message_count": %d,\n"updated_at": "%b"\n}\n' % (message_count, _iso(updated_at).encode())


def header_record(data: bytes) -> Record | None:
    """The record in the header lines at the start of `data`, or None if the header does not end within it."""
    head = find_head(data)
    if head is None:
        return None
    fields: dict[str, Any] = {}
    position = head.size
    while True:
        end = data.find(b"\n", position)
        if end < 0:
            return None
        line = data[position:end]
        if line in (MESSAGES, _ARCHIVE):
            return _record(head, fields)
        fields |= msgspec.json.decode(b"{%b}" % line.rstrip(b","))
        position = end + 1


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
    header |= {key: value for key, value in record.extra.items() if key not in _OWN_KEYS + _DERIVED_KEYS}
    pieces = [
        head_prefix(record.key),
        b'"format":%d,"revision":%d,"first":%d,"start":%d},\n' % (FORMAT, record.revision, first, record.start),
        *(b"%b: %b,\n" % (_json(key), _json(value)) for key, value in header.items()),
    ]
    if archived:
        pieces += [_ARCHIVE, b"\n", b",\n".join(archived), b"\n],\n"]
    pieces += [MESSAGES, b"\n" if visible else b"", b",\n".join(visible)]
    return b"".join([*pieces, footer_bytes(len(visible), record.updated_at)])


def load(data: bytes) -> Loaded:
    """Read any session file: ours, whole or torn, or PraisonAI's.

    Raises `Unreadable` where nothing of a session was found.
    """
    head = find_head(data)
    if head is not None:
        return _load_ours(data, head)
    try:
        values = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return _salvage(data)
    if not isinstance(values, dict) or not isinstance(values.get("messages"), list):
        raise Unreadable("the file is JSON, but holds no session")
    return _load_foreign(values, [])


def _load_ours(data: bytes, head: Head) -> Loaded:
    fields: dict[str, Any] = {}
    messages: list[Message] = []
    damage: list[bytes] = []
    updated = 0.0
    archived = 0
    section = "header"
    lines = data[head.size :].split(b"\n")
    for line in lines:
        body = line.removesuffix(b",")
        if line in (MESSAGES, _ARCHIVE):
            section = "messages" if line == MESSAGES else "archive"
        elif body == b"]":
            section = "footer" if section == "messages" else "header"
        elif section in ("messages", "archive"):
            # a write torn after its first byte leaves the comma of the new line and the bracket of the old footer
            body = line.rstrip(b",]")
            message = _try_message(body)
            if message is not None:
                messages.append(message)
                archived += section == "archive"
            elif body:
                damage.append(line)
        elif section == "footer":
            updated = _footer_time(line) or updated
        elif body:
            pair = _try_pair(body)
            fields |= pair
            if not pair:
                damage.append(line)
    record = _record(head._replace(start=head.first + archived), fields)
    updated = updated or (messages[-1].timestamp if messages else record.created_at)
    return Loaded(
        msgspec.structs.replace(record, length=head.first + len(messages), updated_at=updated),
        head.first,
        messages,
        damage,
        ours=True,
    )


def _load_foreign(values: dict[str, Any], damage: list[bytes]) -> Loaded:
    """A file of PraisonAI: one indented object. Its user names `praison` and `default` mean the default user."""
    archived = _messages(values.get("archived_messages"), damage)
    messages = archived + _messages(values.get("messages"), damage)
    owner = values.get("user_id")
    session_id = values.get("session_id")
    metadata = values.get("metadata")
    agent_name = values.get("agent_name")
    if not isinstance(session_id, str) or not session_id:
        raise Unreadable("the file is JSON, but names no session")
    record = Record(
        user_id=owner if isinstance(owner, str) and owner not in _DEFAULT_USER_IN_REFERENCE else DEFAULT_USER,
        session_id=session_id,
        created_at=_seconds(values.get("created_at")),
        agent_name=agent_name if isinstance(agent_name, str) else None,
        metadata=metadata if isinstance(metadata, dict) else {},
        start=len(archived),
        extra={key: value for key, value in values.items() if key not in _OWN_KEYS + _DERIVED_KEYS},
        length=len(messages),
        updated_at=_seconds(values.get("updated_at")),
    )
    return Loaded(record, 0, messages, damage, ours=False)


def _salvage(data: bytes) -> Loaded:
    """What can be saved of a PraisonAI file that is no longer valid JSON: its whole messages, and whose it is."""
    text = data.decode("utf-8", errors="surrogateescape")
    values: dict[str, Any] = {}
    for key in ("session_id", "user_id", "agent_name", "created_at", "updated_at"):
        match = re.search(rf'^\s*"{key}":\s*("(?:[^"\\]|\\.)*")', text, re.MULTILINE)
        if match:
            values[key] = json.loads(match[1], strict=False)
    opening = re.search(r'^\s*"messages":\s*\[', text, re.MULTILINE)
    if "session_id" not in values or opening is None or not text.lstrip().startswith("{"):
        raise Unreadable("the file is not JSON")
    values["messages"] = _whole_objects(text, opening.end())
    return _load_foreign(values, [data])


def _whole_objects(text: str, position: int) -> list[Any]:
    """The JSON objects of an array, as far as they can be read; what lies between two of them is skipped."""
    decoder = json.JSONDecoder()
    found: list[Any] = []
    while (position := text.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError:
            position += 1
            continue
        if "role" in value:
            found.append(value)
    return found


def _messages(values: object, damage: list[bytes]) -> list[Message]:
    messages = []
    for value in values if isinstance(values, list) else []:
        try:
            line = msgspec.json.encode(Message.from_dict(value))
            messages.append(decode(line))
        except (ValueError, AttributeError, TypeError):
            damage.append(json.dumps(value).encode())
    return messages


def _record(head: Head, fields: dict[str, Any]) -> Record:
    extra = {key: value for key, value in fields.items() if key not in _OWN_KEYS}
    return Record(
        *head.key(),
        created_at=_seconds(fields.get("created_at")),
        agent_name=fields.get("agent_name"),
        metadata=fields.get("metadata", {}),
        state=fields.get("state", {}),
        start=head.start,
        revision=head.revision,
        extra=extra,
    )


def _try_message(line: bytes) -> Message | None:
    try:
        return decode(line)
    except (ValueError, RecursionError):
        return None


def _try_pair(line: bytes) -> dict[str, Any]:
    try:
        pair = msgspec.json.decode(b"{%b}" % line)
    except ValueError:
        return {}
    return pair if isinstance(pair, dict) else {}


def _footer_time(line: bytes) -> float:
    pair = _try_pair(line) if line.startswith(b'"updated_at"') else {}
    return _seconds(pair.get("updated_at"))


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _seconds(value: object) -> float:
    """Seconds since 1970 from what a file holds: ISO 8601 text or a number; 0.0 where it is neither."""
    if isinstance(value, (int, float)):
        return float(value)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
