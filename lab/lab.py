"""`Lab`: brings all parts up side by side, hands out what a caller needs, and takes everything down again."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import yaml

from lab import realnode, reasons_only, sources
from lab.cluster import LOOPBACK, Cluster, kubeconfig
from lab.kube import ApiError, Kube, Object
from lab.node import Node
from lab.processes import Process, Processes, free_port
from lab.servers import INTERVALS, Postgres, Prometheus

ROOT = Path(__file__).parents[1]
OPERATOR_NAMESPACE = "session-rollout"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/session-rollout"
IMAGE = "session-rollout:lab"
PATIENCE = 4  # how much longer than on an idle machine something may take that is not promised
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 0.5  # between two looks at what is awaited


class KubectlFailed(Exception):
    """kubectl failed; the message is kubectl's own."""


def until(condition: Callable[[], Any], seconds: float, what: str = "the condition") -> Any:
    """Wait for a condition, which takes no longer than this on an idle machine; its value. Raises TimeoutError."""
    return within(condition, seconds * PATIENCE, what)


def within(condition: Callable[[], Any], seconds: float, what: str = "the condition") -> Any:
    """Wait for a condition that is promised to hold within this time, without that of the looks; its value. Raises TimeoutError."""
    waited, pause = 0.0, FIRST_PAUSE_SECONDS
    while not (value := condition()):
        if waited > seconds:
            raise TimeoutError(f"{what} did not hold within {seconds:.0f} s")
        time.sleep(pause)
        waited += pause
        pause = min(pause * 1.2, LONGEST_PAUSE_SECONDS)  # to look costs what the others wait for
    return value


def percent_of(document: Object, feature: str) -> float:
    """Share of users in percent that a flag document gives a feature to, read from its rules; groups and overrides aside."""
    *_, before_last, last = document["flags"][feature]["targeting"]["if"]
    match before_last:
        case {"fractional": [_, [_, int(on)], [_, int(off)]]}:
            return 100 * on / (on + off)
    return 100.0 if last == "on" else 0.0


