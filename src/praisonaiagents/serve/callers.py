"""Who is calling: from the token of a request to a user.

Three kinds of callers. One with a token of a user is that user and nobody else. One with the server's own token is trusted,
such as the backend of an app, and says which user it means. Where no token is asked for, the caller is a program on this
machine, and trusted too. What a reader would get wrong: "default_user" is what a client says that was told nothing, so it
names nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import inspect
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from praisonaiagents.errors import ConfigError, ConfigTypeError, InvalidId, MissingDependency
from praisonaiagents.model.ids import DEFAULT_USER, check_user_id
from praisonaiagents.serve.guard import Rate
from praisonaiagents.serve.problems import Problem, fault_of
from praisonaiagents.serve.settings import Settings, check_token
from praisonaiagents.session.uncut import in_thread

USER_HEADER = b"x-user-id"
_HASHED = "sha256:"
_LOOKED_UP_AT_ONCE = 16  # tokens; more wait, so that guesses count before the next ones are looked up


class Caller(msgspec.Struct, frozen=True):
    """Who asks. user_id: whose sessions are meant if nothing else is said. is_trusted: may say another user."""

    user_id: str
    is_trusted: bool

    def meaning(self, named: str | None) -> str | None:
        """The user that is meant when this one is named; None if that is not for this caller to say. Raises `InvalidId`."""
        named = check_user_id(named)
        if named in (DEFAULT_USER, self.user_id):
            return self.user_id
        return named if self.is_trusted else None


class Callers:
    """Knows the tokens, as hashes: what is compared has one length and is compared in constant time."""

    def __init__(self, settings: Settings) -> None:
        self._asks = settings.asks_who
        self._token = None if settings.token is None else _digest(settings.token)
        self._look: Any = settings.users if callable(settings.users) else None
        self._looking = asyncio.Semaphore(_LOOKED_UP_AT_ONCE)
        self._users = _hashed(settings.users) if isinstance(settings.users, Mapping) else {}

    async def caller(self, headers: Sequence[tuple[bytes, bytes]], guesses: Rate, address: str) -> Caller | None:
        """Who sends these headers; None if a token is needed and this one is none.

        guesses: counts wrong tokens of the address. Nobody who has one that is known here is kept out by them.

        Raises `InvalidId` for a user's name, and `Problem` for one that is not for this caller to say, after too many
        guesses, and where it cannot be said now whose token it is.
        """
        if not self._asks:
            return _trusted(headers)
        token = _token_in(headers)
        if token is None:
            return None
        given = _digest(token)
        if self._token is not None and hmac.compare_digest(given, self._token):
            return _trusted(headers)
        user = next((user for known, user in self._users.items() if hmac.compare_digest(given, known)), None)
        if user is None:
            user = await self._guessed(token, guesses, address)
        if user is None:
            return None
        caller = Caller(check_user_id(user), is_trusted=False)
        if caller.meaning(named_in(headers)) is None:
            raise Problem(403, "this token is another user's", "Forbidden")
        return caller

    async def _guessed(self, token: str, guesses: Rate, address: str) -> str | None:
        user = None
        if self._look is not None:
            async with self._looking:
                guesses.check(address, takes=False)
                user = await self._asked(token)
        if user is None:
            guesses.check(address)
        return user

    async def _asked(self, token: str) -> str | None:
        try:
            found = self._look(token) if inspect.iscoroutinefunction(self._look) else await in_thread(self._look, token)
            if inspect.isawaitable(found):
                found = await found
        except Problem:
            raise
        except Exception as exc:
            raise fault_of(exc) from exc
        if found is not None and not isinstance(found, str):
            text = f"the function users= returns a user id or None, not {type(found).__name__}"
            raise fault_of(ConfigTypeError(text))
        return found or None


class JWT:
    """Tokens that an identity provider signs, as `users=`: the claim `sub` is the user id.

    key: what they are checked with, a secret or a public key in PEM. jwks_url: where the provider publishes its keys instead.
    algorithms: which are accepted; with a secret ["HS256"], with keys of a provider ["RS256"]. audience, issuer: who the
    token must be for and from. An expired token, and one without an expiry, is none.

    Raises `ConfigError`, `MissingDependency`.
    """

    def __init__(
        self,
        key: str | None = None,
        *,
        jwks_url: str | None = None,
        algorithms: Sequence[str] | None = None,
        audience: str | None = None,
        issuer: str | None = None,
        claim: str = "sub",
    ) -> None:
        if (key is None) == (jwks_url is None):
            raise ConfigError("a JWT is checked with key= or with jwks_url=: pass one of them")
        try:
            import jwt
        except ImportError as exc:
            raise MissingDependency("JWT", "serve") from exc
        self._jwt = jwt
        self._keys = None if jwks_url is None else jwt.PyJWKClient(jwks_url, timeout=10)
        self._key = key
        self._algorithms = list(algorithms or (["HS256"] if key and "PUBLIC KEY" not in key else ["RS256"]))
        if "none" in (name.lower() for name in self._algorithms):
            raise ConfigError("the algorithm 'none' means that anybody can sign")
        self._checks: dict[str, Any] = {"audience": audience, "issuer": issuer}
        self._claim = claim

    def __call__(self, token: str) -> str | None:
        """The user id in the token; None if it is no valid one. May ask the provider for its keys.

        Raises `Problem` while the provider cannot be reached.
        """
        try:
            key: Any = self._key if self._keys is None else self._keys.get_signing_key_from_jwt(token)
            claims = self._jwt.decode(
                token, key, algorithms=self._algorithms, options={"require": ["exp", self._claim]}, **self._checks
            )
        except self._jwt.PyJWKClientConnectionError as exc:
            text = "the keys that tokens are checked with cannot be had now"
            raise Problem(503, text, "ProviderUnreachable", retry_after_s=5) from exc
        except self._jwt.PyJWTError:
            return None
        user = claims[self._claim]
        return user if isinstance(user, str) and user else None

    def __repr__(self) -> str:
        """Without the key."""
        return f"JWT(algorithms={self._algorithms})"


def named_in(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The user that a request names in its header, percent-encoded UTF-8. Raises `InvalidId`."""
    value = next((value for name, value in headers if name == USER_HEADER), None)
    try:
        return None if value is None else unquote(value.decode("ascii"), errors="strict")
    except UnicodeDecodeError as exc:
        raise InvalidId("X-User-Id is the user's id in percent-encoded UTF-8") from exc


