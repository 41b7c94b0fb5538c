"""The contract of memory adapters as a suite of tests: every sentence of `memory.adapter` that can be broken.

    class TestMine(MemoryContract):
        @pytest.fixture
        def adapter(self):
            with closing(MyMemory(...)) as adapter:
                yield adapter

A fresh adapter with nothing in it is needed for each test. Where what was stored survives `close`, set `survives_close`.
"""

# ruff: noqa: S101, RUF012 - assert is what a test is for, and pytest shares the class, not its attributes

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec.structs import replace

from praisonaiagents.errors import InvalidId, InvalidMessage
from praisonaiagents.memory.adapter import MemoryAdapter
from praisonaiagents.memory.terms import query_terms
from praisonaiagents.model.memory import KNOWLEDGE, Embedding, MemoryItem, Scope, Source

ALICE = Scope("alice")
STRANGE = [
    "a/b",
    "a.b",
    "a_b",
    "A_B",
    "..",
    "None",
    "null",
    "$ne",
    '{"$gt": ""}',
    "%",
    "_",
    "*",
    "' OR 1=1 --",
    '"',
    "\\",
    "é",
    "e\u0301",
    "🎉",
    "日本",
    "x" * 300,
    "alice",
    "alice ",
    "-1",
    "memory",
]
"""Ids that somebody else's could be taken for."""

QUERIES = [
    '"',
    "*",
    "NEAR",
    "a AND",
    "tea*",
    "-tea",
    "(",
    "tea:",
    "^tea",
    "$where",
    "\\",
    "'; drop table item; --",
    "\u0000",
]
"""What is an operator in some query language."""

EXACT: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "text": "Line one\nline two\t𝄞 é \u0000 end ",
        "kind": "decision",
        "slot": "decision.data base/é",
        "confidence": 0.1,
        "created_at": 1.25,
        "updated_at": 1_700_000_000.123456,
        "sources": (Source("s/1", "m1"), Source("日本", "msg-" + "0" * 30)),
        "metadata": {"a": [1, 2.5, None, True, {"b": "𝄞"}], "": {}, "$set": {"a.b": 1}, "big": 2**53},
    },
    "superseded": {"superseded_by": "mem-other", "slot": "user.home"},
    "no confidence": {"confidence": 0.0},
    "a long text": {"text": "word " * 6_000},
}


def item(number: int | str = 1, text: str = "Likes green tea", scope: Scope = ALICE, **fields: Any) -> MemoryItem:
    """A memory; its time is its number."""
    time = float(number) if isinstance(number, int) else 1.0
    return MemoryItem(f"mem-{number}", scope, text, **({"created_at": time, "updated_at": time} | fields))


