"""Two branches of a conversation: what they share, what each has of its own, and how one takes over the other's turns.

    difference = diff(store, "main", "other-way")
    merge(store, "main", "other-way")

Two messages are the same if they say the same, whatever their ids: a fork shares both, a turn that was asked again only the
words. What a reader would get wrong: merging does not weave two histories into one. What only the source has comes after all
that is there, as copies, each with a mark of where it comes from; and only whole turns come, because an answer without its
question, or a tool's result without its call, is something no model takes. So a turn that both began, and that went on in
two ways, comes with its question. A message is known again by its id; one without, as in files of PraisonAI, by its place, so
that it is another one in each session.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from praisonaiagents.errors import Conflict, MergeRefused
from praisonaiagents.model.message import Message, encode
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.session.data import iso
from praisonaiagents.session.hierarchy import HierarchicalSessionStore
from praisonaiagents.session.numbered import numbered
from praisonaiagents.session.owned import owned
from praisonaiagents.session.retry import retry_on_conflict
from praisonaiagents.storage.engine import Engine

MERGED = "merged_from"
"""In the metadata of a copy: `{"session_id", "message_id", "time"}` of its source; of a summary, of the last message that it
stands for, and `messages`, how many those are."""

Summary = str | Callable[[list[Message]], str]


class Side(msgspec.Struct, frozen=True):
    """What only one of two histories has: messages from `first_index` on.

    at: the point of the session that was looked at; None for what it shows now.
    earlier: how many older messages it still shows that the other has let go of. indices: of each message; what cannot be read
    is counted, so that `message:N` names the same one.
    """

    session_id: str
    at: str | None
    first_index: int
    messages: list[Message]
    earlier: int = 0
    indices: list[int] = []

    def to_dict(self) -> dict[str, Any]:
        """The side as a JSON object; each message with its index, id and time."""
        shown = [
            {"index": index, "id": message.id, "when": iso(message.timestamp)}
            | message.to_chat()
            | ({"model": message.model} if message.model else {})
            | ({MERGED: message.metadata[MERGED]} if MERGED in message.metadata else {})
            for index, message in zip(self.indices, self.messages, strict=True)
        ]
        fields = {"session_id": self.session_id, "at": self.at, "first_index": self.first_index}
        return fields | {"earlier": self.earlier, "messages": shown}


class Diff(msgspec.Struct, frozen=True):
    """Two histories: what both have from the beginning on, then what only `a` and what only `b` has."""

    common: list[Message]
    a: Side
    b: Side

    @property
    def is_empty(self) -> bool:
        """True if both show the same."""
        return not (self.a.messages or self.b.messages or self.a.earlier or self.b.earlier)

    def to_dict(self) -> dict[str, Any]:
        """The difference as a JSON object. Of what both have, `common` is the number of messages."""
        return {"common": len(self.common), "a": self.a.to_dict(), "b": self.b.to_dict()}


class Merged(msgspec.Struct, frozen=True):
    """What a merge did: the ids of the messages it added, none if all of them had been merged before."""

    into: str
    source: str
    message_ids: list[str]
    is_summary: bool = False


def diff(
    store: HierarchicalSessionStore,
    a: str,
    b: str,
    *,
    at_a: str | None = None,
    at_b: str | None = None,
    user_id: str | None = None,
) -> Diff:
    """What two sessions of a user share and what each has of its own; or two points of one session, if `a` is `b`.

    at_a, at_b: a snapshot, an earlier head or a message, as in `HierarchicalSessionStore.revert`; None for what is shown now.
    Raises `SessionNotFound`, `PointNotFound`.
    """
    left = _history_at(store, a, at_a, user_id)
    right = _history_at(store, b, at_b, user_id)
    left_skipped, right_skipped, shared = _shared(left.messages, right.messages)
    return Diff(
        left.messages[left_skipped : left_skipped + shared],
        _side(a, at_a, left, left_skipped, shared),
        _side(b, at_b, right, right_skipped, shared),
    )


def messages_at(
    store: HierarchicalSessionStore, session_id: str, at: str | None = None, *, user_id: str | None = None
) -> list[Message]:
    """What a session showed at a point, oldest first. Raises `SessionNotFound`, `PointNotFound`."""
    return _history_at(store, session_id, at, user_id).messages


def merge(
    store: HierarchicalSessionStore,
    into: str,
    source: str,
    *,
    at: str | None = None,
    summary: Summary | None = None,
    user_id: str | None = None,
) -> Merged:
    """Add the turns that only `source` has to the end of `into`, all or none; nothing else changes. Both are one user's.

    at: a point of the source, see `diff`. summary: one message that stands for those turns, instead of them: its text, or
    what makes the text from the messages. What was merged before, as turns or in a summary, is left out, so merging twice
    adds nothing.

    Raises `MergeRefused` if the source has nothing that is not in `into`, if either is in the middle of a tool call, and for
    a blank summary; `SessionNotFound`, `PointNotFound`, and what `SessionStore.append` raises.
    """
    if into == source and at is None:
        raise MergeRefused(f"session {into!r} cannot be merged into itself; an earlier point of it can")
    offered = _history_at(store, source, at, user_id)
    made: dict[tuple[str, ...], Message] = {}

    def in_short(part: list[Message], summary: Summary) -> list[Message]:
        which = tuple(message.id for message in part)
        if which not in made:  # a model is not asked again because somebody else wrote meanwhile
            made[which] = _summary(part, summary, source)
        return [made[which]]

    def attempt() -> Merged:
        record = owned(store, into, user_id)
        present = _history(store.engine, record, archived=True)
        _check_not_moved(store.engine, record)
        part, goes_on = _to_merge(present, offered)
        if not part:
            return Merged(into, source, [], is_summary=summary is not None)
        _check_whole(part, source)
        if summary is not None:
            _check_whole(present.messages, into)
            new = in_short(part, summary)
        else:
            if not goes_on:
                _check_whole(present.messages, into)
                _check_begins_whole(part, source)
            new = [_copy(message, source) for message in part]
        _check_not_moved(store.engine, record)
        store.append(into, new, user_id=user_id, expected_length=record.length)
        return Merged(into, source, [message.id for message in new], is_summary=summary is not None)

    return retry_on_conflict(attempt)


# What is read


class _History(NamedTuple):
    """Messages of a session with their numbers. In `range` lie also those that cannot be read."""

    key: Key
    range: range
    numbers: list[int]
    messages: list[Message]

    def named(self) -> list[Message]:
        """The messages, each with an id."""
        pairs = zip(self.numbers, self.messages, strict=True)
        return [message if message.id else _named(message, self.key, number) for number, message in pairs]


def _history_at(store: HierarchicalSessionStore, session_id: str, at: str | None, user_id: str | None) -> _History:
    record = owned(store, session_id, user_id)
    return _history(store.engine, record, at=None if at is None else store.point_of(record, at))


def _history(engine: Engine, record: Record, *, at: Pin | None = None, archived: bool = False) -> _History:
    length = at.length if at else record.length
    found = engine.read(record.key, 0 if archived else None, length, at=at)
    pairs = numbered(engine, record.key, found, length, at=at)
    numbers = [number for number, _ in pairs]
    return _History(record.key, range(found.first, length), numbers, [message for _, message in pairs])


def _named(message: Message, key: Key, number: int) -> Message:
    """With the id that it has in an export, too."""
    place = msgspec.json.encode((*key, number))
    digest = hashlib.blake2b(place + encode(message), digest_size=10).hexdigest()
    return msgspec.structs.replace(message, id=f"msg-{digest}")


def _check_not_moved(engine: Engine, record: Record) -> None:
    """Raise `Conflict` if the session shows another history by now, which may be as long."""
    now = engine.get(record.key)
    if now is None or now.log != record.log:
        raise Conflict("revision of the session", record.revision, now.revision if now else 0)


# What is shared


def _side(session_id: str, at: str | None, history: _History, skipped: int, shared: int) -> Side:
    """What comes after what is shared."""
    first = skipped + shared
    indices = [number - history.range.start for number in history.numbers[first:]]
    first_index = indices[0] if indices else len(history.range)
    return Side(session_id, at, first_index, history.messages[first:], skipped, indices)


def _shared(left: Sequence[Message], right: Sequence[Message]) -> tuple[int, int, int]:
    """How many messages to pass over on either side before both begin alike, and how many they share from there on."""
    left_skipped, right_skipped = _beginnings(left, right)
    pairs = zip(left[left_skipped:], right[right_skipped:], strict=False)
    shared = 0
    for one, other in pairs:
        if not _says_the_same(one, other):
            break
        shared += 1
    return left_skipped, right_skipped, shared


def _beginnings(left: Sequence[Message], right: Sequence[Message]) -> tuple[int, int]:
    """Where one of two branches has let go of its oldest messages, the other begins to be compared where the first does.

    A copy that a merge made proves nothing: it has the same id wherever it was merged, and anything may come before it.
    """
    if left and right and not _says_the_same(left[0], right[0]):
        for skipped, message in enumerate(right):
            if _is_the_same(message, left[0]):
                return 0, skipped
        for skipped, message in enumerate(left):
            if _is_the_same(message, right[0]):
                return skipped, 0
    return 0, 0


def _is_the_same(one: Message, other: Message) -> bool:
    return one.id == other.id and MERGED not in one.metadata and _says_the_same(one, other)


def _says_the_same(one: Message, other: Message) -> bool:
    return one.to_chat() == other.to_chat()


# What is merged


def _to_merge(target: _History, source: _History) -> tuple[list[Message], bool]:
    """The messages of the source that are to be merged, in order, none if all were before; and whether they go on exactly
    where the others end. Raises `MergeRefused`."""
    skipped, start, shared = _shared(target.messages, source.messages)
    present, offered = target.named(), source.named()
    start += shared
    goes_on = skipped + shared == len(present)
    if not goes_on and start < len(offered):
        start = _turn_start(offered, start)
    ids = {message.id for message in present}
    from_here = {name for message in present for name in (_copy_id(message), _summary_id(message))}
    part = [
        message
        for message in _not_summarised(offered[start:], ids)
        if _copy_id(message) not in ids and message.id not in from_here
    ]
    if not part:
        if not any({_copy_id(message), _summary_id(message)} & ids for message in offered):
            ours, theirs = target.key.session_id, source.key.session_id
            raise MergeRefused(f"session {theirs!r} has no turn that {ours!r} does not have")
        return [], goes_on
    return part, goes_on


def _turn_start(messages: Sequence[Message], index: int) -> int:
    """Index of the user's message that the turn of a message begins with; of the message itself if there is none."""
    return next((place for place in range(index, -1, -1) if messages[place].role == "user"), index)


