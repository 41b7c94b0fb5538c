"""Redis when something breaks: connections, servers, memory. What was acknowledged is there, once, and the rest is said."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from servers.proxy import Proxy
from servers.redis import RedisServer, Stored, empty_place, shared_server, until

from praisonaiagents.errors import (
    EngineUnreachable,
    NotReplicated,
    OutcomeUnknown,
    SessionExists,
    SessionNotFound,
    StorageError,
    StorageFull,
)
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.model.search import parse
from praisonaiagents.session.store import SessionStore
from praisonaiagents.storage.redis import RedisEngine

KEY = Key("default_user", "s")
FORK = Key("default_user", "fork")


def _said(engine: RedisEngine, key: Key = KEY) -> list[Any]:
    return [message.content for message in engine.read(key, 0).messages]


class Shaky:
    """An engine behind two proxies, with its connections made and its scripts known; `sure` sees the server itself.

    It has a session with the messages "first" and "second".
    """

    def __init__(self, outer: Proxy, inner: Proxy, url: str) -> None:
        self.outer, self.inner = outer, inner
        self.engine = RedisEngine(f"redis://127.0.0.1:{outer.port}?{url.partition('?')[2]}", pool_size=2)
        self.sure = RedisEngine(url)
        self.engine.open_session(Record(*KEY))
        self.engine.append(KEY, [Message("user", "first", id="first"), Message("user", "second", id="second")])
        self.engine.fork(KEY, Record(*FORK))
        self.engine.replace(FORK, [])
        self.engine.update(FORK, {"state": {}})
        self.engine.drop(FORK)
        self.engine.read(FORK)
        self.engine.delete(FORK)


@pytest.fixture
def shaky() -> Iterator[Shaky]:
    server = shared_server()
    with (
        empty_place(server.url) as url,
        Proxy("127.0.0.1", server.port) as inner,
        Proxy("127.0.0.1", inner.port) as outer,
    ):
        found = Shaky(outer, inner, url)
        with closing(found.engine), closing(found.sure):
            yield found


# A connection breaks

BREAKS: dict[str, Callable[..., None]] = {
    "before the request": lambda proxy, n=1: proxy.cut_before_request(n),
    "before the answer": lambda proxy, n=1: proxy.cut_before_answer(n),
    "in the answer": lambda proxy, n=1: proxy.cut_before_answer(n, delivered=3),
}
NOTHING_DONE = "before the request"


def _break_twice(shaky: Shaky, first: str, second: str) -> None:
    BREAKS[first](shaky.outer)
    BREAKS[second](shaky.inner, 1 if first == NOTHING_DONE else 2)  # the first one reaches it or not


@pytest.mark.parametrize("given", ["", "mine"], ids=["no id", "an id"])
@pytest.mark.parametrize("broken", BREAKS)
def test_a_message_is_stored_once_when_the_connection_breaks(shaky: Shaky, broken: str, given: str) -> None:
    before = shaky.outer.connections
    BREAKS[broken](shaky.outer)
    appended = shaky.engine.append(KEY, [Message("user", "new", id=given)], expected_length=2)
    assert appended.length == 3
    assert _said(shaky.sure) == ["first", "second", "new"]
    assert shaky.outer.connections == before + 1


@pytest.mark.parametrize("second", BREAKS)
@pytest.mark.parametrize("first", BREAKS)
def test_a_message_is_stored_once_when_the_connection_breaks_twice(shaky: Shaky, first: str, second: str) -> None:
    _break_twice(shaky, first, second)
    appended = SessionStore(shaky.engine).append("s", [Message("user", "new"), Message("user", "newer")])
    assert appended.length == 4
    assert _said(shaky.sure) == ["first", "second", "new", "newer"]


@pytest.mark.parametrize("second", BREAKS)
@pytest.mark.parametrize("first", BREAKS)
def test_an_append_that_broke_twice_names_its_messages(shaky: Shaky, first: str, second: str) -> None:
    _break_twice(shaky, first, second)
    with pytest.raises(OutcomeUnknown) as info:
        shaky.engine.append(KEY, [Message("user", "new"), Message("user", "mine", id="mine")])
    ids = info.value.message_ids
    assert (len(ids), ids[1], type(info.value)) == (2, "mine", OutcomeUnknown)
    done = (first, second) != (NOTHING_DONE, NOTHING_DONE)
    assert [message.id for message in shaky.sure.read(KEY).messages][2:] == (list(ids) if done else [])
    given = [Message("user", "new", id=ids[0]), Message("user", "mine", id="mine")]
    assert shaky.engine.append(KEY, given).length == 4


@pytest.mark.parametrize("broken", BREAKS)
def test_a_repeat_that_is_no_repeat_is_still_refused(shaky: Shaky, broken: str) -> None:
    BREAKS[broken](shaky.outer)
    with pytest.raises(ValueError, match="another message"):
        shaky.engine.append(KEY, [Message("user", "new"), Message("user", "other", id="first")])
    assert _said(shaky.sure) == ["first", "second"]


ASKS: dict[str, Callable[[RedisEngine], Any]] = {
    "get": lambda engine: engine.get(KEY),
    "read": lambda engine: engine.read(KEY),
    "list": lambda engine: engine.list_sessions("default_user"),
    "list all": lambda engine: engine.list_sessions(None),
    "owners": lambda engine: engine.owners("s"),
    "search": lambda engine: engine.search(None, parse("second")),
    "describe": lambda engine: {**engine.describe(), "place": ""},
    "open": lambda engine: engine.open_session(Record(*KEY)),
}


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("ask", ASKS)
def test_what_changes_nothing_is_asked_again(shaky: Shaky, ask: str, broken: str) -> None:
    expected = ASKS[ask](shaky.sure)
    BREAKS[broken](shaky.outer)
    assert ASKS[ask](shaky.engine) == expected


def test_what_changes_nothing_says_after_two_breaks_that_there_is_no_connection(shaky: Shaky) -> None:
    for ask in (name for name in ASKS if name not in ("open", "describe")):
        _break_twice(shaky, "before the answer", "before the answer")
        with pytest.raises(EngineUnreachable, match="twice"):
            ASKS[ask](shaky.engine)


@pytest.mark.parametrize("broken", BREAKS)
def test_a_session_is_made_once_when_the_connection_breaks(shaky: Shaky, broken: str) -> None:
    BREAKS[broken](shaky.outer)
    made = shaky.engine.open_session(Record(*FORK))
    assert (made, shaky.sure.get(FORK)) == (shaky.sure.get(FORK), made)


CHANGES: dict[str, Callable[[RedisEngine], Any]] = {
    "make": lambda engine: engine.open_session(Record(*FORK), must_be_new=True),
    "fork": lambda engine: engine.fork(KEY, Record(*FORK)),
    "replace": lambda engine: engine.replace(KEY, [Message("user", "new", id="mine")]),
    "drop": lambda engine: engine.drop(KEY),
    "delete": lambda engine: engine.delete(KEY),
}


def _all(engine: RedisEngine) -> list[Any]:
    records = engine.list_sessions(None).records
    return [(record.key, record.start, record.revision, _said(engine, record.key)) for record in records]


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_may_have_been_made_is_not_made_twice(shaky: Shaky, change: str, broken: str) -> None:
    shaky.sure.update(KEY, {"start": 1})
    before = _all(shaky.sure)
    BREAKS[broken](shaky.outer)
    with pytest.raises(OutcomeUnknown) as info:
        CHANGES[change](shaky.engine)
    assert info.value.message_ids == (("mine",) if change == "replace" else ())
    after = _all(shaky.sure)
    assert (after == before) == (broken == NOTHING_DONE)
    if broken != NOTHING_DONE:
        with suppress(SessionExists, SessionNotFound):
            CHANGES[change](shaky.sure)
        assert len(_all(shaky.sure)) == len(after)


@pytest.mark.parametrize("broken", BREAKS)
def test_an_update_that_may_have_been_made_is_not_made_twice(shaky: Shaky, broken: str) -> None:
    BREAKS[broken](shaky.outer, 2)  # the first request reads
    with pytest.raises(OutcomeUnknown):
        shaky.engine.update(KEY, {"state": {"n": 1}})
    record = shaky.sure.get(KEY)
    assert record is not None
    assert (record.revision, record.state) == ((0, {}) if broken == NOTHING_DONE else (1, {"n": 1}))


def test_connections_that_the_server_closed_are_not_used(shaky: Shaky) -> None:
    with closing(RedisEngine(shaky.sure._target.place + f"?prefix={shaky.sure._names.prefix}")) as engine:
        engine.append(KEY, [Message("user", "third")])
        shared_server().ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert engine.update(KEY, {"state": {"n": 1}}).revision == 1
        shared_server().ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert engine.delete(KEY)


def test_a_server_that_has_forgotten_the_scripts_is_told_them_again(shaky: Shaky) -> None:
    shared_server().ask("SCRIPT", "FLUSH")
    assert shaky.engine.append(KEY, [Message("user", "new")]).length == 3
    shared_server().ask("SCRIPT", "FLUSH")
    assert shaky.engine.read(KEY).messages == shaky.sure.read(KEY).messages


def test_a_server_that_does_not_answer_in_time(shaky: Shaky) -> None:
    url = f"redis://127.0.0.1:{shaky.outer.port}?prefix={shaky.sure._names.prefix}&socket_timeout=0.3"
    with closing(RedisEngine(url)) as engine:
        assert engine.get(KEY) is not None
        shaky.outer.pause()
        with pytest.raises(EngineUnreachable):
            engine.get(KEY)
        with pytest.raises(OutcomeUnknown):
            engine.delete(Key("default_user", "nobody"))
        shaky.outer.resume()
        assert engine.get(KEY) is not None


# A server goes, and comes back

ALWAYS = (("appendonly", "yes"), ("appendfsync", "always"))


@contextmanager
def _writers(url: str, count: int, *, keys: Callable[[int], Key] | None = None) -> Iterator[list[list[str]]]:
    """Threads that append to one session until the block ends, each through a store of its own. What was acknowledged."""
    ended = threading.Event()
    acknowledged: list[list[str]] = [[] for _ in range(count)]

    def write(number: int) -> None:
        with closing(RedisEngine(url, pool_size=2)) as engine:
            store = SessionStore(engine)
            while not ended.is_set():
                text = f"{number}/{len(acknowledged[number])}"
                try:
                    store.append("s", [Message("user", text, id=text)])
                except (EngineUnreachable, OutcomeUnknown):
                    time.sleep(0.01)  # the same message again: nobody said that it is stored
                else:
                    acknowledged[number].append(text)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_server_that_comes_back_has_what_it_acknowledged(end: str) -> None:
    with RedisServer(*ALWAYS) as server:
        with _writers(server.url, 4) as acknowledged:
            for _ in range(3):
                goal = sum(map(len, acknowledged)) + 40
                until(lambda: sum(map(len, acknowledged)) > goal, "nobody gets anything stored")  # noqa: B023
                getattr(server, end)()
                server.start()
            goal = [len(texts) + 10 for texts in acknowledged]
            until(lambda: all(len(t) > g for t, g in zip(acknowledged, goal, strict=True)), "a writer does not recover")
        with closing(RedisEngine(server.url)) as engine:
            said = _said(engine)
            assert len(set(said)) == len(said)
            for number, texts in enumerate(acknowledged):
                mine = [text for text in said if text.startswith(f"{number}/")]
                assert mine[: len(texts)] == texts
                assert len(mine) <= len(texts) + 1  # the last one may be stored, and nobody told
        with closing(server.client()) as client:
            Stored(client, "praisonai").check()


def test_a_server_that_is_not_there_is_said_at_once_and_found_when_it_is_back() -> None:
    with RedisServer(*ALWAYS) as server, closing(RedisEngine(server.url)) as engine:
        engine.open_session(Record(*KEY))
        server.kill()
        for _ in range(3):
            with pytest.raises(EngineUnreachable) as info:
                engine.append(KEY, [Message("user", "lost")])
            assert str(server.port) in str(info.value)
        server.start()
        assert engine.append(KEY, [Message("user", "stored")]).length == 1


def test_a_server_that_is_still_loading_stores_nothing_and_says_so() -> None:
    slow = (("key-load-delay", "500"),)  # microseconds a command; every 1,024 commands it looks who is asking
    with RedisServer(("appendonly", "yes"), *slow) as server, closing(RedisEngine(server.url)) as engine:
        engine.open_session(Record(*KEY))
        for _ in range(600):
            engine.append(KEY, [Message("user", "x")])
        server.kill()
        server.start(wait=False)
        until(lambda: not _is_silent(engine), "it says nothing")
        with pytest.raises(EngineUnreachable, match="loading"):
            engine.append(KEY, [Message("user", "x")])
        until(server.serves, "it does not load")
        assert engine.append(KEY, [Message("user", "x")]).length == 601


def _is_silent(engine: RedisEngine) -> bool:
    try:
        engine.get(KEY)
    except EngineUnreachable as exc:
        return "loading" not in str(exc)
    return False


# Replicas


@pytest.fixture
def pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica, which has caught up."""
    with RedisServer(("repl-diskless-sync-delay", "0")) as primary, RedisServer() as replica:
        replica.ask("REPLICAOF", "127.0.0.1", primary.port)
        with closing(primary.client()) as client:
            until(lambda: client.incr("written") > 0 and client.wait(1, 100) == 1, "no replica")
        yield primary, replica
        replica.resume()


