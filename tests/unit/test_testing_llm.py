"""The scripted LLM is held against the official clients, which know the providers' protocols better than a test does.

`_strict_response_validation` makes them check every answer against the provider's schema; without it they take
anything.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anthropic
import openai
import pytest
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from praisonaiagents.testing import llm as llm_module
from praisonaiagents.testing.llm import Call, Fail, Hang, Reply, Request, Say, ScriptedLLM, Tool

KEY = "sk-very-secret"
USER: list[Any] = [{"role": "user", "content": "hello"}]
ADD = Tool("add", {"a": 1, "b": 2})
MUL = Tool("mul", {"a": 3, "b": 'é\n"quoted" 🙂'}, id="mine")
SENTENCE = "Grüße, 世界 🙂!"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def openai_client(llm: ScriptedLLM) -> Iterator[openai.OpenAI]:
    options: Any = {"api_key": KEY, "timeout": 60, "_strict_response_validation": True}
    with openai.OpenAI(base_url=llm.openai_url, **options) as client:
        yield client


@contextmanager
def anthropic_client(llm: ScriptedLLM) -> Iterator[anthropic.Anthropic]:
    options: Any = {"api_key": KEY, "timeout": 60, "_strict_response_validation": True}
    with anthropic.Anthropic(base_url=llm.anthropic_url, **options) as client:
        yield client


def ask_openai(llm: ScriptedLLM, messages: list[Any] = USER, **options: Any) -> Any:
    with openai_client(llm) as client:
        return client.chat.completions.create(model="gpt-test", messages=messages, **options)


def ask_anthropic(llm: ScriptedLLM, messages: list[Any] = USER, **options: Any) -> Any:
    with anthropic_client(llm) as client:
        return client.messages.create(model="claude-test", max_tokens=100, messages=messages, **options)


Ask = Callable[..., Any]
both = pytest.mark.parametrize("ask", [ask_openai, ask_anthropic])


def stream_openai(llm: ScriptedLLM, **options: Any) -> list[Any]:
    with openai_client(llm) as client:
        return list(client.chat.completions.create(model="gpt-test", messages=USER, stream=True, **options))


def stream_anthropic(llm: ScriptedLLM) -> tuple[list[Any], Any]:
    with (
        anthropic_client(llm) as client,
        client.messages.stream(model="claude-test", max_tokens=100, messages=USER) as stream,
    ):
        return list(stream), stream.get_final_message()


class TestOpenAI:
    def test_a_text(self) -> None:
        with ScriptedLLM([Say(SENTENCE, input_tokens=7, output_tokens=4)]) as llm:
            answer = ask_openai(llm)
        assert (answer.id, answer.created, answer.model) == ("chatcmpl-1", llm_module.CREATED, "gpt-test")
        assert answer.choices[0].message.content == SENTENCE
        assert answer.choices[0].finish_reason == "stop"
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 4, 11)

    def test_parallel_tool_calls(self) -> None:
        with ScriptedLLM([Call([ADD, MUL])]) as llm:
            choice = ask_openai(llm).choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        calls = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls]
        assert calls == [("call_1", "add", ADD.arguments), ("mine", "mul", MUL.arguments)]

    def test_a_streamed_text(self) -> None:
        with ScriptedLLM([Say(SENTENCE, chunks=4, input_tokens=7, output_tokens=4)]) as llm:
            chunks = stream_openai(llm, stream_options={"include_usage": True})
        pieces = [chunk.choices[0].delta.content for chunk in chunks[1:-2]]
        assert (len(pieces), "".join(pieces)) == (4, SENTENCE)
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * 5 + ["stop"]
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * 6
        assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 11)
        assert {chunk.id for chunk in chunks} == {"chatcmpl-1"}

    def test_no_usage_in_a_stream_unless_asked_for(self) -> None:
        with ScriptedLLM([Say("hi")]) as llm:
            chunks = stream_openai(llm)
        assert all("usage" not in chunk.model_fields_set and chunk.choices for chunk in chunks)

    def test_streamed_tool_calls(self) -> None:
        with (
            ScriptedLLM([Call([ADD, MUL], text="Let me see.")]) as llm,
            openai_client(llm) as client,
            client.chat.completions.stream(model="gpt-test", messages=USER) as stream,
        ):
            choice = stream.get_final_completion().choices[0]
        assert (choice.message.content, choice.finish_reason) == ("Let me see.", "tool_calls")
        calls = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls or ()]
        assert calls == [("call_1", "add", ADD.arguments), ("mine", "mul", MUL.arguments)]

    def test_a_stream_without_text_has_no_text(self) -> None:
        with ScriptedLLM([Call([ADD])]) as llm:
            chunks = stream_openai(llm)
        assert all(chunk.choices[0].delta.content is None for chunk in chunks)
        assert len(chunks) == 1 + 1 + 3 + 1

    def test_the_models(self) -> None:
        with ScriptedLLM([]) as llm, openai_client(llm) as client:
            assert [model.id for model in client.models.list()] == ["scripted"]

    @pytest.mark.parametrize(
        ("status", "error", "code"),
        [
            (400, openai.BadRequestError, None),
            (401, openai.AuthenticationError, "invalid_api_key"),
            (404, openai.NotFoundError, "model_not_found"),
            (429, openai.RateLimitError, "rate_limit_exceeded"),
            (500, openai.InternalServerError, None),
        ],
    )
    def test_an_error(self, status: int, error: type[openai.APIStatusError], code: str | None) -> None:
        with ScriptedLLM([Fail(status, "too bad")]) as llm, pytest.raises(error, match="too bad") as caught:
            ask_openai(llm)
        assert (caught.value.status_code, caught.value.code) == (status, code)
        assert len(llm.requests) == 1


class TestAnthropic:
    def test_a_text(self) -> None:
        with ScriptedLLM([Say(SENTENCE, input_tokens=7, output_tokens=4)]) as llm:
            answer = ask_anthropic(llm)
        assert (answer.id, answer.model, answer.role) == ("msg_1", "claude-test", "assistant")
        assert [block.text for block in answer.content] == [SENTENCE]
        assert answer.stop_reason == "end_turn"
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 4)

    def test_parallel_tool_calls(self) -> None:
        with ScriptedLLM([Call([ADD, MUL], text="Let me see.")]) as llm:
            answer = ask_anthropic(llm)
        assert answer.stop_reason == "tool_use"
        text, *calls = answer.content
        assert text.text == "Let me see."
        assert [(c.id, c.name, c.input) for c in calls] == [
            ("call_1", "add", ADD.arguments),
            ("mine", "mul", MUL.arguments),
        ]

    def test_a_streamed_text(self) -> None:
        with ScriptedLLM([Say(SENTENCE, chunks=4, input_tokens=7, output_tokens=4)]) as llm:
            events, answer = stream_anthropic(llm)
        pieces = [event.text for event in events if event.type == "text"]
        assert (len(pieces), "".join(pieces)) == (4, SENTENCE)
        assert [block.text for block in answer.content] == [SENTENCE]
        assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == ("end_turn", 7, 4)

    @pytest.mark.parametrize("text", [None, "Let me see."])
    def test_streamed_tool_calls(self, text: str | None) -> None:
        with ScriptedLLM([Call([ADD, MUL], text=text)]) as llm:
            events, answer = stream_anthropic(llm)
        content = [(block.type, getattr(block, "id", None), getattr(block, "input", None)) for block in answer.content]
        calls = [("tool_use", "call_1", ADD.arguments), ("tool_use", "mine", MUL.arguments)]
        assert content == [("text", None, None)] * (text is not None) + calls
        assert answer.stop_reason == "tool_use"
        starts = [event.index for event in events if event.type == "content_block_start"]
        assert starts == list(range(len(content)))

    def test_the_order_of_events(self) -> None:
        with ScriptedLLM([Say("hi", chunks=2)]) as llm:
            lines = raw_stream(llm, "/v1/messages").splitlines()
        assert [line.removeprefix("event: ") for line in lines if line.startswith("event: ")] == [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]

    @pytest.mark.parametrize(
        ("status", "error", "kind"),
        [
            (400, anthropic.BadRequestError, "invalid_request_error"),
            (401, anthropic.AuthenticationError, "authentication_error"),
            (429, anthropic.RateLimitError, "rate_limit_error"),
            (500, anthropic.InternalServerError, "api_error"),
            (529, anthropic.InternalServerError, "overloaded_error"),
        ],
    )
    def test_an_error(self, status: int, error: type[anthropic.APIStatusError], kind: str) -> None:
        with ScriptedLLM([Fail(status, "too bad")]) as llm, pytest.raises(error, match="too bad") as caught:
            ask_anthropic(llm)
        assert (caught.value.status_code, caught.value.type) == (status, kind)
        assert len(llm.requests) == 1


class TestTheRecord:
    def test_the_message_list_as_sent(self) -> None:
        messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [TEXT_PART]}]
        with ScriptedLLM([Say("a"), Say("b")]) as llm:
            ask_openai(llm, messages, temperature=0.5)
            ask_anthropic(llm, system="be brief")
        first, second = llm.requests
        assert (first.method, first.path, first.messages) == ("POST", "/v1/chat/completions", messages)
        assert first.body == {"model": "gpt-test", "messages": messages, "temperature": 0.5}
        assert (second.path, second.messages, second.body["system"]) == ("/v1/messages", USER, "be brief")

    @both
    def test_never_the_key(self, ask: Ask) -> None:
        with ScriptedLLM([Say("a")]) as llm:
            ask(llm)
        assert llm.requests[0].had_key
        assert KEY not in repr(llm.requests)
        assert "content-type" in llm.requests[0].headers

    def test_a_request_without_a_key(self) -> None:
        with ScriptedLLM([Say("a")]) as llm:
            raw_stream(llm, "/v1/messages")
        assert not llm.requests[0].had_key


TEXT_PART = {"type": "text", "text": "hello"}


class TestTheScript:
    @both
    def test_one_that_ends_too_early(self, ask: Ask) -> None:
        def use_two() -> None:
            with ScriptedLLM([Say("only one")]) as llm:
                ask(llm)
                with pytest.raises((openai.InternalServerError, anthropic.InternalServerError), match="no reply left"):
                    ask(llm)
                assert len(llm.requests) == 2

        with pytest.raises(AssertionError, match="no reply left for request 2"):
            use_two()

    def test_an_error_in_the_block_is_not_replaced(self) -> None:
        with pytest.raises(openai.InternalServerError), ScriptedLLM([]) as llm:
            ask_openai(llm)

    def test_a_function_of_the_request(self) -> None:
        with ScriptedLLM(lambda request: Say(request.messages[-1]["content"].upper())) as llm:
            assert ask_openai(llm).choices[0].message.content == "HELLO"
            assert ask_anthropic(llm).content[0].text == "HELLO"

    def test_a_function_that_raises(self) -> None:
        def script(request: Request) -> Reply:
            raise ValueError("not this one")

        def use_it() -> None:
            with ScriptedLLM(script) as llm, pytest.raises(openai.InternalServerError, match="not this one"):
                ask_openai(llm)

        with pytest.raises(AssertionError, match="not this one"):
            use_it()

    @both
    def test_a_retry_takes_the_next_reply(self, ask: Ask) -> None:
        with ScriptedLLM([Fail(500, retry=True), Say("then")]) as llm:
            assert "then" in repr(ask(llm))
        assert len(llm.requests) == 2

    def test_an_id_is_not_given_twice_to_one_conversation(self) -> None:
        history = [*USER, assistant_calls("call_1"), tool_result("call_1")]
        with ScriptedLLM([Call([ADD, ADD]), Call([ADD])]) as llm:
            first = ask_openai(llm, history).choices[0].message.tool_calls
            second = ask_openai(llm).choices[0].message.tool_calls
        assert [call.id for call in [*first, *second]] == ["call_2", "call_3", "call_4"]


def assistant_calls(*ids: str) -> dict[str, Any]:
    function = {"name": "add", "arguments": "{}"}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call, "type": "function", "function": function} for call in ids],
    }


def tool_result(id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": "3"}


def uses(*ids: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": use, "name": "add", "input": {}} for use in ids],
    }


def results(*ids: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use, "content": "3"} for use in ids]}


class TestHistoriesThatProvidersRefuse:
    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            ([], "empty array"),
            ([{"role": "assistant", "content": None}], "got null"),
            ([*USER, assistant_calls("x")], "did not have response messages: x"),
            ([*USER, assistant_calls("x"), *USER], "did not have response messages: x"),
            ([*USER, assistant_calls("x", "y"), tool_result("x")], "did not have response messages: y"),
            ([*USER, tool_result("x")], "must be a response to a preceding message"),
            ([{"content": "who says this?"}], "malformed"),
        ],
    )
    def test_openai(self, messages: list[Any], reason: str) -> None:
        with ScriptedLLM([Say("not taken")]) as llm, pytest.raises(openai.BadRequestError, match=reason):
            ask_openai(llm, messages)

    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            ([], "at least one message"),
            ([{"role": "user", "content": ""}], "non-empty content"),
            ([{"role": "user", "content": [{"type": "text", "text": " "}]}], "text content blocks"),
            ([*USER, uses("x")], "blocks immediately after: x"),
            ([*USER, uses("x"), *USER], "blocks immediately after: x"),
            ([*USER, uses("x", "y"), results("y")], "blocks immediately after: x"),
            ([*USER, results("x")], "unexpected `tool_use_id` found in `tool_result` blocks: x"),
            ([{"content": "who says this?"}], "malformed"),
        ],
    )
    def test_anthropic(self, messages: list[Any], reason: str) -> None:
        with ScriptedLLM([Say("not taken")]) as llm, pytest.raises(anthropic.BadRequestError, match=reason):
            ask_anthropic(llm, messages)

    def test_complete_ones_are_taken(self) -> None:
        inline = {"role": "system", "content": "the date changed"}
        with ScriptedLLM([Say("a"), Say("b")]) as llm:
            ask_openai(llm, [*USER, assistant_calls("x", "y"), tool_result("y"), tool_result("x"), *USER])
            ask_anthropic(llm, [*USER, uses("x", "y"), inline, results("y", "x")])

    @pytest.mark.parametrize(
        ("path", "reason"), [("chat/completions", "model parameter"), ("messages", "model: Field")]
    )
    @pytest.mark.parametrize("body", [b"{", b"[]"])
    def test_what_is_no_request(self, path: str, reason: str, body: bytes) -> None:
        with ScriptedLLM([]) as llm:
            status, answer = post(llm, f"/v1/{path}", body)
        assert (status, reason in answer) == (400, True)

    def test_an_unknown_address(self) -> None:
        with ScriptedLLM([]) as llm:
            with openai_client(llm) as client, pytest.raises(openai.NotFoundError, match="POST /v1/embeddings"):
                client.embeddings.create(model="m", input="x", encoding_format="float")
            with (
                anthropic_client(llm) as claude,
                pytest.raises(anthropic.NotFoundError, match="GET /v1/files") as error,
            ):
                claude.files.list()
        assert error.value.type == "not_found_error"


def post(llm: ScriptedLLM, path: str, body: bytes) -> tuple[int, str]:
    with closing(http.client.HTTPConnection(urlsplit(llm.url).netloc)) as connection:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()


def raw_stream(llm: ScriptedLLM, path: str) -> str:
    body = {"model": "m", "max_tokens": 1, "messages": USER, "stream": True}
    status, answer = post(llm, path, json.dumps(body).encode())
    assert status == 200
    return answer


class TestHang:
    def test_a_stream_goes_on_after_release(self) -> None:
        with ScriptedLLM([Hang("abcdef", after_chunks=2)]) as llm, openai_client(llm) as client:
            stream = client.chat.completions.create(model="gpt-test", messages=USER, stream=True)
            chunks = [next(stream) for _ in range(3)]
            llm.wait_until_hanging()
            llm.release()
            chunks += list(stream)
        assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "ab", "cd", "ef", None]

    def test_a_stream_is_cut_when_the_server_closes(self) -> None:
        with ScriptedLLM([Hang("abcdef", after_chunks=1)]) as llm:
            client = openai.OpenAI(base_url=llm.openai_url, api_key=KEY)
            stream = client.chat.completions.create(model="gpt-test", messages=USER, stream=True)
            assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "ab"]
        with client, pytest.raises(openai.APIConnectionError):
            next(stream)

    @both
    def test_a_plain_answer_waits_too(self, ask: Ask) -> None:
        with ScriptedLLM([Hang("late")]) as llm, ThreadPoolExecutor() as pool:
            answer = pool.submit(ask, llm)
            llm.wait_until_hanging()
            assert not answer.done()
            llm.release()
            assert "late" in repr(answer.result())

    def test_in_a_stream_without_text(self) -> None:
        with ScriptedLLM([Hang()]) as llm, ThreadPoolExecutor() as pool:
            answer = pool.submit(stream_anthropic, llm)
            llm.wait_until_hanging()
            llm.release()
            assert answer.result()[1].stop_reason == "end_turn"

    def test_a_release_counts_for_one(self) -> None:
        with ScriptedLLM([Hang("one"), Hang("two")]) as llm, ThreadPoolExecutor() as pool:
            llm.release()
            assert "one" in repr(ask_openai(llm))
            second = pool.submit(ask_openai, llm)
            llm.wait_until_hanging()
            llm.release()
            assert "two" in repr(second.result())

    def test_waiting_for_none(self) -> None:
        with ScriptedLLM([]) as llm, pytest.raises(AssertionError, match="no answer reached a Hang"):
            llm.wait_until_hanging(timeout=0)


class TestTheServer:
    def test_a_client_that_disconnects_leaves_no_trace(self, capfd: pytest.CaptureFixture[str]) -> None:
        with ScriptedLLM([Hang("abc", after_chunks=1), Say("next")]) as llm:
            connection = half_read_stream(llm)
            llm.wait_until_hanging()
            reset(connection)
            llm.release()
            assert "next" in repr(ask_openai(llm))
        assert capfd.readouterr().err == ""

    def test_a_request_that_breaks_off_is_none(self, capfd: pytest.CaptureFixture[str]) -> None:
        with ScriptedLLM([]) as llm, closing(socket.create_connection(address(llm))) as connection:
            connection.sendall(b"POST /v1/messages HTTP/1.1\r\ncontent-length: 100\r\n\r\n{")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
        assert (llm.requests, capfd.readouterr().err) == ([], "")

    def test_requests_at_the_same_time(self) -> None:
        together = threading.Barrier(20)

        def script(request: Request) -> Reply:
            together.wait(timeout=60)
            return Say(request.messages[0]["content"])

        def ask(number: int) -> str:
            text: str = ask_openai(llm, [{"role": "user", "content": f"number {number}"}]).choices[0].message.content
            return text

        with ScriptedLLM(script) as llm, ThreadPoolExecutor(20) as pool:
            assert list(pool.map(ask, range(20))) == [f"number {number}" for number in range(20)]
        assert len(llm.requests) == 20

    def test_a_connection_is_kept(self) -> None:
        with ScriptedLLM([]) as llm, closing(http.client.HTTPConnection(urlsplit(llm.url).netloc)) as connection:
            used = []
            for _ in range(2):
                connection.request("GET", "/v1/models")
                connection.getresponse().read()
                used.append(connection.sock)
        assert used[0] is used[1] is not None

    def test_nothing_is_left_behind(self) -> None:
        before = set(threading.enumerate())
        with ScriptedLLM([Hang()] * 8) as llm:
            port = address(llm)
            idle = socket.create_connection(port)
            hanging = [half_read_stream(llm) for _ in range(8)]
        assert set(threading.enumerate()) <= before
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(port)
        for connection in (idle, *hanging):
            connection.close()


def address(llm: ScriptedLLM) -> tuple[str, int]:
    parts = urlsplit(llm.url)
    assert parts.hostname == "127.0.0.1"
    assert parts.port
    return parts.hostname, parts.port


def half_read_stream(llm: ScriptedLLM) -> socket.socket:
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": USER, "stream": True}).encode()
    connection = socket.create_connection(address(llm))
    connection.sendall(b"POST /v1/messages HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    assert connection.recv(1)
    return connection


def reset(connection: socket.socket) -> None:
    """Close so that the server's next write fails, as when the client's process is killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def openai_model(llm: ScriptedLLM) -> Model:
    return OpenAIChatModel("gpt-4o", provider=OpenAIProvider(base_url=llm.openai_url, api_key=KEY))


