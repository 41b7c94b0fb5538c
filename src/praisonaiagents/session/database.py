"""The ready database adapter: every hook of `dbadapter`, kept by one of our engines.

    db = PraisonAIDB(database_url="postgresql://localhost/mydb")
    Agent("Assistant", db=db)

What a reader would get wrong: an agent does not call the hooks of a `PraisonAIDB`. It keeps its messages in the same place
directly, because a hook is told text only, and a message is more than that. The hooks are for those who call them by
themselves, and for a subclass that overrides one: then an agent calls them all.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

import msgspec

from praisonaiagents.errors import (
    AmbiguousSession,
    ConfigError,
    ConfigTypeError,
    InvalidMessage,
    NewerFormat,
)
from praisonaiagents.model.ids import DEFAULT_USER, check_user_id
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session.data import conversations, title_of
from praisonaiagents.session.dbadapter import DbMessage, DbRun, DbSpan, DbTrace
from praisonaiagents.session.places import default_place, is_private, open_store
from praisonaiagents.session.retry import change_record
from praisonaiagents.session.runs import as_json, runs, to_db, trace
from praisonaiagents.session.store import SessionStore
from praisonaiagents.storage.registry import check_url, masked

P = ParamSpec("P")
T = TypeVar("T")

HOOKS = (
    *("on_agent_start", "on_user_message", "on_agent_message", "on_tool_call", "on_agent_end", "on_run_start"),
    *("on_run_end", "on_trace_start", "on_trace_end", "on_span_start", "on_span_end"),
)
_OPTIONS = ("max_messages", "retention", "lock_timeout")
_RUNS, _TRACES = "db_runs", "db_traces"
_MOST_KEPT = 50  # runs, and traces, that hooks told of, in one session
_MOST_SPANS = 200  # of one such trace
_OPEN_TRACES = 1_000


def _twin(
    method: Callable[Concatenate[PraisonAIDB, P], T],
) -> Callable[Concatenate[PraisonAIDB, P], Coroutine[Any, Any, T]]:
    """The method for asyncio: it runs in a thread. In a subclass it is the subclass's."""

    @wraps(method)
    async def call(self: PraisonAIDB, /, *args: P.args, **kwargs: P.kwargs) -> T:
        import asyncio
        import inspect

        found: Any = await asyncio.to_thread(getattr(self, method.__name__), *args, **kwargs)
        result: T = await found if inspect.isawaitable(found) else found
        return result

    return call


