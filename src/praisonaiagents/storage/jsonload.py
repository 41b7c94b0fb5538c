"""A whole session file: ours, whole or torn or laid out anew by an editor; or PraisonAI's.

Anything that is a JSON object with `messages` is read: that is how PraisonAI's own files get in. What is no valid JSON is read
by its lines, as far as they are whole, or by how far they are indented.

What a reader would get wrong: a message that cannot be read leaves a gap, and those after it move up, so that the numbers of
a history have none. Then the numbers of that log mean other messages, and so it gets another name. A pin moves along: it
shows what is left of its messages, and none that it did not hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from praisonaiagents.model.message import Message, decode, encode
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.storage import jsonlayout as layout
from praisonaiagents.storage.jsonlayout import (
    ARCHIVE,
    KEPT_MESSAGES,
    LOGS,
    MESSAGES,
    NOISE,
    PINS,
    Kept,
    LogLine,
    PinLine,
)

_Entries = list[Message | None]
"""Messages in their order. None is one that could not be read."""

_LINES = re.compile(rb'^"(?:session_id|storage|messages|message_count)": ', re.MULTILINE)
_BETWEEN = re.compile(rb'^.{0,2}?(?= ?\{"(?:role|pin|log)":)')  # what a bad byte or two make of a comma and a line end
_SECTION_LINE = re.compile(rb'^\].*?(?=\{"(?:pin|log)":)')  # the end of something, and no line end before what follows
_AFTER_MESSAGE = NOISE + b"]"  # a write torn after its first byte leaves a comma, and the bracket of the old footer
_OF_A_MESSAGE = re.compile(rb'"(?:role|content)|(?:role|content)":')
_DERIVED = (b'"message_count": ', b'"updated_at": "')
_OPENINGS = (PINS, LOGS, ARCHIVE, MESSAGES)
_EMPTY = frozenset((b"", b"{", b"}", b"[", b"[]", b"]", b"]}", *_OPENINGS))
_ENTRY = re.compile(r'^([ \t]*)(?:\{|"((?:[^"\\\n]|\\.)*)"[ \t]*:[ \t]*)', re.MULTILINE)
_T = TypeVar("_T")
_LISTS = ("archived_messages", "messages")
_MIRRORED = ("model", "llm", "total_tokens", "token_count", "cost", "source")


class Loaded(NamedTuple):
    """A whole file. `damage` are the pieces that could not be read; `broken` tells whether it has to be written anew.

    kept: what pins hold besides the history. moved: (log, start, length) of the head and of pins that the file names
    otherwise than `record`, because some of the messages before their ends could not be read.
    """

    record: Record
    first: int
    messages: list[Message]
    kept: Kept
    damage: list[bytes]
    broken: bool
    moved: Mapping[tuple[str, int, int], Pin]

    def now(self, pin: Pin) -> Pin:
        """A pin that was read from this file, as `record` has it."""
        moved = self.moved.get((pin.log, pin.start, pin.length))
        return msgspec.structs.replace(moved, info=pin.info) if moved else pin

    def history(self, pin: Pin) -> list[Message]:
        """The messages of a pin that the session holds."""
        kept = self.kept.get(pin.log, {})
        numbers = range(pin.start, pin.length)
        return [kept[number] if number in kept else self.messages[number - self.first] for number in numbers]

    def held(self, record: Record, first: int) -> Kept:
        """What only the pins of `record` hold, if its history and archive begin at `first`."""
        held: Kept = {}
        for pin in record.pins.values():
            stop = min(pin.length, first) if pin.log == record.log else pin.length
            numbered = zip(range(pin.start, stop), self.history(Pin(pin.log, pin.start, stop)), strict=True)
            held.setdefault(pin.log, {}).update(numbered)
        return {log: dict(sorted(messages.items())) for log, messages in held.items() if messages}


class Unreadable(ValueError):
    """The bytes are no session file, and no part of one was found in them."""


class _Part(NamedTuple):
    """Consecutive messages of a log that pins hold."""

    line: LogLine
    entries: _Entries


class _Found(NamedTuple):
    """What was found in a file: top-level keys and values, messages, and pieces that could not be read."""

    values: dict[str, Any]
    archived: _Entries
    messages: _Entries
    pins: dict[str, PinLine]
    parts: list[_Part]
    damage: list[bytes]

    @property
    def total(self) -> int:
        """How much was found, to compare one way of reading with another."""
        lists = (self.archived, self.messages, *(part.entries for part in self.parts))
        return sum(len(entries) - entries.count(None) for entries in lists) + len(self.pins) + len(self.parts)


def load(data: bytes, named: Key | None = None) -> Loaded:
    """Read any session file. `named` is the session that the file's name tells, for a file that does not say it itself.

    Raises `Unreadable` where nothing of a session was found, `layout.TooNew`.
    """
    ours = layout.find_head(data) is not None
    found = _Lines().read(data) if _LINES.search(data) else None
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
    numbers = {name: _number(storage or {}, name) for name in ("format", "revision", "first", "start")}
    layout.check_format(numbers["format"])
    key = layout.key_in(values, of_reference=storage is None) or named
    if key is None:
        raise Unreadable("the file does not say which session it holds")
    misfits = [
        layout.to_json({name: values[name]})
        for name, kind in layout.KINDS.items()
        if not isinstance(values.get(name), kind)
    ]
    archived = _with_gaps(found.archived, numbers["start"] - numbers["first"])
    visible = _with_gaps(found.messages, _number(values, "message_count"))
    last = next((message for message in reversed(archived + visible) if message), None)
    updated = [values.get("updated_at"), last.timestamp if last else 0.0, values.get("created_at")]
    log = (storage or {}).get("log")
    record = layout.record_of_values(
        key,
        _with_mirrored(values) if storage is None else values,
        start=numbers["first"] + len(archived),
        revision=numbers["revision"],
        log=log if isinstance(log, str) else "",
        length=numbers["first"] + len(archived) + len(visible),
        updated_at=next(filter(None, map(layout.seconds, updated)), 0.0),
    )
    loaded = _without_gaps(record, numbers["first"], archived + visible, found)
    damage = found.damage + misfits + loaded.damage
    return loaded._replace(damage=damage, broken=broken or bool(damage))


def _with_mirrored(values: dict[str, Any]) -> dict[str, Any]:
    """PraisonAI repeats some keys of the metadata above it, where old versions of it have them alone."""
    metadata = values.get("metadata")
    mirrored = {key: values[key] for key in _MIRRORED if values.get(key) is not None}
    return values | {"metadata": mirrored | (metadata if isinstance(metadata, dict) else {})}


# Gaps


def _with_gaps(entries: _Entries, expected: int) -> _Entries:
    """The entries with a None for each message that is lost, if there should be `expected` of them.

    Damage in one place may have made one line of several messages, or several of one; the number tells.
    """
    gaps = [place for place, entry in enumerate(entries) if entry is None]
    lost = expected - len(entries) + len(gaps)
    if not gaps or lost <= 0 or gaps[-1] - gaps[0] >= len(gaps):
        return entries
    return [*entries[: gaps[0]], *[None] * lost, *entries[gaps[-1] + 1 :]]


def _without_gaps(record: Record, first: int, entries: _Entries, found: _Found) -> Loaded:
    """The file with consecutive numbers in every history."""
    if not found.pins and not found.parts and None not in entries:
        return Loaded(record, first, cast("list[Message]", entries), {}, [], False, {})
    own = record.log
    parts = [
        part._replace(entries=_with_gaps(part.entries, part.line.length - part.line.first)) for part in found.parts
    ]
    logs = _numbered(own, first, entries, parts)
    whole = _closed(logs[own], Pin(own, first, record.length))
    start = record.start - entries[: record.start - first].count(None)
    moved = {(own, record.start, record.length): Pin(whole.log, start, whole.length)}
    pins = {name: layout.pin_of(line, own) for name, line in found.pins.items()}
    unheld = [encode(message) for message in _unheld(own, parts, pins.values())]
    kept: Kept = {}
    for name, pin in pins.items():
        if pin.log == whole.log and first <= pin.start <= pin.length <= whole.length:
            continue
        messages = logs.get(pin.log, {})
        pins[name] = moved[pin.log, pin.start, pin.length] = closed = _closed(messages, pin)
        kept.setdefault(closed.log, {}).update(enumerate(_within(messages, pin).values(), pin.start))
    kept = {log: dict(sorted(messages.items())) for log, messages in kept.items() if messages}
    record = msgspec.structs.replace(record, log=whole.log, start=start, length=whole.length, pins=pins)
    return Loaded(record, first, [entry for entry in entries if entry], kept, unheld, False, moved)


def _numbered(own: str, first: int, entries: _Entries, parts: Sequence[_Part]) -> Kept:
    """All messages in the file by log and the numbers they had when it was written."""
    logs: Kept = {own: {number: entry for number, entry in enumerate(entries, first) if entry}}
    for line, kept in parts:
        if line.same is None:
            found = {number: entry for number, entry in enumerate(kept, line.first) if entry}
        else:
            found = _within(logs.get(line.same or own, {}), Pin("", line.first, line.length))
        logs[line.log or own] = found | logs.get(line.log or own, {})
    return {log: dict(sorted(messages.items())) for log, messages in logs.items()}


def _within(messages: Mapping[int, Message], pin: Pin) -> dict[int, Message]:
    return {number: message for number, message in messages.items() if pin.start <= number < pin.length}


def _closed(messages: Mapping[int, Message], pin: Pin) -> Pin:
    """The pin as it is when no number is missing before its end."""
    left = _within(messages, pin)
    length = pin.start + len(left)
    log = pin.log if not left or max(left) < length else f"{pin.log}-{_digest(pin.start, left.values()):08x}"
    return Pin(log, pin.start, length, pin.info)


def _digest(start: int, messages: Iterable[Message]) -> int:
    """A number for messages from `start` on. A log that is named after it never holds others under these numbers."""
    from zlib import crc32  # only where there is damage

    return crc32(b"%d\n%b" % (start, b"\n".join(map(encode, messages))))


def _unheld(own: str, parts: Sequence[_Part], pins: Collection[Pin]) -> Iterator[Message]:
    """What no pin holds although it was kept for one: the pin could not be read."""
    for line, entries in parts:
        pins_there = [pin for pin in pins if pin.log == (line.log or own)]
        for number, entry in enumerate(entries, line.first):
            if entry and not any(pin.start <= number < pin.length for pin in pins_there):
                yield entry


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
    pins, parts = _pins_and_parts(values, damage)
    return _Found(_storable(values) if damage else values, archived, messages, pins, parts, damage)


class _Lines:
    """A file in our layout, as far as its lines are whole."""

    def __init__(self) -> None:
        self._found = _Found({}, [], [], {}, [], [])
        self._into = self._found.messages
        self._orphans: _Entries = []
        self._kept = self._orphans
        self._listed = False  # until a list has begun, a line that cannot be read is no message

    def read(self, data: bytes) -> _Found:
        for line in data.split(b"\n"):
            if line.startswith(b'{"role":') and (message := _message(line.rstrip(_AFTER_MESSAGE))):
                self._into.append(message)
                continue
            for rest in map(self._take, _pieces(line)):
                if _is_damage(rest):
                    self._found.damage.append(rest)
        self._found.damage.extend(encode(message) for message in self._orphans if message)
        return self._found

    def _take(self, piece: bytes) -> bytes:
        """Take what a piece holds; return what of it could not be read."""
        if piece.startswith(b'{"pin":'):
            return self._take_pin(piece)
        if piece.startswith(b'{"log":'):
            return self._take_log(piece)
        if piece.startswith((b'{"', b' {"')):
            return self._take_messages(piece)
        if piece == ARCHIVE:
            self._begin(self._found.archived)
        elif piece == MESSAGES or piece.strip(NOISE) in (b"]", b"]}"):
            self._begin(self._found.messages)
        elif pair := layout.pairs(piece):
            self._found.values.update(pair)
            return b""
        elif self._listed and (self._kept is not self._orphans or _OF_A_MESSAGE.search(piece)):
            (self._into if self._kept is self._orphans else self._kept).append(None)
        return piece

    def _take_messages(self, piece: bytes) -> bytes:
        into = self._into if piece.startswith(b"{") else self._kept
        messages, rest = _on_line(piece.lstrip(b" "))
        into.extend(messages)
        if rest.startswith(b"{") and (into is self._kept or _OF_A_MESSAGE.search(rest)):
            into.append(None)
        return rest

    def _begin(self, into: _Entries, kept: _Entries | None = None) -> None:
        """The messages that follow go there, or where they were kept for a pin, to `kept`."""
        self._into, self._listed = into, True
        self._kept = self._orphans if kept is None else kept

    def _take_pin(self, piece: bytes) -> bytes:
        end = _end_of_object(piece)
        line = _decoded(piece[:end], PinLine)
        if line is None:
            return piece
        self._found.pins[line.pin] = line
        return self._take_rest(piece[end:])

    def _take_log(self, piece: bytes) -> bytes:
        """A whole one, or the line before its messages."""
        self._begin(self._found.messages)
        if end := _end_of_object(piece):
            line = _decoded(piece[:end], LogLine)
            self._found.parts.extend([_Part(line, _messages(line.messages, self._found.damage))] if line else [])
            return self._take_rest(piece[end:]) if line else piece
        head, follow, rest = piece.partition(KEPT_MESSAGES)
        line = _decoded(head + follow + b"]}", LogLine)
        if line is None:
            return piece
        part = _Part(line, [])
        self._found.parts.append(part)
        self._begin(self._found.messages, part.entries)
        return self._take_rest(rest)

    def _take_rest(self, rest: bytes) -> bytes:
        """What stands behind something on its line, if the line end is gone."""
        rest = _BETWEEN.sub(b"", rest)
        return self._take(rest) if rest.startswith((b"{", b" {")) else rest


def _pieces(line: bytes) -> list[bytes]:
    """A line; or the opening of a list, with what stands before and after it on its line."""
    if line.startswith((b'{"', b' {"')):
        return [line]
    for opening in _OPENINGS:
        before, begins, after = line.partition(opening[:-1])
        if begins and not (before and layout.pairs(line)):
            return [before, opening, _BETWEEN.sub(b"", after)]
    if end := _SECTION_LINE.match(line):
        return [end[0], line[end.end() :]]
    return [line]


def _is_damage(line: bytes) -> bool:
    """True for a line that holds more than brackets, commas and what a file's end is made of."""
    derived = any(key.startswith(line[: len(key)]) for key in _DERIVED)
    return not derived and line.strip(NOISE) not in _EMPTY


