"""Makes session.svg: what a terminal really shows of a conversation that is left and resumed.

    python docs/images/make.py

It types into a real shell, in a terminal that tmux emulates, with the built-in offline model and an empty home, and draws
what is on the screen at the end. It needs tmux, rich (`pip install rich`) and this package.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS, LINES = 82, 40
PATIENCE_S = 60
FONTS = "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"
FONT_FACES = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
STEPS = [
    ("praisonai session start my-session", "Ctrl-D leaves"),
    ("My name is Alice and I love pizza", "Noted"),
    ("C-d", "Session kept"),
    ("praisonai session resume my-session", "resumed"),
    ("What's my name?", "Your name is Alice"),
    ("C-d", "Session kept"),
    ("praisonai session list", "Updated"),
]
"""What is typed, and a part of the answer to it."""


def main() -> None:
    screen = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    screen.print(Text.from_ansi(_session()))
    svg = screen.export_svg(title="praisonai", theme=MONOKAI, unique_id="session")
    svg = FONT_FACES.sub("", svg).replace("Fira Code, monospace", FONTS)
    Path(__file__).with_name("session.svg").write_text(svg, encoding="utf-8")


def _session() -> str:
    """The screen after all steps, with its escape sequences."""
    with tempfile.TemporaryDirectory() as home:
        variables = {"PRAISONAI_HOME": home, "PRAISONAI_MODEL": "offline", "TERM": "screen", "LANG": "C.UTF-8"}
        path = f"PATH={Path(sys.executable).parent}:/usr/bin:/bin"
        shell = [
            "env",
            "-i",
            path,
            *(f"{name}={value}" for name, value in variables.items()),
            "PS1=$ ",
            "bash",
            "--norc",
        ]
        _tmux("-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), *shell)
        try:
            _wait_for("$", 1)
            for keys, answer in STEPS:
                _type(keys, answer)
            return _tmux("capture-pane", "-e", "-p").rstrip()
        finally:
            _tmux("kill-server")


def _type(keys: str, answer: str) -> None:
    seen = _screen().count(answer)
    _tmux("send-keys", *([keys] if keys == "C-d" else [keys, "Enter"]))
    _wait_for(answer, seen + 1)


def _wait_for(text: str, times: int) -> None:
    """Wait until the screen shows `text` that often, and a prompt below it."""
    deadline = time.monotonic() + PATIENCE_S
    while _screen().count(text) < times or _screen().splitlines()[-1] not in ("$", ">"):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {text!r} on:\n{_screen()}")
        time.sleep(0.1)


def _screen() -> str:
    return _tmux("capture-pane", "-p").rstrip() or " "


def _tmux(*arguments: str) -> str:
    command = ["tmux", "-L", "praisonai-picture", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


if __name__ == "__main__":
    main()
