"""Single rules of the core: quantities, checks, the flag compiler, windows. Whole rollouts are in test_stories."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from session_rollout.adapters.flags import bucket, validate
from session_rollout.api.checks import ComparedTo
from session_rollout.api.enums import Verdict
from session_rollout.api.quantities import bound, duration, format_duration, show
from session_rollout.api.rollout import RolloutSpec, Window
from session_rollout.core.evaluation import Question, assess
from session_rollout.core.flags import EVERYBODY, NOBODY, Audience, Compiled, compile_document, with_dependents
from session_rollout.core.observed import Counts, Measurement
from session_rollout.core.windows import next_opening, unknown_zones
from session_rollout.errors import SpecError

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


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
    with pytest.raises(ValueError, match="must be a duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "value"), [("0.1%", "0.001"), ("500ms", "0.5"), ("5s", "5"), ("-1%", "-0.01"), ("10737418240", "10737418240")]
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


def question(**fields: Any) -> Question:
    """A question about the metric `errors` with a fresh answer."""
    given: dict[str, Any] = {
        "title": "errors",
        "metric": "errors",
        "measurement": Measurement(NOW, value=Decimal("0.02")),
        "not_before": NOW - timedelta(minutes=1),
        "stale_after": timedelta(minutes=1),
        "now": NOW,
        **fields,
    }
    return Question(**given)


BASELINE = {"compared_to": ComparedTo.BASELINE}
CHECKS: list[tuple[str, dict[str, Any], Verdict, str]] = [
    ("below holds", {"below": "5%"}, Verdict.PASS, "errors 2% is below 5%"),
    ("below fails", {"below": "1%"}, Verdict.FAIL, "errors 2% is not below 1%"),
    ("equal is not below", {"below": "2%"}, Verdict.FAIL, "not below"),
    ("above holds", {"above": "1%"}, Verdict.PASS, "is above 1%"),
    ("equal is not above", {"above": "2%"}, Verdict.FAIL, "not above"),
    ("no answer yet", {"below": "1%", "measurement": None}, Verdict.NOT_EVALUATED, "no answer"),
    ("nothing published yet", {"below": "1%", "not_before": None}, Verdict.NOT_EVALUATED, "no answer"),
    ("warming up", {"below": "1%", "not_before": NOW + timedelta(seconds=9)}, Verdict.NOT_EVALUATED, "warms up until 12:00:09"),
    (
        "answer from before",
        {"below": "5%", "measurement": Measurement(NOW - timedelta(minutes=2), value=Decimal(0))},
        Verdict.NOT_EVALUATED,
        "no answer",
    ),
    (
        "stale",
        {
            "below": "5%",
            "not_before": NOW - timedelta(hours=1),
            "measurement": Measurement(NOW - timedelta(minutes=2), value=Decimal(0)),
        },
        Verdict.NO_DATA,
        "older than 1m",
    ),
    (
        "empty",
        {"below": "5%", "measurement": Measurement(NOW, problem=Verdict.NO_DATA, message="the answer is empty")},
        Verdict.NO_DATA,
        "empty",
    ),
    ("baseline missing", {**BASELINE, "max_increase": "5%"}, Verdict.NOT_EVALUATED, "baseline is not measured"),
    (
        "baseline share holds",
        {**BASELINE, "max_increase": "5%", "baseline": Decimal("0.0195")},
        Verdict.PASS,
        "within an increase of 5%",
    ),
    (
        "baseline share fails",
        {**BASELINE, "max_increase": "5%", "baseline": Decimal("0.018")},
        Verdict.FAIL,
        "not within an increase",
    ),
    (
        "baseline equal is no increase",
        {**BASELINE, "max_increase": "0%", "baseline": Decimal("0.02")},
        Verdict.PASS,
        "within",
    ),
    ("baseline difference holds", {**BASELINE, "max_increase": "5ms", "baseline": Decimal("0.016")}, Verdict.PASS, "5ms"),
    ("baseline difference fails", {**BASELINE, "max_increase": "3ms", "baseline": Decimal("0.016")}, Verdict.FAIL, "3ms"),
    (
        "baseline decrease holds",
        {**BASELINE, "max_decrease": "10%", "baseline": Decimal("0.022")},
        Verdict.PASS,
        "within a decrease",
    ),
    (
        "baseline decrease fails",
        {**BASELINE, "max_decrease": "5%", "baseline": Decimal("0.022")},
        Verdict.FAIL,
        "not within a decrease",
    ),
    (
        "must rise",
        {**BASELINE, "max_decrease": "-1%", "baseline": Decimal("0.02")},
        Verdict.FAIL,
        "0.02 is not an increase of at least 1% from the baseline 0.02",
    ),
    ("any rise from zero", {**BASELINE, "max_increase": "50%", "baseline": Decimal(0)}, Verdict.FAIL, "baseline 0"),
]


@pytest.mark.parametrize(("fields", "verdict", "words"), [row[1:] for row in CHECKS], ids=[row[0] for row in CHECKS])
def test_checks(fields: dict[str, Any], verdict: Verdict, words: str) -> None:
    """One of six verdicts, and a sentence with both numbers."""
    finding = assess(question(**fields))
    assert finding.verdict is verdict
    assert words in finding.message


def cohorts(good_on: int, on: int, good_off: int, off: int) -> Measurement:
    """An answer about both cohorts."""
    counts = [Decimal(n) for n in (good_on, on, good_off, off)]
    return Measurement(NOW, value=counts[0] / counts[1], on=Counts(*counts[:2]), off=Counts(*counts[2:]))


@pytest.mark.parametrize(
    ("measurement", "verdict"),
    [
        (cohorts(9_900, 10_000, 9_900, 10_000), Verdict.PASS),
        (cohorts(9_000, 10_000, 9_900, 10_000), Verdict.FAIL),
        (cohorts(98, 100, 9_900, 10_000), Verdict.INCONCLUSIVE),  # too few to tell
        (cohorts(20, 20, 9_900, 10_000), Verdict.INCONCLUSIVE),  # fewer than fifty events
        (Measurement(NOW, value=Decimal(1)), Verdict.INCONCLUSIVE),  # no cohorts at all
    ],
)
def test_cohorts_are_compared_with_their_uncertainty(measurement: Measurement, verdict: Verdict) -> None:
    """Pass and Fail only when the whole interval says so."""
    fields = {"compared_to": ComparedTo.CONTROL, "max_decrease": "1%", "measurement": measurement}
    assert assess(question(**fields)).verdict is verdict


# --- flags


def compiled(audience: Audience, **fields: Any) -> dict[str, Any]:
    """The flag `alpha` as compiled, after flagd's evaluator has taken the document."""
    given: dict[str, Any] = {"flag_set": "shop", "namespace": "default", "audiences": {"alpha": audience}, **fields}
    document = compile_document(Compiled(**given))
    validate(document.text)
    return dict(json.loads(document.text)["flags"]["alpha"])


