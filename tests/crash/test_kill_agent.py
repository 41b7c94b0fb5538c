"""A process is killed in the middle of a turn, and another one goes on with the session.

Whatever the moment: what a call or the file had acknowledged is there, nothing is there twice, and the provider takes what it
is sent. The model is a real HTTP server that refuses what providers refuse, such as a tool call without its result.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from wire import INTERRUPTED, Bot, Result, Said, User, Wire, started, stored, told

from praisonaiagents import Agent
from praisonaiagents.testing.llm import Call, Hang, Reply, Say, ScriptedLLM, Tool

TALK = """
    import json, os, sys
    from praisonaiagents import Agent
    from praisonaiagents.session import DefaultSessionStore

    def say(*words):
        os.write(1, (" ".join(words) + "\\n").encode())  # at once, whatever other threads say

    class Saying(DefaultSessionStore):
        "The default store, saying what it has stored when it has."
        def append(self, session_id, messages, **options):
            appended = super().append(session_id, messages, **options)
            say("stored", messages[0].role)
            return appended

    def quick(n: int) -> str:
        return f"quick {n}"

    def stuck(n: int) -> str:
        say("stuck")
        return sys.stdin.readline()

    settings = json.loads(sys.argv[1])
    agent = Agent("Assistant", tools=[quick, stuck], memory={"session_id": "killed"}, session_store=Saying(), **settings)
    say("answer", agent.chat("First"))
    for piece in agent.iter_stream("Second") if sys.argv[2] == "stream" else [agent.chat("Second")]:
        say("piece", piece)
"""
QUICK, STUCK = Tool("quick", {"n": 1}, id="call_1"), Tool("stuck", {"n": 2}, id="call_2")


@dataclass(frozen=True)
class Moment:
    """When the process is killed.

    replies: the model's part of the second turn. heard: what the process says in it, in whatever order, before it is killed.
    kept: what is left of the second turn besides the user's message.
    """

    replies: tuple[Reply, ...]
    heard: tuple[str, ...]
    kept: tuple[Bot | Result, ...] = ()
    style: str = "chat"


CALLED = ("stored user", "stored assistant")
MOMENTS = {
    "before the model answers": Moment((Hang("Two."),), ("stored user",)),
    "in the middle of a stream": Moment(
        (Hang("Two, I say.", after_chunks=1),), ("stored user", "piece Two"), style="stream"
    ),
    "between a call and its result": Moment(
        (Call([STUCK]),), (*CALLED, "stuck"), (Bot(calls=(STUCK,)), Result("call_2", INTERRUPTED))
    ),
    "between two parallel results": Moment(
        (Call([STUCK, QUICK], text="Both."),),
        (*CALLED, "stuck", "stored tool"),
        (Bot("Both.", (STUCK, QUICK)), Result("call_2", INTERRUPTED), Result("call_1", "quick 1")),
    ),
    "between the last result and the answer": Moment(
        (Call([QUICK]), Hang("Two.")), (*CALLED, "stored tool"), (Bot(calls=(QUICK,)), Result("call_1", "quick 1"))
    ),
    "in the middle of a stream after a result": Moment(
        (Call([QUICK], text="Wait"), Hang("Two, I say.", after_chunks=1)),
        (*CALLED, "stored tool", "piece W", "piece a", "piece it", "piece Two"),
        (Bot("Wait", (QUICK,)), Result("call_1", "quick 1")),
        style="stream",
    ),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_turn_is_kept_and_the_next_process_goes_on(moment: Moment, wire: Wire, home: Path) -> None:
    killed: list[Said] = [User("First"), Bot("One."), User("Second"), *moment.kept]
    with ScriptedLLM([Say("One."), *moment.replies, Say("Three."), Say("Four.")]) as llm:
        kill(moment, wire, llm)
        before = stored(home, "killed")
        assert told(before) == [("user", "First", None), ("assistant", "One.", None), *kept_of(moment)]

        with Agent("Assistant", memory={"session_id": "killed"}, **wire.agent(llm)) as agent:
            assert agent.chat("Third") == "Three."
            assert llm.requests[-1].messages == wire.messages(*killed, User("Third"))
            assert agent.chat("Fourth") == "Four."
            assert llm.requests[-1].messages == wire.messages(*killed, User("Third"), Bot("Three."), User("Fourth"))
    after = stored(home, "killed")
    assert after[: len(before)] == before
    assert [message["content"] for message in after[len(before) :]] == ["Third", "Three.", "Fourth", "Four."]
    assert len({message["id"] for message in after}) == len(after)


def kept_of(moment: Moment) -> list[tuple[str, str | None, None]]:
    """The second turn as it lies in the session: without the results that are made up for the model."""
    roles = {User: "user", Bot: "assistant", Result: "tool"}
    kept = (User("Second"), *moment.kept)
    return [(roles[type(said)], said.text, None) for said in kept if said.text != INTERRUPTED]


def kill(moment: Moment, wire: Wire, llm: ScriptedLLM) -> None:
    """Have the conversation in another process, up to the moment."""
    with started(TALK, json.dumps(wire.agent(llm)), moment.style) as (process, output):
        assert [output.readline() for _ in range(3)] == ["stored user\n", "stored assistant\n", "answer One.\n"]
        assert sorted(output.readline().strip() for _ in moment.heard) == sorted(moment.heard)
        if isinstance(moment.replies[-1], Hang):
            llm.wait_until_hanging()
        process.kill()
        assert process.wait() == -signal.SIGKILL
