"""Files that are not whole: torn at every byte of a write, cut off at every byte, with bad bytes in them, edited by hand.

What is promised: every message whose own bytes are whole is returned, in order and as it was; nothing is returned that was
never stored; what could not be read is set aside and reported; and the file is valid JSON again once it has been read.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from praisonaiagents.errors import NewerFormat, NotASessionFile, SessionDamage
from praisonaiagents.model.message import Message, encode
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session.store import DefaultSessionStore
from praisonaiagents.storage.engine import Engine
from praisonaiagents.storage.jsonfile import JsonFileEngine

KEY = Key("default_user", "s")
CONFUSING = '"\n],\n"message_count": 7,\n"updated_at": "2026-11-22T09:30:01+00:00"\n}\n'

SHORT = Message("user", "x", id="1")
USUAL = Message("user", "My name is Alice", timestamp=1795253400.5, id="msg-00000000000000000001")
MORE = Message("user", "more", timestamp=3.0)
LONG = Message(
    "assistant", f"Grüße, 日本語 🙂 {CONFUSING}" * 3, timestamp=1795253401.0, metadata={"a": [{"role": "user"}]}
)
TOOLS = Message("assistant", None, tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "{}"}}], id="calls")


class Folder(NamedTuple):
    """A folder with the file of one session."""

    path: Path

    @property
    def file(self) -> Path:
        return self.path / "s.json"

    @property
    def engine(self) -> JsonFileEngine:
        return JsonFileEngine(self.path, lock_timeout_s=60)

    def put(self, data: bytes) -> None:
        """Let there be nothing but this file."""
        for found in sorted(self.path.rglob("*"), reverse=True):
            found.rmdir() if found.is_dir() else found.unlink()
        self.path.mkdir(exist_ok=True)
        self.file.write_bytes(data)

    def set_aside(self) -> bytes:
        return b"".join(found.read_bytes() for found in sorted(self.path.glob("damaged/*")))

    def is_json(self) -> bool:
        try:
            return isinstance(json.loads(self.file.read_bytes()), dict)
        except ValueError:
            return False

    def is_valid(self) -> bool:
        found = json.loads(self.file.read_bytes())
        return bool(found["message_count"] == len(found["messages"]))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "sessions")


@contextmanager
def reported() -> Iterator[list[SessionDamage]]:
    """The damage that is reported in the block; any other warning is an error."""
    found: list[SessionDamage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for warning in caught:
        assert isinstance(warning.message, SessionDamage), warning
        found.append(warning.message)


def make(engine: Engine, messages: Sequence[Message], archived: int = 0) -> None:
    engine.open_session(Record(*KEY, agent_name="Assistant", metadata={"title": "t"}, state={"n": 1}, extra={"k": [1]}))
    if messages:
        engine.append(KEY, messages)
    if archived:
        engine.update(KEY, {"start": archived})


def plain(messages: Sequence[Message]) -> list[bytes]:
    """Messages as they are stored, but for their ids, which the engine may have given."""
    return [encode(Message.from_dict(message.to_dict() | {"id": ""})) for message in messages]


def stored(engine: Engine, start: int | None = None) -> list[bytes]:
    return plain(engine.read(KEY, start).messages)


# A write that is torn


def written(folder: Folder, before: Sequence[Message], new: Sequence[Message]) -> tuple[bytes, bytes]:
    """The file before and after an append."""
    make(folder.engine, before)
    old = folder.file.read_bytes()
    folder.engine.append(KEY, new)
    return old, folder.file.read_bytes()


def torn_states(old: bytes, new: bytes) -> Iterator[tuple[int, bytes]]:
    """(bytes written, the file) for every moment of a write that turns the file `old` into `new` in place."""
    position = next(index for index, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    for length in range(len(new) - position + 1):
        yield length, new[: position + length] + old[position + length :]


APPENDS = {
    "the first message": ([], [USUAL]),
    "a first message that is shorter than the footer": ([], [SHORT]),
    "one more": ([USUAL], [Message("assistant", "Hello Alice", timestamp=1795253401.0)]),
    "one that is shorter than the footer": ([USUAL], [SHORT]),
    "a long one": ([USUAL, SHORT], [LONG]),
    "after a long one": ([LONG], [USUAL]),
    "after nine, so that the count gets longer": ([Message("user", str(number)) for number in range(9)], [USUAL]),
    "several at once": ([USUAL], [TOOLS, Message("tool", "42", tool_call_id="c"), LONG]),
}


@pytest.mark.parametrize("before", ["reads first", "appends first"])
@pytest.mark.parametrize("name", APPENDS)
def test_an_append_torn_after_any_of_its_bytes(folder: Folder, name: str, before: str) -> None:
    acknowledged, unacknowledged = APPENDS[name]
    old, new = written(folder, acknowledged, unacknowledged)
    whole = plain([*acknowledged, *unacknowledged])
    for length, torn in torn_states(old, new):
        folder.put(torn)
        with reported() as damage:
            if before == "reads first":
                found = stored(folder.engine)
                assert found == whole[: len(found)]
                assert len(found) >= len(acknowledged)
                assert folder.is_valid(), length
            folder.engine.append(KEY, [MORE])
        left = stored(folder.engine)
        assert left[:-1] == whole[: len(left) - 1]
        assert len(left) > len(acknowledged)
        assert left[-1:] == plain([MORE])
        assert folder.is_valid(), length
        assert len(damage) <= 1
        scrap = scrap_of(old, new, length)
        assert scrap in folder.set_aside()
        assert bool(damage) or not scrap
        assert not damage or scrap or len(torn) == len(old), "only scraps of the old footer may cause a false alarm"
        assert [report.set_aside for report in damage] == [str(path) for path in folder.path.glob("damaged/*")]


def scrap_of(old: bytes, new: bytes, length: int) -> bytes:
    """The part of a message that a torn append has written; empty if it has written whole ones only."""
    position = next(index for index, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    start = new.index(b"{", position)
    piece = new[start : position + length].rpartition(b"\n")[2]
    whole = new[new.rindex(b"\n", 0, start) :].startswith(b"\n" + piece + b"\n") if piece else True
    lines = {line.rstrip(b",") for line in new.split(b"\n")}
    return b"" if whole or piece.rstrip(b",") in lines or not piece.startswith(b'{"') else piece


@pytest.mark.parametrize("torn_at", [1, 60, -2])
def test_a_torn_file_is_listed_without_being_changed(folder: Folder, torn_at: int) -> None:
    """Listings tell what is there, and leave the mending to those who open the session."""
    old, new = written(folder, [USUAL], [LONG])
    states = [state for _, state in torn_states(old, new)]
    folder.put(states[torn_at])
    store = DefaultSessionStore(folder.path)
    with reported() as damage:
        assert [session["message_count"] for session in store.list_sessions()] == [1 + (torn_at < 0)]
        assert store.engine.owners("s") == ["default_user"]
        [record] = folder.engine.list_sessions(None).records
    assert (record.metadata, record.state, record.extra) == ({"title": "t"}, {"n": 1}, {"k": [1]})
    assert not damage
    assert folder.file.read_bytes() == states[torn_at]


@pytest.mark.parametrize("call", ["get", "read", "last", "append", "update", "replace", "drop"])
def test_every_call_that_meets_a_torn_file_mends_it(folder: Folder, call: str) -> None:
    _, new = written(folder, [USUAL, SHORT], [LONG])
    folder.put(new[:-40])
    calls: dict[str, Callable[[Engine], object]] = {
        "get": lambda engine: engine.get(KEY),
        "read": lambda engine: engine.read(KEY),
        "last": lambda engine: engine.read(KEY, -1),
        "append": lambda engine: engine.append(KEY, [TOOLS]),
        "update": lambda engine: engine.update(KEY, {"start": 1}),
        "replace": lambda engine: engine.replace(KEY, [TOOLS]),
        "drop": lambda engine: [engine.update(KEY, {"start": 1}), engine.drop(KEY)],
    }
    calls[call](folder.engine)
    assert folder.is_valid()
    record = folder.engine.get(KEY)
    assert record is not None
    assert record.length == {"append": 4, "replace": 4}.get(call, 3)


def test_mending_is_no_change_of_the_session(folder: Folder) -> None:
    """It keeps its time, and its place in the listing."""
    make(folder.engine, [USUAL, SHORT])
    before = folder.engine.get(KEY)
    folder.put(folder.file.read_bytes().replace(b'count": 2', b'count": 7'))
    assert stored(folder.engine) == plain([USUAL, SHORT])
    assert folder.is_valid()
    assert folder.engine.get(KEY) == before


def test_a_rewrite_that_was_killed_leaves_the_old_file(folder: Folder) -> None:
    """The new file lies beside the old one until it is whole. What is left of one is not listed, and is written over."""
    make(folder.engine, [USUAL, LONG])
    old = folder.file.read_bytes()
    leftover = folder.path / "s.json.tmp"
    for length in (0, 1, 50, len(old) // 2, len(old)):
        leftover.write_bytes(old[:length])
        assert stored(folder.engine) == plain([USUAL, LONG])
        assert len(folder.engine.list_sessions(None).records) == 1
        assert folder.file.read_bytes() == old
    folder.engine.update(KEY, {"state": {"n": 2}})
    assert not leftover.exists()
    assert folder.is_valid()


# A file that is cut off


def test_a_file_cut_off_after_any_of_its_bytes(folder: Folder) -> None:
    messages = [SHORT, USUAL, LONG, TOOLS, Message("tool", "42", tool_call_id="c")]
    make(folder.engine, messages, archived=2)
    data = folder.file.read_bytes()
    lines = [encode(message) for message in folder.engine.read(KEY, 0).messages]
    ends = [data.index(line) + len(line) for line in lines]
    for length in range(len(data)):
        folder.put(data[:length])
        left = plain(messages)[: sum(end <= length for end in ends)]
        with reported():
            assert stored(folder.engine, 0) == left, length
        assert folder.is_valid()
        folder.engine.append(KEY, [MORE])
        assert stored(folder.engine, 0) == [*left, *plain([MORE])]
        assert folder.is_valid()
        assert len(folder.engine.list_sessions(None).records) == 1


def test_a_file_whose_end_is_zeros(folder: Folder) -> None:
    """After a loss of power, a file may have its new length but not its new bytes."""
    make(folder.engine, [USUAL, LONG, SHORT])
    data = folder.file.read_bytes()
    for length in range(0, len(data), 7):
        folder.put(data[:length] + bytes(len(data) - length))
        with reported():
            found = stored(folder.engine)
        assert found == plain([USUAL, LONG, SHORT])[: len(found)]
        assert len(found) >= data[:length].count(b'\n{"role"') - 1
        assert folder.is_valid()


# Bad bytes


def untouched(data: bytes, hit: set[int]) -> list[bool]:
    """For each message of a file, whether the bytes that were hit leave it readable.

    They don't if they are its own; or if they are the end of the line before it, and that line is broken besides.
    """
    found, start = [], 0
    for line in data.split(b"\n"):
        if line.startswith(b'{"role"'):
            own = range(start, start + len(line.rstrip(b",")))
            joint = range(start - 2, start)
            before = range(data.rfind(b"\n", 0, max(0, start - 1)) + 1, start - 2)
            found.append(not hit & set(own) and not (hit & set(joint) and hit & set(before)))
        start += len(line) + 1
    return found


MANY = [
    USUAL,
    SHORT,
    LONG,
    TOOLS,
    Message("tool", "42", tool_call_id="c"),
    *(Message("user", word) for word in ("alpha", "bravo", "tango", "zebra")),
]


@given(
    places=st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.tuples(st.integers(min_value=0), st.integers(1, 30))),
    archived=st.sampled_from([0, 3]),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bad_bytes_hide_no_whole_message(
    folder: Folder, places: list[tuple[int, int]], cut: tuple[int, int] | None, archived: int
) -> None:
    """Bytes that are changed, and a stretch that is missing, anywhere in the file."""
    folder.put(b"")
    folder.file.unlink()
    make(folder.engine, MANY, archived)
    old = folder.file.read_bytes()
    data = bytearray(old)
    hit = set()
    for place, value in places:
        hit.add(place % len(data))
        data[place % len(data)] = value
    if cut:
        begin = cut[0] % len(data)
        hit |= set(range(begin, begin + cut[1]))
    if cut:
        del data[begin : begin + cut[1]]
    folder.put(bytes(data))
    readable = untouched(old, hit)
    owner = range(old.index(b'"user_id"'), old.index(b'"storage"'))
    with reported():
        try:
            found = stored(folder.engine, 0)
            record = folder.engine.get(KEY)
        except (NewerFormat, NotASessionFile):
            assert min(hit) < old.index(b"messages")
            assert folder.file.read_bytes() == bytes(data)
            return
    if record is None:  # now it is somebody else's, as a file of PraisonAI's in this place would be
        assert hit & set(owner)
        assert folder.file.read_bytes() == bytes(data)
        return
    whole = [line for line, kept in zip(plain(MANY), readable, strict=True) if kept]
    assert [line for line in found if line in whole] == whole
    assert len(found) - len(whole) <= readable.count(False)
    if archived:  # which nobody reads when they open a session
        folder.engine.update(KEY, {})
    assert folder.is_json()
    folder.engine.append(KEY, [MORE])
    assert stored(folder.engine, 0) == [*found, *plain([MORE])]


@pytest.mark.parametrize(
    "bad",
    [b"\xff\xfe", b"\x00", b"\xed\xa0\x80", b"\n", b"\r\n", b'"', b"\xc3"],
    ids=["no UTF-8", "NUL", "half a character", "LF", "CRLF", "quote", "cut character"],
)
def test_bad_bytes_in_the_text_of_one_message(folder: Folder, bad: bytes) -> None:
    make(folder.engine, [SHORT, USUAL, TOOLS])
    data = folder.file.read_bytes()
    folder.put(data.replace(b"My name", b"My" + bad + b"name"))
    with reported() as damage:
        assert stored(folder.engine) == plain([SHORT, TOOLS])
    [report] = damage
    assert report.path == str(folder.file)
    assert report.messages == 2
    assert b"is Alice" in folder.set_aside()
    assert str(report.set_aside) in str(report)
    assert folder.is_valid()
    with reported() as again:
        assert stored(folder.engine) == plain([SHORT, TOOLS])
    assert not again


@pytest.mark.parametrize("key", ["archived_messages", "messages", "message_count", "storage", "session_id", "metadata"])
def test_a_bad_byte_in_a_key(folder: Folder, key: str) -> None:
    """The file is valid JSON still, but what lies under the key would be lost with it."""
    make(folder.engine, [SHORT, USUAL, LONG, TOOLS], archived=2)
    data = folder.file.read_bytes()
    folder.put(data.replace(b'"%b"' % key.encode(), b'"%b"' % key.replace("s", "x").encode()))
    with reported():
        assert stored(folder.engine, 0) == plain([SHORT, USUAL, LONG, TOOLS])
        folder.engine.update(KEY, {})
    assert stored(folder.engine, 0) == plain([SHORT, USUAL, LONG, TOOLS])
    assert folder.is_valid()


def test_damage_that_cannot_be_mended_yet_is_kept_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again and again must not fill the disk with copies of what could not be read."""
    make(folder.engine, [SHORT, USUAL])
    data = folder.file.read_bytes().replace(b"My name", b"\xff")
    folder.put(data)
    replace_nothing = OSError(28, "No space left on device")
    with monkeypatch.context() as full, reported() as damage:
        full.setattr("os.replace", lambda *_: (_ for _ in ()).throw(replace_nothing))
        for _ in range(3):
            assert stored(folder.engine) == plain([SHORT])
    assert len(damage) == 3
    assert "could not be written anew" in str(damage[0])
    assert folder.file.read_bytes() == data
    assert len(list(folder.path.glob("damaged/*"))) == 1
    with reported() as damage:
        assert stored(folder.engine) == plain([SHORT])
    assert len(damage) == 1
    assert folder.is_valid()


