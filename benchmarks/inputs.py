"""What is written in every case. Loads nothing, so that it can be used beside any library."""

from __future__ import annotations

ROLES = ("user", "assistant")
TEXT_BYTES = 200
_FILLER = "the quick brown fox jumps over the lazy dog and goes on to the river, "


def text(session_id: str, number: int) -> str:
    """200 ASCII bytes, different for every session and number."""
    start = f"{session_id} {number:07d} "
    return (start + _FILLER * 3)[:TEXT_BYTES]
