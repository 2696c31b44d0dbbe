"""The earlier weeks of metrics, as the provider of a fake cluster has them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

from session_rollout.api.metrics import Metric
from session_rollout.core.observed import Seasons


class Past:
    """As many weeks as a test wants, each with the value 1."""

    time: datetime
    weeks = 0

    def __init__(self) -> None:
        self.seasons_ago: dict[str, tuple[timedelta, ...]] = {}  # by metric, as they were asked for last

    def seasons(
        self, _provider: str, metric: Metric, ago: tuple[timedelta, ...], _max_age: timedelta, _wake: Callable[[], None]
    ) -> Seasons:
        self.seasons_ago[metric.name] = ago
        return Seasons(self.time, Decimal(1), (Decimal(1),) * self.weeks)
