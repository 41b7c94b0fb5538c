"""Memories in ChromaDB: in a folder on this machine, or on a Chroma server.

    ChromaMemory(path="/var/lib/app/chroma")
    ChromaMemory(host="chroma.internal", port=8000, ssl=True, headers={"x-chroma-token": "..."})

All items lie in one collection, each as JSON in its document, so that it comes back exactly; beside it, in the metadata, is
what is searched by: the user, the scope, the slot and the terms of the text. An embedding lies in a collection of its own
model and number of dimensions, under the item's key. No embedding is ever made here: Chroma's own embedder, which downloads
a model, is never used, and its telemetry is off.

A scope is compared as one JSON text, `["alice",null,"memory"]`: no session id can equal the null of "no session".

What a reader would get wrong:

- Chroma merges the metadata of an item that is there already with what is put. So a key that no longer holds is put as None.
- Chroma has no transactions. The item itself is what counts: it is written after its embedding, and an embedding counts only
  if the item names it. Of a `put` that fails half-way, the items before the failure are stored.
- Chroma does not let two processes open one folder: they break each other's index of embeddings. So every call here takes a
  lock, and a process that finds that another one wrote opens the folder anew, which takes about 20 ms. This holds among
  users of this class; whoever opens the folder with `chromadb` itself meanwhile is not seen. Many processes want a server.
- Chroma in a folder does not live through a fork: in a child of a process that has used it, it hangs. So there every call but
  `close` raises `StorageError`. A server can be used on both sides.

A listing looks at all items of the scope, because Chroma cannot sort.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import threading
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Protocol

import msgspec

from praisonaiagents.errors import (
    ConfigError,
    EngineUnreachable,
    InvalidMessage,
    MissingDependency,
    PraisonError,
    StorageError,
    StorageFull,
)
from praisonaiagents.memory.adapter import ItemPage, Match
from praisonaiagents.memory.rank import bm25
from praisonaiagents.memory.terms import terms
from praisonaiagents.model.ids import check_user_id
from praisonaiagents.model.memory import Embedding, MemoryItem, Scope, check_embeddings, check_item, check_scope

Client = Any  # chromadb.api.client.Client: its types are narrower than what it takes
Records = Any  # chromadb.Collection
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,200}[a-zA-Z0-9]")
_BATCH = 500  # items of one request
_TERMS = 64  # of one request
_MOST_TERMS = 1_000  # of one item: Chroma stores each in a row of its own
_SPARE = 20  # neighbours asked for beyond the limit, in case some have changed meanwhile
_CONNECT_S = 5.0
_ANSWER_S = 30.0
_HNSW = {"space": "cosine", "ef_search": 1_000, "ef_construction": 200}  # with less, it misses neighbours


class ChromaMemory:
    """Memories in ChromaDB. Nothing is opened before the first call.

    path: a folder, made if need be. host, port, ssl, headers: a server instead; headers may carry its token.
    collection: the name of the collection of items, and the beginning of the names of those of embeddings.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        host: str | None = None,
        port: int = 8000,
        ssl: bool = False,
        headers: Mapping[str, str] | None = None,
        collection: str = "memories",
    ) -> None:
        if (path is None) == (host is None):
            raise ConfigError("memory in Chroma needs a path or a host, one of them")
        if not _NAME.fullmatch(collection):
            raise ConfigError("a Chroma collection has a name of 3 to 202 letters, digits, '.', '_' and '-'")
        self._collection = collection
        self._place: _Place = (
            _Folder(os.path.realpath(os.path.expanduser(os.fspath(path))))
            if path is not None
            else _Server(str(host), port, ssl, dict(headers or {}))
        )

    def put(self, items: Sequence[MemoryItem], embeddings: Sequence[Embedding | None] = ()) -> None:
        for item in items:
            check_item(item)
        pairs = zip(items, check_embeddings(items, embeddings), strict=True)
        rows = {_key(item.scope.user_id, item.id): (item, embedding) for item, embedding in pairs}
        with self._call(changes=True) as chroma:
            keys = list(rows)
            for start in range(0, len(keys), _BATCH):
                chroma.put({key: rows[key] for key in keys[start : start + _BATCH]})

    def get(self, user_id: str, item_id: str) -> MemoryItem | None:
        key = _key(check_user_id(user_id), _text(item_id))
        with self._call() as chroma:
            return chroma.items([key]).get(key)

    def in_slot(self, scope: Scope, slot: str) -> list[MemoryItem]:
        with self._call() as chroma:
            found = chroma.main.get(where={"slot": _in(scope, _text(slot))}, include=["documents"])
        items = [_item(document) for document in found["documents"] or []]
        return sorted(items, key=lambda item: item.updated_at, reverse=True)

    def search_text(self, scope: Scope, terms: Collection[str], *, limit: int = 10) -> list[Match]:
        wanted = list(dict.fromkeys(_text(term) for term in terms))
        live = _in(scope)
        if not wanted or limit < 1:
            return []
        with self._call() as chroma:
            scores = bm25(wanted, chroma.having(live, wanted))
            return chroma.matches(live, scores, limit)

    def search_near(self, scope: Scope, embedding: Embedding, *, limit: int = 10) -> list[Match]:
        live = _in(scope)
        if limit < 1:
            return []
        with self._call(changes=True) as chroma:  # a query brings Chroma's index up to date, and that is written
            return chroma.near(live, embedding, limit)

    def list_items(
        self, scope: Scope, *, after: str | None = None, limit: int = 50, superseded: bool = False
    ) -> ItemPage:
        where, before = {"scope" if superseded else "live": _in(scope)}, _place(after)
        with self._call() as chroma:
            found = chroma.main.get(where=where, include=["metadatas"])
            places = [(-data["updated"], key) for key, data in zip(found["ids"], found["metadatas"] or [], strict=True)]
            rest = sorted(place for place in places if before is None or place > before)
            page = rest[:limit]
            items = chroma.items([key for _, key in page])
        more = page and len(rest) > limit
        token = msgspec.json.encode(page[-1]).decode() if more else None
        return ItemPage([items[key] for _, key in page if key in items], token)

    def delete(self, user_id: str, item_ids: Collection[str]) -> int:
        user = check_user_id(user_id)
        keys = sorted({_key(user, _text(item_id)) for item_id in item_ids})
        with self._call(changes=True) as chroma:
            return sum(chroma.remove(keys[start : start + _BATCH]) for start in range(0, len(keys), _BATCH))

    def clear(self, scope: Scope) -> int:
        where = {"scope": _in(scope)}
        with self._call(changes=True) as chroma:
            return chroma.remove_all(where)

    def erase(self, user_id: str) -> int:
        where = {"user": check_user_id(user_id)}
        with self._call(changes=True) as chroma:
            return chroma.remove_all(where)

    def close(self) -> None:
        self._place.close()

    def __repr__(self) -> str:
        return f"ChromaMemory({self._place}, collection={self._collection!r})"

    @contextmanager
    def _call(self, *, changes: bool = False) -> Iterator[_Collections]:
        """The collections. What Chroma raises is said in our words: neither a token nor a text of an item is in it."""
        try:
            from chromadb.errors import ChromaAuthError
            from httpx import ConnectError, ConnectTimeout
        except ImportError as exc:
            raise MissingDependency("memory in Chroma", "chroma") from exc
        place = str(self._place)
        try:
            with self._place.open(changes) as client:
                yield _Collections(client, self._collection)
        except PraisonError:
            raise
        except ChromaAuthError as exc:
            raise EngineUnreachable(f"Chroma at {place} does not let us in", place) from exc
        except (ConnectError, ConnectTimeout) as exc:
            raise EngineUnreachable(f"no Chroma server answers at {place}", place) from exc
        except Exception as exc:
            if "disk is full" in str(exc):
                raise StorageFull(f"no room left in {place}", place) from exc
            raise StorageError(f"Chroma at {place} failed: {type(exc).__name__}", place) from exc


