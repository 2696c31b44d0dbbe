"""Six figures, each with the limit it is held against, as a table and as JSON on the last line.

a  from the breach in Prometheus to the application evaluating the flag as off
b  API writes and reads of a rollout in a steady hold
c  memory of the operator at 1, 100 and 1,000 active rollouts with 5 criteria each
d  queries sent to Prometheus against distinct queries
e  `decide` calls per second
f  from starting the plugin to the first byte of `status`, against `kubectl get sro` in the same run

make bench BENCH="--rollouts 1 100 --trials 3"
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from typing import Any

import psutil

from bench.figures import Figure, show
from core.world import World, spec
from lab import rights
from lab.kube import Object
from lab.lab import Lab, ended_by_signals
from lab.session_persistence import NAME, NAMESPACE, DeployedApplication
from session_rollout.core.decide import decide

INTERVAL_SECONDS = 1.0
STEADY_SECONDS = 20
CRITERIA = 5
STARTS = 11


def rollout(name: str, *, interval: str = "1s", flag_set: str = "", **fields: Any) -> Object:
    """An object that holds for an hour under five criteria."""
    metrics = [{"name": f"m{n}", "query": f"vector(0.00{n})"} for n in range(1, CRITERIA + 1)]
    phase = {
        "name": "one",
        "features": ["autoReconnection"],
        "steps": [{"percent": 50, "hold": "1h"}],
        "criteria": [{"name": metric["name"], "metric": metric["name"], "below": "1%"} for metric in metrics],
    }
    body = {
        "flagSet": flag_set or name,
        "checkInterval": interval,
        "propagation": "0s",
        "features": [{"name": "autoReconnection"}],
        "metrics": [*metrics, {"name": "errors", "query": "session_error_rate"}],
        "phases": [phase],
        **fields,
    }
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": metadata, "spec": body}


def holding(lab: Lab, name: str) -> bool:
    """Whether its hold has begun."""
    return bool(lab.rollout(name, NAMESPACE).get("status", {}).get("current", {}).get("holdUntil"))


def breach_to_off(lab: Lab, application: DeployedApplication, trials: int) -> list[float]:
    """Seconds from Prometheus' first answer above 1 % to the feature being off for all users, as the application evaluates it."""
    lab.apply(rollout(NAME, guards=[{"name": "errors", "metric": "errors", "below": "1%"}]))
    took = []
    for trial in range(trials):
        lab.until(lambda: holding(lab, NAME), 60, "a hold")
        lab.until(lambda: application.share("autoReconnection") > 0, 20, "the feature on")
        application.faults(autoReconnection={"errors": 0.5})
        lab.until(lambda: (application.query("session_error_rate") or 0) > 0.01, 30, "a breach")
        begun = time.monotonic()
        lab.until(lambda: application.share("autoReconnection") == 0, 30, "the feature off")
        took.append(time.monotonic() - begun)
        application.faults()
        lab.until(lambda: lab.rollout(NAME, NAMESPACE)["status"].get("outcome"), 30, "an outcome")
        lab.until(lambda: (application.query("session_error_rate") or 0) < 0.01, 30, "calm")
        if trial + 1 < trials:
            lab.act("Retry", NAME, NAMESPACE, generation=1)
            lab.until(lambda: not lab.rollout(NAME, NAMESPACE)["status"].get("outcome"), 30, "a new start")
    return took


def steady(lab: Lab) -> tuple[float, float]:
    """Writes and reads of one rollout per check in a steady hold, from the API server's audit log."""
    lab.apply(rollout("steady"))
    lab.until(lambda: holding(lab, "steady"), 60, "a hold")
    time.sleep(2)
    since = datetime.now(UTC).isoformat()
    time.sleep(STEADY_SECONDS)
    mine = [
        line["verb"]
        for line in rights.audit(lab)
        if line["requestReceivedTimestamp"] >= since and line["objectRef"].get("name", "").startswith("steady")
    ]
    writes = sum(verb not in {"get", "list", "watch"} for verb in mine)
    checks = STEADY_SECONDS / INTERVAL_SECONDS
    return writes / checks, (len(mine) - writes) / checks


