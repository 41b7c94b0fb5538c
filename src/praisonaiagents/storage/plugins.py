"""What other packages add by an entry point: found by its name, loaded when it is first used, and blamed by name if broken.

What a reader would get wrong: a name belongs to one package. Where two installed packages claim it neither is used, because
which one came first would depend on the order of folders on the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from praisonaiagents.errors import ConfigError, PraisonError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Kind(NamedTuple):
    """What can be added: the entry points' `group`, what one is called in an error, and the protocol that it keeps."""

    group: str
    word: str
    protocol: type


def plugins(kind: Kind) -> dict[str, list[EntryPoint]]:
    """The entry points of each name, in lower case. Imports none of them."""
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for plugin in entry_points(group=kind.group):
        found.setdefault(plugin.name.lower(), []).append(plugin)
    return found


def open_plugin(kind: Kind, name: str, *arguments: Any, **settings: Any) -> Any:
    """What the function behind the entry point `name` makes of the arguments.

    Raises `ConfigError` where two packages claim the name, where it cannot be loaded, and where what it made lacks a part of
    the protocol; and whatever the function itself raises.
    """
    plugin, *others = plugins(kind)[name]
    if others:
        packages = " and ".join(_package(found) for found in (plugin, *others))
        raise ConfigError(f"{packages} both serve {name!r}: uninstall all but one")
    made = _loaded(kind, plugin)(*arguments, **settings)
    missing = [part for part in vars(kind.protocol) if not part.startswith("_") and not hasattr(made, part)]
    if missing:
        raise ConfigError(f"{_described(kind, plugin)} made no {kind.word}: it lacks {', '.join(missing)}")
    return made


def _loaded(kind: Kind, plugin: EntryPoint) -> Callable[..., Any]:
    try:
        opener: Callable[..., Any] = plugin.load()
    except PraisonError:
        raise
    except Exception as exc:
        raise ConfigError(f"{_described(kind, plugin)} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    if not callable(opener):
        raise ConfigError(f"{_described(kind, plugin)} is no function that opens one")
    return opener


def _described(kind: Kind, plugin: EntryPoint) -> str:
    return f"the {kind.word} {plugin.name!r} of {_package(plugin)} ({plugin.value})"


def _package(plugin: EntryPoint) -> str:
    return f"{plugin.dist.name} {plugin.dist.version}" if plugin.dist else "an unnamed package"
