"""A language model provider on loopback: a real HTTP server that answers with the replies a test wrote down.

    with ScriptedLLM([Call([Tool("add", {"a": 1, "b": 2})]), Say("3")]) as llm:
        ...  # point an OpenAI client at llm.openai_url, or an Anthropic client at llm.anthropic_url
        assert llm.requests[1].messages[-1]["content"] == "3"

It speaks OpenAI Chat Completions and Anthropic Messages, plain and streamed, and refuses the histories that these
providers refuse, such as a tool call without its result. Any client in any process can talk to it.

What a reader would get wrong: one reply answers one HTTP request, not one user turn. A turn with a tool call takes two
replies, and a client that retries takes one more per try. So `Fail` tells the client not to retry unless asked to.

As a process of its own, it prints `{"url": ...}` when ready and serves until its input closes or SIGTERM comes:

    python -m praisonaiagents.testing.llm --script script.json --log requests.jsonl

    [{"call": [{"name": "add", "arguments": {"a": 1}}]}, {"say": "hi"}, {"hang": "text", "after_chunks": 1},
     {"fail": 500, "message": "overloaded"}]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby, pairwise
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, TextIO, TypeAlias
from urllib.parse import urlsplit

Json: TypeAlias = dict[str, Any]

MODEL = "scripted"
CREATED = 1_700_000_000

# ---------------------------------------------------------------------------------------------------------- replies


@dataclass(frozen=True)
class Say:
    """A text answer. `chunks` is how many pieces a stream delivers it in."""

    text: str
    chunks: int = 3
    input_tokens: int = 10
    output_tokens: int = 5
    tools: ClassVar[tuple[Tool, ...]] = ()


@dataclass(frozen=True)
class Tool:
    """One tool call. Without an `id` it gets the next of call_1, call_2, ... that the conversation does not hold."""

    name: str
    arguments: Json = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Call:
    """An answer that calls tools, several of them in parallel, with or without a text before."""

    tools: Sequence[Tool]
    text: str | None = None
    chunks: int = 3
    input_tokens: int = 10
    output_tokens: int = 5


@dataclass(frozen=True)
class Hang:
    """A text answer that stops after `after_chunks` pieces until `release()`; a plain answer stops before its start."""

    text: str = ""
    after_chunks: int = 0
    chunks: int = 3
    input_tokens: int = 10
    output_tokens: int = 5
    tools: ClassVar[tuple[Tool, ...]] = ()


@dataclass(frozen=True)
class Fail:
    """An HTTP error in the provider's own format. With `retry`, it asks the client to try again at once."""

    status: int
    message: str = "scripted failure"
    retry: bool = False


Turn: TypeAlias = Say | Call | Hang
Reply: TypeAlias = Turn | Fail


@dataclass(frozen=True)
class Request:
    """One request as it came: `body` parsed but otherwise untouched, headers in lower case and without the key."""

    method: str
    path: str
    headers: dict[str, str]
    had_key: bool
    body: Json

    @property
    def messages(self) -> list[Json]:
        """The message list as received. Anthropic keeps the system prompt outside of it, in `body["system"]`."""
        messages: list[Json] = self.body["messages"]
        return messages


Script: TypeAlias = Iterable[Reply] | Callable[[Request], Reply]


def _reply_from(item: Json) -> Reply:
    match item:
        case {"say": text, **options}:
            return Say(text, **options)
        case {"call": tools, **options}:
            return Call([Tool(**tool) for tool in tools], **options)
        case {"hang": text, **options}:
            return Hang(text, **options)
        case {"fail": status, **options}:
            return Fail(status, **options)
    raise ValueError(f"not a reply: {item!r}")


# ------------------------------------------------------------------------------------------------------- the server


