"""The page about environment variables: each one that the code reads, with a description from the table below."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parents[1] / "operator" / "session_rollout"
OPERATOR, PLUGIN, MIGRATE = "Operator", "Plugin", "session-rollout-migrate"
INTRODUCTION: Final = (
    "This page is for administrators and for users of the plugin. It lists the environment variables that each of the three programs"
    " reads.\n"
)
INTRODUCTIONS: Final = {
    OPERATOR: "The chart sets these variables. All other settings are in the [configuration](configuration.md).",
    PLUGIN: "`kubectl sessionrollout` and the kubectl that it runs read these variables.",
    MIGRATE: "The operator sets these variables in migration Jobs. The connection string is never in the environment.",
}
# Variable: program, default, description.
VARIABLES: Final = {
    "POD_NAME": (OPERATOR, "host name with a random suffix", "Identity of this replica in the Lease."),
    "POD_NAMESPACE": (OPERATOR, "`default`", "Namespace of the Lease."),
    "LEASE_NAME": (OPERATOR, "`session-rollout`", "Name of the Lease."),
    "SESSION_ROLLOUT_IMAGE": (OPERATOR, "none", "Image of the migration Jobs, for profiles without `image`."),
    "SESSION_ROLLOUT_HOST": (OPERATOR, "all addresses", "Address of `/metrics`, `/healthz` and `/readyz`."),
    "SESSION_ROLLOUT_PORT": (OPERATOR, "`8080`", "Port of `/metrics`, `/healthz` and `/readyz`."),
    "OTEL_EXPORTER_OTLP_ENDPOINT": (
        OPERATOR,
        "none",
        "Address that receives traces. All `OTEL_*` variables of the OpenTelemetry SDK apply. If unset, no traces are sent.",
    ),
    "KUBECTL": (PLUGIN, "`kubectl`", "The kubectl that the plugin runs."),
    "XDG_CACHE_HOME": (PLUGIN, "`~/.cache`", "Directory in which `backtest` keeps results of Prometheus."),
    "SESSION_ROLLOUT_ACTOR": (MIGRATE, "`$USER`", "Name of the user or the Job; the ledger records it."),
    "SESSION_ROLLOUT_JOB_UID": (MIGRATE, "none", "UID of the Job; the ledger records it."),
    "USER": (MIGRATE, "none", "Used when `SESSION_ROLLOUT_ACTOR` is not set."),
}
# Variables that libraries read, which no search of the code finds.
OF_LIBRARIES: Final = {
    OPERATOR: (("KUBECONFIG", "none", "Kubeconfig file, for an operator outside a cluster."),),
    PLUGIN: (
        ("KUBECONFIG", "`~/.kube/config`", "Kubeconfig file that kubectl uses."),
        ("NO_COLOR", "none", "Turns colors off when it is set."),
    ),
    MIGRATE: (),
}


def read_by_code() -> set[str]:
    """Every variable that the code reads with `os.environ`."""
    return {name for path in SOURCE.rglob("*.py") for name in _variables(ast.parse(path.read_text()))}


def _variables(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="get", value=ast.Attribute(attr="environ")), args=[ast.Constant(value=name), *_]
            ):
                yield str(name)
            case ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=name)):
                yield str(name)
            case ast.Call(func=ast.Attribute(attr="getenv"), args=[ast.Constant(value=name), *_]):
                yield str(name)


def environment() -> str:
    """Environment variables, a table for each program. Raises KeyError for one without a description."""
    used = {name: VARIABLES[name] for name in sorted(read_by_code())}
    parts = ["# Environment variables\n", INTRODUCTION]
    for program, introduction in INTRODUCTIONS.items():
        rows = [(name, default, text) for name, (owner, default, text) in used.items() if owner == program]
        parts += [f"## {program}\n", f"{introduction}\n", "| variable | default | meaning |\n|---|---|---|"]
        parts += [f"| `{name}` | {default} | {text} |" for name, default, text in (*rows, *OF_LIBRARIES[program])]
        parts.append("")
    return "\n".join(parts)
