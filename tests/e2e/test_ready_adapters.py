"""The ready database adapters: the same on every engine, by an agent that keeps its messages there and by hooks alike."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest
from servers.ports import free_port
from servers.postgres import GUARDED, PostgresServer
from servers.postgres import empty_place as empty_postgres
from servers.redis import RedisServer
from servers.redis import empty_place as empty_redis
from wire import OPENAI

import praisonaiagents
from praisonaiagents import Agent, db
from praisonaiagents.db import DbMessage, DbRun, DbSpan, DbToolCall, DbTrace, PraisonAIDB
from praisonaiagents.errors import (
    AdapterFailed,
    AmbiguousSession,
    ConfigError,
    ConfigTypeError,
    EngineUnreachable,
    InvalidMessage,
    ModelError,
    SessionExists,
    UnknownEngine,
)
from praisonaiagents.session import open_store
from praisonaiagents.session.database import HOOKS
from praisonaiagents.testing.llm import Call, Fail, Hang, Say, ScriptedLLM, Tool

PLACES = ("memory", "file", "sqlite", "postgres", "redis")
SECRET = "very-secret"


@pytest.fixture(params=PLACES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place."""
    places: dict[str, Callable[[], Any]] = {
        "memory": lambda: nullcontext("memory://"),
        "file": lambda: nullcontext(f"file://{tmp_path}/sessions"),
        "sqlite": lambda: nullcontext(f"sqlite:///{tmp_path}/sessions.db"),
        "postgres": empty_postgres,
        "redis": empty_redis,
    }
    with places[request.param]() as found:
        yield found


@pytest.fixture
def adapter(url: str) -> Iterator[PraisonAIDB]:
    with PraisonAIDB(database_url=url) as opened:
        yield opened


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[PraisonAIDB]:
    with db.SQLiteDB(str(tmp_path / "sessions.db")) as opened:
        yield opened


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
PARTS = [{"type": "text", "text": "What is it?"}, IMAGE]
CALLING = Call([Tool("add", {"a": 1, "b": 2}, id="c1")], text="Wait.")


def use(adapter: Any, *prompts: Any, replies: list[Any], **settings: Any) -> list[Any]:
    """The history of an agent that was asked these."""
    with ScriptedLLM(replies) as llm, Agent("A", db=adapter, session_id="s", **OPENAI.agent(llm, **settings)) as agent:
        for prompt in prompts:
            agent.chat(prompt)
        return agent.chat_history


class Overriding(PraisonAIDB):
    """A subclass that does something of its own: its hooks are called."""

    def on_user_message(self, session_id: str, content: str, metadata: dict[str, Any] | None = None) -> None:
        self.seen = [*getattr(self, "seen", []), content]
        super().on_user_message(session_id, content, metadata)


# --- an agent's place ---


def test_an_agent_keeps_all_of_its_messages_there(adapter: PraisonAIDB, home: Path) -> None:
    history = use(adapter, PARTS, "1 + 2?", replies=[Say("A cat."), CALLING, Say("3")], tools=[add])
    stored = adapter.store.messages("s")
    assert [message.to_chat() for message in stored] == history
    assert stored[0].content == PARTS
    assert all(message.usage for message in stored if message.role == "assistant")
    again = use(adapter, "Thanks", replies=[Say("You are welcome.")], tools=[add])
    assert again[: len(history)] == history
    assert not home.exists()


def test_a_subclass_that_overrides_a_hook_is_told(url: str) -> None:
    with Overriding(url) as adapter:
        history = use(adapter, PARTS, "1 + 2?", replies=[Say("A cat."), CALLING, Say("3")], tools=[add])
        assert adapter.seen == ["What is it?", "1 + 2?"]
        stored = adapter.store.messages("s")
        assert [(message.role, message.text()) for message in stored] == [
            ("user", "What is it?"),
            ("assistant", "A cat."),
            ("user", "1 + 2?"),
            ("assistant", ""),
            ("tool", "3"),
            ("assistant", "3"),
        ]
        assert len({message.run_id for message in stored}) == 2
        again = use(adapter, "Thanks", replies=[Say("You are welcome.")], tools=[add])
        assert [entry["role"] for entry in again[: len(history)]] == [entry["role"] for entry in history]


