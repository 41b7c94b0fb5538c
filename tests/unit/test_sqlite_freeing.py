"""What no session and no pin shows is freed, and nothing else: seen in the tables, and in the search index.

Hypothesis makes up calls; a session is a few plain lists here, which know nothing of logs. What a reader would get wrong:
every message of a run has a text of its own, so the texts that the lists hold are exactly the rows that may be there, each
once, however many forks share them.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.model.search import parse
from praisonaiagents.storage.sqlite import SqliteEngine

A, B, C, D = (Key("alice", name) for name in "abcd")
BOB = Key("bob", "a")
WHICH = st.integers(0, 5)


class Tables:
    """What lies in the file, through a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, search, instance)")

    def close(self) -> None:
        self._db.close()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._db.execute(query, values).fetchall()

    def texts(self) -> list[str]:
        """The texts of all messages, sorted."""
        return [text for (text,) in self.rows("SELECT json_extract(body, '$.content') AS t FROM message ORDER BY t")]

    def logs(self) -> dict[int, tuple[int | None, int]]:
        return {n: (base, first) for n, base, first in self.rows("SELECT n, base, first FROM log")}

    def needed_logs(self) -> set[int]:
        """The logs that a session or a pin looks at, or through."""
        logs = self.logs()
        needed: set[int] = set()
        views = "SELECT log, first, length FROM session UNION ALL SELECT log, start, length FROM pin"
        for log, start, stop in self.rows(views):
            needed.add(log)
            while (base := logs[log][0]) is not None and start < min(stop, logs[log][1]):
                log, stop = base, min(stop, logs[log][1])
                needed.add(log)
        return needed

    def indexed(self) -> dict[int, set[str]]:
        """The tokens in the search index, by the message's place."""
        found: dict[int, set[str]] = {}
        for term, place in self.rows("SELECT term, doc FROM terms"):
            found.setdefault(place, set()).add(term)
        return found

    def counts(self) -> dict[str, int]:
        """Rows of each table. How far the search of all users has come is nobody's, and stays."""
        names = ("session", "detail", "pin", "log", "message", "searched", "set_aside")
        counts = {name: self.rows(f"SELECT count(*) FROM {name}")[0][0] for name in names}
        return counts | {"searched": self.rows("SELECT count(*) FROM searched WHERE user_id <> ''")[0][0]}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    with closing(SqliteEngine(tmp_path / "s.db")) as engine:
        _make_tables(engine)
        yield engine


@pytest.fixture
def tables(engine: SqliteEngine) -> Iterator[Tables]:
    with closing(Tables(Path(engine.path))) as tables:
        yield tables


def _make_tables(engine: SqliteEngine) -> None:
    engine.open_session(Record(*A))
    engine.delete(A)


def _say(engine: SqliteEngine, key: Key, *texts: str) -> Key:
    engine.open_session(Record(*key))
    engine.append(key, [Message("user", text) for text in texts])
    return key


def _record(engine: SqliteEngine, key: Key) -> Record:
    record = engine.get(key)
    assert record is not None
    return record


def test_a_deleted_session_leaves_nothing(engine: SqliteEngine, tables: Tables) -> None:
    record = engine.open_session(Record(*A, state={"n": 1}))
    _say(engine, A, "one", "two")
    engine.update(A, {"pins": {"x": Pin(record.log, 0, 1)}})
    assert len(engine.search("alice", parse("one")).hits) == 1
    assert set(tables.indexed()) == {int(record.log) << 32, int(record.log) << 32 | 1}
    engine.delete(A)
    assert set(tables.counts().values()) == {0}
    assert tables.indexed() == {}


def test_a_fork_adds_no_message_and_keeps_what_it_shows(engine: SqliteEngine, tables: Tables) -> None:
    _say(engine, A, "one", "three", "two")
    engine.fork(A, Record(*B), at=Pin(_record(engine, A).log, 1, 2))
    assert tables.texts() == ["one", "three", "two"]
    engine.delete(A)
    assert tables.texts() == ["three"]
    _say(engine, B, "four")
    engine.delete(B)
    assert tables.counts()["log"] == tables.counts()["message"] == 0


