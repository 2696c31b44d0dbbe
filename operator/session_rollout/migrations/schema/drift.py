"""`status` of a bundle: the state of every step, and what has changed in the database since it was applied."""

from typing import Any

from session_rollout.migrations import ledger
from session_rollout.migrations.connection import Connection, RunContext, execute
from session_rollout.migrations.ledger import Entry
from session_rollout.migrations.retry import run_with_retries
from session_rollout.migrations.schema import catalog
from session_rollout.migrations.schema.bundle import Bundle


def status(context: RunContext, bundle: Bundle) -> dict[str, Any]:
    """Every step with its state, and the drift, as JSON-ready data. Raises MigrationFailed, Interrupted.

    A state is Pending, Building, Applied, Changed (the file was edited afterwards) or NotInBundle. Drift has the `reason`
    MissingOrChanged with the catalog line of the object, or InvalidIndex with the name of the index.
    """

    def work(connection: Connection) -> dict[str, Any]:
        applied = ledger.entries(connection, bundle.name)
        return {"bundle": bundle.name, "steps": _states(bundle, applied), "drift": _drift(connection, applied)}

    return run_with_retries(context, work)


def _states(bundle: Bundle, applied: tuple[Entry, ...]) -> list[dict[str, Any]]:
    remaining, states = {entry.version: entry for entry in applied}, list[dict[str, Any]]()
    for step in bundle.steps:
        entry = remaining.pop(step.version, None)
        if entry is None:
            states.append({"step": step.file.removesuffix(".up.sql"), "state": "Pending"})
        elif entry.state == "building":
            states.append(_described(entry, "Building"))
        else:
            states.append(_described(entry, "Applied" if entry.checksum == step.checksum else "Changed"))
    return [*states, *(_described(entry, "NotInBundle") for entry in remaining.values())]


def _described(entry: Entry, state: str) -> dict[str, Any]:
    return {
        "step": entry.title,
        "state": state,
        "appliedAt": entry.applied_at,
        "appliedBy": entry.applied_by,
        "durationMilliseconds": entry.duration_ms,
        "pointOfNoReturn": entry.no_return,
    }


def _drift(connection: Connection, applied: tuple[Entry, ...]) -> list[dict[str, str]]:
    """Objects of the applied steps that no longer exist as they were, and every invalid index."""
    expected: set[str] = set()
    for entry in applied:
        expected = (expected - set(entry.removed)) | set(entry.added)
    missing = sorted(expected - catalog.lines(connection))
    query = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    invalid = [record[0] for record in execute(connection, query).fetchall()]
    return [
        *({"reason": "MissingOrChanged", "object": line} for line in missing),
        *({"reason": "InvalidIndex", "object": name} for name in invalid),
    ]
