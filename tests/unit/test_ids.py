"""Ids and their file names: different ids never share one, on any disk.

The properties hold for any text, but arbitrary text rarely comes close to a collision. So the strategy below mixes it with
text made of what is special here: escapes, dots, device names, both cases, and the file names of other ids.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from praisonaiagents.errors import InvalidId, InvalidIdType
from praisonaiagents.model.ids import (
    DEFAULT_USER,
    MAX_ID_BYTES,
    check_session_id,
    check_user_id,
    file_stem,
    id_of_stem,
    reference_stem,
    twin_stem,
)

LONGEST_NAME = 200
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
PIECES = [
    "a",
    "A",
    "b",
    "_",
    "-",
    ".",
    "..",
    " ",
    "/",
    "%",
    "~",
    "%~",
    "%41",
    "%2f",
    "é",
    "e\u0301",
    "🙂",
    "日",
    "con",
    "NUL",
]

any_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
special = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)
long = st.builds(lambda a, n, b: (a * n + b)[:300], special, st.integers(20, 200), special)
ids = st.one_of(any_text, special, long)
twisted = ids.flatmap(
    lambda x: st.sampled_from(
        [x, x.lower(), x.upper(), unicodedata.normalize("NFD", x), file_stem(x), twin_stem("u", x), x + "."]
    )
).filter(lambda x: 0 < len(x.encode()) <= MAX_ID_BYTES)


@given(ids)
def test_any_text_is_an_id(value: str) -> None:
    assert check_session_id(value) == check_user_id(value) == value


@pytest.mark.parametrize("value", ["x" * 1024, "é" * 512, "🙂" * 256, " ", ".", "-", "\u2028", "\ufeff"])
def test_what_looks_odd_is_an_id_too(value: str) -> None:
    assert check_session_id(value) == value


@pytest.mark.parametrize(
    "value", ["\0", "a\nb", "\x7f", "\x85", "\ud800", "a\udfffb", "x" * 1025, "é" * 513, "🙂" * 257]
)
def test_what_no_file_can_hold_is_refused(value: str) -> None:
    for check in (check_session_id, check_user_id):
        with pytest.raises(InvalidId) as info:
            check(value)
        assert value not in str(info.value)


@pytest.mark.parametrize("value", [b"a", 1, 1.5, True, ["a"], object()])
def test_only_text_is_an_id(value: Any) -> None:
    for check in (check_session_id, check_user_id):
        with pytest.raises(InvalidIdType, match=type(value).__name__):
            check(value)


def test_no_user_is_the_default_user_and_no_session_is_an_error() -> None:
    assert check_user_id(None) == check_user_id("") == check_user_id(DEFAULT_USER) == DEFAULT_USER
    with pytest.raises(InvalidIdType):
        check_session_id(None)
    with pytest.raises(InvalidId, match="empty"):
        check_session_id("")


@given(st.lists(st.one_of(ids, twisted), unique=True, max_size=20))
@example(["a/b", "a%2Fb", "a%2fb", "con", "%63on", "%", "%25", ".", "%2E"])
@example(["n" * 200 + "a", "n" * 200 + "b", file_stem("n" * 200 + "a")])
def test_different_ids_have_different_files(values: list[str]) -> None:
    assert len({file_stem(value) for value in values}) == len(values)


@given(st.lists(st.tuples(twisted, twisted), unique=True, max_size=20))
@example([("a", "b"), ("A", "b"), ("a", "B"), ("ab", "b")])
@example([("ua", "a" * 130), ("u", "a" * 131)])
def test_different_sessions_have_different_twins_on_a_disk_blind_to_case(pairs: list[tuple[str, str]]) -> None:
    assert len({twin_stem(*pair).casefold() for pair in pairs}) == len(pairs)


@given(st.one_of(ids, twisted), st.one_of(ids, twisted), ids)
def test_a_twin_is_nobodys_first_name(value: str, other: str, user_id: str) -> None:
    assert twin_stem(user_id, value).casefold() != file_stem(other).casefold()


@given(st.one_of(ids, twisted))
@example("a" * 180)
@example("%" * 60 + "a")
@example("é" * 512)
@example(".")
@example("COM1.x")
def test_a_file_name_is_safe_on_every_disk(value: str) -> None:
    for stem in (file_stem(value), twin_stem("user", value)):
        assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", stem)
        assert len(f"{stem}.json.lock") < LONGEST_NAME
        assert stem[0] != "." != stem[-1]
        assert stem.split(".")[0].lower() not in DEVICES
        assert not re.search(r"%(?!~|[0-9A-F]{2})", stem), "half an escape"


@pytest.mark.parametrize("device", sorted(DEVICES))
def test_a_file_is_no_device_of_windows(device: str) -> None:
    for value in (device, device.upper(), f"{device}.txt", f"{device.title()}.a.b"):
        assert file_stem(value) == f"%{ord(value[0]):02X}{value[1:]}"
    for value in (f"{device}s", f"my{device}", f"{device}-1"):
        assert file_stem(value) == value


@given(st.from_regex(r"[A-Za-z0-9_-]([A-Za-z0-9_.-]{0,150}[A-Za-z0-9_-])?", fullmatch=True))
def test_a_plain_id_keeps_its_name(value: str) -> None:
    if value.split(".")[0].lower() not in DEVICES:
        assert file_stem(value) == value


@given(st.one_of(ids, twisted))
def test_an_id_is_found_again_by_its_file_name(value: str) -> None:
    stem = file_stem(value)
    assert id_of_stem(stem) == (None if "%~" in stem else value)


@given(st.one_of(any_text, special, twisted))
@example("a%2fb")
@example("%FF")
@example("%00")
@example("%41")
@example("%")
@example("")
@example("con")
def test_a_file_name_that_no_id_has_gives_no_id(stem: str) -> None:
    value = id_of_stem(stem)
    assert value is None or file_stem(value) == stem


def test_only_long_ids_are_hashed() -> None:
    assert file_stem("a" * 180) == "a" * 180
    assert file_stem("a" * 181) == "a" * 120 + file_stem("a" * 181)[120:]
    assert "%~" in file_stem("é" * 31)
    assert "%~" not in file_stem("é" * 30)


@pytest.mark.parametrize(
    ("value", "stem"),
    [("alice:main", "alice_main"), ("a-b_c", "a-b_c"), ("a.b/c d", "a_b_c_d"), ("Zoë日", "Zoë日"), ("🙂", "_")],
)
def test_files_of_the_reference_are_found_under_its_names(value: str, stem: str) -> None:
    assert reference_stem(value) == stem
