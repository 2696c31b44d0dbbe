"""Session data on the whole lab: real Jobs of the real operator move rows with two database roles, rest, go on and come back.

Also every command of `docs/how-to/operate-migrations.md`, in order. Not here: hundreds of faults (`make chaos-migrations`), the whole
rollout (`make demo`), what a copy does to the database (tests/migrations).
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.kube import Object
from lab.lab import ROOT, Lab
from lab.sessions import BUNDLE, SCHEMA, database, difference, fill, run, value
from session_rollout.migrations import roles
from session_rollout.migrations.connection import connect, copy_lock_key
from session_rollout.migrations.copy import spec as copy_spec
from session_rollout.migrations.schema import bundle

NAMESPACE, NAME = "analy-ticket", "session-persistence"
CANARY = "kanarie-in-the-mine"
ROWS = 15_000


@dataclass(frozen=True)
class Sessions:
    """A rollout whose first phase has moved rows, and its database."""

    lab: Lab
    dsn: str

    @property
    def status(self) -> Object:
        """As it is now."""
        return dict(self.lab.rollout(NAME, NAMESPACE).get("status", {}))

    @property
    def rows(self) -> Object:
        """The record of the migration that moves rows."""
        found = [one for one in self.status.get("migrations", []) if one["name"] == "legacy-sessions"]
        return dict(found[0]) if found else {}

    def jobs(self, operation: str) -> list[Object]:
        """The Jobs of an operation."""
        select = f"sessionrollout.dev/migration=legacy-sessions,sessionrollout.dev/operation={operation}"
        return list(self.lab.kube.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", labelSelector=select)["items"])

    def processes(self) -> list[int]:
        """Of the Pods that move rows."""
        pods = list(self.lab.node.pods.values()) if self.lab.node else []
        running = [pod.process for pod in pods if pod.process and f"{NAME}-legacy-sessions" in pod.name]
        return [one.pid for one in running if one.poll() is None]

    def answer(self, name: str) -> Object:
        """The answer to an action."""
        path = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{NAMESPACE}/sessionrolloutactions/{name}"
        return dict(self.lab.until(lambda: self.lab.kube.get(path).get("status"), 20, "an answer"))


def rollout() -> Object:
    """Both bundles, a snapshot, a long hold."""
    phase = {
        "name": "state-persistence",
        "features": ["offlineMode"],
        "migrations": {"before": ["session-tables", "legacy-sessions"]},
        "steps": [{"percent": 5, "hold": "1h"}, {"percent": 100, "hold": "1h"}],
    }
    spec = {
        "flagSet": NAME,
        "checkInterval": "1s",
        "propagation": "0s",
        "database": {
            "secretKeyRef": {"name": "definer", "key": "url"},
            "dataSecretKeyRef": {"name": "mover", "key": "url"},
        },
        "features": [{"name": "offlineMode"}],
        "phases": [phase],
        "migrations": [
            {"name": "session-tables", "bundle": SCHEMA},
            {"name": "legacy-sessions", "bundle": BUNDLE, "change": "Migrate", "backup": True},
        ],
        "rollback": {"restoreData": True},
    }
    metadata = {"name": NAME, "namespace": NAMESPACE}
    return {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def sessions(lab: Lab) -> Iterator[Sessions]:
    """The rollout applied, its rows on their way."""
    assert lab.postgres is not None
    with database(lab.postgres.url, "analy") as dsn:
        fill(dsn, ROWS)
        run(dsn, "DROP ROLE IF EXISTS web", "CREATE ROLE web LOGIN")
        run(dsn, roles.script("analy", "web", (copy_spec.load(bundle.shipped(BUNDLE)),), ("users",)))
        lab.namespace(NAMESPACE)
        for name, role in (("definer", roles.DEFINER), ("mover", roles.MOVER)):
            url = dsn.replace("postgres@", f"{role}:{CANARY}@")
            lab.database_secret(name, url, NAMESPACE)
        lab.start_operator()
        lab.apply(rollout())
        yield Sessions(lab, dsn)
        lab.kubectl("delete", "sro", NAME, "-n", NAMESPACE, "--timeout=180s")
        assert lab.operator is not None
        lab.operator.stop()


def test_rows_rest_while_paused_and_go_on(sessions: Sessions) -> None:
    """The Job is suspended after its batch, nothing moves, another Pod goes on at the same row."""
    lab = sessions.lab
    lab.until(lambda: sessions.rows.get("done"), 60, "rows being moved")
    processes = sessions.processes()
    shown = b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for pid in processes for name in ("cmdline", "environ"))
    assert processes
    assert CANARY.encode() not in shown
    sessions.answer(lab.act("Pause", NAME, NAMESPACE, reason="the database is busy"))
    lab.until(lambda: not sessions.processes(), 20, "the Pod ending")
    before = value(sessions.dsn, "SELECT done FROM session_rollout.copies")
    lab.until(lambda: sessions.jobs("up")[0]["spec"]["suspend"], 10, "the Job suspended")
    lab.reconciles(NAME, 2, NAMESPACE)
    assert sessions.processes() == []
    assert value(sessions.dsn, "SELECT done FROM session_rollout.copies") == before
    assert 0 < before < ROWS
    sessions.answer(lab.act("Resume", NAME, NAMESPACE))
    lab.until(lambda: sessions.status["current"]["step"] == 1, 90, "the first step")
    [job] = sessions.jobs("up")
    assert job["status"]["succeeded"] == 1
    assert difference(sessions.dsn) == 0
    assert sessions.rows["done"] == sessions.rows["total"] == ROWS
    assert sessions.rows["following"] is True
    assert sessions.rows["backupTime"]
    uid = value(sessions.dsn, "SELECT DISTINCT job_uid FROM session_rollout.history WHERE what LIKE 'copied%%'")
    assert uid == job["metadata"]["uid"]


def test_a_person_brings_damaged_rows_back(sessions: Sessions) -> None:
    """RestoreData, its answer, and the end of the restore in status."""
    lab = sessions.lab
    run(sessions.dsn, "UPDATE user_sessions SET form_data = '{}' WHERE id < '20000000-0000-0000-0000-000000000000'")
    damaged = value(sessions.dsn, "SELECT count(*) FROM user_sessions WHERE form_data = '{}'")
    name = lab.act("RestoreData", NAME, NAMESPACE, migration="legacy-sessions", reason="release 4.2 emptied forms")
    assert sessions.answer(name)["accepted"] is True
    lab.until(lambda: sessions.rows.get("restoreTime"), 60, "the end of the restore")
    assert damaged > 0
    assert value(sessions.dsn, "SELECT count(*) FROM user_sessions WHERE form_data = '{}'") == 0
    assert difference(sessions.dsn) == 0


def test_lost_job_is_created_again(sessions: Sessions) -> None:
    """Deleted by a person while it runs."""
    lab = sessions.lab
    with connect(sessions.dsn) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (copy_lock_key(BUNDLE),))
        name = lab.act("RestoreData", NAME, NAMESPACE, migration="legacy-sessions", reason="again")
        assert sessions.answer(name)["accepted"] is True
        lab.until(sessions.processes, 30, "the Pod waiting for the lock")
        job = sessions.rows["job"]
        path = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{job}"
        first = lab.kube.get(path)["metadata"]["uid"]
        lab.kubectl("delete", "job", job, "-n", NAMESPACE, "--wait=false")
        lab.until(lambda: (lab.kube.find(path) or {"metadata": {"uid": first}})["metadata"]["uid"] != first, 40, "another Job")
    lab.until(lambda: sessions.rows["state"] == "Succeeded", 60, "its end")


def commands() -> list[str]:
    """Every command of the page, in blocks and in the cells of tables; a here-document belongs to its command."""
    text = (ROOT / "docs" / "how-to" / "operate-migrations.md").read_text()
    found: list[str] = []
    for shell, cell in re.findall(r"```sh\n(.*?)```|^\| `(session-rollout-migrate [^`]*)`", text, re.DOTALL | re.MULTILINE):
        block = shell or cell
        lines, document = block.splitlines(), ""
        for line in lines:
            if document:
                found[-1] += "\n" + line
                document = "" if line == document else document
            else:
                found.append(line)
                document = "EOF" if line.endswith("<<EOF") else ""
    return found


def test_every_command_of_the_page_works(sessions: Sessions, tmp_path: Path) -> None:
    """In order, as they are printed."""
    sessions.lab.until(lambda: sessions.status.get("current", {}).get("step") == 1, 90, "the rows being copied")
    listed = commands()
    assert len(listed) > 25
    for name in ("dsn", "mover-dsn", "definer-dsn"):
        (tmp_path / name).write_text(sessions.dsn)
    environment = {
        **os.environ,
        "KUBECONFIG": str(sessions.lab.kubeconfig),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    said = {}
    for command in listed:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        refused = command.startswith("kubectl sessionrollout retry")  # no migration of this rollout has failed
        assert done.returncode == (1 if refused else 0), f"{command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        said[command] = done.stdout
    assert '"drift": []' in said[f"session-rollout-migrate status --bundle {SCHEMA} --dsn-file dsn"]
    assert "source and target are equal" in said[f"session-rollout-migrate verify --bundle {BUNDLE} --dsn-file dsn"]
    assert "is the source of truth" in said[f"session-rollout-migrate finish --bundle {BUNDLE} --dsn-file dsn"]
    assert (
        f"{ROWS:,} rows of enhanced_user_sessions are deleted"
        in said[f"session-rollout-migrate down --bundle {BUNDLE} --dsn-file dsn"]
    )


def test_secret_shows_nowhere(sessions: Sessions) -> None:
    """Neither in an object, nor in a log, nor in what a Pod said."""
    lab = sessions.lab
    for kind in ("sro", "sroa", "jobs", "pods", "configmaps", "events", "leases"):
        assert CANARY not in lab.kubectl("get", kind, "-A", "-o", "yaml").stdout, kind
    assert lab.node is not None
    assert lab.operator is not None
    logs = [*lab.node.directory.glob("*.log"), lab.operator.log]
    assert len(logs) > 3
    assert all(CANARY not in log.read_text(errors="replace") for log in logs)
