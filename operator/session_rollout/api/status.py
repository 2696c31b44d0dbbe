"""`SessionRollout.status`: what must survive a crash, bounded to 32 KiB, and what users look for first.

One writer, `controller.reconciler`, writes it with resourceVersion and only when something changed. Every change goes
through a setter of `core.context`, which validates it against these models.
"""

from typing import Annotated

from pydantic import Field

from session_rollout.api.base import (
    ATOMIC,
    MAP_BY_NAME,
    SET,
    Generation,
    Index,
    Model,
    Name,
    Sentence,
    Sentences,
    Sha,
    Summary,
    Text,
)
from session_rollout.api.enums import CheckKind, DecisionAction, DecisionReason, Outcome, Stage, State
from session_rollout.api.evidence_record import EvidenceRecord
from session_rollout.api.flag_records import FlagsRecord
from session_rollout.api.status_records import (
    AnsweredAction,
    AudienceText,
    CheckRecord,
    DeadlineWait,
    HistoryEntry,
    MigrationRecord,
    Number,
    PendingNotification,
    Percentage,
    PhaseRecord,
    Plan,
    Refusal,
    RolledBackPlan,
    Time,
    Uid,
)
from session_rollout.api.surroundings import ClockRecord, WorkloadRecord

HISTORY_LENGTH = 20
PENDING_LENGTH = 32
REFUSALS_LENGTH = 24
PROCESSED_LENGTH = 32
ROLLED_BACK_PLANS_LENGTH = 8
EVIDENCE_LENGTH = 48  # of the guards, and of the criteria of a phase
CHECKS_LENGTH = 80  # of one phase: guards, criteria, preflight, verification and rollback.verification
MIGRATIONS_LENGTH = 32  # those of the spec, and as many of earlier specs


class MetaCondition(Model):
    """One condition with the fields of metav1.Condition."""

    type: Annotated[str, Field(description="Type of the condition in CamelCase, unique in this list.", max_length=63)]
    status: Annotated[str, Field(description="Status of the condition: True, False or Unknown.", max_length=7)]
    observed_generation: Annotated[Generation, Field(description="Generation of the spec that the condition is about.")]
    last_transition_time: Annotated[Time, Field(description="Time when `status` last changed.")]
    reason: Annotated[
        str,
        Field(description="Machine-readable reason in CamelCase. Values are part of the API.", min_length=1, max_length=63),
    ]
    message: Annotated[Sentence, Field(description="Human-readable explanation; its wording may change.")]


class Current(Model):
    """Current position of the rollout."""

    stage: Annotated[Stage, Field(description="Stage of the phase, such as `Step` or `Bake`.")] = Stage.PREFLIGHT
    phase: Annotated[
        Name | None, Field(description="Name of the running phase, or of the last one that ran. Unset before the first phase.")
    ] = None
    phase_index: Annotated[Index, Field(description="Number of the phase, counted from 1; 0 before the first phase.")] = 0
    step: Annotated[Index, Field(description="Number of the step in its phase, counted from 1; 0 outside steps.")] = 0
    increment: Annotated[
        Index, Field(description="Number of the increment of a ramp, counted from 1; 0 in a step without a ramp.")
    ] = 0
    percent: Annotated[Percentage, Field(description="Percentage of users that this step gives the features to.")] = "0"
    groups: Annotated[
        tuple[Name, ...],
        Field(description="Groups that get the features whatever the percentage.", max_length=8, json_schema_extra=SET),
    ] = ()
    audience: Annotated[
        AudienceText,
        Field(
            description="Percentage and groups as one string, such as `20%+beta`, or `5% placebo`; the AUDIENCE column. While a rollback is not in force, it is what users still have."
        ),
    ] = "0%"
    placebo: Annotated[
        Percentage | None,
        Field(
            description="Percentage of users with the variant `on`, if this is a placebo step: nobody has the features. Unset in all other"
            " steps."
        ),
    ] = None
    earlier_percent: Annotated[
        Percentage | None,
        Field(
            description="Percentage of users that had the features before this step. They keep them until its audience is published, and a"
            " rollback with scope `Step` leaves no more users than these."
        ),
    ] = None
    earlier_groups: Annotated[
        tuple[Name, ...], Field(description="Groups that had them before this step.", max_length=8, json_schema_extra=SET)
    ] = ()
    earlier_placebo: Annotated[
        Percentage | None, Field(description="Percentage of users with the variant `on` until then, after a placebo step.")
    ] = None
    stage_start_time: Annotated[Time | None, Field(description="Time when this stage or step started.")] = None
    published_time: Annotated[
        Time | None,
        Field(
            description="Time when the audience of this step, or the release of users who were held back, was read back from the cluster."
        ),
    ] = None
    hold_until: Annotated[
        Time | None,
        Field(description="Time when the hold ends. Set with the first usable verdicts; each pause of the timer extends it."),
    ] = None
    hold_paused_time: Annotated[
        Time | None, Field(description="Time when the hold timer was paused. Unset while the timer runs.")
    ] = None
    hold_paused_reason: Annotated[
        DecisionReason | None,
        Field(
            description="Cause of the pause: `AwaitingEvidence`, `FeatureDisabled`, `Paused`, `Suspended`, `InvalidSpec` or `RequestRefused`."
        ),
    ] = None
    deadline_wait: Annotated[
        DeadlineWait | None,
        Field(description="Time that counts toward `deadline` of the phase. Unset while nothing has counted."),
    ] = None
    approved_by: Annotated[Text | None, Field(description="Name of the action that approved this step.")] = None
    promoted_by: Annotated[
        Text | None, Field(description="Name of the `Promote` action that skips the checks of this step.")
    ] = None
    promote_time: Annotated[
        Time | None,
        Field(
            description="Creation time of that action. After five minutes, it is void, and the checks of the step apply again."
        ),
    ] = None
    raised_by: Annotated[
        Text | None,
        Field(description="Name of the `Promote` action that gave users this audience. Unset once the audience is published."),
    ] = None
    guards_start_time: Annotated[
        Time | None,
        Field(
            description="Guards use data from this time on. It is set at the start, by a retry, and when the flags of a rollback were read back."
        ),
    ] = None
    rollback_outcome: Annotated[
        Outcome | None, Field(description="Outcome that a running rollback will end with: RolledBack or Aborted.")
    ] = None
    rollback_guard: Annotated[Name | None, Field(description="Name of the guard whose breach started the rollback.")] = None
    rollback_reasons: Annotated[Sentences, Field(description="Causes of the rollback, with one sentence for each.")] = ()
    rollback_uid: Annotated[
        Uid | None, Field(description="UID of the action that started the rollback, or a name for a breach or a deadline.")
    ] = None

    @property
    def is_unpublished(self) -> bool:
        """Whether the audience of this step was decided, and not read back from the cluster."""
        return self.stage is Stage.STEP and self.published_time is None


