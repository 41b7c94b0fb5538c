"""Texts to vectors, each by a name of the command line; none downloads anything."""

from __future__ import annotations

import importlib
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from praisonaiagents.model.search import tokens

Embedder = Callable[[Sequence[str]], Sequence[Sequence[float]]]
_DIMENSIONS = 512


def embedder(name: str) -> Embedder:
    """The embedder of this name: hashed, wordllama, or any function given as `module:function`."""
    if name == "hashed":
        return hashed
    if name == "wordllama":
        return _wordllama()
    module, _, function = name.partition(":")
    found: Embedder = getattr(importlib.import_module(module), function)
    return found


def hashed(texts: Sequence[str]) -> list[list[float]]:
    """Words and their parts of three letters, counted in a fixed number of places. It knows nothing of meaning."""
    return [_hashed(text) for text in texts]


def _hashed(text: str) -> list[float]:
    values = [0.0] * _DIMENSIONS
    for token in tokens(text):
        for part in (token, *(f"#{token}#"[i : i + 3] for i in range(len(token)))):
            values[zlib.crc32(part.encode()) % _DIMENSIONS] += 1
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def _wordllama() -> Embedder:
    """Static word vectors of 256 dimensions that come with the package `wordllama`.

    It looks for its tokenizer elsewhere than where its wheel has it; told to look in its own folder, it needs no network.
    """
    wordllama: Any = importlib.import_module("wordllama")
    model = wordllama.WordLlama.load(cache_dir=wordllama.__path__[0], disable_download=True)

    def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        vectors: Sequence[Sequence[float]] = model.embed(list(texts), norm=True).astype(float).tolist()
        return vectors

    return embed
