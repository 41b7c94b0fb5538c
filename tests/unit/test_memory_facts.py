"""Facts become items: each once, the latest of a slot live, and what was superseded still there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from praisonaiagents.memory.facts import MAX_SOURCES, Fact, item_id, reconcile
from praisonaiagents.model.memory import MemoryItem, Scope, Source, check_item

ALICE = Scope("alice")
SLOTS = ("user.name", "user.home", None)

facts = st.builds(
    lambda slot, word, confidence, denied: Fact(
        f"The user: {word}",
        "fact",
        slot,
        confidence,
        f"The user: {denied}" if denied and slot and denied != word else None,
    ),
    st.sampled_from(SLOTS),
    st.sampled_from("ABC"),
    st.sampled_from((0.5, 0.9)),
    st.sampled_from(("", "", "A", "B")),
)
messages = st.lists(facts, max_size=5)
talks = st.lists(messages, max_size=6)


class Place:
    """Where items rest, as an adapter would keep them."""

    def __init__(self) -> None:
        self.items: dict[str, MemoryItem] = {}
        self.clock = 100.0

    def hear(self, said: list[Fact], source: Source | None) -> list[MemoryItem]:
        slots = {fact.slot for fact in said} - {None}
        ids = {item_id(ALICE, fact.text, fact.slot) for fact in said}
        known = [
            item
            for item in self.items.values()
            if item.id in ids or (item.slot in slots and item.superseded_by is None)
        ]
        self.clock += 1
        return self.put(reconcile(said, known, scope=ALICE, source=source, now=self.clock))

    def put(self, items: list[MemoryItem]) -> list[MemoryItem]:
        for item in items:
            check_item(item)
            self.items[item.id] = item
        return items

    def live(self, slot: str | None) -> list[str]:
        return [item.text for item in self.items.values() if item.slot == slot and item.superseded_by is None]


def place_after(talk: list[list[Fact]]) -> Place:
    place = Place()
    for number, said in enumerate(talk):
        place.hear(said, Source("s", f"m{number}"))
    return place


def name(text: str, **more: object) -> Fact:
    return Fact(f"The user's name is {text}", slot="user.name", **more)  # type: ignore[arg-type]


@given(talks)
def test_one_item_of_a_slot_is_live_and_the_last_one_said_is_it(talk: list[list[Fact]]) -> None:
    place = place_after(talk)
    for slot in ("user.name", "user.home"):
        said = [fact for message in talk for fact in message if fact.slot == slot]
        assert len(place.live(slot)) == (1 if said else 0)
        if said and said[-1].denies is None:
            assert place.live(slot) == [said[-1].text]


@given(talks)
def test_nothing_is_deleted_and_nothing_is_there_twice(talk: list[list[Fact]]) -> None:
    place = place_after(talk)
    plain = {(fact.slot, fact.text) for message in talk for fact in message if fact.denies is None}
    stored = [(item.slot, item.text) for item in place.items.values()]
    assert len(stored) == len(set(stored))
    assert plain <= set(stored)


@given(talks)
def test_what_cannot_be_contradicted_stays_live(talk: list[list[Fact]]) -> None:
    said = {fact.text for message in talk for fact in message if fact.slot is None}
    assert set(place_after(talk).live(None)) == said


@given(talks)
def test_what_is_superseded_names_an_item_of_its_slot(talk: list[list[Fact]]) -> None:
    place = place_after(talk)
    for item in place.items.values():
        if item.superseded_by is not None:
            assert item.superseded_by != item.id
            assert place.items[item.superseded_by].slot == item.slot


@given(talks)
def test_each_chain_of_successors_ends_at_what_counts(talk: list[list[Fact]]) -> None:
    place = place_after(talk)
    for item in place.items.values():
        passed = set()
        while item.superseded_by is not None:
            assert item.id not in passed
            passed.add(item.id)
            item = place.items[item.superseded_by]


@given(talks, st.data())
def test_a_message_that_is_reconciled_again_changes_nothing(talk: list[list[Fact]], data: st.DataObject) -> None:
    place = place_after(talk)
    for number, said in enumerate(talk):
        spared = [fact for fact in said if fact.denies is None]
        if data.draw(st.booleans()):
            assert place.hear(spared, Source("s", f"m{number}")) == []


@given(messages)
def test_without_a_source_only_the_time_changes(said: list[Fact]) -> None:
    said = [fact for fact in said if fact.denies is None]
    place = Place()
    place.hear(said, None)
    before = {item.id: (item.text, item.superseded_by, item.confidence) for item in place.items.values()}
    place.hear(said, None)
    assert {item.id: (item.text, item.superseded_by, item.confidence) for item in place.items.values()} == before


@given(messages)
def test_two_processes_at_once_make_one_item_of_a_fact(said: list[Fact]) -> None:
    first = reconcile(said, [], scope=ALICE, source=Source("s", "m"), now=1.0)
    second = reconcile(said, [], scope=ALICE, source=Source("s", "m"), now=2.0)
    assert {item.id for item in first} == {item.id for item in second}


@given(messages, messages)
def test_a_race_is_settled_by_the_next_message(one: list[Fact], other: list[Fact]) -> None:
    place = Place()
    first = reconcile(one, [], scope=ALICE, source=Source("s", "m1"), now=1.0)
    second = reconcile(other, [], scope=ALICE, source=Source("s", "m2"), now=2.0)
    place.put(first)
    place.put(second)
    place.hear([name("Z")], Source("s", "m3"))
    assert place.live("user.name") == ["The user's name is Z"]


def test_of_two_live_items_the_newer_counts_even_if_nothing_new_is_said() -> None:
    place = Place()
    place.put(reconcile([name("Bo")], [], scope=ALICE, source=Source("s", "m2"), now=2.0))
    place.put(reconcile([name("Al")], [], scope=ALICE, source=Source("s", "m1"), now=1.0))
    place.hear([name("Al")], Source("s", "m1"))
    assert place.live("user.name") == ["The user's name is Bo"]


def test_a_fact_that_was_superseded_and_is_said_again_counts_again() -> None:
    place = place_after([[name("Al")], [name("Bo")], [name("Al")]])
    assert place.live("user.name") == ["The user's name is Al"]
    assert len(place.items) == 2
    again = place.items[item_id(ALICE, "The user's name is Al", "user.name")]
    assert again.sources == (Source("s", "m0"), Source("s", "m2"))
    assert (again.created_at, again.updated_at) == (101.0, 103.0)


def test_a_turn_that_is_repeated_does_not_bring_back_what_was_corrected_since() -> None:
    place = place_after([[name("Al")], [name("Bo")]])
    place.hear([name("Al")], Source("s", "m0"))
    assert place.live("user.name") == ["The user's name is Bo"]


def test_of_one_message_the_later_fact_counts() -> None:
    [first, second] = place_after([[name("Al"), name("Bo")]]).hear([name("Cy")], Source("s", "m"))
    assert (first.text, first.superseded_by) == ("The user's name is Cy", None)
    assert (second.text, second.superseded_by) == ("The user's name is Bo", first.id)


def test_what_counts_is_put_before_what_it_supersedes() -> None:
    place = place_after([[name("Al")]])
    assert [item.superseded_by is None for item in place.hear([name("Bo")], None)] == [True, False]


def test_the_highest_confidence_and_the_latest_spelling_are_kept() -> None:
    place = place_after([[name("AL", confidence=0.9)], [name("Al", confidence=0.5)]])
    [item] = place.items.values()
    assert (item.text, item.confidence) == ("The user's name is Al", 0.9)


def test_another_extraction_of_the_same_message_can_make_it_surer() -> None:
    place = place_after([[name("Al", confidence=0.5)]])
    [item] = place.hear([name("Al", confidence=0.9)], Source("s", "m0"))
    assert (item.confidence, item.updated_at) == (0.9, 101.0)


def test_the_sources_are_bounded_and_the_first_stays() -> None:
    place = place_after([[name("Al")]] * 50)
    [item] = place.items.values()
    assert len(item.sources) == MAX_SOURCES
    assert (item.sources[0].message_id, item.sources[1].message_id) == ("m0", "m31")
    assert item.sources[-1].message_id == "m49"


def test_what_is_taken_back_supersedes_only_itself() -> None:
    rome = Fact("The user lives in Rome", slot="user.home")
    left = Fact("The user no longer lives in Rome", slot="user.home", denies=rome.text)
    oslo = Fact("The user lives in Oslo", slot="user.home")
    assert place_after([[rome], [left]]).live("user.home") == [left.text]
    assert place_after([[oslo], [left]]).live("user.home") == [oslo.text]
    assert place_after([[left]]).live("user.home") == [left.text]


def test_metadata_of_a_known_item_is_kept() -> None:
    place = place_after([[name("Al")]])
    [item] = place.items.values()
    noted = MemoryItem(item.id, item.scope, item.text, slot=item.slot, metadata={"by": "hand"})
    [again] = reconcile([name("Al")], [noted], scope=ALICE, source=None, now=9.0)
    assert again.metadata == {"by": "hand"}


def test_items_of_another_scope_are_not_touched() -> None:
    [other] = reconcile([name("Eve")], [], scope=Scope("eve"), source=None, now=1.0)
    [item] = reconcile([name("Al")], [other], scope=ALICE, source=None, now=2.0)
    assert item.scope == ALICE


def test_ids_differ_by_user_session_shelf_slot_and_text() -> None:
    scopes = [ALICE, Scope("bob"), Scope("alice", "s"), Scope("alice", None, "knowledge")]
    ids = [item_id(scope, text, slot) for scope in scopes for text in ("a", "b") for slot in (None, "a", "b")]
    assert len(set(ids)) == len(ids)


def test_case_spacing_and_the_last_full_stop_make_no_difference_to_an_id() -> None:
    assert item_id(ALICE, "Likes  Tea.", None) == item_id(ALICE, "likes tea", None)
    assert item_id(ALICE, "!", None) != item_id(ALICE, ".", None)
    assert item_id(ALICE, "C++", None) != item_id(ALICE, "C", None)
