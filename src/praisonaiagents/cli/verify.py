"""`praisonai session verify`: read everything once more, and say what is damaged and what can be done.

Exit code 1 if something is damaged; notes do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli.output import bold, json_option, print_json, safe, wants_json
from praisonaiagents.cli.place import db_option, store
from praisonaiagents.cli.progress import watching
from praisonaiagents.cli.sessions import complete_session_id, not_found, user_option
from praisonaiagents.errors import SessionNotFound

if TYPE_CHECKING:
    from praisonaiagents.session.verify import Checked
    from praisonaiagents.storage.powers import Finding


@click.command()
@click.argument("session_id", required=False, shell_complete=complete_session_id)
@click.option(
    "--all", "everything", is_flag=True, help="All sessions of the user. This is also what happens without an ID."
)
@click.option("--all-users", is_flag=True, help="Everybody's.")
@user_option
@db_option
@json_option
def verify(session_id: str | None, everything: bool, all_users: bool, user: str | None) -> None:
    """Read a session, or all of them, from end to end, and say what is damaged and what can be recovered.

    Changes nothing.
    """
    from praisonaiagents.session.verify import verify as look

    if session_id is not None and (everything or all_users):
        raise click.UsageError("say either an ID, or --all or --all-users")
    try:
        with watching() as watch:
            checked = look(store(), session_id, user_id=user, all_users=all_users, watch=watch)
    except SessionNotFound:
        raise not_found(session_id or "", user) from None
    if wants_json():
        print_json(_as_json(checked))
    else:
        _tell(checked)
    if not checked.is_whole:
        click.get_current_context().exit(1)


def _tell(checked: Checked) -> None:
    for finding in sorted(checked.findings, key=lambda found: not found.is_damage):
        about = f"session {finding.key.session_id} of user {finding.key.user_id}: " if finding.key else ""
        click.echo(bold("Damage: ") if finding.is_damage else "Note: ", nl=False)
        click.echo(safe(about + finding.what))
        click.echo(safe(f"  {finding.remedy}"))
    damaged = sum(finding.is_damage for finding in checked.findings)
    verdict = f"{damaged:,} {'thing is' if damaged == 1 else 'things are'} damaged" if damaged else "nothing is damaged"
    sessions = f"{checked.sessions:,} session{'' if checked.sessions == 1 else 's'}"
    click.echo(f"{sessions}, {checked.messages:,} message{'' if checked.messages == 1 else 's'} read: {verdict}.")


def _as_json(checked: Checked) -> dict[str, Any]:
    return {
        "ok": checked.is_whole,
        "sessions": checked.sessions,
        "message_count": checked.messages,
        "findings": [_finding(finding) for finding in checked.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": "damage" if finding.is_damage else "note",
        "session_id": finding.key.session_id if finding.key else None,
        "user_id": finding.key.user_id if finding.key else None,
        "what": finding.what,
        "remedy": finding.remedy,
    }
