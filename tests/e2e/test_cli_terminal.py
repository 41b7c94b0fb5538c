"""The command line at a keyboard: real processes in a pseudo-terminal, and the keys people press.

Nothing here waits for a time to pass. A test waits for what a person would wait for: text on the screen.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from praisonaiagents.session import get_default_session_store
from praisonaiagents.testing.llm import Fail, Hang, Say, ScriptedLLM

PATIENCE_S = 60
PROMPT = r"> ?(?: |\x08)"
"""How the chat asks for the next line; prompt_toolkit moves the cursor where a person sees a space."""

CTRL_C, CTRL_D, UP, ALT_ENTER = "\x03", "\x04", "\x1b[A", "\x1b\r"
P = f"{sys.executable} -m praisonaiagents.cli"
Terminal = Callable[..., pexpect.spawn]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The offline model, and a terminal that prints no bold and answers no queries about itself."""
    settings = {"PRAISONAI_MODEL": "offline", "TERM": "xterm", "NO_COLOR": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """`terminal(command)` runs a line of bash in a terminal of 80 columns; `.shown` is all it has shown."""
    opened: list[pexpect.spawn] = []

    def start(command: str) -> pexpect.spawn:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork among threads; exec follows at once
            child = pexpect.spawn("bash", ["-c", command], encoding="utf-8", dimensions=(50, 80), timeout=PATIENCE_S)
        child.delaybeforesend = None
        child.logfile_read = _Screen()
        opened.append(child)
        return child

    yield start
    for child in opened:
        child.close(force=True)


class _Screen:
    """All that was shown, from the first character on."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        """There is nothing to flush."""


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[ScriptedLLM], None]:
    def use(llm: ScriptedLLM) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", llm.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("PRAISONAI_MODEL", "gpt-4o-mini")

    return use


def finish(child: pexpect.spawn, status: int = 0) -> str:
    """Wait for the end; all that was shown."""
    child.expect(pexpect.EOF)
    assert child.wait() == status
    shown: str = child.logfile_read.text
    assert "Traceback" not in shown
    return shown


def leave(child: pexpect.spawn) -> str:
    child.expect(PROMPT)
    child.send(CTRL_D)
    return finish(child)


def told(session_id: str = "talk") -> list[tuple[str, object, str | None]]:
    messages = get_default_session_store().messages(session_id)
    return [(message.role, message.content, message.status) for message in messages]


def said(session_id: str = "talk") -> list[object]:
    return [content for role, content, _ in told(session_id) if role == "user"]


# --- the chat ---


def test_a_chat_and_its_commands(terminal: Terminal) -> None:
    chat = terminal(f"{P} session start talk")
    chat.expect_exact("Session talk started. The model is offline.")
    chat.expect_exact("Enter sends it. /help shows more, Ctrl-D leaves")
    chat.expect(PROMPT)
    chat.send("/history\r   \r/help\r")
    chat.expect_exact("Alt-Enter starts a new line")
    chat.expect(PROMPT)
    chat.send("/nope\r")
    chat.expect_exact("No such command: /nope")
    chat.expect(PROMPT)
    chat.send("My name is Alice\r")
    chat.expect("Noted.*Alice")
    chat.expect(PROMPT)
    chat.send("/model\r")
    chat.expect_exact("offline\r\n")
    chat.expect(PROMPT)
    chat.send("/history\r")
    chat.expect_exact("[user] My name is Alice\r\n[assistant] Noted")
    assert "Go on with it: praisonai session resume talk\r\n" in leave(chat)
    assert said() == ["My name is Alice"]


def test_a_resumed_chat_shows_what_was_said_and_remembers_it(terminal: Terminal) -> None:
    store = get_default_session_store()
    for number in range(30):
        store.add_user_message("talk", f"This is number {number}")
    store.add_user_message("talk", "My name is Alice")
    store.add_assistant_message("talk", "x" * 5000)
    chat = terminal(f"{P} session resume talk")
    chat.expect_exact("--- 12 earlier messages, /history shows them ---\r\n[user] This is number 12\r\n")
    chat.expect_exact("[user] My name is Alice\r\n[assistant] xxx")
    chat.expect_exact("... (1,000 more characters)\r\n---\r\nSession talk resumed (32 messages).")
    chat.expect(PROMPT)
    chat.send("/history\r")
    chat.expect_exact("[user] This is number 0\r\n")
    chat.expect(PROMPT)
    chat.send("What's my name?\r")
    chat.expect_exact("Your name is Alice")
    chat.expect(PROMPT)
    chat.send(UP * 3 + "!\r")
    chat.expect("Noted")
    chat.expect(PROMPT)
    chat.send("/exit\r")
    finish(chat)
    assert said()[-3:] == ["My name is Alice", "What's my name?", "My name is Alice!"]


def test_several_lines_are_one_message(terminal: Terminal) -> None:
    chat = terminal(f"{P} session start talk")
    chat.expect(PROMPT)
    chat.send(f"one{ALT_ENTER}two\r")
    chat.expect(r"\r\n\r\n")
    chat.expect(PROMPT)
    chat.send("\x1b[200~three\nfour\r\nfive\x1b[201~\r")
    chat.expect(r"\r\n\r\n")
    chat.expect(PROMPT)
    chat.send("/history\r")
    chat.expect_exact("[user] three\r\nfour\r\nfive")
    leave(chat)
    assert said() == ["one\ntwo", "three\nfour\nfive"]


def test_ctrl_c_stops_an_answer_and_not_the_chat(terminal: Terminal, scripted: Callable[[ScriptedLLM], None]) -> None:
    with ScriptedLLM([Hang(), Hang("Half and nothing more", after_chunks=1), Say("All of it.")]) as llm:
        scripted(llm)
        chat = terminal(f"{P} session start talk")
        chat.expect(PROMPT)
        chat.send("never sent" + CTRL_C)
        chat.expect_exact("(Ctrl-D leaves)")
        chat.expect(PROMPT)
        chat.send("one\r")
        chat.expect_exact("thinking")
        llm.wait_until_hanging()
        chat.send(CTRL_C)
        chat.expect_exact("(stopped; what was answered is kept)")
        chat.expect(PROMPT)
        chat.send("two\r")
        chat.expect_exact("Half an")
        chat.send(CTRL_C)
        chat.expect_exact("(stopped; what was answered is kept)")
        chat.expect(PROMPT)
        chat.send("three\r")
        chat.expect_exact("All of it.")
        shown = leave(chat)
    assert re.search(r"thinking\r {10}\rAll of it\.\r\n\r\n", shown), "the sign of life is still there"
    assert "^C" not in shown
    assert told() == [
        ("user", "one", None),
        ("assistant", "", "interrupted"),
        ("user", "two", None),
        ("assistant", "Half an", "interrupted"),
        ("user", "three", None),
        ("assistant", "All of it.", None),
    ]


def test_a_failing_model_leaves_the_chat_usable(terminal: Terminal, scripted: Callable[[ScriptedLLM], None]) -> None:
    with ScriptedLLM([Fail(401, "sk-test"), Fail(500), Say("Here I am.")]) as llm:
        scripted(llm)
        chat = terminal(f"{P} session start talk")
        for prompt, answer in (("one", "check the key"), ("two", "HTTP 500"), ("three", "Here I am.")):
            chat.expect(PROMPT)
            chat.send(f"{prompt}\r")
            chat.expect_exact(answer)
        assert "sk-test" not in leave(chat)
    assert [status for _, _, status in told()] == [None, "failed", None, "failed", None, None]


def test_an_answer_cannot_drive_the_terminal(terminal: Terminal, scripted: Callable[[ScriptedLLM], None]) -> None:
    attack = "\x1b]0;owned\x07a\x1b[2Jb\x9b3mc\rd\u202ee\u2066f\x08\x7fg 日本 שלום 🎉 é\n\tend"
    harmless = "]0;owneda[2Jb3mcdefg 日本 שלום 🎉 é\r\n"
    with ScriptedLLM([Say(attack, chunks=len(attack))]) as llm:
        scripted(llm)
        chat = terminal(f"{P} session start talk")
        chat.expect(PROMPT)
        chat.send("Go!\r")
        chat.expect_exact(harmless)
        shown = leave(chat)
    assert told()[1][1] == attack
    chat = terminal(f"{P} session resume talk")
    chat.expect_exact(f"[assistant] {harmless}")
    shown += leave(chat) + finish(terminal(f"{P} session show talk"))
    assert shown.count(harmless) == 3
    for sequence in ("\x1b]0", "\x1b[2J", "\x07", "\x9b", "\u202e", "\u2066"):
        assert sequence not in shown


def test_the_chat_can_be_left_while_the_model_is_loaded(terminal: Terminal) -> None:
    leave(terminal(f"{P} session start talk"))
    chat = terminal(f"{P} session start talk")
    chat.expect(PROMPT)
    chat.send(CTRL_C + CTRL_D)
    finish(chat)
    assert told() == []


def test_what_is_typed_ahead_waits_for_its_prompt(terminal: Terminal) -> None:
    chat = terminal(f"{P} session start talk; stty -a")
    chat.expect(PROMPT)
    chat.send("My name is Alice\r")
    chat.expect_exact("thinking")
    chat.send("What's my name?\r" + CTRL_D)
    shown = finish(chat)
    assert said() == ["My name is Alice", "What's my name?"]
    assert shown.index("Noted") < shown.index("What's my name?") < shown.index("Your name is Alice")
    assert re.search(r"[^-]icanon.* echo ", shown, re.DOTALL), "the terminal was not put back as it was"


def test_two_chats_of_one_session_hear_each_other(terminal: Terminal) -> None:
    chat = terminal(f"{P} session start talk")
    chat.expect(PROMPT)
    subprocess.run([*P.split(), "run", "--session", "talk", "My name is Alice"], check=True, capture_output=True)
    chat.send("What's my name?\r")
    chat.expect_exact("Your name is Alice")
    leave(chat)
    assert said() == ["My name is Alice", "What's my name?"]


def test_a_dumb_terminal_gets_text_and_nothing_else(terminal: Terminal) -> None:
    chat = terminal(f"TERM=dumb NO_COLOR= {P} session start talk")
    chat.expect_exact("> ")
    chat.send("My name is Alice\r")
    chat.expect("Noted.*Alice")
    chat.expect_exact("> ")
    chat.send(CTRL_D)
    shown = finish(chat) + finish(terminal(f"TERM=dumb NO_COLOR= {P} session show talk"))
    assert "\x1b" not in shown
    assert "thinking" not in shown


def test_prompts_typed_where_the_answers_go_to_a_file(terminal: Terminal, tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    chat = terminal(f"{P} session start talk > {answers}")
    chat.expect_exact("Each line is a prompt, Ctrl-D ends.")
    chat.send("My name is Alice\nWhat's my name?\n" + CTRL_D)
    finish(chat)
    assert answers.read_text().count("Alice") >= 2
    assert "\x1b" not in answers.read_text()
    assert said() == ["My name is Alice", "What's my name?"]


# --- the other commands ---


def test_a_list_is_a_table_whose_ids_are_whole(terminal: Terminal) -> None:
    store = get_default_session_store()
    long = "a-session-id-of-one-hundred-characters-" * 3
    assert "No sessions found. Start one: praisonai session start" in finish(terminal(f"{P} session list"))
    store.add_user_message(long[:100], "Hello!")
    store.update_session_metadata("short", title="A title", agent_name="Assistant")
    head, short, first, second = finish(terminal(f"{P} session list")).splitlines()
    assert head.split() == ["ID", "Title", "Agent", "Messages", "Updated"]
    assert re.fullmatch(r"short  A title  Assistant         0  \d{4}-\d\d-\d\d \d\d:\d\d", short)
    assert first == long[:100]
    assert re.fullmatch(r" +-        -                 1  \d{4}-\d\d-\d\d \d\d:\d\d", second)
    assert "\x1b[1mID  " in finish(terminal(f"NO_COLOR= {P} session list"))


def test_show_is_for_people(terminal: Terminal) -> None:
    get_default_session_store().add_user_message("talk", "Hello!")
    shown = finish(terminal(f"TZ=UTC {P} session show talk"))
    created = get_default_session_store().get_session("talk").created_at
    assert f"Created:    {created[:10]} {created[11:16]}\r\n" in shown
    assert shown.endswith("\r\n\r\n[user] Hello!\r\n")


@pytest.mark.parametrize(
    ("answer", "status", "shown"),
    [("n\r", 0, "Cancelled"), ("\r", 0, "Cancelled"), (CTRL_C + "\r", 130, "Interrupted.")],
)
def test_delete_asks_and_a_no_keeps_the_session(terminal: Terminal, answer: str, status: int, shown: str) -> None:
    get_default_session_store().add_user_message("talk", "Hello!")
    asked = terminal(f"{P} session delete talk")
    asked.expect_exact("Delete session talk? [y/N]: ")
    asked.send(answer)  # Python may sleep through a Ctrl-C that comes just before it starts to read, so Enter wakes it
    assert f"\n{shown}\r\n" in finish(asked, status)
    assert said() == ["Hello!"]


def test_delete_asks_and_a_yes_deletes(terminal: Terminal) -> None:
    get_default_session_store().add_user_message("talk", "Hello!")
    asked = terminal(f"{P} session delete talk")
    asked.expect_exact("[y/N]: ")
    asked.send("y\r")
    assert "Deleted session: talk\r\n" in finish(asked)
    assert get_default_session_store().list_sessions() == []


def test_search_shows_the_terms_in_bold(terminal: Terminal) -> None:
    store = get_default_session_store()
    store.add_user_message("talk", "Hello!")
    store.add_user_message("talk", "\x1b[2JIn the Café, 我想去北京旅行, in cafés and cafeterias")
    store.rename_session("talk", "A \x07title")
    found = finish(terminal(f"TZ=UTC {P} session search cafe 北京"))
    when = store.get_session("talk").updated_at
    assert found == (
        f"talk  A title, message 1, user, {when[:10]} {when[11:16]}\r\n"
        "  [2JIn the Café, 我想去北京旅行, in cafés and cafeterias\r\n"
    )
    bold = finish(terminal(f"NO_COLOR= {P} session search 'CAF*' 北京 --all-users"))
    assert bold.startswith("\x1b[1mtalk\x1b[0m  of default_user, A title")
    for term in (
        "the \x1b[1mCafé\x1b[0m,",
        "\x1b[1m北京\x1b[0m旅行",
        "\x1b[1mcafés\x1b[0m",
        "\x1b[1mcafeterias\x1b[0m",
    ):
        assert term in bold
    assert "我想\x1b[1m去北京\x1b[0m旅行" in finish(terminal(f"NO_COLOR= {P} session search 去北京"))
    assert "Nothing found." in finish(terminal(f"{P} session search nothing"))


def test_the_doctor_shows_a_sign_of_life_and_takes_it_away(terminal: Terminal, home: Path) -> None:
    get_default_session_store().add_user_message("talk", "Hello!")
    asked = terminal(f"{P} doctor --db 'file:///no/such\x1b[2J/place'")
    asked.expect_exact("looking at default place")
    shown = finish(asked)
    assert re.search(r"\| looking at default place\r {26}\r\r\ndefault place: all well\r\n", shown)
    assert f"  Place:      {home}/sessions\r\n" in shown
    assert "looking" not in finish(terminal(f"TERM=dumb {P} doctor"))


def test_the_doctor_can_be_interrupted(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = terminal(f"{P} doctor --db redis://127.0.0.1:{silent.getsockname()[1]}")
        asked.expect_exact("looking at --db redis")
        asked.send(CTRL_C)
        assert "Interrupted." in finish(asked, 130)


def test_a_chat_in_a_database(terminal: Terminal, tmp_path: Path, home: Path) -> None:
    db = f"sqlite:///{tmp_path}/my sessions.db"
    chat = terminal(f"{P} session --db '{db}' start talk")
    chat.expect(PROMPT)
    chat.send("My name is Alice\r")
    chat.expect("Noted.*Alice")
    chat.expect(PROMPT)
    chat.send("/history\r")
    chat.expect_exact("[user] My name is Alice\r\n[assistant] Noted")
    assert f"Go on with it: praisonai session resume --db '{db}' talk\r\n" in leave(chat)
    chat = terminal(f"PRAISONAI_DB_URL='{db}' {P} session resume talk")
    chat.expect_exact("Session talk resumed (2 messages).")
    assert "Go on with it: praisonai session resume talk\r\n" in leave(chat)
    assert not home.exists()


def test_run_without_a_prompt_says_how(terminal: Terminal) -> None:
    assert "say what to run: praisonai run 'PROMPT'" in finish(terminal(f"{P} run"), 2)


def test_an_answer_is_shown_as_it_comes(terminal: Terminal, scripted: Callable[[ScriptedLLM], None]) -> None:
    with ScriptedLLM([Hang("Half and nothing more", after_chunks=1)]) as llm:
        scripted(llm)
        running = terminal(f"{P} run 'Think!'")
        running.expect_exact("thinking")
        running.expect_exact("Half an")
        llm.release()
        assert finish(running).endswith("Half and nothing more\r\n")


def test_nothing_but_the_answer_is_shown(terminal: Terminal, scripted: Callable[[ScriptedLLM], None]) -> None:
    """The LLM library greets programmers at their first run, unless it sees that it is being tested."""
    with ScriptedLLM([Say("Hello yourself!")]) as llm:
        scripted(llm)
        shown = finish(terminal(f"env -u CI -u PYTEST_VERSION {P} run Hello!"))
    assert re.fullmatch(r"(\r[-\\|/] thinking)+\r {10}\rHello yourself!\r\n", shown)


def test_the_environment_of_these_tests_holds_no_key() -> None:
    assert [name for name in os.environ if name.endswith("_API_KEY")] == []
