"""Messages that prove themselves: each one carries its author, its number and a checksum of everything it says.

So a reader of a history can tell, without asking who wrote it, what is missing, doubled, out of order or garbled.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from praisonaiagents.model.message import Message

ALPHABET = 'abc xyz äöü 日本語 🙂 \\ " \n \t ] } , { [ :'


def content(author: str, number: int, size: int = 0) -> str:
    """Text of an author's message, with about `size` bytes of stuffing."""
    stuffing = (ALPHABET * (size // 40 + 1))[:size]
    told = f"{author} {number} {stuffing}"
    return f"{hashlib.sha256(told.encode()).hexdigest()[:16]} {told}"


def message(author: str, number: int, size: int = 0) -> Message:
    return Message("user", content(author, number, size), timestamp=float(number))


def random_size(chance: random.Random, largest: int) -> int:
    """A size between 10 bytes and `largest`: half of them anything, half of them more often small than large."""
    return chance.choice((chance.randint(10, largest), int(10 * math.exp(chance.random() * math.log(largest / 10)))))


def told(text: object) -> tuple[str, int]:
    """(author, number) of a message's text, which must be whole."""
    assert isinstance(text, str)
    checksum, _, rest = text.partition(" ")
    assert hashlib.sha256(rest.encode()).hexdigest()[:16] == checksum, "garbled"
    author, number, _ = rest.split(" ", 2)
    return author, int(number)


def numbers(history: Iterable[Message | dict[str, Any]]) -> dict[str, list[int]]:
    """The numbers of each author's messages, in the order in which they stand."""
    texts = [entry.content if isinstance(entry, Message) else entry["content"] for entry in history]
    found = [told(text) for text in texts]
    return {author: [number for _, number in group] for author, group in groupby(sorted(found, key=_author), _author)}


def is_run(found: Sequence[int], *, last: int | None = None) -> bool:
    """True if the numbers follow each other without a gap, up to `last` if it is given."""
    if not found:
        return last is None
    return list(found) == list(range(found[0], found[-1] + 1)) and last in (None, found[-1])


def _author(pair: tuple[str, int]) -> str:
    return pair[0]
