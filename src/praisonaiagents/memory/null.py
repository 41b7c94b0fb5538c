"""The memory of an agent that has none, so that nobody has to ask whether there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from praisonaiagents.errors import ConfigError

if TYPE_CHECKING:
    from praisonaiagents.memory.memory import Recalled


class NullMemory:
    """Remembers nothing, finds nothing, and may be closed any number of times."""

    def search(self, query: str, **options: Any) -> list[dict[str, Any]]:
        """Nothing is ever found."""
        return []

    def close_connections(self) -> None:
        """There are none."""


class ForeignMemory(NullMemory):
    """Somebody's memory object, with `search` and `add`: everything is passed on to it, and `close_connections` if it has it."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def search(self, query: str, **options: Any) -> Any:
        return self._memory.search(query, **options)

    def recall(self, query: str) -> list[Recalled]:
        """What its search finds, as far as it can be read: texts, or dicts with a `text`, `memory` or `content`.

        Raises `ConfigError` for anything else, such as a search that is to be awaited.
        """
        from praisonaiagents.memory.memory import RECALL_TOKENS, Recalled, within
        from praisonaiagents.model.memory import MemoryItem, Scope

        found: Any = self._memory.search(query) if query.strip() else None
        if hasattr(found, "__await__") and hasattr(found, "close"):
            found.close()  # nobody will await it
        texts = _texts(found)
        items = [MemoryItem(item_id, Scope("-"), text) for item_id, text in texts.items() if text.strip()]
        return list(
            within([Recalled(item, 0.0, "found by the memory that was given") for item in items], RECALL_TOKENS)
        )

    def close_connections(self) -> None:
        if hasattr(self._memory, "close_connections"):
            self._memory.close_connections()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)


def _texts(found: Any) -> dict[str, str]:
    """What a search of some memory returned: texts by id."""
    found = found.get("results") if isinstance(found, dict) else found
    if found is not None and not isinstance(found, (list, tuple)):
        raise ConfigError(f"the search of the memory that was given returned {type(found).__name__}, not a list")
    texts: dict[str, str] = {}
    for number, entry in enumerate(found or ()):
        fields = entry if isinstance(entry, dict) else {"text": entry}
        text = next((fields[name] for name in ("text", "memory", "content") if isinstance(fields.get(name), str)), "")
        texts[str(fields.get("id") or f"result {number}")] = text
    return texts
