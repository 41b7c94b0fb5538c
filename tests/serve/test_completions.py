"""OpenAI's own client talks to a served agent, and has sessions that are kept by changing its base URL."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from wire import PATIENCE_S

from praisonaiagents import Agent
from praisonaiagents.model.message import Message
from praisonaiagents.serve import Server
from praisonaiagents.session import get_default_session_store
from praisonaiagents.testing.llm import Call, Fail, Hang, Reply, Say, ScriptedLLM, Tool

Json = dict[str, Any]
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nno picture").decode()
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Here(NamedTuple):
    """A server in this process, and the model its agent talks to."""

    llm: ScriptedLLM
    server: Server

    def client(self, session_id: str | None = None, token: str = "none", **options: Any) -> OpenAI:
        """OpenAI's client, in a session of this id."""
        return OpenAI(base_url=self.base_url(session_id), api_key=token, max_retries=0, **options)

    def base_url(self, session_id: str | None) -> str:
        return self.server.url + ("" if session_id is None else f"/sessions/{segment(session_id)}") + "/v1"

    def sent(self, request: int = -1) -> list[tuple[str, Any]]:
        """(role, content) of what the model was sent, without the agent's instructions."""
        return [(message["role"], message.get("content")) for message in self.llm.requests[request].messages[1:]]


def segment(name: str) -> str:
    """A name as one part of a path. Clients take `..` for a step back, however it is meant."""
    return quote(name, safe="").replace(".", "%2E")


@contextmanager
def here(*replies: Reply, tools: Sequence[Callable[..., Any]] = (), **launch: Any) -> Iterator[Here]:
    with (
        ScriptedLLM(replies) as llm,
        assistant(llm, tools=tools) as agent,
        agent.launch(path="/agent", port=0, block=False, **launch) as server,
    ):
        yield Here(llm, server)


def assistant(llm: ScriptedLLM, name: str = "Assistant", **settings: Any) -> Agent:
    return Agent(name, llm="openai/gpt-test", base_url=llm.openai_url, **settings)


def user(text: Any) -> Json:
    return {"role": "user", "content": text}


def ask(client: OpenAI, *messages: str | Json, **more: Any) -> Any:
    """The answer to messages; a text is what the user says."""
    said = [user(one) if isinstance(one, str) else one for one in messages]
    return client.chat.completions.create(model=more.pop("model", "Assistant"), messages=said, **more)  # type: ignore[call-overload]


def text(answer: Any) -> str | None:
    content: str | None = answer.choices[0].message.content
    return content


def kept(session_id: str, user_id: str | None = None) -> list[Any]:
    """The contents of a session's messages."""
    found = get_default_session_store().get_chat_history(session_id, user_id=user_id)
    return [message["content"] for message in found]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


# Sessions


def test_an_answer_has_the_form_that_the_client_expects() -> None:
    with here(Say("Hello Alice", input_tokens=7, output_tokens=3)) as at, at.client() as client:
        answer = ask(client, "I am Alice", model="any")
    choice = answer.choices[0]
    assert (answer.object, answer.model, answer.id[:9]) == ("chat.completion", "any", "chatcmpl-")
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content, choice.message.tool_calls) == (
        "assistant",
        "Hello Alice",
        None,
    )
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)


@pytest.mark.parametrize("way", ["url", "header", "metadata"])
def test_a_session_is_named_in_the_url_in_a_header_or_in_metadata(way: str) -> None:
    ids = ["s", "a/b", "..", "Zürich 🏔", "x" * 300, "100%"]
    with here(*[Say("one"), Say("two")] * len(ids)) as at:
        for session_id in ids:
            talk_in(at, session_id, way)


def talk_in(at: Here, session_id: str, way: str) -> None:
    more: Json = {
        "url": {},
        "header": {"extra_headers": {"X-Session-Id": quote(session_id)}},
        "metadata": {"metadata": {"session_id": session_id}},
    }[way]
    with at.client(session_id if way == "url" else None) as client:
        assert text(ask(client, "first", **more)) == "one"
        raw = client.chat.completions.with_raw_response.create(model="m", messages=[user("second")], **more)
        assert raw.headers["x-session-id"] == quote(session_id, safe="")
        assert at.sent() == [("user", "first"), ("assistant", "one"), ("user", "second")]
    assert kept(session_id) == ["first", "one", "second", "two"]


