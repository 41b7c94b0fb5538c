"""Multi-User Sessions: "Each user gets isolated sessions"."""

from __future__ import annotations

from praisonaiagents import Agent, MemoryConfig
from praisonaiagents.session import get_default_session_store

from .disk import Disk
from .page import covers, run_block


@covers("multi-user-sessions/python-1")
def test_each_user_has_a_session_of_their_own_on_the_disk(disk: Disk) -> None:
    run_block("multi-user-sessions/python-1")
    assert disk.sessions() == {"users/alice/user-alice-main.json", "users/bob/user-bob-main.json"}
    assert disk.turns("user-alice-main", user="alice")[0] == ("user", "My favorite color is blue")
    assert disk.turns("user-bob-main", user="bob")[0] == ("user", "My favorite color is red")


@covers("multi-user-sessions/python-1")
def test_each_user_is_answered_from_their_own_conversation() -> None:
    create_agent_for_user = run_block("multi-user-sessions/python-1")["create_agent_for_user"]
    for user, mine, other in (("alice", "blue", "red"), ("bob", "red", "blue")):
        agent = create_agent_for_user(user)
        answer = agent.start("What's my favorite color?")
        assert mine in answer
        assert other not in answer
        assert f"My favorite color is {other}" not in str(agent.chat_history)


@covers("multi-user-sessions/python-1")
def test_the_same_session_id_of_two_users_is_two_conversations(disk: Disk) -> None:
    for user in ("alice", "bob"):
        Agent(name="Assistant", memory=MemoryConfig(session_id="main", user_id=user)).start(f"I am {user}")
    assert disk.turns("main", user="alice")[0] == ("user", "I am alice")
    assert disk.turns("main", user="bob")[0] == ("user", "I am bob")
    assert not disk.path("main").exists()
    for user in ("alice", "bob"):
        assert [s["session_id"] for s in get_default_session_store().list_sessions(user_id=user)] == ["main"]