def test_a_change_that_replicas_have_returns(pair: tuple[RedisServer, RedisServer]) -> None:
    primary, replica = pair
    with closing(RedisEngine(primary.url, replicas=1, replica_timeout_s=10)) as engine:
        engine.open_session(Record(*KEY))
        for number in range(50):
            engine.append(KEY, [Message("user", str(number))])
            assert replica.ask("HGET", "praisonai:{default_user}:s:s", "length") == str(number + 1).encode()
        engine.fork(KEY, Record(*FORK))
        assert replica.ask("EXISTS", "praisonai:{default_user}:s:fork") == 1
        assert "1 replica" in engine.describe()["durability"]


def test_a_change_that_no_replica_has_is_stored_and_said(pair: tuple[RedisServer, RedisServer]) -> None:
    primary, replica = pair
    url = f"{primary.url}?replicas=1&replica_timeout=0.05"
    with closing(RedisEngine(url)) as engine, closing(RedisEngine(primary.url)) as patient:
        engine.open_session(Record(*KEY))
        replica.pause()
        with pytest.raises(NotReplicated) as info:
            engine.append(KEY, [Message("user", "new"), Message("user", "mine", id="mine")])
        ids = info.value.message_ids
        assert (info.value.replicas, info.value.wanted, len(ids), ids[1]) == (0, 1, 2, "mine")
        assert _said(engine) == ["new", "mine"]
        repeated = [Message("user", "new", id=ids[0]), Message("user", "mine", id="mine")]
        engine.close()
        with pytest.raises(NotReplicated):  # on a new connection too: it is still on one server only
            engine.append(KEY, repeated)
        for change in CHANGES.values():
            with pytest.raises(NotReplicated):
                change(engine)
            patient.delete(FORK)  # two of them make it
        with pytest.raises(SessionNotFound):
            engine.append(KEY, repeated)
        replica.resume()
        engine.open_session(Record(*KEY))
        assert engine.append(KEY, repeated).length == 2


