"""Worlds whose first phase begins with a placebo step."""

from decimal import Decimal
from typing import Any, Final

from core.counting import COMPARED, Counting, spec
from core.world import World
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.documents import PublishedDocument
from session_rollout.core.flags import Audience

PLACEBO: Final = {"percent": 20, "hold": "60s", "placebo": True}
REAL: Final = [{"percent": 20, "hold": "60s"}, {"percent": 50, "hold": "60s"}, {"percent": 100, "hold": "60s"}]
ERRORS: Final = {"name": "errors", "metric": "errors", "below": "5%"}
DIVIDED: Final = Audience(placebo=Decimal(20))


def placebo_spec(steps: list[dict[str, Any]] | None = None, **changes: Any) -> RolloutSpec:
    """A rollout whose first phase begins with a placebo step."""
    data = spec().to_wire()
    data["phases"][0] |= {"steps": [PLACEBO, *REAL] if steps is None else steps, **changes.pop("phase", {})}
    return RolloutSpec.model_validate({**data, **changes})


def with_errors(**changes: Any) -> RolloutSpec:
    """With a guard on all users, and the comparison."""
    metrics = [{"name": "errors", "query": "errors"}, *spec().to_wire()["metrics"]]
    return placebo_spec(metrics=metrics, guards=[ERRORS, COMPARED], **changes)


def in_placebo(world: World) -> bool:
    """The variants of the placebo step are published."""
    return world.status.current.placebo == "20" and world.status.current.published_time is not None


def held(rollout: RolloutSpec | None = None, **fields: Any) -> Counting:
    """A world in its placebo step."""
    world = Counting(rollout or placebo_spec(), **fields)
    world.until(in_placebo)
    return world


def audience(world: World, feature: str = "alpha") -> Audience | None:
    """What the document in the cluster says."""
    assert world.document is not None
    return world.document.audiences[feature]


def placebo_document(world: World) -> PublishedDocument:
    """The published document, with a placebo."""
    assert world.document is not None
    return world.document
