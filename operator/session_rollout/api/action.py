"""`SessionRolloutAction`: a request of a Kubernetes user to one rollout.

Actions are immutable. They record the request, but not the Kubernetes user, who is in the audit log of the API server.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from session_rollout.api.base import (
    ATOMIC,
    SET,
    Feature,
    Figure,
    Generation,
    Limit,
    Model,
    Name,
    Sentence,
    Text,
    rules,
    shortened,
)
from session_rollout.api.enums import ActionReason, ActionType, CheckReason, Verdict
from session_rollout.api.migration_enums import Operation
from session_rollout.api.quantities import Duration, Percent
from session_rollout.api.status import MetaCondition
from session_rollout.api.status_records import Time

OUTPUT_LENGTH = 4096
RESULTS_LENGTH = 64


class ActionSpec(Model):
    """A request to one rollout."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        json_schema_extra=rules(
            ("self == oldSelf", "an action is immutable; create another one instead"),
            (
                "!(self.action in ['Promote', 'Abort', 'EmergencyDisable', 'EmergencyEnable', 'RestoreData', 'MigrateDown',"
                " 'RestartWorkload', 'UndoWorkload', 'Adopt', 'Reset']) || (has(self.reason) && self.reason.size() > 0)",
                "`reason` is required for Promote, Abort, EmergencyDisable, EmergencyEnable, RestoreData, MigrateDown,"
                " RestartWorkload, UndoWorkload, Adopt and Reset, because they override a check or affect users",
            ),
            (
                "!(self.action in ['Approve', 'Promote', 'Retry']) || has(self.generation)",
                "`generation` is required for Approve, Promote and Retry: it must be the active generation of the rollout",
            ),
            (
                "!(self.action in ['Approve', 'Promote']) || has(self.check) || (has(self.phase) && has(self.step))",
                "`phase` and `step` are required for Approve and Promote; to approve a gate, set `check` instead",
            ),
            (
                "!has(self.percent) || (self.action in ['Approve', 'Promote'] && has(self.step))",
                "`percent` is allowed only for Approve and Promote, together with `step`",
            ),
            (
                "!has(self.check) || self.action in ['Approve', 'Verify']",
                "`check` is allowed only for Approve and Verify",
            ),
            (
                "!has(self.features) || self.action in ['EmergencyDisable', 'EmergencyEnable']",
                "`features` is allowed only for EmergencyDisable and EmergencyEnable",
            ),
            (
                "has(self.migration) == (self.action in ['RestoreData', 'RetryMigration', 'BackupData',"
                " 'RepairData', 'MigrateDown', 'InspectMigration'])",
                "`migration` is required for RestoreData, RetryMigration, BackupData, RepairData, MigrateDown"
                " and InspectMigration, and allowed only for these",
            ),
            (
                "has(self.topic) == (self.action == 'Diagnose')",
                "`topic` is required for Diagnose, and allowed only for it",
            ),
            (
                "has(self.operation) == (self.action == 'InspectMigration')",
                "`operation` is required for InspectMigration, and allowed only for it",
            ),
            (
                "!(has(self.user) || has(self.at) || has(self.loseNewer)) || self.action == 'RestoreData'",
                "`user`, `at` and `loseNewer` are allowed only for RestoreData",
            ),
        ),
    )
    rollout: Annotated[Name, Field(description="Name of the SessionRollout in the namespace of this action.")]
    action: Annotated[
        ActionType,
        Field(
            description="Action to perform. Verify, Diagnose and InspectMigration do not change the rollout and write their results to the"
            " status of the action."
        ),
    ]
    generation: Annotated[
        Generation | None,
        Field(
            description="Generation of the rollout that the action is for: its `metadata.generation`, such as 3. The action is"
            " rejected if a different generation is active. Required for Approve, Promote and Retry."
        ),
    ] = None
    phase: Annotated[
        Name | None,
        Field(description="Name of the phase that the action is for. Required for Approve and Promote, except with `check`."),
    ] = None
    step: Annotated[
        int | None,
        Field(
            description="Number of the step in the phase, counted from 1. Required for Approve and Promote, except with `check`.",
            ge=1,
            le=16,
            json_schema_extra={"format": "int32"},
        ),
    ] = None
    percent: Annotated[
        Percent | None,
        Field(
            description="Percentage of users that the step has now, which must be that of `status.current`. Required for Promote in a step"
            " with a `ramp`, which has several, so that an action that is sent twice completes only one of them."
        ),
    ] = None
    check: Annotated[
        Name | None,
        Field(description="Name of the preflight or verification gate to approve or to verify. Only for Approve and Verify."),
    ] = None
    features: Annotated[
        tuple[Feature, ...],
        Field(
            max_length=40,
            json_schema_extra=SET,
            description="Names of the features to turn off, or to turn on again. If empty (default), the action"
            " applies to all features of the rollout."
            " Only for EmergencyDisable and EmergencyEnable.",
        ),
    ] = ()
    migration: Annotated[
        Name | None,
        Field(
            description="Name of the migration in `spec.migrations` of the rollout. Required for RestoreData, RetryMigration,"
            " BackupData, RepairData, MigrateDown and InspectMigration, and allowed only for these."
        ),
    ] = None
    user: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}$",
            max_length=128,
            description="ID of the user whose rows are restored, such as `u-4711`. If unset, the rows of all users are restored."
            " Only for RestoreData.",
        ),
    ] = None
    at: Annotated[
        Time | None,
        Field(
            description="Restore from the newest snapshot taken before this time, in RFC 3339 format, such as"
            " `2026-11-20T09:00:00Z`. If unset, the newest snapshot is used. Only for RestoreData."
        ),
    ] = None
    lose_newer: Annotated[
        bool | None,
        Field(
            description="Overwrite rows that users have written since the snapshot. If unset or false, these rows are kept if `copy.yaml` sets `changed`."
            " Only for RestoreData."
        ),
    ] = None
    topic: Annotated[
        Name | None,
        Field(
            description="Name of an entry of `diagnostics` in the operator's configuration, such as `memory`."
            " Required for Diagnose, and allowed only for it."
        ),
    ] = None
    operation: Annotated[
        Literal[Operation.PLAN, Operation.STATUS, Operation.VERIFY] | None,
        Field(
            description="Inspection of the migration: `plan` shows what it would do and lock; `status` shows what is applied;"
            " `verify` compares both sides of a copy. Required for InspectMigration, and allowed only for it."
        ),
    ] = None
    reason: Annotated[
        Text,
        Field(
            description="Reason for the action, for the history and notifications, such as `error rate in EU`. Required for actions"
            " that override a check or affect users."
        ),
    ] = ""
    ttl: Annotated[
        Duration,
        Field(description="Time for which the action is kept after it was created, such as `7d`. Defaults to `30d`."),
    ] = "30d"


