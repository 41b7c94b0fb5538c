"""Branches and labels at a keyboard: the columns, tables and errors of real processes in a pseudo-terminal."""

from __future__ import annotations

import re
from collections.abc import Callable

import pexpect
import pytest
from test_cli_terminal import P, Terminal, environment, scripted, terminal  # noqa: F401 - the fixtures

from praisonaiagents.model.message import Message
from praisonaiagents.session import HierarchicalSessionStore, get_default_session_store
from praisonaiagents.testing.llm import Fail, Say, ScriptedLLM


@pytest.fixture
def store() -> HierarchicalSessionStore:
    store = HierarchicalSessionStore.of(get_default_session_store())
    store.append("main", [Message("user", "one"), Message("assistant", "first", model="old")])
    store.fork_session("main", new_session_id="other")
    store.append("main", [Message("user", "Tell me \x1b[2Jmore " + "and more " * 8)])
    store.append("other", [Message("user", "猫と犬と魚が三匹います。" * 3), Message("assistant", "x" * 50)])
    return store


def screen(terminal: Terminal, command: str) -> list[str]:  # noqa: F811
    """The lines that a command shows until it ends, without what only moves."""
    child = terminal(command)
    child.expect(pexpect.EOF)
    return [re.sub(r".*\r(?=[^\r])", "", line).rstrip("\r") for line in child.logfile_read.text.split("\r\n")][:-1]


def test_a_diff_is_in_two_columns(terminal: Terminal, store: HierarchicalSessionStore) -> None:  # noqa: F811
    assert screen(terminal, f"{P} session diff main other") == [
        "2 messages are in both.",
        "main                                   │ other",
        "───────────────────────────────────────┼───────────────────────────────────────",
        "2 [user] Tell me [2Jmore and more and  │ 2 [user]",
        "more and more and more and more and    │ 猫と犬と魚が三匹います。猫と犬と魚が三",
        "more and more and more                 │ 匹います。猫と犬と魚が三匹います。",
        "                                       │ 3 [assistant]",
        "                                       │ " + "x" * 38,
        "                                       │ " + "x" * 12,
    ]
    assert screen(terminal, f"{P} session diff main main") == [
        "3 messages are in both.",
        "There is no difference.",
    ]


def test_a_narrow_terminal_has_one_below_the_other(
    terminal: Terminal,  # noqa: F811
    store: HierarchicalSessionStore,
) -> None:
    shown = screen(terminal, f"stty cols 40; {P} session diff main@message:1 other")
    assert shown[:3] == ["2 messages are in both.", "< main@message:1", "> other"]
    assert shown[-1] == f"> 3 [assistant] {'x' * 50}"


def test_a_replay_is_in_two_columns(
    terminal: Terminal,  # noqa: F811
    store: HierarchicalSessionStore,
    scripted: Callable[[ScriptedLLM], None],  # noqa: F811
) -> None:
    with ScriptedLLM([Say("1st"), Fail(500)]) as llm:
        scripted(llm)
        child = terminal(f"{P} session replay main --llm openai/new")
        child.expect("asking, 1 of 2")
        child.expect("asking, 2 of 2")
        child.expect(pexpect.EOF)
    text = child.logfile_read.text
    assert "before: old                            │ now: openai-chat:new\r\n" in text
    assert "> one\r\nfirst                                  │ 1st\r\n" in text
    [fork] = [name for name in store.get_children("main") if name != "other"]
    assert f"what was said by then is in the fork {fork}" in text


def test_a_retry_is_shown_as_it_comes(
    terminal: Terminal,  # noqa: F811
    store: HierarchicalSessionStore,
    scripted: Callable[[ScriptedLLM], None],  # noqa: F811
) -> None:
    with ScriptedLLM([Say("At last.")]) as llm:
        scripted(llm)
        child = terminal(f"{P} session retry main")
        child.expect(r"At last\.\r\nFork: (\S+)\. Go on with it: praisonai session resume \1\r\n")
        child.expect(pexpect.EOF)


def test_a_list_shows_tags_and_pins(terminal: Terminal, store: HierarchicalSessionStore) -> None:  # noqa: F811
    assert screen(terminal, f"{P} session tag main trip 2026 && {P} session pin main") == [
        "main: trip, 2026",
        "Pinned main: it comes first in lists.",
    ]
    head, first, second = screen(terminal, f"{P} session list")
    assert head.split() == ["ID", "Title", "Agent", "Messages", "Updated", "Tags"]
    assert first.endswith("(pinned), trip, 2026")
    assert second.startswith("other  Fork of main")


def test_errors_at_a_keyboard(terminal: Terminal, store: HierarchicalSessionStore) -> None:  # noqa: F811
    assert screen(terminal, f"{P} session merge main mian; echo $?") == [
        "Error: session 'mian' not found; did you mean 'main'?",
        "1",
    ]
    assert screen(terminal, f"{P} session merge main other; {P} session merge main other --json; echo $?") == [
        "Merged other into main: added 2 messages.",
        '{"session_id":"main","source":"other","added":0,"message_ids":[],"is_summary":false}',
        "0",
    ]
