"""How a rollout is drawn: its state, the reason, and what comes next; then phases, steps, checks, migrations and flags.

Takes an object, a time and past values; returns something that rich can print. It fits 80 columns. Every color has a mark
or a word next to it, for terminals and users without colors.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from session_rollout.api.enums import CheckKind, Condition, ConditionReason, DecisionAction, PhaseState, Stage, State, Verdict
from session_rollout.api.metrics import SEASONS_NEEDED
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.phases import Phase
from session_rollout.api.quantities import format_duration, show
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import Current, RolloutStatus
from session_rollout.api.status_records import CheckRecord, MigrationRecord, PhaseRecord
from session_rollout.core.holdback import phase_text
from session_rollout.core.steps import Increment, increments, phase_named

Trends = Mapping[str, Sequence[Decimal]]  # by name of the metric, oldest first

DONE, HERE, AHEAD, BAD, UNKNOWN = "✔", "▶", "○", "✖", "?"
SPARKS: Final = "▁▂▃▄▅▆▇█"
SPARKS_SHOWN: Final = 10
UNANSWERED_SHOWN: Final = timedelta(minutes=1)
_STYLES: Final = {DONE: "green", HERE: "bold cyan", AHEAD: "dim", BAD: "bold red", UNKNOWN: "yellow"}
_VERDICT_MARKS: Final = {Verdict.PASS: DONE, Verdict.FAIL: BAD}
_PHASE_MARKS: Final = {
    PhaseState.COMPLETED: DONE,
    PhaseState.RUNNING: HERE,
    PhaseState.PENDING: AHEAD,
    PhaseState.ROLLED_BACK: BAD,
}
_MIGRATION_MARKS: Final = {
    MigrationState.SUCCEEDED: DONE,
    MigrationState.FAILED: BAD,
    MigrationState.PENDING: AHEAD,
    MigrationState.REVERTED: BAD,
}
_ACTION_STYLES: Final = {
    DecisionAction.STALL: "bold red",
    DecisionAction.ROLL_BACK: "bold red",
    DecisionAction.PAUSE: "bold yellow",
    DecisionAction.WAIT: "yellow",
}
_STATE_STYLES: Final = {State.PROGRESSING: "cyan", State.PROMOTED: "bold green", State.PAUSED: "bold yellow"}
_TITLES: Final = {
    CheckKind.PREFLIGHT: "preflight",
    CheckKind.CRITERION: "criteria",
    CheckKind.VERIFICATION: "verification",
    CheckKind.GUARD: "guards",
    CheckKind.AFTER_ROLLBACK: "after the rollback",
}


def verdict_mark(verdict: Verdict) -> str:
    """The mark of a verdict."""
    return _VERDICT_MARKS.get(verdict, UNKNOWN)


def draw(rollout: SessionRollout, now: datetime, trends: Trends | None = None) -> RenderableType:
    """The whole picture."""
    return Group(_head(rollout), *_decision(rollout.status, now), _tree(rollout, now, trends or {}))


def _head(rollout: SessionRollout) -> Text:
    status = rollout.status
    head = Text.assemble((rollout.name, "bold"), f" in {rollout.namespace}")
    if status.state is not None:
        head.append(f"  {status.state}", _STATE_STYLES.get(status.state, "bold red"))
    if status.outcome is None:
        head.append(f"  {_place(rollout)}")
    if status.observed_generation != rollout.generation:
        head.append(f"  generation {rollout.generation} has not been processed yet", "yellow")
    return head


def _place(rollout: SessionRollout) -> str:
    current, phases = rollout.status.current, rollout.spec.phases
    phase = phase_named(rollout.spec, current.phase)
    if phase is None:
        return str(current.stage)
    stage = str(current.stage)
    if current.stage is Stage.STEP:
        stage = f"step {current.step} of {len(phase.steps)}, {current.audience}"
    return f"phase {current.phase_index} of {len(phases)}, {stage}"


def _decision(status: RolloutStatus, now: datetime) -> list[RenderableType]:
    """What the operator does and its reason; then the message, the causes, the next time and what would help, indented."""
    decision = status.decision
    action = "" if decision.action is DecisionAction.NONE else f"{decision.action}: "
    head = Text.assemble((action, _ACTION_STYLES.get(decision.action, "cyan")), f"{decision.message} ".lstrip())
    head.append(f"({decision.reason})", "dim")
    lines = [Text(f"why: {detail}") for detail in decision.details if detail != decision.message]
    if decision.next_time is not None and decision.next_time > now:
        until = f"{decision.next_time:%a %d %b %H:%M:%S} UTC"
        lines.append(Text(f"until {until}, in {format_duration(decision.next_time - now)}"))
    lines += [Text.assemble("next: ", (action, "bold")) for action in decision.next_actions]
    return [head, *(Padding(line, (0, 0, 0, 2), expand=False) for line in lines)]


def _line(mark: str, *words: str | tuple[str, str]) -> Text:
    return Text.assemble((f"{mark} ", _STYLES.get(mark, "cyan")), *words, overflow="ellipsis", no_wrap=True)


def unanswered(actions: Iterable[Mapping[str, Any]], now: datetime) -> Iterator[Text]:
    """Actions that have waited for a response for longer than the operator takes while it can list them."""
    for item in actions:
        metadata = item["metadata"]
        age = now - datetime.fromisoformat(metadata["creationTimestamp"])
        if "accepted" not in item.get("status", {}) and age >= UNANSWERED_SHOWN:
            yield _line(BAD, f"no response to {item['spec']['action']} for {format_duration(age)}: action {metadata['name']}")


# --- the tree


def _tree(rollout: SessionRollout, now: datetime, trends: Trends) -> Tree:
    tree = Tree("", hide_root=True, guide_style="dim")
    _add_checks(tree, rollout, CheckKind.PREFLIGHT, trends)
    records = {record.name: record for record in rollout.status.phases}
    for phase in rollout.spec.phases:
        record = records.get(phase.name, PhaseRecord(name=phase.name))
        branch = tree.add(_phase(rollout.status, record, refused=_is_refused(rollout.status)))
        for migration in _migrations(rollout, phase):
            branch.add(_line(*migration_line(migration)))
        if rollout.status.current.phase == phase.name:
            _add_steps(branch, rollout, phase, record, now)
            _add_checks(branch, rollout, CheckKind.CRITERION, trends)
            _add_checks(branch, rollout, CheckKind.VERIFICATION, trends)
    _add_checks(tree, rollout, CheckKind.GUARD, trends)
    _add_checks(tree, rollout, CheckKind.AFTER_ROLLBACK, trends)
    _add_flags(tree, rollout)
    _add_notifications(tree, rollout.status)
    return tree


def _is_refused(status: RolloutStatus) -> bool:
    """Whether users still have what a rollback takes away."""
    known = {condition.type: condition.reason for condition in status.conditions}
    return known.get(Condition.ROLLED_BACK) == ConditionReason.NOT_IN_FORCE


def _phase(status: RolloutStatus, record: PhaseRecord, *, refused: bool) -> Text:
    reached = f"  {phase_text(status, record)}" if record.state is not PhaseState.PENDING else ""
    if refused and record.state is PhaseState.ROLLED_BACK:
        reached = f"  NOT IN FORCE:{reached}"
    return _line(_PHASE_MARKS[record.state], (record.name, "bold"), reached, (_times(record), "dim"))


def _times(record: PhaseRecord) -> str:
    if record.start_time is None:
        return ""
    end = f" to {record.end_time:%d %b %H:%M}" if record.end_time else ""
    return f"  {record.start_time:%d %b %H:%M}{end}"


def _migrations(rollout: SessionRollout, phase: Phase) -> Iterator[MigrationRecord]:
    """Migrations of a phase: all of the running phase, those that have started of other phases."""
    records = {record.name: record for record in rollout.status.migrations}
    for name in phase.migrations.names:
        if name in records or rollout.status.current.phase == phase.name:
            yield records.get(name, MigrationRecord(name=name))


def migration_line(record: MigrationRecord) -> tuple[str, str]:
    """Mark and text of a migration: what matters most comes first, because the line is cut at the edge of the terminal."""
    mark = _MIGRATION_MARKS.get(record.state, HERE)
    text = f"migration {record.name} {record.operation}"
    if record.state is not MigrationState.RUNNING or not record.total:
        text += f" {record.state}"
    text = ", ".join((text, *migration_figures(record)))
    return mark, text + (f": {record.message}" if mark in {BAD, HERE} and record.message else "")


def migration_figures(record: MigrationRecord) -> Iterator[str]:
    """Rows copied, rate, rows in quarantine, and whether changes are still applied."""
    if record.total:
        yield f"{record.done or 0:,} of {record.total:,} rows"
    if record.rate:
        yield f"{record.rate:,}/s"
    if record.following:
        yield "following"
    if record.quarantined:
        yield f"{record.quarantined:,} quarantined"


# --- steps


def _add_steps(branch: Tree, rollout: SessionRollout, phase: Phase, record: PhaseRecord, now: datetime) -> None:
    current, completed = rollout.status.current, record.state is PhaseState.COMPLETED
    for increment in increments(phase):
        mark = _step_mark(current, increment, completed=completed)
        text = f"step {_number(increment):<4} {increment.audience:<20} {format_duration(increment.hold)}"
        text += _approval(current, increment, mark)
        text += _hold(current, now) if mark == HERE else ""
        branch.add(_line(mark, (text, "bold" if mark == HERE else "")))


def _number(increment: Increment) -> str:
    return f"{increment.step}.{increment.index}" if increment.index else f"{increment.step}"


def _step_mark(current: Current, increment: Increment, *, completed: bool) -> str:
    this, running = (increment.step, increment.index), (current.step, current.increment)
    if this == running and current.stage is Stage.STEP:
        return HERE
    if completed or current.stage in {Stage.VERIFICATION, Stage.AFTER} or (current.step and this < running):
        return DONE
    return AHEAD


def _approval(current: Current, increment: Increment, mark: str) -> str:
    if not (increment.approval and increment.last_of_step) or mark == DONE:
        return ""
    return ", approved" if mark == HERE and current.approved_by else ", requires approval"


def _hold(current: Current, now: datetime) -> str:
    if current.hold_until is None:
        return ", hold not started"
    if current.hold_paused_time is not None:
        return f", hold paused for {format_duration(now - current.hold_paused_time)}"
    return f", {format_duration(current.hold_until - now)} left" if current.hold_until > now else ", hold complete"


# --- checks


def _add_checks(tree: Tree, rollout: SessionRollout, kind: CheckKind, trends: Trends) -> None:
    records = [record for record in rollout.status.checks if record.kind == kind]
    if not records:
        return
    table = Table.grid(padding=(0, 1))
    for width in (2, 30, None, None):
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=width)
    table.add_column()
    for record in records:
        table.add_row(*_check(record, trends.get(_metric_of(rollout, record), ())))
    tree.add(Group(Text(_TITLES[kind], "bold"), table))


def _metric_of(rollout: SessionRollout, record: CheckRecord) -> str:
    checks = rollout.spec.all_checks()
    return next((check.metric for check in checks if check.name == record.name), record.name)


def _check(record: CheckRecord, trend: Sequence[Decimal]) -> tuple[RenderableType, ...]:
    mark, failed = verdict_mark(record.verdict), record.verdict is Verdict.FAIL
    return (
        Text(mark, _STYLES[mark]),
        record.name,
        Text(record.value or "", "bold" if failed else ""),
        Text(spark(trend), "cyan"),
        Text(" ".join(_comparison(record)), "" if failed else "dim"),
    )


def _comparison(record: CheckRecord) -> Iterator[str]:
    """Bound and baseline; the message where there is no value to compare."""
    if record.bound:
        yield record.bound
    if record.baseline:
        yield f"{'from' if record.bound else 'baseline'} {baseline_text(record)}"
    if not record.verdict.is_evidence or not record.value:
        yield record.message


def baseline_text(record: CheckRecord) -> str:
    """The value that a check is compared with; of a check without earlier seasons, that it has none."""
    known = record.seasonal_baseline or record.baseline
    if known is None:
        return ""
    lacking = record.seasons is not None and record.seasons < SEASONS_NEEDED
    return f"{show(Decimal(known), '')}{' (Unseasoned)' if lacking else ''}"


def spark(values: Sequence[Decimal]) -> str:
    """The last values as a line of bars; empty for fewer than two, which have no trend."""
    shown = list(values)[-SPARKS_SHOWN:]
    if len(shown) < 2:  # noqa: PLR2004 - see above
        return ""
    low, high = min(shown), max(shown)
    if low == high:
        return SPARKS[3] * len(shown)
    return "".join(SPARKS[int((value - low) * (len(SPARKS) - 1) / (high - low))] for value in shown)


# --- flags and notifications


def _add_flags(tree: Tree, rollout: SessionRollout) -> None:
    flags = rollout.status.flags
    if flags.config_map is None:
        tree.add(_line(AHEAD, "flags: not published yet"))
        return
    published = flags.sha256 is not None and flags.sha256 == flags.published_sha256
    state = "published" if published else "being published"
    text = f"flags: {len(rollout.spec.features)} in {flags.config_map}, revision {flags.revision}, {state}"
    branch = tree.add(_line(DONE if published else HERE, text))
    for name in flags.unknown:
        branch.add(_line(BAD, (name.feature, "bold"), f" is not a feature, and was not turned off ({name.by})"))
    for feature in flags.disabled:
        state = "is STILL ON: its emergency is not in force" if feature.pending else "is off for all users"
        branch.add(_line(BAD, (feature.feature, "bold"), f" {state}: {feature.reason} ({feature.by})"))


def _add_notifications(tree: Tree, status: RolloutStatus) -> None:
    sinks = sorted({notification.sink for notification in status.pending_notifications})
    if sinks:
        tree.add(_line(UNKNOWN, f"notifications: {len(status.pending_notifications)} pending for {', '.join(sinks)}"))
    if status.notifications_lost:
        tree.add(_line(BAD, f"notifications: {status.notifications_lost} dropped"))
