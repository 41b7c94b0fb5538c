"""The SQL of the engines, one folder each.

Numbered files make the tables: `sqlite/0001_begin.sql`, `sqlite/0002_....sql`. A file that was released is never edited:
databases out there were made by it. A change is one more file. `statements.sql` holds what an engine asks, by name:

    -- name: owners
    -- The users who have a session of this id.
    SELECT user_id FROM session WHERE session_id = ?;

Read by the module's loader and not by `importlib.resources`, whose import takes longer than opening a database.
"""

from __future__ import annotations

import os
import re

_FOLDER = os.path.dirname(__file__)


def migrations(engine_name: str) -> list[tuple[int, str, str]]:
    """(number, file name, text) of the numbered files of an engine, in the order in which they are applied."""
    names = sorted(name for name in os.listdir(f"{_FOLDER}/{engine_name}") if re.fullmatch(r"\d{4}_\w+\.sql", name))
    return [(int(name[:4]), name, sql_file(engine_name, name)) for name in names]


def statements(engine_name: str) -> dict[str, str]:
    """The named statements of an engine, without comments."""
    _, *parts = re.split(r"^-- name: (\w+)$", sql_file(engine_name, "statements.sql"), flags=re.MULTILINE)
    return {name: _bare(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def sql_file(engine_name: str, name: str) -> str:
    """The text of one file of an engine."""
    with open(f"{_FOLDER}/{engine_name}/{name}", encoding="utf-8") as file:
        return file.read()


def _bare(text: str) -> str:
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("--"))
    return "\n".join(lines).rstrip("; \n")
