"""What Redis stores, and what its URLs, settings and errors say."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from servers.redis import RedisServer, Stored, client_of, empty_place, keys, shared_server
from servers.tls import TlsProxy

from praisonaiagents.errors import (
    ConfigError,
    ConfigTypeError,
    EngineUnreachable,
    InvalidMessage,
    NewerFormat,
    SessionDamage,
    SessionExists,
    SessionNotFound,
    StorageError,
)
from praisonaiagents.model.message import Message, decode
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.storage.redis import RedisEngine
from praisonaiagents.storage.redislink import parse_url
from praisonaiagents.storage.registry import open_engine


class Place:
    """An engine on a prefix of its own, and a look at what it stores."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = url.rpartition("=")[2]
        self.engine = RedisEngine(url)
        self.client = client_of(url)

    def stored(self) -> Stored:
        found = Stored(self.client, self.prefix)
        found.check()
        return found


@pytest.fixture(params=[False, True], ids=["server", "cluster"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with empty_place(cluster=request.param) as url:
        found = Place(url)
        with closing(found.engine):
            yield found


# Freeing


def _part(chance: random.Random, record: Record) -> Pin:
    """A part of what a session holds."""
    view = chance.choice([record.head, *record.pins.values()])
    first = chance.randint(view.start, view.length)
    return Pin(view.log, first, chance.randint(first, view.length))


def _change(chance: random.Random, engine: RedisEngine, key: Key) -> None:
    record = engine.get(key)
    if record is None:
        engine.open_session(Record(*key))
        return
    other = Record(key.user_id, f"s{chance.randrange(4)}")
    ids = ["", *(f"id{number}" for number in range(6))]
    messages = [Message("user", "x", id=chance.choice(ids)) for _ in range(chance.randrange(6))]
    pins = {name: pin for name, pin in record.pins.items() if chance.random() < 0.6}
    pins[chance.choice("abc")] = _part(chance, record)
    what: dict[Any, int] = {
        lambda: engine.append(key, messages): 5,
        lambda: engine.update(key, {"start": chance.randint(record.start, record.length)}): 3,
        lambda: engine.drop(key): 5,
        lambda: engine.update(key, {"pins": pins}): 3,
        lambda: engine.update(key, {"pins": {}}): 2,
        lambda: engine.update(key, {"head": _part(chance, record), "pins": pins}): 1,
        lambda: engine.update(key, {"head": _part(chance, record)}): 1,
        lambda: engine.replace(key, messages): 1,
        lambda: engine.fork(key, other, at=_part(chance, record)): 2,
        lambda: engine.fork(key, other): 2,
        lambda: engine.delete(key): 1,
    }
    with suppress(SessionExists, SessionNotFound, InvalidMessage):
        chance.choices(list(what), list(what.values()))[0]()


@pytest.mark.parametrize("seed", range(6))
def test_what_nothing_reaches_is_freed_at_once_and_nothing_else(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(250):
        _change(chance, place.engine, Key("alice", f"s{chance.randrange(4)}"))
        place.stored()
    for record in place.engine.list_sessions("alice").records:
        assert place.engine.delete(record.key)
        place.stored()
    assert place.stored().others == {"schema"}
    assert len(list(place.client.scan_iter(match=f"{place.prefix}:*"))) == 1


ALICE = Key("alice", "s")
FORK = Key("alice", "fork")


def _texts(first: int, last: int) -> list[Message]:
    return [Message("user", f"m{number}", id=f"id{number}") for number in range(first, last)]


def _begin(place: Place, count: int, key: Key = ALICE) -> None:
    place.engine.open_session(Record(*key))
    place.engine.append(key, _texts(0, count))


def _said(place: Place, key: Key = ALICE) -> list[Any]:
    return [message.content for message in place.engine.read(key, 0).messages]


def _head(place: Place, key: Key = ALICE) -> Pin:
    record = place.engine.get(key)
    assert record is not None
    return record.head


def _lines(place: Place, *, check: bool = True) -> list[list[str | None]]:
    """What lies in the lists, longest first."""
    found = (place.stored() if check else Stored(place.client, place.prefix)).lists.values()
    lists = [[str(decode(line).content) if line else None for line in lines] for lines in found]
    return sorted(lists, key=lambda lines: (-len(lines), str(lines)))


def test_what_a_pin_holds_in_the_middle_keeps_its_place_and_the_log_goes_on(place: Place) -> None:
    _begin(place, 8)
    place.engine.update(ALICE, {"start": 8, "pins": {"x": Pin(_head(place).log, 3, 5)}})
    assert place.engine.drop(ALICE) > 0
    assert _lines(place) == [["m3", "m4", None, None, None]]
    place.engine.append(ALICE, _texts(8, 10))
    assert _lines(place) == [["m3", "m4", None, None, None, "m8", "m9"]]
    place.engine.update(ALICE, {"pins": {}})
    assert _lines(place) == [["m8", "m9"]]
    place.engine.append(ALICE, _texts(10, 11))
    assert _said(place) == ["m8", "m9", "m10"]


def test_the_last_empty_places_go_when_nobody_appends_behind_them_any_more(place: Place) -> None:
    _begin(place, 6)
    place.engine.update(ALICE, {"start": 6, "pins": {"x": Pin(_head(place).log, 1, 3)}})
    place.engine.drop(ALICE)
    assert _lines(place) == [["m1", "m2", None, None, None]]
    place.engine.replace(ALICE, _texts(6, 7))
    assert _lines(place) == [["m1", "m2"], ["m6"]]


def test_a_fork_holds_what_it_began_with_and_not_what_its_source_said_later(place: Place) -> None:
    _begin(place, 6)
    place.engine.fork(ALICE, Record(*FORK), at=Pin(_head(place).log, 1, 4))
    place.engine.append(FORK, [Message("user", f"f{number}") for number in range(4, 9)])
    place.engine.update(ALICE, {"start": 6})
    place.engine.drop(ALICE)
    assert _lines(place) == [["f4", "f5", "f6", "f7", "f8"], ["m1", "m2", "m3", None, None]]
    place.engine.update(FORK, {"start": 3})
    place.engine.drop(FORK)
    assert _lines(place) == [["f4", "f5", "f6", "f7", "f8"], ["m3", None, None]]
    place.engine.update(FORK, {"start": 4})
    place.engine.drop(FORK)
    assert _lines(place) == [["f4", "f5", "f6", "f7", "f8"]]
    assert not any("base" in fields for fields in place.stored().logs.values())


def test_a_log_that_only_leads_to_another_one_goes_with_the_last_view_through_it(place: Place) -> None:
    keys = [ALICE, *(Key("alice", f"f{number}") for number in range(4))]
    _begin(place, 3)
    for source, fork in pairwise(keys):
        place.engine.fork(source, Record(*fork))
        place.engine.append(fork, [Message("user", fork.session_id)])
    for key in keys[:-1]:
        place.engine.delete(key)
    assert _lines(place) == [["m0", "m1", "m2"], ["f0"], ["f1"], ["f2"], ["f3"]]
    place.engine.update(keys[-1], {"start": 5})
    place.engine.drop(keys[-1])
    assert _lines(place) == [["f2"], ["f3"]]
    assert len(place.stored().logs) == 2
    place.engine.delete(keys[-1])
    assert place.stored().others == {"schema"}


@pytest.mark.parametrize("place", [False], ids=["server"], indirect=True)
def test_many_forks_of_one_session_hold_what_one_of_them_holds(place: Place) -> None:
    forks = [Key("alice", f"f{number}") for number in range(600)]
    _begin(place, 3)
    for fork in forks:
        place.engine.fork(ALICE, Record(*fork))
    for number, fork in enumerate(forks[:-1]):
        place.engine.update(fork, {"start": 2})
        if number % 7:
            place.engine.drop(fork)
    place.engine.append(ALICE, _texts(3, 5))
    place.engine.delete(ALICE)
    assert _lines(place, check=False) == [["m0", "m1", "m2"]]
    for fork in forks[:-1:7]:
        place.engine.drop(fork)
    assert _lines(place, check=False) == [["m0", "m1", "m2"]]
    place.engine.update(forks[-1], {"start": 3})
    place.engine.drop(forks[-1])
    assert _lines(place) == [["m2"]]
    for fork in forks:
        place.engine.delete(fork)
    assert place.stored().others == {"schema"}


def test_an_id_that_was_freed_and_given_again_means_both_messages(place: Place) -> None:
    _begin(place, 3)
    place.engine.fork(ALICE, Record(*FORK))
    place.engine.update(ALICE, {"start": 2})
    place.engine.drop(ALICE)
    assert place.engine.append(ALICE, _texts(1, 2)).length == 4
    assert place.engine.append(ALICE, _texts(1, 2)).length == 4
    assert place.engine.append(FORK, _texts(0, 3)).length == 3
    assert [*place.stored().ids.values()] == [{"id0": "0", "id1": "1 3", "id2": "2"}]
    place.engine.delete(FORK)
    assert place.engine.append(ALICE, _texts(1, 2)).length == 4
    place.engine.update(ALICE, {"start": 4})
    place.engine.drop(ALICE)
    assert _lines(place) == []
    place.stored()


def test_an_id_that_a_pin_and_the_head_have_is_forgotten_with_both(place: Place) -> None:
    _begin(place, 3)
    place.engine.update(ALICE, {"start": 3, "pins": {"x": Pin(_head(place).log, 1, 2)}})
    place.engine.drop(ALICE)
    place.engine.append(ALICE, _texts(1, 2))
    assert [*place.stored().ids.values()] == [{"id1": "1 3"}]
    place.engine.update(ALICE, {"start": 4, "pins": {}})
    place.engine.drop(ALICE)
    assert place.stored().ids == {}


@pytest.mark.parametrize("shared", [1, 8])
def test_an_id_that_two_messages_have_is_forgotten_when_both_go_at_once(place: Place, shared: int) -> None:
    _begin(place, shared + 2)
    head, again = _head(place), _texts(shared, shared + 1)
    place.engine.fork(ALICE, Record(*FORK), at=Pin(head.log, 0, shared))
    place.engine.update(ALICE, {"start": shared + 2, "pins": {"x": Pin(head.log, shared, shared + 1)}})
    place.engine.drop(ALICE)
    place.engine.append(ALICE, again)
    kept = {f"id{number}": str(number) for number in range(shared)}
    assert [*place.stored().ids.values()] == [kept | {f"id{shared}": f"{shared} {shared + 2}"}]
    place.engine.delete(ALICE)
    assert [*place.stored().ids.values()] == [kept]


def test_an_id_that_two_messages_have_stays_when_most_others_go(place: Place) -> None:
    _begin(place, 3)
    place.engine.fork(ALICE, Record(*FORK))
    place.engine.update(ALICE, {"start": 3})
    place.engine.drop(ALICE)
    place.engine.append(ALICE, [*_texts(1, 2), *_texts(4, 40)])
    place.engine.update(ALICE, {"start": 39, "pins": {"x": Pin(_head(place).log, 3, 5)}})
    assert place.engine.drop(ALICE) > 0
    assert [*place.stored().ids.values()] == [{"id0": "0", "id1": "1 3", "id2": "2", "id4": "4", "id39": "39"}]


def test_deleting_everything_leaves_nothing_but_the_schema(place: Place) -> None:
    for user in ("alice", "bob", "{a}", "a}b", "a%7Db"):
        _begin(place, 3, Key(user, "s"))
        _begin(place, 3, Key(user, "{s}:users"))
        place.engine.fork(Key(user, "s"), Record(user, "fork"))
    assert {"users", "owners:s", "owners:fork", "owners:{s}:users"} < place.stored().others
    for record in place.engine.list_sessions(None).records:
        assert place.engine.delete(record.key)
    assert place.stored().others == {"schema"}
    assert place.engine.list_sessions(None).records == []


# URLs and settings


@pytest.mark.parametrize(
    ("url", "place", "options"),
    [
        ("redis://", "redis://localhost:6379", {}),
        ("redis://localhost", "redis://localhost:6379", {}),
        ("redis://h:7000/3", "redis://h:7000/3", {}),
        ("redis://h/?db=3", "redis://h:6379/3", {}),
        ("REDIS://h", "redis://h:6379", {}),
        ("redis://[::1]:7000/", "redis://[::1]:7000", {}),
        ("redis://:hunter2@h", "redis://:***@h:6379", {}),
        ("redis://ann:hunter2@h:7000/1", "redis://ann:***@h:7000/1", {}),
        ("redis://ann:hunter2%40%2F@h", "redis://ann:***@h:6379", {}),
        ("redis://ann:hunter2/@:h@h", "redis://ann:***@h:6379", {}),
        ("redis://h?username=ann&password=hunter2", "redis://ann:***@h:6379", {}),
        ("rediss://h:7000?ssl_ca_certs=/ca.pem&ssl_check_hostname=no", "rediss://h:7000", {}),
        ("unix:///run/redis.sock", "unix:///run/redis.sock", {}),
        ("unix://ann:hunter2@/run/redis.sock?db=2", "unix://ann:***@/run/redis.sock/2", {}),
        ("redis+cluster://a:7000,b,[::1]:7002", "redis+cluster://a:7000,b:6379,[::1]:7002", {}),
        ("rediss+cluster://:hunter2@a,b", "rediss+cluster://:***@a:6379,b:6379", {}),
        ("redis://h?pool_size=3&replicas=2&prefix=p", "redis://h:6379", {"pool_size": 3, "replicas": 2, "prefix": "p"}),
        ("redis://h?replica_timeout=0.5&connect_timeout=2", "redis://h:6379", {"replica_timeout_s": 0.5}),
    ],
)
def test_a_url_says_where_and_how(url: str, place: str, options: dict[str, Any]) -> None:
    target = parse_url(url)
    assert target.place == place
    assert target.options.items() >= options.items()
    assert "hunter2" not in repr(RedisEngine(url)) + repr(target) + str(target)
    assert RedisEngine(url).concurrency == options.get("pool_size", 8)


def test_a_password_may_hold_anything() -> None:
    for password in ("hunter2", "a:b", "p@ss/w?rd#%", "日本", " "):
        for url in (f"redis://ann:{quote(password, safe='')}@h", f"redis://h?{urlencode({'password': password})}"):
            assert parse_url(url).password == password


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:port",
        "redis://h:0",
        "redis://h:70000",
        "redis://h/name",
        "redis://h?db=x",
        "redis://a,b",
        "redis://:hunter2?x@h",
        "redis+cluster://a/1",
        "redis+cluster://a?db=1",
        "unix://host/path",
        "redis://h?poolsize=3",
        "redis://h?pool_size=x",
        "redis://h?pool_size=0",
        "redis://h?replicas=-1",
        "redis://h?replica_timeout=soon",
        "redis://h?replica_timeout=nan",
        "redis://h?connect_timeout=0",
        "redis://h?prefix=",
        "redis://h?prefix=a{b",
        "redis://h?prefix=a b",
        "redis://h?retry_on_timeout=yes",
        "redis://h?decode_responses=yes",
        "redis://h?ssl_ca_certs=x",
        "rediss://h?ssl_cert_reqs=perhaps",
        "rediss://h?ssl_check_hostname=perhaps",
    ],
)
def test_a_url_that_makes_no_sense_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError) as info:
        open_engine(url)
    assert "hunter2" not in str(info.value)
    assert info.value.__cause__ is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"pool_size": 0}, ConfigError),
        ({"pool_size": "8"}, ConfigTypeError),
        ({"pool_size": True}, ConfigTypeError),
        ({"replicas": 1.5}, ConfigTypeError),
        ({"max_message_bytes": 0}, ConfigError),
        ({"replica_timeout_s": 0}, ConfigError),
        ({"connect_timeout_s": None}, ConfigTypeError),
        ({"failover_timeout_s": float("nan")}, ConfigError),
        ({"prefix": b"p"}, ConfigTypeError),
        ({"prefix": "}"}, ConfigError),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_at_once(options: dict[str, Any], error: type[ConfigError]) -> None:
    with pytest.raises(error) as info:
        RedisEngine("redis://h", **options)
    assert next(iter(options)) in str(info.value)


