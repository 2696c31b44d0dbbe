"""What every demo has: the deployed rollout, its recorder, the live view, and the user who approves."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lab.gitops import GitSide
from lab.kube import Object
from lab.lab import Lab
from lab.proofs import Proof
from lab.recorder import Recorder, Status
from lab.session_persistence import NAME, NAMESPACE, DeployedApplication, example, scaled
from lab.sessions import value
from lab.timeline import Timeline

READING_SECONDS = 2.0  # before the user approves
COPY = "legacy-sessions"
ENDED = ("Promoted", "RolledBack", "Aborted")


class DemoBase(Timeline):
    """One run on one lab: what is deployed, what is recorded, what is shown."""

    def __init__(self, lab: Lab, console: Console, seed: int) -> None:
        super().__init__(console)
        self.lab, self.random = lab, random.Random(seed)
        self.application = DeployedApplication(lab)
        self.object = scaled(example("session-persistence.yaml"))
        self.object["spec"]["preflight"] = [self.application.health()]
        self.proof = Proof()
        self.live: Live | None = None
        self.wide_output, self.differing = "", -1
        self.pictures: Path | None = None  # where dashboards are drawn

    def set_up(self) -> None:
        """Everything up to the moment when the user applies the object."""
        self.install()
        self.application.deploy()
        self.lab.until(lambda: self._query("session_error_rate") is not None, 60, "the application being scraped")
        self.lab.until(lambda: self._query("page_load_seconds_count"), 30, "page loads being scraped")
        self.recorder = Recorder(self.lab, NAMESPACE, NAME, self.print_history)
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

    def print_history(self, recorded: Status) -> None:
        super().print_history(recorded)
        if self.live is not None:
            self.live.update(self._view(recorded.status))

    def _view(self, status: Object) -> Table:
        current, decision = status.get("current", {}), status.get("decision", {})
        table = Table(title=f"{NAME}  {self._elapsed():.0f} s", expand=True)
        for column in ("check", "verdict", "value", "bound", "baseline"):
            table.add_column(column)
        place = (f"[b]{current.get('phase')}", f"step {current.get('step')}", current.get("audience"))
        table.add_row(*place, str(decision.get("action")), str(decision.get("reason")))
        table.add_row(f"[i]{decision.get('message')}", "", "", "", "")
        for migration in status.get("migrations", []):
            copied = f"{migration.get('done', 0):,} of {migration['total']:,}" if migration.get("total") else ""
            table.add_row(f"migration {migration['name']}", migration["state"], copied, migration.get("message", ""), "")
        for check in status.get("checks", []):
            cells = (check.get(key) or "" for key in ("verdict", "value", "bound", "baseline"))
            table.add_row(f"{check['kind']} {check['name']}", *cells)
        return table

    # --- the user

    def approve_when_awaited(self) -> None:
        """The user who approves the full rollout of phase 4."""
        while not self.ended():
            status = self.recorder.last
            if awaited := status.get("decision", {}).get("approvals"):
                time.sleep(READING_SECONDS)
                fields = {"generation": status["observedGeneration"], **awaited[0]}
                self.lab.act("Approve", NAME, NAMESPACE, reason="feedback is good", **fields)
                return
            time.sleep(0.2)

    def ended(self) -> bool:
        """Whether the rollout has an outcome."""
        return self.recorder.last.get("outcome") in ENDED

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait while the users and the operator do their work."""
        return self.lab.until(condition, seconds, what)

    # --- the migration

    def _copy(self) -> Object:
        """The record of the migration that copies rows."""
        records = self.recorder.last.get("migrations", [])
        return next((record for record in records if record["name"] == COPY), {})

    def _copied(self) -> int:
        """Rows in the target, by the database: there may be no leader while they are copied."""
        assert self.lab.postgres is not None
        if self._copy().get("state") != "Running":
            return 0
        return int(
            value(self.lab.postgres.url, "SELECT count(*) FROM enhanced_user_sessions WHERE migration_source = 'legacy'")
        )

    def _answer(self, name: str) -> Object:
        path = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{NAMESPACE}/sessionrolloutactions/{name}"
        return dict(self.wait(lambda: self.lab.kube.get(path).get("status"), 30, f"an answer to {name}"))
