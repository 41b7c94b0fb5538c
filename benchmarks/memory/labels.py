"""The labelled set: what two people said to an assistant, what of it is to be remembered, and questions about it.

`conversations.jsonl`: one message a line, in order. `queries.jsonl`: one question a line, with the ids of the facts that answer
it. `part` is "made" for what the rules were made with, "held" for what they were not.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

FOLDER = Path(__file__).parent
PARTS = ("made", "held")


class Label(msgspec.Struct, frozen=True):
    """A fact to be remembered. words: see `extraction`."""

    id: str
    slot: str | None
    text: str
    words: list[str]


class Message(msgspec.Struct, frozen=True):
    """What a user says, and the facts in it: none if it is there to mislead."""

    part: str
    user: str
    session: str
    says: str
    facts: list[Label]


class Query(msgspec.Struct, frozen=True):
    """A question, and the facts that answer it. paraphrase: it shares hardly a word with them."""

    part: str
    user: str
    query: str
    answers: list[str]
    paraphrase: bool


def messages() -> list[Message]:
    return [msgspec.json.decode(line, type=Message) for line in _lines("conversations.jsonl")]


def queries() -> list[Query]:
    return [msgspec.json.decode(line, type=Query) for line in _lines("queries.jsonl")]


def _lines(name: str) -> list[bytes]:
    return (FOLDER / name).read_bytes().splitlines()
