"""The memory of an agent that has none, so that nobody has to ask whether there is one."""

from __future__ import annotations

from typing import Any


class NullMemory:
    """Remembers nothing, finds nothing, and may be closed any number of times."""

    def search(self, query: str, **options: Any) -> list[dict[str, Any]]:
        """Nothing is ever found."""
        return []

    def close_connections(self) -> None:
        """There are none."""


class ForeignMemory(NullMemory):
    """Somebody's memory object that has no `close_connections`: everything else is passed on to it."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def search(self, query: str, **options: Any) -> Any:
        return self._memory.search(query, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)
