"""What the figures were measured on, in a few words; without that they mean nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version


def describe() -> dict[str, str]:
    """Names and values, none of which tells where anything lies on this machine."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores, load {load}",
        "system": f"{platform.system()} {platform.release()}, file system {_file_system(tempfile.gettempdir())}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "packages": ", ".join(f"{name} {version(name)}" for name in ("praisonaiagents", "msgspec", "click")),
    }


def _processor() -> str:
    for line in _lines_of("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _file_system(folder: str) -> str:
    """The kind of the file system that holds a folder, where the system tells (Linux)."""
    mounts = [line.split() for line in _lines_of("/proc/mounts")]
    under = [
        (mount[1], mount[2]) for mount in mounts if os.path.commonpath((mount[1], os.path.realpath(folder))) == mount[1]
    ]
    return max(under, key=lambda mount: len(mount[0]), default=("", "unknown"))[1]


def _lines_of(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []
