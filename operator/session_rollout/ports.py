"""The outside as the controller sees it. Adapters implement these; nothing else imports a client library.

Every method may raise `errors.Unavailable`; those that write may raise `errors.Conflict`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from session_rollout.api.action import ActionStatus, Result
from session_rollout.api.checks import Gate
from session_rollout.api.reasons import EventReason, Operation
from session_rollout.api.rollout import Metric, SessionRollout, Workload
from session_rollout.api.status import Notice, RolloutStatus
from session_rollout.core.observed import (
    Decision,
    Examined,
    JobObservation,
    Measurement,
    Observed,
    Revisions,
    StartCheck,
    StartJob,
)


@dataclass(frozen=True, order=True)
class Key:
    """Which rollout."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Stored:
    """A rollout as it was read, with what a write needs."""

    key: Key
    raw: Mapping[str, Any]
    rollout: SessionRollout | None  # None: the object cannot be read, `problem` says why
    problem: str = ""

    @property
    def deleting(self) -> bool:
        """Whether somebody asked for its deletion."""
        return "deletionTimestamp" in self.raw["metadata"]


@dataclass(frozen=True)
class Fingerprint:
    """What flag document is in the cluster, and at which version of its object that was seen."""

    sha256: str | None = None
    version: int = -1


@dataclass(frozen=True)
class Reconciled:
    """The result of one reconciliation, for the metrics of the operator."""

    rollout: SessionRollout  # with the status that was read
    decision: Decision
    wrote: bool
    seconds: float
    measurements: Mapping[str, Measurement]


class RolloutStore(Protocol):
    """SessionRollouts and the actions on them."""

    async def read(self, key: Key) -> Stored | None:
        """The object as it is now; None when it is gone."""

    async def write_status(self, stored: Stored, status: RolloutStatus) -> None:
        """Write the status if nobody wrote since `stored` was read; Conflict otherwise."""

    async def keys(self) -> tuple[Key, ...]:
        """Every rollout."""

    async def actions(self) -> tuple[Mapping[str, Any], ...]:
        """Every action, answered or not."""

    async def answer(self, namespace: str, name: str, answer: ActionStatus) -> None:
        """Write the answer to an action."""

    async def delete_action(self, namespace: str, name: str) -> None:
        """Delete an action whose `ttl` is over."""


class Workloads(Protocol):
    """The application's Deployment."""

    async def problem(self, namespace: str, workload: Workload) -> str:
        """Why it is not available; empty when it is."""

    async def revisions(self, namespace: str, workload: Workload) -> Revisions | None:
        """Its revisions; None when it does not exist."""

    async def undo(self, namespace: str, workload: Workload, *, revision: int, earlier: int) -> None:
        """Bring an earlier revision's template back, if it still has this revision. SpecError when the right is missing."""

    async def restart(self, namespace: str, workload: Workload, at: datetime) -> None:
        """Let its Pods be replaced. SpecError when the right is missing."""


class Examiner(Protocol):
    """Checks that are no metric. Never waits: what is not known yet is absent, and `wake` is called when it is."""

    def look(
        self, rollout: SessionRollout, gates: tuple[Gate, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> dict[str, Examined]:
        """Latest results by name of the gate; looks again where they are older than `max_age`."""

    async def examine(self, rollout: SessionRollout, gate: Gate) -> Examined:
        """The result of one check now; never raises what can be foreseen."""

    async def diagnose(self, topic: str) -> tuple[Result, ...] | None:
        """What the configuration asks about a topic; None when it has none of that name."""

    def topics(self) -> tuple[str, ...]:
        """Topics of the configuration."""


class Courier(Protocol):
    """Carries notices to sinks, in its own time."""

    def carry(self, rollout: SessionRollout, notices: tuple[Notice, ...], wake: Callable[[], None]) -> None:
        """Deliver these; what is on its way already is not taken twice."""

    def delivered(self, uid: str) -> frozenset[str]:
        """Ids of a rollout's notices that a sink has taken; forgotten once they are carried no more."""

    def troubles(self) -> Mapping[str, str]:
        """By sink: why it takes nothing now."""

    def forget(self, uid: str) -> None:
        """The rollout is gone."""


class Recorder(Protocol):
    """Keeps what each decision rested on, so that it can be explained later."""

    async def keep(self, observed: Observed, now: datetime, decision: Decision) -> None:
        """Keep one decision; never fails the caller."""

    def forget(self, uid: str) -> None:
        """The rollout is gone."""


class FlagPublisher(Protocol):
    """Flag documents in the cluster."""

    async def publish(self, rollout: SessionRollout, config_map: str, text: str) -> Fingerprint:
        """Bring the document in and read it back; what is there now."""

    async def fingerprint(self, namespace: str, config_map: str) -> Fingerprint:
        """The document that is there."""

    async def release(self, rollout: SessionRollout, config_map: str, text: str | None) -> None:
        """Let the document outlive its rollout, with another text if one is given; one of another rollout is left alone."""


class JobRunner(Protocol):
    """Migration Jobs."""

    async def start(self, rollout: SessionRollout, job: StartJob) -> None:
        """Create the Job, or find that it exists."""

    async def observe(self, rollout: SessionRollout, name: str) -> JobObservation:
        """State of a Job."""

    async def suspend(self, rollout: SessionRollout, name: str, *, suspend: bool) -> None:
        """Let a Job rest, or go on."""

    async def start_check(self, rollout: SessionRollout, check: StartCheck) -> None:
        """Create the Job of a check, or find that it exists."""

    async def words(self, rollout: SessionRollout, name: str) -> str:
        """What the Pod of a Job left as its last words, as it is."""

    async def inspect(self, rollout: SessionRollout, name: str, migration: str, operation: Operation) -> None:
        """Create a Job that looks at a migration and changes nothing, or find that it exists."""

    async def running(self, namespace: str, rollout: str) -> tuple[str, ...]:
        """Names of the Jobs of a rollout that have Pods."""


class MetricSource(Protocol):
    """Answers of metrics. Never waits: what is not known yet is absent, and `wake` is called when it is."""

    def look(
        self, provider: str, metrics: tuple[Metric, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> dict[str, Measurement]:
        """Latest answers by metric name; asks again for those older than `max_age`."""

    def problems(self, provider: str, metrics: tuple[Metric, ...]) -> tuple[str, ...]:
        """Why these can never be asked: unknown provider, PromQL that does not parse."""

    async def ask(self, provider: str, query: str) -> Measurement:
        """The answer of one query now, cached by nobody."""

    async def alert_rules(self, provider: str) -> frozenset[str]:
        """Names of the alert rules that a provider has loaded."""

    def ranges(self, metrics: tuple[Metric, ...]) -> dict[str, timedelta]:
        """Largest range in each metric's PromQL, offsets included."""


class EventSink(Protocol):
    """Kubernetes Events."""

    async def emit(self, rollout: SessionRollout, reason: EventReason, message: str) -> None:
        """Tell people; never fails the caller."""


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Now, in UTC, to the millisecond."""


class Leadership(Protocol):
    """Whether this process may write."""

    def confirm(self) -> None:
        """Raises Unavailable when the Lease is not held for certain."""
