"""Looking a place over: real damage is found, told apart from what is harmless, and nothing is changed by looking."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from servers import postgres, redis

from praisonaiagents.errors import AmbiguousSession, SessionDamage, SessionNotFound
from praisonaiagents.session import HierarchicalSessionStore, SessionMessage, SessionStore, open_store
from praisonaiagents.session.parts import UNFINISHED
from praisonaiagents.session.verify import Checked, verify
from praisonaiagents.storage.memory import MemoryEngine
from praisonaiagents.storage.powers import Finding

ENGINES = ["memory", "file", "sqlite", "postgres", "redis"]


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HierarchicalSessionStore]:
    if request.param == "postgres":
        with postgres.empty_place() as url, open_store(url) as opened:
            yield HierarchicalSessionStore.of(opened)
    elif request.param == "redis":
        with redis.empty_place() as url, open_store(url) as opened:
            yield HierarchicalSessionStore.of(opened)
    else:
        urls = {"memory": "memory://", "file": f"file://{tmp_path}/s", "sqlite": f"sqlite:///{tmp_path}/s.db"}
        with open_store(urls[request.param]) as opened:
            yield HierarchicalSessionStore.of(opened)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[HierarchicalSessionStore]:
    with open_store(f"file://{tmp_path}/s") as opened:
        yield HierarchicalSessionStore.of(opened)


def live_through(store: HierarchicalSessionStore, user_id: str | None = None) -> None:
    """A session with an archive, a snapshot, an earlier head and a fork."""
    for number in range(8):
        store.add_user_message("main", f"number {number}", user_id=user_id)
    store.create_snapshot("main", "before", user_id=user_id)
    store.fork_session("main", 5, new_session_id="fork", user_id=user_id)
    store.revert_to_message("main", 5, user_id=user_id)
    store.add_user_message("main", "another way", user_id=user_id)
    record = store.engine.get(store._key("main", user_id))
    assert record
    store.engine.update(record.key, {"start": 2})


def damage(checked: Checked) -> list[Finding]:
    return [finding for finding in checked.findings if finding.is_damage]


def only(checked: Checked) -> Finding:
    [finding] = checked.findings
    return finding


# --- on every engine ---


def test_what_is_whole_is_said_to_be(store: HierarchicalSessionStore) -> None:
    for user_id in (None, "alice"):
        live_through(store, user_id)
    assert verify(store, all_users=True) == Checked(4, 2 * (7 + 6), [])
    assert verify(store) == verify(store, user_id="alice") == Checked(2, 7 + 6, [])
    assert verify(store, "main") == Checked(1, 7, [])
    assert verify(store, "fork", user_id="alice") == Checked(1, 6, [])
    assert verify(store, user_id="nobody") == Checked(0, 0, [])


def test_a_parent_or_child_that_is_gone_is_a_note(store: HierarchicalSessionStore) -> None:
    live_through(store)
    store.delete_session("main")
    found = only(verify(store))
    assert (found.is_damage, found.key) == (False, ("default_user", "fork"))
    assert "parent 'main' is not there" in found.what
    assert verify(store).is_whole


def test_a_compaction_must_stand_in_the_history(store: HierarchicalSessionStore) -> None:
    live_through(store)
    store.append_compaction_checkpoint("main", "a summary")
    assert verify(store).findings == []
    for wrong in (-1, 99, "2", True):
        record = store.open_session("main")
        checkpoint = record.extra["last_compaction"] | {"message_number": wrong}
        store.engine.update(record.key, {"extra": record.extra | {"last_compaction": checkpoint}})
        assert "last compaction" in only(verify(store, "main")).what


def test_a_session_that_a_killed_migration_left_is_damage(store: HierarchicalSessionStore) -> None:
    live_through(store)
    record = store.engine.get(store._key("main", None))
    assert record
    store.engine.update(record.key, {"extra": {**record.extra, UNFINISHED: "x"}})
    [finding] = damage(verify(store))
    assert finding.key == record.key
    assert "migration" in finding.what
    assert "run the migration again, or delete the session" in finding.remedy
    assert not verify(store, "main").is_whole


def test_a_session_that_is_not_there_is_an_error(store: HierarchicalSessionStore) -> None:
    live_through(store, "alice")
    with pytest.raises(SessionNotFound):
        verify(store, "nope")
    with pytest.raises(SessionNotFound):
        verify(store, "main", user_id="default_user")
    assert verify(store, "main") == Checked(1, 7, [])  # of its one owner
    live_through(store, "bob")
    with pytest.raises(AmbiguousSession):
        verify(store, "main")


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    store = SessionStore(MemoryEngine())
    for number in range(3):
        store.add_user_message(f"s{number}", "hello")
    verify(store, watch=lambda *about: told.append(about))
    assert told == [("Looking at the storage", 0, 0), *(("Reading", number, 3) for number in range(3))]


# --- files ---


def test_a_bad_byte_in_a_file_is_found_and_left_where_it_is(files: HierarchicalSessionStore, tmp_path: Path) -> None:
    live_through(files)
    path = tmp_path / "s" / "fork.json"
    path.write_bytes(
        path.read_bytes().replace(b'{"role":"user","content":"number 3"', b'{"role":"user","con\xfftent":"number 3"')
    )
    before = path.read_bytes()
    found = verify(files)
    [told] = damage(found)
    assert told.key == ("default_user", "fork")
    assert "bytes cannot be read, 5 messages can be read" in told.what
    assert "kept in" in told.remedy
    assert (path.read_bytes(), found.sessions) == (before, 2)
    assert not (tmp_path / "s" / "damaged").exists()
    assert [told] == damage(verify(files, "fork"))
    with pytest.warns(SessionDamage):
        assert len(files.messages("fork")) == 5  # which mends it
    found = verify(files)
    assert found.is_whole
    assert "1 file with what could not be read" in only(found).what


def test_messages_that_somebody_took_out_of_a_file_are_missed(files: HierarchicalSessionStore, tmp_path: Path) -> None:
    live_through(files)
    path = tmp_path / "s" / "main.json"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if b"another way" not in line).replace(b"},\n],", b"}\n],"))
    before = path.read_bytes()
    assert "1 message missing, 6 messages can be read" in damage(verify(files))[0].what
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(b' {"role"') or b"number 6" not in line))
    assert "an earlier state has lost" in " ".join(finding.what for finding in damage(verify(files, "main")))
    assert before != path.read_bytes()


def test_messages_that_somebody_took_out_of_an_archive_are_missed(
    files: HierarchicalSessionStore, tmp_path: Path
) -> None:
    for number in range(4):
        files.add_user_message("main", f"number {number}")
    files.engine.update(files._key("main", None), {"start": 2})
    path = tmp_path / "s" / "main.json"
    path.write_bytes(b"\n".join(line for line in path.read_bytes().split(b"\n") if b"number 0" not in line))
    assert "1 archived message missing" in damage(verify(files))[0].what


def test_a_line_that_somebody_added_to_a_file_is_a_note(files: HierarchicalSessionStore, tmp_path: Path) -> None:
    files.add_user_message("main", "hello")
    path = tmp_path / "s" / "main.json"
    path.write_bytes(path.read_bytes().replace(b"[\n{", b'[\n{"role":"user","content":"added"},\n{', 1))
    before = path.read_bytes()
    found = verify(files)
    assert found.is_whole
    assert "1 message more" in only(found).what
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [5, 40, 150, 400])
def test_a_torn_end_of_a_file_is_found(files: HierarchicalSessionStore, tmp_path: Path, cut: int) -> None:
    for number in range(8):
        files.add_user_message("main", f"number {number}")
    path = tmp_path / "s" / "main.json"
    path.write_bytes(path.read_bytes()[:-cut])
    before = path.read_bytes()
    assert any("its end is torn" in finding.what for finding in damage(verify(files)))
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"no JSON", b"[]", b'{"a": 1}'])
def test_a_file_without_a_session_in_it_is_found(
    files: HierarchicalSessionStore, tmp_path: Path, content: bytes
) -> None:
    files.add_user_message("main", "hello")
    files.add_user_message("other", "hello")
    path = tmp_path / "s" / "main.json"
    path.write_bytes(content)
    for found in (verify(files), verify(files, "main")):
        assert not found.is_whole
        assert any(finding.key == ("default_user", "main") for finding in damage(found))
    assert verify(files, "other").is_whole
    assert path.read_bytes() == content


def test_a_file_of_a_newer_version_is_told(files: HierarchicalSessionStore, tmp_path: Path) -> None:
    files.add_user_message("main", "hello")
    path = tmp_path / "s" / "main.json"
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":99'))
    assert "format 99" in damage(verify(files))[0].what


def test_two_messages_with_one_id_are_found(files: HierarchicalSessionStore, tmp_path: Path) -> None:
    files.append("main", [SessionMessage("user", "a", id="first"), SessionMessage("user", "b", id="second")])
    path = tmp_path / "s" / "main.json"
    path.write_bytes(path.read_bytes().replace(b'"second"', b'"first"'))
    assert "several messages have one id: 1 time" in only(verify(files)).what


def test_files_of_praisonai_are_whole_as_they_are(files: HierarchicalSessionStore, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "main.json").write_text(
        '{"session_id": "main", "messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": "hi"}]}'
    )
    assert verify(files) == Checked(1, 2, [])


def test_files_that_have_another_name_are_looked_at_under_their_own(
    files: HierarchicalSessionStore, tmp_path: Path
) -> None:
    files.add_user_message("a:b", "hello")
    files.add_user_message("a_b", "hello")
    files.add_user_message("x", "hello", user_id="alice")
    folder = tmp_path / "s"
    (folder / "users" / "alice" / "x.json").rename(folder / "x.json")  # as PraisonAI has it
    assert verify(files, all_users=True) == Checked(3, 3, [])
    assert verify(files, "a:b") == verify(files, "x", user_id="alice") == Checked(1, 1, [])
    (folder / "a_b.json").write_bytes(b"no JSON")
    assert verify(files, "a:b").is_whole
    assert not verify(files, "a_b").is_whole
    (folder / "x.json").write_bytes((folder / "x.json").read_bytes()[:-9])
    assert damage(verify(files, "x"))[0].key == ("alice", "x")
    with pytest.raises(SessionNotFound):
        verify(files, "x", user_id="default_user")


# --- SQLite ---


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A SQLite file in which there was a life, and nobody uses it now."""
    with open_store(f"sqlite:///{tmp_path}/s.db") as opened:
        live_through(HierarchicalSessionStore.of(opened))
    return tmp_path / "s.db"


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)


