"""A turn with the agent over HTTP: asked for, listened to, picked up again, stopped.

    POST <path>  {"query": "Hello", "session_id": "s", "user_id": "u"}     -> {"response": ..., "session_id", "turn_id"}

With `"stream": true` the answer is a stream of events, each with an id. A caller that was cut off names the last id it saw
and goes on behind it. A caller that does not know whether its request arrived sends it again with the same
`Idempotency-Key`.

What a reader would get wrong: the key names the turn. Its id is made from the user, the session, the agent's path and the key,
and every message of the turn carries it. So also a server that was killed and started again knows which turn is meant: it
repeats the answer that is in the session, or tells what is there of a turn that was cut off, and goes on with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Annotated, Any

import msgspec
from starlette.responses import Response, StreamingResponse

from praisonaiagents import errors
from praisonaiagents.agent.agent import Agent
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key, conversation_key
from praisonaiagents.serve.operation import SESSION_ID, Ask, Operation
from praisonaiagents.serve.problems import Problem, as_json
from praisonaiagents.serve.turns import DONE, FAILED, INTERRUPTED, STOPPED, TIMED_OUT, Failure, Turn, Turns
from praisonaiagents.session.runs import called
from praisonaiagents.session.store import SessionStore
from praisonaiagents.session.uncut import in_thread

_PING_S = 15.0
_NOT_NOW = 503
_LOOKED_AT = 100  # of the last messages, for a turn that another process began
_LONGEST_KEY = 255
STREAM_HEADERS = {"X-Accel-Buffering": "no"}  # for proxies, which would keep pieces back


_SOMETHING = msgspec.Meta(extra_json_schema={"minLength": 1, "pattern": r"\S"})
_ID_OR_NOTHING = msgspec.Meta(extra_json_schema=(SESSION_ID.extra_json_schema or {}) | {"minLength": 0})


class Query(msgspec.Struct):
    """What is said to the agent. Other keys are ignored."""

    query: Annotated[str, _SOMETHING]
    session_id: Annotated[str, _ID_OR_NOTHING] | None = None
    user_id: Annotated[str, _ID_OR_NOTHING] | None = None
    stream: bool = False


class Answer(msgspec.Struct):
    """What the agent answered."""

    response: str
    session_id: str
    turn_id: str


class TurnState(msgspec.Struct, omit_defaults=True):
    """A turn, and what became of it so far: status is running, done, failed or interrupted."""

    turn_id: str
    session_id: str
    status: str
    response: str | None = None
    error: str | None = None


async def query(ask: Ask) -> Response:
    """Say something to the agent."""
    body: Query = ask.body
    agent = the_agent(ask)
    if not body.query.strip():
        raise Problem(400, "the query is empty: say something", detail=_MISSING)
    check_length(ask, body.query)
    user_id = meant_user(ask, body.user_id)
    turn = await begin(ask, agent, user_id, body.session_id, body.query)
    headers = {"Idempotency-Replayed": "true"} if turn.is_replay else {}
    if body.stream or ask.wants_events():
        return stream_of(turn, seen_in(ask, turn) if turn.is_replay else 0, headers)
    await turn.over()
    if turn.failure is not None:
        text, kind, status = turn.failure
        return as_json({"error": text, "type": kind, "turn_id": turn.id}, status, headers)
    return as_json(Answer(turn.answer, turn.key.session_id, turn.id), headers=headers)


async def turn_state(ask: Ask) -> Response:
    """A turn that is under way, or ended not long ago: its state, or its events from `Last-Event-ID` on."""
    turn = known_turn(ask)
    if ask.wants_events():
        return stream_of(turn, seen_in(ask, turn), {})
    return as_json(_state(turn))


async def stop_turn(ask: Ask) -> Response:
    """Stop a turn. What was answered by then is kept, marked interrupted."""
    turn = known_turn(ask)
    turn.stop()
    await turn.over()
    return as_json(_state(turn))


OPERATIONS = (
    Operation(
        "GET",
        "/turns/{turn_id}",
        turn_state,
        "A turn, and its events",
        gives=TurnState,
        also=(404,),
        headers=("Last-Event-ID",),
        media=("text/event-stream",),
    ),
    Operation("DELETE", "/turns/{turn_id}", stop_turn, "Stop a turn", gives=TurnState, also=(404,)),
)
_MISSING = "Missing 'query' field in request"
QUERY = Operation(
    "POST",
    "",
    query,
    "Say something to the agent",
    takes=Query,
    gives=Answer,
    also=(404, 409, 413, 422, 500, 504),
    headers=("Idempotency-Key", "Last-Event-ID"),
    media=("text/event-stream",),
    complaint=_MISSING,
)


# --- a turn, whoever speaks of it ---


def the_agent(ask: Ask) -> Agent:
    """The agent that is meant. Raises `Problem` where several are served, and none was named."""
    agents = ask.place.service.agents
    if ask.place.agent is not None:
        return ask.place.agent
    if len(agents) != 1:
        raise Problem(
            404, "several agents are served here: call one by its path", "AgentNotFound", endpoints=sorted(agents)
        )
    return next(iter(agents.values()))


def meant_user(ask: Ask, named: str | None) -> str:
    """Whose session is meant. Raises `Problem` where that is not for the caller to say."""
    user_id = ask.caller.meaning(named)
    if user_id is None:
        raise Problem(403, "this token is another user's", "Forbidden")
    if user_id != ask.caller.user_id:
        ask.place.service.rate.check(user_id)
    return user_id


def check_length(ask: Ask, text: str) -> None:
    """Raise `Problem` for more than may be said in one message."""
    most = ask.place.service.settings.max_message_chars
    if len(text) > most:
        raise Problem(413, f"a message has at most {most:,} characters", "MessageTooLarge")


def key_in(ask: Ask) -> str | None:
    """The request's Idempotency-Key. Raises `Problem`."""
    key = ask.request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise Problem(400, f"an Idempotency-Key is 1 to {_LONGEST_KEY} printable ASCII characters")
    return key


