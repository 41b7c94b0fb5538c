"""What is PostgreSQL's own: URLs, passwords, rights, versions of the schema, and what lies in the tables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import psycopg
import pytest
from servers.postgres import (
    GUARDED,
    PgBouncer,
    PostgresServer,
    drop_schema,
    emptied_place,
    empty_place,
    shared_url,
    with_parameter,
)
from servers.proxy import Proxy

from praisonaiagents.errors import (
    ConfigError,
    EngineUnreachable,
    MessageIdConflict,
    NewerFormat,
    SessionDamage,
    SessionNotFound,
    StorageError,
    StorageFull,
)
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.model.search import parse
from praisonaiagents.session.store import SessionStore
from praisonaiagents.storage.postgres import PostgresEngine
from praisonaiagents.storage.registry import open_engine

KEY = Key("alice", "s")
FIXTURES = Path(__file__).parents[1] / "fixtures" / "postgres"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of our own, with a role that needs its password (`GUARDED`)."""
    with PostgresServer(synchronous_commit="off") as server:
        yield server


@pytest.fixture
def engine() -> Iterator[PostgresEngine]:
    with emptied_place(shared_url()) as url, closing(PostgresEngine(url)) as engine:
        yield engine


@pytest.fixture
def schema(server: PostgresServer) -> Iterator[str]:
    """The name of a schema that is not there, and is dropped afterwards."""
    name = f"t_{os.urandom(4).hex()}"
    yield name
    drop_schema(server.url(), name)


def _use(url: str, **options: Any) -> list[Any]:
    """Open an engine for a URL and use it. Returns what a session says then."""
    with closing(open_engine(url, **options)) as engine:
        SessionStore(engine).append("s", [Message("user", "hello")], user_id="alice")
        return [message.content for message in engine.read(KEY).messages]


def _execute(server: PostgresServer, *statements: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


# URLs


@pytest.mark.parametrize(
    "form",
    [
        "postgresql://postgres@127.0.0.1:PORT/postgres?",
        "postgres://postgres@localhost:PORT/postgres?sslmode=disable&",
        "POSTGRESQL://postgres@127.0.0.1:PORT/postgres?",
        "postgresql+psycopg://postgres@127.0.0.1:PORT/postgres?",
        "postgresql://postgres@/postgres?host=SOCKET&port=PORT&",
        "postgresql://postgres@%SOCKET:PORT/postgres?",
        "postgresql:///postgres?host=SOCKET&port=PORT&user=postgres&",
        "postgresql://postgres@127.0.0.1:1,127.0.0.1:PORT/postgres?",
        "postgresql://127.0.0.1:1,localhost:PORT/?user=postgres&dbname=postgres&connect_timeout=5&",
        "postgresql://postgres@127.0.0.1:PORT/postgres?application_name=ours&options=-c%20work_mem%3D5MB&",
    ],
)
def test_any_url_that_libpq_takes(server: PostgresServer, schema: str, form: str) -> None:
    socket = str(server.folder / "data")
    url = form.replace("%SOCKET", quote(socket, safe="")).replace("SOCKET", socket).replace("PORT", str(server.port))
    assert _use(f"{url}schema={schema}") == ["hello"]


def test_what_the_url_leaves_out_comes_from_the_environment(
    server: PostgresServer, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services"
    services.write_text(f"[ours]\nhost=127.0.0.1\nport={server.port}\nuser=postgres\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGDATABASE", "postgres")
    assert _use(f"postgresql://?service=ours&schema={schema}") == ["hello"]
    for name, value in {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": GUARDED[0]}.items():
        monkeypatch.setenv(name, value)
    passwords = tmp_path / "passwords"
    passwords.write_text("*:*:*:*:" + GUARDED[1].replace(":", "\\:"))
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    _execute(server, f"grant create on database postgres to {GUARDED[0]}", f"drop schema {schema} cascade")
    try:
        assert _use(f"postgresql://?schema={schema}") == ["hello"]
    finally:
        _execute(server, f"revoke create on database postgres from {GUARDED[0]}")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://alice:hun@ter2@localhost/db",
        "postgresql://alice:hun/ter2@localhost/db",
        "postgresql://alice:hun%ter2@localhost/db",
        "postgresql://alice:hun%00ter2@localhost/db",
        "postgresql://alice:hun:ter2/db",
        "postgresql://alice:12/hun?ter2@localhost/db",
        "postgresql://localhost/db?password=hun%ter2",
        "postgresql://localhost/db?password=hun@ter2",
    ],
)
def test_a_url_that_would_be_misread_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError) as info:
        PostgresEngine(url)
    assert not re.search("hun|ter2|12", str(info.value))


