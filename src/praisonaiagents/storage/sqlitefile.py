"""A SQLite file: how it is opened, brought up to date, shared by threads and processes, and what can be wrong with it.

SQLite lets one connection write at a time, and lets all others read meanwhile. So one connection of this process writes,
and who waits for it waits in the pool, where the next one goes on at once, not in SQLite, which looks again now and then.

What a reader would get wrong: a connection must not be open at the moment of a fork, used or not. SQLite keeps the locks of
a file in the memory of the process and would believe in the child that the parent's are its own; then the parent ends,
removes the write-ahead log that nobody seems to use, and what the child writes from then on is lost. So forking waits for
the calls that are going on, and closes the idle connections.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cached_property, partial
from typing import Any, ClassVar

from praisonaiagents.errors import (
    EngineUnreachable,
    LockTimeout,
    NewerFormat,
    NotASessionFile,
    SessionDamage,
    StorageError,
    StorageFull,
)
from praisonaiagents.storage.pool import Pool
from praisonaiagents.storage.sql import migrations, sql_file

MEMORY = ":memory:"
APPLICATION_ID = 0x50724149  # "PrAI", in the header of the file

_NO_FILE = (0, 0)
_LOOK_AGAIN_S = 0.025  # SQLite's own waiting sleeps longer and longer, and then others are always faster
_LOOK_CLOSELY_S = 0.1
_LOG_PAGES = 4000  # 16 MB; writing the log back waits for the disk, and four times as much costs little more
_CACHE_KIB = 8000  # of one connection, at most
_LONGEST_TIMEOUT_S = 1e6  # SQLite counts milliseconds in 32 bits
_FORK_PATIENCE_S = 2.0
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


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


class SqliteFile:
    """Transactions on one file, or on a database in memory. Opens nothing before the first.

    full: a loss of power loses nothing, at the cost of waiting for the disk. lock_timeout_s: how long a call waits for
    others, in seconds. readers: how many may read at the same time.
    """

    def __init__(self, path: str, *, full: bool, lock_timeout_s: float, readers: int) -> None:
        self.path = path
        self._full = full
        self.timeout_s = min(lock_timeout_s, _LONGEST_TIMEOUT_S)
        self._writer = _Writing(self)
        self._readers = _Readers(
            partial(self.connect, self.timeout_s, make=False), size=readers, wait_s=self.timeout_s, usable=is_there
        )
        _files.add(self)

    def reading(self) -> _Block:
        """A transaction that sees one state of the file from its first statement on. It must not write."""
        return self._writer if self.path == MEMORY else _Reading(self, self._readers)

    def writing(self) -> _Block:
        """A transaction that is stored whole when the block ends, and not at all if it raises."""
        return self._writer

    def close(self) -> None:
        """Close what is open and not in use."""
        self._writer.close()
        self._readers.close()

    def translated(self, exc: sqlite3.Error | EngineUnreachable, started: float) -> StorageError:
        """What the caller shall see of an error of SQLite, or of waiting for others, in a call that began at `started`."""
        path, kind, waited_s = self.path, kind_of(exc), time.monotonic() - started
        if isinstance(exc, EngineUnreachable):
            return LockTimeout(path, waited_s, "other threads of this process")
        if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LockTimeout(path, waited_s)
        if getattr(exc, "sqlite_errorcode", 0) in _NO_ROOM:
            return StorageFull(f"no room left for {path} (disk, quota or file size limit): nothing was stored", path)
        if kind == sqlite3.SQLITE_NOTADB:
            return NotASessionFile(f"{path} is no SQLite database; it was left alone", path)
        return StorageError(_TEXTS.get(kind, "{path}: SQLite says: {exc}").format(path=path, exc=exc), path)

    # Opening

    def connect(self, busy_timeout_s: float, *, make: bool = True) -> Connection:
        """A new connection, to a file that is up to date. Raises `StorageError`, and what SQLite raises."""
        deadline = time.monotonic() + self.timeout_s
        db = self._open(busy_timeout_s, make=make)
        try:
            while True:
                try:
                    self._set_up(db)
                except sqlite3.OperationalError as exc:
                    _look_again(exc, deadline)
                else:
                    return db
        except BaseException:
            db.close()
            raise

    def _open(self, busy_timeout_s: float, *, make: bool) -> Connection:
        """Open the file. Where there is none, and none is to be made, what is opened is empty, and not used again."""
        with _opening:
            if not make and _is_absent(self.path):
                nothing = sqlite3.connect(MEMORY, isolation_level=None, check_same_thread=False, factory=Connection)
                nothing.path, nothing.file = self.path, _NO_FILE
                return nothing
            if self.path != MEMORY:
                _make_file(self.path)
            db = sqlite3.connect(
                self.path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False, factory=Connection
            )
            if self.path != MEMORY:
                found = os.stat(self.path)
                db.path, db.file = self.path, (found.st_dev, found.st_ino)
        return db

    def _set_up(self, db: Connection) -> None:
        version = self._version(db)
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode not in ("wal", "memory"):
            raise StorageError(
                f"{self.path} does not lie on a disk of this machine, which a shared database needs", self.path
            )
        db.execute(f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
        db.execute(f"PRAGMA fullfsync = {'ON' if self._full else 'OFF'}")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        can_search, db.has_search = db.execute(_SEARCH).fetchone()
        if version < self.newest_schema or can_search > db.has_search:
            self._migrate(db, search=can_search)
            db.has_search = can_search

    def _version(self, db: Connection) -> int:
        """The schema of the file, 0 if there is nothing in it. Raises for what is not ours, and what is newer than we are."""
        application, version, tables = db.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if application != APPLICATION_ID and (application or version or tables):
            raise NotASessionFile(f"{self.path} is a database of another application; it was left alone", self.path)
        if version > self.newest_schema:
            raise NewerFormat(
                f"{self.path} has schema {version}, this version of the package knows {self.newest_schema}: upgrade it",
                self.path,
            )
        return int(version)

    def _migrate(self, db: Connection, *, search: bool) -> None:
        """All or nothing; if this raises, closing the connection undoes it."""
        db.execute("BEGIN IMMEDIATE")
        version = self._version(db)  # once more: somebody else may have been faster
        for number, _, text in self._migrations:
            if number > version:
                _run(db, text)
        if search:
            _run(db, sql_file("sqlite", "search.sql"))
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {self.newest_schema}")
        db.execute("COMMIT")

    @cached_property
    def _migrations(self) -> list[tuple[int, str, str]]:
        return migrations("sqlite")

    @property
    def newest_schema(self) -> int:
        """The schema this version of the package writes."""
        return self._migrations[-1][0]

    # Forks

    def before_fork(self) -> None:
        """Wait until nobody uses the file, close it, and let nobody open it."""
        deadline = time.monotonic() + _FORK_PATIENCE_S
        self._writer.pause(deadline)
        self._readers.pause(deadline)

    def after_fork_in_parent(self) -> None:
        self._writer.go_on()
        self._readers.go_on()

    def after_fork_in_child(self) -> None:
        """Begin anew. What is in memory is the child's own copy of it."""
        self._writer.begin_anew()
        self._readers.begin_anew()


