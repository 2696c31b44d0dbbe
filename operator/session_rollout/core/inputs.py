"""Which inputs a decision needs in the stage the rollout is in: the controller gathers exactly these."""

from typing import Final

from session_rollout.api.checks import Check, Gate
from session_rollout.api.enums import CheckKind, Outcome, PhaseState, Stage, Verdict
from session_rollout.api.metrics import Metric
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.rollout import RolloutSpec, SessionRollout
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import PhaseRecord
from session_rollout.core.steps import phase_named

_GUARDED_STAGES: Final = frozenset({Stage.BASELINE, Stage.BEFORE, Stage.STEP, Stage.VERIFICATION, Stage.AFTER, Stage.BAKE})
RUNNING: Final = frozenset({MigrationState.RUNNING, MigrationState.REVERTING})
UNDONE: Final = frozenset({Outcome.ROLLED_BACK, Outcome.ABORTED})  # ended after a rollback


def current_gates(rollout: SessionRollout) -> tuple[CheckKind | None, tuple[Gate, ...]]:
    """The gates that are evaluated in this stage, and their kind in `status.checks`."""
    spec, current = rollout.spec, rollout.status.current
    phase = phase_named(spec, current.phase)
    if current.stage is Stage.PREFLIGHT:
        return CheckKind.PREFLIGHT, spec.preflight
    if current.stage is Stage.VERIFICATION and phase is not None:
        return CheckKind.VERIFICATION, phase.verification
    if current.stage is Stage.ENDED and rollout.status.outcome in UNDONE:
        return CheckKind.AFTER_ROLLBACK, () if verified_after_rollback(rollout) else spec.rollback.verification
    return None, ()


def verified_after_rollback(rollout: SessionRollout) -> bool:
    """Whether every check after the rollback has passed, after which verification stops."""
    passed = {
        record.name
        for record in rollout.status.checks
        if record.kind is CheckKind.AFTER_ROLLBACK and record.verdict is Verdict.PASS
    }
    return all(gate.name in passed for gate in rollout.spec.rollback.verification)


def external_gates(rollout: SessionRollout) -> tuple[Gate, ...]:
    """Gates of this stage whose result comes from outside: HTTP and built-in checks."""
    return tuple(gate for gate in current_gates(rollout)[1] if gate.http or gate.builtin)


def published_phases(status: RolloutStatus) -> tuple[PhaseRecord, ...]:
    """Phases whose features somebody has because of this rollout, apart from those that it was promoted with."""
    return tuple(record for record in status.phases if record.is_published and record.promoted_time is None)


def kept_features(status: RolloutStatus, phase: str | None) -> tuple[str, ...]:
    """Features that users have, of a phase or of none that is known: also those that have left the plan, whose users keep them."""
    record = status.phase(phase)
    published = record.features if record is not None and record.is_published else ()
    return (*published, *(kept.feature for kept in status.flags.retired if phase is None or kept.phase in {None, phase}))


def guards_are_judged(rollout: SessionRollout) -> bool:
    """Whether guards are evaluated: from the first phase on, and as long as something is published, until Promoted.

    What earlier phases published stays guarded in a later preflight, during a rollback and after it.
    """
    if rollout.status.outcome is Outcome.PROMOTED:
        return False
    begun = any(
        record.state is PhaseState.RUNNING for record in rollout.status.phases
    )  # also if an edit returned it to its preflight
    return begun or rollout.status.current.stage in _GUARDED_STAGES or bool(published_phases(rollout.status))


def needed_metrics(rollout: SessionRollout) -> tuple[Metric, ...]:
    """The metrics that are evaluated in the stage the rollout is in; a new object starts with its preflight."""
    spec, current = rollout.spec, rollout.status.current
    phase = phase_named(spec, current.phase)
    checks: list[Check | Gate] = []
    if guards_are_judged(rollout):
        checks += spec.guards
    checks += current_gates(rollout)[1]
    if phase is not None and current.stage in {Stage.BASELINE, Stage.STEP}:
        checks += phase.criteria
    names = {name for check in checks for name in (check.metrics if isinstance(check, Check) else (check.metric,))}
    return tuple(metric for metric in spec.metrics if metric.name in names)


def running_jobs(rollout: SessionRollout) -> tuple[str, ...]:
    """Names of the Jobs that the rollout waits for."""
    migrations = tuple(record.job for record in rollout.status.migrations if record.state in RUNNING and record.job)
    checks = tuple(record.job for record in rollout.status.checks if record.job and record.verdict is Verdict.NOT_EVALUATED)
    return (*migrations, *checks)


def has_jobs(spec: RolloutSpec) -> bool:
    """Whether migrations or checks of the rollout are Jobs."""
    return bool(spec.migrations) or any(gate.job is not None for gate in spec.all_gates())


def needs_revisions(rollout: SessionRollout) -> bool:
    """Whether an undo or a restart of the workload was requested and is not done yet."""
    record = rollout.status.workload
    if record is None or rollout.spec.workload is None:
        return False
    return bool(record.undo_requested_time and not record.undone_time) or bool(
        record.restart_requested_time and not record.restarted_time
    )


def needs_workload(rollout: SessionRollout) -> bool:
    """Whether the workload's availability matters now."""
    return rollout.spec.workload is not None and rollout.status.current.stage is Stage.PREFLIGHT
