"""The contract of every place where memories rest.

An adapter stores items and finds them, by words and by nearness of embeddings, and nothing else: what is worth remembering,
what contradicts what, and how much of it a model is told lie above it (`memory.Memory`), so a new adapter can't get them
wrong. `praisonaiagents.testing.MemoryContract` checks any adapter against this.

What holds for every call:

- Whatever is found or counted or removed belongs to the scope, or the user, that was named. All three parts of a scope must
  be equal: user, session (None is a value like any other: the user's own items) and shelf. No call reaches two users.
- It returns and what it was given is stored; or it raises `StorageError` or a child of it (`EngineUnreachable`, ...), with
  the driver's own error as its cause. No text of an item is in an error.
- Reads are fresh: what a call returned before, in any process, the next call sees.
- Any number of threads may call at once.
- Making an adapter opens nothing; the first call does. `close` may be called any number of times, also after an open that
  failed and in a forked child; a call after it opens again.
- Values come back exactly as they were given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from praisonaiagents.model.memory import Embedding, MemoryItem, Scope


class Match(NamedTuple):
    """An item that was found. `score` says how well it fits: of two from one search, the greater fits better."""

    item: MemoryItem
    score: float


class ItemPage(NamedTuple):
    """One page of a listing, newest first. `after` gives the next page; None means there is none."""

    items: list[MemoryItem]
    after: str | None


@runtime_checkable
class MemoryAdapter(Protocol):
    """A place where memories rest. See the module for what holds for every call."""

    def put(self, items: Sequence[MemoryItem], embeddings: Sequence[Embedding | None] = ()) -> None:
        """Store items; one whose id the user has already is replaced, embedding included, also if it moves to another scope.

        embeddings: one for each item, or none at all. Items are checked before anything is stored (`check_item`). Where the
        place has transactions all are stored or none; elsewhere, those before the one that failed.
        """
        ...

    def get(self, user_id: str, item_id: str) -> MemoryItem | None:
        """The user's item of this id, live or superseded; None if there is none."""
        ...

    def in_slot(self, scope: Scope, slot: str) -> list[MemoryItem]:
        """The live items of the scope in this slot, the one updated last first."""
        ...

    def search_text(self, scope: Scope, terms: Collection[str], *, limit: int = 10) -> list[Match]:
        """Up to `limit` live items of the scope whose text has at least one of the terms (`memory.terms`), best first.

        An item with more of the terms, or with rarer ones, fits better. None for no terms.
        """
        ...

    def search_near(self, scope: Scope, embedding: Embedding, *, limit: int = 10) -> list[Match]:
        """Up to `limit` live items of the scope with an embedding of the same model, nearest first; the score is the cosine."""
        ...

    def list_items(
        self, scope: Scope, *, after: str | None = None, limit: int = 50, superseded: bool = False
    ) -> ItemPage:
        """Up to `limit` items of the scope, the one updated last first; with `superseded`, those that no longer count too.

        Items updated at the same instant come in an unspecified but stable order. `after` is the `ItemPage.after` of the page
        before. An item that is not changed while the pages are read is seen exactly once.
        """
        ...

    def delete(self, user_id: str, item_ids: Collection[str]) -> int:
        """Remove these items of the user for good. Returns how many there were."""
        ...

    def clear(self, scope: Scope) -> int:
        """Remove every item of the scope for good, superseded ones too. Returns how many there were."""
        ...

    def erase(self, user_id: str) -> int:
        """Remove every item of the user for good: of all sessions and both shelves. Returns how many there were."""
        ...

    def close(self) -> None:
        """Release what the adapter holds."""
        ...
