"""What each stage waits for, and where it leads.

A handler returns a StageResult when something is awaited, or None after it has moved on; `decide` calls the handler of the
next stage until a result comes. Whether a step is complete is decided in `promotion`.
"""

from collections.abc import Callable
from typing import Final

from session_rollout.api.checks import Gate
from session_rollout.api.enums import (
    CheckKind,
    DecisionAction,
    DecisionReason,
    EventReason,
    Outcome,
    PhaseState,
    Stage,
    Verdict,
)
from session_rollout.api.migration_enums import Operation
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.status import AwaitedApproval
from session_rollout.api.status_records import CheckRecord
from session_rollout.core import migration_jobs
from session_rollout.core.baselines import forget_past, measure_baselines
from session_rollout.core.clocks import second_results
from session_rollout.core.conditions import repeat_decision
from session_rollout.core.context import DecisionContext, StageResult
from session_rollout.core.criteria import forget_criteria
from session_rollout.core.drift import await_document
from session_rollout.core.gates import evaluate_gates, verify_rollback, void_gates
from session_rollout.core.hold import (
    advance_hold,
    await_features,
    await_guards,
    await_judged_guards,
    await_steady_guards,
    missing_evidence,
)
from session_rollout.core.holdback import bake_length, release, settle_release
from session_rollout.core.inputs import RUNNING
from session_rollout.core.migration_rules import await_read_back, run_up
from session_rollout.core.plan import kept_off_text
from session_rollout.core.promotion import await_window, first_increment, raise_audience, run_step, running_phase
from session_rollout.core.refusals import await_requests
from session_rollout.core.rollback import continue_rollback
from session_rollout.core.suspension import kept_texts
from session_rollout.core.unpublished import await_passing

Handler = Callable[[DecisionContext], StageResult | None]

# --- before the first phase


def _preflight(context: DecisionContext) -> StageResult | None:
    if cause := context.observed.workload_unavailable_reason:
        message = "preflight: the workload is not available"
        reason, next_actions = DecisionReason.WORKLOAD_UNAVAILABLE, ("wait until the workload is available",)
        return StageResult(DecisionAction.WAIT, reason, message, (cause,), next_actions)
    if context.spec.workload is not None and context.observed.rollout.status.current.stage is not Stage.PREFLIGHT:
        message = "preflight: waiting for the state of the workload"  # only this stage reads it
        reason, next_actions = DecisionReason.WORKLOAD_UNAVAILABLE, ("wait until the workload has been read",)
        return StageResult(DecisionAction.WAIT, reason, message, (message,), next_actions)
    records = evaluate_gates(context, context.spec.preflight, CheckKind.PREFLIGHT)
    if result := _await_gates(context, context.spec.preflight, records, "preflight"):
        return result
    return _next_phase(context)


def _await_gates(
    context: DecisionContext, gates: tuple[Gate, ...], records: tuple[CheckRecord, ...], stage: str
) -> StageResult | None:
    """What the gates that do not pass wait for; None when all pass."""
    waiting = [record for record in records if record.verdict is not Verdict.PASS]
    if not waiting:
        return _await_results(context, gates, stage)
    generation = context.status.observed_generation
    needed = [gate.name for gate, record in zip(gates, records, strict=True) if gate.approval and record in waiting]
    hints = tuple(f"create an `Approve` action with generation {generation} and check {name}" for name in needed)
    if any(record.job and record.verdict is Verdict.FAIL for record in waiting):
        hints = (*hints, f"create a `Retry` action with generation {generation} to run the Job again")
    reason = DecisionReason.AWAITING_APPROVAL if len(needed) == len(waiting) else DecisionReason.AWAITING_GATES
    return StageResult(
        DecisionAction.WAIT,
        reason,
        f"{stage}: {waiting[0].message}",
        tuple(record.message for record in waiting),
        hints,
        approvals=tuple(AwaitedApproval(check=name) for name in needed),
    )


