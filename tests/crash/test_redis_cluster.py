"""A Redis cluster in which servers die, slots move, and users come and go: what was acknowledged is there, once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from servers.redis import (
    RedisCluster,
    RedisServer,
    Stored,
    client_of,
    empty_place,
    keys,
    shared_cluster,
    until,
)

from praisonaiagents.errors import EngineUnreachable, NotReplicated, OutcomeUnknown, StorageError
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session.store import SessionStore
from praisonaiagents.storage.redis import RedisEngine

USERS = ("alice", "bob", "carol", "dave", "erin", "frank")


def _said(engine: RedisEngine, key: Key) -> list[Any]:
    return [message.content for message in engine.read(key, 0).messages]


class Writer:
    """A thread that appends to a session of its own user, each message again until it is acknowledged."""

    def __init__(self, store: SessionStore, user_id: str) -> None:
        self.key = Key(user_id, "s")
        self.acknowledged: list[str] = []
        self.errors: list[BaseException] = []
        self.ended = threading.Event()
        self._store = store
        self.thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        try:
            while not self.ended.is_set():
                text = str(len(self.acknowledged))
                try:
                    self._store.append("s", [Message("user", text, id=text)], user_id=self.key.user_id)
                except (NotReplicated, OutcomeUnknown):
                    continue
                self.acknowledged.append(text)
        except BaseException as exc:
            self.errors.append(exc)
            raise


@contextmanager
def _writing(engine: RedisEngine) -> Iterator[list[Writer]]:
    writers = [Writer(SessionStore(engine), user_id) for user_id in USERS]
    for writer in writers:
        writer.thread.start()
    try:
        yield writers
    finally:
        for writer in writers:
            writer.ended.set()
        for writer in writers:
            writer.thread.join()


def _all_get_on(writers: list[Writer], count: int) -> None:
    goals = [len(writer.acknowledged) + count for writer in writers]
    until(
        lambda: all(len(writer.acknowledged) >= goal for writer, goal in zip(writers, goals, strict=True)),
        "a writer does not get on",
    )


def _check(engine: RedisEngine, writers: list[Writer]) -> None:
    for writer in writers:
        said = _said(engine, writer.key)
        assert writer.errors == []
        assert said[: len(writer.acknowledged)] == writer.acknowledged
        assert len(said) <= len(writer.acknowledged) + 1  # the last one may be stored without having been acknowledged


def test_nothing_acknowledged_is_lost_when_a_primary_dies() -> None:
    with RedisCluster() as cluster, closing(RedisEngine(f"{cluster.url}?replicas=1", pool_size=6)) as engine:
        with _writing(engine) as writers:
            for user_id in USERS[:2]:
                _all_get_on(writers, 20)
                key = f"praisonai:{{{user_id}}}:s:s"
                primary, replica = cluster.primary_of(key), cluster.replica_of(key)
                primary.kill()
                until(lambda: cluster.primary_of(key) is replica, "the replica does not take over")  # noqa: B023
                primary.start()
                until(cluster.is_whole, "the cluster does not come together again")
            _all_get_on(writers, 20)
        _check(engine, writers)
        Stored(client_of(cluster.url), "praisonai").check()


def test_a_call_waits_until_the_replica_has_taken_over() -> None:
    with RedisCluster() as cluster, closing(RedisEngine(cluster.url, replicas=1)) as engine:
        for user_id in USERS:
            engine.open_session(Record(user_id, "s"))
        with closing(RedisEngine(cluster.url)) as reader:
            reader.get(Key("alice", "s"))
            primary = cluster.primary_of("praisonai:{alice}:s:s")
            primary.kill()
            assert reader.append(Key("alice", "s"), [Message("user", "x")]).length == 1
            assert reader.update(Key("alice", "s"), {"state": {"n": 1}}).revision == 1
            assert {record.user_id for record in reader.list_sessions(None).records} == set(USERS)
            assert reader.owners("s") == sorted(USERS)
            with pytest.raises(NotReplicated):
                engine.append(Key("alice", "s"), [Message("user", "y")])


def test_a_cluster_with_a_part_that_nobody_has_is_given_up_after_a_while() -> None:
    with RedisCluster() as cluster, closing(RedisEngine(cluster.url, failover_timeout_s=1.5)) as engine:
        engine.open_session(Record("alice", "s"))
        key = "praisonai:{alice}:s:s"
        for node in (cluster.primary_of(key), cluster.replica_of(key)):
            node.kill()
        began = time.monotonic()
        with pytest.raises(StorageError):
            engine.append(Key("alice", "s"), [Message("user", "x")])
        assert time.monotonic() - began > 1
        for node in cluster.nodes:
            node.kill()
        with pytest.raises(EngineUnreachable, match="no node"):
            engine.get(Key("alice", "s"))


# A cluster that is well


@pytest.fixture
def engine() -> Iterator[RedisEngine]:
    with empty_place(cluster=True) as url, closing(RedisEngine(url)) as engine:
        yield engine


def _move_slot(source: RedisServer, target: RedisServer, key: str, *, while_moving: Callable[[], None]) -> None:
    """Move the slot of a key to another primary, and do something when half of its keys are there."""
    slot = source.ask("CLUSTER", "KEYSLOT", key)
    names = {node: node.ask("CLUSTER", "MYID").decode() for node in (source, target)}
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    found = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    found.sort(key=lambda each: b"}:s:" in each or each.endswith(b"}:index"))  # last those that a script is given
    for number, each in enumerate(found):
        if number == len(found) // 2:
            while_moving()
        source.ask("MIGRATE", "127.0.0.1", target.port, each, 0, 5000)
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])


@pytest.mark.parametrize("call", ["append", "fork", "delete", "read"])
def test_a_call_waits_for_a_slot_that_is_being_moved(engine: RedisEngine, call: str) -> None:
    cluster, key, fork = shared_cluster(), Key("alice", "s"), Key("alice", "fork")
    engine.open_session(Record(*key))
    engine.append(key, [Message("user", str(number)) for number in range(3)])
    engine.fork(key, Record(*fork))
    engine.append(fork, [Message("user", "fork")])
    name = engine._names.session(key).decode()
    prefix = engine._names.prefix
    source = cluster.primary_of(name)
    target = next(node for node in (cluster.primary_of("a"), cluster.primary_of("b")) if node is not source)
    calls: dict[str, Callable[[], Any]] = {
        "append": lambda: engine.append(key, [Message("user", "new")]),
        "fork": lambda: engine.fork(key, Record("alice", "another")),
        "delete": lambda: engine.delete(fork),
        "read": lambda: engine.read(fork),
    }
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(calls[call]()))

    def begin() -> None:
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()

    _move_slot(source, target, name, while_moving=begin)
    thread.join()
    assert len(answers) == 1
    assert cluster.primary_of(name) is target
    Stored(client_of(cluster.url), prefix).check()
    said = ["0", "1", "2"]
    assert _said(engine, key) == ([*said, "new"] if call == "append" else said)
    assert _said(engine, fork) == ([] if call == "delete" else [*said, "fork"])
    _move_slot(target, source, name, while_moving=lambda: None)


def test_an_engine_that_knows_one_node_finds_the_others() -> None:
    with empty_place(cluster=True) as url:
        options = url.partition("?")[2]
        for node in shared_cluster().nodes:  # a replica will do
            with closing(RedisEngine(f"redis+cluster://127.0.0.1:{node.port}?{options}")) as engine:
                for user_id in USERS:
                    engine.open_session(Record(user_id, "s"))
                assert len(engine.list_sessions(None).records) == len(USERS)
        dead = f"redis+cluster://127.0.0.1:1,127.0.0.1:{node.port}?{options}"
        with closing(RedisEngine(dead)) as engine:
            assert engine.owners("s") == sorted(USERS)


def test_a_node_of_a_cluster_is_no_single_server() -> None:
    node = shared_cluster().nodes[0]
    url = f"redis://127.0.0.1:{node.port}?prefix=t"
    with closing(RedisEngine(url)) as engine, pytest.raises(StorageError, match=r"redis\+cluster://"):
        engine.open_session(Record("alice", "s"))


class Interrupted(RedisEngine):
    """An engine that lets somebody else work (`meanwhile`) right before it sends something (`before`) for the first time."""

    before = ""
    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def _pause(self, name: str) -> None:
        if name == self.before:
            self.before = ""
            self.meanwhile()

    def _write(self, name: str, *arguments: Any, **options: Any) -> Any:
        self._pause(name)
        return super()._write(name, *arguments, **options)

    def _ask_many(self, requests: Any) -> list[Any]:
        self._pause(requests[0][1][0] if requests else "")
        return super()._ask_many(requests)


@pytest.mark.parametrize("before", ["HGET", "EXISTS", "EVAL"])
def test_a_session_made_while_another_one_is_deleted_is_found(engine: RedisEngine, before: str) -> None:
    key = Key("alice", "s")
    engine.open_session(Record(*key))
    with closing(Interrupted(f"{engine._place}?prefix={engine._names.prefix}")) as slow:
        slow.before, slow.meanwhile = before, lambda: engine.open_session(Record(*key))
        assert slow.delete(key)
    assert slow.before == ""
    assert [record.key for record in engine.list_sessions(None).records] == [key]
    assert engine.owners("s") == ["alice"]


@pytest.mark.parametrize("before", ["open", "HSET"])
def test_a_session_that_is_deleted_while_another_one_is_made_is_not_missed(engine: RedisEngine, before: str) -> None:
    key = Key("alice", "s")
    engine.open_session(Record("alice", "t"))

    def delete_all() -> None:
        engine.open_session(Record(*key))
        assert engine.delete(key)
        assert engine.delete(Key("alice", "t"))

    with closing(Interrupted(f"{engine._place}?prefix={engine._names.prefix}")) as slow:
        slow.before, slow.meanwhile = before, delete_all
        assert slow.open_session(Record(*key)).key == key
    assert slow.before == ""
    assert [record.key for record in engine.list_sessions(None).records] == [key]
    assert engine.owners("s") == ["alice"]


def test_who_makes_and_deletes_sessions_at_once_leaves_no_wrong_trace(engine: RedisEngine) -> None:
    def work(number: int) -> None:
        chance = random.Random(number)
        for _ in range(40):
            key = Key(f"user{chance.randrange(2)}", f"s{chance.randrange(2)}")
            if chance.random() < 0.5:
                engine.open_session(Record(*key))
            else:
                engine.delete(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there = [Key(user, name) for user in ("user0", "user1") for name in ("s0", "s1") if engine.get(Key(user, name))]
    assert sorted(record.key for record in engine.list_sessions(None).records) == there
    for name in ("s0", "s1"):
        assert engine.owners(name) == [key.user_id for key in there if key.session_id == name]
    for user_id in ("user0", "user1"):
        for name in ("s0", "s1"):
            engine.open_session(Record(user_id, name))
            engine.delete(Key(user_id, name))
    left = keys(client_of(shared_cluster().url), engine._names.prefix)
    assert left == [f"{engine._names.prefix}:schema".encode()]
