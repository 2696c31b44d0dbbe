"""The dashboard of the demo application: session errors, recovery, latency and storage."""

from typing import Final

from tools.chart.panels import Board, Panel, average, share

OPERATIONS: Final = {
    "Session initialization": ("session_initialization", 0.5),
    "Token refresh": ("token_refresh", 1.0),
    "Connection recovery": ("connection_recovery", 5.0),
    "State persistence": ("state_persistence", 0.2),
    "Cache operation": ("cache_operation", 0.05),
}


SESSION: Final = Board(
    "sessionrollout-session",
    "Session persistence",
    "The key metrics of session persistence, with the thresholds of its deployment guide.",
    {
        "Errors": (
            Panel(
                "Session error rate",
                "Share of sessions that failed; above 1%, the rollout is rolled back.",
                "percentunit",
                {"errors": "max(session_error_rate)"},
                0.01,
            ),
            Panel(
                "Token refresh failures",
                "Share of token refreshes that failed.",
                "percentunit",
                {"failures": "max(token_refresh_failure_rate)"},
                0.05,
            ),
            Panel(
                "Connection recovery",
                "Share of lost connections that were recovered; below 95% is a failure.",
                "percentunit",
                {"recovered": "min(connection_recovery_success_rate)"},
            ),
            Panel(
                "Errors by type",
                "Errors per minute; more than five of one type are critical.",
                "short",
                {"{{type}}": "sum by (type) (rate(session_errors_total[5m])) * 60"},
                5,
                span=12,
            ),
            Panel(
                "Users affected",
                "Share of users affected by a critical bug.",
                "percentunit",
                {"affected": "max(critical_bug_affected_users_ratio)"},
                0.05,
                span=12,
            ),
        ),
        "Performance": (
            *(
                Panel(
                    title,
                    f"Average time; the threshold is {limit * 1000:g} ms.",
                    "s",
                    {"average": average(metric)},
                    limit,
                    span=6,
                )
                for title, (metric, limit) in OPERATIONS.items()
            ),
            Panel(
                "Page load",
                "Time to load a page, 95th percentile.",
                "s",
                {"p95": "histogram_quantile(0.95, sum by (le) (rate(page_load_seconds_bucket[5m])))"},
                span=12,
            ),
        ),
        "Experience": (
            Panel(
                "Cache hits",
                "Share of lookups served by the cache; the target is above 80%.",
                "percentunit",
                {"hits": share("cache_requests_total", 'result="hit"')},
                span=6,
            ),
            Panel(
                "Forms restored",
                "Share of forms that were restored; the target is above 98%.",
                "percentunit",
                {"restored": share("form_recoveries_total", 'result="success"')},
                span=6,
            ),
            Panel(
                "Cross-tab syncs",
                "Share of syncs that succeeded; the target is above 95%.",
                "percentunit",
                {"synced": share("cross_tab_syncs_total", 'result="success"')},
                span=6,
            ),
            Panel(
                "Data loss",
                "Incidents in the last day; the target is none.",
                "short",
                {"incidents": "sum(increase(data_loss_incidents_total[1d]))"},
                1,
                span=6,
            ),
            Panel(
                "Satisfaction", "Average score of the user survey.", "short", {"score": "avg(user_satisfaction_score)"}, span=8
            ),
            Panel(
                "Support tickets", "Number of open support tickets.", "short", {"tickets": "sum(support_tickets_open)"}, span=8
            ),
            Panel(
                "Storage",
                "Share of the allowed session storage that is used.",
                "percentunit",
                {"used": "sum(session_storage_bytes) / sum(session_storage_limit_bytes)"},
                0.9,
                span=8,
            ),
        ),
        "Features": (
            Panel(
                "Features by user",
                "Share of flag evaluations that returned true.",
                "percentunit",
                {
                    "{{flag}}": 'sum by (flag) (rate(feature_exposures_total{variant=~"on|on-chosen"}[5m])) / sum by (flag) (rate(feature_exposures_total[5m]))'
                },
                span=24,
            ),
        ),
    },
)
