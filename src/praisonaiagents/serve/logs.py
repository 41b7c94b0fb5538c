"""What the server tells of what it does: one record a request and one a turn, with ids, and never what was said.

The records go to the logger "praisonaiagents.serve" with what they are in `record.event` and their fields in `record.fields`.
`JsonLines` writes each as one line of JSON, `Lines` for people. What a reader would get wrong: the path is the operation's,
such as /sessions/{session_id}, and the query is left out, because both may hold what a user typed. So may the text of an error,
and a record with `exc_info` has it written by whatever handler there is: an error is told by its kind and where it came from.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

log = logging.getLogger("praisonaiagents.serve")


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """`{"time", "level", "event", ...}`"""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event = getattr(record, "event", record.getMessage())
        fields: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "event": event}
        if record.exc_info and record.exc_info[1] is not None:
            fields["trace"] = trace_of(record.exc_info[1])
        return msgspec.json.encode(fields | getattr(record, "fields", {})).decode()


class Lines(logging.Formatter):
    """A record as one line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """`12:30:01 request status=200 ...`"""
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{when} {record.getMessage()}".encode("unicode_escape").decode("ascii")


def trace_of(error: BaseException) -> list[str]:
    """Where an error came from, without its text, which may quote a message."""
    import traceback

    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]


def tell(level: int, event: str, fields: dict[str, Any]) -> None:
    """Tell of something, in words too, for handlers that know nothing of fields. Of a trace they have the end."""
    if log.isEnabledFor(level):
        words = " ".join(f"{name}={value[-1:] if name == 'trace' else value}" for name, value in fields.items())
        log.log(level, "%s %s", event, words, extra={"event": event, "fields": fields})


def request_ended(fields: dict[str, Any], began: float) -> None:
    """Tell of a request."""
    tell(logging.INFO, "request", fields | {"ms": ms_since(began)})


def ms_since(began: float) -> float:
    """How long it took."""
    return round((time.monotonic() - began) * 1000, 1)
