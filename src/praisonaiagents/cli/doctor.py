"""`praisonai doctor`: is every place where sessions are kept all right, and if not, what is to be done?

It looks at the default place, at every database that the environment names, at the SQLite file if there is one, and at those
of `--db`. Each is opened as an agent would open it and written to: to a session of its own, under a user of its own, which is
deleted again. What a reader would get wrong: where nothing is yet, nothing is made. A folder, a file or tables that the first
session will make are only looked for, and whether they could be made.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple

import click
import msgspec

from praisonaiagents import __version__
from praisonaiagents.cli.output import (
    SignOfLife,
    bold,
    is_dumb,
    is_terminal,
    json_option,
    print_details,
    print_json,
    wants_json,
)
from praisonaiagents.cli.place import path_of, within
from praisonaiagents.errors import (
    ConfigError,
    EngineUnreachable,
    MissingDependency,
    NewerFormat,
    PraisonError,
    StorageFull,
)
from praisonaiagents.model.ids import file_stem
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.paths import get_sessions_dir
from praisonaiagents.storage.engine import Engine
from praisonaiagents.storage.jsonfile import JsonFileEngine
from praisonaiagents.storage.registry import configured, default_url, masked, open_engine

USER = "praisonai-doctor"
_PATIENCE_S = 20.0
_APPENDS = 5
_NAMES = {"sqlite": "SQLite", "postgres": "PostgreSQL", "redis": "Redis"}
_HOW = {
    "PostgreSQL": "set POSTGRES_URL, or give --db",
    "Redis": "set REDIS_URL, or give --db",
    "SQLite": "backend='sqlite' makes a file, or give --db",
}
_EXTRAS = {
    "postgres": "psycopg",
    "redis": "redis",
    "anthropic": "anthropic",
    "google": "google-genai",
    "groq": "groq",
    "mistral": "mistralai",
}
_NOT_YET = "nothing is there yet; the first session makes it"
_CONNECT = "is the server running, and can it be reached from here under this address?"
_WRITABLE = "give this user the right to write there, or choose another place"
_CREATE = "make the database (createdb), or correct its name in the URL"
_LOGIN_WORDS = ("password", "authenticat", "noauth", "wrongpass", "role ", "pg_hba", "noperm")


class Place(NamedTuple):
    """Something to look at: what says that sessions are there, and its URL."""

    name: str
    url: str


class Finding(msgspec.Struct):
    """What became of a look at a place. `facts` are the engine's own words; `append_ms` is a median, in milliseconds."""

    name: str
    place: str
    ok: bool
    facts: dict[str, str] = {}
    append_ms: float | None = None
    note: str | None = None
    problem: str | None = None
    advice: str | None = None


