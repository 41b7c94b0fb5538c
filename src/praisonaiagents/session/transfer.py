"""Sessions as files: exported, and imported again.

    for piece in to_jsonl(engine, key): file.write(piece)
    import_file("session.json", engine)

Two forms hold everything, and what is imported and exported again is the same to the byte: JSONL, a header and then a message
a line, is written and read as a stream; JSON is one object that people can read, with `messages` as they expect it. Besides
these, `import_file` reads session files of ours and of PraisonAI's, damaged ones too, and what PraisonAI exports.

What a reader would get wrong: an imported session never takes the place of another one, but of one that a killed import left
unfinished and that nobody went on with; and where the import fails nothing is left of it. The time of its last change is the
place's own, and is not carried along.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from io import BytesIO
from itertools import chain, islice, starmap
from typing import Any, BinaryIO

import msgspec

from praisonaiagents.errors import (
    ConfigTypeError,
    Conflict,
    NewerFormat,
    NotASessionFile,
    PraisonError,
    SessionDamage,
    SessionExists,
    SessionNotFound,
)
from praisonaiagents.model.ids import DEFAULT_USER, check_session_id, check_user_id, file_stem, id_of_stem
from praisonaiagents.model.message import Message, decode, encode
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session import render
from praisonaiagents.session.parts import (
    FORMAT,
    UNFINISHED,
    Header,
    PartHead,
    Shared,
    digest,
    discard,
    messages,
    outline,
    put_together,
    visible,
)
from praisonaiagents.storage import jsonload
from praisonaiagents.storage.engine import Engine
from praisonaiagents.storage.jsonfile import JsonFileEngine
from praisonaiagents.storage.jsonlayout import TooNew

_LINEAGE = ("parent_id", "children_ids", "forked_from_message_id")
_BOM = b"\xef\xbb\xbf"
_SAYS_SO = re.compile(rb'"format"\s*:\s*"%b"' % FORMAT.encode())


class _Kind(msgspec.Struct, frozen=True):
    """What tells an export from any other JSON object."""

    format: Any = None


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """In a JSON export, a part that only pins hold."""

    begins: Shared | None = None
    messages: list[msgspec.Raw] = []


class _Lists(msgspec.Struct, frozen=True, omit_defaults=True):
    """The messages of a JSON export."""

    archived_messages: list[msgspec.Raw] = []
    messages: list[msgspec.Raw] = []
    kept: list[_Kept] = []


# Exporting


def to_jsonl(engine: Engine, key: Key) -> Iterator[bytes]:
    """A session as lines: a header, then the messages. Raises `SessionNotFound`, and `Conflict` if it changed meanwhile."""
    found = outline(engine, key)
    yield msgspec.json.encode(found.header) + b"\n"
    for message in messages(engine, found):
        yield encode(message) + b"\n"


def to_json(engine: Engine, key: Key) -> Iterator[bytes]:
    """A session as one JSON object, piece by piece. Raises as `to_jsonl` does."""
    found = outline(engine, key)
    header, lines = found.header, map(encode, messages(engine, found))
    head = {name: value for name, value in msgspec.to_builtins(header).items() if name not in ("start", "parts")}
    yield b"{\n" + b"".join(b"%b: %b,\n" % tuple(map(msgspec.json.encode, pair)) for pair in head.items())
    history, *kept = header.parts
    if header.start:
        yield b'"archived_messages": ['
        yield from _listed(islice(lines, header.start))
        yield b"],\n"
    yield b'"messages": ['
    yield from _listed(islice(lines, history.messages - header.start))
    yield b"]"
    for number, part in enumerate(kept):
        begins = b'"begins": %b, ' % msgspec.json.encode(part.begins) if part.begins else b""
        yield b',\n"kept": [\n{' * (number == 0) + b",\n{" * (number > 0) + begins + b'"messages": ['
        yield from _listed(islice(lines, part.messages))
        yield b"]}"
    yield b"\n]" * bool(kept) + b"\n}\n"


def to_dict(engine: Engine, key: Key) -> dict[str, Any]:
    """The object that `to_json` writes. Raises as it does."""
    values: dict[str, Any] = msgspec.json.decode(b"".join(to_json(engine, key)))
    return values


def to_markdown(engine: Engine, key: Key) -> Iterator[str]:
    """What a session shows, for people. Raises `SessionNotFound`."""
    return render.to_markdown(record := _existing(engine, key), visible(engine, record))


def to_html(engine: Engine, key: Key) -> Iterator[str]:
    """What a session shows, as one file for a browser. Raises `SessionNotFound`."""
    return render.to_html(record := _existing(engine, key), visible(engine, record))


def _existing(engine: Engine, key: Key) -> Record:
    record = engine.get(key)
    if record is None:
        raise SessionNotFound(key.session_id, key.user_id)
    return record


def _listed(lines: Iterable[bytes]) -> Iterator[bytes]:
    between = b"\n"
    for line in lines:
        yield between + line
        between = b",\n"
    yield b"\n" * (between != b"\n")


# Importing

Renamed = Callable[[Header], Header]


def renaming(session_id: str | None = None, user_id: str | None = None, *, lineage: bool = True) -> Renamed:
    """A function that gives a session other ids (None: its own); without `lineage` it comes from nowhere."""
    ids: dict[str, Any] = {} if session_id is None else {"session_id": check_session_id(session_id)}
    ids |= {} if user_id is None else {"user_id": check_user_id(user_id)}

    def rename(header: Header) -> Header:
        extra = {name: value for name, value in header.extra.items() if lineage or name not in _LINEAGE}
        return msgspec.structs.replace(header, extra=extra, **ids)

    return rename


def import_file(path: str | os.PathLike[str], engine: Engine, rename: Renamed | None = None) -> Record:
    """Make a session of a file: an export of ours, or a session file of ours or PraisonAI's, or what PraisonAI exports.

    What cannot be read of a damaged file is reported as `SessionDamage`; the file stays as it is. Raises `SessionExists`,
    `NotASessionFile`, `NewerFormat`, `InvalidId`, `InvalidMessage`.
    """
    try:
        with open(path, "rb") as file:
            return _import(file, engine, rename or renaming(), os.fspath(path))
    except OSError as exc:
        if isinstance(exc, PraisonError):
            raise
        raise NotASessionFile(f"{os.fspath(path)}: {exc.strerror or exc}", os.fspath(path)) from exc


def import_bytes(data: bytes, engine: Engine, rename: Renamed | None = None) -> Record:
    """`import_file` of what is in a file."""
    return _import(BytesIO(data), engine, rename or renaming(), "")


def _import(file: BinaryIO, engine: Engine, rename: Renamed, path: str) -> Record:
    header = _jsonl_header(file)
    if header is not None:
        begin = file.tell()
        return _put(engine, rename(header), lambda: _lines(file, begin))
    data = file.read().removeprefix(_BOM)
    if is_export(data):
        header, lines = _document(data)
        return _put(engine, rename(header), lambda: starmap(_message, enumerate(lines, 1)))
    return _import_session_file(_as_session_file(data), engine, rename, path)


def import_dict(values: Mapping[str, Any], engine: Engine, rename: Renamed) -> Record:
    """`import_file` of a JSON object. Raises `ConfigTypeError` for what is none."""
    if not isinstance(values, Mapping):
        raise ConfigTypeError(f"an exported session is a dict, not {type(values).__name__}")
    try:
        given = dict(values)
        if given.get("format") != FORMAT:
            given |= {"session_id": "imported", "user_id": ""}  # whatever it says, it gets others
        return import_bytes(json.dumps(given, allow_nan=False).encode(), engine, rename)
    except (TypeError, ValueError, RecursionError) as exc:
        if isinstance(exc, PraisonError):
            raise
        raise NotASessionFile(f"the exported session holds what is not JSON: {exc}") from exc


def _jsonl_header(file: BinaryIO) -> Header | None:
    """The header of a JSONL export, and the file is where its messages begin; None, and its beginning, for any other."""
    line = file.readline().removeprefix(_BOM)
    if is_export(line):
        try:
            values = msgspec.json.decode(line)
            if "parts" in values:
                return msgspec.convert(values, Header)
        except msgspec.ValidationError as exc:
            raise NotASessionFile(f"not an exported session: {exc}") from exc
        except (ValueError, RecursionError):
            pass  # the object does not end on its first line
    file.seek(0)
    return None


def is_export(data: bytes) -> bool:
    """True if its "format" says so, wherever it stands: an export of ours, in JSON or JSONL. A damaged one is still one."""
    if FORMAT.encode() not in data:
        return False
    try:
        return bool(msgspec.json.decode(data, type=_Kind).format == FORMAT)
    except msgspec.ValidationError:
        return False  # no object
    except (ValueError, RecursionError):
        return _SAYS_SO.search(data) is not None


def _put(engine: Engine, header: Header, messages: Callable[[], Iterator[Message]]) -> Record:
    """Make the session. messages: gives them, from the first one on, as often as it is called."""
    try:
        return put_together(engine, header, messages())
    except SessionExists as exc:
        there = engine.get(header.key)
        if there is None or UNFINISHED not in there.extra:
            raise
        if not _discarded(engine, header.key, set(map(digest, messages()))):
            hint = "it is an unfinished import that somebody went on with: delete it first"
            raise SessionExists(header.session_id, header.user_id, hint) from exc
    return put_together(engine, header, messages())


def _discarded(engine: Engine, key: Key, digests: set[bytes]) -> bool:
    """Delete what an import left unfinished. False if there is anything else in it, or somebody is at it."""
    try:
        found = outline(engine, key)
        if UNFINISHED not in found.record.extra or not digests.issuperset(found.digests):
            return False
        discard(engine, found.record)
    except Conflict:
        return False
    except SessionNotFound:
        return True  # somebody else discarded it meanwhile
    return True


def _lines(file: BinaryIO, begin: int) -> Iterator[Message]:
    file.seek(begin)
    for number, line in enumerate(file, 1):
        if line.strip():
            yield _message(number, line)


def _document(data: bytes) -> tuple[Header, list[bytes]]:
    """What `to_json` wrote: the header, and the messages."""
    try:
        header, lists = msgspec.json.decode(data, type=Header), msgspec.json.decode(data, type=_Lists)
    except msgspec.MsgspecError as exc:
        raise NotASessionFile(f"not a whole exported session: {exc}") from exc
    history = PartHead(len(lists.archived_messages) + len(lists.messages))
    kept = [PartHead(len(part.messages), part.begins) for part in lists.kept]
    header = msgspec.structs.replace(header, start=len(lists.archived_messages), parts=[history, *kept])
    lines = chain(lists.archived_messages, lists.messages, *(part.messages for part in lists.kept))
    return header, list(map(bytes, lines))


def _message(number: int, line: bytes) -> Message:
    try:
        return decode(line)
    except (ValueError, RecursionError) as exc:
        raise NotASessionFile(f"entry {number} of the export is no message") from exc


# Session files


def _import_session_file(data: bytes, engine: Engine, rename: Renamed, path: str) -> Record:
    """Let the engine of such files read it, in a folder of its own. The name tells whose it is if the file does not."""
    try:
        loaded = jsonload.load(data, _named(os.path.basename(path).rpartition(".")[0]))
    except jsonload.Unreadable as exc:
        raise NotASessionFile(str(exc)) from exc
    except TooNew as exc:
        raise NewerFormat(f"the file has {exc}") from exc
    key = loaded.record.key
    if loaded.damage:
        what = f"{sum(map(len, loaded.damage)):,} bytes could not be read"
        warnings.warn(SessionDamage(path, None, len(loaded.messages), what), stacklevel=4)
    with tempfile.TemporaryDirectory() as folder, closing(JsonFileEngine(folder)) as source, _damage_is_known():
        place = folder if key.user_id == DEFAULT_USER else os.path.join(folder, "users", file_stem(key.user_id))
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, f"{file_stem(key.session_id)}.json"), "wb") as file:
            file.write(data)
        found = outline(source, key)
        return _put(engine, rename(found.header), lambda: messages(source, found))


@contextmanager
def _damage_is_known() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SessionDamage)
        yield


def _named(stem: str) -> Key | None:
    try:
        return Key(DEFAULT_USER, id_of_stem(stem) or check_session_id(stem))
    except ValueError:
        return None


def _as_session_file(data: bytes) -> bytes:
    """A file of PraisonAI's that holds a session in other words, in those of its session files; any other as it is."""
    try:
        values = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(values, dict) or "storage" in values:
        return data
    told = values.get("messages", values.get("chat_history"))
    if not isinstance(told, list) or ("messages" in values and not any(map(_lacks_time, told))):
        return data
    rest = {name: value for name, value in values.items() if name not in ("messages", "chat_history")}
    return msgspec.json.encode(rest | {"messages": [_timed(m) if _lacks_time(m) else m for m in told]})


def _lacks_time(message: Any) -> bool:
    """True for one from PraisonAI's databases, where the time is `created_at`."""
    return (
        isinstance(message, dict) and "timestamp" not in message and isinstance(message.get("created_at"), int | float)
    )


def _timed(message: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in message.items() if name != "created_at"}
    return rest | {"timestamp": message["created_at"]}
