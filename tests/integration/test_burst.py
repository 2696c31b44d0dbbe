"""Many rollouts created at once: `python -m bench.burst` measures five hundred, this test holds a part of that."""

from bench.burst import LEASE_SECONDS, burst
from lab.lab import Lab

COUNT = 100


def test_burst_of_rollouts_costs_neither_the_lease_nor_an_emergency(lab: Lab) -> None:
    """No restart, every rollout is evaluated in time, and an emergency does not wait for new rollouts."""
    process = lab.start_operator()
    try:
        seen = burst(lab, COUNT, 5, 300)
        assert process.alive
        assert seen.restarts == 0
        assert len(seen.judged) == COUNT
        assert max(seen.judged.values()) - seen.created < seen.verdict_limit
        assert seen.longest_renewal < LEASE_SECONDS
        assert 0 < seen.action < 2 * seen.action_limit
    finally:
        process.stop()
        lab.kubectl("delete", "sro", "--all", "--timeout=180s")
