"""How long `backtest` takes over four weeks of the shipped example, and how much memory: the whole command, on a real Prometheus.

Three incidents are marked, on which guards act. The metrics have a daily wave and noise.

python -m bench.backtest [--days 28]
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from bench.figures import Figure, show
from lab.lab import ROOT
from lab.past import remembering
from session_rollout.api.rollout import RolloutSpec
from session_rollout.simulation.backtest import metrics_of

EXAMPLE: Final = ROOT / "examples" / "session-persistence.yaml"
STEP: Final = timedelta(seconds=30)
SECONDS, MEBIBYTES = 120, 256
HEALTHY: Final = {"session-error-rate": 0.004, "critical-bug-impact": 0.01}  # 1 for every other metric
INCIDENT: Final = timedelta(minutes=40)


def example() -> dict[str, Any]:
    """The shipped rollout, whose queries are names of series."""
    documents = yaml.safe_load_all(EXAMPLE.read_text())
    rollout: dict[str, Any] = next(each for each in documents if each["kind"] == "SessionRollout")
    for metric in rollout["spec"]["metrics"]:
        metric["query"] = series(metric["name"])
    return rollout


def series(metric: str) -> str:
    """The name of the series of a metric."""
    return f"past_{metric.replace('-', '_')}"


def values(metric: str, incidents: list[datetime], rng: random.Random) -> Callable[[datetime], float]:
    """A metric with a daily wave of 12 %, noise of 3 %, and three times its value in an incident."""
    healthy = HEALTHY.get(metric, 1.0)

    def value(time: datetime) -> float:
        wave = 1 + 0.12 * math.sin(2 * math.pi * time.timestamp() / 86_400)
        bad = any(start <= time < start + INCIDENT for start in incidents)
        return healthy * wave * rng.lognormvariate(0, 0.03) * (3 if bad else 1)

    return value


def main() -> int:
    """Print the figures; 1 if one exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=28)
    days = parser.parse_args().days
    end = datetime.fromtimestamp(time.time() // 3600 * 3600, UTC)
    start, rng = end - timedelta(days=days), random.Random(1)
    incidents = [start + timedelta(days=days * part / 4, hours=5) for part in (1, 2, 3)]
    rollout = example()
    names = metrics_of(RolloutSpec.model_validate(rollout["spec"]))
    metrics = {series(name): values(name, incidents, rng) for name in names}
    with tempfile.TemporaryDirectory(prefix="session-rollout-bench-") as directory:
        file = Path(directory) / "rollout.yaml"
        file.write_text(yaml.safe_dump(rollout))
        with remembering(Path(directory), metrics, start, end, STEP) as prometheus:
            marked = [f"--incident={time:%Y-%m-%dT%H:%M}..{time + INCIDENT:%Y-%m-%dT%H:%M}" for time in incidents]
            span = [
                f"--from={days}d",
                f"--to={end:%Y-%m-%dT%H:%M}",
                f"--prometheus={prometheus.url}",
                f"--cache={directory}/cache",
            ]
            command = [sys.executable, "-m", "session_rollout.cli", "backtest", str(file), *span, *marked, "-o", "json"]
            printed = Path(directory) / "result.json"
            begun = time.monotonic()
            with printed.open("w") as sink, subprocess.Popen(command, stdout=sink) as process:
                _, status, usage = os.wait4(process.pid, 0)  # of this process alone
            seconds, result = time.monotonic() - begun, json.loads(printed.read_text())
    assert status == 0, "the command failed"
    starts = {phase["phase"]: phase["guards"][-1]["starts"] for phase in result}
    print(f"{len(names)} metrics, {days} days; starts: {starts}")
    figures = [
        Figure("the whole command", seconds, "s", SECONDS),
        Figure("largest memory of the command", usage.ru_maxrss / 1024, "MiB", MEBIBYTES),
    ]
    show(figures)
    return int(any(figure.ratio > 1 for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
