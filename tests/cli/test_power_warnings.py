"""`validate` with the traffic of a rollout: what its comparisons would not see, and what they would wait for."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.test_power import rollout
from core.counting import spec
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of
from session_rollout.cli.warnings_power import WarnPower, power_warnings


def compared(hold: str = "1d", percent: float = 5, **phase: Any) -> RolloutSpec:
    """One phase with one step that leaves users to compare with."""
    steps = [{"percent": percent, "hold": hold}, {"percent": 100, "hold": "1h"}]
    criterion = {"name": "failures", "metric": "failures", "comparedTo": "Control"}
    return spec(
        phases=[{"name": "one", "features": ["alpha"], "steps": steps, "criteria": [criterion], **phase}],
        features=[{"name": "alpha"}],
    )


def warnings(known: RolloutSpec, traffic: str, rate: str = "0.05%") -> dict[str, str]:
    """What is warned of, with the field."""
    options = {"traffic": traffic, "rate": rate, "url": None, "inflation": 1.0}
    return {problem.rule: problem.field for problem in power_warnings(known, options)}


def test_enough_traffic_needs_no_warning() -> None:
    assert warnings(compared(hold="3d", percent=20), "100000/h") == {}


def test_a_guard_that_sees_no_harm_in_a_step() -> None:
    """At 60 events an hour, an hour at 5 % has three sessions with the feature."""
    assert warnings(compared(hold="1h"), "60/h")[WarnPower.UNSEEN_HARM] == "spec.guards[0]"
    assert WarnPower.UNSEEN_HARM not in warnings(compared(hold="1h"), "100000/h")


@pytest.mark.parametrize("deadline", [None, "1h", "30d"])
def test_a_criterion_that_keeps_its_step_waiting(deadline: str | None) -> None:
    """With a deadline, the rollout may stall before it passes."""
    phase: dict[str, Any] = {"deadline": deadline} if deadline else {}
    assert warnings(compared(hold="1h", **phase), "10000/h")[WarnPower.SLOW_CRITERION] == "spec.phases[0].criteria[0]"


def test_users_that_would_not_receive_the_feature_in_time() -> None:
    """A hundred events with the feature need 2,000 of all users."""
    assert WarnPower.LATE_EXPOSURE in warnings(compared(), "60/h")
    assert WarnPower.LATE_EXPOSURE not in warnings(compared(), "100/h")


def test_validate_warns_only_with_the_traffic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody can tell without it; the options are those of `power`."""

    def rules(*words: str) -> set[str]:
        assert code_of(app, ["validate", rollout(tmp_path), *words, "-o", "json"]) == Exit.DONE
        return {finding["rule"] for finding in json.loads(capsys.readouterr().out)}

    assert not rules() & set(WarnPower)
    assert WarnPower.SLOW_CRITERION in rules("--traffic", "1000/h", "--rate", "0.05%")
    assert code_of(app, ["validate", rollout(tmp_path), "--traffic", "1000/h"]) == Exit.USAGE
