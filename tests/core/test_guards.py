"""Guards: when a breach acts, what it does, and what is recorded about it.

Covered: Rollback, Pause and Warn, `for`, absences, several guards at once. Not here: what a rollback undoes (test_rollback).
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import pytest

from core.collecting import with_delta
from core.world import World, at, edited, ended, spec
from session_rollout.api.enums import CheckKind, DecisionReason, EventReason, Outcome, PhaseState, Stage, State, Verdict
from session_rollout.core.documents import read_document
from session_rollout.core.flags import NOBODY


def test_breach_rolls_back_the_phase_and_keeps_earlier_ones() -> None:
    """Flags off first; status names guard, value and bound; not retried."""
    world = World(spec())
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.08")
    took = world.until(ended)
    assert took <= 40
    assert (world.status.outcome, world.reason, world.status.state) == (
        Outcome.ROLLED_BACK,
        DecisionReason.ROLLED_BACK,
        State.ROLLED_BACK,
    )
    assert world.status.current.rollback_guard == "errors"
    assert [entry.check for entry in world.entries(EventReason.ROLLBACK_STARTED)] == ["errors"]
    [breach] = world.entries(EventReason.GUARD_BREACHED)
    assert (breach.check, breach.audience, breach.phase, breach.step) == ("errors", "50%", "two", 1)
    phases = {phase.name: (phase.percent, phase.state) for phase in world.status.phases}
    assert phases == {"one": ("100", PhaseState.COMPLETED), "two": ("0", PhaseState.ROLLED_BACK)}
    assert (world.condition("Ready"), world.condition("Stalled"), world.condition("RolledBack")) == ("False", "True", "True")
    world.values["errors"] = Decimal("0.001")
    world.run(10)  # phase one is still published, so that its guard is evaluated and passes again
    writes, documents = world.writes, len(world.documents)
    world.run(600)
    assert (world.writes, len(world.documents)) == (writes, documents)


def test_breach_shorter_than_for_is_ignored() -> None:
    """`for: 20s` means 20 s."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.08")
    world.run(10)
    world.values["errors"] = Decimal("0.001")
    world.run(60)
    assert world.status.outcome is None
    assert world.entries(EventReason.GUARD_BREACHED) == []


@pytest.mark.parametrize("answers_at_once", [True, False], ids=["results at once", "results later"])
def test_breach_is_not_assumed_over_an_absence(*, answers_at_once: bool) -> None:
    """A breach before and after ten minutes without a reconcile has lasted no time, however late the first result is."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.08")
    world.run(10)
    world.now += timedelta(seconds=600)
    world.answering = answers_at_once
    world.settle()
    assert world.status.outcome is None
    world.answering = True
    world.settle()
    assert world.status.outcome is None
    world.run(20)
    assert world.status.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize(
    ("on_breach", "paused_by"), [("Pause", "errors"), ("Warn", None)], ids=["Pause names the guard", "Warn continues"]
)
def test_other_breaches(on_breach: str, paused_by: str | None) -> None:
    """Pause keeps the audience, Warn is recorded once, neither rolls back."""
    world = World(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%", "onBreach": on_breach}]))
    world.until(at("two", 1))
    world.values["errors"] = Decimal("0.08")
    world.run(60)
    assert world.status.outcome is None
    assert world.status.paused_by == paused_by
    assert (world.reason is DecisionReason.PAUSED) is (paused_by is not None)
    assert [entry.check for entry in world.entries(EventReason.GUARD_BREACHED)] == ["errors"]


def test_second_breach_of_a_warning_is_a_second_event() -> None:
    """One event for each time that the verdict becomes Fail."""
    world = World(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%", "onBreach": "Warn"}]))
    world.until(at("one", 1))
    for value in ("0.08", "0.001", "0.07"):
        world.values["errors"] = Decimal(value)
        world.run(20)
    assert len(world.entries(EventReason.GUARD_BREACHED)) == 2


def test_guards_that_breach_together_act_as_one() -> None:
    """One event and one rollback; `check` is the first guard in the order of the spec, and each has its cause."""
    guards = [
        {"name": "late", "metric": "load", "below": "2"},
        {"name": "errors", "metric": "errors", "below": "5%"},
    ]
    world = World(spec(guards=guards))
    world.until(at("one", 1))
    world.values |= {"errors": Decimal("0.08"), "load": Decimal(3)}
    world.until(ended)
    assert [entry.check for entry in world.entries(EventReason.GUARD_BREACHED)] == ["late"]
    assert world.status.current.rollback_guard == "late"
    assert len(world.status.current.rollback_reasons) == 2


@pytest.mark.parametrize("on_breach", ["Rollback", "Pause"])
@pytest.mark.parametrize("last", [False, True], ids=["step", "last step and bake"])
def test_nothing_is_promoted_while_a_guard_begins_to_fail(on_breach: str, *, last: bool) -> None:
    """D1: `for` is longer than what is left of the hold; the breach acts instead of being left behind."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m", "onBreach": on_breach}
    world = World(spec(guards=[guard]))
    phase, step = ("two", 2) if last else ("one", 1)
    world.until(at(phase, step))
    world.run(50)
    world.values = {"errors": Decimal("0.08"), "load": Decimal("1.0")}
    world.spec = world.spec.updated(phases=tuple(each.updated(criteria=()) for each in world.spec.phases))
    world.run(580)
    assert (world.where[:2], world.reason) == ((phase, step), DecisionReason.GUARD_FAILING)
    world.run(40)
    assert (world.status.outcome is Outcome.ROLLED_BACK, world.status.paused_by) == (
        on_breach == "Rollback",
        "errors" if on_breach == "Pause" else None,
    )


