"""The drawing at the top of `errors` is the truth, and each error tells what a caller needs without quoting a message."""

from __future__ import annotations

import builtins
import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from praisonaiagents import errors

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
}
EXAMPLES: list[tuple[type[BaseException], tuple[Any, ...], dict[str, Any]]] = [
    (errors.PraisonError, ("text",), {}),
    (errors.InvalidId, ("text",), {}),
    (errors.InvalidIdType, ("text",), {}),
    (errors.InvalidMessage, ("text",), {}),
    (errors.MessageTooLarge, (2000, 1000), {"size": 2000, "limit": 1000}),
    (errors.MessageIdConflict, ("m1",), {"message_id": "m1"}),
    (errors.ConfigError, ("text",), {}),
    (errors.ConfigTypeError, ("text",), {}),
    (errors.UnknownEngine, ("ftp", ("sqlite", "memory"), "hint"), {"scheme": "ftp", "known": ("sqlite", "memory")}),
    (errors.MissingDependency, ("what", "redis"), {"extra": "redis"}),
    (errors.SessionNotFound, ("s", "u", ("t",)), {"session_id": "s", "user_id": "u", "similar": ("t",)}),
    (errors.SessionExists, ("s", "u"), {"session_id": "s", "user_id": "u"}),
    (errors.PointNotFound, ("s", "x", ("a", "b")), {"session_id": "s", "ref": "x", "candidates": ("a", "b")}),
    (errors.MergeRefused, ("text",), {}),
    (errors.AmbiguousSession, ("s", ("u", "v")), {"session_id": "s", "owners": ("u", "v")}),
    (errors.Conflict, ("length", 1, 2), {"expected": 1, "found": 2}),
    (errors.AdapterFailed, ("A", "on_run_start", "why"), {"adapter": "A", "hook": "on_run_start"}),
    (errors.StateConflict, ("key", "text"), {"key": "key", "found": "text"}),
    (errors.StorageError, ("text", "/p"), {"path": "/p"}),
    (errors.LockTimeout, ("/p", 1.5, "process 7"), {"path": "/p", "waited_s": 1.5, "holder": "process 7"}),
    (errors.StorageFull, ("text", "/p"), {"path": "/p"}),
    (errors.NotASessionFile, ("text", "/p"), {"path": "/p"}),
    (errors.NewerFormat, ("text", "/p"), {"path": "/p"}),
    (errors.EngineUnreachable, ("text", "redis://h"), {"path": "redis://h"}),
    (errors.OutcomeUnknown, ("text", ("m1",)), {"message_ids": ("m1",)}),
    (errors.NotReplicated, (1, 2, ("m1",)), {"replicas": 1, "wanted": 2}),
    (errors.RemoteError, ("text", "http://h/a", "k"), {"url": "http://h/a", "idempotency_key": "k", "status": None}),
    (errors.RemoteTimeout, ("text", "http://h/a", "k"), {"url": "http://h/a", "idempotency_key": "k"}),
    (errors.RemoteRefused, ("text", "http://h/a"), {"url": "http://h/a", "idempotency_key": None}),
    (errors.RemoteUnsupported, ("text", "http://h/a"), {"url": "http://h/a", "idempotency_key": None}),
    (errors.ModelError, ("text", 500), {"status": 500}),
    (errors.ModelUnreachable, ("text",), {"status": None}),
    (
        errors.HookFailed,
        ("A", "on_run_end", "s", "why", "x"),
        {"adapter": "A", "hook": "on_run_end", "session_id": "s"},
    ),
    (errors.SessionDamage, ("/p", "/aside", 3, "what"), {"path": "/p", "set_aside": "/aside", "messages": 3}),
]


def _drawn() -> dict[str, tuple[str | None, str | None]]:
    """Name of each class in the drawing -> (its parent in the tree, the built-in behind it)."""
    drawn: dict[str, tuple[str | None, str | None]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^( {4}[│├└─ ]*)([A-Z]\w+)(?: +\((\w+)\))?(?: {2,}.*)?$", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        above = [(level, parent) for level, parent in above if level < depth]
        drawn[name] = (above[-1][1] if above else None, match[3])
        above.append((depth, name))
    return drawn


def test_the_drawing_shows_exactly_the_classes_there_are() -> None:
    assert sorted(_drawn()) == sorted(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_class_is_what_the_drawing_says(name: str) -> None:
    parent, builtin = _drawn()[name]
    bases = [base for base in (parent, builtin) if base] or ["Exception"]
    assert [base.__name__ for base in CLASSES[name].__bases__] == bases
    assert builtin is None or issubclass(CLASSES[name], getattr(builtins, builtin))
    assert issubclass(CLASSES[name], errors.PraisonError) != issubclass(CLASSES[name], Warning)
    assert (CLASSES[name].__doc__ or "").strip()


def test_every_error_is_a_child_of_a_built_in_one() -> None:
    own = {errors.PraisonError, *CLASSES.values()}
    for name, kind in CLASSES.items():
        if name != "PraisonError":
            assert next(base for base in kind.__mro__ if base not in own) not in (Exception, BaseException, object), (
                name
            )


def test_every_error_has_an_example() -> None:
    assert sorted(kind.__name__ for kind, _, _ in EXAMPLES) == sorted(CLASSES)


@pytest.mark.parametrize(("kind", "arguments", "fields"), EXAMPLES, ids=lambda value: getattr(value, "__name__", ""))
def test_an_error_carries_fields_and_says_them(
    kind: type[BaseException], arguments: tuple[Any, ...], fields: dict[str, Any]
) -> None:
    error = kind(*arguments)
    assert {name: getattr(error, name) for name in fields} == fields
    said = str(error).replace(",", "")
    parts = [part for value in fields.values() for part in (value if isinstance(value, tuple) else (value,))]
    if "text" not in arguments:  # the text is the error's own
        assert [part for part in parts if str(part) not in said] == []


def test_optional_parts_leave_no_gaps() -> None:
    assert str(errors.SessionNotFound("s")) == "session 's' not found"
    assert "did you mean 't' or 'v'?" in str(errors.SessionNotFound("s", similar=("t", "v")))
    assert "held by" not in str(errors.LockTimeout("/p", 1.0))
    assert str(errors.UnknownEngine("ftp", ("a", "b"))) == "no storage engine serves 'ftp'; known: a, b"
    assert "left in place" in str(errors.SessionDamage("/p", None, 3, "what"))


def test_what_is_not_replicated_is_stored_and_can_be_repeated() -> None:
    error = errors.NotReplicated(1, 2, ("m1", "m2"))
    assert isinstance(error, errors.OutcomeUnknown)
    assert error.message_ids == ("m1", "m2")
    assert errors.NotReplicated(0, 1).message_ids == ()


def test_an_error_survives_the_way_to_another_process() -> None:
    for kind, arguments, fields in EXAMPLES:
        error = kind(*arguments)
        for found in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert (type(found), str(found)) == (kind, str(error))
            assert {name: getattr(found, name) for name in fields} == fields
