"""The agent people make: a name, instructions, a model, tools, and a conversation it remembers.

    agent = Agent(name="Assistant", memory={"session_id": "my-session-123"})
    agent.start("My name is Alice and I love pizza")

Making one opens nothing and reads nothing; settings that make no sense raise at once. All eight ways to run it take the same
turn (see `turn`), so they restore and store the same. A failure raises: no method returns None or an error's text.

What only a turn needs (asyncio, and the LLM library above all) is imported by the first turn: importing `Agent` stays cheap.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec

from praisonaiagents.agent.embedder import with_embedder
from praisonaiagents.agent.models import ModelChoice, check_settings, choose_model
from praisonaiagents.errors import ConfigError, ConfigTypeError
from praisonaiagents.memory.config import MemoryConfig, memory_of, resolve, with_settings
from praisonaiagents.memory.memory import Memory, is_short, told
from praisonaiagents.memory.null import ForeignMemory, NullMemory
from praisonaiagents.model.ids import check_user_id
from praisonaiagents.model.message import Content
from praisonaiagents.session.compaction import KEEP_LAST, Compacted, Policy
from praisonaiagents.session.conversation import EVERYTHING, OWN_PART, Conversation, StoredConversation
from praisonaiagents.session.places import get_default_session_store, open_store
from praisonaiagents.session.store import SessionStore
from praisonaiagents.session.workspace import history_session_id, new_session_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from praisonaiagents.agent.background import PerLoop
    from praisonaiagents.agent.remembering import TurnMemory

_TURN_POLL_S = 0.005
_told: set[str] = set()
_in_turn: ContextVar[tuple[Agent, ...]] = ContextVar("agents_in_turn", default=())


class Agent:
    """An AI agent with a conversation.

    name, role, goal, backstory, instructions: who it is and what it shall do; at least one is needed.
    llm, model: the same thing: a model's name, a dict with `model` and settings, or a model of the LLM library. See `models`.
    base_url, api_key: of the model's server.
    tools: plain functions with type hints; their docstrings are what the model reads. Async ones too.
    memory: how it remembers, see `memory.config`. db, session_id, user_id: the same settings, said directly. db may be an
        adapter of your own, see `session.dbadapter`; it stays the caller's.
    session_store: keep the session in this store, which stays the caller's.
    stream: whether `start` streams unless told otherwise.

    Raises `ConfigError` (a ValueError), `ConfigTypeError` (also a TypeError), `InvalidId`.
    """

    def __init__(
        self,
        name: str | None = None,
        role: str | None = None,
        goal: str | None = None,
        backstory: str | None = None,
        instructions: str | None = None,
        llm: Any = None,
        model: Any = None,
        base_url: str | None = None,
        api_key: str | None = None,
        tools: Sequence[Callable[..., Any]] | None = None,
        *,
        memory: Any = None,
        db: Any = None,
        session_id: str | None = None,
        user_id: str | None = None,
        session_store: SessionStore | None = None,
        stream: bool = False,
    ) -> None:
        if not any((name, role, goal, backstory, instructions)):
            raise ConfigError("at least one of name, role, goal, backstory or instructions must be provided")
        if llm is not None and model is not None:
            raise ConfigTypeError("llm= and model= are the same setting: pass one of them")
        self.name = name
        self.instructions = instructions or _describe(name, role, goal, backstory)
        self.tools = _check_tools(tools)
        self.stream = stream
        self._task = instructions
        self._about = {"role": role, "goal": goal}
        self._llm = llm if llm is not None else model
        self._server = {"base_url": base_url, "api_key": api_key}
        config, instance = resolve(memory)
        if isinstance(instance, Memory):
            config = with_settings(config, user_id=instance.user_id)
        self._config = with_settings(config, db=db, session_id=session_id, user_id=user_id)
        self._store = session_store
        self._view = EVERYTHING
        self._lender: Callable[[], SessionStore] | None = None
        self._opened: SessionStore | None = None
        self._session_id = self._config.session_id or self._generated_session_id()
        if self._session_id is None and (self._config.compact_at or self._config.retention):
            raise ConfigError("compact_at and retention are about a session that is kept: pass session_id= or db= too")
        self._check_adapter()
        own = memory_of(with_embedder(self._config), self.user_id, self._session_id) if instance is None else instance
        self._memory_instance: Any = own
        self._conversation: Conversation | None = None
        self._early_history: list[dict[str, Any]] = []
        self._origin: Agent | None = None
        self._models: PerLoop[Any] | None = None
        self._choice: ModelChoice | None = None
        self._made_runner: tuple[list[Callable[..., Any]], Any] | None = None
        self._turn = threading.Lock()
        self._opening = threading.RLock()
        self._at_close: list[Callable[[], object]] = []
        if self._llm is not None or base_url:
            self._choice = choose_model(self._llm, **self._server)

    # What it is

    @property
    def session_id(self) -> str | None:
        """The session that keeps the conversation, or None if it ends with the process."""
        return self._session_id

    @property
    def user_id(self) -> str:
        """Whose conversation it is."""
        return check_user_id(self._config.user_id)

    @property
    def chat_history(self) -> list[dict[str, Any]]:
        """The conversation as this agent knows it, oldest first. It may be changed: that changes what the model is sent.

        A session's stored messages come in with the first turn, unless there is something in the list by then.
        """
        return self._conversation.history if self._conversation else self._early_history

    @chat_history.setter
    def chat_history(self, history: list[dict[str, Any]]) -> None:
        if not isinstance(history, list):
            raise ConfigTypeError(f"chat_history is a list of messages, not {type(history).__name__}")
        if self._conversation:
            self._conversation.history = history
        else:
            self._early_history = history

    @property
    def store(self) -> SessionStore:
        """Where its sessions are kept. It is opened with the first call."""
        return self._lender() if self._lender else self._store or self._open_once()

    @property
    def bounds(self) -> dict[str, Any]:
        """How many messages its sessions keep, and what becomes of older ones, as `SessionStore` takes it."""
        return {"max_messages": self._config.max_messages, "retention": self._config.retention}

    @property
    def has_adapter(self) -> bool:
        """True if a database adapter of the caller's own keeps its conversation."""
        return self._config.adapter is not None

    @property
    def model_name(self) -> str:
        """The model it talks to, as `provider:model`, or "offline"."""
        choice = self._chosen()
        return choice.name or str(getattr(choice.instance, "model_name", "custom"))

    # Running it

    def chat(self, prompt: Content, **settings: Any) -> str:
        """Say something and return the answer. `settings`: temperature, max_tokens, top_p, seed, timeout (seconds), ...

        Raises `ModelError` when the model does not answer, `StorageError` when something cannot be stored.
        """
        from praisonaiagents.agent import background

        return background.run(self.take_turn(prompt, settings))

    def run(self, prompt: Content, **settings: Any) -> str:
        """`chat`, under the name that workflows use."""
        return self.chat(prompt, **settings)

    def start(self, prompt: Content = None, *, stream: bool | None = None, **settings: Any) -> Any:
        """`chat` for a person: in a terminal the answer is shown as it comes. Without a prompt, the instructions are the task.

        With `stream=True`, returns an iterator of the answer's pieces instead, and shows nothing.
        """
        prompt = prompt if prompt is not None else self._task or "Hello"
        if self.stream if stream is None else stream:
            return self.iter_stream(prompt, **settings)
        return self._show(prompt, settings) if sys.stdout.isatty() else self.chat(prompt, **settings)

    def iter_stream(self, prompt: Content, **settings: Any) -> Iterator[str]:
        """The answer's pieces as they come. Nothing happens before the first is asked for.

        Closing the iterator early interrupts the turn; what was answered by then is kept, marked interrupted.
        """
        from praisonaiagents.agent import background

        yield from background.iterate(lambda emit: self.take_turn(prompt, settings, emit))

    async def achat(self, prompt: Content, **settings: Any) -> str:
        """`chat` on the running event loop."""
        return await self.take_turn(prompt, settings)

    async def arun(self, prompt: Content, **settings: Any) -> str:
        """`run` on the running event loop."""
        return await self.achat(prompt, **settings)

    async def astart(self, prompt: Content = None, **settings: Any) -> str:
        """`start` on the running event loop. It shows nothing."""
        return await self.achat(prompt if prompt is not None else self._task or "Hello", **settings)

    async def take_turn(
        self,
        prompt: Content,
        settings: dict[str, Any],
        emit: Callable[[str], None] | None = None,
        *,
        instructions: str | None = None,
        **more: Any,
    ) -> str:
        """What all ways to run it do. instructions: said to the model besides the agent's own, in this turn.

        emit, more: as for `turn.take_turn`. Raises as `chat` does.
        """
        checked = check_settings(settings)
        if not more.get("results") and (not prompt or (isinstance(prompt, str) and not prompt.strip())):
            raise ConfigError("the prompt is empty: say something")
        async with self._one_at_a_time():
            model = await self._model()
            from praisonaiagents.agent.turn import take_turn

            return await take_turn(
                self._in_conversation(),
                prompt,
                model,
                instructions="\n\n".join(filter(None, (self.instructions, instructions))) or None,
                runner=self._runner(),
                settings={**self._chosen().settings, **checked},
                memory=self._turn_memory(),
                emit=emit,
                **more,
            )

    def compact(
        self, keep_last: int = KEEP_LAST, *, watch: Callable[[str, int, int], object] = lambda *_: None
    ) -> Compacted | None:
        """Let the model sum up all but the last messages of the session now, see `session.compaction`. Nothing is removed.

        None if there is nothing to sum up, or somebody else did it meanwhile. watch: told what is being done, how much of it
        is done, and how much there is to do. Raises `ModelError`, `StorageError`, `ConfigError` without a session.
        """
        from praisonaiagents.agent import background

        return background.run(self._sum_up(keep_last, watch))

    async def acompact(self, keep_last: int = KEEP_LAST) -> Compacted | None:
        """`compact` on the running event loop."""
        return await self._sum_up(keep_last, lambda *_: None)

    def store_memory(self, content: str, memory_type: str = "long", **metadata: Any) -> None:
        """Put a sentence into the agent's long-term memory: "long" for all sessions of the user, "short" for this one.

        Nothing happens if the agent has no memory. Raises `ConfigError` for another type, `InvalidMessage`, `StorageError`.
        """
        short = is_short(memory_type)
        if isinstance(self._memory_instance, Memory):
            self._memory_instance.add(content, metadata=metadata, session_only=short)
        elif type(self._memory_instance) is not NullMemory:
            self._memory_instance.add(content)

    def get_memory_context(self, query: str | None = None) -> str:
        """What a model would be told of the long-term memory with this query, as a text; empty if that is nothing."""
        memory = self._recalling()
        return told(memory.recall(query or "")) if memory else ""

    def for_session(
        self,
        session_id: str | None,
        user_id: str | None = None,
        *,
        store: SessionStore | None = None,
        apart: bool = False,
    ) -> Agent:
        """The same agent in another session: with its own conversation, and with the memories of that user.

        Model connections, tools, the store and the place of memories are this agent's, which is the one to be closed. So one
        agent serves any number of users. session_id: None: the conversation ends with the agent that is returned.
        store: keep the session there, which stays the caller's. apart: see only what was said to and by this agent, and what is
            nobody's, where several agents work in one session.

        Raises `InvalidId`, and `ConfigError` for another user of an agent whose memory is an object of the caller's own,
        because what it would tell is one user's.
        """
        made = copy.copy(self)
        made._origin = self._origin or self
        made._config = msgspec.structs.replace(self._config, session_id=session_id, user_id=check_user_id(user_id))
        made._session_id = session_id
        made._memory_instance = self._memory_for(made.user_id, session_id)
        if store is not None:
            made._store, made._lender = store, None
        elif self._lender is None and self._store is None:
            made._lender = made._origin._open_once
        if apart:
            made._view = OWN_PART
        made._opened = made._conversation = made._models = None
        made._early_history = []
        made._turn = threading.Lock()
        made._at_close = []
        return made

    def launch(
        self,
        path: str = "/",
        port: int = 8000,
        host: str = "127.0.0.1",
        debug: bool = False,
        protocol: str = "http",
        **settings: Any,
    ) -> Any:
        """Serve the agent at `http://host:port/path`, to many users, each with their own sessions.

        Several agents may share a port. The call waits until the server ends, unless the code after it launches another one.
        protocol: "http", or what another package adds. settings: for "http", see `serve.launch`.

        Raises `ConfigError`, `MissingDependency`.
        """
        from praisonaiagents.agent.doors import door

        return door(protocol)(self, path, port, host, debug, **settings)

    async def prepare(self) -> None:
        """Load the LLM library, the model for the running event loop and the tools, so that the first turn does not have to."""
        await self._model()
        import asyncio

        await asyncio.to_thread(self._runner)

    def warm_up(self) -> None:
        """Load the LLM library now, in this thread, so that the first turn does not have to."""
        self._chosen().build()
        from praisonaiagents.agent import turn  # noqa: F401

    # Ending it

    def close(self) -> None:
        """Let go of what the agent opened. Calling it twice is harmless, and so is a turn after it: that opens it again."""
        with ExitStack() as steps:  # what cannot be closed keeps nothing else open
            if self._opened is not None or self._lender is not None:
                self._early_history, self._conversation = self.chat_history, None
            if self._opened is not None:
                steps.callback(self._opened.close)
                self._opened = None
            if self._models is not None:
                steps.callback(self._models.close)
            steps.callback(self._memory_instance.close_connections)
            if self._conversation is not None and self._config.adapter is not None:
                from praisonaiagents.agent import background

                steps.callback(background.run, self._conversation.close())
            while self._at_close:
                steps.callback(self._at_close.pop())

    def on_close(self, act: Callable[[], object]) -> None:
        """Do this too when the agent is closed, once, and first: where it is served, that ends there."""
        self._at_close.append(act)

    async def aclose(self) -> None:
        """`close` on the running event loop."""
        import asyncio

        async with AsyncExitStack() as steps:
            steps.push_async_callback(asyncio.to_thread, self.close)
            if self._models is not None:
                steps.push_async_callback(self._models.aclose)
            if self._conversation is not None:
                steps.push_async_callback(self._conversation.close)
            while self._at_close:
                steps.push_async_callback(asyncio.to_thread, self._at_close.pop())

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Agent:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Agent(name={self.name!r}, session_id={self._session_id!r}, user_id={self.user_id!r})"

    # Inside

    async def _sum_up(self, keep_last: int, watch: Callable[[str, int, int], object]) -> Compacted | None:
        async with self._one_at_a_time():
            model = await self._model()
            from praisonaiagents.agent.turn import sum_up_old_part

            return await sum_up_old_part(self._in_conversation(), keep_last, model, watch=watch)

    @asynccontextmanager
    async def _one_at_a_time(self) -> AsyncIterator[None]:
        """Turns of one agent follow each other, from whichever loop or thread they come."""
        import asyncio

        if self in _in_turn.get():
            raise ConfigError("a tool cannot talk to the agent that called it: the agent waits for the tool")
        while not self._turn.acquire(blocking=False):
            await asyncio.sleep(_TURN_POLL_S)
        before = _in_turn.set((*_in_turn.get(), self))
        try:
            yield
        finally:
            _in_turn.reset(before)
            self._turn.release()

    async def _model(self) -> Any:
        """The model for the running loop. One that the caller made is the caller's to close, so it is not entered."""
        if self._origin is not None:
            return await self._origin._model()
        import asyncio

        from praisonaiagents.agent.background import PerLoop

        choice = await asyncio.to_thread(self._chosen) if self._choice is None else self._chosen()
        if choice.instance is not None:
            return choice.instance
        if self._models is None:
            self._models = PerLoop(choice.build)
        return await self._models.get()

    def _chosen(self) -> ModelChoice:
        if self._origin is not None:
            return self._origin._chosen()
        if self._choice is None:
            self._choice = choose_model(self._llm, **self._server)
        if self._choice.note and self._choice.note not in _told:
            _told.add(self._choice.note)
            print(self._choice.note, file=sys.stderr)
        return self._choice

    def _in_conversation(self) -> Conversation:
        if self._conversation is None:
            self._conversation = self._new_conversation()
            self._conversation.history = self._early_history
        return self._conversation

    def _new_conversation(self) -> Conversation:
        limit = self._config.history_limit if self._config.history else None
        if self._session_id is None:
            return Conversation(limit=limit or self._config.max_messages)
        if self._config.adapter is not None:
            return self._adapted(limit or self._config.max_messages)
        return StoredConversation(
            store := self.store,
            self._session_id,
            self.user_id,
            agent_name=self.name,
            part=self._part(),
            view=self._view,
            limit=limit,
            policy=self._policy(store),
        )

    def _turn_memory(self) -> TurnMemory | None:
        from praisonaiagents.agent.remembering import TurnMemory

        memory = self._recalling()
        return TurnMemory(memory, auto=self._config.auto_memory) if memory else None

    def _recalling(self) -> Memory | ForeignMemory | None:
        """The memory that the model is told from; None if there is none."""
        memory = self._memory_instance
        if type(memory) is NullMemory:
            return None
        return memory if isinstance(memory, (Memory, ForeignMemory)) else ForeignMemory(memory)

    def _part(self) -> str | None:
        """What the messages of this agent are marked with: `name`, or `name:role`, so that no two agents share a mark."""
        role = self._about["role"]
        if not (self.name or role):
            return None
        name = (self.name or "").replace("%", "%25").replace(":", "%3A")
        return f"{name}:{role}" if role else name

    def _adapted(self, limit: int | None) -> Conversation:
        from praisonaiagents.agent.background import in_background
        from praisonaiagents.session.adapted import AdaptedConversation

        return AdaptedConversation(
            self._config.adapter,
            self._session_id or "",
            self.user_id,
            agent_name=self.name or "agent",
            metadata=self._about,
            limit=limit,
            prefers_twins=lambda: not in_background(),
        )

    def _check_adapter(self) -> None:
        if self._config.adapter is None:
            return
        if self._store is not None:
            raise ConfigError("db= and session_store= both say where the session is kept: pass one of them")
        if self._config.compact_at or self._config.retention:
            raise ConfigError(
                "compact_at and retention are about a session that we keep, not about one that an adapter keeps"
            )

    def _policy(self, store: SessionStore) -> Policy | None:
        """When the conversation is compacted: because the agent was told to, or because its store was."""
        by_count = "compact" in (store.retention, self._config.retention)
        at_messages = store.max_messages or self._config.max_messages if by_count else None
        if at_messages is None and self._config.compact_at is None:
            return None
        return Policy(self._config.compact_at, at_messages, self._config.keep_last)

    def _open_store(self) -> SessionStore:
        config = self._config
        lock_timeout = None if config.lock_timeout == MemoryConfig().lock_timeout else config.lock_timeout
        bounds = self.bounds | {"lock_timeout": lock_timeout}
        url = config.url()
        if config.place is None and url is None and set(bounds.values()) == {None}:
            return get_default_session_store()
        self._opened = config.place.open_store(**bounds) if config.place else open_store(url, **bounds)
        return self._opened

    def _open_once(self) -> SessionStore:
        """The store for the agents of other sessions, which share it with this one."""
        with self._opening:
            return self._opened or self._open_store()

    def _memory_for(self, user_id: str, session_id: str | None) -> Any:
        memory = self._memory_instance
        if isinstance(memory, Memory):
            return memory.lent(user_id, session_id, self._config.recall_tokens)
        if type(memory) is not NullMemory and user_id != self.user_id:
            raise ConfigError("the memory that the agent was given is of one user, and cannot be another's")
        return memory

    def _generated_session_id(self) -> str | None:
        if self._config.history:
            return history_session_id(self.name or "agent")
        return new_session_id(self.name or "agent") if self._config.in_database or self._store else None

    def _runner(self) -> Any:
        """What runs turns with these tools, in all sessions: describing tools to a model takes longer than storing a turn."""
        own = self._origin or self
        made = own._made_runner
        if made is None or made[0] != self.tools:
            from praisonaiagents.agent.turn import runner_with

            made = own._made_runner = (list(self.tools), runner_with(self.tools))
        return made[1]

    def _show(self, prompt: Content, settings: dict[str, Any]) -> str:
        from praisonaiagents.agent import background

        with closing(background.iterate(lambda emit: self.take_turn(prompt, settings, emit))) as pieces:
            while True:
                try:
                    print(next(pieces), end="", flush=True)
                except StopIteration as end:
                    print()
                    return str(end.value)


def _describe(name: str | None, role: str | None, goal: str | None, backstory: str | None) -> str | None:
    """Instructions made from a role, a goal and a backstory."""
    lines = [
        f"You are {role or name or 'an assistant'}." if role or name else "",
        f"Your goal: {goal}" if goal else "",
        f"Background: {backstory}" if backstory else "",
    ]
    return "\n".join(line for line in lines if line) or None


def _check_tools(tools: Sequence[Callable[..., Any]] | None) -> list[Callable[..., Any]]:
    checked = list(tools or ())
    for tool in checked:
        if not (callable(tool) and hasattr(tool, "__name__")):
            raise ConfigTypeError(f"a tool is a function with a name, not {type(tool).__name__}")
    names = [tool.__name__ for tool in checked]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(f"two tools have one name: {', '.join(sorted(twice))}")
    return checked
