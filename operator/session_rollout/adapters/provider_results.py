"""Results of a metric provider that have no value, and what is told of each request to it."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from session_rollout.adapters.telemetry import PROVIDER_REQUESTS, PROVIDER_SECONDS
from session_rollout.adapters.tracing import span
from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.core.observed import Measurement
from session_rollout.errors import PartialResponse, ProviderFailed
from session_rollout.ports import Clock

UNKNOWN: Final = "not in `prometheus` of the operator's configuration"


def no_value(time: datetime, problem: Verdict, reason: CheckReason, message: str) -> Measurement:
    """A result without a value."""
    return Measurement(time, problem=problem, reason=reason, message=message)


def internal_error(time: datetime) -> Measurement:
    """The result of a query that a bug has ended."""
    message = "the query failed because of an error in the operator; see its log"
    return no_value(time, Verdict.PROVIDER_ERROR, CheckReason.INTERNAL_ERROR, message)


def unknown_provider(time: datetime, name: str) -> Measurement:
    """The result of a query to a provider that is not configured."""
    return no_value(time, Verdict.PROVIDER_ERROR, CheckReason.UNKNOWN_PROVIDER, f"provider {name}: {UNKNOWN}")


async def measured(clock: Clock, name: str, measure: Callable[[datetime], Awaitable[Measurement]]) -> Measurement:
    """The result of one request, which begins now; a failure of the provider is a result. It is counted and traced."""
    # The time is taken here: a result that waited for its turn would be stale when it arrives.
    start, begun = clock.now(), clock.monotonic()
    with span("query", {"sessionrollout.provider": name}):
        try:
            measurement = await measure(start)
        except PartialResponse as failure:
            measurement = no_value(start, Verdict.INCONCLUSIVE, failure.reason, f"provider {name}: {failure}")
        except ProviderFailed as failure:
            measurement = no_value(start, Verdict.PROVIDER_ERROR, failure.reason, f"provider {name}: {failure}")
    PROVIDER_REQUESTS.labels(name, measurement.problem or "Value").inc()
    PROVIDER_SECONDS.labels(name).observe(clock.monotonic() - begun)
    return measurement
