"""A conversation in a terminal, or over a pipe.

In a terminal: the answer comes as it is made, Enter sends, Alt-Enter starts a new line, the arrow keys bring back what was
said in this session, Ctrl-C stops the answer and keeps the session, Ctrl-D leaves. Over a pipe: a line is a prompt, and the
answer is what is printed. With --json, each answer is one line of JSON. Who answers is a `Talk`: an agent of this process, or
one on another machine (see `remote`).

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
from typing import TYPE_CHECKING, Any, Protocol

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
/model    what answers
/compact  let the model sum up all but the last turns, to be sent less; nothing is removed
/exit     leave"""

Messages = list[dict[str, Any]]


class InvalidInput(click.ClickException):
    """Standard input holds something that is not text."""


class Talk(Protocol):
    """Who answers in a chat, and what the chat tells about the session."""

    @property
    def answers(self) -> tuple[str, str]:
        """(who answers, that as a sentence). Asking for it may print a note."""

    def prepare(self) -> None:
        """What would delay the first answer; called in a thread of its own."""

    def pieces(self, prompt: str) -> Iterator[str]:
        """The answer as it comes."""

    def answer(self, prompt: str) -> dict[str, Any]:
        """The whole answer, as `--json` prints it."""

    def recent(self, limit: int) -> tuple[Messages, int]:
        """The last messages there were when the chat began, and how many there were before them."""

    def said(self) -> list[str]:
        """What the user said before, oldest first."""

    def history(self) -> Messages:
        """The conversation as it is now."""

    def state(self) -> str:
        """How the session stands, as a sentence."""

    def as_json(self) -> dict[str, Any]:
        """How the session stands, as `--json` prints it."""

    def compact(self) -> str:
        """Sum up the older part; a sentence about what was done."""

    def how_to_resume(self) -> str:
        """The command that goes on with the session, as a shell takes it."""


def converse(session: SessionData, *, new: bool) -> None:
    """Talk until the user leaves, or until standard input ends."""
    with agent_of(session) as agent:
        talk(_LocalTalk(agent, session, new=new))


def one_turn(session: SessionData, prompt: str) -> None:
    """Say one thing and print the answer."""
    check_prompt(prompt)
    with agent_of(session) as agent:
        say(_LocalTalk(agent, session, new=False), prompt)


def talk(with_: Talk) -> None:
    """Talk until the user leaves, or until standard input ends."""
    in_terminal = is_terminal(sys.stdin) and is_terminal(sys.stdout) and not wants_json()
    (_in_terminal if in_terminal else _over_pipe)(with_)


def say(to: Talk, prompt: str) -> None:
    """Say one thing and print the answer."""
    if wants_json():
        print_json(to.answer(prompt))
    else:
        print_pieces(to.pieces(prompt))


def check_prompt(prompt: str) -> None:
    """Raise `UsageError` where nothing is said."""
    if not prompt.strip():
        raise click.UsageError("the prompt is empty")


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


class _LocalTalk:
    """With an agent of this process."""

    def __init__(self, agent: Agent, session: SessionData, *, new: bool) -> None:
        self._agent = agent
        self._session = session
        self._new = new

    @property
    def answers(self) -> tuple[str, str]:
        name = self._agent.model_name
        return name, f"The model is {name}."

    def prepare(self) -> None:
        self._agent.warm_up()

    def pieces(self, prompt: str) -> Iterator[str]:
        return self._agent.iter_stream(prompt)

    def answer(self, prompt: str) -> dict[str, Any]:
        agent, answer = self._agent, self._agent.chat(prompt)
        return {"session_id": agent.session_id, "user_id": agent.user_id, "model": agent.model_name, "response": answer}

    def recent(self, limit: int) -> tuple[Messages, int]:
        shown = self._session.get_chat_history(limit)
        return shown, len(self._session.messages) - len(shown)

    def said(self) -> list[str]:
        return [message.text() for message in self._session.messages if message.role == "user"]

    def history(self) -> Messages:
        return store().get_chat_history(self._session.session_id, user_id=self._session.user_id)

    def state(self) -> str:
        return state_of(self._session.session_id, None if self._new else len(self._session.messages))

    def as_json(self) -> dict[str, Any]:
        from praisonaiagents.cli.sessions import as_json

        return {"session": as_json(self._session), "restored": not self._new}

    def compact(self) -> str:
        done = self._agent.compact(_KEPT)
        return f"summed up {done.messages:,} messages" if done else "there is nothing to sum up"

    def how_to_resume(self) -> str:
        return how_to_resume(self._session)


