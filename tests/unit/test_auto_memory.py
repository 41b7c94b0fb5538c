"""Long-term memory in a turn: what the model is told and why, what is kept afterwards, and what goes wrong without harm."""

from __future__ import annotations

import asyncio
import json
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from wire import Wire

from praisonaiagents import Agent, MemoryConfig, Session
from praisonaiagents.agent.remembering import MEMORIES, NotRemembered
from praisonaiagents.errors import ConfigError
from praisonaiagents.memory.facts import Fact
from praisonaiagents.memory.memory import HEADING, Memory, NotEmbedded
from praisonaiagents.model.memory import Scope, Source
from praisonaiagents.session import DefaultSessionStore
from praisonaiagents.testing.llm import Call, Fail, Hang, Reply, Request, Say, ScriptedLLM, Tool

MakeAgent = Callable[..., Agent]
ALICE = "My name is Alice"
WHO = "What's my name?"


def auto(session: str | None = "s", user: str | None = "alice", **settings: Any) -> MemoryConfig:
    return MemoryConfig(session_id=session, user_id=user, auto_memory=True, **settings)


def known(user: str | None = "alice", **of: Any) -> list[str]:
    with Memory(user) as memory:
        return [item.text for item in memory.items(**of)]


# --- from one session to the next ---


def test_what_was_said_is_known_in_a_later_session_of_the_same_user_only(make_agent: MakeAgent) -> None:
    make_agent(llm="offline", memory=auto("first")).chat(ALICE)
    assert "Alice" in make_agent(llm="offline", memory=auto("second")).chat(WHO)
    assert "Alice" not in make_agent(llm="offline", memory=auto("second", "bob")).chat(WHO)
    assert "Alice" not in make_agent(llm="offline", memory={"session_id": "third", "user_id": "alice"}).chat(WHO)


def test_it_is_there_after_a_restart_without_any_session_too(make_agent: MakeAgent) -> None:
    make_agent(llm="offline", memory=auto(None)).chat(ALICE)
    assert "Alice" in make_agent(llm="offline", memory=auto(None)).chat(WHO)
    assert "Alice" in make_agent(llm="offline", memory=True, user_id="alice").chat(WHO)


RUNS: dict[str, Callable[[Agent, str], object]] = {
    "chat": lambda agent, text: agent.chat(text),
    "run": lambda agent, text: agent.run(text),
    "start": lambda agent, text: agent.start(text),
    "stream": lambda agent, text: list(agent.start(text, stream=True)),
    "iter_stream": lambda agent, text: list(agent.iter_stream(text)),
    "achat": lambda agent, text: asyncio.run(agent.achat(text)),
    "arun": lambda agent, text: asyncio.run(agent.arun(text)),
    "astart": lambda agent, text: asyncio.run(agent.astart(text)),
}


@pytest.mark.parametrize("way", RUNS)
def test_every_way_to_run_an_agent_remembers_and_recalls(make_agent: MakeAgent, way: str) -> None:
    agent = make_agent(llm="offline", memory=auto())
    RUNS[way](agent, ALICE)
    assert known() == ["The user's name is Alice"]
    RUNS[way](make_agent(llm="offline", memory=auto("t")), WHO)
    (asked,) = [m for m in DefaultSessionStore().messages("t", user_id="alice") if m.role == "user"]
    assert [told["why"] for told in asked.metadata[MEMORIES]] == ["shares name"]


def test_a_memory_says_where_it_comes_from_and_a_message_what_was_told_with_it(make_agent: MakeAgent) -> None:
    make_agent(llm="offline", memory=auto("first")).chat(ALICE)
    (said, _) = DefaultSessionStore().messages("first", user_id="alice")
    with Memory("alice") as memory:
        (item,) = memory.items()
    assert item.sources == (Source("first", said.id),)
    assert 0 < item.confidence <= 1
    assert item.created_at == item.updated_at >= said.timestamp
    make_agent(llm="offline", memory=auto("second")).chat(WHO)
    asked = DefaultSessionStore().messages("second", user_id="alice")[0]
    assert asked.metadata == {MEMORIES: [{"id": item.id, "why": "shares name"}]}


