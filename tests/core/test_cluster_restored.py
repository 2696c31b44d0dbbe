"""The cluster is restored from a snapshot of etcd while the process lives on: versions go back, and nothing is refused for that.

Not here: a rollout that is restored by a backup tool, into a cluster that goes on (tests/controller/test_restored.py).
"""

import json
from datetime import timedelta
from typing import Any

from core.model.lives import Life
from core.model.replica import run

SECONDS = 30


def restored() -> Life:
    """A life whose cluster has lost its last minute."""
    life = Life("plain")
    life.live([("proceed", "step"), ("wait", 10)])
    server = life.cluster.server
    objects, version = dict(server.objects), server.version
    life.live([("wait", 30), ("proceed", "step"), ("wait", 10)])
    assert server.version > version
    server.objects, server.version = objects, version
    return life


def pass_time(life: Life) -> None:
    """Reconcile and sweep, as the process does."""
    for _ in range(SECONDS // 5):
        life.cluster.time += timedelta(seconds=5)
        run(life.cluster.replica.reconcile(life.cluster.keys[0]))


def flags(life: Life) -> dict[str, Any]:
    """The flags that are published."""
    return dict(json.loads(life.cluster.document or "{}")["flags"])


def test_emergency_after_a_restore_is_carried_out() -> None:
    """Within the time that a server may be behind."""
    life = restored()
    life.cluster.request("EmergencyDisable")
    pass_time(life)
    assert flags(life)["alpha"]["metadata"]["emergencyDisabled"] is True


def test_document_after_a_restore_is_read() -> None:
    """R8: its version is lower than the one in memory, and what it says is not what the process has written."""
    life = restored()
    state = life.cluster.replica.memory.of(life.cluster.keys[0])
    known = state.document_version
    run(life.cluster.replica.inbox.sweep())
    assert state.document_version < known
    pass_time(life)
    assert state.document is not None
