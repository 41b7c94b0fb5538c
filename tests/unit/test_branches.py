"""Diff and merge: what two branches share, what comes over, and that nothing is torn, doubled or lost on the way."""

from __future__ import annotations

import json
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import postgres, redis
from wire import Wire

from praisonaiagents import Agent
from praisonaiagents.errors import MergeRefused, PointNotFound, SessionDamage, SessionNotFound
from praisonaiagents.model.message import Message
from praisonaiagents.model.repair import repair
from praisonaiagents.session import HierarchicalSessionStore, SessionStore
from praisonaiagents.session.branches import MERGED, Diff, diff, merge, messages_at
from praisonaiagents.storage.memory import MemoryEngine
from praisonaiagents.testing.llm import Say, ScriptedLLM

PLACES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "memory": lambda path: nullcontext("memory://"),
    "file": lambda path: nullcontext(f"file://{path}/sessions"),
    "sqlite": lambda path: nullcontext(f"sqlite:///{path}/s.db"),
    "postgres": lambda path: postgres.emptied_place(postgres.shared_url()),
    "redis": lambda path: redis.empty_place(),
}


@pytest.fixture(params=PLACES)
def everywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HierarchicalSessionStore]:
    with PLACES[request.param](tmp_path) as url, closing(HierarchicalSessionStore(url=url)) as opened:
        yield opened


@pytest.fixture(params=["memory", "file", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HierarchicalSessionStore]:
    with PLACES[request.param](tmp_path) as url, closing(HierarchicalSessionStore(url=url)) as opened:
        yield opened


def say(store: SessionStore, session_id: str, *questions: str) -> None:
    """A turn for each question, answered with itself in capitals."""
    for question in questions:
        store.append(session_id, [Message("user", question), Message("assistant", question.upper())])


def texts(messages: list[Message]) -> list[Any]:
    return [message.content for message in messages]


def shown(store: SessionStore, session_id: str) -> list[Any]:
    return texts(store.messages(session_id))


def sides(found: Diff) -> tuple[list[Any], list[Any], list[Any]]:
    return texts(found.common), texts(found.a.messages), texts(found.b.messages)


def branches(store: HierarchicalSessionStore) -> None:
    """`a` and its fork `b` share one turn; then each has one of its own."""
    say(store, "a", "one")
    store.fork_session("a", new_session_id="b")
    say(store, "a", "mine")
    say(store, "b", "yours")


def call(*ids: str) -> Message:
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ids]
    return Message("assistant", None, tool_calls=calls)


def result(call_id: str) -> Message:
    return Message("tool", "r", tool_call_id=call_id)


# --- diff ---


def test_a_diff_is_what_both_share_and_then_both_sides(everywhere: HierarchicalSessionStore) -> None:
    branches(everywhere)
    found = diff(everywhere, "a", "b")
    assert sides(found) == (["one", "ONE"], ["mine", "MINE"], ["yours", "YOURS"])
    assert (found.a.first_index, found.b.first_index, found.is_empty) == (2, 2, False)
    told = found.to_dict()
    assert told["common"] == 2
    assert [(m["index"], m["role"], m["content"]) for m in told["b"]["messages"]] == [
        (2, "user", "yours"),
        (3, "assistant", "YOURS"),
    ]
    assert told["a"]["messages"][0]["id"] == everywhere.messages("a")[2].id


def test_two_points_of_one_session_are_compared(everywhere: HierarchicalSessionStore) -> None:
    say(everywhere, "a", "one")
    everywhere.create_snapshot("a", "safe")
    say(everywhere, "a", "two")
    everywhere.revert("a", "safe")
    say(everywhere, "a", "other")
    before = everywhere.list_sessions(None)
    found = diff(everywhere, "a", "a", at_a="head:1")
    assert sides(found) == (["one", "ONE"], ["two", "TWO"], ["other", "OTHER"])
    assert sides(diff(everywhere, "a", "a", at_a="safe", at_b="message:2"))[1:] == ([], ["other"])
    assert everywhere.list_sessions(None) == before  # looking leaves nothing behind


