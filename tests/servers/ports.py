"""Ports for servers that tests start.

What a reader would get wrong: a port that is free now may be taken before it is used, by a test in another worker. So each
worker has ports of its own, and gives none twice.
"""

from __future__ import annotations

import os
import random
import socket

_NEVER_LENT = range(12_000, 32_000)  # to outgoing connections, on any system: those may take a port before it is used
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = _NEVER_LENT[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    while True:
        port = random.choice(own)
        if port in _given:
            continue
        with socket.socket() as asked:
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                asked.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
