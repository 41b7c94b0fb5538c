"""A title for a session that has none, from its first turns.

    await auto_title(store, "trip", ask)        what a model calls it, or the user's first words

`ask` is given a question and returns a model's answer. What a reader would get wrong: it is a convenience and never worth an
error. A model that fails, takes longer than 10 s or answers with more than a title is not asked again: the first words of the
user are the title then. Only a store that fails raises.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from praisonaiagents.model.ids import check_session_id, check_user_id
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session.data import title_of
from praisonaiagents.session.owned import change_metadata
from praisonaiagents.session.store import SessionStore

AskForText = Callable[[str], Awaitable[str]]

LONGEST = 60  # characters
TIMEOUT_S = 10.0
_MOST_WORDS = 8
_LOOKED_AT = 12  # messages
_OF_ONE_MESSAGE = 500  # characters
_QUESTION = (
    "Give this conversation a title of 3 to 8 words, at most 60 characters, in the language the user writes. "
    "Answer with the title only: no quotes, no full stop, nothing else.\n\n"
)
_MARKUP = re.compile(r"^[\s#>*\-`\"'“”„«»]+|[\s*`\"'“”„«».:]+$")
_LABEL = re.compile(r"^title\s*:\s*", re.IGNORECASE)


async def auto_title(
    store: SessionStore,
    session_id: str,
    ask: AskForText | None = None,
    *,
    user_id: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> bool:
    """Give the session a title if it has none and at least one turn of it was answered. True if it was given one.

    ask: asks a model; without it, the title is the user's first words. Raises what the store raises, and `SessionNotFound`
    for a session that was deleted meanwhile.
    """
    found = await asyncio.to_thread(_untitled, store, session_id, user_id)
    title = await _asked(found, ask, timeout_s) or _first_words(found)
    return bool(title) and await asyncio.to_thread(_entitle, store, session_id, user_id, title)


def cut(text: str, longest: int = LONGEST) -> str:
    """The first line of a text without markup, cut between words where it is longer than `longest` characters."""
    line = next((line for line in map(_plain, text.splitlines()) if line), "")
    if len(line) <= longest:
        return line
    start, blank, _ = line[:longest].rpartition(" ")
    return f"{start if blank else line[: longest - 1]}…"


# Inside


def _untitled(store: SessionStore, session_id: str, user_id: str | None) -> list[Message]:
    """The first messages of a session that has no title and an answered turn; else none."""
    key = Key(check_user_id(user_id), check_session_id(session_id))
    record = store.engine.get(key)
    if record is None or title_of(record):
        return []
    messages = store.engine.read(key, record.start, record.start + _LOOKED_AT).messages
    roles = {message.role for message in messages if message.status != "failed" and message.text().strip()}
    return messages if {"user", "assistant"} <= roles else []


async def _asked(messages: Sequence[Message], ask: AskForText | None, timeout_s: float) -> str:
    """What the model calls it; empty if it is not asked, fails, is late, or says more than a title."""
    if not messages or ask is None:
        return ""
    try:
        async with asyncio.timeout(timeout_s):
            answer = await ask(_QUESTION + _excerpt(messages))
    except Exception:
        return ""  # there is a title to fall back on
    lines = [line for line in answer.splitlines() if line.strip()]
    title = _plain(_LABEL.sub("", _plain(lines[0]))) if len(lines) == 1 else ""
    fits = len(title) <= LONGEST and len(title.split()) <= _MOST_WORDS and title.isprintable()
    return title if fits else ""


def _excerpt(messages: Sequence[Message]) -> str:
    spoken = [message for message in messages if message.role in ("user", "assistant") and message.text().strip()]
    return "\n".join(f"{message.role}: {message.text().strip()[:_OF_ONE_MESSAGE]}" for message in spoken)


def _first_words(messages: Sequence[Message]) -> str:
    return next((title for message in messages if message.role == "user" and (title := cut(message.text()))), "")


def _entitle(store: SessionStore, session_id: str, user_id: str | None, title: str) -> bool:
    """Give the session the title unless somebody gave it another one meanwhile."""
    given = False

    def entitled(record: Record) -> dict[str, Any]:
        nonlocal given
        given = title_of(record) is None
        return record.metadata | {"title": title} if given else record.metadata

    change_metadata(store, session_id, user_id, entitled)
    return given


def _plain(text: str) -> str:
    """A line without markup, quotes and full stop around it, and without what a terminal would obey."""
    return _MARKUP.sub("", "".join(char if char.isprintable() else " " for char in text))