def test_without_a_session_nothing_is_kept_and_the_conversation_is_what_the_client_sends() -> None:
    with here(Say("one"), Say("two")) as at, at.client() as client:
        ask(client, "first")
        ask(client, "A", {"role": "assistant", "content": "B"}, "C")
        assert at.sent(0) == [("user", "first")]
        assert at.sent(1) == [("user", "A"), ("assistant", "B"), ("user", "C")]
        assert httpx2.get(at.server.url + "/sessions").json()["sessions"] == []


def test_the_history_that_a_client_sends_each_time_is_not_said_twice() -> None:
    with here(Say("one"), Say("two"), Say("three")) as at, at.client("s") as client:
        history: list[Any] = []
        for said in ("first", "second", "third"):
            history.append(user(said))
            history.append({"role": "assistant", "content": text(ask(client, *history))})
        assert [content for _, content in at.sent()] == ["first", "one", "second", "two", "third"]
    assert kept("s") == ["first", "one", "second", "two", "third", "three"]


@pytest.mark.parametrize("is_made", [False, True])
def test_a_new_session_begins_with_the_clients_history(is_made: bool) -> None:
    history = [user("I am Alice"), {"role": "assistant", "content": "Hi Alice"}, user("Who am I?")]
    with here(Say("Alice"), Say("Yes")) as at, at.client("s") as client:
        if is_made:
            assert httpx2.post(at.server.url + "/sessions", json={"session_id": "s"}).status_code == 201
        ask(client, *history)
        ask(client, *history, {"role": "assistant", "content": "something else"}, "Sure?")
        assert [content for _, content in at.sent()] == ["I am Alice", "Hi Alice", "Who am I?", "Alice", "Sure?"]
    assert kept("s") == ["I am Alice", "Hi Alice", "Who am I?", "Alice", "Sure?", "Yes"]


def test_what_the_client_says_as_system_is_said_in_that_turn_besides_the_agents_instructions() -> None:
    with here(Say("one"), Say("two")) as at, at.client("s") as client:
        ask(client, {"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Rhyme."}, "first")
        ask(client, "second")
        first, second = (request.messages[0]["content"] for request in at.llm.requests)
    assert first == "You are Assistant.\n\nBe brief.\n\nRhyme."
    assert second == "You are Assistant."
    assert kept("s") == ["first", "one", "second", "two"]


def test_several_messages_of_the_user_are_said_as_one() -> None:
    picture = [{"type": "text", "text": "and this"}, image()]
    with here(Say("one"), Say("two")) as at, at.client("s") as client:
        ask(client, "this", "that")
        ask(client, "this", user(picture))
    assert kept("s") == ["this\n\nthat", "one", [{"type": "text", "text": "this"}, *picture], "two"]


def test_images_come_as_parts_of_a_message() -> None:
    parts = [{"type": "text", "text": "What is this?"}, image()]
    with here(Say("a picture"), Say("still")) as at, at.client("s") as client:
        ask(client, user(parts))
        ask(client, "And now?")
        sent = at.llm.requests[1].messages[1]["content"]
    assert sent[1]["image_url"]["url"] == f"data:image/png;base64,{PNG}"
    assert kept("s") == [parts, "a picture", "And now?", "still"]


def image() -> Json:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


def test_another_client_goes_on_with_a_session() -> None:
    with here(Say("one"), Say("two")) as at, at.client("s") as client:
        ask(client, "first")
        answer = httpx2.post(at.server.url + "/agent", json={"query": "second", "session_id": "s"}).json()
    assert answer["response"] == "two"
    assert kept("s") == ["first", "one", "second", "two"]


def test_the_asynchronous_client_in_many_sessions_at_once() -> None:
    async def talk(client: AsyncOpenAI, number: int) -> None:
        more: Json = {"extra_headers": {"X-Session-Id": f"s{number}"}}
        for turn in range(3):
            await client.chat.completions.create(model="m", messages=[user(f"{number}.{turn}")], **more)  # type: ignore[list-item]

    async def main(at: Here) -> None:
        async with AsyncOpenAI(base_url=at.base_url(None), api_key="none", max_retries=0) as client:
            await asyncio.gather(*(talk(client, number) for number in range(8)))

    with here(*[Say("yes")] * 24) as at:
        asyncio.run(main(at))
    for number in range(8):
        assert kept(f"s{number}") == [f"{number}.0", "yes", f"{number}.1", "yes", f"{number}.2", "yes"]


