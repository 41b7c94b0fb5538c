"""Session files as people find them: where they lie, how they look, who may read them, and what is done about anything else
that lies in their place.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import stat
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from praisonaiagents.errors import (
    ConfigError,
    InvalidId,
    InvalidIdType,
    InvalidMessage,
    MessageTooLarge,
    NewerFormat,
    NotASessionFile,
    SessionDamage,
    SessionExists,
    StorageError,
)
from praisonaiagents.model.ids import file_stem, twin_stem
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session.places import get_default_session_store
from praisonaiagents.session.store import DefaultSessionStore
from praisonaiagents.storage.jsonfile import JsonFileEngine
from praisonaiagents.storage.registry import open_engine

KEY = Key("default_user", "s")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sessions"


@pytest.fixture
def store(folder: Path) -> DefaultSessionStore:
    return DefaultSessionStore(folder)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but lock files, which are always empty."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert all(data == b"" for name, data in found.items() if name.endswith(".lock"))
    return {name: data for name, data in found.items() if not name.endswith(".lock")}


def texts(store: DefaultSessionStore, session_id: str, user_id: str | None = None) -> list[Any]:
    return [message["content"] for message in store.get_chat_history(session_id, user_id=user_id)]


# How a file looks


def test_a_new_file_and_what_calls_make_of_it(folder: Path, store: DefaultSessionStore) -> None:
    store.open_session("s", agent_name="Assistant")
    lines = (folder / "s.json").read_text().splitlines()
    assert lines[:5] == [
        "{",
        '"session_id": "s",',
        '"user_id": "default_user",',
        '"storage": {"format":1,"revision":0,"first":0,"start":0},',
        '"agent_name": "Assistant",',
    ]
    assert [line.split(":")[0] for line in lines[5:]] == [
        *('"created_at"', '"metadata"', '"state"', '"messages"'),
        *("],", '"message_count"', '"updated_at"', "}"),
    ]
    store.append(
        "s", [Message("user", "Grüße", timestamp=1.0, id="1"), Message("assistant", None, timestamp=2.0, id="2")]
    )
    lines = (folder / "s.json").read_text().splitlines()
    assert lines[8:12] == [
        '"messages": [',
        '{"role":"user","content":"Grüße","timestamp":1.0,"id":"1"},',
        '{"role":"assistant","content":null,"timestamp":2.0,"id":"2"}',
        "],",
    ]


CALLS: dict[str, Callable[[DefaultSessionStore], object]] = {
    "a message": lambda store: store.add_user_message("s", 'a "quoted"\nline \\ \x00 \u2028 ende 🙂'),
    "several": lambda store: store.append("s", [Message("user", "a"), Message("user", "b")]),
    "none": lambda store: store.append("s", []),
    "a title": lambda store: store.rename_session("s", "T\n],"),
    "a state": lambda store: store.engine.update(KEY, {"state": {"nested": [{"role": "user"}, None, 1.5]}}),
    "unknown keys": lambda store: store.engine.update(KEY, {"extra": {"messages ": [1], "": {}, "a\nb": "\n"}}),
    "an archive": lambda store: store.engine.update(KEY, {"start": 1}),
    "another message": lambda store: store.add_assistant_message("s", "c"),
    "a drop": lambda store: store.engine.drop(KEY),
    "a new history": lambda store: store.set_chat_history("s", [{"role": "user", "content": "d"}]),
    "nothing left": lambda store: store.clear_session("s"),
    "a first message again": lambda store: store.add_user_message("s", "e"),
}


def test_it_is_valid_json_after_every_call(folder: Path, store: DefaultSessionStore) -> None:
    store.open_session("s")
    for name, call in CALLS.items():
        call(store)
        data = (folder / "s.json").read_bytes()
        found = json.loads(data)
        assert found["message_count"] == len(found["messages"]), name
        assert found["messages"] == [message.to_dict() for message in store.messages("s")]
        record = store.engine.get(KEY)
        assert record is not None
        assert len(found.get("archived_messages", [])) == record.start - found["storage"]["first"]
        assert data.count(b'\n{"role"') == len(found["messages"]) + len(found.get("archived_messages", []))
        assert files(folder).keys() == {"s.json"}


def test_only_their_owner_can_read_them(folder: Path, store: DefaultSessionStore) -> None:
    """Also where the first session ever is another user's, and the folders above are made with it."""
    store.add_user_message("s", "a", user_id="alice")
    store.add_user_message("s", "a")
    store.rename_session("s", "rewritten")
    for path in (folder.parent, *folder.parent.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_permissions_that_somebody_gave_a_file_stay(folder: Path, store: DefaultSessionStore) -> None:
    store.add_user_message("s", "a")
    (folder / "s.json").chmod(0o664)
    store.add_user_message("s", "b")
    store.rename_session("s", "rewritten")
    assert stat.S_IMODE((folder / "s.json").stat().st_mode) == 0o664


def test_the_time_of_the_file_is_that_of_the_session(folder: Path, store: DefaultSessionStore) -> None:
    for call in (
        store.open_session,
        lambda name: store.add_user_message(name, "a"),
        lambda name: store.rename_session(name, "t"),
    ):
        call("s")
        record = store.engine.get(KEY)
        assert record is not None
        assert (folder / "s.json").stat().st_mtime == pytest.approx(record.updated_at, abs=1e-6)


# Where it lies


def test_the_default_user_and_others(folder: Path, store: DefaultSessionStore) -> None:
    for user_id in (None, "", "default_user", "alice", "a/b", "Ä"):
        store.add_user_message("my.session", "a", user_id=user_id)
    assert files(folder).keys() == {
        "my.session.json",
        "users/alice/my.session.json",
        "users/a%2Fb/my.session.json",
        "users/%C3%84/my.session.json",
    }
    assert len(store.get_chat_history("my.session", user_id="default_user")) == 3


@pytest.mark.parametrize(
    ("session_id", "name"),
    [
        ("Plain-Id_1.2", "Plain-Id_1.2"),
        ("a b", "a%20b"),
        ("../x", "%2E.%2Fx"),
        ("..", "%2E%2E"),
        ("con", "%63on"),
        ("🙂", "%F0%9F%99%82"),
        ("a%b", "a%25b"),
    ],
)
def test_the_name_of_a_file(folder: Path, store: DefaultSessionStore, session_id: str, name: str) -> None:
    store.add_user_message(session_id, "a")
    assert files(folder).keys() == {f"{name}.json"}
    assert json.loads((folder / f"{name}.json").read_bytes())["session_id"] == session_id


def test_praisonai_home_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "one"):
        monkeypatch.setenv("PRAISONAI_HOME", str(tmp_path / name))
        DefaultSessionStore().add_user_message("s", name)
        get_default_session_store().add_user_message("t", name)
    assert files(tmp_path).keys() == {f"{name}/sessions/{id_}.json" for name in ("one", "two") for id_ in "st"}
    assert texts(get_default_session_store(), "t") == ["one", "one"]


