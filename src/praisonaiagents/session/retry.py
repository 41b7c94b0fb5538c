"""Doing again what failed only because somebody else was faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from praisonaiagents.errors import Conflict

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
