"""What a target answers to Prometheus: the metrics of its server as text."""

from http.server import BaseHTTPRequestHandler
from typing import Any


class Exporter(BaseHTTPRequestHandler):
    """Every GET gets the `metrics()` of the server, so that it answers HTTP checks, too."""

    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.server.metrics().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)
