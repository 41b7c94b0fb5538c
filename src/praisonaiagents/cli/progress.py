"""How far long work has come, on the last line of a terminal. Nothing is shown in a pipe, nor to programs.

It goes to stderr, so that what is printed in the end is what it is in a pipe.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from praisonaiagents.cli.output import is_terminal, wants_json

_LEAST = 20  # what is done at once needs no bar


@contextmanager
def watching() -> Iterator[Callable[[str, int, int], object]]:
    """Something to be told (what is being done, how much of it is done, how much there is to do, 0 for unknown)."""
    shown = is_terminal(sys.stderr) and not wants_json()
    with ExitStack() as stack:
        yield _Shown(stack).tell if shown else lambda *_: None


class _Shown:
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._doing = ""
        self._bar: Any = None

    def tell(self, doing: str, done: int, length: int) -> None:
        if doing != self._doing:
            self._stack.close()  # ends the bar before
            self._doing, self._bar = doing, None
            if length >= _LEAST:
                self._bar = self._stack.enter_context(click.progressbar(length=length, label=doing, file=sys.stderr))
                self._stack.push(self._fill)
            elif not length:
                click.echo(f"{doing}...", err=True)
        if self._bar is not None:
            self._bar.update(done - self._bar.pos)

    def _fill(self, kind: object, *_: object) -> None:
        """What was told last was begun, and unless it failed it is done by now."""
        if kind is None:
            self._bar.update(self._bar.length - self._bar.pos)
