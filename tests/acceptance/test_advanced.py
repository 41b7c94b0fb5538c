"""Advanced Topics: forking and snapshots, remote agents, someone's own database adapter, the store by hand."""

from __future__ import annotations

from typing import Any

import pytest
from praisonaiagents import Agent

from .disk import Disk
from .elsewhere import ask_elsewhere
from .page import covers, run_block
from .servers import AgentServer

HIERARCHY = "advanced-topics/hierarchical-sessions-forking-snapshots/python-1"
REMOTE = "advanced-topics/remote-agent-sessions/python-1"


def contents(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


# ---- Hierarchical Sessions (Forking & Snapshots) ----


@covers("advanced-topics/hierarchical-sessions-forking-snapshots/python-1")
def test_a_fork_and_a_reverted_session_hold_the_safe_point(disk: Disk) -> None:
    names = run_block(HIERARCHY)
    safe = [("user", "Let's discuss Python")]
    store, main, fork = names["store"], names["main_id"], names["fork_id"]
    assert contents(store.get_chat_history(main)) == contents(store.get_chat_history(fork)) == safe
    assert disk.sessions() == {f"{main}.json", f"{fork}.json"}
    store.add_message(fork, "user", "And Rust?")
    assert contents(store.get_chat_history(main)) == safe
    store.delete_session(main)
    assert contents(store.get_chat_history(fork)) == [*safe, ("user", "And Rust?")]


@covers("advanced-topics/hierarchical-sessions-forking-snapshots/python-1")
def test_reverting_takes_risky_changes_back_and_only_those() -> None:
    names = run_block(HIERARCHY, until="# Revert if needed")
    store, main, fork = names["store"], names["main_id"], names["fork_id"]
    store.add_message(main, "user", "A risky change")
    assert store.revert_to_snapshot(main, names["snapshot_id"])
    assert contents(store.get_chat_history(main)) == [("user", "Let's discuss Python")]
    assert contents(store.get_chat_history(fork)) == [("user", "Let's discuss Python")]
    assert not store.revert_to_snapshot(main, "no such snapshot")


@pytest.mark.parametrize("engine", ["sqlite", "postgres", "redis"])
@covers("advanced-topics/hierarchical-sessions-forking-snapshots/python-1")
def test_the_same_in_a_database(
    engine: str, request: pytest.FixtureRequest, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "sqlite:///sessions.db" if engine == "sqlite" else request.getfixturevalue(engine)
    monkeypatch.setenv("PRAISONAI_DB_URL", url)
    names = run_block(HIERARCHY, until="# Revert if needed")
    store, main, fork, safe = names["store"], names["main_id"], names["fork_id"], names["snapshot_id"]
    Agent(name="Assistant", memory={"session_id": main}).chat("A risky change")
    assert store.revert_to_snapshot(main, safe)
    assert contents(store.get_chat_history(main)) == [("user", "Let's discuss Python")]
    assert "Python" in Agent(name="Assistant", memory={"session_id": fork}).chat("What did I say first?")
    assert store.undo(main)
    assert contents(store.get_chat_history(main))[1] == ("user", "A risky change")
    assert disk.sessions() == set()


# ---- Remote Agent Sessions ----


@covers("advanced-topics/remote-agent-sessions/python-1")
def test_a_remote_agent_is_told_whose_session_it_is(agent_server: AgentServer) -> None:
    names = run_block(REMOTE, agent_url=agent_server.url)
    assert names["response"] == "You said: Hello from remote client!"
    (said,) = agent_server.received
    assert said["query"] == "Hello from remote client!"
    assert said["session_id"] == "remote-user-123"
    assert said["user_id"] == "default_user"


@covers("advanced-topics/remote-agent-sessions/warning-1")
def test_a_remote_session_refuses_local_memory_operations(agent_server: AgentServer, disk: Disk) -> None:
    session = run_block(REMOTE, agent_url=agent_server.url)["session"]
    with pytest.raises(ValueError, match="remote"):
        _ = session.memory
    with pytest.raises(ValueError, match="remote"):
        session.save_state({"project": "ML Research"})
    with pytest.raises(ValueError, match="remote"):
        session.Agent(name="Assistant", memory=True)
    assert disk.files() == set()


# ---- Custom Database Adapter ----


@covers("advanced-topics/custom-database-adapter/python-1")
def test_the_pages_adapter_takes_the_place_of_the_files(disk: Disk) -> None:
    agent = run_block("advanced-topics/custom-database-adapter/python-1")["agent"]
    agent.start("My name is Alice and I love pizza")
    assert "Alice" in agent.start("What's my name?")
    assert disk.files() == set()


@covers("advanced-topics/custom-database-adapter/python-1")
def test_an_adapter_is_asked_and_told_in_the_order_of_a_turn() -> None:
    adapter_class = run_block("advanced-topics/custom-database-adapter/python-1")["MyDbAdapter"]
    calls: list[tuple[str, ...]] = []

    class Recording(adapter_class):
        def on_agent_start(self, agent_name, session_id, user_id=None, metadata=None):
            calls.append(("start", agent_name, session_id))
            return [{"role": "user", "content": "My name is Alice and I love pizza"}]

        def on_user_message(self, session_id, content, metadata=None):
            calls.append(("user", session_id, content))

        def on_agent_message(self, session_id, content, metadata=None):
            calls.append(("agent", session_id, content))

    agent = Agent(name="Assistant", memory={"session_id": "my-session"}, db=Recording())
    assert calls == []
    answer = agent.start("What's my name?")
    assert "Alice" in answer
    assert calls == [
        ("start", "Assistant", "my-session"),
        ("user", "my-session", "What's my name?"),
        ("agent", "my-session", answer),
    ]


# ---- Direct Session Store Access ----

DIRECT = "advanced-topics/direct-session-store-access/python-1"


@covers("advanced-topics/direct-session-store-access/python-1")
def test_what_was_added_by_hand_is_read_listed_and_deleted(disk: Disk) -> None:
    names = run_block(DIRECT)
    assert contents(names["history"]) == [("user", "Hello!"), ("assistant", "Hi there!")]
    assert [session["session_id"] for session in names["sessions"]] == ["session-123"]
    assert disk.sessions() == set()
    assert names["store"].get_chat_history("session-123") == []
    assert names["store"].delete_session("session-123") is False


@covers("advanced-topics/direct-session-store-access/python-1")
def test_what_was_added_by_hand_is_on_the_disk_and_an_agent_goes_on_with_it(disk: Disk) -> None:
    store = run_block(DIRECT, until="# Delete a session")["store"]
    assert disk.turns("session-123") == [("user", "Hello!"), ("assistant", "Hi there!")]
    answer = ask_elsewhere({"session_id": "session-123"}, "Are you there?").rstrip("\n")
    assert contents(store.get_chat_history("session-123"))[2:] == [("user", "Are you there?"), ("assistant", answer)]
    assert store.delete_session("session-123") is True
