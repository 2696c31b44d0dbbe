"""Reads decision records for the command line: whole records, or only the metric values in them."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from session_rollout.records.codec import Slot, entries_of, lines_in, of_ring, sequence_of

if TYPE_CHECKING:
    from session_rollout.records.record import Record

VALUES: Final = 12


def records(slots: Sequence[Slot]) -> list["Record"]:
    """The records, oldest first. Raises ValueError."""
    from session_rollout.records.record import records_in

    return [record for slot in sorted(of_ring(slots), key=sequence_of) for record in records_in(entries_of(slot))]


def trends(slots: Sequence[Slot]) -> dict[str, list[Decimal]]:
    """The last values of each metric, oldest first, as decisions used them; none if they cannot be read."""
    values: dict[str, list[Decimal]] = {}
    try:
        newest = max(of_ring(slots), key=sequence_of)
        observed = [json.loads(line)["observed"] for line in lines_in(entries_of(newest), VALUES)]
    except (ValueError, KeyError):
        return values
    for facts in observed:
        for name, measurement in facts.get("measurements", {}).items():
            if measurement.get("value") is not None:
                values.setdefault(name, []).append(Decimal(measurement["value"]))
    return values
