"""`praisonai memory`: what is remembered, why it was used, and forgetting it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import Cli, cli, offline  # noqa: F401 - the fixtures that call `main` in this process

from praisonaiagents.memory.memory import Memory

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def ids() -> list[str]:
    """Of three memories of the default user, the latest first; one is superseded. Bob has one, too."""
    with Memory() as memory:
        memory.add("The user lives in Rome", kind="fact", slot="user.home")
        memory.add("Likes green tea", kind="preference")
        memory.add("The user lives in Berlin", kind="fact", slot="user.home", metadata={"by": "hand"})
        memory_ids = [item.id for item in memory.items()]
    with Memory("bob") as memory:
        memory.add("Bob likes tea")
    return memory_ids


def test_a_list_has_what_counts_the_latest_first(cli: Cli, ids: list[str]) -> None:  # noqa: F811
    assert [line[0] for line in cli("memory", "list").lines()] == ids
    assert [line[-1] for line in cli("memory", "list", "-n", "1").lines()] == ["The user lives in Berlin"]
    everything = cli("memory", "list", "--superseded", "--all").lines()
    assert [line[1] for line in everything] == ["fact", "preference", "fact, superseded"]
    shown = cli("memory", "list", "--json").json()["memories"]
    assert [(item["id"], item["slot"]) for item in shown] == [(ids[0], "user.home"), (ids[1], None)]
    assert [line[-1] for line in cli("memory", "list", "--user", "bob").lines()] == ["Bob likes tea"]


def test_an_empty_list_says_what_to_do(cli: Cli) -> None:  # noqa: F811
    done = cli("memory", "list")
    assert (done.status, done.out) == (0, "")
    assert "praisonai memory add" in done.err
    assert cli("memory", "list", "--json").json() == {"memories": []}


def test_a_search_says_why(cli: Cli, ids: list[str]) -> None:  # noqa: F811
    [line] = cli("memory", "search", "where", "live?").lines()
    assert (line[0], line[-2:]) == (ids[0], ["shares lives", "The user lives in Berlin"])
    [found] = cli("memory", "search", "tea", "--json").json()["memories"]
    assert (found["text"], found["why"]) == ("Likes green tea", "shares tea")
    nothing = cli("memory", "search", "coffee")
    assert (nothing.status, nothing.out, nothing.err) == (0, "", "Nothing found.\n")


def test_one_is_shown_by_its_id_or_the_beginning_of_it(cli: Cli, ids: list[str]) -> None:  # noqa: F811
    shown = cli("memory", "show", ids[0]).out
    assert all(text in shown for text in (ids[0], "The user lives in Berlin", "user.home", "by", "Counts:     yes"))
    assert cli("memory", "show", ids[0][:12], "--json").json()["memory"]["text"] == "The user lives in Berlin"
    for wrong in ("mem-", "mem-nothing", ids[0] + "x", "x", ""):
        missing = cli("memory", "show", wrong)
        assert missing.status == 1
        assert "no such memory" in missing.err
    assert "2 memories begin so" not in cli("memory", "show", ids[1][:12]).err
    assert cli("memory", "show", ids[0], "--user", "bob").status == 1


def test_where_it_comes_from_and_where_it_was_used(cli: Cli) -> None:  # noqa: F811
    assert cli("run", "My name is Alice", "--session", "first", "--remember").status == 0
    assert "Alice" in cli("run", "What's my name?", "--session", "second", "--remember").out
    assert "Alice" in cli("session", "resume", "second", "And what's my name?").out
    [line] = cli("memory", "list").lines()
    assert "From session first: My name is Alice" in cli("memory", "show", line[0]).out
    assert cli("memory", "show", line[0], "--json").json()["memory"]["sources"][0]["text"] == "My name is Alice"
    used = cli("memory", "used", "second")
    assert used.out.splitlines()[:2] == [
        "[user] What's my name?",
        f"  The user's name is Alice  (shares name; {line[0]})",
    ]
    assert cli("memory", "used", "second", "--json").json()["turns"][0]["memories"][0]["id"] == line[0]
    assert "No memory was told" in cli("memory", "used", "first").err
    assert cli("memory", "used", "missing").status == 1
    cli("memory", "forget", line[0], "--yes")
    assert "(forgotten)" in cli("memory", "used", "second").out
    cli("session", "delete", "first", "--yes")


def test_remembering_is_kept_with_the_session_and_can_be_ended(cli: Cli) -> None:  # noqa: F811
    cli("run", "My name is Alice", "--session", "first", "--remember")
    cli("session", "resume", "first", "I love pizza", "--no-remember")
    assert [line[-1] for line in cli("memory", "list").lines()] == ["The user's name is Alice"]
    assert "Alice" not in cli("run", "What's my name?", "--session", "second").out


def test_one_is_added_and_replaces_what_is_known_of_the_same(cli: Cli, ids: list[str]) -> None:  # noqa: F811
    done = cli("memory", "add", "The user lives in Paris", "--about", "user.home", "--kind", "fact")
    assert (done.status, done.out[:16]) == (0, "Remembered: mem-")
    assert [line[-1] for line in cli("memory", "list").lines()] == ["The user lives in Paris", "Likes green tea"]
    cli("memory", "add", "Wants tea now", "--session", "s")
    assert [line[-1] for line in cli("memory", "list", "--session", "s").lines()] == ["Wants tea now"]
    assert len(cli("memory", "list").lines()) == 2
    for wrong in (["  "], ["a", "--kind", "nonsense"]):
        assert cli("memory", "add", *wrong).status == 1


def test_forgetting_asks_and_concerns_one_user(cli: Cli, ids: list[str]) -> None:  # noqa: F811
    asked = cli("memory", "forget", ids[0])
    assert asked.status == 2
    assert "--yes" in asked.err
    assert cli("memory", "forget", "--yes").status == cli("memory", "forget", ids[0], "--all", "--yes").status == 2
    assert cli("memory", "forget", ids[0], "--yes").out == "Forgot 1 memory\n"
    assert cli("memory", "forget", ids[0], "--yes").status == 1
    assert cli("memory", "forget", "--all", "--yes", "--json").json() == {"forgotten": 2, "user_id": "default_user"}
    assert cli("memory", "list", "--superseded").out == ""
    assert len(cli("memory", "list", "--user", "bob").lines()) == 1


def test_an_export_holds_everything(cli: Cli, ids: list[str], tmp_path: Path) -> None:  # noqa: F811
    whole = json.loads(cli("memory", "export").out)
    assert (whole["user_id"], len(whole["memories"])) == ("default_user", 3)
    assert {item["superseded_by"] for item in whole["memories"]} == {None, ids[0]}
    done = cli("memory", "export", "-o", str(tmp_path / "m.json"))
    assert done.out == f"Exported 3 memories to {tmp_path}/m.json\n"
    assert json.loads((tmp_path / "m.json").read_text("utf-8")) == whole
    assert (tmp_path / "m.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "m.json").chmod(0o644)
    cli("memory", "export", "-o", str(tmp_path / "m.json"))
    assert (tmp_path / "m.json").stat().st_mode & 0o777 == 0o600
    assert cli("memory", "export", "-o", str(tmp_path / "missing" / "m.json")).status == 1


def test_another_place_may_be_named(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    assert cli("memory", "add", "Elsewhere", "--path", f"{tmp_path}/other.db").status == 0
    assert cli("memory", "list").out == ""
    assert [line[-1] for line in cli("memory", "list", "--path", f"{tmp_path}/other.db").lines()] == ["Elsewhere"]
    wrong = cli("memory", "list", "--backend", "sqllite")
    assert wrong.status == 1
    assert "did you mean 'sqlite'" in wrong.err


def test_alone_it_prints_its_help(cli: Cli) -> None:  # noqa: F811
    assert "forget" in cli("memory").out
    assert cli("memory", "lst").status == 2
