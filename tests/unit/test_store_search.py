"""`SessionStore.search`: what it finds, for whom, and how it shows it."""

from __future__ import annotations

from typing import Any

import pytest

from praisonaiagents.errors import ConfigError
from praisonaiagents.model.message import Message
from praisonaiagents.session import SessionHit, SessionStore
from praisonaiagents.storage.memory import MemoryEngine
from praisonaiagents.storage.scan import scan


@pytest.fixture
def store() -> SessionStore:
    store = SessionStore(MemoryEngine())
    store.add_user_message("food", "My name is Alice and I love pizza")
    store.add_assistant_message("food", "Noted. What do you love about it?")
    store.rename_session("food", "About food")
    store.add_user_message("travel", "你好，我想去北京旅行", user_id="bob")
    return store


def test_a_hit_says_where_it_is(store: SessionStore) -> None:
    (hit,) = store.search("pizza")
    message = store.messages("food")[0]
    assert (hit.session_id, hit.user_id, hit.message_index, hit.role) == ("food", "default_user", 0, "user")
    assert (hit.message_id, hit.title, hit.snippet) == (message.id, "About food", message.content)
    assert hit.when.endswith("+00:00")
    assert hit.as_dict()["message_index"] == 0
    assert SessionHit(**hit.as_dict()) == hit


def test_the_index_of_a_hit_is_that_of_the_chat_history() -> None:
    store = SessionStore(MemoryEngine(), max_messages=2)
    for number in range(9):
        store.add_user_message("s", f"needle {number}")
    for hit in store.search("needle"):
        assert store.engine.read(store.open_session("s").key).messages[hit.message_index].text() == hit.snippet


def test_users_find_their_own(store: SessionStore) -> None:
    assert store.search("北京") == []
    assert [hit.session_id for hit in store.search("北京", user_id="bob")] == ["travel"]
    assert store.search("pizza", user_id="bob") == []
    assert len(store.search("旅行", all_users=True)) == 1


def test_nothing_is_found_without_a_word(store: SessionStore) -> None:
    assert store.search("") == store.search("?!") == []


@pytest.mark.parametrize("query", [None, 5, b"x", ["x"]])
def test_a_query_is_text(store: SessionStore, query: Any) -> None:
    with pytest.raises(TypeError, match="query"):
        store.search(query)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, None, "5"])
def test_a_limit_is_a_number(store: SessionStore, limit: Any) -> None:
    with pytest.raises(ConfigError, match="limit"):
        store.search("x", limit=limit)


def test_a_search_that_stops_early_says_so(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.search("pizza").complete
    monkeypatch.setattr(
        MemoryEngine, "search", lambda self, user_id, query, *, limit: scan(self, user_id, query, limit=limit, budget=1)
    )
    hits = store.search("pizza")
    assert (list(hits), hits.complete) == ([], False)
    assert store.search("noted").complete is False  # it was found, but there may be more


def test_a_scan_that_saw_everything_is_complete() -> None:
    engine = MemoryEngine()
    store = SessionStore(engine)
    store.append("s", [Message("user", f"needle {number}") for number in range(1200)])
    found = store.search("needle", limit=2000)
    assert (len(found), found.complete) == (1200, True)
    assert [hit.message_index for hit in found] == list(reversed(range(1200)))


def test_no_text_is_in_a_repr(store: SessionStore) -> None:
    assert "pizza" not in repr(store.search("pizza"))
