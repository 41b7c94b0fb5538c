"""What pins make of a session's file: how it looks, what it costs, and what becomes of it when it is damaged or edited."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from praisonaiagents.errors import NewerFormat, NotASessionFile, SessionDamage, SessionExists
from praisonaiagents.model.message import Message, encode
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.storage import jsonload
from praisonaiagents.storage.jsonfile import JsonFileEngine

KEY = Key("default_user", "s")
FORK = Key("default_user", "fork")


@pytest.fixture
def engine(tmp_path: Path) -> JsonFileEngine:
    return JsonFileEngine(tmp_path / "sessions", lock_timeout_s=60)


def path(engine: JsonFileEngine) -> Path:
    return Path(engine.folder, "s.json")


def record(engine: JsonFileEngine) -> Record:
    found = engine.get(KEY)
    assert found is not None
    return found


def said(*texts: str) -> list[Message]:
    return [Message("user", text, timestamp=1.0, id=text) for text in texts]


def texts(engine: JsonFileEngine, start: int | None = None) -> list[Any]:
    return [message.content for message in engine.read(KEY, start).messages]


def shown_by(engine: JsonFileEngine, name: str) -> list[Any]:
    """What a pin holds: the history of a fork that begins there."""
    engine.delete(FORK)
    engine.fork(KEY, Record(*FORK), at=record(engine).pins[name])
    return [message.content for message in engine.read(FORK).messages]


def pin(engine: JsonFileEngine, **parts: tuple[int, int]) -> None:
    """Hold on to parts of the history, besides what is held already."""
    now = record(engine)
    pins = {name: Pin(now.log, *part, {"label": name}) for name, part in parts.items()}
    engine.update(KEY, {"pins": now.pins | pins})


def move(engine: JsonFileEngine, name: str) -> None:
    """Show what a pin holds, and hold on to what was shown."""
    now = record(engine)
    engine.update(KEY, {"head": now.pins[name], "pins": now.pins | {"undo": now.head}})


def make(engine: JsonFileEngine, *texts: str) -> None:
    engine.open_session(Record(*KEY, created_at=1_800_000_000.0))
    engine.append(KEY, said(*texts))


@contextmanager
def reported() -> Iterator[list[SessionDamage]]:
    """The damage that is reported in the block; any other warning is an error."""
    found: list[SessionDamage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for warning in caught:
        assert isinstance(warning.message, SessionDamage), warning
        found.append(warning.message)


def set_aside(engine: JsonFileEngine) -> bytes:
    return b"".join(found.read_bytes() for found in sorted(Path(engine.folder).glob("damaged/*")))


# How it looks


def test_what_pins_hold_lies_beside_the_history(engine: JsonFileEngine) -> None:
    make(engine, "a", "b", "c", "d")
    pin(engine, short=(0, 2), late=(1, 3))
    log = record(engine).log
    move(engine, "short")
    engine.append(KEY, said("new"))
    engine.update(KEY, {"start": 1})
    engine.drop(KEY)
    lines = path(engine).read_text().splitlines()
    assert lines[3] == f'"storage": {{"format":2,"revision":3,"first":1,"start":1,"log":"{record(engine).log}"}},'
    begin = lines.index('"pins": [')
    assert lines[begin : lines.index('"message_count": 2,')] == [
        '"pins": [',
        f'{{"pin":"short","log":"{log}","start":0,"length":2,"info":{{"label":"short"}}}},',
        f'{{"pin":"late","log":"{log}","start":1,"length":3,"info":{{"label":"late"}}}},',
        f'{{"pin":"undo","log":"{log}","start":0,"length":4}}',
        "],",
        '"logs": [',
        f'{{"log":"{log}","first":0,"length":1,"messages":[',
        ' {"role":"user","content":"a","timestamp":1.0,"id":"a"}',
        "]},",
        f'{{"log":"{log}","first":1,"length":2,"same":""}},',
        f'{{"log":"{log}","first":2,"length":4,"messages":[',
        ' {"role":"user","content":"c","timestamp":1.0,"id":"c"},',
        ' {"role":"user","content":"d","timestamp":1.0,"id":"d"}',
        "]}",
        "],",
        '"messages": [',
        '{"role":"user","content":"b","timestamp":1.0,"id":"b"},',
        '{"role":"user","content":"new","timestamp":1.0,"id":"new"}',
        "],",
    ]


def test_a_pin_of_the_history_costs_one_line(engine: JsonFileEngine) -> None:
    make(engine, "a", "b")
    before = path(engine).read_bytes()
    pin(engine, x=(0, 2))
    after = path(engine).read_bytes()
    line = b'"pins": [\n{"pin":"x","start":0,"length":2,"info":{"label":"x"}}\n],\n'
    start = before.index(b'"messages"')
    assert after[after.index(b'"agent') :].startswith(before[before.index(b'"agent') : start] + line + b'"messages": [')
    engine.update(KEY, {"pins": {}})
    numbers = b'"format":1,"revision":0', b'"format":1,"revision":2'
    assert path(engine).read_bytes()[:-80] == before.replace(*numbers)[:-80]


def test_without_pins_it_looks_as_it_always_did(engine: JsonFileEngine) -> None:
    engine.open_session(Record(*KEY))
    engine.append(KEY, said("a", "b", "c"))
    engine.update(KEY, {"start": 1, "pins": {}})
    keys = ["session_id", "user_id", "storage", "agent_name", "created_at", "metadata", "state"]
    keys += ["archived_messages", "messages", "message_count", "updated_at"]
    found = json.loads(path(engine).read_bytes())
    assert list(found) == keys
    assert found["storage"] == {"format": 1, "revision": 1, "first": 0, "start": 1}
    engine.drop(KEY)
    assert json.loads(path(engine).read_bytes())["storage"] == {"format": 1, "revision": 1, "first": 1, "start": 1}


CALLS: dict[str, Callable[[JsonFileEngine], object]] = {
    "a pin": lambda engine: pin(engine, x=(0, 3), **{'"\n]}': (1, 2)}),
    "an archive": lambda engine: engine.update(KEY, {"start": 2}),
    "a drop": lambda engine: engine.drop(KEY),
    "a move": lambda engine: move(engine, "x"),
    "a message": lambda engine: engine.append(KEY, [Message("user", 'a "quoted"\nline \\ \x00 \u2028 ende 🙂')]),
    "another move": lambda engine: move(engine, "undo"),
    "a state": lambda engine: engine.update(KEY, {"state": {"nested": [{"role": "user"}, {"log": "x"}, {"pin": 1}]}}),
    "unknown keys": lambda engine: engine.update(KEY, {"extra": {"logs ": [1], "messages": []} and {"logs ": [1]}}),
    "a new history": lambda engine: engine.replace(KEY, said("d")),
    "an empty history": lambda engine: engine.update(KEY, {"head": Pin(record(engine).log, 5, 5)}),
    "a first message again": lambda engine: engine.append(KEY, said("e")),
    "fewer pins": lambda engine: engine.update(KEY, {"pins": {"x": record(engine).pins["x"]}}),
    "no pins": lambda engine: engine.update(KEY, {"pins": {}}),
}


def test_it_is_valid_json_after_every_call(engine: JsonFileEngine) -> None:
    make(engine, "a", "b", "c", "d")
    for name, call in CALLS.items():
        call(engine)
        data = path(engine).read_bytes()
        found = json.loads(data)
        assert found["message_count"] == len(found["messages"]), name
        assert found["messages"] == [message.to_dict() for message in engine.read(KEY).messages]
        now = record(engine)
        history = len(found["messages"]) + len(found.get("archived_messages", []))
        assert data.count(b'\n{"role"') == history == now.length - found["storage"]["first"]
        assert [line["pin"] for line in found.get("pins", [])] == list(now.pins)
        assert found["storage"]["format"] == 1 + bool(now.pins)
        for line in found.get("logs", []):
            assert len(line.get("messages", [])) == (0 if "same" in line else line["length"] - line["first"])
        loaded = jsonload.load(data)
        assert (loaded.record, loaded.damage) == (now, [])
        assert loaded.messages[now.start - now.length :] == engine.read(KEY).messages or not found["messages"]


def test_going_back_and_forth_does_not_make_it_larger(engine: JsonFileEngine) -> None:
    """A message that several histories have stands in the file once."""
    make(engine, *(f"message {number}" for number in range(1000)))
    pin(engine, half=(0, 500))
    plain = path(engine).stat().st_size
    for _ in range(3):
        now = record(engine)
        engine.update(KEY, {"head": now.pins["half"], "pins": now.pins | {f"head {len(now.pins)}": now.head}})
        engine.append(KEY, [Message("user", f"after {len(now.pins)}")])
        assert path(engine).read_bytes().count(b'"message 499"') == 2  # its text and its id
    assert path(engine).stat().st_size < plain + 2500
    assert [len(shown_by(engine, name)) for name in record(engine).pins] == [500, 1000, 501, 501]
    assert shown_by(engine, "head 2") == [*(f"message {number}" for number in range(500)), "after 1"]


def test_the_files_in_the_reference_are_whole() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/session-file.md").read_text()
    blocks = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    loaded = [jsonload.load(block.encode()) for block in blocks]
    assert [(len(found.messages), list(found.record.pins), found.damage) for found in loaded] == [
        (2, [], []),
        (2, ["first", "undo"], []),
    ]
    with_pins = loaded[1]
    assert [message.content for message in with_pins.history(with_pins.record.pins["undo"])] == [
        "I am hungry",
        "Pizza!",
    ]
    assert with_pins.record.pins["undo"].log == "648f8d4b5f1c0"


def test_what_two_pins_hold_stands_in_the_file_once(engine: JsonFileEngine) -> None:
    make(engine, *"abcd")
    pin(engine, x=(0, 4))
    move(engine, "x")
    engine.append(KEY, said("e"))
    pin(engine, y=(0, 5))
    engine.replace(KEY, [])
    assert path(engine).read_bytes().count(b'{"role"') == 5
    assert (shown_by(engine, "x"), shown_by(engine, "y")) == ([*"abcd"], [*"abcde"])


# The names of logs


def test_the_first_log_is_named_after_the_time_of_making(engine: JsonFileEngine) -> None:
    opened = engine.open_session(Record(*KEY))
    assert opened.log == f"{round(opened.created_at * 1e6):x}"
    assert opened == record(engine)


def test_a_file_without_a_name_for_its_log_always_has_the_same(engine: JsonFileEngine) -> None:
    """Also one of PraisonAI's, before and after it is written anew, and one that says nothing of its age."""
    for created, log in (("2026-10-01T08:00:00+00:00", "65cc2cd6ac000"), (None, "0")):
        Path(engine.folder).mkdir(exist_ok=True)
        path(engine).write_text(json.dumps({"session_id": "s", "messages": [{"role": "user"}], "created_at": created}))
        for call in (lambda: None, lambda: engine.append(KEY, said("a")), lambda: engine.update(KEY, {"state": {}})):
            call()
            assert record(engine).log == log


