"""Embeddings: texts as points, made by whatever the user has for it.

What a reader would get wrong: an embedder is somebody else's code, so what it gives is checked here and made plain lists of
numbers (arrays of numpy and tensors are no such lists). No error quotes what was embedded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from praisonaiagents.errors import ConfigError, InvalidMessage
from praisonaiagents.model.memory import Embedding, check_embedding

Embedder = Callable[[Sequence[str]], Sequence[Sequence[float]]]


def embed(embedder: Embedder, name: str, texts: Sequence[str]) -> list[Embedding]:
    """The embedding of each text. Raises `ConfigError` if the embedder gave anything but as many points of one space."""
    if not texts:
        return []
    points = [Embedding(name, values) for values in _numbers(embedder(texts), name)]
    if len(points) != len(texts):
        raise ConfigError(f"the embedder {name!r} gave {len(points)} embeddings for {len(texts)} texts")
    sizes = sorted({len(point.values) for point in points})
    if len(sizes) > 1:
        raise ConfigError(f"the embedder {name!r} gave embeddings of {sizes[0]} and of {sizes[-1]} numbers in one call")
    for point in points:
        try:
            check_embedding(point)
        except InvalidMessage as exc:
            raise ConfigError(f"the embedder {name!r} does not work: {exc}") from exc
    return points


def _numbers(given: object, name: str) -> list[list[float]]:
    try:
        return [[float(value) for value in values] for values in given]  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):  # their texts may quote what was embedded
        raise ConfigError(f"the embedder {name!r} gives a list of numbers for each text, and nothing else") from None
