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
_CHAIN = "select * from {schema}.chain(%s, %s)"
_AROUND = "select * from {schema}.around(%b, %b, %b)"
_VIEWS = "select * from {schema}.views(%b)"
_DELETE = "select {schema}.delete_messages(%b, %b, %b)"
_DELETE_LOGS = "select {schema}.delete_logs(%b)"


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


_NOTHING = History()


def make(
    server: PostgresServer, connection: Connection, record: Record, history: History = _NOTHING, *, full: bool
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

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> Rows:
        return self._server.rows(self._connection, query, values)

    def base_of(self, pin: Pin) -> Point | None:
        """The point that a new log begins with, in order to show what `pin` shows."""
        if pin.start == pin.length:
            return None
        chain = self.rows(_CHAIN, (int(pin.log), pin.length))
        logs = {str(id_): Log(_point(base, base_length), 0) for id_, base, base_length in chain}
        return cut(logs, Point(pin.log, pin.length), pin.length)

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
        logs = self._around(gone) if gone else {}
        if not logs:
            return 0
        views = self._views(logs)
        parts = unreached(logs, views)
        ((freed,),) = self.rows(_DELETE, _columns(parts))
        self._delete_logs(logs, views)
        return int(freed)

    def now(self) -> Stored:
        """The session as it is now."""
        (row,) = self.rows(FIND, (self.session.record.user_id, self.session.record.session_id))
        return stored(row)

    def _around(self, gone: list[Segment]) -> dict[str, Log]:
        """The logs that may hold what only `gone` showed, and all that go back to one of those.

        The oldest ones appear without a base, and with all of its messages as their own.
        """
        rows = self.rows(_AROUND, _columns(gone))
        known = {id_ for id_, *_ in rows}
        logs: dict[str, Log] = {}
        for id_, base, base_length, length in rows:
            point = _point(base, base_length) if base in known else None
            first = point.length if point else 0
            logs[str(id_)] = Log(point, max(0, (length or 0) - first))
        return logs

    def _views(self, logs: Iterable[str]) -> list[Segment]:
        ids = [int(log) for log in logs]
        return [Segment(str(log), start, stop) for log, start, stop in self.rows(_VIEWS, (ids,))]

    def _delete_logs(self, logs: Mapping[str, Log], views: list[Segment]) -> None:
        """Delete the logs that no view goes through."""
        used = {view.log for view in views}
        for view in views:
            used |= {part.log for part in segments(logs, Point(view.log, view.stop), view.start)}
        if dead := [int(log) for log in logs if log not in used]:
            self.rows(_DELETE_LOGS, (dead,))


def _columns(parts: Iterable[Segment]) -> tuple[list[int], list[int], list[int]]:
    """Parts of logs as parameters."""
    parts = list(parts)
    return [int(part.log) for part in parts], [part.start for part in parts], [part.stop for part in parts]


def _point(base: int | None, base_length: int | None) -> Point | None:
    return None if base is None or base_length is None else Point(str(base), base_length)
