"""`praisonai session purge` and `verify`: what they print, for people and for programs, and their exit codes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from test_cli import Cli, cli, offline, process, said, say  # noqa: F401 - the fixtures that call `main` in this process

from praisonaiagents.memory.memory import Memory
from praisonaiagents.session import get_default_session_store

pytestmark = pytest.mark.usefixtures("home")
SECRET = "Wonderland-7319"


# --- purge ---


def test_a_user_is_erased_and_what_was_checked_is_told(cli: Cli, home: Path) -> None:  # noqa: F811
    say("main", f"I was in {SECRET}", "again", user_id="alice")
    say("main", "me too", user_id="bob")
    done = cli("session", "purge", "--user", "alice", "--yes")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "Erased 1 session of user alice: main"
    assert lines[1].startswith("2 messages, ")
    assert f"- files in {home / 'sessions'} (" in done.out
    assert "Nothing is left there." in lines
    assert "What only an operator can do:" in lines
    assert "backups" in lines[-2]
    assert SECRET not in done.out
    assert said("main", "bob") == ["me too"]
    again = cli("session", "purge", "--user", "alice", "--yes")
    assert (again.status, again.out.splitlines()[0]) == (0, "Erased 0 sessions of user alice: none was there")


def test_programs_get_all_of_it(cli: Cli, home: Path) -> None:  # noqa: F811
    say("main", f"I was in {SECRET}")
    say("other", f"I was in {SECRET}")
    done = cli("session", "purge", "--session", "main", "--yes", "--json")
    told = done.json()
    assert done.status == 0
    assert (told["user_id"], told["sessions"], told["message_count"]) == ("default_user", ["main"], 1)
    assert (told["clean"], told["left"], told["problem"]) == (True, [], None)
    assert told["bytes"] > 50
    assert told["samples"] > told["said_elsewhere"] > 0
    assert told["checked"][0]["place"] == f"files in {home / 'sessions'}"
    assert told["for_operators"]
    assert said("other") == [f"I was in {SECRET}"]
    assert "keeps its title" in told["notes"][0]
    say("main", "again")
    assert "Note: other sessions may still name it" in cli("session", "purge", "--session", "main", "--yes").out


def test_a_trace_is_told_by_the_exit_code(cli: Cli, home: Path) -> None:  # noqa: F811
    say("main", f"I was in {SECRET}", user_id="alice")
    copy = home / "sessions" / "users" / "alice" / "main.bak"
    copy.write_bytes((copy.parent / "main.json").read_bytes())
    done = cli("session", "purge", "--user", "alice", "--yes")
    assert done.status == 1
    assert "Something is left:" in done.out
    assert "text of a message or a session, in files in" in done.out
    assert ": users/alice/main.bak" in done.out
    assert SECRET not in done.out
    copy.unlink()
    assert cli("session", "purge", "--user", "alice", "--yes").status == 0


def test_what_could_not_be_forgotten_is_told_by_the_exit_code(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    url = f"sqlite:///{tmp_path}/s.db?lock_timeout=0.2"
    cli("run", f"I was in {SECRET}", "--session", "main", "--db", url)
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM message").fetchone()
        done = cli("session", "purge", "--session", "main", "--yes", "--db", url)
    assert done.status == 1
    assert "Not proved: the storage could not be made to forget: could not lock" in done.out
    assert cli("session", "purge", "--session", "main", "--yes", "--db", url, "--json").json()["clean"] is True


def test_nobody_is_erased_by_mistake(cli: Cli) -> None:  # noqa: F811
    say("main", "hello", user_id="alice")
    nobody = cli("session", "purge", "--yes")
    assert (nobody.status, "--user" in nobody.err) == (2, True)
    unasked = cli("session", "purge", "--user", "alice")
    assert (unasked.status, "--yes" in unasked.err) == (2, True)
    assert cli("session", "purge", "--user", "alice", "--json").json()["error"]["type"] == "UsageError"
    foreign = cli("session", "purge", "--session", "main", "--yes")
    assert (foreign.status, "user 'alice' has one" in foreign.err) == (1, True)
    assert said("main", "alice") == ["hello"]


# --- verify ---


def test_what_is_whole_is_said_in_one_line(cli: Cli) -> None:  # noqa: F811
    say("main", "zero", "one")
    say("main", "two", user_id="alice")
    assert cli("session", "verify") == cli("session", "verify", "--all")
    assert cli("session", "verify").out == "1 session, 2 messages read: nothing is damaged.\n"
    assert cli("session", "verify", "--all-users").out == "2 sessions, 3 messages read: nothing is damaged.\n"
    assert cli("session", "verify", "main", "--user", "alice", "--json").json() == {
        "ok": True,
        "sessions": 1,
        "message_count": 1,
        "findings": [],
    }


def test_damage_is_told_with_what_can_be_done(cli: Cli, home: Path) -> None:  # noqa: F811
    say("main", "zero", "one")
    path = home / "sessions" / "main.json"
    path.write_bytes(
        path.read_bytes().replace(b'{"role":"user","content":"zero"', b'{"role":"us\xffer","content":"zero"')
    )
    done = cli("session", "verify")
    assert (done.status, done.err) == (1, "")
    first, second, last = done.out.splitlines()
    assert first.startswith(f"Damage: session main of user default_user: {path}: ")
    assert first.endswith("bytes cannot be read, 1 message can be read")
    assert "the next change of the session writes it anew" in second
    assert last == "1 session, 0 messages read: 1 thing is damaged."
    told = cli("session", "verify", "main", "--json")
    assert (told.status, told.json()["ok"]) == (1, False)
    [finding] = told.json()["findings"]
    assert (finding["kind"], finding["session_id"], finding["user_id"]) == ("damage", "main", "default_user")
    assert "Warning: " in process("session", "show", "main").err  # reading mends it
    mended = cli("session", "verify")
    assert mended.status == 0
    assert mended.out.startswith("Note: 1 file with what could not be read, set aside earlier\n")


def test_a_verify_asked_wrongly_says_how(cli: Cli) -> None:  # noqa: F811
    say("main", "zero")
    done = cli("session", "verify", "mian")
    assert (done.status, "did you mean 'main'?" in done.err) == (1, True)
    assert cli("session", "verify", "main", "--all-users").status == 2
    assert cli("session", "verify", "main", "--all").status == 2


def test_what_is_remembered_of_a_user_goes_too(cli: Cli, home: Path) -> None:  # noqa: F811
    for user, place in (("alice", "Lima"), ("bob", "Quito")):
        get_default_session_store().add_user_message("s", "Hello", user_id=user)
        with Memory(user, "s") as memory:
            memory.add(f"{user} likes opal tea")
            memory.add(f"Is in {place} now", session_only=True)

    def left() -> bytes:
        return b"".join(path.read_bytes() for path in home.glob("memory.db*")).lower()

    assert cli("session", "purge", "--user", "bob", "--session", "s", "--yes", "--json").json()["memories"] == 1
    assert b"quito" not in left()
    assert b"lima" in left()
    shown = cli("session", "purge", "--user", "alice", "--yes")
    assert "What was remembered in the data folder: 2 items" in shown.out
    assert b"alice" not in left()
    assert b"bob likes opal tea" in left()


def test_what_was_learnt_in_a_session_goes_with_it(cli: Cli, home: Path) -> None:  # noqa: F811
    for session, text in (("mon", "My name is Zoe and I live in Lisbon"), ("tue", "My name is Zoe")):
        assert cli("run", text, "--session", session, "--remember", "--user", "zoe").status == 0
    assert cli("session", "purge", "--user", "zoe", "--session", "mon", "--yes").status == 0
    [left] = cli("memory", "list", "--user", "zoe", "--json").json()["memories"]
    assert (left["text"], [source["session_id"] for source in left["sources"]]) == ("The user's name is Zoe", ["tue"])
    assert b"isbon" not in b"".join(path.read_bytes() for path in home.glob("memory.db*"))
