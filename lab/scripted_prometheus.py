"""A Prometheus that answers what a test says, at once, and remembers when: for tests of how fast the operator reacts."""

import json
import re
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class ScriptedPrometheus(ThreadingHTTPServer):
    """Values by the label `run` of the query, which each query must have; use as a context manager."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._values: dict[str, str] = {}
        self._answered: dict[tuple[str, str], float] = {}  # first answer with this value since it was set
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def set(self, run: str, value: str) -> None:
        """What queries of this run get from now on."""
        with self._lock:
            self._values[run] = value
            self._answered.pop((run, value), None)

    def answered(self, run: str, value: str) -> float:
        """When the value was first given (monotonic seconds); 0 when it was not yet."""
        return self._answered.get((run, value), 0.0)

    def value(self, query: str) -> str:
        """The value of a query, which is about to be sent."""
        match = re.search(r'run="([^"]+)"', query)
        assert match is not None, query
        with self._lock:
            value = self._values[match[1]]
            self._answered.setdefault((match[1], value), time.monotonic())
        return value


class Handler(BaseHTTPRequestHandler):
    server: ScriptedPrometheus

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        sample = [time.time(), self.server.value(parse_qs(url.query)["query"][0])]
        data = {"resultType": "vector", "result": [{"metric": {}, "value": sample}]}
        body = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # the operator was killed
            self.wfile.write(body)
