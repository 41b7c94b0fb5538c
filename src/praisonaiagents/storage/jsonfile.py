"""The JSON file engine: one readable file per session, the default.

    {folder}/{session_id}.json                  the default user's sessions
    {folder}/users/{user}/{session_id}.json     everybody else's
    {folder}/damaged/                           what could not be read, set aside

After every call the file is valid JSON (see `jsonlayout`). An append locks it, checks whose it is, overwrites the short
footer with the message and a new footer, and is done: its cost is the same at 10 and at 100,000 messages. Everything else
that changes a file writes a new one and puts it in its place.

What a reader would get wrong: the name of a file is only a hint. The ids in its header decide whose session it is, because
a disk may be blind to case, and because PraisonAI gave different ids one name.

What survives: with `durability="process"` a crash of this process at any point; with `"full"` (fsync on every call) a loss
of power too. What is not served: Windows (no `flock`), and network disks without working locks.
"""

from __future__ import annotations

import errno
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import msgspec

from praisonaiagents.errors import (
    ConfigError,
    Conflict,
    NotASessionFile,
    SessionDamage,
    SessionExists,
    SessionNotFound,
    StorageError,
    StorageFull,
)
from praisonaiagents.model.ids import DEFAULT_USER, file_stem, id_of_stem, reference_stem, twin_stem
from praisonaiagents.model.message import MAX_MESSAGE_BYTES, Message
from praisonaiagents.model.record import Key, Record, check_values, patched
from praisonaiagents.storage import jsonlayout as layout
from praisonaiagents.storage.engine import Appended, Batch, Page, Slice, batch, clip
from praisonaiagents.storage.filelock import Deadline, Locked, open_for_reading, open_for_writing
from praisonaiagents.storage.sessionfile import (
    SessionFile,
    footer_of,
    identify,
    length_of,
    mode_of,
    not_stored,
    read_slice,
    record_of,
    set_time,
    whole,
    write_at,
)

