"""What comparisons would see: the figures of the design, and what cannot be seen."""

from datetime import timedelta
from typing import Any

import pytest

from core.counting import COMPARED, spec
from session_rollout.api.enums import CheckKind
from session_rollout.simulation.power import Power, Traffic, compared_metrics, powers_of

STEPS: list[dict[str, Any]] = [{"percent": 5, "hold": "3d"}, {"percent": 100, "hold": "1d"}]


def powers(traffic: Traffic, *, inflation: float = 1.0, guards: int = 12) -> dict[CheckKind, Power]:
    """Of a step at 5 % for three days; as many guards share the probability of a false rollback."""
    phases = [{"name": "one", "features": ["alpha"], "steps": STEPS, "criteria": [COMPARED]}]
    named = [{**COMPARED, "name": f"guard-{number}"} for number in range(guards)]
    known = powers_of(spec(features=[{"name": "alpha"}], phases=phases, guards=named), {"failures": traffic}, inflation)
    assert len(known) == guards + 1
    assert {each.percent for each in known} == {5.0}
    return {each.kind: each for each in known}


@pytest.mark.parametrize(
    ("events", "seen", "days", "is_too_short"), [(10_000, 0.00325, 1.24, False), (1_000, 0.0082, 12.4, True)]
)
def test_figures_of_an_example(events: float, seen: float, days: float, *, is_too_short: bool) -> None:
    """5 % for 3 d and 0.05 % failures. With a thousand sessions an hour, the step would wait for evidence long after its hold."""
    known = powers(Traffic(events, 0.0005))
    assert known[CheckKind.GUARD].smallest == pytest.approx(seen, rel=0.03)
    passes = known[CheckKind.CRITERION].passes_after
    assert passes is not None
    assert passes / timedelta(days=1) == pytest.approx(days, rel=0.02)
    assert known[CheckKind.CRITERION].is_too_short is is_too_short
    assert known[CheckKind.GUARD].tolerated == pytest.approx(0.001625)


def test_a_handful_of_events_shows_nothing() -> None:
    known = powers(Traffic(0.1, 0.0005))
    assert known[CheckKind.GUARD].smallest is None
    assert known[CheckKind.CRITERION].passes_after is None
    assert known[CheckKind.CRITERION].is_too_short


def test_clustering_and_more_guards_cost_power() -> None:
    plain, clustered = powers(Traffic(10_000, 0.0005)), powers(Traffic(10_000, 0.0005), inflation=4)
    alone = powers(Traffic(10_000, 0.0005), guards=1)
    rates = [known[CheckKind.GUARD].smallest or 1.0 for known in (alone, plain, clustered)]
    assert rates == sorted(rates)
    assert len(set(rates)) == 3


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("tolerate", [{}, {"plus": "0%"}, {"times": "0"}, {"times": "999"}])
def test_any_rate_has_a_power(rate: float, tolerate: dict[str, str]) -> None:
    """Where nothing was bad, and where a higher rate than the tolerated one cannot be."""
    known = powers_of(spec(guards=[{**COMPARED, "tolerate": tolerate}]), {"failures": Traffic(1_000, rate)})
    guards = [each for each in known if each.kind is CheckKind.GUARD]
    assert all(each.smallest is None or each.smallest >= each.tolerated for each in guards)


def test_each_metric_is_named_once() -> None:
    assert tuple(compared_metrics(spec())) == ("failures",)


def test_users_who_are_held_back_leave_something_to_see_at_100_percent() -> None:
    """With as many of them as there are users with the feature in a small step, as much."""
    phases = [{"name": "one", "features": ["alpha"], "steps": STEPS, "criteria": [COMPARED]}]
    known = spec(features=[{"name": "alpha"}], phases=phases, guards=[], control={"holdback": "5%"})
    small, whole = powers_of(known, {"failures": Traffic(10_000, 0.0005)})
    assert (small.percent, whole.percent) == (5.0, 95.0)
    assert whole.smallest is not None
    assert small.smallest is not None
    assert whole.passes_after is not None


def test_a_bound_on_all_users_sees_the_same_in_every_step() -> None:
    """Whatever the percentage is, also at 100 %."""
    below = {"name": "failures", "metric": "failures", "below": "1%"}
    phases = [{"name": "one", "features": ["alpha"], "steps": STEPS, "criteria": [below]}]
    metrics = [{"name": "failures", "counts": {"bad": "bad_total", "total": "all_total"}}]
    known = spec(features=[{"name": "alpha"}], phases=phases, guards=[below], metrics=metrics)
    rows = powers_of(known, {"failures": Traffic(1_000, 0.001)})
    assert [(row.kind, row.percent) for row in rows] == [
        (kind, p) for kind in (CheckKind.GUARD, CheckKind.CRITERION) for p in (5, 100)
    ]
    assert {row.passes_after for row in rows} == {rows[0].passes_after}
    assert rows[0].passes_after is not None
    assert rows[0].tolerated == 0.01
    assert rows[0].smallest is not None
    assert 0.01 < rows[0].smallest < 0.02
