"""Tools for testing what is built on this package: contracts of engines and of memories, and a language model that is scripted.

    from praisonaiagents.testing import EngineContract, ScriptedLLM, Say

What a reader would get wrong: importing this imports neither pytest nor a server. Each name is loaded when it is first
asked for, so that a program without pytest can still use the scripted model.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from praisonaiagents.testing.contract import EngineContract
    from praisonaiagents.testing.llm import Call, Fail, Hang, Say, ScriptedLLM, Tool
    from praisonaiagents.testing.memorycontract import MemoryContract

__all__ = ["Call", "EngineContract", "Fail", "Hang", "MemoryContract", "Say", "ScriptedLLM", "Tool"]


_SUITES = {
    "EngineContract": "praisonaiagents.testing.contract",
    "MemoryContract": "praisonaiagents.testing.memorycontract",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _SUITES:
        return getattr(_suite(_SUITES[name]), name)
    return getattr(import_module("praisonaiagents.testing.llm"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _suite(name: str) -> Any:
    if name not in sys.modules:
        import pytest

        # otherwise pytest explains a failing assert only in files named like tests
        pytest.register_assert_rewrite(name)
    return import_module(name)