def test_where_warnings_are_errors_a_read_mends_and_a_write_changes_nothing(folder: Folder) -> None:
    make(folder.engine, [SHORT, USUAL])
    damaged = folder.file.read_bytes()
    damaged = damaged[: damaged.index(b"My name")]
    folder.put(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SessionDamage):
            folder.engine.append(KEY, [TOOLS])
        assert folder.file.read_bytes() == damaged
        with pytest.raises(SessionDamage):
            folder.engine.read(KEY)
        assert stored(folder.engine) == plain([SHORT])
        folder.engine.append(KEY, [TOOLS])
    assert folder.is_valid()


# Files that people edit


def compact(data: bytes) -> bytes:
    return json.dumps(json.loads(data)).encode()


def indented(data: bytes) -> bytes:
    return json.dumps(json.loads(data), indent=2, ensure_ascii=False).encode()


def with_line(data: bytes) -> bytes:
    """Somebody writes a message between two others."""
    lines = data.split(b"\n")
    place = next(index for index, line in enumerate(lines) if b"My name" in line)
    return b"\n".join([*lines[:place], b'{"role": "user", "content": "by hand"},', *lines[place:]])


def without_line(data: bytes) -> bytes:
    return b"\n".join(line for line in data.split(b"\n") if b"My name" not in line)


