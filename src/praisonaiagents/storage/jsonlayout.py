"""The session file as bytes: how it is written, and what is read of it without reading messages.

    {
    "session_id": "my-session",
    "user_id": "default_user",
    "storage": {"format":2,"revision":1,"first":0,"start":1},
    "agent_name": null,
    "created_at": "2026-11-22T09:30:00+00:00",
    "metadata": {},
    "state": {},
    "pins": [                                   only where there are any
    {"pin":"before","start":0,"length":2,"info":{"label":"Before the pizza"}},
    {"pin":"undo","log":"f00d","start":0,"length":2}
    ],
    "logs": [                                   what only pins hold
    {"log":"f00d","first":0,"length":1,"same":""},
    {"log":"f00d","first":1,"length":2,"messages":[
     {"role":"user","content":"No, Bob","timestamp":1795253400.0,"id":"msg-4"}
    ]}
    ],
    "archived_messages": [                      only where there are any
    {"role":"user","content":"Long ago","timestamp":1795253000.0,"id":"msg-1"}
    ],
    "messages": [
    {"role":"user","content":"My name is Alice","timestamp":1795253400.0,"id":"msg-2"},
    {"role":"assistant","content":"Hello Alice","timestamp":1795253401.5,"id":"msg-3"}
    ],
    "message_count": 2,
    "updated_at": "2026-11-22T09:30:01.500000+00:00"
    }

It is one JSON object, with one message a line, because that makes three things cheap: an append overwrites the short footer
with the message and a new footer; the last fifty messages are found from the end; a torn or damaged line is one message and
not the file. `first` is the number of the first message in the file, `start` of the first in `messages`; both only change
when the file is rewritten. A message line always starts with `{` and a footer line never does, and JSON escapes line ends
inside text, so the two can't be confused whatever a message says.

The history's own log has no name in the pins, so that they don't depend on one more line. It has one in `storage` from the
moment when it is not the session's first any more; the first is named after the time of its making. A file with pins has
format 2, because a version that doesn't know them would free what they hold; any other has format 1, as it always had.

What a reader would get wrong: messages that only pins hold lie in `logs`, each under its log and number, and their lines
start with a blank, so that none is ever taken for one of the history, whatever becomes of the lines around it. One that
stands in the file already under the same number, in another log, is not written again: `same` names that log ("" for the
history's own).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from typing import Annotated, Any, NamedTuple

import msgspec

from praisonaiagents.errors import InvalidId
from praisonaiagents.model.ids import DEFAULT_USER, check_session_id, check_user_id
from praisonaiagents.model.message import Message, encode
from praisonaiagents.model.record import RESERVED, Key, Pin, Record

FORMAT = 2
FOOTER_ROOM = 192  # bytes in which a footer always fits, with what stands before it

_HEAD = re.compile(
    rb'(\{\n"session_id": ".*",\n"user_id": ".*",\n"storage": \{)'
    rb'"format":(\d+),"revision":(\d+),"first":(\d+),"start":(\d+)(?:,"log":"([\w-]+)")?\},\n'
)
# A time of another length would let the end of one footer pass for the end of another, halfway through an append.
_FOOTER = re.compile(rb'\n\],\n"message_count": (\d+),\n"updated_at": "([0-9T:.+-]{25,32})"\n\}\n?\Z')
PINS = b'"pins": ['
LOGS = b'"logs": ['
ARCHIVE = b'"archived_messages": ['
MESSAGES = b'"messages": ['
KEPT_MESSAGES = b'"messages":['
_END_OF_HEADER = re.compile(rb'^"(?:logs|archived_messages|messages)": \[', re.MULTILINE)
NOISE = b"\0\r ,"
KINDS = {"agent_name": (str, type(None)), "metadata": (dict, type(None)), "state": (dict, type(None))}
_DEFAULT_USER_IN_REFERENCE = ("", "praison", "default", DEFAULT_USER)
_YEAR_9999_S = 253_370_764_800  # the last year that ISO 8601 and `datetime` know

Kept = dict[str, dict[int, Message]]
"""Messages that only pins hold, by log and number, in the order of their numbers."""
Number = Annotated[int, msgspec.Meta(ge=0)]


class Head(NamedTuple):
    """The first lines of a file in our layout, which say whose it is and how it is numbered. `size` is in bytes."""

    prefix: bytes
    revision: int
    first: int
    start: int
    log: str
    """The name of the history's log; empty if it is the session's first."""
    size: int

    def key(self) -> Key | None:
        """Whose file it is, if the ids can be read."""
        return key_in(pairs(self.prefix[2 : self.prefix.rindex(b",")]))


class Footer(NamedTuple):
    """The last lines of a file in our layout. `raw` are their bytes; `follows_message` tells whether there is any message."""

    message_count: int
    raw: bytes
    follows_message: bool

    @property
    def updated_at(self) -> float:
        match = _FOOTER.match(self.raw)
        return seconds(match[2].decode()) if match else 0.0


class PinLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One pin. `log` is empty for the history's own."""

    pin: str
    log: str = ""
    start: Number
    length: Number
    info: dict[str, Any] = {}


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Messages `first` to `length` of a log: those of log `same` with these numbers, or `messages`, or those that follow.

    Either name is empty for the history's own log.
    """

    log: str
    first: Number
    length: Number
    same: str | None = None
    messages: list[Any] = []


class TooNew(ValueError):
    """The bytes are a session file of a newer version."""


def head_prefix(key: Key) -> bytes:
    """The bytes with which this session's file starts, if it is in our layout."""
    return b'{\n"session_id": %b,\n"user_id": %b,\n"storage": {' % (to_json(key.session_id), to_json(key.user_id))