def test_a_snapshot_is_compared_whole_after_its_messages_were_let_go_of(everywhere: HierarchicalSessionStore) -> None:
    say(everywhere, "a", "one", "two")
    everywhere.create_snapshot("a", "safe")
    record = everywhere.engine.get(everywhere._key("a", None))
    assert record is not None
    everywhere.engine.update(record.key, {"start": 2})
    everywhere.engine.drop(record.key)
    found = diff(everywhere, "a", "a", at_a="safe")
    assert sides(found) == (["two", "TWO"], [], [])
    assert found.a.earlier == 2


def test_turns_that_say_the_same_are_the_same_whatever_their_ids(store: HierarchicalSessionStore) -> None:
    say(store, "a", "one", "two")
    say(store, "b", "one", "three")
    assert sides(diff(store, "a", "b")) == (["one", "ONE"], ["two", "TWO"], ["three", "THREE"])
    assert diff(store, "a", "a").is_empty


def test_a_message_with_the_id_of_another_is_not_the_same(store: HierarchicalSessionStore) -> None:
    store.append("a", [Message("user", "x", id="1")])
    store.append("b", [Message("user", "y", id="1")])
    assert sides(diff(store, "a", "b")) == ([], ["x"], ["y"])


def test_a_branch_that_let_go_of_its_beginning_is_still_compared(store: HierarchicalSessionStore) -> None:
    branches(store)
    say(store, "a", "more")
    record = store.engine.get(store._key("a", None))
    assert record is not None
    store.engine.update(record.key, {"start": 2})
    assert sides(diff(store, "a", "b")) == ([], ["mine", "MINE", "more", "MORE"], ["one", "ONE", "yours", "YOURS"])
    store.engine.update(store.engine.get(store._key("b", None)).key, {"start": 1})  # type: ignore[union-attr]
    whole = store.fork_session("b", new_session_id="c")
    say(store, "c", "last")
    store.engine.update(store.engine.get(store._key("b", None)).key, {"start": 2})  # type: ignore[union-attr]
    found = diff(store, whole, "b")
    assert sides(found) == (["yours", "YOURS"], ["last", "LAST"], [])
    assert (found.a.earlier, found.a.first_index, found.b.earlier) == (1, 3, 0)
    assert diff(store, "b", whole).b.earlier == 1


def test_what_is_not_there_cannot_be_compared(store: HierarchicalSessionStore) -> None:
    say(store, "a", "one")
    with pytest.raises(SessionNotFound):
        diff(store, "a", "nowhere")
    with pytest.raises(PointNotFound):
        messages_at(store, "a", "head:7")
    with pytest.raises(SessionNotFound):
        diff(store, "a", "a", user_id="bob")
    assert not store.session_exists("nowhere")


# --- merge ---


def test_a_merge_adds_the_turns_that_only_the_source_has(everywhere: HierarchicalSessionStore) -> None:
    branches(everywhere)
    source = everywhere.messages("b")
    done = merge(everywhere, "a", "b")
    assert shown(everywhere, "a") == ["one", "ONE", "mine", "MINE", "yours", "YOURS"]
    added = everywhere.messages("a")[4:]
    assert done.message_ids == [message.id for message in added]
    marks = [message.metadata[MERGED] for message in added]
    assert [(mark["session_id"], mark["message_id"]) for mark in marks] == [("b", m.id) for m in source[2:]]
    assert all(mark["time"].startswith("20") for mark in marks)
    assert everywhere.messages("b") == source


def test_merging_twice_adds_nothing(everywhere: HierarchicalSessionStore) -> None:
    branches(everywhere)
    merge(everywhere, "a", "b")
    assert merge(everywhere, "a", "b").message_ids == []
    say(everywhere, "b", "later")
    assert len(merge(everywhere, "a", "b").message_ids) == 2
    assert shown(everywhere, "a")[4:] == ["yours", "YOURS", "later", "LATER"]


