"""What starts a rolled-back rollout again: a Retry, and an edit of its plan; and what a status of version 0.1.0 lacks.

Not here: what an edit keeps and voids while the rollout runs (test_edits).
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from core.collecting import DATABASE
from core.world import World, at, edited, ended, spec, with_another_plan
from session_rollout.api.crds import structural
from session_rollout.api.enums import EventReason, Outcome, PhaseState, Stage, State
from session_rollout.api.quantities import BOUND_PATTERN, DURATION_PATTERN, PERCENT_PATTERN, TOLERANCE_PATTERN
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.identity import TOLERANCES
from session_rollout.core.plan import LENGTHS, NUMBERS, OTHER, OTHER_OF_METRICS, plan_of

Change = Callable[[dict[str, Any]], Any]


def rolled_back(start: RolloutSpec | None = None, *, by: str = "breach") -> World:
    """Phase two was rolled back, and its metrics are good again."""
    world = World(start or spec())
    world.until(at("two", 1))
    if by == "abort":
        world.request("Abort")
    world.values["errors"] = Decimal("0.08") if by == "breach" else Decimal("0.001")
    world.until(ended)
    world.values["errors"] = Decimal("0.001")
    return world


def step(number: int, **fields: Any) -> Change:
    """An edit of a step of phase one."""
    return lambda data: data["phases"][0]["steps"][number].update(fields)


SAME: dict[str, Change] = {
    "hold": step(0, hold="1m"),
    "ramp": step(1, ramp={"to": "50.0", "over": "2m", "increments": 2}),
    "percent": step(0, percent="10"),
    "bound": lambda data: data["guards"][0].update(below="5.0%"),
    "for": lambda data: data["guards"][0].update({"for": "20000ms"}),
    "tolerance": lambda data: data["phases"][1]["criteria"][0].update(maxIncrease="10.00%"),
    "explicit defaults": lambda data: data["guards"][0].update(onBreach="Rollback", dryRun=False, onNoData="Pause"),
    "no retired feature": lambda data: data["features"][0].update(retired=False, initial="Off"),
    "order of features": lambda data: data["phases"][0]["features"].reverse(),
    "order of metrics": lambda data: data["metrics"].reverse(),
    "spelling of a query": lambda data: data["metrics"][0].update(query=" errors  # all of them"),
    "pass share": lambda data: data["phases"][0]["criteria"][0].update(passShare="95.0%"),
    "name as a matcher": lambda data: data["metrics"][0].update(query='(({__name__="errors"}))'),
}
ELSEWHERE: dict[str, Change] = {
    "checkInterval": lambda data: data.update(checkInterval="5s"),
    "propagation": lambda data: data.update(propagation="1s"),
    "bake": lambda data: data.update(bake="10s"),
    "windows": lambda data: data.update(windows=[{"days": ["Mon"], "from": "00:00", "to": "23:59"}]),
    "notifications": lambda data: data.update(notifications=[{"sink": "chat", "events": ["Promoted"]}]),
    "deletionPolicy": lambda data: data.update(deletionPolicy="Off"),
    "rollback": lambda data: data.update(rollback={"scope": "Step"}),
    "suspend": lambda data: data.update(suspend=True),
    "interval that is the default": lambda data: data["metrics"][0].update(interval=data["checkInterval"]),
    "interval": lambda data: data["metrics"][0].update(interval="40s"),
}
ANOTHER: dict[str, Change] = {
    "hold": step(0, hold="61s"),
    "percent": step(0, percent="11"),
    "bound": lambda data: data["guards"][0].update(below="5.01%"),
    "guard": lambda data: data.update(guards=[]),
    "query": lambda data: data["metrics"][0].update(query="mended"),
    "window of a metric": lambda data: data["metrics"][0].update(window="1s"),
    "tolerance without %": lambda data: data["phases"][1]["criteria"][0].update(maxIncrease="10"),
    "criterion": lambda data: data["phases"][1].update(criteria=[]),
    "preflight": lambda data: data.update(preflight=[{"name": "calm", "metric": "errors", "below": "5%"}]),
    "verification": lambda data: data["phases"][1].update(verification=[{"name": "calm", "metric": "errors", "below": "5%"}]),
    "provider": lambda data: data.update(prometheus="other"),
    "workload": lambda data: data.update(workload={"name": "web"}),
    "migration": lambda data: (
        data.update(DATABASE, migrations=[{"name": "rows", "bundle": "a/rows"}]),
        data["phases"][1].update(migrations={"before": ["rows"]}),
    ),
}


@pytest.mark.parametrize("change", (SAME | ELSEWHERE).values(), ids=SAME | ELSEWHERE)
def test_edit_that_is_no_fix_starts_nothing_again(change: Change) -> None:
    """R12: a formatter, or a field that changes nothing of what failed, must not turn a faulty feature on."""
    world = rolled_back()
    world.edit(edited(change))
    world.run(300)
    assert (world.status.outcome, world.status.state) == (Outcome.ROLLED_BACK, State.ROLLED_BACK)
    assert world.status.observed_generation == 2
    assert world.percents() == {"one": "100", "two": "0"}
    assert "generation 2 has the plan of generation 1" in world.status.decision.details[0]
    assert "`Retry` action with generation 2" in world.status.decision.next_actions[0]
    assert len(world.entries(EventReason.SUPERSEDED)) == 1


@pytest.mark.parametrize("change", ANOTHER.values(), ids=ANOTHER)
def test_edit_of_the_plan_is_another_attempt(change: Change) -> None:
    """Also after an edit that was none."""
    world = rolled_back(by="abort")
    world.edit(spec(bake="10s"))
    world.run(20)
    assert world.status.outcome is Outcome.ABORTED
    world.edit(edited(change, bake="10s"))
    world.run(20)
    assert world.status.outcome is None


def test_order_of_phases_is_a_part_of_the_plan() -> None:
    """They run one after the other."""
    assert plan_of(edited(lambda data: data["phases"].reverse()), {}) != plan_of(spec(), {})


GROUP: Change = step(0, percent=None, groups=["beta"])
WITH_DATABASE: Change = lambda data: data.update(DATABASE)  # noqa: E731
MEANT = {
    "percent": (GROUP, step(0, percent=0, groups=["beta"]), step(0, percent=1, groups=["beta"])),
    "role that copies rows": (
        WITH_DATABASE,
        lambda data: data.update(database={**DATABASE["database"], "dataSecretKeyRef": {"name": "db", "key": "url"}}),
        lambda data: data.update(database={**DATABASE["database"], "dataSecretKeyRef": {"name": "rows"}}),
    ),
}


@pytest.mark.parametrize(("unset", "same", "other"), MEANT.values(), ids=MEANT)
def test_what_is_meant_without_a_field_may_be_written(unset: Change, same: Change, other: Change) -> None:
    """A default that is no constant of the schema is one, too."""
    plans = [plan_of(edited(change), {}) for change in (unset, same, other)]
    assert plans[0] == plans[1] != plans[2]


def test_retry_tries_the_same_plan_again_and_a_promotion_ends_its_record() -> None:
    """A person has decided; later edits find a rollout that is promoted."""
    world = rolled_back()
    world.edit(spec(bake="10s"))
    world.run(20)
    world.request("Retry", generation=2)
    world.until(lambda world: world.status.outcome is Outcome.PROMOTED)
    assert world.status.rolled_back_plans == ()


def test_two_tools_that_fight_over_the_plan_do_not_try_it_for_ever() -> None:
    """Each of their plans was rolled back: whichever is applied next, users keep what the rollback left."""
    world = rolled_back()
    world.edit(with_another_plan())
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    world.values["errors"] = Decimal("0.001")
    for number in range(6):
        world.edit(with_another_plan() if number % 2 else spec())
        world.run(100)
        assert world.status.outcome is Outcome.ROLLED_BACK
        assert world.percents()["two"] == "0"
    assert [record.generation for record in world.status.rolled_back_plans] == [1, 2]
    world.edit(edited(step(0, hold="62s")))
    world.until(lambda world: world.status.outcome is Outcome.PROMOTED)


@pytest.mark.parametrize("how", ["Retry", "plan"])
def test_edit_while_rolling_back_that_is_no_fix_starts_nothing(how: str) -> None:
    """The plan that was rolled back is that of the generation that ran, whatever the spec is when the rollback ends."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing, world.values["errors"] = False, Decimal("0.5")
    world.until(lambda world: world.status.current.stage is Stage.ROLLING_BACK)
    world.edit(spec(checkInterval="5s"))
    world.publishing, world.values["errors"] = True, Decimal("0.001")
    world.run(300)
    assert (world.status.outcome, world.status.observed_generation) == (Outcome.ROLLED_BACK, 2)
    if how == "Retry":
        world.request("Retry", generation=2)
    else:
        world.edit(with_another_plan(checkInterval="5s"))
    world.until(at("one", 1))


