"""From a URL to an engine: every form of a URL, the environment, and engines of other packages, installed for real."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import packages
import pytest

from praisonaiagents.errors import ConfigError, UnknownEngine
from praisonaiagents.storage import registry
from praisonaiagents.storage.memory import MemoryEngine
from praisonaiagents.storage.registry import check_url, default_url, env_url, masked, open_engine, scheme_of, schemes

SECRET = "sk-very-secret"
PATIENCE_S = 60
PLACES = ("POSTGRES_URL", "DATABASE_URL", "REDIS_URL", "PGHOST", "PGHOSTADDR", "PGSERVICE", "PGPORT", "PGDATABASE")


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)


# URLs

SCHEMES = {
    "file:///var/sessions": "file",
    "file://relative": "file",
    "FILE:///var/sessions": "file",
    "/var/sessions": "file",
    "sessions": "file",
    "./a b/c:d/e@f": "file",
    "~/sessions": "file",
    "a.dbx": "file",
    "memory://": "memory",
    "memory://whatever": "memory",
    "sqlite://": "sqlite",
    "sqlite:///relative.db": "sqlite",
    "sqlite:////absolute.db": "sqlite",
    "sqlite+aiosqlite:///relative.db": "sqlite",
    "SQLite:///relative.db": "sqlite",
    ":memory:": "sqlite",
    "sessions.db": "sqlite",
    "/var/my sessions.sqlite": "sqlite",
    "a/b.sqlite3": "sqlite",
    "postgresql://": "postgresql",
    "postgresql://user:pass@localhost/mydb": "postgresql",
    "postgresql+psycopg2://user:pass@localhost/mydb": "postgresql",
    "postgres://localhost": "postgres",
    "Postgres+asyncpg://localhost": "postgres",
    " postgresql://localhost\n": "postgresql",
    "redis://localhost:6379": "redis",
    "REDIS://localhost": "redis",
    "rediss://localhost": "rediss",
    "unix:///run/redis.sock": "unix",
    "redis+cluster://localhost:7000": "redis+cluster",
    "rediss+cluster://localhost:7000": "rediss+cluster",
}
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "a number": (5, TypeError, "text such as .* not int"),
    "nothing": (None, TypeError, "not NoneType"),
    "bytes": (b"sqlite://", TypeError, "not bytes"),
    "a path object": (Path("sessions.db"), TypeError, "not .*Path"),
    "an empty text": ("", ConfigError, "cannot be empty"),
    "a blank text": (" \n", ConfigError, "cannot be empty"),
    "no scheme": (f"://user:{SECRET}@host", ConfigError, "no scheme"),
    "a scheme that is none": (f"user:{SECRET}@host://db", ConfigError, "no scheme"),
    "a forgotten scheme": (f"user:{SECRET}@host/db", ConfigError, "begins with its scheme"),
    "forgotten slashes": (f"postgresql:user:{SECRET}@host/db", ConfigError, "begins with 'postgresql://'"),
    "one slash": (f"redis:/:{SECRET}@host", ConfigError, "begins with 'redis://'"),
    "SQLite without slashes": ("sqlite:sessions.db", ConfigError, "begins with 'sqlite://'"),
    "a database nobody serves": (
        f"mysql://user:{SECRET}@host",
        UnknownEngine,
        "'mysql'; known: file, memory, postgres",
    ),
    "a web address": (f"https://user:{SECRET}@host", UnknownEngine, "'https'"),
    "another database with a driver": (f"mysql+pymysql://user:{SECRET}@host", UnknownEngine, r"'mysql\+pymysql'"),
    "a slip of the pen": (f"postgress://user:{SECRET}@host", UnknownEngine, "Did you mean 'postgres'"),
    "another slip": ("sqllite:///sessions.db", UnknownEngine, "Did you mean 'sqlite'"),
}


@pytest.mark.parametrize(("url", "scheme"), SCHEMES.items(), ids=SCHEMES)
def test_a_url_says_which_engine_serves_it(url: str, scheme: str) -> None:
    assert scheme_of(url) == check_url(url) == scheme


@pytest.mark.parametrize(("url", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_url_is_refused_and_no_password_is_quoted(url: Any, error: type[Exception], text: str) -> None:
    for refuse in (check_url, open_engine):
        with pytest.raises(error, match=text) as raised:
            refuse(url)
        assert isinstance(raised.value, ConfigError)
        assert SECRET not in str(raised.value)
    if error is UnknownEngine:
        assert (raised.value.scheme in url, raised.value.known) == (True, schemes())


def test_a_scheme_nobody_serves_makes_no_suggestion_where_none_is_near() -> None:
    with pytest.raises(UnknownEngine) as raised:
        check_url("mysql://localhost")
    assert "mean" not in str(raised.value)


def test_every_engine_of_this_package_is_found_by_its_scheme() -> None:
    assert set(registry._OPENERS) <= set(schemes())
    assert list(schemes()) == sorted(schemes())


def test_opening_makes_a_new_engine_with_its_options(tmp_path: Path) -> None:
    one, two = open_engine("memory://"), open_engine("MEMORY://", max_message_bytes=10)
    assert isinstance(one, MemoryEngine)
    assert one is not two
    with pytest.raises(TypeError):
        open_engine("memory://", nonsense=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://user:{SECRET}@host:5432/db", "postgresql://user:***@host:5432/db"),
        (f"postgresql://user:{SECRET}/of#it@host/db", "postgresql://user:***@host/db"),
        (f"postgresql://user:{SECRET}/with?all@of#it@host/db", "postgresql://***"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("postgresql://localhost/mydb", "postgresql://localhost/mydb"),
        (
            f"postgresql://host/db?password={SECRET}&sslmode=require",
            "postgresql://host/db?password=***&sslmode=require",
        ),
        (
            f"postgresql://host/db?sslmode=require&sslPassword={SECRET}",
            "postgresql://host/db?sslmode=require&sslPassword=***",
        ),
        (f"redis://:{SECRET}@host:6379/0", "redis://:***@host:6379/0"),
        (f"redis+cluster://u:{SECRET}@a:1", "redis+cluster://u:***@a:1"),
        (f"unix://:{SECRET}@/run/redis.sock?db=1", "unix://:***@/run/redis.sock?db=1"),
        (f"https://u:{SECRET}@host?authToken={SECRET}", "https://u:***@host?authToken=***"),
        (f"redis://host/0?password={SECRET}@{SECRET}", "redis://***"),
        ("redis://localhost:6379", "redis://localhost:6379"),
        ("sqlite:////home/a:b@c/x.db", "sqlite:////home/a:b@c/x.db"),
        ("file:///home/a:b@c", "file:///home/a:b@c"),
        ("/home/a:b@c", "/home/a:b@c"),
        (f"user:{SECRET}@host/db", "***"),
        (f"postgresql:user:{SECRET}@host/db", "***"),
    ],
)
def test_a_url_is_shown_without_passwords(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert SECRET not in shown


# The environment


@pytest.mark.parametrize(
    ("backend", "environment", "url"),
    [
        ("file", {}, "{home}/sessions"),
        ("sqlite", {}, "{home}/sessions.db"),
        ("in_memory", {}, "memory://"),
        ("postgres", {}, "postgresql://localhost"),
        ("redis", {}, "redis://localhost:6379"),
        ("postgres", {"PGPORT": "5433", "PGDATABASE": "mydb"}, "postgresql://localhost"),
        ("postgres", {"PGHOST": "/run/postgresql"}, "postgresql://"),
        ("postgres", {"PGHOSTADDR": "127.0.0.1"}, "postgresql://"),
        ("postgres", {"PGSERVICE": "mine"}, "postgresql://"),
        ("postgres", {"DATABASE_URL": "postgres://d", "PGHOST": "h"}, "postgres://d"),
        ("postgres", {"POSTGRES_URL": "postgresql://p", "DATABASE_URL": "postgres://d"}, "postgresql://p"),
        ("postgres", {"PRAISONAI_DB_URL": "postgresql://o", "POSTGRES_URL": "postgresql://p"}, "postgresql://o"),
        ("postgres", {"PRAISONAI_DB_URL": "redis://o", "POSTGRES_URL": "postgresql://p"}, "postgresql://p"),
        ("postgres", {"DATABASE_URL": "postgresql+asyncpg://d"}, "postgresql+asyncpg://d"),
        ("postgres", {"DATABASE_URL": "mysql://d"}, "postgresql://localhost"),
        ("postgres", {"DATABASE_URL": ""}, "postgresql://localhost"),
        ("postgres", {"POSTGRES_URL": " postgresql://p\n"}, "postgresql://p"),
        ("redis", {"REDIS_URL": "rediss://r"}, "rediss://r"),
        ("redis", {"PRAISONAI_DB_URL": "redis+cluster://o", "REDIS_URL": "redis://r"}, "redis+cluster://o"),
        ("redis", {"PRAISONAI_DB_URL": "sessions.db", "REDIS_URL": "redis://r"}, "redis://r"),
        ("sqlite", {"PRAISONAI_DB_URL": "mine.db"}, "mine.db"),
        ("sqlite", {"PRAISONAI_DB_URL": "postgresql://o"}, "{home}/sessions.db"),
        ("file", {"PRAISONAI_DB_URL": "file:///elsewhere"}, "file:///elsewhere"),
        ("file", {"PRAISONAI_DB_URL": "postgresql://o"}, "{home}/sessions"),
    ],
)
def test_a_backend_is_looked_up_in_the_environment(
    backend: str, environment: dict[str, str], url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_url(backend) == url.format(home=home)
    check_url(default_url(backend))


def test_a_backend_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="'chroma'; there are: file, in_memory, sqlite, postgres, redis"):
        default_url("chroma")


def test_a_variable_that_makes_no_sense_is_named_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql:user:{SECRET}@host")
    with pytest.raises(ConfigError, match=r"^DATABASE_URL: .*'postgresql://'") as raised:
        default_url("postgres")
    assert SECRET not in str(raised.value)
    assert raised.value.__suppress_context__
    assert default_url("redis") == "redis://localhost:6379"


def test_a_variable_holds_a_url_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env_url("PRAISONAI_DB_URL") is None
    monkeypatch.setenv("PRAISONAI_DB_URL", "mysql://host")
    assert env_url("PRAISONAI_DB_URL") == "mysql://host"
    assert env_url("PRAISONAI_DB_URL", ("redis",)) is None


# Engines of other packages. Each is a package on the disk with its metadata, found by a new Python process.

ENGINE = """
from praisonaiagents.storage.memory import MemoryEngine

