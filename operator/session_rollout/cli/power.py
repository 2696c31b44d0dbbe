"""The command power."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from session_rollout.api.enums import CheckKind
from session_rollout.cli.command import emit, output, refusal
from session_rollout.cli.common import ANY_FILE, print_table
from session_rollout.cli.traffic import traffic_of, traffic_options
from session_rollout.cli.validate import read_rollout_file
from session_rollout.simulation.power import Power, compared_metrics, metrics_of_means, powers_of


@click.command("power")
@click.argument("file", type=ANY_FILE)
@traffic_options
@output()
def power(file: str, *, form: str | None, inflation: float, **options: Any) -> None:
    """Say what the comparisons of a rollout would see: how small a harm, and how soon a harmless feature passes.

    Every figure has a probability of four in five. The command needs no cluster, and changes nothing.
    """
    source = read_rollout_file(file)
    names = tuple(compared_metrics(source.spec))
    if not names:
        raise refusal(
            "no guard and no criterion has `comparedTo: Control` with a metric of counters, or a metric with `counts`"
        )
    if left_out := tuple(metrics_of_means(source.spec)):
        click.echo(f"left out, because how much values vary is known only from users' cells: {', '.join(left_out)}", err=True)
    powers = powers_of(source.spec, traffic_of(source.spec, names, options), inflation)
    if form:
        emit([_as_data(each) for each in powers], form)
    else:
        _print(powers)


def _as_data(power: Power) -> dict[str, Any]:
    passes = power.passes_after
    return {
        "kind": power.kind,
        "check": power.check,
        "phase": power.phase,
        "step": power.step,
        "percent": power.percent,
        "holdSeconds": power.hold.total_seconds(),
        "eventsPerHour": power.traffic.events,
        "rateWithout": power.traffic.rate,
        "toleratedRate": power.tolerated,
        "smallestRateSeen": power.smallest,
        "passesAfterSeconds": None if passes is None else passes.total_seconds(),
        "tooShort": power.is_too_short,
    }


TITLES: Final = ("PHASE", "STEP", "AUDIENCE", "HOLD", "CHECK", "TOLERATES", "SEES", "PASSES AFTER")


def _print(powers: Sequence[Power]) -> None:
    print_table(TITLES, [tuple(_cells(row)) for row in powers])
    if late := [row for row in powers if row.is_too_short]:
        steps = ", ".join(dict.fromkeys(f"{row.phase} {row.step}" for row in late))
        click.echo(f"a criterion would keep these steps waiting after their hold: {steps}; use more users, or a longer hold")


def _cells(row: Power) -> Iterator[str]:
    from session_rollout.api.quantities import format_duration

    yield from (row.phase, str(row.step), f"{row.percent:g}%", format_duration(row.hold), f"{row.kind} {row.check}")
    yield f"{100 * row.tolerated:.3g}%"
    yield "nothing" if row.smallest is None else f"{100 * row.smallest:.3g}%"
    passes = row.passes_after
    yield "" if row.kind != CheckKind.CRITERION else "never" if passes is None else format_duration(passes)
