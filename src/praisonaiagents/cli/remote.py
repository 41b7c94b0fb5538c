"""Sessions of an agent on another machine: `--remote URL`.

The token is read from the environment variable `PRAISONAI_REMOTE_TOKEN` and never from an argument, which everybody on the
machine could see. What a reader would get wrong: the server need not be ours. One that shows no sessions can be talked to all
the same; then nothing is said of what there was before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from praisonaiagents.cli.output import (
    print_details,
    print_json,
    print_messages,
    print_table,
    safe,
    wants_json,
    when,
)
from praisonaiagents.cli.place import given, named, within
from praisonaiagents.errors import RemoteUnsupported, SessionNotFound

if TYPE_CHECKING:
    from praisonaiagents.agent.session import Session

F = TypeVar("F", bound=Callable[..., Any])

TOKEN = "PRAISONAI_REMOTE_TOKEN"  # noqa: S105 - its name
_PATIENCE_S = 600  # for an answer, which a model may need minutes for
_TAB_S = 2.0
_COMPLETED = 200


def remote_option(command: F) -> F:
    """`--remote URL`."""
    return click.option(
        "--remote",
        metavar="URL",
        help=f"With the agent at this address, which keeps the session. Its token is read from {TOKEN}.",
    )(command)


def check_alone(**others: Any) -> None:
    """Raise `UsageError` for options that say something about sessions and agents of this machine."""
    said = [name for name, value in {"db": given(), **others}.items() if value not in (None, False)]
    if said:
        raise click.UsageError(
            f"--{said[0].replace('_', '-')} is about this machine, and --remote about another: say one of them"
        )


def connected(url: str, session_id: str | None, user: str | None) -> Session:
    """The session there. Raises `RemoteError` if no agent is there."""
    from praisonaiagents.agent.session import Session

    return Session(session_id, user, url, token=os.environ.get(TOKEN) or None)


def start(url: str, session_id: str | None, user: str | None) -> None:
    """Start a conversation, or go on with it if it is there."""
    from praisonaiagents.cli.chat import talk

    with connected(url, session_id, user) as session:
        talk(_RemoteTalk(session, url))


def resume(url: str, session_id: str, prompt: str | None, user: str | None) -> None:
    """Go on with a conversation; with a prompt, for one turn only."""
    from praisonaiagents.cli.chat import check_prompt, say, talk

    if prompt is not None:
        check_prompt(prompt)
    with connected(url, session_id, user) as session:
        with_ = _RemoteTalk(session, url)
        with_.check_there()
        if prompt is None:
            talk(with_)
        else:
            say(with_, prompt)


def list_sessions(url: str, user: str | None, limit: int | None) -> None:
    """List the user's sessions there, the one changed last first."""
    with connected(url, None, user) as session:
        rows = session.sessions(limit)
    if wants_json():
        print_json({"sessions": rows})
    elif not rows:
        click.echo("No sessions found there.", err=True)
    else:
        print_table(["ID", "Title", "Agent", "Messages", "Updated"], list(map(_row, rows)))


def show(url: str, session_id: str, user: str | None, messages: int) -> None:
    """Show what a session there is and its last messages."""
    with connected(url, session_id, user) as session:
        found = session.info()
        if found is None:
            raise _not_found(session)
        recent = session.history(None if wants_json() else messages)
    if wants_json():
        print_json({**found, "chat_history": recent, "found": True})
        return
    print_details(
        [
            ("Session ID", session.session_id),
            ("User", session.user_id),
            ("Title", _text(found, "title")),
            ("Agent", _text(found, "agent_name")),
            ("Model", _text(found, "model")),
            ("Created", _time(found, "created_at")),
            ("Updated", _time(found, "updated_at")),
            ("Messages", _text(found, "message_count")),
            ("Server", session.agent_url or ""),
        ]
    )
    if recent:
        click.echo()
        print_messages(list(map(_shown, recent)))


def completed(url: str, user: str | None, incomplete: str) -> list[str]:
    """The newest session ids there that start with what was typed, if the server is quick."""

    def found() -> list[str]:
        from praisonaiagents.agent.session import Session

        with Session(None, user, url, timeout=_TAB_S, token=os.environ.get(TOKEN) or None) as session:
            return [str(row["session_id"]) for row in session.sessions(_COMPLETED)]

    return [name for name in within(_TAB_S, found) or [] if name.startswith(incomplete)]


