"""The agent in OpenAI's words, so that any OpenAI client talks to it, and has sessions that are kept.

    client = OpenAI(base_url="http://127.0.0.1:8000/sessions/my-session/v1", api_key=TOKEN)

The session is named in the URL, in the header `X-Session-Id`, or in `metadata={"session_id": ...}`. Without one nothing is
kept, and the conversation is what the client sends, as it is with OpenAI.

What a reader would get wrong: a client sends the whole conversation each time, and the session has it already. So of the
messages only those after the last answer are said now. Those before count in one case: where the session is new, it begins
with them. What the client says as `system` is said to the model in this turn, besides the agent's own instructions.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from praisonaiagents.agent.agent import Agent
from praisonaiagents.agent.tools import tool_elsewhere
from praisonaiagents.errors import PraisonError
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, conversation_key
from praisonaiagents.serve import talking
from praisonaiagents.serve.operation import Ask, Operation
from praisonaiagents.serve.problems import Problem, as_json, problem_of
from praisonaiagents.serve.turns import DONE, Turn
from praisonaiagents.session.runs import called
from praisonaiagents.session.uncut import in_thread

_SETTINGS = ("temperature", "top_p", "max_tokens", "seed", "presence_penalty", "frequency_penalty")
_TAKEN = ("role", "content", "tool_calls", "tool_call_id", "name")
_LONGEST_TOOL_NAME = 128


class Function(msgspec.Struct):
    """A tool that the client runs. parameters: a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ClientTool(msgspec.Struct):
    """A tool that the client runs."""

    function: Function
    type: str = "function"


class StreamOptions(msgspec.Struct):
    """include_usage: end the stream with the tokens used."""

    include_usage: bool = False


