"""Entry point of the decision core: what was observed and a point in time go in, what to write and do comes out.

*gather -> decide -> apply*: the controller gathers, this decides, the controller writes the status (the intent) and then
applies the effects. Deciding twice on the same facts gives the same status and the same effects, so a crash between any
two writes costs nothing but time.

The order of the calls in `decide` matters: actions and results of Jobs change the status that checks are evaluated for;
checks advance the hold; only then a stage may move on.
"""

from datetime import datetime, timedelta
from typing import Final

from session_rollout.api.checks import OnBreach
from session_rollout.api.enums import CheckKind, DecisionAction, DecisionReason, EventReason, Outcome, Stage
from session_rollout.core import migration_jobs, workload
from session_rollout.core.actions import apply_actions
from session_rollout.core.adoption import await_adoption
from session_rollout.core.clocks import adopt_earlier_clock, extend_warm_up, note_clock_jump
from session_rollout.core.conditions import write_decision
from session_rollout.core.context import RESYNC, DecisionContext, StageResult
from session_rollout.core.criteria import evaluate_criteria
from session_rollout.core.documents import PublishedDocument, note_given
from session_rollout.core.drift import await_document
from session_rollout.core.evidence import rename_evidence, settle_evidence
from session_rollout.core.first_publish import learn_first_publish
from session_rollout.core.generation import adopt_generation, conflict, with_all_phases
from session_rollout.core.guards import act_on_breaches, breaches_of, evaluate_guards, next_breach, settle_guards
from session_rollout.core.hold import advance_hold
from session_rollout.core.holdback import confirm_release
from session_rollout.core.inputs import current_gates, guards_are_judged, needs_revisions
from session_rollout.core.learning import learn
from session_rollout.core.migration_rules import partial_phases
from session_rollout.core.notifications import without_delivered
from session_rollout.core.observed import Decision, Observed, Publish
from session_rollout.core.promotion import holds_back
from session_rollout.core.publication import foreign_document, has_audience, publish
from session_rollout.core.refusals import await_finalizer, await_requests, note_refusals
from session_rollout.core.stages import HANDLERS
from session_rollout.core.status_budget import fit
from session_rollout.core.suspension import kept_texts, suspended_text
from session_rollout.core.windows import unknown_zones
from session_rollout.core.withdrawal import settle, withdraw

SOONEST: Final = timedelta(milliseconds=20)
IN_PHASE: Final = frozenset({Stage.BEFORE, Stage.BASELINE, Stage.STEP, Stage.AFTER, Stage.VERIFICATION})


def decide(observed: Observed, now: datetime) -> Decision:
    """The decision about one rollout at `now`."""
    status = without_delivered(observed.rollout.status, observed.delivered)
    context = DecisionContext(observed=observed, now=now, status=status)
    adopt_earlier_clock(context)
    extend_warm_up(context)
    learn(context)
    confirm_published(context)
    adopt_generation(context)
    complete_status(context)
    learn_first_publish(context)
    note_clock_jump(context)
    context.problems = _problems(context)
    apply_actions(context)
    migration_jobs.track(context)
    settle(context)
    workload.track(context)
    context.problems = _problems(context)
    rename_evidence(context)
    evaluate_guards(context)
    evaluate_criteria(context)
    advance_hold(context, context.problems)
    result = _next_result(context)
    withdraw(context)
    migration_jobs.drive(context)
    publish(context, holds_back=holds_back(context))
    note_refusals(context)
    result = await_requests(context) or await_document(context) or result
    record_stall(context, result)
    write_decision(context, result, context.problems)
    settle_evidence(context)
    return decision_of(context, next_reconcile(context, result))


def decision_of(context: DecisionContext, next_reconcile: timedelta) -> Decision:
    """The context as a frozen decision."""
    return Decision(
        status=fit(context.status),
        effects=tuple(context.effects),
        urgent=context.urgent,
        next_reconcile=next_reconcile,
        complete=not context.awaits_results,
        transitions=tuple(context.transitions),
    )


def complete_status(context: DecisionContext) -> None:
    """Another client may have removed a part of the status, by an edit or a restore: guards protect users all the same."""
    current, outcome, flags = context.current, context.status.outcome, context.status.flags
    if context.status.observed_generation == context.observed.rollout.generation:
        context.change(phases=with_all_phases(context.spec, context.status))
    if current.stage is Stage.ENDED and outcome is None:
        promoted = all(record.promoted_time is not None for record in context.status.phases)
        context.change(outcome=current.rollback_outcome or (Outcome.PROMOTED if promoted else Outcome.ROLLED_BACK))
    elif current.stage is Stage.ROLLING_BACK:
        context.change(outcome=None)
    elif current.stage is not Stage.ENDED and outcome is not None:
        context.enter(Stage.ENDED)
    if current.guards_start_time is None and current.stage is not Stage.ROLLING_BACK:
        context.move(guards_start_time=flags.published_time or context.now)


