"""Moving sessions from one place to another, and making sure that they arrived.

    for moved in migrate(open_engine(old), open_engine(new)):
        print(moved.key, moved.outcome)

A session is copied with all it holds, marked as unfinished until it was read again and is the same to the last bit. So a
migration that was killed is simply run again: what is there is left alone, what is unfinished is begun anew.

What a reader would get wrong: the source is only read, and in the target nothing is ever overwritten: a session that differs
from the one of the same name is reported and left alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from praisonaiagents.errors import Conflict, EngineUnreachable, PraisonError, SessionDamage, SessionNotFound
from praisonaiagents.model.ids import check_user_id
from praisonaiagents.model.record import Key
from praisonaiagents.session.parts import UNFINISHED, Outline, base_of, discard, finish, messages, outline, put_together
from praisonaiagents.storage.engine import Engine, every_record

MOVED, THERE, DIFFERS, FAILED, WOULD_MOVE = "moved", "there", "differs", "failed", "would move"
_REMEMBERED = 200_000  # messages, of which a hash is kept each


class Moved(NamedTuple):
    """What became of a session. key: None for what is damaged so that it belongs to nobody.

    outcome: "moved", "there" (it was there already, the same), "differs" (another one of this name is there), "failed"; on a
    dry run "would move". messages: how many it has. problems: what was lost, or went wrong.
    """

    key: Key | None
    outcome: str
    messages: int = 0
    problems: tuple[str, ...] = ()

    @property
    def is_well(self) -> bool:
        """True if all of the session is in the target, or would be."""
        return self.outcome not in (DIFFERS, FAILED) and not self.problems


class Plan(NamedTuple):
    """The sessions to move, the one changed first first, so that the target lists them in the same order."""

    sessions: list[Key]
    problems: tuple[str, ...]


def plan(source: Engine, *, user_id: str | None = None) -> Plan:
    """What there is to move: of all users, or of one."""
    user_id = None if user_id is None else check_user_id(user_id)
    with _damage() as problems:
        keys = dict.fromkeys(record.key for record in every_record(source, user_id))
    return Plan(list(keys)[::-1], tuple(problems))


def migrate(
    source: Engine, target: Engine, *, user_id: str | None = None, dry_run: bool = False, planned: Plan | None = None
) -> Iterator[Moved]:
    """Copy the sessions of all users, or of one, and say of each what became of it.

    What goes wrong with one session stops no other. Raises `EngineUnreachable` where a place cannot be reached at all.
    """
    planned = planned or plan(source, user_id=user_id)
    for problem in planned.problems:
        yield Moved(None, FAILED, problems=(problem,))
    copying = _Copying(source, target, dry_run)
    for key in planned.sessions:
        with _damage() as problems:
            moved = copying.move(key)
        yield moved._replace(problems=(*moved.problems, *problems))


class _Copying:
    """One migration. It remembers the newest copies, so that what a fork shares with them is stored once in the target."""

    def __init__(self, source: Engine, target: Engine, dry_run: bool) -> None:
        self._source = source
        self._target = target
        self._dry_run = dry_run
        self._newest: dict[Key, Outline] = {}

    def move(self, key: Key) -> Moved:
        try:
            found = outline(self._source, key)
            if UNFINISHED in found.record.extra:
                return Moved(
                    key, FAILED, problems=("it is an unfinished copy itself: migrate it again to where it is",)
                )
            there = outline(self._target, key) if self._target.get(key) else None
            outcome = self._compared(there, found) if there else None
            if outcome is None and there and not self._dry_run:
                outcome = self._discarded(there)
            if outcome is None and not self._dry_run:
                self._copy(found)
        except EngineUnreachable:
            raise
        except PraisonError as exc:
            return Moved(key, FAILED, problems=(str(exc),))
        lost = (f"{found.lost} messages could not be read",) if found.lost else ()
        return Moved(key, outcome or (WOULD_MOVE if self._dry_run else MOVED), len(found.digests), lost)

    def _compared(self, there: Outline, found: Outline) -> str | None:
        """What is to be said of a session that is there already; None if it is an unfinished copy."""
        if UNFINISHED in there.record.extra:
            return None if set(there.digests) <= set(found.digests) else DIFFERS  # else somebody went on with it
        return THERE if self._is_same(found, there) else DIFFERS

    def _discarded(self, there: Outline) -> str | None:
        try:
            discard(self._target, there.record)
        except (Conflict, SessionNotFound):
            return DIFFERS  # another migration finished it, or somebody went on with it
        return None

    def _copy(self, found: Outline) -> None:
        header = found.header
        base = base_of(found, [other for key, other in self._newest.items() if key.user_id == header.user_id])
        record = put_together(self._target, header, messages(self._source, found), base=base, finished=False)
        if not self._is_same(found, outline(self._target, record.key)):
            raise _Different(
                f"session {record.session_id!r} is not the same in the target; it is marked as unfinished there"
            )
        finish(self._target, record)

    def _is_same(self, found: Outline, copy: Outline) -> bool:
        with_time = bool(found.header.created_at)
        is_same = found.fingerprint(with_time=with_time) == copy.fingerprint(with_time=with_time)
        if is_same:
            self._newest[copy.record.key] = copy
            while len(self._newest) > 1 and sum(len(each.digests) for each in self._newest.values()) > _REMEMBERED:
                del self._newest[next(iter(self._newest))]
        return is_same


class _Different(PraisonError, RuntimeError):
    """What was read back is not what was written."""


@contextmanager
def _damage() -> Iterator[list[str]]:
    """What engines report as damaged meanwhile."""
    problems: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield problems
        finally:
            told = list(caught)
    for warning in told:
        if issubclass(warning.category, SessionDamage):
            problems.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
