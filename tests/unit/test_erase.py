"""Purging a user or a session: what is deleted, that the raw bytes have nothing of it left, and that a trace is found.

The bytes are read here by other means than the code has: files from the disk, PostgreSQL by pg_dump, Redis by its files.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from servers import postgres, redis

from praisonaiagents.model.message import encode
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session import HierarchicalSessionStore, SessionMessage, SessionStore, open_store
from praisonaiagents.session.erase import purge
from praisonaiagents.session.proof import Samples, proof
from praisonaiagents.session.verify import verify
from praisonaiagents.storage.memory import MemoryEngine
from praisonaiagents.storage.powers import Forgotten

SECRET = "Wonderland-7319"
ENGINES = ["memory", "file", "sqlite", "postgres", "redis"]


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgres":
        with postgres.empty_place() as place:
            yield place
    elif request.param == "redis":
        with redis.empty_place() as place:
            yield place
    else:
        yield {"memory": "memory://", "file": f"file://{tmp_path}/s", "sqlite": f"sqlite:///{tmp_path}/s.db"}[
            request.param
        ]


@pytest.fixture
def store(url: str) -> Iterator[HierarchicalSessionStore]:
    with open_store(url) as opened:
        yield HierarchicalSessionStore.of(opened)


def live_through(store: HierarchicalSessionStore, user_id: str, secret: str = SECRET) -> None:
    """All that a session can have: a fork, snapshots, earlier heads, an archive, a title, an entry of the search index."""
    whose = {"user_id": user_id}
    for number in range(12):
        store.add_user_message("main", f"I was in {secret} for the {number}th time, \n “{user_id}” \U0001f407", **whose)
    store.create_snapshot("main", f"label of {secret}", **whose)
    store.rename_session("main", f"About {secret}", **whose)
    store.fork_session("main", 5, new_session_id=f"fork-of-{user_id}", **whose)
    store.revert_to_message("main", 3, **whose)
    store.append("main", [SessionMessage("user", f"{secret} once more", id=f"own-id-of-{user_id}")], **whose)
    record = store.engine.get(store._key("main", user_id))
    assert record
    store.engine.update(record.key, {"start": 2})
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": f'{{"at": "{secret}"}}'}}
    store.add_message("main", "assistant", None, tool_calls=[call], **whose)
    store.search(secret, **whose)


def words_of(store: SessionStore, user_id: str) -> list[Any]:
    return [message["content"] for message in store.get_chat_history("main", user_id=user_id)]


# --- on every engine ---


def test_nothing_of_a_user_is_left_and_others_are_untouched(store: HierarchicalSessionStore) -> None:
    live_through(store, "alice.w")
    live_through(store, "bob.the.other", "somewhere-else-4711")
    before = words_of(store, "bob.the.other")
    done = purge(store, user_id="alice.w")
    assert (done.user_id, sorted(done.sessions)) == ("alice.w", ["fork-of-alice.w", "main"])
    assert done.messages == 14 + 6  # 12, two more of which the archive has some, and those of the fork
    assert done.size > done.messages * 50
    assert done.is_clean
    assert done.proof.left == []
    assert done.proof.samples > 20
    assert done.proof.looked_at
    assert done.left_to_operators
    assert store.list_sessions(user_id="alice.w") == []
    assert not store.search(SECRET, all_users=True)
    assert words_of(store, "bob.the.other") == before
    assert len(store.get_snapshots("main", user_id="bob.the.other")) == 1
    assert verify(store, all_users=True).findings == []


def test_a_user_may_be_purged_again_and_begin_again(store: HierarchicalSessionStore) -> None:
    live_through(store, "alice")
    assert purge(store, user_id="alice").is_clean
    again = purge(store, user_id="alice")
    assert (again.is_clean, again.sessions, again.messages, again.size) == (True, [], 0, 0)
    store.add_user_message("main", "hello", user_id="alice")
    assert words_of(store, "alice") == ["hello"]


def test_of_one_session_the_fork_stays_with_its_messages(store: HierarchicalSessionStore) -> None:
    live_through(store, "alice")
    fork = store.get_chat_history("fork-of-alice", user_id="alice")
    above = store.create_session("above-them-all", user_id="alice")
    store.create_session("of-no-interest", parent_id=above, user_id="alice")
    store.fork_session("main", new_session_id="to-be-erased", user_id="alice")
    store.fork_session("to-be-erased", new_session_id="grandchild", user_id="alice")
    done = purge(store, user_id="alice", session_id="to-be-erased")
    assert (done.sessions, done.is_clean, done.proof.left) == (["to-be-erased"], True, [])
    assert done.proof.elsewhere > 0  # what the fork and the source say, too
    assert "to-be-erased" not in str(store.engine.list_sessions("alice"))
    assert store.get_parent("grandchild", user_id="alice") is None
    assert store.get_children("main", user_id="alice") == ["fork-of-alice"]
    assert store.get_children(above, user_id="alice") == ["of-no-interest"]
    done = purge(store, user_id="alice", session_id="main")
    assert (done.sessions, done.is_clean) == (["main"], True)
    assert store.get_chat_history("fork-of-alice", user_id="alice") == fork
    assert all(finding.is_damage is False for finding in verify(store, all_users=True).findings)


def test_what_others_say_as_well_is_no_trace(store: HierarchicalSessionStore) -> None:
    for user_id in ("alice", "bob"):
        store.append(
            "the-same-id", [SessionMessage("user", f"We are in {SECRET}", id="the-same-message")], user_id=user_id
        )
        store.create_snapshot("the-same-id", user_id=user_id)
        store.revert_to_message("the-same-id", 0, user_id=user_id)
    store.clear_session("the-same-id", user_id="bob")  # only the snapshot says it now
    done = purge(store, user_id="alice")
    assert (done.is_clean, done.proof.left) == (True, [])
    assert done.proof.elsewhere >= 3


def test_short_ids_are_told_from_parts_of_others(store: HierarchicalSessionStore) -> None:
    store.add_user_message("s", f"in {SECRET}", user_id="a")
    store.add_user_message("s2", "elsewhere, far away", user_id="ab")
    assert purge(store, user_id="a").proof.left == []
    assert words_of(store, "ab") == []
    assert len(store.get_chat_history("s2", user_id="ab")) == 1


def test_what_was_only_deleted_is_found_in_what_is_left_behind(url: str, store: HierarchicalSessionStore) -> None:
    """The proof must be able to fail: what is deleted and then put somewhere by hand is found, and not quoted."""
    live_through(store, "alice")
    samples = Samples()
    for message in store.messages("main", user_id="alice"):
        samples.of_message(message)
    line = encode(store.messages("main", user_id="alice")[0])
    store.delete_session("main", user_id="alice")
    store.delete_session("fork-of-alice", user_id="alice")
    if url == "memory://":
        store.add_user_message("x", "some other", user_id="b")
        assert isinstance(store.engine, MemoryEngine)
        (session,) = store.engine._sessions.values()
        session.head[99] = line
    else:
        leave_behind(url, line.decode())
    found = proof(store.engine, samples)
    assert found.left
    assert SECRET not in str(found)
    if url == "memory://":
        del session.head[99]


def leave_behind(url: str, text: str) -> None:
    """Put a text somewhere among what an engine has stored."""
    if url.startswith("file"):
        Path(url.removeprefix("file://"), "damaged").mkdir()
        Path(url.removeprefix("file://"), "damaged", "x").write_text(text)
    elif url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
            db.execute("INSERT INTO set_aside VALUES (1, 1, 'x', ?, 1.0)", (text,))
    elif url.startswith("redis"):
        redis.client_of(url).set(f"{url.partition('prefix=')[2]}:left", text)
    else:
        with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
            schema = url.partition("schema=")[2]
            connection.execute(f"create table {schema}.copied as select %s::text as said", (text,))  # type: ignore[arg-type]


def test_an_engine_that_cannot_forget_says_so() -> None:
    class Bare:
        """An engine with nothing but the contract."""

        def __init__(self) -> None:
            self._engine = MemoryEngine()

        def __getattr__(self, name: str) -> Any:
            if name in ("forget", "raw", "audit"):
                raise AttributeError(name)
            return getattr(self._engine, name)

    store = HierarchicalSessionStore.of(SessionStore(Bare()))
    live_through(store, "alice")
    done = purge(store, user_id="alice")
    assert (done.is_clean, done.proof.looked_at, store.list_sessions(user_id="alice")) == (False, {}, [])
    assert "neither be told to forget" in str(done.problem)
    assert "cannot" in done.left_to_operators[0] or "neither" in done.left_to_operators[0]
    assert verify(store, all_users=True).is_whole


def test_of_very_many_messages_the_samples_are_spread() -> None:
    samples = Samples()
    for number in range(10_000):
        samples.of_message(SessionMessage("user", f"This is number {number:05} of them", id=f"message-{number:05}"))
    texts = sorted(sample for sample in samples.all() if sample.startswith(b"message-"))
    assert 50 <= len(texts) <= 100
    assert texts[0] == b"message-00000"
    assert texts[-1] > b"message-09800"


# --- raw bytes ---


def bytes_below(folder: Path) -> bytes:
    """All that lies in a folder, names included."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"\n".join(
        [
            *(str(path.relative_to(folder)).encode() for path in folder.rglob("*")),
            *(path.read_bytes() for path in files),
        ]
    )


