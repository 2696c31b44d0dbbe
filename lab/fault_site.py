"""Operators behind a fault proxy: an account of their own, whose rights a test may take away, and a scripted Prometheus.

Every operator has a Lease of its own, so that two of them both lead. Whoever ends an operator, a test or a planned fault,
`keep_running` starts it again, as the kubelet would.
"""

import json
import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from lab import reasons_only
from lab.cluster import kubeconfig
from lab.fault_proxy import FaultProxy
from lab.kube import ApiError, Kube, Object
from lab.lab import IMAGE, OPERATOR_NAMESPACE, ROOT, Lab
from lab.processes import Process, free_port
from lab.recorder import KEY
from lab.scripted_prometheus import ScriptedPrometheus

ACCOUNT = "faults"
FLAG_SET = "f"  # one in each namespace
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLE = f"{RBAC}/clusterroles/{ACCOUNT}"
LEASES = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}
PROVIDER: Object = {"timeout": "3s", "lookbackDelta": "1s", "scrapeInterval": "1s", "ruleInterval": "1s"}


@dataclass
class DocumentWatch:
    """Follows the flag documents of all namespaces in the API server itself; each with its time (monotonic seconds)."""

    lab: Lab
    documents: dict[str, list[tuple[float, Object]]] = field(default_factory=lambda: defaultdict(list))
    _stopped: bool = False

    def start(self) -> None:
        """Begin; it ends with the process or with `stop`."""
        threading.Thread(target=self._follow, daemon=True).start()

    def stop(self) -> None:
        """Record no more."""
        self._stopped = True

    def _follow(self) -> None:
        kube, query = Kube(self.lab.kubeconfig), {"fieldSelector": f"metadata.name={FLAG_SET}-flags"}
        while not self._stopped:
            try:
                for event in kube.watch("/api/v1/configmaps", seconds=600, **query):
                    if self._stopped:
                        return
                    self._see(event)
            except (ApiError, OSError):
                continue

    def _see(self, event: Object) -> None:
        config_map = event["object"]
        if event["type"] in {"ADDED", "MODIFIED"} and KEY in (config_map.get("data") or {}):
            namespace, text = config_map["metadata"]["namespace"], config_map["data"][KEY]
            self.documents[namespace].append((time.monotonic(), json.loads(text)))


@dataclass
class Operator:
    """One operator: its port, its kubeconfig and its process."""

    name: str
    port: int
    config: Path
    process: Process | None = None


class FaultSite:
    """Use as a context manager, around a lab with the project installed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory / f"faults-{time.time_ns()}"
        self.directory.mkdir()
        self.proxy = FaultProxy(lab.kube, self.directory / "requests.jsonl")
        self.prometheus = ScriptedPrometheus()
        self.operators: dict[str, Operator] = {}
        self.watch = DocumentWatch(lab)
        self.namespaces: list[str] = []

    def __enter__(self) -> Self:
        self.proxy.__enter__()
        self.prometheus.__enter__()
        self.lab.namespace(ACCOUNT)
        self._account()
        self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        for operator in self.operators.values():
            if operator.process is not None:
                operator.process.stop()
        self.clear()
        self.watch.stop()
        self.prometheus.__exit__()
        self.proxy.__exit__()

    # --- the account

    def _account(self) -> None:
        """A ServiceAccount with the rights that are shipped, outside of the namespace whose requests are audited."""
        lab = self.lab
        lab.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": ACCOUNT}})
        self.grant(*self.shipped())
        subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": ACCOUNT}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ACCOUNT}
        body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": ACCOUNT}}
        lab.kube.apply(f"{RBAC}/clusterrolebindings/{ACCOUNT}", {**body, "roleRef": reference, "subjects": [subject]})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 36000}}
        path = f"/api/v1/namespaces/{ACCOUNT}/serviceaccounts/{ACCOUNT}/token"
        self.token = lab.kube.create(path, request)["status"]["token"]

    def shipped(self) -> list[Object]:
        """The rules of the operator's own ClusterRole."""
        documents = yaml.safe_load_all((ROOT / "manifests" / "overlays" / "cluster" / "objects.yaml").read_text())
        [role] = [
            each for each in documents if each["kind"] == "ClusterRole" and each["metadata"]["name"] == OPERATOR_NAMESPACE
        ]
        return list(role["rules"])

    def grant(self, *rules: Object) -> None:
        """Give the account these rights and Leases, and no other."""
        body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": ACCOUNT}}
        self.lab.kube.apply(ROLE, {**body, "rules": [*rules, LEASES]})

    # --- operators

    def start(self, name: str, **settings: Any) -> Operator:
        """Start one more operator, whose Lease is in a namespace of its own, and wait until it leads."""
        self.lab.namespace(f"faults-{name.lower()}")
        config = self.directory / f"{name}.kubeconfig"
        document = kubeconfig(self.proxy.listen(name), b"", {"token": self.token}, ACCOUNT)
        del document["clusters"][0]["cluster"]["certificate-authority-data"]  # the proxy is plain HTTP
        config.write_text(json.dumps(document))
        provider = {"url": self.prometheus.url, **PROVIDER}
        profiles = {"default": {"image": IMAGE, "serviceAccount": "default"}}
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"prometheus": {"default": provider}, "profiles": profiles, **settings}))
        operator = Operator(name, free_port(), config)
        self.operators[name] = operator
        self.keep_running()
        self.lab.until(lambda: self.leads(operator), 60, f"operator {name} leading")
        return operator

    def leads(self, operator: Operator) -> bool:
        """Whether it is ready and leads, after `keep_running`."""
        self.keep_running()
        return self.lab.readiness(operator.port) == "ok"

    def keep_running(self) -> None:
        """Start every operator that has ended."""
        for operator in self.operators.values():
            if operator.process is None or not operator.process.alive:
                operator.process = self._process(operator)
                self.proxy.pids[operator.name] = operator.process.popen.pid

    def _process(self, operator: Operator) -> Process:
        module = ("session_rollout.main", "--config", str(self.directory / f"{operator.name}.yaml"))
        environment = {
            "KUBECONFIG": str(operator.config),
            "POD_NAME": f"operator-{operator.name.lower()}",
            "POD_NAMESPACE": f"faults-{operator.name.lower()}",
            "SESSION_ROLLOUT_PORT": str(operator.port),
            "PYTHONPATH": os.pathsep.join((str(ROOT / "operator"), str(ROOT))),
        }
        return self.lab.processes.start(f"operator-{operator.name}", reasons_only.python_module(*module), env=environment)

    # --- rollouts, each in a namespace of its own

    def namespace(self, name: str) -> None:
        """A namespace for one rollout, which `clear` empties."""
        self.lab.kube.create("/api/v1/namespaces", {"metadata": {"name": name}})
        self.namespaces.append(name)

    def clear(self) -> None:
        """Delete the rollouts of all namespaces, whatever holds them, so that no later operator has them."""
        for namespace in self.namespaces:
            path = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{namespace}/sessionrollouts"
            for rollout in self.lab.kube.get(path)["items"]:
                name = rollout["metadata"]["name"]
                self.lab.kube.delete(f"{path}/{name}")
                if self.lab.kube.find(f"{path}/{name}") is not None:
                    self._release(f"{path}/{name}")
            self.lab.kube.delete(f"/api/v1/namespaces/{namespace}")
        self.namespaces.clear()

    def _release(self, path: str) -> None:
        try:
            self.lab.kube.merge(path, {"metadata": {"finalizers": None}})
        except ApiError as error:
            if error.code != 404:
                raise