class AwaitedApproval(Model):
    """An approval that an `Approve` action must name in addition to the generation: a step of a phase, or a gate."""

    phase: Annotated[Name | None, Field(description="Phase of the step that waits for approval.")] = None
    step: Annotated[Index | None, Field(description="Number of the step that waits, counted from 1.")] = None
    check: Annotated[Name | None, Field(description="Name of the gate that waits. It is set instead of a step.")] = None


class DecisionRecord(Model):
    """Current decision of the operator, with its reason and what would let the rollout continue."""

    action: Annotated[
        DecisionAction, Field(description="Activity of the operator, such as `Hold`; not a SessionRolloutAction.")
    ] = DecisionAction.WAIT
    reason: Annotated[
        DecisionReason, Field(description="Machine-readable reason in CamelCase. Values are part of the API.")
    ] = DecisionReason.NOT_DECIDED
    message: Annotated[Summary, Field(description="Explanation in about ten words; the MESSAGE column.")] = ""
    details: Annotated[Sentences, Field(description="Each cause as a complete sentence, with the value and its bound.")] = ()
    next_actions: Annotated[Sentences, Field(description="Instructions that let the rollout continue, one each.")] = ()
    approvals: Annotated[
        tuple[AwaitedApproval, ...],
        Field(
            description="Approvals that the rollout waits for. Give them with an `Approve` action.",
            max_length=16,
            json_schema_extra=ATOMIC,
        ),
    ] = ()
    next_time: Annotated[
        Time | None,
        Field(
            description="Time at which the hold, the wait for a window or the deadline ends; the UNTIL column. Unset while nobody knows:"
            " while the rollout waits for an approval, is paused or stalled, or waits for evidence without a deadline."
        ),
    ] = None
    inputs: Annotated[
        Sha | None, Field(description="SHA-256 fingerprint of the inputs; the decision record contains the inputs.")
    ] = None


