"""Any sequence of calls leaves an engine with what a few plain lists would hold.

Hypothesis makes the sequences up and shortens those that fail. What a reader would get wrong: the model below is the second,
independent meaning of the contract, so it shares no function with the engines: slices are slices of a Python list, and a
session is a list of which the first `kept` are gone and the first `start` are hidden.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from praisonaiagents.errors import Conflict, MessageIdConflict, SessionExists, SessionNotFound
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.storage.engine import Engine
from praisonaiagents.storage.jsonfile import JsonFileEngine
from praisonaiagents.storage.memory import MemoryEngine

KEYS = [
    *(Key(user, session) for user in ("default_user", "alice") for session in ("s", "S", "a/b", "a_b")),
    *(Key("alice/s", "s"), Key("alice", "x.json.lock"), Key("alice", "n" * 300), Key("default_user", "🙂")),
]
VALUES = st.dictionaries(st.sampled_from(["a", "b", "extra"]), st.sampled_from([None, 1, 1.5, "x", [{}]]), max_size=2)
MESSAGES = st.lists(
    st.builds(
        Message,
        st.sampled_from(["user", "assistant", "tool"]),
        st.sampled_from(["one", "two", "", None, "\n],\n", "a\u2028b\0🙂"]),
        id=st.sampled_from(["", "", "i1", "i2", "I1", "i3\n"]),
        extra=st.sampled_from([{}, {}, {"newer": [1]}, {"extra": {}}]),
    ),
    max_size=4,
)
NUMBERS = st.none() | st.integers(-6, 12)
keys = st.sampled_from([0, 0, 0, 1, 2])


@dataclass
class Modelled:
    """A session: all messages it ever had, the number of the first one left and of the first one shown."""

    messages: list[Message] = field(default_factory=list)
    kept: int = 0
    start: int = 0
    revision: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    def find(self, message_id: str) -> Message | None:
        return next((m for m in self.messages[self.kept :] if message_id and m.id == message_id), None)


class Machine(RuleBasedStateMachine):
    """Calls an engine and the model side by side. Subclasses say how an engine is made."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[Key, Modelled] = {}
        self.order: list[Key] = []
        self.keys = KEYS[:3]
        self.engine = self.make()

    @initialize(keys=st.lists(st.sampled_from(KEYS), min_size=3, max_size=3, unique=True), count=st.integers(0, 9))
    def begin(self, keys: list[Key], count: int) -> None:
        """Few sessions in one run, so that its calls meet; the first has messages already."""
        self.keys = keys
        self.say(0, count)

    def make(self) -> Engine:
        raise NotImplementedError

    def reopen(self) -> Engine:
        return self.engine

    def touch(self, key: Key) -> None:
        self.order = [key, *(other for other in self.order if other != key)]

    @rule(number=keys, count=st.integers(1, 4))
    def say(self, number: int, count: int) -> None:
        """Make sure that there is a session with some messages, for the other rules to work on."""
        self.open(number, False, {})
        first = len(self.model[self.keys[number]].messages)
        self.append(number, [Message("user", f"{n}", id=f"i{n}") for n in range(first, first + count)], first)

    @rule(number=keys, must_be_new=st.booleans(), state=VALUES)
    def open(self, number: int, must_be_new: bool, state: dict[str, Any]) -> None:
        key = self.keys[number]
        if key in self.model and must_be_new:
            with pytest.raises(SessionExists):
                self.engine.open_session(Record(*key, state=state), must_be_new=True)
            return
        if key not in self.model:
            self.model[key] = Modelled(state=state)
            self.touch(key)
        assert (
            self.engine.open_session(Record(*key, state=state), must_be_new=must_be_new).state == self.model[key].state
        )

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

    @rule(number=keys, which=st.integers(0, 12), changed=st.booleans())
    def repeat(self, number: int, which: int, changed: bool) -> None:
        """Append a message that is stored already, archived ones too, or another one under its id."""
        session = self.model.get(self.keys[number])
        known = session.messages[session.kept :] if session else []
        if known:
            message = known[which % len(known)]
            self.append(number, [Message("user", "changed", id=message.id) if changed else message], None)

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
        session.revision += 1
        self.take(key, session, new)
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
        session.state, session.revision = state, session.revision + 1
        assert self.engine.update(key, {"state": state}, expected_revision=expected) == self.engine.get(key)
        self.touch(key)

    @rule(number=keys, start=st.integers(0, 12), drop=st.sampled_from([False, False, True]))
    def archive(self, number: int, start: int, drop: bool) -> None:
        key = self.keys[number]
        session = self.model.get(key)
        if session is None:
            with pytest.raises(SessionNotFound):
                self.engine.update(key, {"start": 0})
            return
        start = session.kept + start % (len(session.messages) - session.kept + 1)
        session.start = max(session.start, start)
        session.revision += 1
        assert self.engine.update(key, {"start": start}).start == session.start
        self.touch(key)
        if drop:
            self.drop(number)

    @rule(number=keys)
    def drop(self, number: int) -> None:
        key = self.keys[number]
        session = self.model.get(key)
        if session is None:
            with pytest.raises(SessionNotFound):
                self.engine.drop(key)
            return
        assert (self.engine.drop(key) > 0) == (session.start > session.kept)
        session.kept = session.start

    @rule(number=keys, again=st.sampled_from([True, True, True, False]))
    def delete(self, number: int, again: bool) -> None:
        key = self.keys[number]
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

    @rule(user_id=st.sampled_from([None, *sorted({key.user_id for key in KEYS}), "nobody"]), limit=st.integers(1, 5))
    def list(self, user_id: str | None, limit: int) -> None:
        found: list[Record] = []
        after: str | None = None
        for _ in range(len(KEYS) + 1):
            page = self.engine.list_sessions(user_id, after=after, limit=limit)
            found += page.records
            after = page.after
            if after is None:
                break
        wanted = {key for key in self.model if user_id in (None, key.user_id)}
        assert len(found) == len(wanted)
        assert {record.key for record in found} == wanted
        times = [record.updated_at for record in found]
        assert times == sorted(times, reverse=True)
        if len(set(times)) == len(times):
            assert [record.key for record in found] == [key for key in self.order if key in wanted]

    @rule(session_id=st.sampled_from(sorted({key.session_id for key in KEYS})))
    def owners(self, session_id: str) -> None:
        assert self.engine.owners(session_id) == sorted(
            key.user_id for key in self.model if key.session_id == session_id
        )

    @rule()
    def use_another_handle(self) -> None:
        self.engine = self.reopen()

    @invariant()
    def records_agree(self) -> None:
        for key in self.keys:
            session, record = self.model.get(key), self.engine.get(key)
            assert (session is None) == (record is None)
            if session is not None and record is not None:
                assert (record.start, record.length) == (session.start, len(session.messages))
                assert (record.revision, record.state) == (session.revision, session.state)

    def teardown(self) -> None:
        for key, session in self.model.items():
            assert self.engine.read(key, 0).messages == session.messages[session.kept :]
        self.engine.close()