class Shouting(MemoryEngine):
    def __init__(self, url, **options):
        super().__init__(**options)
        self.url = url

open_url = Shouting
no_function = "shouting"

def open_half(url, **options):
    return object()

def needs_a_driver(url, **options):
    from praisonaiagents.errors import MissingDependency
    raise MissingDependency("shouting", "shout", package="shouting")
"""


def install(folder: Path, package: str = "shouting", version: str = "1.2", **entry_points: str) -> None:
    packages.install(folder, registry.ENTRY_POINTS, ENGINE, package, version, **entry_points)


elsewhere = partial(packages.elsewhere, module="praisonaiagents.storage.registry")


def refused(folder: Path, url: str) -> str:
    return elsewhere(folder, code=f"try:\n    open_engine({url!r})\nexcept ConfigError as exc:\n    print(exc)")


def test_a_package_adds_an_engine(tmp_path: Path) -> None:
    install(tmp_path, shout="shouting:open_url", quiet="shouting:open_url")
    url = f"SHOUT://user:{SECRET}@host/db?x=1"
    assert elsewhere(tmp_path, code=f"print(open_engine({url!r}, max_message_bytes=9).url)") == url.replace(
        "SHOUT", "shout"
    )
    assert elsewhere(tmp_path, code="print(*schemes())") == " ".join(sorted([*schemes(), "quiet", "shout"]))
    assert elsewhere(tmp_path, code="import sys; check_url('shout://'); print('shouting' in sys.modules)") == "False"
    assert "known: file, memory, postgres, postgresql, quiet, redis" in refused(tmp_path, "mysql://")
    assert "Did you mean 'shout'" in refused(tmp_path, "shoutt://")


def test_an_agent_is_given_the_url_of_another_packages_engine(tmp_path: Path) -> None:
    install(tmp_path, shout="shouting:open_url")
    code = """
