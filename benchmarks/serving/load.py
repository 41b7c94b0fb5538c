"""The load generator, a process of its own: users who each have a connection, and say the next thing when they are answered.

    python -m benchmarks.serving.load '{"port": 8000, "path": "/agent", "users": 500, "turns": 20, "name": "a"}'

It prints one line of JSON: the milliseconds of every turn, the seconds from the first request to the last answer, and the CPU
time it took itself. HTTP is written and read by hand, on asyncio's streams: a client library would take longer than what is
measured. Where it is nearly as busy as the clock (`cpu_s` near `wall_s`), it is the client that was measured.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import NamedTuple

import msgspec

from benchmarks.serving.words import answer, said, token

_AT_ONCE = 50  # connections that are opened at a time


class Load(NamedTuple):
    """Who says how much to whom. name: tells the users of one run from those of others."""

    port: int
    path: str
    users: int
    turns: int
    name: str


class Outcome(msgspec.Struct):
    """What it took. turn_ms: of each turn. wrong: answers that were not the right one."""

    turn_ms: list[float]
    wall_s: float
    cpu_s: float
    wrong: int


def put(load: Load) -> Outcome:
    """Put a load on a server, from a new process."""
    words = [sys.executable, "-m", "benchmarks.serving.load", json.dumps(load)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Outcome)


async def _put(load: Load) -> Outcome:
    outcome = Outcome([], 0, 0, 0)
    users = [_User(load, f"{load.name}-{number}", outcome) for number in range(load.users)]
    for first in range(0, len(users), _AT_ONCE):
        await asyncio.gather(*(user.connect() for user in users[first : first + _AT_ONCE]))
    began, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(user.talk(load.turns) for user in users))
    outcome.wall_s, outcome.cpu_s = time.perf_counter() - began, time.process_time() - busy
    await asyncio.gather(*(user.leave() for user in users))
    return outcome


class _User:
    """One user and the connection."""

    def __init__(self, load: Load, name: str, outcome: Outcome) -> None:
        self._load = load
        self._name = name
        self._outcome = outcome
        self._head = (
            f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nAuthorization: Bearer {token(name)}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._load.port)

    async def talk(self, turns: int) -> None:
        for number in range(turns):
            began = time.perf_counter()
            found = await self._say(said(self._name, number))
            self._outcome.turn_ms.append((time.perf_counter() - began) * 1e3)
            self._outcome.wrong += found != answer(self._name, number)

    async def leave(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def _say(self, text: str) -> str | None:
        """The answer. An echo has none."""
        body = msgspec.json.encode({"query": text, "session_id": self._name})
        self._writer.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        head = await self._reader.readuntil(b"\r\n\r\n")
        content = await self._reader.readexactly(_length(head))
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"{head!r} {content!r}")
        found: str | None = msgspec.json.decode(content).get("response")
        return found


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def main() -> None:
    outcome = asyncio.run(_put(Load(*json.loads(sys.argv[1]))))
    sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")


if __name__ == "__main__":
    main()