@pytest.mark.parametrize(
    ("audience", "end"),
    [
        (NOBODY, ["off"]),
        (EVERYBODY, ["on"]),
        (Audience(groups=("staff",)), [{"$ref": "group-staff"}, "on", "off"]),
        (
            Audience(Decimal("0.5")),
            [
                {"$ref": "identified"},
                {"fractional": [{"cat": ["shop:", {"var": "targetingKey"}]}, ["on", 5], ["off", 995]]},
                "off",
            ],
        ),
    ],
)
def test_rule_order(audience: Audience, end: list[Any]) -> None:
    """Forced off, forced on, groups, percentage, off."""
    targeting = compiled(audience)["targeting"]["if"]
    assert targeting[:4] == [{"$ref": "forcedOff"}, "off", {"$ref": "forcedOn"}, "on"]
    assert targeting[4:] == end


def test_emergency_has_no_targeting_and_is_enabled() -> None:
    """DISABLED would give the caller's default."""
    flag = compiled(EVERYBODY, disabled={"alpha": "hot"})
    assert (flag["state"], flag["defaultVariant"]) == ("ENABLED", "off")
    assert "targeting" not in flag


def test_the_same_input_gives_the_same_bytes() -> None:
    """The fingerprint says whether anything changed."""
    given = Compiled("shop", "default", {"alpha": EVERYBODY, "beta": NOBODY})
    turned = Compiled("shop", "default", {"beta": NOBODY, "alpha": EVERYBODY})
    assert compile_document(given) == compile_document(turned)


