"""The command report: phases, their checks, comparisons and migrations, the results of diagnostics topics, and the last decisions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from session_rollout.adapters.kubectl import ROLLOUT_RESOURCE, Kubectl
from session_rollout.api.enums import CheckKind, Condition, Verdict
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status_records import CheckRecord, PhaseRecord
from session_rollout.cli.checks import diagnosis
from session_rollout.cli.command import Command
from session_rollout.cli.common import NAME, pass_kubectl, rollout_name, rollout_of, start_reading_records
from session_rollout.cli.migration_records import progress
from session_rollout.cli.operator_lease import OperatorLease
from session_rollout.cli.render.statistics import comparisons_of, smallest_text
from session_rollout.cli.render.status import baseline_text, verdict_mark
from session_rollout.core.holdback import phase_text
from session_rollout.records import reader

if TYPE_CHECKING:
    from session_rollout.records.record import Record

Row = tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One heading with paragraphs or a table."""

    title: str
    columns: Row = ()
    rows: tuple[Row, ...] = ()
    paragraphs: tuple[str, ...] = ()


@click.command("report", cls=Command)
@NAME
@click.option("--topic", "topics", multiple=True, help="Add the current results of this diagnostics topic. Can be repeated.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["markdown", "html"]),
    default="markdown",
    show_default=True,
    help="Print the report in this format.",
)
@pass_kubectl
def report(kubectl: Kubectl, name: str | None, *, topics: tuple[str, ...], form: str) -> None:
    """Print a report of a rollout: phases, checks with their bounds, migrations and the last decisions.

    `--topic` adds the value, the bound and the verdict of each query of a diagnostics topic.
    """
    name = rollout_name(kubectl, name)
    with OperatorLease(kubectl):
        answer, slots = kubectl.get(ROLLOUT_RESOURCE, name), start_reading_records(kubectl, name)
        rollout = rollout_of(answer.json())
    records = reader.records(slots.items())
    sections = [_emergency(rollout), _summary(rollout), _phases(rollout), *_judged(rollout, records), comparisons(rollout)]
    sections.append(_migrations(rollout))
    sections += [_diagnostics(kubectl, rollout, topic) for topic in topics]
    sections.append(_history(rollout))
    write = as_html if form == "html" else as_markdown
    click.echo(write(f"{name}: report", [section for section in sections if section.rows or section.paragraphs]))


# --- sections


def _emergency(rollout: SessionRollout) -> Section:
    """What is off for all users, whatever the state of the rollout is."""
    active = (
        known for known in rollout.status.conditions if (known.type, known.status) == (Condition.EMERGENCY_ACTIVE, "True")
    )
    return Section("Emergency", paragraphs=tuple(known.message for known in active))


def _summary(rollout: SessionRollout) -> Section:
    status, now = rollout.status, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    state = f"{status.state or 'Has not been processed yet'}: {status.decision.message or 'no decision yet'}"
    return Section("Now", paragraphs=(state, f"Generation {rollout.generation}, written at {now}"))


def _phases(rollout: SessionRollout) -> Section:
    records = {record.name: record for record in rollout.status.phases}
    rows = []
    for phase in rollout.spec.phases:
        record = records.get(phase.name, PhaseRecord(name=phase.name))
        audience = phase_text(rollout.status, record)
        times = _time(record.start_time), _time(record.end_time)
        rows.append((phase.name, record.state, audience, *times, ", ".join(phase.features)))
    return Section("Phases", ("phase", "state", "audience", "started", "ended", "features"), tuple(rows))


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment is not None else ""


def _judged(rollout: SessionRollout, records: Sequence["Record"]) -> Iterator[Section]:
    """The checks of each phase: its criteria in the last decision of the phase, and the current guards."""
    columns = ("check", "verdict", "value", "bound", "baseline")
    for phase, criteria in _last_criteria(rollout, records).items():
        yield Section(f"Criteria of phase {phase}", columns, tuple(_check(check) for check in criteria))
    guards = [check for check in rollout.status.checks if check.kind == CheckKind.GUARD]
    yield Section("Guards", columns, tuple(_check(check) for check in guards))


def _last_criteria(rollout: SessionRollout, records: Sequence["Record"]) -> Mapping[str, Sequence[CheckRecord]]:
    last: dict[str, Sequence[CheckRecord]] = {}
    for status in (*(record.rollout.status for record in records), rollout.status):
        criteria = [check for check in status.checks if check.kind == CheckKind.CRITERION and check.verdict.is_evidence]
        if status.current.phase is not None and criteria:
            last[status.current.phase] = criteria
    return last


def _check(check: CheckRecord) -> Row:
    baseline = baseline_text(check)
    return check.name, _verdict(check.verdict), check.value or "", check.bound or "", baseline


def _verdict(verdict: Verdict) -> str:
    return f"{verdict_mark(verdict)} {verdict}"


def comparisons(rollout: SessionRollout) -> Section:
    """What each comparison has counted since its phase began, and how small a harm so many events show."""
    columns = ("check", "phase", "counted", "tolerates", "shows from")
    rows = tuple(
        (record.name, record.phase, known.counts_text, known.tolerated_text, smallest_text(known))
        for record, known in comparisons_of(rollout.spec, rollout.status.evidence, {})
    )
    return Section("Comparisons", columns, rows)


def _migrations(rollout: SessionRollout) -> Section:
    rows = tuple(
        (record.name, record.state, ", ".join(progress(record)), record.message) for record in rollout.status.migrations
    )
    return Section("Migrations", ("migration", "state", "progress", "message"), rows)


def _diagnostics(kubectl: Kubectl, rollout: SessionRollout, topic: str) -> Section:
    """Results of a diagnostics topic, measured now. The operator queries them, because users may not reach Prometheus."""
    rows = tuple(
        (result.name, _verdict(result.verdict), result.value or "", result.bound or "")
        for result in diagnosis(kubectl, rollout, topic)
    )
    return Section(f"Diagnostics: {topic}", ("query", "verdict", "value", "bound"), rows)


def _history(rollout: SessionRollout) -> Section:
    rows = tuple((_time(entry.time), entry.event, entry.message) for entry in rollout.status.history)
    return Section("Last decisions", ("time", "event", "message"), rows)


# --- formats


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """For a wiki or a pull request."""
    lines = [f"# {title}"]
    for section in sections:
        lines += ["", f"## {section.title}", "", *section.paragraphs]
        if section.rows:
            lines += [_row(section.columns), _row(("---",) * len(section.columns)), *map(_row, section.rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def as_html(title: str, sections: Sequence[Section]) -> str:
    """One self-contained page."""
    from session_rollout.cli.render.html import render

    return render("report.html.j2", title=title, sections=sections)
