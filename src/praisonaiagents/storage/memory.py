"""The memory engine: the meaning of the contract, in plain dicts. Everything in it ends with the process.

Messages are kept in their encoded form, and records are handed out as copies, so that nobody can change what is stored
through a reference, and so that what cannot be stored is refused here as it is everywhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from praisonaiagents.errors import ConfigError, Conflict, InvalidId, MessageIdConflict, SessionExists, SessionNotFound
from praisonaiagents.model.message import MAX_MESSAGE_BYTES, Message, decode
from praisonaiagents.model.record import Key, Pin, Record, check_reachable, check_record, patched
from praisonaiagents.model.search import Query
from praisonaiagents.storage.engine import Appended, Found, Page, Slice, batch, clip, same
from praisonaiagents.storage.powers import Forgotten, Raw, framed
from praisonaiagents.storage.scan import scan

_Log = dict[int, bytes]  # encoded messages by number


class _Session:
    """One session: its record, and its logs. Each log holds all of its messages itself; nothing is shared.

    first: the number of the oldest message of the head that is still there.
    """

    def __init__(self, record: Record, log: _Log, first: int) -> None:
        self.record = record
        self.logs = {record.log: log}
        self.first = first
        self.changed = 0

    @property
    def head(self) -> _Log:
        return self.logs[self.record.log]

    def lines(self, pin: Pin) -> _Log:
        """A copy of what a pin holds."""
        return {number: self.logs[pin.log][number] for number in range(pin.start, pin.length)}

    def stored(self, message_ids: Collection[str]) -> dict[str, bytes]:
        """The lines of those of these messages that the history or its archive has, by id."""
        if not message_ids:
            return {}
        lines = (self.head[number] for number in range(self.first, self.record.length))
        return {message_id: line for line in lines if (message_id := decode(line).id) in message_ids}

    def free(self) -> int:
        """Let go of what neither the head nor a pin holds. Returns bytes freed."""
        before = sum(len(line) for log in self.logs.values() for line in log.values())
        held: dict[str, _Log] = {}
        for view in (Pin(self.record.log, self.first, self.record.length), *self.record.pins.values()):
            held.setdefault(view.log, {}).update(self.lines(view))
        self.logs = held
        return before - sum(len(line) for log in held.values() for line in log.values())

    def current(self) -> Record:
        """The record to hand out."""
        return _copy(self.record)


class MemoryEngine:
    """An engine that keeps everything in this process. `max_message_bytes` bounds one message's JSON."""

    concurrency = 1

    def __init__(self, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes
        self._sessions: dict[Key, _Session] = {}
        self._lock = threading.RLock()
        self._changes = 0
        self._logs = 0

    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        check_record(record)
        with self._lock:
            session = self._sessions.get(record.key)
            if session is None:
                session = self._make(record, {}, start=0, length=0)
            elif must_be_new:
                raise SessionExists(record.session_id, record.user_id)
            return session.current()

    def get(self, key: Key) -> Record | None:
        with self._lock:
            session = self._sessions.get(key)
            return session.current() if session else None

    def list_sessions(self, user_id: str | None, *, after: str | None = None, limit: int = 50) -> Page:
        with self._lock:
            found = sorted(
                (session for key, session in self._sessions.items() if user_id in (None, key.user_id)),
                key=lambda session: session.changed,
                reverse=True,
            )
            if after is not None:
                found = [session for session in found if session.changed < int(after)]
            page = found[:limit]
            more = str(page[-1].changed) if page and len(found) > limit else None
            return Page([session.current() for session in page], more)

    def owners(self, session_id: str) -> list[str]:
        with self._lock:
            return sorted(key.user_id for key in self._sessions if key.session_id == session_id)

    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        given = batch(messages, self._max_message_bytes)
        with self._lock:
            session = self._session(key)
            stored = session.stored(given.given)
            new: dict[str, bytes] = {}
            for message_id, line in given.lines.items():
                if message_id not in stored:
                    new[message_id] = line
                elif not same(stored[message_id], line):
                    raise MessageIdConflict(message_id)
            if new and expected_length is not None and expected_length != session.record.length:
                raise Conflict("length of the history", expected_length, session.record.length)
            if new:
                self._add(session, new)
            return Appended(session.record.start, session.record.length, given.ids)

    def read(self, key: Key, start: int | None = None, stop: int | None = None, *, at: Pin | None = None) -> Slice:
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return Slice(0, [])
            log, (first, last) = session.head, clip(session.record, session.first, start, stop)
            if at is not None:
                check_reachable(session.record, at, oldest=session.first)
                log, (first, last) = session.logs[at.log], clip(at, at.start, start, stop)
            lines = [log[number] for number in range(first, last)]
        return Slice(first, [decode(line) for line in lines])

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        with self._lock:
            session = self._session(key)
            if expected_revision is not None and expected_revision != session.record.revision:
                raise Conflict("revision of the session", expected_revision, session.record.revision)
            changed = _copy(patched(session.record, dict(patch), oldest=session.first))
            if "head" in patch:
                changed = self._in_new_log(session, changed, session.lines(patch["head"]))
            session.record = changed
            session.free()
            self._touch(session)
            return session.current()

    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        lines = batch(messages, self._max_message_bytes).lines
        with self._lock:
            session = self._session(key)
            cleared = patched(session.record, {"start": session.record.length}, oldest=session.first)
            session.record = self._in_new_log(session, cleared, {})
            session.free()
            self._add(session, lines)
            return session.current()

    def drop(self, key: Key) -> int:
        with self._lock:
            session = self._session(key)
            session.first = session.record.start
            return session.free()

    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        check_record(record)
        with self._lock:
            source = self._session(key)
            if record.user_id != key.user_id:
                raise InvalidId("a fork belongs to the user of the session it comes from")
            if record.key in self._sessions:
                raise SessionExists(record.session_id, record.user_id)
            at = at or source.record.head
            check_reachable(source.record, at, oldest=source.first)
            return self._make(record, source.lines(at), start=at.start, length=at.length).current()

    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        return scan(self, user_id, query, limit=limit)

    def describe(self) -> dict[str, str]:
        return {
            "engine": "memory",
            "place": "this process",
            "schema": "none",
            "durability": "nothing survives the end of the process",
        }

    def delete(self, key: Key) -> bool:
        with self._lock:
            return self._sessions.pop(key, None) is not None

    def forget(self, user_id: str, session_ids: Collection[str]) -> Forgotten:
        """See `powers.Forgets`."""
        return Forgotten(
            [], ["the memory of this process may hold copies until they are overwritten, or until it ends"]
        )

    def raw(self) -> Iterator[Raw]:
        yield Raw("memory of this process", "", b"")
        with self._lock:
            stored = [(session.current(), list(session.logs.values())) for session in self._sessions.values()]
        for record, logs in stored:
            lines = (line for log in logs for line in log.values())
            ids = (record.user_id.encode(), record.session_id.encode())
            yield Raw("memory of this process", "a session", framed((*ids, msgspec.json.encode(record), *lines)))

    def close(self) -> None:
        """Nothing to release: the sessions stay until the engine itself is gone."""

    def _session(self, key: Key) -> _Session:
        session = self._sessions.get(key)
        if session is None:
            raise SessionNotFound(key.session_id, key.user_id)
        return session

    def _make(self, record: Record, log: _Log, *, start: int, length: int) -> _Session:
        made = msgspec.structs.replace(
            record,
            created_at=record.created_at or time.time(),
            revision=0,
            start=start,
            length=length,
            log=self._new_log(),
            pins={},
        )
        session = self._sessions[record.key] = _Session(_copy(made), log, start)
        self._touch(session)
        return session

    def _in_new_log(self, session: _Session, record: Record, log: _Log) -> Record:
        """The record with its head in a new log, which is put into the session."""
        name = self._new_log()
        session.logs[name] = log
        session.first = record.start
        return msgspec.structs.replace(record, log=name)

    def _new_log(self) -> str:
        self._logs += 1
        return str(self._logs)

    def _add(self, session: _Session, lines: dict[str, bytes]) -> None:
        length = session.record.length
        session.head.update(enumerate(lines.values(), length))
        session.record = msgspec.structs.replace(session.record, length=length + len(lines))
        self._touch(session)

    def _touch(self, session: _Session) -> None:
        self._changes += 1
        session.changed = self._changes
        session.record = msgspec.structs.replace(session.record, updated_at=time.time())


def _copy(record: Record) -> Record:
    """A record that shares nothing with this one."""
    copy: Record = msgspec.json.decode(msgspec.json.encode(record), type=Record)
    return copy


def open_url(url: str, **options: Any) -> MemoryEngine:
    """A new engine of its own, whatever name the URL gives it. Raises `ConfigError` for settings, of which there are none."""
    if "?" in url:
        raise ConfigError("a memory URL has no settings")
    return MemoryEngine(**options)
