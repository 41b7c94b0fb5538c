"""The turns of a session, as runs and traces: made from its messages each time, because these hold all of it already.

What a reader would get wrong: nothing is kept for them, so they never grow, and they are there for turns of any agent, on
any engine, also of long ago. Times are those at which a message was stored: a tool's time is from the answer that called it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from praisonaiagents.model.message import Message
from praisonaiagents.session.dbadapter import DbMessage, DbRun, DbSpan, DbToolCall, DbTrace

_STATUS = {"failed": "error", "interrupted": "cancelled"}


def runs(messages: Iterable[Message], session_id: str, agent_name: str | None) -> list[DbRun]:
    """The turns, oldest first. A message without a run id belongs to none."""
    turns: dict[str, list[Message]] = {}
    for message in messages:
        if message.run_id:
            turns.setdefault(message.run_id, []).append(message)
    return [_run(run_id, turn, session_id, agent_name) for run_id, turn in turns.items()]


def trace(run: DbRun, user_id: str) -> DbTrace:
    """The steps of a turn: a span for each answer of the model and each tool call."""
    trace_id = run.run_id.replace("run-", "trace-", 1)
    return DbTrace(
        trace_id,
        *(run.session_id, run.run_id, run.agent_name, user_id, run.started_at, run.ended_at),
        status=_trace_status(run.status),
        spans=_spans(run, trace_id),
        metadata=run.metadata,
    )


def to_db(message: Message) -> DbMessage:
    """A stored message as adapters tell of it."""
    return DbMessage(
        role=message.role,
        content=message.content,
        metadata=message.metadata,
        timestamp=message.timestamp,
        id=message.id,
        tool_calls=message.tool_calls,
        run_id=message.run_id,
        tool_call_id=message.tool_call_id,
        name=message.name,
        status=message.status,
        model=message.model,
        usage=message.usage,
    )


def as_json(value: Any) -> str:
    """Text as it is, and anything else as JSON; what JSON does not know becomes text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def called(call: dict[str, Any]) -> tuple[str, Any]:
    """(name, arguments) of a tool call. Arguments that are no JSON are the text they are."""
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments") or {}
    with suppress(ValueError):
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return str(function.get("name") or ""), arguments


def _run(run_id: str, turn: Sequence[Message], session_id: str, agent_name: str | None) -> DbRun:
    status = _status(turn[-1])
    answers = [message for message in turn if message.role == "assistant" and message.text()]
    return DbRun(
        run_id=run_id,
        session_id=session_id,
        agent_name=agent_name,
        started_at=turn[0].timestamp,
        ended_at=None if status == "running" else turn[-1].timestamp,
        status=status,
        input_content=turn[0].text() if turn[0].role == "user" else None,
        output_content=answers[-1].text() if answers and status in ("completed", "cancelled") else None,
        messages=[to_db(message) for message in turn],
        tool_calls=_tool_calls(turn),
        metrics=_metrics(turn),
    )


def _status(last: Message) -> str:
    if last.status in _STATUS:
        return _STATUS[last.status]
    return "completed" if last.role == "assistant" and not last.calls() else "running"


def _tool_calls(turn: Sequence[Message]) -> list[DbToolCall]:
    """Those that have a result, as they finished."""
    calls = {call["id"]: (message.timestamp, call) for message in turn for call in message.calls()}
    done = []
    for message in turn:
        began, call = calls.get(message.tool_call_id or "", (message.timestamp, {}))
        if message.role == "tool":
            failed = message.status == "failed"
            took_ms = max(0.0, (message.timestamp - began) * 1000)
            text = message.text()
            done.append(
                DbToolCall(
                    *(message.name or "", called(call)[1], None if failed else text, message.tool_call_id),
                    timestamp=message.timestamp,
                    duration_ms=took_ms,
                    error=text if failed else None,
                )
            )
    return done


def _metrics(turn: Sequence[Message]) -> dict[str, int]:
    used = [message.usage for message in turn if message.usage]
    counts = {name: sum(_count(usage, name) for usage in used) for name in ("input_tokens", "output_tokens")}
    return {**counts, "total_tokens": sum(counts.values()), "requests": len(used)} if used else {}


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0


def _trace_status(status: str) -> str:
    return "ok" if status == "completed" else status


def _spans(run: DbRun, trace_id: str) -> list[DbSpan]:
    spans: list[DbSpan] = []
    before = run.started_at
    for message in run.messages:
        if message.role == "assistant":
            spans.append(_span(message, trace_id, "chat", before, {"model": message.model, **(message.usage or {})}))
        elif message.role == "tool":
            call = next((call for call in run.tool_calls if call.call_id == message.tool_call_id), None)
            took_s = (call.duration_ms or 0.0) / 1000 if call else 0.0
            told = {"tool": message.name, "call_id": message.tool_call_id}
            name = f"execute_tool {message.name}"
            spans.append(_span(message, trace_id, name, message.timestamp - took_s, told))
        before = message.timestamp
    return spans


def _span(message: DbMessage, trace_id: str, name: str, began: float, attributes: dict[str, Any]) -> DbSpan:
    status = _STATUS.get(message.status or "", "ok")
    span_id = f"span-{message.id or ''}"
    return DbSpan(span_id, trace_id, name, began, message.timestamp, status=status, attributes=attributes)
