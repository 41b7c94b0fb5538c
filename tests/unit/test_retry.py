"""`retry_on_conflict`, and the store's own retries."""

from __future__ import annotations

import threading

import msgspec
import pytest

from praisonaiagents.errors import Conflict, EngineUnreachable, NotReplicated, OutcomeUnknown
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, Record
from praisonaiagents.session import SessionStore, retry_on_conflict
from praisonaiagents.storage.memory import MemoryEngine

KEY = Key("default_user", "s")


def test_it_returns_what_the_work_returns() -> None:
    assert retry_on_conflict(lambda: 5) == 5


def test_it_goes_on_until_there_is_no_conflict() -> None:
    answers = iter([Conflict("x", 1, 2), Conflict("x", 2, 3)])

    def work() -> str:
        if error := next(answers, None):
            raise error
        return "done"

    assert retry_on_conflict(work) == "done"


def test_the_last_conflict_is_raised() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise Conflict("x", 1, len(calls))

    with pytest.raises(Conflict) as info:
        retry_on_conflict(work, tries=3)
    assert (len(calls), info.value.found) == (3, 3)


def test_other_errors_are_not_retried() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise OutcomeUnknown("gone")

    with pytest.raises(OutcomeUnknown):
        retry_on_conflict(work)
    assert len(calls) == 1


def test_each_of_many_writers_lands_where_it_meant_to() -> None:
    """Four threads write an odd message after an even one and the other way round, reading anew each time."""
    store = SessionStore(MemoryEngine())
    store.open_session("s")

    def write(_: int) -> None:
        def work() -> None:
            length = store.open_session("s").length
            store.append("s", [Message("user", str(length))], expected_length=length)

        for _ in range(10):
            retry_on_conflict(work)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [message.content for message in store.messages("s")] == [str(number) for number in range(40)]


class _Breaks(MemoryEngine):
    """Loses the answer of some calls, after the call was carried out (`after`) or before."""

    def __init__(self, error: Exception | None = None, *, times: int = 1, after: bool = True) -> None:
        super().__init__()
        self._error = error
        self._left = times
        self._after = after
        self.calls = 0
        self.opening: list[Exception] = []

    def open_session(self, record, **options):  # type: ignore[no-untyped-def]
        opened = super().open_session(record, **options)
        if self.opening:
            raise self.opening.pop()
        return opened

    def append(self, key, messages, **options):  # type: ignore[no-untyped-def]
        self.get(key) or self._session(key)
        self.calls += 1
        named = [msgspec.structs.replace(m, id=m.id or f"given-{n}") for n, m in enumerate(messages)]
        ids = tuple(message.id for message in named)
        if self._left and not self._after:
            self._left -= 1
            raise self._error or OutcomeUnknown("cut", ids)
        appended = super().append(key, named, **options)
        if self._left:
            self._left -= 1
            raise self._error or OutcomeUnknown("cut", ids)
        return appended

    def update(self, key, patch, **options):  # type: ignore[no-untyped-def]
        self.calls += 1
        record = super().update(key, patch, **options)
        if self._left:
            self._left -= 1
            raise self._error or OutcomeUnknown("cut")
        return record


@pytest.mark.parametrize("after", [True, False], ids=["after it was stored", "before it was stored"])
def test_an_append_whose_answer_is_lost_is_repeated_once(after: bool) -> None:
    engine = _Breaks(after=after)
    engine.open_session(Record(*KEY))
    store = SessionStore(engine)
    assert store.append("s", [Message("user", "a"), Message("user", "b")], expected_length=0).length == 2
    assert [message.content for message in store.messages("s")] == ["a", "b"]


def test_an_append_whose_answer_is_lost_twice_tells_the_ids() -> None:
    engine = _Breaks(times=2)
    engine.open_session(Record(*KEY))
    store = SessionStore(engine)
    with pytest.raises(OutcomeUnknown) as info:
        store.append("s", [Message("user", "a")])
    store.append("s", [Message("user", "a", id=info.value.message_ids[0])])
    assert len(store.messages("s")) == 1


def test_what_too_few_replicas_confirmed_is_not_repeated() -> None:
    engine = _Breaks(NotReplicated(0, 1, ("given-0",)))
    engine.open_session(Record(*KEY))
    with pytest.raises(NotReplicated):
        SessionStore(engine).append("s", [Message("user", "a")])
    assert engine.calls == 1
    assert len(SessionStore(engine).messages("s")) == 1


def test_a_change_whose_answer_is_lost_holds() -> None:
    store = SessionStore(_Breaks())
    store.set_state("s", {"n": 1})
    assert store.get_session("s").state == {"n": 1}
    store = SessionStore(_Breaks(NotReplicated(0, 1)))
    with pytest.raises(NotReplicated):
        store.set_state("s", {"n": 1})


@pytest.mark.parametrize("error", [OutcomeUnknown("cut"), NotReplicated(0, 1)], ids=["unknown", "not replicated"])
def test_a_session_that_may_have_been_made_does_not_cost_the_message(error: Exception) -> None:
    engine = _Breaks(times=0)
    engine.opening.append(error)
    assert SessionStore(engine).append("s", [Message("user", "a")]).length == 1


def test_a_server_that_is_gone_at_the_second_try_leaves_it_unknown() -> None:
    """The first try may have stored the message, so nobody may say that nothing was stored."""

    class Gone(_Breaks):
        def append(self, *args, **options):  # type: ignore[no-untyped-def]
            if self.calls == 1:
                raise EngineUnreachable("no connection")
            return super().append(*args, **options)

    engine = Gone()
    engine.open_session(Record(*KEY))
    with pytest.raises(OutcomeUnknown) as info:
        SessionStore(engine).append("s", [Message("user", "a")])
    assert info.value.message_ids == ("given-0",)


def test_a_trim_whose_answer_is_lost_does_not_fail_the_append() -> None:
    engine = _Breaks(times=0)
    store = SessionStore(engine, max_messages=1)
    store.add_user_message("s", "a")
    engine._left = 1  # the next update
    engine.append = lambda *args, **options: MemoryEngine.append(engine, *args, **options)  # type: ignore[method-assign]
    with pytest.warns(RuntimeWarning, match="not removed yet"):
        store.add_user_message("s", "b")
    assert store.messages("s")[-1].content == "b"
