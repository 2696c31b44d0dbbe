"""Guards: evaluated from the first phase to the end of the bake; a breach that lasts rolls back, pauses or warns."""

from dataclasses import dataclass
from datetime import datetime

from session_rollout.api.checks import Guard, OnBreach
from session_rollout.api.enums import CheckKind, DecisionReason, EventReason, Outcome, Stage, Verdict
from session_rollout.api.quantities import duration
from session_rollout.core.clocks import range_of
from session_rollout.core.context import DecisionContext
from session_rollout.core.criteria import evaluate_check, not_evaluated
from session_rollout.core.evidence import is_of_placebo, metric_of
from session_rollout.core.failures import fails, failure_text, next_failure
from session_rollout.core.flags import with_dependents
from session_rollout.core.hold import pause_timer
from session_rollout.core.inputs import guards_are_judged, published_phases
from session_rollout.core.rollback import begin_rollback, breach_uid


@dataclass(frozen=True)
class Breach:
    """A guard whose bound has been broken for as long as `for`, or as often as `outOf`, allows."""

    guard: str
    message: str
    since: datetime


def evaluate_guards(context: DecisionContext) -> None:
    """Bring the records of all guards up to date. Whether a verdict also counts for a hold is decided in `hold`."""
    if guards_are_judged(context.rollout):
        for guard in context.spec.guards:
            evaluate_check(context, guard, CheckKind.GUARD, _start(context, guard))


def _start(context: DecisionContext, guard: Guard) -> datetime | None:
    """From when on data counts for a guard.

    A `Retry` starts guards again: they must not judge data of the audience that was rolled back. Before anything is
    published, they judge the data that exists, and a guard that has a verdict continues when the first audience is published.
    """
    start, record = context.current.guards_start_time, context.check(CheckKind.GUARD, guard.name)
    if start is None:
        return None
    judged = record.verdict is not Verdict.NOT_EVALUATED and record.time is not None and record.time >= start
    return start if judged or not published_phases(context.status) else start + range_of(context, guard.metrics)


def act_on_breaches(context: DecisionContext) -> None:
    """Let a breach that has lasted long enough take effect, whatever else the rollout does."""
    if (breaches := breaches_of(context, OnBreach.ROLLBACK)) and published_phases(context.status):
        _record(context, breaches)
        sentences = tuple(breach.message for breach in breaches)
        guard = breaches[0].guard
        context.protect()
        blamed = tuple(name for breach in breaches for name in _blamed(context, breach.guard))
        begin_rollback(context, Outcome.ROLLED_BACK, sentences, breach_uid(context, guard), guard=guard, blamed=blamed)
        return
    if context.current.stage in {Stage.ENDED, Stage.ROLLING_BACK}:
        return
    if (breaches := breaches_of(context, OnBreach.PAUSE)) and not context.status.paused_by and published_phases(context.status):
        _record(context, breaches)
        context.protect()
        context.pause(breaches[0].guard, breaches[0].message)
        context.move(approved_by=None)  # by somebody who did not know of the breach
        pause_timer(context, DecisionReason.PAUSED)
    for breach in breaches_of(context, OnBreach.WARN):
        if not _is_recorded(context, breach):
            _record(context, (breach,))


def _blamed(context: DecisionContext, name: str) -> tuple[str, ...]:
    """The phases that a guard in breach names by the feature that it compares, and those whose features depend on it."""
    metric = next((metric_of(context.spec, guard) for guard in context.spec.guards if guard.name == name), None)
    if metric is None or metric.cohorts is None or metric.cohorts.feature is None:
        return ()
    features = with_dependents(context.spec, {metric.cohorts.feature: ""})
    return tuple(record.name for record in published_phases(context.status) if features.keys() & set(record.features))


def settle_guards(context: DecisionContext) -> None:
    """After a rollback that leaves something published, guards are evaluated anew: on data from after it.

    They continue after one that took nothing away from users: what is in breach then is what they still have.
    """
    if context.current.guards_start_time is not None:
        return
    context.move(guards_start_time=context.now + duration(context.spec.propagation))
    if not published_phases(context.status):
        return
    for record in context.checks_of(CheckKind.GUARD):
        context.put_check(not_evaluated(context, record))


def _record(context: DecisionContext, breaches: tuple[Breach, ...]) -> None:
    """One event for breaches that act together; its `check` is the first guard in the order of the spec."""
    message = "; ".join(breach.message for breach in breaches)
    context.record_event(EventReason.GUARD_BREACHED, message, check=breaches[0].guard)


def _is_recorded(context: DecisionContext, breach: Breach) -> bool:
    """Whether the history has this breach: an event about the guard since its verdict became Fail."""
    return any(
        entry.event is EventReason.GUARD_BREACHED and entry.check == breach.guard and entry.time >= breach.since
        for entry in context.status.history
    )


def breaches_of(context: DecisionContext, on_breach: OnBreach) -> tuple[Breach, ...]:
    """Breaches of the guards of this kind that have lasted long enough and are measured in this decision."""
    guards = (guard for guard in context.spec.guards if guard.on_breach is on_breach)
    # Nobody has what a placebo step compares: that is no breach, and `placebo` stalls the rollout.
    judged = (guard for guard in guards if on_breach is OnBreach.WARN or not is_of_placebo(context, guard))
    candidates = (_breach(context, guard) for guard in judged)
    return tuple(breach for breach in candidates if breach is not None)


def _breach(context: DecisionContext, guard: Guard) -> Breach | None:
    record = context.check(CheckKind.GUARD, guard.name)
    measured = all(name in context.observed.measurements for name in guard.metrics)
    if guard.dry_run or record.verdict is not Verdict.FAIL or record.failing_time is None or not measured:
        return None
    current = context.current
    if current.stage is Stage.ROLLING_BACK and current.published_time is None and current.guards_start_time is None:
        return None  # it has had its effect; whether that was enough is known when the flags are published
    if not fails(context, guard, record):
        return None
    return Breach(guard.name, record.message + failure_text(guard), record.failing_time)


def next_breach(context: DecisionContext) -> datetime | None:
    """When a breach that has begun will have lasted long enough; None when there is none."""
    ends = (
        next_failure(context, guard, context.check(CheckKind.GUARD, guard.name))
        for guard in context.spec.guards
        if not guard.dry_run
    )
    return min((end for end in ends if end is not None), default=None)
