"""`praisonai session`: list, start, resume, show and delete."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli.output import json_option, print_details, print_json, print_messages, print_table, wants_json
from praisonaiagents.errors import SessionNotFound

if TYPE_CHECKING:
    from praisonaiagents.session.data import SessionData
    from praisonaiagents.session.store import SessionStore

_RECENT = 20
_COMPLETED = 200


def complete_session_id(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The newest session ids that start with what was typed."""
    rows = _store().list_sessions(_COMPLETED, user_id=ctx.params.get("user"))
    return [row["session_id"] for row in rows if row["session_id"].startswith(incomplete)]


session_id_argument = click.argument("session_id", shell_complete=complete_session_id)
user_option = click.option("--user", metavar="ID", help="Whose session it is. Default: the default user.")
llm_option = click.option(
    "--llm", "-m", metavar="MODEL", help="Model, such as gpt-4o-mini or anthropic/claude-haiku-4-5."
)


@click.group()
@json_option
def session() -> None:
    """Conversations that are kept: list, start, resume, show, delete."""


@session.command("list")
@click.option(
    "--limit", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="How many, newest first."
)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--all-users", is_flag=True, help="Everybody's.")
@user_option
@json_option
def list_sessions(limit: int, everything: bool, all_users: bool, user: str | None) -> None:
    """List sessions, the one changed last first."""
    rows = _store().list_sessions(None if everything else limit, user_id=user, all_users=all_users)
    if wants_json():
        print_json({"sessions": rows})
    elif not rows:
        click.echo("No sessions found. Start one: praisonai session start my-session", err=True)
    else:
        columns = ["ID", "User", "Title", "Agent", "Messages", "Updated"] if all_users else _COLUMNS
        print_table(columns, [_row(row, all_users) for row in rows])


@session.command()
@click.argument("session_id", required=False)
@click.option("--instructions", metavar="TEXT", help="What the agent is told to be.")
@llm_option
@user_option
@json_option
def start(session_id: str | None, instructions: str | None, llm: str | None, user: str | None) -> None:
    """Start a conversation, or go on with it if it is there.

    In a terminal this opens a chat. Otherwise each line of standard input is one prompt.
    """
    from praisonaiagents.cli.chat import converse

    if session_id is None:
        from praisonaiagents.session.workspace import new_session_id

        session_id = new_session_id("Assistant")
    store = _store()
    new = not store.session_exists(session_id, user_id=user or "")
    record = store.open_session(session_id, user_id=user, agent_name="Assistant")
    if llm or instructions:
        store.update_session_metadata(session_id, user_id=user, model=llm, instructions=instructions)
    converse(store.get_session(session_id, user_id=record.user_id), new=new)


@session.command()
@session_id_argument
@click.argument("prompt", required=False)
@llm_option
@user_option
@json_option
def resume(session_id: str, prompt: str | None, llm: str | None, user: str | None) -> None:
    """Go on with a conversation. With PROMPT, for one turn only."""
    from praisonaiagents.cli.chat import converse, one_turn

    found = find(session_id, user)
    if llm:
        _store().update_session_metadata(session_id, user_id=found.user_id, model=llm)
        found = find(session_id, found.user_id)
    if prompt is not None:
        one_turn(found, prompt)
    else:
        converse(found, new=False)


@session.command()
@session_id_argument
@click.option(
    "--messages", "-n", type=click.IntRange(min=0), default=_RECENT, show_default=True, help="How many of the last."
)
@user_option
@json_option
def show(session_id: str, messages: int, user: str | None) -> None:
    """Show what a session is and its last messages."""
    found = find(session_id, user)
    if wants_json():
        print_json(as_json(found))
        return
    usage = found.usage()
    print_details(
        [
            ("Session ID", found.session_id),
            ("User", found.user_id),
            ("Title", found.metadata.get("title") or "-"),
            ("Agent", found.agent_name or "-"),
            ("Model", found.model() or "-"),
            ("Created", found.created_at or "-"),
            ("Updated", found.updated_at or "-"),
            ("Messages", str(len(found.messages))),
            ("Tokens", f"{usage['input_tokens']:,} in / {usage['output_tokens']:,} out"),
        ]
    )
    recent = found.get_chat_history(messages)
    if recent:
        click.echo()
        print_messages(recent)


@session.command()
@session_id_argument
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@user_option
@json_option
def delete(session_id: str, yes: bool, user: str | None) -> None:
    """Delete a session and all its messages, for good."""
    store = _store()
    if not store.session_exists(session_id, user_id=user or ""):
        raise _not_found(session_id, user)
    if not yes and not _confirmed(session_id):
        click.echo("Cancelled")
        return
    store.delete_session(session_id, user_id=user)
    if wants_json():
        print_json({"deleted": True, "session_id": session_id})
    else:
        click.echo(f"Deleted session: {session_id}")


def find(session_id: str, user: str | None) -> SessionData:
    """The session, or an error that names similar ones."""
    store = _store()
    if not store.session_exists(session_id, user_id=user):
        raise _not_found(session_id, user)
    return store.get_session(session_id, user_id=user)


def as_json(found: SessionData) -> dict[str, Any]:
    """A session as `show --json` prints it."""
    return {
        "session_id": found.session_id,
        "user_id": found.user_id,
        "agent_name": found.agent_name,
        "model": found.model(),
        "chat_history": found.get_chat_history(),
        "metadata": found.metadata,
        "state": found.state,
        "usage": found.usage(),
        "message_count": len(found.messages),
        "created_at": found.created_at,
        "updated_at": found.updated_at,
        "found": True,
    }


_COLUMNS = ["ID", "Title", "Agent", "Messages", "Updated"]


def _row(row: dict[str, Any], with_user: bool) -> list[str]:
    shown = [row["session_id"], row["title"] or "-", row["agent_name"] or "-", str(row["message_count"])]
    updated = row["updated_at"].replace("T", " ")[:19] or "-"
    return [shown[0], *([row["user_id"]] if with_user else []), *shown[1:], updated]


def _confirmed(session_id: str) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError(f"deleting {session_id!r} needs a terminal to ask in; without one, say --yes")
    return click.confirm(f"Delete session {session_id}?", default=False)


def _not_found(session_id: str, user: str | None) -> SessionNotFound:
    import difflib

    store = _store()
    ids = [row["session_id"] for row in store.list_sessions(_COMPLETED, user_id=user)]
    similar = difflib.get_close_matches(session_id, ids, n=2)
    error = SessionNotFound(session_id, user, tuple(similar))
    owners = [] if user else store.engine.owners(session_id)
    if owners:
        error.args = (f"{error}; user {' and '.join(map(repr, owners))} has one: say --user",)
    return error


def _store() -> SessionStore:
    from praisonaiagents.session.store import get_default_session_store

    return get_default_session_store()
