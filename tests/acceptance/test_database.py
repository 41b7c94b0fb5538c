"""Database Persistence: the same Agent over a JSON file, SQLite, PostgreSQL and Redis.

A database is proved by a second process that is given its URL and remembers, and by the JSON folder staying empty.
"""

from __future__ import annotations

import socket

import pytest
from praisonaiagents import Agent
from praisonaiagents.errors import UnknownEngine

from .disk import Disk
from .elsewhere import ask_elsewhere
from .page import covers, run_block


def is_resumed_from(db: str, agent: Agent, disk: Disk) -> None:
    """The page's agent stores its turn in `db`, where another process finds it, and not in the JSON folder."""
    agent.start("My name is Alice and I love pizza")
    assert disk.sessions() == set()
    assert "Alice" in ask_elsewhere({"session_id": "user-123", "db": db}, "What's my name?")
    assert "Alice" not in ask_elsewhere({"session_id": "user-124", "db": db}, "What's my name?")


# ---- the code ----


@covers("database-persistence/python-postgresql")
def test_postgresql(postgres: str, disk: Disk) -> None:
    is_resumed_from(postgres, run_block("database-persistence/python-postgresql", postgres=postgres)["agent"], disk)


@covers("database-persistence/python-sqlite")
def test_sqlite(disk: Disk) -> None:
    is_resumed_from("sqlite:///sessions.db", run_block("database-persistence/python-sqlite")["agent"], disk)
    assert (disk.work / "sessions.db").read_bytes().startswith(b"SQLite format 3")


@covers("database-persistence/python-redis")
def test_redis(redis: str, disk: Disk) -> None:
    is_resumed_from(redis, run_block("database-persistence/python-redis", redis=redis)["agent"], disk)


@covers("database-persistence/python-postgresql")
def test_a_database_that_is_not_there_is_an_error_at_the_first_turn_and_no_file(disk: Disk) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused, and the port stays ours
        url = f"postgresql://user:pass@127.0.0.1:{nobody.getsockname()[1]}/mydb"
        agent = run_block("database-persistence/python-postgresql", postgres=url)["agent"]
        with pytest.raises(ConnectionError) as refused:
            agent.start("My name is Alice and I love pizza")
    assert url.partition("@")[2].removesuffix("/mydb") in str(refused.value)
    assert "user:pass" not in str(refused.value)
    assert disk.files() == set()


# ---- the diagram ----


@covers("database-persistence/step-agent-to-memory")
def test_the_place_is_chosen_by_memory_when_the_agent_is_made(disk: Disk) -> None:
    with pytest.raises(UnknownEngine, match="nosuch"):
        Agent(name="Assistant", memory={"session_id": "user-123", "db": "nosuch://localhost/mydb"})
    assert disk.files() == set()


@covers("database-persistence/step-memory-to-json-file")
def test_without_a_database_the_place_is_a_json_file(disk: Disk) -> None:
    Agent(name="Assistant", memory={"session_id": "user-123"}).start("My name is Alice and I love pizza")
    assert disk.sessions() == {"user-123.json"}
    assert disk.turns("user-123")[0] == ("user", "My name is Alice and I love pizza")
    assert "Alice" in ask_elsewhere({"session_id": "user-123"}, "What's my name?")


@covers("database-persistence/step-memory-to-sqlite")
def test_two_sqlite_databases_are_two_places(disk: Disk) -> None:
    one, two = (f"sqlite:///{disk.work / name}" for name in ("one.db", "two.db"))
    Agent(name="Assistant", memory={"session_id": "user-123", "db": one}).start("My name is Alice and I love pizza")
    assert "Alice" in ask_elsewhere({"session_id": "user-123", "db": one}, "What's my name?")
    assert "Alice" not in ask_elsewhere({"session_id": "user-123", "db": two}, "What's my name?")


@covers("database-persistence/step-memory-to-postgresql")
def test_postgresql_is_another_place_than_the_json_file(postgres: str) -> None:
    Agent(name="Assistant", memory={"session_id": "user-123"}).start("My name is Alice and I love pizza")
    assert "Alice" not in ask_elsewhere({"session_id": "user-123", "db": postgres}, "What's my name?")


@covers("database-persistence/step-memory-to-redis")
def test_redis_is_another_place_than_the_json_file(redis: str) -> None:
    Agent(name="Assistant", memory={"session_id": "user-123"}).start("My name is Alice and I love pizza")
    assert "Alice" not in ask_elsewhere({"session_id": "user-123", "db": redis}, "What's my name?")
