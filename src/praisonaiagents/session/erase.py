"""Erasing: what belongs to a user, or to one session, is deleted, forgotten by the storage, and proved to be gone.

    purged = purge(store, user_id="alice")
    purged.is_clean, purged.left_to_operators

`SessionStore.delete_session` is enough to get rid of a session. This is for those who must be able to say that nothing is
left: it takes far longer, because databases and files are written anew and then read from end to end.

What a reader would get wrong: forks. A fork is a session of its own with the same messages. With the user all of them go;
with one session, its forks stay and keep what they show.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from praisonaiagents.errors import SessionNotFound, StorageError
from praisonaiagents.model.ids import check_session_id, check_user_id
from praisonaiagents.model.message import encode
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session.proof import Proof, Samples, proof, views
from praisonaiagents.session.retry import retry_on_conflict
from praisonaiagents.session.store import SessionStore
from praisonaiagents.storage.engine import Engine, every_record
from praisonaiagents.storage.powers import Forgets, Forgotten, counted

Watch = Callable[[str, int, int], object]
"""Told what is being done, how much of it is done, and how much there is to do (0: unknown)."""

_ROUNDS = 3


class Purged(NamedTuple):
    """What was erased, and what was found afterwards.

    sessions: their ids. messages, size: how many messages they had, archived ones and those of earlier states included, and
    their bytes. problem: why nothing is proved, if so: the storage could not be made to forget or be looked over, or sessions
    are there again. left_to_operators: what only they can do. notes: what stays by intent.
    """

    user_id: str
    sessions: list[str]
    messages: int
    size: int
    problem: str | None
    left_to_operators: list[str]
    proof: Proof
    notes: list[str]

    @property
    def is_clean(self) -> bool:
        """False if a trace was found, or nothing is proved."""
        return not self.proof.left and bool(self.proof.looked_at) and self.problem is None


def purge(
    store: SessionStore, *, user_id: str | None, session_id: str | None = None, watch: Watch | None = None
) -> Purged:
    """Erase all sessions of a user, or one of them, for good. May be repeated, also where nothing is there any more.

    Messages, snapshots, earlier states, archive, search index, what crashes and damage left, and the links of parents and
    children to it. Of one session its id stays where it is part of what other sessions hold: in the metadata of messages that
    were merged into them, and in the title of a fork. Raises `StorageError` if something could not be deleted.
    """
    user = check_user_id(user_id)
    erasing = _Erasing(store.engine, user, session_id, watch or (lambda *_: None))
    if session_id is not None:
        erasing.delete([check_session_id(session_id)])
        _detach(store.engine, user, {session_id})
    else:
        erasing.samples.of_user(user)
        for _ in range(_ROUNDS):  # somebody may make new ones meanwhile
            erasing.delete([record.session_id for record in every_record(store.engine, user)])
    return erasing.end()


class _Erasing:
    """One purge: what was deleted so far."""

    def __init__(self, engine: Engine, user_id: str, session_id: str | None, watch: Watch) -> None:
        self._engine, self._user_id, self._session_id, self._watch = engine, user_id, session_id, watch
        self._deleted: dict[str, None] = {}
        self._messages = self._size = 0
        self.samples = Samples()

    def delete(self, session_ids: Collection[str]) -> None:
        for done, session_id in enumerate(session_ids):
            self._watch("Deleting", done, len(session_ids))
            key = Key(self._user_id, session_id)
            self._take_samples(key)
            if self._engine.delete(key):
                self._deleted[session_id] = None

    def _take_samples(self, key: Key) -> None:
        record = self._engine.get(key)
        self.samples.of_session(record or Record(*key))
        seen: set[bytes] = set()
        for messages in views(self._engine, record) if record else ():
            for message in messages:
                line = encode(message)
                if line not in seen:
                    seen.add(line)
                    self.samples.of_message(message)
                    self._messages += 1
                    self._size += len(line)

    def end(self) -> Purged:
        """Forget, and look."""
        problems, left_to_operators = self._forgotten()
        self._watch("Looking for traces", 0, 0)
        try:
            found = proof(self._engine, self.samples, self._is_to_go)
            problems += self._there_again()
        except StorageError as exc:
            found = Proof({}, 0, 0, [])
            problems.append(f"the storage could not be looked over: {exc}")
        numbers = (self._messages, self._size)
        notes = [_NAMED] if self._session_id is not None else []
        told = "; ".join(problems) or None
        return Purged(self._user_id, list(self._deleted), *numbers, told, left_to_operators, found, notes)

    def _forgotten(self) -> Forgotten:
        if not isinstance(self._engine, Forgets):
            return Forgotten(["this engine can neither be told to forget nor be looked into"], [_UNKNOWN])
        self._watch("Making the storage forget", 0, 0)
        asked_for = () if self._session_id is None else (self._session_id,)
        try:
            problems, left_to_operators = self._engine.forget(self._user_id, {*self._deleted, *asked_for})
        except StorageError as exc:
            return Forgotten([f"the storage could not be made to forget: {exc}"], [_UNKNOWN])
        return Forgotten([f"the storage could not be made to forget: {what}" for what in problems], left_to_operators)

    def _is_to_go(self, key: Key) -> bool:
        return key.user_id == self._user_id and self._session_id in (None, key.session_id)

    def _there_again(self) -> list[str]:
        """Sessions that somebody wrote to while they were erased."""
        count = sum(self._is_to_go(record.key) for record in every_record(self._engine, self._user_id))
        return [f"{counted(count, 'session')} there again: stop what writes to it, and purge again"] if count else []


_UNKNOWN = (
    "this engine can neither be told to forget nor be looked into: what its files, logs and backups keep is for those who "
    "run it"
)
_NAMED = (
    "other sessions may still name it: messages that were merged into them say where they came from, and a fork keeps its "
    "title, such as 'Fork of ...'"
)


def _detach(engine: Engine, user_id: str, gone: set[str]) -> None:
    """Take the ids of erased sessions out of those they came from, and those that came from them."""
    for found in every_record(engine, user_id):
        if _without(found.extra, gone) != found.extra:
            retry_on_conflict(lambda key=found.key: _detach_one(engine, key, gone))  # type: ignore[misc]


def _detach_one(engine: Engine, key: Key, gone: set[str]) -> None:
    record = engine.get(key)
    if record is not None:
        try:
            engine.update(key, {"extra": _without(record.extra, gone)}, expected_revision=record.revision)
        except SessionNotFound:
            return  # deleted meanwhile


def _without(extra: dict[str, Any], gone: set[str]) -> dict[str, Any]:
    kept = dict(extra)
    children = kept.get("children_ids")
    if isinstance(children, list):
        kept["children_ids"] = [child for child in children if child not in gone]
    if kept.get("parent_id") in gone:
        del kept["parent_id"]
        kept.pop("forked_from_message_id", None)
    return kept
