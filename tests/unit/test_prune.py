"""Pruning: a plan says what would go, and only that goes; what is pinned, kept, or used meanwhile stays.

Time does not pass in these tests: a plan is told what time it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from servers import postgres, redis

from praisonaiagents.errors import ConfigError
from praisonaiagents.model.message import Message, encode
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session import HierarchicalSessionStore, SessionStore
from praisonaiagents.session.compaction import compact
from praisonaiagents.session.prune import DAY, Change, Limits, apply, plan
from praisonaiagents.storage.memory import MemoryEngine

LATER = time.time() + 100 * DAY
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


def say(store: SessionStore, session_id: str, *texts: str, **options: Any) -> None:
    for text in texts:
        store.add_user_message(session_id, text, **options)


def said(store: SessionStore, session_id: str, **options: Any) -> list[Any]:
    return [message.content for message in store.messages(session_id, **options)]


def ids(store: SessionStore, **options: Any) -> list[str]:
    return [row["session_id"] for row in store.list_sessions(None, **options)]


def size(store: SessionStore, session_id: str) -> int:
    return sum(len(encode(message)) for message in store.engine.read(Key("default_user", session_id), 0).messages)


def prune(store: SessionStore, **limits: Any) -> list[Change]:
    """Plan, compare the plan with what becomes of it, and return what was done."""
    found = plan(store, Limits(**limits), now=LATER)
    applied = apply(store, found)
    assert (applied.done, applied.spared) == (found.changes, [])
    assert plan(store, Limits(**limits), now=LATER).changes == []
    return applied.done


def test_an_idle_session_goes_and_a_plan_says_so_first(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    say(store, "s", "a", "b")
    store.open_session("t")
    expected = size(store, "s")
    assert plan(store, Limits(idle_s=101 * DAY), now=LATER).changes == []
    found = plan(store, Limits(idle_s=99 * DAY), now=LATER)
    assert ids(store) == ["t", "s"]
    assert [(change.session_id, change.why, change.messages) for change in found.changes] == [
        ("t", "idle", 0),
        ("s", "idle", 2),
    ]
    assert (found.sessions, found.messages, found.bytes, found.looked_at) == (2, 2, expected, 2)
    assert len(apply(store, found).done) == 2
    assert ids(store) == []


def test_an_old_session_goes_however_much_it_is_used(store: HierarchicalSessionStore) -> None:
    say(store, "s", "a")
    assert plan(store, Limits(idle_s=50 * DAY, older_s=50 * DAY), now=time.time()).changes == []
    assert [change.why for change in prune(store, older_s=50 * DAY)] == ["older"]


def test_the_newest_sessions_of_each_user_are_kept(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    for user in (None, "bob"):
        for name in "abcd":
            say(store, name, "x", user_id=user)
    say(store, "a", "again")
    found = plan(store, Limits(keep=2), all_users=True)
    assert sorted((change.user_id, change.session_id) for change in found.changes) == [
        *(("bob", name) for name in "ab"),
        *(("default_user", name) for name in "bc"),
    ]
    apply(store, plan(store, Limits(keep=2)))
    assert ids(store) == ["a", "d"]
    assert ids(store, user_id="bob") == list("dcba")
    apply(store, plan(store, Limits(keep=0), user_id="bob"))
    assert ids(store, user_id="bob") == []
    assert ids(store) == ["a", "d"]


def test_a_pinned_session_is_left_as_it_is(store: HierarchicalSessionStore) -> None:
    for name in "abc":
        say(store, name, "1", "2", "3")
    store.update_session_metadata("b", pinned=True)
    found = plan(store, Limits(idle_s=0, keep=0, max_messages=1), now=LATER)
    assert sorted(change.session_id for change in found.changes) == ["a", "c"]
    assert found.spared == {"pinned": 1}
    assert [change.session_id for change in plan(store, Limits(keep=1), now=LATER).changes] == ["a"]
    assert len(prune(store, idle_s=0, pinned=True)) == 3


def test_a_session_with_snapshots_stays_unless_they_may_go(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    say(store, "s", "a", "b")
    store.create_snapshot("s")
    found = plan(store, Limits(idle_s=DAY), now=LATER)
    assert (found.changes, found.spared) == ([], {"snapshots": 1})
    assert plan(store, Limits(idle_s=DAY, snapshots_s=101 * DAY), now=LATER).changes == []
    [change] = plan(store, Limits(idle_s=DAY, snapshots_s=99 * DAY), now=LATER).changes
    assert (change.why, change.messages) == ("idle", 2)


def test_an_old_snapshot_goes_with_what_only_it_held(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    say(store, "s", "a", "b", "c")
    store.create_snapshot("s")
    store.set_chat_history("s", [{"role": "user", "content": "new"}])
    [change] = prune(store, snapshots_s=DAY)
    assert (change.messages, len(change.snapshots)) == (3, 1)
    assert change.bytes > 0
    assert store.get_snapshots("s") == []
    assert said(store, "s") == ["new"]


def test_earlier_heads_go_with_what_only_they_held(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    say(store, "s", "a", "b", "c")
    store.revert_to_message("s", 0)
    say(store, "s", "d")
    assert plan(store, Limits(heads_s=101 * DAY), now=LATER).changes == []
    [change] = prune(store, heads_s=DAY)
    assert (change.heads, change.messages) == (("head:1",), 2)
    assert said(store, "s") == ["a", "d"]
    assert [head.ref for head in store.heads("s")] == ["now"]


def test_what_another_pin_still_holds_is_not_counted(store: HierarchicalSessionStore) -> None:
    say(store, "s", "a", "b", "c")
    store.create_snapshot("s", "kept")
    store.revert_to_message("s", 0)
    [change] = prune(store, heads_s=DAY)
    assert (change.messages, change.bytes) == (0, 0)
    store.revert("s", "kept")
    assert said(store, "s") == ["a", "b", "c"]


def test_a_long_session_is_trimmed_by_whole_turns(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    for n in range(4):
        store.append("s", [Message("user", f"q{n}"), Message("assistant", f"a{n}")])
    store.append("short", [Message("user", "q")])
    before = size(store, "s")
    [change] = prune(store, max_messages=3)
    assert (change.session_id, change.messages, change.archived) == ("s", 6, 0)
    assert said(store, "s") == ["q3", "a3"]
    assert change.bytes == before - size(store, "s")


def test_a_trimmed_session_may_be_archived(store: HierarchicalSessionStore) -> None:
    say(store, "s", *"abcde")
    [change] = prune(store, max_messages=2, retention="archive")
    assert (change.messages, change.archived) == (0, 3)
    assert said(store, "s") == ["d", "e"]
    assert len(store.engine.read(Key("default_user", "s"), 0).messages) == 5


def test_an_old_archive_goes(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    say(store, "s", *"abcde")
    compact(store, "s", lambda messages: "sum", keep_last=2)
    store.engine.update(Key("default_user", "s"), {"start": 3})
    before = size(store, "s")
    assert plan(store, Limits(archives_s=101 * DAY), now=LATER).changes == []
    [change] = prune(store, archives_s=99 * DAY)
    assert (change.messages, change.drop) == (3, True)
    assert change.bytes == before - size(store, "s")
    assert [message["content"] for message in store.get_working_history("s")][1:] == ["d", "e"]
    assert "sum" in store.get_working_history("s")[0]["content"]


def test_an_archive_of_unknown_age_stays(store: HierarchicalSessionStore) -> None:
    key = Key("default_user", "s")
    store.open_session("s")
    store.engine.append(key, [Message("user", "a"), Message("user", "b")])
    store.engine.update(key, {"start": 1})
    assert plan(store, Limits(archives_s=0), now=LATER).changes == []


@pytest.mark.parametrize("use", ["append", "rename", "delete", "make anew", "revert"])
@pytest.mark.parametrize("limits", [{"idle_s": DAY}, {"max_messages": 1}])
def test_a_session_that_was_used_since_the_plan_is_spared(
    everywhere: HierarchicalSessionStore, limits: dict[str, Any], use: str
) -> None:
    store = everywhere
    say(store, "s", "a", "b")
    say(store, "t", "a", "b")
    found = plan(store, Limits(**limits), now=LATER)
    if use == "append":
        say(store, "s", "c")
    elif use == "rename":
        store.rename_session("s", "mine")
    elif use == "revert":
        store.revert_to_message("s", 0)
    else:
        store.delete_session("s")
    if use == "make anew":
        say(store, "s", "a", "b")
    left = said(store, "s")
    applied = apply(store, found)
    assert [change.session_id for change in applied.spared] == ["s"]
    assert [change.session_id for change in applied.done] == ["t"]
    assert said(store, "s") == left
    assert store.session_exists("s") == (use != "delete")


class Archiving(MemoryEngine):
    """Behind each update and each second look, an agent archives one more message."""

    looks = 0

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        record = super().update(key, patch, expected_revision=expected_revision)
        super().update(key, {"start": record.start + 1})
        return record

    def get(self, key: Key) -> Record | None:
        record = super().get(key)
        self.looks += 1
        if self.looks == 2 and record:
            return super().update(key, {"start": record.start + 1})
        return record


@pytest.mark.parametrize("limits", [{"max_messages": 3}, {"archives_s": DAY}])
def test_what_is_archived_meanwhile_is_not_let_go(limits: dict[str, Any]) -> None:
    key = Key("default_user", "s")
    plain = MemoryEngine()
    store = SessionStore(plain)
    say(store, "s", *"abcde")
    plain.update(key, {"start": 1})
    found = plan(store, Limits(**limits), now=LATER)
    assert found.changes[0].drop
    plain.__class__ = Archiving
    assert apply(store, found).done == []
    assert len(plain.read(key, 0).messages) == 5


def test_a_fork_outlives_a_parent_that_is_pruned(everywhere: HierarchicalSessionStore) -> None:
    store = everywhere
    say(store, "s", "a", "b")
    store.fork_session("s", new_session_id="f")
    apply(store, plan(store, Limits(keep=1), now=LATER))
    assert ids(store) == ["f"]
    assert said(store, "f") == ["a", "b"]


def test_progress_is_told(store: HierarchicalSessionStore) -> None:
    for name in "abc":
        say(store, name, "x")
    seen: list[tuple[str, int, int]] = []
    found = plan(store, Limits(keep=1), watch=lambda *told: seen.append(told))
    assert seen == [("Looking at sessions", number, 0) for number in (1, 2, 3)]
    seen.clear()
    apply(store, found, watch=lambda *told: seen.append(told))
    assert seen == [("Pruning", number, 2) for number in (0, 1, 2)]


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"pinned": True},
        {"keep": -1},
        {"keep": 1.5},
        {"idle_s": -1},
        {"idle_s": "90d"},
        {"max_messages": 0},
        {"heads_s": float("nan")},
        {"keep": 1, "retention": "compact"},
        {"keep": True},
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: Any) -> None:
    with pytest.raises(ConfigError):
        Limits(**limits)
