"""`make demo`: the whole rollout of session persistence on the lab, with proofs at its end.

    make demo                          four phases to Promoted
    make demo FAULT=autoReconnection   the feature harms its users: automatic rollback
    make demo KILL=1                   the operator is killed at random moments, the end is the same
    make demo OUTAGE=1                 Prometheus is down for 20 s, then returns NaN for 20 s; an emergency meanwhile

Exit 0 only when every check held; the figures are the last lines. The proofs are in `lab.demo_proofs`.
"""

import argparse
import sys
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from lab import gitops, rights
from lab.demo_base import COPY
from lab.demo_proofs import KILLS_MOST, DemoProofs
from lab.kube import Object
from lab.lab import Lab, ended_by_signals
from lab.overrides import Overrides
from lab.processes import StartFailed
from lab.proofs import Proof
from lab.session_persistence import LEGACY_ROWS, NAME, NAMESPACE
from lab.sessions import difference

KILLS_WANTED = 20
OUTAGE_SECONDS = 20.0
FAULT_SHARE = 0.3


class Demo(DemoProofs):
    """The stories."""

    def promote(self, seconds: float = 420) -> None:
        """The whole rollout to Promoted, and the proof."""
        self._meanwhile()
        self.wait(self.ended, seconds, "an outcome")
        self.prove_promoted()

    def _meanwhile(self) -> None:
        """What happens beside the rollout."""
        self.overrides = Overrides(self.lab, self.application)
        self.lab.act("Verify", NAME, NAMESPACE, ttl="1s")  # answered, and then removed by the operator
        for story in (
            self.approve_when_awaited,
            self.overrides.write,
            self._kill_migration,
            self._watch_rows,
            self._compare_later,
            self.git.watch,
        ):
            threading.Thread(target=story, daemon=True).start()

    def _kill_migration(self) -> None:
        """SIGKILL of the Pod that copies rows, in the middle."""
        self.wait(lambda: 0 < self._copied() < 0.7 * LEGACY_ROWS, 600, "rows being copied")
        before = self._copied()
        for pod in list(self.lab.pods.values()):
            if f"{COPY}-up" in pod.name:
                pod.kill()
                self.print_line(f"--- SIGKILL of Pod {pod.name} at {before:,} rows")

    def _watch_rows(self) -> None:
        """What the user sees of the rows that are copied."""
        self.wait(lambda: 0 < self._copy().get("done", 0) < 0.7 * LEGACY_ROWS, 600, "rows being copied, in status")
        self.wide_output = self.lab.kubectl("get", "sro", NAME, "-n", NAMESPACE, "-o", "wide").stdout

    def _compare_later(self) -> None:
        """Both sides at one moment, while the application writes and changes are followed."""
        assert self.lab.postgres is not None
        last = self.object["spec"]["phases"][-1]["name"]
        self.wait(lambda: self.recorder.last.get("current", {}).get("phase") == last, 400, "the last phase")
        self.differing = difference(self.lab.postgres.url)

    def kill(self) -> None:
        """The same, while the operator is killed again and again."""
        kills = 0
        self._meanwhile()
        while not self.ended() and kills < KILLS_MOST:
            time.sleep(self.random.uniform(1.0, 9.0))
            if self.lab.operator is not None and not self.ended():
                self.lab.operator.kill()
                kills += 1
                # From this thread: a child ends with the thread that started it.
                self.lab.start_operator(wait=False)
        self.wait(self.ended, 420, "an outcome")
        self.prove_promoted()
        self.proof.check(kills >= KILLS_WANTED, f"{kills} SIGKILLs of the operator at random moments")

    def fault(self, feature: str) -> None:
        """A feature that harms its users."""
        self.application.faults(**{feature: {"errors": FAULT_SHARE}})
        breach = self._first_breach()
        self.wait(self.ended, 60, "an outcome")
        phase = next(phase for phase in self.object["spec"]["phases"] if feature in phase["features"])
        self._prove_rolled_back(phase, breach)

    def _first_breach(self) -> float:
        """When Prometheus first returned 1 % or more: the bound of the guard is below 1 %."""
        while not (self._query("session_error_rate") or 0) >= 0.01:
            if self.ended():
                raise TimeoutError("the rollout ended before its error rate rose")
            time.sleep(0.02)
        return time.time()

    def outage(self) -> None:
        """Prometheus is down, then returns NaN; meanwhile a feature is disabled in an emergency."""
        prometheus = self.lab.prometheus
        assert prometheus is not None
        self.wait(lambda: self.recorder.last.get("current", {}).get("holdUntil"), 60, "a hold")
        before = self.recorder.last["current"]
        prometheus.stop()
        stopped = time.time()
        self.print_line("--- Prometheus stopped")
        off = self._emergency("performanceMonitoring")
        time.sleep(max(0.0, OUTAGE_SECONDS - (time.time() - stopped)))
        down = self._status("Prometheus is down")
        self.application.faults(**{"*": {"nan": 1}})
        self.lab.processes.wait(prometheus.start(), prometheus.ready)
        self.print_line("--- Prometheus responds, with NaN")
        time.sleep(OUTAGE_SECONDS)
        nan = self._status("the results are NaN")
        self.application.faults()
        healed = time.time()
        self.print_line("--- metrics are back")
        step = (before["phase"], before["step"])
        self.wait(lambda: self._position() != step, 90, "the step ending")
        self._prove_outage(before, down, nan, stopped, healed, off)

    def _position(self) -> tuple[str, int]:
        current = self.recorder.last["current"]
        return current["phase"], current["step"]

    def _status(self, when: str) -> Object:
        status = self.lab.rollout(NAME, NAMESPACE)["status"]
        self.print_line(f"while {when}: {status['decision']['reason']}, {status['decision']['message']}")
        return dict(status)

    def _emergency(self, feature: str) -> float:
        """Switch a feature off with kubectl; seconds until the application evaluates it as off for all users."""
        begun = time.time()
        self.lab.act("EmergencyDisable", NAME, NAMESPACE, features=[feature], reason="drill while Prometheus is down")
        self.wait(lambda: self.application.share(feature, 50) == 0, 30, f"{feature} off")
        took = time.time() - begun
        time.sleep(3)
        self.proof.check(self.application.share(feature, 50) == 0, f"{feature} stays off until EmergencyEnable")
        self.lab.act("EmergencyEnable", NAME, NAMESPACE, features=[feature], reason="drill is over")
        self.wait(lambda: self.application.share(feature, 50) == 1, 30, f"{feature} on again")
        return took

    def pause_and_resume(self) -> None:
        """The copy is suspended while the rollout is paused, and resumes where it stopped."""
        self.wait(lambda: 0 < self._copy().get("done", 0) < 0.5 * LEGACY_ROWS, 300, "rows being copied")
        path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{self._copy()['job']}"
        self.lab.act("Pause", NAME, NAMESPACE, reason="a check of the migration")
        self.wait(lambda: self.lab.kube.get(path)["spec"].get("suspend"), 30, "the migration being suspended")
        self.lab.act("Resume", NAME, NAMESPACE)
        self.wait(lambda: not self.lab.kube.get(path)["spec"].get("suspend"), 30, "the migration being resumed")

    def prove_rights(self) -> None:
        """With two actions on the workload and a deleted rollout, every right of the operator has been used."""
        self._delete_a_rollout()
        for action in ("RestartWorkload", "UndoWorkload"):
            name = self.lab.act(action, NAME, NAMESPACE, reason="a check of the operator's rights")
            answer = self._answer(name)
            self.proof.check(answer["accepted"], f"{action}: {answer['reason']}, {answer.get('message')}")
        rights.prove(self.lab, self.proof)

    def _delete_a_rollout(self) -> None:
        """A rollout is deleted while its migration runs. Its Job goes with it, so that the ledger of the database tells how it ended."""
        name, root = "leaving", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
        files = {"0001_slow.up.sql": "SELECT pg_sleep(6);", "0001_slow.down.sql": "SELECT 1;"}
        self.lab.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}, NAMESPACE)
        step = {"percent": 100, "hold": "1h"}
        spec = {
            "flagSet": name,
            "database": self.object["spec"]["database"],
            "features": [{"name": "gone"}],
            "migrations": [{"name": "slow", "configMapRef": {"name": name}}],
            "phases": [{"name": "only", "features": ["gone"], "migrations": {"before": ["slow"]}, "steps": [step]}],
        }
        self.lab.apply({**self.object, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})

        def job() -> Object | None:
            select = f"sessionrollout.dev/rollout={name}"
            return next((item for item in self.lab.kube.get(root, labelSelector=select)["items"]), None)

        self.wait(lambda: ((job() or {}).get("status") or {}).get("active"), 30, "a running migration")
        before = self.application.tables()["ledger"]
        self.lab.kubectl("delete", "sro", name, "-n", NAMESPACE, "--timeout=120s")
        applied = len(self.application.tables()["ledger"]) - len(before)
        self.proof.check(applied == 1, "a rollout was deleted while its migration ran: the Job ended first")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--fault", default="", help="feature that harms its users")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--outage", action="store_true")
    parser.add_argument("--keep", default="", help="write the statuses of the run to tests/gitops/statuses under this name")
    parser.add_argument("--pictures", type=Path, help="draw the dashboards of the run into this directory")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    console = Console(highlight=False)
    with ended_by_signals():
        try:
            proof = _run(options, console)
        except (StartFailed, TimeoutError) as error:
            sys.exit(f"demo: {error}")
    sys.exit(proof.report(console, f"seed {options.seed}"))


def _run(options: argparse.Namespace, console: Console) -> Proof:
    with Lab() as lab:
        demo = Demo(lab, console, options.seed)
        demo.pictures = options.pictures
        if console.is_terminal:
            with Live(console=console, refresh_per_second=4) as demo.live:
                _story(demo, options)
        else:
            _story(demo, options)
        demo.recorder.stop()
        if options.keep:
            gitops.keep(options.keep, demo.object, demo.recorder)
        return demo.proof


def _story(demo: Demo, options: argparse.Namespace) -> None:
    demo.set_up()
    if options.fault:
        demo.fault(options.fault)
    elif options.outage:
        demo.outage()
    elif options.kill:
        demo.kill()
    else:
        threading.Thread(target=demo.pause_and_resume, daemon=True).start()
        demo.promote()
        demo.prove_rights()


if __name__ == "__main__":
    main()
