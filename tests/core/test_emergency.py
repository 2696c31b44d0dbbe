"""Emergencies and `suspend`: what is off for everybody, and what stays as it is.

Covered: EmergencyDisable and EmergencyEnable with dependents, across rollback, edit and end; suspended rollouts with and
without a status. Not here: how a disabled flag is compiled (test_rules).
"""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from core.world import START, World, at, edited, ended, spec
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason, Outcome, State
from session_rollout.core.observed import ClockJump


def test_emergency_disables_the_feature_and_its_dependents_and_pauses_the_hold() -> None:
    """Off for everybody, whatever groups and percentages say, until EmergencyEnable."""
    world = World(spec())
    world.until(at("one", 1))
    name = world.request("EmergencyDisable", features=["alpha"])
    world.run(600)
    for feature in ("alpha", "beta"):
        assert "targeting" not in world.flag(feature)
        assert world.flag(feature)["defaultVariant"] == "off-chosen"
    assert world.where[:2] == ("one", 1)
    assert world.reason is DecisionReason.FEATURE_DISABLED
    assert world.status.current.hold_paused_reason is DecisionReason.FEATURE_DISABLED
    assert (world.condition("EvidenceAvailable"), world.condition_reason("EvidenceAvailable")) == ("True", "Available")
    assert [(record.feature, record.by) for record in world.status.flags.disabled] == [("alpha", name)]
    assert [entry.by for entry in world.entries(EventReason.FLAGS_DISABLED)] == [name]
    world.request("EmergencyEnable", features=["alpha"])
    world.until(ended)
    assert len(world.entries(EventReason.FLAGS_ENABLED)) == 1
    assert world.status.outcome is Outcome.PROMOTED


def test_emergency_survives_rollback_edit_and_end() -> None:
    """Only an action ends it."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable")
    world.request("Abort")
    world.until(ended)
    world.edit(spec(bake="10s"))
    world.run(30)
    assert {record.feature for record in world.status.flags.disabled} == {"alpha", "beta", "gamma"}
    assert all("targeting" not in world.flag(name) for name in ("alpha", "beta", "gamma"))


def test_unknown_feature_and_nothing_to_enable_are_refused() -> None:
    """A feature that is disabled already changes nothing and is accepted."""
    world = World(spec())
    unknown, nothing = world.request("EmergencyDisable", features=["delta"]), world.request("EmergencyEnable")
    world.run(10)
    assert world.answer(unknown) == (False, ActionReason.UNKNOWN_FEATURE)
    assert world.answer(nothing) == (False, ActionReason.NOTHING_DISABLED)
    first, second = (world.request("EmergencyDisable", f"off-{number}", features=["alpha"]) for number in (1, 2))
    world.run(10)
    assert (world.answer(first)[0], world.answer(second)[0]) == (True, True)
    assert [(record.feature, record.by) for record in world.status.flags.disabled] == [("alpha", first)]
    other = world.request("EmergencyEnable", features=["beta"])
    world.run(10)
    assert world.answer(other) == (False, ActionReason.UNKNOWN_FEATURE)


@pytest.mark.parametrize("document", ["written", "refused"])
def test_wrong_name_does_not_keep_the_right_ones_on(document: str) -> None:
    """What is known is off; the answer, the message and the condition say what is not."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing = document == "written"
    action = world.request("EmergencyDisable", features=["alpha", "alhpa", "gama"])
    world.run(30)
    if document == "refused":
        assert world.status.decision.message.startswith(
            "EMERGENCY NOT IN FORCE: alhpa and 1 more are not features; EMERGENCY NOT IN FORCE: alpha still on; "
        )
        world.publishing = True
        world.run(10)
    assert world.answer(action) == (True, ActionReason.UNKNOWN_FEATURE)
    assert "alhpa, gama are not features" in world.answers[action].message
    assert all("targeting" not in world.flag(name) for name in ("alpha", "beta"))
    assert [record.feature for record in world.status.flags.disabled] == ["alpha"]
    assert (world.condition("EmergencyActive"), world.condition_reason("EmergencyActive")) == ("True", "NotInForce")
    message = "EMERGENCY NOT IN FORCE: alhpa and 1 more are not features; "
    assert world.status.decision.message.count(message) == 1
    assert world.status.decision.message.startswith(message)
    assert [text for text in world.status.decision.details if text.startswith(f"alhpa, gama not turned off by {action}")]
    before = world.status.decision
    world.answering = False
    world.run(100)
    assert (world.status.decision.message, world.status.decision.details) == (before.message, before.details)
    world.answering = True
    wrong = world.request("EmergencyEnable", features=["alpha", "alhpa"])
    world.run(10)
    assert world.answer(wrong) == (False, ActionReason.UNKNOWN_FEATURE)
    assert "targeting" not in world.flag("alpha")  # nobody gets anything by mistake
    world.request("EmergencyEnable", features=["alpha"])
    world.run(10)
    assert (world.status.flags.unknown, world.condition_reason("EmergencyActive")) == ((), "NoEmergency")


