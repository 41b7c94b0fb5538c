"""Python processes that start at once: forks of one that has loaded the libraries of others, and nothing of ours.

    run(["-c", "import praisonaiagents"])       # as `subprocess.run([sys.executable, "-c", ...], capture_output=True, text=True)`
    Forked(["-m", "praisonaiagents.cli"])       # as `subprocess.Popen`

Loading the LLM libraries takes a process longer than most tests take, and hundreds of processes are started. Everything else
is as in a process of its own: a process id, signals, pipes, the environment, and the interpreter's own end. Not for what is
about starting itself: which modules are loaded when, options of the interpreter but `-W`, or a terminal.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import gc
import importlib
import json
import os
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import types
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = (
    "pydantic_ai.models.openai",
    "pydantic_ai.models.anthropic",
    "pydantic_ai.providers.openai",
    "pydantic_ai.providers.anthropic",
    "genai_prices.data",
    "anyio._backends._asyncio",
    "starlette.applications",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.lifespan.on",
    "psycopg",
    "redis",
)


class Forked(subprocess.Popen):
    """`subprocess.Popen` of Python with these arguments: `-W error` or the like, `-c code`, `-m module` or a file, its own."""

    def __init__(self, arguments: Sequence[str | Path], **settings: Any) -> None:
        self._job = [str(argument) for argument in arguments]
        self._link, self._other_end = socket.socketpair()
        super().__init__([sys.executable, *self._job], **settings)

    def _execute_child(self, *given: Any) -> None:
        """Given what `Popen` passes on: the 6th and 7th are folder and environment, the 11th to 16th the ends of pipes."""
        cwd, env, pipes = given[5], given[6], given[10:16]
        ends = [
            default if mine == -1 else mine
            for default, mine in zip((0, 1, 2), (pipes[0], pipes[3], pipes[5]), strict=True)
        ]
        job = {
            "arguments": self._job,
            "env": dict(os.environ if env is None else env),
            "cwd": os.fspath(cwd or os.getcwd()),
        }
        with self._other_end:
            socket.send_fds(_origin(), [b"."], [self._other_end.fileno(), *ends])
        self._link.sendall(json.dumps(job).encode() + b"\n")
        self._said = self._link.makefile("rb")
        self.pid = int(self._said.readline())
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if flags == os.WNOHANG and not select.select([self._link], [], [], 0)[0]:
            return 0, 0
        with self._link, self._said:
            return self.pid, int(self._said.readline())

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


def run(
    arguments: Sequence[str | Path],
    *,
    input: str | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; what it printed is text. input: on its standard input, which is empty otherwise."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with Forked(arguments, env=env, cwd=cwd, text=True, **pipes) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@cache
def _origin() -> socket.socket:
    """Where forks are asked for. The process that forks ends when this one does."""
    here, there = socket.socketpair()
    command = [sys.executable, "-P", __file__, str(there.fileno())]
    with there:
        given = [there.fileno()]
        origin = subprocess.Popen(command, pass_fds=given, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    atexit.register(origin.wait)
    atexit.register(here.close)
    return here


# --- in the process that is forked ---


def _forks(asked: socket.socket) -> tuple[socket.socket, list[int]]:
    """Fork for whoever asks, and tell how each fork ended. Returns in the fork: who asked, and its three streams."""
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    links: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([asked, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            while links and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with links.pop(ended[0]) as link, suppress(OSError):
                    link.sendall(b"%d\n" % ended[1])
        if asked in ready:
            said, ends, _, _ = socket.recv_fds(asked, 1, 4)
            if not said:
                os._exit(0)
            link = socket.socket(fileno=ends[0])
            pid = os.fork()
            if pid == 0:
                break
            links[pid] = link
            link.sendall(b"%d\n" % pid)
            for end in ends[1:]:
                os.close(end)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for mine in (asked, *links.values()):
        mine.close()
    os.close(woken)
    os.close(waking)
    return link, ends[1:]


def _become(arguments: list[str]) -> object:
    """Run what Python would run with these arguments."""
    while arguments[0] == "-W":
        _filter(arguments[1])
        arguments = arguments[2:]
    if arguments[0] == "-c":
        sys.argv, sys.path[:0] = ["-c", *arguments[2:]], [""]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        return exec(compile(arguments[1], "<string>", "exec"), main.__dict__)
    if arguments[0] == "-m":
        sys.argv, sys.path[:0] = arguments[1:], [os.getcwd()]
        return runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    sys.argv, sys.path[:0] = arguments, [os.path.dirname(os.path.abspath(arguments[0]))]
    return runpy.run_path(arguments[0], run_name="__main__")


def _filter(option: str) -> None:
    action, message, category, module, line = (*option.split(":"), "", "", "", "")[:5]
    kind = getattr(builtins, category or "Warning")
    warnings.filterwarnings(action, re.escape(message), kind, re.escape(module), int(line or 0))  # type: ignore[arg-type]


def _keep(libraries: dict[str, types.ModuleType]) -> None:
    """At the interpreter's end, leave them to the system. Taking them apart would copy all of their memory first."""
    for name, module in libraries.items():
        if name.partition(".")[0] not in sys.stdlib_module_names and sys.modules.get(name) is module:
            del sys.modules[name]
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(module))


def _start() -> object:
    for name in LIBRARIES:
        importlib.import_module(name)
    atexit.register(_keep, dict(sys.modules))  # registered first, so done last
    gc.freeze()
    link, ends = _forks(socket.socket(fileno=int(sys.argv[1])))
    with link, link.makefile("r") as said:
        job = json.loads(said.readline())
    for number, end in enumerate(ends):
        os.dup2(end, number)
        os.close(end)
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115 - the old ones know what was at their ends
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
    if option := os.environ.get("PYTHONWARNINGS"):
        _filter(option)
    sys.path[:0] = [
        path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path
    ]
    return _become(job["arguments"])


if __name__ == "__main__":
    _start()
