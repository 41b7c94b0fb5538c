"""Other libraries beside ours: one message more, the last 50, the newest 50 sessions.

Each contestant works in a process of its own and waits for orders; the orders go round in turns, and each is compared, round by
round, with ours of the same durability, in files and in SQLite. Listing comes first, so the sessions that are measured lie among
many others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from benchmarks.contestants import CONTESTANTS, OURS, OURS_DURABLE, OURS_SQLITE, OURS_SQLITE_DURABLE, Contestant
from benchmarks.results import Check, Failure, Result, Row
from benchmarks.settings import Settings
from benchmarks.timing import Rounds, ratio, scaled

_ROOT = Path(__file__).parent.parent
_WORKER = "benchmarks.contestants.worker"
_COUNT = 50
_CALLS = 4
_ALL_OURS = (OURS, OURS_DURABLE, OURS_SQLITE, OURS_SQLITE_DURABLE)
_ROUNDS = 12


class Refused(Exception):
    """A contestant could not do what it was asked."""


class Worker:
    """A contestant in its own process. Ends it on the way out."""

    def __init__(self, name: str, version: str, python: str, folder: str) -> None:
        self.contestant: Contestant = CONTESTANTS[name]
        self.label = f"{name} {version}".strip()
        os.mkdir(folder)
        with open(f"{folder}.log", "wb") as log:
            self._process = subprocess.Popen(
                [python, "-m", _WORKER, name, folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=_ROOT,
                env=_environment(python),
            )

    def order(self, **order: Any) -> list[float]:
        """Have an order carried out; return the nanoseconds it took, if it is a timed one. Raises `Refused`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as exc:
            raise Refused("its process ended") from exc
        if "error" in answer:
            raise Refused(answer["error"])
        return list(answer.get("ns", ()))

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


Ask = Callable[[Worker], list[float]]


def peers_cost(settings: Settings) -> Iterator[Result]:
    """All contestants that are installed, ours among them."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = {worker.label: stack.enter_context(worker) for worker in _workers(folder, settings)}
        yield from _listing(workers, settings)
        for length in settings.peer_lengths():
            yield from _session(workers, length, settings)


def _workers(folder: str, settings: Settings) -> Iterator[Worker]:
    number = 0
    for python in dict.fromkeys((sys.executable, *settings.peer_pythons)):
        command = [python, "-m", _WORKER, "--installed"]
        answer = subprocess.run(command, cwd=_ROOT, env=_environment(python), check=True, stdout=subprocess.PIPE)
        for name, version in json.loads(answer.stdout).items():
            number += 1
            yield Worker(name, version, python, os.path.join(folder, f"{number}"))


def _environment(python: str) -> dict[str, str]:
    """What a worker inherits. A search path that leads to our package must not reach PraisonAI's environment."""
    ours = python == sys.executable
    return {name: value for name, value in os.environ.items() if ours or name != "PYTHONPATH"}


def _listing(workers: Mapping[str, Worker], settings: Settings) -> Iterator[Result]:
    count = settings.peer_sessions()
    what = f"newest {_COUNT} of {count:,} sessions"
    listing = {
        label: worker for label, worker in workers.items() if worker.contestant.reads and worker.contestant.lists
    }
    able, failures = _prepared(listing, what, lambda worker: _fill_many(worker, count))
    yield from failures
    yield from _measured(able, what, lambda worker: worker.order(newest=_COUNT, times=_CALLS), settings)


def _session(workers: Mapping[str, Worker], length: int, settings: Settings) -> Iterator[Result]:
    session_id = f"s{length}"

    def append(worker: Worker) -> list[float]:
        return worker.order(append=session_id, times=_CALLS)

    def last(worker: Worker) -> list[float]:
        return worker.order(last=_COUNT, session=session_id, times=_CALLS)

    long_enough = {label: worker for label, worker in workers.items() if worker.contestant.longest >= length}
    able, failures = _prepared(long_enough, f"{length:,} messages", lambda worker: _fill(worker, session_id, length))
    yield from failures
    yield from _measured(able, f"append at {length:,}", append, settings, by_durability=True)
    readers = {label: worker for label, worker in able.items() if worker.contestant.reads}
    yield from _measured(readers, f"last {_COUNT} of {length:,}", last, settings)


def _fill(worker: Worker, session_id: str, length: int) -> list[float]:
    worker.order(fill=session_id, count=length)
    return worker.order(append=session_id, times=1)


def _fill_many(worker: Worker, count: int) -> list[float]:
    for number in range(count):
        worker.order(fill=f"listed-{number:05d}", count=2)
    return []


def _prepared(workers: Mapping[str, Worker], what: str, prepare: Ask) -> tuple[dict[str, Worker], list[Failure]]:
    """The workers that could be prepared, and what became of the others."""
    able: dict[str, Worker] = {}
    failures: list[Failure] = []
    for label, worker in workers.items():
        try:
            prepare(worker)
            able[label] = worker
        except Refused as exc:
            failures.append(Failure("peers", f"{what}: {label}", str(exc)))
    return able, failures


def _measured(
    workers: Mapping[str, Worker], what: str, ask: Ask, settings: Settings, *, by_durability: bool = False
) -> Iterator[Result]:
    """Ask all of them in turns; a row for each. `by_durability`: compare with ours of the same durability."""
    values, failed = _ask_in_turns(workers, ask, settings.rounds(_ROUNDS))
    for label, worker in workers.items():
        if label in failed:
            yield Failure("peers", f"{what}: {label}", failed[label])
            continue
        durable = by_durability and worker.contestant.durable
        ours = (OURS_DURABLE, OURS_SQLITE_DURABLE) if durable else (OURS, OURS_SQLITE)
        comparable = [name for name in ours if name in values and name not in failed and label not in _ALL_OURS]
        checks = tuple(Check(name, ratio(values[label], values[name])) for name in comparable)
        yield Row("peers", f"{what}: {label}", "us", scaled(values[label], 1e3), checks)


def _ask_in_turns(workers: Mapping[str, Worker], ask: Ask, rounds: int) -> tuple[Rounds, dict[str, str]]:
    """Nanoseconds, a value per round and worker; and the workers that failed, with the reason."""
    values: Rounds = {label: [] for label in workers}
    failed: dict[str, str] = {}
    order = list(workers.items())
    for _ in range(rounds):
        for label, worker in order:
            if label in failed:
                continue
            try:
                values[label].append(median(ask(worker)))
            except Refused as exc:
                failed[label] = str(exc)
        order.reverse()
    return values, failed
