"""What several processes see of one session is what they would see of one list that changes step by step."""

from __future__ import annotations

import pytest

from .databases import KINDS, place
from .linear import CALLS, PROCESSES, Call, _overlap, faults, record

HISTORIES = 40


@pytest.mark.parametrize("kind", KINDS)
def test_histories_are_linearizable(kind: str) -> None:
    overlapping = 0
    with place(kind) as url:
        for history, final in record(url, HISTORIES, kind):
            assert len(history) == PROCESSES * CALLS
            assert faults(history, final) == []
            overlapping += _overlap(history)
    assert overlapping > HISTORIES  # else nothing was shown


def _call(kind: str, began: int, ended: int, length: int, *texts: str) -> Call:
    return Call(kind, began, ended, length, "" if kind == "read" else "".join(texts), texts if kind == "read" else ())


GOOD = [
    _call("append", 0, 5, 1, "a"),
    _call("append", 1, 9, 2, "b"),
    _call("read", 2, 3, 0),
    _call("read", 4, 6, 2, "a", "b"),
    _call("conflict", 5, 7, 1),
]


def test_calls_at_the_same_time_may_come_in_any_order() -> None:
    assert faults(GOOD, ["a", "b"]) == []


@pytest.mark.parametrize(
    ("wrong", "final"),
    [
        ([*GOOD, _call("read", 10, 11, 1, "a")], ["a", "b"]),
        ([*GOOD, _call("conflict", 10, 11, 1)], ["a", "b"]),
        ([*GOOD, _call("append", 10, 11, 2, "c")], ["a", "b"]),
        ([_call("append", 0, 1, 2, "b"), _call("append", 2, 3, 1, "a")], ["a", "b"]),
        ([_call("read", 0, 1, 1, "a"), _call("append", 2, 3, 1, "a")], ["a"]),
        (GOOD, ["a"]),
        (GOOD, ["b", "a"]),
        (GOOD, ["a", "b", "c"]),
        ([*GOOD, _call("read", 10, 11, 2, "b", "a")], ["a", "b"]),
    ],
    ids=[
        *("a stale read", "a stale conflict", "an append that is not there", "appends the wrong way round"),
        *("a read of the future", "a lost message", "another order", "an invented message", "a read in another order"),
    ],
)
def test_the_checker_finds_what_no_list_would_answer(wrong: list[Call], final: list[str]) -> None:
    assert faults(wrong, final) != []
