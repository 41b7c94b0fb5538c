"""Messages with their numbers, also where some cannot be read any more.

An engine leaves out what is damaged, so the messages of a `Slice` are consecutive only where nothing is. Whoever remembers
numbers needs the true ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Pin
from praisonaiagents.storage.engine import Engine, Slice


def numbered(
    engine: Engine, key: Key, found: Slice, length: int, *, at: Pin | None = None
) -> list[tuple[int, Message]]:
    """(number, message) of each message of `found`, which was read up to the end of the history.

    length: of the session, as its record said before, or of the history `at` that was read. Costs a few reads for each message
    that is damaged, else none.
    """
    if found.first + len(found.messages) >= length:
        return [*enumerate(found.messages, found.first)]
    return [*_around_damage(engine, key, found.first, length, at)]


def _around_damage(engine: Engine, key: Key, start: int, stop: int, at: Pin | None) -> Iterator[tuple[int, Message]]:
    found = engine.read(key, start, stop, at=at).messages
    if len(found) == stop - start:
        yield from enumerate(found, start)
    elif found:
        middle = (start + stop) // 2
        yield from _around_damage(engine, key, start, middle, at)
        yield from _around_damage(engine, key, middle, stop, at)
