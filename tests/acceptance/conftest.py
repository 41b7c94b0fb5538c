"""Every acceptance test runs in a home and a working folder of its own, with the built-in offline model and no key.

The variables are set in this process's environment, so the processes a test starts have them too.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from .disk import Disk
from .servers import AgentServer, postgres_database, redis_server
from .terminal import open_terminal

FOREIGN = (
    *("PRAISONAI_", "OPENAI_", "ANTHROPIC_", "OLLAMA_", "XDG_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"),
    *("POSTGRES_URL", "DATABASE_URL", "REDIS_URL", "PGHOST", "PGPORT", "PGUSER", "PGPASS", "PGDATABASE", "PGSERVICE"),
)
"""Variables that begin so would reach the code under test from the machine."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "covers(*ids): the items of page.md that this test tests")


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The test's own `~/.praisonai` and working folder; the working folder is the current one."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    found = Disk(home=tmp_path / "home" / ".praisonai", work=tmp_path / "work")
    found.home.parent.mkdir()
    found.work.mkdir()
    monkeypatch.setenv("HOME", str(found.home.parent))
    monkeypatch.setenv("PRAISONAI_HOME", str(found.home))
    monkeypatch.setenv("PRAISONAI_MODEL", "offline")
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"])
    monkeypatch.chdir(found.work)
    return found


@pytest.fixture
def terminal() -> Iterator[Callable[..., pexpect.spawn]]:
    """`terminal(program, *arguments)` starts it in a pseudo-terminal; whatever still runs when the test ends is ended."""
    opened: list[pexpect.spawn] = []

    def start(*command: str) -> pexpect.spawn:
        opened.append(open_terminal(command))
        return opened[-1]

    yield start
    for child in opened:
        child.close(force=True)


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this test's own."""
    with postgres_database() as url:
        yield url


@pytest.fixture
def redis() -> Iterator[str]:
    """The URL of an empty Redis (Valkey) server of this test's own."""
    with redis_server() as url:
        yield url


@pytest.fixture
def agent_server() -> Iterator[AgentServer]:
    """An agent served over HTTP on a free port of this machine."""
    with AgentServer() as server:
        yield server