from praisonaiagents import Agent, MemoryConfig
MemoryConfig(db="shout://host")
with Agent("A", llm="offline", memory="shout://host") as agent:
    agent.chat("My name is Alice")
    print(agent.chat("What's my name?"))
"""
    assert "Alice" in elsewhere(tmp_path, code=code)


def test_a_package_cannot_take_the_place_of_an_engine_of_ours(tmp_path: Path) -> None:
    install(tmp_path, memory="shouting:open_url")
    assert elsewhere(tmp_path, code="print(type(open_engine('memory://')).__name__)") == "MemoryEngine"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("shouting:nowhere", "cannot be loaded: AttributeError: .*nowhere"),
        ("no_such_module:open_url", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("shouting:no_function", "is no function that opens one"),
        ("shouting:open_half", "made no engine: it lacks concurrency, open_session, get"),
    ],
)
def test_a_package_whose_engine_does_not_work_is_named(tmp_path: Path, value: str, text: str) -> None:
    install(tmp_path, shout=value)
    said = refused(tmp_path, f"shout://user:{SECRET}@host")
    assert said.startswith(f"the engine 'shout' of shouting 1.2 ({value}) ")
    assert re.search(text, said)
    assert SECRET not in said


def test_an_engine_says_itself_which_package_it_needs(tmp_path: Path) -> None:
    install(tmp_path, shout="shouting:needs_a_driver")
    code = "try:\n    open_engine('shout://')\nexcept MissingDependency as exc:\n    print(exc)"
    assert elsewhere(tmp_path, code=code) == "shouting needs an optional package: pip install 'shouting[shout]'"


def test_two_packages_that_serve_one_scheme_are_both_named(tmp_path: Path) -> None:
    install(tmp_path, "shouting", shout="shouting:open_url")
    install(tmp_path, "shouting-too", "3.0", Shout="shouting_too:open_url")
    said = refused(tmp_path, "shout://")
    assert "shouting 1.2" in said
    assert "shouting-too 3.0" in said
    assert said.endswith("both serve 'shout': uninstall all but one")