def test_a_folder_given_in_any_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative one stays what it was when the store was made."""
    monkeypatch.chdir(tmp_path)
    relative = DefaultSessionStore("here")
    monkeypatch.chdir("/")
    relative.add_user_message("s", "a")
    assert texts(DefaultSessionStore(tmp_path / "here"), "s") == ["a"]
    assert texts(DefaultSessionStore(f"{tmp_path}/here/"), "s") == ["a"]


def test_looking_makes_nothing(folder: Path, store: DefaultSessionStore) -> None:
    assert store.get_chat_history("s") == []
    assert store.get_session("s").messages == []
    assert not store.session_exists("s")
    assert store.list_sessions() == store.list_sessions(all_users=True) == store.list_sessions(user_id="alice") == []
    assert store.engine.owners("s") == []
    assert store.delete_session("s") is False
    assert not folder.parent.exists()


# Ids that share nothing, whatever they look like

LONG = "x" * 300
HARD_IDS = [
    *(
        "a/b",
        "a.b",
        "a_b",
        "a:b",
        "a b",
        "a\\b",
        "A",
        "a",
        "..",
        "...",
        "/",
        "~",
        "%41",
        "a%2Fb",
        "x.json",
        "x.json.json",
    ),
    *(
        "x.json.lock",
        "x.json.tmp",
        "s",
        "s.json",
        "users",
        "damaged",
        "con",
        "CON",
        "🙂",
        "é",
        "e\u0301",
        "İ",
        "日" * 100,
    ),
    *(LONG, LONG + "x", LONG.upper(), "ü" * 300, "?" * 300, "a" * 180, "a" * 181),
]


def test_hard_ids_as_sessions_and_as_users(folder: Path, store: DefaultSessionStore) -> None:
    for name in HARD_IDS:
        store.add_user_message(name, f"session {name}")
        store.add_user_message("s", f"user {name}", user_id=name)
        store.add_user_message(name, f"both {name}", user_id=name)
        store.rename_session(name, name, user_id=name)
    for name in HARD_IDS:
        assert texts(store, name, "default_user") == [f"session {name}"]
        assert texts(store, "s", name) == ([f"user {name}"] if name != "s" else ["user s", "both s"])
        assert f"both {name}" in texts(store, name, name)
        listed = {session["session_id"] for session in store.list_sessions(user_id=name)}
        assert listed == {"s", name}
        assert name in store.engine.owners(name) or len(file_stem(name)) > 100
    assert len(store.list_sessions(limit=None, all_users=True)) == 3 * len(HARD_IDS) - 1
    assert len(files(folder)) == 3 * len(HARD_IDS) - 1
    for name in HARD_IDS:
        assert store.delete_session(name, user_id=name) is True
    assert {session["session_id"] for session in store.list_sessions(limit=None)} == set(HARD_IDS)


@pytest.mark.parametrize("bad", ["\x00", "a\x00b", "\n", "\ud800", "x" * 1025, "ü" * 600])
def test_ids_that_name_nothing(folder: Path, store: DefaultSessionStore, bad: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.add_user_message(bad, "a"),
        lambda: store.get_chat_history(bad),
        lambda: store.delete_session(bad),
        lambda: store.add_user_message("s", "a", user_id=bad),
        lambda: store.get_chat_history("s", user_id=bad),
        lambda: store.list_sessions(user_id=bad),
    ]
    for call in calls:
        with pytest.raises(InvalidId):
            call()
    assert not folder.exists()


@pytest.mark.parametrize("bad", [None, 5, b"s", ["s"]])
def test_ids_that_are_no_text(folder: Path, store: DefaultSessionStore, bad: Any) -> None:
    with pytest.raises(InvalidIdType):
        store.add_user_message(bad, "a")
    with pytest.raises(InvalidId):
        store.get_chat_history("")
    assert not folder.exists()


# A disk that is blind to case. Two names of one file stand for it.


@pytest.fixture
def blind(folder: Path, store: DefaultSessionStore) -> DefaultSessionStore:
    """A store in which `A.json` and `a.json` are one file: that of the session `A`."""
    store.add_user_message("A", "of A")
    os.link(folder / "A.json", folder / "a.json")
    return store


def test_a_case_twin_gets_another_name(folder: Path, blind: DefaultSessionStore) -> None:
    assert blind.get_chat_history("a") == []
    assert blind.delete_session("a") is False
    blind.add_user_message("a", "of a")
    assert (texts(blind, "A"), texts(blind, "a")) == (["of A"], ["of a"])
    assert (folder / f"{twin_stem('default_user', 'a')}.json").exists()
    with pytest.raises(SessionExists):
        blind.engine.open_session(Record("default_user", "a"), must_be_new=True)
    assert blind.engine.owners("a") == blind.engine.owners("A") == ["default_user"]
    assert blind.delete_session("a") is True
    assert (texts(blind, "A"), texts(blind, "a")) == (["of A"], [])


def test_a_twin_is_found_when_the_first_one_is_gone(folder: Path, blind: DefaultSessionStore) -> None:
    blind.add_user_message("a", "of a")
    blind.delete_session("A")
    (folder / "a.json").unlink()
    assert texts(blind, "a") == ["of a"]
    assert texts(blind, "A") == []
    assert [session["session_id"] for session in blind.list_sessions()] == ["a"]
    blind.add_user_message("A", "again")
    assert (texts(blind, "A"), texts(blind, "a")) == (["again"], ["of a"])


def test_a_name_that_another_session_has_taken(folder: Path, store: DefaultSessionStore) -> None:
    """PraisonAI keeps `a/b` in `a_b.json`, where `a_b` should be."""
    folder.mkdir(parents=True)
    (folder / "a_b.json").write_text(
        json.dumps({"session_id": "a/b", "messages": [{"role": "user", "content": "theirs"}]})
    )
    store.add_user_message("a_b", "ours")
    assert (texts(store, "a/b"), texts(store, "a_b")) == (["theirs"], ["ours"])
    store.add_user_message("a/b", "more")
    assert (texts(store, "a/b"), texts(store, "a_b")) == (["theirs", "more"], ["ours"])
    assert sorted(session["session_id"] for session in store.list_sessions()) == ["a/b", "a_b"]


def test_a_session_that_somebody_made_without_the_lock(
    folder: Path, store: DefaultSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock file was removed, and two who looked before see nothing. It is one session, and no twin of itself."""
    store.open_session("s", agent_name="the first")
    real, looked = JsonFileEngine.get, []

    def get(engine: JsonFileEngine, key: Key) -> Record | None:
        looked.append(key)
        return real(engine, key) if len(looked) > 2 else None

    monkeypatch.setattr(JsonFileEngine, "get", get)
    assert store.open_session("s", agent_name="the second").agent_name == "the first"
    assert files(folder).keys() == {"s.json"}