def test_dependents_go_with_their_prerequisite() -> None:
    """Through any number of steps."""
    features = [{"name": "a"}, {"name": "b", "dependsOn": ["a"]}, {"name": "c", "dependsOn": ["b"]}, {"name": "d"}]
    phases = [{"name": "p", "features": ["a", "b", "c", "d"], "steps": [{"percent": 1, "hold": "1d"}]}]
    spec = RolloutSpec.model_validate({"flagSet": "x", "features": features, "phases": phases})
    assert set(with_dependents(spec, {"a": "hot"})) == {"a", "b", "c"}


def test_a_broken_document_is_refused_before_it_is_published() -> None:
    """One malformed flag would freeze the whole document in every application."""
    broken = json.dumps({"flags": {"alpha": {"state": "enabled", "variants": {"on": True}, "defaultVariant": "on"}}})
    with pytest.raises(SpecError, match="flag document"):
        validate(broken)


def test_reference_bucket_agrees_with_the_evaluator() -> None:
    """The function that `verify` will use and flagd pick the same users."""
    from openfeature.contrib.tools.flagd.core import FlagdCore

    from lab.population import users

    text = compile_document(Compiled("shop", "default", {"alpha": Audience(Decimal("12.5"))})).text
    core = FlagdCore()
    core.set_flags(text)
    for user in users(2_000):
        on = core.resolve_boolean_value("alpha", default_value=False, ctx=user.context()).value
        assert on == (bucket("shop", user.id) < 125)


# --- windows


def window(**fields: Any) -> Window:
    """Weekdays from nine to four in Berlin, unless said otherwise."""
    given = {"days": ["Mon", "Tue", "Wed", "Thu"], "from": "09:00", "to": "16:00", "timeZone": "Europe/Berlin", **fields}
    return Window.model_validate(given)


@pytest.mark.parametrize(
    ("now", "opening"),
    [
        ("2026-01-05T12:00+01:00", "2026-01-05T12:00+01:00"),  # open
        ("2026-01-05T08:00+01:00", "2026-01-05T09:00+01:00"),  # later today
        ("2026-01-05T16:00+01:00", "2026-01-06T09:00+01:00"),  # the end is closed
        ("2026-01-08T17:00+01:00", "2026-01-12T09:00+01:00"),  # over the weekend
        ("2026-03-28T12:00+01:00", "2026-03-30T09:00+02:00"),  # over the change to summer time
        ("2026-10-24T12:00+02:00", "2026-10-26T09:00+01:00"),  # and back
    ],
)
def test_windows_open_in_their_own_time_zone(now: str, opening: str) -> None:
    """Across weekends and daylight saving."""
    assert next_opening((window(),), datetime.fromisoformat(now)) == datetime.fromisoformat(opening)


def test_no_window_is_always_open_and_the_nearest_of_several_counts() -> None:
    """No list, no waiting."""
    saturday = datetime(2026, 1, 10, 8, 0, tzinfo=UTC)
    assert next_opening((), saturday) == saturday
    both = (window(), window(days=["Sat"], timeZone="UTC"))
    assert next_opening(both, saturday) == datetime(2026, 1, 10, 9, 0, tzinfo=UTC)


def test_unknown_time_zones_are_named() -> None:
    """So that status can say which."""
    assert unknown_zones((window(timeZone="Mars/Olympus"), window())) == ("Mars/Olympus",)
