"""Sessions in a SQLite file: for one machine, any number of processes.

    sqlite:///sessions.db     beside the working folder    sqlite:////var/lib/sessions.db     at this place
    sqlite://                 in memory, of this engine alone and gone when it is closed

A session points to the end of a log of messages (`sql/sqlite/0001_begin.sql`). A fork, and a head that moves, is a new log
that is based on another one. So letting go is the difficult part: what a session showed may still be shown by a fork of it,
by a pin, or by a log that is based on its log, and only what none of them shows is freed, in the same transaction.

What a reader would get wrong: a log that nobody looks at is not free as long as another one is based on it, and a base is
not needed any more once all that look through it begin after it. `_let_go` walks from the newest log down to its bases.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from praisonaiagents.errors import (
    ConfigError,
    Conflict,
    InvalidId,
    MessageIdConflict,
    PraisonError,
    SessionExists,
    SessionNotFound,
    StorageError,
    StorageFull,
)
from praisonaiagents.model.message import MAX_MESSAGE_BYTES, Message, decode_all, decode_or_none, encode
from praisonaiagents.model.points import Log, Segment, unreached
from praisonaiagents.model.record import Key, Pin, Record, check_reachable, check_record, patched
from praisonaiagents.model.search import Query
from praisonaiagents.storage.engine import Appended, Batch, Found, Page, Slice, batch, clip, same
from praisonaiagents.storage.scan import scan
from praisonaiagents.storage.sql import statements
from praisonaiagents.storage.sqlitefile import SqliteFile
from praisonaiagents.storage.sqlitesearch import EVERYTHING, forget, search
from praisonaiagents.storage.sqlitetransaction import MEMORY, Connection, kind_of

if TYPE_CHECKING:
    from praisonaiagents.storage.powers import Finding, Forgotten, Raw

_SQL = statements("sqlite")
_DETAILS = ("agent_name", "metadata", "state", "extra")
_MOST_MESSAGE_BYTES = 400_000_000  # a row of SQLite has at most 10^9, and holds the id twice
_NEWEST = 1 << 62  # above all changes
_MOST_ROWS = 1 << 31


class SqliteEngine:
    """One SQLite file, or memory (`:memory:`). The file and its folder are made with the first session, for this user alone.

    durability: "process" (a crash of the process loses nothing; one of the machine may lose what was stored last, and
        never damages the file) or "full" (a loss of power loses nothing).
    lock_timeout_s: how long a call waits for other writers, in seconds.
    max_message_bytes: the largest message, in bytes of JSON.
    pool_size: how many threads may read at the same time. One writes at a time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["process", "full"] = "process",
        lock_timeout_s: float = 5.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        pool_size: int = 4,
    ) -> None:
        if durability not in ("process", "full"):
            raise ConfigError(f"durability is 'process' or 'full', not {durability!r}")
        if not lock_timeout_s >= 0:
            raise ConfigError(f"lock_timeout is a number of seconds, not {lock_timeout_s!r}")
        if not 0 < max_message_bytes <= _MOST_MESSAGE_BYTES:
            raise ConfigError(f"max_message_bytes is a number up to {_MOST_MESSAGE_BYTES:,}, not {max_message_bytes!r}")
        if pool_size < 1:
            raise ConfigError(f"pool_size is a number of connections from 1, not {pool_size!r}")
        given = os.fspath(path)
        if not given or "\0" in given:
            raise ConfigError("the path of a SQLite file is neither empty nor has NUL characters in it")
        self.path = MEMORY if given == MEMORY else os.path.abspath(given)
        self.concurrency = 1 if self.path == MEMORY else pool_size
        self._durability = durability
        self._max_message_bytes = max_message_bytes
        self._file = SqliteFile(
            self.path, full=durability == "full", lock_timeout_s=lock_timeout_s, readers=self.concurrency
        )

    def __repr__(self) -> str:
        return f"SqliteEngine({self.path!r})"

    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        check_record(record)
        existing = None if must_be_new else self.get(record.key)
        if existing is not None:
            return existing
        with self._file.writing() as db:
            row = _row(db, record.key)
            if row is None:
                return _make(db, record, _new_log(db), start=0, length=0)
            if must_be_new:
                raise SessionExists(record.session_id, record.user_id)
            return row.record

    def get(self, key: Key) -> Record | None:
        with self._file.reading() as db:
            row = _row(db, key)
        return row.record if row else None

    def list_sessions(self, user_id: str | None, *, after: str | None = None, limit: int = 50) -> Page:
        before, most = (_NEWEST if after is None else int(after)), min(limit, _MOST_ROWS)
        with self._file.reading() as db:
            if user_id is None:
                found = db.execute(_SQL["records"], (before, most + 1)).fetchall()
            else:
                found = db.execute(_SQL["records_of_user"], (user_id, before, most + 1)).fetchall()
            rows = [_row_of(db, columns) for columns in found[:most]]
        more = str(rows[-1].change) if rows and len(found) > most else None
        return Page([row.record for row in rows], more)

    def owners(self, session_id: str) -> list[str]:
        with self._file.reading() as db:
            return sorted(user_id for (user_id,) in db.execute(_SQL["owners"], (session_id,)))

    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        given = batch(messages, self._max_message_bytes)

        def store(db: Connection) -> Appended | PraisonError:
            n, log, start, first, length, is_newest = _find(db, key)
            try:
                new = _not_stored(db, log, first, length, given) if given.given else given.lines
            except MessageIdConflict as refusal:
                return refusal  # raised later: what was learnt of ids is stored
            if new and expected_length is not None and expected_length != length:
                return Conflict("length of the history", expected_length, length)
            if new:
                _add(db, log, length, new)
                length += len(new)
                db.quick(_SQL["grow_newest" if is_newest else "grow"], (length, time.time(), n))
            return Appended(start, length, given.ids)

        try:
            done = self._file.writing().together(store)
        except StorageError as exc:
            if not given.given or kind_of(exc.__cause__) != sqlite3.SQLITE_CORRUPT:
                raise
            return self._append_beside_damage(key, given, expected_length)
        if isinstance(done, PraisonError):
            raise done
        return done

    def _append_beside_damage(self, key: Key, given: Batch, expected_length: int | None) -> Appended:
        """Append what may be stored already, where not all that is stored can be read.

        SQLite writes nothing any more in a transaction that has met damage. So look first, and write if nothing came between.
        """
        while True:
            with self._file.reading() as db:
                _, log, start, first, length, _ = _find(db, key)
                stored = {message.id: encode(message) for message in _read(db, log, first, length)}
            new = {id_: line for id_, line in given.lines.items() if id_ not in stored}
            for message_id in given.lines.keys() - new.keys():
                if not same(stored[message_id], given.lines[message_id]):
                    raise MessageIdConflict(message_id)
            if new and expected_length is not None and expected_length != length:
                raise Conflict("length of the history", expected_length, length)
            with self._file.writing() as db:
                n, now_log, start, _, now_length, _ = _find(db, key)
                if (now_log, now_length) == (log, length):
                    _add(db, log, length, new)
                    db.execute(_SQL["grow"], (length + len(new), time.time(), n))
                    return Appended(start, length + len(new), given.ids)

    def read(self, key: Key, start: int | None = None, stop: int | None = None, *, at: Pin | None = None) -> Slice:
        with self._file.reading() as db:
            session = _find_or_none(db, key)
            if session is None:
                return Slice(0, [])
            _, log, visible, oldest, length, _ = session
            first, last = clip(Record(*key, start=visible, length=length), oldest, start, stop)
            if at is not None:
                row = _existing(db, key)
                check_reachable(row.record, at, oldest=row.first)
                log, (first, last) = int(at.log), clip(at, at.start, start, stop)
            messages = _read(db, log, first, last)
            if lost := last - first - len(messages):
                db.report(f"{lost} messages of session {key.session_id!r} could not be read", len(messages))
        return Slice(first, messages)

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        with self._file.writing() as db:
            row = _existing(db, key)
            old = row.record
            if expected_revision is not None and expected_revision != old.revision:
                raise Conflict("revision of the session", expected_revision, old.revision)
            new = patched(old, dict(patch), oldest=row.first)
            log, first, gone = int(old.log), row.first, []
            if "head" in patch:
                gone.append(Segment(old.log, first, old.length))
                log, first = _new_log(db, patch["head"]), new.start
            db.execute(_SQL["change"], (log, first, new.start, new.length, new.revision, time.time(), row.n))
            _change_details(db, row.n, {name: getattr(new, name) for name in _DETAILS if name in patch})
            if "pins" in patch or "keep" in patch:
                gone += [Segment(pin.log, pin.start, pin.length) for pin in old.pins.values()]
                _change_pins(db, row.n, new.pins)
            _let_go(db, key.user_id, gone)
            return _existing(db, key).record

    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        lines = batch(messages, self._max_message_bytes).lines
        with self._file.writing() as db:
            row = _existing(db, key)
            old = row.record
            log, start, length = _new_log(db, first=old.length), old.length, old.length + len(lines)
            db.execute(_SQL["change"], (log, start, start, length, old.revision + 1, time.time(), row.n))
            _let_go(db, key.user_id, [Segment(old.log, row.first, old.length)])
            _add(db, log, start, lines)
            return _existing(db, key).record

    def drop(self, key: Key) -> int:
        with self._file.writing() as db:
            n, log, start, first, _, _ = _find(db, key)
            if first == start:
                return 0
            db.execute(_SQL["drop_archive"], (n,))
            return _let_go(db, key.user_id, [Segment(str(log), first, start)])

    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        check_record(record)
        with self._file.writing() as db:
            row = _existing(db, key)
            if record.user_id != key.user_id:
                raise InvalidId("a fork belongs to the user of the session it comes from")
            if _find_or_none(db, record.key):
                raise SessionExists(record.session_id, record.user_id)
            at = at or row.record.head
            check_reachable(row.record, at, oldest=row.first)
            return _make(db, record, _new_log(db, at), start=at.start, length=at.length)

    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        if not query or limit < 1:
            return Found([])
        try:
            if self._has_index():
                return search(self._file, user_id, query, limit)
        except StorageFull:
            pass  # what is new cannot be indexed, and can still be read
        return scan(self, user_id, query, limit=limit)

    def describe(self) -> dict[str, str]:
        with self._file.reading() as db:
            (schema,) = db.execute("PRAGMA user_version").fetchone()
            index = db.has_search
        return {
            "engine": f"SQLite {sqlite3.sqlite_version}",
            "place": "memory of this process" if self.path == MEMORY else self.path,
            "schema": str(schema),
            "durability": _DURABILITY["memory" if self.path == MEMORY else self._durability],
            "search": "index (FTS5)" if index else "looks at every message, because this SQLite has no FTS5",
        }

    def delete(self, key: Key) -> bool:
        if self.get(key) is None:
            return False  # without making a file
        with self._file.writing() as db:
            row = _row(db, key)
            if row is None:
                return False
            record = row.record
            db.execute("PRAGMA secure_delete = ON")  # what is freed is overwritten, and not only out of reach
            db.execute(_SQL["delete_session"], (row.n,))
            held = [Segment(pin.log, pin.start, pin.length) for pin in record.pins.values()]
            _let_go(db, key.user_id, [Segment(record.log, row.first, record.length), *held])
            _forget_search(db, key.user_id, row.change)
        return True

    def forget(self, user_id: str, session_ids: Collection[str]) -> Forgotten:
        """See `powers.Forgets`. Others can read meanwhile, and must wait to write."""
        from praisonaiagents.storage.sqlitecare import forget

        return forget(self._file)

    def raw(self) -> Iterator[Raw]:
        from praisonaiagents.storage.sqlitecare import raw

        return raw(self._file)

    def audit(self, user_id: str | None, session_id: str | None) -> Iterator[Finding]:
        """See `powers.Audits`. The file is one, so it is looked over as a whole, or not at all for one session."""
        from praisonaiagents.storage.sqlitecare import audit

        return audit(self._file) if session_id is None else iter(())

    def close(self) -> None:
        """Close the file; what is in memory is gone. The next call opens it again."""
        self._file.close()

    def _has_index(self) -> bool:
        with self._file.reading() as db:
            return db.has_search


