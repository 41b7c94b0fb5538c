"""Looking a place over: everything is read once more, and compared with what it says of itself.

    checked = verify(store)
    checked.is_whole, checked.findings

What a reader would get wrong: nothing is mended here. A session that its engine has found something wrong with is not even
read, because a reading engine mends what it can. Each finding says what can be done; most damage is mended by the next change
of the session, which sets aside what cannot be read.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from praisonaiagents.errors import PraisonError, SessionDamage, SessionNotFound
from praisonaiagents.model.ids import check_session_id, check_user_id
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.session.erase import Watch
from praisonaiagents.session.parts import UNFINISHED
from praisonaiagents.session.store import CHECKPOINT, SessionStore
from praisonaiagents.storage.engine import Engine, every_record
from praisonaiagents.storage.powers import Audits, Finding, counted

_TRIES = 3
_RESTORE = "what is left can be read; the rest is in a backup, or lost"


class Checked(NamedTuple):
    """What was looked at, and what was found."""

    sessions: int
    messages: int
    findings: list[Finding]

    @property
    def is_whole(self) -> bool:
        """True if nothing is damaged. Notes do not count."""
        return not any(finding.is_damage for finding in self.findings)


def verify(
    store: SessionStore,
    session_id: str | None = None,
    *,
    user_id: str | None = None,
    all_users: bool = False,
    watch: Watch | None = None,
) -> Checked:
    """Look over all sessions of a user, of all users, or one session.

    Raises `SessionNotFound` for a session that is not there, `StorageError` if the place cannot be looked at.
    """
    engine, user = store.engine, None if all_users else check_user_id(user_id)
    looking = _Looking(engine, watch or (lambda *_: None))
    if session_id is not None:
        key = _key(store, check_session_id(session_id), user_id)
        looking.over(*key)
        looking.at([key])
    else:
        looking.over(user, None)
        with _listening(looking.findings, None):
            looking.at([record.key for record in every_record(engine, user)])
    return Checked(looking.sessions, looking.messages, list(dict.fromkeys(looking.findings)))


def _key(store: SessionStore, session_id: str, user_id: str | None) -> Key:
    """Whose session is meant, without opening it where it may be damaged: the engine's own eye goes first."""
    key = Key(check_user_id(user_id), session_id)
    engine = store.engine
    if isinstance(engine, Audits) and any(True for _ in engine.audit(*key)):
        return key
    if engine.get(key) is None and user_id is None and (owners := engine.owners(session_id)):
        return store._key(session_id, None) if len(owners) > 1 else Key(owners[0], session_id)
    if engine.get(key) is None:
        raise SessionNotFound(session_id, key.user_id)
    return key


@contextmanager
def _listening(findings: list[Finding], key: Key | None) -> Iterator[None]:
    """Makes findings of the damage that an engine warns of in the block."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    told = (str(warning.message) for warning in caught if isinstance(warning.message, SessionDamage))
    findings += [Finding(True, what, _RESTORE, key) for what in told]


class _Looking:
    """One look at a place."""

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self._engine, self._watch = engine, watch
        self.findings: list[Finding] = []
        self.sessions = self.messages = 0

    def over(self, user_id: str | None, session_id: str | None) -> None:
        """What only the engine knows of."""
        self._watch("Looking at the storage", 0, 0)
        if isinstance(self._engine, Audits):
            self.findings += self._engine.audit(user_id, session_id)

    def at(self, keys: list[Key]) -> None:
        told = {finding.key for finding in self.findings}
        for done, key in enumerate(keys):
            self._watch("Reading", done, len(keys))
            self.sessions += 1
            if key not in told:  # else reading it might mend it
                self._session(key)

    def _session(self, key: Key) -> None:
        known = len(self.findings)
        try:
            with _listening(self.findings, key):
                found = list(self._checks(key))
        except PraisonError as exc:
            self.findings.append(Finding(True, str(exc), _RESTORE, key))
            return
        if len(self.findings) == known:  # else the engine has told already what is missing
            self.findings += found
        else:
            self.findings += [finding for finding in found if not finding.is_damage]

    def _checks(self, key: Key) -> Iterator[Finding]:
        record, first, messages = self._history(key)
        if record is None:
            return
        self.messages += len(messages)
        yield from _unfinished(record)
        yield from _numbers(record, first, messages)
        for name, pin in record.pins.items():
            yield from self._pin(key, name, pin)
        yield from _checkpoint(record, first)
        yield from self._relations(record)

    def _history(self, key: Key) -> tuple[Record | None, int, list[Message]]:
        """A record, the number of its first message that is kept, and the messages, all at one moment."""
        for _ in range(_TRIES):
            record = self._engine.get(key)
            first, messages = self._engine.read(key, 0)
            if record is None or self._engine.get(key) == record:
                break
        return record, first, messages

    def _pin(self, key: Key, name: str, pin: Pin) -> Iterator[Finding]:
        """A snapshot or an earlier state."""
        wanted = pin.length - pin.start
        kind = "snapshot" if name.startswith("snapshot:") else "earlier state"
        try:
            found = len(self._engine.read(key, at=pin).messages)
        except PraisonError as exc:
            yield Finding(
                True, f"{kind} {name} cannot be read: {exc}", "delete it; the session itself is not touched", key
            )
            return
        if found != wanted:
            yield Finding(True, f"{kind} {name} has {found} of {counted(wanted, 'message')}", _RESTORE, key)

    def _relations(self, record: Record) -> Iterator[Finding]:
        """Parents may be deleted before their children, and the other way round: that is no damage."""
        parent, children = record.extra.get("parent_id"), record.extra.get("children_ids")
        names = [("parent", parent), *(("child", child) for child in (children if isinstance(children, list) else ()))]
        for what, name in names:
            if isinstance(name, str) and self._engine.get(Key(record.user_id, name)) is None:
                yield Finding(False, f"its {what} {name!r} is not there any more", "nothing to do", record.key)


def _unfinished(record: Record) -> Iterator[Finding]:
    """An import or a migration that was killed leaves the session as far as it came."""
    if UNFINISHED in record.extra:
        remedy = "if none is running: run the migration again, or delete the session"
        yield Finding(True, "an import or a migration of it has not ended, messages may be missing", remedy, record.key)


def _numbers(record: Record, first: int, messages: list[Message]) -> Iterator[Finding]:
    wanted = record.length - first
    if not 0 <= first <= record.start <= record.length:
        what = f"its messages are numbered from {first} to {record.length}, and shown from {record.start}"
        yield Finding(True, what, "restore it from a backup", record.key)
    elif len(messages) != wanted:
        yield Finding(True, f"{wanted - len(messages)} of {counted(wanted, 'message')} missing", _RESTORE, record.key)
    twice = [name for name, count in Counter(message.id for message in messages if message.id).items() if count > 1]
    if twice:
        remedy = "both are kept; give them other ids with set_chat_history"
        yield Finding(True, f"several messages have one id: {counted(len(twice), 'time')}", remedy, record.key)


def _checkpoint(record: Record, first: int) -> Iterator[Finding]:
    """The summary that stands for what was said before it must stand somewhere in the history."""
    checkpoint = record.extra.get(CHECKPOINT)
    if checkpoint is None:
        return
    number = checkpoint.get("message_number") if isinstance(checkpoint, dict) else "none"
    if number is not None and not (type(number) is int and 0 <= number <= record.length):
        remedy = "make a new one; until then the whole history goes to the model"
        yield Finding(True, "its last compaction stands outside of its history", remedy, record.key)
