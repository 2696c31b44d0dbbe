"""A guard with a budget of harm: many bad events in the end, though the rate is what other guards tolerate."""

from core.counting import COMPARED, Counting, in_step, spec
from core.world import ended
from session_rollout.api.enums import CheckKind, CheckReason, Outcome, Verdict

BUDGET = {**COMPARED, "harmBudget": 100}


def harming(budget: int = 100, rates: tuple[float, float] = (0.006, 0.005), **fields: float) -> Counting:
    """A step that is held for long, while the feature makes a fifth more of its users' sessions fail."""
    steps = [{"percent": 20, "hold": "10h"}, {"percent": 100, "hold": "1m"}]
    phases = [{"name": "one", "features": ["alpha"], "steps": steps}]
    guards = [{**BUDGET, "harmBudget": budget}, {**COMPARED, "name": "tolerant"}]
    known = spec(features=[{"name": "alpha"}], phases=phases, guards=guards)
    world = Counting(known, traffic=10_000, rates=rates, **fields)  # type: ignore[arg-type]
    world.until(in_step("20"))
    return world


def test_harm_that_is_tolerated_ends_with_its_budget() -> None:
    """Two more in each block: the budget is used up after fifty, when harm is shown, and the other guard never fails."""
    world = harming()
    world.until(ended, seconds=3600)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.status.current.rollback_guard == "failures"
    begun = next(entry.time for entry in world.history if entry.event == "StepPublished")
    assert 500 <= (world.now - begun).total_seconds() <= 1500


def test_a_larger_budget_lasts_longer() -> None:
    """Harm is shown long before, and does not count alone."""
    world = harming(budget=2_000)
    world.run(3000)
    assert world.status.outcome is None
    assert world.verdict(CheckKind.GUARD) == (Verdict.INCONCLUSIVE, CheckReason.COMPARISON_OPEN)
    assert world.status.current.hold_paused_time is None
    world.until(ended, seconds=20_000, tick=20)
    assert world.status.current.rollback_guard == "failures"


def test_a_harmless_feature_uses_up_no_budget() -> None:
    """However many of its users' sessions fail."""
    world = harming(budget=1, rates=(0.005, 0.005))
    world.run(6_000, tick=20)
    assert world.status.outcome is None
    (record,) = (each for each in world.status.evidence if each.name == "failures")
    assert float(record.events.split()[0]) > 1_000
