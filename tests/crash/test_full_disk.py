"""A disk without room: the call raises `StorageFull`, nothing is changed, and all goes on when there is room again.

A limit on the size of files stands for the full disk: it is refused in the same place, after a part of the bytes was taken,
needs no rights, and is the child process's own. Refusals at a chosen byte come from a `pwrite` that we made.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from praisonaiagents.errors import SessionDamage, StorageError, StorageFull
from praisonaiagents.model.message import Message
from praisonaiagents.session.store import DefaultSessionStore

from .children import KEY, SESSION, run
from .content import message, numbers

Pwrite = Callable[[int, "bytes | memoryview", int], int]


@pytest.fixture
def store(tmp_path: Path) -> DefaultSessionStore:
    return DefaultSessionStore(tmp_path)


@pytest.mark.parametrize(("room", "durability"), [(0, "process"), (50, "process"), (4_000, "full"), (9_990, "process")])
@pytest.mark.parametrize("call", ["append", "append several", "make", "update", "replace"])
def test_no_room(tmp_path: Path, store: DefaultSessionStore, call: str, room: int, durability: str) -> None:
    if call != "make":
        store.append(SESSION, [message("old", number) for number in range(3)])
    told = run("fill_disk", folder=tmp_path, call=call, room=room, size=10_000, durability=durability)
    [refused, unchanged, files, stored] = told
    assert refused["cause"] == "OSError"
    assert "nothing was stored" in refused["full"]
    assert refused["path"].startswith(str(tmp_path))
    assert unchanged is True
    assert files == ([] if call == "make" else ["s.json"])
    assert stored == "stored"
    found = numbers(store.get_chat_history(SESSION))
    assert found.get("old", []) == ([] if call in ("make", "replace") else [0, 1, 2])
    assert found.get("new", []) == ([0] if call in ("append", "append several", "replace") else [])
    file = json.loads((tmp_path / "s.json").read_bytes())
    assert file["message_count"] == len(file["messages"]) == sum(map(len, found.values()))


@contextmanager
def system(name: str, call: Callable[..., Any]) -> Iterator[None]:
    """Let a system call do something else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, call)
        yield


def refusing(after: int, number: int = errno.ENOSPC) -> Pwrite:
    """A `pwrite` that takes `after` bytes, and no more."""
    real, left = os.pwrite, [after]

    def pwrite(fd: int, data: bytes | memoryview, position: int) -> int:
        if left[0] == 0:
            left[0] = -1  # undoing needs no room
            raise OSError(number, os.strerror(number))
        taken = real(fd, data[: left[0]] if left[0] > 0 else data, position)
        left[0] -= taken if left[0] > 0 else 0
        return taken

    return pwrite


@pytest.mark.parametrize("before", [[], [message("old", 0)]], ids=["empty", "not empty"])
def test_an_append_refused_at_any_of_its_bytes_changes_no_byte(
    tmp_path: Path, store: DefaultSessionStore, before: list[Message]
) -> None:
    store.open_session(SESSION)
    if before:
        store.append(SESSION, before)
    path = tmp_path / "s.json"
    data, when = path.read_bytes(), path.stat().st_mtime_ns
    for after in range(len(data)):
        with system("pwrite", refusing(after)):
            try:
                store.append(SESSION, [message("new", 0, 40)])
            except StorageFull:
                pass
            else:
                break
        assert path.read_bytes() == data
    assert after > 200
    assert path.stat().st_mtime_ns > when
    assert numbers(store.get_chat_history(SESSION))["new"] == [0]


