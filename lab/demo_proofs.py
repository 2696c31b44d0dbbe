"""What the demo proves at its end, from the recorded statuses and documents, the database and the application."""

import re
import time
from datetime import datetime
from typing import Any

from lab import proofs
from lab.boards import Boards
from lab.decisions import decisions
from lab.demo_base import COPY, DemoBase
from lab.kube import Object
from lab.overrides import Overrides
from lab.population import users
from lab.recorder import Status
from lab.session_persistence import LEGACY_ROWS, NAME, NAMESPACE, ladder
from lab.sessions import value

CHECK_INTERVAL = 1.0
KILLS_MOST = 30


class DemoProofs(DemoBase):
    """The proofs of each story."""

    overrides: Overrides

    def prove_promoted(self) -> None:
        """Everything that the rollout promises."""
        status, proof = self.recorder.last, self.proof
        time.sleep(0.5)
        proof.check(status["outcome"] == "Promoted", f"outcome {status['outcome']} after {self._elapsed():.0f} s")
        states = {phase["name"]: phase["state"] for phase in status["phases"]}
        text = ", ".join(f"{name} {state}" for name, state in states.items())
        proof.check(list(states.values()) == ["Completed"] * 4, f"phases: {text}")
        proofs.prove_shares(proof, self.object["spec"], ladder(self.object), self.recorder.documents)
        proofs.prove_never_backwards(proof, self.recorder.documents)
        proofs.prove_database(proof, self.application.tables())
        self._prove_migrations()
        self._prove_application()
        self.git.prove(proof)
        self._prove_dashboards()
        self._prove_bookkeeping()

    def _prove_migrations(self) -> None:
        """One Job for each operation, each row copied once in spite of a SIGKILL."""
        proof, copy = self.proof, self._copy()
        items = self.lab.kube.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")["items"]
        labels = [item["metadata"]["labels"] for item in items]
        done = sorted(f"{label['sessionrollout.dev/migration']} {label['sessionrollout.dev/operation']}" for label in labels)
        wanted = ["legacy-sessions backup", "legacy-sessions finish", "legacy-sessions up", "session-tables up"]
        proof.check(done == wanted, f"Jobs: {', '.join(done)}, each once")
        pods = self.lab.kube.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
        copying = [pod for pod in pods if f"{COPY}-up" in pod["metadata"]["name"]]
        states = sorted(pod["status"]["phase"] for pod in copying)
        proof.check(states == ["Failed", "Succeeded"], f"Pods that copied rows: {', '.join(states)}")
        proof.check(self.differing == 0, f"{self.differing} rows differ between both sides while the application writes")
        proof.check(copy["done"] == copy["total"] >= LEGACY_ROWS, f"{copy['done']:,} of {copy['total']:,} rows copied")
        self._prove_progress()
        exported = self._query(f'max(sessionrollout_migration_rows{{migration="{COPY}",kind="done"}})') or 0
        proof.check(exported >= LEGACY_ROWS, f"sessionrollout_migration_rows: {exported:,.0f} done")
        self._prove_table()

    def _prove_progress(self) -> None:
        """It was in status and in the output of kubectl while the migration ran."""
        steps = {
            migration.get("done") for status in self.recorder.statuses for migration in status.status.get("migrations", [])
        } - {None}
        self.proof.check(len(steps) >= 4, f"progress in status at {len(steps)} points")
        shown = _column(self.wide_output, "PROGRESS")
        self.proof.check(shown not in {"", "<none>"}, f"kubectl get sro -o wide: {shown}")

    def _prove_table(self) -> None:
        assert self.lab.postgres is not None
        dsn, proof = self.lab.postgres.url, self.proof
        alone = value(
            dsn,
            "SELECT count(*) FROM user_sessions s WHERE migrated AND NOT EXISTS (SELECT FROM"
            " enhanced_user_sessions t WHERE t.id = s.id AND t.migration_source = 'legacy')",
        )
        doubled = value(dsn, "SELECT count(*) - count(DISTINCT session_id) FROM enhanced_user_sessions")
        marked = value(dsn, "SELECT count(*) FROM user_sessions WHERE migrated")
        proof.check(alone == 0 and marked >= LEGACY_ROWS, f"{marked:,} rows marked as copied, {alone} of them missing")
        proof.check(doubled == 0, f"{doubled} sessions doubled")
        kept = value(dsn, "SELECT count(*) FROM session_rollout.snapshots WHERE keep_until > now() + '6 days'::interval")
        proof.check(kept == 2, f"{kept} snapshots are kept for seven days after the bake")
        self.overrides.prove(proof)

    def _prove_application(self) -> None:
        """The application has every feature on for all users at the end."""
        names = [feature["name"] for feature in self.object["spec"]["features"]]
        time.sleep(2)
        on = [name for name in names if self.application.share(name, 50) == 1]
        self.proof.check(on == names, f"the application evaluates {len(on)} of {len(names)} features as on for all users")

    def _prove_dashboards(self) -> None:
        assert self.lab.prometheus is not None
        variables = {"namespace": NAMESPACE, "name": NAME}
        boards = Boards(self.lab.prometheus.url, self.started, time.time(), variables)
        boards.prove(self.proof)
        if self.pictures:
            boards.draw(self.pictures)

    def _prove_bookkeeping(self) -> None:
        writes, largest = len(self.recorder.statuses), max(status.size for status in self.recorder.statuses)
        self.proof.check(largest <= 32 * 1024, f"{writes} status writes, the largest status {largest} bytes")
        waited = self.lab.kubectl("wait", "--for=condition=Ready", f"sro/{NAME}", "-n", NAMESPACE, "--timeout=5s", check=False)
        self.proof.check(waited.returncode == 0, "kubectl wait --for=condition=Ready returns")
        self._prove_decisions()

    def _prove_decisions(self) -> None:
        """Every decision is the same when it is decided again from its record, without a cluster."""
        last = self.recorder.last["current"]
        self.wait(
            lambda: decisions(self.lab, NAME, NAMESPACE)[-1].decide_again().status.current.to_wire() == last,
            10,
            "the last record",
        )
        kept = decisions(self.lab, NAME, NAMESPACE)
        same = sum(record.agrees() for record in kept)
        self.proof.check(
            same == len(kept), f"{same} of {len(kept)} recorded decisions decided again: the same action and reason"
        )
        writes = len(self.recorder.statuses)
        self.proof.check(len(kept) >= writes - KILLS_MOST, f"{len(kept)} decisions recorded, {writes} statuses observed")

    def _prove_rolled_back(self, phase: Object, breach: float) -> None:
        proof, status = self.proof, self.recorder.last
        mine = [published for published in self.recorder.documents if published.document["metadata"]["phase"] == phase["name"]]
        on = next(number for number, published in enumerate(mine) if not self._all_off(published, phase))
        off = next(published.seen for published in mine[on:] if self._all_off(published, phase))
        proof.check(status["outcome"] == "RolledBack", f"outcome {status['outcome']}")
        took = off - breach
        limit = CHECK_INTERVAL + 2
        proof.check(took <= limit, f"breach in Prometheus to features off in the cluster: {took:.2f} s (limit {limit:.0f} s)")
        self._prove_decisions()
        self._prove_cause(status)
        earlier = self.object["spec"]["phases"][: self.object["spec"]["phases"].index(phase)]
        kept = [name for before in earlier for name in before["features"]]
        proof.check(
            all(self.application.share(name, 50) == 1 for name in kept), f"{len(kept)} features of earlier phases stay on"
        )
        self.wait(lambda: (self._query("session_error_rate") or 0) < 0.01, 15, "the error rate below 1 %")
        proof.check(holds=True, text=f"error rate below 1 % again {time.time() - breach:.1f} s after the breach")
        fixed = ("outcome", "current", "phases", "history")  # guards of what stays published are judged again meanwhile
        before, documents = {name: self.recorder.last[name] for name in fixed}, len(self.recorder.documents)
        time.sleep(10)
        after = self.lab.rollout(NAME, NAMESPACE)["status"]
        same = {name: after[name] for name in fixed} == before
        proof.check(same and len(self.recorder.documents) == documents, "not retried: the same place and document for 10 s")

    def _prove_cause(self, status: Object) -> None:
        """The status names the guard and says why; the verdict itself is dropped, because nobody has the features any more."""
        name, reasons = status["current"].get("rollbackGuard"), status["current"].get("rollbackReasons", [])
        breached = [entry["check"] for entry in status["history"] if entry["event"] == "GuardBreached"]
        named = (name, breached) == ("session-error-rate", [name]) and bool(reasons)
        self.proof.check(named, f"guard {name}: {'; '.join(reasons)}")

    def _all_off(self, published: Any, phase: Object) -> bool:
        evaluator = proofs.Evaluator(users(300))
        return not any(evaluator.having(published.document, name) for name in phase["features"])

    def _prove_outage(self, before: Object, down: Object, nan: Object, stopped: float, healed: float, off: float) -> None:
        proof = self.proof
        meanwhile = [recorded.status for recorded in self.recorder.statuses if stopped + 1 < recorded.seen < healed]
        moved = [
            status["current"]
            for status in meanwhile
            if (status["current"]["phase"], status["current"]["step"]) != (before["phase"], before["step"])
        ]
        proof.check(not moved, "neither promotion nor rollback while evidence was missing")
        self._prove_verdict(down, "ProviderError", "Prometheus was down")
        self._prove_verdict(nan, "NoData", "the results were NaN")
        ended = next(
            recorded
            for recorded in self.recorder.statuses
            if recorded.seen > healed and self._step_of(recorded) != (before["phase"], before["step"])
        )
        planned = _seconds(before["holdUntil"])
        longer = ended.seen - planned
        away = healed - stopped
        proof.check(
            longer >= away - 2, f"the step ended {longer:.1f} s later than planned; evidence was missing for {away:.1f} s"
        )
        proof.check(
            off <= 3, f"EmergencyDisable while Prometheus was down: off in the application after {off:.2f} s (limit 3 s)"
        )

    def _prove_verdict(self, status: Object, verdict: str, when: str) -> None:
        """The decision waits for evidence, and a check has the verdict."""
        reasons = {check.get("reason") for check in status["checks"] if check["verdict"] == verdict}
        waits = status["decision"]["reason"] == "AwaitingEvidence"
        text = f"status while {when}: {status['decision']['reason']}, {verdict} ({', '.join(map(str, reasons)) or 'nowhere'})"
        self.proof.check(waits and bool(reasons), text)

    def _step_of(self, seen: Status) -> tuple[str, int]:
        return seen.status["current"]["phase"], seen.status["current"]["step"]


def _column(wide: str, name: str) -> str:
    """A column of the first row of what kubectl printed; empty when it is not there."""
    header, *rows = wide.splitlines() or [""]
    if name not in header or not rows:
        return ""
    return re.split(r"\s{2,}", rows[0][header.index(name) :].strip())[0]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
