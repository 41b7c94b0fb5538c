"""What a child process costs: its wall time, and the CPU time of it and all it started.

The child's own account (`wait4`) is read, not this process's, so nothing that happens here is counted.

What a reader would get wrong: an installed package is compiled once, when it is installed, but one that is run from its
sources may be compiled at every start, depending on the environment. So the children keep what they compile, in a folder
of their own, and the first run of each command, which compiles, is not counted.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.timing import Rounds


class Cost(NamedTuple):
    """Of one child: milliseconds on the clock, milliseconds of CPU (user and system), what it printed."""

    wall_ms: float
    cpu_ms: float
    output: bytes


class Command(NamedTuple):
    """What to start. `terminal`: give it a terminal to print to instead of a pipe."""

    words: Sequence[str]
    environment: Mapping[str, str] = {}
    terminal: bool = False


class Costs(NamedTuple):
    """A value per round and command, in ms; `outputs` is what each round printed."""

    wall: Rounds
    cpu: Rounds
    outputs: dict[str, list[bytes]]


def run(command: Command, bytecode: str) -> Cost:
    """Start a command and wait for it; `bytecode` is the folder for what it compiles. Raises `CalledProcessError`."""
    ours, theirs = os.openpty() if command.terminal else os.pipe()
    started = time.perf_counter()
    with open(ours, "rb", buffering=0) as reader:
        child = subprocess.Popen(
            command.words, stdin=subprocess.DEVNULL, stdout=theirs, env=_environment(command, bytecode)
        )
        os.close(theirs)
        output = _read_all(reader.fileno())
        _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command.words)
    return Cost(wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3, output)


def run_in_turns(commands: Mapping[str, Command], rounds: int) -> Costs:
    """Run each command once a round."""
    costs = Costs({name: [] for name in commands}, {name: [] for name in commands}, {name: [] for name in commands})
    order = list(commands.items())
    with tempfile.TemporaryDirectory() as bytecode:
        for command in commands.values():
            run(command, bytecode)
        for _ in range(rounds):
            for name, command in order:
                cost = run(command, bytecode)
                costs.wall[name].append(cost.wall_ms)
                costs.cpu[name].append(cost.cpu_ms)
                costs.outputs[name].append(cost.output)
            order.reverse()
    return costs


def _environment(command: Command, bytecode: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPYCACHEPREFIX": bytecode, **command.environment}


def _read_all(fd: int) -> bytes:
    pieces: list[bytes] = []
    try:
        while piece := os.read(fd, 65536):
            pieces.append(piece)
    except OSError:
        pass  # a terminal whose other end was closed says so with an error
    return b"".join(pieces)
