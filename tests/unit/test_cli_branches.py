"""`praisonai session diff, merge, edit, retry, replay, title, tag, pin, archive`: what they print, and how they fail.

What a terminal shows has its own tests, in e2e/test_cli_branches_terminal.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_cli import Cli, cli, offline  # noqa: F401 - the fixtures that call `main` in this process

from praisonaiagents.model.message import Message
from praisonaiagents.session import HierarchicalSessionStore, get_default_session_store
from praisonaiagents.testing.llm import Fail, Say, ScriptedLLM

pytestmark = pytest.mark.usefixtures("home")
NEW = "openai/new"


@pytest.fixture
def store() -> HierarchicalSessionStore:
    """Session "main": two turns, answered by the model "old"."""
    store = HierarchicalSessionStore.of(get_default_session_store())
    for question, answer in (("one", "first"), ("two", "second")):
        store.append("main", [Message("user", question), Message("assistant", answer, model="old")])
    return store


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[ScriptedLLM], None]:
    """`scripted(llm)` makes this server the configured one."""

    def use(llm: ScriptedLLM) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", llm.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("PRAISONAI_MODEL", "gpt-4o-mini")

    return use


def shown(session_id: str) -> list[object]:
    return [message["content"] for message in get_default_session_store().get_chat_history(session_id)]


def forks(store: HierarchicalSessionStore) -> None:
    store.fork_session("main", 1, new_session_id="other")
    store.append("other", [Message("user", "three\nlines"), Message("assistant", "third")])


# --- diff ---


def test_a_diff_is_a_line_for_each_message_of_one_side_only(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    forks(store)
    done = cli("session", "diff", "main", "other")
    assert (done.status, done.err) == (0, "")
    assert done.lines() == [
        ["main", "2", "user", "two"],
        ["main", "3", "assistant", "second"],
        ["other", "2", "user", "three lines"],
        ["other", "3", "assistant", "third"],
    ]
    told = cli("session", "diff", "main", "other", "--json").json()
    assert (told["common"], told["a"]["session_id"], len(told["b"]["messages"])) == (2, "main", 2)
    assert cli("session", "diff", "main", "main").out == ""


def test_points_of_sessions_are_named_after_an_at(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    store.add_user_message("me@home", "elsewhere")
    store.create_snapshot("main", "safe@noon")
    assert cli("session", "revert", "main", "--to", "message:0").status == 0
    assert cli("session", "diff", "main@safe@noon", "main").lines() == [
        ["main@safe@noon", "1", "assistant", "first"],
        ["main@safe@noon", "2", "user", "two"],
        ["main@safe@noon", "3", "assistant", "second"],
    ]
    assert cli("session", "diff", "main", "main@head:1", "--json").json()["b"]["at"] == "head:1"
    assert cli("session", "diff", "me@home", "me@home@message:0").out == ""


@pytest.mark.parametrize("name", ["diff", "merge"])
def test_what_is_not_there_is_an_error_that_helps(cli: Cli, store: HierarchicalSessionStore, name: str) -> None:  # noqa: F811
    done = cli("session", name, "main", "mian")
    assert (done.status, done.out) == (1, "")
    assert done.err == "Error: session 'mian' not found; did you mean 'main'?\n"
    done = cli("session", name, "main", "main@nowhere")
    assert done.status == 1
    assert done.err == (
        "Error: in session 'main' nothing is called 'nowhere'; praisonai session snapshots main and "
        "praisonai session log main list the points\n"
    )
    assert cli("session", name, "main", "main", "--user", "bob", "--json").json()["error"]["type"] == "SessionNotFound"
    assert cli("session", name, "main").status == 2


# --- merge ---


def test_a_merge_says_what_it_added(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    forks(store)
    assert cli("session", "merge", "main", "other").out == "Merged other into main: added 2 messages.\n"
    assert shown("main") == ["one", "first", "two", "second", "three\nlines", "third"]
    done = cli("session", "merge", "main", "other")
    assert (done.status, done.out) == (0, "Nothing new: all that other has was merged into main before.\n")
    told = cli("session", "merge", "other", "main", "--json").json()
    assert (told["session_id"], told["source"], told["added"], told["is_summary"]) == ("other", "main", 2, False)
    assert len(told["message_ids"]) == 2


def test_a_merge_that_is_refused_says_why(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    done = cli("session", "merge", "main", "main")
    assert (done.status, done.err) == (
        1,
        "Error: session 'main' cannot be merged into itself; an earlier point of it can\n",
    )
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    store.append("other", [Message("user", "hm"), Message("assistant", None, tool_calls=[call])])
    told = cli("session", "merge", "main", "other", "--json")
    assert told.status == 1
    assert told.json()["error"]["type"] == "MergeRefused"


def test_a_summary_is_given_or_made(
    cli: Cli,  # noqa: F811
    store: HierarchicalSessionStore,
    scripted: Callable[[ScriptedLLM], None],
) -> None:
    forks(store)
    assert cli("session", "merge", "main", "other", "--summary", "By hand.").out == (
        "Merged other into main: added a summary.\n"
    )
    assert str(shown("main")[-1]).endswith("\nBy hand.")
    with ScriptedLLM([Say("By a model.")]) as llm:
        scripted(llm)
        told = cli("session", "merge", "other", "main", "--llm", NEW, "--json", "--summary").json()
    assert told["is_summary"]
    assert str(shown("other")[-1]).endswith("\nBy a model.")
    asked = llm.requests[0].messages[-1]["content"]
    assert asked.endswith("user: two\nassistant: second")
    assert llm.requests[0].body["model"] == "new"


def test_no_summary_is_made_without_a_model(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    forks(store)
    done = cli("session", "merge", "main", "other", "--summary")
    assert (done.status, done.out) == (1, "")
    assert "there is no model at hand" in done.err
    assert "--summary TEXT" in done.err
    assert shown("main") == ["one", "first", "two", "second"]


# --- edit, retry, replay ---


def test_an_edited_message_is_asked_in_a_fork(
    cli: Cli,  # noqa: F811
    store: HierarchicalSessionStore,
    scripted: Callable[[ScriptedLLM], None],
) -> None:
    with ScriptedLLM([Say("better"), Say("again")]) as llm:
        scripted(llm)
        done = cli("session", "edit", "main", "--at", "2", "two, please")
        [fork] = store.get_children("main")
        assert (done.status, done.out) == (0, "better\n")
        assert done.err == f"Fork: {fork}. Go on with it: praisonai session resume {fork}\n"
        told = cli("session", "edit", "main", "--at", "0", "uno", "--llm", NEW, "--json").json()
    assert shown(fork) == ["one", "first", "two, please", "better"]
    assert (told["parent_id"], told["message_index"], told["response"]) == ("main", 0, "again")
    assert told["model"] == "openai-chat:new"
    assert llm.requests[1].body["model"] == "new"
    assert store.get_session(told["session_id"]).metadata["model"] == NEW
    assert shown("main") == ["one", "first", "two", "second"]


def test_an_edited_message_may_wait_for_its_answer(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    told = cli("session", "edit", "main", "--at", "2", "later", "--no-ask", "--json").json()
    assert (told["model"], told["response"]) == (None, None)
    assert shown(told["session_id"]) == ["one", "first", "later"]
    done = cli("session", "edit", "main", "--at", "1", "x")
    assert (done.status, done.out) == (1, "")
    assert "message 1 of session 'main' is not one of the user's; the user's messages are 0, 2" in done.err
    assert cli("session", "edit", "main", "x").status == 2


def test_the_last_answer_is_given_again(
    cli: Cli,  # noqa: F811
    store: HierarchicalSessionStore,
    scripted: Callable[[ScriptedLLM], None],
) -> None:
    with ScriptedLLM([Say("2nd"), Say("2nd, new")]) as llm:
        scripted(llm)
        assert cli("session", "retry", "main").out == "2nd\n"
        told = cli("session", "retry", "main", "--llm", NEW, "--json").json()
    assert llm.requests[0].body["model"] == "gpt-4o-mini"
    assert (told["before"], told["response"], told["model"]) == ("second", "2nd, new", "openai-chat:new")
    assert shown(told["session_id"]) == ["one", "first", "two", "2nd, new"]
    assert shown("main") == ["one", "first", "two", "second"]


def test_a_model_nobody_knows_leaves_no_fork(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    for words in (["retry", "main"], ["edit", "main", "--at", "0", "x"], ["replay", "main"]):
        done = cli("session", *words, "--llm", "nonsense")
        assert (done.status, done.out) == (1, "")
        assert "no provider is known" in done.err
    assert store.get_children("main") == []


def test_an_answer_that_fails_names_the_fork(
    cli: Cli,  # noqa: F811
    store: HierarchicalSessionStore,
    scripted: Callable[[ScriptedLLM], None],
) -> None:
    with ScriptedLLM([Fail(500), Say("1st"), Fail(500)]) as llm:
        scripted(llm)
        done = cli("session", "retry", "main")
        [fork] = store.get_children("main")
        assert (done.status, done.out) == (1, "")
        assert f"what was said by then is in the fork {fork}" in done.err
        done = cli("session", "replay", "main", "--llm", NEW)
    assert (done.status, done.lines()) == (1, [["0", "one", "first", "1st"]])
    fork = store.get_children("main")[-1]
    assert f"what was said by then is in the fork {fork}" in done.err
    assert shown(fork)[:2] == ["one", "1st"]


def test_a_replay_shows_both_answers(
    cli: Cli,  # noqa: F811
    store: HierarchicalSessionStore,
    scripted: Callable[[ScriptedLLM], None],
) -> None:
    with ScriptedLLM([Say("1st\nline"), Say("2nd"), Say("uno"), Say("dos")]) as llm:
        scripted(llm)
        done = cli("session", "replay", "main", "--llm", NEW)
        told = cli("session", "replay", "main", "--llm", NEW, "--json").json()
    assert done.lines() == [["0", "one", "first", "1st line"], ["2", "two", "second", "2nd"]]
    assert done.err.startswith("Fork: ")
    assert [(turn["question"], turn["before"], turn["after"], turn["model_before"]) for turn in told["turns"]] == [
        ("one", "first", "uno", "old"),
        ("two", "second", "dos", "old"),
    ]
    assert told["model"] == "openai-chat:new"
    assert shown(told["session_id"]) == ["one", "uno", "two", "dos"]
    assert cli("session", "replay", "main").status == 2


@pytest.mark.parametrize("words", [["edit", "--at", "0", "no"], ["retry", "no"], ["replay", "no", "--llm", "offline"]])
def test_a_session_that_is_not_there_is_named(cli: Cli, store: HierarchicalSessionStore, words: list[str]) -> None:  # noqa: F811
    done = cli("session", *words, *(["x"] if words[0] == "edit" else []))
    assert done.status == 1
    assert "session 'no' not found" in done.err


# --- title, tag, pin, archive ---


def test_a_title_is_shown_and_found(
    cli: Cli,  # noqa: F811
    store: HierarchicalSessionStore,
    scripted: Callable[[ScriptedLLM], None],
) -> None:
    assert cli("session", "title", "main").out == "-\n"
    store.set_title("main", "Mine")
    assert cli("session", "title", "main", "--json").json() == {"session_id": "main", "title": "Mine", "changed": False}
    store.set_title("main", "")
    with ScriptedLLM([Say("Counting to two")]) as llm:
        scripted(llm)
        assert cli("session", "title", "main", "--auto", "--llm", NEW).out == "Counting to two\n"
    done = cli("session", "title", "main", "--auto")
    assert (done.status, done.out) == (0, "Counting to two\n")
    assert done.err == "It has a title already; take it away first: praisonai session rename main ''\n"


def test_without_a_model_the_users_words_are_the_title(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    assert cli("session", "title", "main", "--auto", "--json").json() == {
        "session_id": "main",
        "title": "one",
        "changed": True,
    }
    store.add_user_message("new", "hello")
    done = cli("session", "title", "new", "--auto")
    assert (done.status, done.out) == (0, "-\n")
    assert "a turn must be answered first" in done.err


def test_tags_are_kept_and_listed(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    store.add_user_message("other", "x")
    assert cli("session", "tag", "main", "trip", "2026").out == "main: trip, 2026\n"
    assert [row[0] for row in cli("session", "list", "--tag", "trip").lines()] == ["main"]
    assert len(cli("session", "list").lines()[0]) == 5  # a pipe has the same columns with and without tags
    assert cli("session", "untag", "main", "trip", "--json").json() == {"session_id": "main", "tags": ["2026"]}
    assert cli("session", "untag", "main", "2026").out == "main: no tags\n"
    done = cli("session", "list", "--tag", "trip")
    assert (done.status, done.out) == (0, "")
    assert done.err == "No such sessions found. praisonai session list shows the others.\n"
    assert cli("session", "tag", "main", " ").status == 1
    assert cli("session", "tag", "main").status == 2


def test_pinned_sessions_come_first_and_archived_ones_not_at_all(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    def ids(*options: str) -> list[str]:
        return [row["session_id"] for row in cli("session", "list", *options, "--json").json()["sessions"]]

    store.add_user_message("other", "x")
    assert cli("session", "pin", "main").out == "Pinned main: it comes first in lists.\n"
    store.add_user_message("third", "x")
    assert ids() == ["main", "third", "other"]
    assert cli("session", "unpin", "main", "--json").json() == {"session_id": "main", "pinned": False}
    assert cli("session", "archive", "third").out == ("Archived third. praisonai session list --archived shows it.\n")
    assert "third" not in ids()
    assert ids("--archived") == ["third"]
    assert cli("session", "unarchive", "third", "--json").json() == {"session_id": "third", "archived": False}
    assert "third" in ids()


@pytest.mark.parametrize("name", ["title", "tag", "untag", "pin", "unpin", "archive", "unarchive"])
def test_a_label_on_nothing_is_an_error(cli: Cli, store: HierarchicalSessionStore, name: str) -> None:  # noqa: F811
    for whose in ([], ["--user", "bob"]):
        done = cli("session", name, "mian" if not whose else "main", *(["x"] if "ta" in name else []), *whose)
        assert (done.status, done.out) == (1, "")
        assert "not found" in done.err
    assert len(store.list_sessions(None, all_users=True)) == 1


def test_commands_to_copy_work_for_any_id_and_user(cli: Cli, store: HierarchicalSessionStore) -> None:  # noqa: F811
    for role in ("user", "assistant"):
        store.add_message("-two words", role, "hi", user_id="bob")
    store.set_title("-two words", "Mine", user_id="bob")
    done = cli("session", "title", "--auto", "--user", "bob", "--", "-two words")
    assert done.err.endswith(": praisonai session rename --user bob -- '-two words' ''\n")
    done = cli("session", "diff", "--user", "bob", "--", "-two words@x", "-two words")
    assert "praisonai session log --user bob -- '-two words' list the points" in done.err
