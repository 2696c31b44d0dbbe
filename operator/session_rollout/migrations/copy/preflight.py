"""Before a copy begins: what would make it fail half-way, or hurt the application, said in one sentence with its cure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from session_rollout.migrations.copysql import CopySql
from session_rollout.migrations.database import Connection, MigrationFailed, Target, connect, execute, row

LONG: Final = timedelta(minutes=5)
ROOM: Final = 1.5  # of what is reckoned: estimates are wrong, and a full disk stops the application
MEBIBYTE: Final = 2**20


@dataclass(frozen=True)
class Need:
    """Bytes that a copy is reckoned to need."""

    table: int
    indexes: int
    wal: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.table + self.indexes + self.wal


def check(connection: Connection, sql: CopySql, target: Target, free_space_query: str = "") -> None:
    """Raises MigrationFailed with everything that a person must mend; tells what is merely worth knowing."""
    problems = [*_rights(connection, sql), *_definer_rights(target, sql), *_pooler(connection)]
    need = reckon(connection, sql)
    problems += _space(connection, need, free_space_query)
    if problems:
        raise MigrationFailed("; ".join(problems))
    target.reporter.tell(message="; ".join([_in_words(need), *_long_transactions(connection), *_lag(connection)]), now=True)


def _rights(connection: Connection, sql: CopySql) -> list[str]:
    wanted = [(sql.copy.source, ("SELECT",)), (sql.copy.target, ("SELECT", "INSERT", "UPDATE", "DELETE"))]
    me = row(connection, "SELECT current_user")[0]
    return [
        f"role {me} needs: GRANT {', '.join(missing)} ON {table} TO {me}"
        for table, rights in wanted
        if (missing := [right for right in rights if not _may(connection, "table", table, right)])
    ] + _row_lock_right(connection, sql, me)


def _row_lock_right(connection: Connection, sql: CopySql, me: str) -> list[str]:
    """Reading a row so that nobody changes it meanwhile needs UPDATE on a column of it."""
    if row(connection, "SELECT has_any_column_privilege(to_regclass(%s), 'UPDATE')", sql.copy.source)[0]:
        return []
    columns = ", ".join(sql.copy.mark) or sql.copy.key
    return [f"role {me} needs: GRANT UPDATE ({columns}) ON {sql.copy.source} TO {me}"]


def _definer_rights(target: Target, sql: CopySql) -> list[str]:
    with connect(target.defining) as connection:
        me = row(connection, "SELECT current_user")[0]
        if _may(connection, "table", sql.copy.source, "TRIGGER"):
            return []
        return [f"role {me} needs: GRANT TRIGGER ON {sql.copy.source} TO {me}"]


def _may(connection: Connection, kind: str, name: str, right: str) -> bool:
    return bool(row(connection, f"SELECT has_{kind}_privilege(to_regclass(%s), %s)", name, right)[0])


def _pooler(connection: Connection) -> list[str]:
    if not pooled(connection):
        return []
    return ["the connection goes through a pooler in transaction mode, which loses locks: give a direct connection string"]


def pooled(connection: Connection) -> bool:
    """Whether a pooler gives each transaction another session: the advisory lock would be worth nothing."""
    row(connection, "SELECT set_config('session_rollout.probe', 'here', false)")
    return any(row(connection, "SELECT current_setting('session_rollout.probe', true)")[0] != "here" for _ in range(3))


def reckon(connection: Connection, sql: CopySql) -> Need:
    """From the size of the source and the number of indexes of the target."""
    table, rows, indexes = row(
        connection,
        "SELECT pg_table_size(s.oid), greatest(s.reltuples, 0)::bigint,"
        " (SELECT count(*) FROM pg_index WHERE indrelid = to_regclass(%s)) FROM pg_class s WHERE s.oid = to_regclass(%s)",
        sql.copy.target,
        sql.copy.source,
    )
    entry = 60  # bytes of an index entry of a uuid or a session id, with the page's free part
    index_bytes = indexes * max(rows, table // 300) * entry
    return Need(table, index_bytes, table + index_bytes)


def _space(connection: Connection, need: Need, query: str) -> list[str]:
    if not query:
        return []
    free = int(execute(connection, query).fetchone()[0])
    wanted = round(need.total * ROOM)
    if free >= wanted:
        return []
    return [f"{_in_words(need)}, with room {wanted // MEBIBYTE:,} MiB, and only {free // MEBIBYTE:,} MiB are free"]


def _in_words(need: Need) -> str:
    parts = (need.table, need.indexes, need.wal)
    table, indexes, wal = (f"{size // MEBIBYTE:,}" for size in parts)
    return f"needs about {need.total // MEBIBYTE:,} MiB (table {table}, indexes {indexes}, WAL {wal})"


def _long_transactions(connection: Connection) -> list[str]:
    found = row(
        connection,
        "SELECT pid, application_name, date_trunc('second', now() - xact_start) FROM pg_stat_activity"
        " WHERE xact_start < now() - %s AND pid <> pg_backend_pid() AND datname = current_database() ORDER BY xact_start LIMIT 1",
        LONG,
    )
    return [f"pid {found[0]} ({found[1] or 'no name'}) has had a transaction open for {found[2]}"] if found else []


def _lag(connection: Connection) -> list[str]:
    lag = row(connection, "SELECT max(replay_lag) FROM pg_stat_replication")[0]
    return [f"the slowest replica is {lag} behind"] if lag else []
