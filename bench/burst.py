"""Many rollouts created within seconds: the operator keeps its Lease, is not restarted, and evaluates each of them in time.

Five hundred loops that start at once once cost the operator its Lease: its renewal waited behind their requests and their steps
on the event loop. The figures: seconds until the last rollout has its first verdict, the longest time between two renewals of the
Lease, how long an action on one of the rollouts waits while the others are new, and, afterwards, how long emergencies on many of
them at once take to have the features off.

python -m bench.burst --rollouts 500 --seconds 10
"""

import argparse
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.figures import Figure, show
from lab.kube import Kube, Object
from lab.lab import LEASE, Lab, ended_by_signals

NAMESPACE = "default"
INTERVAL_SECONDS = 30
# As in a cluster: a lab's every second costs 40 % of the operator.
SCRAPE = {"__scrape_interval__": "15s", "__scrape_timeout__": "10s"}
COUNTERS = ("reconcile", "status_writes", "rest_client_requests")
LEASE_SECONDS = 10.0  # without a renewal for this time, the process ends
ACTION_SECONDS = 3.0
ACTION_REQUESTS = 12  # as long as so many requests take in the same run: an action, a watch, a document and a look at it
TOGETHER_SECONDS = 6.0
CREATORS = 4
TOGETHER = 80  # rollouts whose features are disabled at the same time
ACTIONS = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{NAMESPACE}/sessionrolloutactions"
ROLLOUTS = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{NAMESPACE}/sessionrollouts"


def rollout(name: str) -> Object:
    """An object that holds for an hour under one criterion and one guard."""
    metric = {"name": "errors", "query": "vector(0.001)"}
    check = {"name": "errors", "metric": "errors", "below": "1%"}
    phase = {"name": "one", "features": ["alpha"], "steps": [{"percent": 50, "hold": "1h"}], "criteria": [check]}
    body = {
        "flagSet": name,
        "checkInterval": f"{INTERVAL_SECONDS}s",
        "features": [{"name": "alpha"}],
        "metrics": [metric],
        "guards": [check],
        "phases": [phase],
    }
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": metadata, "spec": body}


@dataclass
class Burst:
    """What was seen, in seconds since the first creation."""

    created: float = 0.0
    judged: dict[str, float] = field(default_factory=dict)  # by name: its first verdict
    renewals: list[datetime] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)  # how long each creation took: what a request costs in this run
    action: float = 0.0  # from an emergency on one of the rollouts to its flags being off
    together: list[float] = field(default_factory=list)  # the same for each of many at once
    restarts: int = 0

    @property
    def longest_renewal(self) -> float:
        """The longest time between two renewals."""
        pairs = zip(self.renewals, self.renewals[1:], strict=False)
        return max(((later - earlier).total_seconds() for earlier, later in pairs), default=0.0)

    @property
    def request(self) -> float:
        """Seconds of one request: on a machine that has more to do, the limits are a number of them."""
        return statistics.median(self.requests or [0.0])

    @property
    def action_limit(self) -> float:
        """Seconds that an emergency may take."""
        return max(ACTION_SECONDS, ACTION_REQUESTS * self.request)

    @property
    def verdict_limit(self) -> float:
        """Seconds after the last creation that the last verdict may take: two intervals, or one request for each rollout in turn."""
        return max(2.0 * INTERVAL_SECONDS, len(self.requests) * self.request)


def judged(item: Object) -> bool:
    """Whether its criterion was evaluated."""
    checks = item.get("status", {}).get("checks", [])
    return any(check["verdict"] == "Pass" for check in checks)


def create(lab: Lab, count: int, seconds: float) -> list[float]:
    """Create the rollouts, evenly over the time; the seconds of each request."""
    begun = time.monotonic()

    def some(first: int) -> list[float]:
        kube, requests = Kube(lab.kubeconfig), list[float]()
        for number in range(first, count, CREATORS):
            time.sleep(max(0.0, begun + seconds * number / count - time.monotonic()))
            sent = time.monotonic()
            kube.create(ROLLOUTS, rollout(f"burst-{number:04}"))
            requests.append(time.monotonic() - sent)
        return requests

    with ThreadPoolExecutor(CREATORS) as pool:
        return [each for requests in pool.map(some, range(CREATORS)) for each in requests]


def emergency(lab: Lab, name: str) -> float:
    """Seconds from the action to the flags being off."""
    begun = time.monotonic()
    lab.act("EmergencyDisable", name, NAMESPACE, features=["alpha"], reason="drill")
    lab.within(lambda: is_off(lab.document(name)), 60, "alpha off")
    return time.monotonic() - begun


def is_off(document: Object) -> bool:
    """Whether no user has the feature."""
    return "targeting" not in document["flags"]["alpha"]


