"""The page's opening diagram and Quick Start: install, create, resume in another process.

The blocks also run in a fresh virtual environment that holds nothing but our wheel and what it asks for.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from praisonaiagents import Agent
from praisonaiagents.session import get_default_session_store

from .disk import Disk
from .page import TIMEOUT_S, code, covers, run_block, run_command, run_script

REPOSITORY = Path(__file__).parents[2]
SESSION = {"session_id": "my-session-123"}


# ---- the opening diagram ----


@covers("agent-session-management/step-user-to-agent")
def test_what_the_user_says_reaches_the_agent() -> None:
    agent = Agent(name="Assistant", memory=SESSION)
    answer = agent.start("My name is Alice and I love pizza")
    assert isinstance(answer, str)
    assert [(m["role"], m["content"]) for m in agent.chat_history] == [
        ("user", "My name is Alice and I love pizza"),
        ("assistant", answer),
    ]


@covers("agent-session-management/step-agent-to-memory")
def test_the_agent_stores_through_what_memory_says(disk: Disk) -> None:
    Agent(name="Assistant").start("Hello")
    assert disk.files() == set()
    Agent(name="Assistant", memory=SESSION).start("Hello")
    assert disk.sessions() == {"my-session-123.json"}


@covers("agent-session-management/step-memory-to-session-store")
def test_the_session_id_is_where_the_store_has_the_conversation() -> None:
    answer = Agent(name="Assistant", memory=SESSION).start("Hello")
    history = get_default_session_store().get_chat_history("my-session-123")
    assert [m["content"] for m in history] == ["Hello", answer]
    assert get_default_session_store().get_chat_history("another") == []


@covers("agent-session-management/step-session-store-to-resume-later")
def test_what_is_in_the_store_can_be_resumed() -> None:
    store = get_default_session_store()
    store.add_user_message("my-session-123", "My name is Alice and I love pizza")
    store.add_assistant_message("my-session-123", "Nice to meet you!")
    assert "Alice" in Agent(name="Assistant", memory=SESSION).start("What's my name?")


# ---- Create Agent with Session, Resume Later ----


@covers("quick-start/python-1")
def test_the_first_conversation_is_stored(disk: Disk) -> None:
    agent = run_block("quick-start/python-1")["agent"]
    (user, said), (role, answer) = disk.turns("my-session-123")
    assert (user, said) == ("user", "My name is Alice and I love pizza")
    assert (role, answer) == ("assistant", agent.chat_history[-1]["content"])


@covers("quick-start/python-2")
def test_a_new_process_remembers_alice(disk: Disk) -> None:
    run_script("quick-start/python-1")
    run_script("quick-start/python-2")
    assert [role for role, _ in disk.turns("my-session-123")] == ["user", "assistant"] * 2
    assert "Alice" in disk.last("my-session-123")


@covers("quick-start/python-2")
def test_without_the_first_conversation_there_is_nothing_to_remember(disk: Disk) -> None:
    run_script("quick-start/python-2")
    assert "don't know" in disk.last("my-session-123")
    assert "Alice" not in disk.last("my-session-123")


@covers("quick-start/note-1")
def test_sessions_lie_in_the_home_folder_unless_told_otherwise(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRAISONAI_HOME")
    run_script("quick-start/python-1")
    stored = json.loads(Path("~/.praisonai/sessions/my-session-123.json").expanduser().read_text(encoding="utf-8"))
    assert stored["messages"][0]["content"] == "My name is Alice and I love pizza"


# ---- Install ----


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment in which the page's own command installed our wheel; the workers of one run share it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "installed"
    with (shared / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            _install_into(folder)
            (folder / "done").touch()
    return folder


def _install_into(folder: Path) -> None:
    def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
        done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=2 * TIMEOUT_S)
        assert done.returncode == 0, done.stdout + done.stderr

    run(sys.executable, "-m", "venv", "--clear", folder)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist")
    (wheel,) = (folder / "dist").glob("*.whl")
    (folder / "ours.txt").write_text(f"praisonaiagents @ {wheel.as_uri()}\n", encoding="utf-8")
    run("bash", "-c", code("quick-start/bash-1"), env=inside(folder))


def inside(folder: Path) -> dict[str, str]:
    """The environment of someone who activated the virtual environment."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    foreign = {"PYTHONPATH", "PYTHONHOME"}
    rest = {name: value for name, value in os.environ.items() if name not in foreign}
    if rest.get("SSL_CERT_FILE", "").endswith("authority.pem"):
        del rest["SSL_CERT_FILE"]  # pip trusts whom the machine trusts
    return rest | {"PATH": path, "VIRTUAL_ENV": str(folder), "PIP_CONSTRAINT": str(folder / "ours.txt")}


@covers("quick-start/bash-1")
def test_what_was_installed_is_our_wheel(installed: Path) -> None:
    ask = "import praisonaiagents; print(praisonaiagents.__file__)"
    done = subprocess.run(
        ["python", "-c", ask], env=inside(installed), capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)


@covers("quick-start/pip-install-praisonaiagents")
def test_the_command_brings_praisonai_and_has_nothing_left_to_do(installed: Path) -> None:
    assert (installed / "bin" / "praisonai").exists()
    again = run_command("quick-start/pip-install-praisonaiagents", env=inside(installed))
    assert again.returncode == 0, again.stderr
    assert "Successfully installed" not in again.stdout


@covers("quick-start/bash-1", "quick-start/python-1", "quick-start/python-2")
def test_the_quick_start_works_as_installed(installed: Path, disk: Disk) -> None:
    run_script("quick-start/python-1", env=inside(installed), python=installed / "bin" / "python")
    run_script("quick-start/python-2", env=inside(installed), python=installed / "bin" / "python")
    assert "Alice" in disk.last("my-session-123")
