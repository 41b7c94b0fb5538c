"""Session files that are forgotten, read byte by byte, and looked over.

What a reader would get wrong: looking must not mend. Reading a damaged file through the engine writes it anew and sets the
damage aside; here a file is opened, looked at, and left as it is.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from praisonaiagents.errors import StorageError
from praisonaiagents.model.ids import DEFAULT_USER, file_stem
from praisonaiagents.model.record import Key
from praisonaiagents.storage import jsonload
from praisonaiagents.storage.filelock import Deadline, open_for_reading
from praisonaiagents.storage.jsonlayout import TooNew
from praisonaiagents.storage.jsonload import Loaded, Unreadable
from praisonaiagents.storage.powers import Finding, Forgotten, Raw, counted, framed, pieces_of_file
from praisonaiagents.storage.sessionfile import SessionFile, footer_of, identify, load

if TYPE_CHECKING:
    from praisonaiagents.storage.jsonfile import JsonFileEngine

_BESIDE = r"\.json(?:\.lock|\.(?:\d+-[0-9a-f]{8}\.)?tmp|\.corrupt.*)"
"""What lies beside a session's file: its lock, what a crash left of a rewrite, what PraisonAI took for corrupt."""
_RESTORE = "restore it from a backup"
_MENDS = "nothing to do: the next change of the session writes it anew, and what cannot be read is kept in {aside}"


# Forgetting


def forget(engine: JsonFileEngine, user_id: str, session_ids: Collection[str]) -> Forgotten:
    """Remove what lies beside the files of deleted sessions; all that is the user's if no session is left."""
    is_gone = not engine.list_sessions(user_id, limit=1).records
    if user_id != DEFAULT_USER:
        for session_id in session_ids:
            _remove_beside(engine, Key(user_id, session_id))
        if is_gone:
            _remove_orphans(engine, user_id)
    unclear = _clear_shared(engine, user_id, session_ids, is_gone=is_gone)
    _remove_empty_folders(engine, user_id)
    left_to_operators = [
        *(f"{path} does not say whose it is and was left: look into it" for path in unclear),
        *(f"{path} cannot be read as a session and was left: look whose it is" for path in _unreadable(engine)),
        f"copies and backups of {engine.folder} are as they were",
        "the disk may keep the blocks of removed files, in snapshots or until they are overwritten: only an encrypted "
        "disk, or one that is wiped, forgets them",
    ]
    return Forgotten([], left_to_operators)


def _remove_beside(engine: JsonFileEngine, key: Key) -> None:
    """What lies beside a session's file in the user's own folder."""
    for path in (engine._path(key), engine._twin_path(key)):
        if not os.path.lexists(path):  # else it is another session's
            _remove_matching(os.path.dirname(path), re.escape(os.path.basename(path)[: -len(".json")]) + _BESIDE)
            for leftover in engine._leftovers(path):
                _remove(leftover)


def _remove_orphans(engine: JsonFileEngine, user_id: str) -> None:
    """In the own folder of a user who has no session: what has no session's file beside it, and files that cannot be read."""
    folder = engine._folder_of(user_id)
    if os.path.basename(folder) in _names(os.path.dirname(folder)):
        for name in _names(folder):
            if name.endswith(".json") and engine._listed_record(f"{folder}/{name}") is None:
                _remove(f"{folder}/{name}")
    _remove_matching(folder, f".*{_BESIDE}", unless_there=True)
    aside = engine._aside(f"{folder}/.json").removesuffix("/")
    for name in _names(aside):
        stem, _, _ = name.rpartition(".")
        if os.path.isfile(f"{aside}/{name}") and not os.path.lexists(f"{folder}/{stem}.json"):
            _remove(f"{aside}/{name}")


def _clear_shared(engine: JsonFileEngine, user_id: str, session_ids: Collection[str], *, is_gone: bool) -> list[str]:
    """Remove what is the user's of what lies beside sessions' files in the top folder, which is everybody's.

    What it says of itself decides; the name does only for the default user, whose folder it is. Returns what may be the
    user's, and does not say so.
    """
    paths = [found for name in session_ids for found in engine._paths(Key(user_id, name))]
    named = {path for path, _ in paths}
    own = {path for path, key in paths if key is not None and user_id == DEFAULT_USER}
    unclear = []
    for leftover, path in _left_in_shared(engine):
        is_beside, is_lock = os.path.lexists(path), leftover.endswith(".lock")
        said = None if is_lock else _said_key(leftover)
        if said is not None:
            if said.user_id == user_id and (is_gone or said.session_id in session_ids):
                _remove(leftover)
        elif is_beside:
            continue  # of the session that is there
        elif path in own or (is_lock and is_gone and user_id == DEFAULT_USER):
            _remove(leftover)
        elif not is_lock and (is_gone or path in named):
            unclear.append(leftover)
    return unclear


def _left_in_shared(engine: JsonFileEngine) -> Iterator[tuple[str, str]]:
    """What lies beside sessions' files in the top folder, or was set aside from them, with the path of that file."""
    for name in sorted(_names(engine.folder)):
        if re.fullmatch(f".*?{_BESIDE}", name) and os.path.isfile(f"{engine.folder}/{name}"):
            yield f"{engine.folder}/{name}", f"{engine.folder}/{name[: name.index('.json')]}.json"
    aside = f"{engine.folder}/damaged"
    for name in sorted(_names(aside)):
        if os.path.isfile(f"{aside}/{name}"):
            yield f"{aside}/{name}", f"{engine.folder}/{name.rpartition('.')[0]}.json"


def _said_key(path: str) -> Key | None:
    """Whose a file says that it is. None if it does not."""
    try:
        with open(path, "rb") as file:
            return jsonload.load(file.read()).record.key
    except (OSError, Unreadable, TooNew):
        return None


