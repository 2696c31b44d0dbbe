"""Damaged rows of the target, mended one by one: from the source while that is the truth, else from a snapshot."""

from dataclasses import dataclass

from session_rollout.migrations import copies, ledger, snapshots
from session_rollout.migrations.copies import CopyState
from session_rollout.migrations.copying import CHUNK, Copier, Job, open_copy
from session_rollout.migrations.database import Connection, Target, execute, lock_of, persist, quoted
from session_rollout.migrations.snapshots import Table, tables_of


@dataclass(frozen=True)
class Recovered:
    """What came of it."""

    damaged: int
    from_source: int
    from_snapshot: int
    left: tuple[str, ...]  # keys of rows for which there is nothing to mend them with

    def __str__(self) -> str:
        parts = f"{self.damaged:,} damaged rows: {self.from_source:,} mended from the source"
        rest = f", {len(self.left):,} cannot be mended: {', '.join(self.left[:3])}" if self.left else ""
        return f"{parts}, {self.from_snapshot:,} from a snapshot{rest}"


def recover(target: Target, job: Job) -> Recovered:
    """Find rows of the target that no application can have written, and mend them. Raises MigrationFailed, Interrupted."""

    def work(connection: Connection) -> Recovered:
        copier = open_copy(target, job, connection)
        table = tables_of(job.copy)[1]
        damaged = _damaged(connection, table)
        if copier.state.state is not CopyState.FINISHED:
            _from_source(copier, damaged)
        after_source = _damaged(connection, table)
        _from_snapshot(connection, job, table, after_source)
        left = _damaged(connection, table)
        result = Recovered(len(damaged), len(damaged) - len(after_source), len(after_source) - len(left), tuple(sorted(left)))
        ledger.remember(connection, target, job.name, f"recover: {result}")
        copier.target.reporter.tell(quarantined=copies.quarantined(connection, job.name))
        return result

    return persist(target, work, lock=lock_of(job.name))


def _damaged(connection: Connection, table: Table) -> set[str]:
    query = f"SELECT l.{quoted(table.key)}::text FROM {quoted(table.name)} l WHERE {table.damaged}"
    return {found[0] for found in execute(connection, query).fetchall()}


def _from_source(copier: Copier, damaged: set[str]) -> None:
    keys = sorted(damaged)
    for at in range(0, len(keys), CHUNK):
        copier.apply(keys[at : at + CHUNK], copier.sql.apply_beside_trigger)


def _from_snapshot(connection: Connection, job: Job, table: Table, keys: set[str]) -> None:
    """The newest snapshot's version of these rows, where it has one that is not damaged."""
    if not keys or not snapshots.prepared(connection):
        return
    for taken in reversed(snapshots.listed(connection, job.name)):
        if taken["table"] == table.name and taken["completeAt"]:
            snapshots.put_back(connection, job.name, table, taken["label"], sorted(keys))
            return
