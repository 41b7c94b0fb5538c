"""Windows and retention against brute force: try every start, take the first that tears nothing.

Histories here are random, so they also hold what no agent writes: results before their calls, calls inside calls, ids used
again. What a reader would get wrong: a window must start at the same message whether a store looks at the whole history or
only at its end, which is what `lacks_call` is for.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from praisonaiagents.model.message import Message
from praisonaiagents.model.window import (
    before_open_calls,
    lacks_call,
    retention_start,
    turn_starts,
    window,
    window_start,
    without_strays,
)

call_ids = st.sampled_from(["a", "b", "c"])
USER, ANSWER = Message("user", "u"), Message("assistant", "x")


def call(*ids: str) -> Message:
    return Message("assistant", None, tool_calls=[{"id": call_id, "function": {"name": "f"}} for call_id in ids])


def result(call_id: str | None) -> Message:
    return Message("tool", "r", tool_call_id=call_id)


histories = st.lists(
    st.one_of(
        st.just(USER),
        st.just(ANSWER),
        st.just(Message("system", "s")),
        st.lists(call_ids, min_size=1, max_size=2).map(lambda ids: call(*ids)),
        call_ids.map(result),
        call_ids.map(result),
        st.just(result(None)),
    ),
    max_size=14,
)
sizes = st.integers(0, 16)


def _call_of(messages: Sequence[Message], index: int) -> int | None:
    """The last call before a result that it can answer."""
    wanted = messages[index].tool_call_id
    if messages[index].role != "tool" or wanted is None:
        return None
    return next((i for i in range(index - 1, -1, -1) if wanted in [c["id"] for c in messages[i].calls()]), None)


def _torn(messages: Sequence[Message], start: int) -> bool:
    calls = [_call_of(messages, index) for index in range(start, len(messages))]
    return any(index is not None and index < start for index in calls)


def _starts(messages: Sequence[Message], size: int) -> list[int]:
    """Every start of at most `size` messages that tears nothing and begins with no result."""
    first = max(0, len(messages) - size)
    return [i for i in range(first, len(messages)) if messages[i].role != "tool" and not _torn(messages, i)]


@given(histories, sizes)
@example([call("a"), USER, result("a"), ANSWER], 3)
@example([call("a"), call("b"), result("a"), result("b"), ANSWER], 3)
@example([result("a"), result("a"), ANSWER], 3)
def test_a_window_is_the_longest_that_fits(messages: list[Message], size: int) -> None:
    start = window_start(messages, size)
    assert start == min(_starts(messages, size), default=len(messages))
    assert window(messages, size) == messages[start:]
    assert len(window(messages, size)) <= size


@given(histories)
def test_a_window_without_a_size_is_everything(messages: list[Message]) -> None:
    assert window(messages, None) == messages
    assert window(messages, None) is not messages


@pytest.mark.parametrize("size", [0, -1, -100])
def test_a_window_of_nothing_is_empty(size: int) -> None:
    assert window([USER, ANSWER], size) == []
    assert window([], size) == []


@given(histories, st.integers(1, 16))
def test_a_window_needs_no_more_than_lacks_call_says(messages: list[Message], size: int) -> None:
    last = messages[-size:]
    if len(last) == len(messages) or not lacks_call(last):
        assert window(last, size) == window(messages, size)


@given(histories)
def test_lacks_call_means_a_result_inside_answers_something_before(messages: list[Message]) -> None:
    inside = [i for i in range(len(messages)) if any(message.role != "tool" for message in messages[:i])]
    assert lacks_call(messages) == any(messages[i].role == "tool" and _call_of(messages, i) is None for i in inside)


@given(histories, st.integers(1, 16))
@example([ANSWER, USER], 2)
@example([USER, call("a"), call("b"), result("a"), result("b")], 1)
@example([call("a"), USER, result("a"), USER], 2)
def test_retention_cuts_at_turns_and_tears_nothing(messages: list[Message], size: int) -> None:
    start = retention_start(messages, size)
    fitting = _starts(messages, size)
    turns = [i for i in fitting if messages[i].role == "user"]
    if len(messages) <= size:
        assert start == 0
    elif fitting:
        assert start == min(turns or fitting)
    else:
        assert start < len(messages), "the last message always stays"
        assert not _torn(messages, start)
        assert all(_torn(messages, i) for i in range(start + 1, len(messages))), "more stays than must"


@given(histories, st.integers(1, 16))
def test_retention_keeps_to_its_size_where_it_can(messages: list[Message], size: int) -> None:
    if _starts(messages, size):
        assert len(messages) - retention_start(messages, size) <= size


def test_retention_by_example() -> None:
    turn = [USER, call("a", "b"), result("a"), result("b"), ANSWER]
    assert retention_start(turn * 3, 12) == 5
    assert retention_start(turn * 3, 10) == 5
    assert retention_start(turn * 3, 9) == 10
    assert retention_start(turn, 3) == 4
    assert retention_start(turn[:4], 1) == 1
    assert retention_start([], 5) == 0
    assert retention_start([ANSWER] * 3, 1) == 2


@given(histories)
def test_a_turn_starts_where_a_user_speaks_and_nothing_is_torn(messages: list[Message]) -> None:
    expected = [
        index for index, message in enumerate(messages) if message.role == "user" and not _torn(messages, index)
    ]
    assert turn_starts(messages) == expected


@given(histories)
def test_strays_are_results_without_a_call(messages: list[Message]) -> None:
    expected = [
        message
        for index, message in enumerate(messages)
        if message.role != "tool" or _call_of(messages, index) is not None
    ]
    assert without_strays(messages) == expected


@given(histories, sizes)
@example([USER, call("a"), ANSWER, call("b"), result("b")], 1)
def test_calls_that_wait_for_a_result_are_behind_the_cut(messages: list[Message], size: int) -> None:
    start = retention_start(messages, size)
    cut = before_open_calls(messages, start)
    assert cut <= start
    assert not _torn(messages, cut)
    last_turn = max((index for index, message in enumerate(messages) if message.role == "user"), default=-1) + 1
    answered = {
        (_call_of(messages, index), message.tool_call_id)
        for index, message in enumerate(messages)
        if message.role == "tool"
    }
    for index in range(last_turn, cut):
        assert all((index, made["id"]) in answered for made in messages[index].calls())


def test_only_the_last_turn_waits() -> None:
    assert before_open_calls([USER, call("a"), USER, ANSWER], 2) == 2
    assert before_open_calls([USER, call("a"), ANSWER, ANSWER], 3) == 1
    assert before_open_calls([call("a"), call("b"), result("a"), ANSWER], 3) == 0