def test_a_branch_that_only_went_further_is_caught_up_with(store: HierarchicalSessionStore) -> None:
    say(store, "a", "one")
    store.fork_session("a", new_session_id="b")
    say(store, "b", "two")
    merge(store, "a", "b")
    assert diff(store, "a", "b").is_empty
    assert merge(store, "a", "b").message_ids == []


def test_merging_both_ways_brings_nobody_his_own_words(store: HierarchicalSessionStore) -> None:
    branches(store)
    merge(store, "a", "b")
    merge(store, "b", "a")
    assert shown(store, "b") == ["one", "ONE", "yours", "YOURS", "mine", "MINE"]
    assert merge(store, "a", "b").message_ids == []


def test_forks_of_one_source_bring_its_turns_once(store: HierarchicalSessionStore) -> None:
    branches(store)
    store.fork_session("b", new_session_id="b2")
    merge(store, "a", "b")
    say(store, "b2", "more")
    merge(store, "a", "b2")
    assert shown(store, "a") == ["one", "ONE", "mine", "MINE", "yours", "YOURS", "more", "MORE"]


def test_a_copy_keeps_the_mark_of_the_first_one(store: HierarchicalSessionStore) -> None:
    branches(store)
    say(store, "c", "elsewhere")
    merge(store, "b", "c")
    merge(store, "a", "b")
    assert [m.metadata[MERGED]["session_id"] for m in store.messages("a")[4:]] == ["b", "b", "c", "c"]
    assert merge(store, "a", "b").message_ids == []
    assert merge(store, "a", "c").message_ids == []


def test_what_was_merged_and_archived_since_does_not_come_again(store: HierarchicalSessionStore) -> None:
    branches(store)
    merge(store, "a", "b")
    store.engine.update(store._key("a", None), {"start": 6})
    assert merge(store, "a", "b").message_ids == []
    say(store, "b", "later")
    merge(store, "a", "b")
    assert shown(store, "a") == ["later", "LATER"]


def test_a_turn_that_went_on_in_two_ways_comes_with_its_question(store: HierarchicalSessionStore) -> None:
    store.append("a", [Message("user", "q"), Message("assistant", "first")])
    store.fork_session("a", 0, new_session_id="b")
    store.append("b", [Message("assistant", "second")])
    merge(store, "a", "b")
    assert shown(store, "a") == ["q", "first", "q", "second"]
    assert merge(store, "a", "b").message_ids == []


def test_where_there_is_nothing_to_merge_it_says_so(store: HierarchicalSessionStore) -> None:
    say(store, "a", "one")
    store.fork_session("a", new_session_id="b")
    say(store, "a", "two")
    with pytest.raises(MergeRefused, match="'b' has no turn that 'a' does not have"):
        merge(store, "a", "b")
    with pytest.raises(MergeRefused, match="into itself"):
        merge(store, "a", "a")
    with pytest.raises(SessionNotFound):
        merge(store, "nowhere", "a")
    assert shown(store, "a") == ["one", "ONE", "two", "TWO"]
    assert not store.session_exists("nowhere")


def test_an_earlier_point_of_a_session_is_merged_into_it(store: HierarchicalSessionStore) -> None:
    say(store, "a", "one", "two")
    store.revert("a", "message:1")
    say(store, "a", "three")
    merge(store, "a", "a", at="head:1")
    assert shown(store, "a") == ["one", "ONE", "three", "THREE", "two", "TWO"]


def test_another_users_session_is_neither_read_nor_written(store: HierarchicalSessionStore) -> None:
    say(store, "a", "one")
    store.add_user_message("b", "secret", user_id="bob")
    with pytest.raises(SessionNotFound):
        merge(store, "a", "b")
    with pytest.raises(SessionNotFound):
        merge(store, "a", "b", user_id="bob")
    store.add_user_message("a", "mine", user_id="bob")
    merge(store, "a", "b", user_id="bob")
    assert texts(store.messages("a", user_id="bob")) == ["mine", "secret"]
    assert shown(store, "a") == ["one", "ONE"]


# --- tool calls ---


