"""The page about stages: its diagram is drawn from the transitions that simulated rollouts make, not by hand.

Every example is played without a fault. One rollout that has every stage is also played with each criterion failing, each guard
breached and each migration failing, and it is aborted, edited and retried in each of its stages.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final

import yaml

from docs.diagrams import HEAD, Arrow, Box, Diagram, draw
from docs.vocabulary import described
from session_rollout.api.enums import Stage
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.observed import Decision, Measurement
from session_rollout.simulation.rehearsal import Fault, RehearsedWorld, Scenario, rehearse
from session_rollout.simulation.world import World

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
Transition = tuple[Stage, Stage]
Interruption = Callable[[World], object]
# Every stage of this rollout takes some time, so that it can be interrupted there.
EVERY_STAGE: Final = """
flagSet: shop
features: [{name: alpha}, {name: beta}]
metrics: [{name: errors, query: "sum(rate(errors_total[5m]))"}]
database: {secretKeyRef: {name: shop-db}}
migrations: [{name: tables, bundle: shop/tables}, {name: rows, bundle: shop/rows}]
preflight: [{name: tests-green, approval: {}}]
phases:
- name: one
  features: [alpha]
  migrations: {before: [tables], after: [rows]}
  steps: [{percent: 10, hold: 10m}, {ramp: {to: 50, over: 20m, increments: 2}}, {percent: 100, hold: 10m, approval: Required}]
  criteria: [{name: errors, metric: errors, comparedTo: Baseline, maxIncrease: 10%}]
  verification: [{name: product-owner, approval: {}}]
