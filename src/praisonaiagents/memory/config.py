"""What `memory=` may be, and what each form means.

    None, False             the conversation lives in this process
    True, "file"            the same, until long-term memory is configured
    {"session_id": "..."}   the conversation is kept in a session; `MemoryConfig` says the same with names a type checker knows
    "chat", "session", "history"    kept in a session whose id comes from the agent's name and the project's folder
    "sqlite", "postgres", "redis"   kept in a new session in that database
    "sqlite:///mine.db"     kept in a new session at that place
    an object               with `search` and `add`: the agent's memory; with hooks such as `on_user_message`: a database adapter

`resolve` turns each into a `MemoryConfig` and refuses everything else, at once and by name: a misspelt option that is
silently ignored is a conversation lost.

What a reader would get wrong: a configuration holds no place but the one that `db` names. `backend` is looked up, and
`PRAISONAI_DB_URL` read, when the first turn asks (`MemoryConfig.url`), so that a program may set them after it made the agent.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable
from typing import Any

import msgspec

from praisonaiagents.errors import ConfigError, ConfigTypeError
from praisonaiagents.memory.null import ForeignMemory, NullMemory
from praisonaiagents.model.ids import check_session_id, check_user_id
from praisonaiagents.storage.registry import BACKENDS, check_url, default_url

RETENTIONS = ("keep_all", "truncate", "archive", "compact")
DATABASES = ("sqlite", "redis", "postgres")
_BACKEND_NAMES = {
    "none": "in_memory",
    "memory": "in_memory",
    "json": "file",
    "postgresql": "postgres",
    "pg": "postgres",
    "valkey": "redis",
}
_WORD = re.compile(r"[\w -]*")
_PRESETS: dict[str, dict[str, Any]] = {
    "history": {"history": True, "history_limit": 10},
    "session": {"history": True, "history_limit": 10},
    "chat": {"history": True, "history_limit": 20},
}


class AutoMemoryPending(UserWarning):
    """`auto_memory=True` was accepted, but this version extracts nothing yet."""


class MemoryConfig(msgspec.Struct, frozen=True):
    """How an agent remembers.

    backend: where sessions are kept: "file", "sqlite", "redis", "postgres" or "in_memory"; None: the default place, that is
        `PRAISONAI_DB_URL`, else JSON files. Which server or file it is comes from the environment (`registry.default_url`).
    session_id: the session that keeps the conversation; None: it ends with the process.
    user_id: whose session it is. Two users never see each other's, also under the same session id.
    db: a storage URL, see `storage.registry`, or an adapter of your own, see `session.dbadapter`; it wins over `backend`.
    auto_memory: extract what is worth remembering from the conversation. Accepted; nothing is extracted yet.
    history: keep the conversation in a session whose id comes from the agent's name and the project's folder.
    history_limit: with `history`, how many of the last messages the model is sent.
    max_messages: how many messages the session keeps; older turns are removed. None: all.
    retention: what becomes of older turns, with `max_messages`: "truncate" (removed, the default), "archive", "keep_all" (only
        not sent), or "compact": the model sums them up, is sent the summary in their place, and they move to the archive.
    compact_at: about how many tokens of conversation the model is sent; beyond, it sums up the older part. None: no bound.
        The estimate is `session.compaction.estimate_tokens`; nothing is removed.
    keep_last: how many of the last messages a summary leaves as they are. Default: half of what `compact_at` or
        `max_messages` allows; that is also the most.
    lock_timeout: how long a call waits for another process that writes to the session, in seconds.
    """

    backend: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    auto_memory: bool = False
    db: Any = None
    history: bool = False
    history_limit: int = 10
    max_messages: int | None = None
    lock_timeout: float = 5.0
    retention: str | None = None
    compact_at: int | None = None
    keep_last: int | None = None

    def __post_init__(self) -> None:
        if self.backend is not None:
            msgspec.structs.force_setattr(self, "backend", _check_backend(self.backend))
        if self.session_id is not None:
            check_session_id(self.session_id)
        check_user_id(self.user_id)
        if self.db is not None:
            _check_db(self.db)
        for name in ("auto_memory", "history"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigTypeError(f"{name} is True or False, not {getattr(self, name)!r}")
        _check_count("history_limit", self.history_limit)
        for name in ("max_messages", "keep_last"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        self._check_compaction()
        if isinstance(self.lock_timeout, bool) or not isinstance(self.lock_timeout, (int, float)):
            raise ConfigTypeError(f"lock_timeout is a number of seconds, not {self.lock_timeout!r}")
        if not 0 <= self.lock_timeout < math.inf:
            raise ConfigError(f"lock_timeout is a number of seconds from 0, not {self.lock_timeout}")

    def _check_compaction(self) -> None:
        if self.retention not in (None, *RETENTIONS):
            raise ConfigError(f"retention is one of {', '.join(RETENTIONS)}, not {self.retention!r}")
        if self.retention == "compact" and self.max_messages is None:
            raise ConfigError("retention='compact' needs max_messages: how many messages the session shows")
        if self.compact_at is not None:
            _check_count("compact_at", self.compact_at, "tokens")

    def url(self) -> str | None:
        """The storage URL or path of the place where sessions are kept; None: the default place.

        Looked up anew each time. Raises `ConfigError` if a variable of the environment makes no sense.
        """
        if self.db is not None or self.backend is None:
            return self.db if isinstance(self.db, str) else None
        if self.backend == "file" and not os.environ.get("PRAISONAI_DB_URL"):
            return None  # they are the default place
        return default_url(self.backend)

    @property
    def place(self) -> Any:
        """The object of `praisonaiagents.db` that says where sessions are kept, as a URL does; None if `db` is none."""
        return self.db if getattr(self.db, "is_place", False) is True else None

    @property
    def adapter(self) -> Any:
        """The database adapter that is told of the conversation; None if `db` is none."""
        return None if isinstance(self.db, str) or self.place is not None else self.db

    @property
    def in_database(self) -> bool:
        """True if a database was asked for, or a place by its URL: then the conversation is kept, whether or not a session
        was named.
        """
        return self.db is not None or self.backend in DATABASES

    def to_dict(self) -> dict[str, Any]:
        """Every setting but `db`, which may hold a password, or be an object."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "db"}

    def __repr__(self) -> str:
        return f"MemoryConfig({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What `repr` shows, and `rich` too, which would show all fields of a struct: every setting, but not the URL."""
        return [*self.to_dict().items(), ("db", "..." if self.db else None)]


