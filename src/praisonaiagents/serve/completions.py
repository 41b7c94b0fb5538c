"""The agent in OpenAI's words, so that any OpenAI client talks to it, and has sessions that are kept.

    client = OpenAI(base_url="http://127.0.0.1:8000/sessions/my-session/v1", api_key=TOKEN)

The session is named in the URL, in the header `X-Session-Id` (percent-encoded), or in `metadata={"session_id": ...}`. Without
one nothing is kept, and the conversation is what the client sends, as it is with OpenAI.

What a reader would get wrong: a client sends the whole conversation each time, and the session has it already. So of the
messages only those after the last answer are said now. Those before count in one case: where the session is new, it begins
with them. What the client says as `system` is said to the model in this turn, besides the agent's own instructions.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote, unquote

import msgspec
from starlette.responses import Response, StreamingResponse

from praisonaiagents.agent.agent import Agent
from praisonaiagents.agent.convert import check_prompt
from praisonaiagents.agent.tools import tool_elsewhere
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, conversation_key
from praisonaiagents.serve import talking
from praisonaiagents.serve.operation import Ask, Operation
from praisonaiagents.serve.problems import Problem, as_json
from praisonaiagents.serve.turns import DONE, STOPPED, Turn
from praisonaiagents.session.runs import called
from praisonaiagents.session.uncut import in_thread

_SETTINGS = ("temperature", "top_p", "max_tokens", "seed", "presence_penalty", "frequency_penalty")
_TOOL_NAME = "^[A-Za-z0-9_-]{1,128}$"
_LOOKED_AT = 200  # of a session's last messages, for the calls that results are of
_DO_NOT_REPEAT = {"X-Should-Retry": "false"}  # OpenAI's clients repeat what failed: it would be said twice

_Text = str | list[dict[str, Any]] | None
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class FunctionCall(msgspec.Struct):
    """What was called. arguments: JSON text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    """A call of a tool."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct):
    """A message as OpenAI has it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: _Text = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class Function(msgspec.Struct):
    """A tool that the client runs. parameters: a JSON schema."""

    name: Annotated[str, msgspec.Meta(pattern=_TOOL_NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ClientTool(msgspec.Struct):
    """A tool that the client runs."""

    function: Function
    type: Literal["function"] = "function"


class StreamOptions(msgspec.Struct):
    """include_usage: end the stream with the tokens used."""

    include_usage: bool = False


class Format(msgspec.Struct):
    """The form of the answer: text."""

    type: Literal["text"]


class Completion(msgspec.Struct):
    """A request as OpenAI takes it. Keys that are not named here are ignored."""

    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1)]
    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[ClientTool] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    metadata: dict[str, Any] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    stop: str | list[str] | None = None
    n: Literal[1] | None = None
    response_format: Format | None = None


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


class ChatError(msgspec.Struct):
    """What went wrong. code: its kind. type: whose fault it is."""

    message: str
    type: str
    code: str
    param: str | None = None


class ChatFailure(msgspec.Struct):
    """What went wrong, as OpenAI says it."""

    error: ChatError


async def complete(ask: Ask) -> Response:
    """Answer the messages after the last answer, in the session that is named."""
    body: Completion = ask.body
    path, agent = _agent(ask, body.model)
    ask.place = ask.place._replace(agent=agent, path=path)
    said = _split(body.messages)
    _check(ask, said)
    session_id = _session(ask, body)
    turn = await _begin(ask, agent, said, session_id, _more(body, agent, said))
    is_kept = session_id is not None or talking.key_in(ask) is not None
    headers = {} if session_id is None else {"X-Session-Id": quote(session_id, safe="")}
    if turn.is_replay:
        headers["Idempotency-Replayed"] = "true"
    if body.stream:
        return _stream(turn, body, headers, is_kept=is_kept)
    await turn.over()
    if turn.failure is not None:
        text, kind, status = turn.failure
        return refusal(Problem(status, text, kind, headers=headers | _DO_NOT_REPEAT))
    return as_json(_completed(turn, body), headers=headers)


async def list_models(ask: Ask) -> Models:
    """The agents that are served."""
    return Models([Model(name) for name in _models(ask)])


async def show_model(ask: Ask) -> Model:
    """One of the agents."""
    name = ask.parameter("model")
    if name not in _models(ask):
        raise Problem(404, "no agent is called like this model", "model_not_found")
    return Model(name)


def refusal(problem: Problem) -> Response:
    """An error in OpenAI's words."""
    return as_json(_failure(problem.text, problem.kind, problem.status), problem.status, problem.headers)


OPERATIONS = tuple(
    operation._replace(path=base + operation.path, tells=refusal, fails=ChatFailure)
    for base in ("", "/sessions/{session_id}")
    for operation in (
        Operation(
            "POST",
            "/v1/chat/completions",
            complete,
            "Chat, as OpenAI does",
            takes=Completion,
            gives=Completed,
            also=(404, 409, 413, 422, 500, 504),
            headers=("Idempotency-Key", "X-Session-Id"),
            media=("text/event-stream",),
        ),
        Operation("GET", "/v1/models", list_models, "The agents, as models", gives=Models),
        Operation("GET", "/v1/models/{model}", show_model, "An agent, as a model", gives=Model, also=(404,)),
    )
)


