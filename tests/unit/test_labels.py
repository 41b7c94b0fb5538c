"""Titles, tags, pinned and archived sessions: what they change, and what lists show then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from test_branches import everywhere, say, store  # noqa: F401 - the fixtures

from praisonaiagents import Agent
from praisonaiagents.errors import ConfigError, SessionNotFound
from praisonaiagents.model.message import Message
from praisonaiagents.session import HierarchicalSessionStore, labels
from praisonaiagents.session.labels import archive, listed, pin, tag, unarchive, unpin, untag
from praisonaiagents.session.titles import auto_title, cut
from praisonaiagents.testing.llm import Fail, Hang, Say, ScriptedLLM


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [row["session_id"] for row in found]


def sessions(store: HierarchicalSessionStore, *names: str) -> None:  # noqa: F811
    for name in names:
        store.add_user_message(name, name)


# --- tags ---


def test_tags_are_added_taken_off_and_listed(everywhere: HierarchicalSessionStore) -> None:  # noqa: F811
    sessions(everywhere, "a", "b")
    assert tag(everywhere, "a", "trip", " été ") == ["trip", "été"]
    assert tag(everywhere, "a", "trip", "new") == ["trip", "été", "new"]
    tag(everywhere, "b", "été")
    assert ids(listed(everywhere, tag="été")) == ["b", "a"]
    assert ids(listed(everywhere, tag="été", user_id="bob")) == []
    assert untag(everywhere, "a", "été", "nothing") == ["trip", "new"]
    assert [(row["session_id"], row["tags"]) for row in listed(everywhere, tag="trip")] == [("a", ["trip", "new"])]
    assert untag(everywhere, "a", "trip", "new") == []
    assert "tags" not in everywhere.get_session("a").metadata


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 61, "\x1b[2J"])
def test_what_is_no_tag_is_refused(store: HierarchicalSessionStore, name: str) -> None:  # noqa: F811
    sessions(store, "a")
    for use in (tag, untag):
        with pytest.raises(ConfigError, match="a tag is"):
            use(store, "a", "good", name)
    with pytest.raises(ConfigError):
        listed(store, tag=name)
    assert store.get_session("a").metadata == {}


def test_a_tag_that_is_there_writes_nothing(store: HierarchicalSessionStore) -> None:  # noqa: F811
    sessions(store, "a")
    tag(store, "a", "x")
    before = store.engine.get(store._key("a", None))
    tag(store, "a", "x")
    untag(store, "a", "y")
    assert store.engine.get(store._key("a", None)) == before


def test_tags_of_many_at_once_are_all_kept(everywhere: HierarchicalSessionStore) -> None:  # noqa: F811
    sessions(everywhere, "a")
    threads = [threading.Thread(target=tag, args=(everywhere, "a", f"t{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(tag(everywhere, "a")) == [f"t{n}" for n in range(8)]


def test_metadata_of_another_program_is_no_obstacle(store: HierarchicalSessionStore) -> None:  # noqa: F811
    sessions(store, "a")
    store.update_session_metadata("a", tags="one, two", pinned="yes", archived=1)
    [row] = listed(store)
    assert (row["tags"], row["pinned"], row["archived"]) == ([], False, False)
    assert tag(store, "a", "x") == ["x"]


# --- pinned and archived ---


def test_pinned_sessions_come_first(everywhere: HierarchicalSessionStore) -> None:  # noqa: F811
    sessions(everywhere, "a", "b", "c")
    pin(everywhere, "a")
    pin(everywhere, "b")
    sessions(everywhere, "d")
    assert ids(listed(everywhere)) == ["b", "a", "d", "c"]
    assert ids(listed(everywhere, 1)) == ["b"]
    assert ids(listed(everywhere, 3)) == ["b", "a", "d"]
    assert ids(listed(everywhere, None)) == ["b", "a", "d", "c"]
    assert listed(everywhere, 0) == []
    unpin(everywhere, "a")
    unpin(everywhere, "b")
    assert {row["pinned"] for row in listed(everywhere)} == {False}
    assert "pinned" not in everywhere.get_session("a").metadata


def test_a_pinned_session_is_found_behind_many_others(
    store: HierarchicalSessionStore,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(labels, "_LOOKED_AT", 5)
    sessions(store, "old")
    pin(store, "old")
    sessions(store, *"abcd")
    assert ids(listed(store, 2)) == ["old", "d"]
    sessions(store, "e")
    assert ids(listed(store, 2)) == ["e", "d"]  # further back than it is looked for
    assert ids(listed(store, None)) == ["old", *"edcba"]


def test_archived_sessions_are_left_out(everywhere: HierarchicalSessionStore) -> None:  # noqa: F811
    sessions(everywhere, "a", "b")
    archive(everywhere, "b")
    assert ids(listed(everywhere)) == ["a"]
    assert ids(listed(everywhere, archived=True)) == ["b"]
    assert everywhere.get_chat_history("b") == [{"role": "user", "content": "b"}]
    everywhere.add_user_message("b", "more")
    assert ids(listed(everywhere)) == ["a"]
    unarchive(everywhere, "b")
    assert ids(listed(everywhere)) == ["b", "a"]


def test_lists_are_of_one_user_or_of_all(store: HierarchicalSessionStore) -> None:  # noqa: F811
    sessions(store, "a")
    store.add_user_message("b", "b", user_id="bob")
    pin(store, "b", user_id="bob")
    assert ids(listed(store)) == ["a"]
    assert ids(listed(store, all_users=True)) == ["b", "a"]
    with pytest.raises(ConfigError):
        listed(store, -1)


@pytest.mark.parametrize("change", [pin, unpin, archive, unarchive, tag, untag])
def test_a_session_that_is_not_there_is_not_made(
    store: HierarchicalSessionStore,  # noqa: F811
    change: Callable[..., object],
) -> None:
    sessions(store, "a")
    with pytest.raises(SessionNotFound):
        change(store, "nowhere")
    with pytest.raises(SessionNotFound):
        change(store, "a", user_id="bob")
    assert ids(listed(store, all_users=True)) == ["a"]


def test_a_fork_is_neither_pinned_nor_archived_but_has_the_tags(store: HierarchicalSessionStore) -> None:  # noqa: F811
    sessions(store, "a")
    tag(store, "a", "x")
    pin(store, "a")
    archive(store, "a")
    store.fork_session("a", new_session_id="fork")
    assert [(row["session_id"], row["tags"], row["pinned"]) for row in listed(store)] == [("fork", ["x"], False)]


# --- titles ---


def titled(store: HierarchicalSessionStore, llm: ScriptedLLM, session_id: str = "s") -> bool:  # noqa: F811
    async def work() -> bool:
        async with Agent("T", llm="openai/gpt-x", base_url=llm.openai_url) as agent:
            return await auto_title(store, session_id, agent.achat, timeout_s=60)  # the machine may be busy

    return asyncio.run(work())


@pytest.fixture
def talk(store: HierarchicalSessionStore) -> HierarchicalSessionStore:  # noqa: F811
    say(store, "s", "where do penguins sleep?")
    return store


def title(store: HierarchicalSessionStore) -> str | None:  # noqa: F811
    return store.get_extended_session("s").title


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Where penguins sleep at night", "Where penguins sleep at night"),
        ('"Where Penguins Sleep."', "Where Penguins Sleep"),
        ("**Title: Penguin sleep**\n", "Penguin sleep"),
        ("# Pinguine, nachts", "Pinguine, nachts"),
        ("企鹅在哪里睡觉", "企鹅在哪里睡觉"),
        ("Penguins\x1b[2J", "Penguins [2J"),
    ],
)
def test_a_model_names_the_session(talk: HierarchicalSessionStore, answer: str, found: str) -> None:
    with ScriptedLLM([Say(answer)]) as llm:
        assert titled(talk, llm)
    assert title(talk) == found
    asked = llm.requests[0].messages[-1]["content"]
    assert "user: where do penguins sleep?\nassistant: WHERE DO PENGUINS SLEEP?" in asked
    assert "3 to 8 words" in asked


@pytest.mark.parametrize(
    "reply",
    [Fail(500), Say(""), Say(" \n"), Say("word " * 9), Say("x" * 61), Say("Sure! Here is a title:\nPenguins at night")],
    ids=["failed", "empty", "blank", "too many words", "too long", "several lines"],
)
def test_where_the_model_gives_no_title_the_users_words_are_it(
    talk: HierarchicalSessionStore, reply: Say | Fail
) -> None:
    with ScriptedLLM(lambda request: reply) as llm:
        assert titled(talk, llm)
    assert title(talk) == "where do penguins sleep?"


def test_a_model_that_is_late_is_not_waited_for(talk: HierarchicalSessionStore) -> None:
    async def work(llm: ScriptedLLM) -> bool:
        async with Agent("T", llm="openai/gpt-x", base_url=llm.openai_url) as agent:
            return await auto_title(talk, "s", agent.achat, timeout_s=0.2)

    with ScriptedLLM([Hang("Penguins")]) as llm:
        assert asyncio.run(work(llm))
    assert title(talk) == "where do penguins sleep?"


def test_without_a_model_the_users_first_words_are_the_title(everywhere: HierarchicalSessionStore) -> None:  # noqa: F811
    say(everywhere, "s", "# Hello,\nI want to go to a place where penguins live, and I want to go there soon")
    assert asyncio.run(everywhere.auto_title("s"))
    assert title(everywhere) == "Hello,"
    assert asyncio.run(everywhere.auto_title("s")) is False


def test_no_session_is_named_before_a_turn_was_answered(store: HierarchicalSessionStore) -> None:  # noqa: F811
    with ScriptedLLM([]) as llm:
        assert titled(store, llm) is False  # no such session
        store.add_user_message("s", "hi")
        assert titled(store, llm) is False
        store.append("s", [Message("assistant", "", status="failed")])
        assert titled(store, llm) is False
        store.append("s", [Message("assistant", "Hello!", status="failed")])
        assert titled(store, llm) is False
    assert title(store) is None
    assert len(store.list_sessions()) == 1


def test_a_title_that_is_there_stays(talk: HierarchicalSessionStore) -> None:
    talk.set_title("s", "Mine")
    with ScriptedLLM([]) as llm:
        assert titled(talk, llm) is False
    assert title(talk) == "Mine"


def test_a_title_given_while_the_model_thinks_stays(talk: HierarchicalSessionStore) -> None:
    async def ask(question: str) -> str:
        talk.set_title("s", "Mine")
        return "Penguins"

    assert asyncio.run(talk.auto_title("s", ask)) is False
    assert title(talk) == "Mine"


def test_only_the_users_own_session_is_named(talk: HierarchicalSessionStore) -> None:
    assert asyncio.run(talk.auto_title("s", user_id="bob")) is False
    say(talk, "t", "hello")
    assert asyncio.run(talk.auto_title("t", user_id="")) is True


def test_a_picture_alone_gives_no_title(store: HierarchicalSessionStore) -> None:  # noqa: F811
    picture = [{"type": "image_url", "image_url": {"url": "https://example.com/p.png"}}]
    store.append("s", [Message("user", picture), Message("assistant", "A penguin.")])
    assert asyncio.run(store.auto_title("s")) is False


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("short", "short"),
        ("\n\n  - first words  \nmore", "first words"),
        ("a" * 70, "a" * 59 + "…"),
        ("word " * 20, "word " * 11 + "word…"),
        ("企" * 70, "企" * 59 + "…"),
        ("", ""),
    ],
)
def test_a_long_text_is_cut_between_words(text: str, found: str) -> None:
    assert cut(text) == found
    assert len(found) <= 60