@pytest.mark.parametrize(
    "url",
    ["postgresql://alice:hunter2@localhost:1/db", "postgresql://localhost:1/db?user=alice&password=hunter2"],
)
def test_a_password_is_never_shown(url: str) -> None:
    with closing(PostgresEngine(url)) as engine:
        with pytest.raises(EngineUnreachable) as info:
            engine.get(KEY)
        told = [repr(engine), str(info.value), repr(info.value), str(info.value.path), str(info.value.__cause__)]
    assert "alice" in told[0]
    assert "localhost:1" in told[1]
    assert "hunter2" not in "".join(told)


@pytest.mark.parametrize(
    ("parameter", "names"),
    [
        ("schema=", "schema"),
        ("schema=" + "x" * 64, "schema"),
        ("schema=a%24b", "schema"),
        ("schema=a%0Ab", "schema"),
        ("pool_size=0", "pool_size"),
        ("pool_size=many", "pool_size"),
        ("durability=none", "durability"),
    ],
)
def test_a_parameter_of_ours_that_makes_no_sense_is_refused_at_once(parameter: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        PostgresEngine(f"postgresql://localhost/db?{parameter}")
    name, _, value = parameter.partition("=")
    option: Any = int(value) if value.isdecimal() else unquote(value)
    with pytest.raises(ConfigError, match=names):
        PostgresEngine("postgresql://localhost/db", **{name: option})


def test_a_parameter_that_nobody_knows_is_refused_by_the_driver(server: PostgresServer) -> None:
    with closing(PostgresEngine(f"{server.url()}?shcema=x")) as engine, pytest.raises(ConfigError, match="shcema"):
        engine.get(KEY)


def test_the_parameters_of_the_url_go_first() -> None:
    engine = PostgresEngine("postgresql://h/db?pool_size=3&durability=full", pool_size=5, durability="server")
    assert engine.concurrency == 3
    assert PostgresEngine("postgresql://h/db", pool_size=5).concurrency == 5


# Connecting


def test_making_an_engine_imports_no_driver_and_connects_to_nothing() -> None:
    code = """
import sys
from praisonaiagents.storage.registry import open_engine
engine = open_engine("postgresql://localhost:1/db")
repr(engine), engine.close(), engine.close()
assert "psycopg" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_driver_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from praisonaiagents.errors import MissingDependency
from praisonaiagents.model.record import Key
from praisonaiagents.storage.registry import open_engine
try:
    open_engine("postgresql://localhost/db").get(Key("a", "b"))
except MissingDependency as exc:
    assert exc.extra == "postgres" and "PostgreSQL" in str(exc), exc
else:
    raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with Proxy("127.0.0.1", 1) as proxy:
        port = proxy.port
    with closing(PostgresEngine(f"postgresql://postgres@127.0.0.1:{port}/db")) as engine:
        for _ in range(2):
            with pytest.raises(EngineUnreachable, match="refused") as info:
                engine.open_session(Record(*KEY))
            assert isinstance(info.value, ConnectionError)
            assert info.value.path == f"postgresql://postgres@127.0.0.1:{port}/db"


def test_a_server_that_does_not_answer_is_given_up(server: PostgresServer) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        proxy.pause()
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
        with (
            closing(PostgresEngine(url, connect_timeout_s=1)) as engine,
            pytest.raises(EngineUnreachable, match="timeout"),
        ):
            engine.get(KEY)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (lambda server: server.url(user=GUARDED[0], password="hunter2"), "password authentication failed"),
        (lambda server: server.url(user=GUARDED[0]), "no password supplied"),
        (lambda server: server.url("no such database"), '"no such database" does not exist'),
        (lambda server: server.url(user="nobody"), '"nobody" does not exist'),
    ],
    ids=["wrong password", "no password", "unknown database", "unknown user"],
)
def test_who_is_not_let_in_is_told_why(server: PostgresServer, url: Any, text: str) -> None:
    with closing(PostgresEngine(url(server))) as engine, pytest.raises(EngineUnreachable, match=text) as info:
        engine.get(KEY)
    assert "hunter2" not in str(info.value) + str(info.value.__cause__)


def test_a_password_of_difficult_characters(server: PostgresServer, schema: str) -> None:
    _execute(server, f"create schema {schema} authorization {GUARDED[0]}")
    assert _use(with_parameter(server.url(user=GUARDED[0], password=GUARDED[1]), "schema", schema)) == ["hello"]


def test_a_closed_engine_may_be_used_again(engine: PostgresEngine) -> None:
    for number in range(3):
        engine.open_session(Record(*KEY))
        engine.close()
        assert engine.append(KEY, [Message("user", "x")]).length == number + 1
        engine.close()


def test_an_idle_engine_holds_no_more_connections_than_it_needed(server: PostgresServer, schema: str) -> None:
    url = with_parameter(server.url(), "schema", schema)
    with closing(PostgresEngine(f"{url}&application_name={schema}")) as engine:
        for number in range(20):
            engine.open_session(Record("alice", str(number)))
        with psycopg.connect(server.url()) as connection:
            query = "select count(*) from pg_stat_activity where application_name = %s"
            assert connection.execute(query, (schema,)).fetchone() == (1,)


def test_a_forked_child_uses_connections_of_its_own(engine: PostgresEngine) -> None:
    engine.open_session(Record(*KEY))
    child = os.fork()
    if child == 0:
        try:
            for number in range(20):
                engine.append(KEY, [Message("user", f"child {number}")])
            os._exit(0)
        finally:
            os._exit(1)
    for number in range(20):
        engine.append(KEY, [Message("user", f"parent {number}")])
    assert os.waitpid(child, 0)[1] == 0
    said = [message.content for message in engine.read(KEY).messages]
    assert sorted(said) == sorted(f"{who} {number}" for who in ("child", "parent") for number in range(20))


@contextmanager
def _made_meanwhile(engine: PostgresEngine, function: str, before: str, key: Key) -> Iterator[None]:
    """What the block starts waits in a function of the server, before some of its text; then the session is made."""
    schema, patient = engine._server.schema, 4711
    lock = f"perform pg_advisory_xact_lock({patient}); "
    query = "select pg_get_functiondef(oid) from pg_proc where proname = %s and pronamespace = %s::regnamespace"
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and objid = %s and not granted"
    with psycopg.connect(engine._server._url, autocommit=True) as connection:
        (code,) = connection.execute(query, (function, schema)).fetchone() or ("",)
        assert code.count(before) == 1
        connection.execute(code.replace(before, lock + before))
        connection.execute("select pg_advisory_lock(%s)", (patient,))
        yield
        while connection.execute(waiting, (patient,)).fetchone() == (0,):
            time.sleep(0.01)
        engine.open_session(Record(*key))
        connection.execute("select pg_advisory_unlock(%s)", (patient,))
        connection.execute(code)


@pytest.mark.parametrize("expected", [None, 0])
def test_an_append_is_not_lost_to_a_session_that_is_made_meanwhile(
    engine: PostgresEngine, expected: int | None
) -> None:
    engine.list_sessions(None)  # makes the schema
    with ThreadPoolExecutor() as threads:
        with _made_meanwhile(engine, "append", "select t.start, t.length into s from", KEY):
            appending = threads.submit(engine.append, KEY, [Message("user", "kept")], expected_length=expected)
        assert appending.result(60).length == 1
    assert [message.content for message in engine.read(KEY).messages] == ["kept"]


def test_a_session_that_is_made_meanwhile_is_not_changed_without_its_lock(engine: PostgresEngine) -> None:
    engine.list_sessions(None)
    with ThreadPoolExecutor() as threads:
        with _made_meanwhile(engine, "lock_session", "return query", KEY):
            changing = threads.submit(engine.update, KEY, {"state": {"n": 1}})
        with pytest.raises(SessionNotFound):
            changing.result(60)
    assert engine.open_session(Record(*KEY)).state == {}


# Round trips


def test_common_calls_are_one_round_trip_each(server: PostgresServer, schema: str) -> None:
    with Proxy("127.0.0.1", server.port) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?sslmode=disable&schema={schema}"
        with closing(PostgresEngine(url)) as engine:
            engine.open_session(Record(*KEY))
            calls: list[Any] = [
                lambda: engine.append(KEY, [Message("user", "needle")]),
                lambda: engine.append(KEY, [Message("user", str(number), id=str(number)) for number in range(100)]),
                lambda: engine.append(KEY, [Message("user", "7", id="7")], expected_length=1),
                lambda: engine.read(KEY, -50),
                lambda: engine.get(KEY),
                lambda: engine.open_session(Record(*KEY)),
                lambda: engine.open_session(Record("alice", "new")),
                lambda: engine.list_sessions("alice"),
                lambda: engine.owners("s"),
                lambda: engine.search("alice", parse("needle")),
            ]
            for call in calls * 3:
                call()  # until it is prepared
            begun = proxy.requests
            for number, call in enumerate(calls, 1):
                call()
                assert proxy.requests == begun + number
            assert proxy.connections == 1


def test_statements_are_prepared_where_no_pooler_hands_connections_around(server: PostgresServer, schema: str) -> None:
    def prepared(url: str) -> int:
        with closing(PostgresEngine(with_parameter(url, "schema", schema))) as engine:
            engine.open_session(Record(*KEY))
            for number in range(4):
                engine.append(KEY, [Message("user", str(number))])
            query = b"select count(*) from pg_prepared_statements"
            return int(engine._server.call(lambda connection: connection.value(query, ()), repeat="read"))

    assert prepared(server.url()) > 0
    if PgBouncer.available():
        with PgBouncer("127.0.0.1", server.port) as bouncer:
            assert prepared(bouncer.url()) == 0


# The schema


def test_tables_lie_in_a_schema_of_their_own(server: PostgresServer) -> None:
    assert _use(server.url()) == ["hello"]
    with psycopg.connect(server.url()) as connection:
        query = "select distinct table_schema from information_schema.tables where table_schema !~ '^(pg_|information)'"
        assert ("praisonai",) in connection.execute(query).fetchall()
        assert ("public",) not in connection.execute(query).fetchall()
    drop_schema(server.url(), "praisonai")


@pytest.mark.parametrize(
    "name", ["Upper", 'a"b', "a b", "日本", "a%sb%", "a;--", "select", "x" * 63, "{schema}", "a'b", "\\"]
)
def test_a_schema_may_have_any_name(server: PostgresServer, name: str) -> None:
    url = with_parameter(server.url(), "schema", name)
    try:
        assert _use(url) == ["hello"]
        with closing(PostgresEngine(server.url(), schema=name)) as engine:
            assert engine.owners("s") == ["alice"]
            assert engine.search("alice", parse("hello")).hits
            fork = engine.fork(KEY, Record("alice", "fork"))
            engine.update(fork.key, {"pins": {"x": fork.head}})
            engine.replace(fork.key, [])
            assert engine.delete(fork.key)
    finally:
        drop_schema(server.url(), name)


def test_schemas_of_one_database_know_nothing_of_each_other(server: PostgresServer, schema: str) -> None:
    other = with_parameter(server.url(), "schema", f"{schema}_other")
    try:
        assert _use(with_parameter(server.url(), "schema", schema)) == ["hello"]
        assert _use(other) == ["hello"]
        with closing(PostgresEngine(other)) as engine:
            assert len(engine.list_sessions(None).records) == 1
    finally:
        drop_schema(server.url(), f"{schema}_other")


def test_of_many_programs_that_begin_at_once_one_makes_the_tables(server: PostgresServer, schema: str) -> None:
    code = """
import sys
from praisonaiagents.model.record import Record
from praisonaiagents.storage.postgres import PostgresEngine
sys.stdin.read(1)
engine = PostgresEngine(sys.argv[1])
engine.open_session(Record("alice", sys.argv[2]))
engine.close()
"""
    url = with_parameter(server.url(), "schema", schema)
    children = [
        subprocess.Popen([sys.executable, "-c", code, url, str(number)], stdin=subprocess.PIPE) for number in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.close()
    assert [child.wait() for child in children] == [0] * 4
    with closing(PostgresEngine(url)) as engine:
        assert len(engine.list_sessions("alice").records) == 4


def test_engines_that_begin_at_once_in_one_process(server: PostgresServer, schema: str) -> None:
    url = with_parameter(server.url(), "schema", schema)

    def begin(number: int) -> None:
        with closing(PostgresEngine(url)) as engine:
            engine.open_session(Record("alice", str(number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(8)))
    with closing(PostgresEngine(url)) as engine:
        assert len(engine.list_sessions("alice").records) == 8


def test_a_newer_schema_is_left_alone(server: PostgresServer, schema: str) -> None:
    url = with_parameter(server.url(), "schema", schema)
    _use(url)
    _execute(server, f"insert into {schema}.version values (999, '0999_of_tomorrow.sql')")
    with closing(PostgresEngine(url)) as engine:
        for call in (engine.get, engine.delete, lambda key: engine.open_session(Record(*key)), engine.drop):
            with pytest.raises(NewerFormat, match="999"):
                call(KEY)
    _execute(server, f"delete from {schema}.version where number = 999")
    assert _use(url) == ["hello", "hello"]


def test_a_database_that_cannot_hold_every_text_is_refused(server: PostgresServer) -> None:
    _execute(server, "create database latin encoding latin1 locale 'C' template template0")
    with closing(PostgresEngine(server.url("latin"))) as engine, pytest.raises(ConfigError, match="LATIN1"):
        engine.get(KEY)


def test_a_schema_that_is_dropped_meanwhile_is_told(server: PostgresServer, schema: str) -> None:
    with closing(PostgresEngine(with_parameter(server.url(), "schema", schema))) as engine:
        engine.open_session(Record(*KEY))
        drop_schema(server.url(), schema)
        with pytest.raises(StorageError, match=schema):
            engine.append(KEY, [Message("user", "x")])


def test_a_server_that_only_reads_is_told(server: PostgresServer, schema: str) -> None:
    url = with_parameter(server.url(), "schema", schema)
    _use(url)
    reading = with_parameter(url, "options", "-c default_transaction_read_only=on")
    with closing(PostgresEngine(reading)) as engine:
        assert len(engine.read(KEY).messages) == 1
        with pytest.raises(StorageError, match="read-only"):
            engine.append(KEY, [Message("user", "x")])
        with pytest.raises(StorageError, match="read-only"):
            engine.update(KEY, {"state": {}})
        assert len(engine.read(KEY).messages) == 1


@pytest.mark.parametrize("version", sorted(path.stem for path in FIXTURES.glob("*.sql")))
def test_every_schema_that_was_ever_released_is_brought_up_to_date(server: PostgresServer, version: str) -> None:
    """The fixture was written by the first program that had this schema, and dumped with pg_dump --inserts."""
    _execute(server, (FIXTURES / f"{version}.sql").read_text())
    expected = json.loads((FIXTURES / f"{version}.json").read_text())
    try:
        with closing(PostgresEngine(with_parameter(server.url(), "schema", f"kept_{version}"))) as engine:
            assert _everything(engine) == expected
            for session in expected:
                key = Key(session["user_id"], session["session_id"])
                length = engine.append(key, [Message("user", "appended needle")]).length
                assert engine.read(key, -1)[0] == length - 1
                assert engine.delete(key)
            assert engine.list_sessions(None).records == []
        with psycopg.connect(server.url()) as connection:
            left = [connection.execute(f"select * from kept_{version}.{table}".encode()).fetchall() for table in TABLES]
            new = PostgresEngine(server.url(), schema=f"new_{version}")
            with closing(new):
                new.owners("s")
            assert _shape(connection, f"kept_{version}") == _shape(connection, f"new_{version}")
        assert left == [[]] * len(TABLES)
    finally:
        drop_schema(server.url(), f"kept_{version}")
        drop_schema(server.url(), f"new_{version}")


def _shape(connection: psycopg.Connection[Any], schema: str) -> list[str]:
    """All definitions in a schema, without its name."""
    queries = (
        "select table_name, column_name, data_type, is_nullable, collation_name from information_schema.columns "
        "where table_schema = %s",
        "select indexdef from pg_indexes where schemaname = %s",
        "select conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = %s::regnamespace",
        "select viewname, definition from pg_views where schemaname = %s",
        "select pg_get_functiondef(oid), obj_description(oid) from pg_proc where pronamespace = %s::regnamespace",
    )
    found = [row for query in queries for row in connection.execute(query.encode(), (schema,)).fetchall()]
    assert len(found) > 60
    return sorted(str(row).replace(f'"{schema}"', schema).replace(schema, "SCHEMA") for row in found)


TABLES = ("message", "log", "session", "pin")


def _everything(engine: PostgresEngine) -> list[dict[str, Any]]:
    """All sessions as JSON, in the order of the listing."""
    found = []
    for record in engine.list_sessions(None, limit=1000).records:
        messages = engine.read(record.key, 0)
        found.append(
            {
                **{
                    name: getattr(record, name)
                    for name in ("user_id", "session_id", "created_at", "updated_at", "agent_name")
                },
                **{
                    name: getattr(record, name)
                    for name in ("metadata", "state", "extra", "start", "length", "revision")
                },
                "pins": {name: [pin.start, pin.length, pin.info] for name, pin in record.pins.items()},
                "first": messages.first,
                "messages": [message.to_dict() for message in messages.messages],
                "found": sorted(hit.number for hit in engine.search(record.user_id, parse("needle")).hits),
            }
        )
    return found


# Rights


@pytest.fixture
def guest(server: PostgresServer) -> Iterator[str]:
    """A role that may do nothing but connect."""
    name = f"guest_{os.urandom(4).hex()}"
    _execute(server, f"create role {name} login")
    yield name
    _execute(server, f"drop owned by {name}", f"drop role {name}")


def _granted(server: PostgresServer, error: StorageError) -> None:
    """Do what the error says."""
    grants = re.findall(r"GRANT [^;]+", str(error))
    assert grants
    _execute(server, *grants)


def test_who_may_not_make_the_schema_is_told_which_right_is_missing(
    server: PostgresServer, schema: str, guest: str
) -> None:
    url = with_parameter(server.url(user=guest), "schema", schema)
    with closing(PostgresEngine(url)) as engine, pytest.raises(StorageError, match="ON DATABASE") as info:
        engine.get(KEY)
    _granted(server, info.value)
    assert _use(url) == ["hello"]


def test_who_may_not_make_tables_is_told_which_right_is_missing(
    server: PostgresServer, schema: str, guest: str
) -> None:
    _execute(server, f"create schema {schema}")
    url = with_parameter(server.url(user=guest), "schema", schema)
    errors = []
    with closing(PostgresEngine(url)) as engine:
        for _ in range(2):
            with pytest.raises(StorageError) as info:
                engine.get(KEY)
            errors.append(str(info.value))
            _granted(server, info.value)
    assert "USAGE ON SCHEMA" in errors[0]
    assert "CREATE ON SCHEMA" in errors[1]
    assert _use(url) == ["hello"]


def test_plain_use_takes_no_right_to_make_anything(server: PostgresServer, schema: str, guest: str) -> None:
    assert _use(with_parameter(server.url(), "schema", schema)) == ["hello"]
    url = with_parameter(server.url(user=guest), "schema", schema)
    with closing(PostgresEngine(url)) as engine:
        with pytest.raises(StorageError, match="USAGE ON SCHEMA") as info:
            engine.get(KEY)
        _granted(server, info.value)
        assert engine.append(KEY, [Message("user", "again")]).length == 2
        engine.fork(KEY, Record("alice", "fork"))
        engine.update(KEY, {"pins": {"x": Pin(engine.open_session(Record(*KEY)).log, 0, 1)}, "state": {"n": 1}})
        engine.replace(KEY, [])
        assert engine.search("alice", parse("again")).hits[0].key.session_id == "fork"
        assert engine.delete(KEY)


# What else a server may say


def _refuse_messages(schema: str, condition: str, state: str) -> None:
    """Let the server raise an error where a message is stored, while the condition holds."""
    with psycopg.connect(shared_url(), autocommit=True) as connection:
        for statement in (
            f"create sequence {schema}.tries",
            f"""create function {schema}.refuse() returns trigger language plpgsql as $$ begin
                if {condition} then raise exception 'hunter2' using errcode = '{state}'; end if; return new;
            end $$""",
            f"create trigger refuse before insert on {schema}.message for each row execute function {schema}.refuse()",
        ):
            connection.execute(statement.encode())


@pytest.fixture
def refusing() -> Iterator[PostgresEngine]:
    with empty_place() as url, closing(PostgresEngine(url)) as engine:
        engine.open_session(Record(*KEY))
        yield engine


def test_a_full_disk_is_told(refusing: PostgresEngine) -> None:
    _refuse_messages(refusing._server.schema, "true", "53100")
    with pytest.raises(StorageFull):
        refusing.append(KEY, [Message("user", "x")])
    with pytest.raises(StorageFull):
        refusing.replace(KEY, [Message("user", "x")])
    assert refusing.get(KEY) == refusing.open_session(Record(*KEY))
    assert refusing.read(KEY).messages == []


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_call_that_others_were_in_the_way_of_begins_again(refusing: PostgresEngine, state: str) -> None:
    _refuse_messages(refusing._server.schema, f"nextval('{refusing._server.schema}.tries') < 4", state)
    assert refusing.append(KEY, [Message("user", "x")]).length == 1
    assert refusing.replace(KEY, [Message("user", "y")]).length == 2


def test_a_call_that_others_are_always_in_the_way_of_ends(refusing: PostgresEngine) -> None:
    _refuse_messages(refusing._server.schema, "true", "40001")
    with pytest.raises(StorageError, match="in the way"):
        refusing.append(KEY, [Message("user", "x")])
    assert refusing.read(KEY).messages == []


def test_an_error_about_a_message_quotes_none(refusing: PostgresEngine) -> None:
    _refuse_messages(refusing._server.schema, "true", "22P02")
    with pytest.raises(StorageError) as info:
        refusing.append(KEY, [Message("user", "hunter2")])
    assert info.value.__cause__ is None
    assert "hunter2" not in str(info.value)


def test_appends_at_once_where_the_server_isolates_strictly() -> None:
    """With `repeatable read` as the default a call may find that another was faster, and begins again."""
    with empty_place() as url:
        strict = with_parameter(url, "options", "-c default_transaction_isolation=serializable")
        with closing(PostgresEngine(strict)) as engine:
            engine.open_session(Record(*KEY))
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda number: engine.append(KEY, [Message("user", str(number))]), range(64)))
            assert sorted(message.text() for message in engine.read(KEY).messages) == sorted(map(str, range(64)))


# The tables


def test_every_table_and_column_is_explained(engine: PostgresEngine) -> None:
    engine.owners("s")
    with psycopg.connect(shared_url()) as connection:
        relations = """
            select relname, obj_description(oid, 'pg_class') from pg_class
            where relnamespace = %s::regnamespace and relkind in ('r', 'v')"""
        columns = """
            select relname || '.' || attname, col_description(c.oid, attnum)
            from pg_class c join pg_attribute a on a.attrelid = c.oid
            where relnamespace = %s::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped"""
        functions = "select proname, obj_description(oid, 'pg_proc') from pg_proc where pronamespace = %s::regnamespace"
        schema = engine._server.schema
        for query in (relations, columns, functions):
            found = connection.execute(query.encode(), (schema,)).fetchall()
            assert len(found) > 5
            assert [name for name, comment in found if not comment] == []


def test_views_show_people_what_lies_there(engine: PostgresEngine) -> None:
    engine.open_session(Record(*KEY, agent_name="help\0er", metadata={"title": "A \0 title"}))
    engine.append(KEY, [Message("user", "zero"), Message("assistant", "a\0b"), Message("tool", [{"type": "text"}])])
    engine.update(KEY, {"start": 1})
    engine.fork(KEY, Record("alice", "fork"))
    engine.append(Key("alice", "fork"), [Message("user", "timeless", timestamp=-1e308, extra={"name": 5})])
    with psycopg.connect(shared_url()) as connection:
        schema = engine._server.schema
        sessions = (
            "select user_id, session_id, title, agent_name, messages, archived from {}.sessions order by session_id"
        )
        assert connection.execute(sessions.format(schema).encode()).fetchall() == [
            ("alice", "fork", None, None, 3, 0),
            ("alice", "s", "A \ufffd title", "help\ufffder", 2, 1),
        ]
        messages = "select session_id, number, visible, role, content from {}.messages order by session_id, number"
        assert connection.execute(messages.format(schema).encode()).fetchall() == [
            ("fork", 1, True, "assistant", "a\ufffdb"),
            ("fork", 2, True, "tool", '[{"type":"text"}]'),
            ("fork", 3, True, "user", "timeless"),
            ("s", 0, False, "user", "zero"),
            ("s", 1, True, "assistant", "a\ufffdb"),
            ("s", 2, True, "tool", '[{"type":"text"}]'),
        ]


def test_a_message_that_somebody_broke_hides_no_other(engine: PostgresEngine) -> None:
    engine.open_session(Record(*KEY))
    engine.append(KEY, [Message("user", f"m{number}") for number in range(4)])
    with psycopg.connect(shared_url(), autocommit=True) as connection:
        for number, line in ((1, "[]"), (2, '{"content": "secret"}')):
            update = f"update {engine._server.schema}.message set line = %s where number = %s"
            connection.execute(update.encode(), (line, number))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [message.content for message in engine.read(KEY).messages] == ["m0", "m3"]
    (warning,) = caught
    assert isinstance(warning.message, SessionDamage)
    assert "2 messages could not be read; 2 messages kept" in str(warning.message)
    assert "secret" not in str(warning.message)
    assert [hit.number for hit in engine.search("alice", parse("m*")).hits] == [3, 0]


def test_an_id_that_looks_like_a_stored_one_is_another(engine: PostgresEngine) -> None:
    ids = ["é" * 300, "x" * 201, 'a"b', 'a\\"b', "a\\u0000", "a\0", "\n", "\\n"]
    engine.open_session(Record(*KEY))
    engine.append(KEY, [Message("user", id_, id=id_) for id_ in ids])
    with psycopg.connect(shared_url()) as connection:
        query = f"select id from {engine._server.schema}.message order by number"
        kept = [id_ for (id_,) in connection.execute(query.encode()).fetchall()]
    assert len(set(kept)) == len(ids)
    assert max(len(id_.encode()) for id_ in kept) <= 200
    more = [id_ for id_ in kept if id_ not in ids]
    assert more
    assert engine.append(KEY, [Message("user", id_, id=id_) for id_ in more]).length == len(ids) + len(more)
    assert engine.append(KEY, [Message("user", id_, id=id_) for id_ in ids]).length == len(ids) + len(more)
    with pytest.raises(MessageIdConflict):
        engine.append(KEY, [Message("user", "other", id="é" * 300)])


def test_a_huge_message_is_found_by_as_many_words_as_an_index_holds(engine: PostgresEngine) -> None:
    engine.open_session(Record(*KEY))
    words = [f"{'日' * 18}w{number}" for number in range(60_000)]
    text = " ".join(f"word{number:060}" for number in range(40_000))
    engine.append(
        KEY, [Message("user", "first " + text + " last"), Message("user", "small"), Message("user", " ".join(words))]
    )
    assert [hit.number for hit in engine.search("alice", parse("first")).hits] == [0]
    assert [hit.number for hit in engine.search("alice", parse("w5")).hits] == [2]
    assert engine.search("alice", parse("last")).hits == []
    assert engine.read(KEY, 0, 1).messages[0].text().endswith("last")


def test_the_best_hits_come_first(engine: PostgresEngine) -> None:
    engine.open_session(Record(*KEY))
    long = "needle in a long text about many other things, haystacks among them"
    engine.append(KEY, [Message("user", text) for text in ("a needle", long, "needle", "the needle")])
    assert [hit.message.content for hit in engine.search("alice", parse("needle")).hits] == [
        *("needle", "the needle", "a needle"),
        long,
    ]


def test_numbers_that_the_server_cannot_hold_mean_what_they_say(engine: PostgresEngine) -> None:
    engine.open_session(Record(*KEY))
    engine.append(KEY, [Message("user", "needle")])
    assert len(engine.read(KEY, -(10**30), 10**30).messages) == 1
    assert engine.read(KEY, 10**30) == (1, [])
    assert len(engine.list_sessions("alice", limit=10**30).records) == 1
    assert len(engine.search("alice", parse("needle"), limit=10**30).hits) == 1
    assert engine.search("alice", parse("needle"), limit=0).hits == []


@pytest.mark.parametrize("wrong", ["a\0b", "\ud800", "", "\x01"])
def test_what_can_be_no_id_is_not_there(engine: PostgresEngine, wrong: str) -> None:
    engine.open_session(Record(*KEY))
    for key in (Key(wrong, "s"), Key("alice", wrong)):
        assert engine.get(key) is None
        assert engine.read(key) == (0, [])
        assert engine.delete(key) is False
    assert (engine.owners(wrong), engine.list_sessions(wrong).records) == ([], [])
    assert engine.search(wrong, parse("x")).hits == []


# What it says of itself


def _described(url: str, **options: Any) -> dict[str, str]:
    with closing(PostgresEngine(url, **options)) as engine:
        return engine.describe()


def test_it_says_what_survives(server: PostgresServer, schema: str) -> None:
    url = with_parameter(server.url(), "schema", schema)
    told = _described(url)
    assert told["engine"].startswith("PostgreSQL 1")
    assert told["schema"] == f"{schema}, version 2"
    assert "synchronous_commit is off" in told["durability"]
    assert "synchronous_commit" not in _described(url, durability="full")["durability"]
    on = with_parameter(url, "options", "-c synchronous_commit=on")
    assert _described(on)["durability"].endswith("a loss of power")
    for name, value, text in (
        ("fsync", "off", "fsync is off"),
        ("full_page_writes", "off", "full_page_writes is off"),
    ):
        _execute(server, f"alter system set {name} = {value}", "select pg_reload_conf()")
        try:
            assert text in _until(lambda: _described(on)["durability"], text)
        finally:
            _execute(server, f"alter system reset {name}", "select pg_reload_conf()")


def _until(look: Any, text: str) -> str:
    """What `look()` returns once the text is in it: the server takes a moment to read its settings."""
    for _ in range(1000):
        found: str = look()
        if text in found:
            return found
    return found


def test_every_place_is_empty_for_its_test() -> None:
    with empty_place() as url:
        assert _use(url) == ["hello"]
