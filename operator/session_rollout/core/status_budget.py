"""The size budget of the status: 32 KiB. Names, positions, times and numbers are never shortened; only messages and the history are.

A rollout with the longest names that the API allows, in lists as long as it allows, can need more for these alone: three times
as much at most (measured: 48 KiB).
"""

import json
from collections.abc import Callable
from typing import Final, TypeVar

from session_rollout.api.base import Model, shortened
from session_rollout.api.status import RolloutStatus

T = TypeVar("T", bound=Model)
R = TypeVar("R")
LIMIT_BYTES: Final = 32 * 1024
# Kept history entries and characters of a message; each row is tried until the status fits.
_CUTS: Final = ((10, 200), (5, 100), (2, 60), (1, 24))
_SENTENCE: Final = 120  # of the decision and of a rollback; no cut is shorter, because they say what to do
_LISTS: Final = ("refusals", "pending_notifications", "checks", "migrations", "conditions", "processed_actions")


def fit(status: RolloutStatus) -> RolloutStatus:
    """The status within its budget: the oldest history goes first, then long messages are shortened."""
    for entries, length in _CUTS:
        if len(json.dumps(status.to_wire())) <= LIMIT_BYTES:
            break
        status = _cut(status, entries, length)
    return status


def kept(records: tuple[R, ...], is_needed: Callable[[R], object], most: int) -> tuple[R, ...]:
    """The records within the length of their list: edits of the spec leave records behind, and the first unneeded ones go.

    A list that is full must not end the decision, least of all an emergency.
    """
    surplus = len(records) - most
    if surplus <= 0:
        return records
    needed = [record for record in records if is_needed(record)]
    room = max(most - len(needed), 0)
    others = [record for record in records if not is_needed(record)]
    chosen = {id(record) for record in (*needed[-most:], *others[len(others) - room :])}
    return tuple(record for record in records if id(record) in chosen)


def _cut(status: RolloutStatus, entries: int, length: int) -> RolloutStatus:
    def short(records: tuple[T, ...], name: str = "message") -> tuple[T, ...]:
        return tuple(record.updated(**{name: shortened(getattr(record, name), length)}) for record in records)

    def brief(sentences: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(shortened(sentence, max(length, _SENTENCE)) for sentence in sentences)

    decision, current = status.decision, status.current
    return status.updated(
        decision=decision.updated(details=brief(decision.details), next_actions=brief(decision.next_actions)),
        current=current.updated(rollback_reasons=brief(current.rollback_reasons)),
        history=short(status.history[-entries:]),
        flags=status.flags.updated(disabled=short(status.flags.disabled, "reason")),
        **{name: short(getattr(status, name)) for name in _LISTS},
    )
