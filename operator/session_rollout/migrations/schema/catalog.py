"""The schema as the catalog has it, a line an object: for drift, for what a step did, and for what a step would destroy."""

from dataclasses import dataclass
from typing import Final

from session_rollout.migrations.database import Connection, execute, quoted, row
from session_rollout.migrations.locks import STRENGTH

_OURS: Final = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema', 'session_rollout', 'session_rollout_snapshots')"
    " AND n.nspname NOT LIKE 'pg\\_%'"
)

_LINES: Final = f"""
SELECT format('column %s.%s.%s %s%s%s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attnotnull THEN ' not null' ELSE '' END, coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''))
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
  WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND {_OURS}
UNION ALL
SELECT format('index %s%s', pg_get_indexdef(c.oid), CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}
UNION ALL
SELECT format('constraint %s.%s.%s %s', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid))
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}
UNION ALL
SELECT format('trigger %s', pg_get_triggerdef(t.oid))
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT t.tgisinternal AND t.tgname NOT LIKE 'session\\_rollout\\_%' AND {_OURS}
UNION ALL
SELECT format('view %s.%s %s', n.nspname, c.relname, pg_get_viewdef(c.oid))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND {_OURS}
UNION ALL
SELECT format('function %s', pg_get_functiondef(p.oid))
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind IN ('f', 'p') AND {_OURS}
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = p.oid AND e.deptype = 'e')
UNION ALL
SELECT format('type %s.%s %s', n.nspname, t.typname, coalesce((SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder)
    FROM pg_enum e WHERE e.enumtypid = t.oid), ''))
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd') AND {_OURS}
"""


def lines(connection: Connection) -> frozenset[str]:
    """Every object of the database that is not PostgreSQL's or ours, as a line."""
    return frozenset(found[0] for found in execute(connection, _LINES).fetchall())


@dataclass(frozen=True)
class Column:
    """A table, or with `column` one of its columns, that holds data."""

    table: str
    oid: int
    column: str | None = None
    number: int = 0


_HOLDERS: Final = f"""
SELECT format('%I.%I', n.nspname, c.relname), c.oid, NULL, 0 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND {_OURS}
UNION ALL
SELECT format('%I.%I', n.nspname, c.relname), c.oid, a.attname, a.attnum
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND {_OURS}
"""


def holders(connection: Connection) -> frozenset[Column]:
    """Everything that can hold data."""
    return frozenset(Column(*found) for found in execute(connection, _HOLDERS).fetchall())


def data_in(connection: Connection, gone: frozenset[Column]) -> list[str]:
    """Which of these hold data, in words; a column of a table that is named itself is not named again."""
    tables = {one.oid for one in gone if one.column is None}
    found = []
    for one in sorted(gone, key=lambda one: (one.table, one.number)):
        if one.column is None and row(connection, f"SELECT EXISTS (SELECT FROM {one.table})")[0]:
            found.append(f"table {one.table} with {row(connection, f'SELECT count(*) FROM {one.table}')[0]:,} rows")
        elif one.column is not None and one.oid not in tables:
            query = f"SELECT EXISTS (SELECT FROM {one.table} WHERE {quoted(one.column)} IS NOT NULL)"
            if row(connection, query)[0]:
                found.append(f"column {one.table}.{one.column} with values")
    return found


_LOCKS: Final = """
SELECT l.relation::regclass::text, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE l.pid = pg_backend_pid() AND l.relation = ANY(%s::oid[]) AND c.relkind IN ('r', 'p')"""


def tables(connection: Connection) -> list[int]:
    """Oids of the tables that are there."""
    return [one.oid for one in holders(connection) if one.column is None]


def locks(connection: Connection, among: list[int]) -> dict[str, str]:
    """Strongest lock that this transaction holds on each of these tables."""
    strongest: dict[str, str] = {}
    for table, mode in execute(connection, _LOCKS, (among,)).fetchall():
        if table not in strongest or STRENGTH.index(mode) > STRENGTH.index(strongest[table]):
            strongest[table] = mode
    return strongest
