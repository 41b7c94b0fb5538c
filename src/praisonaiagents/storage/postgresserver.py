"""A PostgreSQL server: how it is reached, what it means when a connection breaks, and the schema kept up to date.

A call is work that is given a connection for itself. It ends in one of three ways: the work's result; an error, and nothing
was stored; or `OutcomeUnknown`, where a connection broke after the server may have stored it. Work of which twice is as
good as once is done once more by itself on a new connection.

What a reader would get wrong: a connection means nothing from one transaction to the next. A pooler in front of the server
(PgBouncer in transaction mode) hands them around, so nothing is set, locked or listened to for longer than a transaction,
and names are qualified instead of looked up by search_path. Statements are prepared where there is no pooler, which is seen
by the number of the server's process: a pooler that has many of them cannot say it before one is asked.

psycopg costs half a second to import, so nothing here touches it before the first connection.
"""

from __future__ import annotations

import hashlib
import random
import re
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.parse import unquote

from praisonaiagents.errors import (
    ConfigError,
    EngineUnreachable,
    MissingDependency,
    NewerFormat,
    OutcomeUnknown,
    PraisonError,
    StorageError,
    StorageFull,
)
from praisonaiagents.storage.pool import Pool
from praisonaiagents.storage.sql import migrations

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
Repeat = Literal["read", "safe", "never"]
"""Of a call whose connection broke: it only reads; twice is as good as once; or it may happen once only."""

DURABILITIES = ("server", "full")