async def begin(ask: Ask, agent: Agent, user_id: str, session_id: str | None, prompt: Any, **more: Any) -> Turn:
    """The turn that a request asks for: a new one, the one it asked for before, or one that a crash cut off.

    more: as for `Agent.take_turn`, and `before`: messages that a session begins with in which nothing was said yet.
    Raises `Problem`, `InvalidId`.
    """
    idempotency_key, path = key_in(ask), ask.place.path
    session = conversation_key(session_id or _new_id(user_id, path, idempotency_key), user_id)
    ask.told |= {"user": user_id, "session": session.session_id}
    said = [message.content for message in more.get("results", ())] + ([] if prompt is None else [prompt])
    here = partial(ask.place.service.at_hand, path, agent, session)
    if idempotency_key is None:
        return _begin(ask, here, f"run-{os.urandom(8).hex()}", session, said, prompt, more)
    turn_id = f"run-{_hash(*session, path, idempotency_key)}"
    turns = ask.place.service.turns
    known, own = _lasting(turns.find(user_id, turn_id)), []
    if known is None:
        own = await in_thread(_stored, ask.place.service.store, session, turn_id)
        known = _lasting(turns.find(user_id, turn_id)) or _over(turns, turn_id, session, said, own, _names(more))
    if known is None:
        return _begin(ask, here, turn_id, session, said, prompt, more, own[len(said) :])
    return _again(known, said)


def begin_unkept(ask: Ask, agent: Agent, user_id: str, before: Sequence[Message], prompt: Any, **more: Any) -> Turn:
    """A turn in a conversation that ends with it; `before` is what was said in it so far.

    With an Idempotency-Key it is the turn that was asked for before, as long as that is known. Raises `Problem`.
    """
    idempotency_key = key_in(ask)
    said = [message.to_chat() for message in (*before, *more.get("results", ()))] + [prompt]
    turn_id = f"run-{os.urandom(8).hex()}"
    if idempotency_key is not None:
        turn_id = f"run-{_hash(user_id, ask.place.path, idempotency_key)}"
        if (known := _lasting(ask.place.service.turns.find(user_id, turn_id))) is not None:
            return _again(known, said)
    here = agent.for_session(None, user_id)
    here.chat_history = [message.to_chat() for message in before]
    return _begin(ask, lambda: nullcontext(here), turn_id, Key(user_id, turn_id), said, prompt, more)


