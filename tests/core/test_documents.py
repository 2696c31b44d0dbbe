"""The order of document and status: what is kept, adopted, corrected, and what is never given back.

Covered: kills by hand, drift, protections of a process that ended, foreign documents (D18).
Not here: re-creation and restore (test_adoption), writes that are refused or late (tests/controller, tests/integration).
"""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.world import World, at, edited, ended, spec, with_another_plan
from session_rollout.api.enums import ActionReason, DecisionReason, EventReason, Outcome, Stage, State
from session_rollout.api.protection import Protection
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import Refusal
from session_rollout.core.documents import PublishedDocument, read_document
from session_rollout.core.flags import NOBODY, Audience


@pytest.mark.parametrize("explained", [True, False])
def test_older_status_never_gives_back_what_the_document_took(*, explained: bool) -> None:
    """D6: a status that was restored from a backup, while the rollout has been rolled back since."""
    world = World(spec())
    world.until(at("two", 1))
    backup = world.status
    world.values["errors"] = Decimal("0.5")
    world.until(ended)
    world.values["errors"] = Decimal("0.001")
    world.status = backup
    assert world.document is not None
    world.document = replace(world.document, protections=world.document.protections if explained else ())
    world.run(600)
    assert world.reason is (DecisionReason.ROLLED_BACK if explained else DecisionReason.ADOPTION_REQUIRED)
    assert world.document.audiences["gamma"] == NOBODY


def test_kill_by_hand_is_an_emergency() -> None:
    """An edit that takes a feature away whole stays, whoever made it; everything else is corrected."""
    world = World(spec())
    world.until(at("one", 3))
    assert world.document is not None
    edited = {**world.document.audiences, "alpha": NOBODY, "gamma": Audience(Decimal(100))}
    world.tamper(audiences=edited, taken_away=frozenset({"alpha"}), editor="kubectl-edit")
    world.run(60)
    assert [(record.feature, record.by) for record in world.status.flags.disabled] == [("alpha", "kubectl-edit")]
    assert "targeting" not in world.flag("alpha")
    assert read_document(world.documents[-1]).audiences["gamma"] == NOBODY
    assert world.condition("EmergencyActive") == "True"


def test_kill_by_hand_that_was_lifted_is_none_again_while_the_document_is_refused() -> None:
    """The document still has the edit, and no action is needed twice."""
    world = World(spec())
    world.until(at("one", 3))
    world.publishing = False
    assert world.document is not None
    world.tamper(
        audiences={**world.document.audiences, "alpha": NOBODY}, taken_away=frozenset({"alpha"}), editor="kubectl-edit"
    )
    world.run(30)
    assert [record.feature for record in world.status.flags.disabled] == ["alpha"]
    world.request("EmergencyEnable")
    world.run(60)
    assert world.status.flags.disabled == ()
    world.publishing = True
    world.run(30)
    assert world.document.audiences["alpha"] == Audience(Decimal(100), ("staff",))


def test_kill_by_hand_without_the_name_of_its_editor_is_an_emergency() -> None:
    """A tool that removes `managedFields` has taken the name away; the rules are still none that a rollout writes."""
    world = World(spec())
    world.until(at("one", 3))
    assert world.document is not None
    world.tamper(audiences={**world.document.audiences, "alpha": NOBODY}, taken_away=frozenset({"alpha"}), editor=None)
    world.run(60)
    assert [(record.feature, record.by) for record in world.status.flags.disabled] == [("alpha", "the flag document")]
    assert "targeting" not in world.flag("alpha")


def test_kill_by_hand_in_the_form_of_a_feature_that_is_off_is_an_emergency() -> None:
    """Somebody has copied the rules of another feature; a lower share is still corrected."""
    world = World(spec())
    world.until(at("one", 3))
    assert world.document is not None
    world.tamper(audiences={**world.document.audiences, "alpha": NOBODY, "beta": Audience(Decimal(10))}, editor="kubectl-edit")
    world.run(60)
    assert [record.feature for record in world.status.flags.disabled] == ["alpha"]
    assert read_document(world.documents[-1]).audiences["beta"] != Audience(Decimal(10))


