"""What every request goes through first: is it let in, and is it small and quick enough?

Pure ASGI around the app. In order: the name the server was called by (against DNS rebinding), the page it came from (against
other web sites), how often one caller comes, how large it is and how long it takes to arrive. Every answer gets an id and
headers that keep browsers from guessing, framing and caching.

What a reader would get wrong: a browser sends requests to servers on this machine on behalf of any web page. So being
reachable from here only protects nobody; the checks of Host and Origin do.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import time
from collections import OrderedDict
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from praisonaiagents.serve.problems import Problem, respond
from praisonaiagents.serve.settings import Settings, origin_of

_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]", "::1")
_MAX_HEADERS = 100
_MAX_HEADER_BYTES = 16_384
_MOST_DIGITS = 15  # of a length; Python refuses to read thousands of them
_OF_PROXIES = {b"x-forwarded-for", b"forwarded", b"via"}
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]+")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_GUESSES_PER_MINUTE = 20


class Guard:
    """The app, guarded. Puts the request's id into `scope["state"]["request_id"]`."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._pages = {origin_of(page) for page in settings.origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = os.urandom(8).hex().encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        dressed = _dressed(send, request_id, self._cors(headers))
        try:
            self._check(scope, headers)
        except Problem as problem:
            await respond(problem)(scope, receive, dressed)
            return
        if self._is_preflight(scope, headers):
            await dressed({"type": "http.response.start", "status": 204, "headers": []})
            await dressed({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, _bounded(receive, self._settings), dressed)

    def _check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        given = scope["headers"]
        if len(given) > _MAX_HEADERS or sum(len(name) + len(value) for name, value in given) > _MAX_HEADER_BYTES:
            raise Problem(431, "the headers are too large", "HeadersTooLarge")
        if not self._settings.asks_who and not _is_here(scope):
            raise Problem(403, "this server asks nobody for a token, so it serves this machine only", "Forbidden")
        if not self._settings.asks_who and not headers.keys().isdisjoint(_OF_PROXIES):
            text = "this server asks nobody for a token, so it serves nobody through a proxy: set token= or users="
            raise Problem(403, text, "Forbidden")
        self._check_host(headers)
        self._check_origin(scope, headers)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise Problem(400, "Content-Length is no number")
        if len(length) > _MOST_DIGITS or int(length) > self._settings.max_body_bytes:
            raise _too_large(self._settings)

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        host = _name(headers.get(b"host", b"").decode("latin-1"))
        allowed = (*_THIS_MACHINE, *self._settings.hosts)
        if host not in allowed and "*" not in allowed and not (self._settings.asks_who and _is_address(host)):
            raise Problem(421, "the server is not called by this name; allow it with hosts=", "UnknownHost")

    def _check_origin(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        origin = headers.get(b"origin")
        if origin is None:
            if headers.get(b"sec-fetch-site") == b"cross-site" and scope["method"] not in ("GET", "HEAD"):
                raise Problem(403, "a page of another site cannot call this server", "UnknownOrigin")
            return
        page = origin_of(origin.decode("latin-1"))
        own = origin_of(f"{scope['scheme']}://{headers.get(b'host', b'').decode('latin-1')}")
        if page is None or (page != own and page not in self._pages):
            raise Problem(403, "this page cannot call this server; allow it with origins=", "UnknownOrigin")

    def _cors(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        origin = headers.get(b"origin")
        if origin is None or origin_of(origin.decode("latin-1")) not in self._pages:
            return []
        asked = headers.get(b"access-control-request-headers", b"")
        return [
            (b"access-control-allow-origin", origin),
            (b"vary", b"Origin"),
            (b"access-control-allow-methods", b"GET, POST, PATCH, DELETE"),
            # whichever it wants to send: clients have headers of their own, and what a page is let do the token says
            *([(b"access-control-allow-headers", asked)] if _HEADER_NAMES.fullmatch(asked) else []),
            (
                b"access-control-expose-headers",
                b"x-request-id, x-session-id, idempotency-replayed, retry-after, x-should-retry",
            ),
        ]

    def _is_preflight(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        return scope["method"] == "OPTIONS" and b"access-control-request-method" in headers and bool(self._pages)


class Rate:
    """How often each caller may come: a bucket of a minute's requests, filled steadily. Bounded in memory."""

    _MOST = 10_000

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, who: str, *, takes: bool = True) -> None:
        """Raise `Problem` if this caller came too often. takes: whether this counts."""
        if not self._per_minute:
            return
        now = time.monotonic()
        left, then = self._buckets.get(who, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - then) * self._per_minute / 60)
        if left < 1:
            wait = int((1 - left) * 60 / self._per_minute) + 1
            raise Problem(429, "too many requests", "TooManyRequests", retry_after_s=wait)
        self._buckets[who] = (left - takes, now)
        self._buckets.move_to_end(who)
        if len(self._buckets) > self._MOST:
            self._buckets.popitem(last=False)


def guesses() -> Rate:
    """How often one address may come with a wrong token."""
    return Rate(_GUESSES_PER_MINUTE)


def address_of(scope: Scope) -> str:
    """The address a request comes from."""
    client = scope.get("client")
    return str(client[0]) if client else "here"


def is_loopback(host: str) -> bool:
    """True for an address or a name of this machine that nobody else reaches it by."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_here(scope: Scope) -> bool:
    """True if the caller is on this machine; a Unix socket has no address."""
    address = address_of(scope)
    return address == "here" or is_loopback(address)


def _is_address(host: str) -> bool:
    """True for an address, which no web page can make a name mean."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    """A Host header without its port, in lower case."""
    name, colon, port = host.lower().rpartition(":")
    return (name if colon and port.isdigit() else host.lower()).rstrip(".")


def _too_large(settings: Settings) -> Problem:
    return Problem(413, f"a request has at most {settings.max_body_bytes:,} bytes", "BodyTooLarge")


def _bounded(receive: Receive, settings: Settings) -> Receive:
    """The body, as far as it is small enough and comes in time. Raises `Problem`."""
    got = 0
    deadline = asyncio.get_running_loop().time() + settings.body_timeout_s
    is_whole = False

    async def bounded() -> Message:
        nonlocal got, is_whole
        if is_whole:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as exc:
            raise Problem(408, "the request took too long to arrive", "RequestTimeout") from exc
        got += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if got > settings.max_body_bytes:
            raise _too_large(settings)
        return message

    return bounded


def _dressed(send: Send, request_id: bytes, more: list[tuple[bytes, bytes]]) -> Send:
    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", ())}
            added = [header for header in (*_HEADERS, (b"x-request-id", request_id), *more) if header[0] not in own]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return dressed
