"""A document that the status does not know: rollouts that were created again or restored, `Adopt` and `Reset` (D6).

Not here: kills by hand, drift and protections (test_documents).
"""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from core.collecting import DATABASE, FIGURES, SIGNED, migrated
from core.document_scenarios import recreated
from core.world import World, at, edited, ended, rollout_data, spec, with_another_plan
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason, Outcome, PhaseState, State
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY, Audience


def test_recreated_rollout_keeps_the_document_until_adopt() -> None:
    """D6: users keep what they have; `Adopt` resumes at the step that is published."""
    world = World(spec())
    world.until(at("one", 3))
    fresh = recreated(world)
    fresh.run(600)
    assert fresh.published_sha256 == world.published_sha256
    assert (fresh.status.state, fresh.reason) == (State.STALLED, DecisionReason.ADOPTION_REQUIRED)
    assert len(fresh.entries(EventReason.DOCUMENT_KEPT)) == 1
    name = fresh.request("Adopt")
    fresh.until(at("one", 3))
    assert fresh.answer(name) == (True, ActionReason.ACCEPTED)
    assert fresh.percents()["one"] == world.percents()["one"]
    before = world.document.audiences if world.document else {}
    assert all(document.audiences == before for document in map(read_document, fresh.documents))
    fresh.edit(edited(lambda data: data["phases"][0].pop("criteria")))  # its baseline is lost
    fresh.until(ended)


def test_recreated_rollout_adopts_completed_phases() -> None:
    """D6: the older phases are complete, the newest one resumes."""
    world = World(spec())
    world.until(at("two", 1))
    fresh = recreated(world)
    fresh.request("Adopt")
    fresh.until(at("two", 1))
    assert fresh.percents() == world.percents()


def with_legacy(data: dict[str, Any]) -> dict[str, Any]:
    """A migration after phase one takes something away; the feature of phase two is on before it."""
    data |= {**DATABASE, "migrations": [{"name": "drop", "bundle": "a/drop", "change": "Contract"}]}
    data["features"][2]["initial"] = "On"
    data["phases"][0]["migrations"] = {"after": ["drop"]}
    data["phases"][1]["steps"] = [{"percent": 100, "hold": "60s"}]
    return data


@pytest.mark.parametrize("ending", ["", "Abort"])
def test_feature_that_is_on_before_its_phase_completes_no_other_phase(ending: str) -> None:
    """Nobody has published it: the phase before it is at 10%, and its migration must not run."""
    world = World(edited(with_legacy))
    world.until(at("one", 1))
    if ending:
        world.request(ending)
        world.until(ended)
    fresh = recreated(world)
    fresh.spec = world.spec
    fresh.run(10)
    fresh.request("Adopt")
    fresh.settle()
    assert (fresh.percents(), list(fresh.jobs)) == ({"one": "0" if ending else "10", "two": "0"}, [])
    state = PhaseState.ROLLED_BACK if ending else PhaseState.RUNNING
    assert [record.state for record in fresh.status.phases] == [state, PhaseState.PENDING]
    fresh.edit(edited(lambda data: (with_legacy(data), data["phases"][0].pop("criteria"))))  # its baseline is lost
    fresh.until(lambda world: world.status.outcome is Outcome.PROMOTED)


def test_feature_that_is_on_before_its_phase_is_published_with_a_later_one() -> None:
    """A phase after it has begun, so that it is complete; without one, nothing tells whether it has begun, and its phase runs again."""
    for later in (True, False):
        world = World(edited(lambda data: (with_legacy(data), data["phases"].reverse(), data["phases"][1].pop("criteria"))))
        world.until(at("one", 1) if later else at("two", 1))
        fresh = recreated(world)
        fresh.spec = world.spec
        fresh.run(10)
        assert fresh.reason is DecisionReason.ADOPTION_REQUIRED
        fresh.request("Adopt")
        fresh.settle()
        assert fresh.where[0] == ("one" if later else "two")
        assert fresh.percents()["one"] == world.percents()["one"]
        fresh.until(ended)