def test_kill_by_hand_of_a_feature_that_nobody_has_yet_is_an_emergency() -> None:
    """The phase that gives it comes later, and must not."""
    world = World(spec())
    world.until(at("one", 1))
    world.tamper(taken_away=frozenset({"gamma"}), editor="kubectl-edit")
    world.run(600)
    assert [record.feature for record in world.status.flags.disabled] == ["gamma"]
    assert "targeting" not in world.flag("gamma")


def roll_back(world: World) -> RolloutStatus:
    """A guard fails until its rollback begins, and passes from then on; the status before that decision."""
    world.values["errors"], before = Decimal("0.5"), world.status
    while world.status.current.stage is not Stage.ROLLING_BACK:
        before = world.status
        world.now += timedelta(seconds=10)
        world.reconcile()
    world.values["errors"] = Decimal("0.001")
    return before


@pytest.mark.parametrize("later", [False, True], ids=["the same spec", "a later spec"])
def test_rollback_of_a_process_that_ended_is_not_tried_again_by_its_own_spec(*, later: bool) -> None:
    """R12: the edit and the breach came at one moment; only an edit after it is a new try."""
    world = World(spec())
    world.until(at("two", 1))
    before = world.status
    world.edit(spec(bake="10s"))
    roll_back(world)
    world.status = before  # no status could be written since before the edit
    if later:
        world.edit(with_another_plan())
    world.run(60)
    assert (world.status.outcome is Outcome.ROLLED_BACK) is not later
    assert (world.percents()["two"] == "0") is not later


def test_edit_that_gives_more_is_corrected_first() -> None:
    """Before the status is written."""
    world = World(spec())
    world.until(at("one", 1))
    assert world.document is not None
    revision = world.status.flags.revision
    world.tamper(audiences={**world.document.audiences, "alpha": Audience(Decimal(100))}, editor="kubectl-edit")
    decision = world.reconcile()
    assert decision.urgent is not None
    assert world.document.audiences["alpha"] == Audience(Decimal(10), ("staff",))
    assert world.status.flags.revision == revision
    assert len(world.entries(EventReason.FLAG_DRIFT)) == 1


def test_emergency_is_in_the_document_before_the_status() -> None:
    """R12: a process that ended between the two leaves what the next one needs."""
    world = World(spec())
    world.until(at("one", 1))
    before = world.status
    world.request("EmergencyDisable", features=["alpha"])
    decision = world.reconcile()
    assert decision.urgent is not None
    assert [(one.features, one.by) for one in decision.urgent.protections] == [(("alpha",), "emergencydisable-0")]
    world.status, world.actions = before, []  # the status write was lost, and the action is gone
    world.run(60)
    assert [record.feature for record in world.status.flags.disabled] == ["alpha"]
    assert "targeting" not in world.flag("alpha")


def test_rollback_is_in_the_document_before_the_status() -> None:
    """R12: the same for a breach, whatever the guard says afterwards."""
    world = World(spec())
    world.until(at("two", 1))
    world.status = roll_back(world)
    world.run(60)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.status.current.rollback_guard == "errors"
    assert world.percents() == {"one": "100", "two": "0"}
    known = [entry.check for entry in world.status.history if entry.event is EventReason.GUARD_BREACHED]
    assert known == ["errors"], "the history tells why"


