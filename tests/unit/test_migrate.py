"""Moving sessions between places: all of it arrives, nothing is overwritten, the source stays as it is, and a run that was
killed is simply repeated."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from servers import postgres, redis

from praisonaiagents.errors import EngineUnreachable
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session import HierarchicalSessionStore, SessionStore, open_store
from praisonaiagents.session.migrate import DIFFERS, FAILED, MOVED, THERE, WOULD_MOVE, Moved, migrate, plan
from praisonaiagents.session.parts import UNFINISHED, finish, outline
from praisonaiagents.storage.engine import Appended, Engine
from praisonaiagents.storage.jsonfile import JsonFileEngine
from praisonaiagents.storage.memory import MemoryEngine
from praisonaiagents.storage.sqlite import SqliteEngine

DEFAULT = "default_user"
PAIRS = [
    ("memory", "file"),
    ("file", "sqlite"),
    ("sqlite", "postgres"),
    ("postgres", "redis"),
    ("redis", "file"),
    ("file", "memory"),
]


def place(kind: str, stack: ExitStack, folder: Path) -> Engine:
    if kind == "postgres":
        url = stack.enter_context(postgres.empty_place())
    elif kind == "redis":
        url = stack.enter_context(redis.empty_place())
    else:
        url = {"memory": "memory://", "file": f"file://{folder}/s", "sqlite": f"sqlite:///{folder}/s.db"}[kind]
    return stack.enter_context(open_store(url)).engine


@pytest.fixture(params=PAIRS, ids=" to ".join)
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    with ExitStack() as stack:
        yield place(request.param[0], stack, tmp_path / "from"), place(request.param[1], stack, tmp_path / "to")


def live(engine: Engine) -> None:
    """Two users with the same id, forks, snapshots, earlier heads, archives, hostile ids, an empty session."""
    store = HierarchicalSessionStore.of(SessionStore(engine))
    for user in (DEFAULT, "alice", "../x"):
        whose: dict[str, Any] = {"user_id": user}
        store.create_session("s", title=f"of {user}", metadata={"tags": ["\0"]}, **whose)
        for number in range(9):
            store.add_user_message("s", f"{user} {number} \0 \U0001f600", **whose)
        store.create_snapshot("s", "early", **whose)
        store.append_compaction_checkpoint("s", "sum", **whose)
        store.add_assistant_message("s", "later", **whose)
        engine.update(Key(user, "s"), {"start": 3})
        store.revert_to_message("s", 2, **whose)
        store.add_user_message("s", "another way", **whose)
        store.fork_session("s", 1, new_session_id="fork", **whose)
    for name in ("a/b", "a.b", "A", "a", "x" * 1000, "\U0001f600"):
        store.add_user_message(name, name)
    store.create_session("empty")


def keys(engine: Engine) -> list[Key]:
    return [record.key for record in records(engine)]


def records(engine: Engine) -> list[Record]:
    return engine.list_sessions(None, limit=1000).records


def outcomes(moved: Any) -> dict[Key | None, str]:
    return {each.key: each.outcome for each in moved}


def fingerprints(engine: Engine) -> dict[Key, str]:
    return {key: outline(engine, key).fingerprint() for key in keys(engine)}


def test_everything_arrives_and_the_source_stays_as_it_is(engines: tuple[Engine, Engine]) -> None:
    source, target = engines
    live(source)
    before = records(source)
    moved = list(migrate(source, target))
    assert {each.outcome for each in moved} == {MOVED}
    assert all(each.is_well for each in moved)
    assert records(source) == before
    assert fingerprints(target) == fingerprints(source)
    assert keys(target) == keys(source)  # also in the order of their last changes
    for record in before:
        there = target.get(record.key)
        assert there is not None
        assert there.created_at == pytest.approx(record.created_at, abs=1e-6)
        assert [m.id for m in target.read(record.key).messages] == [m.id for m in source.read(record.key).messages]
        assert target.read(record.key, 0, there.start).messages == source.read(record.key, 0, record.start).messages
        for name, pin in record.pins.items():
            assert target.read(record.key, at=there.pins[name]).messages == source.read(record.key, at=pin).messages


def test_a_second_run_changes_nothing(engines: tuple[Engine, Engine]) -> None:
    source, target = engines
    live(source)
    list(migrate(source, target))
    there = records(target)
    assert {each.outcome for each in migrate(source, target)} == {THERE}
    assert records(target) == there


def test_what_was_moved_goes_on_as_it_did(engines: tuple[Engine, Engine]) -> None:
    source, target = engines
    live(source)
    list(migrate(source, target))
    old, new = (HierarchicalSessionStore.of(SessionStore(engine)) for engine in (source, target))
    for user in (DEFAULT, "alice"):
        for store in (old, new):
            assert store.get_children("s", user_id=user) == ["fork"]
            assert store.get_parent("fork", user_id=user) == "s"
            assert store.undo("s", user_id=user)
        assert new.get_chat_history("s", user_id=user) == old.get_chat_history("s", user_id=user)
        assert new.get_working_history("s", user_id=user) == old.get_working_history("s", user_id=user)
        new.revert("s", "early", user_id=user)
        assert len(new.messages("s", user_id=user)) == 9
    assert new.delete_session("s")
    assert len(new.messages("fork")) == 2


def test_only_the_sessions_of_one_user_are_moved() -> None:
    source, target = MemoryEngine(), MemoryEngine()
    live(source)
    assert {each.key for each in migrate(source, target, user_id="alice")} == {("alice", "s"), ("alice", "fork")}
    assert {key.user_id for key in keys(target)} == {"alice"}
    for meant in (DEFAULT, ""):
        assert {key.user_id for key in plan(source, user_id=meant).sessions} == {DEFAULT}


def test_a_dry_run_only_looks(tmp_path: Path) -> None:
    source = MemoryEngine()
    live(source)
    with open_store(f"sqlite:///{tmp_path}/t.db") as store:
        moved = list(migrate(source, store.engine, dry_run=True))
    assert {each.outcome for each in moved} == {WOULD_MOVE}
    assert sum(each.messages for each in moved) > 20
    assert list(tmp_path.iterdir()) == []


def test_a_different_session_of_the_same_id_is_left_alone() -> None:
    source, target = MemoryEngine(), MemoryEngine()
    live(source)
    SessionStore(target).add_user_message("a", "mine")
    list(migrate(source, other := MemoryEngine()))
    SessionStore(other).add_user_message("a", "one more")
    for place, expected in ((target, MOVED), (other, THERE)):
        mine = place.read(Key(DEFAULT, "a"))
        moved = outcomes(migrate(source, place))
        assert moved.pop(Key(DEFAULT, "a")) == DIFFERS
        assert set(moved.values()) == {expected}
        assert place.read(Key(DEFAULT, "a")) == mine
    assert not Moved(None, DIFFERS).is_well
    assert outcomes(migrate(source, other, dry_run=True))[Key(DEFAULT, "a")] == DIFFERS


def test_an_unfinished_session_is_begun_anew_unless_somebody_went_on_with_it() -> None:
    source = MemoryEngine()
    live(source)
    key = Key(DEFAULT, "s")
    whole = source.read(key).messages
    for theirs in ([], [Message("user", "mine")]):
        target = MemoryEngine()
        target.open_session(Record(*key, extra={UNFINISHED: True}))
        target.append(key, [*whole[:2], *theirs])
        before = target.read(key)
        moved = outcomes(migrate(source, target))
        assert moved[key] == (DIFFERS if theirs else MOVED)
        if theirs:
            assert target.read(key) == before
        else:
            assert fingerprints(target) == fingerprints(source)


class _Overtaken(MemoryEngine):
    """Whoever has read a session for the nth time is overtaken: another migration finishes it, and an agent goes on."""

    reads = 0
    went_on = False

    def get(self, key: Key) -> Record | None:
        found = super().get(key)
        self.reads -= 1
        if found and not self.reads and found.extra.get(UNFINISHED) == "another":
            now = super().get(key)
            assert now is not None
            finish(self, now)
            self.append(key, [Message("user", "mine")])
            self.went_on = True
        return found


@pytest.mark.parametrize("moment", range(1, 5))
def test_a_session_that_another_migration_finished_meanwhile_is_not_deleted(moment: int) -> None:
    source, target = MemoryEngine(), _Overtaken()
    for text in ("a", "b"):
        SessionStore(source).add_user_message("s", text)
    key = Key(DEFAULT, "s")
    target.open_session(Record(*key, extra={UNFINISHED: "another"}))
    target.append(key, source.read(key).messages)
    target.reads = moment
    [moved] = migrate(source, target)
    assert target.went_on == (moved.outcome != MOVED) == (moment <= 3)
    assert [m.text() for m in target.read(key).messages] == ["a", "b", *["mine"] * target.went_on]
    if moment == 3:
        assert moved.outcome == DIFFERS


CHILD = """
import sys
from praisonaiagents.session import open_store
from praisonaiagents.session.migrate import migrate
with open_store(sys.argv[1]) as source, open_store(sys.argv[2]) as target:
    for moved in migrate(source.engine, target.engine):
        print(moved.outcome, flush=True)
