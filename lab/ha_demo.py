"""`make ha-demo`: two replicas, and the one that leads is killed ten times and frozen once while the rollout runs.

Each killed replica starts again under a new name, as a new Pod does, so that the other replica always takes over. The
frozen replica continues after a minute, finds that it is no longer the leader, and ends without a write.
"""

import itertools
import signal
import sys
import time
from datetime import datetime

from rich.console import Console

from lab.demo import Demo
from lab.lab import LEASE, Lab, ended_by_signals
from lab.processes import Process, StartFailed, free_port

KILLS = 10
FROZEN_SECONDS = 60.0
TAKEOVER_LIMIT = 20.0


class HaDemo(Demo):
    """The demo with two replicas."""

    def install(self) -> None:
        self.lab.install()
        self.lab.configure()
        self.replicas: dict[str, tuple[Process, int]] = {}
        self.takeovers: list[float] = []
        for _ in range(2):
            self._start()
        self.lab.until(self.leader, 30, "a leader")

    def _start(self) -> None:
        name, port = f"session-rollout-{self.lab.operator_starts}", free_port()
        self.lab.operator_starts += 1
        self.replicas[name] = (self.lab.replica(name, port), port)
        self.lab.until(lambda: self.lab.readiness(port), 30, f"{name} leading or on standby")
        self.lab.targets[f"operator-{name}"] = port
        assert self.lab.prometheus is not None
        self.lab.prometheus.targets(self.lab.targets)

    def leader(self) -> str:
        """The replica that leads and reports it; empty when there is none."""
        holder = str((self.lab.kube.find(LEASE) or {"spec": {}})["spec"].get("holderIdentity", ""))
        return holder if holder in self.replicas and self.lab.readiness(self.replicas[holder][1]) == "ok" else ""

    def _next_leader(self, before: str, since: float) -> None:
        self.lab.within(lambda: self.leader() not in {"", before}, 60, f"a leader after {before}")
        self.takeovers.append(time.monotonic() - since)
        self.print_line(f"--- {self.leader()} leads after {self.takeovers[-1]:.1f} s")

    def lead_and_die(self) -> None:
        """The whole story."""
        self._meanwhile()
        freeze = KILLS // 2
        for number in range(KILLS):
            self._kill_leader()
            if number == freeze:
                self._freeze_leader()
            time.sleep(self.random.uniform(1.0, 5.0))
        self.wait(self.ended, 600, "an outcome")
        self.prove_promoted()
        self._prove_takeovers()

    def _kill_leader(self) -> None:
        before = self.leader()
        process, _ = self.replicas.pop(before)
        process.kill()
        since = time.monotonic()
        self.print_line(f"--- SIGKILL of {before}, which leads")
        del self.lab.targets[f"operator-{before}"]
        self._start()
        self._next_leader(before, since)

    def _freeze_leader(self) -> None:
        before = self.leader()
        process, _ = self.replicas[before]
        process.send(signal.SIGSTOP)
        since = time.monotonic()
        self.print_line(f"--- SIGSTOP of {before}, which leads")
        self._next_leader(before, since)
        time.sleep(max(0.0, FROZEN_SECONDS - (time.monotonic() - since)))
        process.send(signal.SIGCONT)
        self.print_line(f"--- SIGCONT of {before} after {FROZEN_SECONDS:.0f} s")
        self.lab.within(lambda: not process.alive, 15, f"{before} finding that it leads no longer")
        self.replicas.pop(before)
        self._start()

    def _watch_rows(self) -> None:
        """There may be no leader while rows are copied, and then no status has their progress."""

    def _prove_progress(self) -> None:
        """As above."""

    def _prove_takeovers(self) -> None:
        proof, worst = self.proof, max(self.takeovers)
        proof.check(
            len(self.takeovers) == KILLS + 1, f"{KILLS} SIGKILLs of the leader, and one SIGSTOP for {FROZEN_SECONDS:.0f} s"
        )
        text = f"takeover after {sorted(self.takeovers)[len(self.takeovers) // 2]:.1f} s (median), {worst:.1f} s (worst, limit {TAKEOVER_LIMIT:.0f} s)"
        proof.check(worst <= TAKEOVER_LIMIT, text)
        revisions = [published.document["metadata"]["revision"] for published in self.recorder.documents]
        backward = sum(later < earlier for earlier, later in itertools.pairwise(revisions))
        proof.check(backward == 0, f"{backward} of {len(revisions)} flag documents went back to an earlier revision")
        times = [
            datetime.fromisoformat(recorded.status["history"][-1]["time"])
            for recorded in self.recorder.statuses
            if recorded.status.get("history")
        ]
        proof.check(times == sorted(times), f"{len(times)} statuses, none with an older history than the one before")


def main() -> None:
    """Entry point."""
    console, seed = Console(highlight=False), int(time.time())
    with ended_by_signals():
        try:
            with Lab() as lab:
                demo = HaDemo(lab, console, seed)
                demo.set_up()
                demo.lead_and_die()
                demo.recorder.stop()
        except (StartFailed, TimeoutError) as error:
            sys.exit(f"ha-demo: {error}")
    sys.exit(demo.proof.report(console, f"seed {seed}"))


if __name__ == "__main__":
    main()
