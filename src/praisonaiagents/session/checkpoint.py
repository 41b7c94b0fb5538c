"""A compaction checkpoint: the summary that stands for a session's oldest messages when history goes to a model.

It lies in the session's record (`extra["last_compaction"]`) and points back: the messages it stands for stay where they are,
and number `number` is the first that it does not stand for. It is made of parts, each the summary of consecutive messages.
What a reader would get wrong: a part is never made from another part, always from messages. So a session may be compacted
any number of times and nothing is told at third hand.

A checkpoint of PraisonAI, or one of `append_compaction_checkpoint`, is one text without parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from praisonaiagents.model.record import Record

CHECKPOINT = "last_compaction"
HEADING = "[Summary of the conversation so far]"


class Part(msgspec.Struct, frozen=True):
    """The summary of messages number `first` to `stop` (exclusive), whose ids are `first_id` to `last_id`.

    An id is "" where it is not known. A number is negative where the session came here from another place without them.
    """

    summary: str
    first: int
    stop: int
    first_id: str = ""
    last_id: str = ""


class Checkpoint(msgspec.Struct, frozen=True):
    """What a model is told in place of all messages before number `number`.

    parts: oldest first. first_id: of the first message it stands for, "" if that is not known.
    """

    number: int
    text: str
    role: str = "system"
    parts: tuple[Part, ...] = ()
    first_id: str = ""

    def to_chat(self) -> dict[str, Any]:
        """The summary as a message."""
        return {"role": self.role, "content": self.text}


def checkpoint_of(record: Record | None) -> Checkpoint | None:
    """The checkpoint of a session. None if it has none, or one that makes no sense: anybody may edit a file."""
    values = record.extra.get(CHECKPOINT) if record else None
    if record is None or not isinstance(values, dict):
        return None
    text, role, first_id = (values.get(name) for name in ("summary", "role", "first_message_id"))
    number = _number(values, record)
    if not isinstance(text, str) or not text.strip() or not 0 <= number <= record.length:
        return None
    return Checkpoint(
        number,
        text,
        role if isinstance(role, str) else "system",
        tuple(_parts(values.get("parts"), number)),
        first_id if isinstance(first_id, str) else "",
    )


def written(parts: Sequence[Part], **more: Any) -> dict[str, Any]:
    """The value of `extra["last_compaction"]` that `checkpoint_of` reads. more: further fields.

    For PraisonAI, which counts from the first visible message, `message_index` is to be added.
    """
    return {
        "summary": "\n\n".join([HEADING, *(part.summary for part in parts)]),
        "role": "user",  # what users and tools said gains no authority by being summed up
        "message_number": parts[-1].stop,
        "first_message_id": parts[0].first_id,
        "last_message_id": parts[-1].last_id,
        "parts": [msgspec.to_builtins(part) for part in parts],
        **more,
    }


def _number(values: dict[str, Any], record: Record) -> int:
    number, index = values.get("message_number"), values.get("message_index")
    if type(number) is int:
        return number
    return record.start + (index if type(index) is int else 0)


def _parts(values: object, number: int) -> list[Part]:
    """The parts, or none if they are not what the number says."""
    try:
        parts = msgspec.convert(values or [], list[Part])
    except msgspec.ValidationError:
        return []
    sound = all(part.first < part.stop and part.summary.strip() for part in parts)
    return parts if parts and sound and parts[-1].stop == number else []