def open_url(url: str, **options: Any) -> SqliteEngine:
    """The engine for `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite://` (memory) or a plain path.

    A URL may say `?durability=full&lock_timeout=10&pool_size=8&max_message_bytes=1000000`. Raises `ConfigError`.
    """
    if "://" not in url:
        return SqliteEngine(url, **options)
    from praisonaiagents.storage.localurl import path_and_settings

    path, settings = path_and_settings(url, _SETTINGS)
    return SqliteEngine(path[1:] or MEMORY, **(settings | options))


_SETTINGS: dict[str, tuple[str, type]] = {
    "durability": ("durability", str),
    "lock_timeout": ("lock_timeout_s", float),
    "pool_size": ("pool_size", int),
    "max_message_bytes": ("max_message_bytes", int),
}
_DURABILITY = {
    "memory": "nothing survives the end of the process",
    "process": "a crash of the process loses nothing; a crash of the machine or a loss of power may lose what was stored last",
    "full": "a crash of the process or of the machine and a loss of power lose nothing",
}


# Sessions

_Session = tuple[int, int, int, int, int, int]
"""n, log, start, first, length, is_newest: what is needed of a session to append and to read."""


class _Row(NamedTuple):
    """A session with all that it is."""

    n: int
    first: int
    change: int
    record: Record


