"""`SessionRollout.spec`: the programme as platform teams write it.

The models are the source of `crds/*.yaml` (see `api.crds`). What a single object can get wrong is refused by the API
server: by the schema below or by a CEL rule beside the field it speaks of. Field meaning follows the API page of the
documentation; numbers in `max_length` are the bounds that keep CEL inside the API server's cost budget.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from session_rollout.api.base import ATOMIC, MAP_BY_NAME, SET, Feature, Generation, Model, Name, Text, rules
from session_rollout.api.cel import AUDIENCES, PROGRAMME
from session_rollout.api.checks import Check, Gate, Guard
from session_rollout.api.quantities import Duration, Percent
from session_rollout.api.reasons import EventReason
from session_rollout.api.status import RolloutStatus


class OnOff(StrEnum):
    """Value of a feature before its phase begins."""

    ON = "On"
    OFF = "Off"


class FeatureSpec(Model):
    """One switch of the flag document."""

    name: Feature
    initial: OnOff = OnOff.OFF
    depends_on: Annotated[tuple[Feature, ...], Field(max_length=4, json_schema_extra=SET)] = ()


class Cohorts(Model):
    """Two queries with the placeholder `$cohort`, asked once with `on` and once with `off`: good events of all events."""

    good: Annotated[str, Field(min_length=1, max_length=2048)]
    total: Annotated[str, Field(min_length=1, max_length=2048)]


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
    name: Name
    query: Annotated[str | None, Field(min_length=1, max_length=2048)] = None
    cohorts: Cohorts | None = None


class Ramp(Model):
    """A climb from the percentage before it to `to`, in equal increments over a time."""

    to: Percent
    over: Duration
    increments: Annotated[int, Field(ge=1, le=100, json_schema_extra={"format": "int32"})]


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
    percent: Percent | None = None
    ramp: Ramp | None = None
    groups: Annotated[tuple[Name, ...], Field(max_length=8, json_schema_extra=SET)] = ()
    hold: Duration | None = None
    approval: StepApproval = StepApproval.NOT_REQUIRED


class PhaseMigrations(Model):
    """Names of migrations to run before the first step and after the last."""

    before: Annotated[tuple[Name, ...], Field(max_length=8, json_schema_extra=ATOMIC)] = ()
    after: Annotated[tuple[Name, ...], Field(max_length=8, json_schema_extra=ATOMIC)] = ()


class OnDeadline(StrEnum):
    """What a phase does when its criteria kept it longer than `deadline`."""

    STALL = "Stall"
    ROLLBACK = "Rollback"


class Phase(Model):
    """An ordered part of the programme with its own features, migrations, steps and criteria."""

    model_config = ConfigDict(
        json_schema_extra=rules(*AUDIENCES),
    )
    name: Name
    features: Annotated[tuple[Feature, ...], Field(min_length=1, max_length=16, json_schema_extra=SET)]
    migrations: PhaseMigrations = PhaseMigrations()
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=16, json_schema_extra=ATOMIC)]
    criteria: Annotated[tuple[Check, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    deadline: Annotated[Duration | None, Field(description="How long criteria may keep a step beyond its planned hold.")] = None
    on_deadline: OnDeadline = OnDeadline.STALL
    verification: Annotated[tuple[Gate, ...], Field(max_length=16, json_schema_extra=MAP_BY_NAME)] = ()


class ConfigMapRef(Model):
    """A ConfigMap of the same namespace with files `0001_x.up.sql` and `0001_x.down.sql`."""

    name: Name


class Change(StrEnum):
    """What a migration does to what the running version needs; its bundle is held to that."""

    EXPAND = "Expand"  # adds beside what is there
    MIGRATE = "Migrate"  # moves data into what was added
    CONTRACT = "Contract"  # takes away what nobody needs any more


class Migration(Model):
    """A bundle that takes effect once: steps of SQL, or rows that are moved."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.bundle) != has(self.configMapRef)", "must have exactly one of `bundle` and `configMapRef`"),
        ),
    )
    name: Name
    bundle: Annotated[str | None, Field(pattern=r"^[a-z0-9-]{1,60}/[a-z0-9-]{1,60}$", max_length=121)] = None
    config_map_ref: ConfigMapRef | None = None
    change: Annotated[Change, Field(description="Only a Contract migration may drop, rename or delete.")] = Change.EXPAND
    backup: Annotated[
        bool, Field(description="Take a snapshot of its tables before its phase is published; of a bundle that moves rows.")
    ] = False
    point_of_no_return: Annotated[
        int | None,
        Field(
            ge=1,
            le=9999,
            json_schema_extra={"format": "int32"},
            description="Number of the first step that cannot be undone; announced in status before it is passed.",
        ),
    ] = None


