"""Turns by themselves: how they end, how long they are known, how many there may be, and who has a session to oneself."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.function import DeltaToolCall, FunctionModel
from wire import PATIENCE_S

from praisonaiagents import Agent, Session
from praisonaiagents.errors import LockTimeout, ModelError
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key
from praisonaiagents.serve import turns as module
from praisonaiagents.serve.problems import Problem
from praisonaiagents.serve.settings import Settings
from praisonaiagents.serve.turns import DONE, FAILED, INTERRUPTED, Failure, Turn, Turns, size_of

HERE = Key("alice", "s")


def run(test: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        await asyncio.wait_for(test, PATIENCE_S)

    asyncio.run(in_time())


def turns(**settings: Any) -> Turns:
    return Turns(Settings(grace_s=0, **settings))


async def answer(_: Turn) -> str:
    return "yes"


async def wait(_: Turn) -> str:
    await asyncio.Event().wait()
    return "never"


async def ended(turn: Turn) -> Turn:
    """A turn, once its `Turns` know that it has ended."""
    assert turn.task is not None
    await asyncio.wait([turn.task])
    await asyncio.sleep(0)
    return turn


def refused(problem: pytest.ExceptionInfo[Problem]) -> tuple[int, str, str | None]:
    return problem.value.status, problem.value.kind, problem.value.headers.get("Retry-After")


def test_waiting_for_the_session_is_no_part_of_the_time_that_a_turn_may_take() -> None:
    async def stubborn(turn: Turn) -> str:
        with suppress(asyncio.CancelledError):
            await wait(turn)
        for _ in range(10):
            await asyncio.sleep(0)
        return "late"

    async def test() -> None:
        some = turns(turn_timeout_s=1e-9)
        first, second = (some.begin(name, HERE, [], work) for name, work in (("1", stubborn), ("2", answer)))
        await second.over()
        assert [(turn.status, turn.answer) for turn in (first, second)] == [(DONE, "late"), (DONE, "yes")]

    run(test())


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ModelError("it is away"), Failure("Error processing query: it is away", "ModelError", 500)),
        (ValueError("secret"), Failure("Error processing query: the server failed", "InternalError", 500)),
        (
            LockTimeout("a file", 5.0),
            Failure("Error processing query: the sessions cannot be read or written now", "LockTimeout", 503),
        ),
    ],
)
def test_why_a_turn_failed_is_logged_once_however_often_it_is_asked(
    error: Exception, failure: Failure, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: Turn) -> str:
        raise error

    async def test() -> None:
        turn = await ended(turns().begin("1", HERE, [], fail))
        assert [(turn.status, turn.failure) for _ in range(3)] == [(FAILED, failure)] * 3

    run(test())
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == (not isinstance(error, ModelError))


def test_a_turn_that_failed_holds_nothing_of_what_it_worked_with() -> None:
    class Large:
        pass

    async def test() -> None:
        large: list[weakref.ref[Large]] = []

        async def fail(_: Turn) -> str:
            mine = Large()
            large.append(weakref.ref(mine))
            raise ModelError("away")

        some = turns()
        await ended(some.begin("1", HERE, [], fail))
        gc.collect()
        assert some.find("alice", "1") is not None
        assert large[0]() is None

    run(test())


def test_turns_that_ended_first_are_forgotten_where_all_of_them_take_too_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def tell(turn: Turn) -> str:
        turn.emit("text", {"text": "x" * 1000})
        turn.tell(Message("assistant", "x" * 1000))
        return "x" * 1000

    async def test() -> None:
        some = turns()
        made = [await ended(some.begin(str(number), HERE, ["x" * 1000], tell)) for number in range(3)]
        size = made[0].size
        assert size > 3000
        monkeypatch.setattr(module, "_MOST_BYTES", 2 * size)
        for number in range(3, 6):
            await ended(some.begin(str(number), HERE, ["x" * 1000], tell))
            known = [int(name) for name in map(str, range(6)) if some.find("alice", name)]
            assert known == [number - 1, number]
        monkeypatch.setattr(module, "_MOST_BYTES", size - 1)
        last = await ended(some.begin("6", HERE, ["x" * 1000], tell))
        assert some.find("alice", "6") is None
        assert last.answer == "x" * 1000

    run(test())


def test_a_value_takes_at_least_the_memory_of_its_texts() -> None:
    assert size_of("x" * 1000) > 1000
    assert size_of("\u4e2d" * 1000) > 2000
    assert size_of([{"a": ["x" * 1000]}, ("x" * 1000,), Message("user", "x" * 1000)]) > 3000
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    assert size_of(deep) > 10_000


def test_a_turn_that_ended_long_ago_is_not_found_also_where_nothing_happens_any_more() -> None:
    async def test() -> None:
        some = turns(kept_s=300)
        turn = await ended(some.begin("1", HERE, [], answer))
        assert some.find("alice", "1") is turn
        turn.ended -= 301
        assert some.find("alice", "1") is None

    run(test())


def test_turns_of_a_session_are_forgotten_and_no_others() -> None:
    async def test() -> None:
        some = turns()
        for name, session_id in (("1", "s"), ("2", "s"), ("3", "other")):
            await ended(some.begin(name, Key("alice", session_id), [], answer))
        some.forget(HERE)
        assert [name for name in "123" if some.find("alice", name)] == ["3"]

    run(test())


def test_one_user_has_half_of_the_turns_that_there_may_be() -> None:
    async def test() -> None:
        some = turns(max_turns=4)
        for number in range(2):
            some.begin(f"a{number}", Key("alice", str(number)), [], wait)
        with pytest.raises(Problem) as problem:
            some.begin("a2", Key("alice", "2"), [], wait)
        assert refused(problem) == (429, "TooManyTurns", "1")
        for number in range(2):
            some.begin(f"b{number}", Key("bob", str(number)), [], wait)
        with pytest.raises(Problem) as problem:
            some.begin("c0", Key("carol", "0"), [], wait)
        assert refused(problem) == (503, "ServerBusy", "1")
        await some.close()

    run(test())


def test_the_user_that_nobody_named_has_all_of_them() -> None:
    async def test() -> None:
        some = turns(max_turns=4)
        for number in range(4):
            some.begin(str(number), Key("default_user", str(number)), [], wait)
        await some.close()

    run(test())


def test_no_turn_begins_in_a_session_that_somebody_has_to_oneself() -> None:
    async def test() -> None:
        some = turns()
        async with some.alone(HERE):
            with pytest.raises(Problem) as problem:
                some.begin("1", HERE, [], answer)
            assert refused(problem) == (409, "SessionBusy", "1")
            with pytest.raises(Problem):
                async with some.alone(HERE, stops=True):
                    pass
            assert (await ended(some.begin("1", Key("bob", "s"), [], answer))).status == DONE
        assert (await ended(some.begin("1", HERE, [], answer))).status == DONE

    run(test())


def test_who_wants_a_session_to_oneself_is_refused_or_stops_the_turns_in_it() -> None:
    async def test() -> None:
        some = turns()
        under_way = [some.begin(str(number), HERE, [], wait) for number in range(3)]
        with pytest.raises(Problem) as problem:
            async with some.alone(HERE):
                pass
        assert refused(problem) == (409, "SessionBusy", "1")
        async with some.alone(HERE, stops=True):
            assert [turn.status for turn in under_way] == [INTERRUPTED] * 3
            assert under_way[0].failure == Failure("the turn was stopped", "Interrupted", 409)
        assert (await ended(some.begin("3", HERE, [], answer))).status == DONE

    run(test())


class Waiting:
    """A model that does not answer. `reached`: it was asked."""

    def __init__(self) -> None:
        self.reached = threading.Event()

    async def answer(self, *_: object) -> ModelResponse:
        self.reached.set()
        await asyncio.Event().wait()
        return ModelResponse([])

    async def stream(self, *_: object) -> AsyncIterator[str]:
        await self.answer()
        yield ""


async def hello(*_: object) -> AsyncIterator[str]:
    yield "Hello"


def test_a_turn_that_is_stopped_after_its_answer_was_stored_is_done(make_agent: Callable[..., Agent]) -> None:
    body, key = {"query": "I am Alice", "session_id": "s"}, {"Idempotency-Key": "k"}
    remembering = Waiting()
    model = FunctionModel(remembering.answer, stream_function=hello)
    with (
        make_agent(llm=model, memory={"auto_memory": True}).launch(port=0, block=False) as server,
        httpx2.Client(base_url=server.url, timeout=PATIENCE_S) as client,
        ThreadPoolExecutor() as pool,
    ):
        asked = pool.submit(client.post, "/", json=body, headers=key)
        assert remembering.reached.wait(PATIENCE_S)
        (turn_id,) = server.service.turns._under_way
        stopped = client.delete(f"/turns/{turn_id}").json()
        assert stopped == {"turn_id": turn_id, "session_id": "s", "status": "done", "response": "Hello"}
        answers = [asked.result(), client.post("/", json=body, headers=key)]
        assert [(one.status_code, one.json()["response"]) for one in answers] == [(200, "Hello")] * 2
        assert [one["content"] for one in client.get("/sessions/s/messages").json()["messages"]] == [
            "I am Alice",
            "Hello",
        ]


def test_what_a_turn_said_before_it_was_cut_off_is_told_again_when_another_server_goes_on_with_it(
    make_agent: Callable[..., Agent], tmp_path: Path
) -> None:
    def weather(city: str) -> str:
        """The weather of a city."""
        raise OSError("no sight")

    def looking(then: Callable[..., AsyncIterator[str]]) -> Agent:
        async def answer(messages: list[Any], _: object) -> AsyncIterator[Any]:
            if any(part.part_kind == "tool-return" for message in messages for part in message.parts):
                async for piece in then():
                    yield piece
            else:
                yield "Let me look. "
                yield {0: DeltaToolCall("weather", '{"city": "Oslo"}', tool_call_id="c1")}

        return make_agent(llm=FunctionModel(stream_function=answer), tools=[weather])

    killed, place = Waiting(), {"port": 0, "block": False, "db": f"sqlite:///{tmp_path}/s.db"}
    with (
        looking(killed.stream).launch(grace_s=0, **place) as first,
        looking(hello).launch(**place) as second,
        Session("s", agent_url=first.url) as session,
        Session("s", agent_url=second.url) as later,
    ):
        pieces = session.stream("Oslo?", idempotency_key="k")
        assert next(pieces) == "Let me look. "
        assert killed.reached.wait(PATIENCE_S)  # from now on it does nothing
        assert "".join(later.stream("Oslo?", idempotency_key="k")) == "Let me look. Hello"
        assert [(one["role"], one.get("status")) for one in later.history()] == [
            *(("user", None), ("assistant", None), ("tool", "failed"), ("assistant", None)),
        ]
        pieces.close()  # type: ignore[attr-defined]
