"""Best Practices and Session ID Patterns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from praisonaiagents import Agent, MemoryConfig
from praisonaiagents.session import DefaultSessionStore, get_default_session_store

from .disk import Disk
from .elsewhere import ask_elsewhere
from .page import covers, item, run_block

PATTERNS = "best-practices/session-id-patterns/python-1"


# ---- the cards ----


@covers("best-practices/use-meaningful-session-ids")
def test_a_meaningful_id_is_the_name_of_its_file_and_in_the_list(disk: Disk) -> None:
    ids = re.findall(r"`([^`]+)`", item("best-practices/use-meaningful-session-ids").text)
    assert ids == ["user-123-main", "task-456-research"]
    for name in ids:
        Agent(name="Assistant", memory={"session_id": name}).start(f"This is {name}")
    assert disk.sessions() == {f"{name}.json" for name in ids}
    assert [disk.turns(name)[0][1] for name in ids] == [f"This is {name}" for name in ids]
    assert {session["session_id"] for session in get_default_session_store().list_sessions()} == set(ids)


@covers("best-practices/isolate-users")
def test_a_user_id_keeps_everyone_else_out() -> None:
    store = get_default_session_store()
    Agent(name="Assistant", memory=MemoryConfig(session_id="main", user_id="alice")).start("My name is Alice")
    assert store.get_chat_history("main", user_id="bob") == []
    assert store.list_sessions(user_id="bob") == []
    assert store.delete_session("main", user_id="bob") is False
    assert "Alice" not in ask_elsewhere({"session_id": "main", "user_id": "bob"}, "What's my name?")
    assert "Alice" not in ask_elsewhere({"session_id": "main"}, "What's my name?")
    assert "Alice" in ask_elsewhere({"session_id": "main", "user_id": "alice"}, "What's my name?")


@pytest.mark.parametrize("backend", ["file", "sqlite", "postgres"])
@covers("best-practices/choose-right-backend")
def test_the_same_agent_runs_on_each_backend(backend: str, disk: Disk, request: pytest.FixtureRequest) -> None:
    memory = {"session_id": "main", "backend": backend}
    if backend == "postgres":
        memory["db"] = request.getfixturevalue("postgres")
    Agent(name="Assistant", memory=memory).start("My name is Alice and I love pizza")
    assert (disk.sessions() == {"main.json"}) is (backend == "file")
    assert "Alice" in ask_elsewhere(memory, "What's my name?")


@covers("best-practices/set-message-limits")
def test_max_messages_bounds_the_file(tmp_path: Path) -> None:
    bounded = DefaultSessionStore(session_dir=str(tmp_path / "bounded"), max_messages=10)
    unbounded = DefaultSessionStore(session_dir=str(tmp_path / "unbounded"))
    for store in (bounded, unbounded):
        for number in range(200):
            store.add_user_message("main", f"question {number} {'x' * 100}")
            store.add_assistant_message("main", f"answer {number} {'x' * 100}")
    assert [m["content"].split()[1] for m in bounded.get_chat_history("main")] == [
        str(n) for n in range(195, 200) for _ in "qa"
    ]
    assert len(unbounded.get_chat_history("main")) == 400
    sizes = [(tmp_path / name / "main.json").stat().st_size for name in ("bounded", "unbounded")]
    assert sizes[0] < sizes[1] / 4


@covers("best-practices/set-message-limits")
def test_max_messages_is_a_setting_of_memory_too(disk: Disk) -> None:
    memory = {"session_id": "main", "max_messages": 4}
    agent = Agent(name="Assistant", memory=memory)
    for number in range(20):
        agent.start(f"This is number {number}")
        assert len(disk.turns("main")) <= 2 * 4  # room is made each time there are twice as many
    again = Agent(name="Assistant", memory=memory)
    again.start("Hello again")
    restored = [m["content"] for m in again.chat_history if m["role"] == "user"]
    assert restored[-2:] == ["This is number 19", "Hello again"]
    assert "This is number 16" not in restored


# ---- Session ID Patterns ----


@covers("best-practices/session-id-patterns/python-1")
def test_pattern_1_is_one_session_for_a_user(disk: Disk) -> None:
    run_block(PATTERNS, until="# Pattern 2", user_id="123")["agent"].start("Hello")
    run_block(PATTERNS, until="# Pattern 2", user_id="123")["agent"].start("Hello again")
    assert disk.sessions() == {"user-123-main.json"}
    assert [content for role, content in disk.turns("user-123-main") if role == "user"] == ["Hello", "Hello again"]


@covers("best-practices/session-id-patterns/python-1")
def test_pattern_2_is_a_new_session_for_each_chat(disk: Disk) -> None:
    for _ in range(2):
        run_block(PATTERNS, until="# Pattern 3", user_id="123")["agent"].start("Hello")
    assert len(disk.sessions()) == 2
    assert all(re.fullmatch(r"conv-[0-9a-f]{8}\.json", name) for name in disk.sessions())


@covers("best-practices/session-id-patterns/python-1")
def test_pattern_3_is_one_session_for_a_users_task(disk: Disk) -> None:
    run_block(PATTERNS, user_id="123", task_id="456")["agent"].start("Hello")
    assert disk.sessions() == {"task-456-123.json"}
