"""The way forward: what each stage waits for, and where it leads.

A handler returns a StageResult when something is awaited, or None after it has moved on; `decide` calls again until a StageResult
comes. Every raise of an audience goes through `_raise_to`, and only `_step` lets a step end.
"""

from collections.abc import Callable
from typing import Final

from session_rollout.api.checks import Gate
from session_rollout.api.enums import DecisionAction, EventReason, Outcome, PhaseState, Stage, Verdict
from session_rollout.api.quantities import duration, spell
from session_rollout.api.rollout import OnDeadline, Phase
from session_rollout.api.status import AwaitedApproval, CheckRecord
from session_rollout.core import migration_jobs
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import (
    CRITERION,
    forget_criteria,
    measure_baselines,
    missing_evidence,
    run_clock,
    void_criteria,
)
from session_rollout.core.gates import judge_gates, verify_rollback
from session_rollout.core.inputs import PREFLIGHT, VERIFICATION
from session_rollout.core.rollback import begin_rollback, continue_rollback
from session_rollout.core.steps import Increment, audience_text, increment_after, increments, percent_text
from session_rollout.core.windows import next_opening

Handler = Callable[[DecisionContext], StageResult | None]


def _wait(
    why: str, because: tuple[str, ...], next_actions: tuple[str, ...] = (), approvals: tuple[AwaitedApproval, ...] = ()
) -> StageResult:
    return StageResult(DecisionAction.WAIT, why[:120], because, next_actions, approvals=approvals)


# --- before the first phase


def _preflight(context: DecisionContext) -> StageResult | None:
    if context.observed.workload_unavailable_reason:
        return _wait("preflight: workload not available", (context.observed.workload_unavailable_reason,), ("the workload becoming available",))
    records = judge_gates(context, context.spec.preflight, PREFLIGHT)
    if result := _gates(context, context.spec.preflight, records, "preflight"):
        return result
    return _next_phase(context)


def _gates(
    context: DecisionContext, gates: tuple[Gate, ...], records: tuple[CheckRecord, ...], stage: str
) -> StageResult | None:
    waiting = [record for record in records if record.verdict is not Verdict.PASS]
    if not waiting:
        return None
    needed = [gate.name for gate, record in zip(gates, records, strict=True) if gate.approval and record in waiting]
    hints = tuple(
        f"an action `Approve` with generation {context.status.observed_generation} and check {name}" for name in needed
    )
    if any(record.job and record.verdict is Verdict.FAIL for record in waiting):
        hints = (*hints, f"an action `Retry` with generation {context.status.observed_generation}: the Job runs again")
    approvals = tuple(AwaitedApproval(check=name) for name in needed)
    return _wait(f"{stage}: {waiting[0].message}", tuple(record.message for record in waiting), hints, approvals)


def _next_phase(context: DecisionContext) -> StageResult | None:
    state = {record.name: record.state for record in context.status.phases}
    pending = [phase for phase in context.spec.phases if state[phase.name] is not PhaseState.COMPLETED]
    forget_criteria(context)
    if not pending:
        context.enter(Stage.BAKE)
        context.tell(EventReason.BAKE_STARTED, f"all phases are out; guards are judged for {context.spec.bake}")
        return None
    phase = pending[0]
    index = context.spec.phases.index(phase) + 1
    context.enter(Stage.BEFORE, phase=phase.name, phase_index=index, percent="0", groups=())
    context.mark(phase.name, state=PhaseState.RUNNING, start_time=context.now, end_time=None)
    context.tell(EventReason.PHASE_STARTED, f"phase {index} of {len(context.spec.phases)}: {', '.join(phase.features)}"[:400])
    return None


# --- a phase


def _before(context: DecisionContext) -> StageResult | None:
    names = _phase(context).migrations.before
    if result := migration_jobs.run_up(context, names) or migration_jobs.run_backups(context, names):
        return result
    context.enter(Stage.BASELINE)
    return None


def _baseline(context: DecisionContext) -> StageResult | None:
    if missing := measure_baselines(context):
        return _wait(missing[0], missing, ("an answer of the metric",))
    return _raise_to(context, increments(_phase(context))[0])