# Streams


def test_a_stream_gives_the_answer_in_pieces_and_then_the_tokens_used() -> None:
    with here(Say("one two three", chunks=4)) as at, at.client("s") as client:
        chunks = list(ask(client, "count", stream=True, stream_options={"include_usage": True}))
    *told, last = chunks
    deltas = [chunk.choices[0].delta for chunk in told]
    assert deltas[0].role == "assistant"
    assert [delta.content for delta in deltas if delta.content] == ["one", " tw", "o t", "hree"]
    assert [chunk.choices[0].finish_reason for chunk in told][-2:] == [None, "stop"]
    assert (last.choices, last.usage.total_tokens) == ([], 15)
    assert {(chunk.object, chunk.id) for chunk in chunks} == {("chat.completion.chunk", chunks[0].id)}
    assert kept("s") == ["count", "one two three"]


def test_a_stream_tells_no_usage_unless_asked() -> None:
    with here(Say("yes")) as at, at.client() as client:
        assert {chunk.usage for chunk in ask(client, "x", stream=True)} == {None}


def test_the_asynchronous_client_streams() -> None:
    async def main(at: Here) -> str:
        async with AsyncOpenAI(base_url=at.base_url("s"), api_key="none") as client:
            stream = await client.chat.completions.create(model="m", messages=[user("x")], stream=True)  # type: ignore[list-item]
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    with here(Say("one two")) as at:
        assert asyncio.run(main(at)) == "one two"


def test_a_stream_that_its_reader_leaves_goes_on_in_a_session() -> None:
    with here(Hang("one two three", after_chunks=1, chunks=3)) as at, at.client("s") as client:
        with ask(client, "count", stream=True) as stream:
            next(piece for piece in stream if piece.choices[0].delta.content)
        at.llm.release()
        wait_until(lambda: kept("s") == ["count", "one two three"])


def test_a_stream_that_its_reader_leaves_ends_where_nothing_is_kept() -> None:
    with here(Hang("one two three", after_chunks=1, chunks=3)) as at, at.client() as client:
        with ask(client, "count", stream=True) as stream:
            next(piece for piece in stream if piece.choices[0].delta.content)
            assert httpx2.get(at.server.url + "/health/ready").json()["turns"] == 1
        wait_until(lambda: httpx2.get(at.server.url + "/health/ready").json()["turns"] == 0)  # the model still hangs


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline


# Tools


def test_the_agents_own_tools_are_not_the_clients_business() -> None:
    calls = Call([Tool("add", {"a": 1, "b": 2})], text="Let me see.")
    with here(calls, Say("3"), calls, Say("3"), tools=[add]) as at, at.client("s") as client:
        answer = ask(client, "1 + 2?")
        streamed = list(ask(client, "again", stream=True))
    assert (text(answer), answer.choices[0].message.tool_calls, answer.choices[0].finish_reason) == ("3", None, "stop")
    assert answer.usage.total_tokens == 30
    assert not any(chunk.choices[0].delta.tool_calls for chunk in streamed)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "Let me see.\n\n3"
    assert streamed[-1].choices[0].finish_reason == "stop"
    assert kept("s")[:4] == ["1 + 2?", "Let me see.", "3", "3"]


@pytest.mark.parametrize("session_id", ["s", None])
@pytest.mark.parametrize("whole", [True, False], ids=["whole history", "only what is new"])
def test_a_tool_of_the_client_is_called_by_the_client(session_id: str | None, whole: bool) -> None:
    if session_id is None and not whole:
        whole = True  # there is no other way
    with here(Call([Tool("weather", {"city": "Oslo"}, id="c1")]), Say("Snow")) as at, at.client(session_id) as client:
        answer = ask(client, "Oslo?", tools=[WEATHER])
        called = answer.choices[0].message
        assert answer.choices[0].finish_reason == "tool_calls"
        assert [(call.id, call.function.name) for call in called.tool_calls] == [("c1", "weather")]
        assert json.loads(called.tool_calls[0].function.arguments) == {"city": "Oslo"}
        history = [user("Oslo?"), called.model_dump(exclude_none=True)] if whole else []
        result = {"role": "tool", "tool_call_id": "c1", "content": "snow, -5"}
        assert text(ask(client, *history, result, tools=[WEATHER])) == "Snow"
        assert at.sent() == [("user", "Oslo?"), ("assistant", None), ("tool", "snow, -5")]
        assert at.llm.requests[0].body["tools"][0]["function"]["description"] == "The weather of a city."
    assert kept("s") == (["Oslo?", None, "snow, -5", "Snow"] if session_id else [])


