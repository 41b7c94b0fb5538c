"""A message is stored exactly or refused; there is nothing between the two.

The one law is tested with wild values: whatever Python object stands in whatever field, `encode_checked` either raises
`InvalidMessage` or gives a line that decodes to exactly this message. `json.dumps` compares, because 1 == 1.0 == True.
"""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from praisonaiagents.errors import InvalidMessage, MessageTooLarge
from praisonaiagents.model.message import MAX_DEPTH, ROLES, Message, check, decode, encode, encode_checked

DEFAULTS: dict[str, Any] = msgspec.structs.asdict(Message("user", None))
KNOWN = [name for name in DEFAULTS if name != "extra"]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.one_of(st.integers(), st.integers(-(2**70), 2**70), st.sampled_from([2**63, 2**64, 10**300]))
scalars = st.one_of(st.none(), st.booleans(), integers, st.floats(allow_nan=False, allow_infinity=False), text)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=8,
)
objects = st.dictionaries(text, values, max_size=3)
lists = st.lists(values, max_size=3)
names = st.one_of(st.none(), text)

messages = st.builds(
    Message,
    st.sampled_from(ROLES),
    st.one_of(st.none(), text, lists, objects),
    st.floats(allow_nan=False, allow_infinity=False),
    objects,
    st.one_of(st.none(), lists),
    names,
    names,
    text,
    st.one_of(st.none(), lists),
    st.one_of(st.none(), objects),
    names,
    names,
    names,
    names,
    objects.map(lambda extra: {key: value for key, value in extra.items() if key not in KNOWN}),
)
key_names = st.one_of(st.sampled_from([*KNOWN, "extra"]), text)
foreign = st.dictionaries(key_names, values, max_size=6)


class _Text(str):
    __slots__ = ()


wild = st.recursive(
    st.one_of(
        scalars,
        st.floats(),
        st.text(max_size=3),
        st.binary(max_size=2),
        text.map(_Text),
        st.sampled_from([Decimal(1), 2**14_000, {1}, 1j]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.one_of(text, st.integers(), st.none(), st.text(max_size=2)), inner, max_size=3),
    ),
    max_leaves=5,
)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _exact(message: Message) -> str:
    return _json(msgspec.structs.asdict(message))


@given(messages)
def test_a_message_is_read_back_exactly(message: Message) -> None:
    found = decode(encode_checked(message))
    assert found == message
    assert _exact(found) == _exact(message)


@given(st.dictionaries(st.sampled_from([*DEFAULTS]), wild, max_size=3))
@example({"extra": {"extra": {}}})
@example({"extra": {"extra": {"a": 1}}})
@example({"content": _Text("x")})
@example({"extra": {"role": 5}})
@example({"extra": {"role": "tool"}})
@example({"extra": {"id": None}})
@example({"extra": None})
@example({"name": "ann", "extra": {"name": 5}})
@example({"role": None})
@example({"timestamp": 2**53 + 1})
@example({"timestamp": 2**14_000})
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_anything_is_stored_exactly_or_refused(fields: dict[str, Any]) -> None:
    message = Message(**{"role": "user", "content": "x", **fields})
    try:
        line = encode_checked(message)
    except InvalidMessage:
        return
    found = decode(line)
    assert found == message
    whole = type(message.timestamp) is int
    assert _exact(found) == _exact(
        msgspec.structs.replace(message, timestamp=float(message.timestamp)) if whole else message
    )


@given(messages)
def test_a_message_is_one_line_of_json(message: Message) -> None:
    line = encode_checked(message)
    assert line.startswith(b"{")
    assert b"\n" not in line
    assert b"\r" not in line
    assert _json(json.loads(line)) == _json(message.to_dict())


@given(foreign, st.sampled_from([*ROLES, "robot"]))
@example({"extra": {}}, "user")
@example({"extra": {"a": 1}}, "user")
@example({"content": 5}, "user")
@example({"extra": {"a": 1}, "metadata": [], "id": 5, "timestamp": True, "name": {}, "status": 1}, "user")
@example({"timestamp": 10**400}, "user")
def test_whatever_was_written_is_read_and_written_back(values: dict[str, Any], role: str) -> None:
    given_values = {**values, "role": role}
    message = Message.from_dict(copy.deepcopy(given_values))
    assert decode(encode(message)) == message
    assert decode(json.dumps(given_values, indent=1).encode()) == message
    written = message.to_dict()
    kept = {key: value for key, value in given_values.items() if key in written}
    left_out = {key: value for key, value in given_values.items() if key not in written}
    assert {key: value for key, value in written.items() if key in kept} == kept
    assert written.keys() - kept.keys() <= {"content"}
    assert all(key in KNOWN and value in (None, DEFAULTS[key]) for key, value in left_out.items())


