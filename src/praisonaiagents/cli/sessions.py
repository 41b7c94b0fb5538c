"""`praisonai session`: list, start, resume, show, delete and search. Its other commands lie in modules of their own."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli import remote as elsewhere
from praisonaiagents.cli.group import Group, help_if_alone
from praisonaiagents.cli.output import (
    is_terminal,
    json_option,
    print_details,
    print_json,
    print_messages,
    print_table,
    wants_json,
    when,
)
from praisonaiagents.cli.place import command, db_option, given, open_place, path_of, store, within
from praisonaiagents.cli.remote import check_alone, remote_option
from praisonaiagents.errors import SessionNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from praisonaiagents.session.data import SessionData
    from praisonaiagents.session.store import SessionStore

_RECENT = 20
_COMPLETED = 200
_PATIENCE_S = 2.0  # how long a Tab key may wait for a server
_SHELL_SYNTAX = frozenset(" '\"\\$`!*?[](){}<>|&;#~")


def complete_session_id(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The newest session ids that start with what was typed. Ids that a shell would take apart are left out."""
    whose = ctx.params.get("user")
    if ctx.params.get("remote"):
        return [name for name in elsewhere.completed(ctx.params["remote"], whose, incomplete) if _is_one_word(name)]
    return proposals(
        ctx, incomplete, lambda opened: [row["session_id"] for row in opened.list_sessions(_COMPLETED, user_id=whose)]
    )


