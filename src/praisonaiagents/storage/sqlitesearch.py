"""Search in SQLite: an index (FTS5) that is caught up by the search itself.

Indexing a message costs more than storing it, and most messages are never searched for. So appending leaves the index
alone; a search first reads what is new in the user's sessions since the last one, in several small transactions, so that
nobody waits long to write, and then asks.

What a reader would get wrong: the index holds no text, and to take a message out of it one must give it the same tokens
again. Whoever frees messages calls `forget` while their bodies are still there. Should the tokens have become others since
(another version of Unicode), something stays behind that points to a message that is gone. That does no harm, because no
number is given twice, and every hit is looked at before it is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from praisonaiagents.model.message import decode_or_none
from praisonaiagents.model.record import Key
from praisonaiagents.model.search import Query, tokens
from praisonaiagents.storage.engine import Found, Hit
from praisonaiagents.storage.sql import statements
from praisonaiagents.storage.sqlitefile import SqliteFile
from praisonaiagents.storage.sqlitetransaction import Connection

_SQL = statements("sqlite")
_BATCH = 500  # messages of one transaction
_SESSIONS = 100  # looked at in one transaction
_RANKED = 200  # of the newest messages that match, the best are returned
_MOST_LOOKED_AT = 10_000
_MOST_TERMS = 32  # asked of the index; the others are looked for in the messages
EVERYTHING = 1 << 32  # above all message numbers
_SOON_ENOUGH = 1.2  # how many times a term is said matters less and less
_USUAL_LENGTH = 40  # tokens
_USER = "\ue000"  # begins the token of a user, and no token of a text


class _Scored(NamedTuple):
    score: float
    hit: Hit


def search(file: SqliteFile, user_id: str | None, query: Query, limit: int) -> Found:
    """Up to `limit` messages, the best of the newest first. Writes what is new into the index before."""
    while _is_behind(file, user_id):
        with file.writing() as db:
            if _catch_up(db, user_id, _BATCH):
                break
    with file.reading() as db:
        return _ask(db, user_id, query, limit)


def forget(db: Connection, user_id: str, log: int, start: int, stop: int) -> None:
    """Take messages `start` to `stop` of a user's log out of the index. They must still be stored."""
    if db.has_search:
        rows = db.execute(_SQL["numbered_bodies"], (log, start, stop, -1)).fetchall()
        db.executemany(_SQL["remove_from_search"], _entries(user_id, rows))


def _entries(user_id: str, rows: Iterable[tuple[int, bytes | None]]) -> Iterator[tuple[int, str]]:
    """What the index is told of messages; nothing of those without a word and those that cannot be read."""
    owner = _token_of(user_id)
    for place, body in rows:
        message = decode_or_none(body)
        found = tokens(message.text()) if message else []
        if found:
            yield place, " ".join((owner, *found))


def _token_of(user_id: str) -> str:
    return _USER + user_id.encode().hex()


# Catching up


def _is_behind(file: SqliteFile, user_id: str | None) -> bool:
    with file.reading() as db:
        return bool(_unsearched(db, user_id, 1))


def _unsearched(db: Connection, user_id: str | None, limit: int) -> list[tuple[str, int, int, int, int]]:
    statement = _SQL["unsearched" if user_id is None else "unsearched_of_user"]
    return db.execute(statement, {"user": user_id, "limit": limit}).fetchall()


def _catch_up(db: Connection, user_id: str | None, room: int) -> bool:
    """Index up to `room` messages. True if nothing is left to do."""
    sessions = _unsearched(db, user_id, _SESSIONS)
    for owner, log, start, stop, change in sessions:
        for part, _, end in db.execute(_SQL["parts"], {"log": log, "start": start, "stop": stop}).fetchall():
            room -= _index(db, owner, part, end, room)
            if room <= 0:
                return False
        db.execute(_SQL["searched_to"], (user_id or "", change))
    return len(sessions) < _SESSIONS


def _index(db: Connection, user_id: str, log: int, end: int, room: int) -> int:
    """Index up to `room` messages of a log, which has messages up to `end` at least; how many were new."""
    *_, searchable = db.execute(_SQL["log"], (log,)).fetchone()
    rows = db.execute(_SQL["numbered_bodies"], (log, searchable, EVERYTHING, room)).fetchall()
    known = (rows[-1][0] & EVERYTHING - 1) + 1 if rows else searchable
    if len(rows) < room:
        known = max(known, end)
    if known > searchable:
        db.executemany(_SQL["add_to_search"], _entries(user_id, rows))
        db.execute(_SQL["searchable_from"], (known, log))
    return len(rows)


# Asking


def _ask(db: Connection, user_id: str | None, query: Query, limit: int) -> Found:
    found: list[_Scored] = []
    looked_at = 0
    for looked_at, (place,) in enumerate(db.execute(_SQL["hits"], (_expression(user_id, query),)), 1):
        scored = _hit(db, user_id, query, place)
        found += [scored] if scored else []
        if len(found) == max(limit, _RANKED) or looked_at == _MOST_LOOKED_AT:
            break
    found.sort(key=lambda scored: scored.score, reverse=True)
    return Found([scored.hit for scored in found[:limit]], complete=looked_at < _MOST_LOOKED_AT or len(found) >= limit)


def _expression(user_id: str | None, query: Query) -> str:
    """The query in the language of FTS5, each term a string in it and so nothing but itself."""
    terms = [f'"{word}"' for word in query.words] + [f'"{beginning}" *' for beginning in query.beginnings]
    owner = [] if user_id is None else [f'"{_token_of(user_id)}"']
    return " AND ".join(owner + terms[:_MOST_TERMS])


def _hit(db: Connection, user_id: str | None, query: Query, place: int) -> _Scored | None:
    """A message, if a session shows it and it matches indeed."""
    log, number = divmod(place, EVERYTHING)
    key = db.execute(_SQL["showing"], {"log": log, "number": number}).fetchone()
    row = db.execute(_SQL["body"], (log, number)).fetchone()
    message = decode_or_none(row[0]) if row else None
    if key is None or message is None or user_id not in (None, key[0]):
        return None
    score = _score(tokens(message.text()), query)
    return _Scored(score, Hit(Key(*key), number, message)) if score else None


def _score(found: list[str], query: Query) -> float:
    """How well a text matches (0: not at all): better if it says the terms more often, and less besides."""
    counts = [found.count(word) for word in query.words]
    counts += [sum(token.startswith(beginning) for token in found) for beginning in query.beginnings]
    if not all(counts):
        return 0.0
    halved = _SOON_ENOUGH * (0.25 + 0.75 * len(found) / _USUAL_LENGTH)
    return sum(count / (count + halved) for count in counts)
