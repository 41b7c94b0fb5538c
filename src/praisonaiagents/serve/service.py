"""What is served: agents at their paths, the store their sessions are in, and the turns they take.

    Service     all of one server
    Place       one path of it, and the agent there (None at the root of a server with several)

What a reader would get wrong: a conversation that was had a moment ago is kept in memory, so that its next turn reads what is
new and not what is old. It is only a shortcut: whatever is written by others comes in at the next turn, and any of them may be
forgotten at any time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from praisonaiagents.agent.agent import Agent
from praisonaiagents.errors import ConfigError, ConfigTypeError
from praisonaiagents.model.record import Key
from praisonaiagents.serve.callers import Callers
from praisonaiagents.serve.guard import Rate, guesses
from praisonaiagents.serve.logs import ms_since, tell
from praisonaiagents.serve.problems import Problem
from praisonaiagents.serve.settings import Settings
from praisonaiagents.serve.turns import FAILED, Turn, Turns, size_of
from praisonaiagents.session.hierarchy import HierarchicalSessionStore
from praisonaiagents.session.places import get_default_session_store, open_store
from praisonaiagents.session.store import SessionStore

_MOST_AT_HAND = 256  # conversations in memory
_MOST_BYTES = 100 * 1024**2  # of memory that they take


class Place(NamedTuple):
    """A path, and the agent that answers there."""

    service: Service
    path: str
    agent: Agent | None


class _Lent:
    """An agent as it is in one session. size: about how many bytes of memory its conversation takes."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.size = 0
        self._measured = 0  # messages

    def measure(self) -> None:
        """Only what is new, so that a turn of a long conversation costs no more than one of a short one."""
        history = self.agent.chat_history
        if len(history) < self._measured:
            self.size = self._measured = 0
        self.size += size_of(history[self._measured :])
        self._measured = len(history)


class Service:
    """All that one server serves. db: a storage URL for all sessions; None: where the agents keep theirs.

    Raises `ConfigError` for agents that cannot serve several users, or keep their sessions in different places.
    """

    def __init__(self, settings: Settings, *, db: str | None = None) -> None:
        self.settings = settings
        self.agents: dict[str, Agent] = {}
        self.callers = Callers(settings)
        self.turns = Turns(settings, _tell_of)
        self.rate = Rate(settings.per_minute)
        self.guesses = guesses()
        self.look: asyncio.Future[None] | None = None  # of `/health/ready` at the sessions: the last one
        self._shared = open_store(db) if db else None
        self._stores: dict[str, SessionStore] = {}
        self._at_hand: OrderedDict[tuple[str, Key], _Lent] = OrderedDict()

    @property
    def store(self) -> HierarchicalSessionStore:
        """The sessions."""
        first = next(iter(self._stores.values()), None)
        return HierarchicalSessionStore.of(first or self._shared or get_default_session_store())

    def add(self, agent: Agent, path: str) -> str:
        """Serve an agent at a path, or near it if there is one already; return where. Raises `ConfigError`."""
        if not isinstance(agent, Agent):
            raise ConfigTypeError(f"what is served is an Agent, not {type(agent).__name__}")
        checked = _checked(path)
        if agent.has_adapter:
            raise ConfigError(
                "an agent with a database adapter of your own cannot be served: only it knows its sessions"
            )
        store = SessionStore(self._shared.engine, **agent.bounds) if self._shared else agent.store
        if self.agents and store.engine is not self.store.engine:
            raise ConfigError("agents of one server keep their sessions in one place: serve them with db=")
        at = self._free(checked)
        self._stores[at] = store
        self.agents[at] = agent
        return at

    def remove(self, path: str) -> None:
        """Serve it no more."""
        self.agents.pop(path, None)
        self._stores.pop(path, None)
        for key in list(self._at_hand):  # a copy, because turns go on in another thread
            if key[0] == path:
                self._at_hand.pop(key, None)

    @contextmanager
    def at_hand(self, path: str, agent: Agent, key: Key) -> Iterator[Agent]:
        """The agent as it is in this session, for one turn at a time. Raises `Problem` if it is served there no more."""
        store = self._stores.get(path)
        if store is None or self.agents.get(path) is not agent:
            raise Problem(404, "the agent is not served here any more", "AgentNotFound")
        lent = self._at_hand.pop((path, key), None)
        if lent is None:
            lent = _Lent(agent.for_session(key.session_id, key.user_id, store=store, apart=len(self.agents) > 1))
        try:
            yield lent.agent
        finally:
            if self.agents.get(path) is agent:
                lent.measure()
                self._at_hand[path, key] = lent
                while not self._has_room():
                    self._at_hand.popitem(last=False)

    def forget(self, key: Key) -> None:
        """Forget what is known of a session that was changed from outside, or is gone."""
        for path in list(self.agents):
            self._at_hand.pop((path, key), None)
        self.turns.forget(key)

    async def open(self) -> None:
        """Load the LLM library and choose the models, so that the first caller need not wait for that."""
        for agent in list(self.agents.values()):
            await agent.prepare()

    async def close(self) -> None:
        """Let turns finish, then let go of what was opened here. The agents stay their owner's."""
        await self.turns.close()
        self._at_hand.clear()
        if self._shared is not None:
            self._shared.close()

    def _has_room(self) -> bool:
        size = sum(lent.size for lent in self._at_hand.values())
        return len(self._at_hand) <= _MOST_AT_HAND and size <= _MOST_BYTES

    def _free(self, path: str) -> str:
        """The path, or one near it if an agent is served there."""
        if path not in self.agents:
            return path
        free = f"{path}_{os.urandom(3).hex()}"
        warnings.warn(f"another agent is served at {path}, so this one is at {free}", RuntimeWarning, stacklevel=4)
        return free


def paths_of(agents: Agent | Mapping[str, Agent], path: str) -> dict[str, Agent]:
    """Agents by path. Raises `ConfigError` if there is none."""
    found = dict(agents) if isinstance(agents, Mapping) else {path: agents}
    if not found:
        raise ConfigError("there is no agent to serve")
    return found


def _checked(path: object) -> str:
    if not isinstance(path, str):
        raise ConfigTypeError(f"a path is text such as '/agent', not {type(path).__name__}")
    checked = "/" + path.strip("/")
    if any(not (letter.isascii() and (letter.isalnum() or letter in "/-_.~")) for letter in checked) or "/." in checked:
        raise ConfigError(f"a path is letters, digits, '-' and '_' between slashes, not {path!r}")
    if checked.partition("/")[2].partition("/")[0] in _RESERVED:
        raise ConfigError(f"{checked} is a path of the server's own; take another, such as /agent")
    return checked


_RESERVED = ("health", "sessions", "search", "turns", "v1", "openapi.json")


def _tell_of(turn: Turn) -> None:
    """Tell of a turn that has ended."""
    who = {"turn": turn.id, "user": turn.key.user_id, "session": turn.key.session_id}
    fields = {**who, "status": turn.status, "ms": ms_since(turn.began)}
    if turn.failure is not None:
        fields["error"] = turn.failure.kind
    tell(logging.WARNING if turn.status == FAILED else logging.INFO, "turn", fields)