def complete_tag(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Tags of the newest sessions."""
    whose = ctx.params.get("user")

    def tags(opened: SessionStore) -> list[str]:
        from praisonaiagents.session.labels import listed

        return sorted({tag for row in listed(opened, _COMPLETED, user_id=whose) for tag in row["tags"]})

    return proposals(ctx, incomplete, tags)


def proposals(ctx: click.Context, incomplete: str, look: Callable[[SessionStore], list[str]]) -> list[str]:
    """What `look` finds in the place that a line being typed means, as far as it fits to what was typed.

    Such a line is no place for an error, nor for a long wait.
    """

    def found() -> list[str]:
        opened = open_place(ctx)
        try:
            path = path_of(opened.engine)
            if path is not None and not os.path.exists(path):
                return []  # looking could make the file
            return look(opened)
        finally:
            if given(ctx):
                opened.close()

    fitting = within(_PATIENCE_S, found) or []
    return [name for name in fitting if name.startswith(incomplete) and _is_one_word(name)]


session_id_argument = click.argument("session_id", shell_complete=complete_session_id)
user_option = click.option("--user", metavar="ID", help="Whose session it is. Default: the default user.")
llm_option = click.option(
    "--llm", "-m", metavar="MODEL", help="Model, such as gpt-4o-mini or anthropic/claude-haiku-4-5."
)
remember_option = click.option(
    "--remember/--no-remember",
    default=None,
    help="Keep what is worth knowing in later sessions of the user too, and use it (see praisonai memory).",
)
instructions_option = click.option("--instructions", metavar="TEXT", help="What the agent is told to be.")


_ELSEWHERE = {
    "fork": "praisonaiagents.cli.history:fork",
    "tree": "praisonaiagents.cli.history:tree",
    "rename": "praisonaiagents.cli.history:rename",
    "snapshot": "praisonaiagents.cli.history:snapshot",
    "snapshots": "praisonaiagents.cli.history:snapshots",
    "revert": "praisonaiagents.cli.history:revert",
    "undo": "praisonaiagents.cli.history:undo",
    "log": "praisonaiagents.cli.history:log",
    "diff": "praisonaiagents.cli.branches:diff",
    "merge": "praisonaiagents.cli.branches:merge",
    "edit": "praisonaiagents.cli.again:edit",
    "retry": "praisonaiagents.cli.again:retry",
    "replay": "praisonaiagents.cli.again:replay",
    "title": "praisonaiagents.cli.labels:title",
    "tag": "praisonaiagents.cli.labels:tag",
    "untag": "praisonaiagents.cli.labels:untag",
    "pin": "praisonaiagents.cli.labels:pin",
    "unpin": "praisonaiagents.cli.labels:unpin",
    "archive": "praisonaiagents.cli.labels:archive",
    "unarchive": "praisonaiagents.cli.labels:unarchive",
    "export": "praisonaiagents.cli.transfer:export",
    "import": "praisonaiagents.cli.transfer:import_",
    "prune": "praisonaiagents.cli.prune:prune",
    "compact": "praisonaiagents.cli.compact:compact",
    "purge": "praisonaiagents.cli.purge:purge",
    "verify": "praisonaiagents.cli.verify:verify",
}


@click.group(cls=Group, elsewhere=_ELSEWHERE, invoke_without_command=True)
@db_option
@json_option
@click.pass_context
def session(ctx: click.Context) -> None:
    """Conversations that are kept: list, start, resume, show, search, fork, go back, delete."""
    help_if_alone(ctx, session)


@session.command("list")
@click.option(
    "--limit", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="How many, newest first."
)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--all-users", is_flag=True, help="Everybody's.")
@click.option("--tag", metavar="TAG", shell_complete=complete_tag, help="Only those that have this tag.")
@click.option("--archived", is_flag=True, help="Only archived ones, which are left out otherwise.")
@remote_option
@user_option
@db_option
@json_option
def list_sessions(
    limit: int,
    everything: bool,
    all_users: bool,
    tag: str | None,
    archived: bool,
    remote: str | None,
    user: str | None,
) -> None:
    """List sessions: pinned ones first, then the one changed last."""
    if remote is not None:
        check_alone(all_users=all_users, tag=tag, archived=archived)
        elsewhere.list_sessions(remote, user, None if everything else limit)
        return
    from praisonaiagents.session.labels import listed

    rows = listed(
        *(store(), None if everything else limit),
        tag=tag,
        archived=archived,
        user_id=user,
        all_users=all_users,
    )
    if wants_json():
        print_json({"sessions": rows})
    elif not rows and (tag is not None or archived):
        click.echo(f"No such sessions found. {command('session list')} shows the others.", err=True)
    elif not rows:
        click.echo(f"No sessions found. Start one: {command('session start', after=' my-session')}", err=True)
    else:
        marked = is_terminal(sys.stdout) and any(map(_marks, rows))  # a pipe has the same columns each time
        columns = ["ID", *(["User"] if all_users else []), "Title", "Agent", "Messages", "Updated"]
        print_table(
            [*columns, *(["Tags"] if marked else [])],
            [[*_row(row, all_users), *([_marks(row)] if marked else [])] for row in rows],
        )


@session.command()
@click.argument("session_id", required=False, shell_complete=complete_session_id)
@instructions_option
@llm_option
@remember_option
@remote_option
@user_option
@db_option
@json_option
def start(
    session_id: str | None,
    instructions: str | None,
    llm: str | None,
    remember: bool | None,
    remote: str | None,
    user: str | None,
) -> None:
    """Start a conversation, or go on with it if it is there. Without an ID, one is made.

    In a terminal this opens a chat. Otherwise each line of standard input is one prompt.
    """
    if remote is not None:
        check_alone(instructions=instructions, llm=llm, remember=remember is not None)
        elsewhere.start(remote, session_id, user)
        return
    from praisonaiagents.cli.chat import converse

    if session_id is None:
        from praisonaiagents.session.workspace import new_session_id

        session_id = new_session_id("Assistant")
    new = not store().session_exists(session_id, user_id=user or "")
    converse(open_session(session_id, user, llm=llm, instructions=instructions, remember=remember), new=new)


@session.command()
@session_id_argument
@click.argument("prompt", required=False)
@llm_option
@remember_option
@remote_option
@user_option
@db_option
@json_option
def resume(
    session_id: str,
    prompt: str | None,
    llm: str | None,
    remember: bool | None,
    remote: str | None,
    user: str | None,
) -> None:
    """Go on with a conversation. With PROMPT, for one turn only."""
    if remote is not None:
        check_alone(llm=llm, remember=remember is not None)
        elsewhere.resume(remote, session_id, prompt, user)
        return
    from praisonaiagents.cli.chat import converse, one_turn

    found = find(session_id, user)
    if llm or remember is not None:
        found = open_session(session_id, found.user_id, llm=llm, remember=remember)
    if prompt is not None:
        one_turn(found, prompt)
    else:
        converse(found, new=False)


@session.command()
@session_id_argument
@click.option(
    "--messages", "-n", type=click.IntRange(min=0), default=_RECENT, show_default=True, help="How many of the last."
)
@remote_option
@user_option
@db_option
@json_option
def show(session_id: str, messages: int, remote: str | None, user: str | None) -> None:
    """Show what a session is and its last messages."""
    if remote is not None:
        check_alone()
        elsewhere.show(remote, session_id, user, messages)
        return
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
            ("Created", when(found.created_at)),
            ("Updated", when(found.updated_at)),
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
@db_option
@json_option
def delete(session_id: str, yes: bool, user: str | None) -> None:
    """Delete a session and all its messages, for good."""
    if not store().session_exists(session_id, user_id=user or ""):
        raise not_found(session_id, user)
    if not yes and not _confirmed(session_id):
        click.echo("Cancelled")
        return
    if not store().delete_session(session_id, user_id=user):
        raise not_found(session_id, user)  # somebody else was faster
    if wants_json():
        print_json({"deleted": True, "session_id": session_id})
    else:
        click.echo(f"Deleted session: {session_id}")


@session.command()
@click.argument("query", nargs=-1, required=True)
@click.option("--limit", "-n", type=click.IntRange(min=1), default=10, show_default=True, help="How many, best first.")
@click.option("--all-users", is_flag=True, help="In everybody's.")
@user_option
@db_option
@json_option
def search(query: tuple[str, ...], limit: int, all_users: bool, user: str | None) -> None:
    """Find messages that hold all words of QUERY. 'pizz*' finds every word that begins so.

    Case and accents do not matter.
    """
    from praisonaiagents.cli.search import print_hits
    from praisonaiagents.model.search import parse

    terms = parse(" ".join(query))
    if not terms:
        raise click.UsageError("there is nothing to search for: no letter and no digit")
    hits = store().search(" ".join(query), user_id=user, all_users=all_users, limit=limit)
    print_hits(hits, terms, with_user=all_users)


def find(session_id: str, user: str | None) -> SessionData:
    """The session, or an error that names similar ones."""
    if not store().session_exists(session_id, user_id=user):
        raise not_found(session_id, user)
    return store().get_session(session_id, user_id=user)


def open_session(
    session_id: str,
    user: str | None,
    *,
    llm: str | None = None,
    instructions: str | None = None,
    remember: bool | None = None,
) -> SessionData:
    """The session, made if need be, with settings that it keeps. A model nobody knows is refused before it is kept."""
    if llm:
        from praisonaiagents.agent.models import choose_model

        choose_model(llm)
    store().open_session(session_id, user_id=user, agent_name="Assistant")
    if llm or instructions or remember is not None:
        store().update_session_metadata(
            session_id, user_id=user, model=llm, instructions=instructions, remember=remember
        )
    return store().get_session(session_id, user_id=user or "")


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


def _is_one_word(name: str) -> bool:
    return not name.startswith("-") and _SHELL_SYNTAX.isdisjoint(name)


def _row(row: dict[str, Any], with_user: bool) -> list[str]:
    shown = [row["title"] or "-", row["agent_name"] or "-", str(row["message_count"]), when(row["updated_at"])]
    return [row["session_id"], *([row["user_id"]] if with_user else []), *shown]


def _marks(row: dict[str, Any]) -> str:
    return ", ".join([*(["(pinned)"] if row["pinned"] else []), *row["tags"]])


def _confirmed(session_id: str) -> bool:
    if wants_json() or not is_terminal(sys.stdin):
        raise click.UsageError(f"deleting {session_id!r} needs a terminal to ask in; without one, say --yes")
    return click.confirm(f"Delete session {session_id}?", default=False)


def not_found(session_id: str, user: str | None) -> SessionNotFound:
    import difflib

    ids = [row["session_id"] for row in store().list_sessions(_COMPLETED, user_id=user)]
    error = SessionNotFound(session_id, user, tuple(difflib.get_close_matches(session_id, ids, n=2)))
    owners = [] if user else store().engine.owners(session_id)
    if owners:
        error.args = (f"{error}; user {' and '.join(map(repr, owners))} has one: say --user",)
    elif not error.similar:
        error.args = (f"{error}; {command('session list')} shows what there is",)
    return error
