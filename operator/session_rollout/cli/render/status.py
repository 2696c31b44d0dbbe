"""How a rollout is drawn: where it is, why, what would unblock it; then phases, steps, checks, migrations and flags.

Pure: an object, a time and past values in, something rich can print out. Made for 80 columns; says in words what a colour
says, for those who have none.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from session_rollout.api.enums import DecisionAction, MigrationState, Outcome, PhaseState, Stage, Verdict
from session_rollout.api.quantities import format_duration, show
from session_rollout.api.rollout import Phase, SessionRollout
from session_rollout.api.status import CheckRecord, Current, MigrationRecord, PhaseRecord
from session_rollout.core.steps import Increment, audience_text, increments, percent_text

Trends = Mapping[str, Sequence[Decimal]]  # by name of the metric, oldest first

DONE, HERE, AHEAD, BAD, UNKNOWN = "✔", "▶", "○", "✖", "?"
SPARKS: Final = "▁▂▃▄▅▆▇█"
SPARKS_SHOWN: Final = 10
_STYLES: Final = {DONE: "green", HERE: "bold cyan", AHEAD: "dim", BAD: "bold red", UNKNOWN: "yellow"}
_MARKS: Final = {Verdict.PASS: DONE, Verdict.FAIL: BAD}
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
_OUTCOME_STYLES: Final = {Outcome.PROMOTED: "bold green"}


def draw(rollout: SessionRollout, now: datetime, trends: Trends | None = None) -> RenderableType:
    """The whole picture."""
    return Group(_head(rollout), *_why(rollout, now), _tree(rollout, now, trends or {}))


def _head(rollout: SessionRollout) -> Text:
    current, spec = rollout.status.current, rollout.spec
    head = Text.assemble((rollout.name, "bold"), f" in {rollout.namespace}")
    if rollout.status.outcome:
        head.append(f"  {rollout.status.outcome}", _OUTCOME_STYLES.get(rollout.status.outcome, "bold red"))
    elif current.phase:
        head.append(f"  phase {current.phase_index} of {len(spec.phases)}")
        head.append(f", {_place(current, spec.phases)}")
    else:
        head.append(f"  {current.stage}")
    if rollout.status.observed_generation != rollout.generation:
        head.append(f"  generation {rollout.generation} is not seen yet", "yellow")
    return head


def _place(current: Current, phases: Sequence[Phase]) -> str:
    phase = next((one for one in phases if one.name == current.phase), None)
    if current.stage is Stage.STEP and phase is not None:
        return f"step {current.step} of {len(phase.steps)}, {audience_text(current.percent, current.groups)}"
    return str(current.stage)


def _why(rollout: SessionRollout, now: datetime) -> list[RenderableType]:
    decision = rollout.status.decision
    action = "" if decision.action is DecisionAction.NONE else f"{decision.action}: "
    head = Text.assemble((action, _ACTION_STYLES.get(decision.action, "cyan")), decision.message or "not decided yet")
    lines = [Text(f"because {text}") for text in decision.details if text not in decision.message]
    if decision.next_time is not None and decision.next_time > now:
        lines.append(Text(f"until {decision.next_time:%a %d %b %H:%M:%S} UTC, in {left(decision.next_time - now)}"))
    lines += [Text.assemble("unblocked by ", (text, "bold")) for text in decision.next_actions]
    return [head, *(Padding(line, (0, 0, 0, 2), expand=False) for line in lines)]


def left(length: timedelta) -> str:
    """A length of time in its two largest units: `3d 4h`."""
    seconds = max(round(length.total_seconds()), 0)
    parts = [(seconds // 86400, "d"), (seconds % 86400 // 3600, "h"), (seconds % 3600 // 60, "m"), (seconds % 60, "s")]
    shown = [f"{number}{unit}" for number, unit in parts if number]
    return " ".join(shown[:2]) or "0s"


def _line(mark: str, *words: str | tuple[str, str]) -> Text:
    return Text.assemble((f"{mark} ", _STYLES.get(mark, "cyan")), *words, overflow="ellipsis", no_wrap=True)


# --- the tree


def _tree(rollout: SessionRollout, now: datetime, trends: Trends) -> Tree:
    tree = Tree("", hide_root=True, guide_style="dim")
    _add_checks(tree, rollout, "Preflight", "preflight", trends)
    records = {record.name: record for record in rollout.status.phases}
    for phase in rollout.spec.phases:
        _add_phase(tree, rollout, phase, records.get(phase.name, PhaseRecord(name=phase.name)), now, trends)
    _add_checks(tree, rollout, "Guard", "guards", trends)
    _add_checks(tree, rollout, "AfterRollback", "after the rollback", trends)
    _add_flags(tree, rollout)
    return tree


def _add_phase(tree: Tree, rollout: SessionRollout, phase: Phase, record: PhaseRecord, now: datetime, trends: Trends) -> None:
    reached = f"  {audience_text(record.percent, record.groups)}" if record.state is not PhaseState.PENDING else ""
    times = _times(record)
    branch = tree.add(_line(_PHASE_MARKS[record.state], (phase.name, "bold"), reached, (times, "dim")))
    here = rollout.status.current.phase == phase.name
    names = (*phase.migrations.before, *phase.migrations.after)
    known = {one.name: one for one in rollout.status.migrations}
    for name in names:
        if here or name in known:
            branch.add(_migration(known.get(name, MigrationRecord(name=name))))
    if not here:
        return
    for increment in increments(phase):
        branch.add(_step(rollout.status.current, increment, now, over=record.state is PhaseState.COMPLETED))
    _add_checks(branch, rollout, "Criterion", "criteria", trends)
    _add_checks(branch, rollout, "Verification", "verification", trends)


def _times(record: PhaseRecord) -> str:
    if record.start_time is None:
        return ""
    end = f" to {record.end_time:%d %b %H:%M}" if record.end_time else ""
    return f"  {record.start_time:%d %b %H:%M}{end}"


def _step(current: Current, increment: Increment, now: datetime, *, over: bool) -> Text:
    here, there = (increment.step, increment.index), (current.step, current.increment)
    after = over or current.stage in {Stage.VERIFICATION, Stage.AFTER}
    mark = (
        HERE if here == there and current.stage is Stage.STEP else DONE if after or (current.step and here < there) else AHEAD
    )
    number = f"{increment.step}.{increment.index}" if increment.index else f"{increment.step}"
    words = f"step {number:<4} {audience_text(percent_text(increment.percent), increment.groups):<20} {format_duration(increment.hold)}"
    if increment.approval and increment.last_of_step and mark is not DONE:
        words += ", approved" if mark is HERE and current.approved_by else ", needs an approval"
    if mark is HERE:
        words += _clock(current, now)
    return _line(mark, (words, "bold" if mark is HERE else ""))


def _clock(current: Current, now: datetime) -> str:
    if current.hold_until is None:
        return ", the hold has not begun"
    if current.hold_paused_time is not None:
        return f", the clock stands still for {left(now - current.hold_paused_time)}"
    return f", {left(current.hold_until - now)} left" if current.hold_until > now else ", the hold is over"


def _migration(record: MigrationRecord) -> Text:
    mark = _MIGRATION_MARKS.get(record.state, HERE)
    words = f"migration {record.name} {record.operation}"
    if record.state is not MigrationState.RUNNING or not record.total:
        words += f" {record.state}"
    if record.total:
        words += f", {record.done or 0:,} of {record.total:,} rows"
    if record.rate:
        words += f", {record.rate:,}/s"
    if record.following:
        words += ", follows"
    if record.quarantined:
        words += f", {record.quarantined:,} quarantined"
    if mark in {BAD, HERE} and record.message:
        words += f": {record.message}"
    return _line(mark, words)


def _add_checks(tree: Tree, rollout: SessionRollout, kind: str, title: str, trends: Trends) -> None:
    records = [record for record in rollout.status.checks if record.kind == kind]
    if not records:
        return
    table = Table.grid(padding=(0, 1))
    for width in (2, 30, None, None):
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=width)
    table.add_column()
    for record in records:
        table.add_row(*_check(record, _metric_of(rollout, record), trends))
    tree.add(Group(Text(title, "bold"), table))


def _metric_of(rollout: SessionRollout, record: CheckRecord) -> str:
    checks = [*rollout.spec.guards, *(one for phase in rollout.spec.phases for one in phase.criteria)]
    return next((check.metric for check in checks if check.name == record.name), record.name)


def _check(record: CheckRecord, metric: str, trends: Trends) -> tuple[RenderableType, ...]:
    mark = _MARKS.get(record.verdict, UNKNOWN)
    value = record.value or ""
    bound = record.bound or ""
    baseline = f"{'from' if bound else 'baseline'} {show(Decimal(record.baseline), '')}" if record.baseline else ""
    said = record.message.removeprefix(f"{record.name}:").strip() if not record.verdict.is_evidence or not value else ""
    return (
        Text(mark, _STYLES[mark]),
        record.name,
        Text(value, "bold" if record.verdict is Verdict.FAIL else ""),
        Text(spark(trends.get(metric, ())), "cyan"),
        Text(" ".join(part for part in (bound, baseline, said) if part), "" if record.verdict is Verdict.FAIL else "dim"),
    )


def spark(values: Sequence[Decimal]) -> str:
    """The last values as a line of bars; nothing to see in fewer than two."""
    shown = list(values)[-SPARKS_SHOWN:]
    if len(shown) < 2:  # noqa: PLR2004 - one value has no direction
        return ""
    low, high = min(shown), max(shown)
    if low == high:
        return SPARKS[3] * len(shown)
    return "".join(SPARKS[int((value - low) * (len(SPARKS) - 1) / (high - low))] for value in shown)


def _add_flags(tree: Tree, rollout: SessionRollout) -> None:
    flags = rollout.status.flags
    read = "read back" if flags.sha256 is not None and flags.sha256 == flags.published_sha256 else "being published"
    words = f"flags: {len(rollout.spec.features)} in {flags.config_map}, revision {flags.revision}, {read}"
    branch = tree.add(_line(DONE if read == "read back" else HERE, words if flags.config_map else "no flags are published yet"))
    for one in flags.disabled:
        branch.add(_line(BAD, (one.feature, "bold"), f" is off for everybody: {one.reason} ({one.by})"))
