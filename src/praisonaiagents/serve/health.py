"""Whether the server lives, and whether it can do its work.

Alive: it answers. Ready: the sessions can be reached and it is not about to end, so callers may be sent here. What a reader
would get wrong: a database that is away for a minute must not get the server killed, so only the second asks for it. A thread
that asks a database which hangs cannot be stopped, so all who ask meanwhile wait for the same one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from praisonaiagents import __version__
from praisonaiagents.model.record import Key
from praisonaiagents.serve.operation import Ask, Operation
from praisonaiagents.serve.problems import Problem

_PATIENCE_S = 5.0
FEATURES = ["idempotency", "resume", "sessions"]


class Health(msgspec.Struct):
    """The server answers. endpoints: the agents' paths. features: what a client may rely on."""

    status: str
    endpoints: list[str]
    version: str
    features: list[str]


class Ready(msgspec.Struct):
    """The server can take turns. turns: under way now."""

    status: str
    turns: int


class Index(msgspec.Struct):
    """What is served here."""

    message: str
    endpoints: list[str]


async def health(ask: Ask) -> Health:
    """Is it alive?"""
    return Health("ok", sorted(ask.place.service.agents), __version__, FEATURES)


async def ready(ask: Ask) -> Ready:
    """Can it take turns?"""
    service = ask.place.service
    if service.turns.is_closing:
        raise Problem(503, "the server is ending", "Closing", retry_after_s=5)
    look = service.look
    if look is None or look.done():
        look = service.look = asyncio.get_running_loop().run_in_executor(None, _look, service.store.engine)
        look.add_done_callback(asyncio.Future.exception)  # so that nobody complains where all have gone
    if not (await asyncio.wait([look], timeout=_PATIENCE_S))[0]:
        raise Problem(503, "the sessions cannot be reached in time", "EngineTimeout", retry_after_s=1)
    look.result()
    return Ready("ready", len(service.turns))


async def index(ask: Ask) -> Index:
    """What is served here?"""
    return Index("PraisonAI agents are served here", sorted(ask.place.service.agents))


OPERATIONS = (
    Operation("GET", "/health", health, "Is it alive?", gives=Health, is_open=True),
    Operation("GET", "/health/live", health, "Is it alive?", gives=Health, is_open=True),
    Operation("GET", "/health/ready", ready, "Can it take turns?", gives=Ready, also=(503,), is_open=True),
)
INDEX = Operation("GET", "/", index, "What is served here?", gives=Index, is_open=True)


def _look(engine: Any) -> None:
    engine.get(Key("default_user", "praisonai-health"))
