"""Random lives of two users: whatever happened to their sessions, a place is whole, and a purge leaves nothing of one of them.

What the other one sees is compared with what it saw before, and the bytes are read here, not by the code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from praisonaiagents.session import HierarchicalSessionStore, open_store
from praisonaiagents.session.erase import purge
from praisonaiagents.session.verify import verify

USERS = ("alice", "bobby")
IDS = ("one", "two", "three")
_numbers = st.integers(0, 9)
_steps = st.lists(
    st.tuples(st.sampled_from(USERS), st.sampled_from(IDS), st.sampled_from(IDS), st.integers(0, 8), _numbers),
    min_size=5,
    max_size=60,
)
_settings = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Life:
    """Does what steps say, as far as it can be done."""

    def __init__(self, store: HierarchicalSessionStore) -> None:
        self._store = store
        self._said = 0

    def step(self, user_id: str, session_id: str, other: str, kind: int, number: int) -> None:
        done: list[Callable[..., object]] = [
            self._say, self._say, self._say, self._fork, self._snapshot, self._revert, self._undo, self._archive, self._forget
        ]  # fmt: skip
        if kind == 0 or self._store.session_exists(session_id, user_id=user_id):
            done[kind](session_id, other, number, user_id)

    def _say(self, session_id: str, _: str, number: int, user_id: str) -> None:
        for _ in range(number % 3 + 1):
            self._said += 1
            self._store.add_user_message(session_id, f"text {self._said} of {user_id} is unmistakable", user_id=user_id)

    def _fork(self, session_id: str, other: str, _: int, user_id: str) -> None:
        if not self._store.session_exists(other, user_id=user_id):
            self._store.fork_session(session_id, new_session_id=other, user_id=user_id)

    def _snapshot(self, session_id: str, _: str, number: int, user_id: str) -> None:
        self._store.create_snapshot(session_id, f"label {number} of {user_id}", user_id=user_id)

    def _revert(self, session_id: str, _: str, number: int, user_id: str) -> None:
        self._store.revert_to_message(session_id, number, user_id=user_id)

    def _undo(self, session_id: str, _: str, __: int, user_id: str) -> None:
        self._store.undo(session_id, user_id=user_id)

    def _archive(self, session_id: str, _: str, number: int, user_id: str) -> None:
        record = self._store.open_session(session_id, user_id=user_id)
        self._store.engine.update(record.key, {"start": min(record.length, record.start + number % 3)})

    def _forget(self, session_id: str, _: str, number: int, user_id: str) -> None:
        if number % 2:
            self._store.search("unmistakable", user_id=user_id)
        else:
            purge(self._store, user_id=user_id, session_id=session_id)


def seen(store: HierarchicalSessionStore, user_id: str) -> list[Any]:
    """All that a user's sessions hold."""
    records = sorted(store.engine.list_sessions(user_id).records, key=lambda record: record.session_id)
    return [
        (
            record.session_id,
            store.engine.read(record.key, 0),
            [(name, store.engine.read(record.key, at=pin)) for name, pin in record.pins.items()],
        )
        for record in records
    ]


@pytest.mark.parametrize("kind", ["memory", "file", "sqlite"])
@given(steps=_steps)
@_settings
def test_whatever_happened_a_place_is_whole_and_can_forget(
    kind: str, steps: list[tuple[str, str, str, int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        urls = {"memory": "memory://", "file": f"file://{name}/s", "sqlite": f"sqlite:///{name}/s.db"}
        with open_store(urls[kind]) as opened:
            store = HierarchicalSessionStore.of(opened)
            life = Life(store)
            for step in steps:
                life.step(*step)
            assert verify(store, all_users=True).is_whole
            before = seen(store, "bobby")
            done = purge(store, user_id="alice")
            assert (done.is_clean, done.proof.left) == (True, [])
            assert seen(store, "bobby") == before
            assert verify(store, all_users=True).is_whole
        files = [path for path in Path(name).rglob("*") if path.is_file()]
        left = b"".join(path.read_bytes() for path in files) + b"".join(
            str(path).encode() for path in Path(name).rglob("*")
        )
        assert b"alice" not in left
