"""What every storage engine promises, as tests to inherit.

    class TestMyEngine(EngineContract):
        @pytest.fixture
        def engine(self, tmp_path):
            self.path = tmp_path / "sessions.db"
            engine = MyEngine(self.path)
            yield engine
            engine.close()

        def open_engine(self):
            return MyEngine(self.path)

Each test is one sentence of `praisonaiagents.storage.engine`, and sees the engine only through its public methods. What a
reader would get wrong: `engine` starts empty in every test, and `open_engine` opens the same storage once more, not a new
one. No test waits for time to pass: where an order depends on a clock, it makes changes until the clock has moved.

`json.dumps` compares values here, because Python finds 1, 1.0 and True equal, and an engine must tell them apart.
"""

# ruff: noqa: S101 - this is a test module, although it is shipped

from __future__ import annotations

import datetime
import enum
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
import pytest

from praisonaiagents.errors import (
    Conflict,
    InvalidId,
    InvalidMessage,
    MessageIdConflict,
    MessageTooLarge,
    SessionExists,
    SessionNotFound,
)
from praisonaiagents.model.ids import DEFAULT_USER, file_stem, twin_stem
from praisonaiagents.model.message import MAX_DEPTH, MAX_MESSAGE_BYTES, ROLES, Message, encode
from praisonaiagents.model.record import RESERVED, Key, Pin, Record
from praisonaiagents.model.search import parse
from praisonaiagents.storage.engine import Engine, new_message_id

T = TypeVar("T")

KEY = Key("alice", "s")
OTHER_USER = Key("bob", "s")
OTHER_SESSION = Key("alice", "t")

# --------------------------------------------------------------------------------------------------- difficult things

DIFFICULT_IDS = (
    *("a/b", "a.b", "a_b", "a b", "a-b", "a:b", "a\\b", "a|b", "a%b", "a\u2028b", "ab"),
    *("A", "a", "ß", "ss", "SS", "İ", "i", "ı", "K", "\u212a", "\ufb01", "fi"),
    *("é", "e\u0301", "🙂", "🙃", "日本", "日木", "مرحبا", "שלום"),
    *(
        ".",
        "..",
        "...",
        ".hidden",
        "dot.",
        "dot",
        "lead",
        " lead",
        "trail",
        "trail ",
        " ",
        "-rf",
        "~",
        "*",
        "?",
        "[a]",
        "{a}",
        "'",
        '"',
        "';--",
    ),
    *("%41", "%2F", "a%2Fb", "a%2fb", "%", "%%", "%~", "_", "__"),
    *("con", "CON", "nul.txt", "com1", "x.json", "x.json.lock", "x.json.tmp", "users", "users/alice", "damaged"),
    *("null", "None", "0", "00", "-1", "1e3", "default", "praison", "alice:main", "alice_main"),
    *("n" * 299 + "a", "n" * 299 + "b", "é" * 512, "é" * 511 + "ee", "日" * 200, "x" * 1024, "x" * 1023),
    *(file_stem("n" * 299 + "a"), twin_stem("alice", "a")),
)

DIFFICULT_TEXTS = {
    "empty": "",
    "blank": " \t ",
    "NUL": "a\0b",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85",
    "line ends": "a\nb\r\nc\rd\u2028e\u2029f\n",
    "quotes": '"\'`\\" \\n \\u0000 \\',
    "astral": "🙂𝕏\U0010ffff👩‍👩‍👧",
    "not normalised": "é e\u0301 ﬁ K \u212a",
    "right to left": "مرحبا \u202eשלום\u202c",
    "no characters": "\ufeff\ufffe\uffff",
    "a file's end": '\n],\n"message_count": 0,\n"updated_at": "x"\n}\n',
    "a message": '{"role":"user","content":"x","id":"msg-1"}',
    "not quite JSON": "NaN",
    "SQL": "'; DROP TABLE messages; -- %s ? :x",
    "long": "word \u00e9 " * 20_000,
}


def _nested(levels: int) -> Any:
    value: Any = "bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


DIFFICULT_VALUES: dict[str, Any] = {
    "scalars": [None, True, False, 0, 1, 1.0, -0.0, 0.0, "", "1"],
    "integers": [2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, -(10**300)],
    "floats": [1e308, 1.7976931348623157e308, 5e-324, 0.1, 1 / 3, 1e16, 1e22, 123456789012345680.0, -1e-7],
    "empty": [[], {}, [[]], [{}], {"a": {}, "b": []}],
    "keys": {
        "": 1,
        "extra": 2,
        "role": 3,
        "a.b": 4,
        "$set": 5,
        "__proto__": 6,
        "\0": 7,
        "🙂": 8,
        "é": 9,
        "e\u0301": 10,
    },
    "texts": DIFFICULT_TEXTS,
    "many": {str(number): [number] for number in range(1000)},
    "deep": _nested(MAX_DEPTH - 10),
}


def _call(call_id: str, name: str = "add", arguments: str = '{"a": 1, "b": 2}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}

DIFFICULT_MESSAGES: dict[str, Message] = {
    **{f"role {role}": Message(role, "x") for role in ROLES},
    **{f"{name} text": Message("user", text, name=text, run_id=text) for name, text in DIFFICULT_TEXTS.items()},
    **{f"{name} in metadata": Message("user", "x", metadata={"v": value}) for name, value in DIFFICULT_VALUES.items()},
    "no content": Message("assistant", None),
    "empty content": Message("assistant", []),
    "parts": Message("user", [{"type": "text", "text": "look"}, _IMAGE, {"type": "odd", "x": [None, 1.5]}]),
    "content object": Message("tool", {"ok": True, "rows": [[1, 2.0], []]}, tool_call_id="c1", name="query"),
    "tool calls": Message("assistant", None, tool_calls=[_call("c1"), _call("c2", "mul", "not JSON")]),
    "odd tool calls": Message("assistant", "", tool_calls=[{"id": 5}, "x", None, {}]),
    "no tool calls": Message("assistant", "x", tool_calls=[]),
    "tool result": Message("tool", "3", tool_call_id="c1", name="add"),
    "reasoning": Message("assistant", "x", reasoning=[{"text": "hm", "signature": "s==", "id": "r1", "provider": "p"}]),
    "usage": Message("assistant", "x", usage={"input_tokens": 10, "output_tokens": 2, "cost": 1e-7}, model="m-1"),
    "empty usage": Message("assistant", "x", usage={}, reasoning=[]),
    "times": Message("user", "x", timestamp=1_795_253_400.123456),
    "odd time": Message("user", "x", timestamp=-1e308),
    "status": Message("assistant", "x", status="interrupted", run_id="r1"),
    "unknown status": Message("assistant", "x", status="of tomorrow"),
    "unknown keys": Message("user", "x", extra={"newer": {"a": [1]}, "": None, "Role": "tool", "é": 1}),
    "a key named extra": Message("user", "x", extra={"extra": {"extra": {}}}),
    "an empty key named extra": Message("user", "x", extra={"extra": {}}),
    "known keys of another type": Message(
        "user", "x", extra={"name": 5, "timestamp": "noon", "tool_calls": {}, "usage": 1}
    ),
    "deepest": Message("user", [_nested(MAX_DEPTH - 1)]),
}


class _Text(str):
    __slots__ = ()


class _Word(enum.StrEnum):
    WORD = "user"


REFUSED_VALUES: dict[str, Any] = {
    "NaN": float("nan"),
    "infinity": [float("inf")],
    "minus infinity": {"a": -float("inf")},
    "lone surrogate": "\ud800",
    "lone surrogate in a key": {"\udfff": 1},
    "tuple": (1, 2),
    "set": {"a": {1}},
    "bytes": b"x",
    "datetime": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "decimal": Decimal("1.5"),
    "text of a class of its own": _Text("x"),
    "enum": _Word.WORD,
    "ordered dict": OrderedDict(a=1),
    "object": object(),
    "number as a key": {1: "a"},
    "None as a key": {"a": [{None: 1}]},
    "too deep": _nested(MAX_DEPTH + 1),
    "integer of 5,000 digits": 10**5000,
}


def _wrong(**fields: Any) -> Message:
    return Message(**{"role": "user", "content": "x", **fields})


REFUSED_MESSAGES: dict[str, Message] = {
    **{f"{name} in metadata": _wrong(metadata={"v": value}) for name, value in REFUSED_VALUES.items()},
    **{f"{name} as extra key": _wrong(extra={"v": value}) for name, value in REFUSED_VALUES.items()},
    "lone surrogate in the text": _wrong(content="half \ud83d"),
    "lone surrogate in the id": _wrong(id="\ud83d"),
    "NaN as time": _wrong(timestamp=float("nan")),
    "time too large": _wrong(timestamp=2**53 + 1),
    "tuple of parts": _wrong(content=({"type": "text", "text": "x"},)),
    "bytes as content": _wrong(content=b"x"),
    "number as content": _wrong(content=5),
    "content too deep": _wrong(content=_nested(MAX_DEPTH + 1)),
    "content of a text class of its own": _wrong(content=_Text("x")),
    "unknown role": _wrong(role="robot"),
    "empty role": _wrong(role=""),
    "no role": _wrong(role=None),
    "enum as role": _wrong(role=_Word.WORD),
    "list as metadata": _wrong(metadata=[]),
    "object as tool calls": _wrong(tool_calls={}),
    "number as tool call id": _wrong(tool_call_id=1),
    "number as id": _wrong(id=1),
    "flag as time": _wrong(timestamp=True),
    "list as extra": _wrong(extra=[1]),
    "no extra": _wrong(extra=None),
    "extra that contradicts": _wrong(extra={"role": "tool"}),
    "extra that hides": _wrong(name="ann", extra={"name": 5}),
}

_NO_PINS: list[Any] = [None, [], {"x": {}}, {"x": None}, {1: Pin("1", 0, 0)}]
_NO_HEADS: list[Any] = [None, {}, "x", Pin("1", True, 1), Pin("1", 0, 1.0)]  # type: ignore[arg-type]

CHANGES: dict[str, Callable[[Engine, Key], object]] = {
    "append": lambda engine, key: engine.append(key, [Message("user", "changed")]),
    "replace": lambda engine, key: engine.replace(key, [Message("user", "changed")]),
    "update": lambda engine, key: engine.update(key, {"state": {"changed": True}, "metadata": {"title": "changed"}}),
    "archive": lambda engine, key: engine.update(key, {"start": 1}),
    "drop": lambda engine, key: (engine.update(key, {"start": 1}), engine.drop(key)),
    "fork": lambda engine, key: engine.fork(key, Record(key.user_id, new_message_id())),
    "pin": lambda engine, key: engine.update(key, {"pins": {"x": _record(engine, key).head}}),
    "move": lambda engine, key: engine.update(key, {"head": _record(engine, key).head}),
    "delete": lambda engine, key: engine.delete(key),
}

QUIET: dict[str, Callable[[Engine, Key], object]] = {
    "get": lambda engine, key: engine.get(key),
    "read": lambda engine, key: engine.read(key),
    "read beyond the end": lambda engine, key: engine.read(key, 1000),
    "list": lambda engine, key: engine.list_sessions(None),
    "open": lambda engine, key: engine.open_session(Record(*key, agent_name="new", state={"new": 1})),
    "append of nothing": lambda engine, key: engine.append(key, []),
    "repeated append": lambda engine, key: engine.append(key, engine.read(key, 0).messages),
    "drop of nothing": lambda engine, key: engine.drop(key),
}

# ------------------------------------------------------------------------------------------------------------ helpers


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _exact(messages: Sequence[Message]) -> list[str]:
    return [_json(message.to_dict()) for message in messages]


def _texts(count: int, first: int = 0) -> list[Message]:
    return [Message("user", f"m{number}", id=f"id{number}") for number in range(first, first + count)]


def _make(engine: Engine, key: Key = KEY, count: int = 0) -> Key:
    engine.open_session(Record(*key))
    if count:
        engine.append(key, _texts(count))
    return key


def _said(engine: Engine, key: Key = KEY, start: int | None = None, stop: int | None = None) -> list[Any]:
    return [message.content for message in engine.read(key, start, stop).messages]


def _record(engine: Engine, key: Key = KEY) -> Record:
    record = engine.get(key)
    assert record is not None, f"{key} is not there"
    return record


def _listed(engine: Engine, user_id: str | None = None, size: int = 50) -> list[Record]:
    """All pages of a listing."""
    return [record for page in _pages(engine, user_id, size) for record in page]


def _pages(engine: Engine, user_id: str | None, size: int, after: str | None = None) -> Iterator[list[Record]]:
    seen: set[Key] = set()
    while True:
        page = engine.list_sessions(user_id, after=after, limit=size)
        keys = {record.key for record in page.records}
        assert len(page.records) == len(keys) <= size
        assert not keys & seen, "a session is on two pages"
        yield page.records
        if page.after is None:
            return
        assert page.records, "a page with nothing on it says that there is more"
        seen |= keys
        after = page.after


def _everything(engine: Engine) -> list[str]:
    """All that is stored, in the order of the listing."""
    return [
        _json([msgspec.to_builtins(record), _exact(engine.read(record.key, 0).messages)]) for record in _listed(engine)
    ]


@contextmanager
def _refused(engine: Engine, error: type[Exception]) -> Iterator[pytest.ExceptionInfo[Any]]:
    """The block raises `error`, and changes nothing that is stored."""
    before = _everything(engine)
    with pytest.raises(error) as info:
        yield info
    assert _everything(engine) == before


def _until_newer(engine: Engine, key: Key, than: Key, change: Callable[[], object]) -> None:
    """Change a session until the engine's clock says that it was changed after another one."""
    for _ in range(20_000):
        change()
        if _record(engine, key).updated_at > _record(engine, than).updated_at:
            return
    raise AssertionError(f"{key} was changed, but its updated_at is not later than that of {than}")


def _make_in_order(engine: Engine, keys: Sequence[Key]) -> None:
    """Sessions of which each was changed later than those before it."""
    for number, key in enumerate(keys):
        _make(engine, key, count=1)
        if number:
            _until_newer(engine, key, keys[number - 1], partial(engine.update, key, {"state": {}}))


def _together(count: int, work: Callable[[int], T]) -> list[T]:
    """What `work(0)`, `work(1)`, ... return, all of them started at the same moment, each in a thread of its own."""
    barrier = threading.Barrier(count)

    def started(number: int) -> T:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(started, range(count)))


