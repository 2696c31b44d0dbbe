"""Warnings about users who are held back, as rows of `cli.test_validate`: the change, what the warning is about, and its field."""

from typing import Any, Final

from api.corpus import GOOD
from session_rollout.cli.warnings_evidence import WarnEvidence

HELD: Final = {"control": {"holdback": "2%"}, "features": [{"name": "alpha"}, *GOOD["features"][1:]]}


def ending(*steps: dict[str, Any]) -> dict[str, Any]:
    """With these steps in the first phase."""
    return {**HELD, "phases": [{**GOOD["phases"][0], "steps": list(steps)}, *GOOD["phases"][1:]]}


NEARLY: Final = {"percent": 99, "hold": "1d"}
RAMP: Final = {"ramp": {"to": "98.1", "over": "7d", "increments": 4}}
WHOLE: Final = {"percent": 100, "hold": "1d"}
ALONE: Final = {
    **HELD,
    "phases": [{**phase, "criteria": [{"name": "e", "metric": "errors", "below": "1%"}]} for phase in GOOD["phases"]],
}
ROWS: Final = [
    (ALONE, WarnEvidence.UNUSED_HOLDBACK, "spec.control.holdback"),
    (ending(NEARLY, WHOLE), WarnEvidence.PERCENT_HELD_BACK, "spec.phases[0].steps[0].percent"),
    (ending(RAMP, WHOLE), WarnEvidence.PERCENT_HELD_BACK, "spec.phases[0].steps[0].ramp"),
]
