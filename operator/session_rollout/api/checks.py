"""Criteria and guards of a `SessionRollout.spec` (a metric against one bound), and gates (what must hold once)."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from session_rollout.api.base import ATOMIC, Model, Name, rules
from session_rollout.api.cel import BUDGET, GUARD, RANGE, comparison
from session_rollout.api.quantities import Bound, DurationOrZero, PassShare, Points, Times, Tolerance

_ABOVE = (
    "The value of the metric must be greater than this bound: a number as a string, with an optional unit of %, ms or s,"
    ' such as `"95%"`, `"500ms"` or `"10737418240"`. A percentage is converted to a fraction: `95%` means 0.95.'
    " Mutually exclusive with {excluded}."
)
_BELOW = (
    "The value of the metric must be less than this bound: a number as a string, with an optional unit of %, ms or s,"
    ' such as `"0.1%"`, `"500ms"` or `"1"`. A percentage is converted to a fraction: `0.1%` means 0.001.'
    " Mutually exclusive with {excluded}."
)
_BETWEEN = (
    "The value of the metric must be greater than the first bound and less than the second, such as"
    ' `["80%", "120%"]` or `["1", "500"]`. Both bounds have the same unit. Mutually exclusive with {excluded}.'
)
_FOR = " Time without a verdict of Pass or Fail neither counts nor starts it again. Mutually exclusive with `outOf`."
_MAX_INCREASE = 'Largest rise above the value of `comparedTo` that passes, such as `"5%"`, `"5ms"` or `"0"`.'
_MAX_DECREASE = 'Largest fall below the value of `comparedTo` that passes, such as `"1%"` or `"0.1"`.'
_MIN_INCREASE = 'Smallest rise above the value of `comparedTo` that passes, for a metric that must improve, such as `"1%"`.'
_DIFFERENCE = " Without %, the tolerance is a difference in the unit of the metric. Must not be negative."
_TOLERANCE = (
    " With `comparedTo: Baseline`, % is relative to the baseline; with `comparedTo: Control`, it means percentage points."
    + _DIFFERENCE
)
_TOLERANCE_OF_GUARD = " A tolerance with % is relative to the baseline." + _DIFFERENCE


class ComparedTo(StrEnum):
    """The value that a metric is compared with, instead of a fixed bound."""

    BASELINE = "Baseline"  # The metric before the first step of the phase was published.
    CONTROL = "Control"  # The users who do not have the feature, at the same time.


class OnNoData(StrEnum):
    """Meaning of a query that returns no series or NaN."""

    PAUSE = "Pause"  # Neither a pass nor a failure: the hold timer pauses.
    PASS = "Pass"  # It passes, for a metric that exists only when something is wrong.  # noqa: S105
    FAIL = "Fail"  # It fails, for a metric that always exists, such as traffic.


class Minimum(Model):
    """A metric that says whether there are enough events for a verdict."""

    metric: Annotated[
        Name, Field(description="Name of an entry of `spec.metrics`, such as `requests`, which counts the events.")
    ]
    above: Annotated[
        Bound,
        Field(description='The value of the metric must be greater than this bound, such as `"500"`. Units as in a check.'),
    ]


class Tolerate(Model):
    """The largest rate of bad events (or mean) that is tolerated with a feature: `times` that without it, `plus` percentage points."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.times) || !has(self.plus) || double(self.times) > 0.0 || !self.plus.matches('^0*([.]0*)?%$')",
                "must tolerate something: `times` or `plus` must be greater than 0",
            ),
        ),
    )
    times: Annotated[
        Times,
        Field(
            description='Multiple of the rate without the feature, such as `"1.25"`, which is the default. `"0"` compares with `plus` alone.'
        ),
    ] = "1.25"
    plus: Annotated[
        Points,
        Field(
            description='Percentage points that are added, such as `"0.1%"`, which is the default: 0.001 as a share. If the'
            " metric has `cohorts.sum`, it is a percentage of the mean without the feature."
        ),
    ] = "0.1%"


