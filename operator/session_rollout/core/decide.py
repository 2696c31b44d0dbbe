"""The only door of the core: what was observed, and a point in time, in; what to write and do, out.

*gather -> decide -> apply*: the controller gathers, this decides, the controller writes the status (the intent) and then
does the effects. Deciding twice on the same facts gives the same status and the same effects, so a crash between any two
writes costs nothing but time.
"""

from datetime import datetime, timedelta
from typing import Final

from session_rollout.api.checks import OnBreach
from session_rollout.api.quantities import duration
from session_rollout.api.reasons import DecisionAction, EventReason, Outcome, Stage
from session_rollout.core import migrate, outbox, workload
from session_rollout.core.draft import Draft, Ruling
from session_rollout.core.flags import Compiled, FlagDocument, audiences, compile_document, with_dependents
from session_rollout.core.generation import adopt, conflict
from session_rollout.core.hear import hear
from session_rollout.core.judge import GUARD, breached, judge, next_breach, run_clock
from session_rollout.core.observed import Decision, Observed, Publish
from session_rollout.core.plan import JUDGED_STAGES, gates_now, needs_revisions
from session_rollout.core.programme import audience_text
from session_rollout.core.report import fit, report
from session_rollout.core.rollback import begin_rollback
from session_rollout.core.stages import HANDLERS
from session_rollout.core.windows import unknown_zones

RESYNC: Final = timedelta(seconds=30)
SOONEST: Final = timedelta(milliseconds=20)


def decide(observed: Observed, now: datetime) -> Decision:
    """The decision about one rollout at `now`."""
    draft = Draft(observed=observed, now=now, status=observed.rollout.status)
    outbox.forget_delivered(draft)
    _confirm(draft)
    adopt(draft)
    hear(draft)
    migrate.track(draft)
    workload.track(draft)
    problems = _problems(draft)
    judge(draft)
    _run_clock(draft, problems)
    ruling = _rule(draft, problems)
    migrate.drive(draft)
    _tell_stall(draft, ruling)
    _publish(draft)
    report(draft, ruling, problems)
    return Decision(
        status=fit(draft.status),
        effects=tuple(draft.effects),
        next_look=_next_look(draft, ruling),
        looked=not draft.unanswered,
    )


def _confirm(draft: Draft) -> None:
    """What was read back is published: a hold starts only then."""
    flags, seen = draft.status.flags, draft.observed.published_sha256
    if flags.sha256 is None or seen != flags.sha256:
        return
    if flags.published_sha256 != seen:
        draft.change(flags=flags.model_copy(update={"published_sha256": seen, "published_time": draft.now}))
    current = draft.current
    if current.stage not in {Stage.STEP, Stage.ROLLING_BACK} or current.published_time is not None:
        return
    draft.move(published_time=draft.now)
    if current.stage is Stage.STEP:
        audience = audience_text(current.percent, current.groups)
        draft.tell(EventReason.STEP_PUBLISHED, f"{audience} is published, revision {flags.revision}")


def _problems(draft: Draft) -> tuple[str, ...]:
    """Why the programme cannot be carried out as it is written."""
    zones = tuple(
        f"`windows[].timeZone` is {zone}, which the zone database does not know" for zone in unknown_zones(draft.spec.windows)
    )
    clash = conflict(draft.spec, draft.status) if draft.current.stage is not Stage.ROLLING_BACK else None
    return (*draft.observed.problems, *zones, *((clash,) if clash else ()))


def _run_clock(draft: Draft, problems: tuple[str, ...]) -> None:
    paused = (f"paused by {draft.status.paused_by}",) if draft.status.paused_by else ()
    suspended = ("suspended",) if draft.spec.suspend else ()
    stopped_by = (*paused, *suspended, *problems)
    if draft.unanswered and not stopped_by:
        return  # the time until the answer is judged when it is here
    if draft.current.stage is Stage.STEP and draft.current.published_time is not None and draft.rung is not None:
        run_clock(draft, draft.rung.hold, stopped_by=stopped_by)
    elif draft.current.stage is Stage.BAKE:
        run_clock(draft, duration(draft.spec.bake), stopped_by=stopped_by)


def _rule(draft: Draft, problems: tuple[str, ...]) -> Ruling:
    """The first rule that has a ruling; then stage by stage until something is awaited."""
    if ruling := _frozen(draft):
        return ruling
    _guard(draft)
    if ruling := _kept(draft, problems):
        return ruling
    while (ruling := HANDLERS[draft.current.stage](draft)) is None:
        pass
    return ruling


