"""Rollback: the flags first, in the decision that observes the breach; then, in order, the slower parts.

A rollback never waits for Prometheus, windows or approvals. It waits only for a running migration, which is never terminated.
"""

from functools import reduce
from typing import Final

from session_rollout.api.base import sha256_of
from session_rollout.api.enums import DecisionAction, DecisionReason, EventReason, Outcome, PhaseState, Stage
from session_rollout.api.flag_records import settled
from session_rollout.api.migration_enums import MigrationState, Operation
from session_rollout.api.protection import Protection
from session_rollout.api.quantities import duration
from session_rollout.api.rollback import OnRollback, OnWorkload, RollbackScope
from session_rollout.api.status_records import MigrationRecord, PhaseRecord
from session_rollout.core import migration_jobs, workload
from session_rollout.core.audiences import gives_less, lesser
from session_rollout.core.clocks import range_of
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.flags import NOBODY, Audience, audiences, disabled_features, held_back_of, of_users, without_held_back
from session_rollout.core.inputs import kept_features, published_phases
from session_rollout.core.observed import JobState
from session_rollout.core.plan import note_rolled_back
from session_rollout.core.publication import audience_before
from session_rollout.core.steps import Increment, increments_before, percent_text
from session_rollout.core.withdrawal import idle

EVENTS: Final = {Outcome.ROLLED_BACK: EventReason.ROLLED_BACK, Outcome.ABORTED: EventReason.ABORTED}


def begin_rollback(
    context: DecisionContext,
    outcome: Outcome,
    causes: tuple[str, ...],
    uid: str,
    *,
    guard: str | None = None,
    blamed: tuple[str, ...] = (),
    phases: tuple[str, ...] | None = None,
) -> None:
    """Reduce the audiences as `rollback.scope` says; publishing follows in the same decision.

    `causes` are sentences for users, `uid` identifies the rollback (`api.protection`). `guard` is the name of the first guard
    in breach; None when no guard started it; `blamed` are the phases that guards in breach name. `phases` are the names of the affected phases; by default the running one and,
    when that has published nothing and a guard is in breach, the newest one that is published.
    """
    scope = context.spec.rollback.scope
    message = f"rolling back the {scope.lower() if scope is not RollbackScope.ALL else 'whole rollout'}: {'; '.join(causes)}"
    context.record_event(EventReason.ROLLBACK_STARTED, message, check=guard)
    affected = phases if phases is not None else (*_affected(context, by_guard=guard is not None), *blamed)
    records = [record for record in context.status.phases if record.name in affected]
    takes_away = phases is not None or any(_is_measured(context, record) for record in records)
    percent, groups = "0", tuple[str, ...]()
    for record in records:
        percent, groups = _audience_left(context, record, learned=phases is not None)
        fields = {"percent": percent, "groups": groups, "end_time": context.now, "promoted_time": None}  # guarded again
        context.mark(record.name, state=PhaseState.ROLLED_BACK, placebo=None, **fields)
    context.change(flags=settled(context.status.flags, (uid,)).updated(released_time=None), outcome=None)
    context.enter(
        Stage.ROLLING_BACK,
        step=context.current.step,
        percent=percent,
        groups=groups,
        guards_start_time=None if takes_away else context.current.guards_start_time,
        rollback_outcome=outcome,
        rollback_guard=guard,
        rollback_reasons=causes,
        rollback_uid=uid,
    )


def _affected(context: DecisionContext, *, by_guard: bool) -> tuple[str, ...]:
    """The phases that a rollback turns off: with scope All every one that has begun, else the running one.

    What a guard measures may come from an earlier phase: where it cannot be about users of the running one, or that was rolled
    back already, the newest one whose features users have follows.
    """
    begun = [record for record in context.status.phases if record.state in {PhaseState.RUNNING, PhaseState.COMPLETED}]
    if context.spec.rollback.scope is not RollbackScope.ALL:
        here = [record for record in begun if record.name == context.current.phase]
        begun = here or [record for record in begun if record.state is PhaseState.RUNNING]  # the status was edited by hand
    planned = {phase.name for phase in context.spec.phases}
    published = sorted(
        published_phases(context.status),
        key=lambda record: (_has_users(context, record), record.name in planned),  # else in the order of the spec
    )
    if by_guard and published and not any(_is_measured(context, record) for record in begun):
        begun = [published[-1], *begun]
    return tuple(record.name for record in begun)


