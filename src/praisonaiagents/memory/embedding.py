"""Embeddings: texts as points, made by whatever the user has for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from praisonaiagents.model.memory import Embedding

Embedder = Callable[[Sequence[str]], Sequence[Sequence[float]]]


def embed(embedder: Embedder, name: str, texts: Sequence[str]) -> list[Embedding]:
    """The embedding of each text."""
    return [Embedding(name, values) for values in embedder(texts)]