def test_no_log_is_named_twice(engine: JsonFileEngine) -> None:
    """Not even where the caller says when the session was made."""
    logs = []
    for _ in range(3):
        logs.append(engine.open_session(Record(*KEY, created_at=5.0)).log)
        for _ in range(3):
            engine.append(KEY, [Message("user", "a")])
            logs.append(engine.replace(KEY, []).log)
            logs.append(engine.update(KEY, {"head": record(engine).head}).log)
        engine.delete(KEY)
    assert len(set(logs)) == len(logs)


def test_a_drop_frees_nothing_that_a_pin_holds(engine: JsonFileEngine) -> None:
    make(engine, *"abcd")
    pin(engine, x=(0, 2), y=(1, 3))
    for start, freed in ((1, 0), (3, 0), (4, len(encode(said("d")[0])))):
        engine.update(KEY, {"start": start})
        assert engine.drop(KEY) == freed
    assert engine.drop(KEY) == 0


# What it costs


@pytest.fixture
def large(engine: JsonFileEngine) -> JsonFileEngine:
    """A session of three messages, and a pin that holds 10,000 others."""
    make(engine, *(f"message {number} {'x' * 100}" for number in range(10_000)))
    pin(engine, all=(0, 10_000))
    engine.replace(KEY, said("a", "b", "c"))
    assert path(engine).stat().st_size > 1_000_000
    return engine