class Check(Model):
    """A metric that is compared with one bound at every `checkInterval`."""

    model_config = ConfigDict(json_schema_extra=rules(*comparison("`comparedTo: Baseline` or `Control`")))
    name: Annotated[
        Name, Field(description="Name of the check in status, Events and metrics, such as `error-rate`. Unique in its list.")
    ]
    metric: Annotated[Name, Field(description="Name of an entry of `spec.metrics`, which provides the value.")]
    above: Annotated[
        Bound | None,
        Field(description=_ABOVE.format(excluded="`below`, `between`, `maxIncrease`, `maxDecrease` and `minIncrease`")),
    ] = None
    below: Annotated[
        Bound | None,
        Field(description=_BELOW.format(excluded="`above`, `between`, `maxIncrease`, `maxDecrease` and `minIncrease`")),
    ] = None
    between: Annotated[
        tuple[Bound, ...] | None,
        Field(
            description=_BETWEEN.format(excluded="`above`, `below`, `maxIncrease`, `maxDecrease` and `minIncrease`"),
            min_length=2,
            max_length=2,
            json_schema_extra=ATOMIC,
        ),
    ] = None
    compared_to: Annotated[
        ComparedTo | None,
        Field(
            description="Value that the metric is compared with. `Baseline` is the metric before the phase was published;"
            " `Control` is the metric of the users without the feature, and requires a metric with `cohorts`."
            " Requires one of `maxIncrease`, `maxDecrease` and `minIncrease`, unless the metric counts bad events: then `tolerate`"
            " is what is compared with."
        ),
    ] = None
    tolerate: Annotated[
        Tolerate | None,
        Field(
            description="Largest rate of bad events that is tolerated with the feature, for `comparedTo: Control` of a metric whose"
            " `cohorts` has a `feature`. Defaults to 1.25 times the rate without it plus 0.1 percentage points."
        ),
    ] = None
    max_increase: Annotated[Tolerance | None, Field(description=_MAX_INCREASE + _TOLERANCE)] = None
    max_decrease: Annotated[Tolerance | None, Field(description=_MAX_DECREASE + _TOLERANCE)] = None
    min_increase: Annotated[Tolerance | None, Field(description=_MIN_INCREASE + _TOLERANCE)] = None
    minimum: Annotated[
        Minimum | None,
        Field(
            description="Least number of events for a verdict. With fewer, the verdict is Inconclusive, which pauses the hold"
            ' timer, such as `{metric: requests, above: "500"}`. If unset, any number is enough.'
        ),
    ] = None
    on_no_data: Annotated[
        OnNoData,
        Field(
            description="Meaning of a query that returns no series or NaN. `Pause` (default) pauses the hold timer; `Pass` and"
            " `Fail` make it a verdict. It does not apply to a result that is out of date, partial or no single number, nor when"
            " the provider fails or stops responding."
        ),
    ] = OnNoData.PAUSE
    for_: Annotated[
        DurationOrZero,
        Field(
            alias="for",
            description="Time that a failure must last to count, such as `2m`; a shorter one is tolerated, but the step does not"
            " end during it. Defaults to `0s`: every failure counts." + _FOR,
        ),
    ] = "0s"
    out_of: Annotated[
        str | None,
        Field(
            description="The check fails when so many of its last evaluations fail, such as `3/5`: at most 10. An evaluation"
            " without a verdict of Pass or Fail does not count. Mutually exclusive with `for`.",
            pattern=r"^([1-9]|10)/([1-9]|10)$",
            max_length=5,
        ),
    ] = None
    dry_run: Annotated[
        bool,
        Field(
            description="Evaluate the check and show its verdict, but never count it: neither for the hold nor for promotion,"
            " and not as a breach. Defaults to false."
        ),
    ] = False

    @property
    def quota(self) -> tuple[int, int] | None:
        """`outOf` as numbers: how many failures of how many evaluations; None when it is unset."""
        failures, _, evaluations = (self.out_of or "").partition("/")
        return (int(failures), int(evaluations)) if evaluations else None

    @property
    def tolerated(self) -> Tolerate:
        """`tolerate`, or its default."""
        return self.tolerate or Tolerate()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that a verdict needs."""
        return (self.metric,) if self.minimum is None else (self.metric, self.minimum.metric)


class Criterion(Check):
    """A check that must pass before a step ends."""

    pass_share: Annotated[
        PassShare,
        Field(
            description="Share of the hold, without its pauses, in which the criterion must pass, such as `90%`. The hold goes"
            " back from now: while the share is not reached, the step waits. Independently of it, the criterion must pass during the"
            " last 10 intervals of its metric, or the whole hold if that is shorter. A failure that `for` or `outOf` tolerates counts"
            " for neither. Defaults to `95%`."
        ),
    ] = "95%"  # noqa: S105


class OnBreach(StrEnum):
    """Reaction to a breached guard."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"
    WARN = "Warn"


