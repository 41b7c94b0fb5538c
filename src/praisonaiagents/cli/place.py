"""Which sessions a command is about: those of `--db`, else those of the default place.

`--db` is accepted after `session` and after the command's own name; said twice, the one nearer to the end counts. What a
reader would get wrong: a URL may hold a password, so `command`, which writes what people copy, leaves such a URL out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from praisonaiagents.errors import ConfigError
from praisonaiagents.storage.registry import check_url, masked

if TYPE_CHECKING:
    from praisonaiagents.session.store import SessionStore
    from praisonaiagents.storage.engine import Engine

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_URL = "praisonaiagents.db"
_STORE = "praisonaiagents.store"


def db_option(command: F) -> F:
    """`--db URL`, for a group and for its commands alike."""

    def remember(ctx: click.Context, param: click.Parameter, url: str | None) -> None:
        if url is None:
            return
        ctx.find_root().meta[_URL] = url
        try:
            check_url(url)
        except ConfigError as exc:
            raise click.BadParameter(str(exc), ctx, param) from exc

    return click.option(
        "--db",
        metavar="URL",
        expose_value=False,
        callback=remember,
        help="Where the sessions are, such as sqlite:///sessions.db. Default: PRAISONAI_DB_URL, else JSON files.",
    )(command)


def store() -> SessionStore:
    """The store of this call, opened when it is first asked for and closed when the call ends."""
    root = click.get_current_context().find_root()
    if _STORE not in root.meta:
        root.meta[_STORE] = open_place(root)
        if given(root):
            root.call_on_close(root.meta[_STORE].close)
    found: SessionStore = root.meta[_STORE]
    return found


def open_place(ctx: click.Context) -> SessionStore:
    """A store of the sessions that a call means. One at a `given` URL is the caller's to close."""
    from praisonaiagents.session.places import get_default_session_store, open_store

    url = given(ctx)
    return open_store(url) if url else get_default_session_store()


def given(ctx: click.Context | None = None) -> str | None:
    """The URL of `--db`, which may hold a password; None if it was not given."""
    url: str | None = (ctx or click.get_current_context()).find_root().meta.get(_URL)
    return url


def command(*words: str, after: str = "") -> str:
    """A command that goes on in the same place, as a shell takes it: `words`, the place, then `after`.

    A URL with a password is not repeated; the text says what to do instead.
    """
    from shlex import quote

    url = given()
    hidden = url is not None and masked(url) != url
    place = f" --db {quote(url)}" if url and not hidden else ""
    note = " (with the database's URL in PRAISONAI_DB_URL; its password is not shown here)" if hidden else ""
    return f"praisonai {' '.join(words)}{place}{after}{note}"


def named(session_id: str, user: str | None) -> str:
    """A session as a shell takes it after a command's name: its user, if it is not the default one, and its id."""
    from shlex import quote

    from praisonaiagents.model.ids import DEFAULT_USER

    whose = "" if user in (None, "", DEFAULT_USER) else f" --user {quote(user or '')}"
    return f"{whose}{' --' if session_id.startswith('-') else ''} {quote(session_id)}"


def path_of(engine: Engine) -> str | None:
    """The folder or file of an engine on this machine, as far as it says so. It need not be there."""
    path = getattr(engine, "folder", None) or getattr(engine, "path", None)
    return os.path.abspath(path) if isinstance(path, str) and path != ":memory:" else None


def within(seconds: float, work: Callable[[], T]) -> T | None:
    """What `work` returns, or None if it fails or takes longer. What takes longer goes on behind the scenes."""
    done: list[T] = []

    def attempt() -> None:
        try:
            done.append(work())
        except Exception:
            return  # the caller asked not to hear of it

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    return done[0] if done else None
