"""PostgreSQL keeps the contract: connected to directly, and through PgBouncer, which gives each transaction another of a
few connections.

The server is told not to wait for its disk, because nothing here asks what survives a crash.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from servers.postgres import PgBouncer, PostgresServer, emptied_place, shared_url, with_parameter

from praisonaiagents.storage.postgres import PostgresEngine
from praisonaiagents.testing import EngineContract


class TestPostgres(EngineContract):
    @pytest.fixture
    def engine(self) -> Iterator[PostgresEngine]:
        server = with_parameter(shared_url(), "options", "-c synchronous_commit=off")
        with emptied_place(server) as self.url, closing(self.open_engine()) as engine:
            yield engine

    def open_engine(self) -> PostgresEngine:
        return PostgresEngine(self.url)


@pytest.fixture(scope="module")
def bouncer() -> Iterator[str]:
    """The URL of PgBouncer in front of a server of its own."""
    with PostgresServer(synchronous_commit="off") as server, PgBouncer("127.0.0.1", server.port) as bouncer:
        yield bouncer.url()


@pytest.mark.skipif(not PgBouncer.available(), reason="PgBouncer is not installed")
class TestPostgresThroughPgBouncer(EngineContract):
    @pytest.fixture
    def engine(self, bouncer: str) -> Iterator[PostgresEngine]:
        with emptied_place(bouncer) as self.url, closing(self.open_engine()) as engine:
            yield engine

    def open_engine(self) -> PostgresEngine:
        return PostgresEngine(self.url)
