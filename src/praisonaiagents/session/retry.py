"""Doing again what failed only because somebody else was faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from praisonaiagents.errors import Conflict, NotReplicated, OutcomeUnknown, SessionNotFound
from praisonaiagents.model.record import Key, Record
from praisonaiagents.storage.engine import Engine

T = TypeVar("T")
_FIRST_WAIT_S = 0.001
_LONGEST_WAIT_S = 0.1


def retry_on_conflict(work: Callable[[], T], *, tries: int = 50) -> T:
    """Call `work` until it raises no `Conflict`, and return what it returns. The last of `tries` conflicts is raised.

    `work` must read anew what it decides by, each time:

        def sell() -> None:
            desk = store.open_session("desk")
            if "sold" not in desk.state:
                store.append("desk", [Message("user", "Sell")], expected_length=desk.length)

    Between two tries it waits a random time, at most a millisecond after the first and never more than 0.1 s, so that those
    who got in each other's way do not do so again.
    """
    for attempt in range(1, tries):
        try:
            return work()
        except Conflict:
            import random  # 6 ms that most programs never need

            time.sleep(random.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(attempt, 10))))  # noqa: S311
    return work()


def change_record(engine: Engine, key: Key, patch_for: Callable[[Record], dict[str, Any]]) -> None:
    """Change a record, making the session if need be, however many others change it too.

    patch_for: what is to be changed, see `Engine.update`, in the record as it is now; nothing is written where that is empty.
    It says what is to be and not what is to be added, because it is asked again where an answer got lost.
    """

    def change() -> None:
        record = engine.get(key) or engine.open_session(Record(*key))
        patch = patch_for(record)
        if patch:
            try:
                engine.update(key, patch, expected_revision=record.revision)
            except SessionNotFound:
                raise Conflict("revision of the session", record.revision, 0) from None  # deleted meanwhile

    try:
        retry_on_conflict(change)
    except NotReplicated:
        raise
    except OutcomeUnknown:
        retry_on_conflict(change)
