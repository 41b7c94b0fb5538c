"""The labelled set is sound, and the figures in the documentation are what it gives today."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed

from benchmarks.memory.extraction import fits  # noqa: E402
from benchmarks.memory.labels import PARTS, messages, queries  # noqa: E402
from benchmarks.memory.report import extraction, retrieval  # noqa: E402
from benchmarks.memory.retrieval import Asked, leaked, stale  # noqa: E402
from praisonaiagents.memory.facts import Fact, known_to  # noqa: E402
from praisonaiagents.memory.process import ProcessMemory  # noqa: E402
from praisonaiagents.model.memory import KINDS, Scope  # noqa: E402

DOCUMENT = (ROOT / "docs" / "reference" / "memory-quality.md").read_text()


def test_there_are_enough_facts_of_two_users_in_two_parts() -> None:
    facts = [fact for message in messages() for fact in message.facts]
    assert len(facts) >= 60
    assert len({fact.id for fact in facts}) == len(facts)
    assert {message.user for message in messages()} == {"maya", "jonas"}
    for part in PARTS:
        assert {bool(message.facts) for message in messages() if message.part == part} == {True, False}


def test_each_label_fits_its_own_sentence() -> None:
    for message in messages():
        for label in message.facts:
            assert fits(Fact(label.text, slot=label.slot), label), label.text


def test_each_answer_counts_when_it_is_asked_for_and_is_the_asking_users_own() -> None:
    for part in PARTS:
        told = [message for message in messages() if part == "held" or message.part == part]
        asked = Asked(ProcessMemory(), told)
        for query in (query for query in queries() if query.part == part):
            for answer in query.answers:
                item = asked.adapter.get(query.user, asked.ids[answer])
                assert item is not None, query.query
                assert item.superseded_by is None, query.query


def test_the_document_says_how_large_the_set_is() -> None:
    said, asked = messages(), queries()
    numbers = (len(said), sum(len(message.facts) for message in said), sum(not message.facts for message in said))
    assert f"has {numbers[0]} messages of two users with {numbers[1]} facts" in DOCUMENT
    assert f"are {numbers[2]} messages with nothing" in DOCUMENT
    assert f"has {len(asked)}\nquestions" in DOCUMENT
    assert f"{sum(query.paraphrase for query in asked)} are paraphrases" in DOCUMENT


@pytest.mark.parametrize("name", ["rules", "text"])
def test_the_figures_in_the_document_are_those_of_today(name: str) -> None:
    block = {"rules": extraction, "text": lambda: retrieval("in_memory", None, None)}[name]()
    assert f"<!-- {name} -->\n\n{block}\n\n<!-- end -->" in DOCUMENT, "python -m benchmarks.memory --write"


def test_nobody_finds_what_somebody_else_said() -> None:
    asked = Asked(ProcessMemory(), messages())
    assert leaked(asked, asked.by_text, queries()) == 0


def test_contradictions_are_superseded_end_to_end() -> None:
    made = [message for message in messages() if message.part == "made"]
    old, still = stale(ProcessMemory(), made)
    assert old > 0
    assert still == 0


def test_known_to_gives_what_a_slot_holds_and_what_is_said_again() -> None:
    asked = Asked(ProcessMemory(), messages())
    maya = Scope("maya")
    first, second = "The user lives in Gothenburg", "The user lives in Copenhagen"
    found = known_to(asked.adapter, [Fact(first, slot="user.home")], maya)
    assert {(item.text, item.superseded_by is None) for item in found} == {(first, False), (second, True)}
    assert known_to(asked.adapter, [], maya) == []


def test_the_kinds_of_extracted_facts_can_be_stored() -> None:
    from praisonaiagents.memory.rules import extract

    assert {fact.kind for message in messages() for fact in extract(message.says)} <= set(KINDS)
