"""The release after the bake: users who were held back get the features, guards are evaluated, and only then the rollout is promoted.

Not here: the steps before it (test_holdback.py).
"""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from core.counting import Counting
from core.holdbacks import ALL_OTHERS, CONTROL, audiences, baking, held_spec, holding, in_release, released
from core.world import GOOD, ended
from session_rollout.api.enums import CheckKind, CheckReason, DecisionReason, EventReason, Outcome, PhaseState, Stage, Verdict
from session_rollout.api.migration_enums import Operation
from session_rollout.core.flags import EVERYBODY, NOBODY, Audience

ALL = {"alpha": EVERYBODY, "beta": EVERYBODY}
HELD_BACK = {"alpha": ALL_OTHERS, "beta": ALL_OTHERS}
BREACH = Decimal("0.2")
TEN_INTERVALS = timedelta(seconds=100)


def test_everybody_has_the_features_after_the_bake() -> None:
    """For ten intervals before the rollout is promoted, whatever the bake is."""
    world = in_release()
    began = world.now
    assert audiences(world) == ALL
    event = world.entries(EventReason.HOLDBACK_RELEASED)[0]
    assert (event.message, event.audience) == ("the 2% of users who were held back get the features, too", "100%")
    assert event.revision == world.status.flags.revision
    bake = world.entries(EventReason.BAKE_STARTED)[0].time
    assert began - bake >= timedelta(seconds=60)
    world.run(60)
    assert world.status.decision.reason is DecisionReason.BAKING
    assert "holding what users who were held back have got for 1 min 40 s" in world.status.decision.message
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert world.now - began >= TEN_INTERVALS
    assert len(world.entries(EventReason.HOLDBACK_RELEASED)) == 1
    flags = world.status.flags
    assert (flags.holdback, flags.released_time, [record.held_back for record in world.status.phases]) == (
        None,
        None,
        [None] * 2,
    )
    assert audiences(world) == ALL


def test_without_a_bake_guards_are_evaluated_all_the_same() -> None:
    world = in_release(held_spec(bake="0s"))
    began = world.now
    world.until(ended)
    assert world.now - began >= TEN_INTERVALS


def test_nothing_is_released_without_a_holdback() -> None:
    world = holding(held_spec(control={**CONTROL, "holdback": "0%"}))
    world.until(ended)
    assert not world.entries(EventReason.HOLDBACK_RELEASED)
    assert world.transitions.count((Stage.BAKE, Stage.BAKE)) == 0


def test_a_phase_that_gives_them_nothing_anyway_needs_no_release() -> None:
    """It ends before the last users of the hash, and has no groups."""
    data = held_spec().to_wire()
    for phase in data["phases"]:
        phase["steps"] = [{"percent": 20, "hold": "60s"}, {"percent": 98, "hold": "60s"}]
    world = holding(held_spec(phases=data["phases"]))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert not world.entries(EventReason.HOLDBACK_RELEASED)


def test_members_of_a_group_are_released_where_no_percentage_reaches_them() -> None:
    steps = [{"percent": 20, "groups": ["staff"], "hold": "60s"}, {"percent": 50, "groups": ["staff"], "hold": "60s"}]
    world = in_release(held_spec(phase={"steps": steps}))
    assert audiences(world) == {"alpha": Audience(Decimal(50), ("staff",)), "beta": EVERYBODY}


def test_nobody_is_compared_after_the_release() -> None:
    """Guards on all users are all that is left."""
    world = in_release()
    world.rates = (0.05, 0.001)
    world.run(50)
    assert world.verdict(CheckKind.GUARD) == (Verdict.PASS, CheckReason.NO_CONTROL)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize(
    ("scope", "left"),
    [("Step", {"alpha": ALL_OTHERS}), ("Phase", {"alpha": ALL_OTHERS}), ("All", {"alpha": NOBODY})],
)
def test_a_breach_rolls_back_as_in_the_bake(scope: str, left: dict[str, object]) -> None:
    """What stays published is without these users again, and a `Retry` begins with them held back."""
    world = in_release(held_spec(rollback={"scope": scope}))
    world.values["errors"] = BREACH
    world.run(20)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert audiences(world) == {"beta": NOBODY, **left}
    assert world.status.flags.released_time is None
    world.values["errors"] = GOOD["errors"]
    world.run(60)
    world.request("Retry", generation=1)
    world.until(baking)
    assert audiences(world) == HELD_BACK
    world.until(ended)
    assert (world.status.outcome, audiences(world)) == (Outcome.PROMOTED, ALL)


