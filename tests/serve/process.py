"""A served agent in a process of its own: a real script that calls `agent.launch(...)`, at a port that was free.

    with Process(script(llm.openai_url, token="secret-token")) as server:
        httpx2.get(server.url + "/health")

What a reader would get wrong: what a script keeps is in the test's home, as everything is. So a script that was killed may be
started again, at the same port if need be, and has its sessions.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import tempfile
import time
from typing import Any, Self

from forked import Forked
from servers.ports import free_port
from wire import PATIENCE_S

_POLL_S = 0.02
_WARNINGS = ("-W", "error")


def script(model_url: str, *, agent: dict[str, Any] | None = None, before: str = "", **launch: Any) -> str:
    """A script that serves one agent at /agent, unless `path=` says something else.

    model_url: what the model is reached by, such as `ScriptedLLM.openai_url`. agent: further settings of the agent; a text
    that begins with "=" is an expression, such as a tool that the lines `before` define. launch: arguments of `launch`, in
    the same way.
    """
    settings = {"name": "Assistant", "llm": "openai/gpt-test", "base_url": model_url, **(agent or {})}
    port = '=int(os.environ["PORT"])'
    return "\n".join(
        [
            "import os",
            "from praisonaiagents import Agent",
            before,
            f"agent = Agent({_arguments(settings)})",
            f"agent.launch({_arguments({'path': '/agent', 'port': port, **launch})})",
        ]
    )


class Process:
    """The process that runs such a script. It serves inside of the `with` block.

    source: it finds its port in the environment as PORT. answers_at: the path that is asked to see whether it serves.
    port: None: one that is free. environment: further variables.
    """

    def __init__(
        self, source: str, *, port: int | None = None, answers_at: str = "/health", **environment: str
    ) -> None:
        self.source = source
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._answers_at = answers_at
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._running.pid

    def start(self) -> Self:
        """Run the script, and wait until it answers. Raises AssertionError with what it said if it ends instead."""
        here = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
        environment = here | {"PORT": str(self.port), "PYTHONUNBUFFERED": "1"} | self._environment
        command = [*_WARNINGS, "-c", self.source]
        self._process = Forked(command, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said, env=environment)
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the script did not serve: {self.said()}")
            time.sleep(_POLL_S)
        return self

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._running.kill()
        self._running.wait()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, wait until it has, and return its exit code."""
        self.end(how)
        return self.wait()

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and do not wait."""
        self._running.send_signal(how)

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code."""
        return self._running.wait(PATIENCE_S)

    def said(self) -> str:
        """What all its runs said, on both outputs."""
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), size, 0).decode("utf-8", "replace")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        self._said.close()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    def _answers(self) -> bool:
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            asked.request("GET", self._answers_at)
            return asked.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            asked.close()


def _arguments(settings: dict[str, Any]) -> str:
    """Arguments as a script writes them. A text that begins with "=" is an expression."""
    return ", ".join(
        f"{name}={value[1:] if isinstance(value, str) and value.startswith('=') else repr(value)}"
        for name, value in settings.items()
    )
