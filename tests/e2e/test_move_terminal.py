"""Export, import, migrate and verify at a keyboard: every command once in a pseudo-terminal, as people see it and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from test_cli_terminal import P, Terminal, environment, finish, terminal  # noqa: F401 - two of them are fixtures

from praisonaiagents.session import get_default_session_store, open_store


def talk() -> None:
    for text in ("zero", "one \x1b[2J", "two"):
        get_default_session_store().add_user_message("talk", text)


def test_a_session_goes_to_a_file_and_back(terminal: Terminal, tmp_path: Path) -> None:  # noqa: F811
    talk()
    for kind in ("json", "jsonl", "md", "html"):
        path = tmp_path / f"talk.{kind}"
        assert "Exported session talk" in finish(terminal(f"{P} session export talk --output {path}"))
        assert "two" in path.read_text()
    shown = finish(terminal(f"{P} session export talk --format md"))
    assert "zero" in shown
    assert "\x1b[2J" not in shown
    for kind in ("json", "jsonl"):
        shown = finish(terminal(f"{P} session import {tmp_path}/talk.{kind} --as from-{kind}"))
        assert f"Imported session: from-{kind}" in shown
        history = get_default_session_store().get_chat_history(f"from-{kind}")
        assert [message["content"] for message in history] == ["zero", "one \x1b[2J", "two"]
    assert json.loads(finish(terminal(f"{P} session import {tmp_path}/talk.json --as again --json")))


def test_what_cannot_be_moved_is_told(terminal: Terminal, tmp_path: Path) -> None:  # noqa: F811
    talk()
    path = tmp_path / "talk.json"
    finish(terminal(f"{P} session export talk --output {path}"))
    assert "exists already" in finish(terminal(f"{P} session import {path}"), 1).replace("\r\n", "")
    assert "not found" in finish(terminal(f"{P} session export missing"), 1)
    path.write_text("no session")
    assert "Error" in finish(terminal(f"{P} session import {path} --as x"), 1)
    assert json.loads(finish(terminal(f"{P} session export missing --json"), 1))["error"]


def test_sessions_move_to_a_database_and_are_looked_over(terminal: Terminal, tmp_path: Path) -> None:  # noqa: F811
    talk()
    get_default_session_store().add_user_message("talk", "of alice", user_id="alice")
    source, target = get_default_session_store().session_dir, f"sqlite:///{tmp_path}/s.db"  # type: ignore[attr-defined]
    moving = f"{P} migrate --from file://{source} --to {target}"
    assert "2" in finish(terminal(f"{moving} --dry-run"))
    assert not (tmp_path / "s.db").exists()
    assert "2 copied (4 messages)" in finish(terminal(moving)).replace("\r\n", "")
    assert json.loads(finish(terminal(f"{moving} --json")).splitlines()[-1])
    with open_store(target) as store:
        assert [message["content"] for message in store.get_chat_history("talk", user_id="alice")] == ["of alice"]
    shown = finish(terminal(f"{P} session verify --all --all-users --db {target}"))
    assert "2 sessions, 4 messages read: nothing is damaged" in shown
    assert json.loads(finish(terminal(f"{P} session verify talk --json --db {target}")).splitlines()[-1])
    assert "not found" in finish(terminal(f"{P} session verify missing --db {target}"), 1)
    assert "--to" in finish(terminal(f"{P} migrate --from {target}"), 2)


def test_labels_are_given_and_listed(terminal: Terminal) -> None:  # noqa: F811
    talk()
    get_default_session_store().add_user_message("other", "x")
    for command in ("tag talk food travel", "untag talk travel", "pin talk", "archive other"):
        finish(terminal(f"{P} session {command}"))
    shown = finish(terminal(f"{P} session list --tag food"))
    assert "talk" in shown
    assert "other" not in finish(terminal(f"{P} session list"))
    assert "other" in finish(terminal(f"{P} session list --archived"))
    assert json.loads(finish(terminal(f"{P} session unpin talk --json")))
    for command in ("tag missing x", "pin missing", "archive missing", "unarchive missing", "untag missing x"):
        assert "not found" in finish(terminal(f"{P} session {command}"), 1)
