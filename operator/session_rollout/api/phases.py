"""The phases of a `SessionRollout.spec`: their steps and ramps, migrations, criteria and verification."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from session_rollout.api.base import ATOMIC, MAP_BY_NAME, SET, Feature, Model, Name, rules
from session_rollout.api.cel import AUDIENCES, PLACEBO
from session_rollout.api.checks import Criterion, Gate
from session_rollout.api.quantities import Duration, DurationOrZero, Percent


class Ramp(Model):
    """An increase from the percentage of the preceding step to `to`, in equal increments over a time."""

    to: Annotated[Percent, Field(description='Percentage of users at the end of the ramp, such as `50` or `"0.5"`.')]
    over: Annotated[
        Duration,
        Field(
            description="Duration of the whole ramp, such as `7d`. Each increment is held for its share of it, at least"
            " `checkInterval`."
        ),
    ]
    increments: Annotated[
        int,
        Field(
            description="Number of equal increments, from 1 to 100. Each one is held and evaluated like a step.",
            ge=1,
            le=100,
            json_schema_extra={"format": "int32"},
        ),
    ]


class StepApproval(StrEnum):
    """Whether a step requires manual approval before it ends."""

    REQUIRED = "Required"
    NOT_REQUIRED = "NotRequired"


class Step(Model):
    """An audience that is published and held for a time, or a ramp of increasing audiences."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.ramp) ? (!has(self.percent) && !has(self.hold)) : (has(self.percent) || has(self.groups))",
                "must have either `ramp`, or `hold` with at least one of `percent` and `groups`; `ramp` excludes `percent` and `hold`",
            ),
            ("has(self.ramp) || has(self.hold)", "a step without `ramp` must have `hold`, such as `hold: 1d`"),
            PLACEBO,
        ),
    )
    percent: Annotated[
        Percent | None,
        Field(
            description='Percentage of users who get the features, such as `10` or `"0.5"`. A stable hash of the user ID selects'
            " them. Must not be less than in the preceding step. If unset, only `groups` get them. Mutually exclusive with `ramp`."
            " In a placebo step, the percentage of users with the variant `on`."
        ),
    ] = None
    ramp: Annotated[
        Ramp | None,
        Field(
            description="Raises the percentage in equal increments, instead of one fixed `percent`."
            " Mutually exclusive with `percent` and `hold`."
        ),
    ] = None
    groups: Annotated[
        tuple[Name, ...],
        Field(
            description="Groups of users who get the features regardless of the percentage, such as `beta`. Every later step of"
            " the phase must contain them too.",
            max_length=8,
            json_schema_extra=SET,
        ),
    ] = ()
    placebo: Annotated[
        bool,
        Field(
            description="Publish the variants of this step without the features: flags have the variant `on` for `percent` of users,"
            " and the value of both variants is false. It shows that the comparison works before users get the features. Placebo steps"
            " must be the first ones of their phase. Requires `percent` above 0 and below 100, and excludes `groups` and `ramp`. Defaults"
            " to false."
        ),
    ] = False
    hold: Annotated[
        Duration | None,
        Field(
            description="Time for which the step is held, such as `1d` or `1h30m`; at least `checkInterval`. The hold starts with"
            " the first usable verdicts after the warm-up. The timer runs only while every criterion and every guard has a verdict of Pass or"
            " Fail about this audience. It also pauses while the rollout is paused or suspended, while its spec is invalid,"
            " and while an emergency disables a feature of the phase. Mutually exclusive with `ramp`."
        ),
    ] = None
    approval: Annotated[
        StepApproval,
        Field(
            description="With `Required`, the step ends only after an `Approve` action for this generation, phase and step. A ramp"
            " is approved at its end. Defaults to `NotRequired`."
        ),
    ] = StepApproval.NOT_REQUIRED


class PhaseMigrations(Model):
    """Names of migrations to run before the first step of a phase and after its last step."""

    before: Annotated[
        tuple[Name, ...],
        Field(
            description="Names of migrations that run in this order before the first step is published.",
            max_length=8,
            json_schema_extra=ATOMIC,
        ),
    ] = ()
    after: Annotated[
        tuple[Name, ...],
        Field(
            description="Names of migrations that run in this order after the last step and the verification have passed. Each one"
            " starts only while no guard fails and every guard has a verdict.",
            max_length=8,
            json_schema_extra=ATOMIC,
        ),
    ] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, in the order in which they run."""
        return (*self.before, *self.after)


class OnDeadline(StrEnum):
    """Reaction to criteria or missing evidence that delay a step for longer than `deadline`."""

    STALL = "Stall"
    ROLLBACK = "Rollback"


class Phase(Model):
    """A part of the rollout with its own features, migrations, steps and criteria. Phases run one after the other."""

    model_config = ConfigDict(
        json_schema_extra=rules(*AUDIENCES),
    )
    name: Annotated[
        Name,
        Field(
            description="Name of the phase in actions and status, such as `connection-management`. After an edit of the spec, the"
            " rollout resumes at the phase with this name."
        ),
    ]
    features: Annotated[
        tuple[Feature, ...],
        Field(
            description="Names of the features that this phase rolls out. A feature can be in one phase only.",
            min_length=1,
            max_length=16,
            json_schema_extra=SET,
        ),
    ]
    migrations: Annotated[
        PhaseMigrations,
        Field(description="Migrations to run before the first step and after the last step. Defaults to none."),
    ] = PhaseMigrations()
    steps: Annotated[
        tuple[Step, ...],
        Field(
            description="Audiences of the phase, from the smallest to the largest.",
            min_length=1,
            max_length=16,
            json_schema_extra=ATOMIC,
        ),
    ]
    criteria: Annotated[
        tuple[Criterion, ...],
        Field(
            description="Checks that must pass before a step ends: for `passShare` of the hold, and during the last 10 intervals."
            " Without criteria, each step ends when its hold is complete.",
            max_length=16,
            json_schema_extra=MAP_BY_NAME,
        ),
    ] = ()
    deadline: Annotated[
        DurationOrZero | None,
        Field(
            description="Time for which failing criteria or missing evidence may delay a step beyond the planned end of its hold, such"
            " as `3d`, before `onDeadline` applies. Pauses do not count. If unset, they may delay it without limit."
        ),
    ] = None
    on_deadline: Annotated[
        OnDeadline,
        Field(
            description="Reaction when the deadline has passed. `Stall` (default) keeps the audience until all criteria pass or an on-call engineer"
            " intervenes; `Rollback` starts a rollback, also when evidence is missing. The rollout stalls in any case when the deadline has"
            " passed only because Prometheus or the operator was unavailable."
        ),
    ] = OnDeadline.STALL
    verification: Annotated[
        tuple[Gate, ...],
        Field(
            description="Gates that must pass after the last step, before the migrations in `migrations.after` run.",
            max_length=16,
            json_schema_extra=MAP_BY_NAME,
        ),
    ] = ()
