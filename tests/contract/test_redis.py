"""Redis keeps the contract: over TCP, a Unix socket and TLS, and as a cluster of six servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from servers.redis import empty_place

from praisonaiagents.storage.redis import RedisEngine
from praisonaiagents.testing import EngineContract


class TestRedis(EngineContract):
    @pytest.fixture
    def engine(self) -> Iterator[RedisEngine]:
        with empty_place() as self.url, closing(RedisEngine(self.url)) as engine:
            yield engine

    def open_engine(self) -> RedisEngine:
        return RedisEngine(self.url)


class TestRedisCluster(TestRedis):
    @pytest.fixture
    def engine(self) -> Iterator[RedisEngine]:
        with empty_place(cluster=True) as self.url, closing(RedisEngine(self.url)) as engine:
            yield engine
