"""Recorded metrics, for a backtest: what Prometheus has of a query, at fixed intervals.

It comes in chunks, each of which is below the 11,000 points that Prometheus returns. A chunk that is over never changes, so that it is
kept in a directory: another backtest requests only what is new.
"""

import hashlib
import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from session_rollout.adapters.prometheus import read
from session_rollout.adapters.promql_scan import SECONDS
from session_rollout.adapters.provider_client import ProviderClient, invalid
from session_rollout.api.enums import CheckReason
from session_rollout.errors import ProviderFailed
from session_rollout.settings import Provider

POINTS: Final = 10_000
SETTLED: Final = timedelta(hours=1)  # after so long, no sample comes late
SECOND: Final = timedelta(seconds=1)
LENGTH: Final = re.compile(r"([0-9]{1,6})(ms|[smhdwy])")  # parts of a duration of Prometheus, such as `1y2w`


@dataclass(frozen=True)
class Place:
    """Where recorded metrics are, and what they need; timeouts as in `Provider`."""

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None
    timeout: str = "60s"


class Recorder:
    """Reads what one provider has of a query."""

    def __init__(self, place: Place, directory: Path | None, now: datetime) -> None:
        provider = Provider(url=place.url, timeout=place.timeout, bearer_token_file=place.token_file, ca_file=place.ca_file)
        self._client = ProviderClient(provider, workers=1)
        self._url, self._directory, self._now = place.url, directory, now

    async def values(self, query: str, start: datetime, end: datetime, interval: timedelta) -> tuple[datetime, "array[float]"]:
        """The values from the first multiple of the interval, at `start` or later, to the last one, at `end` or earlier.

        Returns the time of the first value, and one value for each interval; NaN where there is none. Raises ProviderFailed.
        """
        first, last = math.ceil(start.timestamp() / interval.total_seconds()), int(end.timestamp() // interval.total_seconds())
        values = array("d")
        for chunk in range(first // POINTS, last // POINTS + 1):
            points = await self._chunk(query, chunk, interval)
            begin = chunk * POINTS
            values.extend(points[max(first - begin, 0) : last + 1 - begin])
        return _time(first, interval), values

    async def latest(self, query: str) -> float | None:
        """The single number of a query now; None if there is none. Raises ProviderFailed."""
        measurement = read(await self._client.query(query), self._now, self._client.provider)
        return None if measurement.value is None else float(measurement.value)

    async def retention(self) -> timedelta | None:
        """For how long the server keeps samples; None if it does not say, as servers that only speak the API of Prometheus."""
        try:
            data = (await self._client.runtime_information()).data
            parts = LENGTH.findall(data["storageRetention"].split(" ")[0])  # the rest is a size
        except (ProviderFailed, LookupError, TypeError, AttributeError):
            return None
        return timedelta(seconds=sum(int(number) * SECONDS[unit] for number, unit in parts)) if parts else None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _chunk(self, query: str, chunk: int, interval: timedelta) -> "array[float]":
        """All values of a chunk; those of the future are missing."""
        path, begin, end = self._path(query, chunk, interval), chunk * POINTS, (chunk + 1) * POINTS - 1
        if path is not None and (kept := _kept(path)) is not None:
            return kept
        until = min(_time(end, interval), self._now)
        response = await self._client.query_range(query, _time(begin, interval), until, interval)
        try:
            points = array("d", _values(response.data, begin, interval))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise invalid(error) from error
        if path is not None and _time(end, interval) + SETTLED < self._now:
            _keep(path, points)
        return points

    def _path(self, query: str, chunk: int, interval: timedelta) -> Path | None:
        if self._directory is None:
            return None
        key = "\n".join((self._url, query, str(interval // SECOND), str(chunk)))
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()}.f64"


def _time(number: int, interval: timedelta) -> datetime:
    return datetime.fromtimestamp(number * interval.total_seconds(), UTC)


def _values(data: Any, begin: int, interval: timedelta) -> Iterator[float]:
    """The value at each time of the chunk, NaN where there is none. Raises ProviderFailed for several series."""
    if data["resultType"] != "matrix":
        raise ValueError("the result of a range query is a matrix")
    if len(data["result"]) > 1:
        message = f"the result has {len(data['result'])} series; exactly one is required"
        raise ProviderFailed(CheckReason.MULTIPLE_SERIES, message)
    samples = {int(moment): float(value) for series in data["result"] for moment, value in series["values"]}
    seconds = interval // SECOND
    yield from (samples.get((begin + number) * seconds, math.nan) for number in range(POINTS))


def _kept(path: Path) -> "array[float] | None":
    """A chunk of an earlier backtest; None if there is none, or only a part of it."""
    points = array("d")
    try:
        points.frombytes(path.read_bytes())
    except (OSError, ValueError):
        return None
    return points if len(points) == POINTS else None


def _keep(path: Path, points: "array[float]") -> None:
    """Keep a chunk; one that cannot be written is requested again."""
    scratch = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(points.tobytes())
        scratch.replace(path)
    except OSError:
        return