def test_emergency_without_any_right_name_is_visible_for_an_hour() -> None:
    """It is rejected, and on-call sees so where a feature would be shown as off."""
    world = World(spec())
    world.until(at("one", 1))
    action = world.request("EmergencyDisable", features=["alhpa"])
    world.run(60)
    assert world.answer(action) == (False, ActionReason.UNKNOWN_FEATURE)
    assert world.status.decision.message.startswith("EMERGENCY NOT IN FORCE: alhpa is not a feature; ")
    assert (world.condition("EmergencyActive"), world.condition_reason("EmergencyActive")) == ("False", "NotInForce")
    world.run(3600)
    assert not world.status.decision.message.startswith("EMERGENCY")
    assert (world.status.flags.unknown, world.condition_reason("EmergencyActive")) == ((), "NoEmergency")


def test_suspend_freezes_and_only_emergencies_work() -> None:
    """Nothing moves, not even back; the hold timer pauses."""
    world = World(spec())
    world.until(at("one", 1))
    world.edit(spec(suspend=True))
    world.values["errors"] = Decimal("0.08")
    pause, off = world.request("Pause"), world.request("EmergencyDisable", features=["alpha"])
    world.run(600)
    assert world.where[3] == "10"
    assert (world.reason, world.status.state) == (DecisionReason.SUSPENDED, State.PAUSED)
    assert world.condition_reason("Paused") == "Suspended"
    assert world.answer(pause) == (False, ActionReason.SUSPENDED)
    assert world.answer(off) == (True, ActionReason.ACCEPTED)
    assert "targeting" not in world.flag("alpha")


def test_suspended_from_the_start_publishes_everything_off_where_nothing_is() -> None:
    """Applications get a document, and no feature in it is on."""
    world = World(spec(suspend=True))
    world.run(60)
    assert world.published_sha256 == world.status.flags.sha256 is not None
    assert "fractional" not in json.dumps(world.flag("alpha"))


def test_feature_that_left_the_spec_is_turned_off() -> None:
    """D13: emergencies work on what is published."""
    world = World(spec())
    world.until(at("two", 1))
    without = edited(lambda data: (data["features"].pop(), data["phases"].pop()))
    world.edit(without)
    world.run(10)
    assert world.reason is DecisionReason.INVALID_SPEC
    named = world.request("EmergencyDisable", "named", features=["gamma"])
    world.run(10)
    assert world.answer(named) == (True, ActionReason.ACCEPTED)
    assert "targeting" not in world.flag("gamma")
    everything = world.request("EmergencyDisable", "everything")
    world.run(10)
    assert world.answer(everything)[0]
    assert all("targeting" not in world.flag(name) for name in ("alpha", "beta", "gamma"))


@pytest.mark.parametrize("where", ["step", "promoted", "suspended", "stalled", "rolled back", "paused"])
def test_emergency_is_visible_everywhere(where: str) -> None:
    """D14: condition, message and details, whatever the rollout does; and no longer when it is lifted."""
    world = World(spec())
    world.until(at("one", 1))
    match where:
        case "promoted":
            world.until(ended)
        case "suspended":
            world.edit(spec(suspend=True))
        case "stalled":
            world.problems = ("the provider is not configured",)
        case "rolled back":
            world.request("Abort")
            world.until(ended)
        case "paused":
            world.request("Pause")
    world.run(10)
    without = world.status.decision
    world.request("EmergencyDisable", "off", features=["alpha"])
    world.run(10)
    assert (world.condition("EmergencyActive"), world.condition_reason("EmergencyActive")) == ("True", "FeaturesDisabled")
    assert world.status.decision.message != without.message
    assert world.status.state is not None
    world.request("EmergencyEnable")
    world.run(10)
    assert (world.condition("EmergencyActive"), world.condition_reason("EmergencyActive")) == ("False", "NoEmergency")
    assert world.status.decision.reason in {without.reason, DecisionReason.HOLDING, DecisionReason.CONFIRMING_CRITERIA}


