"""From the name of a backend to its memory: names, settings, and adapters of other packages, installed for real."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import packages
import pytest

from praisonaiagents.errors import ConfigError, ConfigTypeError, EngineUnreachable, StorageError
from praisonaiagents.memory import registry
from praisonaiagents.memory.chroma import ChromaMemory
from praisonaiagents.memory.mongodb import MongoMemory
from praisonaiagents.memory.process import ProcessMemory
from praisonaiagents.memory.registry import BACKENDS, backends, check_backend, open_adapter
from praisonaiagents.memory.sqlite import SqliteMemory

SECRET = "sk-very-secret"
PATIENCE_S = 60


@pytest.mark.parametrize(
    ("name", "own", "kind"),
    [
        ("file", "file", SqliteMemory),
        (" SQLite ", "sqlite", SqliteMemory),
        ("chroma", "chroma", ChromaMemory),
        ("chromadb", "chroma", ChromaMemory),
        ("rag", "chroma", ChromaMemory),
        ("mongodb", "mongodb", MongoMemory),
        ("Mongo", "mongodb", MongoMemory),
        ("in_memory", "in_memory", ProcessMemory),
        ("memory", "in_memory", ProcessMemory),
    ],
)
def test_a_backend_is_found_by_each_of_its_names_and_opens_nothing(
    name: str, own: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRAISONAI_HOME", str(tmp_path / "home"))
    assert check_backend(name) == own
    assert type(open_adapter(name)) is kind
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("backend", "config", "error", "text"),
    [
        ("chromaa", {}, ConfigError, "'chromaa' .did you mean 'chroma'.*there are: file, sqlite, chroma, mongodb"),
        (f"mongodb://u:{SECRET}@h", {}, ConfigError, "may hold a password"),
        (7, {}, ConfigTypeError, "not int"),
        ("chroma", {"pth": SECRET}, ConfigTypeError, "unknown settings of the chroma memory: pth .did you mean 'path'"),
        ("in_memory", {"path": SECRET}, ConfigTypeError, "path; it has none"),
        ("mongodb", {"url": 5}, ConfigTypeError, "url of the mongodb memory is text, not int"),
        (
            "chroma",
            {"host": "h", "port": True},
            ConfigTypeError,
            "port of the chroma memory is a whole number, not bool",
        ),
        ("sqlite", {"path": " "}, ConfigError, "path of the sqlite memory cannot be empty"),
        ("rag", {"rag_db_path": "/a", "path": "/b"}, ConfigError, "path of the chroma memory was given twice"),
        ("chroma", {"path": "/a", "host": "h"}, ConfigError, "a path or a host, one of them"),
        ("mongodb", {"connection_string": f"http://{SECRET}"}, ConfigError, "begins with 'mongodb://'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(backend: Any, config: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as raised:
        open_adapter(backend, config)
    assert SECRET not in str(raised.value)


def test_settings_have_the_names_of_the_reference_too(tmp_path: Path) -> None:
    assert str(tmp_path) in repr(open_adapter("rag", {"rag_db_path": tmp_path, "host": None}))
    url = f"mongodb://u:{SECRET}@elsewhere"
    assert "mongodb://u:***@elsewhere" in repr(open_adapter("mongo", {"connection_string": url}))


def test_the_server_is_that_of_the_environment_or_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://elsewhere")
    assert "'mongodb://elsewhere'" in repr(open_adapter("mongodb"))
    assert "'mongodb://mine'" in repr(open_adapter("mongodb", {"url": "mongodb://mine"}))
    monkeypatch.setenv("MONGODB_URL", "")
    assert "'mongodb://localhost:27017'" in repr(open_adapter("mongodb"))


# Places that cannot be reached


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (f"mongodb://u:{SECRET}@127.0.0.1:1/?serverSelectionTimeoutMS=100", EngineUnreachable),
        (f"mongodb://u:{SECRET}@host:port", ConfigError),
        (f"mongodb://u:{SECRET}@x@127.0.0.1:1", ConfigError),
    ],
)
def test_a_mongodb_that_cannot_be_reached_shows_no_password(url: str, error: type[Exception]) -> None:
    memory = MongoMemory(url)
    with pytest.raises(error) as raised:
        memory.get("alice", "1")
    memory.close()
    assert SECRET not in f"{raised.value!s}{raised.value!r}{raised.value.__cause__!r}{memory!r}"


def test_a_chroma_that_cannot_be_reached_shows_no_token(tmp_path: Path) -> None:
    memory = ChromaMemory(host="127.0.0.1", port=1, headers={"x-chroma-token": SECRET})
    with pytest.raises(EngineUnreachable) as raised:
        memory.get("alice", "1")
    memory.close()
    assert SECRET not in f"{raised.value!s}{raised.value!r}{memory!r}"
    (tmp_path / "file").touch()
    in_the_way = ChromaMemory(tmp_path / "file")
    with pytest.raises(StorageError, match="FileExistsError"):
        in_the_way.get("alice", "1")
    in_the_way.close()


# Adapters of other packages. Each is a package on the disk with its metadata, found by a new Python process.

ADAPTER = """
from praisonaiagents.memory.process import ProcessMemory