def confirm_published(context: DecisionContext) -> None:
    """What was read back is published: a hold starts only then. Another document may have been there while the operator was away."""
    flags, document = context.status.flags, context.document
    if flags.sha256 is None or document is None or document.sha256 != flags.sha256:
        if flags.given_sha256 is not None:
            context.change(flags=note_given(flags, document or PublishedDocument(""), context.now))
        return
    if flags.published_sha256 != document.sha256 or flags.published_time is None:
        given = note_given(flags, document, context.now)
        is_new = given.given_sha256 != flags.given_sha256 or flags.published_time is None  # else only its text is
        since = context.now if is_new else flags.published_time
        context.change(flags=given.updated(published_sha256=document.sha256, published_time=since))
    confirm_release(context, document)
    current = context.current
    if current.stage not in {Stage.STEP, Stage.ROLLING_BACK} or current.published_time is not None:
        return
    if current.stage is Stage.STEP and not has_audience(context, document):
        return
    context.move(published_time=context.now, earlier_placebo=None, raised_by=None)
    if current.stage is Stage.ROLLING_BACK:
        settle_guards(context)
    else:
        message = f"{current.audience} is published, revision {flags.revision}"
        context.record_event(EventReason.STEP_PUBLISHED, message, revision=flags.revision)


def _problems(context: DecisionContext) -> tuple[str, ...]:
    """Why the rollout cannot be carried out as the spec has it."""
    foreign = foreign_document(context)
    zones = tuple(
        f"`windows[].timeZone` is {zone}, which is not an IANA time zone; use a name such as Europe/Berlin"
        for zone in unknown_zones(context.spec.windows)
    )
    clash = conflict(context.spec, context.status) if context.current.stage is not Stage.ROLLING_BACK else None
    clash = clash or _lost_place(context)
    first, last = ((foreign,) if foreign else ()), ((clash,) if clash else ())
    return (*first, *context.observed.problems, *zones, *partial_phases(context), *last)


def _lost_place(context: DecisionContext) -> str | None:
    """A status that another client has written may name a step that does not exist. Guards and actions still protect users."""
    current = context.current
    if current.stage not in IN_PHASE or (
        context.phase is not None and (current.stage is not Stage.STEP or context.increment is not None)
    ):
        return None
    place = f"stage {current.stage}, phase {current.phase or 'unset'}, step {current.step}"
    return f"`status.current` has {place}, which the spec does not have; restore the status, or create an `Abort` action"


def _next_result(context: DecisionContext) -> StageResult:
    """The first rule that has a result; then stage by stage until something is awaited."""
    if result := await_adoption(context) or _suspended(context):
        return result
    if not context.spec.suspend:
        act_on_breaches(context)
    if result := _stalled_or_paused(context):
        return result
    while (result := HANDLERS[context.current.stage](context)) is None:
        pass
    return result


def _suspended(context: DecisionContext) -> StageResult | None:
    if not context.spec.suspend or context.current.stage is Stage.ENDED:
        return None
    breaches = tuple(breach.message for breach in breaches_of(context, OnBreach.ROLLBACK))
    users = kept_texts(context.spec, context.status)
    details = ("`spec.suspend` is true: the rollout neither advances nor rolls back", *breaches, *users)
    message, next_actions = suspended_text(context.spec, context.status), ("set `spec.suspend` to false",)
    return StageResult(DecisionAction.PAUSE, DecisionReason.SUSPENDED, message, details, next_actions)


def _stalled_or_paused(context: DecisionContext) -> StageResult | None:
    """Reasons not to advance. A rollback continues in spite of them, but not while the document belongs to another."""
    if context.current.stage is Stage.ENDED:
        return None
    rolling_back = context.current.stage is Stage.ROLLING_BACK
    if context.problems and (not rolling_back or foreign_document(context) is not None):
        next_actions = ("change the spec or the operator's configuration",)
        problems = context.problems
        return StageResult(DecisionAction.STALL, DecisionReason.INVALID_SPEC, problems[0], problems, next_actions)
    if context.status.paused_by and not rolling_back:
        message, next_actions = context.pause_text, ("create an `Abort` action to roll back, or a `Resume` action",)
        details = (message, *kept_texts(context.spec, context.status))
        return StageResult(DecisionAction.PAUSE, DecisionReason.PAUSED, message, details, next_actions)
    return None if rolling_back else await_finalizer(context)


def record_stall(context: DecisionContext, result: StageResult) -> None:
    """One event for each stall; another one when the reason or the generation changes."""
    if result.action is not DecisionAction.STALL:
        return
    before = context.observed.rollout.status
    last = (before.decision.action, before.decision.reason, before.observed_generation)
    if last != (result.action, result.reason, context.status.observed_generation):
        context.record_event(EventReason.STALLED, result.message)


def _publishes(context: DecisionContext) -> bool:
    return context.urgent is not None or any(isinstance(effect, Publish) for effect in context.effects)


def next_reconcile(context: DecisionContext, result: StageResult) -> timedelta:
    """When to decide again at the latest: a check is due, a hold ends, a breach has lasted long enough."""
    evaluates = current_gates(context.rollout)[1] or guards_are_judged(context.rollout)
    if context.current.stage is Stage.ENDED and not evaluates and not needs_revisions(context.rollout):
        return RESYNC
    waits = [min(context.interval, RESYNC)]
    if context.checks_of(CheckKind.GUARD) and (end := next_breach(context)):
        waits.append(end - context.now)
    if context.current.stage is Stage.ROLLING_BACK and context.current.published_time is None and not _publishes(context):
        waits.append(SOONEST)  # users have what it leaves them: nothing that is read back wakes the loop
    if result.next_time is not None and result.next_time > context.now:  # what is over is awaited no longer
        waits.append(result.next_time - context.now)
    return max(min(waits), SOONEST)
