"""Search for engines without an index: look at the messages, newest session and newest message first, up to a bound.

It uses nothing but the engine's own listing and reading, so it serves any engine. What a reader would get wrong: it stops
after `budget` messages and says so in `Found.complete`, instead of taking for ever on a large store.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Record
from praisonaiagents.storage.engine import Engine, Found, Hit, every_record

if TYPE_CHECKING:
    from praisonaiagents.model.search import Query

BUDGET = 20_000  # messages
_PAGE = 100  # sessions
_CHUNK = 500  # messages


def scan(engine: Engine, user_id: str | None, query: Query, *, limit: int, budget: int = BUDGET) -> Found:
    """`Engine.search` without an index."""
    hits: list[Hit] = []
    seen: set[tuple[str, str, str, float]] = set()
    if not query or limit < 1:
        return Found(hits)
    for record in every_record(engine, user_id, page=_PAGE):
        for number, message in _newest_first(engine, record):
            if budget == 0:
                return Found(hits, complete=False)
            budget -= 1
            same = (record.user_id, message.id, message.text(), message.timestamp)  # in a fork and where it comes from
            if same not in seen and query.matches(message.text()):
                seen.add(same)
                hits.append(Hit(record.key, number, message))
                if len(hits) == limit:
                    return Found(hits)
    return Found(hits)


def _newest_first(engine: Engine, record: Record) -> Iterator[tuple[int, Message]]:
    stop = record.length
    while stop > record.start:
        found = engine.read(record.key, max(record.start, stop - _CHUNK), stop)
        yield from reversed(list(enumerate(found.messages, found.first)))
        stop -= _CHUNK
