"""Redis keeps the contract, as a single server and as a cluster of six; and over a Unix socket and TLS as far as that matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest
from servers.redis import empty_place, shared_server, with_options
from servers.tls import TlsProxy

from praisonaiagents.storage.redis import RedisEngine
from praisonaiagents.testing import EngineContract

MAX_MESSAGE_BYTES = 1_000_000  # not the default


class TestRedis(EngineContract):
    max_message_bytes = MAX_MESSAGE_BYTES

    @pytest.fixture
    def engine(self) -> Iterator[RedisEngine]:
        with empty_place() as self.url, closing(self.open_engine()) as engine:
            yield engine

    def open_engine(self) -> RedisEngine:
        return RedisEngine(self.url, max_message_bytes=self.max_message_bytes)


class TestRedisCluster(TestRedis):
    @pytest.fixture
    def engine(self) -> Iterator[RedisEngine]:
        with empty_place(cluster=True) as self.url, closing(self.open_engine()) as engine:
            yield engine


# Only the way there is another one


@contextmanager
def _unix_socket() -> Iterator[str]:
    server = shared_server()
    with empty_place(server.url) as url:
        yield f"unix://{server.socket}?{url.partition('?')[2]}"


@contextmanager
def _tls() -> Iterator[str]:
    server = shared_server()
    with empty_place(server.url) as url, TlsProxy("127.0.0.1", server.port) as proxy:
        options = url.partition("?")[2]
        yield with_options(f"rediss://localhost:{proxy.port}?{options}", ssl_ca_certs=proxy.certificate)


@pytest.mark.parametrize("way", [_unix_socket, _tls], ids=["unix socket", "TLS"])
@pytest.mark.parametrize(
    "promise",
    [
        "test_open_keeps_what_the_record_says",
        "test_messages_come_back_exactly_after_every_change",
        "test_read_finds_any_part_of_a_long_session",
        "test_a_message_may_be_as_large_as_the_limit",
        "test_pages_hold_every_session_once",
        "test_forks_of_forks_outlive_what_they_come_from",
        "test_threads_append_each_message_once",
        "test_close_may_be_called_twice",
    ],
)
def test_redis_keeps_the_contract_over(way: Callable[[], AbstractContextManager[str]], promise: str) -> None:
    contract = EngineContract()
    contract.max_message_bytes = MAX_MESSAGE_BYTES
    with way() as url, closing(RedisEngine(url, max_message_bytes=MAX_MESSAGE_BYTES)) as engine:
        getattr(contract, promise)(engine)
