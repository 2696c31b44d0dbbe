"""`make demo`: the seed's whole rollout on the lab, proved at its end.

    make demo                          four phases to Promoted
    make demo FAULT=autoReconnection   the feature harms its users: automatic rollback
    make demo KILL=1                   the operator is killed at random moments, the end is the same
    make demo OUTAGE=1                 Prometheus is gone for 20 s, then answers NaN for 20 s; an emergency meanwhile

Exit 0 only when everything it checked held; its figures are the last lines.
"""

import argparse
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lab import gitops, proofs, rights
from lab.boards import Boards
from lab.gitops import GitSide
from lab.kube import Object
from lab.lab import Lab, ended_by_signals
from lab.population import users
from lab.processes import StartFailed
from lab.proofs import Proof
from lab.recorder import Recorder, Status
from lab.session_persistence import LEGACY_ROWS, NAME, NAMESPACE, DeployedApplication, example, ladder, scaled
from lab.sessions import difference, run, value
from session_rollout.records import reader
from session_rollout.records.record import Record

CHECK_INTERVAL = 1.0
KILLS_WANTED, KILLS_MOST = 20, 30
OUTAGE_SECONDS = 20.0
READING_SECONDS = 2.0  # before a person says yes
FAULT_SHARE = 0.3
COPY = "legacy-sessions"
ENDED = ("Promoted", "RolledBack", "Aborted")


