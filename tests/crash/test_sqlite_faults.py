"""Other processes, a full disk, a damaged file, a fork at a bad moment: what SQLite alone does not keep from the caller.

The other processes are real, and so are their locks, limits and rights. A child is a short script; it says what it did in
lines of JSON, and waits where it calls `wait()`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from praisonaiagents.errors import LockTimeout, NotASessionFile, SessionDamage, StorageError
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.model.search import parse
from praisonaiagents.storage.sqlite import SqliteEngine

KEY = Key("alice", "s")
PATIENCE_S = 60.0

PRELUDE = """
import json, os, sqlite3, sys, threading
from praisonaiagents.errors import PraisonError, SessionExists, StorageFull
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.model.search import parse
from praisonaiagents.storage import sqlitefile
from praisonaiagents.storage.sqlite import SqliteEngine

KEY, path = Key("alice", "s"), sys.argv[1]

def say(what):
    os.write(1, json.dumps(what).encode() + b"\\n")

def wait():
    os.read(0, 1)

def said(engine):
    return [message.content for message in engine.read(KEY, 0).messages]
"""


class Child:
    """A process that runs a script. It is ended with the test, whatever happens."""

    def __init__(self, script: str, path: Path | str) -> None:
        command = [sys.executable, "-W", "error", "-c", PRELUDE + script, str(path)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else pytest.fail(self.process.communicate()[1])

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("x")
        self.process.stdin.flush()

    def end(self) -> list[Any]:
        """Everything else that it says."""
        out, err = self.process.communicate()
        assert self.process.returncode == 0, err
        return [json.loads(line) for line in out.splitlines()]


def _run(script: str, path: Path | str) -> list[Any]:
    with Child(script, path) as child:
        return child.end()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def engine(path: Path) -> Iterator[SqliteEngine]:
    with closing(SqliteEngine(path, lock_timeout_s=PATIENCE_S)) as engine:
        engine.open_session(Record(*KEY))
        yield engine


def _say(engine: SqliteEngine, *texts: str) -> None:
    engine.append(KEY, [Message("user", text) for text in texts])


def _said(engine: SqliteEngine) -> list[Any]:
    return [message.content for message in engine.read(KEY, 0).messages]


# Locks

HOLD = """
db = sqlite3.connect(path, isolation_level=None)
db.execute("BEGIN IMMEDIATE")
say("held")
wait()
"""


@pytest.mark.parametrize("timeout_s", [0, 0.3])
def test_a_lock_of_another_process_is_waited_for_and_named(path: Path, timeout_s: float) -> None:
    with closing(SqliteEngine(path, lock_timeout_s=timeout_s)) as engine:
        engine.open_session(Record(*KEY))
        _say(engine, "before")
        with Child(HOLD, path) as child:
            assert child.hear() == "held"
            with pytest.raises(LockTimeout, match=r"sessions\.db") as caught:
                _say(engine, "never")
            assert caught.value.path == str(path)
            assert timeout_s <= caught.value.waited_s < PATIENCE_S
            assert _said(engine) == ["before"]
            assert len(engine.list_sessions(None).records) == 1
        _say(engine, "after")
        assert _said(engine) == ["before", "after"]


def test_a_call_goes_on_when_the_lock_is_given_up(engine: SqliteEngine, path: Path) -> None:
    with Child(HOLD + "db.rollback(); say('given up')", path) as child:
        child.hear()
        child.go_on()
        _say(engine, "after")
        assert child.hear() == "given up"
    assert _said(engine) == ["after"]


def test_a_lock_of_a_process_that_was_killed_is_gone(engine: SqliteEngine, path: Path) -> None:
    with Child(HOLD, path) as child:
        child.hear()
    _say(engine, "after")
    assert _said(engine) == ["after"]


def test_a_file_that_another_process_makes_exclusively_its_own_is_named(engine: SqliteEngine, path: Path) -> None:
    """Nobody can even read then."""
    engine.close()
    script = """
db = sqlite3.connect(path, isolation_level=None)
db.execute("PRAGMA locking_mode = EXCLUSIVE")
db.execute("BEGIN EXCLUSIVE")
say("held")
wait()
"""
    with Child(script, path) as child, closing(SqliteEngine(path, lock_timeout_s=0.2)) as other:
        child.hear()
        for call in (lambda: other.get(KEY), lambda: _say(other, "x")):
            with pytest.raises(LockTimeout, match=r"sessions\.db"):
                call()
    assert _said(engine) == []


# A full disk

FILL = """
import resource
engine = SqliteEngine(path)
if {fresh}:
    engine.close()
