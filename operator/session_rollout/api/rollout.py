"""`SessionRollout.spec`: the rollout as platform teams write it.

The models are the source of `crds/*.yaml` (see `tools.crds`). The API server rejects an invalid object by the schema
below or by a CEL rule. The values of `max_length` keep the estimated cost of CEL within the API server's budget.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from session_rollout.api.base import ATOMIC, MAP_BY_NAME, SET, Feature, Generation, Model, Name, Text, rules
from session_rollout.api.cel import ROLLOUT
from session_rollout.api.checks import Check, Gate, Guard
from session_rollout.api.enums import EventReason
from session_rollout.api.metrics import Control, Metric
from session_rollout.api.migration import Database, Migration
from session_rollout.api.phases import Phase
from session_rollout.api.quantities import Duration, DurationOrZero, duration
from session_rollout.api.rollback import Rollback
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import Time


class OnOff(StrEnum):
    """Value of a feature before its phase begins."""

    ON = "On"
    OFF = "Off"


class FeatureSpec(Model):
    """A feature: one boolean flag of the flag document."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!self.name.startsWith('sessionrollout-')",
                "`name` must not begin with `sessionrollout-`, as the operator's own flags do",
            ),
        ),
    )
    name: Annotated[
        Feature, Field(description="Name of the feature, which is its key in the flag document, such as `offlineMode`.")
    ]
    initial: Annotated[
        OnOff,
        Field(
            description="Value for all users before the phase of the feature begins. `Off` (default); `On` requires a phase"
            " whose first step is `percent: 100`. It cannot be changed to `On` later: only a phase gives users what they do not have."
        ),
    ] = OnOff.OFF
    depends_on: Annotated[
        tuple[Feature, ...],
        Field(
            description="Features that must be enabled for every user of this feature. They must be in the same phase or an"
            " earlier one. When one is disabled in an emergency, this feature is disabled too.",
            max_length=4,
            json_schema_extra=SET,
        ),
    ] = ()

    retired: Annotated[
        bool,
        Field(
            description="Takes a feature of a promoted phase out of the plan: remove it from its phase at the same time. Users keep what"
            " they have. Remove the entry when no application reads the flag. Defaults to false."
        ),
    ] = False


class Workload(Model):
    """The workload of the application. It must be available before the first phase."""

    kind: Annotated[
        Literal["Deployment"], Field(description="Kind of the workload. Only `Deployment`, the default, is supported.")
    ] = "Deployment"
    name: Annotated[Name, Field(description="Name of the workload in the namespace of the rollout.")]


