"""A session as an object: agents that work in it, and state that belongs to it.

session = Session(session_id="research-project", user_id="researcher-1")
agent = session.Agent(name="Research Assistant")
session.save_state({"project": "ML Research"})
"""

from __future__ import annotations

import os
from typing import Any

from praisonaiagents.agent.agent import Agent
from praisonaiagents.errors import ConfigError
from praisonaiagents.model.ids import check_session_id, check_user_id
from praisonaiagents.session.places import get_default_session_store
from praisonaiagents.session.store import SessionStore


class Session:
    """One session of one user.

    session_id: default: a new one of eight characters. user_id: default "default_user".
    agent_url: not served yet: a session on another machine raises `ConfigError`.
    """

    def __init__(self, session_id: str | None = None, user_id: str | None = None, agent_url: str | None = None) -> None:
        if agent_url is not None:
            raise ConfigError("agent_url= is not served yet: sessions live on this machine")
        self.session_id = check_session_id(os.urandom(4).hex() if session_id is None else session_id)
        self.user_id = check_user_id(user_id)
        self._agents: list[Agent] = []

    def Agent(self, name: str | None = None, **settings: Any) -> Agent:  # noqa: N802 - the documented name
        """An agent whose conversation is kept in this session, each message when it happens."""
        settings.pop("memory", None)  # the session is the agent's memory
        if not any(settings.get(key) for key in ("role", "goal", "backstory", "instructions")):
            name = name or "Assistant"
        agent = Agent(name, session_id=self.session_id, user_id=self.user_id, session_store=self._store(), **settings)
        self._agents.append(agent)
        return agent

    create_agent = Agent

    def save_state(self, state: dict[str, Any]) -> None:
        """Make `state` the session's state. It is stored, exactly, before the call returns."""
        self._store().set_state(self.session_id, state, user_id=self.user_id)

    def restore_state(self) -> dict[str, Any]:
        """The state saved last; empty if there is none."""
        return self._store().get_session(self.session_id, user_id=self.user_id).state

    def get_state(self, key: str, default: Any = None) -> Any:
        """One value of the state saved last."""
        return self.restore_state().get(key, default)

    def close(self) -> None:
        """Close the agents that were made here. Calling it twice is harmless."""
        for agent in self._agents:
            agent.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session(id={self.session_id!r}, user={self.user_id!r})"

    def _store(self) -> SessionStore:
        return get_default_session_store()
