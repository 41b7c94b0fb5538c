"""A session taken apart, and put together again in another place: what export, import and migration are made of.

A session holds one history with its archive, and others by its pins (snapshots, earlier heads). `Outline` is all of it but the
messages: they lie in parts, part 0 being the history with its archive. Any other part is what a pin holds and no part before
it does; it may begin with messages of an earlier one, so that what is shared is carried once.

What a reader would get wrong: message numbers and the names of logs are the engine's own and differ in another place. So
nothing here is told by a number: a place is counted from the beginning of a part or pin, and messages are alike if their
bytes are. Therefore the outline of a session is the same wherever it lies, and so is its `fingerprint`.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice, takewhile
from typing import Annotated, Any, NamedTuple

import msgspec

from praisonaiagents.errors import Conflict, NewerFormat, NotASessionFile, PraisonError, SessionNotFound
from praisonaiagents.model.message import Message, encode
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.session.data import iso
from praisonaiagents.session.store import CHECKPOINT
from praisonaiagents.storage.engine import Engine
from praisonaiagents.storage.jsonlayout import seconds

FORMAT = "praisonai-session"
VERSION = 1
UNFINISHED = "unfinished_transfer"
"""In `Record.extra` of a session that is being put together: it has not all of its messages yet. Its value tells by whom."""

_PART = "transfer:"  # pins that hold the parts meanwhile
_LEAST_STEP, _MOST_STEP = 16, 4096  # messages of one read
_CHUNK_BYTES = 4_000_000
_Number = Annotated[int, msgspec.Meta(ge=0)]


class Shared(msgspec.Struct, frozen=True):
    """Messages `start` to `stop` of an earlier part."""

    part: _Number
    start: _Number
    stop: _Number


class PartHead(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part: what it begins with, and how many messages of its own follow."""

    messages: _Number
    begins: Shared | None = None

    @property
    def length(self) -> int:
        return self.messages + (self.begins.stop - self.begins.start if self.begins else 0)


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pin: messages `start` to `stop` of a part."""

    name: str
    part: _Number
    start: _Number
    stop: _Number
    info: dict[str, Any] = {}


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A session without its messages. created_at: ISO 8601, empty if unknown. start: how many messages are archived."""

    format: str = FORMAT
    version: int = VERSION
    session_id: str
    user_id: str
    agent_name: str | None = None
    created_at: str = ""
    metadata: dict[str, Any] = {}
    state: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    pins: list[Held] = []
    start: _Number = 0
    parts: list[PartHead] = []

    @property
    def key(self) -> Key:
        return Key(self.user_id, self.session_id)

    def check(self) -> None:
        """Raise `NotASessionFile` unless all that it refers to is there, `NewerFormat` for a later version."""
        if self.format != FORMAT:
            raise NotASessionFile(f"not an exported session: its format is {self.format!r:.80}")
        if self.version > VERSION:
            raise NewerFormat(f"version {self.version} of the export format; this one reads up to {VERSION}: upgrade")
        lengths = [part.length for part in self.parts]
        spans = [(part.begins.part, part.begins, number) for number, part in enumerate(self.parts) if part.begins]
        fits = bool(lengths) and self.start <= lengths[0]
        fits &= all(part < number and span.start < span.stop <= lengths[part] for part, span, number in spans)
        fits &= all(pin.part < len(lengths) and pin.start <= pin.stop <= lengths[pin.part] for pin in self.pins)
        if not fits or len({pin.name for pin in self.pins}) < len(self.pins):
            raise NotASessionFile("the export contradicts itself: it refers to messages that it does not hold")


class _View(NamedTuple):
    """A history as it was read: its pin, and the digests of its messages.

    at: how to read it (see `Engine.read`). lost: numbers of messages that could not be read, and are left out. renamed: of
    those whose id another one has.
    """

    pin: Pin
    at: Pin | None
    digests: list[bytes]
    lost: list[int]
    renamed: frozenset[int]

    def place(self, number: int) -> int:
        """How many messages come before this number; negative for one before the beginning."""
        return number - self.pin.start - bisect_left(self.lost, number)

    def number(self, place: int) -> int:
        """The inverse of `place`."""
        number = self.pin.start + place
        for lost in self.lost:
            number += lost <= number
        return number

    def cut(self, pin: Pin) -> _View | None:
        """The view of a pin in this one; None if it goes beyond."""
        if pin.log != self.pin.log or not self.pin.start <= pin.start <= pin.length <= self.pin.length:
            return None
        lost = [number for number in self.lost if pin.start <= number < pin.length]
        digests = self.digests[self.place(pin.start) : self.place(pin.length)]
        return _View(pin, self.at, digests, lost, self.renamed)


