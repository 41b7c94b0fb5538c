"""`praisonai session prune` and `compact`: what they print, and how they fail. A terminal has its tests in e2e."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import Cli, cli, offline  # noqa: F401 - the fixtures that call `main` in this process

from praisonaiagents.session import HierarchicalSessionStore, get_default_session_store
from praisonaiagents.session.checkpoint import HEADING
from praisonaiagents.session.prune import Applied
from praisonaiagents.testing.llm import Fail, Say, ScriptedLLM

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def store() -> HierarchicalSessionStore:
    """Sessions "a", "b", "c", the last changed last, with two messages each."""
    store = HierarchicalSessionStore.of(get_default_session_store())
    for name in "abc":
        store.add_user_message(name, "one")
        store.add_assistant_message(name, "two")
    return store


def ids(store: HierarchicalSessionStore) -> list[str]:
    return [row["session_id"] for row in store.list_sessions(all_users=True)]


# --- prune ---


def test_a_dry_run_says_what_would_go_and_changes_nothing(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    done = cli("session", "prune", "--keep", "1", "--dry-run")
    size = sum(int(line[3]) for line in done.lines())
    assert [line[:3] for line in done.lines()] == [[name, "all (beyond --keep)", "2"] for name in "ba"]
    assert (done.status, done.err) == (0, f"2 sessions of 3: 4 messages, {size:,} bytes\n")
    assert ids(store) == ["c", "b", "a"]


def test_without_a_terminal_it_asks_for_yes(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    done = cli("session", "prune", "--keep", "1")
    assert done.status == 2
    assert "--yes" in done.err
    assert ids(store) == ["c", "b", "a"]
    assert cli("session", "prune", "--keep", "1", "--json").status == 2
    done = cli("session", "prune", "--keep", "1", "--yes")
    assert (done.status, done.err.splitlines()[-1]) == (0, "Done: 2 sessions.")
    assert ids(store) == ["c"]


def test_it_prunes_for_programs(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    store.create_snapshot("a")
    store.update_session_metadata("b", pinned=True)
    done = cli("session", "prune", "--idle", "0m", "--json", "--dry-run").json()
    assert done["dry_run"] is True
    assert [change["session_id"] for change in done["changes"]] == ["c"]
    done = cli("session", "prune", "--idle", "0m", "--yes", "--json").json()
    assert done["spared"] == {"pinned": 1, "snapshots": 1}
    assert (done["dry_run"], done["looked_at"], done["used_meanwhile"]) == (False, 3, [])
    [change] = done["changes"]
    assert change["bytes"] > 0
    assert change | {"session_id": "c", "user_id": "default_user", "why": "idle", "messages": 2} == change
    assert sorted(ids(store)) == ["a", "b"]
    cli("session", "prune", "--idle", "0m", "--pinned", "--snapshots", "0d", "--yes")
    assert ids(store) == []


def test_what_stays_is_told(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    store.create_snapshot("a")
    store.update_session_metadata("b", pinned=True)
    store.update_session_metadata("c", pinned=True)
    done = cli("session", "prune", "--idle", "0m", "--dry-run")
    assert "1 session beyond a limit will stay: with snapshots (--snapshots AGE)" in done.err
    assert "2 sessions beyond a limit will stay: pinned (--pinned)" in done.err
    assert "0 sessions of 3: 0 messages, 0 bytes" in done.err


def test_parts_of_a_session(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    store.add_user_message("c", "three")
    store.add_user_message("c", "four")
    store.revert_to_message("c", 2)
    [line] = cli("session", "prune", "--messages", "2", "--heads", "0m", "--dry-run").lines()
    assert line[:3] == ["c", "old messages, 1 head", "3"]
    done = cli("session", "prune", "--messages", "2", "--to-archive", "--yes")
    assert [line[:3] for line in done.lines()] == [["c", "2 to archive", "0"]]
    assert "parts of 1 session of 3: 0 messages" in done.err
    assert [message.content for message in store.messages("c")] == ["three"]


def test_only_the_user_that_was_named(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    store.add_user_message("a", "x", user_id="bob")
    assert cli("session", "prune", "--keep", "0", "--dry-run", "--user", "bob").lines()[0][0] == "a"
    everybody = cli("session", "prune", "--keep", "0", "--dry-run", "--all-users").lines()
    assert sorted(line[:2] for line in everybody) == [
        ["a", "bob"],
        *([name, "default_user"] for name in "abc"),
    ]
    cli("session", "prune", "--keep", "0", "--yes")
    assert store.session_exists("a", user_id="bob")


def test_an_id_reverses_nothing_in_what_was_spared(
    cli: Cli,  # noqa: F811
    store: HierarchicalSessionStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.add_user_message("x\u202ey", "one")
    monkeypatch.setattr("praisonaiagents.session.prune.apply", lambda _, found, **more: Applied([], found.changes))
    assert cli("session", "prune", "--keep", "0", "--yes").err.splitlines()[-4] == "Spared, it was used meanwhile: xy"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what is to go"),
        (["--pinned"], "say what is to go"),
        (["--idle", "3x"], "is no age; write 12h, 90d, 6w or 1y"),
        (["--idle", "-1d"], "is no age"),
        (["--keep", "-1"], "range"),
        (["--messages", "0"], "range"),
    ],
)
def test_a_limit_that_makes_no_sense_is_a_usage_error(cli: Cli, arguments: list[str], said: str) -> None:  # noqa: F811
    done = cli("session", "prune", *arguments)
    assert done.status == 2
    assert said in done.err


@pytest.mark.parametrize("age", ["0m", "0.0h", "0d", "0 W", "0y"])
def test_ages_have_units(cli: Cli, store: HierarchicalSessionStore, age: str) -> None:  # noqa: F811
    assert len(cli("session", "prune", "--idle", age, "--dry-run").lines()) == 3


# --- compact ---


def talk(store: HierarchicalSessionStore, turns: int) -> None:
    for number in range(turns):
        store.add_user_message("s", f"My number {number} is {number}.")
        store.add_assistant_message("s", "Noted.")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("PRAISONAI_MODEL", "gpt-4o-mini")
    return monkeypatch


def test_a_session_is_summed_up(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    talk(store, 3)
    done = cli("session", "compact", "s", "--keep", "2")
    assert done.status == 0
    assert done.out == f"{HEADING}\n\nMy number 0 is 0.\nMy number 1 is 1.\n"
    assert done.err.startswith("It stands for 4 messages, 2 more follow: about ")
    assert len(store.messages("s")) == 6
    assert store.search("number 0")
    again = cli("session", "compact", "s", "--keep", "2")
    assert (again.status, again.out) == (0, "")
    assert "Nothing to sum up" in again.err
    assert cli("session", "compact", "s", "--keep", "2", "--json").json()["compacted"] is False


def test_it_sums_up_for_programs(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    talk(store, 12)
    done = cli("session", "compact", "s", "--json").json()
    assert done | {"compacted": True, "session_id": "s", "messages": 4, "kept": 20} == done
    assert done["summary"].startswith(HEADING)


def test_the_model_that_was_named_sums_up_and_is_not_kept(
    cli: Cli,  # noqa: F811
    store: HierarchicalSessionStore,
    scripted: pytest.MonkeyPatch,
) -> None:
    talk(store, 3)
    with ScriptedLLM([Say("Three numbers.")]) as llm:
        scripted.setenv("OPENAI_BASE_URL", llm.openai_url)
        done = cli("session", "compact", "s", "--keep", "2", "--llm", "openai/other")
        assert llm.requests[0].body["model"] == "other"
    assert done.out == f"{HEADING}\n\nThree numbers.\n"
    assert "model" not in store.get_session("s").metadata


def test_a_model_that_fails_changes_nothing(
    cli: Cli,  # noqa: F811
    store: HierarchicalSessionStore,
    scripted: pytest.MonkeyPatch,
) -> None:
    talk(store, 3)
    before = store.open_session("s")
    for reply in (Fail(500), Say(" ")):
        with ScriptedLLM([reply] * 9) as llm:
            scripted.setenv("OPENAI_BASE_URL", llm.openai_url)
            done = cli("session", "compact", "s", "--keep", "2", "--json")
        assert done.status == 1
        assert json.loads(done.out)["error"]["type"] == "ModelError"
    assert store.open_session("s") == before


def test_a_session_that_is_not_there_is_named(cli: Cli, store: HierarchicalSessionStore, home: Path) -> None:  # noqa: F811
    done = cli("session", "compact", "bb")
    assert (done.status, "'bb' not found" in done.err) == (1, True)
    assert cli("session", "compact", "a", "--user", "bob").status == 1
    assert ids(store) == ["c", "b", "a"]
