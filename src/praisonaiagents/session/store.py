"""The session store: what people call.

    store = get_default_session_store()
    store.add_user_message("my-session", "Hello!")
    store.get_chat_history("my-session")

It knows whose session is meant, when one is made, how many messages are kept and what is shown; where the bytes rest is the
engine's business. It keeps no state of its own, so any number of stores may work on the same sessions.

What a reader would get wrong: `user_id=None` and `user_id="default_user"` differ. The first is an unscoped call: it means
the default user, but a read looks for the session's one other owner where the default user has none of that id. The second,
and every other name, never looks beyond that user. No write ever does.
"""

from __future__ import annotations

import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import msgspec

from praisonaiagents.errors import (
    AmbiguousSession,
    ConfigError,
    ConfigTypeError,
    Conflict,
    EngineUnreachable,
    NotReplicated,
    OutcomeUnknown,
    SessionNotFound,
    StorageError,
)
from praisonaiagents.model.ids import check_user_id
from praisonaiagents.model.message import MAX_MESSAGE_BYTES, Message
from praisonaiagents.model.record import Key, Record, conversation_key
from praisonaiagents.model.window import lacks_call, retention_start, window, without_strays
from praisonaiagents.paths import get_sessions_dir
from praisonaiagents.session.checkpoint import CHECKPOINT as CHECKPOINT
from praisonaiagents.session.checkpoint import checkpoint_of
from praisonaiagents.session.data import SessionData, conversations, iso, listing, title_of
from praisonaiagents.session.hits import SessionHit, SessionHits
from praisonaiagents.session.retry import change_record
from praisonaiagents.session.snapshots import adopted
from praisonaiagents.storage.engine import Appended, Engine, Slice
from praisonaiagents.storage.jsonfile import JsonFileEngine

RETENTIONS = ("keep_all", "truncate", "archive", "compact")
T = TypeVar("T")
_PAGE = 200
_MOST_STATES = 2  # records that keep state among those of a user; they are read, but are no sessions