def find_head(data: bytes) -> Head | None:
    """The head at the start of `data`, or None if the file is not in our layout. Raises `TooNew`."""
    match = _HEAD.match(data)
    if match is None:
        return None
    prefix, number, revision, first, start, log = match.groups()
    check_format(int(number))
    head = Head(prefix, int(revision), int(first), int(start), (log or b"").decode(), match.end())
    return head if head.first <= head.start else None


def find_footer(data: bytes) -> Footer | None:
    """The footer at the end of `data`, or None if there is none, as after a crash in the middle of a write."""
    match = _FOOTER.search(data, max(0, len(data) - FOOTER_ROOM))
    if match is None:
        return None
    return Footer(int(match[1]), match[0], data[match.start() - 1 : match.start()] == b"}")


def find_history(data: bytes, head: Head) -> int:
    """Where the messages of the history and its archive begin in a whole file."""
    messages = data.find(b"\n" + MESSAGES, head.size - 1)
    archive = data.find(b"\n" + ARCHIVE, head.size - 1, messages)
    return max(0, messages if archive < 0 else archive)


def footer_bytes(message_count: int, updated_at: float) -> bytes:
    """The closing lines of a file."""
    return b'\n],\n"message_count": %d,\n"updated_at": "%b"\n}\n' % (message_count, _iso(updated_at).encode())


def header_record(key: Key, head: Head, data: bytes) -> Record | None:
    """The record in the header lines at the start of `data`, or None if the header is not whole within it."""
    end = _END_OF_HEADER.search(data, head.size)
    if end is None:
        return None
    try:
        values = msgspec.json.decode(b"{%b}" % data[head.size : end.start()].removesuffix(b",\n"))
        record = record_of_values(key, values, start=head.start, revision=head.revision, log=head.log)
        if "pins" not in values:
            return record
        lines = msgspec.convert(values["pins"], list[PinLine])
    except (ValueError, RecursionError):
        return None
    return msgspec.structs.replace(record, pins={line.pin: pin_of(line, record.log) for line in lines})


def render(record: Record, first: int, messages: Sequence[Message | bytes], kept: Kept) -> bytes:
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
        _numbers(record, first),
        *(b"%b: %b,\n" % (to_json(key), to_json(value)) for key, value in header.items()),
    ]
    if record.pins:
        pieces += _list(PINS, [to_json(_pin_line(name, pin, record.log)) for name, pin in record.pins.items()])
    if kept:
        pieces += _list(LOGS, list(_logs(record.log, dict(enumerate(lines, first)), kept)))
    if archived:
        pieces += _list(ARCHIVE, archived)
    pieces += [MESSAGES, b"\n" if visible else b"", b",\n".join(visible)]
    return b"".join([*pieces, footer_bytes(len(visible), record.updated_at)])


