"""A Prometheus that has a past: promtool writes it, as it would for a server whose data is restored from elsewhere."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from lab import sources
from lab.processes import Processes
from lab.servers import Prometheus

Values = Callable[[datetime], float]


@contextmanager
def remembering(
    directory: Path, metrics: Mapping[str, Values], start: datetime, end: datetime, step: timedelta
) -> Iterator[Prometheus]:
    """A running server with these metrics, one sample for each step from `start` to `end`."""
    past = directory / "past.txt"
    with past.open("w") as file:
        for name, value in metrics.items():
            file.write(f"# TYPE {name} gauge\n")
            for number in range(int((end - start) / step) + 1):
                time = start + number * step
                file.write(f"{name} {value(time)} {time.timestamp():.0f}\n")
        file.write("# EOF\n")
    command = [
        str(sources.prometheus().parent / "promtool"),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "--max-block-duration=168h",
    ]
    subprocess.run([*command, str(past), str(directory / "data")], check=True, capture_output=True)
    processes = Processes(directory)
    server = Prometheus(directory, processes)
    processes.wait(server.start(), server.ready)
    try:
        yield server
    finally:
        server.stop()
