"""One turn: a user's message, the model's answer, and the tool calls between them.

Every way to run an agent goes through `take_turn`, so all of them restore and store the same. Each message is stored when it
happens: the user's before the model is called, each tool call and result as it comes, the answer when it is whole. Kill the
process anywhere and the session resumes.

What a reader would get wrong: how a turn ends badly is stored too. A failed turn gets a closing message marked "failed", and
the model never sees that turn again; an interrupted one keeps the part of the answer that was there, marked "interrupted".
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
from pydantic_ai import Agent as Runner
from pydantic_ai import DeferredToolRequests
from pydantic_ai import exceptions as library
from pydantic_ai.messages import FunctionToolResultEvent, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ExternalToolset

from praisonaiagents.agent import convert
from praisonaiagents.agent.remembering import TurnMemory
from praisonaiagents.agent.summary import NotCompacted, summarise
from praisonaiagents.agent.tools import library_tool
from praisonaiagents.errors import ModelError, ModelUnreachable, PraisonError
from praisonaiagents.model.memory import Source
from praisonaiagents.model.message import Content, Message
from praisonaiagents.session.compaction import Compacted, Work
from praisonaiagents.session.conversation import Conversation
from praisonaiagents.session.uncut import in_thread, uncut

Emit = Callable[[str], None]
Stored = Callable[[Message], None]
Watch = Callable[[str, int, int], object]
Why = Callable[[], str | None]
_RETRIES = 2  # of a tool call whose arguments do not fit
_INTERRUPTIONS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)


def runner_with(tools: Sequence[Callable[..., Any]]) -> Runner[None, Any]:
    """What runs turns in which the model may call these tools. Any number of turns may use it at once.

    Raises `ConfigError` for a tool that cannot be described to a model.
    """
    return Runner(tools=[library_tool(function) for function in tools], retries=_RETRIES)


async def take_turn(
    conversation: Conversation,
    prompt: Content,
    model: Model,
    *,
    runner: Runner[None, Any],
    instructions: str | None = None,
    settings: dict[str, Any] | None = None,
    memory: TurnMemory | None = None,
    emit: Emit | None = None,
    stored: Stored | None = None,
    run_id: str | None = None,
    results: Sequence[Message] = (),
    elsewhere: Sequence[ToolDefinition] = (),
    why: Why = lambda: None,
) -> str:
    """Say `prompt` to the model and return its answer.

    memory: what the model is told besides, and what of the turn is kept. With `emit`, the answer is streamed: each piece of
    text is passed to it as it comes. stored: told each message once it is stored.
    run_id: the turn's id, if the caller has one. A turn of this id that was cut off is gone on with: what it stored is stored
        once, and the model is asked for the rest.
    results: of tools that the caller ran, said before the prompt; `prompt` may be None then.
    elsewhere: tools that the caller runs: a call of one ends the turn, and its result begins the next.
    why: asked when the turn is interrupted; what it says is stored with the mark, as the kind of an error is.

    Raises `ModelError` when the model does not answer, `InvalidMessage` for a prompt no model can be sent, and what the
    storage engine raises.
    """
    convert.check_prompt(prompt)
    said = Message(role="user", content=prompt).text()
    known = await memory.recall(said) if memory else ""
    instructions = "\n\n".join(filter(None, (instructions, known))) or None
    more: dict[str, Any] = {}
    if elsewhere:
        more = {"toolsets": [ExternalToolset(list(elsewhere))], "output_type": [str, DeferredToolRequests]}
    turn = _Turn(conversation, emit, stored, run_id, why)
    await in_thread(conversation.refresh)
    async with turn.ended_well():
        await turn.begin(results, prompt, memory.metadata() if memory else {})
        await turn.shorten(model, (settings or {}).get("timeout"))
        history = convert.to_library(conversation.for_model(turn.run_id))
        async with runner.iter(
            None,
            model=model,
            instructions=instructions,
            message_history=history,
            model_settings=cast(ModelSettings, settings),
            **more,
        ) as run:
            async for node in run:
                if Runner.is_model_request_node(node):
                    await turn.ask(node, run.ctx)
                elif Runner.is_call_tools_node(node):
                    await turn.call_tools(node, run.ctx)
    if memory:
        await memory.keep(model, said, turn.answer, turn.source, (settings or {}).get("timeout"))
    return turn.answer


async def sum_up(
    conversation: Conversation,
    work: Work,
    model: Model,
    *,
    timeout: float | None = None,
    watch: Watch = lambda *_: None,
) -> Compacted | None:
    """Let the model sum up what was found. None if somebody else was faster. Raises as `summarise` does.

    watch: told what is being done, how much of it is done, and how much there is to do.
    """
    texts: list[str] = []
    for source in work.sources:
        watch("Summing up", len(texts), len(work.sources))
        texts.append(await summarise(model, source, timeout=timeout))
    return await in_thread(conversation.compacted, work, texts)


async def sum_up_old_part(
    conversation: Conversation, keep_last: int, model: Model, *, watch: Watch = lambda *_: None
) -> Compacted | None:
    """Let the model sum up all but the last messages. None if there is nothing to sum up, or somebody else was faster.

    Raises `ModelError`, `ConfigError`, and what the storage engine raises.
    """
    work = await in_thread(conversation.old_part, keep_last)
    try:
        return await sum_up(conversation, work, model, watch=watch) if work else None
    except PraisonError:
        raise
    except Exception as exc:
        raise _translated(exc) from exc


class _Turn:
    """What one turn has said so far."""

    def __init__(
        self, conversation: Conversation, emit: Emit | None, stored: Stored | None, run_id: str | None, why: Why
    ) -> None:
        self.run_id = run_id or f"run-{os.urandom(6).hex()}"
        self._is_named = run_id is not None
        self.answer = ""
        self.source: Source | None = None
        self._unstored = ""
        self._begun = False
        self._conversation = conversation
        self._emit = emit
        self._stored = stored
        self._why = why

    async def begin(self, results: Sequence[Message], prompt: Content, metadata: dict[str, Any]) -> None:
        opening = [msgspec.structs.replace(message, run_id=self.run_id) for message in results]
        if prompt is not None:
            opening.append(Message(role="user", content=prompt, metadata=metadata, run_id=self.run_id))
        if self._is_named:  # so that of two processes that take it at once one says it
            opening = [msgspec.structs.replace(said, id=f"{self.run_id}-{at}") for at, said in enumerate(opening)]
            known = self._conversation.said_in(self.run_id)
            self._begun, opening = known > 0, opening[known:]
        if not opening:
            return
        await uncut(self._conversation.begin(opening[-1]))
        for message in opening:
            self.source = await self.store(message)

    async def store(self, message: Message) -> Source | None:
        """Where it is stored; None if the conversation is not kept in a session of ours."""
        return await uncut(self._store(message))

    async def _store(self, message: Message) -> Source | None:
        await self._conversation.tell(message)
        source = await in_thread(self._add, message)
        if self._stored:
            self._stored(message)
        return source

    async def shorten(self, model: Model, timeout: float | None) -> None:
        """Sum up the older part of a conversation that has become too long. If that fails, the turn goes on with all of it."""
        if not self._conversation.compacts:
            return
        try:
            work = await in_thread(self._conversation.too_long)
            if work is not None:
                await sum_up(self._conversation, work, model, timeout=timeout)
        except Exception as exc:
            why = exc if isinstance(exc, PraisonError) else _translated(exc)
            warnings.warn(f"the conversation was not summed up: {why}", NotCompacted, stacklevel=1)

    async def ask(self, node: Any, context: Any) -> None:
        """Let the model speak, streaming if somebody listens."""
        if self._emit is None:
            return  # the library asks when the run goes on
        async with node.stream(context) as stream:
            async for event in stream:
                text = _text_of(event)
                if text:
                    self._unstored += text
                    self._emit(text)

    async def call_tools(self, node: Any, context: Any) -> None:
        """Store what the model said, then each tool's result as it comes."""
        message = convert.answer(node.model_response, self.run_id)
        self.answer = self._unstored = message.text()
        await self.store(message)
        async with node.stream(context) as events:
            async for event in events:
                if isinstance(event, FunctionToolResultEvent):
                    await self.store(convert.tool_result(event.part, self.run_id))

    @asynccontextmanager
    async def ended_well(self) -> AsyncIterator[None]:
        """Mark in the session how the turn ended, if it ended badly. What is not our own error becomes a `ModelError`."""
        try:
            yield
        except _INTERRUPTIONS as exc:
            await uncut(self._close("interrupted", exc))
            raise
        except PraisonError as exc:
            await uncut(self._close("failed", exc))
            raise
        except Exception as exc:
            await uncut(self._close("failed", exc))
            raise _translated(exc) from exc
        await uncut(self._conversation.end(None))

    def _add(self, message: Message) -> Source | None:
        source = self._conversation.add(message)
        self._unstored = ""
        self._begun = True
        return source

    async def _close(self, status: str, error: BaseException) -> None:
        if self._begun:
            await self._mark(status, error)
        await self._conversation.end(status)

    async def _mark(self, status: str, error: BaseException) -> None:
        """Store the mark. The error's kind is kept, not its text, which may quote a key or a message."""
        kind = type(error).__name__ if status == "failed" else self._why()
        metadata = {"error": kind} if kind else {}
        code = getattr(error, "status_code", None)
        if isinstance(code, int):
            metadata["status_code"] = str(code)
        mark = Message(role="assistant", content=self._unstored, metadata=metadata, run_id=self.run_id, status=status)
        try:
            await self.store(mark)
        except PraisonError as exc:
            error.add_note(f"the turn could not be marked {status} in the session: {exc}")


def _text_of(event: object) -> str:
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        return event.part.content
    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        return event.delta.content_delta
    return ""


def _translated(exc: Exception) -> ModelError:
    """The library's error as ours. Only its kind and status are repeated: providers quote keys in their texts."""
    status = getattr(exc, "status_code", None)
    name = getattr(exc, "model_name", "the model")
    if isinstance(exc, library.ModelTimeoutError):
        return ModelUnreachable(f"{name} did not answer in time; the turn is kept in the session, marked failed")
    if isinstance(exc, library.ModelConnectionError):
        return ModelUnreachable(f"{name} could not be reached: check the address, the network and that it is running")
    if status in (401, 403):
        return ModelError(f"{name} refused the API key (HTTP {status}): check the key", status)
    if status == 404:
        return ModelError(f"{name} is not known at this address (HTTP 404): check the model's name", status)
    what = f"HTTP {status}" if status else type(exc).__name__
    return ModelError(f"{name} did not answer: {what}; the turn is kept in the session, marked failed", status)
