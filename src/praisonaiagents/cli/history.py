"""`praisonai session fork, tree, snapshot, revert, undo, log`: where a conversation comes from, and going back in it."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli.output import json_option, print_json, print_table, safe, wants_json, when
from praisonaiagents.cli.place import command, db_option, store
from praisonaiagents.cli.sessions import not_found, proposals, session_id_argument, user_option
from praisonaiagents.errors import PointNotFound
from praisonaiagents.session.data import iso

if TYPE_CHECKING:
    from praisonaiagents.session.hierarchy import HierarchicalSessionStore
    from praisonaiagents.session.snapshots import SessionSnapshot
    from praisonaiagents.session.store import SessionStore


def complete_point(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Snapshots and earlier heads of the session that was named before."""
    # an argument lies in `args` where an option still lacks its value
    session_id = ctx.params.get("session_id") or next(iter(ctx.args), "")
    return proposals(ctx, incomplete, lambda opened: points(opened, session_id, ctx.params.get("user")))


def points(opened: SessionStore, session_id: str, user: str | None) -> list[str]:
    """The ids of a session's snapshots, and its earlier heads."""
    from praisonaiagents.session.hierarchy import HierarchicalSessionStore

    found = HierarchicalSessionStore.of(opened)
    snapshots = [snapshot.id for snapshot in found.get_snapshots(session_id, user_id=user)]
    return [*snapshots, *(head.ref for head in found.heads(session_id, user_id=user)[:-1])]


at_option = click.option(
    "--at",
    metavar="POINT",
    shell_complete=complete_point,
    help="A snapshot (its id or label), an earlier head (head:3) or a message (message:5).",
)


@click.command()
@session_id_argument
@click.option(
    "--at-message", type=click.IntRange(min=0), metavar="N", help="The last message that comes along; the first is 0."
)
@at_option
@click.option("--title", metavar="TEXT", help="Default: 'Fork of' the title.")
@click.option("--as", "new_id", metavar="ID", help="The id of the fork. Default: one is made.")
@user_option
@db_option
@json_option
def fork(
    session_id: str, at_message: int | None, at: str | None, title: str | None, new_id: str | None, user: str | None
) -> None:
    """Make a session that goes on from the history of another one, or from a point in it."""
    made = hierarchy(session_id, user).fork_session(
        session_id, at_message, title, new_session_id=new_id, at=at, user_id=user
    )
    count = _count(made, user)
    if wants_json():
        print_json({"session_id": made, "parent_id": session_id, "message_count": count})
    else:
        click.echo(safe(f"Forked {session_id} with {_messages(count)}: {made}"))
        click.echo(safe(f"Go on with it: {command('session resume', after=f' {quote(made)}')}"), err=True)


@click.command()
@session_id_argument
@user_option
@db_option
@json_option
def tree(session_id: str, user: str | None) -> None:
    """Show what was forked from a session, and from its forks."""
    found = hierarchy(session_id, user).get_session_tree(session_id, user_id=user)
    if wants_json():
        print_json(found)
        return
    waiting = [(found, "", "")]
    while waiting:
        node, lead, below = waiting.pop()
        title = f"  {_on_one_line(node['title'])}" if node["title"] else ""
        click.echo(safe(f"{lead}{_on_one_line(node['session_id'])}{title}  ({_messages(node['message_count'])})"))
        children = node["children"]
        last = len(children) - 1
        waiting += [
            (child, below + ("└── " if n == last else "├── "), below + ("    " if n == last else "│   "))
            for n, child in reversed(list(enumerate(children)))
        ]


@click.command()
@session_id_argument
@click.argument("title")
@user_option
@db_option
@json_option
def rename(session_id: str, title: str, user: str | None) -> None:
    """Give a session a title; an empty one takes it away."""
    hierarchy(session_id, user).rename_session(session_id, title, user_id=user)
    _said({"session_id": session_id, "title": title.strip() or None}, f"Renamed {session_id}: {title.strip() or '-'}")


@click.command()
@session_id_argument
@click.option("--label", metavar="TEXT", help="What to call it.")
@user_option
@db_option
@json_option
def snapshot(session_id: str, label: str | None, user: str | None) -> None:
    """Hold on to what a session shows now, to come back to it."""
    made = hierarchy(session_id, user).create_snapshot(session_id, label, user_id=user)
    _said({"session_id": session_id, "snapshot_id": made, "label": label}, f"Snapshot {made}")


