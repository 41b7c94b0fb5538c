"""The JSON files of this package as they are when nobody sets anything, or SQLite; `durable` sets `durability="full"`."""

from __future__ import annotations

from benchmarks.inputs import ROLES, text
from praisonaiagents.model.message import Message
from praisonaiagents.session import open_store


class Store:
    """A `SessionStore`."""

    def __init__(self, folder: str, durable: bool = False, sqlite: bool = False) -> None:
        place = f"sqlite:///{folder}/sessions.db" if sqlite else f"file://{folder}"
        self._store = open_store(f"{place}?durability={'full' if durable else 'process'}")

    def fill(self, session_id: str, count: int) -> None:
        self._store.append(session_id, [Message(ROLES[i % 2], text(session_id, i)) for i in range(count)])

    def append(self, session_id: str) -> None:
        self._store.add_message(session_id, "user", text(session_id, 0))

    def last(self, session_id: str, count: int) -> int:
        return len(self._store.get_chat_history(session_id, max_messages=count))

    def newest(self, count: int) -> int:
        return len(self._store.list_sessions(count))
