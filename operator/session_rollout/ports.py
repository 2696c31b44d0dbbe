"""Everything outside the controller, as protocols that adapters implement, so that the controller does not import client libraries.

Every method may raise `errors.Unavailable`; those that write may raise `errors.Conflict`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from session_rollout.api.action import ActionStatus, Result
from session_rollout.api.checks import Gate
from session_rollout.api.enums import EventReason
from session_rollout.api.metrics import DEFAULT_CONTROL, Control, Metric
from session_rollout.api.migration_enums import Operation
from session_rollout.api.rollout import SessionRollout, Workload
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import PendingNotification
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.observed import (
    CheckResult,
    Decision,
    JobObservation,
    Measurement,
    Observed,
    Publish,
    Revisions,
    Seasons,
    StartCheck,
    StartJob,
)
from session_rollout.errors import RolloutError


@dataclass(frozen=True, order=True)
class Key:
    """Namespace and name of a rollout, or of a flag document."""

    namespace: str
    name: str

    @property
    def fields(self) -> dict[str, str]:
        """What a log line says about the rollout."""
        return {"namespace": self.namespace, "rollout": self.name}


@dataclass(frozen=True)
class Stored:
    """A rollout as it was read, with what a write needs."""

    key: Key
    raw: Mapping[str, Any]
    rollout: SessionRollout  # what can be read of it, when the object cannot be parsed; `problem` says why
    problem: str = ""
    status_by_others: bool = False  # another client wrote the status last, as the restore of a backup does

    @property
    def uid(self) -> str:
        """UID of the object."""
        return str(self.raw["metadata"]["uid"])

    @property
    def created(self) -> datetime:
        """When the object was created, in whole seconds."""
        return datetime.fromisoformat(self.raw["metadata"]["creationTimestamp"])

    @property
    def deleting(self) -> bool:
        """Whether its deletion was requested."""
        return "deletionTimestamp" in self.raw["metadata"]


@dataclass(frozen=True)
class Reconciled:
    """The result of one reconciliation, for the metrics of the operator."""

    rollout: SessionRollout  # with the status that the decision began with, which may not have been stored
    decision: Decision
    wrote: bool
    stored: RolloutStatus  # that the API server has now
    seconds: float
    waited: float  # seconds for its turn, before
    measurements: Mapping[str, Measurement]


@dataclass(frozen=True)
class Listed:
    """Objects of all namespaces, but those that could not be listed: nothing is known about what these have."""

    items: tuple[Mapping[str, Any], ...]
    problems: Mapping[str, RolloutError] = field(default_factory=dict)  # by namespace: why it could not be listed

    def lacks(self, namespace: str) -> bool:
        """Whether the namespace could not be listed."""
        return namespace in self.problems


@dataclass(frozen=True)
class Incomplete:
    """A status that the API server has stored without a field that was sent, because the CRD does not have it."""

    field: str  # the first one, such as `status.checks[].failingTime`
    stored: Stored  # the object as it is now


@dataclass(frozen=True)
class ListedDocuments:
    """The version of each ConfigMap with the label of flag documents, but for namespaces that could not be listed."""

    versions: Mapping[Key, int]  # by namespace and name: copies of a document have its label, too
    problems: Mapping[str, RolloutError] = field(default_factory=dict)  # by namespace: why it could not be listed


class RolloutStore(Protocol):
    """SessionRollouts and the actions on them."""

    async def read(self, key: Key) -> Stored | None:
        """The object as it is now; None when it does not exist."""

    async def write_status(self, stored: Stored, status: RolloutStatus, *, dry_run: bool = False) -> Incomplete | None:
        """Write the status if nobody wrote since `stored` was read; raises Conflict otherwise. What was stored, if it lacks a field."""

    async def set_finalizer(self, stored: Stored, finalizer: str, *, present: bool) -> Stored:
        """Add or remove a finalizer if nobody wrote since `stored` was read; the object as it is then. Raises Conflict otherwise."""

    async def listed(self) -> Listed:
        """Every rollout, with its metadata alone. Raises RolloutError when no namespace could be listed."""

    async def actions(self) -> Listed:
        """Every action, including those with a response. Raises RolloutError when no namespace could be listed."""

    async def documents(self) -> ListedDocuments:
        """Every flag document. Raises RolloutError when no namespace could be listed."""

    async def migration_jobs(self) -> Listed:
        """Every Job of a migration, with its metadata alone. Raises RolloutError when no namespace could be listed."""

    async def answer(self, namespace: str, name: str, answer: ActionStatus, *, uid: str) -> None:
        """Write the response to an action, unless the action with this UID was deleted."""

    async def delete_action(self, namespace: str, name: str, *, uid: str) -> None:
        """Delete the action with this UID, whose `ttl` has expired."""


class Workloads(Protocol):
    """The application's Deployment."""

    async def unavailable_reason(self, namespace: str, workload: Workload) -> str | None:
        """Why it is not available; None when it is."""

    async def revisions(self, namespace: str, workload: Workload) -> Revisions | None:
        """Its revisions; None when it does not exist."""

    async def undo(self, namespace: str, workload: Workload, *, revision: int, earlier: int) -> None:
        """Restore an earlier revision's template, if it still has this revision. Raises SpecError without the permission."""

    async def restart(self, namespace: str, workload: Workload, at: datetime) -> None:
        """Replace its Pods. Raises SpecError without the permission."""