@pytest.mark.parametrize("edit", [False, True])
def test_rollback_by_an_earlier_version_is_kept(*, edit: bool) -> None:
    """Its status does not say which plan was rolled back: an edit that came with the upgrade starts nothing, the next one may."""
    world = rolled_back()
    world.status = world.status.updated(observed_plan=None, rolled_back_plans=())
    if edit:
        world.edit(with_another_plan())
    world.run(100)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert [record.generation for record in world.status.rolled_back_plans] == [world.status.observed_generation]
    world.edit(with_another_plan(bake="10s"))
    world.run(100)
    assert (world.status.outcome is Outcome.ROLLED_BACK) is edit
    world.edit(edited(step(0, hold="62s")))
    world.until(lambda world: world.status.outcome is Outcome.PROMOTED)


# --- the fields of the spec


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield name, field
        yield from _fields(field)
    if isinstance(schema.get("items"), dict):
        yield from _fields(schema["items"])


def test_every_quantity_of_the_plan_is_compared_as_one() -> None:
    """Another spelling of a duration, a percentage or a bound is the same."""
    schema = structural(RolloutSpec)
    other = {RolloutSpec.model_fields[name].alias for name in OTHER}
    planned = {"properties": {name: field for name, field in schema["properties"].items() if name not in other}}
    for name in OTHER_OF_METRICS:
        del planned["properties"]["metrics"]["items"]["properties"][name]
    known = {name.removesuffix("_") for name in LENGTHS | NUMBERS | frozenset(TOLERANCES)}
    known = {to_camel(name) for name in known}
    patterns = {BOUND_PATTERN, DURATION_PATTERN, PERCENT_PATTERN, TOLERANCE_PATTERN}
    quantities, others = set[str](), set[str]()
    for name, field in _fields(planned):
        found = {field.get("pattern"), field.get("items", {}).get("pattern")} & patterns
        (quantities if found else others).add(name)
    assert quantities | {"passShare", "times", "plus"} == known
    assert others & known == {"passShare", "times", "plus"}, "each is read as a quantity"


