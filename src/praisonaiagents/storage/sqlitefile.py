"""A SQLite file: how it is opened, brought up to date and forked with, and what can be wrong with it.

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
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cached_property, partial

from praisonaiagents.errors import (
    EngineUnreachable,
    LockTimeout,
    NewerFormat,
    NotASessionFile,
    StorageError,
    StorageFull,
)
from praisonaiagents.storage.sql import migrations, sql_file
from praisonaiagents.storage.sqlitetransaction import (
    MEMORY,
    NO_FILE,
    Connection,
    Readers,
    Reading,
    Writer,
    gate,
    is_there,
    kind_of,
    look_again,
)

APPLICATION_ID = 0x50724149  # "PrAI", in the header of the file

_LOG_PAGES = 4000  # 16 MB; writing the log back waits for the disk, and four times as much costs little more
_CACHE_KIB = 8000  # of one connection, at most
_LONGEST_TIMEOUT_S = 1e6  # SQLite counts milliseconds in 32 bits
_FORK_PATIENCE_S = 2.0
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


class SqliteFile:
    """Transactions on one file, or on a database in memory. Opens nothing before the first.

    full: a loss of power loses nothing, at the cost of waiting for the disk. lock_timeout_s: how long a call waits for
    others, in seconds. readers: how many may read at the same time. schema: the folder of its SQL, and application_id: the
    number in the header of such files.
    """

    def __init__(
        self,
        path: str,
        *,
        full: bool,
        lock_timeout_s: float,
        readers: int,
        schema: str = "sqlite",
        application_id: int = APPLICATION_ID,
    ) -> None:
        self.path = path
        self._full = full
        self._schema = schema
        self._application_id = application_id
        self.timeout_s = min(lock_timeout_s, _LONGEST_TIMEOUT_S)
        self._writer = Writer(self)
        self._readers = Readers(
            partial(self.connect, self.timeout_s, make=False), size=readers, wait_s=self.timeout_s, usable=is_there
        )
        _files.add(self)

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state of the file from its first statement on. It must not write."""
        return self._writer if self.path == MEMORY else Reading(self, self._readers)

    def writing(self) -> Writer:
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
                    look_again(exc, deadline)
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
                nothing.path, nothing.file = self.path, NO_FILE
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
        if application != self._application_id and (application or version or tables):
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
            _run(db, sql_file(self._schema, "search.sql"))
        db.execute(f"PRAGMA application_id = {self._application_id}")
        db.execute(f"PRAGMA user_version = {self.newest_schema}")
        db.execute("COMMIT")

    @cached_property
    def _migrations(self) -> list[tuple[int, str, str]]:
        return migrations(self._schema)

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


_opening = threading.Lock()  # closing a file lets go of all locks that this process has on it, SQLite's own too
_forking = threading.Lock()
_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()
_paused: list[SqliteFile] = []


def _before_fork() -> None:
    _forking.acquire()
    gate.shut()
    _paused.extend(_files)
    for file in _paused:
        file.before_fork()


def _after_fork(end: Callable[[SqliteFile], None], begin: Callable[[], None]) -> None:
    try:
        for file in _paused:
            end(file)
    finally:
        _paused.clear()
        begin()
        _forking.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=partial(_after_fork, SqliteFile.after_fork_in_parent, gate.open),
    after_in_child=partial(_after_fork, SqliteFile.after_fork_in_child, gate.begin_anew),
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
