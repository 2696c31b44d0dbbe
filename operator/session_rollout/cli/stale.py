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
    retired = {feature.name for feature in rollout.spec.features if getattr(feature, "retired", False)}
    specified = {feature.name for feature in rollout.spec.features}
    records = {feature: record for record in rollout.status.phases for feature in record.features}
    for name in dict.fromkeys([*sorted(retired), *records]):
        record = records.get(name)
        why = _why(rollout, record, retired=name in retired, specified=name in specified)
        since = record.end_time if record is not None else None
        recent = why is Why.PROMOTED and (since is None or now - since < older_than)
        if why is not None and name not in off and not recent:
            audience = audience_text(record.percent, record.groups) if record is not None else ""
            yield StaleFeature(rollout, name, why, audience, since)


def _why(rollout: SessionRollout, record: PhaseRecord | None, *, retired: bool, specified: bool) -> Why | None:
    if retired:
        return Why.RETIRED
    if record is None or (record.percent == "0" and not record.groups):
        return None
    if not specified:
        return Why.NOT_IN_SPEC
    promoted = rollout.status.outcome is Outcome.PROMOTED and record.state is PhaseState.COMPLETED
    return Why.PROMOTED if promoted and record.percent == WHOLE else None