def _numbers(record: Record, first: int) -> bytes:
    """The rest of the line that begins with `storage`."""
    log = b"" if record.log == first_log(record.created_at) else b',"log":%b' % to_json(record.log)
    number = FORMAT if record.pins else 1
    return b'"format":%d,"revision":%d,"first":%d,"start":%d%b},\n' % (
        number,
        record.revision,
        first,
        record.start,
        log,
    )


def _list(opening: bytes, lines: list[bytes]) -> list[bytes]:
    return [opening, b"\n", b",\n".join(lines), b"\n],\n"]


def _pin_line(name: str, pin: Pin, own: str) -> PinLine:
    log = "" if pin.log == own else pin.log
    return PinLine(pin=name, log=log, start=pin.start, length=pin.length, info=pin.info)


def _logs(own: str, history: Mapping[int, bytes], kept: Kept) -> Iterator[bytes]:
    """What only pins hold, in runs of consecutive numbers that have their messages from one place."""
    written = dict.fromkeys(history.items(), "")

    def place(item: tuple[int, tuple[int, bytes]]) -> tuple[int, str | None]:
        index, message = item
        return message[0] - index, written.get(message)

    for name, messages in kept.items():
        log = "" if name == own else name
        numbered = enumerate((number, encode(message)) for number, message in messages.items())
        for (_, same), group in groupby(numbered, place):
            run = [message for _, message in group]
            line = to_json(LogLine(log=log, first=run[0][0], length=run[-1][0] + 1, same=same))
            if same is None:
                written |= dict.fromkeys(run, log)
                line = b"%b,%b\n %b\n]}" % (line[:-1], KEPT_MESSAGES, b",\n ".join(message for _, message in run))
            yield line


def pin_of(line: PinLine, own: str) -> Pin:
    return Pin(line.log or own, line.start, line.length, line.info)


def first_log(created_at: float) -> str:
    """The name of a session's first log: of two sessions of one id, one was made later."""
    return f"{round(created_at * 1_000_000):x}"


def record_of_values(
    key: Key, values: dict[str, Any], *, start: int, revision: int, log: str, length: int = 0, updated_at: float = 0.0
) -> Record:
    agent_name, metadata, state = (
        value if isinstance(value := values.get(name), kinds) else None for name, kinds in KINDS.items()
    )
    created_at = seconds(values.get("created_at"))
    return Record(
        *key,
        created_at=created_at,
        agent_name=agent_name,
        metadata=metadata or {},
        state=state or {},
        start=start,
        revision=revision,
        extra={key: value for key, value in values.items() if key not in RESERVED},
        length=length,
        updated_at=updated_at,
        log=log or first_log(created_at),
    )


def key_in(values: dict[str, Any], *, of_reference: bool = False) -> Key | None:
    """Whose file it is. PraisonAI's user names `praison` and `default` mean the default user."""
    owner = values.get("user_id")
    if of_reference and (not isinstance(owner, str) or owner in _DEFAULT_USER_IN_REFERENCE):
        owner = DEFAULT_USER
    try:
        return Key(check_user_id(owner), check_session_id(values.get("session_id")))
    except InvalidId:
        return None


def pairs(lines: bytes) -> dict[str, Any]:
    """The keys and values in header lines; nothing if they are not whole."""
    try:
        found = msgspec.json.decode(b"{%b}" % lines.rstrip(NOISE))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check_format(number: int) -> None:
    if number > FORMAT:
        raise TooNew(f"format {number}, this version reads up to {FORMAT}: upgrade")


def to_json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _iso(seconds: float) -> str:
    whole, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_iso_second(whole)}.{microseconds:06}+00:00" if microseconds else f"{_iso_second(whole)}+00:00"


@lru_cache(maxsize=8)
def _iso_second(seconds: int) -> str:
    """Date and time of a whole second: a busy process asks for the same one thousands of times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def seconds(value: object) -> float:
    """Seconds since 1970 from what a file holds: ISO 8601 text or a number; 0.0 where it is neither."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() if moment else value
    except (ValueError, OverflowError):
        return 0.0
    return float(found) if isinstance(found, (int, float)) and 0 <= found < _YEAR_9999_S else 0.0
