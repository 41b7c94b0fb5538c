"""CLI Commands: each of them at a keyboard (in a pseudo-terminal) and in a pipe."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from praisonaiagents import Agent
from praisonaiagents.session import get_default_session_store

from .disk import Disk
from .page import TIMEOUT_S, code, covers, run_command
from .terminal import PROMPT, finish

LIST = "cli-commands/praisonai-session-list"
START = "cli-commands/praisonai-session-start-my-session"
RESUME = "cli-commands/praisonai-session-resume-my-session"
SHOW = "cli-commands/praisonai-session-show-my-session"
DELETE = "cli-commands/praisonai-session-delete-my-session"

ALICE = "My name is Alice and I love pizza"
Terminal = Callable[..., pexpect.spawn]


@pytest.fixture
def alice(disk: Disk) -> str:
    """`my-session` holds one turn of Alice's; her answer."""
    return Agent(name="Assistant", memory={"session_id": "my-session"}).start(ALICE)


def command(id: str) -> list[str]:
    return shlex.split(code(id))


def said(disk: Disk) -> list[str]:
    """What the user said in `my-session`."""
    return [content for role, content in disk.turns("my-session") if role == "user"]


def talk(child: pexpect.spawn) -> None:
    """Introduce Alice, wait until the answer to the next question shows that both turns are done, and leave by Ctrl-D."""
    child.expect(PROMPT)
    child.sendline(ALICE)
    child.sendline("What's my shoe size?")
    child.expect("don't know")
    child.expect(PROMPT)
    child.sendeof()


def ask_the_name(child: pexpect.spawn) -> None:
    child.expect(PROMPT)
    child.sendline("What's my name?")
    child.expect("Alice")
    child.expect(PROMPT)
    child.sendeof()


# ---- list ----


@covers("cli-commands/praisonai-session-list")
def test_list_in_a_terminal_names_every_session(alice: str, terminal: Terminal) -> None:
    get_default_session_store().add_user_message("a-session-with-an-id-longer-than-a-narrow-column", "Hello!")
    status, shown = finish(terminal(*command(LIST)))
    assert status == 0
    assert "my-session" in shown
    assert "a-session-with-an-id-longer-than-a-narrow-column" in shown


@covers("cli-commands/praisonai-session-list")
def test_list_in_a_terminal_says_when_there_is_nothing(terminal: Terminal) -> None:
    status, shown = finish(terminal(*command(LIST)))
    assert status == 0
    assert "no sessions" in shown.lower()


@covers("cli-commands/praisonai-session-list")
def test_list_in_a_pipe_is_plain_text(alice: str) -> None:
    done = run_command(LIST)
    assert done.returncode == 0, done.stderr
    assert "my-session" in done.stdout
    assert "\x1b" not in done.stdout


@covers("cli-commands/praisonai-session-list")
def test_list_as_json_newest_first_and_limited(alice: str) -> None:
    get_default_session_store().add_user_message("newer", "Hello!")
    listed = json.loads(run_command(LIST, "--json").stdout)["sessions"]
    assert [session["session_id"] for session in listed] == ["newer", "my-session"]
    limited = json.loads(run_command(LIST, "--json", "--limit", "1").stdout)["sessions"]
    assert [session["session_id"] for session in limited] == ["newer"]


@covers("cli-commands/praisonai-session-list")
def test_list_shows_a_users_sessions_only_to_who_asks_for_that_user(alice: str) -> None:
    get_default_session_store().add_user_message("bobs", "Hello!", user_id="bob")
    listed = json.loads(run_command(LIST, "--json", "--user", "bob").stdout)["sessions"]
    assert [session["session_id"] for session in listed] == ["bobs"]
    assert "bobs" not in run_command(LIST).stdout


# ---- start ----


@covers("cli-commands/praisonai-session-start-my-session")
def test_start_in_a_terminal_is_a_conversation(terminal: Terminal, disk: Disk) -> None:
    child = terminal(*command(START))
    talk(child)
    status, _ = finish(child)
    assert status == 0
    assert said(disk) == [ALICE, "What's my shoe size?"]
    assert len(disk.turns("my-session")) == 4


@covers("cli-commands/praisonai-session-start-my-session")
def test_start_in_a_pipe_answers_line_by_line(disk: Disk) -> None:
    done = run_command(START, stdin=f"{ALICE}\nWhat's my name?\n")
    assert done.returncode == 0, done.stderr
    assert "Alice" in done.stdout
    assert said(disk) == [ALICE, "What's my name?"]
    assert "Alice" in disk.last("my-session")
    assert disk.last("my-session") in done.stdout


