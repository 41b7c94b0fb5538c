"""Asking makes nothing: a file that is not there holds no session, and is not there afterwards."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.model.search import parse
from praisonaiagents.storage.sqlite import SqliteEngine

KEY = Key("alice", "s")
ASKING = {
    "get": lambda engine: engine.get(KEY),
    "list": lambda engine: engine.list_sessions(None).records,
    "owners": lambda engine: engine.owners("s"),
    "read": lambda engine: engine.read(KEY).messages,
    "search": lambda engine: engine.search(None, parse("word")).hits,
    "delete": lambda engine: engine.delete(KEY),
}


@pytest.mark.parametrize("ask", ASKING)
def test_asking_makes_no_file(tmp_path: Path, ask: str) -> None:
    with closing(SqliteEngine(tmp_path / "folder" / "sessions.db")) as engine:
        for _ in range(2):
            assert not ASKING[ask](engine)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ask", [name for name in ASKING if name != "delete"])
def test_what_was_asked_for_too_early_is_found_later(tmp_path: Path, ask: str) -> None:
    path = tmp_path / "sessions.db"
    with closing(SqliteEngine(path)) as early, closing(SqliteEngine(path)) as other:
        assert not ASKING[ask](early)
        other.open_session(Record(*KEY))
        other.append(KEY, [Message("user", "word")])
        assert ASKING[ask](early)
