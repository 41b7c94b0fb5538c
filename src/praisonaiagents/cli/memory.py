"""`praisonai memory`: what is remembered of a user, where it comes from, where it was used, and forgetting it.

What a reader would get wrong: a memory is the user's, and every command means one user: `--user`, else the default one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from praisonaiagents.cli.group import Group, help_if_alone
from praisonaiagents.cli.output import (
    is_terminal,
    json_option,
    print_details,
    print_json,
    print_table,
    put,
    safe,
    wants_json,
    when,
)
from praisonaiagents.cli.place import db_option, store, within
from praisonaiagents.errors import ConfigError, PraisonError, SessionNotFound, StorageError

if TYPE_CHECKING:
    from praisonaiagents.memory.memory import Memory
    from praisonaiagents.model.memory import MemoryItem, Source

F = TypeVar("F", bound=Callable[..., Any])

_MEMORY = "praisonaiagents.memory"
_PLACE = "praisonaiagents.memory_place"
_SHORTEST = 6  # characters of an id that are enough, if they are of one memory only
_COMPLETED = 200
_PATIENCE_S = 2.0
_QUOTED = 200  # characters of a source


def _place_options(command: F) -> F:
    """`--backend` and `--path`, for the group and for its commands alike."""

    def remember(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.find_root().meta.setdefault(_PLACE, {})[param.name] = value

    options = [
        click.option("--user", metavar="ID", help="Whose memories. Default: the default user's."),
        click.option(
            "--backend",
            metavar="NAME",
            expose_value=False,
            callback=remember,
            help="Where memories rest: sqlite (the default), chroma, mongodb, or another package's.",
        ),
        click.option(
            "--path", metavar="PATH", expose_value=False, callback=remember, help="The file or folder of that place."
        ),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _memory(user: str | None, session: str | None = None) -> Memory:
    """The memory of this call, closed when the call ends."""
    from praisonaiagents.memory.memory import Memory

    root = click.get_current_context().find_root()
    if _MEMORY not in root.meta:
        place = root.meta.get(_PLACE, {})
        config = {"path": place["path"]} if "path" in place else None
        root.meta[_MEMORY] = Memory(user, session, backend=place.get("backend", "sqlite"), config=config)
        root.call_on_close(root.meta[_MEMORY].close_connections)
    found: Memory = root.meta[_MEMORY]
    return found


def _complete_id(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    def found() -> list[str]:
        return [item.id for item in islice(_memory(ctx.params.get("user")).items(superseded=True), _COMPLETED)]

    return [name for name in within(_PATIENCE_S, found) or [] if name.startswith(incomplete)]


session_option = click.option("--session", metavar="ID", help="What belongs to this session alone.")
id_argument = click.argument("memory_id", shell_complete=_complete_id)


@click.group(cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def memory(ctx: click.Context) -> None:
    """What is remembered of a user: list, search, see where it comes from, forget, export."""
    help_if_alone(ctx, memory)


@memory.command("list")
@click.option(
    "--limit", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="How many, latest first."
)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--superseded", is_flag=True, help="Those that no longer count, too.")
@session_option
@_place_options
def list_(limit: int, everything: bool, superseded: bool, session: str | None, user: str | None) -> None:
    """What is remembered, the latest first."""
    items = _memory(user, session).items(superseded=superseded, session_only=session is not None)
    found = list(items if everything else islice(items, limit))
    _print(found, [""] * len(found))
    if not found and not wants_json():
        click.echo(
            "Nothing is remembered. Agents with auto_memory=True remember, and praisonai memory add does.", err=True
        )


@memory.command("search")
@click.argument("query", nargs=-1, required=True)
@click.option("--limit", "-n", type=click.IntRange(min=1), default=10, show_default=True, help="How many, best first.")
@session_option
@_place_options
def search(query: tuple[str, ...], limit: int, session: str | None, user: str | None) -> None:
    """What fits these words, best first, and why it was found."""
    found = _memory(user, session).search(" ".join(query), limit=limit, session_only=session is not None)
    if wants_json():
        print_json({"memories": [recalled.to_dict() for recalled in found]})
        return
    _print([recalled.item for recalled in found], [recalled.why for recalled in found], "Why")
    if not found:
        click.echo("Nothing found.", err=True)


@memory.command("show")
@id_argument
@db_option
@_place_options
def show(memory_id: str, user: str | None) -> None:
    """One memory: what it says, what it took the place of, and the messages it comes from."""
    from praisonaiagents.memory.memory import to_dict

    item = _found(_memory(user), memory_id)
    sources = [(source, _message(source, user)) for source in item.sources]
    if wants_json():
        texts = [
            {"session_id": source.session_id, "message_id": source.message_id, "text": text} for source, text in sources
        ]
        print_json({"memory": to_dict(item) | {"sources": texts}})
        return
    details = [
        ("Memory", item.id),
        ("Text", item.text),
        ("Kind", item.kind),
        ("About", item.slot or "-"),
        ("Confidence", f"{item.confidence:g}"),
        ("First said", when(_iso(item.created_at))),
        ("Last said", when(_iso(item.updated_at))),
        ("Counts", f"no: superseded by {item.superseded_by}" if item.superseded_by else "yes"),
    ]
    print_details(details + [("Metadata", str(item.metadata))] * bool(item.metadata))
    for source, text in sources:
        put(f"From session {source.session_id}: {_shortened(text) if text else '(the message is gone)'}")


@memory.command("add")
@click.argument("text")
@click.option("--kind", default="note", show_default=True, help="fact, preference, decision, correction or note.")
@click.option(
    "--about", "slot", metavar="SLOT", help="What it is about, such as user.home; it replaces what is known of that."
)
@session_option
@_place_options
def add(text: str, kind: str, slot: str | None, session: str | None, user: str | None) -> None:
    """Remember a sentence."""
    from praisonaiagents.memory.memory import to_dict

    item = _memory(user, session).add(text, kind=kind, slot=slot, session_only=session is not None)
    if wants_json():
        print_json({"memory": to_dict(item)})
    else:
        click.echo(f"Remembered: {item.id}")


@memory.command("forget")
@click.argument("memory_ids", nargs=-1, shell_complete=_complete_id)
@click.option(
    "--all", "everything", is_flag=True, help="All that is remembered of the user, in all sessions, knowledge too."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_place_options
def forget(memory_ids: tuple[str, ...], everything: bool, yes: bool, user: str | None) -> None:
    """Remove memories for good."""
    if everything == bool(memory_ids):
        raise click.UsageError("say what to forget: ids, or --all")
    opened = _memory(user)
    ids = [_found(opened, given).id for given in memory_ids]
    whom = f"all that is remembered of user {opened.user_id}" if everything else _number(len(ids))
    if not yes and not _confirmed(whom):
        click.echo("Cancelled")
        return
    count = opened.adapter.erase(opened.user_id) if everything else opened.forget(*ids)
    if wants_json():
        print_json({"forgotten": count, "user_id": opened.user_id})
    else:
        click.echo(f"Forgot {_number(count)}")


@memory.command("export")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="The file to write. Default: standard output.")
@session_option
@_place_options
def export(output: str | None, session: str | None, user: str | None) -> None:
    """All that is remembered, superseded ones too, as one JSON document."""
    import msgspec

    from praisonaiagents.memory.memory import to_dict

    opened = _memory(user, session)
    items = [to_dict(item) for item in opened.items(superseded=True, session_only=session is not None)]
    document = {"user_id": opened.user_id, "session_id": session, "memories": items}
    data = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    if output is None:
        click.echo(data, nl=False)
        return
    try:
        with open(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            if os.path.isfile(output):
                os.fchmod(file.fileno(), 0o600)  # it may have been there
            file.write(data)
    except OSError as exc:
        raise StorageError(f"{output} cannot be written: {exc.strerror or exc}", output) from exc
    if wants_json():
        print_json({"exported": len(items), "path": output})
    else:
        click.echo(f"Exported {_number(len(items))} to {safe(output)}")


@memory.command("used")
@click.argument("session_id")
@db_option
@_place_options
def used(session_id: str, user: str | None) -> None:
    """Which memories the model was told in each turn of a session, and why."""
    if not store().session_exists(session_id, user_id=user or ""):
        raise SessionNotFound(session_id, user)
    rows = list(_used(_memory(user), session_id, user))
    if wants_json():
        print_json({"session_id": session_id, "turns": rows})
        return
    for row in rows:
        put(f"[user] {_shortened(row['message'])}")
        for told in row["memories"]:
            put(f"  {told['text'] or '(forgotten)'}  ({told['why']}; {told['id']})")
    if not rows:
        click.echo("No memory was told in this session.", err=True)


def _used(opened: Memory, session_id: str, user: str | None) -> Iterator[dict[str, Any]]:
    for message in store().messages(session_id, user_id=user or ""):
        told = message.metadata.get("memories") if message.role == "user" else None
        if isinstance(told, list):
            memories = [entry for entry in told if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
            items = [opened.get(entry["id"]) for entry in memories]
            yield {
                "message_id": message.id,
                "message": message.text(),
                "memories": [
                    {"id": entry["id"], "why": str(entry.get("why", "")), "text": item.text if item else None}
                    for entry, item in zip(memories, items, strict=True)
                ],
            }


def _print(items: Sequence[MemoryItem], more: Sequence[str], heading: str = "") -> None:
    from praisonaiagents.memory.memory import to_dict

    if wants_json():
        print_json({"memories": [to_dict(item) for item in items]})
        return
    rows = [
        [item.id, _kind(item), when(_iso(item.updated_at)), *([why] if heading else []), item.text]
        for item, why in zip(items, more, strict=True)
    ]
    if not is_terminal(sys.stdout):
        print_table([], rows)
        return
    for item_id, kind, time, *why, text in rows:
        put(text)
        click.echo(click.style(safe("  " + "  ".join([item_id, kind, time, *why])), dim=True))


def _kind(item: MemoryItem) -> str:
    return f"{item.kind}, superseded" if item.superseded_by else item.kind


def _found(opened: Memory, given: str) -> MemoryItem:
    """The memory that is meant: by its id, or by the beginning of it."""
    item = opened.get(given) if given else None
    if item is not None:
        return item
    near = (
        [item for item in opened.items(superseded=True) if item.id.startswith(given)] if len(given) >= _SHORTEST else []
    )
    if len(near) == 1:
        return near[0]
    several = f"{len(near)} memories begin so" if near else f"user {opened.user_id!r} has no such memory"
    raise ConfigError(f"{given!r}: {several}; see: praisonai memory list --superseded")


def _message(source: Source, user: str | None) -> str | None:
    """The text of the message a memory was taken from; None if it is gone."""
    try:
        messages = store().messages(source.session_id, user_id=user or "")
    except PraisonError:
        return None
    return next((message.text() for message in messages if message.id == source.message_id), None)


def _confirmed(what: str) -> bool:
    if wants_json() or not is_terminal(sys.stdin):
        raise click.UsageError(f"forgetting {what} needs a terminal to ask in; without one, say --yes")
    return click.confirm(safe(f"Forget {what}, for good?"), default=False)


def _number(count: int) -> str:
    return f"{count:,} {'memory' if count == 1 else 'memories'}"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _QUOTED else f"{line[: _QUOTED - 1]}…"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
