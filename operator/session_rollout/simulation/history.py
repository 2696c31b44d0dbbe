"""What a metric was in the past: one number for each interval, or none."""

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Final

from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.api.metrics import SeasonalBaseline
from session_rollout.api.quantities import duration
from session_rollout.core.observed import Measurement, Seasons

STRETCH: Final = 256  # values whose smallest and largest are known together


@dataclass(frozen=True)
class Incident:
    """A time in which something was wrong, as people have marked it."""

    start: datetime
    end: datetime

    def contains(self, time: datetime) -> bool:
        """Whether a guard that acts at this time acts on the incident."""
        return self.start <= time <= self.end


@dataclass(frozen=True, eq=False)
class History:
    """The results of one query, eight bytes each. NaN stands for a time without a result."""

    start: datetime
    interval: timedelta
    values: "array[float]"
    seasons: "SeasonalHistory | None" = None  # of a metric that is compared with earlier seasons

    @classmethod
    def of(
        cls, start: datetime, interval: timedelta, values: Iterable[float], seasons: "SeasonalHistory | None" = None
    ) -> "History":
        """A history of these values."""
        return cls(start, interval, array("d", values), seasons)

    @property
    def end(self) -> datetime:
        """When the last value stops being the newest."""
        return self.start + len(self.values) * self.interval

    def time(self, number: int) -> datetime:
        """When the value of this number was measured."""
        return self.start + number * self.interval

    def number(self, time: datetime) -> int:
        """The number of the newest value at a time; below 0 before the first, and that of the last one after it."""
        return min((time - self.start) // self.interval, len(self.values) - 1)

    def value(self, time: datetime) -> float:
        """The newest value at a time; NaN without one."""
        number = self.number(time)
        return self.values[number] if number >= 0 else math.nan

    def measurement(self, number: int) -> Measurement:
        """The value as the operator would have measured it."""
        time = self.time(number) if number >= 0 else self.start
        value = self.values[number] if number >= 0 else math.nan
        if math.isnan(value):
            return Measurement(time, problem=Verdict.NO_DATA, reason=CheckReason.EMPTY_RESULT, message="no result")
        if math.isinf(value):
            return Measurement(
                time, problem=Verdict.INCONCLUSIVE, reason=CheckReason.INFINITE_VALUE, message=f"the result is {value:+}"
            )
        return Measurement(time, value=_decimal(value))

    @cached_property
    def stretches(self) -> tuple[tuple[float, float] | None, ...]:
        """The smallest and the largest value of each stretch; None if a value of it is missing or infinite."""
        parts = (self.values[first : first + STRETCH] for first in range(0, len(self.values), STRETCH))
        return tuple((min(part), max(part)) if all(map(math.isfinite, part)) else None for part in parts)


@dataclass(frozen=True, eq=False)
class SeasonalHistory:
    """The means of a metric over the window of its baseline, which are compared with those of earlier seasons."""

    means: History
    baseline: SeasonalBaseline

    @cached_property
    def season(self) -> timedelta:
        """The time from one season to the next."""
        return duration(self.baseline.season)

    def earlier(self, time: datetime, latest: int = 1) -> tuple[float, ...]:
        """The means of the earlier seasons that have data, of which the latest is so many before this time."""
        seasons = range(latest, latest + self.baseline.count)
        values = (self.means.value(time - number * self.season) for number in seasons)
        return tuple(value for value in values if math.isfinite(value))

    def seasons(self, time: datetime, latest: int = 1) -> Seasons:
        """What the operator would have read at a time."""
        mean = self.means.value(time)
        return Seasons(time, _decimal(mean) if math.isfinite(mean) else None, tuple(map(_decimal, self.earlier(time, latest))))

    def without(self, incidents: Sequence[Incident]) -> "SeasonalHistory":
        """The same without the means that cover a part of an incident."""
        window, values = duration(self.baseline.window), self.means.values[:]
        for incident in incidents:
            first, end = self.means.number(incident.start), self.means.number(incident.end + window)
            for number in range(max(first, 0), end + 1):
                values[number] = math.nan
        return replace(self, means=replace(self.means, values=values))


def _decimal(value: float) -> Decimal:
    """The number as Prometheus writes it."""
    return Decimal(repr(value).removesuffix(".0"))