def looked_at(path: Path, session_id: str | None = None) -> Checked:
    with open_store(f"sqlite:///{path}") as opened:
        return verify(opened, session_id)


def test_rows_that_are_missing_from_sqlite_are_missed(path: Path) -> None:
    change(path, "DELETE FROM message WHERE number = 3")
    told = damage(looked_at(path))
    assert {finding.key and finding.key.session_id for finding in told} == {"main", "fork"}
    assert all("1 messages" in finding.what for finding in told if finding.key and finding.key.session_id == "fork")
    assert not looked_at(path, "fork").is_whole


def test_rows_that_only_a_snapshot_shows_are_missed(path: Path) -> None:
    change(path, "DELETE FROM message WHERE number = 7")
    told = damage(looked_at(path))
    assert told
    assert {finding.key and finding.key.session_id for finding in told} == {"main"}


def test_rows_that_are_no_messages_are_found(path: Path) -> None:
    change(path, "UPDATE message SET body = substr(body, 3) WHERE number = 3")
    assert {finding.key and finding.key.session_id for finding in damage(looked_at(path))} == {"main", "fork"}


def test_what_refers_to_nothing_in_sqlite_is_found(path: Path) -> None:
    change(
        path,
        "INSERT INTO log (base, first, identified, searchable) VALUES (NULL, 0, 0, 0)",
        "INSERT INTO message_id VALUES (99, 'x', 1)",
        "INSERT INTO set_aside VALUES (1, 1, 'x', 'y', 1.0)",
    )
    found = looked_at(path)
    assert found.is_whole
    assert [finding.what.split()[:2] for finding in found.findings] == [["1", "log"], ["1", "id"], ["1", "row"]]
    change(path, "INSERT INTO message (log, number, id, body) VALUES (99, 1, 'x', '{}')")
    assert "1 message whose log is gone" in damage(looked_at(path))[0].what