# Files that people copy and rename


def test_a_copy_is_a_session_of_its_own(folder: Path, store: DefaultSessionStore) -> None:
    store.add_user_message("s", "a")
    (folder / "copy.json").write_bytes((folder / "s.json").read_bytes())
    assert texts(store, "copy") == ["a"]
    store.add_user_message("copy", "b")
    assert (texts(store, "s"), texts(store, "copy")) == (["a"], ["a", "b"])
    assert sorted(session["session_id"] for session in store.list_sessions()) == ["copy", "s"]
    store.rename_session("copy", "t")
    assert json.loads((folder / "copy.json").read_bytes())["session_id"] == "copy"


def test_a_renamed_file_is_found_under_its_new_name(folder: Path, store: DefaultSessionStore) -> None:
    store.add_user_message("s", "a")
    (folder / "s.json").rename(folder / "new name.json")
    (folder / "new name.json").rename(folder / "new%20name.json")
    assert texts(store, "new name") == ["a"]
    assert texts(store, "s") == []
    assert [session["session_id"] for session in store.list_sessions()] == ["new name"]


def test_a_file_that_is_moved_to_another_user_is_theirs(folder: Path, store: DefaultSessionStore) -> None:
    store.add_user_message("s", "a", user_id="alice")
    store.add_user_message("t", "b", user_id="bob")
    (folder / "users/alice/s.json").rename(folder / "users/bob/s.json")
    assert texts(store, "s", "alice") == []
    assert texts(store, "s", "bob") == ["a"]
    assert sorted(session["session_id"] for session in store.list_sessions(user_id="bob")) == ["s", "t"]


