"""Rollback: how far the audiences go back, and what is verified afterwards.

Covered: scopes, causes, checks after a rollback. Not here: what starts it (test_guards, test_promotion, test_actions), the
slower parts (test_schema_migrations, test_migrations, test_workload).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.collecting import DATABASE
from core.world import World, at, edited, ended, spec, with_another_plan
from session_rollout.api.enums import (
    ActionReason,
    CheckKind,
    CheckReason,
    DecisionReason,
    EventReason,
    Outcome,
    Stage,
    State,
    Verdict,
)
from session_rollout.api.migration_enums import MigrationState, Operation
from session_rollout.api.progress import Progress
from session_rollout.api.status_records import MigrationRecord
from session_rollout.core.documents import read_document
from session_rollout.core.flags import Audience
from session_rollout.core.observed import JobObservation, JobState

HEALTH = {"name": "health", "http": {"service": "web", "path": "/health"}}
CALM = {"name": "calm", "metric": "errors", "below": "5%"}


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ("Step", {"one": "100", "two": "50"}),
        ("Phase", {"one": "100", "two": "0"}),
        ("All", {"one": "0", "two": "0"}),
    ],
)
def test_scopes(scope: str, left: dict[str, str]) -> None:
    """Step goes back one audience, Phase one phase, All everything."""
    world = World(spec(rollback={"scope": scope}))
    world.until(at("two", 2))
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert world.percents() == left


def test_first_step_goes_back_to_nobody() -> None:
    """Scope Step before any other audience of the phase means off."""
    world = World(spec(rollback={"scope": "Step"}))
    world.until(at("two", 1))
    world.request("Abort")
    world.until(ended)
    assert world.percents() == {"one": "100", "two": "0"}


def test_step_scope_keeps_the_groups_of_the_audience_before() -> None:
    """The audience before 30 % was 10 % and staff."""
    world = World(spec(rollback={"scope": "Step"}))
    world.until(at("one", 2, 1))
    world.values["errors"] = Decimal("0.08")
    world.until(ended)
    assert world.status.current.audience == "10%+staff"


def test_publishing_comes_before_the_end() -> None:
    """While the cluster accepts no document the rollback has not ended, and status says so."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing = False
    world.values["errors"] = Decimal("0.08")
    world.run(60)
    assert (world.status.current.stage, world.reason) == (Stage.ROLLING_BACK, DecisionReason.PUBLISHING_ROLLBACK)
    assert world.status.current.rollback_outcome is Outcome.ROLLED_BACK
    assert world.condition_reason("RolledBack") == "NotInForce"
    world.publishing = True
    world.until(ended)
    assert world.condition_reason("RolledBack") == "RolledBack"


def test_checks_after_a_rollback_do_not_delay_it_and_are_recorded() -> None:
    """The outcome is there first; a metric is evaluated only on data from after; all passing is one event."""
    world = World(spec(rollback={"verification": [HEALTH, CALM]}), ranges={"errors": timedelta(seconds=60)})
    world.gates["health"] = Verdict.FAIL
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.06")
    world.until(ended)
    calm = world.check(CheckKind.AFTER_ROLLBACK, "calm")
    assert (calm.verdict, calm.reason) == (Verdict.NOT_EVALUATED, CheckReason.WARMING_UP)
    world.values["errors"] = Decimal("0.001")
    world.run(90)
    assert world.check(CheckKind.AFTER_ROLLBACK, "calm").verdict is Verdict.PASS
    assert world.check(CheckKind.AFTER_ROLLBACK, "health").verdict is Verdict.FAIL
    assert world.entries(EventReason.ROLLBACK_VERIFIED) == []
    world.gates["health"] = Verdict.PASS
    world.run(30)
    assert len(world.entries(EventReason.ROLLBACK_VERIFIED)) == 1
    writes = world.writes
    world.run(300)
    assert world.writes == writes


def test_scope_step_leaves_no_audience_that_is_in_breach() -> None:
    """The next audience was decided and not published: the one before it is what the guard measured."""
    world = World(spec(rollback={"scope": "Step"}))
    world.until(at("one", 1))
    world.publishing = False
    world.until(lambda world: world.status.current.step == 2)
    world.values["errors"] = Decimal("0.5")
    world.run(60)
    world.publishing = True
    world.run(10)
    assert world.percents()["one"] == "0"


