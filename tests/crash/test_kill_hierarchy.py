"""A process that forks, takes snapshots and goes back and forth is killed: each step happened whole, or not at all."""

from __future__ import annotations

import os
import random
import warnings
from contextlib import closing

import pytest

from praisonaiagents.errors import SessionDamage
from praisonaiagents.session.hierarchy import HierarchicalSessionStore

from .children import SESSION, Child
from .databases import KINDS, place

ROUNDS = -(-int(os.environ.get("CRASH_ROUNDS", "25")) // 3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_happened_whole_or_not_at_all(kind: str) -> None:
    chance = random.Random(kind)
    with place(kind) as url:
        for number in range(ROUNDS):
            session_id = f"{SESSION}{number}"
            child = Child("go_back_and_forth", url=url, session_id=session_id, seed=f"{kind} {number}")
            child.begin()
            for _ in range(chance.randint(1, 60)):
                assert child.hear() is not None
            for _ in range(chance.randint(0, 20_000)):
                pass  # a part of the time that a step takes
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SessionDamage)  # of an append that was torn
                check(url, session_id, child.kill())


def check(url: str, session_id: str, told: list[list[object]]) -> None:
    """What the session, its snapshots and its forks show, against what the process said."""
    nows = [text for kind, *_, text in told if kind == "now"]
    now = nows[-1] if nows else []
    last_kind, *_, last = told[-1] if told else ("now", now)
    allowed = [now, last] if last_kind == "next" else [now]
    with closing(HierarchicalSessionStore(url=url)) as store:
        assert said(store, session_id) in allowed
        for kind, name, *texts in told:
            if kind == "fork":
                assert said(store, str(name)) == texts[0]
        promised = {str(name): texts[0] for kind, name, *texts in told if kind == "snapshot"}
        kept = [snapshot.id for snapshot in store.get_snapshots(session_id)]
        assert [name for name in kept if name in promised] == list(promised)
        assert len(kept) <= len(promised) + 1
        for name, texts in promised.items():
            assert said(store, store.fork_session(session_id, at=name)) == texts
        for head in store.heads(session_id)[:-1]:
            assert len(said(store, store.fork_session(session_id, at=head.ref))) == head.message_count
        assert set(store.get_children(session_id)) >= {str(name) for kind, name, *_ in told if kind == "fork"}
        store.add_user_message(session_id, "and it goes on")
        assert said(store, session_id)[-1] == "and it goes on"


def said(store: HierarchicalSessionStore, session_id: str) -> list[object]:
    return [message.content for message in store.messages(session_id)]