def test_calls_of_the_clients_tools_in_a_stream() -> None:
    calls = Call([Tool("weather", {"city": "Oslo"}, id="c1"), Tool("weather", {"city": "Rome"}, id="c2")], text="Well")
    with here(calls, Say("Cold and warm")) as at, at.client("s") as client:
        with client.chat.completions.stream(model="m", messages=[user("?")], tools=[WEATHER]) as stream:  # type: ignore[list-item]
            called = stream.get_final_completion().choices[0]
        assert called.finish_reason == "tool_calls"
        assert called.message.content == "Well"
        assert [json.loads(call.function.arguments)["city"] for call in called.message.tool_calls or ()] == [
            "Oslo",
            "Rome",
        ]
        results = [
            {"role": "tool", "tool_call_id": "c2", "content": "warm"},
            {"role": "tool", "tool_call_id": "c1", "content": "cold"},
        ]
        chunks = list(ask(client, *results, stream=True, tools=[WEATHER]))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Cold and warm"
        assert at.sent()[-2:] == [("tool", "cold"), ("tool", "warm")]  # in the order of the calls


@pytest.mark.parametrize("stored", [2, 3, 4], ids=["no result", "one result", "both results"])
def test_a_turn_that_was_cut_off_among_its_results_is_gone_on_with(stored: int) -> None:
    calls = Call([Tool("weather", {"city": "Oslo"}, id="c1"), Tool("weather", {"city": "Rome"}, id="c2")])
    results = [{"role": "tool", "tool_call_id": call, "content": f"fine at {call}"} for call in ("c1", "c2")]
    again = {"tools": [WEATHER], "extra_headers": {"Idempotency-Key": "k"}}
    with here(calls, Say("Fine")) as at, at.client("s") as client:
        ask(client, "?", tools=[WEATHER])
        assert text(ask(client, *results, "So?", **again)) == "Fine"
    everything = kept("s")
    store = get_default_session_store()
    messages = store.messages("s")
    store.delete_session("s")
    store.append("s", messages[:stored])  # as after a crash
    with here(Say("Fine")) as at, at.client("s") as client:
        assert text(ask(client, *results, "So?", **again)) == "Fine"
    assert kept("s") == everything == ["?", None, "fine at c1", "fine at c2", "So?", "Fine"]


def test_tools_of_the_client_and_of_the_agent_are_called_side_by_side() -> None:
    calls = Call([Tool("add", {"a": 1, "b": 2}, id="own"), Tool("weather", {"city": "Oslo"}, id="theirs")])
    with here(calls, Say("3, and snow"), tools=[add]) as at, at.client("s") as client:
        answer = ask(client, "?", tools=[WEATHER])
        assert answer.choices[0].finish_reason == "tool_calls"
        assert [call.id for call in answer.choices[0].message.tool_calls] == ["theirs"]
        history = [user("?"), answer.choices[0].message.model_dump(exclude_none=True)]
        result = {"role": "tool", "tool_call_id": "theirs", "content": "snow"}
        assert text(ask(client, *history, result, tools=[WEATHER])) == "3, and snow"
        assert at.sent() == [("user", "?"), ("assistant", None), ("tool", "3"), ("tool", "snow")]


def test_the_user_says_something_besides_a_result() -> None:
    with here(Call([Tool("weather", {"city": "Oslo"}, id="c1")]), Say("Snow")) as at, at.client("s") as client:
        ask(client, "Oslo?", tools=[WEATHER])
        ask(client, {"role": "tool", "tool_call_id": "c1", "content": "snow"}, "In one word")
    assert kept("s") == ["Oslo?", None, "snow", "In one word", "Snow"]


def test_no_tool_is_called_if_the_client_says_so() -> None:
    with here(Say("no")) as at, at.client() as client:
        ask(client, "x", tools=[WEATHER], tool_choice="none")
        assert "tools" not in at.llm.requests[0].body


# Settings


