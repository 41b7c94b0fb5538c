"""Ranking by words: how well texts fit the terms of a question, where no index says so."""

from __future__ import annotations

import math
import sys
from array import array
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from operator import mul
from typing import TypeVar

_SATURATION, _LENGTH_WEIGHT = 1.2, 0.75  # k1 and b, as in FTS5

Name = TypeVar("Name", bound=Hashable)


def bm25(wanted: Collection[str], texts: Mapping[Name, Sequence[str]], total: int | None = None) -> dict[Name, float]:
    """The score of each text (name to terms) that has one of the wanted terms, as Okapi BM25 has it (Robertson, Zaragoza 2009).

    How rare a term is, is counted among these texts, or among `total`, if the others are known to have none of the terms.
    """
    total = len(texts) if total is None else total
    asked = set(wanted)
    counts = {name: Counter(filter(asked.__contains__, terms)) for name, terms in texts.items()}
    average = sum(map(len, texts.values())) / len(texts) if texts else 0.0
    scores: dict[Name, float] = {}
    for term in asked:
        having = [name for name, count in counts.items() if count[term]]
        rarity = math.log(1 + (total - len(having) + 0.5) / (len(having) + 0.5))
        for name in having:
            often = counts[name][term]
            length = 1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * len(texts[name]) / average
            gain = rarity * often * (_SATURATION + 1) / (often + _SATURATION * length)
            scores[name] = scores.get(name, 0.0) + gain
    return scores


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two points; 0 if one of them is the origin."""
    return dot(unit(one), unit(other))


def unit(point: Sequence[float]) -> array[float]:
    """The point with the same direction at the distance 1 from the origin; the origin as it is."""
    length = math.hypot(*point)
    return array("d", [value / length for value in point] if length else point)


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    """The sum of the products; of two points at the distance 1, the cosine."""
    return float(sum(map(mul, one, other)))


if sys.version_info >= (3, 12):
    dot = math.sumprod  # ten times as fast
