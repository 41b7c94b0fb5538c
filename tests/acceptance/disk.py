"""What lies on the disk, read with nothing but `json`: the tests don't ask the code under test what it stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Disk:
    """`home` stands for `~/.praisonai`; `work` is the current folder. Both are the test's own."""

    home: Path
    work: Path

    def path(self, session_id: str, user: str | None = None) -> Path:
        """Where the session of the default user, or of `user`, is stored. It need not exist."""
        folder = self.home / "sessions"
        return (folder / "users" / user if user else folder) / f"{session_id}.json"

    def session(self, session_id: str, user: str | None = None) -> dict[str, Any]:
        """The stored session, which must be one valid JSON object with the keys that the format promises."""
        found = json.loads(self.path(session_id, user).read_text(encoding="utf-8"))
        assert {"session_id", "user_id", "messages", "message_count", "updated_at"} <= set(found)
        assert found["session_id"] == session_id
        assert found["message_count"] == len(found["messages"])
        return dict(found)

    def turns(self, session_id: str, user: str | None = None) -> list[tuple[str, str]]:
        """(role, content) of every stored message, oldest first."""
        return [(message["role"], message["content"]) for message in self.session(session_id, user)["messages"]]

    def last(self, session_id: str, user: str | None = None) -> str:
        """The last answer stored."""
        role, content = self.turns(session_id, user)[-1]
        assert role == "assistant"
        return content

    def sessions(self) -> set[str]:
        """Every stored session file, relative to the sessions folder."""
        folder = self.home / "sessions"
        return {str(path.relative_to(folder)) for path in folder.rglob("*.json")}

    def files(self) -> set[Path]:
        """Every file in the home and the working folder."""
        return {path for folder in (self.home.parent, self.work) for path in folder.rglob("*") if path.is_file()}