def test_what_a_url_says_counts_more_than_an_argument() -> None:
    assert RedisEngine("redis://h?pool_size=3", pool_size=5).concurrency == 3


def test_the_registry_opens_it_for_every_scheme() -> None:
    for url in ("redis://h", "rediss://h", "unix:///s", "redis+cluster://h", "rediss+cluster://h"):
        engine = open_engine(url)
        assert isinstance(engine, RedisEngine)
        engine.close()


def test_nothing_is_loaded_or_opened_before_the_first_call() -> None:
    code = """
import sys
from praisonaiagents.storage.registry import open_engine
engine = open_engine("redis://127.0.0.1:1?replicas=1")
engine.close()
assert "redis" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_driver_that_is_not_installed_is_named() -> None:
    code = """
import sys
sys.modules["redis"] = None
from praisonaiagents.errors import MissingDependency
from praisonaiagents.storage.registry import open_engine
for url in ("redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1"):
    try:
        open_engine(url).owners("s")
    except MissingDependency as exc:
        assert exc.extra == "redis" and "praisonaiagents[redis]" in str(exc)
    else:
        raise AssertionError(url)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Getting in


def _refused(url: str, error: type[StorageError] = EngineUnreachable) -> str:
    """What is said in all words, those of the causes included, when nobody gets in."""
    with closing(RedisEngine(url, connect_timeout_s=1)) as engine:
        with pytest.raises(error) as info:
            engine.get(ALICE)
        assert engine._place in str(info.value) or str(engine._target.nodes[0]) in str(info.value)
        words = "".join(traceback.format_exception(info.value)) + repr(info.value)
    assert "hunter" not in words
    return str(info.value)


