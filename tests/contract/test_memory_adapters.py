"""Every adapter keeps the contract of memories. A new one is one more class here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mongomock
import pytest

from praisonaiagents.memory.adapter import ItemPage, Match, MemoryAdapter
from praisonaiagents.memory.chroma import ChromaMemory
from praisonaiagents.memory.mongodb import MongoMemory
from praisonaiagents.memory.process import ProcessMemory
from praisonaiagents.memory.sqlite import SqliteMemory
from praisonaiagents.model.memory import Embedding, MemoryItem, Scope
from praisonaiagents.testing import MemoryContract
from praisonaiagents.testing.memorycontract import STRANGE


class TestProcess(MemoryContract):
    survives_close = True

    @pytest.fixture
    def adapter(self) -> Iterator[MemoryAdapter]:
        with closing(ProcessMemory()) as adapter:
            yield adapter


class TestSqlite(MemoryContract):
    survives_close = True

    @pytest.fixture
    def adapter(self, tmp_path: Path) -> Iterator[MemoryAdapter]:
        with closing(SqliteMemory(tmp_path / "memory.db")) as adapter:
            yield adapter


class TestSqliteInMemory(MemoryContract):
    @pytest.fixture
    def adapter(self) -> Iterator[MemoryAdapter]:
        with closing(SqliteMemory(":memory:")) as adapter:
            yield adapter


class TestSqliteWithoutIndex(MemoryContract):
    """Where SQLite was built without full-text search, the same is found by looking at each item."""

    survives_close = True

    @pytest.fixture
    def adapter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryAdapter]:
        monkeypatch.setattr("praisonaiagents.storage.sqlitefile._SEARCH", "SELECT 0, 0")
        with closing(SqliteMemory(tmp_path / "memory.db")) as adapter:
            yield adapter


class TestChroma(MemoryContract):
    survives_close = True

    @pytest.fixture
    def adapter(self, tmp_path: Path) -> Iterator[MemoryAdapter]:
        with closing(ChromaMemory(path=str(tmp_path / "chroma"))) as adapter:
            yield adapter


class TestMongoDouble(MemoryContract):
    """On mongomock, a double of the driver: a real server runs where TEST_MONGODB_URL names one."""

    survives_close = True

    @pytest.fixture
    def adapter(self) -> Iterator[MemoryAdapter]:
        with closing(MongoMemory(client=mongomock.MongoClient())) as adapter:
            yield adapter


@pytest.mark.skipif("TEST_MONGODB_URL" not in os.environ, reason="TEST_MONGODB_URL names no MongoDB server")
class TestMongo(MemoryContract):
    survives_close = True

    @pytest.fixture
    def adapter(self) -> Iterator[MemoryAdapter]:
        with closing(MongoMemory(os.environ["TEST_MONGODB_URL"], database="praisonai_tests")) as adapter:
            for name in ("alice", "bob", "default_user", *STRANGE, *(f"user{number}" for number in range(4))):
                adapter.erase(name)
            yield adapter


# --- the suite is proved by adapters with one mistake each ---


class IgnoresUsers(ProcessMemory):
    def get(self, user_id: str, item_id: str) -> MemoryItem | None:
        return next((kept.item for kept in self._kept.values() if kept.item.id == item_id), None)


class TakesNoneForAll(ProcessMemory):
    def list_items(
        self, scope: Scope, *, after: str | None = None, limit: int = 50, superseded: bool = False
    ) -> ItemPage:
        if scope.session_id is None:
            items = [kept.item for kept in self._kept.values() if kept.item.scope.user_id == scope.user_id]
            return ItemPage(items[:limit], None)
        return super().list_items(scope, after=after, limit=limit, superseded=superseded)


class FindsSuperseded(ProcessMemory):
    def _live(self, scope: Scope) -> Any:
        return self._in(scope, lambda kept: True)


class ForgetsToReplacePoints(ProcessMemory):
    def put(self, items: Any, embeddings: Any = ()) -> None:
        old = {key: kept.embedding for key, kept in self._kept.items()}
        super().put(items, embeddings)
        for key, point in old.items():
            if self._kept[key].embedding is None:
                self._kept[key] = self._kept[key]._replace(embedding=point)


class ComparesAllModels(ProcessMemory):
    def search_near(self, scope: Scope, embedding: Embedding, *, limit: int = 10) -> list[Match]:
        return [Match(kept.item, 1.0) for kept in self._live(scope) if kept.embedding][:limit]


class StoresBeforeItChecks(ProcessMemory):
    def put(self, items: Any, embeddings: Any = ()) -> None:
        for number, one in enumerate(items):
            super().put([one], embeddings[number : number + 1])


class ErasesOneScope(ProcessMemory):
    def erase(self, user_id: str) -> int:
        return self.clear(Scope(user_id))


MUTANTS = {
    IgnoresUsers: "test_users_are_apart",
    TakesNoneForAll: "test_sessions_are_apart_from_each_other_and_from_the_user",
    FindsSuperseded: "test_what_is_superseded_is_not_found",
    ForgetsToReplacePoints: "test_only_points_of_one_model_are_compared",
    ComparesAllModels: "test_only_points_of_one_model_are_compared",
    StoresBeforeItChecks: "test_a_bad_item_is_refused_before_anything_is_stored",
    ErasesOneScope: "test_removing_counts_what_was_there",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_adapter_fails_the_test_that_is_named(mutant: type[ProcessMemory]) -> None:
    test = getattr(MemoryContract(), MUTANTS[mutant])
    argument: dict[str, Any] = {
        "test_users_are_apart": {"other": "a/b"},
        "test_sessions_are_apart_from_each_other_and_from_the_user": {"session": "a/b"},
        "test_a_bad_item_is_refused_before_anything_is_stored": {"number": 0},
    }.get(MUTANTS[mutant], {})
    test(ProcessMemory(), **argument)
    with pytest.raises(AssertionError):
        test(mutant(), **argument)
