"""Single rules of the core: quantities, evaluation of one measurement, the flag compiler.

Every row of the evaluation has a verdict, a reason and the two figures that users see. Not here: windows (test_windows),
whole rollouts (the other files of this directory).
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import rollout_data, spec
from session_rollout.adapters.flag_evaluator import bucket, validate
from session_rollout.api.checks import Check, ComparedTo, Gate, Minimum, OnNoData
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.quantities import bound, duration, format_duration, show
from session_rollout.core import evaluation
from session_rollout.core.evaluation import Direction, EvaluationInput, Tolerance, evaluate, tolerance_of
from session_rollout.core.flags import CELL, EVERYBODY, NOBODY, PROBE, Audience, FlagSource, compile_document, with_dependents
from session_rollout.core.observed import Counts, Measurement
from session_rollout.errors import SpecError

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

# --- quantities


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("0s", 0, "0 s"),
        ("500ms", 0.5, "500 ms"),
        ("3750ms", 3.75, "3.8 s"),
        ("30s", 30, "30 s"),
        ("59s999ms", 59.999, "1 min"),
        ("5m", 300, "5 min"),
        ("12h", 43_200, "12 h"),
        ("1h30m", 5_400, "1 h 30 min"),
        ("1h0m0s", 3_600, "1 h"),
        ("1d12h", 129_600, "1 d 12 h"),
        ("3d", 259_200, "3 d"),
        ("2w", 1_209_600, "14 d"),
        ("1w1d1h1m1s1ms", 694_861.001, "8 d 1 h"),
    ],
)
def test_durations(text: str, seconds: float, shown: str) -> None:
    """One or several units, as in Prometheus and in Go; people read the two largest."""
    assert duration(text).total_seconds() == seconds
    assert format_duration(duration(text)) == shown


@pytest.mark.parametrize("text", ["", "5", "s", "1h1h", "30m1h", "1.5h", "-1h", "1h 30m", "1H", "1y", "30s\n", "100000000s"])
def test_texts_that_are_no_duration(text: str) -> None:
    """Units once each, the largest first, whole numbers of at most eight digits."""
    with pytest.raises(ValueError):  # noqa: PT011 - the message is for people
        duration(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.1%", "0.001"), ("500ms", "0.5"), ("5s", "5"), ("-1%", "-0.01"), ("10737418240", "10737418240")],
)
def test_bounds(text: str, value: str) -> None:
    """In base units, exactly."""
    assert bound(text) == Decimal(value)


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        ("0.0131234", "%", "1.312%"),
        ("0.25", "ms", "250ms"),
        ("10737418240", "", "10740000000"),
        ("0", "%", "0%"),
        ("1E+3", "", "1000"),
    ],
)
def test_values_are_shown_in_the_unit_of_their_bound(value: str, unit: str, shown: str) -> None:
    """Four digits, no exponent."""
    assert show(Decimal(value), unit) == shown


# --- evaluation


def given(**fields: Any) -> EvaluationInput:
    """An evaluation of 0.02 at NOW, unless the test has other fields."""
    defaults: dict[str, Any] = {
        "name": "errors",
        "measurement": Measurement(NOW, value=Decimal("0.02")),
        "not_before": NOW - timedelta(minutes=1),
        "stale_after": timedelta(minutes=1),
        "now": NOW,
    }
    return EvaluationInput(**{**defaults, **fields})


@dataclass(frozen=True)
class Row:
    """Fields of the input, and what comes out."""

    fields: dict[str, Any]
    verdict: Verdict
    reason: CheckReason
    value: str | None = None
    bound: str | None = None


def to_baseline(direction: Direction, text: str, baseline: str | None) -> dict[str, Any]:
    """A check with `comparedTo: Baseline`."""
    measured = None if baseline is None else Decimal(baseline)
    return {"compared_to": ComparedTo.BASELINE, "tolerance": Tolerance(direction, text), "baseline": measured}


MAX_INCREASE, MAX_DECREASE, MIN_INCREASE = Direction.MAX_INCREASE, Direction.MAX_DECREASE, Direction.MIN_INCREASE
WITHIN, OUT = CheckReason.WITHIN_TOLERANCE, CheckReason.OUT_OF_TOLERANCE
OLD = Measurement(NOW - timedelta(minutes=2), value=Decimal(0))
ZERO = Measurement(NOW, value=Decimal(0))
EMPTY = Measurement(NOW, problem=Verdict.NO_DATA, reason=CheckReason.EMPTY_RESULT, message="the result is empty")
REFUSED = Measurement(NOW, problem=Verdict.PROVIDER_ERROR, reason=CheckReason.QUERY_REJECTED, message="status 422")
ROWS = {
    "below holds": Row({"below": "5%"}, Verdict.PASS, CheckReason.WITHIN_BOUND, "2%", "below 5%"),
    "below fails": Row({"below": "1%"}, Verdict.FAIL, CheckReason.OUT_OF_BOUND, "2%", "below 1%"),
    "equal is not below": Row({"below": "2%"}, Verdict.FAIL, CheckReason.OUT_OF_BOUND, "2%", "below 2%"),
    "above holds": Row({"above": "1%"}, Verdict.PASS, CheckReason.WITHIN_BOUND, "2%", "above 1%"),
    "equal is not above": Row({"above": "2%"}, Verdict.FAIL, CheckReason.OUT_OF_BOUND, "2%", "above 2%"),
    "no result yet": Row({"below": "1%", "measurement": None}, Verdict.NOT_EVALUATED, CheckReason.AWAITING_RESULT),
    "nothing published yet": Row({"below": "1%", "not_before": None}, Verdict.NOT_EVALUATED, CheckReason.AWAITING_RESULT),
    "warming up": Row({"below": "1%", "not_before": NOW + timedelta(seconds=9)}, Verdict.NOT_EVALUATED, CheckReason.WARMING_UP),
    "result from before": Row({"below": "5%", "measurement": OLD}, Verdict.NOT_EVALUATED, CheckReason.AWAITING_RESULT),
    "stale": Row(
        {"below": "5%", "not_before": NOW - timedelta(hours=1), "measurement": OLD}, Verdict.NO_DATA, CheckReason.STALE_RESULT
    ),
    "empty": Row({"below": "5%", "measurement": EMPTY}, Verdict.NO_DATA, CheckReason.EMPTY_RESULT),
    "refused": Row({"below": "5%", "measurement": REFUSED}, Verdict.PROVIDER_ERROR, CheckReason.QUERY_REJECTED),
    "baseline missing": Row(to_baseline(MAX_INCREASE, "5%", None), Verdict.NOT_EVALUATED, CheckReason.BASELINE_MISSING),
    "share of the baseline holds": Row(
        to_baseline(MAX_INCREASE, "5%", "0.0195"), Verdict.PASS, WITHIN, "0.02", "increase of at most 5%"
    ),
    "share of the baseline fails": Row(
        to_baseline(MAX_INCREASE, "5%", "0.018"), Verdict.FAIL, OUT, "0.02", "increase of at most 5%"
    ),
    "equal to the baseline is no increase": Row(
        to_baseline(MAX_INCREASE, "0%", "0.02"), Verdict.PASS, WITHIN, "0.02", "increase of at most 0%"
    ),
    "difference holds": Row(to_baseline(MAX_INCREASE, "5ms", "0.016"), Verdict.PASS, WITHIN, "0.02", "increase of at most 5ms"),
    "difference fails": Row(to_baseline(MAX_INCREASE, "3ms", "0.016"), Verdict.FAIL, OUT, "0.02", "increase of at most 3ms"),
    "decrease holds": Row(to_baseline(MAX_DECREASE, "10%", "0.022"), Verdict.PASS, WITHIN, "0.02", "decrease of at most 10%"),
    "decrease fails": Row(to_baseline(MAX_DECREASE, "5%", "0.022"), Verdict.FAIL, OUT, "0.02", "decrease of at most 5%"),
    "an increase is no decrease": Row(
        to_baseline(MAX_DECREASE, "0%", "0.01"), Verdict.PASS, WITHIN, "0.02", "decrease of at most 0%"
    ),
    "any rise from zero": Row(
        to_baseline(MAX_INCREASE, "50%", "0"),
        Verdict.INCONCLUSIVE,
        CheckReason.ZERO_BASELINE,
        "0.02",
        "increase of at most 50%",
    ),
    "no rise from zero": Row(
        {**to_baseline(MAX_INCREASE, "50%", "0"), "measurement": ZERO}, Verdict.PASS, WITHIN, "0", "increase of at most 50%"
    ),
    "rise from zero by a number": Row(
        to_baseline(MAX_INCREASE, "0.01", "0"), Verdict.FAIL, OUT, "0.02", "increase of at most 0.01"
    ),
    "must rise and did": Row(to_baseline(MIN_INCREASE, "1%", "0.019"), Verdict.PASS, WITHIN, "0.02", "increase of at least 1%"),
    "must rise and did not": Row(to_baseline(MIN_INCREASE, "1%", "0.02"), Verdict.FAIL, OUT, "0.02", "increase of at least 1%"),
    "must rise and fell": Row(to_baseline(MIN_INCREASE, "0%", "0.03"), Verdict.FAIL, OUT, "0.02", "increase of at least 0%"),
    "must rise by exactly as much": Row(
        to_baseline(MIN_INCREASE, "100%", "0.01"), Verdict.PASS, WITHIN, "0.02", "increase of at least 100%"
    ),
    "must rise by a difference": Row(
        to_baseline(MIN_INCREASE, "4ms", "0.015"), Verdict.PASS, WITHIN, "0.02", "increase of at least 4ms"
    ),
    "must rise from zero and did not": Row(
        {**to_baseline(MIN_INCREASE, "10%", "0"), "measurement": ZERO}, Verdict.FAIL, OUT, "0", "increase of at least 10%"
    ),
    "must rise from zero and did": Row(
        to_baseline(MIN_INCREASE, "10%", "0"), Verdict.PASS, WITHIN, "0.02", "increase of at least 10%"
    ),
    "must not fall from zero": Row(
        {**to_baseline(MIN_INCREASE, "0%", "0"), "measurement": ZERO}, Verdict.PASS, WITHIN, "0", "increase of at least 0%"
    ),
    "share of a negative baseline": Row(
        to_baseline(MIN_INCREASE, "50%", "-0.01"), Verdict.PASS, WITHIN, "0.02", "increase of at least 50%"
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_evaluation(row: Row) -> None:
    """One of six verdicts, with its reason and both figures."""
    result = evaluate(given(**row.fields))
    assert (result.verdict, result.reason, result.value, result.bound) == (row.verdict, row.reason, row.value, row.bound)
    assert result.message


ABSENT = {CheckReason.EMPTY_RESULT, CheckReason.NOT_A_NUMBER}
UNUSABLE = {
    CheckReason.STALE_SAMPLE: Verdict.NO_DATA,
    CheckReason.NO_EVENTS: Verdict.NO_DATA,
    CheckReason.INFINITE_VALUE: Verdict.INCONCLUSIVE,
    CheckReason.MULTIPLE_SERIES: Verdict.INCONCLUSIVE,
    CheckReason.NOT_A_SAMPLE: Verdict.INCONCLUSIVE,
    CheckReason.PARTIAL_RESULT: Verdict.INCONCLUSIVE,
    CheckReason.TIMED_OUT: Verdict.PROVIDER_ERROR,
    CheckReason.INVALID_RESPONSE: Verdict.PROVIDER_ERROR,
}
MEANINGS = {
    OnNoData.PASS: (Verdict.PASS, CheckReason.NO_DATA_PASSES),
    OnNoData.FAIL: (Verdict.FAIL, CheckReason.NO_DATA_FAILS),
}


@pytest.mark.parametrize("meaning", MEANINGS)
@pytest.mark.parametrize("reason", [*ABSENT, *UNUSABLE])
def test_only_what_is_absent_has_a_meaning(reason: CheckReason, meaning: OnNoData) -> None:
    """D2: `onNoData` is about no series or NaN; what is there and cannot be used is no verdict, whatever it says."""
    measurement = Measurement(NOW, problem=UNUSABLE.get(reason, Verdict.NO_DATA), reason=reason, message="x")
    result = evaluate(given(below="5%", measurement=measurement, on_no_data=meaning))
    expected = MEANINGS[meaning] if reason in ABSENT else (measurement.problem, reason)
    assert (result.verdict, result.reason) == expected


@pytest.mark.parametrize("reason", ABSENT)
def test_minimum_does_not_hide_that_everything_is_gone(reason: CheckReason) -> None:
    """`onNoData: Fail` with a `minimum`: too few events are no failure, and no series of either query is one."""
    gone = Measurement(NOW, problem=Verdict.NO_DATA, reason=reason, message="x")
    counted = {"minimum": Minimum(metric="requests", above="500"), "on_no_data": OnNoData.FAIL, "below": "5%"}
    assert evaluate(given(**counted, measurement=gone, counted=gone)).reason is CheckReason.NO_DATA_FAILS
    few = Measurement(NOW, value=Decimal(3))
    assert evaluate(given(**counted, measurement=gone, counted=few)).reason is CheckReason.BELOW_MINIMUM
    assert evaluate(given(**counted, measurement=few, counted=gone)).reason is CheckReason.BELOW_MINIMUM


def test_result_that_is_too_old_has_no_meaning() -> None:
    """D2: an absent result of long ago says nothing about now, and neither does an old count of events."""
    old = Measurement(NOW - timedelta(minutes=2), problem=Verdict.NO_DATA, reason=CheckReason.EMPTY_RESULT)
    hour = {"below": "5%", "not_before": NOW - timedelta(hours=1)}
    assert evaluate(given(**hour, measurement=old, on_no_data=OnNoData.PASS)).reason is CheckReason.STALE_RESULT
    events = replace(old, value=Decimal(1000), problem=None, reason=None)
    enough = {"minimum": Minimum(metric="requests", above="500"), "counted": events}
    assert evaluate(given(**hour, **enough)).verdict is Verdict.PASS
    assert evaluate(given(**hour, **enough, counted_stale_after=MINUTE)).reason is CheckReason.STALE_RESULT


def _counts(good_on: int, on: int, good_off: int, off: int) -> tuple[Counts, Counts]:
    return Counts(Decimal(good_on), Decimal(on)), Counts(Decimal(good_off), Decimal(off))


def cohorts(good_on: int, on: int, good_off: int, off: int) -> Measurement:
    """A measurement of both cohorts."""
    with_it, without = _counts(good_on, on, good_off, off)
    return Measurement(NOW, value=with_it.good / with_it.total, on=with_it, off=without)


@dataclass(frozen=True)
class CohortRow:
    """A measurement, what is tolerated, and what comes out."""

    measurement: Measurement
    verdict: Verdict
    reason: CheckReason
    direction: Direction = MAX_DECREASE


UNCLEAR = CheckReason.TOLERANCE_UNCLEAR
COHORTS = {
    "equal": CohortRow(cohorts(9_900, 10_000, 9_900, 10_000), Verdict.PASS, WITHIN),
    "worse": CohortRow(cohorts(9_000, 10_000, 9_900, 10_000), Verdict.FAIL, OUT),
    "D16: no failure in few events": CohortRow(cohorts(50, 50, 50, 50), Verdict.INCONCLUSIVE, UNCLEAR),
    "D16: no failure in many events": CohortRow(cohorts(1_000, 1_000, 1_000, 1_000), Verdict.PASS, WITHIN),
    "too few to tell": CohortRow(cohorts(98, 100, 9_900, 10_000), Verdict.INCONCLUSIVE, UNCLEAR),
    "fewer than fifty events": CohortRow(cohorts(20, 20, 9_900, 10_000), Verdict.INCONCLUSIVE, CheckReason.TOO_FEW_EVENTS),
    "no cohorts": CohortRow(Measurement(NOW, value=Decimal(1)), Verdict.INCONCLUSIVE, CheckReason.NO_COHORTS),
    "increase within": CohortRow(cohorts(501_000, 1_000_000, 500_000, 1_000_000), Verdict.PASS, WITHIN, MAX_INCREASE),
    "increase unclear": CohortRow(cohorts(5_010, 10_000, 5_000, 10_000), Verdict.INCONCLUSIVE, UNCLEAR, MAX_INCREASE),
    "increase too large": CohortRow(cohorts(9_000, 10_000, 5_000, 10_000), Verdict.FAIL, OUT, MAX_INCREASE),
    "must rise and does": CohortRow(cohorts(9_000, 10_000, 5_000, 10_000), Verdict.PASS, WITHIN, MIN_INCREASE),
    "must rise and does not": CohortRow(cohorts(9_900, 10_000, 9_900, 10_000), Verdict.FAIL, OUT, MIN_INCREASE),
}


@pytest.mark.parametrize("row", COHORTS.values(), ids=COHORTS)
def test_cohorts_are_compared_with_their_uncertainty(row: CohortRow) -> None:
    """Pass and Fail only when the whole interval says so; the tolerance is one point."""
    tolerance = Tolerance(row.direction, "1%")
    result = evaluate(given(compared_to=ComparedTo.CONTROL, tolerance=tolerance, measurement=row.measurement))
    assert (result.verdict, result.reason) == (row.verdict, row.reason)


def test_interval_of_the_difference_is_that_of_the_literature() -> None:
    """D16: rows of table II of Newcombe (1998), method 10, in percentage points."""
    published = {(56, 70, 48, 80): "5.24 to 33.39", (9, 10, 3, 10): "17.05 to 80.90", (10, 10, 0, 20): "67.91 to 100.00"}
    for counts, interval in published.items():
        scaled = evaluation._difference(*_counts(*counts))
        assert f"{100 * scaled[0]:.2f} to {100 * scaled[1]:.2f}" == interval


@pytest.mark.parametrize(
    ("field", "direction"),
    [("maxIncrease", MAX_INCREASE), ("maxDecrease", MAX_DECREASE), ("minIncrease", MIN_INCREASE)],
)
def test_tolerance_of_a_check(field: str, direction: Direction) -> None:
    """The one field that the check has; none for a fixed bound and for a gate."""
    check = Check.model_validate({"name": "load", "metric": "load", "comparedTo": "Baseline", field: "5%"})
    assert tolerance_of(check) == Tolerance(direction, "5%")
    assert tolerance_of(Check(name="load", metric="load", below="5%")) is None
    assert tolerance_of(Gate(name="load", metric="load", below="5%")) is None


# --- flags


def compiled(audience: Audience, **fields: Any) -> dict[str, Any]:
    """The flag `alpha` as compiled, after flagd's evaluator has accepted the document."""
    document = compile_document(
        FlagSource(**{"flag_set": "shop", "namespace": "default", "audiences": {"alpha": audience}, **fields})
    )
    validate(document.text)
    return dict(json.loads(document.text)["flags"]["alpha"])


