"""One open session file: whose it is, what its record says, which messages it holds. Everything here only reads, but for
`write_at` and `set_time` at the end.

What a reader would get wrong: nothing here may assume that the file is in our layout or whole. A function that finds it is
not says None, and the engine then reads the file as `jsonlayout.load` does: slowly, and forgiving.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

import msgspec

from praisonaiagents.errors import MessageIdConflict, NewerFormat, NotASessionFile
from praisonaiagents.model.message import Message, decode
from praisonaiagents.model.record import Key, Record
from praisonaiagents.storage import jsonlayout as layout
from praisonaiagents.storage.engine import Batch, Slice, clip
from praisonaiagents.storage.filelock import Locked

_HEAD_ROOM = 8192
_TAIL_BLOCK = 8 * 1024


class SessionFile(NamedTuple):
    """A session's file, open and locked."""

    path: str
    locked: Locked
    size: int
    head: layout.Head | None
    """None for a file that is not in our layout; `loaded` holds it then."""
    loaded: layout.Loaded | None

    @property
    def fd(self) -> int:
        return self.locked.fd

    def belongs_to(self, key: Key, prefix: bytes) -> bool:
        """True if its header names this session. `prefix` is how such a header starts when we wrote it."""
        if self.head is not None:
            return self.head.prefix == prefix or self.head.key() == key
        return self.loaded is not None and self.loaded.record.key == key


def identify(path: str, locked: Locked, key: Key | None) -> SessionFile:
    """Read whose file it is. `key` is who asks: an empty file where their session should be is their empty session.

    Raises `NotASessionFile`, `NewerFormat`.
    """
    status = os.fstat(locked.fd)
    if not stat.S_ISREG(status.st_mode):
        raise NotASessionFile(f"{path} is not a file: move it away", path)
    start = os.pread(locked.fd, _HEAD_ROOM, 0)
    head = layout.find_head(start)
    if head is not None:
        if head.format > layout.FORMAT:
            raise NewerFormat(
                f"{path} has format {head.format}, this version reads up to {layout.FORMAT}: upgrade", path
            )
        return SessionFile(path, locked, status.st_size, head, None)
    file = SessionFile(path, locked, status.st_size, None, None)
    data = whole(file)
    if key is not None and not data.strip(b"\0 \t\r\n"):
        nothing = layout.Loaded(Record(*key), 0, [], [data], ours=True)
        return file._replace(loaded=nothing)
    try:
        return file._replace(loaded=layout.load(data))
    except layout.Unreadable as exc:
        raise NotASessionFile(f"{path}: {exc}; it was left alone, move it away to use this session id", path) from exc


def record_of(file: SessionFile) -> Record:
    """The record of a file, reading no message where the file allows that."""
    if file.loaded is not None:
        return file.loaded.record
    footer = footer_of(file)
    record = _header_record(file)
    if footer is None or record is None:
        return layout.load(whole(file)).record
    return msgspec.structs.replace(record, length=length_of(file, footer), updated_at=footer.updated_at)


def _header_record(file: SessionFile) -> Record | None:
    room = _HEAD_ROOM
    while True:
        record = layout.header_record(os.pread(file.fd, room, 0))
        if record is not None or room >= file.size:
            return record
        room *= 4


def footer_of(file: SessionFile) -> layout.Footer | None:
    if file.head is None:
        return None
    return layout.find_footer(os.pread(file.fd, layout.FOOTER_ROOM, max(0, file.size - layout.FOOTER_ROOM)))


def length_of(file: SessionFile, footer: layout.Footer) -> int:
    """The number of the next message."""
    return (file.head.start if file.head else 0) + footer.message_count


def read_slice(file: SessionFile, start: int | None, stop: int | None) -> Slice | None:
    """The messages asked for, read from the end; None if the file is not in our layout or something cannot be read."""
    footer = footer_of(file)
    if file.head is None or footer is None:
        return None
    length = length_of(file, footer)
    first, last = clip(Record("", "", start=file.head.start, length=length), file.head.first, start, stop)
    if first < file.head.start:
        loaded = layout.load(whole(file))
        return None if loaded.damage else Slice(first, loaded.messages[first - loaded.first : last - loaded.first])
    lines = _last_lines(file, file.size - footer.size, length - first)
    if len(lines) != length - first or (first == file.head.start and not _starts_there(file, lines, footer)):
        return None
    try:
        return Slice(first, [decode(line) for line in lines[: last - first]])
    except (ValueError, RecursionError):
        return None


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
    position = file.size - footer.size - size
    return os.pread(file.fd, len(layout.MESSAGES), position - len(layout.MESSAGES)) == layout.MESSAGES


def not_stored(file: SessionFile, given: Batch) -> dict[str, bytes]:
    """The lines of a batch that are not in the file. Raises `MessageIdConflict`."""
    data = whole(file)
    new = dict(given.lines)
    for message_id in given.given:
        stored = _stored_message(data, message_id)
        if stored is None:
            continue
        if stored != decode(given.lines[message_id]):
            raise MessageIdConflict(message_id)
        del new[message_id]
    return new


def _stored_message(data: bytes, message_id: str) -> Message | None:
    needle = msgspec.json.encode(message_id)
    position = data.find(needle)
    while position >= 0:
        line = data[data.rfind(b"\n", 0, position) + 1 : data.find(b"\n", position)].rstrip(b",")
        try:
            message = decode(line)
        except ValueError:
            message = None
        if message is not None and message.id == message_id:
            return message
        position = data.find(needle, position + 1)
    return None


def whole(file: SessionFile) -> bytes:
    """All bytes of the file as it is now."""
    pieces: list[bytes] = []
    position = 0
    while piece := os.pread(file.fd, max(file.size, _HEAD_ROOM), position):
        pieces.append(piece)
        position += len(piece)
    return b"".join(pieces)


def write_at(fd: int, data: bytes, position: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, position)
        rest, position = rest[written:], position + written


def set_time(fd: int, seconds: float) -> None:
    """The file's time is the session's `updated_at`; the kernel's own would be off by milliseconds."""
    nanoseconds = int(seconds * 1e9)
    os.utime(fd, ns=(nanoseconds, nanoseconds))


def mode_of(fd: int) -> int:
    return os.fstat(fd).st_mode & 0o777