@pytest.mark.parametrize(
    "name", ["no%name.json", "users/default_user/s.json", "users/a b/s.json", f"s%~{'0' * 32}.json"]
)
def test_a_name_that_no_session_has_is_reported(folder: Path, store: DefaultSessionStore, name: str) -> None:
    store.add_user_message("s", "a")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((folder / "s.json").read_bytes())
    with pytest.warns(SessionDamage, match="rename it"):
        assert len(store.list_sessions(all_users=True)) == 1
    assert texts(store, "s") == ["a"]


def test_header_values_of_another_kind_are_set_aside(folder: Path, store: DefaultSessionStore) -> None:
    store.add_user_message("s", "a")
    path = folder / "s.json"
    path.write_text(
        path.read_text().replace('"metadata": {}', '"metadata": [1]').replace('"state": {}', '"state": "x"')
    )
    with pytest.warns(SessionDamage):
        store.rename_session("s", "t")
    assert store.get_session("s").metadata == {"title": "t"}
    [aside] = (folder / "damaged").iterdir()
    assert [json.loads(line) for line in aside.read_text().splitlines()] == [{"metadata": [1]}, {"state": "x"}]


def test_numbers_that_contradict_each_other(folder: Path, store: DefaultSessionStore) -> None:
    """Messages do not vanish behind a first number that somebody changed."""
    store.append("s", [Message("user", text) for text in "abc"])
    path = folder / "s.json"
    path.write_text(path.read_text().replace('"first":0', '"first":2'))
    found = store.engine.read(KEY, 0)
    assert (found.first, [message.content for message in found.messages]) == (2, ["a", "b", "c"])
    record = store.engine.get(KEY)
    assert record is not None
    assert (record.start, record.length) == (2, 5)


