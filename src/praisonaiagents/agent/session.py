"""A session as an object: agents that work in it, state and memory that belong to it.

    with Session("research-project", "researcher-1", db="postgresql://localhost/mydb") as session:
        agent = session.Agent("Research Assistant", instructions="Help with research tasks")
        agent.start("Find papers about machine learning")
        session.save_state({"papers_found": 5})

Making one opens nothing. Every agent made here keeps its conversation in the session, each message when it happens, and sees
its own part of it, or with `shared=True` all that was said. What a reader would get wrong: there is nothing to save at the
end. `close` only lets go of what was opened, and a call after it opens it again.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from praisonaiagents.agent.agent import Agent
from praisonaiagents.agent.embedder import with_embedder
from praisonaiagents.errors import ConfigError, ConfigTypeError
from praisonaiagents.memory import knowledge
from praisonaiagents.memory.config import MemoryConfig, memory_of, resolve
from praisonaiagents.memory.memory import Memory, Recalled, is_short, told
from praisonaiagents.memory.null import NullMemory
from praisonaiagents.model.memory import KNOWLEDGE
from praisonaiagents.model.record import conversation_key
from praisonaiagents.session.conversation import ALL_BY_NAME, OWN_PART
from praisonaiagents.session.places import get_default_session_store, open_store
from praisonaiagents.session.state import ANYTHING, Scope, States
from praisonaiagents.session.store import SessionStore
from praisonaiagents.storage.registry import check_url

if TYPE_CHECKING:
    from praisonaiagents.agent.remote import RemoteSession

_LOCK_TIMEOUT_S = MemoryConfig().lock_timeout


class Session:
    """One session of one user.

    session_id: default: a new one of eight characters. user_id: default "default_user".
    agent_url: the session is that of an agent on another machine, which keeps it there; see `agent.remote`. The agent is asked at
        once whether it is there. `chat`, `stream`, `history` and `sessions` talk to it; all other methods are about sessions on
        this machine, and raise `ConfigError`. On a session of this machine it is the other way round.
    memory_config: how its agents remember, as `memory=` of an agent; also where the session's own memories rest.
    knowledge_config: where its knowledge rests, as `{"backend": ..., "config": ...}`; default: with its memories.
    timeout: how many seconds an answer of an agent on another machine is waited for, or the next piece of one; None: for ever.
    session_ttl: seconds after which the session counts as expired (`is_expired`), from now. None: never.
    db: a storage URL for the conversation and the state, see `storage.registry`; None: the default place.
    headers, token: sent with every request to an agent on another machine; the token as `Authorization: Bearer`.

    Raises `ConfigError` (a ValueError), `ConfigTypeError`, `InvalidId`, `UnknownEngine`; and `RemoteError` (a ConnectionError)
    if no agent is at `agent_url`.
    """

    def __init__(
        self,
        session_id: str | None = None,
        user_id: str | None = None,
        agent_url: str | None = None,
        memory_config: Any = None,
        knowledge_config: Any = None,
        timeout: float | None = 30,
        session_ttl: float | None = None,
        *,
        db: str | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> None:
        self.user_id, self.session_id = conversation_key(
            os.urandom(4).hex() if session_id is None else session_id, user_id
        )
        self.session_ttl = _checked_seconds("session_ttl", session_ttl)
        self._remote: RemoteSession | None = None
        self.timeout = timeout
        self.memory_config = _config(memory_config, "memory_config")
        self.knowledge_config = None if knowledge_config is None else _config(knowledge_config, "knowledge_config")
        if db is not None:
            check_url(db)
        self._db = db
        self._began = time.monotonic()
        self._opened: SessionStore | None = None
        self._agents: weakref.WeakSet[Agent] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._own_states = States(lambda: self._store().engine, self.session_id, self.user_id)
        self._memory: Memory | None = None
        self._knowledge: Memory | None = None
        if agent_url is not None:
            from praisonaiagents.agent import background

            remote = self._point_to(agent_url, headers, token, local=(db, memory_config, knowledge_config))
            background.run(remote.reach())
        elif headers is not None or token is not None:
            raise ConfigError("headers= and token= are sent to a remote agent: pass its agent_url= too")

    # An agent on another machine

    @property
    def is_remote(self) -> bool:
        """True if the agent is on another machine."""
        return self._remote is not None

    @property
    def agent_url(self) -> str | None:
        """The address of the agent on another machine, without a login; None if there is none."""
        return self._remote.connection.shown if self._remote else None

    @property
    def timeout(self) -> float | None:
        """How long the agent on another machine is waited for, in seconds; it may be changed."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        checked = _checked_seconds("timeout", seconds)
        if self._remote is not None:
            self._remote.wait_for(checked)
        self._timeout = checked

    @classmethod
    async def aconnect(
        cls,
        agent_url: str,
        session_id: str | None = None,
        user_id: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        **settings: Any,
    ) -> Session:
        """`Session(agent_url=...)` without blocking the event loop while the agent is asked whether it is there."""
        import asyncio

        session = cls(session_id, user_id, **settings)
        local = [settings.get(name) for name in ("db", "memory_config", "knowledge_config")]
        # in a thread, because it loads the HTTP library
        remote = await asyncio.to_thread(session._point_to, agent_url, headers, token, local)
        await remote.reach()
        return session

    def chat(self, message: str, *, idempotency_key: str | None = None, **settings: Any) -> str:
        """Say something to the remote agent and return its answer. settings: passed on to it.

        idempotency_key: of a turn that may have taken place already, see `RemoteError`: then its answer is returned.
        """
        remote = self._far("chat")
        from praisonaiagents.agent import background

        return background.run(remote.chat(message, settings, idempotency_key))

    send_message = chat

    def stream(self, message: str, *, idempotency_key: str | None = None, **settings: Any) -> Iterator[str]:
        """The pieces of the remote agent's answer as they come. Nothing happens before the first is asked for.

        Closing the iterator early stops the turn. If the connection breaks, it goes on where it was.
        """
        remote = self._far("stream")
        from praisonaiagents.agent import background

        return background.iterate(lambda emit: remote.emit(emit, message, settings, idempotency_key))

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The last messages of the remote session, oldest first; None: all. Empty if nothing was said in it."""
        remote = self._far("history")
        from praisonaiagents.agent import background

        return background.run(remote.history(limit))

    def sessions(self, limit: int | None = 50) -> list[dict[str, Any]]:
        """The user's sessions with the remote agent, the one changed last first; None: all."""
        remote = self._far("sessions")
        from praisonaiagents.agent import background

        return background.run(remote.sessions(limit))

    def info(self) -> dict[str, Any] | None:
        """What the remote agent's server knows of the session: title, counts, times. None if nothing was said in it."""
        remote = self._far("info")
        from praisonaiagents.agent import background

        return background.run(remote.info())

    async def achat(self, message: str, *, idempotency_key: str | None = None, **settings: Any) -> str:
        """`chat` on the running event loop."""
        return await self._far("achat").chat(message, settings, idempotency_key)

    asend_message = achat

    def astream(
        self, message: str, *, idempotency_key: str | None = None, **settings: Any
    ) -> AsyncGenerator[str, None]:
        """`stream` on the running event loop. Close it (`contextlib.aclosing`) when it is left early."""
        return self._far("astream").stream(message, settings, idempotency_key)

    async def ahistory(self, limit: int | None = None) -> list[dict[str, Any]]:
        """`history` on the running event loop."""
        return await self._far("ahistory").history(limit)

    async def asessions(self, limit: int | None = 50) -> list[dict[str, Any]]:
        """`sessions` on the running event loop."""
        return await self._far("asessions").sessions(limit)

    async def ainfo(self) -> dict[str, Any] | None:
        """`info` on the running event loop."""
        return await self._far("ainfo").info()

    def _point_to(
        self, url: str, headers: Mapping[str, str] | None, token: str | None, local: Sequence[Any]
    ) -> RemoteSession:
        """Make it the session of an agent on another machine, which is not asked for yet."""
        if any(setting is not None for setting in local):
            raise ConfigError(
                "a remote agent keeps its sessions and memories itself: leave out db= and the configurations"
            )
        from praisonaiagents.agent.remote import RemoteSession

        self._remote = RemoteSession(url, self.session_id, self.user_id, headers, token)
        self._remote.wait_for(self.timeout)
        return self._remote

    def _far(self, method: str) -> RemoteSession:
        if self._remote is None:
            raise ConfigError(
                f"{method}() is only for remote agent sessions: make this one with agent_url=, or talk to an agent that is made "
                "with Agent(...) of this session"
            )
        return self._remote

    def _near(self, what: str) -> None:
        """Raise if the session is on another machine."""
        if self._remote is not None:
            raise ConfigError(
                f"{what} is not available in a remote agent session: the agent at {self.agent_url} keeps its memory, state and "
                "agents itself; use chat(), stream(), history() and sessions()"
            )

    # Agents

    def Agent(  # noqa: N802 - the documented name
        self,
        name: str | None = None,
        role: str | None = None,
        instructions: str | None = None,
        tools: Sequence[Any] | None = None,
        memory: Any = True,
        knowledge: Any = None,
        *,
        shared: bool = False,
        **settings: Any,
    ) -> Agent:
        """An agent whose conversation is kept in this session, each message when it happens.

        memory: True: it is told what the session's memory knows, see `Memory.recall`. False: only its conversation. Else
            settings as in `Agent(memory=...)`, of which the session, the user and the place are this session's.
        knowledge: a source, or a list of them, for `add_knowledge`.
        shared: it sees what everybody said in this session. Otherwise what was said to and by agents of its name and role, so
            that two agents keep their conversations apart. A second agent of one name and role goes on with the first's.
        settings: as for `Agent`.
        """
        self._near("Agent()")
        settings.pop("verbose", None)  # an agent is silent unless it is asked
        if settings.pop("user_id", self.user_id) not in (None, self.user_id):
            raise ConfigError("an agent of a session belongs to the session's user")
        if not any((role, instructions, settings.get("goal"), settings.get("backstory"))):
            name = name or "Assistant"
        config, instance = self._resolved(memory)
        adapter = settings.get("db")
        agent = Agent(
            name,
            role,
            instructions=instructions,
            tools=tools,
            memory=config,
            session_id=self.session_id,
            user_id=self.user_id,
            **settings,
        )
        agent._memory_instance = instance
        agent._view = ALL_BY_NAME if shared else OWN_PART
        if adapter is None:
            agent._lender = lambda: self._store_for(config)
        self._agents.add(agent)
        for source in _sources(knowledge):
            self.add_knowledge(source)
        return agent

    create_agent = Agent
    get_agent = Agent

    # State

    @property
    def _states(self) -> States:
        self._near("state")
        return self._own_states

    def save_state(self, state_data: Mapping[str, Any] | None = None, *, scope: Scope = "session") -> None:
        """Make this the whole state. It is stored, exactly, before the call returns; of several at once the last wins.

        scope: whose state it is, see `session.state`. Without a state nothing changes: conversations are stored anyway.
        """
        states = self._states
        if state_data is not None:
            states.replace(state_data, scope)

    def restore_state(self, *, scope: Scope = "session") -> dict[str, Any]:
        """The whole state, as it is now; empty if there is none."""
        return self._states.all(scope)

    def get_state(self, key: str, default: Any = None, *, scope: Scope = "session") -> Any:
        """One value of the state as it is now."""
        return self._states.get(key, default, scope)

    def set_state(self, key: str, value: Any, *, scope: Scope = "session", expected: Any = ANYTHING) -> None:
        """Set one value, whatever others change meanwhile.

        expected: set it only if this is the value now (None: also if there is none); otherwise raise `StateConflict`.
        """
        self._states.set(key, value, scope, expected=expected)

    def increment_state(self, key: str, increment: float = 1, default: float = 0, *, scope: Scope = "session") -> Any:
        """Add to a number, which is `default` if there is none; return the sum. However many do it, all count."""
        return self._states.increment(key, increment, default, scope)

    def delete_state(self, key: str, *, scope: Scope = "session") -> bool:
        """Remove one value. False if there was none."""
        return self._states.delete(key, scope)

    # Memory and knowledge

    @property
    def memory(self) -> Memory:
        """What is remembered of the user, seen from this session. Making it opens nothing."""
        self._near("memory")
        with self._lock:
            if self._memory is None:
                self._memory = memory_of(with_embedder(self.memory_config), self.user_id, self.session_id)
            return self._memory

    @property
    def knowledge(self) -> Memory:
        """Where the session's documents are."""
        self._near("knowledge")
        if self.knowledge_config is None:
            return self.memory
        with self._lock:
            if self._knowledge is None:
                self._knowledge = memory_of(with_embedder(self.knowledge_config), self.user_id, self.session_id)
            return self._knowledge

    def add_memory(self, text: str, memory_type: str = "long", **metadata: Any) -> None:
        """Remember a sentence. "long": for all sessions of the user. "short": for this session."""
        self.memory.add(text, metadata=metadata, session_only=is_short(memory_type))

    def search_memory(self, query: str, memory_type: str = "long", limit: int = 5) -> list[dict[str, Any]]:
        """What fits the query, best first: `id`, `text`, `metadata`, `score`, `why` it was found, and the rest of the item."""
        found = self.memory.search(query, limit=limit, session_only=is_short(memory_type))
        return [recalled.to_dict() for recalled in found]

    def clear_memory(self, memory_type: str = "all") -> None:
        """Remove memories of this user for good: the "long" ones, this session's "short" ones, or "all" of both.

        Other sessions' short ones, and everything of other users, stay.
        """
        for short in (False, True) if memory_type == "all" else (is_short(memory_type),):
            self.memory.clear(session_only=short)

    def add_knowledge(self, source: str | os.PathLike[str]) -> int:
        """Add a text, a text file or a folder of them to what this session knows. Returns how many passages it has.

        A text names a file if it is one word with the ending of a text file; a `Path` always names a file or a folder. A file
        that is added again takes the place of what was known of it. Raises `ConfigError` for what is no text.
        """
        shelf = self.knowledge
        texts = list(knowledge.read(source))
        return sum(shelf.add_passages(knowledge.passages(text), name) for name, text in texts)

    def search_knowledge(self, query: str, limit: int = 5) -> list[dict[str, Any]]:
        """The passages that fit the query, best first, as `search_memory` tells them; `metadata["source"]` is the document."""
        found = self.knowledge.search(query, limit=limit, session_only=True, shelf=KNOWLEDGE)
        return [recalled.to_dict() for recalled in found]

    def get_context(self, query: str, max_items: int = 3) -> str:
        """Memories and passages that fit the query, at most so many of each, as a text for a model; empty if there are none."""
        found: list[Recalled] = []
        for short in (False, True):
            found += self.memory.search(query, limit=max_items, session_only=short)
        best = sorted(found, key=lambda recalled: -recalled.score)[:max_items]
        passages: list[Recalled] = self.knowledge.search(query, limit=max_items, session_only=True, shelf=KNOWLEDGE)
        return told([*best, *passages])

    # Its life

    def is_expired(self) -> bool:
        """True if the session was made longer than `session_ttl` ago."""
        return self.time_to_expiry() == 0.0

    def time_to_expiry(self) -> float | None:
        """Seconds until it counts as expired, never negative; None if it never does."""
        if self.session_ttl is None:
            return None
        return max(0.0, self.session_ttl - (time.monotonic() - self._began))

    def close(self) -> None:
        """Close the agents that were made here, then the memory, which closes its adapter, then the store. Calling it twice is
        harmless. If a step fails the others are done, and its error is raised.
        """
        with ExitStack() as steps:
            with self._lock:
                store, self._opened = self._opened, None
            if store is not None:
                steps.callback(store.close)
            for memory in (self._knowledge, self._memory):
                if memory is not None and memory.in_use:
                    steps.callback(memory.close_connections)
            for agent in list(self._agents):
                steps.callback(agent.close)
            if self._remote is not None:
                steps.callback(self._remote.close)

    async def aclose(self) -> None:
        """`close` on the running event loop."""
        import asyncio

        async with AsyncExitStack() as steps:
            steps.push_async_callback(asyncio.to_thread, self.close)
            if self._remote is not None:
                steps.push_async_callback(self._remote.aclose)
            for agent in list(self._agents):
                steps.push_async_callback(agent.aclose)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        remote = f", remote_agent={self.agent_url!r}" if self.is_remote else ""
        return f"Session(id={self.session_id!r}, user={self.user_id!r}{remote})"

    # Inside

    def _store(self) -> SessionStore:
        config = self.memory_config
        if (self._db, config.max_messages, config.retention, config.lock_timeout) == (
            None,
            None,
            None,
            _LOCK_TIMEOUT_S,
        ):
            return get_default_session_store()
        with self._lock:
            if self._opened is None:
                self._opened = open_store(
                    self._db,
                    max_messages=config.max_messages,
                    retention=config.retention,
                    lock_timeout=None if config.lock_timeout == _LOCK_TIMEOUT_S else config.lock_timeout,
                )
            return self._opened

    def _store_for(self, config: MemoryConfig) -> SessionStore:
        """The store with the bounds that an agent's own settings name."""
        if (config.max_messages, config.retention) == (self.memory_config.max_messages, self.memory_config.retention):
            return self._store()
        return SessionStore(self._store().engine, max_messages=config.max_messages, retention=config.retention)

    def _resolved(self, memory: Any) -> tuple[MemoryConfig, Any]:
        """An agent's settings, and the memory it is told from. What it does not say is as in `memory_config`."""
        given, instance = resolve(memory)
        for name, own in (("session_id", self.session_id), ("user_id", self.user_id), ("db", self._db)):
            if getattr(given, name) not in (None, own):
                raise ConfigError(f"{name} of an agent's memory is that of its session")
        if given.lock_timeout not in (_LOCK_TIMEOUT_S, self.memory_config.lock_timeout):
            raise ConfigError("lock_timeout is a setting of the whole session: pass it in memory_config=")
        if given.backend in ("redis", "postgres"):
            raise ConfigError("where a session is kept is said by db= of the session")
        if isinstance(instance, Memory) and instance.user_id != self.user_id:
            raise ConfigError("the memory that was given is another user's than the session")
        said = {name: value for name, value in _said(given).items() if name not in ("session_id", "user_id", "db")}
        config = msgspec.structs.replace(self.memory_config, **said)
        if memory is None or memory is False:
            config = msgspec.structs.replace(config, auto_memory=False)
        elif instance is None or type(instance) is NullMemory:
            instance = self._memory_for(given, config)
        return msgspec.structs.replace(config, backend=None, config=None, embedder=None), instance

    def _memory_for(self, given: MemoryConfig, config: MemoryConfig) -> Memory:
        if given.has_place_of_its_own:
            return memory_of(with_embedder(config), self.user_id, self.session_id)
        return self.memory.lent(self.user_id, self.session_id, config.recall_tokens)


def _said(config: MemoryConfig) -> dict[str, Any]:
    """The settings that are not as they are if nothing is said."""
    nothing = MemoryConfig()
    fields = {name: getattr(config, name) for name in config.__struct_fields__}
    return {name: value for name, value in fields.items() if value != getattr(nothing, name)}


def _config(given: Any, name: str) -> MemoryConfig:
    if given is not None and not isinstance(given, (bool, str, dict, MemoryConfig)):
        raise ConfigTypeError(f"{name} takes settings, not {type(given).__name__}: pass a memory to the agents")
    config, _ = resolve(given)
    if config.session_id or config.user_id or config.db or config.backend in ("redis", "postgres"):
        raise ConfigError(f"{name} holds settings of memories; session_id=, user_id= and db= are the session's own")
    return config


def _checked_seconds(name: str, seconds: Any) -> float | None:
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float))):
        raise ConfigTypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
    if seconds is not None and not seconds >= 0:
        raise ConfigError(f"{name} is a number of seconds from 0, not {seconds}")
    return seconds


def _sources(knowledge: Any) -> list[Any]:
    if knowledge is None or knowledge is False:
        return []
    return list(knowledge) if isinstance(knowledge, (list, tuple)) else [knowledge]