def test_what_pins_hold_is_not_read_without_need(large: JsonFileEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: [data := pread(*args), read.append(len(data))][0])
    calls: list[Callable[[], object]] = [
        lambda: large.get(KEY),
        lambda: large.read(KEY),
        lambda: large.read(KEY, -2),
        lambda: large.list_sessions(None),
        lambda: large.owners("s"),
        lambda: large.append(KEY, [Message("user", "d")]),
    ]
    for call in calls:
        read.clear()
        call()
        assert sum(read) < 50_000


def test_a_message_that_only_a_pin_holds_is_not_stored_any_more(large: JsonFileEngine) -> None:
    old = f"message 5 {'x' * 100}"
    assert large.append(KEY, [Message("user", "new", id=old)]).length == 10_004
    assert large.append(KEY, said("b")).length == 10_004
    assert shown_by(large, "all")[5] == old


# Damage


def damaged(engine: JsonFileEngine, old: bytes, new: bytes) -> None:
    data = path(engine).read_bytes()
    assert data.count(old) == 1
    path(engine).write_bytes(data.replace(old, new))


@pytest.fixture
def branched(engine: JsonFileEngine) -> JsonFileEngine:
    """A history with an archive, and pins of what it was before: see `PINS`."""
    make(engine, "xray", "yankee")
    pin(engine, gone=(0, 2))
    engine.replace(KEY, said("alpha", "bravo", "charlie", "delta", "echo"))
    pin(engine, early=(3, 5), two=(2, 4))
    move(engine, "two")
    engine.append(KEY, said("first", "second"))
    engine.update(KEY, {"start": 3})
    return engine


