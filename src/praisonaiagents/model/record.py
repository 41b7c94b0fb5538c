"""What a session is, besides its messages.

A record is a small value that changes rarely: titles, state, owner, where its history starts. Nothing is written to it
per turn. `length` and `updated_at` are derived: the engine fills them in when it hands a record out, and ignores them
when it is given one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from praisonaiagents.errors import InvalidMessage
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
    extra: top-level keys this version does not know, as they were found.
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


PATCHABLE = frozenset({"agent_name", "metadata", "state", "start", "extra"})


def patched(record: Record, patch: dict[str, Any]) -> Record:
    """`record` with the fields of `patch` replaced and its revision counted up.

    Raises `ValueError` for a field that is not in `PATCHABLE`, or a value JSON cannot hold exactly.
    """
    if not patch.keys() <= PATCHABLE:
        raise ValueError(f"not a field that can be changed: {', '.join(sorted(patch.keys() - PATCHABLE))}")
    check_values(patch)
    return msgspec.structs.replace(record, **patch, revision=record.revision + 1)


def check_values(values: dict[str, Any]) -> None:
    """Raise `InvalidMessage` unless `values` can be stored as JSON and read back exactly."""
    check_json(values, "record")
    try:
        msgspec.json.encode(values)
    except UnicodeEncodeError as exc:
        raise InvalidMessage("the value contains half a character (a lone surrogate)") from exc