@given(messages)
def test_a_dict_is_read_back_exactly(message: Message) -> None:
    assert Message.from_dict(message.to_dict()) == message
    assert message.to_dict()["content"] == message.content


def test_null_is_the_same_as_an_absent_key() -> None:
    nothing = dict.fromkeys(KNOWN)
    assert Message.from_dict({**nothing, "role": "user"}) == Message("user", None)
    assert decode(json.dumps({**nothing, "role": "user"}).encode()) == Message("user", None)


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"5", b'"x"', b"null", b"{}", b'{"content":"x"}', b'{"role":5}', b"\xff"]
)
def test_what_is_no_message_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode(line)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"role": "robot"}, "user, assistant, tool"),
        ({"role": 5}, "role cannot be int"),
        ({"content": b"x"}, "content cannot be bytes"),
        ({"timestamp": True}, "timestamp cannot be bool"),
        ({"extra": OrderedDict()}, "extra cannot be OrderedDict"),
        ({"metadata": OrderedDict()}, "metadata holds a OrderedDict"),
        ({"timestamp": float("nan")}, "timestamp is nan"),
        ({"metadata": {"a": [{"b": float("inf")}]}}, r"metadata\.a\[\]\.b is inf"),
        ({"metadata": {"a": {5: 1}}}, r"metadata\.a has a key that is not text but int"),
        ({"tool_calls": [(1, 2)]}, r"tool_calls\[\] holds a tuple"),
        ({"usage": {"cost": Decimal(1)}}, r"usage\.cost holds a Decimal"),
        ({"extra": {"newer": {1, 2}}}, r"extra\.newer holds a set"),
        ({"extra": {"role": "tool", "a": 1}}, "^role: a field"),
        ({"content": "\ud800"}, "half a character"),
        ({"metadata": {"n": 1 << 20_000}}, r"metadata\.n is an integer"),
    ],
)
def test_a_refusal_names_the_place(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidMessage, match=named):
        encode_checked(Message(**{"role": "user", "content": "x", **fields}))


def test_a_refusal_stays_short() -> None:
    value: Any = float("nan")
    for _ in range(50):
        value = {"k" * 10_000: value}
    with pytest.raises(InvalidMessage) as info:
        check(Message("user", "x", metadata=value))
    assert len(str(info.value)) < 200


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}])
def test_nesting_has_a_limit(wrap: Any) -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    message = Message("user", "x", metadata={}, tool_calls=None, extra={})
    assert decode(encode_checked(msgspec.structs.replace(message, content=value))).content == value
    with pytest.raises(InvalidMessage, match="deeper than 100"):
        encode_checked(msgspec.structs.replace(message, content=wrap(value)))


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidMessage, match="deeper"):
        encode_checked(Message("user", loop))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_the_size_limit_counts_bytes_of_json(content: str) -> None:
    message = Message("user", content)
    size = len(encode(message))
    assert encode_checked(message, size) == encode(message)
    with pytest.raises(MessageTooLarge) as info:
        encode_checked(message, size - 1)
    assert (info.value.size, info.value.limit) == (size, size - 1)


def test_messages_share_no_defaults() -> None:
    one, other = Message("user", "a"), Message("user", "b")
    one.metadata["a"] = 1
    one.extra["a"] = 1
    assert (other.metadata, other.extra) == ({}, {})


def test_a_chat_shows_what_is_set() -> None:
    assert Message("user", None, 5.0, {"a": 1}, id="i", model="m").to_chat() == {"role": "user", "content": None}
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    shown = Message("assistant", "", tool_calls=calls, name="n", reasoning=[], status="interrupted").to_chat()
    assert shown == {
        "role": "assistant",
        "content": "",
        "tool_calls": calls,
        "name": "n",
        "status": "interrupted",
    }
    assert Message("tool", "r", tool_call_id="c").to_chat() == {"role": "tool", "content": "r", "tool_call_id": "c"}


@pytest.mark.parametrize("role", ROLES)
def test_only_an_assistant_calls_tools(role: str) -> None:
    calls: list[Any] = [{"id": "a"}, {"id": 5}, {}, None, "x", ["id"], {"id": ""}, {"id": "b"}]
    expected = [{"id": "a"}, {"id": ""}, {"id": "b"}] if role == "assistant" else []
    assert Message(role, None, tool_calls=calls).calls() == expected
    assert Message(role, None).calls() == []


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("a", "a"),
        (None, ""),
        ({"text": "a"}, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}, "x", None, {"text": 5}, {"text": "b"}], "a\nb"),
    ],
)
def test_the_text_of_a_message(content: Any, shown: str) -> None:
    assert Message("user", content).text() == shown


def test_a_repr_says_who_and_which_but_not_what() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = Message("assistant", "my secret", id="m1", tool_calls=[call], metadata={"key": "sk-1"})
    assert repr(message) == "Message(role='assistant', id='m1', 9 characters, 1 tool calls)"