def test_the_middle_the_head_and_the_tail_of_a_log_are_freed(engine: SqliteEngine, tables: Tables) -> None:
    _say(engine, A, *"abcdefg")
    log = _record(engine, A).log
    engine.update(A, {"pins": {"x": Pin(log, 1, 2), "y": Pin(log, 4, 6)}})
    engine.replace(A, [])
    assert tables.texts() == ["b", "e", "f"]
    engine.update(A, {"pins": {"y": _record(engine, A).pins["y"]}})
    assert tables.texts() == ["e", "f"]
    engine.update(A, {"pins": {"y": Pin(log, 5, 6)}})
    assert tables.texts() == ["f"]


def test_a_base_goes_when_all_begin_after_it(engine: SqliteEngine, tables: Tables) -> None:
    _say(engine, A, "a", "b")
    engine.fork(A, Record(*B))
    _say(engine, B, "c")
    engine.fork(B, Record(*C))
    engine.delete(A)
    assert len(tables.logs()) == 3
    for key in (B, C):
        engine.update(key, {"start": 2})
        engine.drop(key)
    assert tables.texts() == ["c"]
    assert tables.needed_logs() == set(tables.logs())
    assert len(tables.logs()) == 2
    assert [message.content for message in engine.read(C, 0).messages] == ["c"]


def test_an_empty_pin_holds_nothing(engine: SqliteEngine, tables: Tables) -> None:
    _say(engine, A, "a", "b")
    engine.fork(A, Record(*B))
    log = _record(engine, B).log
    engine.update(B, {"pins": {"nothing": Pin(log, 0, 0), "something": Pin(log, 0, 1)}})
    engine.delete(A)
    engine.replace(B, [])
    assert tables.texts() == ["a"]
    engine.update(B, {"pins": {"nothing": Pin(log, 0, 0)}})
    assert tables.texts() == []
    assert tables.needed_logs() == set(tables.logs())


def test_a_fork_holds_no_more_than_it_began_with(engine: SqliteEngine, tables: Tables) -> None:
    _say(engine, A, "a", "b", "c")
    engine.fork(A, Record(*B), at=Pin(_record(engine, A).log, 0, 1))
    _say(engine, B, "d", "e", "f")
    engine.delete(A)
    assert tables.texts() == ["a", "d", "e", "f"]


def test_drop_tells_the_bytes_that_it_freed(engine: SqliteEngine, tables: Tables) -> None:
    _say(engine, A, "a" * 100, "b" * 100, "c")
    engine.fork(A, Record(*B), at=Pin(_record(engine, A).log, 0, 1))
    engine.update(A, {"start": 2})
    ((size,),) = tables.rows("SELECT length(body) FROM message WHERE number = 1")
    assert engine.drop(A) == size > 100


def test_a_message_leaves_the_index_when_it_is_freed(engine: SqliteEngine, tables: Tables) -> None:
    _say(engine, A, "alpha beta", "gamma")
    engine.search(None, parse("alpha"))
    low = int(_record(engine, A).log) << 32
    assert {place: len(terms) for place, terms in tables.indexed().items()} == {low: 3, low | 1: 2}
    _say(engine, A, "not yet indexed")
    engine.update(A, {"start": 1})
    engine.drop(A)
    assert set(tables.indexed()) == {low | 1}
    assert tables.rows("SELECT term FROM terms WHERE term IN ('alpha', 'beta')") == []
    engine.replace(A, [])
    assert tables.indexed() == {}


@pytest.mark.parametrize("user_id", ["alice", None])
def test_a_session_is_found_though_its_change_number_was_another_s_before(
    engine: SqliteEngine, user_id: str | None
) -> None:
    for key in (A, B, C):
        _say(engine, key, "needle")
    assert len(engine.search(user_id, parse("needle")).hits) == 3
    engine.delete(C)
    engine.delete(B)
    _say(engine, D, "needle")
    assert {hit.key for hit in engine.search(user_id, parse("needle")).hits} == {A, D}


def test_a_fork_of_a_fork_does_not_keep_the_first_one_s_log(engine: SqliteEngine, tables: Tables) -> None:
    _say(engine, A, "a")
    engine.fork(A, Record(*B))
    _say(engine, B, "b")
    engine.fork(B, Record(*C), at=Pin(_record(engine, B).log, 0, 1))
    engine.delete(B)
    assert len(tables.logs()) == 2


@pytest.mark.parametrize("user_id", ["alice", None])
def test_messages_said_without_a_change_of_the_order_are_found(engine: SqliteEngine, user_id: str | None) -> None:
    _say(engine, A, "needle")
    for count in range(1, 4):
        assert len(engine.search(user_id, parse("needle")).hits) == count
        _say(engine, A, "needle")
    _say(engine, BOB, "another")
    assert len(engine.search(user_id, parse("needle")).hits) == 4


