"""Lists that fail: the operator does not notice what it cannot list, so each rollout concerned says so, and nobody gets more."""

import asyncio
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from controller.cluster import KEY, Cluster, Process, forbidden, run, until
from session_rollout.api.enums import Condition, DecisionReason, Outcome
from session_rollout.controller import inbox
from session_rollout.controller.listings import ACTIONS, EVERYWHERE, JOBS, RESOURCES, UNLISTED_SHOWN, Listings, Watches
from session_rollout.core import documents
from session_rollout.core.flags import NOBODY
from session_rollout.errors import Forbidden, RolloutError, Unavailable

SWEEP = timedelta(seconds=inbox.SWEEP_SECONDS)
CALLS = {"actions": "ListActions", "listed": "ListRollouts", "documents": "ListDocuments", "migration_jobs": "ListJobs"}
"""The call of the store that lists, and the effect of its refusal."""


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with one rollout, whose guard acts at once, and which has a Job as gate at the end."""
    cluster = Cluster()
    verification = [{"name": "smoke", "job": {"profile": "smoke"}}]
    cluster.add_rollout(guards=[{"name": "errors", "metric": "errors", "below": "5%"}], rollback={"verification": verification})
    return cluster


def fail(cluster: Cluster, call: str, error: RolloutError) -> None:
    cluster.failures[call] = [error] * 1000


async def sweep(process: Process, times: int = 1) -> None:
    """Let the time between sweeps pass, in which the rollout is reconciled at its interval."""
    for _ in range(times):
        for _ in range(3):
            process.cluster.time += SWEEP / 3
            await process.settle()
        await process.inbox.sweep()
        await process.settle()


async def holding(cluster: Cluster) -> Process:
    """An operator that has published the first step, and whose loops a test drives."""
    process = Process(cluster)
    await process.loops.close()
    await process.settle()
    await process.inbox.sweep()
    assert shown(cluster) == []
    return process


def shown(cluster: Cluster) -> list[str]:
    """Effects of the refusals in the stored status."""
    return [refusal.effect for refusal in cluster.status.refusals]


@pytest.mark.parametrize("call", CALLS)
def test_a_right_that_is_missing_for_a_minute_stalls(cluster: Cluster, call: str) -> None:
    """R11: verb, resource, the server's words and since when; no step ends until the list succeeds."""

    async def body() -> None:
        process = await holding(cluster)
        fail(cluster, call, forbidden(RESOURCES[CALLS[call]]))
        await sweep(process)
        first = cluster.time
        assert shown(cluster) == []
        await sweep(process)
        [refusal] = cluster.status.refusals
        assert (refusal.effect, refusal.verb, refusal.resource) == (CALLS[call], "list", RESOURCES[CALLS[call]])
        assert (refusal.message, refusal.since) == (f"cannot list {refusal.resource}", first)
        assert f"list {refusal.resource}" in refusal.remedy
        assert cluster.status.decision.reason is DecisionReason.REQUEST_REFUSED
        step = cluster.status.current.step
        await sweep(process, 10)
        assert (shown(cluster), cluster.status.current.step) == ([CALLS[call]], step)
        stalled = next(each for each in cluster.status.conditions if each.type == Condition.STALLED)
        assert stalled.status == "True"
        cluster.failures.clear()
        await process.inbox.sweep()
        await process.settle()
        assert shown(cluster) == []
        await sweep(process, 12)
        assert cluster.status.outcome is Outcome.PROMOTED

    run(body)


def test_lists_that_are_refused_from_the_start(cluster: Cluster) -> None:
    """After a restart without the right: a minute after the first list, as any other."""

    async def body() -> None:
        process = Process(cluster)
        await process.loops.close()
        fail(cluster, "actions", forbidden(RESOURCES[ACTIONS]))
        await process.inbox.sweep()
        await sweep(process)
        assert shown(cluster) == []
        await sweep(process)
        assert shown(cluster) == [ACTIONS]

    run(body)


def test_jobs_concern_only_rollouts_that_have_some() -> None:
    cluster = Cluster()
    cluster.add_rollout()

    async def body() -> None:
        process = await holding(cluster)
        fail(cluster, "migration_jobs", forbidden(RESOURCES[JOBS]))
        await sweep(process, 4)
        assert shown(cluster) == []

    run(body)


@pytest.mark.parametrize(("namespaces", "expected"), [({KEY.namespace, "other"}, sorted(CALLS.values())), ({"other"}, [])])
def test_a_namespace_concerns_its_own_rollouts(cluster: Cluster, namespaces: set[str], expected: list[str]) -> None:
    async def body() -> None:
        process = await holding(cluster)
        cluster.forbidden = namespaces
        await sweep(process, 3)
        assert shown(cluster) == expected
        assert {refusal.namespace for refusal in cluster.status.refusals} <= {KEY.namespace}

    run(body)


