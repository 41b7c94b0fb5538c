"""Turns under way: one at a time in each session, going on when their caller is gone, and there to be picked up again.

A turn is a task of its own. Whoever asked for it listens to its events, and so may anybody who comes later with its id and the
number of the last event they saw. It is known for a while after it has ended.

What a reader would get wrong: nothing here is the record. A turn that this process does not know any more is in the session,
message by message under its id, and `talking` finds it there: after a crash a turn is gone on with, not lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from praisonaiagents.model.record import Key
from praisonaiagents.serve.problems import Problem
from praisonaiagents.serve.settings import Settings

RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"
_MOST_KEPT = 10_000  # finished turns, so that memory is bounded however quick they are
_STOP_AGAIN_S = 1.0

Work = Callable[["Turn"], Awaitable[str]]


class Turn:
    """One turn, and everything that happened in it: `events` are (name, value), numbered from 1.

    said: what it began with, so that the same id is not taken for something else. answer: what it came to. messages: those
    that were stored. is_replay: it was asked for more than once.
    """

    def __init__(self, turn_id: str, key: Key, said: Any) -> None:
        self.id = turn_id
        self.key = key
        self.said = said
        self.status = RUNNING
        self.answer = ""
        self.error: BaseException | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.messages: list[Any] = []
        self.is_replay = False
        self.began = time.monotonic()
        self.ended = 0.0
        self.task: asyncio.Task[None] | None = None
        self._has_begun = self._makes_way = False
        self._listening: list[asyncio.Future[None]] = []

    def emit(self, name: str, value: dict[str, Any]) -> None:
        """Something happened."""
        self.events.append((name, value))
        self._wake()

    def end(self, status: str, error: BaseException | None = None) -> None:
        """Nothing more will happen."""
        self.status, self.error, self.ended = status, error, time.monotonic()
        self._wake()

    async def over(self) -> None:
        """Wait until it has ended, however it does."""
        while self.status == RUNNING:
            await self._news()

    async def listen(
        self, seen: int = 0, every_s: float = 15.0
    ) -> AsyncIterator[tuple[int, str, dict[str, Any]] | None]:
        """(number, name, value) of each event after number `seen`, as they come; None each time nothing came for so long."""
        while True:
            while seen < len(self.events):
                seen += 1
                yield (seen, *self.events[seen - 1])
            if self.status != RUNNING:
                return
            try:
                async with asyncio.timeout(every_s):
                    await self._news()
            except TimeoutError:
                yield None

    def stop(self) -> None:
        """Ask it to stop. It ends as interrupted."""
        if self.task is not None:
            self.task.cancel()

    def begun(self) -> None:
        """Something of it is stored."""
        self._has_begun = True
        if self._makes_way:
            self.stop()

    def make_way(self) -> None:
        """Stop for a turn that came later, but not before what its user said is stored."""
        self._makes_way = True
        if self._has_begun:
            self.stop()

    async def _news(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._listening.append(waiting)
        try:
            await waiting
        finally:
            if waiting in self._listening:
                self._listening.remove(waiting)

    def _wake(self) -> None:
        listening, self._listening = self._listening, []
        for waiting in listening:
            if not waiting.done():
                waiting.set_result(None)


class _Line:
    """The turns of one session, in the order they came: the first has the session, the others wait."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.turns: list[Turn] = []


class Turns:
    """All turns of a server. over: told each turn that has ended."""

    def __init__(self, settings: Settings, over: Callable[[Turn], object] = lambda turn: None) -> None:
        self._settings = settings
        self._over = over
        self._lines: dict[Key, _Line] = {}
        self._known: dict[str, Turn] = {}
        self._ended: deque[Turn] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self.is_closing = False

    def find(self, user_id: str, turn_id: str) -> Turn | None:
        """A turn in one of the user's sessions that is under way, or has ended not long ago."""
        turn = self._known.get(turn_id)
        return turn if turn is not None and turn.key.user_id == user_id else None

    def begin(self, turn_id: str, key: Key, said: Any, work: Work) -> Turn:
        """Let a turn begin, or wait for its session. Raises `Problem` if it may not."""
        if self.is_closing:
            raise Problem(503, "the server is ending", "Closing", retry_after_s=5)
        if len(self._running) >= self._settings.max_turns:
            raise Problem(503, "the server has as many turns under way as it may have", "ServerBusy", retry_after_s=1)
        line = self._lines.get(key) or _Line()
        self._make_way(line)
        turn = Turn(turn_id, key, said)
        line.turns.append(turn)
        self._lines[key] = line
        self._known[turn_id] = turn
        turn.task = asyncio.get_running_loop().create_task(self._take(turn, line, work))
        self._running.add(turn.task)
        turn.task.add_done_callback(lambda task: self._left(turn, line, task))
        return turn

    def remember(self, turn: Turn) -> Turn:
        """Know a turn that has ended for a while, and forget those that ended long ago."""
        self._known[turn.id] = turn
        self._ended.append(turn)
        while len(self._ended) > _MOST_KEPT or self._ended[0].ended < time.monotonic() - self._settings.kept_s:
            oldest = self._ended.popleft()
            if self._known.get(oldest.id) is oldest:
                del self._known[oldest.id]
            if not self._ended:
                break
        return turn

    def check_idle(self, key: Key) -> None:
        """Raise `Problem` if a turn of the session is under way or waits."""
        if key in self._lines:
            raise Problem(409, "a turn of this session is under way", "SessionBusy", retry_after_s=1)

    async def stop_all(self, key: Key) -> None:
        """Stop the turns of a session, and wait until they have ended."""
        turns = list(line.turns) if (line := self._lines.get(key)) else []
        for turn in turns:
            turn.stop()
        for turn in turns:
            await turn.over()

    async def close(self) -> None:
        """Take no more turns; let those under way finish as long as they may, then stop them, and wait until they have."""
        self.is_closing = True
        if self._running:
            await asyncio.wait(self._running, timeout=self._settings.grace_s)
        while self._running:
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running, timeout=_STOP_AGAIN_S)

    def __len__(self) -> int:
        """How many are under way or waiting."""
        return len(self._running)

    def _make_way(self, line: _Line) -> None:
        if not line.turns:
            return
        if self._settings.busy == "reject":
            raise Problem(409, "another turn of this session is under way", "SessionBusy", retry_after_s=1)
        if len(line.turns) > self._settings.max_waiting:
            raise Problem(409, "too many turns wait for this session", "SessionBusy", retry_after_s=1)
        if self._settings.busy == "interrupt":
            for turn in line.turns:
                turn.make_way()

    async def _take(self, turn: Turn, line: _Line, work: Work) -> None:
        try:
            async with asyncio.timeout(self._settings.turn_timeout_s or None), line.lock:
                turn.answer = await work(turn)
        except (asyncio.CancelledError, TimeoutError) as exc:
            turn.end(INTERRUPTED, exc)
        except Exception as exc:
            turn.end(FAILED, exc)
        else:
            turn.end(DONE)

    def _left(self, turn: Turn, line: _Line, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        line.turns.remove(turn)
        if not line.turns:
            del self._lines[turn.key]
        if turn.status == RUNNING:  # it was stopped before it had begun
            turn.end(INTERRUPTED, asyncio.CancelledError())
        self.remember(turn)
        self._over(turn)
