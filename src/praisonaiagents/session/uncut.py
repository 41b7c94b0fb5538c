"""Waiting for what must not be cut short: what is being stored keeps its place, also when the turn is cancelled meanwhile.

    await in_thread(store.append, ...)     a function that may block
    await uncut(told(message))             a coroutine

Both are waited for to their end, and only then is the cancellation raised. What a reader would get wrong: `in_thread` waits
for a future and not for a task, because a loop that ends cancels all its tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """What a function that may block returns. It runs in a thread of the loop's executor."""
    return await _to_its_end(asyncio.get_running_loop().run_in_executor(None, function, *arguments))


async def uncut(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns. It runs in a task of its own, so cancelling who waits does not cancel it."""
    return await _to_its_end(asyncio.ensure_future(work))


async def _to_its_end(work: asyncio.Future[T]) -> T:
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # it is looked at, so that nobody complains that it was not
        raise
