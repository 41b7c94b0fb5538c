"""One event loop in one background thread, on which every synchronous call of an agent runs.

So `agent.chat()` works in a script, in a thread, and in a notebook whose own loop is running already, and connections to a
model are kept between calls. Pressing Ctrl-C cancels the call on the loop, waits until it has tidied up, and then raises.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_running: tuple[int, asyncio.AbstractEventLoop] | None = None


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop, started with the first call in this process (also in a forked child)."""
    global _running
    with _lock:
        if _running is None or _running[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="praisonai-agents", daemon=True).start()
            _running = os.getpid(), loop
        return _running[1]


class Call(Generic[T]):
    """A coroutine running on the loop, seen from another thread. `result` is there only after it has really ended."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.ended: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.ended.set_running_or_notify_cancel()  # so that only the coroutine's own end ends it
        self._coroutine = coroutine
        self._loop = background_loop()
        self._loop.call_soon_threadsafe(self._start)

    def cancel(self) -> None:
        """Ask the coroutine to stop and wait until it has."""
        self._loop.call_soon_threadsafe(lambda: self._task.cancel())
        concurrent.futures.wait([self.ended])

    def _start(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._finish)

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
    except KeyboardInterrupt:
        call.cancel()
        raise


def iterate(start: Callable[[Callable[[str], None]], Coroutine[Any, Any, Any]]) -> Iterator[str]:
    """Run `start(emit)` on the loop and yield what it emits. Nothing happens before the first item is asked for.

    Closing the iterator cancels the coroutine and waits until it has ended.
    """
    emitted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    call = Call(start(emitted.put))
    call.ended.add_done_callback(lambda _: emitted.put(None))
    try:
        while (item := emitted.get()) is not None:
            yield item
        call.ended.result()
    finally:
        if not call.ended.done():
            call.cancel()
