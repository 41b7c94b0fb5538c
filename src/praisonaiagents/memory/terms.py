"""What a memory can be found by: the tokens of its text, English endings taken off, the same for items and for questions."""

from __future__ import annotations

from praisonaiagents.model.search import tokens

_STOP = frozenset(
    "a an the is are was were what who where when how do does did i me my you your user of to in on for and".split()
)


def terms(text: str) -> list[str]:
    """The terms of a text, in order, repeated where they are repeated."""
    return [_stem(token) for token in tokens(text)]


def query_terms(text: str) -> list[str]:
    """The terms of a question without those that nearly every text has, unless there are no others; each once."""
    found = dict.fromkeys(terms(text))
    return [term for term in found if term not in _STOP] or list(found)


def _stem(token: str) -> str:
    if not token.isascii() or len(token) < 4:
        return token
    for ending in ("ing", "ed", "es", "s"):
        if token.endswith(ending) and len(token) - len(ending) >= 3:
            return token.removesuffix(ending)
    return token
