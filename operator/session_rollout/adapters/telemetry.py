"""The operator's own metrics (`sessionrollout_*`) and its structured log."""

import logging
import re
import sys
from importlib.metadata import version
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

disable_created_metrics()  # type: ignore[no-untyped-call]

API_REQUESTS: Final = Counter("sessionrollout_api_requests", "Requests to the API server.", ["verb", "code"])
PROVIDER_REQUESTS: Final = Counter(
    "sessionrollout_provider_requests", "Queries sent to a metric provider.", ["provider", "result"]
)
PROVIDER_SECONDS: Final = Histogram("sessionrollout_provider_request_duration_seconds", "Time of a query.", ["provider"])
QUERIES_ASKED: Final = Counter("sessionrollout_queries_asked", "Answers that rollouts asked for, cached or not.", ["provider"])
RECONCILES: Final = Counter("sessionrollout_reconcile", "Looks at a rollout, by result.", ["result"])
RECONCILE_SECONDS: Final = Histogram("sessionrollout_reconcile_time_seconds", "From reading a rollout to its written status.")
STATUS_WRITES: Final = Counter("sessionrollout_status_writes", "Status writes.")
LAST_RECONCILE: Final = Gauge(
    "sessionrollout_last_reconcile_timestamp_seconds", "When a rollout was last looked at.", ["namespace", "name"]
)
OVERDUE: Final = Gauge("sessionrollout_overdue_rollouts", "Rollouts whose loop missed its time.")
PERCENT: Final = Gauge("sessionrollout_percent_ratio", "Published share of users of the running step.", ["namespace", "name"])
PHASE_INDEX: Final = Gauge("sessionrollout_phase_index", "Running phase, counted from 1.", ["namespace", "name"])
CONDITION: Final = Gauge("sessionrollout_condition", "Conditions: 1 True, 0 False, -1 Unknown.", ["namespace", "name", "type"])
HOLD_UNTIL: Final = Gauge(
    "sessionrollout_hold_until_timestamp_seconds",
    "When the hold of the running step is over; 0: it has not begun.",
    ["namespace", "name"],
)
APPROVAL: Final = Gauge(
    "sessionrollout_approval_awaited", "Whether a person's approval is awaited: 0 or 1.", ["namespace", "name"]
)
MIGRATIONS_FAILED: Final = Gauge(
    "sessionrollout_migrations_failed", "Migrations that failed and wait for a person.", ["namespace", "name"]
)
CHECK_VALUE: Final = Gauge(
    "sessionrollout_check_value", "Latest answer of a metric, in base units.", ["namespace", "name", "metric"]
)
MIGRATION_ROWS: Final = Gauge(
    "sessionrollout_migration_rows",
    "Rows of a migration that moves rows: total, done, quarantined.",
    ["namespace", "name", "migration", "kind"],
)
OUTCOMES: Final = Counter("sessionrollout_outcomes", "How generations ended.", ["namespace", "outcome"])
ACTIONS: Final = Counter("sessionrollout_actions", "People's actions.", ["verdict"])
LEADER: Final = Gauge("sessionrollout_leader", "Whether this replica holds the Lease: 0 or 1.")
BUILD: Final = Gauge("sessionrollout_build_info", "Always 1; the version is a label.", ["version"])
BUILD.labels(version("session-rollout")).set(1)
PER_ROLLOUT: Final = (
    LAST_RECONCILE,
    PERCENT,
    PHASE_INDEX,
    CONDITION,
    HOLD_UNTIL,
    APPROVAL,
    MIGRATIONS_FAILED,
    CHECK_VALUE,
    MIGRATION_ROWS,
)

OF_KOPF: Final = ("settings", "k8s_skip", "k8s_ref")  # what it gives with a line; the first is no JSON
_SECRETS: Final = re.compile(r"(://[^:/@\s]+:)[^@\s]+(@)|(password=|Bearer )[^\s'\"]+", re.IGNORECASE)


class Redacted(logging.Filter):
    """Takes passwords and tokens out of every line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the message; never drops a line."""
        record.msg, record.args = redact(record.getMessage()), ()
        return True


def redact(text: str) -> str:
    """The text without credentials."""
    return _SECRETS.sub(lambda found: f"{found.group(1) or found.group(3)}***{found.group(2) or ''}", text)


def log_as_json() -> None:
    """One JSON object a line on standard error; no field that a person would not want."""
    handler = logging.StreamHandler(sys.stderr)
    fields = "%(asctime)s %(levelname)s %(name)s %(message)s"
    names = {"asctime": "ts", "levelname": "level", "name": "logger"}
    handler.setFormatter(JsonFormatter(fields, rename_fields=names, reserved_attrs=[*RESERVED_ATTRS, *OF_KOPF]))
    handler.addFilter(Redacted())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def forget(namespace: str, name: str) -> None:
    """Drop the series of a rollout that is gone."""
    for family in PER_ROLLOUT:
        samples: list[Any] = [sample for metric in family.collect() for sample in metric.samples]
        own = {
            tuple(sample.labels[label] for label in family._labelnames)  # noqa: SLF001 - no public way to ask
            for sample in samples
            if sample.labels.get("namespace") == namespace and sample.labels.get("name") == name
        }
        for labels in own:
            family.remove(*labels)
