"""Spec edits: a new generation keeps the audiences that are published, voids verdicts and approvals, and resumes.

After a rollback, only another plan is a new attempt (`core.plan`).

Where resuming is impossible, `conflict` says why, and the rollout stalls until the spec is changed.
"""

from decimal import Decimal
from typing import Final

from session_rollout.api.enums import EventReason, Outcome, PhaseState, Stage
from session_rollout.api.flag_records import RetiredFeature
from session_rollout.api.phases import Phase
from session_rollout.api.rollout import OnOff, RolloutSpec
from session_rollout.api.status import Current, RolloutStatus
from session_rollout.api.status_records import MigrationRecord, PhaseRecord
from session_rollout.core import migration_jobs
from session_rollout.core.context import DecisionContext
from session_rollout.core.criteria import forget_verdicts, restart_criteria, void_verdicts
from session_rollout.core.flags import initially_off, with_recorded_dependents
from session_rollout.core.holdback import fix_holdback, holdback_conflict, settle_release
from session_rollout.core.inputs import UNDONE, published_phases
from session_rollout.core.plan import note_plan, note_rolled_back, plan_of, rolled_back_before
from session_rollout.core.steps import (
    Increment,
    audience_text,
    increment_at,
    increment_from,
    increment_with,
    increments,
    is_last,
    percent_text,
    phase_named,
)
from session_rollout.core.unpublished import forget_unpublished, published_increment

STEPS_HAVE_BEGUN: Final = frozenset({Stage.STEP, Stage.VERIFICATION, Stage.AFTER})


def adopt_generation(context: DecisionContext) -> None:
    """Take over the spec's generation, unless a rollback must end first."""
    _complete_older_status(context)
    generation, status = context.observed.rollout.generation, context.status
    if generation == status.observed_generation or status.current.stage is Stage.ROLLING_BACK:
        return
    unknown = status.observed_generation == 0
    first = unknown and status.flags.sha256 is None
    plan = plan_of(context.spec, context.observed.queries)
    if status.outcome in UNDONE and _remains_undone(context, plan):
        return
    for feature, other in sorted(context.observed.other_rollouts.items()):
        message = f"feature {feature} is also a feature of rollout {other}: which one an application gets depends on the flag set it reads"
        context.record_event(EventReason.FEATURE_SHARED, message)
    flags, off = context.status.flags, initially_off(context.spec, context.status)
    context.change(flags=flags.updated(disabled=with_recorded_dependents(context.spec, flags.disabled), initially_off=off))
    _retire(context)
    context.change(observed_generation=generation, observed_plan=plan, phases=with_all_phases(context.spec, context.status))
    _reopen(context)
    if first:
        context.enter(Stage.PREFLIGHT, guards_start_time=context.now)
        message = f"phases: {len(context.spec.phases)}, features: {len(context.spec.features)}"
        context.record_event(EventReason.STARTED, message)
        return
    message = f"generation {generation} replaces generation {status.observed_generation}"
    context.record_event(EventReason.SUPERSEDED, message)
    void_verdicts(context)
    _resume(context)


def _complete_older_status(context: DecisionContext) -> None:
    """What version 0.1.0 did not write: its promotion released the complete phases from their guards, and its spec and plan are these."""
    for record in context.status.phases:
        released = context.status.outcome is Outcome.PROMOTED and record.state is PhaseState.COMPLETED
        if released and record.promoted_time is None:
            context.mark(record.name, promoted_time=record.end_time or context.now)
    flags, off = context.status.flags, initially_off(context.spec, context.status)
    if off != flags.initially_off and context.status.observed_generation == context.observed.rollout.generation:
        context.change(flags=flags.updated(initially_off=off))
    fix_holdback(context)
    note_plan(context)
    if context.status.outcome in UNDONE and not context.status.rolled_back_plans:
        note_rolled_back(context)


def _remains_undone(context: DecisionContext, plan: str) -> bool:
    """Adopt a generation that starts nothing again; False when it is another attempt."""
    generation, status = context.observed.rollout.generation, context.status
    restored = generation < status.observed_generation or status.observed_generation == 0  # into a new object, or in part
    if not restored and status.rolled_back_plans and rolled_back_before(status, plan) is None:
        return False
    context.change(observed_generation=generation, observed_plan=plan)
    if restored or not status.rolled_back_plans:
        note_rolled_back(context)  # nobody knows what it was
    if not restored:
        replaced = f"generation {generation} replaces generation {status.observed_generation}"
        context.record_event(EventReason.SUPERSEDED, f"{replaced}, but does not start the rollout again")
    return True


