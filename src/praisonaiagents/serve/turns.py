"""Turns under way: one at a time in each session, going on when their caller is gone, and there to be picked up again.

A turn is a task of its own. Whoever asked for it listens to its events, and so may anybody who comes later with its id and the
number of the last event they saw. It is known for a while after it has ended.

What a reader would get wrong: nothing here is the record. A turn that this process does not know any more is in the session,
message by message under its id, and `talking` finds it there: after a crash a turn is gone on with, not lost.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec

from praisonaiagents.errors import ConfigError, ModelError
from praisonaiagents.model.ids import DEFAULT_USER
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key
from praisonaiagents.serve.problems import Problem, fault_of, problem_of
from praisonaiagents.serve.settings import Settings

RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"
_MOST_KEPT = 10_000  # finished turns
_MOST_BYTES = 64 * 1024**2  # of what was said in them
_STOP_AGAIN_S = 1.0

Work = Callable[["Turn"], Awaitable[str]]


class Failure(NamedTuple):
    """Why a turn did not end well: in words, by its kind, and as an HTTP status."""

    text: str
    kind: str
    status: int


STOPPED = Failure("the turn was stopped", "Interrupted", 409)
TIMED_OUT = Failure("the turn took too long and was stopped", "TurnTimeout", 504)


class Turn:
    """One turn, and everything that happened in it: `events` are (name, value), numbered from 1.

    said: what it began with, so that the same id is not taken for something else. answer: what it came to. failure: why it
    came to nothing. messages: those that were stored. is_replay: it was asked for more than once. has_begun: this process has
    stored something of it. size: about how many bytes of memory it takes, once it has ended.
    """

    def __init__(self, turn_id: str, key: Key, said: Any) -> None:
        self.id = turn_id
        self.key = key
        self.said = said
        self.status = RUNNING
        self.answer = ""
        self.failure: Failure | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.messages: list[Message] = []
        self.is_replay = False
        self.began = time.monotonic()
        self.ended = 0.0
        self.size = 0
        self.task: asyncio.Task[None] | None = None
        self.limit: asyncio.Timeout | None = None
        self.has_begun = self._makes_way = False
        self._listening: list[asyncio.Future[None]] = []

    def emit(self, name: str, value: dict[str, Any]) -> None:
        """Something happened."""
        self.events.append((name, value))
        self._wake()

    def tell(self, message: Message) -> None:
        """A message of the turn is stored."""
        self.messages.append(message)
        if message.role != "user":
            self.emit("message", message.to_chat())

    def end(self, status: str, failure: Failure | None = None) -> None:
        """Nothing more will happen."""
        self.status, self.failure, self.ended = status, failure, time.monotonic()
        self.size = size_of([self.said, self.messages, self.events])
        self._wake()

    @property
    def is_late(self) -> bool:
        """True if it took longer than a turn may."""
        return self.limit is not None and self.limit.expired()

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
        self.has_begun = True
        if self._makes_way:
            self.stop()

    def make_way(self) -> None:
        """Stop for a turn that came later, but not before what its user said is stored."""
        self._makes_way = True
        if self.has_begun:
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
        self._alone: set[Key] = set()
        self._under_way: dict[str, Turn] = {}
        self._ended: dict[str, Turn] = {}  # the one that ended first is the first
        self._size = 0  # of those that have ended
        self._running: set[asyncio.Task[None]] = set()
        self.is_closing = False

    def find(self, user_id: str, turn_id: str) -> Turn | None:
        """A turn in one of the user's sessions that is under way, or has ended not long ago."""
        turn = self._under_way.get(turn_id) or self._ended.get(turn_id)
        return turn if turn is not None and turn.key.user_id == user_id and not self._is_past(turn) else None

    def begin(self, turn_id: str, key: Key, said: Any, work: Work) -> Turn:
        """Let a turn begin, or wait for its session. Raises `Problem` if it may not."""
        if self.is_closing:
            raise Problem(503, "the server is ending", "Closing", retry_after_s=5)
        self._check_room(key.user_id)
        if key in self._alone:
            raise _busy("this session is being changed")
        line = self._lines.get(key) or _Line()
        self._make_way(line)
        turn = Turn(turn_id, key, said)
        line.turns.append(turn)
        self._lines[key] = line
        self._under_way[turn_id] = turn
        turn.task = asyncio.get_running_loop().create_task(self._take(turn, line, work))
        self._running.add(turn.task)
        turn.task.add_done_callback(lambda task: self._left(turn, line, task))
        return turn

    def remember(self, turn: Turn) -> Turn:
        """Know a turn that has ended for a while, and forget those that ended first: they are old, or take too much memory."""
        self._drop(turn.id)
        self._ended[turn.id] = turn
        self._size += turn.size
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if len(self._ended) <= _MOST_KEPT and self._size <= _MOST_BYTES and not self._is_past(oldest):
                break
            self._drop(oldest.id)
        return turn

    def forget(self, key: Key) -> None:
        """Forget the turns of a session that have ended."""
        for turn in [turn for turn in self._ended.values() if turn.key == key]:
            self._drop(turn.id)

    @asynccontextmanager
    async def alone(self, key: Key, *, stops: bool = False) -> AsyncIterator[None]:
        """Have a session to oneself: a turn that would begin in it meanwhile is refused.

        stops: the turns under way in it are stopped first. Raises `Problem` if there are any and it does not, and if somebody
        else has the session.
        """
        if key in self._alone:
            raise _busy("this session is being changed")
        line = self._lines.get(key)
        if line is not None and not stops:
            raise _busy("a turn of this session is under way")
        self._alone.add(key)
        try:
            turns = list(line.turns) if line else []
            for turn in turns:
                turn.stop()
            for turn in turns:
                await turn.over()
            yield
        finally:
            self._alone.discard(key)

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

    def _check_room(self, user_id: str) -> None:
        """Raise `Problem` if too many turns are under way, or half of them are this user's."""
        most = self._settings.max_turns
        if len(self._running) >= most:
            raise Problem(503, "the server has as many turns under way as it may have", "ServerBusy", retry_after_s=1)
        if user_id == DEFAULT_USER:  # who names no user may speak for many
            return
        if sum(turn.key.user_id == user_id for turn in self._under_way.values()) >= (most + 1) // 2:
            raise Problem(429, "one user may not have more turns under way", "TooManyTurns", retry_after_s=1)

    def _make_way(self, line: _Line) -> None:
        if not line.turns:
            return
        if self._settings.busy == "reject":
            raise _busy("another turn of this session is under way")
        if len(line.turns) > self._settings.max_waiting:
            raise _busy("too many turns wait for this session")
        if self._settings.busy == "interrupt":
            for turn in line.turns:
                turn.make_way()

    async def _take(self, turn: Turn, line: _Line, work: Work) -> None:
        try:
            async with line.lock, asyncio.timeout(self._settings.turn_timeout_s or None) as turn.limit:
                turn.answer = await work(turn)
        except asyncio.CancelledError:
            turn.end(INTERRUPTED, STOPPED)
        except Exception as exc:
            if isinstance(exc, TimeoutError) and turn.is_late:
                turn.end(INTERRUPTED, TIMED_OUT)
            else:
                turn.end(FAILED, _failure_of(exc))
        else:
            turn.end(DONE)

    def _left(self, turn: Turn, line: _Line, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._under_way.get(turn.id) is turn:
            del self._under_way[turn.id]
        line.turns.remove(turn)
        if not line.turns:
            del self._lines[turn.key]
        if turn.status == RUNNING:  # it was stopped before it had begun
            turn.end(INTERRUPTED, STOPPED)
        self.remember(turn)
        self._over(turn)

    def _is_past(self, turn: Turn) -> bool:
        """True if it ended too long ago to be picked up."""
        return turn.status != RUNNING and turn.ended < time.monotonic() - self._settings.kept_s

    def _drop(self, turn_id: str) -> None:
        turn = self._ended.pop(turn_id, None)
        self._size -= turn.size if turn else 0


def size_of(value: Any) -> int:
    """About how many bytes of memory a value takes that is made of texts, lists, dicts and structs."""
    size, rest = 0, [value]
    while rest:  # and no recursion, because a caller may nest what is said as deep as they like
        value = rest.pop()
        size += sys.getsizeof(value)
        if isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, (list, tuple)):
            rest += value
        elif isinstance(value, msgspec.Struct):
            rest += msgspec.structs.astuple(value)
    return size


def _failure_of(error: Exception) -> Failure:
    """Made once, when it happens: what is nobody's business but the server's is logged by that."""
    if isinstance(error, ModelError):
        return Failure(f"Error processing query: {error}", type(error).__name__, 500)
    problem = fault_of(error) if isinstance(error, ConfigError) else problem_of(error)  # settings are not the caller's
    return Failure(f"Error processing query: {problem.text}", problem.kind, problem.status)


def _busy(text: str) -> Problem:
    return Problem(409, text, "SessionBusy", retry_after_s=1)
