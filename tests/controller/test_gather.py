"""What the controller gathers for a decision, and how old it may be. Not here: the reconciliation around it."""

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

import pytest

from controller.cluster import KEY, Cluster, Process, run
from session_rollout.api.metrics import Control, Metric
from session_rollout.api.status import REFUSALS_LENGTH
from session_rollout.controller.gather import REFRESH_AFTER
from session_rollout.errors import Forbidden
from session_rollout.ports import Queries


def test_every_metric_has_an_interval_of_its_own() -> None:
    """An expensive query is asked seldom; none is asked more often than `checkInterval`."""
    metrics = [
        {"name": "errors", "query": "errors"},
        {"name": "load", "query": "load", "interval": "5m"},
        {"name": "eager", "query": "eager", "interval": "1s"},
    ]
    guards = [{"name": name, "metric": name, "below": "5"} for name in ("errors", "load", "eager")]
    cluster = Cluster()
    cluster.add_rollout(metrics=metrics, guards=guards)

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        cluster.time += timedelta(minutes=5)  # the baseline waits for `eager`; what is older than this wait says nothing
        await process.reconcile()
        wanted = {"errors": 10, "load": 300, "eager": 10}
        assert cluster.max_ages == {name: timedelta(seconds=seconds) * REFRESH_AFTER for name, seconds in wanted.items()}

    run(body)


def test_result_of_before_the_baseline_is_not_waited_out() -> None:
    """Another rollout has asked the same a moment ago: its result says nothing about the baseline, and the next is an interval away."""
    cluster = Cluster()
    metrics = [{"name": "errors", "query": "errors"}]
    cluster.add_rollout(metrics=metrics, guards=[{"name": "errors", "metric": "errors", "below": "5"}])
    cluster.values = {}

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        assert cluster.rollouts[KEY]["status"]["current"]["stage"] == "Baseline"
        for seconds, oldest in ((0, 1), (4, 4), (30, 9)):
            cluster.time += timedelta(seconds=seconds)
            await process.reconcile()
            assert cluster.max_ages["errors"] == timedelta(seconds=oldest)

    run(body)


@pytest.mark.parametrize("weeks", [3, 1])
def test_seasons_are_read_while_they_are_compared(weeks: int) -> None:
    """D17: to measure the baseline; and afterwards only if there is enough history, because their query is expensive."""
    cluster = Cluster()
    cluster.weeks = weeks
    guard = {"name": "load", "metric": "load", "comparedTo": "Baseline", "maxIncrease": "20%"}
    metrics = [{"name": "errors", "query": "errors"}, {"name": "load", "query": "load"}]
    cluster.add_rollout(metrics=metrics, guards=[guard])

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        await process.reconcile()
        await process.reconcile()
        assert cluster.rollouts[KEY]["status"]["current"]["stage"] == "Step"
        week = timedelta(days=7)
        assert cluster.seasons_ago == {"load": (week, 2 * week, 3 * week)}
        cluster.seasons_ago.clear()
        await process.reconcile()
        assert bool(cluster.seasons_ago) is (weeks > 1)

    run(body)


def test_queries_are_read_once_for_each_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take a second, so a rollout does it again only after an edit."""
    cluster, read = Cluster(), list[str]()
    cluster.add_rollout()
    monkeypatch.setattr(cluster, "read_queries", counted(cluster, read))

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        await process.reconcile()
        assert read == ["default"]
        cluster.rollouts[KEY]["spec"]["prometheus"] = "other"
        await process.reconcile()
        assert read == ["default", "other"]

    run(body)


def counted(cluster: Cluster, read: list[str]) -> Callable[..., Coroutine[Any, Any, Queries]]:
    original = cluster.read_queries

    async def read_queries(provider: str, metrics: tuple[Metric, ...], control: Control) -> Queries:
        read.append(provider)
        return await original(provider, metrics, control)

    return read_queries


def test_more_refusals_than_a_status_holds_keep_it_from_nothing() -> None:
    """A status that the API server refuses would show none of them."""
    cluster = Cluster()
    cluster.add_rollout()

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        for number in range(REFUSALS_LENGTH + 6):
            process.state.refused(f"Effect{number:02}", Forbidden("no right"), cluster.time)
        await process.reconcile()
        assert len(cluster.rollouts[KEY]["status"]["refusals"]) == REFUSALS_LENGTH

    run(body)


def test_blocks_are_asked_for_while_there_is_something_to_compare() -> None:
    """From the publish on, and a little before the last block that has counted: one without events may have followed it."""
    cluster, plain = Cluster(), [{"name": "errors", "query": "errors"}, {"name": "load", "query": "load"}]
    cluster.add_rollout(
        metrics=[*plain, {"name": "failures", "cohorts": {"feature": "alpha", "bad": "bad_total", "total": "all_total"}}],
        guards=[{"name": "failures", "metric": "failures", "comparedTo": "Control"}],
        control={"block": "10s"},
    )

    async def body() -> None:
        process = Process(cluster)
        await process.settle()
        await process.reconcile()
        published = cluster.rollouts[KEY]["status"]["flags"]["publishedTime"]
        assert cluster.since == {"failures": datetime.fromisoformat(published)}
        check = next(each for each in cluster.rollouts[KEY]["status"]["checks"] if each["kind"] == "Guard")
        assert check["verdict"] == "NotEvaluated"

    run(body)
