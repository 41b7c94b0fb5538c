"""Which messages still fit: the last N, with tool calls and their results never torn apart.

A language model refuses a result whose call it cannot see, so a window that would start between the two starts later. It
is therefore at most N messages, sometimes fewer.
"""

from __future__ import annotations

from collections.abc import Sequence

from praisonaiagents.model.message import Message


def window_start(messages: Sequence[Message], size: int) -> int:
    """Index of the first of the last `size` messages such that no pair is torn; `len(messages)` if none fits."""
    start = max(0, len(messages) - size)
    pairs = _pairs(messages)
    while start < len(messages):
        torn = [result for call, result in pairs if call < start <= result]
        if torn:
            start = max(torn) + 1
        elif messages[start].role == "tool":
            start += 1
        else:
            return start
    return len(messages)


def window(messages: Sequence[Message], size: int | None) -> list[Message]:
    """The last `size` messages, fewer where a tool call would lose its result. None means all."""
    return list(messages) if size is None else list(messages[window_start(messages, size) :])


def retention_start(messages: Sequence[Message], size: int) -> int:
    """Index of the first message to keep when a session is bounded to `size` messages.

    Whole turns go, oldest first. Only a last turn that alone exceeds `size` is cut inside, between its tool calls; its
    last message always stays, and with a result its call.
    """
    if len(messages) <= size:
        return 0
    pairs = _pairs(messages)
    for start in range(len(messages) - size, len(messages)):
        if messages[start].role == "user" and not any(call < start <= result for call, result in pairs):
            return start
    start = window_start(messages, size)
    if start < len(messages):
        return start
    start = len(messages) - 1
    while torn := [call for call, result in pairs if call < start <= result]:
        start = min(torn)
    return start


def lacks_call(messages: Sequence[Message]) -> bool:
    """True if a result inside the list answers a call from before the list. Results at its very start do not count."""
    results = [index for index, message in enumerate(messages) if message.role == "tool"]
    if not results:
        return False
    answered = {result for _, result in _pairs(messages)}
    return any(index not in answered for place, index in enumerate(results) if index > place)


def turn_starts(messages: Sequence[Message]) -> list[int]:
    """Indexes of the user messages that no tool call reaches across to its result."""
    reach = dict(_pairs(messages))  # the last result of each call
    starts: list[int] = []
    last_result = -1
    for index, message in enumerate(messages):
        if message.role == "user" and index > last_result:
            starts.append(index)
        last_result = max(last_result, reach.get(index, -1))
    return starts


def without_strays(messages: Sequence[Message]) -> list[Message]:
    """The messages without the tool results whose call is not among them."""
    answers = {result for _, result in _pairs(messages)}
    return [message for index, message in enumerate(messages) if message.role != "tool" or index in answers]


def before_open_calls(messages: Sequence[Message], start: int) -> int:
    """`start`, or the last index before it from which on all calls of the last turn that wait for results are there.

    Like `start`, it parts no call from its result.
    """
    pairs = _pairs(messages)
    answered = {(call, messages[result].tool_call_id) for call, result in pairs}
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user":
            break
        if any((index, call["id"]) not in answered for call in messages[index].calls()):
            start = min(start, index)
    while torn := [call for call, result in pairs if call < start <= result]:
        start = min(torn)
    return start


def _pairs(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """(index of the call, index of its result) for every tool result whose call is in the list."""
    open_calls: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    for index, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id in open_calls:
                pairs.append((open_calls[message.tool_call_id], index))
        elif message.tool_calls:
            open_calls |= {call["id"]: index for call in message.calls()}
    return pairs
