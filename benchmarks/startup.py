"""What a fresh process pays: to import the package, to list sessions on the command line, to append once.

All against `python -c pass` with the same interpreter, the one of this environment, in turns.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator

from benchmarks.processes import Command, Costs, run_in_turns
from benchmarks.results import Check, Failure, Result, Row
from benchmarks.sessions import messages
from benchmarks.settings import Settings
from benchmarks.timing import excess, ratio
from praisonaiagents.session import DefaultSessionStore

IMPORT_TARGET_MS = 100.0
_PASS = "python -c pass"
_BARE = Command([sys.executable, "-c", "pass"])
_IMPORT = "from praisonaiagents import Agent"
_APPEND_ONCE = """
import time
started = time.perf_counter()
from praisonaiagents.session import DefaultSessionStore
imported = time.perf_counter()
import sys
DefaultSessionStore(sys.argv[1]).add_message("cold", "user", sys.argv[2])
appended = time.perf_counter()
print((imported - started) * 1e3, (appended - imported) * 1e3)
"""


def import_cost(settings: Settings) -> Iterator[Row]:
    """Wall and CPU time of the package's import."""
    commands = {_PASS: _BARE, _IMPORT: Command([sys.executable, "-c", _IMPORT])}
    costs = run_in_turns(commands, settings.rounds(40))
    for kind, values in (("wall", costs.wall), ("CPU", costs.cpu)):
        over = Check(f"over {_PASS}", excess(values[_IMPORT], values[_PASS]), IMPORT_TARGET_MS, "ms")
        yield Row("import", f"{_IMPORT}, {kind}", "ms", values[_IMPORT], (over,))
        yield Row("import", f"{_PASS}, {kind}", "ms", values[_PASS])


def command_cost(settings: Settings) -> Iterator[Result]:
    """CPU time of `praisonai session list`, the console script of this environment, with 20 sessions to show."""
    script = console_script()
    if not os.path.exists(script):
        yield Failure("cli", "praisonai session list", "there is no console script beside this interpreter")
        return
    targets = {"piped": 10.0, "--json": 10.0, "as a table in a terminal": 20.0}
    with tempfile.TemporaryDirectory() as home:
        store = DefaultSessionStore(os.path.join(home, "sessions"))
        for number in range(20):
            store.append(f"session-{number:02d}", messages("listed", 2))
        costs = run_in_turns({_PASS: _BARE} | _listings(script, home), settings.rounds(30))
    for how, target in targets.items():
        if not all(b"session-00" in output for output in costs.outputs[how]):
            yield Failure("cli", f"praisonai session list, {how}", "it did not list the sessions")
            continue
        check = Check(f"{_PASS}, CPU", ratio(costs.cpu[how], costs.cpu[_PASS]), target)
        yield Row("cli", f"praisonai session list, {how}, CPU", "ms", costs.cpu[how], (check,))
    yield Row("cli", f"{_PASS}, CPU", "ms", costs.cpu[_PASS])


def cold_append_cost(settings: Settings) -> Iterator[Row]:
    """A process that appends one message and ends."""
    with tempfile.TemporaryDirectory() as folder:
        DefaultSessionStore(folder).append("cold", messages("cold", 100))
        command = Command([sys.executable, "-c", _APPEND_ONCE, folder, messages("new", 1)[0].text()])
        costs = run_in_turns({_PASS: _BARE, "append": command}, settings.rounds(30))
    yield from _shares(costs)


def console_script() -> str:
    """The `praisonai` of this environment."""
    return os.path.join(sysconfig.get_path("scripts"), "praisonai")


def _listings(script: str, home: str) -> dict[str, Command]:
    environment = {"PRAISONAI_HOME": home, "TERM": "xterm-256color", "COLUMNS": "100"}
    words = [script, "session", "list"]
    return {
        "piped": Command(words, environment),
        "--json": Command([*words, "--json"], environment),
        "as a table in a terminal": Command(words, environment, terminal=True),
    }


def _shares(costs: Costs) -> Iterator[Row]:
    total = costs.wall["append"]
    inside = [tuple(map(float, output.split())) for output in costs.outputs["append"]]
    parts = {
        _PASS: costs.wall[_PASS],
        "import of the store": [imported for imported, _ in inside],
        "the append, first call": [appended for _, appended in inside],
    }
    yield Row("cold", "a process that appends once, wall", "ms", total)
    for name, values in parts.items():
        yield Row("cold", f"of it: {name}", "ms", values, (Check("the whole process", ratio(values, total), form="%"),))