class _Block(AbstractContextManager[Connection]):
    """A connection for one `with` block alone, in a transaction.

    No generator, and few calls: after SQLite has written, whatever else is done is slow for a while.
    """

    BEGIN: ClassVar[str]
    END: ClassVar[str]

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._db: Connection | None = None
        self._started = 0.0

    def _take(self) -> Connection:
        """Get the connection, also as `_db`. Raises `EngineUnreachable` if others keep it, and what connecting raises."""
        raise NotImplementedError

    def _give_back(self, db: Connection) -> None:
        raise NotImplementedError

    def __enter__(self) -> Connection:
        started = time.monotonic()
        if not _gate.is_open:
            _gate.wait(self._file.timeout_s)
        try:
            db = self._take()
            self._started = started
            try:
                db.quick(self.BEGIN)
            except BaseException as exc:
                self._begin_later(db, exc)
        except (sqlite3.Error, EngineUnreachable) as exc:
            raise self._file.translated(exc, started) from exc
        return db

    def _begin_later(self, db: Connection, failure: BaseException) -> None:
        """Try again as long as another process's lock is in the way. Raises the last failure."""
        try:
            while True:
                _look_again(failure, self._started + self._file.timeout_s)
                try:
                    db.quick(self.BEGIN)
                except sqlite3.Error as again:
                    failure = again
                else:
                    return
        except BaseException:
            self._give_back(db)
            raise

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        db, started = self._db, self._started
        assert db is not None  # noqa: S101 - the block has one
        try:
            if failure is None:
                db.quick(self.END)
        except sqlite3.Error as exc:
            failure = exc
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            damage, db.damage = db.damage, ()
            self._give_back(db)
        if isinstance(failure, sqlite3.Error):
            raise self._file.translated(failure, started) from failure
        for warning in damage:
            warnings.warn(warning, stacklevel=3)  # whoever called the engine


class _Writing(_Block):
    """The one connection that writes, for one block at a time. It is made when it is first needed."""

    BEGIN, END = "BEGIN IMMEDIATE", "COMMIT"

    def __init__(self, file: SqliteFile) -> None:
        super().__init__(file)
        self._lock = threading.Lock()
        self._paused = False
        self._inherited: list[Connection | None] = []

    def _take(self) -> Connection:
        if not self._lock.acquire(timeout=self._file.timeout_s):
            raise EngineUnreachable("the connection that writes was in use")
        try:
            db = self._db
            if db is None or not is_there(db):
                self._close()
                db = self._db = self._file.connect(_LOOK_AGAIN_S)
        except BaseException:
            self._lock.release()
            raise
        return db

    def _give_back(self, db: Connection) -> None:
        self._lock.release()

    def close(self) -> None:
        if self._lock.acquire(blocking=False):
            self._close()
            self._lock.release()

    def _close(self) -> None:
        old, self._db = self._db, None
        if old is not None:
            old.close()

    def pause(self, deadline: float) -> None:
        self._paused = self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
        if self._paused and self._file.path != MEMORY:
            self._close()

    def go_on(self) -> None:
        if self._paused:
            self._lock.release()

    def begin_anew(self) -> None:
        self._lock = threading.Lock()
        if self._file.path != MEMORY:
            self._inherited.append(self._db)
            self._db = None


