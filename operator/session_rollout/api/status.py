"""`SessionRollout.status`: everything that must survive a crash, bounded to 32 KiB, and everything a person asks for first.

Written by one writer with resourceVersion and only when something changed; see `controller`.
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field, PlainSerializer

from session_rollout.api.base import ATOMIC, MAP_BY_NAME, SET, Feature, Generation, Index, Message, Model, Name, Rows, Text
from session_rollout.api.reasons import (
    DecisionAction,
    EventReason,
    MigrationState,
    NoReturn,
    Operation,
    Outcome,
    PhaseState,
    Stage,
    Verdict,
)

HISTORY_LENGTH = 20
BECAUSE_LENGTH = 8
OUTBOX_LENGTH = 32
NOTICE_LENGTH = 240


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[
    datetime,
    PlainSerializer(_rfc3339, return_type=str),
    Field(json_schema_extra={"format": "date-time"}),
]
Sha = Annotated[str, Field(max_length=71)]


class MetaCondition(Model):
    """metav1.Condition, all six fields."""

    type: Annotated[str, Field(max_length=63)]
    status: Annotated[str, Field(max_length=7)]
    observed_generation: Generation
    last_transition_time: Time
    reason: Annotated[str, Field(min_length=1, max_length=63)]
    message: Message


class Current(Model):
    """Where the rollout is."""

    stage: Stage = Stage.PREFLIGHT
    phase: Name | None = None
    phase_index: Index = 0
    step: Index = 0
    increment: Index = 0
    percent: Annotated[str, Field(max_length=8)] = "0"
    groups: Annotated[tuple[Name, ...], Field(max_length=8, json_schema_extra=SET)] = ()
    since: Time | None = None
    published_time: Time | None = None  # the audience of this step was read back
    hold_until: Time | None = None  # set with the first evidence after the warm-up, moved by every stop of the clock
    clock_stopped_time: Time | None = None
    approved_by: Text | None = None
    judged_from: Time | None = None  # guards are judged on data from here on; set at the start and by a retry
    ending: Outcome | None = None  # what a rollback under way will end in
    ending_because: Annotated[tuple[Message, ...], Field(max_length=BECAUSE_LENGTH, json_schema_extra=ATOMIC)] = ()


class DecisionRecord(Model):
    """Why it is here."""

    action: DecisionAction = DecisionAction.WAIT
    why: Annotated[str, Field(max_length=120)] = ""
    because: Annotated[tuple[Message, ...], Field(max_length=BECAUSE_LENGTH, json_schema_extra=ATOMIC)] = ()
    unblocked_by: Annotated[tuple[Message, ...], Field(max_length=BECAUSE_LENGTH, json_schema_extra=ATOMIC)] = ()
    next_time: Time | None = None
    inputs: Sha | None = None


class PhaseRecord(Model):
    """One line per phase; audience and features as they were published."""

    name: Name
    state: PhaseState = PhaseState.PENDING
    percent: Annotated[str, Field(max_length=8)] = "0"
    groups: Annotated[tuple[Name, ...], Field(max_length=8, json_schema_extra=SET)] = ()
    features: Annotated[tuple[Feature, ...], Field(max_length=16, json_schema_extra=SET)] = ()
    start_time: Time | None = None
    end_time: Time | None = None


class CheckRecord(Model):
    """Last change of one criterion, guard or gate; a check that repeats its verdict changes nothing here."""

    name: Name
    kind: Annotated[str, Field(max_length=16)]  # Criterion, Guard, Preflight, Verification, AfterRollback
    verdict: Verdict = Verdict.NOT_EVALUATED
    value: Annotated[str | None, Field(max_length=40)] = None
    bound: Annotated[str | None, Field(max_length=80)] = None
    baseline: Annotated[str | None, Field(max_length=40)] = None
    time: Time | None = None
    message: Message = ""
    job: Annotated[str | None, Field(max_length=63)] = None  # of a gate that is a Job
    attempt: Index = 0


class WorkloadRecord(Model):
    """What was done to the application: intent first, then its result."""

    undo_asked_time: Time | None = None
    undo_from: Rows | None = None  # revision of the Deployment that is left
    undo_to: Rows | None = None  # revision that it goes back to; none when there is no earlier one
    undone_time: Time | None = None
    restart_asked_time: Time | None = None
    restarted_time: Time | None = None
    message: Message = ""


class Notice(Model):
    """A message that is on its way to a sink; delivered at least once, the receiver knows it again by its id."""

    id: Annotated[str, Field(max_length=32)]
    sink: Name
    event: EventReason
    time: Time
    phase: Name | None = None
    step: Index | None = None
    message: Annotated[str, Field(max_length=NOTICE_LENGTH)] = ""


class MigrationRecord(Model):
    """One migration of the programme."""

    name: Name
    state: MigrationState = MigrationState.PENDING
    operation: Operation = Operation.UP  # what its Job does, or did last
    arguments: Annotated[tuple[Text, ...], Field(max_length=6, json_schema_extra=ATOMIC)] = ()  # of the Job, beside the usual
    job: Annotated[str | None, Field(max_length=63)] = None
    source: Sha | None = None  # of the migration as the spec declares it
    attempt: Index = 0
    checksum: Sha | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    message: Message = ""
    done: Rows | None = None  # rows that are moved
    total: Rows | None = None
    rate: Rows | None = None  # rows a second
    estimated_end_time: Time | None = None
    quarantined: Rows | None = None  # rows that could not be moved
    progress_time: Time | None = None  # of these figures
    following: bool = False  # changes of the source go on being applied to the target
    point_of_no_return: NoReturn | None = None
    backup_time: Time | None = None
    backup_until: Time | None = None
    restore_time: Time | None = None


class DisabledFeature(Model):
    """A feature that somebody switched off in an emergency."""

    feature: Feature
    reason: Text
    by: Text
    time: Time


class FlagsRecord(Model):
    """The published flag document."""

    config_map: Annotated[str | None, Field(max_length=63)] = None
    sha256: Sha | None = None  # what should be there; written before it is published
    published_sha256: Sha | None = None  # what was read back
    published_time: Time | None = None
    revision: Generation = 0  # counts documents, never goes back
    disabled: Annotated[
        tuple[DisabledFeature, ...],
        Field(
            max_length=40,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["feature"]},
        ),
    ] = ()


class HistoryEntry(Model):
    """One line of the story."""

    time: Time
    event: EventReason
    phase: Name | None = None
    step: Index | None = None
    percent: Annotated[str | None, Field(max_length=8)] = None
    by: Text | None = None
    because: Message = ""


class RolloutStatus(Model):
    """The whole status; an object that was never seen has the defaults."""

    observed_generation: Generation = 0
    conditions: Annotated[
        tuple[MetaCondition, ...],
        Field(
            max_length=12,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    outcome: Outcome | None = None
    current: Current = Current()
    decision: DecisionRecord = DecisionRecord()
    paused_by: Text | None = None
    progress: Annotated[str, Field(max_length=120)] = ""  # of the migration that runs, in one line
    phases: Annotated[tuple[PhaseRecord, ...], Field(max_length=40, json_schema_extra=MAP_BY_NAME)] = ()
    checks: Annotated[
        tuple[CheckRecord, ...],
        Field(
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["kind", "name"]},
        ),
    ] = ()
    migrations: Annotated[tuple[MigrationRecord, ...], Field(max_length=16, json_schema_extra=MAP_BY_NAME)] = ()
    flags: FlagsRecord = FlagsRecord()
    workload: WorkloadRecord | None = None
    outbox: Annotated[tuple[Notice, ...], Field(max_length=OUTBOX_LENGTH, json_schema_extra=ATOMIC)] = ()
    notices_lost: Index = 0  # dropped from a full outbox
    history: Annotated[tuple[HistoryEntry, ...], Field(max_length=HISTORY_LENGTH, json_schema_extra=ATOMIC)] = ()
