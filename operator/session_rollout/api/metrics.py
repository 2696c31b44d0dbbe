"""Metrics of a `SessionRollout.spec`: PromQL queries, and counters of events, by cohort or of all users."""

from decimal import Decimal
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from session_rollout.api.base import Feature, Model, Name, rules
from session_rollout.api.quantities import Duration, DurationOrZero, Holdback, Probability, SeasonLength, SeasonWindow

SEASONS_NEEDED: Final = 2  # fewer have no median that a single odd one does not decide
_COUNTER: Final = " A selector without the labels `variant` and `cell`, by which the operator groups: see instrumentation in the documentation."
_ALL_USERS: Final = " A selector without the label `cell`, by which the operator groups where it exists."


class Cohorts(Model):
    """How events of users with the feature and of users without it are counted: two counters, a histogram, a sum, or two queries."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.good), has(self.bad), has(self.histogram), has(self.sum)].filter(x, x).size() == 1",
                "must have exactly one of `bad` (with `total`), `histogram` (with `over`), `sum` (with `count`) and `good` (with `total`)",
            ),
            (
                "has(self.total) == (has(self.bad) || has(self.good))",
                "`total` is required by `bad` and `good`, and excluded by `histogram` and `sum`",
            ),
            ("has(self.count) == has(self.sum)", "`count` and `sum` require each other"),
            ("has(self.over) == has(self.histogram)", "`over` and `histogram` require each other"),
            (
                "has(self.feature) != has(self.good)",
                "`feature` is required by `bad`, `histogram` and `sum`, and excluded by `good`",
            ),
            (
                "!has(self.good) || !has(self.total) || (self.good.contains('$cohort') && self.total.contains('$cohort'))",
                "`good` and `total` must both contain the placeholder `$cohort`",
            ),
        ),
    )
    feature: Annotated[
        Feature | None,
        Field(
            description="Feature whose users are compared with those without it: the one whose variant is in the label `variant`."
            " Required by `bad`, `histogram` and `sum`."
        ),
    ] = None
    bad: Annotated[
        str | None,
        Field(
            description='Counter of bad events, such as `sessions_total{result="failure"}`.' + _COUNTER,
            min_length=1,
            max_length=1024,
        ),
    ] = None
    total: Annotated[
        str | None,
        Field(
            description="With `bad`, the counter of all events, such as `sessions_total`. With `good`, a PromQL query that counts all"
            ' events and contains `$cohort`, such as `sum(increase(orders_total{variant="$cohort"}[1h]))`.',
            min_length=1,
            max_length=2048,
        ),
    ] = None
    histogram: Annotated[
        str | None,
        Field(
            description="Classic histogram, such as `page_load_seconds`: observations over `over` are bad events." + _COUNTER,
            min_length=1,
            max_length=1024,
        ),
    ] = None
    over: Annotated[
        Duration | None,
        Field(description="Upper bound of a bucket of the histogram, such as `500ms`: what takes longer is bad."),
    ] = None
    sum: Annotated[
        str | None,
        Field(
            description="Counter that sums up values of events, such as `page_load_seconds_sum`, of which the mean is compared. Requires"
            " the label `cell`. Prefer `histogram`: a share of slow events shows what a mean hides." + _COUNTER,
            min_length=1,
            max_length=1024,
        ),
    ] = None
    count: Annotated[
        str | None,
        Field(
            description="Counter of the events in `sum`, such as `page_load_seconds_count`. Required by `sum`." + _COUNTER,
            min_length=1,
            max_length=1024,
        ),
    ] = None
    good: Annotated[
        str | None,
        Field(
            description="PromQL query that counts good events. Must contain `$cohort`, which the operator replaces with `on` and"
            ' with `off`, such as `sum(increase(orders_total{result="ok", variant="$cohort"}[1h]))`. Its confidence interval is that of'
            " one look: prefer `bad`, whose evidence holds however often it is read.",
            min_length=1,
            max_length=2048,
        ),
    ] = None


class SeasonalBaseline(Model):
    """Which earlier times a metric is compared with, for checks with `comparedTo: Baseline`."""

    season: Annotated[
        SeasonLength,
        Field(
            description="Period after which the metric repeats itself, from `1h` to `31d`. Defaults to `7d`: the same time of the week."
        ),
    ] = "7d"
    count: Annotated[
        int,
        Field(
            description="Number of earlier seasons whose median is the baseline, from 0 to 4. With fewer than 2, no season is read, and"
            " the baseline is one value from before the phase. Defaults to 3.",
            ge=0,
            le=4,
            json_schema_extra={"format": "int32"},
        ),
    ] = 3
    window: Annotated[
        SeasonWindow,
        Field(
            description="Time whose mean is compared, from `1m` to `1h`: of the value and of each season. The warm-up after a publish"
            " waits for it in addition. Defaults to `30m`."
        ),
    ] = "30m"


class EventCounts(Model):
    """How bad events and all events are counted, whoever has the feature: two counters, or a histogram."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.bad) != has(self.histogram)",
                "must have exactly one of `bad` (with `total`) and `histogram` (with `over`)",
            ),
            ("has(self.total) != has(self.histogram)", "`total` is required by `bad`, and excluded by `histogram`"),
            ("has(self.over) == has(self.histogram)", "`over` and `histogram` require each other"),
        ),
    )
    bad: Annotated[
        str | None,
        Field(
            description='Counter of bad events, such as `sessions_total{result="failure"}`.' + _ALL_USERS,
            min_length=1,
            max_length=1024,
        ),
    ] = None
    total: Annotated[
        str | None,
        Field(
            description="Counter of all events, such as `sessions_total`. Required by `bad`." + _ALL_USERS,
            min_length=1,
            max_length=1024,
        ),
    ] = None
    histogram: Annotated[
        str | None,
        Field(
            description="Classic histogram, such as `page_load_seconds`: observations over `over` are bad events." + _ALL_USERS,
            min_length=1,
            max_length=1024,
        ),
    ] = None
    over: Annotated[
        Duration | None,
        Field(description="Upper bound of a bucket of the histogram, such as `500ms`: what takes longer is bad."),
    ] = None