def stream_of(turn: Turn, seen: int, headers: dict[str, str]) -> Response:
    """The events of a turn after number `seen`, as they come. A caller that goes away stops nothing."""

    async def events() -> AsyncIterator[bytes]:
        number = seen
        async for event in turn.listen(seen, _PING_S):
            if event is None:
                yield b": ping\n\n"
                continue
            number, name, value = event
            yield _event(turn, number, name, value)
        last = number + 1
        if turn.status == DONE:
            yield _event(turn, last, "done", msgspec.to_builtins(Answer(turn.answer, turn.key.session_id, turn.id)))
        else:
            text, kind, status = turn.failure or STOPPED
            yield _event(turn, last, "error", {"error": text, "type": kind, "status": status})

    return StreamingResponse(events(), headers=headers | STREAM_HEADERS, media_type="text/event-stream")


def seen_in(ask: Ask, turn: Turn) -> int:
    """The number of the last event that the caller saw, of this turn. Raises `Problem`."""
    last = ask.header("last-event-id")
    if last is None:
        return 0
    turn_id, _, number = last.rpartition(".")
    if turn_id != turn.id or not number.isdecimal() or len(number) > 9:
        raise Problem(400, "Last-Event-ID is the id of an event of this turn")
    return min(int(number), len(turn.events))


def known_turn(ask: Ask) -> Turn:
    """The turn in the path. Raises `Problem`: somebody else's is as unknown as one that never was."""
    turn = ask.place.service.turns.find(ask.user_id, ask.parameter("turn_id"))
    if turn is None:
        raise Problem(404, "no such turn, or not any more", "TurnNotFound")
    return turn


def _begin(
    ask: Ask,
    agent: Callable[[], AbstractContextManager[Agent]],
    turn_id: str,
    key: Key,
    said: Any,
    prompt: Any,
    more: dict[str, Any],
    own: Sequence[Message] = (),
) -> Turn:
    """agent: lends the agent that takes the turn. own: what a turn that was cut off has stored besides what was `said`."""
    settings, before, elsewhere = more.pop("settings", {}), more.pop("before", ()), _names(more)

    async def work(turn: Turn) -> str:
        def stored(message: Message) -> None:
            turn.tell(message)
            turn.begun()

        def emit(text: str) -> None:
            turn.emit("text", {"text": text})

        def why() -> str | None:
            return TIMED_OUT.kind if turn.is_late else None

        with agent() as here:
            if before:
                await in_thread(_seed, here.store, key, before)
            try:
                return await here.take_turn(prompt, settings, emit, stored=stored, run_id=turn_id, why=why, **more)
            except asyncio.CancelledError:
                if not _is_answered(turn.messages, elsewhere):
                    raise
                return _last_answer(turn.messages).text()  # it is stored: what was cut off came after it

    ask.told["turn"] = turn_id
    turn = ask.place.service.turns.begin(turn_id, key, said, work)
    turn.emit("turn", {"turn_id": turn.id, "session_id": key.session_id})  # also while it waits for its session
    _retell(turn, own)
    return turn


def _seed(store: SessionStore, key: Key, before: Sequence[Message]) -> None:
    """Begin a session in which nothing was said yet with these messages."""
    record = store.engine.get(key)
    if record is None or not record.length:
        with suppress(errors.Conflict):  # another process has begun it
            store.append(key.session_id, before, user_id=key.user_id, expected_length=0)


def _again(turn: Turn, said: Any) -> Turn:
    """A turn that is asked for again. Raises `Problem` if something else was said in it."""
    if turn.said != said:
        raise Problem(422, "this Idempotency-Key was used for another request", "IdempotencyKeyReused")
    turn.is_replay = True
    return turn


