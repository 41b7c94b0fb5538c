"""A conversation goes on in one process after another, and the model is sent exactly what was said before.

The model is a real HTTP server; each step is a process of its own, which knows nothing but the session's id.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wire import ANTHROPIC, OPENAI, Bot, Result, Said, User, Wire, by_call, python, stored, told

from praisonaiagents.testing.llm import Call, Say, ScriptedLLM, Tool

TALK = """
    import asyncio, json, sys
    from praisonaiagents import Agent

    def add(a: int, b: int) -> int:
        "Add two numbers."
        return a + b

    def shout(text: str) -> str:
        "Say it louder."
        if not text:
            raise ValueError("nothing to shout")
        return text.upper()

    settings, steps = map(json.loads, sys.argv[1:])
    answers = []
    with Agent("Assistant", tools=[add, shout], memory={"session_id": "talk"}, **settings) as agent:
        for style, prompt in steps:
            if style == "achat":
                answers.append(asyncio.run(agent.achat(prompt)))
            elif style == "stream":
                answers.append(list(agent.start(prompt, stream=True)))
            else:
                answers.append(agent.chat(prompt))
    print(json.dumps(answers))
"""


def talk(wire: Wire, llm: ScriptedLLM, *steps: tuple[str, str]) -> Any:
    """Say something in a new process; the answers."""
    return python(TALK, json.dumps(wire.agent(llm)), json.dumps(steps))


def test_three_processes_have_one_conversation(wire: Wire, home: Path) -> None:
    add, shout = Tool("add", {"a": 2, "b": 3}, id="call_1"), Tool("shout", {"text": "grüße 🙂"}, id="call_2")
    more, fails = Tool("add", {"a": 5, "b": 1}, id="call_3"), Tool("shout", {"text": ""}, id="call_4")
    replies = [
        Call([add, shout], text="Let me see."),
        Say("Five, and GRÜSSE 🙂."),
        Call([more, fails]),
        Say("Six, and silence."),
        Say("You asked for a sum."),
        Say("No."),
        Say("Bye."),
    ]
    said: list[Said] = [User("Add 2 and 3, and shout")]
    sent = []

    def expect(*history: Said) -> None:
        """The model is sent what was said so far, and these."""
        said.extend(history)
        sent.append(wire.messages(*said))

    with ScriptedLLM(replies) as llm:
        answers = talk(wire, llm, ("chat", "Add 2 and 3, and shout"), ("stream", "Add 1, and shout nothing"))
        assert answers == ["Five, and GRÜSSE 🙂.", ["Six, ", "and si", "lence."]]
        expect()
        expect(Bot("Let me see.", (add, shout)), Result("call_1", "5"), Result("call_2", "GRÜSSE 🙂"))
        expect(Bot("Five, and GRÜSSE 🙂."), User("Add 1, and shout nothing"))
        silence = Result("call_4", "ValueError: nothing to shout", failed=True)
        expect(Bot(calls=(more, fails)), Result("call_3", "6"), silence)
        assert [request.messages for request in llm.requests] == sent

        assert talk(wire, llm, ("stream", "What did I ask?")) == [["You as", "ked for", " a sum."]]
        expect(Bot("Six, and silence."), User("What did I ask?"))
        assert [request.messages for request in llm.requests] == sent

        assert talk(wire, llm, ("achat", "Anything else?"), ("chat", "Bye")) == ["No.", "Bye."]
        expect(Bot("You asked for a sum."), User("Anything else?"))
        expect(Bot("No."), User("Bye"))
        assert [request.messages for request in llm.requests] == sent

    kept = by_call(stored(home, "talk"))
    assert told(kept) == [
        ("user", "Add 2 and 3, and shout", None),
        ("assistant", "Let me see.", None),
        ("tool", "5", None),
        ("tool", "GRÜSSE 🙂", None),
        ("assistant", "Five, and GRÜSSE 🙂.", None),
        ("user", "Add 1, and shout nothing", None),
        ("assistant", None, None),
        ("tool", "6", None),
        ("tool", "ValueError: nothing to shout", "failed"),
        ("assistant", "Six, and silence.", None),
        ("user", "What did I ask?", None),
        ("assistant", "You asked for a sum.", None),
        ("user", "Anything else?", None),
        ("assistant", "No.", None),
        ("user", "Bye", None),
        ("assistant", "Bye.", None),
    ]
    assert len({message["id"] for message in kept}) == len(kept)
    assert len({message["run_id"] for message in kept}) == 5


def test_a_session_begun_with_one_provider_goes_on_with_the_other(wire: Wire, home: Path) -> None:
    other = ANTHROPIC if wire is OPENAI else OPENAI
    add, shout = Tool("add", {"a": 2, "b": 3}, id="call_1"), Tool("shout", {"text": ""}, id="call_2")
    with ScriptedLLM([Call([add, shout]), Say("Five."), Say("Again five.")]) as llm:
        talk(wire, llm, ("stream", "Add 2 and 3"))
        talk(other, llm, ("stream", "Once more"))
        assert llm.requests[-1].messages == other.messages(
            User("Add 2 and 3"),
            Bot(calls=(add, shout)),
            Result("call_1", "5"),
            Result("call_2", "ValueError: nothing to shout", failed=True),
            Bot("Five."),
            User("Once more"),
        )
