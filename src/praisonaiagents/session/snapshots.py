"""Snapshots: the pins of a session's record that people made, and those that PraisonAI noted.

What a reader would get wrong: PraisonAI's snapshots are an index into what the session shows, which means something else as
soon as messages are taken back or let go. So whoever is about to do that first makes pins of them, see `adopted`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from praisonaiagents.model.record import Pin, Record

SNAPSHOT = "snapshot:"  # begins the names of their pins
_LISTED = "snapshots"  # in `Record.extra`: PraisonAI's


class SessionSnapshot(msgspec.Struct, frozen=True):
    """A moment of a session that can be gone back to.

    message_index: of the last message it shows, -1 if there is none. created_at: seconds since 1970, UTC.
    """

    id: str
    session_id: str = ""
    message_index: int = 0
    created_at: float = 0.0
    label: str | None = None
    metadata: dict[str, Any] = {}


def snapshots_of(record: Record) -> list[SessionSnapshot]:
    """The snapshots of a session, the oldest first."""
    return [
        SessionSnapshot(
            name,
            record.session_id,
            pin.length - pin.start - 1,
            seconds(pin.info, "created_at"),
            label if isinstance(label := pin.info.get("label"), str) else None,
            metadata if isinstance(metadata := pin.info.get("metadata"), dict) else {},
        )
        for name, pin in snapshot_pins(record).items()
    ]


def snapshot_pins(record: Record) -> dict[str, Pin]:
    """The snapshots by id. Those of PraisonAI are an index, which means what it says until messages are taken back."""
    own = {name.removeprefix(SNAPSHOT): pin for name, pin in record.pins.items() if name.startswith(SNAPSHOT)}
    listed = record.extra.get(_LISTED)
    found: dict[str, Pin] = {}
    for values in listed if isinstance(listed, list) else ():
        if isinstance(values, dict) and isinstance(values.get("id"), str) and type(values.get("message_index")) is int:
            point = up_to(record, values["message_index"])
            info = {name: values.get(name) for name in ("label", "created_at", "metadata")}
            if point is None and values["message_index"] == -1:
                point = Pin(record.log, record.start, record.start)
            if point is not None:
                found[values["id"]] = Pin(point.log, point.start, point.length, info)
    return found | own


def adopted(record: Record) -> dict[str, Any]:
    """What to change in a record so that PraisonAI's snapshots are pins; nothing if there are none."""
    if not isinstance(record.extra.get(_LISTED), list):
        return {}
    pins = {SNAPSHOT + name: pin for name, pin in snapshot_pins(record).items()}
    rest = {name: value for name, value in record.extra.items() if name != _LISTED}
    return {"pins": pins | record.pins, "extra": rest}


def up_to(record: Record, index: int) -> Pin | None:
    """What the session shows up to a message, that one included; None if there is no such message."""
    if type(index) is not int or not 0 <= index < record.message_count:
        return None
    return Pin(record.log, record.start, record.start + index + 1)


def seconds(info: Mapping[str, Any], name: str) -> float:
    """A time in a pin's info; 0.0, which means unknown, for what is none."""
    value: Any = info.get(name)
    return float(value) if type(value) in (int, float) and 0 <= value < _YEAR_9999_S else 0.0


_YEAR_9999_S = 253_370_764_800
