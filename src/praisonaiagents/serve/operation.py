"""One thing that can be asked of the server: its path, what it takes, what it gives, and the function that does it.

The table of operations is both: what the server routes by and checks requests with, and what the OpenAPI document is made
from. So the document cannot say anything else than the server does.

What a reader would get wrong: path parameters arrive as they were sent. An id may hold a slash, so paths are matched while it
is still `%2F`, and it is decoded afterwards.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from praisonaiagents.errors import InvalidId
from praisonaiagents.model.ids import check_session_id
from praisonaiagents.model.record import conversation_key
from praisonaiagents.serve.callers import Caller
from praisonaiagents.serve.problems import Problem

if TYPE_CHECKING:
    from praisonaiagents.serve.service import Place

_MOST_FIELDS = 100
SESSION_ID = msgspec.Meta(
    description="1 to 1,024 bytes of UTF-8 without control characters",
    extra_json_schema={"minLength": 1, "maxLength": 1024, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"},
)
"""What the document says of a text that names a session. It is `check_session_id` that looks."""


class Operation(NamedTuple):
    """What can be asked.

    path: below the agent's own, with `{parameters}`. is_open: no token is needed.
    takes: the struct of its JSON body. sends: the media of a body that is no such struct. asks: the struct of its query.
    headers: those it looks at.
    gives: the struct of its answer, or None for anything else. media: of an answer that is not JSON.
    also: further statuses it answers with, besides those that every operation may answer with.
    complaint: what `detail` of the answer says where the body is not as it should be.
    tells: how it answers with an error; None: as all of them do. fails: the struct of such an answer.
    """

    method: str
    path: str
    do: Callable[[Ask], Awaitable[Any]]
    summary: str
    takes: Any = None
    asks: Any = None
    gives: Any = None
    status: int = 200
    also: tuple[int, ...] = ()
    headers: tuple[str, ...] = ()
    sends: tuple[str, ...] = ()
    is_open: bool = False
    media: tuple[str, ...] = ()
    complaint: str | None = None
    tells: Callable[[Problem], Response] | None = None
    fails: Any = None


class Ask:
    """One request, as an operation sees it: `place` is the agent and the store, `user_id` whose sessions are meant."""

    def __init__(self, request: Request, place: Place, caller: Caller) -> None:
        self.request = request
        self.place = place
        self.caller = caller
        self.body: Any = None
        self.query: Any = None
        self.told: dict[str, Any] = {}
        """What the log is told of the request besides: ids, never what was said."""

    @property
    def user_id(self) -> str:
        """Whose sessions are meant."""
        return self.caller.user_id

    @property
    def session_id(self) -> str:
        """The session in the path. Raises `InvalidId`."""
        session_id = check_session_id(self.parameter("session_id"))
        conversation_key(session_id, self.user_id)
        return session_id

    def parameter(self, name: str) -> str:
        """A part of the path, decoded. Raises `InvalidId`."""
        try:
            return unquote(self.request.path_params[name], errors="strict")
        except UnicodeDecodeError as exc:
            raise InvalidId("a part of the path is percent-encoded UTF-8") from exc

    def header(self, name: str) -> str | None:
        """A header, without blanks around it; None if there is none."""
        value = self.request.headers.get(name)
        return value.strip() if value is not None and value.strip() else None

    def wants_events(self) -> bool:
        """True if the caller can read a stream of events, and nothing else."""
        return "text/event-stream" in self.request.headers.get("accept", "")

    async def read(self, operation: Operation) -> None:
        """Take in the query and the body. Raises `Problem`."""
        if operation.asks is not None:
            self.query = _converted(dict(self.request.query_params), operation.asks, "the query", strict=False)
        if operation.takes is not None:
            try:
                values, is_form = await _values(self.request)
                self.body = _converted(values, operation.takes, "the body", strict=not is_form)
            except Problem as problem:
                if problem.status == 400 and operation.complaint:
                    problem.more["detail"] = operation.complaint
                raise


async def _values(request: Request) -> tuple[Any, bool]:
    """What a body holds, and whether it is a form, in which everything is text. Raises `Problem`."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    data = await request.body()
    if kind == "application/x-www-form-urlencoded":
        from urllib.parse import parse_qsl

        try:
            fields = parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError as exc:
            raise Problem(400, f"a form has at most {_MOST_FIELDS} fields") from exc
        return dict(fields), True
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem(415, "the body is JSON: send it with Content-Type: application/json", "UnsupportedMediaType")
    try:
        return msgspec.json.decode(data) if data.strip() else {}, False
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Problem(400, "the body is not JSON", "InvalidJSON") from exc


def _converted(values: Any, kind: Any, what: str, *, strict: bool = True) -> Any:
    try:
        return msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as exc:
        raise Problem(400, f"{what} is not as it should be: {exc}", "BadRequest") from exc
