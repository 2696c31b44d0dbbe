"""The only door of the core: what was observed, and a point in time, in; what to write and do, out.

*gather -> decide -> apply*: the controller gathers, this decides, the controller writes the status (the intent) and then
does the effects. Deciding twice on the same facts gives the same status and the same effects, so a crash between any two
writes costs nothing but time.
"""

from datetime import datetime, timedelta
from typing import Final

from session_rollout.api.checks import OnBreach
from session_rollout.api.enums import DecisionAction, EventReason, Outcome, Stage
from session_rollout.api.quantities import duration
from session_rollout.core import migration_jobs, notifications, workload
from session_rollout.core.actions import hear
from session_rollout.core.conditions import fit, report
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import GUARD, breached, judge, next_breach, run_clock
from session_rollout.core.flags import Compiled, FlagDocument, audiences, compile_document, with_dependents
from session_rollout.core.generation import adopt, conflict
from session_rollout.core.inputs import JUDGED_STAGES, gates_now, needs_revisions
from session_rollout.core.observed import Decision, Observed, Publish
from session_rollout.core.rollback import begin_rollback
from session_rollout.core.stages import HANDLERS
from session_rollout.core.steps import audience_text
from session_rollout.core.windows import unknown_zones

RESYNC: Final = timedelta(seconds=30)
SOONEST: Final = timedelta(milliseconds=20)


def decide(observed: Observed, now: datetime) -> Decision:
    """The decision about one rollout at `now`."""
    context = DecisionContext(observed=observed, now=now, status=observed.rollout.status)
    notifications.forget_delivered(context)
    _confirm(context)
    adopt(context)
    hear(context)
    migration_jobs.track(context)
    workload.track(context)
    problems = _problems(context)
    judge(context)
    _run_clock(context, problems)
    result = _rule(context, problems)
    migration_jobs.drive(context)
    _tell_stall(context, result)
    _publish(context)
    report(context, result, problems)
    return Decision(
        status=fit(context.status),
        effects=tuple(context.effects),
        next_reconcile=_next_look(context, result),
        complete=not context.unanswered,
    )


def _confirm(context: DecisionContext) -> None:
    """What was read back is published: a hold starts only then."""
    flags, seen = context.status.flags, context.observed.published_sha256
    if flags.sha256 is None or seen != flags.sha256:
        return
    if flags.published_sha256 != seen:
        context.change(flags=flags.model_copy(update={"published_sha256": seen, "published_time": context.now}))
    current = context.current
    if current.stage not in {Stage.STEP, Stage.ROLLING_BACK} or current.published_time is not None:
        return
    context.move(published_time=context.now)
    if current.stage is Stage.STEP:
        audience = audience_text(current.percent, current.groups)
        context.tell(EventReason.STEP_PUBLISHED, f"{audience} is published, revision {flags.revision}")


def _problems(context: DecisionContext) -> tuple[str, ...]:
    """Why the programme cannot be carried out as it is written."""
    zones = tuple(
        f"`windows[].timeZone` is {zone}, which the zone database does not know" for zone in unknown_zones(context.spec.windows)
    )
    clash = conflict(context.spec, context.status) if context.current.stage is not Stage.ROLLING_BACK else None
    return (*context.observed.problems, *zones, *((clash,) if clash else ()))


def _run_clock(context: DecisionContext, problems: tuple[str, ...]) -> None:
    paused = (f"paused by {context.status.paused_by}",) if context.status.paused_by else ()
    suspended = ("suspended",) if context.spec.suspend else ()
    stopped_by = (*paused, *suspended, *problems)
    if context.unanswered and not stopped_by:
        return  # the time until the answer is judged when it is here
    if context.current.stage is Stage.STEP and context.current.published_time is not None and context.increment is not None:
        run_clock(context, context.increment.hold, stopped_by=stopped_by)
    elif context.current.stage is Stage.BAKE:
        run_clock(context, duration(context.spec.bake), stopped_by=stopped_by)


def _rule(context: DecisionContext, problems: tuple[str, ...]) -> StageResult:
    """The first rule that has a result; then stage by stage until something is awaited."""
    if result := _frozen(context):
        return result
    _guard(context)
    if result := _kept(context, problems):
        return result
    while (result := HANDLERS[context.current.stage](context)) is None:
        pass
    return result