def raised_by_edit(spec: RolloutSpec, status: RolloutStatus) -> Increment | None:
    """The increment that an edit of the running phase goes on to, because no step has the published audience."""
    phase, record = phase_named(spec, status.current.phase), status.phase(status.current.phase)
    if status.current.stage is not Stage.STEP or phase is None or record is None or record.placebo:
        return None
    published = Decimal(record.percent), record.groups
    return None if increment_with(phase, *published) else increment_from(phase, *published)


def _retire(context: DecisionContext) -> None:
    """Move the features that the spec retires out of their phases, and forget those that have left the spec."""
    named = {feature.name for feature in context.spec.features}
    retired = {feature.name for feature in context.spec.features if feature.retired}
    kept = [kept_feature for kept_feature in context.status.flags.retired if kept_feature.feature in named]
    for record in context.status.phases:
        moved = retired.intersection(record.features) if record.promoted_time is not None else ()  # else guards protect it
        kept += (
            RetiredFeature(feature=name, percent=record.percent, groups=record.groups, time=context.now, phase=record.name)
            for name in sorted(moved)
        )
        context.mark(record.name, features=tuple(name for name in record.features if name not in moved))
    context.change(flags=context.status.flags.updated(retired=tuple(kept)))


def with_all_phases(spec: RolloutSpec, status: RolloutStatus) -> tuple[PhaseRecord, ...]:
    """A record for each phase of the spec, in its order, and the records of others that users still have."""
    known = {record.name: record for record in status.phases}
    wanted = [known.get(phase.name) or PhaseRecord(name=phase.name) for phase in spec.phases]
    names = {phase.name for phase in spec.phases}
    left = (record for record in status.phases if record.name not in names)
    return (*wanted, *(record for record in left if record.features or record.state is PhaseState.RUNNING))


def _reopen(context: DecisionContext) -> None:
    """Continue a complete phase that has got further steps, from the audience that is published. Guards protect it again."""
    for record in context.status.phases:
        if _continues(context.spec, context.status, record):
            context.mark(record.name, state=PhaseState.PENDING, start_time=None, end_time=None, promoted_time=None)


def _continues(spec: RolloutSpec, status: RolloutStatus, record: PhaseRecord) -> bool:
    """Whether a complete phase can go on: what is published is one of its audiences and not the last, and no later phase has begun."""
    phase = phase_named(spec, record.name)
    if phase is None or record.state is not PhaseState.COMPLETED or set(phase.features) != set(record.features):
        return False
    given = Decimal(record.percent), record.groups
    names = [known.name for known in spec.phases]
    later = names[names.index(record.name) + 1 :]
    begun = any(known.name in later and known.state is not PhaseState.PENDING for known in status.phases)
    return increment_with(phase, *given) is not None and not is_last(phase, *given) and not begun


def _resume(context: DecisionContext) -> None:
    status = context.status
    if status.outcome in UNDONE:
        restart(context)
    elif (status.outcome is Outcome.PROMOTED and conflict(context.spec, status) is not None) or (
        _has_open_phases(status) and status.current.stage in {Stage.ENDED, Stage.BAKE, Stage.PREFLIGHT}
    ):
        settle_release(context)
        context.change(outcome=None)
        # After the promotion nobody judged the guards. In any other stage they continue: an edit does not end a breach.
        start = context.now if status.outcome is Outcome.PROMOTED else status.current.guards_start_time
        context.enter(Stage.PREFLIGHT, guards_start_time=start)
    elif status.current.stage is Stage.STEP:
        _resume_step(context)
    elif status.current.stage in {Stage.BEFORE, Stage.BASELINE}:
        _begin_again(context)
    elif status.current.stage is Stage.AFTER:
        context.enter(Stage.VERIFICATION)  # what passed was asked about another spec, and perhaps other SQL
    elif status.current.stage is not Stage.ENDED:
        # A release that was published needs no other one: it is held again.
        context.enter(status.current.stage, published_time=status.current.published_time)


def _begin_again(context: DecisionContext) -> None:
    """Nobody has the phase, so all that comes before its first publish is asked again: gates, and migrations that may have been added."""
    record = context.status.phase(context.current.phase)
    context.mark(context.current.phase or "", placebo=None)
    context.enter(Stage.BEFORE if record is not None and record.is_published else Stage.PREFLIGHT)


