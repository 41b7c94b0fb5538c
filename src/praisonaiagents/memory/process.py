"""Memories in this process: the meaning of the contract, and what tests and short-lived programs need. It ends with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import msgspec

from praisonaiagents.errors import ConfigError
from praisonaiagents.memory.adapter import ItemPage, Match
from praisonaiagents.memory.rank import bm25, cosine
from praisonaiagents.memory.terms import terms as terms_of
from praisonaiagents.model.ids import check_user_id
from praisonaiagents.model.memory import Embedding, MemoryItem, Scope, check_embeddings, check_item, check_scope


class _Kept(NamedTuple):
    number: int  # in the order of the puts
    item: MemoryItem
    embedding: Embedding | None


class ProcessMemory:
    """Memories in a dict. `close` forgets nothing: they end with the object."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._number = 0
        self._lock = threading.Lock()

    def put(self, items: Sequence[MemoryItem], embeddings: Sequence[Embedding | None] = ()) -> None:
        for item in items:
            check_item(item)
        points = check_embeddings(items, embeddings)
        with self._lock:
            for item, embedding in zip(items, points, strict=True):
                self._number += 1
                self._kept[item.scope.user_id, item.id] = _Kept(self._number, _copy(item), embedding)

    def get(self, user_id: str, item_id: str) -> MemoryItem | None:
        kept = self._kept.get((check_user_id(user_id), item_id))
        return _copy(kept.item) if kept else None

    def in_slot(self, scope: Scope, slot: str) -> list[MemoryItem]:
        return [_copy(kept.item) for kept in self._live(scope) if kept.item.slot == slot]

    def search_text(self, scope: Scope, terms: Collection[str], *, limit: int = 10) -> list[Match]:
        items = {kept.item.id: kept.item for kept in self._live(scope)}
        scores = bm25(terms, {name: terms_of(item.text) for name, item in items.items()})
        return _best([Match(items[name], score) for name, score in scores.items()], limit)

    def search_near(self, scope: Scope, embedding: Embedding, *, limit: int = 10) -> list[Match]:
        near = [
            Match(kept.item, cosine(embedding.values, kept.embedding.values))
            for kept in self._live(scope)
            if kept.embedding is not None
            and kept.embedding.model == embedding.model
            and len(kept.embedding.values) == len(embedding.values)
        ]
        return _best(near, limit)

    def list_items(
        self, scope: Scope, *, after: str | None = None, limit: int = 50, superseded: bool = False
    ) -> ItemPage:
        last = _place(after)
        found = self._in(scope, lambda kept: superseded or kept.item.superseded_by is None)
        rest = [kept for kept in found if last is None or (kept.item.updated_at, kept.number) < last]
        page = rest[: max(limit, 0)]
        more = page and len(rest) > limit
        return ItemPage(
            [_copy(kept.item) for kept in page], f"{page[-1].item.updated_at!r} {page[-1].number}" if more else None
        )

    def delete(self, user_id: str, item_ids: Collection[str]) -> int:
        user = check_user_id(user_id)
        return self._remove(lambda item: item.scope.user_id == user and item.id in item_ids)

    def clear(self, scope: Scope) -> int:
        wanted = check_scope(scope)
        return self._remove(lambda item: item.scope == wanted)

    def erase(self, user_id: str) -> int:
        user = check_user_id(user_id)
        return self._remove(lambda item: item.scope.user_id == user)

    def close(self) -> None:
        """There is nothing to release."""

    def _live(self, scope: Scope) -> list[_Kept]:
        return self._in(scope, lambda kept: kept.item.superseded_by is None)

    def _in(self, scope: Scope, wanted: Callable[[_Kept], bool]) -> list[_Kept]:
        """The items of a scope, the one updated last first."""
        scope = check_scope(scope)
        with self._lock:
            found = [kept for kept in self._kept.values() if kept.item.scope == scope and wanted(kept)]
        return sorted(found, key=lambda kept: (kept.item.updated_at, kept.number), reverse=True)

    def _remove(self, is_to_go: Callable[[MemoryItem], bool]) -> int:
        with self._lock:
            gone = [key for key, kept in self._kept.items() if is_to_go(kept.item)]
            for key in gone:
                del self._kept[key]
        return len(gone)


def _best(matches: list[Match], limit: int) -> list[Match]:
    ranked = sorted(matches, key=lambda match: -match.score)[: max(limit, 0)]
    return [Match(_copy(match.item), match.score) for match in ranked]


def _place(after: str | None) -> tuple[float, int] | None:
    if after is None:
        return None
    time, _, number = after.partition(" ")
    try:
        return float(time), int(number)
    except ValueError:
        raise ConfigError("after is what a page before gave, and nothing else") from None


def _copy(item: MemoryItem) -> MemoryItem:
    """An item that shares nothing with this one."""
    copy: MemoryItem = msgspec.json.decode(msgspec.json.encode(item), type=MemoryItem)
    return copy