# --- a status of version 0.1.0

DELTA = {"name": "delta", "features": ["delta"], "steps": [{"percent": 100, "hold": "600s"}]}


def with_delta(data: dict[str, Any]) -> None:
    """A third phase."""
    data["features"].append({"name": "delta"})
    data["phases"].append(DELTA)


@pytest.mark.parametrize("end_time", [True, False])
@pytest.mark.parametrize("at_once", [True, False], ids=["edited during the upgrade", "edited later"])
def test_what_version_0_1_0_promoted_stays_on(*, at_once: bool, end_time: bool) -> None:
    """A breach in a phase that was added later turns off that phase alone."""
    world = World(spec())
    world.until(ended)
    records = [record.updated(promoted_time=None) for record in world.status.phases]
    if not end_time:
        records = [record.updated(end_time=None) for record in records]
    world.status = world.status.updated(phases=tuple(records), observed_plan=None)
    if not at_once:
        world.run(30)
    world.edit(edited(with_delta))
    world.until(at("delta", 1))
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    world.run(300)
    assert world.percents() == {"one": "100", "two": "100", "delta": "0"}
    assert [record.promoted_time is not None for record in world.status.phases] == [True, True, False]


def test_phases_of_a_rollout_that_runs_are_not_promoted_by_an_upgrade() -> None:
    """Guards protect them until the promotion."""
    world = World(spec())
    world.until(at("two", 1))
    world.status = world.status.updated(observed_plan=None)
    world.run(20)
    first = world.status.phase("one")
    assert first is not None
    assert (first.state, first.promoted_time) == (PhaseState.COMPLETED, None)
    assert world.status.observed_plan is not None


@pytest.mark.parametrize("how", ["edit", "Retry"])
def test_pause_outlives_a_rollback_and_ends_with_a_retry(how: str) -> None:
    """Somebody has frozen the rollout, and a guard has rolled it back since: an edit in Git is no `Resume`."""
    world = World(spec())
    world.until(at("two", 1))
    world.request("Pause")
    world.run(10)
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    world.values["errors"] = Decimal("0.001")
    if how == "edit":
        world.edit(with_another_plan())
        world.run(600)
        assert (world.condition("Paused"), world.percents()["two"]) == ("True", "0")
        world.request("Resume")
    else:
        world.request("Retry", generation=1)
    world.until(at("two", 1))


@pytest.mark.parametrize("stored", [False, True], ids=["refused", "restored"])
def test_plan_that_the_document_was_rolled_back_with_is_not_tried_again(*, stored: bool) -> None:
    """The status is from before that plan, and the spec of now has it with another field that is no part of it."""
    guards = [{"name": "errors", "metric": "errors", "below": "5%"}]
    world = World(spec(guards=guards))
    world.until(at("one", 2, 1))
    before = world.status
    world.edit(with_another_plan(guards=guards))
    world.values["errors"] = Decimal("0.5")
    world.run(60 if stored else 0)
    world.values["errors"], world.status, world.last_reconcile = Decimal("0.001"), before, None
    world.edit(with_another_plan(guards=guards, checkInterval="11s"))
    world.run(300)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.document is not None
    assert not world.document.gives_something
    world.edit(edited(step(0, hold="62s"), guards=guards))
    world.until(at("one", 1))