def test_said_again_it_is_one_and_contradicted_it_is_superseded(make_agent: MakeAgent) -> None:
    agent = make_agent(llm="offline", memory=auto())
    for text in (ALICE, ALICE, "My name is Al"):
        agent.chat(text)
    assert known() == ["The user's name is Al"]
    assert sorted(known(superseded=True)) == ["The user's name is Al", "The user's name is Alice"]
    assert "Alice" not in make_agent(llm="offline", memory=auto("t")).get_memory_context("name")


# --- what the model is told ---


def test_the_model_is_told_within_the_budget_and_only_if_there_is_something(make_agent: MakeAgent, wire: Wire) -> None:
    with ScriptedLLM(lambda _: Say("Yes.")) as llm:
        agent = make_agent(memory=MemoryConfig(user_id="alice", backend="sqlite", recall_tokens=60), **wire.agent(llm))
        agent.chat("Hello")
        assert HEADING not in str(llm.requests[-1].body)
        for number in range(100):
            agent.store_memory(f"Fact {number}: " + "tea " * 20)
        agent.store_memory("The user likes coffee")
        agent.chat("Do I like coffee?")
        body = str(llm.requests[-1].body)
        assert HEADING in body
        assert "The user likes coffee" in body
        assert body.count("Fact ") <= 2


def test_a_budget_of_nothing_tells_nothing(make_agent: MakeAgent) -> None:
    make_agent(llm="offline", memory=auto("first")).chat(ALICE)
    assert "Alice" not in make_agent(llm="offline", memory=auto("second", recall_tokens=0)).chat(WHO)


def test_what_shares_no_word_is_told_if_there_is_room(make_agent: MakeAgent) -> None:
    agent = make_agent(llm="offline", memory=True)
    agent.store_memory("The user is a vegetarian")
    assert "vegetarian" in agent.get_memory_context("What shall I cook?")
    assert "vegetarian" in agent.get_memory_context()


def test_an_embedder_finds_what_is_near_in_meaning(make_agent: MakeAgent) -> None:
    def animals(texts: Any) -> list[list[float]]:
        return [[1.0, 0.1] if any(word in text for word in ("dog", "puppy")) else [0.1, 1.0] for text in texts]

    agent = make_agent(llm="offline", memory=MemoryConfig(user_id="alice", embedder=animals))
    agent.store_memory("The user has a dog")
    agent.store_memory("The user has a boat")
    with Memory("alice", embedder=animals) as memory:
        best = memory.search("Where is my puppy?")[0]
    assert best.item.text == "The user has a dog"
    assert "near in meaning (1.00)" in best.why


def test_an_agent_without_a_memory_has_none(make_agent: MakeAgent) -> None:
    agent = make_agent(llm="offline", memory={"session_id": "s"})
    agent.store_memory("Likes tea")
    assert agent.get_memory_context("tea") == ""
    assert known("default_user") == []


class Theirs:
    """A memory object of somebody else's, as other libraries have it."""

    def __init__(self, found: Any) -> None:
        self.found = found
        self.asked: list[str] = []

    def add(self, text: str) -> None:
        raise AssertionError("nothing is added to a memory that is not ours")

    def search(self, query: str) -> Any:
        self.asked.append(query)
        return self.found


FOUND: dict[str, Any] = {
    "texts": ["The user's name is Alice"],
    "dicts": [{"id": 7, "memory": "The user's name is Alice", "score": 0.4}, {"content": "Likes tea"}],
    "results": {"results": [{"text": "The user's name is Alice"}]},
}


@pytest.mark.parametrize("form", FOUND)
def test_what_another_memory_finds_is_told(make_agent: MakeAgent, form: str) -> None:
    theirs = Theirs(FOUND[form])
    assert "Alice" in make_agent(llm="offline", memory=theirs).chat(WHO)
    assert theirs.asked == [WHO]


