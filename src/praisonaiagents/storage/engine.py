"""The contract every storage engine keeps.

An engine stores records and append-only logs of messages under a `Key` (user id, session id), and nothing else: naming
snapshots, undoing, trimming, retrying and everything people call lie above it, so a new engine can't get them wrong. The
memory engine is the meaning of this contract, and `praisonaiagents.testing.EngineContract` checks any other against it.

A session shows one history, the end of one log (`record.log`). Forking, and moving the head to a pin (`record.Pin`), start
a new log whose first messages are those of an old one. Whether they are shared or copied is the engine's business: nobody
can tell, but by the cost. What neither a session's history, its archive nor a pin holds any more is freed by the call that
let go of it last.

What holds for every call:

- It returns and what it was given is stored, or it raises and nothing changed. Over a network only, it may raise
  `OutcomeUnknown`; repeating the call with the same message ids is then safe.
- Two keys never share anything: neither two users of one session id, nor two ids that look alike.
- Reads are fresh: what a call returned before, in any process, the next call sees.
- Any number of threads and processes may call at once. Appends to one session all land, each once, in one order that all
  readers agree on.
- Messages are numbered from 0 in the order of their appends. In one log no number is ever given twice, also when messages
  are dropped: whoever has read a session up to a number asks for what follows it, as long as `record.log` is the same.
- Values come back exactly as given. What JSON cannot hold exactly is refused with `InvalidMessage`. Nothing that was
  given or returned is shared: changing it later changes nothing that is stored.
- Damage is contained: what cannot be read is kept aside and reported as a `SessionDamage` warning, the rest is returned.

The caller closes an engine it made; a closed engine may not be used.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import msgspec

from praisonaiagents.errors import MessageIdConflict
from praisonaiagents.model.message import Message, decode, encode_checked
from praisonaiagents.model.record import Key, Pin, Record

if TYPE_CHECKING:
    from praisonaiagents.model.search import Query


class Appended(NamedTuple):
    """What an append did. Messages `start` to `length` are visible now; `ids` are those of the messages given, in order."""

    start: int
    length: int
    ids: tuple[str, ...]


class Slice(NamedTuple):
    """Consecutive messages, oldest first. `first` is the number of the first one."""

    first: int
    messages: list[Message]


class Page(NamedTuple):
    """One page of a listing, newest first. `after` gives the next page; None means there is none."""

    records: list[Record]
    after: str | None


class Hit(NamedTuple):
    """A message that was found: whose session, its number there, and the message."""

    key: Key
    number: int
    message: Message


class Found(NamedTuple):
    """What a search found. `complete` is False if it stopped before it had looked at everything."""

    hits: list[Hit]
    complete: bool = True


@runtime_checkable
class Engine(Protocol):
    """Where bytes rest. See the module for what holds for every call."""

    @property
    def concurrency(self) -> int:
        """How many calls at once are of use; more would wait for each other."""
        ...

    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        """Make the session `record` describes, with no messages, unless it is there; return what is there then.

        `start`, `length`, `revision` and `updated_at` are the engine's own, whatever `record` says; `created_at` is now
        if it is 0, and kept to the microsecond. Of any number of callers at once, one makes it. An existing session is
        left as it is. Raises `SessionExists` for one if `must_be_new`, `InvalidId`, `InvalidMessage` (`check_record`).
        """
        ...

    def get(self, key: Key) -> Record | None:
        """The session's record with `length` and `updated_at` filled in, or None. Makes nothing."""
        ...

    def list_sessions(self, user_id: str | None, *, after: str | None = None, limit: int = 50) -> Page:
        """Up to `limit` sessions (at least 1) of a user (None: of all users), the one changed last first.

        Sessions changed at the same instant come in an unspecified but stable order. Reading, a repeated append and
        `drop` are no changes. `after` is the `Page.after` of the page before. A session that does not change while its
        pages are read is seen exactly once, whatever becomes of the others.
        """
        ...

    def owners(self, session_id: str) -> list[str]:
        """The ids of the users who have a session of this id, sorted."""
        ...

    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        """Add messages at the end, all or none of them, at a cost that does not depend on the length of the history.

        A message without an id is given a new one. A message whose id is stored already in this session (or earlier in
        this call) with equal content is left out, whatever its time; with other content the call raises
        `MessageIdConflict`. If anything is left to be stored and `expected_length` is not the session's length, raises
        `Conflict`. Raises `SessionNotFound`, `InvalidMessage`, `MessageTooLarge`.
        """
        ...

    def read(self, key: Key, start: int | None = None, stop: int | None = None, *, at: Pin | None = None) -> Slice:
        """Messages number `start` up to, not including, `stop`.

        `start` None means the first visible message; a negative start counts from the end and stops at the first visible
        message. `stop` None means the end. Numbers of archived messages may be given; what lies outside the history is
        left out, and no message has a negative number; archived ones that `drop` freed are outside, also where a pin or a
        fork still has them. A session that is not there has no messages. The cost depends on
        the messages returned and those after them, not on those before.

        at: read this history instead, whose messages are all visible, and nothing before them is there. It must be held by
        the session as in `update`; raises `InvalidMessage` if it is not. The cost may depend on everything that is held.
        """
        ...

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        """Replace fields of the record (those in `record.PATCHABLE`) and return it, its revision counted up.

        `start` only moves forward, up to `length`. `pins` replaces all pins; a pin holds messages that the head, the archive
        or a pin of this session already holds, and keeps them whatever becomes of those. It may come back with another
        `log` for the same messages. `head` is a pin too: the session shows its history, in a new log, and appends go on
        from there; what neither pins nor forks hold of the old one is freed. Pins in the same patch may hold the old head.
        `keep` (info by name) adds pins that hold the old head and its archive, with all that others appended until this very
        moment; `info["start"]` becomes the number of the first message that was visible.

        Raises `SessionNotFound`, `Conflict` if `expected_revision` is not the
        record's revision, `InvalidMessage` for another field or a value that it cannot hold (`record.patched`).
        """
        ...

    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        """Make `messages` the whole history, in one step, in a new log; numbering goes on. All earlier messages are freed,
        but for those that pins and forks hold.

        They get ids as in `append`, and may have those of earlier messages. Counts as a change of the record. Raises
        `SessionNotFound`, `InvalidMessage`, `MessageTooLarge`, `MessageIdConflict`.
        """
        ...

    def drop(self, key: Key) -> int:
        """Free the archived messages, those before `record.start`. Returns bytes freed (an estimate), 0 if there are none.

        Those that pins and forks hold stay, for them.

        Raises `SessionNotFound`.
        """
        ...

    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        """Make the session `record` describes, with the history of session `key`, or with that of `at`; return it.

        Both sessions are the same user's. `at` must be held by the session `key` as in `update`. The fork has the messages
        that are visible there, under the same numbers and ids; neither archive nor pins come along. From then on the two
        know nothing of each other: each may append, trim and be deleted alone. Where the engine can share messages the cost
        does not depend on their number. Raises `SessionNotFound` for `key`, `SessionExists` for `record`, `InvalidId`,
        `InvalidMessage`.
        """
        ...

    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        """Up to `limit` visible messages that match the query, best first, of a user (None: of all users).

        A message that several sessions share by forking is found once, in one of them. What "best" means is the engine's to
        say: relevance where there is an index, else the newest. An engine without an index may stop early, and says so.
        """
        ...

    def describe(self) -> dict[str, str]:
        """What this engine is, for people, in words: at least `engine` (with version), `place` (no password in it), `schema`
        and `durability` (what survives a crash of the process, of the server, a loss of power). May connect.
        """
        ...

    def delete(self, key: Key) -> bool:
        """Remove the session and all that was stored for it, so that one made later begins as if it had never been.

        Forks of it are untouched. False if there was none.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds. Calling it twice is harmless."""
        ...