def _find_or_none(db: Connection, key: Key) -> _Session | None:
    found: _Session | None = db.quick(_SQL["find"], (key.session_id, key.user_id)).fetchone()
    return found


def _find(db: Connection, key: Key) -> _Session:
    found: _Session | None = db.quick(_SQL["find"], (key.session_id, key.user_id)).fetchone()
    if found is None:
        raise SessionNotFound(key.session_id, key.user_id)
    return found


def _row(db: Connection, key: Key) -> _Row | None:
    columns = db.execute(_SQL["record"], (key.session_id, key.user_id)).fetchone()
    return _row_of(db, columns) if columns else None


def _existing(db: Connection, key: Key) -> _Row:
    row = _row(db, key)
    if row is None:
        raise SessionNotFound(key.session_id, key.user_id)
    return row


def _row_of(db: Connection, columns: tuple[Any, ...]) -> _Row:
    n, first, change, pinned, user_id, session_id, created_at, agent_name, *values = columns
    metadata, state, extra, start, revision, length, updated_at, log = values
    record = Record(
        user_id,
        session_id,
        created_at,
        agent_name,
        metadata=_object(db, metadata),
        state=_object(db, state),
        start=start,
        revision=revision,
        extra=_object(db, extra),
        length=length,
        updated_at=updated_at,
        log=str(log),
        pins=_pins(db, n) if pinned else {},
    )
    return _Row(n, first, change, record)


