"""`praisonai session purge` and `verify` at a keyboard: the question, the bar, and what is shown in the end."""

from __future__ import annotations

from test_cli_terminal import P, Terminal, environment, finish, terminal  # noqa: F401 - fixtures

from praisonaiagents.session import get_default_session_store


def test_purging_asks_first_and_shows_how_far_it_is(terminal: Terminal) -> None:  # noqa: F811
    for number in range(40):
        get_default_session_store().add_user_message(f"session-{number}", "hello there", user_id="alice")
    child = terminal(f"{P} session purge --user alice")
    child.expect("Erase all sessions of user alice, for good")
    child.sendline("n")
    assert "Cancelled" in finish(child)
    assert len(get_default_session_store().list_sessions(user_id="alice")) == 40
    child = terminal(f"{P} session purge --user alice")
    child.expect("for good")
    child.sendline("y")
    shown = finish(child)
    for text in (
        "Deleting",
        "Making the storage forget...",
        "Looking for traces...",
        "Erased 40 sessions",
        "Nothing is left",
    ):
        assert text in shown
    assert get_default_session_store().list_sessions(user_id="alice") == []


def test_verifying_shows_how_far_it_is(terminal: Terminal) -> None:  # noqa: F811
    for number in range(40):
        get_default_session_store().add_user_message(f"session-{number}", "hello there")
    shown = finish(terminal(f"{P} session verify --all"))
    assert "Reading" in shown
    assert "100%" in shown
    assert "40 sessions, 40 messages read: nothing is damaged." in shown
    assert "Reading" not in finish(terminal(f"{P} session verify --json"))