def test_a_guard_that_passes_again_lets_the_rollout_continue() -> None:
    """D1: a failure shorter than `for` only delays the promotion."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}
    world = World(edited(lambda data: [phase.pop("criteria") for phase in data["phases"]], guards=[guard]))
    world.until(at("two", 2))
    world.values["errors"] = Decimal("0.08")
    world.run(300)
    world.values["errors"] = Decimal("0.001")
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("last", [False, True], ids=["step", "bake"])
def test_guard_that_fails_most_of_the_time_is_not_steady(*, last: bool) -> None:
    """A pass between failures that `for` tolerates each: it must pass for the last 10 evaluations, as a criterion does."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}
    world = World(edited(lambda data: [phase.pop("criteria") for phase in data["phases"]], guards=[guard], bake="300s"))
    world.until((lambda world: world.status.current.stage is Stage.BAKE) if last else at("one", 1))
    before = world.where
    for number in range(200):
        world.values["errors"] = Decimal("0.001") if number % 4 == 0 else Decimal("0.5")
        world.run(10)
        assert world.where == before
        assert world.status.outcome is None
    world.values["errors"] = Decimal("0.001")
    start = world.now
    world.until(ended if last else at("one", 2, 1))
    assert (world.now - start).total_seconds() >= (100 if last else 20)


# --- whatever this rollout has switched on is guarded until Promoted


def unhealthy(world: World) -> None:
    world.values["errors"] = Decimal("0.08")


ONE_PHASE_LATER = {
    "migrations": [{"name": "rows", "bundle": "a/rows"}],
    "database": {"secretKeyRef": {"name": "db"}},
}


@dataclass
class SlowWorld(World):
    """Its Jobs run until the flags of every phase are off."""

    def advance_jobs(self) -> None:
        if all(percent == "0" for percent in self.percents().values()):
            super().advance_jobs()


def before_the_second_phase() -> World:
    """Phase one is complete, and the migrations of phase two run."""
    world = SlowWorld(edited(lambda data: data["phases"][1].update(migrations={"before": ["rows"]}), **ONE_PHASE_LATER))
    world.until(lambda world: world.status.current.stage is Stage.BEFORE and world.status.current.phase == "two", tick=1)
    return world


@pytest.mark.parametrize("migrates", [True, False], ids=["while phase two migrates", "in the first audience of phase two"])
def test_breach_rolls_back_what_is_published_newest_first(*, migrates: bool) -> None:
    """D5: also where the running phase has published nothing, and the older phase follows while the breach lasts."""
    world = before_the_second_phase() if migrates else World(spec())
    if not migrates:
        world.until(at("two", 1))
    unhealthy(world)
    world.until(lambda world: all(percent == "0" for percent in world.percents().values()))
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK
    assert {record.state for record in world.status.phases if record.features} == {PhaseState.ROLLED_BACK}
    writes = world.writes
    world.run(600)
    assert world.writes == writes, "nothing is left to guard"