class SessionStore:
    """Sessions over any engine.

    max_messages: how many messages a session shows; None means all.
    retention: what becomes of older ones. "keep_all": they stay, and are only not shown. "archive": they move to the
        session's archive. "compact": the same, and an agent has its model sum them up first (`session.compaction`).
        "truncate": they are freed. Whole turns go, so fewer than `max_messages` may stay.
        Default: "truncate" if `max_messages` is given, else "keep_all".

    on_close: called once, by the first `close`. Without it the engine stays the caller's to close.

    The bound is kept by stores that were given it; space is reclaimed each time a session has twice as many messages.
    Every method takes `user_id`, see the module.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_messages: int | None = None,
        retention: str | None = None,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        if max_messages is not None and (not isinstance(max_messages, int) or max_messages < 1):
            raise ConfigError(f"max_messages is a number of messages from 1, or None for all, not {max_messages!r}")
        if retention not in (None, *RETENTIONS):
            raise ConfigError(f"retention is one of {', '.join(RETENTIONS)}, not {retention!r}")
        self.engine = engine
        self.max_messages = max_messages
        self.retention = retention or ("truncate" if max_messages else "keep_all")
        self._close = weakref.finalize(self, on_close)

    def close(self) -> None:
        """Let go of the engine, if the store brought it. Calling it twice is harmless."""
        self._close()

    def __enter__(self) -> SessionStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # Writing messages

    def append(
        self,
        session_id: str,
        messages: Sequence[Message],
        *,
        user_id: str | None = None,
        expected_length: int | None = None,
    ) -> Appended:
        """Add messages at the end of a session, all or none, making the session if need be.

        A message that is stored already under its id is left out, so a call may be repeated; where a connection breaks
        before the answer comes, the store does so once by itself. With `expected_length`, raises `Conflict` if the session's
        length is another (see `retry_on_conflict`). Raises `InvalidId`, `InvalidMessage`, `StorageError`, `OutcomeUnknown`.
        """
        key = _own_key(session_id, user_id)
        now = time.time()
        stamped = [
            message if message.timestamp else msgspec.structs.replace(message, timestamp=now) for message in messages
        ]
        try:
            appended = self._append(key, stamped, expected_length)
        except NotReplicated:
            raise  # it is stored, and asking again would not make it safer
        except OutcomeUnknown as unknown:
            appended = self._append_again(key, stamped, expected_length, unknown)
        if self.max_messages is not None and self.retention != "keep_all":
            self._retain(key, appended, self.max_messages)
        return appended

    def add_message(
        self,
        session_id: str,
        role: str,
        content: Any,
        metadata: dict[str, Any] | None = None,
        tool_calls: list[Any] | None = None,
        tool_call_id: str | None = None,
        *,
        user_id: str | None = None,
    ) -> bool:
        """Add one message, making the session if need be. Returns True; raises as `append` does."""
        message = Message(role, content, metadata=metadata or {}, tool_calls=tool_calls, tool_call_id=tool_call_id)
        self.append(session_id, [message], user_id=user_id)
        return True

    def add_user_message(
        self, session_id: str, content: Any, metadata: dict[str, Any] | None = None, *, user_id: str | None = None
    ) -> bool:
        """`add_message` with the role "user"."""
        return self.add_message(session_id, "user", content, metadata, user_id=user_id)

    def add_assistant_message(
        self, session_id: str, content: Any, metadata: dict[str, Any] | None = None, *, user_id: str | None = None
    ) -> bool:
        """`add_message` with the role "assistant"."""
        return self.add_message(session_id, "assistant", content, metadata, user_id=user_id)

    def set_chat_history(
        self, session_id: str, messages: Iterable[dict[str, Any]], *, user_id: str | None = None
    ) -> bool:
        """Make these messages (dicts with at least a role) the whole history, in one step. The old ones are freed."""
        now = time.time()
        new = [Message.from_dict({"timestamp": now, **values}) for values in messages]
        key = _own_key(session_id, user_id)
        change_record(self.engine, key, _before_replacing)
        self.engine.replace(key, new)
        return True

    def clear_session(self, session_id: str, *, user_id: str | None = None) -> bool:
        """Free all messages of a session, archived ones too; title, state and metadata stay. False if there is none."""
        key = _own_key(session_id, user_id)
        return self.engine.get(key) is not None and self.set_chat_history(session_id, [], user_id=user_id)

    def delete_session(self, session_id: str, *, user_id: str | None = None) -> bool:
        """Remove a session and all that was stored for it. False if there is none."""
        return self.engine.delete(_own_key(session_id, user_id))

    # Reading messages

    def messages(
        self, session_id: str, max_messages: int | None = None, *, user_id: str | None = None
    ) -> list[Message]:
        """The last `max_messages` messages (None: all that the store shows), oldest first, never tearing a tool call.

        Empty for a session that does not exist; nothing is made.
        """
        if max_messages is not None and max_messages < 0:
            raise ConfigError(f"max_messages cannot be negative, it is {max_messages}")
        return self._read(session_id, user_id, lambda key: self._messages(key, max_messages), bool)

    def read_from(self, session_id: str, number: int | None, *, user_id: str | None = None) -> Slice:
        """The messages from number `number` on (None: from the first visible one), whatever the store's bound."""
        return self._read(
            session_id, user_id, lambda key: self.engine.read(key, number), lambda found: bool(found.messages)
        )

    def get_chat_history(
        self, session_id: str, max_messages: int | None = None, *, user_id: str | None = None
    ) -> list[dict[str, Any]]:
        """`messages` as dicts: role, content, and tool fields where they are set."""
        return [message.to_chat() for message in self.messages(session_id, max_messages, user_id=user_id)]

    def get_working_history(
        self, session_id: str, max_messages: int | None = None, *, user_id: str | None = None
    ) -> list[dict[str, Any]]:
        """What a model would be sent: the summary of the last compaction checkpoint, then what came after it.

        With `retention="compact"` that is everything after it, also what is archived already.
        """
        key = self._key(session_id, user_id)
        record = self.engine.get(key)
        checkpoint = checkpoint_of(record)
        if record is None or checkpoint is None:
            return self.get_chat_history(session_id, max_messages, user_id=key.user_id)
        compacts = self.retention == "compact"
        first = checkpoint.number if compacts else max(checkpoint.number, record.start)
        recent = without_strays(self.engine.read(key, first).messages)
        bound = max_messages or (None if compacts else self.max_messages)
        return [checkpoint.to_chat(), *(message.to_chat() for message in window(recent, bound))]

    def get_session(self, session_id: str, *, user_id: str | None = None) -> SessionData:
        """The session as a value. One that does not exist is empty, and is not made."""
        key = self._key(session_id, user_id)
        record = self.engine.get(key)
        return SessionData.of(record, self._messages(key, None)) if record else SessionData(session_id, key.user_id)

    def get_session_model(self, session_id: str, *, user_id: str | None = None) -> str | None:
        """The model of the session: the one in its metadata, else the one that answered last."""
        session = self.get_session(session_id, user_id=user_id)
        return session.metadata.get("model") or session.metadata.get("llm") or session.model()

    def session_exists(self, session_id: str, *, user_id: str | None = None) -> bool:
        """True if there is such a session."""
        return self.engine.get(self._key(session_id, user_id)) is not None

    # The record

    def open_session(self, session_id: str, *, user_id: str | None = None, agent_name: str | None = None) -> Record:
        """Make the session unless it is there, and return its record."""
        key = _own_key(session_id, user_id)
        return self.engine.open_session(Record(*key, agent_name=agent_name))

    def set_agent_info(self, session_id: str, agent_name: str | None = None, user_id: str | None = None) -> bool:
        """Say which agent works in the session of this user, making the session if need be."""
        patch = {"agent_name": agent_name}
        key = _own_key(session_id, user_id)
        change_record(self.engine, key, lambda record: patch if agent_name and record.agent_name != agent_name else {})
        return True

    def update_session_metadata(self, /, session_id: str, *, user_id: str | None = None, **fields: Any) -> bool:
        """Merge fields into the session's metadata, making the session if need be. Fields that are None are left out."""
        given = {name: value for name, value in fields.items() if value is not None}

        def merge(record: Record) -> dict[str, Any]:
            patch: dict[str, Any] = {"metadata": record.metadata | given} if given else {}
            return patch | ({"agent_name": given["agent_name"]} if "agent_name" in given else {})

        change_record(self.engine, _own_key(session_id, user_id), merge)
        return True

    def rename_session(self, session_id: str, title: str, *, user_id: str | None = None) -> bool:
        """Give the session a title; a blank one clears it. Raises `SessionNotFound`, `ConfigTypeError`."""
        check_text("a title", title)
        key = _own_key(session_id, user_id)
        if self.engine.get(key) is None:
            raise SessionNotFound(session_id, key.user_id)

        def retitle(record: Record) -> dict[str, Any]:
            rest = {name: value for name, value in record.metadata.items() if name != "title"}
            return {"metadata": rest | ({"title": title.strip()} if title.strip() else {})}

        change_record(self.engine, key, retitle)
        return True

    def set_state(self, session_id: str, state: dict[str, Any], *, user_id: str | None = None) -> None:
        """Make `state` the session's state, making the session if need be. The last call wins."""
        change_record(self.engine, _own_key(session_id, user_id), lambda record: {"state": state})

    def append_compaction_checkpoint(
        self,
        session_id: str,
        summary: str,
        *,
        role: str = "system",
        tokens_before: int = 0,
        tokens_after: int = 0,
        metadata: dict[str, Any] | None = None,
        user_id: str | None = None,
    ) -> bool:
        """Let `summary` stand for all messages up to now in `get_working_history`. The messages stay.

        A blank summary changes nothing and returns False.
        """
        if not summary.strip():
            return False
        checkpoint = {"summary": summary, "role": role, "tokens_before": tokens_before, "tokens_after": tokens_after}

        def add(record: Record) -> dict[str, Any]:
            place = {"message_index": record.message_count, "message_number": record.length, "timestamp": time.time()}
            place |= self._ids(record)
            return {"extra": record.extra | {CHECKPOINT: checkpoint | place | {"metadata": metadata or {}}}}

        change_record(self.engine, _own_key(session_id, user_id), add)
        return True

    # Listing

    def list_sessions(
        self, limit: int | None = 50, *, user_id: str | None = None, all_users: bool = False
    ) -> list[dict[str, Any]]:
        """The user's sessions (with `all_users`, everybody's), the one changed last first. `limit` None means all."""
        if limit is not None and limit < 0:
            raise ConfigError(f"limit cannot be negative, it is {limit}")
        return [listing(record) for record in self._records(limit, None if all_users else check_user_id(user_id))]

    def list_sessions_by_agent(self, agent_name: str, limit: int = 50, *, user_id: str | None = None) -> list[str]:
        """Ids of the user's sessions in which this agent works, the one changed last first. Looks at all of them."""
        return [record.session_id for record in self._of_agent(agent_name, limit, user_id)]

    def get_sessions_by_agent(
        self, agent_name: str, limit: int = 10, *, user_id: str | None = None
    ) -> list[SessionData]:
        """The user's sessions in which this agent works, the one changed last first."""
        records = self._of_agent(agent_name, limit, user_id)
        return [SessionData.of(record, self._messages(record.key, None)) for record in records]

    def get_agent_chat_history(
        self,
        agent_name: str,
        max_messages: int | None = None,
        max_sessions: int = 5,
        *,
        user_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """Messages of the agent's newest sessions, oldest first, each with its `session_id` and `agent_name`."""
        sessions = self.get_sessions_by_agent(agent_name, max_sessions, user_id=user_id)
        told = [
            message.to_chat() | {"session_id": session.session_id, "agent_name": agent_name}
            for session in reversed(sessions)
            for message in session.messages
        ]
        return told if max_messages is None else told[max(0, len(told) - max_messages) :]

    # Searching

    def search(
        self, query: str, *, user_id: str | None = None, all_users: bool = False, limit: int = 10
    ) -> SessionHits:
        """Messages of the user (with `all_users`, of everybody) whose text holds all words of `query`, best first.

        Case, accents and width do not matter; `word*` finds every word that begins so; Chinese, Japanese and Korean are found
        by any part of what was written. `SessionHits.complete` is False where an engine without an index stopped early.
        """
        if not isinstance(query, str):
            raise ConfigTypeError(f"a query is text, not {type(query).__name__}")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigError(f"limit is a number of hits from 1, not {limit!r}")
        from praisonaiagents.model.search import parse, snippet  # its patterns take 10 ms to compile

        terms = parse(query)
        found = self.engine.search(None if all_users else check_user_id(user_id), terms, limit=limit)
        records = {key: self.engine.get(key) for key in {hit.key for hit in found.hits}}
        hits = SessionHits()
        hits.complete = found.complete
        for key, number, message in found.hits:
            record = records[key]
            if record is None:
                continue  # deleted meanwhile
            hits.append(
                SessionHit(
                    *(key.session_id, key.user_id, number - record.start, message.id, message.role),
                    snippet=snippet(message.text(), terms),
                    when=iso(message.timestamp),
                    title=title_of(record),
                    agent_name=record.agent_name,
                )
            )
        return hits

    def invalidate_cache(self, session_id: str | None = None) -> None:
        """Nothing to do: every read is fresh. Calling it is harmless."""

    def shown(self, messages: Sequence[Message]) -> list[Message]:
        """Those of a session's messages that this store shows."""
        if self.max_messages is None:
            return list(messages)
        if self.retention == "keep_all":
            return window(messages, self.max_messages)
        return list(messages[retention_start(messages, self.max_messages) :])

    # Inside

    def _key(self, session_id: str, user_id: str | None) -> Key:
        """The session a read means."""
        key = _own_key(session_id, user_id)
        if user_id is not None or self.engine.get(key) is not None:
            return key
        owners = self.engine.owners(session_id)
        if len(owners) > 1:
            raise AmbiguousSession(session_id, tuple(owners))
        return Key(owners[0], session_id) if owners else key

    def _read(self, session_id: str, user_id: str | None, look: Callable[[Key], T], is_there: Callable[[T], bool]) -> T:
        """What `look` finds in the session that a read means, asking whose it is only where nothing is found."""
        own = _own_key(session_id, user_id)
        found = look(own)
        if user_id is not None or is_there(found):
            return found
        key = self._key(session_id, None)
        return found if key == own else look(key)

    def _append(self, key: Key, messages: Sequence[Message], expected_length: int | None) -> Appended:
        try:
            return self.engine.append(key, messages, expected_length=expected_length)
        except SessionNotFound:
            with suppress(NotReplicated):  # the append behind it says whether both are
                self.engine.open_session(Record(*key))
            return self.engine.append(key, messages, expected_length=expected_length)

    def _append_again(
        self, key: Key, messages: Sequence[Message], expected_length: int | None, unknown: OutcomeUnknown
    ) -> Appended:
        """Repeat an append that may have been stored, with the ids it was given then."""
        ids = unknown.message_ids
        if ids:  # else it was the session that may or may not have been made, and no message was sent
            messages = [msgspec.structs.replace(message, id=id_) for message, id_ in zip(messages, ids, strict=True)]
        try:
            return self._append(key, messages, expected_length)
        except EngineUnreachable as exc:
            raise OutcomeUnknown(str(exc), ids) from exc

    def _messages(self, key: Key, max_messages: int | None) -> list[Message]:
        if max_messages is None:
            return self.shown(self.engine.read(key).messages)
        if self.max_messages is not None and self.retention != "keep_all":
            return window(self.shown(self.engine.read(key).messages), max_messages)
        return self._last(key, min(max_messages, self.max_messages or max_messages))

    def _last(self, key: Key, count: int) -> list[Message]:
        """The last `count` messages, reading further back only where a tool result's call is not among them."""
        if count == 0:
            return []
        reach = count
        found = self.engine.read(key, -reach)
        while len(found.messages) == reach and lacks_call(found.messages):
            reach *= 2
            found = self.engine.read(key, -reach)
        return window(found.messages, count)

    def _ids(self, record: Record) -> dict[str, Any]:
        """The ids of the first and the last visible message."""
        ends = [self.engine.read(record.key, number, number + 1) for number in (record.start, record.length - 1)]
        ids = [end.messages[0].id for end in ends if record.message_count and end.messages]
        return {"first_message_id": ids[0], "last_message_id": ids[-1]} if ids else {}

    def _retain(self, key: Key, appended: Appended, bound: int) -> None:
        """Make room if the session has twice as many messages as it may have, so that the cost per append stays flat."""
        if appended.length - appended.start < 2 * bound:
            return
        try:
            record = self.engine.get(key)
            visible = self.engine.read(key)
            if record is None:
                return
            start = visible.first + retention_start(visible.messages, bound)
            self.engine.update(key, {"start": start} | adopted(record), expected_revision=record.revision)
            if self.retention == "truncate":
                self.engine.drop(key)
        except Conflict:
            return  # somebody else changed it, and perhaps what it shows; the next append makes room
        except (StorageError, SessionNotFound, OutcomeUnknown) as exc:
            # the message is stored, so the append must not fail; the next one makes room
            warnings.warn(f"old messages were not removed yet: {exc}", RuntimeWarning, stacklevel=4)

    def _records(self, limit: int | None, user_id: str | None) -> Iterator[Record]:
        page = _PAGE if limit is None else min(limit + _MOST_STATES, _PAGE)
        return islice(conversations(self.engine, user_id, page=page), limit)

    def _of_agent(self, agent_name: str, limit: int, user_id: str | None) -> list[Record]:
        named = (record for record in self._records(None, check_user_id(user_id)) if record.agent_name == agent_name)
        return [record for record, _ in zip(named, range(limit), strict=False)]


class DefaultSessionStore(SessionStore):
    """Sessions in JSON files, `{session_dir}/{session_id}.json`.

    session_dir: default `$PRAISONAI_HOME/sessions`, that is `~/.praisonai/sessions`; made when the first session is.
    lock_timeout: how long a call waits for another process that writes to the session, in seconds.
    max_message_bytes: the largest message, in bytes of JSON.
    durability: "process" (a crash loses nothing) or "full" (a loss of power neither).
    max_messages, retention: as in `SessionStore`.
    """

    def __init__(
        self,
        session_dir: str | os.PathLike[str] | None = None,
        max_messages: int | None = None,
        lock_timeout: float = 5.0,
        retention: str | None = None,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        durability: Any = "process",
    ) -> None:
        folder = get_sessions_dir() if session_dir is None else session_dir
        engine = JsonFileEngine(
            folder, lock_timeout_s=lock_timeout, max_message_bytes=max_message_bytes, durability=durability
        )
        super().__init__(engine, max_messages=max_messages, retention=retention)
        self.session_dir = engine.folder
        self.lock_timeout = lock_timeout


def check_text(what: str, value: object) -> None:
    """Raise `ConfigTypeError` for anything but text."""
    if not isinstance(value, str):
        raise ConfigTypeError(f"{what} is text, not {type(value).__name__}")


def _own_key(session_id: str, user_id: str | None) -> Key:
    if type(session_id) is str and (user_id is None or type(user_id) is str):
        return _checked_key(session_id, user_id)
    return conversation_key(session_id, user_id)


_checked_key = lru_cache(maxsize=1024)(conversation_key)  # checking takes as long as storing in memory


def _before_replacing(record: Record) -> dict[str, Any]:
    own = adopted(record)
    extra = {name: value for name, value in own.get("extra", record.extra).items() if name != CHECKPOINT}
    return own | ({"extra": extra} if extra != record.extra else {})
