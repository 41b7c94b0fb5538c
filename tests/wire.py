"""What an agent and its model say to each other, seen from outside: on the wire, in the session's file, from another process.

A test writes a history once, as `User`, `Bot` and `Result`; a `Wire` says how exactly it looks in one provider's protocol.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import socketserver
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import forked

from praisonaiagents.testing.llm import ScriptedLLM, Tool

Json = dict[str, Any]
INSTRUCTIONS = "You are Assistant."
INTERRUPTED = "The tool call was interrupted: no result was recorded."
PATIENCE_S = 60  # no test fails because the machine is busy


@dataclass(frozen=True)
class User:
    """The user's words, or content parts as this protocol has them."""

    text: str | list[Json]


@dataclass(frozen=True)
class Bot:
    """An answer, with the tools it calls."""

    text: str | None = None
    calls: tuple[Tool, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a tool call returned."""

    id: str
    text: str
    failed: bool = False


Said = User | Bot | Result


@dataclass(frozen=True)
class Wire:
    """One provider's protocol."""

    name: str
    model: str

    def agent(self, llm: ScriptedLLM | str, **settings: Any) -> Json:
        """The settings of an agent that talks to this server (or to the one at this URL)."""
        url = llm if isinstance(llm, str) else llm.url
        return {"llm": f"{self.name}/{self.model}", "base_url": self.base_url(url), **settings}

    def base_url(self, url: str) -> str:
        return f"{url}/v1" if self.name == "openai" else url

    def messages(self, *history: Said) -> list[Json]:
        """The `messages` of the request that sends this history."""
        if self.name == "openai":
            return [{"role": "system", "content": INSTRUCTIONS}, *map(_openai, history)]
        return list(_merged(history))


OPENAI = Wire("openai", "gpt-test")
ANTHROPIC = Wire("anthropic", "claude-sonnet-5")


def _openai(said: Said) -> Json:
    match said:
        case User(text):
            return {"role": "user", "content": text}
        case Result(id, text, failed):
            return {"role": "tool", "tool_call_id": id, "content": _compact({"error": text}) if failed else text}
    message: Json = {"role": "assistant", "content": said.text}
    if said.calls:
        message["tool_calls"] = [
            {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": _compact(tool.arguments)}}
            for tool in said.calls
        ]
    return message


def _merged(history: tuple[Said, ...]) -> Iterator[Json]:
    """Anthropic takes one message a side: results and the user's words after them are one."""
    message: Json = {}
    for said in history:
        role = "assistant" if isinstance(said, Bot) else "user"
        if message.get("role") != role:
            if message:
                yield message
            message = {"role": role, "content": []}
        message["content"] += _anthropic(said)
    yield message


def _anthropic(said: Said) -> list[Json]:
    match said:
        case User(str() as text):
            return [{"type": "text", "text": text}]
        case User(parts):
            return parts
        case Result(id, text, failed):
            content = [{"type": "text", "text": text}]
            return [{"type": "tool_result", "tool_use_id": id, "content": content, "is_error": failed}]
    texts = [{"type": "text", "text": said.text}] if said.text else []
    calls = [{"type": "tool_use", "id": tool.id, "name": tool.name, "input": tool.arguments} for tool in said.calls]
    return texts + calls


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# A server that is no model


class _Fixed(http.server.BaseHTTPRequestHandler):
    answer = b""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.wfile.write(self.answer)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The URL of something that answers every request with these bytes and hangs up."""
    handler = type("Handler", (_Fixed,), {"answer": answer})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}"
        finally:
            listening.shutdown()
            thread.join()


def ok(body: str, kind: str = "application/json") -> bytes:
    """A successful HTTP answer."""
    return f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\n\r\n{body}".encode()


# What is stored


def stored(home: Path, session_id: str, user: str | None = None) -> list[Json]:
    """The messages in a session's file, as they are."""
    messages: list[Json] = json.loads(session_file(home, session_id, user).read_text("utf-8"))["messages"]
    return messages


def session_file(home: Path, session_id: str, user: str | None = None) -> Path:
    return home / "sessions" / (f"users/{user}/{session_id}.json" if user else f"{session_id}.json")


def told(messages: list[Json]) -> list[tuple[str, Any, str | None]]:
    """(role, content, status) of each message."""
    return [(message["role"], message["content"], message.get("status")) for message in messages]


def by_call(messages: list[Json]) -> list[Json]:
    """Results in the order of their calls' ids. They are stored as they finish, and threads finish as they like."""
    groups = (group for _, group in groupby(messages, lambda message: message["role"] == "tool"))
    return [message for group in groups for message in sorted(group, key=lambda found: found.get("tool_call_id", ""))]


def timeless(text: str) -> str:
    """A session's file without what differs from run to run; runs are numbered by their first appearance."""
    runs = list(dict.fromkeys(re.findall(r'"run-[0-9a-f]{12}"', text)))
    for number, run in enumerate(runs):
        text = text.replace(run, f'"run {number}"')
    text = re.sub(r'"msg-[0-9a-f]{20}"', '"id"', text)
    text = re.sub(r'"timestamp":\d+\.\d+', '"timestamp":0', text)
    return re.sub(r'"20\d\d-\d\d-\d\dT[^"]+"', '"time"', text)


# Other processes


def python(source: str, *arguments: str, stderr: str = "", is_bare: bool = False, **environment: str) -> Any:
    """Run Python in a new process, warnings being errors, and return the JSON it prints last.

    It may say nothing on standard error but `stderr`. is_bare: it has loaded nothing; otherwise see `forked`.
    """
    command, env = _command(source, arguments), os.environ | environment
    if is_bare:
        command = [sys.executable, *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=env)
    else:
        done = forked.run(command, timeout=PATIENCE_S, env=env)
    assert (done.returncode, done.stderr) == (0, stderr)
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def started(source: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A process that runs Python, and its output. It is killed when the block ends, or when it says nothing any more."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with forked.Forked(_command(source, arguments), **pipes) as process:
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            yield process, process.stdout
        finally:
            watchdog.cancel()
            process.kill()


def _command(source: str, arguments: tuple[str, ...]) -> list[str]:
    return ["-W", "error", "-c", textwrap.dedent(source), *arguments]
