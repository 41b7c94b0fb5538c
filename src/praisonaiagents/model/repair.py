"""What a language model will accept of a stored history.

A process killed between a tool call and its result leaves a history that every provider refuses, for ever. The store keeps
what happened; this function makes what is sent. It changes nothing in the store, is deterministic (a provider's prompt
cache stays warm) and idempotent:

- a turn marked failed is left out;
- the results of an assistant's calls directly follow it, in the order of the calls, wherever they were stored;
- a call without a result gets one that says it was interrupted;
- a result without a call, a second result for one call, and an assistant message with nothing in it are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from praisonaiagents.model.message import Message

INTERRUPTED_RESULT = "The tool call was interrupted: no result was recorded."


def repair(messages: Sequence[Message]) -> list[Message]:
    """The messages a model can be sent, oldest first."""
    kept = [message for message in _without_failed_turns(messages) if _has_something(message)]
    results = _match_results(kept)
    repaired: list[Message] = []
    for index, message in enumerate(kept):
        if message.role == "tool":
            continue
        repaired.append(message)
        for position, call in enumerate(message.calls()):
            repaired.append(results.get((index, position)) or _interrupted(message, call))
    return repaired


def _without_failed_turns(messages: Sequence[Message]) -> list[Message]:
    failed = {message.run_id for message in messages if message.status == "failed" and message.role != "tool"}
    return [
        message
        for message in messages
        if not (message.run_id in failed if message.run_id else message.status == "failed" and message.role != "tool")
    ]


def _has_something(message: Message) -> bool:
    return message.role != "assistant" or bool(message.content) or bool(message.calls())


def _match_results(messages: Sequence[Message]) -> dict[tuple[int, int], Message]:
    """(index of the assistant message, position of its call) -> the first result that answers that call."""
    waiting: dict[str | None, list[tuple[int, int]]] = {}
    matched: dict[tuple[int, int], Message] = {}
    for index, message in enumerate(messages):
        if message.role == "tool":
            places = waiting.get(message.tool_call_id)
            if places:
                matched[places.pop(0)] = message
            continue
        reused: dict[str | None, list[tuple[int, int]]] = {}
        for position, call in enumerate(message.calls()):
            reused.setdefault(call["id"], []).append((index, position))
        waiting |= reused  # a later call that reuses an id is the one a later result answers
    return matched


def _interrupted(message: Message, call: dict[str, Any]) -> Message:
    function = call.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return msgspec.structs.replace(
        Message(role="tool", content=INTERRUPTED_RESULT, tool_call_id=call["id"], status="interrupted"),
        name=name if isinstance(name, str) else None,
        timestamp=message.timestamp,
        run_id=message.run_id,
    )
