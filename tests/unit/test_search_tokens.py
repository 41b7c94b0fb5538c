"""What a text can be found by, of any script; what a person typed; and the part of a text that is shown for it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from praisonaiagents.model.search import Query, parse, snippet, spans, tokens

SCRIPTS = (
    st.characters()
    | st.characters(min_codepoint=0x20, max_codepoint=0x7E)
    | st.characters(min_codepoint=0xC0, max_codepoint=0x17F)
    | st.characters(min_codepoint=0x300, max_codepoint=0x36F)
    | st.characters(min_codepoint=0x370, max_codepoint=0x6FF)
    | st.characters(min_codepoint=0x900, max_codepoint=0xEFF)
    | st.characters(min_codepoint=0x3000, max_codepoint=0x9FFF)
    | st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
    | st.characters(min_codepoint=0xF900, max_codepoint=0xFFEF)
    | st.characters(min_codepoint=0x10000)
)
TEXTS = st.text(SCRIPTS, max_size=30)
"""Text in which neighbours are often of different scripts."""
COMPOSED = (
    st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)
    | st.characters(min_codepoint=0x3400, max_codepoint=0x4DBF)
    | st.characters(min_codepoint=0x3041, max_codepoint=0x3096)
    | st.characters(min_codepoint=0x30A1, max_codepoint=0x30FA)
    | st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
    | st.characters(min_codepoint=0x20000, max_codepoint=0x2A6DF)
)
"""Chinese, Japanese and Korean characters of which each stands for itself."""
WORDS = st.text(st.characters(categories=["Ll", "Nd"], max_codepoint=0x24F), min_size=1, max_size=100)
"""Words of Latin letters and digits, also ones that are longer than a token."""


# Tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Le café, 日本語!", ["le", "cafe", "日本", "本語", "語"]),
        ("C3P0-42 foo_bar", ["c3p0", "42", "foo", "bar"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("ＡＢＣ ｶﾞｷﾞ", ["abc", "ガギ", "ギ"]),
        ("がぎ か\u3099", ["がぎ", "ぎ", "が"]),
        ("iPhone15手机", ["iphone15", "手机", "机"]),
        ("한국어", ["한국", "국어", "어"]),
        ("日 本", ["日", "本"]),
        ("Ǆ ﬁ № ½", ["dz", "fi", "no", "1", "2"]),
        ("naïve ΑΣ ας", ["naive", "ασ", "ασ"]),
        ("ИЙ й и", ["ии", "и", "и"]),
        ("السَّلام", ["السلام"]),
        ("a\0b\nc", ["a", "b", "c"]),
        ("x" * 70, ["x" * 64]),
        ("", []),
        ("!?… 🙂 _ __", []),
        ("\ud800 half", ["half"]),
    ],
)
def test_the_tokens_of_a_text(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def is_plain(token: str) -> bool:
    """True for 64 characters at most of which none separates words, or could be an operator of a database."""
    return 0 < len(token) <= 64 and all(char.isalnum() or (char > "\u2e7f" and not char.isspace()) for char in token)


@given(TEXTS)
def test_a_token_is_short_and_has_nothing_but_characters_of_words(text: str) -> None:
    assert all(map(is_plain, tokens(text)))


@given(TEXTS)
def test_tokens_are_folded_once_and_for_all(text: str) -> None:
    """What a database holds is found by the same function, however often it was applied."""
    for token in tokens(text):
        assert tokens(token)[0] == token


@given(TEXTS, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_the_form_of_a_text_makes_no_difference(text: str, form: str) -> None:
    assert tokens(unicodedata.normalize(form, text)) == tokens(text)


@given(TEXTS)
def test_case_makes_no_difference(text: str) -> None:
    assert tokens(text.casefold()) == tokens(text)


@given(TEXTS, TEXTS)
def test_texts_beside_each_other_keep_their_tokens(one: str, other: str) -> None:
    assert tokens(f"{one}\n{other}") == tokens(one) + tokens(other)


@given(st.text(st.characters(max_codepoint=0x7F), max_size=100))
def test_ascii_has_no_rules_of_its_own(text: str) -> None:
    assert tokens(text + "\u00a0") == tokens(text)


# Queries


@given(TEXTS)
@example("\U0002fa1e")  # no character yet, and among those of Chinese
def test_a_text_is_found_by_itself(text: str) -> None:
    query = parse(text)
    assert bool(query) == bool(tokens(text))
    assert query.matches(text)
    assert query.matches(f"before {text} after")


@given(TEXTS)
def test_a_text_is_found_by_each_of_its_tokens(text: str) -> None:
    for token in tokens(text):
        assert parse(token).matches(text)


@given(TEXTS, st.text(COMPOSED, min_size=1, max_size=8), TEXTS, st.data())
def test_any_piece_of_chinese_japanese_and_korean_is_found(
    before: str, run: str, after: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(run) - 1))
    stop = data.draw(st.integers(start + 1, len(run)))
    text = f"{before} {run} {after}"
    query = parse(run[start:stop])
    assert query
    assert query.matches(text)


@given(st.text(COMPOSED, min_size=2, max_size=2), st.text(COMPOSED, min_size=1, max_size=8))
def test_characters_that_are_not_neighbours_are_not_found_as_such(pair: str, run: str) -> None:
    assert parse(pair).matches(run) == (pair in run)


@given(WORDS, WORDS)
def test_a_word_is_found_whole(word: str, other: str) -> None:
    assert parse(word).matches(other) == (tokens(word) == tokens(other))


@given(WORDS, st.integers(1, 99))
def test_a_star_finds_what_begins_so(word: str, length: int) -> None:
    beginning = tokens(word)[0][:length]
    assert parse(f"{beginning}*").matches(word)
    assert not parse(f"{beginning}*").matches(f"☆{beginning[1:]}") or len(beginning) > 1


@pytest.mark.parametrize(
    ("typed", "words", "beginnings"),
    [
        ("Pizza  pizza", ["pizza"], []),
        ("piz* sushi", ["sushi"], ["piz"]),
        ("pizza *", ["pizza"], []),
        ("* ** *pizza", ["pizza"], []),
        ("pizza＊", [], ["pizza"]),
        ("日本語", ["日本", "本語"], []),
        ("日", [], ["日"]),
        ("日*", [], ["日"]),
        ("v2手机*", ["v2", "手机"], []),
        ("foo_bar*", ["foo"], ["bar"]),
        ("a AND NOT b:c", ["a", "and", "not", "b", "c"], []),
        ('"x" OR (y) -z', ["x", "or", "y", "z"], []),
        ("!?… 🙂", [], []),
        ("", [], []),
    ],
)
def test_what_a_person_typed(typed: str, words: list[str], beginnings: list[str]) -> None:
    assert parse(typed) == Query(tuple(words), tuple(beginnings))


@given(TEXTS)
def test_a_query_holds_nothing_that_a_database_could_take_for_an_operator(typed: str) -> None:
    query = parse(typed)
    assert all(map(is_plain, query.words + query.beginnings))


def test_a_query_holds_all_of_its_terms() -> None:
    query = parse("alice piz*")
    assert query.matches("Pizza for Alice")
    assert not query.matches("Pizza for Bob")
    assert not query.matches("Alice")
    assert not query.matches("a pi zz for alice")


def test_an_empty_query_is_false() -> None:
    assert not parse("…")
    assert parse("x")
    assert parse("日")


# Snippets and spans


@given(TEXTS, st.lists(TEXTS, max_size=20), WORDS, st.lists(TEXTS, max_size=20), st.integers(20, 200))
def test_a_snippet_is_part_of_the_text_and_shows_what_was_found(
    first: str, before: list[str], word: str, after: list[str], size: int
) -> None:
    text = " ".join([first, *before, word, *after])
    query = parse(word)
    shown = snippet(text, query, size)
    assert len(shown) <= size + 2
    assert shown == " ".join(shown.split())
    assert shown.removeprefix("…").removesuffix("…") in " ".join(text.split())
    assume(len(word) <= size // 2)
    assert query.matches(shown)


@given(TEXTS, st.text(COMPOSED, min_size=1, max_size=6), TEXTS)
def test_a_snippet_shows_chinese_japanese_and_korean(before: str, found: str, after: str) -> None:
    shown = snippet(f"{before * 10} {found} {after * 10}", parse(found), 40)
    assert any(parse(pair).matches(shown) for pair in (tokens(found)[:-1] or [found]))


@pytest.mark.parametrize(
    ("text", "typed", "size", "expected"),
    [
        ("short", "short", 160, "short"),
        ("short", "other", 160, "short"),
        ("one two  three\nfour five", "three", 12, "…three four…"),
        ("one two  three\nfour five", "two", 40, "one two three four five"),
        ("x" * 50, "y", 10, "x" * 10 + "…"),
        ("word " * 20 + "needle", "needle", 20, "…needle"),
        ("word " * 20 + "needle", "needle", 40, "…word needle"),
        ("", "x", 160, ""),
    ],
)
def test_a_snippet(text: str, typed: str, size: int, expected: str) -> None:
    assert snippet(text, parse(typed), size) == expected


@given(TEXTS, TEXTS)
def test_spans_are_places_of_the_text_in_order(text: str, typed: str) -> None:
    query = parse(typed)
    found = list(spans(text, query))
    assert found == sorted(found)
    for start, stop in found:
        assert 0 <= start < stop <= len(text)
        terms = tokens(text[start:stop])
        assert any(term in query.words or term.startswith(query.beginnings) for term in terms)


def test_spans_of_what_was_found() -> None:
    text = "Pizza, 日本語 and PIZZAS"
    assert [text[start:stop] for start, stop in spans(text, parse("pizza*"))] == ["Pizza", "PIZZAS"]
    assert [text[start:stop] for start, stop in spans(text, parse("本語"))] == ["本語"]
    assert [text[start:stop] for start, stop in spans(text, parse("other"))] == []


# Hostile input


@pytest.mark.parametrize(
    "text",
    [
        "\ufdfa" * 5_000,
        "a\u0300" * 50_000,
        "\u0300" * 100_000,
        "日" * 100_000,
        "_" * 100_000,
        "*" * 100_000,
        "x" * 1_000_000,
        "x " * 100_000,
        "日x" * 50_000,
        "\0" * 100_000,
        "\ud800" * 10_000,
        "İ" * 10_000,
    ],
    ids=lambda text: f"{text[:2]!a}",
)
def test_a_text_that_is_made_to_be_slow(text: str) -> None:
    """It ends: nothing in it is looked at more often than a few times."""
    found = tokens(text)
    query = parse(text)
    assert all(len(token) <= 64 for token in found)
    assert query.matches(text) or not found
    assert len(snippet(text, query)) <= 162