def test_what_an_async_run_tells_a_subclass_is_the_same(sqlite: PraisonAIDB, tmp_path: Path) -> None:
    with Overriding(f"sqlite:///{tmp_path}/other.db") as adapter, ScriptedLLM([CALLING, Say("3")]) as llm:
        agent = Agent("A", db=adapter, session_id="s", **OPENAI.agent(llm, tools=[add]))
        assert asyncio.run(agent.achat("1 + 2?")) == "3"
        asyncio.run(agent.aclose())
        assert adapter.seen == ["1 + 2?"]
        assert [message.role for message in adapter.store.messages("s")] == ["user", "assistant", "tool", "assistant"]


def test_whether_its_hooks_are_called(sqlite: PraisonAIDB) -> None:
    class Renamed(PraisonAIDB):
        def __init__(self, path: str) -> None:
            super().__init__(f"sqlite:///{path}")

    class Asynchronous(PraisonAIDB):
        async def aon_agent_message(self, session_id: str, content: str, metadata: Any = None) -> None:
            """Nothing."""

    assert sqlite.is_place
    assert Renamed("x.db").is_place
    assert not Overriding("memory://").is_place
    assert not Asynchronous("memory://").is_place
    patched = PraisonAIDB("memory://")
    patched.on_agent_end = lambda *_: None  # type: ignore[method-assign]
    assert not patched.is_place


def test_bounds_are_the_agents_or_its_own(url: str) -> None:
    with PraisonAIDB(url, max_messages=4) as adapter:
        replies = [Say(str(number)) for number in range(8)]
        use(adapter, *"abcd", replies=replies)
        assert len(adapter.store.messages("s")) == 4
        use(adapter, *"efgh", replies=replies, memory={"max_messages": 2})
        assert len(adapter.store.messages("s")) <= 4
        assert adapter.store.messages("s", 2)[0].content == "h"


def test_two_users_of_one_session_id_have_two_sessions(adapter: PraisonAIDB) -> None:
    use(adapter, "I am Alice", replies=[Say("Hi Alice")], user_id="alice")
    use(adapter, "I am Bob", replies=[Say("Hi Bob")], user_id="bob")
    assert [message.content for message in adapter.store.messages("s", user_id="bob")] == ["I am Bob", "Hi Bob"]
    with pytest.raises(AmbiguousSession):
        adapter.get_runs("s")
    with pytest.raises(AmbiguousSession):
        adapter.export_session("s")
    assert [trace.user_id for trace in adapter.get_traces(user_id="bob")] == ["bob"]
    assert {trace.user_id for trace in adapter.get_traces()} == {"alice", "bob"}


def test_hooks_that_name_no_user_are_refused_to_two_at_once(sqlite: PraisonAIDB) -> None:
    sqlite.on_agent_start("A", "s", "alice")
    sqlite.on_user_message("s", "I am Alice")
    with pytest.raises(ConfigError, match="two users"):
        sqlite.on_agent_start("A", "s", "bob")
    sqlite.on_agent_start("B", "s", "alice")
    sqlite.on_agent_end("s")
    sqlite.on_agent_message("s", "Hi Alice")
    sqlite.on_agent_end("s")
    assert sqlite.on_agent_start("A", "s", "bob") == []
    assert [message.content for message in sqlite.store.messages("s", user_id="alice")] == ["I am Alice", "Hi Alice"]


# --- runs and traces ---


