"""`praisonai`: finds the command, and turns whatever goes wrong into one line and an exit code.

Exit codes: 0 it worked, 1 it did not, 2 it was asked wrongly, 130 interrupted with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TextIO

import click

from praisonaiagents import __version__
from praisonaiagents.cli.group import Group, help_if_alone
from praisonaiagents.cli.output import is_terminal, json_option, report, report_as, safe, wants_json
from praisonaiagents.errors import PraisonError

_COMMANDS = {
    "session": "praisonaiagents.cli.sessions:session",
    "memory": "praisonaiagents.cli.memory:memory",
    "run": "praisonaiagents.cli.run:run",
    "serve": "praisonaiagents.cli.serve:serve",
    "migrate": "praisonaiagents.cli.transfer:migrate",
    "doctor": "praisonaiagents.cli.doctor:doctor",
    "completion": "praisonaiagents.cli.completion:completion",
}


@click.group(
    cls=Group,
    elsewhere=_COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="praisonai")
@json_option
@click.pass_context
def praisonai(ctx: click.Context) -> None:
    """AI agents whose conversations survive.

    \b
    Start a conversation:    praisonai session start my-session
    Come back to it later:   praisonai session resume my-session
    """
    help_if_alone(ctx, praisonai)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # what the terminal's alphabet lacks is shown as an escape instead of ending the program
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(_run())


def _run() -> int:
    if "_PRAISONAI_COMPLETE" in os.environ:
        import praisonaiagents.cli.completion  # noqa: F401 - it knows how bash asks
    try:
        code = praisonai(prog_name="praisonai", standalone_mode=False)
    except click.Abort:
        _report_interrupt()
        return 130
    except click.ClickException as exc:
        _report_usage(exc)
        return exc.exit_code
    except PraisonError as exc:
        report(exc)
        return 1
    except OSError as exc:
        # standard output is full; Python would try to write the rest at the end and complain again
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        click.echo(f"Error: {exc.strerror or exc}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _report_usage(error: click.ClickException) -> None:
    if wants_json():
        kind = "UsageError" if isinstance(error, click.UsageError) else type(error).__name__
        report_as(kind, error.format_message())
    else:
        error.show()


def _report_interrupt() -> None:
    if wants_json():
        report_as("Interrupted", "interrupted with Ctrl-C")
    else:
        click.echo("\nInterrupted.", err=True)  # the terminal has written ^C on the line


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Where in our code a warning was given is of no use to somebody at a terminal."""
    click.echo(f"Warning: {safe(str(message), is_terminal(sys.stderr))}", err=True)
