"""From a URL to the engine that serves it.

    file:///absolute/folder                       JSON files, one a session (a plain path means the same)
    memory://                                     this process only
    sqlite:///relative.db, sqlite:////absolute    a SQLite file (a plain path that ends in .db means the same)
    postgresql://user:password@host/database      PostgreSQL; also postgres://
    redis://, rediss://, unix://, redis+cluster://      Redis or Valkey

Another package adds an engine by an entry point of the group `praisonaiagents.engines`: its name is the scheme, its value a
function `(url, **options) -> Engine`. An engine is imported when its URL is first opened, never before, so that a driver
nobody uses costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from praisonaiagents.errors import ConfigError, UnknownEngine
from praisonaiagents.storage.engine import Engine

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


def schemes() -> tuple[str, ...]:
    """The URL schemes that can be opened."""
    return tuple(sorted({*_OPENERS, *_plugins()}))


def scheme_of(url: str) -> str:
    """The URL's scheme; for a plain path, that of the engine it means. Raises `ConfigError` for what is no text."""
    if not isinstance(url, str) or not url:
        raise ConfigError(f"a storage URL is text such as 'sqlite:///sessions.db', not {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if separator:
        return scheme.lower()
    return "sqlite" if url == ":memory:" or url.endswith((".db", ".sqlite", ".sqlite3")) else "file"


def check_url(url: str) -> str:
    """Return the URL's scheme if an engine serves it. Opens and imports nothing. Raises `UnknownEngine`, `ConfigError`."""
    scheme = scheme_of(url)
    if scheme not in _OPENERS and scheme not in _plugins():
        raise UnknownEngine(scheme, schemes())
    return scheme


def open_engine(url: str, **options: Any) -> Engine:
    """Open the engine for a URL. `options` are the engine's own keyword arguments. The caller closes it.

    Raises `UnknownEngine` for a scheme nobody serves, `ConfigError` for a URL that makes no sense, `MissingDependency`.
    """
    scheme = check_url(url)
    if scheme in _OPENERS:
        module, _, name = _OPENERS[scheme].partition(":")
        opener = getattr(import_module(module), name)
    else:
        opener = _plugins()[scheme].load()
    engine: Engine = opener(url, **options)
    return engine


def default_url(backend: str) -> str:
    """Where `backend` ("file", "in_memory", "sqlite", "postgres" or "redis") keeps sessions if no URL was given.

    `PRAISONAI_DB_URL` if it is such a URL. Else for PostgreSQL `POSTGRES_URL` or `DATABASE_URL`, for Redis `REDIS_URL`, then
    the server on this machine (for PostgreSQL, what libpq takes from `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`, ...); for
    SQLite `sessions.db` in the data folder. Raises `ConfigError` for another name.
    """
    if backend not in _DEFAULTS:
        raise ConfigError(f"no such backend: {backend!r}; there are: {', '.join(_DEFAULTS)}")
    served, names, last = _DEFAULTS[backend]
    for name in ("PRAISONAI_DB_URL", *names):
        url = os.environ.get(name)
        if url and scheme_of(url) in served:
            return url
    return last()


def _folder() -> str:
    from praisonaiagents.paths import get_sessions_dir

    return get_sessions_dir()


def _sqlite_file() -> str:
    from praisonaiagents.paths import get_data_dir

    return os.path.join(get_data_dir(), "sessions.db")


def _postgres_here() -> str:
    return "postgresql://" if os.environ.get("PGHOST") or os.environ.get("PGSERVICE") else "postgresql://localhost"


_REDIS_SCHEMES = tuple(scheme for scheme, opener in _OPENERS.items() if ".redis:" in opener)
_DEFAULTS = {
    "file": (("file",), (), _folder),
    "in_memory": (("memory",), (), lambda: "memory://"),
    "sqlite": (("sqlite",), (), _sqlite_file),
    "postgres": (("postgresql", "postgres"), ("POSTGRES_URL", "DATABASE_URL"), _postgres_here),
    "redis": (_REDIS_SCHEMES, ("REDIS_URL",), lambda: "redis://localhost:6379"),
}
BACKENDS = tuple(_DEFAULTS)


def _plugins() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {found.name: found for found in entry_points(group=ENTRY_POINTS)}