def test_a_session_in_the_middle_of_a_tool_call_is_left_alone(store: HierarchicalSessionStore) -> None:
    branches(store)
    store.append("a", [Message("user", "use it"), call("c1", "c2"), result("c1")])
    before = store.messages("a")
    with pytest.raises(MergeRefused, match=r"'a' waits for the result of a tool call \(c2\)"):
        merge(store, "a", "b")
    with pytest.raises(MergeRefused, match="'a' waits"):
        merge(store, "b", "a")
    assert store.messages("a") == before
    store.append("a", [result("c2"), Message("assistant", "done")])
    merge(store, "a", "b")
    merge(store, "b", "a")


def test_a_source_that_answers_the_call_that_is_open_may_be_caught_up_with(store: HierarchicalSessionStore) -> None:
    store.append("a", [Message("user", "use it"), call("c1")])
    store.fork_session("a", new_session_id="b")
    store.append("b", [result("c1"), Message("assistant", "done")])
    with pytest.raises(MergeRefused, match="'a' waits"):
        merge(store, "a", "b", summary="it went well")
    merge(store, "a", "b")
    assert [message.role for message in store.messages("a")] == ["user", "assistant", "tool", "assistant"]


def test_a_result_never_comes_without_its_call(store: HierarchicalSessionStore) -> None:
    store.append("a", [Message("user", "use it"), call("c1")])
    store.fork_session("a", new_session_id="b")
    store.append("a", [result("c1"), Message("assistant", "A")])
    store.append("b", [result("c1"), Message("assistant", "B")])
    merge(store, "a", "b")
    assert [m.role for m in store.messages("a")[4:]] == ["user", "assistant", "tool", "assistant"]
    say(store, "c", "other")
    store.append("d", [result("lost"), Message("assistant", "D")])
    with pytest.raises(MergeRefused, match="begins with the result of a tool call"):
        merge(store, "c", "d")
    assert merge(store, "c", "d", summary="what came of it").is_summary


def test_a_call_that_was_given_up_long_ago_is_no_obstacle(store: HierarchicalSessionStore) -> None:
    store.append("a", [Message("user", "use it"), call("c1")])
    say(store, "a", "never mind")
    say(store, "b", "yours")
    merge(store, "a", "b")
    assert shown(store, "a")[-2:] == ["yours", "YOURS"]


def reference_file(folder: Path, session_id: str, *contents: str) -> None:
    """A file as PraisonAI writes it: its messages have no ids, and here no times either."""
    messages = [
        {"role": role, "content": text} for role, text in zip(("user", "assistant") * 9, contents, strict=False)
    ]
    (folder / f"{session_id}.json").write_text(json.dumps({"session_id": session_id, "messages": messages}))


def test_messages_without_ids_that_say_the_same_are_not_one(tmp_path: Path) -> None:
    reference_file(tmp_path, "x", *("go on", "ok") * 3)
    reference_file(tmp_path, "y", *("go on", "ok") * 2)
    with closing(HierarchicalSessionStore(tmp_path)) as store:
        say(store, "c", "start")
        assert len(merge(store, "c", "x").message_ids) == 6
        assert len(merge(store, "c", "y").message_ids) == 4
        assert shown(store, "c") == ["start", "START", *("go on", "ok") * 5]
        assert merge(store, "c", "x").message_ids == merge(store, "c", "y").message_ids == []
        assert merge(store, "x", "c").message_ids
        assert shown(store, "x")[6:] == ["start", "START", *("go on", "ok") * 2]


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[HierarchicalSessionStore]:
    """Sessions "a" and its fork "b" with a turn of its own; message 1 of 6, which both have, cannot be read."""
    url = f"sqlite:///{tmp_path}/s.db"
    with closing(HierarchicalSessionStore(url=url)) as opened:
        say(opened, "a", "one", "two", "three")
        opened.fork_session("a", new_session_id="b")
        say(opened, "b", "four")
    with closing(sqlite3.connect(tmp_path / "s.db")) as database, database:
        database.execute("UPDATE message SET body = '{oops' WHERE number = 1")
    with closing(HierarchicalSessionStore(url=url)) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore", SessionDamage)
        yield opened


