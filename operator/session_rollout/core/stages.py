"""The way forward: what each stage waits for, and where it leads.

A handler returns a Ruling when something is awaited, or None after it has moved on; `decide` calls again until a Ruling
comes. Every raise of an audience goes through `_raise_to`, and only `_step` lets a step end.
"""

from collections.abc import Callable
from typing import Final

from session_rollout.api.checks import Gate
from session_rollout.api.quantities import duration, spell
from session_rollout.api.reasons import DecisionAction, EventReason, Outcome, PhaseState, Stage, Verdict
from session_rollout.api.rollout import OnDeadline, Phase
from session_rollout.api.status import AwaitedApproval, CheckRecord
from session_rollout.core import migrate
from session_rollout.core.draft import Draft, Ruling
from session_rollout.core.gates import judge_gates, verify_rollback
from session_rollout.core.judge import (
    CRITERION,
    forget_criteria,
    measure_baselines,
    missing_evidence,
    run_clock,
    void_criteria,
)
from session_rollout.core.plan import PREFLIGHT, VERIFICATION
from session_rollout.core.programme import Rung, audience_text, percent_text, rung_after, rungs
from session_rollout.core.rollback import begin_rollback, continue_rollback
from session_rollout.core.windows import next_opening

Handler = Callable[[Draft], Ruling | None]


def _wait(
    why: str, because: tuple[str, ...], unblocked_by: tuple[str, ...] = (), approvals: tuple[AwaitedApproval, ...] = ()
) -> Ruling:
    return Ruling(DecisionAction.WAIT, why[:120], because, unblocked_by, approvals=approvals)


# --- before the first phase


def _preflight(draft: Draft) -> Ruling | None:
    if draft.observed.workload:
        return _wait("preflight: workload not available", (draft.observed.workload,), ("the workload becoming available",))
    records = judge_gates(draft, draft.spec.preflight, PREFLIGHT)
    if ruling := _gates(draft, draft.spec.preflight, records, "preflight"):
        return ruling
    return _next_phase(draft)


def _gates(draft: Draft, gates: tuple[Gate, ...], records: tuple[CheckRecord, ...], stage: str) -> Ruling | None:
    waiting = [record for record in records if record.verdict is not Verdict.PASS]
    if not waiting:
        return None
    needed = [gate.name for gate, record in zip(gates, records, strict=True) if gate.approval and record in waiting]
    hints = tuple(f"an action `Approve` with generation {draft.status.observed_generation} and check {name}" for name in needed)
    if any(record.job and record.verdict is Verdict.FAIL for record in waiting):
        hints = (*hints, f"an action `Retry` with generation {draft.status.observed_generation}: the Job runs again")
    approvals = tuple(AwaitedApproval(check=name) for name in needed)
    return _wait(f"{stage}: {waiting[0].message}", tuple(record.message for record in waiting), hints, approvals)


def _next_phase(draft: Draft) -> Ruling | None:
    state = {record.name: record.state for record in draft.status.phases}
    pending = [phase for phase in draft.spec.phases if state[phase.name] is not PhaseState.COMPLETED]
    forget_criteria(draft)
    if not pending:
        draft.enter(Stage.BAKE)
        draft.tell(EventReason.BAKE_STARTED, f"all phases are out; guards are judged for {draft.spec.bake}")
        return None
    phase = pending[0]
    index = draft.spec.phases.index(phase) + 1
    draft.enter(Stage.BEFORE, phase=phase.name, phase_index=index, percent="0", groups=())
    draft.mark(phase.name, state=PhaseState.RUNNING, start_time=draft.now, end_time=None)
    draft.tell(EventReason.PHASE_STARTED, f"phase {index} of {len(draft.spec.phases)}: {', '.join(phase.features)}"[:400])
    return None


# --- a phase


def _before(draft: Draft) -> Ruling | None:
    names = _phase(draft).migrations.before
    if ruling := migrate.run_up(draft, names) or migrate.run_backups(draft, names):
        return ruling
    draft.enter(Stage.BASELINE)
    return None


def _baseline(draft: Draft) -> Ruling | None:
    if missing := measure_baselines(draft):
        return _wait(missing[0], missing, ("an answer of the metric",))
    return _raise_to(draft, rungs(_phase(draft))[0])


