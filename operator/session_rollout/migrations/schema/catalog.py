"""Reads the database's catalog: to detect drift, to record the effect of a step, and to detect the loss of data."""

from dataclasses import dataclass
from typing import Final

from session_rollout.migrations.connection import Connection, execute, fetch_row, quote_name
from session_rollout.migrations.schema.locks import STRENGTH

_APPLICATION: Final = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema', 'session_rollout', 'session_rollout_snapshots')"
    " AND n.nspname NOT LIKE 'pg\\_%'"
)

_LINES: Final = f"""
SELECT format('column %s.%s.%s %s%s%s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attnotnull THEN ' not null' ELSE '' END, coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''))
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
  WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND {_APPLICATION}
UNION ALL
SELECT format('index %s%s', pg_get_indexdef(c.oid), CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_APPLICATION}
UNION ALL
SELECT format('constraint %s.%s.%s %s', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid))
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_APPLICATION}
UNION ALL
SELECT format('trigger %s', pg_get_triggerdef(t.oid))
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT t.tgisinternal AND t.tgname NOT LIKE 'session\\_rollout\\_%' AND {_APPLICATION}
UNION ALL
SELECT format('view %s.%s %s', n.nspname, c.relname, pg_get_viewdef(c.oid))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {_APPLICATION}
UNION ALL
SELECT format('function %s', pg_get_functiondef(p.oid))
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind IN ('f', 'p') AND {_APPLICATION}
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = p.oid AND e.deptype = 'e')
UNION ALL
SELECT format('type %s.%s %s', n.nspname, t.typname, coalesce((SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder)
    FROM pg_enum e WHERE e.enumtypid = t.oid), ''))
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd') AND {_APPLICATION}
"""


def lines(connection: Connection) -> frozenset[str]:
    """One line of text for every object of the application: columns, indexes, constraints, triggers, views, functions, types."""
    return frozenset(record[0] for record in execute(connection, _LINES).fetchall())


@dataclass(frozen=True)
class Holder:
    """Something that can hold data: a table, or one of its columns when `column` is set."""

    table: str
    oid: int
    column: str | None = None
    number: int = 0

    def __str__(self) -> str:
        return f"table {self.table}" if self.column is None else f"column {self.table}.{self.column}"


_HOLDERS: Final = f"""
SELECT format('%I.%I', n.nspname, c.relname), c.oid, NULL, 0 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND {_APPLICATION}
UNION ALL
SELECT format('%I.%I', n.nspname, c.relname), c.oid, a.attname, a.attnum
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND {_APPLICATION}
"""


def holders(connection: Connection) -> frozenset[Holder]:
    """Every table and column of the application."""
    return frozenset(Holder(*record) for record in execute(connection, _HOLDERS).fetchall())


def removed(before: frozenset[Holder], after: frozenset[Holder]) -> list[Holder]:
    """What has been dropped or renamed, in order; the columns of a removed table are left out."""
    gone = before - after
    tables = {holder.oid for holder in gone if holder.column is None}
    kept = (holder for holder in gone if holder.column is None or holder.oid not in tables)
    return sorted(kept, key=lambda holder: (holder.table, holder.number))


def data_in(connection: Connection, gone: list[Holder]) -> list[str]:
    """Descriptions of those that hold data: a table with its number of rows, a column with any value but NULL."""
    descriptions = []
    for holder in gone:
        if holder.column is None:
            count = fetch_row(connection, f"SELECT count(*) FROM {holder.table}")[0]
            descriptions += [f"{holder} with {count:,} rows"] if count else []
        else:
            query = f"SELECT EXISTS (SELECT FROM {holder.table} WHERE {quote_name(holder.column)} IS NOT NULL)"
            descriptions += [f"{holder} with values"] if fetch_row(connection, query)[0] else []
    return descriptions


_LOCKS: Final = """
SELECT l.relation::regclass::text, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE l.pid = pg_backend_pid() AND l.relation = ANY(%s::oid[]) AND c.relkind IN ('r', 'p')"""


def tables(connection: Connection) -> list[int]:
    """Oids of the application's tables."""
    return [holder.oid for holder in holders(connection) if holder.column is None]


def locks(connection: Connection, among: list[int]) -> dict[str, str]:
    """By name of the table: the strongest lock that the current transaction holds on it."""
    strongest: dict[str, str] = {}
    for table, mode in execute(connection, _LOCKS, (among,)).fetchall():
        if table not in strongest or STRENGTH.index(mode) > STRENGTH.index(strongest[table]):
            strongest[table] = mode
    return strongest
