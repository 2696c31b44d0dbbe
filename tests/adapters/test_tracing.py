"""Traces reach a collector by OTLP, and cost nothing where nobody wants them."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PROGRAM = """
from session_rollout.adapters import tracing
tracing.start()
with tracing.span("reconcile", {"k8s.namespace.name": "shop"}):
    try:
        with tracing.span("api", {"http.request.method": "GET"}):
            raise TimeoutError("nobody there")
    except TimeoutError:
        pass
import sys
print("opentelemetry.sdk" in sys.modules)
"""


def run(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "operator", "PATH": "/usr/bin", **environment},
        timeout=60,
    )
    return done.stdout.strip()


def test_off_by_default() -> None:
    assert run() == "False"


def test_spans_reach_a_collector() -> None:
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        assert run(OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_EXPORTER_OTLP_COMPRESSION="none") == "True"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    request = ExportTraceServiceRequest()
    request.ParseFromString(b"".join(received))
    spans = {span.name: span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans}
    assert set(spans) == {"reconcile", "api"}
    assert spans["api"].parent_span_id == spans["reconcile"].span_id
    attributes = {one.key: one.value.string_value for one in spans["api"].attributes}
    assert attributes == {"http.request.method": "GET", "error.type": "TimeoutError"}
    resource = {one.key: one.value.string_value for one in request.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "session-rollout"
