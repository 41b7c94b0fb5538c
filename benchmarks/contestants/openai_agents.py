"""openai-agents: `SQLiteSession` with a file, one session object for each session. It has no listing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from benchmarks.inputs import ROLES, text


class Store:
    """`add_items` and `get_items`."""

    def __init__(self, folder: str) -> None:
        self._class: Any = import_module("agents").SQLiteSession
        self._path = f"{folder}/sessions.db"
        self._sessions: dict[str, Any] = {}
        self._run = asyncio.new_event_loop().run_until_complete

    def fill(self, session_id: str, count: int) -> None:
        self._sessions[session_id] = self._class(session_id, self._path)
        self._add(session_id, range(count))

    def append(self, session_id: str) -> None:
        self._add(session_id, (0,))

    def last(self, session_id: str, count: int) -> int:
        return len(self._run(self._sessions[session_id].get_items(limit=count)))

    def newest(self, count: int) -> int:
        raise NotImplementedError

    def _add(self, session_id: str, numbers: Iterable[int]) -> None:
        items = [{"role": ROLES[i % 2], "content": text(session_id, i)} for i in numbers]
        self._run(self._sessions[session_id].add_items(items))