class Day(StrEnum):
    """A day of the week."""

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
    """A time window in which the rollout may advance. Rollbacks ignore windows."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.from < self.to", "`to` must be later than `from` on the same day", "self.from + ' to ' + self.to"),
        ),
    )
    days: Annotated[
        tuple[Day, ...],
        Field(
            description="Days of the week on which the window is open, such as `[Mon, Tue]`.",
            min_length=1,
            max_length=7,
            json_schema_extra=SET,
        ),
    ]
    from_: Annotated[
        TimeOfDay,
        Field(
            description='Time of day at which the window opens, in `timeZone`, such as `"09:00"`. Quote it: YAML reads some times'
            " as numbers.",
            alias="from",
        ),
    ]
    to: Annotated[
        TimeOfDay,
        Field(
            description='Time of day at which the window closes, in `timeZone`, such as `"16:00"`. Must be later than `from`.'
        ),
    ]
    time_zone: Annotated[
        str,
        Field(
            description="Name from the IANA time zone database, such as `Europe/Berlin`. Defaults to `UTC`.",
            pattern=r"^[A-Za-z0-9_+/-]+$",
            max_length=64,
        ),
    ] = "UTC"


class DeletionPolicy(StrEnum):
    """Treatment of the flag document when the SessionRollout is deleted."""

    RETAIN = "Retain"
    OFF = "Off"


class Notification(Model):
    """Events to send, and the sink to send them to. Sinks are configured by the cluster administrator."""

    sink: Annotated[Name, Field(description="Name of an entry of `sinks` in the operator's configuration, such as `chat`.")]
    # Not `on`: YAML reads that as `true`.
    events: Annotated[
        tuple[EventReason, ...],
        Field(
            description="Reasons of the events to send, such as `[Promoted, RolledBack, Stalled]`.",
            min_length=1,
            max_length=16,
            json_schema_extra=SET,
        ),
    ]


class RolloutSpec(Model):
    """Desired rollout: features, phases, criteria, guards and migrations."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        json_schema_extra=rules(*ROLLOUT),
    )
    flag_set: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([-a-z0-9]{0,55}[a-z0-9])?$",
            max_length=57,
            description="Name of the flag document and seed of the hash that selects users, such as `shop`. The document is"
            " published in the ConfigMap with this name and the suffix `-flags`. Immutable once the rollout has published, because changing it would assign"
            " users to different buckets.",
        ),
    ]
    suspend: Annotated[
        bool,
        Field(
            description="Keep the rollout as it is: it neither advances nor rolls back. While suspended, the rollout rejects all"
            " actions except `EmergencyDisable`, `EmergencyEnable`, `Verify`, `Diagnose` and `InspectMigration`. Defaults to false."
        ),
    ] = False
    prometheus: Annotated[
        Name,
        Field(
            description="Name of an entry of `prometheus` in the operator's configuration. It is never a URL. Defaults to `default`."
        ),
    ] = "default"
    check_interval: Annotated[
        Duration,
        Field(
            description="Interval at which criteria and guards are evaluated, such as `30s`; at least `1s`. Defaults to `30s`."
        ),
    ] = "30s"
    propagation: Annotated[
        DurationOrZero,
        Field(
            description="Time after a document is published until all Pods of the application use it, such as `2m`. The warm-up begins"
            " after it. Defaults to `2m`: the kubelet updates a mounted ConfigMap within about 90 s."
        ),
    ] = "2m"
    control: Annotated[
        Control,
        Field(
            description="Settings of the comparison of users with a feature and users without it, for checks with `comparedTo: Control`."
        ),
    ] = Control()
    workload: Annotated[
        Workload | None,
        Field(
            description="Workload of the application. If set, it must be available before the first phase. Required by"
            " `rollback.workload: Undo` and by the `RestartWorkload` and `UndoWorkload` actions."
        ),
    ] = None
    database: Annotated[
        Database | None,
        Field(description="Database of the migrations, and the profile that their Jobs run with. Required by `migrations`."),
    ] = None
    features: Annotated[
        tuple[FeatureSpec, ...],
        Field(
            description="Features of the rollout. Each one is a boolean flag of the flag document.",
            min_length=1,
            max_length=40,
            json_schema_extra=MAP_BY_NAME,
        ),
    ]
    metrics: Annotated[
        tuple[Metric, ...],
        Field(
            description="PromQL queries that criteria, guards and gates refer to by name.",
            max_length=64,
            json_schema_extra=MAP_BY_NAME,
        ),
    ] = ()
    preflight: Annotated[
        tuple[Gate, ...],
        Field(
            description="Gates that must pass before the first phase begins.",
            max_length=16,
            json_schema_extra=MAP_BY_NAME,
        ),
    ] = ()
    phases: Annotated[
        tuple[Phase, ...],
        Field(
            description="Phases of the rollout. They run one after the other, in the order of this list.",
            min_length=1,
            max_length=20,
            json_schema_extra=MAP_BY_NAME,
        ),
    ]
    guards: Annotated[
        tuple[Guard, ...],
        Field(
            description="Checks that are evaluated from the first phase until the rollout is promoted. A breach starts a rollback, pauses"
            " the rollout or emits a warning, as `onBreach` specifies.",
            max_length=16,
            json_schema_extra=MAP_BY_NAME,
        ),
    ] = ()
    migrations: Annotated[
        tuple[Migration, ...],
        Field(
            description="Database migrations that `phases[].migrations` refers to by name. Each one is applied once.",
            max_length=16,
            json_schema_extra=MAP_BY_NAME,
        ),
    ] = ()
    rollback: Annotated[
        Rollback,
        Field(
            description="Extent of a rollback. By default, the features of the running phase are turned off, and migrations,"
            " data and workload are kept."
        ),
    ] = Rollback()
    bake: Annotated[
        DurationOrZero,
        Field(
            description="Time after the last phase before the rollout is Promoted. Guards are still evaluated during this time. For example,"
            " `1d`. Defaults to `0s`: no additional time."
        ),
    ] = "0s"
    windows: Annotated[
        tuple[Window, ...],
        Field(
            description="Time windows in which the rollout may advance. If empty (default), it may always advance. Rollbacks ignore windows.",
            max_length=14,
            json_schema_extra=ATOMIC,
        ),
    ] = ()
    notifications: Annotated[
        tuple[Notification, ...],
        Field(
            description="Events to send, and the sinks to send them to. Sinks are configured by the cluster administrator.",
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["sink"]},
        ),
    ] = ()
    deletion_policy: Annotated[
        DeletionPolicy,
        Field(
            description="Treatment of the flag document when this object is deleted. `Retain` (default) keeps it as it is; `Off`"
            " turns all features off and keeps the document."
        ),
    ] = DeletionPolicy.RETAIN

    def feature(self, name: str) -> FeatureSpec | None:
        """The feature of that name."""
        return next((feature for feature in self.features if feature.name == name), None)

    def metric(self, name: str) -> Metric | None:
        """The metric of that name."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def interval_of(self, name: str) -> timedelta:
        """How often a metric is queried: never more often than `checkInterval`."""
        metric, shortest = self.metric(name), duration(self.check_interval)
        return max(duration(metric.interval), shortest) if metric is not None and metric.interval else shortest

    def all_checks(self) -> tuple[Check, ...]:
        """Every guard, and the criteria of each phase."""
        return (*self.guards, *(criterion for phase in self.phases for criterion in phase.criteria))

    def all_gates(self) -> tuple[Gate, ...]:
        """Every gate: before the first phase, after the last step of each phase, and after a rollback."""
        return (*self.preflight, *(gate for phase in self.phases for gate in phase.verification), *self.rollback.verification)


class SessionRollout(Model):
    """A SessionRollout object with the fields that the operator reads."""

    namespace: Text
    name: Text
    uid: Text
    generation: Generation
    spec: RolloutSpec
    status: RolloutStatus
    creation_time: Time | None = None  # None in a record of an older version
