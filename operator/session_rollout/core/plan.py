"""What a decision will need to know: the controller gathers exactly this."""

from typing import Final

from session_rollout.api.reasons import MigrationState, Stage
from session_rollout.api.rollout import Check, Gate, Metric, SessionRollout
from session_rollout.core.programme import phase_named

JUDGED_STAGES: Final = frozenset({Stage.BASELINE, Stage.BEFORE, Stage.STEP, Stage.VERIFICATION, Stage.AFTER, Stage.BAKE})
RUNNING: Final = frozenset({MigrationState.RUNNING, MigrationState.REVERTING})


def needed_metrics(rollout: SessionRollout) -> tuple[Metric, ...]:
    """The metrics that are judged in the stage the rollout is in; a new object starts with its preflight."""
    spec, current = rollout.spec, rollout.status.current
    phase = phase_named(spec, current.phase)
    checks: list[Check | Gate] = []
    if current.stage in JUDGED_STAGES:
        checks += spec.guards
    if current.stage is Stage.PREFLIGHT:
        checks += spec.preflight
    if phase is not None and current.stage in {Stage.BASELINE, Stage.STEP}:
        checks += phase.criteria
    if phase is not None and current.stage is Stage.VERIFICATION:
        checks += phase.verification
    names = {check.metric for check in checks}
    return tuple(metric for metric in spec.metrics if metric.name in names)


def running_jobs(rollout: SessionRollout) -> tuple[str, ...]:
    """Names of the Jobs whose end is awaited."""
    return tuple(record.job for record in rollout.status.migrations if record.state in RUNNING and record.job)


def needs_workload(rollout: SessionRollout) -> bool:
    """Whether the workload's availability matters now."""
    return rollout.spec.workload is not None and rollout.status.current.stage is Stage.PREFLIGHT
