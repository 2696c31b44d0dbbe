"""An application that counts sessions by variant and cell of users, as comparisons with the users without a feature need it.

It serves the sessions since the last scrape at each scrape, with the percentage that the flag document gave then. They are spread
evenly over the cells. So are failures over the sessions, and exactly the share of them fails that a test asks for. With a seed,
each session fails by chance instead, as sessions of real users do.
"""

import contextlib
import json
import math
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Final

from lab.exporter import Exporter
from lab.kube import ApiError, Kube
from lab.lab import Lab, percent_of

CELLS: Final = 16
# Multiples of both are spread evenly over a square (Roberts 2018), so that neither sessions nor failures of the cells come at once.
SESSION_STEP, FAILURE_STEP = 0.7548776662, 0.5698402910
ON, OFF = "on", "off"


@dataclass(frozen=True)
class Traffic:
    """Sessions of all users in a second, the share of them that fails, and how much larger it is with the feature."""

    sessions: float
    failing: float
    harm: float = 0.0
    seed: int | None = None  # None: failures are spread evenly

    def share_failing(self, variant: str) -> float:
        """The share of sessions that fails."""
        return self.failing + (self.harm if variant == ON else 0.0)


class RandomFailures:
    """The sessions of one cell, each of which fails by chance: the same seed lets the same sessions fail, whenever they are counted."""

    def __init__(self, seed: str) -> None:
        self._random, self._sessions, self._failed = random.Random(seed), 0, 0

    def among(self, sessions: int, share: float) -> int:
        """How many of this number of sessions have failed, if this share of the new ones does."""
        self._failed += sum(self._random.random() < share for _ in range(sessions - self._sessions))
        self._sessions = max(sessions, self._sessions)
        return self._failed


class Application(ThreadingHTTPServer):
    """Serves the users of one flag set. A counter exists from its first event on, and a new process counts again."""

    def __init__(
        self, lab: Lab, flag_set: str, traffic: Traffic, *, feature: str = "alpha", wired: bool = True, reads: bool = True
    ) -> None:
        super().__init__(("127.0.0.1", 0), Exporter)
        self.flag_set, self.feature, self.traffic = flag_set, feature, traffic
        self.reads = reads  # the flag document; without it, nobody gets the feature
        self.share = 0.0  # of users who have the feature
        self._lock = threading.Lock()
        self._cluster = Kube(lab.kubeconfig)  # of its own: a session is not made for several threads
        self.deploy(wired=wired)

    def deploy(self, *, wired: bool) -> None:
        """Replace the process by a new one, which counts with the label `variant` or without it."""
        with self._lock:
            self.wired, self._started, self._served = wired, time.time(), time.monotonic()
            self._sessions = {ON: 0.0, OFF: 0.0}
            self._random: dict[tuple[str, int], RandomFailures] = {}

    def counts(self, variant: str, cell: int) -> tuple[int, int]:
        """Failed and all sessions of the users of a cell who have the feature, or who have not."""
        total = math.floor(self._sessions[variant] / CELLS + SESSION_STEP * cell % 1)
        share = self.traffic.share_failing(variant)
        if self.traffic.seed is None:
            return math.floor(total * share + FAILURE_STEP * cell % 1), total
        failures = self._random.setdefault((variant, cell), RandomFailures(f"{self.traffic.seed} {variant} {cell}"))
        return failures.among(total, share), total

    @property
    def failed_with_feature(self) -> int:
        """Sessions with the feature that failed."""
        return self.counts_of(ON)[0]

    def counts_of(self, variant: str) -> tuple[int, int]:
        """Failed and all sessions of the users who have the feature, or who have not."""
        with self._lock:
            failed, total = zip(*(self.counts(variant, cell) for cell in range(CELLS)), strict=True)
            return sum(failed), sum(total)

    def metrics(self) -> str:
        """What a scrape gets, after the sessions since the last one."""
        given = self._given()
        with self._lock:
            now = time.monotonic()
            for variant, share in ((ON, self.share), (OFF, 1 - self.share)):
                self._sessions[variant] += share * self.traffic.sessions * (now - self._served)
            self._served, self.share = now, given
            lines = [f"process_start_time_seconds {self._started}", *self._counters()]
        return "\n".join([*lines, ""])

    def _given(self) -> float:
        """The share of users that the flag document gives the feature; that of the last scrape if it cannot be read."""
        if not self.reads:
            return 0.0
        with contextlib.suppress(ApiError, OSError):
            config_map = self._cluster.find(f"/api/v1/namespaces/default/configmaps/{self.flag_set}-flags")
            return percent_of(json.loads(config_map["data"]["flags.flagd.json"]), self.feature) / 100 if config_map else 0.0
        return self.share

    def _counters(self) -> Iterator[str]:
        unlabeled = {"failure": 0, "success": 0}
        for variant in (ON, OFF):
            for cell in range(CELLS):
                failed, total = self.counts(variant, cell)
                for result, number in (("failure", failed), ("success", total - failed)):
                    unlabeled[result] += number
                    if number and self.wired:
                        yield f'sessions_total{{variant="{variant}",cell="{cell}",result="{result}"}} {number}'
        if not self.wired:
            yield from (f'sessions_total{{result="{result}"}} {number}' for result, number in unlabeled.items() if number)


@contextlib.contextmanager
def counting(lab: Lab, *applications: Application) -> Iterator[None]:
    """The applications, which the lab's Prometheus scrapes every second: the job of each is its flag set."""
    assert lab.prometheus is not None
    threads = [threading.Thread(target=application.serve_forever) for application in applications]
    for thread in threads:
        thread.start()
    lab.targets.update({application.flag_set: application.server_port for application in applications})
    lab.prometheus.targets(lab.targets)
    try:
        yield
    finally:
        for application in applications:
            del lab.targets[application.flag_set]
            application.shutdown()
            application.server_close()
        lab.prometheus.targets(lab.targets)
        for thread in threads:
            thread.join()
