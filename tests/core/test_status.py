"""The status as it is written: every change is validated, and its size is bounded.

Covered: the setters of DecisionContext and Model.updated, strings that shorten themselves, the budget of 32 KiB, statuses that
somebody else has written. Not here: that the code uses the setters and no other way (test_house).
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from api.strategies import ROLLOUT
from api.structural import problems
from core.world import START, World, at, ended, spec
from session_rollout.api.base import SENTENCE_LENGTH, SENTENCES, SUMMARY_LENGTH
from session_rollout.api.enums import EventReason, Outcome, Stage, Verdict
from session_rollout.api.status import DecisionRecord, RolloutStatus
from session_rollout.api.status_records import CheckRecord, HistoryEntry
from session_rollout.core.context import DecisionContext
from session_rollout.core.observed import ClockJump
from session_rollout.core.status_budget import LIMIT_BYTES, fit

STATUS = ROLLOUT["properties"]["status"]
NO_NUMBERS = {
    "percent": {"phases": [{"name": "one", "state": "Running", "percent": "x"}]},
    "percent of the current step": {"current": {"stage": "Step", "percent": "1e9"}},
    "baseline": {"checks": [{"name": "load", "kind": "Guard", "verdict": "Pass", "baseline": "much"}]},
}


@pytest.mark.parametrize("status", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_numbers_are_bounded_at_the_door(status: dict[str, Any]) -> None:
    """R5: whoever may write a status wrote one that every later decision raised on; the API server refuses it."""
    assert any("does not match" in problem for problem in problems(status, STATUS))


def test_emergency_is_heard_at_the_ends_of_numbers_and_times() -> None:
    """R3: there is no revision after the largest, and no time after the year 9999; the emergency raised."""
    world = World(spec())
    world.until(at("one", 1))
    ends = {"published_time": datetime.max.replace(tzinfo=UTC), "revision": 2**53}
    world.status = world.status.updated(flags=world.status.flags.updated(**ends))
    world.request("EmergencyDisable", features=["alpha"])
    world.run(10)
    assert "targeting" not in world.flag("alpha")
    assert world.status.flags.revision == 2**53


def context() -> DecisionContext:
    """The context of a decision in the first step."""
    world = World(spec())
    world.until(at("one", 1))
    observed = world.observed()
    return DecisionContext(observed=observed, now=world.now, status=observed.rollout.status)


Setter = Callable[[DecisionContext, dict[str, Any]], object]
SETTERS: dict[str, Setter] = {
    "change": lambda context, fields: context.change(**fields),
    "move": lambda context, fields: context.move(**fields),
    "enter": lambda context, fields: context.enter(Stage.BAKE, **fields),
    "mark": lambda context, fields: context.mark("one", **fields),
    "end": lambda context, fields: context.end(Outcome.PROMOTED, EventReason.PROMOTED, "", **fields),
    "record_event": lambda context, fields: context.record_event(EventReason.PAUSED, "", **fields),
    "updated": lambda context, fields: context.status.flags.updated(**fields),
}
MISSPELLED: dict[str, dict[str, Any]] = {name: {"stagge": "Step", "revison": 7} for name in SETTERS}
TOO_LONG: dict[str, dict[str, Any]] = {
    "change": {"paused_by": "x" * 257},
    "move": {"approved_by": "x" * 257},
    "enter": {"rollback_guard": "x" * 64},
    "mark": {"percent": "1" * 9},
    "end": {"rollback_guard": "x" * 64},
    "record_event": {"by": "x" * 257},
    "updated": {"sha256": "x" * 72},
}
OUT_OF_BOUNDS: dict[str, dict[str, Any]] = {
    "change": {"notifications_lost": -1},
    "move": {"stage": "Nowhere"},
    "enter": {"step": 1001},
    "mark": {"state": "Done"},
    "end": {"phase_index": -1},
    "record_event": {"check": "Not a Name"},
    "updated": {"revision": -1},
}


@pytest.mark.parametrize("name", SETTERS)
@pytest.mark.parametrize("wrong", [MISSPELLED, TOO_LONG, OUT_OF_BOUNDS], ids=["misspelled", "too long", "out of bounds"])
def test_setters_refuse_what_the_api_server_would_refuse(name: str, wrong: dict[str, dict[str, Any]]) -> None:
    """At the place of the mistake, with a test that fails, and not as a 422 of the API server."""
    subject = context()
    with pytest.raises(ValidationError):
        SETTERS[name](subject, wrong[name])


def test_stage_that_is_entered_keeps_only_what_belongs_to_the_phase() -> None:
    """Approval, hold and increment belong to the stage before; the audience text follows the audience."""
    subject = context()
    subject.move(approved_by="somebody", hold_until=START)
    subject.enter(Stage.STEP, step=2, percent="30", groups=("staff", "beta"))
    current = subject.current
    assert (current.approved_by, current.hold_until, current.published_time) == (None, None, None)
    assert (current.phase, current.step, current.audience) == ("one", 2, "30%+staff+beta")
    assert subject.transitions == [(Stage.STEP, Stage.STEP)]


LONG = "x" * 10_000


@pytest.mark.usefixtures("prose")
def test_prose_of_the_operator_shortens_itself() -> None:
    """A long error of a provider must not make the status invalid."""
    decision = DecisionRecord(message=LONG, details=(LONG,) * 50, next_actions=(LONG,) * 50)
    assert len(decision.message) == SUMMARY_LENGTH
    assert {len(text) for text in decision.details} == {SENTENCE_LENGTH}
    assert (len(decision.details), len(decision.next_actions)) == (SENTENCES, SENTENCES)
    record = CheckRecord.model_validate({"name": "errors", "kind": "Guard", "message": LONG, "value": LONG, "bound": LONG})
    assert (len(record.message), len(record.value or ""), len(record.bound or "")) == (SENTENCE_LENGTH, 40, 80)


def test_reason_of_a_user_is_refused_when_it_is_too_long() -> None:
    """What users write is not shortened silently: the API server refuses it, and so does the model."""
    with pytest.raises(ValidationError):
        HistoryEntry(time=START, event=EventReason.PAUSED, by=LONG)


def test_longest_error_of_a_provider_keeps_the_status_valid() -> None:
    """From the measurement to the decision, the conditions and the history."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Verdict.PROVIDER_ERROR
    world.problems = (LONG,) * 20
    world.run(30)
    assert RolloutStatus.model_validate(world.status.to_wire()) == world.status


