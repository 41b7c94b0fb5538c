"""The floor of what SQLite can do: no library, one row a message, the session's row updated in the same transaction.

WAL journal; `durable` means synchronous=FULL (an fsync a commit) instead of NORMAL.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

from benchmarks.inputs import ROLES, text

_TABLES = """
create table sessions (id text primary key, updated real);
create index sessions_by_time on sessions (updated);
create table messages (session text, number integer, role text, content text, time real, primary key (session, number));
"""
_NEXT = "select coalesce(max(number) + 1, 0) from messages where session = ?"


class Store:
    """Two tables."""

    def __init__(self, folder: str, durable: bool = False) -> None:
        self._db = sqlite3.connect(f"{folder}/plain.db", isolation_level=None)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute(f"pragma synchronous={'full' if durable else 'normal'}")
        self._db.executescript(_TABLES)

    def fill(self, session_id: str, count: int) -> None:
        self._add(session_id, range(count))

    def append(self, session_id: str) -> None:
        self._add(session_id, (0,))

    def last(self, session_id: str, count: int) -> int:
        query = "select role, content, time from messages where session = ? order by number desc limit ?"
        return len(self._db.execute(query, (session_id, count)).fetchall()[::-1])

    def newest(self, count: int) -> int:
        return len(
            self._db.execute("select id, updated from sessions order by updated desc limit ?", (count,)).fetchall()
        )

    def _add(self, session_id: str, numbers: Iterable[int]) -> None:
        now = time.time()
        with self._db:
            self._db.execute("begin immediate")
            first = self._db.execute(_NEXT, (session_id,)).fetchone()[0]
            self._db.executemany(
                "insert into messages values (?, ?, ?, ?, ?)",
                ((session_id, first + i, ROLES[i % 2], text(session_id, i), now) for i in numbers),
            )
            self._db.execute("insert or replace into sessions values (?, ?)", (session_id, now))