class ScriptedLLM:
    """The provider, as a context manager: it listens inside the `with` block, and leaving it runs `check()`.

    `replies` is a series, or a function from the request to its reply; requests that come at the same time call the
    function at the same time. `log` receives each request as a JSON line before its answer starts.
    """

    url: str

    def __init__(self, replies: Script, *, log: TextIO | None = None) -> None:
        self.requests: list[Request] = []
        self._script = replies if callable(replies) else _in_order(replies)
        self._log = log
        self._problems: list[str] = []
        self._last_call = 0
        self._changed = threading.Condition()
        self._hanging = 0
        self._released = 0
        self._closed = False
        self._stack = ExitStack()

    @property
    def openai_url(self) -> str:
        """The `base_url` of an OpenAI client."""
        return self.url + "/v1"

    @property
    def anthropic_url(self) -> str:
        """The `base_url` of an Anthropic client."""
        return self.url

    def __enter__(self) -> Self:
        server = _Server(self)
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="scripted-llm", daemon=True)
        thread.start()
        # Undone from the last to the first. A Hang that ended before its connection would send the rest of its answer.
        for step in (thread.join, server.server_close, self._end_hangs, server.disconnect, server.shutdown):
            self._stack.callback(step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is None:
            self.check()

    def check(self) -> None:
        """Raise AssertionError if a request found no reply, or the script raised."""
        if self._problems:
            raise AssertionError("; ".join(self._problems))

    def wait_until_hanging(self, timeout: float = 60) -> None:
        """Return once an answer stands still in a `Hang`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._hanging, timeout):
                raise AssertionError(f"no answer reached a Hang within {timeout} s")

    def release(self) -> None:
        """Let one `Hang` go on: the one that hangs now, or else the next."""
        with self._changed:
            self._released += 1
            self._changed.notify_all()

    def _end_hangs(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _hang(self) -> None:
        with self._changed:
            self._hanging += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._released or self._closed)
            self._hanging -= 1
            self._released -= 1

    def _record(self, request: Request) -> int:
        with self._changed:
            self.requests.append(request)
            if self._log:
                self._log.write(json.dumps(asdict(request)) + "\n")
                self._log.flush()
            return len(self.requests)

    def _reply(self, request: Request, number: int) -> Reply:
        try:
            reply = self._script(request)
        except StopIteration:
            return self._problem(f"the script has no reply left for request {number}")
        except Exception as error:
            return self._problem(f"the script failed at request {number}: {error!r}")
        return self._with_ids(reply, request) if isinstance(reply, Call) else reply

    def _problem(self, text: str) -> Fail:
        self._problems.append(text)
        return Fail(500, text)

    def _with_ids(self, call: Call, request: Request) -> Call:
        history = json.dumps(request.body)
        return replace(call, tools=[replace(tool, id=tool.id or self._new_id(history)) for tool in call.tools])

    def _new_id(self, history: str) -> str:
        """An id that a server before this one cannot have given to the same conversation."""
        with self._changed:
            while True:
                self._last_call += 1
                if f'"call_{self._last_call}"' not in history:
                    return f"call_{self._last_call}"


def _in_order(replies: Iterable[Reply]) -> Callable[[Request], Reply]:
    iterator = iter(replies)
    # A generator that is asked by two threads at once raises.
    lock = threading.Lock()

    def script(request: Request) -> Reply:
        with lock:
            return next(iterator)

    return script


# ------------------------------------------------------------------------------------------------------ the formats

Event: TypeAlias = bytes | None
"""A server-sent event as it goes over the wire, or None where the answer hangs."""


class _Format(Protocol):
    """What one provider's answers look like, for one request."""

    def refusal(self) -> str | None: ...
    def error(self, fail: Fail) -> Json: ...
    def answer(self, turn: Turn) -> Json: ...
    def events(self, turn: Turn) -> Iterator[Event]: ...


class _OpenAI:
    ERRORS: ClassVar = {
        401: ("invalid_request_error", "invalid_api_key"),
        404: ("invalid_request_error", "model_not_found"),
        429: ("requests", "rate_limit_exceeded"),
    }

    def __init__(self, body: Json, number: int) -> None:
        self.body = body
        self.id = f"chatcmpl-{number}"

    def refusal(self) -> str | None:
        if not self.body.get("model"):
            return "you must provide a model parameter"
        if not self.body.get("messages"):
            return "Invalid 'messages': empty array. Expected an array with minimum length 1."
        if any(message.get("content") is None and not message.get("tool_calls") for message in self.body["messages"]):
            return "Invalid value for 'content': expected a string, got null."
        open_calls, strays = _unpaired(_openai_turns(self.body["messages"]))
        if strays:
            return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
        return open_calls and (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {open_calls}"
        )

    def error(self, fail: Fail) -> Json:
        default = ("server_error" if fail.status >= 500 else "invalid_request_error", None)
        kind, code = self.ERRORS.get(fail.status, default)
        return {"error": {"message": fail.message, "type": kind, "param": None, "code": code}}

    def answer(self, turn: Turn) -> Json:
        message: Json = {"role": "assistant", "content": turn.text, "refusal": None, "annotations": []}
        if turn.tools:
            message["tool_calls"] = [_openai_tool(tool, json.dumps(tool.arguments)) for tool in turn.tools]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish(turn)}
        return self._envelope("chat.completion", [choice], usage=self._usage(turn))

    def events(self, turn: Turn) -> Iterator[Event]:
        yield self._chunk({"role": "assistant", "content": None if turn.text is None else "", "refusal": None})
        for text in _text_steps(turn):
            yield None if text is None else self._chunk({"content": text})
        for index, tool in enumerate(turn.tools):
            yield self._chunk({"tool_calls": [{"index": index, **_openai_tool(tool, "")}]})
            for piece in _pieces(json.dumps(tool.arguments), turn.chunks):
                yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield self._chunk({}, self._finish(turn))
        if self._wants_usage():
            yield _data(self._envelope("chat.completion.chunk", [], usage=self._usage(turn)))
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        extra = {"usage": None} if self._wants_usage() else {}
        return _data(self._envelope("chat.completion.chunk", [choice], **extra))

    def _envelope(self, kind: str, choices: list[Json], **extra: Any) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": CREATED,
            "model": self.body["model"],
            "choices": choices,
            **extra,
        }

    def _wants_usage(self) -> bool:
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    @staticmethod
    def _finish(turn: Turn) -> str:
        return "tool_calls" if turn.tools else "stop"

    @staticmethod
    def _usage(turn: Turn) -> Json:
        return {
            "prompt_tokens": turn.input_tokens,
            "completion_tokens": turn.output_tokens,
            "total_tokens": turn.input_tokens + turn.output_tokens,
        }