def resolve(memory: Any) -> tuple[MemoryConfig, Any]:
    """(the configuration that `memory=` means, the memory object). The object always has `close_connections`.

    Raises `ConfigTypeError` for a type or an option nobody knows, `ConfigError` for a value that makes no sense.
    """
    config, instance = _resolve(memory)
    if config.auto_memory:
        warnings.warn(
            "auto_memory is accepted, but this version does not extract anything yet", AutoMemoryPending, stacklevel=3
        )
    return config, instance


def with_settings(config: MemoryConfig, **settings: Any) -> MemoryConfig:
    """The configuration with the settings that are not None. Raises `ConfigError` if it says otherwise already."""
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if getattr(config, name) not in (None, value):
            raise ConfigError(f"{name} was given twice, and differently: as {name}= and in memory=")
    return msgspec.structs.replace(config, **given)


def _resolve(memory: Any) -> tuple[MemoryConfig, Any]:
    if memory is None or isinstance(memory, bool):
        return MemoryConfig(), NullMemory()
    if isinstance(memory, MemoryConfig):
        return memory, NullMemory()
    if isinstance(memory, str):
        return _of_string(memory), NullMemory()
    if isinstance(memory, dict):
        return _of_dict(memory), NullMemory()
    if isinstance(memory, (list, tuple)) and len(memory) == 1:
        return _resolve(memory[0])
    if hasattr(memory, "search") and hasattr(memory, "add"):
        return MemoryConfig(), memory if hasattr(memory, "close_connections") else ForeignMemory(memory)
    if is_adapter(memory):
        return MemoryConfig(db=memory), NullMemory()
    raise ConfigTypeError(
        f"memory= takes True, False, a name, a URL, a dict, a MemoryConfig or a memory object, not {type(memory).__name__}"
    )


def _of_string(text: str) -> MemoryConfig:
    if "://" in text:
        return MemoryConfig(db=text)
    name = text.strip().lower()
    if name in _PRESETS:
        return MemoryConfig(**_PRESETS[name])
    return MemoryConfig(backend=name)


def _of_dict(options: dict[str, Any]) -> MemoryConfig:
    known = list(MemoryConfig.__struct_fields__)
    given = dict(options)
    if "provider" in given and "backend" not in given:
        given["backend"] = given.pop("provider")
    unknown = [str(name) for name in given if name not in known]
    if unknown:
        hints = _did_you_mean(unknown, known)
        raise ConfigTypeError(f"unknown options for memory: {', '.join(unknown)}{hints}; known: {', '.join(known)}")
    return MemoryConfig(**given)


def _check_backend(backend: object) -> str:
    if not isinstance(backend, str):
        raise ConfigTypeError(f"backend is a name such as 'file', not {type(backend).__name__}")
    name = backend.strip().lower()
    name = _BACKEND_NAMES.get(name, name)
    if name not in BACKENDS:
        hint = _did_you_mean([name], [*BACKENDS, *_PRESETS])
        shown = repr(backend) if _WORD.fullmatch(name) else "what was given, which may hold a password"
        raise ConfigError(
            f"no such memory backend: {shown}{hint}; there are: {', '.join(BACKENDS)}, or a storage URL in db="
        )
    return name


def _check_count(name: str, count: object, unit: str = "messages") -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise ConfigTypeError(f"{name} is a number of {unit}, not {count!r}")
    if count < 1:
        raise ConfigError(f"{name} is a number of {unit} from 1, not {count}")


def _check_db(db: object) -> None:
    if is_adapter(db):
        return
    if not isinstance(db, str):
        raise ConfigTypeError(
            "db= takes a storage URL such as 'sqlite:///sessions.db', or an adapter with hooks such as on_user_message, "
            f"not {'the class ' + db.__name__ if isinstance(db, type) else type(db).__name__}"
        )
    check_url(db)


def is_adapter(thing: object) -> bool:
    """True if it is a database adapter: it has one of the hooks that everything an adapter does begins with."""
    names = ("on_agent_start", "on_user_message", "on_agent_message")
    hooks = (getattr(thing, each, None) for name in names for each in (name, f"a{name}"))
    return not isinstance(thing, (str, type)) and any(map(callable, hooks))


def _did_you_mean(names: Iterable[str], known: list[str]) -> str:
    import difflib

    close = [match for name in names for match in difflib.get_close_matches(name, known, n=1)]
    return f" (did you mean {' and '.join(map(repr, close))}?)" if close else ""
