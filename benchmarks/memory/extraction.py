"""Extraction by rules, message by message, against what the labels say.

A labelled fact is found if its message gives a fact whose text holds all words of the label; a word with a minus in front must
not occur ("likes hiking -not"). Each extracted fact answers one label at most, and what answers none is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.memory.labels import Label, Message
from praisonaiagents.memory.facts import Fact
from praisonaiagents.memory.rules import extract


class Extracted(NamedTuple):
    """What the rules gave for some messages. `slotted`: of the facts that were found, how many are in the labelled slot."""

    expected: int
    given: int
    found: int
    slotted: int
    silent: int
    quiet: int
    missed: list[str]
    wrong: list[str]

    @property
    def recall(self) -> float:
        return self.found / self.expected

    @property
    def precision(self) -> float:
        return self.found / self.given if self.given else 1.0


def measure(messages: Sequence[Message]) -> Extracted:
    expected = given = found = slotted = silent = quiet = 0
    missed: list[str] = []
    wrong: list[str] = []
    for message in messages:
        facts = extract(message.says)
        expected, given = expected + len(message.facts), given + len(facts)
        silent += not message.facts
        quiet += not message.facts and not facts
        left = list(facts)
        for label in message.facts:
            answer = next((fact for fact in left if fits(fact, label)), None)
            if answer is None:
                missed.append(label.text)
                continue
            left.remove(answer)
            found += 1
            slotted += answer.slot == label.slot
        wrong += [fact.text for fact in left]
    return Extracted(expected, given, found, slotted, silent, quiet, missed, wrong)


def fits(fact: Fact, label: Label) -> bool:
    text = fact.text.casefold()
    return all((word.removeprefix("-") in text) != word.startswith("-") for word in label.words)
