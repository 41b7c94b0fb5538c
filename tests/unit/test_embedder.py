"""Embedders of a provider: named in a configuration, reached over HTTP, and harmless when they are not there."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from praisonaiagents import Agent, MemoryConfig, Session
from praisonaiagents.agent.embedder import ProviderEmbedder
from praisonaiagents.errors import ConfigError, ModelError
from praisonaiagents.memory.memory import NotEmbedded

KEY = "sk-hunter22"


class Provider(http.server.ThreadingHTTPServer):
    """A server on loopback that embeds: animals to one side, everything else to the other."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, self.headers.get("authorization"), body))
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        points = [[1.0, 0.2] if any(word in text for word in ("dog", "puppy")) else [0.2, 1.0] for text in texts]
        data = [{"object": "embedding", "index": at, "embedding": point} for at, point in enumerate(points)]
        answer = {
            "object": "list",
            "data": data,
            "model": body["model"],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
        if self.server.status != 200:
            answer = {"error": {"message": f"bad key {KEY}"}}
        sent = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests look at what was asked."""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with Provider() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server
        server.shutdown()


@pytest.mark.parametrize("name", ["openai:text-embedding-3-small", "text-embedding-3-small"])
def test_a_named_embedder_is_asked_over_http(provider: Provider, name: str) -> None:
    assert [list(point) for point in ProviderEmbedder(name)(["a dog", "a boat"])] == [[1.0, 0.2], [0.2, 1.0]]
    path, key, body = provider.asked[0]
    assert (path, key) == ("/v1/embeddings", f"Bearer {KEY}")
    assert (body["model"], body["input"]) == ("text-embedding-3-small", ["a dog", "a boat"])


def test_memories_are_found_by_meaning_and_told(provider: Provider) -> None:
    config = {"embedder": "openai:text-embedding-3-small"}
    with Session("s", "alice", memory_config=config) as session:
        session.add_memory("The user has a dog")
        session.add_memory("The user has a boat")
        best = session.search_memory("Where is my puppy?", limit=1)[0]
        assert best["text"] == "The user has a dog"
        assert "near in meaning (1.00)" in best["why"]
        session.Agent("A", llm="offline").chat("Where is my puppy?")
    asked = [body["input"] for _, _, body in provider.asked]
    assert asked == [["The user has a dog"], ["The user has a boat"], ["Where is my puppy?"], ["Where is my puppy?"]]


def test_one_that_refuses_costs_neither_memory_nor_answer_and_tells_no_key(provider: Provider) -> None:
    provider.status = 401
    agent = Agent("A", llm="offline", memory=MemoryConfig(user_id="alice", embedder="openai:text-embedding-3-small"))
    with pytest.raises(ModelError) as caught:
        ProviderEmbedder("openai:text-embedding-3-small")(["a dog"])
    with pytest.warns(NotEmbedded, match="did not answer") as told:
        done = [agent.store_memory("The user's name is Alice"), agent.chat("What's my name?")]
    assert "Alice" in str(done[1])
    assert KEY not in f"{caught.value} {[str(warning.message) for warning in told]}"


def test_nothing_is_asked_before_it_is_needed(provider: Provider, home: Path) -> None:
    Agent("A", llm="offline", memory=MemoryConfig(embedder="openai:text-embedding-3-small")).close()
    assert provider.asked == []
    assert not home.exists()


@pytest.mark.parametrize("name", ["", "openai:", " "])
def test_a_name_of_nothing_is_refused_at_once(name: str) -> None:
    with pytest.raises(ConfigError, match="provider:model"):
        Agent("A", llm="offline", memory=MemoryConfig(embedder=name))


def test_a_provider_nobody_knows_is_told_of(provider: Provider) -> None:
    with pytest.raises((ConfigError, ImportError)):
        ProviderEmbedder("nobody:model")(["a"])