# --- over a pipe ---


def _over_pipe(with_: Talk) -> None:
    """Answer each line. The first failure ends it: the next line may rely on the answer that is missing."""
    if is_terminal(sys.stdin):
        click.echo("Each line is a prompt, Ctrl-D ends.", err=True)
    spoken = False
    for line in _piped_lines():
        if line.strip():
            spoken = True
            say(with_, line.rstrip("\r\n"))
    if not spoken:
        _where_it_stands(with_)


def _piped_lines() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer if sys.stdin else (), start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as exc:
            raise InvalidInput(f"line {number} of standard input is not UTF-8 text") from exc


def _where_it_stands(with_: Talk) -> None:
    """What a session is, for who said nothing in it."""
    if wants_json():
        print_json(with_.as_json())
    else:
        print_messages(with_.recent(_SHOWN)[0])
        click.echo(f"{with_.state()} Go on with it: {with_.how_to_resume()}", err=True)


# --- in a terminal ---


def _in_terminal(with_: Talk) -> None:
    # asked for now, because choosing a model may print a note, and later that would be in the way
    name, sentence = with_.answers
    keyboard = _keyboard(with_)
    loading = threading.Thread(target=_load, args=(with_,), daemon=True)
    loading.start()
    _print_so_far(with_)
    click.echo(f"{with_.state()} {sentence}")
    click.echo("Type a message, Enter sends it. /help shows more, Ctrl-D leaves and keeps all.\n")
    with _typing_ahead():
        for prompt in _prompts(keyboard):
            if not _is_command(prompt):
                _turn(_after(loading, with_.pieces(prompt)))
            elif not _command(with_, name, prompt):
                break
    click.echo(f"Session kept. Go on with it: {with_.how_to_resume()}")


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


def _load(with_: Talk) -> None:
    try:
        with_.prepare()
    except Exception:
        return  # the first turn meets the same error, and reports it where it is seen


def _print_so_far(with_: Talk) -> None:
    shown, left_out = with_.recent(_SHOWN)
    if shown:
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


def _command(with_: Talk, answering: str, text: str) -> bool:
    """A command of the chat. False if the chat is over."""
    name = text.split()[0]
    if name in ("/exit", "/quit", "/bye"):
        return False
    if name == "/history":
        _show_history(with_)
    elif name == "/model":
        click.echo(answering)
    elif name == "/compact":
        _sum_up(with_)
    else:
        click.echo(_HELP if name == "/help" else f"No such command: {safe(name)}\n{_HELP}")
    return True


def _show_history(with_: Talk) -> None:
    try:
        print_messages(with_.history())
    except PraisonError as exc:
        report(exc)


def _sum_up(with_: Talk) -> None:
    try:
        with SignOfLife("summing up") if not is_dumb() else nullcontext():
            done = with_.compact()
    except KeyboardInterrupt:
        click.echo("\n(stopped; nothing was changed)")
    except PraisonError as exc:
        report(exc)
    else:
        click.echo(f"({done})")


def _keyboard(with_: Talk) -> Callable[[str], str]:
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

    return PromptSession[str](history=InMemoryHistory(with_.said()), key_bindings=keys).prompt


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


def state_of(session_id: str, count: int | None) -> str:
    """How a session stands. count: of its messages; None: it is new."""
    so_far = f"resumed ({count} message{'' if count == 1 else 's'})"
    return safe(f"Session {session_id} {'started' if count is None else so_far}.")


def how_to_resume(session: SessionData) -> str:
    """The command that goes on with the session, as a shell takes it."""
    return safe(command("session resume", after=named(session.session_id, session.user_id)))
