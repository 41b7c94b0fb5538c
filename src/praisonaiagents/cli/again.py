"""`praisonai session edit`, `retry` and `replay`: another wording, another answer, another model, each in a fork."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli.chat import agent_of, how_to_resume, print_pieces
from praisonaiagents.cli.history import hierarchy
from praisonaiagents.cli.output import (
    SignOfLife,
    bold,
    is_dumb,
    is_terminal,
    json_option,
    message_text,
    print_json,
    print_table,
    safe,
    wants_json,
)
from praisonaiagents.cli.place import db_option, store
from praisonaiagents.cli.sessions import llm_option, open_session, session_id_argument, user_option
from praisonaiagents.errors import PraisonError

if TYPE_CHECKING:
    from praisonaiagents.agent.agent import Agent
    from praisonaiagents.model.message import Content
    from praisonaiagents.session.again import Answered


@click.command()
@session_id_argument
@click.argument("text")
@click.option(
    "--at", "index", type=click.IntRange(min=0), required=True, metavar="N", help="The user's message; the first is 0."
)
@click.option("--no-ask", is_flag=True, help="Leave the text as the fork's last message, without an answer.")
@llm_option
@user_option
@db_option
@json_option
def edit(session_id: str, text: str, index: int, no_ask: bool, llm: str | None, user: str | None) -> None:
    """Say TEXT instead of message N: in a fork that ends before it, and ask for the answer.

    The session itself stays as it is. 'session show ID' and 'session search' tell the numbers of messages.
    """
    from praisonaiagents.session.again import edit as say_instead

    opened = hierarchy(session_id, user)
    with _asking(llm, user) as ask:
        fork = say_instead(opened, session_id, index, text, ask=None if no_ask else ask, user_id=user)
        _print_fork(session_id, fork, user, {"message_index": index, "model": ask.model, "response": ask.answer})


@click.command()
@session_id_argument
@llm_option
@user_option
@db_option
@json_option
def retry(session_id: str, llm: str | None, user: str | None) -> None:
    """Ask the last message again, in a fork, on the same model or on another one."""
    from praisonaiagents.session.again import retry as ask_again

    opened = hierarchy(session_id, user)
    with _asking(llm, user) as ask:
        done = ask_again(opened, session_id, ask, user_id=user)
        values = {
            "message_index": done.message_index,
            "model": ask.model,
            "response": done.after,
            "before": done.before,
        }
        _print_fork(session_id, done.fork_id, user, values)


@click.command()
@session_id_argument
@click.option("--llm", "-m", metavar="MODEL", required=True, help="The model that is asked this time.")
@user_option
@db_option
@json_option
def replay(session_id: str, llm: str, user: str | None) -> None:
    """Say all that the user said again to another model, in a fork, and show both answers side by side.

    What tools the session's agent had is not known here: the other model has none.
    """
    from praisonaiagents.session.again import replay as say_again
    from praisonaiagents.session.again import said

    opened = hierarchy(session_id, user)
    with _asking(llm, user, questions=len(said(opened.messages(session_id, user_id=user or "")))) as ask:
        turns = []
        for turn in say_again(opened, session_id, ask, user_id=user):
            turns.append(turn)
            _print_turn(turn, ask, is_first=len(turns) == 1)
        values = {"model": ask.model, "turns": [_as_json(turn) for turn in turns]}
        _print_fork(session_id, turns[-1].fork_id, user, values)


class _Asking:
    """How the command line asks in a fork: with the settings that the fork has from its session, but for the model.

    questions: how many there will be; then it is told how far it is, and an answer is shown only when all of it is there.
    """

    def __init__(self, llm: str | None, user: str | None, stack: ExitStack, questions: int | None) -> None:
        self._llm = llm
        self._user = user
        self._stack = stack
        self._questions = questions
        self._asked = 0
        self._agent: Agent | None = None
        self.answer: str | None = None

    @property
    def model(self) -> str | None:
        """The model that was asked; None if none was."""
        return self._agent.model_name if self._agent else None

    def __call__(self, fork: str, content: Content) -> str:
        if self._agent is None:
            self._agent = self._stack.enter_context(agent_of(open_session(fork, self._user, llm=self._llm)))
        try:
            self.answer = self._ask(self._agent, content)
        except PraisonError as exc:
            exc.args = (f"{exc}; what was said by then is in the fork {fork}", *exc.args[1:])
            raise
        return self.answer

    def _ask(self, agent: Agent, content: Content) -> str:
        self._asked += 1
        if wants_json():
            return agent.chat(content)
        if self._questions is not None:
            doing = f"asking, {self._asked} of {self._questions}"
            with SignOfLife(doing) if is_terminal(sys.stdout) and not is_dumb() else nullcontext():
                return agent.chat(content)
        pieces: list[str] = []
        print_pieces(_kept(agent.iter_stream(content), pieces))
        return "".join(pieces)


@contextmanager
def _asking(llm: str | None, user: str | None, *, questions: int | None = None) -> Iterator[_Asking]:
    """What asks, with an agent that is closed in the end. A model nobody knows is refused before anything is made."""
    if llm:
        from praisonaiagents.agent.models import choose_model

        choose_model(llm)
    with ExitStack() as stack:
        yield _Asking(llm, user, stack, questions)


def _kept(pieces: Iterator[str], kept: list[str]) -> Iterator[str]:
    for piece in pieces:
        kept.append(piece)
        yield piece


def _print_fork(session_id: str, fork: str, user: str | None, values: dict[str, Any]) -> None:
    found = store().get_session(fork, user_id=user or "")
    if wants_json():
        print_json({"session_id": fork, "parent_id": session_id, "user_id": found.user_id} | values)
    else:
        click.echo(f"Fork: {fork}. Go on with it: {how_to_resume(found)}", err=True)


def _print_turn(turn: Answered, ask: _Asking, *, is_first: bool) -> None:
    if wants_json():
        return
    question = message_text({"role": "user", "content": turn.question}).partition("] ")[2]
    if not is_terminal(sys.stdout):
        print_table([], [[str(turn.message_index), question, turn.before, turn.after]])
        return
    from praisonaiagents.cli.columns import print_rule, print_side_by_side

    if is_first:
        print_side_by_side(f"before: {turn.model or 'unknown'}", f"now: {ask.model}", is_head=True)
    print_rule()
    click.echo(bold(safe(f"> {question}")))
    print_side_by_side(turn.before or "(no answer)", turn.after)


def _as_json(turn: Answered) -> dict[str, Any]:
    fields = ("message_index", "question", "before", "after")
    return {name: getattr(turn, name) for name in fields} | {"model_before": turn.model}
