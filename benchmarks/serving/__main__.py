"""Measure, look everything up in the store, and print a Markdown table. See the package."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.machine import describe
from benchmarks.serving.load import Load, Outcome, put
from benchmarks.serving.served import PATH, Served
from benchmarks.serving.words import answer, said
from praisonaiagents.session import open_store

HEAD = "| sessions in | users x turns | turns/s | p50 ms | p99 ms | echo p50 | echo p99 | added p50 | added p99 | client busy |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50 users x 5 turns")
    quick = parser.parse_args().quick
    loads = [(1, 20), (50, 5)] if quick else [(1, 200), (10, 50), (50, 20), (500, 20)]
    for name, value in describe().items():
        print(f"{name}: {value}")
    print(f"\n{HEAD}\n|{'---|' * HEAD.count(' | ')}---|")
    failures = sum(_measured(engine, loads, 200 if quick else 2_000) for engine in ("sqlite", "postgres"))
    sys.exit(1 if failures else 0)


def _measured(engine: str, loads: list[tuple[int, int]], idle: int) -> int:
    """Print a row for each load. Returns how many turns were not as they should be."""
    with ExitStack() as stack:
        url = stack.enter_context(_place(engine))
        echo = stack.enter_context(Served("echo"))
        server = stack.enter_context(Served("agent", url))
        put(Load(server.port, PATH, 1, 5, "warm"))
        put(Load(echo.port, PATH, 1, 5, "warm"))
        for users, turns in loads:
            floor = put(Load(echo.port, PATH, users, turns, f"e{users}"))
            ours = put(Load(server.port, PATH, users, turns, f"u{users}"))
            print(_row(engine, users, turns, ours, floor), flush=True)
        before = server.memory_bytes()
        put(Load(server.port, PATH, idle, 1, "idle"))
        grown = server.memory_bytes() - before
        print(
            f"\n{engine}: {idle:,} more sessions of a turn each, idle: {grown / idle / 1000:.1f} kB each in the server\n"
        )
        wrong = sum(_wrong(url, users, turns) for users, turns in loads)
        total = sum(users * turns for users, turns in loads)
        print(
            f"{engine}: {total:,} turns looked up in the store: {wrong} lost, doubled, mixed or out of order\n",
            flush=True,
        )
    return wrong


def _row(engine: str, users: int, turns: int, ours: Outcome, floor: Outcome) -> str:
    p50, p99, least50, least99 = _at(ours, 0.5), _at(ours, 0.99), _at(floor, 0.5), _at(floor, 0.99)
    return (
        f"| {engine} | {users} x {turns} | {len(ours.turn_ms) / ours.wall_s:.0f} | {p50:.1f} | {p99:.1f} | {least50:.1f} "
        f"| {least99:.1f} | {p50 - least50:.1f} | {p99 - least99:.1f} | {ours.cpu_s / ours.wall_s:.0%} |"
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
