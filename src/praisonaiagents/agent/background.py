"""One event loop in one background thread, on which every synchronous call of an agent runs.

So `agent.chat()` works in a script, in a thread, and in a notebook whose own loop is running already, and connections to a
model are kept between calls. Pressing Ctrl-C cancels the call on the loop, waits until it has tidied up, and then raises.
A forked child gets a loop of its own with its first call.

What a reader would get wrong: the loop's own thread must never wait for a call, because the call would wait for the thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Generic, TypeVar

from praisonaiagents.errors import ConfigError

T = TypeVar("T")
_CANCEL_AGAIN_S = 0.5

_loops: dict[int, asyncio.AbstractEventLoop] = {}
"""By process id. A parent's loop stays, because collecting it in a child would disturb the parent."""


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop, started with the first call in this process (also in a forked child)."""
    loop = _loops.get(os.getpid())
    if loop is None:
        made = asyncio.new_event_loop()
        loop = _loops.setdefault(os.getpid(), made)  # no lock: one that is held during a fork stays held in the child
        if loop is made:
            threading.Thread(target=loop.run_forever, name="praisonai-agents", daemon=True).start()
        else:
            made.close()
    return loop


def in_background() -> bool:
    """True on the background loop: what runs there was called synchronously."""
    loop = _loops.get(os.getpid())
    return loop is not None and _on_loop(loop)


def _on_loop(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class Call(Generic[T]):
    """A coroutine running on the loop, seen from another thread. `result` is there only after it has really ended."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.ended: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.ended.set_running_or_notify_cancel()  # so that only the coroutine's own end ends it
        self._coroutine = coroutine
        self._loop = background_loop()
        if _on_loop(self._loop):
            coroutine.close()
            raise ConfigError("an async tool cannot call an agent synchronously: await its achat, arun or astart")
        self._loop.call_soon_threadsafe(self._start)

    def cancel(self) -> None:
        """Ask the coroutine to stop, and wait until it has. In a forked child it goes on: it runs in the parent."""
        if self._loop is not _loops.get(os.getpid()):
            return
        self._loop.call_soon_threadsafe(self._stop)
        if not _on_loop(self._loop):  # there it is the garbage collector that closes an iterator
            concurrent.futures.wait([self.ended])

    def _start(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._finish)

    def _stop(self) -> None:
        """Cancel, and again if that was of no use: a library may swallow a cancellation that comes at a bad moment."""
        if not self._task.done():
            self._task.cancel()
            self._loop.call_later(_CANCEL_AGAIN_S, self._stop)

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.ended.set_exception(concurrent.futures.CancelledError())
        elif (error := task.exception()) is not None:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(task.result())


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and return its result, or raise what it raised."""
    call = Call(coroutine)
    try:
        return call.ended.result()
    finally:
        if not call.ended.done():  # Ctrl-C, or what a signal's handler raises
            call.cancel()


def iterate(start: Callable[[Callable[[str], None]], Coroutine[Any, Any, T]]) -> Generator[str, None, T]:
    """Run `start(emit)` on the loop, yield what it emits and return its result. Nothing happens before the first `next`.

    Closing the iterator cancels the coroutine and waits until it has ended.
    """
    emitted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    call = Call(start(emitted.put))
    call.ended.add_done_callback(lambda _: emitted.put(None))
    try:
        while (item := emitted.get()) is not None:
            yield item
        return call.ended.result()
    finally:
        if not call.ended.done():
            call.cancel()


class PerLoop(Generic[T]):
    """One thing for each event loop that asks for it, because connections belong to the loop they were made on.

    It is entered on its loop with the first `get`, and left there: when the loop ends as `asyncio.run` ends it, when its owner
    is collected, or at `close`. After that, `get` makes a new one.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._make = make
        self._held: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[T, None]]] = {}
        self._entering: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}
        self._leaving: set[AsyncGenerator[T, None]] = set()

    async def get(self) -> T:
        """The running loop's."""
        loop = asyncio.get_running_loop()
        for ended in [known for known in list(self._held) if known.is_closed()]:
            self._held.pop(ended, None)
            self._entering.pop(ended, None)
        if loop not in self._held:
            async with self._entering.setdefault(loop, asyncio.Lock()):
                if loop not in self._held:
                    holder = _hold(await asyncio.to_thread(self._make))
                    self._held[loop] = await anext(holder), holder
        return self._held[loop][0]

    def close(self) -> None:
        """Leave all. What belongs to the background loop is left before this returns, the rest as soon as its loop can."""
        for loop in list(self._held):
            _, holder = self._held.pop(loop, (None, None))
            if holder is None:
                continue  # another thread was faster
            self._leaving.add(holder)
            if loop is _loops.get(os.getpid()) and not _on_loop(loop):
                run(self._leave(holder))
            else:
                self._leave_soon(loop, holder)

    async def aclose(self) -> None:
        """Leave the running loop's before this returns."""
        held = self._held.pop(asyncio.get_running_loop(), None)
        if held:
            await self._leave(held[1])

    def _leave_soon(self, loop: asyncio.AbstractEventLoop, holder: AsyncGenerator[T, None]) -> None:
        with suppress(RuntimeError):  # a loop that is closed has left everything
            loop.call_soon_threadsafe(lambda: loop.create_task(self._leave(holder)))

    async def _leave(self, holder: AsyncGenerator[T, None]) -> None:
        """Until it is left it stays in `_leaving`: a loop that ends before this has run then still leaves it."""
        await holder.aclose()
        self._leaving.discard(holder)


async def _hold(thing: AbstractAsyncContextManager[T]) -> AsyncGenerator[T, None]:
    """A generator, because an event loop closes those it has when it ends, and when nobody has them any more."""
    async with thing as entered:
        yield entered
