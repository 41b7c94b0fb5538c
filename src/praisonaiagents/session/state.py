"""State: the JSON values that a program keeps beside a conversation, and who shares them.

    scope        shared by                                          kept in
    "session"    everybody who opens this session of this user      the session's record
    "user"       all sessions of the user                           a record of the user's own
    "app"        all users of the place where sessions are stored   a record of the application's own
    "temp"       nobody: it ends with the `Session` object          this process

A scope is an argument and not a prefix of the key, so that any key, also `user:name`, is stored as it is. What a reader would
get wrong: a change of one key replaces the whole record, but only if nobody else changed it meanwhile, and is done again if
somebody did. So changes of different keys never undo each other, and increments of one key all count. What is told back is a
copy: changing it changes nothing that is kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import msgspec

from praisonaiagents.errors import (
    ConfigError,
    ConfigTypeError,
    Conflict,
    NotReplicated,
    OutcomeUnknown,
    SessionNotFound,
    StateConflict,
)
from praisonaiagents.model.record import APP_USER, STATE_SESSION, Key, Record, check_values, conversation_key
from praisonaiagents.session.retry import retry_on_conflict
from praisonaiagents.storage.engine import Engine

Scope = Literal["session", "user", "app", "temp"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ANYTHING: Any = object()
"""As `expected`: whatever there is."""

_TRIES = 1_000  # of a change that others are faster with each time
_State = dict[str, Any]


class States:
    """The states that one session of one user sees. `engine` is asked for with each call; it stays the caller's.

    Raises, as every method here may: `InvalidMessage` for a value that JSON cannot hold exactly, `StorageError`.
    """

    def __init__(self, engine: Callable[[], Engine], session_id: str, user_id: str | None = None) -> None:
        own = conversation_key(session_id, user_id)
        self._engine = engine
        self._keys = {
            "session": own,
            "user": Key(own.user_id, STATE_SESSION),
            "app": Key(APP_USER, STATE_SESSION),
        }
        self._temp: _State = {}
        self._lock = threading.Lock()

    def all(self, scope: Scope = "session") -> _State:
        """The whole state; empty if there is none."""
        if _checked(scope) == "temp":
            return _copy(self._temp)
        record = self._engine().get(self._keys[scope])
        return _copy(record.state) if record else {}

    def get(self, key: str, default: Any = None, scope: Scope = "session") -> Any:
        """One value."""
        _check_key(key)
        return self.all(scope).get(key, default)

    def replace(self, state: Mapping[str, Any], scope: Scope = "session") -> None:
        """Make this the whole state. Of several at once the last wins."""
        if not isinstance(state, Mapping):
            raise ConfigTypeError(f"a state is a dict of JSON values, not {type(state).__name__}")
        new = dict(state)
        self._change(scope, lambda _: new, may_repeat=True)

    def set(self, key: str, value: Any, scope: Scope = "session", *, expected: Any = ANYTHING) -> None:
        """Set one value. With `expected`, only if that is the value now (None: also if there is none); else `StateConflict`."""
        _check_key(key)

        def changed(state: _State) -> _State:
            if expected is not ANYTHING and not _equal(state.get(key), expected):
                raise StateConflict(key, state.get(key))
            return state | {key: value}

        self._change(scope, changed, may_repeat=expected is ANYTHING)

    def increment(self, key: str, by: float = 1, default: float = 0, scope: Scope = "session") -> Any:
        """Add a number to a value, `default` if there is none, in one step however many others do; return the sum.

        Raises `ConfigTypeError` if one of them is no number, `OutcomeUnknown` if a connection broke and it cannot be told
        whether the increment counted.
        """
        _check_key(key)
        for name, number in (("increment", by), ("default", default)):
            if not _is_number(number):
                raise ConfigTypeError(f"{name} is a number, not {type(number).__name__}")

        def changed(state: _State) -> _State:
            before = state.get(key, default)
            if not _is_number(before):
                raise ConfigTypeError(f"the value of {key!r} is no number but {type(before).__name__}")
            try:
                return state | {key: before + by}
            except OverflowError:
                raise ConfigError(f"the sum is too large for the value of {key!r}") from None

        return self._change(scope, changed, may_repeat=False)[key]

    def delete(self, key: str, scope: Scope = "session") -> bool:
        """Remove one value. False if there was none."""
        _check_key(key)
        there = key in self.all(scope)
        if there:
            self._change(
                scope, lambda state: {name: value for name, value in state.items() if name != key}, may_repeat=True
            )
        return there

    def _change(self, scope: Scope, change: Callable[[_State], _State], *, may_repeat: bool) -> _State:
        if _checked(scope) == "temp":
            with self._lock:
                new = change(_copy(self._temp))
                check_values({"state": new})
                self._temp = _copy(new)
                return new
        return self._stored(self._keys[scope], change, may_repeat)

    def _stored(self, key: Key, change: Callable[[_State], _State], may_repeat: bool) -> _State:
        """Store what `change` makes of the state. Where the answer got lost, look whether it happened."""
        engine = self._engine()
        unknown: list[OutcomeUnknown] = []

        def attempt() -> _State:
            record = engine.get(key) or engine.open_session(Record(*key))
            if unknown and not may_repeat and record.revision != asked[0]:
                raise unknown[0]
            asked[0] = record.revision
            new = change(record.state)
            try:
                engine.update(key, {"state": new}, expected_revision=record.revision)
            except SessionNotFound:
                raise Conflict("revision of the state", record.revision, 0) from None  # deleted meanwhile
            except NotReplicated:
                raise
            except OutcomeUnknown as exc:
                if unknown:
                    raise
                unknown.append(exc)
                return attempt()
            return new

        asked = [0]
        return retry_on_conflict(attempt, tries=_TRIES)


def _checked(scope: object) -> object:
    if scope not in SCOPES:
        raise ConfigError(f"a scope is one of {', '.join(SCOPES)}, not {scope!r}")
    return scope


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise ConfigTypeError(f"a key of a state is text, not {type(key).__name__}")


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _equal(value: Any, other: Any) -> bool:
    """Equal as JSON: 1, 1.0 and true are three values."""
    try:
        return msgspec.json.encode(value, order="sorted") == msgspec.json.encode(other, order="sorted")
    except (TypeError, ValueError):
        return False


def _copy(state: _State) -> _State:
    copy: _State = msgspec.json.decode(msgspec.json.encode(state))
    return copy
