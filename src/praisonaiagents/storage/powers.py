"""What an engine may be able to do besides the contract: forget for good, show its raw bytes, look itself over.

Whoever needs one of these asks `isinstance(engine, Forgets)`, and says so where the engine has it not. What a reader would
get wrong: `Engine.delete` is whole without them. It removes a session from all that can be asked for; what a disk, a log or
a dump still has of it is another matter, and that is what `Forgets` is about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from praisonaiagents.errors import StorageError
from praisonaiagents.model.record import Key

_CHUNK = 8 << 20
_OVERLAP = 1 << 12  # bytes of one piece that the next one has too: no sample is longer


class Raw(NamedTuple):
    """Bytes as they rest. `place`: what kind of place that is, such as a file with its path; `where`: the spot in it.

    Values that have no borders of their own (cells of a table, names of files) stand between NULs, see `framed`.
    """

    place: str
    where: str
    data: bytes


class Finding(NamedTuple):
    """Something that is not as it should be. A note is harmless; damage has lost something or is about to.

    what, remedy: what is wrong and what can be done, in words that quote no message. key: the session it is about.
    """

    is_damage: bool
    what: str
    remedy: str
    key: Key | None = None


class Forgotten(NamedTuple):
    """What came of forgetting, in words that quote no message.

    problems: what the storage should have done, and did not do or may not do. left_to_operators: what no engine can do.
    """

    problems: list[str]
    left_to_operators: list[str]


@runtime_checkable
class Forgets(Protocol):
    """An engine that can make its storage forget what was deleted, and prove it."""

    def forget(self, user_id: str, session_ids: Collection[str]) -> Forgotten:
        """Wipe out what the deleted sessions of a user left behind, as far as the engine may.

        Takes as long as it takes: files are written anew. Raises `StorageError`.
        """
        ...

    def raw(self) -> Iterator[Raw]:
        """Everything that is stored, as it lies there, also what no call would return. Changes nothing.

        Where nothing is stored yet, one piece without bytes says which place was looked at. Raises `StorageError` if
        something cannot be read.
        """
        ...


@runtime_checkable
class Audits(Protocol):
    """An engine that can look over what only it knows of."""

    def audit(self, user_id: str | None, session_id: str | None) -> Iterator[Finding]:
        """What is wrong below the sessions: of all users, of one, or of one session. Changes nothing, mends nothing.

        Raises `StorageError` if it cannot look.
        """
        ...


def counted(number: int, what: str) -> str:
    """A number with its noun: "1 message", "2,000 messages"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def framed(values: Iterable[bytes]) -> bytes:
    """Values between NULs, so that a whole one can be told from a part of another."""
    return b"\0%b\0" % b"\0".join(values)


def pieces(data: Iterable[bytes]) -> Iterator[bytes]:
    """A stream of bytes in large pieces that overlap, so that what lies across a border is whole in one of them."""
    waiting = bytearray()
    for part in data:
        waiting += part
        if len(waiting) >= _CHUNK:
            yield bytes(waiting)
            del waiting[:-_OVERLAP]
    if waiting:
        yield bytes(waiting)


def pieces_of_file(path: str) -> Iterator[bytes]:
    """A file in such pieces; none if it is not there. Raises `StorageError`."""
    try:
        with open(path, "rb") as file:
            yield from pieces(iter(lambda: file.read(_CHUNK), b""))
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StorageError(f"{path} could not be read: {exc.strerror}", path) from exc
