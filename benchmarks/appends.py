"""An append: through the store, through the engine, and as bare system calls; and with `durability="full"`.

`BareAppend` makes the calls that an append of the JSON file can't do without, with the same encoder, and nothing else: it
checks nothing it reads and knows the footer by heart. What our code costs over that is the price of its checks.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial

from benchmarks.inputs import text
from benchmarks.results import Check, Row
from benchmarks.sessions import PreparedSession
from benchmarks.settings import Settings
from benchmarks.timing import Action, Contender, in_turns, ratio, scaled
from praisonaiagents.model.message import Message, encode
from praisonaiagents.session import DefaultSessionStore

FLAT_TARGET = 1.3
BARE_TARGET = 2.0
_TEXT = text("new", 0)
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_HEAD_BYTES = 8192
_TAIL_BYTES = 192


class BareAppend:
    """The system calls of an append, in order."""

    def __init__(self, session: PreparedSession) -> None:
        self._path = session.path
        self._lock_path = f"{session.path}.lock"
        self._footer = session.footer()

    def __call__(self) -> None:
        line = _new_line()
        path = self._path
        fd = os.open(path, os.O_RDWR | _FLAGS)
        lock_fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.fstat(fd).st_size
        os.stat(path, follow_symlinks=False)
        os.pread(fd, _HEAD_BYTES, 0)
        os.pread(fd, _TAIL_BYTES, size - _TAIL_BYTES)
        os.pwrite(fd, b"".join((b",\n", line, self._footer)), size - len(self._footer))
        now = time.time_ns()
        os.utime(fd, ns=(now, now))
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
        fcntl.flock(lock_fd, fcntl.LOCK_UN)
        os.close(lock_fd)


class BareSyncedWrite:
    """One write at the end of an open file, and an fsync."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __call__(self) -> None:
        os.write(self._fd, _new_line())
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def append_cost(settings: Settings) -> Iterator[Row]:
    """At several lengths of the session, all in turns."""
    with tempfile.TemporaryDirectory() as folder:
        store = DefaultSessionStore(folder)
        sessions = {length: PreparedSession(store, f"s{length}", length) for length in settings.lengths()}
        contenders = {
            f"{way}, {length:,} messages": Contender(act, session.rewind)
            for length, session in sessions.items()
            for way, act in _ways(store, session).items()
        }
        values = in_turns(contenders, rounds=settings.rounds(300), calls=10)
    shortest = min(sessions)
    for way in _WAYS:
        for length in sessions:
            name = f"{way}, {length:,} messages"
            checks = []
            if length != shortest:
                flat = ratio(values[name], values[f"{way}, {shortest:,} messages"])
                checks.append(Check(f"the same at {shortest:,} messages", flat, None if way == _BARE else FLAT_TARGET))
            if way != _BARE:
                checks.append(Check(_BARE, ratio(values[name], values[f"{_BARE}, {length:,} messages"]), BARE_TARGET))
            yield Row("append", name, "us", scaled(values[name], 1e3), tuple(checks))


def durable_append_cost(settings: Settings) -> Iterator[Row]:
    """`durability="full"` against a write and an fsync."""
    with tempfile.TemporaryDirectory() as folder:
        store = DefaultSessionStore(folder, durability="full")
        session = PreparedSession(store, "durable", 1_000)
        bare = BareSyncedWrite(os.path.join(folder, "bare"))
        append = partial(store.add_message, session.session_id, "user", _TEXT)
        contenders = {"ours": Contender(append, session.rewind), "bare": Contender(bare)}
        values = in_turns(contenders, rounds=settings.rounds(60), calls=5)
        bare.close()
    check = Check("bare write and fsync", ratio(values["ours"], values["bare"]))
    yield Row("full", 'add_message, durability="full", 1,000 messages', "us", scaled(values["ours"], 1e3), (check,))
    yield Row("full", "bare write and fsync of one line", "us", scaled(values["bare"], 1e3))


_BARE = "bare system calls"
_WAYS = ("add_message", "engine.append", _BARE)


def _ways(store: DefaultSessionStore, session: PreparedSession) -> dict[str, Action]:
    """The ways to append one message."""
    return {
        "add_message": partial(store.add_message, session.session_id, "user", _TEXT),
        "engine.append": partial(_engine_append, store, session),
        _BARE: BareAppend(session),
    }


def _engine_append(store: DefaultSessionStore, session: PreparedSession) -> None:
    store.engine.append(session.key, [Message("user", _TEXT, timestamp=time.time())])


def _new_line() -> bytes:
    """A message with a fresh id, encoded as the engine does it."""
    return encode(Message("user", _TEXT, timestamp=time.time(), id=f"msg-{os.urandom(10).hex()}"))
