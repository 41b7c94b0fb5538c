"""Exporting and importing: what goes out and comes in again is the same to the byte, on every engine; and files of PraisonAI's.

The files of PraisonAI's are made by hand from what is known of its formats.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import postgres, redis

from praisonaiagents.errors import (
    ConfigTypeError,
    Conflict,
    InvalidId,
    InvalidMessage,
    NewerFormat,
    NotASessionFile,
    PraisonError,
    SessionDamage,
    SessionExists,
    SessionNotFound,
)
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Pin
from praisonaiagents.session import HierarchicalSessionStore, SessionStore, open_store
from praisonaiagents.session.parts import UNFINISHED, outline, put_together
from praisonaiagents.session.transfer import import_bytes, import_file, renaming, to_dict, to_html, to_json, to_jsonl
from praisonaiagents.storage.engine import Appended, Engine
from praisonaiagents.storage.memory import MemoryEngine

KEY = Key("default_user", "s")
ENGINES = ["memory", "file", "sqlite", "postgres", "redis"]
DIFFICULT = [
    "",
    "\0",
    "\x1b[2J",
    "\u2028\u0085\r\n",
    "\U0001f600",
    "</script>",
    "\u202egnp",
    '{"role":"user"}',
    "x" * 100_000,
]
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HierarchicalSessionStore]:
    places: dict[str, Any] = {
        "postgres": lambda: postgres.emptied_place(postgres.shared_url()),
        "redis": redis.empty_place,
    }
    if request.param in places:
        with places[request.param]() as url, open_store(url) as opened:
            yield HierarchicalSessionStore.of(opened)
        return
    urls = {"memory": "memory://", "file": f"file://{tmp_path}/s", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    with open_store(urls[request.param]) as opened:
        yield HierarchicalSessionStore.of(opened)


@pytest.fixture
def engine(store: HierarchicalSessionStore) -> Engine:
    return store.engine


def lived() -> HierarchicalSessionStore:
    """A session that has all that one can have."""
    store = HierarchicalSessionStore.of(SessionStore(MemoryEngine()))
    store.create_session("s", title="All", agent_name="Anna", metadata={"tags": ["a"], "n": 2**70, "x": None})
    store.set_state("s", {"nested": {"list": [1, 2.5, None, "\0"]}})
    for number in range(12):
        store.add_user_message("s", f"m{number}")
    store.create_snapshot("s", "early", {"why": "test"})
    store.append_compaction_checkpoint("s", "They counted.")
    store.append(
        "s",
        [
            Message("assistant", None, tool_calls=[CALL], usage={"input_tokens": 1}, model="gpt", run_id="r"),
            Message("tool", "1", tool_call_id="call_1", name="add"),
            Message("assistant", [{"type": "text", "text": "one"}], reasoning=[{"text": "hm"}], status="interrupted"),
            Message("user", "later", extra={"of a newer version": [1]}),
        ],
    )
    store.engine.update(KEY, {"start": 3})
    store.create_snapshot("s", "trimmed")
    store.engine.drop(KEY)
    store.engine.update(KEY, {"start": 5})
    store.revert_to_message("s", 4)
    store.add_user_message("s", "another way")
    store.create_snapshot("s", "other")
    store.revert("s", "early")
    store.undo("s")
    store.fork_session("s", 2, new_session_id="child")
    store.share_session("s")
    store.engine.update(KEY, {"pins": store.engine.get(KEY).pins | {"empty": Pin(store.engine.get(KEY).log, 5, 5)}})
    return store


def written(engine: Engine, key: Key = KEY) -> bytes:
    return b"".join(to_jsonl(engine, key))


# Our own forms


def test_everything_comes_back_to_the_byte(engine: Engine) -> None:
    source = lived().engine
    lines, document = written(source), b"".join(to_json(source, KEY))
    import_bytes(document, engine)
    assert written(engine) == lines
    assert b"".join(to_json(engine, KEY)) == document
    assert engine.read(KEY) == engine.read(KEY, engine.get(KEY).start)
    assert UNFINISHED not in engine.get(KEY).extra


def test_a_stream_of_lines_comes_back_to_the_byte(engine: Engine, tmp_path: Path) -> None:
    lines = written(lived().engine)
    path = tmp_path / "export.jsonl"
    path.write_bytes(lines)
    record = import_file(path, engine, renaming("copy", "bob"))
    assert record.key == ("bob", "copy")
    renamed = lines.replace(b'"session_id":"s","user_id":"default_user"', b'"session_id":"copy","user_id":"bob"')
    assert written(engine, record.key) == renamed
    assert engine.get(KEY) is None


def test_what_is_imported_works_as_before(store: HierarchicalSessionStore) -> None:
    source = lived()
    import_bytes(b"".join(to_json(source.engine, KEY)), store.engine)
    for taken in (source, store):
        assert [snapshot.label for snapshot in taken.get_snapshots("s")] == ["early", "trimmed", "other"]
    assert store.get_session("s").to_dict()["messages"] == source.get_session("s").to_dict()["messages"]
    assert store.get_working_history("s") == source.get_working_history("s")
    for ref in ("early", "trimmed", "other", "head:1"):
        for taken in (source, store):
            taken.revert("s", ref)
        assert store.get_chat_history("s") == source.get_chat_history("s")
        assert store.get_working_history("s") == source.get_working_history("s")
        assert [m.id for m in store.messages("s")] == [m.id for m in source.messages("s")]
    store.add_user_message("s", "and on")
    assert store.get_chat_history("s")[-1]["content"] == "and on"
    assert store.get_parent("s") is None
    assert (store.is_shared("s"), store.get_extended_session("s").title) == (True, "All")


def test_archived_messages_stay_archived(engine: Engine) -> None:
    source = MemoryEngine()
    store = SessionStore(source)
    for number in range(6):
        store.add_user_message("s", str(number))
    source.update(KEY, {"start": 4})
    import_bytes(b"".join(to_json(source, KEY)), engine)
    record = engine.get(KEY)
    assert [m.text() for m in engine.read(KEY).messages] == ["4", "5"]
    assert [m.text() for m in engine.read(KEY, 0, record.start).messages] == ["0", "1", "2", "3"]
    values = json.loads(b"".join(to_json(engine, KEY)))
    assert [m["content"] for m in values["archived_messages"]] == ["0", "1", "2", "3"]
    assert [m["content"] for m in values["messages"]] == ["4", "5"]


def test_shared_messages_are_carried_once() -> None:
    store = HierarchicalSessionStore.of(SessionStore(MemoryEngine()))
    for number in range(50):
        store.add_user_message("s", str(number))
    for number in (40, 30, 20):
        store.revert_to_message("s", number)
        store.add_user_message("s", f"after {number}")
        store.create_snapshot("s", str(number))
    assert len(written(store.engine).splitlines()) <= 1 + 50 + 22  # the history, and what the first one has besides


def test_an_empty_session_and_difficult_texts_come_back(engine: Engine) -> None:
    source = MemoryEngine()
    store = SessionStore(source)
    store.open_session("a/../b \U0001f600", user_id="../x")
    key = Key("../x", "a/../b \U0001f600")
    import_bytes(written(source, key), engine)
    assert written(engine, key) == written(source, key)
    for text in DIFFICULT:
        store.add_user_message("s", text, metadata={text: text})
    import_bytes(b"".join(to_json(source, KEY)), engine)
    assert [m.text() for m in engine.read(KEY).messages] == DIFFICULT
    assert written(engine) == written(source)


def test_a_session_that_is_there_is_left_alone(engine: Engine) -> None:
    SessionStore(engine).add_user_message("s", "mine")
    before = written(engine)
    with pytest.raises(SessionExists):
        import_bytes(written(lived().engine), engine)
    assert written(engine) == before


def test_of_a_failed_import_nothing_is_left(engine: Engine) -> None:
    lines = written(lived().engine).splitlines(keepends=True)
    for damaged in (
        lines[:-2],
        [*lines, lines[-1]],
        [*lines[:3], b"{\n", *lines[4:]],
        [*lines[:3], b"[]\n", *lines[4:]],
    ):
        with pytest.raises(NotASessionFile):
            import_bytes(b"".join(damaged), engine)
        assert engine.get(KEY) is None
    with pytest.raises(InvalidMessage):
        import_bytes(b"".join([*lines[:3], b'{"role":"nobody","content":"x"}\n', *lines[4:]]), engine)
    assert engine.get(KEY) is None


def test_an_export_that_contradicts_itself_is_refused() -> None:
    lines = written(lived().engine).splitlines(keepends=True)
    header = json.loads(lines[0])
    pin = header["pins"][0]
    wrong: list[dict[str, Any]] = [
        {"parts": []},
        {"start": 10_000},
        {"start": -1},
        {"pins": [pin | {"part": 99}]},
        {"pins": [pin | {"start": 5, "stop": 4}]},
        {"pins": [pin | {"stop": 99}]},
        {"pins": [pin, pin]},
        {"pins": {}},
        {"parts": [header["parts"][0] | {"begins": {"part": 0, "start": 0, "stop": 1}}, *header["parts"][1:]]},
        {"parts": [header["parts"][0], {"messages": 1, "begins": {"part": 1, "start": 0, "stop": 1}}]},
        {"metadata": []},
        {"version": "1"},
    ]
    for change in wrong:
        engine = MemoryEngine()
        with pytest.raises(NotASessionFile):
            import_bytes(json.dumps(header | change).encode() + b"\n" + b"".join(lines[1:]), engine)
        assert engine.list_sessions(None).records == []
    with pytest.raises(NewerFormat):
        import_bytes(json.dumps(header | {"version": 2}).encode() + b"\n" + b"".join(lines[1:]), MemoryEngine())
    for ids in ({"session_id": ""}, {"session_id": "\0"}, {"user_id": "\n"}):
        with pytest.raises(InvalidId):
            import_bytes(json.dumps(header | ids).encode() + b"\n" + b"".join(lines[1:]), MemoryEngine())


def test_a_document_on_one_line_is_no_stream_of_lines() -> None:
    document = json.loads(b"".join(to_json(lived().engine, KEY)))
    engine = MemoryEngine()
    import_bytes(json.dumps(document, separators=(",", ":")).encode(), engine)
    assert written(engine) == written(lived_again(document))


def lived_again(document: dict[str, Any]) -> Engine:
    engine = MemoryEngine()
    import_bytes(json.dumps(document, indent=2).encode(), engine)
    return engine


@pytest.mark.parametrize("spaces", [{}, {"indent": 1}, {"separators": (",", ":")}, {"separators": (" ,", " : ")}])
@pytest.mark.parametrize("begins", [b"", b"\xef\xbb\xbf", b"\r\n "])
def test_an_export_is_one_however_it_is_sorted_and_spaced(spaces: dict[str, Any], begins: bytes) -> None:
    source = lived().engine
    document = json.loads(b"".join(to_json(source, KEY)))
    for values in (document, dict(reversed(document.items())), dict(sorted(document.items()))):
        engine = MemoryEngine()
        import_bytes(begins + json.dumps(values, **spaces).encode(), engine)
        assert written(engine) == written(source)


def test_lines_are_an_export_however_they_are_sorted_and_spaced() -> None:
    source, engine = lived(), MemoryEngine()
    source.engine.update(KEY, {"metadata": {"long": "x" * 100_000}})
    lines = [json.loads(line) for line in written(source.engine).splitlines()]
    import_bytes("".join(json.dumps(line, sort_keys=True) + "\r\n" for line in lines).encode(), engine)
    assert [json.loads(line) for line in written(engine).splitlines()] == lines


def test_an_export_that_is_damaged_is_never_read_as_a_session_file() -> None:
    document = json.dumps(json.loads(b"".join(to_json(lived().engine, KEY))), sort_keys=True, indent=1).encode()
    lines = "\n".join(json.dumps(json.loads(line), indent=2) for line in written(lived().engine).splitlines())
    for damaged in (document[:-2], document[: document.index(b'"messages"') + 200], document * 2, lines.encode()):
        engine = MemoryEngine()
        with pytest.raises(NotASessionFile):
            import_bytes(damaged, engine)
        assert engine.list_sessions(None).records == []


def test_a_session_file_may_tell_of_exports(tmp_path: Path) -> None:
    told = json.dumps({"format": "praisonai-session", "messages": []})
    said = [{"role": "user", "content": told, "metadata": {"format": "praisonai-session"}}]
    engine = MemoryEngine()
    import_file(put(tmp_path, {"session_id": "s", "messages": said}), engine)
    assert [m.text() for m in engine.read(KEY).messages] == [told]
    whole = json.dumps({"session_id": "s", "messages": [{"role": "user", "content": told}] * 2}, indent=2).encode()
    with pytest.warns(SessionDamage):
        import_file(put(tmp_path, whole[:-20]), engine, renaming("damaged"))
    assert [m.text() for m in engine.read(Key("default_user", "damaged")).messages] == [told]


def test_who_adds_a_message_to_a_document_by_hand_finds_it_imported() -> None:
    store = SessionStore(MemoryEngine())
    store.add_user_message("s", "a")
    document = json.loads(b"".join(to_json(store.engine, KEY)))
    document["messages"].append({"role": "assistant", "content": "b"})
    assert [m.text() for m in lived_again(document).read(KEY).messages] == ["a", "b"]


def test_who_writes_to_an_unfinished_session_loses_nothing() -> None:
    class Meddled(MemoryEngine):
        def append(self, key: Key, messages: Any, *, expected_length: int | None = None) -> Appended:
            super().append(key, [Message("user", "mine")])
            return super().append(key, messages, expected_length=expected_length)

    engine = Meddled()
    with pytest.raises(Conflict):
        import_bytes(written(lived().engine), engine)
    assert [m.text() for m in engine.read(KEY).messages] == ["mine"]
    assert UNFINISHED in engine.get(KEY).extra


CHILD = """
import os, signal, sys
from praisonaiagents.session import open_store
from praisonaiagents.session.transfer import import_file
with open_store(sys.argv[2]) as store:
    made, append = 0, store.engine.append
    def killed(key, messages, **options):
        global made
        made += 1
        if made == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return append(key, messages, **options)
    store.engine.append = killed
    import_file(sys.argv[1], store.engine)
