"""A finalizer of the operator whose removal is refused: the object stays, and users with it, so what protects them works.

Not here: how often a deletion is tried, and what starts and ends a loop (test_loops).
"""

from decimal import Decimal

import pytest

from controller.cluster import KEY, NOW, Cluster, Process, run, until
from session_rollout.api.enums import ActionReason, DecisionReason
from session_rollout.controller import finalizers, reconciler
from session_rollout.controller.finalizers import FINALIZER
from session_rollout.core.documents import read_document
from session_rollout.errors import Forbidden, Request, RolloutError, Unavailable
from session_rollout.ports import Key

ATTEMPTS = 1000


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each attempt in vain its number; each is repeated soon."""
    numbers: list[int] = []

    def short(failures: int, _retry_after: object = None) -> float:
        numbers.append(failures)
        return 0.05

    monkeypatch.setattr(finalizers, "delay", short)
    monkeypatch.setattr(reconciler, "JITTER_SECONDS", 0)
    return numbers


def deleted(policy: str, kind: type[RolloutError] = Forbidden) -> Cluster:
    """A rollout whose users have a step is deleted, and the API server refuses the removal of its finalizer."""
    cluster = Cluster()
    raw = cluster.add_rollout(deletionPolicy=policy, guards=[{"name": "errors", "metric": "errors", "below": "5%"}])
    run(Process(cluster).settle)
    raw["metadata"] |= {"deletionTimestamp": NOW.isoformat(), "finalizers": [FINALIZER]}
    error = kind("a policy")
    error.request = Request("patch", "sessionrollouts", "default")
    cluster.failures["finalizer False"] = [error] * ATTEMPTS
    cluster.released.clear()
    return cluster


async def end(cluster: Cluster, process: Process) -> None:
    """The policy is gone."""
    cluster.failures.clear()
    await until(lambda: KEY not in cluster.rollouts and not process.loops._loops)
    assert process.deleted == [KEY]


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("kind", [Forbidden, Unavailable])
def test_emergency_works_while_the_removal_is_refused(kind: type[RolloutError]) -> None:
    """R9: it is heard for as long as users have the features, and the next attempt does not bring them back."""
    cluster = deleted("Retain", kind)

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.status.refusals or kind is Unavailable)
        cluster.add_action("u1", "EmergencyDisable", reason="drill")
        process.watch_actions()
        await until(lambda: cluster.answers)
        assert cluster.answers[-1][1].reason is ActionReason.ACCEPTED
        assert not read_document(cluster.text).gives_something
        attempts = cluster.calls.count("finalizer False")
        await until(lambda: cluster.calls.count("finalizer False") > attempts)
        await end(cluster, process)
        assert cluster.document is not None
        assert not cluster.document.gives_something

    run(body)


@pytest.mark.usefixtures("pauses")
def test_breach_turns_flags_off_while_the_removal_is_refused() -> None:
    cluster = deleted("Retain")

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.status.refusals)
        assert read_document(cluster.text).gives_something
        cluster.values["errors"] = Decimal("0.5")
        await until(lambda: not read_document(cluster.text).gives_something)
        assert cluster.status.current.rollback_guard == "errors"
        await end(cluster, process)

    run(body)


def test_removal_that_becomes_due_during_a_reconciliation_is_tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would wait for the next resync."""
    monkeypatch.setattr(finalizers, "delay", lambda *_: 0.001)
    cluster = deleted("Retain")

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.calls.count("finalizer False") > 100)
        await end(cluster, process)

    run(body)


def test_refused_removal_is_shown_and_repeated_with_growing_pauses(pauses: list[int]) -> None:
    cluster = deleted("Retain")

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.status.refusals and len(pauses) > 3)
        [refusal] = cluster.status.refusals
        assert (refusal.effect, refusal.verb, refusal.resource) == ("Finalizer", "patch", "sessionrollouts")
        decision = cluster.status.decision
        assert decision.reason is DecisionReason.DELETING
        assert FINALIZER in decision.message
        assert refusal.remedy in decision.next_actions
        assert pauses[:4] == [1, 2, 3, 4]
        assert len(cluster.released) == 1, "the document is released once"
        await end(cluster, process)

    run(body)


@pytest.mark.usefixtures("pauses")
def test_policy_off_stays_off_while_the_removal_is_refused() -> None:
    cluster = deleted("Off")

    async def body() -> None:
        process = Process(cluster)
        process.loops.rollout_changed(KEY, cluster.rollouts[KEY])
        await until(lambda: cluster.status.refusals)
        cluster.add_action("u1", "EmergencyDisable", reason="drill")
        process.watch_actions()
        await until(lambda: cluster.answers)
        assert cluster.answers[-1][1].reason is ActionReason.DELETING
        await end(cluster, process)
        assert cluster.document is not None
        assert not cluster.document.gives_something

    run(body)


@pytest.mark.usefixtures("pauses")
def test_emergency_of_the_successor_is_kept() -> None:
    """An object of the same name was created meanwhile: what waits may be about that one."""
    cluster = deleted("Retain")
    process = Process(cluster)
    cluster.add_action("u1", "EmergencyDisable", reason="drill")
    process.watch_actions()
    process.deletion.forget(Key("default", "shop"), "uid-1")
    assert set(process.state.actions.waiting) == {"u1"}
