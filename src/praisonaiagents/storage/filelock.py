"""A lock that survives the removal of its file.

A session's lock is the sibling `{file}.lock`, which other programs honour too and which people remove while somebody else
holds it. So the data file's own inode is locked as well, and after both locks are held the inode is looked at once more:
if the file was replaced or removed meanwhile, the locks were taken on something nobody will read, and all starts again.
Both are `flock` locks: the system lets go of them when the process ends, however it ends.

What a reader would get wrong: closing a descriptor does not let go of its lock if the process forked while it was open,
because the child has it too. So the lock is given up before the descriptor is closed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
from typing import NamedTuple

from praisonaiagents.errors import LockTimeout, NotASessionFile, StorageError

_FIRST_WAIT_S = 0.0002
_LONGEST_WAIT_S = 0.01
_MOST_TRIES = 1000  # each but the last stands for somebody who replaced the file; some network disks never agree
_FLAGS = (
    os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
)  # a named pipe in the place of a file must not make us wait for ever
_NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)  # a folder, a symbolic link, a socket


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


class Opened(NamedTuple):
    """An open file, with its state when it was opened and the locks, if any, were held."""

    fd: int
    status: os.stat_result
    lock_fd: int | None = None

    def close(self) -> None:
        """Let go of the locks and close."""
        for fd in (self.fd, self.lock_fd):
            if fd is not None:
                release(fd)


def open_for_writing(path: str, deadline: Deadline) -> Opened:
    """Open an existing file for reading and writing, with both locks held.

    Raises `FileNotFoundError`, `NotASessionFile`, `LockTimeout`, `StorageError`.
    """
    for _ in range(_MOST_TRIES):
        fd = _open(path, os.O_RDWR)
        lock_fd = None
        try:
            lock_fd = open_lock(path, deadline)
            acquire(fd, path, deadline)
            status = os.fstat(fd)
            if _is_at(status, path):
                return Opened(fd, status, lock_fd)
        except BaseException:
            release(fd)
            if lock_fd is not None:
                release(lock_fd)
            raise
        release(fd)
        release(lock_fd)
    raise StorageError(f"{path} is another file each time it is looked at: this disk cannot be used for sessions", path)


def open_lock(path: str, deadline: Deadline) -> int:
    """Hold the lock that other programs honour, whether there is a file at `path` or not. `release` the result."""
    lock_fd = _open(f"{path}.lock", os.O_RDWR | os.O_CREAT)
    try:
        acquire(lock_fd, path, deadline)
    except BaseException:
        os.close(lock_fd)
        raise
    return lock_fd


def open_for_reading(path: str, deadline: Deadline) -> Opened:
    """Open an existing file for reading, its own inode locked against writers.

    Raises `FileNotFoundError`, `NotASessionFile`, `LockTimeout`.
    """
    fd = _open(path, os.O_RDONLY)
    try:
        acquire(fd, path, deadline, shared=True)
        return Opened(fd, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise


def open_unlocked(path: str, _deadline: Deadline | None = None) -> Opened:
    """Open an existing file for reading as it is at this moment, perhaps in the middle of a write.

    Raises `FileNotFoundError`, `NotASessionFile`.
    """
    fd = _open(path, os.O_RDONLY)
    return Opened(fd, os.fstat(fd))


def release(fd: int) -> None:
    """Let go of the lock on an open file, in children of this process too, and close it."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | _FLAGS, 0o600)
    except OSError as exc:
        if exc.errno in _NO_FILE:
            raise NotASessionFile(f"{path} is not a plain file: move it away", path) from exc
        raise


def _is_at(opened: os.stat_result, path: str) -> bool:
    """True if the file that was opened still is the one at `path`."""
    try:
        now = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return now.st_ino == opened.st_ino and now.st_dev == opened.st_dev


def _holder(fd: int) -> str | None:
    """The process that holds a lock on this file, where the system tells (Linux)."""
    inode = f":{os.fstat(fd).st_ino}"
    try:
        with open("/proc/locks") as locks:
            entries = [line.split() for line in locks]
    except OSError:
        return None
    pids = {entry[4] for entry in entries if len(entry) > 5 and entry[5].endswith(inode)}
    return f"process {' and '.join(sorted(pids))}" if pids else None
