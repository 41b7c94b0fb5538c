"""Any sequence of calls leaves an engine with what a few plain lists would hold.

Hypothesis makes the sequences up and shortens those that fail. What a reader would get wrong: the model below is the second,
independent meaning of the contract, so it shares no function with the engines: a history is a list of which the first
`kept` are gone and the first `start` are hidden, a pin and a fork are copies of a part of one. A message that several of
them hold is one object, and so the model knows what is shared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from servers import postgres, redis

from praisonaiagents.errors import (
    Conflict,
    InvalidId,
    InvalidMessage,
    MessageIdConflict,
    SessionExists,
    SessionNotFound,
)
from praisonaiagents.model.message import Message, decode
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.model.search import parse
from praisonaiagents.storage.engine import Engine, Found, Hit
from praisonaiagents.storage.memory import MemoryEngine
from praisonaiagents.storage.registry import open_engine

USERS = ("default_user", "alice", "alice/s")
SESSIONS = ("s", "S", "a/b", "a_b", "x.json.lock", "n" * 300, "🙂")
VALUES = st.dictionaries(st.sampled_from(["a", "b", "extra"]), st.sampled_from([None, 1, 1.5, "x", [{}]]), max_size=2)
WORDS: dict[Any, set[str]] = {
    "one": {"one"},
    "One, two": {"one", "two"},
    "日本": {"日本", "日", "本"},
    "\n],\n": {"-"},
    "a\u2028b\0🙂": {"a", "b"},
    "": {"-"},
    None: {"-"},
}
"""The contents of messages, and the queries of one word that find them. Any other content is "word" and a number."""
QUERIES = ("word", "word", "word", "word 2", "one", "two one", "日本", "本", "b", "one 日本")
MESSAGES = st.lists(
    st.builds(
        Message,
        st.sampled_from(["user", "assistant", "tool"]),
        st.sampled_from(list(WORDS)),
        id=st.sampled_from(["", "", "i1", "i2", "I1", "i3\n"]),
        extra=st.sampled_from([{}, {}, {"newer": [1]}, {"extra": {}}]),
    ),
    max_size=4,
)
NUMBERS = st.none() | st.integers(-6, 12)
keys = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 1, 2, 3])
names = st.sampled_from(["undo", "a", "A", "line\nend"])
parts = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
"""Which of the views of a session, and what part of it."""


@dataclass
class View:
    """Messages `start`, `start + 1`, ... of a history: the one that is shown, or one that is held by a pin."""

    name: str | None
    start: int
    messages: list[Message]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return self.start + len(self.messages)


@dataclass
class Modelled:
    """A session: its messages by number, the number of the first one left and of the first one shown, and its pins."""

    messages: list[Any] = field(default_factory=list)
    kept: int = 0
    start: int = 0
    revision: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    pins: dict[str, View] = field(default_factory=dict)

    @classmethod
    def at(cls, view: View, state: dict[str, Any]) -> Modelled:
        return cls([None] * view.start + view.messages, view.start, view.start, 0, state)

    def find(self, message_id: str) -> Message | None:
        return next((m for m in self.messages[self.kept :] if message_id and m.id == message_id), None)

    @property
    def shown(self) -> View:
        return View(None, self.start, self.messages[self.start :])

    def views(self) -> list[View]:
        """What is held, and by whom: by the head and its archive, by pins."""
        return [View(None, self.kept, self.messages[self.kept :]), *self.pins.values()]

    def part(self, which: int, first: int, count: int) -> View:
        view = self.views()[which % (len(self.pins) + 1)]
        skip = first % (len(view.messages) + 1)
        take = len(view.messages) - skip if count == 9 else count % (len(view.messages) - skip + 1)
        return View(view.name, view.start + skip, view.messages[skip : skip + take], view.info)

    def holds(self, message: Message) -> bool:
        return any(message is held for view in self.views() for held in view.messages)


class Machine(RuleBasedStateMachine):
    """Calls an engine and the model side by side. Subclasses say where its storage is."""

    place: Callable[[], AbstractContextManager[str]]
    """An empty one, as a URL."""
    handles = 2

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[Key, Modelled] = {}
        self.order: list[Key] = []
        self.logs: dict[Key, list[str]] = {}
        self.said = 0
        self.keys = [Key("alice", name) for name in "abcd"]
        self.stack = ExitStack()
        self.engines = self.start()
        self.engine = self.engines[0]

    def start(self) -> list[Engine]:
        url = self.stack.enter_context(type(self).place())
        engines = [open_engine(url) for _ in range(self.handles)]
        for engine in engines:
            self.stack.callback(engine.close)
        return engines

    @initialize(
        users=st.permutations(USERS), sessions=st.permutations(SESSIONS), count=st.integers(0, 9), other=st.booleans()
    )
    def begin(self, users: list[str], sessions: list[str], count: int, other: bool) -> None:
        """Few sessions in one run, so that its calls meet: three of one user, one of another with the same id."""
        self.keys = [*(Key(users[0], name) for name in sessions[:3]), Key(users[1], sessions[0])]
        for number in (0, 1, 3)[: 2 + other]:
            self.say(number, count)

    def touch(self, key: Key) -> None:
        self.order = [key, *(other for other in self.order if other != key)]

    def changed(self, key: Key, session: Modelled) -> None:
        """The record was changed."""
        session.revision += 1
        self.touch(key)

    def record(self, key: Key) -> Record:
        record = self.engine.get(key)
        assert record is not None
        return record

    def new_log(self, key: Key, log: str) -> None:
        """A log that this session has not had before, also not before it was deleted."""
        assert log
        assert log not in self.logs.setdefault(key, [])
        self.logs[key].append(log)

    @rule(number=keys, count=st.integers(1, 4))
    def say(self, number: int, count: int) -> None:
        """Make sure that there is a session with some messages, for the other rules to work on."""
        self.open(number, False, {})
        messages = [Message("user", f"word {n}", id=f"m{n}") for n in range(self.said, self.said + count)]
        self.said += count
        self.append(number, messages, len(self.model[self.keys[number]].messages))

    @rule(number=keys, must_be_new=st.booleans(), state=VALUES)
    def open(self, number: int, must_be_new: bool, state: dict[str, Any]) -> None:
        key = self.keys[number]
        given = Record(*key, state=state, pins={"x": Pin("x", 0, 0)}, log="x")
        if key in self.model and must_be_new:
            with pytest.raises(SessionExists):
                self.engine.open_session(given, must_be_new=True)
            return
        opened = self.engine.open_session(given, must_be_new=must_be_new)
        if key not in self.model:
            self.model[key] = Modelled(state=state)
            self.new_log(key, opened.log)
            self.touch(key)
        assert opened.state == self.model[key].state

    @rule(number=keys, messages=MESSAGES, off=st.none() | st.sampled_from([0, 0, 0, 1, -1]))
    def append(self, number: int, messages: list[Message], off: int | None) -> None:
        key = self.keys[number]
        session = self.model.get(key)
        expected = None if off is None else (len(session.messages) if session else 0) + off
        new, error = self.new_messages(session, messages, expected)
        if session is None or error is not None:
            with pytest.raises(error or SessionNotFound):
                self.engine.append(key, messages, expected_length=expected)
            return
        appended = self.engine.append(key, messages, expected_length=expected)
        assert (appended.start, appended.length) == (session.start, len(session.messages) + len(new))
        assert [given.id or got for given, got in zip(messages, appended.ids, strict=True)] == list(appended.ids)
        if new:
            self.take(key, session, new)

    @rule(number=keys, which=parts, changed=st.booleans())
    def repeat(self, number: int, which: tuple[int, int, int], changed: bool) -> None:
        """Append messages that are, or were, in a view of the session already, or others under their ids."""
        session = self.model.get(self.keys[number])
        if session is None:
            return
        messages = session.part(*which).messages[:2]
        self.append(number, [Message("user", "one", id=m.id) for m in messages] if changed else messages, None)

    @staticmethod
    def new_messages(
        session: Modelled | None, messages: list[Message], expected: int | None
    ) -> tuple[list[Message], type[Exception] | None]:
        """Those that are to be stored, or the error that says why none is."""
        seen: dict[str, Message] = {}
        new: list[Message] = []
        for message in messages:
            known = seen.get(message.id) or (session.find(message.id) if session else None)
            if known is not None and known != message:
                return [], MessageIdConflict
            if known is None:
                new.append(message)
                seen |= {message.id: message} if message.id else {}
        if session is not None and new and expected not in (None, len(session.messages)):
            return [], Conflict
        return new, None

    def take(self, key: Key, session: Modelled, new: list[Message]) -> None:
        """Learn the ids that were given, and check that nothing else was stored."""
        found = self.engine.read(key, len(session.messages)).messages
        assert [(m.role, m.content, m.extra) for m in found] == [(m.role, m.content, m.extra) for m in new]
        assert all(stored.id == (given.id or stored.id) != "" for stored, given in zip(found, new, strict=True))
        session.messages += found
        self.touch(key)

    @rule(number=keys, messages=MESSAGES)
    def replace(self, number: int, messages: list[Message]) -> None:
        key = self.keys[number]
        session = self.model.get(key)
        new, error = self.new_messages(None, messages, None)
        if session is None or error is not None:
            with pytest.raises((SessionNotFound, MessageIdConflict)):
                self.engine.replace(key, messages)
            return
        record = self.engine.replace(key, messages)
        session.kept = session.start = len(session.messages)
        self.changed(key, session)
        self.take(key, session, new)
        self.new_log(key, record.log)
        assert record == self.engine.get(key)

    @rule(number=keys, state=VALUES, off=st.none() | st.sampled_from([0, 0, 1]))
    def update(self, number: int, state: dict[str, Any], off: int | None) -> None:
        key = self.keys[number]
        session = self.model.get(key)
        expected = None if off is None else (session.revision if session else 0) + off
        if session is None or off == 1:
            with pytest.raises((SessionNotFound, Conflict)):
                self.engine.update(key, {"state": state}, expected_revision=expected)
            return
        session.state = state
        assert self.engine.update(key, {"state": state}, expected_revision=expected) == self.engine.get(key)
        self.changed(key, session)

    @rule(number=keys, start=st.integers(0, 12), drop=st.booleans())
    def archive(self, number: int, start: int, drop: bool) -> None:
        key = self.keys[number]
        session = self.model.get(key)
        if session is None:
            with pytest.raises(SessionNotFound):
                self.engine.drop(key) if drop else self.engine.update(key, {"start": 0})
            return
        start = session.kept + start % (len(session.messages) - session.kept + 1)
        session.start = max(session.start, start)
        assert self.engine.update(key, {"start": start}).start == session.start
        self.changed(key, session)
        if drop:
            self.drop(key, session)

    def drop(self, key: Key, session: Modelled) -> None:
        archived = session.messages[session.kept : session.start]
        session.kept = session.start
        freed = self.engine.drop(key)
        if not any(any(other.holds(message) for other in self.model.values()) for message in archived):
            assert (freed > 0) == bool(archived)

    # Pins

    def pin_of(self, key: Key, view: View) -> Pin:
        """A part of a view, in the engine's words."""
        record = self.record(key)
        return Pin(record.log if view.name is None else record.pins[view.name].log, view.start, view.length, view.info)

    @rule(number=keys, name=names, part=parts, info=VALUES, off=st.sampled_from([0, 0, 0, 1]))
    def pin(self, number: int, name: str, part: tuple[int, int, int], info: dict[str, Any], off: int) -> None:
        key = self.keys[number]
        session = self.model.get(key)
        if session is None:
            with pytest.raises(SessionNotFound):
                self.engine.update(key, {"pins": {}})
            return
        view = session.part(*part)
        pins = self.record(key).pins | {name: Pin(*msgspec_values(self.pin_of(key, view)), info)}
        if off:
            with pytest.raises(Conflict):
                self.engine.update(key, {"pins": pins}, expected_revision=session.revision + off)
            return
        assert self.engine.update(key, {"pins": pins}) == self.engine.get(key)
        session.pins[name] = View(name, view.start, view.messages, info)
        self.changed(key, session)

    @rule(number=keys, names=st.sets(names))
    def unpin(self, number: int, names: set[str]) -> None:
        key = self.keys[number]
        session = self.model.get(key)
        if session is not None:
            left = {name: pin for name, pin in self.record(key).pins.items() if name not in names}
            session.pins = {name: session.pins[name] for name in left}
            assert list(self.engine.update(key, {"pins": left}).pins) == list(left)
            self.changed(key, session)

    @rule(number=keys, part=parts, remember=st.sampled_from([True, True, False]), count=st.integers(0, 3))
    def move(self, number: int, part: tuple[int, int, int], remember: bool, count: int) -> None:
        """Show a part of a view, remember what was shown, and go on from there."""
        key = self.keys[number]
        session = self.model.get(key)
        if session is not None:
            self.move_to(key, session, session.part(*part), remember=remember)
            self.say(number, count)

    @rule(number=keys, count=st.integers(0, 3))
    def undo(self, number: int, count: int) -> None:
        key = self.keys[number]
        session = self.model.get(key)
        if session is not None and "undo" in session.pins:
            self.move_to(key, session, session.pins["undo"], remember=True)
            self.say(number, count)

    def move_to(self, key: Key, session: Modelled, view: View, *, remember: bool) -> None:
        record, shown = self.record(key), session.shown
        patch: dict[str, Any] = {"head": self.pin_of(key, view)}
        if remember:
            patch["pins"] = record.pins | {"undo": record.head}
            session.pins["undo"] = View("undo", shown.start, shown.messages)
        moved = self.engine.update(key, patch, expected_revision=session.revision)
        assert moved == self.engine.get(key)
        self.new_log(key, moved.log)
        session.messages = [None] * view.start + view.messages
        session.start = session.kept = view.start
        self.changed(key, session)
        assert self.engine.read(key, 0) == (view.start, view.messages)

    @rule(number=keys, wrong=st.sampled_from(["before", "beyond", "backwards", "elsewhere"]), how=st.integers(0, 2))
    def ask_for_what_is_not_held(self, number: int, wrong: str, how: int) -> None:
        key = self.keys[number]
        session = self.model.get(key)
        if session is None or (wrong == "backwards" and session.kept == len(session.messages)):
            return
        log, first, length = self.record(key).log, session.kept, len(session.messages)
        pin = {
            "before": Pin(log, first - 1, first),
            "beyond": Pin(log, first, length + 1),
            "backwards": Pin(log, length, first),
            "elsewhere": Pin("elsewhere", first, length),
        }[wrong]
        if any(view.start <= pin.start <= pin.length <= view.length for view in session.pins.values()):
            return  # held after all, if the pin is of this log
        calls: list[Callable[[], object]] = [
            lambda: self.engine.update(key, {"pins": {"x": pin}}),
            lambda: self.engine.update(key, {"head": pin, "state": {"x": 1}}),
            lambda: self.engine.fork(key, Record(key.user_id, "wrong"), at=pin),
        ]
        with pytest.raises(InvalidMessage):
            calls[how]()

    @rule(
        number=keys,
        to=st.sampled_from([1, 1, 1, 2, 2, 2, 0, 3]),
        part=st.none() | parts,
        state=VALUES,
        room=st.sampled_from([True, True, True, False]),
        count=st.integers(0, 2),
    )
    def fork(self, number: int, to: int, part: Any, state: dict[str, Any], room: bool, count: int) -> None:
        """Fork a session, or a part of a view of it, and go on in both."""
        key, target = self.keys[number], self.keys[to]
        session = self.model.get(key)
        if room and key != target and session is not None:
            self.delete(to, True, False)
        at = None if session is None or part is None else self.pin_of(key, view := session.part(*part))
        errors = [
            *([SessionNotFound] if session is None else []),
            *([InvalidId] if key.user_id != target.user_id else []),
            *([SessionExists] if target in self.model else []),
        ]
        if session is None or errors:
            with pytest.raises(tuple(errors)):
                self.engine.fork(key, Record(*target, state=state), at=at)
            return
        view = session.shown if at is None else view
        forked = self.engine.fork(key, Record(*target, state=state, pins={"x": Pin("x", 0, 0)}), at=at)
        assert forked == self.engine.get(target)
        self.model[target] = Modelled.at(view, state)
        self.new_log(target, forked.log)
        self.touch(target)
        if count:
            self.say(number, 1)
            self.say(to, count)

    # Looking

    @rule(number=keys, really=st.sampled_from([True, False, False]), again=st.booleans())
    def delete(self, number: int, really: bool, again: bool) -> None:
        key = self.keys[number]
        if key in self.model and not really:
            return
        assert self.engine.delete(key) is (self.model.pop(key, None) is not None)
        self.order = [other for other in self.order if other != key]
        if again:
            self.say(number, 4)

    @rule(number=keys, start=NUMBERS, stop=NUMBERS)
    def read(self, number: int, start: int | None, stop: int | None) -> None:
        key = self.keys[number]
        session = self.model.get(key, Modelled())
        first = session.kept if start is not None and start >= 0 else session.start
        end = len(session.messages) if stop is None else max(stop, 0)
        expected = list(enumerate(session.messages))[:end][first:]
        if start is not None and start >= 0:
            expected = [(number, message) for number, message in expected if number >= start]
        elif start is not None:
            expected = [(number, message) for number, message in expected if number >= len(session.messages) + start]
        found = self.engine.read(key, start, stop)
        assert list(enumerate(found.messages, found.first)) == expected

    @rule(user=st.sampled_from([None, *USERS, "nobody"]), limit=st.integers(1, 5))
    def list(self, user: str | None, limit: int) -> None:
        found: list[Record] = []
        after: str | None = None
        for _ in range(len(self.keys) + 1):
            page = self.engine.list_sessions(user, after=after, limit=limit)
            found += page.records
            after = page.after
            if after is None:
                break
        wanted = {key for key in self.model if user in (None, key.user_id)}
        assert len(found) == len(wanted)
        assert {record.key for record in found} == wanted
        assert found == [self.engine.get(record.key) for record in found]
        times = [record.updated_at for record in found]
        assert times == sorted(times, reverse=True)
        if len(set(times)) == len(times):
            assert [record.key for record in found] == [key for key in self.order if key in wanted]
        for name in {key.session_id for key in self.keys}:
            assert self.engine.owners(name) == sorted(key.user_id for key in self.model if key.session_id == name)

    @rule(text=st.sampled_from(QUERIES), number=st.none() | keys, limit=st.sampled_from([1000, 1000, 2]))
    def search(self, text: str, number: int | None, limit: int) -> None:
        user = None if number is None else self.keys[number].user_id
        visible = [
            Hit(key, number, message)
            for key, session in self.model.items()
            if user in (None, key.user_id)
            for number, message in enumerate(session.shown.messages, session.start)
            if set(text.split()) <= (WORDS.get(message.content) or {*str(message.content).split()})
        ]
        found = self.engine.search(user, parse(text), limit=limit)
        assert found.complete
        assert all(hit in visible for hit in found.hits)
        shared = [id(visible[visible.index(hit)].message) for hit in found.hits]
        assert len(set(shared)) == len(shared), "a message was found twice"
        said = {(hit.key.user_id, hit.message.id, hit.message.content) for hit in visible}
        if limit > len(visible):
            assert {(hit.key.user_id, hit.message.id, hit.message.content) for hit in found.hits} == said
        else:
            assert min(limit, len(said)) <= len(found.hits) <= limit

    @invariant()
    def records_agree(self) -> None:
        """Seen through the other handle, which makes the next call."""
        self.engines = [*self.engines[1:], self.engines[0]]
        self.engine = self.engines[0]
        for key in self.keys:
            session, record = self.model.get(key), self.engine.get(key)
            assert (session is None) == (record is None)
            if session is not None and record is not None:
                assert (record.start, record.length) == (session.start, len(session.messages))
                assert (record.revision, record.state) == (session.revision, session.state)
                assert record.log == self.logs[key][-1]
                pins = [(name, pin.start, pin.length, pin.info) for name, pin in record.pins.items()]
                assert pins == [(name, view.start, view.length, view.info) for name, view in session.pins.items()]

    def teardown(self) -> None:
        """Everything that is held is there: what is shown, what is archived, and what pins hold."""
        with self.stack:
            for key, session in self.model.items():
                assert self.engine.read(key, 0).messages == session.messages[session.kept :]
                for number, (name, view) in enumerate(session.pins.items()):
                    fork = Key(key.user_id, f"fork {number}")
                    self.engine.fork(key, Record(*fork), at=self.record(key).pins[name])
                    assert self.engine.read(fork, 0) == (view.start, view.messages)
                    self.engine.delete(fork)