def test_emergency_is_answered_when_it_is_in_force() -> None:
    """Not before the document was read back without the feature."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing = False
    name = world.request("EmergencyDisable", features=["alpha"])
    world.run(60)
    assert name not in world.answers
    assert [record.feature for record in world.status.flags.disabled if record.pending] == ["alpha"]
    assert (world.condition("EmergencyActive"), world.condition_reason("EmergencyActive")) == ("True", "NotInForce")
    world.publishing = True
    world.run(10)
    assert world.answer(name)[0]
    assert not any(record.pending for record in world.status.flags.disabled)
    assert world.condition_reason("EmergencyActive") == "FeaturesDisabled"


def test_emergency_that_is_lifted_before_it_is_in_force_is_rejected() -> None:
    """D14: whoever waits for its response must not think that the feature is off."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing = False
    off = world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    on = world.request("EmergencyEnable", features=["alpha"])
    world.run(10)
    assert world.answer(off) == (False, ActionReason.SUPERSEDED)
    assert world.answer(on) == (True, ActionReason.ACCEPTED)
    assert world.condition("EmergencyActive") == "False"


def test_emergency_that_is_lifted_in_part_is_answered_with_the_rest() -> None:
    """D14: once the rest is in force."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing = False
    off = world.request("EmergencyDisable")
    world.run(10)
    world.request("EmergencyEnable", features=["alpha"])
    world.run(10)
    assert off not in world.answers
    world.publishing = True
    world.run(10)
    assert world.answer(off) == (True, ActionReason.ACCEPTED)
    assert "targeting" not in world.flag("gamma")


def test_emergency_is_shown_until_the_document_enables_the_feature_again() -> None:
    """D14: conditions say what users have; nothing counts and nobody is promised anything before that."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    world.publishing = False
    on = world.request("EmergencyEnable", features=["alpha"])
    promote = world.request("Promote", generation=1, phase="one", step=1)
    world.run(600)
    assert on not in world.answers
    assert world.answer(promote) == (False, ActionReason.NOT_PUBLISHED)
    assert world.condition("EmergencyActive") == "True"
    assert world.reason is DecisionReason.PUBLISHING
    assert world.status.current.hold_paused_reason is DecisionReason.FEATURE_DISABLED
    assert world.where[:2] == ("one", 1)
    world.publishing = True
    world.run(10)
    assert world.answer(on) == (True, ActionReason.ACCEPTED)
    assert world.condition("EmergencyActive") == "False"
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("names", [("aa", "zz"), ("zz", "aa")], ids=["disable first", "enable first"])
@pytest.mark.parametrize("disabled", [(), ("alpha",)], ids=["all", "named"])
@pytest.mark.parametrize("enabled", [(), ("alpha",)], ids=["enable all", "enable named"])
def test_of_one_second_the_disable_wins(names: tuple[str, str], disabled: tuple[str, ...], enabled: tuple[str, ...]) -> None:
    """Creation times have seconds, so names must not decide: an emergency is in force, and one action of each kind comes."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", "before")
    world.run(60)
    actions = {"EmergencyDisable": disabled, "EmergencyEnable": enabled}
    requested = [world.request(kind, name, features=list(actions[kind])) for kind, name in zip(actions, names, strict=True)]
    world.actions.sort(key=lambda action: action.name)  # as the controller delivers them
    world.run(60)
    assert "targeting" not in world.flag("alpha")
    assert world.condition("EmergencyActive") == "True"
    answers = dict(zip(actions, (world.answer(name) for name in requested), strict=True))
    assert answers["EmergencyDisable"] == (True, ActionReason.ACCEPTED)
    if enabled or not disabled:
        assert answers["EmergencyEnable"] == (False, ActionReason.EMERGENCY_IS_NEWER)
    else:
        assert answers["EmergencyEnable"][0]
        assert "targeting" in world.flag("gamma")


@pytest.mark.parametrize("again", [False, True], ids=["first", "repeated"])
@pytest.mark.parametrize("by_hand", [False, True], ids=["action", "hand"])
def test_older_enable_that_comes_late_lifts_nothing(*, by_hand: bool, again: bool) -> None:
    """The watch missed it, and the sweep delivers it after a newer emergency was carried out and got its response."""
    world = World(spec())
    world.until(at("one", 1))
    if again:
        world.request("EmergencyDisable", "before", features=["alpha"])
        world.run(10)
    created = world.now
    world.run(60)
    if by_hand and not again:
        world.tamper(taken_away=frozenset({"alpha"}), editor="kubectl-edit")
    else:
        world.request("EmergencyDisable", "after", features=["alpha"])
    world.run(10)
    late = world.request("EmergencyEnable", "late", after=created - world.now)
    world.run(10)
    assert world.answer(late) == (False, ActionReason.EMERGENCY_IS_NEWER)
    assert "targeting" not in world.flag("alpha")
    fresh = world.request("EmergencyEnable", "fresh")
    world.run(10)
    assert world.answer(fresh)[0]
    assert "targeting" in world.flag("alpha")


def test_enable_in_the_second_of_an_emergency_that_was_answered() -> None:
    """Whoever waited for the response of the first action has seen it: the order of the two is known."""
    world = World(spec())
    world.until(at("one", 1))
    first = world.request("EmergencyDisable", features=["alpha"])
    world.settle()
    assert world.answer(first)[0]
    second = world.request("EmergencyEnable", features=["alpha"])
    world.settle()
    assert world.answer(second) == (True, ActionReason.ACCEPTED)


def test_enable_that_arrives_before_the_response_of_a_disable_of_the_same_second() -> None:
    """After a start, the watch delivers actions one by one, by name: the decision about the first comes in between."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.reconcile()
    late = world.request("EmergencyEnable", features=["alpha"])
    world.run(10)
    assert world.answer(late) == (False, ActionReason.EMERGENCY_IS_NEWER)
    assert "targeting" not in world.flag("alpha")


