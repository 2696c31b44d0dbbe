"""A rehearsal as people read it: a timeline with dates, data, or a page with a picture."""

import html
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import click

from session_rollout.api.enums import EventReason, Operation
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import HistoryEntry
from session_rollout.cli.render.status import left
from session_rollout.simulation.rehearsal import Rehearsal

Locks = Mapping[str, Sequence[str]]  # by migration
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
_SILENT: Final = frozenset({EventReason.ACTION_ACCEPTED})


def print_text(name: str, spec: RolloutSpec, result: Rehearsal, locks: Locks) -> None:
    """The timeline."""
    for moment in result.history:
        if moment.event in _SILENT:
            continue
        style = "red" if moment.event in _BAD else "green" if moment.event is EventReason.PROMOTED else None
        line = f"{moment.time:%a %Y-%m-%d %H:%M}  {_where(moment):<26} {moment.event:<19} {_said(moment)}"
        click.echo(click.style(line, fg=style) if style else line)
        if moment.event is EventReason.MIGRATION_STARTED and f" {Operation.UP}" in moment.message:
            for text in locks.get(moment.message.split()[0], ()):
                click.echo(f"{'':<46} locks    {text}")
    took = left(result.end - result.scenario.start)
    ending = (
        f"{result.status.outcome} after {took}" if result.ended else f"stays after {took}: {result.status.decision.message}"
    )
    click.echo(f"{name}: {ending}; phases: {len(spec.phases)}, features: {len(spec.features)}")
    for hint in result.status.decision.next_actions if not result.ended else ():
        click.echo(f"  unblocked by {hint}")


def _where(moment: HistoryEntry) -> str:
    step = f" {moment.step}" if moment.step else ""
    return f"{moment.phase or ''}{step}"


def _said(moment: HistoryEntry) -> str:
    if moment.event is EventReason.STEP_PASSED:
        return moment.message.split(":")[0] + " passes"
    return moment.message.split(", revision")[0].split(" in Job ")[0]


def as_data(result: Rehearsal, locks: Locks) -> dict[str, Any]:
    """Everything, as JSON."""
    return {
        "start": result.scenario.start.isoformat(),
        "end": result.end.isoformat(),
        "outcome": result.status.outcome,
        "message": result.status.decision.message,
        "reconciles": result.reconciles,
        "locks": dict(locks),
        "timeline": [
            {
                "time": one.time.isoformat(),
                "event": one.event,
                "phase": one.phase,
                "step": one.step,
                "percent": one.percent,
                "message": one.message,
            }
            for one in result.history
        ],
    }


# --- the page

WIDTH, ROW, LABEL = 900, 26, 210


def _bars(result: Rehearsal) -> Iterator[tuple[str, str, datetime, datetime, str]]:
    """Row, label, begin, end and colour of every step and migration."""
    open_: dict[str, tuple[datetime, str]] = {}
    for one in result.history:
        phase = one.phase or ""
        match one.event:
            case EventReason.STEP_PUBLISHED:
                open_[phase] = (one.time, one.message.split(" is published")[0])
            case EventReason.STEP_PASSED | EventReason.ROLLBACK_STARTED if phase in open_:
                begun, label = open_.pop(phase)
                yield phase, label, begun, one.time, "#2a9d8f" if one.event is EventReason.STEP_PASSED else "#e76f51"
            case EventReason.MIGRATION_STARTED:
                open_[f"m:{phase}"] = (one.time, one.message.split(" in Job ")[0])
            case EventReason.MIGRATION_SUCCEEDED | EventReason.MIGRATION_FAILED if f"m:{phase}" in open_:
                begun, label = open_.pop(f"m:{phase}")
                yield phase, label, begun, one.time, "#e9c46a"
    for phase, (begun, label) in open_.items():
        yield phase.removeprefix("m:"), label, begun, result.end, "#e76f51"


def as_html(name: str, spec: RolloutSpec, result: Rehearsal, locks: Locks) -> str:
    """One page, self-contained: the picture, then the timeline."""
    rows = [phase.name for phase in spec.phases]
    whole = max(result.end - result.scenario.start, timedelta(seconds=1))
    height = ROW * (len(rows) + 1)
    parts = [
        f'<svg viewBox="0 0 {LABEL + WIDTH + 20} {height + 10}" role="img" aria-label="Gantt chart of {html.escape(name)}">'
    ]
    for index, phase in enumerate(rows):
        parts.append(f'<text x="0" y="{index * ROW + 18}">{html.escape(phase)}</text>')
    for phase, label, begun, end, colour in _bars(result):
        x = LABEL + WIDTH * ((begun - result.scenario.start) / whole)
        width = max(WIDTH * ((end - begun) / whole), 2)
        y = rows.index(phase) * ROW + 4
        title = html.escape(f"{label}: {begun:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 8}" rx="3" fill="{colour}"><title>{title}</title></rect>'
        )
        if width > 8 * len(label):
            parts.append(f'<text class="in" x="{x + 4:.1f}" y="{y + 13}">{html.escape(label)}</text>')
    parts += [_axis(result, whole, height), "</svg>"]
    lines = "".join(
        f"<tr class='{'bad' if one.event in _BAD else ''}'><td>{one.time:%a %Y-%m-%d %H:%M}</td><td>{html.escape(_where(one))}</td>"
        f"<td>{one.event}</td><td>{html.escape(_said(one))}</td></tr>"
        for one in result.history
        if one.event not in _SILENT
    )
    ending = html.escape(f"{result.status.outcome or 'stays'}: {result.status.decision.message}")
    taken = "".join(f"<li>{html.escape(name)}: {html.escape(text)}</li>" for name, texts in locks.items() for text in texts)
    return _PAGE.format(name=html.escape(name), ending=ending, picture="".join(parts), lines=lines, locks=taken)


def _axis(result: Rehearsal, whole: timedelta, height: int) -> str:
    """Five dates under the picture."""
    marks = []
    for part in range(5):
        moment = result.scenario.start + whole * part / 4
        marks.append(f'<text class="axis" x="{LABEL + WIDTH * part / 4:.0f}" y="{height}">{moment:%d %b %H:%M}</text>')
    return "".join(marks)


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}: rehearsal</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; max-width: 1150px }}
svg text {{ font-size: 12px }} svg .in {{ fill: white; font-size: 10px }} svg .axis {{ fill: #666; font-size: 10px }}
td {{ padding: 1px 12px 1px 0; vertical-align: top }} .bad {{ color: #b23a1d }}
</style></head><body>
<h1>{name}</h1><p>{ending}</p>
{picture}
<table>{lines}</table>
<h2>Locks of the migrations</h2><ul>{locks}</ul>
</body></html>"""