class Result(Model):
    """One result of a Verify, Diagnose or InspectMigration action."""

    name: Annotated[str, Field(description="Name of the check, the diagnostic or the row of the report.", max_length=63)]
    verdict: Annotated[
        Verdict,
        Field(description="Verdict of the check. Pass and Fail are results; the others explain why there is no result."),
    ]
    reason: Annotated[CheckReason | None, Field(description="Machine-readable reason of the verdict in CamelCase.")] = None
    value: Annotated[
        Figure | None, Field(description="Measured value in the unit of the bound, such as `1.3%`. Unset without a value.")
    ] = None
    bound: Annotated[
        Limit | None, Field(description="Bound that the value is compared with, such as `below 1%`. Unset without a bound.")
    ] = None
    message: Annotated[Sentence, Field(description="Explanation of the verdict in one sentence.")] = ""


class ActionStatus(Model):
    """Response of the operator to the action."""

    accepted: Annotated[
        bool | None, Field(description="Whether the action was accepted. Unset until it has been processed.")
    ] = None
    at: Annotated[Time | None, Field(description="Time when the action was processed.")] = None
    reason: Annotated[
        ActionReason | None,
        Field(description="Machine-readable reason of the response in CamelCase. Unset until the action has been processed."),
    ] = None
    message: Annotated[Sentence, Field(description="Effect of the action, or why it was rejected.")] = ""
    results: Annotated[
        tuple[Result, ...],
        Field(
            description="Results of a Verify, Diagnose or InspectMigration action.",
            max_length=RESULTS_LENGTH,
            json_schema_extra=ATOMIC,
        ),
    ] = ()
    output: Annotated[
        str,
        Field(
            max_length=OUTPUT_LENGTH,
            description="Output of the migration for an InspectMigration action, at most 4,096 characters.",
        ),
    ] = ""
    conditions: Annotated[
        tuple[MetaCondition, ...],
        Field(
            description="Conditions of the action. `Accepted` is the only one.",
            max_length=4,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()


def answer(
    *,
    accepted: bool,
    reason: ActionReason,
    message: str,
    now: datetime,
    results: tuple[Result, ...] = (),
    output: str = "",
) -> ActionStatus:
    """The status with the response to an action."""
    condition = MetaCondition(
        type="Accepted",
        status="True" if accepted else "False",
        observed_generation=1,
        last_transition_time=now,
        reason=reason,
        message=message,
    )
    return ActionStatus(
        accepted=accepted,
        at=now,
        reason=reason,
        message=message,
        results=results[:RESULTS_LENGTH],
        output=shortened(output, OUTPUT_LENGTH),
        conditions=(condition,),
    )


class SessionRolloutAction(Model):
    """A SessionRolloutAction object with the fields that the operator reads."""

    namespace: Text
    name: Text
    uid: Text
    creation_time: Time
    spec: ActionSpec
