"""What a session is, besides its messages.

A record is a small value that changes rarely: titles, state, owner, where its history starts. Nothing is written to it
per turn. `length` and `updated_at` are derived: the engine fills them in when it hands a record out, and ignores them
when it is given one.
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


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One session without its messages.

    created_at, updated_at: seconds since 1970, UTC.
    start: number of the first visible message; what lies before it is archived or gone.
    length: number of the message that would come next, so `length - start` messages are visible.
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

    @property
    def key(self) -> Key:
        return Key(self.user_id, self.session_id)

    @property
    def message_count(self) -> int:
        """How many messages are visible."""
        return self.length - self.start


_TYPES: dict[str, tuple[type, ...]] = {
    "agent_name": (str, type(None)),
    "metadata": (dict,),
    "state": (dict,),
    "start": (int,),
    "extra": (dict,),
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
    }
)
"""The top-level keys of a session that has been written out, which `extra` therefore cannot hold."""

_YEAR_9999_S = 253_370_764_800  # the last year that ISO 8601 and `datetime` know


def patched(record: Record, patch: dict[str, Any]) -> Record:
    """`record` with the fields of `patch` replaced and its revision counted up.

    `start` only moves forward, so that of two callers who trim at the same time the one who knows less undoes nothing.
    Raises `InvalidMessage` for a field that is not in `PATCHABLE`, or a value that it cannot hold.
    """
    if not patch.keys() <= PATCHABLE:
        raise InvalidMessage(f"not a field that can be changed: {', '.join(sorted(patch.keys() - PATCHABLE))}")
    check_values(patch)
    start = patch.get("start", record.start)
    if not 0 <= start <= record.length:
        raise InvalidMessage(f"start is a message number up to {record.length}, not {start}")
    moved = {"start": max(start, record.start), "revision": record.revision + 1}
    return msgspec.structs.replace(record, **(patch | moved))


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
    check_json(values, "record")
    if reserved := RESERVED & values.get("extra", {}).keys():
        raise InvalidMessage(f"extra cannot hold {', '.join(sorted(reserved))}")
    try:
        msgspec.json.encode(values)
    except UnicodeEncodeError as exc:
        raise InvalidMessage("the value contains half a character (a lone surrogate)") from exc
