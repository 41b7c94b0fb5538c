"""What a session is, besides its messages.

A record is a small value that changes rarely: titles, state, owner, where its history starts. Nothing is written to it
per turn. `log`, `length` and `updated_at` are the engine's: it fills them in when it hands a record out, and ignores them
when it is given one.

A session shows one history at a time, and can hold on to others by name: its pins. What a reader would get wrong: a pin is
no copy and no bare index. It names messages of one log, which only grows, so it shows the same ones for ever.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from praisonaiagents.errors import InvalidId, InvalidMessage
from praisonaiagents.model.ids import DEFAULT_USER, check_session_id, check_user_id
from praisonaiagents.model.message import check_json


class Key(NamedTuple):
    """The identity of a session. Two users with the same session id have two sessions."""

    user_id: str
    session_id: str


STATE_SESSION = "praisonai:state"
APP_USER = "praisonai:app"


def is_state(key: Key) -> bool:
    """True if there is no conversation under this key, but the state of a user, or (of `APP_USER`) of the application."""
    return key.session_id == STATE_SESSION or key.user_id == APP_USER


def conversation_key(session_id: object, user_id: object) -> Key:
    """The key of a conversation. Raises `InvalidId` for ids that name none, those under which state is kept too."""
    key = Key(check_user_id(user_id), check_session_id(session_id))
    if is_state(key):
        raise InvalidId(f"no session is called {STATE_SESSION!r} and no user {APP_USER!r}: state is kept there")
    return key


class Pin(msgspec.Struct, frozen=True, omit_defaults=True):
    """A history that is held on to: messages `start` to `length` (exclusive) of the log `log`.

    info: the caller's own JSON object, such as a label and a time.
    """

    log: str
    start: int
    length: int
    info: dict[str, Any] = {}


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One session without its messages.

    created_at, updated_at: seconds since 1970, UTC.
    start: number of the first visible message; what lies before it is archived or gone.
    length: number of the message that would come next, so `length - start` messages are visible.
    log: which log the history is in, in the engine's own words. While it stays the same, message numbers mean the same.
    pins: other histories that the session holds on to, by name.
    revision: counts the changes of this record, not the messages; compare it to notice somebody else's change.
    state: the session's own JSON object for the caller. metadata: title, tags and the like.
    extra: top-level keys this version does not know, as they were found; none of `RESERVED`.
    """

    user_id: str
    session_id: str
    created_at: float = 0.0
    agent_name: str | None = None
    metadata: dict[str, Any] = {}
    state: dict[str, Any] = {}
    start: int = 0
    revision: int = 0
    extra: dict[str, Any] = {}
    length: int = 0
    updated_at: float = 0.0
    log: str = ""
    pins: dict[str, Pin] = {}

    @property
    def key(self) -> Key:
        return Key(self.user_id, self.session_id)

    @property
    def message_count(self) -> int:
        """How many messages are visible."""
        return self.length - self.start

    @property
    def head(self) -> Pin:
        """The history that is shown, as a pin that would hold on to it."""
        return Pin(self.log, self.start, self.length)


_TYPES: dict[str, tuple[type, ...]] = {
    "agent_name": (str, type(None)),
    "metadata": (dict,),
    "state": (dict,),
    "start": (int,),
    "extra": (dict,),
    "pins": (dict,),
    "keep": (dict,),
    "head": (Pin,),
}
PATCHABLE = frozenset(_TYPES)
RESERVED = frozenset(
    {
        "session_id",
        "user_id",
        "storage",
        "agent_name",
        "created_at",
        "metadata",
        "state",
        "archived_messages",
        "messages",
        "message_count",
        "updated_at",
        "pins",
        "logs",
    }
)
"""The top-level keys of a session that has been written out, which `extra` therefore cannot hold."""

_YEAR_9999_S = 253_370_764_800  # the last year that ISO 8601 and `datetime` know


