"""Two replicas: one leads, the other stands by and is no less ready. `make ha-demo` kills and freezes the one that leads."""

import json
import signal

from lab.gauge import scraped
from lab.kube import Object
from lab.lab import LEASE, Lab
from lab.processes import free_port


def lease(lab: Lab) -> Object:
    return dict(lab.kube.get(LEASE)["spec"])


def test_who_stands_by_ends_at_once_when_told_to(lab: Lab) -> None:
    """In a container it is the first process, for which a SIGTERM that nobody handles is none: it would get the Lease and be killed."""
    with scraped(lab):
        leader = lab.start_operator()
        before = len(leader.log.read_bytes())
        port = free_port()
        other = lab.replica("session-rollout-1", port)
        try:
            lab.until(lambda: lab.readiness(port).startswith("standing by"), 30, "standing by")
            other.send(signal.SIGTERM)
            lab.within(lambda: not other.alive, 5, "its end")
            assert other.popen.returncode == 0, "it ended by itself"
            assert lease(lab)["holderIdentity"] == "session-rollout-0"
        finally:
            other.stop()
            leader.stop()
    lines = leader.log.read_bytes()[before:].decode().splitlines()
    assert [line for line in lines if not line.startswith("{")] == [], "every line is JSON"
    assert [line for line in lines if json.loads(line)["logger"] == "asyncio"] == [], "nothing was left open"


def test_the_other_stands_by_and_takes_over_at_once_when_the_leader_leaves(lab: Lab) -> None:
    with scraped(lab):
        leader = lab.start_operator()
        port = free_port()
        other = lab.replica("session-rollout-1", port)
        try:
            lab.until(lambda: "session-rollout-0" in lab.readiness(port), 30, "standing by")
            assert lab.readiness(lab.operator_port) == "ok"
            first = lease(lab)
            lab.until(lambda: lease(lab)["renewTime"] > first["renewTime"], 10, "a renewal")
            assert lease(lab)["acquireTime"] == first["acquireTime"], "a renewal is no acquisition"
            leader.stop()
            lab.within(lambda: lab.readiness(port) == "ok", 10, "the other leading: the Lease was given back")
            second = lease(lab)
            assert second["acquireTime"] > first["acquireTime"]
            assert (second["holderIdentity"], second["leaseTransitions"]) == (
                "session-rollout-1",
                first["leaseTransitions"] + 1,
            )
        finally:
            other.stop()
            leader.stop()