def anthropic_model(llm: ScriptedLLM) -> Model:
    provider = AnthropicProvider(base_url=llm.anthropic_url, api_key=KEY)
    return AnthropicModel("claude-sonnet-5", provider=provider)


async def run_plain(agent: Agent[None, str], prompt: str) -> tuple[str, Any]:
    async with agent:
        result = await agent.run(prompt)
    return result.output, result.usage


async def run_streamed(agent: Agent[None, str], prompt: str) -> tuple[str, Any]:
    async with agent, agent.run_stream(prompt) as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        assert len(pieces) > 1
        return "".join(pieces), result.usage


RunAgent = Callable[[Agent[None, str], str], Any]


@pytest.mark.parametrize("run", [run_plain, run_streamed])
class TestAgents:
    SCRIPT = (Call([ADD, Tool("add", {"a": 3, "b": 4})], input_tokens=20), Say("3 and 7", input_tokens=30))

    def answer(self, model: Model, run: RunAgent) -> tuple[str, Any]:
        agent = Agent(model)

        @agent.tool_plain
        def add(a: int, b: int) -> int:
            return a + b

        answer: tuple[str, Any] = asyncio.run(run(agent, "1 + 2? 3 + 4?"))
        return answer

    def test_a_tool_round_trip_over_openai(self, run: RunAgent) -> None:
        with ScriptedLLM(self.SCRIPT) as llm:
            text, usage = self.answer(openai_model(llm), run)
        assert (text, usage.requests, usage.input_tokens, usage.output_tokens) == ("3 and 7", 2, 50, 10)
        assert [tool["function"]["name"] for tool in llm.requests[0].body["tools"]] == ["add"]
        question, calls, *results = llm.requests[1].messages
        assert question == {"role": "user", "content": "1 + 2? 3 + 4?"}
        assert [call["id"] for call in calls["tool_calls"]] == ["call_1", "call_2"]
        assert results == [
            {"role": "tool", "tool_call_id": "call_1", "content": "3"},
            {"role": "tool", "tool_call_id": "call_2", "content": "7"},
        ]

    def test_a_tool_round_trip_over_anthropic(self, run: RunAgent) -> None:
        with ScriptedLLM(self.SCRIPT) as llm:
            text, usage = self.answer(anthropic_model(llm), run)
        assert (text, usage.requests, usage.input_tokens, usage.output_tokens) == ("3 and 7", 2, 50, 10)
        assert [tool["name"] for tool in llm.requests[0].body["tools"]] == ["add"]
        _, calls, results = llm.requests[1].messages
        assert [(call["id"], call["input"]) for call in calls["content"]] == [
            ("call_1", {"a": 1, "b": 2}),
            ("call_2", {"a": 3, "b": 4}),
        ]
        assert [(result["tool_use_id"], result["content"]) for result in results["content"]] == [
            ("call_1", [{"type": "text", "text": "3"}]),
            ("call_2", [{"type": "text", "text": "7"}]),
        ]

    @pytest.mark.parametrize("model", [openai_model, anthropic_model])
    def test_an_error(self, run: RunAgent, model: Callable[[ScriptedLLM], Model]) -> None:
        with ScriptedLLM([Fail(429, "slow down")]) as llm, pytest.raises(ModelHTTPError, match="slow down") as error:
            self.answer(model(llm), run)
        assert (error.value.status_code, len(llm.requests)) == (429, 1)