def _raise_to(context: DecisionContext, increment: Increment) -> StageResult | None:
    """Go to an audience: the only place where a percentage or a group is added."""
    opening = next_opening(context.spec.windows, context.now)
    if opening > context.now and context.skip_step is None:
        return StageResult(
            DecisionAction.WAIT,
            f"waits for the window that opens {opening:%a %H:%M} UTC",
            ("no window is open now",),
            (f"the window that opens at {opening:%Y-%m-%d %H:%M} UTC",),
            next_time=opening,
        )
    phase, current = _phase(context), context.current
    approved_by = current.approved_by if increment.step == current.step else None
    percent = percent_text(increment.percent)
    context.mark(phase.name, percent=percent, groups=increment.groups, features=phase.features)
    context.enter(
        Stage.STEP,
        step=increment.step,
        increment=increment.increment,
        percent=percent,
        groups=increment.groups,
        approved_by=approved_by,
    )
    void_criteria(context)
    return None


def _step(context: DecisionContext) -> StageResult | None:
    """A step ends when every rule of the chain has let it pass, or when a person said so."""
    increment = context.increment
    assert increment is not None, "conflict() keeps a vanished step from coming here"
    if context.current.published_time is None:
        return StageResult(
            DecisionAction.PUBLISH,
            f"publishing {_audience(increment)}",
            (f"the flag document with {_audience(increment)} is not read back yet",),
            ("the ConfigMap holding the document",),
        )
    if context.skip_step is None:
        for rule in _STEP_RULES:
            if result := rule(context, increment):
                return result
            if context.current.stage is not Stage.STEP:
                return None  # a deadline began a rollback
    return _leave_step(context, increment)


def _evidence(context: DecisionContext, _: Increment) -> StageResult | None:
    missing = missing_evidence(context)
    if not missing and context.current.hold_until is not None:
        return None
    started = "the hold clock stands still" if context.current.hold_until else "the hold has not begun"
    return _wait(f"{missing[0] if missing else 'no evidence yet'}", (*missing[:7], started), ("evidence for every criterion",))


def _hold(context: DecisionContext, increment: Increment) -> StageResult | None:
    until = context.current.hold_until
    assert until is not None
    if context.now >= until:
        return None
    failing = tuple(record.message for record in context.checks_of(CRITERION) if record.verdict is Verdict.FAIL)
    why = f"holds {_audience(increment)} for {spell(increment.hold)}" + (f"; {failing[0]}" if failing else "")
    return StageResult(DecisionAction.HOLD, why[:120], failing or ("the hold is not over",), next_time=until)


def _criteria(context: DecisionContext, increment: Increment) -> StageResult | None:
    failing = tuple(record.message for record in context.checks_of(CRITERION) if record.verdict is not Verdict.PASS)
    if not failing:
        return None
    phase, until = _phase(context), context.current.hold_until
    deadline = until + duration(phase.deadline) if phase.deadline and until else None
    if deadline is None or context.now < deadline:
        result = _wait(failing[0], failing, ("the criteria passing", "an action `Promote` with a reason"))
        return StageResult(result.action, result.message, result.details, result.next_actions, next_time=deadline)
    reasons = (f"deadline: criteria kept step {increment.step} more than {phase.deadline} beyond its hold", *failing[:7])
    if phase.on_deadline is OnDeadline.ROLLBACK:
        begin_rollback(context, Outcome.ROLLED_BACK, reasons)
        return None
    return StageResult(
        DecisionAction.STALL, f"deadline passed: {failing[0]}"[:120], reasons, ("the criteria passing", "an action `Abort`")
    )


def _steady(context: DecisionContext, _: Increment) -> StageResult | None:
    """Every criterion has passed for at least one check interval."""
    since = max((record.time for record in context.checks_of(CRITERION) if record.time), default=context.now - context.interval)
    ready = since + context.interval
    if context.now >= ready:
        return None
    why = "criteria pass, but not for a whole check interval yet"
    return StageResult(DecisionAction.HOLD, why, (why,), next_time=ready)


def _approval(context: DecisionContext, increment: Increment) -> StageResult | None:
    if not increment.approval or not increment.last_of_step or context.current.approved_by:
        return None
    phase, generation = context.current.phase, context.status.observed_generation
    why = f"step {increment.step} of {phase} waits for an approval"[:120]
    if context.status.decision.message != why:
        context.tell(EventReason.APPROVAL_NEEDED, f"step {increment.step} of phase {phase}, generation {generation}")
    hint = f"an action `Approve` with generation {generation}, phase {phase}, step {increment.step}"
    return _wait(why, (why,), (hint,), (AwaitedApproval(phase=phase, step=increment.step),))


