"""PostgreSQL keeps the contract: connected to directly, and through PgBouncer, which gives each transaction another
connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from servers.postgres import empty_place

from praisonaiagents.storage.postgres import PostgresEngine
from praisonaiagents.testing import EngineContract


class TestPostgres(EngineContract):
    options: dict[str, Any] = {}

    @pytest.fixture
    def engine(self) -> Iterator[PostgresEngine]:
        with empty_place() as self.url, closing(PostgresEngine(self.url, **self.options)) as engine:
            yield engine

    def open_engine(self) -> PostgresEngine:
        return PostgresEngine(self.url, **self.options)


class TestPostgresThatWaitsForTheDisk(TestPostgres):
    options = {"durability": "full"}
