"""OpenTelemetry traces: off unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set; its standard variables configure the rest.

Each reconciliation has a span, with a span below it for each request to the API server. A rollout lasts for days, so a
reconciliation is a trace of its own, and its attributes name the rollout. A query is a trace of its own as well, because
several rollouts share its result.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

from opentelemetry import trace

FLUSH_MILLISECONDS: Final = 300
_TRACER = trace.get_tracer("session_rollout")


def start() -> None:
    """Send spans to the endpoint of the environment. Without one, spans cost next to nothing."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - slow, and needed for traces alone
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create({"service.name": "session-rollout", "service.version": version("session-rollout")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def stop() -> None:
    """Send the last spans, within a moment."""
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush(FLUSH_MILLISECONDS)


@contextmanager
def span(name: str, attributes: dict[str, str]) -> Iterator[None]:
    """A span around a block. An exception is recorded by its type and raised again."""
    with _TRACER.start_as_current_span(name, attributes=attributes, record_exception=False) as current:
        try:
            yield
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            raise
