"""Someone's own database adapter: which hooks an agent calls, in which order, with what, and what it does when one fails.

The adapters here have the documented signatures, so an argument under another name would fail; all tell what they were told.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from wire import OPENAI, PATIENCE_S, Bot, Json, Result, User

from praisonaiagents import Agent, MemoryConfig
from praisonaiagents.agent.background import background_loop
from praisonaiagents.db import AsyncDbAdapter, DbAdapter, DbMessage, DbToolCall
from praisonaiagents.errors import (
    AdapterFailed,
    ConfigError,
    ConfigTypeError,
    EngineUnreachable,
    HookFailed,
    ModelError,
)
from praisonaiagents.session import DefaultSessionStore
from praisonaiagents.testing.llm import Call, Fail, Hang, Reply, Say, ScriptedLLM, Tool

STYLES: dict[str, Callable[[Agent, Any], Any]] = {
    "start": lambda agent, prompt: agent.start(prompt),
    "chat": lambda agent, prompt: agent.chat(prompt),
    "run": lambda agent, prompt: agent.run(prompt),
    "achat": lambda agent, prompt: asyncio.run(agent.achat(prompt)),
    "astart": lambda agent, prompt: asyncio.run(agent.astart(prompt)),
    "arun": lambda agent, prompt: asyncio.run(agent.arun(prompt)),
    "iter_stream": lambda agent, prompt: "".join(agent.iter_stream(prompt)),
    "start(stream=True)": lambda agent, prompt: "".join(agent.start(prompt, stream=True)),
}
SYNC = ("start", "chat", "run", "iter_stream", "start(stream=True)")
every_style = pytest.mark.parametrize("style", STYLES)
Told = list[tuple[Any, ...]]
SECRET = "sk-very-secret"


class Messages:
    """What the page shows: an adapter of three methods. `rows` are what it tells of, `told` what it was told."""

    def __init__(self, rows: Any = None) -> None:
        self.rows = rows
        self.told: Told = []
        self.failing: set[str] = set()

    def on_agent_start(self, agent_name: str, session_id: str, user_id: Any = None, metadata: Any = None) -> Any:
        return self.tell("start", agent_name, session_id, user_id, metadata) or self.rows

    def on_user_message(self, session_id: str, content: str, metadata: Any = None) -> None:
        self.tell("user", session_id, content, metadata)

    def on_agent_message(self, session_id: str, content: str, metadata: Any = None) -> None:
        self.tell("agent", session_id, content, metadata)

    def tell(self, *what: Any) -> None:
        self.told.append(what)
        if what[0] in self.failing:
            raise LookupError(f"{what[0]} failed, and this text has a {SECRET}")

    @property
    def names(self) -> list[str]:
        return [what[0] for what in self.told]


class Hooks(Messages):
    """Every hook that is not about tracing."""

    def on_tool_call(self, session_id: str, tool_name: str, args: Any, result: Any, metadata: Any = None) -> None:
        self.tell("tool", session_id, tool_name, args, result, metadata)

    def on_run_start(self, session_id: str, run_id: str, input_content: Any = None, metadata: Any = None) -> None:
        self.tell("run", session_id, run_id, input_content, metadata)

    def on_run_end(
        self,
        session_id: str,
        run_id: str,
        output_content: Any = None,
        status: str = "completed",
        metrics: Any = None,
        metadata: Any = None,
    ) -> None:
        self.tell("ran", session_id, run_id, output_content, status, metrics, metadata)

    def on_agent_end(self, session_id: str, metadata: Any = None) -> None:
        self.tell("end", session_id, metadata)

    def close(self) -> None:
        self.tell("close")


class Traces(Hooks):
    """Every hook."""

    def on_trace_start(
        self,
        trace_id: str,
        session_id: Any = None,
        run_id: Any = None,
        agent_name: Any = None,
        user_id: Any = None,
        metadata: Any = None,
    ) -> None:
        self.tell("trace", trace_id, session_id, run_id, agent_name, user_id, metadata)

    def on_trace_end(self, trace_id: str, status: str = "ok", metadata: Any = None) -> None:
        self.tell("traced", trace_id, status)

    def on_span_start(
        self, span_id: str, trace_id: str, name: str, parent_span_id: Any = None, attributes: Any = None
    ) -> None:
        self.tell("span", span_id, trace_id, name, attributes)

    def on_span_end(self, span_id: str, status: str = "ok", attributes: Any = None) -> None:
        self.tell("spanned", span_id, status, attributes)


def asynchronous(kind: type[Messages], prefix: str = "") -> type[Any]:
    """The adapter with every hook as a coroutine that tells on which loop it ran. With a prefix, the sync ones stay too."""

    def twin(name: str) -> Callable[..., Any]:
        async def hook(self: Any, *arguments: Any, **options: Any) -> Any:
            await asyncio.to_thread(time.sleep, 0)  # as drivers do
            self.loops.append(asyncio.get_running_loop())
            return getattr(kind, name)(self, *arguments, **options)

        return hook

    hooks = [name for each in kind.__mro__ for name in vars(each) if name.startswith("on_")]
    loops: list[Any] = []
    return type("Async", (kind,), {**{f"{prefix}{name}": twin(name) for name in hooks}, "loops": loops})


@pytest.fixture
def ask() -> Iterator[Callable[..., Agent]]:
    """`ask(adapter, replies)`: an agent whose model answers so. `agent.llm` is the model's server."""
    opened: list[Any] = []

    def make(adapter: Any, replies: list[Reply], **settings: Any) -> Agent:
        llm = ScriptedLLM(replies)
        opened.append(llm)
        llm.__enter__()
        agent = Agent("Assistant", **OPENAI.agent(llm, **{"session_id": "s", "db": adapter, **settings}))
        opened.append(agent)
        agent.llm = llm  # type: ignore[attr-defined]
        return agent

    yield make
    for each in reversed(opened):
        each.close() if isinstance(each, Agent) else each.__exit__(None, None, None)


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def told(adapter: Messages) -> Told:
    """What it was told, with the first run of each name as `run 0`, and so on."""
    text = repr(adapter.told)
    for kind in ("run", "trace", "span"):
        for number, made in enumerate(dict.fromkeys(re.findall(rf"\b{kind}-[0-9a-f]{{12}}\b", text))):
            text = text.replace(made, f"{kind} {number}")
    found: Told = ast.literal_eval(text)
    return found


