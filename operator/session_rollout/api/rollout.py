"""`SessionRollout.spec`: the programme as platform teams write it.

The models are the source of `crds/*.yaml` (see `api.crds`). What a single object can get wrong is refused by the API
server: by the schema below or by a CEL rule beside the field it speaks of. Field meaning follows the API page of the
documentation; numbers in `max_length` are the bounds that keep CEL inside the API server's cost budget.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from session_rollout.api.base import ATOMIC, MAP_BY_NAME, SET, Feature, Generation, Model, Name, Text, rules
from session_rollout.api.cel import AUDIENCES, PROGRAMME
from session_rollout.api.checks import Check, Gate, Guard
from session_rollout.api.enums import EventReason
from session_rollout.api.migration import Database, Migration
from session_rollout.api.quantities import Duration, Percent
from session_rollout.api.status import RolloutStatus


class OnOff(StrEnum):
    """Value of a feature before its phase begins."""

    ON = "On"
    OFF = "Off"


class FeatureSpec(Model):
    """One switch of the flag document."""

    name: Annotated[Feature, Field(description="The key of the flag in the document.")]
    initial: OnOff = OnOff.OFF
    depends_on: Annotated[
        tuple[Feature, ...],
        Field(description="Features that whoever has this one has, too.", max_length=4, json_schema_extra=SET),
    ] = ()


class Cohorts(Model):
    """Two queries with the placeholder `$cohort`, asked once with `on` and once with `off`: good events of all events."""

    good: Annotated[str, Field(description="PromQL: good events of the users with `$cohort`.", min_length=1, max_length=2048)]
    total: Annotated[str, Field(description="PromQL: all events of the users with `$cohort`.", min_length=1, max_length=2048)]


class Metric(Model):
    """A question to Prometheus; its answer must be one number."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.query) != has(self.cohorts)", "must have exactly one of `query` and `cohorts`"),
            (
                "!has(self.cohorts) || (self.cohorts.good.contains('$cohort') && self.cohorts.total.contains('$cohort'))",
                "both queries of `cohorts` must contain the placeholder `$cohort`",
            ),
        ),
    )
    name: Annotated[Name, Field(description="What checks call it.")]
    query: Annotated[
        str | None, Field(description="PromQL with one scalar or one series as its answer.", min_length=1, max_length=2048)
    ] = None
    cohorts: Cohorts | None = None


class Ramp(Model):
    """A climb from the percentage before it to `to`, in equal increments over a time."""

    to: Annotated[Percent, Field(description="Percentage of users at its end, such as `50`.")]
    over: Annotated[
        Duration, Field(description="How long it takes in all, such as `7d`; each increment is held for its share.")
    ]
    increments: Annotated[
        int, Field(description="In how many equal steps.", ge=1, le=100, json_schema_extra={"format": "int32"})
    ]


class StepApproval(StrEnum):
    """Whether a person must agree before the step ends."""

    REQUIRED = "Required"
    NOT_REQUIRED = "NotRequired"


