"""From facts that were extracted to the items that are stored.

    Fact("The user's name is Alice", slot="user.name")          stored
    Fact("The user's name is Alice", slot="user.name")          the same item, confirmed
    Fact("The user's name is Al", slot="user.name")             a new item; the first one is superseded by it

The id of an item is derived from what it says and where it belongs. So a fact that is extracted twice, even by two processes
at once, is one item, and nobody has to look for duplicates.

What a reader would get wrong: "said again" means in another message. The facts of a message that was reconciled before are
not said again, or a turn that is repeated after a crash would bring back what a later message has corrected.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from praisonaiagents.memory.adapter import MemoryAdapter
from praisonaiagents.model.memory import MemoryItem, Scope, Source

MAX_SOURCES = 20


class Fact(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that somebody said and that is worth remembering.

    text: a sentence that can be understood alone, in the third person: "The user does not like coffee".
    kind: one of `model.memory.KINDS`.
    slot: what it is about, such as "user.name"; of two facts in one slot the later is true. None if nothing can contradict it.
    confidence: from 0 to 1.
    denies: the text of the fact that this one takes back ("The user lives in Rome"). It is left out if its slot holds
        something else by now.
    """

    text: str
    kind: str = "fact"
    slot: str | None = None
    confidence: float = 1.0
    denies: str | None = None


def item_id(scope: Scope, text: str, slot: str | None) -> str:
    """The id of what says this there. Case, spacing and the full stop at the end make no difference."""
    said = json.dumps([*scope, slot, _normal(text)], ensure_ascii=True)
    return f"mem-{hashlib.sha256(said.encode()).hexdigest()[:32]}"


def known_to(adapter: MemoryAdapter, facts: Iterable[Fact], scope: Scope) -> list[MemoryItem]:
    """The items that `reconcile` has to know: what the slots of the facts hold, and what says the same already."""
    known: dict[str, MemoryItem] = {}
    facts = list(facts)
    for slot in dict.fromkeys(fact.slot for fact in facts if fact.slot is not None):
        known |= {item.id: item for item in adapter.in_slot(scope, slot)}
    for same in {item_id(scope, fact.text, fact.slot) for fact in facts} - set(known):
        item = adapter.get(scope.user_id, same)
        if item is not None:
            known[same] = item
    return list(known.values())


def reconcile(
    facts: Iterable[Fact], known: Iterable[MemoryItem], *, scope: Scope, source: Source | None, now: float
) -> list[MemoryItem]:
    """The items to put so that these facts, all from one message and in its order, are remembered in this scope.

    known: see `known_to`. Two that are live in one slot, as a race may leave them, are settled: the newer counts.
    source: the message; None if there is none, and then every call says the facts again.
    now: seconds since 1970, UTC.

    What counts comes before what it supersedes: stored one after the other, nothing is missing in between.
    """
    before = {item.id: item for item in known if item.scope == scope}
    shelf = _Shelf(before)
    for fact in facts:
        same = item_id(scope, fact.text, fact.slot)
        old = before.get(same)
        if old is not None and source is not None and source in old.sources:
            shelf.items[same] = _surer(shelf.items[same], fact)
        elif not shelf.contradicts(fact, scope):
            new = MemoryItem(same, scope, fact.text, slot=fact.slot, confidence=fact.confidence, created_at=now)
            shelf.add(_said(shelf.items.get(same, new), fact, source, now))
    changed = [item for item in shelf.items.values() if item != before.get(item.id)]
    return sorted(changed, key=lambda item: item.superseded_by is not None)


class _Shelf:
    """Items by id, with at most one that is live in each slot: the one added last."""

    def __init__(self, items: dict[str, MemoryItem]) -> None:
        self.items = dict(items)
        self._holders: dict[str, str] = {}
        for item in sorted(items.values(), key=lambda item: (item.updated_at, item.created_at, item.id)):
            if item.superseded_by is None:
                self.add(item)

    def add(self, item: MemoryItem) -> None:
        self.items[item.id] = item
        if item.slot is None:
            return
        holder = self._holders.get(item.slot, item.id)
        if holder != item.id:
            self.items[holder] = replace(self.items[holder], superseded_by=item.id)
        self._holders[item.slot] = item.id

    def contradicts(self, fact: Fact, scope: Scope) -> bool:
        """True if the fact takes back what its slot does not hold any more."""
        holder = None if fact.slot is None else self._holders.get(fact.slot)
        if fact.denies is None or holder is None:
            return False
        return holder not in (item_id(scope, text, fact.slot) for text in (fact.denies, fact.text))


def _said(item: MemoryItem, fact: Fact, source: Source | None, now: float) -> MemoryItem:
    """The item after the fact was said, once more or for the first time. The latest spelling is kept."""
    return replace(
        item,
        text=fact.text,
        kind=fact.kind,
        confidence=max(item.confidence, fact.confidence),
        updated_at=max(item.updated_at, now),
        sources=_with(item.sources, source),
        superseded_by=None,
    )


def _surer(item: MemoryItem, fact: Fact) -> MemoryItem:
    return replace(item, confidence=max(item.confidence, fact.confidence))


def _with(sources: Sequence[Source], source: Source | None) -> tuple[Source, ...]:
    """The sources and this one: the first, which tells since when, and the latest."""
    if source is None or source in sources:
        return tuple(sources)
    return (*sources[:1], *sources[1:][-(MAX_SOURCES - 2) :], source)


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .!,;") or text