METRICS = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "requests": 1}
ABOUT = {"agent_name": "Assistant"}
ANSWERED = {**ABOUT, "model": OPENAI.model}
START = ("start", "Assistant", "s", "default_user", {"role": None, "goal": None})


# --- what it is told ---


@every_style
@pytest.mark.parametrize("kind", [Messages, asynchronous(Messages)], ids=["sync", "async"])
def test_an_adapter_of_three_methods_is_told_of_each_turn(
    style: str, kind: type[Messages], ask: Callable[..., Agent], home: Path
) -> None:
    adapter = kind()
    agent = ask(adapter, [Say("Hello!"), Call([Tool("add", {"a": 1, "b": 2})], text="Wait."), Say("3")], tools=[add])
    assert adapter.told == []
    assert STYLES[style](agent, "Hi") == "Hello!"
    assert STYLES[style](agent, "1 + 2?") in ("3", "Wait.3")
    agent.close()
    assert adapter.told == [
        START,
        ("user", "s", "Hi", None),
        ("agent", "s", "Hello!", None),
        ("user", "s", "1 + 2?", None),
        ("agent", "s", "3", None),
    ]
    assert not home.exists()
    assert isinstance(adapter, DbAdapter)
    assert isinstance(adapter, AsyncDbAdapter)


@every_style
@pytest.mark.parametrize("kind", [Hooks, asynchronous(Hooks)], ids=["sync", "async"])
def test_every_hook_is_called_in_the_order_of_the_turn(
    style: str, kind: type[Hooks], ask: Callable[..., Agent]
) -> None:
    adapter = kind()
    replies = [
        Call([Tool("add", {"a": 1, "b": 2}), Tool("add", {"a": 3, "b": 4})], text="Wait."),
        Say("3, 7"),
        Say("!"),
    ]
    with ask(adapter, replies, tools=[add], user_id="alice") as agent:
        STYLES[style](agent, "Add")
        STYLES[style](agent, "Thanks")
    twice = {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30, "requests": 2}
    seen = told(adapter)
    seen[3:5] = sorted(seen[3:5], key=lambda call: call[3]["a"])  # they finish as they will
    assert seen == [
        ("start", "Assistant", "s", "alice", {"role": None, "goal": None}),
        ("run", "s", "run 0", "Add", ABOUT),
        ("user", "s", "Add", None),
        ("tool", "s", "add", {"a": 1, "b": 2}, "3", None),
        ("tool", "s", "add", {"a": 3, "b": 4}, "7", None),
        ("agent", "s", "3, 7", None),
        ("ran", "s", "run 0", "3, 7", "completed", twice, ANSWERED),
        ("run", "s", "run 1", "Thanks", ABOUT),
        ("user", "s", "Thanks", None),
        ("agent", "s", "!", None),
        ("ran", "s", "run 1", "!", "completed", METRICS, ANSWERED),
        ("end", "s", None),
    ]


