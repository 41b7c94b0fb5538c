"""The pure parts of memory: terms, ranking, passages, and what an embedder gave."""

from __future__ import annotations

import random
from array import array
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from praisonaiagents.errors import ConfigError, InvalidMessage
from praisonaiagents.memory.embedding import embed
from praisonaiagents.memory.knowledge import PASSAGE, passages
from praisonaiagents.memory.process import ProcessMemory
from praisonaiagents.memory.rank import bm25, cosine, unit
from praisonaiagents.memory.sqlite import SqliteMemory
from praisonaiagents.memory.terms import query_terms, terms
from praisonaiagents.model.memory import Embedding, MemoryItem, Scope

# --- terms ---


@pytest.mark.parametrize(
    "words",
    ["love loves loved loving", "city cities", "plan plans planned planning", "Tea tea TEAS", "koln Köln", "box box's"],
)
def test_forms_of_a_word_have_one_term(words: str) -> None:
    assert len({terms(word)[0] for word in words.split()}) == 1


def test_terms_keep_their_order_and_are_repeated() -> None:
    assert terms("tea and tea") == ["tea", "and", "tea"]


def test_words_nobody_means_are_left_out_of_a_question_unless_there_are_no_others() -> None:
    assert query_terms("What is the name of my dog?") == terms("name dog")
    assert query_terms("who is who") == ["who", "is"]
    assert query_terms("... ?!") == []


@given(st.text(max_size=200))
def test_every_text_is_found_by_its_own_words(text: str) -> None:
    assert set(query_terms(text)) <= set(terms(text))
    assert bool(query_terms(text)) == bool(terms(text))


# --- ranking ---

TEXTS = {
    "both": ["green", "tea"],
    "common": ["green", "frog"],
    "rare": ["black", "tea"],
    "long": ["green"] + ["x"] * 50,
}


def test_more_rarer_and_shorter_fits_better() -> None:
    scores = bm25(["green", "tea"], TEXTS)
    assert scores["both"] > scores["rare"] > scores["common"] > scores["long"] > 0


def test_no_score_without_a_term_and_none_is_negative() -> None:
    assert bm25([], TEXTS) == bm25(["tea"], {}) == bm25(["absent"], TEXTS) == {}
    assert all(score > 0 for score in bm25(["tea"], {"only": ["tea"], "other": ["tea"]}).values())


def test_the_score_of_a_text_is_that_of_okapi() -> None:
    # 2 texts of 2 terms, one has the term once: ln(1 + 1.5 / 1.5) * 1 * 2.2 / (1 + 1.2)
    assert bm25(["tea"], {"a": ["tea", "x"], "b": ["y", "z"]}) == {"a": pytest.approx(0.6931471805599453)}


def test_the_cosine_of_an_angle() -> None:
    assert cosine([1, 0], [5, 0]) == pytest.approx(1)
    assert cosine([1, 0], [-2, 0]) == pytest.approx(-1)
    assert cosine([1, 0], [0, 3]) == cosine([0, 0], [1, 1]) == 0


# --- passages ---

