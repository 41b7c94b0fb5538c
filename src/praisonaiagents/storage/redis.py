"""The Redis engine, which serves Valkey too: a single server, or a cluster.

    praisonai:{user}:...                all that is the user's, see lua/common.lua
    praisonai:users                     hash   user -> token
    praisonai:owners:session            hash   user -> token
    praisonai:schema                    "1"

Messages lie in lists, one a log; forks share them (see `model.points`). What a call does to a session is one script, so it
is atomic and one round trip. All keys of a user have the user's id as their hash tag, so that in a cluster a session, its
forks and the user's index lie in one slot, where a script can reach them.

What a reader would get wrong: what crosses users lies in other slots of a cluster, where no script can keep it in step with
the sessions. So `users` and `owners` only say where to look: they are written before a session is made, and whoever reads
them looks whether it is there. Listing the sessions of all users costs the more, the more users there are.

The other surprise: a message in the middle of a log that nobody needs any more leaves an empty place in the list, until
those before or behind it are gone too.

What survives is for the server to say, and `describe` says it. `replicas=N` lets every change wait until N replicas have it,
which a cluster needs in order to lose nothing when a server dies.
"""

from __future__ import annotations

import heapq
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from praisonaiagents.errors import (
    ConfigError,
    ConfigTypeError,
    Conflict,
    EngineUnreachable,
    InvalidId,
    InvalidMessage,
    MessageIdConflict,
    NewerFormat,
    NotReplicated,
    OutcomeUnknown,
    SessionDamage,
    SessionExists,
    SessionNotFound,
    StorageError,
)
from praisonaiagents.model.message import MAX_MESSAGE_BYTES, Message, decode_all
from praisonaiagents.model.record import Key, Pin, Record, check_reachable, check_record, patched
from praisonaiagents.model.search import Query
from praisonaiagents.storage.engine import Appended, Found, Page, Slice, batch, same
from praisonaiagents.storage.redislink import (
    Broken,
    ClusterLink,
    Command,
    Link,
    SingleLink,
    checked,
    is_unknown_script,
    parse_url,
)
from praisonaiagents.storage.scan import scan

if TYPE_CHECKING:
    from praisonaiagents.storage.powers import Finding, Forgotten, Raw

SCHEMA = 1

_DONE, _MISSING, _DIFFERENT, _UNEXPECTED = 1, 0, 2, 3  # what a script answers first


class Stored(NamedTuple):
    """A session as it is stored. `first`: the number of its oldest message that is still there."""

    record: Record
    first: int


class Entry(NamedTuple):
    """A session in a listing. `changed`: when, in microseconds since 1970."""

    changed: int
    key: Key


