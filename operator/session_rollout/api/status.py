"""`SessionRollout.status`: everything that must survive a crash, bounded to 32 KiB, and everything a person asks for first.

Written by one writer with resourceVersion and only when something changed; see `controller`.
"""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field, PlainSerializer

from session_rollout.api.base import ATOMIC, MAP_BY_NAME, SET, Feature, Generation, Index, Message, Model, Name, Rows, Text
from session_rollout.api.enums import (
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

    type: Annotated[str, Field(description="What it is about.", max_length=63)]
    status: Annotated[str, Field(description="True, False or Unknown.", max_length=7)]
    observed_generation: Annotated[Generation, Field(description="The generation it was found in.")]
    last_transition_time: Annotated[Time, Field(description="When `status` changed last.")]
    reason: Annotated[
        str, Field(description="One word for programs; it is API and is not renamed.", min_length=1, max_length=63)
    ]
    message: Annotated[Message, Field(description="A sentence for people.")]


class Current(Model):
    """Where the rollout is."""

    stage: Stage = Stage.PREFLIGHT
    phase: Annotated[Name | None, Field(description="Name of the running phase; none before the first and after the last.")] = (
        None
    )
    phase_index: Annotated[Index, Field(description="The phase, counted from 1; 0 before the first.")] = 0
    step: Annotated[Index, Field(description="The step of the phase, counted from 1; 0 outside of steps.")] = 0
    increment: Annotated[Index, Field(description="Of a ramp, counted from 1.")] = 0
    percent: Annotated[
        str, Field(description="Share of users in percent that this step gives the features to.", max_length=8)
    ] = "0"
    groups: Annotated[
        tuple[Name, ...],
        Field(description="Groups that have the features whatever the percentage.", max_length=8, json_schema_extra=SET),
    ] = ()
    since: Annotated[Time | None, Field(description="When this stage or step was entered.")] = None
    published_time: Annotated[
        Time | None,
        Field(description="When the audience of this step was read back from the cluster; its hold begins no earlier."),
    ] = None
    hold_until: Annotated[
        Time | None,
        Field(
            description="When the hold is over; set with the first evidence after the warm-up, moved by every stop of the clock."
        ),
    ] = None
    clock_stopped_time: Annotated[
        Time | None, Field(description="Since when the hold clock stands still; none while it runs.")
    ] = None
    approved_by: Annotated[Text | None, Field(description="The action that approved this step.")] = None
    judged_from: Annotated[
        Time | None, Field(description="Guards are judged on data from here on; set at the start and by a retry.")
    ] = None
    ending: Annotated[Outcome | None, Field(description="What a rollback under way will end in.")] = None
    ending_because: Annotated[
        tuple[Message, ...], Field(description="What made it roll back.", max_length=BECAUSE_LENGTH, json_schema_extra=ATOMIC)
    ] = ()


class AwaitedApproval(Model):
    """What an action `Approve` must name, beside the generation: a step of a phase, or the check of a gate."""

    phase: Annotated[Name | None, Field(description="Phase of the step that waits.")] = None
    step: Annotated[Index | None, Field(description="The step that waits, counted from 1.")] = None
    check: Annotated[Name | None, Field(description="The gate that waits; then there is no step.")] = None


class DecisionRecord(Model):
    """Why it is here."""

    action: DecisionAction = DecisionAction.WAIT
    why: Annotated[str, Field(description="In about ten words; the column WHY.", max_length=120)] = ""
    because: Annotated[
        tuple[Message, ...],
        Field(description="Each reason in full, with value and bound.", max_length=BECAUSE_LENGTH, json_schema_extra=ATOMIC),
    ] = ()
    unblocked_by: Annotated[
        tuple[Message, ...], Field(description="What would let it go on.", max_length=BECAUSE_LENGTH, json_schema_extra=ATOMIC)
    ] = ()
    approvals: Annotated[
        tuple[AwaitedApproval, ...],
        Field(
            description="Approvals that are awaited now, to be given with an action `Approve`.",
            max_length=BECAUSE_LENGTH,
            json_schema_extra=ATOMIC,
        ),
    ] = ()
    next_time: Annotated[
        Time | None, Field(description="When it will be decided anew at the latest; none: when something happens.")
    ] = None
    inputs: Annotated[
        Sha | None, Field(description="Fingerprint of what it rested on; the record of decisions has the inputs themselves.")
    ] = None


class PhaseRecord(Model):
    """One line per phase; audience and features as they were published."""

    name: Annotated[Name, Field(description="Of the phase in `spec.phases`.")]
    state: PhaseState = PhaseState.PENDING
    percent: Annotated[str, Field(description="Share of users in percent that was published last.", max_length=8)] = "0"
    groups: Annotated[
        tuple[Name, ...], Field(description="Groups that were published last.", max_length=8, json_schema_extra=SET)
    ] = ()
    features: Annotated[
        tuple[Feature, ...],
        Field(
            description="Features as they were published: a spec that changes them cannot lose them.",
            max_length=16,
            json_schema_extra=SET,
        ),
    ] = ()
    start_time: Annotated[Time | None, Field(description="When it began.")] = None
    end_time: Annotated[Time | None, Field(description="When it was completed or rolled back.")] = None


class CheckRecord(Model):
    """Last change of one criterion, guard or gate; a check that repeats its verdict changes nothing here."""

    name: Annotated[Name, Field(description="Of the check; of one without a name, its metric.")]
    kind: Annotated[str, Field(description="Criterion, Guard, Preflight, Verification or AfterRollback.", max_length=16)]
    verdict: Verdict = Verdict.NOT_EVALUATED
    value: Annotated[str | None, Field(description="What was measured, in the unit of the bound.", max_length=40)] = None
    bound: Annotated[str | None, Field(description="What it is held against.", max_length=80)] = None
    baseline: Annotated[
        str | None, Field(description="The metric before the phase, where it is compared to that.", max_length=40)
    ] = None
    time: Annotated[Time | None, Field(description="When the verdict changed last.")] = None
    message: Annotated[Message, Field(description="The verdict in one sentence.")] = ""
    job: Annotated[str | None, Field(description="Name of the Job, of a gate that is one.", max_length=63)] = None
    attempt: Annotated[Index, Field(description="Of that Job.")] = 0


class WorkloadRecord(Model):
    """What was done to the application: intent first, then its result."""

    undo_asked_time: Annotated[Time | None, Field(description="When undoing was decided.")] = None
    undo_from: Annotated[Rows | None, Field(description="Revision of the Deployment that is left.")] = None
    undo_to: Annotated[Rows | None, Field(description="Revision that it goes back to; none when there is no earlier one.")] = (
        None
    )
    undone_time: Annotated[Time | None, Field(description="When it had gone back.")] = None
    restart_asked_time: Annotated[Time | None, Field(description="When a restart was asked for.")] = None
    restarted_time: Annotated[Time | None, Field(description="When it was begun.")] = None
    message: Annotated[Message, Field(description="What came of it.")] = ""


class Notice(Model):
    """A message that is on its way to a sink; delivered at least once, the receiver knows it again by its id."""

    id: Annotated[str, Field(description="The same for every attempt to deliver it.", max_length=32)]
    sink: Annotated[Name, Field(description="Where it goes, of the operator's configuration.")]
    event: EventReason
    time: Annotated[Time, Field(description="When it happened.")]
    phase: Annotated[Name | None, Field(description="In which phase.")] = None
    step: Annotated[Index | None, Field(description="In which step.")] = None
    message: Annotated[str, Field(description="What happened, in one sentence.", max_length=NOTICE_LENGTH)] = ""


class MigrationRecord(Model):
    """One migration of the programme."""

    name: Annotated[Name, Field(description="Of the migration in `spec.migrations`.")]
    state: MigrationState = MigrationState.PENDING
    operation: Annotated[Operation, Field(description="What its Job does, or did last.")] = Operation.UP
    arguments: Annotated[
        tuple[Text, ...], Field(description="Of the Job, beside the usual.", max_length=6, json_schema_extra=ATOMIC)
    ] = ()
    job: Annotated[str | None, Field(description="Name of the Job.", max_length=63)] = None
    source: Annotated[Sha | None, Field(description="Fingerprint of the migration as the spec declares it.")] = None
    attempt: Annotated[Index, Field(description="Counts the Jobs that people asked for anew.")] = 0
    checksum: Annotated[Sha | None, Field(description="Of what was run, as the ledger in the database has it.")] = None
    start_time: Annotated[Time | None, Field(description="When the Job was decided on.")] = None
    end_time: Annotated[Time | None, Field(description="When its result was seen.")] = None
    message: Annotated[Message, Field(description="What it said last; of a failure, the reason.")] = ""
    done: Annotated[Rows | None, Field(description="Rows that are moved.")] = None
    total: Annotated[Rows | None, Field(description="Rows that there are to move.")] = None
    rate: Annotated[Rows | None, Field(description="Rows a second.")] = None
    estimated_end_time: Annotated[Time | None, Field(description="When the rows will be moved at this rate.")] = None
    quarantined: Annotated[
        Rows | None, Field(description="Rows that could not be moved; `RetryMigration` tries them again.")
    ] = None
    progress_time: Annotated[Time | None, Field(description="When these figures were written.")] = None
    following: Annotated[bool, Field(description="Whether changes of the source go on being applied to the target.")] = False
    point_of_no_return: NoReturn | None = None
    backup_time: Annotated[Time | None, Field(description="When the newest snapshot was complete.")] = None
    backup_until: Annotated[Time | None, Field(description="How long it is kept.")] = None
    restore_time: Annotated[Time | None, Field(description="When rows were last brought back from it.")] = None


class DisabledFeature(Model):
    """A feature that somebody switched off in an emergency."""

    feature: Annotated[Feature, Field(description="Off for everybody, whatever else says on.")]
    reason: Annotated[Text, Field(description="As the person gave it.")]
    by: Annotated[Text, Field(description="The action that asked for it.")]
    time: Annotated[Time, Field(description="When it was asked for.")]


class FlagsRecord(Model):
    """The published flag document."""

    config_map: Annotated[str | None, Field(description="Its ConfigMap; the key is `flags.flagd.json`.", max_length=63)] = None
    sha256: Annotated[Sha | None, Field(description="Of what should be there; written before it is published.")] = None
    published_sha256: Annotated[Sha | None, Field(description="Of what was read back.")] = None
    published_time: Annotated[Time | None, Field(description="When it was read back.")] = None
    revision: Annotated[Generation, Field(description="Counts documents; never goes back.")] = 0
    disabled: Annotated[
        tuple[DisabledFeature, ...],
        Field(
            description="Features that are off in an emergency.",
            max_length=40,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["feature"]},
        ),
    ] = ()


