"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

_NEVER_LENT = range(
    12_000, 32_000
)  # to outgoing connections, on any system: those may take a port between here and its use


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at, one at random so that tests side by side find others."""
    while True:
        port = random.choice(_NEVER_LENT)
        with socket.socket() as asked:
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                asked.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
