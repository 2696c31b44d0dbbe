"""What keeps the first publish of a phase back: guards that fail, also in a gap, and baselines of the last moment before it.

Not here: a guard that fails before anything was published (test_guards), and what a baseline covers (test_baselines).
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.collecting import SIGNED, verified
from core.world import GOOD, World, at, edited, ended, rollout_data, spec, with_another_plan
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, Outcome, Stage, Verdict
from session_rollout.api.rollout import RolloutSpec
from session_rollout.core.flags import Audience

FOR_LONG = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}


def signed(guard: dict[str, Any], *others: dict[str, Any], **changes: Any) -> RolloutSpec:
    """Phase two begins when somebody approves phase one, which everybody has."""
    data = rollout_data(guards=[guard, *others], **changes)
    verified(SIGNED)(data)
    for phase in data["phases"]:
        phase["criteria"] = []
    return RolloutSpec.model_validate(data)


def before_two(plan: RolloutSpec) -> World:
    """Everybody has phase one, and phase two has not begun."""
    world = World(plan)
    world.until(lambda world: world.status.current.stage is Stage.VERIFICATION)
    world.run(60)
    return world


def begin_two(world: World, seconds: float = 60) -> None:
    """Phase two reaches its baseline."""
    world.request("Approve", generation=1, check="signed")
    world.run(seconds)
    assert world.where[0] == "two"


@pytest.mark.parametrize("gap", [Verdict.NO_DATA, Verdict.INCONCLUSIVE, Verdict.PROVIDER_ERROR])
def test_first_publish_waits_for_the_end_of_a_failure_that_is_in_a_gap(gap: Verdict) -> None:
    """D15: a gap does not end a failure, so that its last minute may be this one."""
    world = before_two(signed(FOR_LONG))
    world.values["errors"] = Decimal("0.9")
    world.run(540)
    world.values["errors"] = gap
    begin_two(world, 600)
    assert (world.reason, world.percents()["two"]) == (DecisionReason.GUARD_FAILING, "0")
    world.values["errors"] = Decimal("0.9")
    world.until(ended, seconds=120)
    assert (world.status.outcome, world.percents()["one"]) == (Outcome.ROLLED_BACK, "0")


def test_first_publish_follows_when_a_guard_in_a_gap_passes() -> None:
    """A failure that was shorter than `for` ends with the next pass."""
    world = before_two(signed(FOR_LONG))
    world.values["errors"] = Decimal("0.9")
    world.run(60)
    world.values["errors"] = Verdict.NO_DATA
    begin_two(world)
    assert world.reason is DecisionReason.GUARD_FAILING
    world.values["errors"] = Decimal("0.001")
    world.until(at("two", 1), seconds=60)


def test_promote_grows_no_audience_in_the_gap_of_a_failure() -> None:
    """An action skips the evidence of a step, but not a guard that has failed and not passed since."""
    world = World(spec(guards=[FOR_LONG]))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.9")
    world.run(30)
    world.values["errors"] = Verdict.NO_DATA
    world.request("Promote", generation=1, phase="one", step=1)
    world.run(120)
    assert (world.where[:2], world.reason) == (("one", 1), DecisionReason.GUARD_FAILING)


@pytest.mark.parametrize("again", [False, True], ids=["first publish", "retry"])
def test_first_publish_waits_for_a_guard_that_was_measured_in_part(*, again: bool) -> None:
    """A partial answer may hide any value, and does not become whole by the first users."""
    world = World(spec(guards=[FOR_LONG]))
    if again:
        world.until(at("one", 1))
        world.values["errors"] = Decimal("0.9")
        world.until(ended)
        world.request("Retry", generation=1)
    world.values["errors"] = Verdict.INCONCLUSIVE
    world.run(600)
    assert (world.reason, world.percents()["one"]) == (DecisionReason.AWAITING_EVIDENCE, "0")
    world.values["errors"] = Decimal("0.001")
    world.until(at("one", 1))


@pytest.mark.parametrize("lost", [Verdict.NO_DATA, "few events"])
def test_guard_that_had_a_verdict_is_not_lost_before_the_next_phase(lost: Verdict | str) -> None:
    """Users of the phase before exist, and their guard had events: without them now, nobody gets more."""
    guard = {**FOR_LONG, "minimum": {"metric": "load", "above": "0.1"}}
    world = before_two(signed(guard))
    world.values["errors" if lost is Verdict.NO_DATA else "load"] = Verdict.NO_DATA if lost is Verdict.NO_DATA else Decimal(0)
    world.run(60)
    begin_two(world)
    world.run(600)
    assert (world.percents()["two"], world.reason) == ("0", DecisionReason.AWAITING_EVIDENCE)
    world.values |= GOOD
    world.until(at("two", 1))


BELOW_5 = {"name": "errors", "metric": "errors", "below": "5%"}
AFTERWARDS = {
    "retry": lambda world: world.request("Retry", generation=1),
    "edit": lambda world: world.edit(with_another_plan(guards=[BELOW_5])),
}


@pytest.mark.parametrize("how", AFTERWARDS.values(), ids=AFTERWARDS)
@pytest.mark.parametrize("phase", ["one", "two"])
def test_guard_that_rolled_back_and_is_blind_since_keeps_the_next_attempt_back(how: Callable[[World], Any], phase: str) -> None:
    """Its exporter went with the incident: it could not roll back again."""
    world = World(spec(guards=[BELOW_5]))
    world.until(at(phase, 1))
    world.values["errors"] = Decimal("0.5")
    world.until(lambda world: world.percents()[phase] == "0")
    world.values["errors"] = Verdict.NO_DATA
    world.run(600)
    how(world)
    world.run(600)
    assert (world.percents()[phase], world.reason) == ("0", DecisionReason.AWAITING_EVIDENCE)
    world.values |= GOOD
    world.until(at(phase, 1))


def test_guard_that_is_blind_after_the_promotion_keeps_a_new_phase_back() -> None:
    data = rollout_data(guards=[BELOW_5])
    world = World(RolloutSpec.model_validate({**data, "phases": data["phases"][:1]}))
    world.until(ended)
    world.values["errors"] = Verdict.NO_DATA
    world.run(600)
    world.edit(RolloutSpec.model_validate(data))
    world.run(600)
    assert (world.percents(), world.reason) == ({"one": "100", "two": "0"}, DecisionReason.AWAITING_EVIDENCE)


@pytest.mark.parametrize("how", AFTERWARDS.values(), ids=AFTERWARDS)
def test_guard_whose_events_need_users_waits_for_none_without_users(how: Callable[[World], Any]) -> None:
    """Its metric is about requests with the feature alone: without users there are none, and there never were."""
    world = World(spec(guards=[BELOW_5]), ranges={"errors": timedelta(seconds=60)})
    world.values["errors"] = Verdict.NO_DATA
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.5")
    world.until(ended, seconds=120)
    world.values["errors"] = Verdict.NO_DATA
    world.run(600)
    how(world)
    world.until(at("one", 1))
    assert world.reason is DecisionReason.AWAITING_EVIDENCE


def test_values_of_users_who_are_gone_are_no_values_without_users() -> None:
    """For as long as its query covers them, the metric has values after a rollback, too."""
    world = World(spec(guards=[BELOW_5]), ranges={"errors": timedelta(seconds=600)})
    world.values["errors"] = Verdict.NO_DATA
    world.until(at("one", 1))
    world.run(600)
    world.values["errors"] = Decimal("0.5")
    world.until(ended, seconds=120)
    world.request("Retry", generation=1)
    world.run(60)
    world.values["errors"] = Verdict.NO_DATA
    world.run(600)
    world.request("Abort")
    world.until(ended, seconds=60)
    assert world.check(CheckKind.GUARD, "errors").needs_users is True


def test_edit_gives_no_more_while_a_guard_is_lost() -> None:
    """The step with the audience that users have leaves the spec: the next one waits for evidence about it."""
    world = World(spec(guards=[FOR_LONG]))
    world.until(at("one", 1))
    world.values["errors"] = Verdict.NO_DATA
    world.run(60)
    world.edit(edited(lambda data: data["phases"][0]["steps"][0].update(percent=30), guards=[FOR_LONG]))
    world.run(600)
    assert world.document is not None
    assert world.document.audiences["alpha"] == Audience(Decimal(10), ("staff",))
    world.values |= GOOD
    world.until(at("one", 1))
    assert world.document.audiences["alpha"] == Audience(Decimal(30), ("staff",))


def test_first_publish_does_not_wait_for_events() -> None:
    """A guard with `minimum` may get its events with the first users, as one without data may get data."""
    data = rollout_data(guards=[{**FOR_LONG, "minimum": {"metric": "requests", "above": "20"}}])
    data["metrics"].append({"name": "requests", "query": "requests"})
    world = World(RolloutSpec.model_validate(data))
    world.values["requests"] = Decimal(0)
    world.until(at("one", 1), seconds=60)
    assert world.check(CheckKind.GUARD, "errors").reason is CheckReason.BELOW_MINIMUM


# --- baselines

LATENCY = {"name": "latency", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "20%", "for": "10m"}
INCIDENT = {"name": "errors", "metric": "errors", "below": "5%", "for": "2h"}


def compared(**changes: Any) -> RolloutSpec:
    """One phase with a criterion that is compared with its baseline."""
    data = rollout_data(**changes)
    data["features"], data["phases"] = data["features"][:2], data["phases"][:1]
    data["metrics"].append({"name": "requests", "query": "requests"})
    return RolloutSpec.model_validate(data)


def baseline(world: World, kind: CheckKind = CheckKind.CRITERION, name: str = "load") -> str | None:
    """What a check is compared with."""
    return world.check(kind, name).baseline


@pytest.mark.parametrize("lasts", [True, False])
def test_breach_of_users_of_an_earlier_phase_is_never_the_next_baseline(*, lasts: bool) -> None:
    """A guard keeps its failure and its baseline until the next phase is published, which it keeps back."""
    world = before_two(signed(LATENCY))
    world.values["load"] = Decimal(3)
    world.run(300)
    begin_two(world, 120)
    record = world.check(CheckKind.GUARD, "latency")
    assert (world.reason, record.baseline, record.verdict) == (DecisionReason.GUARD_FAILING, "1.0", Verdict.FAIL)
    if not lasts:
        world.values["load"] = Decimal("1.1")
        world.until(at("two", 1), seconds=60)
        assert baseline(world, CheckKind.GUARD, "latency") == "1.1"
        return
    world.until(ended, seconds=240)
    assert (world.status.outcome, world.percents()) == (Outcome.ROLLED_BACK, {"one": "0", "two": "0"})


def test_earlier_failures_of_a_guard_count_in_the_next_phase() -> None:
    """`outOf` counts results, whatever they were compared with."""
    world = before_two(signed({**LATENCY, "for": "0s", "outOf": "3/5"}))
    for value in (3, 1):
        world.values["load"] = Decimal(value)
        world.run(10)
    begin_two(world, 10)
    world.until(at("two", 1), seconds=60)
    assert "FF" in (world.check(CheckKind.GUARD, "latency").results or "")


def test_guard_that_only_warns_keeps_the_baseline_that_it_warns_of() -> None:
    """It keeps no phase back, and must not fall silent because one begins."""
    world = before_two(signed({**LATENCY, "for": "0s", "onBreach": "Warn"}))
    world.values["load"] = Decimal(3)
    begin_two(world)
    assert world.percents()["two"] != "0"
    record = world.check(CheckKind.GUARD, "latency")
    assert (record.baseline, record.verdict) == ("1.0", Verdict.FAIL)


def test_breach_of_users_of_an_earlier_phase_is_no_baseline_after_a_retry() -> None:
    """The phase that was rolled back is not the one that its users still have."""
    world = before_two(signed(LATENCY))
    begin_two(world)
    world.request("Abort")
    world.until(ended)
    world.values["load"] = Decimal(3)
    world.run(60)
    world.request("Retry", generation=1)
    world.run(300)
    assert (baseline(world, CheckKind.GUARD, "latency"), world.percents()["two"]) == ("1.0", "0")
    world.until(ended)
    assert (world.status.outcome, world.percents()["one"]) == (Outcome.ROLLED_BACK, "0")


def test_baseline_of_an_incident_does_not_count() -> None:
    """While a guard fails, nothing is published, and what is measured is not the norm."""
    world = World(compared(guards=[INCIDENT]))
    world.values |= {"load": Decimal(9), "errors": Decimal("0.5")}
    world.run(3600)
    assert world.reason is DecisionReason.GUARD_FAILING
    world.values |= {"load": Decimal(1), "errors": Decimal("0.001")}
    world.until(at("one", 1))
    assert baseline(world) == "1"
    world.values["load"] = Decimal(8)
    world.run(600)
    assert world.where[:2] == ("one", 1)


def test_baseline_covers_no_part_of_an_incident() -> None:
    """The guard has a shorter range, and passes while the query of the baseline is still about the incident."""
    world = World(compared(guards=[INCIDENT]), ranges={"load": timedelta(minutes=15)})
    world.values |= {"load": Decimal(9), "errors": Decimal("0.5")}
    world.run(600)
    world.values["errors"] = Decimal("0.001")
    world.run(60)
    assert (world.reason, world.percents()["one"]) == (DecisionReason.MEASURING_BASELINE, "0")
    world.values["load"] = Decimal(1)
    took = world.until(at("one", 1))
    assert (baseline(world), took >= 780) == ("1", True)


def test_baseline_is_that_of_the_publish_and_not_of_another_day() -> None:
    """A window may open a weekend after the value was measured first."""
    world = World(compared(windows=[{"days": ["Tue"], "from": "10:00", "to": "16:00"}]))
    world.values["load"] = Decimal(9)
    world.run(60)
    assert (world.reason, baseline(world)) == (DecisionReason.AWAITING_WINDOW, "9")
    world.values["load"] = Decimal(1)
    world.until(at("one", 1), seconds=90_000, tick=60)
    assert baseline(world) == "1"


def test_wait_for_a_window_writes_no_status() -> None:
    """The value changes with every result; only the last one is kept."""
    world = World(compared(windows=[{"days": ["Tue"], "from": "10:00", "to": "16:00"}]))
    world.run(60)
    writes = world.writes
    for value in range(60):
        world.values["load"] = Decimal(1 + value)
        world.run(10)
    assert world.writes == writes


def test_guard_fails_against_no_time_that_has_passed_while_nobody_has_anything() -> None:
    """The norm of the night is no bound for the day; a first phase that waits for its window is compared with that moment."""
    world = World(compared(guards=[LATENCY], windows=[{"days": ["Tue"], "from": "10:00", "to": "16:00"}]))
    world.run(60)
    world.values["load"] = Decimal(3)
    world.until(at("one", 1), seconds=90_000, tick=60)
    assert (baseline(world), baseline(world, CheckKind.GUARD, "latency")) == ("3", "3")


@pytest.mark.parametrize("kind", ["criterion", "guard"])
def test_baseline_needs_as_many_events_as_a_verdict(kind: str) -> None:
    """What three requests took is no norm: a regression would pass against it."""
    data = rollout_data(guards=[LATENCY] if kind == "guard" else [])
    data["metrics"].append({"name": "requests", "query": "requests"})
    checks = data["guards"] if kind == "guard" else [data["phases"][0]["criteria"][1]]
    checks[0]["minimum"] = {"metric": "requests", "above": "500"}
    world = World(RolloutSpec.model_validate(data))
    world.values |= {"load": Decimal("9.5"), "requests": Decimal(3)}
    world.run(600)
    assert (world.reason, world.percents()["one"]) == (DecisionReason.MEASURING_BASELINE, "0")
    world.values |= {"load": Decimal(1), "requests": Decimal(5000)}
    world.until(at("one", 1))
    assert baseline(world) == "1"