@click.command()
@click.option("--db", "urls", metavar="URL", multiple=True, help="A place to look at, too. May be given several times.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, urls: tuple[str, ...]) -> None:
    """Look at every place where sessions are kept, and say what is wrong with it.

    Exits with 1 if something is.
    """
    about, databases = _about(), _databases()
    if not wants_json():
        _print_about(about)
    findings: list[Finding] = []
    for place in _places(databases, urls):
        findings.append(_looked_at(place))
        if not wants_json():
            _print(findings[-1])
    wrong = sum(not finding.ok for finding in findings)
    absent = [_NAMES[backend] for backend, place in databases.items() if place is None]
    if wants_json():
        print_json({"ok": not wrong, "about": about, "places": findings, "not_configured": absent})
    else:
        _print_end(absent, wrong, len(findings))
    ctx.exit(1 if wrong else 0)


# --- what there is to look at ---


def _places(databases: dict[str, Place | None], urls: tuple[str, ...]) -> Iterator[Place]:
    """Every place once, the default one first."""
    seen: set[str] = set()
    for place in (_default_place(), *databases.values(), *(Place(f"--db {masked(url)}", url) for url in urls)):
        if place and place.url not in seen:
            seen.add(place.url)
            yield place


def _default_place() -> Place:
    url = os.environ.get("PRAISONAI_DB_URL", "").strip()
    return Place("PRAISONAI_DB_URL", url) if url else Place("default place", get_sessions_dir())


def _databases() -> dict[str, Place | None]:
    """What agents with each `backend=` would use, where the environment says, or where there is such a file."""
    found: dict[str, Place | None] = {}
    for backend in _NAMES:
        try:
            variable = configured(backend)
            found[backend] = Place(*variable) if variable else None
        except ConfigError as exc:  # its text begins with the variable's name
            name = str(exc).partition(":")[0]
            found[backend] = Place(name, os.environ[name].strip())
    file = default_url("sqlite")
    if found["sqlite"] is None and os.path.exists(file):
        found["sqlite"] = Place("SQLite file", file)
    return found


# --- looking ---


def _looked_at(place: Place) -> Finding:
    """What was found at a place. A thread looks, so that a server that never answers ends up as a finding too."""
    moving = is_terminal(sys.stdout) and not is_dumb() and not wants_json()
    with SignOfLife(f"looking at {place.name}") if moving else nullcontext():
        found = within(_PATIENCE_S, lambda: _look(place))
    return found or _wrong(place, f"no answer within {_PATIENCE_S:.0f} s", _CONNECT)


def _look(place: Place) -> Finding:
    try:
        engine = open_engine(place.url)
        try:
            return _not_yet(place, engine) or _tried(place, engine)
        finally:
            engine.close()
    except PraisonError as exc:
        return _wrong(place, str(exc), _advice(place, exc))
    except Exception as exc:  # its text is not ours to show: it may hold a password
        return _wrong(place, f"the engine failed with {type(exc).__name__}", "report it to whoever makes this engine")


def _tried(place: Place, engine: Engine) -> Finding:
    facts = engine.describe()
    where, warning = facts.pop("place", masked(place.url)), facts.pop("warning", None)
    return Finding(place.name, where, ok=not warning, facts=facts, append_ms=_append_ms(engine), problem=warning)


def _append_ms(engine: Engine) -> float:
    """How long an append takes, in milliseconds: the median of a few."""
    key = Key(USER, f"doctor-{os.urandom(4).hex()}")
    taken: list[float] = []
    with _swept(engine):
        engine.open_session(Record(*key))
        try:
            for _ in range(_APPENDS):
                begun = time.perf_counter()
                engine.append(key, [Message("user", "Is anybody there?")])
                taken.append(time.perf_counter() - begun)
        finally:
            engine.delete(key)
    return round(sorted(taken)[_APPENDS // 2] * 1000, 3)


@contextmanager
def _swept(engine: Engine) -> Iterator[None]:
    """Take away the folders that a session of the doctor's own leaves empty."""
    if not isinstance(engine, JsonFileEngine):
        yield
        return
    users = os.path.join(engine.folder, "users")
    folders = [os.path.join(users, file_stem(USER)), *([] if os.path.exists(users) else [users])]
    try:
        yield
    finally:
        for folder in folders:
            with suppress(OSError):
                os.rmdir(folder)


def _not_yet(place: Place, engine: Engine) -> Finding | None:
    """What there is to say where the first session has still to make a folder, a file or tables; None where they are there."""
    path = path_of(engine)
    if path is not None:
        return None if os.path.lexists(path) else _can_be_made(place, path)
    is_there: Callable[[], bool] | None = getattr(engine, "is_there", None)
    return None if is_there is None or is_there() else Finding(place.name, masked(place.url), ok=True, note=_NOT_YET)


def _can_be_made(place: Place, path: str) -> Finding:
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK):
        return Finding(place.name, path, ok=True, note=_NOT_YET)
    return _wrong(Place(place.name, path), f"it cannot be made: {above} is no folder to write in", _WRITABLE)


# --- what to do ---


def _wrong(place: Place, problem: str, advice: str | None) -> Finding:
    return Finding(place.name, masked(place.url), ok=False, problem=problem, advice=advice)


def _advice(place: Place, error: PraisonError) -> str | None:
    """What to do about an error, in plain words."""
    if isinstance(error, MissingDependency):
        return f"pip install 'praisonaiagents[{error.extra}]'"
    if isinstance(error, NewerFormat):
        return "pip install --upgrade praisonaiagents"
    if isinstance(error, ConfigError):
        return f"correct the URL in {place.name.partition(' ')[0]}"
    if isinstance(error, EngineUnreachable):
        if any(word in str(error).lower() for word in _LOGIN_WORDS):
            return "correct the login in the URL"
        return _CREATE if "does not exist" in str(error) else _CONNECT
    if isinstance(error, StorageFull):
        return "make space there"
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _WRITABLE
    return None  # the error says it itself


# --- showing ---


def _about() -> dict[str, Any]:
    """The versions of everything that has a part in this; of an extra, its package, or None where it is not installed."""
    import platform
    import sqlite3

    return {
        "praisonaiagents": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "fts5": _has_fts5(),
        "extras": {extra: _version(package) for extra, package in _EXTRAS.items()},
    }


def _has_fts5() -> bool:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
        except sqlite3.OperationalError:
            return False
        return True


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


def _print_about(about: dict[str, Any]) -> None:
    extras: dict[str, str | None] = about["extras"]
    missing = [extra for extra, package in extras.items() if package is None]
    print_details(
        [
            ("praisonaiagents", about["praisonaiagents"]),
            ("Python", about["python"]),
            ("SQLite", f"{about['sqlite']}, {'with' if about['fts5'] else 'without'} FTS5"),
            ("Extras", ", ".join(f"{extra} ({package})" for extra, package in extras.items() if package) or "none"),
            ("Not installed", ", ".join(missing) or "none"),
        ]
    )


def _print(finding: Finding) -> None:
    click.echo(f"\n{bold(finding.name)}: {'all well' if finding.ok else bold('something is wrong')}")
    facts = {"place": finding.place, **finding.facts}
    shown = [(name.capitalize(), text) for name, text in facts.items()]
    if finding.append_ms is not None:
        shown.append(("Append", f"{finding.append_ms:,.3g} ms, the median of {_APPENDS}"))
    extra = (("Note", finding.note), ("Problem", finding.problem), ("To do", finding.advice))
    print_details([(f"  {name}", text) for name, text in (*shown, *extra) if text])


def _print_end(absent: list[str], wrong: int, count: int) -> None:
    click.echo()
    for name in absent:
        click.echo(f"{name}: not configured ({_HOW[name]})")
    click.echo(f"{wrong} of {count} places: something is wrong." if wrong else "All well.")
