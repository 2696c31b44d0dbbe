"""People's actions: each is accepted or refused with a sentence, once, and what it changed is in status before it is answered."""

from collections.abc import Callable
from typing import Final

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import (
    ActionType,
    EventReason,
    MigrationState,
    NoReturn,
    Operation,
    Outcome,
    Stage,
    Verdict,
)
from session_rollout.api.rollout import StepApproval
from session_rollout.api.status import CheckRecord, DisabledFeature, MigrationRecord
from session_rollout.core import migration_jobs, workload
from session_rollout.core.context import DecisionContext
from session_rollout.core.gates import retry_checks
from session_rollout.core.generation import restart
from session_rollout.core.inputs import PREFLIGHT, RUNNING, VERIFICATION
from session_rollout.core.observed import Answer
from session_rollout.core.rollback import begin_rollback

EMERGENCY = frozenset({ActionType.EMERGENCY_DISABLE, ActionType.EMERGENCY_ENABLE})


class Refused(Exception):
    """Why an action is not done; the message is the answer."""


def hear(context: DecisionContext) -> None:
    """Answer every unanswered action, oldest first; emergencies before all else."""
    for request in sorted(context.observed.actions, key=lambda one: (one.spec.action not in EMERGENCY,)):
        _hear_one(context, request)


def _hear_one(context: DecisionContext, request: SessionRolloutAction) -> None:
    if any(entry.by == request.name for entry in context.status.history):
        # Done before a crash that came ahead of the answer.
        context.effects.append(Answer(request.name, accepted=True, message=f"{request.spec.action}: done"))
        return
    try:
        message = _do(context, request)
    except Refused as reason:
        context.effects.append(Answer(request.name, accepted=False, message=str(reason)))
    else:
        context.tell(EventReason.ACTION_ACCEPTED, f"{request.spec.action}: {message}", by=request.name)
        context.effects.append(Answer(request.name, accepted=True, message=message))


def _do(context: DecisionContext, request: SessionRolloutAction) -> str:
    if context.spec.suspend and request.spec.action not in EMERGENCY:
        raise Refused("the rollout is suspended: set `spec.suspend` to false first")
    return _WAYS[request.spec.action](context, request)


def _named(request: SessionRolloutAction, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    unknown = sorted(set(request.spec.features) - set(known))
    if unknown:
        raise Refused(f"`features` names {unknown[0]}, which is not {what}; allowed are {', '.join(known) or 'none'}"[:512])
    return request.spec.features or known


def _disable(context: DecisionContext, request: SessionRolloutAction) -> str:
    names = _named(request, tuple(feature.name for feature in context.spec.features), "one of `features`")
    already = {one.feature for one in context.status.flags.disabled}
    fresh = tuple(
        DisabledFeature(feature=name, reason=request.spec.reason, by=request.name, time=context.now)
        for name in names
        if name not in already
    )
    flags = context.status.flags.model_copy(update={"disabled": (*context.status.flags.disabled, *fresh)})
    context.change(flags=flags)
    text = _list(names)
    context.tell(EventReason.FLAGS_DISABLED, f"{text} off for everybody: {request.spec.reason}")
    return f"{text} off for everybody"


def _restore(context: DecisionContext, request: SessionRolloutAction) -> str:
    names = _named(request, tuple(one.feature for one in context.status.flags.disabled), "disabled")
    if not names:
        raise Refused("nothing is disabled")
    left = tuple(one for one in context.status.flags.disabled if one.feature not in names)
    context.change(flags=context.status.flags.model_copy(update={"disabled": left}))
    context.tell(EventReason.FLAGS_RESTORED, f"{_list(names)} as the rollout says again: {request.spec.reason}")
    return f"{_list(names)} as the rollout says again"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")  # noqa: PLR2004 - a line's length


def _pause(context: DecisionContext, request: SessionRolloutAction) -> str:
    _running(context)
    if context.status.paused_by:
        raise Refused(f"already paused by {context.status.paused_by}")
    context.change(paused_by=request.name)
    context.tell(EventReason.PAUSED, request.spec.reason or "by a person")
    return "paused; guards still protect"


def _resume(context: DecisionContext, _: SessionRolloutAction) -> str:
    if not context.status.paused_by:
        raise Refused("not paused")
    context.change(paused_by=None)
    context.tell(EventReason.RESUMED, "by a person")
    return "resumed"


def _abort(context: DecisionContext, request: SessionRolloutAction) -> str:
    _running(context)
    begin_rollback(context, Outcome.ABORTED, (request.spec.reason,))
    return f"rolling back to the {context.spec.rollback.scope.lower()}"


def _retry(context: DecisionContext, request: SessionRolloutAction) -> str:
    _same_generation(context, request)
    if context.status.outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}:
        migration_jobs.retry_failed(context)
        restart(context)
        return "starts again with the phase that was rolled back"
    if migration_jobs.retry_failed(context):
        return "the failed migration gets another attempt"
    if retry_checks(context):
        return "the failed check runs again"
    raise Refused("nothing to retry: the generation was not rolled back, no migration has failed, and no Job of a check")


