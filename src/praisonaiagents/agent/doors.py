"""The doors an agent can be launched at, by the name of their protocol.

"http" is ours; other packages add theirs by an entry point of the group `praisonaiagents.doors`: a function that takes the
agent, a path, a port, a host and whether to debug, and serves it. What a reader would get wrong: the doors are on the floor
above, so this one knows only where they are, and finds them by name as it finds storage engines.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from praisonaiagents.errors import ConfigError, MissingDependency

GROUP = "praisonaiagents.doors"
_OURS = {"http": ("praisonaiagents.serve.server", "launch", "serve")}


def door(protocol: str) -> Callable[..., Any]:
    """What serves an agent in this protocol. Raises `ConfigError` for one that nobody speaks, `MissingDependency`."""
    if protocol in _OURS:
        module, name, extra = _OURS[protocol]
        try:
            opened: Callable[..., Any] = getattr(import_module(module), name)
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("praisonaiagents"):
                raise
            raise MissingDependency("serving an agent", extra) from exc
        return opened
    from importlib.metadata import entry_points

    others = {found.name: found for found in entry_points(group=GROUP)}
    if protocol not in others:
        raise ConfigError(f"no door speaks {protocol!r}; there are: {', '.join([*_OURS, *sorted(others)])}")
    loaded: Callable[..., Any] = others[protocol].load()
    return loaded
