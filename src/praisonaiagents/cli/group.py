"""A group of commands that helps: named alone it prints its help, and for an unknown command it proposes a near one.

Commands may lie in modules that are imported when the command is called, so that a call costs only what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from praisonaiagents.cli.output import wants_json


class Group(click.Group):
    """A group of commands that knows what was meant, and lists them in the order they are written in.

    elsewhere: more commands by name, as "module:attribute".
    """

    def __init__(self, *args: Any, elsewhere: Mapping[str, str] | None = None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._elsewhere = elsewhere or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *self._elsewhere]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._elsewhere:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._elsewhere[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib

            close = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            raise click.UsageError(f"no such command: {name}" + (f"; did you mean {close[0]}?" if close else ""), ctx)
        return super().resolve_command(ctx, args)


def help_if_alone(ctx: click.Context, group: click.Group) -> None:
    """Print the group's help if no command of it was named. A program that asked for JSON made a mistake instead."""
    if ctx.invoked_subcommand is not None:
        return
    if wants_json():
        raise click.UsageError(f"say which command: {', '.join(group.list_commands(ctx))}", ctx)
    click.echo(ctx.get_help())
