"""Notifications: pending in status until a sink has accepted them, in order, and bounded.

Not here: who sends them (tests/adapters).
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from core.world import World, at, ended, spec
from session_rollout.api.enums import EventReason, Outcome

EVENTS = ["PhaseStarted", "GuardBreached", "RolledBack", "Promoted"]
CHAT: dict[str, Any] = {"sink": "chat", "events": EVENTS}


def test_notifications_are_pending_until_a_sink_accepted_them() -> None:
    """Each event once, in order, under an id of its own; time makes no second one."""
    world = World(spec(notifications=[CHAT, {"sink": "mail", "events": ["RolledBack"]}]))
    world.until(at("one", 1))
    world.values["errors"] = Decimal("0.06")
    world.until(ended)
    pending = world.status.pending_notifications
    assert [(entry.sink, entry.event) for entry in pending] == [
        ("chat", EventReason.PHASE_STARTED),
        ("chat", EventReason.GUARD_BREACHED),
        ("chat", EventReason.ROLLED_BACK),
        ("mail", EventReason.ROLLED_BACK),
    ]
    assert len({entry.id for entry in pending}) == 4
    world.run(60)
    assert world.status.pending_notifications == pending
    world.delivered = {pending[0].id, pending[1].id, pending[2].id}
    world.run(10)
    assert [entry.sink for entry in world.status.pending_notifications] == ["mail"]


def test_events_of_one_decision_about_two_subjects_are_two_notifications() -> None:
    """Two actions accepted in one decision: the id depends on who requested it."""
    world = World(spec(notifications=[{"sink": "chat", "events": ["ActionAccepted"]}]))
    world.until(at("one", 1))
    world.request("Pause")
    world.now += timedelta(seconds=1)
    world.request("Resume")
    world.reconcile()
    assert len({entry.id for entry in world.status.pending_notifications}) == 2


def test_failing_sink_is_named_and_delays_nothing() -> None:
    """The same decisions at the same times; only the condition differs."""
    quiet = World(spec())
    loud = World(spec(notifications=[CHAT]), sink_errors={"chat": "status 500", "other": "not one of this rollout"})
    for world in (quiet, loud):
        world.until(lambda world: world.status.outcome is Outcome.PROMOTED)
    assert quiet.now == loud.now
    assert (quiet.condition("Notified"), quiet.condition_reason("Notified")) == ("True", "NoSinksConfigured")
    assert (loud.condition("Notified"), loud.condition_reason("Notified")) == ("False", "SinkFailing")
    loud.sink_errors = {"other": "not one of this rollout"}
    loud.run(60)
    assert (loud.condition("Notified"), loud.condition_reason("Notified")) == ("True", "Delivered")


def test_pending_notifications_are_bounded_and_what_is_lost_is_counted() -> None:
    """A sink that is gone for weeks costs its oldest notifications, not the status."""
    world = World(spec(notifications=[{"sink": "chat", "events": ["Paused", "Resumed"]}]))
    world.until(at("one", 1))
    for _ in range(20):
        for action in ("Pause", "Resume"):
            world.request(action)
            world.run(10)
    assert (len(world.status.pending_notifications), world.status.notifications_lost) == (32, 8)