def test_settings_reach_the_model() -> None:
    settings: Json = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "presence_penalty": 1, "frequency_penalty": -1}
    with here(Say("one"), Say("two")) as at, at.client("s") as client:
        ask(client, "x", max_tokens=50, stop="END", **settings)
        ask(client, "x", max_completion_tokens=60)
        first, second = (request.body for request in at.llm.requests)
    assert {name: first[name] for name in settings} == settings
    assert first["stop"] == ["END"]
    assert 50 in (first.get("max_tokens"), first.get("max_completion_tokens"))
    assert 60 in (second.get("max_tokens"), second.get("max_completion_tokens"))
    assert "temperature" not in second


def test_agents_are_listed_as_models_and_called_by_their_names() -> None:
    with ScriptedLLM([Say("from sales"), Say("from help"), Say("from the other")]) as llm:
        agents = [assistant(llm, name) for name in ("Sales", "Help", "Help")]
        with agents[0].launch(path="/sales", port=0, block=False) as server:
            agents[1].launch(path="/help", port=server.port, block=False)
            agents[2].launch(path="/other", port=server.port, block=False)
            at = Here(llm, server)
            with at.client("s") as client:
                assert [model.id for model in client.models.list()] == ["Sales", "Help", "other"]
                assert client.models.retrieve("Help").id == "Help"
                answers = [text(ask(client, "hello", model=name)) for name in ("Sales", "Help", "other")]
                with pytest.raises(openai.NotFoundError) as failure:
                    ask(client, "hello", model="gpt-4o")
                with pytest.raises(openai.NotFoundError):
                    client.models.retrieve("gpt-4o")
            with OpenAI(base_url=server.url + "/help/v1", api_key="none") as client:
                assert [model.id for model in client.models.list()] == ["Help"]
        for agent in agents:
            agent.close()
    assert answers == ["from sales", "from help", "from the other"]
    assert failure.value.code == "model_not_found"
    assert "Sales, Help, other" in failure.value.message


# Users


def test_users_never_see_each_other() -> None:
    users = {"token-of-alice": "alice", "token-of-bob": "bob"}
    with here(Say("one"), Say("two"), Say("three"), users=users) as at:
        with at.client("s", "token-of-alice") as client:
            ask(client, "I am Alice")
        with at.client("s", "token-of-bob") as client:
            ask(client, "Who am I?")
            assert at.sent() == [("user", "Who am I?")]
            ask(client, "Who is there?", metadata={"user_id": "bob"})
            with pytest.raises(openai.PermissionDeniedError):
                ask(client, "Let me see", metadata={"user_id": "alice"})
    assert kept("s", "alice") == ["I am Alice", "one"]
    assert kept("s", "bob") == ["Who am I?", "two", "Who is there?", "three"]


def test_the_same_idempotency_key_of_two_users_is_two_turns() -> None:
    users = {"token-of-alice": "alice", "token-of-bob": "bob"}
    with here(Say("for Alice"), Say("for Bob"), users=users) as at:
        for token, answer in (("token-of-alice", "for Alice"), ("token-of-bob", "for Bob")):
            with at.client("s", token) as client:
                assert text(ask(client, "hello", extra_headers={"Idempotency-Key": "k"})) == answer


def test_a_trusted_caller_says_the_user() -> None:
    with here(Say("one"), Say("two"), token="secret-token") as at, at.client("s", "secret-token") as client:
        ask(client, "hello", metadata={"user_id": "alice"})
        ask(client, "hello", extra_headers={"X-User-Id": "bob"})
    assert kept("s", "alice") == ["hello", "one"]
    assert kept("s", "bob") == ["hello", "two"]


# What goes wrong


@pytest.mark.parametrize("token", ["wrong-token", "none"])
def test_a_wrong_token_is_an_authentication_error(token: str) -> None:
    with here(token="secret-token") as at, at.client("s", token) as client:
        with pytest.raises(openai.AuthenticationError, match="a valid token is needed") as failure:
            ask(client, "hello")
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        assert (failure.value.code, failure.value.type) == ("Unauthorized", "invalid_request_error")
    assert kept("s") == []


