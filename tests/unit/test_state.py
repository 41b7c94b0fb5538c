"""State beside the conversation: exact, atomic, apart by session and user, and shared where it is said to be."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from crash.databases import KINDS, place
from hypothesis import given
from hypothesis import strategies as st

from praisonaiagents.errors import ConfigError, ConfigTypeError, InvalidId, InvalidMessage, StateConflict
from praisonaiagents.model.record import APP_USER, STATE_SESSION
from praisonaiagents.session import SessionStore, open_store
from praisonaiagents.session.erase import purge
from praisonaiagents.session.labels import listed
from praisonaiagents.session.migrate import migrate
from praisonaiagents.session.state import SCOPES, States
from praisonaiagents.storage.memory import MemoryEngine

STORED = ("session", "user", "app")


@pytest.fixture(params=["memory", *KINDS])
def store(request: pytest.FixtureRequest) -> Iterator[SessionStore]:
    if request.param == "memory":
        yield SessionStore(MemoryEngine())
        return
    with place(request.param) as url, open_store(url) as opened:
        yield opened


def states(store: SessionStore, session: str = "s", user: str | None = None) -> States:
    return States(lambda: store.engine, session, user)


VALUES: dict[str, Any] = {
    "text": "é𝄞\0",
    "empty": "",
    "none": None,
    "true": True,
    "one": 1,
    "one_point": 1.0,
    "long": 2**70,
    "tiny": 5e-324,
    "list": [1, [2, {"a": None}], []],
    "dict": {"": {}, "user:x": 1},
    "type": "mine",
    "session_id": "mine too",
}


@pytest.mark.parametrize("scope", SCOPES)
def test_values_come_back_exactly(store: SessionStore, scope: Any) -> None:
    kept = states(store)
    kept.replace(VALUES, scope)
    found = kept.all(scope)
    assert found == VALUES
    assert [type(value) for value in found.values()] == [type(value) for value in VALUES.values()]
    found["list"].append("mine")
    assert kept.all(scope) == VALUES


@pytest.mark.parametrize("scope", SCOPES)
def test_one_value_is_set_counted_and_removed(store: SessionStore, scope: Any) -> None:
    kept = states(store)
    assert kept.all(scope) == {}
    kept.set("a", [1], scope)
    assert kept.increment("n", scope=scope) == 1
    assert kept.increment("n", 2.5, scope=scope) == 3.5
    assert kept.increment("m", -1, 10, scope) == 9
    assert kept.delete("a", scope) is True
    assert kept.delete("a", scope) is False
    assert kept.all(scope) == {"n": 3.5, "m": 9}
    kept.replace({}, scope)
    assert kept.all(scope) == {}


def test_who_shares_what(store: SessionStore) -> None:
    mine, sibling, other = states(store), states(store, "t"), states(store, "s", "bob")
    for scope in SCOPES:
        mine.set("from", scope, scope)
    assert [sibling.all(scope) for scope in SCOPES] == [{}, {"from": "user"}, {"from": "app"}, {}]
    assert [other.all(scope) for scope in SCOPES] == [{}, {}, {"from": "app"}, {}]
    assert [states(store).all(scope) for scope in SCOPES] == [*({"from": scope} for scope in STORED), {}]


@pytest.mark.parametrize("scope", SCOPES)
def test_compare_and_set_changes_nothing_where_somebody_was_faster(store: SessionStore, scope: Any) -> None:
    kept = states(store)
    kept.set("a", 1, scope, expected=None)
    with pytest.raises(StateConflict) as caught:
        kept.set("a", "secret", scope, expected=2)
    assert (caught.value.key, caught.value.found) == ("a", 1)
    assert "secret" not in str(caught.value)
    for other in (True, 1.0, "1", None, object()):
        with pytest.raises(StateConflict):
            kept.set("a", 2, scope, expected=other)
    kept.set("a", {"x": [1]}, scope, expected=1)
    kept.set("a", 3, scope, expected={"x": [1]})
    assert kept.all(scope) == {"a": 3}


def test_of_many_who_compare_and_set_one_wins(store: SessionStore) -> None:
    def take(number: int) -> bool:
        try:
            states(store).set("owner", number, expected=None)
        except StateConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(take, range(8))) == [False] * 7 + [True]


def test_two_changes_at_once_of_two_keys_both_stay(store: SessionStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: states(store).set(f"key {number}", number), range(40)))
    assert states(store).all() == {f"key {number}": number for number in range(40)}


@pytest.mark.parametrize("scope", SCOPES)
def test_the_second_of_two_quick_saves_is_kept(store: SessionStore, scope: Any) -> None:
    kept = states(store)
    for number in range(100):
        kept.replace({"n": number}, scope)
        assert kept.all(scope) == {"n": number}


REFUSED: list[tuple[Callable[[States], object], type[Exception]]] = [
    (lambda kept: kept.all("users"), ConfigError),  # type: ignore[arg-type]
    (lambda kept: kept.replace(None), ConfigTypeError),  # type: ignore[arg-type]
    (lambda kept: kept.replace([1]), ConfigTypeError),  # type: ignore[arg-type]
    (lambda kept: kept.replace({1: 2}), InvalidMessage),  # type: ignore[dict-item]
    (lambda kept: kept.replace({"a": float("nan")}), InvalidMessage),
    (lambda kept: kept.replace({"a": (1, 2)}), InvalidMessage),
    (lambda kept: kept.replace({"a": {1, 2}}), InvalidMessage),
    (lambda kept: kept.replace({"a": "\ud800"}), InvalidMessage),
    (lambda kept: kept.set(None, 1), ConfigTypeError),  # type: ignore[arg-type]
    (lambda kept: kept.set("a", object()), InvalidMessage),
    (lambda kept: kept.increment("kept", 1), ConfigTypeError),
    (lambda kept: kept.increment("n", "1"), ConfigTypeError),  # type: ignore[arg-type]
    (lambda kept: kept.increment("n", True), ConfigTypeError),
    (lambda kept: kept.increment("n", float("inf")), ConfigTypeError),
    (lambda kept: kept.increment("n", 1, None), ConfigTypeError),  # type: ignore[arg-type]
    (lambda kept: kept.increment("n", 1e308, 1e308), InvalidMessage),
]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_refused_changes_nothing(number: int, scope: Any) -> None:
    kept = States(lambda engine=MemoryEngine(): engine, "s")  # noqa: B008
    kept.set("kept", "text", scope)
    call, error = REFUSED[number]
    with pytest.raises(error):
        call(_in(kept, scope))
    assert kept.all(scope) == {"kept": "text"}


def _in(kept: States, scope: str) -> Any:
    """The same states, with `scope` as the default."""

    class Scoped:
        def __getattr__(self, name: str) -> Any:
            return lambda *args: getattr(kept, name)(*args, **({} if "users" in args else {"scope": scope}))

    return Scoped()


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=9), st.integers() | st.text(st.characters(codec="utf-8"))
    )
)
def test_any_state_is_kept(state: dict[str, Any]) -> None:
    kept = States(lambda engine=MemoryEngine(): engine, "s")  # noqa: B008
    kept.replace(state, "user")
    assert kept.all("user") == state


# --- where it is kept ---


def test_state_of_users_and_of_the_application_is_no_session(store: SessionStore) -> None:
    kept = states(store)
    store.add_user_message("s", "Hello")
    for scope in STORED:
        kept.set("a", 1, scope)  # type: ignore[arg-type]
    for rows in (
        store.list_sessions(),
        store.list_sessions(1),
        store.list_sessions(None, all_users=True),
        listed(store, all_users=True),
    ):
        assert [row["session_id"] for row in rows] == ["s"]


def test_nobody_opens_it_as_a_session(store: SessionStore) -> None:
    states(store).set("a", 1, "user")
    for session, user in ((STATE_SESSION, None), (STATE_SESSION, "bob"), ("s", APP_USER)):
        for call in (store.get_session, store.delete_session, store.session_exists, store.get_chat_history):
            with pytest.raises(InvalidId, match="state is kept there"):
                call(session, user_id=user)
    assert states(store).all("user") == {"a": 1}


def test_it_goes_with_its_user_and_moves_with_the_sessions(store: SessionStore) -> None:
    for user in ("alice", "bob"):
        for scope in STORED:
            states(store, "s", user).set("whose", user, scope)  # type: ignore[arg-type]
    there = SessionStore(MemoryEngine())
    assert all(moved.is_well for moved in migrate(store.engine, there.engine))
    assert [states(there, "s", "alice").all(scope) for scope in STORED] == [{"whose": "alice"}] * 2 + [{"whose": "bob"}]
    purge(store, user_id="alice")
    assert [states(store, "s", "alice").all(scope) for scope in STORED] == [{}, {}, {"whose": "bob"}]
    assert [states(store, "s", "bob").all(scope) for scope in STORED] == [{"whose": "bob"}] * 3


# --- many at once ---

INCREMENT = """
    import sys
    from praisonaiagents import Session
    with Session("counted", "alice", db=sys.argv[1]) as session:
        for _ in range(int(sys.argv[2])):
            session.increment_state("n")
        for _ in range(20):
            session.increment_state("n", 2, scope="app")
"""


@pytest.mark.parametrize("kind", KINDS)
def test_increments_of_several_processes_all_count(kind: str, tmp_path: Path) -> None:
    times, processes = 100, 8
    with place(kind) as url:
        command = [sys.executable, "-c", textwrap.dedent(INCREMENT), url, str(times)]
        started = [subprocess.Popen(command, cwd=tmp_path) for _ in range(processes)]
        assert [process.wait() for process in started] == [0] * processes
        with open_store(url) as store:
            assert states(store, "counted", "alice").all() == {"n": processes * times}
            assert states(store).all("app") == {"n": 2 * processes * 20}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_ten_thousand_states_stay_apart(kind: str, tmp_path: Path) -> None:
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/s.db"
    with open_store(url) as store:
        for number in range(10_000):
            states(store, f"s{number // 2}", f"user {number % 2}").replace({"n": number})
        for number in range(10_000):
            assert states(store, f"s{number // 2}", f"user {number % 2}").all() == {"n": number}
