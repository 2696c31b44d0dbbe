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
from session_rollout.api.enums import CheckKind, DecisionAction, DecisionReason, EventReason, Stage
from session_rollout.core import migration_jobs, workload
from session_rollout.core.actions import apply_actions
from session_rollout.core.conditions import write_decision
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import evaluate_criteria
from session_rollout.core.flags import FlagDocument, FlagSource, audiences, compile_document, disabled_features
from session_rollout.core.generation import adopt_generation, conflict
from session_rollout.core.guards import act_on_breaches, breaches_of, evaluate_guards, next_breach
from session_rollout.core.hold import advance_hold
from session_rollout.core.inputs import current_gates, needs_revisions
from session_rollout.core.notifications import without_delivered
from session_rollout.core.observed import Decision, Observed, Publish
from session_rollout.core.stages import HANDLERS
from session_rollout.core.status_budget import fit
from session_rollout.core.windows import unknown_zones

RESYNC: Final = timedelta(seconds=30)
SOONEST: Final = timedelta(milliseconds=20)


def decide(observed: Observed, now: datetime) -> Decision:
    """The decision about one rollout at `now`."""
    status = without_delivered(observed.rollout.status, observed.delivered)
    context = DecisionContext(observed=observed, now=now, status=status)
    _confirm_published(context)
    adopt_generation(context)
    apply_actions(context)
    migration_jobs.track(context)
    workload.track(context)
    problems = _problems(context)
    evaluate_guards(context)
    evaluate_criteria(context)
    advance_hold(context, problems)
    result = _next_result(context, problems)
    migration_jobs.drive(context)
    _record_stall(context, result)
    _publish(context)
    write_decision(context, result, problems)
    return Decision(
        status=fit(context.status),
        effects=tuple(context.effects),
        next_reconcile=_next_reconcile(context, result),
        complete=not context.awaits_results,
        transitions=tuple(context.transitions),
    )


def _confirm_published(context: DecisionContext) -> None:
    """What was read back is published: a hold starts only then."""
    flags, in_cluster = context.status.flags, context.observed.published_sha256
    if flags.sha256 is None or in_cluster != flags.sha256:
        return
    if flags.published_sha256 != in_cluster:
        context.change(flags=flags.updated(published_sha256=in_cluster, published_time=context.now))
    current = context.current
    if current.stage not in {Stage.STEP, Stage.ROLLING_BACK} or current.published_time is not None:
        return
    context.move(published_time=context.now)
    if current.stage is Stage.STEP:
        message = f"{current.audience} is published, revision {flags.revision}"
        context.record_event(EventReason.STEP_PUBLISHED, message, revision=flags.revision)


def _problems(context: DecisionContext) -> tuple[str, ...]:
    """Why the rollout cannot be carried out as the spec has it."""
    zones = tuple(
        f"`windows[].timeZone` is {zone}, which is not an IANA time zone; use a name such as Europe/Berlin"
        for zone in unknown_zones(context.spec.windows)
    )
    clash = conflict(context.spec, context.status) if context.current.stage is not Stage.ROLLING_BACK else None
    return (*context.observed.problems, *zones, *migration_jobs.partial_copies(context), *((clash,) if clash else ()))


def _next_result(context: DecisionContext, problems: tuple[str, ...]) -> StageResult:
    """The first rule that has a result; then stage by stage until something is awaited."""
    if result := _suspended(context):
        return result
    act_on_breaches(context)
    if result := _stalled_or_paused(context, problems):
        return result
    while (result := HANDLERS[context.current.stage](context)) is None:
        pass
    return result


def _suspended(context: DecisionContext) -> StageResult | None:
    if not context.spec.suspend or context.current.stage is Stage.ENDED:
        return None
    breaches = tuple(breach.message for breach in breaches_of(context, OnBreach.ROLLBACK))
    kept = ("the existing flag document is kept as it is",) if _keeps_existing_document(context) else ()
    details = ("`spec.suspend` is true: the rollout neither advances nor rolls back", *kept, *breaches)
    next_actions = ("set `spec.suspend` to false",)
    return StageResult(DecisionAction.PAUSE, DecisionReason.SUSPENDED, "suspended", details, next_actions)


def _stalled_or_paused(context: DecisionContext, problems: tuple[str, ...]) -> StageResult | None:
    """Reasons not to advance; a rollback continues in spite of them."""
    if context.current.stage in {Stage.ENDED, Stage.ROLLING_BACK}:
        return None
    if problems:
        next_actions = ("change the spec or the operator's configuration",)
        return StageResult(DecisionAction.STALL, DecisionReason.INVALID_SPEC, problems[0], problems, next_actions)
    if context.status.paused_by:
        message, next_actions = context.pause_text, ("create a `Resume` action",)
        return StageResult(DecisionAction.PAUSE, DecisionReason.PAUSED, message, (message,), next_actions)
    return None


def _record_stall(context: DecisionContext, result: StageResult) -> None:
    """One event for each stall; another one when the reason or the generation changes."""
    if result.action is not DecisionAction.STALL:
        return
    before = context.observed.rollout.status
    last = (before.decision.action, before.decision.reason, before.observed_generation)
    if last != (result.action, result.reason, context.status.observed_generation):
        context.record_event(EventReason.STALLED, result.message)


def _keeps_existing_document(context: DecisionContext) -> bool:
    """Suspended before it has published anything, with a document in the cluster: both were restored from a backup.

    The status that said who has which feature is lost, and the document is all that users have. An emergency is published.
    """
    flags = context.status.flags
    existing = context.observed.published_sha256 is not None
    return context.spec.suspend and flags.sha256 is None and not flags.disabled and existing


def _publish(context: DecisionContext) -> None:
    """Compile the document of the status as it is now; publish while the cluster has another one."""
    if _keeps_existing_document(context):
        return
    flags = context.status.flags
    document = _compile(context, flags.revision)
    if document.sha256 != flags.sha256:
        document = _compile(context, flags.revision + 1)
        flags = flags.updated(config_map=document.config_map, sha256=document.sha256, revision=flags.revision + 1)
        context.change(flags=flags)
    if context.observed.published_sha256 != document.sha256:
        drifted = flags.published_sha256 == document.sha256
        if drifted:
            message = f"{document.config_map} was modified externally and is being corrected"
            context.record_event(EventReason.FLAG_DRIFT, message, revision=flags.revision)
        context.effects.append(Publish(document.config_map, document.text, document.sha256, drifted=drifted))


def _compile(context: DecisionContext, revision: int) -> FlagDocument:
    return compile_document(
        FlagSource(
            flag_set=context.spec.flag_set,
            namespace=context.observed.rollout.namespace,
            audiences=audiences(context.spec, context.status),
            disabled=disabled_features(context.spec, context.status),
            metadata={
                "rollout": context.observed.rollout.name,
                "rolloutGeneration": context.status.observed_generation,
                "phase": context.current.phase or "",
                "revision": revision,
            },
        )
    )


def _next_reconcile(context: DecisionContext, result: StageResult) -> timedelta:
    """When to decide again at the latest: a check is due, a hold ends, a breach has lasted long enough."""
    if context.current.stage is Stage.ENDED and not current_gates(context.rollout)[1] and not needs_revisions(context.rollout):
        return RESYNC
    waits = [min(context.interval, RESYNC)]
    if context.checks_of(CheckKind.GUARD) and (end := next_breach(context)):
        waits.append(end - context.now)
    if result.next_time is not None:
        waits.append(result.next_time - context.now)
    return max(min(waits), SOONEST)
