"""Users who are held back, and what happens around them: edits of the spec, lost statuses, and edits of the document.

Not here: the steps (test_holdback.py) and the release (test_release.py) without any of these.
"""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from core.counting import Counting, in_step
from core.holdbacks import ALL_OTHERS, CONTROL, audiences, baking, held_spec, holding, in_release, last_step, released
from core.placebos import PLACEBO, REAL, in_placebo
from core.world import World, ended
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason, Outcome
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import RolloutStatus
from session_rollout.core.documents import read_document
from session_rollout.core.flags import EVERYBODY, NOBODY, Audience

OTHER = held_spec(control={**CONTROL, "holdback": "5%"})
OFF = held_spec(control={**CONTROL, "holdback": "0%"})
THIRD = {"name": "three", "features": ["gamma"], "steps": [{"percent": 20, "hold": "60s"}, {"percent": 100, "hold": "60s"}]}


def with_third_phase(**changes: Any) -> RolloutSpec:
    data = held_spec(**changes).to_wire()
    return RolloutSpec.model_validate(
        {**data, "features": [*data["features"], {"name": "gamma"}], "phases": [*data["phases"], THIRD]}
    )


# --- edits of the spec


@pytest.mark.parametrize(("before", "after"), [(held_spec(), OTHER), (held_spec(), OFF), (OFF, held_spec())])
def test_it_cannot_be_changed_while_users_have_a_feature(before: RolloutSpec, after: RolloutSpec) -> None:
    """Some users would lose a feature, or get it without a step. Nothing is lost, and the edit can be taken back."""
    world = holding(before)
    world.until(in_step("50"))
    given = audiences(world)
    world.edit(after)
    world.run(120)
    fixed = before.control.holdback
    assert world.status.decision.reason is DecisionReason.INVALID_SPEC
    assert world.status.decision.message == (
        f"`control.holdback` is {after.control.holdback}, but the features are published with {fixed}; keep {fixed} until the rollout is"
        " promoted"
    )
    assert audiences(world) == given
    world.edit(before)
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_what_an_earlier_version_has_published_holds_nobody_back() -> None:
    """Its status does not say so."""
    world = holding(OFF)
    world.until(in_step("50"))
    world.status = world.status.updated(flags=world.status.flags.updated(holdback=None))
    world.run(10)
    assert world.status.flags.holdback == "0"
    world.edit(held_spec())
    world.run(20)
    assert world.status.decision.reason is DecisionReason.INVALID_SPEC


@pytest.mark.parametrize("place", ["last step", "bake", "release"])
def test_a_change_that_is_refused_releases_nobody(place: str) -> None:
    world = holding()
    world.until({"last step": last_step, "bake": baking, "release": released}[place])
    given = audiences(world)
    world.edit(OFF)
    world.run(600)
    assert audiences(world) == given
    assert (world.status.outcome, world.status.decision.reason) == (None, DecisionReason.INVALID_SPEC)
    world.request("Abort", reason="no time")
    world.until(ended)
    assert ALL_OTHERS not in audiences(world).values() or place != "last step"


def test_another_spelling_is_no_change() -> None:
    world = holding()
    world.until(last_step)
    world.edit(held_spec(control={**CONTROL, "holdback": "2.0%"}))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_it_may_be_set_before_the_first_publish_and_in_a_placebo() -> None:
    """Nobody has a feature."""
    world = holding(held_spec(phase={"steps": [PLACEBO, *REAL]}, control={**CONTROL, "holdback": "0%"}))
    world.until(in_placebo)
    world.edit(held_spec(phase={"steps": [PLACEBO, *REAL]}))
    world.until(lambda world: world.status.current.percent == "100" and world.status.current.published_time is not None)
    assert audiences(world)["alpha"] == ALL_OTHERS


