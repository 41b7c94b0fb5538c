"""Using the Session Class: an agent within a session, and state of one's own beside the conversation."""

from __future__ import annotations

import praisonaiagents

from .disk import Disk
from .page import covers, run_block

BLOCK = "using-the-session-class/python-1"


@covers("using-the-session-class/python-1")
def test_an_agent_within_a_session_is_stored_in_it(disk: Disk) -> None:
    names = run_block(BLOCK)
    assert isinstance(names["response"], str)
    assert disk.turns("research-project", user="researcher-1") == [
        ("user", "Find papers about machine learning"),
        ("assistant", names["response"]),
    ]


@covers("using-the-session-class/python-1")
def test_the_state_is_there_in_a_later_session_of_the_same_user() -> None:
    run_block(BLOCK)
    again = praisonaiagents.Session(session_id="research-project", user_id="researcher-1")
    assert again.restore_state() == {"project": "ML Research", "papers_found": 5}
    other = praisonaiagents.Session(session_id="research-project", user_id="researcher-2")
    assert other.restore_state() == {}