def test_phase_below_its_last_step_is_not_adopted_as_complete() -> None:
    """Nobody knows who judged it there: a person decides what its steps are to be."""
    world = World(spec())
    world.until(at("two", 1))
    fresh = recreated(world)
    assert fresh.document is not None
    half = Audience(Decimal(50), ("staff",))
    fresh.document = replace(fresh.document, audiences={**fresh.document.audiences, "alpha": half, "beta": half})
    fresh.run(10)
    name = fresh.request("Adopt")
    fresh.run(60)
    assert fresh.answer(name) == (False, ActionReason.NO_MATCHING_STEP)
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED


def test_phase_below_its_last_step_is_not_complete_after_a_rollback_of_a_later_one() -> None:
    """It goes on from what users have, before the later one is tried again."""
    world = rolled_back("abort")
    fresh = recreated(world)
    assert fresh.document is not None
    half = Audience(Decimal(50), ("staff",))
    fresh.document = replace(fresh.document, audiences={**fresh.document.audiences, "alpha": half, "beta": half})
    fresh.request("Adopt")
    fresh.run(60)
    assert [record.state for record in fresh.status.phases] == [PhaseState.PENDING, PhaseState.ROLLED_BACK]
    fresh.edit(edited(lambda data: data["phases"][0].pop("criteria")))
    fresh.until(at("one", 2, 2))


@pytest.mark.parametrize("rolled_back", [False, True])
def test_migrations_of_adopted_phases_are_applied_before_anything_is_published(*, rolled_back: bool) -> None:
    """Nobody knows what ran for the object before; the ledger does, and `up` asks it. A failure stalls, and `Retry` repeats it.

    What may not be undone waits for a person, who knows whether it is new.
    """
    plan = migrated(database={"secretKeyRef": {"name": "db"}})
    world = World(spec(**plan), progress=FIGURES)
    world.until(at("two", 1))
    if rolled_back:
        world.request("Abort")
        world.until(ended)
    fresh = recreated(world, **plan)
    fresh.jobs_succeed = False
    fresh.request("Adopt")
    fresh.settle()
    if rolled_back:
        fresh.request("Retry", generation=1)
        fresh.settle()
    assert fresh.reason is DecisionReason.MIGRATION_FAILED
    fresh.jobs_succeed = True
    fresh.request("Retry", generation=1)
    fresh.until(lambda world: world.reason is DecisionReason.AWAITING_APPROVAL)
    fresh.request("RetryMigration", migration="cleanup")
    fresh.until(at("two", 1))
    assert [name.split("-")[1:3] for name in fresh.jobs] == [["rows", "up"], ["rows", "up"], ["cleanup", "up"]]
    assert not any(record.adopted for record in fresh.status.migrations)


def test_recreated_rollout_starts_again_after_reset() -> None:
    """D6: only a person takes away what users have."""
    world = World(spec())
    world.until(at("two", 1))
    fresh = recreated(world)
    fresh.run(60)
    fresh.request("Reset")
    fresh.settle()
    assert fresh.status.flags.revision > world.status.flags.revision
    assert fresh.percents() == {"one": "0", "two": "0"} or fresh.where[:2] == ("one", 1)
    fresh.until(ended)
    assert fresh.status.outcome is Outcome.PROMOTED


def rolled_back(by: str) -> World:
    """Phase one is complete, and phase two was rolled back by a breach or an abort."""
    world = World(spec())
    world.until(at("two", 1))
    if by == "breach":
        world.values["errors"] = Decimal("0.5")
    else:
        world.request("Abort")
    world.until(ended)
    return world


@pytest.mark.parametrize("by", ["breach", "abort"])
def test_recreated_rollout_that_was_rolled_back_turns_nothing_on(by: str) -> None:
    """R12: whoever replaces the object, or restores it without its status, did not judge what was rolled back."""
    world = rolled_back(by)
    fresh = recreated(world)
    fresh.run(600)
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED
    assert fresh.published_sha256 == world.published_sha256
    fresh.request("Adopt")
    fresh.run(600)
    assert fresh.status.outcome is world.status.outcome
    assert fresh.percents() == {"one": "100", "two": "0"}
    assert fresh.status.current.rollback_reasons == world.status.current.rollback_reasons
    fresh.edit(with_another_plan())
    fresh.until(lambda world: world.status.outcome is Outcome.PROMOTED)


