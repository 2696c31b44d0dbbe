"""Blocks of evidence from a real Prometheus: every event of an application is in one block, and in no other."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer

import pytest

from lab.exporter import Exporter
from lab.lab import Lab
from session_rollout.adapters.clock import WallClock
from session_rollout.adapters.prometheus_blocks import ends_of_blocks, fetch_blocks
from session_rollout.adapters.promql_blocks import CohortQueries
from session_rollout.adapters.provider_client import ProviderClient
from session_rollout.adapters.provider_clock import ProviderClock
from session_rollout.core.blocks import BlockProblem, CohortBlock
from session_rollout.core.statistics.rates import NOTHING, Block
from session_rollout.settings import Provider

BLOCK, SCRAPE, LAG = timedelta(seconds=5), timedelta(seconds=1), timedelta(seconds=2)
SESSIONS = 40  # of each cohort and cell before the next scrape
CELLS = ("1", "2", "3")
SECONDS = {"on": 0.25, "off": 0.0625}  # that a session takes


Known = tuple["Application", tuple[CohortBlock, ...], tuple[CohortBlock, ...]]  # blocks of failures, and of latencies


class Application(ThreadingHTTPServer):
    """Counts sessions. A counter exists from its first session on, and a new process counts again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.counted: Counter[tuple[str, str, str]] = Counter()  # of this process
        self.total: Counter[tuple[str, str, str]] = Counter()  # of all processes
        self.started = datetime.now(UTC).timestamp()
        self.scrapes = 0
        self.changed = threading.Condition()

    def count(self, variant: str, cell: str, result: str, number: int) -> None:
        self.counted[variant, cell, result] += number
        self.total[variant, cell, result] += number

    def restart(self) -> None:
        self.counted.clear()
        self.started = datetime.now(UTC).timestamp()

    def metrics(self) -> str:
        lines = [f"process_start_time_seconds {self.started}"]
        for (variant, cell, result), number in self.counted.items():
            lines.append(f'lab_sessions_total{{variant="{variant}",cell="{cell}",result="{result}"}} {number}')
            labels = f'variant="{variant}",cell="{cell}",result="{result}"'
            lines += [f"lab_seconds_count{{{labels}}} {number}", f"lab_seconds_sum{{{labels}}} {number * SECONDS[variant]}"]
        return "\n".join([*lines, ""])

    def scraped(self, times: int = 1) -> None:
        """Wait until Prometheus has come so often."""
        with self.changed:
            wanted = self.scrapes + times
            assert self.changed.wait_for(lambda: self.scrapes >= wanted, 30)


class Handler(Exporter):
    """Counts how often Prometheus has come."""

    def do_GET(self) -> None:
        super().do_GET()
        with self.server.changed:
            self.server.scrapes += 1
            self.server.changed.notify_all()


@contextmanager
def application(lab: Lab) -> Iterator[Application]:
    """One that the lab's Prometheus scrapes every second."""
    assert lab.prometheus is not None
    server = Application()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    lab.targets["blocks"] = server.server_port
    lab.prometheus.targets(lab.targets)
    try:
        yield server
    finally:
        del lab.targets["blocks"]
        lab.prometheus.targets(lab.targets)
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def blocks(lab: Lab) -> Known:
    """Blocks of an application in which failures begin, and which is restarted, with a block before and after."""
    with application(lab) as running:
        running.scraped(3)
        begun = datetime.now(UTC)
        for second in range(20):
            for cell in CELLS:
                running.count("on", cell, "success", SESSIONS)
                running.count("off", cell, "success", 9 * SESSIONS)
            if second >= 7:
                running.count("on", "2", "failure", 3)
            running.scraped()
            if second == 13:
                running.restart()
        running.scraped(int((BLOCK + LAG) / SCRAPE) + 2)
        until = datetime.now(UTC) - LAG
        ends = ends_of_blocks(begun - 2 * BLOCK, until, BLOCK)
        return running, read(lab, FAILURES, ends), read(lab, LATENCY, ends)


FAILURES = CohortQueries.of_counters(
    'lab_sessions_total{job="blocks",result="failure"}', 'lab_sessions_total{job="blocks"}', BLOCK, SCRAPE
)
LATENCY = CohortQueries.of_sums('lab_seconds_sum{job="blocks"}', 'lab_seconds_count{job="blocks"}', BLOCK, SCRAPE)


def read(lab: Lab, queries: CohortQueries, ends: tuple[datetime, ...]) -> tuple[CohortBlock, ...]:
    """The blocks with these ends."""
    assert lab.prometheus is not None
    clock, client = WallClock(), ProviderClient(Provider(url=lab.prometheus.url), 4)
    try:
        return asyncio.run(fetch_blocks(client, ProviderClock(clock), clock, queries, ends))
    finally:
        client.close()


def test_blocks_have_all_events(blocks: Known) -> None:
    """Failures in particular, whose counters were born twice; what a process counts after its last scrape is never known."""
    running, known, _ = blocks
    whole: Block = sum((block.whole for block in known), NOTHING)
    wanted = {variant: sum(n for (each, *_), n in running.total.items() if each == variant) for variant in ("on", "off")}
    failures = sum(number for (*_, result), number in running.total.items() if result == "failure")
    assert whole.on_bad == pytest.approx(failures, rel=0.15)
    assert whole.on_total == pytest.approx(wanted["on"], rel=0.15)
    assert whole.off_total == pytest.approx(wanted["off"], rel=0.15)
    assert whole.on_total / whole.off_total == pytest.approx(wanted["on"] / wanted["off"], rel=0.02)


def test_blocks_have_cells(blocks: Known) -> None:
    """The failures are all in one of them."""
    _, known, _ = blocks
    assert {name for block in known for name in block.cells} == set(CELLS)
    assert {name for block in known for name, cell in block.cells.items() if cell.on_bad > 0} == {"2"}


def test_before_and_after_there_is_no_evidence(blocks: Known) -> None:
    _, known, _ = blocks
    assert known[0].problem is BlockProblem.NO_EVENTS
    assert any(block.problem is None for block in known)


def test_blocks_of_a_mean_have_the_values_of_all_events(blocks: Known) -> None:
    """Also of counters that are new, or begin again."""
    _, failures, latency = blocks
    whole: Block = sum((block.whole for block in latency), NOTHING)
    assert [block.whole.on_total for block in latency] == [block.whole.on_total for block in failures]
    assert whole.on_bad / whole.on_total == pytest.approx(SECONDS["on"], rel=1e-3)
    assert whole.off_bad / whole.off_total == pytest.approx(SECONDS["off"], rel=1e-3)
