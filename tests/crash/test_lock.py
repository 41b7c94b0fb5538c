"""The lock: who waits for whom, how long, and what is said about it; and that lock files that lie around or vanish do no harm."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from praisonaiagents.errors import ConfigError, LockTimeout, NotASessionFile, SessionDamage, StorageError
from praisonaiagents.model.record import Key
from praisonaiagents.session.store import DefaultSessionStore

from .children import KEY, SESSION, Child
from .content import message, numbers

WRITES: dict[str, Callable[[DefaultSessionStore], object]] = {
    "append": lambda store: store.append(SESSION, [message("a", 1)]),
    "update": lambda store: store.update_session_metadata(SESSION, title="t"),
    "replace": lambda store: store.set_chat_history(SESSION, []),
    "drop": lambda store: store.engine.drop(KEY),
    "delete": lambda store: store.delete_session(SESSION),
}
READS: dict[str, Callable[[DefaultSessionStore], object]] = {
    "get_chat_history": lambda store: store.get_chat_history(SESSION),
    "the last one": lambda store: store.get_chat_history(SESSION, 1),
    "get_session": lambda store: store.get_session(SESSION),
    "list_sessions": lambda store: store.list_sessions(),
    "owners": lambda store: store.engine.owners(SESSION),
    "open_session": lambda store: store.open_session(SESSION),
}


@pytest.fixture
def store(tmp_path: Path) -> DefaultSessionStore:
    """A store that does not wait."""
    store = DefaultSessionStore(tmp_path, lock_timeout=0)
    store.append(SESSION, [message("a", 0)])
    return store


@contextlib.contextmanager
def locked_by_another(path: Path) -> Iterator[int]:
    """Let another program hold the lock of one file; its process id."""
    child = Child("hold_lock", path=path)
    child.begin()
    try:
        yield child.hear()
    finally:
        child.end()


@pytest.mark.parametrize("file", ["s.json", "s.json.lock"])
@pytest.mark.parametrize("name", WRITES)
def test_a_write_waits_for_another_process_and_says_so(
    tmp_path: Path, store: DefaultSessionStore, name: str, file: str
) -> None:
    """The sibling is what PraisonAI locks, and nothing else: a program that only does that keeps us out too."""
    data = (tmp_path / "s.json").read_bytes()
    with locked_by_another(tmp_path / file) as pid, pytest.raises(LockTimeout) as caught:
        WRITES[name](store)
    assert caught.value.path == str(tmp_path / "s.json")
    assert str(tmp_path / "s.json") in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, OSError)
    if sys.platform == "linux":
        assert caught.value.holder == f"process {pid}"
        assert str(pid) in str(caught.value)
    assert (tmp_path / "s.json").read_bytes() == data
    WRITES[name](store)


@pytest.mark.parametrize("timeout", [0, 0.1, 0.5])
def test_the_time_that_was_waited_is_told(tmp_path: Path, store: DefaultSessionStore, timeout: float) -> None:
    patient = DefaultSessionStore(tmp_path, lock_timeout=timeout)
    with locked_by_another(tmp_path / "s.json"), pytest.raises(LockTimeout) as caught:
        patient.append(SESSION, [message("a", 1)])
    assert caught.value.waited_s >= timeout
    assert f"{caught.value.waited_s:.1f} s" in str(caught.value)


@pytest.mark.parametrize("name", READS)
def test_a_read_waits_for_nobody(tmp_path: Path, store: DefaultSessionStore, name: str) -> None:
    with locked_by_another(tmp_path / "s.json"), locked_by_another(tmp_path / "s.json.lock"):
        assert READS[name](store)


def test_a_read_of_a_torn_file_waits_for_the_writer(tmp_path: Path, store: DefaultSessionStore) -> None:
    """It may be in the middle of a write. If it is not, the file is mended."""
    path = tmp_path / "s.json"
    path.write_bytes(path.read_bytes()[:-5])
    with locked_by_another(path), pytest.raises(LockTimeout):
        store.get_chat_history(SESSION)
    assert numbers(store.get_chat_history(SESSION)) == {"a": [0]}


def test_making_a_session_waits_for_a_program_that_holds_its_lock(tmp_path: Path, store: DefaultSessionStore) -> None:
    """PraisonAI holds the lock while it makes the file."""
    with locked_by_another(tmp_path / "new.json.lock"), pytest.raises(LockTimeout):
        store.append("new", [message("a", 0)])
    assert not (tmp_path / "new.json").exists()
    store.append("new", [message("a", 0)])


def test_another_session_is_not_kept_waiting(tmp_path: Path, store: DefaultSessionStore) -> None:
    """Nor is another user with a session of the same id, although PraisonAI would have kept it in the same file."""
    with locked_by_another(tmp_path / "s.json"):
        store.append("t", [message("a", 0)])
        store.append(SESSION, [message("a", 0)], user_id="alice")
        store.update_session_metadata(SESSION, user_id="alice", title="t")
        assert store.delete_session(SESSION, user_id="bob") is False
    assert store.engine.get(Key("alice", SESSION)) is not None


def test_readers_of_one_session_do_not_keep_a_writer_waiting(tmp_path: Path, store: DefaultSessionStore) -> None:
    """However many read at every moment: none of them holds a lock."""
    with open(tmp_path / "s.json") as file:
        with store.engine._reading(KEY):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)


@pytest.mark.parametrize("left", ["", "12345"])
def test_a_lock_file_that_lies_around_is_harmless(tmp_path: Path, store: DefaultSessionStore, left: str) -> None:
    (tmp_path / "s.json.lock").write_text(left)
    store.append(SESSION, [message("a", 1)])
    (tmp_path / "new.json.lock").write_text(left)
    store.append("new", [message("a", 0)])
    assert numbers(store.get_chat_history(SESSION)) == {"a": [0, 1]}


def test_a_lock_file_removed_while_it_is_held_does_not_let_two_in(tmp_path: Path, store: DefaultSessionStore) -> None:
    with store.engine._writing(KEY):
        (tmp_path / "s.json.lock").unlink()
        with pytest.raises(LockTimeout):
            store.append(SESSION, [message("a", 1)])
    store.append(SESSION, [message("a", 1)])
    assert numbers(store.get_chat_history(SESSION)) == {"a": [0, 1]}


def test_a_file_replaced_while_somebody_waits_for_it_is_not_written_to(
    tmp_path: Path, store: DefaultSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of the old file, which nobody reads any more, is worth nothing."""
    real, replaced = fcntl.flock, []

    def flock(fd: int, how: int) -> None:
        real(fd, how)
        if how & fcntl.LOCK_EX and not replaced and os.fstat(fd).st_size:
            replaced.append(True)
            new = tmp_path / "new"
            new.write_bytes((tmp_path / "s.json").read_bytes())
            new.replace(tmp_path / "s.json")

    monkeypatch.setattr(fcntl, "flock", flock)
    store.append(SESSION, [message("a", 1)])
    assert replaced
    assert numbers(store.get_chat_history(SESSION)) == {"a": [0, 1]}


