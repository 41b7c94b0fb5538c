"""Points and logs against the plainest model: a log is a list that begins as a copy of a part of another list.

Each message in the model is (log it was appended to, number), so a wrong log and a wrong number both show.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praisonaiagents.model.points import Log, Point, Segment, cut, segments, unreached

Histories = dict[str, list[tuple[str, int]]]


@st.composite
def forests(draw: st.DrawFn) -> tuple[dict[str, Log], Histories]:
    """Logs with forks of forks, and what each one holds."""
    logs: dict[str, Log] = {}
    held: Histories = {}
    for number in range(draw(st.integers(1, 7))):
        name = f"log{number}"
        base = None
        if number and draw(st.booleans() | st.just(True)):
            parent = draw(st.sampled_from(sorted(logs)))
            base = Point(parent, draw(st.integers(0, len(held[parent]))))
        before = held[base.log][: base.length] if base else []
        own = draw(st.integers(0, 4))
        logs[name] = Log(base, own)
        held[name] = before + [(name, len(before) + index) for index in range(own)]
    return logs, held


@st.composite
def points(draw: st.DrawFn) -> tuple[dict[str, Log], Point, list[tuple[str, int]]]:
    """Some logs, a point in one of them, and its history."""
    logs, held = draw(forests())
    name = draw(st.sampled_from(sorted(logs)))
    length = draw(st.integers(0, len(held[name])))
    return logs, Point(name, length), held[name][:length]


def _expanded(found: list[Segment]) -> list[tuple[str, int]]:
    return [(segment.log, number) for segment in found for number in range(segment.start, segment.stop)]


@given(forests())
def test_a_log_knows_its_numbers(forest: tuple[dict[str, Log], Histories]) -> None:
    logs, held = forest
    for name, log in logs.items():
        assert log.length == len(held[name])
        assert log.first == len(held[name]) - log.own


@given(points(), st.integers(-3, 25), st.none() | st.integers(-3, 25))
def test_segments_are_a_slice_of_the_history(
    found: tuple[dict[str, Log], Point, list[tuple[str, int]]], start: int, stop: int | None
) -> None:
    logs, point, history = found
    expected = [
        message for number, message in enumerate(history) if number >= start and (stop is None or number < stop)
    ]
    got = segments(logs, point, start, stop)
    assert _expanded(got) == expected
    assert all(segment.start < segment.stop for segment in got), "an empty segment"
    assert len({segment.log for segment in got}) == len(got), "a log twice"


@given(points(), st.data())
def test_cut_shortens_a_history(
    found: tuple[dict[str, Log], Point, list[tuple[str, int]]], data: st.DataObject
) -> None:
    logs, point, history = found
    length = data.draw(st.integers(0, len(history)))
    shorter = cut(logs, point, length)
    assert shorter.length == length
    assert _expanded(segments(logs, shorter)) == history[:length]
    assert cut(logs, shorter, length) == shorter
    again = data.draw(st.integers(0, length))
    assert cut(logs, shorter, again) == cut(logs, point, again)


@given(points(), st.data())
def test_cut_ends_in_the_oldest_log_that_holds_it(
    found: tuple[dict[str, Log], Point, list[tuple[str, int]]], data: st.DataObject
) -> None:
    logs, point, history = found
    length = data.draw(st.integers(0, len(history)))
    log = cut(logs, point, length).log
    if length:
        assert log == history[length - 1][0]
    else:
        assert logs[log].base is None


@given(points(), st.integers(1, 5))
def test_cut_takes_only_lengths_within_the_point(
    found: tuple[dict[str, Log], Point, list[tuple[str, int]]], beyond: int
) -> None:
    logs, point, _ = found
    for length in (-beyond, point.length + beyond):
        with pytest.raises(ValueError, match="cannot cut"):
            cut(logs, point, length)


@st.composite
def views(draw: st.DrawFn) -> tuple[dict[str, Log], list[Segment], set[tuple[str, int]]]:
    """Some logs, parts of what is seen from them, and the messages that are in those."""
    logs, held = draw(forests())
    found: list[Segment] = []
    seen: set[tuple[str, int]] = set()
    for _ in range(draw(st.integers(0, 8))):
        name = draw(st.sampled_from(sorted(logs)))
        start, stop = draw(st.integers(0, len(held[name]) + 1)), draw(st.integers(0, len(held[name])))
        found.append(Segment(name, start, stop))
        seen.update(held[name][start:stop])
    return logs, found, seen


@given(views())
def test_what_no_view_shows_is_unreached(found: tuple[dict[str, Log], list[Segment], set[tuple[str, int]]]) -> None:
    logs, given_views, seen = found
    everything = {(name, number) for name, log in logs.items() for number in range(log.first, log.length)}
    free = unreached(logs, given_views)
    assert sorted(_expanded(free)) == sorted(everything - seen)
    assert all(segment.start < segment.stop for segment in free), "an empty gap"
    assert [segment.log for segment in free] == [n for n in logs for segment in free if segment.log == n]
    for one, other in pairwise(free):
        assert one.log != other.log or one.stop < other.start, "gaps that touch are one"


@given(views(), st.data())
def test_letting_go_of_a_view_frees_what_it_alone_showed(
    found: tuple[dict[str, Log], list[Segment], set[tuple[str, int]]], data: st.DataObject
) -> None:
    logs, given_views, _ = found
    before = set(_expanded(unreached(logs, given_views)))
    gone = data.draw(st.sampled_from([*given_views, Segment(sorted(logs)[0], 0, 0)]))
    left = [view for view in given_views if view != gone]
    freed = set(_expanded(unreached(logs, left))) - before
    shown = set(_expanded(segments(logs, Point(gone.log, gone.stop), gone.start)))
    others = {m for view in left for m in _expanded(segments(logs, Point(view.log, view.stop), view.start))}
    assert freed == shown - others


def test_what_is_unreached_lies_at_the_head_in_the_middle_and_at_the_end() -> None:
    logs = {"a": Log(None, 10), "b": Log(Point("a", 4), 3), "c": Log(None, 0)}
    given_views = [Segment("b", 2, 6), Segment("a", 6, 9), Segment("a", 7, 8)]
    assert unreached(logs, given_views) == [
        Segment("a", 0, 2),
        Segment("a", 4, 6),
        Segment("a", 9, 10),
        Segment("b", 6, 7),
    ]
    assert unreached(logs, []) == [Segment("a", 0, 10), Segment("b", 4, 7)]
    assert unreached({}, []) == []


def test_a_log_may_be_based_on_the_middle_of_another() -> None:
    logs: dict[str, Any] = {"a": Log(None, 5), "b": Log(Point("a", 3), 2), "c": Log(Point("b", 4), 0)}
    assert segments(logs, Point("c", 4)) == [Segment("a", 0, 3), Segment("b", 3, 4)]
    assert segments(logs, Point("c", 4), 1, 3) == [Segment("a", 1, 3)]
    assert cut(logs, Point("c", 4), 4) == Point("b", 4)
    assert cut(logs, Point("c", 4), 3) == Point("a", 3)