def test_status_stays_small_with_twenty_phases() -> None:
    """At most 32 KiB, always."""
    phases = [
        {
            "name": f"phase-{n:02}",
            "features": [f"feature{n}a", f"feature{n}b"],
            "steps": [{"percent": 100, "hold": "60s"}],
            "criteria": [{"name": f"c{m}-" + "x" * 50, "metric": "errors", "below": "1%"} for m in range(16)],
        }
        for n in range(20)
    ]
    features = [{"name": f"feature{n}{letter}"} for n in range(20) for letter in "ab"]
    guards = [{"name": f"g{m}-" + "y" * 50, "metric": "errors", "below": "5%"} for m in range(16)]
    world = World(spec(phases=phases, features=features, guards=guards))
    largest = 0

    def measure(world: World) -> bool:
        nonlocal largest
        largest = max(largest, len(json.dumps(world.status.to_wire())))
        return ended(world)

    world.until(lambda world: world.status.current.phase == "phase-03")
    world.request("EmergencyDisable", reason="z" * 256)
    world.run(20)
    measure(world)
    world.request("EmergencyEnable")
    world.until(measure, seconds=20_000)
    assert world.status.outcome is Outcome.PROMOTED
    assert largest <= LIMIT_BYTES


@pytest.mark.usefixtures("prose")
def test_budget_cuts_the_oldest_history_first_and_never_a_position() -> None:
    """A status full of prose: positions, times and numbers are as before."""
    world = World(spec())
    world.until(at("one", 1))
    entries = tuple(
        HistoryEntry(time=START, event=EventReason.PAUSED, by=f"pause-{number}", message="m" * 512) for number in range(20)
    )
    checks = tuple(
        CheckRecord.model_validate({"name": f"check-{number}", "kind": "Guard", "value": "1%", "message": "m" * 512})
        for number in range(64)
    )
    full = world.status.updated(history=entries, checks=checks)
    cut = fit(full)
    assert len(json.dumps(full.to_wire())) > LIMIT_BYTES >= len(json.dumps(cut.to_wire()))
    assert cut.history[-1].by == "pause-19"
    assert [entry.by for entry in cut.history] == [entry.by for entry in entries[-len(cut.history) :]]
    assert (cut.current, cut.flags, cut.phases) == (full.current, full.flags, full.phases)
    assert [(check.name, check.value) for check in cut.checks] == [(check.name, check.value) for check in full.checks]
    assert fit(cut) == cut


@pytest.mark.parametrize("by", [timedelta(hours=-1), timedelta(seconds=90)], ids=["back", "forward"])
def test_clock_that_was_set_is_shown_once(by: timedelta) -> None:
    """R14: in status and as an event; no timer changes."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(30)
    until = world.status.current.hold_until
    world.clock_jump = ClockJump(world.now, by, "api-server")
    world.run(20)
    record = world.status.clock_jump
    assert record is not None
    assert (record.time, record.milliseconds, record.source) == (
        world.clock_jump.time,
        by / timedelta(milliseconds=1),
        "api-server",
    )
    assert len(world.entries(EventReason.CLOCK_JUMPED)) == 1
    assert world.status.current.hold_until == until
    world.clock_jump = None  # another process leads
    world.run(10)
    assert world.status.clock_jump == record


def test_clock_that_was_set_before_the_rollout_is_no_event_of_it() -> None:
    """R14: the process remembers the last jump, and this rollout was created after it."""
    world = World(spec(), clock_jump=ClockJump(START, timedelta(hours=1), "operator"))
    world.until(at("one", 1))
    assert world.status.clock_jump is not None
    assert world.entries(EventReason.CLOCK_JUMPED) == []