def test_dependent_stays_off_when_the_spec_no_longer_says_that_it_depends() -> None:
    """Git may hold an older manifest: only `EmergencyEnable` turns on what was turned off, and its dependents with it."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    world.edit(edited(lambda data: data["features"][1].pop("dependsOn")))
    world.run(60)
    world.edit(edited(lambda data: data["features"][2].update(dependsOn=["alpha"])))
    world.run(60)
    world.edit(edited(lambda data: data["features"][1].pop("dependsOn")))
    world.run(60)
    assert all("targeting" not in world.flag(name) for name in ("alpha", "beta", "gamma"))
    assert world.reason is DecisionReason.FEATURE_DISABLED
    assert [record.dependents for record in world.status.flags.disabled] == [("beta", "gamma")]
    world.request("EmergencyEnable")
    world.run(10)
    assert all("targeting" in world.flag(name) for name in ("alpha", "beta", "gamma"))
    assert world.condition("EmergencyActive") == "False"


def test_dependent_that_leaves_the_spec_leaves_the_document() -> None:
    """It belongs to a later phase that was never published."""
    world = World(edited(lambda data: data["features"][2].update(dependsOn=["alpha"])))
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    world.edit(edited(lambda data: (data["features"].pop(), data["phases"].pop())))
    decision = world.run(60)
    assert decision.urgent is None
    assert world.document is not None
    assert set(world.document.audiences) == {"alpha", "beta"}
    world.request("EmergencyEnable")
    world.until(ended)


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    "jump",
    [
        None,
        ClockJump(START, -HOUR, "api-server", -HOUR),
        ClockJump(START, -HOUR, "api-server", -2 * HOUR),
        ClockJump(START, HOUR, "operator", -HOUR),
    ],
    ids=["next process", "same process", "set back twice", "set back, and then the node's"],
)
def test_emergency_ends_although_the_clock_was_set_back(jump: ClockJump | None) -> None:
    """R14: by the API server's clock, each action is created before the emergency for an hour."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable")
    world.run(30)
    if jump is None:
        world.now -= HOUR
        enable = world.request("EmergencyEnable")
    else:
        world.clock_jump = replace(jump, time=world.now)
        enable = world.request("EmergencyEnable", after=jump.ahead)
    world.run(60)
    assert world.answer(enable)[0]
    assert world.condition("EmergencyActive") == "False"