def test_a_time_that_the_file_system_does_not_have(folder: Path, store: DefaultSessionStore) -> None:
    store.append("s", [Message("user", text, timestamp=1e300) for text in "abc"])
    store.engine.update(KEY, {"start": 1})
    path = folder / "s.json"
    path.write_text(re.sub('updated_at": "....', 'updated_at": "9000', path.read_text()))
    assert store.list_sessions()[0]["updated_at"].startswith("9000-")
    store.engine.drop(KEY)
    assert texts(store, "s") == ["b", "c"]
    path.write_bytes(path.read_bytes()[:-40])
    assert texts(store, "s") == ["b", "c"]


# What cannot be stored


@pytest.mark.parametrize(
    "message",
    [
        Message("user", "\ud800"),
        Message("user", "a", metadata={"x": float("nan")}),
        Message("user", "a", metadata={"x": {1, 2}}),
        Message("user", ["\udfff"]),
        Message("robot", "a"),
    ],
    ids=["half a character", "NaN", "set", "half a character in a part", "role"],
)
def test_a_message_that_cannot_be_stored_changes_nothing(
    folder: Path, store: DefaultSessionStore, message: Message
) -> None:
    store.add_user_message("s", "a")
    before = files(folder)
    with pytest.raises(InvalidMessage):
        store.append("s", [Message("user", "good"), message])
    with pytest.raises(InvalidMessage):
        store.set_chat_history("s", [msgspec.structs.asdict(message) | {"extra": None}])
    assert files(folder) == before


def test_the_limit_of_a_message(folder: Path) -> None:
    store = DefaultSessionStore(folder, max_message_bytes=1_000)
    store.open_session("s")
    before = files(folder)
    with pytest.raises(MessageTooLarge) as caught:
        store.append("s", [Message("user", "good"), Message("user", "ü" * 500)])
    assert caught.value.limit == 1_000
    assert caught.value.size > 1_000
    assert files(folder) == before
    store.add_user_message("s", "x" * 800)
    DefaultSessionStore(folder).add_user_message("s", "x" * 2_000_000)
    assert list(map(len, texts(store, "s"))) == [800, 2_000_000]


@pytest.mark.parametrize("metadata", [{"x": float("inf")}, {"x": "\ud800"}, {1: 2}])
def test_a_record_that_cannot_be_stored_changes_nothing(
    folder: Path, store: DefaultSessionStore, metadata: dict[str, Any]
) -> None:
    store.add_user_message("s", "a")
    before = files(folder)
    with pytest.raises(InvalidMessage):
        store.engine.update(KEY, {"metadata": metadata})
    with pytest.raises(InvalidMessage):
        store.engine.open_session(Record("default_user", "t", metadata=metadata))
    assert files(folder) == before


# Something else lies where the file should be


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def make_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE messages (role TEXT)")
    connection.commit()
    connection.close()


def make_link(path: Path) -> None:
    """To a real session file, which somebody else looks after."""
    target = path.parent / "elsewhere"
    DefaultSessionStore(target).add_user_message("s", "theirs")
    path.symlink_to(target / "s.json")


STRANGE: dict[str, Callable[[Path], object]] = {
    "folder": make_folder,
    "named pipe": os.mkfifo,
    "socket": make_socket,
    "symbolic link": make_link,
    "symbolic link to nothing": lambda path: path.symlink_to("nothing"),
    "symbolic link to itself": lambda path: path.symlink_to(path.name),
    "picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"),
    "text": lambda path: path.write_text("Dear diary,\n"),
    "list": lambda path: path.write_text('[{"role": "user", "content": "a"}]'),
    "number": lambda path: path.write_text("5"),
    "object without messages": lambda path: path.write_text('{"session_id": "s"}'),
    "object whose messages are none": lambda path: path.write_text('{"session_id": "s", "messages": {"a": 1}}'),
    "one message a line": lambda path: path.write_text(
        '{"role":"user","content":"a"}\n{"role":"user","content":"b"}\n'
    ),
    "broken settings": lambda path: path.write_text('{\n  "session_id": "s",\n  "colour": red\n}\n'),
    "database": make_database,
    "deep": lambda path: path.write_text('{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}"),
}


