"""From a URL to the engine that serves it.

    file:///absolute/folder      JSON files, one a session (a plain path without a scheme means the same)
    memory://                    this process only

An engine is imported when its URL is first opened, never before, so that a driver nobody uses costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from praisonaiagents.errors import ConfigError, UnknownEngine
from praisonaiagents.storage.engine import Engine

_OPENERS = {
    "file": "praisonaiagents.storage.registry:_open_folder",
    "memory": "praisonaiagents.storage.registry:_open_memory",
}


def schemes() -> tuple[str, ...]:
    """The URL schemes that can be opened."""
    return tuple(sorted(_OPENERS))


def check_url(url: str) -> str:
    """Return the URL's scheme if an engine serves it. Opens and imports nothing. Raises `UnknownEngine`, `ConfigError`."""
    if not isinstance(url, str) or not url:
        raise ConfigError(f"a storage URL is text such as 'file:///path', not {type(url).__name__}")
    scheme = url.partition("://")[0] if "://" in url else "file"
    if scheme not in _OPENERS:
        raise UnknownEngine(scheme, schemes())
    return scheme


def open_engine(url: str, **options: Any) -> Engine:
    """Open the engine for a URL. `options` are the engine's own keyword arguments. The caller closes it.

    Raises `UnknownEngine` for a scheme nobody serves, `ConfigError` for a URL that makes no sense.
    """
    module, _, name = _OPENERS[check_url(url)].partition(":")
    engine: Engine = getattr(import_module(module), name)(url, **options)
    return engine


def _open_folder(url: str, **options: Any) -> Engine:
    from urllib.parse import unquote, urlsplit

    from praisonaiagents.storage.jsonfile import JsonFileEngine

    parts = urlsplit(url)
    if parts.scheme and parts.netloc not in ("", "localhost"):
        raise ConfigError(f"a file URL has three slashes: file:///{parts.netloc}{parts.path}")
    return JsonFileEngine(unquote(parts.path) if parts.scheme else url, **options)


def _open_memory(url: str, **options: Any) -> Engine:
    from praisonaiagents.storage.memory import MemoryEngine

    return MemoryEngine(**options)
