"""`praisonai session export`, `session import` and `praisonai migrate`: sessions on their way to another place.

Exit code 1 if anything did not arrive whole. No command prints a URL with its password, nor what was said in an error.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli.output import is_terminal, json_option, print_json, safe, wants_json
from praisonaiagents.cli.place import db_option, store
from praisonaiagents.cli.progress import watching
from praisonaiagents.cli.sessions import not_found, session_id_argument, user_option
from praisonaiagents.errors import ConfigError, PraisonError, SessionExists, StorageError
from praisonaiagents.storage.registry import check_url, masked

if TYPE_CHECKING:
    from praisonaiagents.model.record import Key
    from praisonaiagents.session.migrate import Moved
    from praisonaiagents.session.transfer import Renamed

_FORMATS = ("json", "jsonl", "md", "html")


@click.command("export")
@session_id_argument
@click.option(
    "--format", "-f", "form", type=click.Choice(_FORMATS), help="Default: what the file's name ends in, else json."
)
@click.option("--output", "-o", metavar="FILE", help="Where to write it. Default: standard output.")
@user_option
@db_option
@json_option
def export(session_id: str, form: str | None, output: str | None, user: str | None) -> None:
    """Write a session to a file.

    json and jsonl hold everything, and can be imported again; md and html are what was said, for people.
    """
    key = _key(session_id, user)
    form = form or _form_of(output)
    pieces = _pieces(key, form)
    if output is None or output == "-":
        for piece in pieces:
            _write_out(piece)
        return
    with _whole_file(output) as write:
        for piece in pieces:
            write(piece)
    if wants_json():
        print_json({"session_id": key.session_id, "user_id": key.user_id, "format": form, "output": output})
    else:
        click.echo(safe(f"Exported session {session_id} to {output}"), err=True)


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--as", "new_id", metavar="ID", help="The session's new id. Default: the one it has.")
@click.option("--user", metavar="ID", help="Whose session it becomes. Default: the user that the file names.")
@db_option
@json_option
def import_(files: tuple[str, ...], new_id: str | None, user: str | None) -> None:
    """Make sessions of files: exports (json, jsonl), session files, and those of PraisonAI.

    A session that is there already is left alone, and the file is not imported: give it another id with --as.
    Without --user, each belongs to the user that its file names, which need not be the default user: what is printed says
    whose it became.
    """
    if new_id is not None and len(files) > 1:
        raise click.UsageError("--as gives one id, so it takes one FILE")
    from praisonaiagents.session.transfer import renaming

    rows = [_imported(path, renaming(new_id, user)) for path in files]
    if wants_json():
        print_json({"imported": rows})
    if any("error" in row for row in rows):
        click.get_current_context().exit(1)


@click.command()
@click.option(
    "--from",
    "source",
    metavar="URL",
    envvar="PRAISONAI_MIGRATE_FROM",
    help="Where the sessions are. Default: PRAISONAI_MIGRATE_FROM, else the default place.",
)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="URL",
    envvar="PRAISONAI_MIGRATE_TO",
    help="Where they shall be. Default: PRAISONAI_MIGRATE_TO.",
)
@click.option("--user", metavar="ID", help="Only the sessions of this user. Default: everybody's.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def migrate(source: str | None, target: str, user: str | None, dry_run: bool) -> None:
    """Copy all sessions from one place to another, and check that they arrived whole.

    The source stays as it is. What is in the target already is left alone, so a migration that was interrupted is simply
    run again; a session that differs from the one of the same id there is not copied.
    """
    from praisonaiagents.session import migrate as moving
    from praisonaiagents.session.places import borrow, default_place

    source = source or default_place()
    if source == target:
        raise click.UsageError("--from and --to are the same place")
    for option, url in (("--from", source), ("--to", target)):
        try:
            check_url(url)
        except ConfigError as exc:
            raise click.BadParameter(str(exc), param_hint=option) from exc
    (old, give_back_old), (new, give_back_new) = borrow(source), borrow(target)
    try:
        planned = moving.plan(old, user_id=user)
        rows = []
        with watching() as watch:
            steps = moving.migrate(old, new, dry_run=dry_run, planned=planned)
            for number, moved in enumerate(steps, 1):
                watch("Moving sessions", number, len(planned.sessions))
                rows.append(moved)
    finally:
        give_back_old()
        give_back_new()
    _tell(rows, masked(source), masked(target))
    if not all(moved.is_well for moved in rows):
        click.get_current_context().exit(1)


# Exporting


def _key(session_id: str, user: str | None) -> Key:
    """The session that is meant, or an error that names similar ones."""
    key = store()._key(session_id, user)
    if store().engine.get(key) is None:
        raise not_found(session_id, user)
    return key


def _form_of(output: str | None) -> str:
    ending = (output or "").rpartition(".")[2].lower()
    return {"htm": "html", "markdown": "md"}.get(ending, ending if ending in _FORMATS else "json")


def _pieces(key: Key, form: str) -> Iterator[bytes]:
    from praisonaiagents.session import transfer

    engine = store().engine
    if form in ("json", "jsonl"):
        return (transfer.to_json if form == "json" else transfer.to_jsonl)(engine, key)
    shown = (transfer.to_html if form == "html" else transfer.to_markdown)(engine, key)
    return (piece.encode() for piece in shown)


def _write_out(piece: bytes) -> None:
    click.echo(safe(piece.decode()) if is_terminal(sys.stdout) else piece, nl=False)


@contextmanager
def _whole_file(path: str) -> Iterator[Any]:
    """A file that only its owner may read, and that is there when all of it is written. A device is written to as it is."""
    import tempfile

    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    unfinished = None
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as device:
                yield device.write
            return
        descriptor, unfinished = tempfile.mkstemp(".tmp", f"{name[:40]}.", folder)
        with open(descriptor, "wb") as file:
            yield file.write
        os.replace(unfinished, path)
        unfinished = None
    except OSError as exc:
        if isinstance(exc, PraisonError):
            raise
        raise StorageError(f"{path}: {exc.strerror or exc}", path) from exc
    finally:
        if unfinished:
            with suppress(OSError):
                os.unlink(unfinished)


# Importing and moving


def _imported(path: str, rename: Renamed) -> dict[str, Any]:
    """What became of a file."""
    from praisonaiagents.session.transfer import import_file

    try:
        record = import_file(path, store().engine, rename)
    except PraisonError as exc:
        hint = "; --as gives it another id" if isinstance(exc, SessionExists) else ""
        told = str(exc) if str(exc).startswith(path) else f"{path}: {exc}{hint}"
        if not wants_json():
            click.echo(f"Error: {safe(told)}", err=True)
        return {"file": path, "error": {"type": type(exc).__name__, "message": told}}
    if not wants_json():
        whose = f" of user {record.user_id}" if record.user_id != "default_user" else ""
        count = f"{record.message_count:,} message{'' if record.message_count == 1 else 's'}"
        click.echo(safe(f"Imported session: {record.session_id}{whose} ({count})"))
    return {
        "file": path,
        "session_id": record.session_id,
        "user_id": record.user_id,
        "message_count": record.message_count,
    }


def _tell(rows: Iterable[Moved], source: str, target: str) -> None:
    if wants_json():
        print_json({"from": source, "to": target, "sessions": [_row(moved) for moved in rows]})
        return
    counts = Counter(moved.outcome for moved in rows)
    for moved in rows:
        name = f"session {moved.key.session_id} of user {moved.key.user_id}" if moved.key else "a session"
        if moved.outcome == "differs":
            click.echo(safe(f"Not copied: {name}: another one of this id is in the target"), err=True)
        for problem in moved.problems:
            click.echo(safe(f"{'Not copied' if moved.outcome == 'failed' else 'Damaged'}: {name}: {problem}"), err=True)
    messages = sum(moved.messages for moved in rows if moved.outcome in ("moved", "would move"))
    words = [
        (counts["moved"], "copied"),
        (counts["would move"], "to copy"),
        (counts["there"], "there already"),
        (counts["differs"] + counts["failed"], "not copied"),
    ]
    told = ", ".join(f"{count:,} {word}" for count, word in words if count) or "no sessions"
    click.echo(f"{told} ({messages:,} messages), from {source} to {target}")


def _row(moved: Moved) -> dict[str, Any]:
    return {
        "session_id": moved.key.session_id if moved.key else None,
        "user_id": moved.key.user_id if moved.key else None,
        "outcome": moved.outcome,
        "message_count": moved.messages,
        "problems": list(moved.problems),
    }
