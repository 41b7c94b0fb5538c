"""A stored conversation keeps up with its session: what others add, and where they take it back to."""

from __future__ import annotations

from typing import Any

import pytest

from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Pin
from praisonaiagents.session import SessionStore
from praisonaiagents.session.conversation import StoredConversation
from praisonaiagents.storage.memory import MemoryEngine

KEY = Key("default_user", "s")


@pytest.fixture
def store() -> SessionStore:
    return SessionStore(MemoryEngine())


@pytest.fixture
def conversation(store: SessionStore) -> StoredConversation:
    store.append("s", [Message("user", text) for text in "abc"])
    conversation = StoredConversation(store, "s", "default_user", agent_name="A")
    conversation.refresh()
    return conversation


def said(conversation: StoredConversation) -> list[Any]:
    return [entry["content"] for entry in conversation.history]


def go_back(store: SessionStore, length: int) -> None:
    log = store.open_session("s").log
    store.engine.update(KEY, {"head": Pin(log, 0, length)})


def test_it_brings_in_what_others_added(store: SessionStore, conversation: StoredConversation) -> None:
    assert said(conversation) == ["a", "b", "c"]
    store.add_user_message("s", "d")
    conversation.refresh()
    assert said(conversation) == ["a", "b", "c", "d"]


def test_it_goes_back_with_its_session(store: SessionStore, conversation: StoredConversation) -> None:
    history = conversation.history
    go_back(store, 1)
    conversation.refresh()
    assert said(conversation) == ["a"]
    assert conversation.history is history  # somebody may hold on to the list
    conversation.add(Message("user", "x"))
    assert said(conversation) == ["a", "x"]


def test_it_notices_new_messages_under_old_numbers(store: SessionStore, conversation: StoredConversation) -> None:
    go_back(store, 1)
    store.append("s", [Message("user", text) for text in "xyz"])
    conversation.refresh()
    assert said(conversation) == ["a", "x", "y", "z"]


def test_it_notices_in_the_middle_of_a_turn(store: SessionStore, conversation: StoredConversation) -> None:
    go_back(store, 1)
    conversation.add(Message("user", "x"))
    assert said(conversation) == ["a", "x"]


def test_a_replaced_history_replaces_it(store: SessionStore, conversation: StoredConversation) -> None:
    store.set_chat_history("s", [{"role": "user", "content": "new"}])
    conversation.refresh()
    assert said(conversation) == ["new"]


def test_trimming_is_no_going_back(store: SessionStore, conversation: StoredConversation) -> None:
    store.engine.update(KEY, {"start": 2})
    store.engine.drop(KEY)
    store.add_user_message("s", "d")
    conversation.refresh()
    assert said(conversation) == ["a", "b", "c", "d"]


def test_a_session_that_was_made_anew_begins_anew(store: SessionStore, conversation: StoredConversation) -> None:
    store.delete_session("s")
    store.append("s", [Message("user", text) for text in "vwxyz"])
    conversation.refresh()
    assert said(conversation) == ["v", "w", "x", "y", "z"]
