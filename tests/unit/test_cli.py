"""The command line in a pipe and for programs: what is printed where, in which form, and with which exit code.

Most tests call `main` in this process, so that the LLM library is loaded once. Where the process itself matters (closed
streams, signals, what is imported) a real one is started. The terminal has its own tests, in e2e/test_cli_terminal.py.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from praisonaiagents.cli import output
from praisonaiagents.cli.main import main
from praisonaiagents.session import SessionMessage, get_default_session_store
from praisonaiagents.session.places import open_store
from praisonaiagents.storage import scan
from praisonaiagents.testing.llm import Fail, Hang, Say, ScriptedLLM

PATIENCE_S = 60
STRANGE_IDS = ["two words", "🎉", "日本", "-x", "--json", "x" * 300, "a/b", "..", "$(id)", "it's"]


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The one JSON document that was printed; nothing else was."""
        assert self.err == ""
        [line] = self.out.splitlines()
        return json.loads(line)

    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


Cli = Callable[..., Done]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRAISONAI_MODEL", "offline")
    monkeypatch.setenv("PYDANTIC_AI_NO_BANNER", "1")  # which `main` sets for itself, and would leave behind
    for name in ("NO_COLOR", "COLUMNS", "TERM"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`cli(*arguments, stdin=...)` runs `praisonai` in this process, with pipes for its streams."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # `main` sets its own: put it back at the end

    def run(*arguments: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "argv", ["praisonai", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        with pytest.raises(SystemExit) as ended:
            main()
        status = ended.value.code
        assert isinstance(status, int)
        return Done(status, *capsys.readouterr())

    return run


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "praisonaiagents.cli", *arguments]


def process(*arguments: str, **environment: str) -> Done:
    """Run `praisonai` in a process of its own, with nothing on its standard input."""
    done = subprocess.run(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | environment,
        timeout=PATIENCE_S,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def shell(script: str) -> Done:
    """Run a line of bash in which `$P` is `praisonai`."""
    environment = os.environ | {"P": " ".join(command())}
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=environment, timeout=PATIENCE_S)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def said(session_id: str, user_id: str | None = None) -> list[Any]:
    history = get_default_session_store().get_chat_history(session_id, user_id=user_id)
    return [message["content"] for message in history if message["role"] == "user"]


def say(session_id: str, *texts: str, user_id: str | None = None) -> None:
    for text in texts:
        get_default_session_store().add_user_message(session_id, text, user_id=user_id)


# --- help, and being asked wrongly ---


@pytest.mark.parametrize(("group", "shown"), [([], "praisonai session start my-session"), (["session"], "resume")])
def test_a_group_alone_prints_its_help(cli: Cli, group: list[str], shown: str) -> None:
    done = cli(*group)
    assert (done.status, done.err) == (0, "")
    assert done.out == cli(*group, "--help").out == cli(*group, "-h").out
    assert shown in done.out


@pytest.mark.parametrize(
    ("group", "named"),
    [([], "session, memory, run, serve, migrate, doctor"), (["session"], "list, start, resume, show, delete, search")],
)
def test_a_group_alone_is_a_mistake_of_a_program(cli: Cli, group: list[str], named: str) -> None:
    done = cli(*group, "--json")
    assert done.status == 2
    assert done.json()["error"]["type"] == "UsageError"
    assert named in done.json()["error"]["message"]


def test_version(cli: Cli) -> None:
    from praisonaiagents import __version__

    assert cli("--version") == Done(0, f"praisonai, version {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["sesion", "list"], "did you mean session?"),
        (["session", "lst"], "did you mean list?"),
        (["session", "frobnicate"], "no such command: frobnicate"),
        (["session", "list", "--limt", "3"], "--limit"),
        (["session", "list", "--limit", "0"], "--limit"),
        (["session", "list", "--limit", "some"], "--limit"),
        (["session", "show"], "SESSION_ID"),
        (["session", "show", "a", "b"], "unexpected"),
        (["session", "delete", "unasked"], "--yes"),
        (["session", "resume", "unasked", " "], "prompt is empty"),
        (["run", ""], "prompt is empty"),
        (["run"], "prompt is empty"),
        (["completion", "tcsh"], "tcsh"),
        (["session", "search"], "QUERY"),
        (["session", "search", "!?"], "nothing to search for"),
        (["session", "list", "--db", "mysql://u:sk-secret@host"], "no storage engine serves 'mysql'"),
        (["session", "--db", "sqllite:///x.db", "list"], "Did you mean 'sqlite'"),
        (["session", "list", "--db", ""], "cannot be empty"),
        (["run", "Hello!", "--db", "memory://"], "--db needs --session"),
    ],
    ids=" ".join,
)
def test_a_wrong_question_is_answered_with_2(cli: Cli, arguments: list[str], hint: str) -> None:
    say("unasked", "Hello!")
    done = cli(*arguments)
    assert (done.status, done.out) == (2, "")
    assert hint in done.err
    assert "sk-secret" not in done.err
    for asked in (["--json", *arguments], [*arguments, "--json"]):
        done = cli(*asked)
        assert done.status == 2
        assert done.json()["error"]["type"] == "UsageError"
        assert hint in done.json()["error"]["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["session", "list"],
        ["session", "show", "talk"],
        ["session", "start", "talk"],
        ["session", "resume", "talk"],
        ["session", "resume", "talk", "Hello!"],
        ["run", "Hello!"],
        ["session", "show", "nobody's"],
    ],
    ids=" ".join,
)
def test_json_is_asked_for_before_or_after_the_commands_name(cli: Cli, arguments: list[str]) -> None:
    say("talk", "My name is Alice")
    documents = []
    for place in {0, 1, len(arguments)}:
        done = cli(*arguments[:place], "--json", *arguments[place:])
        documents.append((done.status, set(done.json())))
    assert documents == [documents[0]] * len(documents)


