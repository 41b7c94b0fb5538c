"""A lock that survives the removal of its file.

A session's lock is the sibling `{file}.lock`, which other programs honour too and which people remove while somebody else
holds it. So the data file's own inode is locked as well, and after both locks are held the inode is looked at once more:
if the file was replaced or removed meanwhile, the locks were taken on something nobody will read, and all starts again.
Both are `flock` locks: the system lets go of them when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from pathlib import Path
from typing import NamedTuple

from praisonaiagents.errors import LockTimeout

_FIRST_WAIT_S = 0.0002
_LONGEST_WAIT_S = 0.01
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK  # a named pipe in the place of a file must not make us wait for ever


class Deadline:
    """How long one call may wait for its locks, all of them together."""

    def __init__(self, timeout_s: float) -> None:
        self._started = time.monotonic()
        self._timeout_s = timeout_s

    def waited_s(self) -> float:
        return time.monotonic() - self._started

    def passed(self) -> bool:
        return self.waited_s() >= self._timeout_s


def acquire(fd: int, path: str, deadline: Deadline, *, shared: bool = False) -> None:
    """Lock an open file. Raises `LockTimeout` naming `path` when the deadline has passed."""
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return fcntl.flock(fd, how)
        except BlockingIOError:
            if deadline.passed():
                raise LockTimeout(path, deadline.waited_s(), _holder(fd)) from None
        # waiting a random time keeps many writers from meeting again and again
        time.sleep(random.uniform(wait_s / 2, wait_s))  # noqa: S311
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)


class Locked(NamedTuple):
    """An open, locked file. Closing it lets go of the locks."""

    fd: int
    lock_fd: int | None = None

    def close(self) -> None:
        os.close(self.fd)
        if self.lock_fd is not None:
            os.close(self.lock_fd)


def open_for_writing(path: str, deadline: Deadline) -> Locked:
    """Open an existing file for reading and writing, with both locks held.

    Raises `FileNotFoundError`, `LockTimeout`.
    """
    while True:
        fd = os.open(path, os.O_RDWR | _FLAGS)
        lock_fd = None
        try:
            lock_fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
            acquire(lock_fd, path, deadline)
            acquire(fd, path, deadline)
            if is_current(fd, path):
                return Locked(fd, lock_fd)
        except BaseException:
            Locked(fd, lock_fd).close()
            raise
        Locked(fd, lock_fd).close()


def open_for_reading(path: str, deadline: Deadline) -> Locked:
    """Open an existing file for reading, its own inode locked against writers.

    Raises `FileNotFoundError`, `LockTimeout`.
    """
    fd = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        acquire(fd, path, deadline, shared=True)
    except BaseException:
        os.close(fd)
        raise
    return Locked(fd)


def is_current(fd: int, path: str) -> bool:
    """True if `path` still is the file that was opened."""
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False
    opened = os.fstat(fd)
    return now.st_ino == opened.st_ino and now.st_dev == opened.st_dev


def _holder(fd: int) -> str | None:
    """The process that holds a lock on this file, where the system tells (Linux)."""
    inode = f":{os.fstat(fd).st_ino}"
    try:
        entries = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    pids = {entry[4] for entry in entries if len(entry) > 5 and entry[5].endswith(inode)}
    return f"process {' and '.join(sorted(pids))}" if pids else None
