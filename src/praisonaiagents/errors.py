"""Every error this package raises on purpose, as one tree.

    PraisonError
    ├── InvalidId              (ValueError)       a session or user id that cannot name a session
    │   └── InvalidIdType      (TypeError)        ... because it is not text at all
    ├── InvalidMessage         (ValueError)       a message that could not be stored exactly as given
    │   ├── MessageTooLarge                       ... because it is over the size limit
    │   └── MessageIdConflict                     ... because its id belongs to another message already
    ├── ConfigError            (ValueError)       a setting that makes no sense
    │   ├── ConfigTypeError    (TypeError)        ... a wrong type, or a name that no setting has
    │   └── UnknownEngine                         ... a storage URL whose scheme no engine serves
    ├── MissingDependency      (ImportError)      an optional package is not installed
    ├── SessionNotFound        (LookupError)      no such session
    ├── SessionExists          (ValueError)       a session that had to be new is there already
    ├── PointNotFound          (LookupError)      no such snapshot, earlier head or message of a session
    ├── MergeRefused           (ValueError)       nothing to merge, or it would tear a tool call from its result
    ├── AmbiguousSession       (LookupError)      several users own this session id, and none was named
    ├── Conflict               (RuntimeError)     somebody else wrote first
    ├── StateConflict          (RuntimeError)     a value of the state is not the expected one
    ├── StorageError           (OSError)          the place where bytes rest refused
    │   ├── LockTimeout        (TimeoutError)     another process holds the session's lock
    │   ├── StorageFull                           no room left; nothing was stored
    │   ├── NotASessionFile                       something else lies where the session should be
    │   ├── NewerFormat                           written by a newer version of this package
    │   ├── AdapterFailed                         an adapter of the user's own raised before the model was asked
    │   └── EngineUnreachable  (ConnectionError)  no connection to the server; nothing was stored
    ├── OutcomeUnknown         (ConnectionError)  the connection broke before the answer came
    │   └── NotReplicated                         stored, but on fewer servers than were asked for
    ├── RemoteError            (ConnectionError)  an agent on another machine could not be asked
    │   ├── RemoteTimeout      (TimeoutError)     ... because it did not answer in time
    │   ├── RemoteRefused                         ... because it answered with an error
    │   └── RemoteUnsupported                     ... because its server does not offer that
    └── ModelError             (RuntimeError)     the language model did not answer
        └── ModelUnreachable   (ConnectionError)  ... because nothing could be reached at its address

    SessionDamage              (UserWarning)      part of a stored session could not be read, and was set aside
    HookFailed                 (UserWarning)      an adapter of the user's own raised after the model had answered

Each is also a child of the built-in error a Python reader would expect, and carries fields besides its text. No message
text, key or password ever appears in one.
"""

from __future__ import annotations

from typing import Any


class PraisonError(Exception):
    """The root of every error this package raises on purpose. It keeps its fields on the way to another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class InvalidId(PraisonError, ValueError):
    """A session id or user id that cannot name a session: empty, too long, or with characters no file can hold."""


class InvalidIdType(InvalidId, TypeError):
    """A session id or user id that is not a string."""


class InvalidMessage(PraisonError, ValueError):
    """A message that could not be stored and read back exactly as given. Nothing was stored."""


class MessageTooLarge(InvalidMessage):
    """A message above the size limit. `size` and `limit` are bytes of its stored form."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the message takes {size:,} bytes, the limit is {limit:,}: store large data in a file and keep its path "
            "in the message, or raise max_message_bytes"
        )
        self.size = size
        self.limit = limit


class MessageIdConflict(InvalidMessage):
    """A different message is stored under the same message id already. `message_id` names it."""

    def __init__(self, message_id: str) -> None:
        super().__init__(f"another message is stored under the id {message_id!r} already")
        self.message_id = message_id


class ConfigError(PraisonError, ValueError):
    """A setting that makes no sense. The text names the setting and what it accepts."""


class ConfigTypeError(ConfigError, TypeError):
    """A setting of the wrong type, or a name that no setting has."""