"""


@pytest.fixture(params=["jsonl", "json", "session file"])
def killed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Engine]]:
    """A file, and an engine where an import of it was killed when some messages were there."""
    store = lived()
    path, url = tmp_path / "export.json", f"sqlite:///{tmp_path}/s.db"
    if request.param == "session file":
        with open_store(f"file://{tmp_path}/files") as files:
            import_bytes(written(store.engine), files.engine)
        path = tmp_path / "files" / "s.json"
    else:
        path.write_bytes(b"".join((to_jsonl if request.param == "jsonl" else to_json)(store.engine, KEY)))
    ended = subprocess.run([sys.executable, "-c", CHILD, str(path), url], check=False)
    assert ended.returncode == -signal.SIGKILL
    with open_store(url) as left:
        record = left.engine.get(KEY)
        assert record is not None
        assert UNFINISHED in record.extra
        assert record.length > 0
        yield path, left.engine


def test_an_import_that_was_killed_is_repeated(killed: tuple[Path, Engine]) -> None:
    path, engine = killed
    import_file(path, engine)
    assert UNFINISHED not in engine.get(KEY).extra
    import_file(path, other := MemoryEngine())
    assert written(engine) == written(other)
    with pytest.raises(SessionExists) as refused:
        import_file(path, engine)
    assert "unfinished" not in str(refused.value)


def test_an_unfinished_import_that_somebody_went_on_with_is_told(killed: tuple[Path, Engine]) -> None:
    path, engine = killed
    engine.append(KEY, [Message("user", "mine")])
    before = engine.get(KEY)
    with pytest.raises(SessionExists, match=r"unfinished import .* delete it first"):
        import_file(path, engine)
    assert engine.get(KEY) == before


def test_a_file_cannot_say_that_its_session_is_unfinished() -> None:
    for form in (to_json, to_jsonl):
        document = b"".join(form(lived().engine, KEY)).replace(b'"is_shared"', b'"unfinished_transfer":"x","is_shared"')
        engine = MemoryEngine()
        assert b"unfinished_transfer" in document
        import_bytes(document, engine)
        assert UNFINISHED not in engine.get(KEY).extra


def test_a_session_that_changes_while_it_is_exported_is_refused() -> None:
    store = lived()
    pieces = to_jsonl(store.engine, KEY)
    next(pieces)
    store.add_user_message("s", "this is no change")
    assert len(list(pieces)) == len(written(lived().engine).splitlines()) - 1
    pieces = to_jsonl(store.engine, KEY)
    next(pieces)
    store.revert("s", "early")
    with pytest.raises(Conflict):
        list(pieces)
    with pytest.raises(SessionNotFound):
        list(to_jsonl(store.engine, Key("bob", "s")))


def test_exporting_changes_nothing(store: HierarchicalSessionStore) -> None:
    import_bytes(written(lived().engine), store.engine)
    before = store.engine.get(KEY)
    for form in (to_json, to_jsonl, to_html):
        list(form(store.engine, KEY))
    assert store.engine.get(KEY) == before
    assert len(store.engine.list_sessions(None).records) == 1


STEPS = st.lists(
    st.tuples(st.sampled_from(["say", "snapshot", "revert", "undo", "trim", "drop", "compact"]), st.integers(0, 9))
)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "file"])
@given(steps=STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_comes_back(kind: str, steps: list[tuple[str, int]], tmp_path_factory: Any) -> None:
    store = HierarchicalSessionStore.of(SessionStore(MemoryEngine()))
    store.create_session("s")
    for step, number in steps:
        record = store.engine.get(KEY)
        if step == "say":
            for text in range(number % 4):
                store.add_user_message("s", f"{number} {text}")
        elif step == "snapshot":
            store.create_snapshot("s", str(number))
        elif step == "revert":
            store.revert_to_message("s", number)
        elif step == "undo":
            store.undo("s")
        elif step == "trim":
            store.engine.update(KEY, {"start": min(record.length, record.start + number)})
        elif step == "drop":
            store.engine.drop(KEY)
        else:
            store.append_compaction_checkpoint("s", "sum")
    folder = tmp_path_factory.mktemp("history")
    urls = {"memory": "memory://", "file": f"file://{folder}/s", "sqlite": f"sqlite:///{folder}/s.db"}
    with open_store(urls[kind]) as other:
        import_bytes(written(store.engine), other.engine)
        assert written(other.engine) == written(store.engine)
        assert b"".join(to_json(other.engine, KEY)) == b"".join(to_json(store.engine, KEY))


def test_a_hundred_thousand_messages_pass_through_piece_by_piece(tmp_path: Path) -> None:
    source = MemoryEngine()
    SessionStore(source).append("s", [Message("user", f"message {number}") for number in range(100_000)])
    path = tmp_path / "export.jsonl"
    with path.open("wb") as file:
        for piece in to_jsonl(source, KEY):
            assert len(piece) < 1000
            file.write(piece)
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        largest = 0
        append = store.engine.append

        def watched(key: Key, messages: Any, **options: Any) -> Appended:
            nonlocal largest
            largest = max(largest, len(messages))
            return append(key, messages, **options)

        store.engine.append = watched  # type: ignore[method-assign]
        assert import_file(path, store.engine).length == 100_000
        assert largest <= 4096
        assert outline(store.engine, KEY).fingerprint() == outline(source, KEY).fingerprint()


# The store's own


def test_an_export_as_a_dict_makes_a_session_of_its_own(store: HierarchicalSessionStore) -> None:
    source = lived()
    values = source.export_session("s")
    assert values == json.loads(json.dumps(values)) == to_dict(source.engine, KEY)
    assert [m["content"] for m in values["messages"]] == [m.content for m in source.messages("s")]
    first, second = store.import_session(values), store.import_session(values, "chosen", user_id="bob")
    assert (second, first != second, first != "s") == ("chosen", True, True)
    for made, user in ((first, None), (second, "bob")):
        assert store.get_chat_history(made, user_id=user) == source.get_chat_history("s")
        assert [s.label for s in store.get_snapshots(made, user_id=user)] == ["early", "trimmed", "other"]
        assert store.get_children(made, user_id=user) == []
    with pytest.raises(SessionExists):
        store.import_session(values, "chosen", user_id="bob")


def test_a_fork_that_is_imported_has_no_parent() -> None:
    store = lived()
    assert store.get_parent("child") == "s"
    made = store.import_session(store.export_session("child"))
    extended = store.get_extended_session(made)
    assert (extended.parent_id, extended.forked_from_message_id, extended.children_ids) == (None, None, [])
    assert store.get_children("s") == ["child"]


def test_a_dict_that_is_no_session_is_refused(store: HierarchicalSessionStore) -> None:
    for wrong in (
        {},
        {"messages": 1},
        {"messages": [{"role": "user", "content": {1, 2}}]},
        {"format": "praisonai-session"},
    ):
        with pytest.raises(NotASessionFile):
            store.import_session(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigTypeError):
        store.import_session([])  # type: ignore[arg-type]
    assert store.list_sessions(all_users=True) == []
    with pytest.raises(SessionNotFound):
        store.export_session("missing")


def test_another_users_session_is_not_exported_by_a_scoped_call() -> None:
    store = HierarchicalSessionStore.of(SessionStore(MemoryEngine()))
    store.add_user_message("s", "secret", user_id="alice")
    with pytest.raises(SessionNotFound):
        store.export_session("s", user_id="bob")
    assert store.export_session("s", user_id="alice")["messages"][0]["content"] == "secret"


# Files of PraisonAI's

WHEN = "2026-10-01T08:00:00+00:00"
SAID = [
    {
        "role": "user",
        "content": "Wie viel ist 1+2? \U0001f642",
        "timestamp": 1790841600.0,
        "metadata": {"source": "chat"},
    },
    {"role": "assistant", "content": None, "timestamp": 1790841601.0, "metadata": {}, "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "timestamp": 1790841602.0, "metadata": {}, "tool_call_id": "call_1"},
    {"role": "assistant", "content": "It is 3.", "timestamp": 1790841603.0, "metadata": {}},
]
THEIRS: dict[str, Any] = {
    "session_id": "theirs",
    "messages": SAID,
    "created_at": WHEN,
    "updated_at": WHEN,
    "agent_name": "Calculator",
    "user_id": "praison",
    "metadata": {"title": "Sums"},
    "gateway_session_id": None,
    "agent_id": "agent-1",
    "runtime_state": {"cli": {"turn-1": {"done": True}}},
    "archived_messages": [{"role": "user", "content": "long ago", "timestamp": 1.0, "metadata": {}}],
    "last_compaction": {"summary": "They did sums.", "message_index": 2, "role": "system", "metadata": {}},
    "model": "gpt-4o-mini",
    "parent_id": "before",
    "children_ids": ["after"],
    "snapshots": [
        {"id": "snap", "session_id": "theirs", "message_index": 1, "created_at": 1.0, "label": "L", "metadata": {}}
    ],
    "is_shared": True,
    "title": "Sums, too",
    "forked_from_message_id": "3",
}


def put(folder: Path, values: Any, name: str = "theirs.json") -> Path:
    path = folder / name
    path.write_bytes(values if isinstance(values, bytes) else json.dumps(values, indent=2, ensure_ascii=False).encode())
    return path


def test_a_file_of_praisonai_is_imported_without_loss(store: HierarchicalSessionStore, tmp_path: Path) -> None:
    path = put(tmp_path, THEIRS)
    before = path.read_bytes()
    record = import_file(path, store.engine)
    assert (record.key, record.agent_name, record.metadata["title"]) == (
        ("default_user", "theirs"),
        "Calculator",
        "Sums",
    )
    assert [m.to_dict() | {"id": ""} for m in store.messages("theirs")] == [
        {name: value for name, value in message.items() if value != {}} | {"id": ""} for message in SAID
    ]
    assert all(message.id for message in store.messages("theirs"))
    assert [m.text() for m in store.engine.read(record.key, 0, record.start).messages] == ["long ago"]
    assert store.get_working_history("theirs")[0]["content"] == "They did sums."
    assert {name: record.extra[name] for name in ("runtime_state", "agent_id", "parent_id", "children_ids")} == {
        name: THEIRS[name] for name in ("runtime_state", "agent_id", "parent_id", "children_ids")
    }
    assert [snapshot.label for snapshot in store.get_snapshots("theirs")] == ["L"]
    assert store.get_extended_session("theirs").created_at == WHEN
    assert path.read_bytes() == before
    store.revert("theirs", "snap")
    assert len(store.messages("theirs")) == 2


def test_the_same_file_gives_the_same_ids_each_time(tmp_path: Path) -> None:
    path = put(tmp_path, THEIRS | {"messages": [SAID[0], SAID[0]]})
    one, two = MemoryEngine(), MemoryEngine()
    key = import_file(path, one).key
    import_file(path, two)
    assert written(one, key) == written(two, key)
    assert len({m.id for m in one.read(key).messages}) == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"session_id": "s", "messages": []}, []),
        ({"session_id": "s", "messages": [{"role": "user", "content": "a"}]}, ["a"]),
        ({"session_id": "s", "chat_history": [{"role": "user", "content": "a"}], "model": "m", "usage": {}}, ["a"]),
        (
            {
                "session_id": "s",
                "user_id": "default",
                "agent_id": "x",
                "name": "Session s",
                "metadata": {},
                "created_at": 1790841600.0,
                "messages": [{"id": "msg-1", "role": "user", "content": "a", "metadata": {}, "created_at": 5.5}],
            },
            ["a"],
        ),
    ],
    ids=["empty", "old", "exported by its command line", "exported by its database"],
)
def test_other_forms_of_praisonai_are_read(values: dict[str, Any], said: list[str], tmp_path: Path) -> None:
    engine = MemoryEngine()
    import_file(put(tmp_path, values), engine)
    assert [m.text() for m in engine.read(KEY).messages] == said
    if "name" in values:
        assert engine.read(KEY).messages[0].timestamp == 5.5


def test_of_a_damaged_file_everything_that_is_whole_is_imported(engine: Engine, tmp_path: Path) -> None:
    whole = json.dumps(THEIRS, indent=2).encode()
    torn = whole[: whole.index(b"It is 3.")]
    path = put(tmp_path, torn)
    with pytest.warns(SessionDamage):
        record = import_file(path, engine)
    assert [m.role for m in engine.read(record.key).messages] == ["user", "assistant", "tool"]
    assert path.read_bytes() == torn
    bad = whole.replace(b"Wie viel", b"Wie \xff viel")
    with pytest.warns(SessionDamage):
        record = import_file(put(tmp_path, bad), engine, renaming("bad"))
    assert [m.role for m in engine.read(record.key).messages][-1] == "assistant"


def test_any_truncated_file_is_imported_in_part_or_refused(tmp_path: Path) -> None:
    whole = json.dumps(THEIRS, indent=2).encode()
    for size in range(0, len(whole), 97):
        engine = MemoryEngine()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SessionDamage)
            try:
                import_file(put(tmp_path, whole[:size]), engine)
            except PraisonError:
                assert engine.list_sessions(None).records == []


def test_a_file_of_ours_is_imported_as_it_is(tmp_path: Path) -> None:
    with open_store(f"file://{tmp_path}/s") as store:
        import_bytes(written(lived().engine), store.engine)
        engine = MemoryEngine()
        import_file(tmp_path / "s" / "s.json", engine)
        assert written(engine) == written(store.engine)


def test_messages_of_one_id_in_an_edited_file_all_come_along(tmp_path: Path) -> None:
    said = [{"role": "user", "content": content, "id": "same"} for content in ("a", "b", "a")]
    engine = MemoryEngine()
    import_file(put(tmp_path, {"session_id": "s", "messages": said}), engine)
    assert [m.text() for m in engine.read(KEY).messages] == ["a", "b", "a"]
    assert len({m.id for m in engine.read(KEY).messages}) == 3


def test_a_file_says_whose_session_it_is(tmp_path: Path) -> None:
    engine = MemoryEngine()
    assert import_file(put(tmp_path, THEIRS | {"user_id": "alice"}), engine).key == ("alice", "theirs")
    assert import_file(put(tmp_path, THEIRS | {"user_id": "alice"}), engine, renaming(user_id="bob")).key[0] == "bob"
    assert import_file(put(tmp_path, THEIRS | {"user_id": "alice"}), engine, renaming(user_id="")).key == (
        "default_user",
        "theirs",
    )
    with pytest.raises(InvalidId):
        renaming("")
    nameless = {name: value for name, value in THEIRS.items() if name != "session_id"}
    assert import_file(put(tmp_path, nameless, "by its name.json"), engine).session_id == "by its name"


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 100, b"hello", b"[]", b'{"a": 1}', b"\xff\xfe", b'{"messages": {}}', b"[" * 9999]
)
def test_a_file_that_holds_no_session_is_refused(data: bytes, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(NotASessionFile):
        import_file(put(tmp_path, data), engine)
    with pytest.raises(NotASessionFile):
        import_file(tmp_path / "missing.json", engine)
    with pytest.raises(NotASessionFile):
        import_file(tmp_path, engine)
    assert engine.list_sessions(None).records == []


def test_a_header_is_checked_by_whoever_puts_a_session_together() -> None:
    header = outline(lived().engine, KEY).header
    with pytest.raises(NotASessionFile, match="ends early"):
        put_together(MemoryEngine(), header, [])