def test_every_namespace_refused_names_that_of_the_rollout(cluster: Cluster) -> None:
    """The error is raised then; it is that of another namespace, and has those of all."""

    async def body() -> None:
        process = await holding(cluster)
        error = forbidden(RESOURCES[ACTIONS], "other")
        error.problems = {KEY.namespace: forbidden(RESOURCES[ACTIONS], KEY.namespace), "other": error}
        fail(cluster, "actions", error)
        await sweep(process, 2)
        [refusal] = cluster.status.refusals
        assert refusal.namespace == KEY.namespace

    run(body)


def test_an_api_server_that_restarts_leaves_no_refusal(cluster: Cluster) -> None:
    """Neither lists nor loops get an answer, for minutes; afterwards the loops may come first."""

    async def body() -> None:
        process = await holding(cluster)
        for call in (*CALLS, "read"):
            fail(cluster, call, Unavailable("down"))
        for _ in range(10):
            cluster.time += SWEEP
            await process.inbox.sweep()
            await process.reconcile()
        del cluster.failures["read"]
        await process.settle()
        assert shown(cluster) == []
        await sweep(process)
        assert shown(cluster) == []
        cluster.failures.clear()
        await sweep(process)
        assert shown(cluster) == []

    run(body)


def test_a_list_that_fails_while_others_succeed_is_shown(cluster: Cluster) -> None:
    """No right is missing, and the loops read their rollouts: it counts from the first failure."""

    async def body() -> None:
        process = await holding(cluster)
        fail(cluster, "actions", Unavailable("HTTP status 500"))
        await sweep(process, 2)
        assert shown(cluster) == []
        await sweep(process)
        [refusal] = cluster.status.refusals
        assert (refusal.effect, refusal.message, refusal.verb, refusal.remedy) == (ACTIONS, "HTTP status 500", "list", "")
        cluster.failures.clear()
        await sweep(process)
        assert shown(cluster) == []

    run(body)


def test_an_outage_does_not_hide_a_missing_right() -> None:
    """Else the stall would end with the outage, although nothing was granted."""
    listings, now = Listings(), Cluster().time
    for seconds, error in ((0, None), (30, forbidden("x")), (60, Unavailable("down")), (90, forbidden("x"))):
        problems = {} if error is None else {"": error}
        listings.note(ACTIONS, problems, now + timedelta(seconds=seconds), served=False)
    [refusal] = listings.refusals("any", now + UNLISTED_SHOWN)
    assert (refusal.message, refusal.since) == ("cannot list x", now + timedelta(seconds=30))


def test_watch_that_is_refused_for_a_minute_stalls(cluster: Cluster) -> None:
    """R11: its right may be missing alone. It has delivered until it ended, so the minute begins with the first refusal."""

    async def body() -> None:
        process = await holding(cluster)
        plural, error = RESOURCES[ACTIONS], Forbidden(f"cannot watch {RESOURCES[ACTIONS]}")
        process.memory.watched(plural, EVERYWHERE, None, cluster.time)
        await sweep(process, 8)
        first = cluster.time
        for _ in range(3):
            assert shown(cluster) == []
            process.memory.watched(plural, EVERYWHERE, error, cluster.time)
            await sweep(process)
        [refusal] = cluster.status.refusals
        assert (refusal.effect, refusal.verb, refusal.resource) == ("WatchActions", "watch", plural)
        assert (refusal.since, refusal.message) == (first, f"cannot watch {plural}")
        assert cluster.status.decision.reason is DecisionReason.REQUEST_REFUSED
        process.memory.watched(plural, EVERYWHERE, None, cluster.time)
        await process.settle()
        assert shown(cluster) == []

    run(body)


DENIED, DOWN = Forbidden("no"), Unavailable("HTTP status 503")


@pytest.mark.parametrize(
    ("seconds", "errors", "seen"),
    [
        ((0, 14, 28, 42, 56, 70), [DENIED] * 6, True),
        ((0, 14, 28, 42, 56, 70), [DOWN] * 6, True),
        ((0, 14, 28, 42, 56), [DENIED] * 5, False),
        ((0, 110), [DOWN, DOWN], False),
        ((0, 110), [DENIED, DENIED], False),
        ((0, 14, 28, 42, 56, 70, 200), [DENIED] * 7, True),
        ((0, 14, 28, 42, 56, 70, 71), [*[DENIED] * 6, None], False),
        ((0, 14, 28, 29, 42, 56, 70), [DOWN, DOWN, DOWN, None, DOWN, DOWN, DOWN], False),
    ],
    ids=["denied", "failing", "not-yet", "outage", "outage-denied", "denied-before-an-outage", "granted", "granted-between"],
)
def test_watch_is_refused_when_that_lasts_and_is_no_outage(
    seconds: tuple[int, ...], errors: list[RolloutError | None], *, seen: bool
) -> None:
    """In an outage, or while the API server starts, nobody asks for a watch for long: the list before it fails."""
    watches, begun = Watches(), Cluster().time
    changes = [
        watches.note("jobs", EVERYWHERE, error, begun + timedelta(seconds=second))
        for second, error in zip(seconds, errors, strict=True)
    ]
    refusals = watches.refusals("any")
    assert [(refusal.effect, refusal.verb, refusal.since) for refusal in refusals] == [("WatchJobs", "watch", begun)] * seen
    assert sum(changes) % 2 == seen


