"""The offline model's memory: what it answers, and above all what it does not."""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from praisonaiagents.agent import recall
from praisonaiagents.agent.recall import ABOUT_ME, HELLO, LABEL, SILENT, UNABLE, UNKNOWN, Said, reply


def converse(*messages: str) -> str:
    """The answer to the last of these messages, each of the earlier ones answered by the model itself."""
    history: list[Said] = []
    answer = ""
    for message in messages:
        answer = reply(history, message)
        history += [Said("user", message), Said("assistant", answer)]
    return answer


# What was told (several messages apart by " | "), the question, and how the answer begins.
KNOWN = [
    # names
    ("My name is Alice and I love pizza", "What's my name?", "Your name is Alice."),
    ("My name is Alice and I love pizza", "What’s my name?", "Your name is Alice."),
    ("My name is Alice and I love pizza", "whats my name", "Your name is Alice."),
    ("My name is Alice", "what is my name", "Your name is Alice."),
    ("My name is Alice", "Can you tell me what my name is?", "Your name is Alice."),
    ("My name is Alice", "Do you remember my name?", "Your name is Alice."),
    ("My name is Alice", "Tell me my name", "Your name is Alice."),
    ("My name is Alice", "Hey, what was my name again?", "Your name is Alice."),
    ("My name is Alice", "Who am I?", "Your name is Alice."),
    ("my name is alice", "What's my name?", "Your name is alice."),
    ("Hi, I'm Alice", "What's my name?", "You are Alice."),
    ("I'm Alice from Berlin", "What's my name?", "You are Alice from Berlin."),
    ("You can call me Al", "What's my name?", "Your name is Al."),
    ("I am called Bob", "What's my name?", "You are called Bob."),
    ("Remember that my name is Zoe.", "What's my name?", "Your name is Zoe."),
    ("My dog's name is Rex | My name is Alice", "What is the name of my dog?", "Your dog's name is Rex."),
    ("My dog is called Rex", "What's my dog's name?", "Your dog is called Rex."),
    # attributes
    ("My favorite color is blue", "What is my favorite color?", "Your favorite color is blue."),
    ("My favourite colour is blue", "What is my favorite color?", "Your favourite colour is blue."),
    ("Blue is my favorite color", "What is my favorite color?", "Blue is your favorite color."),
    ("The project is called Atlas", "What is the project called?", "The project is called Atlas."),
    ("The project is called Atlas", "What's the name of the project?", "The project is called Atlas."),
    ("wifi password: hunter2", "What's the wifi password?", "Wifi password: hunter2."),
    ("My boss is Carol", "Who is my boss?", "Your boss is Carol."),
    ("Carol is my boss", "Who is Carol?", "Carol is your boss."),
    ("My cat is black", "What color is my cat?", "Your cat is black."),
    ("The color of my cat is black", "What color is my cat?", "The color of your cat is black."),
    ("The meeting with Carol is on Friday", "When is the meeting with Carol?", "The meeting with Carol is on Friday."),
    ("My birthday is on May 5", "What is my birthday?", "Your birthday is on May 5."),
    ("Hi-fi is my hobby", "What is my hobby?", "Hi-fi is your hobby."),
    # what I am and do
    ("I am 31 years old", "How old am I?", "You are 31 years old."),
    ("I'm 31", "How old am I?", "You are 31."),
    ("My son is 5 years old", "How old is my son?", "Your son is 5 years old."),
    ("I live in Berlin", "Where do I live?", "You live in Berlin."),
    ("I live in Berlin", "Do you know where I live?", "You live in Berlin."),
    ("My sister lives in Paris and I live in Berlin.", "Where do I live?", "You live in Berlin."),
    ("I'm from Spain", "Where am I from?", "You are from Spain."),
    ("I work as a baker", "What is my job?", "You work as a baker."),
    ("I work for Acme", "Where do I work?", "You work for Acme."),
    ("I was born in 1990", "When was I born?", "You were born in 1990."),
    ("I am learning Spanish", "What am I learning?", "You are learning Spanish."),
    ("I bought a red car", "What did I buy?", "You bought a red car."),
    ("I have two cats and a dog", "How many cats do I have?", "You have two cats and a dog."),
    ("My name is Alice and I love pizza", "What do I love?", "You love pizza."),
    ("My name is Alice and I love pizza", "What food do I like?", "You love pizza."),
    ("I love pizza", "Do you know what food I like?", "You love pizza."),
    ("I have a dog", "What pets do I have?", "You have a dog."),
    ("I love pizza. I love sushi.", "What do I love?", "You love sushi. You love pizza."),
    ("I don't like fish", "What don't I like?", "You don't like fish."),
    # the latest word counts
    (
        "My favorite color is blue | My favorite color is red now",
        "What is my favorite color?",
        "Your favorite color is red now.",
    ),
    (
        "My favorite color is blue | Actually, my favorite color is red.",
        "What is my favorite color?",
        "Your favorite color is red.",
    ),
    ("The password is old1 | The new password is new2", "What is the password?", "The new password is new2."),
    ("I live in Berlin. I lived in Rome before.", "Where do I live?", "You live in Berlin."),
    ("I live in Berlin. I lived in Rome before.", "Where did I live?", "You lived in Rome before."),
    ("My name is Alice | My name is often misspelled", "What is my name?", "Your name is Alice."),
    ("I love pizza and sushi | I love tea | I don't love pizza anymore", "What do I love?", "You love tea."),
    # by words: only quoted
    ("My sister lives in Paris.", "Where does my sister live?", 'You said: "My sister lives in Paris."'),
    ("The shop opens at 9 | The bank opens at 10", "When does the shop open?", 'You said: "The shop opens at 9"'),
    ("I love pizza", "Do I like pizza?", 'You said: "I love pizza"'),
    (
        "We paid Acme 300 euros because it rained",
        "Why did we pay Acme?",
        'You said: "We paid Acme 300 euros because it rained"',
    ),
    ("I met Carol in Rome", "What did I say about Carol?", 'You said: "I met Carol in Rome"'),
    ("我的名字是小明", "我的名字是什么？", 'You said: "我的名字是小明"'),
    ("我喜欢披萨", "我喜欢什么？", 'You said: "我喜欢披萨"'),
    ("蓝色是我最喜欢的颜色", "我最喜欢的颜色是什么", 'You said: "蓝色是我最喜欢的颜色"'),
    ("私はベルリンに住んでいます", "私はどこに住んでいますか", 'You said: "私はベルリンに住んでいます"'),
    ("내 이름은 앨리스입니다", "내 이름은 뭐예요?", 'You said: "내 이름은 앨리스입니다"'),
]