_LONGEST_REFERENCE_STEM = 250
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JsonFileEngine:
    """One JSON file per session, in one folder.

    folder: made when the first session is.
    lock_timeout_s: how long a call waits for another process's lock, in seconds.
    max_message_bytes: the largest message, in bytes of JSON.
    durability: "process" (a crash loses nothing) or "full" (a power loss neither).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        lock_timeout_s: float = 5.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        durability: Literal["process", "full"] = "process",
    ) -> None:
        if durability not in ("process", "full"):
            raise ConfigError(f"durability is 'process' or 'full', not {durability!r}")
        if not lock_timeout_s >= 0:
            raise ConfigError(f"lock_timeout is a number of seconds, not {lock_timeout_s!r}")
        self.folder = os.path.abspath(os.fspath(folder))
        self.lock_timeout_s = lock_timeout_s
        self._max_message_bytes = max_message_bytes
        self._sync = durability == "full"
        self._owners_seen: dict[str, tuple[int, str | None]] = {}

    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        check_values({"agent_name": record.agent_name, "metadata": record.metadata, "state": record.state})
        while True:
            existing = self.get(record.key)
            if existing is not None:
                if must_be_new:
                    raise SessionExists(record.session_id, record.user_id)
                return existing
            now = _now()
            new = msgspec.structs.replace(
                record, created_at=record.created_at or now, revision=0, start=0, updated_at=now
            )
            for path in self._new_paths(record.key):
                if self._create(path, new):
                    return new
            # somebody made it meanwhile: look again

    def get(self, key: Key) -> Record | None:
        with self._reading(key) as file:
            return record_of(file) if file else None

    def list_sessions(self, user_id: str | None, *, after: str | None = None, limit: int = 50) -> Page:
        with _translated(self.folder):
            files = sorted(self._files(user_id), reverse=True)
            if after is not None:
                after_ns, _, after_path = after.partition(":")
                last = (int(after_ns), f"{self.folder}/{after_path}")
                files = [file for file in files if file < last]
            page: list[Record] = []
            for position, (changed_ns, path) in enumerate(files):
                record = self._listed_record(path)
                if record is None or user_id not in (None, record.user_id):
                    continue
                page.append(record)
                if len(page) == limit:
                    more = position + 1 < len(files)
                    return Page(page, f"{changed_ns}:{path[len(self.folder) + 1 :]}" if more else None)
            return Page(page, None)

    def owners(self, session_id: str) -> list[str]:
        stem, reference = file_stem(session_id), reference_stem(session_id)
        paths = [f"{self.folder}/{stem}.json", f"{self.folder}/{reference}.json"]
        for name in ("", *_names(f"{self.folder}/users")):
            user_id = id_of_stem(name) if name else DEFAULT_USER
            folder = f"{self.folder}/users/{name}" if name else self.folder
            paths.append(f"{folder}/{stem}.json")
            paths += [f"{folder}/{twin_stem(user_id, session_id)}.json"] if user_id else []
        records = (self._listed_record(path) for path in dict.fromkeys(paths))
        return sorted({record.user_id for record in records if record and record.session_id == session_id})

    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        given = batch(messages, self._max_message_bytes)
        with self._writing(key) as file:
            footer = footer_of(file)
            if footer is None:
                return self._append_mending(file, given, expected_length)
            length = length_of(file, footer)
            new = _new_lines(file, given, length, expected_length)
            if new:
                self._add_lines(file, footer, new)
            return Appended(file.head.start if file.head else 0, length + len(new), given.ids)

    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        with self._reading(key) as file:
            if file is None:
                return Slice(0, [])
            found = read_slice(file, start, stop)
        return found if found is not None else self._read_damaged(key, start, stop)

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        with self._writing(key) as file:
            loaded = self._load(file)
            if expected_revision is not None and expected_revision != loaded.record.revision:
                raise Conflict("revision of the session", expected_revision, loaded.record.revision)
            return self._rewrite(file, patched(loaded.record, dict(patch)), loaded.first, loaded.messages)

    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        lines = list(batch(messages, self._max_message_bytes).lines.values())
        with self._writing(key) as file:
            record = self._load(file).record
            cleared = patched(record, {"start": record.length})
            return self._rewrite(file, cleared, cleared.start, lines)

    def drop(self, key: Key) -> int:
        with self._writing(key) as file:
            loaded = self._load(file)
            record = loaded.record
            if loaded.first == record.start:
                return 0
            kept = loaded.messages[record.start - loaded.first :]
            self._rewrite(file, record, record.start, kept, touch=False)
            return file.size - os.stat(file.path).st_size

    def delete(self, key: Key) -> bool:
        try:
            with self._writing(key) as file:
                os.unlink(file.path)
                folder, name = os.path.split(self._aside(file.path))
                for found in _names(folder):
                    if found.startswith(f"{name}."):
                        os.unlink(f"{folder}/{found}")
                _unlink_if_there(f"{file.path}.tmp")
                _unlink_if_there(f"{file.path}.lock")
        except SessionNotFound:
            return False
        return True

    def close(self) -> None:
        """Nothing to release: no file stays open between calls."""

    # Finding the file

    def _new_paths(self, key: Key) -> tuple[str, str]:
        """Where a new session's file goes, and where if another session has that name."""
        folder = self.folder if key.user_id == DEFAULT_USER else f"{self.folder}/users/{file_stem(key.user_id)}"
        return f"{folder}/{file_stem(key.session_id)}.json", f"{folder}/{twin_stem(*key)}.json"

    def _paths(self, key: Key) -> Iterator[str]:
        """Where the session's file may lie, likeliest first: where we put it, then where PraisonAI did."""
        yield from self._new_paths(key)
        ours, reference = file_stem(key.session_id), reference_stem(key.session_id)
        if key.user_id != DEFAULT_USER:
            yield f"{self.folder}/{ours}.json"
        if reference != ours and len(reference) < _LONGEST_REFERENCE_STEM:
            yield f"{self.folder}/{reference}.json"

    def _open(self, key: Key, opener: Callable[[str, Deadline], Locked]) -> SessionFile | None:
        """The session's file, open and locked; None if there is no such session."""
        deadline = Deadline(self.lock_timeout_s)
        prefix = layout.head_prefix(key)
        for number, path in enumerate(self._paths(key)):
            try:
                locked = opener(path, deadline)
            except FileNotFoundError:
                continue
            try:
                file = identify(path, locked, key)
            except NotASessionFile:
                locked.close()
                if number == 0:
                    raise
                continue
            except BaseException:
                locked.close()
                raise
            if file.belongs_to(key, prefix):
                return file
            locked.close()
        return None

    @contextmanager
    def _reading(self, key: Key) -> Iterator[SessionFile | None]:
        with _translated(self.folder):
            file = self._open(key, open_for_reading)
            try:
                yield file
            finally:
                if file is not None:
                    file.locked.close()

    @contextmanager
    def _writing(self, key: Key) -> Iterator[SessionFile]:
        with _translated(self.folder):
            file = self._open(key, open_for_writing)
            if file is None:
                raise SessionNotFound(key.session_id, key.user_id)
            try:
                yield file
            finally:
                file.locked.close()

    # Listing. It takes no locks: a file that is being written to is read as far as it is whole.

    def _files(self, user_id: str | None) -> Iterator[tuple[int, str]]:
        """(time of the last change in ns, path) of every file that may be a session of the user."""
        if user_id is None:
            folders = [f"{self.folder}/users/{name}" for name in _names(f"{self.folder}/users")]
        else:
            folders = [] if user_id == DEFAULT_USER else [f"{self.folder}/users/{file_stem(user_id)}"]
        for folder in folders:
            yield from ((changed_ns, path) for changed_ns, path, _ in _json_files(folder))
        mixed = user_id not in (None, DEFAULT_USER)
        for changed_ns, path, inode in _json_files(self.folder):
            if not mixed or self._owner(path, inode) == user_id:
                yield changed_ns, path

    def _owner(self, path: str, inode: int) -> str | None:
        """Whose file it is. Remembered, because another user's file in the top folder has to be told from 10,000 others."""
        seen = self._owners_seen.get(path)
        if seen is None or seen[0] != inode:
            record = self._listed_record(path)
            seen = self._owners_seen[path] = (inode, record.user_id if record else None)
        return seen[1]

    def _listed_record(self, path: str) -> Record | None:
        try:
            locked = Locked(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except FileNotFoundError:
            return None
        try:
            return record_of(identify(path, locked, None))
        except StorageError as exc:
            warnings.warn(SessionDamage(path, None, 0, str(exc)), stacklevel=4)
            return None
        finally:
            locked.close()

    # Reading

    def _read_damaged(self, key: Key, start: int | None, stop: int | None) -> Slice:
        """Read a file that is not in our layout, or not whole. Where it is not whole, mend it first if we may."""
        with self._reading(key) as file:
            if file is None:
                return Slice(0, [])
            loaded = file.loaded or layout.load(whole(file))
        if loaded.ours or loaded.damage:
            try:
                with self._writing(key) as file:
                    loaded = self._load(file)
                    self._rewrite(file, loaded.record, loaded.first, loaded.messages, touch=False)
            except StorageError as exc:
                warnings.warn(SessionDamage(file.path, None, len(loaded.messages), str(exc)), stacklevel=4)
        first, last = clip(loaded.record, loaded.first, start, stop)
        return Slice(first, loaded.messages[first - loaded.first : last - loaded.first])

    # Writing

    def _create(self, path: str, record: Record) -> bool:
        """Put a new, whole file at `path`. False if something is there already."""
        with _translated(path):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
            try:
                self._write_new(temporary, layout.render(record, 0, []), record.updated_at, 0o600)
                os.link(temporary, path)
            except FileExistsError:
                return False
            finally:
                _unlink_if_there(temporary)
            self._sync_folder(path)
        return True

    def _append_mending(self, file: SessionFile, given: Batch, expected_length: int | None) -> Appended:
        """Append to a file that is not in our layout or not whole, by writing it anew."""
        loaded = self._load(file)
        new = _new_lines(file, given, loaded.record.length, expected_length)
        record = self._rewrite(file, loaded.record, loaded.first, [*loaded.messages, *new])
        return Appended(record.start, record.length, given.ids)

    def _add_lines(self, file: SessionFile, footer: layout.Footer, lines: list[bytes]) -> None:
        """Overwrite the footer with messages and a new footer; on failure put the old one back."""
        now = _now()
        comma = b",\n" if footer.message_count else b"\n"
        new_footer = layout.footer_bytes(footer.message_count + len(lines), now)
        position = file.size - footer.size
        try:
            write_at(file.fd, b"".join((comma, b",\n".join(lines), new_footer)), position)
            if self._sync:
                os.fsync(file.fd)
        except OSError:
            os.ftruncate(file.fd, position)
            write_at(file.fd, layout.footer_bytes(footer.message_count, footer.updated_at), position)
            raise
        set_time(file.fd, now)

    def _load(self, file: SessionFile) -> layout.Loaded:
        """The whole file, in order to rewrite it. What cannot be read is set aside and reported."""
        loaded = file.loaded or layout.load(whole(file))
        if loaded.damage:
            aside = f"{self._aside(file.path)}.{time.time_ns()}"
            os.makedirs(os.path.dirname(aside), mode=0o700, exist_ok=True)
            self._write_new(aside, b"\n".join(loaded.damage), time.time(), 0o600)
            what = f"{sum(map(len, loaded.damage)):,} bytes could not be read"
            warnings.warn(SessionDamage(file.path, aside, len(loaded.messages), what), stacklevel=5)
        return loaded

    def _rewrite(
        self, file: SessionFile, record: Record, first: int, messages: Sequence[Message | bytes], *, touch: bool = True
    ) -> Record:
        """Put a new file in the place of the old one; return its record."""
        updated_at = _now() if touch else record.updated_at
        record = msgspec.structs.replace(record, length=first + len(messages), updated_at=updated_at)
        temporary = f"{file.path}.tmp"
        try:
            self._write_new(temporary, layout.render(record, first, messages), updated_at, mode_of(file.fd))
            os.replace(temporary, file.path)
        except OSError:
            _unlink_if_there(temporary)
            raise
        self._sync_folder(file.path)
        return record

    def _write_new(self, path: str, data: bytes, changed_at: float, mode: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            write_at(fd, data, 0)
            set_time(fd, changed_at)
            if self._sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _sync_folder(self, path: str) -> None:
        """Make a new name survive a loss of power."""
        if self._sync:
            fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _aside(self, path: str) -> str:
        """Where the unreadable parts of a file go. `@` is in no file name of ours, so no two sessions share a name."""
        return f"{self.folder}/damaged/" + path[len(self.folder) + 1 :].removeprefix("users/").replace("/", "@")


def _new_lines(file: SessionFile, given: Batch, length: int, expected_length: int | None) -> list[bytes]:
    """The lines of a batch that the file does not hold yet. Raises `Conflict`, `MessageIdConflict`."""
    new = not_stored(file, given) if given.given else given.lines
    if new and expected_length is not None and expected_length != length:
        raise Conflict("length of the history", expected_length, length)
    return list(new.values())


def _now() -> float:
    """Seconds since 1970, as exact as the file holds them."""
    return round(time.time(), 6)


def _json_files(folder: str) -> Iterator[tuple[int, str, int]]:
    """(time of the last change in ns, path, inode) of the JSON files in a folder that may not exist."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.name.endswith(".json"):
                try:
                    yield entry.stat().st_mtime_ns, entry.path, entry.inode()
                except FileNotFoundError:
                    continue


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _unlink_if_there(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Turn the system's errors into ours, in this one place."""
    try:
        yield
    except StorageError:
        raise
    except IsADirectoryError as exc:
        path = exc.filename or where
        raise NotASessionFile(f"{path} is a folder, not a session file: move it away", path) from exc
    except OSError as exc:
        path = exc.filename or where
        if exc.errno in _NO_ROOM:
            raise StorageFull(
                f"no room left to write {path}: nothing was stored; free some space and repeat", path
            ) from exc
        raise StorageError(f"{path}: {exc.strerror or exc}", path) from exc