class MemoryMachine(Machine):
    def make(self) -> Engine:
        return MemoryEngine()


class JsonFileMachine(Machine):
    def make(self) -> Engine:
        self.folder = tempfile.TemporaryDirectory()
        return JsonFileEngine(self.folder.name)

    def reopen(self) -> Engine:
        return JsonFileEngine(self.folder.name)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.folder.cleanup()


BOUNDED = settings(max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("machine", [MemoryMachine, JsonFileMachine])
def test_an_engine_behaves_like_plain_lists(machine: type[Machine]) -> None:
    run_state_machine_as_test(machine, settings=BOUNDED)


class _LosesArchivedIds(MemoryEngine):
    """Finds a repeat among the visible messages only."""

    def append(self, key: Key, messages: Any, **options: Any) -> Any:
        session = self._sessions.get(key)
        if session is not None:
            visible = {message.id for message in self.read(key).messages}
            session.ids = {name: line for name, line in session.ids.items() if name in visible}
        return super().append(key, messages, **options)


class _DropsOneTooMany(MemoryEngine):
    def drop(self, key: Key) -> int:
        freed = super().drop(key)
        session = self._session(key)
        session.lines = session.lines[freed > 0 :]
        return freed


class _RemembersDeletedNumbers(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        new = self.get(record.key) is None
        opened = super().open_session(record, **options)
        if new:
            self._session(record.key).first = self.__dict__.setdefault("ends", {}).get(record.key, 0)
        return opened

    def delete(self, key: Key) -> bool:
        session = self._sessions.get(key)
        self.__dict__.setdefault("ends", {})[key] = session.length if session else 0
        return super().delete(key)


@pytest.mark.parametrize("mutant", [_LosesArchivedIds, _DropsOneTooMany, _RemembersDeletedNumbers])
def test_the_machine_finds_a_mistake(mutant: Callable[[], Engine]) -> None:
    class Mutant(Machine):
        def make(self) -> Engine:
            return mutant()

    quick = settings(BOUNDED, max_examples=1000, database=None, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises((Exception, pytest.fail.Exception)):  # whichever difference it meets first
        run_state_machine_as_test(Mutant, settings=quick)
