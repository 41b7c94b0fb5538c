"""How anything is shown: tables for people, plain lines for pipes, JSON for programs.

Whatever a model or a user said may hold escape sequences that would move the cursor or forge what the terminal shows, so text
goes to a terminal without its control characters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from praisonaiagents.errors import PraisonError

F = TypeVar("F", bound=Callable[..., Any])

_WANTS_JSON = "praisonaiagents.json"
_CONTROL = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def json_option(command: F) -> F:
    """`--json`, accepted before and after the command's name alike."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().meta[_WANTS_JSON] = True

    return click.option(
        "--json", "as_json", is_flag=True, expose_value=False, callback=remember, is_eager=True, help="Print JSON."
    )(command)


def wants_json() -> bool:
    """True if this call was asked for JSON."""
    ctx = click.get_current_context(silent=True)
    if ctx is None:
        return "--json" in sys.argv[1:]
    return bool(ctx.find_root().meta.get(_WANTS_JSON))


def print_json(value: Any) -> None:
    """One JSON document on stdout, on one line, so that line-wise readers can take several."""
    click.echo(json.dumps(value, ensure_ascii=False))


def report(error: PraisonError) -> None:
    """An error of ours, on stderr, or as JSON on stdout."""
    if wants_json():
        print_json({"error": {"type": type(error).__name__, "message": str(error)}})
    else:
        click.echo(f"Error: {safe(str(error), sys.stderr.isatty())}", err=True)


def safe(text: str, terminal: bool = True) -> str:
    """Text without control characters, for a terminal; as it is, for anything else."""
    return text.translate(_CONTROL) if terminal else text


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in a terminal; lines of tab-separated values, without a head, in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column == "Messages" else "left")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    Console().print(table)


def print_details(details: Sequence[tuple[str, str]]) -> None:
    """Names and values, a line each."""
    width = max(len(name) for name, _ in details)
    for name, value in details:
        click.echo(f"{name + ':':<{width + 1}} {safe(value, sys.stdout.isatty())}")


def print_messages(messages: Sequence[dict[str, Any]]) -> None:
    """A conversation, each message under its role."""
    for message in messages:
        click.echo(f"[{_label(message)}] {safe(_body(message), sys.stdout.isatty())}")


def _label(message: dict[str, Any]) -> str:
    role = f"{message['role']} {message['name']}" if message.get("name") else message["role"]
    return f"{role}, {message['status']}" if message.get("status") else str(role)


def _body(message: dict[str, Any]) -> str:
    content = message.get("content")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) if content else ""
    calls = [call.get("function", {}) for call in message.get("tool_calls") or () if isinstance(call, dict)]
    return "\n".join(
        [*([text] if text else []), *(f"-> {call.get('name')}({call.get('arguments', '')})" for call in calls)]
    )


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(safe(text))