def memory(lab: Lab, counts: list[int]) -> dict[int, float]:
    """RSS in MiB of the operator with so many rollouts in a hold."""
    assert lab.operator is not None
    process, made, rss = psutil.Process(lab.operator.popen.pid), 0, {}
    for count in counts:
        for number in range(made, count):
            lab.apply(rollout(f"load-{number:04}", interval="30s"))
        made = count
        lab.until(lambda count=count: _active(lab) >= count, 300, f"{count} rollouts holding")
        time.sleep(5)
        rss[count] = process.memory_info().rss / 2**20
    return rss


def _active(lab: Lab) -> int:
    listed = lab.kube.get(f"/apis/sessionrollout.dev/v1alpha1/namespaces/{NAMESPACE}/sessionrollouts")["items"]
    loads = [rollout for rollout in listed if rollout["metadata"]["name"].startswith("load-")]
    return sum(bool(rollout.get("status", {}).get("current", {}).get("holdUntil")) for rollout in loads)


def scrape(lab: Lab, family: str) -> float:
    """Sum of a counter of the operator."""
    with urllib.request.urlopen(f"http://127.0.0.1:{lab.operator_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{family}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def queries(lab: Lab) -> tuple[float, float, float]:
    """Queries sent, results requested, and distinct queries due in the same minute."""
    sent, asked = scrape(lab, "sessionrollout_provider_requests_total"), scrape(lab, "sessionrollout_queries_requested_total")
    time.sleep(60)
    sent = scrape(lab, "sessionrollout_provider_requests_total") - sent
    asked = scrape(lab, "sessionrollout_queries_requested_total") - asked
    # The load needs five queries every 30 s; the steady rollout needs the same five every second.
    return sent, asked, CRITERIA * 60 / INTERVAL_SECONDS


def first_byte(lab: Lab, argv: list[str]) -> float:
    """Median seconds from the start of a program to the first byte it prints, after a first run that warms caches."""
    environment = {**os.environ, "KUBECONFIG": str(lab.kubeconfig), "KUBECTL": lab.kubectl_path, "PYTHONPATH": "operator"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    took = []
    for _ in range(1 + STARTS):
        begun = time.monotonic()
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.read(1), "it printed nothing"
        took.append(time.monotonic() - begun)
        process.communicate()
    return statistics.median(took[1:])


def plugin(lab: Lab) -> list[Figure]:
    """Start of the plugin beside kubectl's own."""
    ours = first_byte(lab, [sys.executable, "-m", "session_rollout.cli.app", "status", "steady", "-n", NAMESPACE])
    theirs = first_byte(lab, [lab.kubectl_path, "get", "sro", "steady", "-n", NAMESPACE])
    return [
        Figure("f: first byte of status", ours, "s", 0.4),
        Figure("f: first byte of status to kubectl get sro", ours / theirs, "", float("inf")),
    ]


def decisions() -> float:
    """`decide` calls per second for a rollout in a hold."""
    world = World(spec())
    world.run(30)
    observed, begun, count = world.observed(), time.perf_counter(), 0
    while time.perf_counter() - begun < 2:
        decide(observed, world.now)
        count += 1
    return count / (time.perf_counter() - begun)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--rollouts", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    figures = [Figure("e: decide calls per second", decisions(), "1/s", 500, at_least=True)]
    with ended_by_signals(), Lab() as lab:
        lab.install()
        application = DeployedApplication(lab)
        application.deploy()
        lab.start_operator()
        lab.until(lambda: application.query("session_error_rate") is not None, 60, "the application being scraped")
        took = breach_to_off(lab, application, options.trials)
        limit = INTERVAL_SECONDS + 5
        figures += [
            Figure(f"a: breach to off, median of {len(took)}", statistics.median(took), "s", limit),
            Figure("a: breach to off, worst", max(took), "s", limit),
        ]
        lab.kubectl("delete", "sro", NAME, "-n", NAMESPACE)
        writes, reads = steady(lab)
        figures += [Figure("b: API writes per check", writes, "", 0.01), Figure("b: API reads per check", reads, "", 2.2)]
        figures += plugin(lab)
        for count, size in memory(lab, options.rollouts).items():
            figures.append(Figure(f"c: memory at {count} rollouts", size, "MiB", 128 if count == 1 else 512))
        sent, asked, distinct = queries(lab)
        figures += [
            Figure("d: queries sent in a minute", sent, "", distinct * 1.2),
            Figure("d: results requested in it", asked, "", float("inf")),
        ]
    show(figures)
    sys.exit(any(figure.ratio > 1 for figure in figures))


if __name__ == "__main__":
    main()
