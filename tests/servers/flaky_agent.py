"""A small agent over HTTP that does what a test wants: breaks connections, refuses, forgets its turns, answers nonsense.

It speaks the wire of a served agent from its own pen, so that the client is not tested against its own idea of it. `Plan`s are
what it does with the next requests, in order; without one it answers.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ALL = ("idempotency", "resume", "sessions")


class Break(Exception):
    """Close the connection at once."""


class Asked:
    """One request, and the means to answer it."""

    def __init__(self, http: BaseHTTPRequestHandler) -> None:
        self.http = http
        self.method = http.command
        url = urlsplit(http.path)
        self.path = url.path
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.headers = {name.lower(): value for name, value in http.headers.items()}
        size = int(self.headers.get("content-length", 0))
        self.raw = http.rfile.read(size)
        self.body: dict[str, Any] = json.loads(self.raw) if self.raw else {}

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        """A whole answer; bytes are sent as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.http.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.http.send_header(name.replace("_", "-"), value)
        self.http.end_headers()
        if self.method != "HEAD":
            self.http.wfile.write(data)

    def begin_events(self, kind: str = "text/event-stream") -> None:
        self.http.send_response(200)
        self.http.send_header("Content-Type", kind)
        self.http.send_header("Transfer-Encoding", "chunked")
        self.http.end_headers()

    def piece(self, data: bytes) -> None:
        """Bytes of a stream; none are its end."""
        self.http.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.http.wfile.flush()

    def event(self, turn: str, number: int, name: str, **data: Any) -> None:
        self.piece(f"id: {turn}.{number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode())

    def events(self, turn: str, *events: tuple[str, dict[str, Any]], first: int = 1) -> None:
        """Some of a turn's events, numbered from `first`. Begin them before."""
        for number, (name, data) in enumerate(events, start=first):
            self.event(turn, number, name, **data)


Plan = Callable[[Asked], object]


def told(turn: str, *pieces: str, response: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """All events of a turn that goes well."""
    return [
        ("turn", {"turn_id": turn, "session_id": "s"}),
        *(("text", {"text": piece}) for piece in pieces),
        ("done", {"response": "".join(pieces) if response is None else response, "turn_id": turn, "session_id": "s"}),
    ]


class FlakyAgent:
    """At `url` while it is entered. `asked` are the requests that came, but for those for health."""

    def __init__(self, *plans: Plan, features: tuple[str, ...] | None = ALL, port: int = 0) -> None:
        self.plans = list(plans)
        self.asked: list[Asked] = []
        self.health: Plan = lambda asked: asked.answer({"status": "ok"} | ({"features": features} if features else {}))
        self.stopping = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.stopping = self.stopping  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    @property
    def port(self) -> int:
        return self._http.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/agent"

    def said(self, *methods: str) -> list[Asked]:
        """The requests of these methods."""
        return [asked for asked in self.asked if asked.method in methods]

    def __enter__(self) -> FlakyAgent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def take(self, asked: Asked) -> None:
        if asked.path.endswith("/health") and asked.method == "GET":
            self.health(asked)
            return
        self.asked.append(asked)
        plan = self.plans.pop(0) if self.plans else _well
        plan(asked)


def _well(asked: Asked) -> None:
    """Answer as a server does that nothing is wrong with."""
    if asked.method == "HEAD":
        asked.answer(b"", 405)
    elif asked.method == "DELETE":
        asked.answer({"status": "interrupted"})
    elif "event-stream" in asked.headers["accept"]:
        asked.begin_events()
        turn = hashlib.sha256(asked.key.encode()).hexdigest()[:8]
        asked.events(turn, *told(turn, "You ", "said: ", asked.body["query"]))
        end(asked)
    else:
        asked.answer({"response": f"You said: {asked.body['query']}"})


def _handler(agent: FlakyAgent) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Tests read what they need from `asked`."""

        def handle(self) -> None:
            try:
                super().handle()
            except (Break, ConnectionError):
                self.close_connection = True

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                return  # the client is gone
            finally:
                self.connection.close()

        def _take(self) -> None:
            agent.take(Asked(self))

        do_GET = do_HEAD = do_POST = do_DELETE = _take

    return Handler


def reset(asked: Asked) -> None:
    """Break the connection without an answer."""
    asked.http.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    asked.http.connection.close()
    raise Break


def drop(asked: Asked) -> None:
    """Close the connection in the middle of an answer. What was sent arrives, other than with `reset`."""
    raise Break


def end(asked: Asked) -> None:
    """The regular end of a stream."""
    asked.piece(b"")
