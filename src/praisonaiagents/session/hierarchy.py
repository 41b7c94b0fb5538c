"""Sessions that come from one another: forks, snapshots, going back, and taking that back.

    store = HierarchicalSessionStore()
    main = store.create_session(title="Main conversation")
    safe = store.create_snapshot(main, label="Safe point")
    fork = store.fork_session(main, title="Another way")
    store.revert_to_snapshot(main, safe)
    store.undo(main)

It stores nothing of its own. A snapshot is a pin of the session's record, and going back moves the head to one and pins what
was shown until then; so both hold their messages whatever becomes of the session afterwards, and every store of the place
sees them. What a reader would get wrong: an index counts the visible messages, the first is 0; a message number, as engines
use it, goes on counting when old messages are archived.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from praisonaiagents.errors import ConfigError, PointNotFound, SessionNotFound
from praisonaiagents.model.ids import check_session_id, check_user_id
from praisonaiagents.model.record import Key, Pin, Record, conversation_key
from praisonaiagents.session.checkpoint import CHECKPOINT, checkpoint_of
from praisonaiagents.session.data import SessionData, iso, title_of
from praisonaiagents.session.places import Defaults, borrow, default_place, defaults
from praisonaiagents.session.retry import retry_on_conflict
from praisonaiagents.session.snapshots import (
    SNAPSHOT,
    adopted,
    seconds,
    snapshot_pins,
    snapshots_of,
    up_to,
)
from praisonaiagents.session.snapshots import SessionSnapshot as SessionSnapshot
from praisonaiagents.session.store import SessionStore, check_text
from praisonaiagents.storage.engine import Engine
from praisonaiagents.storage.jsonfile import JsonFileEngine

_HEAD = "head:"
_SHORTEST_PREFIX = 4
_OF_ONE_SESSION = ("pinned", "archived")  # flags in the metadata that a fork does not inherit
_TRIES = 20


class Head(msgspec.Struct, frozen=True):
    """What a session shows, or showed until something else took its place.

    ref: its name, to go back to it: "head:3", or "now". replaced_at: when, seconds since 1970, UTC; 0.0 for the present one.
    why: what took its place: "revert" or "undo"; "" for the present one.
    """

    ref: str
    message_count: int
    replaced_at: float = 0.0
    why: str = ""


class ExtendedSessionData(SessionData, frozen=True):
    """A session as a value, with where it comes from and what comes from it.

    forked_from_message_id: index of the last message that the parent gave, as text; None if it gave all.
    """

    parent_id: str | None = None
    forked_from_message_id: str | None = None
    children_ids: list[str] = msgspec.field(default_factory=list)
    snapshots: list[SessionSnapshot] = msgspec.field(default_factory=list)
    is_shared: bool = False
    title: str | None = None

    @classmethod
    def from_session_data(cls, data: SessionData, **fields: Any) -> ExtendedSessionData:
        """The same session with more `fields`."""
        return cls(**{name: getattr(data, name) for name in data.__struct_fields__}, **fields)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExtendedSessionData:
        """The inverse of `to_dict`. Raises `msgspec.ValidationError`, a `ValueError`."""
        return msgspec.convert(dict(values), cls)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as one JSON object."""
        more: dict[str, Any] = msgspec.to_builtins({name: getattr(self, name) for name in _EXTENDED})
        return super().to_dict() | more


_EXTENDED = tuple(name for name in ExtendedSessionData.__struct_fields__ if name not in SessionData.__struct_fields__)


