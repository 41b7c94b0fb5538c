"""agno: `SqliteDb`. It keeps whole turns, so an append is a run of two messages (`upsert_session`, then `upsert_run`)."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from benchmarks.inputs import ROLES, text

_AGENT = "benchmark"


class Store:
    """A run is a turn."""

    def __init__(self, folder: str) -> None:
        self._db = import_module("agno.db.sqlite").SqliteDb(db_file=f"{folder}/agno.db")
        self._kind: Any = import_module("agno.db.base").SessionType.AGENT
        self._session: Any = import_module("agno.session.agent").AgentSession
        self._run: Any = import_module("agno.run.agent").RunOutput
        self._message: Any = import_module("agno.models.message").Message
        self._turns: dict[str, int] = {}

    def fill(self, session_id: str, count: int) -> None:
        for _ in range(count // 2):
            self.append(session_id)

    def append(self, session_id: str) -> None:
        turn = self._turns[session_id] = self._turns.get(session_id, -1) + 1
        said = [self._message(role=role, content=text(session_id, 2 * turn + i)) for i, role in enumerate(ROLES)]
        run = self._run(run_id=f"{session_id}-{turn}", session_id=session_id, agent_id=_AGENT, messages=said)
        now = int(time.time())
        self._db.upsert_session(self._session(session_id=session_id, agent_id=_AGENT, created_at=now, updated_at=now))
        self._db.upsert_run(run, session_id, run_index=turn)

    def last(self, session_id: str, count: int) -> int:
        session = self._db.get_session(session_id, self._kind, runs_limit=count // 2)
        return sum(len(run.messages) for run in session.runs)

    def newest(self, count: int) -> int:
        return len(self._db.get_sessions(session_type=self._kind, limit=count, sort_by="updated_at", sort_order="desc"))