def read_users(text: str) -> dict[str, str]:
    """Tokens of a file: JSON that gives each user a token or a list of tokens. Raises `ConfigError` without showing one."""
    try:
        users = msgspec.json.decode(text, type=dict[str, str | list[str]])
    except msgspec.MsgspecError as exc:
        raise ConfigError('a file of users is JSON such as {"alice": "a token", "bob": ["two", "tokens"]}') from exc
    tokens: dict[str, str] = {}
    for user, given in users.items():
        for token in [given] if isinstance(given, str) else given:
            if tokens.setdefault(token, user) != user:
                raise ConfigError(f"the users {tokens[token]!r} and {user!r} have one token")
    _hashed(tokens)
    return tokens


def _trusted(headers: Sequence[tuple[bytes, bytes]]) -> Caller:
    return Caller(check_user_id(named_in(headers)), is_trusted=True)


def _token_in(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip().decode("latin-1")
        if name == b"x-auth-token":
            return value.decode("latin-1")
    return None


def _hashed(users: Mapping[Any, Any]) -> dict[bytes, str]:
    hashed: dict[bytes, str] = {}
    for token, user in users.items():
        if not isinstance(user, str) or not user:
            raise ConfigTypeError("users= maps tokens to user ids, which are text")
        check_token(token)
        digest = bytes.fromhex(_hex(token)) if token.startswith(_HASHED) else _digest(token)
        hashed[digest] = check_user_id(user)
    return hashed


def _hex(token: str) -> str:
    digits = token.removeprefix(_HASHED)
    if len(digits) != 64 or not set(digits.lower()) <= set("0123456789abcdef"):
        raise ConfigError("a hashed token is 'sha256:' and 64 hexadecimal digits")
    return digits


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
