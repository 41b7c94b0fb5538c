"""The newest 50 sessions, against a bare look at the folder: every entry, and the time of every JSON file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial

from benchmarks.results import Check, Row
from benchmarks.sessions import messages
from benchmarks.settings import Settings
from benchmarks.timing import Contender, in_turns, ratio, scaled
from praisonaiagents.session import DefaultSessionStore

BARE_TARGET = 2.0
_NEWEST = 50
_FEW = 100


def list_cost(settings: Settings) -> Iterator[Row]:
    """In a small and a large folder, in turns."""
    counts = (_FEW, settings.sessions())
    with tempfile.TemporaryDirectory() as folder:
        contenders: dict[str, Contender] = {}
        for count in counts:
            store = _filled(os.path.join(folder, str(count)), count)
            contenders[_ours(count)] = Contender(partial(store.list_sessions, _NEWEST))
            contenders[_bare(count)] = Contender(partial(look_at, store.session_dir))
        values = in_turns(contenders, rounds=settings.rounds(30), calls=3)
    for count in counts:
        # in a small folder the 50 files that are opened outweigh the look at the folder
        target = BARE_TARGET if count > _FEW else None
        check = Check(_bare(count), ratio(values[_ours(count)], values[_bare(count)]), target)
        yield Row("list", _ours(count), "ms", scaled(values[_ours(count)], 1e6), (check,))
        yield Row("list", _bare(count), "ms", scaled(values[_bare(count)], 1e6))


def look_at(folder: str) -> int:
    """The time of the newest JSON file in a folder, in ns."""
    with os.scandir(folder) as entries:
        return max(entry.stat().st_mtime_ns for entry in entries if entry.name.endswith(".json"))


def _filled(folder: str, count: int) -> DefaultSessionStore:
    store = DefaultSessionStore(folder)
    for number in range(count):
        store.append(f"session-{number:05d}", messages("listed", 2))
    return store


def _ours(count: int) -> str:
    return f"newest {_NEWEST} of {count:,} sessions"


def _bare(count: int) -> str:
    return f"bare scandir and stat, {count:,} sessions"
