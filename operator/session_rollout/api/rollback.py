"""The rollback of a `SessionRollout.spec`: what it takes back, and what it leaves."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from session_rollout.api.base import MAP_BY_NAME, Model
from session_rollout.api.checks import Gate


class RollbackScope(StrEnum):
    """Extent to which a rollback takes flags back."""

    STEP = "Step"  # to the audience before this step
    PHASE = "Phase"  # this phase's features off, earlier phases stay
    ALL = "All"  # the features of every phase that has begun


class OnRollback(StrEnum):
    """Treatment of the phase's migrations in a rollback."""

    KEEP = "Keep"
    DOWN = "Down"


class OnWorkload(StrEnum):
    """Treatment of the workload in a rollback."""

    KEEP = "Keep"
    UNDO = "Undo"  # the Deployment goes back to its earlier revision


class Rollback(Model):
    """Extent of a rollback. Flags are always turned off first, before anything slower happens."""

    scope: Annotated[
        RollbackScope,
        Field(
            description="Features that a rollback takes back. `Step`: to the audience of the step before; `Phase` (default): the"
            " features of the running phase are turned off; `All`: the features of every phase that has begun are turned off."
        ),
    ] = RollbackScope.PHASE
    restore_data: Annotated[
        bool,
        Field(
            description="Restore rows from the snapshot of migrations with `backup: true`. Rows that users have written since"
            " are kept. Default false."
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
            description="Let `migrations: Down` drop tables and columns that hold data. Default false: such a migration is kept."
        ),
    ] = False
    workload: Annotated[
        OnWorkload,
        Field(
            description="`Keep` (default) leaves the Deployment as it is; `Undo` rolls it back to its earlier revision, and"
            " requires `spec.workload`."
        ),
    ] = OnWorkload.KEEP
    verification: Annotated[
        tuple[Gate, ...],
        Field(
            max_length=16,
            json_schema_extra=MAP_BY_NAME,
            description="Gates that are checked after the rollback, to verify its effect. Must not contain `approval`.",
        ),
    ] = ()
