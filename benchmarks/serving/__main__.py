"""Measure, look everything up in the store, and print a Markdown table. See the package."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.machine import describe
from benchmarks.processes import Command, run_in_turns
from benchmarks.serving.load import Load, Outcome, put
from benchmarks.serving.served import PATH, Served
from benchmarks.serving.words import answer, said
from benchmarks.timing import excess
from praisonaiagents.session import open_store

HEAD = (
    "| sessions in | users x turns | turns/s | p50 ms | p99 ms | echo p50 | echo p99 | added p50 | added p99 "
    "| LLM library p50 | p50, times that | client busy |"
)
_AT_ONCE = 500
_IMPORTS = {
    "nothing": "pass",
    "praisonaiagents.serve": "import praisonaiagents.serve",
    "praisonaiagents.serve.app": "from praisonaiagents.serve import app",
    "the LLM library": "import pydantic_ai",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50 users x 5 turns")
    quick = parser.parse_args().quick
    loads = [(1, 20), (50, 5)] if quick else [(1, 200), (10, 50), (50, 20), (500, 20)]
    for name, value in describe().items():
        print(f"{name}: {value}")
    print(f"\n{HEAD}\n|{'---|' * HEAD.count(' | ')}---|")
    failures = sum(_measured(engine, loads) for engine in ("sqlite", "postgres"))
    for kept_s in (300, 0):
        _idle(500 if quick else 10_000, kept_s)
    _imports(3 if quick else 15)
    sys.exit(1 if failures else 0)


def _measured(engine: str, loads: list[tuple[int, int]]) -> int:
    """Print a row for each load. Returns how many turns were not as they should be."""
    wrong = 0
    with ExitStack() as stack:
        url = stack.enter_context(_place(engine))
        echo = stack.enter_context(Served("echo"))
        library = stack.enter_context(Served("library"))
        server = stack.enter_context(Served("agent", url))
        for each in (echo, library, server):
            put(Load(each.port, PATH, 1, 5, "warm"))
        for users, turns in loads:
            floor, model, ours = (
                put(Load(each.port, PATH, users, turns, f"u{users}")) for each in (echo, library, server)
            )
            print(_row(engine, users, turns, ours, floor, model), flush=True)
            wrong += ours.wrong
        print()
        wrong += sum(_wrong(url, users, turns) for users, turns in loads)
        total = sum(users * turns for users, turns in loads)
        print(
            f"{engine}: {total:,} turns looked up in the store: {wrong} lost, doubled, mixed or out of order\n",
            flush=True,
        )
    return wrong


def _idle(sessions: int, kept_s: int) -> None:
    """Print what the server holds of each session whose user is gone."""
    with tempfile.TemporaryDirectory() as folder, Served("agent", f"sqlite:///{folder}/s.db", kept_s=kept_s) as server:
        put(Load(server.port, PATH, _AT_ONCE, 2, "warm"))
        before = server.memory_bytes()
        for first in range(0, sessions, _AT_ONCE):
            put(Load(server.port, PATH, _AT_ONCE, 1, f"idle{first}"))
        grown = (server.memory_bytes() - before) / sessions / 1000
    print(
        f"{sessions:,} idle sessions of a turn each, finished turns kept {kept_s} s: {grown:.2f} kB each in the server"
    )


def _imports(rounds: int) -> None:
    """Print the CPU time that imports take in a new process, over a process that does nothing."""
    commands = {name: Command([sys.executable, "-c", statement]) for name, statement in _IMPORTS.items()}
    costs = run_in_turns(commands, rounds).cpu
    for name in list(_IMPORTS)[1:]:
        print(f"import of {name}: {excess(costs[name], costs['nothing']):.0f} ms of CPU time")


def _row(engine: str, users: int, turns: int, ours: Outcome, floor: Outcome, model: Outcome) -> str:
    p50, p99, least50, least99 = _at(ours, 0.5), _at(ours, 0.99), _at(floor, 0.5), _at(floor, 0.99)
    return (
        f"| {engine} | {users} x {turns} | {len(ours.turn_ms) / ours.wall_s:.0f} | {p50:.1f} | {p99:.1f} | {least50:.1f} "
        f"| {least99:.1f} | {p50 - least50:.1f} | {p99 - least99:.1f} "
        f"| {_at(model, 0.5):.1f} | {p50 / _at(model, 0.5):.2f} | {ours.cpu_s / ours.wall_s:.0%} |"
    )


def _at(outcome: Outcome, part: float) -> float:
    values = sorted(outcome.turn_ms)
    return values[min(len(values) - 1, int(len(values) * part))]


def _wrong(url: str, users: int, turns: int) -> int:
    """Turns that the store does not hold exactly: what was said and what was answered, once, in order, and nothing else."""
    wrong = 0
    with open_store(url) as store:
        for number in range(users):
            name = f"u{users}-{number}"
            found = [message["content"] for message in store.get_chat_history(name, user_id=name)]
            right = [text for turn in range(turns) for text in (said(name, turn), answer(name, turn))]
            wrong += sum(a != b for a, b in zip(found, right, strict=False)) + abs(len(found) - len(right))
    return wrong


@contextmanager
def _place(engine: str) -> Iterator[str]:
    """The URL of an empty place."""
    if engine == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/sessions.db"
        return
    from tests.servers.postgres import PostgresServer

    with PostgresServer() as server:
        yield server.url()


if __name__ == "__main__":
    main()
