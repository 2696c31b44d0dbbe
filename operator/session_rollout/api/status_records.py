"""What the lists of a status contain: phases, checks, migrations, flags, history, and the answers to actions."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field, PlainSerializer

from session_rollout.api.base import (
    ATOMIC,
    SET,
    Feature,
    Figure,
    Generation,
    Index,
    Limit,
    Model,
    Name,
    Note,
    Revision,
    Rows,
    Sentence,
    Sha,
    Text,
)
from session_rollout.api.enums import ActionReason, CheckKind, CheckReason, EventReason, PhaseState, Verdict
from session_rollout.api.migration_enums import MigrationState, NoReturn, Operation
from session_rollout.api.quantities import PERCENT_PATTERN


def rfc3339(moment: datetime) -> str:
    """A time as text, in UTC."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _bounded(moment: datetime) -> datetime:
    return min(max(moment, EARLIEST), LATEST) if moment.tzinfo is not None else moment


# Whatever decisions add to a time or subtract from it is one, also when somebody has written another into a status.
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
Time = Annotated[
    datetime,
    AfterValidator(_bounded),
    PlainSerializer(rfc3339, return_type=str),
    Field(json_schema_extra={"format": "date-time"}),
]
JobName = Annotated[str, Field(max_length=63)]
# Numbers that decisions read again: whoever may write a status must not make every later decision raise.
Percentage = Annotated[str, Field(max_length=8, pattern=PERCENT_PATTERN)]
Number = Annotated[str, Field(max_length=40, pattern=r"^-?[0-9]+(\.[0-9]+)?(E[+-]?[0-9]{1,4})?$")]
Seconds = Annotated[int, Field(ge=0, le=2**53, json_schema_extra={"format": "int64"})]
Milliseconds = Annotated[int, Field(ge=0, le=2**53, json_schema_extra={"format": "int64"})]
AudienceText = Annotated[str, Field(max_length=600)]
Uid = Annotated[str, Field(max_length=63)]
PLAN_LENGTH: Final = 16
Plan = Annotated[str, Field(max_length=PLAN_LENGTH)]


class PhaseRecord(Model):
    """One phase, with the audience and the features as they were published."""

    name: Annotated[Name, Field(description="Name of the phase in `spec.phases`.")]
    state: Annotated[PhaseState, Field(description="State of the phase: Pending, Running, Completed or RolledBack.")] = (
        PhaseState.PENDING
    )
    percent: Annotated[Percentage, Field(description="Percentage of users that was published last.")] = "0"
    groups: Annotated[
        tuple[Name, ...], Field(description="Groups that were published last.", max_length=8, json_schema_extra=SET)
    ] = ()
    placebo: Annotated[
        Percentage | None,
        Field(
            description="Percentage of users with the variant `on` in a placebo step, in which nobody has the features. Unset in all other"
            " steps."
        ),
    ] = None
    held_back: Annotated[
        Percentage | None,
        Field(
            description="Percentage of users who are held back from its features until `status.flags.releasedTime`, whatever their groups."
            " Unset if nobody is, or if they were released for good."
        ),
    ] = None
    features: Annotated[
        tuple[Feature, ...],
        Field(
            description="Features as they were published, so that an edit of the spec cannot lose them.",
            max_length=16,
            json_schema_extra=SET,
        ),
    ] = ()
    start_time: Annotated[Time | None, Field(description="Time when the phase started.")] = None
    first_publish_time: Annotated[
        Time | None,
        Field(
            description="Time when users were to get its features for the first time, in any attempt, also of an earlier object of this"
            " name. The seasons of a baseline are before it. It is 1970-01-01T00:00:00Z if nobody knows it: there are no seasons then."
        ),
    ] = None
    end_time: Annotated[Time | None, Field(description="Time when the phase completed or was rolled back.")] = None
    promoted_time: Annotated[
        Time | None, Field(description="Time when the rollout was promoted with this phase. A guard no longer rolls it back.")
    ] = None

    @property
    def is_published(self) -> bool:
        """Whether some users have its features."""
        return bool(self.features) and (self.percent != "0" or bool(self.groups))


class RolledBackPlan(Model):
    """A plan that was rolled back or aborted. Only a `Retry` action tries it again, until the rollout is promoted."""

    generation: Annotated[Generation, Field(description="Generation of the spec that was rolled back with this plan.")]
    plan: Annotated[Plan, Field(description="Fingerprint of the plan, as in `observedPlan`.")]