class PraisonAIDB:
    """Sessions at a storage URL, as a database adapter. Nothing is opened before the first call.

    database_url: see `storage.registry`; None means the default place (`PRAISONAI_DB_URL`, else session files).
    options: max_messages, retention, lock_timeout, as in `open_store`.

    Runs and traces are made from the messages, which are in one place; `state_url` and `knowledge_url` are refused.
    Each method but close has a twin for asyncio, whose name begins with `a`. Raises `UnknownEngine`, `ConfigError`.
    """

    SCHEMA_VERSION = "1.0"

    def __init__(self, database_url: str | None = None, **options: Any) -> None:
        if database_url is not None:
            check_url(database_url)
        for name in ("state_url", "knowledge_url"):
            if options.pop(name, None) is not None:
                raise ConfigError(f"{name} is of no use here: everything lies at database_url; leave it out")
        unknown = sorted(options.keys() - set(_OPTIONS))
        if unknown:
            raise ConfigTypeError(f"unknown options: {', '.join(unknown)}; known: {', '.join(_OPTIONS)}")
        self._url = database_url
        self._options = {name: value for name, value in options.items() if value is not None}
        self._lock = threading.Lock()
        self._opened: SessionStore | None = None
        self._started: dict[str, tuple[str, int]] = {}
        self._running: dict[str, tuple[str, float]] = {}
        self._traces: dict[str, DbTrace] = {}

    @property
    def database_url(self) -> str | None:
        """The URL as it was given, which may hold a password."""
        return self._url

    @property
    def is_place(self) -> bool:
        """True if an agent may keep its messages here directly: no hook is overridden."""
        names = [each for name in HOOKS for each in (name, f"a{name}")]
        own = all(getattr(type(self), name, None) is getattr(PraisonAIDB, name) for name in names)
        return own and not vars(self).keys() & set(names)

    @property
    def store(self) -> SessionStore:
        """The store of the sessions. It ends with `close`; after that, there is a new one."""
        with self._lock:
            if self._opened is None:
                self._opened = open_store(self._url or default_place(), **self._options)
            return self._opened

    def open_store(self, **bounds: Any) -> SessionStore:
        """A store of the same sessions with bounds of its own, which the caller closes."""
        options = self._options | {name: value for name, value in bounds.items() if value is not None}
        url = self._url or default_place()
        if not is_private(url):
            return open_store(url, **options)
        options.pop("lock_timeout", None)
        return SessionStore(self.store.engine, **options)

    # Hooks

    def on_agent_start(
        self, agent_name: str, session_id: str, user_id: str | None = None, metadata: dict[str, Any] | None = None
    ) -> list[DbMessage]:
        """Make the session unless it is there, and return its messages, oldest first.

        The hooks that follow name only the session: raises `ConfigError` while it is another user's who started it here.
        """
        user = check_user_id(user_id)
        with self._lock:
            known, agents = self._started.get(session_id, (user, 0))
            if known != user:
                raise ConfigError("two users' sessions have one id: give each user a database adapter of their own")
            self._started[session_id] = user, agents + 1
        self.store.open_session(session_id, user_id=user, agent_name=agent_name)
        return [to_db(message) for message in self.store.messages(session_id, user_id=user)]

    def on_user_message(self, session_id: str, content: str, metadata: dict[str, Any] | None = None) -> None:
        """Store what the user said."""
        self._append(session_id, Message("user", content, metadata=metadata or {}))

    def on_agent_message(self, session_id: str, content: str, metadata: dict[str, Any] | None = None) -> None:
        """Store what the agent answered."""
        self._append(session_id, Message("assistant", content, metadata=metadata or {}))

    def on_tool_call(
        self, session_id: str, tool_name: str, args: Any, result: Any = None, metadata: dict[str, Any] | None = None
    ) -> None:
        """Store a tool call and its result, as a model was told of them."""
        call_id = f"call_{os.urandom(6).hex()}"
        call = {"id": call_id, "type": "function", "function": {"name": tool_name, "arguments": as_json(args or {})}}
        text = "" if result is None else as_json(result)
        self._append(
            session_id,
            Message("assistant", None, tool_calls=[call]),
            Message("tool", text, tool_call_id=call_id, name=tool_name, metadata=metadata or {}),
        )

    def on_agent_end(self, session_id: str, metadata: dict[str, Any] | None = None) -> None:
        """The agent is done with the session."""
        with self._lock:
            user, agents = self._started.pop(session_id, ("", 1))
            if agents > 1:
                self._started[session_id] = user, agents - 1

    def on_run_start(
        self,
        session_id: str,
        run_id: str,
        input_content: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """A turn begins: what is stored up to `on_run_end` belongs to it."""
        self._running[session_id] = run_id, time.time()

    def on_run_end(
        self,
        session_id: str,
        run_id: str,
        output_content: str | None = None,
        status: str = "completed",
        metrics: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Store how a turn ended. One that ended with "error" is not sent to a model again."""
        _, began = self._running.get(session_id, ("", time.time()))
        if status == "error":
            self._append(session_id, Message("assistant", "", run_id=run_id, status="failed", metadata=metadata or {}))
        told = {"status": status, "metrics": metrics or {}, "metadata": metadata or {}}
        self._keep(session_id, _RUNS, run_id, {**told, "started_at": began, "ended_at": time.time()})
        self._running.pop(session_id, None)

    def on_trace_start(
        self,
        trace_id: str,
        session_id: str | None = None,
        run_id: str | None = None,
        agent_name: str | None = None,
        user_id: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """A trace begins. It is stored when it ends, in its session. Raises `ConfigError` if it has none."""
        if session_id is None:
            raise ConfigError("a trace is kept in a session: session_id is needed")
        with self._lock:
            while len(self._traces) >= _OPEN_TRACES:
                self._traces.pop(next(iter(self._traces)))  # one that nobody ends
            self._traces[trace_id] = DbTrace(trace_id, session_id, run_id, agent_name, user_id, metadata=metadata or {})

    def on_trace_end(self, trace_id: str, status: str = "ok", metadata: dict[str, Any] | None = None) -> None:
        """Store the trace with its spans."""
        found = self._traces.pop(trace_id, None)
        if found is None or found.session_id is None:
            return
        found.ended_at, found.status = time.time(), status
        found.metadata = found.metadata | (metadata or {})
        self._keep(found.session_id, _TRACES, trace_id, msgspec.to_builtins(found))

    def on_span_start(
        self,
        span_id: str,
        trace_id: str,
        name: str,
        parent_span_id: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """A step of a trace begins."""
        found = self._traces.get(trace_id)
        if found is not None and len(found.spans) < _MOST_SPANS:
            span = DbSpan(span_id, trace_id, name, parent_span_id=parent_span_id, attributes=attributes or {})
            found.spans.append(span)

    def on_span_end(self, span_id: str, status: str = "ok", attributes: dict[str, Any] | None = None) -> None:
        """A step of a trace ends."""
        spans = (span for found in list(self._traces.values()) for span in found.spans if span.span_id == span_id)
        for span in spans:
            span.ended_at, span.status = time.time(), status
            span.attributes = span.attributes | (attributes or {})

    # Reading

    def get_runs(self, session_id: str, limit: int | None = None) -> list[DbRun]:
        """The last `limit` turns of a session (None: all), oldest first; empty if there is none."""
        record = self._record(session_id)
        if record is None:
            return []
        found = {run.run_id: run for run in runs(self._messages(record), session_id, record.agent_name)}
        for run_id, told in record.extra.get(_RUNS, {}).items():
            run = found.setdefault(run_id, DbRun(run_id, session_id, record.agent_name, told.get("started_at", 0.0)))
            run.status, run.ended_at = told["status"], told.get("ended_at")
            run.metrics, run.metadata = told.get("metrics") or run.metrics, told.get("metadata", {})
        ordered = sorted(found.values(), key=lambda run: run.started_at)
        return ordered if limit is None else ordered[max(0, len(ordered) - limit) :]

    def get_traces(
        self, session_id: str | None = None, user_id: str | None = None, limit: int | None = None
    ) -> list[DbTrace]:
        """The last `limit` traces (None: all) of a session, else of all sessions of a user (None: of all users).

        Those of one session are oldest first; the sessions come newest first. What hooks told of goes before what the
        messages say.
        """
        found: list[DbTrace] = []
        for record in self._records(session_id, user_id):
            found += self._traces_of(record)
            if limit is not None and len(found) >= limit:
                break
        return found if limit is None else found[max(0, len(found) - limit) :] if session_id else found[:limit]

    def export_session(self, session_id: str) -> dict[str, Any]:
        """A session and its messages as one JSON object; empty if there is none."""
        record = self._record(session_id)
        if record is None:
            return {}
        return {
            "session_id": session_id,
            "user_id": record.user_id,
            "agent_id": record.agent_name,
            "name": title_of(record) or f"Session {session_id}",
            "metadata": record.metadata,
            "created_at": record.created_at,
            "messages": [_exported(message) for message in self._messages(record)],
        }

    def import_session(self, data: dict[str, Any]) -> str:
        """Make a session of what `export_session` returned, and return its id. Its messages get new ids.

        Raises `SessionExists`, which leaves the one that is there alone, `InvalidMessage`.
        """
        rows = data.get("messages", []) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InvalidMessage("an exported session is an object with a list of messages")
        messages = [_imported(row) for row in rows]
        made = self._made_from(data)
        try:
            self.store.append(made.session_id, messages, user_id=made.user_id)
        except BaseException:
            self.store.delete_session(made.session_id, user_id=made.user_id)
            raise
        return made.session_id

    # The schema

    def get_schema_version(self) -> str:
        """The version of this interface."""
        return self.SCHEMA_VERSION

    def check_schema_compatibility(self) -> tuple[bool, str]:
        """(True if this version can work with what lies in the database, why not or what it is). Connects."""
        try:
            self.store.session_exists("praisonai")
            return True, self.store.engine.describe()["schema"]
        except NewerFormat as exc:
            return False, str(exc)

    def migrate_schema(self, from_version: str, to_version: str) -> bool:
        """True if the database is of that version then. It is brought up to date by the first call anyway."""
        return to_version == self.SCHEMA_VERSION and self.check_schema_compatibility()[0]

    # Ending it

    def close(self) -> None:
        """Let go of the connections. Calling it twice is harmless; a later call opens them again.

        Sessions in the memory of this process (`memory://`) end with it.
        """
        with self._lock:
            opened, self._opened = self._opened, None
            self._started.clear()
            self._running.clear()
            self._traces.clear()
        if opened is not None:
            opened.close()

    def __enter__(self) -> PraisonAIDB:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> PraisonAIDB:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({masked(self._url)!r})" if self._url else f"{type(self).__name__}()"

    # For asyncio

    aon_agent_start = _twin(on_agent_start)
    aon_user_message = _twin(on_user_message)
    aon_agent_message = _twin(on_agent_message)
    aon_agent_end = _twin(on_agent_end)
    aon_run_start = _twin(on_run_start)
    aon_run_end = _twin(on_run_end)
    aon_trace_start = _twin(on_trace_start)
    aon_trace_end = _twin(on_trace_end)
    aon_span_start = _twin(on_span_start)
    aon_span_end = _twin(on_span_end)
    aget_runs = _twin(get_runs)
    aget_traces = _twin(get_traces)
    aexport_session = _twin(export_session)
    aimport_session = _twin(import_session)
    aclose = _twin(close)

    async def aon_tool_call(
        self,
        session_id: str,
        tool_name: str,
        arguments: Any,
        result: Any = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """`on_tool_call` for asyncio, with the documented names."""
        await _twin(PraisonAIDB.on_tool_call)(self, session_id, tool_name, arguments, result, metadata)

    # Inside

    def _user(self, session_id: str) -> str | None:
        return self._started.get(session_id, (None, 0))[0]

    def _append(self, session_id: str, *messages: Message) -> None:
        run_id, _ = self._running.get(session_id, (None, 0.0))
        told = [msgspec.structs.replace(message, run_id=message.run_id or run_id) for message in messages]
        self.store.append(session_id, told, user_id=self._user(session_id))

    def _keep(self, session_id: str, kind: str, name: str, told: dict[str, Any]) -> None:
        """Keep a small fact in the session's record, with the last ones of its kind."""

        def with_it(record: Record) -> dict[str, Any]:
            kept = record.extra.get(kind, {}) | {name: told}
            return {"extra": record.extra | {kind: dict(list(kept.items())[-_MOST_KEPT:])}}

        change_record(self.store.engine, Key(check_user_id(self._user(session_id)), session_id), with_it)

    def _record(self, session_id: str) -> Record | None:
        """The session of the user who started it here, else of the default user, else of its one owner."""
        engine = self.store.engine
        found = engine.get(Key(self._user(session_id) or DEFAULT_USER, session_id))
        if found is not None or self._user(session_id) is not None:
            return found
        owners = engine.owners(session_id)
        if len(owners) > 1:
            raise AmbiguousSession(session_id, tuple(owners))
        return engine.get(Key(owners[0], session_id)) if owners else None

    def _records(self, session_id: str | None, user_id: str | None) -> Iterator[Record]:
        if session_id is None:
            yield from conversations(self.store.engine, user_id and check_user_id(user_id))
            return
        key = Key(check_user_id(user_id), session_id)
        found = self._record(session_id) if user_id is None else self.store.engine.get(key)
        if found is not None:
            yield found

    def _messages(self, record: Record) -> list[Message]:
        return self.store.messages(record.session_id, user_id=record.user_id)

    def _traces_of(self, record: Record) -> list[DbTrace]:
        told = [msgspec.convert(value, DbTrace) for value in record.extra.get(_TRACES, {}).values()]
        known = {trace.run_id for trace in told}
        made = (
            trace(run, record.user_id) for run in runs(self._messages(record), record.session_id, record.agent_name)
        )
        return sorted([*told, *(each for each in made if each.run_id not in known)], key=lambda one: one.started_at)

    def _made_from(self, data: dict[str, Any]) -> Record:
        name = data.get("name")
        session_id = data.get("session_id") or os.urandom(4).hex()
        metadata = dict(data.get("metadata") or {})
        if isinstance(name, str) and name != f"Session {session_id}":
            metadata.setdefault("title", name)
        return self.store.engine.open_session(
            Record(
                user_id=check_user_id(data.get("user_id")),
                session_id=session_id,
                agent_name=data.get("agent_id"),
                metadata=metadata,
                created_at=data.get("created_at") or 0.0,
            ),
            must_be_new=True,
        )


def _exported(message: Message) -> dict[str, Any]:
    rest = {name: value for name, value in message.to_dict().items() if name != "timestamp"}
    return {"id": None, "role": None, "content": None, "metadata": {}, "created_at": message.timestamp} | rest


def _imported(row: dict[str, Any]) -> Message:
    values = {name: value for name, value in row.items() if name not in ("id", "created_at")}
    return Message.from_dict(values | {"timestamp": row.get("created_at") or row.get("timestamp") or 0.0})


class PostgresDB(PraisonAIDB):
    """Sessions in PostgreSQL, by host and login instead of a URL."""

    def __init__(
        self,
        host: str = "localhost",
        port: int = 5432,
        database: str = "praisonai",
        user: str = "postgres",
        password: str = "",
        **options: Any,
    ) -> None:
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        super().__init__(f"postgresql://{login}@{_host(host)}:{port}/{quote(database, safe='')}", **options)


class SQLiteDB(PraisonAIDB):
    """Sessions in a SQLite file."""

    def __init__(self, path: str = "praisonai.db", database_url: str | None = None, **options: Any) -> None:
        super().__init__(database_url or f"sqlite:///{quote(os.fspath(path))}", **options)


class RedisDB(PraisonAIDB):
    """Sessions in Redis or Valkey."""

    def __init__(self, host: str = "localhost", port: int = 6379, **options: Any) -> None:
        super().__init__(f"redis://{_host(host)}:{port}", **options)


class _HostedPostgres(PraisonAIDB):
    """Sessions in a hosted database that speaks PostgreSQL's protocol. Without a URL, a variable of the environment says it."""

    variable: ClassVar[str]

    def __init__(self, database_url: str | None = None, **options: Any) -> None:
        url = database_url or os.environ.get(self.variable)
        if not url:
            raise ConfigError(f"{type(self).__name__} needs database_url=, or {self.variable} in the environment")
        super().__init__(url, **options)


class NeonDB(_HostedPostgres):
    """Sessions in Neon."""

    variable = "NEON_DATABASE_URL"


class CockroachDB(_HostedPostgres):
    """Sessions in CockroachDB."""

    variable = "COCKROACHDB_URL"


class XataDB(_HostedPostgres):
    """Sessions in Xata."""

    variable = "XATA_DATABASE_URL"


class TursoDB(PraisonAIDB):
    """Not served: no engine of ours speaks Turso's protocol. Raises `ConfigError`."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ConfigError("Turso (libsql) is not served; SQLiteDB keeps sessions in a local file of the same kind")


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
