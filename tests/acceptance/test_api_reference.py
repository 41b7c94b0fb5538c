"""API Reference: each row of the two tables, and the full configuration example."""

from __future__ import annotations

from urllib.parse import urlsplit

import praisonaiagents
import pytest
from praisonaiagents import Agent, MemoryConfig
from praisonaiagents.errors import ConfigError, UnknownEngine

from .disk import Disk
from .elsewhere import ask_elsewhere
from .page import covers, run_block
from .servers import AgentServer

ALICE = "My name is Alice and I love pizza"
ENGINES = ["sqlite", "redis", "postgres"]


def database(engine: str, disk: Disk, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of this engine."""
    return f"sqlite:///{disk.work / 'mine.db'}" if engine == "sqlite" else request.getfixturevalue(engine)


# ---- Agent Session Parameters ----


@covers("api-reference/agent-session-parameters/row-session-id")
def test_session_id_is_what_the_conversation_is_kept_under(disk: Disk) -> None:
    Agent(name="Assistant", memory=MemoryConfig(session_id="mine")).start(ALICE)
    assert disk.sessions() == {"mine.json"}
    assert "Alice" in ask_elsewhere({"session_id": "mine"}, "What's my name?")


@covers("api-reference/agent-session-parameters/row-session-id")
@pytest.mark.parametrize("wrong", [123, b"mine"])
def test_session_id_is_text(wrong: object, disk: Disk) -> None:
    with pytest.raises(TypeError):
        Agent(name="Assistant", memory={"session_id": wrong}).start(ALICE)
    assert disk.sessions() == set()


@covers("api-reference/agent-session-parameters/row-user-id")
@pytest.mark.parametrize("nobody", [None, "", "default_user"])
def test_user_id_isolates_and_none_is_the_default_user(nobody: str | None, disk: Disk) -> None:
    Agent(name="Assistant", memory={"session_id": "mine", "user_id": nobody}).start(ALICE)
    assert disk.sessions() == {"mine.json"}
    assert "Alice" in ask_elsewhere({"session_id": "mine"}, "What's my name?")
    assert "Alice" not in ask_elsewhere({"session_id": "mine", "user_id": "bob"}, "What's my name?")
    assert disk.sessions() == {"mine.json", "users/bob/mine.json"}


@covers("api-reference/agent-session-parameters/row-db")
@pytest.mark.parametrize("engine", ENGINES)
def test_db_is_where_the_conversation_is_kept(engine: str, disk: Disk, request: pytest.FixtureRequest) -> None:
    memory = {"session_id": "mine", "db": database(engine, disk, request)}
    Agent(name="Assistant", memory=memory).start(ALICE)
    assert disk.sessions() == set()
    assert "Alice" in ask_elsewhere(memory, "What's my name?")


@covers("api-reference/agent-session-parameters/row-db")
def test_db_with_a_scheme_that_no_engine_serves_is_refused_and_never_a_file(disk: Disk) -> None:
    with pytest.raises(UnknownEngine, match="nosuch"):
        Agent(name="Assistant", memory=MemoryConfig(session_id="mine", db="nosuch://localhost/mydb"))
    assert disk.files() == set()


@covers("api-reference/agent-session-parameters/row-backend")
def test_backend_file_is_the_default(disk: Disk) -> None:
    Agent(name="Assistant", memory=MemoryConfig(session_id="mine", backend="file")).start(ALICE)
    assert "Alice" in Agent(name="Assistant", memory=MemoryConfig(session_id="mine")).start("What's my name?")
    assert disk.sessions() == {"mine.json"}


@covers("api-reference/agent-session-parameters/row-backend")
@pytest.mark.parametrize("engine", ENGINES)
def test_backend_names_the_engine_of_db(engine: str, disk: Disk, request: pytest.FixtureRequest) -> None:
    memory = {"session_id": "mine", "backend": engine, "db": database(engine, disk, request)}
    Agent(name="Assistant", memory=MemoryConfig(**memory)).start(ALICE)
    assert disk.sessions() == set()
    assert "Alice" in ask_elsewhere(memory, "What's my name?")


@covers("api-reference/agent-session-parameters/row-backend")
@pytest.mark.parametrize(
    ("engine", "variable"),
    [
        ("sqlite", "PRAISONAI_DB_URL"),
        ("redis", "PRAISONAI_DB_URL"),
        ("redis", "REDIS_URL"),
        ("postgres", "PRAISONAI_DB_URL"),
        ("postgres", "POSTGRES_URL"),
        ("postgres", "DATABASE_URL"),
    ],
)
def test_backend_without_db_is_looked_up_in_the_environment(
    engine: str, variable: str, disk: Disk, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database(engine, disk, request)
    monkeypatch.setenv(variable, url)
    memory = {"session_id": "mine", "backend": engine}
    Agent(name="Assistant", memory=MemoryConfig(**memory)).start(ALICE)
    assert disk.sessions() == set()
    assert "Alice" in ask_elsewhere(memory, "What's my name?")
    monkeypatch.delenv(variable)
    assert "Alice" in ask_elsewhere({"session_id": "mine", "db": url}, "What's my name?")


@covers("api-reference/agent-session-parameters/row-backend")
def test_backend_postgres_is_the_server_that_libpq_is_told_of(
    postgres: str, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = urlsplit(postgres)
    told = {"PGHOST": where.hostname, "PGPORT": str(where.port), "PGUSER": where.username, "PGDATABASE": where.path[1:]}
    for name, value in told.items():
        monkeypatch.setenv(name, value or "")
    memory = {"session_id": "mine", "backend": "postgres"}
    Agent(name="Assistant", memory=MemoryConfig(**memory)).start(ALICE)
    for name in told:
        monkeypatch.delenv(name)
    assert disk.sessions() == set()
    assert "Alice" in ask_elsewhere({"session_id": "mine", "db": postgres}, "What's my name?")


@covers("api-reference/agent-session-parameters/row-backend")
def test_backend_sqlite_is_a_file_in_the_home(disk: Disk) -> None:
    Agent(name="Assistant", memory=MemoryConfig(session_id="mine", backend="sqlite")).start(ALICE)
    assert (disk.home / "sessions.db").read_bytes().startswith(b"SQLite format 3")
    assert disk.sessions() == set()
    assert "Alice" in ask_elsewhere({"session_id": "mine", "backend": "sqlite"}, "What's my name?")


@covers("api-reference/agent-session-parameters/row-backend")
def test_a_misspelt_backend_is_refused_with_the_names_there_are(disk: Disk) -> None:
    with pytest.raises(ConfigError, match="file"):
        Agent(name="Assistant", memory=MemoryConfig(session_id="mine", backend="fiel"))
    assert disk.files() == set()


@covers("api-reference/agent-session-parameters/row-auto-memory")
def test_auto_memory_extracts_what_matters_from_a_conversation() -> None:
    agent = Agent(name="Assistant", memory={"session_id": "mine", "auto_memory": True})
    agent.start(ALICE)
    assert "Alice" in agent.get_memory_context("name")


@covers("api-reference/agent-session-parameters/python-1")
def test_the_full_configuration_example(postgres: str, disk: Disk) -> None:
    run_block("api-reference/agent-session-parameters/python-1", postgres=postgres)["agent"].start(ALICE)
    assert disk.sessions() == set()
    same = {"session_id": "user-123-main", "user_id": "user-123", "db": postgres}
    assert "Alice" in ask_elsewhere(same, "What's my name?")
    assert "Alice" not in ask_elsewhere(same | {"user_id": "user-124"}, "What's my name?")


# ---- Session Class Parameters ----


@covers("api-reference/session-class-parameters/row-session-id")
def test_a_session_makes_an_id_of_its_own_unless_given_one() -> None:
    one, two = praisonaiagents.Session(), praisonaiagents.Session()
    assert isinstance(one.session_id, str)
    assert one.session_id
    assert one.session_id != two.session_id
    assert praisonaiagents.Session(session_id="mine").session_id == "mine"


@covers("api-reference/session-class-parameters/row-user-id")
def test_a_session_is_the_default_users_unless_told_whose() -> None:
    assert praisonaiagents.Session().user_id == "default_user"
    assert praisonaiagents.Session(user_id="researcher-1").user_id == "researcher-1"


@covers("api-reference/session-class-parameters/row-agent-url")
def test_agent_url_makes_a_session_remote(agent_server: AgentServer) -> None:
    assert praisonaiagents.Session().agent_url is None
    with pytest.raises(ValueError, match="remote"):
        praisonaiagents.Session().chat("Hello")
    session = praisonaiagents.Session(agent_url=agent_server.url)
    assert session.agent_url == agent_server.url
    assert session.chat("Hello") == "You said: Hello"


@covers("api-reference/session-class-parameters/row-timeout")
def test_timeout_is_30_seconds_unless_told_otherwise(agent_server: AgentServer) -> None:
    assert praisonaiagents.Session().timeout == 30
    session = praisonaiagents.Session(agent_url=agent_server.url, timeout=1)
    assert session.timeout == 1
    agent_server.open.clear()
    with pytest.raises(ConnectionError):
        session.chat("Hello")
