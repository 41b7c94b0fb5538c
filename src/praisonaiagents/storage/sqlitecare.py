"""A SQLite file that forgets, is read byte by byte, and is looked over.

What a reader would get wrong: this process must not open the file a second time in order to read its bytes. Closing it
would let go of all locks that the process has on the file, SQLite's own too, and then another process may remove the
write-ahead log. So another process reads it.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, Any, cast

from praisonaiagents.errors import LockTimeout, StorageError
from praisonaiagents.storage.powers import Finding, Forgotten, Raw, counted, framed, pieces
from praisonaiagents.storage.sqlitefile import SqliteFile
from praisonaiagents.storage.sqlitetransaction import LOOK_AGAIN_S, MEMORY, Connection

_ROWS = 500
_USER = "\ue000"  # begins the word of a user in the search index, see `sqlitesearch`
_COPY = "import shutil, sys; shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer)"
_MOST_FINDINGS = 20
_FOREIGN = "row {1} of table {0} points to a row of {2} that is gone"
_RECOVER = "copy the file, then: sqlite3 {path} .recover | sqlite3 rescued.db; or restore a backup"


def write_anew(file: SqliteFile) -> None:
    """Write the file anew, merge its index before if it has one, and empty the write-ahead log."""
    with file.writing() as db:
        if db.has_search:
            db.execute("INSERT INTO search (search) VALUES ('optimize')")
    with file.writing() as db:
        db.execute("COMMIT")  # neither of the two can be done in a transaction
        db.execute(f"PRAGMA busy_timeout = {int(file.timeout_s * 1000)}")
        try:
            db.execute("VACUUM")
            _empty_log(file, db)
        finally:
            db.execute(f"PRAGMA busy_timeout = {int(LOOK_AGAIN_S * 1000)}")
        db.execute("BEGIN")


def forget(file: SqliteFile) -> Forgotten:
    """Merge the index, write the file anew and empty the write-ahead log. Where there is no file, none is made."""
    if file.path != MEMORY and not os.path.exists(file.path):
        return Forgotten([], [])
    with file.writing() as db:
        db.execute("DELETE FROM set_aside WHERE log NOT IN (SELECT n FROM log)")
    write_anew(file)
    if file.path == MEMORY:
        return Forgotten(
            [], ["the memory of this process may hold copies until they are overwritten, or until it ends"]
        )
    left_to_operators = [
        f"copies and backups of {file.path} are as they were",
        "the disk may keep blocks that the file no longer has, in snapshots or until they are overwritten: only an "
        "encrypted disk, or one that is wiped, forgets them",
    ]
    return Forgotten([], left_to_operators)


def _empty_log(file: SqliteFile, db: Connection) -> None:
    """Raises `LockTimeout` if somebody reads all the time."""
    started = time.monotonic()
    while True:
        (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return
        if time.monotonic() - started > file.timeout_s:
            raise LockTimeout(file.path, time.monotonic() - started, "a reader of its write-ahead log")
        time.sleep(LOOK_AGAIN_S)


# Byte by byte


def raw(file: SqliteFile) -> Iterator[Raw]:
    """The file and those beside it, then every cell of every table, then the words of the search index."""
    yield Raw(f"tables of {file.path}", "", b"")
    if file.path != MEMORY:
        for path in filter(os.path.exists, (file.path + ending for ending in ("", "-wal", "-shm", "-journal"))):
            yield Raw(f"bytes of {path}", "", b"")
            yield from (Raw(f"bytes of {path}", "", piece) for piece in _bytes_of(path))
    with file.reading() as db:
        yield from _cells(file, db)
        yield from _words(file, db)


def _bytes_of(path: str) -> Iterator[bytes]:
    command = [sys.executable, "-I", "-S", "-c", _COPY, path]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:  # noqa: S603
            out = cast("IO[bytes]", other.stdout)
            yield from pieces(iter(lambda: out.read(1 << 20), b""))
        failed = other.returncode != 0
    except OSError:
        failed = True
    if failed and os.path.exists(path):
        raise StorageError(f"{path} could not be read byte by byte by another process", path)


def _cells(file: SqliteFile, db: Connection) -> Iterator[Raw]:
    tables = db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    ).fetchall()
    for (table,) in tables:
        rows = db.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - names of our own tables
        while some := rows.fetchmany(_ROWS):
            cells = (_bytes(cell) for row in some for cell in row if isinstance(cell, (str, bytes)))
            yield Raw(f"tables of {file.path}", f"table {table}", framed(cells))


def _words(file: SqliteFile, db: Connection) -> Iterator[Raw]:
    if not db.has_search:
        return
    db.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.words_of_search USING fts5vocab('main', 'search', 'row')")
    words = db.execute("SELECT term FROM temp.words_of_search")
    while some := words.fetchmany(10_000):
        yield Raw(f"tables of {file.path}", "the search index", framed(_bytes(_in_clear(word)) for (word,) in some))
    words.close()


def _in_clear(word: str) -> str:
    """A word of the index; that of a user as the user's id."""
    return bytes.fromhex(word[1:]).decode() if word.startswith(_USER) else word


