"""The other processes: `Child("append", folder=..., count=3)` runs the function `append` of this file in a new process.

A child says what it did in lines of JSON on its standard output, each after the fact. Children of one `run_together` call
start at the same moment. One that works "until told" goes on until its standard input ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from praisonaiagents.errors import Conflict, SessionExists, SessionNotFound, StorageFull
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session.hierarchy import HierarchicalSessionStore
from praisonaiagents.session.places import open_store
from praisonaiagents.session.store import DefaultSessionStore

from .content import is_run, message, numbers, random_size

SESSION = "s"
KEY = Key("default_user", SESSION)
PATIENCE_S = 60.0  # no test fails because the machine is busy


# The parent's side


class Child:
    """A process that runs one function of this file. It waits to be told to begin."""

    def __init__(self, name: str, **arguments: Any) -> None:
        arguments = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
        command = [sys.executable, "-W", "error", "-m", __spec__.name, name, json.dumps(arguments)]
        root = Path(__file__).parents[__spec__.name.count(".")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root
        )
        self.told: list[Any] = []
        assert self._line() == b"ready\n", self._errors()

    def begin(self) -> None:
        self.tell("begin")

    def tell(self, what: str) -> None:
        """One line for a child that waits for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(what.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """The next thing the child says; None when it has ended."""
        line = self._line()
        if not line.endswith(b"\n"):
            assert self.process.wait() in (0, -signal.SIGKILL), self._errors()
            return None
        self.told.append(json.loads(line))
        return self.told[-1]

    def end(self) -> list[Any]:
        """Tell the child to come to its end, and wait until it has. Everything it said."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        while self.hear() is not None:
            pass
        self._close()
        return self.told

    def kill(self) -> list[Any]:
        """End the child at once. Everything it said before."""
        self.process.kill()
        while self.hear() is not None:
            pass
        self._close()
        return self.told

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def _errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def _close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def run(name: str, **arguments: Any) -> list[Any]:
    """Run one child to its end; everything it said."""
    child = Child(name, **arguments)
    child.begin()
    return child.end()


def run_together(*children: Child) -> list[list[Any]]:
    """Let children run at the same time, to their ends; everything each of them said."""
    for child in children:
        child.begin()
    return [child.end() for child in children]


@contextmanager
def beside(*children: Child) -> Iterator[None]:
    """Let children run until the block ends."""
    for child in children:
        child.begin()
    try:
        yield
    finally:
        for child in children:
            child.end()


# The child's side


def say(what: Any) -> None:
    """One write, so that a child that is killed has said it whole or not at all."""
    os.write(1, json.dumps(what).encode() + b"\n")


def told_to_end() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def store_in(folder: str, **options: Any) -> DefaultSessionStore:
    return DefaultSessionStore(folder, **{"lock_timeout": PATIENCE_S} | options)


def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    function: Callable[..., None] = globals()[name]
    os.write(1, b"ready\n")
    os.read(0, len(b"begin\n"))
    function(**arguments)


def append(folder: str, author: str, count: int, first: int = 0, largest: int = 300, **options: Any) -> None:
    """Append messages number `first` and on, saying each number when it is stored."""
    store, chance = store_in(folder, **options), random.Random(f"{author} {first}")
    # made before, so that most of the time is spent storing them
    messages = [message(author, number, random_size(chance, largest)) for number in range(first, first + count)]
    for number, new in enumerate(messages, first):
        store.append(SESSION, [new])
        say(number)


def append_to(url: str, session_id: str, author: str, count: int, first: int, largest: int) -> None:
    """`append` to a session at any place."""
    chance = random.Random(f"{author} {first}")
    messages = [message(author, number, random_size(chance, largest)) for number in range(first, first + count)]
    with open_store(url, lock_timeout=PATIENCE_S) as store:
        for number, new in enumerate(messages, first):
            store.append(session_id, [new])
            say(number)


def go_back_and_forth(url: str, session_id: str, seed: str) -> None:
    """Fork, take snapshots, go back and undo, saying before each step what the session will show, and then that it does."""
    chance, number = random.Random(seed), 0
    shown: list[str] = []
    held: dict[str, list[str]] = {}
    heads: list[list[str]] = []
    with closing(HierarchicalSessionStore(url=url, lock_timeout=PATIENCE_S)) as store:
        store.open_session(session_id)
        while True:
            step = chance.choice(("append", "append", "snapshot", "revert", "take back", "undo", "fork"))
            number += 1
            if step == "append":
                shown = [*shown, f"{number} {'x' * chance.randrange(3000)}"]
                say(["next", shown])
                store.add_user_message(session_id, shown[-1])
            elif step == "snapshot":
                held[store.create_snapshot(session_id, str(number))] = shown
                say(["snapshot", list(held)[-1], shown])
            elif step == "fork":
                say(["fork", store.fork_session(session_id), shown])
            elif step == "undo" and heads:
                shown, heads[-1] = heads[-1], shown
                say(["next", shown])
                assert store.undo(session_id)
            elif step in ("revert", "take back") and shown:
                name = (
                    chance.choice(list(held))
                    if held and step == "revert"
                    else f"message:{chance.randrange(len(shown))}"
                )
                target = held[name] if name in held else shown[: int(name.partition(":")[2]) + 1]
                say(["next", target])
                count = len(store.heads(session_id))
                store.revert(session_id, name)
                heads += [shown] if len(store.heads(session_id)) > count else []
                shown = target
            say(["now", shown])


def histories(url: str, author: str, seed: str) -> None:
    """Work on each session that is named on standard input, saying what was called when and what the answer was."""
    from .linear import work

    chance = random.Random(f"{author} {seed}")
    with open_store(url, lock_timeout=PATIENCE_S) as store:
        store.session_exists("warm-up")
        while session_id := os.read(0, 1000).decode().strip():
            say(list(work(store, session_id, author, chance)))


def append_or_lose(folder: str, author: str, count: int) -> None:
    """Append while somebody deletes: a session that is gone at the wrong moment refuses the message, and says so."""
    store = store_in(folder)
    for number in range(count):
        while True:
            try:
                store.append(SESSION, [message(author, number)])
                break
            except SessionNotFound:
                continue
        say(number)


def append_if_unchanged(folder: str, author: str, count: int) -> None:
    """Append only where nobody else did since the last look."""
    store = store_in(folder)
    for number in range(count):
        while True:
            record = store.open_session(SESSION)
            try:
                store.append(SESSION, [message(author, number)], expected_length=record.length)
                break
            except Conflict:
                continue


def count_up(folder: str, count: int) -> None:
    """Add one to the session's counter, `count` times, by looking at its revision."""
    engine = store_in(folder).engine
    for _ in range(count):
        while True:
            record = engine.get(KEY)
            assert record is not None
            state = {"counter": record.state.get("counter", 0) + 1}
            try:
                engine.update(KEY, {"state": state}, expected_revision=record.revision)
                break
            except Conflict:
                continue


def label(folder: str, author: str, count: int) -> None:
    """Set metadata of one's own, `count` times."""
    store = store_in(folder)
    for number in range(count):
        store.update_session_metadata(SESSION, **{author: number})


def replace(folder: str, author: str, count: int) -> None:
    """Make the whole history one message, again and again."""
    engine = store_in(folder).engine
    for number in range(count):
        engine.replace(KEY, [message(author, number)])
        say(number)


def change(folder: str, state: dict[str, Any], seed: str) -> None:
    """Change a session in all ways that write its file anew; before each change, say what the session will be after it."""
    engine, chance = store_in(folder).engine, random.Random(seed)
    counter, kept = state["counter"], state["numbers"]
    next_number = kept[-1] + 1 if kept else 0
    while True:
        way = chance.choice(("append", "update", "replace", "trim"))
        count = chance.randint(1, 5) if way == "replace" else 1
        new = [message("a", next_number + index, chance.randint(0, 50_000)) for index in range(count)]
        added = list(range(next_number, next_number + len(new)))
        start = chance.randint(0, len(kept))
        after = {"append": kept + added, "update": kept, "replace": added, "trim": kept[start:]}[way]
        say({"counter": counter + (way == "update"), "numbers": after})
        if way == "append":
            engine.append(KEY, new)
        elif way == "replace":
            engine.replace(KEY, new)
        elif way == "update":
            engine.update(KEY, {"state": {"counter": counter + 1}})
        else:
            record = engine.get(KEY)
            assert record is not None
            engine.update(KEY, {"start": record.start + start})
            engine.drop(KEY)
        counter, kept = counter + (way == "update"), after
        next_number += len(new)


def make_until_killed(folder: str, first: int) -> None:
    """Make sessions `first` and on, each with one message; say its number when it is there, and again with its message."""
    store, number = store_in(folder), first
    while True:
        store.open_session(str(number), agent_name="A" * 5_000)
        say(number)
        store.append(str(number), [message("a", number)])
        say(number)
        number += 1


def trim(folder: str) -> None:
    """Free all but the last messages, until told to end."""
    engine = store_in(folder).engine
    while not told_to_end():
        record = engine.get(KEY)
        assert record is not None
        engine.update(KEY, {"start": max(record.start, record.length - 5)})
        engine.drop(KEY)


def make(folder: str, names: list[str], author: str) -> None:
    """Make sessions that others make at the same time, saying which ones this process made."""
    engine = store_in(folder).engine
    for name in names:
        try:
            engine.open_session(Record("default_user", name, metadata={"by": author}), must_be_new=True)
            say(name)
        except SessionExists:
            pass
        engine.append(Key("default_user", name), [message(author, 0)])


def delete(folder: str) -> None:
    """Delete the session, until told to end; say how often there was one."""
    store, deleted = store_in(folder), 0
    while not told_to_end():
        deleted += store.delete_session(SESSION)
    say(deleted)


def remove_lock(folder: str) -> None:
    """Remove the lock file, until told to end."""
    while not told_to_end():
        Path(folder, f"{SESSION}.json.lock").unlink(missing_ok=True)


def read(folder: str, only_grows: bool) -> None:
    """Read in every way there is, until told to end; every look must be whole, in order, and not before the last one."""
    store = store_in(folder)
    seen = length = 0
    while not told_to_end():
        history = numbers(store.get_chat_history(SESSION))
        assert all(is_run(found) for found in history.values())
        assert all(is_run(found) for found in numbers(store.get_chat_history(SESSION, 50)).values())
        [listed] = store.list_sessions()
        record = store.engine.get(KEY)
        assert record is not None
        count = sum(map(len, history.values()))
        assert not only_grows or seen <= count <= listed["message_count"] <= record.message_count
        assert length <= record.length
        seen, length = count, record.length


def hold_lock(path: str) -> None:
    """Hold a lock as any other program would, until told to end."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        say(os.getpid())
        select.select([sys.stdin], [], [])


def append_in_fork(folder: str, count: int) -> None:
    """Append in this process and in a child that it forks, at the same time, with one store."""
    store = store_in(folder)
    store.append(SESSION, [message("before", 0)])
    pid = os.fork()
    author = "parent" if pid else "child"
    for number in range(count):
        store.append(SESSION, [message(author, number)])
    if not pid:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def fork_while_locked(folder: str) -> None:
    """Fork while a write is going on. The child lives on, and must not keep the lock."""
    store = store_in(folder, lock_timeout=0)
    with store.engine._writing(KEY):
        pid = os.fork()
        if not pid:
            os.read(0, 1)
            os._exit(0)
    store.append(SESSION, [message("parent", 0)])
    say("appended")
    os.waitpid(pid, 0)


def fill_disk(folder: str, call: str, room: int, size: int, durability: str) -> None:
    """Do something for which the disk has no room, and say what came of it; then free some space and do it again.

    The disk is full, as far as this process sees, when a file has `room` bytes more than the session has now.
    """
    store = store_in(folder, durability=durability)
    path = Path(folder, f"{SESSION}.json")
    before = path.read_bytes() if path.exists() else None
    large = message("new", 0, size)
    calls: dict[str, Callable[[], object]] = {
        "append": lambda: store.append(SESSION, [large]),
        "append several": lambda: store.append(SESSION, [message("some", 0), large]),
        "make": lambda: store.open_session(SESSION, agent_name="A" * size),
        "update": lambda: store.update_session_metadata(SESSION, title="T" * size),
        "replace": lambda: store.engine.replace(KEY, [large]),
    }
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before or b"") + room, most))
    try:
        calls[call]()
    except StorageFull as exc:
        say({"full": str(exc), "path": exc.path, "cause": type(exc.__cause__).__name__})
    else:
        say("stored")
    say(before == (path.read_bytes() if path.exists() else None))
    say(sorted(found.name for found in Path(folder).rglob("*") if not found.name.endswith(".lock")))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    calls[call]()
    say("stored")


if __name__ == "__main__":
    main()
