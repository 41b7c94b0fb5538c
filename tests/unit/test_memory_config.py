"""Where a configuration keeps sessions, what it refuses, and what it never shows. What an agent makes of each form of
`memory=` is tested in test_agent.py."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from rich.pretty import pretty_repr

from praisonaiagents import Agent, MemoryConfig
from praisonaiagents.errors import ConfigError, UnknownEngine
from praisonaiagents.memory.config import resolve

SECRET = "sk-very-secret"
URL = f"postgresql://user:{SECRET}@localhost/mydb"


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES_URL", "DATABASE_URL", "REDIS_URL", "PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


class Backend(str, Enum):  # noqa: UP042 - people's own, as they were written for Python 3.10
    SQLITE = "sqlite"


@pytest.mark.parametrize(
    ("given", "backend"),
    [
        ("file", "file"),
        ("json", "file"),
        ("in_memory", "in_memory"),
        ("none", "in_memory"),
        ("memory", "in_memory"),
        ("sqlite", "sqlite"),
        (" SQLite ", "sqlite"),
        (Backend.SQLITE, "sqlite"),
        ("redis", "redis"),
        ("Valkey", "redis"),
        ("postgres", "postgres"),
        ("PostgreSQL", "postgres"),
        ("pg", "postgres"),
    ],
)
def test_a_backend_has_one_name(given: str, backend: str) -> None:
    assert MemoryConfig(backend=given).backend == backend
    assert type(MemoryConfig(backend=given).backend) is str
    for memory in (given, {"backend": given}, {"provider": given}, [given]):
        assert resolve(memory)[0] == MemoryConfig(backend=backend)


def test_without_a_backend_the_place_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("", URL):
        monkeypatch.setenv("PRAISONAI_DB_URL", variable)
        assert MemoryConfig().url() is None
        assert MemoryConfig(session_id="s", history=True).url() is None


def test_files_are_the_default_place_unless_the_default_place_is_another(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MemoryConfig(backend="file").url() is None
    monkeypatch.setenv("PRAISONAI_DB_URL", URL)
    assert MemoryConfig(backend="file").url() == f"{home}/sessions"


def test_a_backend_is_looked_up_when_it_is_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = MemoryConfig(backend="postgres")
    assert config.url() == "postgresql://localhost"
    monkeypatch.setenv("POSTGRES_URL", URL)
    assert config.url() == URL
    monkeypatch.setenv("POSTGRES_URL", f"postgres:user:{SECRET}@localhost")
    with pytest.raises(ConfigError, match=r"^POSTGRES_URL: ") as raised:
        config.url()
    assert SECRET not in str(raised.value)
    assert MemoryConfig(backend="sqlite").url() == f"{home}/sessions.db"
    assert MemoryConfig(backend="redis").url() == "redis://localhost:6379"
    assert MemoryConfig(backend="in_memory").url() == "memory://"


def test_a_url_wins_over_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRAISONAI_DB_URL", "postgresql://elsewhere")
    for backend in (None, "file", "in_memory", "sqlite", "redis", "postgres"):
        assert MemoryConfig(backend=backend, db="sqlite:///mine.db").url() == "sqlite:///mine.db"


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (MemoryConfig(), False),
        (MemoryConfig(backend="file"), False),
        (MemoryConfig(backend="in_memory"), False),
        (MemoryConfig(backend="sqlite"), True),
        (MemoryConfig(backend="redis"), True),
        (MemoryConfig(backend="postgres"), True),
        (MemoryConfig(db="memory://"), True),
    ],
)
def test_who_names_a_database_wants_to_keep_the_conversation(config: MemoryConfig, kept: bool) -> None:
    assert config.in_database is kept
    assert (Agent("A", llm="offline", memory=config).session_id is not None) is kept


@pytest.mark.parametrize("url", [URL, "sqlite:///mine.db", "redis://localhost:6379", "REDISS://h", "memory://"])
def test_a_url_is_accepted_wherever_a_place_is_said(url: str) -> None:
    """And nothing is opened, although no such server is there."""
    for memory in (url, {"db": url}, MemoryConfig(db=url), [url]):
        assert resolve(memory)[0] == MemoryConfig(db=url)
        Agent("A", llm="offline", memory=memory)
    Agent("A", llm="offline", db=url)


def test_a_path_is_accepted_where_only_a_place_can_be_meant(tmp_path: Path) -> None:
    assert MemoryConfig(db=f"{tmp_path}/mine.db").url() == f"{tmp_path}/mine.db"
    assert MemoryConfig(db="./sessions").url() == "./sessions"


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "an unknown scheme": (
        {"db": f"mysql://user:{SECRET}@host"},
        UnknownEngine,
        "'mysql'; known: file, memory, postgres",
    ),
    "a slip of the pen": ({"db": f"postgressql://user:{SECRET}@host"}, UnknownEngine, "Did you mean 'postgresql'"),
    "a URL without a scheme": ({"db": f"user:{SECRET}@host/mydb"}, ConfigError, "begins with its scheme"),
    "a URL without slashes": ({"db": f"redis::{SECRET}@host"}, ConfigError, "begins with 'redis://'"),
    "a URL of no text": ({"db": 5}, TypeError, "db= takes a storage URL such as .*, not int"),
    "a path object": ({"db": Path("mine.db")}, TypeError, "not .*Path"),
    "a URL as bytes": ({"db": URL.encode()}, TypeError, "not bytes"),
    "a misspelt backend": ({"backend": "postgers"}, ConfigError, "'postgers' .did you mean 'postgres'"),
    "another misspelt backend": ({"backend": "sqllite"}, ConfigError, "did you mean 'sqlite'"),
    "a backend of the reference": (
        {"backend": "mem0"},
        ConfigError,
        "file, in_memory, sqlite, postgres, redis, chroma, mongodb, or",
    ),
    "a backend of no text": ({"backend": 5}, TypeError, "backend is a name"),
    "a URL as a backend": ({"backend": URL}, ConfigError, "or a storage URL in db="),
    "a login as a backend": ({"backend": f"user:{SECRET}@host"}, ConfigError, "may hold a password"),
}


@pytest.mark.parametrize(("settings", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_at_once_and_no_password_is_quoted(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    for refuse in (lambda: MemoryConfig(**settings), lambda: resolve(settings)):
        with pytest.raises(error, match=text) as raised:
            refuse()
        assert isinstance(raised.value, ConfigError)
        assert SECRET not in str(raised.value)


def test_a_url_is_never_shown() -> None:
    config = MemoryConfig(session_id="s", db=URL)
    for shown in (repr(config), str(config), pretty_repr(config), str(config.to_dict())):
        assert SECRET not in shown
        assert "'s'" in shown
    assert "db=" in repr(config)
    assert "db" not in config.to_dict()
    assert "db=None" in repr(MemoryConfig())
    with pytest.raises(ConfigError, match="given twice") as raised:
        Agent("A", llm="offline", memory=config, db=URL.replace(SECRET, SECRET[::-1]))
    assert SECRET not in str(raised.value)
    assert SECRET[::-1] not in str(raised.value)


def test_the_url_of_a_memory_is_no_place_of_sessions() -> None:
    config, _ = resolve("mongodb://user:hunter2@host/x")
    assert (config.backend, config.config, config.db) == ("mongodb", {"url": "mongodb://user:hunter2@host/x"}, None)
    assert "hunter2" not in repr(config)


def test_an_embedder_has_a_name_of_its_own() -> None:
    with pytest.raises(ConfigError, match="needs a name"):
        Agent("A", llm="offline", memory=MemoryConfig(embedder=lambda texts: []))