"""


@pytest.mark.parametrize("kind", ["file", "sqlite", "redis", "postgres"])
def test_a_migration_that_was_killed_is_repeated(kind: str, tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/from.db") as source, ExitStack() as stack:
        live(source.engine)
        for number in range(30):
            for key in (f"long {number}", f"short {number}"):
                count = 600 if key.startswith("long") else 1
                source.append(key, [Message("user", f"message {place}") for place in range(count)])
        urls = {
            "file": lambda: f"file://{tmp_path}/to",
            "sqlite": lambda: f"sqlite:///{tmp_path}/to.db",
            "redis": lambda: stack.enter_context(redis.empty_place()),
            "postgres": lambda: stack.enter_context(postgres.empty_place()),
        }
        url = urls[kind]()
        for pause in (0.0, 0.02, 0.05):
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, f"sqlite:///{tmp_path}/from.db", url], stdout=subprocess.PIPE, text=True
            )
            with child:
                assert child.stdout is not None
                arrived = (line for line in child.stdout if line == "moved\n")
                assert len(list(zip(range(12), arrived, strict=False))) == 12
                time.sleep(pause)
                os.kill(child.pid, signal.SIGKILL)
        with open_store(url) as target:
            moved = outcomes(migrate(source.engine, target.engine))
            assert set(moved.values()) == {MOVED, THERE}
            assert fingerprints(target.engine) == fingerprints(source.engine)
            assert not any(UNFINISHED in record.extra for record in records(target.engine))


def test_damage_in_the_source_stops_nothing_else(tmp_path: Path) -> None:
    source, target = JsonFileEngine(tmp_path / "s"), MemoryEngine()
    live(source)
    (tmp_path / "s" / "unreadable.json").write_bytes(b"\0\xff no session at all")
    torn = tmp_path / "s" / "A.json"
    torn.write_bytes(torn.read_bytes().replace(b'"content":"A"', b'"content":"\xff'))
    moved = list(migrate(source, target))
    troubled = {each.key: each for each in moved if not each.is_well}
    assert set(troubled) == {None, Key(DEFAULT, "A")}
    assert (troubled[None].outcome, troubled[Key(DEFAULT, "A")].outcome) == (FAILED, MOVED)
    assert len(keys(target)) == len(moved) - 1
    assert (tmp_path / "s" / "unreadable.json").read_bytes() == b"\0\xff no session at all"
    assert [each.key for each in migrate(source, target) if not each.is_well] == [None]


def test_a_message_that_cannot_be_read_is_told_and_the_others_move(tmp_path: Path) -> None:
    with closing(SqliteEngine(tmp_path / "s.db")) as source:
        live(source)
        HierarchicalSessionStore.of(SessionStore(source)).create_snapshot("a/b", "x")
        with closing(sqlite3.connect(tmp_path / "s.db")) as db:
            for text in ("alice 4", f"{DEFAULT} 0"):
                changed = db.execute("UPDATE message SET body = 'no message' WHERE body LIKE ?", (f"%{text}%",))
                assert changed.rowcount >= 1
            db.commit()
        target = MemoryEngine()
        moved = {each.key: each for each in migrate(source, target)}
        assert {each.outcome for each in moved.values()} == {MOVED}
        assert {key for key, each in moved.items() if not each.is_well} >= {Key("alice", "s"), Key(DEFAULT, "s")}
        shown = [m.text()[:7] for m in target.read(Key("alice", "s")).messages]
        assert shown == ["alice 3", "alice 5", "another"]
        early = HierarchicalSessionStore.of(SessionStore(target))
        early.revert("s", "early", user_id="alice")
        assert [m.text()[:7] for m in early.messages("s", user_id="alice")][3:5] == ["alice 3", "alice 5"]


def test_an_unfinished_copy_is_not_copied_on() -> None:
    source, target = MemoryEngine(), MemoryEngine()
    source.open_session(Record(DEFAULT, "s", extra={UNFINISHED: "x"}))
    [moved] = migrate(source, target)
    assert (moved.outcome, keys(target)) == (FAILED, [])


class _Forgetful(MemoryEngine):
    """It says that it stored a message, and stored another one."""

    def append(self, key: Key, messages: Any, *, expected_length: int | None = None) -> Appended:
        return super().append(
            key,
            [Message("user", "wrong", id=m.id) if m.text() == "another way" else m for m in messages],
            expected_length=expected_length,
        )


def test_what_did_not_arrive_whole_is_found_and_put_right_by_the_next_run() -> None:
    source, target = MemoryEngine(), _Forgetful()
    live(source)
    moved = list(migrate(source, target))
    failed = {each.key for each in moved if each.outcome == FAILED}
    assert failed == {Key(user, "s") for user in (DEFAULT, "alice", "../x")}
    assert all(UNFINISHED in target.get(key).extra for key in failed)
    assert "another way" not in str(moved)


def test_what_the_target_refuses_leaves_nothing_behind() -> None:
    source, target = MemoryEngine(), MemoryEngine(max_message_bytes=2000)
    live(source)
    SessionStore(source).append("big", [Message("user", "small"), Message("user", "secret " * 1000)])
    moved = {each.key: each for each in migrate(source, target)}
    big = moved.pop(Key(DEFAULT, "big"))
    assert (big.outcome, big.is_well) == (FAILED, False)
    assert "secret" not in str(big)
    assert target.get(Key(DEFAULT, "big")) is None
    assert {each.outcome for each in moved.values()} == {MOVED}


def test_a_place_that_cannot_be_reached_ends_the_migration() -> None:
    source = MemoryEngine()
    live(source)
    with open_store("redis://127.0.0.1:1") as target, pytest.raises(EngineUnreachable):
        list(migrate(source, target.engine))
    with open_store("redis://127.0.0.1:1") as nowhere, pytest.raises(EngineUnreachable):
        list(migrate(nowhere.engine, source))


def test_a_session_that_disappears_meanwhile_is_told() -> None:
    source, target = MemoryEngine(), MemoryEngine()
    live(source)
    planned = plan(source)
    source.delete(Key(DEFAULT, "a"))
    moved = outcomes(migrate(source, target, planned=planned))
    assert moved.pop(Key(DEFAULT, "a")) == FAILED
    assert set(moved.values()) == {MOVED}


def test_files_of_praisonai_move_and_stay_as_they_are(tmp_path: Path) -> None:
    text = (
        '{\n  "session_id": "alice:main",\n  "messages": [{"role": "user", "content": "a"}],\n  "user_id": "praison"\n}'
    )
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "alice_main.json").write_text(text)
    source, target = JsonFileEngine(tmp_path / "s"), MemoryEngine()
    assert [each.outcome for each in migrate(source, target)] == [MOVED]
    assert [each.outcome for each in migrate(source, target)] == [THERE]
    assert [m.text() for m in target.read(Key(DEFAULT, "alice:main")).messages] == ["a"]
    assert (tmp_path / "s" / "alice_main.json").read_text() == text


def test_what_forks_share_is_stored_once_in_the_target(tmp_path: Path) -> None:
    source = MemoryEngine()
    store = HierarchicalSessionStore.of(SessionStore(source))
    store.append("main", [Message("user", f"message {number}") for number in range(1000)])
    for number in range(10):
        store.fork_session("main", 990 + number, new_session_id=f"fork {number}")
        store.add_user_message(f"fork {number}", "on")
    store.add_user_message("main", "and on")
    with closing(SqliteEngine(tmp_path / "t.db")) as target:
        assert {each.outcome for each in migrate(source, target)} == {MOVED}
        assert fingerprints(target) == fingerprints(source)
        with closing(sqlite3.connect(tmp_path / "t.db")) as db:
            ((stored,),) = db.execute("SELECT count(*) FROM message")
        assert stored < 1100
        assert target.delete(Key(DEFAULT, "main"))
        assert len(target.read(Key(DEFAULT, "fork 3")).messages) == 995


def test_what_lies_behind_a_lost_message_is_found(tmp_path: Path) -> None:
    with closing(SqliteEngine(tmp_path / "s.db")) as source:
        store = HierarchicalSessionStore.of(SessionStore(source))
        for number in range(10):
            store.add_user_message("s", f"message {number}")
        store.revert_to_message("s", 5)
        store.add_user_message("s", "another way")
        with closing(sqlite3.connect(tmp_path / "s.db")) as db:
            db.execute("UPDATE message SET body = 'no message' WHERE body LIKE '%message 2%'")
            db.commit()
        target = MemoryEngine()
        [moved] = migrate(source, target)
    assert (moved.outcome, moved.messages, moved.is_well) == (MOVED, 10, False)
    arrived = HierarchicalSessionStore.of(SessionStore(target))
    rest = [f"message {number}" for number in range(10) if number != 2]
    assert [m.text() for m in arrived.messages("s")] == [*rest[:5], "another way"]
    arrived.undo("s")
    assert [m.text() for m in arrived.messages("s")] == rest


def test_two_migrations_at_once_lose_nothing(tmp_path: Path) -> None:
    source = MemoryEngine()
    live(source)
    for number in range(20):
        SessionStore(source).append(f"long {number}", [Message("user", f"{place}") for place in range(500)])
    with closing(SqliteEngine(tmp_path / "t.db")) as target, ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(lambda: list(migrate(source, target))) for _ in range(2)]
        told = [outcomes(run.result()) for run in runs]
        there = fingerprints(target)
        expected = fingerprints(source)
        for key in expected:
            if {MOVED, THERE} & {run[key] for run in told}:
                assert there[key] == expected[key]
        assert set(outcomes(migrate(source, target)).values()) <= {MOVED, THERE}
        assert fingerprints(target) == expected
