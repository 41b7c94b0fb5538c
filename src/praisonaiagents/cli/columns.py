"""Two texts next to each other in a terminal, each in its column, or one below the other where there is no room for that."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import click

from praisonaiagents.cli.output import bold, safe, terminal_width, width_of

_BETWEEN = " │ "
_NARROWEST = 20


def print_side_by_side(left: str, right: str, *, is_head: bool = False) -> None:
    """Print two texts in two columns of the same width; as a head, in bold."""
    width = (terminal_width() - len(_BETWEEN)) // 2
    if width < _NARROWEST:
        click.echo("\n".join(_marked("<", left) + _marked(">", right)))
        return
    for one, other in itertools.zip_longest(_wrapped(safe(left), width), _wrapped(safe(right), width), fillvalue=""):
        first = one + " " * (width - width_of(one))
        click.echo(f"{bold(first)}{_BETWEEN}{bold(other)}" if is_head else f"{first}{_BETWEEN}{other}".rstrip())


def print_rule() -> None:
    """A line under the heads of two columns."""
    width = (terminal_width() - len(_BETWEEN)) // 2
    click.echo(f"{'─' * width}─┼─{'─' * width}" if width >= _NARROWEST else "─" * terminal_width())


def _marked(mark: str, text: str) -> list[str]:
    return [f"{mark} {line}" for line in safe(text).splitlines()]


def _wrapped(text: str, width: int) -> list[str]:
    return [piece for line in text.expandtabs(4).splitlines() for piece in _pieces(line, width)]


def _pieces(line: str, width: int) -> Iterator[str]:
    """A line in pieces that fit, broken between words where that is possible."""
    while width_of(line) > width:
        fits = _fitting(line, width)
        blank = line.rfind(" ", 0, fits + 1)
        end = blank if blank > 0 else fits
        yield line[:end].rstrip()
        line = line[end:].lstrip()
    yield line


def _fitting(line: str, width: int) -> int:
    """How many characters of a line that is too long fit into a column, at least one."""
    used = itertools.accumulate(map(width_of, line))
    return max(sum(1 for _ in itertools.takewhile(lambda so_far: so_far <= width, used)), 1)
