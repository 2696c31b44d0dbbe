"""What the controller gathers for a decision, and how old it may be. Not here: the reconciliation around it."""

from datetime import timedelta

from controller.cluster import Cluster, Process, run
from session_rollout.controller.gather import REFRESH_AFTER


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
        await Process(cluster).settle()
        wanted = {"errors": 10, "load": 300, "eager": 10}
        assert cluster.max_ages == {name: timedelta(seconds=seconds) * REFRESH_AFTER for name, seconds in wanted.items()}

    run(body)