_LOGIN = re.compile("postgres(?:ql)?://(?:[^@/]*@)?")
_HOST = r"(?:\[[^\]]*\]|[^\[\]:,]*)(?::\d*)?"
_HOSTS = re.compile(f"{_HOST}(?:,{_HOST})*")
_OWN = ("schema", "durability", "pool_size")  # parameters of the URL that are ours and not the driver's
_LONGEST_NAME = 63  # bytes; the server cuts off what is longer
_COLLISIONS = 50  # how often a call begins again that the server ended because others were in its way
_QUIET_NETWORK = {  # a server that vanished without a word is noticed after about a minute
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_BROKEN = ("08", "57P01", "57P02", "57P03", "57P05")  # how SQLSTATEs begin that mean the end of the connection
_COLLIDED = ("40001", "40P01", "23503")  # serialization, deadlock; and a log that another call deleted meanwhile


class Settings(NamedTuple):
    """What a URL says: what is left of it for the driver, and the parameters that are ours."""

    url: str
    schema: str
    durability: str
    pool_size: int


def settings_of(url: str, *, schema: str, durability: str, pool_size: int) -> Settings:
    """Read a URL; the arguments are what holds where it says nothing. Raises `ConfigError`, which never quotes the URL."""
    _check_url(url)
    base, _, query = url[_login_end(url) :].partition("?")
    parameters = [part.partition("=") for part in query.split("&") if part]
    own = {name: unquote(value) for name, _, value in parameters if name in _OWN}
    kept = "&".join("".join(part) for part in parameters if part[0] not in _OWN)
    size = own.get("pool_size", str(pool_size))
    if not size.isdecimal() or not 1 <= int(size) <= 1000:
        raise ConfigError(f"pool_size is a number of connections from 1 to 1000, not {size!r}")
    return Settings(
        f"{url[: _login_end(url)]}{base}{'?' if kept else ''}{kept}",
        _checked_schema(own.get("schema", schema)),
        _checked_durability(own.get("durability", durability)),
        int(size),
    )


class Connection:
    """One of the driver's connections, and what every call needs of it: made once, since that is a good part of a call."""

    def __init__(self, link: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.link = link
        self.close = link.close
        self._cursor = link.cursor(binary=True)
        self._said = select.poll()
        self._said.register(link.fileno(), select.POLLIN)

    def is_usable(self) -> bool:
        """False if the server has said something since the last call. To an idle connection, that is goodbye."""
        return not self._said.poll(0) and not self.link.closed

    def rows(self, query: bytes, parameters: tuple[Any, ...]) -> Rows:
        return self.link.execute(query, parameters, binary=True).fetchall()

    def value(self, query: bytes, parameters: tuple[Any, ...]) -> Any:
        """The one value of a query, which is kept until the next one: a small one."""
        row = self._cursor.execute(query, parameters).fetchone()
        return row[0] if row else None


class PostgresServer:
    """Calls to one server, and one schema on it. Connects to nothing before the first call.

    place: the URL, without passwords. connect_timeout_s: how long to wait for a server that does not answer, in seconds.
    """

    def __init__(self, settings: Settings, *, place: str, connect_timeout_s: float) -> None:
        self.place = place
        self.schema = settings.schema
        self.newest = migrations("postgres")[-1][0]
        self._url = settings.url
        self._quoted = _quoted(settings.schema)
        self._connect_timeout_s = connect_timeout_s
        self._pool = Pool(self._connect, size=settings.pool_size, usable=Connection.is_usable)
        self._is_prepared = False
        self._names: dict[str, bytes] = {}

    def call(self, work: Callable[[Connection], T], *, repeat: Repeat, ids: tuple[str, ...] = ()) -> T:
        """What `work` returns, whose statements are transactions of their own.

        Raises `EngineUnreachable`, `OutcomeUnknown` with `ids`, `StorageError`, and what `work` raises.
        """
        if not self._is_prepared:
            self._call(self._prepare, "read", ())
            self._is_prepared = True
        return self._call(work, repeat, ids)

    def transaction(self, work: Callable[[Connection], T], *, repeat: Repeat = "never") -> T:
        """What `work` returns, whose statements are one transaction. Raises as `call` does."""
        return self.call(lambda connection: self._as_one(connection, work), repeat=repeat)

    def rows(self, connection: Connection, query: str, parameters: tuple[Any, ...] = ()) -> Rows:
        """The rows of a query in which `{schema}` stands for the schema. JSON comes as bytes."""
        return connection.rows(self._named(query), parameters)

    def value(self, connection: Connection, query: str, parameters: tuple[Any, ...]) -> Any:
        """The one value of such a query, if it is small."""
        return connection.value(self._named(query), parameters)

    def _named(self, query: str) -> bytes:
        named = self._names.get(query)
        if named is None:
            named = self._names[query] = query.replace("{schema}", self._quoted.replace("%", "%%")).encode()
        return named

    def lock_of(self, name: str) -> int:
        """The number of an advisory lock, of this schema alone."""
        digest = hashlib.sha256(f"praisonaiagents\0{self.schema}\0{name}".encode(errors="replace")).digest()
        return int.from_bytes(digest[:8], signed=True)

    def is_there(self) -> bool:
        """True if the schema has been made. If not, tries to make it and takes that back; raises what that raises."""

        def look(connection: Connection) -> bool:
            if self._version(connection):
                return True
            with self._translated(connection, may_be_stored=False):
                connection.link.execute("begin")
                try:
                    self._migrate(connection)
                finally:
                    connection.link.execute("rollback")
            return False

        return self._call(look, "read", ())

    def close(self) -> None:
        self._pool.close()

    # Calls

    def _call(self, work: Callable[[Connection], T], repeat: Repeat, ids: tuple[str, ...]) -> T:
        may_be_stored = False
        breaks = collisions = 0
        while True:
            try:
                return self._once(work)
            except _Broken as broken:
                self._pool.close()  # the idle ones are about to break, too
                breaks += 1
                may_be_stored = may_be_stored or (broken.may_be_stored and repeat != "read")
                if breaks > 1 or (may_be_stored and repeat == "never"):
                    raise self._lost(may_be_stored, ids) from broken.__cause__
            except _Collided as collided:
                collisions += 1
                if collisions > _COLLISIONS:
                    raise StorageError(f"{self.place}: others were in the way", self.place) from collided.__cause__
                time.sleep(random.uniform(0, 0.004 * collisions))  # noqa: S311 - so that they don't meet again
            except EngineUnreachable as exc:
                if may_be_stored:
                    raise self._lost(may_be_stored, ids) from exc
                raise

    def _once(self, work: Callable[[Connection], T]) -> T:
        with self._pool.lend() as connection:
            try:
                try:
                    return work(connection)
                except _driver().Error as exc:
                    raise self._ours(exc, connection) from _cause(exc)
            except (PraisonError, _Collided) as exc:
                if connection.link.pgconn.transaction_status != 0:
                    raise  # not idle: the pool closes it
                refused: Exception = exc
        raise refused

    def _as_one(self, connection: Connection, work: Callable[[Connection], T]) -> T:
        with self._translated(connection, may_be_stored=False):
            connection.link.execute("begin isolation level read committed")
            try:
                with self._translated(connection, may_be_stored=False):
                    result = work(connection)
            except (PraisonError, _Collided):
                connection.link.execute("rollback")
                raise
        connection.link.execute("commit")
        return result

    def _lost(self, may_be_stored: bool, ids: tuple[str, ...]) -> PraisonError:
        if may_be_stored:
            return OutcomeUnknown(f"the connection to {self.place} broke before the answer came", ids)
        return EngineUnreachable(f"the connection to {self.place} broke; nothing was stored", self.place)

    # Connections

    def _connect(self) -> Connection:
        driver = _driver()
        from psycopg.types.string import ByteaBinaryLoader

        with self._translated(None):
            parameters = {
                "fallback_application_name": "praisonaiagents",
                "connect_timeout": str(max(2, round(self._connect_timeout_s))),  # the driver takes no less
                **_QUIET_NETWORK,
                **driver.conninfo.conninfo_to_dict(self._url),
                "client_encoding": "utf8",
            }
            link = driver.connect(**parameters, autocommit=True, prepare_threshold=None)
            if link.execute("select pg_backend_pid()").fetchone() == (link.info.backend_pid,):
                link.prepare_threshold = 2
        link.adapters.register_loader("json", ByteaBinaryLoader)  # bytes as they are
        return Connection(link)

    @contextmanager
    def _translated(self, connection: Connection | None, *, may_be_stored: bool = True) -> Iterator[None]:
        """Make ours of the driver's errors. None means that we are just connecting."""
        try:
            yield
        except _driver().Error as exc:
            raise self._ours(exc, connection, may_be_stored) from _cause(exc)

    def _ours(self, exc: psycopg.Error, connection: Connection | None, may_be_stored: bool = True) -> Exception:
        text = exc.diag.message_primary or " ".join(str(exc).split())
        state = exc.sqlstate or ""
        if connection is None:
            if isinstance(exc, _driver().OperationalError):
                return EngineUnreachable(f"no connection to {self.place}: {text}", self.place)
            return ConfigError(f"{self.place}: {text}")
        if connection.link.closed or state.startswith(_BROKEN):
            return _Broken(may_be_stored)
        if state in _COLLIDED:
            return _Collided()
        if state == "42501" and text.startswith("permission denied"):
            return StorageError(f"{self.place}: {text}; {self._grant(connection)}", self.place)
        if state.startswith("22"):
            return StorageError(f"{self.place}: the server cannot store this value (SQLSTATE {state})", self.place)
        if state == "53100":
            return StorageFull(f"{self.place}: {text}", self.place)
        return StorageError(f"{self.place}: {text}", self.place)

    def _grant(self, connection: Connection) -> str:
        user = _quoted(connection.link.info.user)
        return (
            f"it takes: GRANT USAGE ON SCHEMA {self._quoted} TO {user}; "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {self._quoted} TO {user}; "
            f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {self._quoted} TO {user}"
        )

    # The schema

    def _prepare(self, connection: Connection) -> None:
        if self._version(connection) < self.newest:
            self._as_one(connection, self._migrate)

    def _version(self, connection: Connection) -> int:
        """Which migrations were applied. Raises `NewerFormat` if it is more than there are, `ConfigError` if it can't be."""
        query = "select current_setting('server_encoding'), to_regclass(%s) is not null"
        ((encoding, is_there),) = self.rows(connection, query, (f"{self._quoted}.version",))
        if encoding != "UTF8":
            raise ConfigError(
                f"{self.place}: the database is encoded in {encoding}, which cannot hold every text; make one in UTF8"
            )
        if not is_there:
            return 0
        ((version,),) = self.rows(connection, "select max(number) from {schema}.version")
        if version > self.newest:
            raise NewerFormat(
                f"{self.place}: schema {self.schema!r} has version {version}, this program knows up to {self.newest}",
                self.place,
            )
        return int(version)

    def _migrate(self, connection: Connection) -> None:
        """Bring the schema up to date; of several programs at once, one does."""
        self.rows(connection, "select pg_advisory_xact_lock(%s)", (self.lock_of("schema"),))
        self._make_schema(connection)
        version = self._version(connection)
        for number, name, text in migrations("postgres"):
            if number > version:
                literal = self._quoted.replace("'", "''")
                connection.link.execute(text.replace("{schema}", self._quoted).replace("{literal}", literal).encode())
                self.rows(connection, "insert into {schema}.version values (%s, %s) returning number", (number, name))

    def _make_schema(self, connection: Connection) -> None:
        """Make the schema if it is not there, and say which right is missing if that is not allowed."""
        query = """
            select to_regnamespace(%s) is not null, has_database_privilege(current_database(), 'create'), current_database()"""
        ((is_there, may_create, database),) = self.rows(connection, query, (self._quoted,))
        user = _quoted(connection.link.info.user)
        if not is_there and not may_create:
            raise self._not_allowed(f"GRANT CREATE ON DATABASE {_quoted(database)} TO {user}")
        if not is_there:
            connection.link.execute(f"create schema {self._quoted}".encode())
        elif not self.rows(
            connection,
            "select from pg_namespace where nspname = %s and has_schema_privilege(oid, 'create')",
            (self.schema,),
        ):
            raise self._not_allowed(f"GRANT CREATE ON SCHEMA {self._quoted} TO {user}")

    def _not_allowed(self, grant: str) -> StorageError:
        return StorageError(
            f"{self.place}: the tables cannot be made in schema {self.schema!r}; it takes: {grant}", self.place
        )


class _Broken(Exception):
    """The connection broke in the middle of a call. `may_be_stored`: the server may have done what it was told."""

    def __init__(self, may_be_stored: bool) -> None:
        super().__init__()
        self.may_be_stored = may_be_stored


class _Collided(Exception):
    """The server undid the call because another one was in its way."""


def _driver() -> Any:
    try:
        import psycopg
    except ImportError as exc:
        raise MissingDependency("PostgreSQL", "postgres") from exc
    return psycopg


def _cause(exc: psycopg.Error) -> psycopg.Error | None:
    """The error as the cause of ours, but for one whose text may quote a message."""
    return None if (exc.sqlstate or "").startswith("22") else exc


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


# --- the URL ---


def _check_url(url: str) -> None:
    """Refuse what libpq would take apart at another place than its author meant, because it then quotes the pieces."""
    place = url[_login_end(url) :]
    if re.search("%(?![0-9a-f]{2})|%00", url, re.IGNORECASE):
        raise ConfigError(
            "the PostgreSQL URL has a '%' that is not followed by two digits of a character: write '%25' for '%'"
        )
    if "@" in place:
        raise ConfigError(
            "the PostgreSQL URL has one '@' too many: in user names and passwords write '%40' for '@', '%2F' for '/'"
        )
    if not _HOSTS.fullmatch(re.split("[/?]", place, maxsplit=1)[0]):
        raise ConfigError(
            "the PostgreSQL URL names no host and port: in passwords write '%3A' for ':', '%2F' for '/', '%3F' for '?'"
        )


def _login_end(url: str) -> int:
    """Where the scheme and, if there is one, the login end, as libpq sees it."""
    found = _LOGIN.match(url)
    if not found:
        raise ConfigError("a PostgreSQL URL begins with 'postgresql://'")
    return found.end()


def _checked_schema(schema: str) -> str:
    if not 1 <= len(schema.encode(errors="replace")) <= _LONGEST_NAME or re.search(
        "[\x00-\x1f\x7f$\ud800-\udfff]", schema
    ):
        raise ConfigError(
            f"schema is a name of 1 to {_LONGEST_NAME} bytes without '$' and control characters, not {schema!r}"
        )
    return schema


def _checked_durability(durability: str) -> str:
    if durability not in DURABILITIES:
        raise ConfigError(f"durability is {' or '.join(map(repr, DURABILITIES))}, not {durability!r}")
    return durability
