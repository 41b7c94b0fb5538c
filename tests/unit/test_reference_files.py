"""Files that PraisonAI wrote: read as they are, rewritten in our layout at the first change, in a form that it reads back.

The files here are made by hand from what is known of its format: one object, indented by two, ids flattened to `_` in the
name, `archived_messages` beside `messages`, some keys of the metadata repeated above it.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from praisonaiagents.errors import AmbiguousSession, NotASessionFile, SessionDamage
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key
from praisonaiagents.session.store import DefaultSessionStore
from praisonaiagents.storage.engine import Engine

WHEN = "2026-10-01T08:00:00+00:00"
LATER = "2026-10-02T09:30:15.250000+00:00"
WHEN_S, LATER_S = 1790841600.0, 1790933415.25


def said(role: str, content: str | None, seconds: float = WHEN_S, **more: Any) -> dict[str, Any]:
    """A message as PraisonAI writes one."""
    return {"role": role, "content": content, "timestamp": seconds, "metadata": {}, **more}


CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
MESSAGES = [
    said("user", "Wie viel ist 1+2? 🙂", metadata={"source": "chat"}),
    said("assistant", None, tool_calls=[CALL]),
    said("tool", "3", tool_call_id="call_1"),
    said("assistant", "It is 3.", LATER_S, metadata={"model": "gpt-4o-mini"}),
]
ARCHIVED = [said("user", "long ago", 1.0), said("assistant", "yes", 2.0)]
CHECKPOINT = {
    "summary": "They did sums.",
    "message_index": 2,
    "role": "system",
    "tokens_before": 900,
    "tokens_after": 40,
    "timestamp": WHEN_S,
    "metadata": {},
}


def session(session_id: str = "s", **changes: Any) -> dict[str, Any]:
    """A session as PraisonAI writes one."""
    return {
        "session_id": session_id,
        "messages": MESSAGES,
        "created_at": WHEN,
        "updated_at": LATER,
        "agent_name": "Calculator",
        "user_id": "praison",
        "metadata": {"title": "Sums", "model": "gpt-4o-mini", "total_tokens": 120},
        "gateway_session_id": None,
        "agent_id": "agent-1",
        "runtime_state": {"cli": {"turn-1": {"done": True}}},
        "archived_messages": [],
        "model": "gpt-4o-mini",
        "total_tokens": 120,
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def store(folder: Path) -> DefaultSessionStore:
    return DefaultSessionStore(folder)


def put(folder: Path, values: dict[str, Any], name: str | None = None) -> Path:
    """Write a file as PraisonAI does, under its name for the session."""
    flat = "".join(c if c.isalnum() or c in "-_" else "_" for c in values.get("session_id", ""))
    path = folder / f"{name or flat}.json"
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False), encoding="utf-8")
    return path


def read_by_reference(path: Path) -> dict[str, Any]:
    """What PraisonAI makes of a file: unknown keys mean nothing to it, and missing ones have their defaults."""
    values = json.loads(path.read_text(encoding="utf-8"))
    messages = {
        name: [
            {"timestamp": 0.0, "metadata": {}} | {key: value for key, value in message.items() if key in _KNOWN}
            for message in values.get(name, [])
        ]
        for name in ("messages", "archived_messages")
    }
    mirrored = {
        key: values[key] for key in ("model", "llm", "total_tokens", "cost", "source") if values.get(key) is not None
    }
    return values | messages | {"metadata": mirrored | values["metadata"]}


_KNOWN = ("role", "content", "timestamp", "metadata", "tool_calls", "tool_call_id")


def contents(store: DefaultSessionStore, session_id: str, user_id: str | None = None) -> list[Any]:
    return [message["content"] for message in store.get_chat_history(session_id, user_id=user_id)]


# Reading


def test_everything_in_it_is_read(folder: Path, store: DefaultSessionStore) -> None:
    put(folder, session(archived_messages=ARCHIVED, last_compaction=CHECKPOINT))
    assert store.get_chat_history("s") == [
        {"role": "user", "content": "Wie viel ist 1+2? 🙂"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "3", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "It is 3."},
    ]
    found = store.get_session("s")
    assert [message.to_dict() | {"metadata": message.metadata} for message in found.messages] == MESSAGES
    assert (found.user_id, found.agent_name) == ("default_user", "Calculator")
    assert found.metadata == {"title": "Sums", "model": "gpt-4o-mini", "total_tokens": 120}
    record = store.engine.get(Key("default_user", "s"))
    assert record is not None
    assert (record.created_at, record.updated_at) == (WHEN_S, LATER_S)
    assert (record.start, record.length, record.message_count) == (2, 6, 4)
    assert record.extra == {
        "gateway_session_id": None,
        "agent_id": "agent-1",
        "runtime_state": {"cli": {"turn-1": {"done": True}}},
        "last_compaction": CHECKPOINT,
        "model": "gpt-4o-mini",
        "total_tokens": 120,
    }
    archive = store.engine.read(Key("default_user", "s"), 0, 2)
    assert [message.content for message in archive.messages] == ["long ago", "yes"]
    assert contents(store, "s")[-1:] == [message["content"] for message in store.get_chat_history("s", 1)]


def test_what_a_model_is_sent_after_a_compaction(folder: Path, store: DefaultSessionStore) -> None:
    """Its `message_index` counts the messages that are not archived."""
    put(folder, session(archived_messages=ARCHIVED, last_compaction=CHECKPOINT | {"message_index": 3}))
    assert store.get_working_history("s") == [
        {"role": "system", "content": "They did sums."},
        {"role": "assistant", "content": "It is 3."},
    ]


def test_a_listing_shows_it(folder: Path, store: DefaultSessionStore) -> None:
    put(folder, session())
    [listed] = store.list_sessions()
    assert listed | {"session_id": "s", "title": "Sums", "message_count": 4, "agent_id": "agent-1"} == listed
    assert (listed["created_at"], listed["updated_at"]) == (WHEN, LATER)
    assert (listed["model"], listed["total_tokens"]) == ("gpt-4o-mini", 120)
    assert store.list_sessions_by_agent("Calculator") == ["s"]


def test_reading_changes_no_byte(folder: Path, store: DefaultSessionStore) -> None:
    path = put(folder, session(archived_messages=ARCHIVED))
    before = path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
    for call in (store.get_chat_history, store.get_session, store.session_exists, store.open_session, store.messages):
        call("s")
    store.engine.read(Key("default_user", "s"), 0, 3)
    store.list_sessions(all_users=True)
    store.engine.owners("s")
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert [found.name for found in folder.iterdir()] == ["s.json"]


OLDER: dict[str, dict[str, Any]] = {
    "no metadata": {key: value for key, value in session().items() if key != "metadata"},
    "the first version": {"session_id": "s", "messages": [{"role": "user", "content": "a"}], "created_at": WHEN},
    "nothing but messages": {"messages": [{"role": "user", "content": "a"}]},
    "nulls": session() | dict.fromkeys(("agent_name", "user_id", "metadata", "created_at", "archived_messages")),
    "times as numbers": session(created_at=WHEN_S, updated_at=LATER_S),
    "times without a zone": session(created_at=WHEN[:19], updated_at=LATER[:26]),
    "times that are none": session(created_at="yesterday", updated_at=1e300),
    "an empty session": session(messages=[]),
    "hierarchical": session(
        parent_id="p", forked_from_message_id="3", children_ids=["c"], is_shared=False, title="Sums",
        snapshots=[{"id": "x", "session_id": "s", "message_index": 1, "created_at": WHEN_S, "label": None, "metadata": {}}],
    ),
    "unknown keys": session(new_feature={"messages": [{"role": "user", "content": "not one"}]}, other=[1, None, "🙂"]),
    "unknown keys in messages": session(messages=[said("user", "a", mood="good", extra={"x": 1}, id=5)]),
    "roles that are ours no more": session(messages=[said("function", "a", name="f"), said("user", "b")]),
}  # fmt: skip


@pytest.mark.parametrize("name", OLDER)
def test_older_and_stranger_files(folder: Path, store: DefaultSessionStore, name: str) -> None:
    """They are read, listed, appended to, and nothing in them is lost by the rewriting."""
    values = OLDER[name]
    path = put(folder, values, "s")
    expected = [message["content"] for message in values["messages"]]
    assert contents(store, "s") == expected
    [listed] = store.list_sessions()
    assert (listed["session_id"], listed["message_count"]) == ("s", len(expected))
    store.add_user_message("s", "more")
    assert contents(store, "s") == [*expected, "more"]
    found = json.loads(path.read_bytes())
    for key in values.keys() - {"messages", "updated_at", "user_id", "created_at", "metadata", "archived_messages"}:
        assert found[key] == values[key]
    for before, after in zip(values["messages"], found["messages"], strict=False):
        assert {key: value for key, value in before.items() if value != {}}.items() <= after.items()
    assert (values.get("metadata") or {}).items() <= found["metadata"].items()


@pytest.mark.parametrize("key", ["model", "llm", "total_tokens", "token_count", "cost", "source"])
def test_keys_that_only_stand_above_the_metadata(folder: Path, store: DefaultSessionStore, key: str) -> None:
    """An old version had them there alone. Where both are there, the metadata is right."""
    put(folder, session("old", metadata={}) | {key: "above"})
    put(folder, session("new", metadata={key: "below"}) | {key: "above"})
    assert store.get_session("old").metadata[key] == "above"
    assert store.get_session("new").metadata[key] == "below"


# Whose it is, and where it lies


@pytest.mark.parametrize("owner", ["praison", "default", "", "default_user", None])
def test_its_names_for_nobody_mean_the_default_user(
    folder: Path, store: DefaultSessionStore, owner: str | None
) -> None:
    put(folder, session(user_id=owner))
    assert len(contents(store, "s", "default_user")) == 4
    assert contents(store, "s", "praison") == contents(store, "s", "default") == []
    assert [found["user_id"] for found in store.list_sessions()] == ["default_user"]
    assert store.list_sessions(user_id="praison") == []


def test_our_own_users_of_those_names_stay_who_they_are(folder: Path, store: DefaultSessionStore) -> None:
    for name in ("praison", "default"):
        store.add_user_message("s", name, user_id=name)
        path = folder / "users" / name / "s.json"
        path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
        assert contents(store, "s", name) == [name]
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.warns(SessionDamage):
            assert contents(store, "s", name) == [name]
        store.add_user_message("s" * 300, name, user_id=name)  # whose file name tells only a hash
        assert contents(store, "s" * 300, name) == [name]
        assert {found["session_id"] for found in store.list_sessions(user_id=name)} == {"s", "s" * 300}
    assert store.get_chat_history("s", user_id="default_user") == []


def test_another_users_session_lies_in_the_same_folder(folder: Path, store: DefaultSessionStore) -> None:
    path = put(folder, session("main", user_id="alice"))
    assert len(contents(store, "main", "alice")) == 4
    assert contents(store, "main", "default_user") == contents(store, "main", "bob") == []
    assert store.engine.owners("main") == ["alice"]
    assert len(contents(store, "main")) == 4  # unscoped, it has one owner
    assert [found["session_id"] for found in store.list_sessions(user_id="alice")] == ["main"]
    assert store.list_sessions() == []
    assert [found["user_id"] for found in store.list_sessions(all_users=True)] == ["alice"]
    store.add_user_message("main", "more", user_id="alice")
    assert json.loads(path.read_bytes())["messages"][-1]["content"] == "more"
    assert not (folder / "users").exists()


def test_the_default_user_beside_another_ones_file(folder: Path, store: DefaultSessionStore) -> None:
    put(folder, session("main", user_id="alice"))
    store.add_user_message("main", "mine")
    assert (contents(store, "main"), len(contents(store, "main", "alice"))) == (["mine"], 4)
    assert store.engine.owners("main") == ["alice", "default_user"]
    store.delete_session("main", user_id="alice")
    assert contents(store, "main") == ["mine"]
    assert store.list_sessions(user_id="alice") == []


def test_two_owners_of_one_id_are_told_apart(folder: Path, store: DefaultSessionStore) -> None:
    put(folder, session("main", user_id="alice"))
    store.add_user_message("main", "bob's", user_id="bob")
    with pytest.raises(AmbiguousSession) as caught:
        store.get_chat_history("main")
    assert caught.value.owners == ("alice", "bob")


@pytest.mark.parametrize("session_id", ["alice:main", "a/b", "a.b", "what?", "日 本", "..", "x" * 200 + "/y"])
def test_an_id_that_it_flattened(folder: Path, store: DefaultSessionStore, session_id: str) -> None:
    path = put(folder, session(session_id))
    assert path.stem != session_id
    assert len(contents(store, session_id)) == 4
    assert contents(store, path.stem) == []
    assert [found["session_id"] for found in store.list_sessions()] == [session_id]
    assert store.engine.owners(session_id) == ["default_user"]
    store.add_user_message(path.stem, "another")
    store.add_user_message(session_id, "more")
    assert (contents(store, path.stem), contents(store, session_id)[4:]) == (["another"], ["more"])
    assert store.delete_session(session_id) is True
    assert contents(store, path.stem) == ["another"]


def test_a_session_of_ours_hides_its_file_for_the_same_one(folder: Path, store: DefaultSessionStore) -> None:
    """It does not know our folders, and makes a second file. Ours is the one that is found, and both go together."""
    store.add_user_message("main", "ours", user_id="alice")
    put(folder, session("main", user_id="alice"))
    assert contents(store, "main", "alice") == ["ours"]
    assert len(store.list_sessions(user_id="alice")) == len(store.list_sessions(all_users=True)) == 1
    assert store.delete_session("main", user_id="alice") is True
    assert contents(store, "main", "alice") == []
    assert store.list_sessions(all_users=True) == []


def test_a_file_that_it_gives_to_another_user(folder: Path, store: DefaultSessionStore) -> None:
    """Nothing that was remembered of a file outlives its rewriting, also where the system uses an inode again."""
    for number, owner in enumerate(["alice", "bob", "praison", "alice", "carol", "bob"]):
        for user_id in ("somebody", owner):
            path = put(folder, session("main", user_id=user_id), "new")
            os.utime(path, (number, number))
            path.replace(folder / "main.json")
        for user in ("alice", "bob", "carol"):
            assert bool(store.list_sessions(user_id=user)) == (user == owner)


# Changing


CHANGES: dict[str, Callable[[Engine, Key], object]] = {
    "append": lambda engine, key: engine.append(key, [Message("user", "more")]),
    "update": lambda engine, key: engine.update(key, {"metadata": {"title": "New"}}),
    "archive": lambda engine, key: engine.update(key, {"start": 3}),
    "replace": lambda engine, key: engine.replace(key, [Message("user", "more")]),
    "drop": lambda engine, key: engine.drop(key),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_first_change_rewrites_it_in_a_form_that_it_reads_back(
    folder: Path, store: DefaultSessionStore, name: str
) -> None:
    before = session(archived_messages=ARCHIVED, last_compaction=CHECKPOINT, parent_id="p", snapshots=[{"id": "x"}])
    path = put(folder, before)
    CHANGES[name](store.engine, Key("default_user", "s"))
    assert path.read_text().startswith('{\n"session_id": "s",\n"user_id": "default_user",\n"storage": {"format":1,')
    after = read_by_reference(path)
    kept = before.keys() - {"messages", "archived_messages", "updated_at", "user_id", "metadata"}
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    everything = ARCHIVED + MESSAGES
    more = [{"role": "user", "content": "more", "timestamp": 0.0, "metadata": {}}]
    expected = {
        "append": (ARCHIVED, MESSAGES + more),
        "update": (ARCHIVED, MESSAGES),
        "archive": (everything[:3], everything[3:]),
        "replace": ([], more),
        "drop": ([], MESSAGES),
    }
    assert (after["archived_messages"], after["messages"]) == expected[name]
    assert after["metadata"]["title"] == ("New" if name == "update" else "Sums")
    assert after["message_count"] == len(after["messages"])


def test_it_goes_to_and_fro(folder: Path, store: DefaultSessionStore) -> None:
    """PraisonAI and we write to one session in turn. It keeps what it knows, and so do we."""
    path = put(folder, session(archived_messages=ARCHIVED))
    known = session().keys()
    for turn in range(3):
        store.add_user_message("s", f"ours {turn}")
        values = {key: value for key, value in read_by_reference(path).items() if key in known}
        values["messages"] = [*values["messages"], said("assistant", f"theirs {turn}")]
        put(folder, values)
    spoken = [f"{who} {turn}" for turn in range(3) for who in ("ours", "theirs")]
    assert contents(store, "s")[4:] == spoken
    assert len(store.engine.read(Key("default_user", "s"), 0).messages) == 2 + 4 + 6
    assert store.get_session("s").metadata["title"] == "Sums"


def test_its_permissions_stay(folder: Path, store: DefaultSessionStore) -> None:
    path = put(folder, session())
    path.chmod(0o644)
    store.add_user_message("s", "more")
    assert path.stat().st_mode & 0o777 == 0o644


# Damage


def damaged(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False).encode()


def test_a_file_cut_off_after_any_of_its_bytes(folder: Path, store: DefaultSessionStore) -> None:
    """From the point where it can be told for a session, every whole message in it is kept; before, it is left alone."""
    whole = damaged(session(archived_messages=ARCHIVED, last_compaction=CHECKPOINT))
    texts = [message["content"] for message in MESSAGES]
    ends = []
    position = whole.index(b'"messages"')
    for _ in MESSAGES:
        position = whole.index(b"\n    }", position) + len(b"\n    }")
        ends.append(position)
    path = folder / "s.json"
    for length in range(1, len(whole) - 1, 3):
        path.write_bytes(whole[:length])
        if length <= whole.index(b"[") and whole[:length].strip() not in (b"{",):
            with pytest.raises(NotASessionFile):
                store.get_chat_history("s")
            assert path.read_bytes() == whole[:length]
            continue
        with pytest.warns(SessionDamage):
            assert contents(store, "s") == texts[: sum(end <= length for end in ends)]
        json.loads(path.read_bytes())
        aside = list((folder / "damaged").iterdir())
        assert [found.read_bytes() for found in aside] == [whole[:length]]
        aside[0].unlink()


BAD: dict[str, Callable[[bytes], bytes]] = {
    "a bad byte": lambda data: data.replace(b"It is 3.", b"It is \xff."),
    "a control character": lambda data: data.replace(b"It is 3.", b"It is \x01."),
    "a line end in a text": lambda data: data.replace(b"It is 3.", b"It is\n3."),
    "a quote missing": lambda data: data.replace(b'It is 3."', b"It is 3."),
    "a line missing": lambda data: data.replace(b'      "content": "It is 3.",\n', b'      "content":\n'),
    "half a character": lambda data: data.replace(b"It is 3.", b"It is \\ud800."),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_message_hides_no_other(folder: Path, store: DefaultSessionStore, name: str) -> None:
    values = session(
        messages=[*MESSAGES, said("user", "the last")], archived_messages=ARCHIVED, last_compaction=CHECKPOINT
    )
    data = BAD[name](damaged(values))
    (folder / "s.json").write_bytes(data)
    with pytest.warns(SessionDamage):
        assert contents(store, "s") == ["Wie viel ist 1+2? 🙂", None, "3", "the last"]
    record = store.engine.get(Key("default_user", "s"))
    assert record is not None
    assert (record.start, record.length, record.agent_name) == (2, 6, "Calculator")
    assert record.metadata == values["metadata"]
    assert record.extra["last_compaction"] == CHECKPOINT
    assert any(data in found.read_bytes() or b"It is" in found.read_bytes() for found in (folder / "damaged").iterdir())


def test_a_number_that_json_does_not_have(folder: Path, store: DefaultSessionStore) -> None:
    """Python writes NaN, and nobody else reads it. The rest is kept, and so is the file as it was."""
    data = damaged(
        session(messages=[said("user", "a", metadata={"score": float("nan")})], runtime_state={"x": float("inf")})
    )
    (folder / "s.json").write_bytes(data)
    with pytest.warns(SessionDamage):
        [message] = store.messages("s")
    assert message.metadata == {"score": None}
    assert [found.read_bytes() for found in (folder / "damaged").iterdir()] == [data]
    assert json.loads((folder / "s.json").read_bytes())["runtime_state"] == {"x": None}


def test_something_among_the_messages_that_is_none(folder: Path, store: DefaultSessionStore) -> None:
    strange = [5, None, "text", [], {"content": "no role"}, {"role": 7, "content": "x"}]
    put(folder, session(messages=[MESSAGES[0], *strange, MESSAGES[3]], archived_messages={"a": 1}))
    with pytest.warns(SessionDamage):
        assert contents(store, "s") == [MESSAGES[0]["content"], MESSAGES[3]["content"]]
    [aside] = (folder / "damaged").iterdir()
    assert [json.loads(line) for line in aside.read_text().splitlines()] == [{"a": 1}, *strange]


def test_a_listing_survives_damaged_files(folder: Path, store: DefaultSessionStore) -> None:
    put(folder, session("good"))
    (folder / "cut.json").write_bytes(damaged(session("cut"))[:500])
    (folder / "junk.json").write_bytes(b"\x80junk")
    with pytest.warns(SessionDamage, match="junk"):
        assert {found["session_id"] for found in store.list_sessions()} == {"good", "cut"}


@pytest.mark.parametrize("session_id", ["", "a\x00b", "\ud800", 5, None, "x" * 2000])
def test_an_id_that_names_nothing(folder: Path, store: DefaultSessionStore, session_id: Any) -> None:
    """PraisonAI accepts anything as an id. What the file is called decides then."""
    path = folder / "s.json"
    path.write_text(json.dumps(session() | {"session_id": session_id}, indent=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SessionDamage)  # half a character is no JSON
        assert len(contents(store, "s")) == 4
    assert [found["session_id"] for found in store.list_sessions()] == ["s"]