PINS = {
    "gone": ["xray", "yankee"],
    "early": ["bravo", "charlie"],
    "two": ["alpha", "bravo"],
    "undo": ["alpha", "bravo", "charlie", "delta", "echo"],
}


def test_the_branched_session(branched: JsonFileEngine) -> None:
    assert texts(branched, 0) == ["alpha", "bravo", "first", "second"]
    assert texts(branched) == ["bravo", "first", "second"]
    assert {name: shown_by(branched, name) for name in PINS} == PINS


def look_at_everything(engine: JsonFileEngine) -> tuple[list[Any], dict[str, list[Any]]]:
    """The history with its archive, and what each pin holds."""
    return texts(engine, 0), {name: shown_by(engine, name) for name in record(engine).pins}


@pytest.mark.parametrize("lost", [*chain(*PINS.values()), "first", "second"])
def test_a_bad_byte_in_one_message_costs_that_message_only(branched: JsonFileEngine, lost: str) -> None:
    """In every history that has it; and the others keep theirs, under whatever numbers."""
    damaged(branched, b'"content":"%b"' % lost.encode(), b'"content":"\xff%b"' % lost.encode())
    with reported() as damage:
        branched.update(KEY, {"state": {"n": 1}})
    assert len(damage) == 1
    assert b"\xff" + lost.encode() in set_aside(branched)
    history, pins = look_at_everything(branched)
    assert history == [text for text in ["alpha", "bravo", "first", "second"] if text != lost]
    assert pins == {name: [text for text in held if text != lost] for name, held in PINS.items()}
    assert {name: pin.info for name, pin in record(branched).pins.items()} == {
        name: {} if name == "undo" else {"label": name} for name in PINS
    }
    branched.append(KEY, said("after"))
    assert texts(branched, 0) == [*history, "after"]


@pytest.mark.parametrize("text", ["bravo", "charlie"])
def test_a_bad_byte_anywhere_in_a_message_costs_that_message_only(branched: JsonFileEngine, text: str) -> None:
    """One of the history, and one that only pins hold."""
    data = path(branched).read_bytes()
    place = data.index(b'"content":"%b"' % text.encode())
    start = data.rindex(b"\n", 0, place) + 1
    end = data.index(b"}", place)
    for hit in range(start, end + 1):
        path(branched).write_bytes(data[:hit] + b"\xff" + data[hit + 1 :])
        with reported() as damage:
            branched.update(KEY, {"state": {}})
        assert look_at_everything(branched) == without(text), hit - start
        assert len(damage) == 1


def without(*lost: str) -> tuple[list[str], dict[str, list[str]]]:
    history = [text for text in ["alpha", "bravo", "first", "second"] if text not in lost]
    return history, {name: [text for text in held if text not in lost] for name, held in PINS.items()}


@pytest.mark.parametrize("where", ["history", "kept"])
def test_damage_that_swallows_the_ends_of_lines(engine: JsonFileEngine, where: str) -> None:
    """The numbers in the file tell how many messages were there."""
    make(engine, *"abcdefgh")
    pin(engine, x=(0, 4), y=(2, 8), z=(6, 8))
    if where == "kept":
        engine.replace(KEY, said("new"))
    data = path(engine).read_bytes()
    begin, end = (data.index(b'"content":"%b"' % text) for text in (b"d", b"f"))
    path(engine).write_bytes(data[:begin] + bytes(end - begin) + data[end:])
    with reported():
        engine.update(KEY, {"state": {}})
    held = {name: shown_by(engine, name) for name in "xyz"}
    assert held == {"x": ["a", "b", "c"], "y": ["c", "g", "h"], "z": ["g", "h"]}
    assert texts(engine) == (["new"] if where == "kept" else [*"abcgh"])


