"""What several commands share."""

from session_rollout.adapters.kubectl import Answer, Kubectl
from session_rollout.records.codec import RECORD_LABEL


def start_reading_records(kubectl: Kubectl, name: str) -> Answer:
    """Start to fetch the decision records of a rollout; the answer is read later."""
    return kubectl.list("configmaps", "-l", f"{RECORD_LABEL}={name}")