class HistoryEntry(Model):
    """One line of the story."""

    time: Annotated[Time, Field(description="When it was decided.")]
    event: EventReason
    phase: Annotated[Name | None, Field(description="In which phase.")] = None
    step: Annotated[Index | None, Field(description="In which step.")] = None
    percent: Annotated[str | None, Field(description="Share of users in percent at that time.", max_length=8)] = None
    by: Annotated[Text | None, Field(description="The action that asked for it.")] = None
    because: Annotated[Message, Field(description="Why.")] = ""


class RolloutStatus(Model):
    """The whole status; an object that was never seen has the defaults."""

    observed_generation: Annotated[
        Generation, Field(description="The generation of the spec that this status is about; 0: never looked at.")
    ] = 0
    conditions: Annotated[
        tuple[MetaCondition, ...],
        Field(
            description="Ready, Reconciling and Stalled as generic tools read them, and what else is true of it.",
            max_length=12,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    outcome: Outcome | None = None
    current: Current = Current()
    decision: DecisionRecord = DecisionRecord()
    paused_by: Annotated[Text | None, Field(description="The action, or the guard, that paused it.")] = None
    progress: Annotated[str, Field(description="Of the migration that runs, in one line.", max_length=120)] = ""
    phases: Annotated[
        tuple[PhaseRecord, ...], Field(description="What became of each phase.", max_length=40, json_schema_extra=MAP_BY_NAME)
    ] = ()
    checks: Annotated[
        tuple[CheckRecord, ...],
        Field(
            description="The verdict of each check; one that repeats its verdict changes nothing here.",
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["kind", "name"]},
        ),
    ] = ()
    migrations: Annotated[
        tuple[MigrationRecord, ...],
        Field(description="What became of each migration.", max_length=16, json_schema_extra=MAP_BY_NAME),
    ] = ()
    flags: FlagsRecord = FlagsRecord()
    workload: WorkloadRecord | None = None
    outbox: Annotated[
        tuple[Notice, ...],
        Field(description="Notices that no sink has taken yet.", max_length=OUTBOX_LENGTH, json_schema_extra=ATOMIC),
    ] = ()
    notices_lost: Annotated[Index, Field(description="Notices that were dropped from a full outbox.")] = 0
    history: Annotated[
        tuple[HistoryEntry, ...],
        Field(description="What was decided, the last 20.", max_length=HISTORY_LENGTH, json_schema_extra=ATOMIC),
    ] = ()
