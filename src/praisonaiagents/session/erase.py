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
from praisonaiagents.session.proof import Proof, Samples, proof, records
from praisonaiagents.session.retry import retry_on_conflict
from praisonaiagents.session.store import SessionStore
from praisonaiagents.storage.engine import Engine
from praisonaiagents.storage.powers import Forgets

Watch = Callable[[str, int, int], object]
"""Told what is being done, how much of it is done, and how much there is to do (0: unknown)."""

_ROUNDS = 3


class Purged(NamedTuple):
    """What was erased, and what was found afterwards.

    sessions: their ids. messages, size: how many messages they had, archived ones and those of earlier states included, and
    their bytes. problem: why the storage could not be made to forget, or be looked over, if so. left_to_operators: what only
    they can do.
    """

    user_id: str
    sessions: list[str]
    messages: int
    size: int
    problem: str | None
    left_to_operators: list[str]
    proof: Proof

    @property
    def is_clean(self) -> bool:
        """False if a trace was found, or the storage could not be made to forget or be looked over."""
        return not self.proof.left and self.problem is None


def purge(
    store: SessionStore, *, user_id: str | None, session_id: str | None = None, watch: Watch | None = None
) -> Purged:
    """Erase all sessions of a user, or one of them, for good. May be repeated, also where nothing is there any more.

    Messages, snapshots, earlier states, archive, search index, what crashes and damage left, and the ids in related sessions
    of the user. Raises `StorageError` if something could not be deleted.
    """
    user = check_user_id(user_id)
    erasing = _Erasing(store.engine, user, watch or (lambda *_: None))
    if session_id is not None:
        erasing.delete([check_session_id(session_id)])
        _detach(store.engine, user, {session_id})
    else:
        erasing.samples.of_user(user)
        for _ in range(_ROUNDS):  # somebody may make new ones meanwhile
            erasing.delete([record.session_id for record in records(store.engine, user)])
    return erasing.end([session_id] if session_id is not None else [])


class _Erasing:
    """One purge: what was deleted so far."""

    def __init__(self, engine: Engine, user_id: str, watch: Watch) -> None:
        self._engine, self._user_id, self._watch = engine, user_id, watch
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
        for view in _views(self._engine, record) if record else ():
            for message in view:
                line = encode(message)
                if line not in seen:
                    seen.add(line)
                    self.samples.of_message(message)
                    self._messages += 1
                    self._size += len(line)

    def end(self, asked_for: Collection[str]) -> Purged:
        """Forget, and look."""
        problem, left_to_operators = None, [_UNKNOWN]
        if isinstance(self._engine, Forgets):
            self._watch("Making the storage forget", 0, 0)
            try:
                left_to_operators = self._engine.forget(self._user_id, {*self._deleted, *asked_for})
            except StorageError as exc:
                problem = f"the storage could not be made to forget: {exc}"
        self._watch("Looking for traces", 0, 0)
        try:
            found = proof(self._engine, self.samples)
        except StorageError as exc:
            found, problem = Proof({}, 0, 0, []), problem or f"the storage could not be looked over: {exc}"
        numbers = (self._messages, self._size)
        return Purged(self._user_id, list(self._deleted), *numbers, problem, left_to_operators, found)


_UNKNOWN = (
    "this engine can neither be told to forget nor be looked into: what its files, logs and backups keep is for those who "
    "run it"
)


def _views(engine: Engine, record: Record) -> Any:
    """The messages of everything that a session holds."""
    yield engine.read(record.key, 0).messages
    for pin in record.pins.values():
        yield engine.read(record.key, at=pin).messages


def _detach(engine: Engine, user_id: str, gone: set[str]) -> None:
    """Take the ids of erased sessions out of those they came from, and those that came from them."""
    for found in records(engine, user_id):
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
