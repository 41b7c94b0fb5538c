"""What goes wrong in a request, as its answer: a status, words that hold nothing private, and the kind of error.

    {"error": "no such session", "type": "SessionNotFound"}

What a reader would get wrong: a session of somebody else and one that does not exist are answered by the very same bytes. And
what the storage says of its paths and servers goes to the log, not to the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from praisonaiagents import errors
from praisonaiagents.serve.logs import tell, trace_of

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.SessionNotFound, 404),
    (errors.PointNotFound, 404),
    (errors.SessionExists, 409),
    (errors.Conflict, 409),
    (errors.MergeRefused, 409),
    (errors.MessageTooLarge, 413),
    (errors.MessageIdConflict, 422),
    (errors.InvalidId, 400),
    (errors.InvalidMessage, 400),
    (errors.ConfigError, 400),
    (errors.StorageFull, 507),
    (errors.LockTimeout, 503),
    (errors.EngineUnreachable, 503),
    (errors.OutcomeUnknown, 503),
)
_PRIVATE = "the sessions cannot be read or written now"


class Problem(Exception):
    """A request that is answered with an error. headers: of the answer. more: further keys of it."""

    def __init__(
        self,
        status: int,
        text: str,
        kind: str = "BadRequest",
        *,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.kind = kind
        self.headers = dict(headers or {}) | ({} if retry_after_s is None else {"Retry-After": str(retry_after_s)})
        self.more = more


def problem_of(error: Exception) -> Problem:
    """An error as its answer. What is nobody's business but the server's is logged."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ClientDisconnect):
        return Problem(499, "the caller is gone", "Gone")
    if isinstance(error, errors.SessionNotFound):
        return Problem(404, "no such session", type(error).__name__)
    status = _status_of(error)
    return Problem(status, str(error), type(error).__name__) if status < 500 else fault_of(error)


def fault_of(error: Exception) -> Problem:
    """An error that the caller has no part in, as its answer. It is logged."""
    status = max(500, _status_of(error))
    kind = type(error).__name__ if isinstance(error, errors.PraisonError) else "InternalError"
    told: dict[str, Any] = {"error": kind, "why": why(error)} | ({"trace": trace_of(error)} if status == 500 else {})
    tell(logging.ERROR, "failed", told)
    text = _PRIVATE if isinstance(error, (OSError, errors.OutcomeUnknown)) else "the server failed"
    if isinstance(error, errors.StorageFull):
        text = "the server has no room left for sessions; what was stored before is there"
    return Problem(status, text, kind, retry_after_s=1 if status == 503 else None)


def why(error: BaseException) -> str:
    """An error for the log. Only our own are quoted: those of others may hold a message or a key."""
    return str(error) if isinstance(error, errors.PraisonError) else type(error).__name__


def _status_of(error: Exception) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def respond(problem: Problem) -> Response:
    """The answer to a request that went wrong."""
    return as_json(
        {"error": problem.text, "type": problem.kind} | problem.more, status=problem.status, headers=problem.headers
    )


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as a JSON answer."""
    return Response(msgspec.json.encode(value), status, dict(headers or {}), media_type="application/json")
