"""A bad network on loopback: a TCP proxy that breaks connections when it is told to.

    with Proxy("127.0.0.1", server_port) as proxy:
        client = connect(port=proxy.port)
        proxy.cut_before_answer()          # the next request reaches the server, its answer never arrives

It knows no protocol. A request is what a client sends after the last answer, until the next one begins to arrive: one
round trip, however many packets and commands are in it. What a reader would get wrong: a handshake is made of requests too,
so connect first and tell it what to break then.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

_CHUNK = 65_536  # bytes


class Proxy:
    """Forwards connections to `target_host:target_port`.

    port: where to connect to, on 127.0.0.1.
    requests: round trips begun since the start. connections: how many were made.
    delay_s: every answer is held back for so many seconds.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self.port = 0
        self.requests = 0
        self.connections = 0
        self.delay_s = 0.0
        self._target = (target_host, target_port)
        self._lock = threading.Lock()
        self._pairs: set[_Pair] = set()
        self._threads: list[threading.Thread] = []
        self._flowing = threading.Event()
        self._plan: _Plan | None = None
        self._door: _Door | None = None

    def __enter__(self) -> Proxy:
        self.resume()
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self.cut()
        self.resume()
        for thread in self._threads:
            thread.join()

    def accept(self) -> None:
        """Take connections, after `refuse` on the same port as before."""
        if self._door is None:
            self._door = _Door(self.port)
            self.port = self._door.port
            self._door.thread = self._start(self._listen, self._door)

    def refuse(self) -> None:
        """New connections are refused, as if no server were running. Those that exist go on."""
        if self._door is not None:
            self._door.shut()
            self._door = None

    def cut(self) -> None:
        """Break all connections now."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.cut()

    def pause(self) -> None:
        """Nothing gets through any more, in either direction, and nobody is told."""
        self._flowing.clear()

    def resume(self) -> None:
        """The inverse of `pause`: what was held up is delivered."""
        self._flowing.set()

    def cut_before_request(self, n: int = 1) -> None:
        """Break the connection of the `n`-th request from now instead of forwarding it. Nothing of it reaches the server."""
        self._plan = _Plan(n, None)

    def cut_before_answer(self, n: int = 1, *, delivered: int = 0) -> None:
        """Forward the `n`-th request from now, wait for its answer, deliver `delivered` bytes of that, and break."""
        self._plan = _Plan(n, delivered)

    def _start(self, work: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=args)
        thread.start()
        self._threads.append(thread)
        return thread

    def _listen(self, door: _Door) -> None:
        while client := door.next():
            self.connections += 1
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            pair = _Pair(client, server)
            with self._lock:
                self._pairs.add(pair)
            self._start(self._serve, pair)

    def _serve(self, pair: _Pair) -> None:
        answers = self._start(self._forward_answers, pair)
        with suppress(OSError):
            self._forward_requests(pair)
        pair.cut()
        answers.join()
        with self._lock:
            self._pairs.remove(pair)
        pair.close()

    def _forward_requests(self, pair: _Pair) -> None:
        while data := pair.client.recv(_CHUNK):
            self._flowing.wait()
            if not pair.asking and not self._begin(pair):
                return
            pair.server.sendall(data)

    def _begin(self, pair: _Pair) -> bool:
        """Count a request. False if it shall not reach the server."""
        with self._lock:
            pair.asking = True
            self.requests += 1
            plan = self._plan
            if plan is None:
                return True
            plan.left -= 1
            if plan.left:
                return True
            self._plan = None
            pair.answer_bytes = plan.answer_bytes
            return plan.answer_bytes is not None

    def _forward_answers(self, pair: _Pair) -> None:
        with suppress(OSError):
            while data := pair.server.recv(_CHUNK):
                pair.asking = False
                self._flowing.wait()
                if self.delay_s:
                    time.sleep(self.delay_s)
                if pair.answer_bytes is not None:
                    pair.client.sendall(data[: pair.answer_bytes])
                    pair.answer_bytes -= len(data)
                    if pair.answer_bytes <= 0:
                        break
                else:
                    pair.client.sendall(data)
        pair.cut()


@dataclass
class _Plan:
    """Which request to break: the `left`-th from now. `answer_bytes` is None if it shall not reach the server."""

    left: int
    answer_bytes: int | None


@dataclass(eq=False)
class _Pair:
    """A client's connection and ours to the server. `answer_bytes`: how much more is delivered, None means all."""

    client: socket.socket
    server: socket.socket
    asking: bool = False
    answer_bytes: int | None = None

    def cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.close()
        self.server.close()


class _Door:
    """The port that is listened at. Closing a socket does not wake who waits at it, so a second one does."""

    thread: threading.Thread

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._bell, self._ear = socket.socketpair()
        self.port: int = self._listener.getsockname()[1]

    def next(self) -> socket.socket | None:
        """The next connection, or None once it is shut."""
        ready, _, _ = select.select([self._listener, self._ear], [], [])
        if self._ear in ready:
            self._listener.close()
            self._ear.close()
            return None
        return self._listener.accept()[0]

    def shut(self) -> None:
        """Refuse from now on. Returns when nobody can get in any more."""
        self._bell.close()
        self.thread.join()
