"""Placebo steps and what happens around them: emergencies, edits of the document and of the spec, and lost statuses.

Not here: what a placebo step shows, and what follows (test_placebo.py).
"""

from datetime import timedelta
from decimal import Decimal

import pytest

from core.counting import Counting, in_step
from core.placebos import DIVIDED, PLACEBO, REAL, audience, held, placebo_document, placebo_spec
from core.world import World, ended
from session_rollout.api.enums import (
    DecisionReason,
    EventReason,
    Outcome,
    Stage,
)
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.core.flags import NOBODY, Audience

# --- emergencies, edits of the document, lost statuses


def test_an_emergency_ends_the_placebo_until_it_is_lifted() -> None:
    """Nobody is compared, and the hold is paused."""
    world = held()
    world.request("EmergencyDisable", features=["alpha"])
    world.run(30)
    assert (audience(world), world.status.decision.reason) == (NOBODY, DecisionReason.FEATURE_DISABLED)
    (record,) = world.status.flags.disabled
    assert not record.pending
    world.request("EmergencyEnable", features=["alpha"], after=timedelta(seconds=2))
    world.run(30)
    assert audience(world) == DIVIDED
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def edit_document(world: World, before: str, after: str) -> PublishedDocument:
    """Somebody replaces a part of the document."""
    assert before in world.documents[-1]
    text = world.documents[-1].replace(before, after)
    world.document = read_document(text, version=7, owner=world.name, editor="kubectl-edit")
    return world.document


def test_somebody_who_gives_the_feature_to_the_placebo_is_corrected() -> None:
    """At once: it is more than the step gives."""
    world = held()
    edited = edit_document(world, '"on": false', '"on": true')
    assert edited.audiences["alpha"] == Audience(Decimal(20))
    assert world.reconcile().urgent is not None
    assert audience(world) == DIVIDED
    assert EventReason.FLAG_DRIFT in {entry.event for entry in world.status.history}


@pytest.mark.parametrize(("before", "after"), [("     200\n", "     500\n"), ('    "off-chosen"\n', '    "on"\n')])
def test_an_edit_that_takes_nothing_away_is_no_emergency(before: str, after: str) -> None:
    """Other users with the variant, or all the others: nobody has the feature by it."""
    world = held()
    edit_document(world, before, after)
    world.settle()
    assert (world.status.flags.disabled, audience(world)) == ((), DIVIDED)
    assert world.documents[-1].count(before)


def test_a_placebo_is_not_a_feature_that_somebody_has_turned_off() -> None:
    world = held()
    assert placebo_document(world).taken_away == frozenset()
    assert world.status.flags.disabled == ()


def test_a_placebo_that_somebody_turns_off_is_an_emergency() -> None:
    """Whoever does that does not want anybody to have the feature in the next step."""
    world = held()
    edit_document(world, '"forcedOff": {', '"forcedOff": true, "unused": {')
    world.settle()
    assert {record.feature for record in world.status.flags.disabled} >= {"alpha"}


def test_a_new_object_needs_no_adoption_of_a_placebo() -> None:
    """Nobody has anything, so that the rollout begins."""
    before = held()
    world = Counting(placebo_spec(), document=before.document, uid="uid-2")
    world.settle()
    assert not world.status.flags.adoption_required
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_a_status_from_before_a_placebo_continues() -> None:
    """And one from the placebo does not know of users who have the feature since."""
    world = held()
    during = world.status
    world.until(in_step("20"))
    world.status = during
    world.settle()
    assert world.status.flags.adoption_required
    assert audience(world) == Audience(Decimal(20)), "users keep what they have"
    world.request("Adopt")
    world.until(in_step("50"))


# --- edits of the spec


def test_an_edit_that_removes_the_placebo_begins_the_phase_again() -> None:
    """Nobody has it, and what it has shown is forgotten: also if it is broken."""
    world = held(rates=(0.05, 0.001))
    world.run(120)
    assert world.status.decision.reason is DecisionReason.COMPARISON_BROKEN
    world.rates = (0.001, 0.001)
    world.edit(placebo_spec(REAL))
    world.reconcile()
    assert world.status.phases[0].placebo is None
    world.until(in_step("20"))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_an_edit_of_the_hold_keeps_the_placebo() -> None:
    world = held()
    world.edit(placebo_spec([{**PLACEBO, "hold": "90s"}, *REAL]))
    world.settle()
    assert (world.status.current.stage, world.status.current.placebo) == (Stage.STEP, "20")
    assert audience(world) == DIVIDED


def test_a_placebo_that_is_added_later_is_skipped() -> None:
    """Users have the feature already, and keep it."""
    world = Counting(placebo_spec(REAL))
    world.until(in_step("20"))
    world.edit(placebo_spec())
    world.until(lambda world: world.status.current.step == 2)
    assert audience(world) == Audience(Decimal(20))
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_a_deletion_leaves_nothing_to_users() -> None:
    """Suspended, it says that users keep nothing."""
    world = held()
    world.edit(placebo_spec(suspend=True))
    world.settle()
    assert world.status.decision.reason is DecisionReason.SUSPENDED
    assert not any("alpha" in text for text in world.status.decision.details)