class MemoryContract:
    """Subclass it with a fixture `adapter`."""

    survives_close = False

    # --- values ---

    @pytest.mark.parametrize("name", EXACT)
    def test_values_come_back_exactly(self, adapter: MemoryAdapter, name: str) -> None:
        stored = item(**EXACT[name])
        adapter.put([stored])
        found = adapter.get("alice", "mem-1")
        assert found == stored
        assert found is not None
        assert type(found.confidence) is type(stored.confidence)
        assert adapter.list_items(ALICE, superseded=True).items == [stored]

    def test_what_is_not_there_is_none(self, adapter: MemoryAdapter) -> None:
        assert adapter.get("alice", "mem-1") is None
        assert adapter.in_slot(ALICE, "user.home") == []
        assert adapter.search_text(ALICE, ["tea"]) == []
        assert adapter.search_near(ALICE, Embedding("m", [1.0, 0.0])) == []
        assert adapter.list_items(ALICE) == ([], None)
        assert adapter.delete("alice", ["mem-1"]) == adapter.clear(ALICE) == adapter.erase("alice") == 0

    def test_put_replaces_what_has_the_id(self, adapter: MemoryAdapter) -> None:
        adapter.put([item(1, "Likes green tea", slot="a", metadata={"a": 1}), item(2, "Likes wine")])
        adapter.put([item(1, "Likes coffee", updated_at=5.0)])
        assert [found.text for found in adapter.list_items(ALICE).items] == ["Likes coffee", "Likes wine"]
        assert adapter.search_text(ALICE, ["tea"]) == []
        assert adapter.in_slot(ALICE, "a") == []
        assert [match.item.id for match in adapter.search_text(ALICE, query_terms("coffee"))] == ["mem-1"]
        assert adapter.get("alice", "mem-1") == item(1, "Likes coffee", updated_at=5.0)

    def test_put_moves_an_item_to_another_scope(self, adapter: MemoryAdapter) -> None:
        other = Scope("alice", "s")
        adapter.put([item(1, slot="a")], [Embedding("m", [1.0, 0.0])])
        adapter.put([item(1, scope=other, slot="a")], [Embedding("m", [1.0, 0.0])])
        for scope, count in ((ALICE, 0), (other, 1)):
            assert len(adapter.list_items(scope).items) == count
            assert len(adapter.search_text(scope, ["tea"])) == len(adapter.in_slot(scope, "a")) == count
            assert len(adapter.search_near(scope, Embedding("m", [1.0, 0.0]))) == count

    def test_nothing_is_put_by_an_empty_put(self, adapter: MemoryAdapter) -> None:
        adapter.put([])
        assert adapter.list_items(ALICE).items == []

    BAD: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"text": ""}, InvalidMessage),
        ({"text": "  "}, InvalidMessage),
        ({"text": None}, InvalidMessage),
        ({"text": "\ud800"}, InvalidMessage),
        ({"text": "x" * 40_000}, InvalidMessage),
        ({"kind": "rumour"}, InvalidMessage),
        ({"confidence": 1.5}, InvalidMessage),
        ({"confidence": float("nan")}, InvalidMessage),
        ({"updated_at": float("inf")}, InvalidMessage),
        ({"metadata": {"a": object()}}, InvalidMessage),
        ({"metadata": [1]}, InvalidMessage),
        ({"slot": ""}, InvalidMessage),
        ({"scope": Scope("")}, InvalidMessage),
        ({"scope": Scope("a\n")}, InvalidId),
        ({"scope": Scope("alice", "")}, InvalidId),
        ({"scope": Scope("alice", None, "attic")}, InvalidMessage),
    ]

    @pytest.mark.parametrize("number", range(len(BAD)))
    def test_a_bad_item_is_refused_before_anything_is_stored(self, adapter: MemoryAdapter, number: int) -> None:
        fields, error = self.BAD[number]
        with pytest.raises(error) as caught:
            adapter.put([item(1), item(2, **fields)])
        assert adapter.get("alice", "mem-1") is None
        assert "Likes" not in str(caught.value)

    # --- whose it is ---

    @pytest.mark.parametrize("other", STRANGE)
    def test_users_are_apart(self, adapter: MemoryAdapter, other: str) -> None:
        """Also where they have memories of the same id, and whatever their ids look like."""
        owner = "alice" if other != "alice" else "bob"
        mine, theirs = item(1, scope=Scope(owner), slot="a"), item(1, "Hates green tea", Scope(other), slot="a")
        adapter.put([mine], [Embedding("m", [1.0, 0.0])])
        adapter.put([theirs], [Embedding("m", [1.0, 0.0])])
        for wanted in (mine, theirs):
            self._is_alone(adapter, wanted)
        assert adapter.delete(other, ["mem-1"]) == 1
        self._is_alone(adapter, mine)
        adapter.put([theirs])
        assert adapter.erase(other) == 1
        adapter.put([theirs])
        assert adapter.clear(Scope(other)) == 1
        self._is_alone(adapter, mine)

    @pytest.mark.parametrize("session", STRANGE)
    def test_sessions_are_apart_from_each_other_and_from_the_user(self, adapter: MemoryAdapter, session: str) -> None:
        scopes = [ALICE, Scope("alice", session), Scope("alice", f"{session}2"), Scope("alice", session, KNOWLEDGE)]
        items = [item(number, f"Green tea {number}", scope, slot="a") for number, scope in enumerate(scopes)]
        adapter.put(items, [Embedding("m", [1.0, 0.0])] * 4)
        for wanted in items:
            self._is_alone(adapter, wanted)
        assert adapter.clear(scopes[1]) == 1
        for wanted in (items[0], *items[2:]):
            self._is_alone(adapter, wanted)
        assert adapter.erase("alice") == 3

    def _is_alone(self, adapter: MemoryAdapter, wanted: MemoryItem) -> None:
        scope = wanted.scope
        assert adapter.get(scope.user_id, wanted.id) == wanted
        assert adapter.list_items(scope, superseded=True).items == [wanted]
        assert adapter.in_slot(scope, "a") == [wanted]
        assert [match.item for match in adapter.search_text(scope, query_terms("green tea"))] == [wanted]
        assert [match.item for match in adapter.search_near(scope, Embedding("m", [0.9, 0.1]))] == [wanted]

    def test_an_empty_user_is_the_default_user(self, adapter: MemoryAdapter) -> None:
        adapter.put([item(1, scope=Scope("default_user"))])
        assert adapter.get("", "mem-1") is not None
        assert len(adapter.list_items(Scope("")).items) == 1
        assert adapter.erase("") == 1

    # --- searching ---

    def test_more_and_rarer_terms_fit_better(self, adapter: MemoryAdapter) -> None:
        texts = ["green tea", "green grass", "green frogs", "black tea", "red wine"]
        adapter.put([item(number, text) for number, text in enumerate(texts)])
        found = adapter.search_text(ALICE, query_terms("green tea"))
        assert found[0].item.text == "green tea"
        assert {match.item.text for match in found} == set(texts[:4])
        assert found[1].item.text == "black tea"  # of the two terms it is the rarer
        assert [match.score for match in found] == sorted((match.score for match in found), reverse=True)

    def test_what_others_have_does_not_change_what_fits_best(self, adapter: MemoryAdapter) -> None:
        """Nor how well: a score that did would tell what others have."""
        texts = ["tea one", "grass two", "grass three", "grass four"]
        adapter.put([item(number, text) for number, text in enumerate(texts)])
        alone = adapter.search_text(ALICE, query_terms("tea grass"))
        assert alone[0].item.text == "tea one"
        others = (Scope("bob"), Scope("alice", "s"), Scope("alice", None, KNOWLEDGE))
        adapter.put([item(10 + number, "tea filler words", others[number % 3]) for number in range(60)])
        assert adapter.search_text(ALICE, query_terms("tea grass")) == alone

    def test_what_is_superseded_is_not_found(self, adapter: MemoryAdapter) -> None:
        old, new = item(1, slot="a", superseded_by="mem-2"), item(2, slot="a")
        adapter.put([old, new], [Embedding("m", [1.0, 0.0])] * 2)
        assert adapter.in_slot(ALICE, "a") == adapter.list_items(ALICE).items == [new]
        assert [match.item for match in adapter.search_text(ALICE, ["tea"])] == [new]
        assert [match.item for match in adapter.search_near(ALICE, Embedding("m", [1.0, 0.0]))] == [new]
        assert adapter.list_items(ALICE, superseded=True).items == [new, old]
        adapter.put([replace(old, superseded_by=None), replace(new, superseded_by="mem-1")])
        assert [match.item.id for match in adapter.search_text(ALICE, ["tea"])] == ["mem-1"]

    def test_a_slot_has_its_latest_first(self, adapter: MemoryAdapter) -> None:
        adapter.put([item(1, slot="a"), item(3, slot="a"), item(2, slot="a"), item(4, slot="a.b"), item(5)])
        assert [found.id for found in adapter.in_slot(ALICE, "a")] == ["mem-3", "mem-2", "mem-1"]

    @pytest.mark.parametrize("query", QUERIES)
    def test_no_query_is_an_operator(self, adapter: MemoryAdapter, query: str) -> None:
        adapter.put([item(1), item(2, "Something else")])
        for terms in ([query], query.split(), query_terms(query)):
            assert {match.item.id for match in adapter.search_text(ALICE, terms)} <= {"mem-1"}

    def test_a_question_of_ten_thousand_terms(self, adapter: MemoryAdapter) -> None:
        adapter.put([item(1)])
        words = [f"word{number}" for number in range(10_000)]
        for terms in (["tea", *words], [*words, "tea"]):
            assert [match.item.id for match in adapter.search_text(ALICE, terms)] == ["mem-1"]

    def test_any_script_is_found(self, adapter: MemoryAdapter) -> None:
        adapter.put([item(1, "ベルリンに住んでいます"), item(2, "Живёт в Берлине"), item(3, "Lebt in Köln")])
        for number, query in ((1, "ベルリン"), (2, "берлине"), (3, "koln")):
            assert [match.item.id for match in adapter.search_text(ALICE, query_terms(query))] == [f"mem-{number}"]

    def test_the_nearest_comes_first(self, adapter: MemoryAdapter) -> None:
        points = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]]
        adapter.put([item(number) for number in range(4)], [Embedding("m", point) for point in points])
        found = adapter.search_near(ALICE, Embedding("m", [2.0, 0.0]))
        assert [match.item.id for match in found] == ["mem-0", "mem-1", "mem-2", "mem-3"]
        assert [match.score for match in found] == pytest.approx([1.0, 0.8, 0.0, -1.0], abs=1e-5)

    def test_only_points_of_one_model_are_compared(self, adapter: MemoryAdapter) -> None:
        points = [Embedding("m", [1.0, 0.0]), Embedding("n", [1.0, 0.0]), Embedding("m", [1.0, 0.0, 0.0]), None]
        adapter.put([item(number) for number in range(4)], points)
        assert [match.item.id for match in adapter.search_near(ALICE, Embedding("m", [1.0, 0.0]))] == ["mem-0"]
        adapter.put([item(0)], [Embedding("n", [0.0, 1.0])])
        assert adapter.search_near(ALICE, Embedding("m", [1.0, 0.0])) == []
        assert len(adapter.search_near(ALICE, Embedding("n", [1.0, 0.0]))) == 2
        adapter.put([item(0)])
        assert [match.item.id for match in adapter.search_near(ALICE, Embedding("n", [0.0, 1.0]))] == ["mem-1"]

    @pytest.mark.parametrize(
        "points", [[Embedding("m", [1.0])], [Embedding("m", [float("nan")]), None], [Embedding("m", []), None]]
    )
    def test_embeddings_that_make_no_sense_are_refused(self, adapter: MemoryAdapter, points: Any) -> None:
        with pytest.raises(InvalidMessage):
            adapter.put([item(1), item(2)], points)
        assert adapter.list_items(ALICE).items == []

    def test_a_limit_limits(self, adapter: MemoryAdapter) -> None:
        adapter.put([item(number) for number in range(9)], [Embedding("m", [1.0, 0.0])] * 9)
        for limit in (0, 1, 5):
            assert len(adapter.search_text(ALICE, ["tea"], limit=limit)) == limit
            assert len(adapter.search_near(ALICE, Embedding("m", [1.0, 0.0]), limit=limit)) == limit
        assert adapter.search_text(ALICE, []) == []

    # --- listing and removing ---

    @pytest.mark.parametrize("size", [1, 2, 7, 50])
    def test_pages_show_each_item_once_the_latest_first(self, adapter: MemoryAdapter, size: int) -> None:
        adapter.put([item(number, updated_at=float(number // 3)) for number in range(20)])
        found = list(self._pages(adapter, size))
        assert sorted(found) == sorted(f"mem-{number}" for number in range(20))
        times = [int(name[4:]) // 3 for name in found]
        assert times == sorted(times, reverse=True)

    def test_pages_are_not_disturbed_by_others(self, adapter: MemoryAdapter) -> None:
        adapter.put([item(number) for number in range(10)])
        seen: list[str] = []
        for name in self._pages(adapter, 2):
            seen.append(name)
            adapter.put([item(f"new{len(seen)}", updated_at=100.0)])
            adapter.delete("alice", [f"mem-{len(seen) - 1}"] if len(seen) == 4 else [])
        assert [name for name in seen if "new" not in name] == [f"mem-{n}" for n in range(9, -1, -1) if n != 3]

    def _pages(self, adapter: MemoryAdapter, size: int) -> Iterator[str]:
        after: str | None = None
        while True:
            page = adapter.list_items(ALICE, after=after, limit=size)
            assert len(page.items) <= size
            yield from (found.id for found in page.items)
            after = page.after
            if after is None:
                return

    def test_removing_counts_what_was_there(self, adapter: MemoryAdapter) -> None:
        adapter.put([item(1), item(2, superseded_by="mem-1"), item(3, scope=Scope("alice", "s")), item(4)])
        assert adapter.delete("alice", ["mem-1", "mem-1", "mem-9", "$ne"]) == 1
        assert adapter.clear(ALICE) == 2
        assert adapter.erase("alice") == 1
        assert adapter.list_items(ALICE, superseded=True).items == []
        assert adapter.search_text(ALICE, ["tea"]) == []

    # --- at once, and the end ---

    def test_any_number_of_threads_may_put_and_search(self, adapter: MemoryAdapter) -> None:
        start = threading.Barrier(8)

        def work(number: int) -> None:
            start.wait()
            for step in range(10):
                adapter.put([item(100 * number + step, scope=Scope(f"user{number % 4}"))])
                assert adapter.search_text(Scope(f"user{number % 4}"), ["tea"])

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        for number in range(4):
            assert len(adapter.list_items(Scope(f"user{number}")).items) == 20

    def test_it_may_be_closed_twice_and_used_again(self, adapter: MemoryAdapter) -> None:
        adapter.close()
        adapter.put([item(1)])
        adapter.close()
        adapter.close()
        adapter.put([item(2)])
        assert {found.id for found in adapter.list_items(ALICE).items} >= {"mem-2"}
        if self.survives_close:
            assert adapter.get("alice", "mem-1") == item(1)
        adapter.close()

    def test_no_text_is_in_a_repr(self, adapter: MemoryAdapter) -> None:
        adapter.put([item(1, "secret words")])
        assert "secret words" not in f"{adapter!r} {adapter.get('alice', 'mem-1')!r}"