@click.command()
@session_id_argument
@click.option("--delete", "gone", metavar="ID", shell_complete=complete_point, help="Let go of this one.")
@user_option
@db_option
@json_option
def snapshots(session_id: str, gone: str | None, user: str | None) -> None:
    """List a session's snapshots, the oldest first."""
    opened = hierarchy(session_id, user)
    if gone is not None:
        if not opened.delete_snapshot(session_id, gone, user_id=user):
            raise PointNotFound(session_id, gone)
        _said({"session_id": session_id, "snapshot_id": gone, "deleted": True}, f"Deleted snapshot {gone}")
        return
    found = opened.get_snapshots(session_id, user_id=user)
    if wants_json():
        print_json({"session_id": session_id, "snapshots": [_as_json(item) for item in found]})
    elif not found:
        hint = command("session snapshot", after=f" {quote(session_id)}")
        click.echo(safe(f"No snapshots. Make one: {hint}"), err=True)
    else:
        print_table(
            ["ID", "Label", "Messages", "Made"],
            [[item.id, item.label or "-", str(item.message_index + 1), when(iso(item.created_at))] for item in found],
        )


@click.command()
@session_id_argument
@click.option(
    "--to",
    "point",
    metavar="POINT",
    required=True,
    shell_complete=complete_point,
    help="A snapshot (its id, the beginning of it, or its label), an earlier head (head:3) or a message (message:5).",
)
@user_option
@db_option
@json_option
def revert(session_id: str, point: str, user: str | None) -> None:
    """Go back to a point of a session.

    Nothing is lost: what was shown until now stays in the session's log, and 'undo' brings it back.
    """
    opened = hierarchy(session_id, user)
    before = _count(session_id, user)
    try:
        opened.revert(session_id, point, user_id=user)
    except PointNotFound as exc:
        exc.args = (f"{exc}; {_points(session_id)}",)
        raise
    _moved(session_id, before, user, "Reverted")


@click.command()
@session_id_argument
@user_option
@db_option
@json_option
def undo(session_id: str, user: str | None) -> None:
    """Take the last revert back. Done twice, it takes itself back."""
    opened = hierarchy(session_id, user)
    before = _count(session_id, user)
    if not opened.undo(session_id, user_id=user):
        error = PointNotFound(session_id, "")
        error.args = (f"session {session_id!r} was never reverted: there is nothing to undo",)
        raise error
    _moved(session_id, before, user, "Undone")


@click.command()
@session_id_argument
@user_option
@db_option
@json_option
def log(session_id: str, user: str | None) -> None:
    """List what a session has shown, the oldest first: each can be gone back to."""
    heads = hierarchy(session_id, user).heads(session_id, user_id=user)
    if wants_json():
        told = [
            {
                "ref": head.ref,
                "message_count": head.message_count,
                "replaced_at": iso(head.replaced_at) or None,
                "why": head.why or None,
            }
            for head in heads
        ]
        print_json({"session_id": session_id, "heads": told})
        return
    print_table(
        ["Point", "Messages", "Until", "Then"],
        [
            [h.ref, str(h.message_count), when(iso(h.replaced_at)) if h.replaced_at else "-", h.why or "-"]
            for h in heads
        ],
    )


def hierarchy(session_id: str, user: str | None) -> HierarchicalSessionStore:
    """The store, once it is clear that there is such a session of this user."""
    from praisonaiagents.session.hierarchy import HierarchicalSessionStore

    if not store().session_exists(session_id, user_id=user or ""):
        raise not_found(session_id, user)
    return HierarchicalSessionStore.of(store())


def _as_json(found: SessionSnapshot) -> dict[str, Any]:
    return {
        "id": found.id,
        "label": found.label,
        "message_count": found.message_index + 1,
        "created_at": iso(found.created_at) or None,
        "metadata": found.metadata,
    }


def _count(session_id: str, user: str | None) -> int:
    return store().open_session(session_id, user_id=user).message_count


def _messages(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"


def _on_one_line(text: str) -> str:
    """Else a title could forge lines of the tree."""
    return " ".join(text.split())


def _points(session_id: str) -> str:
    lists = [command(f"session {name}", after=f" {quote(session_id)}") for name in ("snapshots", "log")]
    return f"{' and '.join(lists)} list the points"


def _moved(session_id: str, before: int, user: str | None, what: str) -> None:
    count = _count(session_id, user)
    _said(
        {"session_id": session_id, "message_count": count, "message_count_before": before},
        f"{what} {session_id}: {_messages(count)}, it had {before:,}",
    )


def _said(values: dict[str, Any], text: str) -> None:
    if wants_json():
        print_json(values)
    else:
        click.echo(safe(text))
