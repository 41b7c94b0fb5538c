"""A session whose agent runs on another machine: turns, streams, history and sessions over HTTP.

A turn is sent with an idempotency key of its own. If the connection breaks in the middle of a stream, the stream goes on behind
the last event that came; if the server was restarted and does not know the turn any more, the turn is asked for again with the
same key, and what was yielded already is left out.

What a reader would get wrong: leaving a turn early stops it on the server, as with a local agent, but running out of time does
not: the error carries the key, with which `chat` gets the answer later.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import httpx2

from praisonaiagents.agent.connection import EVENTS, LIMIT_BYTES, Connection, Failed, Patience, decoded
from praisonaiagents.errors import (
    ConfigError,
    ConfigTypeError,
    InvalidMessage,
    RemoteError,
    RemoteRefused,
    RemoteUnsupported,
)
from praisonaiagents.session.uncut import uncut

_PAGE = 100
_STOP_S = 5.0
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_LONGEST_NAME = 1000  # characters of what a server calls a turn or a place in a list
_NAME = re.compile(rf"[\x21-\x7e]{{1,{_LONGEST_NAME}}}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_SET_BY_US = ("query", "session_id", "user_id", "stream")


class RemoteSession:
    """One session of one user, seen from here.

    All of it raises `RemoteError` and its children when the agent cannot be asked.
    """

    def __init__(
        self,
        url: str,
        session_id: str,
        user_id: str,
        headers: Mapping[str, str] | None,
        token: str | None,
    ) -> None:
        self.connection = Connection(url, user_id, headers, token)
        self._who = {"session_id": session_id, "user_id": user_id}
        self._path = f"/sessions/{_segment(session_id)}"

    def wait_for(self, timeout_s: float | None) -> None:
        """How long an answer, or the next piece of one, is waited for; None: for ever."""
        if timeout_s == 0:
            raise ConfigError("timeout of a remote session is a number of seconds above 0, or None")
        self.connection.timeout_s = timeout_s

    async def reach(self) -> None:
        """Ask whether the agent is there. What it can do is known afterwards."""
        try:
            await self.connection.probe()
        except BaseException:
            self.close()
            raise

    async def chat(self, message: str, settings: dict[str, Any], key: str | None = None) -> str:
        """The answer to a message."""
        turn = self._turn(message, settings, key)
        try:
            return _response_of(await self.connection.answer("POST", "", content=turn.content, key=turn.key))
        except asyncio.CancelledError:
            await uncut(self._stop(turn))
            raise

    async def stream(self, message: str, settings: dict[str, Any], key: str | None = None) -> AsyncGenerator[str, None]:
        """The answer's pieces as they come, none twice and none lost."""
        turn = self._turn(message, settings, key)
        try:
            async with aclosing(self._pieces(turn)) as pieces:
                async for piece in pieces:
                    yield piece
        except (asyncio.CancelledError, GeneratorExit):
            await uncut(self._stop(turn))
            raise

    async def emit(
        self, emit: Callable[[str], None], message: str, settings: dict[str, Any], key: str | None = None
    ) -> None:
        """`stream`, each piece passed to `emit`."""
        async with aclosing(self.stream(message, settings, key)) as pieces:
            async for piece in pieces:
                emit(piece)

    async def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The last messages, oldest first. limit: None means all. Empty if there is no such session."""
        try:
            pages = await self._pages(f"{self._path}/messages", "messages", limit, asked_by="before", told_by="before")
        except RemoteRefused as exc:
            if exc.status == 404:
                return []
            raise
        found = [message for page in reversed(pages) for message in page]
        return found if limit is None else found[max(0, len(found) - limit) :]

    async def sessions(self, limit: int | None = 50) -> list[dict[str, Any]]:
        """The user's sessions, the one changed last first. limit: None means all."""
        pages = await self._pages("/sessions", "sessions", limit, asked_by="after", told_by="next")
        return [row for page in pages for row in page][:limit]

    async def info(self) -> dict[str, Any] | None:
        """What the server knows of the session: title, agent, counts, times. None if there is no such session."""
        self._check_shown()
        try:
            found = decoded(await self.connection.answer("GET", self._path))
        except RemoteRefused as exc:
            if exc.status == 404:
                return None
            raise
        if not isinstance(found, dict):
            raise self.connection.failed("its answer is no session").error
        return found

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self.connection.close()

    async def aclose(self) -> None:
        """`close` on the running loop."""
        await self.connection.aclose()

    # Inside

    def _turn(self, message: Any, settings: dict[str, Any], key: str | None) -> _Turn:
        if not isinstance(message, str):
            raise ConfigTypeError(f"a message to a remote agent is text, not {type(message).__name__}")
        if not message.strip():
            raise ConfigError("the prompt is empty: say something")
        taken = [name for name in _SET_BY_US if name in settings]
        if taken:
            raise ConfigError(f"{taken[0]}= is set by the remote session itself")
        return _Turn(_content({"query": message, **self._who, **settings}), _checked_key(key), self.connection)

    async def _pieces(self, turn: _Turn) -> AsyncGenerator[str, None]:
        patience = Patience(self.connection.timeout_s)
        while not turn.over:
            try:
                async with aclosing(self._events(turn)) as events:
                    while not turn.over:
                        async with self.connection.in_time("nothing more from", patience, turn.key):
                            event = await anext(events)
                        piece = turn.take(event)
                        if piece:
                            yield piece
                            patience = Patience(self.connection.timeout_s)  # not before: the caller takes its own time
                        patience.renew(self.connection.timeout_s)
            except Failed as failed:
                if not (turn.can_go_on(failed) and await patience.pause(failed, was_there=turn.begun)):
                    raise self.connection.with_key(failed.error, turn.key if turn.begun else None)  # noqa: B904

    async def _events(self, turn: _Turn) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        """What one connection brings. Raises `Failed`, also where it ends before the turn does."""
        async with self._opened(turn) as response:
            if _is_stream(response):
                response.encoding = "utf-8"  # events always are, whatever is said
                async for event in httpx2.EventSource(response, LIMIT_BYTES):
                    yield event
                raise self.connection.failed("the connection broke in the middle of an answer")
            answer = _response_of(await self.connection.whole(response))
            yield httpx2.ServerSentEvent("done", json.dumps({"response": answer}))

    @asynccontextmanager
    async def _opened(self, turn: _Turn) -> AsyncGenerator[httpx2.Response, None]:
        """The turn's events: of a new one from the first, of one under way from where it was left."""
        if turn.id is not None:
            path, last = f"/turns/{_segment(turn.id)}", turn.last_event
            request = self.connection.attempt("GET", path, accept=EVENTS, after=last)
        else:
            request = self.connection.attempt("POST", "", content=turn.content, accept=EVENTS, key=turn.key)
        async with request as response:
            await self.connection.check(response)
            yield response

    async def _stop(self, turn: _Turn) -> None:
        """Nobody waits for the answer any more. Who has left does not want to hear of a failure."""
        needed = {"resume"} if turn.id else {"resume", "idempotency"}
        if turn.over or not needed <= self.connection.features:
            return
        with suppress(Exception):
            async with asyncio.timeout(_STOP_S):
                if turn.id is None:
                    await self._find(turn)
                await self.connection.answer("DELETE", f"/turns/{_segment(turn.id or '')}")

    async def _find(self, turn: _Turn) -> None:
        """Ask with the same key for the turn's events; the first tells its id."""
        async with aclosing(self._events(turn)) as events:
            while turn.id is None:
                turn.take(await anext(events))

    async def _pages(
        self, path: str, what: str, limit: int | None, *, asked_by: str, told_by: str
    ) -> list[list[dict[str, Any]]]:
        """All pages up to the limit. asked_by: the parameter that asks for the next one; told_by: the field that tells it."""
        _check_limit(limit)
        self._check_shown()
        pages: list[list[dict[str, Any]]] = []
        left, at = limit, None
        while left is None or left > 0:
            params = {"limit": str(_PAGE if left is None else min(left, _PAGE))}
            body = decoded(
                await self.connection.answer("GET", path, params=params | ({asked_by: str(at)} if at else {}))
            )
            rows = body.get(what) if isinstance(body, dict) else None
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise self.connection.failed(f"its answer has no {what}").error
            pages.append(rows)
            left = None if left is None else left - len(rows)
            before, at = at, body.get(told_by)
            if not rows or not at or at == before:
                break
            if len(str(at)) > _LONGEST_NAME:
                raise self.connection.failed(f"its answer does not say where more {what} are").error
        return pages

    def _check_shown(self) -> None:
        if "sessions" not in self.connection.features:
            shown = self.connection.shown
            raise RemoteUnsupported(
                f"the agent at {shown} does not show its sessions; only chat and stream work with it", shown
            )


