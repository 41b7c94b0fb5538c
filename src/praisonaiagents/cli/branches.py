"""`praisonai session diff` and `merge`: two branches of a conversation.

Where a session is named, a point of it may be too, after an @: `chat@head:3`. A session whose own id has an @ is found first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING

import click

from praisonaiagents.cli.history import hierarchy, points
from praisonaiagents.cli.output import is_terminal, json_option, message_text, print_json, print_table, safe, wants_json
from praisonaiagents.cli.place import command, db_option, named, store
from praisonaiagents.cli.sessions import complete_session_id, llm_option, not_found, proposals, user_option
from praisonaiagents.errors import PointNotFound

if TYPE_CHECKING:
    from praisonaiagents.model.message import Message
    from praisonaiagents.session.branches import Diff, Side

_BY_MODEL = ""
_SUMMARISE = (
    "Summarise the following part of a conversation for somebody who goes on with another branch of it: what was asked, "
    "found, decided and left open. At most 200 words, plain text, in the language of the conversation.\n\n"
)


def complete_place(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Session ids, and after an @ the points of that session."""
    session_id, at, _ = incomplete.rpartition("@")
    ids = complete_session_id(ctx, param, incomplete)
    if ids or not at:
        return ids
    user = ctx.params.get("user")
    return proposals(
        ctx, incomplete, lambda opened: [f"{session_id}@{point}" for point in points(opened, session_id, user)]
    )


@click.command()
@click.argument("a", metavar="A[@POINT]", shell_complete=complete_place)
@click.argument("b", metavar="B[@POINT]", shell_complete=complete_place)
@user_option
@db_option
@json_option
def diff(a: str, b: str, user: str | None) -> None:
    """Show what two sessions, or two points of one, have in common and what each has of its own.

    A point is a snapshot (its id or label), an earlier head (chat@head:3) or a message (chat@message:5).
    """
    from praisonaiagents.session.branches import diff as compare

    (left, at_left), (right, at_right) = _place(a, user), _place(b, user)
    try:
        found = compare(hierarchy(left, user), left, right, at_a=at_left, at_b=at_right, user_id=user)
    except PointNotFound as exc:
        _name_points(exc, user)
        raise
    if wants_json():
        print_json(found.to_dict())
    elif is_terminal(sys.stdout):
        _print_columns(found)
    else:
        print_table([], [*_rows(found.a), *_rows(found.b)])


@click.command()
@click.argument("into", metavar="A", shell_complete=complete_session_id)
@click.argument("source", metavar="B[@POINT]", shell_complete=complete_place)
@click.option(
    "--summary",
    is_flag=False,
    flag_value=_BY_MODEL,
    metavar="[TEXT]",
    help="One message that stands for the turns: TEXT, or, without it, what a model makes of them.",
)
@llm_option
@user_option
@db_option
@json_option
def merge(into: str, source: str, summary: str | None, llm: str | None, user: str | None) -> None:
    """Add the turns that only B has to the end of A, or a summary of them.

    B stays as it is. Done twice, it adds nothing.
    """
    from praisonaiagents.session.branches import merge as unite

    opened = hierarchy(into, user)
    session_id, at = _place(source, user)
    try:
        done = unite(
            *(opened, into, session_id),
            at=at,
            summary=(lambda part: _summary_of(part, llm)) if summary == _BY_MODEL else summary,
            user_id=user,
        )
    except PointNotFound as exc:
        _name_points(exc, user)
        raise
    count = len(done.message_ids)
    if wants_json():
        print_json(
            {"session_id": into, "source": session_id, "added": count, "message_ids": done.message_ids}
            | {"is_summary": done.is_summary}
        )
    elif not count:
        click.echo(safe(f"Nothing new: all that {session_id} has was merged into {into} before."))
    else:
        what = "a summary" if done.is_summary else f"{count} message{'' if count == 1 else 's'}"
        click.echo(safe(f"Merged {session_id} into {into}: added {what}."))


def _place(text: str, user: str | None) -> tuple[str, str | None]:
    """The session that a text names, and the point of it, if one is named. Raises `SessionNotFound`."""
    candidates: list[tuple[str, str | None]] = [(text, None)]
    candidates += [(text[:at], text[at + 1 :]) for at in reversed(range(1, len(text))) if text[at] == "@"]
    for session_id, point in candidates:
        if store().session_exists(session_id, user_id=user or ""):
            return session_id, point
    raise not_found(candidates[-1][0], user)


def _name_points(error: PointNotFound, user: str | None) -> None:
    lists = [command(f"session {name}", after=named(error.session_id, user)) for name in ("snapshots", "log")]
    error.args = (f"{error}; {' and '.join(lists)} list the points",)


def _summary_of(part: list[Message], llm: str | None) -> str:
    from praisonaiagents.cli.ask import ask_once

    told = "\n".join(f"{message.role}: {message.text()}" for message in part if message.text().strip())
    return ask_once(_SUMMARISE + told, llm, instead="give the text of the summary: --summary TEXT")


def _print_columns(found: Diff) -> None:
    from praisonaiagents.cli.columns import print_rule, print_side_by_side

    count = len(found.common)
    click.echo(f"{count} message{' is' if count == 1 else 's are'} in both.")
    if found.is_empty:
        click.echo("There is no difference.")
        return
    print_side_by_side(_name(found.a), _name(found.b), is_head=True)
    print_rule()
    for left, right in zip_longest(_texts(found.a), _texts(found.b), fillvalue=""):
        print_side_by_side(left, right)


def _texts(side: Side) -> Iterator[str]:
    if side.earlier:
        yield f"({side.earlier} older messages that the other has no more)"
    yield from (
        f"{index} {message_text(message.to_chat())}" for index, message in zip(side.indices, side.messages, strict=True)
    )


def _rows(side: Side) -> list[list[str]]:
    return [
        [_name(side), str(index), message.role, message_text(message.to_chat()).partition("] ")[2]]
        for index, message in zip(side.indices, side.messages, strict=True)
    ]


def _name(side: Side) -> str:
    return f"{side.session_id}@{side.at}" if side.at else side.session_id
