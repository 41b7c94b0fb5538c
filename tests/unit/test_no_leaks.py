"""Opening, using and closing leaves no file, thread or connection behind, on every engine and adapter.

`LEAK_CYCLES=1000` does it a thousand times.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mongomock
import pytest
from crash.databases import KINDS, place

from praisonaiagents import Agent, Memory, Session
from praisonaiagents.memory.adapter import MemoryAdapter
from praisonaiagents.memory.chroma import ChromaMemory
from praisonaiagents.memory.mongodb import MongoMemory
from praisonaiagents.memory.process import ProcessMemory
from praisonaiagents.memory.sqlite import SqliteMemory
from praisonaiagents.model.memory import MemoryItem, Scope

CYCLES = int(os.environ.get("LEAK_CYCLES", "200"))
PATIENCE = 200
ROUND = 20  # cycles before it is counted: what is made once, such as the background loop, is no leak


def held() -> tuple[int, int]:
    """(open files and sockets, threads) of this process, without the worker threads that an event loop keeps for all."""
    gc.collect()
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
    return len(os.listdir("/proc/self/fd")), len(threads)


def leaks(cycle: Callable[[int], object], cycles: int = CYCLES) -> tuple[int, int]:
    """What so many cycles leave behind."""
    for number in range(min(ROUND, cycles)):
        cycle(number)
    before = held()
    for number in range(cycles):
        cycle(number)
    after = held()
    for _ in range(PATIENCE):
        if after[0] <= before[0] and after[1] <= before[1]:
            break
        time.sleep(0.05)  # a driver's thread ends by itself, a moment after it was told to
        after = held()
    return max(0, after[0] - before[0]), max(0, after[1] - before[1])


pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")


@pytest.fixture(params=["memory", *KINDS])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "memory":
        yield "memory://"
        return
    with place(request.param) as found:
        yield found


def test_sessions_on_every_engine(url: str) -> None:
    def cycle(number: int) -> None:
        session = Session("s", f"user {number % 7}", db=url)
        session.increment_state("n")
        session.close()
        session.close()

    assert leaks(cycle) == (0, 0)


def test_sessions_that_nobody_closes(url: str) -> None:
    def cycle(number: int) -> None:
        Session("s", db=url).get_state("n")

    assert leaks(cycle, cycles=200) == (0, 0)


def test_sessions_with_agents_and_memory(home: Path) -> None:
    def cycle(number: int) -> None:
        with Session("s", db=f"sqlite:///{home}/s.db", memory_config={"auto_memory": True}) as session:
            session.Agent("A", llm="offline").chat("My name is Alice")

    assert leaks(cycle, cycles=50) == (0, 0)  # a turn takes as long as thirty other cycles


def test_agents_with_memory() -> None:
    def cycle(number: int) -> None:
        agent = Agent("A", llm="offline", memory=True)
        agent.store_memory("Likes tea")
        assert agent.get_memory_context("tea")
        agent._memory_instance.close_connections()
        agent.close()

    assert leaks(cycle, cycles=200) == (0, 0)


def test_memories() -> None:
    def cycle(number: int) -> None:
        with Memory(f"user {number % 7}") as memory:
            memory.add("Likes tea")
            assert memory.search("tea")

    assert leaks(cycle, cycles=200) == (0, 0)


@pytest.mark.parametrize(
    ("make", "cycles"),
    [
        (lambda folder: ProcessMemory(), CYCLES),
        (lambda folder: SqliteMemory(folder / "memory.db"), CYCLES),
        (lambda folder: MongoMemory(client=mongomock.MongoClient()), CYCLES),
        (lambda folder: MongoMemory("mongodb://localhost:1/?serverSelectionTimeoutMS=1"), 5),  # half a second each
        (lambda folder: ChromaMemory(path=str(folder / "chroma")), 100),  # opening its folder takes 20 ms
    ],
    ids=["process", "sqlite", "mongodb", "no-mongodb", "chroma"],
)
def test_adapters(make: Callable[[Path], MemoryAdapter], cycles: int, tmp_path: Path) -> None:
    def cycle(number: int) -> None:
        adapter = make(tmp_path)
        try:
            adapter.put([MemoryItem("mem-1", Scope("alice"), "Likes tea")])
            assert adapter.search_text(Scope("alice"), ["tea"])
        except ConnectionError:
            assert isinstance(adapter, MongoMemory)  # the one whose server is not there
        adapter.close()
        adapter.close()

    assert leaks(cycle, cycles) == (0, 0)