def test_turns_are_runs_and_traces_without_being_told_of(adapter: PraisonAIDB) -> None:
    use(adapter, "1 + 2?", "Thanks", replies=[CALLING, Say("3"), Say("!")], tools=[add])
    first, second = adapter.get_runs("s")
    assert (first.session_id, first.agent_name, first.status) == ("s", "A", "completed")
    assert (first.input_content, first.output_content) == ("1 + 2?", "3")
    assert first.metrics == {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30, "requests": 2}
    assert [message.role for message in first.messages] == ["user", "assistant", "tool", "assistant"]
    (call,) = first.tool_calls
    assert (call.tool_name, call.args, call.result, call.call_id) == ("add", {"a": 1, "b": 2}, "3", "c1")
    assert call.duration_ms is not None
    assert call.duration_ms >= 0
    assert first.started_at <= (first.ended_at or 0) <= second.started_at
    assert adapter.get_runs("s", limit=1) == [second]
    assert adapter.get_runs("nowhere") == []

    trace, last = adapter.get_traces("s")
    assert (trace.run_id, trace.session_id, trace.agent_name, trace.status) == (first.run_id, "s", "A", "ok")
    assert [span.name for span in trace.spans] == ["chat", "execute_tool add", "chat"]
    assert trace.spans[0].attributes == {"model": OPENAI.model, "input_tokens": 10, "output_tokens": 5}
    assert all(span.started_at <= (span.ended_at or 0) for span in trace.spans)
    assert adapter.get_traces("s", limit=1) == [last]
    assert adapter.get_traces("nowhere") == adapter.get_traces(user_id="nobody") == []


def test_a_turn_that_ended_badly_says_so(sqlite: PraisonAIDB) -> None:
    with pytest.raises(ModelError):
        use(sqlite, "Hi", replies=[Fail(500)])
    with ScriptedLLM([Hang("One two", after_chunks=1, chunks=2)]) as llm:
        agent = Agent("A", db=sqlite, session_id="s", **OPENAI.agent(llm))
        pieces = agent.iter_stream("Count")
        first = next(pieces)
        pieces.close()
        llm.release()
        agent.close()
    failed, cancelled = sqlite.get_runs("s")
    assert (failed.status, failed.output_content) == ("error", None)
    assert (cancelled.status, cancelled.output_content) == ("cancelled", first)
    assert [trace.status for trace in sqlite.get_traces("s")] == ["error", "cancelled"]
    sqlite.store.add_user_message("t", "Hi")
    assert sqlite.get_runs("t") == []  # of no turn


def test_what_hooks_tell_of_a_turn_is_kept(url: str) -> None:
    with Overriding(url) as adapter:
        use(adapter, "1 + 2?", replies=[CALLING, Say("3")], tools=[add])
        with pytest.raises(ModelError):
            use(adapter, "Hi", replies=[Fail(500)])
        first, failed = adapter.get_runs("s")
        assert (first.status, first.input_content, first.output_content) == ("completed", "1 + 2?", "3")
        assert first.metrics == {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30, "requests": 2}
        assert first.metadata == {"agent_name": "A", "model": OPENAI.model}
        assert [(call.tool_name, call.args, call.result) for call in first.tool_calls] == [
            ("add", {"a": 1, "b": 2}, "3")
        ]
        assert failed.status == "error"
        one, other = adapter.get_traces("s")
        assert (one.run_id, one.status) == (first.run_id, "ok")
        assert [span.name for span in one.spans] == ["chat", "execute_tool add", "chat"]
        assert {span.status for span in one.spans} == {"ok"}
        assert (other.status, [span.status for span in other.spans]) == ("error", ["error"])
        third = use(adapter, "Again", replies=[Say("Hello!")])
        assert third[-3]["status"] == "failed"