@pytest.mark.parametrize("how", ["breach", "Abort", "EmergencyDisable"])
def test_protection_without_a_document_does_not_wait_for_the_status(how: str) -> None:
    """Somebody has deleted it, and applications still have what they have read: it comes back before the status is written."""
    world = World(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%"}]))
    world.until(at("one", 1))
    world.document = None
    if how == "breach":
        world.values["errors"] = Decimal("0.5")
    else:
        world.request(how)
    urgent = world.decide().urgent
    assert urgent is not None
    assert len(urgent.protections) == 1
    document = read_document(urgent.text)
    assert not document.gives_something


def with_a_ramp(data: dict[str, Any]) -> None:
    """Phase one continues from 10% with a ramp of five increments."""
    ramp = {"ramp": {"to": 60, "over": "500s", "increments": 5}}
    data["phases"][0]["steps"] = [{"percent": 10, "hold": "60s"}, ramp, {"percent": 100, "hold": "60s"}]


@pytest.mark.parametrize("promoted_at", [1, 3, 5])
@pytest.mark.parametrize("published", [False, True])
def test_scope_step_leaves_no_more_than_users_had_before_a_promote(promoted_at: int, *, published: bool) -> None:
    """It skips increments of a ramp: the plan's increment before the new audience is one that nobody ever had."""
    world = World(edited(with_a_ramp, rollback={"scope": "Step"}, propagation="2m"))
    world.until(at("one", 2, promoted_at))
    had = Decimal(world.where[3])
    world.request("Promote", generation=1, phase="one", step=2, percent=world.where[3])
    if published:
        world.until(lambda world: Decimal(world.where[3]) > had)
        world.settle()
    while not (published or world.status.current.is_unpublished):
        world.reconcile(crash_before_effects=True)
    world.values["errors"] = Decimal("0.5")
    world.run(120)
    assert world.status.current.rollback_uid is not None
    assert world.document is not None
    assert world.document.audiences["alpha"] is not None
    assert world.document.audiences["alpha"].percent == (had if published else had - 10)


def test_scope_step_leaves_no_more_than_the_document_gives() -> None:
    """Somebody has lowered the audience by hand, and it could not be corrected yet: a rollback gives nobody anything."""
    world = World(edited(with_a_ramp, rollback={"scope": "Step"}))
    world.until(at("one", 2, 3))
    world.publishing = False
    assert world.document is not None
    fewer = {**world.document.audiences, "alpha": Audience(Decimal(15)), "beta": Audience(Decimal(15))}
    world.tamper(audiences=fewer, editor="kubectl-edit")
    world.request("Abort")
    world.settle()
    world.publishing = True
    world.until(ended)
    assert world.percents()["one"] == "10"


@pytest.mark.parametrize(
    "place", [{"phase": None}, {"phase": "gone"}, {"step": 9}, {"increment": 7}, {"stage": Stage.AFTER, "phase": None}]
)
@pytest.mark.parametrize("cause", ["Abort", "breach"])
def test_status_that_names_no_step_of_the_spec_is_rolled_back(place: dict[str, Any], cause: str) -> None:
    """Another client has written it: the rollout is stalled, and users are still protected."""
    world = World(spec())
    world.until(at("one", 1))
    world.status = world.status.updated(current=world.status.current.updated(**place))
    world.run(30)
    assert (world.status.state, world.reason) == (State.STALLED, DecisionReason.INVALID_SPEC)
    if cause == "Abort":
        world.request("Abort")
    else:
        world.values["errors"] = Decimal("0.5")
    world.run(60)
    assert world.status.outcome is (Outcome.ABORTED if cause == "Abort" else Outcome.ROLLED_BACK)
    assert world.document is not None
    assert not world.document.gives_something


@pytest.mark.parametrize("suspend", [False, True])
def test_edit_during_a_rollback_starts_again_unless_it_suspends(*, suspend: bool) -> None:
    """The rollback is published in any case."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing, world.values["errors"] = False, Decimal("0.5")
    world.until(lambda world: world.status.current.stage is Stage.ROLLING_BACK)
    world.edit(with_another_plan(suspend=suspend))
    world.publishing, world.values["errors"], before = True, Decimal("0.001"), len(world.documents)
    world.run(60)
    assert not read_document(world.documents[before]).gives_something
    assert world.document is not None
    assert world.document.gives_something is not suspend


class WithoutEnd(World):
    """Jobs run for ever."""

    def advance_jobs(self) -> None:
        pass


def test_second_breach_of_a_rollback_by_one_step_turns_the_feature_off() -> None:
    """Also while the first rollback has not ended, because it waits for a migration."""
    migrations = {**DATABASE, "migrations": [{"name": "rows", "bundle": "a/rows"}]}
    world = WithoutEnd(
        edited(lambda data: data["phases"][1].update(migrations={"after": ["rows"]}), rollback={"scope": "Step"}, **migrations)
    )
    world.until(at("one", 3))
    record = MigrationRecord(name="rows", state=MigrationState.RUNNING, operation=Operation.UP, job="rows-up")
    world.status = world.status.updated(migrations=(record,))
    world.jobs["rows-up"] = JobObservation(JobState.ACTIVE, Progress(message="applying 0001_rows.up.sql"))
    world.values["errors"] = Decimal("0.9")
    world.until(lambda world: world.percents()["one"] == "50")
    assert world.status.current.stage is Stage.ROLLING_BACK
    world.run(600)
    assert world.status.current.stage is Stage.ROLLING_BACK
    assert world.percents()["one"] == "0"
    assert len(world.entries(EventReason.ROLLBACK_STARTED)) == 2


@pytest.mark.parametrize("cause", ["guard", "abort"])
@pytest.mark.parametrize("document", ["refused", "deleted"])
def test_rollback_whose_document_is_refused_is_not_shown_as_done(cause: str, document: str) -> None:
    """Users still have the features: the column, the message and the condition say so, and the action has no response."""
    world = World(spec())
    world.until(lambda world: world.where[:2] == ("one", 1) and world.status.current.hold_until is not None)
    given = world.status.current.audience
    world.publishing = False
    if document == "deleted":
        world.document = None
    abort = world.request("Abort", "stop") if cause == "abort" else None
    world.values["errors"] = Decimal("0.001") if cause == "abort" else Decimal("0.08")
    world.run(120)
    assert world.status.current.stage is Stage.ROLLING_BACK
    assert world.status.current.audience == (given if document == "refused" else "0%")
    assert world.status.decision.message.startswith("ROLLBACK NOT IN FORCE: alpha and 1 more still on; ")
    assert (world.condition("RolledBack"), world.condition_reason("RolledBack")) == ("Unknown", "NotInForce")
    assert world.status.current.rollback_reasons[0] in world.status.decision.details
    assert abort not in world.answers
    again = world.request("Abort", "again")
    world.run(10)
    assert world.answer(again) == (False, ActionReason.ALREADY_ROLLING_BACK)
    world.publishing = True
    world.until(ended)
    assert abort is None or world.answer(abort) == (True, ActionReason.ACCEPTED)
    assert (world.status.current.audience, world.condition("RolledBack")) == ("0%", "True")
    assert not world.status.decision.message.startswith("ROLLBACK")


@pytest.mark.parametrize("published", [True, False])
def test_rollback_that_users_do_not_wait_for_is_not_called_out(*, published: bool) -> None:
    """With a first audience that was never written, nobody has anything; otherwise the document is written at once."""
    world = World(spec())
    if published:
        world.until(at("one", 1))
    else:
        world.refuse_first_publish()
        world.run(10)
    abort, messages = world.request("Abort"), list[str]()
    for _ in range(10):
        world.reconcile()
        messages.append(world.status.decision.message)
    assert world.answer(abort) == (True, ActionReason.ACCEPTED)
    assert world.status.outcome is (Outcome.ABORTED if published else None)
    assert not [message for message in messages if "NOT IN FORCE" in message]