@covers("cli-commands/praisonai-session-start-my-session")
def test_start_runs_as_a_module_too(disk: Disk) -> None:
    module = [sys.executable, "-m", "praisonaiagents.cli", *command(START)[1:]]
    done = subprocess.run(module, input=f"{ALICE}\n", capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert said(disk) == [ALICE]


# ---- resume ----


@covers("cli-commands/praisonai-session-resume-my-session")
def test_resume_in_a_terminal_goes_on_where_it_was(alice: str, terminal: Terminal, disk: Disk) -> None:
    child = terminal(*command(RESUME))
    ask_the_name(child)
    status, _ = finish(child)
    assert status == 0
    assert said(disk) == [ALICE, "What's my name?"]
    assert "Alice" in disk.last("my-session")


@covers("cli-commands/praisonai-session-resume-my-session")
def test_resume_in_a_pipe_goes_on_where_it_was(alice: str, disk: Disk) -> None:
    done = run_command(RESUME, stdin="What's my name?\n")
    assert done.returncode == 0, done.stderr
    assert said(disk) == [ALICE, "What's my name?"]
    assert "Alice" in disk.last("my-session")
    assert disk.last("my-session") in done.stdout


@covers("cli-commands/praisonai-session-resume-my-session")
def test_resume_with_a_prompt_is_one_turn(alice: str, disk: Disk) -> None:
    done = run_command(RESUME, "What's my name?", stdin="This is not read\n")
    assert done.returncode == 0, done.stderr
    assert said(disk) == [ALICE, "What's my name?"]
    assert disk.last("my-session") in done.stdout


@covers("cli-commands/praisonai-session-resume-my-session")
def test_resume_of_an_unknown_session_names_a_similar_one_and_creates_nothing(disk: Disk) -> None:
    get_default_session_store().add_user_message("my-sessions", "Hello!")
    done = run_command(RESUME)
    assert done.returncode == 1
    assert "did you mean" in (done.stdout + done.stderr).lower()
    assert "my-sessions" in done.stdout + done.stderr
    assert disk.sessions() == {"my-sessions.json"}


# ---- show ----


@covers("cli-commands/praisonai-session-show-my-session")
def test_show_in_a_terminal(alice: str, terminal: Terminal) -> None:
    status, shown = finish(terminal(*command(SHOW)))
    assert status == 0
    assert "my-session" in shown
    assert ALICE in shown


@covers("cli-commands/praisonai-session-show-my-session")
def test_show_in_a_pipe(alice: str) -> None:
    done = run_command(SHOW)
    assert done.returncode == 0, done.stderr
    assert "my-session" in done.stdout
    assert ALICE in done.stdout
    assert "\x1b" not in done.stdout


@covers("cli-commands/praisonai-session-show-my-session")
def test_show_as_json(alice: str) -> None:
    shown = json.loads(run_command(SHOW, "--json").stdout)
    assert shown["session_id"] == "my-session"
    assert shown["message_count"] == 2
    assert [m["content"] for m in shown["chat_history"]] == [ALICE, alice]


@covers("cli-commands/praisonai-session-show-my-session")
def test_show_of_an_unknown_session(disk: Disk) -> None:
    done = run_command(SHOW)
    assert done.returncode == 1
    assert "my-session" in done.stdout + done.stderr
    assert disk.sessions() == set()


# ---- delete ----


@covers("cli-commands/praisonai-session-delete-my-session")
@pytest.mark.parametrize(("answer", "left"), [("y", set()), ("n", {"my-session.json"})])
def test_delete_in_a_terminal_asks_first(
    alice: str, terminal: Terminal, disk: Disk, answer: str, left: set[str]
) -> None:
    child = terminal(*command(DELETE))
    child.expect("(?i)y/n")
    assert disk.sessions() == {"my-session.json"}
    child.sendline(answer)
    status, _ = finish(child)
    assert status == 0
    assert disk.sessions() == left


@covers("cli-commands/praisonai-session-delete-my-session")
def test_delete_in_a_pipe_refuses_unless_told_yes(alice: str, disk: Disk) -> None:
    assert run_command(DELETE).returncode == 2
    assert run_command(DELETE, stdin="y\n").returncode == 2
    assert disk.sessions() == {"my-session.json"}
    assert run_command(DELETE, "--yes").returncode == 0
    assert disk.sessions() == set()


@covers("cli-commands/praisonai-session-delete-my-session")
def test_delete_of_an_unknown_session_or_of_another_users_deletes_nothing(alice: str, disk: Disk) -> None:
    done = run_command(DELETE, "--yes", "--user", "bob")
    assert done.returncode == 1
    assert disk.sessions() == {"my-session.json"}


# ---- the whole block ----


@pytest.fixture
def script(disk: Disk) -> Path:
    """The page's block as a shell script."""
    path = disk.work / "block.sh"
    path.write_text(code("cli-commands/bash-1"), encoding="utf-8")
    return path


@covers("cli-commands/bash-1")
def test_the_whole_block_in_a_terminal(script: Path, terminal: Terminal, disk: Disk) -> None:
    child = terminal("bash", "-e", str(script))
    talk(child)
    ask_the_name(child)
    child.expect("(?i)y/n")
    assert said(disk) == [ALICE, "What's my shoe size?", "What's my name?"]
    assert "Alice" in disk.last("my-session")
    child.sendline("y")
    status, _ = finish(child)
    assert status == 0
    assert disk.sessions() == set()


@covers("cli-commands/bash-1")
def test_the_whole_block_in_a_pipe_keeps_what_it_can_not_ask_about(script: Path, disk: Disk) -> None:
    block = ["bash", str(script)]
    done = subprocess.run(block, input=f"{ALICE}\n", capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 2, done.stderr
    assert said(disk) == [ALICE]
