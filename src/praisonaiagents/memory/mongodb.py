"""Memories in a MongoDB server: one document an item, found by indexes on the user.

    MongoMemory("mongodb://user:password@host/?replicaSet=rs")

A document holds what is searched by (user, session, shelf, slot, terms, time, embedding) and the item itself as JSON, so that it
comes back exactly. Every index begins with the user and every query names one, by `$eq` and as text: no value can be taken
for an operator. Words are looked up by an index on the terms and ranked here; embeddings are compared here, one scope at a
time. They are stored as BSON vectors, which Atlas can index, but no `$vectorSearch` is needed or used.

What survives what: a write is acknowledged by a majority of the servers, so it survives the loss of one. Reads ask the
primary, so they are fresh. No transactions: of a `put` that fails half-way, the items before the failure are stored.

What a reader would get wrong: of a scope in which more than 10,000 items have one of the words (or an embedding), the latest
10,000 are looked at.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from praisonaiagents.errors import ConfigError, EngineUnreachable, InvalidMessage, MissingDependency, StorageError
from praisonaiagents.memory.adapter import ItemPage, Match
from praisonaiagents.memory.rank import bm25, cosine
from praisonaiagents.memory.terms import terms
from praisonaiagents.model.ids import check_user_id
from praisonaiagents.model.memory import Embedding, MemoryItem, Scope, check_embeddings, check_item, check_scope
from praisonaiagents.storage.registry import masked

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection as Documents

    Document = dict[str, Any]

LOOKED_AT = 10_000  # matches of one search, the latest first
_BATCH = 500  # ids of one request
_TIMEOUTS_MS = {"serverSelectionTimeoutMS": 5_000, "connectTimeoutMS": 5_000, "socketTimeoutMS": 30_000}
_REFUSED = {13: "not allowed", 18: "wrong user or password", 8000: "wrong user or password"}
_SCHEMES = ("mongodb://", "mongodb+srv://")


class MongoMemory:
    """Memories in one collection of a MongoDB server. Nothing is opened before the first call.

    url: with the options of MongoDB's connection strings. Unless it says otherwise, a server that does not answer is given
        up after 5 seconds.
    client: a `pymongo.MongoClient` to be used instead of the URL. It stays the caller's, who closes it.
    """

    def __init__(
        self,
        url: str = "mongodb://localhost:27017",
        *,
        database: str = "praisonai",
        collection: str = "memories",
        client: MongoClient[Document] | None = None,
    ) -> None:
        if not url.startswith(_SCHEMES):
            raise ConfigError(f"a MongoDB URL begins with {' or '.join(map(repr, _SCHEMES))}")
        self._url = url
        self._names = database, collection
        self._lent = client
        self._inherited: list[object] = []
        self._client: MongoClient[Document] | None = None
        self._documents: Documents[Document] | None = None
        self._pid, self._lock = os.getpid(), threading.Lock()

    def put(self, items: Sequence[MemoryItem], embeddings: Sequence[Embedding | None] = ()) -> None:
        for item in items:
            check_item(item)
        points = check_embeddings(items, embeddings)
        documents = [_document(item, point) for item, point in zip(items, points, strict=True)]
        with self._call() as collection:
            for document in documents:
                collection.replace_one(_is(user=document["user"], id=document["id"]), document, upsert=True)

    def get(self, user_id: str, item_id: str) -> MemoryItem | None:
        with self._call() as collection:
            found = collection.find_one(_is(user=check_user_id(user_id), id=_text(item_id)), {"item": True})
        return _item(found) if found else None

    def in_slot(self, scope: Scope, slot: str) -> list[MemoryItem]:
        with self._call() as collection:
            found = collection.find(_in(scope) | _is(live=True, slot=_text(slot)), {"item": True})
            return [_item(document) for document in found.sort([("updated", -1), ("id", -1)])]

    def search_text(self, scope: Scope, terms: Collection[str], *, limit: int = 10) -> list[Match]:
        wanted = list(dict.fromkeys(_text(term) for term in terms))
        if not wanted or limit < 1:
            return []
        where = _in(scope) | _is(live=True) | {"terms": {"$in": wanted}}
        with self._call() as collection:
            found = {doc["id"]: doc["terms"] for doc in _latest(collection, where, "terms")}
            return self._matches(collection, scope, bm25(wanted, found), limit)

    def search_near(self, scope: Scope, embedding: Embedding, *, limit: int = 10) -> list[Match]:
        where = _in(scope) | _is(live=True, model=_text(embedding.model))
        asked = array("f", embedding.values)
        if limit < 1:
            return []
        with self._call() as collection:
            points = ((doc["id"], doc["vector"].as_vector().data) for doc in _latest(collection, where, "vector"))
            scores = {found: cosine(asked, point) for found, point in points if len(point) == len(asked)}
            return self._matches(collection, scope, scores, limit)

    def list_items(
        self, scope: Scope, *, after: str | None = None, limit: int = 50, superseded: bool = False
    ) -> ItemPage:
        where = _in(scope) | ({} if superseded else _is(live=True)) | _beyond(after)
        with self._call() as collection:
            found = collection.find(where, {"item": True, "updated": True, "id": True})
            rows = list(found.sort([("updated", -1), ("id", -1)]).limit(limit + 1))
        page = rows[:limit]
        more = page and len(rows) > limit
        return ItemPage([_item(row) for row in page], _place(page[-1]) if more else None)

    def delete(self, user_id: str, item_ids: Collection[str]) -> int:
        user, ids = check_user_id(user_id), sorted({_text(item_id) for item_id in item_ids})
        with self._call() as collection:
            return sum(
                collection.delete_many(_is(user=user) | {"id": {"$in": some}}).deleted_count for some in _batches(ids)
            )

    def clear(self, scope: Scope) -> int:
        with self._call() as collection:
            return int(collection.delete_many(_in(scope)).deleted_count)

    def erase(self, user_id: str) -> int:
        with self._call() as collection:
            return int(collection.delete_many(_is(user=check_user_id(user_id))).deleted_count)

    def close(self) -> None:
        self._leave_to_parent()
        with self._lock:
            client, self._client, self._documents = self._client, None, None
        if client is not None:
            client.close()

    def __repr__(self) -> str:
        database, collection = self._names
        return f"MongoMemory({masked(self._url)!r}, database={database!r}, collection={collection!r})"

    # The server

    @contextmanager
    def _call(self) -> Iterator[Documents[Document]]:
        """The collection. What the driver raises is said in our words: neither a password nor a text of an item is in it."""
        try:
            from pymongo import errors
        except ImportError as exc:
            raise MissingDependency("memory in MongoDB", "mongodb") from exc
        place = masked(self._url)
        try:
            yield self._opened()
        except (errors.ConfigurationError, errors.InvalidURI, ValueError) as exc:
            raise ConfigError(
                f"the MongoDB URL makes no sense ({type(exc).__name__})"
            ) from None  # it may quote a password
        except errors.ServerSelectionTimeoutError as exc:
            raise EngineUnreachable(f"no MongoDB server answers at {place}: {_first_words(exc)}", place) from exc
        except errors.BulkWriteError as exc:  # quotes what was written
            failed = (exc.details.get("writeErrors") or exc.details.get("writeConcernErrors") or [{}])[0]
            cause = errors.OperationFailure(f"write failed with code {failed.get('code')}", failed.get("code"))
            raise StorageError(f"MongoDB at {place} did not store it: code {failed.get('code')}", place) from cause
        except errors.OperationFailure as exc:
            if exc.code in _REFUSED:
                raise EngineUnreachable(f"MongoDB at {place} refuses: {_REFUSED[exc.code]}", place) from exc
            raise StorageError(f"MongoDB at {place} refused: code {exc.code}", place) from exc
        except errors.ConnectionFailure as exc:
            raise StorageError(
                f"the connection to MongoDB at {place} broke before the answer came; repeating the call is safe", place
            ) from exc
        except (errors.PyMongoError, OverflowError) as exc:
            raise StorageError(f"MongoDB at {place}: {type(exc).__name__}", place) from exc

    def _leave_to_parent(self) -> None:
        """Begin anew in a forked child. What its parent opened is neither used nor closed here, nor ever collected."""
        if self._pid != os.getpid():
            self._inherited.append(self._client)
            self._client = self._documents = None
            self._pid, self._lock = os.getpid(), threading.Lock()

    def _opened(self) -> Documents[Document]:
        self._leave_to_parent()
        with self._lock:
            documents, client = self._documents, self._lent or self._client
            if client is None:
                client = self._client = self._connected()
        if documents is None:
            documents = self._documents = self._with_indexes(
                client
            )  # perhaps in two threads at once, which is harmless
        return documents

    def _connected(self) -> MongoClient[Document]:
        from pymongo import MongoClient

        said = self._url.lower()
        timeouts: dict[str, Any] = {name: ms for name, ms in _TIMEOUTS_MS.items() if f"{name.lower()}=" not in said}
        try:
            return MongoClient(self._url, **timeouts)
        except ValueError as exc:  # what the driver says of some addresses is no error of its own
            raise ConfigError(f"the MongoDB URL makes no sense ({type(exc).__name__})") from None

    def _with_indexes(self, client: MongoClient[Document]) -> Documents[Document]:
        from pymongo import IndexModel, ReadPreference, WriteConcern

        database, name = self._names
        collection = client[database].get_collection(
            name, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern(w="majority")
        )
        scope = [("user", 1), ("session", 1), ("shelf", 1)]
        collection.create_indexes(
            [
                IndexModel([("user", 1), ("id", 1)], name="id", unique=True),
                IndexModel([*scope, ("updated", -1), ("id", -1)], name="latest"),
                IndexModel([*scope, ("slot", 1)], name="slot"),
                IndexModel([*scope, ("terms", 1)], name="terms"),
            ]
        )
        return collection

    def _matches(
        self, collection: Documents[Document], scope: Scope, scores: dict[str, float], limit: int
    ) -> list[Match]:
        """The best of what was found, read once more: what was changed or removed meanwhile is left out."""
        best = sorted(scores, key=lambda found: (-scores[found], found))[:limit]
        where = _in(scope) | _is(live=True) | {"id": {"$in": best}}
        items = {doc["id"]: _item(doc) for doc in collection.find(where, {"item": True, "id": True})}
        return [Match(items[found], scores[found]) for found in best if found in items]


# Documents and queries


def _document(item: MemoryItem, embedding: Embedding | None) -> Document:
    document = {
        "user": item.scope.user_id,
        "id": item.id,
        "session": item.scope.session_id,
        "shelf": item.scope.shelf,
        "slot": item.slot,
        "live": item.superseded_by is None,
        "updated": float(item.updated_at),
        "terms": terms(item.text),
        "item": msgspec.json.encode(item).decode(),
    }
    return document | (_vector(embedding) if embedding else {})


def _vector(embedding: Embedding) -> Document:
    from bson.binary import Binary, BinaryVectorDtype

    values = [float(value) for value in embedding.values]
    return {"model": _text(embedding.model), "vector": Binary.from_vector(values, BinaryVectorDtype.FLOAT32)}


def _item(document: Document) -> MemoryItem:
    return msgspec.json.decode(document["item"], type=MemoryItem)


def _is(**values: Any) -> Document:
    """The query for documents with exactly these values."""
    return {name: {"$eq": value} for name, value in values.items()}


def _in(scope: Scope) -> Document:
    user_id, session_id, shelf = check_scope(scope)
    return _is(user=user_id, session=session_id, shelf=shelf)


def _beyond(after: str | None) -> Document:
    if after is None:
        return {}
    try:
        updated, item_id = msgspec.json.decode(after, type=tuple[float, str])
    except msgspec.MsgspecError as exc:
        raise ConfigError("after is what a page before gave, and nothing else") from exc
    return {"$or": [{"updated": {"$lt": updated}}, {"updated": {"$eq": updated}, "id": {"$lt": item_id}}]}


def _place(document: Document) -> str:
    return msgspec.json.encode((document["updated"], document["id"])).decode()


def _latest(collection: Documents[Document], where: Document, field: str) -> Iterable[Document]:
    return collection.find(where, {"id": True, field: True}).sort("updated", -1).limit(LOOKED_AT)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidMessage(
            f"this is text and not {type(value).__name__}: an id, a slot, a term or the name of a model"
        )
    return value


def _batches(values: list[Any]) -> Iterator[list[Any]]:
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))


def _first_words(exc: Exception) -> str:
    return str(exc).partition(" (configured timeouts")[0].partition(", Timeout:")[0]