class UnknownEngine(ConfigError):
    """A storage URL whose scheme no engine serves. `scheme` is what was asked for, `known` what there is."""

    def __init__(self, scheme: str, known: tuple[str, ...], hint: str = "") -> None:
        super().__init__(f"no storage engine serves {scheme!r}; known: {', '.join(known)}{'. ' if hint else ''}{hint}")
        self.scheme = scheme
        self.known = known


class MissingDependency(PraisonError, ImportError):
    """An optional package is not installed. `extra` is the name to install it by."""

    def __init__(self, what: str, extra: str, package: str = "praisonaiagents") -> None:
        super().__init__(f"{what} needs an optional package: pip install '{package}[{extra}]'")
        self.extra = extra


class SessionNotFound(PraisonError, LookupError):
    """No such session. `similar` are existing ids that look like the one asked for."""

    def __init__(self, session_id: str, user_id: str | None = None, similar: tuple[str, ...] = ()) -> None:
        whose = f" of user {user_id!r}" if user_id else ""
        hint = f"; did you mean {' or '.join(map(repr, similar))}?" if similar else ""
        super().__init__(f"session {session_id!r}{whose} not found{hint}")
        self.session_id = session_id
        self.user_id = user_id
        self.similar = similar


class SessionExists(PraisonError, ValueError):
    """A session that had to be new is there already. It was left as it is."""

    def __init__(self, session_id: str, user_id: str, hint: str = "") -> None:
        super().__init__(f"session {session_id!r} of user {user_id!r} exists already{'; ' if hint else ''}{hint}")
        self.session_id = session_id
        self.user_id = user_id


class PointNotFound(PraisonError, LookupError):
    """A text that names no point of a session, or several: then `candidates` are the ids of those snapshots."""

    def __init__(self, session_id: str, ref: str, candidates: tuple[str, ...] = ()) -> None:
        several = f"{ref!r} names {len(candidates)} snapshots: {', '.join(candidates)}"
        what = several if candidates else f"nothing is called {ref!r}"
        super().__init__(f"in session {session_id!r} {what}")
        self.session_id = session_id
        self.ref = ref
        self.candidates = candidates


class MergeRefused(PraisonError, ValueError):
    """One session was not merged into another: there is nothing to merge, or a tool call would lose its result."""


class AmbiguousSession(PraisonError, LookupError):
    """Several users own a session of this id, and the caller named none. `owners` are their user ids."""

    def __init__(self, session_id: str, owners: tuple[str, ...]) -> None:
        super().__init__(
            f"session {session_id!r} belongs to {len(owners)} users: {', '.join(map(repr, owners))}; say which with "
            "user_id= (on the command line: --user)"
        )
        self.session_id = session_id
        self.owners = owners


class Conflict(PraisonError, RuntimeError):
    """Somebody else wrote first: the caller expected `expected`, the store holds `found`. Nothing was stored."""

    def __init__(self, what: str, expected: int, found: int) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}; read again and repeat")
        self.expected = expected
        self.found = found


class StateConflict(PraisonError, RuntimeError):
    """A value of the state was not the one that the caller expected. Nothing was changed. `found` is the value there is."""

    def __init__(self, key: str, found: Any) -> None:
        super().__init__(f"the value of {key!r} is another than was expected; read again and repeat")
        self.key = key
        self.found = found


class StorageError(PraisonError, OSError):
    """The place where bytes rest refused. `path` says where, `__cause__` holds the system's own error."""

    def __init__(self, text: str, path: str | None = None) -> None:
        super().__init__(text)
        self.path = path


class LockTimeout(StorageError, TimeoutError):
    """Another process or thread held the session's lock all the time. `waited_s` is in seconds."""

    def __init__(self, path: str, waited_s: float, holder: str | None = None) -> None:
        by = f" (held by {holder})" if holder else ""
        super().__init__(
            f"could not lock {path} within {waited_s:.1f} s{by}: another process is writing to this session; raise "
            "lock_timeout or end that process",
            path,
        )
        self.waited_s = waited_s
        self.holder = holder


class StorageFull(StorageError):
    """No room left: disk full, quota or file size limit. Nothing was stored, what was stored before reads back."""


class NotASessionFile(StorageError):
    """Something else lies where the session's file should be. It was left alone."""