def traces(data: bytes, user_id: str = "alice") -> list[str]:
    """What of a user is in some bytes."""
    wanted = (
        SECRET,
        user_id,
        f"fork-of-{user_id}",
        f"own-id-of-{user_id}",
        SECRET.partition("-")[0].lower(),
        user_id.encode().hex(),
    )
    return [text for text in wanted if text.encode() in data]


def test_files_of_a_user_are_gone_with_all_that_crashes_left(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with open_store(f"file://{folder}") as opened:
        store = HierarchicalSessionStore.of(opened)
        live_through(store, "alice")
        live_through(store, "bob", "nowhere")
        own = folder / "users" / "alice"
        kept = (own / "main.json").read_bytes()
        (own / "main.json.tmp").write_bytes(kept)
        (own / "gone.json.123-0123abcd.tmp").write_bytes(kept)
        (own / "gone.json.lock").touch()
        (own / "main.json.corrupt-1795253400").write_bytes(kept)
        (own / "broken.json").write_text(f"no JSON at all, {SECRET}")
        aside = folder / "damaged" / "users" / "alice"
        aside.mkdir(parents=True)
        (aside / "main.0123456789ab").write_bytes(kept)
        (aside / "gone.0123456789ab").write_bytes(kept)
        (folder / "damaged" / "users" / "bob").mkdir()
        (folder / "damaged" / "users" / "bob" / "main.0123456789ab").write_bytes(b"of bob")
        (folder / "users" / "bob" / "main.json.tmp").write_bytes(b"of bob")
        assert len(traces(bytes_below(folder))) >= 4
        with pytest.warns(UserWarning, match="holds no session"):
            done = purge(store, user_id="alice")
    assert done.is_clean
    assert traces(bytes_below(folder)) == []
    assert not own.exists()
    assert not aside.exists()
    assert (folder / "damaged" / "users" / "bob" / "main.0123456789ab").exists()
    assert (folder / "users" / "bob" / "main.json.tmp").exists()


def test_of_the_default_user_only_files_that_are_its_own_go(tmp_path: Path) -> None:
    with open_store(f"file://{tmp_path}/s") as opened:
        folder = tmp_path / "s"
        opened.add_user_message("main", f"in {SECRET}")
        reference = {
            "session_id": "alice:main",
            "user_id": "alice",
            "messages": [{"role": "user", "content": "of alice"}],
        }
        (folder / "alice_main.json").write_text(str(reference).replace("'", '"'))
        (folder / "alice_main.json.lock").touch()
        (folder / "package.json").write_text("[]")
        (folder / "old.json.lock").touch()
        (folder / "damaged").mkdir()
        (folder / "damaged" / "main.0123456789ab").write_text(SECRET)
        with pytest.warns(UserWarning, match="package.json"):
            done = purge(opened, user_id="default_user")
        assert done.is_clean
        assert any("package.json cannot be read" in line for line in done.left_to_operators)
        assert not any("alice_main" in line for line in done.left_to_operators)
        assert traces(bytes_below(folder), "default_user") == []
        assert sorted(path.name for path in folder.iterdir()) == [
            "alice_main.json",
            "alice_main.json.lock",
            "package.json",
        ]
        assert len(opened.messages("alice:main", user_id="alice")) == 1


def test_a_purged_session_takes_only_its_own_leftovers_along(tmp_path: Path) -> None:
    with open_store(f"file://{tmp_path}/s") as store:
        for session_id in ("a", "a.b"):
            store.add_user_message(session_id, f"in {SECRET}", user_id="alice")
            (tmp_path / "s" / "users" / "alice" / f"{session_id}.json.tmp").write_text("x")
        assert purge(store, user_id="alice", session_id="a").sessions == ["a"]
        left = sorted(path.name for path in (tmp_path / "s" / "users" / "alice").iterdir())
        assert [name for name in left if not name.endswith(".lock")] == ["a.b.json", "a.b.json.tmp"]
        for name in ("c.json.tmp", "c.json.12-0123abcd.tmp", "c.json.lock", "c.json.corrupt-1795253400"):
            (tmp_path / "s" / "users" / "alice" / name).write_text(SECRET)  # of a session that was never finished
        assert purge(store, user_id="alice", session_id="c").sessions == []
        assert sorted(path.name for path in (tmp_path / "s" / "users" / "alice").iterdir()) == left


@pytest.mark.parametrize("session_id", ["chat", None])
def test_in_the_folder_of_all_only_what_says_that_it_is_the_users_goes(tmp_path: Path, session_id: str | None) -> None:
    folder = tmp_path / "s"
    with open_store(f"file://{folder}") as store:
        store.add_user_message("chat", f"in {SECRET}", user_id="alice")
        (folder / "damaged").mkdir()
        others = ["chat.json.corrupt-1795253400", "chat.json.corrupt-2", "chat.json.lock", "damaged/chat.0123456789ab"]
        for name in others:
            (folder / name).write_text("" if name.endswith("lock") else "torn, of the default user")
        (folder / others[1]).write_text('{"session_id": "chat", "messages": []}')
        hers = folder / "chat.json.corrupt-3"
        hers.write_text('{"session_id": "chat", "user_id": "alice", "messages": []}')
        done = purge(store, user_id="alice", session_id=session_id)
        assert all((folder / name).exists() for name in others)
        assert not hers.exists()
        told = [line.partition(" ")[0] for line in done.left_to_operators if "does not say whose it is" in line]
        assert told == [f"{folder}/{others[0]}", f"{folder}/{others[3]}"]


def test_of_the_default_user_too_what_others_left_stays(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with open_store(f"file://{folder}") as store:
        store.add_user_message("main", "hello")
        (folder / "main.json.corrupt-1").write_text('{"session_id": "main", "user_id": "alice", "messages": []}')
        (folder / "main.json.corrupt-2").write_text("torn")
        (folder / "gone.json.corrupt-1").write_text("torn, whoever had it")
        (folder / "gone.json.corrupt-2").write_text('{"session_id": "gone", "messages": []}')
        done = purge(store, user_id=None)
        assert sorted(path.name for path in folder.iterdir()) == ["gone.json.corrupt-1", "main.json.corrupt-1"]
        assert any(f"{folder}/gone.json.corrupt-1 does not say whose" in line for line in done.left_to_operators)


def test_a_torn_file_in_the_folder_of_all_is_told_and_found(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "torn.json").write_text('{"session_id":"torn","user_id":"al","messages":[{"role":"user","conte')
    with open_store(f"file://{folder}") as store, pytest.warns(UserWarning, match="torn.json"):
        done = purge(store, user_id="al")
    assert any("torn.json cannot be read as a session" in line for line in done.left_to_operators)
    assert [left.where for left in done.proof.left] == ["torn.json"]
    assert not done.is_clean


class Meanwhile(MemoryEngine):
    """Somebody does something while the engine forgets, or after a record was handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.at_forget: list[Callable[[], object]] = []
        self.after_get: list[Callable[[], object]] = []

    def forget(self, user_id: str, session_ids: Collection[str]) -> Forgotten:
        while self.at_forget:
            self.at_forget.pop()()
        return super().forget(user_id, session_ids)

    def get(self, key: Key) -> Record | None:
        record = super().get(key)
        while self.after_get:
            self.after_get.pop()()
        return record

    def list_sessions(self, *args: Any, **options: Any) -> Any:
        page = super().list_sessions(*args, **options)
        while self.after_get:
            self.after_get.pop()()
        return page


@pytest.mark.parametrize("session_id", ["main", None])
def test_sessions_that_are_there_again_are_not_clean(session_id: str | None) -> None:
    engine = Meanwhile()
    store = SessionStore(engine)
    store.add_user_message("main", f"in {SECRET}", user_id="alice")
    engine.at_forget.append(lambda: store.add_user_message("main", f"in {SECRET}", user_id="alice"))
    done = purge(store, user_id="alice", session_id=session_id)
    assert not done.is_clean
    assert "1 session there again" in str(done.problem)
    assert {left.what for left in done.proof.left} >= {"text of a message or a session"}
    assert purge(store, user_id="alice", session_id=session_id).is_clean


def test_a_pin_that_goes_meanwhile_stops_no_purge() -> None:
    engine = Meanwhile()
    store = HierarchicalSessionStore.of(SessionStore(engine))
    live_through(store, "alice")
    live_through(store, "bob")

    def prune(user_id: str) -> None:
        record = MemoryEngine.get(engine, Key(user_id, "main"))
        assert record
        engine.update(record.key, {"pins": {}})

    engine.after_get.append(lambda: prune("alice"))
    assert "main" in purge(store, user_id="alice", session_id="main").sessions

    engine.at_forget.append(lambda: engine.after_get.append(lambda: prune("bob")))
    assert purge(store, user_id="alice").proof.left == []


def copy_database(path: Path, folder: Path) -> None:
    """Copy a file that is open, with its write-ahead log. In this process, closing it would let go of SQLite's locks."""
    subprocess.run(["cp", *path.parent.glob(f"{path.name}*"), folder], check=True)


def test_a_sqlite_file_and_its_log_have_nothing_of_a_user(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with open_store(f"sqlite:///{path}") as opened:
        store = HierarchicalSessionStore.of(opened)
        live_through(store, "alice")
        live_through(store, "bob", "nowhere")
        copy = tmp_path / "before"
        copy.mkdir()
        copy_database(path, copy)
        assert len(traces(bytes_below(copy))) >= 4
        done = purge(store, user_id="alice")
        assert done.is_clean
        assert any(place.endswith("-wal") for place in done.proof.looked_at)
        after = tmp_path / "after"
        after.mkdir()
        copy_database(path, after)
        assert traces(bytes_below(after)) == []
        live_through(store, "carol", "somewhere")
        assert store.search("nowhere", user_id="bob")
    assert traces(path.read_bytes()) == []


def test_sqlite_that_was_not_made_to_forget_is_found_out(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/s.db") as opened:
        store = HierarchicalSessionStore.of(opened)
        live_through(store, "alice")
        samples = Samples()
        samples.of_user("alice")
        for message in store.messages("main", user_id="alice"):
            samples.of_message(message)
        for row in store.list_sessions(user_id="alice"):
            store.delete_session(row["session_id"], user_id="alice")
        assert any(left.place.endswith("-wal") for left in proof(store.engine, samples).left)


def test_what_is_deleted_from_sqlite_is_overwritten_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with open_store(f"sqlite:///{path}") as store:
        for number in range(50):
            store.add_user_message("main", f"{SECRET} {number}" * 20)
        store.delete_session("main")
    assert SECRET.encode() not in path.read_bytes()


def test_what_was_freed_in_sqlite_long_ago_is_gone_too(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with open_store(f"sqlite:///{path}") as store:
        store.add_user_message("main", "hello", user_id="alice")
        with closing(sqlite3.connect(path)) as db:  # as one that has no secure_delete
            db.execute("PRAGMA secure_delete = OFF")
            db.execute("CREATE TABLE freed (text)")
            db.executemany("INSERT INTO freed VALUES (?)", [(f"{SECRET} " * 100,)] * 50)
            db.commit()
            db.execute("DROP TABLE freed")
            db.commit()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = tmp_path / "before"
        before.mkdir()
        copy_database(path, before)
        assert SECRET.encode() in bytes_below(before)
        purge(store, user_id="alice")
    assert SECRET.encode() not in path.read_bytes()


def test_a_reader_that_keeps_the_log_of_sqlite_is_waited_for_and_told(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with open_store(f"sqlite:///{path}", lock_timeout=0.3) as opened:
        store = HierarchicalSessionStore.of(opened)
        live_through(store, "alice")
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM message").fetchone()
            done = purge(store, user_id="alice")
            assert not done.is_clean
            assert done.problem
            assert "could not lock" in done.problem
            assert done.proof.left
            assert SECRET not in str(done)
        done = purge(store, user_id="alice")
        assert (done.is_clean, done.problem) == (True, None)
    assert traces(bytes_below(tmp_path)) == []


def test_rows_set_aside_in_sqlite_go_with_the_session(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with open_store(f"sqlite:///{path}") as store:
        store.add_user_message("main", "hello", user_id="alice")
        store.add_user_message("main", "hello", user_id="bob")
        logs = [store.open_session("main", user_id=user).log for user in ("alice", "bob")]
        with closing(sqlite3.connect(path)) as db, db:
            db.executemany(
                "INSERT INTO set_aside VALUES (?, 1, 'x', ?, 1.0)", [(log, f"{SECRET} {log}") for log in logs]
            )
        assert purge(store, user_id="alice").is_clean
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT log FROM set_aside").fetchall() == [(int(logs[1]),)]


def test_tables_of_postgres_have_nothing_of_a_user() -> None:
    with postgres.PostgresServer() as server, open_store(f"{server.url()}?schema=ours") as opened:
        store = HierarchicalSessionStore.of(opened)
        live_through(store, "alice")
        for number in range(300):
            store.add_user_message("many", f"{SECRET} {SECRET}{number}", user_id="alice")
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("analyze")
            known = """select coalesce(string_agg(concat(most_common_vals, histogram_bounds, most_common_elems), ''), '')
                from pg_stats where schemaname = 'ours'"""
            assert len(traces(connection.execute(known).fetchone()[0].encode())) >= 2  # type: ignore[index]
            assert len(traces(server.dump("ours").encode())) >= 4
            done = purge(store, user_id="alice")
            assert done.is_clean
            assert traces(server.dump("ours").encode()) == []
            assert connection.execute("select pg_relation_size('ours.message')").fetchone() == (0,)  # it was vacuumed
            assert traces(connection.execute(known).fetchone()[0].encode()) == []  # type: ignore[index]
    assert any("VACUUM FULL" in line for line in done.left_to_operators)
    assert any("write-ahead log" in line for line in done.left_to_operators)


def test_who_does_not_own_the_tables_of_postgres_is_told_so() -> None:
    with postgres.PostgresServer() as server:
        with open_store(f"{server.url()}?schema=ours") as opened:
            opened.add_user_message("main", f"in {SECRET}", user_id="alice")
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("create role guest login; grant usage on schema ours to guest")
            connection.execute("grant select, insert, update, delete on all tables in schema ours to guest")
            connection.execute("grant usage, select on all sequences in schema ours to guest")
        with open_store(f"{server.url(user='guest')}?schema=ours") as opened:
            done = purge(opened, user_id="alice")
        assert (done.is_clean, done.sessions, done.proof.left) == (False, ["main"], [])
        assert "the owner of schema ours has to say VACUUM" in str(done.problem)


def test_what_operators_are_told_for_postgres_does_wipe_the_tables_out() -> None:
    with postgres.PostgresServer() as server:
        with open_store(f"{server.url()}?schema=ours") as store:
            for number in range(50):
                store.add_user_message("main", f"{SECRET} {number}", user_id="alice")
            store.add_user_message("main", "hello", user_id="bob")
            done = purge(store, user_id="alice")
        base = server.folder / "data" / "base"
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("checkpoint")
            assert SECRET.encode() in bytes_below(base)
            (told,) = [line for line in done.left_to_operators if "VACUUM FULL" in line]
            connection.execute(told[told.index("VACUUM FULL") : told.index(" writes")])  # type: ignore[arg-type]
            connection.execute("checkpoint")
            assert SECRET.encode() not in bytes_below(base)


def test_the_files_of_redis_have_nothing_of_a_user() -> None:
    settings = [("appendonly", "yes"), ("save", "3600 1"), ("rdbcompression", "no"), ("slowlog-log-slower-than", "0")]
    settings += [("commandlog-request-larger-than", "0"), ("commandlog-reply-larger-than", "0")]
    settings += [
        (f"{name}-max-len", "100000") for name in ("slowlog", "commandlog-large-request", "commandlog-large-reply")
    ]
    logs = [("SLOWLOG",), ("COMMANDLOG", "large-request"), ("COMMANDLOG", "large-reply")]
    with redis.RedisServer(*settings) as server, open_store(server.url) as opened:
        store = HierarchicalSessionStore.of(opened)
        live_through(store, "alice")
        live_through(store, "bob", "nowhere")
        server.ask("SAVE")
        assert len(traces(bytes_below(server.folder))) >= 4
        assert [log for log in logs if SECRET in str(server.ask(log[0], "GET", -1, *log[1:]))] == logs
        done = purge(store, user_id="alice")
        assert done.is_clean, done
        assert traces(bytes_below(server.folder)) == []
        assert [log for log in logs if SECRET in str(server.ask(log[0], "GET", -1, *log[1:]))] == []
        places = " ".join(done.proof.looked_at)
        assert "dump.rdb" in places
        assert "appendonly" in places
        assert words_of(store, "bob")
        server.stop()
        server.start()
        assert words_of(store, "bob")


def test_redis_that_was_not_made_to_forget_is_found_out() -> None:
    with redis.RedisServer(("appendonly", "yes")) as server, open_store(server.url) as opened:
        store = HierarchicalSessionStore.of(opened)
        live_through(store, "alice")
        samples = Samples()
        for message in store.messages("main", user_id="alice"):
            samples.of_message(message)
        for row in store.list_sessions(user_id="alice"):
            store.delete_session(row["session_id"], user_id="alice")
        assert any("appendonly" in left.place for left in proof(store.engine, samples).left)


def test_redis_that_keeps_nothing_on_its_disk_says_so() -> None:
    with redis.RedisServer() as server, open_store(server.url) as store:
        store.add_user_message("main", SECRET, user_id="alice")
        done = purge(store, user_id="alice")
        assert done.is_clean
        assert any("writes nothing to its disk" in line for line in done.left_to_operators)
        assert not any("compresses" in line for line in done.left_to_operators)
        server.ask("CONFIG", "SET", "appendonly", "yes")
        assert any("compresses" in line for line in purge(store, user_id="alice").left_to_operators)
        assert server.ask("DBSIZE") == 1  # the schema


def test_who_may_do_little_on_redis_is_told_so() -> None:
    with redis.RedisServer(("appendonly", "yes")) as server:
        server.ask("ACL", "SETUSER", "guest", "on", ">word", "~*", "+@all", "-@admin", "-config", "-slowlog")
        url = f"redis://guest:word@127.0.0.1:{server.port}"
        with open_store(url) as store:
            store.add_user_message("main", f"in {SECRET}", user_id="alice")
            done = purge(store, user_id="alice")
            assert (done.is_clean, done.sessions) == (False, ["main"])
            assert "does not tell its settings" in str(done.problem)
            server.ask("ACL", "SETUSER", "guest", "+config", "-bgrewriteaof")
            done = purge(store, user_id="alice")
            assert not done.is_clean
            assert "the server refused BGREWRITEAOF" in str(done.problem)
            store.add_user_message("main", f"in {SECRET}", user_id="alice")
            server.ask("ACL", "SETUSER", "guest", "-scan")
            done = purge(store, user_id="alice")
            assert (done.is_clean, done.sessions, done.proof.looked_at) == (False, ["main"], {})
            assert "could not be looked over" in str(done.problem)


def test_a_purge_makes_nothing_where_nothing_is(tmp_path: Path) -> None:
    for url in (f"file://{tmp_path}/s", f"sqlite:///{tmp_path}/s.db"):
        with open_store(url) as store:
            assert purge(store, user_id="alice").is_clean
            assert purge(store, user_id="alice", session_id="main").is_clean
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_of_redis_forgets_a_user() -> None:
    with redis.empty_place(cluster=True) as url, open_store(url) as opened:
        store = HierarchicalSessionStore.of(opened)
        live_through(store, "alice")
        live_through(store, "bob", "nowhere")
        done = purge(store, user_id="alice")
        assert (done.is_clean, done.proof.left) == (True, [])
        client = redis.client_of(url)
        prefix = url.partition("prefix=")[2].encode()
        assert not [key for key in redis.keys(client, prefix.decode()) if b"alice" in key]
        assert client.hkeys(prefix + b":users") == [b"bob"]
        assert verify(store, all_users=True).findings == []


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_others_go_on_while_a_user_is_purged(kind: str, tmp_path: Path) -> None:
    url = {"file": f"file://{tmp_path}/s", "sqlite": f"sqlite:///{tmp_path}/s.db"}[kind]
    program = (
        "import sys; from praisonaiagents.session import open_store; store = open_store(sys.argv[1]); number = 0\n"
        "while True:\n"
        "    store.add_user_message('busy', str(number), user_id='bob'); print(number, flush=True); number += 1\n"
    )
    with open_store(url) as opened:
        store = HierarchicalSessionStore.of(opened)
        with subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE) as busy:
            try:
                assert busy.stdout
                busy.stdout.readline()
                for _ in range(2):
                    live_through(store, "alice")
                    assert purge(store, user_id="alice").is_clean
                assert busy.poll() is None
            finally:
                busy.kill()
            told = len(busy.stdout.read().splitlines()) + 1
        said = [message.text() for message in store.messages("busy", user_id="bob")]
        assert said[:told] == [str(number) for number in range(told)]
        assert len(said) - told in (0, 1)
        assert verify(store, all_users=True).findings == []


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    store = SessionStore(MemoryEngine())
    for number in range(3):
        store.add_user_message(f"s{number}", "hello", user_id="alice")
    purge(store, user_id="alice", watch=lambda *about: told.append(about))
    assert told[:3] == [("Deleting", 0, 3), ("Deleting", 1, 3), ("Deleting", 2, 3)]
    assert [what for what, *_ in told[3:]] == ["Making the storage forget", "Looking for traces"]