ALL = [SHORT, USUAL, TOOLS]
BY_HAND = [SHORT, Message("user", "by hand"), USUAL, TOOLS]
EDITS: dict[str, tuple[Callable[[bytes], bytes], list[Message]]] = {
    "a line added": (with_line, BY_HAND),
    "a line removed": (without_line, [SHORT, TOOLS]),
    "the count too low": (lambda data: data.replace(b'count": 3', b'count": 1'), ALL),
    "the count zero": (lambda data: data.replace(b'count": 3', b'count": 0'), ALL),
    "the count too high": (lambda data: data.replace(b'count": 3', b'count": 30'), ALL),
    "no footer": (lambda data: data[: data.index(b'"message_count')] + b'"by": "hand"}', ALL),
    "indented": (indented, ALL),
    "in one line": (compact, ALL),
    "indented, with a byte order mark": (lambda data: b"\xef\xbb\xbf" + indented(data), ALL),
    "a byte order mark": (lambda data: b"\xef\xbb\xbf" + data, ALL),
    "CRLF line ends": (lambda data: data.replace(b"\n", b"\r\n"), ALL),
    "indented, with CRLF line ends": (lambda data: indented(data).replace(b"\n", b"\r\n"), ALL),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), ALL),
    "no line end at the end": (lambda data: data.rstrip(b"\n"), ALL),
    "empty lines at the end": (lambda data: data + b"\n\n", ALL),
    "empty lines": (lambda data: data.replace(b"},\n", b"},\n\n"), ALL),
    "spaces at the ends of lines": (lambda data: data.replace(b"\n", b"  \n"), ALL),
    "a comma missing": (lambda data: data.replace(b"},\n{", b"}\n{"), ALL),
    "a comma too many": (lambda data: data.replace(b"}\n]", b"},\n]"), ALL),
    "a header line in several": (lambda data: data.replace(b'{"title":"t"}', b'{\n  "title": "t"\n}'), ALL),
    "everything removed": (lambda data: data[: data.index(b"[\n{")] + b"[" + data[data.rindex(b"\n]") :], []),
    "everything removed, in one line": (
        lambda data: data[: data.index(b"[\n{")] + b"[" + data[data.rindex(b"]") :],
        [],
    ),
    "an end that is typed": (lambda data: data[: data.rindex(b"\n]")] + b"]}", ALL),
    "a line appended by a shell": (lambda data: data + b'{"role": "user", "content": "by hand"}\n', [*ALL, BY_HAND[1]]),
}