class Completion(msgspec.Struct):
    """A request as OpenAI takes it. Keys that are not named here are ignored."""

    messages: list[dict[str, Any]]
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    tools: list[ClientTool] | None = None
    metadata: dict[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int | None = None


class Completed(msgspec.Struct):
    """An answer as OpenAI gives it."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]


class Model(msgspec.Struct):
    """An agent, as a model."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "praisonaiagents"


class Models(msgspec.Struct):
    """The agents that are served, as models."""

    data: list[Model]
    object: str = "list"


async def complete(ask: Ask) -> Response:
    """Answer the messages after the last answer, in the session that is named."""
    try:
        return await _complete(ask)
    except (Problem, PraisonError) as exc:
        return _refusal(problem_of(exc))


async def list_models(ask: Ask) -> Models:
    """The agents that are served."""
    agents = {ask.place.path: ask.place.agent} if ask.place.agent else ask.place.service.agents
    return Models([Model(_name(agent, path)) for path, agent in agents.items()])


OPERATIONS = tuple(
    operation
    for base in ("", "/sessions/{session_id}")
    for operation in (
        Operation(
            "POST",
            f"{base}/v1/chat/completions",
            complete,
            "Chat, as OpenAI does",
            takes=Completion,
            gives=Completed,
            also=(404, 409, 413, 422, 500, 504),
            media=("text/event-stream",),
        ),
        Operation("GET", f"{base}/v1/models", list_models, "The agents, as models", gives=Models),
    )
)


async def _complete(ask: Ask) -> Response:
    body: Completion = ask.body
    if body.n not in (None, 1):
        raise Problem(400, "n is 1: one answer is given")
    agent, path = _agent(ask, body.model)
    before, results, prompt, instructions = _split(ask, body.messages)
    settings = {name: value for name in _SETTINGS if (value := getattr(body, name)) is not None}
    if body.max_completion_tokens is not None:
        settings["max_tokens"] = body.max_completion_tokens
    more = {
        "settings": settings,
        "instructions": instructions,
        "results": results,
        "elsewhere": [_definition(tool) for tool in body.tools or ()],
    }
    ask.place = ask.place._replace(agent=agent, path=path)
    session_id = _session(ask, body)
    user_id = talking.meant_user(ask, _in(body, "user_id"))
    if session_id is None:
        turn = talking.begin_unkept(ask, agent, user_id, before, prompt, **more)
    else:
        await in_thread(_seed, ask, conversation_key(session_id, user_id), before)
        turn = await talking.begin(ask, agent, user_id, session_id, prompt, **more)
    headers = {} if session_id is None else {"X-Session-Id": _ascii(session_id)}
    if turn.is_replay:
        headers["Idempotency-Replayed"] = "true"
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return _stream(turn, body.model, with_usage, headers)
    await turn.over()
    if turn.status != DONE:
        return _refusal(Problem(*_failed(turn)))
    finished, message = _finished(turn)
    choice = {"index": 0, "message": message, "finish_reason": finished, "logprobs": None}
    answer = Completed(_id(turn), "chat.completion", int(time.time()), body.model, [choice], _usage(turn))
    return as_json(answer, headers=headers)


def _agent(ask: Ask, model: str) -> tuple[Agent, str]:
    """The agent that is meant: the one of this path, the only one, or the one of this name."""
    if ask.place.agent is not None:
        return ask.place.agent, ask.place.path
    agents = ask.place.service.agents
    for path, agent in agents.items():
        if len(agents) == 1 or _name(agent, path) == model:
            return agent, path
    known = ", ".join(_name(agent, path) for path, agent in agents.items())
    raise Problem(404, f"no agent is called like this model; there are: {known}", "model_not_found")


def _name(agent: Agent, path: str) -> str:
    return agent.name or path.strip("/") or "agent"


def _session(ask: Ask, body: Completion) -> str | None:
    if "session_id" in ask.request.path_params:
        return ask.session_id
    return ask.header("x-session-id") or _in(body, "session_id")


def _in(body: Completion, name: str) -> str | None:
    value = (body.metadata or {}).get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(400, f"metadata.{name} is text")
    return value


def _split(ask: Ask, given: list[dict[str, Any]]) -> tuple[list[Message], list[Message], Any, str | None]:
    """(what was said before, results of tools, what is said now, what the model is told besides)."""
    told = [_message(one) for one in given]
    instructions = "\n\n".join(one.text() for one in told if one.role in ("system", "developer")) or None
    said = [one for one in told if one.role not in ("system", "developer")]
    last = max((at for at, one in enumerate(said) if one.role == "assistant"), default=-1)
    now = said[last + 1 :]
    results = [one for one in now if one.role == "tool"]
    users = [one for one in now if one.role == "user"]
    if not now or (now[-1].role == "user" and not now[-1].text().strip() and not isinstance(now[-1].content, list)):
        raise Problem(400, "the last message is from the user, or the result of a tool")
    for one in now:
        talking.check_length(ask, one.text())
    prompt = None if not users else users[0].content if len(users) == 1 else "\n\n".join(one.text() for one in users)
    names = {call["id"]: called(call)[0] for one in said for call in one.calls()}
    results = [msgspec.structs.replace(one, name=one.name or names.get(one.tool_call_id or "")) for one in results]
    return said[: last + 1], results, prompt, instructions


def _message(given: dict[str, Any]) -> Message:
    kept: dict[str, Any] = {
        name: given[name] for name in ("role", "content", "tool_calls", "tool_call_id", "name") if name in given
    }
    if kept.get("role") not in ("system", "developer", "user", "assistant", "tool"):
        raise Problem(400, "a message has a role: system, developer, user, assistant or tool")
    message = Message.from_dict(kept)
    if message.extra:
        raise Problem(400, f"a message's {next(iter(message.extra))} is not as it should be")
    if message.role == "tool" and not message.tool_call_id:
        raise Problem(400, "the result of a tool names its call: tool_call_id")
    return message


def _seed(ask: Ask, key: Key, before: list[Message]) -> None:
    """Begin a session that is not there yet with what the client had before."""
    store = ask.place.service.store
    if before and not store.session_exists(key.session_id, user_id=key.user_id):
        store.append(key.session_id, before, user_id=key.user_id, expected_length=0)


def _definition(tool: ClientTool) -> Any:
    function = tool.function
    if tool.type != "function" or not function.name or len(function.name) > _LONGEST_TOOL_NAME:
        raise Problem(400, "a tool is a function with a name")
    schema = function.parameters or {"type": "object", "properties": {}}
    return tool_elsewhere(function.name, function.description, schema)


def _finished(turn: Turn) -> tuple[str, dict[str, Any]]:
    """(why it ended, the answer as OpenAI gives it)."""
    last = turn.messages[-1] if turn.messages else Message(role="assistant", content=turn.answer)
    calls = last.calls()
    message: dict[str, Any] = {"role": "assistant", "content": turn.answer or None if calls else turn.answer}
    if calls:
        message["tool_calls"] = calls
    return "tool_calls" if calls else "stop", message


def _usage(turn: Turn) -> dict[str, int]:
    def count(name: str) -> int:
        values = (message.usage.get(name) for message in turn.messages if message.usage)
        return sum(value for value in values if isinstance(value, int))

    said, answered = count("input_tokens"), count("output_tokens")
    return {"prompt_tokens": said, "completion_tokens": answered, "total_tokens": said + answered}


def _stream(turn: Turn, model: str, with_usage: bool, headers: dict[str, str]) -> Response:
    created = int(time.time())

    def chunk(delta: dict[str, Any], finished: str | None = None, usage: Any = None) -> bytes:
        choices = [] if usage else [{"index": 0, "delta": delta, "finish_reason": finished, "logprobs": None}]
        value: dict[str, Any] = {
            "id": _id(turn),
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "choices": choices,
        }
        if with_usage:
            value["usage"] = usage
        return b"data: %b\n\n" % msgspec.json.encode(value)

    async def pieces() -> AsyncIterator[bytes]:
        yield chunk({"role": "assistant", "content": ""})
        async for event in turn.listen():
            if event is None:
                yield b": ping\n\n"
            elif event[1] == "text":
                yield chunk({"content": event[2]["text"]})
        if turn.status != DONE:
            status, text, kind = _failed(turn)
            yield b"data: %b\n\n" % msgspec.json.encode(_error(text, kind, status))
            return
        finished, message = _finished(turn)
        if "tool_calls" in message:
            yield chunk({"tool_calls": [{"index": at} | call for at, call in enumerate(message["tool_calls"])]})
        yield chunk({}, finished)
        if with_usage:
            yield chunk({}, usage=_usage(turn))
        yield b"data: [DONE]\n\n"

    return StreamingResponse(pieces(), headers=headers | talking.STREAM_HEADERS, media_type="text/event-stream")


def _failed(turn: Turn) -> tuple[int, str, str]:
    text, kind, status = talking.failure(turn)
    return status, text, kind


def _refusal(problem: Problem) -> Response:
    return as_json(_error(problem.text, problem.kind, problem.status), problem.status, problem.headers)


def _error(text: str, kind: str, status: int) -> dict[str, Any]:
    group = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": text, "type": group, "param": None, "code": kind}}


def _id(turn: Turn) -> str:
    return f"chatcmpl-{turn.id.removeprefix('run-')}"


def _ascii(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe=" !#$&'()*+,/:;=?@[]~^`{}|\"<>\\")