class Notes(ProcessMemory):
    def __init__(self, **settings):
        super().__init__()
        self.settings = settings

no_function = "notes"

def open_half(**settings):
    return object()
"""


def install(folder: Path, package: str = "notes", version: str = "1.2", **entry_points: str) -> None:
    packages.install(folder, registry.ENTRY_POINTS, ADAPTER, package, version, **entry_points)


elsewhere = partial(packages.elsewhere, module="praisonaiagents.memory.registry")


def refused(folder: Path, backend: str) -> str:
    code = f"try:\n    open_adapter({backend!r}, {{'token': {SECRET!r}}})\nexcept ConfigError as exc:\n    print(exc)"
    return elsewhere(folder, code=code)


def test_a_package_adds_a_memory(tmp_path: Path) -> None:
    install(tmp_path, notes="notes:Notes")
    code = "print(open_adapter(' NOTES', {'path': 'x', 'other': None}).settings)"
    assert elsewhere(tmp_path, code=code) == "{'path': 'x'}"
    assert elsewhere(tmp_path, code="print(*backends())") == " ".join([*BACKENDS, "notes"])
    assert elsewhere(tmp_path, code="import sys; check_backend('notes'); print('notes' in sys.modules)") == "False"
    assert "did you mean 'notes'" in refused(tmp_path, "notess")
    assert backends() == BACKENDS


@pytest.mark.parametrize("name", ["in_memory", "memory", "sqlite"])
def test_a_package_cannot_take_the_place_of_a_memory_of_ours(tmp_path: Path, name: str) -> None:
    install(tmp_path, **{name: "notes:Notes"})
    assert elsewhere(tmp_path, code=f"print(type(open_adapter({name!r})).__name__)") in (
        "ProcessMemory",
        "SqliteMemory",
    )
    assert elsewhere(tmp_path, code="print(*backends())") == " ".join(BACKENDS)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("notes:nowhere", "cannot be loaded: AttributeError: .*nowhere"),
        ("no_such_module:Notes", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("notes:no_function", "is no function that opens one"),
        ("notes:open_half", "made no memory adapter: it lacks put, get, in_slot"),
    ],
)
def test_a_package_whose_memory_does_not_work_is_named(tmp_path: Path, value: str, text: str) -> None:
    install(tmp_path, notes=value)
    said = refused(tmp_path, "notes")
    assert said.startswith(f"the memory adapter 'notes' of notes 1.2 ({value}) ")
    assert re.search(text, said)
    assert SECRET not in said


def test_two_packages_with_one_name_are_both_named(tmp_path: Path) -> None:
    install(tmp_path, "notes", notes="notes:Notes")
    install(tmp_path, "notes-too", "3.0", Notes="notes_too:Notes")
    said = refused(tmp_path, "notes")
    assert "notes 1.2" in said
    assert "notes-too 3.0" in said
    assert said.endswith("both serve 'notes': uninstall all but one")
