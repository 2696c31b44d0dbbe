"""The statistics of comparisons with the users without a feature, as tables: `explain --statistics`."""

import math
from collections.abc import Iterable, Iterator, Mapping

from rich.table import Table

from session_rollout.api.evidence_record import EvidenceRecord
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.comparison import LARGEST_LOG, Comparison
from session_rollout.core.evidence import check_of, comparison_of
from session_rollout.core.observed import Measurement
from session_rollout.core.statistics.rates import ALPHA_OF_PASS


def tables_of(
    spec: RolloutSpec, records: Iterable[EvidenceRecord], measurements: Mapping[str, Measurement]
) -> tuple[Table, ...]:
    """One table for each comparison that has counted a block."""
    return tuple(_table(record, known) for record, known in comparisons_of(spec, records, measurements))


def comparisons_of(
    spec: RolloutSpec, records: Iterable[EvidenceRecord], measurements: Mapping[str, Measurement]
) -> Iterator[tuple[EvidenceRecord, Comparison]]:
    """Each record whose check is in the spec and has counted a block, and what it describes."""
    for record in records:
        check = check_of(spec, record)
        if check is not None and record.blocks:
            measurement = measurements.get(check.metric)
            yield record, comparison_of(spec, check, record, measurement.series if measurement is not None else None)


def _table(record: EvidenceRecord, known: Comparison) -> Table:
    test, events = known.test, known.test.events
    table = Table(title=f"{record.kind} {record.name}, phase {record.phase}", title_justify="left", show_header=False)
    table.add_row(
        "events with the feature", f"{events.on_bad:,.1f} bad of {events.on_total:,.0f}{_rate(events.on_bad, events.on_total)}"
    )
    table.add_row(
        "events without it", f"{events.off_bad:,.1f} bad of {events.off_total:,.0f}{_rate(events.off_bad, events.off_total)}"
    )
    table.add_row("bad events expected with it", f"{test.expected:,.1f}")
    table.add_row("tolerated rate with it", f"{100 * known.tolerance.limit(test.rate_without()):.4g}%")
    table.add_row("smallest rate that shows", smallest_text(known))
    table.add_row("blocks", f"{test.blocks:,} until {known.until:%Y-%m-%d %H:%M:%S} UTC")
    table.add_row("cells of users", f"{len(known.cells)}" if known.has_cells else "none: clustering is measured over time")
    table.add_row("inflation", f"{known.inflation:.3g} for harm, {known.safe_inflation:.3g} for harmlessness")
    table.add_row("probability of a wrong Fail", f"{known.alpha:.3g} within {known.horizon:,.0f} blocks")
    table.add_row("harm since the start", _odds(test.log_harm(known.inflation), math.log(2 / known.alpha)))
    table.add_row("harm that began later", _odds(test.log_recent(), math.log(2 * known.horizon / known.alpha)))
    table.add_row("harmlessness", _odds(test.log_safe(known.safe_inflation), math.log(1 / ALPHA_OF_PASS)))
    return table


def smallest_text(known: Comparison) -> str:
    """The smallest rate with the feature that so many events show to be too high, with a probability of four in five: `0.29%`."""
    design = known.design(known.inflation) if not known.is_of_values else None
    if design is None:
        return ""
    smallest = design.smallest_rate(known.total, known.alpha)
    return "none" if smallest is None else f"{100 * smallest:.3g}%"


def _rate(bad: float, total: float) -> str:
    return f" ({100 * bad / total:.4g}%)" if total > 0 else ""


def _odds(log: float, needed: float) -> str:
    """Odds against chance, and those that a verdict needs."""
    odds = math.exp(min(log, LARGEST_LOG))
    return f"{odds:,.3g} to 1, of {math.exp(needed):,.0f} to 1 that are needed"