def _on_line(line: bytes) -> tuple[list[Message], bytes]:
    """The messages on a line, and what could not be read: one message and scraps, or several whose line ends are gone."""
    rest = line.rstrip(_AFTER_MESSAGE)
    if message := _message(rest):
        return [message], b""
    messages: list[Message] = []
    while message := _message(rest[: _end_of_object(rest)]):
        messages.append(message)
        rest = _BETWEEN.sub(b"", rest[_end_of_object(rest) :]).lstrip(b" ")
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
            into.append(value)
        else:
            into = None
            values |= {name: value} if position > entry.end() else {}
    if "session_id" not in values or "messages" not in lists:
        raise Unreadable("the file holds no session")
    archived, messages = (_messages(lists.get(name), []) for name in _LISTS)
    pins, parts = _pins_and_parts(values, [])
    return _Found(_storable(values), archived, messages, pins, parts, [data])


def _value_at(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at a position, and where it ends: `position` itself if there is none."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, position)
    except (ValueError, RecursionError):
        return None, position
    return value, end


def _messages(values: object, damage: list[bytes]) -> _Entries:
    """The messages in a JSON list; what is none goes to `damage`."""
    messages: _Entries = []
    if values is not None and not isinstance(values, list):
        damage.append(json.dumps(values).encode())
        return messages
    for value in values or []:
        try:
            messages.append(decode(encode(Message.from_dict(value))))
        except (ValueError, AttributeError, RecursionError):
            damage.append(json.dumps(value).encode())
            messages.append(None)
    return messages


def _pins_and_parts(values: dict[str, Any], damage: list[bytes]) -> tuple[dict[str, PinLine], list[_Part]]:
    """Take the pins, and what they hold, out of the keys and values of a file; what is neither goes to `damage`."""
    pins = {line.pin: line for line in _converted(values.pop("pins", None), PinLine, damage)}
    lines = _converted(values.pop("logs", None), LogLine, damage)
    return pins, [_Part(line, _messages(line.messages, damage)) for line in lines]


def _converted(values: object, kind: type[_T], damage: list[bytes]) -> list[_T]:
    """The items of a JSON list that are of a kind."""
    found: list[_T] = []
    for value in values if isinstance(values, list) else [] if values is None else [values]:
        try:
            found.append(msgspec.convert(value, kind))
        except (ValueError, RecursionError):
            damage.append(json.dumps(value).encode())
    return found


def _decoded(line: bytes, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except (ValueError, RecursionError):
        return None


def _message(line: bytes) -> Message | None:
    try:
        return decode(line)
    except (ValueError, RecursionError):
        return None


def _storable(values: dict[str, Any]) -> dict[str, Any]:
    """What of it JSON can hold."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        with suppress(ValueError, RecursionError):
            kept |= msgspec.json.decode(layout.to_json({key: value}))
    return kept


def _number(values: dict[str, Any], name: str) -> int:
    value = values.get(name)
    return value if type(value) is int and value >= 0 else 0