def test_it_may_be_changed_after_a_rollback_of_everything() -> None:
    """That is no other plan, which would begin by itself."""
    world = holding()
    world.until(last_step)
    world.request("Abort", reason="no time")
    world.until(ended)
    world.edit(OTHER)
    world.run(60)
    assert world.status.outcome is Outcome.ABORTED
    world.request("Retry", generation=2)
    world.until(last_step)
    assert audiences(world)["alpha"] == replace(ALL_OTHERS, held_back=Decimal(5))


def test_it_may_be_changed_after_the_promotion() -> None:
    """For the phases that follow: users keep what they have."""
    world = holding()
    world.until(ended)
    world.edit(OFF)
    world.run(60)
    assert world.status.outcome is Outcome.PROMOTED
    world.edit(with_third_phase(control={**CONTROL, "holdback": "5%"}))
    world.until(lambda world: world.where[:2] == ("three", 2) and world.status.current.published_time is not None)
    five = replace(ALL_OTHERS, held_back=Decimal(5))
    assert audiences(world) == {"alpha": EVERYBODY, "beta": EVERYBODY, "gamma": five}
    world.until(ended)
    assert set(audiences(world).values()) == {EVERYBODY}


@pytest.mark.parametrize("place", ["bake", "release"])
def test_a_phase_that_is_added_at_the_end_holds_its_own_users_back(place: str) -> None:
    """Who was released keeps the other features."""
    world = holding()
    world.until({"bake": baking, "release": released}[place])
    given = audiences(world)
    world.edit(with_third_phase())
    world.until(lambda world: world.where[:2] == ("three", 2) and world.status.current.published_time is not None)
    assert audiences(world) == {**given, "gamma": ALL_OTHERS}
    world.until(ended)
    assert set(audiences(world).values()) == {EVERYBODY}
    assert len(world.entries(EventReason.HOLDBACK_RELEASED)) == {"bake": 1, "release": 2}[place]


def test_a_phase_that_is_added_before_the_release_was_written_takes_it_back() -> None:
    """Nobody has got anything by it."""
    world = holding()
    world.until(baking)
    world.publishing = False
    world.until(lambda world: world.status.flags.released_time is not None)
    world.edit(with_third_phase())
    world.run(10)
    world.publishing = True
    world.run(10)
    assert audiences(world)["alpha"] == ALL_OTHERS
    world.until(ended)
    assert set(audiences(world).values()) == {EVERYBODY}


def test_an_edit_in_the_release_holds_it_again() -> None:
    """It was published once, and no guard is forgotten."""
    world = in_release()
    world.run(80)
    world.edit(held_spec(bake="30s"))
    began = world.now
    world.until(ended)
    assert (world.now - began).total_seconds() >= 100
    assert len(world.entries(EventReason.HOLDBACK_RELEASED)) == 1


def test_further_steps_of_a_promoted_phase_take_nothing_from_them() -> None:
    """Its users were released for good."""
    steps = [{"percent": 20, "groups": ["staff"], "hold": "60s"}, {"percent": 50, "groups": ["staff"], "hold": "60s"}]
    data = held_spec(phase={"steps": steps}).to_wire()
    data["phases"] = data["phases"][:1]
    data["features"] = data["features"][:1]
    world = holding(RolloutSpec.model_validate(data))
    world.until(ended)
    half = Audience(Decimal(50), ("staff",))
    assert audiences(world)["alpha"] == half
    data["phases"][0]["steps"] = [*steps, {"percent": 100, "groups": ["staff"], "hold": "60s"}]
    world.edit(RolloutSpec.model_validate(data))
    world.run(30)
    assert audiences(world)["alpha"] == half
    world.until(last_step)
    assert audiences(world)["alpha"] == Audience(Decimal(100), ("staff",))


# --- a status that was lost


def without_status(world: Counting) -> Counting:
    """The object is created again."""
    world.status, world.uid, world.generation, world.last_reconcile = RolloutStatus(), "uid-again", 1, None
    world.created = world.now
    world.run(60)
    assert world.status.decision.reason is DecisionReason.ADOPTION_REQUIRED
    return world