class FailedTime(Model):
    """A time in which a criterion failed, on the clock of the hold timer: pauses are not in it."""

    start: Annotated[Milliseconds, Field(description="Milliseconds of the hold after which the failure began.")]
    end: Annotated[
        Milliseconds | None,
        Field(description="Milliseconds of the hold after which the failure ended. Unset while the criterion fails."),
    ] = None


class CheckRecord(Model):
    """The last change of one criterion, guard or gate. An evaluation with the same verdict does not update this entry."""

    name: Annotated[Name, Field(description="Name of the criterion, guard or gate in the spec.")]
    kind: Annotated[CheckKind, Field(description="Kind of the check: the list of the spec that contains it.")]
    verdict: Annotated[Verdict, Field(description="Result of the last evaluation.")] = Verdict.NOT_EVALUATED
    reason: Annotated[CheckReason | None, Field(description="Machine-readable reason of the verdict in CamelCase.")] = None
    value: Annotated[Figure | None, Field(description="Value when the verdict last changed, in the unit of `bound`.")] = None
    bound: Annotated[Limit | None, Field(description="Bound that the value is compared with, such as `below 1%`.")] = None
    baseline: Annotated[
        Number | None, Field(description="Value of the metric before the phase, for a check with `comparedTo: Baseline`.")
    ] = None
    seasons: Annotated[
        int | None,
        Field(
            description="Number of earlier seasons with data when the baseline was measured. From 2 on, the check is compared with the"
            " median of earlier seasons at each evaluation; with 0 or 1 it is Unseasoned, and compared with `baseline`. Unset while no"
            " season was read.",
            ge=0,
            le=4,
            json_schema_extra={"format": "int32"},
        ),
    ] = None
    seasonal_baseline: Annotated[
        Number | None,
        Field(description="Median of the earlier seasons when the verdict last changed, if `seasons` is at least 2."),
    ] = None
    source: Annotated[
        str | None,
        Field(
            description="Fingerprint of what is measured: provider, query and `window` of the metric. When it changes, the verdict and"
            " the baseline are dropped.",
            max_length=16,
        ),
    ] = None
    definition: Annotated[
        str | None,
        Field(
            description="Fingerprint of the bound. A criterion or guard with another name and the same `source` and `definition` is the"
            " same one.",
            max_length=16,
        ),
    ] = None
    time: Annotated[Time | None, Field(description="Time when the verdict last changed.")] = None
    message: Annotated[Sentence, Field(description="The verdict in one sentence.")] = ""
    job: Annotated[JobName | None, Field(description="Name of the Job, for a gate that runs one.")] = None
    attempt: Annotated[Revision, Field(description="Number of retries of the gate's Job.")] = 0
    evidence_time: Annotated[
        Time | None,
        Field(
            description="Time of the first verdict of Pass or Fail. A guard that had one may not be without one when users get more."
        ),
    ] = None
    needs_users: Annotated[
        bool | None,
        Field(
            description="Whether all its verdicts were about users who had features of the rollout. Without users, its metric may"
            " have no data."
        ),
    ] = None
    failing_time: Annotated[
        Time | None, Field(description="Time when the current failure of a criterion or guard began. A pass ends it.")
    ] = None
    recovery_time: Annotated[
        Time | None,
        Field(
            description="Time when the last failure of a criterion or guard ended. No baseline is measured on data from before it."
        ),
    ] = None
    gap_time: Annotated[
        Time | None,
        Field(
            description="Time since which a failing check has had no verdict of Pass or Fail. A gap does not count toward `for`."
        ),
    ] = None
    gap_milliseconds: Annotated[
        Milliseconds | None, Field(description="Length of the earlier gaps of the current failure, in milliseconds.")
    ] = None
    results: Annotated[
        str | None,
        Field(description="Results of the last evaluations of a check with `outOf`: P or F, the oldest first.", max_length=10),
    ] = None
    result_time: Annotated[Time | None, Field(description="Time of the evaluation that last changed `results`.")] = None
    failures: Annotated[
        tuple[FailedTime, ...] | None,
        Field(
            description="Times in which a criterion failed, for `passShare`: those in the last `hold`, oldest first. Of more than"
            " eight, the two nearest are joined.",
            max_length=8,
            json_schema_extra=ATOMIC,
        ),
    ] = None

    @property
    def has_evidence(self) -> bool:
        """Whether the verdict rests on data about the audience: Pass or Fail, or a comparison that has not shown either yet."""
        return self.verdict.is_evidence or (self.reason is not None and self.reason.is_open)


