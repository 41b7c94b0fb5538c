"""The conversation of an agent whose messages the user's own database adapter keeps.

The list that the agent thinks with lives in this process; the adapter is asked once for what came before, and told each thing
before it is added to the list. Which hooks there are, and when they are called: see `dbadapter`.

What a reader would get wrong: a hook is never waited for in a thread. A function runs in a thread, and what it returns is
awaited here, on the loop of the turn; a coroutine runs on that loop. If a thread waited for the loop, a few turns at once
would hold all threads of the loop's executor, and a hook that needs one itself would wait for ever.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from typing import Any

import msgspec

from praisonaiagents.errors import AdapterFailed, HookFailed, InvalidMessage, PraisonError
from praisonaiagents.model.message import Message, check
from praisonaiagents.session.conversation import Conversation, Entry
from praisonaiagents.session.runs import as_json, called
from praisonaiagents.session.uncut import in_thread

_RUN_STATUS = {None: "completed", "failed": "error", "interrupted": "cancelled"}
_SPAN_STATUS = {None: "ok", "failed": "error", "interrupted": "cancelled"}
_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name", "run_id", "status")
_MODEL = ""  # the span of the model; those of tools go by the ids of their calls


class _Run(msgspec.Struct):
    """The turn under way. calls: name and arguments of those without a result; spans: ids of those not ended."""

    run_id: str
    trace_id: str
    answer: str | None = None
    model: str | None = None
    error: str | None = None
    calls: dict[str, tuple[str, Any]] = {}
    spans: dict[str, str] = {}
    usage: dict[str, int] = {}
    requests: int = 0

    def count(self, message: Message) -> None:
        """Add what an answer took."""
        self.model = message.model or self.model
        self.requests += 1
        for name, tokens in (message.usage or {}).items():
            if isinstance(tokens, int):
                self.usage[name] = self.usage.get(name, 0) + tokens

    def metrics(self) -> dict[str, int]:
        counts = {"input_tokens": 0, "output_tokens": 0} | self.usage
        total = counts["input_tokens"] + counts["output_tokens"]
        return counts | {"total_tokens": total, "requests": self.requests}


class AdaptedConversation(Conversation):
    """A conversation that an adapter keeps. The adapter stays the caller's, also to close.

    metadata: what on_agent_start is told of the agent. prefers_twins: asked in a turn, whether a twin of a hook whose name
    begins with `a`, such as `aon_user_message`, goes before the hook itself.
    """

    def __init__(
        self,
        adapter: Any,
        session_id: str,
        user_id: str,
        *,
        agent_name: str,
        metadata: dict[str, Any],
        limit: int | None = None,
        prefers_twins: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(limit=limit)
        self._adapter = adapter
        self._session_id = session_id
        self._user_id = user_id
        self._agent_name = agent_name
        self._metadata = metadata
        self._prefers_twins = prefers_twins
        self._is_open = False
        self._run: _Run | None = None

    async def begin(self, message: Message) -> None:
        if not self._is_open:
            await self._open()
        session, about = self._session_id, {"agent_name": self._agent_name}
        run = _Run(message.run_id or "", _new_id("trace"))
        await self._must("on_run_start", session, run.run_id, input_content=message.text(), metadata=about)
        self._run = run
        whose: dict[str, Any] = {"session_id": session, "run_id": run.run_id, "user_id": self._user_id, **about}
        await self._may("on_trace_start", run.trace_id, **whose, metadata={}, during=run)

    async def tell(self, message: Message) -> None:
        run = self._run
        if run is None:
            return
        if message.role == "user":
            await self._must("on_user_message", self._session_id, message.text())
            await self._start_span(run, _MODEL, "chat", {})
        elif message.role == "tool":
            await self._tell_result(run, message)
        elif message.status is None:
            await self._tell_answer(run, message)
        else:
            run.answer = (message.text() or run.answer) if message.status == "interrupted" else None
            run.error = message.metadata.get("error")

    async def end(self, status: str | None) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        for key in list(run.spans):
            await self._end_span(run, key, _SPAN_STATUS[status], {})
        if run.answer is not None:
            await self._may("on_agent_message", self._session_id, run.answer, during=run)
        about = {"agent_name": self._agent_name, "model": run.model} | ({"error": run.error} if run.error else {})
        told = {
            "output_content": run.answer,
            "status": _RUN_STATUS[status],
            "metrics": run.metrics(),
            "metadata": about,
        }
        await self._may("on_run_end", self._session_id, run.run_id, **told, during=run)
        await self._may("on_trace_end", run.trace_id, status=_SPAN_STATUS[status], during=run)

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            await self._may("on_agent_end", self._session_id)

    # What the adapter knows

    async def _open(self) -> None:
        whose = {"agent_name": self._agent_name, "session_id": self._session_id, "user_id": self._user_id}
        told = await self._must("on_agent_start", **whose, metadata=self._metadata)
        try:
            earlier = await in_thread(_restored, told)
        except Exception as exc:
            raise self._failed("on_agent_start", exc) from exc
        if not self.history:
            self.history.extend(map(Entry.of, earlier))
        self._is_open = True

    # What it is told

    async def _tell_answer(self, run: _Run, message: Message) -> None:
        run.count(message)
        await self._end_span(run, _MODEL, "ok", {"model": message.model, **(message.usage or {})})
        if not message.calls():
            run.answer = message.text()
        for call in message.calls():
            name, arguments = called(call)
            run.calls[call["id"]] = name, arguments
            await self._start_span(run, call["id"], f"execute_tool {name}", {"tool": name, "call_id": call["id"]})

    async def _tell_result(self, run: _Run, message: Message) -> None:
        call_id = message.tool_call_id or ""
        name, arguments = run.calls.pop(call_id, (message.name or "", {}))
        await self._may("on_tool_call", self._session_id, name, arguments, message.text(), during=run)
        await self._end_span(run, call_id, _SPAN_STATUS.get(message.status, "ok"), {})
        if not run.calls:
            await self._start_span(run, _MODEL, "chat", {})

    async def _start_span(self, run: _Run, key: str, name: str, attributes: dict[str, Any]) -> None:
        run.spans[key] = _new_id("span")
        await self._may("on_span_start", run.spans[key], run.trace_id, name, attributes=attributes, during=run)

    async def _end_span(self, run: _Run, key: str, status: str, attributes: dict[str, Any]) -> None:
        if key in run.spans:
            await self._may("on_span_end", run.spans.pop(key), status=status, attributes=attributes, during=run)

    # How

    async def _must(self, name: str, *arguments: Any, **options: Any) -> Any:
        """What the hook returns; None if there is none. Raises `AdapterFailed`."""
        try:
            return await self._call(name, arguments, options)
        except Exception as exc:
            raise self._failed(name, exc) from exc

    async def _may(self, name: str, *arguments: Any, during: _Run | None = None, **options: Any) -> None:
        """The same where the answer is not to be lost: a failure becomes a warning."""
        try:
            await self._call(name, arguments, options)
        except Exception as exc:
            when = f"turn {during.run_id}" if during else "the end"
            warning = HookFailed(type(self._adapter).__name__, name, self._session_id, _why(exc), when)
            warning.__cause__ = exc
            warnings.warn(warning, stacklevel=1)

    def _failed(self, name: str, exc: Exception) -> AdapterFailed:
        return AdapterFailed(type(self._adapter).__name__, name, _why(exc))

    async def _call(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        hook = self._hook(name)
        if hook is None:
            return None
        try:
            return await _result(hook, arguments, options)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _OwnCancellation from exc  # nobody cancelled the turn

    def _hook(self, name: str) -> Callable[..., Any] | None:
        own, twin = (getattr(self._adapter, each, None) for each in (name, f"a{name}"))
        hook = twin if callable(twin) and (own is None or self._prefers_twins()) else own
        return hook if callable(hook) else None


class _OwnCancellation(RuntimeError):
    """A hook was cancelled by what it called."""


async def _result(hook: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if inspect.iscoroutinefunction(hook):
        return await hook(*arguments, **options)
    found = await in_thread(copy_context().run, _without_stop, hook, arguments, options)
    return await found if inspect.isawaitable(found) else found


def _without_stop(hook: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    try:
        return hook(*arguments, **options)
    except StopIteration as exc:
        raise RuntimeError("StopIteration, which no loop can pass on") from exc


def _why(exc: Exception) -> str:
    """The kind of an error that is not ours, but not its text, which may quote a message or a password."""
    return f"{type(exc).__name__}: {exc}" if isinstance(exc, PraisonError) else type(exc).__name__


def _new_id(kind: str) -> str:
    return f"{kind}-{os.urandom(6).hex()}"


# What an adapter returned, as messages


def _restored(told: Any) -> list[Message]:
    """Raises `InvalidMessage` for what is no message."""
    if told is None:
        return []
    if isinstance(told, (str, bytes, Mapping)):
        raise InvalidMessage(f"it returned {type(told).__name__}, not a list of messages")
    messages = [message for number, item in enumerate(told) for message in _messages(item, f"earlier_{number}")]
    for message in messages:
        check(message)
    return messages


def _messages(item: Any, new_id: str) -> Iterator[Message]:
    """One item: a message, or a tool call with its result as two."""
    told = _Told(item)
    row = _tool_row(told)
    if row is not None:
        told = row
    if told.role is None and told.tool_name is not None:
        yield from _tool_turn(told, new_id)
        return
    values = {name: getattr(told, name) for name in _FIELDS}
    values["tool_call_id"] = values["tool_call_id"] or _Told(told.metadata or {}).tool_call_id
    if values["status"] not in ("failed", "interrupted"):
        values["status"] = None
    yield Message.from_dict({name: value for name, value in values.items() if value is not None})


class _Told:
    """The fields of an item that may be an object or a dict; one that it lacks is None."""

    def __init__(self, item: Any) -> None:
        self._item = item

    def __getattr__(self, name: str) -> Any:
        item = self._item
        value = item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)
        return str.__str__(value) if isinstance(value, str) else value


def _tool_row(told: _Told) -> _Told | None:
    """The tool call of a message as PraisonAI's adapters keep one: of the role tool, with JSON instead of a call's id."""
    if told.role != "tool" or told.tool_call_id or not isinstance(told.content, str):
        return None
    try:
        row = json.loads(told.content)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("tool"), str):
        return None
    return _Told(
        {"tool_name": row["tool"], "args": row.get("args"), "result": row.get("result"), "run_id": told.run_id}
    )


def _tool_turn(told: _Told, new_id: str) -> Iterator[Message]:
    call_id = told.call_id or new_id
    function = {"name": told.tool_name, "arguments": as_json(told.args or {})}
    result, status = (told.error, "failed") if told.error else (told.result, None)
    call = {"id": call_id, "type": "function", "function": function}
    yield Message("assistant", None, tool_calls=[call], run_id=told.run_id)
    content = "" if result is None else as_json(result)
    yield Message("tool", content, tool_call_id=call_id, name=told.tool_name, run_id=told.run_id, status=status)
