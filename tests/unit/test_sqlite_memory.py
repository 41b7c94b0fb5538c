"""Memories in a SQLite file: other processes, a kill, a fork, and files that cannot be used."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from praisonaiagents.errors import NewerFormat, NotASessionFile, StorageError
from praisonaiagents.memory.sqlite import SqliteMemory
from praisonaiagents.model.memory import MemoryItem, Scope

ALICE = Scope("alice")
PATIENCE_S = 60.0
ROUNDS = 5
PUTTING = """
import os, sys
from praisonaiagents.memory.sqlite import SqliteMemory
from praisonaiagents.model.memory import MemoryItem, Scope

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
memory = SqliteMemory(path, lock_timeout_s=60.0)
os.write(1, b"ready\\n")
sys.stdin.readline()
for number in range(count):
    memory.put([MemoryItem(f"{name}-{number}", Scope("alice"), f"Likes tea of {name}", updated_at=float(number))])
    os.write(1, f"{number}\\n".encode())  # acknowledged; one write, so that a line is said whole or not at all
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "memory.db"


@pytest.fixture
def memory(path: Path) -> Iterator[SqliteMemory]:
    with closing(SqliteMemory(path, lock_timeout_s=PATIENCE_S)) as memory:
        yield memory


def _item(name: str, text: str = "Likes green tea") -> MemoryItem:
    return MemoryItem(name, ALICE, text, updated_at=1.0)


def _names(memory: SqliteMemory) -> set[str]:
    return {item.id for item in memory.list_items(ALICE, limit=10_000).items}


def _putting(path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    """A process that puts `count` items, saying the number of each when it is stored. It waits to be told to begin."""
    command = [sys.executable, "-W", "error", "-c", PUTTING, str(path), name, str(count)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def _begin(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.flush()


def test_four_processes_put_a_hundred_each_into_a_file_that_none_of_them_found(
    path: Path, memory: SqliteMemory
) -> None:
    children = [_putting(path, name, 100) for name in "abcd"]
    for child in children:
        _begin(child)
    for child in children:
        said, _ = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0
        assert len(said.split()) == 100
    assert _names(memory) == {f"{name}-{number}" for name in "abcd" for number in range(100)}
    assert len(memory.search_text(ALICE, ["tea"], limit=1000)) == 400


def test_what_was_acknowledged_survives_a_kill_and_is_found(path: Path) -> None:
    for number in range(ROUNDS):
        name = f"round{number}"
        child = _putting(path, name, 1_000_000)
        _begin(child)
        with child:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(10 * number + 1)]
            child.kill()
            said += child.stdout.readlines()  # not `communicate`, which knows nothing of what has been read ahead
        acknowledged = {f"{name}-{int(line)}" for line in said}
        with closing(SqliteMemory(path)) as memory:
            kept = {item for item in _names(memory) if item.startswith(f"{name}-")}
            found = {match.item.id for match in memory.search_text(ALICE, [name], limit=10_000)}
        assert acknowledged <= kept
        assert len(kept - acknowledged) <= 1  # the one it was about to be told of
        assert found == kept


def test_another_process_sees_at_once_what_was_put_and_removed(path: Path, memory: SqliteMemory) -> None:
    memory.put([_item("mine")])
    child = _putting(path, "theirs", 1)
    _begin(child)
    child.communicate(timeout=PATIENCE_S)
    assert _names(memory) == {"mine", "theirs-0"}


def test_a_forked_child_may_use_and_close_it_and_the_parent_goes_on(path: Path, memory: SqliteMemory) -> None:
    memory.put([_item("before")])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            memory.put([_item("child")])
            memory.close()
            memory.close()
            code = 0
        finally:
            os._exit(code)
    memory.put([_item("parent")])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    memory.put([_item("after")])
    with closing(SqliteMemory(path)) as other:
        assert _names(other) == {"before", "child", "parent", "after"}
        assert len(other.search_text(ALICE, ["tea"])) == 4


def test_it_may_be_closed_after_an_open_that_failed_and_used_when_the_cause_is_gone(tmp_path: Path) -> None:
    in_the_way = tmp_path / "data"
    in_the_way.write_text("not a folder")
    memory = SqliteMemory(in_the_way / "memory.db")
    with pytest.raises(StorageError) as caught:
        memory.put([_item("mine", "Has a secret")])
    assert "secret" not in f"{caught.value} {caught.value!r}"
    memory.close()
    memory.close()
    in_the_way.unlink()
    memory.put([_item("mine")])
    assert _names(memory) == {"mine"}
    memory.close()


def test_what_only_reads_makes_no_file(path: Path, memory: SqliteMemory) -> None:
    assert memory.get("alice", "mine") is None
    assert memory.search_text(ALICE, ["tea"]) == []
    assert memory.erase("alice") == 0
    assert not path.parent.exists()


def test_the_file_and_its_folder_are_for_this_user_alone(path: Path, memory: SqliteMemory) -> None:
    memory.put([_item("mine")])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path, memory: SqliteMemory) -> None:
    memory.put([_item("mine")])
    memory.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    for call in (lambda: memory.put([_item("new")]), lambda: memory.get("alice", "mine"), lambda: memory.clear(ALICE)):
        with pytest.raises(NewerFormat):
            call()
    memory.close()
    assert path.read_bytes() == before


def test_a_file_of_sessions_is_none_of_memories(tmp_path: Path) -> None:
    from praisonaiagents.model.record import Record
    from praisonaiagents.storage.sqlite import SqliteEngine

    with closing(SqliteEngine(tmp_path / "sessions.db")) as engine:
        engine.open_session(Record("alice", "s"))
    with closing(SqliteMemory(tmp_path / "sessions.db")) as memory, pytest.raises(NotASessionFile):
        memory.put([_item("mine")])
