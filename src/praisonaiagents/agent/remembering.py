"""What a turn has to do with the long-term memory: what the model is told first, and what is kept afterwards.

The user's message carries the ids of the memories that were told with it, and why each was (`metadata["memories"]`), so that
it can be seen later what an answer was made from. What is kept is extracted by the model, or by rules where there is none.

What a reader would get wrong: the memory is an aid. If it cannot be read or written the turn goes on, with a warning; the
conversation itself is stored elsewhere and loses nothing.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

from pydantic_ai.models import Model

from praisonaiagents.agent.offline import OfflineModel
from praisonaiagents.memory.facts import Fact
from praisonaiagents.memory.memory import Memory, Recalled, told
from praisonaiagents.memory.null import ForeignMemory
from praisonaiagents.model.memory import Source
from praisonaiagents.session.uncut import in_thread

TIMEOUT_S = 30.0  # of the model that says what is worth keeping, if the turn has no timeout
MEMORIES = "memories"
"""The key of a user message's metadata: `[{"id", "why"}]` of what the model was told with it."""


class NotRemembered(RuntimeWarning):
    """The long-term memory could not be read, or something could not be kept there. The turn went on without."""


class TurnMemory:
    """The memory, in one turn. auto: whether the turn is looked through for what is worth keeping."""

    def __init__(self, memory: Memory | ForeignMemory, *, auto: bool) -> None:
        self._memory = memory
        self._auto = auto
        self._recalled: list[Recalled] = []

    async def recall(self, prompt: str) -> str:
        """What the model is told besides its instructions; empty if that is nothing."""
        try:
            self._recalled = await in_thread(self._memory.recall, prompt)
        except Exception as exc:
            _warn("the memory could not be read", exc)
        return told(self._recalled)

    def metadata(self) -> dict[str, Any]:
        """What the user's message carries."""
        return (
            {MEMORIES: [{"id": found.item.id, "why": found.why} for found in self._recalled]} if self._recalled else {}
        )

    async def keep(
        self, model: Model, prompt: str, answer: str, source: Source | None, timeout_s: float | None = None
    ) -> None:
        """Keep what is worth it of what the user said and was answered. timeout_s: of the model, in seconds."""
        memory = self._memory
        if not self._auto or not prompt.strip() or not isinstance(memory, Memory):
            return
        facts = await self._facts(model, prompt, answer, timeout_s or TIMEOUT_S)
        try:
            if facts:
                await in_thread(memory.remember, facts, source)
        except Exception as exc:
            _warn("something could not be remembered", exc)

    async def _facts(self, model: Model, prompt: str, answer: str, timeout_s: float) -> list[Fact]:
        from praisonaiagents.memory.rules import extract

        if isinstance(model, OfflineModel):
            return extract(prompt, answer)
        try:
            from praisonaiagents.agent.extraction import extract_by_model

            known = [found.item for found in self._recalled]
            async with asyncio.timeout(timeout_s):
                return await extract_by_model(model, prompt, answer, known)
        except Exception as exc:
            _warn("the model did not say what to remember, so rules did", exc)
            return extract(prompt, answer)


def _warn(what: str, exc: Exception) -> None:
    """Only our own errors are quoted: those of others may hold a message or a key."""
    from praisonaiagents.errors import PraisonError

    why = exc if isinstance(exc, PraisonError) else type(exc).__name__
    # a registry of its own: Python would tell of the same failure only once
    warnings.warn_explicit(NotRemembered(f"{what}: {why}"), None, __file__, 0, __name__, registry={})
