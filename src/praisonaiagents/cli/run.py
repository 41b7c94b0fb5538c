"""`praisonai run`: one turn from the command line."""

from __future__ import annotations

import sys

import click

from praisonaiagents.cli.output import json_option
from praisonaiagents.cli.sessions import complete_session_id, llm_option, user_option


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
@click.option("--instructions", metavar="TEXT", help="What the agent is told to be.")
@llm_option
@user_option
@json_option
def run(
    prompt: str | None, session_id: str | None, instructions: str | None, llm: str | None, user: str | None
) -> None:
    """Say PROMPT to an agent and print its answer. Without PROMPT, standard input is the prompt.

    With --session the conversation is kept, and goes on where it was; without, nothing is stored.
    """
    from praisonaiagents.cli.chat import one_turn
    from praisonaiagents.session.data import SessionData
    from praisonaiagents.session.store import get_default_session_store

    if prompt is None:
        if sys.stdin.isatty():
            raise click.UsageError("say what to run: praisonai run 'PROMPT'")
        prompt = sys.stdin.read().strip()
    if not prompt:
        raise click.UsageError("the prompt is empty")
    settings = {"model": llm, "instructions": instructions}
    given = {name: value for name, value in settings.items() if value}
    if session_id is None:
        one_turn(SessionData("", user or "", metadata=given), prompt)
        return
    store = get_default_session_store()
    store.open_session(session_id, user_id=user, agent_name="Assistant")
    if given:
        store.update_session_metadata(session_id, user_id=user, **given)
    one_turn(store.get_session(session_id, user_id=user or ""), prompt)