def patched(record: Record, patch: dict[str, Any], *, oldest: int) -> Record:
    """`record` with the fields of `patch` replaced and its revision counted up. `oldest` is its first message still there.

    `start` only moves forward, so that of two callers who trim at the same time the one who knows less undoes nothing.
    With "head" in the patch, `start` and `length` become that pin's, and `log` becomes "": the engine names the new one.
    "keep" is pins by name and info, of all that the session shows at this very moment, whatever others appended meanwhile,
    and of its archive; `info["start"]` becomes the number of the first visible message.
    Raises `InvalidMessage` for a field that is not in `PATCHABLE`, or a value that it cannot hold.
    """
    if not patch.keys() <= PATCHABLE:
        raise InvalidMessage(f"not a field that can be changed: {', '.join(sorted(patch.keys() - PATCHABLE))}")
    check_values(patch)
    for pin in (*patch.get("pins", {}).values(), *([patch["head"]] if "head" in patch else ())):
        check_reachable(record, pin, oldest=oldest)
    fields = {name: value for name, value in patch.items() if name not in ("head", "keep")}
    fields["revision"] = record.revision + 1
    if "keep" in patch:
        fields["pins"] = patch.get("pins", record.pins) | {
            name: Pin(record.log, oldest, record.length, info | {"start": record.start})
            for name, info in patch["keep"].items()
        }
    if "head" in patch:
        if "start" in patch:
            raise InvalidMessage("start and head cannot change in one step: a head brings its own start")
        fields |= {"log": "", "start": patch["head"].start, "length": patch["head"].length}
        return msgspec.structs.replace(record, **fields)
    start = patch.get("start", record.start)
    if not 0 <= start <= record.length:
        raise InvalidMessage(f"start is a message number up to {record.length}, not {start}")
    return msgspec.structs.replace(record, **(fields | {"start": max(start, record.start)}))


def check_reachable(record: Record, pin: Pin, *, oldest: int) -> None:
    """Raise `InvalidMessage` unless all messages of `pin` are held by the session: by its head or by one of its pins."""
    held = [Pin(record.log, oldest, record.length), *record.pins.values()]
    if not any(view.log == pin.log and view.start <= pin.start <= pin.length <= view.length for view in held):
        raise InvalidMessage(f"messages {pin.start} to {pin.length} of log {pin.log!r} are not held by the session")


def check_record(record: Record) -> None:
    """Raise `InvalidId` or `InvalidMessage` unless a session can be made of `record` and read back exactly."""
    check_session_id(record.session_id)
    if check_user_id(record.user_id) != record.user_id:
        raise InvalidId(f"the user id of a record cannot be empty; a session of no user belongs to {DEFAULT_USER!r}")
    if type(record.created_at) not in (int, float) or not 0 <= record.created_at < _YEAR_9999_S:
        raise InvalidMessage("created_at is a time in seconds since 1970")
    check_values({key: getattr(record, key) for key in ("agent_name", "metadata", "state", "extra")})


def check_values(values: dict[str, Any]) -> None:
    """Raise `InvalidMessage` unless the fields of a record in `values` can be stored as JSON and read back exactly."""
    for key, value in values.items():
        if type(value) not in _TYPES[key]:
            raise InvalidMessage(f"{key} cannot be {type(value).__name__}")
    _check_pins(values)
    values = {key: value for key, value in values.items() if key not in ("pins", "keep", "head")}
    check_json(values, "record")
    if reserved := RESERVED & values.get("extra", {}).keys():
        raise InvalidMessage(f"extra cannot hold {', '.join(sorted(reserved))}")
    try:
        msgspec.json.encode(values)
    except UnicodeEncodeError as exc:
        raise InvalidMessage("the value contains half a character (a lone surrogate)") from exc


def _check_pins(values: dict[str, Any]) -> None:
    pins: dict[Any, Any] = values.get("pins", {})
    for name, pin in (*pins.items(), *([("head", values["head"])] if "head" in values else ())):
        if type(name) is not str or type(pin) is not Pin or type(pin.info) is not dict or type(pin.log) is not str:
            raise InvalidMessage("pins are named by text, and each is a Pin")
        if type(pin.start) is not int or type(pin.length) is not int:
            raise InvalidMessage("start and length of a pin are message numbers")
        _check_info({name: pin.info})
    for name, info in values.get("keep", {}).items():
        if type(name) is not str or type(info) is not dict:
            raise InvalidMessage("what is kept is named by text, and has a JSON object as its info")
        _check_info({name: info})


def _check_info(info: dict[str, Any]) -> None:
    check_json(info, "pins")
    try:
        msgspec.json.encode(info)
    except UnicodeEncodeError as exc:
        raise InvalidMessage("the value contains half a character (a lone surrogate)") from exc
