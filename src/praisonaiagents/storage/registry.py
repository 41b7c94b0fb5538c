"""From a URL to the engine that serves it.

    file:///absolute/folder                       JSON files, one a session (a plain path means the same)
    memory://                                     this process only
    sqlite:///relative.db, sqlite:////absolute    a SQLite file (a plain path that ends in .db means the same)
    postgresql://user:password@host/database      PostgreSQL; also postgres://
    redis://, rediss://, unix://, redis+cluster://      Redis or Valkey

Another package adds an engine by an entry point of the group `praisonaiagents.engines`: its name is the scheme, its value a
function `(url, **options) -> Engine`. An engine is imported when its URL is first opened, never before, so that a driver
nobody uses costs nothing. The engines above cannot be replaced that way.

What a reader would get wrong: a URL may hold a password, so no error here quotes one, not even one that is no URL at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from praisonaiagents.errors import ConfigError, ConfigTypeError, UnknownEngine
from praisonaiagents.paths import get_data_dir, get_sessions_dir
from praisonaiagents.storage.engine import Engine
from praisonaiagents.storage.plugins import Kind, open_plugin, plugins

ENTRY_POINTS = "praisonaiagents.engines"

_OPENERS = {
    "file": "praisonaiagents.storage.jsonfile:open_url",
    "memory": "praisonaiagents.storage.memory:open_url",
    "sqlite": "praisonaiagents.storage.sqlite:open_url",
    "postgresql": "praisonaiagents.storage.postgres:open_url",
    "postgres": "praisonaiagents.storage.postgres:open_url",
    "redis": "praisonaiagents.storage.redis:open_url",
    "rediss": "praisonaiagents.storage.redis:open_url",
    "unix": "praisonaiagents.storage.redis:open_url",
    "redis+cluster": "praisonaiagents.storage.redis:open_url",
    "rediss+cluster": "praisonaiagents.storage.redis:open_url",
}
_ENGINES = Kind(ENTRY_POINTS, "engine", Engine)
_DRIVEN = ("sqlite", "postgresql", "postgres")  # SQLAlchemy writes them with a driver, as in `postgresql+asyncpg://`
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_LOGIN = re.compile(r"[^/\s]+:[^/]*@")  # as in `user:password@host/database`
_SECRET = re.compile(r"([?&;][^=&;?]*(?:pass|secret|token|key|auth|credential)[^=&;?]*=)[^&;]*", re.IGNORECASE)
_CLOSE = 0.8  # how much an unknown scheme must be like a known one to be taken for a slip of the pen


# --- URLs ---


def schemes() -> tuple[str, ...]:
    """The URL schemes that can be opened."""
    return tuple(sorted({*_OPENERS, *plugins(_ENGINES)}))


def scheme_of(url: str) -> str:
    """The URL's scheme in lower case; for a plain path, that of the engine it means.

    Raises `ConfigError` for what is no text, and for what is neither a URL nor meant as a path.
    """
    return _split(url)[0]


def check_url(url: str) -> str:
    """Return the URL's scheme if an engine serves it. Opens and imports nothing. Raises `UnknownEngine`, `ConfigError`."""
    scheme = scheme_of(url)
    if scheme not in _OPENERS and scheme not in plugins(_ENGINES):
        raise UnknownEngine(scheme, schemes(), _did_you_mean(scheme))
    return scheme


def open_engine(url: str, **options: Any) -> Engine:
    """Open the engine for a URL. `options` are the engine's own keyword arguments. The caller closes it.

    The engine is given the URL with its scheme in lower case. Raises `UnknownEngine` for a scheme nobody serves,
    `ConfigError` for a URL that makes no sense and for an engine of another package that does not work, `MissingDependency`.
    """
    scheme = check_url(url)
    _, is_url, rest = _split(url)
    given = f"{scheme}://{rest}" if is_url else rest
    if scheme not in _OPENERS:
        other: Engine = open_plugin(_ENGINES, scheme, given, **options)
        return other
    module, _, name = _OPENERS[scheme].partition(":")
    engine: Engine = getattr(import_module(module), name)(given, **options)
    return engine


