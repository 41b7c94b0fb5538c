"""Troubleshooting: each bullet is a cause or a cure, and is tested as one."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import praisonaiagents
import pytest
from praisonaiagents import Agent
from praisonaiagents.errors import LockTimeout
from praisonaiagents.session import DefaultSessionStore, get_default_session_store

from .disk import Disk
from .elsewhere import ask_elsewhere
from .page import TIMEOUT_S, covers, run_script, snippet
from .servers import AgentServer

# ---- Session not restoring ----


@covers("troubleshooting/session-not-restoring/verify-session-id-is-exactly-the-same")
@pytest.mark.parametrize("almost", ["My-Session", "my_session", "my-session-", "my session"])
def test_only_exactly_the_same_id_restores(almost: str) -> None:
    ask_elsewhere({"session_id": "my-session"}, "My name is Alice and I love pizza")
    assert "Alice" not in ask_elsewhere({"session_id": almost}, "What's my name?")
    assert "Alice" in ask_elsewhere({"session_id": "my-session"}, "What's my name?")


@covers("troubleshooting/session-not-restoring/check-storage-directory-exists")
def test_the_storage_folder_is_made_when_it_is_missing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRAISONAI_HOME")
    folder = Path(snippet("troubleshooting/session-not-restoring/check-storage-directory-exists")).expanduser()
    agent = Agent(name="Assistant", memory={"session_id": "my-session"})
    for _ in range(2):
        assert not folder.exists()
        agent.start("Hello")
        assert (folder / "my-session.json").exists()
        shutil.rmtree(folder)


@covers("troubleshooting/session-not-restoring/ensure-file-permissions-allow-read-write")
def test_a_session_file_is_its_owners_to_read_and_write(disk: Disk) -> None:
    get_default_session_store().add_user_message("my-session", "Hello!")
    assert disk.path("my-session").stat().st_mode & 0o777 == 0o600


@covers("troubleshooting/session-not-restoring/ensure-file-permissions-allow-read-write")
def test_a_file_that_can_not_be_read_is_an_error_not_an_empty_history(disk: Disk) -> None:
    run_script("quick-start/python-1")
    path = disk.path("my-session-123")
    before = path.read_bytes()
    path.chmod(0)
    refused = run_script("quick-start/python-2", before=_without_root_powers(), check=False)
    path.chmod(0o600)
    assert refused.returncode != 0
    assert str(path) in refused.stderr
    assert path.read_bytes() == before
    run_script("quick-start/python-2", before=_without_root_powers())
    assert "Alice" in disk.last("my-session-123")


def _without_root_powers() -> tuple[str, ...]:
    """Root reads files of any mode; a process started through this does not."""
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


@covers("troubleshooting/session-not-restoring/try-invalidating-cache")
def test_invalidating_the_cache_is_harmless_and_never_needed() -> None:
    store = get_default_session_store()
    store.add_user_message("my-session", "My name is Alice and I love pizza")
    names = {"store": store, "session_id": "my-session"}
    ask_elsewhere({"session_id": "my-session"}, "Written by another process")
    without = [m["content"] for m in store.get_chat_history("my-session")]
    eval(snippet("troubleshooting/session-not-restoring/try-invalidating-cache"), names)
    assert [m["content"] for m in store.get_chat_history("my-session")] == without
    assert without[1] == "Written by another process"
    eval(snippet("troubleshooting/session-not-restoring/try-invalidating-cache"), names | {"session_id": "unknown"})
    assert store.get_chat_history("unknown") == []


# ---- File lock timeout ----

_HOLD = """
import fcntl, sys