def test_what_hooks_tell_does_not_grow_without_end(sqlite: PraisonAIDB) -> None:
    for number in range(60):
        sqlite.on_run_start("s", f"run-{number}")
        sqlite.on_trace_start(f"trace-{number}", session_id="s", run_id=f"run-{number}")
        for span in range(3 if number < 59 else 300):
            sqlite.on_span_start(f"span-{number}-{span}", f"trace-{number}", "chat")
            sqlite.on_span_end(f"span-{number}-{span}")
        sqlite.on_run_end("s", f"run-{number}", metrics={"n": number})
        sqlite.on_trace_end(f"trace-{number}")
    assert [run.metrics["n"] for run in sqlite.get_runs("s")] == list(range(10, 60))
    traces = sqlite.get_traces("s")
    assert [trace.trace_id for trace in traces] == [f"trace-{number}" for number in range(10, 60)]
    assert len(traces[-1].spans) == 200
    for number in range(1_200):
        sqlite.on_trace_start(f"open-{number}", session_id="s")
    assert len(sqlite._traces) == 1_000
    with pytest.raises(ConfigError, match="session_id is needed"):
        sqlite.on_trace_start("trace")


# --- hooks, called by hand ---


def test_hooks_and_their_twins_do_the_same(url: str) -> None:
    async def tell(adapter: PraisonAIDB) -> list[DbMessage]:
        assert await adapter.aon_agent_start("A", "s", user_id="u") == []
        await adapter.aon_run_start("s", "run-1", input_content="Hi")
        await adapter.aon_user_message("s", "Hi", {"from": "web"})
        await adapter.aon_tool_call("s", tool_name="add", arguments={"a": 1}, result={"sum": 1})
        await adapter.aon_agent_message("s", "Hello!")
        await adapter.aon_run_end("s", "run-1", output_content="Hello!", metrics={"n": 1})
        await adapter.aon_agent_end("s")
        return await adapter.aon_agent_start("A", "s", user_id="u")

    with PraisonAIDB(url) as one, PraisonAIDB("memory://") as other:
        twins = asyncio.run(tell(one))
        assert other.on_agent_start("A", "s", user_id="u") == []
        other.on_run_start("s", "run-1", input_content="Hi")
        other.on_user_message("s", "Hi", {"from": "web"})
        other.on_tool_call("s", "add", {"a": 1}, {"sum": 1})
        other.on_agent_message("s", "Hello!")
        other.on_run_end("s", "run-1", output_content="Hello!", metrics={"n": 1})
        hooks = other.on_agent_start("A", "s", user_id="u")
        assert [_timeless(message) for message in twins] == [_timeless(message) for message in hooks]
        assert [(message.role, message.content, message.metadata) for message in hooks] == [
            ("user", "Hi", {"from": "web"}),
            ("assistant", None, {}),
            ("tool", '{"sum": 1}', {}),
            ("assistant", "Hello!", {}),
        ]
        assert asyncio.run(one.aget_runs("s"))[0].metrics == one.get_runs("s")[0].metrics == {"n": 1}


def _timeless(message: DbMessage) -> tuple[Any, ...]:
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.tool_calls or ()]
    return message.role, message.content, message.metadata, message.run_id, calls


def test_every_hook_and_reader_has_a_twin() -> None:
    for name in (*HOOKS, "get_runs", "get_traces", "export_session", "import_session", "close"):
        assert asyncio.iscoroutinefunction(getattr(PraisonAIDB, f"a{name}"))
        assert not asyncio.iscoroutinefunction(getattr(PraisonAIDB, name))


# --- export and import ---


def test_an_exported_session_is_imported_under_its_id(url: str) -> None:
    with PraisonAIDB(url) as source, PraisonAIDB("memory://") as target:
        use(source, PARTS, "1 + 2?", replies=[Say("A cat."), CALLING, Say("3")], tools=[add], user_id="alice")
        source.store.rename_session("s", "Cats", user_id="alice")
        exported = source.export_session("s")
        assert json.loads(json.dumps(exported)) == exported
        assert {name: exported[name] for name in ("session_id", "user_id", "agent_id", "name")} == {
            "session_id": "s",
            "user_id": "alice",
            "agent_id": "A",
            "name": "Cats",
        }
        assert exported["messages"][0].keys() >= {"id", "role", "content", "metadata", "created_at"}
        assert target.import_session(exported) == "s"
        again = target.export_session("s")
        ids = {message["id"] for message in again["messages"]} & {message["id"] for message in exported["messages"]}
        assert ids == set()
        for session in (exported, again):
            for message in session["messages"]:
                del message["id"]
        assert again == exported
        with pytest.raises(SessionExists):
            target.import_session(exported)
        assert source.export_session("nowhere") == {}