def _object(db: Connection, text: str | None) -> dict[str, Any]:
    try:
        found: dict[str, Any] = {} if text is None else msgspec.json.decode(text, type=dict)
    except (ValueError, TypeError):
        db.report("a part of a session's record is not what was stored there, and was read as nothing", 0)
        return {}
    return found


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def _make(db: Connection, record: Record, log: int, *, start: int, length: int) -> Record:
    now = time.time()
    values = (record.user_id, record.session_id, log, start, start, length, record.created_at or now, now)
    n = db.execute(_SQL["add_session"], values).lastrowid
    objects = (_json(value) for value in (record.metadata, record.state, record.extra))
    db.execute(_SQL["add_detail"], (n, record.agent_name, *objects))
    return _existing(db, record.key).record


def _change_details(db: Connection, n: int, values: Mapping[str, Any]) -> None:
    if values:
        db.execute(_SQL["add_missing_detail"], (n,))
    for name, value in values.items():
        db.execute(_SQL[f"set_{name}"], (value if name == "agent_name" else _json(value), n))


def _pins(db: Connection, n: int) -> dict[str, Pin]:
    rows = db.execute(_SQL["pins"], (n,)).fetchall()
    return {name: Pin(str(log), start, length, _object(db, info)) for name, log, start, length, info in rows}