def _openai_tool(tool: Tool, arguments: str) -> Json:
    return {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": arguments}}


class _Anthropic:
    ERRORS: ClassVar = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        529: "overloaded_error",
    }

    def __init__(self, body: Json, number: int) -> None:
        self.body = body
        self.number = number

    def refusal(self) -> str | None:
        for name in ("model", "max_tokens", "messages"):
            if name not in self.body:
                return f"{name}: Field required"
        messages = self.body["messages"]
        if not messages:
            return "messages: at least one message is required"
        if not all(message["content"] for message in messages):
            return "messages: all messages must have non-empty content"
        if not all(text.strip() for message in messages for text in _anthropic_texts(message)):
            return "messages: text content blocks must be non-empty"
        open_calls, strays = _unpaired(_anthropic_turns(messages))
        if strays:
            return f"messages: unexpected `tool_use_id` found in `tool_result` blocks: {strays}"
        return open_calls and (
            f"messages: `tool_use` ids were found without `tool_result` blocks immediately after: {open_calls}"
        )

    def error(self, fail: Fail) -> Json:
        kind = self.ERRORS.get(fail.status, "api_error" if fail.status >= 500 else "invalid_request_error")
        error = {"type": kind, "message": fail.message}
        return {"type": "error", "error": error, "request_id": f"req_{self.number}"}

    def answer(self, turn: Turn) -> Json:
        content = [{"type": "text", "text": turn.text}] if turn.text else []
        content += [_anthropic_tool(tool, tool.arguments) for tool in turn.tools]
        return self._message(turn, turn.output_tokens, content=content, stop_reason=self._stop(turn))

    def events(self, turn: Turn) -> Iterator[Event]:
        yield _event("message_start", message=self._message(turn, 1, content=[], stop_reason=None))
        yield _event("ping")
        texts = list(_text_steps(turn))
        if texts:
            yield from _block(0, {"type": "text", "text": ""}, "text_delta", "text", texts)
        for index, tool in enumerate(turn.tools, start=bool(texts)):
            arguments = ["", *_pieces(json.dumps(tool.arguments), turn.chunks)]
            yield from _block(index, _anthropic_tool(tool, {}), "input_json_delta", "partial_json", arguments)
        delta = {"stop_reason": self._stop(turn), "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage={"output_tokens": turn.output_tokens})
        yield _event("message_stop")

    def _message(self, turn: Turn, output_tokens: int, **fields: Any) -> Json:
        usage = {"input_tokens": turn.input_tokens, "output_tokens": output_tokens}
        return {
            "id": f"msg_{self.number}",
            "type": "message",
            "role": "assistant",
            "model": self.body["model"],
            "stop_sequence": None,
            "usage": {**usage, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
            **fields,
        }

    @staticmethod
    def _stop(turn: Turn) -> str:
        return "tool_use" if turn.tools else "end_turn"


def _anthropic_tool(tool: Tool, arguments: Json) -> Json:
    return {"type": "tool_use", "id": tool.id, "name": tool.name, "input": arguments}


def _block(index: int, start: Json, kind: str, key: str, steps: Iterable[str | None]) -> Iterator[Event]:
    yield _event("content_block_start", index=index, content_block=start)
    for step in steps:
        if step is None:
            yield None
        else:
            yield _event("content_block_delta", index=index, delta={"type": kind, key: step})
    yield _event("content_block_stop", index=index)


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **fields})