def test_watches_of_namespaces_are_apart() -> None:
    """What is granted is a right in one of them."""
    watches, now = Watches(), Cluster().time
    for second in range(0, 70, 10):
        for place in ("a", "b"):
            watches.note("jobs", place, DENIED, now + timedelta(seconds=second))
    watches.note("jobs", "b", None, now + timedelta(seconds=70))
    assert [[refusal.namespace for refusal in watches.refusals(place)] for place in ("a", "b", "c")] == [["a"], [], []]


def test_a_list_that_hangs_counts(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "LONGEST_SECONDS", 0.02)

    async def hang() -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(cluster, "actions", hang)

    async def body() -> None:
        process = await holding(cluster)
        await sweep(process, 3)
        assert shown(cluster) == [ACTIONS]

    run(body)


def test_loops_wake_when_a_refusal_begins_and_ends(cluster: Cluster) -> None:
    """A hold has nothing to do for up to 30 seconds."""

    async def body() -> None:
        process = await holding(cluster)
        state = process.state
        state.has_loop = True
        fail(cluster, "actions", forbidden(RESOURCES[ACTIONS]))
        for changes in (False, True, False):
            state.wake.clear()
            cluster.time += SWEEP
            await process.inbox.sweep()
            assert state._wake_scheduled is changes
            if changes:
                await until(state.wake.is_set)
        cluster.failures.clear()
        await process.inbox.sweep()
        await until(state.wake.is_set)

    run(body)


# --- documents that cannot be listed


def kill_by_hand(cluster: Cluster) -> None:
    """Somebody turns a feature off in the document; no watch delivers it."""
    text = json.loads(cluster.text)
    alpha = text["flags"]["alpha"]
    del alpha["targeting"]
    alpha["defaultVariant"] = "off"
    document = cluster.document
    assert document is not None
    cluster.document = documents.read_document(
        json.dumps(text), version=document.version + 1, owner=document.owner, editor="kubectl"
    )


@pytest.mark.parametrize("error", [forbidden("configmaps"), Unavailable("no response")], ids=["forbidden", "outage"])
def test_a_kill_by_hand_is_known_although_documents_cannot_be_listed(cluster: Cluster, error: RolloutError) -> None:
    """In the last step, after which nothing is published: the next decision reads the document itself, and nothing is promoted."""
    steps = [{"percent": 100, "hold": "60s"}]
    cluster.add_rollout(guards=[], phases=[{"name": "one", "features": ["alpha"], "steps": steps}], bake="60s")

    async def body() -> None:
        process = await holding(cluster)
        fail(cluster, "documents", error)
        kill_by_hand(cluster)
        await sweep(process)
        assert [record.feature for record in cluster.status.flags.disabled] == ["alpha"]
        await sweep(process, 30)
        assert cluster.status.outcome is None

    run(body)


def test_a_document_is_read_once_for_each_sweep_that_fails(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = cluster.read_document

    async def counted(namespace: str, config_map: str) -> Any:
        reads.append(config_map)
        return await read(namespace, config_map)

    monkeypatch.setattr(cluster, "read_document", counted)

    async def body() -> None:
        process = await holding(cluster)
        reads.clear()
        await sweep(process)
        assert reads == []
        fail(cluster, "documents", forbidden("configmaps"))
        await sweep(process, 3)
        assert reads == ["shop-flags"] * 3

    run(body)


def test_a_document_that_cannot_be_read_either_still_protects(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of it is enough to turn features off; the refusal is shown, and ends with the next read."""
    may_read = True
    read = cluster.read_document

    async def read_document(namespace: str, config_map: str) -> Any:
        if not may_read:
            raise forbidden("configmaps", KEY.namespace, "get")
        return await read(namespace, config_map)

    monkeypatch.setattr(cluster, "read_document", read_document)

    async def body() -> None:
        nonlocal may_read
        process = await holding(cluster)
        may_read = False
        fail(cluster, "documents", forbidden("configmaps"))
        await sweep(process)
        assert shown(cluster) == ["ReadDocument"]
        assert cluster.status.decision.reason is DecisionReason.REQUEST_REFUSED
        cluster.values["errors"] = Decimal("0.5")
        await process.reconcile()
        assert documents.read_document(cluster.text).audiences["alpha"] == NOBODY
        cluster.failures.clear()
        await sweep(process)
        assert shown(cluster) == []
        assert cluster.status.outcome is Outcome.ROLLED_BACK

    run(body)
