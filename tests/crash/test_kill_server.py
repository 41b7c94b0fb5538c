"""A server is killed while many clients are being answered, and started again at its port; and it is asked to end.

Whatever the moment: a turn whose answer somebody got is in the session, once. A turn that was cut off is gone on with when
its client asks again with the same Idempotency-Key: what its user said is there once, and so is the answer. The clients here
ask until they are answered, so in the end each session must hold exactly what was said in it, turn after turn.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest
from serve.process import Process, script
from wire import PATIENCE_S

from praisonaiagents import Session
from praisonaiagents.errors import RemoteError
from praisonaiagents.session.places import open_store
from praisonaiagents.testing.llm import Hang, Say, ScriptedLLM

from .databases import KINDS, place

KILLS = int(os.environ.get("KILLS", "1"))  # of each server; starting it again takes most of the time
MODEL = """
import asyncio
from pydantic_ai.models.function import FunctionModel

async def answer(messages, info):
    heard = [part.content for message in messages for part in message.parts if part.part_kind == "user-prompt"]
    for piece in (f"{len(heard)}:", *heard[-1]):
        await asyncio.sleep(0.01)
        yield piece

model = FunctionModel(stream_function=answer)
"""
Ask = Callable[[str, str], str]  # (what is said, the turn's key) -> the answer. Raises if there is none


def answer_to(user: str, number: int) -> str:
    """What the model answers if it was told each of the user's messages once."""
    return f"{number + 1}:{said(user, number)}"


def said(user: str, number: int) -> str:
    return f"{user}, {number}"


# --- killed ---


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_was_answered_is_kept_and_whatever_was_cut_off_is_gone_on_with(kind: str) -> None:
    seed = os.environ.get("SEED") or str(random.randrange(10**6))
    print(f"SEED={seed}")  # how often and when it is killed follows from it
    chance = random.Random(seed)
    with place(kind) as db, killable(db) as server:
        is_over = threading.Event()
        clients = [Client(server, how, number, is_over) for number, how in enumerate((*WAYS, *WAYS[:2]))]
        with ThreadPoolExecutor(len(clients)) as pool:
            talks = [pool.submit(client.talk) for client in clients]
            try:
                for _ in range(KILLS):
                    wait_for_turns(clients, talks)
                    time.sleep(chance.uniform(0, 0.3))
                    server.kill()
                    server.start()
                wait_for_turns(clients, talks)
            finally:
                is_over.set()
            for talk in talks:
                talk.result()
        assert server.stop() == 0
        assert sum(client.cut_off for client in clients) > 0, "nobody noticed"
        with open_store(db) as store:
            for client in clients:
                history = store.read_from(client.user, 0, user_id=client.user).messages
                assert [message.content for message in history] == client.heard
                assert [message.role for message in history] == ["user", "assistant"] * client.answered
                assert {message.status for message in history} == {None}
                assert len({message.id for message in history}) == len(history)
            assert len(store.list_sessions(None, all_users=True)) == len(clients)


def test_a_stream_goes_on_where_it_was_after_the_server_was_killed() -> None:
    with (
        ScriptedLLM([Hang("One, two, three.", after_chunks=1), Say("One, two, three.")]) as llm,
        place("sqlite") as db,
        Process(script(llm.openai_url, db=db)) as server,
        Session("s", "alice", agent_url=f"{server.url}/agent") as session,
    ):
        pieces = session.stream("Count")
        first = next(pieces)
        server.kill()
        server.start()
        assert first + "".join(pieces) == "One, two, three."
        assert [message["content"] for message in session.history()] == ["Count", "One, two, three."]


def test_an_answer_is_repeated_by_a_server_that_was_killed_after_it() -> None:
    body, key = {"query": "Count", "session_id": "s"}, {"Idempotency-Key": "once"}
    with (
        ScriptedLLM([Say("One, two.")]) as llm,
        place("sqlite") as db,
        Process(script(llm.openai_url, db=db)) as server,
        httpx2.Client(headers=key, timeout=PATIENCE_S) as client,
    ):
        first = ok(client.post(f"{server.url}/agent", json=body)).json()
        server.kill()
        server.start()
        again = ok(client.post(f"{server.url}/agent", json=body))
        assert (again.json(), again.headers["idempotency-replayed"]) == (first, "true")
        assert len(llm.requests) == 1
        found = client.get(f"{server.url}/agent/sessions/s/messages").json()["messages"]
        assert [message["content"] for message in found] == ["Count", "One, two."]


# --- asked to end ---


def test_a_server_that_is_asked_to_end_finishes_its_turns_and_takes_no_new_ones() -> None:
    with (
        ScriptedLLM([Hang("One, two.", after_chunks=1)]) as llm,
        Process(script(llm.openai_url, users={"alices-token": "alice"})) as server,
        httpx2.Client(headers={"Authorization": "Bearer alices-token"}, timeout=PATIENCE_S) as client,
    ):
        with streaming(client, server, "Count") as events:
            assert next(events)[0] == "turn"
            llm.wait_until_hanging()
            server.end()
            wait_until_refused(server, {"Authorization": "Bearer alices-token"})
            llm.release()
            name, last = list(events)[-1]
        assert (name, last["response"]) == ("done", "One, two.")
        assert server.wait() == 0
        assert server.start()
        found = client.get(f"{server.url}/agent/sessions/s/messages").json()["messages"]
        assert [message["content"] for message in found] == ["Count", "One, two."]


