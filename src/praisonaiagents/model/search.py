"""What a text can be found by: one pure function, the same for every engine.

    tokens("Le café, 日本語!")   ["le", "cafe", "日本", "本語", "語"]

A word is a run of letters and digits, without case, accents and width. Chinese, Japanese and Korean are written without
spaces (or with endings glued on), and no database's own tokeniser finds their words; a run of them gives every pair of
neighbours, and its last character alone, so that a single character is found as the beginning of a token.

A query matches a text that holds all of its terms. `word*` matches every token that begins so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

_CJK = (
    "\u2e80-\u2fdf\u3005-\u3007\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3100-\u312f"
    "\u3131-\u318e\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U00020000-\U000323af"
)
_RUN = re.compile(f"(?P<cjk>[{_CJK}]+)|[^\\W_{_CJK}]+")
_TERM = re.compile(rf"([\w{_CJK}]+)(\*?)")
_LONGEST = 64  # characters of a token; longer ones are cut, here and in queries alike
_BLANKS = "".join(chr(code) if chr(code).isalnum() else " " for code in range(128))  # all of ASCII that is in no token
_ASCII_RUN = re.compile("[a-z0-9]+")
_SNIPPET = 160  # characters


class Query(NamedTuple):
    """Terms that a text must hold: whole tokens, and beginnings of tokens."""

    words: tuple[str, ...]
    beginnings: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.words or self.beginnings)

    def matches(self, text: str) -> bool:
        """True if the text holds all terms."""
        held = set(tokens(text))
        return held.issuperset(self.words) and all(
            any(token.startswith(beginning) for token in held) for beginning in self.beginnings
        )


def tokens(text: str) -> list[str]:
    """The tokens of a text, in order, repeated where they are repeated. Made of letters and digits only."""
    if text.isascii():  # most texts are, and every append asks
        found = text.lower().translate(_BLANKS).split()
        if len(text) <= _LONGEST or max(map(len, found), default=0) <= _LONGEST:
            return found
        return [run[:_LONGEST] for run in found]
    return [token for run, is_cjk in _runs(text) for token in (_pairs(run) if is_cjk else (run[:_LONGEST],))]


def parse(text: str) -> Query:
    """The query that a person typed. It is empty if there is no letter or digit in it."""
    words: list[str] = []
    beginnings: list[str] = []
    for term, star in _TERM.findall(unicodedata.normalize("NFKC", text)):
        runs = list(_runs(term))
        for number, (run, is_cjk) in enumerate(runs):
            last = number == len(runs) - 1
            if is_cjk:
                found = [run[i : i + 2] for i in range(len(run) - 1)]
                words += found
                beginnings += [] if found else [run]
            elif star and last:
                beginnings.append(run[:_LONGEST])
            else:
                words.append(run[:_LONGEST])
    return Query(tuple(dict.fromkeys(words)), tuple(dict.fromkeys(beginnings)))


def snippet(text: str, query: Query, size: int = _SNIPPET) -> str:
    """The part of a text around its first match, on one line, at most `size` characters and an ellipsis at a cut end."""
    place = next((start for start, _ in spans(text, query)), 0)
    start = max(0, place - size // 4)
    if start:
        space = text.find(" ", start, place)
        start = space + 1 if space >= 0 else start
    cut = text[start : start + size]
    line = " ".join(cut.split())
    return ("…" if start else "") + line + ("…" if start + size < len(text) else "")


def spans(text: str, query: Query) -> Iterator[tuple[int, int]]:
    """(from, to) of every place in a text where a term of the query stands, in order. They may overlap."""
    return ((start, start + len(found)) for start, found in _places(text) if _is_term(found, query))


def _is_term(found: str, query: Query) -> bool:
    return any(
        token in query.words or any(token.startswith(beginning) for beginning in query.beginnings)
        for token in tokens(found)
    )


def _places(text: str) -> Iterator[tuple[int, str]]:
    """(where, the run of letters and digits) in a text as it is written."""
    for match in re.finditer(r"\w+", text):
        run = match[0]
        if len(run) > 2 and re.search(f"[{_CJK}]", run):
            yield from ((match.start() + i, run[i : i + 2]) for i in range(len(run)))
        else:
            yield match.start(), run


def _runs(text: str) -> Iterator[tuple[str, bool]]:
    """The runs of letters and digits of a text, folded, and whether each is Chinese, Japanese or Korean."""
    if text.isascii():
        yield from ((run, False) for run in _ASCII_RUN.findall(text.lower()))
    else:
        yield from ((match[0], match["cjk"] is not None) for match in _RUN.finditer(_fold(text)))


def _fold(text: str) -> str:
    """Without case, width and accents. Marks stay where they make another letter: in kana."""
    composed = unicodedata.normalize("NFKC", text).casefold()
    return "".join(
        char if char.isascii() or "\u3000" <= char <= "\ud7ff" else _without_marks(char) for char in composed
    )


def _without_marks(char: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", char) if unicodedata.category(part) != "Mn")


def _pairs(run: str) -> Iterator[str]:
    for i in range(len(run)):
        yield run[i : i + 2]