class _Turn:
    """One message, and how far its answer has come. `id`: as the server calls the turn; None: it has not said yet."""

    def __init__(self, content: bytes, key: str, connection: Connection) -> None:
        self.content = content
        self.key = key
        self.id: str | None = None
        self.over = False
        self.begun = False
        self._connection = connection
        self._number = 0  # of the last event
        self._yielded = ""  # before the turn was asked for again
        self._pieces: list[str] = []
        self._length = 0  # of the pieces

    @property
    def last_event(self) -> str | None:
        """What came last, as the server calls it."""
        return f"{self.id}.{self._number}" if self._number else None

    def take(self, event: httpx2.ServerSentEvent) -> str:
        """The text that an event adds to the answer, as far as it was not yielded before."""
        self.begun = True
        if self._is_known(event.id):
            return ""
        data = decoded(event.data)
        if not isinstance(data, dict):
            return ""
        if event.event == "turn":
            self.id = self._checked_id(data.get("turn_id"))
        elif event.event == "text":
            return self._new(str(data.get("text", "")))
        elif event.event == "done":
            return self._end(str(data.get("response", "")))
        elif event.event == "error":
            self.over = True
            raise self._connection.with_key(self._connection.told(data), self.key)
        return ""

    def can_go_on(self, failed: Failed) -> bool:
        """True if the rest of the answer can be asked for, and nothing happens twice."""
        self.begun = self.begun or failed.begun
        features = self._connection.features
        if self.id is not None and ("resume" not in features or failed.error.status == 404):
            self._begin_again()
            return "idempotency" in features
        return self._connection.may_repeat(failed, reading=self.id is not None)

    def _begin_again(self) -> None:
        """The server does not know the turn any more: what comes now comes from its beginning."""
        if self._length > len(self._yielded):
            self._yielded = "".join(self._pieces)
        self.id, self._number, self._pieces, self._length = None, 0, [], 0

    def _is_known(self, event_id: str) -> bool:
        """True for an event that came already. Raises if one is missing before it."""
        number = event_id.rpartition(".")[2]
        if not _NUMBER.fullmatch(number):
            return False
        if int(number) > self._number + 1:
            raise self._broken("a piece of its answer was lost")
        known = int(number) <= self._number
        self._number = max(self._number, int(number))
        return known

    def _checked_id(self, turn_id: Any) -> str:
        if not (isinstance(turn_id, str) and _NAME.fullmatch(turn_id)):
            raise self._broken("it does not say which turn this is")
        return turn_id

    def _new(self, piece: str) -> str:
        known = self._yielded[self._length : self._length + len(piece)]
        if not piece.startswith(known):
            raise self._broken("it was restarted, and answers in other words now than it began with")
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length > LIMIT_BYTES:
            raise self._broken(f"its answer is larger than {LIMIT_BYTES // 1024**2} MB")
        return piece[len(known) :]

    def _end(self, response: str) -> str:
        rest = "" if self._pieces else self._new(response)
        if self._length < len(self._yielded):
            raise self._broken("it was restarted, and answers in other words now than it began with")
        self.over = True
        return rest

    def _broken(self, what: str) -> RemoteError:
        return self._connection.with_key(self._connection.failed(what).error, self.key)