def test_a_turn_is_a_trace_and_its_steps_are_spans(ask: Callable[..., Agent]) -> None:
    adapter = Traces()
    with ask(adapter, [Call([Tool("add", {"a": 1, "b": 2}, id="c1")]), Say("3")], tools=[add]) as agent:
        agent.chat("Add")
    used = {"model": OPENAI.model, "input_tokens": 10, "output_tokens": 5}
    assert [what for what in told(adapter) if what[0].startswith(("trace", "span", "tool", "user", "ran"))] == [
        ("trace", "trace 0", "s", "run 0", "Assistant", "default_user", {}),
        ("user", "s", "Add", None),
        ("span", "span 0", "trace 0", "chat", {}),
        ("spanned", "span 0", "ok", used),
        ("span", "span 1", "trace 0", "execute_tool add", {"tool": "add", "call_id": "c1"}),
        ("tool", "s", "add", {"a": 1, "b": 2}, "3", None),
        ("spanned", "span 1", "ok", {}),
        ("span", "span 2", "trace 0", "chat", {}),
        ("spanned", "span 2", "ok", used),
        ("ran", "s", "run 0", "3", "completed", {**METRICS, **_twice()}, ANSWERED),
        ("traced", "trace 0", "ok"),
    ]


def _twice() -> dict[str, int]:
    return {name: 2 * count for name, count in METRICS.items()}


@every_style
def test_coroutines_are_awaited_on_the_loop_of_the_turn(style: str, ask: Callable[..., Agent]) -> None:
    adapter = asynchronous(Hooks)()
    STYLES[style](ask(adapter, [Say("Hello!")]), "Hi")
    loops = set(adapter.loops)
    assert len(loops) == 1
    assert (loops == {background_loop()}) == (style in SYNC)


@every_style
def test_of_two_twins_an_async_run_takes_the_async_one(style: str, ask: Callable[..., Agent]) -> None:
    adapter = asynchronous(Hooks, "a")()
    STYLES[style](ask(adapter, [Say("Hello!")]), "Hi")
    assert adapter.names == ["start", "run", "user", "agent", "ran"]
    assert len(adapter.loops) == (0 if style in SYNC else 5)


def test_an_adapter_that_has_only_async_twins_serves_sync_runs_too(ask: Callable[..., Agent]) -> None:
    class Twins:
        said: list[str] = []

        async def aon_user_message(self, session_id: str, content: str) -> None:
            self.said.append(content)

        async def aon_agent_message(self, session_id: str, content: str) -> None:
            self.said.append(content)

    with ask(Twins(), [Say("Hello!")]) as agent:
        agent.chat("Hi")
    assert Twins.said == ["Hi", "Hello!"]


def test_hooks_of_functions_run_beside_the_loop_and_see_the_callers_context(ask: Callable[..., Agent]) -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[Any] = []

    class Adapter(Messages):
        def tell(self, *what: Any) -> None:
            seen.append((request.get(), threading.current_thread()))

    async def main(agent: Agent) -> None:
        request.set("r1")
        await agent.achat("Hi")

    asyncio.run(main(ask(Adapter(), [Say("Hello!")])))
    assert [context for context, _ in seen] == ["r1"] * 3
    assert threading.main_thread() not in [thread for _, thread in seen]


def test_a_function_may_return_something_to_await(ask: Callable[..., Agent]) -> None:
    class Adapter(Messages):
        def on_user_message(self, session_id: str, content: str, metadata: Any = None) -> Any:  # type: ignore[override]
            return asyncio.wait_for(self.later(content), PATIENCE_S)

        async def later(self, content: str) -> None:
            self.tell("awaited", content)

    adapter = Adapter()
    ask(adapter, [Say("Hello!")]).chat("Hi")
    assert ("awaited", "Hi") in adapter.told


