"""The servers, each a process of its own: it prints its port when it answers, and ends with SIGTERM.

    python -m benchmarks.serving.served agent sqlite:////tmp/sessions.db '{}'    an agent whose model answers at once
    python -m benchmarks.serving.served library "" '{}'    the LLM library and that model, without anything of ours
    python -m benchmarks.serving.served echo "" '{}'       an app that sends back what came

All run under the same uvicorn with the same settings.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks.serving.words import answer_to, user_of

PATH = "/agent"
_OFTEN = 10_000_000  # so that the rate of each user is counted, and nobody is kept from measuring


class Served:
    """A server process, while it is entered. kind: "agent", "library" or "echo". settings: of the agent's server."""

    def __init__(self, kind: str, url: str = "", **settings: Any) -> None:
        words = [sys.executable, "-m", "benchmarks.serving.served", kind, url, json.dumps(settings)]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()

    def memory_bytes(self) -> int:
        """The memory it holds: resident, in bytes; 0 where the system does not tell in /proc."""
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def agent(url: str, settings: dict[str, Any]) -> None:
    """Serve an agent until SIGTERM."""
    from pydantic_ai.models.function import FunctionModel

    from praisonaiagents import Agent
    from praisonaiagents.serve import launch

    served = Agent("Assistant", instructions="Answer.", llm=FunctionModel(stream_function=_model))
    options = {"users": user_of, "per_minute": _OFTEN, **settings}
    server = launch(served, PATH, 0, block=False, db=url, say=lambda _: None, **options)
    _told(server.port)
    server.wait()
    served.close()


def bare(app: Any) -> None:
    """Serve an app of a few lines, just as an agent is served."""
    import uvicorn

    from praisonaiagents.serve.server import config_for
    from praisonaiagents.serve.service import Service
    from praisonaiagents.serve.settings import Settings

    config = config_for(Service(Settings()))
    config.app = app
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        _told(listening.getsockname()[1])
        asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back what came."""
    await _answered(send, await _body(scope, receive))


def library() -> Any:
    """An app that has the LLM library answer, and keeps its messages in a dict: nothing is stored, no token is asked for."""
    from pydantic_ai import Agent as Runner
    from pydantic_ai.models.function import FunctionModel

    runner = Runner(FunctionModel(stream_function=_model), instructions="Answer.")
    histories: dict[str, list[Any]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked = json.loads(await _body(scope, receive))
        before = histories.get(asked["session_id"], [])
        async with runner.run_stream(asked["query"], message_history=before) as run:
            response = await run.get_output()
        histories[asked["session_id"]] = run.all_messages()
        await _answered(send, json.dumps({"response": response}).encode())

    return app


async def _body(scope: Any, receive: Any) -> bytes:
    assert scope["type"] == "http"  # so uvicorn learns that there is no more
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def _answered(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _model(messages: Sequence[Any], _: object) -> AsyncIterator[str]:
    """Answers at once, and shows what it was told."""
    heard = [part.content for message in messages for part in message.parts if part.part_kind == "user-prompt"]
    yield answer_to(heard)


def _told(port: int) -> None:
    os.write(1, b"%d\n" % port)


def main() -> None:
    kind, url, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if kind == "agent":
        agent(url, settings)
    else:
        bare(echo if kind == "echo" else library())


if __name__ == "__main__":
    main()
