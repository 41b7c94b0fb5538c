"""`praisonai session fork, tree, rename, snapshot, snapshots, revert, undo, log`: what they print, and how they fail."""

from __future__ import annotations

import pytest
from test_cli import Cli, cli, offline  # noqa: F401 - the fixtures that call `main` in this process

from praisonaiagents.session import HierarchicalSessionStore, get_default_session_store

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def store() -> HierarchicalSessionStore:
    for text in ("zero", "one", "two"):
        get_default_session_store().add_user_message("main", text)
    return HierarchicalSessionStore.of(get_default_session_store())


def said(session_id: str) -> list[object]:
    return [message["content"] for message in get_default_session_store().get_chat_history(session_id)]


def test_a_fork_is_named_and_its_origin_told(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    done = cli("session", "fork", "main", "--at-message", "1", "--title", "Other", "--as", "other one")
    assert (done.status, done.out) == (0, "Forked main with 2 messages: other one\n")
    assert "praisonai session resume 'other one'" in done.err
    assert said("other one") == ["zero", "one"]
    made = cli("session", "fork", "main", "--json").json()
    assert (made["parent_id"], made["message_count"]) == ("main", 3)
    tree = cli("session", "tree", "main")
    assert tree.out.splitlines() == [
        "main  (3 messages)",
        "├── other one  Other  (2 messages)",
        f"└── {made['session_id']}  Fork of main  (3 messages)",
    ]
    assert [child["title"] for child in cli("session", "tree", "main", "--json").json()["children"]] == [
        "Other",
        "Fork of main",
    ]


def test_a_fork_may_begin_at_a_point(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    store.create_snapshot("main", "safe")
    store.add_user_message("main", "three")
    assert cli("session", "fork", "main", "--at", "safe", "--as", "a", "--json").json()["message_count"] == 3
    assert cli("session", "fork", "main", "--at", "message:0", "--as", "b", "--json").json()["message_count"] == 1


def test_going_back_and_undoing_it(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    made = cli("session", "snapshot", "main", "--label", "safe")
    assert (made.status, made.out.split()[0]) == (0, "Snapshot")
    snapshot_id = made.out.split()[1]
    store.add_user_message("main", "risky")
    [row] = cli("session", "snapshots", "main").lines()
    assert row[:3] == [snapshot_id, "safe", "3"]
    [shown] = cli("session", "snapshots", "main", "--json").json()["snapshots"]
    assert (shown["id"], shown["label"], shown["message_count"]) == (snapshot_id, "safe", 3)
    assert cli("session", "revert", "main", "--to", "safe").out == "Reverted main: 3 messages, it had 4\n"
    assert said("main") == ["zero", "one", "two"]
    assert [row[:2] for row in cli("session", "log", "main").lines()] == [["head:1", "4"], ["now", "3"]]
    assert cli("session", "undo", "main").out == "Undone main: 4 messages, it had 3\n"
    assert cli("session", "revert", "main", "--to", "message:0", "--json").json() == {
        "session_id": "main",
        "message_count": 1,
        "message_count_before": 4,
    }
    heads = cli("session", "log", "main", "--json").json()["heads"]
    assert [(head["ref"], head["why"]) for head in heads] == [("head:2", "undo"), ("head:3", "revert"), ("now", None)]
    assert heads[-1]["replaced_at"] is None
    assert cli("session", "snapshots", "main", "--delete", snapshot_id).status == 0
    assert store.get_snapshots("main") == []


def test_a_title_is_given_and_taken_away(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    assert cli("session", "rename", "main", " About \x1b[2J").status == 0
    assert cli("session", "list", "--json").json()["sessions"][0]["title"] == "About \x1b[2J"
    assert cli("session", "rename", "main", "", "--json").json() == {"session_id": "main", "title": None}


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["fork", "mian"], 1, "did you mean 'main'"),
        (["fork", "main", "--as", "main"], 1, "exists already"),
        (["fork", "main", "--at-message", "7"], 1, "messages 0 to 2, not 7"),
        (["fork", "main", "--at-message", "-1"], 2, "--at-message"),
        (["fork", "main", "--at", "x", "--at-message", "1"], 1, "two points"),
        (["tree", "missing"], 1, "not found"),
        (["rename", "missing", "x"], 1, "not found"),
        (["snapshot", "missing"], 1, "not found"),
        (["snapshots", "missing"], 1, "not found"),
        (["snapshots", "main", "--delete", "x"], 1, "nothing is called 'x'"),
        (["revert", "main"], 2, "--to"),
        (["revert", "main", "--to", "x"], 1, "praisonai session snapshots main and praisonai session log main"),
        (["revert", "missing", "--to", "x"], 1, "not found"),
        (["undo", "main"], 1, "never reverted"),
        (["undo", "missing"], 1, "not found"),
        (["log", "missing"], 1, "not found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_goes_wrong_is_told(
    cli: Cli,  # noqa: F811
    store: HierarchicalSessionStore,
    arguments: list[str],
    status: int,
    told: str,
) -> None:
    done = cli("session", *arguments)
    assert (done.status, done.out) == (status, "")
    assert told in done.err.replace("\n", " ")
    as_json = cli("session", *arguments, "--json")
    assert as_json.status == status
    assert told in as_json.out
    assert said("main") == ["zero", "one", "two"]


def test_another_user_s_sessions_are_left_alone(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    get_default_session_store().add_user_message("hers", "x", user_id="alice")
    for arguments in (
        ["fork", "hers"],
        ["snapshot", "hers"],
        ["revert", "hers", "--to", "message:0"],
        ["tree", "hers"],
    ):
        done = cli("session", *arguments)
        assert done.status == 1
        assert "say --user" in done.err
    assert cli("session", "fork", "hers", "--user", "alice", "--json").json()["message_count"] == 1
    assert len(store.list_sessions(user_id="alice")) == 2


def test_an_id_reverses_nothing_in_what_is_proposed(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    made = cli("session", "fork", "main", "--as", "a\u202eb")
    none = cli("session", "snapshots", "a\u202eb")
    for told in (made.out, made.err, none.err, cli("session", "start", "a\u202eb").err):
        assert "ab" in told
        assert "\u202e" not in told


def test_a_title_cannot_forge_lines_of_the_tree(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    store.fork_session("main", title="One\n└── forged\u2028  way", new_session_id="b")
    assert cli("session", "tree", "main").out.split("\n")[1:] == ["└── b  One └── forged way  (3 messages)", ""]
