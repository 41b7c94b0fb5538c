"""What a plan counts is what a database then has less: rows of messages, and bytes of their JSON, in SQLite, which shares them.

Hypothesis makes up sessions with reverts, snapshots and archives, and limits to prune them by.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import closing
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from praisonaiagents.model.record import Key
from praisonaiagents.session import HierarchicalSessionStore
from praisonaiagents.session.prune import Limits, apply, plan

KEY = Key("default_user", "s")
LATER = time.time() + 1_000
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 4)),
        st.tuples(st.just("revert"), st.integers(0, 6)),
        st.tuples(st.just("undo"), st.just(0)),
        st.tuples(st.just("snapshot"), st.just(0)),
        st.tuples(st.just("archive"), st.integers(0, 3)),
        st.tuples(st.just("replace"), st.integers(0, 2)),
    ),
    min_size=1,
    max_size=10,
)
limits = st.fixed_dictionaries(
    {"archives_s": st.none() | st.just(0), "heads_s": st.none() | st.just(0), "snapshots_s": st.none() | st.just(0)},
    optional={
        "max_messages": st.integers(1, 3),
        "idle_s": st.just(0),
        "retention": st.sampled_from(["truncate", "archive"]),
    },
)


def take(store: HierarchicalSessionStore, step: str, count: int) -> None:
    if step == "say":
        for number in range(count):
            store.add_user_message("s", f"message {number} " + "x" * number)
    elif step == "revert":
        store.revert_to_message("s", count)
    elif step == "undo":
        store.undo("s")
    elif step == "snapshot":
        store.create_snapshot("s")
    elif step == "replace":
        store.set_chat_history("s", [{"role": "user", "content": "new"}] * count)
    else:
        record = store.open_session("s")
        store.engine.update(KEY, {"start": min(record.start + count, record.length)})


def held(path: str) -> tuple[int, int]:
    """Messages in the database, and bytes of them."""
    with closing(sqlite3.connect(path)) as database:
        [row] = database.execute("SELECT count(*), coalesce(sum(length(CAST(body AS BLOB))), 0) FROM message")
    return int(row[0]), int(row[1])


@given(steps, limits)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_plan_counts_what_a_database_then_has_less(steps: list[Any], limits: dict[str, Any]) -> None:
    if all(value is None for name, value in limits.items() if name != "retention"):
        limits = limits | {"heads_s": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s.db"
        with closing(HierarchicalSessionStore(url=f"sqlite:///{path}")) as store:
            store.open_session("s")
            for step, count in steps:
                take(store, step, count)
            shown = store.messages("s")
            messages, size = held(path)
            found = plan(store, Limits(**limits), now=LATER)
            assert held(path) == (messages, size)
            assert apply(store, found).spared == []
            assert held(path) == (messages - found.messages, size - found.bytes)
            left = store.messages("s")
            assert left == shown[len(shown) - len(left) :]
