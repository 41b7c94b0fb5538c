"""How well long-term memory works, measured: `python -m benchmarks.memory` from the root of the repository.

    labels       the labelled set, and how it is read
    extraction   facts found by rules, against the labels
    retrieval    the labelled facts, asked for by text, by vectors and by both
    embedders    texts to vectors
    report       the figures as they stand in docs/reference/memory-quality.md

What a reader would get wrong: extraction and retrieval are measured apart. Questions are asked of the labelled facts, not of what
the rules found, so that a fact nobody noticed does not look like one that cannot be found.
"""
