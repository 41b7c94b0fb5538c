"""From the name of a backend to the adapter that keeps memories there.

    "sqlite", "file"            a SQLite file                       path (default: memory.db in the data folder)
    "chroma", "chromadb", "rag" ChromaDB, in a folder or a server   path (default: chroma in the data folder) | host, port,
                                                                    ssl, headers; collection
    "mongodb", "mongo"          a MongoDB server                    url (default: MONGODB_URL, else the server on this
                                                                    machine), database, collection
    "in_memory", "memory"       this process only

Another package adds one by an entry point of the group `praisonaiagents.memories`: its name is the backend's, its value a
function `(**settings) -> MemoryAdapter`. An adapter is imported when it is opened, never before. The backends above cannot
be replaced that way.

What a reader would get wrong: a setting may hold a password, so no error here quotes one; not even the backend, if what was
given as its name looks like anything but a name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from praisonaiagents.errors import ConfigError, ConfigTypeError
from praisonaiagents.memory.adapter import MemoryAdapter
from praisonaiagents.paths import get_data_dir
from praisonaiagents.storage.plugins import Kind, open_plugin, plugins

ENTRY_POINTS = "praisonaiagents.memories"

_ADAPTERS = Kind(ENTRY_POINTS, "memory adapter", MemoryAdapter)
_WORD = re.compile(r"[\w -]{0,40}")
_PATH: tuple[type, ...] = (str, os.PathLike)
_TEXT: tuple[type, ...] = (str,)


class _Backend(NamedTuple):
    """The adapter's class, as `module:name`; its settings and their types; other names of settings; the settings that hold
    if nothing is said.
    """

    opener: str
    settings: Mapping[str, tuple[type, ...]]
    also: Mapping[str, str]
    defaults: Callable[[Mapping[str, Any]], dict[str, Any]]


# --- names ---


def backends() -> tuple[str, ...]:
    """The backends that can be opened: ours, then those of other packages."""
    return (*BACKENDS, *sorted(set(plugins(_ADAPTERS)) - {*BACKENDS, *_ALSO}))


def check_backend(name: str) -> str:
    """The backend's own name, if there is one that is called so. Opens and imports nothing. Raises `ConfigError`."""
    if not isinstance(name, str):
        raise ConfigTypeError(f"a memory backend is a name such as 'sqlite', not {type(name).__name__}")
    plain = name.strip().lower()
    plain = _ALSO.get(plain, plain)
    if plain not in _BACKENDS and plain not in plugins(_ADAPTERS):
        shown = repr(name) if _WORD.fullmatch(name) else "what was given, which may hold a password"
        known = backends()
        hint = _did_you_mean([plain], [*known, *_ALSO])
        raise ConfigError(f"no such memory backend: {shown}{hint}; there are: {', '.join(known)}")
    return plain


def open_adapter(backend: str, config: Mapping[str, Any] | None = None) -> MemoryAdapter:
    """The adapter of a backend, see the module for the settings of each. Opens nothing; whoever asked for it closes it.

    A setting that is None counts as not given. Raises `ConfigError` for a name nobody serves, for a setting that is unknown,
    of a wrong type or makes no sense, and for an adapter of another package that does not work. A driver that is not
    installed is missed (`MissingDependency`) when the adapter is first used.
    """
    name = check_backend(backend)
    settings = {key: value for key, value in (config or {}).items() if value is not None}
    if name not in _BACKENDS:
        other: MemoryAdapter = open_plugin(_ADAPTERS, name, **settings)
        return other
    return _opened(name, _BACKENDS[name], settings)


def _opened(name: str, backend: _Backend, given: dict[str, Any]) -> MemoryAdapter:
    settings = _checked(name, backend, given)
    module, _, kind = backend.opener.partition(":")
    adapter: MemoryAdapter = getattr(import_module(module), kind)(**(backend.defaults(settings) | settings))
    return adapter


def _checked(name: str, backend: _Backend, given: dict[str, Any]) -> dict[str, Any]:
    """The settings under their own names."""
    settings: dict[str, Any] = {}
    unknown = [str(key) for key in given if key not in backend.settings and key not in backend.also]
    if unknown:
        hint = _did_you_mean(unknown, backend.settings)
        known = f"known: {', '.join(backend.settings)}" if backend.settings else "it has none"
        raise ConfigTypeError(f"unknown settings of the {name} memory: {', '.join(unknown)}{hint}; {known}")
    for key, value in given.items():
        own = backend.also.get(key, key)
        if own in settings and settings[own] != value:
            raise ConfigError(f"{own} of the {name} memory was given twice, and differently")
        _check_type(f"{key} of the {name} memory", value, backend.settings[own])
        settings[own] = value
    return settings


def _check_type(what: str, value: object, kinds: tuple[type, ...]) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = {str: "text", os.PathLike: "a path", int: "a whole number", bool: "true or false", dict: "a dict"}
        raise ConfigTypeError(f"{what} is {' or '.join(names[kind] for kind in kinds)}, not {type(value).__name__}")
    if isinstance(value, str) and not value.strip():
        raise ConfigError(f"{what} cannot be empty")


def _did_you_mean(names: Iterable[str], known: Iterable[str]) -> str:
    import difflib

    close = [match for name in names for match in difflib.get_close_matches(name, list(known), n=1)]
    return f" (did you mean {' and '.join(map(repr, close))}?)" if close else ""


# --- what there is ---


def _sqlite_file(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"path": os.path.join(get_data_dir(), "memory.db")}


def _chroma_folder(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {} if "host" in settings else {"path": os.path.join(get_data_dir(), "chroma")}


def _mongodb_here(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"url": os.environ.get("MONGODB_URL", "").strip() or "mongodb://localhost:27017"}


_SQLITE = _Backend("praisonaiagents.memory.sqlite:SqliteMemory", {"path": _PATH}, {}, _sqlite_file)
_BACKENDS = {
    "file": _SQLITE,
    "sqlite": _SQLITE,
    "chroma": _Backend(
        "praisonaiagents.memory.chroma:ChromaMemory",
        {"path": _PATH, "host": _TEXT, "port": (int,), "ssl": (bool,), "headers": (dict,), "collection": _TEXT},
        {"rag_db_path": "path", "collection_name": "collection"},
        _chroma_folder,
    ),
    "mongodb": _Backend(
        "praisonaiagents.memory.mongodb:MongoMemory",
        {"url": _TEXT, "database": _TEXT, "collection": _TEXT},
        {"connection_string": "url", "collection_name": "collection"},
        _mongodb_here,
    ),
    "in_memory": _Backend("praisonaiagents.memory.process:ProcessMemory", {}, {}, lambda settings: {}),
}
BACKENDS = tuple(_BACKENDS)
_ALSO = {"chromadb": "chroma", "rag": "chroma", "mongo": "mongodb", "memory": "in_memory"}