class _Reading(_Block):
    """One of the connections that read."""

    BEGIN, END = "BEGIN", "ROLLBACK"  # after damage was met, a COMMIT fails

    def __init__(self, file: SqliteFile, readers: _Readers) -> None:
        super().__init__(file)
        self._readers = readers

    def _take(self) -> Connection:
        db = self._db = self._readers.take()
        return db

    def _give_back(self, db: Connection) -> None:
        self._readers.give_back(db)


class _Readers(Pool[Connection]):
    """A pool that can be emptied for a while, and whose connections are taken and given back without ceremony."""

    _held = 0

    def take(self) -> Connection:
        return self._take()

    def give_back(self, connection: Connection) -> None:
        self._idle.append(connection)
        self._slots.release()

    def pause(self, deadline: float) -> None:
        """Lend nothing before `go_on`. Returns when all connections are back and closed, or at the deadline."""
        while self._held < self.size and self._slots.acquire(timeout=max(0.0, deadline - time.monotonic())):
            self._held += 1
        self.close()

    def go_on(self) -> None:
        while self._held:
            self._held -= 1
            self._slots.release()

    def begin_anew(self) -> None:
        """Forget all connections, and the locks, which threads that are not in this process may hold."""
        self._held = 0
        self._inherited.append(self._idle)
        self._begin()


class _Gate:
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

    def wait(self, timeout_s: float) -> None:
        self._opened.wait(timeout_s)


_gate = _Gate()
_opening = threading.Lock()  # closing a file lets go of all locks that this process has on it, SQLite's own too
_forking = threading.Lock()
_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()
_paused: list[SqliteFile] = []


def _before_fork() -> None:
    _forking.acquire()
    _gate.shut()
    _paused.extend(_files)
    for file in _paused:
        file.before_fork()


def _after_fork(end: Callable[[SqliteFile], None], begin: Callable[[], None]) -> None:
    for file in _paused:
        end(file)
    _paused.clear()
    begin()
    _forking.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=partial(_after_fork, SqliteFile.after_fork_in_parent, _gate.open),
    after_in_child=partial(_after_fork, SqliteFile.after_fork_in_child, _gate.begin_anew),
)

_SEARCH = """
SELECT can_search, can_search AND EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'search')
FROM (SELECT EXISTS (SELECT 1 FROM pragma_module_list WHERE name = 'fts5') AS can_search)
"""
_TEXTS = {
    sqlite3.SQLITE_CORRUPT: "{path} is damaged ({exc}). Nothing was changed. Copy the file, then save what can be read: "
    "sqlite3 {path} .recover | sqlite3 rescued.db",
    sqlite3.SQLITE_READONLY: "{path} cannot be written to ({exc}): nothing was stored",
    sqlite3.SQLITE_CANTOPEN: "{path} could not be opened: look at its permissions and those of its folder",
    sqlite3.SQLITE_PERM: "{path} could not be opened: look at its permissions",
    sqlite3.SQLITE_IOERR: "the disk of {path} failed ({exc}); on a network disk, use a database server instead",
    sqlite3.SQLITE_PROTOCOL: "{path} cannot be locked ({exc}); on a network disk, use a database server instead",
}


def kind_of(exc: BaseException) -> int:
    """SQLite's primary result code; 0 for what does not come from it."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF


def is_there(db: Connection) -> bool:
    """False if the file was removed or replaced since it was opened: nobody would find what is written to it.

    To a connection that is used all the time, only now and then whether it is the same file, which takes twice as long.
    """
    if db.file is None:
        return True
    if db.file == _NO_FILE:
        return False
    now = time.monotonic()
    if now < db.looked_at + _LOOK_CLOSELY_S and os.access(db.path, os.F_OK):
        return True
    try:
        found = os.stat(db.path)
    except OSError:
        return False
    db.looked_at = now
    return (found.st_dev, found.st_ino) == db.file


def _look_again(failure: BaseException, deadline: float) -> None:
    """Return if somebody else's lock was in the way and there is time left, else raise `failure`."""
    if kind_of(failure) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
        raise failure
    time.sleep(0.001)


def _run(db: Connection, text: str) -> None:
    """Run a text of statements, each ending at the end of a line, in the transaction that is open."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


def _is_absent(path: str) -> bool:
    """True if there is nothing. Raises `StorageError` if that cannot be seen."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as exc:
        raise StorageError(f"{path} could not be opened: {exc.strerror}", path) from exc
    return False


def _make_file(path: str) -> None:
    """Make the file and its folder, for this user alone, unless they are there. Raises `StorageError`."""
    try:
        if not os.path.exists(path):
            _make_folder(os.path.dirname(path))
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as exc:
        kind = StorageFull if exc.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"{path} could not be opened: {exc.strerror}", path) from exc
    if not is_file:
        raise NotASessionFile(f"{path} is no file; it was left alone", path)


def _make_folder(path: str) -> None:
    if not os.path.isdir(path):
        _make_folder(os.path.dirname(path))
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
