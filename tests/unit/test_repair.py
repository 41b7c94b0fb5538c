"""What a model is sent, for any history that a crash, a bug or another program can leave behind.

`_refusal` below is what providers check: every call directly followed by its results, in order, and no result without a
call. What a reader would get wrong: an id names a call only until another call takes it, because local models number their
calls from 1 in every turn.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from praisonaiagents.model.message import Message
from praisonaiagents.model.repair import INTERRUPTED_RESULT, repair

call_ids = st.sampled_from(["a", "b", "c", ""])
runs = st.sampled_from([None, None, "r1", "r2", ""])


def call(*ids: str, **fields: Any) -> Message:
    calls = [{"id": call_id, "type": "function", "function": {"name": f"f-{call_id}"}} for call_id in ids]
    return Message(**{"role": "assistant", "content": None, "tool_calls": calls, **fields})


def result(call_id: str | None, text: str = "r", **fields: Any) -> Message:
    return Message("tool", text, tool_call_id=call_id, **fields)


malformed: list[Any] = [
    None,
    "x",
    {},
    {"id": 5},
    {"id": "a"},
    {"id": "b", "function": "f"},
    {"id": "c", "function": {"name": 1}},
]
some_messages = st.one_of(
    st.builds(Message, st.sampled_from(["user", "system", "assistant"]), st.sampled_from(["x", "", None]), run_id=runs),
    st.builds(lambda ids, run_id: call(*ids, run_id=run_id), st.lists(call_ids, max_size=3), runs),
    st.builds(lambda calls: call(tool_calls=calls), st.lists(st.sampled_from(malformed), max_size=3)),
    st.builds(result, st.one_of(call_ids, call_ids, st.none()), st.sampled_from(["1", "2"]), run_id=runs),
    st.builds(result, call_ids, run_id=runs, status=st.just("failed")),
    st.builds(Message, st.sampled_from(["user", "assistant"]), st.just("x"), run_id=runs, status=st.just("failed")),
    st.builds(lambda run_id: call("a", run_id=run_id, status="failed"), runs),
)
# numbers tell apart what is equal otherwise
histories = st.lists(some_messages, max_size=14).map(
    lambda messages: [msgspec.structs.replace(m, timestamp=float(n + 1)) for n, m in enumerate(messages)]
)


def _refusal(messages: Sequence[Message]) -> str | None:
    """Why a provider would refuse these messages, or None."""
    open_calls: list[Any] = []
    for message in messages:
        if message.role == "tool":
            if not open_calls or message.tool_call_id != open_calls.pop(0):
                return f"unexpected result {message.tool_call_id!r}"
            continue
        if open_calls:
            return f"no result for {open_calls}"
        if message.role == "assistant" and not message.content and not message.calls():
            return "nothing in it"
        open_calls = [made["id"] for made in message.calls()]
    return f"no result for {open_calls}" if open_calls else None


def _is_made_up(message: Message) -> bool:
    return message.content == INTERRUPTED_RESULT


@given(histories)
@example([call("a"), result(None)])
@example([call(""), result(None)])
@example([call("a", "a"), result("a")])
@example([call("a"), call("a"), result("a")])
def test_a_provider_takes_what_was_repaired(messages: list[Message]) -> None:
    assert _refusal(repair(messages)) is None


@given(histories)
def test_repairing_twice_changes_nothing(messages: list[Message]) -> None:
    once = repair(messages)
    assert repair(once) == once


@given(histories)
def test_the_same_history_gives_the_same_repair_and_stays_as_it_is(messages: list[Message]) -> None:
    before = copy.deepcopy(messages)
    assert repair(messages) == repair(copy.deepcopy(messages))
    assert messages == before


@given(histories)
def test_nothing_but_interrupted_results_is_made_up(messages: list[Message]) -> None:
    repaired = repair(messages)
    real = [message for message in repaired if not _is_made_up(message)]
    assert all(message in messages for message in real)
    assert len({message.timestamp for message in real}) == len(real), "a message twice"


@given(histories)
def test_what_is_said_keeps_its_order(messages: list[Message]) -> None:
    said = [message.timestamp for message in repair(messages) if message.role != "tool"]
    assert said == sorted(said)


@given(histories)
def test_only_failed_turns_and_empty_answers_are_left_out(messages: list[Message]) -> None:
    failed_runs = {m.run_id for m in messages if m.status == "failed" and m.role != "tool" and m.run_id}
    kept = [
        message
        for message in messages
        if message.role != "tool"
        and message.run_id not in failed_runs
        and not (message.status == "failed" and not message.run_id)
        and (message.role != "assistant" or message.content or message.calls())
    ]
    assert [message for message in repair(messages) if message.role != "tool"] == kept


@given(
    st.lists(
        st.one_of(
            st.builds(lambda ids: call(*ids), st.lists(call_ids, min_size=1, max_size=3, unique=True)),
            call_ids.map(result),
        ),
        max_size=12,
    )
)
def test_a_call_gets_the_first_result_before_its_id_is_taken_again(messages: list[Message]) -> None:
    messages = [msgspec.structs.replace(m, timestamp=float(n + 1)) for n, m in enumerate(messages)]
    expected: list[float | None] = []
    for index, message in enumerate(messages):
        for made in message.calls():
            later = messages[index + 1 :]
            taken = [n for n, m in enumerate(later) if made["id"] in [c["id"] for c in m.calls()]]
            answers = [
                m for m in later[: taken[0] if taken else None] if m.role == "tool" and m.tool_call_id == made["id"]
            ]
            expected.append(answers[0].timestamp if answers else None)
    got = [
        None if _is_made_up(message) else message.timestamp for message in repair(messages) if message.role == "tool"
    ]
    assert got == expected


def test_results_follow_in_the_order_of_the_calls() -> None:
    question = Message("user", "?")
    messages = [question, call("a", "b"), result("b", "B"), Message("user", "meanwhile"), result("a", "A")]
    assert [message.content for message in repair(messages)] == ["?", None, "A", "B", "meanwhile"]


def test_a_call_without_a_result_was_interrupted() -> None:
    (made, synthetic) = repair([call("a", timestamp=5.0, run_id="r")])
    assert made.calls()[0]["id"] == "a"
    assert synthetic == Message(
        "tool", INTERRUPTED_RESULT, 5.0, tool_call_id="a", name="f-a", run_id="r", status="interrupted"
    )


def test_ids_used_again_in_every_turn() -> None:
    messages = [call("1"), result("1", "first"), Message("assistant", "x"), call("1"), result("1", "second")]
    assert repair(messages) == messages
    assert [m.content for m in repair([messages[0], *messages[3:]])] == [None, INTERRUPTED_RESULT, None, "second"]


def test_the_second_result_of_a_call_is_left_out() -> None:
    assert [m.content for m in repair([call("a"), result("a", "1"), result("a", "2")])] == [None, "1"]


@pytest.mark.parametrize("orphan", [result("z"), result(None), result("")])
def test_a_result_without_a_call_is_left_out(orphan: Message) -> None:
    user = Message("user", "x")
    assert repair([orphan, user]) == [user]
    assert repair([call("a"), orphan, result("a")]) == [call("a"), result("a")]


def test_a_result_before_its_call_is_left_out() -> None:
    assert [m.content for m in repair([result("a", "early"), call("a")])] == [None, INTERRUPTED_RESULT]


def test_a_failed_turn_is_left_out_whole() -> None:
    turn = [Message("user", "u", run_id="r"), call("a", run_id="r"), result("a", run_id="r")]
    failed = Message("assistant", None, run_id="r", status="failed")
    other = [Message("user", "v", run_id="s"), Message("assistant", "w", run_id="s")]
    assert repair([*turn, failed, *other]) == other
    assert repair([msgspec.structs.replace(turn[0], status="failed"), *turn[1:], *other]) == other


def test_a_failed_tool_is_no_failed_turn() -> None:
    turn = [Message("user", "u", run_id="r"), call("a", run_id="r"), result("a", run_id="r", status="failed")]
    assert repair(turn) == turn


def test_a_partial_answer_is_kept_and_an_empty_one_is_not() -> None:
    partial = Message("assistant", "I was ab", status="interrupted")
    assert repair([partial, Message("assistant", "", status="interrupted"), Message("assistant", None)]) == [partial]