class SecretRef(Model):
    """A key of a Secret of the same namespace; it is mounted into the Job, the operator never reads it."""

    name: Name
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = "url"


class Database(Model):
    """Where migrations run, and under which profile of the operator's configuration."""

    profile: Name = "default"
    secret_ref: SecretRef
    data_secret_ref: Annotated[
        SecretRef | None, Field(description="Connection string of the role that moves rows, where another one defines tables.")
    ] = None


class Workload(Model):
    """The application: it must be available before the first phase."""

    kind: Literal["Deployment"] = "Deployment"
    name: Name


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
    restore_sessions: Annotated[bool, Field(description="Merge the snapshot back: what users have written since is kept.")] = (
        False
    )
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


TimeOfDay = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", max_length=5)]


class Window(Model):
    """When promotion is allowed; rollback never waits for one."""

    model_config = ConfigDict(
        json_schema_extra=rules(("self.from < self.to", "`to` must be later than `from` on the same day")),
    )
    days: Annotated[tuple[Day, ...], Field(min_length=1, max_length=7, json_schema_extra=SET)]
    from_: Annotated[TimeOfDay, Field(alias="from")]
    to: TimeOfDay
    time_zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+/-]+$", max_length=64)] = "UTC"


class DeletionPolicy(StrEnum):
    """What happens to the flag document when the object is deleted."""

    RETAIN = "Retain"
    OFF = "Off"


class Notification(Model):
    """Who is told of what; where a sink leads is the admin's to say."""

    sink: Name
    # Not `on`: YAML reads that as `true`.
    events: Annotated[tuple[EventReason, ...], Field(min_length=1, max_length=16, json_schema_extra=SET)]


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
    check_interval: Duration = "30s"
    workload: Workload | None = None
    database: Database | None = None
    features: Annotated[tuple[FeatureSpec, ...], Field(min_length=1, max_length=40, json_schema_extra=MAP_BY_NAME)]
    metrics: Annotated[tuple[Metric, ...], Field(max_length=64, json_schema_extra=MAP_BY_NAME)] = ()
    preflight: Annotated[tuple[Gate, ...], Field(max_length=16, json_schema_extra=MAP_BY_NAME)] = ()
    phases: Annotated[tuple[Phase, ...], Field(min_length=1, max_length=20, json_schema_extra=MAP_BY_NAME)]
    guards: Annotated[tuple[Guard, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    migrations: Annotated[tuple[Migration, ...], Field(max_length=16, json_schema_extra=MAP_BY_NAME)] = ()
    rollback: Rollback = Rollback()
    bake: Annotated[Duration, Field(description="How long guards are judged after the last phase before Promoted.")] = "0s"
    windows: Annotated[tuple[Window, ...], Field(max_length=14, json_schema_extra=ATOMIC)] = ()
    notifications: Annotated[tuple[Notification, ...], Field(max_length=8, json_schema_extra=ATOMIC)] = ()
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN

    def feature(self, name: str) -> FeatureSpec | None:
        """The feature of that name."""
        return next((feature for feature in self.features if feature.name == name), None)

    def metric(self, name: str) -> Metric | None:
        """The metric of that name."""
        return next((metric for metric in self.metrics if metric.name == name), None)


class SessionRollout(Model):
    """One object, as far as the operator reads it."""

    namespace: Text
    name: Text
    uid: Text
    generation: Generation
    spec: RolloutSpec
    status: RolloutStatus
