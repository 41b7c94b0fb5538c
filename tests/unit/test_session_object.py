"""The Session class: agents that keep their parts apart, state, memory, knowledge, its life, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from crash.databases import KINDS, place
from wire import Bot, User, Wire

from praisonaiagents import Agent, Session
from praisonaiagents.errors import ConfigError, ConfigTypeError, InvalidId, InvalidMessage, UnknownEngine
from praisonaiagents.model.record import Key
from praisonaiagents.session import open_store
from praisonaiagents.session import store as stores
from praisonaiagents.testing.llm import Say, ScriptedLLM

ALICE = "My name is Alice"
WHO = "What's my name?"


@pytest.fixture(params=[None, *KINDS], ids=str)
def db(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param is None:
        yield None
        return
    with place(request.param) as url:
        yield url


@pytest.fixture
def session(home: Path) -> Iterator[Session]:
    with Session("s", "alice") as made:
        yield made


# --- agents ---


def test_an_agent_stores_each_turn_and_a_new_one_goes_on(db: str | None) -> None:
    with Session("s", "alice", db=db) as session:
        session.Agent("A", llm="offline").chat(ALICE)
        with Session("s", "alice", db=db) as other:  # another process would see the same
            assert "Alice" in other.Agent("A", llm="offline").chat(WHO)
    with Session("s", "bob", db=db) as foreign:
        assert "Alice" not in foreign.Agent("A", llm="offline").chat(WHO)


def test_two_agents_keep_their_conversations_apart_and_both_resume(db: str | None) -> None:
    with Session("s", db=db) as session:
        one, other = session.Agent("One", llm="offline"), session.Agent("Other", llm="offline")
        one.chat(ALICE)
        other.chat("I live in Berlin")
        assert "Alice" not in other.chat(WHO)
        one.chat("Hello")
    with Session("s", db=db) as session:
        one, other = session.Agent("One", llm="offline"), session.Agent("Other", llm="offline")
        assert "Alice" in one.chat(WHO)
        assert "Berlin" not in one.chat("Where do I live?")
        assert "Berlin" in other.chat("Where do I live?")
        everything = session.Agent("Third", llm="offline", shared=True)
        assert "Alice" in everything.chat(WHO)
        assert "Berlin" in everything.chat("Where do I live?")


def test_each_message_says_whose_it_is(session: Session) -> None:
    session.Agent("A", llm="offline").chat("Hello")
    session.Agent("A", "Critic", llm="offline").chat("Hello")
    messages = stores.DefaultSessionStore().messages("s", user_id="alice")
    assert [message.agent for message in messages] == ["A", "A", "A:Critic", "A:Critic"]


def test_a_second_agent_of_one_name_and_role_goes_on_with_the_firsts(session: Session) -> None:
    session.Agent("A", "Critic", llm="offline").chat(ALICE)
    assert "Alice" in session.Agent("A", "Critic", llm="offline").chat(WHO)
    assert "Alice" not in session.Agent("A", "Writer", llm="offline").chat(WHO)
    assert "Alice" not in session.Agent("B", "Critic", llm="offline").chat(WHO)


def test_agents_that_talk_by_turns_see_what_is_theirs_only(session: Session) -> None:
    """Although the messages of both lie in one session, in the order in which they were said."""
    one, other = session.Agent("One", llm="offline"), session.Agent("Other", llm="offline")
    for number in range(3):
        one.chat(f"One says {number}")
        other.chat(f"Other says {number}")
    assert [entry["content"] for entry in one.chat_history if entry["role"] == "user"] == [
        f"One says {n}" for n in range(3)
    ]
    assert len(stores.DefaultSessionStore().messages("s", user_id="alice")) == 12


def test_what_is_in_nobodys_part_is_seen_by_all(session: Session) -> None:
    stores.DefaultSessionStore().add_user_message("s", ALICE, user_id="alice")
    assert "Alice" in session.Agent("One", llm="offline").chat(WHO)
    assert "Alice" in session.Agent("Other", llm="offline").chat(WHO)


def test_a_shared_history_tells_the_model_who_said_what(wire: Wire) -> None:
    with ScriptedLLM([Say("Red"), Say("Blue"), Say("Green")]) as llm, Session("s") as session:
        session.Agent("One", **wire.agent(llm)).chat("Pick a color")
        other = session.Agent("Other", shared=True, **wire.agent(llm))
        other.chat("And you?")
        assert (
            llm.requests[-1].messages[-3:]
            == wire.messages(User("Pick a color"), Bot("[One] Red"), User("And you?"))[-3:]
        )
        other.chat("Really?")
        assert llm.requests[-1].messages[-2:] == wire.messages(Bot("Blue"), User("Really?"))[-2:]


@pytest.mark.parametrize("make", [Session.Agent, Session.create_agent, Session.get_agent])
def test_an_agent_is_made_under_each_of_its_names(session: Session, make: Callable[..., Agent]) -> None:
    agent = make(session, "A", role="Critic", verbose=True, user_id="alice")
    assert (agent.name, agent.session_id, agent.user_id) == ("A", "s", "alice")


def test_an_agent_without_a_name_is_the_assistant(session: Session) -> None:
    assert session.Agent().name == "Assistant"


def test_settings_of_an_agents_memory_count(session: Session) -> None:
    agent = session.Agent("A", llm="offline", memory={"max_messages": 4, "retention": "archive"})
    for number in range(10):
        agent.chat(f"I have {number} cats")
    with open_store(max_messages=4, retention="archive") as store:
        assert len(store.messages("s", user_id="alice")) <= 4
        assert len(store.engine.read(Key("alice", "s"), 0).messages) == 20


REFUSED_AGENTS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"user_id": "bob"}, ConfigError),
    ({"memory": {"session_id": "other"}}, ConfigError),
    ({"memory": {"user_id": "bob"}}, ConfigError),
    ({"memory": {"db": "sqlite:///other.db"}}, ConfigError),
    ({"memory": {"lock_timeout": 1}}, ConfigError),
    ({"memory": 5}, ConfigTypeError),
    ({"session_id": "other"}, TypeError),
    ({"surprise": 1}, TypeError),
    ({"knowledge": "missing.txt"}, ConfigError),
]


@pytest.mark.parametrize(("settings", "error"), REFUSED_AGENTS, ids=[str(one[0]) for one in REFUSED_AGENTS])
def test_an_agent_of_somebody_else_is_refused(
    session: Session, settings: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        session.Agent("A", llm="offline", **settings)


@pytest.mark.parametrize("memory", [True, False, {"auto_memory": True}, "in_memory"], ids=str)
def test_what_an_agents_memory_does_not_say_is_as_the_session_has_it(home: Path, memory: Any) -> None:
    with Session("s", "alice", memory_config={"max_messages": 4, "recall_tokens": 0}) as session:
        agent = session.Agent("A", llm="offline", memory=memory)
        for number in range(8):
            agent.chat(f"I have {number} cats")
        if memory is not False:
            assert agent._memory_instance.recall_tokens == 0
    with open_store(max_messages=4) as store:
        assert len(store.messages("s", user_id="alice")) <= 4
        assert len(store.engine.read(Key("alice", "s"), 0).messages) < 8


def test_no_two_agents_share_a_mark(session: Session) -> None:
    makes: list[tuple[str | None, str | None]] = [
        ("A", "B"),
        ("A:B", None),
        (None, "Writer"),
        ("Writer", None),
        ("A%3AB", None),
    ]
    for number, (name, role) in enumerate(makes):
        agent = session.Agent(name, role, llm="offline")
        agent.chat(f"Only number {number} hears this")
        assert len(agent.chat_history) == 2


# --- state ---


def test_state_is_kept_and_belongs_to_the_session(
    db: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"project": "ML Research", "papers_found": 5, "nested": {"a": [1, None, 2.5, "é"]}, "type": "mine"}
    with Session("s", "alice", db=db) as session:
        assert session.save_state(state) is None
        session.Agent("A", llm="offline").chat("Hello")
        session.save_state()
    if db is None or "://" in db:
        monkeypatch.chdir(tmp_path)
    with Session("s", "alice", db=db) as again:
        assert again.restore_state() == state
        assert (again.get_state("papers_found"), again.get_state("x"), again.get_state("x", 1)) == (5, None, 1)
        again.set_state("papers_found", 6)
        assert again.increment_state("papers_found", 2) == 8
        assert again.delete_state("nested")
        assert again.restore_state() == {"project": "ML Research", "papers_found": 8, "type": "mine"}
    for session_id, user in (("t", "alice"), ("s", "bob"), ("s", None)):
        assert Session(session_id, user, db=db).restore_state() == {}


def test_another_working_directory_changes_nothing(session: Session, tmp_path: Path) -> None:
    session.save_state({"a": 1})
    session.add_memory("Likes tea")
    code = "from praisonaiagents import Session; s = Session('s', 'alice'); print(s.get_state('a'), len(s.search_memory('tea')))"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1", "1"]


# --- memory ---


def test_long_memories_are_the_users_and_short_ones_the_sessions(session: Session) -> None:
    session.add_memory("Likes green tea", topic="drinks")
    session.add_memory("Wants the report by Friday", memory_type="short")
    (found,) = session.search_memory("tea")
    assert (found["text"], found["metadata"]) == ("Likes green tea", {"topic": "drinks"})
    assert found["id"]
    assert "tea" in found["why"]
    assert session.search_memory("report") == []
    assert [item["text"] for item in session.search_memory("report", "short")] == ["Wants the report by Friday"]
    with Session("t", "alice") as sibling, Session("s", "bob") as foreign:
        assert [item["text"] for item in sibling.search_memory("tea")] == ["Likes green tea"]
        assert sibling.search_memory("report", memory_type="short") == []
        assert foreign.search_memory("tea") == foreign.search_memory("report", "short") == []
        foreign.clear_memory()
        sibling.clear_memory("short")
    assert len(session.search_memory("tea")) == len(session.search_memory("report", "short")) == 1
    session.clear_memory("long")
    assert (session.search_memory("tea"), len(session.search_memory("report", "short"))) == ([], 1)
    session.clear_memory()
    assert session.search_memory("report", "short") == []


def test_an_agent_is_told_what_its_session_remembers(session: Session) -> None:
    session.add_memory("The user's name is Alice")
    assert "Alice" in session.Agent("A", llm="offline").chat(WHO)
    assert "Alice" not in session.Agent("B", llm="offline", memory=False).chat(WHO)
    assert "Alice" not in Session("s", "bob").Agent("A", llm="offline").chat(WHO)


def test_knowledge_is_found_told_and_kept_in_its_session(session: Session, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("# Oven\n\nThe oven needs 220 degrees.", "utf-8")
    (tmp_path / "notes" / "b.txt").write_text("The fridge is broken.", "utf-8")
    assert session.add_knowledge(tmp_path / "notes") == 2
    assert session.add_knowledge("Wifi is called Attic.") == 1
    (found,) = session.search_knowledge("oven degrees", limit=1)
    assert "220" in found["text"]
    assert found["metadata"]["source"].endswith("a.md")
    assert session.search_memory("oven") == session.search_memory("oven", "short") == []
    assert Session("t", "alice").search_knowledge("oven") == []
    assert Session("s", "bob").search_knowledge("oven") == []
    assert "220" in session.get_context("How hot is the oven?")
    session.add_knowledge("Wifi is called Attic.")
    assert len(session.search_knowledge("wifi")) == 1


def test_the_context_of_a_query_holds_memories_and_passages(session: Session) -> None:
    assert session.get_context("tea") == ""
    session.add_memory("Likes green tea")
    session.add_memory("No tea today", "short")
    session.add_knowledge("Tea comes from China.")
    context = session.get_context("tea")
    assert all(text in context for text in ("Likes green tea", "No tea today", "Tea comes from China."))
    assert session.get_context("tea", max_items=1).count("\n- ") == 2


def test_a_file_that_is_added_again_takes_its_own_place(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "oven.txt"
    for degrees in (200, 220):
        file.write_text(f"The oven needs {degrees} degrees.\n\n" + "Other text. " * 200, "utf-8")
        session.add_knowledge(file)
        session.add_knowledge(str(file))
    assert [found["text"] for found in session.search_knowledge("oven degrees") if "oven" in found["text"]] == [
        "The oven needs 220 degrees."
    ]


@pytest.mark.parametrize("text", [".", "notes", "~nobody what", "/etc/passwd", "a.b c", "x" * 5000, "\x00 here"])
def test_a_text_that_names_no_text_file_is_a_text(session: Session, text: str, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert session.add_knowledge(text) >= 1
    assert all(found["metadata"] == {"source": "text"} for found in session.search_knowledge(text))


def test_what_is_neither_file_nor_folder_is_refused(session: Session, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        session.add_knowledge(tmp_path / "pipe.txt")
    (tmp_path / "a.txt").write_text("Good text", "utf-8")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "pipe.txt").unlink()
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        session.add_knowledge(tmp_path)
    assert session.search_knowledge("good") == []  # all of a folder, or nothing


REFUSED: list[tuple[Callable[[Session], object], type[Exception]]] = [
    (lambda session: session.add_memory(""), InvalidMessage),
    (lambda session: session.add_memory(None), ConfigTypeError),  # type: ignore[arg-type]
    (lambda session: session.add_memory("x" * 40_000), InvalidMessage),
    (lambda session: session.add_memory("\ud800"), InvalidMessage),
    (lambda session: session.add_memory("a", "medium"), ConfigError),
    (lambda session: session.add_memory("a", kind=object()), InvalidMessage),
    (lambda session: session.search_memory(None), ConfigTypeError),  # type: ignore[arg-type]
    (lambda session: session.search_memory("a", limit=-1), ConfigError),
    (lambda session: session.search_memory("a", "medium"), ConfigError),
    (lambda session: session.clear_memory("medium"), ConfigError),
    (lambda session: session.add_knowledge(""), ConfigError),
    (lambda session: session.add_knowledge(None), ConfigTypeError),  # type: ignore[arg-type]
    (lambda session: session.add_knowledge("http://example.com/a.html"), ConfigError),
    (lambda session: session.add_knowledge("missing.md"), ConfigError),
    (lambda session: session.save_state([1]), ConfigTypeError),  # type: ignore[arg-type]
    (lambda session: session.get_state([1]), ConfigTypeError),  # type: ignore[arg-type]
    (lambda session: session.memory.recall(5), ConfigTypeError),  # type: ignore[arg-type]
    (lambda session: session.memory.page(after=5), ConfigTypeError),  # type: ignore[arg-type]
    (lambda session: session.memory.page(limit=-5), ConfigError),
    (lambda session: session.memory.forget(["a"]), ConfigTypeError),  # type: ignore[arg-type]
    (lambda session: session.memory.add("a", metadata=[]), InvalidMessage),  # type: ignore[arg-type]
    (lambda session: session.increment_state("a", 0.5, 10**400, scope="temp"), ConfigError),
    (lambda session: session.set_state("a", 1, scope="users"), ConfigError),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_bad_input_is_refused_and_stores_nothing(session: Session, number: int) -> None:
    call, error = REFUSED[number]
    with pytest.raises(error):
        call(session)
    assert list(session.memory.items()) == list(session.memory.items(session_only=True)) == []
    assert session.restore_state() == {}


# --- its life ---


def test_making_one_opens_nothing(home: Path) -> None:
    session = Session("s", "alice", db=f"sqlite:///{home}/x.db", memory_config={"backend": "sqlite"})
    session.Agent("A", llm="offline")
    session.close()
    assert not home.exists()


def test_looking_makes_nothing(home: Path, session: Session) -> None:
    assert session.restore_state() == {}
    assert session.search_memory("a") == session.search_knowledge("a") == []
    assert session.get_context("a") == ""
    assert not home.exists()


def test_time_to_live() -> None:
    assert (Session().is_expired(), Session().time_to_expiry()) == (False, None)
    assert Session(session_ttl=0).is_expired()
    assert Session(session_ttl=0).time_to_expiry() == 0.0
    left = Session(session_ttl=100).time_to_expiry()
    assert left is not None
    assert 0 < left <= 100


def test_it_may_be_used_after_it_was_closed_and_be_closed_again(db: str | None) -> None:
    session = Session("s", db=db)
    for number in range(3):
        session.set_state("n", number)
        session.add_memory(f"Number {number}")
        session.Agent("A", llm="offline").chat("Hello")
        session.close()
        session.close()
    assert session.get_state("n") == 2
    session.close()


def test_closing_where_nothing_could_be_opened_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    session = Session(
        "s", db=f"sqlite:///{tmp_path}/folder.db", memory_config={"config": {"path": f"{tmp_path}/folder.db"}}
    )
    for call in (lambda: session.save_state({}), lambda: session.add_memory("a")):
        with pytest.raises(OSError):
            call()
    session.close()
    session.close()


def test_what_cannot_be_closed_keeps_nothing_else_open(home: Path) -> None:
    class Broken:
        def search(self, query: str) -> list[str]:
            return []

        def add(self, text: str) -> None:
            raise NotImplementedError

        def close_connections(self) -> None:
            raise OSError("no")

    session = Session("s", db=f"sqlite:///{home}/x.db")
    agent = session.Agent("A", llm="offline", memory=Broken())
    agent.chat("Hello")
    session.add_memory("Likes tea")
    with pytest.raises(OSError, match="no"):
        session.close()
    assert not [name for name in open_files() if name.startswith(str(home))]


def test_a_turn_after_closing_is_closed_by_the_next_close(home: Path) -> None:
    session = Session("s", db=f"sqlite:///{home}/x.db", memory_config={"auto_memory": True})
    agent = session.Agent("A", llm="offline")
    for text in (ALICE, WHO):
        answer = agent.chat(text)
        assert [name for name in open_files() if name.startswith(str(home))]
        session.close()
        assert not [name for name in open_files() if name.startswith(str(home))]
    assert "Alice" in answer
    assert len(agent.chat_history) == 4


def open_files() -> list[str]:
    """The names of the files this process has open."""
    folder = Path("/proc/self/fd")
    return [os.readlink(link) for link in folder.iterdir() if os.path.lexists(link)] if folder.is_dir() else []


def test_many_threads_may_begin_at_once(home: Path) -> None:
    with Session("s", memory_config={"backend": "in_memory"}) as session, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: session.add_memory(f"Number {number}"), range(40)))
        list(threads.map(lambda number: session.increment_state("n", scope="temp"), range(4_000)))
        assert len(list(session.memory.items())) == 40
        assert session.get_state("n", scope="temp") == 4_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_closing_in_a_forked_child_leaves_the_parent_its_own(db: str | None, tmp_path: Path) -> None:
    code = """
        import os, sys
        from praisonaiagents import Session
        session = Session("s", db=sys.argv[1] or None)
        session.set_state("n", 1)
        session.add_memory("Likes tea")
        pid = os.fork()
        if pid == 0:
            session.increment_state("n")
            session.close()
            session.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert session.increment_state("n") == 3
        assert len(session.search_memory("tea")) == 1
        session.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), db or ""], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"session_id": ""}, InvalidId),
        ({"session_id": 5}, TypeError),
        ({"user_id": "praisonai:app"}, InvalidId),
        ({"session_id": "praisonai:state"}, InvalidId),
        ({"session_ttl": -1}, ValueError),
        ({"session_ttl": float("nan")}, ValueError),
        ({"session_ttl": "1"}, TypeError),
        ({"db": "ftp://x"}, UnknownEngine),
        ({"db": 5}, TypeError),
        ({"memory_config": {"backend": "fiel"}}, ConfigError),
        ({"memory_config": {"session_id": "s"}}, ConfigError),
        ({"memory_config": 5}, TypeError),
        ({"memory_config": {"backend": "redis"}}, ConfigError),
        ({"memory_config": {"recall_tokens": -1}}, ConfigError),
        ({"memory_config": {"config": [1]}}, TypeError),
        ({"timeout": "x"}, TypeError),
        ({"knowledge_config": {"unknown": 1}}, TypeError),
    ],
    ids=str,
)
def test_what_makes_no_session_is_refused_at_once(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Session(**settings)


def test_nothing_secret_is_shown() -> None:
    session = Session("s", db="postgresql://u:hunter2@h/d", memory_config={"config": {"path": "hunter2"}})
    assert "hunter2" not in f"{session!r} {session} {session.memory!r} {session.memory_config!r}"
