"""From a place to the store of its sessions.

    open_store("postgresql://localhost/mydb")      the sessions in a database
    open_store()                                   those of the default place

Stores of one place share one engine, so a thousand agents over one database use one pool of connections and not a thousand.
What a reader would get wrong: `close` gives a store's share back; the engine is closed with the last of them, also when the
stores were simply forgotten.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from praisonaiagents.errors import ConfigError
from praisonaiagents.paths import get_sessions_dir
from praisonaiagents.session.store import DefaultSessionStore, SessionStore
from praisonaiagents.storage.engine import Engine
from praisonaiagents.storage.registry import open_engine, scheme_of

_LOCKING = ("file", "sqlite")
_PRIVATE = ("memory://", "sqlite://", "sqlite:///:memory:", ":memory:")
_Place = tuple[Any, ...]


def open_store(
    url: str | None = None,
    *,
    max_messages: int | None = None,
    retention: str | None = None,
    lock_timeout: float | None = None,
) -> SessionStore:
    """The store of the sessions at a storage URL. The caller closes it.

    url: see `storage.registry`; None means the default place: `PRAISONAI_DB_URL`, else JSON files in the data folder.
    max_messages, retention: as in `SessionStore`. lock_timeout: in seconds, where there is a file to lock.

    Nothing is opened before the first call. Raises `UnknownEngine`, `ConfigError`, `MissingDependency`.
    """
    engine, give_back = borrow(url or default_place(), lock_timeout)
    try:
        return SessionStore(engine, max_messages=max_messages, retention=retention, on_close=give_back)
    except ConfigError:
        give_back()
        raise


def borrow(url: str, lock_timeout: float | None = None) -> tuple[Engine, Callable[[], object]]:
    """The engine of a place, and what gives it back, to be called once."""
    options = {} if lock_timeout is None or scheme_of(url) not in _LOCKING else {"lock_timeout_s": lock_timeout}
    if is_private(url):
        engine = open_engine(url, **options)
        return engine, engine.close
    place: _Place = (url, os.getcwd(), *sorted(options.items()))
    return _borrow(place, url, options), partial(_give_back, place)


def is_private(url: str) -> bool:
    """True if nobody else can open the same place: it is in the memory of this process."""
    return url in _PRIVATE


def default_place() -> str:
    """The URL of the place that is used where none is named: `PRAISONAI_DB_URL`, else the folder of session files."""
    return os.environ.get("PRAISONAI_DB_URL") or get_sessions_dir()


_engines: dict[_Place, tuple[Engine, int]] = {}
_lock = threading.RLock()  # a store may be forgotten, and given back, at any moment of the thread that holds it


def _borrow(place: _Place, url: str, options: dict[str, Any]) -> Engine:
    with _lock:
        engine, users = _engines.get(place) or (open_engine(url, **options), 0)
        _engines[place] = engine, users + 1
        return engine


def _give_back(place: _Place) -> None:
    with _lock:
        engine, users = _engines[place]
        if users > 1:
            _engines[place] = engine, users - 1
            return
        del _engines[place]
    engine.close()


class Defaults(NamedTuple):
    """What the environment says of the default place."""

    url: str | None
    sessions_dir: str
    retention: str | None
    max_messages: int | None


def defaults() -> Defaults:
    """What the environment says now. Raises `ConfigError` for a value that makes no sense."""
    bound = os.environ.get("PRAISONAI_SESSION_ACTIVE_WINDOW") or None
    if bound is not None and not bound.isdecimal():
        raise ConfigError(f"PRAISONAI_SESSION_ACTIVE_WINDOW is a number of messages, not {bound!r}")
    retention = os.environ.get("PRAISONAI_SESSION_RETENTION") or None
    return Defaults(os.environ.get("PRAISONAI_DB_URL"), get_sessions_dir(), retention, int(bound) if bound else None)


_default: tuple[Defaults, SessionStore] | None = None


def get_default_session_store() -> SessionStore:
    """The store of the default place, one for the whole process: `PRAISONAI_DB_URL`, else a `DefaultSessionStore`.

    `PRAISONAI_DB_URL`, `PRAISONAI_HOME`, `PRAISONAI_SESSION_RETENTION` and `PRAISONAI_SESSION_ACTIVE_WINDOW` (a number of
    messages) are read each time; where they changed, there is a new store. Raises `ConfigError` for values that make no sense.
    """
    global _default
    settings = defaults()
    if _default is None or _default[0] != settings:
        url, _, retention, max_messages = settings
        if url:
            store = open_store(url, retention=retention, max_messages=max_messages)
        else:
            store = DefaultSessionStore(retention=retention, max_messages=max_messages)
        _default = settings, store
    return _default[1]