# What was told says nothing about these, however alike they look.
NOT_KNOWN = [
    ("Hello", "What's my name?"),
    ("My dog is called Rex", "What's my name?"),
    ("My dog's name is Rex", "What's my name?"),
    ("My name is Alice", "What's my dog's name?"),
    ("My name is Alice", "What is my full name?"),
    ("I'm tired", "What's my name?"),
    ("I'm German", "What's my name?"),
    ("My name is on the list", "What's my name?"),
    ("I wish my name was Bob", "What's my name?"),
    ("If my name is Bob, I win", "What's my name?"),
    ("Bob said my name is Carl", "What's my name?"),
    ("Bob said, my name is Carl", "What's my name?"),
    ("If I win, my name is Bob", "What's my name?"),
    ("Is my name Bob?", "What's my name?"),
    ("I don't know my name", "What's my name?"),
    ("My brother's favorite color is red", "What is my favorite color?"),
    ("My favorite color is blue", "What is my favorite food?"),
    ("I love pizza", "What color do I like?"),
    ("I love pizza", "What is my favorite food?"),
    ("I love pizza", "Why do I love pizza?"),
    ("I love pizza | I don't love pizza anymore", "What do I love?"),
    ("I love pizza and Bob hates it", "What does Bob love?"),
    ("I live alone", "Where do I live?"),
    ("Bob lives in Rome", "Where do I live?"),
    ("I live in Berlin", "Where does Bob live?"),
    ("I used to live in Rome", "Where do I live?"),
    ("I'm 31 minutes late", "How old am I?"),
    ("My son is 5 years old", "How old am I?"),
    ("My boss is angry", "Who is my boss?"),
    ("The project Atlas is delayed", "What is the budget for project Atlas?"),
    ("The server runs on port 8080", "What port does the client run on?"),
    ("Bob's server runs on port 8080", "What port does the server run on?"),
    ("Bob plays tennis with Carol", "Do I play tennis with Carol?"),
    ("The shop is nice and it opens", "When does the shop open?"),
    ("Carol hates fish", "Is Carol here?"),
    ("I love pizza", "Is it?"),
    ("I visited France", "What is the capital of France?"),
    ("What is the capital of France?", "What is the capital of France?"),
    ("The: x", "What is the?"),
    ("I love my dog", "What do I love about Paris?"),
    ("Hello", "What is 2+2?"),
    ("I met Carol in Rome", "What did I say about Bob?"),
    ("我的狗的名字是旺财", "我的名字是什么？"),
    ("我喜欢披萨", "我住在哪里？"),
    ("私は学生です", "私はどこに住んでいますか"),
]


