"""A new Python process: what was only in this one's memory is not there."""

from __future__ import annotations

import json
from collections.abc import Mapping

import forked

from .page import TIMEOUT_S

_ASK = """
import json, sys
from praisonaiagents import Agent

memory, question = json.load(sys.stdin)
print(Agent(name="Assistant", memory=memory).start(question))
"""


def ask_elsewhere(memory: Mapping[str, object], question: str) -> str:
    """What an Agent with this `memory=` answers in a new process."""
    done = forked.run(["-c", _ASK], input=json.dumps([memory, question]), timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout
