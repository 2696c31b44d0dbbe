"""Metrics that a test sets: a target that Prometheus scrapes, which also answers HTTP checks."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

from lab.exporter import Exporter
from lab.lab import Lab


class Gauge(ThreadingHTTPServer):
    """A target whose metrics the test sets: `lab_errors`, and `lab_errors_of` with a label for each rollout."""

    value = "0.001"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.of: dict[str, str] = {}

    def metrics(self) -> str:
        """Both of them."""
        lines = [f"lab_errors {self.value}"]
        lines += [f'lab_errors_of{{rollout="{name}"}} {value}' for name, value in self.of.items()]
        return "\n".join([*lines, ""])


@contextlib.contextmanager
def scraped(lab: Lab) -> Iterator[Gauge]:
    """A gauge that the lab's Prometheus scrapes; the lab knows it as `gauge`."""
    server = Gauge(("127.0.0.1", 0), Exporter)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    assert lab.prometheus is not None
    lab.targets["gauge"] = server.server_port
    lab.prometheus.targets(lab.targets)
    lab.gauge = server  # type: ignore[attr-defined]
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def operated(lab: Lab) -> Iterator[Lab]:
    """The lab with the operator running and one metric scraped."""
    with scraped(lab):
        lab.start_operator()
        yield lab
        assert lab.operator is not None
        lab.operator.stop()
