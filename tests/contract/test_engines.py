"""Every engine keeps the contract. A new engine is one more class here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from praisonaiagents.storage.engine import Slice
from praisonaiagents.storage.jsonfile import JsonFileEngine
from praisonaiagents.storage.memory import MemoryEngine
from praisonaiagents.testing import EngineContract


class TestMemory(EngineContract):
    max_message_bytes = (
        1_000_000  # not the default: a large message must be refused because of the engine's own setting
    )

    @pytest.fixture
    def engine(self) -> Iterator[MemoryEngine]:
        with closing(MemoryEngine(max_message_bytes=self.max_message_bytes)) as engine:
            yield engine


class TestJsonFile(EngineContract):
    options: dict[str, Any] = {}

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[JsonFileEngine]:
        self.folder = tmp_path / "sessions"
        with closing(JsonFileEngine(self.folder, **self.options)) as engine:
            yield engine

    def open_engine(self) -> JsonFileEngine:
        return JsonFileEngine(self.folder, **self.options)


class TestJsonFileThatSurvivesPowerLoss(TestJsonFile):
    options = {"durability": "full"}


def test_the_contract_is_loaded_only_when_it_is_asked_for() -> None:
    """A program without pytest may still import what is beside the contract."""
    code = """
import sys, praisonaiagents.testing as testing
loaded = {name for name in sys.modules if name.startswith(("pytest", "_pytest", "praisonaiagents.testing."))}
assert not loaded, loaded
assert set(testing.__all__) <= set(dir(testing))
assert testing.ScriptedLLM.__name__ == "ScriptedLLM" and "pytest" not in sys.modules
assert {getattr(testing, name).__name__ for name in testing.__all__} == set(testing.__all__)
assert not hasattr(testing, "Unknown")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_failing_assert_of_the_contract_is_explained() -> None:
    with pytest.raises(AssertionError, match=r"assert \[\] == \[.+\]"):
        EngineContract().test_messages_keep_the_order_of_their_appends(_LosesMessages())


class _LosesMessages(MemoryEngine):
    def read(self, *_: Any) -> Slice:
        return Slice(0, [])