def _segment(name: str) -> str:
    """A name as one part of a path, also where it is `..` or holds a slash."""
    return quote(name, safe="").replace(".", "%2E")


def _is_stream(response: httpx2.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == EVENTS


def _content(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as exc:
        raise InvalidMessage("a message cannot contain half a character (a lone surrogate)") from exc
    except (TypeError, RecursionError) as exc:
        raise ConfigTypeError("what is passed on to a remote agent is JSON: texts, numbers, lists and dicts") from exc
    except ValueError as exc:
        raise ConfigError("what is passed on to a remote agent is JSON, which has no NaN, infinity or circles") from exc


def _response_of(body: str) -> str:
    """The answer in a body: its `response`; the body itself where it is no such object."""
    value = decoded(body)
    if isinstance(value, dict) and value.get("response") is not None:
        return str(value["response"])
    return body if value is None else str(value)


def _checked_key(key: Any) -> str:
    if key is None:
        return os.urandom(16).hex()
    if not isinstance(key, str):
        raise ConfigTypeError(f"idempotency_key is text, not {type(key).__name__}")
    if not _KEY.fullmatch(key) or key != key.strip():
        raise ConfigError("idempotency_key is 1 to 255 characters of printable ASCII")
    return key


def _check_limit(limit: Any) -> None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
        raise ConfigTypeError(f"limit is a number or None, not {type(limit).__name__}")
    if limit is not None and limit < 0:
        raise ConfigError(f"limit is a number from 0, not {limit}")
