"""The places that crash tests write to, one of each engine: a URL that another process can open too.

Servers are real and started here; a test session shares one of each, as it is when nobody sets anything. Only clients are
killed here: what a server that ends loses is for the tests of each engine.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = ("file", "sqlite", "postgres", "redis")


@contextmanager
def place(kind: str) -> Iterator[str]:
    """The URL of an empty place of this kind, which is gone afterwards."""
    tests = str(Path(__file__).parents[1])
    if tests not in sys.path:
        sys.path.append(tests)
    if kind in ("file", "sqlite"):
        with tempfile.TemporaryDirectory() as folder:
            yield folder if kind == "file" else f"sqlite:///{folder}/sessions.db"
    elif kind == "postgres":
        from servers import postgres

        with postgres.empty_place() as url:
            yield url
    else:
        from servers import redis

        with redis.empty_place() as url:
            yield url
