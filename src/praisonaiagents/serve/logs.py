"""What the server tells of what it does: one record a request and one a turn, with ids, and never what was said.

The records go to the logger "praisonaiagents.serve" with their fields in `record.fields`. `JsonLines` writes each as one
line of JSON, `Lines` for people. What a reader would get wrong: the path is the operation's, such as /sessions/{session_id},
and the query is left out, because both may hold what a user typed.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from praisonaiagents.serve.turns import FAILED, Turn

log = logging.getLogger("praisonaiagents.serve")


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """`{"time", "level", "event", ...}`"""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            fields["trace"] = trace_of(record.exc_info[1])
        return msgspec.json.encode(fields | getattr(record, "fields", {})).decode()


class Lines(logging.Formatter):
    """A record as one line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """`12:30:01 request status=200 ...`"""
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        return f"{when} {record.getMessage()} {fields}".rstrip().encode("unicode_escape").decode("ascii")


def trace_of(error: BaseException) -> list[str]:
    """Where an error came from, without its text, which may quote a message."""
    import traceback

    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]


def request_ended(fields: dict[str, Any], began: float) -> None:
    """Tell of a request."""
    log.info("request", extra={"fields": fields | {"ms": _ms(began)}})


def turn_ended(turn: Turn) -> None:
    """Tell of a turn."""
    fields = {
        "turn": turn.id,
        "user": turn.key.user_id,
        "session": turn.key.session_id,
        "status": turn.status,
        "ms": _ms(turn.began),
    }
    if turn.error is not None:
        fields["error"] = type(turn.error).__name__
    log.log(logging.WARNING if turn.status == FAILED else logging.INFO, "turn", extra={"fields": fields})


def _ms(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
