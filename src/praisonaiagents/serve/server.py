"""A server in this process: `launch` starts it in a thread, and waits for it where the script has nothing else to launch.

    agent.launch(path="/agent", port=8000)

One server has a port; agents that are launched at it later are served by it too. What a reader would get wrong: a script that
launches two agents must not wait at the first. So the call looks at what is left of the code that called it: where that
launches something later, it returns at once.
"""

from __future__ import annotations

import asyncio
import dis
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from praisonaiagents.agent.agent import Agent
from praisonaiagents.errors import ConfigError, StorageError
from praisonaiagents.serve.asgi import app_of
from praisonaiagents.serve.guard import is_loopback
from praisonaiagents.serve.service import Service
from praisonaiagents.serve.settings import settings_from

TOKEN_VARIABLE = "PRAISONAI_LAUNCH_AUTH_TOKEN"  # noqa: S105 - its name
_HEADER_TIMEOUT_S = 20
_KEEP_ALIVE_S = 15
_LAST_WORDS_S = 5
_MAX_HEAD_BYTES = 65_536
_SPARE_CONNECTIONS = 1_000  # besides those that wait for turns
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104
_loading: list[bool] = []
_servers: dict[tuple[str, int], Server] = {}
_lock = threading.Lock()


class Launching(BaseException):
    """A script that is only being loaded came to where it would serve."""


class Server:
    """A server that was launched. made_token: the token it asks for, if nobody gave one."""

    _loop: asyncio.AbstractEventLoop

    def __init__(
        self, host: str, port: int, service: Service, *, debug: bool = False, made_token: str | None = None
    ) -> None:
        self.service = service
        self.made_token = made_token
        self._socket = _bound(host, port)
        self.host, self.port = host, self._socket.getsockname()[1]
        self._server = _Uvicorn(config_for(service, debug=debug), service)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"praisonai-serve-{self.port}", daemon=True)

    @property
    def url(self) -> str:
        """The server's address, as somebody on this machine calls it."""
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{name}]' if ':' in name and not name.startswith('[') else name}:{self.port}"

    def start(self) -> None:
        """Serve. Returns when requests are answered; raises what keeps it from that."""
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.01)
        if self._failure is not None:
            raise self._failure
        if not self._server.started:
            raise StorageError(f"the server at port {self.port} did not start")

    def wait(self) -> None:
        """Wait until it is closed; Ctrl-C and SIGTERM close it."""
        with _on_sigterm(self.close):
            try:
                while self._thread.is_alive():
                    self._thread.join(1)
            except KeyboardInterrupt:
                self.close()

    def withdraw(self, path: str) -> None:
        """Serve what is at this path no more; without any agent the server ends."""
        self.service.remove(path)
        if not self.service.agents:
            self.close()

    def close(self) -> None:
        """Serve no more: let turns finish, as long as they may. Calling it twice is harmless."""
        self._server.should_exit = True
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Server({self.url!r}, agents={sorted(self.service.agents)})"

    def load(self, agent: Agent) -> None:
        """Make an agent ready that was added while the server runs."""
        asyncio.run_coroutine_threadsafe(agent.prepare(), self._loop).result()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self.service.open()
            await self._server.serve(sockets=[self._socket])
        finally:
            await self.service.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:
            self._failure = exc
        finally:
            _servers.pop((self.host, self.port), None)  # also where it ended by itself
            self._socket.close()


def launch(
    agent: Agent,
    path: str = "/",
    port: int = 8000,
    host: str = "127.0.0.1",
    debug: bool = False,
    *,
    block: bool | None = None,
    db: str | None = None,
    say: Callable[[str], object] = lambda text: print(text, file=sys.stderr),
    **settings: Any,
) -> Server:
    """Serve an agent at `http://host:port/path`, with the other agents that are launched at the same port.

    host: beyond this machine a token is needed. It is `token=`, the variable `PRAISONAI_LAUNCH_AUTH_TOKEN`, or a new one
        that is printed once and put into that variable. port: 0 for any that is free.
    block: whether to wait until the server ends. None: unless the calling code launches something later, or a person types it.
    say: told what people should read: where the agent is, and a token that was made. db, settings: as for `app`.

    Raises `ConfigError`, also where the port is taken.
    """
    if _loading:
        raise Launching
    with _lock:
        server = _servers.get((host, port)) if port else None
        if server is None:
            made = _made_token(host, settings)
            service = Service(settings_from(_for_host(host, settings, made)), db=db)
            at = service.add(agent, path)
            server = Server(host, port, service, debug=debug, made_token=made)
            server.start()
            _servers[host, server.port] = server
        else:
            if settings or db:
                raise ConfigError(f"the server at port {port} runs already: its settings are those of the first launch")
            at = server.service.add(agent, path)
            try:
                server.load(agent)
            except BaseException:
                server.service.remove(at)
                raise
        if server.made_token and len(server.service.agents) == 1:
            say(f"Others can reach this server, so callers need a token: {server.made_token}")
    agent.on_close(partial(server.withdraw, at))
    say(f"{agent.name or 'The agent'} is served at {server.url}{at}")
    if _waits(block):
        server.wait()
    return server


