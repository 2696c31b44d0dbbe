"""The real operator process, with its own ServiceAccount and the shipped RBAC, on a real API server, PostgreSQL and Prometheus.

Covered: what a person sees and may rely on: steady holds write nothing, emergencies are fast, deletion never hangs, drift is
put right, mistakes are said in status, secrets show nowhere. Not here: whole rollouts (`make demo`), single rules (core).
"""

import re
import urllib.request
from datetime import UTC, datetime

import psycopg
import pytest

from integration.rollouts import ALPHA, LONG, SHORT, decided, flags, holding, rollout
from lab import rights
from lab.kube import Object
from lab.lab import Lab
from session_rollout.core.flags import NOBODY_TARGETING

CANARY = "canary-password"
UNTIL_IT_MAY_END = """CREATE TABLE {name} (id int);
DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM {name}_may_end) LOOP PERFORM pg_sleep(0.1); END LOOP; END $$;"""


def audit(lab: Lab, since: datetime | None = None) -> list[Object]:
    """What the operator asked of the API server."""
    start = since.isoformat() if since else ""
    return [line for line in rights.audit(lab) if line["requestReceivedTimestamp"] >= start]


def test_promotes_and_kubectl_wait_returns(operator: Lab) -> None:
    """The shortest rollout, end to end; kstatus conditions as kubectl reads them."""
    operator.apply(rollout("short", SHORT))
    operator.kubectl("wait", "--for=condition=Ready", "sro/short", "--timeout=180s")
    row = operator.kubectl("get", "sro", "short", "-o", "wide", "--no-headers").stdout.split()
    assert row[1:5] == ["Promoted", "alpha", "0", "100%"]
    assert "targeting" in flags(operator, "short")["alpha"]


def test_steady_hold_writes_nothing(operator: Lab) -> None:
    """Ten checks: no write by the operator but its Lease, by the API server's own audit log."""
    operator.apply(rollout("steady", LONG))
    version = holding(operator, "steady")["metadata"]["resourceVersion"]
    operator.reconciles("steady", 2)  # what the hold's beginning wrote is written
    since = datetime.now(UTC)
    operator.reconciles("steady", 10)
    assert operator.rollout("steady")["metadata"]["resourceVersion"] == version
    writes = [line for line in audit(operator, since) if line["verb"] not in {"get", "list", "watch"}]
    assert [line["objectRef"]["resource"] for line in writes if line["objectRef"]["resource"] != "leases"] == []
    reads = [line for line in audit(operator, since) if line["objectRef"].get("name") == "steady"]
    assert len(reads) >= 10


def test_emergency_by_kubectl_is_off_within_three_seconds_and_stays(operator: Lab) -> None:
    """Groups and percentages do not matter; Restore lifts it."""
    operator.apply(rollout("hot", LONG))
    holding(operator, "hot")
    operator.act("EmergencyDisable", "hot", features=["alpha"], reason="drill")
    operator.within(lambda: "targeting" not in flags(operator, "hot")["alpha"], 3, "alpha off")
    operator.reconciles("hot", 3)
    assert "targeting" not in flags(operator, "hot")["alpha"]
    name = operator.act("EmergencyEnable", "hot", reason="over")
    operator.within(lambda: "targeting" in flags(operator, "hot")["alpha"], 5, "alpha on")
    path = f"/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrolloutactions/{name}"
    answered = operator.until(lambda: operator.kube.get(path).get("status"), 5, "an answer")
    assert answered["accepted"] is True
    assert answered["conditions"][0]["type"] == "Accepted"


def test_breach_rolls_back(operator: Lab) -> None:
    """From the scrape to the document in a few seconds."""
    operator.apply(rollout("breach", LONG, guards=[{"name": "errors", "metric": "errors", "below": "5%"}]))
    holding(operator, "breach")
    operator.gauge.value = "0.2"  # type: ignore[attr-defined]
    try:
        operator.until(lambda: operator.rollout("breach")["status"].get("outcome") == "RolledBack", 10, "a rollback")
    finally:
        operator.gauge.value = "0.001"  # type: ignore[attr-defined]
    status = operator.rollout("breach")["status"]
    assert status["current"]["rollbackGuard"] == "errors"
    assert flags(operator, "breach")["alpha"]["targeting"]["if"][-1] == "off-chosen"


def test_drift_is_put_right(operator: Lab) -> None:
    """Somebody edits the document; the operator's is back within seconds, and people are told."""
    operator.apply(rollout("drift", LONG))
    holding(operator, "drift")
    path = "/api/v1/namespaces/default/configmaps/drift-flags"
    right = operator.kube.get(path)["data"]
    operator.kube.merge(path, {"data": {"flags.flagd.json": "{}"}})
    operator.within(lambda: operator.kube.get(path)["data"] == right, 5, "the document back")
    events = lambda: operator.kubectl("get", "events", "--field-selector=reason=FlagDriftCorrected", "-o", "name").stdout  # noqa: E731
    operator.until(events, 5, "an Event")


