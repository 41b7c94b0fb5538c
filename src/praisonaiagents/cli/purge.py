"""`praisonai session purge`: erase a user, or a session, and say what is proved to be gone and what only an operator can do.

Exit code 1 if a trace was found, or nothing is proved: the storage could not be made to forget or be looked over, or somebody
wrote to the sessions meanwhile.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli.output import bold, is_terminal, json_option, print_json, safe, wants_json
from praisonaiagents.cli.place import db_option, store
from praisonaiagents.cli.progress import watching
from praisonaiagents.cli.sessions import complete_session_id, not_found

if TYPE_CHECKING:
    from praisonaiagents.session.erase import Purged
    from praisonaiagents.session.proof import Proof


@click.command()
@click.option("--user", metavar="ID", help="Whose sessions. Without --session: all of them.")
@click.option(
    "--session",
    "session_id",
    metavar="ID",
    shell_complete=complete_session_id,
    help="Only this one; its forks stay. Without --user: the default user's.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@db_option
@json_option
def purge(user: str | None, session_id: str | None, yes: bool) -> None:
    """Erase all that is stored of a user, or of one session, and prove that it is gone.

    Messages, snapshots, earlier states, archive, search index, what crashes left, memories. Files and databases are then
    written anew and read from end to end, which takes its time. May be repeated.
    """
    from praisonaiagents.session.erase import purge as erase

    if not user and session_id is None:
        raise click.UsageError("say whom to erase: --user, or --session for one session")
    if session_id is not None and not user and _is_of_others(session_id):
        raise not_found(session_id, user)  # it says whose it is
    if not yes and not _confirmed(user, session_id):
        click.echo("Cancelled")
        return
    with watching() as watch:
        purged = erase(store(), user_id=user, session_id=session_id, watch=watch)
    memories = _forget(user, session_id)
    if wants_json():
        print_json(_as_json(purged) | {"memories": memories})
    else:
        _tell(purged, memories)
    if not purged.is_clean:
        click.get_current_context().exit(1)


def _forget(user: str | None, session_id: str | None) -> int:
    """Remove what is remembered of the user; of one session, what belongs to it alone or was learnt only there."""
    from msgspec.structs import replace

    from praisonaiagents.memory.memory import Memory
    from praisonaiagents.memory.sqlite import SqliteMemory
    from praisonaiagents.model.memory import KNOWLEDGE, MEMORY

    with Memory(user, session_id) as memory:
        if session_id is None:
            return memory.adapter.erase(memory.user_id)
        count = sum(memory.clear(session_only=True, shelf=shelf) for shelf in (MEMORY, KNOWLEDGE))
        learnt = [
            item for item in memory.items(superseded=True) if any(s.session_id == session_id for s in item.sources)
        ]
        elsewhere = {item.id: tuple(s for s in item.sources if s.session_id != session_id) for item in learnt}
        memory.adapter.put([replace(item, sources=elsewhere[item.id]) for item in learnt if elsewhere[item.id]])
        count += memory.forget(*(item.id for item in learnt if not elsewhere[item.id]))
        if isinstance(memory.adapter, SqliteMemory) and (learnt or count):
            memory.adapter.write_anew()
        return count


def _is_of_others(session_id: str) -> bool:
    return not store().session_exists(session_id, user_id="") and bool(store().engine.owners(session_id))


def _confirmed(user: str | None, session_id: str | None) -> bool:
    whom = f"session {session_id}" if session_id is not None else f"all sessions of user {user}"
    if wants_json() or not is_terminal(sys.stdin):
        raise click.UsageError(f"erasing {whom} needs a terminal to ask in; without one, say --yes")
    return click.confirm(safe(f"Erase {whom}, for good?"), default=False)


def _tell(purged: Purged, memories: int) -> None:
    count, found = len(purged.sessions), purged.proof
    click.echo(
        safe(
            f"Erased {_number(count, 'session')} of user {purged.user_id}: {', '.join(purged.sessions) or 'none was there'}"
        )
    )
    click.echo(f"{_number(purged.messages, 'message')}, {purged.size:,} bytes")
    if memories:
        click.echo(f"What was remembered in the data folder: {_number(memories, 'item')}")
    if purged.problem:
        click.echo(safe(f"Not proved: {purged.problem}"))
    _tell_proof(found)
    for note in purged.notes:
        click.echo(safe(f"Note: {note}"))
    click.echo(bold("What only an operator can do:"))
    for line in ("memories kept elsewhere: praisonai memory forget --all --backend NAME", *purged.left_to_operators):
        click.echo(safe(f"- {line}"))


def _tell_proof(found: Proof) -> None:
    if found.looked_at:
        click.echo(bold(f"Looked for {_number(found.samples, 'sample')} of it in:"))
        for place, size in found.looked_at.items():
            click.echo(safe(f"- {place} ({size:,} bytes)"))
    if found.elsewhere:
        click.echo(f"{_number(found.elsewhere, 'sample')} proved nothing: sessions that stay say the same.")
    if found.left:
        click.echo(bold("Something is left:"))
        for place, where, what in found.left:
            click.echo(safe(f"- {what}, in {place}{f': {where}' if where else ''}"))
    elif found.looked_at:
        click.echo("Nothing is left there.")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _as_json(purged: Purged) -> dict[str, Any]:
    found = purged.proof
    return {
        "user_id": purged.user_id,
        "sessions": purged.sessions,
        "message_count": purged.messages,
        "bytes": purged.size,
        "clean": purged.is_clean,
        "problem": purged.problem,
        "checked": [{"place": place, "bytes": size} for place, size in found.looked_at.items()],
        "samples": found.samples,
        "said_elsewhere": found.elsewhere,
        "left": [{"place": left.place, "where": left.where, "what": left.what} for left in found.left],
        "for_operators": purged.left_to_operators,
        "notes": purged.notes,
    }
