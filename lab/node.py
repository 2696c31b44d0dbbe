"""The process node: registers as a Node and runs every Pod bound to it as local processes. The one imitation of the lab.

It has no isolation, no image and no network of its own. What a Pod can do here is in `lab.pod`.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import requests

from lab.kube import ApiError, Kube, Object
from lab.pod import TICK, Pod, now
from lab.pod_logs import serve_logs

NAME = "process-node"
LEASE_SECONDS = 5


class Node:
    """The node and all its Pods."""

    def __init__(self, config: Path, directory: Path) -> None:
        self.config, self.directory = config, directory
        self.kube = Kube(config)
        self.pods: dict[str, Pod] = {}
        self.stopping, self.vanished = threading.Event(), threading.Event()
        self.start_delay = 0.0
        self._lock = threading.Lock()
        directory.mkdir()
        self.logs = serve_logs(directory)

    def start(self) -> None:
        """Register and begin to run Pods."""
        self._register()
        for loop in (self._keep_lease, self._follow_pods, self._follow_config_maps):
            threading.Thread(target=self._forever, args=(loop,), daemon=True, name=f"node-{loop.__name__}").start()

    def stop(self) -> None:
        """End every process."""
        self.stopping.set()
        self.logs.shutdown()
        self.logs.server_close()
        for pod in list(self.pods.values()):
            pod.grace = 1.0
            pod.deleted.set()
        deadline = time.monotonic() + 10
        while self.pods and time.monotonic() < deadline:
            time.sleep(TICK)

    def vanish(self) -> None:
        """Stop reporting, as a lost node does; its processes keep running."""
        self.vanished.set()

    def forget(self, pod: Pod) -> None:
        """The Pod has ended."""
        with self._lock:
            self.pods.pop(pod.uid, None)

    def _register(self) -> None:
        capacity = {"cpu": "64", "memory": "64Gi", "pods": "500"}
        ready = {"type": "Ready", "status": "True", "reason": "ProcessNode", "message": "runs Pods as processes"}
        node = {
            "metadata": {"name": NAME, "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": NAME}},
            "status": {
                "capacity": capacity,
                "allocatable": capacity,
                "conditions": [{**ready, "lastHeartbeatTime": now(), "lastTransitionTime": now()}],
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self.logs.server_port}},
                "nodeInfo": dict.fromkeys(
                    [
                        "machineID",
                        "systemUUID",
                        "bootID",
                        "kernelVersion",
                        "osImage",
                        "containerRuntimeVersion",
                        "kubeletVersion",
                        "kubeProxyVersion",
                        "operatingSystem",
                        "architecture",
                    ],
                    "process",
                ),
            },
        }
        with contextlib.suppress(ApiError):
            self.kube.create("/api/v1/nodes", node)
        self.kube.merge(f"/api/v1/nodes/{NAME}/status", {"status": node["status"]})

    def _forever(self, loop: object) -> None:
        while not self.stopping.is_set():
            try:
                loop()  # type: ignore[operator]
            except (ApiError, requests.RequestException, OSError):
                self.stopping.wait(0.3)

    def _keep_lease(self) -> None:
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        while not self.stopping.is_set() and not self.vanished.is_set():
            moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            spec = {"holderIdentity": NAME, "leaseDurationSeconds": 40, "renewTime": moment}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}, "spec": spec}
            self.kube.apply(f"{path}/{NAME}", body)
            self.stopping.wait(LEASE_SECONDS)

    def _list_and_watch(self, path: str) -> Iterator[tuple[str, Object]]:
        listed = self.kube.get(path)
        for item in listed["items"]:
            yield "ADDED", item
        kube = Kube(self.config)  # a connection of its own: the stream keeps it busy
        for event in kube.watch(path, version=listed["metadata"]["resourceVersion"], seconds=300):
            if event["type"] == "ERROR" or self.stopping.is_set():
                return
            if event["type"] != "BOOKMARK":
                yield event["type"], event["object"]

    def _follow_pods(self) -> None:
        for kind, pod in self._list_and_watch("/api/v1/pods"):
            if not self.vanished.is_set():
                self._see(kind, pod)

    def _see(self, kind: str, pod: Object) -> None:
        metadata, uid = pod["metadata"], pod["metadata"]["uid"]
        known = self.pods.get(uid)
        if kind == "DELETED" or metadata.get("deletionTimestamp"):
            if known is not None:
                known.grace = float(metadata.get("deletionGracePeriodSeconds") or 0)
                known.deleted.set()
            elif kind != "DELETED" and pod["spec"].get("nodeName") in {None, NAME}:
                self.kube.delete(f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}", gracePeriodSeconds=0)
        elif known is None and pod["status"].get("phase") == "Pending":
            self._bind_and_run(pod)

    def _bind_and_run(self, pod: Object) -> None:
        metadata = pod["metadata"]
        if pod["spec"].get("nodeName") is None:
            target = {"apiVersion": "v1", "kind": "Node", "name": NAME}
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": metadata["name"]}, "target": target}
            try:
                self.kube.create(f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding", body)
            except ApiError as error:
                if error.code not in {404, 409}:
                    raise
                return
        elif pod["spec"]["nodeName"] != NAME:
            return
        running = Pod(self, pod)
        with self._lock:
            self.pods[running.uid] = running
        threading.Thread(target=running.run, daemon=False, name=f"pod-{running.name}").start()

    def _follow_config_maps(self) -> None:
        for kind, config_map in self._list_and_watch("/api/v1/configmaps"):
            metadata = config_map["metadata"]
            for pod in list(self.pods.values()):
                for volume in pod.volumes.values():
                    if (
                        kind != "DELETED"
                        and (pod.namespace, volume.config_map) == (metadata["namespace"], metadata["name"])
                        and volume.generation
                    ):
                        volume.changed(config_map)