def test_damage_in_two_places_hides_nothing_between_them(engine: JsonFileEngine) -> None:
    make(engine, *"abcdefgh")
    pin(engine, x=(0, 3), y=(2, 8))
    data = path(engine).read_bytes()
    for text in (b"b", b"f"):
        data = data.replace(b'"content":"%b"' % text, b'"content":"\xff"')
    path(engine).write_bytes(data)
    with reported():
        engine.update(KEY, {"state": {}})
    assert texts(engine) == [*"acdegh"]
    assert (shown_by(engine, "x"), shown_by(engine, "y")) == ([*"ac"], [*"cdegh"])


@pytest.mark.parametrize("byte", range(7))
def test_the_beginning_of_a_kept_log_that_cannot_be_read(branched: JsonFileEngine, byte: int) -> None:
    """Its messages are set aside, and those of the history stay where they are."""
    log = record(branched).pins["undo"].log.encode()
    line = b'{"log":"%b","first":4' % log
    damaged(branched, line, line[:byte] + b"\xff" + line[byte + 1 :])
    with reported() as damage:
        branched.update(KEY, {"state": {}})
    assert look_at_everything(branched) == without("charlie", "delta", "echo")
    assert b"charlie" in set_aside(branched)
    assert len(damage) == 1


def test_what_was_kept_does_not_swallow_the_history_after_it(branched: JsonFileEngine) -> None:
    """Not even where the end of the one and the beginning of the other are gone."""
    data = path(branched).read_bytes()
    begin, end = data.index(b'"content":"echo"') + 12, data.index(b'"archived_messages"') + 3
    path(branched).write_bytes(data[:begin] + data[end:])
    with reported():
        branched.update(KEY, {"state": {}})
    assert look_at_everything(branched) == without("echo")


def test_numbers_that_mean_other_messages_belong_to_another_log(branched: JsonFileEngine) -> None:
    before = record(branched)
    damaged(branched, b'"content":"bravo"', b'"content":"\xff"')
    with reported():
        assert texts(branched) == ["first", "second"]
    after = record(branched)
    assert after.log != before.log
    assert (after.start, after.length) == (3, 5)
    assert branched.read(KEY, 3).messages == said("first", "second")


def test_a_torn_end_moves_nothing(branched: JsonFileEngine) -> None:
    before = record(branched)
    data = path(branched).read_bytes()
    path(branched).write_bytes(data[: data.index(b"second")])
    with reported():
        assert texts(branched) == ["bravo", "first"]
    assert record(branched).log == before.log
    assert record(branched).pins == before.pins


@pytest.mark.parametrize("call", ["move", "fork", "pin again"])
@pytest.mark.parametrize("lost", ["charlie", "delta"])
def test_a_pin_can_be_used_although_its_log_is_damaged(branched: JsonFileEngine, call: str, lost: str) -> None:
    """Whoever asks has it from a header that knows nothing of the damage."""
    pin = record(branched).pins["undo"]
    damaged(branched, b'"content":"%b"' % lost.encode(), b'"content":"\xff"')
    with reported() as damage:
        if call == "fork":
            branched.fork(KEY, Record("default_user", "t"), at=pin)
            found = branched.read(Key("default_user", "t"))
        elif call == "move":
            branched.update(KEY, {"head": pin})
            found = branched.read(KEY)
        else:
            branched.update(KEY, {"pins": {"again": Pin(pin.log, pin.start, pin.length, {"new": 1})}})
            assert record(branched).pins["again"].info == {"new": 1}
            branched.update(KEY, {"head": record(branched).pins["again"]})
            found = branched.read(KEY)
    assert [message.content for message in found.messages] == [text for text in PINS["undo"] if text != lost]
    assert len(damage) == 1


def test_the_head_can_be_remembered_although_it_is_damaged(branched: JsonFileEngine) -> None:
    now = record(branched)
    damaged(branched, b'"content":"first"', b'"content":"\xff"')
    with reported():
        branched.update(KEY, {"head": now.pins["early"], "pins": {"undo": now.head}})
    assert texts(branched) == ["bravo", "charlie"]
    assert shown_by(branched, "undo") == ["bravo", "second"]


