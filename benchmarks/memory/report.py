"""The figures, as Markdown. A block stands in the document between `<!-- name -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from benchmarks.memory.embedders import Embedder
from benchmarks.memory.extraction import measure
from benchmarks.memory.labels import PARTS, messages, queries
from benchmarks.memory.retrieval import Asked, Found, Search, leaked, stale
from praisonaiagents.memory.registry import open_adapter


def extraction() -> str:
    """The figures of the rules: the same on every machine."""
    said = messages()
    rows = []
    for part in PARTS:
        got = measure([message for message in said if message.part == part])
        rows.append(
            (
                part,
                got.expected,
                got.given,
                got.found,
                f"{got.recall:.3f}",
                f"{got.precision:.3f}",
                f"{got.slotted} of {got.found}",
                f"{got.quiet} of {got.silent}",
            )
        )
    superseded, still = stale(open_adapter("in_memory"), said)
    head = (
        "part",
        "facts",
        "extracted",
        "right",
        "recall",
        "precision",
        "in the labelled slot",
        "nothing where nothing is",
    )
    after = (
        f"Of {superseded} facts that the rules found and a later message contradicts, {still} still count at the end:"
    )
    why = "the later message fits no rule, or its fact went to another slot."
    return f"{_table(head, rows)}\n\n{after} {why}"


def retrieval(backend: str, name: str | None, embedder: Embedder | None) -> str:
    """The figures of finding, by text alone if there is no embedder."""
    rows: list[Sequence[object]] = []
    strangers = 0
    for part in PARTS:
        told = [message for message in messages() if part == "held" or message.part == part]
        asked = Asked(open_adapter(backend), told, embedder)
        ways: dict[str, Search] = {"text": asked.by_text}
        if embedder is not None:
            ways = {f"vectors ({name})": asked.by_vectors, f"text and vectors ({name})": asked.by_both}
        questions = [query for query in queries() if query.part == part]
        for way, search in ways.items():
            strangers += leaked(asked, search, queries())
            for kind, paraphrase in (("with shared words", False), ("paraphrases", True)):
                some = [query for query in questions if query.paraphrase == paraphrase]
                rows.append((part, kind, way, *_figures(asked.score(search, some))))
            rows.append((part, "all", way, *_figures(asked.score(search, questions))))
        asked.adapter.close()
    head = ("part", "questions", "by", "number", "recall@1", "recall@5", "MRR")
    after = f"Items of the other user that were found, each user asking everybody's questions: {strangers}."
    return f"{_table(head, rows)}\n\n{after}"


def with_block(document: str, name: str, text: str) -> str:
    """The document with the block replaced."""
    mark = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    assert mark.search(document), f"the document has no block {name}"
    return mark.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", document)


def _figures(found: Found) -> tuple[object, ...]:
    return (found.questions, f"{found.recall_1:.3f}", f"{found.recall_5:.3f}", f"{found.mrr:.3f}")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
