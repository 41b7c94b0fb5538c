"""Compaction: a summary stands for the oldest messages of a session when history goes to a model.

    compact(store, "my-session", summarise, keep_last=20)        # summarise(messages) -> text

    work = find(store, "my-session")                             # the same in three steps, for a model that is awaited
    texts = [await ask(messages) for messages in work.sources]
    finish(store, work, texts)

Nothing is removed: the messages stay, are found by `search`, and are shown; the checkpoint (see `checkpoint`) points to them.
It is written in one step after the last summary is there. So whatever fails or is killed before changes nothing, and of two
that compact at once one wins.

What a reader would get wrong: no summary is ever made from a summary. The source is cut into stretches of at most
`source_tokens`, each told in a part of its own. A part whose stretch is full stays as it was made; the last one is made anew,
from its messages and those that came since. So a compaction reads one or two stretches however long the session is, and the
summary grows by one part a stretch. A part whose messages are not all there any more (`retention="truncate"`, a fork, a
dropped archive) cannot be made anew; it stays too.

Tokens are estimated by `estimate_tokens` unless the caller brings a `count`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import msgspec

from praisonaiagents.errors import ConfigError, ModelError, NotReplicated, OutcomeUnknown, SessionNotFound
from praisonaiagents.model.ids import check_session_id, check_user_id
from praisonaiagents.model.message import Message, about_tokens
from praisonaiagents.model.record import Key
from praisonaiagents.model.repair import repair
from praisonaiagents.model.window import before_open_calls, retention_start, turn_starts
from praisonaiagents.session.checkpoint import CHECKPOINT, Checkpoint, Part, checkpoint_of, written
from praisonaiagents.session.numbered import numbered
from praisonaiagents.session.retry import retry_on_conflict
from praisonaiagents.session.store import SessionStore

KEEP_LAST = 20
SOURCE_TOKENS = 24_000
_FRAME_TOKENS = 4
_TOKENS_PER_FILE = 1_000
_NOTHING = "(Only turns that failed.)"

Count = Callable[[Message], int]
Summarise = Callable[[Sequence[Message]], str]


def estimate_tokens(message: Message) -> int:
    """About how many tokens a message costs: a quarter of the bytes of its text and tool calls in UTF-8, 4 for its frame, and
    1,000 for each part that is no text, such as an image.

    Close for English prose; it may be off by half for code and other scripts.
    """
    parts = message.content if isinstance(message.content, list) else []
    files = len([part for part in parts if isinstance(part, dict) and part.get("type") != "text"])
    calls = msgspec.json.encode(message.tool_calls).decode() if message.tool_calls else ""
    return _FRAME_TOKENS + _TOKENS_PER_FILE * files + about_tokens(message.text() + calls)


class Policy(msgspec.Struct, frozen=True):
    """When a conversation is compacted by itself, and what stays then.

    at_tokens, at_messages: how long the part of it that no summary stands for may be; None: as long as it likes.
    keep_last: how many of the last messages stay as they are. Default: half of `at_messages`, and of tokens half of `at_tokens`.
    """

    at_tokens: int | None = None
    at_messages: int | None = None
    keep_last: int | None = None

    def is_over(self, messages: Sequence[Message]) -> bool:
        """Whether it is time."""
        if self.at_messages is not None and len(messages) > self.at_messages:
            return True
        return self.at_tokens is not None and sum(map(estimate_tokens, messages)) > self.at_tokens

    def limits(self) -> dict[str, Any]:
        """The arguments of `find` that follow from it."""
        keep_last = self.keep_last
        if self.at_messages is not None:
            keep_last = min(keep_last or self.at_messages, max(1, self.at_messages // 2))
        keep_tokens = None if self.at_tokens is None else self.at_tokens // 2
        source = SOURCE_TOKENS if self.at_tokens is None else min(SOURCE_TOKENS, self.at_tokens)
        return {"keep_last": keep_last, "keep_tokens": keep_tokens, "source_tokens": source}


class Work(msgspec.Struct, frozen=True):
    """What is to be summed up. sources: for each summary that is needed, the messages it is made from, as a model takes them.

    parts: those of the checkpoint to be, without text where it is yet to come. before: the checkpoint that there is, as stored.
    """

    key: Key
    sources: list[list[Message]]
    parts: list[Part]
    log: str
    before: Any
    kept: int
    tokens_before: int
    tokens_kept: int


class Compacted(msgspec.Struct, frozen=True):
    """What a compaction did. messages: how many the summary stands for; kept: how many follow it. Tokens are estimates."""

    session_id: str
    user_id: str
    messages: int
    kept: int
    tokens_before: int
    tokens_after: int
    summary: str


def compact(
    store: SessionStore,
    session_id: str,
    summarise: Summarise,
    *,
    keep_last: int | None = KEEP_LAST,
    keep_tokens: int | None = None,
    source_tokens: int = SOURCE_TOKENS,
    count: Count = estimate_tokens,
    user_id: str | None = None,
) -> Compacted | None:
    """Let a summary stand for all but the last messages. `summarise` is given messages, oldest first, and returns text.

    None if there is nothing to compact, or if somebody else changed the session's history meanwhile. What `summarise` raises
    is raised; then, and when it returns no text (`ModelError`), nothing has changed. See `find` for the rest.
    """
    work = find(
        store,
        session_id,
        keep_last=keep_last,
        keep_tokens=keep_tokens,
        source_tokens=source_tokens,
        count=count,
        user_id=user_id,
    )
    return finish(store, work, [summarise(source) for source in work.sources]) if work else None


def find(
    store: SessionStore,
    session_id: str,
    *,
    keep_last: int | None = KEEP_LAST,
    keep_tokens: int | None = None,
    source_tokens: int = SOURCE_TOKENS,
    count: Count = estimate_tokens,
    user_id: str | None = None,
) -> Work | None:
    """What there is to sum up so that at most the last `keep_last` messages, of at most `keep_tokens` together, stay as they are.

    Whole turns stay, so it may be fewer; only a last turn that alone is too long is cut inside, between its tool calls. The
    last message always stays, and no tool call is parted from its result. None if there is nothing to sum up. Reads only.
    Raises `SessionNotFound`, `ConfigError`.
    """
    _check(keep_last=keep_last, keep_tokens=keep_tokens, source_tokens=source_tokens)
    key = Key(check_user_id(user_id), check_session_id(session_id))
    record = store.engine.get(key)
    if record is None:
        raise SessionNotFound(session_id, key.user_id)
    done = checkpoint_of(record)
    last = done.parts[-1] if done and done.parts else None
    found = numbered(store.engine, key, store.engine.read(key, max(0, last.first) if last else 0), record.length)
    parts, first = _lasting(done, found)
    source = [(number, message) for number, message in found if number >= first]
    messages = [message for _, message in source]
    stop = _first_kept(messages, keep_last, keep_tokens, count)
    told = done.number if done else 0
    if stop == 0 or source[stop - 1][0] < told:
        return None
    pieces = _stretches(messages[:stop], source_tokens, count)
    new, sources = _to_tell(pieces, [number for number, _ in source], last)
    return Work(
        key=key,
        sources=sources,
        parts=[*parts, *new],
        log=record.log,
        before=record.extra.get(CHECKPOINT),
        kept=len(messages) - stop,
        tokens_before=_text_tokens(done.text if done else "")
        + sum(count(message) for number, message in found if number >= told),
        tokens_kept=sum(map(count, messages[stop:])),
    )


def finish(
    store: SessionStore, work: Work, summaries: Sequence[str], *, metadata: dict[str, Any] | None = None
) -> Compacted | None:
    """Let the summaries, one for each of `work.sources`, stand for their messages.

    None, and nothing has changed, if somebody else compacted the session meanwhile, took it back, replaced it or deleted it.
    Raises `ModelError` for a summary without text, and what the engine raises.
    """
    parts = _filled(work.parts, summaries)
    value = written(parts, tokens_before=work.tokens_before, timestamp=time.time(), metadata=metadata or {})
    tokens_after = _text_tokens(value["summary"]) + work.tokens_kept
    value["tokens_after"] = tokens_after
    if not _put(store, work, value):
        return None
    return Compacted(
        work.key.session_id,
        work.key.user_id,
        messages=parts[-1].stop - parts[0].first,
        kept=work.kept,
        tokens_before=work.tokens_before,
        tokens_after=tokens_after,
        summary=value["summary"],
    )


def _put(store: SessionStore, work: Work, value: dict[str, Any]) -> bool:
    """Write the checkpoint if the session is still the one that was looked at. False if it is not."""

    def put() -> bool:
        record = store.engine.get(work.key)
        if record is None or record.log != work.log:
            return False
        there = record.extra.get(CHECKPOINT)
        if there != work.before:
            return isinstance(there, dict) and there == value | {"message_index": there.get("message_index")}
        number = value["message_number"]
        here = value | {"message_index": max(0, number - record.start)}
        try:
            store.engine.update(
                work.key, {"extra": record.extra | {CHECKPOINT: here}}, expected_revision=record.revision
            )
        except SessionNotFound:
            return False
        return True

    try:
        return retry_on_conflict(put)
    except NotReplicated:
        raise
    except OutcomeUnknown:
        return retry_on_conflict(put)  # which finds its own checkpoint, if that was written


def _lasting(done: Checkpoint | None, found: Sequence[tuple[int, Message]]) -> tuple[list[Part], int]:
    """The parts that stay as they are, and the number of the first message to sum up. found: all from the last part on."""
    if done is None:
        return [], 0
    parts = list(done.parts) or [Part(done.text, 0, done.number, done.first_id)]
    if found and _begins(parts[-1], *found[0]):
        return parts[:-1], parts[-1].first
    return parts, done.number


def _begins(part: Part, number: int, message: Message) -> bool:
    """Whether this is the message that the part begins with."""
    return number == part.first and part.first_id in ("", message.id)


def _first_kept(messages: Sequence[Message], keep_last: int | None, keep_tokens: int | None, count: Count) -> int:
    """Index of the first message that stays as it is."""
    if not messages:
        return 0
    size = len(messages) if keep_last is None else keep_last
    if keep_tokens is not None:
        size = min(size, _fitting(messages, keep_tokens, count))
    return before_open_calls(messages, retention_start(messages, max(1, size)))


def _fitting(messages: Sequence[Message], tokens: int, count: Count) -> int:
    """How many of the last messages have at most so many tokens together."""
    for fitting, message in enumerate(reversed(messages)):
        tokens -= count(message)
        if tokens < 0:
            return fitting
    return len(messages)


def _stretches(messages: Sequence[Message], tokens: int, count: Count) -> list[Sequence[Message]]:
    """The messages in pieces of whole turns, each of at most so many tokens, or of one turn that has more."""
    pieces: list[Sequence[Message]] = []
    begin, size = 0, 0
    for start, stop in pairwise([0, *(index for index in turn_starts(messages) if index), len(messages)]):
        turn = sum(map(count, messages[start:stop]))
        if start > begin and size + turn > tokens:
            pieces.append(messages[begin:start])
            begin, size = start, 0
        size += turn
    return [*pieces, messages[begin:]]


def _as_parts(pieces: Sequence[Sequence[Message]], numbers: Sequence[int]) -> list[Part]:
    """A part without text for each piece. numbers: those of the messages of all pieces, and more."""
    ends = [*accumulate(map(len, pieces))]
    return [
        Part("", numbers[end - len(piece)], numbers[end - 1] + 1, piece[0].id, piece[-1].id)
        for end, piece in zip(ends, pieces, strict=True)
    ]


def _to_tell(
    pieces: Sequence[Sequence[Message]], numbers: Sequence[int], last: Part | None
) -> tuple[list[Part], list[list[Message]]]:
    """The parts of these pieces, and the messages that are to be told. last: a part that there is, which may be one of them."""
    parts: list[Part] = []
    sources: list[list[Message]] = []
    for part, piece in zip(_as_parts(pieces, numbers), pieces, strict=True):
        if last and (part.first, part.stop) == (last.first, last.stop):
            parts.append(last)
        elif source := repair(piece):
            parts.append(part)
            sources.append(source)
        else:
            parts.append(msgspec.structs.replace(part, summary=_NOTHING))
    return parts, sources


def _filled(parts: Sequence[Part], summaries: Sequence[str]) -> list[Part]:
    missing = sum(not part.summary for part in parts)
    if len(summaries) != missing or not all(isinstance(text, str) and text.strip() for text in summaries):
        raise ModelError("a summary has no text; nothing was changed")
    texts = iter(summaries)
    return [part if part.summary else msgspec.structs.replace(part, summary=next(texts).strip()) for part in parts]


def _text_tokens(text: str) -> int:
    return estimate_tokens(Message("user", text)) if text else 0


def _check(**limits: int | None) -> None:
    for name, value in limits.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"{name} is a number from 1, not {value!r}")
