"""Migration Jobs (port `JobRunner`): built from the admin's profile, created once under a deterministic name, never deleted.

The connection string is a file in the Pod; the operator has no right to read Secrets.
"""

from typing import Any, Final

from session_rollout.adapters.api_server import MERGE, ApiServer, NotFound
from session_rollout.adapters.flags import LABEL, MANAGED
from session_rollout.adapters.telemetry import redact
from session_rollout.api import API_VERSION, GROUP
from session_rollout.api.progress import Progress
from session_rollout.api.rollout import Database, Migration, SecretRef, SessionRollout
from session_rollout.core.observed import JobObservation, JobState, StartJob
from session_rollout.errors import Conflict, RolloutError, SpecError
from session_rollout.settings import Profile

DSN: Final = "/var/run/session-rollout/dsn"
DATA_DSN: Final = "/var/run/session-rollout/data-dsn"
SQL: Final = "/var/run/session-rollout/sql"
TERMINATION_LOG: Final = "/dev/termination-log"
MIGRATION_LABEL: Final = f"{GROUP}/migration"
OPERATION_LABEL: Final = f"{GROUP}/operation"
SECONDS_KEPT: Final = 3600
LOG_BYTES: Final = 4096
WAITING_LENGTH: Final = 256
CONTAINER: Final = "migrate"
JOB_UID: Final = "metadata.labels['batch.kubernetes.io/controller-uid']"


def job_body(rollout: SessionRollout, job: StartJob, profile: Profile) -> dict[str, Any]:
    """The Job of one attempt of one migration. Raises SpecError when the rollout lacks what it needs."""
    migration = next((one for one in rollout.spec.migrations if one.name == job.migration), None)
    database = rollout.spec.database
    if migration is None or database is None:
        raise SpecError(f"migration {job.migration} is not in the spec, or `database` is missing")
    labels = {LABEL: rollout.name, MIGRATION_LABEL: migration.name, OPERATION_LABEL: job.operation, **MANAGED}
    owner = {"apiVersion": API_VERSION, "kind": "SessionRollout", "name": rollout.name, "uid": rollout.uid, "controller": True}
    volumes = [_secret("dsn", database.secret_ref), *_data_volumes(database), *_sql_volumes(migration)]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name, "namespace": rollout.namespace, "labels": labels, "ownerReferences": [owner]},
        "spec": {
            # A Pod that is lost is replaced, and goes on where it was; one that says why it cannot go on is not.
            "backoffLimit": profile.retries,
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [1, 2]}},
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                ]
            },
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": profile.service_account,
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 10001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "volumes": volumes,
                    "containers": [_container(rollout, migration, job, profile, volumes)],
                },
            },
        },
    }


def _secret(name: str, reference: SecretRef) -> dict[str, Any]:
    return {"name": name, "secret": {"secretName": reference.name, "items": [{"key": reference.key, "path": "url"}]}}


def _data_volumes(database: Database) -> list[dict[str, Any]]:
    return [_secret("data-dsn", database.data_secret_ref)] if database.data_secret_ref else []


def _sql_volumes(migration: Migration) -> list[dict[str, Any]]:
    reference = migration.config_map_ref
    return [{"name": "sql", "configMap": {"name": reference.name}}] if reference else []


def _container(
    rollout: SessionRollout, migration: Migration, job: StartJob, profile: Profile, volumes: list[dict[str, Any]]
) -> dict[str, Any]:
    source = f"--bundle={migration.bundle}" if migration.bundle else f"--directory={SQL}"
    # A shipped bundle is the same for everybody; SQL of a rollout's own must not meet another's of the same name.
    ledger = migration.bundle or f"{rollout.namespace}/{rollout.name}/{migration.name}"
    mounts = {"dsn": DSN, "data-dsn": DATA_DSN, "sql": SQL}
    two_roles = any(volume["name"] == "data-dsn" for volume in volumes)
    secrets = [f"--dsn-file={DATA_DSN}/url", f"--definer-dsn-file={DSN}/url"] if two_roles else [f"--dsn-file={DSN}/url"]
    return {
        "name": CONTAINER,
        "image": profile.image,
        "imagePullPolicy": profile.image_pull_policy,
        "command": ["session-rollout-migrate"],
        "args": [
            job.operation,
            source,
            f"--name={ledger}",
            *secrets,
            f"--change={migration.change}",
            *((f"--point-of-no-return={migration.point_of_no_return}",) if migration.point_of_no_return else ()),
            *_limits(profile),
            *job.arguments,
            f"--termination-log={TERMINATION_LOG}",
        ],
        "env": [
            {"name": "SESSION_ROLLOUT_ACTOR", "value": job.name},
            {"name": "SESSION_ROLLOUT_JOB_UID", "valueFrom": {"fieldRef": {"fieldPath": JOB_UID}}},
        ],
        "resources": profile.resources,
        "terminationMessagePath": TERMINATION_LOG,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": volume["name"], "mountPath": mounts[volume["name"]], "readOnly": True} for volume in volumes],
    }


def _limits(profile: Profile) -> tuple[str, ...]:
    """What the admin's profile allows."""
    return (
        f"--lock-timeout={profile.lock_timeout}",
        f"--lock-deadline={profile.lock_deadline}",
        f"--statement-timeout={profile.statement_timeout}",
        f"--duty={profile.duty}",
        f"--brake-latency={profile.brake_latency}",
        f"--brake-lag={profile.brake_lag}",
        *((f"--free-space-query={profile.free_space_query}",) if profile.free_space_query else ()),
    )