def _or_error(work: Callable[[], object], error: type[Exception]) -> bool:
    """True if `work` succeeds, False if it raises `error`."""
    try:
        work()
    except error:
        return False
    return True


# ----------------------------------------------------------------------------------------------------------- contract


class EngineContract:
    """Subclass this, override `engine` and `open_engine`, and name the class `Test...`.

    max_message_bytes: the limit the engine was made with, in bytes of one message's JSON.
    """

    max_message_bytes = MAX_MESSAGE_BYTES

    @pytest.fixture
    def engine(self) -> Any:
        """An engine on empty storage."""
        raise NotImplementedError("override the fixture `engine`")

    def open_engine(self) -> Engine | None:
        """Another engine on the storage of the fixture `engine`; None where that is impossible."""
        return None

    @pytest.fixture
    def other(self, engine: Engine) -> Iterator[Engine]:
        """A second handle on the storage of `engine`."""
        opened = self.open_engine()
        if opened is None:
            pytest.skip("this engine's storage cannot be opened twice")
        yield opened
        opened.close()

    def test_it_has_the_methods_of_an_engine(self, engine: Engine) -> None:
        assert isinstance(engine, Engine)

    # Identity

    def test_session_ids_that_look_alike_stay_apart(self, engine: Engine) -> None:
        self._stay_apart(engine, [Key("alice", session_id) for session_id in DIFFICULT_IDS])

    def test_user_ids_that_look_alike_stay_apart(self, engine: Engine) -> None:
        self._stay_apart(engine, [Key(user_id, "s") for user_id in DIFFICULT_IDS])

    def test_user_and_session_ids_do_not_run_together(self, engine: Engine) -> None:
        joins = ("/", ":", "|", "-", "_", ".", "%", "@", " ", ",", "__", "::", "")
        keys = {Key("a", f"b{join}c") for join in joins} | {Key(f"a{join}b", "c") for join in joins}
        self._stay_apart(engine, sorted(keys))

    def _stay_apart(self, engine: Engine, keys: list[Key]) -> None:
        assert len(set(keys)) == len(keys)
        for number, key in enumerate(keys):
            assert engine.open_session(Record(*key, state={"n": number}), must_be_new=True).key == key
            assert engine.append(key, [Message("user", str(number), id="same")]).length == 1
        for number, key in enumerate(keys):
            assert _record(engine, key).key == key
            assert _record(engine, key).state == {"n": number}
            assert _said(engine, key) == [str(number)]
            assert engine.owners(key.session_id) == sorted(k.user_id for k in keys if k.session_id == key.session_id)
        assert sorted(record.key for record in _listed(engine)) == sorted(keys)
        gone, kept = keys[::2], keys[1::2]
        assert all(engine.delete(key) for key in gone)
        assert [engine.get(key) for key in gone] == [None] * len(gone)
        assert [_said(engine, key) for key in kept] == [[str(keys.index(key))] for key in kept]

    def test_two_users_read_their_own(self, engine: Engine) -> None:
        _make(engine, KEY, count=2)
        _make(engine, OTHER_USER, count=1)
        assert (_said(engine, KEY), _said(engine, OTHER_USER)) == (["m0", "m1"], ["m0"])
        assert (_record(engine, KEY).length, _record(engine, OTHER_USER).length) == (2, 1)

    def test_another_users_session_is_not_there(self, engine: Engine) -> None:
        _make(engine, OTHER_USER, count=2)
        assert engine.get(KEY) is None
        assert engine.read(KEY).messages == []
        assert engine.delete(KEY) is False
        for name in ("append", "replace", "update", "drop"):
            with _refused(engine, SessionNotFound):
                CHANGES[name](engine, KEY)

    @pytest.mark.parametrize("neighbour", [OTHER_USER, OTHER_SESSION], ids=["another user", "another session"])
    @pytest.mark.parametrize("change", CHANGES)
    def test_a_change_touches_one_session_only(self, engine: Engine, change: str, neighbour: Key) -> None:
        _make(engine, KEY, count=3)
        _make(engine, neighbour, count=3)
        before = _record(engine, neighbour)
        CHANGES[change](engine, KEY)
        assert _record(engine, neighbour) == before
        assert _said(engine, neighbour, 0) == ["m0", "m1", "m2"]

    def test_owners_are_all_users_of_a_session_id(self, engine: Engine) -> None:
        users = ["bob", "Alice", "alice", DEFAULT_USER, "a/b", "z" * 300]
        for user_id in users:
            _make(engine, Key(user_id, "S.x/1"))
            _make(engine, Key(user_id, "s.x_1"))
        _make(engine, Key("carol", "S.x"))
        assert engine.owners("S.x/1") == sorted(users)
        assert engine.owners("S.x") == ["carol"]
        assert engine.owners("s.x/1") == []

    # Opening

    def test_a_new_session_is_empty(self, engine: Engine) -> None:
        record = engine.open_session(Record(*KEY))
        assert record == _record(engine)
        assert (record.start, record.length, record.revision, record.message_count) == (0, 0, 0, 0)
        assert (record.agent_name, record.metadata, record.state, record.extra) == (None, {}, {}, {})
        assert record.created_at > 0
        assert record.updated_at > 0
        assert engine.read(KEY).messages == []

    def test_open_keeps_what_the_record_says(self, engine: Engine) -> None:
        given = Record(*KEY, 1_700_000_000.123456, "helper", {"title": "T"}, {"n": 1}, extra={"parent_id": "p"})
        for record in (engine.open_session(given), _record(engine)):
            assert abs(record.created_at - given.created_at) < 1e-6
            assert (record.agent_name, record.metadata, record.state, record.extra) == (
                (given.agent_name, given.metadata, given.state, given.extra)
            )

    def test_open_numbers_from_zero_whatever_the_record_says(self, engine: Engine) -> None:
        record = engine.open_session(Record(*KEY, start=3, length=7, revision=9, updated_at=5.0))
        assert (record.start, record.length, record.revision) == (0, 0, 0)
        assert record.updated_at > 5.0
        assert record == _record(engine)
        assert engine.append(KEY, _texts(1)).length == 1

    def test_open_leaves_an_existing_session_as_it_is(self, engine: Engine) -> None:
        _make(engine, count=2)
        before = _everything(engine)
        assert engine.open_session(Record(*KEY, 5.0, "new", {"title": "new"}, {"new": 1})) == _record(engine)
        assert _everything(engine) == before

    def test_must_be_new_refuses_an_existing_session(self, engine: Engine) -> None:
        engine.open_session(Record(*KEY), must_be_new=True)
        with _refused(engine, SessionExists) as info:
            engine.open_session(Record(*KEY, agent_name="new"), must_be_new=True)
        assert (info.value.user_id, info.value.session_id) == KEY

    def test_of_many_who_open_at_once_one_makes_it(self, engine: Engine) -> None:
        for number in range(5):
            key = Key("alice", f"race{number}")

            make = partial(engine.open_session, Record(*key), must_be_new=True)
            won = _together(8, lambda _: _or_error(make, SessionExists))  # noqa: B023 - called in this round only
            assert sorted(won) == [False] * 7 + [True]
            assert engine.delete(key) is True
            assert engine.get(key) is None

    def test_many_may_open_and_append_at_once(self, engine: Engine) -> None:
        def work(number: int) -> None:
            engine.open_session(Record(*KEY))
            engine.append(KEY, [Message("user", str(number))])

        _together(8, work)
        assert sorted(_said(engine)) == sorted(map(str, range(8)))
        assert [record.key for record in _listed(engine)] == [KEY]

    @pytest.mark.parametrize("value", REFUSED_VALUES)
    @pytest.mark.parametrize("field", ["metadata", "state", "extra"])
    def test_open_refuses_what_json_cannot_hold(self, engine: Engine, field: str, value: str) -> None:
        fields: dict[str, Any] = {field: {"v": REFUSED_VALUES[value]}}
        with _refused(engine, InvalidMessage):
            engine.open_session(Record(*KEY, **fields))

    def test_open_refuses_wrong_types(self, engine: Engine) -> None:
        wrong: list[dict[str, Any]] = [{"agent_name": 5}, {"metadata": []}, {"state": None}, {"extra": "x"}]
        wrong += [{"created_at": float("nan")}, {"created_at": -1.0}, {"created_at": 1e18}, {"created_at": "now"}]
        for fields in wrong:
            with _refused(engine, InvalidMessage):
                engine.open_session(Record(*KEY, **fields))

    @pytest.mark.parametrize("wrong", ["", "a\0b", "a\nb", "\ud800", "x" * 1025, 5, None])
    def test_open_refuses_ids_that_name_nothing(self, engine: Engine, wrong: Any) -> None:
        for key in (Key("alice", wrong), Key(wrong, "s")):
            with _refused(engine, InvalidId):
                engine.open_session(Record(*key))

    def test_what_is_not_there_is_not_made_by_asking(self, engine: Engine) -> None:
        assert engine.get(KEY) is None
        assert engine.read(KEY) == engine.read(KEY, 3, 5) == engine.read(KEY, -1) == (0, [])
        assert engine.owners("s") == []
        assert engine.list_sessions("alice") == engine.list_sessions(None) == ([], None)
        assert engine.delete(KEY) is False
        for name in ("append", "replace", "update", "drop"):
            with _refused(engine, SessionNotFound) as info:
                CHANGES[name](engine, KEY)
            assert (info.value.user_id, info.value.session_id) == KEY
        with _refused(engine, SessionNotFound):
            engine.append(KEY, [])
        assert engine.get(KEY) is None

    # Appending

    def test_append_tells_what_it_did(self, engine: Engine) -> None:
        _make(engine)
        assert engine.append(KEY, _texts(2)) == (0, 2, ("id0", "id1"))
        assert engine.append(KEY, _texts(1, 2)) == (0, 3, ("id2",))
        engine.update(KEY, {"start": 2})
        assert engine.append(KEY, _texts(1, 3)) == (2, 4, ("id3",))
        assert engine.append(KEY, []) == (2, 4, ())

    def test_messages_keep_the_order_of_their_appends(self, engine: Engine) -> None:
        _make(engine)
        messages = _texts(300)
        engine.append(KEY, messages[:150])
        for message in messages[150:160]:
            engine.append(KEY, [message])
        engine.append(KEY, messages[160:])
        assert _said(engine) == [f"m{number}" for number in range(300)]
        assert _record(engine).length == 300

    @pytest.mark.parametrize("name", DIFFICULT_MESSAGES)
    def test_a_message_comes_back_exactly(self, engine: Engine, name: str) -> None:
        given = msgspec.structs.replace(DIFFICULT_MESSAGES[name], id="x")
        _make(engine)
        engine.append(KEY, [Message("user", "before"), given, Message("user", "after")])
        (found,) = engine.read(KEY, 1, 2).messages
        assert found == given
        assert _exact([found]) == _exact([given])

    def test_messages_come_back_exactly_after_every_change(self, engine: Engine) -> None:
        given = [msgspec.structs.replace(message, id=name) for name, message in DIFFICULT_MESSAGES.items()]
        _make(engine, count=1)
        engine.replace(KEY, given)
        engine.update(KEY, {"state": {"n": 1}})
        assert _exact(engine.read(KEY).messages) == _exact(given)
        engine.append(KEY, _texts(1))
        engine.update(KEY, {"start": 3})
        engine.drop(KEY)
        assert _exact(engine.read(KEY).messages) == _exact([*given[2:], *_texts(1)])

    def test_a_time_may_be_a_whole_number(self, engine: Engine) -> None:
        _make(engine)
        engine.append(KEY, [Message("user", "x", timestamp=1_795_253_400)])
        assert engine.read(KEY).messages[0].timestamp == 1_795_253_400

    @pytest.mark.parametrize("name", REFUSED_MESSAGES)
    def test_a_message_that_cannot_be_kept_is_refused(self, engine: Engine, name: str) -> None:
        _make(engine, count=2)
        for messages in ([REFUSED_MESSAGES[name]], [*_texts(1, 2), REFUSED_MESSAGES[name], *_texts(1, 3)]):
            with _refused(engine, InvalidMessage):
                engine.append(KEY, messages)
            with _refused(engine, InvalidMessage):
                engine.replace(KEY, messages)

    def test_a_message_may_be_as_large_as_the_limit(self, engine: Engine) -> None:
        _make(engine, count=1)
        room = self.max_message_bytes - len(encode(Message("user", "", id="large")))
        for length, size in (
            (room + 1, self.max_message_bytes + 1),
            (room * 2, room * 2 + self.max_message_bytes - room),
        ):
            with _refused(engine, MessageTooLarge) as info:
                engine.append(KEY, [*_texts(1, 1), Message("user", "x" * length, id="large")])
            assert (info.value.size, info.value.limit) == (size, self.max_message_bytes)
        engine.append(KEY, [Message("user", "x" * room, id="large")])
        assert _said(engine) == ["m0", "x" * room]

    def test_a_refusal_tells_no_message_text(self, engine: Engine) -> None:
        _make(engine)
        engine.append(KEY, [Message("user", "hunter2", id="a")])
        for messages in (
            [Message("user", "hunter2", metadata={"v": float("nan")})],
            [Message("hunter2 is my password", "user")],
            [Message("user", "hunter2 and more", id="a")],
        ):
            with pytest.raises(InvalidMessage) as info:
                engine.append(KEY, messages)
            assert "hunter2" not in str(info.value) + repr(info.value) + repr(engine)

    # Message ids and repeats

    def test_a_message_without_an_id_gets_one(self, engine: Engine) -> None:
        _make(engine)
        ids = engine.append(KEY, [Message("user", "same"), Message("user", "same", id="mine")] * 2).ids
        assert (ids[1], ids[3]) == ("mine", "mine")
        ids += engine.append(KEY, [Message("user", "same")]).ids
        stored = [message.id for message in engine.read(KEY).messages]
        assert stored == [ids[0], "mine", ids[2], ids[4]]
        assert all(stored)
        assert len(set(stored)) == 4

    def test_message_ids_may_be_any_text(self, engine: Engine) -> None:
        ids = [text for text in (*DIFFICULT_TEXTS.values(), *DIFFICULT_IDS) if text]
        messages = [Message("user", str(number), id=id_) for number, id_ in enumerate(dict.fromkeys(ids))]
        _make(engine)
        for _ in range(2):
            assert engine.append(KEY, messages).ids == tuple(message.id for message in messages)
        assert _exact(engine.read(KEY).messages) == _exact(messages)

    def test_a_repeated_append_stores_nothing_twice(self, engine: Engine) -> None:
        _make(engine)
        messages = [msgspec.structs.replace(message, id=name) for name, message in DIFFICULT_MESSAGES.items()]
        first = engine.append(KEY, messages)
        before = _everything(engine)
        assert engine.append(KEY, messages) == first
        assert engine.append(KEY, engine.read(KEY).messages) == first
        assert engine.append(KEY, messages[5:3:-1]).length == first.length
        assert _everything(engine) == before

    def test_the_order_of_keys_is_not_content(self, engine: Engine) -> None:
        _make(engine)
        one = Message("user", "x", id="i", metadata={"a": {"b": 1, "c": 2}, "d": 3})
        other = Message("user", "x", id="i", metadata={"d": 3, "a": {"c": 2, "b": 1}})
        assert engine.append(KEY, [one, other]).length == 1
        assert engine.append(KEY, [other]).length == 1

    def test_a_batch_may_mix_stored_and_new_messages(self, engine: Engine) -> None:
        _make(engine)
        messages = _texts(5)
        engine.append(KEY, [messages[1], messages[3]])
        assert engine.append(KEY, messages) == (0, 5, ("id0", "id1", "id2", "id3", "id4"))
        assert _said(engine) == ["m1", "m3", "m0", "m2", "m4"]

    def test_a_message_twice_in_a_batch_is_stored_once(self, engine: Engine) -> None:
        _make(engine)
        (message,) = _texts(1)
        assert engine.append(KEY, [message, *_texts(1, 1), message]) == (0, 2, ("id0", "id1", "id0"))
        assert _said(engine) == ["m0", "m1"]

    @pytest.mark.parametrize(
        "changed",
        [
            Message("user", "other", id="id0"),
            Message("assistant", "m0", id="id0"),
            Message("user", "m0", id="id0", extra={"newer": 1}),
        ],
        ids=["text", "role", "unknown key"],
    )
    def test_an_id_of_another_message_is_refused(self, engine: Engine, changed: Message) -> None:
        _make(engine, count=2)
        for messages in ([changed], [*_texts(1, 2), changed], [changed, *_texts(1, 2)]):
            with _refused(engine, MessageIdConflict) as info:
                engine.append(KEY, messages)
            assert info.value.message_id == "id0"

    def test_a_message_repeated_later_is_stored_once(self, engine: Engine) -> None:
        _make(engine)
        engine.append(KEY, [Message("user", "m0", id="id0", timestamp=1.0)])
        assert engine.append(KEY, [Message("user", "m0", id="id0", timestamp=2.0)]).length == 1
        assert [message.timestamp for message in engine.read(KEY).messages] == [1.0]

    def test_a_batch_that_contradicts_itself_is_refused(self, engine: Engine) -> None:
        _make(engine, count=1)
        messages = [*_texts(1, 1), Message("user", "one", id="x"), Message("user", "two", id="x")]
        for call in (engine.append, engine.replace):
            with _refused(engine, MessageIdConflict) as info:
                call(KEY, messages)
            assert info.value.message_id == "x"

    def test_two_sessions_may_hold_the_same_message_id(self, engine: Engine) -> None:
        for number, key in enumerate((KEY, OTHER_USER, OTHER_SESSION)):
            _make(engine, key)
            assert engine.append(key, [Message("user", str(number), id="same")]).length == 1
        assert [_said(engine, key) for key in (KEY, OTHER_USER, OTHER_SESSION)] == [["0"], ["1"], ["2"]]

    def test_an_archived_message_is_still_stored(self, engine: Engine) -> None:
        _make(engine, count=3)
        engine.update(KEY, {"start": 2})
        assert engine.append(KEY, _texts(1)) == (2, 3, ("id0",))
        with _refused(engine, MessageIdConflict):
            engine.append(KEY, [Message("user", "other", id="id0")])

    # Expected length

    def test_expected_length_stores_when_it_is_right(self, engine: Engine) -> None:
        _make(engine)
        assert engine.append(KEY, _texts(2), expected_length=0).length == 2
        assert engine.append(KEY, _texts(1, 2), expected_length=2).length == 3

    @pytest.mark.parametrize("expected", [0, 2, 4, -1, 10**12])
    def test_expected_length_refuses_when_it_is_wrong(self, engine: Engine, expected: int) -> None:
        _make(engine, count=3)
        for messages in (_texts(1, 3), _texts(4)):
            with _refused(engine, Conflict) as info:
                engine.append(KEY, messages, expected_length=expected)
            assert (info.value.expected, info.value.found) == (expected, 3)

    def test_expected_length_of_an_empty_session_is_compared_too(self, engine: Engine) -> None:
        _make(engine)
        with _refused(engine, Conflict):
            engine.append(KEY, _texts(1), expected_length=1)

    def test_expected_length_does_not_stop_a_repeat(self, engine: Engine) -> None:
        _make(engine, count=3)
        assert engine.append(KEY, _texts(2, 1), expected_length=1) == (0, 3, ("id1", "id2"))
        assert engine.append(KEY, [], expected_length=1).length == 3

    def test_expected_length_counts_archived_and_freed_messages(self, engine: Engine) -> None:
        _make(engine, count=3)
        engine.update(KEY, {"start": 2})
        assert engine.append(KEY, _texts(1, 3), expected_length=3).length == 4
        engine.drop(KEY)
        assert engine.append(KEY, _texts(1, 4), expected_length=4).length == 5
        engine.replace(KEY, [])
        assert engine.append(KEY, _texts(1, 5), expected_length=5).length == 6

    def test_of_many_who_expect_the_same_length_one_wins(self, engine: Engine) -> None:
        _make(engine, count=1)

        def append(number: int) -> bool:
            message = Message("user", str(number))
            return _or_error(lambda: engine.append(KEY, [message], expected_length=1), Conflict)

        assert sorted(_together(8, append)) == [False] * 7 + [True]
        assert _record(engine).length == 2

    # Reading

    @pytest.mark.parametrize(("archived", "dropped"), [(0, 0), (3, 0), (3, 2), (3, 3), (7, 0), (7, 7)])
    def test_read_is_a_slice_of_a_list(self, engine: Engine, archived: int, dropped: int) -> None:
        _make(engine, count=7)
        for start, drop in ((dropped, True), (archived, False)):
            engine.update(KEY, {"start": start})
            if drop:
                engine.drop(KEY)
        for start in (None, *range(-9, 10)):
            for stop in (None, *range(-2, 10)):
                low = archived if start is None else max(archived, 7 + start) if start < 0 else start
                numbers = [n for n in range(dropped, 7) if low <= n < (7 if stop is None else stop)]
                found = engine.read(KEY, start, stop)
                assert [message.content for message in found.messages] == [f"m{n}" for n in numbers], (start, stop)
                assert found.first == numbers[0] if numbers else 0 <= found.first <= 7, (start, stop)

    def test_read_finds_any_part_of_a_long_session(self, engine: Engine) -> None:
        _make(engine)
        messages = [Message("user", chr(97 + n % 26) * (n * 37 % 5000), id=str(n)) for n in range(200)]
        engine.append(KEY, messages)
        for start, stop in ((0, 1), (0, 200), (50, 60), (199, 200), (120, 121), (1, 199)):
            assert engine.read(KEY, start, stop).messages == messages[start:stop]
        for last in (1, 2, 3, 10, 50, 199, 200):
            assert engine.read(KEY, -last).messages == messages[-last:]

    # Numbering: replace, drop, start

    def test_replace_makes_the_whole_history(self, engine: Engine) -> None:
        _make(engine, count=3)
        new = [Message("user", "a", id="a"), Message("assistant", "b"), Message("user", "c")]
        record = engine.replace(KEY, new)
        assert record == _record(engine)
        assert (record.start, record.length, record.message_count, record.revision) == (3, 6, 3, 1)
        found = engine.read(KEY, 0)
        assert (found.first, [message.content for message in found.messages]) == (3, ["a", "b", "c"])
        assert all(message.id for message in found.messages)

    def test_replace_frees_archived_messages_too(self, engine: Engine) -> None:
        _make(engine, count=3)
        engine.update(KEY, {"start": 2})
        engine.replace(KEY, _texts(1, 9))
        assert _said(engine, KEY, 0) == ["m9"]

    def test_replace_keeps_the_rest_of_the_record(self, engine: Engine) -> None:
        engine.open_session(Record(*KEY, 1_000.0, "helper", {"title": "T"}, {"n": 1}, extra={"parent_id": "p"}))
        before = _record(engine)
        after = engine.replace(KEY, _texts(2))
        same = ("agent_name", "metadata", "state", "extra", "created_at")
        assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]

    def test_replace_may_reuse_ids(self, engine: Engine) -> None:
        _make(engine, count=3)
        engine.replace(KEY, [*engine.read(KEY, 1).messages, Message("user", "other", id="id0")])
        assert _said(engine) == ["m1", "m2", "other"]
        assert engine.append(KEY, [Message("user", "other", id="id0")]).length == 6
        with _refused(engine, MessageIdConflict):
            engine.append(KEY, _texts(1))

    def test_replace_stores_a_message_given_twice_once(self, engine: Engine) -> None:
        _make(engine)
        assert engine.replace(KEY, _texts(2) * 2).length == 2
        assert _said(engine) == ["m0", "m1"]

    def test_numbers_go_on_after_replace(self, engine: Engine) -> None:
        _make(engine, count=3)
        for round_ in range(3):
            engine.replace(KEY, [])
            assert _said(engine, KEY, 0) == []
            assert engine.append(KEY, _texts(1)) == (3 + round_, 4 + round_, ("id0",))
        assert engine.read(KEY, 5) == (5, _texts(1))

    def test_start_hides_messages_and_keeps_them(self, engine: Engine) -> None:
        _make(engine, count=5)
        record = engine.update(KEY, {"start": 3})
        assert (record.start, record.length, record.message_count) == (3, 5, 2)
        assert (_said(engine), _said(engine, KEY, 0)) == (["m3", "m4"], ["m0", "m1", "m2", "m3", "m4"])
        assert engine.update(KEY, {"start": 5}).message_count == 0
        assert _said(engine) == []

    def test_start_only_moves_forward(self, engine: Engine) -> None:
        _make(engine, count=5)
        engine.update(KEY, {"start": 3})
        engine.drop(KEY)
        for start in (0, 2, 3):
            assert engine.update(KEY, {"start": start}).start == 3
            assert engine.read(KEY, 0) == (3, _texts(2, 3))
            assert engine.append(KEY, []) == (3, 5, ())

    @pytest.mark.parametrize("start", [-1, 4, 10**12, True, 1.0, "1", None])
    def test_start_lies_in_the_history(self, engine: Engine, start: Any) -> None:
        _make(engine, count=3)
        with _refused(engine, InvalidMessage):
            engine.update(KEY, {"start": start})

    def test_drop_frees_what_is_archived(self, engine: Engine) -> None:
        _make(engine, count=5)
        assert engine.drop(KEY) == 0
        assert _said(engine, KEY, 0) == ["m0", "m1", "m2", "m3", "m4"]
        before = engine.update(KEY, {"start": 3})
        assert engine.drop(KEY) > 0
        assert engine.drop(KEY) == 0
        assert _record(engine) == before
        assert engine.read(KEY, 0) == (3, _texts(2, 3))
        assert engine.append(KEY, _texts(1, 5)) == (3, 6, ("id5",))

    def test_a_freed_message_is_not_stored_any_more(self, engine: Engine) -> None:
        _make(engine, count=3)
        engine.update(KEY, {"start": 2})
        engine.drop(KEY)
        assert engine.append(KEY, [Message("user", "other", id="id0")]).length == 4
        assert _said(engine) == ["m2", "other"]

    # The record

    def test_update_replaces_the_fields_it_names(self, engine: Engine) -> None:
        engine.open_session(Record(*KEY, 1_000.0, "helper", {"title": "T", "a": 1}, {"n": 1}, extra={"parent_id": "p"}))
        patches: list[dict[str, Any]] = [
            {"state": {"m": 2}},
            {"metadata": {"title": "U"}, "agent_name": None},
            {"extra": {}},
            {"agent_name": ""},
            {"state": {}, "metadata": {}},
        ]
        for patch in patches:
            changed = {**patch, "revision": _record(engine).revision + 1}
            expected = msgspec.structs.replace(_record(engine), **changed)
            found = engine.update(KEY, patch)
            assert found == _record(engine)
            assert msgspec.structs.replace(found, updated_at=expected.updated_at) == expected

    def test_update_leaves_the_messages_alone(self, engine: Engine) -> None:
        _make(engine, count=3)
        record = engine.update(KEY, {"state": {"n": 1}})
        assert (record.length, record.start) == (3, 0)
        assert engine.read(KEY) == (0, _texts(3))

    @pytest.mark.parametrize("name", DIFFICULT_VALUES)
    @pytest.mark.parametrize("field", ["metadata", "state", "extra"])
    def test_values_of_a_record_come_back_exactly(self, engine: Engine, field: str, name: str) -> None:
        given: dict[str, Any] = {field: {"v": DIFFICULT_VALUES[name], name: [DIFFICULT_VALUES[name]]}}
        engine.open_session(Record(*KEY, **given))
        assert _json(getattr(_record(engine), field)) == _json(given[field])
        engine.update(KEY, {field: {}})
        engine.update(KEY, given)
        engine.append(KEY, _texts(1))
        for record in (_record(engine), *_listed(engine)):
            assert _json(getattr(record, field)) == _json(given[field])

    def test_an_agent_name_may_be_any_text(self, engine: Engine) -> None:
        _make(engine)
        names: list[str | None] = [*DIFFICULT_TEXTS.values(), *DIFFICULT_IDS[:20], None]
        for name in names:
            engine.update(KEY, {"agent_name": name})
            assert _record(engine).agent_name == name

    @pytest.mark.parametrize("value", REFUSED_VALUES)
    @pytest.mark.parametrize("field", ["metadata", "state", "extra"])
    def test_update_refuses_what_json_cannot_hold(self, engine: Engine, field: str, value: str) -> None:
        _make(engine, count=1)
        refused = REFUSED_VALUES[value]
        for wrong in ({"v": refused}, {"a": 1, "b": [refused]}):
            with _refused(engine, InvalidMessage):
                engine.update(KEY, {"agent_name": "new", field: wrong})

    @pytest.mark.parametrize(
        "patch",
        [
            *({name: 1} for name in ("length", "revision", "updated_at", "created_at", "first", "unknown")),
            *({name: "x"} for name in ("session_id", "user_id", "state", "metadata", "extra")),
            *({name: None} for name in ("state", "metadata", "extra")),
            {"agent_name": 5},
            {"agent_name": []},
            {"agent_name": _Text("x")},
        ],
        ids=str,
    )
    def test_update_refuses_other_fields_and_types(self, engine: Engine, patch: dict[str, Any]) -> None:
        _make(engine, count=1)
        with _refused(engine, InvalidMessage):
            engine.update(KEY, {"state": {"n": 1}} | patch)

    @pytest.mark.parametrize("name", sorted(RESERVED))
    def test_extra_cannot_hide_a_field(self, engine: Engine, name: str) -> None:
        with _refused(engine, InvalidMessage):
            engine.open_session(Record(*KEY, extra={name: "x"}))
        _make(engine)
        with _refused(engine, InvalidMessage):
            engine.update(KEY, {"extra": {"fine": 1, name: "x"}})

    def test_revision_counts_changes_of_the_record(self, engine: Engine) -> None:
        _make(engine, count=1)
        assert _record(engine).revision == 0
        assert engine.update(KEY, {"state": {}}).revision == 1
        assert engine.update(KEY, {"start": 1}).revision == 2
        assert engine.update(KEY, {}).revision == 3
        engine.append(KEY, _texts(1, 1))
        engine.drop(KEY)
        assert _record(engine).revision == 3
        assert engine.replace(KEY, []).revision == _record(engine).revision == 4

    def test_expected_revision_stores_when_it_is_right(self, engine: Engine) -> None:
        _make(engine, count=1)
        assert engine.update(KEY, {"state": {"n": 1}}, expected_revision=0).revision == 1
        assert engine.update(KEY, {"state": {"n": 2}}, expected_revision=1).state == {"n": 2}

    @pytest.mark.parametrize("expected", [0, 2, -1])
    def test_expected_revision_refuses_when_it_is_wrong(self, engine: Engine, expected: int) -> None:
        _make(engine)
        engine.update(KEY, {"state": {"n": 1}})
        with _refused(engine, Conflict) as info:
            engine.update(KEY, {"state": {"n": 2}}, expected_revision=expected)
        assert (info.value.expected, info.value.found) == (expected, 1)

    def test_of_many_changes_of_a_record_none_is_lost(self, engine: Engine) -> None:
        _make(engine)

        def count(_: int) -> None:
            for _ in range(5):
                assert any(_or_error(increment, Conflict) for _ in range(1000))

        def increment() -> None:
            record = _record(engine)
            engine.update(KEY, {"state": {"n": record.state.get("n", 0) + 1}}, expected_revision=record.revision)

        _together(4, count)
        assert (_record(engine).state, _record(engine).revision) == ({"n": 20}, 20)

    # Nothing is shared

    def test_what_was_given_may_be_changed_later(self, engine: Engine) -> None:
        values: dict[str, Any] = {"list": [1]}
        engine.open_session(Record(*KEY, state=values, metadata=values, extra=values))
        values["list"].append(2)
        record = _record(engine)
        assert record.state == record.metadata == record.extra == {"list": [1]}
        engine.update(KEY, {"metadata": values})
        engine.append(KEY, [Message("user", "x", metadata=values)])
        values["list"].append(3)
        assert _record(engine).metadata == engine.read(KEY).messages[0].metadata == {"list": [1, 2]}

    def test_what_was_returned_may_be_changed_later(self, engine: Engine) -> None:
        made = engine.open_session(Record(*KEY, state={"list": [1]}, metadata={"list": [1]}))
        engine.append(KEY, [Message("user", [1], id="x", metadata={"list": [1]})])
        updated = engine.update(KEY, {"extra": {"list": [1]}})
        for record in (made, updated, _record(engine), *_listed(engine), engine.open_session(Record(*KEY))):
            for values in (record.state, record.metadata, record.extra):
                values.setdefault("list", []).append(2)
        for message in engine.read(KEY).messages:
            message.metadata["list"].append(2)
            message.metadata["new"] = 1
        record = _record(engine)
        assert record.state == record.metadata == record.extra == {"list": [1]}
        assert engine.read(KEY).messages == [Message("user", [1], id="x", metadata={"list": [1]})]

    # Listing

    def test_listing_is_newest_first(self, engine: Engine) -> None:
        keys = [Key(user, session) for session in ("b", "a", "c") for user in ("bob", "alice")]
        _make_in_order(engine, keys)
        assert [record.key for record in _listed(engine)] == keys[::-1]
        assert [record.key for record in _listed(engine, "alice")] == keys[::-2]

    @pytest.mark.parametrize("change", ["append", "replace", "update"])
    def test_a_change_makes_a_session_the_newest(self, engine: Engine, change: str) -> None:
        _make_in_order(engine, [KEY, OTHER_SESSION])
        _until_newer(engine, KEY, OTHER_SESSION, lambda: CHANGES[change](engine, KEY))
        assert [record.key for record in _listed(engine)] == [KEY, OTHER_SESSION]

    @pytest.mark.parametrize("call", QUIET)
    def test_what_changes_nothing_does_not_make_it_newer(self, engine: Engine, call: str) -> None:
        _make_in_order(engine, [KEY, OTHER_SESSION])
        before = _everything(engine)
        QUIET[call](engine, KEY)
        assert _everything(engine) == before
        assert [record.key for record in _listed(engine)] == [OTHER_SESSION, KEY]

    def test_a_listing_holds_whole_records(self, engine: Engine) -> None:
        engine.open_session(Record(*KEY, 1_000.0, "helper", {"title": "T"}, {"n": 1}, extra={"parent_id": "p"}))
        engine.append(KEY, _texts(3))
        engine.update(KEY, {"start": 1})
        _make(engine, OTHER_USER, count=1)
        assert {record.key: record for record in _listed(engine)} == {
            key: _record(engine, key) for key in (KEY, OTHER_USER)
        }

    def test_a_user_lists_their_own_sessions(self, engine: Engine) -> None:
        users = ["alice", "Alice", "a", DEFAULT_USER, "alice/x"]
        for user_id in users:
            for session_id in ("s", f"of {user_id}"):
                _make(engine, Key(user_id, session_id))
        for user_id in users:
            assert sorted(record.key for record in _listed(engine, user_id)) == sorted(
                [Key(user_id, "s"), Key(user_id, f"of {user_id}")]
            )
        assert len(_listed(engine)) == 10
        assert engine.list_sessions("nobody") == ([], None)

    def test_pages_hold_every_session_once(self, engine: Engine) -> None:
        keys = [Key(user, str(number)) for number in range(4) for user in ("bob", "alice")]
        _make_in_order(engine, keys)
        for size in range(1, 10):
            assert [record.key for record in _listed(engine, size=size)] == keys[::-1], size
            assert [record.key for record in _listed(engine, "alice", size)] == keys[::-2], size

    def test_pages_hold_sessions_of_the_same_instant_once(self, engine: Engine) -> None:
        for number in range(60):
            _make(engine, Key("alice", str(number)))
        whole = [record.key for record in _listed(engine, size=100)]
        assert len(set(whole)) == 60
        assert len(engine.list_sessions("alice").records) == 50
        for size in (1, 7, 59, 60, 61):
            assert [record.key for record in _listed(engine, size=size)] == whole

    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_changes_between_pages_hide_no_other_session(self, engine: Engine, size: int) -> None:
        keys = [Key("alice", str(number)) for number in range(9)]
        _make_in_order(engine, keys)
        first = engine.list_sessions("alice", limit=size)
        changed, deleted, read_and_deleted = keys[0], keys[2], first.records[-1].key
        _until_newer(engine, changed, keys[-1], lambda: engine.append(changed, [Message("user", "x")]))
        engine.delete(deleted)
        engine.delete(read_and_deleted)
        _make(engine, Key("alice", "new"))
        pages = [first.records, *_pages(engine, "alice", size, first.after)]
        seen = [record.key for page in pages for record in page]
        seen = [key for key in seen if key not in (changed, Key("alice", "new"))]
        assert seen == [key for key in keys[::-1] if key not in (changed, deleted)]

    # Deleting

    def test_delete_removes_everything(self, engine: Engine) -> None:
        _make(engine, count=3)
        engine.update(KEY, {"start": 1})
        assert engine.delete(KEY) is True
        assert engine.get(KEY) is None
        assert engine.read(KEY, 0) == (0, [])
        assert engine.owners("s") == []
        assert _listed(engine) == []
        assert engine.delete(KEY) is False
        with _refused(engine, SessionNotFound):
            engine.append(KEY, _texts(1))

    def test_a_session_made_again_knows_nothing_of_the_old_one(self, engine: Engine) -> None:
        engine.open_session(Record(*KEY, 1_000.0, "helper", {"title": "T"}, {"n": 1}, extra={"parent_id": "p"}))
        engine.append(KEY, _texts(4))
        engine.update(KEY, {"start": 2})
        engine.delete(KEY)
        record = engine.open_session(Record(*KEY), must_be_new=True)
        assert (record.start, record.length, record.revision) == (0, 0, 0)
        assert (record.agent_name, record.metadata, record.state, record.extra) == (None, {}, {}, {})
        assert record.created_at > 1_000.0
        assert engine.append(KEY, [Message("user", "other", id="id1")], expected_length=0) == (0, 1, ("id1",))
        assert _said(engine, KEY, 0) == ["other"]

    # Pins, and moving the head to one

    def test_the_log_stays_while_the_history_goes_on(self, engine: Engine) -> None:
        _make(engine, count=3)
        log = _record(engine).log
        assert log
        engine.append(KEY, _texts(1, 3))
        engine.update(KEY, {"start": 2, "state": {"n": 1}})
        engine.drop(KEY)
        assert _record(engine).log == log
        engine.replace(KEY, _texts(1))
        replaced = _record(engine).log
        assert replaced != log
        engine.delete(KEY)
        _make(engine)
        assert _record(engine).log not in (log, replaced)

    def test_a_pin_comes_back_as_it_was_given(self, engine: Engine) -> None:
        _make(engine, count=5)
        engine.update(KEY, {"start": 1})
        head = _record(engine).head
        assert (head.start, head.length) == (1, 5)
        names = [text for text in (*DIFFICULT_TEXTS.values(), *DIFFICULT_IDS[:20]) if text]
        infos = [dict(DIFFICULT_VALUES), {}, {"label": "x", "log": 1}]
        pins = {
            name: Pin(head.log, 1 + number % 3, 3 + number % 3, infos[number % 3]) for number, name in enumerate(names)
        }
        updated = engine.update(KEY, {"pins": pins})
        assert updated == _record(engine) == _listed(engine)[0]
        assert list(updated.pins) == list(pins)
        for name, pin in updated.pins.items():
            assert (pin.start, pin.length, _json(pin.info)) == (
                (pins[name].start, pins[name].length, _json(pins[name].info))
            )
        assert engine.update(KEY, {"pins": updated.pins}).pins == updated.pins
        assert engine.update(KEY, {"state": {"n": 1}}).pins == updated.pins
        assert engine.update(KEY, {"pins": {}}).pins == {}

    def test_the_head_moves_to_a_pin(self, engine: Engine) -> None:
        _make(engine, count=5)
        head = _record(engine).head
        engine.update(KEY, {"pins": {"early": Pin(head.log, 1, 3)}})
        engine.append(KEY, _texts(2, 5))
        moved = engine.update(KEY, {"head": _record(engine).pins["early"], "state": {"n": 1}})
        assert moved == _record(engine)
        assert (moved.start, moved.length, moved.state, moved.revision) == (1, 3, {"n": 1}, 2)
        assert moved.log != head.log
        assert list(moved.pins) == ["early"]
        assert engine.read(KEY) == engine.read(KEY, 0) == (1, _texts(2, 1))
        assert engine.append(KEY, [Message("user", "other", id="id4")], expected_length=3) == (1, 4, ("id4",))
        assert _said(engine) == ["m1", "m2", "other"]
        assert engine.update(KEY, {"head": moved.pins["early"]}).length == 3
        assert _said(engine) == ["m1", "m2"]

    def test_a_message_beyond_the_head_is_not_stored_any_more(self, engine: Engine) -> None:
        _make(engine, count=4)
        log = _record(engine).log
        engine.update(KEY, {"pins": {"all": Pin(log, 0, 4), "two": Pin(log, 0, 2)}})
        engine.update(KEY, {"head": _record(engine).pins["two"]})
        assert engine.append(KEY, _texts(1, 1)).length == 2
        assert engine.append(KEY, [Message("user", "new", id="id3")]).length == 3
        with _refused(engine, MessageIdConflict):
            engine.append(KEY, [Message("user", "new", id="id1")])
        engine.update(KEY, {"head": _record(engine).pins["all"]})
        assert _said(engine) == ["m0", "m1", "m2", "m3"]

    def test_a_move_can_be_undone(self, engine: Engine) -> None:
        _make(engine, count=3)
        log = _record(engine).log
        engine.update(KEY, {"pins": {"other": Pin(log, 0, 1)}})
        histories = [["m0", "m1", "m2"], ["m0"]]
        for number in range(6):
            before = _record(engine)
            moved = engine.update(KEY, {"head": before.pins["other"], "pins": {"other": before.head}})
            assert (moved.pins["other"].start, moved.pins["other"].length) == (before.start, before.length)
            histories.reverse()
            assert _said(engine) == histories[0]
            engine.append(KEY, [Message("user", f"after {number}")])
            histories[0] = [*histories[0], f"after {number}"]
        assert histories == [
            ["m0", "m1", "m2", "after 1", "after 3", "after 5"],
            ["m0", "after 0", "after 2", "after 4"],
        ]

    def test_what_was_shown_is_kept_with_its_archive(self, engine: Engine) -> None:
        _make(engine, count=5)
        engine.update(KEY, {"start": 2})
        log = _record(engine).log
        moved = engine.update(KEY, {"head": Pin(log, 2, 3), "keep": {"before": {"label": "x", "start": "theirs"}}})
        kept = moved.pins["before"]
        assert (kept.start, kept.length, kept.info) == (0, 5, {"label": "x", "start": 2})
        assert (_said(engine), moved.revision) == (["m2"], 2)
        both = engine.update(KEY, {"pins": {"a": moved.head}, "keep": {"b": {}, "c": {}}}).pins
        assert {name: (pin.start, pin.length) for name, pin in both.items()} == {"a": (2, 3), "b": (2, 3), "c": (2, 3)}
        with _refused(engine, InvalidMessage):
            engine.update(KEY, {"head": kept})
        unfit: list[Any] = [{"x": None}, {1: {}}, {"x": {"v": {1}}}, [], {"x": {"v": float("nan")}}]
        for wrong in unfit:
            with _refused(engine, InvalidMessage):
                engine.update(KEY, {"keep": wrong})

    def test_any_history_that_is_held_can_be_read(self, engine: Engine) -> None:
        _make(engine, count=4)
        first = _record(engine).head
        engine.update(KEY, {"start": 1, "pins": {"early": Pin(first.log, 1, 3)}})
        engine.update(KEY, {"head": _record(engine).pins["early"], "keep": {"all": {}}})
        engine.append(KEY, [Message("user", "other", id="other")])
        engine.update(KEY, {"keep": {"middle": {}}, "head": _record(engine).pins["early"]})
        record = _record(engine)
        held = {name: [m.text() for m in engine.read(KEY, at=pin).messages] for name, pin in record.pins.items()}
        assert held == {"early": ["m1", "m2"], "all": ["m0", "m1", "m2", "m3"], "middle": ["m1", "m2", "other"]}
        middle = record.pins["middle"]
        part = msgspec.structs.replace(middle, start=2, length=3)
        for (start, stop), slice_ in {
            (None, None): (1, ["m1", "m2", "other"]),
            (2, None): (2, ["m2", "other"]),
            (0, 2): (1, ["m1"]),
            (-1, None): (3, ["other"]),
            (9, None): (4, []),
            (3, 2): (3, []),
        }.items():
            found = engine.read(KEY, start, stop, at=middle)
            assert (found.first, [m.text() for m in found.messages]) == slice_
        assert [m.text() for m in engine.read(KEY, at=part).messages] == ["m2"]
        assert engine.read(KEY, at=record.head) == engine.read(KEY)
        for wrong in (Pin("nowhere", 0, 1), Pin(record.log, 0, 9), msgspec.structs.replace(middle, start=0)):
            with pytest.raises(InvalidMessage):
                engine.read(KEY, at=wrong)
        assert engine.read(OTHER_USER, at=middle).messages == []
        assert _record(engine) == record

    def test_nothing_that_is_appended_meanwhile_is_lost_when_the_head_moves(self, engine: Engine) -> None:
        _make(engine, count=2)
        start = _record(engine).head
        texts = [f"late {number}" for number in range(60)]

        def append() -> None:
            for text in texts:
                engine.append(KEY, [Message("user", text)])

        with ThreadPoolExecutor(1) as pool:
            appending = pool.submit(append)
            for number in range(20):
                record = _record(engine)
                head = next(iter(record.pins.values()), start)
                engine.update(KEY, {"head": Pin(head.log, 0, 2), "keep": {f"{number:02}": {}}})
            appending.result()
        found = _said(engine)
        for number, pin in enumerate(_record(engine).pins.values()):
            fork = Record("alice", f"fork {number}")
            engine.fork(KEY, fork, at=pin)
            found += _said(engine, fork.key)[2:]
        assert sorted(found) == sorted(["m0", "m1", *texts])

    @pytest.mark.parametrize("change", [name for name in CHANGES if name not in ("delete", "pin")])
    def test_a_pin_holds_its_messages_whatever_happens(self, engine: Engine, change: str) -> None:
        _make(engine, count=6)
        log = _record(engine).log
        engine.update(KEY, {"pins": {"a": Pin(log, 0, 2), "b": Pin(log, 3, 5), "none": Pin(log, 4, 4)}})
        for start in (5, 6):
            CHANGES[change](engine, KEY)
            engine.update(KEY, {"start": start})
            engine.drop(KEY)
        for name, said in (("b", ["m3", "m4"]), ("a", ["m0", "m1"]), ("none", []), ("b", ["m3", "m4"])):
            moved = engine.update(KEY, {"head": _record(engine).pins[name]})
            assert _said(engine) == said
            assert engine.append(KEY, [Message("user", "new")])[:2] == (moved.start, moved.length + 1)
            assert _said(engine) == [*said, "new"]

    def test_a_pin_holds_only_what_the_session_holds(self, engine: Engine) -> None:
        _make(engine, count=6)
        _make(engine, OTHER_SESSION, count=6)
        log, other = _record(engine).log, _record(engine, OTHER_SESSION).log
        engine.update(KEY, {"start": 3})
        engine.update(KEY, {"pins": {"archived": Pin(log, 1, 2)}})
        engine.drop(KEY)
        held = _record(engine).pins["archived"]
        wrong: list[Pin] = [
            Pin(log, 2, 4),
            Pin(log, 3, 7),
            Pin(log, -1, 4),
            Pin(log, 5, 4),
            Pin("nowhere", 3, 4),
            Pin("", 3, 4),
        ]
        wrong += [Pin(held.log, 0, 2), Pin(other, 3, 4)] if other != log else []
        for pin in wrong:
            patches: list[dict[str, Any]] = [{"pins": {"x": pin}}, {"head": pin}, {"head": pin, "pins": {"x": pin}}]
            for patch in patches:
                with _refused(engine, InvalidMessage):
                    engine.update(KEY, {"state": {"n": 1}} | patch)
            with _refused(engine, InvalidMessage):
                engine.fork(KEY, Record("alice", "fork"), at=pin)
        engine.update(KEY, {"pins": {}})
        with _refused(engine, InvalidMessage):
            engine.update(KEY, {"head": held})

    @pytest.mark.parametrize(
        "patch",
        [
            *({"pins": wrong} for wrong in _NO_PINS),
            *({"head": wrong} for wrong in _NO_HEADS),
            {"head": Pin("1", 0, 0), "start": 0},
        ],
        ids=str,
    )
    def test_update_refuses_what_is_no_pin(self, engine: Engine, patch: dict[str, Any]) -> None:
        _make(engine, count=1)
        with _refused(engine, InvalidMessage):
            engine.update(KEY, patch)

    @pytest.mark.parametrize("value", REFUSED_VALUES)
    def test_a_pin_refuses_what_json_cannot_hold(self, engine: Engine, value: str) -> None:
        _make(engine, count=1)
        with _refused(engine, InvalidMessage):
            engine.update(KEY, {"pins": {"x": Pin(_record(engine).log, 0, 1, {"v": REFUSED_VALUES[value]})}})

    def test_a_session_made_again_has_no_pins(self, engine: Engine) -> None:
        _make(engine, count=2)
        engine.update(KEY, {"pins": {"x": _record(engine).head}})
        held = _record(engine).pins["x"]
        engine.delete(KEY)
        assert engine.open_session(Record(*KEY, log="x", pins={"x": held})).pins == {}
        with _refused(engine, InvalidMessage):
            engine.update(KEY, {"head": held})

    # Forks

    def test_a_fork_has_the_history(self, engine: Engine) -> None:
        _make(engine, count=5)
        engine.update(KEY, {"start": 2, "state": {"n": 1}, "metadata": {"title": "T"}, "agent_name": "helper"})
        engine.update(KEY, {"pins": {"x": _record(engine).head}})
        given = Record(*OTHER_SESSION, 1_000.0, "forked", {"title": "F"}, {"m": 1}, extra={"parent_id": "s"})
        before = _record(engine)
        fork = engine.fork(KEY, given)
        assert fork == _record(engine, OTHER_SESSION)
        assert (fork.start, fork.length, fork.revision, fork.pins) == (2, 5, 0, {})
        assert (fork.created_at, fork.agent_name, fork.metadata, fork.state, fork.extra) == (
            (1_000.0, "forked", {"title": "F"}, {"m": 1}, {"parent_id": "s"})
        )
        assert fork.log != before.log
        assert _record(engine) == before
        assert engine.read(OTHER_SESSION) == engine.read(OTHER_SESSION, 0) == (2, _texts(3, 2))
        assert engine.append(OTHER_SESSION, _texts(1, 5), expected_length=5) == (2, 6, ("id5",))
        assert (_said(engine), _said(engine, OTHER_SESSION)) == (["m2", "m3", "m4"], ["m2", "m3", "m4", "m5"])

    def test_a_fork_is_new_in_the_listing(self, engine: Engine) -> None:
        _make_in_order(engine, [KEY, Key("alice", "later")])
        engine.fork(KEY, Record(*OTHER_SESSION))
        _until_newer(
            engine, OTHER_SESSION, Key("alice", "later"), lambda: engine.update(OTHER_SESSION, {"state": {"n": 1}})
        )
        assert [record.key for record in _listed(engine, "alice")] == [OTHER_SESSION, Key("alice", "later"), KEY]

    @pytest.mark.parametrize("changed", [KEY, OTHER_SESSION], ids=["the source", "the fork"])
    @pytest.mark.parametrize("change", CHANGES)
    def test_a_fork_and_its_source_know_nothing_of_each_other(self, engine: Engine, change: str, changed: Key) -> None:
        _make(engine, count=4)
        engine.fork(KEY, Record(*OTHER_SESSION))
        untouched = OTHER_SESSION if changed == KEY else KEY
        before = (_record(engine, untouched), engine.read(untouched, 0))
        for _ in range(2):
            if engine.get(changed):
                CHANGES[change](engine, changed)
            assert (_record(engine, untouched), engine.read(untouched, 0)) == before
        engine.append(untouched, _texts(1, 4))
        assert _said(engine, untouched) == ["m0", "m1", "m2", "m3", "m4"]

    def test_a_fork_knows_the_messages_it_began_with(self, engine: Engine) -> None:
        _make(engine, count=3)
        engine.fork(KEY, Record(*OTHER_SESSION))
        engine.append(KEY, [Message("user", "in the source", id="id3")])
        assert engine.append(OTHER_SESSION, _texts(2, 1)).length == 3
        with _refused(engine, MessageIdConflict):
            engine.append(OTHER_SESSION, [Message("user", "other", id="id1")])
        assert engine.append(OTHER_SESSION, [Message("user", "in the fork", id="id3")]).length == 4
        assert (_said(engine)[3:], _said(engine, OTHER_SESSION)[3:]) == (["in the source"], ["in the fork"])

    def test_a_fork_may_begin_at_a_pin(self, engine: Engine) -> None:
        _make(engine, count=4)
        log = _record(engine).log
        engine.update(KEY, {"pins": {"x": Pin(log, 1, 3)}, "start": 4})
        engine.fork(KEY, Record(*OTHER_SESSION), at=Pin(_record(engine).log, 0, 2))
        engine.drop(KEY)
        engine.fork(KEY, Record("alice", "pinned"), at=_record(engine).pins["x"])
        engine.delete(KEY)
        assert engine.read(OTHER_SESSION, 0) == (0, _texts(2))
        assert engine.read(Key("alice", "pinned"), 0) == (1, _texts(2, 1))
        assert engine.append(Key("alice", "pinned"), _texts(1, 3)).length == 4

    def test_forks_of_forks_outlive_what_they_come_from(self, engine: Engine) -> None:
        keys = [Key("alice", f"f{number}") for number in range(12)]
        _make(engine, keys[0], count=2)
        for number, (source, fork) in enumerate(pairwise(keys)):
            engine.fork(source, Record(*fork))
            engine.append(fork, _texts(1, 2 + number))
            engine.append(source, [Message("user", "only here")])
        for key in (*keys[1:11:2], *keys[0:11:2]):
            assert engine.delete(key)
        assert _said(engine, keys[11], 0) == [f"m{number}" for number in range(13)]
        assert engine.read(keys[11], 4, 6) == (4, _texts(2, 4))
        assert engine.read(keys[11], -3) == (10, _texts(3, 10))
        assert engine.append(keys[11], _texts(13)).length == 13
        engine.update(keys[11], {"start": 7})
        assert engine.drop(keys[11]) > 0
        assert _said(engine, keys[11], 0) == [f"m{number}" for number in range(7, 13)]

    def test_fork_refuses_what_cannot_be(self, engine: Engine) -> None:
        _make(engine, count=2)
        _make(engine, OTHER_USER, count=1)
        with _refused(engine, SessionNotFound) as missing:
            engine.fork(OTHER_SESSION, Record("alice", "new"))
        assert missing.value.session_id == "t"
        for taken in (KEY, _make(engine, OTHER_SESSION)):
            with _refused(engine, SessionExists):
                engine.fork(KEY, Record(*taken))
        for wrong in (Record("bob", "new"), Record("alice", ""), Record("", "new"), Record("alice", "a\0b")):
            with _refused(engine, InvalidId):
                engine.fork(KEY, wrong)
        with _refused(engine, InvalidMessage):
            engine.fork(KEY, Record("alice", "new", state={"v": float("nan")}))

    def test_of_many_who_fork_to_one_id_one_wins(self, engine: Engine) -> None:
        _make(engine, count=2)
        make = partial(engine.fork, KEY, Record("alice", "fork"))
        assert sorted(_together(4, lambda _: _or_error(make, SessionExists))) == [False] * 3 + [True]
        assert _said(engine, Key("alice", "fork")) == ["m0", "m1"]

    def test_forks_made_while_others_append_and_delete_are_whole(self, engine: Engine) -> None:
        _make(engine, count=1)

        def work(thread: int) -> None:
            for number in range(8):
                if thread == 0:
                    engine.append(KEY, _texts(1, number + 1))
                    continue
                fork = Key("alice", f"{thread}/{number}")
                length = engine.fork(KEY, Record(*fork)).length
                assert engine.read(fork) == (0, _texts(length))
                if number % 2:
                    engine.delete(fork)

        _together(4, work)
        assert _said(engine) == [f"m{number}" for number in range(9)]
        for record in _listed(engine, "alice"):
            assert engine.read(record.key) == (0, _texts(record.length))

    # Search

    def _found(
        self, engine: Engine, query: str, user_id: str | None = "alice", limit: int = 100
    ) -> set[tuple[Key, int]]:
        found = engine.search(user_id, parse(query), limit=limit)
        assert found.complete
        assert len({(hit.key, hit.number) for hit in found.hits}) == len(found.hits)
        for hit in found.hits:
            assert engine.read(hit.key, hit.number, hit.number + 1).messages == [hit.message]
        return {(hit.key, hit.number) for hit in found.hits}

    @pytest.mark.parametrize(
        ("query", "numbers"),
        [
            ("pizza", {0}),
            ("PIZZA", {0}),
            ("Pizza Alice", {0}),
            ("pizza sushi", set()),
            ("piz", set()),
            ("piz*", {0}),
            ("cafe", {1}),
            ("CAFÉ", {1}),
            ("cafe\u0301", {1}),
            ("你好", {2}),
            ("世界", {2, 3}),
            ("界", {2, 3}),
            ("好世", {2}),
            ("好界", set()),
            ("日本語", {3}),
            ("カタカナ", {3}),
            ("ｶﾀｶﾅ", {3}),
            ("한국", {4}),
            ("국어", {4}),
            ("c3p0 42", {5}),
            ("part", {6}),
            ("naïve straße", {7}),
            ("STRASSE", {7}),
            ("пицца", {8}),
            ("", set()),
            ("*", set()),
            ("!?.", set()),
            ("🙂", set()),
        ],
    )
    def test_search_finds_words(self, engine: Engine, query: str, numbers: set[int]) -> None:
        contents: list[Any] = [
            "Alice loves pizza",
            "Le café est fermé",
            "你好世界",
            "世界の日本語とカタカナ",
            "한국어를 공부한다",
            "C3P0, 42! foo_bar",
            [{"type": "text", "text": "a part"}, _IMAGE],
            "naive Straße",
            "Пицца",
            None,
            "",
        ]
        _make(engine)
        engine.append(KEY, [Message("user", content) for content in contents])
        assert self._found(engine, query) == {(KEY, number) for number in numbers}

    @pytest.mark.parametrize(
        "query",
        [
            *("word AND other", "word OR other", "NOT word", "word NEAR other", "NEAR(word other)", "-word", "+word"),
            *(
                "^word",
                "word:*",
                "text:word",
                '"word',
                "word'",
                "(word",
                "word)",
                "{word}",
                "word | other",
                "word & other",
            ),
            *("word <-> other", "'; DROP TABLE message; --", "%word%", "word\0other", "\\word", "w*rd", "wo*", "**"),
        ],
    )
    def test_a_query_is_words_and_nothing_else(self, engine: Engine, query: str) -> None:
        _make(engine)
        terms = parse(query)
        texts = ["word", "word other", "word and other", "not a word near other", "drop table message", "other"]
        engine.append(KEY, [Message("user", text) for text in texts])
        expected = {(KEY, number) for number, text in enumerate(texts) if terms and terms.matches(text)}
        assert self._found(engine, query) == expected
        assert len(_listed(engine)) == 1

    def test_difficult_texts_can_be_searched(self, engine: Engine) -> None:
        _make(engine)
        engine.append(
            KEY, [Message("user", f"{text} needle{number}") for number, text in enumerate(DIFFICULT_TEXTS.values())]
        )
        engine.append(KEY, list(DIFFICULT_MESSAGES.values()))
        for number, text in enumerate(DIFFICULT_TEXTS.values()):
            if not text.endswith(("word \u00e9 ", "日")):
                assert (KEY, number) in self._found(engine, f"needle{number}")

    def test_search_finds_what_is_visible_now(self, engine: Engine) -> None:
        _make(engine, count=0)
        for number in range(5):
            engine.append(KEY, [Message("user", f"needle {number}", id=str(number))])
            assert self._found(engine, "needle") == {(KEY, seen) for seen in range(number + 1)}
        log = _record(engine).log
        engine.update(KEY, {"start": 2, "pins": {"x": Pin(log, 0, 4)}})
        assert self._found(engine, "needle") == {(KEY, 2), (KEY, 3), (KEY, 4)}
        engine.drop(KEY)
        assert self._found(engine, "needle") == {(KEY, 2), (KEY, 3), (KEY, 4)}
        engine.update(KEY, {"head": _record(engine).pins["x"]})
        assert self._found(engine, "needle") == {(KEY, number) for number in range(4)}
        engine.append(KEY, [Message("user", "needle again")])
        assert self._found(engine, "needle") == {(KEY, number) for number in range(5)}
        assert self._found(engine, "needle 4") == set()
        engine.replace(KEY, [Message("user", "another needle")])
        assert self._found(engine, "needle") == {(KEY, 5)}
        engine.delete(KEY)
        assert self._found(engine, "needle") == set()
        _make(engine)
        assert self._found(engine, "needle") == set()

    def test_search_keeps_users_apart(self, engine: Engine) -> None:
        for key in (KEY, OTHER_USER, OTHER_SESSION):
            _make(engine, key)
            engine.append(key, [Message("user", f"needle of {key.user_id}")])
        assert self._found(engine, "needle") == {(KEY, 0), (OTHER_SESSION, 0)}
        assert self._found(engine, "needle", "bob") == {(OTHER_USER, 0)}
        assert self._found(engine, "needle", "nobody") == set()
        assert self._found(engine, "needle", None) == {(KEY, 0), (OTHER_USER, 0), (OTHER_SESSION, 0)}

    def test_a_message_shared_by_forks_is_found_once(self, engine: Engine) -> None:
        _make(engine)
        engine.append(KEY, [Message("user", "shared needle", id="a")])
        forks = [Key("alice", f"f{number}") for number in range(3)]
        for fork in forks:
            engine.fork(KEY, Record(*fork))
        engine.append(forks[0], [Message("user", "own needle")])
        hits = engine.search("alice", parse("needle"), limit=10).hits
        assert sorted(hit.message.text() for hit in hits) == ["own needle", "shared needle"]
        assert self._found(engine, "own") == {(forks[0], 1)}
        engine.delete(KEY)
        engine.replace(forks[1], [])
        ((key, number),) = self._found(engine, "shared")
        assert (key in (forks[0], forks[2]), number) == (True, 0)

    def test_search_gives_no_more_than_the_limit(self, engine: Engine) -> None:
        _make(engine)
        engine.append(KEY, [Message("user", f"needle {number}") for number in range(12)])
        for limit in (1, 5, 11, 12, 13):
            assert len(engine.search("alice", parse("needle"), limit=limit).hits) == min(limit, 12)

    def test_search_sees_what_the_other_handle_wrote(self, engine: Engine, other: Engine) -> None:
        _make(engine)
        for number, (writer, reader) in enumerate(((engine, other), (other, engine)) * 2):
            writer.append(KEY, [Message("user", "needle")])
            assert self._found(reader, "needle") == {(KEY, seen) for seen in range(number + 1)}

    def test_search_while_others_append(self, engine: Engine) -> None:
        keys = [_make(engine, Key("alice", f"s{number}")) for number in range(3)]

        def work(thread: int) -> None:
            for number in range(10):
                if thread < 3:
                    engine.append(keys[thread], [Message("user", f"needle {number}")])
                else:
                    engine.search("alice", parse("needle"), limit=100)

        _together(5, work)
        assert self._found(engine, "needle") == {(key, number) for key in keys for number in range(10)}

    # What it says of itself

    def test_it_describes_itself(self, engine: Engine) -> None:
        described = engine.describe()
        assert {"engine", "place", "schema", "durability"} <= described.keys()
        assert all(isinstance(text, str) and text for text in described.values())
        assert engine.concurrency >= 1

    # Two handles on one storage

    @pytest.mark.parametrize("change", CHANGES)
    def test_a_change_is_seen_by_the_other_handle(self, engine: Engine, other: Engine, change: str) -> None:
        _make(engine, KEY, count=3)
        _make(engine, OTHER_USER, count=1)
        assert _everything(other) == _everything(engine)
        assert (other.owners("s"), other.get(Key("alice", "new"))) == (["alice", "bob"], None)
        CHANGES[change](engine, KEY)
        _make(engine, Key("alice", "new"))
        assert _everything(other) == _everything(engine)
        assert (other.get(KEY), other.owners("s")) == (engine.get(KEY), engine.owners("s"))
        assert other.get(Key("alice", "new")) is not None

    def test_two_handles_append_in_one_order(self, engine: Engine, other: Engine) -> None:
        _make(engine)
        for number in range(10):
            writer = other if number % 2 else engine
            assert writer.append(KEY, _texts(1, number), expected_length=number).length == number + 1
        assert _said(engine) == _said(other) == [f"m{number}" for number in range(10)]

    def test_a_repeat_through_the_other_handle_is_noticed(self, engine: Engine, other: Engine) -> None:
        _make(engine, count=2)
        assert other.append(KEY, _texts(2)).length == 2
        with _refused(engine, MessageIdConflict):
            other.append(KEY, [Message("user", "other", id="id0")])
        with _refused(engine, Conflict):
            other.append(KEY, _texts(1, 2), expected_length=1)
        with _refused(engine, SessionExists):
            other.open_session(Record(*KEY), must_be_new=True)

    def test_everything_is_there_after_closing(self, engine: Engine, other: Engine) -> None:
        engine.open_session(Record(*KEY, 1_000.0, "helper", {"title": "T"}, {"n": 1}, extra={"parent_id": "p"}))
        engine.append(KEY, list(DIFFICULT_MESSAGES.values()))
        before = _everything(engine)
        engine.close()
        assert _everything(other) == before

    # Many at once

    def test_threads_append_each_message_once(self, engine: Engine) -> None:
        _make(engine)

        def work(thread: int) -> list[int]:
            return [engine.append(KEY, [Message("user", f"{thread}/{number}")]).length for number in range(25)]

        lengths = _together(8, work)
        said = _said(engine)
        assert sorted(said) == sorted(f"{thread}/{number}" for thread in range(8) for number in range(25))
        for thread in range(8):
            assert [said[length - 1] for length in lengths[thread]] == [f"{thread}/{number}" for number in range(25)]
        assert _record(engine).length == 200

    def test_threads_of_two_handles_append_each_message_once(self, engine: Engine, other: Engine) -> None:
        _make(engine)

        def work(thread: int) -> None:
            for number in range(10):
                (engine, other)[thread % 2].append(KEY, [Message("user", f"{thread}/{number}")])

        _together(4, work)
        assert sorted(_said(engine)) == sorted(f"{thread}/{number}" for thread in range(4) for number in range(10))
        assert _said(other) == _said(engine)

    def test_readers_never_see_half_a_batch(self, engine: Engine) -> None:
        _make(engine)
        written = threading.Event()

        def write() -> list[list[Any]]:
            try:
                for number in range(30):
                    engine.append(KEY, _texts(3, 3 * number))
            finally:
                written.set()
            return []

        def read() -> list[list[Any]]:
            seen = [_said(engine)]
            while not written.is_set():
                seen.append(_said(engine))
                seen.append([f"m{number}" for number in range(_record(engine).length)])
            return seen

        seen = _together(4, lambda thread: read() if thread else write())
        for reader in seen[1:]:
            lengths = [len(said) for said in reader]
            assert lengths == sorted(lengths)
            assert all(said == [f"m{number}" for number in range(len(said))] for said in reader)
            assert all(length % 3 == 0 for length in lengths)

    def test_threads_work_on_sessions_of_their_own(self, engine: Engine) -> None:
        def work(thread: int) -> list[Any]:
            key = _make(engine, Key(f"user{thread % 2}", f"s{thread}"))
            for number in range(10):
                engine.append(key, [Message("user", f"{thread}/{number}")])
                engine.update(key, {"state": {"n": number}})
            return _said(engine, key)

        assert _together(6, work) == [[f"{thread}/{number}" for number in range(10)] for thread in range(6)]
        assert len(_listed(engine)) == 6

    # Closing

    def test_close_may_be_called_twice(self, engine: Engine) -> None:
        _make(engine, count=1)
        engine.close()
        engine.close()