class _Collections:
    """The collection of items, and those of embeddings, of one client."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self.main = client.get_or_create_collection(name, embedding_function=None)

    # Writing

    def put(self, rows: Mapping[str, tuple[MemoryItem, Embedding | None]]) -> None:
        """Store embeddings, then items, then remove what these items have in collections of other models."""
        models: dict[str, dict[str, Embedding]] = {}
        for key, (_, embedding) in rows.items():
            if embedding is not None:
                models.setdefault(self._near(embedding), {})[key] = embedding
        for name, points in models.items():
            self._put_points(name, points, rows)
        self.main.upsert(
            ids=list(rows),
            embeddings=[[1.0, 0.0]] * len(rows),  # the items are a table: these say nothing, but Chroma wants some
            metadatas=[_metadata(item, embedding) for item, embedding in rows.values()],
            documents=[msgspec.json.encode(item).decode() for item, _ in rows.values()],
        )
        for records in self._all_near():
            if gone := [key for key in rows if key not in models.get(records.name, ())]:
                records.delete(ids=gone)

    def _put_points(
        self, name: str, points: Mapping[str, Embedding], rows: Mapping[str, tuple[MemoryItem, Embedding | None]]
    ) -> None:
        records = self._client.get_or_create_collection(
            name,
            embedding_function=None,
            configuration={"hnsw": _HNSW},
        )
        records.upsert(
            ids=list(points),
            embeddings=[list(map(float, point.values)) for point in points.values()],
            metadatas=[
                {name: data[name] for name in ("user", "scope", "live", "point")}
                for data in (_metadata(rows[key][0], point) for key, point in points.items())
            ],
        )

    def remove(self, keys: list[str]) -> int:
        if not keys:
            return 0
        there = self.main.get(ids=keys, include=[])["ids"]
        if there:
            self.main.delete(ids=there)
        for records in self._all_near():
            records.delete(ids=keys)
        return len(there)

    def remove_all(self, where: dict[str, Any]) -> int:
        keys = self.main.get(where=where, include=[])["ids"]
        count = sum(self.remove(keys[start : start + _BATCH]) for start in range(0, len(keys), _BATCH))
        for records in self._all_near():
            records.delete(where=where)  # also what a crash left without its item
        return count

    # Reading

    def items(self, keys: list[str]) -> dict[str, MemoryItem]:
        if not keys:
            return {}
        found = self.main.get(ids=keys, include=["documents"])
        return dict(zip(found["ids"], map(_item, found["documents"] or []), strict=True))

    def having(self, live: str, wanted: list[str]) -> dict[str, list[str]]:
        """The terms of each live item of the scope that has one of these."""
        found: dict[str, list[str]] = {}
        for start in range(0, len(wanted), _TERMS):
            some: list[dict[str, Any]] = [{"terms": {"$contains": term}} for term in wanted[start : start + _TERMS]]
            one_of = some[0] if len(some) == 1 else {"$or": some}
            rows = self.main.get(where={"$and": [{"live": live}, one_of]}, include=["metadatas"])
            found |= {key: data["terms"] for key, data in zip(rows["ids"], rows["metadatas"] or [], strict=True)}
        return found

    def near(self, live: str, embedding: Embedding, limit: int) -> list[Match]:
        name = self._near(embedding)
        records = next((records for records in self._all_near() if records.name == name), None)
        if records is None:
            return []
        found = records.query(
            query_embeddings=[list(map(float, embedding.values))],
            n_results=limit + _SPARE,
            where={"live": live},
            include=["distances", "metadatas"],
        )
        keys, distances = found["ids"][0], (found["distances"] or [[]])[0]
        points = {key: data["point"] for key, data in zip(keys, (found["metadatas"] or [[]])[0], strict=True)}
        scores = {key: 1.0 - distance for key, distance in zip(keys, distances, strict=True)}
        return self.matches(live, scores, limit, points)

    def matches(
        self, live: str, scores: Mapping[str, float], limit: int, points: Mapping[str, Any] | None = None
    ) -> list[Match]:
        """The best of what was found, as the items are now: one that has changed its scope or embedding is left out."""
        best = sorted(scores, key=lambda key: (-scores[key], key))[: limit + (_SPARE if points else 0)]
        if not best:
            return []
        found = self.main.get(ids=best, include=["metadatas", "documents"])
        rows = zip(found["ids"], found["metadatas"] or [], found["documents"] or [], strict=True)
        items = {
            key: _item(document)
            for key, data, document in rows
            if data.get("live") == live and (points is None or data.get("point") == points[key])
        }
        return [Match(items[key], scores[key]) for key in best if key in items][:limit]

    # Names

    def _near(self, embedding: Embedding) -> str:
        """The name of the collection of embeddings of this model and number of dimensions."""
        model = hashlib.sha256(_text(embedding.model).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return f"{self._name}.near.{model}.{len(embedding.values)}"

    def _all_near(self) -> list[Records]:
        pattern = re.compile(re.escape(self._name) + r"\.near\.[0-9a-f]{16}\.\d+")
        return [
            self._client.get_collection(found.name, embedding_function=None)
            for found in self._client.list_collections()
            if pattern.fullmatch(found.name)
        ]


# Items as Chroma keeps them


def _metadata(item: MemoryItem, embedding: Embedding | None) -> dict[str, Any]:
    live = item.superseded_by is None
    return {
        "user": item.scope.user_id,
        "scope": _in(item.scope),
        "live": _in(item.scope) if live else None,
        "slot": _in(item.scope, item.slot) if live and item.slot is not None else None,
        "terms": list(dict.fromkeys(terms(item.text)))[:_MOST_TERMS] or None,
        "updated": float(item.updated_at),
        "point": _fingerprint(embedding) if embedding else None,
    }


def _fingerprint(embedding: Embedding) -> str:
    """What an embedding is known by: the same for the same values, so that two who put the same do not disagree."""
    return hashlib.sha256(array("f", embedding.values).tobytes()).hexdigest()[:32]


def _in(scope: Scope, *slot: str) -> str:
    """The scope, or a slot in it, as a text that no other has."""
    return msgspec.json.encode([*check_scope(scope), *slot]).decode()


def _key(user_id: str, item_id: str) -> str:
    return msgspec.json.encode((user_id, item_id)).decode()


def _item(document: str) -> MemoryItem:
    return msgspec.json.decode(document, type=MemoryItem)


def _place(after: str | None) -> tuple[float, str] | None:
    if after is None:
        return None
    try:
        return msgspec.json.decode(after, type=tuple[float, str])
    except msgspec.MsgspecError as exc:
        raise ConfigError("after is what a page before gave, and nothing else") from exc


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidMessage(
            f"this is text and not {type(value).__name__}: an id, a slot, a term or the name of a model"
        )
    return value


# Where it is


class _Place(Protocol):
    """Where a client comes from. Its text is what may be shown of it."""

    def open(self, changes: bool) -> AbstractContextManager[Client]: ...

    def close(self) -> None: ...


def _settings() -> Any:
    from chromadb.config import Settings

    return Settings(anonymized_telemetry=False)


class _Server:
    """A client of our own for a server. It may be used by any number of threads."""

    def __init__(self, host: str, port: int, ssl: bool, headers: dict[str, str]) -> None:
        self._address = host, port
        self._ssl = ssl
        self._headers = headers
        self._inherited: list[object] = []
        self._client: Client | None = None
        self._pid, self._lock = os.getpid(), threading.Lock()

    def __str__(self) -> str:
        return f"{'https' if self._ssl else 'http'}://{self._address[0]}:{self._address[1]}"

    @contextmanager
    def open(self, changes: bool) -> Iterator[Client]:
        self._leave_to_parent()
        with self._lock:
            client = self._client = self._client or self._connected()
        yield client

    def close(self) -> None:
        self._leave_to_parent()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            for session in _sessions(client):
                session.close()
            client.close()

    def _connected(self) -> Client:
        import chromadb

        try:
            socket.create_connection(self._address, timeout=_CONNECT_S).close()  # Chroma's client would wait for ever
        except OSError as exc:
            raise EngineUnreachable(f"no Chroma server answers at {self}: {exc.strerror or exc}", str(self)) from exc
        host, port = self._address
        client = chromadb.HttpClient(host, port, ssl=self._ssl, headers=dict(self._headers), settings=_settings())
        import httpx

        for session in _sessions(client):
            session.timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
        return client

    def _leave_to_parent(self) -> None:
        if self._pid != os.getpid():
            self._inherited.append(self._client)
            self._client = None
            self._pid, self._lock = os.getpid(), threading.Lock()


def _sessions(client: Any) -> list[Any]:
    """The HTTP connections of a client, and of the one it has inside; its `close` does not close them."""
    systems = (client._server, client._admin_client._server)
    return [server._session for server in systems if hasattr(server, "_session")]


class _Folder:
    """A folder, by its real path. All who use it in one process share one client, one lock, and one open lock file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._shared: _SharedFolder | None = None
        self._pid, self._lock = os.getpid(), threading.Lock()

    def __str__(self) -> str:
        return self._path

    @contextmanager
    def open(self, changes: bool) -> Iterator[Client]:
        self._leave_to_parent()
        with self._lock:
            self._shared = self._shared or _SharedFolder.of(self._path)
            shared = _SharedFolder.of(self._path)  # for this call, in case another thread closes meanwhile
        try:
            with shared.open(changes) as client:
                yield client
        finally:
            shared.let_go()

    def close(self) -> None:
        self._leave_to_parent()
        with self._lock:
            shared, self._shared = self._shared, None
        if shared is not None:
            shared.let_go()

    def _leave_to_parent(self) -> None:
        if self._pid != os.getpid():
            self._shared = None
            self._pid, self._lock = os.getpid(), threading.Lock()