def test_a_log_that_is_gone_from_sqlite_is_found(path: Path) -> None:
    change(
        path,
        "PRAGMA foreign_keys = OFF",
        "DELETE FROM log WHERE n = (SELECT log FROM session WHERE session_id = 'fork')",
    )
    told = damage(looked_at(path))
    assert any("points to a row of log that is gone" in finding.what for finding in told)


def test_flipped_bytes_in_the_pages_of_sqlite_are_found(path: Path) -> None:
    with open_store(f"sqlite:///{path}") as opened:
        for number in range(300):
            opened.add_user_message("long", f"{number} " * 40)
    data = bytearray(path.read_bytes())
    place = data.index(b"299 299 299") // 4096 * 4096
    data[place : place + 8] = bytes(byte ^ 0xFF for byte in data[place : place + 8])
    path.write_bytes(data)
    found = looked_at(path)
    assert any("SQLite says" in finding.what for finding in damage(found))
    assert any(finding.key and finding.key.session_id == "long" for finding in damage(found))
    assert path.read_bytes() == data
    assert looked_at(path, "fork").is_whole


def test_a_place_where_nothing_is_yet_is_whole_and_is_not_made(tmp_path: Path) -> None:
    assert looked_at(tmp_path / "new.db") == Checked(0, 0, [])
    assert not (tmp_path / "new.db").exists()
    with open_store(f"file://{tmp_path}/new") as opened:
        assert verify(opened) == Checked(0, 0, [])
    assert not (tmp_path / "new").exists()


