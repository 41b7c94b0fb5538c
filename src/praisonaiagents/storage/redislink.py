"""The way to a Redis or Valkey server, or to a cluster of them: where a command goes, and what may be sent again.

A `Link` sends commands that belong together to the server that has their key, and gives back the answers, in one round trip.
It sends nothing twice unless the server said that it did not do it, or could not be reached at all; where the connection
breaks before the answer came, it raises `Broken`, and only the caller knows whether the command may be repeated. So no retry
of the driver is used: it repeats everything.

What a reader would get wrong: in a cluster a server that cannot be reached is no error yet. Its replica takes over after
the cluster's own timeout, and until then (at most `failover_timeout_s`) the link asks the others where the key is now.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote

from praisonaiagents.errors import ConfigError, EngineUnreachable, MissingDependency, StorageError, StorageFull
from praisonaiagents.storage.pool import Pool

Command = tuple[Any, ...]
DEFAULT_PORT = 6379

_ANSWER_TIMEOUT_S = 30.0
_SLOTS = 16_384
_PAUSE_S = (0.02, 0.25)  # between two looks at a cluster that is changing: the first, and the longest
_HOPS = 5  # from one node of a cluster to the next
_MANY = 1_000  # commands in one round trip
_PASSING = re.compile("(ASK|TRYAGAIN|CLUSTERDOWN|READONLY|MASTERDOWN) |ERR .*ttempted to access a non local key")


class Broken(Exception):
    """The connection broke before the answer came: the command may have been done, or not."""


class Node(NamedTuple):
    """Where a server listens. `host` is the path of a Unix socket if `port` is 0."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Target:
    """What a URL says. `driver`: keyword arguments of the driver's connection. `options`: what is for the engine."""

    scheme: str
    nodes: tuple[Node, ...]
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    driver: dict[str, Any] = field(default_factory=dict, repr=False)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_cluster(self) -> bool:
        return self.scheme.endswith("+cluster")

    @property
    def place(self) -> str:
        """The URL without a password and without options."""
        user = f"{self.username or ''}{':***' if self.password else ''}"
        database = f"/{self.database}" if self.database else ""
        where = ",".join(map(str, self.nodes))
        return f"{self.scheme}://{user}{'@' if user else ''}{where}{database}"


# --------------------------------------------------------------------------------------------------------------- URLs


