"""What can go wrong around a migration, caused on purpose: to its Pod, its Job, its database, and by other users."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from lab.kube import ApiError
from lab.lab import ROOT, Lab
from lab.pod import Pod
from lab.sessions import run

OURS = "application_name LIKE 'session-rollout%' AND pid <> pg_backend_pid()"
TROUBLE = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.disk (full_now boolean);
INSERT INTO chaos.disk VALUES (false);
CREATE FUNCTION chaos.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  IF (SELECT full_now FROM chaos.disk) THEN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
  END IF;
  RETURN NEW;
END $$;
CREATE FUNCTION chaos.refuse_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  IF (SELECT full_now FROM chaos.disk) AND current_setting('application_name') LIKE 'session-rollout%' THEN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
  END IF;
END $$;
CREATE EVENT TRIGGER chaos_disk ON ddl_command_start EXECUTE FUNCTION chaos.refuse_ddl();
"""


@dataclass
class Faults:
    """One round's faults against one namespace and one database."""

    lab: Lab
    namespace: str
    dsn: str
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    twins: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def prepare(self) -> None:
        """What the simulated full disk needs."""
        run(self.dsn, TROUBLE)

    def inject(self) -> None:
        """One random fault that is possible now. A Job without a Pod is deleted, as an impatient user would."""
        if not self.pods():
            self.delete()
            self.done["Job deleted"] += 1
            return
        ways: list[tuple[str, int, Callable[[], None]]] = [
            ("SIGKILL of the Pod", 12, self.kill),
            ("backend terminated", 20, lambda: self.signal_backend("pg_terminate_backend")),
            ("statement time-out", 20, lambda: self.signal_backend("pg_cancel_backend")),
            ("two Pods at once", 12, self.twin),
            ("Job deleted", 6, self.delete),
            ("lock held", 16, self.hold_lock),
            ("disk full", 12, self.fill_disk),
            ("PostgreSQL restarted", 4, self.restart),
        ]
        name, _, way = self.dice.choices(ways, [weight for _, weight, _ in ways])[0]
        with contextlib.suppress(psycopg.Error):
            way()
        self.done[name] += 1

    def pods(self) -> list[Pod]:
        """Pods of migrations whose process runs."""
        assert self.lab.node is not None
        pods = [pod for pod in list(self.lab.node.pods.values()) if pod.namespace == self.namespace]
        return [pod for pod in pods if pod.process is not None and pod.process.poll() is None]

    def kill(self) -> None:
        """The kernel ends the process."""
        for pod in self.pods():
            pod.kill()

    def delete(self) -> None:
        """A user deletes the Job that has not ended."""
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        for job in self.lab.kube.get(path)["items"]:
            ended = {
                condition["type"] for condition in job.get("status", {}).get("conditions", []) if condition["status"] == "True"
            }
            if not ended & {"Complete", "Failed"}:
                with contextlib.suppress(ApiError):
                    self.lab.kube.delete(f"{path}/{job['metadata']['name']}", propagationPolicy="Background")

    def signal_backend(self, function: str) -> None:
        """An administrator, or a time-out, ends what one of our connections does."""
        with psycopg.connect(self.dsn, autocommit=True) as admin:
            pids = [row[0] for row in admin.execute(f"SELECT pid FROM pg_stat_activity WHERE {OURS}").fetchall()]
            if pids:
                admin.execute(f"SELECT {function}(%s)", (self.dice.choice(pids),))

    def twin(self) -> None:
        """The same program with the same arguments once more, as a node that was cut off would leave it."""
        pod = self.dice.choice(self.pods())
        assert pod.process is not None
        with contextlib.suppress(OSError):
            argv = [part.decode() for part in open(f"/proc/{pod.process.pid}/cmdline", "rb").read().split(b"\0")[:-1]]  # noqa: PTH123, SIM115
            secrets = pod.directory / "volumes"
            kept = self.lab.directory / f"twin-{len(self.twins)}-{time.time_ns()}"
            subprocess.run(["cp", "-rL", str(secrets), str(kept)], check=True, stderr=subprocess.DEVNULL)
            argv = [part.replace(str(secrets), str(kept)) for part in argv if not part.startswith("--termination-log")]
            environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "SESSION_ROLLOUT_ACTOR": "twin"}
            quiet = subprocess.DEVNULL
            self.twins.append(subprocess.Popen(argv, env=environment, stdout=quiet, stderr=quiet))

    def hold_lock(self) -> None:
        """A long transaction, or the DDL of another user."""
        table = self.dice.choice(["users", "user_sessions", "enhanced_user_sessions"])
        mode = self.dice.choice(["ACCESS EXCLUSIVE", "ROW EXCLUSIVE", "SHARE"])
        with psycopg.connect(self.dsn, application_name="somebody") as holder:
            holder.execute("SET lock_timeout = '1s'")
            holder.execute(f"LOCK TABLE {table} IN {mode} MODE")
            time.sleep(self.dice.uniform(0.1, 0.8))

    def fill_disk(self) -> None:
        """Nothing can be written for a moment."""
        with psycopg.connect(self.dsn, autocommit=True, application_name="somebody") as admin:
            admin.execute("SET lock_timeout = '500ms'")
            with contextlib.suppress(psycopg.Error):
                admin.execute(
                    "CREATE OR REPLACE TRIGGER chaos BEFORE INSERT ON enhanced_user_sessions"
                    " FOR EACH ROW WHEN (NEW.migration_source IS NOT NULL) EXECUTE FUNCTION chaos.refuse()"
                )
            admin.execute("UPDATE chaos.disk SET full_now = true")
            try:
                time.sleep(self.dice.uniform(0.1, 0.6))
            finally:
                admin.execute("UPDATE chaos.disk SET full_now = false")

    def restart(self) -> None:
        """The server crashes and recovers."""
        postgres = self.lab.postgres
        assert postgres is not None
        assert postgres.process is not None
        postgres.process.stop(signals=[signal.SIGQUIT])
        self.lab.processes.wait(postgres.start(), postgres.ready)

    def calm(self) -> None:
        """The end of a round: a full disk is mended, twins come to their end."""
        run(self.dsn, "UPDATE chaos.disk SET full_now = false")
        for process in self.twins:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                sys.exit("chaos: a second runner did not end")
        with contextlib.suppress(psycopg.Error):
            run(self.dsn, "DROP TRIGGER IF EXISTS chaos ON enhanced_user_sessions")
