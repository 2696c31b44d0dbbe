"""The seed's rollout on the lab: its database, its application, and its object with weeks become seconds."""

import copy
import json
import re
import urllib.parse
import urllib.request
from datetime import timedelta
from typing import Any

import psycopg
import yaml

from lab import images
from lab.cluster import LOOPBACK
from lab.kube import Object
from lab.lab import IMAGE, ROOT, Lab
from lab.processes import free_port
from lab.sessions import TABLES, fill
from session_rollout.api.quantities import duration

NAMESPACE = "analy-ticket"
NAME = "session-persistence"
FACTOR = 7 * 86_400 / 15  # a week becomes a quarter of a minute
SHORTEST_HOLD = 2_000  # milliseconds
RANGE = "4s"
LEGACY_ROWS = 40_000


def example(name: str) -> Object:
    """An object of `examples/`."""
    return dict(yaml.safe_load((ROOT / "examples" / name).read_text()))


def scaled(document: Object, factor: float = FACTOR) -> Object:
    """The rollout with its times divided: holds no shorter than two seconds, checks every second, short ranges."""
    result = copy.deepcopy(document)
    spec = result["spec"]
    spec["checkInterval"] = "1s"
    spec["propagation"] = "0s"
    spec["bake"] = _shorter(spec.get("bake", "0s"), factor, 2_000)
    for metric in spec["metrics"]:
        if "query" in metric:
            metric["query"] = re.sub(r"\[5m\]", f"[{RANGE}]", metric["query"])
    for guard in spec.get("guards", []):
        guard["for"] = _shorter(guard.get("for", "0s"), factor, 0)
        guard.pop("minimum", None)
    for phase in spec["phases"]:
        phase["deadline"] = "60s"
        for criterion in phase.get("criteria", []):
            criterion.pop("minimum", None)  # in so short a range there are few events
        for step in phase["steps"]:
            if "hold" in step:
                step["hold"] = _shorter(step["hold"], factor, SHORTEST_HOLD)
            else:
                shortest = step["ramp"]["increments"] * SHORTEST_HOLD
                step["ramp"]["over"] = _shorter(step["ramp"]["over"], factor, shortest)
    return result


def _shorter(text: str, factor: float, shortest: int) -> str:
    return f"{max(round(duration(text) / timedelta(milliseconds=factor)), shortest)}ms"


def ladder(document: Object) -> dict[str, list[tuple[float, tuple[str, ...]]]]:
    """What each phase promises, read from the YAML alone: percentage and groups of every audience in order."""
    promised = {}
    for phase in document["spec"]["phases"]:
        audiences: list[tuple[float, tuple[str, ...]]] = []
        for step in phase["steps"]:
            groups, before = tuple(step.get("groups", [])), audiences[-1][0] if audiences else 0.0
            if ramp := step.get("ramp"):
                count, top = ramp["increments"], float(ramp["to"])
                audiences += [(round(before + (top - before) * n / count, 1), groups) for n in range(1, count + 1)]
            else:
                audiences.append((float(step.get("percent", 0)), groups))
        promised[phase["name"]] = audiences
    return promised


class DeployedApplication:
    """The application and its database in a lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.port = free_port()
        self.address = LOOPBACK

    @property
    def url(self) -> str:
        """Where the application answers."""
        return f"http://{self.address}:{self.port}"

    def deploy(self) -> None:
        """Create the legacy tables, the Secret and the application's Deployment, and scrape it."""
        lab = self.lab
        assert lab.postgres is not None
        assert lab.prometheus is not None
        with psycopg.connect(lab.postgres.url, autocommit=True) as connection:
            connection.execute(TABLES)
        fill(lab.postgres.url, LEGACY_ROWS)
        lab.namespace(NAMESPACE)
        lab.database_secret("analy-ticket-db", lab.postgres.url, NAMESPACE)
        lab.apply(self._deployment(), NAMESPACE)
        ports = {"selector": {"app": "analy-ticket-web"}, "ports": [{"port": self.port}]}
        lab.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "analy-ticket-web"}, "spec": ports}, NAMESPACE)
        if lab.real_node is not None:
            self.address = lab.pod_address(NAMESPACE, "app=analy-ticket-web")
        lab.targets["analy-ticket-web"] = f"{self.address}:{self.port}"
        lab.prometheus.targets(lab.targets)

    def health(self) -> Object:
        """A gate: the application answers."""
        return {
            "name": "health",
            "http": {"service": "analy-ticket-web", "port": self.port, "path": "/health", "expectStatus": 200},
        }

    def _deployment(self) -> Object:
        labels = {"app": "analy-ticket-web"}
        flags = "/etc/flags"
        host = [] if self.lab.real_node is None else ["--host=0.0.0.0"]
        container = {
            "name": "web",
            "image": IMAGE if self.lab.real_node is None else images.APPLICATION,
            "command": ["python", "-m", "lab.application"],
            "args": [f"--flags={flags}/flags.flagd.json", f"--port={self.port}", "--database=$(DATABASE_URL)", *host],
            "env": [{"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "analy-ticket-db", "key": "url"}}}],
            "ports": [{"containerPort": self.port}],
            "readinessProbe": {"httpGet": {"path": "/health", "port": self.port}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "flags", "mountPath": flags, "readOnly": True}],
        }
        restricted = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
        volume = {"name": "flags", "configMap": {"name": f"{NAME}-flags", "optional": True}}
        pod = {"containers": [container], "volumes": [volume], "securityContext": restricted}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "analy-ticket-web"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }

    def faults(self, **faults: Any) -> None:
        """Switch faults of the application on, replacing those that are."""
        request = urllib.request.Request(f"{self.url}/faults", data=json.dumps(faults).encode(), method="POST")
        urllib.request.urlopen(request, timeout=30).close()

    def share(self, feature: str, users: int = 200) -> float:
        """Share of users who have a feature, as the application itself evaluates it now."""
        with urllib.request.urlopen(f"{self.url}/share?feature={feature}&users={users}", timeout=30) as answer:
            body = json.load(answer)
        return float(body["on"] / body["of"])

    def has(self, user: str, feature: str) -> bool:
        """Whether one user has a feature, as the application itself evaluates it now."""
        with urllib.request.urlopen(f"{self.url}/has?feature={feature}&user={user}", timeout=30) as answer:
            return bool(json.load(answer))

    def query(self, promql: str) -> float | None:
        """One number from the lab's Prometheus."""
        assert self.lab.prometheus is not None
        url = f"{self.lab.prometheus.url}/api/v1/query?query={urllib.parse.quote(promql)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            result = json.load(answer)["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def tables(self) -> dict[str, list[str]]:
        """Tables and indexes that the rollout creates, as the database has them; and the ledger."""
        assert self.lab.postgres is not None
        wanted = ("enhanced_user_sessions", "session_analytics", "session_feature_flags")
        with psycopg.connect(self.lab.postgres.url) as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE tablename = ANY(%s) ORDER BY 1", (list(wanted),)
            ).fetchall()
            indexes = connection.execute(
                "SELECT indexname FROM pg_indexes WHERE tablename = ANY(%s) AND indexname LIKE 'idx_%%' ORDER BY 1",
                (list(wanted),),
            ).fetchall()
            exists = connection.execute("SELECT to_regclass('session_rollout.schema_migrations')").fetchone()
            ledger = (
                connection.execute(
                    "SELECT bundle || ' ' || version FROM session_rollout.schema_migrations ORDER BY 1"
                ).fetchall()
                if exists and exists[0]
                else []
            )
        return {name: [row[0] for row in rows] for name, rows in (("tables", tables), ("indexes", indexes), ("ledger", ledger))}
