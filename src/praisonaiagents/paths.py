"""Where things lie on disk. `PRAISONAI_HOME` moves everything, and is read each time, not once."""

from __future__ import annotations

import os


def get_data_dir() -> str:
    """`$PRAISONAI_HOME`, or `~/.praisonai`. Makes nothing."""
    return os.path.expanduser(os.environ.get("PRAISONAI_HOME") or "~/.praisonai")


def get_sessions_dir() -> str:
    """The folder of session files: `sessions` in the data folder. Makes nothing."""
    return os.path.join(get_data_dir(), "sessions")