@pytest.mark.parametrize("first", ["read", "last", "append", "append twice"])
@pytest.mark.parametrize("name", EDITS)
def test_a_file_that_somebody_edited(folder: Folder, name: str, first: str) -> None:
    """Everything in it is taken as it now stands, and nothing that is appended is lost."""
    edit, expected = EDITS[name]
    make(folder.engine, ALL)
    folder.put(edit(folder.file.read_bytes()))
    was_valid = folder.is_json()
    added = [Message("user", "added"), Message("user", "added later")]
    with reported() as damage:
        if first == "read":
            assert stored(folder.engine) == plain(expected)
        elif first == "last":
            assert stored(folder.engine, -1) == plain(expected[-1:])
        else:
            for message in added[: 2 if first == "append twice" else 1]:
                folder.engine.append(KEY, [message])
            expected = expected + added[: 2 if first == "append twice" else 1]
            assert folder.is_json() >= was_valid
        assert stored(folder.engine) == plain(expected)
        folder.engine.append(KEY, added)
        assert stored(folder.engine) == plain([*expected, *added])
    assert folder.is_json()
    record = folder.engine.get(KEY)
    assert record is not None
    assert (record.length, record.agent_name, record.metadata) == (len(expected) + 2, "Assistant", {"title": "t"})
    assert (record.state, record.extra.get("k")) == ({"n": 1}, [1])
    assert not damage or name == "UTF-16"


def test_numbers_and_the_archive_survive_an_editor(folder: Folder) -> None:
    make(folder.engine, [*ALL, *ALL[:0], LONG, Message("user", "last")], archived=3)
    folder.engine.drop(KEY)
    folder.engine.update(KEY, {"start": 4})
    before = folder.engine.get(KEY)
    folder.put(indented(folder.file.read_bytes()))
    assert folder.engine.get(KEY) == before
    assert folder.engine.read(KEY, 0).first == 3
    assert stored(folder.engine, 0) == plain([LONG, Message("user", "last")])
    folder.engine.append(KEY, [USUAL])
    record = folder.engine.get(KEY)
    assert record is not None
    assert (record.start, record.length) == (4, 6)
    assert folder.is_valid()
