"""What a server is told: who may come in, how much of everything, and what happens when a session is busy.

Every setting has a default under which it is safe to expose the server. What a reader would get wrong: without `token` and
`users` nobody is asked who they are, so only programs on this machine are let in, whatever address the server listens on, and
nobody whom a proxy on this machine brings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from praisonaiagents.errors import ConfigError, ConfigTypeError

BUSY = ("queue", "reject", "interrupt")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent is served.

    token: whoever has it is trusted and may say which user is meant, such as the backend of an app.
    users: tokens of users: a mapping from token to user id, or a function from a token to a user id (None: not known), which
        may be async, such as `JWT`. A token may be given as `sha256:` and its hash.
    busy: what becomes of a turn in a session that has one under way. "queue": it waits. "reject": it is refused (409).
        "interrupt": the one under way is stopped, as if its user had pressed Ctrl-C.
    max_waiting: turns that wait in one session; more are refused. max_turns: under way on the whole server, at most half
        of them of one user.
    turn_timeout_s: seconds that a turn may take once it has its session; then it is stopped, and kept as interrupted.
    kept_s: seconds that a finished turn can be picked up again by its id.
    hosts: names by which the server may be called, besides those of this machine; `*` for any. origins: web pages that may
        call it from a browser, each by its origin, such as "https://app.example.com".
    max_body_bytes: of a request. max_message_chars: of what is said in one. body_timeout_s: seconds for a request to arrive.
    per_minute: requests of one user; 0: any number. A trusted caller that names nobody is not counted.
    grace_s: seconds that turns have to finish when the server ends.

    Raises `ConfigError`, `ConfigTypeError`.
    """

    token: str | None = None
    users: Any = None
    busy: str = "queue"
    max_waiting: int = 8
    max_turns: int = 1_000
    turn_timeout_s: float = 600.0
    kept_s: float = 300.0
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body_bytes: int = 1_048_576
    max_message_chars: int = 200_000
    body_timeout_s: float = 20.0
    per_minute: int = 600
    grace_s: float = 30.0

    def __post_init__(self) -> None:
        if self.token is not None:
            check_token(self.token)
        if self.users is not None and not callable(self.users) and not isinstance(self.users, Mapping):
            raise ConfigTypeError(f"users is a mapping from token to user id, or a function, not {_kind(self.users)}")
        if self.busy not in BUSY:
            raise ConfigError(f"busy is one of {', '.join(BUSY)}, not {self.busy!r}")
        for name in ("max_waiting", "max_turns", "max_body_bytes", "max_message_chars", "per_minute"):
            _check_number(name, getattr(self, name), int)
        for name in ("turn_timeout_s", "kept_s", "body_timeout_s", "grace_s"):
            _check_number(name, getattr(self, name), (int, float))
        for name in ("hosts", "origins"):
            msgspec.structs.force_setattr(self, name, _texts(name, getattr(self, name)))
        for page in self.origins:
            if "*" in page or origin_of(page) is None:
                raise ConfigError(f'origins are those of pages, such as "https://app.example.com", not {page!r}')

    @property
    def asks_who(self) -> bool:
        """True if a caller has to have a token."""
        return self.token is not None or self.users is not None

    def __repr__(self) -> str:
        """Without the tokens."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name not in ("token", "users")}
        secret = {name: "..." for name in ("token", "users") if getattr(self, name) is not None}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in (secret | shown).items())})"


def settings_from(given: Mapping[str, Any]) -> Settings:
    """The settings, where a name that no setting has is told with the one that was meant."""
    unknown = [name for name in given if name not in Settings.__struct_fields__]
    if unknown:
        import difflib

        close = difflib.get_close_matches(unknown[0], Settings.__struct_fields__, n=1)
        raise ConfigTypeError(
            f"a server has no setting {unknown[0]!r}"
            + (f": did you mean {close[0]}?" if close else f"; it has: {', '.join(Settings.__struct_fields__)}")
        )
    return Settings(**given)


def check_token(token: object) -> str:
    """Return a token that can be sent in a header. Raises `ConfigError` without showing it."""
    if not isinstance(token, str):
        raise ConfigTypeError(f"a token is text, not {_kind(token)}")
    if len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError("a token is at least 8 ASCII characters without blanks; make one with `openssl rand -hex 24`")
    return token


def origin_of(page: str) -> tuple[str, str, int] | None:
    """(scheme, host, port) of an origin; None for what is none, such as `null`."""
    try:
        parts = urlsplit(page)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None


def _check_number(name: str, value: object, kinds: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ConfigTypeError(f"{name} is a number, not {_kind(value)}")
    if not 0 <= value < math.inf:  # type: ignore[operator]
        raise ConfigError(f"{name} is a number from 0, not {value}")


def _texts(name: str, values: object) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, (list, tuple, set, frozenset)):
        raise ConfigTypeError(f"{name} is a list of texts, not {_kind(values)}")
    if not all(isinstance(value, str) and value for value in values):
        raise ConfigTypeError(f"{name} is a list of texts")
    return tuple(value.lower().rstrip("/") for value in values)


def _kind(value: object) -> str:
    return type(value).__name__