def test_another_memory_that_cannot_be_read_costs_no_answer(make_agent: MakeAgent) -> None:
    with pytest.warns(NotRemembered, match="returned int, not a list"):
        assert make_agent(llm="offline", memory=Theirs(5)).chat("Hello")
    assert make_agent(llm="offline", memory=Theirs([5, None, {}])).chat("Hello")


# --- extraction by a model ---


def scripted(*noted: dict[str, Any]) -> Callable[[Request], Reply]:
    """A model that answers "Fine." and, asked what to note, notes this."""

    def reply(request: Request) -> Reply:
        if "<exchange>" not in str(request.messages):
            return Say("Fine.")
        if "final_result" in str(request.body.get("tools")):
            return Call([Tool("final_result", {"facts": list(noted)})])
        return Say(json.dumps({"facts": list(noted)}))  # where the provider takes a schema for the answer

    return reply


def test_a_model_says_what_is_worth_keeping(make_agent: MakeAgent, wire: Wire) -> None:
    noted = [
        {"text": "The user lives in Berlin", "kind": "fact", "slot": "user.home", "confidence": 0.9},
        {"text": "Unsure", "confidence": 0.1},
        {"text": "The user's password is hunter22", "slot": "user.password"},
        {"text": "x" * 5000},
        {"text": " "},
    ]
    with ScriptedLLM(scripted(*noted)) as llm:
        assert make_agent(memory=auto(), **wire.agent(llm)).chat("I moved to Berlin") == "Fine."
        assert "<exchange>" in str(llm.requests[-1].body)
    with Memory("alice") as memory:
        (item,) = memory.items()
    assert (item.text, item.slot, item.confidence) == ("The user lives in Berlin", "user.home", 0.9)
    assert item.sources[0].session_id == "s"


def test_the_model_is_shown_the_slots_that_are_known(make_agent: MakeAgent, wire: Wire) -> None:
    with Memory("alice") as memory:
        memory.add("The user lives in Rome", kind="fact", slot="user.home")
    with ScriptedLLM(scripted({"text": "The user lives in Berlin", "slot": "user.home"})) as llm:
        make_agent(memory=auto(), **wire.agent(llm)).chat("I live in Berlin now")
        assert "user.home: The user lives in Rome" in str(llm.requests[-1].body)
    assert known() == ["The user lives in Berlin"]
    assert len(known(superseded=True)) == 2


def test_where_the_model_fails_rules_take_its_place_and_the_answer_is_not_lost(
    make_agent: MakeAgent, wire: Wire
) -> None:
    with ScriptedLLM([Say("Nice to meet you."), Fail(500)]) as llm:
        agent = make_agent(memory=auto(), **wire.agent(llm))
        with pytest.warns(NotRemembered, match="rules did"):
            assert agent.chat(ALICE) == "Nice to meet you."
    assert known() == ["The user's name is Alice"]


# --- what goes wrong without harm ---


def test_a_memory_that_cannot_be_read_costs_no_answer(make_agent: MakeAgent, home: Path) -> None:
    home.mkdir()
    (home / "memory.db").write_text("not a database, but a text that is long enough to look like one to anybody")
    agent = make_agent(llm="offline", memory=auto())
    with pytest.warns(NotRemembered) as told:
        assert agent.chat(ALICE)
    assert [str(warning.message).partition(":")[0] for warning in told] == [
        "the memory could not be read",
        "something could not be remembered",
    ]
    assert "Alice" not in "".join(str(warning.message) for warning in told)
    assert (home / "memory.db").read_text().startswith("not a database")
    assert len(DefaultSessionStore().messages("s", user_id="alice")) == 2


def test_an_embedder_that_fails_costs_neither_answer_nor_memory(make_agent: MakeAgent) -> None:
    def broken(texts: Any) -> Any:
        raise RuntimeError("hunter22")

    agent = make_agent(llm="offline", memory=auto(embedder=broken))
    later = make_agent(llm="offline", memory=auto("t", embedder=broken))
    with pytest.warns(NotEmbedded) as told:
        assert "Alice" in agent.chat(ALICE) + later.chat(WHO).replace(ALICE, "")
    assert known() == ["The user's name is Alice"]
    assert "hunter22" not in "".join(str(warning.message) for warning in told)


