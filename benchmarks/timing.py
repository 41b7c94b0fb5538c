"""Measuring several things in turns, so that the noise of a shared machine hits all of them alike.

A round gives each action a few calls, one action after the other; every second round goes backwards, so nobody always comes
after the same neighbour. A round's value is the median of its calls. Two actions are compared round by round, and the ratio
is the median of those ratios: a slow minute slows both sides of a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter_ns
from typing import NamedTuple

Action = Callable[[], object]
Rounds = dict[str, list[float]]


class Contender(NamedTuple):
    """One action. `reset` is called before each of its rounds, untimed."""

    act: Action
    reset: Action = lambda: None


def in_turns(contenders: Mapping[str, Contender], *, rounds: int, calls: int) -> Rounds:
    """Nanoseconds of a call, a value per round, for each contender."""
    values: Rounds = {name: [] for name in contenders}
    order = list(contenders.items())
    for _, contender in order:
        contender.reset()
        contender.act()  # the first call pays for caches and late imports
    for _ in range(rounds):
        for name, contender in order:
            contender.reset()
            values[name].append(median(timed(contender.act) for _ in range(calls)))
        order.reverse()
    return values


def timed(act: Action) -> int:
    """Nanoseconds of one call."""
    started = perf_counter_ns()
    act()
    return perf_counter_ns() - started


def ratio(values: list[float], base: list[float]) -> float:
    """How many times as much `values` are as `base`, round by round."""
    return median(value / other for value, other in zip(values, base, strict=True))


def excess(values: list[float], base: list[float]) -> float:
    """How much more `values` are than `base`, round by round."""
    return median(value - other for value, other in zip(values, base, strict=True))


def scaled(values: list[float], divisor: float) -> list[float]:
    """The values in another unit."""
    return [value / divisor for value in values]
