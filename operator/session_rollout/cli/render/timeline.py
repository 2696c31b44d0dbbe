"""A rehearsal as text with dates, as data, or as an HTML page with a Gantt chart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import click

from session_rollout.api.enums import EventReason
from session_rollout.api.migration_enums import Operation
from session_rollout.api.quantities import format_duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status_records import HistoryEntry
from session_rollout.simulation.rehearsal import Rehearsal

_BAD: Final = frozenset(
    {
        EventReason.GUARD_BREACHED,
        EventReason.ROLLBACK_STARTED,
        EventReason.ROLLED_BACK,
        EventReason.STALLED,
        EventReason.MIGRATION_FAILED,
        EventReason.EVIDENCE_LOST,
        EventReason.CHECK_FAILED,
        EventReason.ABORTED,
    }
)
_HIDDEN: Final = frozenset({EventReason.ACTION_ACCEPTED})


@dataclass(frozen=True)
class Beside:
    """What is known of the rollout in addition to its decisions."""

    locks: Mapping[str, Sequence[str]]  # of each migration
    power: Sequence[str] | None = None  # what its checks of counted events would miss; None if the traffic is not known


SEES_ENOUGH: Final = "every check of counted events sees enough in each step"

# --- text


def print_text(name: str, spec: RolloutSpec, result: Rehearsal, beside: Beside) -> None:
    """The timeline."""
    for entry in _shown(result):
        style = "red" if entry.event in _BAD else "green" if entry.event is EventReason.PROMOTED else None
        line = f"{entry.time:%a %Y-%m-%d %H:%M}  {_place(entry):<26} {entry.event:<19} {_text(entry)}"
        click.echo(click.style(line, fg=style) if style else line)
        if entry.event is EventReason.MIGRATION_STARTED and entry.operation is Operation.UP:
            for lock in beside.locks.get(entry.migration or "", ()):
                click.echo(f"{'':<46} locks    {lock}")
    for line in _power_lines(beside):
        click.echo(f"{'':<46} evidence {line}")
    click.echo(f"{name}: {_ending(result)}; phases: {len(spec.phases)}, features: {len(spec.features)}; times are in UTC")
    for action in result.status.decision.next_actions if not result.ended else ():
        click.echo(f"  next: {action}")


def _power_lines(beside: Beside) -> Sequence[str]:
    return () if beside.power is None else beside.power or (SEES_ENOUGH,)


def _shown(result: Rehearsal) -> Iterator[HistoryEntry]:
    return (entry for entry in result.history if entry.event not in _HIDDEN)


def _place(entry: HistoryEntry) -> str:
    step = f" {entry.step}" if entry.step else ""
    return f"{entry.phase or ''}{step}"


def _text(entry: HistoryEntry) -> str:
    """What happened, in few words; the message of an event that is about neither an audience nor a migration."""
    match entry.event:
        case EventReason.STEP_PUBLISHED | EventReason.STEP_PASSED if entry.audience:
            return f"{entry.audience} {'published' if entry.event is EventReason.STEP_PUBLISHED else 'passed'}"
        case EventReason.MIGRATION_STARTED | EventReason.MIGRATION_SUCCEEDED if entry.migration:
            return _migration(entry)
    return entry.message


def _migration(entry: HistoryEntry) -> str:
    return f"{entry.migration} {entry.operation}" if entry.operation else f"{entry.migration}"


def _ending(result: Rehearsal) -> str:
    took = format_duration(result.end - result.scenario.start)
    if result.ended:
        return f"{result.status.outcome} after {took}"
    return f"does not end; after {took}: {result.status.decision.message}"


# --- data


def as_data(result: Rehearsal, beside: Beside) -> dict[str, Any]:
    """Everything, ready for JSON."""
    status = result.status
    return {
        "start": result.scenario.start.isoformat(),
        "end": result.end.isoformat(),
        "outcome": status.outcome,
        "state": status.state,
        "reason": status.decision.reason,
        "message": status.decision.message,
        "details": list(status.decision.details),
        "nextActions": list(status.decision.next_actions),
        "approvals": [approval.to_wire() for approval in status.decision.approvals],
        "reconciles": result.reconciles,
        "locks": dict(beside.locks),
        "power": None if beside.power is None else list(beside.power),
        "timeline": [entry.to_wire() for entry in result.history],
    }


# --- page

WIDTH, ROW, LABEL, AXIS_MARKS = 900, 26, 210, 5
CHARACTER: Final = 8  # width of a character of a label
PASSED, FAILED, MIGRATED = "#2a9d8f", "#e76f51", "#577590"


@dataclass(frozen=True)
class Span:
    """A step or a migration from its start to its end."""

    phase: str
    label: str
    start: datetime
    end: datetime
    color: str


@dataclass(frozen=True)
class Bar:
    """A span as a rectangle."""

    x: float
    y: int
    width: float
    height: int
    color: str
    label: str
    title: str

    @property
    def has_room(self) -> bool:
        """Whether the label fits."""
        return self.width > CHARACTER * len(self.label)


def as_html(name: str, spec: RolloutSpec, result: Rehearsal, beside: Beside) -> str:
    """One self-contained page: the chart, the timeline, the locks, and what the checks of counted events would miss."""
    from session_rollout.cli.render.html import render

    rows = [
        {
            "time": f"{entry.time:%a %Y-%m-%d %H:%M}",
            "place": _place(entry),
            "event": entry.event,
            "text": _text(entry),
            "bad": entry.event in _BAD,
        }
        for entry in _shown(result)
    ]
    chart = _chart([phase.name for phase in spec.phases], result)
    return render(
        "timeline.html.j2",
        name=name,
        ending=_ending(result),
        chart=chart,
        rows=rows,
        locks=beside.locks,
        power=_power_lines(beside),
    )


def _chart(phases: Sequence[str], result: Rehearsal) -> Mapping[str, Any]:
    start, whole = result.scenario.start, max(result.end - result.scenario.start, timedelta(seconds=1))
    height = ROW * (len(phases) + 1)
    parts = [part / (AXIS_MARKS - 1) for part in range(AXIS_MARKS)]
    return {
        "width": LABEL + WIDTH + 20,
        "height": height + 10,
        "labels": [{"y": index * ROW + 18, "text": phase} for index, phase in enumerate(phases)],
        "bars": [_bar(span, phases.index(span.phase), start, whole) for span in _spans(result) if span.phase in phases],
        "axis": [
            {"x": round(LABEL + WIDTH * part), "y": height, "text": f"{start + whole * part:%d %b %H:%M}"} for part in parts
        ],
    }


def _bar(span: Span, row: int, start: datetime, whole: timedelta) -> Bar:
    return Bar(
        x=LABEL + WIDTH * ((span.start - start) / whole),
        y=row * ROW + 4,
        width=max(WIDTH * ((span.end - span.start) / whole), 2),
        height=ROW - 8,
        color=span.color,
        label=span.label,
        title=f"{span.label}: {span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M} UTC",
    )


_STARTS: Final = frozenset({EventReason.STEP_PUBLISHED, EventReason.MIGRATION_STARTED})
_ENDS: Final = {
    EventReason.STEP_PASSED: PASSED,
    EventReason.ROLLBACK_STARTED: FAILED,
    EventReason.MIGRATION_SUCCEEDED: MIGRATED,
    EventReason.MIGRATION_FAILED: FAILED,
}


def _spans(result: Rehearsal) -> Iterator[Span]:
    """Steps and migrations. What has not ended by itself ends with the rehearsal."""
    running: dict[tuple[str, str], HistoryEntry] = {}  # by phase and migration; steps have no migration
    for entry in result.history:
        key = (entry.phase or "", entry.migration or "")
        if entry.event in _ENDS and key in running:
            yield _span(running.pop(key), entry.time, _ENDS[entry.event])
        elif entry.event in _STARTS:
            running[key] = entry
    for entry in running.values():
        yield _span(entry, result.end, FAILED)


def _span(entry: HistoryEntry, end: datetime, color: str) -> Span:
    label = _migration(entry) if entry.migration else entry.audience or ""
    return Span(entry.phase or "", label, entry.time, end, color)
