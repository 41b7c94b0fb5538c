"""Are the answers of several processes those of one list that changed step by step?

    python -m tests.crash.linear --histories 200 --engine postgres

Six processes append to one session and read it, at the same time, and note when each call began and ended (one clock for all
processes: CLOCK_MONOTONIC). A history is linearizable (Herlihy and Wing, 1990) if its calls can be put into an order in
which each gives the answer of a plain list, and in which no call comes before one that had ended when it began.

For a list that only grows that order can be told from the answers: an append says its position, a read how much it saw. So it
is enough to look for two calls of which one ended before the other began, although their answers say it came later.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from praisonaiagents.session import open_store

from .children import PATIENCE_S, Child
from .databases import KINDS, place

PROCESSES = 6
CALLS = 4  # of each process in one history


class Call(NamedTuple):
    """One call: when it began and ended, in ns, what it was, and what it answered.

    kind: "append" (`length` is what the session held after it), "read" (`length` messages were seen, named in `seen`), or
    "conflict" (a refused append: `length` is what the store said it held).
    """

    kind: str
    began: int
    ended: int
    length: int
    text: str = ""
    seen: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[int, bool]:
        """Where in the order of all calls this one belongs: an append that makes `length` comes before who sees it."""
        return self.length, self.kind != "append"


def faults(history: Sequence[Call], final: Sequence[str]) -> list[str]:
    """What is wrong with a history that ended with the messages `final`; empty if it is linearizable."""
    return [*_answers(history, final), *_order(history)]


def _answers(history: Sequence[Call], final: Sequence[str]) -> Iterator[str]:
    """Answers that no list could have given, in whatever order."""
    appended = sorted((call for call in history if call.kind == "append"), key=lambda call: call.length)
    if [call.length for call in appended] != list(range(1, len(final) + 1)):
        yield f"appends say they made {[call.length for call in appended]}, and {len(final)} messages are there"
    for call in appended:
        if final[call.length - 1 : call.length] != [call.text]:
            yield f"the append that made {call.length} is not there"
    for call in history:
        if call.kind == "read" and list(call.seen) != list(final[: call.length]):
            yield f"a read of {call.length} messages saw others than these"


def _order(history: Sequence[Call]) -> Iterator[str]:
    """Calls that ended before another began, and whose answer says that they came after it."""
    for earlier in history:
        for later in history:
            if earlier.ended < later.began and earlier.place > later.place:
                yield f"{earlier.kind} {earlier.length} ended before {later.kind} {later.length} began"


def record(url: str, histories: int, seed: str) -> Iterator[tuple[list[Call], list[str]]]:
    """Histories of processes that work on one session each, and what the session held in the end."""
    children = [Child("histories", url=url, author=str(number), seed=seed) for number in range(PROCESSES)]
    for child in children:
        child.begin()
    with closing(open_store(url, lock_timeout=PATIENCE_S)) as store:
        for number in range(histories):
            for child in children:
                child.tell(f"{seed}-{number}")
            calls = [Call(*values) for child in children for values in child.hear()]
            history = [call._replace(seen=tuple(call.seen)) for call in calls]
            yield history, [message.text() for message in store.messages(f"{seed}-{number}")]
    for child in children:
        child.end()


def work(store: Any, session_id: str, author: str, chance: random.Random) -> Iterator[Call]:
    """The calls of one process in one history."""
    import time

    from praisonaiagents.errors import Conflict
    from praisonaiagents.model.message import Message

    known = 0
    for number in range(CALLS):
        text = f"{author}/{number}"
        kind = chance.choice(("append", "append if", "read"))
        began = time.monotonic_ns()
        try:
            if kind == "read":
                seen = [message.text() for message in store.messages(session_id)]
                call = Call("read", began, time.monotonic_ns(), len(seen), seen=tuple(seen))
            else:
                expected = known if kind == "append if" else None
                length = store.append(session_id, [Message("user", text)], expected_length=expected).length
                call = Call("append", began, time.monotonic_ns(), length, text)
        except Conflict as conflict:
            call = Call("conflict", began, time.monotonic_ns(), conflict.found)
        known = call.length
        yield call


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.linear", description="Check histories of six processes."
    )
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument("--engine", choices=KINDS, action="append")
    arguments = parser.parse_args()
    wrong = 0
    for kind in arguments.engine or KINDS:
        with place(kind) as url:
            found = [(history, faults(history, final)) for history, final in record(url, arguments.histories, "linear")]
        broken = [fault for _, all_ in found for fault in all_]
        calls = [call for history, _ in found for call in history]
        overlapping = sum(_overlap(history) for history, _ in found)
        print(
            f"{kind:>9}: {len(found)} histories, {len(calls):,} calls, {overlapping:,} pairs at the same time, "
            f"{sum(call.kind == 'conflict' for call in calls):,} conflicts, {len(broken)} faults"
        )
        wrong += len(broken)
        print(*broken[:10], sep="\n", end="\n" if broken else "")
    return 1 if wrong else 0


def _overlap(history: Sequence[Call]) -> int:
    """How many pairs of calls were under way at the same time. Without any, a history shows little."""
    return sum(
        one.began <= other.ended and other.began <= one.ended
        for number, one in enumerate(history)
        for other in history[:number]
    )


if __name__ == "__main__":
    sys.exit(main())