class NewerFormat(StorageError):
    """The session, or the whole database, was written by a newer version of this package. It was left alone."""


class AdapterFailed(StorageError):
    """A hook of the user's own database adapter raised before the model was asked. The turn did not take place.

    `hook` is the method's name, `adapter` the adapter's class, `__cause__` the adapter's own error.
    """

    def __init__(self, adapter: str, hook: str, why: str) -> None:
        super().__init__(f"{hook} of the database adapter {adapter} failed: {why}; the model was not asked")
        self.adapter = adapter
        self.hook = hook


class EngineUnreachable(StorageError, ConnectionError):
    """No connection to the server, or it would not let us in. Nothing was stored. `path` is its address, without a password."""


class OutcomeUnknown(PraisonError, ConnectionError):
    """The connection broke before the answer came. Repeating the call with the same `message_ids` is safe."""

    def __init__(self, text: str, message_ids: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.message_ids = message_ids


class NotReplicated(OutcomeUnknown):
    """What was written is stored, but fewer replicas confirmed it in time than were asked for: a failover may lose it.

    `replicas` is how many did, `wanted` how many were asked for. Repeating the call is safe, as for `OutcomeUnknown`.
    """

    def __init__(self, replicas: int, wanted: int, message_ids: tuple[str, ...] = ()) -> None:
        super().__init__(f"stored, but confirmed by {replicas} of {wanted} replicas in time", message_ids)
        self.replicas = replicas
        self.wanted = wanted


class RemoteError(PraisonError, ConnectionError):
    """An agent on another machine could not be asked, or its answer did not come whole.

    `url` is its address, without a password. `idempotency_key` is there if the turn may have taken place, and the server knows
    such keys: pass it to `chat` with the same message, and you hear what became of that turn. `status` is the HTTP status.
    """

    def __init__(
        self, text: str, url: str = "", idempotency_key: str | None = None, *, status: int | None = None
    ) -> None:
        super().__init__(text)
        self.url = url
        self.idempotency_key = idempotency_key
        self.status = status


class RemoteTimeout(RemoteError, TimeoutError):
    """An agent on another machine did not answer within `timeout`. A turn that was begun goes on there."""


class RemoteRefused(RemoteError):
    """An agent on another machine answered, with an error of the HTTP status `status`."""


class RemoteUnsupported(RemoteError):
    """The server of an agent on another machine does not offer this; it may be of another make."""


class ModelError(PraisonError, RuntimeError):
    """The language model did not answer. The turn is kept in the session, marked failed. `status` is the HTTP status."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class ModelUnreachable(ModelError, ConnectionError):
    """Nothing could be reached at the language model's address."""


class SessionDamage(UserWarning):
    """Part of a stored session could not be read. Everything around it was kept; the bytes were set aside.

    `path` is the session's file, `set_aside` the file that now holds what could not be read (None where the folder can't
    be written), `messages` how many whole messages were kept.
    """

    def __init__(self, path: str, set_aside: str | None, messages: int, what: str) -> None:
        where = f"set aside in {set_aside}" if set_aside else "left in place"
        super().__init__(f"{path}: {what}; {messages} messages kept, the unreadable bytes were {where}")
        self.path = path
        self.set_aside = set_aside
        self.messages = messages

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class HookFailed(UserWarning):
    """A hook of the user's own database adapter raised when the model had answered already: the answer is not lost.

    `hook` is the method's name, `adapter` the adapter's class, `session_id` whose, `__cause__` the adapter's own error.
    """

    def __init__(self, adapter: str, hook: str, session_id: str, why: str, during: str) -> None:
        super().__init__(
            f"{hook} of the database adapter {adapter} failed in {during} of session {session_id!r}: {why}; the agent goes on"
        )
        self.adapter = adapter
        self.hook = hook
        self.session_id = session_id

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], fields: dict[str, Any]) -> BaseException:
    """An error as it was, without its constructor, which takes fields and not the text made from them."""
    builtin = max((base for base in kind.__mro__ if base.__module__ == "builtins"), key=lambda base: base.__basicsize__)
    error: BaseException = builtin.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error
