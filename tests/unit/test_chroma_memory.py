"""Chroma where it is easy to get wrong: several processes on one folder, a fork, threads, and a real server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from praisonaiagents.errors import StorageError
from praisonaiagents.memory.chroma import ChromaMemory
from praisonaiagents.model.memory import Embedding, MemoryItem, Scope

ALICE = Scope("alice")
PATIENCE_S = 120
WRITER = """
import sys
from praisonaiagents.memory.chroma import ChromaMemory
from praisonaiagents.model.memory import Embedding, MemoryItem, Scope

folder, me, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
memory = ChromaMemory(folder)
for number in range(count):
    memory.put([MemoryItem(f"{me}-{number}", Scope("alice"), "hello")], [Embedding("m", [me + 1.0, number])])
    mine = {f"{me}-{before}" for before in range(number + 1)}
    for found in (
        memory.search_near(Scope("alice"), Embedding("m", [1.0, 1.0]), limit=1000),
        memory.search_text(Scope("alice"), ["hello"], limit=1000),
    ):
        assert mine <= {match.item.id for match in found}
memory.close()
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Chroma server of our own."""
    folder, port = tmp_path_factory.mktemp("chroma"), free_port()
    command = [
        Path(sys.executable).parent / "chroma",
        "run",
        "--path",
        folder,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield port
    process.kill()
    process.wait()


def test_a_server_keeps_memories_as_a_folder_does(server: int) -> None:
    """The contract runs on folders; a call to a server takes a second where it makes a collection."""
    other, point = Scope("bob"), Embedding("m", [1.0, 0.0])
    mine, theirs = MemoryItem("mem-1", ALICE, "Likes tea", slot="a"), MemoryItem("mem-1", other, "Hates tea", slot="a")
    with closing(ChromaMemory(host="127.0.0.1", port=server)) as memory:
        memory.put([mine], [point])
        memory.put([theirs], [point])
        for wanted in (mine, theirs):
            assert memory.get(wanted.scope.user_id, "mem-1") == wanted
            assert memory.in_slot(wanted.scope, "a") == memory.list_items(wanted.scope).items == [wanted]
            assert [match.item for match in memory.search_text(wanted.scope, ["tea"])] == [wanted]
            assert [match.item for match in memory.search_near(wanted.scope, point)] == [wanted]
        memory.close()
        assert memory.erase("bob") == 1
        assert memory.get("alice", "mem-1") == mine
        assert memory.clear(ALICE) == 1


def test_three_processes_share_a_folder(tmp_path: Path) -> None:
    folder = str(tmp_path / "chroma")
    writers = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER, folder, str(me), "15"], stderr=subprocess.PIPE)
        for me in range(3)
    ]
    said = [writer.communicate(timeout=PATIENCE_S)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], said
    with closing(ChromaMemory(folder)) as memory:
        assert len(memory.list_items(ALICE, limit=100).items) == 45
        assert len(memory.search_near(ALICE, Embedding("m", [1.0, 1.0]), limit=100)) == 45


def in_a_fork(work: Callable[[], object]) -> int:
    """The exit status of a forked child that does this and nothing else."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_folder_is_refused_in_a_forked_child_where_it_would_hang(tmp_path: Path) -> None:
    with closing(ChromaMemory(tmp_path / "chroma")) as memory:
        memory.put([MemoryItem("1", ALICE, "hello")], [Embedding("m", [1.0, 0.0])])
        assert memory.search_near(ALICE, Embedding("m", [1.0, 0.0]))

        def refused() -> None:
            memory.close()
            with pytest.raises(StorageError, match="spawn"):
                memory.put([MemoryItem("2", ALICE, "hello")])
            memory.close()

        assert in_a_fork(refused) == 0
        assert memory.get("alice", "1") is not None


def test_a_server_is_used_on_both_sides_of_a_fork(server: int) -> None:
    with closing(ChromaMemory(host="127.0.0.1", port=server, collection=f"fork-{os.urandom(6).hex()}")) as memory:
        memory.put([MemoryItem("1", ALICE, "hello")])

        def used() -> None:
            memory.put([MemoryItem("2", ALICE, "hello")])
            memory.close()

        assert in_a_fork(used) == 0
        assert [item.id for item in memory.list_items(ALICE).items].count("2") == 1


def test_one_closes_while_others_use_the_same_folder(tmp_path: Path) -> None:
    failed: list[Exception] = []

    def work(me: int) -> None:
        memory = ChromaMemory(tmp_path / "chroma")
        try:
            for number in range(10):
                memory.put([MemoryItem(f"{me}-{number}", ALICE, "hello")])
                memory.close()
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with closing(ChromaMemory(tmp_path / "chroma")) as memory:
        assert len(memory.list_items(ALICE, limit=100).items) == 40
