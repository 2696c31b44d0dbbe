"""The command explain: a decision is replayed by the operator's own code on the inputs that it recorded."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from session_rollout.adapters.kubectl import ROLLOUT_RESOURCE, Kubectl
from session_rollout.cli.command import Command, emit, output, refusal, usage_error
from session_rollout.cli.common import NAME, TimeType, pass_kubectl, rollout_name, start_reading_records, terminal
from session_rollout.cli.operator_lease import OperatorLease
from session_rollout.records import reader

if TYPE_CHECKING:
    from session_rollout.records.record import Record

DIFFERENCES_SHOWN = 5


@click.command("explain", cls=Command)
@NAME
@click.option(
    "--at",
    type=TimeType(),
    help="Explain the decision at this time: 2026-11-24T14:02 (UTC unless it has an offset), 14:02 or '10m ago'.",
    show_default="now",
)
@click.option("--statistics", is_flag=True, help="Show the statistics of each check with `comparedTo: Control`.")
@click.option("--check", is_flag=True, help="Replay all recorded decisions, and fail if one of them differs.")
@output()
@pass_kubectl
def explain(
    kubectl: Kubectl, name: str | None, *, at: datetime | None, statistics: bool, check: bool, form: str | None
) -> None:
    """Replay a decision from its recorded inputs, and show what the operator observed and decided."""
    if check and (at or form or statistics):
        raise usage_error("--check replays all decisions; it cannot be used with --at, --statistics or --output")
    name = rollout_name(kubectl, name)
    records = _read(kubectl, name)
    if check:
        _check(name, records)
        return
    record = _record_at(records, at)
    if form:
        emit(record.model_dump(mode="json"), form)
        return
    _print(record, at)
    if statistics:
        _print_statistics(record)


def _read(kubectl: Kubectl, name: str) -> Sequence["Record"]:
    with OperatorLease(kubectl):
        answer, slots = kubectl.get(ROLLOUT_RESOURCE, name), start_reading_records(kubectl, name)
        answer.text()  # an unknown name is reported before missing records
        items = slots.items()
    try:
        records = reader.records(items)
    except (ValueError, KeyError) as error:
        raise refusal(f"the decision records of {name} cannot be read: {error}") from error
    if not records:
        raise refusal(f"{name} has no decision records yet; the operator keeps one for each decision")
    return records


def _record_at(records: Sequence["Record"], at: datetime | None) -> "Record":
    earlier = [record for record in records if at is None or record.time <= at]
    if not earlier:
        raise refusal(
            f"no decision is recorded before {at:%Y-%m-%d %H:%M:%S} UTC; the oldest record is from {_time(records[0])}"
        )
    return earlier[-1]


def _time(record: "Record") -> str:
    return f"{record.time:%Y-%m-%d %H:%M:%S} UTC"


def _check(name: str, records: Sequence["Record"]) -> None:
    started = time.perf_counter()
    different = [record for record in records if not record.agrees()]
    took = time.perf_counter() - started
    for record in different[:DIFFERENCES_SHOWN]:
        replayed = record.decide_again().status.decision
        click.echo(f"{_time(record)}: was {record.action}: {record.message}; now {replayed.action}: {replayed.message}")
    text = f"{len(records) - len(different)} of {len(records)} decisions of {name} were reproduced in {took:.2f} s"
    if different:
        raise refusal(text)
    click.echo(text)


def _print(record: "Record", at: datetime | None) -> None:
    from session_rollout.api.quantities import format_duration
    from session_rollout.cli.render.status import draw

    console = terminal()
    replayed = record.decide_again()
    rollout = record.rollout.updated(status=replayed.status)
    verdict = "this version reproduces it" if record.agrees() else "this version decides differently"
    age = format_duration((at or datetime.now(UTC)) - record.time)
    console.print(f"Decided at {_time(record)}, {age} {'earlier' if at else 'ago'}; {verdict}.", style="dim")
    console.print(draw(rollout, record.time))
    if record.measurements:
        console.print("Metrics at that time:", style="bold")
    for metric, measurement in record.measurements.items():
        console.print(f"  {metric}: {measurement.value if measurement.value is not None else measurement.message}")


def _print_statistics(record: "Record") -> None:
    from session_rollout.cli.render.statistics import tables_of

    console = terminal()
    tables = tables_of(record.rollout.spec, record.decide_again().status.evidence, record.measurements)
    for table in tables:
        console.print(table)
    if not tables:
        console.print("No check with `comparedTo: Control` has evidence.")