def test_an_abort_holds_them_back_again() -> None:
    world = in_release()
    world.request("Abort", reason="no time")
    world.until(ended)
    assert audiences(world) == {"alpha": ALL_OTHERS, "beta": NOBODY}
    assert world.status.phases[0].state is PhaseState.COMPLETED


def test_an_emergency_stops_the_hold_of_the_release() -> None:
    """Its end gives the features to everybody: the release is not undone by it."""
    world = in_release()
    world.run(20)
    world.request("EmergencyDisable", reason="hot", features=["alpha"])
    world.run(300)
    assert (world.status.outcome, world.status.decision.reason) == (None, DecisionReason.FEATURE_DISABLED)
    assert audiences(world)["alpha"] == NOBODY
    world.request("EmergencyEnable", reason="cold", features=["alpha"])
    world.run(10)
    assert audiences(world) == ALL
    began = world.now
    world.until(ended)
    assert world.now - began >= TEN_INTERVALS
    assert len(world.entries(EventReason.HOLDBACK_RELEASED)) == 1


def test_nobody_is_released_in_an_emergency() -> None:
    world = holding()
    world.until(baking)
    world.request("EmergencyDisable", reason="hot", features=["alpha"])
    world.run(600)
    assert world.status.flags.released_time is None
    assert audiences(world) == {"alpha": NOBODY, "beta": ALL_OTHERS}


def test_nobody_is_released_while_a_guard_fails_or_is_blind() -> None:
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}
    world = holding(held_spec(guards=[guard]))
    world.until(baking)
    for value in (BREACH, Verdict.NO_DATA):
        world.values["errors"] = value
        world.run(200)
        assert audiences(world) == HELD_BACK
    world.values["errors"] = GOOD["errors"]
    world.until(released)


def test_the_release_waits_for_a_window() -> None:
    """It gives a feature to users, as a step does."""
    world = holding(held_spec(windows=[{"days": ["Mon"], "from": "10:00", "to": "10:20"}], bake="20m"))
    world.until(baking)
    world.run(1600)
    assert (world.status.decision.reason, audiences(world)) == (DecisionReason.AWAITING_WINDOW, HELD_BACK)


def test_a_pause_keeps_them_held_back() -> None:
    world = holding()
    world.until(baking)
    world.request("Pause", reason="look")
    world.run(600)
    assert audiences(world) == HELD_BACK
    world.request("Resume", reason="good")
    world.until(ended)
    assert audiences(world) == ALL


# --- failures between the decision and the document


def undelivered() -> Counting:
    """The release is decided, and the API server does not accept its document."""
    world = holding()
    world.until(baking)
    world.publishing = False
    world.until(lambda world: world.status.flags.released_time is not None)
    return world


def test_the_hold_begins_when_the_release_is_read_back() -> None:
    world = undelivered()
    world.run(300)
    assert (world.status.outcome, world.status.current.hold_until, audiences(world)) == (None, None, HELD_BACK)
    assert world.status.decision.reason is DecisionReason.PUBLISHING
    assert not world.entries(EventReason.HOLDBACK_RELEASED)
    world.publishing = True
    world.run(10)
    began = world.now
    assert audiences(world) == ALL
    world.until(ended)
    assert world.now - began >= TEN_INTERVALS


def test_what_is_not_read_back_is_still_compared() -> None:
    """Users have what they had: harm is seen while the document cannot be written."""
    world = undelivered()
    world.rates = (0.05, 0.001)
    world.run(60)
    assert world.status.current.rollback_guard == "failures"
    world.publishing = True
    world.until(ended)
    assert audiences(world) == {"alpha": NOBODY, "beta": NOBODY}


