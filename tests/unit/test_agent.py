"""The agent under everything that can go wrong, against a real HTTP server.

What is asserted is what can be seen from outside: what a call returns or raises, what lies in the session's file, and what the
model is sent afterwards.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import datetime
import decimal
import gc
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydantic
import pytest
from pydantic_ai import BinaryContent, ImageUrl, ModelRetry
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from wire import (
    INTERRUPTED,
    OPENAI,
    PATIENCE_S,
    Bot,
    Result,
    Said,
    User,
    Wire,
    answering,
    ok,
    python,
    session_file,
    started,
    stored,
    told,
)

from praisonaiagents import Agent, MemoryConfig, Session
from praisonaiagents.agent import background
from praisonaiagents.agent.background import PerLoop
from praisonaiagents.errors import (
    ConfigError,
    ConfigTypeError,
    InvalidId,
    InvalidMessage,
    MessageTooLarge,
    ModelError,
    ModelUnreachable,
    NotASessionFile,
    StorageError,
    UnknownEngine,
)
from praisonaiagents.memory.config import resolve
from praisonaiagents.model.message import Message
from praisonaiagents.session import DefaultSessionStore
from praisonaiagents.storage.engine import Appended, Slice
from praisonaiagents.testing.llm import Call, Fail, Hang, Reply, Request, Say, ScriptedLLM, Tool

KEY = "sk-very-secret"
SECRET = "nobody may read this"
MakeAgent = Callable[..., Agent]
MEMORY = {"session_id": "s"}
PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def echo(request: Request) -> Say:
    """Answer with the last thing the user said."""
    content = request.messages[-1]["content"]
    return Say("re: " + (content if isinstance(content, str) else content[-1]["text"]))


class Watched(DefaultSessionStore):
    """The default store, which says when it holds a tool's result."""

    def __init__(self) -> None:
        super().__init__()
        self.has_result = threading.Event()

    def append(self, session_id: str, messages: Sequence[Message], **options: Any) -> Appended:
        appended = super().append(session_id, messages, **options)
        if messages[0].role == "tool":
            self.has_result.set()
        return appended


def failed(text: str = "") -> tuple[str, str, str]:
    return ("assistant", text, "failed")


def interrupted(text: str = "") -> tuple[str, str, str]:
    return ("assistant", text, "interrupted")


# The model fails


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 503, 529])
def test_an_http_error_is_typed_and_the_turn_is_kept_and_not_sent_again(
    status: int, wire: Wire, home: Path, make_agent: MakeAgent
) -> None:
    with ScriptedLLM([Say("One."), Fail(status, f"{KEY} {SECRET}"), Say("Three.")]) as llm:
        agent = make_agent(memory=MEMORY, **wire.agent(llm), api_key=KEY)
        agent.chat("First")
        with pytest.raises(ModelError) as raised:
            agent.chat(SECRET)
        assert agent.chat("Third") == "Three."
        assert llm.requests[-1].messages == wire.messages(User("First"), Bot("One."), User("Third"))
    error = raised.value
    assert isinstance(error, RuntimeError)
    assert error.status == status
    assert getattr(error.__cause__, "status_code", None) == status
    assert str(status) in str(error)
    assert KEY not in f"{error} {error!r}"
    assert SECRET not in f"{error} {error!r}"
    kept = stored(home, "s")
    assert told(kept)[2:4] == [("user", SECRET, None), failed()]
    assert kept[3]["metadata"]["status_code"] == str(status)
    assert KEY not in json.dumps(kept)


def test_a_failed_turn_is_not_sent_by_the_next_agent_either(wire: Wire, make_agent: MakeAgent) -> None:
    add = Tool("add", {"n": 1}, id="call_1")
    with ScriptedLLM([Call([add], text="Well."), Fail(500), Say("Yes.")]) as llm:
        agent = make_agent(tools=[add_one], memory=MEMORY, **wire.agent(llm))
        with pytest.raises(ModelError):
            agent.chat("Boom")
        make_agent(memory=MEMORY, **wire.agent(llm)).chat("Again")
        assert llm.requests[-1].messages == wire.messages(User("Again"))


def add_one(n: int) -> int:
    """Add one."""
    return n + 1


def test_nobody_listens(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ModelUnreachable, match="could not be reached") as raised:
        make_agent(memory=MEMORY, **wire.agent(f"http://127.0.0.1:{port}")).chat("Hello")
    assert isinstance(raised.value, ConnectionError)
    assert raised.value.__cause__ is not None
    assert told(stored(home, "s")) == [("user", "Hello", None), failed()]


