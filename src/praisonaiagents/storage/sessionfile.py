"""One open session file: whose it is, what its record says, which messages it holds. Everything here only reads, but for
`write_at` and `set_time` at the end.

What a reader would get wrong: nothing here may assume that the file is in our layout or whole. A function that finds it is
not says None, and the engine then reads the file as `jsonload.load` does: slowly, and forgiving.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec

from praisonaiagents.errors import MessageIdConflict, NewerFormat, NotASessionFile
from praisonaiagents.model.message import decode, decode_or_none, encode
from praisonaiagents.model.record import Key, Record
from praisonaiagents.storage import jsonlayout as layout
from praisonaiagents.storage import jsonload
from praisonaiagents.storage.engine import Batch, Slice, clip, same
from praisonaiagents.storage.filelock import Opened

_HEAD_ROOM = 8192
_TAIL_BLOCK = 8 * 1024
_FEW = 16  # ids that are quicker found one by one


class SessionFile(NamedTuple):
    """A session's file, open. `key` says whose it is."""

    path: str
    opened: Opened
    key: Key
    head: layout.Head | None
    """None for a file that is not in our layout; `loaded` holds it then."""
    loaded: jsonload.Loaded | None = None

    @property
    def fd(self) -> int:
        return self.opened.fd

    @property
    def size(self) -> int:
        return self.opened.status.st_size


def identify(path: str, opened: Opened, named: Key | None, fits: Callable[[str, Key], bool]) -> SessionFile:
    """Find out whose file it is: the session in its header, if that `fits` the path, else the one that the path names.

    Raises `NotASessionFile`, `NewerFormat`.
    """
    if not stat.S_ISREG(opened.status.st_mode):
        raise NotASessionFile(f"{path} is not a plain file: move it away", path)
    try:
        head = layout.find_head(os.pread(opened.fd, _HEAD_ROOM, 0))
        if head is not None and named is not None and head.prefix == layout.head_prefix(named):
            return SessionFile(path, opened, named, head)
        key = head.key() if head is not None else None
        loaded = None if key is not None else _load_foreign(opened, named)
    except layout.TooNew as exc:
        raise NewerFormat(f"{path} has {exc}", path) from exc
    except jsonload.Unreadable as exc:
        raise NotASessionFile(f"{path}: {exc}; it was left alone, move it away to use this session id", path) from exc
    key = loaded.record.key if loaded else key
    if key is None or (key != named and not fits(path, key)):
        key = named
    if key is None:
        raise NotASessionFile(f"{path} holds a session whose file has another name: rename it", path)
    return SessionFile(path, opened, key, None if loaded else head, loaded and _given(loaded, key))


def _load_foreign(opened: Opened, named: Key | None) -> jsonload.Loaded:
    data = _bytes_of(opened)
    if named is not None and layout.head_prefix(named).startswith(data.rstrip(b"\0 \t\r\n")):
        # nothing of it reached the disk before the power was lost
        empty = Record(*named, log=layout.first_log(0))
        return jsonload.Loaded(empty, 0, [], {}, [data], broken=True, moved={})
    return jsonload.load(data, named)


def load(file: SessionFile) -> jsonload.Loaded:
    """The whole file, as far as it can be read."""
    return file.loaded or _given(jsonload.load(_bytes_of(file.opened), file.key), file.key)


def _given(loaded: jsonload.Loaded, key: Key) -> jsonload.Loaded:
    record = msgspec.structs.replace(loaded.record, user_id=key.user_id, session_id=key.session_id)
    return loaded._replace(record=record)


def record_of(file: SessionFile) -> Record | None:
    """The record of a file, reading no message where the file allows that. None if the file is not whole."""
    if file.loaded is not None:
        return None if file.loaded.broken else file.loaded.record
    footer = footer_of(file)
    record = _header_record(file, file.head) if footer and file.head else None
    if footer is None or record is None:
        return None
    return msgspec.structs.replace(record, length=length_of(file, footer), updated_at=footer.updated_at)


def _header_record(file: SessionFile, head: layout.Head) -> Record | None:
    room = _HEAD_ROOM
    while True:
        record = layout.header_record(file.key, head, os.pread(file.fd, room, 0))
        if record is not None or room >= file.size:
            return record
        room *= 4


def footer_of(file: SessionFile) -> layout.Footer | None:
    if file.head is None:
        return None
    room = min(layout.FOOTER_ROOM, file.size)
    return layout.find_footer(os.pread(file.fd, room, file.size - room))


def length_of(file: SessionFile, footer: layout.Footer) -> int:
    """The number of the next message."""
    return (file.head.start if file.head else 0) + footer.message_count


