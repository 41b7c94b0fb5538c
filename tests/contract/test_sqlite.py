"""The SQLite engine keeps the contract: in a file, in one that survives a loss of power, and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from praisonaiagents.storage.sqlite import SqliteEngine
from praisonaiagents.testing import EngineContract


class TestSqlite(EngineContract):
    options: dict[str, Any] = {}

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[SqliteEngine]:
        self.path = tmp_path / "sessions.db"
        with closing(SqliteEngine(self.path, **self.options)) as engine:
            yield engine

    def open_engine(self) -> SqliteEngine:
        return SqliteEngine(self.path, **self.options)


class TestSqliteThatSurvivesPowerLoss(TestSqlite):
    options = {"durability": "full"}


class TestSqliteInMemory(EngineContract):
    max_message_bytes = 1_000_000  # not the default

    @pytest.fixture
    def engine(self) -> Iterator[SqliteEngine]:
        with closing(SqliteEngine(":memory:", max_message_bytes=self.max_message_bytes)) as engine:
            yield engine