def test_a_busy_session_is_a_conflict() -> None:
    with here(Hang("slow"), busy="reject") as at, at.client("s") as client, ThreadPoolExecutor() as pool:
        first = pool.submit(ask, client, "hello")
        at.llm.wait_until_hanging()
        for stream in (False, True):
            with pytest.raises(openai.ConflictError) as failure:
                ask(client, "me too", stream=stream)
            assert failure.value.code == "SessionBusy"
            assert failure.value.response.headers["retry-after"] == "1"
        at.llm.release()
        assert text(first.result()) == "slow"
    assert kept("s") == ["hello", "slow"]


def test_a_model_that_fails_is_an_error_and_the_client_does_not_say_it_again() -> None:
    with here(Fail(500), Say("well")) as at, OpenAI(base_url=at.base_url("s"), api_key="none") as client:
        with pytest.raises(openai.InternalServerError, match="HTTP 500") as failure:
            ask(client, "hello")
        assert (failure.value.code, failure.value.type) == ("ModelError", "server_error")
        assert len(at.llm.requests) == 1
        assert text(ask(client, "again")) == "well"
        assert at.sent() == [("user", "again")]
    assert kept("s") == ["hello", "", "again", "well"]


def test_a_model_that_fails_ends_a_stream_with_the_error() -> None:
    error = pytest.raises(openai.APIError, match="Error processing query")
    with here(Fail(503)) as at, at.client("s") as client, error:
        list(ask(client, "hello", stream=True))


def test_a_turn_that_takes_too_long_is_stopped() -> None:
    late = pytest.raises(openai.InternalServerError)
    with here(Hang("slow", after_chunks=1), turn_timeout_s=0.2) as at, at.client("s") as client, late as failure:
        ask(client, "hello")
    assert (failure.value.status_code, failure.value.code) == (504, "TurnTimeout")


def test_too_many_requests_are_a_rate_limit() -> None:
    users = {"token-of-alice": "alice"}
    with here(Say("one"), per_minute=1, users=users) as at, at.client(token="token-of-alice") as client:
        ask(client, "hello")
        with pytest.raises(openai.RateLimitError) as failure:
            ask(client, "hello")
    assert int(failure.value.response.headers["retry-after"]) > 0


def test_a_message_that_is_too_long_is_refused() -> None:
    with here(max_message_chars=10, max_body_bytes=2000) as at, at.client("s") as client:
        for too_long in ("x" * 11, "x" * 3000):
            with pytest.raises(openai.APIStatusError) as failure:
                ask(client, too_long)
            assert failure.value.status_code == 413
    assert kept("s") == []


def test_a_request_that_is_repeated_with_its_key_is_answered_once() -> None:
    calls = Call([Tool("add", {"a": 1, "b": 2}, id="own"), Tool("weather", {"city": "Oslo"}, id="theirs")])
    with here(calls, Say("done"), tools=[add]) as at, at.client("s") as client:
        key: Json = {"extra_headers": {"Idempotency-Key": "k1"}, "tools": [WEATHER]}
        first, second = (ask(client, "hello", **key) for _ in range(2))
        assert first.choices == second.choices
        assert first.id == second.id
        raw = client.chat.completions.with_raw_response.create(model="m", messages=[user("hello")], **key)  # type: ignore[list-item]
        assert raw.headers["idempotency-replayed"] == "true"
        streamed = list(ask(client, "hello", stream=True, **key))
        assert streamed[-2].choices[0].delta.tool_calls[0].id == "theirs"
        with pytest.raises(openai.UnprocessableEntityError) as failure:
            ask(client, "something else", **key)
        assert failure.value.code == "IdempotencyKeyReused"
        assert len(at.llm.requests) == 1
        result = {"role": "tool", "tool_call_id": "theirs", "content": "snow"}
        answers = [text(ask(client, result, extra_headers={"Idempotency-Key": "k2"})) for _ in range(2)]
    assert answers == ["done", "done"]
    assert kept("s") == ["hello", None, "3", "snow", "done"]


def test_the_first_answer_is_repeated_by_a_server_that_was_started_again() -> None:
    calls = Call([Tool("weather", {"city": "Oslo"}, id="theirs"), Tool("add", {"a": 1, "b": 2}, id="own")])
    key: Json = {"extra_headers": {"Idempotency-Key": "k1"}, "tools": [WEATHER]}
    with here(calls, tools=[add]) as at, at.client("s") as client:
        first = ask(client, "hello", **key)
    with here(tools=[add]) as at, at.client("s") as client:
        second = ask(client, "hello", **key)
    assert (first.id, first.choices) == (second.id, second.choices)
    assert kept("s") == ["hello", None, "3"]


