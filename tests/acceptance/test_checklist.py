"""The page as a checklist: every item has a test, and every test of an item names one that exists.

It reads the source of the test modules beside it, so it says the same whichever tests this run selected.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from .page import PAGE, SUBSTITUTIONS, code, items

PAGE_SHA256 = "0a832ea42cc48bb0ce5e827e7a59d32708113386634445b08d93bea5b8f749d1"

KNOWN_COUNTS = {
    ("block", "python"): 16,
    ("block", "bash"): 2,
    ("command", "bash"): 6,
    ("row", "markdown"): 13,
    ("step", "mermaid"): 23,
    ("card", "markdown"): 4,
    ("note", "markdown"): 1,
    ("warning", "markdown"): 1,
    ("bullet", "markdown"): 14,
}
"""Counted on the page by hand: a parser that finds nothing would agree with any tests."""


def _test_functions(source: str) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def _is_call_of(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _is_skipped(test: ast.FunctionDef) -> bool:
    return any("mark.skip" in ast.unparse(decorator) for decorator in test.decorator_list)


def _ids(test: ast.FunctionDef) -> Iterator[str]:
    """What the test declares to cover, also in `pytest.param(..., marks=covers(...))`. A skipped test covers nothing."""
    if _is_skipped(test):
        return
    for decorator in test.decorator_list:
        for node in ast.walk(decorator):
            if _is_call_of(node, "covers"):
                assert isinstance(node, ast.Call)
                yield from (ast.literal_eval(argument) for argument in node.args)


def covered(folder: Path = PAGE.parent) -> dict[str, list[str]]:
    """Item id -> the tests that declare to cover it."""
    found: dict[str, list[str]] = {}
    for module in sorted(folder.glob("test_*.py")):
        for test in _test_functions(module.read_text(encoding="utf-8")):
            for covers in _ids(test):
                found.setdefault(covers, []).append(f"{module.name}::{test.name}")
    return found


def _stripped(lines: list[str]) -> str:
    return "\n".join(line.strip() for line in lines)


def test_every_item_of_the_page_has_a_test_of_its_own() -> None:
    untested = [item.id for item in items() if item.id not in covered()]
    assert untested == []


def test_no_test_covers_an_item_that_the_page_does_not_have() -> None:
    known = {item.id for item in items()}
    invented = {covers: tests for covers, tests in covered().items() if covers not in known}
    assert invented == {}


def test_the_parser_finds_as_many_items_as_a_person_counted() -> None:
    assert Counter((item.kind, item.language) for item in items()) == KNOWN_COUNTS


@pytest.mark.parametrize(
    ("kind", "language", "sign"),
    [
        ("block", "python", r"^ *```python"),
        ("block", "bash", r"^ *```bash"),
        ("step", "mermaid", r"^ +\S+.*(?:-->|-\.->|--?>>)"),
        ("bullet", "markdown", r"^ +\* "),
        ("note", "markdown", r"^ *<Note>"),
        ("warning", "markdown", r"^ *<Warning>"),
    ],
)
def test_the_parser_finds_what_a_search_of_the_raw_page_finds(kind: str, language: str, sign: str) -> None:
    seen = re.findall(sign, PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(seen) == sum((item.kind, item.language) == (kind, language) for item in items())


def test_the_page_is_the_one_that_was_agreed_on() -> None:
    assert hashlib.sha256(PAGE.read_bytes()).hexdigest() == PAGE_SHA256


@pytest.mark.parametrize("item", items(), ids=lambda item: item.id)
def test_an_item_holds_the_pages_own_words(item) -> None:
    page = PAGE.read_text(encoding="utf-8").splitlines()[item.line - 1 :]
    height = len(item.text.splitlines()) + 1  # a card's or a note's words begin below its tag
    assert _stripped(item.text.splitlines()) in _stripped(page[:height])


@pytest.mark.parametrize("substitution", SUBSTITUTIONS, ids=lambda s: f"{s.name}-{s.page}")
def test_a_substitution_replaces_something_the_page_says(substitution) -> None:
    assert any(substitution.page in item.text for item in items() if item.kind in ("block", "command"))


def test_nothing_outside_the_table_can_be_substituted() -> None:
    with pytest.raises(ValueError, match="SUBSTITUTIONS"):
        code("quick-start/python-1", postgres="postgresql://elsewhere/db")
    with pytest.raises(ValueError, match="SUBSTITUTIONS"):
        code("quick-start/python-1", name="Bob")
