"""Appends of several threads that are stored in one transaction: each is stored whole or raises, whatever the others do.

What a reader would get wrong: nothing here depends on who is fast. The test holds the connection that writes until all
threads wait for it, and whoever gives it up does what waits.
"""

from __future__ import annotations

import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from praisonaiagents.errors import Conflict, LockTimeout, MessageIdConflict, SessionNotFound, StorageError, StorageFull
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.storage import sqlitetransaction
from praisonaiagents.storage.engine import Appended
from praisonaiagents.storage.sqlite import SqliteEngine
from praisonaiagents.storage.sqlitetransaction import Writer

KEY = Key("alice", "s")
THREADS = 8
PATIENCE_S = 20.0


@pytest.fixture(params=["file", "memory"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteEngine]:
    path = tmp_path / "s.db" if request.param == "file" else ":memory:"
    with closing(SqliteEngine(path, lock_timeout_s=PATIENCE_S)) as engine:
        engine.open_session(Record(*KEY))
        yield engine


@contextmanager
def held(engine: SqliteEngine, waiting: int) -> Iterator[None]:
    """Hold the connection that writes until the block has ended and so many calls wait for it."""
    with engine._file.writing():
        yield
        while len(engine._file.writing()._tasks) < waiting:
            threading.Event().wait(0.001)


def together(engine: SqliteEngine, calls: list[Callable[[], Any]]) -> list[Future[Any]]:
    """Make the calls at the same time, each in a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as pool, held(engine, len(calls)):
        return [pool.submit(call) for call in calls]


def say(engine: SqliteEngine, text: str, **options: Any) -> Callable[[], Appended]:
    return lambda: engine.append(KEY, [Message("user", text, id=text)], **options)


def said(engine: SqliteEngine) -> list[Any]:
    return [message.content for message in engine.read(KEY).messages]


def test_what_waits_is_stored_in_one_transaction(tmp_path: Path) -> None:
    with closing(SqliteEngine(tmp_path / "s.db")) as engine, closing(sqlite3.connect(tmp_path / "s.db")) as db:
        engine.open_session(Record(*KEY))
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        futures = together(engine, [say(engine, str(number)) for number in range(THREADS)])
        assert sorted(future.result().length for future in futures) == list(range(1, THREADS + 1))
        assert said(engine) == [f.result().ids[0] for f in sorted(futures, key=lambda f: f.result().length)]
        one = (tmp_path / "s.db-wal").stat().st_size
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for number in range(THREADS):
            say(engine, f"alone {number}")()
        assert (tmp_path / "s.db-wal").stat().st_size > 3 * one


def test_what_one_is_refused_is_nothing_to_the_others(engine: SqliteEngine) -> None:
    say(engine, "before")()
    engine.open_session(Record("alice", "other"))
    refused: dict[type[Exception], Callable[[], Any]] = {
        Conflict: say(engine, "late", expected_length=100),
        MessageIdConflict: lambda: engine.append(KEY, [Message("user", "x"), Message("user", "other", id="before")]),
        SessionNotFound: lambda: engine.append(Key("bob", "s"), [Message("user", "x")]),
        UnicodeEncodeError: lambda: engine.append(Key("\ud800", "s"), [Message("user", "x")]),
    }
    stored = [say(engine, str(number)) for number in range(4)]
    repeated = say(engine, "before")
    calls = [call for pair in zip(refused.values(), stored, strict=True) for call in pair]
    futures = together(engine, [*calls, repeated])
    for error, future in zip(refused, futures[:8:2], strict=True):
        with pytest.raises(error):
            future.result()
    assert [future.result().ids for future in futures[1:8:2]] == [("0",), ("1",), ("2",), ("3",)]
    assert sorted(said(engine)) == ["0", "1", "2", "3", "before"]


def test_what_does_not_fit_fails_alone(engine: SqliteEngine) -> None:
    with engine._file.writing() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + 10}")
    large = lambda: engine.append(KEY, [Message("user", "x" * 100_000)])  # noqa: E731
    futures = together(engine, [say(engine, "0"), large, say(engine, "1"), large, say(engine, "2")])
    for number in (1, 3):
        with pytest.raises(StorageFull):
            futures[number].result()
    assert sorted(said(engine)) == ["0", "1", "2"]


def test_a_transaction_that_sqlite_gave_up_by_itself_is_not_taken_for_stored(engine: SqliteEngine) -> None:
    def fail(db: Any) -> None:
        db.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    writer = engine._file.writing()
    futures = together(engine, [say(engine, "0"), lambda: writer.together(fail), say(engine, "1")])
    with pytest.raises(StorageError, match="disk I/O error"):
        futures[1].result()
    assert sorted(future.result().length for future in futures[::2]) == [1, 2]
    assert sorted(said(engine)) == ["0", "1"]


def test_who_is_being_served_does_not_give_up(tmp_path: Path) -> None:
    """The time to wait for others is over, but what they are doing is this thread's own work."""
    with closing(SqliteEngine(tmp_path / "s.db", lock_timeout_s=0.2)) as engine:
        engine.open_session(Record(*KEY))
        writer = engine._file.writing()
        calls = [lambda: writer.together(lambda db: threading.Event().wait(0.5)), say(engine, "0"), say(engine, "1")]
        with ThreadPoolExecutor(3) as pool:
            with held(engine, 3):
                futures = [pool.submit(call) for call in calls]
            assert sorted(future.result().length for future in futures[1:]) == [1, 2]


def test_who_comes_while_others_are_served_is_next(engine: SqliteEngine) -> None:
    writer = engine._file.writing()
    with ThreadPoolExecutor(2) as pool:

        def bring_another(db: Any) -> Future[Appended]:
            late = pool.submit(say(engine, "late"))
            while not writer._tasks:
                threading.Event().wait(0.001)
            return late

        with held(engine, 1):
            first = pool.submit(lambda: writer.together(bring_another))
        assert first.result().result().length == 1


def test_who_has_waited_too_long_stores_nothing(tmp_path: Path) -> None:
    with closing(SqliteEngine(tmp_path / "s.db", lock_timeout_s=0.1)) as engine:
        engine.open_session(Record(*KEY))
        calls = [say(engine, str(number)) for number in range(THREADS)]
        with engine._file.writing(), ThreadPoolExecutor(THREADS) as pool:
            for future in [pool.submit(call) for call in calls]:
                with pytest.raises(LockTimeout, match="other threads of this process") as caught:
                    future.result()
                assert caught.value.waited_s >= 0.1
        assert said(engine) == []
        assert say(engine, "after")().length == 1


def test_another_process_s_lock_stops_all_that_wait(tmp_path: Path) -> None:
    with closing(SqliteEngine(tmp_path / "s.db", lock_timeout_s=0.3)) as engine:
        engine.open_session(Record(*KEY))
        with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with ThreadPoolExecutor(THREADS) as pool:
                for future in [pool.submit(say(engine, str(number))) for number in range(THREADS)]:
                    with pytest.raises(LockTimeout):
                        future.result()
            other.rollback()
        assert said(engine) == []
        assert say(engine, "after")().length == 1


@pytest.mark.parametrize("when", [0, 3, 7])
def test_an_interrupt_of_who_stores_for_all_is_its_own_affair(engine: SqliteEngine, when: int) -> None:
    """The others' work is done by one of them, and once."""
    writer, interrupted = engine._file.writing(), threading.Event()

    def interrupt_once(db: Any) -> str:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt
        return "done"

    calls: list[Callable[[], Any]] = [say(engine, str(number)) for number in range(THREADS)]
    calls[when] = lambda: writer.together(interrupt_once)
    with ThreadPoolExecutor(THREADS) as pool:
        futures: list[Future[Any]] = []
        with pytest.raises(KeyboardInterrupt), held(engine, THREADS):
            futures += [pool.submit(call) for call in calls]
        assert [futures[when].result(), interrupted.is_set()] == ["done", True]
        lengths = sorted(future.result().length for number, future in enumerate(futures) if number != when)
    assert lengths == list(range(1, THREADS))
    assert sorted(said(engine)) == [str(number) for number in range(THREADS) if number != when]


def test_an_interrupt_after_it_was_stored_stores_nothing_again(engine: SqliteEngine) -> None:
    """It comes between SQLite's answer and ours."""
    block, first = engine._file.writing()._block, [True]
    real = block.give_back

    def interrupted(db: Any) -> None:
        real(db)
        if block.is_stored and first.pop():
            block.give_back = real  # type: ignore[method-assign]
            raise KeyboardInterrupt

    calls = [lambda: engine.append(KEY, [Message("user", "no id")])] * THREADS
    with ThreadPoolExecutor(THREADS) as pool:
        writer = engine._file.writing()
        writer._lock.acquire()
        futures = [pool.submit(call) for call in calls]
        while len(writer._tasks) < THREADS:
            threading.Event().wait(0.001)
        block.give_back = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            writer._release()
        assert sorted(future.result().length for future in futures) == list(range(1, THREADS + 1))
    say(engine, "after")()
    assert said(engine) == ["no id"] * THREADS + ["after"]


def test_who_writes_alone_does_what_waits_before_it_goes_on(engine: SqliteEngine) -> None:
    """Else a crowd that writes alone, one after the other, would keep those that wait for ever."""
    with ThreadPoolExecutor(3) as pool:
        with held(engine, 3):
            futures = [pool.submit(say(engine, str(number))) for number in range(3)]
        assert sorted(said(engine)) == ["0", "1", "2"]
        assert sorted(future.result().length for future in futures) == [1, 2, 3]


def test_many_threads_append_and_change_at_the_same_time(engine: SqliteEngine) -> None:
    barrier = threading.Barrier(THREADS)

    def work(thread: int) -> list[int]:
        barrier.wait()
        lengths = []
        for number in range(40):
            if thread % 4 == 3:
                engine.update(KEY, {"state": {str(thread): number}})
            else:
                lengths.append(engine.append(KEY, [Message("user", f"{thread}/{number}")]).length)
        return lengths

    with ThreadPoolExecutor(THREADS) as pool:
        lengths = list(pool.map(work, range(THREADS)))
    texts = said(engine)
    assert len(texts) == 6 * 40
    for thread, mine in enumerate(lengths):
        assert [texts[length - 1] for length in mine] == [f"{thread}/{number}" for number in range(len(mine))]
    assert engine.open_session(Record(*KEY)).revision == 80


def test_who_was_not_woken_looks_again_by_itself(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who should wake it may have been interrupted."""
    monkeypatch.setattr(sqlitetransaction._Task, "wake", lambda task: None)
    futures = together(engine, [say(engine, str(number)) for number in range(THREADS)])
    assert sorted(future.result().length for future in futures) == list(range(1, THREADS + 1))


def test_work_that_an_interrupted_thread_had_taken_is_done(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, real = engine._file.writing(), Writer._take

    def take_and_stop(self: Writer, tasks: list[Any]) -> None:
        monkeypatch.setattr(Writer, "_take", real)
        self._tasks.popleft()
        raise KeyboardInterrupt

    with ThreadPoolExecutor(THREADS) as pool:
        writer._lock.acquire()
        futures = [pool.submit(say(engine, str(number))) for number in range(THREADS)]
        while len(writer._tasks) < THREADS:
            threading.Event().wait(0.001)
        monkeypatch.setattr(Writer, "_take", take_and_stop)
        with pytest.raises(KeyboardInterrupt):
            writer._release()
        assert sorted(future.result().length for future in futures) == list(range(1, THREADS + 1))
    assert len(said(engine)) == THREADS


@pytest.mark.parametrize("way", ["write", "read"])
def test_an_interrupt_right_after_a_transaction_has_begun_leaves_none_behind(tmp_path: Path, way: str) -> None:
    """As when Ctrl-C is pressed while another process holds the file."""
    with closing(SqliteEngine(tmp_path / "s.db")) as engine:
        engine.open_session(Record(*KEY))
        engine.read(KEY)
        db = engine._file.writing()._block._db if way == "write" else engine._file._readers._idle[-1]
        assert db is not None
        real = db.quick

        def interrupted(statement: str, *values: Any) -> Any:
            db.quick = real
            real(statement, *values)
            raise KeyboardInterrupt

        db.quick = interrupted  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            say(engine, "lost")() if way == "write" else engine.read(KEY)
        assert not db.in_transaction
        assert say(engine, "after")().length == 1
        assert said(engine) == ["after"]


def test_who_hears_of_damage_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SqliteEngine(tmp_path / "s.db", lock_timeout_s=0.5)) as engine:
        engine.open_session(Record("alice", "notes"))
        log = engine.open_session(Record(*KEY)).log
        with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as db:
            db.execute(f"INSERT INTO message (log, number, id, body) VALUES ({log}, 0, 'foreign', 'x')")
        noted: list[int] = []

        def note(*args: Any, **kwargs: Any) -> None:
            noted.append(engine.append(Key("alice", "notes"), [Message("user", "damage")]).length)

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            monkeypatch.setattr(warnings, "showwarning", note)
            assert say(engine, "1")().length == 1
        assert noted == [1]