@pytest.mark.parametrize("lost", [False, True], ids=["a status", "no status"])
def test_annotation_that_came_later_explains_a_rollback(*, lost: bool) -> None:
    """Another leader has read the document between the writes of its text and of its annotation. Without a status, a person decides."""
    world = World(spec())
    world.until(at("two", 1))
    before = roll_back(world)
    world.status, explained = before if not lost else RolloutStatus(), world.document
    assert explained is not None
    assert explained.protections
    world.document = replace(explained, protections=())
    world.run(30)
    assert world.reason is DecisionReason.ADOPTION_REQUIRED
    world.tamper(protections=explained.protections)
    world.run(60)
    assert world.reason is (DecisionReason.ADOPTION_REQUIRED if lost else DecisionReason.ROLLED_BACK)
    assert world.document.audiences["gamma"] == NOBODY


@pytest.mark.parametrize("comes", [True, False])
def test_emergency_is_known_before_its_annotation(*, comes: bool) -> None:
    """Another leader has read the document between the writes of its text and of its annotation: no person is needed."""
    world = World(spec())
    world.until(at("two", 1))
    before = world.status
    world.request("EmergencyDisable", features=["alpha"])
    world.reconcile()
    explained = world.document
    assert explained is not None
    assert explained.protections
    world.document, world.status, world.actions = replace(explained, protections=()), before, []
    world.run(30)
    assert [(record.feature, record.by) for record in world.status.flags.disabled] == [("alpha", "the flag document")]
    if comes:
        world.tamper(protections=explained.protections)
    world.run(60)
    assert not world.status.flags.adoption_required
    assert "targeting" not in world.flag("alpha")
    assert world.condition("EmergencyActive") == "True"
    world.request("EmergencyEnable", features=["alpha"])
    world.run(60)
    assert "targeting" in world.flag("alpha")


def test_rollback_by_one_step_is_in_the_document_before_the_status() -> None:
    """R12: the document has what the rollback left, and no person is needed."""
    steps = [{"percent": percent, "hold": "60s"} for percent in (10, 50, 100)]
    world = World(edited(lambda data: data["phases"][0].update(steps=steps), rollback={"scope": "Step"}))
    world.until(at("one", 2))
    world.status = roll_back(world)
    world.run(60)
    assert (world.status.outcome, world.percents()["one"]) == (Outcome.ROLLED_BACK, "10")
    assert world.document is not None
    assert world.document.audiences["alpha"] == Audience(Decimal(10))


def annotated(world: World, **fields: Any) -> World:
    """The document has an annotation that the status does not know."""
    uid = {"uid": "by-hand", "time": world.now, "revision": world.status.flags.revision}
    world.tamper(protections=(Protection.model_validate({**uid, **fields}),))
    world.run(60)
    return world


def test_reason_in_the_annotation_is_shortened() -> None:
    """R1: whoever may edit the annotation may write more than a status holds; the decision raised, again and again."""
    world = World(spec())
    world.until(at("one", 1))
    annotated(world, kind="Emergency", features=["alpha"], reason="x" * 400)
    assert [(record.feature, len(record.reason)) for record in world.status.flags.disabled] == [("alpha", 256)]


def test_rollback_in_the_annotation_has_an_outcome_of_a_rollback() -> None:
    """R1: `Promoted` is a value of the field; the decision raised when the rollback ended."""
    world = World(spec())
    world.until(at("one", 1))
    annotated(world, kind="Rollback", phases=["one"], outcome="Promoted")
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.percents()["one"] == "0"


