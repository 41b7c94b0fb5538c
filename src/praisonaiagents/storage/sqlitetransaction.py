"""Transactions of SQLite: one connection of this process writes, some read meanwhile.

SQLite lets one connection write at a time. Whoever waits for it in this process waits here, and goes on at once, not in
SQLite, which looks again now and then. What several threads append at the same time is stored in one transaction: storing
costs more than writing, and by far more where it waits for the disk.

What a reader would get wrong: nobody's call may fail for another's. In a shared transaction each piece of work raises
before it writes, or not at all; if anything else goes wrong, all is undone, and each is done again alone.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from queue import Empty
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from praisonaiagents.errors import EngineUnreachable, LockTimeout, PraisonError, SessionDamage
from praisonaiagents.storage.pool import Pool

if TYPE_CHECKING:
    from praisonaiagents.storage.sqlitefile import SqliteFile

MEMORY = ":memory:"
NO_FILE = (0, 0)  # no device and inode are these
LOOK_AGAIN_S = 0.025  # SQLite's own waiting sleeps longer and longer, and then others are always faster

_LOOK_CLOSELY_S = 0.1
_MOMENT_S = 0.00001
_MOST_TOGETHER = 64
_LOOK_UP_S = 0.1
T = TypeVar("T")


class Connection(sqlite3.Connection):
    """One connection, and what is known of it.

    path: the file's. file: what was opened there, as (device, inode), seen there at `looked_at`.
    has_search: whether there is an index.
    damage: what was found, and is told when the transaction is over.
    quick: `execute` with one cursor for all calls, for what is fetched before the next call.
    """

    path = MEMORY
    file: tuple[int, int] | None = None
    looked_at = 0.0
    has_search = False
    damage: tuple[SessionDamage, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quick = self.cursor().execute

    def report(self, what: str, kept: int, set_aside: str | None = None) -> None:
        """Let a `SessionDamage` be told when the transaction is over."""
        self.damage = (*self.damage, SessionDamage(self.path, set_aside, kept, what))


class Block(AbstractContextManager[Connection]):
    """A connection for one `with` block alone, in a transaction. `is_stored`: the last block ended and was stored.

    No generator, and few calls: after SQLite has written, whatever else is done is slow for a while.
    """

    BEGIN: ClassVar[str]
    END: ClassVar[str]

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._db: Connection | None = None
        self._started = 0.0
        self._damage: tuple[SessionDamage, ...] = ()
        self.is_stored = False

    def take(self) -> Connection:
        """Get the connection, also as `_db`. Raises `EngineUnreachable` if others keep it, and what connecting raises."""
        raise NotImplementedError

    def give_back(self, db: Connection) -> None:
        raise NotImplementedError

    def __enter__(self) -> Connection:
        self._started = time.monotonic()
        try:
            db = self.take()
            try:
                db.quick(self.BEGIN)
            except BaseException as exc:
                self._begin_later(db, exc)
        except (sqlite3.Error, EngineUnreachable) as exc:
            raise self._file.translated(exc, self._started) from exc
        return db

    def _begin_later(self, db: Connection, failure: BaseException) -> None:
        """Try again as long as another process's lock is in the way. Raises the last failure."""
        try:
            while True:
                look_again(failure, self._started + self._file.timeout_s)
                try:
                    db.quick(self.BEGIN)
                except sqlite3.Error as again:
                    failure = again
                else:
                    return
        except BaseException:
            if db.in_transaction:  # an interrupt came right afterwards
                db.execute("ROLLBACK")
            self.give_back(db)
            raise

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        db = self._db
        assert db is not None  # noqa: S101 - the block has one
        try:
            if failure is None:
                db.quick(self.END)
        except sqlite3.Error as exc:
            failure = exc
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            else:
                self.is_stored = failure is None  # also if an interrupt came right afterwards
            self._damage, db.damage = db.damage, ()
            self.give_back(db)
        if isinstance(failure, sqlite3.Error):
            raise self._file.translated(failure, self._started) from failure

    def damage(self) -> tuple[SessionDamage, ...]:
        """What the last block found, once: to be told when others can go on, since who hears of it may write."""
        found, self._damage = self._damage, ()
        return found


class Reading(Block):
    """One of the connections that read."""

    BEGIN, END = "BEGIN", "ROLLBACK"  # after damage was met, a COMMIT fails

    def __init__(self, file: SqliteFile, readers: Readers) -> None:
        super().__init__(file)
        self._readers = readers

    def take(self) -> Connection:
        gate.pass_through(self._file.timeout_s)
        db = self._db = self._readers.take()
        return db

    def give_back(self, db: Connection) -> None:
        self._readers.give_back(db)

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        super().__exit__(kind, failure, trace)
        _tell(self.damage())