class KubernetesJobs:
    """Creates and watches the Jobs."""

    def __init__(self, api: ApiServer, profiles: dict[str, Profile]) -> None:
        self._api = api
        self._profiles = profiles

    async def start(self, rollout: SessionRollout, job: StartJob) -> None:
        """See `JobRunner.start`."""
        name = rollout.spec.database.profile if rollout.spec.database else ""
        profile = self._profiles.get(name)
        if profile is None:
            raise SpecError(f"`database.profile` is {name}; allowed are {', '.join(self._profiles) or 'none'}")
        try:
            await self._api.request("POST", _jobs(rollout.namespace), job_body(rollout, job, profile))
        except Conflict:
            return  # it exists; `observe` says whether it is ours

    async def observe(self, rollout: SessionRollout, name: str) -> JobObservation:
        """See `JobRunner.observe`."""
        found = await self._api.find(f"{_jobs(rollout.namespace)}/{name}")
        if found is None:
            return JobObservation(JobState.MISSING)
        owners = found["metadata"].get("ownerReferences", [])
        if not any(owner["uid"] == rollout.uid for owner in owners):
            return JobObservation(JobState.FOREIGN, Progress(message=f"Job {name} exists and belongs to somebody else"))
        conditions = {one["type"]: one for one in found.get("status", {}).get("conditions", []) if one["status"] == "True"}
        suspended = bool(found["spec"].get("suspend"))
        pods = await self._pods(rollout.namespace, name)
        if "Complete" not in conditions and "Failed" not in conditions:
            return JobObservation(JobState.ACTIVE, await self._saying(rollout.namespace, pods), suspended)
        if "Complete" in conditions:
            return JobObservation(JobState.SUCCEEDED, _last_words(pods))
        said = _last_words(pods)
        return JobObservation(
            JobState.FAILED, said if said.message else Progress(message=conditions["Failed"].get("message", ""))
        )

    async def _pods(self, namespace: str, job: str) -> list[dict[str, Any]]:
        """The Job's Pods, oldest first."""
        selector = f"batch.kubernetes.io/job-name={job}"
        found = await self._api.request("GET", f"/api/v1/namespaces/{namespace}/pods", query={"labelSelector": selector})
        return sorted(found["items"], key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    async def _saying(self, namespace: str, pods: list[dict[str, Any]]) -> Progress:
        """The last line of the log of the Pod that runs, or why none does."""
        running = [pod for pod in pods if pod.get("status", {}).get("phase") == "Running"]
        if not running:
            return Progress(waiting=_why_not_running(pods))
        path = f"/api/v1/namespaces/{namespace}/pods/{running[-1]['metadata']['name']}/log"
        try:
            text = await self._api.text("GET", path, query={"tailLines": 1, "limitBytes": LOG_BYTES})
        except (RolloutError, ValueError):
            return Progress()  # progress is a courtesy; the end comes in the termination message
        return _parsed(text) or Progress()

    async def suspend(self, rollout: SessionRollout, name: str, *, suspend: bool) -> None:
        """See `JobRunner.suspend`."""
        patch = {"spec": {"suspend": suspend}}
        try:
            await self._api.request("PATCH", f"{_jobs(rollout.namespace)}/{name}", patch, content=MERGE)
        except NotFound:
            return

    async def release(self, namespace: str, rollout: str) -> None:
        """See `JobRunner.release`: owner references go, so that garbage collection does not kill what runs."""
        found = await self._api.request("GET", _jobs(namespace), query={"labelSelector": f"{LABEL}={rollout}"})
        for job in found["items"]:
            if job.get("status", {}).get("active"):
                patch = {"metadata": {"ownerReferences": None}, "spec": {"ttlSecondsAfterFinished": SECONDS_KEPT}}
                try:
                    path = f"{_jobs(namespace)}/{job['metadata']['name']}"
                    await self._api.request("PATCH", path, patch, content=MERGE)
                except NotFound:
                    continue


def _parsed(text: str) -> Progress | None:
    """A line that a migration wrote; None when it is something else."""
    try:
        said = Progress.model_validate_json(text.strip() or "null")
    except ValueError:
        return None
    return said.model_copy(update={"message": redact(said.message), "waiting": redact(said.waiting)})


def _last_words(pods: list[dict[str, Any]]) -> Progress:
    """The newest termination message; the exit code when there is none."""
    ends = [
        status["state"]["terminated"]
        for pod in pods
        for status in pod.get("status", {}).get("containerStatuses", [])
        if "terminated" in status.get("state", {})
    ]
    if not ends:
        return Progress()
    silent = Progress(message=f"its Pod ended with exit code {ends[-1].get('exitCode')} and without a message")
    return _parsed(ends[-1].get("message") or "") or silent


def _why_not_running(pods: list[dict[str, Any]]) -> str:
    """What keeps the newest Pod from running: no image, no node, no Secret."""
    status = pods[-1].get("status", {}) if pods else {}
    reasons = [one["state"]["waiting"] for one in status.get("containerStatuses", []) if "waiting" in one.get("state", {})]
    reasons += [one for one in status.get("conditions", []) if one["type"] == "PodScheduled" and one["status"] == "False"]
    if not reasons:
        return ""
    text = ": ".join(str(reasons[0][key]) for key in ("reason", "message") if reasons[0].get(key))
    return f"its Pod does not run: {text}"[:WAITING_LENGTH]


def _jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"
