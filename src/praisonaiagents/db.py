"""Database adapters: what one is, and ready ones over our engines.

    from praisonaiagents import db
    Agent("Assistant", db=db(database_url="sqlite:///sessions.db"))

    from praisonaiagents.db import DbAdapter, DbMessage     # for one of your own, see `session.dbadapter`

What a reader would get wrong: this module can be called. `db(...)` is `db.PraisonAIDB(...)`, and `db.db` is the module.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from praisonaiagents.session.database import (
    CockroachDB,
    NeonDB,
    PostgresDB,
    PraisonAIDB,
    RedisDB,
    SQLiteDB,
    TursoDB,
    XataDB,
)
from praisonaiagents.session.dbadapter import (
    AsyncDbAdapter,
    DbAdapter,
    DbMessage,
    DbRun,
    DbSpan,
    DbToolCall,
    DbTrace,
)

__all__ = [
    "DB",
    "AsyncDbAdapter",
    "CockroachDB",
    "DbAdapter",
    "DbMessage",
    "DbRun",
    "DbSpan",
    "DbToolCall",
    "DbTrace",
    "NeonDB",
    "PostgresDB",
    "PraisonAIDB",
    "PraisonDB",
    "RedisDB",
    "SQLiteDB",
    "TursoDB",
    "XataDB",
    "db",
]

DB = PraisonDB = PraisonAIDB


class _Callable(ModuleType):
    def __call__(self, database_url: str | None = None, **options: Any) -> PraisonAIDB:
        """The ready adapter for a storage URL."""
        return PraisonAIDB(database_url, **options)


db = sys.modules[__name__]
db.__class__ = _Callable
