"""From a URL to a store: stores of one place share one engine, which is closed with the last of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from praisonaiagents.errors import ConfigError, UnknownEngine
from praisonaiagents.session import DefaultSessionStore, get_default_session_store, open_store
from praisonaiagents.storage.jsonfile import JsonFileEngine


@contextmanager
def counted_closes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[JsonFileEngine]]:
    closed: list[JsonFileEngine] = []
    monkeypatch.setattr(JsonFileEngine, "close", lambda engine: closed.append(engine))
    yield closed


def test_stores_of_one_place_share_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted_closes(monkeypatch) as closed:
        one, two = open_store(f"file://{tmp_path}"), open_store(f"file://{tmp_path}")
        other = open_store(f"file://{tmp_path}/other")
        assert one.engine is two.engine
        assert other.engine is not one.engine
        one.close()
        one.close()
        assert closed == []
        two.close()
        assert closed == [two.engine]
        other.close()


def test_a_forgotten_store_gives_its_engine_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted_closes(monkeypatch) as closed:
        open_store(str(tmp_path))
        gc.collect()
        assert len(closed) == 1


def test_a_store_is_closed_at_the_end_of_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted_closes(monkeypatch) as closed:
        with open_store(str(tmp_path)) as store:
            store.add_user_message("s", "a")
            assert closed == []
        assert closed == [store.engine]


def test_a_store_that_could_not_be_made_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted_closes(monkeypatch) as closed:
        with pytest.raises(ConfigError):
            open_store(str(tmp_path), max_messages=0)
        assert len(closed) == 1


def test_settings_of_the_lock_are_a_place_of_their_own(tmp_path: Path) -> None:
    with open_store(str(tmp_path)) as usual, open_store(str(tmp_path), lock_timeout=0.5) as impatient:
        assert isinstance(impatient.engine, JsonFileEngine)
        assert impatient.engine.lock_timeout_s == 0.5
        assert usual.engine is not impatient.engine
        usual.add_user_message("s", "a")
        assert len(impatient.messages("s")) == 1


def test_what_lives_in_memory_is_not_shared() -> None:
    with open_store("memory://") as one, open_store("memory://") as two:
        one.add_user_message("s", "a")
        assert two.messages("s") == []


def test_the_default_place_is_the_folder_of_session_files(home: Path) -> None:
    with open_store() as store:
        store.add_user_message("s", "a")
        assert (home / "sessions" / "s.json").exists()
        assert get_default_session_store().get_chat_history("s") == [{"role": "user", "content": "a"}]


def test_an_operator_moves_the_default_place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = get_default_session_store()
    assert isinstance(before, DefaultSessionStore)
    monkeypatch.setenv("PRAISONAI_DB_URL", f"file://{tmp_path}/elsewhere")
    moved = get_default_session_store()
    assert moved is get_default_session_store()
    moved.add_user_message("s", "a")
    assert (tmp_path / "elsewhere" / "s.json").exists()
    assert not home.exists()
    with open_store() as store:
        assert len(store.messages("s")) == 1
    monkeypatch.delenv("PRAISONAI_DB_URL")
    assert isinstance(get_default_session_store(), DefaultSessionStore)


def test_a_place_that_nobody_serves_is_refused_and_opens_nothing(home: Path) -> None:
    with pytest.raises(UnknownEngine, match="sqlite"):
        open_store("mysql://localhost/x")
    assert not home.exists()