def _number(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def _flag(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def _requirement(text: str) -> str:
    if text not in ("none", "optional", "required"):
        raise ValueError
    return text


_ENGINE_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "pool_size": ("pool_size", int),
    "replicas": ("replicas", int),
    "replica_timeout": ("replica_timeout_s", _number),
    "connect_timeout": ("connect_timeout_s", _number),
    "failover_timeout": ("failover_timeout_s", _number),
    "max_message_bytes": ("max_message_bytes", int),
    "prefix": ("prefix", str),
}
_DRIVER_OPTIONS: dict[str, Callable[[str], Any]] = {
    "client_name": str,
    "socket_timeout": _number,
    "socket_keepalive": _flag,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_ca_data": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_cert_reqs": _requirement,
    "ssl_check_hostname": _flag,
    "ssl_ciphers": str,
}
_IDENTITY_OPTIONS: dict[str, Callable[[str], Any]] = {"db": int, "username": str, "password": str}


def parse_url(url: str) -> Target:
    """What a URL says. Raises `ConfigError`, which never quotes the URL: a password may be anywhere in it.

        redis://user:password@host:6379/0?pool_size=4      rediss:// the same over TLS
        unix://user:password@/path/to/socket?db=0
        redis+cluster://host1:7000,host2:7001              some nodes of a cluster; rediss+cluster:// the same over TLS

    Options are those of the engine and `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `socket_timeout` and others of the driver.
    """
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    userinfo, _, address = rest.rpartition("@")
    username, colon, password = userinfo.partition(":")
    options = _options(query, scheme.lower())
    identity = {name: options.pop(name) for name in _IDENTITY_OPTIONS if name in options}
    nodes, path = _nodes(scheme.lower(), address)
    return Target(
        scheme.lower(),
        nodes,
        _database(identity.get("db", path), scheme.lower()),
        identity.get("username") or unquote(username) or None,
        identity.get("password") or (unquote(password) if colon else "") or None,
        {name: value for name, value in options.items() if name in _DRIVER_OPTIONS},
        {_ENGINE_OPTIONS[name][0]: value for name, value in options.items() if name in _ENGINE_OPTIONS},
    )


def _options(query: str, scheme: str) -> dict[str, Any]:
    known = {name: read for name, (_, read) in _ENGINE_OPTIONS.items()} | _DRIVER_OPTIONS | _IDENTITY_OPTIONS
    found: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ConfigError(f"a Redis URL has an option that is not known; known: {', '.join(sorted(known))}")
        if name.startswith("ssl_") and not scheme.startswith("rediss"):
            raise ConfigError(f"{name} needs a rediss:// URL")
        try:
            found[name] = known[name](text)
        except (ValueError, KeyError):
            raise ConfigError(f"a Redis URL has a value for {name} that makes no sense") from None
    return found


def _nodes(scheme: str, address: str) -> tuple[tuple[Node, ...], str]:
    """The servers, and what follows them."""
    if scheme == "unix":
        if not address.startswith("/"):
            raise ConfigError("a unix:// URL is unix:///path/to/socket")
        return (Node(unquote(address), 0),), ""
    hosts, _, path = address.partition("/")
    nodes = tuple(_node(text) for text in hosts.split(","))
    if len(nodes) > 1 and not scheme.endswith("+cluster"):
        raise ConfigError("a Redis URL names one server; several are a cluster: redis+cluster://host:port,host:port")
    return nodes, path


def _node(text: str) -> Node:
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]*))(?::(\d+))?", text)
    if not found or not 0 < (port := int(found[3] or DEFAULT_PORT)) < 65_536:
        raise ConfigError("a Redis URL names its server by host:port, the port a number; escape / ? @ in a password")
    return Node(unquote(found[1] or found[2]) or "localhost", port)


def _database(found: int | str, scheme: str) -> int:
    text = str(found).strip("/") or "0"
    if not text.isdecimal():
        raise ConfigError("the database of a Redis URL is a number: redis://host:6379/0")
    if int(text) and scheme.endswith("+cluster"):
        raise ConfigError("a Redis cluster has one database, number 0")
    return int(text)


# ------------------------------------------------------------------------------------------------------------- errors


class Translated:
    """A block whose errors of the driver become ours. Those that leave open what the server did become `Broken`.

    place: whom it talks to. It may be used again and again.
    """

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, *_: object) -> None:
        ours = exc and _ours(exc, self._place)
        if ours:
            raise ours from (None if "with args" in str(exc) else exc)


def _ours(exc: BaseException, place: str) -> Exception | None:
    from redis import exceptions as driver

    if isinstance(exc, driver.ResponseError):
        return _refusal(_words(exc), place)
    if isinstance(exc, driver.BusyLoadingError):
        return EngineUnreachable(f"{place} is still loading its data after a start; try again", place)
    if isinstance(exc, driver.AuthenticationError) or getattr(exc, "status_code", None):
        return EngineUnreachable(f"{place} does not let us in: {_words(exc)}", place)
    if isinstance(exc, (driver.ConnectionError, driver.TimeoutError)):
        return Broken(f"the connection to {place} broke before the answer came")
    return StorageError(f"{place}: {_words(exc)}", place) if isinstance(exc, driver.RedisError) else None


def _words(exc: BaseException) -> str:
    """What the server said, code first, but for what it repeats of the command."""
    code = getattr(exc, "status_code", None)
    said = re.split(r", with args| script: |, on @", str(exc))[0][:300]
    return said if not code or said.startswith(code) else f"{code} {said}"


def _refusal(said: str, place: str) -> StorageError:
    for code, kind, text in _REFUSALS:
        if re.search(rf"\b{code}\b", said):
            return kind(text.format(place=place), place)
    return StorageError(f"{place} refused: {said}", place)


