"""`praisonai session title, tag, pin, archive` and their opposites: what a session is called, and where lists show it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli.history import hierarchy
from praisonaiagents.cli.output import json_option, print_json, safe, wants_json
from praisonaiagents.cli.place import command, db_option, named
from praisonaiagents.cli.sessions import complete_tag, llm_option, session_id_argument, user_option

if TYPE_CHECKING:
    from praisonaiagents.session.hierarchy import HierarchicalSessionStore


@click.command()
@session_id_argument
@click.option("--auto", is_flag=True, help="Let a model find one, if there is none yet.")
@llm_option
@user_option
@db_option
@json_option
def title(session_id: str, auto: bool, llm: str | None, user: str | None) -> None:
    """Show a session's title, or find one. 'session rename' gives it another one.

    With --auto, a model names the session after its first turns. Without a model, or where it fails, the title is the user's
    first words.
    """
    opened = hierarchy(session_id, user)
    changed = auto and asyncio.run(_auto(opened, session_id, llm, user))
    now = opened.get_extended_session(session_id, user_id=user or "").title
    if auto and not changed and not wants_json():
        _say_why(session_id, user, now)
    _print({"session_id": session_id, "title": now, "changed": changed}, now or "-")


@click.command()
@session_id_argument
@click.argument("tags", nargs=-1, required=True, metavar="TAG...", shell_complete=complete_tag)
@user_option
@db_option
@json_option
def tag(session_id: str, tags: tuple[str, ...], user: str | None) -> None:
    """Add tags to a session. 'session list --tag TAG' lists the sessions that have one."""
    from praisonaiagents.session.labels import tag as add

    _print_tags(session_id, add(hierarchy(session_id, user), session_id, *tags, user_id=user))


@click.command()
@session_id_argument
@click.argument("tags", nargs=-1, required=True, metavar="TAG...", shell_complete=complete_tag)
@user_option
@db_option
@json_option
def untag(session_id: str, tags: tuple[str, ...], user: str | None) -> None:
    """Take tags off a session."""
    from praisonaiagents.session.labels import untag as take

    _print_tags(session_id, take(hierarchy(session_id, user), session_id, *tags, user_id=user))


@click.command()
@session_id_argument
@user_option
@db_option
@json_option
def pin(session_id: str, user: str | None) -> None:
    """Let a session come first in 'session list'."""
    from praisonaiagents.session.labels import pin as mark

    mark(hierarchy(session_id, user), session_id, user_id=user)
    _print({"session_id": session_id, "pinned": True}, f"Pinned {session_id}: it comes first in lists.")


@click.command()
@session_id_argument
@user_option
@db_option
@json_option
def unpin(session_id: str, user: str | None) -> None:
    """Take the pin off a session."""
    from praisonaiagents.session.labels import unpin as unmark

    unmark(hierarchy(session_id, user), session_id, user_id=user)
    _print({"session_id": session_id, "pinned": False}, f"Unpinned {session_id}.")


@click.command()
@session_id_argument
@user_option
@db_option
@json_option
def archive(session_id: str, user: str | None) -> None:
    """Leave a session out of 'session list'. It stays as it is; 'session list --archived' shows it."""
    from praisonaiagents.session.labels import archive as mark

    mark(hierarchy(session_id, user), session_id, user_id=user)
    text = f"Archived {session_id}. {command('session list', after=' --archived')} shows it."
    _print({"session_id": session_id, "archived": True}, text)


@click.command()
@session_id_argument
@user_option
@db_option
@json_option
def unarchive(session_id: str, user: str | None) -> None:
    """Let 'session list' show a session again."""
    from praisonaiagents.session.labels import unarchive as unmark

    unmark(hierarchy(session_id, user), session_id, user_id=user)
    _print({"session_id": session_id, "archived": False}, f"{session_id} is in lists again.")


async def _auto(opened: HierarchicalSessionStore, session_id: str, llm: str | None, user: str | None) -> bool:
    from praisonaiagents.cli.ask import model_at_hand

    kept = opened.get_session(session_id, user_id=user or "").metadata.get("model")
    agent = model_at_hand(llm or kept)
    if agent is None:
        return await opened.auto_title(session_id, user_id=user)
    async with agent:
        return await opened.auto_title(session_id, agent.achat, user_id=user)


def _say_why(session_id: str, user: str | None, title: str | None) -> None:
    if title:
        clear = command("session rename", after=f"{named(session_id, user)} ''")
        click.echo(safe(f"It has a title already; take it away first: {clear}"), err=True)
    else:
        click.echo("There is nothing to name yet: a turn must be answered first.", err=True)


def _print_tags(session_id: str, tags: list[str]) -> None:
    _print({"session_id": session_id, "tags": tags}, f"{session_id}: {', '.join(tags) or 'no tags'}")


def _print(values: dict[str, Any], text: str) -> None:
    if wants_json():
        print_json(values)
    else:
        click.echo(safe(text))
