"""The operator's metrics: what a reconciliation changes in them, from decisions of the real core; and answered actions.

That they are served is for the integration tests; that alerts and dashboards name them, for tests/observability.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import REGISTRY

from controller.cluster import Cluster
from core.counting import Counting, bounded
from core.counting import spec as counted_spec
from core.world import World, spec
from session_rollout.adapters import telemetry
from session_rollout.adapters.rollouts import ApiRolloutStore
from session_rollout.api.action import ActionSpec, SessionRolloutAction, answer
from session_rollout.api.enums import ActionReason, ActionType, Verdict
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import SessionRollout
from session_rollout.api.status import RolloutStatus
from session_rollout.api.status_records import Refusal
from session_rollout.controller.on_demand import OnDemandChecks
from session_rollout.core.observed import Decision
from session_rollout.ports import Key, Reconciled

KEY = Key("default", "shop")
ROLLOUT = {"namespace": "default", "name": "shop"}
NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


class ObservedWorld(World):
    """A world whose reconciliations are observed, as the controller's are."""

    def reconcile(self, *, crash_before_effects: bool = False) -> Decision:
        before, measurements = self.rollout(), self.observed().measurements
        decision = super().reconcile(crash_before_effects=crash_before_effects)
        wrote = decision.status.to_wire() != before.status.to_wire()
        telemetry.observe(KEY, Reconciled(before, decision, wrote, decision.status, 0.01, 0.0, measurements))
        return decision


@pytest.fixture
def world() -> Iterator[ObservedWorld]:
    """No series of an earlier test, and none left for a later one."""
    telemetry.forget(*telemetry._identity(KEY))
    yield ObservedWorld(spec())
    telemetry.forget(*telemetry._identity(KEY))


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {**ROLLOUT, **labels})


def label_sets(name: str) -> list[dict[str, str]]:
    """The labels of every series of the rollout in a family, without its own two."""
    return [
        {key: text for key, text in sample.labels.items() if key not in ROLLOUT}
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == name and ROLLOUT.items() <= sample.labels.items()
    ]


def step(number: int) -> Any:
    return lambda world: world.status.current.step == number and world.status.current.published_time is not None


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("sessionrollout_actions_total", {"result": result}) or 0


def test_where_a_rollout_is(world: ObservedWorld) -> None:
    """The labels of the earlier step are gone: a join on `sessionrollout_info` finds one series."""
    world.until(step(1))
    world.until(step(2))
    assert label_sets("sessionrollout_info") == [{"phase": "one", "step": "2", "status": "Progressing"}]
    assert value("sessionrollout_phase_index") == 1
    assert value("sessionrollout_audience_ratio") == float(world.status.current.percent) / 100 > 0.1
    world.until(lambda world: world.status.outcome == "Promoted")
    assert [labels["status"] for labels in label_sets("sessionrollout_info")] == ["Promoted"]


def test_interval_is_compared_with_the_wait_for_the_turn_too(world: ObservedWorld) -> None:
    """An operator with too much to do reconciles each rollout in milliseconds, and hardly any in time."""
    interval = duration(world.rollout().spec.check_interval).total_seconds()
    for waited, overrun in ((interval - 2, 0.0), (interval + 2, 3.0)):
        decision = world.reconcile()
        seen = Reconciled(world.rollout(), decision, False, decision.status, seconds=1.0, waited=waited, measurements={})
        telemetry.observe(KEY, seen)
        assert value("sessionrollout_interval_overrun_seconds") == overrun


def test_a_condition_has_one_status(world: ObservedWorld) -> None:
    """As kube-state-metrics has it: one of three series is 1, so that sums count rollouts."""
    world.until(step(1))
    world.request("Pause")
    world.settle()
    for kind in ("Ready", "Stalled", "Paused", "EvidenceAvailable", "RolledBack"):
        values = {
            status: value("sessionrollout_condition", type=kind, status=status) for status in ("True", "False", "Unknown")
        }
        assert values == {status: float(status == world.condition(kind)) for status in values}, kind
    assert value("sessionrollout_condition", type="Paused", status="True") == 1
    assert [labels["status"] for labels in label_sets("sessionrollout_info")] == ["Paused"]


def test_disabled_features_are_counted(world: ObservedWorld) -> None:
    """For the alert about an emergency that nobody has ended; the feature's dependents are its own matter."""
    world.until(step(1))
    assert value("sessionrollout_disabled_features") == 0
    world.request("EmergencyDisable", features=["alpha"])
    world.settle()
    assert value("sessionrollout_disabled_features") == 1
    world.request("EmergencyEnable", features=["alpha"])
    world.settle()
    assert value("sessionrollout_disabled_features") == 0


def test_refused_requests_are_series_until_they_succeed(world: ObservedWorld) -> None:
    """By effect: what cannot be written may be what protects users."""
    world.until(step(1))
    refused = [
        Refusal(effect=effect, verb="patch", resource="configmaps", message="denied", since=world.now)
        for effect in ("Publish", "Status")
    ]
    world.refusals = tuple(refused)
    world.run(10)
    assert value("sessionrollout_refused_requests", effect="Publish") == 1
    world.refusals = tuple(refused[1:])
    world.run(10)
    assert value("sessionrollout_refused_requests", effect="Publish") is None
    assert value("sessionrollout_refused_requests", effect="Status") == 1


def test_features_of_a_suspended_rollout_are_counted(world: ObservedWorld) -> None:
    """Those that users have; none before the first step, and none when it is no longer suspended."""
    world.until(step(1))
    assert value("sessionrollout_suspended_features") == 0
    running = world.spec
    world.edit(running.updated(suspend=True))
    world.run(10)
    assert value("sessionrollout_suspended_features") == 2
    world.request("EmergencyDisable", features=["beta"], reason="drill")
    world.run(10)
    assert value("sessionrollout_suspended_features") == 1
    world.edit(running)
    world.run(10)
    assert value("sessionrollout_suspended_features") == 0


def test_checks_have_values_and_bounds(world: ObservedWorld) -> None:
    """In base units, by kind and name; a bound that depends on a baseline is a number, too."""
    world.until(step(1))
    assert value("sessionrollout_check_value", kind="Guard", check="errors") == 0.001
    assert value("sessionrollout_check_bound", kind="Guard", check="errors") == 0.05
    assert value("sessionrollout_check_bound", kind="Criterion", check="errors") == 0.01
    assert value("sessionrollout_check_value", kind="Criterion", check="load") == 1
    assert value("sessionrollout_check_bound", kind="Criterion", check="load") == pytest.approx(1.1)


def test_a_comparison_has_a_difference_and_the_tolerated_one(world: ObservedWorld) -> None:
    """Of the rates of bad events with the feature and without it: 1.25 times the latter plus 0.1 points are tolerated."""
    counting = Counting(counted_spec(), rates=(0.004, 0.002), traffic=1000)
    counting.until(lambda counting: any(record.blocks for record in counting.status.evidence))
    before, measurements = counting.rollout(), counting.observed().measurements
    telemetry.observe(KEY, Reconciled(before, counting.decide(), False, before.status, 0.01, 0.0, measurements))
    for kind in ("Guard", "Criterion"):
        assert value("sessionrollout_check_value", kind=kind, check="failures") == pytest.approx(0.002)
        assert value("sessionrollout_check_bound", kind=kind, check="failures") == pytest.approx(0.0015)
    assert world.status.outcome is None


def test_a_bound_on_counted_events_is_a_rate(world: ObservedWorld) -> None:
    counting = Counting(bounded(), of_all=True, rates=(0.004, 0.0), traffic=1000)
    counting.until(lambda counting: any(record.blocks for record in counting.status.evidence))
    before, measurements = counting.rollout(), counting.observed().measurements
    telemetry.observe(KEY, Reconciled(before, counting.decide(), False, before.status, 0.01, 0.0, measurements))
    assert value("sessionrollout_check_value", kind="Guard", check="failures") == pytest.approx(0.004)
    assert value("sessionrollout_check_bound", kind="Guard", check="failures") == pytest.approx(0.01)
    assert world.status.outcome is None


def test_a_value_that_is_missing_is_not_the_last_one(world: ObservedWorld) -> None:
    world.until(step(1))
    world.values["errors"] = Verdict.NO_DATA
    world.settle()
    assert value("sessionrollout_check_value", kind="Guard", check="errors") is None
    assert value("sessionrollout_check_bound", kind="Guard", check="errors") == 0.05


def test_criteria_of_an_earlier_phase_are_removed(world: ObservedWorld) -> None:
    world.until(lambda world: world.status.current.phase == "two" and world.status.current.step == 1)
    assert {(labels["kind"], labels["check"]) for labels in label_sets("sessionrollout_check_bound")} == {
        ("Guard", "errors"),
        ("Criterion", "load"),
    }


def test_a_rollback_names_its_guard(world: ObservedWorld) -> None:
    """With the share of users that had the features, and for how long."""
    world.until(step(2))
    assert value("sessionrollout_rollbacks_total", guard="errors") == 0, "or `increase()` would miss the first"
    audience, began = float(world.status.current.percent) / 100, world.now
    world.values["errors"] = Decimal("0.5")
    world.until(lambda world: world.status.outcome == "RolledBack")
    assert value("sessionrollout_rollbacks_total", guard="errors") == 1
    assert value("sessionrollout_rollback_audience_ratio") == audience > 0
    detection = value("sessionrollout_rollback_detection_seconds")
    assert detection is not None
    assert 20 <= detection <= (world.now - began).total_seconds()
    assert value("sessionrollout_audience_ratio") == 0


@pytest.mark.parametrize("wrote", [True, False], ids=["written at the second attempt", "written, but the response was lost"])
def test_a_rollback_is_counted_when_the_status_has_it(world: ObservedWorld, *, wrote: bool) -> None:
    """The first write fails, and the next decision begins with what could not be written: it sees no change."""

    def observe(begun: SessionRollout, *, wrote: bool, stored: RolloutStatus) -> tuple[float | None, float]:
        telemetry.observe(KEY, Reconciled(begun, decision, wrote, stored, 0.01, 0.0, {}))
        ended = REGISTRY.get_sample_value("sessionrollout_outcomes_total", {"namespace": "default", "outcome": "RolledBack"})
        return value("sessionrollout_rollbacks_total", guard="errors"), (ended or 0) - earlier

    world.until(step(2))
    before, earlier = world.rollout(), 0.0
    world.values["errors"] = Decimal("0.5")
    while world.status.outcome is None:
        decision = World.reconcile(world)
        world.now += timedelta(seconds=10)
    _, earlier = observe(before, wrote=False, stored=before.status)
    assert observe(before, wrote=False, stored=before.status) == (0, 0)
    assert observe(world.rollout(), wrote=wrote, stored=world.status) == (1, 1)
    assert observe(world.rollout(), wrote=False, stored=world.status) == (1, 1), "once"
    assert value("sessionrollout_audience_ratio") == 0


def test_an_abort_is_a_rollback_of_no_guard(world: ObservedWorld) -> None:
    """Even while a guard fails that would have acted later."""
    world.until(step(1))
    world.values["errors"] = Decimal("0.5")
    world.settle()
    world.request("Abort", reason="drill")
    world.settle()
    assert value("sessionrollout_rollbacks_total", guard="") == 1
    assert value("sessionrollout_rollbacks_total", guard="errors") == 0


def test_a_process_that_takes_over_has_every_series_at_once(world: ObservedWorld) -> None:
    """A rollout that ended writes no status any more, and its alert must not resolve because the leader changed."""
    world.until(step(1))
    world.request("Abort", reason="drill")
    world.until(lambda world: world.status.outcome == "Aborted")
    telemetry.forget(*telemetry._identity(KEY))
    writes = world.writes
    world.reconcile()
    assert world.writes == writes
    assert value("sessionrollout_condition", type="RolledBack", status="True") == 1
    assert value("sessionrollout_rollback_audience_ratio") == 0.1


def test_series_go_with_their_rollout(world: ObservedWorld) -> None:
    world.until(step(1))
    world.values["errors"] = Decimal("0.5")
    world.until(lambda world: world.status.outcome == "RolledBack")
    telemetry.forget(*telemetry._identity(KEY))
    left = {
        sample.name for family in REGISTRY.collect() for sample in family.samples if ROLLOUT.items() <= sample.labels.items()
    }
    assert left == set()


# --- actions


class Api:
    """An API server that takes every request."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    async def request(self, _method: str, _path: str, body: Any, **_: Any) -> Any:
        self.written.append(body)

    async def find(self, path: str) -> Any:
        metadata = {
            "namespace": "default",
            "name": path.rsplit("/", 1)[-1],
            "uid": "uid-1",
            "resourceVersion": "1",
            "generation": 1,
        }
        return {"metadata": metadata, "spec": spec().to_wire()}


@pytest.mark.parametrize("accepted", [True, False])
def test_every_answer_to_an_action_is_counted(*, accepted: bool) -> None:
    """A refusal changes no status of the rollout; it is counted where it is written."""
    api: Any = Api()
    result = "accepted" if accepted else "rejected"
    before = counted(result)
    reason = ActionReason.ACCEPTED if accepted else ActionReason.NOT_PAUSED
    status = answer(accepted=accepted, reason=reason, message="it is", now=NOW)
    asyncio.run(ApiRolloutStore(api).answer("default", "shop-1", status, uid="uid-1"))
    assert counted(result) == before + 1


def test_an_action_that_is_answered_on_demand_is_counted() -> None:
    """Verify, Diagnose and InspectMigration never reach a decision."""
    api: Any = Api()
    cluster = Cluster()
    on_demand = OnDemandChecks(replace(cluster.ports(), store=ApiRolloutStore(api)))
    request = ActionSpec(rollout="shop", action=ActionType.DIAGNOSE, topic="weather")
    action = SessionRolloutAction(namespace="default", name="shop-1", uid="uid-1", creation_time=NOW, spec=request)
    before = counted("rejected")
    asyncio.run(on_demand._run(action))
    assert counted("rejected") == before + 1
    assert api.written[0][-1]["value"]["accepted"] is False


def test_names_follow_the_conventions_of_prometheus() -> None:
    """Units are base units at the end of the name; help texts are sentences."""
    families = [family for family in vars(telemetry).values() if hasattr(family, "_documentation")]
    assert len(families) > 20
    for family in families:
        assert family._name.startswith("sessionrollout_")
        assert not family._name.endswith(("_time", "_ms", "_milliseconds", "_percent", "_percent_ratio", "_count")), (
            family._name
        )
        assert family._documentation.endswith("."), family._name
        assert len(family._documentation.split()) >= 5, family._name
