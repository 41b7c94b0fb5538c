"""One question to a model about a conversation, outside of any session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from praisonaiagents.errors import ConfigError

if TYPE_CHECKING:
    from praisonaiagents.agent.agent import Agent


def model_at_hand(llm: str | None) -> Agent | None:
    """An agent without a session; None if all there is is the offline model, which can neither name nor sum up anything."""
    from praisonaiagents.agent.agent import Agent
    from praisonaiagents.agent.models import OFFLINE, choose_model

    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")  # it greets programmers who use the library; nobody here does
    if choose_model(llm).name == OFFLINE:
        return None
    return Agent("Assistant", instructions="You do exactly what you are asked to, and say nothing else.", llm=llm)


def ask_once(question: str, llm: str | None, *, instead: str) -> str:
    """A model's answer. Raises `ConfigError`, which says what to do `instead`, if there is no model."""
    agent = model_at_hand(llm)
    if agent is None:
        raise ConfigError(f"there is no model at hand: name one with --llm or set OPENAI_API_KEY, or {instead}")
    with agent:
        return agent.chat(question)
