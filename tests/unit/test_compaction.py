"""Compaction: what a summary stands for, what stays, and that nothing is ever told at third hand, torn or lost.

The summariser of most tests writes down the ids it was given, so that a summary says what it was made from.
"""

from __future__ import annotations

import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import postgres, redis

from praisonaiagents.errors import ConfigError, ModelError, OutcomeUnknown, SessionDamage, SessionNotFound
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session import HierarchicalSessionStore, SessionStore
from praisonaiagents.session.checkpoint import CHECKPOINT, HEADING, Part, checkpoint_of
from praisonaiagents.session.compaction import Policy, compact, estimate_tokens, find, finish
from praisonaiagents.session.conversation import StoredConversation
from praisonaiagents.storage.memory import MemoryEngine

KEY = Key("default_user", "s")
PLACES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "memory": lambda path: nullcontext("memory://"),
    "file": lambda path: nullcontext(f"file://{path}/sessions"),
    "sqlite": lambda path: nullcontext(f"sqlite:///{path}/s.db"),
    "postgres": lambda path: postgres.emptied_place(postgres.shared_url()),
    "redis": lambda path: redis.empty_place(),
}


@pytest.fixture(params=PLACES)
def everywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HierarchicalSessionStore]:
    with PLACES[request.param](tmp_path) as url, closing(HierarchicalSessionStore(url=url)) as store:
        yield store


@pytest.fixture(params=["memory", "file", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HierarchicalSessionStore]:
    with PLACES[request.param](tmp_path) as url, closing(HierarchicalSessionStore(url=url)) as store:
        yield store


class Scribe:
    """A summariser that writes down what it was given."""

    def __init__(self) -> None:
        self.read: list[list[Any]] = []

    def __call__(self, messages: Sequence[Message]) -> str:
        self.read.append([message.content for message in messages])
        return "+".join(message.id for message in messages)


def talk(store: SessionStore, turns: int, first: int = 0, session_id: str = "s") -> None:
    for n in range(first, first + turns):
        store.append(session_id, [Message("user", f"q{n}", id=f"u{n}"), Message("assistant", f"a{n}", id=f"b{n}")])


def calling(*ids: str) -> Message:
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ids]
    return Message("assistant", None, tool_calls=calls)


def result(call_id: str, text: str = "r") -> Message:
    return Message("tool", text, tool_call_id=call_id)


def working(store: SessionStore, **options: Any) -> list[Any]:
    return [message["content"] for message in store.get_working_history("s", **options)]


