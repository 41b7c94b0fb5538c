"""langgraph: a graph over `MessagesState` with `SqliteSaver`; one `update_state`, so one checkpoint, for each message.

It lists checkpoints, not sessions: the listing walks them, newest first, until enough different threads were seen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from benchmarks.inputs import ROLES, text


class Store:
    """A thread is a session."""

    def __init__(self, folder: str) -> None:
        graphs: Any = import_module("langgraph.graph")
        messages: Any = import_module("langchain_core.messages")
        self._kinds = dict(zip(ROLES, (messages.HumanMessage, messages.AIMessage), strict=True))
        self._saver = import_module("langgraph.checkpoint.sqlite").SqliteSaver(
            sqlite3.connect(f"{folder}/checkpoints.db", check_same_thread=False)
        )
        builder = graphs.StateGraph(graphs.MessagesState)
        builder.add_node("talk", lambda state: {})
        builder.add_edge(graphs.START, "talk")
        self._graph = builder.compile(checkpointer=self._saver)

    def fill(self, session_id: str, count: int) -> None:
        self._add(session_id, range(count))

    def append(self, session_id: str) -> None:
        self._add(session_id, (0,))

    def last(self, session_id: str, count: int) -> int:
        return len(self._graph.get_state(_config(session_id)).values["messages"][-count:])

    def newest(self, count: int) -> int:
        seen: set[str] = set()
        for checkpoint in self._saver.list(None):
            seen.add(checkpoint.config["configurable"]["thread_id"])
            if len(seen) == count:
                break
        return len(seen)

    def _add(self, session_id: str, numbers: Iterable[int]) -> None:
        messages = [self._kinds[ROLES[i % 2]](text(session_id, i)) for i in numbers]
        self._graph.update_state(_config(session_id), {"messages": messages}, as_node="talk")


def _config(session_id: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": session_id}}