def _migration(context: DecisionContext, request: SessionRolloutAction) -> MigrationRecord:
    """The migration that is meant, while nothing of it runs."""
    known = {record.name: record for record in context.status.migrations}
    record = known.get(request.spec.migration or "")
    if record is None:
        allowed = ", ".join(known) or "none has begun"
        raise Refused(f"`migration` names {request.spec.migration}, and of those that have begun: {allowed}"[:512])
    if running := [one.name for one in context.status.migrations if one.state in RUNNING]:
        raise Refused(f"migration {running[0]} is running: ask again when it has ended")
    return record


def _restore_sessions(context: DecisionContext, request: SessionRolloutAction) -> str:
    record, wish = _migration(context, request), request.spec
    if record.backup_time is None:
        raise Refused(f"there is no snapshot of {record.name}")
    arguments = [f"--user={wish.user}"] if wish.user else []
    arguments += [f"--at={wish.at.isoformat()}"] if wish.at else []
    arguments += ["--exact", "--lose-newer"] if wish.lose_newer else []
    migration_jobs.begin(context, record, Operation.RESTORE, *arguments)
    return f"{record.name}: rows come back from the snapshot; " + ("all of them" if wish.lose_newer else "newer ones are kept")


def _retry_migration(context: DecisionContext, request: SessionRolloutAction) -> str:
    record = _migration(context, request)
    if record.state is MigrationState.FAILED:
        migration_jobs.retry_failed(context)
        return f"{record.name} gets another attempt"
    if not record.quarantined:
        raise Refused(f"nothing to retry: {record.name} has not failed and has no row in quarantine")
    migration_jobs.begin(context, record, Operation.RETRY)
    return f"{record.quarantined:,} rows in quarantine are tried again"


def _backup_sessions(context: DecisionContext, request: SessionRolloutAction) -> str:
    record = _migration(context, request)
    if record.state is not MigrationState.SUCCEEDED:
        raise Refused(f"{record.name} is {record.state}: a snapshot is taken of what is up")
    migration_jobs.begin(context, record, Operation.BACKUP, f"--label={request.name[:60]}")
    return f"a snapshot of the tables of {record.name} is taken"


def _recover_sessions(context: DecisionContext, request: SessionRolloutAction) -> str:
    record = _migration(context, request)
    if record.total is None:
        raise Refused(f"{record.name} moves no rows: there are none to mend")
    migration_jobs.begin(context, record, Operation.RECOVER)
    return f"{record.name}: damaged rows are mended from their source"


def _migrate_down(context: DecisionContext, request: SessionRolloutAction) -> str:
    record = _migration(context, request)
    if context.current.stage is not Stage.ENDED or context.status.outcome is Outcome.PROMOTED:
        raise Refused("a migration is undone by hand only when its phase was rolled back: `Abort` first")
    if record.point_of_no_return is NoReturn.PASSED:
        raise Refused(f"{record.name} has passed its point of no return")
    if record.state is not MigrationState.SUCCEEDED:
        raise Refused(f"{record.name} is {record.state}: there is nothing to undo")
    migration_jobs.begin(context, record, Operation.DOWN, *migration_jobs.down_arguments(context))
    return f"{record.name} is undone"


def _restart(context: DecisionContext, _: SessionRolloutAction) -> str:
    name = _workload(context)
    workload.ask_restart(context)
    return f"Pods of {name} are replaced"


def _undo(context: DecisionContext, _: SessionRolloutAction) -> str:
    name = _workload(context)
    workload.ask_undo(context)
    return f"{name} goes back to its earlier revision"