def _raise_to(draft: Draft, rung: Rung) -> Ruling | None:
    """Go to an audience: the only place where a percentage or a group is added."""
    opening = next_opening(draft.spec.windows, draft.now)
    if opening > draft.now and draft.skip_step is None:
        return Ruling(
            DecisionAction.WAIT,
            f"waits for the window that opens {opening:%a %H:%M} UTC",
            ("no window is open now",),
            (f"the window that opens at {opening:%Y-%m-%d %H:%M} UTC",),
            next_time=opening,
        )
    phase, current = _phase(draft), draft.current
    approved_by = current.approved_by if rung.step == current.step else None
    percent = percent_text(rung.percent)
    draft.mark(phase.name, percent=percent, groups=rung.groups, features=phase.features)
    draft.enter(
        Stage.STEP,
        step=rung.step,
        increment=rung.increment,
        percent=percent,
        groups=rung.groups,
        approved_by=approved_by,
    )
    void_criteria(draft)
    return None


def _step(draft: Draft) -> Ruling | None:
    """A step ends when every rule of the chain has let it pass, or when a person said so."""
    rung = draft.rung
    assert rung is not None, "conflict() keeps a vanished step from coming here"
    if draft.current.published_time is None:
        return Ruling(
            DecisionAction.PUBLISH,
            f"publishing {_audience(rung)}",
            (f"the flag document with {_audience(rung)} is not read back yet",),
            ("the ConfigMap holding the document",),
        )
    if draft.skip_step is None:
        for rule in _STEP_RULES:
            if ruling := rule(draft, rung):
                return ruling
            if draft.current.stage is not Stage.STEP:
                return None  # a deadline began a rollback
    return _leave_step(draft, rung)


def _evidence(draft: Draft, _: Rung) -> Ruling | None:
    missing = missing_evidence(draft)
    if not missing and draft.current.hold_until is not None:
        return None
    started = "the hold clock stands still" if draft.current.hold_until else "the hold has not begun"
    return _wait(f"{missing[0] if missing else 'no evidence yet'}", (*missing[:7], started), ("evidence for every criterion",))


def _hold(draft: Draft, rung: Rung) -> Ruling | None:
    until = draft.current.hold_until
    assert until is not None
    if draft.now >= until:
        return None
    failing = tuple(record.message for record in draft.checks_of(CRITERION) if record.verdict is Verdict.FAIL)
    why = f"holds {_audience(rung)} for {spell(rung.hold)}" + (f"; {failing[0]}" if failing else "")
    return Ruling(DecisionAction.HOLD, why[:120], failing or ("the hold is not over",), next_time=until)


def _criteria(draft: Draft, rung: Rung) -> Ruling | None:
    failing = tuple(record.message for record in draft.checks_of(CRITERION) if record.verdict is not Verdict.PASS)
    if not failing:
        return None
    phase, until = _phase(draft), draft.current.hold_until
    deadline = until + duration(phase.deadline) if phase.deadline and until else None
    if deadline is None or draft.now < deadline:
        ruling = _wait(failing[0], failing, ("the criteria passing", "an action `Promote` with a reason"))
        return Ruling(ruling.action, ruling.why, ruling.because, ruling.unblocked_by, next_time=deadline)
    reasons = (f"deadline: criteria kept step {rung.step} more than {phase.deadline} beyond its hold", *failing[:7])
    if phase.on_deadline is OnDeadline.ROLLBACK:
        begin_rollback(draft, Outcome.ROLLED_BACK, reasons)
        return None
    return Ruling(
        DecisionAction.STALL, f"deadline passed: {failing[0]}"[:120], reasons, ("the criteria passing", "an action `Abort`")
    )


def _steady(draft: Draft, _: Rung) -> Ruling | None:
    """Every criterion has passed for at least one check interval."""
    since = max((record.time for record in draft.checks_of(CRITERION) if record.time), default=draft.now - draft.interval)
    ready = since + draft.interval
    if draft.now >= ready:
        return None
    why = "criteria pass, but not for a whole check interval yet"
    return Ruling(DecisionAction.HOLD, why, (why,), next_time=ready)


def _approval(draft: Draft, rung: Rung) -> Ruling | None:
    if not rung.approval or not rung.last_of_step or draft.current.approved_by:
        return None
    phase, generation = draft.current.phase, draft.status.observed_generation
    why = f"step {rung.step} of {phase} waits for an approval"[:120]
    if draft.status.decision.why != why:
        draft.tell(EventReason.APPROVAL_NEEDED, f"step {rung.step} of phase {phase}, generation {generation}")
    hint = f"an action `Approve` with generation {generation}, phase {phase}, step {rung.step}"
    return _wait(why, (why,), (hint,), (AwaitedApproval(phase=phase, step=rung.step),))