def test_a_memory_that_fails_in_every_turn_is_told_of_in_every_turn(make_agent: MakeAgent, home: Path) -> None:
    home.mkdir()
    (home / "memory.db").write_text("not a database, but a text that is long enough to look like one to anybody")
    agent = make_agent(llm="offline", memory=MemoryConfig(user_id="alice", backend="sqlite"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            agent.chat("Hello")
    assert len([warning for warning in caught if warning.category is NotRemembered]) == 3


def test_a_model_that_takes_too_long_to_note_withholds_no_answer(make_agent: MakeAgent, wire: Wire) -> None:
    with ScriptedLLM(lambda request: Hang("x") if "<exchange>" in str(request.messages) else Say("Hi.")) as llm:
        agent = make_agent(memory=auto(), **wire.agent(llm))
        with pytest.warns(NotRemembered, match="rules did"):
            assert agent.chat(ALICE, timeout=1) == "Hi."
    assert known() == ["The user's name is Alice"]


def test_a_memory_that_is_given_is_used_as_it_is(make_agent: MakeAgent) -> None:
    with Memory("alice", backend="in_memory") as hers, Memory("bob", backend="in_memory") as his:
        agent = make_agent(llm="offline", memory=hers)
        agent.store_memory("Keeps a parrot")
        assert agent._memory_instance is hers
        assert agent.user_id == "alice"
        assert [item.text for item in hers.items()] == ["Keeps a parrot"]
        assert make_agent(llm="offline", memory=his).get_memory_context("parrot") == ""
        with pytest.raises(ConfigError, match="user_id"):
            make_agent(llm="offline", memory=hers, user_id="bob")
        with Session("s", "alice") as session:
            assert "parrot" in session.Agent("A", llm="offline", memory=hers).get_memory_context("parrot")
            with pytest.raises(ConfigError, match="another user"):
                session.Agent("A", llm="offline", memory=his)
            with pytest.raises(ConfigError, match="pass a memory to the agents"):
                Session("t", "alice", memory_config=hers)


def test_of_facts_that_contradict_each_other_at_once_one_counts(home: Path) -> None:
    start = threading.Barrier(4)

    def learn(number: int) -> None:
        with Memory("alice") as memory:
            for slot in range(20):
                start.wait()
                memory.remember(
                    [Fact(f"The user lives in City{number}", slot=f"slot.{slot}")], Source("s", f"m{number}")
                )

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(learn, range(4)))
    with Memory("alice") as memory:
        for slot in range(20):
            assert len(memory.adapter.in_slot(Scope("alice"), f"slot.{slot}")) == 1


def test_a_failed_turn_leaves_no_memory(make_agent: MakeAgent, wire: Wire) -> None:
    with ScriptedLLM([Fail(500)]) as llm, pytest.raises(RuntimeError):
        make_agent(memory=auto(), **wire.agent(llm)).chat(ALICE)
    assert known(superseded=True) == []


def test_two_agents_that_learn_the_same_at_once_store_it_once(make_agent: MakeAgent) -> None:
    async def both() -> None:
        agents = [make_agent(llm="offline", memory=auto(f"s{number}")) for number in range(8)]
        await asyncio.gather(*(agent.achat(ALICE) for agent in agents))

    asyncio.run(both())
    assert known(superseded=True) == ["The user's name is Alice"]


def test_a_session_lets_its_agents_learn(home: Path) -> None:
    with Session("s", "alice", memory_config={"auto_memory": True}) as session:
        session.Agent("A", llm="offline").chat(ALICE)
        assert [found["text"] for found in session.search_memory("name")] == ["The user's name is Alice"]
    with Session("t", "alice") as later:
        assert "Alice" in later.Agent("B", llm="offline").chat(WHO)


def test_nothing_is_warned_of_when_all_is_well(make_agent: MakeAgent) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = make_agent(llm="offline", memory=auto())
        agent.chat(ALICE)
        agent.close()
