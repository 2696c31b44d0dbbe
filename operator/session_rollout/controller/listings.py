"""What the operator cannot list or watch: it notices late or never what happens there, so nobody may get more until it can.

A refused list counts from the last one that succeeded, because the right may be missing since then. Any other failure counts from the
first list that failed while loops could read their rollouts: an API server that restarts answers neither, and afterwards both.

Kopf lists before it watches, so a watch that is refused again and again is no outage: in one, the list fails, and nobody asks for a watch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from session_rollout.api.status_records import Refusal
from session_rollout.controller.refusals import refusal_of
from session_rollout.errors import Forbidden, Request, RolloutError

ACTIONS, ROLLOUTS, DOCUMENTS, JOBS = "ListActions", "ListRollouts", "ListDocuments", "ListJobs"
RESOURCES: Final = {ACTIONS: "sessionrolloutactions", ROLLOUTS: "sessionrollouts", DOCUMENTS: "configmaps", JOBS: "jobs"}
WATCHES: Final = {resource: effect.replace("List", "Watch") for effect, resource in RESOURCES.items()}
OF_JOBS: Final = {JOBS, WATCHES[RESOURCES[JOBS]]}
UNLISTED_SHOWN: Final = timedelta(minutes=1)
AGAIN: Final = timedelta(minutes=1)  # in which a watch that was refused is requested again, unless there was an outage
EVERYWHERE: Final = ""  # the namespace of a list of all namespaces
Problems = Mapping[str, RolloutError]  # by namespace: why it could not be listed


def problems_of(error: RolloutError) -> Problems:
    """What an error says about namespaces."""
    return error.problems or {EVERYWHERE: error}


@dataclass(frozen=True)
class Gap:
    """A list that fails, until it succeeds."""

    error: RolloutError
    since: datetime  # the first failure
    counts: datetime  # from which time it counts


class Listings:
    """How the lists of each kind of object fare, by the effect that `status.refusals` names."""

    def __init__(self) -> None:
        self._gaps: dict[str, dict[str, Gap]] = {}  # by effect and namespace
        self._noted: dict[str, datetime] = {}
        self._shown: dict[str, frozenset[str]] = {}

    def note(self, effect: str, problems: Problems, now: datetime, *, served: bool) -> frozenset[str]:
        """Remember how a list ended; `served` says whether any loop could read its rollout since the last one.

        Returns the namespaces in which a refusal begins or ends to be shown.
        """
        before, noted = self._gaps.get(effect, {}), self._noted.get(effect, now)
        self._gaps[effect] = {
            namespace: _continued(before[namespace], error, now, served=served)
            if namespace in before
            else Gap(error, now, noted if isinstance(error, Forbidden) else now)
            for namespace, error in problems.items()
        }
        self._noted[effect] = now
        old, new = self._shown.get(effect, frozenset()), frozenset(self._lasting(effect, now))
        self._shown[effect] = new
        return old ^ new

    def refusals(self, namespace: str, now: datetime) -> tuple[Refusal, ...]:
        """What cannot be listed in a namespace, for so long that it is shown."""
        return tuple(
            refusal_of(effect, gap.error, gap.since, Request("list", RESOURCES[effect]))
            for effect in sorted(self._gaps)
            for place, gap in self._lasting(effect, now).items()
            if place in {namespace, EVERYWHERE}
        )

    def _lasting(self, effect: str, now: datetime) -> dict[str, Gap]:
        gaps = self._gaps.get(effect, {})
        return {namespace: gap for namespace, gap in gaps.items() if now - gap.counts >= UNLISTED_SHOWN}


def _continued(gap: Gap, error: RolloutError, now: datetime, *, served: bool) -> Gap:
    if isinstance(error, Forbidden):
        return replace(gap, error=error)
    if isinstance(gap.error, Forbidden):
        return gap  # an outage while the right is missing does not grant it
    return Gap(error, gap.since, gap.counts if served else now)


@dataclass(frozen=True)
class RefusedWatch:
    """A watch that is refused, until it is granted."""

    error: RolloutError
    since: datetime  # the first refusal
    counts: datetime  # from which refusal on no outage came between
    last: datetime

    @property
    def lasting(self) -> bool:
        """Whether it is shown."""
        return self.last - self.counts >= UNLISTED_SHOWN

    def again(self, error: RolloutError, now: datetime) -> "RefusedWatch":
        """Refused once more."""
        counts = self.counts if self.lasting or now - self.last <= AGAIN else now
        return RefusedWatch(error, self.since, counts, now)


class Watches:
    """How the watches of each resource and namespace fare."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], RefusedWatch] = {}

    def note(self, resource: str, namespace: str, error: RolloutError | None, now: datetime) -> bool:
        """Remember how the request for a watch ended. Returns whether a refusal begins or ends to be shown."""
        place = resource, namespace
        before = self._refused.pop(place, None)
        if error is not None:
            self._refused[place] = before.again(error, now) if before else RefusedWatch(error, now, now, now)
        return (before is not None and before.lasting) != (error is not None and self._refused[place].lasting)

    def refusals(self, namespace: str) -> tuple[Refusal, ...]:
        """What cannot be watched in a namespace, for so long that it is shown."""
        return tuple(
            refusal_of(WATCHES[resource], refused.error, refused.since, Request("watch", resource, place))
            for (resource, place), refused in sorted(self._refused.items())
            if refused.lasting and place in {namespace, EVERYWHERE}
        )
