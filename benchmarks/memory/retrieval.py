"""The labelled facts, kept as the messages come, and then asked for.

A question of the part "made" is asked after the messages of that part, one of the part "held" after all: by then many facts are
superseded, and those must not be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import mean
from typing import NamedTuple

from benchmarks.memory.embedders import Embedder
from benchmarks.memory.extraction import fits
from benchmarks.memory.labels import Message, Query
from praisonaiagents.memory.adapter import MemoryAdapter
from praisonaiagents.memory.facts import Fact, item_id, known_to, reconcile
from praisonaiagents.memory.memory import fuse
from praisonaiagents.memory.rules import extract
from praisonaiagents.memory.terms import query_terms
from praisonaiagents.model.memory import Embedding, MemoryItem, Scope, Source

_DEPTH = 10  # places that are looked at
Search = Callable[[Scope, str], list[MemoryItem]]


class Found(NamedTuple):
    """recall_1, recall_5: of the answers that fit among so many places, the share that is there. mrr: the mean of 1 / place of
    the first answer, 0 if it is not among ten. leaked: items of somebody else.
    """

    questions: int
    recall_1: float
    recall_5: float
    mrr: float
    leaked: int


class Asked:
    """An adapter with the labelled facts in it, and the ways to ask."""

    def __init__(self, adapter: MemoryAdapter, messages: Iterable[Message], embedder: Embedder | None = None) -> None:
        self.adapter, self._embedder = adapter, embedder
        self.ids: dict[str, str] = {}
        for number, message in enumerate(messages):
            scope = Scope(message.user)
            facts = [Fact(label.text, slot=label.slot) for label in message.facts]
            self.ids |= {label.id: item_id(scope, label.text, label.slot) for label in message.facts}
            self._put(_kept(adapter, facts, scope, number))

    def by_text(self, scope: Scope, query: str) -> list[MemoryItem]:
        return [match.item for match in self.adapter.search_text(scope, query_terms(query), limit=_DEPTH)]

    def by_vectors(self, scope: Scope, query: str) -> list[MemoryItem]:
        return [match.item for match in self.adapter.search_near(scope, self._points([query])[0], limit=_DEPTH)]

    def by_both(self, scope: Scope, query: str) -> list[MemoryItem]:
        text = self.adapter.search_text(scope, query_terms(query), limit=2 * _DEPTH)
        near = self.adapter.search_near(scope, self._points([query])[0], limit=2 * _DEPTH)
        return [recalled.item for recalled in fuse(text, near)][:_DEPTH]

    def score(self, search: Search, queries: Sequence[Query]) -> Found:
        ranks: list[list[int]] = []
        leaked = 0
        for query in queries:
            items = search(Scope(query.user), query.query)
            leaked += sum(item.scope.user_id != query.user for item in items)
            wanted = {self.ids[answer] for answer in query.answers}
            ranks.append([place for place, item in enumerate(items, 1) if item.id in wanted])
        sizes = [len(query.answers) for query in queries]
        shares = [
            mean(sum(rank <= k for rank in found) / min(k, size) for found, size in zip(ranks, sizes, strict=True))
            for k in (1, 5)
        ]
        return Found(len(queries), shares[0], shares[1], mean(1 / found[0] if found else 0 for found in ranks), leaked)

    def _put(self, items: Sequence[MemoryItem]) -> None:
        self.adapter.put(items, self._points([item.text for item in items]) if self._embedder and items else ())

    def _points(self, texts: Sequence[str]) -> list[Embedding]:
        assert self._embedder is not None
        return [Embedding("benchmark", values) for values in self._embedder(texts)]


def leaked(asked: Asked, search: Search, queries: Sequence[Query]) -> int:
    """How many items of somebody else are found if each user asks everybody's questions."""
    users = sorted({query.user for query in queries})
    found = ((user, item) for user in users for query in queries for item in search(Scope(user), query.query))
    return sum(item.scope.user_id != user for user, item in found)


def stale(adapter: MemoryAdapter, messages: Sequence[Message]) -> tuple[int, int]:
    """What the rules leave behind at the end of all messages: (superseded facts they found, those that still count)."""
    slots: dict[tuple[str, str], str] = {}
    noticed: list[tuple[Message, int, str]] = []
    for number, message in enumerate(messages):
        scope = Scope(message.user)
        facts = extract(message.says)
        adapter.put(_kept(adapter, facts, scope, number))
        for place, label in enumerate(message.facts):
            slots |= {(message.user, label.slot): label.id} if label.slot else {}
            answer = next((fact for fact in facts if fits(fact, label)), None)
            noticed += [(message, place, item_id(scope, answer.text, answer.slot))] if answer else []
    old = [
        adapter.get(message.user, item)
        for message, place, item in noticed
        if (label := message.facts[place]).slot and slots[message.user, label.slot] != label.id
    ]
    return len(old), sum(item is not None and item.superseded_by is None for item in old)


def _kept(adapter: MemoryAdapter, facts: Sequence[Fact], scope: Scope, number: int) -> list[MemoryItem]:
    source = Source("benchmark", f"m{number}")
    return reconcile(facts, known_to(adapter, facts, scope), scope=scope, source=source, now=float(number + 1))
