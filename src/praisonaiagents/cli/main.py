"""`praisonai`: finds the command, and turns every error of ours into one line and an exit code.

Exit codes: 0 it worked, 1 it did not, 2 it was asked wrongly, 130 interrupted with Ctrl-C.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from praisonaiagents import __version__
from praisonaiagents.cli.output import json_option, report
from praisonaiagents.errors import PraisonError

_COMMANDS = {
    "session": "praisonaiagents.cli.sessions:session",
    "run": "praisonaiagents.cli.run:run",
    "completion": "praisonaiagents.cli.completion:completion",
}


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="praisonai")
@json_option
def praisonai() -> None:
    """AI agents whose conversations survive.

    \b
    Start a conversation:    praisonai session start my-session
    Come back to it later:   praisonai session resume my-session
    """


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        sys.exit(praisonai(standalone_mode=False))
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except PraisonError as exc:
        report(exc)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has seen enough; Python would complain about it at the end
        sys.exit(0)
