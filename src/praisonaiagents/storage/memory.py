"""The memory engine: the meaning of the contract, in plain lists. Everything in it ends with the process.

Messages are kept in their encoded form, and records are handed out as copies, so that nobody can change what is stored
through a reference, and so that what cannot be stored is refused here as it is everywhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from praisonaiagents.errors import Conflict, MessageIdConflict, SessionExists, SessionNotFound
from praisonaiagents.model.message import MAX_MESSAGE_BYTES, Message, decode
from praisonaiagents.model.record import Key, Record, check_record, patched
from praisonaiagents.storage.engine import Appended, Page, Slice, batch, clip, same


class _Session:
    """One session: its record, and the encoded messages from number `first` on."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.first = 0
        self.lines: list[bytes] = []
        self.ids: dict[str, bytes] = {}
        self.changed = 0

    @property
    def length(self) -> int:
        return self.first + len(self.lines)

    def numbered(self) -> Record:
        return msgspec.structs.replace(self.record, length=self.length)

    def current(self) -> Record:
        """The record to hand out."""
        return _copy(self.numbered())


class MemoryEngine:
    """An engine that keeps everything in this process. `max_message_bytes` bounds one message's JSON."""

    def __init__(self, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes
        self._sessions: dict[Key, _Session] = {}
        self._lock = threading.RLock()
        self._changes = 0

    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        check_record(record)
        with self._lock:
            session = self._sessions.get(record.key)
            if session is None:
                new = msgspec.structs.replace(
                    record, created_at=record.created_at or time.time(), revision=0, start=0, length=0
                )
                session = self._sessions[record.key] = _Session(_copy(new))
                self._touch(session)
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
            for message_id, line in given.lines.items():
                if not same(session.ids.get(message_id, line), line):
                    raise MessageIdConflict(message_id)
            new = {message_id: line for message_id, line in given.lines.items() if message_id not in session.ids}
            if new and expected_length is not None and expected_length != session.length:
                raise Conflict("length of the history", expected_length, session.length)
            if new:
                self._add(session, new)
            return Appended(session.record.start, session.length, given.ids)

    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return Slice(0, [])
            first, last = clip(session.numbered(), session.first, start, stop)
            lines = session.lines[first - session.first : last - session.first]
        return Slice(first, [decode(line) for line in lines])

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        with self._lock:
            session = self._session(key)
            if expected_revision is not None and expected_revision != session.record.revision:
                raise Conflict("revision of the session", expected_revision, session.record.revision)
            session.record = _copy(patched(session.numbered(), dict(patch)))
            self._touch(session)
            return session.current()

    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        lines = batch(messages, self._max_message_bytes).lines
        with self._lock:
            session = self._session(key)
            session.first = session.length
            session.lines, session.ids = [], {}
            session.record = patched(session.numbered(), {"start": session.first})
            self._add(session, lines)
            return session.current()

    def drop(self, key: Key) -> int:
        with self._lock:
            session = self._session(key)
            gone = session.record.start - session.first
            freed = sum(map(len, session.lines[:gone]))
            session.first, session.lines = session.record.start, session.lines[gone:]
            session.ids = {decode(line).id: line for line in session.lines}
            return freed

    def delete(self, key: Key) -> bool:
        with self._lock:
            return self._sessions.pop(key, None) is not None

    def close(self) -> None:
        """Nothing to release: the sessions stay until the engine itself is gone."""

    def _session(self, key: Key) -> _Session:
        session = self._sessions.get(key)
        if session is None:
            raise SessionNotFound(key.session_id, key.user_id)
        return session

    def _add(self, session: _Session, lines: dict[str, bytes]) -> None:
        session.lines.extend(lines.values())
        session.ids.update(lines)
        self._touch(session)

    def _touch(self, session: _Session) -> None:
        self._changes += 1
        session.changed = self._changes
        session.record = msgspec.structs.replace(session.record, updated_at=time.time())


def _copy(record: Record) -> Record:
    """A record that shares nothing with this one."""
    copy: Record = msgspec.json.decode(msgspec.json.encode(record), type=Record)
    return copy
