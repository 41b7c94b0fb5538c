"""strands-agents: `FileSessionManager`, a file a message, with an agent whose model is never called. It has no listing.

For each message what the agent's own hooks do: `append_message` and `sync_agent`, and the sliding window after each answer.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.inputs import ROLES, text

_AGENT = "benchmark"


class Store:
    """An agent for each session."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._manager: Any = import_module("strands.session.file_session_manager").FileSessionManager
        self._agent: Any = import_module("strands").Agent
        self._model = _silent_model()
        self._open: dict[str, tuple[Any, Any]] = {}
        self._counts: dict[str, int] = {}

    def fill(self, session_id: str, count: int) -> None:
        manager = self._manager(session_id=session_id, storage_dir=self._folder)
        self._open[session_id] = manager, self._agent(model=self._model, session_manager=manager, agent_id=_AGENT)
        for _ in range(count):
            self.append(session_id)

    def append(self, session_id: str) -> None:
        manager, agent = self._open[session_id]
        number = self._counts.get(session_id, 0)
        self._counts[session_id] = number + 1
        message = {"role": ROLES[number % 2], "content": [{"text": text(session_id, number)}]}
        agent.messages.append(message)
        manager.append_message(message, agent)
        manager.sync_agent(agent)
        if number % 2:
            agent.conversation_manager.apply_management(agent)
            manager.sync_agent(agent)

    def last(self, session_id: str, count: int) -> int:
        manager, _ = self._open[session_id]
        return len(manager.list_messages(session_id, _AGENT, limit=count, offset=self._counts[session_id] - count))

    def newest(self, count: int) -> int:
        raise NotImplementedError


def _silent_model() -> Any:
    """A model that an agent accepts and nobody asks."""

    def never(self: object, *args: object, **kwargs: object) -> Any:
        raise NotImplementedError

    model: Any = import_module("strands.models").Model
    methods: dict[str, Any] = dict.fromkeys(model.__abstractmethods__, never)
    methods["get_config"] = lambda self: {}
    return type("Silent", (model,), methods)()