def test_a_search_reads_only_what_is_new(engine: SqliteEngine, tables: Tables) -> None:
    _say(engine, A, "needle")
    _say(engine, BOB, "needle")
    engine.search("alice", parse("needle"))
    assert tables.rows("SELECT user_id FROM searched") == [("alice",)]
    assert len(tables.indexed()) == 1
    version = tables.rows("PRAGMA data_version")
    engine.search("alice", parse("needle"))
    assert tables.rows("PRAGMA data_version") == version


def test_a_long_backlog_is_indexed_in_several_transactions(engine: SqliteEngine, tables: Tables) -> None:
    for number in range(250):
        _say(engine, Key("alice", str(number)), *["needle"] * 9)
    found = engine.search("alice", parse("needle"), limit=3000)
    assert len(found.hits) == 2250
    assert found.complete
    assert len(tables.indexed()) == 2250


def test_freeing_a_fork_does_not_look_at_the_others(engine: SqliteEngine, tables: Tables) -> None:
    """Whoever comes first shows all that the deleted one did, so nobody else is asked."""
    _say(engine, A, "a")
    forks = [Key("alice", f"fork {number}") for number in range(50)]
    for fork in forks:
        engine.fork(A, Record(*fork))
    engine.delete(A)
    for fork in forks:
        assert tables.texts() == ["a"]
        engine.delete(fork)
    assert tables.counts()["message"] == tables.counts()["log"] == 0


# Any sequence of calls