def _answered(draft: Draft, _: Rung) -> Ruling | None:
    """Nothing is decided anew on verdicts of before, while answers are on their way."""
    return _as_before(draft) if draft.unanswered and draft.current.hold_until is not None else None


def _as_before(draft: Draft) -> Ruling:
    last = draft.observed.rollout.status.decision
    return Ruling(last.action, last.why, last.because, last.unblocked_by, last.next_time, last.approvals)


_STEP_RULES: Final[tuple[Callable[[Draft, Rung], Ruling | None], ...]] = (
    _answered,  # every question has an answer
    _evidence,  # every criterion has a verdict, and the clock runs
    _hold,  # the hold is over
    _criteria,  # every criterion passes
    _steady,  # ... and has for a check interval
    _approval,  # a person agreed, where one is required
)


def _leave_step(draft: Draft, rung: Rung) -> Ruling | None:
    here, by = draft.current, draft.skip_step
    passed = "; ".join(record.message for record in draft.checks_of(CRITERION)) or "hold over, no criteria"
    following = rung_after(_phase(draft), rung, skip_step=by is not None)
    if following is not None:
        if ruling := _raise_to(draft, following):
            return ruling
    else:
        forget_criteria(draft)
        draft.enter(Stage.VERIFICATION)
    draft.skip_step = None
    because = f"promoted by {by}" if by else passed
    draft.tell(EventReason.STEP_PASSED, f"{_audience(rung)}: {because}"[:400], at=here)
    return None


def _verification(draft: Draft) -> Ruling | None:
    gates = _phase(draft).verification
    records = judge_gates(draft, gates, VERIFICATION)
    if ruling := _gates(draft, gates, records, "verification"):
        return ruling
    draft.enter(Stage.AFTER)
    return None


def _after(draft: Draft) -> Ruling | None:
    phase = _phase(draft)
    if ruling := migrate.run_up(draft, phase.migrations.after):
        return ruling
    draft.mark(phase.name, state=PhaseState.COMPLETED, end_time=draft.now)
    draft.tell(EventReason.PHASE_COMPLETED, f"{', '.join(phase.features)} at {draft.current.percent} %"[:400])
    return _next_phase(draft)


# --- the end


def _bake(draft: Draft) -> Ruling | None:
    if draft.current.hold_until is None:
        run_clock(draft, duration(draft.spec.bake))
    missing = missing_evidence(draft)
    if draft.unanswered and draft.current.hold_until is not None:
        return _as_before(draft)
    if missing or draft.current.hold_until is None:
        return _wait(f"bake: {missing[0] if missing else 'begins'}", missing, ("evidence for every guard",))
    if draft.now < draft.current.hold_until:
        why = f"bakes for {draft.spec.bake}: guards are judged"
        return Ruling(DecisionAction.HOLD, why, (why,), next_time=draft.current.hold_until)
    if ruling := migrate.run_finish(draft):
        return ruling
    draft.end(Outcome.PROMOTED, EventReason.PROMOTED, "every phase is out and its guards held")
    return None


def _ended(draft: Draft) -> Ruling | None:
    why = {
        Outcome.PROMOTED: "promoted",
        Outcome.ROLLED_BACK: "rolled back",
        Outcome.ABORTED: "aborted",
    }.get(draft.status.outcome or Outcome.PROMOTED, "ended")
    if draft.status.outcome is Outcome.PROMOTED:
        migrate.run_prune(draft)
        return Ruling(DecisionAction.NONE, why, ("every phase is out",))
    verify_rollback(draft)
    because = draft.current.ending_because
    reason = f"{why}: {because[0]}"[:120] if because else why
    hints = (f"a change of the spec, or an action `Retry` with generation {draft.status.observed_generation}",)
    return Ruling(DecisionAction.NONE, reason, because, hints)


def _phase(draft: Draft) -> Phase:
    phase = draft.phase
    assert phase is not None, "conflict() keeps a vanished phase from coming here"
    return phase


def _audience(rung: Rung) -> str:
    return audience_text(percent_text(rung.percent), rung.groups)


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
