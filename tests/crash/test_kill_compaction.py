"""Processes that compact one session: killed at any moment, and two of them at once. Whatever they do, nothing is told twice
or not at all: the summary says which messages it was made from, and what follows it are the others.
"""

from __future__ import annotations

import random
import signal
import warnings
from pathlib import Path

import pytest
from wire import started

from praisonaiagents.errors import SessionDamage
from praisonaiagents.session import open_store
from praisonaiagents.session.checkpoint import checkpoint_of

WRITER = """
    import os, sys
    from praisonaiagents.model.message import Message
    from praisonaiagents.session import open_store
    from praisonaiagents.session.compaction import compact

    def ids(messages):
        return " ".join(message.id for message in messages)

    store = open_store(sys.argv[1])
    number = int(sys.argv[2])
    while True:
        store.append("s", [Message("user", f"q{number}"), Message("assistant", f"a{number}")])
        compact(store, "s", ids, keep_last=3, source_tokens=60)
        os.write(1, b"%d\\n" % number)
        number += 1
"""
RIVAL = """
    import os, sys
    from praisonaiagents.session import open_store
    from praisonaiagents.session.compaction import compact

    def slow(messages):
        os.write(1, b"asked\\n")
        sys.stdin.readline()
        return " ".join(message.id for message in messages)

    done = compact(open_store(sys.argv[1]), "s", slow, keep_last=2)
    os.write(1, b"won\\n" if done else b"lost\\n")
"""
PLACES = {"file": "file://{}/sessions", "sqlite": "sqlite:///{}/s.db"}


@pytest.fixture(params=PLACES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return PLACES[request.param].format(tmp_path)


def look(url: str) -> int:
    """Check what is told and what follows; how many messages there are."""
    with warnings.catch_warnings(), open_store(url) as store:
        warnings.simplefilter("ignore", SessionDamage)  # a torn line may be repaired
        messages = store.messages("s")
        checkpoint = checkpoint_of(store.open_session("s"))
        told = checkpoint.number if checkpoint else 0
        parts = checkpoint.parts if checkpoint else ()
        assert [part.first for part in parts] == [0, *(part.stop for part in parts)][: len(parts)]
        for part in parts:
            assert part.summary.split() == [message.id for message in messages[part.first : part.stop]]
        working = store.get_working_history("s")[bool(checkpoint) :]
        assert working == [message.to_chat() for message in messages[told:]]
        return len(messages)


def test_a_writer_that_is_killed_leaves_a_summary_that_is_true(url: str) -> None:
    chance = random.Random("compaction")
    said = 0
    for _ in range(6):
        with started(WRITER, url, str(said)) as (process, output):
            for _ in range(chance.randint(1, 12)):
                said = int(output.readline()) + 1
            for _ in range(chance.randint(0, 20_000)):
                pass  # a part of the time that a compaction takes
            process.send_signal(signal.SIGKILL)
            process.wait()
        kept = look(url)
        assert kept >= 2 * said
        said = max(said, kept // 2)


def test_of_two_processes_one_wins(url: str) -> None:
    with open_store(url) as store:
        for number in range(5):
            store.add_user_message("s", f"q{number}")
    with started(RIVAL, url) as (one, said_by_one), started(RIVAL, url) as (two, said_by_two):
        assert said_by_one.readline() == said_by_two.readline() == "asked\n"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert sorted([said_by_one.readline(), said_by_two.readline()]) == ["lost\n", "won\n"]
        one.wait()
        two.wait()
    assert look(url) == 5
