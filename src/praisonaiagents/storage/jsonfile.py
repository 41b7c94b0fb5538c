"""The JSON file engine: one readable file per session, the default.

    {folder}/{session_id}.json                  the default user's sessions
    {folder}/users/{user}/{session_id}.json     everybody else's
    {folder}/damaged/                           what could not be read, set aside

After every call the file is valid JSON (see `jsonlayout`). An append locks it, checks whose it is, overwrites the short
footer with the message and a new footer, and is done: its cost is the same at 10 and at 100,000 messages. Everything else
that changes a file writes a new one and puts it in its place.

What a reader would get wrong: the name of a file is only a hint. The ids in its header decide whose session it is, because
a disk may be blind to case, and because PraisonAI gave different ids one name. Only where no session of those ids could lie
under that name (somebody copied or renamed the file, or the header is damaged) does the name decide.

All logs of a session lie in its own file, and no file refers to another: so a fork copies the messages. Those that only pins
hold stand before the history, where neither an append nor a look at the header meets them.

Readers take no lock, because many of them would keep a writer waiting for ever. One that meets a file in the middle of a
write looks again with a lock.

What survives: with `durability="process"` a crash of this process at any point; with `"full"` (fsync on every call) a loss
of power too. A crash in the middle of a call that adds several messages may leave the first ones; giving the same messages
again, with their ids, completes them. What is not served: Windows (no `flock`), and network disks without working locks.
"""

from __future__ import annotations

import errno
import os
import re
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from praisonaiagents.errors import (
    ConfigError,
    Conflict,
    InvalidId,
    SessionDamage,
    SessionExists,
    SessionNotFound,
    StorageError,
    StorageFull,
)
from praisonaiagents.model.ids import DEFAULT_USER, file_stem, id_of_stem, reference_stem, twin_stem
from praisonaiagents.model.message import MAX_MESSAGE_BYTES, Message, encode
from praisonaiagents.model.record import Key, Pin, Record, check_reachable, check_record, patched
from praisonaiagents.storage import jsonlayout as layout
from praisonaiagents.storage.engine import Appended, Batch, Found, Page, Slice, batch, clip
from praisonaiagents.storage.filelock import (
    Deadline,
    Opened,
    open_for_reading,
    open_for_writing,
    open_lock,
    open_unlocked,
    release,
)
from praisonaiagents.storage.jsonload import Loaded
from praisonaiagents.storage.scan import scan
from praisonaiagents.storage.sessionfile import (
    SessionFile,
    footer_of,
    identify,
    length_of,
    load,
    mode_of,
    not_stored,
    read_slice,
    record_of,
    set_time,
    slice_of,
    write_at,
)

if TYPE_CHECKING:
    from praisonaiagents.model.search import Query
    from praisonaiagents.storage.powers import Finding, Forgotten, Raw

