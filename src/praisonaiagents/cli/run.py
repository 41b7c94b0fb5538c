"""`praisonai run`: one turn from the command line."""

from __future__ import annotations

import sys

import click

from praisonaiagents.cli.output import is_terminal, json_option
from praisonaiagents.cli.place import db_option, given
from praisonaiagents.cli.sessions import (
    complete_session_id,
    instructions_option,
    llm_option,
    open_session,
    remember_option,
    user_option,
)


@click.command()
@click.argument("prompt", required=False)
@click.option(
    "--session",
    "-s",
    "session_id",
    metavar="ID",
    shell_complete=complete_session_id,
    help="Keep the turn in this session.",
)
@instructions_option
@llm_option
@remember_option
@user_option
@db_option
@json_option
def run(
    prompt: str | None,
    session_id: str | None,
    instructions: str | None,
    llm: str | None,
    remember: bool | None,
    user: str | None,
) -> None:
    """Say PROMPT to an agent and print its answer. Without PROMPT, standard input is the prompt.

    With --session the conversation is kept, and goes on where it was; without, nothing is stored.
    """
    from praisonaiagents.cli.chat import one_turn, piped_text
    from praisonaiagents.session.data import SessionData

    if prompt is None:
        if is_terminal(sys.stdin):
            raise click.UsageError("say what to run: praisonai run 'PROMPT'")
        prompt = piped_text()
    if not prompt.strip():
        raise click.UsageError("the prompt is empty")
    if session_id is not None:
        one_turn(open_session(session_id, user, llm=llm, instructions=instructions, remember=remember), prompt)
        return
    if given() is not None:
        raise click.UsageError("--db needs --session: without one, nothing is kept")
    settings = {"model": llm, "instructions": instructions, "remember": remember}
    metadata = {name: value for name, value in settings.items() if value}
    one_turn(SessionData("", user or "", metadata=metadata), prompt)
