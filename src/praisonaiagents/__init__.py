"""AI agents whose conversations survive: restarts, crashes, upgrades.

    from praisonaiagents import Agent

    agent = Agent(name="Assistant", memory={"session_id": "my-session-123"})
    agent.start("My name is Alice and I love pizza")

Names are loaded when they are first touched, so importing the package loads no LLM library, driver or web framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from praisonaiagents import db as db
    from praisonaiagents.agent.agent import Agent as Agent
    from praisonaiagents.agent.session import Session as Session
    from praisonaiagents.db import PraisonAIDB as PraisonAIDB
    from praisonaiagents.memory.config import MemoryConfig as MemoryConfig
    from praisonaiagents.memory.memory import Memory as Memory

_HOMES = {
    "Agent": "praisonaiagents.agent.agent",
    "Memory": "praisonaiagents.memory.memory",
    "MemoryConfig": "praisonaiagents.memory.config",
    "PraisonAIDB": "praisonaiagents.db",
    "Session": "praisonaiagents.agent.session",
    "db": "praisonaiagents.db",
}

__all__ = ["Agent", "Memory", "MemoryConfig", "PraisonAIDB", "Session", "db"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