class Guard(Check):
    """A check that is evaluated from the first phase until the rollout is promoted."""

    model_config = ConfigDict(json_schema_extra=rules(*comparison("`comparedTo: Baseline`"), GUARD, BUDGET))
    compared_to: Annotated[
        ComparedTo | None,
        Field(
            description="Value that the metric is compared with. `Baseline` is the metric before the phase was published, and requires"
            " one of `maxIncrease`, `maxDecrease` and `minIncrease`. `Control` is the metric of the users without the feature, and"
            " requires a metric whose `cohorts` has a `feature`. While nobody or everybody has that feature, there is nothing to"
            " compare, and the guard passes: keep guards on all users as well."
        ),
    ] = None
    max_increase: Annotated[Tolerance | None, Field(description=_MAX_INCREASE + _TOLERANCE_OF_GUARD)] = None
    max_decrease: Annotated[Tolerance | None, Field(description=_MAX_DECREASE + _TOLERANCE_OF_GUARD)] = None
    min_increase: Annotated[Tolerance | None, Field(description=_MIN_INCREASE + _TOLERANCE_OF_GUARD)] = None
    for_: Annotated[
        DurationOrZero,
        Field(
            alias="for",
            description="Time for which the breach must last before the guard reacts, such as `2m`."
            " Defaults to `0s`: the guard reacts to the first failed evaluation." + _FOR,
        ),
    ] = "0s"
    harm_budget: Annotated[
        int | None,
        Field(
            description="Bad events with the feature beyond those expected without it, such as `100`, from which on the guard fails, once it"
            " is shown that the feature causes some. It ends a harm that `tolerate` of another guard allows for long. Requires"
            " `comparedTo: Control`.",
            ge=1,
            le=1_000_000_000,
            json_schema_extra={"format": "int32"},
        ),
    ] = None
    on_breach: Annotated[
        OnBreach,
        Field(
            description="Reaction to a breach. `Rollback` (default) starts a rollback; `Pause` keeps the audience until a"
            " `Resume` action; `Warn` only emits the `GuardBreached` Event."
        ),
    ] = OnBreach.ROLLBACK


class Approval(Model):
    """Requires manual approval: an `Approve` action that names this gate in `check`."""


class HttpCheck(Model):
    """A GET request to a Service in the namespace of the rollout. Redirects are not followed."""

    service: Annotated[
        Name,
        Field(
            description="Name of a Service in the namespace of the rollout. It must have a `selector` and must not have the type"
            " `ExternalName`. The operator derives the address from `serviceAddress` in its configuration."
        ),
    ]
    port: Annotated[
        int,
        Field(
            description="Port of the Service, from 1 to 65535. Defaults to 80.",
            ge=1,
            le=65535,
            json_schema_extra={"format": "int32"},
        ),
    ] = 80
    path: Annotated[
        str,
        Field(
            description="Path of the request, with an optional query, such as `/health?deep=1`. Defaults to `/`.",
            pattern=r"^/[A-Za-z0-9._~/%?&=+-]{0,255}$",
            max_length=256,
        ),
    ] = "/"
    expect_status: Annotated[
        int,
        Field(
            description="HTTP status code of the response that passes; any other fails. Defaults to 200.",
            ge=100,
            le=599,
            json_schema_extra={"format": "int32"},
        ),
    ] = 200


