"""llm: `LogStore`, a chain of messages under a thread. It has no listing, and no way to load only the last messages."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from benchmarks.inputs import text


class Store:
    """A thread is a session."""

    def __init__(self, folder: str) -> None:
        llm: Any = import_module("llm")
        self._said = (llm.user, llm.assistant)
        self._log = import_module("llm.logs").LogStore(import_module("sqlite_utils").Database(f"{folder}/logs.db"))
        self._counts: dict[str, int] = {}

    def fill(self, session_id: str, count: int) -> None:
        self._log.ensure_thread(session_id)
        self._add(session_id, range(count))

    def append(self, session_id: str) -> None:
        number = self._counts[session_id]
        self._add(session_id, (number,))

    def last(self, session_id: str, count: int) -> int:
        return len(self._log.thread_messages(session_id)[-count:])

    def newest(self, count: int) -> int:
        raise NotImplementedError

    def _add(self, session_id: str, numbers: Iterable[int]) -> None:
        messages = [self._said[i % 2](text(session_id, i)) for i in numbers]
        self._log.append(session_id, messages)
        self._counts[session_id] = self._counts.get(session_id, 0) + len(messages)