before = said(engine)
large = [Message("user", "x" * 200_000, id="large")]
calls = {{
    "append": lambda: engine.append(KEY, [Message("user", "small"), *large]),
    "replace": lambda: engine.replace(KEY, large),
    "update": lambda: engine.update(KEY, {{"state": {{"x": "x" * 200_000}}}}),
    "open": lambda: engine.open_session(Record("alice", "new", state={{"x": "x" * 200_000}})),
}}
most = max(os.stat(path + end).st_size for end in ("", "-wal", "-shm") if os.path.exists(path + end))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (most + {room}, hard))
for _ in range(2):
    try:
        calls[{call!r}]()
    except StorageFull as exc:
        say([str(exc), exc.path, type(exc.__cause__).__name__])
    else:
        say("stored")
    say([said(engine) == before, engine.get(KEY).revision, engine.get(Key("alice", "new")) is None])
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
calls[{call!r}]()
say("stored")
"""


@pytest.mark.parametrize("room", [0, 10_000, 100_000])
@pytest.mark.parametrize("call", ["append", "replace", "update", "open"])
def test_no_room(engine: SqliteEngine, path: Path, call: str, room: int) -> None:
    _say(engine, "one", "two")
    told = _run(FILL.format(call=call, room=room, fresh=False), path)
    for refused in (told[0], told[2]):
        assert "no room left" in refused[0]
        assert "nothing was stored" in refused[0]
        assert refused[1:] == [str(path), "OperationalError"]
    assert told[1] == told[3] == [True, 0, True]
    assert told[4] == "stored"
    assert [text[:5] for text in _said(engine)] == {
        "append": ["one", "two", "small", "xxxxx"],
        "replace": ["xxxxx"],
    }.get(call, ["one", "two"])


def test_no_room_for_a_new_file(path: Path) -> None:
    script = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, hard))
engine = SqliteEngine(path)
try:
    engine.open_session(Record(*KEY))
except StorageFull as exc:
    say(exc.path)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
engine.open_session(Record(*KEY), must_be_new=True)
engine.append(KEY, [Message("user", "x")])
say(said(engine))
"""
    assert _run(script, path) == [str(path), ["x"]]


# Damage


def _overwrite(path: Path, needle: bytes, junk: bytes) -> None:
    """Damage the page in which something stands."""
    data = path.read_bytes()
    page = data.index(needle) // 4096 * 4096
    with path.open("r+b") as file:
        file.seek(page)
        file.write(junk)


@pytest.mark.parametrize("junk", [b"\xff" * 4096, b"\0" * 4096, b"\x0d\0\0\xff\xff"], ids=["ones", "zeros", "header"])
def test_a_damaged_page_hides_only_what_stood_in_it(engine: SqliteEngine, path: Path, junk: bytes) -> None:
    _say(engine, *(f"m{number:03} " + "word " * 60 for number in range(200)))
    engine.close()
    _overwrite(path, b"m100 ", junk)
    with pytest.warns(SessionDamage, match="could not be read"):
        numbers = [int(text[1:4]) for text in _said(engine)]
    assert 180 < len(numbers) < 200
    assert 100 not in numbers
    assert numbers == sorted(numbers)
    assert {0, 50, 150, 199} <= set(numbers)
    assert [message.content[:4] for message in engine.read(KEY, -3).messages] == ["m197", "m198", "m199"]


def test_a_page_of_a_large_message_that_is_damaged_hides_only_that_message(engine: SqliteEngine, path: Path) -> None:
    _say(engine, "before", "x" * 50_000 + "needle" + "x" * 50_000, "after")
    engine.close()
    _overwrite(path, b"needle", b"\xff" * 4096)
    with pytest.warns(SessionDamage, match="1 messages"):
        assert _said(engine) == ["before", "after"]