class _Writing(Block):
    """The connection that writes. Whoever uses it holds the writer's lock."""

    BEGIN, END = "BEGIN IMMEDIATE", "COMMIT"

    def take(self) -> Connection:
        db = self._db
        if db is not None and is_there(db, self._started):
            return db
        self.close()
        db = self._db = self._file.connect(LOOK_AGAIN_S)
        return db

    def give_back(self, db: Connection) -> None:
        """It stays."""

    def close(self) -> None:
        old = self.let_go()
        if old is not None:
            old.close()

    def let_go(self) -> Connection | None:
        """Forget the connection, which is returned."""
        old, self._db = self._db, None
        return old


class _Task(Generic[T]):
    """Work that waits to be done together with others'."""

    def __init__(self, work: Callable[[Connection], T]) -> None:
        self._work = work
        self._value: list[T] = []
        self.failure: BaseException | None = None
        self.damage: tuple[SessionDamage, ...] = ()
        self.is_done = False
        self.woken = threading.Lock()
        self.woken.acquire()

    def run(self, db: Connection) -> None:
        """Do the work. What it refuses is its own affair, whatever else it raises that of all."""
        self.failure = None
        try:
            self._value = [self._work(db)]
        except PraisonError as exc:
            self.failure = exc
        self.damage, db.damage = db.damage, ()

    def wake(self) -> None:
        with suppress(RuntimeError):  # is awake
            self.woken.release()

    def result(self) -> T:
        if self.failure is not None:
            raise self.failure
        return self._value[0]