def _frozen(context: DecisionContext) -> StageResult | None:
    if not context.spec.suspend or context.current.stage is Stage.ENDED:
        return None
    breaches = breached(context, OnBreach.ROLLBACK)
    found = ("the flag document that was found stays as it is",) if _keeps_what_was_found(context) else ()
    because = ("`spec.suspend` is true: nothing moves, not even back", *found, *breaches)
    return StageResult(DecisionAction.PAUSE, "suspended", because[:8], ("`spec.suspend: false`",))


def _guard(context: DecisionContext) -> None:
    """A breach that has lasted acts, whatever else is going on."""
    if context.current.stage not in JUDGED_STAGES:
        return
    if breaches := breached(context, OnBreach.ROLLBACK):
        context.tell(EventReason.GUARD_BREACHED, "; ".join(breaches)[:400])
        begin_rollback(context, Outcome.ROLLED_BACK, breaches)
        return
    breaches = breached(context, OnBreach.PAUSE)
    if breaches and not context.status.paused_by:
        context.tell(EventReason.GUARD_BREACHED, "; ".join(breaches)[:400])
        context.change(paused_by=f"guard: {breaches[0]}"[:256])
    for breach in breached(context, OnBreach.WARN):
        if not any(entry.event is EventReason.GUARD_BREACHED and entry.message == breach for entry in context.status.history):
            context.tell(EventReason.GUARD_BREACHED, breach)


def _kept(context: DecisionContext, problems: tuple[str, ...]) -> StageResult | None:
    """Reasons not to go forward; a rollback goes on in spite of them."""
    if context.current.stage in {Stage.ENDED, Stage.ROLLING_BACK}:
        return None
    if problems:
        return StageResult(
            DecisionAction.STALL, problems[0][:120], problems[:8], ("a change of the spec or of the configuration",)
        )
    if context.status.paused_by:
        because = (f"paused by {context.status.paused_by}",)
        return StageResult(DecisionAction.PAUSE, because[0][:120], because, ("an action `Resume`",))
    return None


def _tell_stall(context: DecisionContext, result: StageResult) -> None:
    before = context.observed.rollout.status.decision
    if result.action is DecisionAction.STALL and (before.action, before.message) != (result.action, result.message[:120]):
        context.tell(EventReason.STALLED, result.message)


def _keeps_what_was_found(context: DecisionContext) -> bool:
    """Suspended before it has published anything, with a document in the cluster: both came back from a backup.

    The status that said who has which feature is lost, and the document is all that users have. An emergency is published.
    """
    flags = context.status.flags
    return (
        context.spec.suspend and flags.sha256 is None and not flags.disabled and context.observed.published_sha256 is not None
    )


def _publish(context: DecisionContext) -> None:
    """Compile the document of the status as it is now; publish while the cluster has another one."""
    if _keeps_what_was_found(context):
        return
    flags = context.status.flags
    document = _compile(context, flags.revision)
    if document.sha256 != flags.sha256:
        document = _compile(context, flags.revision + 1)
        flags = flags.model_copy(
            update={"config_map": document.config_map, "sha256": document.sha256, "revision": flags.revision + 1}
        )
        context.change(flags=flags)
    if context.observed.published_sha256 != document.sha256:
        drifted = flags.published_sha256 == document.sha256
        if drifted:
            context.tell(EventReason.FLAG_DRIFT, f"{document.config_map} was changed by somebody else and is put right")
        context.effects.append(Publish(document.config_map, document.text, document.sha256, drifted=drifted))


def _compile(context: DecisionContext, revision: int) -> FlagDocument:
    disabled = {one.feature: one.reason for one in context.status.flags.disabled}
    return compile_document(
        Compiled(
            flag_set=context.spec.flag_set,
            namespace=context.observed.rollout.namespace,
            audiences=audiences(context.spec, context.status),
            disabled=with_dependents(context.spec, disabled),
            metadata={
                "rollout": context.observed.rollout.name,
                "rolloutGeneration": context.status.observed_generation,
                "phase": context.current.phase or "",
                "revision": revision,
            },
        )
    )


def _next_look(context: DecisionContext, result: StageResult) -> timedelta:
    """When to look again at the latest: a check is due, a hold ends, a breach has lasted."""
    if context.current.stage is Stage.ENDED and not gates_now(context.rollout)[1] and not needs_revisions(context.rollout):
        return RESYNC
    waits = [min(context.interval, RESYNC)]
    if any(record.kind == GUARD for record in context.status.checks) and (end := next_breach(context)):
        waits.append(end - context.now)
    if result.next_time is not None:
        waits.append(result.next_time - context.now)
    return max(min(waits), SOONEST)