def _resume_step(context: DecisionContext) -> None:
    """Continue at the step that has the published audience. When there is none, the phase goes on to the next higher one."""
    if context.current.published_time is None:
        forget_unpublished(context)
    timers = ("hold_until", "hold_paused_time", "hold_paused_reason", "deadline_wait")
    context.move(**dict.fromkeys(timers), approved_by=None)
    context.void_promote()
    current, phase = context.current, context.phase
    record = context.status.phase(current.phase)
    if phase is None or record is None or conflict(context.spec, context.status) is not None:
        return
    place = published_increment(phase, record, current)
    if place is None and record.is_published:
        context.enter(Stage.BASELINE)
    elif place is None:
        _begin_again(context)
    else:
        context.move(step=place.step, increment=place.index)


def _has_open_phases(status: RolloutStatus) -> bool:
    return any(record.state is not PhaseState.COMPLETED for record in status.phases)


def restart(context: DecisionContext) -> None:
    """Start again with the phase that was rolled back; its features remain as the rollback left them until then."""
    context.change(outcome=None)
    for record in context.status.phases:
        if record.state is PhaseState.ROLLED_BACK:
            context.mark(record.name, state=PhaseState.PENDING, start_time=None, end_time=None)
    completed = {record.name for record in context.status.phases if record.state is PhaseState.COMPLETED}
    kept = {name for phase in context.spec.phases if phase.name in completed for name in phase.migrations.names}
    for migration in context.status.migrations:
        if migration.name not in kept:  # the data has changed: its phase takes a new snapshot
            context.put_migration(migration.updated(backup_time=None))
    start = context.now
    if published_phases(context.status):
        restart_criteria(context)  # guards have judged these since the rollback, and continue
        start = context.current.guards_start_time or start
    else:
        forget_verdicts(context)
    context.enter(Stage.PREFLIGHT, guards_start_time=start, phase=None, phase_index=0, percent="0", groups=())


def conflict(spec: RolloutSpec, status: RolloutStatus) -> str | None:
    """Why the published audiences and the spec do not fit together; None when they do."""
    for record in status.phases:
        if record.features and (reason := _published_conflict(spec, status, record)):
            return reason
    retired = {feature.name for feature in spec.features if feature.retired}
    for kept_feature in status.flags.retired:
        if kept_feature.feature not in retired:
            return f"feature {kept_feature.feature} was retired and is on for {kept_feature.percent}%; keep `retired: true`, or remove the feature"
    return (
        holdback_conflict(spec, status)
        or _initial_conflict(spec, status)
        or _order_conflict(spec, status)
        or _migration_conflict(spec, status)
        or _step_conflict(spec, status)
    )


def _initial_conflict(spec: RolloutSpec, status: RolloutStatus) -> str | None:
    """An edit of `initial` must not give a feature to everybody without the rules of a phase."""
    for feature in spec.features:
        if feature.initial is OnOff.ON and feature.name in status.flags.initially_off:
            return f"feature {feature.name} is now `initial: On`, but only a phase gives users what they do not have; set `initial` to Off again"
    return None


def _published_conflict(spec: RolloutSpec, status: RolloutStatus, record: PhaseRecord) -> str | None:
    phase = phase_named(spec, record.name)
    wanted = set(phase.features) if phase is not None else set()
    if gone := sorted(set(record.features) - wanted):
        return (
            f"feature {gone[0]} is published by phase {record.name}, so the phase must keep it;"
            " to take it out of the plan after the rollout is promoted, set `retired: true` on the feature"
        )
    added = sorted(wanted - set(record.features))
    if added and (record.is_published or record.state in {PhaseState.RUNNING, PhaseState.COMPLETED}):
        return f"feature {added[0]} was added to phase {record.name}, which is already published; add it to a later phase"
    if phase is None or _continues(spec, status, record):
        return None
    if record.state is PhaseState.COMPLETED:
        return _completed_conflict(phase, record)
    in_step = status.current.stage is Stage.STEP and status.current.phase == record.name
    if record.is_published and not in_step and increment_from(phase, Decimal(record.percent), record.groups) is None:
        given = audience_text(record.percent, record.groups)
        return f"phase {record.name} is published at {given}, and each of its steps would take it away from some users"
    return None