@pytest.mark.parametrize(("told", "question", "answer"), KNOWN, ids=lambda text: text)
def test_what_was_told_is_known(told: str, question: str, answer: str) -> None:
    assert converse(*told.split(" | "), question).startswith(answer)


@pytest.mark.parametrize(("told", "question"), NOT_KNOWN, ids=lambda text: text)
def test_what_was_not_told_is_not_known(told: str, question: str) -> None:
    assert converse(*told.split(" | "), question) == UNKNOWN


def test_not_knowing_says_why_what_answers_and_how_to_get_a_real_model() -> None:
    assert "nothing in this conversation says so" in UNKNOWN
    assert LABEL in UNKNOWN
    assert "OPENAI_API_KEY" in UNKNOWN
    assert "llm=" in UNKNOWN


def test_the_source_is_quoted_in_full() -> None:
    told = "My name is Alice and I love pizza"
    assert converse(told, "What's my name?").endswith(f'You said: "{told}"')


def test_the_models_own_answers_are_no_source() -> None:
    history = [Said("user", "Hello"), Said("assistant", "Your name is Bob. My name is Bob. You live in Berlin.")]
    assert reply(history, "What's my name?") == UNKNOWN
    assert reply(history, "What did I say about Berlin?") == UNKNOWN


def test_several_questions_are_answered_one_by_one() -> None:
    answer = converse("My name is Alice and I live in Berlin", "What is my name, and where do I live?")
    assert [line.partition(" You said")[0] for line in answer.splitlines()] == [
        "Your name is Alice.",
        "You live in Berlin.",
    ]
    assert converse("My name is Bob. What is my name?").startswith("Your name is Bob.")
    assert converse("What is my name? What is my age?") == UNKNOWN  # said once
    assert converse("What is my name? Who are you?") == f"{UNKNOWN}\n{ABOUT_ME}"


def test_no_more_than_eight_questions_of_a_message_are_answered() -> None:
    told = " ".join(f"My key{n} is {n}." for n in range(20))
    assert len(converse(told, " ".join(f"What is my key{n}?" for n in range(20))).splitlines()) == 8


RESULTS = [
    Said("tool", "Sunny, 21 degrees", "get_weather", '{"city": "Paris"}'),
    Said("tool", "Rain", "get_weather", '{"city": "Rome"}'),
    Said("tool", "5", "add", '{"a": 2, "b": 3}'),
]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What was the weather in Paris?", 'get_weather returned: "Sunny, 21 degrees"'),
        ("What is the weather like in Rome?", 'get_weather returned: "Rain"'),
        ("What did add return?", 'add returned: "5"'),
        ("What do you know about the weather in Rome?", 'get_weather returned: "Rain"'),
        ("What is the weather in London?", UNKNOWN),
        ("What is the weather?", UNKNOWN),
    ],
)
def test_tool_results_are_a_source(question: str, answer: str) -> None:
    assert reply([Said("user", "Go on"), *RESULTS], question) == answer


TALK = ("My name is Alice.", "I like tea. Do you?", "Hello")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What did I say first?", 'Your first message was: "My name is Alice."'),
        ("What was my first message?", 'Your first message was: "My name is Alice."'),
        ("What was my last message?", 'Your last message was: "Hello"'),
        ("What did I just say?", 'Your last message was: "Hello"'),
        ("How many messages have I sent?", "You have sent 4 messages, this one included, and I have answered 3."),
        (
            "How many messages are there in this conversation?",
            "You have sent 4 messages, this one included, and I have answered 3.",
        ),
        ("Summarize our conversation", 'You said: "My name is Alice."; "I like tea."'),
        ("Please recap", 'You said: "My name is Alice."; "I like tea."'),
        ("What do you know about me?", 'You said: "My name is Alice."; "I like tea."'),
        ("What have we talked about so far?", 'You said: "My name is Alice."; "I like tea."'),
    ],
)
def test_questions_about_the_conversation(question: str, answer: str) -> None:
    assert converse(*TALK, question) == answer


def test_questions_about_an_empty_conversation() -> None:
    assert converse("What did I say first?") == "This is your first message."
    assert converse("Summarize our conversation") == "You have told me nothing yet."
    assert converse("How many messages have I sent?").startswith("You have sent 1 messages")