def _frozen(draft: Draft) -> Ruling | None:
    if not draft.spec.suspend or draft.current.stage is Stage.ENDED:
        return None
    breaches = breached(draft, OnBreach.ROLLBACK)
    found = ("the flag document that was found stays as it is",) if _keeps_what_was_found(draft) else ()
    because = ("`spec.suspend` is true: nothing moves, not even back", *found, *breaches)
    return Ruling(DecisionAction.PAUSE, "suspended", because[:8], ("`spec.suspend: false`",))


def _guard(draft: Draft) -> None:
    """A breach that has lasted acts, whatever else is going on."""
    if draft.current.stage not in JUDGED_STAGES:
        return
    if breaches := breached(draft, OnBreach.ROLLBACK):
        draft.tell(EventReason.GUARD_BREACHED, "; ".join(breaches)[:400])
        begin_rollback(draft, Outcome.ROLLED_BACK, breaches)
        return
    breaches = breached(draft, OnBreach.PAUSE)
    if breaches and not draft.status.paused_by:
        draft.tell(EventReason.GUARD_BREACHED, "; ".join(breaches)[:400])
        draft.change(paused_by=f"guard: {breaches[0]}"[:256])
    for breach in breached(draft, OnBreach.WARN):
        if not any(entry.event is EventReason.GUARD_BREACHED and entry.because == breach for entry in draft.status.history):
            draft.tell(EventReason.GUARD_BREACHED, breach)


def _kept(draft: Draft, problems: tuple[str, ...]) -> Ruling | None:
    """Reasons not to go forward; a rollback goes on in spite of them."""
    if draft.current.stage in {Stage.ENDED, Stage.ROLLING_BACK}:
        return None
    if problems:
        return Ruling(DecisionAction.STALL, problems[0][:120], problems[:8], ("a change of the spec or of the configuration",))
    if draft.status.paused_by:
        because = (f"paused by {draft.status.paused_by}",)
        return Ruling(DecisionAction.PAUSE, because[0][:120], because, ("an action `Resume`",))
    return None


def _tell_stall(draft: Draft, ruling: Ruling) -> None:
    before = draft.observed.rollout.status.decision
    if ruling.action is DecisionAction.STALL and (before.action, before.why) != (ruling.action, ruling.why[:120]):
        draft.tell(EventReason.STALLED, ruling.why)


def _keeps_what_was_found(draft: Draft) -> bool:
    """Suspended before it has published anything, with a document in the cluster: both came back from a backup.

    The status that said who has which feature is lost, and the document is all that users have. An emergency is published.
    """
    flags = draft.status.flags
    return draft.spec.suspend and flags.sha256 is None and not flags.disabled and draft.observed.published_sha256 is not None


def _publish(draft: Draft) -> None:
    """Compile the document of the status as it is now; publish while the cluster has another one."""
    if _keeps_what_was_found(draft):
        return
    flags = draft.status.flags
    document = _compile(draft, flags.revision)
    if document.sha256 != flags.sha256:
        document = _compile(draft, flags.revision + 1)
        flags = flags.model_copy(
            update={"config_map": document.config_map, "sha256": document.sha256, "revision": flags.revision + 1}
        )
        draft.change(flags=flags)
    if draft.observed.published_sha256 != document.sha256:
        drifted = flags.published_sha256 == document.sha256
        if drifted:
            draft.tell(EventReason.FLAG_DRIFT, f"{document.config_map} was changed by somebody else and is put right")
        draft.effects.append(Publish(document.config_map, document.text, document.sha256, drifted=drifted))


def _compile(draft: Draft, revision: int) -> FlagDocument:
    disabled = {one.feature: one.reason for one in draft.status.flags.disabled}
    return compile_document(
        Compiled(
            flag_set=draft.spec.flag_set,
            namespace=draft.observed.rollout.namespace,
            audiences=audiences(draft.spec, draft.status),
            disabled=with_dependents(draft.spec, disabled),
            metadata={
                "rollout": draft.observed.rollout.name,
                "rolloutGeneration": draft.status.observed_generation,
                "phase": draft.current.phase or "",
                "revision": revision,
            },
        )
    )


def _next_look(draft: Draft, ruling: Ruling) -> timedelta:
    """When to look again at the latest: a check is due, a hold ends, a breach has lasted."""
    if draft.current.stage is Stage.ENDED and not gates_now(draft.rollout)[1] and not needs_revisions(draft.rollout):
        return RESYNC
    waits = [min(draft.interval, RESYNC)]
    if any(record.kind == GUARD for record in draft.status.checks) and (end := next_breach(draft)):
        waits.append(end - draft.now)
    if ruling.next_time is not None:
        waits.append(ruling.next_time - draft.now)
    return max(min(waits), SOONEST)