def msgspec_values(pin: Pin) -> tuple[str, int, int]:
    return pin.log, pin.start, pin.length


@contextmanager
def folder(url: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as path:
        yield url.format(path)


class MemoryMachine(Machine):
    place = partial(nullcontext, "memory://")
    handles = 1


class JsonFileMachine(Machine):
    place = partial(folder, "file://{}/sessions")


class SqliteMachine(Machine):
    place = partial(folder, "sqlite:///{}/sessions.db")


class PostgresMachine(Machine):
    place = postgres.empty_place


class RedisMachine(Machine):
    place = redis.empty_place


class RedisClusterMachine(Machine):
    place = partial(redis.empty_place, cluster=True)


BOUNDED = settings(
    max_examples=100, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
MACHINES: dict[type[Machine], int] = {
    MemoryMachine: 100,
    JsonFileMachine: 60,
    SqliteMachine: 60,
    PostgresMachine: 35,
    RedisMachine: 40,
    RedisClusterMachine: 12,
}
"""How many sequences of calls each is given."""


@pytest.mark.parametrize("machine", MACHINES)
def test_an_engine_behaves_like_plain_lists(machine: type[Machine]) -> None:
    run_state_machine_as_test(machine, settings=settings(BOUNDED, max_examples=MACHINES[machine]))


ALPHABET = st.sampled_from(
    [*"aAbB9 _*'\"-:&|!()\\", *"éÉe\u0301ßİıΣς½²", *"日本語の〇ゝㄅ⺀가\u1100ｶﾞ", *"\0\n🙂𝔘\U000323af"]
)
LINES = st.lists(st.text(ALPHABET, max_size=12), max_size=6)


@pytest.mark.parametrize("machine", MACHINES)
def test_an_engine_finds_what_the_query_matches(machine: type[Machine]) -> None:
    """Texts of any script, and queries that are made of their pieces."""
    key = Key("alice", "s")
    with machine.place() as url, closing(open_engine(url)) as engine:
        engine.open_session(Record(*key))

        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        @given(LINES, LINES, st.data())
        def check(texts: list[str], typed: list[str], data: st.DataObject) -> None:
            start = engine.replace(key, [Message("user", text) for text in texts]).start
            pieces = [text[data.draw(st.integers(0, 6)) :][: data.draw(st.integers(1, 6))] for text in texts]
            for query in map(parse, (*pieces, *typed, "".join(pieces), "* ".join(pieces))):
                expected = {number for number, text in enumerate(texts, start) if query and query.matches(text)}
                found = engine.search("alice", query, limit=100)
                assert {hit.number for hit in found.hits} == expected, query
                assert found.complete

        check()


# Mistakes that the machine finds


class _KnowsVisibleIdsOnly(MemoryEngine):
    """Finds a repeat among the visible messages only."""

    def append(self, key: Key, messages: Any, **options: Any) -> Any:
        if key not in self._sessions:
            return super().append(key, messages, **options)
        session = self._session(key)
        first, session.first = session.first, session.record.start
        try:
            return super().append(key, messages, **options)
        finally:
            session.first = first


class _DropsOneTooMany(MemoryEngine):
    def drop(self, key: Key) -> int:
        session = self._session(key)
        start = session.record.start
        if session.first < start < session.record.length:
            session.record = msgspec.structs.replace(session.record, start=start + 1)
        return super().drop(key)


class _GoesOnWithDeletedNumbers(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        new = self.get(record.key) is None
        super().open_session(record, **options)
        session = self._session(record.key)
        if new:
            end = self.__dict__.setdefault("ends", {}).get(record.key, 0)
            session.first = end
            session.record = msgspec.structs.replace(session.record, start=end, length=end)
        return session.current()

    def delete(self, key: Key) -> bool:
        session = self._sessions.get(key)
        self.__dict__.setdefault("ends", {})[key] = session.record.length if session else 0
        return super().delete(key)


class _Forking(MemoryEngine):
    def fork(self, key: Key, record: Record, **options: Any) -> Record:
        super().fork(key, record, **options)
        self.spoil(self._session(key), self._session(record.key))
        return self._session(record.key).current()

    def spoil(self, source: Any, fork: Any) -> None:
        raise NotImplementedError


class _WritesIntoTheSourceOfAFork(_Forking):
    """The fork's messages go to the log that it comes from, where others have their numbers."""

    def append(self, key: Key, messages: Any, **options: Any) -> Any:
        done = super().append(key, messages, **options)
        session = self._session(key)
        source = self._sessions.get(session.__dict__.get("source"))
        if source is not None:
            source.head.update({n: line for n, line in session.head.items() if n in source.head and n >= session.own})
        return done

    def spoil(self, source: Any, fork: Any) -> None:
        fork.source, fork.own = source.record.key, fork.record.length


class _FreesWhatForksHold(_Forking):
    def spoil(self, source: Any, fork: Any) -> None:
        source.__dict__.setdefault("forks", []).append(fork)

    def drop(self, key: Key) -> int:
        session = self._sessions.get(key)
        for fork in session.__dict__.get("forks", []) if session else []:
            fork.first = max(fork.first, min(session.record.start, fork.record.length))
            fork.record = msgspec.structs.replace(fork.record, start=max(fork.first, fork.record.start))
        return super().drop(key)


class _ForksTheArchiveOfAPin(_Forking):
    def spoil(self, source: Any, fork: Any) -> None:
        fork.record = msgspec.structs.replace(fork.record, start=max(fork.record.start, source.record.start))


class _PinsAreNumbers(MemoryEngine):
    """A pin shows the messages that have its numbers now."""

    def update(self, key: Key, patch: Any, **options: Any) -> Record:
        shown = dict(self._session(key).head)
        record = super().update(key, patch, **options)
        if "head" in patch:
            head = self._session(key).head
            head.update({number: shown[number] for number in head if number in shown})
        return record


class _PinsEndWithTheHead(MemoryEngine):
    """Moving back cuts the pins off that reach further, as truncating a shared log does."""

    def update(self, key: Key, patch: Any, **options: Any) -> Record:
        super().update(key, patch, **options)
        session = self._session(key)
        if "head" in patch:
            log, end = patch["head"].log, session.record.length
            pins = {
                name: msgspec.structs.replace(pin, length=end)
                if pin.log == log and pin.start < end < pin.length
                else pin
                for name, pin in session.record.pins.items()
            }
            session.record = msgspec.structs.replace(session.record, pins=pins)
        return session.current()


class _DropsPinnedMessages(MemoryEngine):
    """What is dropped is gone for pins too."""

    def drop(self, key: Key) -> int:
        session = self._session(key)
        record = session.record
        pins = {
            name: msgspec.structs.replace(pin, start=record.start)
            if pin.log == record.log and pin.start < record.start <= pin.length
            else pin
            for name, pin in record.pins.items()
        }
        session.record = msgspec.structs.replace(record, pins=pins)
        return super().drop(key)


class _NamesTheSameLogAgain(MemoryEngine):
    """Undoing brings the old log back, whose numbers have other messages by then."""

    def update(self, key: Key, patch: Any, **options: Any) -> Record:
        super().update(key, patch, **options)
        session = self._session(key)
        if "head" in patch and patch["head"].log not in session.logs:
            session.logs[patch["head"].log] = session.logs.pop(session.record.log)
            session.record = msgspec.structs.replace(session.record, log=patch["head"].log)
        return session.current()


class _FindsIdsBeyondTheHead(MemoryEngine):
    def append(self, key: Key, messages: Any, **options: Any) -> Any:
        if key not in self._sessions:
            return super().append(key, messages, **options)
        session = self._session(key)
        held = {decode(line).id for log in session.logs.values() for line in log.values()}
        stored = {decode(session.head[number]).id for number in range(session.first, session.record.length)}
        return super().append(key, [m for m in messages if m.id not in held - stored], **options)


class _FindsSharedMessagesTwice(MemoryEngine):
    def search(self, user_id: str | None, query: Any, *, limit: int = 10) -> Found:
        hits = [
            Hit(key, number, message)
            for key, session in self._sessions.items()
            if user_id in (None, key.user_id)
            for number, message in enumerate(self.read(key).messages, session.record.start)
            if query.matches(message.text())
        ]
        return Found(hits[:limit])


class _FindsArchivedMessages(MemoryEngine):
    def search(self, user_id: str | None, query: Any, *, limit: int = 10) -> Found:
        found = super().search(user_id, query, limit=limit)
        for key, session in self._sessions.items():
            for number, message in enumerate(self.read(key, 0).messages, session.first):
                if number < session.record.start and query.matches(message.text()):
                    found.hits.append(Hit(key, number, message))
        return found


MISTAKES = [
    _KnowsVisibleIdsOnly,
    _DropsOneTooMany,
    _GoesOnWithDeletedNumbers,
    _WritesIntoTheSourceOfAFork,
    _FreesWhatForksHold,
    _ForksTheArchiveOfAPin,
    _PinsAreNumbers,
    _PinsEndWithTheHead,
    _DropsPinnedMessages,
    _NamesTheSameLogAgain,
    _FindsIdsBeyondTheHead,
    _FindsSharedMessagesTwice,
    _FindsArchivedMessages,
]


@pytest.mark.parametrize("mistaken", MISTAKES)
def test_the_machine_finds_a_mistake(mistaken: type[MemoryEngine]) -> None:
    class Mistaken(MemoryMachine):
        def start(self) -> list[Engine]:
            return [mistaken()]

    quick = settings(BOUNDED, max_examples=3000, database=None, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises((Exception, pytest.fail.Exception)) as raised:  # whichever difference it meets first
        run_state_machine_as_test(Mistaken, settings=quick)
    # a mistake that stumbles before it shows would prove nothing
    assert not isinstance(raised.value, (AttributeError, KeyError, NameError, TypeError, SessionNotFound)), raised.value
