"""Many at once: users in sessions of their own, callers in one session, listeners to one turn, and those that go away.

The server is a real one in a thread of this process, asked over real connections. The model answers when the test lets it:
a message that holds "wait" is answered when its `Gate` opens.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic_ai.models.function import FunctionModel
from wire import PATIENCE_S

from praisonaiagents import Agent
from praisonaiagents.model.message import Message
from praisonaiagents.serve import Server, launch, service

Serve = Callable[..., Server]
USERS, TURNS = 20, 5


class Gate:
    """The model: it says "<number of messages it heard> <the last one>", in two pieces; what shall wait waits between them."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        self._open = threading.Event()

    def open(self) -> None:
        """Let those that wait go on, and nobody wait any more."""
        self._open.set()

    async def reached(self, count: int = 1) -> None:
        """Until so many more answers wait."""
        for _ in range(count):
            assert await asyncio.to_thread(self.waiting.acquire, timeout=PATIENCE_S)

    async def answer(self, messages: list[Any], _: object) -> AsyncIterator[str]:
        heard = [part.content for message in messages for part in message.parts if part.part_kind == "user-prompt"]
        yield f"{len(heard)} "
        if "wait" in heard[-1]:
            self.waiting.release()
            while not self._open.is_set():
                await asyncio.sleep(0.002)
        yield heard[-1]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def serve(gate: Gate, tmp_path: Path, make_agent: Callable[..., Agent]) -> Iterator[Serve]:
    """Serve an agent with these settings until the test ends."""
    servers: list[Server] = []

    def served(**settings: Any) -> Server:
        agent = make_agent(llm=FunctionModel(stream_function=gate.answer))
        db = f"sqlite:///{tmp_path}/sessions.db"
        servers.append(launch(agent, "/agent", 0, block=False, db=db, grace_s=5, **settings))
        return servers[-1]

    yield served
    gate.open()
    for server in servers:
        server.close()


def stored(server: Server, session_id: str = "s", user_id: str = "default_user") -> list[tuple[str, str, str | None]]:
    """(role, content, status) of a session's messages."""
    found: list[Message] = list(server.service.store.read_from(session_id, 0, user_id=user_id).messages)
    return [(message.role, message.text(), message.status) for message in found]


# --- many users ---


def test_many_users_talk_at_once_and_each_session_holds_its_own_turns_in_order(serve: Serve) -> None:
    server = serve(users=lambda token: token.removeprefix("token-of-"))

    async def user(name: str) -> None:
        async with calling(server, Authorization=f"Bearer token-of-{name}") as client:
            for number in range(TURNS):
                text = f"{name} says {number}"
                assert await say(client, text, stream=bool(number % 2)) == f"{number + 1} {text}"
            sessions = (await client.get("/agent/sessions")).json()["sessions"]
            assert [session["message_count"] for session in sessions] == [2 * TURNS]

    run(user(f"user-{number}") for number in range(USERS))
    for name in (f"user-{number}" for number in range(USERS)):
        texts = [f"{name} says {number}" for number in range(TURNS)]
        turns = [(("user", text, None), ("assistant", f"{at} {text}", None)) for at, text in enumerate(texts, 1)]
        assert stored(server, "s", name) == [message for turn in turns for message in turn]


