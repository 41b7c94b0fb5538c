"""Forks, snapshots and going back, at a keyboard: every command once in a pseudo-terminal, as a table and as JSON."""

from __future__ import annotations

import json

from test_cli_terminal import P, Terminal, environment, finish, terminal  # noqa: F401 - two of them are fixtures

from praisonaiagents.session import get_default_session_store


def said(session_id: str) -> list[object]:
    return [message["content"] for message in get_default_session_store().get_chat_history(session_id)]


def test_a_conversation_is_forked_and_taken_back(terminal: Terminal) -> None:  # noqa: F811
    for text in ("zero", "one", "two"):
        get_default_session_store().add_user_message("talk", text)
    shown = finish(terminal(f"{P} session snapshot talk --label 'Safe point'"))
    assert "Snapshot " in shown
    shown = finish(terminal(f"{P} session snapshots talk"))
    assert all(word in shown for word in ("ID", "Label", "Safe point", "Messages", "Made"))
    shown = finish(terminal(f"{P} session fork talk --at-message 1 --title Other --as other"))
    assert "Forked talk with 2 messages: other" in shown
    assert "praisonai session resume other" in shown
    assert "└── other  Other  (2 messages)" in finish(terminal(f"{P} session tree talk"))
    assert "Reverted talk: 1 message, it had 3" in finish(terminal(f"{P} session revert talk --to message:0"))
    assert said("talk") == ["zero"]
    shown = finish(terminal(f"{P} session log talk"))
    assert all(word in shown for word in ("Point", "Until", "head:1", "revert", "now"))
    assert "Undone talk: 3 messages, it had 1" in finish(terminal(f"{P} session undo talk"))
    assert said("talk") == ["zero", "one", "two"]
    assert "Renamed talk: New title" in finish(terminal(f"{P} session rename talk 'New title'"))
    for command in ("tree", "snapshots", "log"):
        assert json.loads(finish(terminal(f"{P} session {command} talk --json")))


def test_what_goes_wrong_is_told_in_a_line(terminal: Terminal) -> None:  # noqa: F811
    get_default_session_store().add_user_message("talk", "zero")
    shown = finish(terminal(f"{P} session revert talk --to nowhere"), 1)
    assert "nothing is called 'nowhere'" in shown.replace("\r\n", "")
    assert "did you mean 'talk'" in finish(terminal(f"{P} session fork tlak"), 1)
    assert "Missing option '--to'" in finish(terminal(f"{P} session revert talk"), 2)
    assert json.loads(finish(terminal(f"{P} session undo talk --json"), 1))["error"]


def test_points_are_completed(terminal: Terminal) -> None:  # noqa: F811
    """As bash asks: what could stand where the cursor is."""
    from praisonaiagents.session import HierarchicalSessionStore

    store = HierarchicalSessionStore.of(get_default_session_store())
    store.add_user_message("talk", "zero")
    snapshot = store.create_snapshot("talk")
    store.add_user_message("talk", "one")
    store.revert_to_message("talk", 0)
    words = "praisonai session revert talk --to "
    asked = f"COMP_WORDS='{words}' COMP_CWORD=5 _PRAISONAI_COMPLETE=bash_complete {P}"
    shown = finish(terminal(asked))
    assert snapshot in shown
    assert "head:1" in shown
