"""How It Works: each arrow of the two runs, and the four rows that say what is persisted and what is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from praisonaiagents import Agent

from .disk import Disk
from .elsewhere import ask_elsewhere
from .page import covers, run_script

SESSION = {"session_id": "my-session"}


# ---- First Run ----


@covers("how-it-works/step-agent-created-to-memory-session-id")
def test_creating_an_agent_with_a_session_id_stores_nothing_yet(disk: Disk) -> None:
    agent = Agent(name="Assistant", memory=SESSION)
    assert agent.chat_history == []
    assert disk.files() == set()


@covers("how-it-works/step-memory-session-id-to-chat-im-alice")
def test_the_agent_with_a_session_id_chats() -> None:
    agent = Agent(name="Assistant", memory=SESSION)
    answer = agent.start("I'm Alice")
    assert answer
    assert [m["content"] for m in agent.chat_history] == ["I'm Alice", answer]


@covers("how-it-works/step-chat-im-alice-to-auto-saved-to-disk")
def test_a_chat_is_on_the_disk_when_it_returns(disk: Disk) -> None:
    agent = Agent(name="Assistant", memory=SESSION)
    first = agent.start("I'm Alice")
    assert disk.turns("my-session") == [("user", "I'm Alice"), ("assistant", first)]
    second = agent.start("I love pizza")
    assert disk.turns("my-session")[2:] == [("user", "I love pizza"), ("assistant", second)]


# ---- Later Run ----


@pytest.fixture
def first_run(disk: Disk) -> Path:
    """The file that the first run left behind, in another process."""
    ask_elsewhere(SESSION, "I'm Alice")
    return disk.path("my-session")


@covers("how-it-works/step-agent-created-to-same-session-id")
def test_creating_an_agent_with_the_same_session_id_changes_nothing(first_run: Path) -> None:
    before = first_run.read_bytes()
    Agent(name="Assistant", memory=SESSION)
    assert first_run.read_bytes() == before


@covers("how-it-works/step-same-session-id-to-history-restored")
def test_the_same_session_id_restores_the_history(first_run: Path, disk: Disk) -> None:
    before = disk.turns("my-session")
    agent = Agent(name="Assistant", memory=SESSION)
    agent.start("Hello again")
    assert [(m["role"], m["content"]) for m in agent.chat_history[:2]] == before
    assert before[0] == ("user", "I'm Alice")


@covers("how-it-works/step-same-session-id-to-history-restored")
def test_another_session_id_restores_nothing(first_run: Path) -> None:
    agent = Agent(name="Assistant", memory={"session_id": "my-session-2"})
    agent.start("Hello again")
    assert len(agent.chat_history) == 2


@covers("how-it-works/step-history-restored-to-chat-whats-my-name")
def test_the_restored_conversation_goes_on_in_the_same_session(first_run: Path, disk: Disk) -> None:
    before = disk.turns("my-session")
    answer = Agent(name="Assistant", memory=SESSION).start("What's my name?")
    assert disk.turns("my-session") == [*before, ("user", "What's my name?"), ("assistant", answer)]


@covers("how-it-works/step-chat-whats-my-name-to-remembers-alice")
def test_the_later_run_remembers_alice(first_run: Path) -> None:
    assert "Alice" in ask_elsewhere(SESSION, "What's my name?")


@covers("how-it-works/step-auto-saved-to-disk-to-history-restored")
def test_the_files_alone_carry_the_history(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_script("quick-start/python-1")
    elsewhere = tmp_path / "another machine"
    shutil.move(disk.home, elsewhere)
    monkeypatch.setenv("PRAISONAI_HOME", str(elsewhere))
    run_script("quick-start/python-2")
    assert "Alice" in Disk(elsewhere, disk.work).last("my-session-123")


# ---- Scenario and Behavior ----


@covers("how-it-works/row-memory-session-id")
def test_a_session_id_is_persisted_to_json(first_run: Path, disk: Disk) -> None:
    assert first_run.read_bytes().startswith(b"{")
    assert disk.session("my-session")["messages"][0]["content"] == "I'm Alice"
    assert disk.sessions() == {"my-session.json"}


@covers("how-it-works/row-memory-session-id-db")
def test_a_session_id_with_a_db_is_persisted_to_that_database(disk: Disk) -> None:
    memory = SESSION | {"db": f"sqlite:///{disk.work / 'mine.db'}"}
    Agent(name="Assistant", memory=memory).start("My name is Alice and I love pizza")
    assert (disk.work / "mine.db").read_bytes().startswith(b"SQLite format 3")
    assert disk.sessions() == set()
    assert "Alice" in ask_elsewhere(memory, "What's my name?")


def remembers_only_in_memory(create: Callable[[], Agent], disk: Disk) -> None:
    """The same Agent goes on knowing; one made anew does not; nothing was written anywhere."""
    agent = create()
    agent.start("My name is Alice and I love pizza")
    assert "Alice" in agent.start("What's my name?")
    answer = create().start("What's my name?")
    assert "don't know" in answer
    assert "Alice" not in answer
    assert disk.files() == set()


@covers("how-it-works/row-memory-true-no-session-id")
def test_memory_without_a_session_id_is_lost_on_restart(disk: Disk) -> None:
    remembers_only_in_memory(lambda: Agent(name="Assistant", memory=True), disk)


@covers("how-it-works/row-no-memory-config")
def test_no_memory_config_is_lost_on_restart(disk: Disk) -> None:
    remembers_only_in_memory(lambda: Agent(name="Assistant"), disk)