class TestTheProcess:
    @contextmanager
    def served(self, tmp_path: Path, script: list[Any]) -> Iterator[tuple[ScriptedLLM, subprocess.Popen[str]]]:
        """The process, and a ScriptedLLM that only carries its address."""
        (tmp_path / "script.json").write_text(json.dumps(script), "utf-8")
        command = [sys.executable, "-m", "praisonaiagents.testing.llm", "--script", str(tmp_path / "script.json")]
        command += ["--log", str(tmp_path / "log.jsonl")]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout
            llm = ScriptedLLM([])
            llm.url = json.loads(process.stdout.readline())["url"]
            try:
                yield llm, process
            finally:
                process.kill()

    def test_every_reply_and_the_log(self, tmp_path: Path) -> None:
        script = [
            {"say": "hi", "input_tokens": 3},
            {"call": [{"name": "add", "arguments": {"a": 1}}, {"name": "add", "id": "x"}], "text": "so"},
            {"fail": 429, "message": "slow down"},
            {"hang": "abcdef", "after_chunks": 1},
        ]
        with self.served(tmp_path, script) as (llm, process), openai_client(llm) as client:
            hi = ask_openai(llm)
            call = ask_openai(llm).choices[0].message
            with pytest.raises(openai.RateLimitError, match="slow down"):
                ask_openai(llm)
            stream = client.chat.completions.create(model="gpt-test", messages=USER, stream=True)
            assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "ab"]
            log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
            _, errors = process.communicate()
        assert (hi.choices[0].message.content, hi.usage.prompt_tokens) == ("hi", 3)
        assert (call.content, [tool.id for tool in call.tool_calls]) == ("so", ["call_1", "x"])
        assert [entry["body"]["messages"] for entry in log] == [USER] * 4
        assert (log[0]["path"], log[0]["had_key"], KEY in repr(log)) == ("/v1/chat/completions", True, False)
        assert (process.returncode, errors) == (0, "")

    def test_the_end_by_signal(self, tmp_path: Path) -> None:
        with self.served(tmp_path, [{"hang": ""}]) as (_, process):
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0

    @pytest.mark.parametrize("end", [lambda process: process.terminate(), lambda process: process.stdin.close()])
    def test_a_script_that_ended_too_early(self, tmp_path: Path, end: Callable[[Any], None]) -> None:
        with self.served(tmp_path, []) as (llm, process):
            with pytest.raises(openai.InternalServerError):
                ask_openai(llm)
            end(process)
            assert process.wait() == 1
            assert process.stderr
            assert "no reply left for request 1" in process.stderr.read()

    def test_a_reply_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "script.json").write_text('[{"sing": "la"}]', "utf-8")
        command = [sys.executable, "-m", "praisonaiagents.testing.llm", "--script", str(tmp_path / "script.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert "not a reply: {'sing': 'la'}" in done.stderr

    def test_it_needs_the_standard_library_only(self) -> None:
        # -S: no site-packages, -I: nothing of the caller's environment.
        command = [sys.executable, "-I", "-S", str(llm_module.__file__), "--help"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
