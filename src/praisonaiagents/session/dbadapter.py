"""What a database adapter of your own is: an object that an agent tells what happens, and asks what happened before.

    class MyDb:
        def on_agent_start(self, agent_name, session_id, user_id=None, metadata=None): return []
        def on_user_message(self, session_id, content, metadata=None): ...
        def on_agent_message(self, session_id, content, metadata=None): ...

    Agent("Assistant", db=MyDb())

`DbAdapter` names these three; all others below are called if the adapter has them. `AsyncDbAdapter` has the same as coroutines.

    on_agent_start(agent_name=, session_id=, user_id=, metadata=) -> history     the agent's first turn
    on_run_start(session_id, run_id, input_content=, metadata=)                  each turn, first
    on_user_message(session_id, content)                                         before the model is asked
    on_tool_call(session_id, tool_name, args, result)                            each tool call, when its result is there
    on_agent_message(session_id, content)                                        the final answer
    on_run_end(session_id, run_id, output_content=, status=, metrics=, metadata=)    each turn, last
    on_agent_end(session_id)                                                     `Agent.close`
    on_trace_start(trace_id, session_id=, run_id=, agent_name=, user_id=, metadata=), on_trace_end(trace_id, status=)
    on_span_start(span_id, trace_id, name, attributes=), on_span_end(span_id, status=, attributes=)
                                                         a trace for each turn, a span for each model answer and tool call

`status` is "completed", "error" or "cancelled"; of a trace or span "ok", "error" or "cancelled". `content` is text: images and
other parts of a message are not in it. `metrics` holds `input_tokens`, `output_tokens`, `total_tokens` and `requests`.

What a reader would get wrong: an adapter is never closed by an agent, because several agents may share it. And a hook that
fails is never passed over. Before the model is asked (`on_agent_start`, `on_run_start`, `on_user_message`) it ends the turn
with `AdapterFailed`; later it is a `HookFailed` warning, because the answer, which was paid for, is not to be lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec


@runtime_checkable
class DbAdapter(Protocol):
    """The least an adapter has. Hooks are called in threads, one at a time for each agent."""

    def on_agent_start(
        self, agent_name: str, session_id: str, user_id: str | None = None, metadata: dict[str, Any] | None = None
    ) -> Sequence[Any] | None:
        """What was said before in this session, oldest first; None means nothing.

        Each item is a message (an object or a dict with role and content; tool_calls and tool_call_id are kept), or a tool
        call (with tool_name, args and result).
        """

    def on_user_message(self, session_id: str, content: str, metadata: dict[str, Any] | None = None) -> object:
        """The user said this."""

    def on_agent_message(self, session_id: str, content: str, metadata: dict[str, Any] | None = None) -> object:
        """The agent answered this."""


@runtime_checkable
class AsyncDbAdapter(Protocol):
    """`DbAdapter` as coroutines. They are awaited on the loop of the turn; without one, on the agents' background loop."""

    async def on_agent_start(
        self, agent_name: str, session_id: str, user_id: str | None = None, metadata: dict[str, Any] | None = None
    ) -> Sequence[Any] | None:
        """As in `DbAdapter`."""

    async def on_user_message(self, session_id: str, content: str, metadata: dict[str, Any] | None = None) -> object:
        """As in `DbAdapter`."""

    async def on_agent_message(self, session_id: str, content: str, metadata: dict[str, Any] | None = None) -> object:
        """As in `DbAdapter`."""


class DbMessage(msgspec.Struct):
    """One message. Times are in seconds since 1970, UTC."""

    role: str
    content: Any
    metadata: dict[str, Any] = {}
    timestamp: float = msgspec.field(default_factory=time.time)
    id: str | None = None
    tool_calls: list[Any] | None = None
    run_id: str | None = None
    tool_call_id: str | None = None
    name: str | None = None
    status: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"DbMessage(role={self.role!r}, id={self.id!r}, run_id={self.run_id!r})"


class DbToolCall(msgspec.Struct):
    """One tool call with its result."""

    tool_name: str
    args: Any
    result: Any = None
    call_id: str | None = None
    timestamp: float = msgspec.field(default_factory=time.time)
    duration_ms: float | None = None
    error: str | None = None

    def __repr__(self) -> str:
        return f"DbToolCall(tool_name={self.tool_name!r}, call_id={self.call_id!r})"


class DbRun(msgspec.Struct):
    """One turn. status: "running", "completed", "error" or "cancelled"."""

    run_id: str
    session_id: str
    agent_name: str | None = None
    started_at: float = msgspec.field(default_factory=time.time)
    ended_at: float | None = None
    status: str = "running"
    input_content: str | None = None
    output_content: str | None = None
    messages: list[DbMessage] = []
    tool_calls: list[DbToolCall] = []
    metadata: dict[str, Any] = {}
    metrics: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"DbRun(run_id={self.run_id!r}, session_id={self.session_id!r}, status={self.status!r})"


class DbSpan(msgspec.Struct):
    """One step of a turn: a model's answer or a tool call."""

    span_id: str
    trace_id: str
    name: str
    started_at: float = msgspec.field(default_factory=time.time)
    ended_at: float | None = None
    parent_span_id: str | None = None
    status: str = "running"
    attributes: dict[str, Any] = {}
    events: list[dict[str, Any]] = []


class DbTrace(msgspec.Struct):
    """The steps of one turn."""

    trace_id: str
    session_id: str | None = None
    run_id: str | None = None
    agent_name: str | None = None
    user_id: str | None = None
    started_at: float = msgspec.field(default_factory=time.time)
    ended_at: float | None = None
    status: str = "running"
    spans: list[DbSpan] = []
    metadata: dict[str, Any] = {}