def masked(url: str) -> str:
    """The URL without passwords, to be shown. Where it is not clear where a password ends, everything is masked."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***" if _LOGIN.match(url) else url
    if scheme.lower() == "file":
        return url
    if "@" in rest and not scheme.lower().startswith("sqlite"):
        if "@" in rest.partition("?")[2]:
            return f"{scheme}://***"
        login, _, place = rest.rpartition("@")
        user, has_password, _ = login.partition(":")
        rest = f"{user}:***@{place}" if has_password else f"{user}@{place}"
    return _SECRET.sub(r"\1***", f"{scheme}://{rest}")


def _split(url: str) -> tuple[str, bool, str]:
    """(the scheme, True if it is a URL, what follows `://`); of a plain path (the scheme of its engine, False, the path)."""
    if not isinstance(url, str):
        raise ConfigTypeError(f"a storage URL is text such as 'sqlite:///sessions.db', not {type(url).__name__}")
    if not url.strip():
        raise ConfigError("a storage URL cannot be empty; one is 'sqlite:///sessions.db'")
    scheme, is_url, rest = url.strip().partition("://")
    if not is_url:
        return _scheme_of_path(url), False, url
    if not _SCHEME.fullmatch(scheme):
        raise ConfigError("what stands before '://' in the storage URL is no scheme; one is 'sqlite:///sessions.db'")
    return _without_driver(scheme.lower()), True, rest


def _without_driver(scheme: str) -> str:
    dialect, plus, _ = scheme.partition("+")
    return dialect if plus and dialect in _DRIVEN else scheme


def _scheme_of_path(path: str) -> str:
    if path == ":memory:":
        return "sqlite"
    before, colon, _ = path.strip().partition(":")
    if colon and _without_driver(before.lower()) in _OPENERS:
        raise ConfigError(f"a storage URL of this kind begins with '{before.lower()}://'")
    if _LOGIN.match(path):
        raise ConfigError("a storage URL begins with its scheme, such as 'postgresql://'")
    return "sqlite" if path.endswith((".db", ".sqlite", ".sqlite3")) else "file"


def _did_you_mean(scheme: str) -> str:
    import difflib

    close = difflib.get_close_matches(scheme, schemes(), n=1, cutoff=_CLOSE)
    return f"Did you mean {close[0]!r}?" if close else ""


# --- where a backend keeps sessions if nobody says ---


class _Default(NamedTuple):
    """A URL of a scheme that is `served`, from the first of the variables `names` that holds one; else `last`."""

    served: tuple[str, ...]
    names: tuple[str, ...]
    last: Callable[[], str]


def default_url(backend: str) -> str:
    """Where `backend` ("file", "in_memory", "sqlite", "postgres" or "redis") keeps sessions if no URL was given.

    `PRAISONAI_DB_URL` if it is such a URL. Else for PostgreSQL `POSTGRES_URL` or `DATABASE_URL`, for Redis `REDIS_URL`, then
    the server on this machine (for PostgreSQL, what libpq takes from `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`, ...); for
    SQLite `sessions.db` in the data folder. Raises `ConfigError` for another name, or a variable that makes no sense.
    """
    if backend not in _DEFAULTS:
        raise ConfigError(f"no such backend: {backend!r}; there are: {', '.join(_DEFAULTS)}")
    found = configured(backend)
    return found[1] if found else _DEFAULTS[backend].last()


def configured(backend: str) -> tuple[str, str] | None:
    """(variable, URL): what the environment says about a backend, as `default_url` reads it; None if it says nothing."""
    served, names, last = _DEFAULTS[backend]
    for name in ("PRAISONAI_DB_URL", *names):
        if url := env_url(name, served):
            return name, url
    libpq = next((name for name in _LIBPQ_PLACES if backend == "postgres" and os.environ.get(name)), None)
    return (libpq, last()) if libpq else None


def env_url(name: str, served: tuple[str, ...] = ()) -> str | None:
    """The storage URL in an environment variable; None if there is none, or one whose scheme is not among `served`.

    Raises `ConfigError`, with the variable's name, for what is no URL.
    """
    url = os.environ.get(name, "").strip()
    try:
        return url if url and (not served or scheme_of(url) in served) else None
    except ConfigError as exc:
        raise ConfigError(f"{name}: {exc}") from None  # the text of the first one is all there is to know


def _sqlite_file() -> str:
    return os.path.join(get_data_dir(), "sessions.db")


def _postgres_here() -> str:
    return "postgresql://" if any(os.environ.get(name) for name in _LIBPQ_PLACES) else "postgresql://localhost"


_LIBPQ_PLACES = ("PGHOST", "PGHOSTADDR", "PGSERVICE")
_POSTGRES_SCHEMES = ("postgresql", "postgres")
_REDIS_SCHEMES = tuple(scheme for scheme, opener in _OPENERS.items() if ".redis:" in opener)
_DEFAULTS = {
    "file": _Default(("file",), (), get_sessions_dir),
    "in_memory": _Default(("memory",), (), lambda: "memory://"),
    "sqlite": _Default(("sqlite",), (), _sqlite_file),
    "postgres": _Default(_POSTGRES_SCHEMES, ("POSTGRES_URL", "DATABASE_URL"), _postgres_here),
    "redis": _Default(_REDIS_SCHEMES, ("REDIS_URL",), lambda: "redis://localhost:6379"),
}
BACKENDS = tuple(_DEFAULTS)
