"""Forks, snapshots, going back and undoing it, on every engine with real servers: what a session shows is what it showed then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from servers import postgres, redis

from praisonaiagents.errors import (
    ConfigError,
    MergeRefused,
    PointNotFound,
    PraisonError,
    SessionExists,
    SessionNotFound,
)
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Pin
from praisonaiagents.session import HierarchicalSessionStore, SessionStore
from praisonaiagents.session.branches import merge
from praisonaiagents.session.hierarchy import ExtendedSessionData, Head, SessionSnapshot
from praisonaiagents.session.prune import Limits, apply, plan

Place = Callable[[], AbstractContextManager[str]]


@contextmanager
def _memory() -> Iterator[str]:
    yield "memory://"


PLACES: dict[str, Any] = {
    "memory": lambda path: _memory(),
    "file": lambda path: _at(f"file://{path}/sessions"),
    "sqlite": lambda path: _at(f"sqlite:///{path}/s.db"),
    "postgres": lambda path: postgres.emptied_place(postgres.shared_url()),
    "redis": lambda path: redis.empty_place(),
}


@contextmanager
def _at(url: str) -> Iterator[str]:
    yield url


@pytest.fixture(params=PLACES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with PLACES[request.param](tmp_path) as url:
        yield url


@pytest.fixture
def store(url: str) -> Iterator[HierarchicalSessionStore]:
    with closing(HierarchicalSessionStore(url=url)) as store:
        yield store


def say(store: SessionStore, session_id: str, *texts: str, **options: Any) -> None:
    for text in texts:
        store.add_user_message(session_id, text, **options)


def said(store: SessionStore, session_id: str, **options: Any) -> list[Any]:
    return [message.content for message in store.messages(session_id, **options)]


def test_a_session_is_made_once(store: HierarchicalSessionStore) -> None:
    made = store.create_session(title="Main", agent_name="helper", metadata={"x": 1})
    assert store.create_session("named", metadata={"title": "kept"}) == "named"
    session = store.get_extended_session(made)
    assert (session.title, session.agent_name, session.metadata) == ("Main", "helper", {"x": 1, "title": "Main"})
    assert store.get_extended_session("named").title == "kept"
    say(store, "named", "1")
    with pytest.raises(SessionExists):
        store.create_session("named")
    with pytest.raises(SessionNotFound):
        store.create_session("child", parent_id="missing")
    assert not store.session_exists("child")
    assert said(store, "named") == ["1"]


def test_a_fork_goes_its_own_way(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0", "1", "2")
    store.update_session_metadata("s", title="About", tags=["a"], pinned=True)
    store.set_state("s", {"n": 1})
    store.set_agent_info("s", "helper")
    whole = store.fork_session("s")
    part = store.fork_session("s", 1, title="Part", new_session_id="part")
    assert (said(store, whole), said(store, part), part) == (["0", "1", "2"], ["0", "1"], "part")
    fork = store.get_extended_session(whole)
    assert (fork.title, fork.agent_name, fork.state) == ("Fork of About", "helper", {"n": 1})
    assert fork.metadata == {"title": "Fork of About", "tags": ["a"]}
    assert (fork.parent_id, fork.forked_from_message_id) == ("s", None)
    assert store.get_extended_session("part").forked_from_message_id == "1"
    say(store, "part", "here")
    say(store, "s", "there")
    store.delete_session("s")
    assert (said(store, whole), said(store, "part")) == (["0", "1", "2"], ["0", "1", "here"])
    assert store.get_parent("part") is None


def test_what_cannot_be_forked_is_refused_and_makes_nothing(store: HierarchicalSessionStore) -> None:
    with pytest.raises(SessionNotFound):
        store.fork_session("missing")
    say(store, "s", "0", "1")
    wrong: list[Any] = [2, -1, True, "1", 1.0]
    for index in wrong:
        with pytest.raises(ConfigError, match="messages 0 to 1"):
            store.fork_session("s", index)
    with pytest.raises(ConfigError, match="two points"):
        store.fork_session("s", 1, at="now")
    with pytest.raises(PointNotFound):
        store.fork_session("s", at="nowhere")
    with pytest.raises(SessionExists):
        store.fork_session("s", new_session_id="s")
    assert [row["session_id"] for row in store.list_sessions()] == ["s"]
    assert store.get_children("s") == []


def test_what_makes_no_sense_is_refused_and_changes_nothing(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0")
    store.create_snapshot("s")
    before = store.engine.get(_record("s").key)
    wrong: list[Callable[[], Any]] = [
        lambda: store.create_session(""),
        lambda: store.create_session("new", title=5),  # type: ignore[arg-type]
        lambda: store.create_session("new", metadata={"x": {1}}),
        lambda: store.create_session("new", metadata={"x": float("nan")}),
        lambda: store.create_session("new", parent_id=""),
        lambda: store.fork_session("s", title=["x"]),  # type: ignore[arg-type]
        lambda: store.fork_session("s", new_session_id=""),
        lambda: store.fork_session(None),  # type: ignore[arg-type]
        lambda: store.create_snapshot("s", label=5),  # type: ignore[arg-type]
        lambda: store.create_snapshot("s", metadata={"x": b""}),
        lambda: store.create_snapshot("s", "half a character \ud800"),
        lambda: store.revert("s", None),  # type: ignore[arg-type]
        lambda: store.set_title("s", None),  # type: ignore[arg-type]
        lambda: store.heads("a\nb"),
    ]
    for call in wrong:
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
        assert isinstance(caught.value, PraisonError)
    assert store.engine.get(_record("s").key) == before
    assert [row["session_id"] for row in store.list_sessions()] == ["s"]


def test_the_tree_shows_what_is_still_there(store: HierarchicalSessionStore) -> None:
    say(store, "root", "0")
    a = store.fork_session("root", new_session_id="a")
    store.fork_session("root", new_session_id="b")
    store.fork_session(a, new_session_id="aa", title="Deep")
    store.create_session("empty", parent_id="b")
    assert store.get_children("root") == ["a", "b"]
    assert (store.get_parent("aa"), store.get_parent("root"), store.get_parent("missing")) == ("a", None, None)
    tree = store.get_session_tree("root")
    assert (tree["session_id"], tree["message_count"]) == ("root", 1)
    (first, second) = tree["children"]
    assert [first["children"][0][name] for name in ("session_id", "title", "message_count")] == ["aa", "Deep", 1]
    assert [child["session_id"] for child in second["children"]] == ["empty"]
    store.delete_session("a")
    store.add_user_message("a", "another one")
    assert store.get_children("root") == ["b"]
    with pytest.raises(SessionNotFound):
        store.get_session_tree("missing")
    assert store.get_children("missing") == []


def test_a_snapshot_shows_the_same_messages_whatever_happens(store: HierarchicalSessionStore) -> None:
    assert store.get_snapshots("s") == []
    with pytest.raises(SessionNotFound):
        store.create_snapshot("s")
    store.create_session("s")
    empty = store.create_snapshot("s", "before all", {"by": "me"})
    say(store, "s", "0", "1", "2", "3")
    four = store.create_snapshot("s")
    assert [snapshot.id for snapshot in store.get_snapshots("s")] == [empty, four]
    first, second = store.get_snapshots("s")
    assert (first.session_id, first.message_index, first.label, first.metadata) == ("s", -1, "before all", {"by": "me"})
    assert (second.message_index, second.label, second.created_at > first.created_at > 1.7e9) == (3, None, True)
    bounded = SessionStore(store.engine, max_messages=1, retention="truncate")
    say(bounded, "s", "4", "5")
    assert said(store, "s") == ["5"]
    assert store.revert_to_snapshot("s", four)
    say(store, "s", "another way")
    store.set_chat_history("s", [{"role": "user", "content": "all new"}])
    for snapshot, texts in ((four, ["0", "1", "2", "3"]), (empty, []), (four, ["0", "1", "2", "3"])):
        assert store.revert_to_snapshot("s", snapshot)
        assert said(store, "s") == texts
    assert not store.revert_to_snapshot("s", "no such snapshot")
    assert not store.revert_to_snapshot("missing", four)
    assert (store.delete_snapshot("s", four), store.delete_snapshot("s", four)) == (True, False)
    assert [snapshot.id for snapshot in store.get_snapshots("s")] == [empty]


def test_going_back_can_be_undone(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0", "1", "2")
    assert not store.undo("s")
    assert store.revert_to_message("s", 0)
    say(store, "s", "other")
    for index in (2, -1, 99):
        assert not store.revert_to_message("s", index)
    assert store.undo("s")
    assert said(store, "s") == ["0", "1", "2"]
    assert store.undo("s")
    assert said(store, "s") == ["0", "other"]
    with pytest.raises(SessionNotFound):
        store.undo("missing")


def test_every_head_can_be_gone_back_to(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0", "1", "2")
    store.revert_to_message("s", 1)
    say(store, "s", "b")
    store.revert("s", "message:0")
    say(store, "s", "c")
    heads = store.heads("s")
    assert [(head.ref, head.message_count, head.why) for head in heads] == [
        ("head:1", 3, "revert"),
        ("head:2", 3, "revert"),
        ("now", 2, ""),
    ]
    assert heads[1].replaced_at >= heads[0].replaced_at > 1.7e9
    for ref, texts in (("head:1", ["0", "1", "2"]), ("head:2", ["0", "1", "b"]), ("head:3", ["0", "c"])):
        store.revert("s", ref)
        assert said(store, "s") == texts
    assert said(store, store.fork_session("s", at="head:2")) == ["0", "1", "b"]
    with pytest.raises(SessionNotFound):
        store.heads("missing")


def test_what_was_archived_is_not_lost_by_going_back(url: str) -> None:
    with closing(HierarchicalSessionStore(max_messages=2, retention="archive", url=url)) as store:
        say(store, "s", *map(str, range(9)))
        shown = said(store, "s")
        store.revert_to_message("s", 0)
        store.undo("s")
        assert said(store, "s") == shown
        pin = next(
            pin for name, pin in store.engine.open_session(_record("s")).pins.items() if name.startswith("head:")
        )
        assert pin.start == 0


def _record(session_id: str) -> Any:
    from praisonaiagents.model.record import Record

    return Record("default_user", session_id)


def test_a_point_has_several_names(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0")
    one = store.create_snapshot("s", "same")
    say(store, "s", "1")
    two = store.create_snapshot("s", "same")
    say(store, "s", "2")
    three = store.create_snapshot("s", "only")
    say(store, "s", "3")
    for ref, count in ((one, 1), (two[:12], 2), ("only", 3), (three, 3), ("message:0", 1)):
        store.revert("s", ref)
        assert len(said(store, "s")) == count
    with pytest.raises(PointNotFound, match="names 2 snapshots") as caught:
        store.revert("s", "same")
    assert caught.value.candidates == tuple(sorted((one, two)))
    for ref in ("", "x", one[:3], "head:99", "message:99", "message:-1", "message:x", "now"):
        with pytest.raises(PointNotFound, match="nothing is called"):
            store.revert("s", ref)


def test_a_compaction_goes_and_comes_with_the_messages_it_stands_for(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0", "1", "2")
    store.append_compaction_checkpoint("s", "summary")
    say(store, "s", "3")
    kept = store.create_snapshot("s")
    working = [message["content"] for message in store.get_working_history("s")]
    assert working == ["summary", "3"]
    assert [m["content"] for m in store.get_working_history(store.fork_session("s"))] == working
    assert [m["content"] for m in store.get_working_history(store.fork_session("s", 1))] == ["0", "1"]
    store.revert_to_message("s", 1)
    assert [m["content"] for m in store.get_working_history("s")] == ["0", "1"]
    store.undo("s")
    assert [m["content"] for m in store.get_working_history("s")] == working
    store.revert_to_message("s", 0)
    store.revert_to_snapshot("s", kept)
    assert [m["content"] for m in store.get_working_history("s")] == working


def test_two_users_have_trees_of_their_own(store: HierarchicalSessionStore) -> None:
    say(store, "s", "alice's", user_id="alice")
    say(store, "s", "bob's", user_id="bob")
    fork = store.fork_session("s", user_id="alice")
    assert said(store, fork, user_id="alice") == ["alice's"]
    assert not store.session_exists(fork, user_id="bob")
    snapshot = store.create_snapshot("s", user_id="alice")
    assert (store.get_children("s", user_id="bob"), store.get_snapshots("s", user_id="bob")) == ([], [])
    assert not store.revert_to_snapshot("s", snapshot, user_id="bob")
    with pytest.raises(SessionNotFound):
        store.create_snapshot("s")
    with pytest.raises(SessionNotFound):
        store.fork_session("s")


def test_flags_and_titles(store: HierarchicalSessionStore) -> None:
    store.create_session("s")
    assert not store.is_shared("s")
    assert (store.share_session("s"), store.is_shared("s")) == (True, True)
    assert (store.unshare_session("s"), store.is_shared("s"), store.is_shared("missing")) == (True, False, False)
    assert store.set_title("s", " New ")
    assert store.get_extended_session("s").title == "New"
    assert store.get_extended_session("missing") == ExtendedSessionData("missing", "default_user")


def test_a_session_as_a_value_comes_back(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0")
    store.create_snapshot("s", "x", {"n": [1, None]})
    store.fork_session("s")
    session = store.get_extended_session("s")
    assert ExtendedSessionData.from_dict(session.to_dict()) == session
    assert session.snapshots == store.get_snapshots("s")
    assert isinstance(session.to_dict()["snapshots"][0], dict)
    plain = store.get_session("s")
    assert ExtendedSessionData.from_session_data(plain, title="x").messages == plain.messages


def test_both_stores_see_the_same_sessions(store: HierarchicalSessionStore) -> None:
    made = store.create_session(title="Main")
    snapshot = store.create_snapshot(made)
    plain = SessionStore(store.engine)
    say(plain, made, "0")
    plain.update_session_metadata(made, source="x")
    assert store.get_extended_session(made).title == "Main"
    assert [found.id for found in store.get_snapshots(made)] == [snapshot]
    assert HierarchicalSessionStore.of(plain).get_snapshots(made) == store.get_snapshots(made)


def test_many_forks_and_snapshots_at_the_same_time_are_all_there(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0")
    with ThreadPoolExecutor(4) as pool:
        forks = list(pool.map(lambda _: store.fork_session("s"), range(12)))
        snapshots = list(pool.map(lambda _: store.create_snapshot("s"), range(12)))
    assert sorted(store.get_children("s")) == sorted(forks)
    assert sorted(snapshot.id for snapshot in store.get_snapshots("s")) == sorted(snapshots)


def test_a_family_that_goes_in_a_circle_is_shown_once(store: HierarchicalSessionStore) -> None:
    """Files that people edit may say anything."""
    say(store, "a", "0")
    store.fork_session("a", new_session_id="b")
    for session_id, parent, children in (("a", "b", ["b"]), ("b", "a", ["a", 5, None, "b"])):
        store.engine.update(_record(session_id).key, {"extra": {"parent_id": parent, "children_ids": children}})
    tree = store.get_session_tree("a")
    assert (tree["session_id"], [child["session_id"] for child in tree["children"]]) == ("a", ["b"])
    assert tree["children"][0]["children"] == []


WRITTEN = [
    {"id": "old", "session_id": "s", "message_index": 1, "created_at": 1.5, "label": "L", "metadata": {}},
    {"id": "none", "message_index": -1},
    {"id": "odd", "message_index": 2, "created_at": "yesterday", "label": 5, "metadata": []},
    {"id": "beyond", "message_index": 7},
    {"id": 5},
    "no snapshot",
]
"""Snapshots as PraisonAI keeps them, and what else may stand there."""


def test_snapshots_that_praisonai_wrote_show_what_they_showed(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0", "1", "2")
    store.engine.update(_record("s").key, {"extra": {"snapshots": WRITTEN, "other": 1}})
    found = store.get_snapshots("s")
    assert found[0] == SessionSnapshot("old", "s", 1, 1.5, "L", {})
    assert found[2] == SessionSnapshot("odd", "s", 2, 0.0, None, {})
    assert [snapshot.id for snapshot in found] == ["old", "none", "odd"]
    assert store.revert_to_message("s", 0)
    say(store, "s", "a", "b", "c", "d")
    assert store.revert_to_snapshot("s", "odd")
    assert said(store, "s") == ["0", "1", "2"]
    assert store.revert_to_snapshot("s", "old")
    assert said(store, "s") == ["0", "1"]
    assert (store.delete_snapshot("s", "old"), store.delete_snapshot("s", "old")) == (True, False)
    assert [snapshot.id for snapshot in store.get_snapshots("s")] == ["none", "odd"]
    assert store.engine.open_session(_record("s")).extra == {"other": 1}


@pytest.mark.parametrize("change", ["retention", "replace", "prune"])
def test_snapshots_that_praisonai_wrote_outlast_what_lets_messages_go(
    store: HierarchicalSessionStore, change: str
) -> None:
    say(store, "s", "0", "1", "2")
    store.engine.update(_record("s").key, {"extra": {"snapshots": WRITTEN}})
    if change == "retention":
        say(SessionStore(store.engine, max_messages=1), "s", "3", "4")
    elif change == "replace":
        store.set_chat_history("s", [{"role": "user", "content": "new"}])
    else:
        apply(store, plan(store, Limits(max_messages=1)))
    assert "0" not in said(store, "s")
    assert store.revert_to_snapshot("s", "odd")
    assert said(store, "s") == ["0", "1", "2"]


def test_pins_that_somebody_edited_stop_nobody(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0", "1")
    head = store.engine.open_session(_record("s")).head
    odd = {"created_at": 10**400, "label": [], "metadata": 1, "replaced_at": "now", "why": 5, "start": "x"}
    pins = {name: Pin(head.log, 0, 1, odd) for name in ("snapshot:x", "head:7", "head:y", "other")}
    store.engine.update(_record("s").key, {"pins": pins})
    assert store.get_snapshots("s") == [SessionSnapshot("x", "s", 0, 0.0, None, {})]
    assert store.heads("s")[0] == Head("head:7", 1, 0.0, "")
    assert store.revert_to_message("s", 0)
    assert store.undo("s")
    assert said(store, "s") == ["0", "1"]


def test_a_store_that_makes_room_knows_of_a_revert(store: HierarchicalSessionStore) -> None:
    """It looked at another history, and must neither hide nor free any of the one that is shown now."""
    say(store, "s", *map(str, range(5)))

    class Reverting:
        """The engine, and somebody who goes back after the store has read."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store.engine, name)

        def read(self, *args: Any, **options: Any) -> Any:
            found = store.engine.read(*args, **options)
            store.revert_to_message("s", 1)
            return found

    bounded: Any = Reverting()
    SessionStore(bounded, max_messages=2).add_user_message("s", "5")
    assert said(store, "s") == ["0", "1"]
    assert store.undo("s")
    assert said(store, "s") == [*map(str, range(6))]