class WaitKind(StrEnum):
    """`status.current.deadlineWait.kind` is what the step waits for; only `Evidence` counts toward `onDeadline: Rollback`."""

    EVIDENCE = "Evidence"  # A criterion fails, or a criterion or guard has no verdict.
    AVAILABILITY = "Availability"  # Prometheus or the operator is unavailable.


class DeadlineWait(Model):
    """How long failing criteria or missing evidence have delayed a step beyond the planned end of its hold."""

    kind: Annotated[
        WaitKind | None,
        Field(
            description="Absence that the step waits for now: `Evidence` or `Availability`. Unset while it waits for neither."
        ),
    ] = None
    since: Annotated[
        Time | None,
        Field(description="Time since which the step has waited for it; not before the planned end of its hold."),
    ] = None
    evidence_seconds: Annotated[Seconds, Field(description="Earlier waits for criteria and evidence, in seconds.")] = 0
    availability_seconds: Annotated[
        Seconds,
        Field(description="Earlier time in which Prometheus or the operator was unavailable, in seconds. It never rolls back."),
    ] = 0


class PendingNotification(Model):
    """A notification that its sink has not accepted yet. It is delivered at least once; the receiver deduplicates by `id`."""

    id: Annotated[str, Field(description="Identifier that is the same for every delivery attempt.", max_length=32)]
    sink: Annotated[Name, Field(description="Name of the sink in the operator's configuration.")]
    event: Annotated[EventReason, Field(description="Event that the notification is about.")]
    time: Annotated[Time, Field(description="Time at which the event happened.")]
    phase: Annotated[Name | None, Field(description="Phase in which the event happened.")] = None
    step: Annotated[Index | None, Field(description="Step in which the event happened, counted from 1.")] = None
    message: Annotated[Note, Field(description="The event in one sentence.")] = ""


class MigrationRecord(Model):
    """One migration of the rollout."""

    name: Annotated[Name, Field(description="Name of the migration in `spec.migrations`.")]
    state: Annotated[MigrationState, Field(description="State of the migration, such as `Running` or `Succeeded`.")] = (
        MigrationState.PENDING
    )
    operation: Annotated[Operation, Field(description="Operation that its Job runs, or ran last.")] = Operation.UP
    arguments: Annotated[
        tuple[Text, ...], Field(description="Additional arguments of the Job.", max_length=6, json_schema_extra=ATOMIC)
    ] = ()
    job: Annotated[JobName | None, Field(description="Name of the Job in the namespace of the rollout.")] = None
    source: Annotated[
        Sha | None, Field(description="Fingerprint of the bundle that `up` applies, or has applied. Other operations keep it.")
    ] = None
    attempt: Annotated[
        Revision, Field(description="Number of operations that came before this one: each has a Job of its own.")
    ] = 0
    checksum: Annotated[Sha | None, Field(description="Checksum of what ran, as recorded in the ledger.")] = None
    start_time: Annotated[Time | None, Field(description="Time when the operator decided to start the Job.")] = None
    end_time: Annotated[Time | None, Field(description="Time when the result of the Job was observed.")] = None
    reason: Annotated[str | None, Field(description="Machine-readable reason of a failure in CamelCase.", max_length=63)] = None
    message: Annotated[Sentence, Field(description="Last message of the Job; for a failure, what went wrong.")] = ""
    done: Annotated[Rows | None, Field(description="Number of rows copied so far.")] = None
    total: Annotated[Rows | None, Field(description="Number of rows to copy.")] = None
    rate: Annotated[Rows | None, Field(description="Number of rows copied per second.")] = None
    estimated_end_time: Annotated[Time | None, Field(description="Time when all rows will be copied at this rate.")] = None
    quarantined: Annotated[
        Rows | None, Field(description="Number of rows that could not be copied. `RetryMigration` retries them.")
    ] = None
    progress_time: Annotated[Time | None, Field(description="Time when these figures were written.")] = None
    following: Annotated[bool, Field(description="Whether changes in the source are still applied to the target.")] = False
    withdrawn: Annotated[
        bool,
        Field(
            description="Whether the operator suspends its Job for good, because the Job had not begun when it had to stop. The"
            " migration then becomes pending again, and a later start has another Job."
        ),
    ] = False
    point_of_no_return: Annotated[
        NoReturn | None, Field(description="Whether the point of no return is ahead or has been passed.")
    ] = None
    backup_time: Annotated[Time | None, Field(description="Time when the newest snapshot was complete.")] = None
    backup_until: Annotated[Time | None, Field(description="Time until which the snapshot is kept.")] = None
    restore_time: Annotated[Time | None, Field(description="Time when rows were last restored from the snapshot.")] = None
    adopted: Annotated[
        bool,
        Field(
            description="Whether `Adopt` completed its phase without knowing of its `up`, which runs again and changes nothing that the ledger has. Where it may not be undone, `RetryMigration` has to name it first."
        ),
    ] = False

    @property
    def is_applied(self) -> bool:
        """Whether an `up` has succeeded and nothing has begun since to undo or replace it; other operations require that and keep it."""
        changing = self.operation in {Operation.UP, Operation.DOWN}
        return self.state is MigrationState.SUCCEEDED or (
            self.state in {MigrationState.RUNNING, MigrationState.FAILED} and not changing
        )

    @property
    def is_in_database(self) -> bool:
        """Whether the database may contain a part of it: its Job has run, and it was not undone since."""
        return self.job is not None and self.state is not MigrationState.REVERTED


