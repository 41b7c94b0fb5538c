"""A conversation in a terminal, or over a pipe.

In a terminal: the answer comes as it is made, Enter sends, Alt-Enter starts a new line, the arrow keys bring back what was
said in this session, Ctrl-C stops the answer and keeps the session, Ctrl-D leaves. Over a pipe: a line is a prompt, and the
answer is what is printed. With --json, each answer is one line of JSON.

What a reader would get wrong: the LLM library takes a second or two to load, so the chat loads it in a thread while the user
reads and types. No other thread may import any of it at that time (Python would hand out half of a module), so the first turn
waits for that thread.
"""

from __future__ import annotations

import itertools
import os
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click

from praisonaiagents.cli.output import (
    SignOfLife,
    is_dumb,
    is_terminal,
    print_json,
    print_messages,
    put,
    report,
    safe,
    wants_json,
)
from praisonaiagents.cli.place import command, named, store
from praisonaiagents.errors import PraisonError

if TYPE_CHECKING:
    from praisonaiagents.agent.agent import Agent
    from praisonaiagents.session.data import SessionData

_INSTRUCTIONS = "You are a helpful assistant."
_SHOWN = 20
_KEPT = 6  # messages that /compact leaves as they are
_SHOWN_OF_ONE = 4000  # characters
_HELP = """\
Enter sends, Alt-Enter starts a new line, Up brings back what you said.
Ctrl-C stops an answer, Ctrl-D leaves; the session stays.
/help     this
/history  the conversation so far
/model    the model that answers
/compact  let the model sum up all but the last turns, to be sent less; nothing is removed
/exit     leave"""


class InvalidInput(click.ClickException):
    """Standard input holds something that is not text."""


def converse(session: SessionData, *, new: bool) -> None:
    """Talk until the user leaves, or until standard input ends."""
    in_terminal = is_terminal(sys.stdin) and is_terminal(sys.stdout) and not wants_json()
    with agent_of(session) as agent:
        (_in_terminal if in_terminal else _over_pipe)(agent, session, new=new)


def one_turn(session: SessionData, prompt: str) -> None:
    """Say one thing and print the answer."""
    if not prompt.strip():
        raise click.UsageError("the prompt is empty")
    with agent_of(session) as agent:
        _answer(agent, prompt)


def piped_text() -> str:
    """All of standard input. In UTF-8 whatever the locale, so that a session means the same everywhere."""
    return "".join(_piped_lines()).strip()


def agent_of(session: SessionData) -> Agent:
    """The agent that goes on with a session, with the model and the instructions that the session keeps."""
    from praisonaiagents.agent.agent import Agent

    # the library greets programmers who use it; nobody here does
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")
    return Agent(
        name=session.agent_name or "Assistant",
        instructions=session.metadata.get("instructions") or _INSTRUCTIONS,
        llm=session.metadata.get("model"),
        memory={"auto_memory": session.metadata.get("remember") is True},
        session_id=session.session_id or None,
        user_id=session.user_id,
        session_store=store() if session.session_id else None,
    )


# --- over a pipe ---


def _over_pipe(agent: Agent, session: SessionData, *, new: bool) -> None:
    """Answer each line. The first failure ends it: the next line may rely on the answer that is missing."""
    if is_terminal(sys.stdin):
        click.echo("Each line is a prompt, Ctrl-D ends.", err=True)
    spoken = False
    for line in _piped_lines():
        if line.strip():
            spoken = True
            _answer(agent, line.rstrip("\r\n"))
    if not spoken:
        _where_it_stands(session, new=new)


def _piped_lines() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer if sys.stdin else (), start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as exc:
            raise InvalidInput(f"line {number} of standard input is not UTF-8 text") from exc


def _answer(agent: Agent, prompt: str) -> None:
    if wants_json():
        answer = agent.chat(prompt)
        print_json(
            {"session_id": agent.session_id, "user_id": agent.user_id, "model": agent.model_name, "response": answer}
        )
    else:
        print_pieces(agent.iter_stream(prompt))


def _where_it_stands(session: SessionData, *, new: bool) -> None:
    """What a session is, for who said nothing in it."""
    if wants_json():
        from praisonaiagents.cli.sessions import as_json

        print_json({"session": as_json(session), "restored": not new})
    else:
        print_messages(session.get_chat_history(_SHOWN))
        click.echo(f"{_state(session, new=new)} Go on with it: {how_to_resume(session)}", err=True)


# --- in a terminal ---


