"""Floor 4: an agent over HTTP.

    app(agent)                      an ASGI app, for any ASGI server
    launch(agent, port=8000)        a server in this process, what `agent.launch` does
    JWT(key, ...)                   tokens that somebody else signs

A request goes through `guard` (is it let in, and is it small enough?), `callers` (who is it?), then to an `operation`: those
of `talking` (a turn with the agent), `keeping` (the sessions) and `completions` (the same in OpenAI's words). `turns` is
where one turn at a time has a session, and where it goes on when its caller is gone. Names are loaded when they are first
touched.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from praisonaiagents.serve.asgi import app as app
    from praisonaiagents.serve.callers import JWT as JWT
    from praisonaiagents.serve.server import Server as Server
    from praisonaiagents.serve.server import launch as launch
    from praisonaiagents.serve.settings import Settings as Settings

_HOMES = {
    "JWT": "praisonaiagents.serve.callers",
    "Server": "praisonaiagents.serve.server",
    "Settings": "praisonaiagents.serve.settings",
    "app": "praisonaiagents.serve.asgi",
    "launch": "praisonaiagents.serve.server",
}

__all__ = ["JWT", "Server", "Settings", "app", "launch"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