def test_a_diff_counts_what_cannot_be_read(damaged: HierarchicalSessionStore) -> None:
    found = diff(damaged, "a", "b")
    assert texts(found.common) == ["one", "two", "TWO", "three", "THREE"]
    assert (found.a.first_index, found.a.indices) == (6, [])
    assert (found.b.first_index, found.b.indices) == (6, [6, 7])
    assert [message["index"] for message in found.to_dict()["b"]["messages"]] == [6, 7]
    damaged.create_snapshot("b", "safe")
    damaged.revert("b", f"message:{found.b.indices[0]}")
    assert shown(damaged, "b")[-1] == "four"
    assert diff(damaged, "b", "b", at_b="safe").b.indices == [7]


def test_a_session_with_a_message_that_cannot_be_read_is_merged_into(damaged: HierarchicalSessionStore) -> None:
    merge(damaged, "a", "b")
    assert shown(damaged, "a") == ["one", "two", "TWO", "three", "THREE", "four", "FOUR"]


def test_a_session_that_shows_something_else_by_now_is_looked_at_again(store: HierarchicalSessionStore) -> None:
    branches(store)
    asked: list[list[Any]] = []

    def summarise(part: list[Message]) -> str:
        if not asked:
            store.revert("a", "message:1")
            store.append("a", [Message("user", "yours"), Message("assistant", "YOURS")])  # as long as before
        asked.append(texts(part))
        return "in short"

    with pytest.raises(MergeRefused, match="has no turn"):
        merge(store, "a", "b", summary=summarise)
    assert shown(store, "a") == ["one", "ONE", "yours", "YOURS"]


# --- summaries ---


def test_a_summary_stands_for_the_turns(everywhere: HierarchicalSessionStore) -> None:
    branches(everywhere)
    done = merge(everywhere, "a", "b", summary="They said yours.")
    [message] = everywhere.messages("a")[4:]
    assert done.message_ids == [message.id]
    assert message.role == "user"
    assert message.text() == "Summary of another branch of this conversation, 2 messages:\nThey said yours."
    last = everywhere.messages("b")[-1]
    assert message.metadata[MERGED]["message_id"] == last.id
    assert message.metadata[MERGED]["messages"] == 2
    assert merge(everywhere, "a", "b", summary="In other words.").message_ids == []
    assert merge(everywhere, "a", "b").message_ids == []
    say(everywhere, "b", "later")
    assert len(merge(everywhere, "a", "b").message_ids) == 2
    assert shown(everywhere, "a")[5:] == ["later", "LATER"]


def test_a_summary_is_made_of_what_is_missing_and_only_once(store: HierarchicalSessionStore) -> None:
    branches(store)
    asked: list[list[Any]] = []

    def summarise(part: list[Message]) -> str:
        asked.append(texts(part))
        store.append("a", [Message("user", f"meanwhile {len(asked)}")])  # so that the merge is tried once more
        return "in short"

    merge(store, "a", "b", summary=summarise)
    assert asked == [["yours", "YOURS"]]
    assert shown(store, "a")[4:] == [
        "meanwhile 1",
        "Summary of another branch of this conversation, 2 messages:\nin short",
    ]


def test_a_tool_call_that_begins_while_a_summary_is_made_is_not_torn(store: HierarchicalSessionStore) -> None:
    branches(store)

    def summarise(part: list[Message]) -> str:
        store.append("a", [Message("user", "use it"), call("c1")])
        return "in short"

    with pytest.raises(MergeRefused, match="'a' waits"):
        merge(store, "a", "b", summary=summarise)
    assert len(store.messages("a")) == 6


def test_a_summary_that_fails_or_is_empty_changes_nothing(store: HierarchicalSessionStore) -> None:
    branches(store)
    before = store.get_session("a")

    def fails(part: list[Message]) -> str:
        raise RuntimeError("no model")

    with pytest.raises(RuntimeError):
        merge(store, "a", "b", summary=fails)
    for blank in ("", " \n", lambda part: ""):
        with pytest.raises(MergeRefused, match="summary is empty"):
            merge(store, "a", "b", summary=blank)
    assert store.get_session("a") == before