_REFUSALS: tuple[tuple[str, type[StorageError], str], ...] = (
    ("OOM", StorageFull, "{place} has no memory left (maxmemory); nothing was stored"),
    ("WRONGTYPE", StorageError, "something else lies under a key of ours on {place}; it was left alone"),
    ("READONLY", StorageError, "{place} is a replica, which only reads; name its primary"),
    ("MOVED|CROSSSLOT|ASK", StorageError, "{place} is one of a cluster: use a redis+cluster:// URL"),
    ("CLUSTERDOWN", StorageError, "{place} is a cluster that is down: no server has this part of the data"),
    ("MASTERDOWN", StorageError, "{place} is a replica that has lost its primary"),
    (
        "NOREPLICAS",
        StorageError,
        "{place} has fewer replicas than it wants (min-replicas-to-write); nothing was stored",
    ),
    ("MISCONF", StorageError, "{place} cannot write its data to its disk, and takes no more; nothing was stored"),
    ("BUSY", StorageError, "{place} is busy with a script of somebody else"),
)


# -------------------------------------------------------------------------------------------------------------- lines


class Line:
    """One connection to one server."""

    def __init__(self, connection: Any, place: str, error: type[Exception]) -> None:
        self._connection = connection
        self._pack = _packer() or connection.pack_command
        self._translated = Translated(place)
        self._error = error  # what the driver makes of an answer that is one
        sock = connection._get_socket()
        self._said = None
        if not hasattr(sock, "pending") and hasattr(select, "poll"):
            self._said = select.poll()
            self._said.register(sock, select.POLLIN)

    def is_quiet(self) -> bool:
        """Nothing has come that nobody asked for, such as the end of the connection."""
        try:
            return not (self._said.poll(0) if self._said else self._connection.can_read())
        except Exception:  # whatever it is, this line is of no use
            return False

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, and return the answers; one that is an error is the driver's exception."""
        connection = self._connection
        with self._translated:
            packed = [b"".join(part for command in commands for part in self._pack(*command))]
            connection.send_packed_command(packed, check_health=False)
            return [self._answer() for _ in commands]

    def _answer(self) -> Any:
        try:
            return self._connection.read_response()
        except self._error as exc:
            return exc

    def close(self) -> None:
        self._connection.disconnect()


@cache
def _packer() -> Callable[..., list[bytes]] | None:
    """What turns a command into bytes. The driver first looks at each argument itself, which takes as long as a list push."""
    try:
        from hiredis import pack_command
    except ImportError:
        return None
    return lambda *command: [pack_command(command)]


class _Opener:
    """Makes lines to servers of one target."""

    def __init__(self, target: Target, connect_timeout_s: float, replica_timeout_s: float) -> None:
        try:
            from redis import connection, exceptions
        except ImportError as exc:
            raise MissingDependency("Redis", "redis") from exc
        kinds = {"unix": connection.UnixDomainSocketConnection, "redis": connection.Connection}
        self._kind: Any = kinds.get(target.scheme.partition("+")[0], connection.SSLConnection)
        self._error = exceptions.ResponseError
        self._settings: dict[str, Any] = {
            "db": target.database,
            "username": target.username,
            "password": target.password,
            "socket_connect_timeout": connect_timeout_s,
            "protocol": 2,  # fewer round trips to begin with, and nothing comes that was not asked for
            "driver_info": None,  # the driver would look its own version up on the disk, for every connection
            **target.driver,
            "socket_timeout": target.driver.get("socket_timeout", _ANSWER_TIMEOUT_S) + replica_timeout_s,
        }

    def open(self, node: Node) -> Line:
        where = {"host": node.host, "port": node.port} if node.port else {"path": node.host}
        connection = self._kind(**where, **self._settings)
        try:
            with Translated(str(node)):
                connection.connect()
        except (Broken, StorageError) as exc:
            connection.disconnect()
            if isinstance(exc, EngineUnreachable):
                raise
            said = str(exc.__cause__ or exc)
            raise EngineUnreachable(f"no connection to {node}: {said}", str(node)) from exc.__cause__
        return Line(connection, str(node), self._error)