class _Connection(H11Protocol):
    """A connection on which nothing drips in for long: neither the headers of a request, nor what is left of one that has
    its answer already.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection.family in (socket.AF_INET, socket.AF_INET6):  # else every answer on a kept connection waits 40 ms
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE and self.conn.our_state is not h11.DONE:
            self._unwatch()  # it is the app's now
        elif self._deadline is None:
            self._deadline = self.loop.call_later(_HEADER_TIMEOUT_S, self.transport.close)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Uvicorn(uvicorn.Server):
    """When it ends, turns are told at once, so that those who wait for them are answered."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        closing = asyncio.ensure_future(self._service.turns.close())
        await super().shutdown(sockets)
        await closing


def config_for(service: Service, *, debug: bool = False) -> uvicorn.Config:
    """How uvicorn serves: strictly, silently (we tell ourselves), and trusting no header about who calls."""
    return uvicorn.Config(
        app_of(service),
        http=_Connection,
        ws="none",
        log_config=None,
        log_level="debug" if debug else "warning",
        access_log=False,
        lifespan="off",  # what it would do is done around it, so that who launches is told what went wrong
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(service.settings.grace_s) + _LAST_WORDS_S,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        limit_concurrency=service.settings.max_turns + _SPARE_CONNECTIONS,
        backlog=1024,
    )


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `ConfigError`."""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(f"a port is a number from 0 to 65535, not {port!r}")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), port), family=family, backlog=1024)
    except OSError as exc:
        raise ConfigError(f"cannot listen at {host}:{port}: {exc.strerror or exc}; take another port or host") from exc


def _made_token(host: str, settings: Mapping[str, Any]) -> str | None:
    """A new token, where one is needed and nobody gave one. It is put where later launches find it."""
    if is_loopback(host) or settings.get("token") or settings.get("users") or os.environ.get(TOKEN_VARIABLE):
        return None
    made = os.environ[TOKEN_VARIABLE] = secrets.token_urlsafe(24)
    return made


def _for_host(host: str, settings: Mapping[str, Any], token: str | None) -> dict[str, Any]:
    """The settings with the token there is, and with the host among the names that the server is called by."""
    given = dict(settings)
    if given.get("token") is None:
        given["token"] = token or os.environ.get(TOKEN_VARIABLE) or None
    if host not in _EVERYWHERE and not is_loopback(host):
        given["hosts"] = [*given.get("hosts", ()), host]
    return given


@contextmanager
def loading() -> Iterator[None]:
    """Code that is run in here does not serve: it ends where it would, with all that it has defined by then."""
    _loading.append(True)
    try:
        with suppress(Launching):  # raised by `launch` to get out of the code, and nothing else
            yield
    finally:
        _loading.pop()


def _waits(block: bool | None) -> bool:
    if block is not None:
        return block
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return False
    frame = _caller()
    if frame is None or not _launches_later(frame):
        return True
    _wait_at_the_end()
    return False


def _caller() -> FrameType | None:
    """The frame of the code that launched: the first one outside of this package."""
    frame = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "praisonaiagents":
        frame = frame.f_back  # type: ignore[assignment]
    return frame


def _launches_later(frame: FrameType) -> bool:
    """Whether what is left of this code launches something, or comes here again."""
    rest = [found for found in dis.get_instructions(frame.f_code) if found.offset > frame.f_lasti]
    return any(
        (found.argval == "launch" and found.opname.startswith("LOAD_"))
        or ("JUMP_BACKWARD" in found.opname and isinstance(found.argval, int) and found.argval <= frame.f_lasti)
        for found in rest
    )


def _wait_at_the_end() -> None:
    """Let a script that reaches its end wait for its servers. Python has no public way to do so before thread pools end."""
    register = getattr(threading, "_register_atexit", None)
    if register is not None and not _registered:
        _registered.append(True)
        register(_wait_for_all)


_registered: list[bool] = []


def _wait_for_all() -> None:
    if getattr(sys, "last_value", None) is None:  # a script that failed does not go on serving
        for server in list(_servers.values()):
            server.wait()


@contextmanager
def _on_sigterm(act: Callable[[], object]) -> Iterator[None]:
    """In the main thread, let SIGTERM act, if nothing else is set to happen."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