def test_a_pin_that_cannot_be_read_is_set_aside_with_what_only_it_held(branched: JsonFileEngine) -> None:
    damaged(branched, b'{"pin":"gone"', b'{"pin":"\xff"')
    with reported() as damage:
        branched.update(KEY, {"state": {}})
    assert look_at_everything(branched) == (
        ["alpha", "bravo", "first", "second"],
        {n: PINS[n] for n in ("early", "two", "undo")},
    )
    assert len(damage) == 1
    for piece in (b'{"pin":"\xff"', encode(said("xray")[0]), encode(said("yankee")[0])):
        assert piece in set_aside(branched)
        assert piece not in path(branched).read_bytes()


def test_what_another_pin_holds_under_the_same_numbers_is_something_else(branched: JsonFileEngine) -> None:
    now = record(branched)
    branched.update(KEY, {"head": now.pins["gone"], "pins": now.pins | {"numbers": now.head}})
    damaged(branched, b'{"pin":"numbers"', b'{"pin":"\xff"')
    with reported():
        branched.update(KEY, {"state": {}})
    assert look_at_everything(branched) == (["xray", "yankee"], PINS)
    assert encode(said("first")[0]) in set_aside(branched)


def test_a_bad_byte_in_a_key_under_which_everything_stands_elsewhere(branched: JsonFileEngine) -> None:
    branched.update(KEY, {"head": Pin(record(branched).log, 2, 4), "pins": {"two": record(branched).pins["two"]}})
    assert path(branched).read_bytes().count(b' {"role"') == 0
    damaged(branched, b'"logs"', b'"logx"')
    with reported():
        branched.update(KEY, {"state": {}})
    assert look_at_everything(branched) == (["alpha", "bravo"], {"two": ["alpha", "bravo"]})


def test_the_name_of_a_log_that_cannot_be_read_takes_its_messages_with_it(branched: JsonFileEngine) -> None:
    log = record(branched).pins["gone"].log.encode()
    damaged(branched, b'{"log":"%b","first":0' % log, b'{"log":"\xff","first":0')
    with reported() as damage:
        branched.update(KEY, {"state": {}})
    assert look_at_everything(branched) == (["alpha", "bravo", "first", "second"], PINS | {"gone": []})
    assert encode(said("xray")[0]) in set_aside(branched)
    assert len(damage) == 1


@pytest.mark.parametrize("key", ["pins", "logs", "archived_messages", "messages", "message_count", "storage"])
def test_a_bad_byte_in_a_key(branched: JsonFileEngine, key: str) -> None:
    """The file is valid JSON still, but what lies under the key would be lost with it."""
    damaged(branched, b'\n"%b"' % key.encode(), b'\n"%b"' % key.replace("s", "xray", 1).encode())
    with reported():
        branched.update(KEY, {"state": {}})
    history, pins = look_at_everything(branched)
    assert history == ["alpha", "bravo", "first", "second"]
    if key != "storage":  # which has the number of the first message
        assert pins == PINS


KNOWN = {"first", "second", *chain(*PINS.values())}
JOINTS = [b"pins", b"logs", b'{"log"', b'{"pin"', b' {"role"', b"]}", b"],", b'"archived', b'"messages']


@pytest.mark.parametrize("start", JOINTS)
def test_a_bad_byte_between_two_lines(branched: JsonFileEngine, start: bytes) -> None:
    """It makes one line of two, and costs nothing that is whole."""
    data = path(branched).read_bytes()
    before = look_at_everything(branched)
    places = [n for n, byte in enumerate(data) if byte == 10 and start in data[n + 1 : n + 12]]
    assert places
    for place in places:
        path(branched).write_bytes(data[:place] + b"X" + data[place + 1 :])
        with reported():
            branched.update(KEY, {"state": {}})
            assert look_at_everything(branched) == before, data[place - 30 : place + 30]


