"""A migration that removes a column, and a rollback before it has begun: real Jobs, a real quota, a real lock.

Not here: every other reason not to begin (tests/core/test_withdrawal), Jobs that copy rows (test_sessions).
"""

import psycopg

from integration.rollouts import ALPHA, SHORT, rollout
from lab.kube import Object
from lab.lab import Lab
from lab.sessions import run, value


def contracted(lab: Lab, name: str) -> str:
    """Apply a rollout whose phase ends with the removal of a column, in a namespace of its own; the database."""
    assert lab.postgres is not None
    dsn = lab.postgres.url
    run(dsn, f"CREATE TABLE {name} (id int, legacy text)")
    lab.namespace(name)
    lab.database_secret("db", dsn, name)
    files = {"0001_x.up.sql": f"ALTER TABLE {name} DROP COLUMN legacy;", "0001_x.down.sql": "SELECT 1;"}
    lab.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sql"}, "data": files}, name)
    phase = {**ALPHA, "steps": SHORT, "migrations": {"after": ["drop"]}}
    drop = {"name": "drop", "change": "Contract", "configMapRef": {"name": "sql"}}
    whole = rollout(name, SHORT, phases=[phase], migrations=[drop], database={"secretKeyRef": {"name": "db"}}, bake="1h")
    whole["metadata"]["namespace"] = name
    lab.apply(whole)
    return dsn


def jobs(lab: Lab, name: str) -> list[Object]:
    """The Jobs of the migration, the oldest first."""
    found = lab.kube.get(f"/apis/batch/v1/namespaces/{name}/jobs", labelSelector=f"sessionrollout.dev/rollout={name}")
    return sorted(found["items"], key=lambda job: str(job["metadata"]["name"]))


def migration(lab: Lab, name: str) -> Object:
    """Its record."""
    records = lab.rollout(name, name).get("status", {}).get("migrations", [])
    return dict(records[0]) if records else {}


def has_column(dsn: str, table: str) -> bool:
    """Whether the column is there."""
    query = "SELECT count(*) FROM information_schema.columns WHERE table_name = %s AND column_name = 'legacy'"
    return bool(value(dsn, query, table))


def abort(lab: Lab, name: str) -> None:
    """Roll it back, to its end."""
    lab.act("Abort", name, name, reason="orders fail")
    lab.until(lambda: lab.rollout(name, name)["status"].get("outcome") == "Aborted", 30, "the end of the rollback")


def test_job_without_a_pod_does_not_run_after_the_rollback(operator: Lab) -> None:
    """The quota is full; there is room later. A `Retry` has another Job, after which the first still has not run."""
    name = "crowded"
    quota = f"/api/v1/namespaces/{name}/resourcequotas/full"
    operator.namespace(name)
    operator.kube.apply(
        quota, {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    )
    operator.until(lambda: operator.kube.get(quota).get("status", {}).get("used"), 20, "the quota in force")
    dsn = contracted(operator, name)
    [first] = operator.until(lambda: jobs(operator, name), 60, "the Job")
    abort(operator, name)
    assert migration(operator, name)["state"] == "Pending"
    operator.kube.delete(quota)
    operator.act("Retry", name, name, generation=1, reason="fixed")
    operator.until(lambda: migration(operator, name)["state"] == "Succeeded", 60, "the second Job")
    seen = {job["metadata"]["name"]: job for job in jobs(operator, name)}
    withdrawn = seen.pop(first["metadata"]["name"])
    assert withdrawn["spec"]["suspend"] is True
    assert not {"active", "succeeded", "failed"} & {key for key, count in withdrawn["status"].items() if count}
    assert [job["status"]["succeeded"] for job in seen.values()] == [1]
    assert not has_column(dsn, name)


def test_job_that_waits_for_a_lock_does_not_run_after_the_rollback(operator: Lab) -> None:
    """A report reads the table, and ends after the rollback. The suspended Job does not delay the deletion."""
    name = "locked"
    assert operator.postgres is not None
    with psycopg.connect(operator.postgres.url) as report:
        dsn = contracted(operator, name)
        report.execute(f"SELECT * FROM {name}")
        operator.until(lambda: migration(operator, name).get("message"), 60, "the Job waiting for the lock")
        pods = f"/api/v1/namespaces/{name}/pods"
        assert operator.kube.get(pods)["items"]
        abort(operator, name)
        operator.until(lambda: not operator.kube.get(pods)["items"], 40, "the end of the Pod")
    assert has_column(dsn, name)
    [job] = jobs(operator, name)
    assert (job["spec"]["suspend"], migration(operator, name)["state"]) == (True, "Pending")
    events = [entry["event"] for entry in operator.rollout(name, name)["status"]["history"]]
    assert "MigrationWithdrawn" in events
    operator.kubectl("delete", "sro", name, "-n", name, "--timeout=180s")
    operator.until(lambda: not jobs(operator, name), 30, "garbage collection")
    assert has_column(dsn, name)
