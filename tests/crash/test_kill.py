"""A writer that is killed at any moment loses nothing that it was told was stored, and leaves a file that goes on working.

`python -m tests.crash.kill` does the same more often and prints what it found; `CRASH_ROUNDS` sets how often it is done here.
"""

from __future__ import annotations

import json
import os
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from praisonaiagents.errors import SessionDamage
from praisonaiagents.session.store import DefaultSessionStore

from .children import KEY, SESSION, Child
from .content import message, numbers
from .databases import KINDS, place
from .kill import Summary, judge, kill_writers

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "10"))
FEWER_ROUNDS = -(-ROUNDS * 2 // 5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_acknowledged_survives_a_kill(kind: str) -> None:
    with place(kind) as url:
        summary = kill_writers(url, ROUNDS, random.Random(kind))
    assert summary.sound, f"\n{summary}"
    assert summary.rounds == ROUNDS
    assert summary.acknowledged > 0


def test_the_judge_finds_what_is_wrong() -> None:
    wrong = {"lost": [0, 2], "duplicated": [0, 1, 1, 2], "disordered": [0, 2, 1]}
    for what, found in wrong.items():
        summary = Summary()
        judge(found, 3, summary)
        assert getattr(summary, what) == 1
        assert not summary.sound


def test_a_change_that_is_killed_happened_or_did_not(tmp_path: Path) -> None:
    chance = random.Random("change")
    engine = DefaultSessionStore(tmp_path).engine
    DefaultSessionStore(tmp_path).open_session(SESSION)
    state: dict[str, Any] = {"counter": 0, "numbers": []}
    for number in range(FEWER_ROUNDS):
        child = Child("change", folder=tmp_path, state=state, seed=str(number))
        child.begin()
        for _ in range(chance.randint(1, 30)):
            child.hear()
        before, after = [state, *child.kill()][-2:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SessionDamage)  # of an append that was torn
            found = numbers(engine.read(KEY).messages).get("a", [])
        record = engine.get(KEY)
        assert record is not None
        state = {"counter": record.state.get("counter", 0), "numbers": found}
        assert state in (before, after)
        assert json.loads((tmp_path / "s.json").read_bytes())["message_count"] == len(found)
    assert state["counter"] > 0


def test_a_bounded_session_survives_a_kill(tmp_path: Path) -> None:
    """`max_messages` rewrites the file every few appends; the last ones must be there, in order, whatever is dropped."""
    chance = random.Random("bounded")
    stored = 0
    for _ in range(FEWER_ROUNDS):
        child = Child("append", folder=tmp_path, author="a", first=stored, count=300, max_messages=4)
        child.begin()
        for _ in range(chance.randint(0, 40)):
            child.hear()
        acknowledged = stored + len(child.kill())
        store = DefaultSessionStore(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SessionDamage)
            found = numbers(store.get_chat_history(SESSION)).get("a", [])
        stored = found[-1] + 1 if found else 0
        assert stored in (acknowledged, acknowledged + 1)
        assert found == list(range(stored - len(found), stored))
        assert min(4, stored) <= len(found) <= 8
        assert json.loads((tmp_path / "s.json").read_bytes())["message_count"] == len(found)


def test_a_session_that_is_made_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    chance = random.Random("make")
    made = 0
    store = DefaultSessionStore(tmp_path)
    for _ in range(FEWER_ROUNDS):
        child = Child("make_until_killed", folder=tmp_path, first=made)
        child.begin()
        for _ in range(chance.randint(0, 40)):
            child.hear()
        told = child.kill()
        listed = {session["session_id"]: session["message_count"] for session in store.list_sessions(limit=None)}
        for number in told:
            assert listed[str(number)] >= told.count(number) - 1
        made = len(listed)
        assert set(listed) == {str(number) for number in range(made)}
        assert made - max(told, default=made - 1) - 1 in (0, 1)
        for name in listed:
            assert json.loads((tmp_path / f"{name}.json").read_bytes())["session_id"] == name
        again = str(made - 1)
        if made and not listed[again]:
            store.append(again, [message("a", made - 1)])
    assert all(session["message_count"] == 1 for session in store.list_sessions(limit=None))


@pytest.mark.parametrize("wrong", ["json", "order"])
def test_this_suite_sees_a_file_that_is_broken(tmp_path: Path, wrong: str) -> None:
    """A session in which a message was garbled or moved does not pass for a good one."""
    store = DefaultSessionStore(tmp_path)
    store.append(SESSION, [message("a", number) for number in range(3)])
    path = tmp_path / "s.json"
    lines = path.read_bytes().split(b"\n")
    first = next(index for index, line in enumerate(lines) if line.startswith(b'{"role"'))
    if wrong == "json":
        lines[first] = lines[first].replace(b" 0 ", b" 7 ")
    else:
        lines[first : first + 2] = lines[first + 1], lines[first]
    path.write_bytes(b"\n".join(lines))
    if wrong == "json":
        with pytest.raises(AssertionError, match="garbled"):
            numbers(store.get_chat_history(SESSION))
    else:
        summary = Summary()
        judge(numbers(store.get_chat_history(SESSION))["a"], 3, summary)
        assert not summary.sound
