"""The store for asyncio: the same methods, and a loop that never waits."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from praisonaiagents.model.message import Message
from praisonaiagents.session import AsyncSessionStore, DefaultSessionStore, SessionStore
from praisonaiagents.storage.memory import MemoryEngine

PURE = {"shown"}  # looks at a list it is given


def test_no_method_is_missing() -> None:
    sync = {
        name
        for name, value in inspect.getmembers(SessionStore, inspect.isfunction)
        if not name.startswith("_") and name not in PURE
    }
    assert sync == {name for name in dir(AsyncSessionStore) if not name.startswith("_")} - {"store"}


def test_every_method_takes_the_same_arguments() -> None:
    for name in dir(AsyncSessionStore):
        if name.startswith("_") or name in ("close", "store"):
            continue
        method = getattr(AsyncSessionStore, name)
        assert inspect.iscoroutinefunction(method), name
        assert inspect.signature(method) == inspect.signature(getattr(SessionStore, name)), name


def test_it_does_what_the_store_does() -> None:
    async def talk() -> None:
        async with AsyncSessionStore(SessionStore(MemoryEngine())) as store:
            await store.add_user_message("s", "Hello!")
            await store.append("s", [Message("assistant", "Hi!")], expected_length=1)
            assert await store.get_chat_history("s") == [
                {"role": "user", "content": "Hello!"},
                {"role": "assistant", "content": "Hi!"},
            ]
            assert [hit.message_index for hit in await store.search("hi")] == [1]
            with pytest.raises(TypeError):
                await store.search(5)  # type: ignore[arg-type]

    asyncio.run(talk())


class _Slow(MemoryEngine):
    """Appends wait until somebody opens the gate. `most` is how many waited at once."""

    concurrency = 3

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.waiting = self.most = 0
        self._count = threading.Lock()

    def append(self, *args, **options):  # type: ignore[no-untyped-def]
        with self._count:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        assert self.gate.wait(60)
        with self._count:
            self.waiting -= 1
        return super().append(*args, **options)


def test_the_loop_goes_on_while_the_engine_is_slow() -> None:
    """Were the loop to wait for an append, the gate would never open."""
    engine = _Slow()

    async def talk() -> None:
        async with AsyncSessionStore(SessionStore(engine)) as store:
            calls = [asyncio.create_task(store.add_user_message(f"s{number}", "a")) for number in range(20)]
            while engine.most < engine.concurrency:
                await asyncio.sleep(0.001)
            engine.gate.set()
            assert await asyncio.gather(*calls) == [True] * 20

    asyncio.run(talk())
    assert engine.most == engine.concurrency


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with closing(DefaultSessionStore(tmp_path)) as store:
        yield store


def test_two_hundred_sessions_on_one_loop(store: SessionStore) -> None:
    """All make progress, and the loop runs between any two appends of a session."""
    rounds = 5
    done = [0] * 200

    async def session(number: int, shared: AsyncSessionStore) -> None:
        for _ in range(rounds):
            await shared.add_user_message(f"s{number}", "Hello!")
            done[number] += 1
            assert done[number] - min(done) <= 2  # nobody is left behind

    async def talk() -> None:
        async with AsyncSessionStore(store) as shared:
            await asyncio.gather(*(session(number, shared) for number in range(200)))

    asyncio.run(talk())
    assert done == [rounds] * 200
    assert {len(store.messages(f"s{number}")) for number in range(200)} == {rounds}


def test_a_cancelled_append_is_stored_or_not_and_never_half(store: SessionStore) -> None:
    async def talk() -> None:
        async with AsyncSessionStore(store) as shared:
            for number in range(20):
                call = asyncio.create_task(shared.append("s", [Message("user", f"{number}{part}") for part in "ab"]))
                await asyncio.sleep(0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call

    asyncio.run(talk())
    said = [message.content for message in store.messages("s")]
    assert said == [f"{text[:-1]}{part}" for text in said[::2] for part in "ab"]
    assert len(set(said)) == len(said)