def test_a_long_summary_says_what_it_leaves_out() -> None:
    answer = converse(*(f"This is number {n}." for n in range(20)), "Summarize our conversation")
    assert answer.startswith('You said: "This is number 12."')
    assert answer.endswith('"This is number 19." (and 12 sentences before that)')


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("My name is Alice and I love pizza", "Noted: your name is Alice; you love pizza."),
        ("I'm 31. I was in Rome.", "Noted: you are 31; you were in Rome."),
        ("The flight is at 10 am", "Noted: The flight is at 10 am."),
        ("Carol hates fish.", 'Noted: "Carol hates fish."'),
        ("I like you and your dog", 'Noted: "I like you and your dog"'),
        ("我的名字是小明", 'Noted: "我的名字是小明"'),
        ("I am A. I am B. I am C. I am D. I am E.", "Noted: you are A; you are B; you are C; and 2 more."),
        ("I am 31. Write a poem.", f"Noted: you are 31. {UNABLE}"),
        ("Hello", HELLO),
        ("hi there!", HELLO),
        ("Good morning", HELLO),
        ("How are you?", HELLO),
        ("Thank you so much!", "You're welcome."),
        ("ok", "OK."),
        ("Write a poem", UNABLE),
        ("Find papers about machine learning", UNABLE),
        ("Can you write a poem?", UNABLE),
        ("Tell me a joke", UNABLE),
        ("I want you to write a poem", UNABLE),
        ("Explain why the sky is blue", UNABLE),
        ("Summarize this article for me", UNABLE),
        ("banana", UNABLE),
        ("", SILENT),
        (" \n ", SILENT),
    ],
)
def test_messages_that_ask_nothing(message: str, answer: str) -> None:
    assert converse(message) == answer


@pytest.mark.parametrize(
    "question", ["Who are you?", "Are you an LLM?", "What's your name?", "What can you do?", "help"]
)
def test_it_says_what_it_is(question: str) -> None:
    assert LABEL in converse("My name is Alice", question)


def test_long_texts_are_quoted_in_part() -> None:
    told = "The report is long " + "very " * 200
    answer = converse(told, "What was my last message?")
    assert answer.endswith(' very v" [...]')
    assert len(answer) < 400


def test_it_imports_only_cheap_modules() -> None:
    tree = ast.parse(Path(recall.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"__future__", "re", "collections.abc", "dataclasses", "typing"}


@pytest.mark.parametrize(
    "unit", ["a", " ", "a ", "I am ", "my ", "Alice's ", "and I ", "is ", ": ", "? ", ", ", "what is ", "和", "1."]
)
def test_a_huge_message_takes_no_time_to_speak_of(unit: str) -> None:
    text = unit * (60_000 // len(unit))
    started = time.process_time()
    reply([Said("user", text)], f"{text} Where do I live with Bob?")
    assert time.process_time() - started < 5


# Words that the rules know, so that random conversations reach them. No quotation marks: those in an answer are its own.
VOCABULARY = (
    "I my your the name is was are not am what who where when why how do did does live like don't called color food Alice Bob"
    " Berlin pizza blue 31 old years and but , . ? ! 我的名字是 什么 私は か tell me about add weather first message summarize"
    " he his Bob's if said = : because in on"
)
TEXTS = st.one_of(
    st.lists(st.sampled_from([*VOCABULARY.split(), "\n"]), max_size=14).map(" ".join),
    st.text(max_size=60).map(lambda text: text.replace('"', "")),
)
TOOLS = st.sampled_from(["add", "get_weather"])
HISTORIES = st.lists(st.builds(Said, st.sampled_from(["user", "assistant", "tool"]), TEXTS, TOOLS, TEXTS), max_size=5)
ASKED = st.builds(lambda case, before: ([*before, Said("user", case[0])], case[1]), st.sampled_from(KNOWN), HISTORIES)
TALKS = st.one_of(ASKED, st.tuples(HISTORIES, TEXTS))


@settings(deadline=None)
@given(TALKS)
def test_it_never_fails_and_never_wavers(talk: tuple[list[Said], str]) -> None:
    history, message = talk
    answer = reply(history, message)
    assert answer.strip()
    assert reply(list(history), message) == answer


@settings(deadline=None)
@given(TALKS)
def test_every_quotation_was_really_said(talk: tuple[list[Said], str]) -> None:
    history, message = talk
    sources = [said.text for said in history if said.who != "assistant"] + [message]
    for quoted in re.findall('"([^"]*)"', reply(history, message)):
        assert any(quoted in source for source in sources)


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_a_message(message: str) -> None:
    assert reply([Said("user", message)], message).strip()
