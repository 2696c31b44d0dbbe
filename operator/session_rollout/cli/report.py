"""The scorecard of a programme: phases with what they were judged by, migrations, targets of the admin, and the story."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import click

from session_rollout.adapters.kubectl import ROLLOUTS, Kubectl
from session_rollout.api.quantities import show
from session_rollout.cli.actions import Wish, send
from session_rollout.cli.checks import EXAMINE_SECONDS, MARKS
from session_rollout.cli.command import Command
from session_rollout.cli.common import start_reading_records
from session_rollout.cli.status import NAME, pass_kubectl, rollout_of, the_only
from session_rollout.records import reader

if TYPE_CHECKING:
    from session_rollout.records.record import Record


@dataclass(frozen=True)
class Section:
    """One heading with a table, or with sentences."""

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    text: tuple[str, ...] = ()


@click.command("report", cls=Command)
@NAME
@click.option("--topic", "topics", multiple=True, help="A topic of targets in the operator's configuration, such as week-1.")
@click.option("-o", "--output", "form", type=click.Choice(["markdown", "html"]), default="markdown", show_default=True)
@pass_kubectl
def report(kubectl: Kubectl, name: str | None, *, topics: tuple[str, ...], form: str) -> None:
    """Write the scorecard of a rollout: what was promised, what was measured, what was decided."""
    name = the_only(kubectl, name)
    asked, kept = kubectl.get(ROLLOUTS, name), start_reading_records(kubectl, name)
    raw = asked.json()
    records = reader.records(kept.items())
    sections = [_summary(raw), _phases(raw), *_judged(raw, records), _migrations(raw)]
    sections += [_targets(kubectl, name, topic) for topic in topics]
    sections.append(_story(raw))
    write = as_html if form == "html" else as_markdown
    click.echo(write(f"{name}: scorecard", [one for one in sections if one.rows or one.text]))


def _summary(raw: Mapping[str, Any]) -> Section:
    status = raw.get("status", {})
    outcome = status.get("outcome") or "under way"
    why = status.get("decision", {}).get("message", "not seen yet")
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return Section("Now", text=(f"{outcome}: {why}", f"generation {raw['metadata']['generation']}, written {now}"))


def _phases(raw: Mapping[str, Any]) -> Section:
    known = {one["name"]: one for one in raw.get("status", {}).get("phases", [])}
    rows = []
    for phase in raw["spec"]["phases"]:
        one = known.get(phase["name"], {})
        audience = f"{one.get('percent', '0')}%" + "".join(f"+{group}" for group in one.get("groups", []))
        times = [one.get(key, "")[:16].replace("T", " ") for key in ("startTime", "endTime")]
        rows.append((phase["name"], one.get("state", "Pending"), audience, *times, ", ".join(phase["features"])))
    return Section("Phases", ("phase", "state", "reached", "begun", "ended", "features"), tuple(rows))


def _judged(raw: Mapping[str, Any], records: Sequence["Record"]) -> list[Section]:
    """What each phase was judged by: its criteria as the last decision of the phase had them."""
    last: dict[str, Any] = {}
    now = rollout_of(dict(raw)).status
    for seen in (*(record.rollout.status for record in records), now):
        criteria = [one for one in seen.checks if one.kind == "Criterion" and one.verdict.is_evidence]
        if seen.current.phase is not None and criteria:
            last[seen.current.phase] = criteria
    last |= {"guards": [one for one in now.checks if one.kind == "Guard"]}
    columns = ("check", "verdict", "value", "bound", "baseline")
    made = []
    for title, checks in last.items():
        rows = tuple(
            (
                one.name,
                f"{MARKS.get(one.verdict, '?')} {one.verdict}",
                one.value or "",
                one.bound or "",
                show(Decimal(one.baseline), "") if one.baseline else "",
            )
            for one in checks
        )
        made.append(Section(f"Judged: {title}", columns, rows))
    return made


def _migrations(raw: Mapping[str, Any]) -> Section:
    rows = tuple(
        (
            one["name"],
            one["state"],
            f"{one.get('done') or 0:,} of {one['total']:,}" if one.get("total") is not None else "",
            one.get("message", ""),
        )
        for one in raw.get("status", {}).get("migrations", [])
    )
    return Section("Migrations", ("migration", "state", "rows", "last words"), rows)


def _targets(kubectl: Kubectl, name: str, topic: str) -> Section:
    """Targets as they are measured now: the operator asks, for it may."""
    answered = send(kubectl, name, "Diagnose", {"topic": topic}, Wish(timeout=EXAMINE_SECONDS))
    rows = tuple(
        (one["name"], f"{MARKS.get(one['verdict'], '?')} {one['verdict']}", one.get("value") or "", one.get("bound") or "")
        for one in answered["status"].get("results", [])
    )
    return Section(f"Targets: {topic}", ("target", "verdict", "value", "bound"), rows)


def _story(raw: Mapping[str, Any]) -> Section:
    told = raw.get("status", {}).get("history", [])
    rows = tuple((one["time"][:16].replace("T", " "), one["event"], one.get("message", "")) for one in told)
    return Section("The last decisions", ("time", "event", "message"), rows)


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """For a wiki or a pull request."""
    lines = [f"# {title}"]
    for one in sections:
        lines += ["", f"## {one.title}", "", *one.text]
        if one.rows:
            lines += [_row(one.columns), _row(("---",) * len(one.columns)), *map(_row, one.rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def as_html(title: str, sections: Sequence[Section]) -> str:
    """One page, self-contained."""
    parts = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>{_STYLE}</head><body>"
    ]
    parts.append(f"<h1>{html.escape(title)}</h1>")
    for one in sections:
        parts.append(f"<h2>{html.escape(one.title)}</h2>")
        parts += [f"<p>{html.escape(text)}</p>" for text in one.text]
        if one.rows:
            parts.append(f"<table><tr>{_cells('th', one.columns)}</tr>")
            parts += [f"<tr>{_cells('td', row)}</tr>" for row in one.rows]
            parts.append("</table>")
    return "\n".join([*parts, "</body></html>"])


def _cells(tag: str, cells: Sequence[str]) -> str:
    return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)


_STYLE: Final = (
    "<style>body{font:14px system-ui,sans-serif;margin:2em;max-width:1100px}th{text-align:left}"
    "th,td{padding:2px 14px 2px 0;vertical-align:top}</style>"
)
