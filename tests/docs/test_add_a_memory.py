"""The memory adapter that the documentation shows: it is taken from there, keeps the contract, and is installed as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-memory.md"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the document's modules, installed as its `pyproject.toml` would."""
    shown = re.findall(r"^```py\n# (\w+\.py)\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in shown] == ["folder_memory.py", "test_folder_memory.py", "use.py"]
    folder = tmp_path / "package"
    info = folder / "folder_memory-1.0.dist-info"
    info.mkdir(parents=True)
    for name, code in shown:
        (folder / name).write_text(code, "utf-8")
    [toml] = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    [(group, names)] = tomllib.loads(toml)["project"]["entry-points"].items()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: folder-memory\nVersion: 1.0\n")
    lines = "\n".join(f"{name} = {value}" for name, value in names.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")
    return folder


def run(package: Path, *arguments: str) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(package),
        "PRAISONAI_MODEL": "offline",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_keeps_the_contract(package: Path) -> None:
    done = run(
        package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(package), "test_folder_memory.py"
    )
    assert re.search(r"^1\d\d passed", done, re.MULTILINE)


def test_an_agent_finds_it_by_its_name(package: Path) -> None:
    assert "Your name is Alice" in run(package, "use.py")
    assert len(list((package / "memories").glob("*.json"))) == 1
