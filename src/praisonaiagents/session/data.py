"""A session as a value: everything about it at one moment, for reading and showing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Record, is_state
from praisonaiagents.model.window import window
from praisonaiagents.storage.engine import Engine, every_record


class SessionData(msgspec.Struct, frozen=True):
    """One session with its messages, oldest first.

    created_at, updated_at: ISO 8601 in UTC; empty for a session that does not exist.
    """

    session_id: str
    user_id: str
    messages: list[Message] = []
    created_at: str = ""
    updated_at: str = ""
    agent_name: str | None = None
    metadata: dict[str, Any] = {}
    state: dict[str, Any] = {}

    @classmethod
    def of(cls, record: Record, messages: Sequence[Message]) -> SessionData:
        return cls(
            session_id=record.session_id,
            user_id=record.user_id,
            messages=list(messages),
            created_at=iso(record.created_at),
            updated_at=iso(record.updated_at),
            agent_name=record.agent_name,
            metadata=record.metadata,
            state=record.state,
        )

    def get_chat_history(self, max_messages: int | None = None) -> list[dict[str, Any]]:
        """Role, content and tool fields of the last `max_messages` messages (None: all), never tearing a tool call."""
        return [message.to_chat() for message in window(self.messages, max_messages)]

    def model(self) -> str | None:
        """The model that answered last, as far as that is known."""
        named = self.metadata.get("model") or self.metadata.get("llm")
        answered = (message.model for message in reversed(self.messages) if message.model)
        return next(answered, named if isinstance(named, str) else None)

    def usage(self) -> dict[str, int]:
        """Tokens of all answers together: `input_tokens`, `output_tokens`, `total_tokens`, and `requests`."""
        used = [message.usage for message in self.messages if message.usage]
        total = {name: sum(_count(usage, name) for usage in used) for name in ("input_tokens", "output_tokens")}
        return {**total, "total_tokens": sum(total.values()), "requests": len(used)}

    def to_dict(self) -> dict[str, Any]:
        """Everything, as one JSON object."""
        return {
            "session_id": self.session_id,
            "user_id": self.user_id,
            "agent_name": self.agent_name,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "metadata": self.metadata,
            "state": self.state,
            "messages": [message.to_dict() for message in self.messages],
        }


def conversations(engine: Engine, user_id: str | None, *, page: int = 200) -> Iterator[Record]:
    """The records of a user's sessions (None: of everybody's), the one changed last first, read in pages of so many."""
    return (record for record in every_record(engine, user_id, page=page) if not is_state(record.key))


def listing(record: Record) -> dict[str, Any]:
    """A session as `list_sessions` shows it, made from its record alone."""
    metadata = record.metadata
    return {
        "session_id": record.session_id,
        "id": record.session_id,
        "user_id": record.user_id,
        "agent_name": record.agent_name,
        "title": title_of(record),
        "agent_id": metadata.get("agent_id") or record.extra.get("agent_id"),
        "source": metadata.get("source"),
        "parent_id": record.extra.get("parent_id"),
        "parent_session_id": metadata.get("parent_session_id"),
        "agent_key": metadata.get("agent_key"),
        "created_at": iso(record.created_at),
        "updated_at": iso(record.updated_at),
        "message_count": record.message_count,
        "model": metadata.get("model") or metadata.get("llm"),
        "total_tokens": metadata.get("total_tokens"),
        "cost": metadata.get("cost"),
    }


def title_of(record: Record) -> str | None:
    """A session's title; that of a file of PraisonAI may stand at its top."""
    title = record.metadata.get("title") or record.extra.get("title")
    return title if isinstance(title, str) and title else None


def iso(seconds: float) -> str:
    """ISO 8601 in UTC; empty text for 0.0, which means unknown."""
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else ""


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0