class RedisEngine:
    """Sessions in Redis or Valkey.

    url: see `redislink.parse_url`. An option in it counts more than the argument.
    pool_size: how many connections there are at most (in a cluster: to each server).
    replicas: how many replicas must have a change before a call returns. If they are fewer it raises `NotReplicated`.
    replica_timeout_s: how long to wait for them. connect_timeout_s: how long to wait for a connection.
    failover_timeout_s: how long a call waits for a cluster in which a server has died.
    prefix: what all keys begin with. max_message_bytes: bounds one message's JSON.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 8,
        replicas: int = 0,
        replica_timeout_s: float = 1.0,
        connect_timeout_s: float = 5.0,
        failover_timeout_s: float = 30.0,
        prefix: str = "praisonai",
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._target = parse_url(url)
        self._place = self._target.place
        options: dict[str, Any] = {
            "pool_size": pool_size,
            "replicas": replicas,
            "replica_timeout_s": replica_timeout_s,
            "connect_timeout_s": connect_timeout_s,
            "failover_timeout_s": failover_timeout_s,
            "prefix": prefix,
            "max_message_bytes": max_message_bytes,
        }
        self._options = options = _checked_options(options | self._target.options)
        self._names = Names(options["prefix"])
        self._max_message_bytes: int = options["max_message_bytes"]
        self._replicas: int = options["replicas"]
        self._wait: list[Command] = []
        if self._replicas:
            self._wait = [("WAIT", self._replicas, max(1, round(options["replica_timeout_s"] * 1000)))]
        self._link: Link | None = None
        self._has_schema = False

    def __repr__(self) -> str:
        return f"RedisEngine({self._place!r})"

    @property
    def concurrency(self) -> int:
        return int(self._options["pool_size"])

    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        check_record(record)
        stored = self._get(record.key) if self._target.is_cluster else None
        if stored is None:
            arguments = (record.user_id, _new_log(), *_new(record))
            with self._registered(record.key) as keys:
                made, fields = self._write("open", record.key, *arguments, keys=keys, may_repeat=not must_be_new)
            stored = self._stored(record.key, fields)
            if made:
                return stored.record
        if must_be_new:
            raise SessionExists(record.session_id, record.user_id)
        return stored.record

    def get(self, key: Key) -> Record | None:
        stored = self._get(key)
        return stored.record if stored else None

    def list_sessions(self, user_id: str | None, *, after: str | None = None, limit: int = 50) -> Page:
        entries = self._entries([user_id] if user_id is not None else self._users(), after, limit + 1)
        while True:
            page = list(islice(entries, limit))
            rest = next(entries, None)
            records = self._readable([entry.key for entry in page])
            if records or rest is None:  # else all of them were deleted meanwhile
                return Page(records, _place(page[-1]) if rest else None)
            entries = chain([rest], entries)

    def owners(self, session_id: str) -> list[str]:
        users = self._fields(self._names.owners(session_id))
        names = [self._names.session(Key(user_id, session_id)) for user_id in users]
        there = self._ask_many([(name, ("EXISTS", name)) for name in names])
        return sorted(user_id for user_id, is_there in zip(users, there, strict=True) if is_there)

    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        ids, lines, given = batch(messages, self._max_message_bytes)
        expected = "" if expected_length is None else expected_length
        while True:
            flags = "".join("01"[message_id in given] for message_id in lines) if given else ""
            stored = _flat(lines)
            answer = self._write(
                "append", key, expected, flags, *stored, again=(expected, "1" * len(lines), *stored), ids=ids
            )
            if answer[0] == _DONE:
                return Appended(answer[1], answer[2], ids)
            if answer[0] == _MISSING:
                raise SessionNotFound(key.session_id, key.user_id)
            if answer[0] == _UNEXPECTED and expected_length is not None:
                raise Conflict("length of the history", expected_length, answer[1])
            for raw_id, line in zip(answer[1::2], answer[2::2], strict=True):
                message_id = raw_id.decode()
                if not same(line, lines[message_id]):
                    raise MessageIdConflict(message_id)
                lines[message_id] = line  # equal content in other words: say it in these

    def read(self, key: Key, start: int | None = None, stop: int | None = None, *, at: Pin | None = None) -> Slice:
        history = (at.log, at.start, at.length) if at else ()
        answer = self._read("read", key, "" if start is None else start, "" if stop is None else stop, *history)
        if answer is None:
            return Slice(0, [])
        if at is not None and (stored := self._get(key)):  # afterwards: what was held until now was so when it was read
            check_reachable(stored.record, at, oldest=stored.first)
        first, *parts = answer
        lines = parts[0] if len(parts) == 1 else [line for part in reversed(parts) for line in part]
        return Slice(first, self._decoded(key, lines))

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        stored = self._get(key)
        while stored:
            record = stored.record
            if expected_revision is not None and expected_revision != record.revision:
                raise Conflict("revision of the session", expected_revision, record.revision)
            changed = patched(record, dict(patch), oldest=stored.first)
            head: Pin | None = patch.get("head")
            status, *fields = self._write(
                "update",
                key,
                *(record.log, record.revision, stored.first, record.length if "keep" in patch else ""),
                *(_json(changed), changed.start, _views(changed)),
                *((_new_log(), head.log, head.start, head.length) if head else ()),
            )
            if status == _MISSING:
                break
            stored = self._stored(key, fields[0])
            if status == _DONE:
                return stored.record
        raise SessionNotFound(key.session_id, key.user_id)

    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        ids, lines, _ = batch(messages, self._max_message_bytes)
        status, *fields = self._write("replace", key, _new_log(), *_flat(lines), ids=ids)
        if status == _MISSING:
            raise SessionNotFound(key.session_id, key.user_id)
        return self._stored(key, fields[0]).record

    def drop(self, key: Key) -> int:
        freed: int | None = self._write("drop", key)
        if freed is None:
            raise SessionNotFound(key.session_id, key.user_id)
        return freed

    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        check_record(record)
        if record.user_id != key.user_id:
            raise InvalidId("a fork belongs to the user of the session it comes from")
        if self._target.is_cluster and self._get(key) is None:  # before it is registered that there is one
            raise SessionNotFound(key.session_id, key.user_id)
        arguments = (record.user_id, record.session_id, _new_log(), *_new(record))
        history = (at.log, at.start, at.length) if at else ()
        with self._registered(record.key) as keys:
            status, *fields = self._write("fork", key, *arguments, *history, keys=keys)
        if status == _MISSING:
            raise SessionNotFound(key.session_id, key.user_id)
        if status == _DIFFERENT:
            raise SessionExists(record.session_id, record.user_id)
        if status == _UNEXPECTED:
            raise InvalidMessage("a fork begins with a history that its source holds")
        return self._stored(record.key, fields[0]).record

    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        return scan(self, user_id, query, limit=limit)

    def is_there(self) -> bool:
        """True if there are keys of ours, which the first session makes. Makes nothing."""
        link = self._new_link()
        try:
            with _at_last():
                (found,) = link.ask_many([(self._names.schema, ("GET", self._names.schema))])
        finally:
            link.close()
        return found is not None

    def describe(self) -> dict[str, str]:
        name = self._names.schema
        self._linked()
        info, *settings = self._ask_each(name, [("INFO", "server"), *(("CONFIG", "GET", each) for each in _SETTINGS)])
        known = {each: _setting(answer) for each, answer in zip(_SETTINGS, settings, strict=True)}
        described = {
            "engine": _version(info) + (" (cluster)" if self._target.is_cluster else ""),
            "place": self._place,
            "keys": f"begin with {self._names.prefix}:",
            "schema": str(SCHEMA),
            "durability": _durability(known, self._replicas, is_cluster=self._target.is_cluster),
        }
        return described | _memory_warning(known)

    def delete(self, key: Key) -> bool:
        if self._write("delete", key, _raw(key.user_id), keys=self._common(key)) is None:
            return False
        if self._target.is_cluster:
            with suppress(StorageError):  # what stays behind only says where to look
                self._forget(key)
        return True

    def forget(self, user_id: str, session_ids: Collection[str]) -> Forgotten:
        """See `powers.Forgets`. The server goes on serving meanwhile."""
        from praisonaiagents.storage.rediscare import forget

        return forget(self, user_id, session_ids)

    def raw(self) -> Iterator[Raw]:
        from praisonaiagents.storage.rediscare import raw

        return raw(self)

    def audit(self, user_id: str | None, session_id: str | None) -> Iterator[Finding]:
        """See `powers.Audits`. For one session nothing is looked over: that would be a look at all keys."""
        from praisonaiagents.storage.rediscare import audit

        return audit(self, user_id) if session_id is None else iter(())

    def close(self) -> None:
        if self._link:
            self._link.close()

    # Asking

    def _linked(self) -> Link:
        """The link to the server, whose schema was looked at.

        Of two threads that make the first call at once each makes one, and one of the two is soon forgotten: a lock
        could be held for ever in a process that was forked meanwhile.
        """
        if self._link is None:
            link = self._new_link()
            try:
                self._check_schema(link)
            except Broken:
                with _at_last():
                    self._check_schema(link)
            self._link = link
        return self._link

    def _new_link(self) -> Link:
        options = self._options
        settings = {
            "size": options["pool_size"],
            "connect_timeout_s": options["connect_timeout_s"],
            "replica_timeout_s": options["replica_timeout_s"] if self._replicas else 0.0,
        }
        if self._target.is_cluster:
            return ClusterLink(self._target, failover_timeout_s=options["failover_timeout_s"], **settings)
        return SingleLink(self._target, **settings)

    def _check_schema(self, link: Link) -> None:
        name = self._names.schema
        (found,) = link.ask_many([(name, ("GET", name))])
        self._has_schema = found is not None
        if found is None:
            return
        if not found.isdigit():
            raise StorageError(f"something else lies under {name.decode()} on {self._place}; it was left alone")
        if int(found) > SCHEMA:
            raise NewerFormat(
                f"the sessions on {self._place} were written by a newer version (schema {int(found)}, this one "
                f"knows {SCHEMA})",
                self._place,
            )

    def _make_schema(self) -> None:
        """Say which schema this is, before the first session is made. Whoever only asks writes nothing."""
        link, name = self._linked(), self._names.schema
        if not self._has_schema:
            self._ask_many([(name, ("SET", name, SCHEMA, "NX"))])
            self._check_schema(link)

    def _run(
        self, name: str, key: Key, keys: Iterable[bytes], arguments: Iterable[Any], wait: Sequence[Command]
    ) -> list[Any]:
        """The answers of a script and, if there is one, of WAIT."""
        found = script(name, is_cluster=self._target.is_cluster)
        session, index, *space_and_id = _keys_of(self._names.prefix, *map(str.__str__, key))
        names = (session, index, *keys)
        rest = (len(names), *names, *space_and_id, *arguments)
        link = self._linked()
        answers = link.ask(names[0], [("EVALSHA", found.sha, *rest), *wait])
        if is_unknown_script(answers[0]):
            answers = link.ask(names[0], [("EVAL", found.text, *rest), *wait])
        checked(answers[:1], self._place)
        return answers

    def _read(self, name: str, key: Key, *arguments: Any) -> Any:
        """The answer of a script that changes nothing."""
        try:
            return self._run(name, key, (), arguments, ())[0]
        except Broken:
            with _at_last():
                return self._run(name, key, (), arguments, ())[0]

    def _write(
        self,
        name: str,
        key: Key,
        *arguments: Any,
        keys: Iterable[bytes] = (),
        may_repeat: bool = False,
        again: tuple[Any, ...] = (),
        ids: tuple[str, ...] = (),
    ) -> Any:
        """The answer of a script that changes something, once enough replicas have the change.

        may_repeat: doing it twice is the same as doing it once. again: it is, if these are the arguments the second time.
        Raises `OutcomeUnknown` with `ids`.
        """
        try:
            answers = self._run(name, key, keys, arguments, self._wait)
        except Broken as exc:
            if not (may_repeat or again):
                raise OutcomeUnknown(str(exc), ids) from exc
            try:
                answers = self._run(name, key, keys, again or arguments, self._wait)
            except (Broken, EngineUnreachable) as still:
                raise OutcomeUnknown(str(still), ids) from still
        if self._replicas and _is_done(answers[0]):
            confirmed = answers[1] if isinstance(answers[1], int) else 0
            if confirmed < self._replicas:
                raise NotReplicated(confirmed, self._replicas, ids)
        return answers[0]

    def _ask_many(self, requests: Sequence[tuple[bytes, Command]]) -> list[Any]:
        """The answers to single commands that change nothing."""
        link = self._linked()
        try:
            return link.ask_many(requests)
        except Broken:
            with _at_last():
                return link.ask_many(requests)

    def _ask_each(self, name: bytes, commands: Sequence[Command]) -> list[Any]:
        """The answers of the server that has a key, errors among them."""
        link = self._linked()
        try:
            return link.ask(name, commands)
        except Broken:
            with _at_last():
                return link.ask(name, commands)

    # Records and messages

    def _get(self, key: Key) -> Stored | None:
        name = self._names.session(key)
        (fields,) = self._ask_many([(name, ("HGETALL", name))])
        return self._stored(key, fields) if fields else None

    def _stored(self, key: Key, fields: list[bytes]) -> Stored:
        """A session from the fields of its hash."""
        try:
            return _stored(key, dict(zip(fields[::2], fields[1::2], strict=True)))
        except (KeyError, ValueError) as exc:
            name = self._names.session(key).decode(errors="replace")
            raise StorageError(f"something else lies under {name} on {self._place}; it was left alone") from exc

    def _readable(self, keys: Sequence[Key]) -> list[Record]:
        """The records of those sessions that are there. One that cannot be read is reported, and left out."""
        names = [self._names.session(key) for key in keys]
        records = []
        for key, fields in zip(keys, self._ask_many([(name, ("HGETALL", name)) for name in names]), strict=True):
            try:
                records += [self._stored(key, fields).record] if fields else []
            except StorageError as exc:
                warnings.warn(SessionDamage(self._place, None, len(records), str(exc)), stacklevel=4)
        return records

    def _decoded(self, key: Key, lines: list[bytes]) -> list[Message]:
        """The messages of lines. One that cannot be read is reported, and left out."""
        found = [message for message in decode_all(lines) if message]
        if len(found) < len(lines):
            what = f"{len(lines) - len(found)} messages of session {key.session_id!r} cannot be read"
            warnings.warn(SessionDamage(self._place, None, len(found), what), stacklevel=4)
        return found

    # What crosses users

    def _users(self) -> list[str]:
        return self._fields(self._names.users)

    def _fields(self, name: bytes) -> list[str]:
        (fields,) = self._ask_many([(name, ("HKEYS", name))])
        return [_text(field) for field in fields]

    def _common(self, key: Key) -> tuple[bytes, ...]:
        """The keys that tell where to look for a session. A script of a cluster cannot have them."""
        return () if self._target.is_cluster else (self._names.users, self._names.owners(key.session_id))

    @contextmanager
    def _registered(self, key: Key) -> Iterator[tuple[bytes, ...]]:
        """The block makes a session with these keys.

        In a cluster it is registered before, in case we are stopped right after making it, and again afterwards, in case
        somebody who deleted one of the same name or user forgot it meanwhile.
        """
        self._make_schema()
        if self._target.is_cluster:
            self._register(key)
        yield (self._names.session(key), *self._common(key))
        if self._target.is_cluster:
            with suppress(StorageError):
                self._register(key)

    def _register(self, key: Key) -> None:
        user, token = _raw(key.user_id), os.urandom(8).hex()
        names = (self._names.users, self._names.owners(key.session_id))
        self._ask_many([(name, ("HSET", name, user, token)) for name in names])

    def _forget(self, key: Key) -> None:
        """Take back what was registered of a session and user that are not there.

        The tokens are read first: who makes the session after we looked for it registers it after that, with another one.
        """
        user, forget = _raw(key.user_id), script("forget").text
        registers = (self._names.owners(key.session_id), self._names.users)
        tokens = self._ask_many([(name, ("HGET", name, user)) for name in registers])
        looked_for = (self._names.session(key), self._names.index(key.user_id))
        there = self._ask_many([(name, ("EXISTS", name)) for name in looked_for])
        found = zip(registers, tokens, there, strict=True)
        self._ask_many(
            [
                (name, ("EVAL", forget, 1, name, user, token))
                for name, token, is_there in found
                if token and not is_there
            ]
        )

    def _entries(self, users: Sequence[str], after: str | None, count: int) -> Iterator[Entry]:
        """The sessions of users, the one changed last first, from the one behind `after` on. About `count` are wanted."""
        size = min(count, max(4, 2 * count // max(1, len(users))))
        begin = _entry(after)
        chunks = self._chunks(users, begin, size)
        return heapq.merge(*(self._stream(chunk, size) for chunk in chunks if chunk), key=_order)

    def _stream(self, chunk: list[Entry], size: int) -> Iterator[Entry]:
        """All entries of one user, from the first chunk of them on."""
        while chunk:
            yield from chunk
            if len(chunk) < size:
                return
            (chunk,) = self._chunks([chunk[-1].key.user_id], chunk[-1], size)

    def _chunks(self, users: Sequence[str], begin: Entry | None, size: int) -> list[list[Entry]]:
        """Of each user, the first `size` entries behind `begin`."""
        requests = []
        for user_id in users:
            name = self._names.index(user_id)
            best = "+inf" if begin is None else f"{'' if user_id > begin.key.user_id else '('}{begin.changed}"
            requests.append((name, ("ZREVRANGEBYSCORE", name, best, "-inf", "WITHSCORES", "LIMIT", 0, size)))
        return [
            [
                Entry(int(float(changed)), Key(user_id, _text(session_id)))
                for session_id, changed in zip(found[::2], found[1::2], strict=True)
            ]
            for user_id, found in zip(users, self._ask_many(requests), strict=True)
        ]


def open_url(url: str, **options: Any) -> RedisEngine:
    """The engine for a URL, see `redislink.parse_url`. Opens nothing."""
    return RedisEngine(url, **options)


# ------------------------------------------------------------------------------------------------------ names, scripts


class Names:
    """The keys of the engine. Two ids never share one: in a hash tag `%`, `{` and `}` are escaped, nothing else follows."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.schema = f"{prefix}:schema".encode()
        self.users = f"{prefix}:users".encode()

    def space(self, user_id: str) -> bytes:
        """What all keys of a user begin with."""
        tag = user_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D") or "%"  # none is no tag
        return _raw(f"{self.prefix}:{{{tag}}}:")

    def index(self, user_id: str) -> bytes:
        return self.space(user_id) + b"index"

    def session(self, key: Key) -> bytes:
        return self.space(key.user_id) + b"s:" + _raw(key.session_id)

    def owners(self, session_id: str) -> bytes:
        return _raw(f"{self.prefix}:owners:{session_id}")