@given(
    hits=st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 255)), min_size=1, max_size=3),
    cut=st.none() | st.tuples(st.integers(min_value=0), st.integers(1, 30)),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bad_bytes_anywhere_hide_no_whole_message_of_the_history(
    branched: JsonFileEngine, hits: Sequence[tuple[int, int]], cut: tuple[int, int] | None
) -> None:
    """And a pin shows nothing but its own messages, in their order, unless bytes are gone that made one line of two."""
    old = path(branched).read_bytes()
    data, hit = bytearray(old), set()
    for place, value in hits:
        data[place % len(data)] = value
        hit.add(place % len(data))
    if cut:
        begin = cut[0] % len(data)
        hit |= set(range(begin, begin + cut[1]))
        del data[begin : begin + cut[1]]
    path(branched).write_bytes(bytes(data))
    whole = [text for text in ("alpha", "bravo", "first", "second") if not hit & lines_of(old, text)]
    try:
        with reported():
            branched.update(KEY, {"state": {}})
            history, pins = look_at_everything(branched)
    except (NewerFormat, NotASessionFile, LookupError):
        assert min(hit) < old.index(b'"metadata"')
        return
    finally:
        path(branched).write_bytes(old)
    assert [text for text in history if text in whole] == whole
    for name, held in pins.items():
        if min(hit) > old.index(b'"logs"') and not cut:
            rest = iter(PINS[name])
            known = [text for text in held if text in KNOWN]  # a byte of a text may be another now
            assert all(text in rest for text in known), (name, held)


def lines_of(data: bytes, text: str) -> set[int]:
    """The places of the bytes of a history's message and of the line before it."""
    start = data.index(b'\n{"role":"user","content":"%b"' % text.encode())
    return set(range(data.rindex(b"\n", 0, start) + 1, data.index(b"\n", start + 1)))


def test_a_file_cut_off_after_any_of_its_bytes(branched: JsonFileEngine) -> None:
    data = path(branched).read_bytes()
    starts = {text: data.index(b'\n{"role":"user","content":"%b"' % text.encode()) for text in without()[0]}
    ends = {text: data.index(b"}", start) + 1 for text, start in starts.items()}
    for length in range(data.index(b'"agent_name"'), len(data)):
        found = jsonload.load(data[:length], KEY)
        assert [message.content for message in found.messages] == [t for t, end in ends.items() if end <= length], (
            length
        )
        for name, pin in found.record.pins.items():
            rest = iter(PINS[name])
            held = [message.content for message in found.history(pin)]
            assert all(text in rest for text in held), (length, name, held)
        if length % 50 == 0:
            path(branched).write_bytes(data[:length])
            with reported():
                branched.update(KEY, {"state": {}})
                history, pins = look_at_everything(branched)
            assert history == [message.content for message in found.messages]
            assert {name: len(held) for name, held in pins.items()} == {
                name: pin.length - pin.start for name, pin in found.record.pins.items()
            }
            assert json.loads(path(branched).read_bytes())["message_count"] == len(texts(branched))


# Files that people edit


@pytest.mark.parametrize("indent", [None, 2])
def test_what_an_editor_laid_out_anew_is_read(branched: JsonFileEngine, indent: int | None) -> None:
    before = record(branched)
    path(branched).write_text(json.dumps(json.loads(path(branched).read_bytes()), indent=indent))
    assert record(branched) == before
    assert look_at_everything(branched) == (["alpha", "bravo", "first", "second"], PINS)
    branched.append(KEY, said("after"))
    assert look_at_everything(branched) == (["alpha", "bravo", "first", "second", "after"], PINS)
    assert branched.append(KEY, said("first")).length == 7, "a repeat is noticed in such a file too"


def test_a_repeat_is_noticed_in_a_file_that_is_not_in_our_layout(branched: JsonFileEngine) -> None:
    path(branched).write_text(json.dumps(json.loads(path(branched).read_bytes()), indent=2))
    assert branched.append(KEY, said("first")).length == 6


@pytest.mark.parametrize("lost", ["alpha", "bravo", "second"])
def test_a_damaged_file_that_is_indented(branched: JsonFileEngine, lost: str) -> None:
    text = json.dumps(json.loads(path(branched).read_bytes()), indent=2).encode()
    path(branched).write_bytes(text.replace(b'"content": "%b"' % lost.encode(), b'"content": "\xff"'))
    with reported() as damage:
        branched.update(KEY, {"state": {}})
    assert len(damage) == 1
    assert look_at_everything(branched) == without(lost)


def test_a_damaged_header_moves_no_pin(branched: JsonFileEngine) -> None:
    branched.update(KEY, {"metadata": {"title": "T", "first": [{"role": "user", "content": "x"}]}})
    damaged(branched, b'"title":"T"', b'"title":"\xff"')
    with reported() as damage:
        branched.update(KEY, {"state": {}})
    assert len(damage) == 1
    assert look_at_everything(branched) == without()