def _workload(context: DecisionContext) -> str:
    if context.spec.workload is None:
        raise Refused("`workload` is not in the spec: it names the Deployment")
    return context.spec.workload.name


def _is_read_only(_: DecisionContext, request: SessionRolloutAction) -> str:
    raise Refused(f"{request.spec.action} is answered by an examination")


def _promote(context: DecisionContext, request: SessionRolloutAction) -> str:
    _same_step(context, request)
    context.skip_step = request.name
    return f"past the checks of step {request.spec.step} of phase {request.spec.phase}: {request.spec.reason}"


def _approve_step(context: DecisionContext, request: SessionRolloutAction) -> str:
    _same_step(context, request)
    phase = context.phase
    if phase is None or phase.steps[context.current.step - 1].approval is not StepApproval.REQUIRED:
        raise Refused(f"step {request.spec.step} of phase {request.spec.phase} needs no approval")
    context.move(approved_by=request.name)
    return f"step {request.spec.step} of phase {request.spec.phase} is approved"


def _approve_check(context: DecisionContext, request: SessionRolloutAction) -> str:
    _same_generation(context, request)
    kind = {Stage.PREFLIGHT: PREFLIGHT, Stage.VERIFICATION: VERIFICATION}.get(context.current.stage)
    gates = context.spec.preflight if kind == PREFLIGHT else context.phase.verification if context.phase and kind else ()
    if kind is None or not any(gate.name == request.spec.check and gate.approval for gate in gates):
        waiting = ", ".join(gate.name for gate in gates if gate.approval) or "none"
        raise Refused(f"`check` names {request.spec.check}, and no such approval is awaited now; awaited are {waiting}")
    context.put_check(
        CheckRecord(
            name=request.spec.check or "",
            kind=kind,
            verdict=Verdict.PASS,
            time=context.now,
            message=f"{request.spec.check}: approved by {request.name}",
        )
    )
    return f"{request.spec.check} is approved"


def _approve(context: DecisionContext, request: SessionRolloutAction) -> str:
    return _approve_check(context, request) if request.spec.check else _approve_step(context, request)


def _running(context: DecisionContext) -> None:
    if context.current.stage is Stage.ENDED:
        raise Refused(f"the rollout has ended ({context.status.outcome}): nothing is running")
    if context.current.stage is Stage.ROLLING_BACK:
        raise Refused("the rollout is rolling back already")


def _same_generation(context: DecisionContext, request: SessionRolloutAction) -> None:
    if request.spec.generation != context.status.observed_generation:
        raise Refused(
            f"`generation` is {request.spec.generation}, and generation {context.status.observed_generation} is running"
        )


def _same_step(context: DecisionContext, request: SessionRolloutAction) -> None:
    _running(context)
    _same_generation(context, request)
    here = (context.current.phase, context.current.step)
    if context.current.stage is not Stage.STEP or (request.spec.phase, request.spec.step) != here:
        where = f"step {here[1]} of phase {here[0]}" if context.current.stage is Stage.STEP else f"in {context.current.stage}"
        raise Refused(f"meant is step {request.spec.step} of phase {request.spec.phase}, and the rollout is at {where}")


_WAYS: Final[dict[ActionType, Callable[[DecisionContext, SessionRolloutAction], str]]] = {
    ActionType.EMERGENCY_DISABLE: _disable,
    ActionType.EMERGENCY_ENABLE: _restore,
    ActionType.PAUSE: _pause,
    ActionType.RESUME: _resume,
    ActionType.ABORT: _abort,
    ActionType.RETRY: _retry,
    ActionType.PROMOTE: _promote,
    ActionType.APPROVE: _approve,
    ActionType.RESTORE_DATA: _restore_sessions,
    ActionType.RETRY_MIGRATION: _retry_migration,
    ActionType.BACKUP_DATA: _backup_sessions,
    ActionType.REPAIR_DATA: _recover_sessions,
    ActionType.MIGRATE_DOWN: _migrate_down,
    ActionType.RESTART_WORKLOAD: _restart,
    ActionType.UNDO_WORKLOAD: _undo,
    ActionType.VERIFY: _is_read_only,
    ActionType.DIAGNOSE: _is_read_only,
    ActionType.INSPECT_MIGRATION: _is_read_only,
}