@pytest.mark.parametrize(("policy", "last"), [("Retain", None), ("Off", "off-chosen")])
def test_deletion_keeps_or_turns_off_the_flags(operator: Lab, policy: str, last: str | None) -> None:
    """Gone in seconds; the document outlives the object, as its policy says."""
    name = f"deleted-{policy.lower()}"
    operator.apply(rollout(name, LONG, deletionPolicy=policy))
    holding(operator, name)
    before = flags(operator, name)["alpha"]["targeting"]["if"]
    operator.kubectl("delete", "sro", name, "--timeout=180s")
    # The garbage collector deletes by owner references alone: without one there is nothing to wait for.
    found = operator.kube.get(f"/api/v1/namespaces/default/configmaps/{name}-flags")
    assert "ownerReferences" not in found["metadata"]
    after = flags(operator, name)["alpha"]["targeting"]["if"]
    assert after == before if last is None else after[-1] == last


def test_deletion_leaves_the_document_of_another_rollout_alone(operator: Lab) -> None:
    """A second rollout with the same `flagSet` was refused; its going takes nothing from the first one's users."""
    operator.apply(rollout("mine", LONG))
    holding(operator, "mine")
    path = "/api/v1/namespaces/default/configmaps/mine-flags"
    before = operator.kube.get(path)["metadata"]["resourceVersion"]
    operator.apply(rollout("other", LONG, flagSet="mine", deletionPolicy="Off"))
    decided(operator, "other", "InvalidSpec")
    operator.kubectl("delete", "sro", "other", "--timeout=180s")
    assert operator.kube.get(path)["metadata"]["resourceVersion"] == before


def test_namespace_deletion_does_not_hang(operator: Lab) -> None:
    """The finalizer is let go even where nothing can be written any more."""
    operator.namespace("doomed")
    body = rollout("doomed", LONG)
    body["metadata"]["namespace"] = "doomed"
    operator.apply(body)
    path = "/apis/sessionrollout.dev/v1alpha1/namespaces/doomed/sessionrollouts/doomed"
    operator.until(lambda: operator.kube.get(path).get("status", {}).get("current", {}).get("holdUntil"), 30, "a hold")
    operator.kubectl("delete", "namespace", "doomed", "--timeout=180s")


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("bad-provider", {"prometheus": "nowhere"}),
        ("bad-promql", {"metrics": [{"name": "errors", "query": "rate(lab_errors)"}]}),
        ("bad-zone", {"windows": [{"days": ["Mon"], "from": "09:00", "to": "10:00", "timeZone": "Mars/Olympus"}]}),
    ],
)
def test_mistakes_the_api_server_cannot_see_are_in_status(operator: Lab, name: str, spec: Object) -> None:
    """Stalled; the published document gives no user the feature."""
    operator.apply(rollout(name, LONG, **spec))
    status = decided(operator, name, "InvalidSpec")
    conditions = {one["type"]: one["status"] for one in status["conditions"]}
    assert (conditions["Stalled"], conditions["SpecValid"], conditions["Ready"]) == ("True", "False", "False")
    assert status["current"]["percent"] == "0"
    operator.reconciles(name, 2)
    assert flags(operator, name)["alpha"]["targeting"] == NOBODY_TARGETING


def test_two_rollouts_must_not_share_a_flag_set(operator: Lab) -> None:
    """The second one stalls, and the first one's users keep their features."""
    operator.apply(rollout("first", LONG))
    holding(operator, "first")
    second = rollout("second", LONG, flagSet="first")
    operator.apply(second)
    decided(operator, "second", "InvalidSpec")
    assert flags(operator, "first")["alpha"]["targeting"]["if"][4] == {"$ref": "group-staff"}


def test_action_without_a_rollout_is_refused(operator: Lab) -> None:
    """At the next sweep, with the reason."""
    name = operator.act("Pause", "nobody")
    path = f"/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrolloutactions/{name}"
    answered = operator.until(lambda: operator.kube.get(path).get("status"), 45, "an answer")
    assert (answered["accepted"], answered["reason"]) == (False, "UnknownRollout")


def migrated(lab: Lab, name: str, sql: str) -> None:
    """A rollout with one migration from a ConfigMap."""
    assert lab.postgres is not None
    url = lab.postgres.url.replace("postgres@", f"postgres:{CANARY}@")
    lab.database_secret(f"{name}-db", url)
    files = {"0001_x.up.sql": sql, "0001_x.down.sql": f"DROP TABLE {name};"}
    lab.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-sql"}, "data": files}, "default")
    phase = {**ALPHA, "steps": SHORT, "migrations": {"before": ["extra"]}}
    extra = {"name": "extra", "configMapRef": {"name": f"{name}-sql"}}
    lab.apply(rollout(name, SHORT, phases=[phase], migrations=[extra], database={"secretKeyRef": {"name": f"{name}-db"}}))


def jobs(lab: Lab, name: str, state: str) -> list[Object]:
    """The rollout's Jobs with Pods in this state: active, succeeded, failed."""
    found = lab.kube.get("/apis/batch/v1/namespaces/default/jobs", labelSelector=f"sessionrollout.dev/rollout={name}")
    return [one for one in found["items"] if one["status"].get(state)]


