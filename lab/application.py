"""The demo application: a session service that reads the published flags as a real one would.

Flags come through the OpenFeature SDK with flagd's in-process evaluator on the mounted ConfigMap; session rows go to
PostgreSQL; the seed's metrics are exported, and sessions by flag, variant and cell of users. Users take turns in a fixed
order, so that rates do not jitter. Faults are switched on by POST /faults and harm only those who have the feature: `errors`
(share of sessions that fail), `latency` (share added to page loads), `nan` and `silence` (the metrics themselves).

Runs as a Pod's process: `python -m lab.application --flags DIR/flags.flagd.json --port N [--database URL]`.
"""

import argparse
import contextlib
import itertools
import json
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from lab.population import User, users

TICK_SECONDS = 0.25
BATCH = 50
WINDOW_TICKS = 8
POLL_MILLISECONDS = 200
ERRORS, LATENCY, NAN, SILENCE = "errors", "latency", "nan", "silence"
EVERYBODY = "*"

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # its memory, which the guide's diagnostics ask for


def _gauge(name: str, text: str) -> Gauge:
    return Gauge(name, text, registry=REGISTRY)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


ERROR_RATE = _gauge("session_error_rate", "Share of sessions that failed, last two seconds.")
TOKEN_FAILURES = _gauge("token_refresh_failure_rate", "Share of token refreshes that failed.")
RECOVERY = _gauge("connection_recovery_success_rate", "Share of lost connections that came back.")
CRITICAL_BUGS = _gauge("critical_bugs_open", "Open critical bugs.")
BUG_IMPACT = _gauge("critical_bug_affected_users_ratio", "Share of users a critical bug affects.")
DATABASE_UP = _gauge("session_database_up", "Whether session rows can be written.")
SATISFACTION = _gauge("user_satisfaction_score", "Survey score, 0 to 100.")
TICKETS = _gauge("support_tickets_open", "Open support tickets.")
STORAGE = _gauge("session_storage_bytes", "Session data kept.")
STORAGE_LIMIT = _gauge("session_storage_limit_bytes", "Session data allowed.")
SYNC_EFFICIENCY = _gauge("background_sync_efficiency_ratio", "Useful share of background syncs.")
ENGAGEMENT = _gauge("user_engagement_score", "Engagement index.")
PAGE_LOAD = Histogram("page_load_seconds", "Page loads.", buckets=[0.1 * n for n in range(1, 31)], registry=REGISTRY)
SESSION_START = Histogram("session_initialization_seconds", "Session starts.", registry=REGISTRY)
# The operations whose thresholds the seed gives, and how long each takes here, in seconds.
OPERATIONS = {
    "token_refresh": 0.2,
    "connection_recovery": 0.9,
    "state_persistence": 0.03,
    "cache_operation": 0.002,
}
TIMES = {name: Histogram(f"{name}_seconds", f"Time of a {name.replace('_', ' ')}.", registry=REGISTRY) for name in OPERATIONS}
ERROR_TYPES = (
    "SessionValidationError",
    "TokenRefreshError",
    "ConnectionTimeoutError",
    "StatePersistenceError",
    "CrossTabSyncError",
)
ERRORS_SEEN = _counter("session_errors", "Errors by type.", "type")
REQUESTS = _counter("http_requests", "Requests by status code.", "code")
DATA_LOSS = _counter("data_loss_incidents", "Sessions whose data was lost.")
FORMS = _counter("form_recoveries", "Forms restored.", "result")
CACHE = _counter("cache_requests", "Cache look-ups.", "result")
SYNCS = _counter("cross_tab_syncs", "Syncs between tabs.", "result")
EXPOSURES = _counter("feature_exposures", "Evaluations by variant.", "flag", "variant")
for _type in ERROR_TYPES:
    ERRORS_SEEN.labels(_type)  # a series that begins at 0 has a rate from the first error on
for _code in ("200", "500"):
    REQUESTS.labels(_code)
SESSIONS = _counter("sessions", "Sessions, each once for each flag.", "flag", "variant", "cell", "result")
CELL, NO_CELL = "sessionrollout-cell", "none"
UNKNOWN = "unknown"  # the variant of a flag that could not be evaluated