def _await_results(context: DecisionContext, gates: tuple[Gate, ...], stage: str) -> StageResult | None:
    """After a restart, the verdicts are of another time until the results of now are here."""
    measured, checked = context.observed.measurements, context.observed.gates
    missing = tuple(
        f"{gate.name}: waiting for its result"
        for gate in gates
        if (gate.metric is not None and gate.metric not in measured)
        or ((gate.http or gate.builtin) and gate.name not in checked)
    )
    if not missing:
        return None
    reason, next_actions = DecisionReason.AWAITING_GATES, ("wait for a result of the gate",)
    return StageResult(DecisionAction.WAIT, reason, f"{stage}: {missing[0]}", missing, next_actions)


def _next_phase(context: DecisionContext) -> StageResult | None:
    state = {record.name: record.state for record in context.status.phases}
    pending = [phase for phase in context.spec.phases if state[phase.name] is not PhaseState.COMPLETED]
    if not (pending and (record := context.status.phase(pending[0].name)) and record.is_published):
        forget_criteria(context)  # else its own are kept, from before a rollback that left users a part of it
    if not pending:
        context.enter(Stage.BAKE)
        message = f"all phases are complete; guards are evaluated for {format_duration(duration(context.spec.bake))}"
        context.record_event(EventReason.BAKE_STARTED, message)
        return None
    phase = pending[0]
    index = context.spec.phases.index(phase) + 1
    kept = context.status.phase(phase.name)
    percent, groups = (kept.percent, kept.groups) if kept is not None else ("0", ())
    context.enter(Stage.BEFORE, phase=phase.name, phase_index=index, percent=percent, groups=groups)
    if kept is not None and kept.state is PhaseState.RUNNING:
        return None  # an edit had returned it to its preflight
    context.mark(phase.name, state=PhaseState.RUNNING, start_time=context.now, end_time=None)
    message = f"phase {index} of {len(context.spec.phases)}: {', '.join(phase.features)}"
    context.record_event(EventReason.PHASE_STARTED, message)
    return None


# --- a phase


def _migrations_before(context: DecisionContext) -> StageResult | None:
    names = running_phase(context).migrations.before
    earlier = tuple(name for phase in context.spec.phases for name in phase.migrations.names)
    adopted = tuple(name for name in earlier if context.migration(name).adopted)
    if result := run_up(context, (*adopted, *names)) or migration_jobs.run_backups(context, names):
        return result
    context.enter(Stage.BASELINE)
    return None


def _baseline(context: DecisionContext) -> StageResult | None:
    forget_past(context)
    if result := await_guards(context):
        return result
    baselines = measure_baselines(context)
    if missing := baselines.missing:
        reason, next_actions = DecisionReason.MEASURING_BASELINE, ("wait for a result of the metric",)
        return StageResult(DecisionAction.WAIT, reason, missing[0], missing, next_actions)
    if result := await_judged_guards(context) or await_passing(context):
        return result
    if result := raise_audience(context, first_increment(context)):
        return result
    for record in baselines.records:
        context.put_check(record)
    return None


def _await_users(context: DecisionContext, subject: str) -> StageResult | None:
    """What to do while users do not have what the status says."""
    return await_document(context) or await_features(context.off_here, subject)


def _verification(context: DecisionContext) -> StageResult | None:
    gates = running_phase(context).verification
    if result := _await_users(context, "verification waits"):
        void_gates(context, CheckKind.VERIFICATION)
        return result
    records = evaluate_gates(context, gates, CheckKind.VERIFICATION)
    if result := _await_gates(context, gates, records, "verification"):
        return result
    context.enter(Stage.AFTER)
    return None


def _migrations_after(context: DecisionContext) -> StageResult | None:
    phase = running_phase(context)
    if result := _await_users(context, f"phase {phase.name} waits"):
        return result  # a phase whose features nobody has is not complete
    if result := run_up(context, phase.migrations.after):
        return result
    context.mark(phase.name, state=PhaseState.COMPLETED, end_time=context.now)
    message = f"{', '.join(phase.features)} at {context.current.percent}%"
    context.record_event(EventReason.PHASE_COMPLETED, message)
    return _next_phase(context)


# --- the end


def _await_bake_requests(context: DecisionContext) -> StageResult | None:
    """A Job that ends a copy and is refused must be requested again with each decision: it waits for itself."""
    return (None if _is_finishing(context) else await_requests(context)) or await_document(context)


def _is_finishing(context: DecisionContext) -> bool:
    return any(record.operation is Operation.FINISH and record.state in RUNNING for record in context.status.migrations)


