"""Invalid fields of criteria and guards that say how a check is judged, in the form of `api.invalid`; and valid ones."""

from typing import Any

from api.corpus import Mistake, both, compared, drop, put
from api.invalid_counts import BAD_COUNTS, FINE_COUNTS

CRITERION, GUARD = "phases.0.criteria.0", "guards.0"
ONE_OF = "exactly one of `above`, `below`, `between`"


def checked(place: str, **fields: Any) -> Mistake:
    """A check on errors with these fields, and `below` unless it has another bound."""
    bound = {} if {"between", "above", "below"} & set(fields) else {"below": "5%"}
    return put(place, {"name": "errors", "metric": "errors", **bound, **fields})


COHORTS = "metrics.2.cohorts"
BAD_COHORTS: list[tuple[str, Mistake, tuple[str, ...]]] = [
    ("counters without a feature", drop(f"{COHORTS}.feature"), ("metrics[2].cohorts", "`feature` is required by `bad`")),
    ("counters without total", drop(f"{COHORTS}.total"), ("metrics[2].cohorts", "`total` is required by `bad`")),
    ("bad counter and good query", put(f"{COHORTS}.good", "$cohort"), ("metrics[2].cohorts", "exactly one of `bad`")),
    ("cohorts of nothing", put(COHORTS, {"feature": "beta"}), ("metrics[2].cohorts", "exactly one of `bad`")),
    ("histogram without a bound", drop("metrics.3.cohorts.over"), ("metrics[3].cohorts", "`over` and `histogram`")),
    ("bound without a histogram", put(f"{COHORTS}.over", "1s"), ("metrics[2].cohorts", "`over` and `histogram`")),
    ("histogram with total", put("metrics.3.cohorts.total", "x"), ("metrics[3].cohorts", "excluded by `histogram`")),
    ("sum and bad counter", put(f"{COHORTS}.sum", "x"), ("metrics[2].cohorts", "exactly one of `bad`")),
    ("sum without count", put(COHORTS, {"feature": "beta", "sum": "x"}), ("metrics[2].cohorts", "`count` and `sum`")),
    ("count without sum", put(f"{COHORTS}.count", "x"), ("metrics[2].cohorts", "`count` and `sum`")),
    (
        "sum with total",
        put(COHORTS, {"feature": "beta", "sum": "x", "count": "y", "total": "y"}),
        ("metrics[2].cohorts", "excluded by `histogram` and `sum`"),
    ),
    ("sum without a feature", put(COHORTS, {"sum": "x", "count": "y"}), ("metrics[2].cohorts", "`feature` is required")),
    (
        "budget of a mean",
        both(
            put(COHORTS, {"feature": "beta", "sum": "x", "count": "y"}),
            put("guards.0", {"name": "m", "metric": "failures", "comparedTo": "Control", "harmBudget": 5}),
        ),
        ("`guards[].harmBudget`", "a mean counts no bad events"),
    ),
    ("good queries with a feature", put("metrics.1.cohorts.feature", "beta"), ("metrics[1].cohorts", "excluded by `good`")),
    (
        "feature of no phase",
        put(f"{COHORTS}.feature", "delta"),
        ("metrics[].cohorts.feature", "a name from `phases[].features`"),
    ),
    ("counter empty", put(f"{COHORTS}.bad", ""), ("metrics[2].cohorts.bad", "at least 1 chars")),
    (
        "comparison with a difference",
        put("guards.1.maxIncrease", "5%"),
        ("guards[1]", "`tolerate` is what it is compared with"),
    ),
    ("comparison with a bound", put("guards.1.below", "5%"), ("guards[1]", "`comparedTo` requires")),
    ("comparison that lasts", put("guards.1.for", "2m"), ("guards[1]", "its evidence is over time already")),
    ("comparison of so many", put("guards.1.outOf", "2/3"), ("guards[1]", "its evidence is over time already")),
    ("comparison to a baseline", put("guards.1.comparedTo", "Baseline"), ("guards[1]", "`comparedTo` requires")),
    (
        "tolerance without a comparison",
        put("guards.0.tolerate", {}),
        ("guards[0]", "`tolerate` requires `comparedTo: Control`"),
    ),
    (
        "tolerance of nothing",
        put("guards.1.tolerate", {"times": "0", "plus": "0%"}),
        ("guards[1].tolerate", "must tolerate something"),
    ),
    ("budget without a comparison", put("guards.0.harmBudget", 10), ("guards[0]", "`harmBudget` requires")),
    (
        "budget and tolerance",
        both(put("guards.1.harmBudget", 10), put("guards.1.tolerate", {})),
        ("guards[1]", "excludes `tolerate`"),
    ),
    ("budget of nothing", put("guards.1.harmBudget", 0), ("guards[1].harmBudget", "greater than or equal to 1")),
    ("tolerance in percent", put("guards.1.tolerate", {"times": "125%"}), ("guards[1].tolerate.times", "should match")),
    ("tolerance without unit", put("guards.1.tolerate", {"plus": "0.001"}), ("guards[1].tolerate.plus", "should match")),
    (
        "comparison of a query",
        put("guards.1.metric", "errors"),
        ("`guards` must compare a metric whose `cohorts` has a `feature`",),
    ),
    ("comparison of a metric of two queries", put("guards.1.metric", "recovery"), ("`guards` must compare a metric",)),
    ("bound of a counted metric", put("guards.0.metric", "failures"), ("`guards` must compare a metric",)),
    (
        "criterion with a bound of a counted metric",
        put("phases.1.criteria.0.metric", "slow"),
        ("`phases[].criteria` must compare",),
    ),
    (
        "criterion about a feature of another phase",
        put("phases.0.criteria.0", {"name": "f", "metric": "failures", "comparedTo": "Control"}),
        ("a feature of the phase",),
    ),
    (
        "gate of a counted metric",
        put("preflight.0.metric", "failures"),
        ("preflight[].metric", "without `counts` and `cohorts.feature`"),
    ),
    (
        "verification of a counted metric",
        put("phases.1.verification.0.metric", "slow"),
        ("verification[].metric", "without `counts` and `cohorts.feature`"),
    ),
    (
        "minimum of a counted metric",
        put("guards.0.minimum", {"metric": "slow", "above": "5"}),
        ("minimum.metric", "without `counts` and `cohorts.feature`"),
    ),
    ("false rollbacks without unit", put("control.falseRollback", "1"), ("control.falseRollback", "should match")),
    ("false rollbacks of all", put("control.falseRollback", "101%"), ("control.falseRollback", "should match")),
    ("false rollbacks of none", put("control.falseRollback", "0%"), ("control.falseRollback", "should match")),
    ("false rollbacks of zeros", put("control.falseRollback", "0.0%"), ("control.falseRollback", "should match")),
    ("false rollbacks of everything", put("control.falseRollback", "100%"), ("control.falseRollback", "should match")),
    ("block of zero", put("control.block", "0s"), ("control.block", "from 1ms to 365d")),
]