def test_older_phase_stays_when_the_breach_ends_with_the_newer_one() -> None:
    """D5: the next older one follows only while the breach lasts after the first rollback has settled."""
    world = World(spec())
    world.until(at("two", 1))
    unhealthy(world)
    world.until(lambda world: world.percents()["two"] == "0")
    world.values["errors"] = Decimal("0.001")
    world.run(600)
    assert world.percents() == {"one": "100", "two": "0"}
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_phase_that_was_decided_and_not_published_delays_no_rollback() -> None:
    """D5, R12: while a document or a status is refused, users have less than the status says: what they have is turned off."""
    world = World(edited(lambda data: data["phases"][1].pop("criteria")))
    world.until(at("one", 3))
    world.publishing = False
    world.until(lambda world: world.status.current.phase == "two" and world.status.current.step == 1)
    unhealthy(world)
    world.until(lambda world: world.percents()["two"] == "0")
    assert world.percents() == {"one": "0", "two": "0"}


@pytest.mark.parametrize("lasts", [True, False], ids=["the breach lasts", "the breach ends"])
def test_breach_just_after_an_emergency_rolls_back_what_it_turned_off(*, lasts: bool) -> None:
    """D5: what the query still covers may be about the disabled features; the older phase follows only if the breach lasts."""
    world = World(spec(), ranges={"errors": timedelta(seconds=60)})
    world.until(at("two", 1))
    unhealthy(world)
    world.request("EmergencyDisable", features=["gamma"])
    world.until(lambda world: world.percents()["two"] == "0", tick=1)
    assert world.percents() == {"one": "100", "two": "0"}
    if not lasts:
        world.values["errors"] = Decimal("0.001")
    world.run(300)
    assert world.percents() == {"one": "0" if lasts else "100", "two": "0"}


def test_breach_long_after_an_emergency_turns_off_what_users_have() -> None:
    """D5: the disabled features of the running phase cannot cause it any more."""
    world = World(spec(), ranges={"errors": timedelta(seconds=60)})
    world.until(at("two", 1))
    world.request("EmergencyDisable", features=["gamma"])
    world.run(120)
    unhealthy(world)
    world.until(lambda world: world.percents()["two"] == "0", tick=1)
    assert world.percents() == {"one": "0", "two": "0"}


def test_breach_while_everything_is_disabled_ends_in_one_rollback_for_each_phase() -> None:
    """D5: no rollback without a phase, again and again."""
    world = World(spec())
    world.until(at("two", 1))
    world.request("EmergencyDisable")
    world.run(120)
    unhealthy(world)
    world.run(600)
    assert world.percents() == {"one": "0", "two": "0"}
    assert len(world.entries(EventReason.ROLLBACK_STARTED)) <= 2


@pytest.mark.parametrize("again", ["ended", "preflight"])
def test_older_phase_is_guarded_after_an_abort_and_in_the_next_preflight(again: str) -> None:
    """D5: what earlier phases published is guarded as long as users have it."""
    world = World(spec(preflight=[{"name": "signed", "approval": {}}]))
    world.run(10)
    world.request("Approve", generation=1, check="signed")
    world.until(at("two", 1))
    world.request("Abort")
    world.until(ended)
    if again == "preflight":
        world.request("Retry", generation=1)
        world.run(10)
        assert world.status.current.stage is Stage.PREFLIGHT
    unhealthy(world)
    world.until(lambda world: world.percents()["one"] == "0")
    world.until(ended)
    assert world.status.outcome is Outcome.ROLLED_BACK


def test_promoted_phase_is_not_rolled_back_by_a_later_generation() -> None:
    """D5: it was guarded until Promoted."""
    world = World(spec())
    world.until(ended)
    assert world.status.outcome is Outcome.PROMOTED
    world.edit(edited(with_delta))
    world.until(at("delta", 1))
    unhealthy(world)
    world.until(ended)
    world.run(600)
    assert world.percents() == {"one": "100", "two": "100", "delta": "0"}


