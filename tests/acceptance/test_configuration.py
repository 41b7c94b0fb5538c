"""Configuration Options: MemoryConfig and its dict shorthand."""

from __future__ import annotations

from .disk import Disk
from .elsewhere import ask_elsewhere
from .page import covers, run_block

MEMORY_CONFIG = "configuration-options/using-memoryconfig-recommended/python-1"


@covers("configuration-options/using-memoryconfig-recommended/python-1")
def test_memory_config_names_the_session_the_user_and_the_backend(disk: Disk) -> None:
    answer = run_block(MEMORY_CONFIG)["agent"].start("My name is Alice and I love pizza")
    assert disk.sessions() == {"users/user-456/my-session-123.json"}
    assert disk.session("my-session-123", user="user-456")["user_id"] == "user-456"
    assert disk.last("my-session-123", user="user-456") == answer


@covers("configuration-options/using-memoryconfig-recommended/python-1")
def test_memory_config_resumes_for_its_user_and_no_other() -> None:
    run_block(MEMORY_CONFIG)["agent"].start("My name is Alice and I love pizza")
    same = {"session_id": "my-session-123", "user_id": "user-456"}
    assert "Alice" in ask_elsewhere(same, "What's my name?")
    assert "Alice" not in ask_elsewhere(same | {"user_id": "user-457"}, "What's my name?")
    assert "Alice" not in ask_elsewhere({"session_id": "my-session-123"}, "What's my name?")


@covers("configuration-options/using-dict-shorthand/python-1")
def test_the_dict_shorthand_persists_to_json(disk: Disk) -> None:
    agent = run_block("configuration-options/using-dict-shorthand/python-1", until="# With database backend")["agent"]
    agent.start("My name is Alice and I love pizza")
    assert disk.sessions() == {"my-session.json"}
    assert "Alice" in ask_elsewhere({"session_id": "my-session"}, "What's my name?")


@covers("configuration-options/using-dict-shorthand/python-1")
def test_the_dict_shorthand_with_a_database_persists_to_it(disk: Disk, postgres: str) -> None:
    agent = run_block("configuration-options/using-dict-shorthand/python-1", postgres=postgres)["agent"]
    agent.start("My name is Alice and I love pizza")
    assert disk.sessions() == set()
    assert "Alice" in ask_elsewhere({"session_id": "my-session", "db": postgres}, "What's my name?")
