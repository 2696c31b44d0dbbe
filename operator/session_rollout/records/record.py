"""Decision records: what `decide` was given and what it decided, as lines that can be decided again.

A record is complete in itself: the object with its status before, every measurement, Job and action that was observed, and
the time. Written by `adapters.records`, read by `explain`. Deciding again takes the same core, and no cluster.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, TypeAdapter

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import DecisionAction, DecisionReason
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import Current
from session_rollout.api.status_records import Refusal
from session_rollout.core.decide import decide
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.observed import CheckResult, ClockJump, Decision, JobObservation, Measurement, Observed, Revisions
from session_rollout.records.codec import lines_in


class Record(BaseModel):
    """One decision that changed the status."""

    model_config = ConfigDict(frozen=True)

    time: datetime
    observed: dict[str, Any]  # an Observed, as JSON
    action: DecisionAction
    reason: DecisionReason
    message: str
    details: tuple[str, ...]
    current: Current  # where the rollout was after the decision

    @classmethod
    def of(cls, observed: Observed, now: datetime, decision: Decision) -> "Record":
        """The record of a decision."""
        made = decision.status.decision
        return cls(
            time=now,
            observed=_to_json(observed),
            action=made.action,
            reason=made.reason,
            message=made.message,
            details=made.details,
            current=decision.status.current,
        )

    def decide_again(self) -> Decision:
        """The decision of this core on the same facts at the same time."""
        return decide(_observed(self.observed), self.time)

    @property
    def rollout(self) -> SessionRollout:
        """The object as it was before the decision."""
        return SessionRollout.model_validate(self.observed["rollout"])

    @property
    def measurements(self) -> Mapping[str, Measurement]:
        """The measurements that the decision used."""
        measurements: Mapping[str, Measurement] = _PARTS["measurements"].validate_python(self.observed.get("measurements", {}))
        return measurements

    def agrees(self) -> bool:
        """Whether deciding again gives the same action for the same reason, at the same place."""
        status = self.decide_again().status
        again = (status.decision.action, status.decision.reason, _place(status.current))
        return again == (self.action, self.reason, _place(self.current))


def _place(current: Current) -> tuple[Any, ...]:
    return current.stage, current.phase, current.step, current.increment, current.percent, current.groups


_PARTS: Final[Mapping[str, TypeAdapter[Any]]] = {
    "measurements": TypeAdapter(dict[str, Measurement]),
    "ranges": TypeAdapter(dict[str, timedelta]),
    "queries": TypeAdapter(dict[str, str]),
    "document": TypeAdapter(PublishedDocument | None),
    "stored_uids": TypeAdapter(frozenset[str] | None),
    "other_rollouts": TypeAdapter(dict[str, str]),
    "refusals": TypeAdapter(tuple[Refusal, ...]),
    "jobs": TypeAdapter(dict[str, JobObservation]),
    "actions": TypeAdapter(tuple[SessionRolloutAction, ...]),
    "settled_actions": TypeAdapter(frozenset[str]),
    "gates": TypeAdapter(dict[str, CheckResult]),
    "revisions": TypeAdapter(Revisions | None),
    "delivered": TypeAdapter(frozenset[str]),
    "sink_errors": TypeAdapter(dict[str, str]),
    "workload_unavailable_reason": TypeAdapter(str | None),
    "problems": TypeAdapter(tuple[str, ...]),
    "last_reconcile": TypeAdapter(datetime | None),
    "clock_jump": TypeAdapter(ClockJump | None),
    "busy": TypeAdapter(timedelta),
}


def _to_json(observed: Observed) -> dict[str, Any]:
    parts = {name: adapter.dump_python(getattr(observed, name), mode="json") for name, adapter in _PARTS.items()}
    return {
        "rollout": observed.rollout.to_wire(),
        **{name: part for name, part in parts.items() if part not in ({}, [], None, "")},
    }


def _observed(data: Mapping[str, Any]) -> Observed:
    parts = {name: adapter.validate_python(data[name]) for name, adapter in _PARTS.items() if name in data}
    return Observed(rollout=SessionRollout.model_validate(data["rollout"]), **parts)


def line_of(record: Record) -> bytes:
    """A record as one line; what is no character in it, such as half of a surrogate pair in an answer, becomes a question mark."""
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def records_in(entries: Mapping[str, bytes]) -> tuple[Record, ...]:
    """The records of one ConfigMap, oldest first. Raises ValueError when they cannot be read."""
    return tuple(Record.model_validate_json(line) for line in lines_in(entries))
