"""Actions: what each does, when it is refused, and that each is carried out once.

Covered: Pause, Resume, Promote, Abort, Retry, read-only actions, crashes, repeated names, a full list. Not here: approvals
(test_approvals), emergencies (test_emergency), actions on migrations and on the workload (their own files).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import ActionReason, ActionType, DecisionReason, EventReason, Outcome, State
from session_rollout.api.status import PROCESSED_LENGTH
from session_rollout.core.actions import RESERVED_ANSWERS
from session_rollout.core.observed import Answer, Decision, Emit

ACCEPTED = (True, ActionReason.ACCEPTED)
ROOM = PROCESSED_LENGTH - RESERVED_ANSWERS


def answers(decision: Decision) -> dict[str, Answer]:
    """The answers that a decision sends, by UID."""
    return {effect.uid: effect for effect in decision.effects if isinstance(effect, Answer)}


def accepted(decision: Decision) -> int:
    """How many actions a decision carried out, by its events."""
    return sum(isinstance(effect, Emit) and effect.reason is EventReason.ACTION_ACCEPTED for effect in decision.effects)


def test_pause_keeps_the_audience_and_guards_still_protect() -> None:
    """The hold timer pauses; a breach rolls back even while paused."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(20)
    until = world.status.current.hold_until
    first, second = world.request("Pause"), world.request("Pause", "pause-again")
    world.run(300)
    assert world.answer(first) == ACCEPTED
    assert world.answer(second) == (False, ActionReason.ALREADY_PAUSED)
    assert (world.condition("Paused"), world.status.paused_by) == ("True", first)
    assert (world.reason, world.status.state) == (DecisionReason.PAUSED, State.PAUSED)
    assert world.where[:2] == ("one", 1)
    world.request("Resume")
    world.run(10)
    assert until is not None
    assert world.status.current.hold_until == until + timedelta(seconds=300)
    world.request("Pause", "pause-third")
    world.run(10)
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert [len(world.entries(event)) for event in (EventReason.PAUSED, EventReason.RESUMED)] == [2, 1]


def test_resume_without_a_pause_is_refused() -> None:
    """With an event of its own."""
    world = World(spec())
    name = world.request("Resume")
    world.run(10)
    assert world.answer(name) == (False, ActionReason.NOT_PAUSED)
    assert [entry.by for entry in world.entries(EventReason.ACTION_REJECTED)] == [name]
    assert EventReason.ACTION_REJECTED in world.events


def test_promote_skips_the_checks_of_exactly_this_step() -> None:
    """Past hold and failing criteria, to the next step, once."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.02")
    wrong = world.request("Promote", generation=1, phase="one", step=3)
    right = world.request("Promote", generation=1, phase="one", step=1)
    world.run(10)
    assert world.answer(wrong) == (False, ActionReason.OTHER_STEP)
    assert world.answer(right) == ACCEPTED
    assert world.where[:3] == ("one", 2, 1)
    assert world.entries(EventReason.STEP_PASSED)[-1].by == right
    skip = world.request("Promote", generation=1, phase="one", step=2, percent=30)
    world.run(10)
    assert world.answer(skip) == ACCEPTED
    assert world.where[:3] == ("one", 3, 0)
    last = world.request("Promote", generation=1, phase="one", step=3)
    world.run(10)
    assert world.answer(last) == ACCEPTED
    assert world.status.current.phase == "two"


def test_promote_in_a_ramp_that_is_the_last_step_publishes_and_holds_its_end() -> None:
    """The phase is complete with the audience of the spec, and after evidence about it."""
    world = World(edited(lambda data: data["phases"][0]["steps"].pop()))
    world.until(at("one", 2, 1))
    assert world.percents()["one"] == "30"
    name = world.request("Promote", generation=1, phase="one", step=2, percent=30)
    world.run(10)
    assert world.answer(name) == ACCEPTED
    assert (world.percents()["one"], world.where[:2]) == ("50", ("one", 2))
    assert world.reason in {DecisionReason.AWAITING_EVIDENCE, DecisionReason.HOLDING}
    repeated = [world.request("Promote", generation=1, phase="one", step=2, percent=percent) for percent in (30, None)]
    world.run(10)
    assert [world.answer(again) for again in repeated] == [(False, ActionReason.OTHER_STEP)] * 2
    promote = world.request("Promote", generation=1, phase="one", step=2, percent="50")
    world.run(10)
    assert world.answer(promote) == ACCEPTED
    assert world.status.current.phase == "two", "what is held can be promoted, too"
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


def test_abort_and_retry() -> None:
    """Abort rolls back; the generation stays aborted until a Retry that names it."""
    world = World(spec())
    world.until(at("two", 1))
    world.request("Abort")
    world.until(ended)
    assert (world.status.outcome, world.reason, world.status.state) == (
        Outcome.ABORTED,
        DecisionReason.ABORTED,
        State.ABORTED,
    )
    assert len(world.status.current.rollback_reasons) == 1
    assert world.condition_reason("RolledBack") == "Aborted"
    again, wrong = world.request("Abort", "late"), world.request("Retry", generation=7)
    world.run(10)
    assert world.answer(again) == (False, ActionReason.NOT_RUNNING)
    assert world.answer(wrong) == (False, ActionReason.OTHER_GENERATION)
    world.request("Retry", "retry", generation=1)
    world.until(lambda world: world.status.outcome is Outcome.PROMOTED)


def test_retry_without_a_failure_is_refused() -> None:
    """Nothing failed, nothing to retry."""
    world = World(spec())
    name = world.request("Retry", generation=1)
    world.run(10)
    assert world.answer(name) == (False, ActionReason.NOTHING_TO_RETRY)


def test_actions_on_an_ended_rollout_are_refused() -> None:
    """Nothing is running any more; the outcome stays."""
    world = World(spec())
    world.until(ended)
    names = [world.request("Pause"), world.request("Abort"), world.request("Promote", generation=1, phase="two", step=2)]
    world.run(30)
    assert [world.answer(name) for name in names] == [(False, ActionReason.NOT_RUNNING)] * 3
    assert world.status.outcome is Outcome.PROMOTED


def test_abort_while_rolling_back_is_refused() -> None:
    """It is rolling back already."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing = False
    world.request("Abort")
    world.run(10)
    name = world.request("Abort", "again")
    world.run(10)
    assert world.answer(name) == (False, ActionReason.ALREADY_ROLLING_BACK)