@dataclass
class Modelled:
    """A session: the texts it ever had by number (None: not its own any more), and those that its pins hold."""

    texts: list[str | None] = field(default_factory=list)
    first: int = 0
    start: int = 0
    pins: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def held(self) -> set[str]:
        own = {text for text in self.texts[self.first :] if text is not None}
        return own.union(*(texts for _, texts in self.pins.values()))


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.engine = SqliteEngine(f"{self.folder.name}/s.db")
        _make_tables(self.engine)
        self.tables = Tables(Path(self.engine.path))
        self.model: dict[Key, Modelled] = {}
        self.said = self.made = 0

    def teardown(self) -> None:
        for key in list(self.model):
            assert self.engine.delete(key)
        counts, indexed = self.tables.counts(), self.tables.indexed()
        self.tables.close()
        self.engine.close()
        self.folder.cleanup()
        assert set(counts.values()) == {0}
        assert indexed == {}

    def new(self, count: int) -> list[str]:
        self.said += count
        return [f"m{number} word{number % 3}" for number in range(self.said - count, self.said)]

    def pick(self, which: int) -> Key:
        """A session that is there, with a few messages if it has to be made."""
        if not self.model:
            self.open("alice", 4)
            self.open("bob", 2)
        return list(self.model)[which % len(self.model)]

    def open(self, user_id: str, count: int) -> None:
        self.made += 1
        key = Key(user_id, f"session {self.made}")
        self.engine.open_session(Record(*key))
        self.model[key] = Modelled()
        self.say(len(self.model) - 1, count)

    @rule(which=WHICH, count=st.integers(1, 4))
    def say(self, which: int, count: int) -> None:
        key, texts = self.pick(which), self.new(count)
        self.engine.append(key, [Message("user", text) for text in texts])
        self.model[key].texts += texts

    @rule(which=WHICH, count=st.integers(0, 2))
    def replace(self, which: int, count: int) -> None:
        key, texts = self.pick(which), self.new(count)
        self.engine.replace(key, [Message("user", text) for text in texts])
        session = self.model[key]
        session.first = session.start = len(session.texts)
        session.texts += texts

    @rule(which=WHICH, where=st.floats(0, 1), drop=st.booleans())
    def archive(self, which: int, where: float, drop: bool) -> None:
        key = self.pick(which)
        session = self.model[key]
        session.start += round(where * (len(session.texts) - session.start))
        self.engine.update(key, {"start": session.start})
        if drop:
            self.engine.drop(key)
            session.first = session.start

    def part(self, key: Key, data: st.DataObject) -> tuple[Pin, list[str]]:
        """A part of what a session holds: a pin, and its texts."""
        session, record = self.model[key], _record(self.engine, key)
        views = {None: (session.first, [text or "" for text in session.texts[session.first :]]), **session.pins}
        name = data.draw(st.sampled_from(list(views)))
        first, texts = views[name]
        log = record.log if name is None else record.pins[name].log
        low = data.draw(st.sampled_from([0, 0, 0, len(texts) // 2, len(texts)]))
        high = data.draw(st.sampled_from([len(texts), len(texts), (low + len(texts) + 1) // 2, low]))
        return Pin(log, first + low, first + high), texts[low:high]

    @rule(which=WHICH, name=st.sampled_from("xy"), data=st.data())
    def pin(self, which: int, name: str, data: st.DataObject) -> None:
        key = self.pick(which)
        pin, texts = self.part(key, data)
        self.engine.update(key, {"pins": _record(self.engine, key).pins | {name: pin}})
        self.model[key].pins[name] = (pin.start, texts)

    @rule(which=WHICH, name=st.sampled_from(["x", "y", "before"]))
    def unpin(self, which: int, name: str) -> None:
        key = self.pick(which)
        pins = _record(self.engine, key).pins
        pins.pop(name, None)
        self.engine.update(key, {"pins": pins})
        self.model[key].pins.pop(name, None)

    @rule(which=WHICH, keep=st.booleans(), data=st.data())
    def move(self, which: int, keep: bool, data: st.DataObject) -> None:
        """Show another history, and hold on to the one shown before, or not."""
        key = self.pick(which)
        session, record = self.model[key], _record(self.engine, key)
        pin, texts = self.part(key, data)
        if keep:
            session.pins["before"] = (session.start, [text or "" for text in session.texts[session.start :]])
            self.engine.update(key, {"head": pin, "pins": record.pins | {"before": record.head}})
        else:
            self.engine.update(key, {"head": pin})
        session.texts = [None] * pin.start + texts
        session.first = session.start = pin.start

    @rule(which=WHICH, count=st.integers(0, 3), data=st.data())
    def fork(self, which: int, count: int, data: st.DataObject) -> None:
        key = self.pick(which)
        pin, texts = self.part(key, data)
        self.made += 1
        fork = Key(key.user_id, f"session {self.made}")
        self.engine.fork(key, Record(*fork), at=pin)
        self.model[fork] = Modelled([*[None] * pin.start, *texts], pin.start, pin.start)
        self.say(len(self.model) - 1, count)

    @rule(which=WHICH)
    def delete(self, which: int) -> None:
        key = self.pick(which)
        del self.model[key]
        assert self.engine.delete(key) is True
        assert self.engine.delete(key) is False

    @rule(user_id=st.sampled_from(["alice", "bob", None]), word=st.integers(0, 2))
    def search(self, user_id: str | None, word: int) -> None:
        hits = self.engine.search(user_id, parse(f"word{word}"), limit=1000).hits
        visible = {
            text
            for key, session in self.model.items()
            if user_id in (None, key.user_id)
            for text in session.texts[session.start :]
            if text and text.endswith(f"word{word}")
        }
        assert sorted(hit.message.text() for hit in hits) == sorted(visible)
        for hit in hits:
            assert self.model[hit.key].texts[hit.number] == hit.message.text()
            assert hit.number >= self.model[hit.key].start

    @invariant()
    def nothing_else_is_there(self) -> None:
        held = set().union(*(session.held() for session in self.model.values()))
        assert self.tables.texts() == sorted(held)
        assert set(self.tables.logs()) == self.tables.needed_logs()
        counts = self.tables.counts()
        assert counts["session"] == counts["detail"] == len(self.model)
        assert counts["pin"] == sum(len(session.pins) for session in self.model.values())
        places = {place for (place,) in self.tables.rows("SELECT log << 32 | number FROM message")}
        assert set(self.tables.indexed()) <= places
        identified = "SELECT log, id, number FROM message JOIN log ON log.n = message.log WHERE number < identified"
        assert set(self.tables.rows("SELECT * FROM message_id")) == set(self.tables.rows(identified))

    @invariant()
    def sessions_read_back(self) -> None:
        for key, session in self.model.items():
            found = self.engine.read(key, 0)
            assert [message.content for message in found.messages] == session.texts[session.first :]


BOUNDED = settings(max_examples=40, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))


def test_any_sequence_of_calls_leaves_what_is_held_and_nothing_else() -> None:
    run_state_machine_as_test(Machine, settings=BOUNDED)
