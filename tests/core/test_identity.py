"""Which record a check continues after an edit: the one of what it measures and of its bound, whatever its name and its spelling.

Not here: what another query, window or provider drops (test_baselines, test_edits).
"""

from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, ended, rollout_data, spec
from session_rollout.api.base import sha256_of
from session_rollout.api.enums import CheckKind, Outcome, Verdict
from session_rollout.api.rollout import RolloutSpec

GUARD = {"name": "a", "metric": "errors", "below": "5%", "for": "5m"}


def guarded(*guards: dict[str, Any], **metric: Any) -> RolloutSpec:
    """The usual rollout with these guards and another definition of `errors`."""
    data = rollout_data(guards=list(guards))
    data["metrics"][0].update(query="sum(rate(errors[1h]))")
    data["metrics"][0].update(metric)
    return RolloutSpec.model_validate(data)


def failing(world: World) -> dict[str, bool]:
    """Which guards have an open failure."""
    return {record.name: record.failing_time is not None for record in world.status.checks if record.kind is CheckKind.GUARD}


@pytest.mark.parametrize(
    "edits",
    [
        [guarded({**GUARD, "name": name}) for name in "bcdef"],
        [guarded({**GUARD, "name": name, "below": bound}) for name, bound in (("b", "0.05"), ("c", "50ms"), ("d", "5.0%"))],
        [guarded(GUARD, query=f"sum(rate(errors[1h]{' ' * count}))") for count in range(1, 6)],
        [
            guarded(GUARD, query=query)
            for query in ("sum(rate(errors[60m]))", "sum(rate(errors[1h])) # now", "sum (rate(errors{}[1h]))")
        ],
        [guarded(GUARD, query=query) for query in ("rollup(x[i])  +  1", "rollup(x[i]) # one\n + 1", " rollup(x[i]) + 1")],
    ],
    ids=["name", "name and number", "space", "spelling", "not PromQL"],
)
def test_names_and_spellings_do_not_end_a_breach(edits: list[RolloutSpec]) -> None:
    """A tool that puts a version into a name must not keep a guard from acting."""
    world = World(edits[0])
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.9")
    for plan in [*edits, *edits, *edits]:
        world.run(40)
        world.edit(plan)
    world.run(40)
    assert world.status.outcome is Outcome.ROLLED_BACK or world.percents()["one"] == "0"


def test_message_names_the_guard_as_it_is_called_now() -> None:
    """On-call looks for that name in the spec."""
    world = World(guarded(GUARD))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.9")
    world.run(20)
    world.edit(guarded({**GUARD, "name": "b"}))
    world.until(ended)
    assert world.status.current.rollback_guard == "b"
    assert world.status.current.rollback_reasons[0].startswith("b 90%")


def test_each_guard_of_a_metric_keeps_its_own_failure() -> None:
    """Of two guards, one warns early: the other one must not get its failure with its new name."""
    early, late = {**GUARD, "name": "early", "below": "1%", "onBreach": "Warn"}, {**GUARD, "name": "late"}
    world = World(guarded(early, late))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.02")
    world.run(20)
    world.edit(guarded({**late, "name": "x"}, {**early, "name": "y"}))
    world.run(10)
    assert failing(world) == {"x": False, "y": True}


def test_guards_that_exchange_their_names_keep_their_failures() -> None:
    """A name says nothing about what is measured."""
    other = {"name": "b", "metric": "load", "below": "9"}
    world = World(guarded(GUARD, other))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.9")
    world.run(20)
    world.edit(guarded({**GUARD, "name": "b"}, {**other, "name": "a"}))
    world.run(10)
    assert failing(world) == {"a": False, "b": True}


@pytest.mark.parametrize("change", [{"below": "4%"}, {"for": "6m"}])
def test_guard_with_the_same_name_keeps_its_failure_with_another_bound(change: dict[str, Any]) -> None:
    """An edit does not end a breach; a bound that is wide enough ends it with the next result."""
    world = World(guarded(GUARD))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.9")
    world.run(20)
    since = world.check(CheckKind.GUARD, "a").failing_time
    world.edit(guarded({**GUARD, **change}))
    world.run(10)
    assert world.check(CheckKind.GUARD, "a").failing_time == since
    world.edit(guarded({**GUARD, "below": "95%"}))
    world.run(10)
    assert failing(world) == {"a": False}


def test_criterion_with_another_name_keeps_its_baseline() -> None:
    """It was measured before the phase, and cannot be measured again."""
    world = World(spec())
    world.until(at("one", 1))
    data = rollout_data()
    data["phases"][0]["criteria"][1]["name"] = "burden"
    world.edit(RolloutSpec.model_validate(data))
    world.run(10)
    assert world.check(CheckKind.CRITERION, "burden").baseline == "1.0"


def test_record_of_an_older_operator_is_known() -> None:
    """It has the fingerprint of the query as it was written, and none of the bound: an upgrade drops no failure."""
    world = World(guarded(GUARD))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.9")
    world.run(20)
    since = world.check(CheckKind.GUARD, "a").failing_time
    written = sha256_of('default {"query":"sum(rate(errors[1h]))","cohorts":null,"window":null}').removeprefix("sha256:")[:16]
    checks = tuple(record.updated(source=written, definition=None) for record in world.status.checks)
    world.status = world.status.updated(checks=checks)
    world.run(10)
    record = world.check(CheckKind.GUARD, "a")
    assert (record.verdict, record.failing_time, record.source != written) == (Verdict.FAIL, since, True)