def test_adopt_resumes_with_the_same_users_held_back() -> None:
    steps = [{"percent": 20, "groups": ["staff"], "hold": "60s"}, {"percent": 100, "groups": ["staff"], "hold": "60s"}]
    world = holding(held_spec(phase={"steps": steps}))
    world.until(in_step("20"))
    given = audiences(world)
    name = without_status(world).request("Adopt")
    world.run(30)
    assert world.answer(name) == (True, ActionReason.ACCEPTED)
    assert audiences(world) == given
    assert (world.status.phases[0].held_back, world.status.flags.holdback) == ("2", "2")
    world.until(ended)
    assert audiences(world) == {"alpha": Audience(Decimal(100), ("staff",)), "beta": EVERYBODY}


def test_adopt_of_a_release_takes_nothing_away() -> None:
    world = in_release()
    without_status(world).request("Adopt")
    world.run(120)
    assert set(audiences(world).values()) == {EVERYBODY}
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_adopt_of_other_users_than_the_spec_holds_back_is_refused() -> None:
    world = holding()
    world.until(last_step)
    world.spec = OTHER
    name = without_status(world).request("Adopt")
    world.run(20)
    assert world.answer(name) == (False, ActionReason.NO_MATCHING_STEP)
    assert audiences(world)["alpha"] == ALL_OTHERS


def test_reset_begins_with_them_held_back() -> None:
    world = in_release()
    without_status(world).request("Reset")
    world.until(in_step("20"))
    assert audiences(world) == {"alpha": Audience(Decimal(20)), "beta": NOBODY}
    world.until(last_step)
    assert audiences(world)["alpha"] == ALL_OTHERS


def test_an_older_status_does_not_take_the_release_back() -> None:
    """The document gives more than this status knows, so that it is kept until a person decides."""
    world = holding()
    world.until(baking)
    older = world.status
    world.until(released)
    world.status, world.last_reconcile = older, None
    world.run(60)
    assert world.status.decision.reason is DecisionReason.ADOPTION_REQUIRED
    assert set(audiences(world).values()) == {EVERYBODY}


def test_a_rollback_that_only_the_document_knows_holds_them_back() -> None:
    """The status of the release was restored: the rollback that followed it is in the annotation."""
    world = in_release()
    older = world.status
    world.request("Abort", reason="no time")
    world.until(ended)
    world.status, world.last_reconcile = older, None
    world.run(60)
    assert world.status.outcome is Outcome.ABORTED
    assert audiences(world) == {"alpha": ALL_OTHERS, "beta": NOBODY}


# --- edits of the document


def edited(world: World, change: Any) -> None:
    document = json.loads(world.documents[-1])
    change(document)
    known = {"version": 99, "owner": world.name, "editor": "kubectl-edit"}
    world.document = read_document(json.dumps(document), flag_set=world.spec.flag_set, **known)


def test_somebody_who_gives_it_to_them_is_corrected_immediately() -> None:
    """Without a deprived user there is no control."""
    steps = [{"percent": 20, "groups": ["staff"], "hold": "60s"}, {"percent": 100, "groups": ["staff"], "hold": "60s"}]
    world = holding(held_spec(phase={"steps": steps}))
    world.until(in_step("20"))
    given = audiences(world)
    edited(world, lambda document: document["$evaluators"].update({"heldBack-20": {"==": [1, 2]}}))
    assert audiences(world)["alpha"] is None
    assert world.reconcile().urgent is not None
    assert audiences(world) == given


def test_somebody_who_holds_more_users_back_is_corrected() -> None:
    world = holding()
    world.until(last_step)

    def change(document: dict[str, Any]) -> None:
        shares = document["flags"]["alpha"]["targeting"]["if"][5]["fractional"]
        shares[1:] = [["on", 900], ["off", 100]]

    edited(world, change)
    assert audiences(world)["alpha"] == replace(ALL_OTHERS, held_back=Decimal(10))
    world.run(10)
    assert audiences(world)["alpha"] == ALL_OTHERS
