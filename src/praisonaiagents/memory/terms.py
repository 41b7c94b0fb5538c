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
