"""An agent's list and what the store says is sent are one and the same, whatever others do to the session meanwhile.

Hypothesis makes up what happens: turns of the agent (with tool calls), messages of others, compactions, going back, archiving.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key
from praisonaiagents.session.checkpoint import checkpoint_of
from praisonaiagents.session.compaction import Policy, compact
from praisonaiagents.session.conversation import StoredConversation
from praisonaiagents.session.hierarchy import HierarchicalSessionStore
from praisonaiagents.session.store import SessionStore
from praisonaiagents.storage.memory import MemoryEngine

KEY = Key("default_user", "s")


class Talking(RuleBasedStateMachine):
    """One session, the conversation of one agent in it, and everybody else."""

    @initialize(at=st.none() | st.integers(2, 8), keep=st.none() | st.integers(1, 4))
    def begin(self, at: int | None, keep: int | None) -> None:
        self.store = HierarchicalSessionStore.of(SessionStore(MemoryEngine(), retention="compact"))
        self.store.open_session("s")
        self.policy = Policy(at_messages=at, keep_last=keep)
        self.turns = 0
        self.sent: list[Message] = []
        self.run = ""
        self.enter()

    def enter(self) -> None:
        self.conversation = StoredConversation(self.store, "s", "default_user", agent_name=None, policy=self.policy)

    @rule(calls=st.integers(0, 2), others=st.integers(0, 2))
    def turn(self, calls: int, others: int) -> None:
        self.turns += 1
        self.run = f"run-{self.turns}"
        self.conversation.refresh()
        self.conversation.add(Message("user", f"q{self.turns}", run_id=self.run))
        for number in range(others):
            self.store.append("s", [Message("user", f"meanwhile {number}", run_id="other")])
        if work := self.conversation.too_long():
            self.conversation.compacted(work, ["sum"] * len(work.sources))
        self.sent = self.conversation.for_model(self.run)
        assert self.sent[-1].content == f"q{self.turns}"
        ids = [f"c{self.turns}.{number}" for number in range(calls)]
        if ids:
            made = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ids]
            self.conversation.add(Message("assistant", None, tool_calls=made, run_id=self.run))
        for name in ids:
            self.conversation.add(Message("tool", "r", tool_call_id=name, run_id=self.run))
        self.conversation.add(Message("assistant", f"a{self.turns}", run_id=self.run))

    @rule(count=st.integers(1, 3))
    def others_speak(self, count: int) -> None:
        self.store.append("s", [Message("user", "other", run_id="other")] * count)

    @rule(keep=st.integers(1, 6), tokens=st.integers(1, 60))
    def others_compact(self, keep: int, tokens: int) -> None:
        compact(self.store, "s", lambda messages: f"told {len(messages)}", keep_last=keep, source_tokens=tokens)

    @rule(index=st.integers(0, 12))
    def others_go_back(self, index: int) -> None:
        self.store.revert_to_message("s", index)

    @rule()
    def others_undo(self) -> None:
        self.store.undo("s")

    @rule()
    def others_archive_what_is_told(self) -> None:
        checkpoint = checkpoint_of(self.store.open_session("s"))
        if checkpoint:
            self.store.engine.update(KEY, {"start": checkpoint.number})

    @rule()
    def start_anew(self) -> None:
        self.enter()

    @invariant()
    def the_list_is_what_the_store_says(self) -> None:
        if not hasattr(self, "conversation"):
            return
        self.conversation.refresh()
        mine: list[Any] = [dict(entry) for entry in self.conversation.history]
        said = self.store.get_working_history("s")
        assert mine == said

    @invariant()
    def no_pair_is_torn(self) -> None:
        calls: set[str] = set()
        for message in getattr(self, "sent", []):
            assert message.role != "tool" or message.tool_call_id in calls
            calls |= {call["id"] for call in message.calls()}


TestTalking = Talking.TestCase
TestTalking.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
