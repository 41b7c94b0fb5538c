"""Edit, retry and replay: what the model is asked over HTTP, what stands in the fork, and that the session stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from test_branches import branches, damaged, shown, store  # noqa: F401 - two of them are fixtures

from praisonaiagents import Agent
from praisonaiagents.errors import ConfigError, ModelError, SessionNotFound
from praisonaiagents.model.message import Content, Message
from praisonaiagents.session import HierarchicalSessionStore
from praisonaiagents.session.again import Answered, Ask, edit, replay, retry, said
from praisonaiagents.session.branches import merge
from praisonaiagents.testing.llm import Call, Fail, Say, ScriptedLLM, Tool


@pytest.fixture
def talk(store: HierarchicalSessionStore) -> HierarchicalSessionStore:  # noqa: F811
    """Session "s": two questions, answered by the model "old"."""
    for question, answer in (("one", "first"), ("two", "second")):
        store.append("s", [Message("user", question), Message("assistant", answer, model="old")])
    return store


@pytest.fixture
def asking(talk: HierarchicalSessionStore) -> Callable[..., Ask]:
    """`asking(llm)` asks the model behind this server, as a user would."""

    def make(llm: ScriptedLLM, user_id: str | None = None, **settings: Any) -> Ask:
        def ask(fork: str, content: Content) -> str:
            where = {"session_id": fork, "session_store": talk, "user_id": user_id}
            with Agent("A", llm="openai/new", base_url=llm.openai_url, **where, **settings) as agent:
                return agent.chat(content)

        return ask

    return make


def sent(llm: ScriptedLLM, request: int = -1) -> list[Any]:
    """What the model was sent, without the instructions."""
    return [message["content"] for message in llm.requests[request].messages if message["role"] != "system"]


def test_an_edited_message_stands_in_a_fork(talk: HierarchicalSessionStore) -> None:
    fork = edit(talk, "s", 2, "two, please")
    assert shown(talk, fork) == ["one", "first", "two, please"]
    assert shown(talk, "s") == ["one", "first", "two", "second"]
    assert talk.get_parent(fork) == "s"


def test_a_message_that_cannot_be_read_shifts_no_fork(damaged: HierarchicalSessionStore) -> None:  # noqa: F811
    fork = edit(damaged, "a", 3, "three, please")
    assert shown(damaged, fork) == ["one", "two", "TWO", "three, please"]
    done = retry(damaged, "b", lambda fork, content: "better")
    assert shown(damaged, done.fork_id) == ["one", "two", "TWO", "three", "THREE"]
    assert (done.question, done.before) == ("four", "FOUR")


def test_a_summary_of_a_merge_is_nothing_that_the_user_said(store: HierarchicalSessionStore) -> None:  # noqa: F811
    branches(store)
    merge(store, "a", "b", summary="yours, in short")
    assert said(store.messages("a")) == [0, 2]
    assert retry(store, "a", lambda fork, content: "better").question == "mine"
    with pytest.raises(ConfigError, match="the user's messages are 0, 2"):
        edit(store, "a", 4, "mine, in short")


def test_an_edited_message_is_answered(talk: HierarchicalSessionStore, asking: Callable[..., Ask]) -> None:
    with ScriptedLLM([Say("better")]) as llm:
        fork = edit(talk, "s", 2, "two, please", ask=asking(llm))
    assert sent(llm) == ["one", "first", "two, please"]
    assert shown(talk, fork) == ["one", "first", "two, please", "better"]


def test_the_first_message_may_be_edited_too(talk: HierarchicalSessionStore) -> None:
    talk.update_session_metadata("s", model="m", tags=["t"], pinned=True, archived=True)
    talk.set_agent_info("s", "Guide")
    talk.set_state("s", {"n": 1})
    fork = edit(talk, "s", 0, "uno", title="In Spanish")
    found = talk.get_extended_session(fork)
    assert shown(talk, fork) == ["uno"]
    assert (found.parent_id, found.title, found.agent_name, found.state) == ("s", "In Spanish", "Guide", {"n": 1})
    assert found.metadata == {"model": "m", "tags": ["t"], "title": "In Spanish"}
    assert talk.get_extended_session(edit(talk, "s", 0, "eins")).title == "Fork of s"


@pytest.mark.parametrize("index", [1, 4, -1, True, "2"])
def test_only_a_users_message_can_be_edited(talk: HierarchicalSessionStore, index: Any) -> None:
    with pytest.raises(ConfigError, match="is not one of the user's; the user's messages are 0, 2"):
        edit(talk, "s", index, "x")
    assert talk.get_children("s") == []


def test_an_error_names_the_last_few_messages_of_many(talk: HierarchicalSessionStore) -> None:
    for n in range(20):
        talk.add_user_message("many", str(n))
    with pytest.raises(ConfigError, match=r"are \.\.\., 10, 11, 12, 13, 14, 15, 16, 17, 18, 19$"):
        edit(talk, "many", 20, "x")


@pytest.mark.parametrize("text", ["", " \n", [], None])
def test_an_empty_text_is_refused(talk: HierarchicalSessionStore, text: Any) -> None:
    with pytest.raises(ConfigError, match="empty"):
        edit(talk, "s", 2, text)
    assert talk.get_children("s") == []


def test_the_last_answer_is_given_again(talk: HierarchicalSessionStore, asking: Callable[..., Ask]) -> None:
    with ScriptedLLM([Say("2nd")]) as llm:
        done = retry(talk, "s", asking(llm))
    assert done == Answered(done.fork_id, 2, "two", "second", "2nd", "old")
    assert sent(llm) == ["one", "first", "two"]
    assert llm.requests[0].body["model"] == "new"
    assert shown(talk, done.fork_id) == ["one", "first", "two", "2nd"]
    assert shown(talk, "s") == ["one", "first", "two", "second"]


def test_a_question_that_was_not_answered_is_asked_again(
    talk: HierarchicalSessionStore, asking: Callable[..., Ask]
) -> None:
    with ScriptedLLM([Fail(500), Say("third")]) as llm:
        with pytest.raises(ModelError):
            asking(llm)("s", "three")
        done = retry(talk, "s", asking(llm))
    assert (done.before, done.after) == ("", "third")
    assert sent(llm) == ["one", "first", "two", "second", "three"]


def test_a_part_of_an_answer_that_failed_is_no_answer(talk: HierarchicalSessionStore) -> None:
    talk.append("s", [Message("user", "three"), Message("assistant", "th", status="failed")])
    assert retry(talk, "s", lambda fork, content: "third").before == ""


def test_an_answer_with_tools_is_given_again_as_a_whole(
    talk: HierarchicalSessionStore, asking: Callable[..., Ask]
) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    with ScriptedLLM(
        [Call([Tool("add", {"a": 1, "b": 2})]), Say("3"), Call([Tool("add", {"a": 1, "b": 2})]), Say("three")]
    ) as llm:
        asking(llm, tools=[add])("s", "1+2?")
        done = retry(talk, "s", asking(llm, tools=[add]))
    assert (done.message_index, done.before, done.after) == (4, "3", "three")
    roles = [message.role for message in talk.messages(done.fork_id)]
    assert roles == ["user", "assistant", "user", "assistant", "user", "assistant", "tool", "assistant"]


def test_what_cannot_be_asked_again_is_said(talk: HierarchicalSessionStore, asking: Callable[..., Ask]) -> None:
    talk.add_assistant_message("quiet", "Hello?")
    with ScriptedLLM([]) as llm:
        for again in (retry, lambda *given: list(replay(*given))):
            with pytest.raises(ConfigError, match="the user has said nothing"):
                again(talk, "quiet", asking(llm))
            with pytest.raises(SessionNotFound):
                again(talk, "nowhere", asking(llm))
    assert not talk.session_exists("nowhere")


def test_all_that_was_said_is_said_again(talk: HierarchicalSessionStore, asking: Callable[..., Ask]) -> None:
    with ScriptedLLM([Say("1st"), Say("2nd")]) as llm:
        turns = list(replay(talk, "s", asking(llm)))
    assert [(turn.question, turn.before, turn.after, turn.model) for turn in turns] == [
        ("one", "first", "1st", "old"),
        ("two", "second", "2nd", "old"),
    ]
    assert [turn.message_index for turn in turns] == [0, 2]
    assert sent(llm, 0) == ["one"]
    assert sent(llm, 1) == ["one", "1st", "two"]  # the new model's own answer, not the old one's
    [fork] = {turn.fork_id for turn in turns}
    assert shown(talk, fork) == ["one", "1st", "two", "2nd"]


def test_what_stands_before_the_first_question_comes_along(
    talk: HierarchicalSessionStore, asking: Callable[..., Ask]
) -> None:
    talk.append("t", [Message("system", "Be brief."), Message("user", "hi"), Message("assistant", "Hello!")])
    with ScriptedLLM([Say("Hey")]) as llm:
        [turn] = replay(talk, "t", asking(llm))
    assert shown(talk, turn.fork_id) == ["Be brief.", "hi", "Hey"]


def test_failed_turns_are_not_played_again(talk: HierarchicalSessionStore, asking: Callable[..., Ask]) -> None:
    with ScriptedLLM([Fail(500), Say("1st"), Say("2nd")]) as llm:
        with pytest.raises(ModelError):
            asking(llm)("s", "three")
        turns = list(replay(talk, "s", asking(llm)))
    assert [turn.question for turn in turns] == ["one", "two"]


def test_what_was_answered_before_a_failure_is_kept_and_named(
    talk: HierarchicalSessionStore, asking: Callable[..., Ask]
) -> None:
    with ScriptedLLM([Say("1st"), Fail(500)]) as llm:
        turns = replay(talk, "s", asking(llm))
        first = next(turns)
        with pytest.raises(ModelError) as failed:
            next(turns)
    assert failed.value.__notes__ == [f"what was said by then is in the fork {first.fork_id!r}"]
    assert shown(talk, first.fork_id)[:3] == ["one", "1st", "two"]
    assert shown(talk, "s") == ["one", "first", "two", "second"]


def test_nothing_is_made_before_the_first_turn_is_asked_for(talk: HierarchicalSessionStore) -> None:
    replay(talk, "s", lambda fork, content: "never")
    assert talk.get_children("s") == []


def test_it_stays_within_one_user(talk: HierarchicalSessionStore, asking: Callable[..., Ask]) -> None:
    talk.add_user_message("s", "bob's", user_id="bob")
    with ScriptedLLM([Say("hi Bob"), Say("hi again")]) as llm:
        done = retry(talk, "s", asking(llm, "bob"), user_id="bob")
        [turn] = replay(talk, "s", asking(llm, "bob"), user_id="bob")
    fork = edit(talk, "s", 0, "new", user_id="bob")
    for made in (done.fork_id, turn.fork_id, fork):
        assert talk.session_exists(made, user_id="bob")
        assert not talk.session_exists(made, user_id="default_user")
    assert sent(llm) == ["bob's"]
    with pytest.raises(SessionNotFound):
        edit(talk, "s", 0, "x", user_id="carol")