def test_a_guard_that_fails_before_the_write_succeeds_keeps_them_held_back() -> None:
    """An intent is no reason to give users more when they should not have it now."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}
    world = holding(held_spec(guards=[guard]))
    world.until(baking)
    world.publishing = False
    world.until(lambda world: world.status.flags.released_time is not None)
    world.values["errors"] = BREACH
    world.run(20)
    world.publishing = True
    world.run(100)
    assert audiences(world) == HELD_BACK
    world.values["errors"] = GOOD["errors"]
    world.until(released)
    assert audiences(world) == ALL


def test_a_pause_before_the_write_succeeds_keeps_them_held_back() -> None:
    world = undelivered()
    world.request("Pause", reason="look")
    world.run(20)
    world.publishing = True
    world.run(60)
    assert audiences(world) == HELD_BACK
    world.request("Resume", reason="good")
    world.until(ended)
    assert audiences(world) == ALL


def test_an_emergency_before_the_write_succeeds_keeps_the_others_held_back() -> None:
    """Whoever was to get the features waits for its end."""
    world = undelivered()
    world.request("EmergencyDisable", reason="hot", features=["alpha"])
    world.run(20)
    world.publishing = True
    world.run(60)
    assert audiences(world) == {"alpha": NOBODY, "beta": ALL_OTHERS}
    world.request("EmergencyEnable", reason="cold", features=["alpha"])
    world.until(ended)
    assert (world.status.outcome, audiences(world)) == (Outcome.PROMOTED, ALL)


def test_a_document_that_is_deleted_before_the_write_succeeds_takes_nothing_away() -> None:
    """What comes back is what users had, while nothing more may be published."""
    world = undelivered()
    world.request("Pause", reason="look")
    world.run(20)
    world.document, world.publishing = None, True
    world.run(60)
    assert audiences(world) == HELD_BACK


def test_a_rollback_of_a_release_that_was_not_published() -> None:
    world = undelivered()
    world.request("Abort", reason="no time")
    world.run(20)
    world.publishing = True
    world.until(ended)
    assert audiences(world) == {"alpha": ALL_OTHERS, "beta": NOBODY}


@pytest.mark.parametrize("crash", range(12))
def test_a_crash_at_each_write_of_the_release_changes_nothing(crash: int) -> None:
    """The status has the intent: the next process publishes it, and holds it for as long."""
    world = holding()
    world.until(baking)
    world.until(lambda world: world.status.current.hold_until is not None)
    world.now = (world.status.current.hold_until or world.now) + timedelta(seconds=10)
    for number in range(14):
        world.reconcile(crash_before_effects=number == crash)
        world.now += timedelta(seconds=10 if number >= 8 else 0)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    assert audiences(world) == ALL
    start = world.entries(EventReason.HOLDBACK_RELEASED)
    assert len(start) == 1
    assert world.entries(EventReason.PROMOTED)[0].time - start[0].time >= TEN_INTERVALS


def test_a_new_process_continues_the_release() -> None:
    world = in_release()
    world.run(50)
    until = world.status.current.hold_until
    world.last_reconcile = world.now
    world.reconcile()
    assert world.status.current.hold_until == until
    world.last_reconcile = None  # nobody knows how long nobody looked
    world.reconcile()
    assert world.status.current.hold_until == world.now + TEN_INTERVALS


# --- copies


def test_no_copy_is_finished_before_the_release() -> None:
    """Users who are held back write to its source."""
    migrations = [{"name": "rows", "configMapRef": {"name": "shop-sql"}, "change": "Migrate"}]
    database = {"secretKeyRef": {"name": "shop-db", "key": "url"}}
    world = holding(held_spec(migrations=migrations, database=database, phase={"migrations": {"before": ["rows"]}}))
    world.progress = {"following": True, "done": 10, "total": 10}
    world.until(baking)
    while not released(world):
        assert world.migration("rows").operation is not Operation.FINISH
        world.run(10)
    assert world.migration("rows").operation is not Operation.FINISH
    world.until(lambda world: world.migration("rows").operation is Operation.FINISH)
    assert world.now - world.entries(EventReason.HOLDBACK_RELEASED)[0].time >= TEN_INTERVALS
    world.progress = {}
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_a_clock_that_was_set_back_ends_no_release_early() -> None:
    world = in_release()
    world.run(30)
    world.now -= timedelta(hours=1)
    began = world.now
    world.until(ended)
    assert world.now - began >= TEN_INTERVALS


def test_another_writer_of_the_release_is_corrected() -> None:
    """To everybody: the document with users held back is an older one."""
    world = in_release()
    assert world.document is not None
    world.document = replace(world.document, sha256="sha256:other", version=99, editor="kubectl", audiences=HELD_BACK)
    world.run(10)
    assert audiences(world) == ALL