class HierarchicalSessionStore(SessionStore):
    """`SessionStore`, and where sessions come from.

    session_dir: a folder of session files. url: a storage URL (`storage.registry`). Without either, the default place.
    lock_timeout: in seconds, where there is a file to lock. max_messages, retention: as in `SessionStore`.
    """

    def __init__(
        self,
        session_dir: str | os.PathLike[str] | None = None,
        max_messages: int | None = None,
        lock_timeout: float | None = None,
        retention: str | None = None,
        *,
        url: str | None = None,
    ) -> None:
        if session_dir is not None and url is not None:
            raise ConfigError("session_dir and url name two places; give one of them")
        if session_dir is not None:
            engine: Engine = JsonFileEngine(session_dir, lock_timeout_s=5.0 if lock_timeout is None else lock_timeout)
            give_back: Callable[[], object] = engine.close
        else:
            engine, give_back = borrow(url or default_place(), lock_timeout)
        try:
            super().__init__(engine, max_messages=max_messages, retention=retention, on_close=give_back)
        except ConfigError:
            give_back()
            raise

    @classmethod
    def of(cls, store: SessionStore) -> HierarchicalSessionStore:
        """A store of the same sessions over the engine of another one, which stays the owner of the engine."""
        made = cls.__new__(cls)
        SessionStore.__init__(made, store.engine, max_messages=store.max_messages, retention=store.retention)
        return made

    # Making sessions

    def create_session(
        self,
        session_id: str | None = None,
        title: str | None = None,
        parent_id: str | None = None,
        agent_name: str | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        user_id: str | None = None,
    ) -> str:
        """Make an empty session and return its id (default: a new UUID).

        Raises `SessionExists`, and `SessionNotFound` for the parent.
        """
        check_text("a title", "" if title is None else title)
        key = conversation_key(str(uuid.uuid4()) if session_id is None else session_id, user_id)
        record = Record(*key, agent_name=agent_name, metadata=_titled(metadata or {}, title))
        if parent_id is not None:
            self._register(_key(parent_id, user_id), key.session_id)
            record = msgspec.structs.replace(record, extra={"parent_id": parent_id})
        self.engine.open_session(record, must_be_new=True)
        return key.session_id

    def fork_session(
        self,
        session_id: str,
        from_message_index: int | None = None,
        title: str | None = None,
        *,
        new_session_id: str | None = None,
        at: str | None = None,
        user_id: str | None = None,
    ) -> str:
        """Make a session with the history of this one, and return its id (default: a new UUID).

        from_message_index: the last message that comes along. at: a snapshot or earlier head, as in `revert`. Without either,
        all of it comes along. title: default "Fork of" the title, else of the id. Agent, metadata and state are copied, archive,
        snapshots and earlier heads are not. From then on the two know nothing of each other: either may be deleted.

        Raises `SessionNotFound`, `SessionExists`, `PointNotFound`, `ConfigError` for an index that no message has.
        """
        check_text("a title", "" if title is None else title)
        if from_message_index is not None and at is not None:
            raise ConfigError("from_message_index and at name two points; give one of them")
        source = self._existing_own(session_id, user_id)
        point = source.head if at is None else self.point_of(source, at)
        if from_message_index is not None:
            point = _message(source, from_message_index)
        new_key = conversation_key(str(uuid.uuid4()) if new_session_id is None else new_session_id, source.user_id)
        self._register(source.key, new_key.session_id)
        given = None if from_message_index is None else str(from_message_index)
        fork = Record(
            *new_key,
            agent_name=source.agent_name,
            metadata=_titled(
                {name: value for name, value in source.metadata.items() if name not in _OF_ONE_SESSION},
                title or f"Fork of {title_of(source) or source.session_id}",
            ),
            state=source.state,
            extra=(_checkpoint_in(point.info) or _checkpoint(source, point))
            | {"parent_id": source.session_id, "forked_from_message_id": given},
        )
        return self.engine.fork(source.key, fork, at=point).session_id

    # Moments, and going back to them

    def create_snapshot(
        self,
        session_id: str,
        label: str | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        user_id: str | None = None,
    ) -> str:
        """Hold on to what the session shows now, and return the snapshot's id. Raises `SessionNotFound`."""
        check_text("a label", "" if label is None else label)
        snapshot_id = str(uuid.uuid4())
        info = {"label": label, "created_at": time.time(), "metadata": metadata or {}}

        def pin(record: Record) -> dict[str, Any]:
            held = Pin(*_view(record.head), info | _checkpoint(record))
            return {"pins": record.pins | {SNAPSHOT + snapshot_id: held}}

        self._update(session_id, user_id, pin)
        return snapshot_id

    def get_snapshots(self, session_id: str, *, user_id: str | None = None) -> list[SessionSnapshot]:
        """The session's snapshots, the oldest first. None for a session that does not exist."""
        record = self.engine.get(self._key(session_id, user_id))
        return snapshots_of(record) if record else []

    def delete_snapshot(self, session_id: str, snapshot_id: str, *, user_id: str | None = None) -> bool:
        """Let go of a snapshot, and of the messages that only it held. False if there is none."""
        found = False

        def unpin(record: Record) -> dict[str, Any]:
            nonlocal found
            found = SNAPSHOT + snapshot_id in record.pins
            return {"pins": _without(record.pins, SNAPSHOT + snapshot_id)} if found else {}

        if self.session_exists(session_id, user_id=user_id):
            self._update(session_id, user_id, unpin)
        return found

    def revert_to_snapshot(self, session_id: str, snapshot_id: str, *, user_id: str | None = None) -> bool:
        """Show what the snapshot shows, and go on from there. False if there is no such session or snapshot.

        What was shown until now is remembered (`heads`), with its archive; snapshots stay.
        """
        return self._moved(session_id, user_id, lambda record: snapshot_pins(record).get(snapshot_id))

    def revert_to_message(self, session_id: str, message_index: int, *, user_id: str | None = None) -> bool:
        """Take back all messages after this one, as `revert_to_snapshot` does. False if there is no such message."""
        return self._moved(session_id, user_id, lambda record: up_to(record, message_index))

    def revert(self, session_id: str, ref: str, *, user_id: str | None = None) -> None:
        """Go back to a point: a snapshot (its id, the beginning of it, or its label), an earlier head (`head:3`), or a message
        (`message:5`, by its index).

        Raises `SessionNotFound`, and `PointNotFound` for what names none of them, or several.
        """
        self._move(session_id, user_id, lambda record: self.point_of(record, ref), "revert")

    def undo(self, session_id: str, *, user_id: str | None = None) -> bool:
        """Show again what was shown before the last revert; done twice, it takes itself back. False if there was no revert.

        Raises `SessionNotFound`.
        """
        return self._move(
            session_id, user_id, lambda record: next(iter(reversed(_heads(record).values())), None), "undo"
        )

    def heads(self, session_id: str, *, user_id: str | None = None) -> list[Head]:
        """What the session has shown, the oldest first; the last is what it shows now. Raises `SessionNotFound`."""
        record = self._existing(session_id, user_id)
        earlier = [_head(name, pin) for name, pin in _heads(record).items()]
        return [*earlier, Head("now", record.message_count)]

    # Where sessions come from

    def get_parent(self, session_id: str, *, user_id: str | None = None) -> str | None:
        """The session that this one was forked from, or made below; None if there is none, or not any more."""
        key = self._key(session_id, user_id)
        record = self.engine.get(key)
        parent = record.extra.get("parent_id") if record else None
        found = self.engine.get(Key(key.user_id, parent)) if isinstance(parent, str) else None
        children = found.extra.get("children_ids") if found else None  # another session may have the id by now
        return parent if isinstance(children, list) and key.session_id in children else None

    def get_children(self, session_id: str, *, user_id: str | None = None) -> list[str]:
        """The sessions that come from this one and are still there, the oldest first."""
        record = self.engine.get(self._key(session_id, user_id))
        return [child.session_id for child in self._children(record)] if record else []

    def get_session_tree(self, session_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """The session and all that comes from it: `{"session_id", "title", "message_count", "children": [...]}`.

        Raises `SessionNotFound`.
        """
        root = self._existing(session_id, user_id)
        tree = _node(root)
        seen, waiting = {root.session_id}, [(root, tree)]
        while waiting:
            record, node = waiting.pop()
            for child in self._children(record):
                if child.session_id not in seen:  # files that people edit may say anything
                    seen.add(child.session_id)
                    node["children"].append(_node(child))
                    waiting.append((child, node["children"][-1]))
        return tree

    # Flags and titles

    def share_session(self, session_id: str, *, user_id: str | None = None) -> bool:
        """Mark the session as shared. That is a note for other programs: who may see it does not change."""
        return self._update(session_id, user_id, lambda record: {"extra": record.extra | {"is_shared": True}})

    def unshare_session(self, session_id: str, *, user_id: str | None = None) -> bool:
        """The inverse of `share_session`."""
        return self._update(session_id, user_id, lambda record: {"extra": record.extra | {"is_shared": False}})

    def is_shared(self, session_id: str, *, user_id: str | None = None) -> bool:
        """Whether the session is marked as shared."""
        record = self.engine.get(self._key(session_id, user_id))
        return record is not None and record.extra.get("is_shared") is True

    def set_title(self, session_id: str, title: str, *, user_id: str | None = None) -> bool:
        """`rename_session` by its other name."""
        return self.rename_session(session_id, title, user_id=user_id)

    async def auto_title(
        self, session_id: str, ask: Callable[[str], Awaitable[str]] | None = None, *, user_id: str | None = None
    ) -> bool:
        """Give the session a title if it has none and at least one turn of it was answered. True if it was given one.

        ask: asks a model, such as `Agent(...).achat`; without it, where it fails, takes longer than 10 s or answers with more
        than a title, the title is the user's first words.
        """
        from praisonaiagents.session.titles import auto_title

        return await auto_title(self, session_id, ask, user_id=user_id)

    def get_extended_session(self, session_id: str, *, user_id: str | None = None) -> ExtendedSessionData:
        """The session as a value, with its relations. One that does not exist is empty, and is not made."""
        data = self.get_session(session_id, user_id=user_id)
        record = self.engine.get(Key(data.user_id, data.session_id))
        if record is None:
            return ExtendedSessionData.from_session_data(data)
        source = record.extra.get("forked_from_message_id")
        return ExtendedSessionData.from_session_data(
            data,
            parent_id=record.extra.get("parent_id"),
            forked_from_message_id=None if source is None else str(source),
            children_ids=[child.session_id for child in self._children(record)],
            snapshots=snapshots_of(record),
            is_shared=record.extra.get("is_shared") is True,
            title=title_of(record),
        )

    # Moving

    def export_session(self, session_id: str, *, user_id: str | None = None) -> dict[str, Any]:
        """Everything of the session as one JSON object, with snapshots and earlier heads. Raises `SessionNotFound`."""
        from praisonaiagents.session import transfer

        return transfer.to_dict(self.engine, self._existing(session_id, user_id).key)

    def import_session(
        self, data: Mapping[str, Any], new_session_id: str | None = None, *, user_id: str | None = None
    ) -> str:
        """Make a session of what `export_session` gave, ours or PraisonAI's, and return its id (default: a new UUID).

        It is the user's, and stands alone: without parent and children. Snapshots come along. Raises `SessionExists`,
        `NotASessionFile` for what holds no session.
        """
        from praisonaiagents.session import transfer

        key = conversation_key(str(uuid.uuid4()) if new_session_id is None else new_session_id, user_id)
        alone = transfer.renaming(key.session_id, key.user_id, lineage=False)
        return transfer.import_dict(data, self.engine, alone).session_id

    # Inside

    def _existing(self, session_id: str, user_id: str | None) -> Record:
        key = self._key(session_id, user_id)
        record = self.engine.get(key)
        if record is None:
            raise SessionNotFound(session_id, key.user_id)
        return record

    def _children(self, record: Record) -> list[Record]:
        """The sessions that say so themselves: the list of ids is written first, and one of them may belong to nobody yet."""
        ids = record.extra.get("children_ids")
        names = dict.fromkeys(name for name in ids if isinstance(name, str)) if isinstance(ids, list) else {}
        found = [self.engine.get(Key(record.user_id, name)) for name in names]
        return [child for child in found if child and child.extra.get("parent_id") == record.session_id]

    def _register(self, key: Key, child: str) -> None:
        def add(record: Record) -> dict[str, Any]:
            ids = record.extra.get("children_ids")
            known = ids if isinstance(ids, list) else []
            return {} if child in known else {"extra": record.extra | {"children_ids": [*known, child]}}

        self._update(key.session_id, key.user_id, add)

    def _update(self, session_id: str, user_id: str | None, patch_for: Callable[[Record], dict[str, Any]]) -> bool:
        """Change the record of a session that exists, however many others do the same. Raises `SessionNotFound`."""

        def change() -> None:
            record = self._existing_own(session_id, user_id)
            own = adopted(record)
            if patch := patch_for(msgspec.structs.replace(record, **own)):
                self.engine.update(record.key, own | patch, expected_revision=record.revision)

        retry_on_conflict(change)
        return True

    def _existing_own(self, session_id: str, user_id: str | None) -> Record:
        """An unscoped call that changes something never lands in another user's session."""
        key = _key(session_id, user_id)
        record = self.engine.get(key)
        if record is None:
            raise SessionNotFound(session_id, key.user_id)
        return record

    def _moved(self, session_id: str, user_id: str | None, target: Callable[[Record], Pin | None]) -> bool:
        if self.engine.get(_key(session_id, user_id)) is None:
            return False
        return self._move(session_id, user_id, target, "revert")

    def _move(self, session_id: str, user_id: str | None, target: Callable[[Record], Pin | None], why: str) -> bool:
        """Move the head to the pin that `target` finds, and remember the old one. False if it finds none."""
        found = False

        def change(record: Record) -> dict[str, Any]:
            nonlocal found
            pin = target(record)
            found = pin is not None
            if pin is None or _view(pin) == _view(record.head):
                return {}
            head, info = _shown(pin), {"replaced_at": time.time(), "why": why} | _checkpoint(record)
            patch: dict[str, Any] = {"head": Pin(*_view(head)), "keep": {f"{_HEAD}{_next_number(record)}": info}}
            if why == "undo" and head is pin:  # else it also holds an archive
                patch["pins"] = {name: held for name, held in record.pins.items() if held is not pin}
            beside = _without(record.extra, CHECKPOINT) | (_checkpoint_in(pin.info) or _checkpoint(record, head))
            return patch | ({"extra": beside} if beside != record.extra else {})

        self._update(session_id, user_id, change)
        return found

    def point_of(self, record: Record, ref: str) -> Pin:
        """The history that a text names. Raises `PointNotFound`."""
        check_text("a point", ref)
        if ref in _heads(record):
            return _shown(_heads(record)[ref])
        kind, _, number = ref.partition(":")
        if kind == "message" and number.isdecimal() and (point := up_to(record, int(number))):
            return point
        snapshots = snapshot_pins(record)
        if ref in snapshots:
            return snapshots[ref]
        found = {name for name, pin in snapshots.items() if ref and pin.info.get("label") == ref}
        if not found and len(ref) >= _SHORTEST_PREFIX:
            found = {name for name in snapshots if name.startswith(ref)}
        if len(found) == 1:
            return snapshots[found.pop()]
        raise PointNotFound(record.session_id, ref, tuple(sorted(found)))


_default: tuple[Defaults, HierarchicalSessionStore] | None = None


def get_hierarchical_session_store() -> HierarchicalSessionStore:
    """The store of the default place, one for the whole process; settings as for `get_default_session_store`."""
    global _default
    settings = defaults()
    if _default is None or _default[0] != settings:
        _default = settings, HierarchicalSessionStore(max_messages=settings.max_messages, retention=settings.retention)
    return _default[1]


# Points of a record


def _heads(record: Record) -> dict[str, Pin]:
    return {name: pin for name, pin in record.pins.items() if name.startswith(_HEAD)}


def _head(name: str, pin: Pin) -> Head:
    shown = _shown(pin)
    why = pin.info.get("why")
    return Head(name, shown.length - shown.start, seconds(pin.info, "replaced_at"), why if isinstance(why, str) else "")


def _next_number(record: Record) -> int:
    numbers = [int(number) for name in _heads(record) if (number := name.removeprefix(_HEAD)).isdecimal()]
    return max(numbers, default=0) + 1


def _message(record: Record, index: int) -> Pin:
    """`_up_to`, which raises `ConfigError` if there is no such message."""
    if point := up_to(record, index):
        return point
    raise ConfigError(f"session {record.session_id!r} has messages 0 to {record.message_count - 1}, not {index!r}")


def _shown(pin: Pin) -> Pin:
    """What was visible of a history that was kept with its archive."""
    start = pin.info.get("start")
    is_archived = type(start) is int and pin.start < start <= pin.length
    return msgspec.structs.replace(pin, start=start) if is_archived else pin


def _view(pin: Pin) -> tuple[str, int, int]:
    return pin.log, pin.start, pin.length


def _key(session_id: str, user_id: str | None) -> Key:
    return Key(check_user_id(user_id), check_session_id(session_id))


def _node(record: Record) -> dict[str, Any]:
    return {
        "session_id": record.session_id,
        "title": title_of(record),
        "message_count": record.message_count,
        "updated_at": iso(record.updated_at),
        "children": [],
    }


def _titled(metadata: Mapping[str, Any], title: str | None) -> dict[str, Any]:
    return _without(metadata, "title") | ({"title": title} if title else {}) if title is not None else dict(metadata)


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _checkpoint(record: Record, point: Pin | None = None) -> dict[str, Any]:
    """The session's compaction, if all that it stands for is in the history `point` (None: in the present one)."""
    checkpoint, known = _checkpoint_in(record.extra), checkpoint_of(record)
    if known is None or point is None or known.number > point.length:
        return checkpoint if point is None else {}
    return {CHECKPOINT: {"message_number": known.number} | checkpoint[CHECKPOINT]}  # PraisonAI gives an index alone


def _checkpoint_in(values: Mapping[str, Any]) -> dict[str, Any]:
    return {CHECKPOINT: values[CHECKPOINT]} if isinstance(values.get(CHECKPOINT), dict) else {}
