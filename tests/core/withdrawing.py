"""Rollouts whose last Job takes away what users without the features need and waits for a Pod or a lock; what happens meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import pytest

from core.collecting import DATABASE, FIGURES
from core.world import GOOD, World, rollout_data, spec
from session_rollout.api.enums import Stage
from session_rollout.api.migration_enums import MigrationState, Operation
from session_rollout.api.progress import Progress
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status_records import MigrationRecord
from session_rollout.core.observed import Effect, JobObservation, JobState, StartJob

ERRORS: Final = {"name": "errors", "metric": "errors", "below": "5%"}
BAD: Final = Decimal("0.9")
DROP: Final = {"name": "drop", "bundle": "a/drop", "change": "Contract"}
ROWS: Final = {"name": "rows", "bundle": "a/rows", "change": "Migrate"}
KINDS: Final = ("up", "finish")
EACH: Final = pytest.mark.parametrize("kind", KINDS)
WAITS: Final = {
    "no Pod": Progress(),
    "no node": Progress(reason="Unschedulable", waiting="its Pod is not running: Unschedulable: no nodes available"),
    "lock": Progress(message="applying 0001_drop.up.sql", waiting="0001_drop.up.sql: users is held by pid 7"),
}


@dataclass
class Cluster(World):
    """Jobs end only while there is room for their Pods."""

    room: bool = True

    def advance_jobs(self) -> None:
        if self.room:
            super().advance_jobs()

    def apply(self, effect: Effect) -> None:
        if isinstance(effect, StartJob) and self.jobs.get(effect.name) == JobObservation(JobState.MISSING):
            del self.jobs[effect.name]
        super().apply(effect)


def plan(kind: str, **changes: Any) -> RolloutSpec:
    """Two phases; after the last step of the second, `drop` removes a column, or at the end of the bake, `rows` is finished."""
    data = rollout_data(**DATABASE, guards=[ERRORS], bake="60s", migrations=[DROP if kind == "up" else ROWS])
    first, second = (phase | {"criteria": []} for phase in data["phases"])
    if kind == "up":
        second["migrations"] = {"after": ["drop"]}
    else:
        first["migrations"] = {"before": ["rows"]}
    return spec(**data | {"phases": [first, second], **changes})


def record(world: World) -> MigrationRecord:
    """The only migration."""
    return world.status.migrations[0]


def is_started(kind: str) -> Callable[[World], bool]:
    """Its Job is running."""
    return lambda world: (
        bool(world.status.migrations)
        and (record(world).state, record(world).operation) == (MigrationState.RUNNING, Operation(kind))
    )


def waiting(kind: str, progress: Progress = WAITS["no Pod"], **changes: Any) -> Cluster:
    """The Job of the migration exists, and waits."""
    world = Cluster(spec=plan(kind, **changes), progress=FIGURES if kind == "finish" else {})
    world.until(lambda world: world.status.current.stage is (Stage.STEP if kind == "up" else Stage.BAKE))
    world.room = False
    world.until(is_started(kind))
    world.jobs[record(world).job or ""] = JobObservation(JobState.ACTIVE, progress)
    world.settle()
    return world


def ran(world: World, kind: str) -> list[bool]:
    """Of each Job of the operation, whether it has succeeded."""
    name = record(world).name
    return [job.state is JobState.SUCCEEDED for title, job in world.jobs.items() if f"-{name}-{kind}-" in title]


# --- what happens meanwhile


def breach(world: World) -> None:
    """A guard fails."""
    world.values["errors"] = BAD


def pause(world: World) -> None:
    """An action pauses the rollout."""
    world.request("Pause")


def resume(world: World) -> None:
    """It ends that."""
    world.request("Resume")


def suspend(world: World) -> None:
    """Git suspends the rollout."""
    world.edit(world.spec.updated(suspend=True))


def continue_(world: World) -> None:
    """It ends that."""
    world.edit(world.spec.updated(suspend=False))


def disable(world: World) -> None:
    """An emergency, of a feature of the first phase."""
    world.request("EmergencyDisable", features=["alpha"])


def enable(world: World) -> None:
    """It is over."""
    world.request("EmergencyEnable")


def recover(world: World) -> None:
    """The guard passes."""
    world.values |= GOOD


SLOW: Final[dict[str, Any]] = {"guards": [ERRORS | {"for": "1h"}]}
Change = Callable[[World], None]
PASSING: Final[dict[str, tuple[Change, Change]]] = {
    "Pause": (pause, resume),
    "spec.suspend": (suspend, continue_),
    "emergency": (disable, enable),
    "failing guard": (breach, recover),
}