def _answered(context: DecisionContext, _: Increment) -> StageResult | None:
    """Nothing is decided anew on verdicts of before, while answers are on their way."""
    return _as_before(context) if context.unanswered and context.current.hold_until is not None else None


def _as_before(context: DecisionContext) -> StageResult:
    last = context.observed.rollout.status.decision
    return StageResult(last.action, last.message, last.details, last.next_actions, last.next_time, last.approvals)


_STEP_RULES: Final[tuple[Callable[[DecisionContext, Increment], StageResult | None], ...]] = (
    _answered,  # every question has an answer
    _evidence,  # every criterion has a verdict, and the clock runs
    _hold,  # the hold is over
    _criteria,  # every criterion passes
    _steady,  # ... and has for a check interval
    _approval,  # a person agreed, where one is required
)


def _leave_step(context: DecisionContext, increment: Increment) -> StageResult | None:
    here, by = context.current, context.skip_step
    passed = "; ".join(record.message for record in context.checks_of(CRITERION)) or "hold over, no criteria"
    following = increment_after(_phase(context), increment, skip_step=by is not None)
    if following is not None:
        if result := _raise_to(context, following):
            return result
    else:
        forget_criteria(context)
        context.enter(Stage.VERIFICATION)
    context.skip_step = None
    because = f"promoted by {by}" if by else passed
    context.tell(EventReason.STEP_PASSED, f"{_audience(increment)}: {because}"[:400], at=here)
    return None


def _verification(context: DecisionContext) -> StageResult | None:
    gates = _phase(context).verification
    records = judge_gates(context, gates, VERIFICATION)
    if result := _gates(context, gates, records, "verification"):
        return result
    context.enter(Stage.AFTER)
    return None


def _after(context: DecisionContext) -> StageResult | None:
    phase = _phase(context)
    if result := migration_jobs.run_up(context, phase.migrations.after):
        return result
    context.mark(phase.name, state=PhaseState.COMPLETED, end_time=context.now)
    context.tell(EventReason.PHASE_COMPLETED, f"{', '.join(phase.features)} at {context.current.percent} %"[:400])
    return _next_phase(context)


# --- the end


def _bake(context: DecisionContext) -> StageResult | None:
    if context.current.hold_until is None:
        run_clock(context, duration(context.spec.bake))
    missing = missing_evidence(context)
    if context.unanswered and context.current.hold_until is not None:
        return _as_before(context)
    if missing or context.current.hold_until is None:
        return _wait(f"bake: {missing[0] if missing else 'begins'}", missing, ("evidence for every guard",))
    if context.now < context.current.hold_until:
        why = f"bakes for {context.spec.bake}: guards are judged"
        return StageResult(DecisionAction.HOLD, why, (why,), next_time=context.current.hold_until)
    if result := migration_jobs.run_finish(context):
        return result
    context.end(Outcome.PROMOTED, EventReason.PROMOTED, "every phase is out and its guards held")
    return None


def _ended(context: DecisionContext) -> StageResult | None:
    why = {
        Outcome.PROMOTED: "promoted",
        Outcome.ROLLED_BACK: "rolled back",
        Outcome.ABORTED: "aborted",
    }.get(context.status.outcome or Outcome.PROMOTED, "ended")
    if context.status.outcome is Outcome.PROMOTED:
        migration_jobs.run_prune(context)
        return StageResult(DecisionAction.NONE, why, ("every phase is out",))
    verify_rollback(context)
    because = context.current.rollback_reasons
    reason = f"{why}: {because[0]}"[:120] if because else why
    hints = (f"a change of the spec, or an action `Retry` with generation {context.status.observed_generation}",)
    return StageResult(DecisionAction.NONE, reason, because, hints)


def _phase(context: DecisionContext) -> Phase:
    phase = context.phase
    assert phase is not None, "conflict() keeps a vanished phase from coming here"
    return phase


def _audience(increment: Increment) -> str:
    return audience_text(percent_text(increment.percent), increment.groups)


HANDLERS: Final[dict[Stage, Handler]] = {
    Stage.PREFLIGHT: _preflight,
    Stage.BEFORE: _before,
    Stage.BASELINE: _baseline,
    Stage.STEP: _step,
    Stage.VERIFICATION: _verification,
    Stage.AFTER: _after,
    Stage.BAKE: _bake,
    Stage.ROLLING_BACK: continue_rollback,
    Stage.ENDED: _ended,
}