def test_more_replicas_than_there_are(pair: tuple[RedisServer, RedisServer]) -> None:
    with closing(RedisEngine(pair[0].url, replicas=2, replica_timeout_s=0.1)) as engine:
        with pytest.raises(NotReplicated) as info:
            engine.open_session(Record(*KEY))
        assert (info.value.replicas, info.value.wanted) == (1, 2)
        assert engine.get(KEY) is not None


def test_a_replica_is_read_from_and_takes_no_writes(pair: tuple[RedisServer, RedisServer]) -> None:
    primary, replica = pair
    with closing(RedisEngine(primary.url, replicas=1)) as engine, closing(RedisEngine(replica.url)) as reader:
        engine.open_session(Record(*KEY))
        engine.append(KEY, [Message("user", "x")])
        engine.update(KEY, {"start": 1})
        assert _said(reader) == ["x"]
        for change in CHANGES.values():
            with pytest.raises(StorageError, match="replica, which only reads"):
                change(reader)


def test_a_server_that_wants_more_replicas_stores_nothing(pair: tuple[RedisServer, RedisServer]) -> None:
    with closing(RedisEngine(pair[0].url)) as engine:
        engine.open_session(Record(*KEY))
        pair[0].ask("CONFIG", "SET", "min-replicas-to-write", 2)
        with pytest.raises(StorageError, match="min-replicas-to-write"):
            engine.append(KEY, [Message("user", "x")])
        pair[0].ask("CONFIG", "SET", "min-replicas-to-write", 0)
        assert engine.append(KEY, [Message("user", "y")]).length == 1


