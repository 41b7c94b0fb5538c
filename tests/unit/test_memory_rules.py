"""What the rules take out of a user's words, and above all what they leave."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praisonaiagents.memory import rules
from praisonaiagents.memory.facts import Fact
from praisonaiagents.memory.rules import LONGEST_SENTENCE, LONGEST_TEXT, MOST_SENTENCES, extract


def texts(said: str) -> list[str]:
    return [fact.text for fact in extract(said)]


@pytest.mark.parametrize(
    ("said", "text", "slot"),
    [
        ("Hi, my name is Ada Lovelace.", "The user's name is Ada Lovelace", "user.name"),
        ("I’m Al and this is my code", "The user's name is Al", "user.name"),
        ("My name is not Bob but Al.", "The user's name is Al", "user.name"),
        ("My name is 花子", "The user's name is 花子", "user.name"),
        ("Please call me Al.", "The user wants to be called Al", "user.called"),
        ("I live in Berlin, what's the weather?", "The user lives in Berlin", "user.home"),
        ("I recently moved from Rome to New York.", "The user lives in New York", "user.home"),
        ("I was born and raised in Lima.", "The user comes from Lima", "user.origin"),
        ("I work as an architect.", "The user works as an architect", "user.job"),
        ("I work for Acme.", "The user works at Acme", "user.employer"),
        ("We mainly use Rust.", "The user uses Rust", "user.uses.rust"),
        ("My editor is Helix.", "The user's editor is Helix", "user.editor"),
        ("I don't really like coffee.", "The user does not like coffee", "user.likes.coffee"),
        ("I don't like coffee anymore.", "The user does not like coffee", "user.likes.coffee"),
        ("Jazz is my favorite music.", "The user's favorite music is Jazz", "user.favorite.music"),
        ("I prefer tabs over spaces.", "The user prefers tabs to spaces", "user.prefers.spaces/tabs"),
        ("Please answer in German.", "The user wants answers in German", "user.answers.language"),
        ("Keep your answers short, please.", "The user wants short answers", "user.answers.length"),
        ("I'm vegan.", "The user is vegan", "user.diet.vegan"),
        ("I'm no longer vegan.", "The user is no longer vegan", "user.diet.vegan"),
        ("I'm severely allergic to peanuts.", "The user is allergic to peanuts", "user.allergy.peanuts"),
        ("My sister's name is Eva.", "The user's sister is named Eva", "user.sister.name"),
        ("I have a sister. Her name is Eva.", "The user's sister is named Eva", "user.sister.name"),
        ("I have a cat named Miso.", "The user has a cat named Miso", "user.cat.name"),
        ("I am 41 years old.", "The user is 41 years old", "user.age"),
        ("My birthday is on 3 May.", "The user's birthday is 3 May", "user.birthday"),
        ("I speak Finnish.", "The user speaks Finnish", "user.speaks.finnish"),
        ("My time zone is UTC+2.", "The user's time zone is UTC+2", "user.timezone"),
        ("Let's use Redis for the cache.", "Decided: Redis is used for the cache", "decision.database.cache"),
        ("We'll go with Terraform.", "Decided: Terraform is used", "decision.infrastructure"),
        ("We decided to postpone the launch.", "Decided: Postpone the launch", None),
        ("Remember that my train leaves at nine.", "The user's train leaves at nine", None),
    ],
)
def test_a_statement_is_a_fact(said: str, text: str, slot: str | None) -> None:
    assert (text, slot) in [(fact.text, fact.slot) for fact in extract(said)]


@pytest.mark.parametrize(
    "said",
    [
        "Do I live in Berlin?",
        "I live in Berlin, right?",
        "Is my name Al?",
        "If I lived in Paris, I like to think I work as a baker.",
        "Imagine I am a doctor.",
        "If I ever move, I like jazz.",
        "I like jazz if it is quiet.",
        "I like jazz, said nobody. My brother claims, I like jazz.",
        "Just kidding, I like jazz.",
        "Suppose my name is Max.",
        "I would like a table.",
        "Maybe I like jazz.",
        "My name is not Bob.",
        "I used to live in Rome.",
        "I was a carpenter.",
        'He said "I live in Berlin".',
        "'I live in Berlin' is a song.",
        "> I live in Berlin",
        "```\nI live in Berlin\n```",
        "```\nI live in Berlin",
        "    I live in Berlin",
        "My friend says I love snow.",
        "Bob told me I work at Acme.",
        "I'm sorry, I'm tired. I am here.",
        "I'm German.",
        "I live in fear.",
        "I love it. I like you. I like the second option.",
        "I have a question: my code fails.",
        "Call me later.",
        "Let's go! Let's use it. Let's pick a color.",
        "don't use that",
        "My car is broken.",
        "I left Berlin.",
        "never mind",
        "Remember when we met?",
        "I am 30 minutes late. I am 300.",
        "My password is hunter2.",
        "Remember that my api key is abc.",
        "Remember that sk-abcdefgh12345678 opens the door.",
        "Remember the number 4111 1111 1111 1111 well.",
        "I use Zk39fkE02mdkWq81LLsdkv93Kd2.",
        "我住在柏林。",
        "私の名前は花子です",
        "",
        "\x00\x1b[31m",
    ],
)
def test_what_is_not_stated_is_no_fact(said: str) -> None:
    assert texts(said) == []


def test_what_a_model_says_is_not_what_the_user_says() -> None:
    assert extract("Who am I?", "Your name is Al. I live in Berlin.") == []


def test_facts_come_in_the_order_of_the_text_and_the_last_counts() -> None:
    assert texts("I live in Rome. I live in Oslo. I live in Rome.") == [
        "The user lives in Oslo",
        "The user lives in Rome",
    ]


def test_a_correction_says_so() -> None:
    assert [fact.kind for fact in extract("Actually, my name is Al.")] == ["correction"]


def test_leaving_a_place_takes_back_only_that_place() -> None:
    [fact] = extract("I no longer live in Rome.")
    assert fact.denies == "The user lives in Rome"
    assert fact.denies == texts("I live in Rome.")[0]


def test_two_likings_of_one_thing_share_a_slot() -> None:
    assert [fact.slot for fact in extract("I like pizza. I hate pizza.")] == ["user.likes.pizza"] * 2


def test_one_verb_for_two_things_and_one_subject_for_two_verbs() -> None:
    assert texts("I like tea and cake but hate raisins.") == [
        "The user likes tea",
        "The user likes cake",
        "The user does not like raisins",
    ]


def test_control_characters_and_bidi_marks_are_in_no_fact() -> None:
    assert texts("My name\u202e is \x07Al\u200b.") == ["The user's name is Al"]


def test_a_long_text_is_a_document() -> None:
    assert texts("I live in Rome. " + "x " * LONGEST_TEXT) == []


def test_a_long_sentence_is_skipped_and_the_next_one_is_not() -> None:
    assert texts("I like tea " + "x" * LONGEST_SENTENCE + ". I live in Rome.") == ["The user lives in Rome"]


def test_only_so_many_sentences_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def counted(sentence: str, about: object) -> Iterator[Fact]:
        read.append(len(sentence))
        return iter(())

    monkeypatch.setattr(rules, "_facts_in", counted)
    extract("I am so. " * 400)
    extract("\n" * LONGEST_TEXT)
    assert len(read) == MOST_SENTENCES
    read.clear()
    extract("I live in Rome. " * 65_536)
    assert read == []


def patterns() -> list[re.Pattern[str]]:
    tables = [rule.pattern for rule in (*rules._RULES, *rules._BESIDE)] + [pattern for pattern, _ in rules._FORMS]
    return tables + [value for value in vars(rules).values() if isinstance(value, re.Pattern)]


def test_no_pattern_repeats_a_repetition_without_bound() -> None:
    """That is what makes a pattern take exponential time; without it, time is a small power of 300 characters."""
    from re import _constants, _parser

    def depth(parsed: object) -> int:
        deepest = 0
        for code, value in parsed:  # type: ignore[attr-defined]
            inner = [value] if not isinstance(value, (tuple, list)) else list(value)
            nested = [depth(part) for part in flat(inner)]
            own = code in (_constants.MAX_REPEAT, _constants.MIN_REPEAT) and value[1] is _constants.MAXREPEAT
            deepest = max(deepest, max(nested, default=0) + own)
        return deepest

    def flat(parts: list[object]) -> Iterator[object]:
        for part in parts:
            if isinstance(part, _parser.SubPattern):
                yield part
            elif isinstance(part, (list, tuple)):
                yield from flat(list(part))

    assert depth(_parser.parse("(?:a+)+")) == 2
    for pattern in patterns():
        assert depth(_parser.parse(pattern.pattern, pattern.flags)) <= 1, pattern.pattern
        assert len(re.findall(r"(?<!\\)[+*](?![?+]?\w*\])", pattern.pattern)) <= 8, pattern.pattern


words = st.sampled_from(
    [
        *"I my name is am live in not like Rome Al ? . , and but > if that remember 4111111111111111 password".split(),
        *"'`\"\n\x00\ud800花",
        "```",
    ]
)


@given(st.lists(words, max_size=40).map(" ".join) | st.text(max_size=300))
def test_any_text_gives_clean_facts_and_never_raises(said: str) -> None:
    for fact in extract(said):
        assert fact.text.isprintable()
        assert "password" not in fact.text
        assert "4111" not in fact.text
        assert 0 < fact.confidence <= 1


@given(st.lists(words, max_size=20).map(" ".join))
def test_the_same_text_gives_the_same_facts(said: str) -> None:
    assert extract(said) == extract(said)
