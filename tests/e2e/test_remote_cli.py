"""Sessions on another machine against the real server, in a process of its own: from Python, over a pipe and at a keyboard."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any, NamedTuple

import forked
import pexpect
import pytest
from serve.process import Process, script
from servers.flaky_agent import FlakyAgent, Plan
from servers.ports import free_port

from praisonaiagents import Session
from praisonaiagents.agent import connection
from praisonaiagents.errors import RemoteError, RemoteRefused
from praisonaiagents.testing.llm import Fail, Hang, Request, Say, ScriptedLLM

PATIENCE_S = 60
P = [sys.executable, "-m", "praisonaiagents.cli"]
PROMPT = r"> ?(?: |\x08)"
CTRL_C, CTRL_D = "\x03", "\x04"
TOKENS = {"token-of-alice": "alice", "token-of-bob": "bob"}


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that starts again takes as long as it takes."""
    for name in ("_AGAIN", "_AGAIN_WHILE_AWAY"):
        monkeypatch.setattr(connection, name, 1_000, raising=False)


def parrot(request: Request) -> Say:
    return Say(f"You said: {request.messages[-1]['content']}")


@pytest.fixture
def server() -> Iterator[Process]:
    """Answers "You said: ..."."""
    with ScriptedLLM(parrot) as llm, Process(script(llm.openai_url)) as running:
        yield running


# --- from Python ---


def test_a_conversation_is_kept_there_and_goes_on_from_anywhere(server: Process) -> None:
    with Session("my/session", agent_url=f"{server.url}/agent") as session:
        assert session.info() is None
        assert session.history() == []
        assert session.chat("Hello") == "You said: Hello"
        assert "".join(session.stream("Grüße 🎉")) == "You said: Grüße 🎉"
        assert len(session.history(3)) == 3
    server.kill()
    server.start()

    async def elsewhere() -> None:
        async with await Session.aconnect(f"{server.url}/agent", "my/session") as session:
            assert await session.achat("And?") == "You said: And?"
            said = [(message["role"], message["content"]) for message in await session.ahistory()]
            assert said == [
                *(("user", "Hello"), ("assistant", "You said: Hello")),
                *(("user", "Grüße 🎉"), ("assistant", "You said: Grüße 🎉")),
                *(("user", "And?"), ("assistant", "You said: And?")),
            ]
            [row] = await session.asessions()
            assert (row["session_id"], row["message_count"]) == ("my/session", 6)
            assert ((await session.ainfo()) or {})["message_count"] == 6

    asyncio.run(elsewhere())


def test_long_histories_and_many_sessions_come_whole(server: Process) -> None:
    url = f"{server.url}/agent"
    with Session("long", agent_url=url) as session:
        for number in range(55):
            session.chat(f"m{number}")
        for number in range(3):
            with Session(f"other-{number}", agent_url=url) as other:
                other.chat("Hello")
        assert [row["content"] for row in session.history() if row["role"] == "user"] == [f"m{n}" for n in range(55)]
        assert len(session.history(107)) == 107
        assert {row["session_id"] for row in session.sessions()} == {"long", "other-0", "other-1", "other-2"}
        assert len(session.sessions(2)) == 2


def test_every_id_names_a_session_of_its_own(server: Process) -> None:
    for session_id in ("..", "a/b", "a%2Fb", "日本", "x" * 300, " ", "a?b=c#d"):
        with Session(session_id, "älice/…", f"{server.url}/agent") as session:
            session.chat("Hello")
            assert [row["content"] for row in session.history()] == ["Hello", "You said: Hello"]
            assert (session.info() or {})["session_id"] == session_id


def test_tokens_keep_users_apart() -> None:
    with ScriptedLLM(parrot) as llm, Process(script(llm.openai_url, users=TOKENS)) as server:
        url = f"{server.url}/agent"
        with (
            Session("s", agent_url=url, token="token-of-alice") as alice,
            Session("s", agent_url=url, token="token-of-bob") as bob,
            Session("s", agent_url=url) as nobody,
            Session("s", "bob", url, token="token-of-alice") as liar,
        ):
            alice.chat("I am Alice")
            assert bob.history() == []
            assert bob.sessions() == []
            assert len(alice.history()) == 2
            for session in (nobody, liar):
                with pytest.raises(RemoteRefused, match="token") as refused:
                    session.chat("Hello")
                assert refused.value.status in (401, 403)
                assert "token-of-alice" not in str(refused.value)


