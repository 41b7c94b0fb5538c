"""Plain Python functions as tools of the LLM library.

A tool that raises does not end the turn: the model is told the kind of error and its text, and may try something else.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.tools import Tool

_FOR_THE_LIBRARY = (ApprovalRequired, CallDeferred, ModelRetry, ToolFailed)


def library_tool(function: Callable[..., Any]) -> Tool[None]:
    """The function as a tool: its name, its type hints as the schema, its docstring as the description."""
    return Tool(_reporting(function), name=function.__name__)


def _reporting(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except _FOR_THE_LIBRARY:
                raise
            except Exception as exc:
                raise _failure(exc) from exc

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except _FOR_THE_LIBRARY:
            raise
        except Exception as exc:
            raise _failure(exc) from exc

    return call


def _failure(exc: Exception) -> ToolFailed:
    return ToolFailed(f"{type(exc).__name__}: {exc}")
