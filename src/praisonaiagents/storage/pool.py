"""A few connections, shared by many threads.

Ours and not a library's, for one reason: where a server is gone, the thread that asks must learn it at once and in the
server's own words, not by waiting for a background thread that goes on trying. Connections are made by the thread that
needs one, when it needs one; nothing runs in the background, and an unused pool costs nothing.

What a reader would get wrong: after a fork the child must neither use nor close what its parent opened, because closing
says goodbye on the parent's own connection. It begins anew, and holds on to the parent's connections without a use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from praisonaiagents.errors import EngineUnreachable


class Closable(Protocol):
    def close(self) -> object: ...


C = TypeVar("C", bound=Closable)


class Pool(Generic[C]):
    """Up to `size` connections, the one given back last is lent first.

    connect: makes one, or raises what the caller shall see.
    usable: looks at an idle one before it is lent; must not ask the server anything. One that is not usable is closed.
    wait_s: how long to wait for somebody else's, in seconds, before `EngineUnreachable`.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        *,
        size: int,
        wait_s: float = 30.0,
        usable: Callable[[C], bool] = lambda connection: True,
    ) -> None:
        self.size = size
        self._connect = connect
        self._usable = usable
        self._wait_s = wait_s
        self._inherited: list[list[C]] = []
        self._begin()

    def lend(self) -> AbstractContextManager[C]:
        """A connection for the block alone. If the block raises, it is closed; a block that knows better catches inside."""
        if os.getpid() != self._pid:
            self._inherited.append(self._idle)
            self._begin()
        return _Loan(self._take, self._idle, self._slots)

    def _take(self) -> C:
        try:
            self._slots.get(timeout=self._wait_s)
        except Empty:
            raise EngineUnreachable(
                f"all {self.size} connections were in use for {self._wait_s:.0f} s: raise pool_size"
            ) from None
        try:
            while self._idle:
                try:
                    connection = self._idle.pop()
                except IndexError:  # another thread was faster
                    break
                if self._usable(connection):
                    return connection
                connection.close()
            return self._connect()
        except BaseException:
            self._slots.put(None)
            raise

    def close(self) -> None:
        """Close the idle connections. Those that are lent are given back later; the pool can still be used."""
        with suppress(IndexError):  # another thread was faster
            while self._pid == os.getpid() and self._idle:
                self._idle.pop().close()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: list[C] = []
        self._slots: SimpleQueue[None] = SimpleQueue()  # a semaphore of the standard library is written in Python
        for _ in range(self.size):
            self._slots.put(None)


class _Loan(AbstractContextManager[C]):
    """What `Pool.lend` returns. A class and no generator, because a call to a server near by takes no longer than one."""

    __slots__ = ("_connection", "_idle", "_slots", "_take")

    def __init__(self, take: Callable[[], C], idle: list[C], slots: SimpleQueue[None]) -> None:
        self._take = take
        self._idle = idle
        self._slots = slots

    def __enter__(self) -> C:
        self._connection = self._take()
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._idle.append(self._connection)
            else:
                self._connection.close()
        finally:
            self._slots.put(None)