BUCKET = {"cat": ["shop:", {"var": "targetingKey"}]}
RULE_ORDER = {
    "nobody": (NOBODY, ["off-chosen"]),
    "everybody": (EVERYBODY, ["on"]),
    "a group": (Audience(groups=("staff",)), [{"$ref": "group-staff"}, "on-chosen", "off-chosen"]),
    "half a percent": (
        Audience(Decimal("0.5")),
        [{"$ref": "bucketed"}, {"fractional": [BUCKET, ["on", 5], ["off", 995]]}, "off-chosen"],
    ),
}


@pytest.mark.parametrize(("audience", "end"), RULE_ORDER.values(), ids=RULE_ORDER)
def test_rule_order(audience: Audience, end: list[Any]) -> None:
    """Forced off, forced on, groups, percentage, off."""
    targeting = compiled(audience)["targeting"]["if"]
    assert targeting[:4] == [{"$ref": "forcedOff"}, "off-chosen", {"$ref": "forcedOn"}, "on-chosen"]
    assert targeting[4:] == end


def test_emergency_has_no_targeting_and_is_enabled() -> None:
    """DISABLED would give the caller's default."""
    flag = compiled(EVERYBODY, disabled={"alpha": "hot"})
    assert (flag["state"], flag["defaultVariant"]) == ("ENABLED", "off-chosen")
    assert "targeting" not in flag