def test_the_same_key_is_the_same_turn_also_after_a_restart(server: Process) -> None:
    with Session("s", agent_url=f"{server.url}/agent") as session:
        first = session.chat("Hello", idempotency_key="k")
        assert session.chat("Hello", idempotency_key="k") == first
        server.kill()
        server.start()
        assert session.chat("Hello", idempotency_key="k") == first
        assert "".join(session.stream("Hello", idempotency_key="k")) == first
        assert len(session.history()) == 2
        with pytest.raises(RemoteRefused) as refused:
            session.chat("Another message", idempotency_key="k")
        assert refused.value.status == 422


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_server_that_is_killed_in_the_middle_of_a_stream_loses_nothing(after: int) -> None:
    replies = [Hang("My name is Bot", after_chunks=after), Say("My name is Bot")]
    with (
        ScriptedLLM(replies) as llm,
        Process(script(llm.openai_url)) as server,
        Session("s", agent_url=f"{server.url}/agent", timeout=PATIENCE_S) as session,
    ):
        pieces, found = session.stream("Who are you?"), []
        for _ in range(after):
            found.append(next(pieces))
        again = threading.Thread(target=lambda: (llm.wait_until_hanging(), server.kill(), server.start()))
        again.start()
        found += pieces
        again.join()
        assert "".join(found) == "My name is Bot"
        assert [(row["role"], row["content"]) for row in session.history()] == [
            ("user", "Who are you?"),
            ("assistant", "My name is Bot"),
        ]


@pytest.mark.usefixtures("_patient")
def test_another_answer_after_a_kill_is_an_error_with_the_key_to_it() -> None:
    replies = [Hang("My name is Bot", after_chunks=1), Say("I am somebody else")]
    with (
        ScriptedLLM(replies) as llm,
        Process(script(llm.openai_url)) as server,
        Session("s", agent_url=f"{server.url}/agent", timeout=PATIENCE_S) as session,
    ):
        pieces = session.stream("Who are you?")
        next(pieces)
        server.kill()
        server.start()
        with pytest.raises(RemoteError, match="other words") as failed:
            list(pieces)
        key = failed.value.idempotency_key
        assert session.chat("Who are you?", idempotency_key=key) == "I am somebody else"
        assert len(session.history()) == 2


def test_leaving_early_stops_the_turn_there() -> None:
    with (
        ScriptedLLM([Hang("My name is Bot", after_chunks=1)] * 2) as llm,
        Process(script(llm.openai_url)) as server,
        Session("s", agent_url=f"{server.url}/agent") as session,
    ):
        pieces = session.stream("Who are you?")
        first = next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        assert [row.get("status") for row in session.history()] == [None, "interrupted"]
        assert session.history(1)[0]["content"] == first

        async def main() -> None:
            async with aclosing(session.astream("Who are you?")) as later:
                await anext(later)

        asyncio.run(main())
        assert [row.get("status") for row in session.history()] == [None, "interrupted"] * 2


def test_a_cancelled_chat_stops_the_turn_there() -> None:
    async def main(llm: ScriptedLLM, session: Session) -> None:
        asking = asyncio.create_task(session.achat("Who are you?"))
        await asyncio.to_thread(llm.wait_until_hanging)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [row.get("status") for row in await session.ahistory()] == [None, "interrupted"]
        await session.aclose()

    with ScriptedLLM([Hang("My name is Bot", after_chunks=1)]) as llm, Process(script(llm.openai_url)) as server:
        asyncio.run(main(llm, Session("s", agent_url=f"{server.url}/agent")))


def test_a_turn_that_fails_there_fails_here() -> None:
    with (
        ScriptedLLM([Fail(400), Fail(400)]) as llm,
        Process(script(llm.openai_url)) as server,
        Session("s", agent_url=f"{server.url}/agent") as session,
    ):
        for ask in (session.chat, lambda text: list(session.stream(text))):
            with pytest.raises(RemoteRefused, match="Error processing query") as failed:
                ask("Hello")
            assert failed.value.status == 500


# --- over a pipe ---


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str


def cli(*arguments: str, stdin: str = "", **variables: str) -> Done:
    here = {"PRAISONAI_HOME": f"{os.environ['PRAISONAI_HOME']}-here"}  # the server keeps its own in the test's home
    environment = os.environ | here | {"PYTHONWARNINGS": "error"} | variables
    done = forked.run(["-m", "praisonaiagents.cli", *arguments], input=stdin, env=environment)
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def test_each_line_of_a_pipe_is_a_turn_there(server: Process) -> None:
    far = ("--remote", f"{server.url}/agent")
    assert cli("session", "start", *far, "talk", stdin="One\nTwo\n") == Done(0, "You said: One\nYou said: Two\n", "")
    assert cli("session", "resume", *far, "talk", "Three").out == "You said: Three\n"
    assert cli("session", "list").out == ""  # nothing is kept here
    stands = cli("session", "resume", *far, "talk")
    assert stands.out.splitlines()[-1] == "[assistant] You said: Three"
    assert "talk resumed (6 messages)" in stands.err
    assert f"praisonai session resume --remote {server.url}/agent talk" in stands.err
    [row] = [line.split("\t") for line in cli("session", "list", *far).out.splitlines()]
    assert (row[0], row[3]) == ("talk", "6")
    shown = cli("session", "show", *far, "talk", "-n", "1").out
    assert "Session ID: talk\n" in shown
    assert shown.endswith("\n\n[assistant] You said: Three\n")
    assert cli("session", "start", *far, "new").err.startswith("Session new started. Go on with it:")