def test_a_turn_that_takes_longer_than_a_server_may_is_kept_as_interrupted() -> None:
    with (
        ScriptedLLM([Hang("One, two.", after_chunks=1), Say("Three.")]) as llm,
        place("sqlite") as db,
        Process(script(llm.openai_url, db=db, grace_s=0.3)) as server,
        httpx2.Client(timeout=PATIENCE_S) as client,
    ):
        with streaming(client, server, "Count") as events:
            assert next(events)[0] == "turn"
            assert next(events)[0] == "text"
            server.end()
            name, last = list(events)[-1]
        assert (name, last["type"]) == ("error", "Interrupted")
        assert server.wait() == 0
        with open_store(db) as store:
            user, answer = store.read_from("s", 0, user_id="default_user").messages
        assert (user.content, user.status) == ("Count", None)
        assert (str(answer.content)[:3], answer.status) == ("One", "interrupted")


# --- the clients ---


class Client:
    """A user who says one thing after the other until the talk `is_over`, and asks for each answer until it comes.

    heard: all that the session must hold. cut_off: how often there was no answer, or only a part of it.
    """

    def __init__(
        self, server: Process, how: Callable[[Process, str], Iterator[Ask]], number: int, is_over: threading.Event
    ) -> None:
        self.user = f"user-{number}"
        self.heard: list[str] = []
        self.answered = self.cut_off = 0
        self._how = contextmanager(how)
        self._server = server
        self._is_over = is_over

    def talk(self) -> None:
        with self._how(self._server, self.user) as ask:
            while not self._is_over.is_set():
                text = said(self.user, self.answered)
                answer = self._until_answered(ask, text)
                assert answer == answer_to(self.user, self.answered)
                self.heard += [text, answer]
                self.answered += 1

    def _until_answered(self, ask: Ask, text: str) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return ask(text, f"key of {text}")
            except (httpx2.TransportError, RemoteError):
                self.cut_off += 1
                assert time.monotonic() < deadline
                time.sleep(0.05)


def whole(server: Process, user: str) -> Iterator[Ask]:
    """Answers as a whole, over plain HTTP."""
    with httpx2.Client(timeout=PATIENCE_S) as client:

        def ask(text: str, key: str) -> str:
            body = {"query": text, "session_id": user, "user_id": user}
            response = client.post(f"{server.url}/agent", json=body, headers={"Idempotency-Key": key})
            return str(ok(response).json()["response"])

        yield ask


def streamed(server: Process, user: str) -> Iterator[Ask]:
    """Answers piece by piece, over plain HTTP. One without its end is none."""
    with httpx2.Client(timeout=PATIENCE_S) as client:

        def ask(text: str, key: str) -> str:
            with streaming(client, server, text, session_id=user, user_id=user, key=key) as events:
                told = list(events)
            if told[-1][0] != "done":
                raise httpx2.RemoteProtocolError(f"it ends with {told[-1]}")
            assert "".join(data["text"] for name, data in told if name == "text") == told[-1][1]["response"]
            return str(told[-1][1]["response"])

        yield ask


def remote(server: Process, user: str) -> Iterator[Ask]:
    """Our own client, which asks again by itself, for a while."""
    with Session(user, user, agent_url=f"{server.url}/agent", timeout=PATIENCE_S) as session:
        yield lambda text, key: session.chat(text, idempotency_key=key)


def remote_streamed(server: Process, user: str) -> Iterator[Ask]:
    """The same, piece by piece."""
    with Session(user, user, agent_url=f"{server.url}/agent", timeout=PATIENCE_S) as session:
        yield lambda text, key: "".join(session.stream(text, idempotency_key=key))


WAYS = (whole, streamed, remote, remote_streamed)


@contextmanager
def killable(db: str) -> Iterator[Process]:
    source = script("", agent={"llm": "=model", "base_url": None}, before=MODEL, db=db, per_minute=0)
    with Process(source) as server:
        yield server


def wait_for_turns(clients: list[Client], talks: list[Future[None]]) -> None:
    """Until everybody was answered once more, or somebody failed."""
    before = [client.answered for client in clients]
    deadline = time.monotonic() + PATIENCE_S
    while any(client.answered == count for client, count in zip(clients, before, strict=True)):
        for talk in talks:
            if talk.done():
                talk.result()
        waiting = [client.user for client, count in zip(clients, before, strict=True) if client.answered == count]
        assert time.monotonic() < deadline, f"not answered: {waiting}"
        time.sleep(0.005)


@contextmanager
def streaming(
    client: httpx2.Client, server: Process, text: str, *, session_id: str = "s", key: str | None = None, **more: str
) -> Iterator[Iterator[tuple[str, dict[str, str]]]]:
    """A turn's events: (name, data), as they come."""
    body = {"query": text, "session_id": session_id, "stream": True, **more}
    headers = {"Idempotency-Key": key} if key else {}
    with client.stream("POST", f"{server.url}/agent", json=body, headers=headers) as response:
        if response.status_code != 200:
            response.read()
        yield events_of(ok(response))


def events_of(response: httpx2.Response) -> Iterator[tuple[str, dict[str, str]]]:
    name = ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def ok(response: httpx2.Response) -> httpx2.Response:
    """An answer that is one. A server that ends says so with 503."""
    if response.status_code == 503:
        raise httpx2.ConnectError("it ends")
    assert response.status_code == 200, response.text
    return response


def wait_until_refused(server: Process, headers: dict[str, str]) -> None:
    """Until the server takes no new turn, and says so in one way or the other."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with httpx2.Client(headers=headers, timeout=PATIENCE_S) as client:
                body = {"query": "", "session_id": "s"}  # if it were taken, it would be refused as empty
                response = client.post(f"{server.url}/agent", json=body)
        except httpx2.TransportError:
            return
        if response.status_code == 503:
            return
        assert response.status_code == 400, response.text
        time.sleep(0.01)
    raise AssertionError("it goes on")
