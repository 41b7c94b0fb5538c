"""Session ids made for people who did not choose one. What is only needed to make one is imported when one is made."""

from __future__ import annotations

import os


def new_session_id(agent_name: str) -> str:
    """A new id that sorts by the hour and tells agents apart: `2026112209-3b5d1c-9f8e7a6b`."""
    from datetime import UTC, datetime

    hour = datetime.now(UTC).strftime("%Y%m%d%H")
    return f"{hour}-{_digest(agent_name)[:6]}-{os.urandom(4).hex()}"


def history_session_id(agent_name: str) -> str:
    """The same id each time for one agent in one project, wherever in the project it runs."""
    return f"history_{_digest(f'{workspace()}:{agent_name}')[:8]}"


def workspace() -> str:
    """What project this is: `git:` and its first commit, else `dir:` and the working folder.

    "global" if `PRAISONAI_GLOBAL_SESSIONS` is 1, true or yes.
    """
    if os.environ.get("PRAISONAI_GLOBAL_SESSIONS", "").lower() in ("1", "true", "yes"):
        return "global"
    import subprocess

    try:
        found = subprocess.run(
            ["git", "rev-list", "--max-parents=0", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        found = []
    return f"git:{found[-1]}" if found else f"dir:{os.path.realpath(os.getcwd())}"


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()
