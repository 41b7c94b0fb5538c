"""The conversation an agent is in: the list it thinks with, and the session that keeps it.

    Conversation          lives in this process only
    StoredConversation    every message goes to a session first, and what others wrote to it comes in at each turn
    AdaptedConversation   the user's own adapter keeps it, see `adapted`

`history` is a plain list of dicts that a user may change or replace; such a change holds for this agent only, and what is
stored stays stored. What a reader would get wrong: history is not read anew each turn. `_seen` is the number of the next
message of the session that is not in the list yet, so a turn costs what is new, not what is old. Only where somebody took
the session back to an earlier point, or replaced its history, do numbers begin to mean something else: then it has another
log, and the list begins anew. Where a summary stands for the oldest messages (see `compaction`), it is the list's first
entry and they are not in the list; of a list that somebody changed, it takes only the place of what is still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from praisonaiagents.errors import ConfigError, InvalidMessage, SessionNotFound
from praisonaiagents.model.memory import Source
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Record
from praisonaiagents.model.repair import repair
from praisonaiagents.model.window import window
from praisonaiagents.session.checkpoint import Checkpoint, checkpoint_of
from praisonaiagents.session.compaction import Compacted, Policy, Work, find, finish
from praisonaiagents.session.numbered import numbered
from praisonaiagents.session.store import SessionStore

EVERYTHING, ALL_BY_NAME, OWN_PART = "everything", "all by name", "own part"


class Entry(dict[str, Any]):
    """One message of `history`: a plain dict to look at and to compare, which remembers the turn it belongs to.

    place: the log and the number it has in the session; None if it is not stored. is_summary: it stands for older messages.
    """

    run_id: str | None = None
    agent: str | None = None
    place: tuple[str, int] | None = None
    is_summary = False

    @classmethod
    def of(cls, message: Message) -> Entry:
        entry = cls(message.to_chat())
        entry.run_id, entry.agent = message.run_id, message.agent
        return entry

    @classmethod
    def of_summary(cls, checkpoint: Checkpoint) -> Entry:
        entry = cls(checkpoint.to_chat())
        entry.is_summary = True
        return entry


class Conversation:
    """A conversation that ends with the process.

    limit: how many of the last messages a model is sent; None means all. compacts: it may be `too_long`.
    """

    def __init__(self, *, limit: int | None = None) -> None:
        self.history: list[dict[str, Any]] = []
        self.compacts = False
        self._limit = limit

    def refresh(self) -> None:
        """Bring in what others added."""

    def add(self, message: Message) -> Source | None:
        """Add one message at the end. Returns where it is stored, None if it is not."""
        self.history.append(Entry.of(message))
        return None

    def said_in(self, run_id: str) -> int:
        """How many messages of this turn are in the list."""
        return sum(getattr(entry, "run_id", None) == run_id for entry in self.history)

    async def begin(self, message: Message) -> None:
        """A turn begins, with this message of the user, which is told next. Raises what keeps the turn from being stored."""

    async def tell(self, message: Message) -> None:
        """This message will be added. Raises what keeps it from being stored."""

    async def end(self, status: str | None) -> None:
        """The turn is over. status: None if all went well, "failed" or "interrupted"."""

    async def close(self) -> None:
        """The agent takes no more turns."""

    def for_model(self, run_id: str) -> list[Message]:
        """What a language model is sent in this turn: the last messages up to the turn's own, repaired.

        Raises `InvalidMessage` if somebody put what is no message into the list.
        """
        messages = [_message(entry) for entry in self.history]
        while messages and messages[-1].run_id != run_id:
            messages.pop()  # what another agent said after this turn began
        lead = messages[: self._lead()]
        shown = self._shown(messages[len(lead) :])
        del self.history[len(lead) : len(messages) - len(shown)]  # a bounded session has a bounded list
        return repair([*lead, *window(shown, self._limit)])

    def too_long(self) -> Work | None:
        """What there is to sum up before the model is asked, if it is time for that."""
        return None

    def old_part(self, keep_last: int) -> Work | None:
        """What there is to sum up but for the last messages, long or not. Raises `ConfigError` if nothing is stored."""
        raise ConfigError("this conversation is not kept in a session: there is nothing to sum up")

    def compacted(self, work: Work, summaries: Sequence[str]) -> Compacted | None:
        """Let the summaries stand for what `too_long` or `old_part` found. None if somebody else was faster."""
        return None

    def _lead(self) -> int:
        """How many entries at the start no bound concerns."""
        return int(bool(self.history) and getattr(self.history[0], "is_summary", False))

    def _shown(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages


class StoredConversation(Conversation):
    """A conversation kept in a session, which is made with the first message. The store is the caller's.

    part: whose part of the session it is; what is said here is marked so.
    view: what of the session is seen. `EVERYTHING`: all of it, as one conversation. `ALL_BY_NAME`: all of it, and the model is
        told which agent said what. `OWN_PART`: this part, what is in nobody's, and a summary of the session if there is one.
    policy: when it is compacted, and what stays then; None: never.
    """

    def __init__(
        self,
        store: SessionStore,
        session_id: str,
        user_id: str,
        *,
        agent_name: str | None,
        part: str | None = None,
        view: str = EVERYTHING,
        limit: int | None = None,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(limit=limit)
        self._part = part
        self._view = view
        self._store = store
        self._session_id = session_id
        self._user_id = user_id
        self._agent_name = agent_name
        self._policy = policy
        self.compacts = policy is not None
        self._seen: int | None = None
        self._log: str | None = None
        self._summed_up: Checkpoint | None = None
        self._run_id: str | None = None

    def refresh(self) -> None:
        self._run_id = None
        self._refresh()

    def add(self, message: Message) -> Source | None:
        self._run_id = message.run_id
        message = msgspec.structs.replace(message, agent=self._part)
        appended = self._store.append(self._session_id, [message], user_id=self._user_id)
        if self._seen == appended.length - 1:
            self._add(message, self._seen)
            self._seen = appended.length
        else:
            self._refresh()
        return Source(self._session_id, appended.ids[0])

    def _refresh(self) -> None:
        own_list = self._seen is None and bool(self.history)
        record = self._store.open_session(self._session_id, user_id=self._user_id, agent_name=self._agent_name)
        if self._agent_name and record.agent_name != self._agent_name:
            self._store.set_agent_info(self._session_id, self._agent_name, self._user_id)
        if own_list:
            self._seen = record.length
        elif self._log not in (None, record.log):
            self.history.clear()
            self._seen = self._summed_up = None
        self._log = record.log
        self._catch_up(record)

    def too_long(self) -> Work | None:
        if self._policy is None:
            return None
        stored = [_message(entry) for entry in self.history if getattr(entry, "place", None)]
        if not self._policy.is_over(stored):
            return None
        return find(self._store, self._session_id, user_id=self._user_id, **self._policy.limits())

    def old_part(self, keep_last: int) -> Work | None:
        try:
            return find(self._store, self._session_id, keep_last=keep_last, user_id=self._user_id)
        except SessionNotFound:
            return None  # nothing was said yet

    def compacted(self, work: Work, summaries: Sequence[str]) -> Compacted | None:
        done = finish(self._store, work, summaries)
        if self._seen is not None:
            self._refresh()  # where somebody else was faster, their summary comes in
        return done

    def _catch_up(self, record: Record) -> None:
        checkpoint = checkpoint_of(record)
        if self._seen is None and checkpoint:
            self.history.append(Entry.of_summary(checkpoint))
            self._summed_up = checkpoint
            self._seen = checkpoint.number if self._policy else max(checkpoint.number, record.start)
        found = self._store.read_from(self._session_id, self._seen, user_id=self._user_id)
        new = numbered(self._store.engine, record.key, found, record.length)
        for number, message in new:
            self._add(message, number)
        self._seen = max([record.length, *(number + 1 for number, _ in new[-1:])])
        if checkpoint and checkpoint != self._summed_up:
            self._sum_up(checkpoint)

    def _add(self, message: Message, number: int) -> None:
        if self._view == OWN_PART and message.agent not in (None, self._part):
            return
        entry = Entry.of(message)
        entry.place = (self._log or "", number)
        self.history.append(entry)

    def _sum_up(self, checkpoint: Checkpoint) -> None:
        """Let the summary take the place of the entries that it stands for. Those of the turn under way stay until the next."""
        told = {index for index, entry in enumerate(self.history) if self._is_told(entry, checkpoint)}
        now = {index for index in told if self._run_id and getattr(self.history[index], "run_id", None) == self._run_id}
        gone = told - now
        if gone:
            rest = [entry for index, entry in enumerate(self.history) if index not in gone]
            rest.insert(min(gone), Entry.of_summary(checkpoint))
            self.history[:] = rest
        self._summed_up = None if now else checkpoint

    def _is_told(self, entry: Any, checkpoint: Checkpoint) -> bool:
        if not isinstance(entry, Entry) or entry.place is None:
            return isinstance(entry, Entry) and entry.is_summary
        log, number = entry.place
        return log == self._log and number < checkpoint.number

    def for_model(self, run_id: str) -> list[Message]:
        messages = super().for_model(run_id)
        return [self._by_name(message) for message in messages] if self._view == ALL_BY_NAME else messages

    def _by_name(self, message: Message) -> Message:
        """What another agent said, with its name before it: the model would think it had said it itself."""
        theirs = message.role == "assistant" and message.agent not in (None, self._part)
        if not theirs or not isinstance(message.content, str) or not message.content:
            return message
        return msgspec.structs.replace(message, content=f"[{message.agent}] {message.content}")

    def _shown(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages if self._store.retention == "compact" else self._store.shown(messages)


def _message(entry: dict[str, Any]) -> Message:
    if not isinstance(entry, dict):
        raise InvalidMessage(f"a message of chat_history is a dict with role and content, not {type(entry).__name__}")
    known = {"run_id": getattr(entry, "run_id", None), "agent": getattr(entry, "agent", None)}
    return Message.from_dict(known | entry)