# -------------------------------------------------------------------------------------------------------------- links


class Link(Protocol):
    """See the module."""

    is_cluster: bool

    def ask(self, key: bytes, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands on keys of one slot, that of `key`; one that is an error is the driver's exception.

        The first one is none that says "ask somebody else". Raises `Broken`, `EngineUnreachable`.
        """
        ...

    def ask_many(self, requests: Sequence[tuple[bytes, Command]]) -> list[Any]:
        """The answers to single commands, each on its key, in as few round trips as can be.

        They must be such as may be repeated. Raises as `ask`, and `StorageError` for an answer that is an error.
        """
        ...

    def close(self) -> None:
        """Close the connections that are not in use."""
        ...


class SingleLink:
    """One server."""

    is_cluster = False

    def __init__(self, target: Target, *, size: int, connect_timeout_s: float, replica_timeout_s: float) -> None:
        opener = _Opener(target, connect_timeout_s, replica_timeout_s)
        self._place = target.place
        self._pool = Pool(lambda: opener.open(target.nodes[0]), size=size, usable=Line.is_quiet)

    def ask(self, key: bytes, commands: Sequence[Command]) -> list[Any]:
        with self._pool.lend() as line:
            return line.ask(commands)

    def ask_many(self, requests: Sequence[tuple[bytes, Command]]) -> list[Any]:
        answers: list[Any] = []
        for start in range(0, len(requests), _MANY):
            answers += self.ask(b"", [command for _, command in requests[start : start + _MANY]])
        return checked(answers, self._place)

    def close(self) -> None:
        self._pool.close()


class ClusterLink:
    """A cluster. `nodes` of the target are where to ask for the first time who has what."""

    is_cluster = True

    def __init__(
        self,
        target: Target,
        *,
        size: int,
        connect_timeout_s: float,
        replica_timeout_s: float,
        failover_timeout_s: float,
    ) -> None:
        self._opener = _Opener(target, connect_timeout_s, replica_timeout_s)
        self._target = target
        self._size = size
        self._failover_timeout_s = failover_timeout_s
        self._pools: dict[Node, Pool[Line]] = {}
        self._map: list[Node] = []  # of each slot
        self._begin()

    def ask(self, key: bytes, commands: Sequence[Command]) -> list[Any]:
        until = time.monotonic() + self._failover_timeout_s
        pause_s = _PAUSE_S[0]
        while True:
            known, node = self._map, self._node(key)
            try:
                return self._follow(node, key, commands)
            except EngineUnreachable:
                if time.monotonic() > until:
                    raise
            except _NotNow as exc:
                if time.monotonic() > until:
                    raise exc.reason from None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_S[1])
            self._look_around(known, avoid=node)

    def ask_many(self, requests: Sequence[tuple[bytes, Command]]) -> list[Any]:
        answers: list[Any] = [None] * len(requests)
        of_node: dict[Node, list[int]] = {}
        for number, (key, _) in enumerate(requests):
            of_node.setdefault(self._node(key), []).append(number)
        for node, numbers in of_node.items():
            for start in range(0, len(numbers), _MANY):
                self._ask_some(node, requests, numbers[start : start + _MANY], answers)
        return checked(answers, self._target.place)

    def _ask_some(
        self, node: Node, requests: Sequence[tuple[bytes, Command]], numbers: Sequence[int], answers: list[Any]
    ) -> None:
        """Fill in the answers of one node; what it cannot answer is asked one by one."""
        try:
            found = self._ask(node, [requests[number][1] for number in numbers])
        except (EngineUnreachable, Broken):
            found = [_UNANSWERED] * len(numbers)
        for number, answer in zip(numbers, found, strict=True):
            if answer is _UNANSWERED or _is(answer, "MovedError") or _is_for_later(answer):
                key, command = requests[number]
                answer = self.ask(key, [command])[0]
            answers[number] = answer

    def close(self) -> None:
        for pool in list(self._pools.values()):
            pool.close()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._looking = threading.Lock()

    def _ask(self, node: Node, commands: Sequence[Command]) -> list[Any]:
        pool = self._pools.get(node)
        if pool is None:
            pool = self._pools.setdefault(
                node, Pool(lambda: self._opener.open(node), size=self._size, usable=Line.is_quiet)
            )
        with pool.lend() as line:
            return line.ask(commands)

    def _follow(self, node: Node, key: bytes, commands: Sequence[Command]) -> list[Any]:
        """Ask a node, and then those that we are sent to."""
        for _ in range(_HOPS):
            answers = self._ask(node, commands)
            if _is(answers[0], "MovedError"):
                node = self._map[slot_of(key)] = Node(answers[0].host or node.host, answers[0].port)
            elif _is_for_later(answers[0]):
                break
            else:
                return answers
        place = self._target.place
        raise _NotNow(StorageError(f"{place} is changing and does not come to rest: {_words(answers[0])}", place))

    def _node(self, key: bytes) -> Node:
        if not self._map:
            self._look_around(self._map)
        return self._map[slot_of(key)]

    def _look_around(self, known: list[Node], avoid: Node | None = None) -> None:
        """Ask who has what, `avoid` last, unless another thread did so since the map was `known`."""
        if os.getpid() != self._pid:
            self._begin()  # the lock may be that of a thread that this process does not have
        with self._looking:
            if self._map is known:
                self._map = self._ask_for_map(sorted({*known, *self._target.nodes}, key=lambda node: node == avoid))

    def _ask_for_map(self, nodes: Sequence[Node]) -> list[Node]:
        """The primary of each slot, from the first node that can be reached."""
        reason: Exception | None = None
        for node in nodes:
            try:
                (answer,) = checked(self._ask(node, [("CLUSTER", "SLOTS")]), str(node))
            except (EngineUnreachable, Broken) as exc:
                reason = exc
            else:
                return _slot_map(answer, node)
        place = self._target.place
        raise EngineUnreachable(f"no node of {place} can be reached: {reason}", place) from reason


_UNANSWERED = object()


class _NotNow(Exception):
    """The cluster is changing, and nobody does it now. `reason`: what to raise if that goes on for too long."""

    def __init__(self, reason: StorageError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _is_for_later(answer: Any) -> bool:
    """The cluster is changing, and nothing was done.

    While a slot is being moved some of its keys are here, some there; a script that needs several must wait until all are
    there. So we do not follow ASK, which is about one key.
    """
    return isinstance(answer, Exception) and _PASSING.match(_words(answer)) is not None


def is_unknown_script(answer: Any) -> bool:
    """The server does not know the script by its name, and has not run it."""
    return _is(answer, "NoScriptError")


def _is(answer: Any, kind: str) -> bool:
    """Whether an answer is one of the driver's errors, which is imported by then."""
    if not isinstance(answer, Exception):
        return False
    from redis import exceptions as driver

    return isinstance(answer, getattr(driver, kind))


def checked(answers: list[Any], place: str) -> list[Any]:
    """The answers. Raises the first one that is an error."""
    for answer in answers:
        if isinstance(answer, Exception):
            with Translated(place):
                raise answer
    return answers


def slot_of(key: bytes) -> int:
    """The slot of a cluster that a key belongs to."""
    from redis.crc import key_slot

    return key_slot(key, _SLOTS)


def _slot_map(answer: list[Any], asked: Node) -> list[Node]:
    """The primary of each slot, from the answer to CLUSTER SLOTS. A slot that none has is asked for where we asked."""
    found = [asked] * _SLOTS
    for first, last, primary, *_ in answer:
        host = primary[0].decode() if primary[0] else ""
        node = Node(host if host not in ("", "?") else asked.host, int(primary[1]))
        found[first : last + 1] = [node] * (last + 1 - first)
    return found
