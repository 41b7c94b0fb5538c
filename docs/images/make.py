"""Makes `session.svg`: a real conversation in a real terminal, left and taken up again in a new process.

    python docs/images/make.py

Run it in the project's development environment. The folder it talks in is thrown away.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import pexpect
from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).with_name("session.svg")
PROMPT = r"> ?(?: |\x08)"


def chat(command: str, said: str, home: str) -> str:
    """What a terminal shows of one chat in which one thing is said."""
    environment = {"PRAISONAI_HOME": home, "PRAISONAI_MODEL": "offline", "PATH": str(Path(sys.executable).parent)}
    child = pexpect.spawn(
        f"praisonai {command}", env=environment | {"TERM": "xterm"}, encoding="utf-8", dimensions=(40, 88)
    )
    child.expect(PROMPT)
    child.send(f"{said}\r")
    child.expect(r"\r\n\r\n")
    answer = child.before.split("\n")[-1].rsplit("\r", 1)[-1]  # the sign of life before it was wiped away
    child.expect(PROMPT)
    child.sendeof()
    child.expect(pexpect.EOF)
    lines = [line for line in plain(child.before).split("\n") if line.startswith("Session kept")]
    return "\n".join([f"$ praisonai {command}", f"> {said}", plain(answer), *lines])


def plain(text: str) -> str:
    """Text without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", text).replace("\r\n", "\n").replace("\r", "\n").strip()


def listing(home: str) -> str:
    """What a terminal shows of the list of sessions."""
    environment = {"PRAISONAI_HOME": home, "PATH": str(Path(sys.executable).parent), "TERM": "xterm"}
    shown = pexpect.run("praisonai session list", env=environment, encoding="utf-8", dimensions=(40, 88))
    return f"$ praisonai session list\n{plain(shown)}"


def main() -> None:
    """Talk, and draw what was shown."""
    with tempfile.TemporaryDirectory() as home:
        parts = [
            chat("session start my-session", "My name is Alice and I love pizza", home),
            "# another process, another day",
            chat("session resume my-session", "What's my name?", home),
            listing(home),
        ]
    console = Console(record=True, width=88, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in parts:
        for line in part.split("\n"):
            style = "bold green" if line.startswith("$") else "dim" if line.startswith("#") else ""
            console.print(Text(line, style=style))
        console.print()
    svg = console.export_svg(title="praisonai")
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