def test_a_request_without_a_session_is_answered_once_with_its_key_too() -> None:
    key: Json = {"extra_headers": {"Idempotency-Key": "k1"}}
    history = [user("I am Alice"), {"role": "assistant", "content": "Hi"}]
    with here(Say("Alice"), Say("still Alice")) as at, at.client() as client:
        first = ask(client, *history, "Who am I?", **key)
        raw = client.chat.completions.with_raw_response.create(model="m", messages=[*history, user("Who am I?")], **key)
        assert raw.headers["idempotency-replayed"] == "true"
        assert json.loads(raw.text)["id"] == first.id
        for other in (["Who am I?"], [*history, "Who are you?"]):
            with pytest.raises(openai.UnprocessableEntityError):
                ask(client, *other, **key)
        assert len(at.llm.requests) == 1
        assert text(ask(client, *history, "Who am I?")) == "still Alice"


def test_a_stream_without_a_session_is_picked_up_by_its_key() -> None:
    key: Json = {"extra_headers": {"Idempotency-Key": "k1"}}
    with here(Hang("one two three", after_chunks=1, chunks=3)) as at, at.client() as client:
        with ask(client, "count", stream=True, **key) as stream:
            next(piece for piece in stream if piece.choices[0].delta.content)
        at.llm.release()
        assert text(ask(client, "count", **key)) == "one two three"


def test_a_request_that_is_refused_because_the_server_is_full_begins_no_session() -> None:
    history = [user("I am Alice"), {"role": "assistant", "content": "Hi"}]
    with here(max_turns=0) as at, at.client("s") as client:
        with pytest.raises(openai.InternalServerError):
            ask(client, *history, "Who am I?")
        assert not at.server.service.store.session_exists("s")


def test_the_history_that_a_session_begins_with_is_kept_as_the_agent_keeps_it(tmp_path: Path) -> None:
    history = [one for _ in range(4) for one in (user("q"), {"role": "assistant", "content": "a"})]
    with (
        ScriptedLLM([Say("yes")]) as llm,
        assistant(llm, "Brief", memory={"max_messages": 2}) as brief,
        assistant(llm, "Long") as long,
        brief.launch(path="/brief", port=0, block=False, db=f"sqlite:///{tmp_path}/s.db") as server,
        Here(llm, server).client("s") as client,
    ):
        long.launch(path="/long", port=server.port, block=False)
        ask(client, *history, "and now", model="Long")
        found = server.service.store.read_from("s", 0).messages
    assert [message.content for message in found] == ["q", "a"] * 4 + ["and now", "yes"]


HOSTILE: dict[str, Any] = {
    "no messages": [],
    "messages are text": "hello",
    "messages are null": None,
    "a message is text": ["hello"],
    "no role": [{"content": "x"}],
    "a role nobody has": [{"role": "hacker", "content": "x"}],
    "a role that is a number": [{"role": 7, "content": "x"}],
    "content is a number": [user(7)],
    "content is an object": [user({"type": "text", "text": "x"})],
    "content is nothing": [{"role": "user"}],
    "content is empty": [user("")],
    "content is blank": [user(" \n ")],
    "no parts": [user([])],
    "a part is text": [user(["x"])],
    "a part nobody knows": [user([{"type": "virus"}])],
    "a part without what it should hold": [user([{"type": "image_url"}])],
    "a picture that is none": [user([{"type": "image_url", "image_url": {"url": "data:,%%%"}}])],
    "only a system message": [{"role": "system", "content": "x"}],
    "the last one is an answer": [user("x"), {"role": "assistant", "content": "y"}],
    "a result without a call id": [{"role": "tool", "content": "x"}],
    "a result of no call": [user("x"), {"role": "tool", "tool_call_id": "c9", "content": "x"}],
    "a call id that is a number": [{"role": "tool", "tool_call_id": 7, "content": "x"}],
    "calls are text": [user("x"), {"role": "assistant", "tool_calls": "all"}, user("y")],
    "a call without a function": [user("x"), {"role": "assistant", "tool_calls": [{"id": "c"}]}, user("y")],
    "half a character": [user("\ud800")],
}