def test_a_request_that_comes_many_times_at_once_is_one_turn(serve: Serve) -> None:
    server = serve()

    async def ask(number: int) -> httpx2.Response:
        async with calling(server, Idempotency_Key="once") as client:
            return await client.post("/agent", json={"query": "Hello", "session_id": "s"})

    answers = run(ask(number) for number in range(12))
    assert {answer.json()["response"] for answer in answers} == {"1 Hello"}
    assert len({answer.json()["turn_id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert stored(server) == [("user", "Hello", None), ("assistant", "1 Hello", None)]


def test_only_so_much_is_kept_in_memory(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_MOST_BYTES", 10_000)
    server = serve()
    text = "x" * 1000  # with its answer 2 to 3 KB

    async def test() -> None:
        async with calling(server) as client:
            for number in range(1, 5):
                answers = [await say(client, text, session_id=name) for name in "abc"]
                assert answers == [f"{number} {text}"] * 3
                assert len(server.service._at_hand) == {1: 3, 2: 1, 3: 1, 4: 0}[number]

    run([test()])


# --- one session ---


def test_turns_wait_for_those_before_them_in_the_order_they_came(serve: Serve, gate: Gate) -> None:
    server = serve()

    async def test() -> None:
        async with calling(server) as client:
            first = asyncio.create_task(say(client, "wait"))
            await gate.reached()
            rest = []
            for number in range(8):
                rest.append(asyncio.create_task(say(client, f"then {number}")))
                await until(lambda: len(server.service.turns) == 1 + len(rest))
            assert await say(client, "elsewhere", session_id="other") == "1 elsewhere"
            assert stored(server) == [("user", "wait", None)], "nobody begins before"
            gate.open()
            assert await first == "1 wait"
            assert await asyncio.gather(*rest) == [f"{number + 2} then {number}" for number in range(8)]

    run([test()])
    assert [role for role, _, _ in stored(server)] == ["user", "assistant"] * 9


def test_a_session_that_is_busy_may_refuse(serve: Serve, gate: Gate) -> None:
    server = serve(busy="reject")

    async def test() -> None:
        async with calling(server) as client:
            first = asyncio.create_task(say(client, "wait"))
            await gate.reached()
            assert (await refused(client, "second"))["type"] == "SessionBusy"
            assert await say(client, "elsewhere", session_id="other") == "1 elsewhere"
            gate.open()
            assert await first == "1 wait"
            assert await say(client, "third") == "2 third"

    run([test()])


def test_a_turn_may_interrupt_the_one_before(serve: Serve, gate: Gate) -> None:
    server = serve(busy="interrupt")

    async def test() -> None:
        async with calling(server) as client:
            first = asyncio.create_task(refused(client, "wait"))
            await gate.reached()
            assert await say(client, "Stop!") == "2 Stop!"
            assert (await first)["type"] == "Interrupted"

    run([test()])
    assert stored(server) == [
        *(("user", "wait", None), ("assistant", "1 ", "interrupted")),
        *(("user", "Stop!", None), ("assistant", "2 Stop!", None)),
    ]


def test_only_so_many_turns_wait(serve: Serve, gate: Gate) -> None:
    server = serve(max_waiting=2)

    async def test() -> None:
        async with calling(server) as client:
            turns = [asyncio.create_task(say(client, "wait"))]
            await gate.reached()
            turns += [asyncio.create_task(say(client, f"then {number}")) for number in range(2)]
            await until(lambda: len(server.service.turns) == 3)
            assert (await refused(client, "one more"))["type"] == "SessionBusy"
            gate.open()
            assert len(await asyncio.gather(*turns)) == 3

    run([test()])
    assert len(stored(server)) == 6


def test_only_so_many_turns_are_under_way(serve: Serve, gate: Gate) -> None:
    server = serve(max_turns=3)

    async def test() -> None:
        async with calling(server) as client:
            turns = [asyncio.create_task(say(client, "wait", session_id=f"s{number}")) for number in range(3)]
            await gate.reached(3)
            assert await refused(client, "one more", 503) == {
                "error": "the server has as many turns under way as it may have",
                "type": "ServerBusy",
            }
            gate.open()
            assert await asyncio.gather(*turns) == ["1 wait"] * 3
            await until(lambda: len(server.service.turns) == 0)
            assert await say(client, "one more") == "1 one more"

    run([test()])


def test_a_turn_that_takes_too_long_is_stopped_and_kept(serve: Serve) -> None:
    server = serve(turn_timeout_s=0.2)

    async def test() -> None:
        async with calling(server) as client:
            assert (await refused(client, "wait", 504))["type"] == "TurnTimeout"

    run([test()])
    assert stored(server) == [("user", "wait", None), ("assistant", "1 ", "interrupted")]


def test_a_turn_that_waits_for_an_agent_that_is_withdrawn_is_refused(serve: Serve, gate: Gate) -> None:
    server = serve()

    async def test() -> None:
        async with calling(server) as client:
            first = asyncio.create_task(say(client, "wait"))
            await gate.reached()
            second = asyncio.create_task(refused(client, "then", 404))
            await until(lambda: len(server.service.turns) == 2)
            server.service.remove("/agent")
            gate.open()
            assert await first == "1 wait"
            assert (await second)["type"] == "AgentNotFound"

    run([test()])


# --- gone, and back ---


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_caller_that_goes_away_does_not_lose_the_turn(serve: Serve, gate: Gate, stream: bool) -> None:
    server = serve()
    body = {"query": "wait", "session_id": "s", "stream": stream}

    async def test() -> None:
        async with calling(server, Idempotency_Key="mine") as client:
            asking = asyncio.create_task(client.post("/agent", json=body))
            await gate.reached()
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            gate.open()
            answer = await client.post("/agent", json=body | {"stream": False})
            assert answer.json()["response"] == "1 wait"
            assert answer.headers["idempotency-replayed"] == "true"

    run([test()])
    assert stored(server) == [("user", "wait", None), ("assistant", "1 wait", None)]


def test_several_listen_to_one_turn_from_where_they_were(serve: Serve, gate: Gate) -> None:
    server = serve()

    async def test() -> None:
        async with calling(server) as client:
            asking = asyncio.create_task(events(client, "POST", "/agent", {"query": "wait", "session_id": "s"}))
            await gate.reached()
            (turn_id,) = under_way(server)
            early = [asyncio.create_task(pick_up(client, turn_id, seen)) for seen in (0, 0, 1, 2)]
            await asyncio.gather(*(pick_up(client, turn_id, 0, most=2) for _ in range(3)))  # these leave again
            gate.open()
            told = await asking
            names = ["turn", "text", "text", "message", "done"]
            assert [(name, number) for number, name, _ in told] == [(name, at) for at, name in enumerate(names, 1)]
            assert "".join(data["text"] for _, name, data in told if name == "text") == "1 wait"
            for seen, found in zip((0, 0, 1, 2), await asyncio.gather(*early), strict=True):
                assert found == told[seen:]
            for seen in range(len(told)):
                assert await pick_up(client, turn_id, seen) == told[seen:]

    run([test()])


def test_a_turn_is_known_for_a_while_and_its_answer_for_ever(serve: Serve) -> None:
    server = serve(kept_s=0)

    async def test() -> None:
        async with calling(server, Idempotency_Key="mine") as client:
            body = {"query": "Hello", "session_id": "s"}
            first = (await client.post("/agent", json=body)).json()
            await until(lambda: len(server.service.turns) == 0)
            assert (await client.get(f"/agent/turns/{first['turn_id']}")).status_code == 404
            again = await client.post("/agent", json=body)
            assert (again.json(), again.headers["idempotency-replayed"]) == (first, "true")

    run([test()])
    assert len(stored(server)) == 2


@pytest.mark.parametrize(("turn_timeout_s", "status", "kind"), [(0.05, 504, "TurnTimeout"), (0, 409, "Interrupted")])
def test_how_a_turn_ended_is_said_in_the_same_words_when_only_the_session_knows_it(
    serve: Serve, gate: Gate, turn_timeout_s: float, status: int, kind: str
) -> None:
    server = serve(turn_timeout_s=turn_timeout_s, kept_s=0)

    async def test() -> None:
        async with calling(server, Idempotency_Key="mine") as client:
            first = asyncio.create_task(refused(client, "wait", status))
            if not turn_timeout_s:
                await gate.reached()
                await client.delete(f"/agent/turns/{under_way(server)[0]}")
            told = await first
            assert told["type"] == kind
            await until(lambda: len(server.service.turns) == 0)
            assert await refused(client, "wait", status) == told

    run([test()])


def test_a_turn_that_was_stopped_before_it_began_is_taken_when_it_is_asked_for_again(serve: Serve, gate: Gate) -> None:
    server = serve()

    async def test() -> None:
        async with calling(server) as client, calling(server, Idempotency_Key="mine") as other:
            first = asyncio.create_task(say(client, "wait"))
            await gate.reached()
            second = asyncio.create_task(refused(other, "then"))
            await until(lambda: len(server.service.turns) == 2)
            await client.delete(f"/agent/turns/{under_way(server)[1]}")
            assert (await second)["type"] == "Interrupted"
            gate.open()
            assert await first == "1 wait"
            assert [await say(other, "then") for _ in range(2)] == ["2 then"] * 2

    run([test()])
    assert [text for _, text, _ in stored(server)] == ["wait", "1 wait", "then", "2 then"]


# --- asking ---


def under_way(server: Server) -> list[str]:
    """The ids of the turns under way, in the order they came."""
    return list(server.service.turns._under_way)


def run(asked: Any) -> list[Any]:
    """What coroutines return that run together."""

    async def together() -> list[Any]:
        return list(await asyncio.wait_for(asyncio.gather(*asked), PATIENCE_S))

    return asyncio.run(together())


@asynccontextmanager
async def calling(server: Server, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx2.AsyncClient(base_url=server.url, headers=given, timeout=PATIENCE_S) as client:
        yield client


async def say(client: httpx2.AsyncClient, text: str, *, session_id: str = "s", stream: bool = False) -> str:
    body = {"query": text, "session_id": session_id}
    if stream:
        return str((await events(client, "POST", "/agent", body))[-1][2]["response"])
    answer = await client.post("/agent", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["response"])


async def refused(client: httpx2.AsyncClient, text: str, status: int = 409) -> dict[str, Any]:
    answer = await client.post("/agent", json={"query": text, "session_id": "s"})
    assert answer.status_code == status, answer.text
    assert ("retry-after" in answer.headers) == (answer.json()["type"] in ("SessionBusy", "ServerBusy"))
    found: dict[str, Any] = answer.json()
    return found


async def events(
    client: httpx2.AsyncClient, method: str, path: str, body: Any = None, *, most: int = 1000, **headers: str
) -> list[tuple[int, str, dict[str, Any]]]:
    """(number, name, data) of a turn's events, up to its end or `most` of them."""
    told: list[tuple[int, str, dict[str, Any]]] = []
    given = {"Accept": "text/event-stream"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream(method, path, json=body, headers=given) as response:
        assert response.status_code == 200
        async for event in httpx2.EventSource(response):
            told.append((int(event.id.rpartition(".")[2]), event.event, json.loads(event.data)))
            if len(told) == most:
                break
    return told


def pick_up(
    client: httpx2.AsyncClient, turn_id: str, seen: int, most: int = 1000
) -> Coroutine[Any, Any, list[tuple[int, str, dict[str, Any]]]]:
    last = {"Last_Event_ID": f"{turn_id}.{seen}"} if seen else {}
    return events(client, "GET", f"/agent/turns/{turn_id}", most=most, **last)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.002)
