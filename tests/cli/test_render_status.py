"""The picture of `status`, drawn from what the core leaves in status on its way; a terminal of 80 columns."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from rich.console import Console

from core.counting import in_step
from core.holdbacks import holding, last_step, released
from core.placebos import held
from core.world import World, at, ended, spec
from session_rollout.api.enums import EventReason, Outcome
from session_rollout.api.migration_enums import MigrationState
from session_rollout.api.status_records import MigrationRecord, PendingNotification
from session_rollout.cli.render.status import draw, migration_line, unanswered


def picture(world: World) -> str:
    """What a user sees now."""
    console = Console(width=80, highlight=False, emoji=False, markup=False)
    with console.capture() as drawn:
        console.print(draw(world.rollout(), world.now))
    return drawn.get()


def lines(world: World, word: str) -> list[str]:
    return [line for line in picture(world).splitlines() if word in line]


def test_every_picture_of_a_run_fits_and_marks_one_running_step_at_most() -> None:
    """From the first decision to the end; steps that were left stay done."""
    world, most = World(spec()), 0
    while not ended(world):
        world.run(60)
        text = picture(world)
        assert max(map(len, text.splitlines())) <= 80
        most = max(most, text.count("▶ step"))
        assert text.count("▶ step") <= 1
    assert most == 1
    assert world.status.outcome is Outcome.PROMOTED
    assert lines(world, "step ")
    assert all("✔ step" in line for line in lines(world, "step "))


def test_placebo_step_is_shown_as_such() -> None:
    """In the head, at the phase and in the list of steps: nobody takes it for users who have the feature."""
    world = held()
    assert len(lines(world, "20% placebo")) == 3
    assert not lines(world, " 0%")
    world.until(in_step("20"))
    assert len(lines(world, "placebo")) == 1


def test_users_who_are_held_back_are_shown() -> None:
    """In the head and at the phase: 100% is not all users."""
    world = holding()
    world.until(last_step)
    assert len(lines(world, "100% (2% held back)")) == 2
    world.until(released)
    assert not lines(world, "held back)")


def test_state_reason_message_and_next_actions_are_shown() -> None:
    """State first, then what the operator does and its reason; each cause once, and what would help."""
    world = World(spec())
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.06")
    world.until(ended)
    decision = world.status.decision
    first, second, *_ = picture(world).splitlines()
    assert "RolledBack" in first
    assert second.startswith(decision.message)
    assert second.endswith(f"({decision.reason})")
    assert "None" not in picture(world)
    assert len(lines(world, "why: ")) == len(set(decision.details) - {decision.message})
    assert len(lines(world, "next: ")) == len(decision.next_actions) > 0


@pytest.mark.usefixtures("prose")
def test_continuation_of_a_long_line_is_indented() -> None:
    """Causes keep to the right of the decision, also if the terminal wraps them."""
    world = World(spec())
    world.until(at("one", 1))
    decision = world.status.decision.updated(details=("word " * 30,))
    world.status = world.status.updated(decision=decision)
    rows = picture(world).splitlines()
    first = next(number for number, line in enumerate(rows) if line.startswith("  why: word"))
    assert rows[first + 1].startswith("  word")


def test_moved_rows_fit_one_line() -> None:
    """Rows, rate and whether changes are followed come before what may be cut."""
    record = MigrationRecord(
        name="legacy-sessions", state=MigrationState.RUNNING, done=11_088, total=41_396, rate=3_947, following=True
    )
    mark, line = migration_line(record)
    assert mark == "▶"
    assert [figure in line for figure in ("legacy-sessions", "11,088 of 41,396", "3,947/s")] == [True] * 3
    assert len("├── ▶ ") + len(line) <= 80


def test_baseline_is_shown_with_its_bound_in_few_digits() -> None:
    """As in every message of the core: four."""
    world = World(spec())
    world.until(at("one", 1))
    world.run(20)
    record = next(check for check in world.status.checks if check.name == "load")
    assert record.bound is not None
    [line] = lines(world, "load")
    assert f"{record.bound} from 1 " in f"{line} "


def test_actions_without_a_response_for_a_minute_are_shown() -> None:
    """The operator may not be able to list them. Read-only ones that run for long have no response either."""
    now = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)

    def item(name: str, age: int, **more: object) -> dict[str, object]:
        created = (now - timedelta(seconds=age)).isoformat().replace("+00:00", "Z")
        return {"metadata": {"name": name, "creationTimestamp": created}, "spec": {"action": "EmergencyDisable"}, **more}

    known = [item("old", 90), item("new", 59), item("done", 90, status={"accepted": True}), item("begun", 90, status={})]
    shown = [line.plain for line in unanswered(known, now)]
    assert shown == [f"✖ no response to EmergencyDisable for 1 min 30 s: action {name}" for name in ("old", "begun")]


def test_notifications_that_are_pending_or_lost_are_shown() -> None:
    """With the sinks that do not accept them."""
    world = World(spec())
    world.until(at("one", 1))
    assert lines(world, "notifications") == []
    pending = PendingNotification(id="1", sink="chat", event=EventReason.STARTED, time=world.now)
    world.status = world.status.updated(pending_notifications=(pending,), notifications_lost=3)
    waiting, lost = lines(world, "notifications")
    assert ("1" in waiting, "chat" in waiting, "3" in lost) == (True, True, True)


def test_rollback_that_is_not_in_force_is_no_zero() -> None:
    """The phase is at 0% in the status alone: users still have it."""
    world = World(spec())
    world.until(at("one", 1))
    world.publishing = False
    world.request("Abort")
    world.run(10)
    [phase, *_] = lines(world, "one  ")
    assert "NOT IN FORCE" in phase
    assert "ROLLBACK NOT IN FORCE" in picture(world)
    world.publishing = True
    world.until(ended)
    assert "NOT IN FORCE" not in picture(world)