def _not_summarised(messages: Sequence[Message], ids: set[str]) -> Sequence[Message]:
    last = max((place for place, message in enumerate(messages) if _summary_id(message) in ids), default=-1)
    return messages[last + 1 :]


def _check_whole(messages: Sequence[Message], session_id: str) -> None:
    """Raise `MergeRefused` if the last turn waits for the result of a tool call."""
    last_turn = messages[_turn_start(messages, len(messages) - 1) :] if messages else ()
    waiting: dict[str, None] = {}
    for message in last_turn:
        waiting |= {call["id"]: None for call in message.calls()}
        waiting.pop(message.tool_call_id or "", None)
    if waiting:
        raise MergeRefused(
            f"session {session_id!r} waits for the result of a tool call ({', '.join(waiting)}): go on with it first, or "
            "merge a point before that turn"
        )


def _check_begins_whole(part: Sequence[Message], source: str) -> None:
    called: set[str] = set()
    for message in part:
        called |= {call["id"] for call in message.calls()}
        if message.role == "tool" and message.tool_call_id not in called:
            raise MergeRefused(
                f"what only session {source!r} has begins with the result of a tool call that is not in it: without its "
                "call no model takes it; merge a summary instead"
            )


def _copy(message: Message, source: str) -> Message:
    """The message as it goes into another session. A copy stays a copy of the first one."""
    if MERGED in message.metadata:
        return msgspec.structs.replace(message, timestamp=0.0)
    origin = {MERGED: _origin(message, source)}
    return msgspec.structs.replace(message, id=_copy_id(message), timestamp=0.0, metadata=message.metadata | origin)


