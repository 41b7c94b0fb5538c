"""Floor 2: what a session is to a user. Names are loaded when they are first touched."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from praisonaiagents.model.message import Message as SessionMessage
    from praisonaiagents.session.aio import AsyncSessionStore as AsyncSessionStore
    from praisonaiagents.session.data import SessionData as SessionData
    from praisonaiagents.session.hierarchy import HierarchicalSessionStore as HierarchicalSessionStore
    from praisonaiagents.session.hierarchy import get_hierarchical_session_store as get_hierarchical_session_store
    from praisonaiagents.session.hits import SessionHit as SessionHit
    from praisonaiagents.session.places import get_default_session_store as get_default_session_store
    from praisonaiagents.session.places import open_store as open_store
    from praisonaiagents.session.retry import retry_on_conflict as retry_on_conflict
    from praisonaiagents.session.store import DefaultSessionStore as DefaultSessionStore
    from praisonaiagents.session.store import SessionStore as SessionStore

_HOMES = {
    "AsyncSessionStore": ("praisonaiagents.session.aio", "AsyncSessionStore"),
    "DefaultSessionStore": ("praisonaiagents.session.store", "DefaultSessionStore"),
    "HierarchicalSessionStore": ("praisonaiagents.session.hierarchy", "HierarchicalSessionStore"),
    "SessionData": ("praisonaiagents.session.data", "SessionData"),
    "SessionHit": ("praisonaiagents.session.hits", "SessionHit"),
    "SessionMessage": ("praisonaiagents.model.message", "Message"),
    "SessionStore": ("praisonaiagents.session.store", "SessionStore"),
    "get_default_session_store": ("praisonaiagents.session.places", "get_default_session_store"),
    "get_hierarchical_session_store": ("praisonaiagents.session.hierarchy", "get_hierarchical_session_store"),
    "open_store": ("praisonaiagents.session.places", "open_store"),
    "retry_on_conflict": ("praisonaiagents.session.retry", "retry_on_conflict"),
}

__all__ = [
    "AsyncSessionStore",
    "DefaultSessionStore",
    "HierarchicalSessionStore",
    "SessionData",
    "SessionHit",
    "SessionMessage",
    "SessionStore",
    "get_default_session_store",
    "get_hierarchical_session_store",
    "open_store",
    "retry_on_conflict",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = globals()[name] = getattr(import_module(module), attribute)
    return value
