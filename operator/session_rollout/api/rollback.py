"""The rollback of a `SessionRollout.spec`: what it rolls back, and what it keeps."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from session_rollout.api.base import MAP_BY_NAME, Model, rules
from session_rollout.api.cel import ROLLBACK
from session_rollout.api.checks import Gate


class RollbackScope(StrEnum):
    """Features that a rollback turns off, or returns to the preceding audience."""

    STEP = (
        "Step"  # The features return to the preceding audience. In the first audience and outside a step, they are turned off.
    )
    PHASE = "Phase"  # The features of the running phase, or in the bake of the last, are turned off; earlier phases are kept.
    ALL = "All"  # The features of every phase that has begun are turned off.


class OnRollback(StrEnum):
    """Treatment of the phase's migrations in a rollback."""

    KEEP = "Keep"
    DOWN = "Down"


class OnWorkload(StrEnum):
    """Treatment of the workload in a rollback."""

    KEEP = "Keep"
    UNDO = "Undo"  # The Deployment is rolled back to its previous revision.


AfterRollback = Annotated[
    Gate,
    Field(
        description="A check that is evaluated after a rollback and only reports: a metric within a bound, an HTTP response, a Job,"
        " or a built-in gate. `approval` is not allowed."
    ),
]


class Rollback(Model):
    """Extent of a rollback. The flags are always changed first, before anything slower happens."""

    model_config = ConfigDict(json_schema_extra=rules(*ROLLBACK))
    scope: Annotated[
        RollbackScope,
        Field(
            description="Features that a rollback affects. `Phase` (default) turns off the features of the running phase or, in the"
            " bake, of the last phase. `Step` returns them to the preceding audience, which in a ramp is that of the preceding"
            " increment; in the first audience and outside a step, it turns them off. `Step` excludes `migrations: Down`,"
            " `restoreData: true` and `workload: Undo`, because users keep the features."
            " `All` turns off the features of every phase that has begun."
        ),
    ] = RollbackScope.PHASE
    restore_data: Annotated[
        bool,
        Field(
            description="Restore rows from the snapshot of migrations with `backup: true`. Rows that users have"
            " written since the snapshot are kept if `copy.yaml` sets `changed`. Defaults to false."
        ),
    ] = False
    migrations: Annotated[
        OnRollback,
        Field(
            description="`Keep` (default) leaves migrations in place; `Down` undoes those of the phase, unless they have passed"
            " their point of no return."
        ),
    ] = OnRollback.KEEP
    allow_data_loss: Annotated[
        bool,
        Field(
            description="Allow `migrations: Down` to drop tables and columns that contain data. Defaults to false: the rollback"
            " stalls, and the message names the tables and columns."
        ),
    ] = False
    workload: Annotated[
        OnWorkload,
        Field(
            description="`Keep` (default) leaves the Deployment as it is; `Undo` rolls it back to its previous revision, and"
            " requires `spec.workload`."
        ),
    ] = OnWorkload.KEEP
    verification: Annotated[
        tuple[AfterRollback, ...],
        Field(
            max_length=16,
            json_schema_extra=MAP_BY_NAME,
            description="Gates that are checked after the rollback, to verify its effect. Must not contain `approval`.",
        ),
    ] = ()