def test_more_turns_than_threads_do_not_wait_for_each_other(ask: Callable[..., Agent]) -> None:
    """Each hook needs a thread of the loop's executor, and there are fewer of them than turns."""
    adapters = [asynchronous(Hooks)() for _ in range(60)]
    agents = [ask(adapter, [Say("Hello!")], session_id=f"s{number}") for number, adapter in enumerate(adapters)]

    async def main() -> list[str]:
        return await asyncio.wait_for(asyncio.gather(*(agent.achat("Hi") for agent in agents)), PATIENCE_S)

    assert asyncio.run(main()) == ["Hello!"] * 60
    assert {tuple(adapter.names) for adapter in adapters} == {("start", "run", "user", "agent", "ran")}


def test_of_a_message_with_parts_a_hook_is_told_the_text(ask: Callable[..., Agent]) -> None:
    adapter = Hooks()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    ask(adapter, [Say("A cat.")]).chat([{"type": "text", "text": "What is it?"}, image])
    assert [what[2] for what in adapter.told if what[0] in ("user", "agent")] == ["What is it?", "A cat."]


def test_a_failing_tool_is_told_with_what_the_model_was_told(ask: Callable[..., Agent]) -> None:
    def broken(n: int) -> int:
        """Break."""
        raise RuntimeError("no such thing")

    adapter = Hooks()
    ask(adapter, [Call([Tool("broken", {"n": 1})]), Say("It broke.")], tools=[broken]).chat("Try")
    (call,) = [what for what in adapter.told if what[0] == "tool"]
    assert call[2:4] == ("broken", {"n": 1})
    assert "no such thing" in call[4]


# --- what it tells ---


CALL = {"id": "call_7", "type": "function", "function": {"name": "add", "arguments": '{"a":1,"b":2}'}}
ROWS: dict[str, Any] = {
    "dicts": [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": "Wait.", "tool_calls": [CALL]},
        {"role": "tool", "content": "3", "tool_call_id": "call_7"},
        {"role": "assistant", "content": "It is 3."},
    ],
    "DbMessages": [
        DbMessage("user", "1 + 2?"),
        DbMessage("assistant", "Wait.", tool_calls=[CALL]),
        DbMessage("tool", "3", metadata={"tool_call_id": "call_7"}),
        DbMessage(role="assistant", content="It is 3."),
    ],
}


@every_style
@pytest.mark.parametrize("rows", ROWS)
def test_what_was_said_before_is_sent_with_its_tool_calls(style: str, rows: str, ask: Callable[..., Agent]) -> None:
    agent = ask(Messages(ROWS[rows]), [Say("You are welcome.")])
    STYLES[style](agent, "Thanks")
    tool = Tool("add", {"a": 1, "b": 2}, id="call_7")
    history = User("1 + 2?"), Bot("Wait.", (tool,)), Result("call_7", "3"), Bot("It is 3.")
    assert agent.llm.requests[0].messages == OPENAI.messages(*history, User("Thanks"))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "item",
    [
        DbToolCall("add", {"a": 1, "b": 2}, 3, call_id="call_7"),
        {"tool_name": "add", "args": {"a": 1, "b": 2}, "result": 3, "call_id": "call_7"},
    ],
    ids=["DbToolCall", "dict"],
)
def test_a_tool_call_may_be_one_item(item: Any, ask: Callable[..., Agent]) -> None:
    agent = ask(Messages([DbMessage("user", "1 + 2?"), item, DbMessage("assistant", "3")]), [Say("Yes.")])
    agent.chat("Sure?")
    calls = [entry for entry in agent.chat_history if "tool_calls" in entry or "tool_call_id" in entry]
    assert calls[0]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    assert calls[1] == {"role": "tool", "content": "3", "tool_call_id": "call_7", "name": "add"}
    assert [message["role"] for message in agent.llm.requests[0].messages] == [  # type: ignore[attr-defined]
        *("system", "user", "assistant", "tool", "assistant", "user")
    ]


