"""What a search found, as people look at it."""

from __future__ import annotations

from typing import Any

import msgspec


class SessionHit(msgspec.Struct, frozen=True):
    """A message that was found.

    message_index: its place in the session's chat history, from 0. when: ISO 8601 in UTC. snippet: the text around the
    first term, on one line.
    """

    session_id: str
    user_id: str
    message_index: int
    message_id: str
    role: str
    snippet: str
    when: str
    title: str | None = None
    agent_name: str | None = None

    def __repr__(self) -> str:
        """Where, but not what: a repr ends up in logs."""
        return (
            f"SessionHit(session_id={self.session_id!r}, user_id={self.user_id!r}, message_index={self.message_index})"
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class SessionHits(list[SessionHit]):
    """The hits, best first. `complete` is False if the search stopped before it had looked at everything."""

    complete: bool = True