@pytest.mark.parametrize("taken", [0, 30])
@pytest.mark.parametrize("call", ["make", "update", "replace", "mend"])
def test_a_new_file_that_is_refused_is_removed(
    tmp_path: Path, store: DefaultSessionStore, call: str, taken: int
) -> None:
    path = tmp_path / "s.json"
    if call != "make":
        store.append(SESSION, [message("old", 0), message("old", 1)])
    if call == "mend":
        path.write_bytes(path.read_bytes().replace(b" 1 ", b"\xff"))
    data = path.read_bytes() if path.exists() else None
    with system("pwrite", refusing(taken)):
        if call == "mend":
            with pytest.warns(SessionDamage, match="could not be written anew"):
                assert numbers(store.get_chat_history(SESSION)) == {"old": [0]}
        else:
            calls: dict[str, Callable[[], object]] = {
                "make": lambda: store.open_session(SESSION),
                "update": lambda: store.update_session_metadata(SESSION, title="t"),
                "replace": lambda: store.set_chat_history(SESSION, []),
            }
            with pytest.raises(StorageFull) as caught:
                calls[call]()
            assert caught.value.path == str(path)
    assert data == (path.read_bytes() if path.exists() else None)
    assert [found.name for found in tmp_path.rglob("*") if found.is_file()] in (
        [],
        ["s.json.lock"],
        ["s.json", "s.json.lock"],
        ["s.json.lock", "s.json"],
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_quota_is_a_full_disk_too(store: DefaultSessionStore, number: int) -> None:
    store.open_session(SESSION)
    with system("pwrite", refusing(5, number)), pytest.raises(StorageFull):
        store.append(SESSION, [message("new", 0)])


def test_a_disk_that_fails_is_no_full_disk(store: DefaultSessionStore) -> None:
    store.open_session(SESSION)
    with system("pwrite", refusing(5, errno.EIO)), pytest.raises(StorageError) as caught:
        store.append(SESSION, [message("new", 0)])
    assert type(caught.value) is StorageError
    assert store.get_chat_history(SESSION) == []


def test_a_message_that_did_not_reach_the_disk_is_not_there(tmp_path: Path) -> None:
    """With `durability="full"`, a disk that fails when it is told to keep the bytes has not stored them."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    store = DefaultSessionStore(tmp_path, durability="full")
    store.append(SESSION, [message("old", 0)])
    data = (tmp_path / "s.json").read_bytes()
    with system("fsync", fail), pytest.raises(StorageError):
        store.append(SESSION, [message("new", 0)])
    assert (tmp_path / "s.json").read_bytes() == data
    store.append(SESSION, [message("new", 0)])
    assert numbers(store.get_chat_history(SESSION)) == {"old": [0], "new": [0]}


@pytest.mark.parametrize("most", [1, 7, 100])
def test_writes_that_take_a_few_bytes_at_a_time_are_completed(
    tmp_path: Path, store: DefaultSessionStore, most: int
) -> None:
    real = os.pwrite
    with system("pwrite", lambda fd, data, position: real(fd, data[:most], position)):
        store.append(SESSION, [message("a", 0, 1_000)])
        store.append(SESSION, [message("a", 1, 3), message("a", 2, 500)])
        store.update_session_metadata(SESSION, title="t")
    assert numbers(store.get_chat_history(SESSION)) == {"a": [0, 1, 2]}
    assert json.loads((tmp_path / "s.json").read_bytes())["message_count"] == 3


@pytest.mark.parametrize("most", [1, 7, 100])
def test_reads_that_give_a_few_bytes_at_a_time_are_completed(store: DefaultSessionStore, most: int) -> None:
    """Of a large file, too, a read may give less than was asked for; where it does, all of it is read again slowly."""
    store.append(SESSION, [message("a", 0, 1_000), message("a", 1, 3)])
    real = os.pread
    with system("pread", lambda fd, size, position: real(fd, min(size, most), position)):
        assert numbers(store.get_chat_history(SESSION)) == {"a": [0, 1]}
        assert numbers(store.get_chat_history(SESSION, 1)) == {"a": [1]}
        record = store.engine.get(KEY)
    assert record is not None
    assert record.length == 2


def test_an_interrupt_in_the_middle_of_a_write_is_undone(tmp_path: Path, store: DefaultSessionStore) -> None:
    store.append(SESSION, [message("a", 0)])
    data = (tmp_path / "s.json").read_bytes()
    real, calls = os.pwrite, []

    def interrupted(fd: int, piece: bytes | memoryview, position: int) -> int:
        calls.append(position)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(fd, piece[:50] if len(calls) == 1 else piece, position)

    with system("pwrite", interrupted), pytest.raises(KeyboardInterrupt):
        store.append(SESSION, [message("a", 1)])
    assert (tmp_path / "s.json").read_bytes() == data
