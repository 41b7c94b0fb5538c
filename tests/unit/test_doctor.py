"""`praisonai doctor`: what it looks at, what it says is wrong, what to do, and that it leaves nothing behind.

The databases have their own tests, in e2e/test_cli_databases.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from praisonaiagents import __version__
from praisonaiagents.cli import doctor
from praisonaiagents.cli.main import praisonai
from praisonaiagents.session import get_default_session_store
from praisonaiagents.storage.registry import ENTRY_POINTS

PATIENCE_S = 60
SECRET = "sk-very-secret"
WITHOUT_ROOT_POWERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Root writes everywhere; a process started through this does not."""


class Looked(NamedTuple):
    """What the doctor said: everything, and by name what it said of each place."""

    status: int
    told: dict[str, Any]
    places: dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES_URL", "DATABASE_URL", "REDIS_URL", "PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


def look(*arguments: str) -> Looked:
    done = CliRunner().invoke(praisonai, ["doctor", "--json", *arguments])
    assert done.stderr == ""
    return looked(done.exit_code, done.stdout)


def looked(status: int, out: str) -> Looked:
    [line] = out.splitlines()
    assert SECRET not in line
    told = json.loads(line)
    places = {place["name"].partition(" ")[0]: place for place in told["places"]}
    assert len(places) == len(told["places"])
    assert told["ok"] is all(place["ok"] for place in told["places"]) is (status == 0)
    return Looked(status, told, places)


