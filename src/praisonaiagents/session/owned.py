"""One user's session that must be there, and changes of its metadata.

A call without a user means the default user, and nobody else: what these serve may write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from praisonaiagents.errors import SessionNotFound
from praisonaiagents.model.ids import check_session_id, check_user_id
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session.retry import retry_on_conflict
from praisonaiagents.session.store import SessionStore


def owned(store: SessionStore, session_id: str, user_id: str | None) -> Record:
    """The record of this user's session. Raises `SessionNotFound`."""
    key = Key(check_user_id(user_id), check_session_id(session_id))
    record = store.engine.get(key)
    if record is None:
        raise SessionNotFound(session_id, key.user_id)
    return record


def change_metadata(
    store: SessionStore, session_id: str, user_id: str | None, change: Callable[[Record], dict[str, Any]]
) -> dict[str, Any]:
    """Make what `change` returns the session's metadata, however many others change it too; return it.

    Nothing is written where it is the same. Raises `SessionNotFound`.
    """

    def attempt() -> dict[str, Any]:
        record = owned(store, session_id, user_id)
        metadata = change(record)
        if metadata != record.metadata:
            store.engine.update(record.key, {"metadata": metadata}, expected_revision=record.revision)
        return metadata

    return retry_on_conflict(attempt)
