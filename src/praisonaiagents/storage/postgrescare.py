"""A PostgreSQL schema that forgets, is read cell by cell, and is looked over.

What a reader would get wrong: a deleted row is not gone from the disk. VACUUM gives its place free, and what it was stays
there until something else is written over it; and every row was in the write-ahead log before it was in the table. What the
planner knows of a table quotes values of it, too. The first two are an operator's to wipe out, the third is done here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from praisonaiagents.storage.postgresserver import Rows
from praisonaiagents.storage.powers import Finding, Forgotten, Raw, counted, framed

if TYPE_CHECKING:
    from praisonaiagents.storage.postgres import PostgresEngine
    from praisonaiagents.storage.postgresserver import Connection

_PAGES = 256  # of a table, read at once
_TABLES = """
    select c.relname::text, c.oid::bigint, pg_relation_size(c.oid) / current_setting('block_size')::int,
        pg_has_role(c.relowner, 'usage')
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relkind = 'r' order by 1"""
_COLUMNS = """
    select attname::text, atttypid::regtype::text from pg_attribute
    where attrelid = %s::bigint::oid and attnum > 0 and not attisdropped order by attnum"""
_STATISTICS = """
    select tablename::text, attname::text, inherited, concat_ws(' ', most_common_vals, histogram_bounds, most_common_elems)
    from pg_stats where schemaname = %s"""
_CAN_CLEAR = "select to_regprocedure('pg_clear_attribute_stats(text,text,text,boolean)') is not null"
_CLEAR = "select 1 from (select pg_clear_attribute_stats(%s, %s, %s, %s)) as done"


def forget(engine: PostgresEngine) -> Forgotten:
    """Give free the places of deleted rows, and forget what the planner knew of them."""
    schema, place = engine._server.schema, engine._server.place
    tables = _rows(engine, _TABLES, (schema,))
    own = [name for name, _, _, is_own in tables if is_own]
    problems = [] if len(own) == len(tables) else [f"the owner of schema {schema} has to say VACUUM: we may not"]
    engine._server.call(lambda connection: _vacuum(engine, connection, own), repeat="read")
    listed = ", ".join(f"{engine._server._quoted}.{name}" for name, *_ in tables)
    left_to_operators = [
        f"deleted rows stay in the files of the tables until they are overwritten: VACUUM FULL {listed} writes those anew "
        "(and keeps everybody waiting meanwhile)",
        "the write-ahead log has them until its segments are recycled: CHECKPOINT, then SELECT pg_switch_wal(), twice; "
        "archived segments are as they were",
        f"replicas of {place} follow, and have files and a log of their own",
        "backups and dumps are as they were; a server that logs statements with their parameters has them in its log, too",
    ]
    return Forgotten(problems, left_to_operators)


def _vacuum(engine: PostgresEngine, connection: Connection, tables: list[str]) -> None:
    schema = engine._server.schema
    quoted = engine._server._quoted
    if tables and engine._server.rows(connection, _CAN_CLEAR) == [(True,)]:
        for table, column, inherited, _ in engine._server.rows(connection, _STATISTICS, (schema,)):
            engine._server.rows(connection, _CLEAR, (schema, table, column, inherited))
    for table in tables:
        connection.link.execute(f"vacuum (analyze) {quoted}.{table}".encode())


# Cell by cell


def raw(engine: PostgresEngine) -> Iterator[Raw]:
    """Every cell of every table of the schema, and what the planner knows of them."""
    schema, quoted = engine._server.schema, engine._server._quoted.replace("%", "%%")
    place = f"tables of schema {schema} on {engine._server.place}"
    yield Raw(place, "", b"")
    for table, oid, pages, _ in _rows(engine, _TABLES, (schema,)):
        columns = _rows(engine, _COLUMNS, (oid,))
        shown = ", ".join(_as_text(name, kind) for name, kind in columns)
        for first in range(0, int(pages) + 1, _PAGES):
            query = f"select {shown} from {quoted}.{table} where ctid >= %s::text::tid and ctid < %s::text::tid"  # noqa: S608
            rows = _rows(engine, query, (f"({first},0)", f"({first + _PAGES},0)"))
            if rows:
                yield Raw(place, f"table {table}", framed(_bytes(cell) for row in rows for cell in row if cell))
    for table, column, _, values in _rows(engine, _STATISTICS, (schema,)):
        known = re.sub('[{},"]', "\n", values)
        yield Raw(place, f"what the planner knows of {table}.{column} (table pg_statistic)", framed([_bytes(known)]))


def _as_text(name: str, kind: str) -> str:
    """A column as text; words of search each on a line of its own."""
    quoted = '"{}"'.format(name.replace('"', '""').replace("%", "%%"))
    return f"array_to_string(tsvector_to_array({quoted}), chr(10))" if kind == "tsvector" else f"{quoted}::text"


def _bytes(cell: Any) -> bytes:
    text = cell if isinstance(cell, str) else str(cell)
    return text.replace("\n", "\0").encode()


# Looking over


def audit(engine: PostgresEngine) -> Iterator[Finding]:
    """What refers to nothing. The server's own checks (amcheck) are an operator's."""
    for query, is_damage, what, remedy in _CHECKS:
        ((count,),) = _rows(engine, query)
        if count:
            yield Finding(
                is_damage, what.format(logs=counted(count, "log"), messages=counted(count, "message")), remedy
            )


_CHECKS = (
    (
        """select count(*) from {schema}.log l
        where not exists (select from {schema}.session s where s.log = l.id)
            and not exists (select from {schema}.pin p where p.log = l.id)
            and not exists (select from {schema}.log child where child.base = l.id)""",
        False,
        "{logs} that no session, pin or other log shows",
        "harmless, they only take room",
    ),
    (
        "select count(*) from {schema}.message m where not exists (select from {schema}.log l where l.id = m.log)",
        True,
        "{messages} whose log is gone: a session may have lost its history",
        "the rows are still in table message: copy them, and restore the session from a backup",
    ),
)


def _rows(engine: PostgresEngine, query: str, values: tuple[Any, ...] = ()) -> Rows:
    return engine._read(query, values)
