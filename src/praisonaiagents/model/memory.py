"""What is remembered beyond one conversation: an item of memory, where it belongs, and what it is about.

    MemoryItem(id="mem-1", scope=Scope("alice"), text="The user's name is Alice", kind="fact", slot="user.name")

An item belongs to one scope and is only ever found there. What a reader would get wrong: what is no longer true is not
deleted. Of two live items in one slot the newer takes the other's place, and the older one stays, with `superseded_by`
naming the newer; so it can be told what was believed when, and why not any more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from praisonaiagents.errors import InvalidMessage
from praisonaiagents.model.ids import check_session_id, check_user_id
from praisonaiagents.model.message import check_json

KINDS = ("fact", "preference", "decision", "correction", "note", "passage")
MEMORY, KNOWLEDGE = "memory", "knowledge"
_LARGEST = (2 - 2**-23) * 2.0**127  # of the 32-bit floats, as which embeddings are stored
MAX_TEXT = 32_000  # characters: what is longer is a document, which knowledge cuts into passages


class Scope(NamedTuple):
    """Where an item belongs: to one user, and to one session of theirs or (None) to all of them.

    shelf: "memory", or "knowledge", which is kept apart from it.
    """

    user_id: str
    session_id: str | None = None
    shelf: str = MEMORY


class Source(NamedTuple):
    """The message an item was taken from. The message may be gone by now."""

    session_id: str
    message_id: str


class MemoryItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is remembered.

    id: unique among all items of the user.
    text: what is remembered, as a sentence that can be understood alone.
    kind: one of `KINDS`.
    slot: what it is about, such as "user.name"; None if nothing could contradict it.
    confidence: how sure whoever extracted it was, from 0 to 1.
    created_at, updated_at: seconds since 1970, UTC; the second is when it was last said or changed.
    sources: the messages it was taken from, oldest first.
    superseded_by: the id of the item that took its place; None while it counts.
    metadata: the caller's own JSON object.
    """

    id: str
    scope: Scope
    text: str
    kind: str = "note"
    slot: str | None = None
    confidence: float = 1.0
    created_at: float = 0.0
    updated_at: float = 0.0
    sources: tuple[Source, ...] = ()
    superseded_by: str | None = None
    metadata: dict[str, Any] = {}

    def __repr__(self) -> str:
        """Which, but not what: a repr ends up in logs."""
        return f"MemoryItem(id={self.id!r}, kind={self.kind!r}, slot={self.slot!r}, {len(self.text)} characters)"


class Embedding(NamedTuple):
    """A text as a point in the space of one embedding model. Only points of one model can be compared."""

    model: str
    values: Sequence[float]


def check_scope(scope: Scope) -> Scope:
    """The scope, with an empty user made the default one. Raises `InvalidId`, `InvalidMessage` for an unknown shelf."""
    if scope.shelf not in (MEMORY, KNOWLEDGE):
        raise InvalidMessage(f"a shelf is {MEMORY!r} or {KNOWLEDGE!r}")
    session_id = None if scope.session_id is None else check_session_id(scope.session_id)
    return Scope(check_user_id(scope.user_id), session_id, scope.shelf)


def check_item(item: MemoryItem) -> None:
    """Raise `InvalidId` or `InvalidMessage` unless the item can be stored and read back exactly."""
    if check_scope(item.scope) != item.scope:
        raise InvalidMessage("the scope of an item names its user")
    for name in ("id", "text", "kind"):
        _check_text(name, getattr(item, name))
    for name in ("slot", "superseded_by"):
        if getattr(item, name) is not None:
            _check_text(name, getattr(item, name))
    if len(item.text) > MAX_TEXT:
        raise InvalidMessage(
            f"the text has {len(item.text):,} characters, the limit is {MAX_TEXT:,}: add it as knowledge"
        )
    if item.kind not in KINDS:
        raise InvalidMessage(f"unknown kind of memory; kinds: {', '.join(KINDS)}")
    _check_number("confidence", item.confidence, 1.0)
    for name in ("created_at", "updated_at"):
        _check_number(name, getattr(item, name), math.inf)
    for source in item.sources:
        if type(source) is not Source:
            raise InvalidMessage("sources are pairs of a session id and a message id")
        _check_text("source", source.session_id)
        _check_text("source", source.message_id)
    if type(item.metadata) is not dict:
        raise InvalidMessage(f"metadata cannot be {type(item.metadata).__name__}")
    check_json(item.metadata, "metadata")
    try:
        msgspec.json.encode(item)
    except UnicodeEncodeError as exc:
        raise InvalidMessage("the item contains half a character (a lone surrogate)") from exc


def check_embeddings(items: Sequence[MemoryItem], embeddings: Sequence[Embedding | None]) -> list[Embedding | None]:
    """One for each item, None where there is none. Raises `InvalidMessage` unless there are as many, all of finite numbers."""
    if embeddings and len(embeddings) != len(items):
        raise InvalidMessage(f"{len(items)} items and {len(embeddings)} embeddings: give one for each, or none at all")
    for embedding in embeddings:
        if embedding is not None:
            check_embedding(embedding)
    return list(embeddings) or [None] * len(items)


def check_embedding(embedding: Embedding) -> None:
    """Raise `InvalidMessage` unless it has numbers, all of them finite also in 32 bits."""
    if not (len(embedding.values) and all(abs(value) <= _LARGEST for value in embedding.values)):
        raise InvalidMessage("an embedding is made of finite numbers of 32 bits, and not empty")


def _check_text(name: str, value: object) -> None:
    if type(value) is not str:
        raise InvalidMessage(f"{name} of a memory is text, not {type(value).__name__}")
    if not value.strip():
        raise InvalidMessage(f"{name} of a memory cannot be empty")


def _check_number(name: str, value: object, most: float) -> None:
    if type(value) not in (int, float) or not 0 <= value <= most or value == math.inf:  # type: ignore[operator]
        raise InvalidMessage(f"{name} of a memory is a number from 0{f' to {most:g}' if most < math.inf else ''}")