def test_what_praisonai_exported_is_imported(sqlite: PraisonAIDB) -> None:
    data = {
        "session_id": "old",
        "user_id": "default",
        "agent_id": "A",
        "name": "Session old",
        "metadata": None,
        "created_at": 1_700_000_000.5,
        "messages": [{"id": "msg-1", "role": "user", "content": "Hi", "metadata": None, "created_at": 1_700_000_001.0}],
    }
    assert sqlite.import_session(data) == "old"
    exported = sqlite.export_session("old")
    assert exported["created_at"] == 1_700_000_000.5
    assert (exported["messages"][0]["content"], exported["messages"][0]["created_at"]) == ("Hi", 1_700_000_001.0)


@pytest.mark.parametrize("data", [[], {"messages": "Hi"}, {"messages": ["Hi"]}, {"messages": [{"content": "Hi"}]}])
def test_what_is_no_session_is_refused(data: Any, sqlite: PraisonAIDB) -> None:
    with pytest.raises(InvalidMessage):
        sqlite.import_session(data)
    with pytest.raises(InvalidMessage):
        sqlite.import_session({"session_id": "s", "messages": [{"role": "unknown", "content": SECRET}]})
    assert sqlite.store.list_sessions(all_users=True) == []


# --- opening and closing ---


def test_it_is_opened_by_use_and_again_after_closing(url: str) -> None:
    adapter = PraisonAIDB(url)
    adapter.close()
    adapter.on_user_message("s", "Hi")
    adapter.close()
    adapter.close()
    adapter.on_user_message("s", "Hi again")
    asyncio.run(adapter.aclose())
    with adapter:
        assert adapter.check_schema_compatibility()[0]
        assert (adapter.get_schema_version(), adapter.SCHEMA_VERSION) == ("1.0", "1.0")
        assert adapter.migrate_schema("0.9", "1.0")
        assert not adapter.migrate_schema("1.0", "2.0")
        contents = [message["content"] for message in adapter.export_session("s").get("messages", [])]
        assert contents == ([] if url == "memory://" else ["Hi", "Hi again"])

    async def main() -> None:
        async with PraisonAIDB(url) as other:
            await other.aon_user_message("t", "Hi")

    asyncio.run(main())


def test_making_one_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nowhere = f"postgresql://user:{SECRET}@127.0.0.1:{free_port()}/db"
    for adapter in (PraisonAIDB(nowhere), db.SQLiteDB(), db(database_url="sqlite:///x.db"), db.RedisDB(port=1), db()):
        Agent("A", llm="offline", db=adapter).close()
        adapter.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(EngineUnreachable):
        Agent("A", llm="offline", db=PraisonAIDB(nowhere)).chat("Hi")
    with pytest.raises(AdapterFailed, match="EngineUnreachable"):
        Agent("A", llm="offline", db=Overriding(nowhere)).chat("Hi")


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    place = tmp_path / "sessions.db"
    with PraisonAIDB(f"sqlite:///{place}") as adapter:
        adapter.on_user_message("s", "Hi")
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("pragma user_version = 999")
    with PraisonAIDB(f"sqlite:///{place}") as adapter:
        fits, why = adapter.check_schema_compatibility()
        assert not fits
        assert "newer" in why
        assert not adapter.migrate_schema("0.9", "1.0")


