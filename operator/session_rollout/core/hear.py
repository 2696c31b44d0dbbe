"""People's actions: each is accepted or refused with a sentence, once, and what it changed is in status before it is answered."""

from collections.abc import Callable
from typing import Final

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.reasons import (
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
from session_rollout.core import migrate, workload
from session_rollout.core.draft import Draft
from session_rollout.core.gates import retry_checks
from session_rollout.core.generation import restart
from session_rollout.core.observed import Answer
from session_rollout.core.plan import PREFLIGHT, RUNNING, VERIFICATION
from session_rollout.core.rollback import begin_rollback

EMERGENCY = frozenset({ActionType.EMERGENCY_DISABLE, ActionType.RESTORE})


class Refused(Exception):
    """Why an action is not done; the message is the answer."""


def hear(draft: Draft) -> None:
    """Answer every unanswered action, oldest first; emergencies before all else."""
    for request in sorted(draft.observed.requests, key=lambda one: (one.spec.action not in EMERGENCY,)):
        _hear_one(draft, request)


def _hear_one(draft: Draft, request: SessionRolloutAction) -> None:
    if any(entry.by == request.name for entry in draft.status.history):
        # Done before a crash that came ahead of the answer.
        draft.effects.append(Answer(request.name, accepted=True, message=f"{request.spec.action}: done"))
        return
    try:
        message = _do(draft, request)
    except Refused as reason:
        draft.effects.append(Answer(request.name, accepted=False, message=str(reason)))
    else:
        draft.tell(EventReason.ACTION_ACCEPTED, f"{request.spec.action}: {message}", by=request.name)
        draft.effects.append(Answer(request.name, accepted=True, message=message))


def _do(draft: Draft, request: SessionRolloutAction) -> str:
    if draft.spec.suspend and request.spec.action not in EMERGENCY:
        raise Refused("the rollout is suspended: set `spec.suspend` to false first")
    return _WAYS[request.spec.action](draft, request)


def _named(request: SessionRolloutAction, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    unknown = sorted(set(request.spec.features) - set(known))
    if unknown:
        raise Refused(f"`features` names {unknown[0]}, which is not {what}; allowed are {', '.join(known) or 'none'}"[:512])
    return request.spec.features or known


def _disable(draft: Draft, request: SessionRolloutAction) -> str:
    names = _named(request, tuple(feature.name for feature in draft.spec.features), "one of `features`")
    already = {one.feature for one in draft.status.flags.disabled}
    fresh = tuple(
        DisabledFeature(feature=name, reason=request.spec.reason, by=request.name, time=draft.now)
        for name in names
        if name not in already
    )
    flags = draft.status.flags.model_copy(update={"disabled": (*draft.status.flags.disabled, *fresh)})
    draft.change(flags=flags)
    text = _list(names)
    draft.tell(EventReason.FLAGS_DISABLED, f"{text} off for everybody: {request.spec.reason}")
    return f"{text} off for everybody"


def _restore(draft: Draft, request: SessionRolloutAction) -> str:
    names = _named(request, tuple(one.feature for one in draft.status.flags.disabled), "disabled")
    if not names:
        raise Refused("nothing is disabled")
    left = tuple(one for one in draft.status.flags.disabled if one.feature not in names)
    draft.change(flags=draft.status.flags.model_copy(update={"disabled": left}))
    draft.tell(EventReason.FLAGS_RESTORED, f"{_list(names)} as the rollout says again: {request.spec.reason}")
    return f"{_list(names)} as the rollout says again"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")  # noqa: PLR2004 - a line's length


def _pause(draft: Draft, request: SessionRolloutAction) -> str:
    _running(draft)
    if draft.status.paused_by:
        raise Refused(f"already paused by {draft.status.paused_by}")
    draft.change(paused_by=request.name)
    draft.tell(EventReason.PAUSED, request.spec.reason or "by a person")
    return "paused; guards still protect"


def _resume(draft: Draft, _: SessionRolloutAction) -> str:
    if not draft.status.paused_by:
        raise Refused("not paused")
    draft.change(paused_by=None)
    draft.tell(EventReason.RESUMED, "by a person")
    return "resumed"


def _abort(draft: Draft, request: SessionRolloutAction) -> str:
    _running(draft)
    begin_rollback(draft, Outcome.ABORTED, (request.spec.reason,))
    return f"rolling back to the {draft.spec.rollback.scope.lower()}"


def _retry(draft: Draft, request: SessionRolloutAction) -> str:
    _same_generation(draft, request)
    if draft.status.outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}:
        migrate.retry_failed(draft)
        restart(draft)
        return "starts again with the phase that was rolled back"
    if migrate.retry_failed(draft):
        return "the failed migration gets another attempt"
    if retry_checks(draft):
        return "the failed check runs again"
    raise Refused("nothing to retry: the generation was not rolled back, no migration has failed, and no Job of a check")


def _migration(draft: Draft, request: SessionRolloutAction) -> MigrationRecord:
    """The migration that is meant, while nothing of it runs."""
    known = {record.name: record for record in draft.status.migrations}
    record = known.get(request.spec.migration or "")
    if record is None:
        allowed = ", ".join(known) or "none has begun"
        raise Refused(f"`migration` names {request.spec.migration}, and of those that have begun: {allowed}"[:512])
    if running := [one.name for one in draft.status.migrations if one.state in RUNNING]:
        raise Refused(f"migration {running[0]} is running: ask again when it has ended")
    return record


def _restore_sessions(draft: Draft, request: SessionRolloutAction) -> str:
    record, wish = _migration(draft, request), request.spec
    if record.backup_time is None:
        raise Refused(f"there is no snapshot of {record.name}")
    arguments = [f"--user={wish.user}"] if wish.user else []
    arguments += [f"--at={wish.at.isoformat()}"] if wish.at else []
    arguments += ["--exact", "--lose-newer"] if wish.lose_newer else []
    migrate.begin(draft, record, Operation.RESTORE, *arguments)
    return f"{record.name}: rows come back from the snapshot; " + ("all of them" if wish.lose_newer else "newer ones are kept")


def _retry_migration(draft: Draft, request: SessionRolloutAction) -> str:
    record = _migration(draft, request)
    if record.state is MigrationState.FAILED:
        migrate.retry_failed(draft)
        return f"{record.name} gets another attempt"
    if not record.quarantined:
        raise Refused(f"nothing to retry: {record.name} has not failed and has no row in quarantine")
    migrate.begin(draft, record, Operation.RETRY)
    return f"{record.quarantined:,} rows in quarantine are tried again"


def _backup_sessions(draft: Draft, request: SessionRolloutAction) -> str:
    record = _migration(draft, request)
    if record.state is not MigrationState.SUCCEEDED:
        raise Refused(f"{record.name} is {record.state}: a snapshot is taken of what is up")
    migrate.begin(draft, record, Operation.BACKUP, f"--label={request.name[:60]}")
    return f"a snapshot of the tables of {record.name} is taken"


def _recover_sessions(draft: Draft, request: SessionRolloutAction) -> str:
    record = _migration(draft, request)
    if record.total is None:
        raise Refused(f"{record.name} moves no rows: there are none to mend")
    migrate.begin(draft, record, Operation.REPAIR)
    return f"{record.name}: damaged rows are mended from their source"


def _migrate_down(draft: Draft, request: SessionRolloutAction) -> str:
    record = _migration(draft, request)
    if draft.current.stage is not Stage.ENDED or draft.status.outcome is Outcome.PROMOTED:
        raise Refused("a migration is undone by hand only when its phase was rolled back: `Abort` first")
    if record.point_of_no_return is NoReturn.PASSED:
        raise Refused(f"{record.name} has passed its point of no return")
    if record.state is not MigrationState.SUCCEEDED:
        raise Refused(f"{record.name} is {record.state}: there is nothing to undo")
    migrate.begin(draft, record, Operation.DOWN, *migrate.down_arguments(draft))
    return f"{record.name} is undone"


def _restart(draft: Draft, _: SessionRolloutAction) -> str:
    name = _workload(draft)
    workload.ask_restart(draft)
    return f"Pods of {name} are replaced"


def _undo(draft: Draft, _: SessionRolloutAction) -> str:
    name = _workload(draft)
    workload.ask_undo(draft)
    return f"{name} goes back to its earlier revision"


def _workload(draft: Draft) -> str:
    if draft.spec.workload is None:
        raise Refused("`workload` is not in the spec: it names the Deployment")
    return draft.spec.workload.name


def _only_looks(_: Draft, request: SessionRolloutAction) -> str:
    raise Refused(f"{request.spec.action} is answered by an examination")


def _promote(draft: Draft, request: SessionRolloutAction) -> str:
    _same_step(draft, request)
    draft.skip_step = request.name
    return f"past the checks of step {request.spec.step} of phase {request.spec.phase}: {request.spec.reason}"


def _approve_step(draft: Draft, request: SessionRolloutAction) -> str:
    _same_step(draft, request)
    phase = draft.phase
    if phase is None or phase.steps[draft.current.step - 1].approval is not StepApproval.REQUIRED:
        raise Refused(f"step {request.spec.step} of phase {request.spec.phase} needs no approval")
    draft.move(approved_by=request.name)
    return f"step {request.spec.step} of phase {request.spec.phase} is approved"


def _approve_check(draft: Draft, request: SessionRolloutAction) -> str:
    _same_generation(draft, request)
    kind = {Stage.PREFLIGHT: PREFLIGHT, Stage.VERIFICATION: VERIFICATION}.get(draft.current.stage)
    gates = draft.spec.preflight if kind == PREFLIGHT else draft.phase.verification if draft.phase and kind else ()
    if kind is None or not any(gate.name == request.spec.check and gate.approval for gate in gates):
        waiting = ", ".join(gate.name for gate in gates if gate.approval) or "none"
        raise Refused(f"`check` names {request.spec.check}, and no such approval is awaited now; awaited are {waiting}")
    draft.put_check(
        CheckRecord(
            name=request.spec.check or "",
            kind=kind,
            verdict=Verdict.PASS,
            time=draft.now,
            message=f"{request.spec.check}: approved by {request.name}",
        )
    )
    return f"{request.spec.check} is approved"


def _approve(draft: Draft, request: SessionRolloutAction) -> str:
    return _approve_check(draft, request) if request.spec.check else _approve_step(draft, request)


def _running(draft: Draft) -> None:
    if draft.current.stage is Stage.ENDED:
        raise Refused(f"the rollout has ended ({draft.status.outcome}): nothing is running")
    if draft.current.stage is Stage.ROLLING_BACK:
        raise Refused("the rollout is rolling back already")


def _same_generation(draft: Draft, request: SessionRolloutAction) -> None:
    if request.spec.generation != draft.status.observed_generation:
        raise Refused(
            f"`generation` is {request.spec.generation}, and generation {draft.status.observed_generation} is running"
        )


def _same_step(draft: Draft, request: SessionRolloutAction) -> None:
    _running(draft)
    _same_generation(draft, request)
    here = (draft.current.phase, draft.current.step)
    if draft.current.stage is not Stage.STEP or (request.spec.phase, request.spec.step) != here:
        where = f"step {here[1]} of phase {here[0]}" if draft.current.stage is Stage.STEP else f"in {draft.current.stage}"
        raise Refused(f"meant is step {request.spec.step} of phase {request.spec.phase}, and the rollout is at {where}")


_WAYS: Final[dict[ActionType, Callable[[Draft, SessionRolloutAction], str]]] = {
    ActionType.EMERGENCY_DISABLE: _disable,
    ActionType.RESTORE: _restore,
    ActionType.PAUSE: _pause,
    ActionType.RESUME: _resume,
    ActionType.ABORT: _abort,
    ActionType.RETRY: _retry,
    ActionType.PROMOTE: _promote,
    ActionType.APPROVE: _approve,
    ActionType.RESTORE_SESSIONS: _restore_sessions,
    ActionType.RETRY_MIGRATION: _retry_migration,
    ActionType.BACKUP_SESSIONS: _backup_sessions,
    ActionType.RECOVER_SESSIONS: _recover_sessions,
    ActionType.MIGRATE_DOWN: _migrate_down,
    ActionType.RESTART_WORKLOAD: _restart,
    ActionType.UNDO_WORKLOAD: _undo,
    ActionType.VERIFY: _only_looks,
    ActionType.DIAGNOSE: _only_looks,
    ActionType.INSPECT_MIGRATION: _only_looks,
}