def _change_pins(db: Connection, n: int, pins: Mapping[str, Pin]) -> None:
    db.execute(_SQL["delete_pins"], (n,))
    rows = ((n, name, int(pin.log), pin.start, pin.length, _json(pin.info)) for name, pin in pins.items())
    db.executemany(_SQL["add_pin"], rows)


def _forget_search(db: Connection, user_id: str, change: int) -> None:
    (newest,) = db.execute(_SQL["newest_change"]).fetchone()
    if change > newest:
        db.execute(_SQL["searched_before"], {"newest": newest})
    db.execute(_SQL["forget_user"], {"user": user_id})


# Messages


def _add(db: Connection, log: int, number: int, lines: Mapping[str, bytes]) -> None:
    """Store messages at the end of a log, from `number` on. Rows that should not be there are set aside."""
    for place, (message_id, line) in enumerate(lines.items(), number):
        try:
            db.quick(_SQL["add_message"], (log, place, message_id, line))
        except sqlite3.IntegrityError:
            db.execute(_SQL["set_aside"], (time.time(), log, place))
            db.execute(_SQL["free"], (log, place, place + 1))
            db.execute(_SQL["add_message"], (log, place, message_id, line))
            what = f"a row that is no message was in the place of message {place} of log {log}"
            db.report(what, number, "table set_aside")


def _not_stored(db: Connection, log: int, first: int, length: int, given: Batch) -> dict[str, bytes]:
    """The lines of a batch that a session does not hold yet. Raises `MessageIdConflict`."""
    parts = _parts(db, log, first, length)
    for part in parts:
        _identify(db, int(part.log), part.stop)
    new: dict[str, bytes] = {}
    for message_id, line in given.lines.items():
        stored = _stored(db, parts, message_id) if message_id in given.given else None
        if stored is None:
            new[message_id] = line
        elif not same(stored, line):
            raise MessageIdConflict(message_id)
    return new


def _identify(db: Connection, log: int, stop: int) -> None:
    """Bring the index of ids up to date with a log's messages before `stop`."""
    start = db.execute(_SQL["log"], (log,)).fetchone()[2]
    if start < stop:
        db.execute(_SQL["identify"], (log, start, stop))
        db.execute(_SQL["identified"], (stop, log))


def _stored(db: Connection, parts: Iterable[Segment], message_id: str) -> bytes | None:
    """The line of a message in one of these parts; None too for one that cannot be read, which may then be stored again."""
    for log, start, stop in parts:
        found = db.execute(_SQL["body_of_id"], (int(log), message_id, start, stop)).fetchone()
        if found and decode_or_none(found[0]):
            body: bytes = found[0]
            return body
    return None


def _parts(db: Connection, log: int, start: int, stop: int) -> list[Segment]:
    """Where messages of a history lie, the newest first."""
    rows = db.execute(_SQL["parts"], {"log": log, "start": start, "stop": stop})
    return [Segment(str(part), low, high) for part, low, high in rows]


def _read(db: Connection, log: int, start: int, stop: int) -> list[Message]:
    """Messages `start` to `stop` of a history, oldest first, but for those that cannot be read."""
    found = _read_part(db, log, start, stop)
    if len(found) == stop - start:  # all of them are the log's own
        return found
    older = (part for part in reversed(_parts(db, log, start, stop)) if int(part.log) != log)
    return [message for part in older for message in _read_part(db, int(part.log), part.start, part.stop)] + found


def _read_part(db: Connection, log: int, start: int, stop: int) -> list[Message]:
    """Of messages whose page is damaged, the neighbours: what cannot be read together is read by halves."""
    if stop <= start:
        return []
    try:
        rows = db.execute(_SQL["bodies"], (log, start, stop)).fetchall()
    except sqlite3.DatabaseError as exc:
        if kind_of(exc) != sqlite3.SQLITE_CORRUPT:
            raise
        middle = (start + stop) // 2
        return _read_part(db, log, start, middle) + _read_part(db, log, middle, stop) if middle > start else []
    return [message for message in decode_all([body for (body,) in rows]) if message]