def _await_bake(context: DecisionContext) -> StageResult | None:
    """What the bake waits for; None when it is over."""
    if context.current.hold_until is None:
        advance_hold(context, context.problems)
    until, missing = context.current.hold_until, missing_evidence(context)
    if result := _await_bake_requests(context) or await_read_back(context, "bake"):
        return result
    if context.awaits_results and until is not None:
        return repeat_decision(context)
    if result := await_features(context.off_here, "the bake is paused"):
        return result
    if missing or until is None:
        message = f"bake: {missing[0] if missing else 'starting'}"
        reason, next_actions = DecisionReason.AWAITING_EVIDENCE, ("wait until evidence is available for every guard",)
        return StageResult(DecisionAction.WAIT, reason, message, missing, next_actions)
    bake, released = bake_length(context), context.status.flags.released_time is not None
    if context.now < until or (once := second_results(context, bake)):
        what = "holding what users who were held back have got" if released else "baking"
        message = f"{what} for {format_duration(bake)}; guards are evaluated"
        due = until if context.now < until else max(once.values())
        return StageResult(DecisionAction.HOLD, DecisionReason.BAKING, message, (message,), next_time=due)
    return await_steady_guards(context, bake) or (None if _is_finishing(context) else await_window(context))


def _bake(context: DecisionContext) -> StageResult | None:
    """After the last phase: evaluate guards, release the users who are held back, finish copies, then promote the rollout."""
    if result := _await_bake(context):
        return result
    if release(context):
        return None
    if result := migration_jobs.run_finish(context):
        return result
    settle_release(context)
    for record in context.status.phases:
        if record.state is PhaseState.COMPLETED and record.promoted_time is None:
            context.mark(record.name, promoted_time=context.now)
    context.change(rolled_back_plans=(), flags=context.status.flags.updated(holdback=None))
    context.end(Outcome.PROMOTED, EventReason.PROMOTED, "all phases are complete, and no guard was breached")
    return None


_ENDED: Final = {
    Outcome.PROMOTED: (DecisionReason.PROMOTED, "promoted"),
    Outcome.ROLLED_BACK: (DecisionReason.ROLLED_BACK, "rolled back"),
    Outcome.ABORTED: (DecisionReason.ABORTED, "aborted"),
}


def _ended(context: DecisionContext) -> StageResult | None:
    outcome = context.status.outcome
    assert outcome is not None, "only `DecisionContext.end` enters this stage"
    reason, word = _ENDED[outcome]
    if outcome is Outcome.PROMOTED:
        migration_jobs.run_prune(context)
        return StageResult(DecisionAction.NONE, reason, word, ("all phases are complete",))
    verify_rollback(context)
    causes = context.current.rollback_reasons
    retry = f"create a `Retry` action with generation {context.status.observed_generation}"
    hints: tuple[str, ...] = (f"change features, phases, metrics, guards, gates or migrations in the spec, or {retry}",)
    if _is_of_all_users(context):
        hints = ("check the application: the guard is about all users, so the feature may not be the cause", *hints)
    message, unchanged = f"{word}: {causes[0]}" if causes else word, kept_off_text(context.status)
    users = kept_texts(context.spec, context.status) or ("no user has a feature of this rollout now",)
    details = (*users, *causes) if unchanged is None else (f"not started again: {unchanged}", *users, *causes)
    return StageResult(DecisionAction.NONE, reason, message, details, hints)


def _is_of_all_users(context: DecisionContext) -> bool:
    """Whether the guard that has caused the rollback counts the events of all users."""
    guards = (guard for guard in context.spec.guards if guard.name == context.current.rollback_guard)
    metrics = (context.spec.metric(guard.metric) for guard in guards)
    return any(metric is not None and metric.counts is not None for metric in metrics)


HANDLERS: Final[dict[Stage, Handler]] = {
    Stage.PREFLIGHT: _preflight,
    Stage.BEFORE: _migrations_before,
    Stage.BASELINE: _baseline,
    Stage.STEP: run_step,
    Stage.VERIFICATION: _verification,
    Stage.AFTER: _migrations_after,
    Stage.BAKE: _bake,
    Stage.ROLLING_BACK: continue_rollback,
    Stage.ENDED: _ended,
}