def _completed_conflict(phase: Phase, record: PhaseRecord) -> str | None:
    """Nothing publishes another audience for this phase: the rollout would be Ready with an audience that is not in its spec."""
    if is_last(phase, Decimal(record.percent), record.groups):
        return None
    last = increments(phase)[-1]
    given, wanted = audience_text(record.percent, record.groups), audience_text(percent_text(last.percent), last.groups)
    return (
        f"phase {phase.name} is complete at {given}, and its last step is now {wanted}; a complete phase must keep its last audience,"
        " or, if no later phase has begun, keep it and continue with further steps"
    )


def _order_conflict(spec: RolloutSpec, status: RolloutStatus) -> str | None:
    state = {record.name: record.state for record in status.phases}
    done = [state.get(phase.name) is PhaseState.COMPLETED for phase in spec.phases]
    if done != sorted(done, reverse=True):
        late = spec.phases[done.index(False)].name
        return f"phase {late} is listed before a completed phase; new phases must follow the completed ones"
    running = status.current.phase
    expected = spec.phases[done.index(False)].name if False in done else None
    has_begun = status.current.stage not in {Stage.BAKE, Stage.ENDED, Stage.PREFLIGHT}
    if running and (has_begun or state.get(running) is PhaseState.RUNNING) and running != expected:
        return f"phase {running} is running, so `phases` must list it directly after the completed ones"
    return None


def _migration_conflict(spec: RolloutSpec, status: RolloutStatus) -> str | None:
    """A migration whose place in the plan is over never runs: the rollout would be promoted without it."""
    known = {record.name: record for record in status.migrations}
    for phase in spec.phases:
        record, running = status.phase(phase.name), phase.name == status.current.phase
        completed = record is not None and record.state is PhaseState.COMPLETED
        passed = phase.migrations.before if running and status.current.stage in STEPS_HAVE_BEGUN else ()
        for name in phase.migrations.names if completed else passed:
            if reason := _unapplied(spec, phase, known.get(name) or MigrationRecord(name=name)):
                return reason
    return None


def _unapplied(spec: RolloutSpec, phase: Phase, record: MigrationRecord) -> str | None:
    """Why a migration is not applied as the spec has it; None when it is."""
    if record.adopted:
        return None  # the running phase applies it first
    if not record.is_applied:
        what = f"is {record.state} in" if record.job else "was added to"
        return (
            f"migration {record.name} {what} phase {phase.name} at a place that is over; add it to a later phase,"
            " or to `migrations.after` of a phase that is not complete"
        )
    if migration_jobs.has_source(spec, record):
        return None
    migration = migration_jobs.declared(spec, record.name)
    reference = migration.config_map_ref
    bundle = (
        f"`migrations[].configMapRef` of {record.name} is {reference.name}"
        if reference
        else f"`migrations[].bundle` of {record.name} is {migration.bundle}"
    )
    return (
        f"{bundle}, but phase {phase.name} has applied another bundle at a place that is over;"
        " restore it, and add a new migration to a later phase"
    )


def _step_conflict(spec: RolloutSpec, status: RolloutStatus) -> str | None:
    phase, record = phase_named(spec, status.current.phase), status.phase(status.current.phase)
    if phase is None or record is None:
        return None
    match status.current.stage:
        case Stage.BEFORE | Stage.BASELINE | Stage.STEP:
            return _audience_conflict(phase, record, status.current)
        case Stage.VERIFICATION | Stage.AFTER:
            return _completed_conflict(phase, record)
    return None


def _audience_conflict(phase: Phase, record: PhaseRecord, current: Current) -> str | None:
    """No step has the published audience, and to go on would take it from users, or skip the step that they are in."""
    if published_increment(phase, record, current) is not None or record.placebo:
        return None  # a placebo that no step has ends, and the phase begins again
    here = increment_at(phase, current) if current.stage is Stage.STEP else increments(phase)[-1]
    if current.step > len(phase.steps):
        return f"phase {phase.name} is at step {current.step}, so `steps` must contain at least as many steps"
    if here is None or (here.index and current.stage is Stage.STEP):
        given = audience_text(record.percent, record.groups)
        return f"step {current.step} of phase {phase.name} is at {given}, which its `ramp` does not have; keep the ramp, or choose one with this audience"
    if here.percent < Decimal(record.percent):
        percent = percent_text(here.percent)
        return (
            f"step {here.step} of phase {phase.name} is now {percent}%, below the {record.percent}% that are published;"
            " raise it to at least that percentage"
        )
    if lost := sorted(set(record.groups) - set(here.groups)):
        return f"step {here.step} of phase {phase.name} must keep the group {lost[0]}, which is published"
    return None
