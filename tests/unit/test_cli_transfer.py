"""`praisonai session export`, `session import` and `migrate`: what is printed where, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from praisonaiagents.cli.main import main
from praisonaiagents.errors import SessionNotFound
from praisonaiagents.model.record import Key
from praisonaiagents.session import HierarchicalSessionStore, get_default_session_store, open_store, transfer
from praisonaiagents.session.parts import outline
from praisonaiagents.storage.engine import Engine


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The one JSON document that was printed."""
        [line] = self.out.splitlines()
        return json.loads(line)


Cli = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`cli(*arguments)` runs `praisonai` in this process, with pipes for its streams."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["praisonai", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b""), "utf-8"))
        with pytest.raises(SystemExit) as ended:
            main()
        status = ended.value.code
        assert isinstance(status, int)
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture
def store() -> HierarchicalSessionStore:
    store = HierarchicalSessionStore.of(get_default_session_store())
    store.create_session("s", title="About 1 < 2")
    store.add_user_message("s", "is 1 < 2?")
    store.create_snapshot("s", "early")
    store.add_assistant_message("s", "Yes.")
    store.revert("s", "early")
    store.undo("s")
    return store


def test_what_is_exported_is_imported(cli: Cli, store: HierarchicalSessionStore, tmp_path: Path) -> None:
    exported = cli("session", "export", "s")
    assert (exported.status, exported.err, json.loads(exported.out)["session_id"]) == (0, "", "s")
    (tmp_path / "s.json").write_text(exported.out)
    imported = cli("session", "import", str(tmp_path / "s.json"), "--as", "t")
    assert (imported.status, imported.out) == (0, "Imported session: t (2 messages)\n")
    again = cli("session", "export", "t")
    assert again.out == exported.out.replace('"session_id": "s"', '"session_id": "t"')


def test_a_session_is_written_to_a_file_that_only_its_owner_reads(
    cli: Cli, store: HierarchicalSessionStore, tmp_path: Path
) -> None:
    for ending, begins in {
        "json": "{\n",
        "jsonl": '{"format"',
        "md": "# About",
        "html": "<!DOCTYPE",
        "txt": "{\n",
    }.items():
        path = tmp_path / f"out.{ending}"
        done = cli("session", "export", "s", "-o", str(path))
        assert (done.status, done.out) == (0, "")
        assert path.read_text().startswith(begins)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    done = cli("session", "export", "s", "--format", "md", "--output", str(tmp_path / "out.html"), "--json")
    assert done.json()["format"] == "md"
    assert (tmp_path / "out.html").read_text().startswith("# About")
    assert sorted(os.listdir(tmp_path)) == ["out.html", "out.json", "out.jsonl", "out.md", "out.txt", "praisonai"]
    assert cli("session", "export", "s", "-o", "/dev/null").status == 0
    for impossible in (tmp_path, tmp_path / "missing" / "x.json"):
        done = cli("session", "export", "s", "-o", str(impossible))
        assert (done.status, str(impossible) in done.err) == (1, True)


