"""What the operator kept about a rollout, as the command line reads it: the records of decisions, and the values they saw."""

import base64
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from session_rollout.records.codec import SEQUENCE, lines_in

if TYPE_CHECKING:
    from session_rollout.records.record import Record

VALUES: Final = 12


def _entries(slot: dict[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(text) for key, text in slot["binaryData"].items()}


def records(slots: Sequence[dict[str, Any]]) -> list["Record"]:
    """The records, oldest first. Raises ValueError."""
    from session_rollout.records.record import records_in

    ordered = sorted(slots, key=lambda one: int(one["data"][SEQUENCE]))
    return [record for one in ordered for record in records_in(_entries(one))]


def trends(slots: Sequence[dict[str, Any]]) -> dict[str, list[Decimal]]:
    """The last values of each metric, as decisions saw them; nothing where they cannot be read."""
    found: dict[str, list[Decimal]] = {}
    try:
        newest = max(slots, key=lambda one: int(one["data"][SEQUENCE]))
        seen = [json.loads(line)["observed"].get("measurements", {}) for line in lines_in(_entries(newest), VALUES)]
    except (ValueError, KeyError):
        return found
    for measurements in seen:
        for name, measured in measurements.items():
            if measured.get("value") is not None:
                found.setdefault(name, []).append(Decimal(measured["value"]))
    return found