def look_without_root_powers(*arguments: str) -> Looked:
    command = [*WITHOUT_ROOT_POWERS, sys.executable, "-m", "praisonaiagents.cli", "doctor", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stderr == ""
    return looked(done.returncode, done.stdout)


def tree(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


# Where nothing is, and where something is


def test_where_nothing_is_nothing_is_made(home: Path, tmp_path: Path) -> None:
    found = look("--db", f"file://{tmp_path}/a/b/c")
    assert found.status == 0
    assert found.places["default"]["place"] == f"{home}/sessions"
    for place in found.places.values():
        assert place["note"] == "nothing is there yet; the first session makes it"
        assert place["append_ms"] is None
    assert list(tmp_path.iterdir()) == []
    assert found.told["not_configured"] == ["SQLite", "PostgreSQL", "Redis"]


def test_a_folder_is_described_and_tried_and_left_as_it_was(home: Path) -> None:
    get_default_session_store().add_user_message("talk", "Hello!")
    before = tree(home)
    place = look().places["default"]
    assert (place["ok"], place["problem"], place["advice"], place["note"]) == (True, None, None, None)
    assert place["place"] == f"{home}/sessions"
    assert place["append_ms"] > 0
    assert place["facts"].keys() >= {"engine", "schema", "durability"}
    assert tree(home) == before


def test_the_folders_of_users_stay(home: Path) -> None:
    get_default_session_store().add_user_message("talk", "Hello!")
    (home / "sessions" / "users").mkdir()
    before = tree(home)
    assert look().status == 0
    assert tree(home) == before
    get_default_session_store().add_user_message("talk", "Hello!", user_id="bob")
    before = tree(home)
    assert look().status == 0
    assert tree(home) == before


def test_nothing_is_left_behind_when_an_append_fails(home: Path) -> None:
    get_default_session_store().add_user_message("talk", "Hello!")
    before = tree(home)
    code = (
        "import resource, sys; from praisonaiagents.cli.main import main; sys.argv = ['praisonai', 'doctor', '--json'];"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    place = looked(done.returncode, done.stdout).places["default"]
    assert "no room left" in place["problem"]
    assert "space" in place["advice"]
    assert tree(home) == before


def test_versions_are_told() -> None:
    about = look().told["about"]
    assert about["praisonaiagents"] == __version__
    assert about["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert isinstance(about["fts5"], bool)
    assert about["extras"]["redis"].startswith("redis ")
    assert about["extras"].keys() >= {"postgres", "redis", "anthropic"}


# What the environment says


def test_the_environment_says_what_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRAISONAI_DB_URL", "memory://")
    monkeypatch.setenv("POSTGRES_URL", f"postgresql://u:{SECRET}@127.0.0.1:1/db")
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/not_used")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    found = look("--db", "memory://other", "--db", "memory://")
    assert list(found.places) == ["PRAISONAI_DB_URL", "POSTGRES_URL", "REDIS_URL", "--db"]
    assert found.places["PRAISONAI_DB_URL"]["facts"]["engine"] == "memory"
    assert found.told["not_configured"] == ["SQLite"]


def test_a_variable_that_makes_no_sense_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql:user:{SECRET}@host")
    monkeypatch.setenv("PRAISONAI_DB_URL", f"mysql://user:{SECRET}@host")
    found = look()
    assert found.status == 1
    assert "begins with 'postgresql://'" in found.places["DATABASE_URL"]["problem"]
    assert "no storage engine serves 'mysql'" in found.places["PRAISONAI_DB_URL"]["problem"]
    for name, place in found.places.items():
        assert place["advice"] == f"correct the URL in {name}"
    assert look("--db", f"mysql://user:{SECRET}@elsewhere").places["--db"]["advice"] == "correct the URL in --db"


def test_somebody_elses_database_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://localhost/shop")
    assert list(look().places) == ["default"]


# What is wrong


def test_a_folder_that_may_not_be_written_to(home: Path) -> None:
    get_default_session_store().add_user_message("talk", "Hello!")
    (home / "sessions").chmod(0o500)
    place = look_without_root_powers().places["default"]
    (home / "sessions").chmod(0o700)
    assert place["ok"] is False
    assert "Permission denied" in place["problem"]
    assert "the right to write" in place["advice"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(0o500)
    (tmp_path / "file").write_text("")
    for above in ("closed", "file"):
        place = look_without_root_powers("--db", f"file://{tmp_path}/{above}/x/y").places["--db"]
        assert place["problem"] == f"it cannot be made: {tmp_path}/{above} is no folder to write in"
        assert "the right to write" in place["advice"]


BROKEN = f"""
import time
from praisonaiagents.storage.memory import MemoryEngine

def fails(url):
    raise RuntimeError("{SECRET}")

class Hangs(MemoryEngine):
    def __init__(self, url):
        super().__init__()

    def describe(self):
        time.sleep(600)
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with engines that do not work."""
    folder = tmp_path / "packages"
    info = folder / "broken_engines-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "broken_engines.py").write_text(BROKEN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-engines\nVersion: 1.0\n")
    engines = "fails = broken_engines:fails\nhangs = broken_engines:Hangs\nlost = no_such_module:open_url\n"
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{engines}")
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.usefixtures("broken")
def test_an_engine_of_another_package_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look("--db", "fails://").places["--db"]["problem"] == "the engine failed with RuntimeError"
    assert "the engine 'lost' of broken-engines 1.0" in look("--db", "lost://").places["--db"]["problem"]
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.1)
    hanging = look("--db", f"hangs://user:{SECRET}@host").places["--db"]
    assert hanging["problem"].startswith("no answer within ")
    assert hanging["place"] == "hangs://user:***@host"


# For people


@pytest.mark.usefixtures("broken")
def test_people_are_told_in_lines(home: Path) -> None:
    get_default_session_store().add_user_message("talk", "Hello!")
    done = CliRunner().invoke(praisonai, ["doctor"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"praisonaiagents: {__version__}\n" in done.stdout
    assert f"\ndefault place: all well\n  Place:      {home}/sessions\n" in done.stdout
    assert " ms, the median of 5\n" in done.stdout
    assert "PostgreSQL: not configured (set POSTGRES_URL, or give --db)\n" in done.stdout
    assert done.stdout.endswith("\nAll well.\n")
    done = CliRunner().invoke(praisonai, ["doctor", "--db", f"fails://u:{SECRET}@host"])
    assert (done.exit_code, done.stderr) == (1, "")
    wrong = done.stdout.partition("\n--db fails://u:***@host: ")[2]
    assert wrong.startswith("something is wrong\n  Place:   fails://u:***@host\n  Problem: the engine failed with")
    assert "\n  To do:   report it" in wrong
    assert wrong.endswith("1 of 2 places: something is wrong.\n")