def read_slice(file: SessionFile, start: int | None, stop: int | None) -> Slice | None:
    """The messages asked for, read from the end. None if the file is not whole, or would be had somebody not edited it."""
    if file.loaded is not None:
        return None if file.loaded.broken else slice_of(file.loaded, start, stop)
    footer = footer_of(file)
    if file.head is None or footer is None:
        return None
    length = length_of(file, footer)
    first, last = clip(Record("", "", start=file.head.start, length=length), file.head.first, start, stop)
    if first < file.head.start:
        loaded = load(file)
        return None if loaded.damage else slice_of(loaded, first, last)
    lines = _last_lines(file, file.size - len(footer.raw), length - first)
    if len(lines) != length - first or (first == file.head.start and not _starts_there(file, lines, footer)):
        return None
    try:
        return Slice(first, [decode(line) for line in lines[: last - first]])
    except (ValueError, RecursionError):
        return None


def slice_of(loaded: jsonload.Loaded, start: int | None, stop: int | None) -> Slice:
    """The messages asked for, of a file that has been read."""
    first, last = clip(loaded.record, loaded.first, start, stop)
    return Slice(first, loaded.messages[first - loaded.first : last - loaded.first])


def _last_lines(file: SessionFile, end: int, count: int) -> list[bytes]:
    """The last `count` lines before `end`, without commas; fewer if there are not so many."""
    block = b""
    position, step = end, _TAIL_BLOCK
    while position > 0 and block.count(b"\n") < count:
        step = min(step * 2, position)
        position -= step
        block = os.pread(file.fd, step, position) + block
    return [line.removesuffix(b",") for line in block.split(b"\n")[-count:]] if count else []


def _starts_there(file: SessionFile, lines: list[bytes], footer: layout.Footer) -> bool:
    """True if no message line lies before `lines`: somebody may have added one by hand."""
    size = sum(map(len, lines)) + 2 * len(lines) - (1 if lines else 0)
    position = file.size - len(footer.raw) - size
    return os.pread(file.fd, len(layout.MESSAGES), position - len(layout.MESSAGES)) == layout.MESSAGES


def not_stored(file: SessionFile, given: Batch, loaded: jsonload.Loaded | None = None) -> list[bytes]:
    """The lines of a batch that the history in the file does not hold. Raises `MessageIdConflict`.

    A file that is not whole has been `loaded`.
    """
    if loaded is None:
        data = _bytes_of(file.opened)
        start = layout.find_history(data, file.head) if file.head else 0
        stored = _stored_lines(data, given.given, start)
    else:
        stored = {message.id: encode(message) for message in loaded.messages}
    return [line for message_id, line in given.lines.items() if not _is_stored(message_id, line, stored)]


def _is_stored(message_id: str, line: bytes, stored: Mapping[str, bytes | None]) -> bool:
    found = stored.get(message_id)
    if found is not None and not same(found, line):
        raise MessageIdConflict(message_id)
    return found is not None


def _stored_lines(data: bytes, ids: Collection[str], start: int) -> Mapping[str, bytes | None]:
    """The lines of messages that stand somewhere after `start`. Many ids are found in one go."""
    if len(ids) <= _FEW:
        return {message_id: _stored_line(data, message_id, start) for message_id in ids}
    found: dict[str, bytes | None] = {}
    while (end := data.find(b"\n", start)) >= 0:
        line = data[start:end].removesuffix(b",")
        message = decode_or_none(line) if line.startswith(b'{"') else None
        if message and message.id in ids:
            found.setdefault(message.id, line)
        start = end + 1
    return found


def _stored_line(data: bytes, message_id: str, start: int) -> bytes | None:
    """The line of a message, if it stands somewhere after `start`."""
    needle = msgspec.json.encode(message_id)
    position = data.find(needle, start)
    while position >= 0:
        end = data.find(b"\n", position) % (len(data) + 1)
        line = data[data.rfind(b"\n", 0, position) + 1 : end].removesuffix(b",")
        with suppress(ValueError, RecursionError):
            if decode(line).id == message_id:
                return line
        position = data.find(needle, position + 1)
    return None


def _bytes_of(opened: Opened) -> bytes:
    """All bytes of a file as it is now."""
    pieces: list[bytes] = []
    position = 0
    while piece := os.pread(opened.fd, max(opened.status.st_size, _HEAD_ROOM), position):
        pieces.append(piece)
        position += len(piece)
    return b"".join(pieces)


def write_at(fd: int, data: bytes, position: int) -> None:
    written = os.pwrite(fd, data, position)
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], position + written)


def set_time(fd: int, seconds: float) -> None:
    """The file's time is the session's `updated_at`; the kernel's own would be off by milliseconds."""
    nanoseconds = int(seconds * 1e9)
    try:
        os.utime(fd, ns=(nanoseconds, nanoseconds))
    except (OSError, OverflowError):
        return  # a file that another user lends us has the kernel's time


def mode_of(fd: int) -> int:
    return os.fstat(fd).st_mode & 0o777
