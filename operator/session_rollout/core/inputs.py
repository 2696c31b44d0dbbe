"""What a decision will need to know: the controller gathers exactly this."""

import hashlib
from typing import Final

from session_rollout.api.checks import Check, Gate
from session_rollout.api.enums import MigrationState, Outcome, Stage, Verdict
from session_rollout.api.rollout import Metric, SessionRollout
from session_rollout.core.steps import phase_named

JUDGED_STAGES: Final = frozenset({Stage.BASELINE, Stage.BEFORE, Stage.STEP, Stage.VERIFICATION, Stage.AFTER, Stage.BAKE})
RUNNING: Final = frozenset({MigrationState.RUNNING, MigrationState.REVERTING})
JOB_NAME_LENGTH: Final = 63
PREFLIGHT, VERIFICATION, AFTER_ROLLBACK = "Preflight", "Verification", "AfterRollback"


def gates_now(rollout: SessionRollout) -> tuple[str, tuple[Gate, ...]]:
    """The gates that are judged in this stage, and their kind in `status.checks`."""
    spec, current = rollout.spec, rollout.status.current
    phase = phase_named(spec, current.phase)
    if current.stage is Stage.PREFLIGHT:
        return PREFLIGHT, spec.preflight
    if current.stage is Stage.VERIFICATION and phase is not None:
        return VERIFICATION, phase.verification
    if current.stage is Stage.ENDED and rollout.status.outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}:
        return AFTER_ROLLBACK, () if verified_after_rollback(rollout) else spec.rollback.verification
    return "", ()


def verified_after_rollback(rollout: SessionRollout) -> bool:
    """Whether every check after the rollback has passed; then nobody looks any more."""
    passed = {one.name for one in rollout.status.checks if (one.kind, one.verdict) == (AFTER_ROLLBACK, Verdict.PASS)}
    return all(gate.name in passed for gate in rollout.spec.rollback.verification)


def asked_gates(rollout: SessionRollout) -> tuple[Gate, ...]:
    """Gates of this stage that somebody must be asked about: HTTP and built-in ones."""
    return tuple(gate for gate in gates_now(rollout)[1] if gate.http or gate.builtin)


def needed_metrics(rollout: SessionRollout) -> tuple[Metric, ...]:
    """The metrics that are judged in the stage the rollout is in; a new object starts with its preflight."""
    spec, current = rollout.spec, rollout.status.current
    phase = phase_named(spec, current.phase)
    checks: list[Check | Gate] = []
    if current.stage in JUDGED_STAGES:
        checks += spec.guards
    checks += gates_now(rollout)[1]
    if phase is not None and current.stage in {Stage.BASELINE, Stage.STEP}:
        checks += phase.criteria
    names = {check.metric for check in checks}
    return tuple(metric for metric in spec.metrics if metric.name in names)


def running_jobs(rollout: SessionRollout) -> tuple[str, ...]:
    """Names of the Jobs whose end is awaited."""
    migrations = tuple(record.job for record in rollout.status.migrations if record.state in RUNNING and record.job)
    checks = tuple(one.job for one in rollout.status.checks if one.job and one.verdict is Verdict.NOT_EVALUATED)
    return (*migrations, *checks)


def job_name(rollout: SessionRollout, what: str, identity: str, *, kind: str = "") -> str:
    """`<rollout>-<what>[-<kind>]-<hash>`, at most 63 characters; the same identity gives the same Job."""
    digest = hashlib.sha256(f"{rollout.uid}/{identity}".encode()).hexdigest()[:10]
    tail = f"-{kind}-{digest}" if kind else f"-{digest}"
    return f"{rollout.name}-{what}"[: JOB_NAME_LENGTH - len(tail)].rstrip("-") + tail


def needs_revisions(rollout: SessionRollout) -> bool:
    """Whether something that was asked of the workload is not done yet."""
    record = rollout.status.workload
    if record is None or rollout.spec.workload is None:
        return False
    return bool(record.undo_requested_time and not record.undone_time) or bool(
        record.restart_requested_time and not record.restarted_time
    )


def needs_workload(rollout: SessionRollout) -> bool:
    """Whether the workload's availability matters now."""
    return rollout.spec.workload is not None and rollout.status.current.stage is Stage.PREFLIGHT