def test_files_of_others_stay_and_nothing_of_a_failed_export_does(
    cli: Cli, store: HierarchicalSessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / f"out.json.{os.getpid()}.tmp"
    theirs.write_text("theirs")
    (tmp_path / "out.json").write_text("before")
    assert cli("session", "export", "s", "-o", str(tmp_path / "out.json")).status == 0
    assert (theirs.read_text(), json.loads((tmp_path / "out.json").read_text())["session_id"]) == ("theirs", "s")
    monkeypatch.setattr(transfer, "to_json", refusing)
    (tmp_path / "out.json").write_text("before")
    assert cli("session", "export", "s", "-o", str(tmp_path / "out.json")).status == 1
    assert (tmp_path / "out.json").read_text() == "before"
    assert cli("session", "export", "s", "-o", str(tmp_path / ("long" * 60))).status == 1
    assert sorted(os.listdir(tmp_path)) == ["out.json", theirs.name, "praisonai"]


def refusing(engine: Engine, key: Key) -> Iterator[bytes]:
    yield b"{"
    raise SessionNotFound(key.session_id)


def test_whose_session_it_became_is_told(cli: Cli, tmp_path: Path) -> None:
    theirs = {"session_id": "theirs", "user_id": "alice", "messages": [{"role": "user", "content": "a"}]}
    (tmp_path / "theirs.json").write_text(json.dumps(theirs))
    file = str(tmp_path / "theirs.json")
    assert cli("session", "import", file).out == "Imported session: theirs of user alice (1 message)\n"
    assert cli("session", "import", file, "--user", "").out == "Imported session: theirs (1 message)\n"
    told = " ".join(cli("session", "import", "--help").out.split())
    assert "what is printed says whose it became" in told
    assert "Default: the default user" not in told


def test_exporting_what_is_not_there_says_what_is(cli: Cli, store: HierarchicalSessionStore, tmp_path: Path) -> None:
    store.create_session("other", user_id="alice")
    done = cli("session", "export", "ss", "-o", str(tmp_path / "x"))
    assert (done.status, "did you mean 's'" in done.err) == (1, True)
    assert not (tmp_path / "x").exists()
    assert cli("session", "export", "s", "--user", "alice").status == 1
    assert cli("session", "export", "s", "--format", "pdf").status == 2
    assert cli("session", "export", "nothing", "--json").json()["error"]["type"] == "SessionNotFound"


def test_several_files_are_imported_and_each_failure_is_told(
    cli: Cli, store: HierarchicalSessionStore, tmp_path: Path
) -> None:
    cli("session", "export", "s", "-o", str(tmp_path / "s.jsonl"))
    (tmp_path / "bad.json").write_text("no session: my-secret")
    theirs = {"session_id": "theirs", "user_id": "alice", "messages": [{"role": "user", "content": "a"}]}
    (tmp_path / "theirs.json").write_text(json.dumps(theirs))
    files = [str(tmp_path / name) for name in ("s.jsonl", "bad.json", "theirs.json", "missing.json")]
    done = cli("session", "import", *files)
    assert (done.status, done.out) == (1, "Imported session: theirs of user alice (1 message)\n")
    assert [line.partition(": ")[0] for line in done.err.splitlines()] == ["Error"] * 3
    assert "--as gives it another id" in done.err
    assert "my-secret" not in done.err
    rows = cli("session", "import", *files, "--user", "bob", "--json").json()["imported"]
    assert [row.get("user_id") for row in rows] == ["bob", None, "bob", None]
    assert [row.get("error", {}).get("type") for row in rows] == [None, "NotASessionFile", None, "NotASessionFile"]
    assert cli("session", "import", *files, "--as", "x").status == 2
    assert cli("session", "import").status == 2
    assert cli("session", "import", files[0], "--as", "").status in (1, 2)


def test_damage_in_a_file_is_told_and_the_rest_is_imported(cli: Cli, tmp_path: Path) -> None:
    text = json.dumps({"session_id": "torn", "messages": [{"role": "user", "content": c} for c in "abc"]}, indent=2)
    (tmp_path / "torn.json").write_text(text[: text.index('"c"')])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = cli("session", "import", str(tmp_path / "torn.json"))
    assert done.err.startswith(f"Warning: {tmp_path}/torn.json: ")
    assert "left in place" in done.err
    assert (done.status, done.out) == (0, "Imported session: torn (2 messages)\n")


def test_all_sessions_move_and_a_second_run_finds_them_there(
    cli: Cli, store: HierarchicalSessionStore, home: Path, tmp_path: Path
) -> None:
    store.add_user_message("s", "hers", user_id="alice")
    old, new = str(home / "sessions"), f"sqlite:///{tmp_path}/new.db"
    looked = cli("migrate", "--from", old, "--to", new, "--dry-run")
    assert (looked.status, looked.out) == (0, f"2 to copy (3 messages), from {old} to {new}\n")
    assert not (tmp_path / "new.db").exists()
    assert cli("migrate", "--from", old, "--to", new, "--user", "alice").out.startswith("1 copied (1 messages)")
    assert cli("migrate", "--from", old, "--to", new).out.startswith("1 copied, 1 there already (2 messages)")
    done = cli("migrate", "--from", old, "--to", new, "--json")
    assert (done.status, {row["outcome"] for row in done.json()["sessions"]}) == (0, {"there"})
    with open_store(new) as moved:
        for user in ("default_user", "alice"):
            key = store._key("s", user)
            assert outline(moved.engine, key).fingerprint() == outline(store.engine, key).fingerprint()


def test_what_is_not_copied_is_told_and_the_exit_code_says_so(
    cli: Cli, store: HierarchicalSessionStore, home: Path, tmp_path: Path
) -> None:
    (home / "sessions" / "bad.json").write_text("my-secret")
    store.add_user_message("differs", "my-secret")
    new = f"sqlite:///{tmp_path}/new.db"
    with open_store(new) as there:
        there.add_user_message("differs", "another secret")
    done = cli("migrate", "--from", str(home / "sessions"), "--to", new)
    assert (done.status, done.out.startswith("1 copied, 2 not copied")) == (1, True)
    assert "session differs of user default_user: another one" in done.err
    assert "bad.json" in done.err
    assert "secret" not in done.err + done.out
    done = cli("migrate", "--from", str(home / "sessions"), "--to", new, "--json")
    assert (done.status, sorted(row["outcome"] for row in done.json()["sessions"])) == (
        1,
        ["differs", "failed", "there"],
    )


def test_no_password_is_shown(cli: Cli, home: Path) -> None:
    for arguments in (
        ("--from", "redis://:hunter2@127.0.0.1:1", "--to", "memory://"),
        ("--from", "memory://", "--to", "postgresql://me:hunter2@127.0.0.1:1/db"),
        ("--from", "nosql://me:hunter2@host", "--to", "memory://"),
        ("--from", "memory://", "--to", "postgres:me:hunter2@host"),
    ):
        for form in ((), ("--json",)):
            done = cli("migrate", *arguments, *form)
            assert "hunter2" not in done.out + done.err
            assert done.status in (0, 1, 2)
    assert cli("migrate", "--from", "memory://").status == 2
    assert cli("migrate", "--from", "sqlite:///a.db", "--to", "sqlite:///a.db").status == 2
    assert cli("migrate", "--from", "nosql://x", "--to", "memory://").status == 2


def test_nothing_to_move_is_no_error(cli: Cli, tmp_path: Path) -> None:
    done = cli("migrate", "--from", "memory://", "--to", f"sqlite:///{tmp_path}/x.db")
    assert (done.status, done.out.startswith("no sessions (0 messages)")) == (0, True)


def test_the_places_may_come_from_the_environment(
    cli: Cli, store: HierarchicalSessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRAISONAI_MIGRATE_TO", f"sqlite:///{tmp_path}/one.db")
    assert cli("migrate").out.startswith("1 copied (2 messages)")
    monkeypatch.setenv("PRAISONAI_MIGRATE_FROM", f"sqlite:///{tmp_path}/one.db")
    monkeypatch.setenv("PRAISONAI_MIGRATE_TO", f"sqlite:///{tmp_path}/two.db")
    assert cli("migrate").out.startswith("1 copied (2 messages)")
