"""A record and its changes: what may be changed, and what could not be read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from praisonaiagents.errors import InvalidId, InvalidMessage
from praisonaiagents.model.ids import DEFAULT_USER
from praisonaiagents.model.record import (
    PATCHABLE,
    RESERVED,
    Key,
    Pin,
    Record,
    check_reachable,
    check_record,
    check_values,
    patched,
)

PINS = {"a": Pin("old", 3, 6, {"label": "A"}), "b": Pin("log", 0, 4)}
RECORD = Record("alice", "s", 1.0, "helper", {"title": "T"}, {"n": 1}, 2, 5, {"parent_id": "p"}, 9, 3.0, "log", PINS)
OLDEST = 1


def changed(patch: dict[str, Any]) -> Record:
    return patched(RECORD, patch, oldest=OLDEST)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=1)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.tuples(inner), st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)


def test_a_record_names_its_session() -> None:
    assert RECORD.key == Key("alice", "s") == ("alice", "s")
    assert RECORD.message_count == 7
    assert RECORD.head == Pin("log", 2, 9)


@pytest.mark.parametrize(
    "patch",
    [
        *({"agent_name": None}, {"agent_name": ""}, {"metadata": {}}, {"state": {"a": [1]}}, {"extra": {"x": 1}}, {}),
        *({"pins": {}}, {"pins": {"c": Pin("log", 1, 9), "": PINS["a"]}}),
    ],
)
def test_a_patch_replaces_its_fields_and_counts(patch: dict[str, Any]) -> None:
    before = msgspec.structs.asdict(RECORD)
    after = changed(patch)
    assert msgspec.structs.asdict(after) == before | patch | {"revision": 6}
    assert msgspec.structs.asdict(RECORD) == before


def test_patchable_is_what_is_not_derived() -> None:
    assert sorted(PATCHABLE) == ["agent_name", "extra", "head", "keep", "metadata", "pins", "start", "state"]


@pytest.mark.parametrize("name", [*sorted(set(Record.__struct_fields__) - PATCHABLE), "unknown", "Metadata", ""])
def test_other_fields_are_refused(name: str) -> None:
    with pytest.raises(InvalidMessage, match="not a field"):
        changed({"state": {}, name: 1})


@given(st.integers(0, 9))
def test_start_moves_forward_only(start: int) -> None:
    assert changed({"start": start}).start == max(start, 2)


@pytest.mark.parametrize("start", [-1, 10, 2**70])
def test_start_lies_in_the_history(start: int) -> None:
    with pytest.raises(InvalidMessage, match="start"):
        changed({"start": start})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("metadata", "state", "extra") for value in (None, [], "x", 1)),
        *(("agent_name", value) for value in (1, b"x", [])),
        *(("start", value) for value in (None, "1", 1.0, True)),
        *(("pins", value) for value in (None, [], "x", PINS["a"])),
        *(("head", value) for value in (None, {}, "log", ("log", 2, 9))),
    ],
)
def test_wrong_types_are_refused(name: str, value: Any) -> None:
    for call in (lambda: changed({name: value}), lambda: check_values({name: value})):
        with pytest.raises(InvalidMessage, match=f"{name} cannot be {type(value).__name__}"):
            call()


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_extra_cannot_hide_a_field(name: str) -> None:
    with pytest.raises(InvalidMessage, match=name):
        changed({"extra": {"fine": 1, name: 1}})
    check_values({"metadata": {name: 1}, "state": {name: 1}})


@given(values, st.sampled_from(["metadata", "state", "extra"]))
def test_a_value_is_kept_exactly_or_refused(value: Any, name: str) -> None:
    try:
        after = changed({name: {"v": value}})
    except InvalidMessage:
        return
    found = msgspec.json.decode(msgspec.json.encode(after), type=Record)
    assert found == after
    assert json.dumps(getattr(found, name)) == json.dumps({"v": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\ud800": 1}, (1,), b"x", {1}, 2**14_000])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    for name in ("metadata", "state", "extra"):
        with pytest.raises(InvalidMessage):
            check_values({name: {"v": value}})
        with pytest.raises(InvalidMessage):
            check_record(Record("alice", "s", **{name: {"v": value}}))


def test_a_record_that_can_be_kept() -> None:
    check_record(RECORD)
    check_record(Record(DEFAULT_USER, "🙂/..", 253_000_000_000.5))
    check_record(Record("alice", "s", start=-5, length=-1, revision=-1))  # the engine's own, which it ignores


@pytest.mark.parametrize("created_at", [-0.5, float("nan"), float("inf"), 1e12, None, "now", True])
def test_a_time_that_no_calendar_knows_is_refused(created_at: Any) -> None:
    with pytest.raises(InvalidMessage, match="created_at"):
        check_record(Record("alice", "s", created_at))


@pytest.mark.parametrize("wrong", ["", "a\nb", "\ud800", "x" * 1025, None, 5])
def test_ids_that_name_nothing_are_refused(wrong: Any) -> None:
    for record in (Record(wrong, "s"), Record("alice", wrong)):
        with pytest.raises(InvalidId):
            check_record(record)


# Pins and the head


def test_the_head_moves_to_what_is_held() -> None:
    after = changed({"head": Pin("old", 4, 6, {"any": 1}), "state": {}, "pins": {"undo": RECORD.head}})
    assert (after.log, after.start, after.length, after.state) == ("", 4, 6, {})
    assert (after.pins, after.revision) == ({"undo": Pin("log", 2, 9)}, 6)
    assert changed({"head": RECORD.head}).pins == PINS


def test_the_head_may_move_back_beyond_start() -> None:
    assert changed({"head": Pin("log", 0, 1)}).start == 0


@pytest.mark.parametrize("start", [2, 5])
def test_a_head_brings_its_own_start(start: int) -> None:
    with pytest.raises(InvalidMessage, match="start and head"):
        changed({"head": RECORD.head, "start": start})


bounds = st.integers(-1, 11)


@given(st.sampled_from(["log", "old", "other", ""]), bounds, bounds, st.integers(0, 9))
def test_a_pin_is_reachable_where_one_view_has_all_of_it(log: str, start: int, length: int, oldest: int) -> None:
    """Two views that have half of it each do not."""
    views = [("log", range(oldest, 10)), ("log", range(5)), ("old", range(3, 7))]
    held = start <= length and any(
        name == log and start in numbers and length in numbers for name, numbers in views
    )  # a range of bounds has one more than a range of messages
    pin = Pin(log, start, length, {"label": "x"})
    calls: list[Callable[[], object]] = [
        lambda: check_reachable(RECORD, pin, oldest=oldest),
        lambda: patched(RECORD, {"head": pin}, oldest=oldest),
        lambda: patched(RECORD, {"pins": PINS | {"c": pin}}, oldest=oldest),
    ]
    for call in calls:
        if held:
            call()
        else:
            with pytest.raises(InvalidMessage, match="not held"):
                call()


def test_what_is_reachable_is_what_was_held_before_the_patch() -> None:
    with pytest.raises(InvalidMessage, match="not held"):
        changed({"pins": {"c": Pin("new", 0, 1), "d": Pin("new", 0, 1)}})
    changed({"pins": {"c": PINS["a"]}})
    with pytest.raises(InvalidMessage, match="not held"):
        patched(changed({"pins": {}}), {"pins": {"c": PINS["a"]}}, oldest=OLDEST)


@pytest.mark.parametrize(
    "pin",
    [
        *(None, {}, "log", ("log", 2, 9)),
        *(Pin(5, 2, 9), Pin("log", 2.0, 9), Pin("log", 2, "9"), Pin("log", True, 9), Pin("log", 2, 9, [])),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_pin_is_refused(pin: Any) -> None:
    for patch in ({"pins": {"x": pin}}, {"head": pin}):
        with pytest.raises(InvalidMessage):
            changed(patch)


@pytest.mark.parametrize("name", [1, None, b"x", "\ud800"])
def test_the_name_of_a_pin_is_text(name: Any) -> None:
    with pytest.raises(InvalidMessage):
        changed({"pins": {name: RECORD.head}})


@given(values)
def test_what_a_pin_says_is_kept_exactly_or_refused(value: Any) -> None:
    pin = Pin("log", 2, 9, {"v": value})
    for patch in ({"pins": {"x": pin}}, {"head": pin}):
        try:
            after = changed(patch)
        except InvalidMessage:
            continue
        found = msgspec.json.decode(msgspec.json.encode(after), type=Record)
        assert found == after
        assert json.dumps({name: pin.info for name, pin in found.pins.items()}) == json.dumps(
            {name: pin.info for name, pin in after.pins.items()}
        )


def test_pins_of_a_new_record_are_the_engines_own() -> None:
    check_record(Record("alice", "s", log="x", pins={"x": Pin("x", 0, 1)}))