def test_a_disk_that_numbers_files_anew_each_time_is_refused(
    store: DefaultSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network disks do. It must not make us try for ever."""
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        values = list(real(fd))
        values[1] += 1  # st_ino
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(StorageError, match="each time"):
        store.append(SESSION, [message("a", 1)])


def test_a_process_that_ends_lets_go_of_the_lock(tmp_path: Path, store: DefaultSessionStore) -> None:
    child = Child("hold_lock", path=tmp_path / "s.json")
    child.begin()
    child.hear()
    child.kill()
    store.append(SESSION, [message("a", 1)])


def test_no_descriptor_stays_open(store: DefaultSessionStore) -> None:
    def descriptors() -> int:
        return sum(os.path.exists(f"/dev/fd/{number}") for number in range(256))

    Path(store.session_dir, "folder.json").mkdir()
    before = descriptors()
    for call in (*READS.values(), *WRITES.values()):
        with contextlib.suppress(SessionDamage):  # of the folder, in the listing
            call(store)
    with pytest.raises(NotASessionFile):
        store.get_chat_history("folder")
    assert descriptors() == before


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_makes_no_sense(tmp_path: Path, timeout: float) -> None:
    with pytest.raises(ConfigError):
        DefaultSessionStore(tmp_path, lock_timeout=timeout)