class Step(Model):
    """One audience of a phase, held for a time; or a ramp."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.ramp) ? (!has(self.percent) && !has(self.hold)) : (has(self.percent) || has(self.groups))",
                "must have `percent` or `groups` together with `hold`, or else `ramp` alone with optional `groups`",
            ),
            ("has(self.ramp) || has(self.hold)", "a step without `ramp` must say in `hold` how long it is held"),
        ),
    )
    percent: Annotated[
        Percent | None,
        Field(
            description='Share of users, such as `10` or `"0.5"`, picked by a hash of their id that stays the same; never less than before.'
        ),
    ] = None
    ramp: Ramp | None = None
    groups: Annotated[
        tuple[Name, ...],
        Field(
            description="Who has the features whatever the percentage; once named, to be named in every later step.",
            max_length=8,
            json_schema_extra=SET,
        ),
    ] = ()
    hold: Annotated[
        Duration | None, Field(description="How long it is kept, such as `1d` or `90m`; time without evidence does not count.")
    ] = None
    approval: StepApproval = StepApproval.NOT_REQUIRED


class PhaseMigrations(Model):
    """Names of migrations to run before the first step and after the last."""

    before: Annotated[
        tuple[Name, ...],
        Field(description="Run before its first step is published, in this order.", max_length=8, json_schema_extra=ATOMIC),
    ] = ()
    after: Annotated[
        tuple[Name, ...],
        Field(description="Run when its last step has passed, in this order.", max_length=8, json_schema_extra=ATOMIC),
    ] = ()


class OnDeadline(StrEnum):
    """What a phase does when its criteria kept it longer than `deadline`."""

    STALL = "Stall"
    ROLLBACK = "Rollback"


class Phase(Model):
    """An ordered part of the programme with its own features, migrations, steps and criteria."""

    model_config = ConfigDict(
        json_schema_extra=rules(*AUDIENCES),
    )
    name: Annotated[
        Name, Field(description="What actions and status call it; a spec that is edited goes on at the phase of this name.")
    ]
    features: Annotated[
        tuple[Feature, ...],
        Field(description="What this phase gives to its audiences.", min_length=1, max_length=16, json_schema_extra=SET),
    ]
    migrations: PhaseMigrations = PhaseMigrations()
    steps: Annotated[
        tuple[Step, ...],
        Field(description="Audiences from the smallest to the largest.", min_length=1, max_length=16, json_schema_extra=ATOMIC),
    ]
    criteria: Annotated[
        tuple[Check, ...], Field(description="Must pass before a step is left.", max_length=16, json_schema_extra=MAP_BY_NAME)
    ] = ()
    deadline: Annotated[Duration | None, Field(description="How long criteria may keep a step beyond its planned hold.")] = None
    on_deadline: OnDeadline = OnDeadline.STALL
    verification: Annotated[
        tuple[Gate, ...],
        Field(description="What must hold when the last step has passed.", max_length=16, json_schema_extra=MAP_BY_NAME),
    ] = ()


class Workload(Model):
    """The application: it must be available before the first phase."""

    kind: Annotated[Literal["Deployment"], Field(description="Of the application.")] = "Deployment"
    name: Annotated[Name, Field(description="Of the application.")]


class RollbackScope(StrEnum):
    """How far flags go back."""

    STEP = "Step"  # to the audience before this step
    PHASE = "Phase"  # this phase's features off, earlier phases stay
    ALL = "All"  # the features of every phase that has begun


class OnRollback(StrEnum):
    """What happens to the phase's migrations on rollback."""

    KEEP = "Keep"
    DOWN = "Down"


class OnWorkload(StrEnum):
    """What happens to the application on rollback."""

    KEEP = "Keep"
    UNDO = "Undo"  # the Deployment goes back to its earlier revision


class Rollback(Model):
    """What a rollback undoes; flags always first."""

    scope: RollbackScope = RollbackScope.PHASE
    restore_data: Annotated[bool, Field(description="Merge the snapshot back: what users have written since is kept.")] = False
    migrations: OnRollback = OnRollback.KEEP
    allow_data_loss: Annotated[bool, Field(description="Let `migrations: Down` drop tables and columns that hold data.")] = (
        False
    )
    workload: OnWorkload = OnWorkload.KEEP
    verification: Annotated[
        tuple[Gate, ...],
        Field(max_length=16, json_schema_extra=MAP_BY_NAME, description="Checked when all is undone; waits for nobody."),
    ] = ()


class Day(StrEnum):
    """Days of a window."""

    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


TIME_PATTERN: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
TimeOfDay = Annotated[str, Field(pattern=TIME_PATTERN, max_length=5)]


class Window(Model):
    """When promotion is allowed; rollback never waits for one."""

    model_config = ConfigDict(
        json_schema_extra=rules(("self.from < self.to", "`to` must be later than `from` on the same day")),
    )
    days: Annotated[tuple[Day, ...], Field(description="On which days.", min_length=1, max_length=7, json_schema_extra=SET)]
    from_: Annotated[TimeOfDay, Field(description="From when, in its time zone.", alias="from")]
    to: Annotated[TimeOfDay, Field(description="Until when, in its time zone.")]
    time_zone: Annotated[
        str,
        Field(
            description="A name of the time zone database, such as `Europe/Berlin`.",
            pattern=r"^[A-Za-z0-9_+/-]+$",
            max_length=64,
        ),
    ] = "UTC"