DEFAULT_BASELINE: Final = SeasonalBaseline()


class Metric(Model):
    """A named PromQL query that criteria, guards and gates refer to, whose result must be one number; or counters of events."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.query), has(self.cohorts), has(self.counts)].filter(x, x).size() == 1",
                "must have exactly one of `query`, `cohorts` and `counts`",
            ),
            ("!has(self.baseline) || has(self.query)", "`baseline` requires `query`"),
        ),
    )
    name: Annotated[Name, Field(description="Name of the metric in criteria, guards and gates, such as `error-rate`.")]
    query: Annotated[
        str | None,
        Field(
            description="PromQL query that returns one scalar or one series, such as `job:http_errors:ratio_rate5m`."
            " Mutually exclusive with `cohorts` and `counts`.",
            min_length=1,
            max_length=2048,
        ),
    ] = None
    cohorts: Annotated[
        Cohorts | None,
        Field(
            description="Counters or queries of events of users with the feature and of those without it, for checks with"
            " `comparedTo: Control`. Mutually exclusive with `query` and `counts`."
        ),
    ] = None
    counts: Annotated[
        EventCounts | None,
        Field(
            description="Counters of events of all users, for checks with `below`: the check fails when so many events are bad that"
            " chance does not explain it, and a criterion passes when the events show that the rate is lower. Mutually exclusive with"
            " `query` and `cohorts`."
        ),
    ] = None
    window: Annotated[
        Duration | None,
        Field(
            description="Time that one sample of the series in the query covers, such as `5m` for a recording rule over `[5m]`. The"
            " warm-up after a publish waits for it in addition to the ranges in the query. If unset, these and Prometheus' look-back of"
            " 5 minutes count."
        ),
    ] = None
    interval: Annotated[
        Duration | None,
        Field(
            description="Interval at which the metric is queried, such as `5m`, for an expensive query. Defaults to `checkInterval`,"
            " which is also the shortest."
        ),
    ] = None
    baseline: Annotated[
        SeasonalBaseline | None,
        Field(
            description="Earlier times that checks with `comparedTo: Baseline` compare the metric with. Defaults to the median of the"
            " same half hour in three weeks before the phase. With fewer than two such weeks of samples, it is one value from before"
            " the phase. Requires `query`."
        ),
    ] = None

    @property
    def seasonal(self) -> SeasonalBaseline | None:
        """The seasons that it can be compared with; None if that is switched off, or it has no single value."""
        known = self.baseline or DEFAULT_BASELINE
        return known if self.query is not None and known.count >= SEASONS_NEEDED else None

    @property
    def is_mean(self) -> bool:
        """Whether it compares means of values, and not shares of bad events."""
        return self.cohorts is not None and self.cohorts.sum is not None

    @property
    def counted(self) -> Cohorts | EventCounts | None:
        """Its counters, if the operator counts events by blocks of time; None if it sends queries of the user."""
        return self.cohorts if self.cohorts is not None and self.cohorts.good is None else self.counts


class Exposure(Model):
    """Conditions under which users count as having received a feature. The hold begins after that."""

    min_events: Annotated[
        int,
        Field(
            description="Events with the feature since its audience was published, from which on comparisons are evaluated and the"
            " hold begins. Defaults to 100.",
            ge=1,
            le=1_000_000,
            json_schema_extra={"format": "int32"},
        ),
    ] = 100
    deadline: Annotated[
        Duration,
        Field(
            description="Time after which the rollout is stalled if users have not received the feature. Defaults to `24h`.",
        ),
    ] = "24h"


class Control(Model):
    """How users with a feature are compared with those without it."""

    false_rollback: Annotated[
        Probability,
        Field(
            description="Largest probability that guards with `comparedTo: Control` roll a harmless rollout back, whatever they see and"
            " however often it is read. It is divided among them. Defaults to `1%`."
        ),
    ] = "1%"
    block: Annotated[
        Duration | None,
        Field(
            description="Length of the periods in which events are counted; at least 5 scrape intervals. Defaults to `1m`, or 5 scrape"
            " intervals if that is longer."
        ),
    ] = None
    lag: Annotated[
        DurationOrZero,
        Field(
            description="Time after a block until Prometheus has all of its events. Defaults to `1m`; a scrape interval is the least."
        ),
    ] = "1m"
    holdback: Annotated[
        Holdback,
        Field(
            description="Percentage of users who get no feature in any phase, whatever their groups, from `0%` to `20%`, such as `2%`. They"
            " are always the same users, and are what the others are compared with when a step has `percent: 100`. After the bake they get"
            " the features, too, while guards are still evaluated. Excludes `initial: On` and migrations with `change: Contract`. Cannot be"
            " changed while users have a feature of a phase that is not promoted. Defaults to `0%`: nobody is held back."
        ),
    ] = "0%"
    exposure: Annotated[
        Exposure,
        Field(
            description="Conditions under which users count as having received a feature, by the counters that are compared."
        ),
    ] = Exposure()

    @property
    def held_back(self) -> Decimal:
        """The percentage of users who get the features last; 0 if nobody is held back."""
        return Decimal(self.holdback.removesuffix("%"))


DEFAULT_CONTROL: Final = Control()