@pytest.fixture(params=STRANGE)
def strange(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    STRANGE[request.param](folder / "s.json")
    yield folder / "s.json"
    if stat.S_ISFIFO((folder / "s.json").lstat().st_mode):
        (folder / "s.json").unlink()


def test_something_strange_is_refused_and_left_alone(folder: Path, strange: Path, store: DefaultSessionStore) -> None:
    def look() -> tuple[object, ...]:
        status = strange.lstat()
        content = strange.read_bytes() if stat.S_ISREG(status.st_mode) else sorted(map(str, folder.glob("s.json/**")))
        return (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, content)

    before = look()
    store.add_user_message("good", "a")
    calls: list[Callable[[], object]] = [
        lambda: store.add_user_message("s", "a"),
        lambda: store.get_chat_history("s"),
        lambda: store.get_chat_history("s", 1),
        lambda: store.get_session("s"),
        lambda: store.session_exists("s"),
        lambda: store.open_session("s"),
        lambda: store.rename_session("s", "t"),
        lambda: store.set_chat_history("s", []),
        lambda: store.delete_session("s"),
    ]
    for call in calls:
        with pytest.raises(NotASessionFile) as caught:
            call()
        assert caught.value.path == str(strange)
        assert str(strange) in str(caught.value)
    assert look() == before
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        assert [session["session_id"] for session in store.list_sessions()] == ["good"]
        assert store.engine.owners("s") == []
    assert caught_warnings
    assert all(isinstance(warning.message, SessionDamage) for warning in caught_warnings)
    assert {path.name for path in folder.iterdir()} <= {
        "s.json",
        "s.json.lock",
        "good.json",
        "good.json.lock",
        "elsewhere",
    }


def test_another_user_is_not_kept_from_theirs(strange: Path, store: DefaultSessionStore) -> None:
    """PraisonAI would keep their session in the same file, so it is looked at, and passed over."""
    assert store.get_chat_history("s", user_id="alice") == []
    store.add_user_message("s", "a", user_id="alice")
    store.rename_session("s", "t", user_id="alice")
    assert texts(store, "s", "alice") == ["a"]


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"\n", b"{", b'{\n"session_id": "s",'])
def test_a_file_that_never_got_its_bytes_is_an_empty_session(
    folder: Path, store: DefaultSessionStore, data: bytes
) -> None:
    """A loss of power may leave that. There is nothing to lose, but it is reported, and the bytes are kept."""
    folder.mkdir(parents=True)
    (folder / "s.json").write_bytes(data)
    assert len(store.list_sessions()) == 1
    with pytest.warns(SessionDamage, match="0 messages kept"):
        store.add_user_message("s", "a")
    assert texts(store, "s") == ["a"]
    assert [path.read_bytes() for path in (folder / "damaged").iterdir()] == [data]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("more", ["", ',"logs":[]'])
def test_a_newer_format_is_refused(folder: Path, store: DefaultSessionStore, more: str, indent: int | None) -> None:
    """Also where its head looks different, or an editor laid it out anew: writing it as ours would lose what is new in it."""
    store.add_user_message("s", "a")
    data = (folder / "s.json").read_text()
    newer = data.replace('"storage": {"format":1,', f'"storage": {{"format":3{more},')
    newer = newer if indent is None else json.dumps(json.loads(newer), indent=indent)
    (folder / "s.json").write_text(newer)
    calls: list[Callable[[], object]] = [
        lambda: store.get_chat_history("s"),
        lambda: store.add_user_message("s", "b"),
        lambda: store.rename_session("s", "t"),
        lambda: store.delete_session("s"),
        lambda: store.open_session("s"),
    ]
    for call in calls:
        with pytest.raises(NewerFormat, match="format 3, this version reads up to 2"):
            call()
    with pytest.warns(SessionDamage, match="upgrade"):
        assert store.list_sessions() == []
    assert (folder / "s.json").read_text() == newer


# What lies beside it


def test_leftovers_of_a_crash_are_not_listed_and_go_with_the_session(folder: Path, store: DefaultSessionStore) -> None:
    for session_id in ("s", "s.json", "s.0123456789ab"):
        store.add_user_message(session_id, "a")
    engine = store.engine
    for name in ("s.json.tmp", "s.json.123-0a1b2c3d.tmp", "s.json.json.tmp", "s.0123456789ab.json.tmp"):
        (folder / name).write_bytes((folder / "s.json").read_bytes()[:100])
    (folder / "damaged").mkdir()
    for name in ("s.0123456789ab", "s.ba9876543210", "s.json.0123456789ab", "s.0123456789ab.0123456789ab"):
        (folder / "damaged" / name).write_text("piece")
    assert len(engine.list_sessions(None).records) == 3
    assert store.delete_session("s") is True
    assert sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")) == [
        "s.0123456789ab.0123456789ab",
        "s.0123456789ab.json",
        "s.0123456789ab.json.tmp",
        "s.json.0123456789ab",
        "s.json.json",
        "s.json.json.tmp",
    ]
    assert not (folder / "s.json.lock").exists()
    for session_id in ("s.json", "s.0123456789ab"):
        assert store.delete_session(session_id) is True
    assert files(folder) == {}