@pytest.mark.parametrize("retried", [False, True], ids=["first publish", "retry"])
def test_guard_in_breach_keeps_the_first_publish_back(*, retried: bool) -> None:
    """D15: users do not get the feature for the time of `for`."""
    world = World(spec())
    if retried:
        world.until(at("one", 1))
        unhealthy(world)
        world.until(ended)
        world.request("Retry", generation=1)
    unhealthy(world)
    documents = len(world.documents)
    world.run(600)
    assert world.reason is DecisionReason.GUARD_FAILING
    assert all(read_document(text).audiences["alpha"] == NOBODY for text in world.documents[documents:])
    world.values["errors"] = Decimal("0.001")
    world.until(at("one", 1))


def test_guard_that_nobody_can_query_keeps_the_first_publish_back() -> None:
    """D15: one without data does not: it may get some with the first users."""
    world = World(spec())
    world.values["errors"] = Verdict.PROVIDER_ERROR
    world.run(600)
    assert world.reason is DecisionReason.AWAITING_EVIDENCE
    assert world.percents()["one"] == "0"
    world.values["errors"] = Verdict.NO_DATA
    world.until(at("one", 1))


def test_suspended_rollout_rolls_nothing_back() -> None:
    """Not even after its end."""
    world = World(spec())
    world.until(at("two", 1))
    world.request("Abort")
    world.until(ended)
    world.edit(spec(suspend=True))
    unhealthy(world)
    world.run(600)
    assert world.percents()["one"] == "100"


WINDOW = [{"days": ["Mon"], "from": "11:00", "to": "12:00"}]


@pytest.mark.parametrize("how", ["restart", "query", "provider"])
def test_first_publish_waits_for_a_result_of_now(how: str) -> None:
    """D15: what an earlier process, or the query before an edit, has measured opens no window."""
    guard = {"name": "errors", "metric": "errors", "below": "5%", "for": "10m"}
    world = World(spec(guards=[guard], windows=WINDOW))
    world.until(lambda world: world.reason is DecisionReason.AWAITING_WINDOW)
    assert world.check(CheckKind.GUARD, "errors").verdict is Verdict.PASS
    world.values["errors"] = Decimal("0.08")
    world.answering, world.last_reconcile = False, None
    if how == "query":
        world.edit(edited(lambda data: data["metrics"][0].update(query="other"), guards=[guard]))
    if how == "provider":
        world.edit(spec(guards=[guard], prometheus="elsewhere"))
    world.now += timedelta(hours=1, minutes=5)
    world.run(60)
    assert (world.status.current.stage, world.document and world.document.gives_something) == (Stage.BASELINE, False)
    world.answering = True
    world.run(60)
    assert world.reason is DecisionReason.GUARD_FAILING
    world.values["errors"] = Decimal("0.001")
    world.until(at("one", 1))


def test_pause_by_a_guard_stops_the_timer_at_once() -> None:
    """D8: the time until the next decision does not count for the hold."""
    world = World(spec(guards=[{"name": "errors", "metric": "errors", "below": "5%", "onBreach": "Pause"}]))
    world.until(at("one", 1))
    world.run(30)
    until, moment = world.status.current.hold_until, world.now
    world.values["errors"] = Decimal("0.08")
    world.run(10)
    assert (world.status.current.hold_paused_time, world.status.current.hold_until) == (moment, until)


def test_guard_that_fails_keeps_back_an_audience_that_was_decided_and_not_published() -> None:
    """R11: nothing grows while a guard fails, however long ago it was decided."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing = False
    world.until(lambda world: world.status.current.step == 2)
    world.values["errors"] = Decimal("0.08")
    world.run(10)
    world.publishing = True
    world.settle()
    assert world.document is not None
    assert world.document.audiences["alpha"] is not None
    assert world.document.audiences["alpha"].percent == Decimal(10)
    assert world.reason is DecisionReason.GUARD_FAILING
    world.values["errors"] = Decimal("0.001")
    world.until(at("one", 2, 1))