# Logs, and what becomes free


def _new_log(db: Connection, at: Pin | None = None, *, first: int = 0) -> int:
    """A log that shows the messages of `at` and grows from there; without it, one whose first message is number `first`."""
    base = None
    if at is not None:
        first = at.length
        if at.start < at.length:
            (base,) = db.execute(_SQL["holder"], {"log": int(at.log), "length": at.length}).fetchone()
    return db.execute(_SQL["add_log"], (base, first, first, first)).lastrowid or 0


def _let_go(db: Connection, user_id: str, gone: Iterable[Segment]) -> int:
    """Free what nobody shows any more of what was shown until now: messages `start` to `stop` as seen from a log.

    Returns bytes. The rows that showed it must have been changed before.
    """
    freed = 0
    waiting: dict[int, tuple[int, int]] = {}
    for log, start, stop in gone:
        _widen(waiting, int(log), start, stop)
    while waiting:
        number = max(waiting)  # a base is older than what is based on it
        start, stop = waiting.pop(number)
        shown = _shown_beyond(db, number, start, stop)
        if shown is not None:
            freed += _free_unshown(db, user_id, number, start, stop, shown)
            base, first, _, _ = db.execute(_SQL["log"], (number,)).fetchone()
            if not shown:
                db.execute(_SQL["delete_log"], (number,))
                db.execute(_SQL["forget_log"], (number,))
            elif base is not None and not any(low < min(high, first) for low, high in shown):
                db.execute(_SQL["detach"], (number,))
            if base is not None and start < first and not any(low <= start and first <= high for low, high in shown):
                _widen(waiting, base, start, first)
    return freed


def _widen(waiting: dict[int, tuple[int, int]], log: int, start: int, stop: int) -> None:
    low, high = waiting.get(log, (start, stop))
    waiting[log] = min(low, start), max(high, stop)


def _shown_beyond(db: Connection, log: int, start: int, stop: int) -> list[tuple[int, int]] | None:
    """What is shown of a log; None as soon as one shows all of `start` to `stop`: then nothing becomes free, here or below."""
    shown: list[tuple[int, int]] = []
    for view in _shown(db, log):
        if view[0] <= start and stop <= view[1]:
            return None
        shown.append(view)
    return shown


def _shown(db: Connection, log: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of everything that sees messages of a log: sessions and pins at it, and at logs based on it.

    A fork sees no more than what was there when it was made.
    """
    waiting: list[Iterator[tuple[int, int]]] = [iter([(log, EVERYTHING)])]
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
            continue
        at, end = found
        for start, stop in db.execute(_SQL["shown"], {"log": at}):
            if at == log or start < end:
                yield start, min(stop, end)
        waiting.append(db.execute(_SQL["based_on"], (end, at)))


def _free_unshown(
    db: Connection, user_id: str, log: int, start: int, stop: int, shown: Iterable[tuple[int, int]]
) -> int:
    """Free those of a log's own messages `start` to `stop` that none of `shown` shows; all that is left if there is none."""
    name, views = str(log), [Segment(str(log), *view) for view in shown]
    if not views:
        start, stop = 0, EVERYTHING
    gaps = unreached({name: Log(None, stop)}, [Segment(name, 0, start), *views])
    return sum(_free(db, user_id, log, gap.start, min(gap.stop, stop)) for gap in gaps if gap.start < stop)


def _free(db: Connection, user_id: str, log: int, start: int, stop: int) -> int:
    _, _, identified, searchable = db.execute(_SQL["log"], (log,)).fetchone()
    if start < searchable:
        forget(db, user_id, log, start, min(stop, searchable))
    if start < identified:
        db.execute(_SQL["forget_ids"], {"log": log, "start": start, "stop": stop})
    (freed,) = db.execute(_SQL["size"], (log, start, stop)).fetchone()
    db.execute(_SQL["free"], (log, start, stop))
    return int(freed)
