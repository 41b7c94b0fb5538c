"""One agent in many sessions: each has its own conversation, and all share what is dear."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from praisonaiagents import Agent
from praisonaiagents.errors import ConfigError, InvalidId
from praisonaiagents.model.message import Message
from praisonaiagents.session import get_default_session_store
from praisonaiagents.testing import Call, Say, ScriptedLLM, Tool


@pytest.fixture
def llm() -> Any:
    with ScriptedLLM([Say(f"answer {number}") for number in range(9)]) as server:
        yield server


def served(llm: ScriptedLLM, **settings: Any) -> Agent:
    return Agent("A", llm="openai/scripted", base_url=llm.openai_url, api_key="k", **settings)


def said(session_id: str, user_id: str) -> list[str]:
    return [message["content"] for message in get_default_session_store().get_chat_history(session_id, user_id=user_id)]


def test_each_user_has_a_conversation_of_their_own(llm: ScriptedLLM) -> None:
    with served(llm) as agent:
        agent.for_session("s", "alice").chat("I am Alice")
        agent.for_session("s", "bob").chat("I am Bob")
        agent.for_session("s", "alice").chat("again")
        agent.chat("and I am kept nowhere")
    assert said("s", "alice") == ["I am Alice", "answer 0", "again", "answer 2"]
    assert said("s", "bob") == ["I am Bob", "answer 1"]
    assert "Alice" not in str(llm.requests[1].body)
    assert "Alice" not in str(llm.requests[3].body)


def test_many_at_once_on_one_loop_share_one_connection_to_the_model() -> None:
    async def main(agent: Agent) -> None:
        agents = [agent.for_session(f"s{number}", "u") for number in range(20)]
        await asyncio.gather(*(each.achat("hello") for each in agents))
        assert len({id(await each._model()) for each in agents}) == 1
        await agent.aclose()

    with ScriptedLLM([Say("hi")] * 20) as llm:
        asyncio.run(main(served(llm)))
        assert len(llm.requests) == 20


def test_closing_one_of_them_closes_nothing_of_the_others(llm: ScriptedLLM, tmp_path: Any) -> None:
    with served(llm, db=f"sqlite:///{tmp_path}/s.db") as agent:
        one, other = agent.for_session("one"), agent.for_session("other")
        assert one.chat("x") == "answer 0"
        one.close()
        assert other.chat("x") == "answer 1"
        assert one.chat("x") == "answer 2"


def test_memories_are_those_of_the_user(llm: ScriptedLLM) -> None:
    with served(llm, memory=True) as agent:
        agent.for_session("s", "alice").store_memory("Alice likes pizza")
        assert "pizza" in agent.for_session("t", "alice").get_memory_context("what does Alice like: pizza?")
        assert agent.for_session("t", "bob").get_memory_context("what does Alice like: pizza?") == ""


def test_a_memory_object_of_the_callers_own_is_nobody_elses(llm: ScriptedLLM) -> None:
    class Own:
        def search(self, query: str) -> list[str]:
            return ["the owner's secret"]

        def add(self, text: str) -> None: ...

    agent = served(llm, memory=Own(), user_id="alice")
    assert agent.for_session("s", "alice")
    with pytest.raises(ConfigError, match="one user"):
        agent.for_session("s", "bob")
    with pytest.raises(InvalidId):
        served(llm).for_session("", "bob").chat("x")


def test_a_turn_that_was_cut_off_is_gone_on_with_under_its_id(llm: ScriptedLLM) -> None:
    """As after a crash: the user's message is stored, the answer is not."""
    store = get_default_session_store()
    store.append("s", [Message(role="user", content="hello", run_id="run-7", id="run-7-0")], user_id="u")
    with served(llm) as agent:
        assert asyncio.run(agent.for_session("s", "u").take_turn("hello", {}, run_id="run-7")) == "answer 0"
    assert said("s", "u") == ["hello", "answer 0"]


def test_of_what_a_turn_begins_with_the_rest_is_stored_where_it_was_cut_off(llm: ScriptedLLM) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    asked = Message(role="assistant", content=None, tool_calls=[call])
    result = Message(role="tool", content="found", tool_call_id="c")
    first = Message(role="tool", content="found", tool_call_id="c", run_id="run-7", id="run-7-0")
    get_default_session_store().append("s", [Message(role="user", content="look"), asked, first], user_id="u")
    with served(llm) as agent:
        here = agent.for_session("s", "u")
        assert asyncio.run(here.take_turn("so?", {}, run_id="run-7", results=[result])) == "answer 0"
    assert said("s", "u") == ["look", None, "found", "so?", "answer 0"]


def test_tools_that_run_elsewhere_end_the_turn_and_begin_the_next() -> None:
    from pydantic_ai.tools import ToolDefinition

    async def main(agent: Agent) -> None:
        here = agent.for_session("s", "u")
        stored: list[Message] = []
        look = ToolDefinition(name="look", parameters_json_schema={"type": "object", "properties": {}})
        assert await here.take_turn("what is there?", {}, stored=stored.append, elsewhere=[look]) == ""
        (call,) = stored[-1].calls()
        result = Message(role="tool", content="a cat", tool_call_id=call["id"], name="look")
        assert await here.take_turn(None, {}, results=[result], elsewhere=[look]) == "A cat."
        await agent.aclose()

    with ScriptedLLM([Call([Tool("look")]), Say("A cat.")]) as llm:
        asyncio.run(main(served(llm)))
        assert llm.requests[1].messages[-1]["content"] == "a cat"
    roles = [message["role"] for message in get_default_session_store().get_chat_history("s", user_id="u")]
    assert roles == ["user", "assistant", "tool", "assistant"]