def every_record(engine: Engine, user_id: str | None, *, page: int = 200) -> Iterator[Record]:
    """All sessions of a user (None: of all users), the one changed last first, read in pages of so many."""
    after: str | None = None
    while True:
        found = engine.list_sessions(user_id, after=after, limit=page)
        yield from found.records
        after = found.after
        if after is None:
            return


def new_message_id() -> str:
    """An id no other message has: the time in microseconds, 16 bits of this process, and a counter.

    Later ones are greater, so that an index of ids grows at its end. Asking for random bits each time would let other
    threads go first, and threads that append together would do little else.
    """
    return f"msg-{time.time_ns() // 1000:013x}{_process}{next(_count) & 0xFFF:03x}"


def _begin_ids() -> None:
    global _process
    _process = os.urandom(2).hex()


_process = ""
_count = itertools.count()
_begin_ids()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_begin_ids)


class Batch(NamedTuple):
    """Messages ready to be stored: their ids in order, the JSON line of each id, and the ids that the caller gave.

    Only an id that the caller gave can be in the store already.
    """

    ids: tuple[str, ...]
    lines: dict[str, bytes]
    given: frozenset[str]


def batch(messages: Sequence[Message], max_message_bytes: int) -> Batch:
    """Give every message an id and encode it.

    Raises `InvalidMessage` for what cannot be stored, `MessageIdConflict` if two of the messages contradict each other.
    """
    ids: list[str] = []
    given: list[str] = []
    lines: dict[str, bytes] = {}
    for message in messages:
        if message.id:
            given.append(message.id)
        else:
            message = msgspec.structs.replace(message, id=new_message_id())
        line = encode_checked(message, max_message_bytes)
        if message.id not in lines:
            lines[message.id] = line
        elif not same(lines[message.id], line):
            raise MessageIdConflict(message.id)
        ids.append(message.id)
    return Batch(tuple(ids), lines, frozenset(given))


def same(line: bytes, other: bytes) -> bool:
    """True if two encoded messages have equal content. Neither the order of keys nor the time is content.

    Whoever repeats a call says the same thing later.
    """
    return line == other or _timeless(line) == _timeless(other)


def _timeless(line: bytes) -> Message:
    return msgspec.structs.replace(decode(line), timestamp=0.0)


def clip(shown: Record | Pin, first_kept: int, start: int | None, stop: int | None) -> tuple[int, int]:
    """The bounds of `Engine.read` as message numbers, with `first_kept` the oldest message that is still there.

    Both lie in the history, the second never before the first.
    """
    if start is None:
        first = shown.start
    elif start < 0:
        first = max(shown.start, shown.length + start)
    else:
        first = min(max(first_kept, start), shown.length)
    last = shown.length if stop is None else min(stop, shown.length)
    return first, max(first, last)
