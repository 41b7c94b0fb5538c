"""The command line over databases: real processes, real servers, wrong passwords and servers that are not there."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import forked
import psycopg
import pytest
from servers import postgres, redis

from praisonaiagents.cli.doctor import USER
from praisonaiagents.session.places import open_store

PATIENCE_S = 60
SECRET = "sk-very:secret@/?#"
QUOTED = quote(SECRET, safe="")
COMMANDS = [
    ["session", "list"],
    ["session", "show", "talk"],
    ["session", "start", "talk"],
    ["session", "resume", "talk"],
    ["session", "search", "Alice"],
    ["session", "delete", "talk", "--yes"],
    ["run", "Hello!", "--session", "talk"],
]


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The one JSON document that was printed; nothing else was."""
        assert self.err == ""
        [line] = self.out.splitlines()
        return json.loads(line)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRAISONAI_MODEL", "offline")
    for name in ("POSTGRES_URL", "DATABASE_URL", "REDIS_URL", "PGHOST", "PGHOSTADDR", "PGSERVICE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that nobody has used."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/my sessions.db"
    else:
        server = postgres if request.param == "postgres" else redis
        with server.empty_place() as url:
            yield url


@pytest.fixture
def guarded() -> Iterator[redis.RedisServer]:
    """A Redis server that asks for a password, `SECRET`."""
    with redis.RedisServer(("requirepass", SECRET)) as server:
        yield server


@pytest.fixture
def nowhere() -> Iterator[int]:
    """A port where nobody listens, and nobody else will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def run(*arguments: str, stdin: str = "", **environment: str) -> Done:
    """Run `praisonai` in a process of its own."""
    command = ["-m", "praisonaiagents.cli", *arguments]
    done = forked.run(command, input=stdin, env=os.environ | environment, timeout=PATIENCE_S)
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def talks(url: str) -> set[tuple[str, str]]:
    with open_store(url) as store:
        return {(row["user_id"], row["session_id"]) for row in store.list_sessions(None, all_users=True)}


# --- the commands ---


def test_a_conversation_in_a_database_from_beginning_to_end(place: str, home: Path) -> None:
    db = ["--db", place]
    assert "Alice" in run("session", "start", "talk", *db, stdin="My name is Alice\n").out
    assert "Alice" in run("session", *db, "resume", "talk", "What's my name?").out
    assert "Alice" in run("run", "What's my name?", "--session", "talk", *db).out
    assert run("session", "list", PRAISONAI_DB_URL=place).out.split("\t")[0] == "talk"
    shown = run("session", "show", "talk", *db, "--json").json()
    assert [turn["role"] for turn in shown["chat_history"]] == ["user", "assistant"] * 3
    found = run("session", "search", "ALICE", *db, "--json").json()
    assert {hit["message_index"] for hit in found["hits"]} == {0, 1, 3, 5}
    assert found["complete"] is True
    assert run("session", "delete", "talk", "--yes", *db) == Done(0, "Deleted session: talk\n", "")
    assert run("session", "list", *db, "--json").json() == {"sessions": []}
    assert not home.exists()


def test_what_is_proposed_leads_back_to_the_database(place: str) -> None:
    hint = run("session", "start", "talk", "--db", place).err.partition("Go on with it: praisonai ")[2]
    program = f"{sys.executable} -m praisonaiagents.cli --json {hint}"
    done = subprocess.run(program, shell=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S)
    assert json.loads(done.stdout)["session"]["session_id"] == "talk"


def test_a_password_is_not_proposed_and_the_environment_carries_it(guarded: redis.RedisServer) -> None:
    url = f"redis://:{QUOTED}@127.0.0.1:{guarded.port}"
    started = run("session", "start", "talk", "--db", url)
    assert (started.status, started.out) == (0, "")
    for secret in (SECRET, QUOTED, "--db"):
        assert secret not in started.err
    hint, _, note = started.err.partition("Go on with it: praisonai ")[2].partition(" (")
    assert note.startswith("with the database's URL in PRAISONAI_DB_URL")
    resumed = run(*hint.split(), "--json", PRAISONAI_DB_URL=url).json()
    assert (resumed["restored"], resumed["session"]["session_id"]) == (True, "talk")


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("scheme", ["postgresql", "redis"])
def test_a_server_that_is_not_there_is_an_error_in_one_line(
    scheme: str, arguments: list[str], nowhere: int, home: Path
) -> None:
    url = f"{scheme}://user:{QUOTED}@127.0.0.1:{nowhere}"
    done = run(*arguments, "--db", url)
    assert (done.status, done.out) == (1, "")
    [line] = done.err.splitlines()
    assert line.startswith("Error: no connection to ")
    assert f"127.0.0.1:{nowhere}" in line
    assert not home.exists()
    done = run(*arguments, "--json", PRAISONAI_DB_URL=url)
    error = done.json()["error"]
    assert (done.status, error["type"]) == (1, "EngineUnreachable")
    for text in (line, error["message"]):
        assert SECRET not in text
        assert QUOTED not in text


def test_a_wrong_password_is_an_error_that_does_not_repeat_it(guarded: redis.RedisServer) -> None:
    shared = psycopg.conninfo.conninfo_to_dict(postgres.shared_url())
    for url in (
        f"redis://:wrong-{QUOTED}@127.0.0.1:{guarded.port}",
        f"postgresql://{postgres.GUARDED[0]}:wrong-{QUOTED}@{shared['host']}:{shared['port']}/{shared['dbname']}",
    ):
        done = run("session", "list", "--db", url, "--json")
        assert (done.status, done.json()["error"]["type"]) == (1, "EngineUnreachable")
        assert "sk-very" not in done.out


# --- the Tab key ---


def completed(*words: str) -> Done:
    environment = {"_PRAISONAI_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["praisonai", *words])}
    done = run(**environment, COMP_CWORD=str(len(words)))
    return Done(done.status, done.out.replace("plain,", "").strip(), done.err)


@pytest.mark.parametrize("place", ["postgres", "redis"], indirect=True)
def test_tab_proposes_the_sessions_of_the_database(place: str) -> None:
    with open_store(place) as store:
        store.add_user_message("my-talk", "Hello!")
    assert completed("session", "show", "--db", place, "").out == "my-talk"
    assert completed("session", "--db", place, "resume", "my").out == "my-talk"
    assert completed("run", "--db", place, "-s", "your").out == ""


@pytest.mark.parametrize("scheme", ["postgresql", "redis"])
def test_tab_waits_for_no_server(scheme: str, nowhere: int, silent: int) -> None:
    for port in (nowhere, silent):
        assert completed("session", "show", "--db", f"{scheme}://127.0.0.1:{port}", "") == Done(0, "", "")


# --- the doctor ---


def look(*arguments: str, **environment: str) -> dict[str, dict[str, Any]]:
    """What the doctor says of each place but the default one."""
    done = run("doctor", "--json", *arguments, **environment)
    told = done.json()
    assert SECRET not in done.out
    assert QUOTED not in done.out
    assert told["ok"] is (done.status == 0) is all(found["ok"] for found in told["places"])
    return {found["name"].partition(" ")[0]: found for found in told["places"] if found["name"] != "default place"}


def test_the_doctor_makes_nothing_where_nothing_is(place: str, tmp_path: Path) -> None:
    found = look("--db", place)["--db"]
    assert (found["ok"], found["note"]) == (True, "nothing is there yet; the first session makes it")
    if place.startswith("sqlite"):
        assert list(tmp_path.iterdir()) == []
    elif place.startswith("redis"):
        assert keys(place) == set()
    else:
        assert schemas(place) == []


def test_the_doctor_describes_a_database_and_leaves_it_as_it_was(place: str) -> None:
    with open_store(place) as store:
        store.add_user_message("talk", "Hello!", user_id="bob")
    before = keys(place) if place.startswith("redis") else set()
    found = look("--db", place)["--db"]
    assert (found["ok"], found["note"], found["problem"]) == (True, None, None)
    assert found["append_ms"] > 0
    assert found["facts"].keys() >= {"engine", "schema", "durability"}
    assert found["place"] != ""
    assert talks(place) == {("bob", "talk")}
    if place.startswith("redis"):
        assert keys(place) == before
    with open_store(place) as store:
        assert store.list_sessions(user_id=USER) == []


def test_the_doctor_looks_at_what_the_environment_names(place: str, home: Path) -> None:
    if place.startswith("sqlite"):
        with open_store(f"{home}/sessions.db") as store:
            store.add_user_message("talk", "Hello!")
        assert look()["SQLite"]["place"] == f"{home}/sessions.db"
    else:
        name = "REDIS_URL" if place.startswith("redis") else "DATABASE_URL"
        assert look(**{name: place})[name]["ok"] is True


def test_the_doctor_says_what_is_wrong_with_a_server(guarded: redis.RedisServer, nowhere: int) -> None:
    shared = psycopg.conninfo.conninfo_to_dict(postgres.shared_url())
    server = f"{shared['host']}:{shared['port']}"
    user, password = postgres.GUARDED
    for url, advice in {
        f"redis://:wrong-{QUOTED}@127.0.0.1:{guarded.port}": "correct the login in the URL",
        f"redis://127.0.0.1:{guarded.port}": "correct the login in the URL",
        f"postgresql://{user}:wrong-{QUOTED}@{server}/{shared['dbname']}": "correct the login in the URL",
        f"postgresql://nobody-{user}@{server}/{shared['dbname']}": "correct the login in the URL",
        f"postgresql://{shared['user']}@{server}/no_such_database": "make the database",
        f"postgresql://u:{QUOTED}@127.0.0.1:{nowhere}/db": "is the server running",
        f"redis://u:{QUOTED}@127.0.0.1:{nowhere}": "is the server running",
    }.items():
        found = look("--db", url)["--db"]
        assert (found["ok"], found["append_ms"]) == (False, None)
        assert found["advice"].startswith(advice), found
        assert found["problem"]
    found = look("--db", f"postgresql://{user}:{quote(password, safe='')}@{server}/{shared['dbname']}?schema=mine")[
        "--db"
    ]
    assert "it takes: GRANT CREATE ON DATABASE" in found["problem"]


def test_the_doctor_knows_a_database_of_a_newer_version(place: str) -> None:
    with open_store(place) as store:
        store.add_user_message("talk", "Hello!")
    if place.startswith("sqlite"):
        with closing(sqlite3.connect(place.removeprefix("sqlite:///"))) as database:
            database.execute("PRAGMA user_version = 999")
    elif place.startswith("redis"):
        ask(place, "SET", f"{place.rpartition('prefix=')[2]}:schema", "999")
    else:
        url, _, schema = place.rpartition("?schema=")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"INSERT INTO {schema}.version VALUES (999, '0999_of_tomorrow.sql')")
    found = look("--db", place)["--db"]
    assert (found["ok"], found["advice"]) == (False, "pip install --upgrade praisonaiagents")


def test_the_doctor_warns_of_a_redis_that_throws_sessions_away(guarded: redis.RedisServer) -> None:
    url = f"redis://:{QUOTED}@127.0.0.1:{guarded.port}"
    with open_store(url) as store:
        store.add_user_message("talk", "Hello!")
    assert look("--db", url)["--db"]["ok"] is True
    ask(url, "CONFIG", "SET", "maxmemory", "100mb")
    ask(url, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    found = look("--db", url)["--db"]
    assert found["ok"] is False
    assert "noeviction" in found["problem"]
    assert found["append_ms"] > 0


@pytest.mark.parametrize(
    ("scheme", "driver", "extra"), [("postgresql", "psycopg", "postgres"), ("redis", "redis", "redis")]
)
def test_the_doctor_says_how_to_install_a_driver(scheme: str, driver: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{driver!r}] = None; sys.argv = ['praisonai', 'doctor', '--json', '--db', '{scheme}://x'];"
        "from praisonaiagents.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (1, "")
    [_, found] = json.loads(done.stdout)["places"]
    assert found["advice"] == f"pip install 'praisonaiagents[{extra}]'"


# --- what lies in a server ---


def ask(url: str, *command: str) -> Any:
    import redis as driver

    with closing(driver.Redis.from_url(url.partition("?")[0])) as client:
        return client.execute_command(*command)


def keys(url: str) -> set[bytes]:
    """The keys of the engine at this URL."""
    return set(ask(url, "KEYS", f"{url.rpartition('prefix=')[2]}:*"))


def schemas(url: str) -> list[Any]:
    with psycopg.connect(url.partition("?")[0]) as connection:
        found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (url.rpartition("=")[2],))
        return found.fetchall()
