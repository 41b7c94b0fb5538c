"""SQLite, PostgreSQL and Redis, each against its bare driver in the same run: is it near the floor, and flat?

The servers are real ones on loopback, started for this, with their default durability. What a reader would get wrong: a
ratio of 1.4 to a bare round trip is not 40 % slower than what somebody would write by hand. The bare call looks up no id,
keeps no order of sessions, and knows neither users nor forks.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import NamedTuple

from benchmarks.bare import Bare, BarePostgres, BareRedis, BareSqlite
from benchmarks.inputs import text
from benchmarks.results import Check, Row
from benchmarks.sessions import messages
from benchmarks.settings import Settings
from benchmarks.timing import Contender, in_turns, ratio, scaled
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session import SessionStore, open_store

FLAT_TARGET = 1.3
READ_TARGET = 2.0
FORK_TARGET = 1.5
_LAST = 50
_THREADS = 8
_USER = "default_user"


class Place(NamedTuple):
    """One engine as it is measured, and its floor. `file`: where its bytes lie, if that is one file."""

    name: str
    store: SessionStore
    bare: Bare
    append_target: float
    file: str | None = None


def sqlite_cost(settings: Settings) -> Iterator[Row]:
    """With synchronous=NORMAL (durability="process") and FULL."""
    for durability in ("process", "full"):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/sessions.db"
            with open_store(f"sqlite:///{path}?durability={durability}") as store:
                bare = BareSqlite(f"{folder}/bare.db", full=durability == "full")
                with closing(bare):
                    place = Place(f"SQLite {'NORMAL' if durability == 'process' else 'FULL'}", store, bare, 2.5, path)
                    yield from _rows(place, settings, appends_only=durability == "full")


def postgres_cost(settings: Settings) -> Iterator[Row]:
    from tests.servers import postgres

    with postgres.empty_place() as url, open_store(url) as store, closing(BarePostgres(url.partition("?")[0])) as bare:
        yield from _rows(Place("PostgreSQL", store, bare, 1.4), settings)


def redis_cost(settings: Settings) -> Iterator[Row]:
    from tests.servers import redis

    with redis.empty_place() as url, open_store(url) as store, closing(BareRedis(url.partition("?")[0])) as bare:
        yield from _rows(Place("Redis", store, bare, 1.4), settings)


def _rows(place: Place, settings: Settings, *, appends_only: bool = False) -> Iterator[Row]:
    yield from _appends(place, settings)
    if appends_only:
        return
    yield from _threads(place, settings)
    yield from _tail(place, settings)
    yield from _forks(place, settings)
    yield from _sessions(place, settings)


def _appends(place: Place, settings: Settings) -> Iterator[Row]:
    """At several lengths of the session, in turns with the bare driver."""
    contenders: dict[str, Contender] = {}
    for length in settings.lengths():
        _fill(place.store, f"s{length}", length)
        place.bare.fill(f"s{length}", length)
        contenders[f"append at {length:,}"] = Contender(partial(_append, place.store, f"s{length}"))
        contenders[f"bare at {length:,}"] = Contender(partial(place.bare.append, f"s{length}"))
    values = in_turns(contenders, rounds=settings.rounds(100), calls=10)
    shortest = min(settings.lengths())
    for length in settings.lengths():
        name, floor = f"append at {length:,}", f"bare at {length:,}"
        checks = [Check(place.bare.name, ratio(values[name], values[floor]), place.append_target)]
        if length != shortest:
            flat = ratio(values[name], values[f"append at {shortest:,}"])
            checks.append(Check(f"the same at {shortest:,} messages", flat, FLAT_TARGET))
        yield Row(place.name, name, "us", scaled(values[name], 1e3), tuple(checks))
        yield Row(place.name, floor, "us", scaled(values[floor], 1e3))


def _threads(place: Place, settings: Settings) -> Iterator[Row]:
    """Messages of several threads, each in a session of its own, against one thread that serves these sessions in turn."""
    count = settings.rounds(400)
    with ThreadPoolExecutor(_THREADS) as pool:

        def together() -> None:
            list(pool.map(lambda number: _many(place.store, f"t{number}", count // _THREADS), range(_THREADS)))

        def alone() -> None:
            for _ in range(count // _THREADS):
                for number in range(_THREADS):
                    _append(place.store, f"t{number}")

        values = in_turns(
            {"together": Contender(together), "alone": Contender(alone)}, rounds=settings.rounds(30), calls=1
        )
    check = Check("one thread", ratio(values["together"], values["alone"]), 1.0)
    yield Row(
        place.name, f"append, {_THREADS} threads together", "us", scaled(values["together"], 1e3 * count), (check,)
    )


def _tail(place: Place, settings: Settings) -> Iterator[Row]:
    """The last 50 messages of the longest session."""
    length = max(settings.lengths())
    session_id = f"s{length}"
    ours, floor = f"last {_LAST} of {length:,}", f"bare, last {_LAST} of {length:,}"
    contenders = {
        ours: Contender(partial(place.store.engine.read, Key(_USER, session_id), -_LAST)),
        "store": Contender(partial(place.store.get_chat_history, session_id, max_messages=_LAST)),
        floor: Contender(partial(place.bare.last, session_id, _LAST)),
    }
    values = in_turns(contenders, rounds=settings.rounds(60), calls=5)
    for name, label, target in ((ours, ours, READ_TARGET), ("store", f"{ours}, as dicts", None)):
        check = Check(floor, ratio(values[name], values[floor]), target)
        yield Row(place.name, label, "us", scaled(values[name], 1e3), (check,))
    yield Row(place.name, floor, "us", scaled(values[floor], 1e3))


def _forks(place: Place, settings: Settings) -> Iterator[Row]:
    """Forks of a long and a short session."""
    engine = place.store.engine
    made = iter(range(10**9))
    for length in (10, 10_000):
        _fill(place.store, f"f{length}", length)

    def fork(length: int) -> None:
        engine.fork(Key(_USER, f"f{length}"), Record(_USER, f"fork-{next(made)}"))

    contenders = {f"fork of {length:,}": Contender(partial(fork, length)) for length in (10, 10_000)}
    values = in_turns(contenders, rounds=settings.rounds(60), calls=5)
    check = Check("a fork of 10", ratio(values["fork of 10,000"], values["fork of 10"]), FORK_TARGET)
    yield Row(place.name, "fork of 10,000 messages", "us", scaled(values["fork of 10,000"], 1e3), (check,))
    if place.file is not None:
        sizes = _sizes_after(place.file, partial(fork, 10_000), 100)
        yield Row(place.name, "fork of 10,000, on disk", "bytes", [sizes], (Check("4 KB", sizes / 4096, 1.0),))


def _sizes_after(path: str, act: Callable[[], None], times: int) -> float:
    """Bytes that one call adds to a SQLite file, its log written back."""
    import sqlite3

    def size() -> int:
        with closing(sqlite3.connect(path)) as db:
            db.execute("pragma wal_checkpoint(truncate)")
        return os.path.getsize(path)

    before = size()
    for _ in range(times):
        act()
    return (size() - before) / times


def _sessions(place: Place, settings: Settings) -> Iterator[Row]:
    """Appending and listing among few and among many sessions of one user."""
    few, many = 10, 10 * settings.sessions()
    contenders: dict[str, Contender] = {}
    for user, count in (("few", few), ("many", many)):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number, user=user: _make(place.store, user, number), range(count)))
        contenders[f"append {user}"] = Contender(partial(_append, place.store, "0", user))
        contenders[f"list {user}"] = Contender(partial(place.store.list_sessions, 10, user_id=user))
    values = in_turns(contenders, rounds=settings.rounds(60), calls=5)
    for act, label in (("append", "append among {:,} sessions"), ("list", "newest 10 of {:,} sessions")):
        check = Check(label.format(few), ratio(values[f"{act} many"], values[f"{act} few"]), FLAT_TARGET)
        yield Row(place.name, label.format(many), "us", scaled(values[f"{act} many"], 1e3), (check,))


def _make(store: SessionStore, user: str, number: int) -> None:
    store.append(str(number), messages("listed", 2), user_id=user)


def _append(store: SessionStore, session_id: str, user: str | None = None) -> None:
    store.add_message(session_id, "user", text("new", 0), user_id=user)


def _many(store: SessionStore, session_id: str, count: int) -> None:
    for _ in range(count):
        _append(store, session_id)


def _fill(store: SessionStore, session_id: str, length: int) -> None:
    for first in range(0, length, 1000):
        store.append(session_id, messages(session_id, min(1000, length - first)))