class GateChecker(Protocol):
    """Checks that are not metrics."""

    def results(
        self, rollout: SessionRollout, gates: tuple[Gate, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> dict[str, CheckResult]:
        """Latest results by name of the gate. Never waits: refreshes those older than `max_age`, then calls `wake`."""

    async def check(self, rollout: SessionRollout, gate: Gate) -> CheckResult:
        """The result of one check now. Foreseeable failures are results, not exceptions."""

    async def diagnose(self, topic: str) -> tuple[Result, ...] | None:
        """Results of the configured diagnostics of a topic; None when the topic does not exist."""

    def topics(self) -> tuple[str, ...]:
        """Topics of the configured diagnostics."""


class Notifier(Protocol):
    """Delivers notifications to sinks in the background."""

    def enqueue(
        self, rollout: SessionRollout, notifications: tuple[PendingNotification, ...], wake: Callable[[], None]
    ) -> None:
        """Deliver these; those that are queued already are not queued twice."""

    def delivered(self, uid: str) -> frozenset[str]:
        """Ids of a rollout's notifications that a sink has accepted; forgotten once they are no longer enqueued."""

    def errors(self) -> Mapping[str, str]:
        """The current error of each sink that rejects notifications."""

    def forget(self, uid: str) -> None:
        """Drop what belongs to a rollout that was deleted."""


class Recorder(Protocol):
    """Records the inputs of each decision, so that it can be explained later."""

    async def keep(self, observed: Observed, now: datetime, decision: Decision) -> None:
        """Keep one decision; never fails the caller, or delays it for long."""

    def forget(self, uid: str) -> None:
        """Drop what belongs to a rollout that was deleted."""


class FlagPublisher(Protocol):
    """Flag documents in the cluster."""

    async def publish(self, rollout: SessionRollout, document: Publish, *, urgent: bool = False) -> PublishedDocument:
        """Write the document, unless another version than the one it replaces is there; returns what the cluster has then.

        Raises Conflict in that case. An urgent write is given up sooner, so that it can be repeated.
        """

    async def read(self, namespace: str, config_map: str) -> PublishedDocument | None:
        """The document in the cluster; None when there is none."""

    async def release(self, rollout: SessionRollout, config_map: str, document: PublishedDocument, text: str | None) -> None:
        """Take the rollout's name from this version of the document; with a text, replace its text.

        Raises Conflict if another version is there.
        """


class JobRunner(Protocol):
    """Jobs of migrations and checks."""

    async def start(self, rollout: SessionRollout, job: StartJob) -> None:
        """Create the Job, unless it exists."""

    async def observe(self, rollout: SessionRollout, name: str) -> JobObservation:
        """State of a Job."""

    async def suspend(self, rollout: SessionRollout, name: str, *, suspend: bool) -> None:
        """Suspend or resume a Job."""

    async def start_check(self, rollout: SessionRollout, check: StartCheck) -> None:
        """Create the Job of a check, unless it exists."""

    async def termination_message(self, rollout: SessionRollout, name: str) -> str:
        """The termination message of a Job's Pod, unparsed."""

    async def inspect(self, rollout: SessionRollout, name: str, migration: str, operation: Operation) -> None:
        """Create a Job that reads a migration and changes nothing, unless it exists."""

    async def running(self, rollout: SessionRollout) -> tuple[str, ...]:
        """Names of the Jobs that a rollout owns and that have Pods."""


@dataclass(frozen=True)
class Queries:
    """What is known about the metrics of a rollout before they are queried."""

    ranges: Mapping[str, timedelta]  # how long after a change each is still about the time before it
    spelled: Mapping[str, str]  # the PromQL of each in one spelling: equal text is an equal query
    problems: tuple[str, ...]  # why some can never be queried: an unknown provider, or a query that no server can evaluate


class MetricSource(Protocol):
    """Results of metric queries."""

    def measurements(
        self, provider: str, metrics: tuple[Metric, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> dict[str, Measurement]:
        """Latest results by metric name. Never waits: refreshes those older than `max_age`, then calls `wake`.

        Rollouts are told apart by their `wake`: the queries of each have turns with those of the others.
        """

    def blocks(
        self, provider: str, metric: Metric, control: Control, since: datetime, wake: Callable[[], None]
    ) -> Measurement | None:
        """The latest blocks of a metric that is counted by cohort, those that begin at `since` or later; None before the first result.

        As `measurements` otherwise. A new block is requested once Prometheus has all of its events.
        """

    def seasons(
        self, provider: str, metric: Metric, ago: tuple[timedelta, ...], max_age: timedelta, wake: Callable[[], None]
    ) -> Seasons | None:
        """The mean of a metric over the window of its baseline, now and so long ago each; None before the first result.

        As `measurements` otherwise.
        """

    async def read_queries(self, provider: str, metrics: tuple[Metric, ...], control: Control = DEFAULT_CONTROL) -> Queries:
        """What the queries themselves say. It takes milliseconds for each, so others have their turns in between."""

    async def query(self, provider: str, query: str) -> Measurement:
        """The result of one query now, without the cache."""

    async def alert_rules(self, provider: str) -> frozenset[str]:
        """Names of the alert rules that a provider has loaded."""


class EventSink(Protocol):
    """Kubernetes Events."""

    def emit(self, rollout: SessionRollout, reason: EventReason, message: str) -> None:
        """Send an Event in the background; never delays or fails the caller."""


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Now, in UTC, to the millisecond."""

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets, for waiting and for ages; only differences mean something."""


class Leadership(Protocol):
    """Whether this process may write."""

    def confirm(self) -> None:
        """Raises Unavailable unless this process holds the Lease for certain."""


@dataclass(frozen=True)
class Ports:
    """Everything outside that a reconciliation touches."""

    store: RolloutStore
    workloads: Workloads
    gates: GateChecker
    notifier: Notifier
    recorder: Recorder
    flags: FlagPublisher
    jobs: JobRunner
    metrics: MetricSource
    events: EventSink
    clock: Clock
    leader: Leadership
