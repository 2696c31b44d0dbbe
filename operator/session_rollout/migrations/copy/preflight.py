"""Preflight checks of a copy: what would make it fail later or slow down the application, each with a remedy."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from session_rollout.api.migration_enums import FailureReason
from session_rollout.errors import MigrationFailed
from session_rollout.migrations.connection import Connection, RunContext, connect, execute, fetch_row
from session_rollout.migrations.copy.sql import CopySql

LONG_TRANSACTION: Final = timedelta(minutes=5)
SPACE_FACTOR: Final = 1.5  # of the estimate, which is rough, and a full disk stops the application
INDEX_ENTRY_BYTES: Final = 60  # of a uuid or a session id, with its share of free space in the page
ROW_BYTES: Final = 300  # assumed where the table has no statistics
MEBIBYTE: Final = 2**20


@dataclass(frozen=True)
class SpaceEstimate:
    """Bytes that a copy will need on the disk of the database."""

    table: int
    indexes: int
    wal: int

    @property
    def total(self) -> int:
        """The sum in bytes."""
        return self.table + self.indexes + self.wal


def check(context: RunContext, connection: Connection, sql: CopySql, free_space_query: str = "") -> None:
    """Report the estimate and warnings. Raises MigrationFailed with everything that requires manual intervention.

    `free_space_query` is SQL that returns the free bytes of the disk; space is not checked without it.
    """
    problems = [*_missing_rights(connection, sql), *_missing_definer_rights(context, sql), *_pooler(connection)]
    estimate = estimate_space(connection, sql)
    problems += _space(connection, estimate, free_space_query)
    if problems:
        raise MigrationFailed("; ".join(problems), FailureReason.PREFLIGHT_FAILED)
    notes = [_describe(estimate), *_long_transactions(connection), *_lag(connection)]
    context.reporter.update(message="; ".join(notes), now=True)


def _missing_rights(connection: Connection, sql: CopySql) -> list[str]:
    required = [(sql.spec.source, ("SELECT",)), (sql.spec.target, ("SELECT", "INSERT", "UPDATE", "DELETE"))]
    role = fetch_row(connection, "SELECT current_user")[0]
    return [
        f"role {role} needs: GRANT {', '.join(missing)} ON {table} TO {role}"
        for table, privileges in required
        if (missing := [privilege for privilege in privileges if not _has_privilege(connection, table, privilege)])
    ] + _missing_row_lock_right(connection, sql, role)


def _missing_row_lock_right(connection: Connection, sql: CopySql, role: str) -> list[str]:
    """A row lock (SELECT ... FOR SHARE) needs the UPDATE privilege on at least one column."""
    if fetch_row(connection, "SELECT has_any_column_privilege(to_regclass(%s), 'UPDATE')", sql.spec.source)[0]:
        return []
    columns = ", ".join(sql.spec.mark) or sql.spec.key
    return [f"role {role} needs: GRANT UPDATE ({columns}) ON {sql.spec.source} TO {role}"]


def _missing_definer_rights(context: RunContext, sql: CopySql) -> list[str]:
    with connect(context.definer_dsn) as connection:
        role = fetch_row(connection, "SELECT current_user")[0]
        if _has_privilege(connection, sql.spec.source, "TRIGGER"):
            return []
        return [f"role {role} needs: GRANT TRIGGER ON {sql.spec.source} TO {role}"]


def _has_privilege(connection: Connection, table: str, privilege: str) -> bool:
    return bool(fetch_row(connection, "SELECT has_table_privilege(to_regclass(%s), %s)", table, privilege)[0])


def _pooler(connection: Connection) -> list[str]:
    if not is_pooled(connection):
        return []
    return ["the connection uses a pooler in transaction mode, which loses advisory locks: use a direct connection string"]


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler runs each transaction in another session, so that an advisory lock would protect nothing."""
    fetch_row(connection, "SELECT set_config('session_rollout.probe', 'here', false)")
    return any(fetch_row(connection, "SELECT current_setting('session_rollout.probe', true)")[0] != "here" for _ in range(3))


def estimate_space(connection: Connection, sql: CopySql) -> SpaceEstimate:
    """An estimate from the size of the source and the number of indexes of the target."""
    table, rows, indexes = fetch_row(
        connection,
        "SELECT pg_table_size(s.oid), greatest(s.reltuples, 0)::bigint,"
        " (SELECT count(*) FROM pg_index WHERE indrelid = to_regclass(%s)) FROM pg_class s WHERE s.oid = to_regclass(%s)",
        sql.spec.target,
        sql.spec.source,
    )
    index_bytes = indexes * max(rows, table // ROW_BYTES) * INDEX_ENTRY_BYTES
    return SpaceEstimate(table, index_bytes, wal=table + index_bytes)


def _space(connection: Connection, estimate: SpaceEstimate, query: str) -> list[str]:
    if not query:
        return []
    free = int(execute(connection, query).fetchone()[0])
    required = round(estimate.total * SPACE_FACTOR)
    if free >= required:
        return []
    shown = f"{required // MEBIBYTE:,} MiB with a reserve, but only {free // MEBIBYTE:,} MiB are free"
    return [f"{_describe(estimate)}: {shown}"]


def _describe(estimate: SpaceEstimate) -> str:
    parts = (estimate.table, estimate.indexes, estimate.wal)
    table, indexes, wal = (f"{size // MEBIBYTE:,}" for size in parts)
    return f"needs about {estimate.total // MEBIBYTE:,} MiB (table {table}, indexes {indexes}, WAL {wal})"


def _long_transactions(connection: Connection) -> list[str]:
    record = fetch_row(
        connection,
        "SELECT pid, application_name, date_trunc('second', now() - xact_start) FROM pg_stat_activity"
        " WHERE xact_start < now() - %s AND pid <> pg_backend_pid() AND datname = current_database() ORDER BY xact_start LIMIT 1",
        LONG_TRANSACTION,
    )
    return [f"pid {record[0]} ({record[1] or 'no name'}) has had a transaction open for {record[2]}"] if record else []


def _lag(connection: Connection) -> list[str]:
    lag = fetch_row(connection, "SELECT max(replay_lag) FROM pg_stat_replication")[0]
    return [f"the slowest replica is {lag} behind"] if lag else []
