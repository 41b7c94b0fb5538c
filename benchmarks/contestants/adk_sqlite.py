"""google-adk: `SqliteSessionService`; `append_event` for each message, on a session object that was loaded once.

`list_sessions` has no limit: it returns all, and the newest are cut out.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from benchmarks.inputs import text

_APP = {"app_name": "benchmark", "user_id": "default_user"}


class Store:
    """An event is a message."""

    def __init__(self, folder: str) -> None:
        self._service = import_module("google.adk.sessions.sqlite_session_service").SqliteSessionService(
            f"{folder}/adk.db"
        )
        self._settings: Any = import_module("google.adk.sessions.base_session_service").GetSessionConfig
        self._event: Any = import_module("google.adk.events").Event
        self._types: Any = import_module("google.genai.types")
        self._sessions: dict[str, Any] = {}
        self._run = asyncio.new_event_loop().run_until_complete

    def fill(self, session_id: str, count: int) -> None:
        self._sessions[session_id] = self._run(self._service.create_session(**_APP, session_id=session_id))
        for number in range(count):
            self._add(session_id, number)

    def append(self, session_id: str) -> None:
        self._add(session_id, 0)

    def last(self, session_id: str, count: int) -> int:
        recent = self._settings(num_recent_events=count)
        return len(self._run(self._service.get_session(**_APP, session_id=session_id, config=recent)).events)

    def newest(self, count: int) -> int:
        sessions = self._run(self._service.list_sessions(**_APP)).sessions
        return len(sorted(sessions, key=lambda session: -session.last_update_time)[:count])

    def _add(self, session_id: str, number: int) -> None:
        role = ("user", "model")[number % 2]
        content = self._types.Content(role=role, parts=[self._types.Part(text=text(session_id, number))])
        self._run(self._service.append_event(self._sessions[session_id], self._event(author=role, content=content)))
