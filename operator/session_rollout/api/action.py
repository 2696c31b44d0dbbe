"""`SessionRolloutAction`: what a person asked for. Create-only and immutable; together they are the audit log."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from session_rollout.api.base import ATOMIC, SET, Feature, Generation, Model, Name, Sentence, Text, rules
from session_rollout.api.enums import ActionReason, ActionType, CheckReason, Operation, Verdict
from session_rollout.api.quantities import Duration
from session_rollout.api.status import MetaCondition, Time


class ActionSpec(Model):
    """One wish about one rollout."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        json_schema_extra=rules(
            ("self == oldSelf", "must stay as it is: an action cannot be changed, create another one"),
            (
                "!(self.action in ['Promote', 'Abort', 'EmergencyDisable', 'EmergencyEnable', 'RestoreData', 'MigrateDown',"
                " 'RestartWorkload', 'UndoWorkload']) || (has(self.reason) && self.reason.size() > 0)",
                "`reason` must be given for Promote, Abort, EmergencyDisable, EmergencyEnable, RestoreData, MigrateDown,"
                " RestartWorkload and UndoWorkload: they override a check or reach users",
            ),
            (
                "!(self.action in ['Approve', 'Promote', 'Retry']) || has(self.generation)",
                "`generation` must be given for Approve, Promote and Retry: it says which programme is meant",
            ),
            (
                "!(self.action in ['Approve', 'Promote']) || has(self.check) || (has(self.phase) && has(self.step))",
                "`phase` and `step` must be given for Approve and Promote, or for Approve the `check` of a gate",
            ),
            (
                "!has(self.check) || self.action in ['Approve', 'Verify']",
                "`check` must only be given with Approve and Verify: it names the gate that is meant",
            ),
            (
                "!has(self.features) || self.action in ['EmergencyDisable', 'EmergencyEnable']",
                "`features` must only be given with EmergencyDisable and EmergencyEnable",
            ),
            (
                "has(self.migration) == (self.action in ['RestoreData', 'RetryMigration', 'BackupData',"
                " 'RepairData', 'MigrateDown', 'InspectMigration'])",
                "`migration` must be given for RestoreData, RetryMigration, BackupData, RepairData, MigrateDown"
                " and InspectMigration, and only for these",
            ),
            (
                "has(self.topic) == (self.action == 'Diagnose')",
                "`topic` must be given for Diagnose, and only for it",
            ),
            (
                "has(self.operation) == (self.action == 'InspectMigration')",
                "`operation` must be given for InspectMigration, and only for it",
            ),
            (
                "!(has(self.user) || has(self.at) || has(self.loseNewer)) || self.action == 'RestoreData'",
                "`user`, `at` and `loseNewer` must only be given with RestoreData",
            ),
        ),
    )
    rollout: Annotated[Name, Field(description="Name of the SessionRollout in the same namespace.")]
    action: ActionType
    generation: Annotated[
        Generation | None,
        Field(description="Which generation of the rollout is meant; another one running, and the action is refused."),
    ] = None
    phase: Annotated[Name | None, Field(description="Which phase is meant, for Approve and Promote.")] = None
    step: Annotated[
        int | None, Field(description="Which step of it, counted from 1.", ge=1, le=16, json_schema_extra={"format": "int32"})
    ] = None
    check: Annotated[Name | None, Field(description="Name of a preflight or verification gate to approve.")] = None
    features: Annotated[
        tuple[Feature, ...],
        Field(max_length=40, json_schema_extra=SET, description="Which features; none means all."),
    ] = ()
    migration: Annotated[Name | None, Field(description="Which migration's rows or snapshot are meant.")] = None
    user: Annotated[
        str | None,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}$", max_length=128, description="Restore only this user's rows."),
    ] = None
    at: Annotated[Time | None, Field(description="Restore from the newest snapshot taken before this time.")] = None
    lose_newer: Annotated[
        bool | None, Field(description="Bring back every row as it was, also where users have written since.")
    ] = None
    topic: Annotated[Name | None, Field(description="What is diagnosed: a topic of the operator's configuration.")] = None
    operation: Annotated[
        Literal[Operation.PLAN, Operation.STATUS, Operation.VERIFY] | None,
        Field(description="What is asked of a migration; none of them changes anything."),
    ] = None
    reason: Annotated[Text, Field(description="Why; it is kept, and told in history and notices.")] = ""
    ttl: Annotated[Duration, Field(description="How long the answered action is kept.")] = "30d"


class Result(Model):
    """One line of what an examination found."""

    name: Annotated[str, Field(description="What was looked at.", max_length=63)]
    verdict: Verdict
    reason: Annotated[CheckReason | None, Field(description="Machine-readable reason of the verdict in CamelCase.")] = None
    value: Annotated[str | None, Field(description="What was found.", max_length=40)] = None
    bound: Annotated[str | None, Field(description="What it is held against.", max_length=80)] = None
    message: Annotated[Sentence, Field(description="The verdict in one sentence.")] = ""


class ActionStatus(Model):
    """The answer."""

    accepted: Annotated[bool | None, Field(description="Whether it was heard; none: not answered yet.")] = None
    at: Annotated[Time | None, Field(description="When it was answered.")] = None
    reason: Annotated[ActionReason | None, Field(description="Machine-readable reason of the answer in CamelCase.")] = None
    message: Annotated[Sentence, Field(description="What the action does, or why it was refused.")] = ""
    results: Annotated[
        tuple[Result, ...], Field(description="What an examination found.", max_length=64, json_schema_extra=ATOMIC)
    ] = ()
    output: Annotated[str, Field(max_length=4096, description="What a migration said of itself.")] = ""
    conditions: Annotated[
        tuple[MetaCondition, ...],
        Field(
            description="`Accepted`, for generic tools.",
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
    """The status that answers an action."""
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
        results=results[:64],
        output=output[:4096],
        conditions=(condition,),
    )


class SessionRolloutAction(Model):
    """One action object, as far as the operator reads it."""

    namespace: Text
    name: Text
    uid: Text
    creation_time: Time
    spec: ActionSpec