# No memory left


def test_a_full_memory_stores_nothing_by_halves_and_can_be_cleared() -> None:
    with RedisServer() as server, closing(RedisEngine(server.url)) as engine, closing(server.client()) as client:
        engine.open_session(Record(*KEY))
        keep = Key("default_user", "keep")
        engine.open_session(Record(*keep))
        engine.append(keep, [Message("user", "kept")])
        engine.update(KEY, {"pins": {}})
        server.ask("CONFIG", "SET", "maxmemory", int(client.info("memory")["used_memory"]) + 1_000_000)
        stored = 0
        while not _is_full(engine):
            stored += 2
        before = _all(engine)
        refused: list[Callable[[], Any]] = [
            lambda: engine.append(KEY, [Message("user", "z"), Message("user", "z")]),
            lambda: engine.update(KEY, {"state": {"n": 1}, "start": 1}),
            lambda: engine.update(KEY, {"head": _record(engine).head}),
            lambda: engine.replace(KEY, [Message("user", "z")]),
            lambda: engine.fork(KEY, Record(*FORK)),
            lambda: engine.open_session(Record("somebody", "new")),
        ]
        for call in refused:
            with pytest.raises(StorageFull):
                call()
            Stored(client, "praisonai").check()
            assert _all(engine) == before
        assert len(_said(engine)) == stored
        assert engine.append(KEY, []).length == stored
        assert engine.search(None, parse("kept")).hits[0].key == keep
        assert engine.delete(KEY)
        assert _said(engine, keep) == ["kept"]
        until(lambda: not _is_full(engine, keep), "the memory is not freed")  # the server does so behind the scenes
        Stored(client, "praisonai").check()


def _is_full(engine: RedisEngine, key: Key = KEY) -> bool:
    try:
        engine.append(key, [Message("user", "x" * 10_000), Message("user", "y")])
    except StorageFull:
        return True
    return False


def test_messages_can_be_dropped_where_memory_is_full() -> None:
    with RedisServer() as server, closing(RedisEngine(server.url)) as engine, closing(server.client()) as client:
        engine.open_session(Record(*KEY))
        engine.append(KEY, [Message("user", "x" * 1000) for _ in range(1000)])
        engine.update(KEY, {"start": 900, "pins": {"x": _record(engine).head}})
        engine.update(KEY, {"start": 950, "pins": {}})
        server.ask("CONFIG", "SET", "maxmemory", 1_000_000)
        with pytest.raises(StorageFull):
            engine.append(KEY, [Message("user", "z")])
        assert engine.drop(KEY) > 950_000
        Stored(client, "praisonai").check()
        assert len(_said(engine)) == 50


def _record(engine: RedisEngine) -> Record:
    record = engine.get(KEY)
    assert record is not None
    return record