class Refusal(Model):
    """A request of the operator that the API server refuses, until it succeeds."""

    effect: Annotated[
        str,
        Field(
            description="Effect that is refused, such as `Publish` or `StartJob`. `StatusFields`: the CRD is older than the operator."
            " `StatusContested`: another operator writes the status.",
            max_length=40,
        ),
    ]
    verb: Annotated[str, Field(description="Verb of the request, such as `create`.", max_length=20)] = ""
    resource: Annotated[str, Field(description="Resource of the request, such as `jobs`.", max_length=100)] = ""
    namespace: Annotated[str, Field(description="Namespace that the request is about.", max_length=63)] = ""
    message: Annotated[Sentence, Field(description="Words of the server that refuses it.")] = ""
    since: Annotated[Time, Field(description="Time of the first of these refusals.")]
    remedy: Annotated[Sentence, Field(description="Change that lets the request succeed, such as a right to grant.")] = ""


class HistoryEntry(Model):
    """One event of the rollout, with machine-readable fields."""

    time: Annotated[Time, Field(description="Time of the decision that emitted the event.")]
    event: Annotated[EventReason, Field(description="Reason of the event in CamelCase, such as `StepPublished`.")]
    phase: Annotated[Name | None, Field(description="Phase in which it happened.")] = None
    step: Annotated[Index | None, Field(description="Step in which it happened, counted from 1.")] = None
    percent: Annotated[Percentage | None, Field(description="Percentage of users at that time.")] = None
    audience: Annotated[AudienceText | None, Field(description="Audience at that time, such as `20%+beta`.")] = None
    revision: Annotated[Revision | None, Field(description="Revision of the flag document that was published.")] = None
    check: Annotated[Name | None, Field(description="Name of the criterion, guard or gate that the event is about.")] = None
    migration: Annotated[Name | None, Field(description="Name of the migration that the event is about.")] = None
    operation: Annotated[Operation | None, Field(description="Operation of the migration, such as `up` or `down`.")] = None
    job: Annotated[JobName | None, Field(description="Name of the Job of the migration or check.")] = None
    by: Annotated[Text | None, Field(description="Name of the action that requested it.")] = None
    message: Annotated[Sentence, Field(description="The event in one sentence.")] = ""


class AnsweredAction(Model):
    """An action that was carried out or rejected, until the operator has confirmed that the response was stored."""

    uid: Annotated[str, Field(description="UID of the SessionRolloutAction object.", max_length=63)]
    name: Annotated[str, Field(description="Name of the SessionRolloutAction object.", max_length=253)]
    accepted: Annotated[bool, Field(description="Whether the action was accepted; false when it was rejected.")]
    reason: Annotated[ActionReason, Field(description="Machine-readable reason of the response in CamelCase.")]
    message: Annotated[Note, Field(description="The response in one sentence.")] = ""
    time: Annotated[Time, Field(description="Time when the action was decided.")]