def test_an_editor_that_takes_the_pins_out(branched: JsonFileEngine) -> None:
    """What they held is in nobody's way, and is not lost."""
    found = json.loads(path(branched).read_bytes())
    del found["pins"]
    path(branched).write_text(json.dumps(found))
    with reported() as damage:
        assert texts(branched, 0) == ["alpha", "bravo", "first", "second"]
        branched.update(KEY, {"state": {}})
    assert len(damage) == 1
    assert encode(said("xray")[0]) in set_aside(branched)
    assert b'"logs"' not in path(branched).read_bytes()


@pytest.mark.parametrize("pins", [5, "x", [1], [{"pin": 1}], {"a": {}}, [{"pin": "a", "start": -1, "length": 2}]])
@pytest.mark.parametrize("key", ["pins", "logs"])
def test_a_key_of_that_name_with_something_else_in_it(engine: JsonFileEngine, key: str, pins: Any) -> None:
    """As in a file of another program's, or of an old version's that kept what it did not know."""
    make(engine, "alpha", "bravo")
    path(engine).write_text(json.dumps({**json.loads(path(engine).read_bytes()), key: pins}))
    with reported() as damage:
        assert texts(engine) == ["alpha", "bravo"]
        engine.append(KEY, said("charlie"))
    assert (texts(engine), record(engine).pins) == (["alpha", "bravo", "charlie"], {})
    assert len(damage) == 1
    assert json.loads(set_aside(engine)) == (pins[0] if isinstance(pins, list) else pins)


def test_a_pin_that_reaches_further_than_there_is(engine: JsonFileEngine) -> None:
    make(engine, "alpha", "bravo")
    pin(engine, x=(0, 2))
    damaged(engine, b'"length":2', b'"length":%d' % 10**18)
    engine.update(KEY, {"state": {}})
    assert record(engine).pins["x"].length == 2


# Forks


def test_a_fork_is_a_file_of_its_own(branched: JsonFileEngine) -> None:
    forked = branched.fork(KEY, Record("default_user", "t", agent_name="A"))
    found = json.loads(Path(branched.folder, "t.json").read_bytes())
    assert found["storage"] == {"format": 1, "revision": 0, "first": 3, "start": 3}
    assert [message["content"] for message in found["messages"]] == ["bravo", "first", "second"]
    assert found["agent_name"] == "A"
    path(branched).unlink()
    assert branched.get(Key("default_user", "t")) == forked
    assert {file.name for file in Path(branched.folder).glob("*") if file.suffix != ".lock"} == {"t.json"}


def test_a_fork_of_a_damaged_session_mends_it(branched: JsonFileEngine) -> None:
    damaged(branched, b'"content":"first"', b'"content":"\xff"')
    with reported() as damage:
        branched.fork(KEY, Record("default_user", "t"))
    assert [message.content for message in branched.read(Key("default_user", "t")).messages] == ["bravo", "second"]
    assert texts(branched) == ["bravo", "second"]
    assert len(damage) == 1


def test_a_fork_of_a_file_of_praisonais(engine: JsonFileEngine) -> None:
    Path(engine.folder).mkdir()
    path(engine).write_text(json.dumps({"session_id": "s", "messages": [{"role": "user", "content": "a"}]}, indent=2))
    before = path(engine).read_bytes()
    engine.fork(KEY, Record("default_user", "t"))
    assert [message.content for message in engine.read(Key("default_user", "t")).messages] == ["a"]
    assert path(engine).read_bytes() == before


def test_two_that_fork_into_each_other_do_not_wait_for_each_other(engine: JsonFileEngine) -> None:
    engine.lock_timeout_s = 0
    make(engine, "a")
    engine.open_session(Record("default_user", "t"))
    with pytest.raises(SessionExists):
        engine.fork(KEY, Record("default_user", "t"))
    with pytest.raises(SessionExists):
        engine.fork(KEY, Record(*KEY))


# What it says of itself


def test_it_says_where_it_is_and_what_survives(tmp_path: Path) -> None:
    described = JsonFileEngine(tmp_path / "s").describe()
    assert described["place"] == str(tmp_path / "s")
    assert described["engine"] == "JSON files, format 2"
    assert "may cost" in described["durability"]
    assert "and a loss of power" in JsonFileEngine(tmp_path, durability="full").describe()["durability"]
    assert not (tmp_path / "s").exists()
