"""HTTP to a served agent: its address, one request and its answer, and when to ask again.

What a reader would get wrong: asking again is safe only where nothing can happen twice. That is so where no connection was made
at all, where something is only read, and where the server said in its health that it knows idempotency keys. A redirect is an
error, because following it would carry the token to another place.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from praisonaiagents.agent.background import PerLoop
from praisonaiagents.errors import (
    ConfigError,
    ConfigTypeError,
    MissingDependency,
    RemoteError,
    RemoteRefused,
    RemoteTimeout,
)
from praisonaiagents.model.ids import DEFAULT_USER

LIMIT_BYTES = 64 * 1024 * 1024
EVENTS = "text/event-stream"
_AGAIN = 3  # times
_AGAIN_WHILE_AWAY = 8  # times, where an agent that had our turn cannot be reached: starting again takes it some seconds
_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 4.0
_SILENT_S = 40.0  # a stream that lives says something every 15 s
_ERROR_BYTES = 64 * 1024
_ERROR_SHOWN = 300  # characters
_SHORTEST_HIDDEN = 4  # characters of a header or a name: hiding shorter ones would make riddles of errors

_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")
_LOGIN = re.compile(r"//[^/?#]*@")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_OURS = frozenset(
    "accept accept-encoding connection content-length content-type idempotency-key last-event-id transfer-encoding "
    "x-user-id".split()
)
_PASSING = (429, 502, 503, 504)
_ADVICE = {
    401: "pass the agent's token as token= (on the command line: PRAISONAI_REMOTE_TOKEN)",
    403: "the token may not do this; it may belong to another user than user_id=",
    404: "check the path of agent_url, and that the agent has a /health there",
    405: "check the path of agent_url",
    409: "another turn of this session is under way: wait for it to end",
    413: "the message is too long for this server",
    422: "an idempotency_key belongs to one message: use another one",
    429: "it was asked too often: try again later",
    503: "it is busy, or about to stop: try again later",
}
_TRY_NEXT = "check the address, that the agent is running, and the firewalls between"


class Failed(Exception):
    """One attempt failed.

    sent: the agent may have seen the request. refused: it did, and did nothing. passing: the next attempt may do better.
    """

    def __init__(
        self, error: RemoteError, *, sent: bool, refused: bool = False, passing: bool = True, wait_s: float = 0
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.sent = sent
        self.begun = sent and not refused
        self.passing = passing
        self.wait_s = wait_s


class Patience:
    """How long an answer is waited for, and how often it is asked for again. timeout_s: None waits for ever."""

    def __init__(self, timeout_s: float | None) -> None:
        self._failures = {False: 0, True: 0}  # True: while it was away
        self.renew(timeout_s)

    def renew(self, timeout_s: float | None) -> None:
        """The time begins anew. Failures stay counted, since a server may fail at the same point each time."""
        self.ends = None if timeout_s is None else _now() + timeout_s

    async def pause(self, failed: Failed, *, was_there: bool = False) -> bool:
        """Wait before the next attempt. False if there shall be none, or if no time is left for it.

        was_there: the agent got this request before, so one that cannot be reached now may be starting again.
        """
        is_away = was_there and not failed.sent
        self._failures[is_away] += 1
        backoff_s = min(_BACKOFF_S * 2 ** (self._failures[is_away] - 1), _LONGEST_BACKOFF_S)
        wait_s = max(failed.wait_s, random.uniform(0, backoff_s))  # noqa: S311
        most = _AGAIN_WHILE_AWAY if is_away else _AGAIN
        if self._failures[is_away] > most or (self.ends is not None and _now() + wait_s >= self.ends):
            return False
        await asyncio.sleep(wait_s)
        return True


class Connection:
    """Requests to the agent at `url`, for one user. Making one connects to nothing; `shown` is the address without secrets.

    `timeout_s` says how long an answer is waited for. Raises `ConfigError` and `ConfigTypeError` for an address, headers or a
    token that cannot be sent.
    """

    def __init__(self, url: str, user_id: str, headers: Mapping[str, str] | None, token: str | None) -> None:
        self._base, login = _parsed(url)
        self.shown = self._base
        self.timeout_s: float | None = None
        self.features: frozenset[str] = frozenset()
        self._clients = PerLoop(partial(_client, _all_headers(headers, token, user_id, login), login))
        self._secrets = _secrets(headers or {}, token, login)

    async def probe(self) -> None:
        """Ask for the agent's health, once. What it says it can do is in `features` afterwards."""
        try:
            async with self.in_time("Timeout connecting to", Patience(self.timeout_s)):
                await self._probe()
        except Failed as failed:
            raise failed.error  # noqa: B904 - it has its own cause

    async def _probe(self) -> None:
        path = "" if self._base.endswith("/health") else "/health"
        async with self.attempt("GET", path) as response:
            if response.status_code == 200:
                self.features = _features(await self.whole(response))
                return
            if response.status_code in _PASSING:  # it has a health, which says no more at the moment
                raise self.refusal(response, await self._beginning(response))
        async with self.attempt("HEAD", "") as response:
            if response.status_code not in (200, 405):
                raise self.refusal(response, "")

    async def answer(self, method: str, path: str, **request: Any) -> str:
        """The body of the answer to a request, which is sent again where that helps and is safe. Raises `RemoteError`."""
        patience, key, begun = Patience(self.timeout_s), request.get("key"), False
        async with self.in_time("no answer from", patience, key):
            while True:
                try:
                    async with self.attempt(method, path, **request) as response:
                        await self.check(response)
                        return await self.whole(response)
                except Failed as failed:
                    begun = begun or failed.begun
                    again = self.may_repeat(failed, reading=method != "POST")
                    if not (again and await patience.pause(failed, was_there=begun)):
                        raise self.with_key(failed.error, key if begun else None)  # noqa: B904 - it has its own cause

    def may_repeat(self, failed: Failed, *, reading: bool = False) -> bool:
        """True if the same request can be sent again, and nothing happens twice."""
        return failed.passing and (reading or not failed.sent or "idempotency" in self.features)

    def with_key(self, error: RemoteError, key: str | None) -> RemoteError:
        """The error; it says how to ask for the turn of this key, where the server knows keys. None: there is no turn."""
        if key is not None and "idempotency" in self.features:
            error.idempotency_key = key
            error.args = (f"{error}; ask again with idempotency_key={key!r} for what became of the turn there",)
        return error

    @asynccontextmanager
    async def attempt(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        accept: str = "application/json",
        key: str | None = None,
        after: str | None = None,
    ) -> AsyncGenerator[httpx2.Response, None]:
        """Send a request, once, and enter with its answer, of which the body is still to come. Raises `Failed`.

        path: below the agent's; "" is the agent itself. key: of the turn. after: the last event that came.
        """
        headers = {"Accept": accept}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if key is not None and method == "POST":
            headers["Idempotency-Key"] = key
        if after is not None:
            headers["Last-Event-ID"] = after
        url = f"{self._base.rstrip('/')}{path}" if path else self._base
        timeout = httpx2.Timeout(None, read=_SILENT_S if accept == EVENTS and "resume" in self.features else None)
        with self._translated():
            client = await self._client()
            request = client.build_request(
                method, url, content=content, params=params, headers=headers, timeout=timeout
            )
            response = await client.send(request, stream=True)
            try:
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise self.failed("its answer is compressed, which it was asked not to do", passing=False)
                yield response
            finally:
                await response.aclose()

    async def check(self, response: httpx2.Response) -> None:
        """Raise `Failed` unless it is a good answer."""
        if not response.is_success:
            raise self.refusal(response, await self._beginning(response))

    async def whole(self, response: httpx2.Response) -> str:
        """The body, which may not be larger than `LIMIT_BYTES`."""
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > LIMIT_BYTES:
                raise self.failed(f"its answer is larger than {LIMIT_BYTES // 1024**2} MB", passing=False)
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")

    async def _beginning(self, response: httpx2.Response) -> str:
        """Of the body of an error, which nobody needs all of."""
        found = b""
        async for part in response.aiter_raw():
            found += part
            if len(found) > _ERROR_BYTES:
                break
        return found.decode("utf-8", "replace")

    def failed(self, what: str, *, passing: bool = True) -> Failed:
        """A failure after the request was sent. what: goes on after "the agent at ...:"."""
        return Failed(RemoteError(f"the agent at {self.shown}: {what}", self.shown), sent=True, passing=passing)

    def refusal(self, response: httpx2.Response, body: str) -> Failed:
        """The failure that the status of an answer means."""
        status, ended = response.status_code, '"turn_id"' in body  # ended: it is the turn itself that failed
        said = f": {text}" if (text := self._said(body)) else ""
        advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
        if response.is_redirect:
            place = self._shortened(_LOGIN.sub("//", response.headers.get("location", "")).partition("?")[0])
            advice = f"; it is said to be at {place}: if you trust that, make it agent_url"
        text = f"the agent at {self.shown} answered HTTP {status}{said}{advice}"
        wait_s = _seconds(response.headers.get("retry-after", ""))
        error = RemoteRefused(text, self.shown, status=status)
        # not as the library words it: that quotes the place of a redirect
        error.__cause__ = httpx2.HTTPStatusError(f"HTTP {status}", request=response.request, response=response)
        refused = status < 500 and not ended
        return Failed(error, sent=True, refused=refused, passing=status in _PASSING and not ended, wait_s=wait_s)

    def told(self, data: Mapping[str, Any]) -> RemoteRefused:
        """The error that ended a turn, as an event tells it."""
        status = data.get("status")
        text = f"the agent at {self.shown} did not answer: {self._shortened(str(data.get('error', 'it failed')))}"
        return RemoteRefused(text, self.shown, status=status if isinstance(status, int) else None)

    def _said(self, body: str) -> str:
        """What the body of an error says, as far as it is for people."""
        data = decoded(body)
        if not isinstance(data, dict):
            return "" if body.lstrip().startswith("<") else self._shortened(body)
        return self._shortened(str(data.get("error") or data.get("detail") or ""))

    def _shortened(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _CONTROL.sub(" ", text).strip()
        return text if len(text) <= _ERROR_SHOWN else f"{text[:_ERROR_SHOWN]}..."

    @asynccontextmanager
    async def in_time(self, what: str, patience: Patience, key: str | None = None) -> AsyncGenerator[None, None]:
        """Raise `RemoteTimeout` if it takes longer than there is patience."""
        try:
            async with asyncio.timeout_at(patience.ends) as limit:
                yield
        except TimeoutError as exc:
            if isinstance(exc, RemoteError) or not limit.expired():
                raise
            text = f"{what} the agent at {self.shown} within {self.timeout_s:g} s; raise timeout=, or {_TRY_NEXT}"
            raise self.with_key(RemoteTimeout(text, self.shown), key) from exc

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The HTTP library's errors as ours."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as exc:
            text = f"Failed to connect to the agent at {self.shown}: {self._reason(exc)}; {_TRY_NEXT}"
            error = RemoteError(text, self.shown)
            error.__cause__ = exc
            raise Failed(error, sent=False, passing="CERTIFICATE" not in str(exc)) from exc
        except (httpx2.HTTPError, httpx2.StreamError) as exc:
            text = f"Error connecting to the agent at {self.shown}: {self._reason(exc)}; {_TRY_NEXT}"
            error = RemoteError(text, self.shown)
            error.__cause__ = exc
            raise Failed(error, sent=True, passing=not isinstance(exc, httpx2.SSEError)) from exc

    def _reason(self, exc: Exception) -> str:
        return self._shortened(str(exc)) or type(exc).__name__

    async def _client(self) -> httpx2.AsyncClient:
        try:
            return await self._clients.get()
        except ImportError as exc:
            raise MissingDependency("a SOCKS proxy", "socks", "httpx2") from exc
        except (OSError, ValueError, httpx2.InvalidURL) as exc:  # the last quotes a proxy's password
            raise ConfigError(
                f"the connection cannot be set up ({type(exc).__name__}): check the variables HTTP_PROXY, HTTPS_PROXY, "
                "ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
            ) from (None if isinstance(exc, httpx2.InvalidURL) else exc)

    def close(self) -> None:
        """Close the connections. Calling it twice is harmless; the next request opens new ones."""
        self._clients.close()

    async def aclose(self) -> None:
        """`close` on the running loop."""
        await self._clients.aclose()
        await asyncio.to_thread(self._clients.close)


def decoded(body: str) -> Any:
    """A JSON value; None if it is none."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _features(body: str) -> frozenset[str]:
    said = decoded(body)
    features = said.get("features") if isinstance(said, dict) else None
    return (
        frozenset(filter(lambda name: isinstance(name, str), features)) if isinstance(features, list) else frozenset()
    )


def _seconds(retry_after: str) -> float:
    """Of a Retry-After header; dates, which hardly anybody sends, count as nothing said."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0


def _client(headers: dict[str, str], login: tuple[str, str] | None) -> httpx2.AsyncClient:
    """Proxies and certificates are those that the environment names."""
    auth = httpx2.BasicAuth(*login) if login else None
    return httpx2.AsyncClient(headers=headers, auth=auth, timeout=None, follow_redirects=False)


def _secrets(headers: Mapping[str, str], token: str | None, login: tuple[str, str] | None) -> list[str]:
    """What no error may show, the longest first. Of `Authorization: Bearer x` it is the `x`, too."""
    name, password = login or ("", "")
    texts = [name, *headers.values(), *(value.split()[-1] for value in headers.values() if value)]
    always = [text for text in (token, password) if text]
    return sorted({*always, *(text for text in texts if len(text) >= _SHORTEST_HIDDEN)}, key=len, reverse=True)


def _parsed(url: Any) -> tuple[str, tuple[str, str] | None]:
    """(the address without a login, its login)."""
    if not isinstance(url, str):
        raise ConfigTypeError(f"agent_url is text such as 'http://127.0.0.1:8000/agent', not {type(url).__name__}")
    if not url or _UNSAFE.search(url):
        raise ConfigError(
            "agent_url is empty, or holds a space or a control character; one is 'http://host:8000/agent'"
        )
    try:
        parsed = httpx2.URL(url if "://" in url else f"http://{url}")
    except httpx2.InvalidURL:  # which may quote a password
        raise ConfigError("agent_url is no address; one is 'http://127.0.0.1:8000/agent'") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError("agent_url begins with http:// or https:// and a host; one is 'http://127.0.0.1:8000/agent'")
    if parsed.query or parsed.fragment:
        raise ConfigError("agent_url has no part after ? or #: pass a key as token= or in headers=")
    login = (parsed.username, parsed.password) if parsed.userinfo else None
    return str(parsed.copy_with(username=None, password=None)), login


def _all_headers(
    headers: Mapping[str, str] | None, token: str | None, user_id: str, login: tuple[str, str] | None
) -> dict[str, str]:
    """Those that every request has."""
    found = _checked_headers(headers)
    if token is not None:
        if not isinstance(token, str):
            raise ConfigTypeError(f"token is text, not {type(token).__name__}")
        if not _TOKEN.fullmatch(token):
            raise ConfigError("token is printable ASCII text without spaces")
        if login or any(name.lower() == "authorization" for name in found):
            raise ConfigError("token= and another login (in headers= or agent_url) say who asks: pass one of them")
        found["Authorization"] = f"Bearer {token}"
    if user_id != DEFAULT_USER:
        found["X-User-Id"] = quote(user_id, safe="")
    return {"User-Agent": "praisonaiagents", "Accept-Encoding": "identity", **found}


def _checked_headers(headers: Any) -> dict[str, str]:
    """A copy. Raises for what would break a request apart, or take the place of what every request needs."""
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ConfigTypeError(f"headers are a dict of names and texts, not {type(headers).__name__}")
    for name, value in headers.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise ConfigTypeError("headers are a dict of names and texts")
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(
                f"the header {name!r} cannot be sent: names and values are printable ASCII text on one line"
            )
        if name.lower() in _OURS:
            raise ConfigError(f"the header {name!r} is set by the session itself")
    return dict(headers)