# --- what is asked ---


class _Said(NamedTuple):
    """What a client sends, taken apart. calls: the names of the tools that were called, by the id of the call."""

    before: list[Message]
    results: list[Message]
    users: list[Message]
    instructions: str | None
    calls: dict[str, str]

    @property
    def prompt(self) -> Any:
        """What its user says now; None if only tools have."""
        if not self.users:
            return None
        if len(self.users) > 1 and any(isinstance(one.content, list) for one in self.users):
            return [part for one in self.users for part in _parts(one.content)]
        return self.users[0].content if len(self.users) == 1 else "\n\n".join(one.text() for one in self.users)


def _split(given: Sequence[ChatMessage]) -> _Said:
    told = [_message(one) for one in given]
    instructions = "\n\n".join(one.text() for one in told if one.role in ("system", "developer")) or None
    said = [one for one in told if one.role not in ("system", "developer")]
    last = max((at for at, one in enumerate(said) if one.role == "assistant"), default=-1)
    now = said[last + 1 :]
    return _Said(
        said[: last + 1],
        [one for one in now if one.role == "tool"],
        [one for one in now if one.role == "user"],
        instructions,
        _calls(said),
    )


def _message(given: ChatMessage) -> Message:
    if given.role == "tool" and not given.tool_call_id:
        raise Problem(400, "the result of a tool names its call: tool_call_id")
    calls = None if given.role != "assistant" else msgspec.to_builtins(given.tool_calls or None)
    call_id = given.tool_call_id if given.role == "tool" else None
    return Message(role=given.role, content=given.content, tool_calls=calls, tool_call_id=call_id, name=given.name)


def _check(ask: Ask, said: _Said) -> None:
    """Raise `Problem`, `InvalidMessage` for what cannot be said."""
    now = [*said.results, *said.users]
    if not now or (said.users and not any(_is_something(one) for one in said.users)):
        raise Problem(400, "the last message is from the user and says something, or is the result of a tool")
    for one in now:
        talking.check_length(ask, one.text())
        check_prompt(one.content)


def _is_something(message: Message) -> bool:
    return bool(message.text().strip()) or (isinstance(message.content, list) and bool(message.content))


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content or ""}]


def _calls(messages: Sequence[Message]) -> dict[str, str]:
    return {call["id"]: called(call)[0] for one in messages for call in one.calls()}


def _more(body: Completion, agent: Agent, said: _Said) -> dict[str, Any]:
    """What the turn is told besides what is said."""
    settings = {name: value for name in _SETTINGS if (value := getattr(body, name)) is not None}
    if body.max_completion_tokens is not None:
        settings["max_tokens"] = body.max_completion_tokens
    if body.stop:
        settings["stop_sequences"] = [body.stop] if isinstance(body.stop, str) else body.stop
    tools = [] if body.tool_choice == "none" else body.tools or []
    return {"settings": settings, "instructions": said.instructions, "elsewhere": _definitions(tools, agent)}


def _definitions(tools: Sequence[ClientTool], agent: Agent) -> list[Any]:
    taken = {tool.__name__ for tool in agent.tools}
    for tool in tools:
        if tool.function.name in taken:
            raise Problem(400, "two tools have one name, or one has the name of a tool of the agent's own")
        taken.add(tool.function.name)
    return [
        tool_elsewhere(each.name, each.description, {"type": "object", "properties": {}} | (each.parameters or {}))
        for each in (tool.function for tool in tools)
    ]


def _agent(ask: Ask, model: str) -> tuple[str, Agent]:
    """The agent that is meant, and its path: the one here, the only one, or the one of this name."""
    models = _models(ask)
    if len(models) == 1:
        return next(iter(models.values()))
    if model not in models:
        raise Problem(404, f"no agent is called like this model; there are: {', '.join(models)}", "model_not_found")
    return models[model]


def _models(ask: Ask) -> dict[str, tuple[str, Agent]]:
    """The agents by the names that they have as models. Of two with one name, the later one is called by its path."""
    here: Mapping[str, Agent] = ask.place.service.agents
    if ask.place.agent is not None:
        here = {ask.place.path: ask.place.agent}
    models: dict[str, tuple[str, Agent]] = {}
    for path, agent in here.items():
        by_path = path.strip("/") or "agent"
        name = agent.name or by_path
        models[by_path if name in models else name] = (path, agent)
    return models


def _session(ask: Ask, body: Completion) -> str | None:
    if "session_id" in ask.request.path_params:
        return ask.session_id
    named = ask.header("x-session-id")
    if named is None:
        return _in(body, "session_id")
    try:
        return unquote(named.encode("ascii").decode(), errors="strict")
    except UnicodeError as exc:
        raise Problem(400, "X-Session-Id is the session's id in percent-encoded UTF-8") from exc