@dataclass
class Application:
    """The service: its users, its flags, its faults."""

    flags_path: Path
    database: str
    population: tuple[User, ...] = field(default_factory=users)
    faults: dict[str, dict[str, float]] = field(default_factory=dict)  # feature -> kind -> size
    overrides: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # user -> overridesOn / overridesOff
    window: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=WINDOW_TICKS))
    features: tuple[str, ...] = ()

    def start(self) -> None:
        """Serve users until the process ends."""
        threading.Thread(target=self._provide, daemon=True).start()
        threading.Thread(target=self._serve_users, daemon=True).start()
        threading.Thread(target=self._write_rows, daemon=True).start()
        threading.Thread(target=self._read_overrides, daemon=True).start()

    def _provide(self) -> None:
        """Wait for the document (the ConfigMap is optional at first), then let the SDK follow it."""
        while not self.flags_path.exists():
            time.sleep(0.05)
        api.set_provider(
            FlagdProvider(
                resolver_type=ResolverType.FILE,
                offline_flag_source_path=str(self.flags_path),
                deadline_ms=POLL_MILLISECONDS,
            )
        )

    def has(self, user: User, feature: str) -> bool:
        """Whether the user has the feature, as the SDK evaluates it now."""
        context = user.context(self.overrides.get(user.id, {}))
        return bool(api.get_client().get_boolean_value(feature, default_value=False, evaluation_context=context))

    def variants(self, user: User) -> tuple[dict[str, tuple[bool, str]], str]:
        """Whether the user has each feature, with the variant that says why, and the cell of the user."""
        client, context = api.get_client(), user.context(self.overrides.get(user.id, {}))
        details = {
            feature: client.get_boolean_details(feature, default_value=False, evaluation_context=context)
            for feature in self.features
        }
        variants = {feature: (bool(each.value), each.variant or UNKNOWN) for feature, each in details.items()}
        return variants, client.get_string_value(CELL, NO_CELL, context)

    def read_features(self) -> tuple[str, ...]:
        """Names of the features in the document; as before while it cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            flags = json.loads(self.flags_path.read_text())["flags"]
            self.features = tuple(name for name in flags if not name.startswith("sessionrollout-"))
        return self.features

    def _serve_users(self) -> None:
        turns: Iterator[User] = itertools.cycle(self.population)
        for number in itertools.count():
            begun = time.monotonic()
            if number % 4 == 0:
                self.read_features()
            self.serve([next(turns) for _ in range(BATCH)])
            time.sleep(max(0.0, TICK_SECONDS - (time.monotonic() - begun)))

    def serve(self, batch: list[User]) -> None:
        """A session of each of these users."""
        failed = 0
        shares: dict[str, int] = dict.fromkeys(self.features, 0)
        for index, user in enumerate(batch):
            variants, cell = self.variants(user)  # of the beginning of the session, until its end
            has_failed = self._session(index, [feature for feature, (has_feature, _) in variants.items() if has_feature])
            failed += has_failed
            for feature, (has_feature, variant) in variants.items():
                shares[feature] += has_feature
                EXPOSURES.labels(feature, variant).inc()
                SESSIONS.labels(feature, variant, cell, "failure" if has_failed else "success").inc()
        self.window.append((failed, len(batch)))
        self._gauges({feature: count / len(batch) for feature, count in shares.items()})

    def _session(self, index: int, features: list[str]) -> bool:
        """One user's session; whether it failed."""
        harm = [self.faults[name] for name in (*features, EVERYBODY) if name in self.faults]
        errors = max((fault.get(ERRORS, 0.0) for fault in harm), default=0.0)
        slower = 1 + max((fault.get(LATENCY, 0.0) for fault in harm), default=0.0)
        failed = index / BATCH < errors if errors else False
        PAGE_LOAD.observe((0.4 + 0.02 * (index % BATCH)) * slower)
        SESSION_START.observe((0.12 + 0.001 * (index % BATCH)) * slower)
        for name, seconds in OPERATIONS.items():
            TIMES[name].observe(seconds * slower)
        REQUESTS.labels("500" if failed else "200").inc()
        if failed:
            ERRORS_SEEN.labels(ERROR_TYPES[index % len(ERROR_TYPES)]).inc()
        CACHE.labels("hit" if index % 10 else "miss").inc()
        FORMS.labels("success").inc()
        SYNCS.labels("success").inc()
        return failed

    def _gauges(self, shares: dict[str, float]) -> None:
        failed, total = (sum(column) for column in zip(*self.window, strict=True))
        rate = failed / total
        broken = any(NAN in fault for fault in self.faults.values())
        values = {
            ERROR_RATE: rate,
            TOKEN_FAILURES: 0.002,
            RECOVERY: 0.985,
            CRITICAL_BUGS: 0,
            BUG_IMPACT: 0,
            SATISFACTION: 80 - 100 * rate,
            TICKETS: 12,
            STORAGE: 4e9,
            STORAGE_LIMIT: 1e10,
            SYNC_EFFICIENCY: 0.96,
            ENGAGEMENT: 50 * (1 + 0.5 * (0.05 if "crossTabSynchronization" in shares and self._advanced() else 0)),
        }
        for gauge, value in values.items():
            gauge.set(math.nan if broken else value)

    def _advanced(self) -> bool:
        """Whether beta users already have the advanced features: engagement follows."""
        beta = next(user for user in self.population if "beta" in user.groups)
        return self.has(beta, "crossTabSynchronization")

    def _write_rows(self) -> None:
        """Keep writing session rows, and report whether that works."""
        while True:
            try:
                with psycopg.connect(self.database, autocommit=True, connect_timeout=2) as connection:
                    for user in itertools.cycle(self.population):
                        connection.execute(_UPSERT, (user.id, user.id, f"session-{user.id}"))
                        DATABASE_UP.set(1)
                        time.sleep(0.05)
            except psycopg.Error:
                DATABASE_UP.set(0)
                time.sleep(0.5)

    def _read_overrides(self) -> None:
        """Per-user overrides from the table that the schema migration makes; those that have expired no longer count."""
        while True:
            with contextlib.suppress(psycopg.Error), psycopg.connect(self.database, connect_timeout=2) as connection:
                overrides: dict[str, dict[str, list[str]]] = {}
                for user, feature, enabled in connection.execute(_OVERRIDES).fetchall():
                    kind = "overridesOn" if enabled else "overridesOff"
                    overrides.setdefault(str(user), {}).setdefault(kind, []).append(feature)
                self.overrides = overrides
            time.sleep(1)


