"""Values that a simulated metric takes: for every kind of bound there is one that passes and one that fails.

Not here: how a rehearsal uses them (test_rehearsal).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from session_rollout.api.checks import Check
from session_rollout.api.enums import CheckKind, Verdict
from session_rollout.core.evaluation import evaluate, input_of
from session_rollout.simulation.values import ANY_TIME, best_value, measurement_of

BASELINE, CONTROL = {"comparedTo": "Baseline"}, {"comparedTo": "Control"}
BOUNDS: dict[str, dict[str, Any]] = {
    "below a share": {"below": "1%"},
    "above a share": {"above": "99.9%"},
    "below a time": {"below": "250ms"},
    "above zero": {"above": "0"},
    "below a negative number": {"below": "-5"},
    "above a size": {"above": "10737418240"},
    "rise of a share": {**BASELINE, "maxIncrease": "5%"},
    "no rise at all": {**BASELINE, "maxIncrease": "0%"},
    "fall of a share": {**BASELINE, "maxDecrease": "5%"},
    "fall of a time": {**BASELINE, "maxDecrease": "20ms"},
    "must rise a little": {**BASELINE, "minIncrease": "1%"},
    "must rise five times": {**BASELINE, "minIncrease": "500%"},
    "must rise by a number": {**BASELINE, "minIncrease": "1000"},
    "against users without it": {**CONTROL, "maxDecrease": "1%"},
    "must be better than without it": {**CONTROL, "minIncrease": "2%"},
}


@pytest.mark.parametrize("wanted", [Verdict.PASS, Verdict.FAIL])
@pytest.mark.parametrize("name", BOUNDS)
def test_every_bound_can_be_kept_and_broken(name: str, wanted: Verdict) -> None:
    """With the baseline that the rehearsal has measured."""
    check = Check.model_validate({"name": "check", "metric": "metric", **BOUNDS[name]})
    baselines = {(CheckKind.CRITERION, "check"): Decimal("2.5")} if check.compared_to == "Baseline" else {}
    cohorts = check.compared_to == "Control"
    value = best_value([(CheckKind.CRITERION, check)], baselines, wanted, cohorts=cohorts)
    result = evaluate(
        input_of(
            check,
            measurement=measurement_of(value, ANY_TIME, cohorts=cohorts),
            not_before=ANY_TIME,
            stale_after=timedelta.max,
            now=ANY_TIME,
            baseline=next(iter(baselines.values()), None),
        )
    )
    assert result.verdict is wanted


def test_value_that_most_checks_want_is_chosen() -> None:
    """A guard and a criterion on one metric: both pass, or both fail."""
    checks = [
        (CheckKind.GUARD, Check(name="guard", metric="errors", below="5%")),
        (CheckKind.CRITERION, Check(name="criterion", metric="errors", below="1%")),
    ]
    assert best_value([*checks], {}, Verdict.PASS, cohorts=False) < Decimal("0.01")
    assert best_value([*checks], {}, Verdict.FAIL, cohorts=False) >= Decimal("0.05")