def _data(data: Json) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def _text_steps(turn: Turn) -> list[str | None]:
    """The pieces of the text, with None where the turn hangs."""
    steps: list[str | None] = [*_pieces(turn.text or "", turn.chunks)]
    if isinstance(turn, Hang):
        steps.insert(turn.after_chunks, None)
    return steps


def _pieces(text: str, count: int) -> list[str]:
    """The text in `count` pieces, or one per character if it has fewer."""
    bounds = [len(text) * i // count for i in range(count + 1)]
    return [text[start:end] for start, end in pairwise(bounds) if start < end]


# --------------------------------------------------------------------------------- which histories a provider takes

Pairs: TypeAlias = tuple[set[str], set[str]]
"""The ids of the tool calls that one turn makes, and of those that it answers."""


def _unpaired(turns: Iterable[Pairs]) -> tuple[str | None, str | None]:
    """The first tool calls that the turn after them does not answer, and the first results that answer nothing."""
    open_calls: set[str] = set()
    for calls, results in (*turns, (set(), set())):
        if open_calls != results:
            return ", ".join(sorted(open_calls - results)) or None, ", ".join(sorted(results - open_calls)) or None
        open_calls = calls
    return None, None


def _openai_turns(messages: list[Json]) -> Iterator[Pairs]:
    for is_results, group in groupby(messages, lambda message: message["role"] == "tool"):
        if is_results:
            yield set(), {message["tool_call_id"] for message in group}
        else:
            yield from (({call["id"] for call in message.get("tool_calls") or ()}, set()) for message in group)


def _anthropic_turns(messages: list[Json]) -> Iterator[Pairs]:
    """One message must hold all results; a system message may stand anywhere."""
    for message in messages:
        if message["role"] != "system":
            blocks = _anthropic_blocks(message)
            calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
            yield calls, {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}


def _anthropic_blocks(message: Json) -> list[Json]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _anthropic_texts(message: Json) -> list[str]:
    return [block["text"] for block in _anthropic_blocks(message) if block["type"] == "text"]


# ------------------------------------------------------------------------------------------------------------- HTTP


class _Server(ThreadingHTTPServer):
    # The default of 5 makes the sixth client that connects at the same moment wait a second.
    request_queue_size = 128
    # Only threads that are no daemons are waited for in server_close.
    daemon_threads = False

    def __init__(self, llm: ScriptedLLM) -> None:
        self.llm = llm
        self._lock = threading.Lock()
        self._connections: set[Any] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        # HTTPServer looks its own name up here, which can take seconds without a name server.
        TCPServer.server_bind(self)
        self.server_port = self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def disconnect(self) -> None:
        """Break off the answers under way, and wake the threads that wait for the next request of an idle client."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    # Chunked bodies need 1.1: without them a stream that was cut looks like one that ended.
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        request = self._receive()
        number = self.server.llm._record(request)
        if request.path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": CREATED, "owned_by": MODEL}
            self._send(200, {"object": "list", "data": [model]})
        else:
            self._unknown(request, number)

    def do_POST(self) -> None:
        request = self._receive()
        number = self.server.llm._record(request)
        if request.path == "/v1/chat/completions":
            self._answer(request, number, _OpenAI(request.body, number))
        elif request.path == "/v1/messages":
            self._answer(request, number, _Anthropic(request.body, number))
        else:
            self._unknown(request, number)

    def _receive(self) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        keys = [headers.pop(name, None) for name in ("authorization", "x-api-key")]
        return Request(self.command, urlsplit(self.path).path, headers, any(keys), self._body())

    def _body(self) -> Json:
        """The body, or an empty one if it is no JSON object: the format refuses that in its own words."""
        size = int(self.headers.get("content-length", 0))
        raw = self.rfile.read(size)
        if len(raw) < size:
            raise ConnectionAbortedError
        try:
            body = json.loads(raw)
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    def _answer(self, request: Request, number: int, form: _Format) -> None:
        refusal = _refusal(form)
        reply = Fail(400, refusal) if refusal else self.server.llm._reply(request, number)
        if isinstance(reply, Fail):
            self._fail(reply, form)
        elif request.body.get("stream"):
            self._stream(form.events(reply))
        else:
            if isinstance(reply, Hang):
                self.server.llm._hang()
            self._send(200, form.answer(reply))

    def _unknown(self, request: Request, number: int) -> None:
        form: _Format = (_Anthropic if "anthropic-version" in request.headers else _OpenAI)(request.body, number)
        self._fail(Fail(404, f"Invalid URL ({request.method} {request.path})"), form)

    def _fail(self, fail: Fail, form: _Format) -> None:
        retry = {"x-should-retry": "true", "retry-after-ms": "1"} if fail.retry else {"x-should-retry": "false"}
        self._send(fail.status, form.error(fail), retry)

    def _send(self, status: int, body: Json, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self._head(status, {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})})
        self.wfile.write(data)

    def _stream(self, events: Iterable[Event]) -> None:
        self._head(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})
        for event in events:
            if event is None:
                self.server.llm._hang()
            else:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _refusal(form: _Format) -> str | None:
    try:
        return form.refusal()
    except (AttributeError, KeyError, TypeError) as error:
        return f"malformed request: {error!r}"


# ---------------------------------------------------------------------------------------------- as its own process


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m praisonaiagents.testing.llm", description="A scripted LLM.")
    parser.add_argument("--script", required=True, type=Path, help="JSON file with the list of replies")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="file that gets each request as a JSON line")
    options = parser.parse_args()
    # SIGTERM then ends the process as Ctrl-C does, through the `with` block.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    replies = [_reply_from(item) for item in json.loads(options.script.read_text("utf-8"))]
    with options.log.open("a", encoding="utf-8") as log:
        _serve(ScriptedLLM(replies, log=log))


def _serve(llm: ScriptedLLM) -> None:
    with suppress(KeyboardInterrupt), llm:
        print(json.dumps({"url": llm.url}), flush=True)
        while os.read(sys.stdin.fileno(), 65536):
            pass
    llm.check()


if __name__ == "__main__":
    main()