def test_a_summary_stands_for_what_is_older_and_all_of_it_stays(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    talk(store, 5)
    done = compact(store, "s", Scribe(), keep_last=4)
    assert done is not None
    assert (done.messages, done.kept, done.session_id, done.user_id) == (6, 4, "s", "default_user")
    assert working(store) == [f"{HEADING}\n\nu0+b0+u1+b1+u2+b2", "q3", "a3", "q4", "a4"]
    assert [message.content for message in store.messages("s")][:3] == ["q0", "a0", "q1"]
    assert store.search("q1")[0].message_id == "u1"
    talk(store, 1, first=5)
    assert working(store)[-2:] == ["q5", "a5"]


def test_the_checkpoint_points_back(store: HierarchicalSessionStore) -> None:
    talk(store, 5)
    compact(store, "s", Scribe(), keep_last=4)
    record = store.open_session("s")
    stored = record.extra[CHECKPOINT]
    assert (stored["first_message_id"], stored["last_message_id"], stored["message_number"]) == ("u0", "b2", 6)
    assert stored["message_index"] == 6
    checkpoint = checkpoint_of(record)
    assert checkpoint is not None
    assert checkpoint.parts == (Part("u0+b0+u1+b1+u2+b2", 0, 6, "u0", "b2"),)


def test_the_next_summary_is_made_from_the_messages_again(everywhere: HierarchicalSessionStore) -> None:
    store, scribe = everywhere, Scribe()
    talk(store, 4)
    compact(store, "s", scribe, keep_last=2)
    talk(store, 2, first=4)
    compact(store, "s", scribe, keep_last=2)
    assert scribe.read[1] == ["q0", "a0", "q1", "a1", "q2", "a2", "q3", "a3", "q4", "a4"]
    assert working(store) == [f"{HEADING}\n\n{'+'.join(f'u{n}+b{n}' for n in range(5))}", "q5", "a5"]


def test_a_stretch_that_is_full_is_not_told_again(store: HierarchicalSessionStore) -> None:
    scribe = Scribe()
    each = estimate_tokens(Message("user", "q0"))
    for turns in range(2, 12):
        talk(store, 1, first=turns - 2)
        compact(store, "s", scribe, keep_last=2, source_tokens=6 * each)
    checkpoint = checkpoint_of(store.open_session("s"))
    assert checkpoint is not None
    assert [(part.first, part.stop) for part in checkpoint.parts] == [(0, 6), (6, 12), (12, 18)]
    assert [part.summary for part in checkpoint.parts][:2] == ["u0+b0+u1+b1+u2+b2", "u3+b3+u4+b4+u5+b5"]
    assert max(map(len, scribe.read)) <= 6
    assert scribe.read.count(["q0", "a0", "q1", "a1", "q2", "a2"]) == 1
    assert not [text for texts in scribe.read for text in texts if HEADING in text or "+" in text]


def test_a_long_history_is_told_in_parts(store: HierarchicalSessionStore) -> None:
    scribe = Scribe()
    talk(store, 7)
    each = estimate_tokens(Message("user", "q0"))
    compact(store, "s", scribe, keep_last=2, source_tokens=4 * each)
    assert [texts[0] for texts in scribe.read] == ["q0", "q2", "q4"]
    assert working(store)[0] == "\n\n".join([HEADING, "u0+b0+u1+b1", "u2+b2+u3+b3", "u4+b4+u5+b5"])


def test_nothing_to_compact(store: HierarchicalSessionStore) -> None:
    talk(store, 2)
    scribe = Scribe()
    assert compact(store, "s", scribe, keep_last=4) is None
    assert compact(store, "s", scribe, keep_last=None) is None
    assert compact(store, "s", scribe, keep_last=2) is not None
    assert compact(store, "s", scribe, keep_last=2) is None
    assert compact(store, "s", scribe, keep_last=3) is None
    assert len(scribe.read) == 1
    store.open_session("empty")
    assert compact(store, "empty", scribe) is None
    with pytest.raises(SessionNotFound):
        compact(store, "none", scribe)


@pytest.mark.parametrize("limits", [{"keep_last": 0}, {"keep_tokens": -1}, {"source_tokens": True}, {"keep_last": "4"}])
def test_limits_that_make_no_sense_are_refused(limits: Any) -> None:
    store = SessionStore(MemoryEngine())
    talk(store, 2)
    with pytest.raises(ConfigError):
        compact(store, "s", Scribe(), **limits)


def test_a_token_budget_bounds_what_stays(store: HierarchicalSessionStore) -> None:
    store.append("s", [Message("user", "x" * 4_000), Message("assistant", "y" * 4_000)])
    talk(store, 3)
    done = compact(store, "s", Scribe(), keep_last=None, keep_tokens=100)
    assert done is not None
    assert (done.messages, done.kept) == (2, 6)
    assert done.tokens_before > 2_000 > done.tokens_after
    stored = store.open_session("s").extra[CHECKPOINT]
    assert (stored["tokens_before"], stored["tokens_after"]) == (done.tokens_before, done.tokens_after)


def test_the_caller_may_count(store: HierarchicalSessionStore) -> None:
    talk(store, 4)
    done = compact(store, "s", Scribe(), keep_last=None, keep_tokens=4, count=lambda message: 1)
    assert done is not None
    assert done.kept == 4
    assert (done.messages, done.tokens_before) == (4, 8)


def test_tokens_are_estimated_by_a_rule_that_is_told() -> None:
    assert estimate_tokens(Message("user", "x" * 400)) == 104
    assert estimate_tokens(Message("user", "日" * 400)) == 304
    assert estimate_tokens(Message("assistant", None)) == 4
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    assert estimate_tokens(Message("user", [{"type": "text", "text": "x" * 40}, image])) == 1_014
    assert estimate_tokens(calling("a")) > 4
    assert estimate_tokens(Message("user", "\ud800")) == 4


@pytest.mark.parametrize("text", ["", " \n", None])
def test_a_summary_without_text_changes_nothing(store: HierarchicalSessionStore, text: Any) -> None:
    talk(store, 4)
    before = store.open_session("s")
    with pytest.raises(ModelError):
        compact(store, "s", lambda messages: text, keep_last=2)
    assert store.open_session("s") == before


def test_a_summariser_that_fails_changes_nothing(store: HierarchicalSessionStore) -> None:
    talk(store, 4)
    before = store.open_session("s")
    with pytest.raises(ZeroDivisionError):
        compact(store, "s", lambda messages: str(1 / 0), keep_last=2)
    assert store.open_session("s") == before


def test_of_two_that_compact_at_once_one_wins(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    talk(store, 4)
    meet = threading.Barrier(2)
    done: list[Any] = []

    def work(name: str) -> None:
        def summarise(messages: Sequence[Message]) -> str:
            meet.wait()
            return name

        done.append(compact(store, "s", summarise, keep_last=2))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [found for found in done if found]
    assert working(store) == [winner.summary, "q3", "a3"]
    assert winner.summary in (f"{HEADING}\n\none", f"{HEADING}\n\ntwo")


def test_what_others_append_meanwhile_is_kept(store: HierarchicalSessionStore) -> None:
    talk(store, 4)

    def slow(messages: Sequence[Message]) -> str:
        talk(store, 1, first=4)
        store.update_session_metadata("s", tag="x")
        return "slow"

    assert compact(store, "s", slow, keep_last=2)
    assert working(store) == [f"{HEADING}\n\nslow", "q3", "a3", "q4", "a4"]
    assert store.open_session("s").metadata == {"tag": "x"}


class Breaking(MemoryEngine):
    """The connection breaks once in an update: before it is done, or before the answer comes."""

    def __init__(self, *, done: bool) -> None:
        super().__init__()
        self.done = done
        self.broke = False

    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        updated = super().update(key, patch, **options) if self.done or self.broke else None
        if not self.broke:
            self.broke = True
            raise OutcomeUnknown("the connection broke", ())
        assert updated is not None
        return updated


@pytest.mark.parametrize("done", [True, False])
def test_a_connection_that_breaks_is_no_rival(done: bool) -> None:
    store = SessionStore(Breaking(done=done))
    talk(store, 3)
    compacted = compact(store, "s", Scribe(), keep_last=2)
    assert compacted is not None
    assert working(store) == [compacted.summary, "q2", "a2"]
    assert store.open_session("s").revision == 1


@pytest.mark.parametrize("change", ["revert", "replace", "delete", "delete and make"])
def test_a_history_that_became_another_is_left_alone(everywhere: HierarchicalSessionStore, change: str) -> None:
    store = everywhere
    talk(store, 4)

    def slow(messages: Sequence[Message]) -> str:
        if change == "revert":
            store.revert_to_message("s", 6)
        elif change == "replace":
            store.set_chat_history("s", [{"role": "user", "content": "new"}] * 9)
        else:
            store.delete_session("s")
        if change == "delete and make":
            talk(store, 4)
        return "slow"

    assert compact(store, "s", slow, keep_last=2) is None
    assert store.session_exists("s") == (change != "delete")
    assert "slow" not in str(store.get_working_history("s"))


def test_a_turn_that_failed_is_not_told(store: HierarchicalSessionStore) -> None:
    scribe = Scribe()
    store.append("s", [Message("user", "bad", run_id="r"), Message("assistant", "", run_id="r", status="failed")])
    talk(store, 2)
    compact(store, "s", scribe, keep_last=2)
    assert scribe.read == [["q0", "a0"]]


def test_where_only_failed_turns_are_old_no_model_is_asked(store: HierarchicalSessionStore) -> None:
    store.append("s", [Message("user", "bad", run_id="r"), Message("assistant", "", run_id="r", status="failed")])
    talk(store, 1)
    scribe = Scribe()
    done = compact(store, "s", scribe, keep_last=2)
    assert done is not None
    assert (done.messages, scribe.read) == (2, [])


def test_a_call_and_its_result_stay_together(store: HierarchicalSessionStore) -> None:
    store.append("s", [Message("user", "q"), calling("a", "b"), result("b"), result("a"), Message("assistant", "x")])
    for keep_last in (4, 3, 2):
        work = find(store, "s", keep_last=keep_last)
        assert work is None or work.kept in (1, 4)
    [work] = filter(None, [find(store, "s", keep_last=1)])
    assert work.kept == 1


def test_a_call_that_still_waits_for_its_result_stays(store: HierarchicalSessionStore) -> None:
    talk(store, 1)
    store.append(
        "s", [Message("user", "q"), calling("a"), Message("assistant", "meanwhile"), calling("b"), result("b")]
    )
    work = find(store, "s", keep_last=1)
    assert work is not None
    assert work.kept == 4
    store.append("s", [result("a", "late")])
    assert finish(store, work, ["sum"])
    assert working(store)[1:] == [None, "meanwhile", None, "r", "late"]


def test_a_result_that_came_after_its_call_was_summed_up_is_not_sent(store: HierarchicalSessionStore) -> None:
    store.append("s", [Message("user", "q"), calling("lost"), Message("user", "q2"), Message("assistant", "a2")])
    compact(store, "s", Scribe(), keep_last=2)
    store.append("s", [result("lost")])
    assert working(store)[1:] == ["q2", "a2"]
    assert store.messages("s")[-1].tool_call_id == "lost"


# Archive, truncation, forks, going back


def test_an_archived_source_is_still_a_source(everywhere: HierarchicalSessionStore) -> None:
    store, scribe = everywhere, Scribe()
    talk(store, 4)
    compact(store, "s", scribe, keep_last=2)
    store.engine.update(KEY, {"start": 6})
    talk(store, 2, first=4)
    compact(store, "s", scribe, keep_last=2)
    assert scribe.read[1][:2] == ["q0", "a0"]
    assert store.open_session("s").extra[CHECKPOINT]["message_index"] == 4


def test_where_the_source_is_gone_the_old_summary_stays_beside_the_new_one(
    everywhere: HierarchicalSessionStore,
) -> None:
    store, scribe = everywhere, Scribe()
    talk(store, 4)
    compact(store, "s", scribe, keep_last=2)
    store.engine.update(KEY, {"start": 4})
    store.engine.drop(KEY)
    talk(store, 2, first=4)
    compact(store, "s", scribe, keep_last=2)
    assert scribe.read[1] == ["q3", "a3", "q4", "a4"]
    assert working(store) == [f"{HEADING}\n\nu0+b0+u1+b1+u2+b2\n\nu3+b3+u4+b4", "q5", "a5"]


def test_a_summary_that_somebody_else_wrote_is_made_anew_from_the_messages(store: HierarchicalSessionStore) -> None:
    talk(store, 3)
    store.append_compaction_checkpoint("s", "by hand")
    stored = store.open_session("s").extra[CHECKPOINT]
    assert (stored["first_message_id"], stored["last_message_id"]) == ("u0", "b2")
    talk(store, 2, first=3)
    scribe = Scribe()
    compact(store, "s", scribe, keep_last=2)
    assert scribe.read[0][0] == "q0"
    assert "by hand" not in str(working(store))


def test_a_summary_that_somebody_else_wrote_stays_where_its_messages_are_gone(store: HierarchicalSessionStore) -> None:
    talk(store, 3)
    store.append_compaction_checkpoint("s", "by hand")
    store.engine.update(KEY, {"start": 6})
    store.engine.drop(KEY)
    talk(store, 2, first=3)
    compact(store, "s", Scribe(), keep_last=2)
    assert working(store) == [f"{HEADING}\n\nby hand\n\nu3+b3", "q4", "a4"]


def test_a_checkpoint_that_makes_no_sense_is_none(store: HierarchicalSessionStore) -> None:
    talk(store, 2)
    for nonsense in ("text", {"summary": 1}, {"summary": " "}, {}):
        store.engine.update(KEY, {"extra": {CHECKPOINT: nonsense}})
        assert working(store) == ["q0", "a0", "q1", "a1"]
    beyond = {"summary": "s", "message_number": 5}
    store.engine.update(KEY, {"extra": {CHECKPOINT: beyond}})
    assert working(store) == ["q0", "a0", "q1", "a1"]
    odd = {"summary": "s", "message_number": 4, "role": 3, "parts": [{"first": -5, "stop": 3, "summary": "s"}]}
    store.engine.update(KEY, {"extra": {CHECKPOINT: odd}})
    assert store.get_working_history("s") == [{"role": "system", "content": "s"}]
    talk(store, 2, first=2)
    assert compact(store, "s", Scribe(), keep_last=2) is not None
    assert working(store) == [f"{HEADING}\n\nu0+b0+u1+b1+u2+b2", "q3", "a3"]


def test_messages_that_cannot_be_read_shift_no_number(tmp_path: Path) -> None:
    with closing(HierarchicalSessionStore(url=f"sqlite:///{tmp_path}/s.db")) as store:
        talk(store, 6)
    with closing(sqlite3.connect(tmp_path / "s.db")) as database, database:
        database.execute("UPDATE message SET body = '{oops' WHERE number IN (2, 9)")
    with closing(HierarchicalSessionStore(url=f"sqlite:///{tmp_path}/s.db")) as store, warnings.catch_warnings():
        warnings.simplefilter("ignore", SessionDamage)
        compact(store, "s", Scribe(), keep_last=2)
        checkpoint = checkpoint_of(store.open_session("s"))
        assert checkpoint is not None
        assert [(part.first, part.stop) for part in checkpoint.parts] == [(0, 9)]
        assert working(store) == [f"{HEADING}\n\nu0+b0+b1+u2+b2+u3+b3+u4", "q5", "a5"]
        conversation = StoredConversation(store, "s", "default_user", agent_name=None)
        conversation.add(Message("user", "q6"))
        assert [entry["content"] for entry in conversation.history] == [*working(store)[:-1], "q6"]


def test_a_session_that_came_without_its_archive_keeps_the_summary_of_it(store: HierarchicalSessionStore) -> None:
    """Numbers begin anew in another place; those of what did not come along are negative."""
    talk(store, 4)
    parts = [{"summary": "long ago", "first": -6, "stop": 2, "first_id": "x", "last_id": "b0"}]
    value = {"summary": f"{HEADING}\n\nlong ago", "message_number": 2, "role": "user", "parts": parts}
    store.engine.update(KEY, {"extra": {CHECKPOINT: value}})
    compact(store, "s", Scribe(), keep_last=2)
    assert working(store)[0] == f"{HEADING}\n\nlong ago\n\nu1+b1+u2+b2"
    for first_id, told in (("x", ["by hand", "u1+b1+u2+b2"]), ("u0", ["u0+b0+u1+b1+u2+b2"])):
        value = {"summary": "by hand", "message_number": 2, "first_message_id": first_id}
        store.engine.update(KEY, {"extra": {CHECKPOINT: value}})
        compact(store, "s", Scribe(), keep_last=2)
        assert working(store)[0] == "\n\n".join([HEADING, *told])


def test_forks_and_snapshots_on_both_sides_of_a_checkpoint(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    talk(store, 4)
    early = store.create_snapshot("s")
    compact(store, "s", Scribe(), keep_last=2)
    late = store.create_snapshot("s")
    short = working(store)
    assert store.revert_to_snapshot("s", early)
    assert working(store) == short  # the same messages, and the summary stands for some of them
    assert store.revert_to_message("s", 3)
    assert working(store) == ["q0", "a0", "q1", "a1"]
    assert store.revert_to_snapshot("s", late)
    assert working(store) == short
    fork = store.fork_session("s", 2)
    assert [message["content"] for message in store.get_working_history(fork)] == ["q0", "a0", "q1"]
    whole = store.fork_session("s")
    assert [message["content"] for message in store.get_working_history(whole)] == short
    talk(store, 2, first=4, session_id=whole)
    scribe = Scribe()
    compact(store, whole, scribe, keep_last=2)
    assert scribe.read[0][0] == "q0"


def test_compact_retention_sends_all_that_no_summary_stands_for() -> None:
    store = SessionStore(MemoryEngine(), max_messages=2, retention="compact")
    talk(store, 6)
    record = store.engine.get(KEY)
    assert record is not None
    assert record.start > 0
    compact(store, "s", Scribe(), keep_last=8)
    assert working(store)[1:] == [f"{kind}{n}" for n in range(2, 6) for kind in "qa"]


# When it is time


def test_a_policy_says_when_it_is_time_and_what_stays() -> None:
    messages = [Message("user", "x" * 36)] * 10
    assert [Policy(at_messages=n).is_over(messages) for n in (9, 10)] == [True, False]
    assert [Policy(at_tokens=n).is_over(messages) for n in (129, 130)] == [True, False]
    assert not Policy().is_over(messages)
    assert Policy(at_messages=9).limits()["keep_last"] == 4
    assert Policy(at_messages=9, keep_last=2).limits()["keep_last"] == 2
    assert Policy(at_tokens=1_000).limits() == {"keep_last": None, "keep_tokens": 500, "source_tokens": 1_000}


# Any history


ids = st.sampled_from("abc")
anything = st.one_of(
    st.just(Message("user", "u")),
    st.just(Message("user", "u")),
    st.just(Message("assistant", "x")),
    st.lists(ids, min_size=1, max_size=2, unique=True).map(lambda found: calling(*found)),
    ids.map(result),
)
steps = st.lists(
    st.one_of(
        st.lists(anything, min_size=1, max_size=6),
        st.tuples(st.integers(1, 6) | st.none(), st.integers(1, 60) | st.none(), st.integers(1, 40)),
        st.integers(0, 9),
    ),
    max_size=12,
)


@given(steps)
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_no_history_is_torn_or_lost_by_compaction(steps: list[Any]) -> None:
    """Random appends, compactions and archiving; a summary that is whole says which messages it is made from."""
    store = SessionStore(MemoryEngine(), retention="compact")
    store.open_session("s")
    for step in steps:
        if isinstance(step, list):
            store.append("s", step)
        elif isinstance(step, int):
            record = store.open_session("s")
            checkpoint = checkpoint_of(record)
            store.engine.update(KEY, {"start": min(step, checkpoint.number if checkpoint else record.start)})
        else:
            keep_last, keep_tokens, source_tokens = step
            compact(store, "s", Scribe(), keep_last=keep_last, keep_tokens=keep_tokens, source_tokens=source_tokens)
    source = store.engine.read(KEY, 0).messages
    record = store.open_session("s")
    assert len(source) == record.length  # the source stays
    shown = store.get_working_history("s")
    checkpoint = checkpoint_of(record)
    if checkpoint is None:
        return
    assert shown[0] == checkpoint.to_chat()
    _no_torn_pair(shown[1:])
    _parts_are_of_messages(checkpoint.parts, source)


def _no_torn_pair(shown: list[dict[str, Any]]) -> None:
    calls: set[str] = set()
    for message in shown:
        calls |= {call["id"] for call in message.get("tool_calls", ())}
        assert message["role"] != "tool" or message["tool_call_id"] in calls


def _parts_are_of_messages(parts: Sequence[Part], source: list[Message]) -> None:
    assert [part.first for part in parts] == [0, *(part.stop for part in parts[:-1])]
    for part in parts:
        assert (part.first_id, part.last_id) == (source[part.first].id, source[part.stop - 1].id)
        within = {message.id for message in source[part.first : part.stop]}
        named = {name for name in part.summary.split("+") if name.startswith("msg-")}
        assert named <= within