class DeletionPolicy(StrEnum):
    """What happens to the flag document when the object is deleted."""

    RETAIN = "Retain"
    OFF = "Off"


class Notification(Model):
    """Who is told of what; where a sink leads is the admin's to say."""

    sink: Annotated[Name, Field(description="An entry of `sinks` in the operator's configuration.")]
    # Not `on`: YAML reads that as `true`.
    events: Annotated[
        tuple[EventReason, ...], Field(description="What is told.", min_length=1, max_length=16, json_schema_extra=SET)
    ]


class RolloutSpec(Model):
    """The whole programme."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        json_schema_extra=rules(*PROGRAMME),
    )
    flag_set: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([-a-z0-9]{0,55}[a-z0-9])?$",
            max_length=57,
            description="Names the flag document and salts the hash of the users. Immutable: another name is other users.",
            json_schema_extra=rules(
                ("self == oldSelf", "`flagSet` must stay as it is: it salts the hash that picks the users"),
            ),
        ),
    ]
    suspend: Annotated[bool, Field(description="Freezes the rollout as it is; only emergency actions still work.")] = False
    prometheus: Annotated[Name, Field(description="A provider of the operator's configuration; never a URL.")] = "default"
    check_interval: Annotated[
        Duration, Field(description="How often criteria and guards are judged, such as `30s`; at least `1s`.")
    ] = "30s"
    workload: Workload | None = None
    database: Database | None = None
    features: Annotated[
        tuple[FeatureSpec, ...],
        Field(description="The switches of the flag document.", min_length=1, max_length=40, json_schema_extra=MAP_BY_NAME),
    ]
    metrics: Annotated[
        tuple[Metric, ...],
        Field(description="Questions to Prometheus, for checks to name.", max_length=64, json_schema_extra=MAP_BY_NAME),
    ] = ()
    preflight: Annotated[
        tuple[Gate, ...],
        Field(description="What must hold before the first phase.", max_length=16, json_schema_extra=MAP_BY_NAME),
    ] = ()
    phases: Annotated[
        tuple[Phase, ...],
        Field(description="The programme, in order.", min_length=1, max_length=20, json_schema_extra=MAP_BY_NAME),
    ]
    guards: Annotated[
        tuple[Guard, ...],
        Field(
            description="Judged all the time, from the first phase to the end of the bake.",
            max_length=16,
            json_schema_extra=MAP_BY_NAME,
        ),
    ] = ()
    migrations: Annotated[
        tuple[Migration, ...],
        Field(
            description="For `phases[].migrations` to name; each takes effect once.",
            max_length=16,
            json_schema_extra=MAP_BY_NAME,
        ),
    ] = ()
    rollback: Rollback = Rollback()
    bake: Annotated[Duration, Field(description="How long guards are judged after the last phase before Promoted.")] = "0s"
    windows: Annotated[
        tuple[Window, ...],
        Field(
            description="When steps may be raised; without one, always. Going back waits for none.",
            max_length=14,
            json_schema_extra=ATOMIC,
        ),
    ] = ()
    notifications: Annotated[
        tuple[Notification, ...],
        Field(
            description="Who is told of what.",
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["sink"]},
        ),
    ] = ()
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN

    def feature(self, name: str) -> FeatureSpec | None:
        """The feature of that name."""
        return next((feature for feature in self.features if feature.name == name), None)

    def metric(self, name: str) -> Metric | None:
        """The metric of that name."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def all_gates(self) -> tuple[Gate, ...]:
        """Every gate: before the first phase, after the last step of each phase, and after a rollback."""
        return (*self.preflight, *(gate for phase in self.phases for gate in phase.verification), *self.rollback.verification)


class SessionRollout(Model):
    """One object, as far as the operator reads it."""

    namespace: Text
    name: Text
    uid: Text
    generation: Generation
    spec: RolloutSpec
    status: RolloutStatus