def test_no_password_is_shown() -> None:
    for adapter in (
        PraisonAIDB(f"postgresql://user:{SECRET}@host/db"),
        db.PostgresDB(password=SECRET),
        db(database_url=f"redis://:{SECRET}@host"),
    ):
        agent = Agent("A", llm="offline", db=adapter)
        shown = repr(adapter) + str(adapter) + repr(agent) + repr(agent._config) + repr(agent._config.to_dict())
        assert SECRET not in shown
    assert repr(PraisonAIDB(f"postgresql://user:{SECRET}@host/db")) == "PraisonAIDB('postgresql://user:***@host/db')"
    said = DbMessage("user", SECRET), DbToolCall("t", SECRET, SECRET), DbRun("r", "s", input_content=SECRET)
    assert SECRET not in repr(said)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "an unknown scheme": (lambda: db("mysql://host/db"), UnknownEngine, "'mysql'"),
    "another": (lambda: db("libsql://host"), UnknownEngine, "'libsql'"),
    "no text": (lambda: db(5), ConfigTypeError, "int"),  # type: ignore[arg-type]
    "an unknown option": (lambda: db("memory://", pool=5), ConfigTypeError, "pool"),
    "state_url": (lambda: db("memory://", state_url="redis://h"), ConfigError, "state_url"),
    "knowledge_url": (lambda: db("memory://", knowledge_url="http://h"), ConfigError, "knowledge_url"),
    "Turso": (lambda: db.TursoDB(database_url="libsql://h", turso_auth_token="t"), ConfigError, "not served"),
    "Neon without a URL": (lambda: db.NeonDB(), ConfigError, "NEON_DATABASE_URL"),
}


@pytest.mark.parametrize(("make", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_at_once(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_hosted_databases_take_their_url_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name in (
        (db.NeonDB, "NEON_DATABASE_URL"),
        (db.CockroachDB, "COCKROACHDB_URL"),
        (db.XataDB, "XATA_DATABASE_URL"),
    ):
        monkeypatch.setenv(name, f"postgresql://{name.lower()}/db")
        assert kind().database_url == f"postgresql://{name.lower()}/db"
        assert kind("postgresql://mine/db").database_url == "postgresql://mine/db"
        assert kind().is_place


def test_places_by_host_and_login(tmp_path: Path) -> None:
    with PostgresServer() as server, db.PostgresDB("127.0.0.1", server.port, "postgres", *GUARDED) as adapter:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"grant create on database postgres to {GUARDED[0]}")
        adapter.on_user_message("s", "Hi")
        assert adapter.export_session("s")["messages"][0]["content"] == "Hi"
    with RedisServer() as server, db.RedisDB(host="127.0.0.1", port=server.port) as redis:
        redis.on_user_message("s", "Hi")
        assert redis.export_session("s")["messages"][0]["content"] == "Hi"
    odd = tmp_path / "100% odd?.db"
    with db.SQLiteDB(path=str(odd)) as file:
        file.on_user_message("s", "Hi")
    assert odd.exists()
    assert db.PostgresDB("::1", user="a/b").database_url == "postgresql://a%2Fb@[::1]:5432/praisonai"


def test_nothing_is_left_open(url: str) -> None:
    for _ in range(50):
        with ExitStack() as opened:
            adapter = opened.enter_context(PraisonAIDB(url))
            agent = opened.enter_context(Agent("A", llm="offline", db=adapter, session_id="s"))
            agent.chat("Hi")
    forgotten = PraisonAIDB(url)
    forgotten.on_user_message("t", "Hi")
    del forgotten
    gc.collect()
    from praisonaiagents.session import places

    assert places._engines == {}


# --- the module ---


def test_the_module_can_be_called_and_holds_the_names() -> None:
    assert db.db is db is praisonaiagents.db is importlib.import_module("praisonaiagents.db")
    assert db.DB is db.PraisonDB is db.PraisonAIDB is praisonaiagents.PraisonAIDB
    assert isinstance(db(database_url="memory://"), PraisonAIDB)
    for name in db.__all__:
        assert hasattr(db, name)
    for kind in (db.PostgresDB, db.SQLiteDB, db.RedisDB, db.NeonDB):
        assert issubclass(kind, PraisonAIDB)
    assert DbTrace("t", spans=[DbSpan("s", "t", "chat")]).spans[0].status == "running"
    assert DbMessage("user", "Hi").timestamp > 1_700_000_000
    with open_store("memory://"):
        pass
