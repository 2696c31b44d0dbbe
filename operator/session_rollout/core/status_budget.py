"""The size budget of the status: 32 KiB, whatever happens. Positions, times and numbers are never shortened; only messages and the history are."""

import json
from typing import Final, TypeVar

from session_rollout.api.base import Model, shortened
from session_rollout.api.status import RolloutStatus

T = TypeVar("T", bound=Model)
LIMIT_BYTES: Final = 32 * 1024
# Kept history entries and characters of a message; each row is tried until the status fits.
_CUTS: Final = ((10, 200), (5, 100), (2, 60), (1, 24))
_LISTS: Final = ("pending_notifications", "checks", "migrations", "conditions", "processed_actions")


def fit(status: RolloutStatus) -> RolloutStatus:
    """The status within its budget: the oldest history goes first, then long messages are shortened."""
    for entries, length in _CUTS:
        if len(json.dumps(status.to_wire())) <= LIMIT_BYTES:
            break
        status = _cut(status, entries, length)
    return status


def _cut(status: RolloutStatus, entries: int, length: int) -> RolloutStatus:
    def short(records: tuple[T, ...], name: str = "message") -> tuple[T, ...]:
        return tuple(record.updated(**{name: shortened(getattr(record, name), length)}) for record in records)

    return status.updated(
        history=short(status.history[-entries:]),
        flags=status.flags.updated(disabled=short(status.flags.disabled, "reason")),
        **{name: short(getattr(status, name)) for name in _LISTS},
    )
