"""The PostgreSQL engine: sessions in a schema of a database, shared by any number of programs.

    postgresql://user:password@host:5432/database?schema=praisonai&pool_size=8&durability=full

Any URL that libpq takes, with `PG*` variables, services and password files; the three parameters above are ours. Tables and
functions lie in one schema (`sql/postgres`), which the first call makes.

A session is a row that points at a log, and a log goes back to the messages of its base (`model.points`), so that a fork
costs the same at 10 and at 10,000 messages. An append is one function call, that is one round trip and one transaction:
it locks the session's row, looks for the ids that the caller gave, and stores. What deletes messages asks the pure rule
`points.unreached` what nobody sees any more, while it keeps the user's other such calls waiting.

What a reader would get wrong: `text` cannot hold a NUL, and `jsonb` cannot hold every number or keep the order of keys.
So whatever people wrote lies in `json` columns, which keep the very text, and ids of messages are stored as JSON escapes
them.

What survives: with `durability="server"` whatever the server's settings promise; with its defaults a crash of this process,
of the server, and a loss of power. `"full"` waits for the disk also where the server is set not to
(`synchronous_commit = off`); nothing helps where the disk is (`fsync = off`). `describe` tells which it is.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from praisonaiagents.errors import (
    Conflict,
    InvalidId,
    MessageIdConflict,
    SessionDamage,
    SessionExists,
    SessionNotFound,
)
from praisonaiagents.model.message import MAX_MESSAGE_BYTES, Message, decode, decode_all, decode_or_none
from praisonaiagents.model.points import Segment
from praisonaiagents.model.record import Key, Pin, Record, check_reachable, check_record, patched
from praisonaiagents.model.search import Query, tokens
from praisonaiagents.storage.engine import Appended, Batch, Found, Hit, Page, Slice, batch, clip, same
from praisonaiagents.storage.postgreschange import CHANGE, FIND, Change, History, make, name, stored
from praisonaiagents.storage.postgresserver import PostgresServer, Rows, settings_of
from praisonaiagents.storage.registry import masked

if TYPE_CHECKING:
    from praisonaiagents.storage.postgresserver import Connection
    from praisonaiagents.storage.powers import Finding, Forgotten, Raw

_APPEND = "select {schema}.append(%s, %s, %s, %s, %s, %s, %s, %s, %s)"
_APPEND_ONE = "select {schema}.append_one(%s, %s, %s, %s, %s, %s, %s)"
_READ = "select * from {schema}.read(%s, %s, %s, %s)"
_READ_AT = """
with recursive part (base, low, high, log) as (
    select l.base, coalesce(l.base_length, 0), %s::bigint, l.id from {schema}.log l where l.id = %s
    union all
    select l.base, coalesce(l.base_length, 0), least(part.high, part.low), l.id
    from part join {schema}.log l on l.id = part.base where part.low > %s
)
select m.number, m.line from part cross join lateral (
    select m.number, m.line from {schema}.message m
    where m.log = part.log and m.number >= greatest(part.low, %s) and m.number < part.high order by m.number
) m order by m.number"""
_SEARCH = "select * from {schema}.search(%s, %s, %s)"
_LIST = "select * from {schema}.list_sessions(%s, %s, %s)"
_OWNERS = "select user_id from {schema}.session where session_id = %s"
_SETTINGS = "select name, setting from pg_settings where name = any (%b)"

_answer = msgspec.json.Decoder(list[Any])

_PLAIN_ID = re.compile("[A-Za-z0-9_.:-]{1,200}")
_LONGEST_ID = 200  # bytes of a message id that is stored as it is
_MOST_WORDS = 1_000_000  # bytes; PostgreSQL finds nothing beyond 1 MB of a message's words
_FAR = 2**62  # no message has such a number


class PostgresEngine:
    """Sessions in a PostgreSQL database.

    durability: "server" (as the server is set) or "full", see the module. schema: where the tables lie. pool_size: how many
    connections there are at most. All three may stand in the URL, which goes first.
    connect_timeout_s: how long to wait for a server that does not answer, in seconds, at least 2; in the URL it is libpq's
    `connect_timeout`. max_message_bytes bounds one message's JSON.
    """

    def __init__(
        self,
        url: str,
        *,
        durability: str = "server",
        schema: str = "praisonai",
        pool_size: int = 8,
        connect_timeout_s: float = 5.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        settings = settings_of(url, schema=schema, durability=durability, pool_size=pool_size)
        self.concurrency = settings.pool_size
        self._server = PostgresServer(settings, place=masked(url), connect_timeout_s=connect_timeout_s)
        self._full = settings.durability == "full"
        self._max_message_bytes = max_message_bytes

    def __repr__(self) -> str:
        return f"PostgresEngine({self._server.place!r})"

    # Messages

    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        given = batch(messages, self._max_message_bytes)
        alone = _alone(key, messages[0], given) if len(messages) == 1 and not given.given else None
        look_up = [_key_of(id_) for id_ in given.given]
        alike: dict[str, str] = {}

        def work(connection: Connection) -> list[Any]:
            nonlocal look_up, alone
            asked, look_up = (
                look_up,
                list(map(_key_of, given.lines)),
            )  # who comes here again may find any of them stored
            if alone is not None:
                values, alone = (*alone, _near(expected_length), self._full), None
                if answer := self._server.value(connection, _APPEND_ONE, values):
                    return _answer.decode(answer)
            values = _New.of(key, messages, given).parameters(asked, alike, expected_length, full=self._full)
            return _answer.decode(self._server.value(connection, _APPEND, values))

        while True:
            outcome, start, length, *differing = self._server.call(work, repeat="safe", ids=given.ids)
            if outcome == "differs":
                alike |= _alike(differing[0], given.lines)
            elif outcome != "conflict" or expected_length not in (None, length):
                break  # else the session was made after it had been looked for: nothing is stored yet
        if outcome == "missing":
            raise SessionNotFound(key.session_id, key.user_id)
        if outcome == "conflict" and expected_length is not None:
            raise Conflict("length of the history", expected_length, length)
        return Appended(start, length, given.ids)

    def read(self, key: Key, start: int | None = None, stop: int | None = None, *, at: Pin | None = None) -> Slice:
        if at is not None:
            return self._read_at(key, at, start, stop)
        rows = self._read(_READ, (name(key.user_id), name(key.session_id), _near(start), _near(stop)))
        rows.sort(key=itemgetter(0))
        if not rows or rows[0][1] is None:
            return Slice(rows[0][0] if rows else 0, [])
        return Slice(rows[0][0], self._decoded(key.session_id, [line for _, line in rows]))

    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        new = _New.of(key, messages, batch(messages, self._max_message_bytes))

        def work(connection: Connection) -> Record:
            change = Change(self._server, connection, key, full=self._full, frees=True)
            old = change.session
            cleared = patched(old.record, {"start": old.record.length}, oldest=old.first)
            change.save(msgspec.structs.replace(cleared, log=change.new_log(None)), first=cleared.start)
            self._server.rows(connection, _APPEND, new.parameters([], {}, None, full=self._full))
            now = change.now()
            change.free(old.views - now.views)
            return now.record

        return self._server.transaction(work)

    def drop(self, key: Key) -> int:
        def work(connection: Connection) -> int:
            change = Change(self._server, connection, key, full=self._full, frees=True)
            old = change.session
            if old.first == old.record.start:
                return 0
            change.keep_from(old.record.start)
            return change.free([Segment(old.record.log, old.first, old.record.start)])

        return self._server.transaction(work)

    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        if not query or limit < 1:
            return Found([])
        mark = [] if user_id is None else [_lexeme(_mark(str.__str__(user_id)))]
        terms = [*mark, *map(_lexeme, query.words), *(f"{_lexeme(word)}:*" for word in query.beginnings)]
        user = None if user_id is None else name(user_id)
        rows = self._read(_SEARCH, (user, " & ".join(terms), _near(limit)))
        found = ((Key(*key), number, decode_or_none(line)) for *key, number, line in rows)
        return Found([Hit(key, number, message) for key, number, message in found if message is not None])

    # Sessions

    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        check_record(record)
        made, session = self._server.call(
            lambda connection: make(self._server, connection, record, full=self._full),
            repeat="never" if must_be_new else "safe",
        )
        if must_be_new and not made:
            raise SessionExists(record.session_id, record.user_id)
        return session

    def get(self, key: Key) -> Record | None:
        rows = self._read(FIND, (name(key.user_id), name(key.session_id)))
        return stored(rows[0]).record if rows else None

    def list_sessions(self, user_id: str | None, *, after: str | None = None, limit: int = 50) -> Page:
        user = None if user_id is None else name(user_id)
        before = _FAR if after is None else _near(int(after))
        rows = self._read(_LIST, (user, before, _near(limit + 1)))
        more = str(rows[limit - 1][CHANGE]) if len(rows) > limit else None
        return Page([stored(row).record for row in rows[:limit]], more)

    def owners(self, session_id: str) -> list[str]:
        return sorted(user_id for (user_id,) in self._read(_OWNERS, (name(session_id),)))

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        def work(connection: Connection) -> Record:
            frees = not patch.keys().isdisjoint(("pins", "head"))
            change = Change(self._server, connection, key, full=self._full, frees=frees)
            old = change.session
            if expected_revision is not None and expected_revision != old.record.revision:
                raise Conflict("revision of the session", expected_revision, old.record.revision)
            record, first = patched(old.record, dict(patch), oldest=old.first), old.first
            if "head" in patch:
                log = change.new_log(change.base_of(patch["head"]))
                record, first = msgspec.structs.replace(record, log=log), record.start
            if "pins" in patch or "keep" in patch:
                change.save_pins(record.pins)
            now = change.save(record, first)
            change.free(old.views - now.views)
            return now.record

        return self._server.transaction(work)

    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        check_record(record)

        def work(connection: Connection) -> Record:
            change = Change(self._server, connection, key, full=self._full)
            if record.user_id != key.user_id:
                raise InvalidId("a fork belongs to the user of the session it comes from")
            source = change.session
            pin = at or source.record.head
            check_reachable(source.record, pin, oldest=source.first)
            history = History(change.base_of(pin), pin.start, pin.length)
            made, fork = make(self._server, connection, record, history, full=self._full)
            if not made:
                raise SessionExists(record.session_id, record.user_id)
            return fork

        return self._server.transaction(work)

    def delete(self, key: Key) -> bool:
        def work(connection: Connection) -> bool:
            change = Change(self._server, connection, key, full=self._full, frees=True)
            change.delete()
            change.free(change.session.views)
            return True

        try:
            return self._server.transaction(work)
        except SessionNotFound:
            return False

    # The engine

    def is_there(self) -> bool:
        """True if the tables are there, which the first session makes. Makes nothing; raises if they could not be made."""
        return self._server.is_there()

    def describe(self) -> dict[str, str]:
        names = ["server_version", "fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names"]
        settings: dict[str, str] = dict(self._read(_SETTINGS, (names,)))
        return {
            "engine": f"PostgreSQL {settings['server_version']}",
            "place": self._server.place,
            "schema": f"{self._server.schema}, version {self._server.newest}",
            "durability": _durability(settings, full=self._full),
            "connections": f"up to {self.concurrency}",
        }

    def forget(self, user_id: str, session_ids: Collection[str]) -> Forgotten:
        """See `powers.Forgets`. Others go on meanwhile."""
        from praisonaiagents.storage.postgrescare import forget

        return forget(self)

    def raw(self) -> Iterator[Raw]:
        from praisonaiagents.storage.postgrescare import raw

        return raw(self)

    def audit(self, user_id: str | None, session_id: str | None) -> Iterator[Finding]:
        """See `powers.Audits`. The schema is looked over as a whole, or not at all for one session."""
        from praisonaiagents.storage.postgrescare import audit

        return audit(self) if session_id is None else iter(())

    def close(self) -> None:
        self._server.close()

    def _read(self, query: str, values: tuple[Any, ...]) -> Rows:
        return self._server.call(lambda connection: self._server.rows(connection, query, values), repeat="read")

    def _read_at(self, key: Key, at: Pin, start: int | None, stop: int | None) -> Slice:
        first, last = clip(at, at.start, start, stop)
        rows = (
            self._read(_READ_AT, (last, int(at.log) if at.log.isdecimal() else -1, first, first))
            if last > first
            else []
        )
        session = self._read(FIND, (name(key.user_id), name(key.session_id)))
        if not session:
            return Slice(0, [])
        found = stored(session[0])  # afterwards: what was held until now was so when it was read
        check_reachable(found.record, at, oldest=found.first)
        return Slice(first, self._decoded(key.session_id, [line for _, line in rows]))

    def _decoded(self, session_id: str, lines: list[bytes]) -> list[Message]:
        messages = [message for message in decode_all(lines) if message]
        if lost := len(lines) - len(messages):
            where = f"{self._server.place}, session {session_id!r}"
            damage = SessionDamage(where, None, len(messages), f"{lost} messages could not be read")
            warnings.warn(damage, stacklevel=3)
        return messages


class _New(NamedTuple):
    """Messages on their way to a session: of each its id, JSON line and words, as they are stored."""

    key: Key
    ids: list[str]
    lines: list[str]
    words: list[str]

    @classmethod
    def of(cls, key: Key, messages: Sequence[Message], given: Batch) -> _New:
        texts = {id_: message.text() for id_, message in zip(given.ids, messages, strict=True)}
        mark = _mark(str.__str__(key.user_id))
        return cls(
            key,
            [_key_of(id_) for id_ in given.lines],
            [line.decode() for line in given.lines.values()],
            [_words(mark, texts[id_]) for id_ in given.lines],
        )

    def parameters(
        self, look_up: list[str], alike: dict[str, str], expected_length: int | None, *, full: bool
    ) -> tuple[Any, ...]:
        """Of the function `append`. alike: lines that are stored, by id, and have the same content as these."""
        seen_as = [alike.get(id_) for id_ in self.ids] if alike else ()
        lists = (self.ids, self.lines, self.words, look_up, seen_as)
        key = (name(self.key.user_id), name(self.key.session_id))
        return (*key, *map(_array, lists), _near(expected_length), full)


def _alone(key: Key, message: Message, given: Batch) -> tuple[str, ...]:
    """Of the function `append_one`, what it is told of a message whose id is new."""
    ((id_, line),) = given.lines.items()
    mark = _mark(str.__str__(key.user_id))
    return name(key.user_id), name(key.session_id), id_, line.decode(), _words(mark, message.text())


def _alike(differing: Iterable[str], lines: Mapping[str, bytes]) -> dict[str, str]:
    """Stored lines by their id as it is stored. Raises `MessageIdConflict` if one has other content than in `lines`."""
    found: dict[str, str] = {}
    for line in differing:
        message_id = decode(line.encode()).id
        if not same(line.encode(), lines[message_id]):
            raise MessageIdConflict(message_id)
        found[_key_of(message_id)] = line
    return found


def _key_of(message_id: str) -> str:
    """A message id as it is stored: as JSON escapes it; if it is long, a hash behind what JSON never writes."""
    if _PLAIN_ID.fullmatch(message_id):
        return message_id
    escaped = json.dumps(message_id, ensure_ascii=False)[1:-1]
    if len(escaped.encode()) <= _LONGEST_ID:
        return escaped
    return f"\\sha256:{hashlib.sha256(message_id.encode()).hexdigest()}"


@lru_cache(maxsize=256)
def _mark(user_id: str) -> str:
    """A word that all messages of a user have, and that nobody can say."""
    return f"@{hashlib.sha256(user_id.encode(errors='replace')).hexdigest()[:16]}"


def _words(mark: str, text: str) -> str:
    """What a message is found by, with blanks between; of a huge one only as much as an index can hold."""
    words = " ".join((mark, *dict.fromkeys(tokens(text))))
    if 4 * len(words) <= _MOST_WORDS:
        return words
    return words.encode()[:_MOST_WORDS].rpartition(b" ")[0].decode()


def _lexeme(word: str) -> str:
    """A word of a query as PostgreSQL reads it."""
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


def _array(texts: Iterable[str | None]) -> str:
    """An array of texts as PostgreSQL reads it. The driver's own way takes longer than the whole call to the server."""
    quoted = ("NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
    return "{" + ",".join(quoted) + "}"


def _near(number: int | None) -> int | None:
    """The number, or one that is as far outside of any history and still an integer of the server's."""
    return None if number is None else max(-_FAR, min(_FAR, number))


def _durability(settings: Mapping[str, str], *, full: bool) -> str:
    """What the server's settings promise, in words."""
    said = ["a crash of this process loses nothing that was acknowledged"]
    if settings["synchronous_commit"] == "off" and not full:
        said.append(
            "a crash of the server or a loss of power may lose the last moments (synchronous_commit is off; "
            'durability="full" waits for the disk)'
        )
    elif settings["fsync"] == "off":
        said.append(
            "neither does a crash of the server, but a loss of power may lose or damage everything (fsync is off)"
        )
    else:
        said.append("neither does a crash of the server or a loss of power")
    if settings["fsync"] != "off" and settings["full_page_writes"] == "off":
        said.append(
            "full_page_writes is off: a loss of power may damage the database unless the disk writes whole pages"
        )
    if settings["synchronous_standby_names"] and settings["synchronous_commit"] not in ("off", "local"):
        said.append(f"a call waits for standby servers ({settings['synchronous_commit']})")
    return "; ".join(said)


def open_url(url: str, **options: Any) -> PostgresEngine:
    """The engine of a URL `postgresql://...`; options as in `PostgresEngine`."""
    return PostgresEngine(url, **options)
