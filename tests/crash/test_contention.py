"""Many processes and threads at one session: nothing is lost, doubled or out of order, and readers never see a broken moment.

Each child is a process of its own; the children of a test start at the same moment.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from praisonaiagents.errors import InvalidMessage, StorageError
from praisonaiagents.model.message import Message
from praisonaiagents.session.store import DefaultSessionStore

from .children import KEY, PATIENCE_S, SESSION, Child, beside, run, run_together
from .content import is_run, message, numbers

WRITERS = [f"w{number}" for number in range(8)]


@pytest.fixture
def store(tmp_path: Path) -> DefaultSessionStore:
    """A store that waits as long as it takes on a busy machine."""
    return DefaultSessionStore(tmp_path, lock_timeout=PATIENCE_S)


def file_of(store: DefaultSessionStore) -> dict[str, Any]:
    """What lies on the disk, which must be whole."""
    found = json.loads(Path(store.session_dir, f"{SESSION}.json").read_bytes())
    assert found["message_count"] == len(found["messages"])
    return dict(found)


def appenders(folder: Path, count: int, writers: list[str] = WRITERS) -> list[Child]:
    return [Child("append", folder=folder, author=writer, count=count) for writer in writers]


def test_eight_processes_append_and_the_lock_file_is_removed_all_the_time(
    tmp_path: Path, store: DefaultSessionStore
) -> None:
    children = appenders(tmp_path, 250)
    with beside(Child("remove_lock", folder=tmp_path)):
        run_together(*children)
    assert numbers(store.get_chat_history(SESSION)) == {writer: list(range(250)) for writer in WRITERS}
    assert len(file_of(store)["messages"]) == 2_000


def test_readers_beside_writers_see_a_history_that_only_grows(tmp_path: Path, store: DefaultSessionStore) -> None:
    store.append(SESSION, [message("first", 0)])
    with beside(*(Child("read", folder=tmp_path, only_grows=True) for _ in range(3))):
        run_together(*appenders(tmp_path, 150, WRITERS[:3]))
    assert sum(map(len, numbers(store.get_chat_history(SESSION)).values())) == 451


def test_readers_beside_processes_that_rewrite_the_file(tmp_path: Path, store: DefaultSessionStore) -> None:
    store.append(SESSION, [message("first", 0)])
    with beside(Child("read", folder=tmp_path, only_grows=False), Child("trim", folder=tmp_path)):
        run_together(*appenders(tmp_path, 100, WRITERS[:2]))
    assert all(
        found[-1] == 99 for author, found in numbers(store.get_chat_history(SESSION)).items() if author != "first"
    )


def test_a_session_made_by_eight_processes_at_once_is_one_session(tmp_path: Path, store: DefaultSessionStore) -> None:
    names = [f"session {number}" for number in range(20)]
    told = run_together(*(Child("make", folder=tmp_path, names=names, author=writer) for writer in WRITERS))
    assert sorted(chain(*told)) == sorted(names)
    for name in names:
        by = store.get_session(name).metadata["by"]
        assert name in told[WRITERS.index(by)]
        assert numbers(store.get_chat_history(name)) == {writer: [0] for writer in WRITERS}
    assert len(list(tmp_path.glob("*.json"))) == len(names)
    assert not list(tmp_path.glob("*.tmp"))


def test_counting_by_revision_loses_no_count(tmp_path: Path, store: DefaultSessionStore) -> None:
    before = store.open_session(SESSION).revision
    run_together(*(Child("count_up", folder=tmp_path, count=25) for _ in WRITERS))
    record = store.engine.get(KEY)
    assert record is not None
    assert record.state == {"counter": 200}
    assert record.revision == before + 200


def test_metadata_of_different_writers_is_merged(tmp_path: Path, store: DefaultSessionStore) -> None:
    run_together(*(Child("label", folder=tmp_path, author=writer, count=5) for writer in WRITERS[:4]))
    assert store.get_session(SESSION).metadata == dict.fromkeys(WRITERS[:4], 4)


def test_appending_only_where_nobody_else_did(tmp_path: Path, store: DefaultSessionStore) -> None:
    run_together(*(Child("append_if_unchanged", folder=tmp_path, author=writer, count=30) for writer in WRITERS[:4]))
    assert numbers(store.get_chat_history(SESSION)) == {writer: list(range(30)) for writer in WRITERS[:4]}


def test_appends_beside_changes_of_the_record(tmp_path: Path, store: DefaultSessionStore) -> None:
    store.open_session(SESSION)
    run_together(*appenders(tmp_path, 100, WRITERS[:3]), Child("count_up", folder=tmp_path, count=100))
    assert numbers(store.get_chat_history(SESSION)) == {writer: list(range(100)) for writer in WRITERS[:3]}
    assert store.get_session(SESSION).state == {"counter": 100}


def test_appends_beside_replacements(tmp_path: Path, store: DefaultSessionStore) -> None:
    """A replacement frees what came before it. What came after the last one must all be there."""
    store.open_session(SESSION)
    run_together(*appenders(tmp_path, 150, WRITERS[:3]), Child("replace", folder=tmp_path, author="all", count=50))
    history = store.get_chat_history(SESSION)
    found = numbers(history)
    assert numbers(history[:1]) == {"all": [49]}
    assert found.pop("all") == [49]
    assert all(is_run(left, last=149) for left in found.values())
    record = store.engine.get(KEY)
    assert record is not None
    assert record.length == 3 * 150 + 50


def test_appends_beside_trimming(tmp_path: Path, store: DefaultSessionStore) -> None:
    store.open_session(SESSION)
    with beside(Child("trim", folder=tmp_path), Child("trim", folder=tmp_path)):
        run_together(*appenders(tmp_path, 150, WRITERS[:3]))
    found = numbers(store.get_chat_history(SESSION))
    assert found
    assert all(is_run(left, last=149) for left in found.values())
    record = store.engine.get(KEY)
    assert record is not None
    assert record.length == 450


def test_a_bound_that_several_processes_keep(tmp_path: Path, store: DefaultSessionStore) -> None:
    options = {"count": 200, "max_messages": 10}
    run_together(*(Child("append", folder=tmp_path, author=writer, **options) for writer in WRITERS[:4]))
    found = numbers(store.get_chat_history(SESSION))
    assert all(is_run(left, last=199) for left in found.values())
    assert 10 <= sum(map(len, found.values())) < 30
    record = store.engine.get(KEY)
    assert record is not None
    assert record.length == 800


def test_deleting_beside_appending(tmp_path: Path, store: DefaultSessionStore) -> None:
    """What was appended after the last deletion is there; nothing of what was deleted comes back."""
    children = [Child("append_or_lose", folder=tmp_path, author=writer, count=150) for writer in WRITERS[:3]]
    with beside(Child("delete", folder=tmp_path)):
        run_together(*children)
    store.append(SESSION, [message("last", 0)])
    found = numbers(store.get_chat_history(SESSION))
    assert found.pop("last") == [0]
    assert all(is_run(left, last=149) for left in found.values())
    assert store.delete_session(SESSION) is True
    assert store.get_chat_history(SESSION) == []
    assert not list(tmp_path.glob("*.json"))


def test_eight_threads_append_with_one_store(store: DefaultSessionStore) -> None:
    def work(writer: str) -> None:
        for number in range(50):
            store.append(SESSION, [message(writer, number)])

    with ThreadPoolExecutor(len(WRITERS)) as pool:
        list(pool.map(work, WRITERS))
    assert numbers(store.get_chat_history(SESSION)) == {writer: list(range(50)) for writer in WRITERS}


def test_threads_append_beside_processes(tmp_path: Path, store: DefaultSessionStore) -> None:
    def work(writer: str) -> None:
        for number in range(50):
            store.append(SESSION, [message(writer, number)])

    children = appenders(tmp_path, 50, WRITERS[:2])
    threads = [threading.Thread(target=work, args=(writer,)) for writer in WRITERS[2:4]]
    for thread in threads:
        thread.start()
    run_together(*children)
    for thread in threads:
        thread.join()
    assert numbers(store.get_chat_history(SESSION)) == {writer: list(range(50)) for writer in WRITERS[:4]}


def test_a_store_works_on_in_a_forked_child(tmp_path: Path, store: DefaultSessionStore) -> None:
    run("append_in_fork", folder=tmp_path, count=100)
    expected = {"before": [0], "parent": list(range(100)), "child": list(range(100))}
    assert numbers(store.get_chat_history(SESSION)) == expected


def test_a_forked_child_keeps_no_lock(tmp_path: Path, store: DefaultSessionStore) -> None:
    store.open_session(SESSION)
    assert run("fork_while_locked", folder=tmp_path) == ["appended"]


def test_two_processes_that_mend_the_same_file(tmp_path: Path, store: DefaultSessionStore) -> None:
    """Both find the end of the file torn, and append."""
    store.append(SESSION, [message("first", 0), message("first", 1)])
    path = tmp_path / f"{SESSION}.json"
    path.write_bytes(path.read_bytes().rsplit(b"]", 1)[0])
    run_together(*appenders(tmp_path, 20, WRITERS[:2]))
    assert numbers(store.get_chat_history(SESSION)) == {"first": [0, 1], "w0": list(range(20)), "w1": list(range(20))}
    file_of(store)


def test_the_same_message_given_by_several_threads_is_stored_once(store: DefaultSessionStore) -> None:
    same = Message("user", "once", id="the-same", timestamp=1.0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.append(SESSION, [same]), range(40)))
    assert [found["content"] for found in store.get_chat_history(SESSION)] == ["once"]


def test_a_call_that_fails_gives_its_locks_back(store: DefaultSessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(5, "no")

    store.append(SESSION, [message("a", 0)])
    impatient = DefaultSessionStore(store.session_dir, lock_timeout=0)
    monkeypatch.setattr("praisonaiagents.storage.jsonlayout.footer_bytes", refuse)
    with pytest.raises(StorageError):
        impatient.append(SESSION, [message("a", 1)])
    with pytest.raises(StorageError):
        impatient.update_session_metadata(SESSION, title="t")
    monkeypatch.undo()
    with pytest.raises(InvalidMessage):
        impatient.engine.update(KEY, {"start": 99})
    impatient.append(SESSION, [message("a", 1)])
    assert numbers(store.get_chat_history(SESSION)) == {"a": [0, 1]}