# --- each once, whatever crashes


def test_action_before_a_crash_is_answered_and_not_carried_out_again() -> None:
    """The status was written, the answer was not: the same action comes again."""
    world = World(spec())
    world.until(at("one", 1))
    name = world.request("Promote", generation=1, phase="one", step=1)
    world.reconcile(crash_before_effects=True)
    assert world.where[:2] == ("one", 2)
    world.settle()
    assert world.answer(name) == ACCEPTED
    assert world.where[:3] == ("one", 2, 1)


def test_many_actions_of_one_decision_survive_a_crash() -> None:
    """Fourteen accepted, a crash before the answers: the next decision carries out none and sends the same answers.

    Their events alone are more than the history keeps, so the history cannot be what remembers them.
    """
    world = World(spec())
    world.until(at("one", 1))
    ages = iter(range(-14, 0))
    names = [
        world.request(action, f"{action.lower()}-{number}", after=timedelta(seconds=next(ages)))
        for number in range(7)
        for action in ("Pause", "Resume")
    ]
    first = world.reconcile(crash_before_effects=True)
    assert {answer.action for answer in answers(first).values()} == set(names)
    assert {answer.reason for answer in answers(first).values()} == {ActionReason.ACCEPTED}
    assert accepted(first) == len(names) == 14
    history = world.status.history
    second = world.reconcile()
    assert answers(second) == answers(first)
    assert (accepted(second), world.status.history) == (0, history)


def test_answer_is_kept_until_it_was_read_back() -> None:
    """A lost answer is sent again in every decision; one that was read back leaves the list."""
    world = World(spec())
    world.until(at("one", 1))
    name = world.request("Pause")
    for _ in range(3):
        decision = world.reconcile(crash_before_effects=True)
        assert [answer.action for answer in answers(decision).values()] == [name]
        assert [known.name for known in world.status.processed_actions] == [name]
    world.reconcile()
    assert [known.name for known in world.status.processed_actions] == [name], "sent, and not yet read back"
    world.reconcile()
    assert world.status.processed_actions == ()


def test_refused_action_is_remembered_too() -> None:
    """A Resume that was refused must not succeed after a crash because of a Pause that came in between."""
    world = World(spec())
    world.until(at("one", 1))
    early = world.request("Resume")
    world.reconcile(crash_before_effects=True)
    world.request("Pause")
    world.settle()
    assert world.answer(early) == (False, ActionReason.NOT_PAUSED)
    assert world.status.paused_by is not None


def test_action_under_a_used_name_takes_effect() -> None:
    """An action that was deleted and created again has another UID: it is another action."""
    world = World(spec())
    world.until(at("one", 1))
    for uid in ("uid-first", "uid-second"):
        world.request("Pause", "stop", uid=uid)
        world.settle()
        assert world.answers["stop"].uid == uid
        assert world.answer("stop") == ACCEPTED
        assert world.status.paused_by == "stop"
        world.request("Resume", f"resume-{uid}")
        world.settle()
        assert world.status.paused_by is None


def test_full_list_refuses_what_does_not_protect_users() -> None:
    """While nobody reads the answers: TooManyActions for the others, and emergencies, Pause and Abort still work."""
    world = World(spec())
    world.until(at("one", 1))
    for number in range(ROOM):
        world.request("Resume", f"resume-{number}")
    surplus = world.request("Retry", "surplus", generation=1)
    decision = world.reconcile(crash_before_effects=True)
    assert answers(decision)[f"uid-of-{surplus}"].reason is ActionReason.TOO_MANY_ACTIONS
    assert len(world.status.processed_actions) == ROOM
    protecting = [world.request("EmergencyDisable", features=["gamma"]), world.request("Pause"), world.request("Abort")]
    sent = answers(world.reconcile(crash_before_effects=True))
    assert f"uid-of-{protecting[0]}" not in sent, "not before the flags were read back"
    sent |= answers(world.reconcile(crash_before_effects=True))
    assert [sent[f"uid-of-{name}"].reason for name in protecting] == [ActionReason.ACCEPTED] * 3
    assert [record.feature for record in world.status.flags.disabled] == ["gamma"]
    assert world.status.current.rollback_outcome is Outcome.ABORTED
    assert len(world.status.processed_actions) == ROOM + 3


