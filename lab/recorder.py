"""Watches a run from outside: every published flag document and every status, with the time at which it was seen."""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.kube import ApiError, Kube, Object
from lab.lab import Lab

KEY = "flags.flagd.json"


@dataclass(frozen=True)
class Published:
    """One flag document as it was in the cluster."""

    seen: float
    sha256: str
    document: Object


@dataclass(frozen=True)
class Status:
    """One status as it was in the cluster."""

    seen: float
    version: str
    status: Object
    size: int


class Recorder:
    """Follows one rollout in a thread per kind."""

    def __init__(self, lab: Lab, namespace: str, name: str, on_status: Callable[[Status], None] = lambda _: None) -> None:
        self.documents: list[Published] = []
        self.statuses: list[Status] = []
        self._lab, self._namespace, self._name, self._on_status = lab, namespace, name, on_status
        self._stopped = threading.Event()
        rollouts = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{namespace}/sessionrollouts"
        for path, object_name, see in (
            (f"/api/v1/namespaces/{namespace}/configmaps", f"{name}-flags", self._see_document),
            (rollouts, name, self._see_status),
        ):
            threading.Thread(target=self._follow, args=(path, object_name, see), daemon=True).start()

    def stop(self) -> None:
        """Record no more."""
        self._stopped.set()

    @property
    def last(self) -> Object:
        """The newest status; empty before the first."""
        return self.statuses[-1].status if self.statuses else {}

    def _follow(self, path: str, name: str, see: Callable[[Object], None]) -> None:
        kube, version = Kube(self._lab.kubeconfig), ""
        while not self._stopped.is_set():
            with contextlib.suppress(ApiError, OSError):
                for event in kube.watch(path, version=version, seconds=60, fieldSelector=f"metadata.name={name}"):
                    if event["type"] == "ERROR":
                        version = ""
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] in {"ADDED", "MODIFIED"} and not self._stopped.is_set():
                        see(event["object"])

    def _see_document(self, config_map: Object) -> None:
        text = (config_map.get("data") or {}).get(KEY, "{}")
        digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        if not self.documents or self.documents[-1].sha256 != digest:
            self.documents.append(Published(time.time(), digest, json.loads(text)))

    def _see_status(self, rollout: Object) -> None:
        status: dict[str, Any] = rollout.get("status", {})
        if status and (not self.statuses or self.statuses[-1].status != status):
            size = len(json.dumps(status))
            seen = Status(time.time(), rollout["metadata"]["resourceVersion"], status, size)
            self.statuses.append(seen)
            self._on_status(seen)
