"""What nothing shows any more is deleted, and nothing else: seen in the tables.

The reachable rows are worked out here once more, the slow way, from the tables alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from servers.postgres import emptied_place, shared_url, with_parameter

from praisonaiagents.errors import SessionExists, SessionNotFound
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.storage.postgres import PostgresEngine

Row = tuple[int, int]


class Tables:
    """What lies in a schema."""

    def __init__(self, url: str) -> None:
        server, _, schema = url.rpartition("schema=")
        self._schema = schema
        self._connection = psycopg.connect(server.rstrip("?&"), autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.replace("SCHEMA", self._schema).encode()).fetchall()

    def messages(self) -> set[Row]:
        return set(self.rows("select log, number from SCHEMA.message"))

    def logs(self) -> dict[int, tuple[int | None, int | None]]:
        return {id_: (base, length) for id_, base, length in self.rows("select id, base, base_length from SCHEMA.log")}

    def reached(self) -> tuple[set[Row], set[int]]:
        """The messages and the logs that a session or a pin shows, one message after the other."""
        logs, messages, used = self.logs(), set(), set()
        views = self.rows(
            "select log, first, length from SCHEMA.session union all select log, start, length from SCHEMA.pin"
        )
        for log, start, stop in views:
            used.add(log)
            for number in range(start, stop):
                where = log
                while (base := logs[where])[1] is not None and number < base[1]:
                    where = base[0]
                messages.add((where, number))
                used.add(where)
        return messages, used

    def check(self) -> None:
        messages, used = self.reached()
        assert self.messages() == messages
        assert set(self.logs()) == used


@pytest.fixture
def url() -> Iterator[str]:
    with emptied_place(with_parameter(shared_url(), "options", "-c synchronous_commit=off")) as url:
        yield url


@pytest.fixture
def engine(url: str) -> Iterator[PostgresEngine]:
    with closing(PostgresEngine(url)) as engine:
        engine.owners("nobody's")  # makes the tables
        yield engine


@pytest.fixture
def tables(engine: PostgresEngine, url: str) -> Iterator[Tables]:
    with closing(Tables(url)) as tables:
        yield tables


def _say(engine: PostgresEngine, key: Key, count: int) -> None:
    engine.append(key, [Message("user", f"m{number}") for number in range(count)])


def _made(engine: PostgresEngine, key: Key, count: int = 0) -> Key:
    engine.open_session(Record(*key))
    _say(engine, key, count)
    return key


A, B, C = (Key("alice", name) for name in "abc")


def test_deleting_the_only_session_leaves_nothing(engine: PostgresEngine, tables: Tables) -> None:
    engine.delete(_made(engine, A, 5))
    assert (tables.messages(), tables.logs(), tables.rows("select * from SCHEMA.pin")) == (set(), {}, [])


def test_a_fork_shares_messages_and_keeps_them_alive(engine: PostgresEngine, tables: Tables) -> None:
    _made(engine, A, 5)
    engine.fork(A, Record(*B))
    assert len(tables.messages()) == 5
    _say(engine, A, 2)
    engine.delete(A)
    assert len(tables.messages()) == 5
    tables.check()
    engine.delete(B)
    assert (tables.messages(), tables.logs()) == (set(), {})


def test_what_lies_in_the_middle_of_a_log_is_deleted(engine: PostgresEngine, tables: Tables) -> None:
    log = int(engine.open_session(Record(*_made(engine, A, 9))).log)
    engine.update(A, {"pins": {"x": Pin(str(log), 2, 4), "y": Pin(str(log), 6, 7)}})
    engine.replace(A, [])
    assert tables.messages() == {(log, 2), (log, 3), (log, 6)}
    engine.update(A, {"pins": {"y": engine.open_session(Record(*A)).pins["y"]}})
    assert tables.messages() == {(log, 6)}
    tables.check()


def test_a_log_that_nobody_needs_as_a_base_goes_too(engine: PostgresEngine, tables: Tables) -> None:
    _made(engine, A, 3)
    engine.fork(A, Record(*B))
    _say(engine, B, 3)
    engine.delete(A)
    assert len(tables.logs()) == 2
    engine.update(B, {"start": 3})
    engine.drop(B)
    assert (len(tables.messages()), list(tables.logs().values())) == (3, [(None, None)])
    _say(engine, B, 1)
    assert engine.read(B, 0)[0] == 3


def test_dropping_tells_how_many_bytes_it_deleted(engine: PostgresEngine, tables: Tables) -> None:
    _made(engine, A, 4)
    engine.update(A, {"start": 2})
    ((size,),) = tables.rows("select sum(octet_length(line::text)) from SCHEMA.message where number < 2")
    engine.fork(A, Record(*B), at=Pin(engine.open_session(Record(*A)).log, 1, 2))
    assert engine.drop(A) == size // 2
    tables.check()


def test_one_of_many_forks_is_deleted_at_the_cost_of_few_rows(engine: PostgresEngine, tables: Tables) -> None:
    _made(engine, A, 10)
    for number in range(30):
        engine.fork(A, Record("alice", f"fork {number}"))
    engine.delete(A)
    for number in range(30):
        assert len(tables.messages()) == 10
        engine.delete(Key("alice", f"fork {number}"))
    assert (tables.messages(), tables.logs()) == (set(), {})


# Any sequence of calls

STEPS = 40


def _any(engine: PostgresEngine, dice: random.Random) -> Record | None:
    records = engine.list_sessions("alice").records
    return dice.choice(records) if records else None


def _part(dice: random.Random, record: Record) -> Pin:
    """A part of what a session shows or has pinned."""
    whole = dice.choice([record.head, *record.pins.values()])
    start, length = sorted(dice.randint(whole.start, whole.length) for _ in range(2))
    return Pin(whole.log, start, length)


def _step(engine: PostgresEngine, dice: random.Random) -> None:
    record = _any(engine, dice)
    if record is None or dice.random() < 0.05:
        engine.open_session(Record("alice", str(dice.random())))
        return
    acts: list[Callable[[], object]] = [
        lambda: _say(engine, record.key, dice.randint(1, 4)),
        lambda: engine.fork(record.key, Record("alice", str(dice.random())), at=_part(dice, record)),
        lambda: engine.fork(record.key, Record("alice", str(dice.random()))),
        lambda: engine.update(record.key, {"pins": record.pins | {str(dice.randint(0, 2)): _part(dice, record)}}),
        lambda: engine.update(record.key, {"pins": dict(list(record.pins.items())[1:])}),
        lambda: engine.update(record.key, {"head": _part(dice, record)}),
        lambda: engine.update(record.key, {"head": _part(dice, record), "pins": {"before": record.head}}),
        lambda: engine.update(record.key, {"start": dice.randint(record.start, record.length)}),
        lambda: engine.drop(record.key),
        lambda: engine.replace(record.key, [Message("user", "new")] * dice.randint(0, 2)),
        lambda: engine.delete(record.key),
    ]
    dice.choice(acts)()


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_of_calls_leaves_what_is_shown_and_nothing_else(
    engine: PostgresEngine, tables: Tables, seed: int
) -> None:
    dice = random.Random(seed)
    for _ in range(STEPS):
        _step(engine, dice)
        tables.check()


def test_sessions_that_are_deleted_at_the_same_time_leave_nothing(engine: PostgresEngine, tables: Tables) -> None:
    for _ in range(5):
        keys = [_made(engine, A, 6), *(Key("alice", f"fork {number}") for number in range(7))]
        for key in keys[1:]:
            engine.fork(A, Record(*key))
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(engine.delete, keys)) == [True] * 8
        assert (tables.messages(), tables.logs()) == (set(), {})


def test_calls_at_the_same_time_leave_what_is_shown_and_nothing_else(engine: PostgresEngine, tables: Tables) -> None:
    def work(thread: int) -> None:
        dice = random.Random(thread)
        for _ in range(25):
            try:
                _step(engine, dice)
            except (SessionNotFound, SessionExists):
                pass  # another thread was faster
            except ValueError as exc:
                assert "not held by the session" in str(exc) or "start is a message number" in str(exc)  # noqa: PT017

    for key in (A, B, C):
        _made(engine, key, 3)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    tables.check()
    for record in engine.list_sessions("alice", limit=1000).records:
        engine.delete(record.key)
    assert (tables.messages(), tables.logs()) == (set(), {})