class _SharedFolder:
    """The client of a folder in this process. The lock file counts the changes, so that others' are noticed."""

    _all: ClassVar[dict[str, _SharedFolder]] = {}
    _all_lock: ClassVar[threading.Lock] = threading.Lock()
    _inherited: ClassVar[list[object]] = []
    _opened: ClassVar[bool] = False  # by this process, or by one that it was forked from
    _forked: ClassVar[bool] = False

    def __init__(self, path: str) -> None:
        self._path = path
        self._users = 0
        self._lock = threading.RLock()
        self._file = -1
        self._seen = b""
        self._client: Client | None = None

    @classmethod
    def of(cls, path: str) -> _SharedFolder:
        with cls._all_lock:
            shared = cls._all.setdefault(path, cls(path))
            shared._users += 1
            return shared

    def let_go(self) -> None:
        with self._all_lock:
            self._users -= 1
            if self._users:
                return
            del self._all[self._path]
        self._close_client()
        if self._file >= 0:
            os.close(self._file)

    @contextmanager
    def open(self, changes: bool) -> Iterator[Client]:
        with self._lock:
            file = self._locked()
            try:
                if os.pread(file, 32, 0) != self._seen:
                    self._close_client()
                    self._seen = os.pread(file, 32, 0)
                self._client = self._client or self._connected()
                if changes:  # said before it is done: whoever comes after a crash looks anew
                    self._seen = os.urandom(16).hex().encode()
                    os.pwrite(file, self._seen, 0)
                yield self._client
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _locked(self) -> int:
        if self._file < 0:
            os.makedirs(self._path, mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(os.path.join(self._path, "praisonai.lock"), flags, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self._file

    def _connected(self) -> Client:
        import chromadb

        if self._forked:
            raise StorageError(
                f"{self._path}: Chroma hangs in a process that was forked after it was used: start processes with 'spawn', "
                "or use a Chroma server",
                self._path,
            )
        type(self)._opened = True
        return chromadb.PersistentClient(self._path, settings=_settings())

    def _close_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    @classmethod
    def _in_child(cls) -> None:
        """What the parent opened is neither used nor closed in a forked child, nor ever collected: its threads are gone."""
        import sys

        cls._inherited.append(cls._all)
        cls._all, cls._all_lock, cls._forked = {}, threading.Lock(), cls._opened
        if module := sys.modules.get("chromadb.api.shared_system_client"):
            cls._inherited.append(module.SharedSystemClient._identifier_to_system)
            module.SharedSystemClient.clear_system_cache()


os.register_at_fork(after_in_child=_SharedFolder._in_child)