class Lab:
    """Use as a context manager; `with Lab() as lab`."""

    def __init__(self, *, database: bool = True, metrics: bool = True, real_node: bool | None = None) -> None:
        self._real = os.environ.get("LAB_NODE") == "containerd" if real_node is None else real_node
        self.host = realnode.ADDRESS if self._real else LOOPBACK
        self.directory = Path(tempfile.mkdtemp(prefix="session-rollout-lab-"))
        self.directory.chmod(0o755)  # PostgreSQL's unprivileged user must reach its part
        self.logs = self._sub("logs")
        self.processes = Processes(self.logs)
        self.postgres: Postgres | None = None
        self.prometheus: Prometheus | None = None
        self.node: Node | None = None
        self.real_node: realnode.RealNode | None = None
        self.operator: Process | None = None
        self.operator_port = free_port()
        self.operator_starts = 0
        self.targets: dict[str, int | str] = {"operator": self.operator_port}
        self._database, self._metrics = database, metrics

    def _sub(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir()
        return path

    def __enter__(self) -> Self:
        start = time.monotonic()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        sources.say(f"ready in {time.monotonic() - start:.1f} s ({self.directory})")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if value is not None and not isinstance(value, SystemExit | KeyboardInterrupt):
            sources.say("something failed; the last lines of the logs:")
            for log in sorted(self.logs.glob("*.log")):
                print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-12:]), file=sys.stderr)
        self.stop()

    def _start(self) -> None:
        # Everything is started at once and waited for afterwards.
        if named := os.environ.get("LAB_KUBECONFIG"):
            sources.say(f"control plane from LAB_KUBECONFIG ({named})")
            self.kubeconfig = self._existing(Path(named))
        else:
            if self._real:
                self.real_node = realnode.RealNode(self._sub("node"), self.processes)
                self.real_node.prepare()
            self.cluster = Cluster(self._sub("cluster"), self.processes, self.host)
            self.cluster.start_etcd()
            api_server = self.cluster.start_api_server()
            self.kubeconfig = self.cluster.kubeconfig
        if self._database:
            self.postgres = Postgres(self._sub("postgres"), self.processes, self.host)
            initdb = self.postgres.initialise()
        if self._metrics:
            self.prometheus = Prometheus(self._sub("prometheus"), self.processes, self.host)
            self.prometheus.targets(self.targets)
            self.prometheus.start()
        if self.postgres is not None:
            initdb.popen.wait(60)
            server = self.postgres.start()
            self.processes.wait(server, self.postgres.ready)
        if "LAB_KUBECONFIG" not in os.environ:
            self.processes.wait(api_server, self.cluster.ready)
            self.cluster.start_controller_manager()
        self.kube = Kube(self.kubeconfig)
        if self.real_node is not None:
            self.real_node.start(self.cluster)
        elif "LAB_KUBECONFIG" not in os.environ:
            self.node = Node(self.kubeconfig, self._sub("pods") / "node")
            self.node.start()
        if self.prometheus is not None and self.prometheus.process is not None:
            self.processes.wait(self.prometheus.process, self.prometheus.ready)

    def _existing(self, path: Path) -> Path:
        flat = subprocess.run(
            [self.kubectl_path, "--kubeconfig", str(path), "config", "view", "--raw", "--minify", "--flatten", "-o", "json"],
            check=True,
            capture_output=True,
        )
        target = self.directory / "existing.kubeconfig"
        target.write_bytes(flat.stdout)
        return target

    def stop(self) -> None:
        """End every process and remove every file."""
        if self.node is not None:
            self.node.stop()
        if self.real_node is not None:
            self.real_node.stop()
        self.processes.stop()
        if self.real_node is not None:
            self.real_node.clean()
        if "LAB_KEEP" not in os.environ:
            shutil.rmtree(self.directory, ignore_errors=True)

    # --- the cluster as its users see it

    @property
    def kubectl_path(self) -> str:
        """The kubectl of the lab's dependency group, or the machine's."""
        ours = Path(sys.executable).parent / "kubectl"
        return str(ours) if ours.exists() else "kubectl"

    def kubectl(self, *argv: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator."""
        argv = (self.kubectl_path, "--kubeconfig", str(self.kubeconfig), *argv)
        done = subprocess.run(argv, input=stdin, text=True, capture_output=True, check=False)
        if check and done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(argv[3:])}: {done.stderr.strip()}")
        return done

    def namespace(self, name: str) -> None:
        """Create a namespace and wait until Pods can be created in it."""
        with contextlib.suppress(ApiError):
            self.kube.create("/api/v1/namespaces", {"metadata": {"name": name}})
        self.until(lambda: self.kube.find(f"/api/v1/namespaces/{name}/serviceaccounts/default"), 30)

    def until(self, condition: Any, seconds: float, what: str = "the condition") -> Any:
        """Wait for a condition; its value. Raises TimeoutError."""
        return until(condition, seconds, what)

    def within(self, condition: Any, seconds: float, what: str = "the condition") -> Any:
        """Wait for a condition that is promised to hold within this time; its value. Raises TimeoutError."""
        return within(condition, seconds, what)

    def install(self) -> None:
        """Apply what the project ships for a whole cluster, but the Deployment: here the operator is a process."""
        shipped = yaml.safe_load_all(self.kubectl("kustomize", str(ROOT / "manifests" / "overlays" / "cluster")).stdout)
        for document in sorted(shipped, key=lambda document: document["kind"] not in {"CustomResourceDefinition", "Namespace"}):
            if document["kind"] not in {"Deployment", "ConfigMap"}:
                self.apply(document)
        for plural in ("sessionrollouts", "sessionrolloutactions"):
            served = f"/apis/sessionrollout.dev/v1alpha1/{plural}"
            self.until(lambda served=served: self.kube.find(served), 30, f"{plural} being served")

    def apply(self, document: Object, namespace: str | None = None) -> Object:
        """Server-side apply of any object."""
        return self.kube.apply(self.path_of(document, namespace), document)

    def database_secret(self, name: str, url: str, namespace: str = "default") -> None:
        """A Secret that rollouts may name: it has the label that a policy of the chart requires."""
        metadata = {"name": name, "labels": {"sessionrollout.dev/database": "allowed"}}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"url": url}}, namespace)

    def pod_address(self, namespace: str, labels: str, seconds: float = 60) -> str:
        """Address of the one Pod with these labels, once it is Ready."""

        def ready() -> str:
            for pod in self.kube.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=labels)["items"]:
                conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
                if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
                    return str(pod["status"]["podIP"])
            return ""

        return str(self.until(ready, seconds, f"a Pod {labels} being ready"))

    @property
    def pods(self) -> dict[str, Any]:
        """What runs on the node, of either kind; each can be killed."""
        node = self.node or self.real_node
        return {} if node is None else dict(node.pods)

    def path_of(self, document: Object, namespace: str | None = None) -> str:
        """URL path of an object."""
        plural = _PLURALS.get(document["kind"], document["kind"].lower() + "s")
        version = document["apiVersion"]
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        space = document["metadata"].get("namespace") or namespace
        scope = f"/namespaces/{space}" if space and document["kind"] not in _CLUSTER_KINDS else ""
        return f"{root}{scope}/{plural}/{document['metadata']['name']}"

    def rollout(self, name: str, namespace: str = "default") -> Object:
        """The SessionRollout as it is now."""
        return self.kube.get(f"/apis/sessionrollout.dev/v1alpha1/namespaces/{namespace}/sessionrollouts/{name}")

    def document(self, flag_set: str, namespace: str = "default") -> Object:
        """The flag document as it is in the cluster; empty when nothing was published."""
        config_map = self.kube.find(f"/api/v1/namespaces/{namespace}/configmaps/{flag_set}-flags")
        return dict(json.loads(config_map["data"]["flags.flagd.json"])) if config_map else {}

    def published(
        self, flag_set: str, holds: Callable[[Object], Any], seconds: float, what: str, namespace: str = "default"
    ) -> Object:
        """The flag document, once this holds for it.

        The status is written before the document, so an audience in `status.current` may not be published yet.
        """

        def document() -> Object:
            document = self.document(flag_set, namespace)
            return document if document and holds(document) else {}

        return dict(until(document, seconds, f"the flag document of {flag_set}: {what}"))

    def act(self, action: str, rollout: str, namespace: str = "default", **spec: Any) -> str:
        """Create a SessionRolloutAction with kubectl, as a user would; its name."""
        body = {
            "apiVersion": "sessionrollout.dev/v1alpha1",
            "kind": "SessionRolloutAction",
            "metadata": {"generateName": f"{rollout}-", "namespace": namespace},
            "spec": {"rollout": rollout, "action": action, **spec},
        }
        created = self.kubectl("create", "-f", "-", "-o", "name", stdin=json.dumps(body))
        return created.stdout.strip().rsplit("/", 1)[-1]

    # --- the operator

    def write_settings(self, **override: Any) -> Path:
        """The operator's configuration file."""
        settings = {
            "prometheus": {
                "default": {
                    "url": self.prometheus.url if self.prometheus else "http://127.0.0.1:9",
                    "timeout": "3s",
                    **INTERVALS,
                }
            },
            "profiles": {"default": {"image": IMAGE, "serviceAccount": "default"}},
            "serviceAddress": "127.0.0.1:{port}",  # the process node has no network of its own, and no DNS
            **override,
        }
        path = self.directory / "operator.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    def operator_kubeconfig(self) -> Path:
        """A kubeconfig with the operator's own ServiceAccount token: the RBAC that is shipped, no more."""
        account = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/serviceaccounts/session-rollout"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 36000}}
        token = self.kube.create(f"{account}/token", request)["status"]["token"]
        ours = json.loads(self.kubeconfig.read_text())["clusters"][0]["cluster"]
        ca = base64.b64decode(ours["certificate-authority-data"])
        path = self.directory / "operator.kubeconfig"
        path.write_text(json.dumps(kubeconfig(ours["server"], ca, {"token": token}, OPERATOR_NAMESPACE)))
        path.chmod(0o600)
        return path

    def configure(self, **settings: Any) -> None:
        """What operators start with: the ServiceAccount's token, and the configuration file."""
        if not hasattr(self, "operator_config"):
            self.operator_config = self.operator_kubeconfig()
        self.settings_path = self.write_settings(**settings)

    def start_operator(self, *, wait: bool = True, **settings: Any) -> Process:
        """Start the operator, or start it again; every start has the same identity, as a restarted container has."""
        if self.operator_starts == 0 or settings:
            self.configure(**settings)
        self.operator_starts += 1
        self.operator = self.replica("session-rollout-0", self.operator_port)
        if wait:
            self.processes.wait(self.operator, lambda: self.readiness(self.operator_port) == "ok")
        return self.operator

    def replica(self, identity: str, port: int) -> Process:
        """One operator process under this identity, as a Pod has it by its name."""
        return self.processes.start(
            "operator",
            reasons_only.python_module("session_rollout.main", "--config", str(self.settings_path)),
            env={
                "KUBECONFIG": str(self.operator_config),
                "POD_NAME": identity,
                "POD_NAMESPACE": OPERATOR_NAMESPACE,
                "SESSION_ROLLOUT_PORT": str(port),
                "PYTHONPATH": os.pathsep.join((str(ROOT / "operator"), str(ROOT))),
            },
        )

    def readiness(self, port: int) -> str:
        """Readiness of the operator on this port: `ok` when it leads; empty when it does not respond, or is not ready."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def operator_metrics(self) -> str:
        """What the operator exports."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.operator_port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def reconciles(self, name: str, count: int, namespace: str = "default", seconds: float = 60) -> None:
        """Wait until the operator has begun and ended so many reconciles of a rollout; the effects of all but the last are done.

        A test that nothing happens waits for these instead of for a time.
        """
        line = rf'^sessionrollout_last_reconcile_timestamp_seconds{{name="{name}",namespace="{namespace}"}} (\S+)$'
        seen: set[str] = set()

        def enough() -> bool:
            seen.update(re.findall(line, self.operator_metrics(), re.MULTILINE))
            return len(seen) >= count + 2  # the time before, and that of a reconcile that may have begun before

        until(enough, seconds, f"{count} reconciles of {name}")


_PLURALS = {
    "NetworkPolicy": "networkpolicies",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}
_CLUSTER_KINDS = {
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Node",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM into SystemExit and SIGINT into KeyboardInterrupt, also where a shell had it ignored, so that all is cleaned up."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, end),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
