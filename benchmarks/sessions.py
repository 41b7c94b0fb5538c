"""The sessions that are measured: the same bytes in every run, but for ids and times.

What a reader would get wrong: an append makes a session longer, so `rewind` puts the file back to its first length before
each round. "At 100 messages" then means 100 to 110, not 100 at the start and thousands at the end.
"""

from __future__ import annotations

import os

from benchmarks.inputs import ROLES, text
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key
from praisonaiagents.session import DefaultSessionStore

_TAIL_BYTES = 64 * 1024


class PreparedSession:
    """A session of `count` messages in a store's folder."""

    def __init__(self, store: DefaultSessionStore, session_id: str, count: int) -> None:
        store.append(session_id, messages(session_id, count))
        self.session_id = session_id
        self.key = Key("default_user", session_id)
        self.path = os.path.join(store.session_dir, f"{session_id}.json")
        self.size = os.path.getsize(self.path)
        self._tail_start = max(0, self.size - _TAIL_BYTES)
        with open(self.path, "rb") as file:
            file.seek(self._tail_start)
            self._tail = file.read()

    def rewind(self) -> None:
        """Put the file back to what it was when it was made."""
        with open(self.path, "r+b", buffering=0) as file:
            file.truncate(self.size)
            file.seek(self._tail_start)
            file.write(self._tail)

    def footer(self) -> bytes:
        """The closing lines of the file, as an append overwrites them."""
        return self._tail[self._tail.rindex(b"\n],\n") :]


def messages(session_id: str, count: int) -> list[Message]:
    """User and assistant in turn, 200 bytes of text each."""
    return [Message(ROLES[number % 2], text(session_id, number)) for number in range(count)]