class Demo:
    """One run."""

    def __init__(self, lab: Lab, console: Console, seed: int) -> None:
        self.lab, self.console, self.random = lab, console, random.Random(seed)
        self.application = DeployedApplication(lab)
        self.object = scaled(example("session-persistence.yaml"))
        self.object["spec"]["preflight"] = [self.application.health()]
        self.proof = Proof()
        self.told: set[tuple[str, str, str]] = set()
        self.live: Live | None = None
        self.seen_wide, self.differing = "", -1
        self.pictures: Path | None = None  # where dashboards are drawn
        self.started = time.time()

    def set_up(self) -> None:
        """Everything up to the moment a person applies the object."""
        self.install()
        self.application.deploy()
        self.lab.until(lambda: self._query("session_error_rate") is not None, 60, "the application being scraped")
        self.lab.until(lambda: self._query("page_load_seconds_count"), 30, "page loads being scraped")
        self.recorder = Recorder(self.lab, NAMESPACE, NAME, self._tell)
        self.started = time.time()
        watch = [self.lab.kubectl_path, "--kubeconfig", str(self.lab.kubeconfig), "get", "sro", "-n", NAMESPACE, "-w"]
        self.watcher = self.lab.processes.start("kubectl-watch", watch)
        self.lab.apply(self.object)
        self.git = GitSide(self.lab, self.object, self.recorder)

    def install(self) -> None:
        """The project, and its operator."""
        self.lab.install()
        self.lab.start_operator()

    def _query(self, promql: str) -> float | None:
        try:
            return self.application.query(promql)
        except OSError:
            return None

    # --- the live view

    def _tell(self, seen: Status) -> None:
        """One line for every new entry of the history."""
        for entry in seen.status.get("history", []):
            key = (entry["time"], entry["event"], entry.get("message", ""))
            if key not in self.told:
                self.told.add(key)
                where = f"{entry.get('phase') or '':22} {entry.get('step') or '':>2} {entry.get('percent') or '':>4}%"
                self.console.print(
                    f"{self._elapsed(seen.seen):6.1f}s {where} {entry['event']:18} {entry['because']}", soft_wrap=True
                )
        if self.live is not None:
            self.live.update(self._view(seen.status))

    def _elapsed(self, moment: float | None = None) -> float:
        return (moment or time.time()) - self.started

    def _view(self, status: Object) -> Table:
        current, decision = status.get("current", {}), status.get("decision", {})
        table = Table(title=f"{NAME}  {self._elapsed():.0f} s", expand=True)
        for column in ("check", "verdict", "value", "bound", "baseline"):
            table.add_column(column)
        audience = f"{current.get('percent')}% {' '.join(current.get('groups', []))}"
        table.add_row(f"[b]{current.get('phase')}", f"step {current.get('step')}", audience, str(decision.get("action")), "")
        table.add_row(f"[i]{decision.get('message')}", "", "", "", "")
        for migration in status.get("migrations", []):
            moved = f"{migration.get('done', 0):,} of {migration['total']:,}" if migration.get("total") else ""
            table.add_row(f"migration {migration['name']}", migration["state"], moved, migration.get("message", ""), "")
        for check in status.get("checks", []):
            cells = (check.get(key) or "" for key in ("verdict", "value", "bound", "baseline"))
            table.add_row(f"{check['kind']} {check['name']}", *cells)
        return table

    # --- people

    def approve_when_asked(self) -> None:
        """The person who says yes to the full rollout of phase 4."""
        while not self.ended():
            decision, status = self.recorder.last.get("decision", {}), self.recorder.last
            if "waits for an approval" in decision.get("message", ""):
                current = status["current"]
                time.sleep(READING_SECONDS)
                self.lab.act(
                    "Approve",
                    NAME,
                    NAMESPACE,
                    generation=status["observedGeneration"],
                    phase=current["phase"],
                    step=current["step"],
                    reason="feedback is good",
                )
                return
            time.sleep(0.2)

    def ended(self) -> bool:
        """Whether the rollout has an outcome."""
        return self.recorder.last.get("outcome") in ENDED

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait while people and the operator do their work."""
        return self.lab.until(condition, seconds, what)

    # --- the four stories

    def promote(self, seconds: float = 420) -> None:
        """The whole rollout to Promoted, and the proof."""
        self._meanwhile()
        self.wait(self.ended, seconds, "an outcome")
        self.prove_promoted()

    def _meanwhile(self) -> None:
        """What others do while the rollout runs."""
        self.people = Overrides(self.lab, self.application)
        self.lab.act("Verify", NAME, NAMESPACE, ttl="1s")  # answered, and then removed by the operator
        for story in (
            self.approve_when_asked,
            self.people.write,
            self._kill_migration,
            self._watch_rows,
            self._compare_later,
            self.git.watch,
        ):
            threading.Thread(target=story, daemon=True).start()

    def _copy(self) -> Object:
        records = self.recorder.last.get("migrations", [])
        return next((record for record in records if record["name"] == COPY), {})

    def _moved(self) -> int:
        """Rows that are there, by the database: nobody may lead while they are moved."""
        assert self.lab.postgres is not None
        if self._copy().get("state") != "Running":
            return 0
        return int(
            value(self.lab.postgres.url, "SELECT count(*) FROM enhanced_user_sessions WHERE migration_source = 'legacy'")
        )

    def _kill_migration(self) -> None:
        """SIGKILL of the Pod that moves rows, in the middle."""
        self.wait(lambda: 0 < self._moved() < 0.7 * LEGACY_ROWS, 600, "rows being moved")
        before = self._moved()
        for pod in list(self.lab.pods.values()):
            if f"{COPY}-up" in pod.name:
                pod.kill()
                text = f"{self._elapsed():6.1f}s --- SIGKILL of Pod {pod.name} at {before:,} rows"
                self.console.print(text, soft_wrap=True)

    def _watch_rows(self) -> None:
        """What a person sees of the rows that are moved."""
        self.wait(lambda: 0 < self._copy().get("done", 0) < 0.7 * LEGACY_ROWS, 600, "rows being moved, in status")
        self.seen_wide = self.lab.kubectl("get", "sro", NAME, "-n", NAMESPACE, "-o", "wide").stdout

    def _compare_later(self) -> None:
        """Both sides at one moment, while the application writes and changes are followed."""
        assert self.lab.postgres is not None
        last = self.object["spec"]["phases"][-1]["name"]
        self.wait(lambda: self.recorder.last.get("current", {}).get("phase") == last, 400, "the last phase")
        self.differing = difference(self.lab.postgres.url)

    def kill(self) -> None:
        """The same, while the operator dies again and again."""
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
        """A feature that hurts its users."""
        self.application.faults(**{feature: {"errors": FAULT_SHARE}})
        breach = self._first_breach()
        self.wait(self.ended, 60, "an outcome")
        phase = next(phase for phase in self.object["spec"]["phases"] if feature in phase["features"])
        self._prove_rolled_back(phase, breach)

    def _first_breach(self) -> float:
        """When Prometheus first answered 1 % or more: the guard wants less."""
        while not (self._query("session_error_rate") or 0) >= 0.01:
            if self.ended():
                raise TimeoutError("the rollout ended before its error rate rose")
            time.sleep(0.02)
        return time.time()

    def outage(self) -> None:
        """Prometheus gone, then NaN; and somebody switches a feature off meanwhile."""
        prometheus = self.lab.prometheus
        assert prometheus is not None
        self.wait(lambda: self.recorder.last.get("current", {}).get("holdUntil"), 60, "a hold")
        before = self.recorder.last["current"]
        prometheus.stop()
        stopped = time.time()
        self.console.print(f"{self._elapsed():6.1f}s --- Prometheus stopped")
        off = self._emergency("performanceMonitoring")
        time.sleep(max(0.0, OUTAGE_SECONDS - (time.time() - stopped)))
        down = self._look("Prometheus was down")
        self.application.faults(**{"*": {"nan": 1}})
        self.lab.processes.wait(prometheus.start(), prometheus.ready)
        self.console.print(f"{self._elapsed():6.1f}s --- Prometheus answers, with NaN")
        time.sleep(OUTAGE_SECONDS)
        nan = self._look("the answers were NaN")
        self.application.faults()
        healed = time.time()
        self.console.print(f"{self._elapsed():6.1f}s --- metrics are back")
        step = (before["phase"], before["step"])
        self.wait(lambda: self._position() != step, 90, "the step ending")
        self._prove_outage(before, down, nan, stopped, healed, off)

    def _position(self) -> tuple[str, int]:
        current = self.recorder.last["current"]
        return current["phase"], current["step"]

    def _look(self, when: str) -> Object:
        status = self.lab.rollout(NAME, NAMESPACE)["status"]
        self.console.print(f"{self._elapsed():6.1f}s while {when}: {status['decision']['message']}", soft_wrap=True)
        return dict(status)

    def _emergency(self, feature: str) -> float:
        """Switch a feature off with kubectl; seconds until the application evaluates it as off for everybody."""
        begun = time.time()
        self.lab.act("EmergencyDisable", NAME, NAMESPACE, features=[feature], reason="drill while Prometheus is down")
        self.wait(lambda: self.application.share(feature, 50) == 0, 30, f"{feature} off")
        took = time.time() - begun
        time.sleep(3)
        self.proof.check(self.application.share(feature, 50) == 0, f"{feature} stays off until Restore")
        self.lab.act("EmergencyEnable", NAME, NAMESPACE, features=[feature], reason="drill is over")
        self.wait(lambda: self.application.share(feature, 50) == 1, 30, f"{feature} on again")
        return took

    # --- the proofs

    def prove_promoted(self) -> None:
        """Everything that the rollout promised."""
        status, proof = self.recorder.last, self.proof
        time.sleep(0.5)
        proof.check(status["outcome"] == "Promoted", f"outcome {status['outcome']} after {self._elapsed():.0f} s")
        states = [f"{phase['name']} {phase['state']}" for phase in status["phases"]]
        proof.check(all(text.endswith("Completed") for text in states) and len(states) == 4, "phases: " + ", ".join(states))
        proofs.prove_shares(proof, self.object["spec"], ladder(self.object), self.recorder.documents)
        proofs.prove_never_backwards(proof, self.recorder.documents)
        proofs.prove_database(proof, self.application.tables())
        self._prove_migrations()
        self._prove_application()
        self.git.prove(proof)
        self._prove_dashboards()
        self._prove_bookkeeping()

    def _prove_migrations(self) -> None:
        """One Job for each operation, rows moved once in spite of a SIGKILL."""
        proof, copy = self.proof, self._copy()
        items = self.lab.kube.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")["items"]
        labels = [item["metadata"]["labels"] for item in items]
        done = sorted(f"{label['sessionrollout.dev/migration']} {label['sessionrollout.dev/operation']}" for label in labels)
        wanted = ["legacy-sessions backup", "legacy-sessions finish", "legacy-sessions up", "session-tables up"]
        proof.check(done == wanted, f"Jobs: {', '.join(done)}, each once")
        pods = self.lab.kube.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
        copying = [pod for pod in pods if f"{COPY}-up" in pod["metadata"]["name"]]
        states = sorted(pod["status"]["phase"] for pod in copying)
        proof.check(states == ["Failed", "Succeeded"], f"Pods that moved rows: {', '.join(states)}")
        proof.check(self.differing == 0, f"{self.differing} rows differ between both sides while the application writes")
        proof.check(copy["done"] == copy["total"] >= LEGACY_ROWS, f"{copy['done']:,} of {copy['total']:,} rows moved")
        self._prove_progress()
        exported = self._query(f'max(sessionrollout_migration_rows{{migration="{COPY}",kind="done"}})') or 0
        proof.check(exported >= LEGACY_ROWS, f"sessionrollout_migration_rows: {exported:,.0f} done")
        self._prove_table()

    def _prove_progress(self) -> None:
        """It was seen while it ran."""
        steps = {
            migration.get("done") for status in self.recorder.statuses for migration in status.status.get("migrations", [])
        } - {None}
        self.proof.check(len(steps) >= 4, f"progress in status at {len(steps)} points")
        seen = f"{COPY} up" in self.seen_wide and "%" in self.seen_wide
        self.proof.check(seen, f"kubectl get sro -o wide: {_progress(self.seen_wide)}")

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
        proof.check(alone == 0 and marked >= LEGACY_ROWS, f"{marked:,} rows marked as moved, {alone} of them not there")
        proof.check(doubled == 0, f"{doubled} sessions doubled")
        kept = value(dsn, "SELECT count(*) FROM session_rollout.snapshots WHERE keep_until > now() + '6 days'::interval")
        proof.check(kept == 2, f"{kept} snapshots are kept for seven days after the bake")
        self.people.prove(proof)

    def _prove_application(self) -> None:
        """The application itself has every feature on for everybody at the end."""
        names = [feature["name"] for feature in self.object["spec"]["features"]]
        time.sleep(2)
        on = [name for name in names if self.application.share(name, 50) == 1]
        self.proof.check(on == names, f"the application evaluates {len(on)} of {len(names)} features as on for everybody")

    def rest(self) -> None:
        """Rows rest while a person pauses the rollout, and go on where they were."""
        self.wait(lambda: 0 < self._copy().get("done", 0) < 0.5 * LEGACY_ROWS, 300, "rows being moved")
        path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{self._copy()['job']}"
        self.lab.act("Pause", NAME, NAMESPACE, reason="a look at the migration")
        self.wait(lambda: self.lab.kube.get(path)["spec"].get("suspend"), 30, "the migration resting")
        self.lab.act("Resume", NAME, NAMESPACE)
        self.wait(lambda: not self.lab.kube.get(path)["spec"].get("suspend"), 30, "the migration going on")

    def prove_rights(self) -> None:
        """With two actions on the workload and a rollout that goes, everything that the operator may was done."""
        self._leave()
        for action in ("RestartWorkload", "UndoWorkload"):
            name = self.lab.act(action, NAME, NAMESPACE, reason="a look at the operator's rights")
            answer = self._answer(name)
            self.proof.check(answer["accepted"], f"{action}: {answer.get('message')}")
        rights.prove(self.lab, self.proof)

    def _leave(self) -> None:
        """A rollout is deleted while its migration runs."""
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

        self.wait(lambda: ((job() or {}).get("status") or {}).get("active"), 30, "a migration that runs")
        self.lab.kubectl("delete", "sro", name, "-n", NAMESPACE, "--wait=false")
        done = self.wait(
            lambda: ((job() or {}).get("status") or {}).get("succeeded"), 30, "the end of the Job of a rollout that goes"
        )
        self.proof.check(bool(done), "a rollout was deleted while its migration ran: the Job came to its end first")

    def _answer(self, name: str) -> Object:
        path = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{NAMESPACE}/sessionrolloutactions/{name}"
        return dict(self.wait(lambda: self.lab.kube.get(path).get("status"), 30, f"an answer to {name}"))

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
        """Every decision comes out the same when it is made again from its record, with no cluster."""
        last = self.recorder.last
        self.wait(lambda: decisions(self.lab)[-1].decide_again().status.to_wire() == last, 10, "the last record")
        kept = decisions(self.lab)
        same = sum(record.agrees() for record in kept)
        self.proof.check(same == len(kept), f"{same} of {len(kept)} recorded decisions made again: the same action and reason")
        writes = len(self.recorder.statuses)
        self.proof.check(len(kept) >= writes - KILLS_MOST, f"{len(kept)} decisions recorded, {writes} statuses seen")

    def _prove_rolled_back(self, phase: Object, breach: float) -> None:
        proof, status = self.proof, self.recorder.last
        mine = [published for published in self.recorder.documents if published.document["metadata"]["phase"] == phase["name"]]
        on = next(number for number, published in enumerate(mine) if not self._all_off(published, phase))
        off = next(published.seen for published in mine[on:] if self._all_off(published, phase))
        proof.check(status["outcome"] == "RolledBack", f"outcome {status['outcome']}")
        took = off - breach
        limit = CHECK_INTERVAL + 2
        proof.check(took <= limit, f"breach in Prometheus to features off in the cluster: {took:.2f} s (limit {limit:.0f} s)")
        because = status["decision"]["details"][0]
        self._prove_decisions()
        named = "session-error-rate" in because and "1%" in because
        proof.check(named, f"because: {because}")
        earlier = self.object["spec"]["phases"][: self.object["spec"]["phases"].index(phase)]
        kept = [name for before in earlier for name in before["features"]]
        proof.check(
            all(self.application.share(name, 50) == 1 for name in kept), f"{len(kept)} features of earlier phases stay on"
        )
        self.wait(lambda: (self._query("session_error_rate") or 0) < 0.01, 15, "the error rate below 1 %")
        proof.check(holds=True, text=f"error rate below 1 % again {time.time() - breach:.1f} s after the breach")
        version, documents = self.recorder.statuses[-1].version, len(self.recorder.documents)
        time.sleep(10)
        same = self.lab.rollout(NAME, NAMESPACE)["metadata"]["resourceVersion"] == version
        proof.check(same and len(self.recorder.documents) == documents, "not retried: no write and no document for 10 s")

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
        verdicts = {check["verdict"] for check in down["checks"]}
        proof.check("ProviderError" in verdicts, f"status while Prometheus was down: {down['decision']['because'][0]}")
        verdicts = {check["verdict"] for check in nan["checks"]}
        proof.check("NoData" in verdicts, f"status while the answers were NaN: {nan['decision']['because'][0]}")
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

    def _step_of(self, seen: Status) -> tuple[str, int]:
        return seen.status["current"]["phase"], seen.status["current"]["step"]


class Overrides:
    """Support gives single users a feature, or takes it from them: rows in the table that the first migration makes."""

    FEATURE = "offlineMode"

    def __init__(self, lab: Lab, application: DeployedApplication) -> None:
        assert lab.postgres is not None
        self.dsn, self.lab, self.application = lab.postgres.url, lab, application
        self.on, self.off, self.expired = (user.id for user in users(400)[-3:])
        self.early = False

    def write(self) -> None:
        """As soon as the table is there."""
        self.lab.until(lambda: value(self.dsn, "SELECT to_regclass('session_feature_flags')"), 120, "the table of overrides")
        for user, enabled, expires in (
            (self.on, True, "1 hour"),
            (self.off, False, "1 hour"),
            (self.expired, False, "-1 hour"),
        ):
            run(
                self.dsn,
                f"INSERT INTO users (id) VALUES ('{user}') ON CONFLICT DO NOTHING",
                "INSERT INTO session_feature_flags (user_id, feature_name, enabled, reason, expires_at) VALUES"
                f" ('{user}', '{self.FEATURE}', {enabled}, 'support', now() + '{expires}'::interval)",
            )
        self.lab.until(lambda: self.application.has(self.on, self.FEATURE), 20, "the override being read")
        self.early = True

    def prove(self, proof: Proof) -> None:
        """On before its phase, off after it, and as everybody else where it has expired."""
        have = [self.application.has(user, self.FEATURE) for user in (self.on, self.off, self.expired)]
        text = f"overrides of {self.FEATURE}: on before its phase {self.early}, then on/off/expired {have}"
        proof.check(self.early and have == [True, False, True], text)


def decisions(lab: Lab) -> list[Record]:
    """Every recorded decision about the rollout, oldest first."""
    select = f"sessionrollout.dev/record-of={NAME}"
    slots = lab.kube.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps", labelSelector=select)["items"]
    return reader.records(slots)


def _progress(wide: str) -> str:
    """The migration's column of what kubectl printed."""
    column = re.search(rf"{COPY} \S+ [^\n]*?(?=\s{{2,}}|$)", wide)
    return column[0] if column else wide


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--fault", default="", help="feature that hurts its users")
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
        threading.Thread(target=demo.rest, daemon=True).start()
        demo.promote()
        demo.prove_rights()


if __name__ == "__main__":
    main()