def test_failed_migration_stalls_with_the_databases_words_and_retry_goes_on(operator: Lab) -> None:
    """Line and message in status; a corrected ConfigMap and Retry bring it to the end."""
    migrated(operator, "broken", "CREATE TABLE broken (id int);\nSELECT * FROM nowhere;")
    [migration] = decided(operator, "broken", "MigrationFailed")["migrations"]
    assert migration["state"] == "Failed"
    assert 'relation "nowhere" does not exist' in migration["message"], "PostgreSQL's own words"
    files = {"0001_x.up.sql": "CREATE TABLE broken (id int);"}
    operator.kube.merge("/api/v1/namespaces/default/configmaps/broken-sql", {"data": files})
    operator.act("Retry", "broken", generation=1)
    operator.kubectl("wait", "--for=condition=Ready", "sro/broken", "--timeout=180s")


def migrating(operator: Lab, name: str) -> None:
    """A rollout whose migration runs, until the database says that it may end."""
    assert operator.postgres is not None
    with psycopg.connect(operator.postgres.url) as connection:
        connection.execute(f"CREATE TABLE {name}_may_end ()")
    migrated(operator, name, UNTIL_IT_MAY_END.format(name=name))
    operator.until(lambda: jobs(operator, name, "active"), 20, "a Job")


def deleted_after_its_migration(operator: Lab, name: str) -> None:
    """The rollout goes only after its Job came to its end: garbage collection would kill it half-way."""
    operator.until(lambda: operator.rollout(name)["status"]["decision"]["reason"] == "Deleting", 10, "waiting")
    assert operator.postgres is not None
    with psycopg.connect(operator.postgres.url, autocommit=True) as connection:
        connection.execute(f"INSERT INTO {name}_may_end DEFAULT VALUES")
        operator.kubectl("wait", "--for=delete", f"sro/{name}", "--timeout=180s")
        assert connection.execute(f"SELECT * FROM {name}").fetchall() == [], "it was committed"


def test_deletion_lets_a_running_migration_finish(operator: Lab) -> None:
    migrating(operator, "leaving")
    operator.kubectl("delete", "sro", "leaving", "--wait=false")
    deleted_after_its_migration(operator, "leaving")


def test_secret_shows_nowhere(operator: Lab) -> None:
    """The connection string is in the Secret and nowhere else."""
    for kind in ("sro", "jobs", "pods", "configmaps", "events"):
        assert CANARY not in operator.kubectl("get", kind, "-A", "-o", "yaml").stdout, kind
    assert operator.operator is not None
    assert CANARY not in operator.operator.log.read_text()


def test_metrics_and_health_are_served(operator: Lab) -> None:
    """`sessionrollout_*` with bounded labels; series of deleted rollouts are gone."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.operator_port}/healthz", timeout=30) as answer:
        assert answer.status == 200
    text = operator.operator_metrics()
    assert 'sessionrollout_audience_ratio{name="steady",namespace="default"} 0.5' in text
    assert re.search(r'sessionrollout_outcomes_total\{namespace="default",outcome="RolledBack"\} [1-9]', text)
    assert 'name="deleted-off"' not in text


def test_rbac_is_enough_and_not_more(operator: Lab) -> None:
    """In all of the above: nothing was forbidden, and every granted verb on every kind was used but the declared few; `make demo` uses those, too."""
    forbidden = [
        line["requestURI"]
        for line in audit(operator)
        if line["responseStatus"].get("code") == 403 and "is being terminated" not in str(line["responseStatus"])
    ]
    assert forbidden == []
    rarely = {
        ("sessionrolloutactions", "delete"),  # after their ttl of days
        ("deployments", "get"),  # a rollout with a workload
        ("services", "get"),  # an HTTP check
        ("replicasets", "list"),  # an undo of the workload
        ("deployments", "patch"),  # the same
        ("jobs", "patch"),  # a migration that rests
    }
    assert rights.granted(operator) - rights.used(audit(operator)) <= rarely


def test_deletion_while_no_operator_runs_is_done_by_the_next_one(operator: Lab) -> None:
    """Flags go off as the policy says; a migration that runs comes to its end, through a restart, too."""
    operator.apply(rollout("orphan", LONG, deletionPolicy="Off"))
    holding(operator, "orphan")
    assert operator.operator is not None
    migrating(operator, "behind")
    operator.operator.stop()
    operator.kubectl("delete", "sro", "orphan", "behind", "--wait=false")
    operator.start_operator()
    operator.kubectl("wait", "--for=delete", "sro/orphan", "--timeout=180s")
    assert flags(operator, "orphan")["alpha"]["targeting"]["if"][-1] == "off-chosen"
    operator.until(lambda: operator.rollout("behind")["status"]["decision"]["reason"] == "Deleting", 10, "waiting")
    name = operator.act("EmergencyDisable", "behind", reason="drill")
    action = f"/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrolloutactions/{name}"
    assert operator.until(lambda: operator.kube.get(action).get("status"), 5, "an answer")["accepted"] is True
    operator.operator.stop()
    operator.start_operator()
    deleted_after_its_migration(operator, "behind")
