"""The last 50 messages: of a long session as of a short one, without reading the rest.

"Without reading the rest" is not timed but counted: in a pass of its own, every byte that `os.pread` returns.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from unittest import mock

from benchmarks.processes import Command, run_in_turns
from benchmarks.results import Check, Row
from benchmarks.sessions import PreparedSession
from benchmarks.settings import Settings
from benchmarks.timing import Contender, in_turns, ratio, scaled
from praisonaiagents.session import DefaultSessionStore

_LAST = 50
_SHORT, _LONG = 100, 10_000
_READ_ONCE = """
import sys, time
from praisonaiagents.session import DefaultSessionStore
started = time.perf_counter()
got = DefaultSessionStore(sys.argv[1]).get_chat_history(sys.argv[2], max_messages=50)
print((time.perf_counter() - started) * 1e3)
assert len(got) == 50
"""


def tail_cost(settings: Settings) -> Iterator[Row]:
    """Warm, in a new process, and in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        store = DefaultSessionStore(folder)
        short, long = PreparedSession(store, "short", _SHORT), PreparedSession(store, "long", _LONG)
        yield from _warm(store, settings)
        yield from _cold(folder, settings)
        yield _bytes_read(store, short, long)


def _warm(store: DefaultSessionStore, settings: Settings) -> Iterator[Row]:
    names = {_SHORT: f"last {_LAST} of {_SHORT:,}", _LONG: f"last {_LAST} of {_LONG:,}"}
    everything = f"all {_LONG:,}, parsed"
    contenders = {
        names[_SHORT]: Contender(partial(store.get_chat_history, "short", max_messages=_LAST)),
        names[_LONG]: Contender(partial(store.get_chat_history, "long", max_messages=_LAST)),
        everything: Contender(partial(store.get_chat_history, "long")),
    }
    values = in_turns(contenders, rounds=settings.rounds(60), calls=5)
    to_short = Check(names[_SHORT], ratio(values[names[_LONG]], values[names[_SHORT]]))
    to_all = Check(everything, ratio(values[names[_LONG]], values[everything]), form="%")
    yield Row("tail", names[_LONG], "us", scaled(values[names[_LONG]], 1e3), (to_short, to_all))
    for name in (names[_SHORT], everything):
        yield Row("tail", name, "us", scaled(values[name], 1e3))


def _cold(folder: str, settings: Settings) -> Iterator[Row]:
    commands = {name: Command([sys.executable, "-c", _READ_ONCE, folder, name]) for name in ("short", "long")}
    printed = run_in_turns(commands, settings.rounds(30)).outputs
    values = {name: [float(output) for output in outputs] for name, outputs in printed.items()}
    what = f"last {_LAST} of {{:,}}, first call of a new process"
    check = Check(what.format(_SHORT), ratio(values["long"], values["short"]))
    yield Row("tail", what.format(_LONG), "ms", values["long"], (check,))
    yield Row("tail", what.format(_SHORT), "ms", values["short"])


def _bytes_read(store: DefaultSessionStore, short: PreparedSession, long: PreparedSession) -> Row:
    counts = {session.session_id: _count_bytes(store, session) for session in (short, long)}
    checks = (
        Check(f"last {_LAST} of {_SHORT:,}, bytes read", counts["long"] / counts["short"]),
        Check("bytes in the file", counts["long"] / long.size, form="%"),
    )
    return Row("tail", f"last {_LAST} of {_LONG:,}, bytes read", "bytes", [float(counts["long"])], checks)


def _count_bytes(store: DefaultSessionStore, session: PreparedSession) -> int:
    """Bytes that one call reads from the disk's files."""
    total = 0
    pread = os.pread

    def counting(fd: int, length: int, offset: int) -> bytes:
        nonlocal total
        data = pread(fd, length, offset)
        total += len(data)
        return data

    with mock.patch("os.pread", counting):
        store.get_chat_history(session.session_id, max_messages=_LAST)
    return total