def test_nobody_there_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for url in (f"redis://:hunter2@127.0.0.1:{port}", f"rediss://127.0.0.1:{port}", "unix:///nowhere/redis.sock"):
        _refused(url)
    _refused(f"redis+cluster://:hunter2@127.0.0.1:{port},localhost:{port}")


def test_who_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with (
            closing(RedisEngine(f"redis://127.0.0.1:{port}?socket_timeout=0.2")) as engine,
            pytest.raises(EngineUnreachable),
        ):
            engine.get(ALICE)
        _refused(f"redis+cluster://127.0.0.1:{port}?socket_timeout=0.2")


def test_a_server_that_wants_no_cluster_is_no_cluster() -> None:
    assert "cluster" in _refused(f"redis+cluster://127.0.0.1:{shared_server().port}", StorageError)


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A server with the passwords hunter1 of everybody, hunter2 of ann, hunter3 of bob, who may not run scripts."""
    rules = (("requirepass", "hunter1"),)
    with RedisServer(*rules) as server:
        with closing(server.client(password="hunter1")) as client:
            client.acl_setuser(
                "ann", enabled=True, passwords=["+hunter2"], keys=["ann:*"], commands=["+@all", "-config"]
            )
            client.acl_setuser(
                "bob", enabled=True, passwords=["+hunter3"], keys=["*"], categories=["+@all", "-@scripting"]
            )
        yield server


def test_passwords_and_users_get_in(guarded: RedisServer) -> None:
    for login in (":hunter1", "default:hunter1", "ann:hunter2"):
        with closing(RedisEngine(f"redis://{login}@127.0.0.1:{guarded.port}?prefix=ann")) as engine:
            engine.open_session(Record(*ALICE))
            assert engine.describe()["place"].endswith(f"***@127.0.0.1:{guarded.port}")
        with closing(RedisEngine(f"unix://{login}@{guarded.socket}?prefix=ann")) as engine:
            assert engine.get(ALICE) is not None


def test_wrong_passwords_do_not(guarded: RedisServer) -> None:
    place = f"127.0.0.1:{guarded.port}"
    for login in ("", ":hunter4@", "ann:hunter4@", "eve:hunter4@"):
        assert "does not let us in" in _refused(f"redis://{login}{place}")
    _refused(f"redis+cluster://:hunter4@{place}")


def test_what_a_user_may_not_do_is_said(guarded: RedisServer) -> None:
    with closing(RedisEngine(f"redis://bob:hunter3@127.0.0.1:{guarded.port}?prefix=bob")) as engine:
        with pytest.raises(StorageError, match="NOPERM") as info:
            engine.open_session(Record(*ALICE))
        assert not isinstance(info.value, EngineUnreachable)
        assert engine.get(ALICE) is None
    other = RedisEngine(f"redis://ann:hunter2@127.0.0.1:{guarded.port}?prefix=other")
    with closing(other), pytest.raises(StorageError, match="NOPERM"):
        other.get(ALICE)


def test_databases_of_a_server_are_apart() -> None:
    with RedisServer() as server:
        engines = [RedisEngine(f"{server.url}/{number}") for number in (0, 5)]
        engines[0].open_session(Record(*ALICE))
        assert [engine.get(ALICE) is not None for engine in engines] == [True, False]
        for engine in engines:
            engine.close()
        _refused(f"{server.url}/16")


def test_too_many_clients_is_said() -> None:
    with RedisServer() as server, closing(server.client()) as client:
        client.ping()
        client.config_set("maxclients", 1)
        assert "max number of clients" in _refused(server.url)


def test_an_unknown_certificate_or_name_is_refused(tmp_path: Path) -> None:
    server = shared_server()
    with TlsProxy("127.0.0.1", server.port) as proxy:
        _refused(f"rediss://localhost:{proxy.port}")
        _refused(f"rediss://127.0.0.2:{proxy.port}?ssl_ca_certs={proxy.certificate}")
        _refused(f"rediss://localhost:{proxy.port}?ssl_ca_certs={tmp_path}/missing.pem")
        _refused(f"redis://localhost:{proxy.port}?socket_timeout=0.5")
        with empty_place(server.url) as url:
            options = f"{url.partition('?')[2]}&ssl_cert_reqs=none&ssl_check_hostname=no"
            with closing(RedisEngine(f"rediss://localhost:{proxy.port}?{options}")) as engine:
                assert engine.get(ALICE) is None


def test_a_closed_engine_opens_again(place: Place) -> None:
    _begin(place, 2)
    for _ in range(2):
        place.engine.close()
        place.engine.close()
        assert _said(place) == ["m0", "m1"]


def test_no_more_connections_than_the_pool_may_have() -> None:
    with RedisServer() as server, closing(RedisEngine(server.url, pool_size=3)) as engine:
        engine.open_session(Record(*ALICE))
        with ThreadPoolExecutor(12) as threads:
            list(threads.map(lambda _: [engine.append(ALICE, [Message("user", "x")]) for _ in range(10)], range(12)))
        assert engine.append(ALICE, []).length == 120
        names = server.ask("INFO", "clients")["connected_clients"]
        assert names <= 4  # and the one that asks


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own(place: Place) -> None:
    _begin(place, 2)
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            for number in range(20):
                place.engine.append(ALICE, [Message("user", f"child {number}")])
            place.engine.close()
            os._exit(0)
        os._exit(1)
    for number in range(20):
        place.engine.append(ALICE, [Message("user", f"parent {number}")])
    assert os.waitpid(child, 0)[1] == 0
    assert place.engine.append(ALICE, []).length == 42
    said = _said(place)[2:]
    for who in ("child", "parent"):
        assert [text for text in said if text.startswith(who)] == [f"{who} {number}" for number in range(20)]


# What else may lie there


def test_a_newer_schema_is_left_alone(place: Place) -> None:
    _begin(place, 1)
    name = f"{place.prefix}:schema"
    assert place.client.get(name) == b"1"
    place.client.set(name, 2)
    with closing(RedisEngine(place.url)) as engine:
        for call in (engine.get, engine.delete, engine.drop):
            with pytest.raises(NewerFormat, match="schema 2"):
                call(ALICE)
        place.client.set(name, 1)
        assert engine.get(ALICE) is not None


def test_asking_writes_nothing(place: Place) -> None:
    assert not place.engine.is_there()
    for call in (engine_call for name, engine_call in CALLS.items() if name not in ("open", "fork")):
        with suppress(SessionNotFound):
            call(place.engine)
    assert place.engine.list_sessions(None).records == []
    assert place.engine.owners("s") == []
    assert keys(place.client, place.prefix) == []
    assert not place.engine.is_there()
    _begin(place, 1)
    assert place.engine.is_there()


def test_a_schema_that_became_newer_meanwhile_is_noticed(place: Place) -> None:
    assert place.engine.get(ALICE) is None
    place.client.set(f"{place.prefix}:schema", 2)
    with pytest.raises(NewerFormat):
        place.engine.open_session(Record(*ALICE))
    assert not keys(place.client, f"{place.prefix}:{{alice}}")


def test_a_foreign_schema_is_left_alone(place: Place) -> None:
    name = f"{place.prefix}:schema"
    for value in ("yes", "", "1.5"):
        place.client.set(name, value)
        with pytest.raises(StorageError, match="left alone"):
            place.engine.get(ALICE)
        assert place.client.get(name) == value.encode()
    place.client.delete(name)
    place.client.rpush(name, "x")
    with pytest.raises(StorageError, match="left alone"):
        place.engine.get(ALICE)


CALLS: dict[str, Any] = {
    "open": lambda engine: engine.open_session(Record(*ALICE)),
    "get": lambda engine: engine.get(ALICE),
    "append": lambda engine: engine.append(ALICE, _texts(0, 2)),
    "read": lambda engine: engine.read(ALICE),
    "update": lambda engine: engine.update(ALICE, {"state": {}}),
    "replace": lambda engine: engine.replace(ALICE, _texts(0, 2)),
    "drop": lambda engine: engine.drop(ALICE),
    "fork": lambda engine: engine.fork(ALICE, Record(*FORK)),
    "delete": lambda engine: engine.delete(ALICE),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_session_is_left_alone(place: Place, call: str) -> None:
    name = place.engine._names.session(ALICE)
    place.client.set(name, "precious")
    with pytest.raises(StorageError, match="left alone"):
        CALLS[call](place.engine)
    assert place.client.get(name) == b"precious"
    place.client.delete(name)
    place.client.hset(name, "precious", "yes")
    with suppress(SessionNotFound, StorageError):
        CALLS[call](place.engine)
    assert place.client.hgetall(name) == {b"precious": b"yes"}


@pytest.mark.parametrize("call", [call for call in CALLS if call not in ("get", "read", "drop")])
def test_an_index_that_is_none_stops_a_change_before_it_begins(place: Place, call: str) -> None:
    if call != "open":
        _begin(place, 2)
    name = place.engine._names.index("alice")
    place.client.delete(name)
    place.client.set(name, "precious")
    before = {key: place.client.dump(key) for key in keys(place.client, place.prefix) if b":{alice}:" in key}
    arguments = {"append": _texts(2, 4)}
    with pytest.raises(StorageError, match="left alone"):
        place.engine.append(ALICE, arguments[call]) if call in arguments else CALLS[call](place.engine)
    assert before == {key: place.client.dump(key) for key in keys(place.client, place.prefix) if b":{alice}:" in key}


@pytest.mark.parametrize("kind", ["l", "i"])
def test_a_log_that_is_none_stores_nothing(place: Place, kind: str) -> None:
    place.engine.open_session(Record(*ALICE))
    place.client.set(f"{place.prefix}:{{alice}}:{kind}:{_head(place).log}", "precious")
    with pytest.raises(StorageError, match="left alone"):
        place.engine.append(ALICE, _texts(0, 2))
    assert _head(place).length == 0


def test_a_message_that_cannot_be_read_is_reported_and_left_in_its_place(place: Place) -> None:
    _begin(place, 3)
    name = f"{place.prefix}:{{alice}}:l:{_head(place).log}"
    for broken in (b"{", b"hunter2", b"\xff", b"[]"):
        place.client.lset(name, 1, broken)
        with pytest.warns(SessionDamage, match="1 messages of session 's'") as found:
            said = _said(place)
        assert (said, "hunter2" in str(found[0].message)) == (["m0", "m2"], False)
        assert place.client.lindex(name, 1) == broken
    place.engine.update(ALICE, {"start": 3})
    assert place.engine.drop(ALICE) > 0


def test_a_record_that_cannot_be_read_hides_no_other(place: Place) -> None:
    for number in range(3):
        _begin(place, 1, Key("alice", f"s{number}"))
    place.client.hset(place.engine._names.session(Key("alice", "s1")), "record", "hunter2")
    with pytest.warns(SessionDamage, match="s1") as found:
        records = place.engine.list_sessions("alice").records
    assert [record.session_id for record in records] == ["s2", "s0"]
    assert "hunter2" not in str(found[0].message)
    with pytest.raises(StorageError, match="left alone"):
        place.engine.get(Key("alice", "s1"))


# What it says of itself


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["everything", "set appendonly yes"]),
        ({"save": "3600 1"}, ["since the last snapshot", "set appendonly yes"]),
        ({"appendonly": "yes"}, ["up to two seconds", "set appendfsync always"]),
        ({"appendonly": "yes", "appendfsync": "no"}, ["set appendfsync always"]),
        ({"appendonly": "yes", "appendfsync": "always"}, ["neither does a crash of the server or a loss of power"]),
    ],
)
def test_it_says_what_survives(settings: dict[str, str], words: list[str]) -> None:
    with RedisServer(*settings.items()) as server, closing(RedisEngine(server.url)) as engine:
        described = engine.describe()
        assert all(word in described["durability"] for word in words)
        assert described["engine"].startswith("Valkey ")
        assert (described["place"], described["schema"]) == (server.url, "1")
        assert "warning" not in described


def test_it_warns_of_a_server_that_throws_sessions_away() -> None:
    with RedisServer(("maxmemory-policy", "allkeys-lru")) as server, closing(RedisEngine(server.url)) as engine:
        assert "once maxmemory is set" in engine.describe()["warning"]
        server.ask("CONFIG", "SET", "maxmemory", "100mb")
        assert "when its memory is full (maxmemory-policy allkeys-lru)" in engine.describe()["warning"]
        server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        assert "warning" not in engine.describe()  # our keys do not expire


def test_it_says_that_a_server_does_not_tell(guarded: RedisServer) -> None:
    with closing(RedisEngine(f"redis://ann:hunter2@127.0.0.1:{guarded.port}?prefix=ann")) as engine:
        assert "does not tell" in engine.describe()["durability"]


def test_a_cluster_says_that_it_is_one() -> None:
    with empty_place(cluster=True) as url:
        with closing(RedisEngine(url)) as engine:
            assert engine.describe()["engine"].endswith("(cluster)")
            assert "replicas=1" in engine.describe()["durability"]
        with closing(RedisEngine(f"{url}&replicas=1")) as engine:
            assert "on 1 replica before" in engine.describe()["durability"]


# Listing


def test_all_users_are_listed_in_one_order_page_by_page(place: Place) -> None:
    made = []
    for number in range(120):
        key = Key(f"user{number * 7 % 25}", f"s{number}")
        made.append(key)
        place.engine.open_session(Record(*key))
    for key in made[::11]:
        place.engine.append(key, _texts(0, 1))
    times = {record.key: record.updated_at for record in _pages(place.engine, 200)}
    assert len(times) == 120
    whole = sorted(times, key=lambda key: (-times[key], key.user_id))
    for size in (1, 7, 50, 119, 120, 121):
        assert [record.key for record in _pages(place.engine, size)] == whole


def _pages(engine: RedisEngine, size: int) -> list[Record]:
    after, found = None, []
    while True:
        page = engine.list_sessions(None, after=after, limit=size)
        found += page.records
        after = page.after
        if after is None:
            return found


def test_changes_of_the_same_instant_and_of_a_clock_set_back_keep_their_order(place: Place) -> None:
    for number in range(4):
        place.engine.open_session(Record("alice", f"s{number}"))
    future = 2_000_000_000_000_000
    place.client.zadd(place.engine._names.index("alice"), {"s0": future})
    for number in (2, 1, 3, 2):
        place.engine.append(Key("alice", f"s{number}"), [Message("user", "x")])
    listed = place.engine.list_sessions("alice").records
    assert [record.session_id for record in listed] == ["s2", "s3", "s1", "s0"]
    assert [round(record.updated_at * 1e6) - future for record in listed[:3]] == [4, 3, 2]


def test_ids_that_name_nothing_may_be_asked_for(place: Place) -> None:
    for odd in ("\ud800", "", "a\0b", "x" * 2000):
        for key in (Key("alice", odd), Key(odd, "s")):
            assert place.engine.get(key) is None
            assert place.engine.read(key).messages == []
            assert place.engine.delete(key) is False
            assert place.engine.owners(odd) == []
            assert place.engine.list_sessions(odd).records == []
            with pytest.raises(SessionNotFound):
                place.engine.append(key, _texts(0, 1))


@pytest.mark.parametrize("place", [False], ids=["server"], indirect=True)
def test_a_hundred_thousand_messages_come_back(place: Place) -> None:
    _begin(place, 100_000)
    assert place.engine.append(ALICE, _texts(99_000, 100_000)).length == 100_000
    place.engine.fork(ALICE, Record(*FORK))
    place.engine.append(FORK, _texts(100_000, 100_001))
    found = place.engine.read(FORK)
    assert [message.id for message in found.messages] == [f"id{number}" for number in range(100_001)]
    assert place.engine.read(FORK, -2).first == 99_999
    place.engine.update(ALICE, {"start": 99_990})
    assert place.engine.drop(ALICE) == 0  # the fork has them
    place.engine.delete(FORK)
    assert _lines(place) == [[f"m{number}" for number in range(99_990, 100_000)]]