_LONGEST_REFERENCE_STEM = 240  # bytes; the longest name beside it, in `damaged`, has 12 more
_T = TypeVar("_T")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class JsonFileEngine:
    """One JSON file per session, in one folder.

    folder: made when the first session is.
    lock_timeout_s: how long a call waits for another process's lock, in seconds.
    max_message_bytes: the largest message, in bytes of JSON.
    durability: "process" (a crash loses nothing) or "full" (a power loss neither).
    """

    concurrency = 4  # appends to several sessions wait for the disk, and only together for Python

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
        self._owners_seen: dict[str, tuple[tuple[int, int], str | None]] = {}

    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        check_record(record)
        existing = self.get(record.key)
        while existing is None:
            with self._making(record.key):
                existing = self.get(record.key)
                if existing is None and (made := self._create(record)):
                    return made
        if must_be_new:
            raise SessionExists(record.session_id, record.user_id)
        return existing

    def get(self, key: Key) -> Record | None:
        with self._reading(key) as file:
            if file is None:
                return None
            record = record_of(file)
        return record or self._look_again(key, record_of, lambda loaded: loaded.record)

    def list_sessions(self, user_id: str | None, *, after: str | None = None, limit: int = 50) -> Page:
        with _Translated(self.folder):
            files = sorted(self._files(user_id), reverse=True)
            if after is not None:
                after_ns, _, after_path = after.partition(":")
                last = (int(after_ns), f"{self.folder}/{after_path}")
                files = [file for file in files if file < last]
            page: list[Record] = []
            for position, (changed_ns, path) in enumerate(files):
                record = self._listed_record(path)
                if record is None or user_id not in (None, record.user_id) or not self._is_found(path, record.key):
                    continue
                page.append(record)
                if len(page) == limit:
                    more = position + 1 < len(files)
                    return Page(page, f"{changed_ns}:{path[len(self.folder) + 1 :]}" if more else None)
            return Page(page, None)

    def owners(self, session_id: str) -> list[str]:
        paths = [path for path, _ in self._paths(Key(DEFAULT_USER, session_id))]
        for name in _names(f"{self.folder}/users"):
            user_id = id_of_stem(name)
            paths.append(f"{self.folder}/users/{name}/{file_stem(session_id)}.json")
            paths += [self._twin_path(Key(user_id, session_id))] if user_id else []  # else the name holds a hash
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

    def read(self, key: Key, start: int | None = None, stop: int | None = None, *, at: Pin | None = None) -> Slice:
        if at is not None:
            return self._read_at(key, at, start, stop)
        with self._reading(key) as file:
            if file is None:
                return Slice(0, [])
            found = read_slice(file, start, stop)
        if found is None:
            found = self._look_again(
                key, lambda file: read_slice(file, start, stop), lambda all_: slice_of(all_, start, stop)
            )
        return found or Slice(0, [])

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        with self._writing(key) as file:
            loaded = self._load(file)
            if expected_revision is not None and expected_revision != loaded.record.revision:
                raise Conflict("revision of the session", expected_revision, loaded.record.revision)
            patch = _now_in(loaded, patch)
            record = patched(loaded.record, patch, oldest=loaded.first)
            if "head" not in patch:
                return self._rewrite(file, loaded, record, loaded.first, loaded.messages)
            return self._rewrite(file, loaded, _in_new_log(record), record.start, loaded.history(patch["head"]))

    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        lines = list(batch(messages, self._max_message_bytes).lines.values())
        with self._writing(key) as file:
            loaded = self._load(file)
            cleared = patched(loaded.record, {"start": loaded.record.length}, oldest=loaded.first)
            return self._rewrite(file, loaded, _in_new_log(cleared), cleared.start, lines)

    def drop(self, key: Key) -> int:
        with self._writing(key) as file:
            loaded = self._load(file)
            record = loaded.record
            if loaded.first == record.start:
                return 0
            kept = loaded.messages[record.start - loaded.first :]
            self._rewrite(file, loaded, record, record.start, kept, touch=False)
            archived = loaded.history(Pin(record.log, loaded.first, record.start))
            held = loaded.held(record, record.start).get(record.log, {})
            return sum(len(encode(m)) for number, m in enumerate(archived, loaded.first) if number not in held)

    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        """Copies the messages, because a file refers to no other: the cost grows with their number."""
        check_record(record)
        loaded = self._whole(key)
        if loaded is None:
            raise SessionNotFound(key.session_id, key.user_id)
        if record.user_id != key.user_id:
            raise InvalidId("a fork belongs to the user of the session it comes from")
        at = loaded.now(at) if at else loaded.record.head
        check_reachable(loaded.record, at, oldest=loaded.first)
        with self._making(record.key):
            made = None if self.get(record.key) else self._create(record, at.start, loaded.history(at))
        if made is None:
            raise SessionExists(record.session_id, record.user_id)
        return made

    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        """Looks at the newest messages of the newest sessions first; there is no index."""
        return scan(self, user_id, query, limit=limit)

    def describe(self) -> dict[str, str]:
        return {
            "engine": f"JSON files, format {layout.FORMAT}",
            "place": self.folder,
            "schema": f"one file a session, format 1, or {layout.FORMAT} where it has pins",
            "durability": "what a call stored survives a crash of the process"
            + (
                " and a loss of power" if self._sync else "; a loss of power may cost what the disk had not written yet"
            ),
        }

    def delete(self, key: Key) -> bool:
        deleted = False
        with suppress(SessionNotFound):
            while True:  # a file of PraisonAI's may lie behind ours
                with self._writing(key) as file:
                    for path in self._leftovers(file.path):
                        _unlink_if_there(path)
                    os.unlink(file.path)
                    _unlink_if_there(f"{file.path}.lock")
                deleted = True
        return deleted

    def forget(self, user_id: str, session_ids: Collection[str]) -> Forgotten:
        """See `powers.Forgets`."""
        from praisonaiagents.storage.jsoncare import forget

        with _Translated(self.folder):
            return forget(self, user_id, session_ids)

    def raw(self) -> Iterator[Raw]:
        from praisonaiagents.storage.jsoncare import raw

        return raw(self)

    def audit(self, user_id: str | None, session_id: str | None) -> Iterator[Finding]:
        from praisonaiagents.storage.jsoncare import audit

        return audit(self, user_id, session_id)

    def close(self) -> None:
        """Nothing to release: no file stays open between calls."""

    # Finding the file

    def _path(self, key: Key) -> str:
        """Where a new session's file goes."""
        return f"{self._folder_of(key.user_id)}/{file_stem(key.session_id)}.json"

    def _twin_path(self, key: Key) -> str:
        """Where it goes if another session has that name."""
        return f"{self._folder_of(key.user_id)}/{twin_stem(*key)}.json"

    def _folder_of(self, user_id: str) -> str:
        return self.folder if user_id == DEFAULT_USER else f"{self.folder}/users/{file_stem(user_id)}"

    def _paths(self, key: Key) -> Iterator[tuple[str, Key | None]]:
        """Where the session's file may lie, likeliest first: where we put it, then where PraisonAI did.

        With each path the session that it names, if it is no other than this one.
        """
        yield self._path(key), key
        yield self._twin_path(key), key
        ours, reference = file_stem(key.session_id), reference_stem(key.session_id)
        if key.user_id != DEFAULT_USER:
            yield f"{self.folder}/{ours}.json", None
        if reference != ours and len(reference.encode()) <= _LONGEST_REFERENCE_STEM:
            yield f"{self.folder}/{reference}.json", None

    def _named(self, path: str) -> Key | None:
        """The session that a path names; None for a name that holds a hash, or that we never give."""
        folder, _, stem = path[len(self.folder) + 1 : -len(".json")].rpartition("/")
        user_id = id_of_stem(folder.removeprefix("users/")) if folder else DEFAULT_USER
        session_id = id_of_stem(stem)
        named = Key(user_id, session_id) if user_id and session_id else None
        return named if named and self._path(named) == path else None

    def _fits(self, path: str, key: Key) -> bool:
        """True if this session's file may have this name."""
        return any(_is_same(path, other) for other, _ in self._paths(key))

    def _open(self, key: Key, opener: Callable[[str, Deadline], Opened]) -> SessionFile | None:
        """The session's file, opened; None if there is no such session."""
        deadline = Deadline(self.lock_timeout_s)
        for path, named in self._paths(key):
            if named is None and not self._holds(path, key):
                continue
            try:
                opened = opener(path, deadline)
            except FileNotFoundError:
                continue
            try:
                file = identify(path, opened, named, self._fits)
            except BaseException:
                opened.close()
                raise
            if file.key == key:
                return file
            opened.close()
        return None

    @contextmanager
    def _reading(
        self, key: Key, opener: Callable[[str, Deadline], Opened] = open_unlocked
    ) -> Iterator[SessionFile | None]:
        with _Translated(self.folder):
            file = self._open(key, opener)
            try:
                yield file
            finally:
                if file is not None:
                    file.opened.close()

    def _writing(self, key: Key) -> _Writing:
        return _Writing(self, key)

    # Listing. It takes no locks: a file that is being written to is read as far as it is whole.

    def _files(self, user_id: str | None) -> Iterator[tuple[int, str]]:
        """(time of the last change in ns, path) of every file that may be a session of the user."""
        if user_id is None:
            folders = [f"{self.folder}/users/{name}" for name in _names(f"{self.folder}/users")]
        else:
            folders = [] if user_id == DEFAULT_USER else [self._folder_of(user_id)]
        for folder in folders:
            yield from ((changed_ns, path) for changed_ns, path, _ in _json_files(folder))
        mixed = user_id not in (None, DEFAULT_USER)
        for changed_ns, path, inode in _json_files(self.folder):
            if not mixed or self._owner(path, (inode, changed_ns)) == user_id:
                yield changed_ns, path

    def _owner(self, path: str, state: tuple[int, int]) -> str | None:
        """Whose file it is. Remembered, because another user's file in the top folder has to be told from 10,000 others."""
        seen = self._owners_seen.get(path)
        if seen is None or seen[0] != state:
            record = self._listed_record(path)
            seen = self._owners_seen[path] = (state, record.user_id if record else None)
        return seen[1]

    def _is_found(self, path: str, key: Key) -> bool:
        """True if this is the file in which a call would find the session: not a copy of PraisonAI's that lies behind it."""
        for other, _ in self._paths(key):
            if _is_same(path, other):
                return True
            if self._holds(other, key):
                return False
        return False

    def _holds(self, path: str, key: Key) -> bool:
        try:
            return self._record_at(path).key == key
        except OSError:
            return False

    def _listed_record(self, path: str) -> Record | None:
        try:
            return self._record_at(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            warnings.warn(SessionDamage(path, None, 0, str(exc)), stacklevel=4)
            return None

    def _record_at(self, path: str) -> Record:
        opened = open_unlocked(path)
        try:
            file = identify(path, opened, self._named(path), self._fits)
            return record_of(file) or load(file).record
        finally:
            opened.close()

    # Reading

    def _read_at(self, key: Key, at: Pin, start: int | None, stop: int | None) -> Slice:
        loaded = self._whole(key)
        if loaded is None:
            return Slice(0, [])
        at = loaded.now(at)
        check_reachable(loaded.record, at, oldest=loaded.first)
        first, last = clip(at, at.start, start, stop)
        return Slice(first, loaded.history(Pin(at.log, first, last)))

    def _whole(self, key: Key) -> Loaded | None:
        """The whole file; None if there is none."""
        with self._reading(key, open_for_reading) as file:
            loaded = load(file) if file else None
        return self._mended(key, loaded) if loaded and loaded.damage else loaded

    def _look_again(
        self, key: Key, look: Callable[[SessionFile], _T | None], look_at: Callable[[Loaded], _T]
    ) -> _T | None:
        """Look at a file that was not whole a moment ago. Where it still is not, mend it if we may."""
        with self._reading(key, open_for_reading) as file:
            if file is None:
                return None
            found = look(file)
            if found is not None:
                return found
            loaded = load(file)
        return look_at(self._mended(key, loaded))

    def _mended(self, key: Key, loaded: Loaded) -> Loaded:
        """Write a file anew that is not whole; return what is in it."""
        path, aside, what = self._path(key), None, ""
        try:
            with self._writing(key) as file:
                loaded = load(file)
                path, aside = file.path, self._set_aside(file, loaded.damage)
                self._rewrite(file, loaded, loaded.record, loaded.first, loaded.messages, touch=False)
        except SessionNotFound:
            return loaded
        except StorageError as exc:
            what = f", and the file could not be written anew ({exc})"
        if loaded.damage:
            self._report(path, aside, loaded, what)
        return loaded

    def _report(self, path: str, aside: str | None, loaded: Loaded, what: str = "") -> None:
        what = f"{sum(map(len, loaded.damage)):,} bytes could not be read{what}"
        warnings.warn(SessionDamage(path, aside, len(loaded.messages), what), stacklevel=5)

    # Writing

    @contextmanager
    def _making(self, key: Key) -> Iterator[None]:
        """Keep everybody else from making this session, or another one whose file would have its name."""
        path = self._path(key)
        with _Translated(path):
            _make_folder(os.path.dirname(path))
            lock_fd = open_lock(path, Deadline(self.lock_timeout_s))
            try:
                yield
            finally:
                release(lock_fd)

    def _create(self, record: Record, start: int = 0, messages: Sequence[Message] = ()) -> Record | None:
        """Put a new, whole file where there is none. None if somebody without our lock did so at the same time."""
        now = _now()
        new = msgspec.structs.replace(
            record,
            created_at=round(record.created_at, 6) or now,
            revision=0,
            start=start,
            length=start + len(messages),
            updated_at=now,
            log=layout.first_log(now),
            pins={},
        )
        path = self._path(record.key)
        if os.path.lexists(path):
            if self._holds(path, record.key):
                return None
            path = self._twin_path(record.key)
        temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
        try:
            self._write_new(temporary, layout.render(new, start, messages, {}), now)
            os.link(temporary, path)
        except FileExistsError:
            return None
        finally:
            _unlink_if_there(temporary)
        self._sync_folder(path)
        return new

    def _append_mending(self, file: SessionFile, given: Batch, expected_length: int | None) -> Appended:
        """Append to a file that is not in our layout or not whole, by writing it anew."""
        loaded = self._load(file)
        new = _new_lines(file, given, loaded.record.length, expected_length, loaded)
        record = self._rewrite(file, loaded, loaded.record, loaded.first, [*loaded.messages, *new])
        return Appended(record.start, record.length, given.ids)

    def _add_lines(self, file: SessionFile, footer: layout.Footer, lines: list[bytes]) -> None:
        """Overwrite the footer with messages and a new footer; on failure put the old one back."""
        now = _now()
        comma = b",\n" if footer.follows_message else b"\n"
        new_footer = layout.footer_bytes(footer.message_count + len(lines), now)
        position = file.size - len(footer.raw)
        try:
            write_at(file.fd, b"".join((comma, b",\n".join(lines), new_footer)), position)
            if self._sync:
                os.fsync(file.fd)
        except BaseException:
            write_at(file.fd, footer.raw, position)  # needs no room: these bytes were there
            os.ftruncate(file.fd, file.size)
            raise
        set_time(file.fd, now)

    def _load(self, file: SessionFile) -> Loaded:
        """The whole file, in order to rewrite it. What cannot be read is set aside and reported."""
        loaded = load(file)
        if loaded.damage:
            self._report(file.path, self._set_aside(file, loaded.damage), loaded)
        return loaded

    def _set_aside(self, file: SessionFile, damage: list[bytes]) -> str | None:
        """Keep what could not be read. The same bytes get the same name, so that trying again does not fill the disk."""
        if not damage:
            return None
        import hashlib  # loads OpenSSL, which most programs never need

        data = b"\n".join(damage)
        path = f"{self._aside(file.path)}.{hashlib.sha256(data).hexdigest()[:12]}"
        _make_folder(os.path.dirname(path))
        self._write_new(path, data, time.time())
        return path

    def _rewrite(
        self,
        file: SessionFile,
        loaded: Loaded,
        record: Record,
        first: int,
        messages: Sequence[Message | bytes],
        *,
        touch: bool = True,
    ) -> Record:
        """Put a new file in the place of the one that was `loaded`; return its record."""
        updated_at = _now() if touch else record.updated_at
        record = msgspec.structs.replace(record, length=first + len(messages), updated_at=updated_at)
        data = layout.render(record, first, messages, loaded.held(record, first))
        temporary = f"{file.path}.tmp"
        self._write_new(temporary, data, updated_at, mode_of(file.fd))
        os.replace(temporary, file.path)
        self._sync_folder(file.path)
        return record

    def _write_new(self, path: str, data: bytes, changed_at: float, mode: int = 0o600) -> None:
        """Write a file that nobody knows yet, over what a crash may have left there."""
        _unlink_if_there(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, mode)
            write_at(fd, data, 0)
            set_time(fd, changed_at)
            if self._sync:
                os.fsync(fd)
        except BaseException:
            _unlink_if_there(path)
            raise
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
        """Where the unreadable parts of a file go, without the ending that tells them apart."""
        return f"{self.folder}/damaged/{path[len(self.folder) + 1 : -len('.json')]}"

    def _leftovers(self, path: str) -> Iterator[str]:
        """What crashes and damage left beside a session's file."""
        for kept, ending in ((path, r"\.(?:\d+-[0-9a-f]{8}\.)?tmp"), (self._aside(path), r"\.[0-9a-f]{12}")):
            folder, name = os.path.split(kept)
            pattern = re.compile(re.escape(name) + ending)
            yield from (f"{folder}/{found}" for found in _names(folder) if pattern.fullmatch(found))


def open_url(url: str, **options: Any) -> JsonFileEngine:
    """The engine for `file:///folder`, or for a plain path.

    A URL may say `?durability=full&lock_timeout=10&max_message_bytes=1000000`. Raises `ConfigError`.
    """
    if "://" not in url:
        return JsonFileEngine(url, **options)
    from praisonaiagents.storage.localurl import path_and_settings  # modules that the default store does not need

    folder, settings = path_and_settings(url, _SETTINGS, hosts=("", "localhost"))
    if not folder:
        raise ConfigError("a file URL names a folder: file:///var/lib/sessions")
    return JsonFileEngine(folder, **(settings | options))


_SETTINGS: dict[str, tuple[str, type]] = {
    "durability": ("durability", str),
    "lock_timeout": ("lock_timeout_s", float),
    "max_message_bytes": ("max_message_bytes", int),
}


def _new_lines(
    file: SessionFile, given: Batch, length: int, expected_length: int | None, loaded: Loaded | None = None
) -> list[bytes]:
    """The lines of a batch that the file does not hold yet. Raises `Conflict`, `MessageIdConflict`."""
    new = not_stored(file, given, loaded) if given.given else list(given.lines.values())
    if new and expected_length is not None and expected_length != length:
        raise Conflict("length of the history", expected_length, length)
    return new


def _now_in(loaded: Loaded, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The patch, with pins as they are now. The caller has them from a header that knew of no damage."""
    now = dict(patch)
    if type(now.get("head")) is Pin:
        now["head"] = loaded.now(now["head"])
    if type(now.get("pins")) is dict:
        now["pins"] = {name: loaded.now(pin) if type(pin) is Pin else pin for name, pin in now["pins"].items()}
    return now


def _in_new_log(record: Record) -> Record:
    return msgspec.structs.replace(record, log=os.urandom(6).hex())


def _now() -> float:
    """Seconds since 1970, as exact as the file holds them."""
    return time.time_ns() // 1000 / 1e6


def _json_files(folder: str) -> Iterator[tuple[int, str, int]]:
    """(time of the last change in ns, path, inode) of the JSON files in a folder, if it is one."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.name.endswith(".json"):
                try:  # not `suppress`, whose cost adds up over ten thousand files
                    yield entry.stat(follow_symlinks=False).st_mtime_ns, entry.path, entry.inode()
                except FileNotFoundError:
                    continue


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_same(path: str, other: str) -> bool:
    """True if two paths are one file, on a disk that is blind to case too."""
    if path == other:
        return True
    with suppress(FileNotFoundError):
        return path.casefold() == other.casefold() and os.path.samefile(path, other)
    return False


def _make_folder(path: str) -> None:
    """Make a folder and those above it, for this user alone, unless they are there."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_folder(os.path.dirname(path))
        _make_folder(path)


def _unlink_if_there(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


class _Writing:
    """A session's file, open and locked for writing. A class and not a generator, because every append pays for it."""

    def __init__(self, engine: JsonFileEngine, key: Key) -> None:
        self._engine = engine
        self._key = key
        self._file: SessionFile | None = None

    def __enter__(self) -> SessionFile:
        with _Translated(self._engine.folder):
            self._file = self._engine._open(self._key, open_for_writing)
        if self._file is None:
            raise SessionNotFound(self._key.session_id, self._key.user_id)
        return self._file

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if self._file is not None:
            self._file.opened.close()
            _Translated(self._file.path).__exit__(kind, exc, trace)


class _Translated:
    """Turn the system's errors into ours, in this one place. `where` is what an error without a path is about."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        if not isinstance(exc, OSError) or isinstance(exc, StorageError):
            return
        path = exc.filename or self.where
        if exc.errno in _NO_ROOM:
            raise StorageFull(
                f"no room left to write {path}: nothing was stored; free some space and repeat", path
            ) from exc
        raise StorageError(f"{path}: {exc.strerror or exc}", path) from exc