def _summary(part: list[Message], summary: Summary, source: str) -> Message:
    text = summary if isinstance(summary, str) else summary(part)
    if not text.strip():
        raise MergeRefused("the summary is empty; nothing was merged")
    heading = f"Summary of another branch of this conversation, {len(part)} messages:"
    origin = _origin(part[-1], source) | {"messages": len(part)}
    # what others said gains no authority by being summed up, so no system message
    return Message("user", f"{heading}\n{text.strip()}", id=_summary_id(part[-1]), metadata={MERGED: origin})


def is_summary(message: Message) -> bool:
    """True for a summary that a merge added. Its role is the user's, but the user did not say it."""
    origin = message.metadata.get(MERGED)
    return isinstance(origin, dict) and "messages" in origin


def _origin(message: Message, source: str) -> dict[str, Any]:
    return {"session_id": source, "message_id": message.id, "time": iso(message.timestamp)}


def _copy_id(message: Message) -> str:
    """The id of a message's copy, the same from whichever fork the message comes."""
    return message.id if MERGED in message.metadata else _derived("copy", message)


def _summary_id(message: Message) -> str:
    return _derived("summary", message)


def _derived(kind: str, message: Message) -> str:
    return f"{kind}-{hashlib.sha256(encode(message)).hexdigest()[:24]}"
