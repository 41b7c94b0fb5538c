"""A PostgreSQL server that goes away, and a network that breaks, at every place of a call.

What a call told is compared with what is there afterwards: acknowledged means stored once, `EngineUnreachable` means not
stored, `OutcomeUnknown` means at most once, and once after a repeat with the same ids.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import psycopg
import pytest
from servers.postgres import PgBouncer, PostgresServer, drop_schema, with_parameter
from servers.proxy import Proxy

from praisonaiagents.errors import EngineUnreachable, OutcomeUnknown
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.model.search import parse
from praisonaiagents.session.store import SessionStore
from praisonaiagents.storage.engine import new_message_id
from praisonaiagents.storage.postgres import PostgresEngine

KEY = Key("alice", "s")
THREADS = 6


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of our own, with the settings that servers have."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    schema = f"t_{new_message_id()[4:]}"
    yield with_parameter(server.url(), "schema", schema)
    drop_schema(server.url(), schema)


@pytest.fixture
def engine(url: str) -> Iterator[PostgresEngine]:
    with closing(PostgresEngine(url)) as engine:
        engine.open_session(Record(*KEY))
        yield engine


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", server.port) as proxy:
        yield proxy


@pytest.fixture
def distant(url: str, server: PostgresServer, proxy: Proxy) -> Iterator[PostgresEngine]:
    """An engine on the other side of the proxy, with one connection, which is open."""
    there = url.replace(f":{server.port}/", f":{proxy.port}/") + "&sslmode=disable&gssencmode=disable&pool_size=1"
    with closing(PostgresEngine(there)) as engine:
        engine.open_session(Record(*KEY))
        yield engine


def _said(engine: PostgresEngine, key: Key = KEY) -> list[Any]:
    return [message.content for message in engine.read(key, 0).messages]


# Under load


class Load:
    """Threads that append to a session of their own, and what they were told.

    stored: texts that were acknowledged. doubtful: texts whose call ended in `OutcomeUnknown`. refused: `EngineUnreachable`.
    """

    def __init__(self, engine: PostgresEngine) -> None:
        self._engine = engine
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(THREADS)
        self._lock = threading.Lock()
        self.stored: list[str] = []
        self.doubtful: list[str] = []
        self.refused: list[str] = []

    def __enter__(self) -> Load:
        for thread in range(THREADS):
            self._engine.open_session(Record("alice", f"load {thread}"))
        self._running = [self._pool.submit(self._work, thread) for thread in range(THREADS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown()
        for running in self._running:
            running.result()

    def go_on(self, count: int = 60) -> None:
        """Wait until so many more messages are acknowledged."""
        wanted = len(self.stored) + count
        while len(self.stored) < wanted:
            time.sleep(0.01)

    def check(self) -> None:
        """What is there is what was told."""
        found = Counter(
            text for thread in range(THREADS) for text in _said(self._engine, Key("alice", f"load {thread}"))
        )
        assert set(self.stored) <= found.keys()
        assert not found.keys() & set(self.refused)
        assert found.keys() <= {*self.stored, *self.doubtful}
        assert set(found.values()) == {1}

    def _work(self, thread: int) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            text = f"{thread}/{number}"
            told = self.stored
            try:
                self._engine.append(Key("alice", f"load {thread}"), [Message("user", text)])
            except OutcomeUnknown:
                told = self.doubtful
            except EngineUnreachable:
                told = self.refused
                time.sleep(0.01)
            with self._lock:
                told.append(text)


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
def test_a_restart_under_load_loses_nothing_and_clients_go_on(
    server: PostgresServer, engine: PostgresEngine, mode: Any
) -> None:
    with Load(engine) as load:
        for _ in range(2):
            load.go_on()
            if mode == "kill":
                server.kill()
            else:
                server.stop(mode)
            time.sleep(0.1)
            server.start()
        load.go_on()
    load.check()
    assert load.refused


def test_connections_that_are_ended_under_load_lose_nothing(server: PostgresServer, engine: PostgresEngine) -> None:
    with Load(engine) as load, psycopg.connect(server.url(), autocommit=True) as connection:
        for _ in range(30):
            load.go_on(10)
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'praisonaiagents'"
            )
    load.check()


@pytest.mark.skipif(not PgBouncer.available(), reason="PgBouncer is not installed")
def test_a_restart_behind_pgbouncer_loses_nothing(server: PostgresServer, url: str) -> None:
    with PgBouncer("127.0.0.1", server.port) as bouncer:
        there = with_parameter(bouncer.url(), "schema", url.rpartition("=")[2])
        with closing(PostgresEngine(there)) as engine:
            with Load(engine) as load:
                for mode in ("fast", "immediate"):
                    load.go_on()
                    server.restart(mode)  # type: ignore[arg-type]
                load.go_on()
            load.check()


def test_a_message_is_stored_once_however_often_a_client_tries(server: PostgresServer, engine: PostgresEngine) -> None:
    """The same ids again and again until it is acknowledged, over two restarts."""
    done = threading.Event()

    def work(thread: int) -> list[str]:
        store = SessionStore(engine)
        sent: list[str] = []
        while not done.is_set():
            sent.append(new_message_id())
            while True:
                with suppress(EngineUnreachable, OutcomeUnknown):
                    store.append("s", [Message("user", sent[-1], id=sent[-1])], user_id="alice")
                    break
        return sent

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(work, thread) for thread in range(THREADS)]
        for mode in ("fast", "immediate"):
            time.sleep(0.2)
            server.restart(mode)  # type: ignore[arg-type]
        time.sleep(0.2)
        done.set()
    assert sorted(_said(engine)) == sorted(text for thread in running for text in thread.result())


# Between calls


def test_connections_that_were_ended_while_idle_are_replaced_unnoticed(
    server: PostgresServer, engine: PostgresEngine
) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for number in range(5):
            found = connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'praisonaiagents'"
            ).fetchall()
            assert found == [(True,)]
            assert engine.open_session(Record("alice", str(number)), must_be_new=True).length == 0


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_between_calls_is_not_noticed(server: PostgresServer, engine: PostgresEngine, mode: Any) -> None:
    server.restart(mode)
    engine.update(KEY, {"state": {"n": 1}})
    server.restart(mode)
    assert engine.open_session(Record("alice", "new"), must_be_new=True).length == 0


def test_a_server_that_is_down_is_told_and_found_again(server: PostgresServer, engine: PostgresEngine) -> None:
    server.stop()
    calls: list[Callable[[], object]] = [
        lambda: engine.append(KEY, [Message("user", "x")]),
        lambda: engine.update(KEY, {}),
        lambda: engine.get(KEY),
        lambda: engine.delete(KEY),
    ]
    for call in calls:
        with pytest.raises(EngineUnreachable):
            call()
    server.start()
    assert engine.append(KEY, [Message("user", "x")]).length == 1


# A network that breaks in the middle of a call

BREAKS: dict[str, Callable[[Proxy, int], None]] = {
    "before the request": lambda proxy, n: proxy.cut_before_request(n),
    "before the answer": lambda proxy, n: proxy.cut_before_answer(n),
    "in the answer": lambda proxy, n: proxy.cut_before_answer(n, delivered=3),
}


@pytest.mark.parametrize("place", BREAKS)
def test_an_append_through_the_store_is_stored_once(distant: PostgresEngine, proxy: Proxy, place: str) -> None:
    store = SessionStore(distant)
    for number in range(3):
        BREAKS[place](proxy, 1)
        store.append("s", [Message("user", f"a{number}"), Message("user", f"b{number}")], user_id="alice")
    assert _said(distant) == ["a0", "b0", "a1", "b1", "a2", "b2"]


@pytest.mark.parametrize("place", BREAKS)
def test_an_append_with_an_expected_length_is_stored_once(distant: PostgresEngine, proxy: Proxy, place: str) -> None:
    for number in range(3):
        BREAKS[place](proxy, 1)
        assert distant.append(KEY, [Message("user", str(number))], expected_length=number).length == number + 1


@pytest.mark.parametrize("place", BREAKS)
def test_an_append_whose_outcome_stays_unknown_may_be_repeated(
    distant: PostgresEngine, proxy: Proxy, place: str
) -> None:
    messages = [Message("user", "a"), Message("user", "b")]
    proxy.refuse()
    BREAKS[place](proxy, 1)
    with pytest.raises(OutcomeUnknown) as info:
        distant.append(KEY, messages)
    for _ in range(2):
        with pytest.raises(EngineUnreachable):
            distant.append(KEY, messages)
    proxy.accept()
    named = [Message("user", text, id=id_) for text, id_ in zip("ab", info.value.message_ids, strict=True)]
    assert distant.append(KEY, named).length == 2
    assert _said(distant) == ["a", "b"]


@pytest.mark.parametrize("place", BREAKS)
def test_calls_that_may_be_repeated_are(distant: PostgresEngine, proxy: Proxy, place: str) -> None:
    distant.append(KEY, [Message("user", "needle")])
    calls: list[Callable[[], object]] = [
        lambda: distant.get(KEY),
        lambda: distant.read(KEY),
        lambda: distant.list_sessions("alice"),
        lambda: distant.owners("s"),
        lambda: distant.search("alice", parse("needle")),
        lambda: distant.describe(),
        lambda: distant.open_session(Record(*KEY)),
    ]
    for call in calls:
        expected = call()
        BREAKS[place](proxy, 1)
        before = proxy.connections
        assert call() == expected
        assert proxy.connections == before + 1
    BREAKS[place](proxy, 1)
    assert distant.open_session(Record("alice", "new")).length == 0


def _state(engine: PostgresEngine) -> list[Any]:
    """All that is stored, but for times and logs."""
    records = sorted(engine.list_sessions("alice").records, key=lambda record: record.session_id)
    shown = [
        (record.key, record.start, record.length, record.revision, record.state, [*record.pins]) for record in records
    ]
    return [*shown, [_said(engine, record.key) for record in records]]


ONCE: dict[str, Callable[[PostgresEngine], object]] = {
    "update": lambda engine: engine.update(KEY, {"state": {"n": 1}}),
    "pin": lambda engine: engine.update(KEY, {"pins": {"x": engine.open_session(Record(*KEY)).head}}),
    "move": lambda engine: engine.update(KEY, {"head": engine.open_session(Record(*KEY)).head}),
    "replace": lambda engine: engine.replace(KEY, [Message("user", "new")]),
    "drop": lambda engine: engine.drop(KEY),
    "delete": lambda engine: engine.delete(KEY),
    "fork": lambda engine: engine.fork(KEY, Record("alice", "fork")),
    "must be new": lambda engine: engine.open_session(Record("alice", "fresh"), must_be_new=True),
}


@pytest.mark.parametrize("place", BREAKS)
@pytest.mark.parametrize("call", ONCE)
def test_what_may_happen_once_only_happens_wholly_or_not_at_all(
    engine: PostgresEngine, distant: PostgresEngine, proxy: Proxy, call: str, place: str
) -> None:
    """The connection breaks at the first round trip of the call, then at the second, and so on to the last."""
    _begin(engine)
    before = _state(engine)
    ONCE[call](engine)
    after = _state(engine)
    assert after != before
    unknown = 0
    for number in range(1, 100):
        _begin(engine)
        distant.get(KEY)  # it is connected
        connections = proxy.connections
        BREAKS[place](proxy, number)
        try:
            ONCE[call](distant)
        except OutcomeUnknown:
            unknown += 1
            assert _state(engine) == (before if place == "before the request" else after)
        else:
            assert _state(engine) == after
            if proxy.connections == connections:
                break  # it has no more round trips
    proxy.cut_before_request(10**9)
    assert unknown == 1  # the last one, in which it is made to last


def _begin(engine: PostgresEngine) -> None:
    for session_id in ("s", "fork", "fresh"):
        engine.delete(Key("alice", session_id))
    engine.open_session(Record(*KEY))
    engine.append(KEY, [Message("user", f"m{number}") for number in range(4)])
    engine.update(KEY, {"start": 2})


def test_a_slow_network_changes_nothing(distant: PostgresEngine, proxy: Proxy) -> None:
    proxy.delay_s = 0.05
    store = SessionStore(distant)
    for number in range(3):
        store.append("s", [Message("user", str(number))], user_id="alice")
    distant.update(KEY, {"state": {"n": 1}})
    assert _said(distant) == ["0", "1", "2"]


def test_a_call_waits_for_a_network_that_stands_still(distant: PostgresEngine, proxy: Proxy) -> None:
    proxy.pause()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(distant.append, KEY, [Message("user", "x")])
        time.sleep(0.2)
        assert not waiting.done()
        proxy.resume()
        assert waiting.result().length == 1


# What survives a crash of the server that is set not to wait for the disk


def test_full_durability_waits_for_the_disk_where_the_server_does_not() -> None:
    """The server's processes die at once after the call. Without waiting, its log would be written seconds later."""
    settings = {"synchronous_commit": "off", "wal_writer_delay": "10s", "bgwriter_delay": "10s"}
    with PostgresServer(**settings) as server, closing(PostgresEngine(server.url(), durability="full")) as engine:
        engine.open_session(Record(*KEY))
        _crash(server)
        assert engine.append(KEY, [Message("user", "x")]).length == 1
        _crash(server)
        assert _said(engine) == ["x"]
        engine.update(KEY, {"state": {"n": 1}})
        _crash(server)
        found = engine.get(KEY)
        assert found is not None
        assert found.state == {"n": 1}


def _crash(server: PostgresServer) -> None:
    server.kill()
    server.start()