class Outline(NamedTuple):
    """Everything of a session but the messages. lost: how many messages could not be read, and are left out."""

    record: Record
    header: Header
    own: list[tuple[_View, int]]
    """Where the messages of each part's own lie: in a view, from a number on."""
    digests: list[bytes]
    """Of all messages, each once."""
    lost: int

    @property
    def history(self) -> list[bytes]:
        """The digests of part 0."""
        return self.digests[: self.header.parts[0].messages]

    def fingerprint(self, *, with_time: bool = True) -> str:
        """A hash of all there is. with_time: the moment when the session was made counts too."""
        header = self.header if with_time else msgspec.structs.replace(self.header, created_at="")
        return hashlib.sha256(msgspec.json.encode(header) + b"".join(self.digests)).hexdigest()


# Taking apart


def outline(engine: Engine, key: Key) -> Outline:
    """Read all of a session. Raises `SessionNotFound`, and `Conflict` if somebody changed it meanwhile."""
    record = engine.get(key)
    if record is None:
        raise SessionNotFound(key.session_id, key.user_id)
    history = _view(engine, record, Pin(record.log, _oldest(engine, record), record.length), at=None)
    views = {"": history}
    for name, pin in sorted(record.pins.items(), key=lambda item: item[1].start - item[1].length):
        cut = next((cut for view in views.values() if (cut := view.cut(pin))), None)
        views["pin:" + name] = cut or _view(engine, record, pin, at=pin)
    _check_unchanged(engine, record, history)
    return _outlined(record, history, {name: views["pin:" + name] for name in record.pins})


def messages(engine: Engine, found: Outline) -> Iterator[Message]:
    """The messages of each part's own, part by part, in order. Each has an id. Raises as `outline` does."""
    for part, (view, number) in zip(found.header.parts, found.own, strict=True):
        count = 0
        for message_number, message in _read(engine, found.record.key, view, number):
            yield _identified(found.record, message_number, message, message_number in view.renamed)
            count += 1
        if count != part.messages:
            raise Conflict("messages of the session", part.messages, count)
    _check_unchanged(engine, found.record, found.own[0][0])


def visible(engine: Engine, record: Record) -> Iterator[Message]:
    """The messages that a session shows, oldest first, but for those that cannot be read."""
    view = _View(record.head, None, [], [], frozenset())
    return (message for _, message in _read(engine, record.key, view, record.start))


def _outlined(record: Record, history: _View, pins: dict[str, _View]) -> Outline:
    parts = _Parts(history)
    spans = {
        name: parts.span(pins[name]) for name in sorted(pins, key=lambda name: len(pins[name].digests), reverse=True)
    }
    header = Header(
        session_id=record.session_id,
        user_id=record.user_id,
        agent_name=record.agent_name,
        created_at=iso(record.created_at),
        metadata=record.metadata,
        state=record.state,
        extra=_renumbered({k: v for k, v in record.extra.items() if k != UNFINISHED}, history.place),
        pins=[
            Held(name, span.part, span.start, span.stop, _renumbered(view.pin.info, view.place, view.pin))
            for name, view in pins.items()
            for span in (spans[name],)
        ],
        start=history.place(record.start),
        parts=parts.heads,
    )
    lost = {(view.pin.log, number) for view in (history, *pins.values()) for number in view.lost}
    return Outline(record, header, parts.own, parts.digests, len(lost))


class _Parts:
    """The parts of a session. A view becomes one if it holds messages that none before it does."""

    def __init__(self, history: _View) -> None:
        self.heads: list[PartHead] = []
        self.own: list[tuple[_View, int]] = []
        self.digests: list[bytes] = []
        self._full: list[list[bytes]] = []
        self._places: list[dict[bytes, int]] = []
        self._add(history, None)

    def span(self, view: _View) -> Shared:
        """Where the messages of a view lie."""
        count = len(view.digests)
        if not count:
            return Shared(0, 0, 0)
        longest = max(self._alike(view.digests), key=lambda span: span.stop - span.start, default=None)
        if longest and longest.stop - longest.start == count:
            return longest
        return Shared(self._add(view, longest), 0, count)

    def _alike(self, digests: list[bytes]) -> Iterator[Shared]:
        """What each part has of the beginning of a history."""
        for number, (full, places) in enumerate(zip(self._full, self._places, strict=True)):
            start = places.get(digests[0])
            if start is not None:
                pairs = zip(full[start:], digests, strict=False)
                yield Shared(number, start, start + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)))

    def _add(self, view: _View, begins: Shared | None) -> int:
        shared = begins.stop - begins.start if begins else 0
        self.heads.append(PartHead(len(view.digests) - shared, begins))
        self.own.append((view, view.number(shared)))
        self.digests += view.digests[shared:]
        self._full.append(view.digests)
        self._places.append({digest: place for place, digest in enumerate(view.digests)})
        return len(self.heads) - 1