def test_a_file_that_was_cut_off_is_named_with_a_way_out(engine: SqliteEngine, path: Path) -> None:
    _say(engine, *(f"m{number}" + "word " * 100 for number in range(100)))
    engine.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    cut = path.read_bytes()
    for call in (lambda: engine.get(KEY), lambda: _said(engine), lambda: _say(engine, "x")):
        with pytest.raises(StorageError, match=r"damaged.*\.recover") as caught:
            call()
        assert caught.value.path == str(path)
    engine.close()
    assert path.read_bytes() == cut


def test_a_file_whose_first_page_is_damaged_is_left_alone(engine: SqliteEngine, path: Path) -> None:
    _say(engine, "x")
    engine.close()
    with path.open("r+b") as file:
        file.write(b"not a database")
    damaged = path.read_bytes()
    with pytest.raises(NotASessionFile):
        _said(engine)
    assert path.read_bytes() == damaged


def test_damage_while_the_file_is_open_leaves_the_engine_usable(engine: SqliteEngine, path: Path) -> None:
    """Each call tells of it, and none takes a connection away for ever."""
    _say(engine, "x" * 100_000)
    engine.close()
    _overwrite(path, b"idx", b"\xff" * 4096)
    for _ in range(10):
        with pytest.raises(StorageError):
            engine.get(KEY)
        with pytest.raises(StorageError):
            _say(engine, "y")


# Schemas

SLOW = """
slow = '''CREATE TABLE slow AS
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i, hex(i) AS text FROM n;
ALTER TABLE session ADD COLUMN colour TEXT;
'''
first = sqlitefile.migrations("sqlite")
sqlitefile.migrations = lambda engine: [*first, (first[-1][0] + 1, "0002_slow.sql", slow)]
engine = SqliteEngine(path, lock_timeout_s=60)
say(engine.append(KEY, [Message("user", "after")]).length)
"""


def test_processes_that_make_the_file_together_make_one(path: Path) -> None:
    script = """
engine = SqliteEngine(path, lock_timeout_s=60)
say("ready")
wait()
engine.open_session(Record(*KEY))
say(engine.append(KEY, [Message("user", "x")]).length)
"""
    children = [Child(script, path) for _ in range(4)]
    try:
        for child in children:
            child.hear()
        for child in children:
            child.go_on()
        assert sorted(child.end()[0] for child in children) == [1, 2, 3, 4]
    finally:
        for child in children:
            child.__exit__()


def test_processes_that_migrate_together_do_it_once(engine: SqliteEngine, path: Path) -> None:
    _say(engine, "before")
    engine.close()
    with Child(SLOW.format(rows=200_000), path) as one, Child(SLOW.format(rows=200_000), path) as other:
        assert sorted(child.end()[0] for child in (one, other)) == [2, 3]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT (SELECT count(*) FROM slow), count(colour) FROM session").fetchone() == (200_000, 0)


def test_a_migration_that_is_killed_leaves_the_old_schema(engine: SqliteEngine, path: Path) -> None:
    _say(engine, "before")
    schema = engine.describe()["schema"]
    engine.close()
    with Child(SLOW.format(rows=10**9), path) as child, closing(sqlite3.connect(path, timeout=0)) as db:
        while _is_free(db):
            assert child.process.poll() is None
    assert engine.describe()["schema"] == schema
    assert _said(engine) == ["before"]
    engine.close()
    assert _run(SLOW.format(rows=10), path) == [2]


def _is_free(db: sqlite3.Connection) -> bool:
    """True if nobody has been writing for a moment: a migration holds its lock much longer than opening does."""
    for _ in range(20):
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            time.sleep(0.01)
        else:
            db.rollback()
            time.sleep(0.01)
            return True
    return False


# Forks


def test_a_child_goes_on_when_its_parent_has_closed_the_file(engine: SqliteEngine, path: Path) -> None:
    """A parent that held the file open while it forked would remove the log that the child writes to."""
    script = """
engine = SqliteEngine(path)
engine.append(KEY, [Message("user", "before")]), said(engine)
ready, told = os.pipe(), os.pipe()
pid = os.fork()
if not pid:
    engine.append(KEY, [Message("user", "child 1")])
    os.write(ready[1], b"x")
    os.read(told[0], 1)
    engine.append(KEY, [Message("user", "child 2")])
    say(said(engine))
    os._exit(0)
os.read(ready[0], 1)
engine.append(KEY, [Message("user", "parent")])
engine.close()
os.write(told[1], b"x")
assert os.waitpid(pid, 0)[1] == 0
"""
    engine.close()
    expected = ["before", "child 1", "parent", "child 2"]
    assert _run(script, path) == [expected]
    assert _said(engine) == expected


