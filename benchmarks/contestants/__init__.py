"""Ways to keep a conversation: ours, plain SQLite, and other libraries, each used as its documentation says.

A contestant is a module of this package with a class `Store`, started in a process of its own by `worker`, with any
interpreter. So nothing here imports `praisonaiagents` at the top, but for `ours` and `praisonai`, which are never in one process.

What a reader would get wrong: they do not promise the same. `durable` says whether an acknowledged message survives a loss
of power, as the library is set when nobody sets it; compare only within one class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Store(Protocol):
    """What every contestant can do. It is made with a folder of its own."""

    def fill(self, session_id: str, count: int) -> None:
        """Make a session of `count` messages, all at once where the library can."""
        ...

    def append(self, session_id: str) -> None:
        """Keep one more message (`Contestant.messages_per_append`)."""
        ...

    def last(self, session_id: str, count: int) -> int:
        """Load the last `count` messages; return how many came."""
        ...

    def newest(self, count: int) -> int:
        """List the newest `count` sessions; return how many came. Not called if `Contestant.lists` is False."""
        ...


class Contestant(NamedTuple):
    """What is known about a contestant without importing it.

    module: in this package. distribution: what has to be installed, if anything. options: for its `Store`.
    reads: whether it is worth measuring more than its appends. lists: whether it can list sessions.
    longest: length of the longest session that is filled in less than half a minute.
    """

    module: str
    distribution: str | None = None
    options: Mapping[str, bool] = {}
    durable: bool = False
    reads: bool = True
    lists: bool = True
    longest: int = 10_000
    messages_per_append: int = 1


OURS = "ours"
OURS_DURABLE = 'ours, durability="full"'
OURS_SQLITE = "ours, SQLite"
OURS_SQLITE_DURABLE = 'ours, SQLite, durability="full"'
CONTESTANTS = {
    OURS: Contestant("ours"),
    OURS_DURABLE: Contestant("ours", options={"durable": True}, durable=True, reads=False),
    OURS_SQLITE: Contestant("ours", options={"sqlite": True}),
    OURS_SQLITE_DURABLE: Contestant("ours", options={"sqlite": True, "durable": True}, durable=True, reads=False),
    "plain SQLite, WAL, NORMAL": Contestant("plain_sqlite"),
    "plain SQLite, WAL, FULL": Contestant("plain_sqlite", options={"durable": True}, durable=True, reads=False),
    "PraisonAI DefaultSessionStore": Contestant("praisonai", "praisonaiagents"),
    "openai-agents SQLiteSession": Contestant("openai_agents", "openai-agents", durable=True, lists=False),
    "langgraph SqliteSaver": Contestant("langgraph_sqlite", "langgraph-checkpoint-sqlite", durable=True),
    "google-adk SqliteSessionService": Contestant("adk_sqlite", "google-adk", durable=True, longest=1_000),
    "agno SqliteDb": Contestant("agno_sqlite", "agno", durable=True, longest=1_000, messages_per_append=2),
    "strands FileSessionManager": Contestant("strands_files", "strands-agents", lists=False),
    "llm LogStore": Contestant("llm_logs", "llm", durable=True, lists=False),
}
