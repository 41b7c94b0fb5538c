"""`praisonai session prune`: say what is old and would go, ask, and let go of it."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli.output import is_terminal, json_option, print_json, print_table, safe, wants_json
from praisonaiagents.cli.place import db_option, store
from praisonaiagents.cli.progress import watching
from praisonaiagents.cli.sessions import user_option

if TYPE_CHECKING:
    from praisonaiagents.session.prune import Applied, Change, Plan

_SECONDS = {"m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 7 * 86_400.0, "y": 365 * 86_400.0}
_UNITS = "12h, 90d, 6w or 1y"


class _Age(click.ParamType[float]):
    """A time span as people write it, in seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*([mhdwy])", str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r} is no age; write {_UNITS}", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


_AGE = _Age()


@click.command()
@click.option("--idle", "idle_s", type=_AGE, metavar="AGE", help=f"Sessions unchanged for longer than AGE: {_UNITS}.")
@click.option("--older", "older_s", type=_AGE, metavar="AGE", help="Sessions made longer ago than AGE.")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Of each user, all but the N changed last.")
@click.option(
    "--messages", "max_messages", type=click.IntRange(min=1), metavar="N", help="Of each session, all but the last N."
)
@click.option("--to-archive", is_flag=True, help="With --messages: move them to the session's archive instead.")
@click.option("--archives", "archives_s", type=_AGE, metavar="AGE", help="Archives with nothing newer than AGE.")
@click.option(
    "--heads", "heads_s", type=_AGE, metavar="AGE", help="What was shown before a revert longer ago than AGE."
)
@click.option("--snapshots", "snapshots_s", type=_AGE, metavar="AGE", help="Snapshots older than AGE.")
@click.option("--pinned", is_flag=True, help="Pinned sessions, too.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--all-users", is_flag=True, help="Everybody's.")
@user_option
@db_option
@json_option
def prune(dry_run: bool, yes: bool, all_users: bool, user: str | None, to_archive: bool, **limits: Any) -> None:
    """Let go of what is old: sessions, messages, archives, earlier states. What goes is said first.

    Pinned sessions stay, and so do snapshots and the sessions that have them, unless asked for. A session that is used in the
    meantime is spared.
    """
    from praisonaiagents.session.prune import Applied, Limits, apply, plan

    if all(value is None for name, value in limits.items() if name != "pinned"):
        raise click.UsageError(
            "say what is to go: --idle, --older, --keep, --messages, --archives, --heads or --snapshots"
        )
    wanted = Limits(**limits, retention="archive" if to_archive else "truncate")
    with watching() as watch:
        found = plan(store(), wanted, user_id=user, all_users=all_users, watch=watch)
    _tell_plan(found, with_user=all_users)
    nothing = Applied([], [])
    if dry_run or not found.changes:
        _tell_end(found, nothing, dry_run=dry_run)
    elif yes or _confirmed(found):
        with watching() as watch:
            applied = apply(store(), found, watch=watch)
        _tell_end(found, applied, dry_run=False)
    else:
        click.echo("Cancelled")


def _tell_plan(found: Plan, *, with_user: bool) -> None:
    if wants_json():
        return
    if found.changes:
        columns = ["ID", *(["User"] if with_user else []), "What goes", "Messages", "Bytes"]
        print_table(columns, [_row(change, with_user) for change in found.changes])
    for saved_by, count in found.spared.items():
        click.echo(f"{_count(count, 'session')} beyond a limit will stay: {_SAVED[saved_by]}", err=True)
    click.echo(_totals(found), err=True)


_SAVED = {"pinned": "pinned (--pinned)", "snapshots": "with snapshots (--snapshots AGE)"}


def _tell_end(found: Plan, applied: Applied, *, dry_run: bool) -> None:
    if wants_json():
        print_json(
            {
                "dry_run": dry_run,
                "changes": [_as_json(change) for change in (found.changes if dry_run else applied.done)],
                "used_meanwhile": [_as_json(change) for change in applied.spared],
                "spared": found.spared,
                "looked_at": found.looked_at,
            }
        )
    elif not dry_run and found.changes:
        click.echo(f"Done: {_count(len(applied.done), 'session')}.", err=True)
        for change in applied.spared:
            click.echo(safe(f"Spared, it was used meanwhile: {change.session_id}"), err=True)


def _totals(found: Plan) -> str:
    rest = len(found.changes) - found.sessions
    parts = [_count(found.sessions, "session")] if found.sessions or not rest else []
    parts += [f"parts of {_count(rest, 'session')}"] if rest else []
    return f"{' and '.join(parts)} of {found.looked_at:,}: {_count(found.messages, 'message')}, {found.bytes:,} bytes"


def _row(change: Change, with_user: bool) -> list[str]:
    user = [change.user_id] if with_user else []
    return [change.session_id, *user, _what(change), f"{change.messages:,}", f"{change.bytes:,}"]


_WHY = {"idle": "all (idle)", "older": "all (old)", "keep": "all (beyond --keep)"}


def _what(change: Change) -> str:
    if change.why:
        return _WHY[change.why]
    parts = [
        f"{change.archived:,} to archive" if change.archived else "",
        "old messages" if change.drop else "",
        _count(len(change.heads), "head") if change.heads else "",
        _count(len(change.snapshots), "snapshot") if change.snapshots else "",
    ]
    return ", ".join(part for part in parts if part)


def _as_json(change: Change) -> dict[str, Any]:
    fields = ("session_id", "user_id", "why", "archived", "heads", "snapshots", "messages", "bytes")
    return {name: getattr(change, name) for name in fields}


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _confirmed(found: Plan) -> bool:
    if wants_json() or not is_terminal(sys.stdin):
        raise click.UsageError("this needs a terminal to ask in; without one, say --yes, or --dry-run to only look")
    return click.confirm(f"Let go of {_count(found.messages, 'message')}, for good?", default=False)
