"""Features whose flag no longer decides anything, so that it can be removed from the code."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from session_rollout.api.enums import Outcome, PhaseState
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status_records import PhaseRecord
from session_rollout.core.flags import disabled_features
from session_rollout.core.steps import audience_text

WHOLE = "100"


class Why(StrEnum):
    """Why a flag is stale."""

    PROMOTED = "Promoted"
    RETIRED = "Retired"
    NOT_IN_SPEC = "NotInSpec"


@dataclass(frozen=True)
class StaleFeature:
    """A feature with what its users have, and since when."""

    rollout: SessionRollout
    name: str
    why: Why
    audience: str
    since: datetime | None


def stale_features(rollout: SessionRollout, now: datetime, older_than: timedelta) -> Iterator[StaleFeature]:
    """Features that are retired or have left the spec, and those that all users have had for this long since the promotion.

    An emergency keeps a feature off, so the code without it is still in use: it is not stale.
    """
    off = disabled_features(rollout.spec, rollout.status)
    for kept in rollout.status.flags.retired:
        if kept.feature not in off:
            yield StaleFeature(rollout, kept.feature, Why.RETIRED, audience_text(kept.percent, kept.groups), kept.time)
    for record in rollout.status.phases:
        for name in record.features:
            why = _why(rollout, record, name)
            since = record.end_time
            recent = why is Why.PROMOTED and (since is None or now - since < older_than)
            if why is not None and name not in off and not recent:
                yield StaleFeature(rollout, name, why, audience_text(record.percent, record.groups), since)


def _why(rollout: SessionRollout, record: PhaseRecord, name: str) -> Why | None:
    """Why the flag of a feature of this phase is stale; None when it is not."""
    if record.percent == "0" and not record.groups:
        return None
    if name not in {feature.name for feature in rollout.spec.features}:
        return Why.NOT_IN_SPEC
    promoted = rollout.status.outcome is Outcome.PROMOTED and record.state is PhaseState.COMPLETED
    return Why.PROMOTED if promoted and record.percent == WHOLE else None
