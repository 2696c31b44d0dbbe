"""Invalid fields of metrics that count the events of all users, and of their checks, in the form of `api.invalid`; and valid ones."""

import copy

from api.corpus import Mistake, Object, both, drop, put

METRIC, GUARD, CRITERION = "metrics.1", "guards.0", "phases.1.criteria.2"
COUNTS = {"bad": 'sessions_total{result="failure"}', "total": "sessions_total"}
CHECK = {"name": "recovery", "metric": "recovery", "below": "0.5%"}
ONE_OF = "exactly one of `bad` (with `total`) and `histogram` (with `over`)"
BELOW = "must have `below` between 0% and 100%"


def counted(spec: Object) -> None:
    """Judge the events of all users, by a guard and by a criterion."""
    for path, value in ((METRIC, {"name": "recovery", "counts": COUNTS}), (GUARD, CHECK), (CRITERION, CHECK)):
        put(path, copy.deepcopy(value))(spec)


BAD_COUNTS: list[tuple[str, Mistake, tuple[str, ...]]] = [
    (name, both(counted, mistake), words)
    for name, mistake, words in (
        ("counts and a query", put(f"{METRIC}.query", "up"), ("metrics[1]", "exactly one of `query`, `cohorts` and `counts`")),
        ("counts of nothing", put(f"{METRIC}.counts", {}), ("metrics[1].counts", ONE_OF)),
        ("counts without all events", drop(f"{METRIC}.counts.total"), ("metrics[1].counts", "`total` is required by `bad`")),
        ("counts of two kinds", put(f"{METRIC}.counts.histogram", "load_seconds"), ("metrics[1].counts", ONE_OF)),
        ("counts of a feature", put(f"{METRIC}.counts.feature", "beta"), ("metrics[1].counts.feature", "unknown field")),
        ("counts over a bound", put(f"{METRIC}.counts.over", "1s"), ("metrics[1].counts", "`over` and `histogram`")),
        ("counts in seasons", put(f"{METRIC}.baseline", {}), ("metrics[1]", "`baseline` requires `query`")),
        ("share without a unit", put(f"{GUARD}.below", "0.01"), ("`guards` " + BELOW,)),
        ("share of nothing", put(f"{GUARD}.below", "0%"), ("`guards` " + BELOW,)),
        ("share of all", put(f"{CRITERION}.below", "100%"), ("`phases[].criteria` " + BELOW,)),
        ("share that is negative", put(f"{CRITERION}.below", "-1%"), ("`phases[].criteria` " + BELOW,)),
        ("share above a bound", both(drop(f"{GUARD}.below"), put(f"{GUARD}.above", "1%")), ("`guards` " + BELOW,)),
        ("share for a while", put(f"{GUARD}.for", "2m"), ("`guards` " + BELOW,)),
        ("share in so many", put(f"{CRITERION}.outOf", "2/3"), ("`phases[].criteria` " + BELOW,)),
        (
            "share against the users without",
            both(drop(f"{GUARD}.below"), put(f"{GUARD}.comparedTo", "Control")),
            ("`guards` must compare a metric",),
        ),
        ("gate of counts", put("preflight.0.metric", "recovery"), ("preflight[].metric", "without `counts`")),
        (
            "minimum of counts",
            put(f"{GUARD}.minimum", {"metric": "recovery", "above": "5"}),
            ("minimum.metric", "without `counts`"),
        ),
    )
]
COMPARED = {"name": "recovery", "metric": "recovery", "comparedTo": "Control", "tolerate": {"times": "1.1"}}
MEAN = {"name": "recovery", "cohorts": {"feature": "beta", "sum": "load_seconds_sum", "count": "load_seconds_count"}}
FINE_COUNTS: list[tuple[str, Mistake]] = [
    ("mean of values", both(put(METRIC, MEAN), put(GUARD, COMPARED), put(CRITERION, COMPARED))),
    ("events of all users", counted),
    ("observations of all users", both(counted, put(f"{METRIC}.counts", {"histogram": "load_seconds", "over": "500ms"}))),
    (
        "whole percentage",
        both(counted, put(f"{GUARD}.below", "1%"), put(f"{GUARD}.for", "0s"), put(f"{GUARD}.dryRun", value=True)),
    ),
]