def test_a_tool_row_of_praisonai_is_a_tool_call(ask: Callable[..., Agent]) -> None:
    row = DbMessage("tool", json.dumps({"tool": "add", "args": {"a": 1}, "result": "3"}))
    agent = ask(Messages([DbMessage("user", "Add"), row, DbMessage("assistant", "3")]), [Say("Yes.")])
    agent.chat("Sure?")
    assert agent.chat_history[1]["tool_calls"][0]["id"] == agent.chat_history[2]["tool_call_id"]
    assert agent.chat_history[2]["content"] == "3"


def test_what_failed_before_is_not_sent(ask: Callable[..., Agent]) -> None:
    rows = [
        DbMessage("user", "Lost", run_id="run-1"),
        DbMessage("assistant", "", run_id="run-1", status="failed"),
        DbMessage("user", "My name is Bob", status="saved"),
    ]
    agent = ask(Messages(rows), [Say("Bob.")])
    agent.chat("Who am I?")
    sent = [message["content"] for message in agent.llm.requests[0].messages]  # type: ignore[attr-defined]
    assert sent[1:] == ["My name is Bob", "Who am I?"]


@pytest.mark.parametrize("rows", [None, [], iter(())], ids=["None", "nothing", "an iterator"])
def test_it_may_tell_of_nothing(rows: Any, ask: Callable[..., Agent]) -> None:
    agent = ask(Messages(rows), [Say("Hello!")])
    agent.chat("Hi")
    assert len(agent.chat_history) == 2


BAD_ROWS: dict[str, Any] = {
    "a text": "hello",
    "a message": {"role": "user", "content": "Hi"},
    "no list": 5,
    "items without a role": [{"content": "Hi"}],
    "an unknown role": [DbMessage("human", SECRET)],
    "content that is no JSON": [DbMessage("user", [object()])],
}


@pytest.mark.parametrize("rows", BAD_ROWS.values(), ids=BAD_ROWS)
def test_what_is_no_history_is_refused(rows: Any, ask: Callable[..., Agent]) -> None:
    agent = ask(Messages(rows), [Say("Never.")])
    with pytest.raises(AdapterFailed, match="on_agent_start of the database adapter Messages failed") as raised:
        agent.chat("Hi")
    assert SECRET not in str(raised.value)
    assert agent.chat_history == []


def test_a_history_that_was_set_goes_before_the_adapters(ask: Callable[..., Agent]) -> None:
    adapter = Messages([DbMessage("user", "old")])
    agent = ask(adapter, [Say("Hello!")])
    agent.chat_history = [{"role": "user", "content": "new"}]
    agent.chat("Hi")
    assert [entry["content"] for entry in agent.chat_history] == ["new", "Hi", "Hello!"]
    assert adapter.names == ["start", "user", "agent"]


