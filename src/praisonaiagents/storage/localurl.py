"""URLs of places on this machine: a path, and behind a `?` the settings of the engine.

    file:///var/lib/sessions?durability=full     sqlite:///sessions.db?lock_timeout=10&pool_size=8

In a path, `%3F` stands for a question mark. A setting that is not known is refused: it was meant to do something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from praisonaiagents.errors import ConfigError

Settings = Mapping[str, tuple[str, Callable[[str], Any]]]
"""By the name in the URL: the engine's own name for it, and what makes its value of a text."""


def path_and_settings(url: str, known: Settings, *, hosts: tuple[str, ...] = ("",)) -> tuple[str, dict[str, Any]]:
    """The path behind the host, with its first slash, and keyword arguments for the engine. Raises `ConfigError`."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    host, slash, path = place.partition("/")
    if host not in hosts:
        raise ConfigError(f"a URL of this kind names no host, but has three slashes: {scheme}:///{host}{slash}{path}")
    settings = parse_qsl(query, keep_blank_values=True)
    return unquote(slash + path), dict(_setting(scheme, known, name, text) for name, text in settings)


def _setting(scheme: str, known: Settings, name: str, text: str) -> tuple[str, Any]:
    if name not in known:
        raise ConfigError(f"a {scheme} URL has no setting {name!r}; there are: {', '.join(known)}")
    own_name, kind = known[name]
    try:
        return own_name, kind(text)
    except ValueError:
        raise ConfigError(f"{name} in a {scheme} URL is a number, not {text!r}") from None
