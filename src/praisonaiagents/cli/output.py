"""How anything is shown: tables for people, plain lines for pipes, JSON for programs.

What a reader would get wrong: text that a model or a user said may hold escape sequences that move the cursor, forge what the
terminal shows or reverse the order it is read in. So nothing that was said goes to a terminal but through `safe`.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO, TypeVar

import click
import msgspec

from praisonaiagents.errors import PraisonError

F = TypeVar("F", bound=Callable[..., Any])

_WANTS_JSON = "praisonaiagents.json"
_NUMBER = "Messages"
_LONGEST_CELL = 30
_GAP = "  "
_FRAME_S = 0.1
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_UNSAFE = {code: None for code in (*range(0x20), *range(0x7F, 0xA0), *_BIDI) if chr(code) not in "\n\t"}


def is_terminal(stream: TextIO | None) -> bool:
    """True if a person reads or writes this stream. Python has None where a stream was closed before it started."""
    return stream is not None and stream.isatty()


def is_dumb() -> bool:
    """True if the terminal cannot move its cursor or print bold."""
    return os.environ.get("TERM", "dumb") == "dumb"


# --- JSON ---


def json_option(command: F) -> F:
    """`--json`, accepted before and after the command's name alike."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().meta[_WANTS_JSON] = True

    return click.option(
        "--json", "as_json", is_flag=True, expose_value=False, callback=remember, is_eager=True, help="Print JSON."
    )(command)


def wants_json() -> bool:
    """True if this call was asked for JSON, also where it was asked so wrongly that no command was found."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None and ctx.find_root().meta.get(_WANTS_JSON):
        return True
    arguments = sys.argv[1:]
    return ctx is None and "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)


def print_json(value: Any) -> None:
    """One JSON document on stdout, on one line, so that line-wise readers can take several. Always UTF-8."""
    click.echo(msgspec.json.encode(value))


def as_json_text(value: Any) -> str:
    """JSON on one line, readable in every alphabet."""
    return msgspec.json.encode(value).decode()


def report(error: PraisonError) -> None:
    """An error of ours, on stderr, or as JSON on stdout."""
    report_as(type(error).__name__, str(error))


def report_as(kind: str, text: str) -> None:
    """An error, on stderr, or as JSON on stdout. Arguments that are not UTF-8 may be quoted in it."""
    if wants_json():
        print_json({"error": {"type": kind, "message": text.encode("utf-8", "backslashreplace").decode()}})
    else:
        click.echo(f"Error: {safe(text, is_terminal(sys.stderr))}", err=True)


# --- text ---


def safe(text: str, terminal: bool = True) -> str:
    """Text without control characters, for a terminal; as it is, for anything else."""
    return text.translate(_UNSAFE) if terminal else text


def put(text: str, *, end: bool = True) -> None:
    """Print what was said. Left alone, click takes escape sequences out of what goes into a pipe, whole ones at least."""
    click.echo(safe(text, is_terminal(sys.stdout)), nl=end, color=True)


def bold(text: str) -> str:
    """Text that stands out, in a terminal that can do that and may."""
    plain = not is_terminal(sys.stdout) or is_dumb() or os.environ.get("NO_COLOR")
    return text if plain else click.style(text, bold=True)


def when(iso: str) -> str:
    """A time of a session: by the clock on the wall for people, as it is stored for programs."""
    if not iso or not is_terminal(sys.stdout):
        return iso or "-"
    from datetime import datetime

    return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M}"


def print_details(details: Sequence[tuple[str, str]]) -> None:
    """Names and values, a line each."""
    width = max(len(name) for name, _ in details)
    for name, value in details:
        put(f"{name + ':':<{width + 1}} {value}")


def print_messages(messages: Sequence[dict[str, Any]], longest: int | None = None) -> None:
    """A conversation, each message after its role, and no more than `longest` characters of it."""
    for message in messages:
        body = _body(message)
        if longest is not None and len(body) > longest:
            body = f"{body[:longest]}... ({len(body) - longest:,} more characters)"
        click.echo(bold(f"[{_label(message)}] "), nl=False)
        put(body)


def message_text(message: dict[str, Any]) -> str:
    """A message after its role, as text."""
    return f"[{_label(message)}] {_body(message)}"


def _label(message: dict[str, Any]) -> str:
    role = f"{message['role']} {message['name']}" if message.get("name") else message["role"]
    return safe(f"{role}, {message['status']}" if message.get("status") else role)


def _body(message: dict[str, Any]) -> str:
    content = message.get("content")
    text = content if isinstance(content, str) else as_json_text(content) if content else ""
    calls = [call.get("function", {}) for call in message.get("tool_calls") or () if isinstance(call, dict)]
    return "\n".join(
        [*([text] if text else []), *(f"-> {call.get('name')}({call.get('arguments', '')})" for call in calls)]
    )


# --- tables ---


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in a terminal; lines of tab-separated values, without a head, in a pipe.

    The first column is what people copy, so it is never cut: where it leaves no room, the row goes on below it.
    """
    if is_terminal(sys.stdout):
        head, *lines = _aligned([columns, *([_cell(number, text) for number, text in enumerate(row)] for row in rows)])
        click.echo("\n".join([bold(head), *lines]))
    else:
        for row in rows:
            put("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))


def _cell(column: int, text: str) -> str:
    line = safe(text.replace("\n", " ").replace("\t", " "))
    return line if column == 0 or len(line) <= _LONGEST_CELL else f"{line[: _LONGEST_CELL - 1]}…"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    room = max(terminal_width() - sum(widths[1:]) - len(_GAP) * (len(widths) - 1), width_of(rows[0][0]))
    widths[0] = max(width for width in (width_of(row[0]) for row in rows) if width <= room)
    for first, *rest in rows:
        cells = [_padded(text, width, name) for text, width, name in zip(rest, widths[1:], rows[0][1:], strict=True)]
        start = _padded(first, widths[0]) if width_of(first) <= room else f"{first}\n{' ' * widths[0]}"
        yield _GAP.join([start, *cells]).rstrip()


def _padded(text: str, width: int, column: str = "") -> str:
    space = " " * (width - width_of(text))
    return space + text if column == _NUMBER else text + space


def width_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    shown = (c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown)


def terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


# --- waiting ---


class SignOfLife:
    """Something that moves on the last line of the terminal while there is nothing to show yet. It leaves the line empty."""

    _MARKS = "|/-\\"

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._move, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _move(self) -> None:
        for mark in itertools.cycle(self._MARKS):
            click.echo(f"\r{mark} {self._doing}", nl=False)
            if self._over.wait(_FRAME_S):
                break
        click.echo(f"\r{' ' * (2 + len(self._doing))}\r", nl=False)