class _RemoteTalk:
    """With an agent on another machine."""

    def __init__(self, session: Session, url: str) -> None:
        self._session = session
        self._url = url
        self._history: list[dict[str, Any]] | None = None
        try:
            self._info, self._is_shown = session.info(), True
        except RemoteUnsupported:
            self._info, self._is_shown = None, False
        session.timeout = _PATIENCE_S

    def check_there(self) -> None:
        """Raise `SessionNotFound` if the server says that there is no such session."""
        if self._is_shown and self._info is None:
            raise _not_found(self._session)

    @property
    def answers(self) -> tuple[str, str]:
        place = self._session.agent_url or ""
        return place, f"The agent is at {place}."

    def prepare(self) -> None:
        """The connection is there already."""

    def pieces(self, prompt: str) -> Iterator[str]:
        return self._session.stream(prompt)

    def answer(self, prompt: str) -> dict[str, Any]:
        session, answer = self._session, self._session.chat(prompt)
        who = {"session_id": session.session_id, "user_id": session.user_id, "remote": session.agent_url}
        return {**who, "response": answer}

    def recent(self, limit: int) -> tuple[list[dict[str, Any]], int]:
        shown = self._before()[-limit:]
        return shown, max(0, self._count() - len(shown))

    def said(self) -> list[str]:
        texts = [message["content"] for message in self._before() if message["role"] == "user"]
        return [text for text in texts if isinstance(text, str)]

    def history(self) -> list[dict[str, Any]]:
        return list(map(_shown, self._session.history()))

    def state(self) -> str:
        from praisonaiagents.cli.chat import state_of

        if not self._is_shown:
            return safe(f"Session {self._session.session_id}.")
        return state_of(self._session.session_id, None if self._info is None else self._count())

    def as_json(self) -> dict[str, Any]:
        who = {"session_id": self._session.session_id, "user_id": self._session.user_id}
        found = {**who, **(self._info or {}), "chat_history": self._session.history() if self._info else []}
        return {"session": found, "restored": self._info is not None, "remote": self._session.agent_url}

    def compact(self) -> str:
        return "the agent there sums up its sessions itself"

    def how_to_resume(self) -> str:
        from shlex import quote

        from praisonaiagents.storage.registry import masked

        place = f" --remote {quote(self._session.agent_url or '')}"
        note = " (with the login in its address, which is not shown here)" if masked(self._url) != self._url else ""
        return safe(f"praisonai session resume{place}{named(self._session.session_id, self._session.user_id)}{note}")

    def _before(self) -> list[dict[str, Any]]:
        """The newest messages that there were when the chat began."""
        if self._history is None:
            self._history = list(map(_shown, self._session.history(100))) if self._info else []
        return self._history

    def _count(self) -> int:
        count = (self._info or {}).get("message_count")
        return count if isinstance(count, int) else len(self._before())


def _not_found(session: Session) -> SessionNotFound:
    error = SessionNotFound(session.session_id, _user(session))
    error.args = (f"{error} at {session.agent_url}; start it: praisonai session start --remote URL ID",)
    return error


def _user(session: Session) -> str | None:
    """The user, if it is not the default one."""
    from praisonaiagents.model.ids import DEFAULT_USER

    return None if session.user_id == DEFAULT_USER else session.user_id


def _shown(message: dict[str, Any]) -> dict[str, Any]:
    """A message of a server that may be of another make."""
    calls = message.get("tool_calls")
    calls = [call for call in calls if _is_call(call)] if isinstance(calls, list) else []
    said = {"role": str(message.get("role", "?")), "content": message.get("content")}
    return {**message, **said, "tool_calls": calls}


def _is_call(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(call.get("function"), dict)


def _row(row: dict[str, Any]) -> list[str]:
    texts = [_text(row, name) for name in ("session_id", "title", "agent_name", "message_count")]
    return [*texts, _time(row, "updated_at")]


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return "-" if value in (None, "") else str(value)


def _time(row: dict[str, Any], name: str) -> str:
    try:
        return when(_text(row, name))
    except (ValueError, OverflowError):
        return _text(row, name)
