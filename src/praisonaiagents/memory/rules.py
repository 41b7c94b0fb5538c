"""Facts that a user states plainly, found by rules: no model, no network, the same result each time."""

from __future__ import annotations

import re

from praisonaiagents.memory.facts import Fact

_SENTENCE = re.compile(r"(?<=[.!?])\s+|[\r\n]+")
_NAME = re.compile(r"\b[Mm]y name is ([A-Z][\w'-]{1,40}(?: [A-Z][\w'-]{1,40}){0,2})")
_LIKES = re.compile(r"\bI (?:really )?(?:love|like|enjoy) ([\w -]{2,60})")
_SECRET = re.compile(r"(?i)\b(?:password|passwort|api[ _-]?key|secret|token)\b|\bsk-[\w-]{8,}|\b(?:\d[ -]?){13,19}\b")


def is_secret(text: str) -> bool:
    """True if a text looks like it holds a password, a key or a card number, which are never remembered."""
    return bool(_SECRET.search(text))


def extract(user_text: str, assistant_text: str | None = None) -> list[Fact]:
    """The facts in what a user said, in its order."""
    facts: list[Fact] = []
    for sentence in _SENTENCE.split(user_text[:20_000]):
        if len(sentence) > 400 or sentence.endswith("?") or is_secret(sentence):
            continue
        if name := _NAME.search(sentence):
            facts.append(Fact(f"The user's name is {name[1]}", slot="user.name", confidence=0.95))
        if likes := _LIKES.search(sentence):
            what = likes[1].strip()
            facts.append(Fact(f"The user likes {what}", "preference", f"user.likes.{what.lower()}", 0.8))
    return facts