@lru_cache(maxsize=1024)
def _keys_of(prefix: str, user_id: str, session_id: str) -> tuple[bytes, bytes, bytes, bytes]:
    """What every script is given: the keys of the session and of the user's index, what they begin with, the session's id."""
    space, raw_id = Names(prefix).space(user_id), _raw(session_id)
    return space + b"s:" + raw_id, space + b"index", space, raw_id


class Script(NamedTuple):
    """A script, and what the server calls it."""

    text: str
    sha: str


_BEGINNINGS = {
    "append": ("common", "push"),
    "read": ("common",),
    "forget": (),
    "replace": ("common", "push", "family"),
}


@cache
def script(name: str, *, is_cluster: bool = False) -> Script:
    """The script `lua/{name}.lua` with what it begins with."""
    import hashlib

    folder = Path(__file__).with_name("lua")
    parts = (*_BEGINNINGS.get(name, ("common", "family")), *(("cluster",) if is_cluster else ()), name)
    text = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
    return Script(text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324 - it is how a server names scripts


def _is_done(answer: Any) -> bool:
    """Whether a script did what it was asked for."""
    return answer[0] == _DONE if isinstance(answer, list) else answer is not None


@contextmanager
def _at_last() -> Iterator[None]:
    """The second try of a call that changes nothing."""
    try:
        yield
    except Broken as exc:
        raise EngineUnreachable(f"{exc}, twice") from exc


# ------------------------------------------------------------------------------------------------------------- values


def _raw(text: str) -> bytes:
    """Half a character (a lone surrogate) names nothing, but may be asked for."""
    return text.encode("utf-8", "surrogatepass")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _new_log() -> str:
    """A log id that no other log has, also none that is gone: 64 random bits."""
    return os.urandom(8).hex()


def _flat(lines: Mapping[str, bytes]) -> list[str | bytes]:
    return [part for item in lines.items() for part in item]


def _json(record: Record) -> bytes:
    """The part of a record that no script looks into."""
    return msgspec.json.encode(
        msgspec.structs.replace(record, created_at=0.0, start=0, length=0, revision=0, updated_at=0.0, log="")
    )


def _new(record: Record) -> tuple[bytes, str]:
    """A session to be made: its record, and when it was made, if that is said."""
    created = repr(float(record.created_at)) if record.created_at else ""
    return _json(msgspec.structs.replace(record, pins={})), created


def _views(record: Record) -> str:
    """What the pins show, for scripts."""
    return "".join(f"{pin.log} {pin.start} {pin.length};" for pin in record.pins.values())


def _stored(key: Key, fields: Mapping[bytes, bytes]) -> Stored:
    record = msgspec.json.decode(fields[b"record"], type=Record)
    complete = msgspec.structs.replace(
        record,
        user_id=key.user_id,
        session_id=key.session_id,
        created_at=float(fields[b"created"]),
        start=int(fields[b"start"]),
        length=int(fields[b"length"]),
        revision=int(fields[b"revision"]),
        updated_at=int(fields[b"changed"]) / 1e6,
        log=fields[b"log"].decode(),
    )
    return Stored(complete, int(fields[b"first"]))


def _order(entry: Entry) -> tuple[int, str]:
    return -entry.changed, entry.key.user_id


def _place(entry: Entry) -> str:
    """Where a page ends. Of the same user no two sessions were changed at the same instant."""
    return f"{entry.changed}:{entry.key.user_id}"


def _entry(place: str | None) -> Entry | None:
    if place is None:
        return None
    changed, _, user_id = place.partition(":")
    return Entry(int(changed), Key(user_id, ""))


# ------------------------------------------------------------------------------------------------------------ options


def _checked_options(options: dict[str, Any]) -> dict[str, Any]:
    for name, least in (("pool_size", 1), ("replicas", 0), ("max_message_bytes", 1)):
        _check_number(name, options[name], (int,))
        if options[name] < least:
            raise ConfigError(f"{name} is a number from {least}, not {options[name]}")
    for name in ("replica_timeout_s", "connect_timeout_s", "failover_timeout_s"):
        _check_number(name, options[name], (int, float))
        if not 0 < options[name] < 1e6:
            raise ConfigError(f"{name} is a time in seconds, not {options[name]}")
    prefix = options["prefix"]
    if not isinstance(prefix, str):
        raise ConfigTypeError(f"prefix is text, not {type(prefix).__name__}")
    if not re.fullmatch(r"[^\s{}\x00-\x1f]{1,200}", prefix):
        raise ConfigError("prefix is a text of 1 to 200 characters, without blanks and braces")
    return options


def _check_number(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ConfigTypeError(f"{name} is a number, not {type(value).__name__}")


# ------------------------------------------------------------------------------------------------- what the server says

_SETTINGS = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy")


def _setting(answer: Any) -> str | None:
    """The value of one setting. None if the server does not tell."""
    return answer[1].decode() if isinstance(answer, list) and len(answer) == 2 else None


def _version(info: Any) -> str:
    found = dict(re.findall(r"(\w+):([^\r\n]*)", info.decode())) if isinstance(info, bytes) else {}
    if found.get("server_name") == "valkey":
        return f"Valkey {found.get('valkey_version', '')}".strip()
    return f"Redis {found.get('redis_version', '')}".strip()


def _durability(known: Mapping[str, str | None], replicas: int, *, is_cluster: bool) -> str:
    words = ["a crash of this process loses nothing", _server_keeps(known)]
    if replicas:
        words.append(f"each change is on {replicas} replica{'s' if replicas > 1 else ''} before a call returns")
    elif is_cluster:
        words.append("when a server dies, its last changes may not be on the replica yet: replicas=1 waits for it")
    return "; ".join(words)


def _server_keeps(known: Mapping[str, str | None]) -> str:
    if known["appendonly"] is None:
        return "what a crash of the server or a loss of power loses is unknown, the server does not tell its settings"
    if known["appendonly"] != "yes":
        lost = "all since the last snapshot" if known["save"] else "everything"
        return f"a crash of the server or a loss of power loses {lost}: set appendonly yes on the server"
    return {
        "always": "neither does a crash of the server or a loss of power (appendfsync always)",
        "everysec": "a crash of the server loses nothing, a loss of power up to two seconds: set appendfsync always",
    }.get(
        known["appendfsync"] or "",
        "a crash of the server loses nothing, a loss of power up to a minute or so: set appendfsync always",
    )


def _memory_warning(known: Mapping[str, str | None]) -> dict[str, str]:
    """A server that throws keys away when its memory is full is a cache, and no place for sessions."""
    policy = known["maxmemory-policy"] or ""
    if not policy.startswith("allkeys"):
        return {}
    when = "once maxmemory is set" if known["maxmemory"] == "0" else "when its memory is full"
    return {"warning": f"the server throws sessions away {when} (maxmemory-policy {policy}): set it to noeviction"}
