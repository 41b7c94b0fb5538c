"""`python -m benchmarks.memory`: measures, prints, and with `--write` puts the figures into the document."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.memory.embedders import embedder
from benchmarks.memory.extraction import measure
from benchmarks.memory.labels import messages
from benchmarks.memory.report import extraction, retrieval, with_block

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "memory-quality.md"


def main() -> None:
    options = _parser().parse_args()
    blocks = {"rules": extraction(), "text": retrieval(options.backend, None, None)}
    for name in options.embedder:
        blocks[name] = retrieval(options.backend, name, embedder(name))
    print("\n\n".join(f"{name}\n\n{block}" for name, block in blocks.items()))
    if options.show:
        got = measure([message for message in messages() if message.part == "made"])
        print("", "missed:", *got.missed, "wrong:", *got.wrong, sep="\n")
    if options.write:
        document = DOCUMENT.read_text()
        for name, block in blocks.items():
            document = with_block(document, name, block)
        DOCUMENT.write_text(document)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Measure long-term memory.")
    parser.add_argument(
        "--embedder", action="append", default=[], help="hashed, wordllama or module:function; repeatable"
    )
    parser.add_argument("--backend", default="in_memory", help="where the facts rest (default: in_memory)")
    parser.add_argument("--show", action="store_true", help="what the rules miss and get wrong of the part made")
    parser.add_argument("--write", action="store_true", help="put the figures into the document")
    return parser


if __name__ == "__main__":
    main()
