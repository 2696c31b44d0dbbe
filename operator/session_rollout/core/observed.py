"""What goes into a decision and what comes out, as frozen values: the controller gathers `Observed` and applies `Decision`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import ActionReason, CheckReason, EventReason, Stage, Verdict
from session_rollout.api.migration_enums import Operation
from session_rollout.api.progress import Progress
from session_rollout.api.protection import Protection
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import Refusal
from session_rollout.core.blocks import BlockSeries
from session_rollout.core.documents import PublishedDocument


@dataclass(frozen=True)
class Counts:
    """Good events and all events in one cohort."""

    good: Decimal
    total: Decimal

    @property
    def is_possible(self) -> bool:
        """Whether the good events can be a part of all events. Two queries need not agree: `increase()` estimates each on its own."""
        return Decimal(0) <= self.good <= self.total


@dataclass(frozen=True)
class Seasons:
    """The mean of a metric over a window until now, and over the same window in earlier seasons. A `problem` as of a measurement."""

    time: datetime
    mean: Decimal | None = None  # None without a sample in the window
    earlier: tuple[Decimal, ...] = ()  # of the seasons that have data
    problem: Verdict | None = None
    reason: CheckReason | None = None
    message: str = ""
    unreachable: bool = False  # nothing could be asked, whatever the query was


@dataclass(frozen=True)
class Measurement:
    """One result of a metric query. Without a `value`, `problem` is NoData, ProviderError or Inconclusive, for `reason`."""

    time: datetime  # what the value is about: when it was requested, or the sample's own time if that is older
    value: Decimal | None = None
    problem: Verdict | None = None
    reason: CheckReason | None = None
    message: str = ""
    on: Counts | None = None
    off: Counts | None = None
    series: BlockSeries | None = None  # of a metric that is counted in blocks, in place of a value
    seasons: Seasons | None = None  # of a metric that is compared with earlier seasons

    @property
    def oldest(self) -> datetime:
        """The time of what was measured first: the mean that is compared with earlier seasons has a query of its own."""
        return self.time if self.seasons is None else min(self.time, self.seasons.time)

    @property
    def is_absent(self) -> bool:
        """Whether the query returned no series or NaN: what `onNoData` is about. Data that is there and unusable is not absent."""
        return self.problem is Verdict.NO_DATA and self.reason is not None and self.reason.is_absence


class JobState(StrEnum):
    """State of a migration Job as Kubernetes reports it."""

    MISSING = "Missing"
    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    FOREIGN = "Foreign"  # a Job of another owner has this name


@dataclass(frozen=True)
class JobObservation:
    """A migration Job and the last progress that its Pod reported: at its end, or while it runs."""

    state: JobState
    progress: Progress = field(default_factory=Progress)
    suspended: bool = False
    stopped: bool = False  # suspended, and without a Pod that could still work

    @property
    def message(self) -> str:
        """The progress in one sentence."""
        return self.progress.message


@dataclass(frozen=True)
class CheckResult:
    """Result of a check that is not a metric: an HTTP request or a built-in check."""

    time: datetime
    verdict: Verdict
    reason: CheckReason
    message: str
    value: str | None = None
    bound: str | None = None
    reach: timedelta = timedelta(0)  # how long after a change it is still about the time before it


@dataclass(frozen=True)
class Revisions:
    """Revisions of the workload's Deployment."""

    current: int
    earlier: int | None = None  # the newest earlier revision that still exists
    restarted: datetime | None = None  # time of the last requested restart
    blocked_reason: str | None = None  # why it cannot be changed; None when it can


@dataclass(frozen=True)
class ClockJump:
    """A clock was set: that of the operator's node, or that of the API server. Decisions continue by elapsed time."""

    time: datetime
    by: timedelta
    source: str  # `operator` or `api-server`
    ahead: timedelta = timedelta(0)  # of the API server's clock to that of decisions since then, after all jumps together


@dataclass(frozen=True)
class Observed:
    """Everything a decision may depend on, except the time."""

    rollout: SessionRollout
    measurements: Mapping[str, Measurement] = field(default_factory=dict)  # by metric name; absent until the first result
    ranges: Mapping[str, timedelta] = field(default_factory=dict)  # how long each metric covers the time before a change
    queries: Mapping[str, str] = field(default_factory=dict)  # the PromQL of each metric, in one spelling
    document: PublishedDocument | None = None  # that is in the cluster
    stored_uids: frozenset[str] | None = None  # UIDs of protections that the stored status has; None: as in `rollout`
    other_rollouts: Mapping[str, str] = field(default_factory=dict)  # by feature: another rollout that has it, too
    refusals: tuple[Refusal, ...] = ()  # what the API server refuses
    jobs: Mapping[str, JobObservation] = field(default_factory=dict)
    actions: tuple[SessionRolloutAction, ...] = ()  # without a response, oldest first
    settled_actions: frozenset[str] = (
        frozenset()
    )  # UIDs of `status.processedActions` whose response was read back, or that are gone
    gates: Mapping[str, CheckResult] = field(default_factory=dict)  # by name of the gate; absent until the first result
    revisions: Revisions | None = None  # of the workload, when an undo or a restart is requested
    delivered: frozenset[str] = frozenset()  # ids of notifications that a sink has accepted
    sink_errors: Mapping[str, str] = field(default_factory=dict)  # by sink: why it rejects notifications
    workload_unavailable_reason: str | None = None  # None when it is available, or when none is named
    problems: tuple[str, ...] = ()  # why the spec cannot be carried out with the operator's configuration
    last_reconcile: datetime | None = None  # when evidence was last evaluated; None when unknown
    clock_jump: ClockJump | None = None  # the last one that this process noticed
    busy: timedelta = timedelta(0)  # the time since then that the reconciliations themselves took


@dataclass(frozen=True)
class Publish:
    """Bring this flag document into the cluster, if the version that the decision rests on is still there."""

    config_map: str
    text: str
    sha256: str
    version: int | None = None  # of the document that is replaced; None when there is none
    protections: tuple[Protection, ...] = ()


@dataclass(frozen=True)
class StartJob:
    """Create this migration Job, unless it exists."""

    name: str
    migration: str
    operation: Operation
    attempt: int
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class SuspendJob:
    """Suspend or resume a Job: its Pod ends after its current batch, and the next Pod resumes there."""

    name: str
    suspend: bool


@dataclass(frozen=True)
class StartCheck:
    """Create the Job of a check, unless it exists."""

    name: str
    profile: str


@dataclass(frozen=True)
class UndoWorkload:
    """Bring the workload back to an earlier revision, if it still has the revision that was observed."""

    revision: int
    earlier: int


@dataclass(frozen=True)
class RestartWorkload:
    """Replace the workload's Pods, once for this time."""

    at: datetime


@dataclass(frozen=True)
class Answer:
    """Write the response into the status of an action."""

    action: str  # name of the SessionRolloutAction
    uid: str
    accepted: bool
    reason: ActionReason
    message: str


@dataclass(frozen=True)
class Emit:
    """Send a Kubernetes Event."""

    reason: EventReason
    message: str


Effect = Publish | StartJob | SuspendJob | StartCheck | UndoWorkload | RestartWorkload | Answer | Emit


@dataclass(frozen=True)
class Decision:
    """What to write, what to do, and when to decide again."""

    status: RolloutStatus
    effects: tuple[Effect, ...]
    urgent: Publish | None  # takes features away from users: carried out before, and without, any other write
    next_reconcile: timedelta
    complete: bool  # every measurement was there: the time until the next decision counts as observed
    transitions: tuple[tuple[Stage, Stage], ...] = ()  # stages that this decision left and entered