PIECES = st.sampled_from(
    ["a", "b.", "word ", " ", ".", "! ", "\n", "\n\n", "。", "3.14 ", "x" * 700, " " * 1_300, "\u2028"]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_passages_lose_nothing_and_none_is_too_long_or_blank(text: str) -> None:
    found = list(passages(text))
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(passage.strip() and len(passage) <= PASSAGE for passage in found)


def test_a_long_paragraph_is_cut_between_sentences_and_inside_no_word() -> None:
    text = " ".join(f"See example.com at {number}.14 for more." for number in range(300))
    found = list(passages(text))
    assert len(found) > 1
    assert " ".join(found) == text
    assert all(passage.endswith("more.") for passage in found)


def test_paragraphs_stay_whole_and_share_a_passage() -> None:
    assert list(passages("One.\n\nTwo.\n \nThree.")) == ["One.\n\nTwo.\n\nThree."]
    assert list(passages("a" * 900 + "\n\n" + "b" * 900)) == ["a" * 900, "b" * 900]
    assert list(passages(" \n\n ")) == list(passages("")) == []


# --- what an embedder gave ---


@pytest.mark.parametrize("kind", [list, tuple, numpy.array, lambda rows: (array("f", row) for row in rows)])
def test_any_sequence_of_sequences_of_numbers_is_taken(kind: Any) -> None:
    found = embed(lambda texts: kind([[1.0, 2.0]] * len(texts)), "m", ["a", "b"])
    assert found == [Embedding("m", [1.0, 2.0])] * 2
    assert type(found[0].values) is list


def test_no_text_is_no_call() -> None:
    assert embed(lambda texts: pytest.fail("called"), "m", []) == []


BAD: list[tuple[Any, str]] = [
    ([[1.0]], "1 embeddings for 2 texts"),
    ([[1.0]] * 3, "3 embeddings for 2 texts"),
    ([[1.0], [1.0, 2.0]], "of 1 and of 2 numbers"),
    ([[], []], "not empty"),
    ([[1.0], [float("nan")]], "finite"),
    ([[1.0], [float("inf")]], "finite"),
    ([[1.0], [1e39]], "32 bits"),
    ([[1.0], [10**400]], "list of numbers"),
    ([["likes tea"], [1.0]], "list of numbers"),
    ([[1.0], None], "list of numbers"),
    ([1.0, 2.0], "list of numbers"),
    (None, "list of numbers"),
]


@pytest.mark.parametrize(("given", "problem"), BAD)
def test_what_cannot_be_the_embeddings_of_two_texts_is_refused_by_the_name_of_the_problem(
    given: Any, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        embed(lambda texts: given, "my-model", ["a", "b"])
    assert "'my-model'" in str(caught.value)
    assert "tea" not in str(caught.value)


# --- adapters ---


@pytest.mark.parametrize("make", [ProcessMemory, lambda: SqliteMemory(":memory:")], ids=["process", "sqlite"])
def test_a_number_that_32_bits_do_not_hold_is_refused(make: Any) -> None:
    memory, item = make(), MemoryItem("mem-1", Scope("alice"), "Likes tea")
    with pytest.raises(InvalidMessage):
        memory.put([item], [Embedding("m", [1e39, 0.0])])
    memory.put([item], [Embedding("m", numpy.array([3e38, 0.0]))])  # type: ignore[arg-type]
    assert [match.score for match in memory.search_near(Scope("alice"), Embedding("m", [1.0, 0.0]))] == [
        pytest.approx(1.0)
    ]
    memory.close()


@pytest.mark.parametrize("make", [ProcessMemory, lambda: SqliteMemory(":memory:")], ids=["process", "sqlite"])
def test_a_negative_limit_is_none_at_all(make: Any) -> None:
    memory = make()
    memory.put([MemoryItem(f"mem-{n}", Scope("alice"), "Likes tea", updated_at=float(n)) for n in range(3)])
    assert memory.list_items(Scope("alice"), limit=-1) == ([], None)
    assert memory.search_text(Scope("alice"), ["tea"], limit=-1) == []
    memory.close()


@pytest.mark.parametrize("what", ["clear", "erase"])
def test_no_byte_of_what_was_forgotten_is_left_in_the_files(what: str, tmp_path: Any) -> None:
    """Nor of its words in the index, nor of its vector."""
    memory = SqliteMemory(tmp_path / "memory.db")
    secret, vector = "zanzibarian", [random.Random(number).random() for number in range(64)]
    items = [MemoryItem(f"mem-{n}", Scope("alice"), f"Likes {secret} number {n}") for n in range(200)]
    memory.put(items, [Embedding("m", vector)] * 200)
    memory.put([MemoryItem("mem-1", Scope("bob"), "Likes wine")])
    sought = (secret.encode(), array("f", unit(vector)).tobytes())
    assert all(_in_files(tmp_path, part) for part in sought)
    assert (memory.erase("alice") if what == "erase" else memory.clear(Scope("alice"))) == 200
    if what == "clear":
        memory.write_anew()
    assert not any(_in_files(tmp_path, part) for part in sought)
    assert [match.item.id for match in memory.search_text(Scope("bob"), query_terms("wine"))] == ["mem-1"]
    memory.close()
    assert not any(_in_files(tmp_path, part) for part in sought)


def _in_files(folder: Any, part: bytes) -> bool:
    return any(part in file.read_bytes() for file in folder.iterdir())