class Shelf(Hooks):
    """Keeps what it is told, as a user's own adapter would: by session, tool calls too."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, list[Any]] = {}
        self.lock = threading.Lock()

    def on_agent_start(self, agent_name: str, session_id: str, user_id: Any = None, metadata: Any = None) -> Any:
        return list(self.kept.get(session_id, []))

    def tell(self, *what: Any) -> None:
        with self.lock:
            kept = self.kept.setdefault(what[1] if len(what) > 1 else "", [])
            match what:
                case ("user", _, content, _):
                    kept.append(DbMessage("user", content))
                case ("agent", _, content, _):
                    kept.append(DbMessage("assistant", content))
                case ("tool", _, name, args, result, _):
                    kept.append(DbToolCall(name, args, result))


@every_style
def test_a_new_agent_goes_on_where_the_last_one_stopped(style: str, ask: Callable[..., Agent]) -> None:
    shelf = Shelf()
    with ask(shelf, [Call([Tool("add", {"a": 1, "b": 2})]), Say("It is 3.")], tools=[add]) as agent:
        STYLES[style](agent, "1 + 2?")
    with ask(shelf, [Say("You are welcome.")], tools=[add]) as second:
        STYLES[style](second, "Thanks")
        sent = second.llm.requests[0].messages  # type: ignore[attr-defined]
        assert [_shape(entry) for entry in second.chat_history[:4]] == [_shape(entry) for entry in agent.chat_history]
    assert [(message["role"], message["content"]) for message in sent[1:]] == [
        ("user", "1 + 2?"),
        ("assistant", None),
        ("tool", "3"),
        ("assistant", "It is 3."),
        ("user", "Thanks"),
    ]


def _shape(entry: Json) -> Any:
    calls = [json.loads(call["function"]["arguments"]) for call in entry.get("tool_calls", [])]
    return entry["role"], entry["content"], entry.get("name"), calls


def test_two_agents_share_an_adapter(ask: Callable[..., Agent]) -> None:
    shelf = Shelf()
    with ask(shelf, [Say("Hello A!")], session_id="a") as one, ask(shelf, [Say("Hello B!")], session_id="b") as two:
        one.chat("I am A")
        two.chat("I am B")
    said = {name: [message.content for message in kept] for name, kept in shelf.kept.items()}
    assert said == {"a": ["I am A", "Hello A!"], "b": ["I am B", "Hello B!"]}


# --- when a turn ends badly ---


@every_style
def test_of_a_model_that_fails_it_is_told_the_end_and_no_answer(style: str, ask: Callable[..., Agent]) -> None:
    adapter = Traces()
    agent = ask(adapter, [Fail(500), Say("Hello!")])
    with pytest.raises(ModelError):
        STYLES[style](agent, "Hi")
    spanned, ran, traced = told(adapter)[-3:]
    assert (spanned, traced) == (("spanned", "span 0", "error", {}), ("traced", "trace 0", "error"))
    assert ran[:-1] == ("ran", "s", "run 0", None, "error", dict.fromkeys(METRICS, 0))
    assert ran[-1].pop("error").endswith("Error")
    assert ran[-1] == {**ABOUT, "model": None}
    assert "agent" not in adapter.names
    assert STYLES[style](agent, "Again") == "Hello!"
    sent = agent.llm.requests[-1].messages  # type: ignore[attr-defined]
    assert [message["content"] for message in sent[1:]] == ["Again"]


@pytest.mark.parametrize("kind", [Hooks, asynchronous(Hooks)], ids=["sync", "async"])
def test_of_an_interrupted_stream_it_is_told_what_there_was(kind: type[Hooks], ask: Callable[..., Agent]) -> None:
    adapter = kind()
    agent = ask(adapter, [Hang("One two three", after_chunks=1, chunks=3), Say("Hello!")])
    with closing(agent.iter_stream("Count")) as pieces:
        first = next(pieces)
    agent.llm.release()  # type: ignore[attr-defined]
    assert told(adapter)[-2:] == [
        ("agent", "s", first, None),
        ("ran", "s", "run 0", first, "cancelled", dict.fromkeys(METRICS, 0), {**ABOUT, "model": None}),
    ]
    assert agent.chat("Go on") == "Hello!"


@pytest.mark.parametrize("kind", [Hooks, asynchronous(Hooks)], ids=["sync", "async"])
@pytest.mark.parametrize("ends", ["cancelled", "left behind"])
def test_of_a_cancelled_turn_it_is_told_the_end(ends: str, kind: type[Hooks], ask: Callable[..., Agent]) -> None:
    adapter = kind()
    agent = ask(adapter, [Hang("One two three"), Say("Hello!")])

    async def main() -> None:
        task = asyncio.create_task(agent.achat("Count"))
        while not agent.llm.requests:  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        if ends == "cancelled":
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(main())
    agent.llm.release()  # type: ignore[attr-defined]
    assert adapter.names == ["start", "run", "user", "ran"]
    assert adapter.told[-1][4] == "cancelled"
    assert agent.chat("Go on") == "Hello!"


@pytest.mark.parametrize("hook", ["start", "run", "user", "agent", "ran"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_turn_cancelled_in_a_hook_ends_after_it(hook: str, is_async: bool, ask: Callable[..., Agent]) -> None:
    class Slow(Hooks):
        began, done = threading.Event(), threading.Event()

        def tell(self, *what: Any) -> None:
            super().tell(*what)
            if what[0] == hook and not self.done.is_set():
                self.began.set()
                time.sleep(0.05)
                self.done.set()

    Slow.began, Slow.done = threading.Event(), threading.Event()
    adapter = asynchronous(Slow)() if is_async else Slow()
    agent = ask(adapter, [Say("Hello!"), Say("Again!")])

    async def main() -> None:
        task = asyncio.create_task(agent.achat("Hi"))
        while not adapter.began.is_set():
            await asyncio.sleep(0.001)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await task
        assert adapter.done.is_set()

    asyncio.run(main())
    assert adapter.names.count("start") == 1
    begun, ended = adapter.names.count("run"), adapter.names.count("ran")
    assert begun == ended
    assert agent.chat("Again") in ("Hello!", "Again!")


# --- when it fails itself ---


@every_style
@pytest.mark.parametrize("hook", ["start", "run", "user"])
@pytest.mark.parametrize("kind", [Hooks, asynchronous(Hooks)], ids=["sync", "async"])
def test_before_the_model_was_asked_a_failure_ends_the_turn(
    style: str, hook: str, kind: type[Hooks], ask: Callable[..., Agent]
) -> None:
    adapter = kind()
    adapter.failing.add(hook)
    agent = ask(adapter, [Say("Hello!")])
    name = {"start": "on_agent_start", "run": "on_run_start", "user": "on_user_message"}[hook]
    with pytest.raises(AdapterFailed, match=f"{name} .* {kind.__name__} failed: LookupError") as raised:
        STYLES[style](agent, "Hi")
    assert isinstance(raised.value.__cause__, LookupError)
    assert (raised.value.hook, raised.value.adapter) == (name, kind.__name__)
    assert SECRET not in str(raised.value)
    assert agent.llm.requests == []  # type: ignore[attr-defined]
    assert agent.chat_history == []
    before = ["start", "run", "user"]
    assert adapter.names == before[: before.index(hook) + 1] + ["ran"] * (hook == "user")
    adapter.failing.clear()
    assert STYLES[style](agent, "Again") == "Hello!"
    assert adapter.names.count("start") == 1 + (hook == "start")
    assert [entry["content"] for entry in agent.chat_history] == ["Again", "Hello!"]


@every_style
@pytest.mark.parametrize("hook", ["agent", "tool", "ran", "trace", "traced", "span", "spanned"])
def test_after_the_model_answered_a_failure_is_a_warning(style: str, hook: str, ask: Callable[..., Agent]) -> None:
    adapter = Traces()
    adapter.failing.add(hook)
    agent = ask(adapter, [Call([Tool("add", {"a": 1, "b": 2})]), Say("3")], tools=[add])
    with pytest.warns(
        HookFailed, match=r"on_\w+ of the database adapter Traces failed in turn run-\w+ .*LookupError"
    ) as found:
        assert STYLES[style](agent, "1 + 2?") == "3"
    assert SECRET not in str(found[0].message)
    assert isinstance(found[0].message.__cause__, LookupError)  # type: ignore[union-attr]
    assert [entry["role"] for entry in agent.chat_history] == ["user", "assistant", "tool", "assistant"]
    assert {"start", "run", "user", "tool", "agent", "ran", "trace", "traced", "span", "spanned"} == set(adapter.names)


def test_a_warning_is_seen_each_time(ask: Callable[..., Agent]) -> None:
    adapter = Messages()
    adapter.failing.add("agent")
    agent = ask(adapter, [Say("One"), Say("Two")])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        agent.chat("Hi")
        agent.chat("Hi")
    assert ["on_agent_message of" in str(each.message) for each in seen] == [True, True]


def test_what_our_own_error_says_is_told(ask: Callable[..., Agent]) -> None:
    class Adapter(Messages):
        def tell(self, *what: Any) -> None:
            raise EngineUnreachable("the server at db:5432 is not there")

    with pytest.raises(AdapterFailed, match="the server at db:5432 is not there"):
        ask(Adapter(), [Say("Never.")]).chat("Hi")


@pytest.mark.parametrize("raised", [StopIteration, StopAsyncIteration, asyncio.CancelledError, TimeoutError])
@pytest.mark.parametrize("kind", [Messages, asynchronous(Messages)], ids=["sync", "async"])
@pytest.mark.parametrize("style", ["chat", "achat"])
def test_whatever_a_hook_raises_is_its_failure(
    style: str, kind: type[Messages], raised: type[BaseException], ask: Callable[..., Agent]
) -> None:
    adapter = kind()
    adapter.tell = lambda *_: _raise(raised)  # type: ignore[method-assign]
    agent = ask(adapter, [Say("Never.")])
    with pytest.raises(AdapterFailed, match="on_agent_start"):
        STYLES[style](agent, "Hi")
    assert agent.llm.requests == []  # type: ignore[attr-defined]


def _raise(kind: type[BaseException]) -> None:
    raise kind


def test_a_hook_that_talks_to_its_own_agent_is_told_that_this_cannot_be(ask: Callable[..., Agent]) -> None:
    class Adapter(Messages):
        def on_user_message(self, session_id: str, content: str, metadata: Any = None) -> None:
            self.agent.chat("And you?")

    adapter = Adapter()
    adapter.agent = ask(adapter, [Say("Never.")])  # type: ignore[attr-defined]
    with pytest.raises(AdapterFailed, match="the agent waits for the tool"):
        adapter.agent.chat("Hi")  # type: ignore[attr-defined]


# --- the end ---


@pytest.mark.parametrize("kind", [Hooks, asynchronous(Hooks)], ids=["sync", "async"])
def test_closing_tells_the_end_once_and_leaves_the_adapter_open(kind: type[Hooks], ask: Callable[..., Agent]) -> None:
    adapter = kind()
    agent = ask(adapter, [Say("Hello!"), Say("Again!")])
    agent.close()
    assert adapter.told == []
    agent.chat("Hi")
    agent.close()
    agent.close()
    asyncio.run(agent.aclose())
    assert adapter.names == ["start", "run", "user", "agent", "ran", "end"]
    agent.chat("Hi again")
    asyncio.run(agent.aclose())
    agent.close()
    assert adapter.names[6:] == ["start", "run", "user", "agent", "ran", "end"]
    assert len(agent.chat_history) == 4


def test_an_end_that_fails_is_a_warning(ask: Callable[..., Agent]) -> None:
    adapter = Hooks()
    adapter.failing.add("end")
    agent = ask(adapter, [Say("Hello!")])
    agent.chat("Hi")
    with pytest.warns(HookFailed, match="on_agent_end"):
        agent.close()
    agent.close()


# --- how it is given ---


@pytest.mark.parametrize(
    "settings",
    [
        lambda adapter: {"db": adapter},
        lambda adapter: {"memory": {"db": adapter}},
        lambda adapter: {"memory": MemoryConfig(db=adapter)},
        lambda adapter: {"memory": adapter},
        lambda adapter: {"db": adapter, "memory": {"db": adapter, "session_id": "s", "user_id": "u"}},
    ],
)
def test_it_is_given_as_db_or_in_memory(settings: Any, ask: Callable[..., Agent], home: Path) -> None:
    adapter = Messages()
    given = {"db": None, "session_id": None} | settings(adapter)
    agent = ask(adapter, [Say("Hello!")], **given)
    agent.chat("Hi")
    assert adapter.names == ["start", "user", "agent"]
    assert adapter.told[0][2] == agent.session_id
    assert agent.session_id == "s" or re.fullmatch(r"\d{10}-[0-9a-f]{6}-[0-9a-f]{8}", agent.session_id or "")
    assert not home.exists()
    assert repr(adapter) not in repr(agent) + repr(agent._config) + repr(agent._config.to_dict())


def test_what_makes_no_sense_is_refused() -> None:
    for given, error, text in [
        ({"db": Messages(), "memory": {"db": Messages()}}, ConfigError, "db was given twice"),
        ({"db": Messages(), "memory": {"db": "memory://"}}, ConfigError, "db was given twice"),
        ({"db": Messages()}, ConfigTypeError, "the class Messages"),
        ({"db": object()}, ConfigTypeError, "object"),
        ({"db": 5}, ConfigTypeError, "int"),
        ({"db": Messages(), "session_store": DefaultSessionStore()}, ConfigError, "session_store="),
        ({"db": Messages(), "memory": {"compact_at": 1000}}, ConfigError, "compact_at"),
        ({"db": Messages(), "memory": {"max_messages": 5, "retention": "archive"}}, ConfigError, "retention"),
    ]:
        if text == "the class Messages":
            given = {"db": Messages}
        with pytest.raises(error, match=text):
            Agent("A", **given)


def test_the_model_is_sent_the_last_messages_only(ask: Callable[..., Agent]) -> None:
    rows = [DbMessage(role, str(number)) for number in range(5) for role in ("user", "assistant")]
    agent = ask(Messages(rows), [Say("Hello!")], memory={"max_messages": 3})
    agent.chat("Hi")
    sent = agent.llm.requests[0].messages  # type: ignore[attr-defined]
    assert [message["content"] for message in sent[1:]] == ["4", "4", "Hi"]
