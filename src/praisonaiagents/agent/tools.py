"""Plain Python functions as tools of the LLM library.

A tool that raises does not end the turn: the model is told the kind of error and its text, and may try something else.

What a reader would get wrong: what a tool returns becomes text here, once, not where a provider's message is made. So what is
stored, what the model is sent now and what it is sent after a resume are the same.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.messages import ToolReturn, ToolReturnPart
from pydantic_ai.tools import Tool, ToolDefinition

from praisonaiagents.agent.convert import NOTHING
from praisonaiagents.errors import ConfigError

_FOR_THE_LIBRARY = (ApprovalRequired, CallDeferred, ModelRetry, ToolFailed)


def library_tool(function: Callable[..., Any]) -> Tool[None]:
    """The function as a tool: its name, its type hints as the schema, its docstring as the description.

    Raises `ConfigError` for one whose parameters cannot be described.
    """
    name = function.__name__
    try:
        return Tool(_reporting(function), name=name)
    except Exception as exc:
        raise ConfigError(f"the tool {name!r} cannot be described to a model: {exc}") from exc


def tool_elsewhere(name: str, description: str | None, schema: dict[str, Any]) -> ToolDefinition:
    """A tool that somebody else runs: the model may call it, and the turn ends with that. schema: of its arguments, in JSON."""
    return ToolDefinition(name=name, description=description, parameters_json_schema=schema)


def _reporting(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with _failures_told():
                return _as_text(await function(*args, **kwargs))

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _failures_told():
            return _as_text(function(*args, **kwargs))

    return call


@contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except _FOR_THE_LIBRARY:
        raise
    except (Exception, SystemExit) as exc:  # on an event loop, SystemExit would end the loop
        raise ToolFailed(_encodable(f"{type(exc).__name__}: {exc}")) from exc


def _as_text(result: Any) -> Any:
    """A result as the model is told it: text as it is, anything else as JSON where it can be. Files stay files."""
    if isinstance(result, ToolReturn):
        return result
    part = ToolReturnPart("", result)
    if part.files:
        return result
    try:
        text = part.model_response_str()
    except ValueError:
        text = str(result)
    return _encodable(text) if text.strip() else NOTHING


def _encodable(text: str) -> str:
    """The text without halves of characters, which file names may hold, and neither a model nor a store takes."""
    return text.encode("utf-8", "backslashreplace").decode()