def test_the_same_input_gives_the_same_bytes() -> None:
    """The fingerprint says whether anything changed."""
    ordered = FlagSource("shop", "default", {"alpha": EVERYBODY, "beta": NOBODY})
    reversed_ = FlagSource("shop", "default", {"beta": NOBODY, "alpha": EVERYBODY})
    assert compile_document(ordered) == compile_document(reversed_)


@pytest.mark.parametrize("features", [0, 1, 40])
def test_text_is_plain_indented_json(features: int) -> None:
    """The parts are kept as text: put together, they are what the encoder writes, so that no new version changes the bytes."""
    names = [f"f{number}" for number in range(features)]
    audiences = {name: Audience(Decimal(number), ("staff", f"g{number}")) for number, name in enumerate(names)}
    disabled = dict.fromkeys(names[::3], 'hot\n"\u2028é')
    text = compile_document(FlagSource("shop", "default", audiences, disabled, {"revision": 7})).text
    assert text == json.dumps(json.loads(text), indent=1)
    assert list(json.loads(text)["flags"]) == [*sorted(names), PROBE, CELL]


def test_dependents_are_disabled_with_their_prerequisite() -> None:
    """Through any number of steps."""
    features = [{"name": "a"}, {"name": "b", "dependsOn": ["a"]}, {"name": "c", "dependsOn": ["b"]}, {"name": "d"}]
    phases = [{"name": "p", "features": ["a", "b", "c", "d"], "steps": [{"percent": 1, "hold": "1d"}]}]
    chain = spec(**rollout_data(features=features, phases=phases, guards=[]))
    assert set(with_dependents(chain, {"a": "hot"})) == {"a", "b", "c"}


def test_broken_document_is_refused_before_it_is_published() -> None:
    """One malformed flag would freeze the whole document in every application."""
    broken = json.dumps({"flags": {"alpha": {"state": "enabled", "variants": {"on": True}, "defaultVariant": "on"}}})
    with pytest.raises(SpecError):
        validate(broken)


def test_reference_bucket_agrees_with_the_evaluator() -> None:
    """The function of `flags verify` and flagd pick the same users."""
    from openfeature.contrib.tools.flagd.core import FlagdCore

    from lab.population import users

    text = compile_document(FlagSource("shop", "default", {"alpha": Audience(Decimal("12.5"))})).text
    core = FlagdCore()
    core.set_flags(text)
    for user in users(2_000):
        on = core.resolve_boolean_value("alpha", default_value=False, ctx=user.context()).value
        assert on == (bucket("shop", user.id) < 125)