def test_damage_of_one_users_session_does_not_go_with_anothers(folder: Path, store: DefaultSessionStore) -> None:
    for user_id in ("alice", "bob", "x" * 300):
        store.add_user_message("s" * 300, "a", user_id=user_id)
        store.add_user_message("s" * 300, "b", user_id=user_id)
    for path in folder.glob("users/*/*.json"):
        path.write_bytes(path.read_bytes().replace(b'"a"', b'"\xff"'))
    for user_id in ("alice", "bob", "x" * 300):
        with pytest.warns(SessionDamage) as caught:
            assert texts(store, "s" * 300, user_id) == ["b"]
        [warning] = caught
        assert isinstance(warning.message, SessionDamage)
        assert warning.message.set_aside is not None
        assert b"\xff" in Path(warning.message.set_aside).read_bytes()
        assert stat.S_IMODE(os.stat(warning.message.set_aside).st_mode) == 0o600
    assert len([path for path in folder.glob("damaged/**/*") if path.is_file()]) == 3
    store.delete_session("s" * 300, user_id="alice")
    assert len([path for path in folder.glob("damaged/**/*") if path.is_file()]) == 2


def test_a_report_holds_no_text_of_a_message(folder: Path, store: DefaultSessionStore) -> None:
    store.add_user_message("s", "secret one")
    store.add_user_message("s", "secret two")
    path = folder / "s.json"
    path.write_bytes(path.read_bytes().replace(b"secret two", b"secret \xff"))
    with pytest.warns(SessionDamage) as caught:
        store.get_chat_history("s")
    assert "secret" not in str(caught[0].message)
    assert str(path) in str(caught[0].message)


@pytest.mark.parametrize("name", ["notes.txt", ".json", ".DS_Store", "s.json.bak", "s.json~", "backup.json.gz"])
def test_other_files_in_the_folder_are_nobodys_business(folder: Path, store: DefaultSessionStore, name: str) -> None:
    store.add_user_message("s", "a")
    store.add_user_message("s", "a", user_id="alice")
    for place in (folder, folder / "users", folder / "users/alice"):
        (place / name).write_text("mine")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if name == ".json" else "error")
        assert len(store.list_sessions(all_users=True)) == 2
        assert store.engine.owners("s") == ["alice", "default_user"]
        store.delete_session("s")
    assert (folder / name).read_text() == "mine"


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        DefaultSessionStore(tmp_path / "file").add_user_message("s", "a")
    with pytest.raises(StorageError):
        DefaultSessionStore(tmp_path / "file" / "below").get_chat_history("s")
    assert (tmp_path / "file").read_text() == "x"


# Rights


def as_nobody(work: Callable[[], None]) -> None:
    """Do something in a child process that is not root, where this one is: rights do not bind root."""
    if os.geteuid() != 0:
        work()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which the child does not use
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that everybody can get to: those that pytest gives are for their user alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder, "sessions")


def test_a_folder_that_can_only_be_read(reachable: Path) -> None:
    store = DefaultSessionStore(reachable)
    store.append("s", [Message("user", "a"), Message("user", "b")])
    store.append("torn", [Message("user", "a"), Message("user", "b")])
    (reachable / "torn.json").write_bytes((reachable / "torn.json").read_bytes()[:-60])
    store.append("bad", [Message("user", "a"), Message("user", "b")])
    (reachable / "bad.json").write_bytes((reachable / "bad.json").read_bytes().replace(b'"b"', b'"\xff"'))
    for path in reachable.iterdir():
        path.chmod(0o444)
    reachable.chmod(0o555)
    before = files(reachable)

    def work() -> None:
        assert texts(store, "s") == ["a", "b"]
        assert texts(store, "torn") == ["a", "b"]
        with pytest.warns(SessionDamage, match="could not be written anew"):
            assert texts(store, "bad") == ["a"]
        assert {session["session_id"] for session in store.list_sessions()} == {"s", "torn", "bad"}
        for call in (
            lambda: store.add_user_message("s", "c"),
            lambda: store.add_user_message("new", "c"),
            lambda: store.add_user_message("new", "c", user_id="alice"),
            lambda: store.rename_session("s", "t"),
            lambda: store.delete_session("s"),
        ):
            with pytest.raises(StorageError) as caught:
                call()
            assert isinstance(caught.value.__cause__, PermissionError)
            assert str(reachable) in str(caught.value)

    as_nobody(work)
    reachable.chmod(0o755)
    assert files(reachable) == before


