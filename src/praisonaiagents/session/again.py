"""Saying it again: another wording, another answer, another model.

    fork = edit(store, "chat", 4, "And for two people?")       the question stands in the fork, nobody was asked yet
    fork = retry(store, "chat", ask).fork_id
    for turn in replay(store, "chat", ask): print(turn.before, turn.after)

What was said stays as it is: each works in a fork that ends before the user's message in question. `ask` is how a model is
asked: it is given the fork's id and what the user says, keeps both that and the answer in the fork, and returns the answer;
an agent over the same store does all of that:

    def ask(fork_id, content):
        with Agent("Assistant", llm="gpt-4o", session_id=fork_id, session_store=store) as agent:
            return agent.chat(content)

What a reader would get wrong: where `ask` fails, the fork stays, with all that was answered and the failed turn; the error
has a note that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from praisonaiagents.errors import ConfigError
from praisonaiagents.model.message import Content, Message
from praisonaiagents.session.branches import is_summary
from praisonaiagents.session.data import title_of
from praisonaiagents.session.hierarchy import HierarchicalSessionStore
from praisonaiagents.session.labels import ARCHIVED, PINNED
from praisonaiagents.session.numbered import numbered
from praisonaiagents.session.owned import owned

Ask = Callable[[str, Content], str]


class Answered(msgspec.Struct, frozen=True):
    """A question and two answers to it: the one that stands in the session, and the one that was given in the fork.

    message_index: of the question in the session. before: "" if there was no answer. model: who gave the first answer.
    """

    fork_id: str
    message_index: int
    question: Content
    before: str
    after: str
    model: str | None = None


def edit(
    store: HierarchicalSessionStore,
    session_id: str,
    message_index: int,
    new_text: Content,
    *,
    ask: Ask | None = None,
    title: str | None = None,
    user_id: str | None = None,
) -> str:
    """Fork the session before a user's message, let `new_text` stand there instead, and return the fork's id.

    ask: who is asked; without it the new text is the fork's last message. Raises `ConfigError` if that message is not the
    user's, `SessionNotFound`, and what `ask` raises.
    """
    if not new_text or (isinstance(new_text, str) and not new_text.strip()):
        raise ConfigError("the new text is empty: say something")
    fork = _fork_before(store, session_id, message_index, title, user_id)
    if ask is None:
        store.append(fork, [Message("user", new_text)], user_id=user_id)
    else:
        _answer(ask, fork, new_text)
    return fork


def retry(
    store: HierarchicalSessionStore,
    session_id: str,
    ask: Ask,
    *,
    title: str | None = None,
    user_id: str | None = None,
) -> Answered:
    """Ask the user's last message again, in a fork that ends before it.

    Raises `ConfigError` if the user has said nothing, `SessionNotFound`, and what `ask` raises.
    """
    messages = _messages(store, session_id, user_id)
    index = next((place for place in reversed(range(len(messages))) if _asks(messages[place])), None)
    if index is None:
        raise ConfigError(f"in session {session_id!r} the user has said nothing that could be asked again")
    fork = _fork_before(store, session_id, index, title, user_id)
    return _answered(fork, messages, index, _answer(ask, fork, messages[index].content))


def replay(
    store: HierarchicalSessionStore,
    session_id: str,
    ask: Ask,
    *,
    title: str | None = None,
    user_id: str | None = None,
) -> Iterator[Answered]:
    """Say all that the user said again, one after another, in a fork that begins before it; yield each as it is answered.

    Turns that failed are left out, as no model has seen them. Nothing happens before the first is asked for. Raises as
    `retry` does; what was answered by then is kept.
    """
    messages = _messages(store, session_id, user_id)
    turns = said(messages)
    if not turns:
        raise ConfigError(f"in session {session_id!r} the user has said nothing that could be asked again")
    fork = _fork_before(store, session_id, turns[0], title, user_id)
    for index in turns:
        yield _answered(fork, messages, index, _answer(ask, fork, messages[index].content))


def said(messages: Sequence[Message]) -> list[int]:
    """Indices of the user's messages, but for those of turns that failed."""
    failed = {message.run_id for message in messages if message.status == "failed" and message.run_id}
    return [index for index, message in enumerate(messages) if _asks(message) and message.run_id not in failed]


# Inside


def _asks(message: Message) -> bool:
    """True for what the user said."""
    return message.role == "user" and not is_summary(message)


def _messages(store: HierarchicalSessionStore, session_id: str, user_id: str | None) -> list[Message]:
    return store.engine.read(owned(store, session_id, user_id).key).messages


def _fork_before(
    store: HierarchicalSessionStore, session_id: str, index: int, title: str | None, user_id: str | None
) -> str:
    """A fork of all that was said before a user's message. Raises `ConfigError` for another message, `SessionNotFound`."""
    record = owned(store, session_id, user_id)
    found = store.engine.read(record.key, None, record.length)
    messages = found.messages
    if type(index) is not int or not 0 <= index < len(messages) or not _asks(messages[index]):
        raise ConfigError(_which(session_id, messages, index))
    number, _ = numbered(store.engine, record.key, found, record.length)[index]
    if number > found.first:
        return store.fork_session(session_id, number - found.first - 1, title, user_id=user_id)
    fork = store.create_session(
        title=title or f"Fork of {title_of(record) or session_id}",
        parent_id=session_id,
        agent_name=record.agent_name,
        metadata={name: value for name, value in record.metadata.items() if name not in (PINNED, ARCHIVED)},
        user_id=user_id,
    )
    if record.state:
        store.set_state(fork, record.state, user_id=user_id)
    return fork


def _which(session_id: str, messages: Sequence[Message], index: int) -> str:
    own = [str(place) for place, message in enumerate(messages) if _asks(message)]
    known = f"the user's messages are {', '.join(own[-10:])}" if own else "the user has said nothing"
    few = known if len(own) <= 10 else known.replace("are", "are ...,")
    return f"message {index!r} of session {session_id!r} is not one of the user's; {few}"


def _answer(ask: Ask, fork: str, content: Content) -> str:
    try:
        return ask(fork, content)
    except Exception as exc:
        exc.add_note(f"what was said by then is in the fork {fork!r}")
        raise


def _answered(fork: str, messages: Sequence[Message], index: int, after: str) -> Answered:
    """The question at `index` with both answers; the first is the last thing that was said before the next question."""
    rest = messages[index + 1 :]
    end = next((place for place, message in enumerate(rest) if message.role == "user"), len(rest))
    answers = [message for message in rest[:end] if message.role == "assistant" and message.status != "failed"]
    spoken = next((message for message in reversed(answers) if message.text()), None)
    return Answered(
        fork, index, messages[index].content, spoken.text() if spoken else "", after, spoken.model if spoken else None
    )