def test_list_never_grows_beyond_its_bound() -> None:
    """More protecting actions than the list has room for: each still gets an answer, and the status stays valid."""
    world = World(spec())
    world.until(at("one", 1))
    names = [world.request("EmergencyDisable", f"off-{number}", features=["gamma"]) for number in range(PROCESSED_LENGTH + 6)]
    assert answers(world.reconcile(crash_before_effects=True)) == {}, "not before the flags were read back"
    sent = answers(world.reconcile(crash_before_effects=True))
    assert {answer.reason for answer in sent.values()} == {ActionReason.ACCEPTED}
    assert len(sent) == len(names)
    assert len(world.status.processed_actions) == PROCESSED_LENGTH


@pytest.mark.parametrize("action", [action for action in ActionType if action.is_read_only])
def test_read_only_actions_are_no_decisions(action: ActionType) -> None:
    """The controller answers them beside the decisions, and never hands one to the core."""
    from session_rollout.core.actions import _HANDLERS

    assert action not in _HANDLERS
    assert set(_HANDLERS) | {kind for kind in ActionType if kind.is_read_only} == set(ActionType)


@pytest.mark.parametrize("how", ["paused", "stalled", "not published", "disabled"])
def test_promote_that_cannot_act_is_rejected(how: str) -> None:
    """D8: and the step is not skipped later either."""
    world = World(spec())
    world.run(10)
    match how:
        case "not published":
            world = World(spec())
            world.refuse_first_publish()
        case "paused":
            world.request("Pause")
        case "stalled":
            world.problems = ("the provider is not configured",)
        case "disabled":
            world.request("EmergencyDisable", features=["alpha"])
    world.settle()
    name = world.request("Promote", generation=1, phase="one", step=1)
    world.run(10)
    expected = {
        "paused": ActionReason.PAUSED,
        "stalled": ActionReason.STALLED,
        "not published": ActionReason.NOT_PUBLISHED,
        "disabled": ActionReason.FEATURE_DISABLED,
    }
    assert world.answer(name) == (False, expected[how])
    assert world.where[:2] == ("one", 1)


def test_promote_waits_for_a_guard_and_is_not_lost() -> None:
    """D8: accepted while a guard begins to fail; it acts when the guard passes again."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}
    world = World(spec(guards=[guard]))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.08")
    world.run(10)
    name = world.request("Promote", generation=1, phase="one", step=1)
    world.run(60)
    assert world.answer(name)[0]
    assert world.where[:2] == ("one", 1)
    world.values["errors"] = Decimal("0.001")
    world.run(10)
    assert world.where[:3] == ("one", 2, 1)


def test_emergency_under_a_used_name_takes_effect() -> None:
    """D7: identity is the UID."""
    world = World(spec())
    world.until(at("one", 1))
    for number in range(2):
        world.request("EmergencyDisable", "off", uid=f"uid-{number}", features=["alpha"])
        world.run(10)
        assert "targeting" not in world.flag("alpha")
        world.request("EmergencyEnable", f"on-{number}")
        world.run(10)
    assert len(world.entries(EventReason.FLAGS_ENABLED)) == 2


@pytest.mark.parametrize("names", [("aa", "zz"), ("zz", "aa")], ids=["as named", "reversed"])
@pytest.mark.parametrize(
    ("other", "protecting"),
    [("Resume", "Pause"), ("Promote", "Abort"), ("Promote", "Pause"), ("Retry", "Abort"), ("Promote", "EmergencyDisable")],
)
def test_of_one_second_what_protects_wins(other: str, protecting: str, names: tuple[str, str]) -> None:
    """Creation times have seconds: the names of two actions must not decide what users get."""
    world = World(spec())
    world.until(at("one", 1))
    if other == "Retry":
        world.request("Abort", "before")
        world.until(ended)
        world.run(10)
    if other == "Resume":
        world.request("Pause", "before")
        world.run(10)
    place: dict[str, dict[str, Any]] = {"Promote": {"phase": "one", "step": 1, "generation": 1}, "Retry": {"generation": 1}}
    for name, kind in sorted(zip(names, (other, protecting), strict=True)):  # as the controller delivers them
        world.request(kind, name, **place.get(kind, {}))
    world.run(10)
    assert world.answer(names[1])[0]
    match protecting:
        case "Pause":
            assert world.status.state is State.PAUSED
        case "Abort":
            assert world.status.outcome is Outcome.ABORTED
        case "EmergencyDisable":
            assert "targeting" not in world.flag("alpha")
    if other == "Promote":
        assert not world.answer(names[0])[0]