def test_no_answer_in_time(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM(lambda _: Hang("Late.")) as llm:
        with pytest.raises(ModelUnreachable, match="in time"):
            make_agent(memory=MEMORY, **wire.agent(llm)).chat("Hello", timeout=0.05)
        assert told(stored(home, "s")) == [("user", "Hello", None), failed()]


EVENTS = "text/event-stream"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        ok("<html>", "text/html"),
        ok("{oops"),
        ok("{}"),
        ok('{"choices": []}'),
        ok('{"choices": [{"message": null}]}'),
        ok('{"content": 5}'),
        ok("data: {oops\n\n", EVENTS),
        ok("event: message_start\ndata: {}\n\n", EVENTS),
        ok("", EVENTS),
        b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
        b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 1000\r\n\r\ndata: {",
    ],
)
def test_garbage_is_no_answer(answer: bytes, stream: bool, wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    with answering(answer) as url:
        agent = make_agent(memory=MEMORY, **wire.agent(url))
        with pytest.raises(ModelError) as raised:
            list(agent.iter_stream(SECRET)) if stream else agent.chat(SECRET)
    assert raised.value.__cause__ is not None
    assert SECRET not in str(raised.value)
    assert "html" not in str(raised.value)
    assert told(stored(home, "s"))[0] == ("user", SECRET, None)
    assert told(stored(home, "s"))[-1] == failed()


def test_a_stream_that_breaks_off_keeps_its_part(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM([Hang("One two three", after_chunks=2)]) as llm:
        agent = make_agent(memory=MEMORY, **wire.agent(llm))
        pieces = agent.iter_stream("Count")
        seen = [next(pieces), next(pieces)]
    with pytest.raises(ModelError):
        list(pieces)
    assert told(stored(home, "s")) == [("user", "Count", None), failed("".join(seen))]


def test_an_answer_without_anything_in_it_fails_after_some_tries(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM([Say(""), Say(""), Say(""), Say("At last.")]) as llm:
        agent = make_agent(memory=MEMORY, **wire.agent(llm))
        with pytest.raises(ModelError):
            agent.chat("Hello")
        assert agent.chat("Hello?") == "At last."
        assert llm.requests[-1].messages == wire.messages(User("Hello?"))
    assert told(stored(home, "s"))[-3:] == [failed(), ("user", "Hello?", None), ("assistant", "At last.", None)]


@pytest.mark.parametrize("call", [Tool("add_one", {"n": "x"}), Tool("add_one", {}), Tool("no_such_tool", {})])
def test_arguments_that_never_fit_end_the_turn(call: Tool, wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM([Call([call]), Call([call]), Call([call]), Say("Fine.")]) as llm:
        agent = make_agent(tools=[add_one], memory=MEMORY, **wire.agent(llm))
        with pytest.raises(ModelError):
            agent.chat("Add")
        assert agent.chat("Next") == "Fine."
        assert llm.requests[-1].messages == wire.messages(User("Next"))
    kept = told(stored(home, "s"))
    assert [status for role, _, status in kept if role == "tool"] == ["failed", "failed"]
    assert kept[-3] == failed()


def test_arguments_that_fit_at_the_second_try_are_forgiven(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    replies = [Call([Tool("add_one", {"n": "x"})]), Call([Tool("add_one", {"n": 1})]), Say("2"), Say("Yes.")]
    with ScriptedLLM(replies) as llm:
        assert make_agent(tools=[add_one], memory=MEMORY, **wire.agent(llm)).chat("Add") == "2"
        make_agent(tools=[add_one], memory=MEMORY, **wire.agent(llm)).chat("Again")
        in_turn, resumed = llm.requests[2].messages, llm.requests[3].messages
    assert "should be a valid integer" in json.dumps(in_turn)
    assert resumed[: len(in_turn)] == in_turn
    assert [status for _, _, status in told(stored(home, "s"))][:5] == [None, None, "failed", None, None]


# The turn is interrupted


def test_closing_the_iterator_keeps_the_partial_answer(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM([Hang("One two three", after_chunks=2), Say("Four.")]) as llm:
        agent = make_agent(memory=MEMORY, **wire.agent(llm))
        pieces = agent.iter_stream("Count")
        part = next(pieces) + next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        assert told(stored(home, "s")) == [("user", "Count", None), interrupted(part)]
        assert agent.chat("Go on") == "Four."
        assert llm.requests[-1].messages == wire.messages(User("Count"), Bot(part), User("Go on"))


def test_leaving_the_loop_over_the_pieces_is_enough(home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM([Hang("One two three", after_chunks=1)]) as llm:
        for _ in make_agent(memory=MEMORY, **OPENAI.agent(llm)).iter_stream("Count"):
            break
        gc.collect()
        assert told(stored(home, "s")) == [("user", "Count", None), interrupted("One ")]


def test_an_iterator_that_nobody_starts_does_nothing(home: Path, make_agent: MakeAgent) -> None:
    agent = make_agent(memory=MEMORY, llm="gpt-4o")
    agent.iter_stream("Count")
    agent.start("Count", stream=True)
    assert not home.exists()


def test_cancelling_keeps_the_turn_interrupted(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    async def talk() -> str:
        turn = asyncio.create_task(agent.achat("Count"))
        await asyncio.to_thread(llm.wait_until_hanging)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert told(stored(home, "s")) == [("user", "Count", None), interrupted()]
        return await agent.achat("Go on")

    with ScriptedLLM([Hang("One two three"), Say("Four.")]) as llm:
        agent = make_agent(memory=MEMORY, **wire.agent(llm))
        assert asyncio.run(talk()) == "Four."
        assert llm.requests[-1].messages == wire.messages(User("Count"), User("Go on"))


def test_a_timeout_around_the_turn_interrupts_it(home: Path, make_agent: MakeAgent) -> None:
    async def talk() -> None:
        async with asyncio.timeout(None) as timeout:
            turn = asyncio.create_task(agent.achat("Count"))
            await asyncio.to_thread(llm.wait_until_hanging)
            timeout.reschedule(asyncio.get_running_loop().time())
            await turn

    with ScriptedLLM([Hang("One two three")]) as llm:
        agent = make_agent(memory=MEMORY, **OPENAI.agent(llm))
        with pytest.raises(TimeoutError):
            asyncio.run(talk())
    assert told(stored(home, "s")) == [("user", "Count", None), interrupted()]


def test_a_loop_that_ends_interrupts_its_turns(home: Path, make_agent: MakeAgent) -> None:
    async def leave() -> None:
        leave.turn = asyncio.create_task(agent.achat("Count"))  # type: ignore[attr-defined]
        await asyncio.to_thread(llm.wait_until_hanging)

    with ScriptedLLM([Hang("One two three"), Say("Four.")]) as llm:
        agent = make_agent(memory=MEMORY, **OPENAI.agent(llm))
        asyncio.run(leave())
        assert told(stored(home, "s")) == [("user", "Count", None), interrupted()]
        assert agent.chat("Go on") == "Four."


class Slow(DefaultSessionStore):
    """The default store, in which storing an answer takes until somebody says so."""

    def __init__(self) -> None:
        super().__init__()
        self.storing, self.go_on = threading.Event(), threading.Event()

    def append(self, session_id: str, messages: Sequence[Message], **options: Any) -> Appended:
        if messages[0].content == "One.":
            self.storing.set()
            assert self.go_on.wait(PATIENCE_S)
        return super().append(session_id, messages, **options)


def test_what_is_being_stored_when_the_loop_ends_keeps_its_place(home: Path, make_agent: MakeAgent) -> None:
    async def leave() -> None:
        leave.turn = asyncio.create_task(agent.achat("Count"))  # type: ignore[attr-defined]
        await asyncio.to_thread(store.storing.wait)
        asyncio.get_running_loop().call_later(0.05, store.go_on.set)  # when the turn has been cancelled

    with ScriptedLLM([Say("One.")]) as llm:
        store = Slow()
        agent = make_agent(memory=MEMORY, session_store=store, **OPENAI.agent(llm))
        asyncio.run(leave())
    assert told(stored(home, "s")) == [("user", "Count", None), ("assistant", "One.", None), interrupted()]


def test_cancelling_while_tools_run_keeps_the_results_there_are(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    waiting = asyncio.Event()

    async def stuck() -> None:
        """Wait for ever."""
        waiting.set()
        await asyncio.Event().wait()

    async def talk() -> None:
        turn = asyncio.create_task(agent.achat("Work"))
        await waiting.wait()
        assert await asyncio.to_thread(store.has_result.wait, PATIENCE_S)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn

    calls = (Tool("stuck", id="call_1"), Tool("add_one", {"n": 1}, id="call_2"))
    with ScriptedLLM([Call(calls), Say("Good.")]) as llm:
        store = Watched()
        agent = make_agent(tools=[stuck, add_one], memory=MEMORY, session_store=store, **wire.agent(llm))
        asyncio.run(talk())
        agent.chat("Go on")
        results = Result("call_1", INTERRUPTED), Result("call_2", "2")
        assert llm.requests[-1].messages == wire.messages(User("Work"), Bot(calls=calls), *results, User("Go on"))
    assert told(stored(home, "s"))[1:4] == [("assistant", None, None), ("tool", "2", None), interrupted()]


def test_cancelling_does_not_wait_for_a_tool_that_blocks(home: Path, make_agent: MakeAgent) -> None:
    called, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def block() -> str:
        """Block the thread."""
        called.set()
        assert go_on.wait(PATIENCE_S)
        ended.set()
        return "too late"

    async def talk() -> None:
        async with asyncio.timeout(None) as timeout:
            turn = asyncio.create_task(agent.achat("Block"))
            await asyncio.to_thread(called.wait)
            timeout.reschedule(asyncio.get_running_loop().time())
            await turn

    with ScriptedLLM([Call([Tool("block", id="call_1")]), Say("Two.")]) as llm:
        agent = make_agent(tools=[block], memory=MEMORY, **OPENAI.agent(llm))
        with pytest.raises(TimeoutError):
            asyncio.run(talk())
        assert agent.chat("Go on") == "Two."
        go_on.set()
        assert ended.wait(PATIENCE_S)
    assert [content for _, content, _ in told(stored(home, "s"))] == ["Block", None, "", "Go on", "Two."]


CTRL_C = """
    import asyncio, json, sys
    from praisonaiagents import Agent

    async def achat(prompt):
        await agent.achat(prompt)

    def stream(prompt):
        for piece in agent.iter_stream(prompt):
            print(piece, flush=True)

    with Agent("Assistant", memory={"session_id": "s"}, **json.loads(sys.argv[1])) as agent:
        for way in (agent.chat, stream, agent.start, lambda prompt: asyncio.run(achat(prompt))):
            try:
                way("Count")
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        print(agent.chat("Go on"), flush=True)
"""


def test_ctrl_c_interrupts_the_turn_and_the_next_one_works(wire: Wire, home: Path) -> None:
    arrived = threading.Semaphore(0)

    def reply(request: Request) -> Reply:
        arrived.release()
        return Say("Four.") if "Go on" in json.dumps(request.messages[-1]) else Hang("One two three", after_chunks=1)

    with ScriptedLLM(reply) as llm, started(CTRL_C, json.dumps(wire.agent(llm))) as (process, output):
        for pieces in ([], ["One \n"], [], []):
            assert arrived.acquire(timeout=PATIENCE_S)
            assert [output.readline() for _ in pieces] == pieces
            process.send_signal(signal.SIGINT)
            assert output.readline() == "interrupted\n"
        assert output.readline() == "Four.\n"
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    ends = [interrupted(), interrupted("One "), interrupted(), interrupted()]
    turns = [message for end in ends for message in (("user", "Count", None), end)]
    assert told(stored(home, "s")) == [*turns, ("user", "Go on", None), ("assistant", "Four.", None)]


# Tools


@dataclasses.dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    x: int
    label: str = "none"


class Odd:
    def __repr__(self) -> str:
        return "an odd thing"


RETURNED: list[tuple[Any, str]] = [
    ("text", "text"),
    ("grüße 🙂", "grüße 🙂"),
    ("", "(no output)"),
    (" \n", "(no output)"),
    (None, "(no output)"),
    (True, "true"),
    (1.5, "1.5"),
    ({"a": [1, None]}, '{"a":[1,null]}'),
    ([1, "x"], '[1,"x"]'),
    ((1, 2), "[1,2]"),
    (Point(1), '{"x":1}'),
    (Model(x=1), '{"x":1,"label":"none"}'),
    (datetime.date(2026, 1, 2), "2026-01-02"),
    (decimal.Decimal("1.50"), "1.50"),
    (Odd(), "an odd thing"),
    ({"a": Odd()}, "{'a': an odd thing}"),
    ("file\udcff", "file\\udcff"),
    ({"a": "\udcff"}, "{'a': '\\udcff'}"),
]


def test_what_a_tool_returns_is_stored_as_it_is_sent_and_sent_again_the_same(
    wire: Wire, home: Path, make_agent: MakeAgent
) -> None:
    def give(n: int) -> Any:
        """Give something."""
        return RETURNED[n][0]

    async def give_later(n: int) -> Any:
        """Give something too."""
        return RETURNED[n][0]

    names = ("give", "give_later")
    calls = tuple(Tool(name, {"n": n}, id=f"call_{name}_{n}") for name in names for n in range(len(RETURNED)))
    results = [Result(str(call.id), RETURNED[call.arguments["n"]][1]) for call in calls]
    with ScriptedLLM([Call(calls), Say("Thanks."), Say("Again.")]) as llm:
        make_agent(tools=[give, give_later], memory=MEMORY, **wire.agent(llm)).chat("Give")
        make_agent(memory=MEMORY, **wire.agent(llm)).chat("Again")
        said = [User("Give"), Bot(calls=calls), *results]
        assert llm.requests[1].messages == wire.messages(*said)
        assert llm.requests[2].messages == wire.messages(*said, Bot("Thanks."), User("Again"))
    kept = {message["tool_call_id"]: message["content"] for message in stored(home, "s") if message["role"] == "tool"}
    assert kept == {result.id: result.text for result in results}


def test_what_a_tool_raises_is_told_and_marked_failed(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    raised = [
        (ValueError("no such file"), "ValueError: no such file"),
        (KeyError("x"), "KeyError: 'x'"),
        (StopIteration(3), "StopIteration: 3"),
        (SystemExit(3), "SystemExit: 3"),
        (OSError("file\udcff"), "OSError: file\\udcff"),
        (ModelRetry("try 5"), "try 5"),
        (concurrent.futures.CancelledError(), "CancelledError: "),
    ]

    def fail(n: int) -> None:
        """Fail."""
        raise raised[n][0]

    async def fail_later(n: int) -> None:
        """Fail too."""
        raise raised[n][0]

    names = ("fail", "fail_later")
    # an async function cannot raise StopIteration: Python makes it a RuntimeError
    calls = tuple(Tool(name, {"n": n}, id=f"call_{name}_{n}") for name in names for n in range(len(raised)))
    texts = [raised[call.arguments["n"]][1] for call in calls]
    texts[len(raised) + 2] = "RuntimeError: coroutine raised StopIteration"
    results = [Result(str(call.id), text, failed=True) for call, text in zip(calls, texts, strict=True)]
    with ScriptedLLM([Call(calls), Say("Sorry."), Say("Again.")]) as llm:
        agent = make_agent(tools=[fail, fail_later], memory=MEMORY, **wire.agent(llm))
        assert agent.chat("Fail") == "Sorry."
        make_agent(memory=MEMORY, **wire.agent(llm)).chat("Again")
        said = [User("Fail"), Bot(calls=calls), *results]
        assert llm.requests[1].messages == wire.messages(*said)
        assert llm.requests[2].messages == wire.messages(*said, Bot("Sorry."), User("Again"))
    assert {message["status"] for message in stored(home, "s") if message["role"] == "tool"} == {"failed"}


def test_arguments_come_as_the_type_hints_say(make_agent: MakeAgent) -> None:
    seen: list[Any] = []

    def take(model: Model, when: datetime.date, many: list[int] | None = None, note: str = "default") -> str:
        """Take them."""
        seen.extend([model, when, many, note])
        return "taken"

    arguments = {"model": {"x": 1}, "when": "2026-01-02"}
    with ScriptedLLM([Call([Tool("take", arguments)]), Say("Done.")]) as llm:
        assert make_agent(tools=[take], **OPENAI.agent(llm)).chat("Take") == "Done."
        function = llm.requests[0].body["tools"][0]["function"]
    assert seen == [Model(x=1), datetime.date(2026, 1, 2), None, "default"]
    assert function["description"] == "Take them."
    assert set(function["parameters"]["required"]) == {"model", "when"}


def test_methods_and_functions_without_hints_are_tools(make_agent: MakeAgent) -> None:
    class Counter:
        count = 0

        def up(self, by: int = 1) -> int:
            """Count up."""
            self.count += by
            return self.count

    def plain(x):  # type: ignore[no-untyped-def]
        return f"plain {x}"

    counter = Counter()
    with ScriptedLLM([Call([Tool("up", {"by": 2}), Tool("plain", {"x": 1})]), Say("Done.")]) as llm:
        make_agent(tools=[counter.up, plain], **OPENAI.agent(llm)).chat("Up")
        assert [message["content"] for message in llm.requests[1].messages[-2:]] == ["2", "plain 1"]
    assert counter.count == 2


def test_a_tool_that_cannot_be_described_is_refused_before_anything_is_stored(
    home: Path, make_agent: MakeAgent
) -> None:
    def odd(thing: Odd) -> None:
        """Do something odd."""

    with pytest.raises(ConfigError, match="'odd'"):
        make_agent(tools=[odd], memory=MEMORY, llm="openai/x", base_url="http://127.0.0.1:1").chat("Hello")
    assert not home.exists()


@pytest.mark.parametrize("tools", [["add_one"], [5], [add_one, add_one], [object()]])
def test_what_is_no_tool_is_refused_at_once(tools: Any) -> None:
    with pytest.raises(ConfigError):
        Agent("A", tools=tools)


def test_a_tool_may_not_talk_to_the_agent_that_called_it(wire: Wire, make_agent: MakeAgent) -> None:
    def ask() -> str:
        """Ask oneself."""
        return agent.chat("Hello?")

    def ask_in_pieces() -> str:
        """Ask oneself."""
        return "".join(agent.iter_stream("Hello?"))

    async def ask_later() -> str:
        """Ask oneself."""
        return await agent.achat("Hello?")

    def ask_around() -> str:
        """Ask oneself, around a corner."""
        return other.chat("Ask")

    tools = [ask, ask_in_pieces, ask_later, ask_around]
    calls = tuple(Tool(tool.__name__, id=f"call_{tool.__name__}") for tool in tools)
    around = [Call([Tool("ask", id="call_0")]), Say("Asked.")]
    with ScriptedLLM([Call(calls), *around, Say("Done.")]) as llm:
        agent = make_agent(tools=tools, **wire.agent(llm))
        other = make_agent(tools=[ask], **wire.agent(llm))
        assert agent.chat("Ask") == "Done."
        refusal = "ConfigError: a tool cannot talk to the agent that called it: the agent waits for the tool"
        results = [Result(str(call.id), refusal, failed=True) for call in calls[:3]]
        said = [User("Ask"), Bot(calls=calls), *results, Result("call_ask_around", "Asked.")]
        assert llm.requests[-1].messages == wire.messages(*said)
        assert llm.requests[2].messages == wire.messages(
            User("Ask"), Bot(calls=(Tool("ask", id="call_0"),)), Result("call_0", refusal, failed=True)
        )


def test_a_tool_may_talk_to_another_agent_but_an_async_one_must_await_it(make_agent: MakeAgent) -> None:
    def ask() -> str:
        """Ask the other."""
        return other.chat("Sync?")

    async def ask_later() -> str:
        """Ask the other."""
        return await other.achat("Async?")

    async def ask_wrongly() -> str:
        """Block the loop that the other would run on."""
        return other.chat("Wrong?")

    async def ask_wrongly_in_pieces() -> str:
        """Block the loop that the other would run on."""
        return "".join(other.iter_stream("Wrong?"))

    with ScriptedLLM(echo) as others:
        tools = [ask, ask_later, ask_wrongly, ask_wrongly_in_pieces]
        with ScriptedLLM([Call([Tool(tool.__name__) for tool in tools]), Say("Done.")]) as llm:
            other = make_agent(**OPENAI.agent(others))
            assert make_agent(tools=tools, **OPENAI.agent(llm)).chat("Ask") == "Done."
            results = [message["content"] for message in llm.requests[1].messages[-4:]]
    assert results[:2] == ["re: Sync?", "re: Async?"]
    assert all("await its achat" in result for result in results[2:])


# Threads, loops, processes


def pairs(history: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(what the user said, the answer), provided that nothing is interleaved."""
    assert [message["role"] for message in history] == ["user", "assistant"] * (len(history) // 2)
    contents = [message["content"] for message in history]
    return list(zip(contents[::2], contents[1::2], strict=True))


def test_turns_from_threads_and_tasks_follow_each_other(home: Path, make_agent: MakeAgent) -> None:
    async def gather(name: str) -> list[str]:
        return await asyncio.gather(*(agent.achat(f"{name} {number}") for number in range(4)))

    def in_a_loop(name: str) -> list[str]:
        return asyncio.run(gather(name))

    def in_a_row(name: str) -> list[str]:
        return [agent.chat(f"{name} {number}") for number in range(4)]

    with ScriptedLLM(echo) as llm, concurrent.futures.ThreadPoolExecutor(6) as threads:
        agent = make_agent(memory=MEMORY, **OPENAI.agent(llm))
        ways = [in_a_loop, in_a_row] * 3
        answers = list(threads.map(lambda way, name: way(name), ways, "abcdef"))
        for request in llm.requests:
            assert len(pairs(request.messages[1:-1])) == len(request.messages) // 2 - 1
    assert answers == [[f"re: {name} {number}" for number in range(4)] for name in "abcdef"]
    everything = {(f"{name} {number}", f"re: {name} {number}") for name in "abcdef" for number in range(4)}
    talk = pairs(stored(home, "s"))
    assert len(talk) == len(everything)
    assert set(talk) == everything
    assert pairs(agent.chat_history) == talk


def test_a_waiting_turn_can_be_cancelled_and_leaves_nothing(home: Path, make_agent: MakeAgent) -> None:
    async def talk() -> None:
        first = asyncio.create_task(agent.achat("First"))
        await asyncio.to_thread(llm.wait_until_hanging)
        second = asyncio.create_task(agent.achat("Second"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        llm.release()
        await first

    with ScriptedLLM([Hang("One."), Say("Three.")]) as llm:
        agent = make_agent(memory=MEMORY, **OPENAI.agent(llm))
        asyncio.run(talk())
        agent.chat("Third")
    assert pairs(stored(home, "s")) == [("First", "One."), ("Third", "Three.")]


def test_one_loop_after_another_and_none_at_all(wire: Wire, make_agent: MakeAgent) -> None:
    async def both(prompt: str) -> str:
        """As in a notebook, whose loop is running already."""
        answers = [await agent.achat(prompt), agent.chat(prompt), "".join(agent.iter_stream(prompt))]
        return " ".join(answers)

    with ScriptedLLM(echo) as llm:
        agent = make_agent(**wire.agent(llm))
        assert agent.chat("1") == "re: 1"
        assert asyncio.run(agent.achat("2")) == "re: 2"
        assert asyncio.run(agent.astart("3")) == "re: 3"
        assert asyncio.run(both("4")) == "re: 4 re: 4 re: 4"
        with asyncio.Runner() as runner:
            assert runner.run(agent.arun("5")) == "re: 5"
            assert agent.chat("6") == "re: 6"
            assert runner.run(agent.arun("7")) == "re: 7"
    assert [said for said, _ in pairs(agent.chat_history)] == list("123444567")


def test_a_forked_child_talks_on_and_its_parent_too() -> None:
    source = """
        import json, os, sys, warnings
        from praisonaiagents import Agent

        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own: forking a process that has threads
        with Agent("Assistant", memory={"session_id": "s"}, **json.loads(sys.argv[1])) as agent:
            agent.chat("Before")
            child = os.fork()
            if child == 0:
                agent.chat("Child")
                "".join(agent.iter_stream("Child again"))
                agent.close()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            agent.chat("Parent")
            print(json.dumps([status, agent.chat_history]))
    """
    with ScriptedLLM(echo) as llm:
        status, history = python(source, json.dumps(OPENAI.agent(llm)))
    assert status == 0
    assert [said for said, _ in pairs(history)] == ["Before", "Child", "Child again", "Parent"]


ONE_TURN = """
    import json, sys
    from praisonaiagents import Agent

    settings, prompt = json.loads(sys.argv[1]), sys.argv[2]
    with Agent("Assistant", **settings) as agent:
        agent.chat(prompt)
        print(json.dumps(agent.chat_history))
"""


def test_two_agents_of_one_session_hear_each_other_at_the_next_turn(wire: Wire, make_agent: MakeAgent) -> None:
    with ScriptedLLM(echo) as llm:
        one, two = (make_agent(memory=MEMORY, **wire.agent(llm)) for _ in range(2))
        one.chat("1")
        two.chat("2")
        python(ONE_TURN, json.dumps(wire.agent(llm, memory=MEMORY)), "3")
        one.chat("4")
        said: list[Said] = [User("1"), Bot("re: 1"), User("2"), Bot("re: 2"), User("3"), Bot("re: 3"), User("4")]
        assert [request.messages for request in llm.requests] == [wire.messages(*said[:end]) for end in (1, 3, 5, 7)]
        two.chat("5")
    assert [said for said, _ in pairs(two.chat_history)] == list("12345")


class Busy(DefaultSessionStore):
    """A store in which somebody else speaks before and after each of the user's messages."""

    def append(self, session_id: str, messages: Sequence[Message], **options: Any) -> Appended:
        if messages[0].role != "user":
            return super().append(session_id, messages, **options)
        super().append(session_id, [Message("user", "other?", run_id="run-other")], **options)
        appended = super().append(session_id, messages, **options)
        super().append(session_id, [Message("assistant", "other!", run_id="run-other")], **options)
        return appended


def test_what_others_say_meanwhile_is_not_taken_for_the_answer(wire: Wire, make_agent: MakeAgent) -> None:
    with ScriptedLLM(lambda _: Say("Mine.")) as llm:
        agent = make_agent(memory=MEMORY, session_store=Busy(), **wire.agent(llm))
        assert [agent.chat("First"), agent.chat("Second")] == ["Mine.", "Mine."]
        assert llm.requests[0].messages == wire.messages(User("other?"), User("First"))
        second = json.dumps(llm.requests[1].messages)
        assert second.index("other?") < second.index("First") < second.index("other!") < second.index("Mine.")
        assert llm.requests[1].messages[-1] == wire.messages(User("other?"), User("Second"))[-1]


def test_two_users_of_one_session_id_never_meet(home: Path, make_agent: MakeAgent) -> None:
    everybody = """
        import json, sys
        from praisonaiagents import Agent

        for user in (None, "alice", "bob"):
            with Agent("Assistant", session_id="s", user_id=user, **json.loads(sys.argv[1])) as agent:
                agent.chat(f"{user} elsewhere")
        print("true")
    """
    with ScriptedLLM(echo) as llm:
        for prompt in ("1", "2"):
            for user in (None, "alice", "bob"):
                make_agent(session_id="s", user_id=user, **OPENAI.agent(llm)).chat(f"{user} {prompt}")
            python(everybody, json.dumps(OPENAI.agent(llm)))
        for request in llm.requests:
            text = json.dumps(request.messages)
            assert len([user for user in ("None", "alice", "bob") if user in text]) == 1
    for user in (None, "alice", "bob"):
        said = [said for said, _ in pairs(stored(home, "s", user))]
        assert said == [f"{user} 1", f"{user} elsewhere", f"{user} 2", f"{user} elsewhere"]


def test_the_session_says_who_works_in_it(home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM(echo) as llm:
        for name in ("One", "Two"):
            make_agent(name, memory=MEMORY, **OPENAI.agent(llm)).chat("Hello")
            assert json.loads(session_file(home, "s").read_text("utf-8"))["agent_name"] == name


# The list of messages


def test_changing_the_list_changes_what_the_model_is_sent_and_nothing_else(
    wire: Wire, home: Path, make_agent: MakeAgent
) -> None:
    with ScriptedLLM(echo) as llm:
        agent = make_agent(memory=MEMORY, **wire.agent(llm))
        agent.chat("1")
        agent.chat("2")
        del agent.chat_history[:2]
        agent.chat_history[0]["content"] = "changed"
        agent.chat_history.append({"role": "user", "content": "appended"})
        agent.chat("3")
        said: list[Said] = [User("changed"), Bot("re: 2"), User("appended"), User("3")]
        assert llm.requests[-1].messages == wire.messages(*said)
        agent.chat_history = [{"role": "assistant", "content": "assigned"}]
        agent.chat("4")
        assert llm.requests[-1].messages == wire.messages(Bot("assigned"), User("4"))
        agent.chat_history.clear()
        agent.chat("5")
        assert llm.requests[-1].messages == wire.messages(User("5"))
    assert [said for said, _ in pairs(stored(home, "s"))] == list("12345")


@pytest.mark.parametrize("memory", [None, MEMORY])
def test_a_list_that_is_filled_before_the_first_turn_is_the_history(
    memory: Any, wire: Wire, make_agent: MakeAgent
) -> None:
    with ScriptedLLM(echo) as llm:
        make_agent(memory=MEMORY, **wire.agent(llm)).chat("stored")
        agent = make_agent(memory=memory, **wire.agent(llm))
        agent.chat_history = [{"role": "user", "content": "mine"}, {"role": "assistant", "content": "yours"}]
        agent.chat("1")
        agent.chat("2")
        said: list[Said] = [User("mine"), Bot("yours"), User("1"), Bot("re: 1"), User("2")]
        assert llm.requests[-1].messages == wire.messages(*said)


@pytest.mark.parametrize("entry", ["text", 5, None, {}, {"content": "no role"}, {"role": 5}])
def test_what_is_no_message_is_refused_and_can_be_taken_out_again(
    entry: Any, home: Path, make_agent: MakeAgent
) -> None:
    with ScriptedLLM(echo) as llm:
        agent = make_agent(memory=MEMORY, **OPENAI.agent(llm))
        agent.chat_history.append(entry)
        with pytest.raises(InvalidMessage):
            agent.chat("1")
        agent.chat_history.remove(entry)
        assert agent.chat("2") == "re: 2"
        assert llm.requests[-1].messages == OPENAI.messages(User("2"))
    assert told(stored(home, "s"))[:2] == [("user", "1", None), failed()]


def test_a_list_is_a_list(make_agent: MakeAgent) -> None:
    agent = make_agent(llm="gpt-4o")
    for history in (None, "text", ({"role": "user"},)):
        with pytest.raises(ConfigTypeError):
            agent.chat_history = history  # type: ignore[assignment]


def call(**function: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", **function}]}


PLAIN_CALL = call(function={"name": "f", "arguments": "{}"})
ODD_HISTORIES: dict[str, list[dict[str, Any]]] = {
    "blank user": [{"role": "user", "content": " \n"}],
    "empty user": [{"role": "user", "content": ""}],
    "user without content": [{"role": "user", "content": None}],
    "user with no parts": [{"role": "user", "content": []}],
    "user with a blank part": [{"role": "user", "content": [{"type": "text", "text": " "}]}],
    "user with a broken image": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}],
    "user with no image": [{"role": "user", "content": [{"type": "image_url"}]}],
    "user with a strange image": [{"role": "user", "content": [{"type": "image_url", "image_url": 5}]}],
    "user with broken audio": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}],
    "user with an unknown part": [{"role": "user", "content": [{"type": "hologram"}, 5, None]}],
    "user with an object": [{"role": "user", "content": {"a": 1}}],
    "blank assistant": [{"role": "assistant", "content": "\n"}],
    "assistant with an object": [{"role": "assistant", "content": {"a": 1}}],
    "blank assistant with a call": [{**PLAIN_CALL, "content": " "}],
    "blank result": [PLAIN_CALL, {"role": "tool", "tool_call_id": "c", "content": ""}],
    "result without content": [PLAIN_CALL, {"role": "tool", "tool_call_id": "c", "content": None}],
    "result with an object": [PLAIN_CALL, {"role": "tool", "tool_call_id": "c", "content": {"a": 1}}],
    "result without its call": [{"role": "tool", "tool_call_id": "c", "content": "lost"}],
    "result without an id": [{"role": "tool", "content": "lost"}],
    "call without a function": [call()],
    "call of a text": [call(function="f")],
    "call of no name": [call(function={"name": None, "arguments": "{}"})],
    "call with broken arguments": [call(function={"name": "f", "arguments": "{oops"})],
    "call with a list of arguments": [call(function={"name": "f", "arguments": "[1]"})],
    "call with an object of arguments": [call(function={"name": "f", "arguments": {"a": 1}})],
    "call with a number of arguments": [call(function={"name": "f", "arguments": 5})],
    "call without arguments": [call(function={"name": "f", "arguments": None})],
    "far future": [{"role": "assistant", "content": "later", "timestamp": 1e18}, PLAIN_CALL],
    "calls that are no list": [{"role": "assistant", "content": None, "tool_calls": {"id": "c"}}],
    "failed result": [PLAIN_CALL, {"role": "tool", "tool_call_id": "c", "content": "[oops", "status": "failed"}],
    "system in the middle": [{"role": "system", "content": "Be kind."}, {"role": "system", "content": ""}],
    "developer": [{"role": "developer", "content": "Be kind."}],
}


@pytest.mark.parametrize("odd", ODD_HISTORIES.values(), ids=ODD_HISTORIES)
def test_a_session_with_odd_messages_can_still_be_used(
    odd: list[dict[str, Any]], wire: Wire, make_agent: MakeAgent
) -> None:
    """Other programs write into sessions; the server refuses what providers refuse."""
    said = [{"role": "user", "content": "Hello"}, *odd, {"role": "user", "content": "And?"}]
    DefaultSessionStore().set_chat_history("s", said)
    with ScriptedLLM(echo) as llm:
        agent = make_agent(memory=MEMORY, **wire.agent(llm))
        assert agent.chat("1") == "re: 1"
        assert agent.chat("2") == "re: 2"
        first, second = (request.messages for request in llm.requests)
        assert second[: len(first) - 1] == first[:-1]
    assert "Hello" in json.dumps(first)
    assert "And?" in json.dumps(first)
    if wire.name == "anthropic":  # it refuses blank text at any depth
        assert not re.search(r'"text": "(\s|\\n)*"', json.dumps(first))


# Bounds


def test_max_messages_bounds_what_is_kept_and_sent_and_listed(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM(echo) as llm:
        agent = make_agent(memory={"session_id": "s", "max_messages": 4}, **wire.agent(llm))
        for number in range(20):
            agent.chat(f"{number}")
            assert len(stored(home, "s")) < 8
            assert len(agent.chat_history) <= 5  # the last answer came after the list was cut
            said: list[Said] = [User(f"{number - 1}"), Bot(f"re: {number - 1}")] if number else []
            assert llm.requests[-1].messages == wire.messages(*said, User(f"{number}"))
        bounded = make_agent(memory={"session_id": "s", "max_messages": 4}, **wire.agent(llm))
        bounded.chat("20")
        assert llm.requests[-1].messages == wire.messages(User("19"), Bot("re: 19"), User("20"))


def test_without_a_session_max_messages_bounds_what_is_sent(make_agent: MakeAgent) -> None:
    with ScriptedLLM(echo) as llm:
        agent = make_agent(memory={"max_messages": 3}, **OPENAI.agent(llm))
        for number in range(5):
            agent.chat(f"{number}")
        assert llm.requests[-1].messages == OPENAI.messages(User("3"), Bot("re: 3"), User("4"))


def test_a_bound_tears_no_tool_call(wire: Wire, make_agent: MakeAgent) -> None:
    replies: list[Reply] = [reply for n in range(6) for reply in (Call([Tool("add_one", {"n": n})] * 2), Say(f"{n}"))]
    for bound in (1, 2, 3, 4, 5):
        with ScriptedLLM(replies) as llm:
            memory = {"session_id": f"s{bound}", "max_messages": bound}
            agent = make_agent(tools=[add_one], memory=memory, **wire.agent(llm))
            assert [agent.chat(f"Turn {n}") for n in range(6)] == [f"{n}" for n in range(6)]


def test_history_finds_the_agents_session_by_its_name_and_place(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, make_agent: MakeAgent
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with ScriptedLLM(echo) as llm:
        for number in range(8):
            make_agent(memory="history", **OPENAI.agent(llm)).chat(f"{number}")
        sent = [message["content"] for message in llm.requests[-1].messages[1:]]
        assert sent == ["re: 2", *(text for n in range(3, 7) for text in (f"{n}", f"re: {n}")), "7"]
        make_agent("Somebody else", memory="chat", **OPENAI.agent(llm)).chat("other name")
        monkeypatch.chdir(tmp_path / "elsewhere")
        make_agent(memory="session", **OPENAI.agent(llm)).chat("other place")
        assert [len(request.messages) for request in llm.requests[-2:]] == [2, 2]
    assert len(list((home / "sessions").glob("history_*.json"))) == 3


# Memory's forms


class Remembers:
    """Somebody's memory."""

    closed = 0

    def search(self, query: str, **options: Any) -> list[str]:
        return [query]

    def add(self, text: str) -> None:
        """Remember it."""


class RemembersAndCloses(Remembers):
    def close_connections(self) -> None:
        self.closed += 1


class Database:
    database_url = f"postgres://user:{KEY}@host/db"


ACCEPTED: dict[str, tuple[Any, MemoryConfig]] = {
    "None": (None, MemoryConfig()),
    "False": (False, MemoryConfig()),
    "True": (True, MemoryConfig()),
    "file": ("file", MemoryConfig(backend="file")),
    " File ": (" File ", MemoryConfig(backend="file")),
    "none": ("none", MemoryConfig(backend="in_memory")),
    "history": ("history", MemoryConfig(history=True)),
    "session": ("session", MemoryConfig(history=True)),
    "chat": ("chat", MemoryConfig(history=True, history_limit=20)),
    "a list of one": (["chat"], MemoryConfig(history=True, history_limit=20)),
    "a URL": ("memory://", MemoryConfig(db="memory://")),
    "an empty dict": ({}, MemoryConfig()),
    "a dict": ({"session_id": "s", "user_id": "u"}, MemoryConfig(session_id="s", user_id="u")),
    "a dict with a provider": ({"provider": "in_memory"}, MemoryConfig(backend="in_memory")),
    "a config": (MemoryConfig(session_id="s"), MemoryConfig(session_id="s")),
    "an object": (Remembers(), MemoryConfig()),
    "an object that closes": (RemembersAndCloses(), MemoryConfig()),
}
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "a number": (5, TypeError, "memory= takes"),
    "a function": (add_one, TypeError, "memory= takes"),
    "two names": (["file", "chat"], TypeError, "memory= takes"),
    "no name": ([], TypeError, "memory= takes"),
    "an empty name": ("", ValueError, "no such memory backend"),
    "a misspelt name": ("histroy", ValueError, "did you mean 'history'"),
    "another misspelt name": ("fiel", ValueError, "did you mean 'file'"),
    "a backend of the reference": ("mem0", ValueError, "there are: file, in_memory, sqlite"),
    "a misspelt option": ({"sesion_id": "s"}, TypeError, "sesion_id .*did you mean 'session_id'"),
    "two misspelt options": ({"sesion_id": "s", "usr_id": 1}, TypeError, "'session_id' and 'user_id'"),
    "an option of no name": ({5: "s"}, TypeError, "unknown options for memory: 5"),
    "a provider and a backend": ({"provider": "file", "backend": "file"}, TypeError, "provider"),
    "an unknown scheme": ("mysql://user:sk-very-secret@host", UnknownEngine, "'mysql'"),
    "an unknown scheme in a dict": ({"db": "redos://:sk-very-secret@host"}, UnknownEngine, "mean 'redis'"),
    "an empty db": ({"db": ""}, ValueError, "storage URL"),
    "an adapter": ({"db": Database()}, ValueError, "Database"),
    "a database": (Database(), ValueError, "Database"),
    "a session id of no text": ({"session_id": 5}, TypeError, "session id"),
    "an empty session id": ({"session_id": ""}, InvalidId, "empty"),
    "a user id of no text": ({"user_id": 5}, TypeError, "user id"),
    "a user id with a line end": ({"user_id": "a\nb"}, InvalidId, "control"),
    "a backend of no text": ({"backend": 5}, TypeError, "backend"),
    "a bound of no number": ({"max_messages": "5"}, TypeError, "max_messages"),
    "a bound that is a bool": ({"max_messages": True}, TypeError, "max_messages"),
    "a bound of nothing": ({"max_messages": 0}, ValueError, "max_messages"),
    "a limit of nothing": ({"history": True, "history_limit": 0}, ValueError, "history_limit"),
    "a limit of no number": ({"history_limit": 1.5}, TypeError, "history_limit"),
    "a flag of no bool": ({"history": "yes"}, TypeError, "history"),
    "another flag of no bool": ({"auto_memory": 1}, TypeError, "auto_memory"),
    "a timeout of no number": ({"lock_timeout": "5"}, TypeError, "lock_timeout"),
    "a negative timeout": ({"lock_timeout": -1}, ValueError, "lock_timeout"),
    "a timeout that is not a number": ({"lock_timeout": float("nan")}, ValueError, "lock_timeout"),
}


@pytest.mark.parametrize(("memory", "config"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_form_of_memory_is_accepted(memory: Any, config: MemoryConfig, home: Path, tmp_path: Path) -> None:
    assert resolve(memory)[0] == config
    before = set(tmp_path.rglob("*"))
    with Agent("A", llm="gpt-4o", memory=memory) as agent:
        agent._memory_instance.close_connections()
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("memory", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_a_form_of_memory_is_refused(memory: Any, error: type[Exception], text: str, home: Path) -> None:
    with pytest.raises(error, match=text) as raised:
        Agent("A", llm="gpt-4o", memory=memory)
    assert isinstance(raised.value, (ConfigError, InvalidId))
    assert KEY not in str(raised.value)
    assert not home.exists()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"db": "mysql://user:sk-very-secret@host"}, UnknownEngine),
        ({"db": Database()}, ConfigError),
        ({"memory": {"db": "memory://"}, "db": f"file:///{KEY}"}, ConfigError),
        ({"memory": {"session_id": "s"}, "session_id": "t"}, ConfigError),
        ({"memory": {"user_id": "s"}, "user_id": "t"}, ConfigError),
        ({"session_id": ""}, InvalidId),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_at_once(settings: Any, error: type[Exception], home: Path) -> None:
    with pytest.raises(error) as raised:
        Agent("A", llm="gpt-4o", **settings)
    assert KEY not in str(raised.value)
    assert not home.exists()


def test_an_agent_is_somebody_and_knows_no_other_settings() -> None:
    with pytest.raises(ValueError, match="at least one of"):
        Agent()
    with pytest.raises(TypeError, match="sesion_id"):
        Agent("A", sesion_id="s")  # type: ignore[call-arg]


def test_the_settings_may_be_said_directly(home: Path, tmp_path: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM(echo) as llm:
        make_agent(session_id="s", user_id="alice", **OPENAI.agent(llm)).chat("Hello")
        assert pairs(stored(home, "s", "alice")) == [("Hello", "re: Hello")]
        make_agent(db=f"file://{tmp_path}/db", session_id="t", **OPENAI.agent(llm)).chat("Hello")
        assert [file.name for file in (tmp_path / "db").glob("*.json")] == ["t.json"]
        agent = make_agent(db=f"file://{tmp_path}/db", **OPENAI.agent(llm))
        agent.chat("Hello")
        assert (tmp_path / "db" / f"{agent.session_id}.json").exists()


def test_an_agent_without_a_session_leaves_nothing_behind(wire: Wire, tmp_path: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM(echo) as llm:
        for memory in (None, True, "in_memory", {"backend": "in_memory", "session_id": "s"}):
            agent = make_agent(memory=memory, **wire.agent(llm))
            agent.chat("1")
            agent.chat("2")
            agent.close()
            assert llm.requests[-1].messages == wire.messages(User("1"), Bot("re: 1"), User("2"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_secret_is_shown(make_agent: MakeAgent) -> None:
    config = MemoryConfig(db=f"file:///{KEY}")
    agent = make_agent(llm="gpt-4o", api_key=KEY, memory=config, session_id="s")
    session = Session("s", "alice")
    assert KEY not in f"{config!r} {config} {config.to_dict()} {agent!r} {agent} {session!r}"
    assert "session_id='s'" in repr(agent)


# Prompts


def test_nothing_to_say_is_refused(home: Path, make_agent: MakeAgent) -> None:
    agent = make_agent(memory=MEMORY, llm="gpt-4o")
    for prompt in (None, "", " \n\t", []):
        for way in (
            agent.chat,
            agent.run,
            lambda text: list(agent.iter_stream(text)),
            lambda text: asyncio.run(agent.arun(text)),
        ):
            with pytest.raises(ConfigError, match="the prompt is empty"):
                way(prompt)
    with pytest.raises(ConfigError, match="the prompt is empty"):
        agent.start("")
    assert not home.exists()


@pytest.mark.parametrize(
    "prompt",
    [
        5,
        b"bytes",
        ("a", "tuple"),
        "half \ud83d",
        float("nan"),
        [{"type": "hologram"}],
        [{"type": "image_url", "image_url": {"url": "data:nonsense"}}],
        [{"type": "text"}],
        [5],
    ],
)
def test_what_cannot_be_stored_or_sent_is_refused(prompt: Any, make_agent: MakeAgent, home: Path) -> None:
    with ScriptedLLM(echo) as llm:
        agent = make_agent(memory=MEMORY, **OPENAI.agent(llm))
        with pytest.raises(InvalidMessage):
            agent.chat(prompt)
        assert agent.chat("Hello") == "re: Hello"
    assert pairs(stored(home, "s")) == [("Hello", "re: Hello")]


def test_start_without_a_prompt_does_the_instructions(make_agent: MakeAgent) -> None:
    with ScriptedLLM(echo) as llm:
        assert make_agent(instructions="Sing", **OPENAI.agent(llm)).start() == "re: Sing"
        assert asyncio.run(make_agent(instructions="Sing", **OPENAI.agent(llm)).astart()) == "re: Sing"
        assert make_agent(**OPENAI.agent(llm)).start() == "re: Hello"


def test_an_image_is_stored_exactly_and_sent_as_one(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    prompt = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": PNG}}]
    image = {"type": "base64", "media_type": "image/png", "data": PNG.partition(",")[2]}
    parts = prompt if wire is OPENAI else [prompt[0], {"type": "image", "source": image}]
    with ScriptedLLM([Say("A dot."), Say("Still.")]) as llm:
        make_agent(memory=MEMORY, **wire.agent(llm)).chat(prompt)
        make_agent(memory=MEMORY, **wire.agent(llm)).chat("And now?")
        assert llm.requests[0].messages == wire.messages(User(parts))
        assert llm.requests[1].messages == wire.messages(User(parts), Bot("A dot."), User("And now?"))
    assert stored(home, "s")[0]["content"] == prompt


def test_files_that_a_tool_returns_are_kept_and_sent_again(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    def draw() -> Any:
        """Draw a dot."""
        return BinaryContent.from_data_uri(PNG)

    def draw_and_say() -> Any:
        """Draw and say something."""
        return ["A dot:", BinaryContent.from_data_uri(PNG), ImageUrl("https://example.com/dot.png")]

    with ScriptedLLM([Call([Tool("draw"), Tool("draw_and_say")]), Say("Nice."), Say("Still.")]) as llm:
        make_agent(tools=[draw, draw_and_say], memory=MEMORY, **wire.agent(llm)).chat("Draw")
        make_agent(memory=MEMORY, **wire.agent(llm)).chat("And now?")
        in_turn, resumed = llm.requests[1].messages, llm.requests[2].messages
        assert resumed[: len(in_turn)] == in_turn
        assert json.dumps(in_turn).count(PNG.partition(",")[2]) == 2
    image = {"type": "image_url", "image_url": {"url": PNG}}
    linked = {"type": "image_url", "image_url": {"url": "https://example.com/dot.png"}}
    results = {message["name"]: message["content"] for message in stored(home, "s") if message["role"] == "tool"}
    assert results == {"draw": [image], "draw_and_say": [{"type": "text", "text": "A dot:"}, image, linked]}


def test_the_same_words_twice_are_two_messages(home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM(echo) as llm:
        agent = make_agent(memory=MEMORY, **OPENAI.agent(llm))
        agent.chat("Again")
        agent.chat("Again")
    assert pairs(stored(home, "s")) == [("Again", "re: Again")] * 2


def test_in_a_terminal_start_shows_the_pieces_and_returns_the_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], make_agent: MakeAgent
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with ScriptedLLM([Call([Tool("add_one", {"n": 1})], text="Wait. "), Say("Two.")]) as llm:
        assert make_agent(tools=[add_one], **OPENAI.agent(llm)).start("Add") == "Two."
    assert capsys.readouterr().out == "Wait. Two.\n"


# Storage fails in the middle of a turn


def test_a_folder_that_becomes_a_file_fails_the_turn(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    def spoil() -> str:
        """Put a file where the folder was."""
        shutil.move(home / "sessions", home / "aside")
        (home / "sessions").write_text("in the way")
        return "spoilt"

    with ScriptedLLM([Say("One."), Call([Tool("spoil")], text="Now."), Say("Three.")]) as llm:
        agent = make_agent(tools=[spoil], memory=MEMORY, **wire.agent(llm))
        agent.chat("First")
        with pytest.raises(StorageError) as raised:
            agent.chat("Second")
        assert isinstance(raised.value, OSError)
        assert "could not be marked failed" in raised.value.__notes__[0]
        (home / "sessions").unlink()
        shutil.move(home / "aside", home / "sessions")
        assert agent.chat("Third") == "Three."
        interrupted_call = Bot("Now.", (Tool("spoil", id="call_1"),)), Result("call_1", INTERRUPTED)
        said = [User("First"), Bot("One."), User("Second"), *interrupted_call, User("Third")]
        assert llm.requests[-1].messages == wire.messages(*said)
    assert [content for _, content, _ in told(stored(home, "s"))] == [
        "First",
        "One.",
        "Second",
        "Now.",
        "Third",
        "Three.",
    ]


def test_a_folder_where_the_file_should_be_is_left_alone(home: Path, make_agent: MakeAgent) -> None:
    (home / "sessions" / "s.json").mkdir(parents=True)
    with ScriptedLLM(echo) as llm:
        agent = make_agent(memory=MEMORY, **OPENAI.agent(llm))
        with pytest.raises(NotASessionFile):
            agent.chat("1")
        assert llm.requests == []
        (home / "sessions" / "s.json").rmdir()
        assert agent.chat("2") == "re: 2"
    assert pairs(stored(home, "s")) == [("2", "re: 2")]


class Unreadable(DefaultSessionStore):
    """The default store, which cannot be read."""

    def read_from(self, *_: Any, **__: Any) -> Slice:
        raise StorageError("not readable")


def test_a_session_that_cannot_be_read_is_not_written_to(home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM(echo) as llm:
        make_agent(memory=MEMORY, **OPENAI.agent(llm)).chat("1")
        with pytest.raises(StorageError, match="not readable"):
            make_agent(memory=MEMORY, session_store=Unreadable(), **OPENAI.agent(llm)).chat("2")
        assert len(llm.requests) == 1
    assert pairs(stored(home, "s")) == [("1", "re: 1")]


class Failing(DefaultSessionStore):
    """The default store, in which one append fails."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def append(self, session_id: str, messages: Sequence[Message], **options: Any) -> Appended:
        self.left -= 1
        if self.left == 0:
            raise StorageError("the disk is gone for a moment")
        return super().append(session_id, messages, **options)


FAILING_AT: dict[int, list[tuple[str, Any, str | None]]] = {
    1: [],
    2: [("user", "Add", None), failed("Wait.")],
    3: [("user", "Add", None), ("assistant", "Wait.", None), failed()],
    4: [("user", "Add", None), ("assistant", "Wait.", None), ("tool", "2", None), failed("Two.")],
}


@pytest.mark.parametrize("number", FAILING_AT)
def test_an_answer_that_could_not_be_stored_is_kept_with_the_mark(
    number: int, wire: Wire, home: Path, make_agent: MakeAgent
) -> None:
    replies = [Call([Tool("add_one", {"n": 1})], text="Wait."), Say("Two."), Say("Hello.")]
    with ScriptedLLM(lambda _: replies.pop(0)) as llm:
        agent = make_agent(tools=[add_one], memory=MEMORY, session_store=Failing(number), **wire.agent(llm))
        with pytest.raises(StorageError, match="gone for a moment"):
            agent.chat("Add")
        assert told(stored(home, "s")) == FAILING_AT[number]
        replies[:] = [Say("Hello.")]
        assert agent.chat("Hello?") == "Hello."
        assert llm.requests[-1].messages == wire.messages(User("Hello?"))


# Closing


def test_closing_twice_and_talking_on(wire: Wire, home: Path, make_agent: MakeAgent) -> None:
    with ScriptedLLM(echo) as llm:
        for db in (None, f"file://{home}/sessions", "memory://"):
            agent = make_agent(db=db, session_id="s", **wire.agent(llm))
            agent.chat("1")
            agent.close()
            agent.close()
            agent.chat("2")
            assert llm.requests[-1].messages[-3:] == wire.messages(User("1"), Bot("re: 1"), User("2"))[-3:]
            agent.close()


def test_a_result_too_large_to_store_fails_the_turn(home: Path, make_agent: MakeAgent) -> None:
    def much() -> str:
        """Return much."""
        return "x" * (17 * 1024 * 1024)

    with ScriptedLLM([Call([Tool("much")]), Say("Hello.")]) as llm:
        agent = make_agent(tools=[much], memory=MEMORY, **OPENAI.agent(llm))
        with pytest.raises(MessageTooLarge):
            agent.chat("Much")
        assert agent.chat("Hello?") == "Hello."
    assert told(stored(home, "s"))[1:3] == [("assistant", None, None), failed()]


def test_an_agent_is_a_context_manager_of_both_kinds(make_agent: MakeAgent) -> None:
    memory = RemembersAndCloses()

    async def talk() -> None:
        async with make_agent(memory=memory, **OPENAI.agent(llm)) as agent:
            assert await agent.achat("1") == "re: 1"
            assert await asyncio.to_thread(agent.chat, "2") == "re: 2"
            await agent.aclose()
            assert await agent.achat("3") == "re: 3"

    with ScriptedLLM(echo) as llm:
        asyncio.run(talk())
        assert memory.closed == 2
        with pytest.raises(ZeroDivisionError), make_agent(memory=memory, **OPENAI.agent(llm)) as agent:
            1 // (len(agent.chat("4")) - 5)
    assert memory.closed == 3


def test_closing_closes_the_connections(wire: Wire, make_agent: MakeAgent) -> None:
    """Where an agent is not closed, its connections go with its loop, or with itself."""
    with ScriptedLLM(echo) as llm:
        agent = make_agent(**wire.agent(llm))
        asyncio.run(agent.achat("On a loop that ends"))
        agent.chat("On the loop that stays")
        agent.close()
        assert agent._models is not None
        assert agent._models._held == {}
        make_agent().close()
        Agent("Nobody's", **wire.agent(llm)).chat("Hello")
        gc.collect()


def test_closing_in_a_coroutine_leaves_nothing_open() -> None:
    source = """
        import asyncio, gc, json, sys
        from praisonaiagents import Agent

        async def talk():
            agent = Agent("Assistant", **json.loads(sys.argv[1]))
            await agent.achat("1")
            agent.chat("2")
            agent.close()

        asyncio.run(talk())
        gc.collect()
        print("true")
    """
    with ScriptedLLM(echo) as llm:
        assert python(source, json.dumps(OPENAI.agent(llm))) is True


class SlowToLeave:
    """A thing that takes many turns of its loop to close."""

    def __init__(self) -> None:
        self.loop: Any = None
        self.left = False

    async def __aenter__(self) -> SlowToLeave:
        self.loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert asyncio.get_running_loop() is self.loop
        for _ in range(1000):
            await asyncio.sleep(0)
        self.left = True


@pytest.mark.parametrize("how", ["close", "aclose", "nothing"])
def test_what_a_loop_holds_is_left_on_it_before_it_ends(how: str) -> None:
    async def use() -> None:
        assert await held.get() is await held.get()
        if how == "close":
            held.close()
        elif how == "aclose":
            await held.aclose()

    made: list[SlowToLeave] = []
    held = PerLoop(lambda: made.append(SlowToLeave()) or made[-1])  # type: ignore[func-returns-value]
    for _ in range(2):
        asyncio.run(use())
    background.run(held.get())
    held.close()
    assert [thing.left for thing in made] == [True] * 3


def test_a_model_of_the_library_is_the_callers_to_close(make_agent: MakeAgent) -> None:
    async def talk() -> None:
        provider = OpenAIProvider(base_url=llm.openai_url, api_key=KEY)
        agent = make_agent(llm=OpenAIChatModel("mine", provider=provider))
        assert await agent.achat("Hello") == "re: Hello"
        await agent.aclose()
        assert not provider.client.is_closed()
        await provider.client.close()
        assert agent.model_name == "mine"
        assert KEY not in repr(agent)

    with ScriptedLLM(echo) as llm:
        asyncio.run(talk())


def test_an_agent_always_has_a_memory_object() -> None:
    class Foreign(Remembers):
        colour = "red"

    for memory, found in ((None, []), (Foreign(), ["x"])):
        instance = Agent("A", llm="gpt-4o", memory=memory)._memory_instance
        instance.close_connections()
        assert instance.search("x", limit=1) == found
    assert instance.colour == "red"
    with pytest.raises(AttributeError):
        instance.no_such_thing  # noqa: B018


def test_a_session_makes_agents_and_closes_them(home: Path) -> None:
    with ScriptedLLM(echo) as llm, Session("s", "alice") as session:
        agent = session.Agent("Assistant", **OPENAI.agent(llm))
        agent.chat("Hello")
        assert (agent.session_id, agent.user_id) == ("s", "alice")
    assert pairs(stored(home, "s", "alice")) == [("Hello", "re: Hello")]


def test_a_call_that_swallows_a_cancellation_is_cancelled_again() -> None:

    begun, swallowed = threading.Event(), []

    async def stubborn() -> None:
        while True:
            try:
                begun.set()
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed.append(True)

    call = background.Call(stubborn())
    assert begun.wait(60)
    call.cancel()
    assert call.ended.done()


def test_what_a_signals_handler_raises_stops_the_call_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(BaseException):
        """Raised where the main thread waits."""

    def enough(*_: object) -> None:
        raise Enough

    async def endless() -> None:
        try:
            await asyncio.sleep(0.2)  # until the main thread waits
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(3600)
        finally:
            stopped.append(True)

    stopped: list[bool] = []
    before = signal.signal(signal.SIGUSR1, enough)
    try:
        with pytest.raises(Enough):
            background.run(endless())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stopped


def test_an_agent_closed_on_a_loop_first_ends_what_it_serves_and_closes_the_rest_whatever_fails(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails() -> None:
        closed.append("conversation")
        raise OSError

    async def main() -> None:
        await agent.achat("Hello")
        agent.on_close(lambda: closed.append("server"))
        monkeypatch.setattr(agent._in_conversation(), "close", fails)
        monkeypatch.setattr(agent, "close", lambda: closed.append("all else"))
        with pytest.raises(OSError):
            await agent.aclose()
        monkeypatch.undo()

    closed: list[str] = []
    with ScriptedLLM(echo) as llm:
        agent = make_agent(**OPENAI.agent(llm))
        asyncio.run(main())
    assert closed == ["server", "conversation", "all else"]
