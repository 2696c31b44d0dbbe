"""Worlds whose rollout holds users back."""

from decimal import Decimal
from typing import Any, Final

from core.counting import COMPARED, Counting, spec
from core.world import GOOD, World, at
from session_rollout.api.enums import Stage
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.flags import EVERYBODY, Audience, without_held_back

HELD: Final = Decimal(2)
ERRORS: Final = {"name": "errors", "metric": "errors", "below": "5%"}
ALL_OTHERS: Final = without_held_back(EVERYBODY, HELD)
CONTROL: Final = {"block": "10s", "lag": "0s", "holdback": "2%"}


def held_spec(**changes: Any) -> RolloutSpec:
    """Two phases; the first is compared, and a guard is on all users."""
    data = spec(control=CONTROL).to_wire()
    metrics = [{"name": "errors", "query": "errors"}, *data["metrics"]]
    phases = changes.pop("phases", data["phases"])
    phases[0] |= changes.pop("phase", {})
    return RolloutSpec.model_validate(
        {**data, "metrics": metrics, "guards": [ERRORS, COMPARED], "bake": "60s", "phases": phases, **changes}
    )


def holding(rollout: RolloutSpec | None = None, **fields: Any) -> Counting:
    """A world that has not begun."""
    return Counting(rollout or held_spec(), **{"values": {**GOOD}, **fields})


def baking(world: World) -> bool:
    """In the bake, before the release."""
    return world.status.current.stage is Stage.BAKE and world.status.flags.released_time is None


def released(world: World) -> bool:
    """Users who were held back have the features."""
    return world.status.flags.released_time is not None and world.status.current.published_time is not None


def in_release(rollout: RolloutSpec | None = None, **fields: Any) -> Counting:
    """A world in which users who were held back have just got the features."""
    world = holding(rollout, **fields)
    world.until(released)
    return world


def audiences(world: World) -> dict[str, Audience | None]:
    """What the document in the cluster gives."""
    assert world.document is not None
    return dict(world.document.audiences)


last_step = at("one", 3)
