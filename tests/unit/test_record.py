"""A record and its changes: what may be changed, and what could not be read back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from praisonaiagents.errors import InvalidId, InvalidMessage
from praisonaiagents.model.ids import DEFAULT_USER
from praisonaiagents.model.record import PATCHABLE, RESERVED, Key, Record, check_record, check_values, patched

RECORD = Record("alice", "s", 1.0, "helper", {"title": "T"}, {"n": 1}, 2, 5, {"parent_id": "p"}, 9, 3.0)

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


@pytest.mark.parametrize(
    "patch",
    [{"agent_name": None}, {"agent_name": ""}, {"metadata": {}}, {"state": {"a": [1]}}, {"extra": {"x": 1}}, {}],
)
def test_a_patch_replaces_its_fields_and_counts(patch: dict[str, Any]) -> None:
    before = msgspec.structs.asdict(RECORD)
    after = patched(RECORD, patch)
    assert msgspec.structs.asdict(after) == before | patch | {"revision": 6}
    assert msgspec.structs.asdict(RECORD) == before


def test_patchable_is_what_is_not_derived() -> None:
    assert sorted(PATCHABLE) == ["agent_name", "extra", "metadata", "start", "state"]


@pytest.mark.parametrize("name", [*sorted(set(Record.__struct_fields__) - PATCHABLE), "unknown", "Metadata", ""])
def test_other_fields_are_refused(name: str) -> None:
    with pytest.raises(InvalidMessage, match="not a field"):
        patched(RECORD, {"state": {}, name: 1})


@given(st.integers(0, 9))
def test_start_moves_forward_only(start: int) -> None:
    assert patched(RECORD, {"start": start}).start == max(start, 2)


@pytest.mark.parametrize("start", [-1, 10, 2**70])
def test_start_lies_in_the_history(start: int) -> None:
    with pytest.raises(InvalidMessage, match="start"):
        patched(RECORD, {"start": start})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("metadata", "state", "extra") for value in (None, [], "x", 1)),
        *(("agent_name", value) for value in (1, b"x", [])),
        *(("start", value) for value in (None, "1", 1.0, True)),
    ],
)
def test_wrong_types_are_refused(name: str, value: Any) -> None:
    for call in (lambda: patched(RECORD, {name: value}), lambda: check_values({name: value})):
        with pytest.raises(InvalidMessage, match=f"{name} cannot be {type(value).__name__}"):
            call()


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_extra_cannot_hide_a_field(name: str) -> None:
    with pytest.raises(InvalidMessage, match=name):
        patched(RECORD, {"extra": {"fine": 1, name: 1}})
    check_values({"metadata": {name: 1}, "state": {name: 1}})


@given(values, st.sampled_from(["metadata", "state", "extra"]))
def test_a_value_is_kept_exactly_or_refused(value: Any, name: str) -> None:
    try:
        changed = patched(RECORD, {name: {"v": value}})
    except InvalidMessage:
        return
    found = msgspec.json.decode(msgspec.json.encode(changed), type=Record)
    assert found == changed
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