def emergencies(lab: Lab, names: list[str]) -> list[float]:
    """Seconds from an emergency on each of these rollouts, all created at once, to its flags being off."""

    def some(mine: list[str]) -> list[float]:
        kube, waiting, seconds = Kube(lab.kubeconfig), dict[str, float](), list[float]()
        for name in mine:
            spec = {"rollout": name, "action": "EmergencyDisable", "features": ["alpha"], "reason": "drill"}
            about = {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRolloutAction", "spec": spec}
            waiting[name] = time.monotonic()
            kube.create(ACTIONS, {**about, "metadata": {"name": f"{name}-off", "namespace": NAMESPACE}})
        while waiting:
            for name in list(waiting):
                config_map = kube.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}-flags")
                if is_off(json.loads(config_map["data"]["flags.flagd.json"])):
                    seconds.append(time.monotonic() - waiting.pop(name))
            time.sleep(0.1)
        return seconds

    with ThreadPoolExecutor(CREATORS) as pool:
        return sorted(
            each for seconds in pool.map(some, (names[first::CREATORS] for first in range(CREATORS))) for each in seconds
        )


def burst(lab: Lab, count: int, seconds: float, limit: float) -> Burst:
    """Create so many rollouts, and watch the operator until each has a verdict or the time is over."""
    seen, begun = Burst(), time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        creation = pool.submit(create, lab, count, seconds)
        action, listed = None, 0
        while time.monotonic() - begun < limit and len(seen.judged) < count:
            assert lab.operator is not None
            seen.restarts += not lab.operator.alive
            renewed = datetime.fromisoformat(lab.kube.get(LEASE)["spec"]["renewTime"])
            if not seen.renewals or renewed > seen.renewals[-1]:
                seen.renewals.append(renewed)
            if len(seen.renewals) != listed:
                listed = len(seen.renewals)  # a list of all costs the API server as much as several of the operator's requests
                _look(lab, seen, begun)
            if creation.done() and seen.created == 0:
                seen.requests = creation.result()
                seen.created = time.monotonic() - begun
            if seen.created and seen.judged and action is None:
                action = pool.submit(emergency, lab, min(seen.judged))
            time.sleep(0.5)
        seen.action = action.result() if action is not None else 0.0
    return seen


def _look(lab: Lab, seen: Burst, begun: float) -> None:
    """Note the rollouts that have a verdict now."""
    items = lab.kube.get(ROLLOUTS, resourceVersion="0")["items"]
    for name in (item["metadata"]["name"] for item in items if judged(item)):
        seen.judged.setdefault(name, time.monotonic() - begun)


def figures(seen: Burst, count: int) -> list[Figure]:
    """The figures with their limits."""
    times = sorted(seen.judged.values())
    return [
        Figure("a rollouts with a verdict", len(times), "", count, at_least=True),
        Figure("b last verdict after the last creation", max(times, default=0.0) - seen.created, "s", seen.verdict_limit),
        Figure("c longest time between two renewals", seen.longest_renewal, "s", LEASE_SECONDS),
        Figure("d emergency while the others are new", seen.action, "s", seen.action_limit),
        Figure("e last of many emergencies at once", max(seen.together, default=0.0), "s", TOGETHER_SECONDS),
    ]


def _counted(metrics: str) -> dict[str, float]:
    """What the operator has counted, under whatever labels."""
    families = {family.name: family for family in text_string_to_metric_families(metrics)}
    return {name: sum(sample.value for sample in families[f"sessionrollout_{name}"].samples) for name in COUNTERS}


def main() -> int:
    """Measure and show; 1 when a limit is exceeded or the process ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10.0, help="time in which they are created")
    options = parser.parse_args()
    with ended_by_signals(), Lab(database=False) as lab:
        lab.install()
        assert lab.prometheus is not None
        lab.prometheus.targets(lab.targets, SCRAPE)
        lab.namespace(NAMESPACE)
        lab.start_operator()
        lab.until(lambda: lab.kube.find(LEASE), 30, "the Lease")
        assert lab.operator is not None
        process = psutil.Process(lab.operator.popen.pid)
        before = sum(process.cpu_times()[:2])
        seen = burst(lab, options.rollouts, options.seconds, 300)
        cpu = sum(process.cpu_times()[:2]) - before
        seen.together = emergencies(lab, sorted(seen.judged)[1 : TOGETHER + 1])
        counted = _counted(lab.operator_metrics())
    measured = figures(seen, options.rollouts)
    show(measured)
    times = sorted(seen.judged.values()) or [0.0]
    about = {
        "created": round(seen.created, 1),
        "median": round(statistics.median(times), 1),
        "median of the emergencies": round(statistics.median(seen.together or [0.0]), 1),
        "median of the requests": round(seen.request, 3),
        "restarts": seen.restarts,
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "cpu milliseconds per rollout": round(1000 * cpu / options.rollouts),
        "per rollout": {name: round(value / options.rollouts, 1) for name, value in counted.items()},
    }
    print(json.dumps(about))
    return int(seen.restarts > 0 or any(figure.ratio > 1 for figure in measured))


if __name__ == "__main__":
    sys.exit(main())
