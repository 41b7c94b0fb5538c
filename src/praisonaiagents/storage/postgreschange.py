"""Rare changes of a session on PostgreSQL: what moves heads, holds on to histories, and lets go of messages.

Each is one transaction that first locks the session's row. What deletes messages also keeps the user's other such calls
waiting, so that what two of them let go of at once is not spared by both. Appending never waits for that: it only adds to
a log that its own session shows.

What a reader would get wrong: the logs are read before the views. An append may come in between, and then a view is longer
than its log, which spares nothing too little; the other way round the new message would be deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from praisonaiagents.errors import SessionNotFound
from praisonaiagents.model.points import Log, Point, Segment, cut, segments, unreached
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.storage.postgresserver import PostgresServer, Rows

if TYPE_CHECKING:
    from praisonaiagents.storage.postgresserver import Connection

NOBODY = "\x01"  # no id holds a control character
CHANGE = 8  # the column `change` of `record`
FIND = "select * from {schema}.find_session(%s, %s)"
_LOCK = "select * from {schema}.lock_session(%s, %s, %s, %s)"
_SAVE = "select * from {schema}.save_session(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
_MAKE = "select made, (session).* from {schema}.open_session(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
_UP = """
    with recursive up (id, base, base_length) as (
        select id, base, base_length from {schema}.log where id = %s
        union all
        select l.id, l.base, l.base_length from up join {schema}.log l on l.id = up.base
    )
    select id, base, base_length from up"""
_AROUND = """
    with recursive up (id, base, base_length, start) as (
        select l.id, l.base, l.base_length, gone.start
        from unnest(%b::bigint[], %b::bigint[]) as gone (log, start) join {schema}.log l on l.id = gone.log
        union
        select l.id, l.base, l.base_length, up.start
        from up join {schema}.log l on l.id = up.base where up.start < up.base_length
    ), around (id) as (
        select id from up
        union
        select l.id from around join {schema}.log l on l.base = around.id
    )
    select l.id, l.base, l.base_length, (select max(m.number) + 1 from {schema}.message m where m.log = l.id)
    from around join {schema}.log l using (id)"""
_VIEWS = """
    select log, first, length from {schema}.session where log = any (%b)
    union all
    select log, start, length from {schema}.pin where log = any (%b)"""
_DELETE = """
    with gone as (
        delete from {schema}.message m using unnest(%b::bigint[], %b::bigint[], %b::bigint[]) as part (log, start, stop)
        where m.log = part.log and part.start <= m.number and m.number < part.stop
        returning octet_length(m.line::text) as bytes
    )
    select coalesce(sum(bytes), 0)::bigint from gone"""


class Stored(NamedTuple):
    """A session's row. `first` is the number of its oldest message that is kept."""

    id: int
    first: int
    record: Record

    @property
    def views(self) -> set[Segment]:
        """What it holds: its history with the archive, and its pins."""
        head = Segment(self.record.log, self.first, self.record.length)
        return {head, *(Segment(pin.log, pin.start, pin.length) for pin in self.record.pins.values())}


def stored(row: Sequence[Any]) -> Stored:
    """From a row of `record`."""
    id_, user_id, session_id, log, first, start, length, revision, _, created_at, updated_at, *rest = row
    values: list[Any] = [None if value is None else msgspec.json.decode(value) for value in rest]
    agent_name, metadata, state, extra, pins = values
    record = Record(
        user_id, session_id, created_at, agent_name, metadata, state, start, revision, extra, length, updated_at
    )
    held = {name: Pin(str(of), from_, to, info) for name, of, from_, to, info in pins or ()}
    return Stored(id_, first, msgspec.structs.replace(record, log=str(log), pins=held))


def text_of(value: object) -> str:
    """JSON as a parameter."""
    return msgspec.json.encode(value).decode()


def _texts_of(record: Record) -> tuple[str | None, ...]:
    """What people wrote to a record, as parameters."""
    agent_name = None if record.agent_name is None else text_of(record.agent_name)
    return agent_name, *map(text_of, (record.metadata, record.state, record.extra))


def name(id_: str) -> str:
    """An id as a parameter. What cannot be an id is nobody's."""
    try:
        id_.encode()
    except UnicodeEncodeError:
        return NOBODY
    return NOBODY if "\0" in id_ else id_


class History(NamedTuple):
    """What a new session shows: messages `start` to `length` of `base`."""

    base: Point | None = None
    start: int = 0
    length: int = 0


EMPTY = History()


def make(
    server: PostgresServer, connection: Connection, record: Record, history: History = EMPTY, *, full: bool
) -> tuple[bool, Record]:
    """(True if it was made now, the session of this id)."""
    base = (int(history.base.log), history.base.length) if history.base else (None, None)
    shown = (*base, history.start, history.length)
    values = (record.user_id, record.session_id, float(record.created_at), *_texts_of(record), *shown, full)
    ((made, *row),) = server.rows(connection, _MAKE, values)
    return made, stored(row).record


