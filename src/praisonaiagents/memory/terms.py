"""What a memory can be found by: the tokens of its text, English endings taken off, the same for items and for questions."""

from __future__ import annotations

from functools import cache

from praisonaiagents.model.search import tokens

_WORDS = (
    "a an and any are as at be been but by can could did do does for from had has have he her him his how i if in into is it its"
    " just me mine my no not of on or our ours s shall she should so some t tell than that the their them then there these they"
    " this those to too us was we were what when where which who whom whose why will with would you your yours"
)


def terms(text: str) -> list[str]:
    """The terms of a text, in order, repeated where they are repeated."""
    return [_stem(token) for token in tokens(text)]


def query_terms(text: str) -> list[str]:
    """The terms of a question without those that nearly every text has, unless there are no others; each once."""
    found = dict.fromkeys(terms(text))
    return [term for term in found if term not in _common()] or list(found)


@cache
def _common() -> frozenset[str]:
    return frozenset(terms(_WORDS))


def _stem(token: str) -> str:
    """An English word without its ending, well enough: `loves`, `loved`, `loving` and `love` are one. Not a dictionary's stem."""
    if len(token) < 4 or not (token.isascii() and token.isalpha()):
        return token
    if token.endswith("ies"):
        token = token[:-3] + "y"
    elif token.endswith("s") and not token.endswith(("ss", "us", "is")):
        token = token[:-1]
    for ending in ("ing", "ed"):
        if token.endswith(ending) and len(token) >= len(ending) + 3:
            token = token.removesuffix(ending)
            break
    token = token.removesuffix("e") if len(token) > 3 else token
    return token[:-1] if len(token) > 3 and token[-1] == token[-2] and token[-1] not in "ls" else token
