"""Decision records of a rollout in the lab, read by the code that the command line reads them with."""

from lab.lab import Lab
from session_rollout.records import reader
from session_rollout.records.codec import RECORD_LABEL
from session_rollout.records.record import Record


def decisions(lab: Lab, name: str, namespace: str = "default") -> list[Record]:
    """Every recorded decision about a rollout, oldest first."""
    slots = lab.kube.get(f"/api/v1/namespaces/{namespace}/configmaps", labelSelector=f"{RECORD_LABEL}={name}")["items"]
    return reader.records(slots)
