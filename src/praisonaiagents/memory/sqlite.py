"""Memories in a SQLite file: the default. Words are found by full-text search, nearness by looking at every vector of a scope.

The file is opened, shared and forked with as the engine of sessions does it (see `storage.sqlitefile`): any number of
processes and threads may use it, a crash loses nothing that was acknowledged, and what only reads makes no file.

`erase` writes the file anew, so that nothing of what was removed is left in it; `delete` and `clear` leave that to SQLite, or to
a call of `write_anew`.

What a reader would get wrong: comparing vectors costs time with each item of the scope that has one, not with those of other
users. Many thousands in one scope want an adapter with an index of vectors.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import sys
from array import array
from collections.abc import Collection, Iterable, Sequence

import msgspec

from praisonaiagents.errors import ConfigError
from praisonaiagents.memory.adapter import ItemPage, Match
from praisonaiagents.memory.rank import bm25, dot, unit
from praisonaiagents.memory.terms import terms as terms_of
from praisonaiagents.model.ids import check_user_id
from praisonaiagents.model.memory import Embedding, MemoryItem, Scope, check_embeddings, check_item, check_scope
from praisonaiagents.storage.sql import statements
from praisonaiagents.storage.sqlitecare import write_anew
from praisonaiagents.storage.sqlitefile import SqliteFile
from praisonaiagents.storage.sqlitetransaction import MEMORY, Connection

APPLICATION_ID = 0x50724D65  # "PrMe", in the header of the file
_SQL = statements("memory")
_TERMS = 64  # in one question to the index; for more, every item of the scope is looked at
_END = (sys.float_info.max, 2**62)
_MOST_ROWS = 2**31


class SqliteMemory:
    """Memories in one SQLite file, or in memory (`:memory:`). The file is made with the first item, for this user alone.

    lock_timeout_s: how long a call waits for others who write, in seconds.
    """

    def __init__(self, path: str | os.PathLike[str], *, lock_timeout_s: float = 5.0) -> None:
        given = os.fspath(path)
        if not given or "\0" in given:
            raise ConfigError("the path of a SQLite file is neither empty nor has NUL characters in it")
        self.path = MEMORY if given == MEMORY else os.path.abspath(given)
        self._file = SqliteFile(
            self.path,
            full=False,
            lock_timeout_s=lock_timeout_s,
            readers=1 if self.path == MEMORY else 4,
            schema="memory",
            application_id=APPLICATION_ID,
        )

    def put(self, items: Sequence[MemoryItem], embeddings: Sequence[Embedding | None] = ()) -> None:
        for item in items:
            check_item(item)
        points = check_embeddings(items, embeddings)
        with self._file.writing() as db:
            for item, embedding in zip(items, points, strict=True):
                _put(db, item, embedding)

    def get(self, user_id: str, item_id: str) -> MemoryItem | None:
        named = check_user_id(user_id), _text(item_id)
        if self._is_absent():
            return None
        with self._file.reading() as db:
            row = db.execute(_SQL["get"], named).fetchone()
        return _item(row[0]) if row else None

    def in_slot(self, scope: Scope, slot: str) -> list[MemoryItem]:
        named = (*_bound(scope), _text(slot))
        if self._is_absent():
            return []
        with self._file.reading() as db:
            return [_item(body) for (body,) in db.execute(_SQL["in_slot"], named)]

    def search_text(self, scope: Scope, terms: Collection[str], *, limit: int = 10) -> list[Match]:
        scope = check_scope(scope)
        wanted = list(dict.fromkeys(_text(term) for term in terms if term and term.isalnum()))
        if not wanted or limit < 1 or self._is_absent():
            return []
        with self._file.reading() as db:
            texts, total = _indexed(db, scope, wanted) if db.has_search else _all(db, scope)
            scores = bm25(wanted, texts, total)
            best = heapq.nlargest(limit, ((score, number) for number, score in scores.items()))
            bodies = [(db.execute(_SQL["body"], (number,)).fetchone()[0], score) for score, number in best]
        return [Match(_item(body), score) for body, score in bodies]

    def search_near(self, scope: Scope, embedding: Embedding, *, limit: int = 10) -> list[Match]:
        asked, named = unit(embedding.values), (*_bound(scope), _text(embedding.model))
        if self._is_absent():
            return []
        with self._file.reading() as db:
            rows = db.execute(_SQL["vectors"], named)
            points = ((number, _unpacked(vector)) for number, vector in rows)
            near = ((dot(asked, point), number) for number, point in points if len(point) == len(asked))
            best = heapq.nlargest(max(limit, 0), near)
            bodies = [(db.execute(_SQL["body"], (number,)).fetchone()[0], score) for score, number in best]
        return [Match(_item(body), score) for body, score in bodies]

    def list_items(
        self, scope: Scope, *, after: str | None = None, limit: int = 50, superseded: bool = False
    ) -> ItemPage:
        most = max(0, min(limit, _MOST_ROWS))
        bounds = (*_bound(scope), *_place(after), 0 if superseded else 1, most + 1)
        if self._is_absent():
            return ItemPage([], None)
        with self._file.reading() as db:
            rows = db.execute(_SQL["list"], bounds).fetchall()
        page = rows[:most]
        more = page and len(rows) > most
        return ItemPage([_item(body) for *_, body in page], f"{page[-1][0]!r} {page[-1][1]}" if more else None)

    def delete(self, user_id: str, item_ids: Collection[str]) -> int:
        user = check_user_id(user_id)
        if self._is_absent():
            return 0
        with self._file.writing() as db:
            found = (db.execute(_SQL["numbers_of"], (user, _text(item_id))).fetchone() for item_id in set(item_ids))
            return _delete(db, [row[0] for row in found if row])

    def clear(self, scope: Scope) -> int:
        if self._is_absent():
            return 0
        with self._file.writing() as db:
            return _delete(db, [number for (number,) in db.execute(_SQL["numbers_in"], _bound(scope))])

    def erase(self, user_id: str) -> int:
        user = check_user_id(user_id)
        if self._is_absent():
            return 0
        with self._file.writing() as db:
            count = _delete(db, [number for (number,) in db.execute(_SQL["numbers_of_user"], (user,))])
        if count:
            self.write_anew()
        return count

    def write_anew(self) -> None:
        """Write the file anew, so that nothing of what was removed stays in free pages or in the log."""
        if self.path != MEMORY and not self._is_absent():
            write_anew(self._file)

    def close(self) -> None:
        self._file.close()

    def _is_absent(self) -> bool:
        """True if there is no file: nothing is found, and neither looking nor removing makes one."""
        return self.path != MEMORY and not os.path.lexists(self.path)

    def __repr__(self) -> str:
        return f"SqliteMemory({self.path!r})"


def _put(db: Connection, item: MemoryItem, embedding: Embedding | None) -> None:
    live = item.superseded_by is None
    vector = array("f", unit(embedding.values)) if embedding else None
    if vector is not None and sys.byteorder == "big":
        vector.byteswap()
    user_id, session_id, shelf = item.scope
    values = (user_id, item.id, session_id, shelf, item.slot, live, float(item.updated_at), msgspec.json.encode(item))
    point = (embedding.model, vector.tobytes()) if embedding and vector is not None else (None, None)
    ((number,),) = db.execute(_SQL["put"], (*values, *point)).fetchall()
    if db.has_search:
        db.execute(_SQL["unindex"], (number,))
        if live:
            db.execute(_SQL["index"], (number, _word_of(item.scope), " ".join(terms_of(item.text))))


def _delete(db: Connection, numbers: Iterable[int]) -> int:
    rows = [(number,) for number in numbers]
    if db.has_search:
        db.executemany(_SQL["unindex"], rows)
    db.executemany(_SQL["delete"], rows)
    return len(rows)


def _indexed(db: Connection, scope: Scope, wanted: list[str]) -> tuple[dict[int, list[str]], int]:
    """The terms of the live items of the scope that may have a wanted one, by number; and how many live items there are.

    FTS5 finds them, but must not rank them: it counts how rare a word is among the items of all users.
    """
    place = f'"{_word_of(scope)}"'
    words = " OR ".join(f'"{term}"' for term in wanted[:_TERMS])
    query = f"{place} AND ({words})" if len(wanted) <= _TERMS else place
    ((total,),) = db.execute(_SQL["count"], (place,)).fetchall()
    return {number: terms.split() for number, terms in db.execute(_SQL["match"], (query, *scope))}, total


def _all(db: Connection, scope: Scope) -> tuple[dict[int, list[str]], int]:
    """The same where SQLite has no full-text search."""
    texts = {number: terms_of(_item(body).text) for number, body in db.execute(_SQL["live"], tuple(scope))}
    return texts, len(texts)


def _bound(scope: Scope) -> tuple[str, str | None, str]:
    scope = check_scope(scope)
    return scope.user_id, scope.session_id, scope.shelf


def _word_of(scope: Scope) -> str:
    """The scope as one word; longer than any term of a text."""
    return f"scope{hashlib.sha256(json.dumps(scope).encode()).hexdigest()}"


def _place(after: str | None) -> tuple[float, int]:
    if after is None:
        return _END
    time, _, number = after.partition(" ")
    try:
        return float(time), min(int(number), _END[1])
    except ValueError:
        raise ConfigError("after is what a page before gave, and nothing else") from None


def _unpacked(vector: bytes) -> array[float]:
    values = array("f")
    values.frombytes(vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"ids, slots and terms are text, not {type(value).__name__}")
    return value.encode("utf-8", "replace").decode()  # half a character is in nothing that is stored


def _item(body: bytes) -> MemoryItem:
    item: MemoryItem = msgspec.json.decode(body, type=MemoryItem)
    return item
