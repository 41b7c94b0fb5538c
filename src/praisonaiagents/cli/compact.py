"""`praisonai session compact`: let a model sum up the older part of a session now."""

from __future__ import annotations

import click
import msgspec

from praisonaiagents.cli.chat import agent_of
from praisonaiagents.cli.history import hierarchy
from praisonaiagents.cli.output import json_option, print_json, put, wants_json
from praisonaiagents.cli.place import db_option, store
from praisonaiagents.cli.progress import watching
from praisonaiagents.cli.sessions import llm_option, session_id_argument, user_option
from praisonaiagents.session.data import SessionData


@click.command()
@session_id_argument
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many of the last messages stay as they are, at most.",
)
@llm_option
@user_option
@db_option
@json_option
def compact(session_id: str, keep: int, llm: str | None, user: str | None) -> None:
    """Let a model sum up the older part of a session, and be sent the summary in its place from now on.

    The messages stay: they are shown and found as before. Without --llm the session's own model sums up.
    """
    hierarchy(session_id, user)  # an error if there is no such session
    found = store().get_session(session_id, user_id=user or "")
    with agent_of(_with_model(found, llm)) as agent, watching() as watch:
        done = agent.compact(keep, watch=watch)
    if wants_json():
        values = msgspec.to_builtins(done) if done else {"session_id": session_id, "user_id": found.user_id}
        print_json({"compacted": done is not None} | values)
    elif done is None:
        click.echo("Nothing to sum up: there is no whole turn before the messages that stay.", err=True)
    else:
        put(done.summary)
        what = "1 message" if done.messages == 1 else f"{done.messages:,} messages"
        click.echo(
            f"It stands for {what}, {done.kept:,} more follow: about {done.tokens_after:,} tokens "
            f"instead of {done.tokens_before:,}.",
            err=True,
        )


def _with_model(found: SessionData, llm: str | None) -> SessionData:
    """The session, with another model for this once; it keeps its own."""
    return msgspec.structs.replace(found, metadata=found.metadata | {"model": llm}) if llm else found
