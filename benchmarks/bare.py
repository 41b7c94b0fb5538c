"""The least that a driver can do: what our engines are compared with.

Each keeps one message a row (or list entry) with the same encoding as ours, and counts the session's change in the same
transaction or statement. No ids are looked up, nothing is searched, forked or listed.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Any, Protocol

from benchmarks.inputs import text
from praisonaiagents.model.message import Message, encode

_SESSIONS = "bare_sessions (id text primary key, updated double precision)"
_MESSAGES = "bare_messages (session text, number bigint, body text, primary key (session, number))"
_LAST = "select number, body from bare_messages where session = {0} order by number desc limit {0}"


class Bare(Protocol):
    """One driver. Made with what its constructor says, and closed by the caller."""

    name: str

    def fill(self, session_id: str, count: int) -> None: ...

    def append(self, session_id: str) -> None: ...

    def last(self, session_id: str, count: int) -> int: ...

    def close(self) -> None: ...


def line() -> str:
    """A new message, encoded."""
    return encode(Message("user", text("new", 0), timestamp=time.time(), id="msg-0123456789abcdef0123")).decode()


class BareSqlite:
    """WAL, `begin immediate`, one insert, one upsert."""

    name = "bare transaction (insert, upsert)"

    def __init__(self, path: str, *, full: bool) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute(f"pragma synchronous = {'full' if full else 'normal'}")
        self._db.execute(f"create table {_SESSIONS}")
        self._db.execute(f"create table {_MESSAGES}")
        self._next: dict[str, int] = {}

    def fill(self, session_id: str, count: int) -> None:
        self._db.execute("begin immediate")
        self._db.executemany(
            "insert into bare_messages values (?, ?, ?)", ((session_id, number, line()) for number in range(count))
        )
        self._db.execute("commit")
        self._next[session_id] = count

    def append(self, session_id: str) -> None:
        body, number = line(), self._next.get(session_id, 0)
        self._next[session_id] = number + 1
        self._db.execute("begin immediate")
        self._db.execute("insert into bare_messages values (?, ?, ?)", (session_id, number, body))
        self._db.execute(
            "insert into bare_sessions values (?, ?) on conflict (id) do update set updated = excluded.updated",
            (session_id, time.time()),
        )
        self._db.execute("commit")

    def last(self, session_id: str, count: int) -> int:
        return len(self._db.execute(_LAST.format("?"), (session_id, count)).fetchall()[::-1])

    def close(self) -> None:
        self._db.close()


class BarePostgres:
    """Autocommit, one statement that inserts and upserts."""

    name = "bare round trip (insert and upsert)"

    _APPEND = """
        with message as (insert into bare_messages values (%s, %s, %s))
        insert into bare_sessions values (%s, %s) on conflict (id) do update set updated = excluded.updated"""

    def __init__(self, url: str) -> None:
        import psycopg

        self._db = psycopg.connect(url, autocommit=True)
        self._db.execute(f"drop table if exists {_SESSIONS.split()[0]}, {_MESSAGES.split()[0]}")
        self._db.execute(f"create table {_SESSIONS}")
        self._db.execute(f"create table {_MESSAGES}")
        self._next: dict[str, int] = {}

    def fill(self, session_id: str, count: int) -> None:
        copy = "copy bare_messages from stdin"
        with self._db.cursor() as cursor, cursor.copy(copy) as rows:
            for number in range(count):
                rows.write_row((session_id, number, line()))
        self._next[session_id] = count

    def append(self, session_id: str) -> None:
        number = self._next.get(session_id, 0)
        self._next[session_id] = number + 1
        self._db.execute(self._APPEND, (session_id, number, line(), session_id, time.time()))

    def last(self, session_id: str, count: int) -> int:
        return len(self._db.execute(_LAST.format("%s"), (session_id, count)).fetchall()[::-1])

    def close(self) -> None:
        self._db.close()


class BareRedis:
    """RPUSH and LRANGE of redis-py with hiredis."""

    name = "bare RPUSH"

    def __init__(self, url: str) -> None:
        import redis

        self._db: Any = redis.Redis.from_url(url)

    def fill(self, session_id: str, count: int) -> None:
        for first in range(0, count, 1000):
            self._db.rpush(f"bare:{session_id}", *(line() for _ in range(min(1000, count - first))))

    def append(self, session_id: str) -> None:
        self._db.rpush(f"bare:{session_id}", line())

    def last(self, session_id: str, count: int) -> int:
        return len(self._db.lrange(f"bare:{session_id}", -count, -1))

    def close(self) -> None:
        self._db.close()
