"""Rollouts whose one check is fed with results, one after the other."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from core.world import World, edited
from session_rollout.api.enums import Verdict
from session_rollout.api.rollout import RolloutSpec

GOOD, BAD, BREACH = Decimal("0.001"), Decimal("0.02"), Decimal("0.08")
GAPS = (Verdict.NO_DATA, Verdict.INCONCLUSIVE, Verdict.PROVIDER_ERROR)


def guarded(interval: str = "10s", **guard: Any) -> RolloutSpec:
    """A rollout with one long step and one guard on errors."""
    return edited(
        lambda data: data["phases"][0]["steps"][0].update(hold="2h"),
        guards=[{"name": "errors", "metric": "errors", "below": "5%", **guard}],
        checkInterval=interval,
    )


def judged(hold: str = "10m", **criterion: Any) -> RolloutSpec:
    """A rollout whose first step has this hold and one criterion on errors."""

    def change(data: dict[str, Any]) -> None:
        data["phases"][0]["steps"][0]["hold"] = hold
        data["phases"][0]["criteria"] = [{"name": "errors", "metric": "errors", "below": "1%", **criterion}]

    return edited(change, guards=[])


def feed(world: World, values: Sequence[Decimal | Verdict], tick: float = 10) -> None:
    """One result after the other, at one interval each."""
    for value in values:
        world.values["errors"] = value
        world.now += timedelta(seconds=tick)
        world.settle()