def test_programs_get_json(server: Process) -> None:
    far = ("--remote", f"{server.url}/agent", "--json")
    assert json.loads(cli("session", "start", *far, "talk", "--user", "alice", stdin="One\n").out) == {
        "session_id": "talk",
        "user_id": "alice",
        "remote": f"{server.url}/agent",
        "response": "You said: One",
    }
    stands = json.loads(cli("session", "resume", *far, "talk", "--user", "alice").out)
    assert (stands["restored"], len(stands["session"]["chat_history"])) == (True, 2)
    assert json.loads(cli("session", "list", *far).out) == {"sessions": []}
    [row] = json.loads(cli("session", "list", *far, "--user", "alice").out)["sessions"]
    assert row["session_id"] == "talk"
    found = json.loads(cli("session", "show", *far, "talk", "--user", "alice").out)
    assert (found["session_id"], found["found"], len(found["chat_history"])) == ("talk", True, 2)
    missing = cli("session", "resume", *far, "nope", "Hello")
    assert (missing.status, json.loads(missing.out)["error"]["type"]) == (1, "SessionNotFound")


def test_the_token_is_read_from_the_environment() -> None:
    with ScriptedLLM(parrot) as llm, Process(script(llm.openai_url, token="secret-token")) as server:
        far = ("session", "start", "--remote", f"{server.url}/agent", "talk")
        refused = cli(*far, stdin="Hello\n")
        assert (refused.status, refused.out) == (1, "")
        assert "PRAISONAI_REMOTE_TOKEN" in refused.err
        wrong = cli(*far, stdin="Hello\n", PRAISONAI_REMOTE_TOKEN="wrong-token")
        assert (wrong.status, "wrong-token" in wrong.err) == (1, False)
        assert cli(*far, stdin="Hello\n", PRAISONAI_REMOTE_TOKEN="secret-token").out == "You said: Hello\n"


@pytest.mark.parametrize("command", [("start",), ("resume", "s"), ("list",), ("show", "s")])
def test_nobody_there_is_one_line_and_exit_code_1(command: tuple[str, ...]) -> None:
    url = f"http://127.0.0.1:{free_port()}/agent"
    done = cli("session", *command, "--remote", url)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"Error: Failed to connect to the agent at {url}")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ("start", "--db", "sqlite:///x.db"),
        ("start", "--llm", "offline"),
        ("start", "--instructions", "Be brief"),
        ("start", "--remember"),
        ("start", "--no-remember"),
        ("resume", "s", "--llm", "offline"),
        ("resume", "s", "--db", "sqlite:///x.db"),
        ("list", "--all-users"),
        ("list", "--tag", "t"),
        ("list", "--archived"),
        ("show", "s", "--db", "sqlite:///x.db"),
    ],
    ids=" ".join,
)
def test_what_is_about_this_machine_is_refused(options: tuple[str, ...]) -> None:
    done = cli("session", *options, "--remote", "http://127.0.0.1:1/agent")
    assert (done.status, done.out) == (2, "")
    assert "--remote" in done.err.splitlines()[-1]


def test_a_server_that_shows_no_sessions_can_be_talked_to() -> None:
    with FlakyAgent(features=None) as agent:
        far = ("--remote", agent.url)
        assert cli("session", "start", *far, "talk", stdin="One\n").out == "You said: One\n"
        assert cli("session", "resume", *far, "talk", "Two").out == "You said: Two\n"
        assert cli("session", "resume", *far, "talk").err.startswith("Session talk. Go on with it:")
        for command in (("list",), ("show", "talk")):
            done = cli("session", *command, *far)
            assert (done.status, "does not show its sessions" in done.err) == (1, True)


