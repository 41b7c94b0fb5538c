"""A program in a pseudo-terminal, as a person at a keyboard sees it.

Wait for `PROMPT` before Ctrl-D: a terminal between two prompts takes the key for itself. Lines may be typed ahead.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import pexpect

WAIT_S = 60
"""For one thing to appear."""

PROMPT = r"[>❯›](?:[ \x08]|\x1b\[[0-9;?]*[A-Za-z])"
"""How the chat asks for the next line; a terminal library may move the cursor where a person sees a space."""


def open_terminal(command: Sequence[str]) -> pexpect.spawn:
    """Start `command` in a terminal of 50 lines and 200 columns that answers no queries about itself."""
    program, *arguments = command
    environment = os.environ | {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of a fork among threads; exec follows at once
        child = pexpect.spawn(
            program, arguments, env=environment, encoding="utf-8", dimensions=(50, 200), timeout=WAIT_S
        )
    child.delaybeforesend = None
    return child


def finish(child: pexpect.spawn) -> tuple[int, str]:
    """Wait for the end: the exit status, and what was shown since the last thing waited for."""
    child.expect(pexpect.EOF)
    return child.wait(), child.before