_OVERRIDES = """
SELECT user_id, feature_name, enabled FROM session_feature_flags
WHERE user_id IS NOT NULL AND (expires_at IS NULL OR expires_at > now())
"""
_UPSERT = """
WITH known AS (INSERT INTO users (id) VALUES (%s) ON CONFLICT DO NOTHING)
INSERT INTO user_sessions (user_id, session_id, last_activity) VALUES (%s, %s, now())
ON CONFLICT (session_id) DO UPDATE SET last_activity = excluded.last_activity
"""


def handler(application: Application) -> type[BaseHTTPRequestHandler]:
    """The HTTP side: metrics, health, faults, and what users have."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, body: bytes, code: int = 200) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            match url.path:
                case "/health":
                    self._answer(b"ok")
                case "/metrics":
                    silent = any(SILENCE in fault for fault in application.faults.values())
                    self._answer(b"" if silent else generate_latest(REGISTRY), 503 if silent else 200)
                case "/share":
                    query = parse_qs(url.query)
                    feature, size = query["feature"][0], int(query.get("users", ["200"])[0])
                    on = sum(application.has(user, feature) for user in application.population[:size])
                    self._answer(json.dumps({"feature": feature, "on": on, "of": size}).encode())
                case "/has":
                    query = parse_qs(url.query)
                    user = next(candidate for candidate in application.population if candidate.id == query["user"][0])
                    self._answer(json.dumps(application.has(user, query["feature"][0])).encode())
                case _:
                    self._answer(b"not found", 404)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            application.faults = {name: dict(kinds) for name, kinds in body.items()}
            self._answer(b"{}")

    return Handler


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--flags", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="where it listens; a Pod has an address of its own")
    parser.add_argument("--database", default="")
    options = parser.parse_args()
    application = Application(options.flags, options.database)
    application.start()
    print("serving", options.port, file=sys.stderr)
    ThreadingHTTPServer((options.host, options.port), handler(application)).serve_forever()


if __name__ == "__main__":
    main()