def test_forks_in_the_middle_of_calls_of_other_threads_lose_nothing(engine: SqliteEngine, path: Path) -> None:
    script = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # that is what is tested
engine, done = SqliteEngine(path, lock_timeout_s=60), threading.Event()

def work(number):
    count = 0
    while not done.is_set():
        engine.append(KEY, [Message("user", f"thread {number}.{count}")])
        engine.read(KEY, -3)
        count += 1
    say(count)

threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
for number in range(8):
    pid = os.fork()
    if not pid:
        for count in range(5):
            engine.append(KEY, [Message("user", f"fork {number}.{count}")])
        engine.read(KEY, -3)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
done.set()
for thread in threads:
    thread.join()
engine.close()
"""
    engine.close()
    counts = _run(script, path)
    found = _said(engine)
    assert len(found) == len(set(found)) == sum(counts) + 40
    for author in (*(f"thread {number}" for number in range(3)), *(f"fork {number}" for number in range(8))):
        mine = [text for text in found if text.startswith(f"{author}.")]
        assert mine == [f"{author}.{count}" for count in range(len(mine))]


def test_a_child_has_its_own_copy_of_what_is_in_memory(tmp_path: Path) -> None:
    script = """
engine = SqliteEngine(":memory:")
engine.open_session(Record(*KEY))
engine.append(KEY, [Message("user", "before")])
pid = os.fork()
engine.append(KEY, [Message("user", "parent" if pid else "child")])
if pid:
    assert os.waitpid(pid, 0)[1] == 0
say(said(engine))
if pid:
    engine.close()
else:
    os._exit(0)
"""
    assert _run(script, tmp_path) == [["before", "child"], ["before", "parent"]]


# Rights


def test_a_file_without_the_right_to_write_says_so() -> None:
    """By a process that is nobody, where this one is root, whom no right stops."""
    script = """
engine = SqliteEngine(path, lock_timeout_s=0.5)
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
calls = {
    "append": lambda: engine.append(KEY, [Message("user", "never")]),
    "open": lambda: engine.open_session(Record("alice", "new")),
}
for call in calls.values():
    try:
        call()
    except PraisonError as exc:
        say([type(exc).__name__, exc.path, str(exc)])
engine.close()
"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sessions.db")
        with closing(SqliteEngine(path)) as engine:
            engine.open_session(Record(*KEY))
            _say(engine, "before")
        path.chmod(0o444)
        for mode in (0o555, 0o000):
            os.chmod(folder, mode)
            told = _run(script, path)
            os.chmod(folder, 0o755)
            assert len(told) == 2
            for name, where, text in told:
                assert (name, where) == ("StorageError", str(path))
                assert "could not be opened" in text or "cannot be written to" in text
        path.chmod(0o644)
        with closing(SqliteEngine(path)) as engine:
            assert _said(engine) == ["before"]


# Search


def test_a_search_that_is_killed_is_done_again_by_the_next(engine: SqliteEngine, path: Path) -> None:
    for _ in range(20):
        _say(engine, *(["needle " + "word " * 20] * 200))
    script = "engine = SqliteEngine(path); say('now'); engine.search(None, parse('needle')); say('found')"
    with Child(script, path) as child:
        child.hear()
        with closing(sqlite3.connect(path)) as db:
            while not db.execute("SELECT max(searchable) FROM log").fetchone()[0]:
                assert child.process.poll() is None
    assert len(engine.search(None, parse("needle"), limit=5000).hits) == 4000


def test_processes_that_search_and_write_together(engine: SqliteEngine, path: Path) -> None:
    script = """
engine = SqliteEngine(path, lock_timeout_s=60)
for number in range(30):
    engine.append(KEY, [Message("user", "needle")])
    found = len(engine.search("alice", parse("needle"), limit=1000).hits)
    assert found > number, (found, number)
"""
    children = [Child(script, path) for _ in range(3)]
    try:
        assert [child.end() for child in children] == [[], [], []]
    finally:
        for child in children:
            child.__exit__()
    assert len(engine.search("alice", parse("needle"), limit=1000).hits) == 90
