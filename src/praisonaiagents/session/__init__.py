"""Floor 2: what a session is to a user. Names are loaded when they are first touched."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from praisonaiagents.model.message import Message as SessionMessage
    from praisonaiagents.session.data import SessionData as SessionData
    from praisonaiagents.session.store import DefaultSessionStore as DefaultSessionStore
    from praisonaiagents.session.store import SessionStore as SessionStore
    from praisonaiagents.session.store import get_default_session_store as get_default_session_store

_HOMES = {
    "DefaultSessionStore": ("praisonaiagents.session.store", "DefaultSessionStore"),
    "SessionData": ("praisonaiagents.session.data", "SessionData"),
    "SessionMessage": ("praisonaiagents.model.message", "Message"),
    "SessionStore": ("praisonaiagents.session.store", "SessionStore"),
    "get_default_session_store": ("praisonaiagents.session.store", "get_default_session_store"),
}

__all__ = [
    "DefaultSessionStore",
    "SessionData",
    "SessionMessage",
    "SessionStore",
    "get_default_session_store",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = globals()[name] = getattr(import_module(module), attribute)
    return value