- {name: two, features: [beta], steps: [{percent: 100, hold: 10m}]}
guards: [{name: errors, metric: errors, below: 5%}]
bake: 30m
"""
LATE: Final = {"name": "late", "features": ["gamma"], "steps": [{"percent": 100, "hold": "10m"}]}


@cache
def transitions() -> frozenset[Transition]:
    """Every pair of stages that follow each other."""
    return frozenset(transition for world in _worlds() for transition in world)


def _worlds() -> Iterator[tuple[Transition, ...]]:
    yield from (rehearse(spec, Scenario()).transitions for spec in _examples())
    spec = RolloutSpec.model_validate(yaml.safe_load(EVERY_STAGE))
    yield from (rehearse(spec, scenario).transitions for scenario in _scenarios(spec))
    for stage in Stage:
        for interruption in (_abort, _edit, _add_phase, _add_and_remove_phase):
            yield _interrupted(stage, interruption)
    for cause in (_abort, _breach):
        yield _interrupted(Stage.STEP, cause, retried=True)
    yield _breached_after_the_end()
    yield _breached_in_a_rollback()
    yield _edited_before_the_first_publish()
    yield _raised_and_edited()
    yield _adopted_after_a_rollback()


def _examples() -> Iterator[RolloutSpec]:
    for example in sorted(EXAMPLES.rglob("*.yaml")):
        for document in yaml.safe_load_all(example.read_text()):
            if document.get("kind") == "SessionRollout" and not document["spec"].get("suspend"):
                yield RolloutSpec.model_validate(document["spec"])


def _scenarios(spec: RolloutSpec) -> Iterator[Scenario]:
    for phase in spec.phases:
        for check in phase.criteria:
            yield Scenario(faults=(Fault(phase.name, 1, check.metric),))
        for guard in spec.guards:
            yield Scenario(faults=(Fault(phase.name, len(phase.steps), guard.metric),))
    for migration in spec.migrations:
        yield Scenario(failing=frozenset({migration.name}))


# --- interruptions


@dataclass
class InterruptedWorld(RehearsedWorld):
    """A rollout that is interrupted when it is first in a stage."""

    at: Stage = Stage.STEP
    interruption: Interruption | None = None
    retried: bool = False

    def measure(self, name: str) -> Measurement | None:
        """Without a result as long as the baseline waits to be interrupted."""
        return None if self.at is Stage.BASELINE and self.interruption is not None else super().measure(name)

    def reconcile(self, *, crash_before_effects: bool = False) -> Decision:
        """Also interrupts."""
        decision = super().reconcile(crash_before_effects=crash_before_effects)
        if self.status.current.stage is self.at and self.interruption is not None:
            interrupt, self.interruption = self.interruption, None
            interrupt(self)
        if self.retried and self.status.current.stage is Stage.ENDED:
            self.retried = False
            self.scenario = replace(self.scenario, faults=())
            self.request("Retry", generation=self.generation)
        return decision


def _interrupted(stage: Stage, interruption: Interruption, *, retried: bool = False) -> tuple[Transition, ...]:
    return _world(stage, interruption, retried=retried).play().transitions


def _world(stage: Stage, interruption: Interruption, *, retried: bool = False) -> InterruptedWorld:
    spec = RolloutSpec.model_validate(yaml.safe_load(EVERY_STAGE))
    scenario = Scenario(approve_after=timedelta(minutes=5))
    return InterruptedWorld(spec, scenario.start, scenario=scenario, at=stage, interruption=interruption, retried=retried)


def _breached_after_the_end() -> tuple[Transition, ...]:
    """The last phase is aborted; then a guard is breached, and the phase before it is still published."""
    world = _world(Stage.BAKE, _abort)
    world.play()
    _breach(world)
    for _ in range(3):
        world.now += timedelta(minutes=10)
        world.settle()
    return tuple(world.transitions)


def _breached_in_a_rollback() -> tuple[Transition, ...]:
    """The last phase is rolled back and waits for its migration, while the breach lasts: the phase before it follows."""
    data = yaml.safe_load(EVERY_STAGE)
    first, second = data["phases"]
    moved = [{**first, "migrations": {}}, {**second, "migrations": {"after": ["rows"]}}]
    scenario = Scenario(migrations={"rows": timedelta(hours=2)})
    spec = RolloutSpec.model_validate({**data, "phases": moved})
    world = InterruptedWorld(spec, scenario.start, scenario=scenario, at=Stage.AFTER, interruption=_breach)
    return world.play().transitions


def _adopted_after_a_rollback() -> tuple[Transition, ...]:
    """The object is created again, and the document says that it was rolled back."""
    world = _world(Stage.STEP, _abort)
    world.play()
    fresh = replace(_world(Stage.ENDED, _abort), document=world.document, now=world.now)
    fresh.settle()
    fresh.request("Adopt")
    fresh.settle()
    return tuple(fresh.transitions)


def _edited_before_the_first_publish() -> tuple[Transition, ...]:
    """The first audience is decided and not yet published when the edit comes."""
    world = _world(Stage.BASELINE, lambda _: None)
    while world.status.current.stage is not Stage.STEP:
        world.reconcile(crash_before_effects=world.status.current.stage is Stage.BASELINE)
        world.advance_jobs()
        world.now += timedelta(minutes=1)
    _edit(world)
    _later(world)
    return tuple(world.transitions)


def _raised_and_edited() -> tuple[Transition, ...]:
    """The first step is raised outside windows; while that waits, an edit adds a migration, and another one comes while it runs."""
    scenario = Scenario(approve_after=timedelta(minutes=5), migrations={"more": timedelta(hours=2)})
    world = replace(_world(Stage.ENDED, _abort), scenario=scenario)
    while world.status.current.published_time is None:
        _later(world)
    opening = (world.now - timedelta(days=1)).strftime("%a")
    data = world.spec.to_wire() | {"windows": [{"days": [opening], "from": "09:00", "to": "10:00"}]}
    data["phases"][0]["steps"][0]["percent"] = 20
    more = {"name": "more", "bundle": "shop/more"}
    for added in ({}, {"migrations": [*data["migrations"], more]}, {"bake": "20m"}):
        data |= added
        data["phases"][0]["migrations"]["before"] = ["tables", "more"] if more in data["migrations"] else ["tables"]
        world.edit(RolloutSpec.model_validate(data))
        _later(world)
    return tuple(world.transitions)


def _later(world: World) -> None:
    world.now += timedelta(minutes=1)
    world.settle()


def _abort(world: World) -> None:
    world.request("Abort")


def _breach(world: World) -> None:
    assert isinstance(world, RehearsedWorld)
    world.scenario = replace(world.scenario, faults=(Fault("one", 1, "errors"),))


def _edit(world: World) -> None:
    world.edit(RolloutSpec.model_validate({**world.spec.to_wire(), "bake": "20m"}))


def _add_phase(world: World) -> None:
    spec = world.spec.to_wire()
    spec |= {"features": [*spec["features"], {"name": "gamma"}], "phases": [*spec["phases"], LATE]}
    world.edit(RolloutSpec.model_validate(spec))


def _add_and_remove_phase(world: World) -> None:
    before = world.spec
    _add_phase(world)
    gate = {"name": "late-approval", "approval": {}}
    waiting = world.spec.to_wire()
    world.edit(RolloutSpec.model_validate({**waiting, "preflight": [*waiting.get("preflight", []), gate]}))
    world.reconcile()
    world.edit(before)


# --- the page


# The order of the page, as a rollout without a fault passes through them.
ORDER: Final = (
    Stage.PREFLIGHT,
    Stage.BEFORE,
    Stage.BASELINE,
    Stage.STEP,
    Stage.VERIFICATION,
    Stage.AFTER,
    Stage.BAKE,
    Stage.ENDED,
)
ASIDE: Final = 2.4  # the column of RollingBack: arrows from the first and the last stage pass the boxes between them


def _ordered() -> list[Transition]:
    order = [*ORDER, Stage.ROLLING_BACK]
    return sorted(transitions(), key=lambda pair: (order.index(pair[0]), order.index(pair[1])))


def picture() -> str:
    """The diagram. A stage that starts again is only drawn for steps; the page lists the others."""
    boxes = {stage.value: Box(0, row, stage.value) for row, stage in enumerate(ORDER)}
    boxes[Stage.ROLLING_BACK.value] = Box(ASIDE, (len(ORDER) - 1) / 2, Stage.ROLLING_BACK.value, "end")
    drawn = [(start, end) for start, end in _ordered() if start is not end or start is Stage.STEP]
    diagram = Diagram("The stages of a rollout", boxes, tuple(Arrow(start.value, end.value) for start, end in drawn))
    return draw(diagram).removeprefix(HEAD)


def stages() -> str:
    """The stages, and how one leads to another."""
    following = {stage: [end for start, end in _ordered() if start is stage] for stage in Stage}
    texts = dict(described(Stage))
    rows = [
        f"| `{stage}` | {texts[stage.value]} | {', '.join(f'`{end}`' for end in following[stage])} |"
        for stage in (*ORDER, Stage.ROLLING_BACK)
    ]
    return "\n".join(
        [
            "# Stages\n",
            "`status.current.stage` is the stage of the rollout. A rollout starts in `Preflight` and ends in `Ended`; `status.outcome` says"
            " how. A new phase starts with `MigrationsBefore`. After a change of the spec, the rollout restarts the stage. It returns to"
            " `Verification` from `MigrationsAfter`, and to `Preflight` if the running phase has published nothing, if the generation was"
            " rolled back or aborted, or if the spec has a new phase and all others are complete. A `Retry`"
            " action after a rollback also returns the rollout to `Preflight`.\n",
            "![The stages of a rollout](stages.svg)\n",
            "The diagram is generated by simulating every example, and one rollout that is aborted, edited and retried in each stage."
            " The diagram omits transitions from a stage to itself, except that of `Step`.\n",
            "| stage | meaning | followed by |\n|---|---|---|",
            *rows,
            "",
        ]
    )
