"""Packages of somebody else's: installed as pip leaves them behind, and seen by a new Python process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PATIENCE_S = 60


def install(folder: Path, group: str, code: str, package: str, version: str = "1.2", **entry_points: str) -> None:
    """Write a package's one module, and the metadata that Python finds its entry points of this group by."""
    module = package.replace("-", "_")
    (folder / f"{module}.py").write_text(code, "utf-8")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = "\n".join(f"{name} = {value}" for name, value in entry_points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")


def elsewhere(folder: Path, module: str, code: str) -> str:
    """What a new process prints that has the packages in `folder`, and the names of one module of ours."""
    program = f"from {module} import *\nfrom praisonaiagents.errors import *\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