def _in_terminal(agent: Agent, session: SessionData, *, new: bool) -> None:
    model = agent.model_name  # said now, because choosing one may print a note, and later that would be in the way
    keyboard = _keyboard(session)
    loading = threading.Thread(target=_load, args=(agent,), daemon=True)
    loading.start()
    _print_so_far(session)
    click.echo(f"{_state(session, new=new)} The model is {model}.")
    click.echo("Type a message, Enter sends it. /help shows more, Ctrl-D leaves and keeps all.\n")
    with _typing_ahead():
        for prompt in _prompts(keyboard):
            if not _is_command(prompt):
                _turn(_after(loading, agent.iter_stream(prompt)))
            elif not _command(agent, session, prompt):
                break
    click.echo(f"Session kept. Go on with it: {how_to_resume(session)}")


@contextmanager
def _typing_ahead() -> Iterator[None]:
    """What is typed while an answer comes waits for the next prompt, Ctrl-D too, and does not show up in the answer."""
    if is_dumb():
        yield
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    quiet = list(before)
    quiet[0] &= ~termios.ICRNL  # a pasted line end stays what it was
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(keyboard, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)


def _load(agent: Agent) -> None:
    try:
        agent.warm_up()
    except Exception:
        return  # the first turn meets the same error, and reports it where it is seen


def _print_so_far(session: SessionData) -> None:
    shown = session.get_chat_history(_SHOWN)
    if shown:
        left_out = len(session.messages) - len(shown)
        click.echo(f"--- {left_out} earlier messages, /history shows them ---" if left_out else "--- so far ---")
        print_messages(shown, _SHOWN_OF_ONE)
        click.echo("---")


def _turn(pieces: Iterator[str]) -> None:
    """One turn; neither Ctrl-C nor an error ends the chat."""
    try:
        print_pieces(pieces)
    except KeyboardInterrupt:
        click.echo("\n(stopped; what was answered is kept)")
    except PraisonError as exc:
        report(exc)
    click.echo()


def _is_command(text: str) -> bool:
    """`/help`, but not `/usr/bin/env fails`."""
    name = text.split()[0]
    return name.startswith("/") and "/" not in name[1:]


def _command(agent: Agent, session: SessionData, text: str) -> bool:
    """A command of the chat. False if the chat is over."""
    name = text.split()[0]
    if name in ("/exit", "/quit", "/bye"):
        return False
    if name == "/history":
        print_messages(store().get_chat_history(session.session_id, user_id=session.user_id))
    elif name == "/model":
        click.echo(agent.model_name)
    elif name == "/compact":
        _sum_up(agent)
    else:
        click.echo(_HELP if name == "/help" else f"No such command: {safe(name)}\n{_HELP}")
    return True


def _sum_up(agent: Agent) -> None:
    try:
        with SignOfLife("summing up") if not is_dumb() else nullcontext():
            done = agent.compact(_KEPT)
    except KeyboardInterrupt:
        click.echo("\n(stopped; nothing was changed)")
    except PraisonError as exc:
        report(exc)
    else:
        click.echo(f"(summed up {done.messages:,} messages)" if done else "(there is nothing to sum up)")


def _keyboard(session: SessionData) -> Callable[[str], str]:
    """Asks for a message, as `input` does, and does more where the terminal can."""
    if is_dumb():
        return input
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    said = InMemoryHistory([message.text() for message in session.messages if message.role == "user"])
    return PromptSession[str](history=said, key_bindings=keys).prompt


def _prompts(keyboard: Callable[[str], str]) -> Iterator[str]:
    """What the user types, until Ctrl-D."""
    while True:
        try:
            text = keyboard("> ").strip()
        except KeyboardInterrupt:
            click.echo("(Ctrl-D leaves)")
            continue
        except EOFError:
            return
        if text:
            yield text


# --- both ---


def _after(loading: threading.Thread, pieces: Iterator[str]) -> Iterator[str]:
    loading.join()
    yield from pieces


def print_pieces(pieces: Iterator[str]) -> None:
    """Print an answer as it comes, with a moving sign of life until there is something to print."""
    if is_terminal(sys.stdout) and not is_dumb():
        with SignOfLife("thinking"):
            first = next(pieces, "")
        pieces = itertools.chain([first], pieces)
    for piece in pieces:
        put(piece, end=False)
    click.echo()


def _state(session: SessionData, *, new: bool) -> str:
    count = len(session.messages)
    so_far = f"resumed ({count} message{'' if count == 1 else 's'})"
    return safe(f"Session {session.session_id} {'started' if new else so_far}.")


def how_to_resume(session: SessionData) -> str:
    """The command that goes on with the session, as a shell takes it."""
    return safe(command("session resume", after=named(session.session_id, session.user_id)))
