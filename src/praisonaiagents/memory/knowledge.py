"""Knowledge: documents cut into passages, so that the part that answers a question can be found and told.

A passage is whole paragraphs, as many as fit; only a paragraph that is too long by itself is cut, at a sentence if it has
any. What a reader would get wrong: a source is a path or a text. A path is one that exists; a text that happens to name no
file is a text, but a missing file with the suffix of one is refused rather than remembered as its own name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from praisonaiagents.errors import ConfigError, ConfigTypeError, StorageError

PASSAGE = 1_200  # characters, about 300 tokens
MAX_SOURCE_BYTES = 16 * 1024 * 1024
SUFFIXES = frozenset(
    ".txt .md .markdown .rst .csv .tsv .json .jsonl .yaml .yml .toml .ini .html .htm .xml .log .tex"
    " .py .js .ts .java .go .rs .c .h .cpp .rb .sh .sql .css".split()
)
_SENTENCE_END = re.compile(r"(?<=[.!?]\s)|(?<=[。！？])")  # not in 3.14 or example.com
_PARAGRAPH = re.compile(r"\n\s*\n")
_ONE_WORD = re.compile(r"\S{1,1000}")


def read(source: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """(name, text) of a text, a text file, or each text file in a folder and the folders in it, in the order of their names.

    Raises `ConfigError` for an empty text, a file that is missing or no text, or that is over 16 MB; `StorageError` for one
    that cannot be read.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigTypeError(f"a source of knowledge is a text or a path, not {type(source).__name__}")
    if not os.fspath(source).strip():
        raise ConfigError("a source of knowledge cannot be empty")
    path = _path(source)
    if path is None:
        yield "text", str(source)
    elif path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES)
        if not found:
            raise ConfigError(f"there are no text files in {path}; known endings: {' '.join(sorted(SUFFIXES))}")
        yield from ((str(file), _text(file)) for file in found)
    else:
        yield str(path), _text(path)


def passages(text: str) -> Iterator[str]:
    """The passages of a text, in order; none is longer than `PASSAGE` characters."""
    gathered = ""
    for piece in filter(None, map(str.strip, _pieces(text))):
        if gathered and len(gathered) + 2 + len(piece) > PASSAGE:
            yield gathered
            gathered = ""
        gathered = f"{gathered}\n\n{piece}" if gathered else piece
    if gathered:
        yield gathered


def _pieces(text: str) -> Iterator[str]:
    """Paragraphs, the long ones cut; with blanks around them, and perhaps nothing else."""
    for paragraph in _PARAGRAPH.split(text):
        if len(paragraph.strip()) <= PASSAGE:
            yield paragraph
            continue
        gathered = ""
        for sentence in _SENTENCE_END.split(paragraph.strip()):
            for start in range(0, len(sentence), PASSAGE):
                part = sentence[start : start + PASSAGE]
                if len(gathered) + len(part) > PASSAGE:
                    yield gathered
                    gathered = ""
                gathered += part
        yield gathered


def _path(source: str | os.PathLike[str]) -> Path | None:
    """The file or folder that is meant; None for a text."""
    if isinstance(source, str):
        if source.startswith(("http://", "https://")) and _ONE_WORD.fullmatch(source):
            raise ConfigError("addresses are not fetched: download the page and pass its text or file")
        if not _ONE_WORD.fullmatch(source) or os.path.splitext(source)[1].lower() not in SUFFIXES:
            return None
    try:
        path = Path(source).expanduser()
        there = path.exists()
    except (OSError, ValueError, RuntimeError):
        there = False
    if not there:
        raise ConfigError(f"there is no file {os.fspath(source)}")
    return path


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise ConfigError(f"{path} is neither a file nor a folder")
        with open(path, "rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
        if len(data) > MAX_SOURCE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_SOURCE_BYTES:,} bytes: split it")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text in UTF-8: convert it to text first") from None
    except OSError as exc:
        raise StorageError(f"{path} cannot be read: {exc.strerror or exc}", str(path)) from exc