def _unreadable(engine: JsonFileEngine) -> list[str]:
    """What lies among the files of the top folder, and nobody knows whose it is."""
    paths = [f"{engine.folder}/{name}" for name in sorted(_names(engine.folder)) if name.endswith(".json")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [path for path in paths if engine._listed_record(path) is None]


def _remove_matching(folder: str, pattern: str, *, unless_there: bool = False) -> None:
    """Remove files whose names match; with `unless_there`, those only beside which there is no session's file."""
    for name in _names(folder):
        path = f"{folder}/{name}"
        if re.fullmatch(pattern, name) and os.path.isfile(path):
            if unless_there and os.path.lexists(f"{folder}/{name[: name.index('.json')]}.json"):
                continue
            _remove(path)


def _remove_empty_folders(engine: JsonFileEngine, user_id: str) -> None:
    stem = file_stem(user_id)
    for folder in (f"damaged/users/{stem}", "damaged/users", "damaged", f"users/{stem}", "users"):
        with suppress(OSError):  # it is not empty, or not there
            os.rmdir(f"{engine.folder}/{folder}")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StorageError(f"{path} could not be removed: {exc.strerror}", path) from exc


# Byte by byte


def raw(engine: JsonFileEngine) -> Iterator[Raw]:
    """All files of the folder and of those below it that are ours, and their names."""
    place = f"files in {engine.folder}"
    yield Raw(place, "", b"")
    for path in _paths(engine.folder):
        where = path[len(engine.folder) + 1 :]
        folder, _, name = where.rpartition("/")
        stem = name.partition(".json")[0]
        yield Raw(place, f"the name of {where}", framed(os.fsencode(part) for part in (*folder.split("/"), name, stem)))
        if os.path.isfile(path):
            yield from (Raw(place, where, piece) for piece in pieces_of_file(path))


def _paths(folder: str) -> Iterator[str]:
    """What lies in the folder and is ours: files, and folders of users and of what was set aside."""
    for name in sorted(_names(folder)):
        path = f"{folder}/{name}"
        if os.path.isfile(path):
            yield path
    for below in ("users", "damaged"):
        for parent, _, names in os.walk(f"{folder}/{below}"):
            yield parent
            yield from (f"{parent}/{name}" for name in sorted(names))


# Looking over


def audit(engine: JsonFileEngine, user_id: str | None, session_id: str | None) -> Iterator[Finding]:
    """Every file of a user, or of all, or of one session; then what was set aside earlier."""
    if user_id is not None and session_id is not None:
        key = Key(user_id, session_id)
        for path, named in engine._paths(key):
            if named or engine._holds(path, key):
                yield from _look(engine, path, only=key)
        return
    for _, path in sorted(engine._files(user_id), key=lambda found: found[1]):
        yield from _look(engine, path)
    aside = [
        path for path in _paths(engine.folder) if path.startswith(f"{engine.folder}/damaged/") and os.path.isfile(path)
    ]
    if aside:
        remedy = f"look at {engine.folder}/damaged, and remove what is of no use"
        yield Finding(False, f"{counted(len(aside), 'file')} with what could not be read, set aside earlier", remedy)


def _look(engine: JsonFileEngine, path: str, only: Key | None = None) -> Iterator[Finding]:
    """What is wrong with one file. only: unless it is another session's."""
    aside = f"{engine.folder}/damaged"
    move = "move it away, or restore it from a backup"
    try:
        opened = open_for_reading(path, Deadline(engine.lock_timeout_s))
    except FileNotFoundError:
        return
    except OSError as exc:
        yield Finding(True, str(exc), "look at the file and its permissions")
        return
    try:
        file = identify(path, opened, engine._named(path), engine._fits)
        if only in (None, file.key):
            yield from _compare(file, load(file), _MENDS.format(aside=aside))
    except (StorageError, Unreadable) as exc:
        yield Finding(
            True, str(exc) if isinstance(exc, StorageError) else f"{path}: {exc}", move, only or engine._named(path)
        )
    except OSError as exc:
        yield Finding(True, f"{path}: {exc.strerror}", "look at the disk; restore the file from a backup")
    finally:
        opened.close()


def _compare(file: SessionFile, loaded: Loaded, mends: str) -> Iterator[Finding]:
    """A file with what it says of itself."""
    footer = footer_of(file)
    kept = f"{counted(len(loaded.messages), 'message')} can be read"
    more = loaded.record.message_count - footer.message_count if footer else 0
    archived = file.head.start - loaded.record.start if file.head else 0
    if loaded.damage:
        size = sum(map(len, loaded.damage))
        yield Finding(True, f"{file.path}: {size:,} bytes cannot be read, {kept}", mends, file.key)
    if file.head is not None and footer is None:
        yield Finding(True, f"{file.path}: its end is torn, {kept}", mends, file.key)
    if more < 0 and not loaded.damage:
        yield Finding(True, f"{file.path}: {counted(-more, 'message')} missing, {kept}", _RESTORE, file.key)
    if more > 0:
        yield Finding(
            False, f"{file.path}: it holds {counted(more, 'message')} more than it says", "nothing to do", file.key
        )
    if archived > 0 and not loaded.damage:
        yield Finding(True, f"{file.path}: {counted(archived, 'archived message')} missing, {kept}", _RESTORE, file.key)
    for (_, start, length), pin in loaded.moved.items():
        lost = length - start - (pin.length - pin.start)
        if lost and pin in loaded.record.pins.values():
            what = f"{file.path}: an earlier state has lost {lost} of its {length - start} messages"
            yield Finding(
                True, what, "what is left of it can be gone back to; restore the file from a backup", file.key
            )


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