def _has_users(context: DecisionContext, record: PhaseRecord) -> bool:
    """Whether somebody has a feature of this phase, as the document in the cluster says: the status may be ahead of it."""
    document = context.observed.document
    if document is None:
        return record.is_published
    return any(of_users(document.audiences).get(name, NOBODY) != NOBODY for name in record.features)


def _is_measured(context: DecisionContext, record: PhaseRecord) -> bool:
    """Whether what guards measure may be about users of this phase: they have its features, or had them a moment ago.

    An emergency turns a phase off as a rollback does. Until the queries cover no older data, a breach may be its breach.
    """
    if _has_users(context, record):
        return True
    document, since = context.observed.document, context.status.flags.published_time
    killed = document is not None and any(name in document.disabled for name in record.features)
    if not (record.is_published and killed and since is not None):
        return False
    metrics = tuple(name for guard in context.spec.guards for name in guard.metrics)
    return context.now < since + duration(context.spec.propagation) + range_of(context, metrics)


def breach_uid(context: DecisionContext, cause: str) -> str:
    """What identifies a rollback that no action has requested."""
    identity = f"{context.observed.rollout.uid}/{cause}/{context.now.isoformat()}"
    return f"breach-{sha256_of(identity).removeprefix('sha256:')[:32]}"


def _audience_left(context: DecisionContext, record: PhaseRecord, *, learned: bool) -> tuple[str, tuple[str, ...]]:
    """What the phase keeps: nothing, or with scope Step and in a step the audience before the one that users have.

    That is never more than they had before this step: a `Promote` skips increments of the plan. A document that a rollback was
    learned from has its result.
    """
    here = context.increment if context.current.stage is Stage.STEP else None
    if context.spec.rollback.scope is not RollbackScope.STEP or context.phase is None or here is None:
        return "0", ()
    if record.name != context.current.phase:
        return "0", ()
    users = _audience_of_users(context, record, here)
    earlier = [(each, _planned(context, each)) for each in increments_before(context.phase, here)]
    kept = [
        audience
        for increment, audience in earlier
        if (_is_published(context, increment) if learned else gives_less(audience, users))
    ]
    left = lesser(kept[-1], users) if kept else NOBODY
    if context.current.earlier_percent is not None:  # else an older version has written the status
        left = lesser(left, audience_before(context))
    return percent_text(left.percent), left.groups


def _audience_of_users(context: DecisionContext, record: PhaseRecord, here: Increment) -> Audience:
    """What users have of the running phase: less than the status says where it is not published, or the document gives less."""
    document, audience = context.observed.document, _planned(context, here)
    if context.current.is_unpublished and not _is_published(context, here):
        audience = audience_before(context)
    if document is None:
        return audience
    off = {*document.disabled, *disabled_features(context.spec, context.status)}
    given = (document.audiences.get(name) for name in record.features if name not in off)
    return reduce(lesser, (each for each in given if each is not None), audience)


def _is_published(context: DecisionContext, increment: Increment) -> bool:
    """Whether the document in the cluster gives a feature of the running phase to this audience."""
    document, wanted = context.observed.document, _planned(context, increment)
    features = context.phase.features if context.phase is not None else ()
    return document is not None and any(document.audiences.get(name) == wanted for name in features)


def _planned(context: DecisionContext, increment: Increment) -> Audience:
    """Who has the features of the running phase in an increment."""
    record = context.status.phase(context.current.phase)
    audience = Audience(increment.percent, increment.groups, increment.placebo)
    return without_held_back(audience, held_back_of(context.status, record)) if record is not None else audience