def _view(engine: Engine, record: Record, pin: Pin, at: Pin | None) -> _View:
    digests: list[bytes] = []
    numbers: list[int] = []
    renamed: set[int] = set()
    ids: set[str] = set()
    for number, message in _read(engine, record.key, _View(pin, at, [], [], frozenset()), pin.start):
        if message.id in ids:
            renamed.add(number)  # only in a file that somebody edited
        ids.add(message.id)
        numbers.append(number)
        digests.append(digest(_identified(record, number, message, number in renamed)))
    lost = sorted({*range(pin.start, pin.length)}.difference(numbers)) if len(numbers) < pin.length - pin.start else []
    return _View(pin, at, digests, lost, frozenset(renamed))


def _read(engine: Engine, key: Key, view: _View, start: int) -> Iterator[tuple[int, Message]]:
    """(number, message) of a view from a number on, but for those that cannot be read."""
    step = _LEAST_STEP
    while start < view.pin.length:
        stop = min(start + step, view.pin.length)
        found = engine.read(key, start, stop, at=view.at).messages
        if len(found) == stop - start:
            yield from enumerate(found, start)
        else:
            for number in range(start, stop):
                yield from enumerate(engine.read(key, number, number + 1, at=view.at).messages, number)
        start = stop
        step = min(2 * step, _MOST_STEP) if sum(map(_size, found)) < _CHUNK_BYTES else max(1, step // 4)


def _oldest(engine: Engine, record: Record) -> int:
    """The number of the oldest message in the archive."""
    return engine.read(record.key, 0, 0).first if record.start else 0


def _check_unchanged(engine: Engine, record: Record, history: _View) -> None:
    """What was appended meanwhile is no change."""
    now = engine.get(record.key)
    if now is None:
        raise SessionNotFound(record.session_id, record.user_id)
    if (now.log, now.revision) != (record.log, record.revision) or _oldest(engine, now) != history.pin.start:
        raise Conflict("revision of the session", record.revision, now.revision)


def _identified(record: Record, number: int, message: Message, renamed: bool) -> Message:
    """The message with an id, which is the same one each time. Messages in files of PraisonAI have none."""
    if message.id and not renamed:
        return message
    place = msgspec.json.encode((*record.key, number))
    digest = hashlib.blake2b(place + encode(message), digest_size=10).hexdigest()
    return msgspec.structs.replace(message, id=f"msg-{digest}")


def digest(message: Message) -> bytes:
    """What is the same for messages of the same bytes."""
    return hashlib.blake2b(encode(message), digest_size=16).digest()


def _size(message: Message) -> int:
    return len(encode(message))


def _renumbered(values: dict[str, Any], move: Callable[[int], int], pin: Pin | None = None) -> dict[str, Any]:
    """What goes with a history, with each message number moved: of a compaction, and where a pin says what was visible."""
    moved = dict(values)
    start = moved.get("start")
    if pin is not None and type(start) is int and pin.start <= start <= pin.length:
        moved["start"] = move(start)
    checkpoint = moved.get(CHECKPOINT)
    if isinstance(checkpoint, dict):
        told = _moved(checkpoint, ("message_number",), move)
        if isinstance(told.get("parts"), list):
            told["parts"] = [_moved(part, ("first", "stop"), move) for part in told["parts"]]
        moved[CHECKPOINT] = told
    return moved


def _moved(values: Any, names: Iterable[str], move: Callable[[int], int]) -> Any:
    if not isinstance(values, dict):
        return values
    return values | {name: move(values[name]) for name in names if type(values.get(name)) is int}


# Putting together


class Base(NamedTuple):
    """A history that a session in the same place holds, and that another one begins with."""

    key: Key
    at: Pin


def base_of(found: Outline, others: Iterable[Outline]) -> Base | None:
    """Of sessions in one place, the one with most of the beginning of `found`, whose user's they all are."""
    best, length = None, 0
    for other in others:
        with suppress(ValueError, IndexError):
            start = other.history.index(found.history[0])
            pairs = zip(other.history[start:], found.history, strict=False)
            count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if count > length and not other.lost:
                first = other.record.start - other.header.start + start
                best, length = Base(other.record.key, Pin(other.record.log, first, first + count)), count
    return best


def put_together(
    engine: Engine, header: Header, messages: Iterable[Message], *, base: Base | None = None, finished: bool = True
) -> Record:
    """Make the session with these messages, in the order of its parts.

    base: what it begins with is shared with another session, if the engine can. finished: else it is marked `UNFINISHED`.
    Where it fails nothing is left of it, unless somebody else wrote to the session meanwhile, or began it anew.
    Raises `SessionExists`,
    `NotASessionFile` if there are more or fewer messages than the header says, and what `Engine.append` raises.
    """
    header.check()
    made_at = seconds(header.created_at)
    mark = {UNFINISHED: os.urandom(8).hex()}
    empty = Record(*header.key, created_at=made_at, agent_name=header.agent_name, extra=mark)
    record = engine.fork(base.key, empty, at=base.at) if base else engine.open_session(empty, must_be_new=True)
    try:
        record = _filled(engine, record, header, iter(messages))
        return _dressed(engine, record, header, {} if finished else mark)
    except Conflict:
        raise
    except BaseException:
        with suppress(PraisonError):
            _ours(engine, record)
            engine.delete(header.key)
        raise


def finish(engine: Engine, record: Record) -> Record:
    """Take the mark of what is unfinished away."""
    extra = {name: value for name, value in record.extra.items() if name != UNFINISHED}
    return engine.update(record.key, {"extra": extra}, expected_revision=record.revision)


def discard(engine: Engine, record: Record) -> None:
    """Delete an unfinished session that is as `record` says. Raises `Conflict` if somebody went on with it, or finished it."""
    mark = {UNFINISHED: os.urandom(8).hex()}  # whoever is at it notices by this that it is no longer theirs
    taken = engine.update(record.key, {"extra": record.extra | mark}, expected_revision=record.revision)
    if (taken.log, taken.length) != (record.log, record.length):
        raise Conflict("messages of the session", record.length, taken.length)
    engine.delete(record.key)


def _ours(engine: Engine, record: Record, now: Record | None = None) -> Record:
    """The session as it is now. Raises `Conflict` if it is not the one that was begun here."""
    now = now or engine.get(record.key)
    if now is None or now.extra.get(UNFINISHED) != record.extra[UNFINISHED]:
        raise Conflict("revision of the session", record.revision, now.revision if now else 0)
    return now


def _changed(engine: Engine, record: Record, patch: Mapping[str, Any]) -> Record:
    """The session after a change. One that was begun anew meanwhile may have come to the same revision."""
    return _ours(engine, record, engine.update(record.key, patch, expected_revision=record.revision))


def _filled(engine: Engine, record: Record, header: Header, given: Iterator[Message]) -> Record:
    """The session with all of its messages, each part held by a pin if there are several."""
    for number, part in enumerate(header.parts):
        if part.begins:
            base = record.pins[f"{_PART}{part.begins.part}"]
            head = Pin(base.log, base.start + part.begins.start, base.start + part.begins.stop)
            record = _changed(engine, record, {"head": head})
        elif number:
            record = engine.replace(_ours(engine, record).key, [])
        shared = 0 if number else record.message_count
        own = islice(given, shared, part.messages)
        record = _appended(engine, record, own, part.messages - shared)
        if len(header.parts) > 1:
            pins = record.pins | {f"{_PART}{number}": record.head}
            record = _changed(engine, record, {"pins": pins})
    if next(given, None) is not None:
        raise NotASessionFile("the export holds more messages than it says")
    return record


def _appended(engine: Engine, record: Record, given: Iterable[Message], count: int) -> Record:
    length = record.length
    for chunk in _chunks(given):
        done = engine.append(record.key, chunk, expected_length=length)
        length += len(chunk)
        if done.length != length:
            raise NotASessionFile("the export holds two messages of one id in one history")
    if length != record.length + count:
        raise NotASessionFile(f"the export ends early: {record.length + count - length} messages are missing")
    return _ours(engine, record)


def _chunks(given: Iterable[Message]) -> Iterator[list[Message]]:
    """Few enough messages at a time that one call of an engine can take them."""
    chunk: list[Message] = []
    size = 0
    for message in given:
        chunk.append(message)
        size += _size(message)
        if len(chunk) == _MOST_STEP or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _dressed(engine: Engine, record: Record, header: Header, mark: dict[str, Any]) -> Record:
    """The session with its record as it should be, and its pins instead of those of the parts."""
    several = len(header.parts) > 1
    bases = [record.pins[f"{_PART}{number}"] if several else record.head for number in range(len(header.parts))]
    if several or header.pins:
        pins = {held.name: _pin(held, bases[held.part]) for held in header.pins}
        patch = {"pins": pins} | ({"head": bases[0]} if several else {})
        record = _changed(engine, record, patch)
    first = record.start
    extra = {name: value for name, value in header.extra.items() if name != UNFINISHED}
    extra = _renumbered(extra, lambda place: first + place) | mark
    values = {"metadata": header.metadata, "state": header.state, "extra": extra, "start": first + header.start}
    return engine.update(record.key, values, expected_revision=record.revision)


def _pin(held: Held, base: Pin) -> Pin:
    start, length = base.start + held.start, base.start + held.stop
    local = Pin("", 0, length - start)  # what the places in `info` are counted in
    return Pin(base.log, start, length, _renumbered(held.info, lambda place: start + place, local))