def _bytes(cell: str | bytes) -> bytes:
    return cell.encode("utf-8", "surrogatepass") if isinstance(cell, str) else cell


# Looking over


def audit(file: SqliteFile) -> Iterator[Finding]:
    """What SQLite itself finds, then what refers to nothing."""
    recover = _RECOVER.format(path=file.path)
    try:
        with file.reading() as db:
            said = [text for (text,) in _rows(db, f"PRAGMA integrity_check({_MOST_FINDINGS})")]
            said += [_FOREIGN.format(*row) for row in _rows(db, "PRAGMA foreign_key_check") if len(row) > 1][
                :_MOST_FINDINGS
            ]
            yield from (Finding(True, f"{file.path}: SQLite says: {text}", recover) for text in said if text != "ok")
            yield from (_finding(db, *check) for check in _CHECKS if _count(db, check[0]))
    except StorageError as exc:
        yield Finding(True, str(exc), recover)


def _rows(db: Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a check, as far as it comes; where it stops at damage, a last one that tells so."""
    try:
        yield from db.execute(query)
    except sqlite3.DatabaseError as exc:
        yield (str(exc),)


def _finding(db: Connection, query: str, is_damage: bool, what: str, remedy: str) -> Finding:
    number = _count(db, query)
    return Finding(is_damage, what.format(**{f"{noun}s": counted(number, noun) for noun in _NOUNS}), remedy)


def _count(db: Connection, query: str) -> int:
    for (count,) in _rows(db, query):
        return count if isinstance(count, int) else 0  # that the file is damaged was told already
    return 0


_NOUNS = ("log", "message", "id", "row")
_HARMLESS = "harmless, it only takes room"
_CHECKS: tuple[tuple[str, bool, str, str], ...] = (
    (
        "SELECT count(*) FROM log WHERE n NOT IN (SELECT log FROM session UNION SELECT log FROM pin "
        "UNION SELECT base FROM log WHERE base IS NOT NULL)",
        False,
        "{logs} that no session, pin or other log shows",
        _HARMLESS,
    ),
    (
        "SELECT count(*) FROM message WHERE log NOT IN (SELECT n FROM log)",
        True,
        "{messages} whose log is gone: a session may have lost its history",
        "the rows are still in table message: copy them, and restore the session from a backup",
    ),
    (
        "SELECT count(*) FROM message_id AS known WHERE NOT EXISTS (SELECT 1 FROM message "
        "WHERE message.log = known.log AND message.number = known.number)",
        False,
        "{ids} in the index of ids, of messages that are gone",
        _HARMLESS,
    ),
    (
        "SELECT count(*) FROM set_aside",
        False,
        "{rows} set aside, which stood where a message had to go",
        "look at table set_aside, and delete what is of no use",
    ),
)
