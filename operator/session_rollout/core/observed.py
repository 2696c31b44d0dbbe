"""What goes into a decision and what comes out: frozen values, made by the controller, read by `decide`, and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from session_rollout.api.action import SessionRolloutAction
from session_rollout.api.enums import EventReason, Operation, Verdict
from session_rollout.api.progress import Progress
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import RolloutStatus


@dataclass(frozen=True)
class Counts:
    """Good events of all events in one cohort."""

    good: Decimal
    total: Decimal


@dataclass(frozen=True)
class Measurement:
    """One answer of a metric source. `problem` is set when it is no number: NoData, ProviderError or Inconclusive."""

    time: datetime
    value: Decimal | None = None
    problem: Verdict | None = None
    message: str = ""
    on: Counts | None = None
    off: Counts | None = None


class JobState(StrEnum):
    """State of a migration Job as Kubernetes reports it."""

    MISSING = "Missing"
    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    FOREIGN = "Foreign"  # the name is taken by a Job that is not ours


@dataclass(frozen=True)
class JobObservation:
    """A migration Job and what its Pod said last: at its end, or while it runs."""

    state: JobState
    said: Progress = field(default_factory=Progress)
    suspended: bool = False

    @property
    def message(self) -> str:
        """In words."""
        return self.said.message


@dataclass(frozen=True)
class Examined:
    """What came of a check that is no metric: an HTTP request, a built-in check."""

    time: datetime
    verdict: Verdict
    message: str
    value: str | None = None
    bound: str | None = None


@dataclass(frozen=True)
class Revisions:
    """Revisions of the workload's Deployment."""

    current: int
    earlier: int | None = None  # the newest before it that still exists
    restarted: datetime | None = None  # moment of the last restart that was asked for
    problem: str = ""  # why it cannot be changed; empty when it can


@dataclass(frozen=True)
class Observed:
    """Everything a decision may depend on, except the time."""

    rollout: SessionRollout
    measurements: Mapping[str, Measurement] = field(default_factory=dict)  # by metric name; absent: asked, no answer yet
    ranges: Mapping[str, timedelta] = field(default_factory=dict)  # largest range of each metric's PromQL
    published_sha256: str | None = None  # of the document that is in the cluster
    jobs: Mapping[str, JobObservation] = field(default_factory=dict)
    requests: tuple[SessionRolloutAction, ...] = ()  # not answered yet, oldest first
    gates: Mapping[str, Examined] = field(default_factory=dict)  # by name of the gate; absent: asked, no answer yet
    revisions: Revisions | None = None  # of the workload, where it may have to go back
    delivered: frozenset[str] = frozenset()  # ids of notices that a sink has taken
    undeliverable: Mapping[str, str] = field(default_factory=dict)  # by sink: why it takes nothing
    workload: str = ""  # why the workload is not available; empty when it is, or when none is named
    problems: tuple[str, ...] = ()  # what the operator's configuration or the spec makes impossible
    last_look: datetime | None = None  # when evidence was last looked at; None: nobody knows


@dataclass(frozen=True)
class Publish:
    """Bring this flag document into the cluster."""

    config_map: str
    text: str
    sha256: str
    drifted: bool = False


@dataclass(frozen=True)
class StartJob:
    """Create this migration Job, or find that it exists."""

    name: str
    migration: str
    operation: Operation
    attempt: int
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class SuspendJob:
    """Let a Job that can be resumed rest, or go on: its Pod ends after its batch, and another one goes on there."""

    name: str
    suspend: bool


@dataclass(frozen=True)
class StartCheck:
    """Create the Job of a check, or find that it exists."""

    name: str
    profile: str


@dataclass(frozen=True)
class UndoWorkload:
    """Bring the workload back to an earlier revision, if it still has the one that was seen."""

    revision: int
    earlier: int


@dataclass(frozen=True)
class RestartWorkload:
    """Let the workload's Pods be replaced, once for this moment."""

    at: datetime


@dataclass(frozen=True)
class Answer:
    """Answer a person's action."""

    action: str
    accepted: bool
    message: str


@dataclass(frozen=True)
class Emit:
    """Tell people by a Kubernetes Event."""

    reason: EventReason
    message: str


Effect = Publish | StartJob | SuspendJob | StartCheck | UndoWorkload | RestartWorkload | Answer | Emit


@dataclass(frozen=True)
class Decision:
    """What to write, what to do, and when to look again."""

    status: RolloutStatus
    effects: tuple[Effect, ...]
    next_look: timedelta
    looked: bool  # at everything: time until the next look counts as watched
