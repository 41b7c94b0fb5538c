"""Numbered SQL files, one folder per engine: `sqlite/0001_begin.sql`, `sqlite/0002_....sql`.

A file that was released is never edited: databases out there were made by it. A change is one more file.
"""

from __future__ import annotations

from importlib.resources import files


def migrations(engine_name: str) -> list[tuple[int, str, str]]:
    """(number, file name, text) of the SQL files of an engine, in the order in which they are applied."""
    folder = files(__name__) / engine_name
    found = [file for file in folder.iterdir() if file.name.endswith(".sql") and file.name[:4].isdigit()]
    return sorted((int(file.name[:4]), file.name, file.read_text("utf-8")) for file in found)