def test_annotation_with_many_features_lifts_no_emergency() -> None:
    """The list of what is off is bounded: features of the rollout stay in it."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    annotated(world, kind="Emergency", features=[f"other{number}" for number in range(200)])
    assert "alpha" in {record.feature for record in world.status.flags.disabled}
    assert "targeting" not in world.flag("alpha")


def test_lifted_emergency_is_never_adopted_again() -> None:
    """The document that still has it may arrive late."""
    world = World(spec())
    world.until(at("one", 1))
    world.request("EmergencyDisable", features=["alpha"])
    world.reconcile()
    late = world.document
    assert late is not None
    world.run(10)
    world.request("EmergencyEnable")
    world.run(10)
    world.document = replace(late, revision=world.status.flags.revision, version=100)
    world.run(30)
    assert world.status.flags.disabled == ()
    assert "targeting" in world.flag("alpha")


@pytest.mark.parametrize("foreign", [{"owner": "other"}, {"owner": None, "managed": False}], ids=["rollout", "somebody"])
def test_foreign_document_is_refused_before_anything_is_published(foreign: dict[str, object]) -> None:
    """D18: the second rollout says so, and shows no audience that it never published."""
    world = World(spec())
    world.document = PublishedDocument("sha256:other", audiences={"alpha": Audience(Decimal(5))}, **foreign)  # type: ignore[arg-type]
    world.run(60)
    assert (world.status.state, world.reason) == (State.STALLED, DecisionReason.INVALID_SPEC)
    assert world.status.current.audience == "0%"
    assert world.documents == []
    name = world.request("EmergencyDisable")
    world.run(10)
    assert world.answer(name) == (False, ActionReason.FOREIGN_DOCUMENT)


def test_deleted_document_comes_back_as_it_was() -> None:
    """The bytes of the last agreed revision."""
    world = World(spec())
    world.until(at("one", 2, 1))
    text = world.documents[-1]
    world.document = None
    world.run(10)
    assert world.documents[-1] == text


@pytest.mark.parametrize(
    "more", [{"audiences": {"alpha": None}}, {"audiences": {"alpha": Audience(Decimal(100))}, "revision": 900}]
)
def test_edit_of_any_kind_is_corrected_to_what_was_agreed(more: dict[str, Any]) -> None:
    """Rules that are not ours, and a revision that somebody raised: users never lose or gain on the way."""
    world = World(spec())
    world.until(at("one", 1))
    assert world.document is not None
    agreed = world.document.audiences
    world.tamper(editor="kubectl-edit", **{**more, "audiences": {**agreed, **more["audiences"]}})
    documents = len(world.documents)
    world.run(10)
    assert world.reason is not DecisionReason.ADOPTION_REQUIRED
    assert [read_document(text).audiences for text in world.documents[documents:]] == [agreed]


def test_refused_request_pauses_the_hold() -> None:
    """R11: a stalled rollout is not promoted in the meantime."""
    world = World(spec())
    world.until(at("one", 1))
    world.refusals = (Refusal(effect="ReadJob", verb="get", resource="jobs", message="forbidden", since=world.now),)
    world.run(600)
    assert world.where[:2] == ("one", 1)
    assert world.status.current.hold_paused_reason is DecisionReason.REQUEST_REFUSED
    world.refusals = ()
    world.until(at("one", 2, 1))


def test_hold_that_is_over_while_results_are_awaited_does_not_spin() -> None:
    """The results wake the loop."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(40)
    world.answering = False
    world.run(60)
    decision = world.reconcile()
    assert decision.next_reconcile >= timedelta(seconds=1)


@pytest.mark.parametrize("grows", [False, True])
def test_rollback_by_a_leader_that_does_not_know_of_a_raise_is_learned(*, grows: bool) -> None:
    """The other leader has written the raise to the status, and the document of the rollback is newer than that.

    With an edit that adds a feature, it is the first of two documents.
    """
    guards = [{"name": "errors", "metric": "errors", "below": "5%"}]
    world = World(spec(guards=guards))
    world.until(at("one", 1))
    while (raised := world.decide().status).current.percent == "10":
        world.settle()
        world.now += timedelta(seconds=10)
    world.values["errors"] = Decimal("0.5")
    if grows:
        world.edit(edited(_grow, guards=guards))
    urgent = world.decide().urgent
    assert urgent is not None
    world.apply(urgent)
    world.values["errors"], world.status = Decimal("0.001"), raised
    world.run(600)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert world.document is not None
    assert not world.document.gives_something


def _grow(data: dict[str, Any]) -> None:
    data["features"].append({"name": "delta"})
    data["phases"][1]["features"].append("delta")