class JobCheck(Model):
    """A Job created from an entry of `checks` in the operator's configuration, which sets its image, command and timeout."""

    profile: Annotated[
        Name,
        Field(
            description="Name of an entry of `checks` in the operator's configuration, such as `smoke-tests`. It is not a name from"
            " `profiles`, which contains settings of migration Jobs."
        ),
    ]


class Builtin(StrEnum):
    """A gate that is built into the operator."""

    FLAG_STORE = "FlagStore"  # the flag document can be written and read back
    MIGRATIONS = "Migrations"  # no migration has failed, and pending ones can be read
    METRICS = "Metrics"  # every metric of the spec returns a number
    ALERTS = "Alerts"  # Prometheus has loaded the alert rules that the configuration names
    ROLLBACK = "Rollback"  # the operator can do what `rollback` requires
    HEALTH = "Health"  # the workload is available
    CAPACITY = "Capacity"  # the results of the diagnostics topic `capacity` are within their bounds
    CACHE = "Cache"


class Gate(Model):
    """A check that must pass once: a metric within a bound, an HTTP response, a Job, an approval, or a built-in gate."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.metric), has(self.http), has(self.job), has(self.approval), has(self.builtin)]"
                ".filter(x, x).size() == 1",
                "must have exactly one of `metric`, `http`, `job`, `approval` and `builtin`",
            ),
            (
                "[has(self.above), has(self.below), has(self.between)].filter(x, x).size() == (has(self.metric) ? 1 : 0)",
                "a gate with `metric` must have exactly one of `above`, `below` and `between`, and any other gate none",
            ),
            RANGE,
        ),
    )
    name: Annotated[
        Name,
        Field(description="Name of the gate in status, Events and the field `check` of actions, such as `smoke-tests`."),
    ]
    metric: Annotated[
        Name | None,
        Field(
            description="Name of an entry of `spec.metrics`, which provides the value. Requires `above`, `below` or `between`."
            " Mutually exclusive with `http`, `job`, `approval` and `builtin`."
        ),
    ] = None
    above: Annotated[
        Bound | None, Field(description=_ABOVE.format(excluded="`below` and `between`") + " Requires `metric`.")
    ] = None
    below: Annotated[
        Bound | None, Field(description=_BELOW.format(excluded="`above` and `between`") + " Requires `metric`.")
    ] = None
    between: Annotated[
        tuple[Bound, ...] | None,
        Field(
            description=_BETWEEN.format(excluded="`above` and `below`") + " Requires `metric`.",
            min_length=2,
            max_length=2,
            json_schema_extra=ATOMIC,
        ),
    ] = None
    http: Annotated[
        HttpCheck | None,
        Field(
            description="A GET request to a Service in the namespace of the rollout."
            " Mutually exclusive with `metric`, `job`, `approval` and `builtin`."
        ),
    ] = None
    job: Annotated[
        JobCheck | None,
        Field(
            description="A Job that must succeed, created from an entry of `checks` in the operator's configuration."
            " Mutually exclusive with `metric`, `http`, `approval` and `builtin`."
        ),
    ] = None
    approval: Annotated[
        Approval | None,
        Field(
            description="Requires manual approval by an `Approve` action with this gate's name in `check`. Write it as"
            " `approval: {}`. Mutually exclusive with `metric`, `http`, `job` and `builtin`."
        ),
    ] = None
    builtin: Annotated[
        Builtin | None,
        Field(
            description="A built-in gate: `FlagStore` (the flag document can be written and read back), `Migrations`"
            " (none has failed), `Metrics` (every metric that has a `query` returns a number), `Alerts` (Prometheus has loaded the"
            " configured alert rules), `Rollback` (the operator can do what `rollback` requires), `Health` (the workload is"
            " available), `Capacity` and `Cache` (the results of the diagnostics topic `capacity` or `cache` are within their bounds)."
            " Mutually exclusive with `metric`, `http`, `job` and `approval`."
        ),
    ] = None
