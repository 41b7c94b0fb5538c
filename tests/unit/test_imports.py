"""Importing the package costs next to nothing, and its names are those that are documented."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from wire import python

import praisonaiagents
from praisonaiagents import session

HEAVY = {"asyncio", "concurrent", "dataclasses", "email", "http", "logging", "sqlite3", "ssl", "subprocess", "tempfile"}
"""Parts of the standard library that take longer to import than all of this package."""


def loaded_by(statement: str) -> list[set[str]]:
    """(our modules, other people's packages, heavy parts of the standard library) that a new process loads for it."""
    source = f"""
        import json, sys
        before = set(sys.modules)
        {statement}
        print(json.dumps(sorted(set(sys.modules) - before)))
    """
    modules: Any = python(source, is_bare=True)
    packages = {name.partition(".")[0] for name in modules}
    others = packages - set(sys.stdlib_module_names) - {"praisonaiagents"}
    return [{name for name in modules if name.startswith("praisonaiagents.")}, others, packages & HEAVY]


def test_importing_the_package_loads_nothing_else() -> None:
    assert loaded_by("import praisonaiagents") == [set(), set(), set()]
    assert loaded_by("import praisonaiagents.session") == [{"praisonaiagents.session"}, set(), set()]


@pytest.mark.parametrize(
    "statement",
    [
        "from praisonaiagents import Agent, MemoryConfig, Session",
        "from praisonaiagents.session import get_default_session_store; get_default_session_store()",
        "from praisonaiagents import *",
        "from praisonaiagents import Agent; Agent('A', llm='gpt-4o', tools=[print], memory={'session_id': 's'})",
    ],
)
def test_touching_its_names_loads_no_sdk_driver_or_framework(statement: str) -> None:
    """msgspec is ours; it loads typing_extensions, and that inspect, where there is one."""
    _, others, heavy = loaded_by(statement)
    assert others <= {"msgspec", "typing_extensions"}
    assert heavy == set()


def test_the_public_names_are_the_documented_ones() -> None:
    assert praisonaiagents.__all__ == ["Agent", "Memory", "MemoryConfig", "PraisonAIDB", "Session", "db"]
    assert session.__all__ == [
        "AsyncSessionStore",
        "DefaultSessionStore",
        "HierarchicalSessionStore",
        "SessionData",
        "SessionHit",
        "SessionMessage",
        "SessionStore",
        "get_default_session_store",
        "get_hierarchical_session_store",
        "open_store",
        "retry_on_conflict",
    ]


@pytest.mark.parametrize("module", [praisonaiagents, session])
def test_every_public_name_is_there_and_no_other(module: Any) -> None:
    for name in module.__all__:
        assert getattr(module, name).__name__.removeprefix("praisonaiagents.") in (name, "Message")
        assert getattr(module, name) is getattr(module, name)
    assert set(module._HOMES) == set(module.__all__)
    assert set(praisonaiagents.__all__) <= set(dir(praisonaiagents))
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        module.Agnet  # noqa: B018
    with pytest.raises(ImportError):
        exec(f"from {module.__name__} import Agnet")
