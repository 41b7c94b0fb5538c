"""The engine that the documentation shows: it is taken from there, keeps the contract, and is installed as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "how-to" / "add-an-engine.md"
PATIENCE_S = 300


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the document's modules, each in the file that its first line names."""
    shown = re.findall(r"^```py\n# (\w+\.py)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in shown] == ["journal_engine.py", "test_journal_engine.py"]
    folder = tmp_path / "package"
    folder.mkdir()
    for name, code in shown:
        (folder / name).write_text(code)
    return folder


def run(package: Path, *arguments: str) -> str:
    """What a new Python process prints that has the package on its path."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")]),
        "PRAISONAI_MODEL": "offline",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=package,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(package: Path) -> None:
    """Write the metadata that pip would make of the document's `pyproject.toml`."""
    [toml] = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    [(group, engines)] = tomllib.loads(toml)["project"]["entry-points"].items()
    info = package / "journal_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: journal-engine\nVersion: 1.0\n")
    lines = "\n".join(f"{scheme} = {value}" for scheme, value in engines.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")


def test_the_engine_keeps_the_contract(package: Path) -> None:
    """In a process of its own: the contract is then run as its reader would run it."""
    told = run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "test_journal_engine.py")
    passed = re.search(r"(\d+) passed in", told)
    assert passed is not None
    assert int(passed[1]) > 400
    assert "skipped" not in told


def test_the_engine_is_found_by_its_scheme_as_soon_as_it_is_installed(package: Path, tmp_path: Path) -> None:
    install(package)
    url = f"journal://{tmp_path}/sessions.journal"
    talk = (
        f"from praisonaiagents import Agent\nwith Agent('A', memory={{'session_id': 's', 'db': {url!r}}}) as agent:\n"
    )
    run(package, "-c", f"{talk}    agent.chat('My name is Alice')")
    assert "Alice" in run(package, "-c", talk + '    print(agent.chat("What\'s my name?"))')
    assert run(package, "-m", "praisonaiagents.cli", "session", "list", "--db", url).startswith("s\t")
    assert run(package, "-m", "praisonaiagents.cli", "session", "search", "alice", "--db", url).startswith("s\t")
    assert f"  Place:      {tmp_path}/sessions.journal\n" in run(
        package, "-m", "praisonaiagents.cli", "doctor", "--db", url
    )


def test_a_line_that_a_crash_cut_off_is_as_if_it_had_never_been(package: Path, tmp_path: Path) -> None:
    code = """
import sys
from journal_engine import JournalEngine
from praisonaiagents.session import SessionStore

store = SessionStore(JournalEngine(sys.argv[1]))
store.add_user_message("s", sys.argv[2])
print(*(turn["content"] for turn in store.get_chat_history("s")))
"""
    journal = tmp_path / "journal"
    run(package, "-c", code, str(journal), "one")
    whole = journal.read_bytes()
    assert run(package, "-c", code, str(journal), "lost") == "one lost\n"
    torn = journal.read_bytes()
    for size in (len(whole) + 1, (len(whole) + len(torn)) // 2, len(torn) - 1):
        journal.write_bytes(torn[:size])
        assert run(package, "-c", code, str(journal), "two") == "one two\n"
