"""What `memory=` may be, and what each form means.

    None, False             the conversation lives in this process
    True, "file"            the same, and what the long-term memory knows of the user is told to the model
    "chroma", "mongodb"     the same, with that memory there; also the name of another package's
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
from collections.abc import Iterable
from typing import Any

import msgspec

from praisonaiagents.errors import ConfigError, ConfigTypeError
from praisonaiagents.memory.memory import RECALL_TOKENS, Memory
from praisonaiagents.memory.null import ForeignMemory, NullMemory
from praisonaiagents.model.ids import check_session_id, check_user_id
from praisonaiagents.storage.registry import BACKENDS, check_url, default_url

RETENTIONS = ("keep_all", "truncate", "archive", "compact")
DATABASES = ("sqlite", "redis", "postgres")
_SESSIONS_ONLY = ("redis", "postgres")  # backends that keep sessions, and no memories
_SECRET = ("db", "config", "embedder")
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


class MemoryConfig(msgspec.Struct, frozen=True):
    """How an agent remembers.

    backend: where sessions are kept: "file", "sqlite", "redis", "postgres" or "in_memory"; None: the default place, that is
        `PRAISONAI_DB_URL`, else JSON files. Which server or file it is comes from the environment (`registry.default_url`).
        Or where memories rest: "chroma", "mongodb", or another of `memory.registry`; sessions stay in the default place then.
        With any of them the agent has a long-term memory, which is a SQLite file unless the backend is one of memories.
    session_id: the session that keeps the conversation; None: it ends with the process.
    user_id: whose session it is. Two users never see each other's, also under the same session id.
    db: a storage URL, see `storage.registry`, or an adapter of your own, see `session.dbadapter`; it wins over `backend`.
    auto_memory: after each turn, keep what is worth remembering of it in the long-term memory.
    config: settings of the place where memories rest, such as `{"path": "memory.db"}`, see `memory.registry`.
    embedder: finds memories by meaning too: a function from texts to vectors, or the name of a provider's model, such as
        "openai:text-embedding-3-small".
    recall_tokens: how many tokens of memories the model is told in a turn, about; 0: none.
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
    config: dict[str, Any] | None = None
    embedder: Any = None
    recall_tokens: int = RECALL_TOKENS

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
        _check_count("recall_tokens", self.recall_tokens, "tokens", least=0)
        if self.config is not None and not isinstance(self.config, dict):
            raise ConfigTypeError(f"config is a dict of settings, not {type(self.config).__name__}")
        if self.embedder is not None and not callable(self.embedder) and not isinstance(self.embedder, str):
            raise ConfigTypeError(f"embedder is a function or a model's name, not {type(self.embedder).__name__}")
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

    @property
    def has_memory(self) -> bool:
        """True if a long-term memory was asked for."""
        return self.auto_memory or self.has_place_of_its_own

    @property
    def has_place_of_its_own(self) -> bool:
        """True if it was said where memories rest or how they are found."""
        return self.backend is not None or self.config is not None or self.embedder is not None

    def to_dict(self) -> dict[str, Any]:
        """Every setting but those that may hold a password, or be an object: `db`, `config` and `embedder`."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name not in _SECRET}

    def __repr__(self) -> str:
        return f"MemoryConfig({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What `repr` shows, and `rich` too, which would show all fields of a struct: every setting, but no secrets."""
        return [*self.to_dict().items(), *((name, "..." if getattr(self, name) else None) for name in _SECRET)]


def resolve(memory: Any) -> tuple[MemoryConfig, Any]:
    """(the configuration that `memory=` means, the memory object). It has `close_connections`; None: see `memory_of`.

    Raises `ConfigTypeError` for a type or an option nobody knows, `ConfigError` for a value that makes no sense.
    """
    if memory is None or memory is False:
        return MemoryConfig(), NullMemory()
    if memory is True:
        return MemoryConfig(), None
    if isinstance(memory, (list, tuple)) and len(memory) == 1:
        return resolve(memory[0])
    if not isinstance(memory, (MemoryConfig, str, dict)) and hasattr(memory, "search") and hasattr(memory, "add"):
        return MemoryConfig(), memory if hasattr(memory, "close_connections") else ForeignMemory(memory)
    config = _config(memory)
    return config, None if config.has_memory else NullMemory()


def memory_of(config: MemoryConfig, user_id: str | None = None, session_id: str | None = None) -> Memory:
    """The long-term memory that a configuration describes, as a user (default: the configuration's) and a session see it.

    An embedder that is only named is left out: the floor above knows how to reach it.
    """
    return Memory(
        user_id or config.user_id,
        session_id or config.session_id,
        backend=config.backend if config.backend and config.backend not in _SESSIONS_ONLY else "sqlite",
        config=config.config,
        embedder=config.embedder if callable(config.embedder) else None,
        recall_tokens=config.recall_tokens,
    )


def with_settings(config: MemoryConfig, **settings: Any) -> MemoryConfig:
    """The configuration with the settings that are not None. Raises `ConfigError` if it says otherwise already."""
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if getattr(config, name) not in (None, value):
            raise ConfigError(f"{name} was given twice, and differently: as {name}= and in memory=")
    return msgspec.structs.replace(config, **given)


def _config(memory: Any) -> MemoryConfig:
    if isinstance(memory, MemoryConfig):
        return memory
    if isinstance(memory, str):
        return _of_string(memory)
    if isinstance(memory, dict):
        return _of_dict(memory)
    if is_adapter(memory):
        return MemoryConfig(db=memory)
    raise ConfigTypeError(
        f"memory= takes True, False, a name, a URL, a dict, a MemoryConfig or a memory object, not {type(memory).__name__}"
    )


def _of_string(text: str) -> MemoryConfig:
    if text.startswith(("mongodb://", "mongodb+srv://")):
        return MemoryConfig(backend="mongodb", config={"url": text})
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
    if name in BACKENDS:
        return name
    from praisonaiagents.memory.registry import backends, check_backend

    try:
        return check_backend(name)
    except ConfigError:
        known = tuple(dict.fromkeys([*BACKENDS, *backends()]))
        hint = _did_you_mean([name], [*known, *_PRESETS])
        shown = repr(backend) if _WORD.fullmatch(name) else "what was given, which may hold a password"
        raise ConfigError(
            f"no such memory backend: {shown}{hint}; there are: {', '.join(known)}, or a storage URL in db="
        ) from None


def _check_count(name: str, count: object, unit: str = "messages", least: int = 1) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise ConfigTypeError(f"{name} is a number of {unit}, not {count!r}")
    if count < least:
        raise ConfigError(f"{name} is a number of {unit} from {least}, not {count}")


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