def test_a_parent_is_the_one_that_knows_its_child(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0")
    fork = store.fork_session("s")
    assert store.get_parent(fork) == "s"
    store.delete_session("s")
    say(store, "s", "another one of this name")
    assert (store.get_parent(fork), store.get_children("s")) == (None, [])


def test_a_fork_keeps_a_summary_that_praisonai_wrote(store: HierarchicalSessionStore) -> None:
    say(store, "s", "0", "1", "2")
    store.engine.update(_record("s").key, {"extra": {"last_compaction": {"summary": "sum", "message_index": 2}}})
    working = [message["content"] for message in store.get_working_history("s")]
    assert working == ["sum", "2"]
    assert [message["content"] for message in store.get_working_history(store.fork_session("s"))] == working


class Histories(RuleBasedStateMachine):
    """Random histories of sessions, forks, snapshots and heads, against lists of texts."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.store = HierarchicalSessionStore(url=self.url)
        self.number = 0
        self.is_pruned = False
        self.shown: dict[str, list[str]] = {}
        self.snapshots: dict[str, dict[str, list[str]]] = {}
        self.heads: dict[str, list[list[str]]] = {}

    def teardown(self) -> None:
        for session_id in self.shown:
            self.store.delete_session(session_id)
        self.store.close()

    @initialize()
    def begin(self) -> None:
        self.number += 1
        self._new(self.store.create_session(), [])

    def _new(self, session_id: str, texts: list[str]) -> None:
        self.shown[session_id] = list(texts)
        self.snapshots[session_id] = {}
        self.heads[session_id] = []

    def _pick(self, which: int) -> str:
        return list(self.shown)[which % len(self.shown)]

    def _check(self) -> None:
        for session_id, texts in self.shown.items():
            assert said(self.store, session_id) == texts

    @rule(which=st.integers(0, 9), count=st.integers(1, 3))
    def append(self, which: int, count: int) -> None:
        session_id = self._pick(which)
        for _ in range(count):
            self.number += 1
            self.shown[session_id].append(str(self.number))
        self.store.append(session_id, [Message("user", text) for text in self.shown[session_id][-count:]])
        self._check()

    @rule(which=st.integers(0, 9), index=st.integers(-1, 9))
    def fork(self, which: int, index: int) -> None:
        session_id = self._pick(which)
        texts = self.shown[session_id]
        at = index if 0 <= index < len(texts) else None
        self._new(self.store.fork_session(session_id, at), texts if at is None else texts[: at + 1])
        self._check()

    @rule(which=st.integers(0, 9))
    def snapshot(self, which: int) -> None:
        session_id = self._pick(which)
        self.snapshots[session_id][self.store.create_snapshot(session_id)] = list(self.shown[session_id])

    @rule(which=st.integers(0, 9), snapshot=st.integers(0, 9))
    def revert(self, which: int, snapshot: int) -> None:
        session_id = self._pick(which)
        held = self.snapshots[session_id]
        if held:
            name = list(held)[snapshot % len(held)]
            moved = len(self.store.heads(session_id))
            assert self.store.revert_to_snapshot(session_id, name)
            if len(self.store.heads(session_id)) > moved:
                self.heads[session_id].append(self.shown[session_id])
            self.shown[session_id] = list(held[name])
        self._check()

    @rule(which=st.integers(0, 9), index=st.integers(0, 9))
    def take_back(self, which: int, index: int) -> None:
        session_id = self._pick(which)
        texts = self.shown[session_id]
        assert self.store.revert_to_message(session_id, index) == (index < len(texts))
        if index < len(texts) - 1:
            self.heads[session_id].append(texts)
            self.shown[session_id] = texts[: index + 1]
        self._check()

    @rule(which=st.integers(0, 9))
    def undo(self, which: int) -> None:
        session_id = self._pick(which)
        assert self.store.undo(session_id) == bool(self.heads[session_id])
        if self.heads[session_id]:
            earlier = self.heads[session_id].pop()
            self.heads[session_id].append(self.shown[session_id])
            self.shown[session_id] = earlier
        self._check()

    @rule(most=st.integers(1, 4))
    def prune_messages(self, most: int) -> None:
        self.is_pruned = True
        apply(self.store, plan(self.store, Limits(max_messages=most)))
        self.shown = {session_id: texts[-most:] for session_id, texts in self.shown.items()}
        self._check()

    @rule()
    def prune_heads(self) -> None:
        apply(self.store, plan(self.store, Limits(heads_s=0.0)))
        self.heads = {session_id: [] for session_id in self.heads}
        self._check()

    @precondition(
        lambda self: not self.is_pruned
    )  # what then has gone from one and not from the other has tests of its own
    @rule(which=st.integers(0, 9), other=st.integers(0, 9))
    def merge(self, which: int, other: int) -> None:
        into, source = self._pick(which), self._pick(other)
        ours, theirs = self.shown[into], self.shown[source]
        shared = next(
            (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        new = [text for text in theirs[shared:] if text not in ours]
        if into == source or not new:
            with suppress(MergeRefused):
                assert merge(self.store, into, source).message_ids == []
        else:
            assert len(merge(self.store, into, source).message_ids) == len(new)
            self.shown[into] = [*ours, *new]
        self._check()

    @precondition(lambda self: len(self.shown) > 1)
    @rule(which=st.integers(0, 9))
    def delete(self, which: int) -> None:
        session_id = self._pick(which)
        assert self.store.delete_session(session_id)
        for place in (self.shown, self.snapshots, self.heads):
            del place[session_id]
        self._check()


def test_a_copy_that_comes_first_hides_nothing_of_another_branch(store: HierarchicalSessionStore) -> None:
    for session_id in ("main", "a", "b"):
        store.create_session(session_id)
    say(store, "a", "of a")
    say(store, "b", "of b")
    merge(store, "main", "a")
    merge(store, "b", "main")
    assert len(merge(store, "main", "b").message_ids) == 1
    assert said(store, "main") == ["of a", "of b"]


def test_random_histories_are_what_they_were(url: str) -> None:
    class OfPlace(Histories):
        pass

    OfPlace.url = url
    few = settings(
        max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(OfPlace, settings=few)  # type: ignore[no-untyped-call]
