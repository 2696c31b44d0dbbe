"""Recorded metrics come in chunks, each of them once; what is no number is missing, and several series are refused."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from adapters.providers import Answers, Handler, answering, run
from session_rollout.adapters.recorded import POINTS, Place, Recorder
from session_rollout.api.enums import CheckReason
from session_rollout.errors import ProviderFailed

INTERVAL = timedelta(seconds=30)
CHUNK = POINTS * INTERVAL
# In the middle of a chunk, so that the parts of two others are at its sides.
NOW = datetime.fromtimestamp((10_000.5 * CHUNK).total_seconds(), UTC)


def expected(moment: float) -> float:
    """The value at a time: none in some minutes of each hour."""
    return math.nan if moment % 3600 < 120 else moment % 1_000


class Past(Handler):
    """A Prometheus that has these values, until now."""

    def do_GET(self) -> None:
        given = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        moments = range(int(given["start"]), int(given["end"]) + 1, int(given["step"]))
        assert len(moments) <= 11_000
        values = [[moment, repr(expected(moment))] for moment in moments if not math.isnan(expected(moment))]
        result = [{"metric": {}, "values": values}]
        self.server.body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
        super().do_GET()


def recorded(server: Answers, start: datetime, end: datetime, directory: Path | None = None) -> tuple[datetime, list[float]]:
    """The values of one query, and the time of the first."""
    recorder = Recorder(Place(f"http://127.0.0.1:{server.server_port}"), directory, NOW)

    async def read() -> tuple[datetime, list[float]]:
        try:
            first, values = await recorder.values("up", start, end, INTERVAL)
            return first, list(values)
        finally:
            recorder.close()

    return run(read())


@pytest.mark.parametrize("days", [0.125, 1, 6])
def test_all_values_between_two_times(days: float) -> None:
    """At whole multiples of the interval, over as many chunks as it takes."""
    with answering(handler=Past) as server:
        start = NOW - timedelta(days=days) + timedelta(seconds=7)
        first, values = recorded(server, start, NOW)
    assert first == start + timedelta(seconds=23)
    assert first + (len(values) - 1) * INTERVAL == NOW
    wanted = [expected((first + number * INTERVAL).timestamp()) for number in range(len(values))]
    assert values == pytest.approx(wanted, nan_ok=True)


def test_a_chunk_that_is_over_is_requested_once(tmp_path: Path) -> None:
    """The last one is not over. A file of which a part is missing is requested again."""
    with answering(handler=Past) as server:
        first = recorded(server, NOW - 2 * CHUNK, NOW, tmp_path)
        assert len(server.asked) == 3
        again = recorded(server, NOW - 2 * CHUNK, NOW, tmp_path)
        assert len(server.asked) == 4
        assert again[1] == pytest.approx(first[1], nan_ok=True)
        kept = sorted(tmp_path.iterdir())
        assert len(kept) == 2
        kept[0].write_bytes(kept[0].read_bytes()[:-8])
        recorded(server, NOW - 2 * CHUNK, NOW, tmp_path)
        assert len(server.asked) == 6


def test_a_directory_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with answering(handler=Past) as server:
        assert len(recorded(server, NOW - CHUNK, NOW, tmp_path / "file" / "directory")[1]) == POINTS + 1


def matrix(*series: Any) -> bytes:
    """A success with these series."""
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": series}}).encode()


def test_a_query_without_a_result_is_missing() -> None:
    with answering() as server:
        server.body = matrix()
        assert all(math.isnan(value) for value in recorded(server, NOW - INTERVAL, NOW)[1])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (matrix({"metric": {"a": "1"}, "values": []}, {"metric": {"a": "2"}, "values": []}), CheckReason.MULTIPLE_SERIES),
        (matrix({"metric": {}, "values": [[1, "x"]]}), CheckReason.INVALID_RESPONSE),
        (matrix({"metric": {}}), CheckReason.INVALID_RESPONSE),
        (b'{"status": "success", "data": {"resultType": "vector", "result": []}}', CheckReason.INVALID_RESPONSE),
        (b'{"status": "error", "error": "too many points"}', CheckReason.QUERY_REJECTED),
    ],
)
def test_another_response_is_an_error(body: bytes, reason: CheckReason) -> None:
    with answering() as server:
        server.body = body
        with pytest.raises(ProviderFailed) as failed:
            recorded(server, NOW - INTERVAL, NOW)
    assert failed.value.reason is reason