def still_given(context: DecisionContext) -> tuple[str, ...]:
    """Features that users have in spite of a running rollback: the document in the cluster gives more than the rollback leaves.

    A document that is gone takes nothing away from applications that have read it.
    """
    if context.current.stage is not Stage.ROLLING_BACK or context.current.published_time is not None:
        return ()
    document, wanted = context.document, audiences(context.spec, context.status)
    names = [name for record in _rolled_back(context) for name in record.features]
    if document is None:
        return tuple(names) if context.status.flags.published_time is not None else ()
    published = {name: document.audiences.get(name, NOBODY) for name in names}
    return tuple(name for name, audience in published.items() if audience is None or gives_less(wanted[name], audience))


def refused_rollback(context: DecisionContext) -> tuple[str, ...]:
    """The same for a rollback of an earlier decision: that of this one is written before the status."""
    earlier = context.observed.rollout.status.current.rollback_uid == context.current.rollback_uid
    return still_given(context) if earlier else ()


def continue_rollback(context: DecisionContext) -> StageResult | None:
    """Run the next part of the rollback that is not done; None when all parts are done and the generation has ended."""
    current, options = context.current, context.spec.rollback
    if current.published_time is None:
        reason = DecisionReason.PUBLISHING_ROLLBACK
        return StageResult(DecisionAction.ROLL_BACK, reason, "rolling back: publishing the flags", current.rollback_reasons)
    if running := _await_migrations(context):
        return StageResult(
            DecisionAction.ROLL_BACK,
            DecisionReason.AWAITING_MIGRATION,
            f"rolling back: waiting for migration {running[0]}",
            current.rollback_reasons,
            (f"wait for migration {running[0]} to end",),
        )
    names = _migrations(context)
    if options.restore_data and (result := migration_jobs.run_restore(context, names, current.stage_start_time)):
        return result
    if options.migrations is OnRollback.DOWN and (result := migration_jobs.run_down(context, names)):
        return result
    if (
        options.workload is OnWorkload.UNDO
        and not _keeps_users(context)
        and (result := workload.run_undo(context, current.stage_start_time))
    ):
        return result
    _end(context, current.rollback_outcome, current.rollback_guard, current.rollback_reasons, current.rollback_uid)
    return None


def end_rollback(context: DecisionContext, rollback: Protection) -> None:
    """End the generation as this rollback ended another one; what it undid is not undone again."""
    context.change(flags=settled(context.status.flags, (rollback.uid,)))
    _end(context, rollback.outcome, rollback.guard, rollback.causes, rollback.uid)


def _end(
    context: DecisionContext, outcome: Outcome | None, guard: str | None, causes: tuple[str, ...], uid: str | None
) -> None:
    note_rolled_back(context)
    outcome = outcome if outcome in EVENTS else Outcome.ROLLED_BACK  # an annotation or a status may have been written by hand
    context.end(
        outcome,
        EVENTS[outcome],
        "; ".join(causes),
        rollback_outcome=outcome,
        rollback_guard=guard,
        rollback_reasons=causes,
        rollback_uid=uid,
    )


def _migrations(context: DecisionContext) -> tuple[str, ...]:
    """The migrations of the phases that are rolled back and that nobody has, in the order in which they ran."""
    back = {record.name for record in _rolled_back(context) if not kept_features(context.status, record.name)}
    return tuple(name for phase in context.spec.phases if phase.name in back for name in phase.migrations.names)


def _keeps_users(context: DecisionContext) -> bool:
    """Whether the rollback has left users a part of its phase: they need the release that the phase came with."""
    return any(record.is_published for record in _rolled_back(context))


def _rolled_back(context: DecisionContext) -> tuple[PhaseRecord, ...]:
    return tuple(record for record in context.status.phases if record.state is PhaseState.ROLLED_BACK)


def _await_migrations(context: DecisionContext) -> tuple[str, ...]:
    """Wait for running migrations: the names of those whose Job must end first.

    A migration whose Job was never created becomes pending again; so does one whose Job was withdrawn (`withdrawal.settle`).
    """
    for record in context.status.migrations:
        observation = context.observed.jobs.get(record.job or "")
        if _is_forward(record) and observation is not None and observation.state is JobState.MISSING:
            context.put_migration(idle(record))
    return tuple(record.name for record in context.status.migrations if _is_forward(record))


def _is_forward(record: MigrationRecord) -> bool:
    return record.state is MigrationState.RUNNING and record.operation is not Operation.RESTORE