def test_abort_that_took_nothing_away_outlives_the_object() -> None:
    """Nobody had anything yet; a new object of the name must not begin by itself."""
    plan = rollout_data(preflight=SIGNED)
    world = World(spec(**plan))
    world.run(60)
    world.request("Abort")
    world.until(ended)
    fresh = recreated(world)
    fresh.run(600)
    assert (fresh.reason, fresh.published_sha256) == (DecisionReason.ADOPTION_REQUIRED, world.published_sha256)


def test_abort_of_a_phase_that_nobody_has_is_adopted_as_one() -> None:
    """Its migrations were running; the phase before stays."""
    phases = rollout_data()["phases"]
    phases[1]["migrations"] = {"before": ["rows"]}
    plan = {**DATABASE, "migrations": [{"name": "rows", "bundle": "a/rows"}], "phases": phases}
    world = World(spec(**plan), jobs_succeed=False)
    world.until(lambda world: world.reason is DecisionReason.MIGRATION_FAILED)
    world.request("Abort")
    world.until(ended)
    fresh = recreated(world, **plan)
    fresh.request("Adopt")
    fresh.run(600)
    assert (fresh.status.outcome, fresh.percents()) == (Outcome.ABORTED, {"one": "100", "two": "0"})


def test_rollback_whose_outcome_somebody_has_edited_is_a_rollback() -> None:
    """Nothing else ends one, whatever the annotation says."""
    fresh = recreated(rolled_back("abort"))
    assert fresh.document is not None
    odd = tuple(known.updated(outcome=Outcome.PROMOTED) for known in fresh.document.protections)
    fresh.document = replace(fresh.document, protections=odd)
    fresh.request("Adopt")
    fresh.run(60)
    assert fresh.status.outcome is Outcome.ROLLED_BACK


def test_recreated_rollout_whose_only_phase_was_rolled_back_starts_again_after_reset() -> None:
    """The document gives nothing, and yet it is kept: only a person starts the rollout again."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("Abort")
    world.until(ended)
    fresh = recreated(world)
    fresh.run(600)
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED
    fresh.request("Reset")
    fresh.until(ended)
    assert fresh.status.outcome is Outcome.PROMOTED
    assert fresh.document is not None
    assert fresh.document.rolled_back is None


def test_document_that_lost_its_labels_is_still_its_own() -> None:
    """Somebody created it again from its data: a rollback reaches it, and it gets its labels back."""
    world = World(spec())
    world.until(at("one", 3))
    assert world.document is not None
    world.document = replace(world.document, owner=None, labelled=False, managed=False, editor="kubectl-create", version=50)
    world.run(10)
    assert world.document.labelled
    assert world.entries(EventReason.FLAG_DRIFT) == []
    world.document = replace(world.document, owner=None, labelled=False, managed=False, version=60)
    world.request("Abort")
    world.until(ended)
    assert world.document.audiences["alpha"] == NOBODY


def test_rollback_of_a_document_of_somebody_else_is_a_stall() -> None:
    """It says that users keep what they have, and continues when the name is free again."""
    world = World(spec())
    world.until(at("one", 3))
    assert world.document is not None
    world.document = replace(world.document, owner=None, labelled=False, managed=False, author=None, version=50)
    world.request("Abort")
    world.run(60)
    assert (world.status.state, world.reason) == (State.STALLED, DecisionReason.INVALID_SPEC)
    world.document = None
    world.until(ended)
    assert world.status.outcome is Outcome.ABORTED


def test_document_with_nothing_but_emergencies_is_kept() -> None:
    """D6: the emergency hides what users had, and what they get after it is for a person to decide."""
    world = World(spec())
    world.until(at("one", 3))
    world.request("EmergencyDisable")
    world.settle()
    fresh = recreated(world)
    fresh.run(60)
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED
    assert fresh.condition("EmergencyActive") == "True"


def test_emergency_survives_re_creation_and_reset() -> None:
    """D6: only `EmergencyEnable` lifts an emergency."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.settle()
    fresh = recreated(world)
    fresh.run(60)
    assert fresh.condition("EmergencyActive") == "True"
    fresh.request("Reset")
    fresh.run(600)
    assert "targeting" not in fresh.flag("alpha")
    assert fresh.reason is DecisionReason.FEATURE_DISABLED
    fresh.request("EmergencyEnable", features=["alpha"])
    fresh.until(ended)


