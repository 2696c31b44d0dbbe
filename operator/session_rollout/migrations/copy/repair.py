"""`repair`: replaces damaged target rows, from the source while it is the source of truth, otherwise from a snapshot."""

from dataclasses import dataclass
from typing import Final

from session_rollout.migrations import ledger
from session_rollout.migrations.connection import Connection, RunContext, copy_lock_key, execute, quote_name
from session_rollout.migrations.copy import restore, snapshots, state
from session_rollout.migrations.copy.runner import KEY_BATCH, Copier, CopyJob, open_copy
from session_rollout.migrations.copy.snapshots import SnapshotTable, tables_of
from session_rollout.migrations.copy.state import CopyState
from session_rollout.migrations.retry import run_with_retries

KEYS_SHOWN: Final = 3


@dataclass(frozen=True)
class RepairResult:
    """Numbers of rows, and the keys of those that remain damaged."""

    damaged: int
    from_source: int
    from_snapshot: int
    remaining: tuple[str, ...]  # neither the source nor a snapshot has a sound version

    def __str__(self) -> str:
        text = f"{self.damaged:,} damaged rows: {self.from_source:,} repaired from the source"
        keys = ", ".join(self.remaining[:KEYS_SHOWN])
        remaining = f", {len(self.remaining):,} cannot be repaired: {keys}" if self.remaining else ""
        return f"{text}, {self.from_snapshot:,} from a snapshot{remaining}"


def repair(context: RunContext, job: CopyJob) -> RepairResult:
    """Find target rows that a check of copy.yaml rejects, and replace them. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> RepairResult:
        copier = open_copy(context, job, connection)
        _, table = tables_of(job.spec)
        damaged = _damaged(connection, table)
        if copier.record.state is not CopyState.FINISHED:
            _repair_from_source(copier, damaged)
        after_source = _damaged(connection, table)
        _repair_from_snapshot(connection, job, table, after_source)
        remaining = _damaged(connection, table)
        result = RepairResult(
            damaged=len(damaged),
            from_source=len(damaged) - len(after_source),
            from_snapshot=len(after_source) - len(remaining),
            remaining=tuple(sorted(remaining)),
        )
        ledger.add_history(connection, context, job.name, f"repair: {result}")
        context.reporter.update(quarantined=state.quarantined(connection, job.name))
        return result

    return run_with_retries(context, work, lock=copy_lock_key(job.name))


def _damaged(connection: Connection, table: SnapshotTable) -> set[str]:
    query = f"SELECT l.{quote_name(table.key)}::text FROM {quote_name(table.name)} l WHERE {table.damaged}"
    return {record[0] for record in execute(connection, query).fetchall()}


def _repair_from_source(copier: Copier, damaged: set[str]) -> None:
    keys = sorted(damaged)
    for start in range(0, len(keys), KEY_BATCH):
        copier.apply(keys[start : start + KEY_BATCH], copier.sql.apply_beside_trigger)


def _repair_from_snapshot(connection: Connection, job: CopyJob, table: SnapshotTable, keys: set[str]) -> None:
    """Use the newest complete snapshot, where its version of a row is not damaged."""
    if not keys or not snapshots.exist(connection):
        return
    for snapshot in reversed(snapshots.listed(connection, job.name)):
        if snapshot["table"] == table.name and snapshot["completeAt"]:
            restore.restore_rows(connection, job.name, table, snapshot["label"], sorted(keys))
            return
