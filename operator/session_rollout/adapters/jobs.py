"""Migration Jobs (port `JobRunner`): built from the admin's profile, created once under a deterministic name, never deleted.

The connection string is a file in the Pod; the operator has no right to read Secrets.
"""

import json
from typing import Any, Final

from session_rollout.adapters.api_server import MERGE, ApiServer, NotFound
from session_rollout.adapters.flags import LABEL, MANAGED
from session_rollout.adapters.telemetry import redact
from session_rollout.api import API_VERSION, GROUP
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import Migration, SessionRollout
from session_rollout.core.observed import JobObservation, JobState, StartJob
from session_rollout.errors import Conflict, SpecError
from session_rollout.settings import Profile

DSN: Final = "/var/run/session-rollout/dsn"
SQL: Final = "/var/run/session-rollout/sql"
TERMINATION_LOG: Final = "/dev/termination-log"
MIGRATION_LABEL: Final = f"{GROUP}/migration"
DIRECTION_LABEL: Final = f"{GROUP}/direction"
SECONDS_KEPT: Final = 3600
MESSAGE_LENGTH: Final = 500


def job_body(rollout: SessionRollout, job: StartJob, profile: Profile) -> dict[str, Any]:
    """The Job of one attempt of one migration. Raises SpecError when the rollout lacks what it needs."""
    migration = next((one for one in rollout.spec.migrations if one.name == job.migration), None)
    database = rollout.spec.database
    if migration is None or database is None:
        raise SpecError(f"migration {job.migration} is not in the spec, or `database` is missing")
    labels = {LABEL: rollout.name, MIGRATION_LABEL: migration.name, DIRECTION_LABEL: job.direction, **MANAGED}
    owner = {"apiVersion": API_VERSION, "kind": "SessionRollout", "name": rollout.name, "uid": rollout.uid, "controller": True}
    secret = {"secretName": database.secret_ref.name, "items": [{"key": database.secret_ref.key, "path": "url"}]}
    volumes = [{"name": "dsn", "secret": secret}, *_sql_volumes(migration)]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name, "namespace": rollout.namespace, "labels": labels, "ownerReferences": [owner]},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(duration(profile.deadline).total_seconds()),
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


def _sql_volumes(migration: Migration) -> list[dict[str, Any]]:
    reference = migration.config_map_ref
    return [{"name": "sql", "configMap": {"name": reference.name}}] if reference else []


def _container(
    rollout: SessionRollout, migration: Migration, job: StartJob, profile: Profile, volumes: list[dict[str, Any]]
) -> dict[str, Any]:
    source = f"--bundle={migration.bundle}" if migration.bundle else f"--directory={SQL}"
    # A shipped bundle is the same for everybody; SQL of a rollout's own must not meet another's of the same name.
    ledger = migration.bundle or f"{rollout.namespace}/{rollout.name}/{migration.name}"
    mounts = {"dsn": DSN, "sql": SQL}
    return {
        "name": "migrate",
        "image": profile.image,
        "imagePullPolicy": profile.image_pull_policy,
        "command": ["session-rollout-migrate"],
        "args": [
            job.direction,
            source,
            f"--name={ledger}",
            f"--dsn-file={DSN}/url",
            f"--lock-timeout={profile.lock_timeout}",
            f"--lock-deadline={profile.lock_deadline}",
            f"--statement-timeout={profile.statement_timeout}",
            f"--termination-log={TERMINATION_LOG}",
        ],
        "env": [
            {"name": "SESSION_ROLLOUT_ACTOR", "value": job.name},
            {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
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
            return JobObservation(JobState.FOREIGN, message=f"Job {name} exists and belongs to somebody else")
        conditions = {one["type"]: one for one in found.get("status", {}).get("conditions", []) if one["status"] == "True"}
        if "Complete" not in conditions and "Failed" not in conditions:
            return JobObservation(JobState.ACTIVE)
        checksum, message = await self._last_words(rollout.namespace, name)
        if "Complete" in conditions:
            return JobObservation(JobState.SUCCEEDED, checksum, message)
        return JobObservation(JobState.FAILED, checksum, message or conditions["Failed"].get("message", ""))

    async def _last_words(self, namespace: str, job: str) -> tuple[str | None, str]:
        """Checksum and message of the termination log; the exit code when there is none."""
        selector = f"batch.kubernetes.io/job-name={job}"
        pods = await self._api.request("GET", f"/api/v1/namespaces/{namespace}/pods", query={"labelSelector": selector})
        ends = [
            status["state"]["terminated"]
            for pod in pods["items"]
            for status in pod.get("status", {}).get("containerStatuses", [])
            if "terminated" in status.get("state", {})
        ]
        if not ends:
            return None, ""
        try:
            words = json.loads(ends[-1].get("message") or "")
            return words.get("checksum"), redact(str(words.get("message", "")))[:MESSAGE_LENGTH]
        except ValueError:
            return None, f"its Pod ended with exit code {ends[-1].get('exitCode')} and without a message"

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


def _jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"