def test_what_a_server_of_another_make_shows_is_shown_as_far_as_it_can_be() -> None:
    calls = [[{"function": None}], 5, [7], [{"function": {"name": "look", "arguments": "{}"}}], None]
    messages = [{"role": "assistant", "content": None, "tool_calls": each, "at": "x"} for each in calls]
    info: Plan = lambda asked: asked.answer({"created_at": "9999-12-31T23:59:59-12:00", "updated_at": 7})  # noqa: E731
    page: Plan = lambda asked: asked.answer({"messages": messages})  # noqa: E731
    with FlakyAgent(info, page) as agent:
        done = cli("session", "show", "s", "--remote", agent.url)
    assert (done.status, "look" in done.out) == (0, True)


def test_a_server_that_answers_nonsense_is_not_taken_for_one_without_sessions() -> None:
    with FlakyAgent(lambda asked: asked.answer(b"[]")) as agent:
        done = cli("session", "resume", "talk", "Hello", "--remote", agent.url)
    assert (done.status, "no session" in done.err) == (1, True)


def test_ctrl_c_stops_the_turn_there() -> None:
    with ScriptedLLM([Hang("My name is Bot", after_chunks=1)]) as llm, Process(script(llm.openai_url)) as server:
        url = f"{server.url}/agent"
        with Session("talk", agent_url=url) as session:
            command = [*P, "session", "start", "--remote", url, "talk"]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as talk:
                assert talk.stdin is not None
                talk.stdin.write(b"Who are you?\n")
                talk.stdin.close()
                llm.wait_until_hanging()
                talk.send_signal(signal.SIGINT)
                assert talk.wait(PATIENCE_S) == 130
            assert [row.get("status") for row in session.history()] == [None, "interrupted"]


def test_tab_completes_ids_that_are_there(server: Process) -> None:
    far = ("--remote", f"{server.url}/agent")
    cli("session", "start", *far, "talk-far", stdin="One\n")
    cli("session", "start", "talk-near", stdin="One\n", PRAISONAI_MODEL="offline")
    for url, names in ((f"{server.url}/agent", ["talk-far"]), (f"http://127.0.0.1:{free_port()}", [])):
        words = f"praisonai session resume --remote {url} talk"
        asked = {"_PRAISONAI_COMPLETE": "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": "5"}
        assert [line for line in cli(**asked).out.splitlines() if line.startswith("talk")] == names


# --- at a keyboard ---


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., pexpect.spawn]]:
    for name, value in {"TERM": "xterm", "NO_COLOR": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}.items():
        monkeypatch.setenv(name, value)
    opened: list[pexpect.spawn] = []

    def start(*arguments: str) -> pexpect.spawn:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork among threads; exec follows at once
            child = pexpect.spawn(
                P[0], [*P[1:], *arguments], encoding="utf-8", dimensions=(50, 120), timeout=PATIENCE_S
            )
        child.delaybeforesend = None
        opened.append(child)
        return child

    yield start
    for child in opened:
        child.close(force=True)


def test_a_chat_in_a_terminal(terminal: Callable[..., Any]) -> None:
    replies = [Say("Hello you"), Hang("My name is Bot", after_chunks=1), Say("Fine")]
    with ScriptedLLM(replies) as llm, Process(script(llm.openai_url)) as server:
        url = f"{server.url}/agent"
        chat = terminal("session", "start", "--remote", url, "talk")
        chat.expect_exact(f"Session talk started. The agent is at {url}.")
        chat.expect(PROMPT)
        chat.send("Hi\r")
        chat.expect_exact("Hello you")
        chat.expect(PROMPT)
        chat.send("Who are you?\r")
        chat.expect_exact("My")
        chat.send(CTRL_C)
        chat.expect_exact("(stopped; what was answered is kept)")
        chat.expect(PROMPT)
        chat.send("/model\r")
        chat.expect_exact(url)
        chat.expect(PROMPT)
        chat.send("/history\r")
        chat.expect_exact("[assistant, interrupted]")
        chat.expect(PROMPT)
        chat.send("/compact\r")
        chat.expect_exact("the agent there sums up")
        chat.expect(PROMPT)
        chat.send(CTRL_D)
        chat.expect_exact(f"praisonai session resume --remote {url} talk")
        chat.expect(pexpect.EOF)
        assert chat.wait() == 0
        again = terminal("session", "resume", "--remote", url, "talk")
        again.expect_exact("--- so far ---")
        again.expect_exact("[user] Hi")
        again.expect_exact("Session talk resumed (4 messages).")
        again.expect(PROMPT)
        server.kill()
        again.send("Are you there?\r")
        again.expect_exact("Error: Failed to connect to the agent")
        again.expect(PROMPT)
        server.start()
        again.send("And now?\r")
        again.expect_exact("Fine")
        again.expect(PROMPT)
        again.send(CTRL_D)
        again.expect(pexpect.EOF)
        assert again.wait() == 0