with open(sys.argv[1], "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another_process(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds this lock file until its stdin is closed, or until it is killed."""
    command = [sys.executable, "-c", _HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


@pytest.fixture
def lock(disk: Disk) -> Path:
    """The lock file of `my-session`, which holds one message."""
    get_default_session_store().add_user_message("my-session", "Hello!")
    return disk.path("my-session").with_name("my-session.json.lock")


@covers("troubleshooting/file-lock-timeout/another-process-may-be-holding-the-lock")
def test_a_lock_held_elsewhere_is_an_error_that_says_which_and_how_long(lock: Path, disk: Disk) -> None:
    store = DefaultSessionStore(lock_timeout=0.2)
    with held_by_another_process(lock):
        with pytest.raises(LockTimeout) as refused:
            store.add_user_message("my-session", "Is anybody there?")
        assert isinstance(refused.value, TimeoutError)
        assert isinstance(refused.value, OSError)
        assert str(disk.path("my-session")) in str(refused.value)
        assert re.search(r"\b\d+(\.\d+)? s", str(refused.value))
    assert disk.turns("my-session") == [("user", "Hello!")]
    store.add_user_message("my-session", "Is anybody there?")
    assert len(disk.turns("my-session")) == 2


@covers("troubleshooting/file-lock-timeout/another-process-may-be-holding-the-lock")
def test_an_agent_fails_rather_than_talk_without_storing(lock: Path, disk: Disk) -> None:
    agent = Agent(name="Assistant", memory={"session_id": "my-session", "lock_timeout": 0.2})
    with held_by_another_process(lock), pytest.raises(LockTimeout):
        agent.start("Is anybody there?")
    assert disk.turns("my-session") == [("user", "Hello!")]


@covers("troubleshooting/file-lock-timeout/increase-lock-timeout-parameter")
def test_a_larger_lock_timeout_waits_longer(lock: Path, disk: Disk) -> None:
    held_s = 0.5
    with held_by_another_process(lock) as holder:
        with pytest.raises(LockTimeout):
            DefaultSessionStore(lock_timeout=0.1).add_user_message("my-session", "Too hasty")
        assert holder.stdin
        began = time.monotonic()
        release = threading.Timer(held_s, holder.stdin.close)
        release.start()
        DefaultSessionStore(lock_timeout=TIMEOUT_S).add_user_message("my-session", "Patient")
        assert time.monotonic() - began >= held_s
        release.join()
    assert disk.turns("my-session") == [("user", "Hello!"), ("user", "Patient")]


@covers("troubleshooting/file-lock-timeout/check-for-stale-lock-files-and-remove-them")
def test_a_stale_lock_file_stops_nobody_and_may_be_removed(lock: Path, disk: Disk) -> None:
    with held_by_another_process(lock) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert lock.exists()
    store = DefaultSessionStore(lock_timeout=0.2)
    store.add_user_message("my-session", "With the stale file there")
    lock.unlink()
    store.add_user_message("my-session", "With the stale file removed")
    assert [content for _, content in disk.turns("my-session")] == [
        "Hello!",
        "With the stale file there",
        "With the stale file removed",
    ]


@covers("troubleshooting/file-lock-timeout/check-for-stale-lock-files-and-remove-them")
def test_removing_a_lock_file_that_was_not_stale_lets_nobody_in(lock: Path, disk: Disk) -> None:
    """The file itself is locked as well: a removed `.lock` file alone would let two writers in."""
    with disk.path("my-session").open("r+b") as being_written:
        fcntl.flock(being_written, fcntl.LOCK_EX)
        lock.unlink()
        with pytest.raises(LockTimeout):
            DefaultSessionStore(lock_timeout=0.2).add_user_message("my-session", "Let me in")
    assert disk.turns("my-session") == [("user", "Hello!")]


# ---- Memory issues with large sessions ----


@covers("troubleshooting/memory-issues-with-large-sessions/set-max-messages-limit-on-defaultsessionstore")
def test_a_limit_on_the_store_holds_in_every_session_of_it(disk: Disk) -> None:
    store = DefaultSessionStore(max_messages=6)
    for session in ("one", "two"):
        for number in range(40):
            store.add_user_message(session, f"{session} {number}")
    for session in ("one", "two"):
        kept = [f"{session} {number}" for number in range(34, 40)]
        assert [m["content"] for m in store.get_chat_history(session)] == kept
        assert len(disk.turns(session)) <= 2 * 6  # room is made each time there are twice as many


@covers("troubleshooting/memory-issues-with-large-sessions/use-get-chat-history-max-messages-50-to-limit-retrieval")
def test_a_limit_on_one_retrieval_gives_the_newest_and_drops_nothing() -> None:
    store = get_default_session_store()
    for number in range(120):
        store.add_user_message("large", str(number))

    def get_chat_history(max_messages: int) -> list[dict[str, object]]:
        return store.get_chat_history("large", max_messages=max_messages)

    bullet = "troubleshooting/memory-issues-with-large-sessions/use-get-chat-history-max-messages-50-to-limit-retrieval"
    newest = eval(snippet(bullet), {"get_chat_history": get_chat_history})
    assert [m["content"] for m in newest] == [str(number) for number in range(70, 120)]
    assert len(store.get_chat_history("large")) == 120


@covers("troubleshooting/memory-issues-with-large-sessions/consider-using-sqlite-backend-for-better-performance")
def test_a_large_session_goes_on_over_sqlite(disk: Disk) -> None:
    memory = {"session_id": "large", "backend": "sqlite"}
    agent = Agent(name="Assistant", memory=memory)
    agent.start("My name is Alice and I love pizza")
    for number in range(100):
        agent.start(f"This is number {number}")
    assert disk.sessions() == set()
    assert "Alice" in ask_elsewhere(memory, "What's my name?")


# ---- Remote session connection failed ----


@covers("troubleshooting/remote-session-connection-failed/verify-agent-url-is-correct-and-accessible")
def test_an_address_where_nobody_listens_is_named_at_once() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused, and the port stays ours
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/agent"
        with pytest.raises(ConnectionError, match=re.escape(url)):
            praisonaiagents.Session(agent_url=url, session_id="remote-user-123")


@covers("troubleshooting/remote-session-connection-failed/check-firewall-network-settings")
def test_a_network_that_swallows_everything_is_given_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/agent"
        with pytest.raises(ConnectionError, match=re.escape(url)):
            praisonaiagents.Session(agent_url=url, session_id="remote-user-123", timeout=1)


@covers("troubleshooting/remote-session-connection-failed/ensure-remote-agent-has-health-endpoint")
def test_an_agent_without_health_is_refused(agent_server: AgentServer) -> None:
    agent_server.healthy = False
    with pytest.raises(ConnectionError, match="health"):
        praisonaiagents.Session(agent_url=agent_server.url, session_id="remote-user-123")
    agent_server.healthy = True
    assert praisonaiagents.Session(agent_url=agent_server.url, session_id="remote-user-123").chat("Hello")


@covers("troubleshooting/remote-session-connection-failed/increase-timeout-parameter-for-slow-networks")
def test_a_larger_timeout_waits_longer(agent_server: AgentServer) -> None:
    hasty = praisonaiagents.Session(agent_url=agent_server.url, session_id="remote-user-123", timeout=1)
    patient = praisonaiagents.Session(agent_url=agent_server.url, session_id="remote-user-123", timeout=TIMEOUT_S)
    agent_server.open.clear()
    with pytest.raises(ConnectionError):
        hasty.chat("Hello")
    answers = threading.Timer(1.5, agent_server.open.set)
    answers.start()
    assert patient.chat("Hello") == "You said: Hello"
    answers.join()
