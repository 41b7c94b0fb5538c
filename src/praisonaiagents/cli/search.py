"""What `praisonai session search` found: for people with the terms in bold, a line a hit for pipes, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from praisonaiagents.cli.output import bold, is_terminal, print_json, print_table, safe, wants_json, when
from praisonaiagents.model.search import Query, spans

if TYPE_CHECKING:
    from praisonaiagents.session.hits import SessionHit, SessionHits


def print_hits(hits: SessionHits, query: Query, *, with_user: bool) -> None:
    """Print what was found, and on stderr that nothing was, or that not everything was looked at."""
    if wants_json():
        print_json({"hits": [hit.as_dict() for hit in hits], "complete": hits.complete})
        return
    if is_terminal(sys.stdout):
        for hit in hits:
            click.echo(_head(hit, with_user))
            click.echo(f"  {_in_bold(safe(hit.snippet), query)}")
    else:
        print_table([], [_row(hit, with_user) for hit in hits])
    if not hits:
        click.echo("Nothing found.", err=True)
    if not hits.complete:
        click.echo(
            "Not everything was looked at: there is no index here, and the newest messages come first.", err=True
        )


def _row(hit: SessionHit, with_user: bool) -> list[str]:
    user = [hit.user_id] if with_user else []
    return [hit.session_id, *user, str(hit.message_index), hit.role, when(hit.when), hit.snippet]


def _head(hit: SessionHit, with_user: bool) -> str:
    user = [f"of {hit.user_id}"] if with_user else []
    title = [hit.title] if hit.title else []
    facts = [*user, *title, f"message {hit.message_index}", hit.role, when(hit.when)]
    return f"{bold(safe(hit.session_id))}  {safe(', '.join(facts))}"


def _in_bold(text: str, query: Query) -> str:
    """A text with the terms of the query in bold, in one piece where they touch."""
    shown, done = "", 0
    for start, stop in _joined(spans(text, query)):
        shown += text[done:start] + bold(text[start:stop])
        done = stop
    return shown + text[done:]


def _joined(places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Places in order, those that touch or overlap as one."""
    first = last = 0
    for start, stop in places:
        if start > last:
            yield first, last
            first = start
        last = max(last, stop)
    yield first, last