class RolloutStatus(Model):
    """Observed state of the rollout. Only the operator writes it."""

    observed_generation: Annotated[
        Generation, Field(description="Generation of the spec that this status is about; 0 before the first decision.")
    ] = 0
    observed_plan: Annotated[
        Plan | None,
        Field(
            description="Fingerprint of the plan of that generation: features, phases, metrics, guards, gates and migrations, however they are"
            " written."
        ),
    ] = None
    rolled_back_plans: Annotated[
        tuple[RolledBackPlan, ...],
        Field(
            description="Plans that were rolled back or aborted since the last promotion, the last one at the end. A change of the spec that"
            " results in one of them does not start the rollout again.",
            max_length=ROLLED_BACK_PLANS_LENGTH,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["plan"]},
        ),
    ] = ()
    last_update_time: Annotated[
        Time | None,
        Field(description="Time when the operator last wrote this status. An earlier one than it knows is a restored backup."),
    ] = None
    evaluation_time: Annotated[
        Time | None,
        Field(
            description="Time of the last evaluation of all metrics that this status has taken into account. The operator writes it with"
            " other changes, so evaluations without a change may have followed."
        ),
    ] = None
    state: Annotated[State | None, Field(description="The rollout in one word; the STATUS column.")] = None
    conditions: Annotated[
        tuple[MetaCondition, ...],
        Field(
            description="Conditions. Ready, Reconciling and Stalled follow kstatus.",
            max_length=12,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    outcome: Annotated[
        Outcome | None, Field(description="Outcome of this generation: Promoted, RolledBack or Aborted. Unset while it runs.")
    ] = None
    current: Annotated[Current, Field(description="Current position of the rollout: phase, step, audience and timers.")] = (
        Current()
    )
    decision: Annotated[
        DecisionRecord,
        Field(description="Current decision of the operator, with its reason and what would let the rollout continue."),
    ] = DecisionRecord()
    paused_by: Annotated[Text | None, Field(description="Name of the action or the guard that paused the rollout.")] = None
    paused_message: Annotated[
        Sentence, Field(description="Reason of the pause: that of the action, or the guard's breach.")
    ] = ""
    protected_time: Annotated[
        Time | None,
        Field(
            description="Time before which no action was created that lets the rollout continue: the creation of the last action that turned"
            " features off or stopped the rollout, or the second after a guard, a deadline or an edit of the flag document did."
        ),
    ] = None
    progress: Annotated[Summary, Field(description="Progress of the running migrations; the PROGRESS column.")] = ""
    phases: Annotated[
        tuple[PhaseRecord, ...],
        Field(description="State of each phase, in the order of the spec.", max_length=40, json_schema_extra=MAP_BY_NAME),
    ] = ()
    checks: Annotated[
        tuple[CheckRecord, ...],
        Field(
            description="Last verdict of each check. An evaluation with the same verdict does not update its entry.",
            max_length=CHECKS_LENGTH,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["kind", "name"]},
        ),
    ] = ()
    evidence: Annotated[
        tuple[EvidenceRecord, ...],
        Field(
            description="Evidence of each check with `comparedTo: Control`. It is written when a verdict changes, and every ten minutes.",
            max_length=EVIDENCE_LENGTH,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["phase", "kind", "name"],
            },
        ),
    ] = ()
    false_rollback_spent: Annotated[
        Number | None,
        Field(description="Part of `control.falseRollback` that the comparisons of guards that have begun use up."),
    ] = None
    migrations: Annotated[
        tuple[MigrationRecord, ...],
        Field(
            description="State of each migration of the spec, and of those that earlier specs had.",
            max_length=MIGRATIONS_LENGTH,
            json_schema_extra=MAP_BY_NAME,
        ),
    ] = ()
    flags: Annotated[FlagsRecord, Field(description="State of the flag document and its ConfigMap.")] = FlagsRecord()
    refusals: Annotated[
        tuple[Refusal, ...],
        Field(
            description="Requests of the operator that the API server refuses: the last refusal of each effect.",
            max_length=REFUSALS_LENGTH,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["effect"]},
        ),
    ] = ()
    workload: Annotated[
        WorkloadRecord | None, Field(description="Undo and restart of the application's Deployment by the operator.")
    ] = None
    clock_jump: Annotated[
        ClockRecord | None, Field(description="Last change of a clock that the operator noticed. Unset if there was none.")
    ] = None
    pending_notifications: Annotated[
        tuple[PendingNotification, ...],
        Field(
            description="Notifications not yet accepted by their sinks.", max_length=PENDING_LENGTH, json_schema_extra=ATOMIC
        ),
    ] = ()
    notifications_lost: Annotated[
        Index, Field(description="Number of notifications that were dropped because the list was full.")
    ] = 0
    processed_actions: Annotated[
        tuple[AnsweredAction, ...],
        Field(
            description="Actions that were decided, until the operator has confirmed that the response was stored.",
            max_length=PROCESSED_LENGTH,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"]},
        ),
    ] = ()
    history: Annotated[
        tuple[HistoryEntry, ...],
        Field(description="The last 20 events, oldest first.", max_length=HISTORY_LENGTH, json_schema_extra=ATOMIC),
    ] = ()

    @property
    def has_timers(self) -> bool:
        """Whether time is counted: for a hold, for a deadline, or for the failure of a check."""
        current = self.current
        fails = any(check.failing_time is not None for check in self.checks)
        return fails or current.hold_until is not None or current.deadline_wait is not None

    @property
    def is_release_pending(self) -> bool:
        """Whether users who were held back are to get the features, and the document that gives them was not read back."""
        current = self.current
        return self.flags.released_time is not None and current.stage is Stage.BAKE and current.published_time is None

    def phase(self, name: str | None) -> PhaseRecord | None:
        """The record of a phase."""
        return next((record for record in self.phases if record.name == name), None)

    def evidence_of(self, phase: str, kind: CheckKind, name: str) -> EvidenceRecord | None:
        """The evidence of a check; None before it was compared."""
        return next((record for record in self.evidence if record.key == (phase, kind, name)), None)
