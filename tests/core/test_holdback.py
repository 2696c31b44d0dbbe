"""Users who are held back in each phase: there is a control to the end of the bake, and none of them has a feature before the release.

Not here: the release (test_release.py), edits and documents of another status (test_holdback_edits.py), what evaluators make of the
document (test_held_back_users.py), and which specs are allowed (tests/api).
"""

from decimal import Decimal

import pytest

from core.counting import in_step
from core.holdbacks import ALL_OTHERS, CONTROL, audiences, baking, held_spec, holding, last_step, released
from core.world import ended
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, EventReason, Outcome, Verdict
from session_rollout.core.flags import EVERYBODY, NOBODY, Audience


def test_everybody_else_has_the_last_step() -> None:
    """The status says so, and keeps the percentage as it was published first."""
    world = holding()
    world.until(last_step)
    assert audiences(world) == {"alpha": ALL_OTHERS, "beta": NOBODY}
    current, record, flags = world.status.current, world.status.phases[0], world.status.flags
    assert (current.percent, current.audience, record.percent, record.held_back) == ("100", "100% (2% held back)", "100", "2")
    assert (flags.holdback, flags.released_time) == ("2", None)


def test_a_small_step_is_the_same_with_and_without_it() -> None:
    """Users who are held back are not among the first of the hash."""
    world, plain = holding(), holding(held_spec(control={**CONTROL, "holdback": "0%"}))
    for each in (world, plain):
        each.until(in_step("20"))
    assert world.documents[-1] == plain.documents[-1]
    assert world.status.current.audience == "20%"
    assert (plain.status.phases[0].held_back, plain.status.flags.holdback) == (None, "0")


def test_groups_are_held_back_too() -> None:
    steps = [{"percent": 20, "groups": ["staff"], "hold": "60s"}, {"percent": 100, "groups": ["staff"], "hold": "60s"}]
    world = holding(held_spec(phase={"steps": steps}))
    world.until(in_step("20"))
    assert audiences(world)["alpha"] == Audience(Decimal(20), ("staff",), held_back=Decimal(2))
    assert world.status.current.audience == "20%+staff (2% held back)"


@pytest.mark.parametrize(("percent", "given"), [("98", "98"), ("98.5", "98"), ("99.9", "98")])
def test_a_step_that_reaches_some_of_them_ends_before_them(percent: str, given: str) -> None:
    """Its name stays, whoever reads the status."""
    steps = [{"percent": 20, "hold": "60s"}, {"percent": percent, "hold": "60s"}, {"percent": 100, "hold": "60s"}]
    world = holding(held_spec(phase={"steps": steps}))
    world.until(in_step(percent))
    assert audiences(world)["alpha"] == Audience(Decimal(given))
    assert world.status.current.audience == (f"{percent}% (2% held back)" if percent != given else "98%")
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_comparisons_go_on_at_100_percent() -> None:
    """A criterion has to pass there, too, and is not over because everybody has the feature."""
    world = holding()
    world.until(last_step)
    world.run(50)
    for kind, expected in (
        (CheckKind.CRITERION, CheckReason.HARMLESSNESS_SHOWN),
        (CheckKind.GUARD, CheckReason.HARMLESSNESS_SHOWN),
    ):
        assert world.verdict(kind) == (Verdict.PASS, expected)
    assert all(record.blocks > 10 for record in world.status.evidence)


def test_exposure_is_judged_by_the_share_that_users_have() -> None:
    """An application that gives everybody the feature does not apply the flag."""
    world = holding(traffic=10_000)
    world.until(last_step)
    world.applied = 99.9
    world.run(300)
    assert world.status.decision.reason is DecisionReason.NOT_APPLIED
    assert "98% is published" in world.status.decision.message


@pytest.mark.parametrize("place", ["last step", "bake"])
def test_harm_is_seen_where_everybody_else_has_the_feature(place: str) -> None:
    """Without a control, nothing would compare them."""
    world = holding()
    world.until(last_step if place == "last step" else baking)
    world.rates = (0.05, 0.001)
    world.until(ended, seconds=600)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.status.current.rollback_guard == "failures"
    assert audiences(world)["alpha"] == NOBODY


def test_nobody_is_compared_at_100_percent_without_it() -> None:
    """As before."""
    world = holding(held_spec(control={**CONTROL, "holdback": "0%"}))
    world.until(last_step)
    world.rates = (0.05, 0.001)
    world.run(50)
    assert world.verdict(CheckKind.GUARD) == (Verdict.PASS, CheckReason.NO_CONTROL)


def test_each_phase_holds_the_same_users_back() -> None:
    world = holding()
    world.until(baking)
    assert audiences(world) == {"alpha": ALL_OTHERS, "beta": ALL_OTHERS}
    assert [record.held_back for record in world.status.phases] == ["2", "2"]


@pytest.mark.parametrize("scope", ["Step", "Phase", "All"])
def test_a_rollback_keeps_them_out_and_a_retry_begins_with_them(scope: str) -> None:
    world = holding(held_spec(rollback={"scope": scope}))
    world.until(last_step)
    world.request("Abort", reason="no time")
    world.until(ended)
    assert audiences(world)["alpha"] == (Audience(Decimal(50)) if scope == "Step" else NOBODY)
    world.request("Retry", generation=1)
    world.until(last_step)
    assert audiences(world)["alpha"] == ALL_OTHERS
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("scope", ["Step", "Phase"])
def test_a_rollback_of_one_phase_leaves_them_out_of_the_others(scope: str) -> None:
    """In the step before its last one, which also ends before them."""
    data = held_spec().to_wire()
    data["phases"][1]["steps"] = [{"percent": 99, "hold": "60s"}, {"percent": 100, "hold": "60s"}]
    world = holding(held_spec(phases=data["phases"], rollback={"scope": scope}))
    world.until(lambda world: world.where[:2] == ("two", 2) and world.status.current.published_time is not None)
    world.request("Abort", reason="no time")
    world.until(ended)
    left = Audience(Decimal(98)) if scope == "Step" else NOBODY
    assert audiences(world) == {"alpha": ALL_OTHERS, "beta": left}
    world.request("Retry", generation=1)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert audiences(world) == {"alpha": EVERYBODY, "beta": EVERYBODY}


def test_an_emergency_gives_them_nothing_and_its_end_neither() -> None:
    world = holding()
    world.until(last_step)
    world.request("EmergencyDisable", reason="hot", features=["alpha"])
    world.run(20)
    assert audiences(world)["alpha"] == NOBODY
    world.request("EmergencyEnable", reason="cold", features=["alpha"])
    world.run(20)
    assert audiences(world)["alpha"] == ALL_OTHERS


def test_an_audience_that_could_not_be_published_lapses() -> None:
    """What users have is held again: without those who are held back."""
    steps = [{"percent": 20, "hold": "60s"}, {"percent": 99, "hold": "60s"}, {"percent": 100, "hold": "60s"}]
    world = holding(held_spec(phase={"steps": steps}))
    world.until(in_step("99"))
    world.publishing = False
    world.until(lambda world: world.where[1] == 3)
    world.until(lambda world: any(entry.event is EventReason.AUDIENCE_LAPSED for entry in world.history), seconds=300)
    world.publishing = True
    world.run(10)
    assert (world.where[1], world.status.current.percent, audiences(world)["alpha"]) == (2, "99", Audience(Decimal(98)))
    world.until(released)