def _in(body: Completion, name: str) -> str | None:
    value = (body.metadata or {}).get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(400, f"metadata.{name} is text")
    return value or None


# --- the turn ---


async def _begin(ask: Ask, agent: Agent, said: _Said, session_id: str | None, more: dict[str, Any]) -> Turn:
    user_id = talking.meant_user(ask, _in(ask.body, "user_id"))
    if session_id is None:
        results = _named(said.results, said.calls)
        return talking.begin_unkept(ask, agent, user_id, said.before, said.prompt, results=results, **more)
    key = conversation_key(session_id, user_id)
    calls = said.calls | (await in_thread(_calls_in, ask, key) if said.results else {})
    results = _named(said.results, calls)
    before = said.before
    return await talking.begin(ask, agent, user_id, session_id, said.prompt, results=results, before=before, **more)


def _calls_in(ask: Ask, key: Key) -> dict[str, str]:
    """The calls that were made last in a session."""
    return _calls(ask.place.service.store.read_from(key.session_id, -_LOOKED_AT, user_id=key.user_id).messages)


def _named(results: Sequence[Message], calls: Mapping[str, str]) -> list[Message]:
    """The results with the names of their tools. Raises `Problem` for the result of a call that nobody made."""
    if any(one.tool_call_id not in calls for one in results):
        raise Problem(400, "the result of a tool names a call that was not made here")
    return [msgspec.structs.replace(one, name=one.name or calls[one.tool_call_id or ""]) for one in results]


# --- the answer ---


def _completed(turn: Turn, body: Completion) -> Completed:
    finished, message = _finished(turn)
    choice = {"index": 0, "message": message, "finish_reason": finished, "logprobs": None}
    return Completed(_id(turn), "chat.completion", int(time.time()), body.model, [choice], _usage(turn))


def _finished(turn: Turn) -> tuple[str, dict[str, Any]]:
    """(why it ended, the answer as OpenAI gives it). Calls that the agent's own tools have answered are its own business."""
    answered = {message.tool_call_id for message in turn.messages if message.role == "tool"}
    last = next((message for message in reversed(turn.messages) if message.role == "assistant"), None)
    calls = [call for call in last.calls() if call["id"] not in answered] if last else []
    if calls:
        return "tool_calls", {"role": "assistant", "content": turn.answer or None, "tool_calls": calls}
    return "stop", {"role": "assistant", "content": turn.answer}


def _usage(turn: Turn) -> dict[str, int]:
    def count(name: str) -> int:
        values = (message.usage.get(name) for message in turn.messages if message.usage)
        return sum(value for value in values if isinstance(value, int))

    said, answered = count("input_tokens"), count("output_tokens")
    return {"prompt_tokens": said, "completion_tokens": answered, "total_tokens": said + answered}


def _stream(turn: Turn, body: Completion, headers: dict[str, str], *, is_kept: bool) -> Response:
    with_usage = body.stream_options is not None and body.stream_options.include_usage
    envelope = {"id": _id(turn), "object": "chat.completion.chunk", "created": int(time.time()), "model": body.model}

    def chunk(delta: dict[str, Any], finished: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finished, "logprobs": None}
        return _data(envelope | {"choices": [choice]} | ({"usage": None} if with_usage else {}))

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield chunk({"role": "assistant", "content": ""})
            async for text in _texts(turn):
                yield b": ping\n\n" if text is None else chunk({"content": text})
            for last in ending():
                yield last
        finally:
            if not is_kept:
                turn.stop()  # its caller is gone, and nobody could pick it up

    def ending() -> Iterator[bytes]:
        if turn.status != DONE:
            yield _data(_failure(*(turn.failure or STOPPED)))
            return
        finished, message = _finished(turn)
        if "tool_calls" in message:
            yield chunk({"tool_calls": [{"index": at} | call for at, call in enumerate(message["tool_calls"])]})
        yield chunk({}, finished)
        if with_usage:
            yield _data(envelope | {"choices": [], "usage": _usage(turn)})
        yield b"data: [DONE]\n\n"

    return StreamingResponse(pieces(), headers=headers | talking.STREAM_HEADERS, media_type="text/event-stream")


async def _texts(turn: Turn) -> AsyncIterator[str | None]:
    """The pieces of text, those of separate messages apart; None where nothing came for a while."""
    said = between = False
    async for event in turn.listen():
        if event is None:
            yield None
        elif event[1] == "text":
            yield ("\n\n" if between else "") + event[2]["text"]
            said, between = True, False
        elif event[1] == "message":
            between = said


def _data(value: Any) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(value)


def _failure(text: str, kind: str, status: int) -> ChatFailure:
    return ChatFailure(ChatError(text, "invalid_request_error" if status < 500 else "server_error", kind))


def _id(turn: Turn) -> str:
    return f"chatcmpl-{turn.id.removeprefix('run-')}"