def test_what_follows_two_dashes_is_not_an_option(cli: Cli) -> None:
    done = cli("session", "show", "--", "--json")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Error: session '--json' not found")


# --- list ---


def test_list_in_a_pipe_is_a_line_a_session(cli: Cli) -> None:
    assert cli("session", "list") == Done(0, "", "No sessions found. Start one: praisonai session start my-session\n")
    say("older", "Hello!")
    say("newer", "Hello!", "Hello?")
    store = get_default_session_store()
    store.update_session_metadata("newer", title="two\tlines\nof title")
    older, newer = (row["updated_at"] for row in reversed(store.list_sessions()))
    assert cli("session", "list").lines() == [
        ["newer", "two lines of title", "-", "2", newer],
        ["older", "-", "-", "1", older],
    ]


def test_list_is_limited_to_20_unless_told_otherwise(cli: Cli) -> None:
    for number in range(22):
        say(f"s{number}", "Hello!")
    ids = [f"s{number}" for number in reversed(range(22))]
    for options, expected in (([], ids[:20]), (["-n", "3"], ids[:3]), (["--limit", "21"], ids[:21]), (["--all"], ids)):
        assert [line[0] for line in cli("session", "list", *options).lines()] == expected
        listed = cli("session", "list", "--json", *options).json()["sessions"]
        assert [row["session_id"] for row in listed] == expected


def test_list_shows_one_user_or_all(cli: Cli) -> None:
    say("mine", "Hello!")
    say("bobs", "Hello!", user_id="bob")
    assert [line[0] for line in cli("session", "list").lines()] == ["mine"]
    assert [line[0] for line in cli("session", "list", "--user", "").lines()] == ["mine"]
    assert [line[0] for line in cli("session", "list", "--user", "bob").lines()] == ["bobs"]
    both = [["bobs", "bob"], ["mine", "default_user"]]
    assert [line[:2] for line in cli("session", "list", "--all-users").lines()] == both