@pytest.mark.parametrize("messages", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("session_id", ["s", None])
def test_messages_that_make_no_sense_are_refused_and_lose_nothing(
    hostile: Here, session_id: str | None, messages: Any
) -> None:
    url = hostile.base_url(session_id) + "/chat/completions"
    refused = httpx2.post(url, content=json.dumps({"model": "m", "messages": messages}), headers=_JSON)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
    store = hostile.server.service.store
    assert [message["content"] for message in store.get_chat_history("s")] == ["hello", "hi"]
    assert len(store.list_sessions()) == 1
    assert hostile.llm.requests == []


def test_a_message_that_is_refused_begins_no_session(hostile: Here) -> None:
    history = [user("I am Alice"), {"role": "assistant", "content": "Hi"}, user([{"type": "virus"}])]
    with hostile.client("new") as client, pytest.raises(openai.BadRequestError, match="virus"):
        ask(client, *history)
    assert not hostile.server.service.store.session_exists("new")


HOSTILE_SETTINGS: list[Json] = [
    {"n": 2},
    {"temperature": "hot"},
    {"temperature": 3},
    {"max_tokens": 0},
    {"max_tokens": 10**30},
    {"seed": 2**70},
    {"stream": "yes"},
    {"tools": {}},
    {"tools": [{"type": "function"}]},
    {"tools": [{"type": "function", "function": {"name": "no way"}}]},
    {"tools": [WEATHER, WEATHER]},
    {"tools": [{"type": "function", "function": {"name": "add"}}]},
    {"tool_choice": "required"},
    {"response_format": {"type": "json_object"}},
    {"metadata": {"session_id": 7}},
    {"metadata": {"session_id": "\u0000"}},
    {"metadata": {"user_id": ["alice"]}},
    {"model": None},
]


@pytest.mark.parametrize("settings", HOSTILE_SETTINGS, ids=[json.dumps(one)[:40] for one in HOSTILE_SETTINGS])
def test_settings_that_make_no_sense_are_refused(hostile: Here, settings: Json) -> None:
    url = hostile.base_url(None) + "/chat/completions"
    refused = httpx2.post(url, json={"model": "m", "messages": [user("x")], **settings})
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert hostile.llm.requests == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"messages": "x"}'])
def test_a_body_that_is_no_request_is_refused_in_openais_words(hostile: Here, body: bytes) -> None:
    refused = httpx2.post(hostile.base_url("s") + "/chat/completions", content=body, headers=_JSON)
    assert refused.status_code == 400
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("name", ["%ff", "é", "%00", "x" * 1025])
def test_a_session_that_nobody_can_be_in_is_refused(hostile: Here, name: str) -> None:
    headers = {"X-Session-Id": name.encode()}
    refused = httpx2.post(hostile.base_url(None) + "/chat/completions", json={"messages": [user("x")]}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """One server for all that is refused, with a session in which something was said."""
    with here(tools=[add], db=f"sqlite:///{tmp_path_factory.mktemp('hostile')}/s.db", per_minute=0) as at:
        at.server.service.store.append("s", [Message("user", "hello"), Message("assistant", "hi")])
        yield at


_JSON = {"Content-Type": "application/json"}


def test_a_thousand_messages_are_a_conversation_like_any_other() -> None:
    history = [
        one for number in range(500) for one in (user(f"{number}"), {"role": "assistant", "content": f"a{number}"})
    ]
    with here(Say("one"), Say("two")) as at, at.client("s") as client, at.client() as unkept:
        ask(client, *history, "now")
        ask(unkept, *history, "now")
        assert len(at.sent(0)) == len(at.sent(1)) == 1001
    assert len(kept("s")) == 1002


def test_answers_without_questions_and_calls_without_results_are_sent_as_a_model_takes_them() -> None:
    odd = [
        {"role": "assistant", "content": "I was first"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{no"}}],
        },
        {"role": "tool", "tool_call_id": "c7", "content": "nobody asked"},
        {"role": "assistant", "content": None},
    ]
    with here(Say("one"), Say("two"), Say("three")) as at, at.client("s") as client, at.client() as unkept:
        assert text(ask(client, *odd, "now")) == "one"
        assert text(ask(client, "and now")) == "two"
        assert text(ask(unkept, *odd, "now")) == "three"
        assert ("tool", "nobody asked") not in at.sent(0) + at.sent(2)
