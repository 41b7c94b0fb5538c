"""A conversation in a terminal, or over a pipe.

In a terminal: the answer comes as it is made, Enter sends, Alt-Enter starts a new line, the arrow keys bring back what was
said in this session, Ctrl-C stops the answer and keeps the session, Ctrl-D leaves. Over a pipe: a line is a prompt, and the
answer is what is printed. With --json, each answer is one line of JSON.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli.output import print_json, print_messages, report, safe, wants_json
from praisonaiagents.errors import PraisonError

if TYPE_CHECKING:
    from praisonaiagents.agent.agent import Agent
    from praisonaiagents.session.data import SessionData

_INSTRUCTIONS = "You are a helpful assistant."
_SHOWN = 20
_HELP = """\
Enter sends, Alt-Enter starts a new line, Up brings back what you said.
Ctrl-C stops an answer, Ctrl-D leaves; the session stays.
/help     this
/history  the conversation so far
/model    the model that answers
/exit     leave"""


def converse(session: SessionData, *, new: bool) -> None:
    """Talk until the user leaves, or until standard input ends."""
    agent = _agent(session)
    if sys.stdin.isatty() and sys.stdout.isatty() and not wants_json():
        _in_terminal(agent, session, new=new)
        return
    for line in sys.stdin:
        if line.strip():
            _answer(agent, line.rstrip("\n"))


def one_turn(session: SessionData, prompt: str) -> None:
    """Say one thing and print the answer."""
    if not prompt.strip():
        raise click.UsageError("the prompt is empty")
    _answer(_agent(session), prompt)


def _agent(session: SessionData) -> Agent:
    from praisonaiagents.agent.agent import Agent

    return Agent(
        name=session.agent_name or "Assistant",
        instructions=session.metadata.get("instructions") or _INSTRUCTIONS,
        llm=session.metadata.get("model"),
        session_id=session.session_id or None,
        user_id=session.user_id,
    )


def _answer(agent: Agent, prompt: str) -> None:
    if wants_json():
        answer = agent.chat(prompt)
        print_json(
            {"session_id": agent.session_id, "user_id": agent.user_id, "model": agent.model_name, "response": answer}
        )
    else:
        _print_pieces(_thinking(agent.iter_stream(prompt)))


def _in_terminal(agent: Agent, session: SessionData, *, new: bool) -> None:
    click.echo(f"Session {session.session_id} {'started' if new else 'resumed'}. /help for help, Ctrl-D to leave.")
    shown = session.get_chat_history(_SHOWN)
    if shown:
        left_out = len(session.messages) - len(shown)
        click.echo(f"--- {left_out} earlier messages ---" if left_out else "--- the conversation so far ---")
        print_messages(shown)
    threading.Thread(target=_warm_up, args=(agent,), daemon=True).start()
    for prompt in _prompts(session):
        if prompt.startswith("/"):
            if not _command(agent, prompt):
                break
            continue
        _turn(agent, prompt)
    click.echo(f"Session kept. Go on with it: praisonai session resume {session.session_id}{_user_flag(session)}")


def _turn(agent: Agent, prompt: str) -> None:
    """One turn; neither Ctrl-C nor an error ends the chat."""
    try:
        _print_pieces(_thinking(agent.iter_stream(prompt)))
    except KeyboardInterrupt:
        click.echo("\n(stopped; what was answered is kept)")
    except PraisonError as exc:
        report(exc)


def _command(agent: Agent, text: str) -> bool:
    """A command of the chat. False if the chat is over."""
    name = text.split()[0]
    if name in ("/exit", "/quit", "/bye"):
        return False
    if name == "/history":
        print_messages(agent.chat_history)
    elif name == "/model":
        click.echo(agent.model_name)
    else:
        click.echo(_HELP if name == "/help" else f"No such command: {safe(name)}\n{_HELP}")
    return True


def _prompts(session: SessionData) -> Iterator[str]:
    """What the user types, until Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    said = InMemoryHistory([message.text() for message in session.messages if message.role == "user"])
    prompts: PromptSession[str] = PromptSession(history=said, key_bindings=keys)
    while True:
        try:
            text = prompts.prompt("> ").strip()
        except KeyboardInterrupt:
            click.echo("(Ctrl-D leaves)")
            continue
        except EOFError:
            return
        if text:
            yield text


def _thinking(pieces: Iterator[str]) -> Iterable[str]:
    """The pieces of an answer, with a moving sign of life until the first one is there."""
    if not sys.stdout.isatty():
        return pieces
    from rich.console import Console

    with Console().status("thinking"):
        first = next(pieces, None)
    return _after(first, pieces)


def _after(first: str | None, rest: Iterator[str]) -> Iterator[str]:
    if first is not None:
        yield first
        yield from rest


def _print_pieces(pieces: Iterable[str]) -> None:
    terminal = sys.stdout.isatty()
    for piece in pieces:
        click.echo(safe(piece, terminal), nl=False)
        sys.stdout.flush()
    click.echo()


def _warm_up(agent: Any) -> None:
    try:
        agent.warm_up()
    except PraisonError:
        return  # the first turn meets the same error, and reports it where it is seen


def _user_flag(session: SessionData) -> str:
    from praisonaiagents.model.ids import DEFAULT_USER

    return "" if session.user_id == DEFAULT_USER else f" --user {session.user_id}"
