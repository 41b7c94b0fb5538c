"""Eight ways to run an agent, one turn: what is stored, sent and restored does not depend on the way.

Each way takes a turn with a text, two parallel tool calls whose results come in the opposite order, and a second turn. The
session's file must then hold these bytes, ids and times aside, and the model must have been sent these messages.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from wire import OPENAI, PATIENCE_S, Bot, Json, Result, User, Wire, session_file, timeless

from praisonaiagents import Agent
from praisonaiagents.model.message import Message
from praisonaiagents.session import DefaultSessionStore
from praisonaiagents.storage.engine import Appended
from praisonaiagents.testing.llm import Call, Request, Say, ScriptedLLM, Tool

STYLES: dict[str, Callable[[Agent, str], Any]] = {
    "start": lambda agent, prompt: agent.start(prompt),
    "chat": lambda agent, prompt: agent.chat(prompt),
    "run": lambda agent, prompt: agent.run(prompt),
    "achat": lambda agent, prompt: asyncio.run(agent.achat(prompt)),
    "astart": lambda agent, prompt: asyncio.run(agent.astart(prompt)),
    "arun": lambda agent, prompt: asyncio.run(agent.arun(prompt)),
    "iter_stream": lambda agent, prompt: list(agent.iter_stream(prompt)),
    "start(stream=True)": lambda agent, prompt: list(agent.start(prompt, stream=True)),
}
STREAMED = ("iter_stream", "start(stream=True)")
every_style = pytest.mark.parametrize("style", STYLES)

LATE, EARLY = Tool("late", {"n": 1, "text": "é 🙂"}, id="call_1"), Tool("early", {"n": 2}, id="call_2")
REPLIES = [Call([LATE, EARLY], text="Let me see."), Say("Both are done."), Say("You are welcome.")]
FIRST, SECOND = "Run both, é 🙂", "Thank you"

STORED = """\
{
"session_id": "styles",
"user_id": "default_user",
"storage": {"format":1,"revision":0,"first":0,"start":0},
"agent_name": "Assistant",
"created_at": "time",
"metadata": {},
"state": {},
"messages": [
{"role":"user","content":"Run both, é 🙂","timestamp":0,"id":"id","run_id":"run 0","agent":"Assistant"},
{"role":"assistant","content":"Let me see.","timestamp":0,"tool_calls":[{"id":"call_1","type":"function","function":\
{"name":"late","arguments":"{\\"n\\":1,\\"text\\":\\"é 🙂\\"}"}},{"id":"call_2","type":"function","function":\
{"name":"early","arguments":"{\\"n\\":2}"}}],"id":"id","usage":{"input_tokens":10,"output_tokens":5},"model":"MODEL",\
"run_id":"run 0","agent":"Assistant"},
{"role":"tool","content":"{\\"early\\":2}","timestamp":0,"tool_call_id":"call_2","name":"early","id":"id",\
"run_id":"run 0","agent":"Assistant"},
{"role":"tool","content":"late 1","timestamp":0,"tool_call_id":"call_1","name":"late","id":"id",\
"run_id":"run 0","agent":"Assistant"},
{"role":"assistant","content":"Both are done.","timestamp":0,"id":"id","usage":{"input_tokens":10,"output_tokens":5},\
"model":"MODEL","run_id":"run 0","agent":"Assistant"},
{"role":"user","content":"Thank you","timestamp":0,"id":"id","run_id":"run 1","agent":"Assistant"},
{"role":"assistant","content":"You are welcome.","timestamp":0,"id":"id","usage":{"input_tokens":10,"output_tokens":5},\
"model":"MODEL","run_id":"run 1","agent":"Assistant"}
],
"message_count": 7,
"updated_at": "time"
}
"""


class InTurn(DefaultSessionStore):
    """The default store, and two tools of which `late` does not return before the result of `early` is stored."""

    def __init__(self) -> None:
        super().__init__()
        self._early_is_stored = threading.Event()

    def append(self, session_id: str, messages: Sequence[Message], **options: Any) -> Appended:
        appended = super().append(session_id, messages, **options)
        if messages[0].name == "early":
            self._early_is_stored.set()
        return appended

    def late(self, n: int, text: str) -> str:
        """Return last."""
        assert self._early_is_stored.wait(PATIENCE_S)
        return f"late {n}"

    async def early(self, n: int) -> dict[str, int]:
        """Return first."""
        return {"early": n}


def sent(wire: Wire) -> list[list[Json]]:
    """The messages of the three requests."""
    answered = Bot("Let me see.", (LATE, EARLY)), Result("call_1", "late 1"), Result("call_2", '{"early":2}')
    return [
        wire.messages(User(FIRST)),
        wire.messages(User(FIRST), *answered),
        wire.messages(User(FIRST), *answered, Bot("Both are done."), User(SECOND)),
    ]


def agent_of(wire: Wire, llm: ScriptedLLM, store: InTurn) -> Agent:
    memory = {"session_id": "styles"}
    tools = [store.late, store.early]
    return Agent("Assistant", tools=tools, memory=memory, session_store=store, **wire.agent(llm))


def beside_the_messages(request: Request) -> Json:
    """What else was sent, but for how the answer is to come."""
    return {name: value for name, value in request.body.items() if name not in ("messages", "stream", "stream_options")}


@every_style
def test_what_is_stored_sent_and_restored_is_the_same(style: str, wire: Wire, home: Path) -> None:
    call = STYLES[style]
    with ScriptedLLM([*REPLIES, Say("Nothing.")]) as llm:
        store = InTurn()
        with agent_of(wire, llm, store) as agent:
            answers = call(agent, FIRST), call(agent, SECOND)
        file = session_file(home, "styles").read_text("utf-8")
        assert timeless(file) == STORED.replace("MODEL", wire.model)
        assert [request.messages for request in llm.requests] == sent(wire)
        assert beside_the_messages(llm.requests[0]) == beside_the_messages(llm.requests[2])

        with agent_of(wire, llm, store) as second:
            call(second, "What did you do?")
            assert second.chat_history[:-2] == agent.chat_history
        restored = [*sent(wire)[-1], *wire.messages(Bot("You are welcome."), User("What did you do?"))[-2:]]
        assert llm.requests[-1].messages == restored
    if style in STREAMED:
        assert answers == (["Let", " me ", "see.", "Both", " are ", "done."], ["You a", "re we", "lcome."])
    else:
        assert answers == ("Both are done.", "You are welcome.")


def test_what_is_sent_beside_the_messages_is_the_same(wire: Wire) -> None:
    seen = []
    for call in STYLES.values():
        with ScriptedLLM([Say("Yes.")]) as llm, Agent("Assistant", tools=[len_of], **wire.agent(llm)) as agent:
            call(agent, FIRST)
            seen.append(beside_the_messages(llm.requests[0]))
    assert seen == [seen[0]] * len(STYLES)
    assert seen[0]["tools"]


def len_of(text: str) -> int:
    """How long a text is."""
    return len(text)


def test_the_way_may_change_from_turn_to_turn(wire: Wire, home: Path) -> None:
    replies = [reply for number in range(len(STYLES)) for reply in (Call([EARLY]), Say(f"Answer {number}."))]
    histories = []
    for calls in (list(STYLES.values()), [STYLES["chat"]] * len(STYLES)):
        with ScriptedLLM(replies) as llm:
            store = InTurn()
            with agent_of(wire, llm, store) as agent:
                for number, call in enumerate(calls):
                    call(agent, f"Question {number}?")
            file = session_file(home, "styles")
            histories.append((timeless(file.read_text("utf-8")), [request.messages for request in llm.requests]))
            file.unlink()
    assert histories[0] == histories[1]
    assert len(histories[0][1][-1]) >= 2 * len(STYLES)


@every_style
def test_without_a_session_the_agent_remembers_all_the_same(style: str) -> None:
    def late(n: int, text: str) -> str:
        return f"late {n}"

    with ScriptedLLM(REPLIES) as llm:
        with Agent("Assistant", tools=[late, InTurn().early], **OPENAI.agent(llm)) as agent:
            STYLES[style](agent, FIRST)
            STYLES[style](agent, SECOND)
        assert [request.messages for request in llm.requests] == sent(OPENAI)
