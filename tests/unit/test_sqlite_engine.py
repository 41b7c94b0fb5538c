"""What is SQLite's own: URLs, files and their permissions, schemas, damaged rows, the cost of its statements."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from praisonaiagents.errors import (
    ConfigError,
    Conflict,
    MessageIdConflict,
    NewerFormat,
    NotASessionFile,
    SessionDamage,
    StorageError,
    StorageFull,
)
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.model.search import parse
from praisonaiagents.storage import sqlitefile, sqlitesearch
from praisonaiagents.storage.registry import open_engine
from praisonaiagents.storage.sql import migrations, statements
from praisonaiagents.storage.sqlite import SqliteEngine

KEY = Key("alice", "s")
OTHER = Key("alice", "t")
FIXTURES = Path(__file__).parent.parent / "fixtures" / "sqlite"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def engine(path: Path) -> Iterator[SqliteEngine]:
    with closing(SqliteEngine(path)) as engine:
        engine.open_session(Record(*KEY))
        yield engine


def _say(engine: SqliteEngine, count: int, key: Key = KEY) -> None:
    engine.open_session(Record(*key))
    engine.append(key, [Message("user", f"m{number}", id=f"id{number}") for number in range(count)])


def _said(engine: SqliteEngine, key: Key = KEY) -> list[Any]:
    return [message.content for message in engine.read(key, 0).messages]


def _run(path: Path, *texts: str) -> list[tuple[Any, ...]]:
    """Run statements as another program would; what the last one gave."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return [db.execute(text).fetchall() for text in texts][-1]