@pytest.mark.parametrize("answer", ["Adopt", "Reset"])
@pytest.mark.parametrize("killed", ["before the re-creation", "while the document is kept"])
@pytest.mark.parametrize(
    "form", [{"taken_away": frozenset({"alpha"})}, {"disabled": {"alpha": "fails"}}], ids=["any", "the operator's"]
)
def test_kill_by_hand_survives_re_creation(killed: str, answer: str, form: dict[str, Any]) -> None:
    """D6: the status does not know what users have, but the document says that somebody has turned it off."""
    world = World(spec())
    world.until(at("one", 3))
    fresh = recreated(world)
    if killed != "before the re-creation":
        fresh.run(30)
    before = fresh.document
    assert before is not None
    audiences = {**before.audiences, "alpha": NOBODY}
    fresh.tamper(audiences=audiences, editor="kubectl-replace", **form)
    fresh.run(60)
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED
    assert [record.feature for record in fresh.status.flags.disabled] == ["alpha"]
    fresh.request(answer)
    fresh.run(600)
    assert [record.feature for record in fresh.status.flags.disabled] == ["alpha"]
    assert "targeting" not in fresh.flag("alpha")
    known = killed == "before the re-creation" and "disabled" in form  # the document had it as an emergency from the beginning
    assert len(fresh.entries(EventReason.FLAGS_DISABLED)) == (0 if known else 1)


def test_kill_by_hand_of_the_only_feature_survives_re_creation() -> None:
    """The document gives nobody anything, and yet it says something."""
    world = World(spec())
    world.until(at("one", 1))
    fresh = recreated(world)
    assert fresh.document is not None
    nobody = dict.fromkeys(fresh.document.audiences, NOBODY)
    fresh.tamper(audiences=nobody, taken_away=frozenset({"alpha"}), editor="kubectl-replace")
    fresh.run(600)
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED
    assert [record.feature for record in fresh.status.flags.disabled] == ["alpha"]


def test_emergency_works_while_the_document_is_kept() -> None:
    """D6, D13: what protects users needs no decision about the rest."""
    world = World(spec())
    world.until(at("two", 1))
    fresh = recreated(world)
    fresh.run(10)
    name = fresh.request("EmergencyDisable", features=["gamma"])
    fresh.run(60)
    assert fresh.answer(name)[0]
    assert "targeting" not in fresh.flag("gamma")
    assert "targeting" in fresh.flag("alpha")
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED
    refused = fresh.request("EmergencyEnable")
    fresh.run(10)
    assert fresh.answer(refused) == (False, ActionReason.ADOPTION_REQUIRED)


def test_emergency_of_a_feature_that_the_kept_document_lacks() -> None:
    """D6, D13: the document is written once, with the feature off, and the action gets its response."""
    world = World(spec())
    world.until(at("one", 1))
    features = [*spec().to_wire()["features"], {"name": "delta"}]
    fresh = recreated(world, features=features)
    fresh.run(10)
    before = len(fresh.documents)
    name = fresh.request("EmergencyDisable")
    fresh.run(60)
    assert fresh.answer(name) == (True, ActionReason.ACCEPTED)
    assert len(fresh.documents) == before + 1
    assert "targeting" not in fresh.flag("delta")
    assert fresh.reason is DecisionReason.ADOPTION_REQUIRED


@pytest.mark.parametrize("by_hand", [False, True], ids=["action", "hand"])
def test_emergency_of_a_kept_document_does_not_hide_that_it_was_rolled_back(*, by_hand: bool) -> None:
    """`Adopt` still ends as the rollout had ended, and so does an object that is created again."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("Abort")
    world.until(ended)
    fresh = recreated(world)
    fresh.run(20)
    if by_hand:
        fresh.tamper(taken_away=frozenset({"gamma"}), editor="kubectl-edit")
    else:
        fresh.request("EmergencyDisable", features=["gamma"])
    fresh.run(20)
    assert fresh.document is not None
    assert fresh.document.rolled_back is not None
    fresh.request("EmergencyEnable")
    fresh.request("Adopt")
    fresh.run(600)
    assert fresh.status.outcome is Outcome.ABORTED
    assert not fresh.document.gives_something