# --- servers ---


def test_rows_that_are_missing_from_postgres_are_missed() -> None:
    with postgres.empty_place() as url, open_store(url) as opened:
        live_through(HierarchicalSessionStore.of(opened))
        schema = url.partition("schema=")[2]
        with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
            connection.execute(f"insert into {schema}.log (base) values (null)")  # type: ignore[arg-type]
            found = verify(opened)
            assert (found.is_whole, only(found).what.split()[:2]) == (True, ["1", "log"])
            connection.execute(f"delete from {schema}.message where number in (3, 7)")  # type: ignore[arg-type]
            told = damage(verify(opened))
            assert {finding.key and finding.key.session_id for finding in told} == {"main", "fork"}
            assert any("snapshot" in finding.what for finding in told)
            connection.execute(f"insert into {schema}.message values (99, 1, 'x', '{{}}', '')")  # type: ignore[arg-type]
            assert any("1 message whose log is gone" in finding.what for finding in damage(verify(opened)))
            assert not verify(opened, "fork").is_whole


def test_keys_that_are_missing_from_redis_are_missed() -> None:
    with redis.empty_place() as url, open_store(url) as opened:
        live_through(HierarchicalSessionStore.of(opened))
        opened.add_user_message("other", "hello")
        client, space = redis.client_of(url), f"{url.partition('prefix=')[2]}:{{default_user}}:"
        for kind in "li":
            client.rpush(f"{space}{kind}:0123", "{}")
        found = verify(opened)
        assert (found.is_whole, only(found).what.split()[:2]) == (True, ["2", "keys"])
        client.delete(f"{space}l:0123", f"{space}i:0123")
        client.lset(f"{space}l:{opened.open_session('other').log}", 0, "no JSON")
        [told] = damage(verify(opened))
        assert (told.key and told.key.session_id, "1 messages" in told.what) == ("other", True)
        client.delete(f"{space}l:{opened.open_session('other').log}")
        assert "1 of 1 message missing" in damage(verify(opened, "other"))[0].what
        client.delete(f"{space}m:{opened.open_session('other').log}")
        assert any("the log of its messages is gone" in finding.what for finding in damage(verify(opened)))
        client.delete(f"{space}s:other")
        told = damage(verify(opened))[0]
        assert "its record is gone" in told.what
        prefix = url.partition("prefix=")[2]
        client.hset(f"{prefix}:owners:main", "nobody", "")  # and somebody is said to have "other"
        assert any(
            "2 notes of who has a session" in finding.what for finding in verify(opened, all_users=True).findings
        )
        client.zrem(f"{space}index", "other", "fork")
        assert "does not list it" in damage(verify(opened))[0].what


def test_sessions_that_change_meanwhile_are_no_damage(tmp_path: Path) -> None:
    """A process appends as fast as it can, and what is looked at is always of one moment."""
    import subprocess
    import sys

    program = (
        "import sys; from praisonaiagents.session import open_store; store = open_store(sys.argv[1])\n"
        "while True: store.add_user_message('busy', 'hello')"
    )
    for url in (f"file://{tmp_path}/s", f"sqlite:///{tmp_path}/s.db"):
        with open_store(url) as opened:
            opened.add_user_message("busy", "hello")
            with subprocess.Popen([sys.executable, "-c", program, url]) as busy:
                try:
                    for _ in range(30):
                        assert verify(opened, all_users=True).findings == []
                finally:
                    busy.kill()
