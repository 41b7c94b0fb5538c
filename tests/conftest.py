"""Every test has a home of its own, and sees nothing of the machine: no key, no model's name, no proxy.

The variables are set in this process's environment, so the processes a test starts have them too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wire import ANTHROPIC, OPENAI, Wire

from praisonaiagents import Agent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background by a shell: programs that the tests start would inherit that, and never notice Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

AUTHORITY = Path(__file__).parent / "fixtures" / "authority.pem"
"""Whom tests trust in TLS: an authority whose key nobody has."""
FOREIGN = ("PRAISONAI_", "OPENAI_", "ANTHROPIC_", "OLLAMA_", "MODEL_NAME")
"""Variables that begin so would reach the code under test from the machine."""


def pytest_xdist_auto_num_workers() -> int:
    """How many `-n auto` means: one more than there are processors, since tests wait for servers and for each other's locks."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own `~/.praisonai`. It is not made."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name.upper().endswith(("_API_KEY", "_PROXY")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PRAISONAI_HOME", str(tmp_path / "praisonai"))
    # reading the machine's hundred and more would take each HTTP client longer than most tests take
    if "SSL_CERT_FILE" not in os.environ:
        monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    return tmp_path / "praisonai"


@pytest.fixture(params=[OPENAI, ANTHROPIC], ids=lambda wire: wire.name)
def wire(request: pytest.FixtureRequest) -> Wire:
    """The protocol an agent and its model speak: the test runs once for each."""
    found: Wire = request.param
    return found


@pytest.fixture
def make_agent() -> Iterator[Callable[..., Agent]]:
    """`Agent`, closed when the test ends. It is named Assistant unless told otherwise."""
    made: list[Agent] = []

    def make(name: str = "Assistant", **settings: Any) -> Agent:
        made.append(Agent(name, **settings))
        return made[-1]

    yield make
    for agent in made:
        agent.close()
