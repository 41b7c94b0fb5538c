"""Pruning and summing up at a keyboard: the plan as a table, the question, and the bar."""

from __future__ import annotations

import json

from test_cli_terminal import PROMPT, P, Terminal, environment, finish, leave, terminal  # noqa: F401 - two of them are fixtures

from praisonaiagents.session import get_default_session_store


def test_a_plan_is_shown_before_it_asks(terminal: Terminal) -> None:  # noqa: F811
    store = get_default_session_store()
    for name in ("old", "middle", "new"):
        store.add_user_message(name, "text")
    asked = terminal(f"{P} session prune --keep 1")
    asked.expect_exact("Let go of 2 messages, for good? [y/N]")
    asked.send("n\r")
    shown = finish(asked)
    assert all(word in shown for word in ("ID", "What goes", "Messages", "Bytes", "old", "middle"))
    assert "2 sessions of 3: 2 messages" in shown
    assert "Cancelled" in shown
    asked = terminal(f"{P} session prune --keep 1")
    asked.expect_exact("[y/N]")
    asked.send("y\r")
    assert "Done: 2 sessions." in finish(asked)
    assert [row["session_id"] for row in store.list_sessions()] == ["new"]


def test_many_sessions_have_a_bar(terminal: Terminal) -> None:  # noqa: F811
    store = get_default_session_store()
    for number in range(30):
        store.add_user_message(f"s{number}", "text")
    shown = finish(terminal(f"{P} session prune --idle 0m --yes"))
    assert "Looking at sessions..." in shown
    assert "100%" in shown
    assert store.list_sessions() == []


def test_for_programs_there_is_one_document(terminal: Terminal) -> None:  # noqa: F811
    store = get_default_session_store()
    store.add_user_message("s", "My name is Alice.")
    store.add_user_message("s", "I live in Berlin.")
    assert json.loads(finish(terminal(f"{P} session compact s --keep 1 --json")))["compacted"]
    assert json.loads(finish(terminal(f"{P} session prune --keep 0 --yes --json")))["changes"]
    assert json.loads(finish(terminal(f"{P} session prune --keep 0 --json"), 0))["changes"] == []


def test_a_summary_is_shown_without_control_characters(terminal: Terminal) -> None:  # noqa: F811
    store = get_default_session_store()
    store.add_user_message("s", "My name is \x1b[31mAlice.")
    store.add_user_message("s", "I live in Berlin.")
    shown = finish(terminal(f"{P} session compact s --keep 1"))
    assert "Alice" in shown
    assert "\x1b[31m" not in shown
    assert "It stands for 1 message," in shown


def test_a_chat_is_summed_up(terminal: Terminal) -> None:  # noqa: F811
    store = get_default_session_store()
    store.add_user_message("talk", "My name is Alice.")
    for number in range(7):
        store.add_user_message("talk", f"This is number {number}.")
    chat = terminal(f"{P} session resume talk")
    chat.expect(PROMPT)
    chat.send("/compact\r")
    chat.expect_exact("(summed up 2 messages)")
    chat.expect(PROMPT)
    chat.send("What's my name?\r")
    chat.expect("Alice")
    chat.expect(PROMPT)
    chat.send("/compact\r")
    chat.expect_exact("(summed up")
    leave(chat)
    assert "My name is Alice." in str(store.get_working_history("talk")[0])
    assert store.messages("talk")[0].content == "My name is Alice."


def test_what_goes_wrong_is_told_in_a_line(terminal: Terminal) -> None:  # noqa: F811
    get_default_session_store().add_user_message("talk", "zero")
    assert "did you mean 'talk'" in finish(terminal(f"{P} session compact tlak"), 1)
    assert "say what is to go" in finish(terminal(f"{P} session prune"), 2)
    assert "is no age" in finish(terminal(f"{P} session prune --idle soon"), 2)