class Change:
    """One transaction that changes session `key`.

    frees: it may delete messages. Raises `SessionNotFound`.
    """

    def __init__(
        self, server: PostgresServer, connection: Connection, key: Key, *, full: bool, frees: bool = False
    ) -> None:
        self._server = server
        self._connection = connection
        lock = server.lock_of(f"user {key.user_id}") if frees else None
        values = (name(key.user_id), name(key.session_id), lock, full)
        found = self.rows(_LOCK, values)
        if not found:
            raise SessionNotFound(key.session_id, key.user_id)
        self.session = stored(found[0])
        self._chains: dict[str, dict[str, Log]] = {}

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> Rows:
        return self._server.rows(self._connection, query, values)

    def base_of(self, pin: Pin) -> Point | None:
        """The point that a new log begins with, in order to show what `pin` shows."""
        if pin.start == pin.length:
            return None
        return cut(self._chain(pin.log), Point(pin.log, pin.length), pin.length)

    def new_log(self, base: Point | None) -> str:
        values = (int(base.log), base.length) if base else (None, None)
        ((log,),) = self.rows("insert into {schema}.log (base, base_length) values (%s, %s) returning id", values)
        return str(log)

    def save(self, record: Record, first: int) -> Stored:
        """Make the session's row what `record` says, and return it as it is then."""
        numbers = (self.session.id, int(record.log), first, record.start, record.length, record.revision)
        (row,) = self.rows(_SAVE, (*numbers, *_texts_of(record)))
        return stored(row)

    def save_pins(self, pins: Mapping[str, Pin]) -> None:
        """Make these the session's pins. Each goes to the log that its last message lies in."""
        self.rows("delete from {schema}.pin where session = %s returning position", (self.session.id,))
        if not pins:
            return
        logs = [int(point.log) if (point := self.base_of(pin)) else int(pin.log) for pin in pins.values()]
        self.rows(
            """
            insert into {schema}.pin (session, position, name, log, start, length, info)
            select %s, place, name::json, log, start, length, info::json
            from unnest(%b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::text[])
                with ordinality as pin (name, log, start, length, info, place)
            returning position""",
            (
                *(self.session.id, [text_of(name) for name in pins], logs),
                *([pin.start for pin in pins.values()], [pin.length for pin in pins.values()]),
                [text_of(pin.info) for pin in pins.values()],
            ),
        )

    def keep_from(self, first: int) -> None:
        """Let go of the archived messages before number `first`. That is no change that anybody sees."""
        self.rows("update {schema}.session set first = %s where id = %s returning id", (first, self.session.id))

    def delete(self) -> None:
        """Delete the session's row, and its pins."""
        self.rows("delete from {schema}.session where id = %s returning id", (self.session.id,))

    def free(self, released: Iterable[Segment]) -> int:
        """Delete what was shown by `released` and by nothing that is left. Returns the bytes of the messages deleted."""
        gone = list(released)
        if not gone:
            return 0
        logs = self._around(gone)
        views = self._views(logs)
        parts = unreached(logs, views)
        ((freed,),) = self.rows(
            _DELETE, ([int(part.log) for part in parts], [part.start for part in parts], [part.stop for part in parts])
        )
        self._delete_logs(logs, views)
        return int(freed)

    def now(self) -> Stored:
        """The session as it is now."""
        (row,) = self.rows(FIND, (self.session.record.user_id, self.session.record.session_id))
        return stored(row)

    def _chain(self, log: str) -> dict[str, Log]:
        """The log and those it goes back to. How many messages are in them is of no interest here."""
        if log not in self._chains:
            self._chains[log] = {
                str(id_): Log(_point(base, length), 0) for id_, base, length in self.rows(_UP, (int(log),))
            }
        return self._chains[log]

    def _around(self, gone: list[Segment]) -> dict[str, Log]:
        """The logs that a view went through, and all that go back to one of those. The oldest ones appear without a base."""
        rows = self.rows(_AROUND, ([int(view.log) for view in gone], [view.start for view in gone]))
        known = {id_ for id_, *_ in rows}
        logs: dict[str, Log] = {}
        for id_, base, base_length, length in rows:
            point = _point(base, base_length) if base in known else None
            first = point.length if point else 0
            logs[str(id_)] = Log(point, max(0, (length or 0) - first))
        return logs

    def _views(self, logs: Iterable[str]) -> list[Segment]:
        ids = [int(log) for log in logs]
        return [Segment(str(log), start, stop) for log, start, stop in self.rows(_VIEWS, (ids, ids))]

    def _delete_logs(self, logs: Mapping[str, Log], views: list[Segment]) -> None:
        """Delete the logs that no view goes through. What went back to one of them for nothing stands alone then."""
        used = {view.log for view in views}
        for view in views:
            used |= {part.log for part in segments(logs, Point(view.log, view.stop), view.start)}
        dead = [int(log) for log in logs if log not in used]
        if dead:
            alone = "update {schema}.log set base = null, base_length = null where base = any (%b) returning id"
            self.rows(alone, (dead,))
            self.rows("delete from {schema}.log where id = any (%b) returning id", (dead,))


def _point(base: int | None, base_length: int | None) -> Point | None:
    return None if base is None or base_length is None else Point(str(base), base_length)