class Writer(AbstractContextManager[Connection]):
    """The one that writes: a `with` block alone, or several threads `together`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._block = _Writing(file)
        self._is_shared = False
        self._inherited: list[Connection | None] = []
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._tasks: deque[_Task[Any]] = deque()
        self._is_paused = False

    def __enter__(self) -> Connection:
        gate.pass_through(self._file.timeout_s)
        started = time.monotonic()
        if not self._lock.acquire(timeout=self._file.timeout_s):
            raise self._in_use(started)
        try:
            return self._block.__enter__()
        except BaseException:
            self._let_go()
            raise

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        try:
            self._block.__exit__(kind, failure, trace)
            damage = self._block.damage()
        except BaseException:
            self._let_go()
            raise
        self._release()
        _tell(damage)

    def together(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, once it is stored. Other threads' work may be stored with it.

        `work` raises a `PraisonError` only before it has written anything. It may be run again.
        """
        gate.pass_through(self._file.timeout_s)
        if self._is_shared or not self._lock.acquire(blocking=False):
            task = _Task(work)
            self._share(task)
            _tell(task.damage)
            return task.result()
        try:
            with self._block as db:
                value = work(db)
            damage = self._block.damage()
        except BaseException:
            self._let_go()
            raise
        self._release()
        _tell(damage)
        return value

    def _share(self, task: _Task[Any]) -> None:
        started = time.monotonic()
        try:
            self._tasks.append(task)
            while not task.is_done:
                if self._lock.acquire(blocking=False):
                    self._lead(task)
                else:
                    self._is_shared = True
                    self._wait(task, started)
        except BaseException:
            self._withdraw(task)
            raise

    def _lead(self, own: _Task[Any]) -> None:
        """Do what waits, with the lock, which is given up."""
        try:
            if not own.is_done and own not in self._tasks:
                self._tasks.append(own)  # who had taken it was interrupted
            if self._is_shared:
                time.sleep(_MOMENT_S)  # for those that are about to come
        finally:
            self._release(own)

    def _wait(self, task: _Task[Any], started: float) -> None:
        """Until somebody has done the task, or it may be its turn to lead. Raises `LockTimeout` if nobody has begun in time.

        Who should wake this thread may have been interrupted, so it looks again by itself, too.
        """
        left_s = started + self._file.timeout_s - time.monotonic()
        is_awake = task.woken.acquire(timeout=min(left_s, _LOOK_UP_S) if left_s > 0 else _LOOK_UP_S)
        if not is_awake and left_s <= _LOOK_UP_S and self._withdraw(task):
            raise self._in_use(started)

    def _withdraw(self, task: _Task[Any]) -> bool:
        """True if nobody has begun the task, and nobody will."""
        try:
            self._tasks.remove(task)
        except ValueError:
            return False
        self._wake_next()  # who may have been woken only by way of this one
        return True

    def _do(self, tasks: list[_Task[Any]]) -> None:
        """Store each of the tasks, or say what went wrong. Raises only interrupts."""
        try:
            self._store(tasks)
        except Exception as exc:
            if len(tasks) > 1 and not isinstance(exc, LockTimeout):
                for task in tasks:
                    self._do([task])
            else:
                for task in tasks:
                    task.failure, task.is_done = exc, True

    def _store(self, tasks: list[_Task[Any]]) -> None:
        self._block.is_stored = False
        try:
            with self._block as db:
                for task in tasks:
                    task.run(db)
        finally:
            if self._block.is_stored:
                for task in tasks:
                    task.is_done = True

    def _release(self, own: _Task[Any] | None = None) -> None:
        """Give up the lock, after doing what waits: else those who take it by force would keep the others waiting.

        own: the work of this thread. An interrupt is the affair of this thread alone, and leaves the rest to the next.
        """
        tasks: list[_Task[Any]] = []
        try:
            if self._tasks:
                self._take(tasks)
                self._is_shared = len(tasks) > 1 or own is None
                self._do(tasks)
        except BaseException:
            self._tasks.extendleft(task for task in reversed(tasks) if not task.is_done and task is not own)
            raise
        finally:
            self._lock.release()
            for task in tasks:
                task.wake()
            if self._tasks:
                self._wake_next()

    def _let_go(self) -> None:
        """Give up the lock at once, because this thread's own work failed: the next one that waits does what waits."""
        self._lock.release()
        if self._tasks:
            self._wake_next()

    def _take(self, tasks: list[_Task[Any]]) -> None:
        with suppress(IndexError):
            while len(tasks) < _MOST_TOGETHER:
                tasks.append(self._tasks.popleft())

    def _wake_next(self) -> None:
        with suppress(IndexError):
            self._tasks[0].wake()

    def _in_use(self, started: float) -> LockTimeout:
        return LockTimeout(self._file.path, time.monotonic() - started, "other threads of this process")

    def close(self) -> None:
        """Close the connection unless it is in use."""
        if self._lock.acquire(blocking=False):
            self._block.close()
            self._release()

    def pause(self, deadline: float) -> None:
        """Let nobody write before `go_on`, and close the file. Returns then, or at the deadline."""
        self._is_paused = self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
        if self._is_paused and self._file.path != MEMORY:
            self._block.close()

    def go_on(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._let_go()

    def begin_anew(self) -> None:
        """Forget the lock and the work of threads that are not in this process; and the connection, but for memory."""
        self._begin()
        if self._file.path != MEMORY:
            self._inherited.append(self._block.let_go())


class Readers(Pool[Connection]):
    """A pool that can be emptied for a while, and whose connections are taken and given back without ceremony."""

    _held = 0

    def take(self) -> Connection:
        return self._take()

    def give_back(self, connection: Connection) -> None:
        self._idle.append(connection)
        self._slots.put(None)

    def pause(self, deadline: float) -> None:
        """Lend nothing before `go_on`. Returns when all connections are back and closed, or at the deadline."""
        with suppress(Empty):
            while self._held < self.size:
                self._slots.get(timeout=max(0.0, deadline - time.monotonic()))
                self._held += 1
        self.close()

    def go_on(self) -> None:
        while self._held:
            self._held -= 1
            self._slots.put(None)

    def begin_anew(self) -> None:
        """Forget all connections, and the locks, which threads that are not in this process may hold."""
        self._held = 0
        self._inherited.append(self._idle)
        self._begin()


class Gate:
    """Closed while this process forks, so that nobody begins anything then.

    Else those who take and give back all the time might keep a fork waiting for ever.
    """

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Open, with an event that no other thread knows: in a child, one that is not there may hold the old one."""
        self._opened = threading.Event()
        self.is_open = True

    def shut(self) -> None:
        self._opened.clear()
        self.is_open = False

    def open(self) -> None:
        self.is_open = True
        self._opened.set()

    def pass_through(self, timeout_s: float) -> None:
        """Wait until it is open."""
        if not self.is_open:
            self._opened.wait(timeout_s)


gate = Gate()


def _tell(damage: tuple[SessionDamage, ...]) -> None:
    """Warn of damage, as a warning of whoever called the engine."""
    for warning in damage:
        warnings.warn(warning, stacklevel=4)


def kind_of(exc: BaseException | None) -> int:
    """SQLite's primary result code; 0 for what does not come from it."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF


def is_there(db: Connection, now: float | None = None) -> bool:
    """False if the file was removed or replaced since it was opened: nobody would find what is written to it.

    To a connection that is used all the time, only now and then whether it is the same file, which takes twice as long.
    """
    now = now or time.monotonic()
    if now < db.looked_at + _LOOK_CLOSELY_S and os.access(db.path, os.F_OK):
        return True
    if db.file is None:
        return True
    if db.file == NO_FILE:
        return False
    try:
        found = os.stat(db.path)
    except OSError:
        return False
    db.looked_at = now
    return (found.st_dev, found.st_ino) == db.file


def look_again(failure: BaseException, deadline: float) -> None:
    """Return if somebody else's lock was in the way and there is time left, else raise `failure`."""
    if kind_of(failure) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
        raise failure
    time.sleep(0.001)
