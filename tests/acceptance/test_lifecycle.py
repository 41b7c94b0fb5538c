"""Session Lifecycle & Cleanup: close() goes from the session through its memory to the adapter, and comes back."""

from __future__ import annotations

import praisonaiagents
import pytest
from praisonaiagents import Agent

from .disk import Disk
from .elsewhere import ask_elsewhere
from .page import covers, run_block

CLEANUP = "session-lifecycle-cleanup/automatic-cleanup-example/python-1"


# ---- the sequence diagram ----


def record(monkeypatch: pytest.MonkeyPatch, owner: object, method: str, events: list[str]) -> None:
    """Let `owner.method` write into `events` when it is entered and when it returned."""
    original = getattr(owner, method)

    def recorded() -> None:
        events.append(f"{method}: called")
        original()
        events.append(f"{method}: returned")

    monkeypatch.setattr(owner, method, recorded)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened while a session that was used was closed, in order."""
    session = praisonaiagents.Session(session_id="my-session")
    session.Agent(name="Assistant", memory=True).start("Hello")
    seen: list[str] = []
    record(monkeypatch, session.memory, "close_connections", seen)
    record(monkeypatch, session.memory.adapter, "close", seen)
    assert session.close() is None
    seen.append("session closed")
    session.close()  # a second time there is nothing left to close
    return seen


@covers("session-lifecycle-cleanup/step-user-to-session-close")
def test_the_user_can_close_a_session_more_than_once(events: list[str]) -> None:
    assert events.count("session closed") == 1
    assert events[-1] == "session closed"


@covers("session-lifecycle-cleanup/step-session-to-memory-close-connections")
def test_closing_a_session_closes_its_memorys_connections_once(events: list[str]) -> None:
    assert events[0] == "close_connections: called"
    assert events.count("close_connections: called") == 1


@covers("session-lifecycle-cleanup/step-memory-to-adapter-close")
def test_the_memory_closes_its_adapter_once(events: list[str]) -> None:
    assert events[1] == "close: called"
    assert events.count("close: called") == 1


@covers("session-lifecycle-cleanup/step-adapter-to-memory-cleanup-complete")
def test_the_memory_waits_for_its_adapter(events: list[str]) -> None:
    assert events.index("close: returned") < events.index("close_connections: returned")


@covers("session-lifecycle-cleanup/step-memory-to-session-cleanup-complete")
def test_the_session_waits_for_its_memory(events: list[str]) -> None:
    assert events.index("close_connections: returned") < events.index("session closed")


@covers("session-lifecycle-cleanup/step-session-to-user-session-closed")
def test_a_closed_session_is_stored(events: list[str], disk: Disk) -> None:
    assert events[-1] == "session closed"
    assert disk.turns("my-session")[0] == ("user", "Hello")


# ---- Automatic Cleanup Example ----


@covers("session-lifecycle-cleanup/automatic-cleanup-example/python-1")
def test_the_cleanup_example_runs_and_keeps_the_conversation(disk: Disk) -> None:
    agent = run_block(CLEANUP)["agent"]
    assert disk.turns("my-session")[0] == ("user", "Hello")
    agent._memory_instance.close_connections()
    agent.start("My name is Alice and I love pizza")
    assert "Alice" in ask_elsewhere({"session_id": "my-session"}, "What's my name?")


@covers("session-lifecycle-cleanup/automatic-cleanup-example/python-1")
@pytest.mark.parametrize("memory", [None, False, True], ids=str)
def test_there_is_something_to_close_without_a_session_too(memory: bool | None) -> None:
    agent = Agent(name="Assistant", memory=memory)
    agent._memory_instance.close_connections()
    agent.start("Hello")
    agent._memory_instance.close_connections()
    agent._memory_instance.close_connections()
    assert agent.start("Hello again")