def test_a_summary_of_ones_own_turns_does_not_come_back(store: HierarchicalSessionStore) -> None:
    branches(store)
    merge(store, "b", "a", summary="mine, in short")
    merge(store, "a", "b")
    assert shown(store, "a") == ["one", "ONE", "mine", "MINE", "yours", "YOURS"]


# --- others at the same time ---


def test_two_merges_at_once_add_each_turn_once(everywhere: HierarchicalSessionStore) -> None:
    branches(everywhere)
    gate = threading.Barrier(3)

    def work(do: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            gate.wait()
            do()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [
        work(lambda: merge(everywhere, "a", "b")),
        work(lambda: merge(everywhere, "a", "b")),
        work(lambda: [everywhere.add_user_message("a", f"n{n}") for n in range(5)]),
    ]
    for thread in threads:
        thread.join()
    after = shown(everywhere, "a")[4:]
    assert sorted(after) == sorted(["yours", "YOURS", *(f"n{n}" for n in range(5))])
    assert after.index("YOURS") == after.index("yours") + 1


# --- any histories ---

_turns = st.lists(st.sampled_from(["answer", "tools", "silent"]), max_size=4)


def turn(name: str, kind: str) -> list[Message]:
    question = Message("user", name, id=name)
    if kind == "silent":
        return [question]
    if kind == "answer":
        return [question, Message("assistant", f"{name}!", id=f"{name}!")]
    return [question, call(f"{name}-c"), result(f"{name}-c"), Message("assistant", f"{name}.", id=f"{name}.")]


@given(shared=_turns, left=_turns, right=_turns, cut=st.integers(0, 40))
def test_after_any_merge_all_is_there_once_and_in_order(
    shared: list[str], left: list[str], right: list[str], cut: int
) -> None:
    store = HierarchicalSessionStore.of(SessionStore(MemoryEngine()))
    store.open_session("a")
    for n, kind in enumerate(shared):
        store.append("a", turn(f"s{n}", kind))
    count = len(store.messages("a"))
    if count:
        store.fork_session("a", cut % count, new_session_id="b")
    else:
        store.open_session("b")
    for side, kinds in (("a", left), ("b", right)):
        for n, kind in enumerate(kinds):
            store.append(side, turn(f"{side}{n}", kind))
    before, source = store.messages("a"), store.messages("b")
    try:
        done = merge(store, "a", "b")
    except MergeRefused:
        assert store.messages("a") == before
        return
    after = store.messages("a")
    assert after[: len(before)] == before
    added = after[len(before) :]
    assert [message.id for message in added] == done.message_ids
    assert [message.to_chat() for message in added] == [message.to_chat() for message in source[-len(added) :]]
    own = [message.to_chat() for message in source if message.id.startswith("b")]
    assert [chat for chat in (message.to_chat() for message in added) if chat in own] == own
    assert merge(store, "a", "b").message_ids == []
    assert store.messages("a") == after
    if before == repair(before) and source == repair(source):
        assert after == repair(after)  # a model would be sent exactly this


# --- what a model is sent afterwards ---


@pytest.mark.parametrize("summary", [None, "They said yours."])
def test_a_model_takes_a_merged_history(wire: Wire, make_agent: Callable[..., Agent], summary: str | None) -> None:
    store = HierarchicalSessionStore.of(SessionStore(MemoryEngine()))
    store.append("a", [Message("user", "one"), call("c1"), result("c1"), Message("assistant", "ONE")])
    store.fork_session("a", new_session_id="b")
    say(store, "a", "mine")
    store.append("b", [Message("user", "yours"), call("c1"), result("c1"), Message("assistant", "YOURS")])
    merge(store, "a", "b", summary=summary)
    with ScriptedLLM([Say("fine")]) as llm:
        assert make_agent(**wire.agent(llm), session_id="a", session_store=store).chat("and now?") == "fine"
    sent = json.dumps(llm.requests[0].body)
    assert "yours" in sent
    assert ("YOURS" in sent) == (summary is None)