# --- tables ---


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 40 columns that prints no bold."""
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((40, 24)))


@pytest.mark.usefixtures("narrow")
def test_a_table_gives_a_long_id_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    long = "a-very-long-id-" * 10
    output.print_table(["ID", "Title", "Messages"], [["short", "one", "7"], [long, "two", "12"], ["日本", "é", "1"]])
    assert capsys.readouterr().out.splitlines() == [
        "ID     Title  Messages",
        "short  one           7",
        long,
        "       two          12",
        "日本   é             1",
    ]


@pytest.mark.usefixtures("narrow")
def test_a_table_cuts_titles_and_drops_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["ID", "Title"], [["x", "\x1b]0;forged\x07 new\nline \u202eyzarc"], ["y", "t" * 50]])
    assert capsys.readouterr().out.splitlines() == ["ID  Title", "x   ]0;forged new line yzarc", f"y   {'t' * 29}…"]


# --- start and resume ---


def test_start_answers_each_line(cli: Cli) -> None:
    done = cli("session", "start", "talk", stdin=b"My name is Alice\n\n  \nWhat's my name?")
    assert (done.status, done.err) == (0, "")
    first, second = done.out.splitlines()
    assert "Alice" in first
    assert "Alice" in second
    assert said("talk") == ["My name is Alice", "What's my name?"]


def test_with_json_each_answer_is_a_line(cli: Cli) -> None:
    done = cli(
        "session", "start", "talk", "--json", "--user", "bob", stdin="My name is Zoë\r\nWhat's my name?\r\n".encode()
    )
    answers = [json.loads(line) for line in done.out.splitlines()]
    told = get_default_session_store().get_chat_history("talk", user_id="bob")
    assert [answer.pop("response") for answer in answers] == [told[1]["content"], told[3]["content"]]
    assert answers == [{"session_id": "talk", "user_id": "bob", "model": "offline"}] * 2
    assert said("talk", "bob") == ["My name is Zoë", "What's my name?"]
    again = cli("session", "resume", "talk", "What's my name?", "--json", "--user", "bob").json()
    assert again == {"session_id": "talk", "user_id": "bob", "model": "offline", "response": told[3]["content"]}


def test_input_may_begin_with_a_byte_order_mark_and_have_one_huge_line(cli: Cli) -> None:
    huge = "word " * 200_000
    done = cli("session", "start", "talk", stdin=f"\ufeffMy name is Alice\n{huge}\n".encode())
    assert (done.status, done.err) == (0, "")
    assert said("talk") == ["My name is Alice", huge]


def test_input_that_is_not_text_ends_the_talk(cli: Cli) -> None:
    for options, told in (([], 0), (["--json"], 1)):
        done = cli("session", "start", "talk", *options, stdin=b"Hello!\nHello \xff\xfe\nnever said\n")
        assert done.status == 1
        assert "line 2 of standard input is not UTF-8" in (done.err, done.out)[told]
    assert json.loads(done.out.splitlines()[1])["error"]["type"] == "InvalidInput"
    assert said("talk") == ["Hello!", "Hello!"]


def test_who_says_nothing_is_told_where_it_stands(cli: Cli) -> None:
    assert cli("session", "start", "talk") == Done(
        0, "", "Session talk started. Go on with it: praisonai session resume talk\n"
    )
    say("talk", "Hello!")
    done = cli("session", "resume", "talk")
    assert done.out == "[user] Hello!\n"
    assert done.err == "Session talk resumed (1 message). Go on with it: praisonai session resume talk\n"
    resumed = cli("session", "resume", "talk", "--json").json()
    assert resumed["restored"] is True
    assert resumed["session"]["chat_history"] == [{"role": "user", "content": "Hello!"}]
    assert cli("session", "start", "other", "--json").json()["restored"] is False


def test_start_without_an_id_makes_one(cli: Cli) -> None:
    made = cli("session", "start", "--json").json()["session"]["session_id"]
    assert cli("session", "show", made).status == 0


def test_settings_stay_with_the_session(cli: Cli) -> None:
    assert cli("session", "start", "talk", "--llm", "offline", "--instructions", "Be brief.").status == 0
    assert cli("session", "resume", "talk", "--llm", "openai/gpt-4o-mini").status == 0
    metadata = cli("session", "show", "talk", "--json").json()["metadata"]
    assert metadata == {"model": "openai/gpt-4o-mini", "instructions": "Be brief."}


def test_settings_that_were_kept_are_used(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedLLM([Say("One."), Say("Two.")]) as llm:
        monkeypatch.setenv("OPENAI_BASE_URL", llm.openai_url)
        cli("run", "Hello!", "-s", "talk", "--llm", "openai/small-1", "--instructions", "Be brief.")
        cli("session", "resume", "talk", "Hello?")
    for request in llm.requests:
        assert request.body["model"] == "small-1"
        assert request.messages[0] == {"role": "system", "content": "Be brief."}


def test_a_model_nobody_knows_is_refused_and_not_kept(cli: Cli, home: Path) -> None:
    say("there", "Hello!")
    for arguments in (["session", "start", "new"], ["run", "Hello!", "-s", "new"], ["session", "resume", "there"]):
        done = cli(*arguments, "--llm", "nonsense")
        assert (done.status, done.out) == (1, "")
        assert "'nonsense'" in done.err
    assert [path.name for path in home.glob("sessions/*.json")] == ["there.json"]
    assert cli("session", "show", "there", "--json").json()["metadata"] == {}


@pytest.mark.parametrize("command", ["resume", "show", "delete"])
def test_an_unknown_session_is_an_error_with_a_hint(cli: Cli, home: Path, command: str) -> None:
    options = ["--yes"] if command == "delete" else []
    done = cli("session", command, "talk", *options)
    assert (done.status, done.out) == (1, "")
    assert done.err == "Error: session 'talk' not found; praisonai session list shows what there is\n"
    say("talks", "Hello!")
    error = cli("session", command, "talk", "--json", *options).json()["error"]
    assert error == {"type": "SessionNotFound", "message": "session 'talk' not found; did you mean 'talks'?"}
    assert [path.name for path in home.glob("sessions/*.json")] == ["talks.json"]


def test_another_users_session_is_read_by_administrators_and_changed_by_nobody(cli: Cli) -> None:
    say("bobs", "Hello!", user_id="bob")
    assert "User:       bob" in cli("session", "show", "bobs").out
    assert cli("session", "show", "bobs", "--user", "carol").status == 1
    done = cli("session", "delete", "bobs", "--yes")
    assert done.status == 1
    assert "user 'bob' has one: say --user" in done.err
    say("bobs", "Hello!", user_id="carol")
    done = cli("session", "show", "bobs")
    assert done.status == 1
    assert "--user" in done.err
    assert cli("session", "delete", "bobs", "--yes", "--user", "bob").status == 0
    assert said("bobs", "carol") == ["Hello!"]


@pytest.mark.parametrize("session_id", STRANGE_IDS)
def test_every_id_works_in_every_command(cli: Cli, session_id: str) -> None:
    started = cli("session", "start", "--user", "a b", "--", session_id)
    assert started.status == 0
    hint = started.err.partition("Go on with it: praisonai ")[2]
    resumed = shell(f"$P --json {hint.strip()} < /dev/null")
    assert resumed.json()["session"]["session_id"] == session_id
    assert cli("session", "show", "--json", "--user", "a b", "--", session_id).json()["session_id"] == session_id
    assert [line[0] for line in cli("session", "list", "--user", "a b").lines()] == [session_id]
    assert cli("session", "delete", "--yes", "--user", "a b", "--", session_id).status == 0
    assert cli("session", "list", "--user", "a b", "--json").json() == {"sessions": []}


@pytest.mark.parametrize("session_id", ["", "x" * 1025, "two\nlines"])
def test_an_id_that_can_name_nothing_is_an_error(cli: Cli, session_id: str) -> None:
    error = cli("session", "start", "--json", "--", session_id).json()["error"]
    assert error["type"] == "InvalidId"


# --- show and delete ---


def test_show_in_a_pipe_repeats_what_was_said_exactly(cli: Cli) -> None:
    store = get_default_session_store()
    say("talk", "one", "two \x1b[31mred")
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    store.add_message("talk", "assistant", None, tool_calls=[call])
    store.add_message("talk", "tool", "3", tool_call_id="c1")
    details, _, messages = cli("session", "show", "talk", "--messages", "3").out.partition("\n\n")
    assert dict(line.split(":", 1) for line in details.splitlines())["Messages"].strip() == "4"
    assert messages == '[user] two \x1b[31mred\n[assistant] -> add({"a":1})\n[tool] 3\n'
    assert cli("session", "show", "talk", "-n", "0").out == details + "\n"


def test_show_as_json_is_the_whole_session(cli: Cli) -> None:
    cli("session", "start", "talk", "--llm", "offline", stdin=b"My name is Alice\n")
    shown = cli("session", "show", "talk", "--json", "-n", "1").json()
    assert [message["role"] for message in shown["chat_history"]] == ["user", "assistant"]
    assert shown["model"] == "offline"
    assert shown["usage"]["requests"] == 1
    assert (shown["session_id"], shown["user_id"]) == ("talk", "default_user")
    assert (shown["message_count"], shown["found"], shown["state"]) == (2, True, {})
    assert shown["created_at"] < shown["updated_at"]


def test_delete_needs_a_yes(cli: Cli) -> None:
    say("one", "Hello!")
    say("two", "Hello!")
    assert cli("session", "delete", "one", stdin=b"y\n").status == 2
    assert cli("session", "delete", "one", "-y") == Done(0, "Deleted session: one\n", "")
    assert cli("session", "delete", "two", "--yes", "--json").json() == {"deleted": True, "session_id": "two"}
    assert cli("session", "list", "--json").json() == {"sessions": []}


# --- search ---


@pytest.fixture
def found_in() -> None:
    """Three sessions of two users in which somebody spoke of a café."""
    say("talk", "Hello!", "We met in the Café of the\tmuseum")
    get_default_session_store().update_session_metadata("talk", title="About places")
    say("other", "cafe and cake", "nothing of it here")
    say("bobs", "No CAFÉ today", user_id="bob")


@pytest.mark.usefixtures("found_in")
def test_search_in_a_pipe_is_a_line_a_hit(cli: Cli) -> None:
    times = {
        session_id: get_default_session_store().search("cafe", all_users=True)[index].when
        for index, session_id in enumerate(["bobs", "other", "talk"])
    }
    assert cli("session", "search", "CAFE").lines() == [
        ["other", "0", "user", times["other"], "cafe and cake"],
        ["talk", "1", "user", times["talk"], "We met in the Café of the museum"],
    ]
    assert [line[:3] for line in cli("session", "search", "café", "--all-users").lines()] == [
        ["bobs", "bob", "0"],
        ["other", "default_user", "0"],
        ["talk", "default_user", "1"],
    ]
    assert [line[0] for line in cli("session", "search", "cafe", "--user", "bob").lines()] == ["bobs"]
    assert [line[0] for line in cli("session", "search", "museum cafe").lines()] == ["talk"]
    assert cli("session", "search", "museum", "cafe").lines() == cli("session", "search", "cafe museum").lines()
    assert [line[0] for line in cli("session", "search", "muse*").lines()] == ["talk"]
    assert [line[0] for line in cli("session", "search", "-n", "1", "cafe").lines()] == ["other"]


@pytest.mark.usefixtures("found_in")
def test_search_as_json(cli: Cli) -> None:
    found = cli("session", "search", "museum", "--json").json()
    assert found["complete"] is True
    [hit] = found["hits"]
    [message_id] = [m.id for m in get_default_session_store().messages("talk") if "museum" in m.text()]
    assert hit.pop("when").startswith("20")
    assert hit == {
        "session_id": "talk",
        "user_id": "default_user",
        "message_index": 1,
        "message_id": message_id,
        "role": "user",
        "snippet": "We met in the Café of the museum",
        "title": "About places",
        "agent_name": None,
    }


@pytest.mark.usefixtures("found_in")
def test_a_search_that_finds_nothing_worked(cli: Cli) -> None:
    assert cli("session", "search", "cafeteria") == Done(0, "", "Nothing found.\n")
    assert cli("session", "search", "cafeteria", "--json").json() == {"hits": [], "complete": True}


@pytest.mark.usefixtures("found_in")
def test_a_search_that_stopped_early_says_so(cli: Cli) -> None:
    get_default_session_store().append("long", [SessionMessage("user", "not this one")] * scan.BUDGET)
    say("newest", "I am at the cafe")
    done = cli("session", "search", "cafe")
    assert (done.status, [line[0] for line in done.lines()]) == (0, ["newest"])
    assert done.err.startswith("Not everything was looked at: ")
    assert cli("session", "search", "cafe", "--json").json()["complete"] is False


# --- other places ---

COMMANDS = [
    ["session", "list"],
    ["session", "show", "talk"],
    ["session", "start", "talk"],
    ["session", "resume", "talk"],
    ["session", "resume", "talk", "Hello!"],
    ["session", "search", "elsewhere"],
    ["session", "delete", "talk", "--yes"],
    ["run", "Hello!", "--session", "talk"],
]


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    """The URL of another place, in which there is one session, `talk`."""
    url = f"file://{tmp_path}/another place"
    with open_store(url) as store:
        store.add_user_message("talk", "Said elsewhere")
    return url


def talks(url: str) -> list[Any]:
    with open_store(url) as store:
        return [message["content"] for message in store.get_chat_history("talk")]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_db_is_where_the_sessions_are(cli: Cli, elsewhere: str, home: Path, arguments: list[str]) -> None:
    before = talks(elsewhere)
    done = cli(*arguments, "--db", elsewhere, "--json")
    assert done.status == 0
    assert "talk" in str(done.json())
    assert not home.exists()
    changed = {"delete": [], "Hello!": [*before, "Hello!"]}
    expected = next((after for word, after in changed.items() if word in arguments), before)
    assert talks(elsewhere)[: len(expected)] == expected
    assert bool(talks(elsewhere)) is bool(expected)


def test_db_is_accepted_before_and_after_the_commands_name(cli: Cli, elsewhere: str) -> None:
    wrong = "memory://"
    for arguments in (
        ["--db", elsewhere, "show", "talk"],
        ["show", "--db", elsewhere, "talk"],
        ["show", "talk", "--db", elsewhere],
        ["--db", wrong, "show", "talk", "--db", elsewhere],
        ["show", "talk", "--db", wrong, "--db", elsewhere],
    ):
        assert cli("session", *arguments).out.endswith("[user] Said elsewhere\n")
    done = cli("session", "--db", elsewhere, "show", "talk", "--db", wrong)
    assert (done.status, "not found" in done.err) == (1, True)


def test_the_environment_names_the_default_place(
    cli: Cli, elsewhere: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRAISONAI_DB_URL", elsewhere)
    assert [line[0] for line in cli("session", "list").lines()] == ["talk"]
    assert cli("session", "list", "--db", "memory://").out == ""
    assert cli("session", "start", "new").err.endswith("praisonai session resume new\n")
    assert not home.exists()


def test_an_environment_that_makes_no_sense_is_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRAISONAI_DB_URL", "mysql://u:sk-secret@host")
    done = cli("session", "list")
    assert (done.status, done.out) == (1, "")
    assert "no storage engine serves 'mysql'" in done.err
    assert "sk-secret" not in done.err
    assert cli("session", "list", "--json").json()["error"]["type"] == "UnknownEngine"


def test_what_is_proposed_leads_to_the_same_place(cli: Cli, elsewhere: str) -> None:
    started = cli("session", "start", "--user", "a b", "--db", elsewhere, "it's")
    hint = started.err.partition("Go on with it: praisonai ")[2]
    assert f"--db '{elsewhere}'" in hint
    assert shell(f"$P --json {hint.strip()} < /dev/null").json()["session"]["session_id"] == "it's"
    lost = cli("session", "show", "nobody's", "--db", elsewhere).err
    assert f"praisonai session list --db '{elsewhere}' shows what there is" in lost
    empty = cli("session", "list", "--db", f"{elsewhere}/empty").err
    assert f"praisonai session start --db '{elsewhere}/empty' my-session" in empty


# --- run ---


def test_run_keeps_nothing_unless_given_a_session(cli: Cli, home: Path) -> None:
    assert cli("run", "My name is Alice").status == 0
    assert not home.exists()
    assert cli("run", "My name is Alice", "-s", "talk", "--instructions", "Be brief.").status == 0
    assert "Alice" in cli("run", "What's my name?", "--session", "talk").out
    assert said("talk") == ["My name is Alice", "What's my name?"]


def test_run_takes_all_of_its_input_as_one_prompt(cli: Cli) -> None:
    done = cli("run", "--session", "talk", "--json", stdin="My name is\r\nZoë\n".encode())
    assert done.json()["session_id"] == "talk"
    assert said("talk") == ["My name is\r\nZoë"]
    assert cli("run", "Hello!", "--json").json()["session_id"] is None


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("status", "shown"), [(401, "check the key"), (404, "check the model's name"), (500, "HTTP 500")]
)
def test_a_model_that_fails_ends_the_talk(cli: Cli, monkeypatch: pytest.MonkeyPatch, status: int, shown: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("PRAISONAI_MODEL", "gpt-4o-mini")
    lines = b"one\ntwo\nnever said\n"
    with ScriptedLLM([Say("First."), Fail(status, "sk-secret"), Say("First."), Fail(status, "sk-secret")]) as llm:
        monkeypatch.setenv("OPENAI_BASE_URL", llm.openai_url)
        done = cli("session", "start", "talk", stdin=lines)
        assert (done.status, done.out) == (1, "First.\n")
        assert shown in done.err
        assert "sk-secret" not in done.err
        done = cli("session", "start", "talk", "--json", stdin=lines)
    answer, error = map(json.loads, done.out.splitlines())
    assert (done.status, answer["response"], error["error"]["type"]) == (1, "First.", "ModelError")
    assert said("talk") == ["one", "two"] * 2


def test_a_model_that_cannot_be_reached(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRAISONAI_MODEL", "gpt-4o-mini")
    with ScriptedLLM([]) as llm:
        monkeypatch.setenv("OPENAI_BASE_URL", llm.openai_url)
    done = cli("run", "Hello!", "--json")
    assert (done.status, done.json()["error"]["type"]) == (1, "ModelUnreachable")


@pytest.mark.parametrize("arguments", [["start", "talk"], ["show", "talk"], ["delete", "talk", "--yes"]], ids=" ".join)
def test_a_home_that_is_no_folder(cli: Cli, home: Path, arguments: list[str]) -> None:
    home.write_text("not a folder")
    done = cli("session", *arguments)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"Error: {home}")
    assert cli("session", *arguments, "--json").json()["error"]["type"] == "StorageError"


def test_damage_is_a_warning_in_one_line() -> None:
    say("talk", "one", "two")
    say("whole", "one")
    path = Path(get_default_session_store().session_dir, "talk.json")
    path.write_bytes(path.read_bytes().replace(b'"two"', b'"two'))
    done = process("session", "show", "talk")
    assert done.status == 0
    assert "[user] one" in done.out
    [line] = done.err.splitlines()
    assert line.startswith(f"Warning: {path}: ")
    assert process("session", "show", "whole").err == ""


# --- the process ---


def test_streams_may_be_closed_or_full() -> None:
    say("talk", "Hello!" * 50_000)
    assert shell("$P session start new <&-").status == 0
    assert shell("$P session list >&-") == Done(0, "", "")
    assert shell("$P session show nobodys 2>&-") == Done(1, "", "")
    assert shell("$P session list > /dev/full") == Done(1, "", "Error: No space left on device\n")
    assert shell("$P session show talk | head -1") == Done(0, "Session ID: talk\n", "")
    assert shell("$P session show talk --json | head -c 1") == Done(0, "{", "")


def test_a_poor_locale_loses_nothing_but_looks() -> None:
    say("日本", "Zoë")
    poor = {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    assert process("session", "list", "--json", **poor).json()["sessions"][0]["session_id"] == "日本"
    listed = subprocess.run(command("session", "list"), capture_output=True, env=os.environ | poor, timeout=PATIENCE_S)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert listed.stdout.startswith(rb"\u65e5\u672c")


@pytest.mark.parametrize("options", [[], ["--json"]], ids=" ".join)
def test_ctrl_c_is_130_and_keeps_what_was_said(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setenv("PRAISONAI_MODEL", "gpt-4o-mini")
    with ScriptedLLM([Hang()]) as llm:
        monkeypatch.setenv("OPENAI_BASE_URL", llm.openai_url)
        think = command("run", "Think!", "-s", "talk", *options)
        with subprocess.Popen(think, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            llm.wait_until_hanging()
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130
    assert (json.loads(out)["error"]["type"] if options else err.split()) == (
        "Interrupted" if options else ["Interrupted."]
    )
    messages = get_default_session_store().messages("talk")
    assert [(message.role, message.status) for message in messages] == [("user", None), ("assistant", "interrupted")]


LIST = """
import sys
from praisonaiagents.cli.main import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("options", [[], ["--json"], ["--all-users", "--limit", "3"]], ids=" ".join)
def test_listing_loads_little(options: list[str]) -> None:
    """Not what is slow to load and of no use for a list, however the list is printed."""
    say("talk", "Hello!")
    listing = [sys.executable, "-c", LIST, "session", "list", *options]
    done = subprocess.run(listing, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, "talk" in done.stdout) == (0, True)
    loaded = set(done.stderr.split())
    assert "praisonaiagents.cli.sessions" in loaded
    slow = "asyncio concurrent dataclasses difflib hashlib importlib.metadata logging shutil socket sqlite3 ssl"
    slow += " subprocess tempfile pydantic pydantic_ai prompt_toolkit rich praisonaiagents.agent"
    slow += " praisonaiagents.cli.chat praisonaiagents.cli.run"
    assert loaded & set(slow.split()) == set()