# URLs and settings


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("sqlite:///relative.db", "{cwd}/relative.db"),
        ("sqlite:///a/b.db", "{cwd}/a/b.db"),
        ("sqlite:////abs/x.db", "/abs/x.db"),
        ("SQLite+aiosqlite:////abs/x.db", "/abs/x.db"),
        ("sqlite:////abs/a%20b%3Fc%25.db", "/abs/a b?c%.db"),
        ("sqlite:////abs/a#b;c.db", "/abs/a#b;c.db"),
        ("sqlite:////abs/x.db?durability=full", "/abs/x.db"),
        ("sqlite://", ":memory:"),
        ("sqlite:///", ":memory:"),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite://?durability=process", ":memory:"),
        (":memory:", ":memory:"),
        ("x.db", "{cwd}/x.db"),
        ("/abs/a%20b?.db", "/abs/a%20b?.db"),
    ],
)
def test_a_url_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    engine = open_engine(url)
    assert isinstance(engine, SqliteEngine)
    assert engine.path == place.format(cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_means_the_folder_of_that_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(SqliteEngine("x.db")) as engine:
        monkeypatch.chdir("/")
        engine.open_session(Record(*KEY))
    assert (tmp_path / "x.db").exists()


def test_a_url_may_say_how(path: Path) -> None:
    with closing(open_engine(f"sqlite:///{path}?durability=full&pool_size=2&lock_timeout=0.5")) as engine:
        assert engine.concurrency == 2
        assert "loss of power lose nothing" in engine.describe()["durability"]
    with closing(open_engine(f"sqlite:///{path}?pool_size=2", pool_size=3)) as engine:
        assert engine.concurrency == 3


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://host/x.db", "no host"),
        ("sqlite://relative.db", "no host"),
        ("sqlite:///x.db?durabilty=full", "'durabilty'; there are: durability"),
        ("sqlite:///x.db?durability=some", "'process' or 'full', not 'some'"),
        ("sqlite:///x.db?durability", "not ''"),
        ("sqlite:///x.db?lock_timeout=soon", "lock_timeout in a sqlite URL is a number, not 'soon'"),
        ("sqlite:///x.db?lock_timeout=-1", "a number of seconds"),
        ("sqlite:///x.db?lock_timeout=nan", "a number of seconds"),
        ("sqlite:///x.db?pool_size=0", "a number of connections"),
        ("sqlite:///x.db?max_message_bytes=0", "max_message_bytes"),
        ("sqlite:///x.db?max_message_bytes=1000000000", "max_message_bytes"),
        ("sqlite:///a%00b.db", "NUL"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_at_once(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_engine(url)


@pytest.mark.parametrize("durability", ["process", "full"])
def test_a_setting_reaches_every_connection(path: Path, durability: Any) -> None:
    with closing(SqliteEngine(path, durability=durability)) as engine:
        for transaction in (engine._file.writing(), engine._file.reading()):
            with transaction as db:
                assert db.execute("PRAGMA synchronous").fetchone() == ({"process": 1, "full": 2}[durability],)
                assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)
                assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_timeout_may_be_without_end(path: Path) -> None:
    with closing(SqliteEngine(path, lock_timeout_s=float("inf"))) as engine:
        _say(engine, 1)


def test_two_engines_in_memory_share_nothing() -> None:
    with closing(SqliteEngine(":memory:")) as one, closing(open_engine("sqlite://")) as other:
        one.open_session(Record(*KEY))
        assert other.get(KEY) is None
        one.close()
        assert one.get(KEY) is None


def test_it_tells_what_it_is(engine: SqliteEngine, path: Path) -> None:
    described = engine.describe()
    assert described["engine"] == f"SQLite {sqlite3.sqlite_version}"
    assert (described["place"], described["schema"]) == (str(path), str(migrations("sqlite")[-1][0]))
    assert "FTS5" in described["search"]
    assert repr(engine) == f"SqliteEngine({str(path)!r})"
    with closing(SqliteEngine(":memory:")) as memory:
        assert "nothing survives" in memory.describe()["durability"]


# Files


def test_the_file_and_its_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "s.db"
    engine = SqliteEngine(path)
    assert not path.parent.exists()
    with closing(engine):
        _say(engine, 1)
        assert {file.name for file in path.parent.iterdir()} == {"s.db", "s.db-wal", "s.db-shm"}
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        for folder in (path.parent, path.parent.parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["s.db"]


def test_an_empty_file_is_taken_as_it_is(path: Path) -> None:
    path.touch(mode=0o640)
    path.chmod(0o640)
    with closing(SqliteEngine(path)) as engine:
        _say(engine, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "content",
    [b"hello", b'{"session_id": "s", "messages": []}\n' * 100, b"\0" * 5000, b"SQLite format 3\0" + b"\xff" * 8000],
    ids=["text", "JSON", "zeros", "nearly a database"],
)
def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with closing(SqliteEngine(path)) as engine:
        for _ in range(2):
            with pytest.raises(NotASessionFile, match="left alone") as caught:
                engine.open_session(Record(*KEY))
            assert caught.value.path == str(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "made",
    [
        ("CREATE TABLE notes (text)",),
        ("PRAGMA journal_mode = WAL", "CREATE TABLE session (n)"),
        ("PRAGMA application_id = 7",),
        ("PRAGMA user_version = 1",),
    ],
    ids=["tables", "tables in WAL mode", "another id", "a version"],
)
def test_a_database_of_another_application_is_left_alone(path: Path, made: tuple[str, ...]) -> None:
    _run(path, *made)
    before = path.read_bytes()
    with closing(SqliteEngine(path)) as engine, pytest.raises(NotASessionFile, match="another application"):
        engine.get(KEY)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "pipe.db")
    for name in ("folder.db", "pipe.db"):
        with closing(SqliteEngine(tmp_path / name)) as engine, pytest.raises(NotASessionFile, match="is no file"):
            engine.get(KEY)
    (tmp_path / "file").touch()
    with closing(SqliteEngine(tmp_path / "file" / "s.db")) as engine, pytest.raises(StorageError) as caught:
        engine.open_session(Record(*KEY))
    assert caught.value.path == str(tmp_path / "file" / "s.db")


@pytest.mark.parametrize("whole", [True, False], ids=["with its log", "alone"])
def test_a_file_that_was_removed_is_made_anew(engine: SqliteEngine, path: Path, whole: bool) -> None:
    _say(engine, 2)
    for name in os.listdir(path.parent) if whole else [path.name]:
        if name.startswith(path.name):
            (path.parent / name).unlink()
    assert engine.get(OTHER) is None
    engine.open_session(Record(*OTHER))
    with closing(SqliteEngine(path)) as other:
        assert other.get(OTHER) is not None


def test_a_file_that_was_replaced_is_opened_anew(engine: SqliteEngine, path: Path, tmp_path: Path) -> None:
    _say(engine, 2)
    with closing(SqliteEngine(tmp_path / "new.db")) as new:
        _say(new, 1, OTHER)
    _run(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    os.replace(tmp_path / "new.db", path)
    for connection in (*engine._file._readers._idle, engine._file._writer._block._db):
        connection.looked_at = 0.0  # as after a moment without a call
    assert [record.key for record in engine.list_sessions(None).records] == [OTHER]


# Schemas


def _tables(path: Path) -> list[tuple[Any, ...]]:
    return _run(path, "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'search%' ORDER BY name")


@pytest.mark.parametrize("version", [1])
def test_a_file_of_every_released_schema_is_upgraded(path: Path, version: int) -> None:
    """The files were made by the version that had that schema; one of them is never made again."""
    shutil.copy(FIXTURES / f"v{version}.db", path)
    assert _run(path, "PRAGMA user_version") == [(version,)]
    with closing(SqliteEngine(path)) as engine:
        assert engine.describe()["schema"] == str(migrations("sqlite")[-1][0])
        [fork, record] = engine.list_sessions("alice").records
        assert (record.key, record.agent_name, record.state) == (KEY, "helper", {"n": 1})
        assert (record.start, record.length, record.revision) == (1, 4, 3)
        assert (record.metadata, record.extra) == ({"title": "Ünïcode 🙂"}, {"parent_id": "p"})
        assert (record.created_at, record.updated_at > 0) == (1_700_000_000.25, True)
        assert {name: (pin.start, pin.length, pin.info) for name, pin in record.pins.items()} == {
            "before": (0, 2, {"label": "x"})
        }
        assert _said(engine) == ["zero", "one", "two", "three"]
        assert (fork.session_id, _said(engine, fork.key)) == ("fork", ["one", "two", "three", "in the fork"])
        assert engine.append(KEY, [Message("assistant", "one", id="id1")]).length == 4
        assert [hit.number for hit in engine.search("alice", parse("three")).hits] == [3]
        assert engine.list_sessions("bob").records[0].length == 0
    with closing(SqliteEngine(path.parent / "new.db")) as new:
        new.open_session(Record(*KEY))
    assert _tables(path) == _tables(path.parent / "new.db")


def test_a_newer_schema_is_refused_and_left_alone(engine: SqliteEngine, path: Path) -> None:
    _say(engine, 1)
    engine.close()
    newest = migrations("sqlite")[-1][0]
    _run(path, f"PRAGMA user_version = {newest + 1}")
    before = path.read_bytes()
    with pytest.raises(NewerFormat, match=f"schema {newest + 1}.* knows {newest}") as caught:
        engine.append(KEY, [Message("user", "x")])
    assert caught.value.path == str(path)
    assert path.read_bytes() == before


def test_a_migration_that_fails_changes_nothing(
    engine: SqliteEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _say(engine, 1)
    engine.close()
    before = path.read_bytes()
    broken = (2, "0002_broken.sql", "ALTER TABLE session ADD COLUMN new;\nCREATE TABLE log (n);\n")
    monkeypatch.setattr(sqlitefile, "migrations", lambda engine: [*migrations(engine), broken])
    with closing(SqliteEngine(path)) as newer, pytest.raises(StorageError, match="already exists"):
        newer.get(KEY)
    assert path.read_bytes() == before
    assert _said(engine) == ["m0"]


def test_the_schema_explains_itself(engine: SqliteEngine, path: Path) -> None:
    _say(engine, 2)
    engine.fork(KEY, Record(*OTHER))
    assert (
        "-- number of the message that comes next"
        in _run(path, "SELECT sql FROM sqlite_master WHERE name = 'session'")[0][0]
    )
    seen = "SELECT number, role, content, time FROM conversation WHERE session_id = 't' ORDER BY number"
    assert _run(path, seen) == [(0, "user", "m0", None), (1, "user", "m1", None)]
    _run(path, "UPDATE message SET body = '{' WHERE id = 'id0'")
    assert _run(path, seen)[0] == (0, None, None, None)


# Damage


@pytest.mark.parametrize(
    "body",
    ['\'{"role":"user"\'', "'not JSON'", "''", "x'ff00'", "CAST(x'c328' AS TEXT)", "'[]'", "'{\"content\":1}'", "17"],
)
def test_a_damaged_row_hides_no_other(engine: SqliteEngine, path: Path, body: str) -> None:
    _say(engine, 5)
    engine.fork(KEY, Record(*OTHER))
    engine.search("alice", parse("m1"))
    _run(path, f"UPDATE message SET body = {body} WHERE id = 'id2'")
    for key in (KEY, OTHER):
        with pytest.warns(SessionDamage, match="1 messages of session .* could not be read; 4 messages kept") as caught:
            assert _said(engine, key) == ["m0", "m1", "m3", "m4"]
        assert caught[0].filename == __file__
        assert engine.append(key, [Message("user", "m5")]).length == 6
    assert [hit.number for hit in engine.search("alice", parse("m3")).hits] == [3]
    assert engine.search("alice", parse("m2")).hits == []
    assert engine.append(KEY, [Message("user", "m2", id="id2")]).length == 7
    assert engine.delete(OTHER)
    assert engine.delete(KEY)
    assert _run(path, "SELECT count(*) FROM message") == [(0,)]


def test_a_row_without_a_body_hides_no_other(engine: SqliteEngine, path: Path) -> None:
    _say(engine, 3)
    text = "UPDATE sqlite_master SET sql = replace(sql, 'body   TEXT NOT NULL', 'body TEXT') WHERE name = 'message'"
    _run(
        path,
        "PRAGMA writable_schema = ON",
        text,
        "PRAGMA writable_schema = RESET",
        "UPDATE message SET body = NULL WHERE id = 'id1'",
    )
    with pytest.warns(SessionDamage, match="1 messages"):
        assert _said(engine) == ["m0", "m2"]


def test_a_damaged_page_stops_nobody_who_gives_ids(engine: SqliteEngine, path: Path) -> None:
    engine.open_session(Record(*KEY))
    engine.append(KEY, [Message("user", f"{number} {'x' * 300}") for number in range(200)])
    kept = engine.append(KEY, [Message("user", "kept", id="kept")]).length
    engine.close()
    pages = "SELECT pageno FROM dbstat WHERE name = 'message' AND pagetype = 'leaf' ORDER BY pageno"
    found = [page for (page,) in _run(path, "PRAGMA wal_checkpoint(TRUNCATE)", pages)]
    with open(path, "r+b") as file:
        file.seek((found[len(found) // 2] - 1) * 4096)
        file.write(b"\xff" * 4096)
    assert engine.append(KEY, [Message("user", "kept", id="kept")]).length == kept
    assert engine.append(KEY, [Message("user", "new", id="new"), Message("user", "kept", id="kept")]).length == kept + 1
    assert engine.append(KEY, [Message("user", "new", id="new")]).length == kept + 1
    with pytest.raises(MessageIdConflict):
        engine.append(KEY, [Message("user", "other", id="kept")])
    with pytest.raises(Conflict):
        engine.append(KEY, [Message("user", "third", id="third")], expected_length=1)
    with pytest.warns(SessionDamage):
        assert _said(engine)[-2:] == ["kept", "new"]


def test_what_was_learnt_of_ids_outlasts_a_refusal(engine: SqliteEngine, path: Path) -> None:
    _say(engine, 5)
    with pytest.raises(Conflict):
        engine.append(KEY, [Message("user", "new", id="new")], expected_length=1)
    assert _run(path, "SELECT max(identified) FROM log") == [(5,)]


def test_a_row_that_is_missing_hides_no_other(engine: SqliteEngine, path: Path) -> None:
    _say(engine, 5)
    _run(path, "DELETE FROM message WHERE id IN ('id1', 'id4')")
    with pytest.warns(SessionDamage, match="2 messages"):
        assert _said(engine) == ["m0", "m2", "m3"]
    assert [hit.number for hit in engine.search("alice", parse("m3")).hits] == [3]
    version = _run(path, "SELECT max(change) FROM searched")
    assert [hit.number for hit in engine.search("alice", parse("m3")).hits] == [3]
    assert _run(path, "SELECT max(change) FROM searched") == version


def test_a_row_in_the_place_of_the_next_message_is_set_aside(engine: SqliteEngine, path: Path) -> None:
    _say(engine, 2)
    log = int(engine.open_session(Record(*KEY)).log)
    _run(path, f"INSERT INTO message VALUES (100, {log}, 2, 'foreign', 'foreign')")
    with pytest.warns(SessionDamage, match="message 2 of log .* set aside in table set_aside"):
        assert engine.append(KEY, [Message("user", "m2"), Message("user", "m3")]).length == 4
    assert _said(engine) == ["m0", "m1", "m2", "m3"]
    assert _run(path, "SELECT number, id, body FROM set_aside") == [(2, "foreign", "foreign")]


@pytest.mark.parametrize("value", ["'{'", "'[]'", "x'ff'", "''"])
def test_a_damaged_record_is_read_without_its_damaged_part(engine: SqliteEngine, path: Path, value: str) -> None:
    engine.update(KEY, {"state": {"n": 1}, "metadata": {"title": "T"}, "agent_name": "helper"})
    _run(path, f"UPDATE detail SET state = {value}")
    with pytest.warns(SessionDamage, match="record"):
        record = engine.get(KEY)
    assert record is not None
    assert (record.state, record.metadata, record.agent_name) == ({}, {"title": "T"}, "helper")
    with pytest.warns(SessionDamage):
        engine.update(KEY, {"metadata": {"title": "U"}})
    assert _run(path, f"SELECT state = {value} FROM detail") == [(1,)]
    with pytest.warns(SessionDamage):
        engine.update(KEY, {"state": {"n": 2}})
    assert engine.open_session(Record(*KEY)).state == {"n": 2}


def test_a_record_whose_details_are_missing_gets_new_ones(engine: SqliteEngine, path: Path) -> None:
    _run(path, "DELETE FROM detail")
    assert engine.open_session(Record(*KEY)).state == {}
    assert engine.update(KEY, {"state": {"n": 1}}).state == {"n": 1}
    assert [record.state for record in engine.list_sessions("alice").records] == [{"n": 1}]


def test_no_room_in_the_database_is_said_so_and_undone(engine: SqliteEngine) -> None:
    _say(engine, 3)
    with engine._file.writing() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
    large = [Message("user", "x" * 100_000, id="large")]
    calls: list[Callable[[], object]] = [
        lambda: engine.append(KEY, [Message("user", "m3"), *large]),
        lambda: engine.replace(KEY, large),
        lambda: engine.update(KEY, {"state": {"x": "x" * 100_000}}),
        lambda: engine.open_session(Record(*OTHER, state={"x": "x" * 100_000})),
        lambda: engine.fork(KEY, Record(*OTHER, state={"x": "x" * 100_000})),
    ]
    before = engine.get(KEY)
    for call in calls:
        with pytest.raises(StorageFull, match="nothing was stored") as caught:
            call()
        assert "xxx" not in str(caught.value)
        assert (engine.get(KEY), engine.get(OTHER), _said(engine)) == (before, None, ["m0", "m1", "m2"])
    with engine._file.writing() as db:
        db.execute("PRAGMA max_page_count = 1000000")
    assert engine.append(KEY, large).length == 4


# Search


def test_without_fts5_search_looks_at_the_messages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a SQLite that was built without it, also on a file that has an index already."""
    with closing(SqliteEngine(path)) as engine:
        _say(engine, 3)
        assert len(engine.search("alice", parse("m1")).hits) == 1
    monkeypatch.setattr(sqlitefile, "_SEARCH", "SELECT 0, 0")
    with closing(SqliteEngine(path)) as engine:
        engine.open_session(Record(*OTHER))
        engine.append(OTHER, [Message("user", "m0")])
        assert [hit.key for hit in engine.search("alice", parse("m0")).hits] == [OTHER, KEY]
        assert "no FTS5" in engine.describe()["search"]
        engine.delete(KEY)
    monkeypatch.undo()
    with closing(SqliteEngine(path)) as engine:
        assert [hit.key for hit in engine.search("alice", parse("m0")).hits] == [OTHER]
        assert engine.search("alice", parse("m1")).hits == []


def test_the_index_is_added_to_a_file_that_was_made_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlitefile, "_SEARCH", "SELECT 0, 0")
    with closing(SqliteEngine(path)) as engine:
        _say(engine, 3)
    monkeypatch.undo()
    with closing(SqliteEngine(path)) as engine:
        assert len(engine.search("alice", parse("m1")).hits) == 1
        assert "FTS5" in engine.describe()["search"]


def test_what_says_it_more_often_and_shorter_comes_first(engine: SqliteEngine) -> None:
    texts = ["pizza " + "word " * 200, "pizza", "pizza and pizza and more pizza", "no such word", "pizza"]
    engine.append(KEY, [Message("user", text) for text in texts])
    assert [hit.number for hit in engine.search("alice", parse("pizza")).hits] == [2, 4, 1, 0]


def test_a_query_may_have_any_number_of_words(engine: SqliteEngine) -> None:
    text = " ".join(f"w{number}" for number in range(2000))
    engine.append(KEY, [Message("user", text), Message("user", "w0 w1 w2")])
    assert [hit.number for hit in engine.search("alice", parse(text)).hits] == [0]
    assert engine.search("alice", parse(f"{text} missing")).hits == []


def test_a_search_without_room_for_its_index_looks_at_the_messages(engine: SqliteEngine) -> None:
    with engine._file.writing() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + 60}")
    engine.append(KEY, [Message("user", " ".join(f"w{n}x{k}" for k in range(50))) for n in range(300)])
    assert [hit.number for hit in engine.search("alice", parse("w7x7")).hits] == [7]


def test_hits_of_one_user_are_not_looked_for_among_those_of_others(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _say(engine, 1)
    for user in ("bob", "carol", "Alice", "alice\u00e9", "61", "\ue000616c696365"):
        _say(engine, 2, Key(user, "s"))
    engine.search(None, parse("m0"))
    monkeypatch.setattr(sqlitesearch, "_MOST_LOOKED_AT", 2)
    found = engine.search("alice", parse("m0"))
    assert ([hit.key for hit in found.hits], found.complete) == ([KEY], True)
    assert engine.search(None, parse("m0")).complete is False


# Cost


def test_no_statement_looks_at_a_whole_table(engine: SqliteEngine, path: Path) -> None:
    """What SQLite says of its plans: searches by key, but for how far searches have come, which is a row per user."""
    small = ("searched_before",)
    with closing(sqlite3.connect(path)) as db:
        for name, statement in statements("sqlite").items():
            values = {"log": 1, "start": 0, "stop": 9, "length": 9, "number": 1, "user": "u", "limit": 1, "newest": 1}
            count = statement.count("?")
            plan = db.execute(f"EXPLAIN QUERY PLAN {statement}", (0,) * count if count else values).fetchall()
            scans = [step[3] for step in plan if step[3].startswith("SCAN")]
            known = ("SCAN part", "SCAN holder", "SCAN showing", "SCAN CONSTANT ROW", "SCAN search VIRTUAL TABLE")
            assert name in small or all(scan.startswith(known) for scan in scans), (name, plan)
            assert name == "pins" or "USE TEMP B-TREE" not in str(plan), (name, plan)


def test_a_fork_takes_no_room_for_its_messages(engine: SqliteEngine, path: Path) -> None:
    _say(engine, 2_000)
    engine.close()
    before = path.stat().st_size
    for number in range(40):
        engine.fork(KEY, Record("alice", f"fork {number}"))
    engine.close()
    assert path.stat().st_size - before < 40 * 1024


def test_an_append_to_the_session_changed_last_leaves_the_order_of_sessions_alone(
    engine: SqliteEngine, path: Path
) -> None:
    _say(engine, 1)
    ((change,),) = _run(path, "SELECT change FROM session")
    updated_at = engine.open_session(Record(*KEY)).updated_at
    engine.append(KEY, [Message("user", "x")])
    assert _run(path, "SELECT change FROM session") == [(change,)]
    assert engine.open_session(Record(*KEY)).updated_at > updated_at
    _say(engine, 1, OTHER)
    engine.append(KEY, [Message("user", "x")])
    assert [record.key for record in engine.list_sessions("alice").records] == [KEY, OTHER]


def test_histories_that_went_back_many_times_read_back(engine: SqliteEngine) -> None:
    """A chain of 1,500 logs: Python's own stack is not used for walking it."""
    _say(engine, 1)
    for number in range(1_500):
        record = engine.open_session(Record(*KEY))
        engine.update(KEY, {"head": Pin(record.log, 0, record.length)})
        engine.append(KEY, [Message("user", str(number))])
    assert len(_said(engine)) == 1_501
    engine.fork(KEY, Record(*OTHER))
    engine.delete(KEY)
    assert len(engine.search("alice", parse("m0")).hits) == 1
    assert len(_said(engine, OTHER)) == 1_501
    engine.update(OTHER, {"start": 1_400})
    assert engine.drop(OTHER) > 0
    assert _said(engine, OTHER)[0] == "1399"
    engine.delete(OTHER)
    with engine._file.reading() as db:
        assert db.execute("SELECT (SELECT count(*) FROM log), (SELECT count(*) FROM message)").fetchone() == (0, 0)
