"""The conversation an agent is in: the list it thinks with, and the session that keeps it.

    Conversation          lives in this process only
    StoredConversation    every message goes to a session first, and what others wrote to it comes in at each turn

`history` is a plain list of dicts that a user may change or replace; such a change holds for this agent only, and what is
stored stays stored. What a reader would get wrong: history is not read anew each turn. `_seen` is the number of the next
message of the session that is not in the list yet, so a turn costs what is new, not what is old. Only where somebody took
the session back to an earlier point, or replaced its history, do numbers begin to mean something else: then it has another
log, and the list begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from praisonaiagents.errors import InvalidMessage
from praisonaiagents.model.message import Message
from praisonaiagents.model.repair import repair
from praisonaiagents.model.window import window
from praisonaiagents.session.store import SessionStore


class Entry(dict[str, Any]):
    """One message of `history`: a plain dict to look at and to compare, which remembers the turn it belongs to."""

    run_id: str | None = None

    @classmethod
    def of(cls, message: Message) -> Entry:
        entry = cls(message.to_chat())
        entry.run_id = message.run_id
        return entry


class Conversation:
    """A conversation that ends with the process.

    limit: how many of the last messages a model is sent; None means all.
    """

    def __init__(self, *, limit: int | None = None) -> None:
        self.history: list[dict[str, Any]] = []
        self._limit = limit

    def refresh(self) -> None:
        """Bring in what others added."""

    def add(self, message: Message) -> None:
        """Add one message at the end."""
        self.history.append(Entry.of(message))

    def for_model(self, run_id: str) -> list[Message]:
        """What a language model is sent in this turn: the last messages up to the turn's own, repaired.

        Raises `InvalidMessage` if somebody put what is no message into the list.
        """
        messages = [_message(entry) for entry in self.history]
        while messages and messages[-1].run_id != run_id:
            messages.pop()  # what another agent said after this turn began
        shown = self._shown(messages)
        del self.history[: len(messages) - len(shown)]  # a bounded session has a bounded list
        return repair(window(shown, self._limit))

    def _shown(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages


class StoredConversation(Conversation):
    """A conversation kept in a session, which is made with the first message. The store is the caller's."""

    def __init__(
        self, store: SessionStore, session_id: str, user_id: str, *, agent_name: str | None, limit: int | None = None
    ) -> None:
        super().__init__(limit=limit)
        self._store = store
        self._session_id = session_id
        self._user_id = user_id
        self._agent_name = agent_name
        self._seen: int | None = None
        self._log: str | None = None

    def refresh(self) -> None:
        own_list = self._seen is None and bool(self.history)
        record = self._store.open_session(self._session_id, user_id=self._user_id, agent_name=self._agent_name)
        if self._agent_name and record.agent_name != self._agent_name:
            self._store.set_agent_info(self._session_id, self._agent_name, self._user_id)
        if own_list:
            self._seen = record.length
        elif self._log not in (None, record.log):
            self.history.clear()
            self._seen = None
        self._log = record.log
        self._catch_up()

    def add(self, message: Message) -> None:
        appended = self._store.append(self._session_id, [message], user_id=self._user_id)
        if self._seen == appended.length - 1:
            super().add(message)
            self._seen = appended.length
        else:
            self.refresh()

    def _catch_up(self) -> None:
        new = self._store.read_from(self._session_id, self._seen, user_id=self._user_id)
        for message in new.messages:
            super().add(message)
        self._seen = new.first + len(new.messages)

    def _shown(self, messages: Sequence[Message]) -> Sequence[Message]:
        return self._store.shown(messages)


def _message(entry: dict[str, Any]) -> Message:
    if not isinstance(entry, dict):
        raise InvalidMessage(f"a message of chat_history is a dict with role and content, not {type(entry).__name__}")
    return Message.from_dict({"run_id": getattr(entry, "run_id", None), **entry})
