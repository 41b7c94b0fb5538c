"""Where a history ends: a point in an append-only log.

    Point = (log, length)      the first `length` messages as seen from this log, its parents' included
    Log   = id, base, own      `own` messages, numbered base.length, base.length + 1, ...

A session's history is one point. Forking makes a log whose base is a point; reading walks the bases, as deep as there are
forks, never as deep as there are messages. `cut` is the whole algebra: the same history, shortened, is again a point, and
it lies in the oldest log that still holds all of it, so that a fork of a fork does not keep its parents alive for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Point(NamedTuple):
    """The first `length` messages, as seen from log `log`."""

    log: str
    length: int


class Log(NamedTuple):
    """An append-only log: `own` messages on top of `base`."""

    base: Point | None
    own: int

    @property
    def first(self) -> int:
        """The number of the first message of the log's own."""
        return self.base.length if self.base else 0

    @property
    def length(self) -> int:
        """The number of the message that would come next."""
        return self.first + self.own


class Segment(NamedTuple):
    """Messages `start` to `stop` (exclusive), all of them in log `log`'s own part."""

    log: str
    start: int
    stop: int


def cut(logs: Mapping[str, Log], point: Point, length: int) -> Point:
    """The point that holds the first `length` messages of `point`.

    Raises `ValueError` if `length` is negative or beyond the point.
    """
    if not 0 <= length <= point.length:
        raise ValueError(f"cannot cut {point.length} messages to {length}")
    while (base := logs[point.log].base) and length <= base.length:
        point = base
    return Point(point.log, length)


def segments(logs: Mapping[str, Log], point: Point, start: int = 0, stop: int | None = None) -> list[Segment]:
    """Where messages `start` to `stop` of a history lie, oldest first. Bounds beyond the history are clipped."""
    stop = point.length if stop is None else min(stop, point.length)
    found: list[Segment] = []
    log: str | None = point.log
    while log is not None and stop > start:
        base, first = logs[log].base, logs[log].first
        if stop > first:
            found.append(Segment(log, max(start, first), stop))
            stop = max(start, first)
        log = base.log if base else None
    return found[::-1]


def unreached(logs: Mapping[str, Log], views: Iterable[Segment]) -> list[Segment]:
    """What can be freed: the parts of the logs' own messages that none of `views` shows, in the order of `logs`.

    A view shows messages `start` to `stop` as seen from a log. All views that see any of the logs must be among them.
    """
    seen: dict[str, list[Segment]] = {name: [] for name in logs}
    for view in views:
        for segment in segments(logs, Point(view.log, view.stop), view.start):
            seen[segment.log].append(segment)
    return [gap for name, log in logs.items() for gap in _gaps(name, log, sorted(seen[name]))]


def _gaps(name: str, log: Log, seen: list[Segment]) -> Iterable[Segment]:
    position = log.first
    for segment in seen:
        if segment.start > position:
            yield Segment(name, position, segment.start)
        position = max(position, segment.stop)
    if position < log.length:
        yield Segment(name, position, log.length)