def test_a_file_that_cannot_be_read(reachable: Path) -> None:
    """It fails loudly for its own session, and does not hide the others."""
    store = DefaultSessionStore(reachable)
    store.add_user_message("s", "a")
    store.add_user_message("t", "a")
    for path in (reachable, *reachable.iterdir()):
        path.chmod(0o777)
    (reachable / "t.json").chmod(0)
    if os.geteuid() == 0:
        os.chown(reachable / "s.json", 65534, 65534)

    def work() -> None:
        with pytest.raises(StorageError, match="Permission denied"):
            store.get_chat_history("t")
        with pytest.warns(SessionDamage, match="Permission denied"):
            assert [session["session_id"] for session in store.list_sessions()] == ["s"]
        store.add_user_message("s", "b")
        assert texts(store, "s") == ["a", "b"]

    as_nobody(work)


def test_a_file_that_another_user_lends(reachable: Path) -> None:
    """We may write to it, and must not fail because we may not set its time."""
    store = DefaultSessionStore(reachable)
    store.add_user_message("s", "a")
    for path in (reachable, *reachable.iterdir()):
        path.chmod(0o777)
    as_nobody(lambda: store.append("s", [Message("user", "b")]) and None)
    assert texts(store, "s") == ["a", "b"]


# Options


@pytest.mark.parametrize("durability", ["process", "full"])
def test_both_durabilities_write_the_same(folder: Path, durability: Any) -> None:
    store = DefaultSessionStore(folder, durability=durability)
    for call in (store.open_session, *([lambda name: CALLS["a message"](store)] * 2)):
        call("s")
    for call in CALLS.values():
        call(store)
    assert texts(store, "s") == ["e"]
    assert json.loads((folder / "s.json").read_bytes())["message_count"] == 1


def test_a_durability_that_there_is_not(folder: Path) -> None:
    with pytest.raises(ConfigError):
        JsonFileEngine(folder, durability="some")  # type: ignore[arg-type]


def test_a_url_may_say_how(folder: Path) -> None:
    engine = open_engine(f"file://{folder}/a%3F b#c?durability=full&lock_timeout=0.5&max_message_bytes=300")
    assert (engine.folder, engine.lock_timeout_s) == (f"{folder}/a? b#c", 0.5)
    assert "and a loss of power" in engine.describe()["durability"]
    engine.open_session(Record("alice", "s"))
    with pytest.raises(MessageTooLarge):
        engine.append(Key("alice", "s"), [Message("user", "x" * 300)])
    assert JsonFileEngine(f"{folder}/a?b#c").folder == f"{folder}/a?b#c", "a plain path has no settings"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file://relative/folder", "three slashes: file:///relative/folder"),
        ("file://", "names a folder"),
        ("file:///x?durabilty=full", "'durabilty'; there are: durability"),
        ("file:///x?lock_timeout=soon", "a number, not 'soon'"),
        ("file:///x?pool_size=3", "no setting 'pool_size'"),
        ("memory://?durability=full", "no settings"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_at_once(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_engine(url)


def test_full_durability_tells_the_disk_to_keep_file_and_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way when the power fails is lost, so both must be told before a call returns."""
    synced: list[bool] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(stat.S_ISDIR(os.fstat(fd).st_mode)), real(fd))[1])
    store = DefaultSessionStore(folder, durability="full")
    expected = {"open_session": [False, True], "append": [False], "rename": [False, True]}
    store.open_session("s")
    assert synced == expected["open_session"]
    synced.clear()
    store.add_user_message("s", "a")
    assert synced == expected["append"]
    synced.clear()
    store.rename_session("s", "t")
    assert synced == expected["rename"]
    DefaultSessionStore(folder).add_user_message("s", "b")
    assert synced == expected["rename"]
