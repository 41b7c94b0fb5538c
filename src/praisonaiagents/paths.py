"""Where things lie on disk. `PRAISONAI_HOME` moves everything, and is read each time, not once."""

from __future__ import annotations

import os
from pathlib import Path


def get_data_dir() -> Path:
    """`$PRAISONAI_HOME`, or `~/.praisonai`. Makes nothing."""
    home = os.environ.get("PRAISONAI_HOME")
    return Path(home).expanduser() if home else Path.home() / ".praisonai"


def get_sessions_dir() -> Path:
    """The folder of session files: `sessions` in the data folder. Makes nothing."""
    return get_data_dir() / "sessions"
