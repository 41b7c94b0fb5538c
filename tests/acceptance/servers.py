"""Real servers for the blocks that name one: PostgreSQL, Redis and an agent over HTTP, each on a free port.

PostgreSQL is one server for all tests of this process (TEST_POSTGRES_URL names another), in which each test gets a database of
its own: the page's URLs name one. Redis has no such names, so each test that asks for it gets a server of its own. The server
packages are imported when a test asks for a server.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit, urlunsplit


@contextmanager
def postgres_database() -> Iterator[str]:
    """The URL of an empty database, which is dropped afterwards."""
    import psycopg
    from servers.postgres import shared_url

    server = shared_url()
    name = f"acceptance_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def redis_server() -> Iterator[str]:
    """An empty server, started for this test."""
    from servers.redis import RedisServer

    with RedisServer() as server:
        yield server.url


class AgentServer:
    """Speaks the protocol of a served agent: GET `{url}/health`, and POST `{url}` with {"query", "session_id", "user_id"}.

    `received` holds the bodies of the POSTs. Clear `open` and POSTs get no answer until it is set again; with `healthy`
    False the agent is not there (404).
    """

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.healthy = True
        self.open = threading.Event()
        self.open.set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever)

    @property
    def url(self) -> str:
        """The agent's address."""
        return f"http://127.0.0.1:{self._http.server_port}/agent"

    def __enter__(self) -> AgentServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _handler(agent: AgentServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Tests read what they need from `received`."""

        def _answer(self, status: int, body: dict[str, str]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer(200, {"status": "ok"}) if agent.healthy else self._answer(404, {"detail": "Not Found"})

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            agent.received.append(body)
            agent.open.wait()
            try:
                self._answer(200, {"response": f"You said: {body['query']}"})
            except ConnectionError:
                self.close_connection = True  # the client gave up waiting, which is what some tests want

    return Handler