BAD_CHECKS: list[tuple[str, Mistake, tuple[str, ...]]] = [
    *((name, both(compared, mistake), words) for name, mistake, words in BAD_COHORTS),
    *BAD_COUNTS,
    ("range of one bound", checked(CRITERION, between=["1"]), ("criteria[0].between", "at least 2")),
    ("range of three bounds", checked(GUARD, between=["1", "2", "3"]), ("guards[0].between", "2")),
    ("range of numbers", checked(CRITERION, between=[1, 2]), ("criteria[0].between[0]", "string")),
    ("range the wrong way round", checked(CRITERION, between=["5%", "1%"]), ("criteria[0]", "lower bound first")),
    ("range of nothing", checked(GUARD, between=["1.50", "1.5"]), ("guards[0]", "lower bound first")),
    ("range of two units", checked(GUARD, between=["10ms", "1s"]), ("guards[0]", "the same unit")),
    ("range and bound", put(f"{CRITERION}.between", ["1", "2"]), ("criteria[0]", ONE_OF)),
    ("range of a gate the wrong way round", checked("preflight.0", between=["2", "1"]), ("preflight[0]", "lower bound first")),
    (
        "gate with range and bound",
        put("preflight.0.between", ["1", "2"]),
        ("preflight[0]", "exactly one of `above`, `below` and `between`"),
    ),
    ("approval with a range", put("preflight.1.between", ["1", "2"]), ("preflight[1]", "any other gate none")),
    ("more failures than evaluations", checked(GUARD, outOf="4/3"), ("guards[0]", "`outOf`", "such as `3/5`")),
    ("more evaluations than ten", checked(GUARD, outOf="3/11"), ("guards[0].outOf", "should match")),
    ("no failures", checked(CRITERION, outOf="0/5"), ("criteria[0].outOf", "should match")),
    ("number of failures alone", checked(CRITERION, outOf="3"), ("criteria[0].outOf", "should match")),
    (
        "failures by number and by time",
        checked(CRITERION, outOf="3/5", **{"for": "1m"}),
        ("criteria[0]", "`outOf` excludes `for`"),
    ),
    ("guard by number and by time", checked(GUARD, outOf="3/5", **{"for": "1m"}), ("guards[0]", "`outOf` excludes `for`")),
    ("no data means what", checked(GUARD, onNoData="Ignore"), ("guards[0].onNoData", '"Pause", "Pass", "Fail"')),
    ("minimum of nothing", checked(GUARD, minimum={"above": "5"}), ("guards[0].minimum.metric", "Required")),
    ("minimum without bound", checked(CRITERION, minimum={"metric": "errors"}), ("criteria[0].minimum.above", "Required")),
    (
        "minimum of an unknown metric",
        checked(CRITERION, minimum={"metric": "requests", "above": "5"}),
        ("criteria[].minimum.metric", "a name from `metrics`"),
    ),
    (
        "minimum of an unknown metric of a guard",
        checked(GUARD, minimum={"metric": "requests", "above": "5"}),
        ("guards[].minimum.metric", "a name from `metrics`"),
    ),
    ("share without percent", checked(CRITERION, passShare="95"), ("criteria[0].passShare", "should match")),
    ("share above all", checked(CRITERION, passShare="101%"), ("criteria[0].passShare", "should match")),
    ("share of a guard", checked(GUARD, passShare="95%"), ("guards[0].passShare", "unknown field")),
    ("dry run as text", checked(GUARD, dryRun="yes"), ("guards[0].dryRun", "boolean")),
    ("gate in a dry run", put("preflight.0.dryRun", value=True), ("preflight[0].dryRun", "unknown field")),
    ("propagation without unit", put("propagation", "90"), ("spec.propagation", "must be a duration")),
    ("window of a metric in years", put("metrics.0.window", "1y"), ("spec.metrics[0].window", "must be a duration")),
    ("metric asked all the time", put("metrics.0.interval", "0s"), ("spec.metrics[0].interval", "from 1ms to 365d")),
]
FINE_CHECKS: list[tuple[str, Mistake]] = [
    *FINE_COUNTS,
    ("range", checked(CRITERION, between=["-0.5", "99.5"])),
    ("range in milliseconds", checked(GUARD, between=["1ms", "500ms"])),
    ("range of a gate", checked("preflight.0", between=["80%", "120%"])),
    ("failures by number", both(checked(CRITERION, outOf="10/10"), checked(GUARD, outOf="3/5", **{"for": "0s"}))),
    ("failures by time", checked(CRITERION, **{"for": "5m"}, passShare="99.5%")),
    ("least number of events", checked(GUARD, minimum={"metric": "errors", "above": "500"}, onNoData="Fail", dryRun=True)),
    ("recording rule that is expensive", both(put("metrics.0.window", "1h"), put("metrics.0.interval", "5m"))),
    ("at once", put("propagation", "0s")),
    ("criterion without any share", both(put(f"{CRITERION}.passShare", "0%"), drop("guards"))),
]
