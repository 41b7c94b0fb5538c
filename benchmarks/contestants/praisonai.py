"""PraisonAI's own `DefaultSessionStore`, in JSON files, keeping everything (`retention="keep_all"`) as ours does.

Its package has the name of this one, so it runs only with an interpreter of an environment of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.inputs import ROLES, text


class Store:
    """Uses only what the documentation names."""

    def __init__(self, folder: str) -> None:
        session: Any = import_module("praisonaiagents.session")
        self._store = session.DefaultSessionStore(session_dir=folder, retention="keep_all")

    def fill(self, session_id: str, count: int) -> None:
        history = [{"role": ROLES[i % 2], "content": text(session_id, i)} for i in range(count)]
        self._store.set_chat_history(session_id, history)

    def append(self, session_id: str) -> None:
        self._store.add_message(session_id, "user", text(session_id, 0))

    def last(self, session_id: str, count: int) -> int:
        return len(self._store.get_chat_history(session_id, max_messages=count))

    def newest(self, count: int) -> int:
        return len(self._store.list_sessions(limit=count))