def _lasting(turn: Turn | None) -> Turn | None:
    """The turn, unless it came to nothing before anything of it was stored, or failed only for a moment: then it is taken
    again, and the session knows how far it came.
    """
    if turn is not None and turn.failure and (turn.failure.status == _NOT_NOW or not turn.has_begun):
        return None
    return turn


def _stored(store: SessionStore, key: Key, turn_id: str) -> list[Message]:
    """What the session holds of a turn."""
    messages = store.read_from(key.session_id, -_LOOKED_AT, user_id=key.user_id).messages
    return [message for message in messages if message.run_id == turn_id]


def _over(
    turns: Turns, turn_id: str, key: Key, said: list[Any], own: Sequence[Message], elsewhere: set[str]
) -> Turn | None:
    """The turn that has stored these messages, if it has ended; None if there is none, or it was cut off."""
    opening = [message.content for message in own[: len(said)]]
    mark = _mark(own)
    if not own or (opening == said[: len(own)] and mark is None and not _is_answered(own, elsewhere)):
        return None
    turn = Turn(turn_id, key, opening)
    turn.emit("turn", {"turn_id": turn_id, "session_id": key.session_id})
    _retell(turn, own[len(said) :])
    turn.begun()
    turn.answer = _last_answer(own).text()
    if mark is None:
        turn.end(DONE)
    else:
        turn.end(FAILED if mark.status == "failed" else INTERRUPTED, _failure_of(mark))
    return turns.remember(turn)


def _retell(turn: Turn, messages: Sequence[Message]) -> None:
    """Tell what was stored before as if it happened now."""
    for message in messages:
        if message.role == "assistant" and message.text():
            turn.emit("text", {"text": message.text()})
        turn.tell(message)


def _mark(own: Sequence[Message]) -> Message | None:
    """The message that says that a turn did not end well."""
    return own[-1] if own and own[-1].role == "assistant" and own[-1].status is not None else None


def _failure_of(mark: Message) -> Failure:
    """Why a turn did not end well. Only the kind of an error is stored."""
    kind = str(mark.metadata.get("error", "ModelError"))
    if mark.status != "failed":
        return TIMED_OUT if kind == TIMED_OUT.kind else STOPPED
    own = kind if hasattr(errors, kind) else "ModelError"
    return Failure(f"Error processing query: the turn failed before ({kind})", own, 500)


def _is_answered(own: Sequence[Message], elsewhere: set[str]) -> bool:
    """Whether these messages are a whole turn: they end with an answer, or with calls that the caller has to make."""
    if not own or _mark(own):
        return False
    results = {message.tool_call_id for message in own if message.role == "tool"}
    calls = [call for call in _last_answer(own).calls() if call["id"] not in results]
    return all(called(call)[0] in elsewhere for call in calls) and (bool(calls) or own[-1].role == "assistant")


def _last_answer(own: Sequence[Message]) -> Message:
    """What the model said last; an empty answer if it has not said anything."""
    answers = (message for message in reversed(own) if message.role == "assistant")
    return next(answers, Message(role="assistant", content=""))


def _state(turn: Turn) -> TurnState:
    state = TurnState(turn.id, turn.key.session_id, turn.status)
    if turn.status == DONE:
        state.response = turn.answer
    elif turn.failure is not None:
        state.error = turn.failure.text
    return state


def _event(turn: Turn, number: int, name: str, value: dict[str, Any]) -> bytes:
    return b"id: %b.%d\nevent: %b\ndata: %b\n\n" % (turn.id.encode(), number, name.encode(), msgspec.json.encode(value))


def _names(more: dict[str, Any]) -> set[str]:
    """The tools that the caller runs."""
    return {tool.name for tool in more.get("elsewhere", ())}


def _new_id(user_id: str, path: str, idempotency_key: str | None) -> str:
    """The id of a session that nobody named: the same one for a request that is repeated."""
    return os.urandom(8).hex() if idempotency_key is None else _hash(user_id, path, idempotency_key)[:16]


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]
