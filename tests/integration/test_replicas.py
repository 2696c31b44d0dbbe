"""Two replicas: one leads, the other stands by and is no less ready. `make ha-demo` kills and freezes the one that leads."""

from lab.gauge import scraped
from lab.lab import Lab
from lab.processes import free_port


def test_the_other_stands_by_and_takes_over_at_once_when_the_leader_leaves(lab: Lab) -> None:
    with scraped(lab):
        leader = lab.start_operator()
        port = free_port()
        other = lab.replica("session-rollout-1", port)
        try:
            lab.until(lambda: lab.readiness(port) == "standing by: session-rollout-0 leads", 30, "standing by")
            assert lab.readiness(lab.operator_port) == "ok"
            leader.stop()
            lab.until(lambda: lab.readiness(port) == "ok", 10, "the other leading: the Lease was given back")
        finally:
            other.stop()
            leader.stop()
