"""Every snippet of the README, the docs and the examples is run: a document that no longer tells the truth fails.

Python blocks of one document run one after another, each in a new process, in one home folder; the commands of its bash blocks
run between them, in order. The README's two set-up commands are run by `.ci/run`, in a fresh environment.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import forked
import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
_BLOCK = re.compile(r"^```(python|bash|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SET_UP = re.compile(r"<!-- (?:run|test) -->.*?<!-- end -->", re.DOTALL)


def blocks(document: Path) -> list[tuple[str, str]]:
    """(language, code) of every block that can be run, in order."""
    return _BLOCK.findall(_SET_UP.sub("", document.read_text()))


def run(command: list[str], home: Path) -> str:
    """Run a command with nothing configured but the offline model; its output."""
    keys = [name for name in os.environ if name.endswith("_API_KEY")]
    environment = {name: value for name, value in os.environ.items() if name not in keys}
    scripts = Path(sys.executable).parent
    environment |= {"PRAISONAI_HOME": str(home), "PRAISONAI_MODEL": "offline", "PYTHONWARNINGS": "error"}
    environment["PATH"] = f"{scripts}{os.pathsep}{environment['PATH']}"
    if command[0] == sys.executable:
        done = forked.run(command[1:], env=environment, cwd=home)
    else:
        done = subprocess.run(
            command, env=environment, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def commands(code: str) -> list[str]:
    """The commands of a shell block; of a console block, what follows the prompt."""
    lines = [line.removeprefix("$ ").removeprefix(".venv/bin/") for line in code.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document(document: Path, tmp_path: Path) -> None:
    for language, code in blocks(document):
        if "pip install" in code:
            continue  # installing is what `.ci/run` and the acceptance tests do
        if language == "python":
            run([sys.executable, "-c", code], tmp_path)
        else:
            for command in commands(code):
                run(["bash", "-c", command], tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs_twice(example: Path, tmp_path: Path) -> None:
    assert run([sys.executable, str(example)], tmp_path)
    assert run([sys.executable, str(example)], tmp_path)


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            assert "://" in link or (document.parent / link).exists(), f"{document.name}: {link}"


def test_there_is_something_to_run() -> None:
    assert sum(len(blocks(document)) for document in DOCUMENTS) > 15
    assert len(EXAMPLES) >= 3
