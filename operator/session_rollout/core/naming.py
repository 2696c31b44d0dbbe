"""Deterministic names of what the operator creates: a crash between two writes finds its own object again."""

import hashlib
from typing import Final

from session_rollout.api.rollout import SessionRollout

JOB_NAME_LENGTH: Final = 63


def job_name(rollout: SessionRollout, what: str, identity: str, *, kind: str = "") -> str:
    """`<rollout>-<what>[-<kind>]-<hash>`, at most 63 characters; the same identity gives the same Job."""
    digest = hashlib.sha256(f"{rollout.uid}/{identity}".encode()).hexdigest()[:10]
    tail = f"-{kind}-{digest}" if kind else f"-{digest}"
    return f"{rollout.name}-{what}"[: JOB_NAME_LENGTH - len(tail)].rstrip("-") + tail
