"""Migration Jobs (port `JobRunner`): built from the admin's profile, created once under a deterministic name, never deleted.

The connection string is a file in the Pod; the operator has no right to read Secrets.
"""

from typing import Any, Final

from session_rollout.adapters.api_server import MERGE, ApiServer, NotFound, owner_of
from session_rollout.adapters.flags import LABEL, MANAGED
from session_rollout.adapters.telemetry import redact
from session_rollout.api import GROUP
from session_rollout.api.enums import Operation
from session_rollout.api.migration import Database, Migration, SecretKeyRef
from session_rollout.api.progress import Progress, clipped
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.observed import JobObservation, JobState, StartCheck, StartJob
from session_rollout.errors import Conflict, RolloutError, SpecError
from session_rollout.settings import CheckProfile, Profile, Settings

DSN: Final = "/var/run/session-rollout/dsn"
DATA_DSN: Final = "/var/run/session-rollout/data-dsn"
SQL: Final = "/var/run/session-rollout/sql"
TERMINATION_LOG: Final = "/dev/termination-log"
MIGRATION_LABEL: Final = f"{GROUP}/migration"
OPERATION_LABEL: Final = f"{GROUP}/operation"
CHECK_LABEL: Final = f"{GROUP}/check"
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
    volumes = [_secret("dsn", database.secret_key_ref), *_data_volumes(database), *_sql_volumes(migration)]
    pod = {
        "serviceAccountName": profile.service_account,
        "volumes": volumes,
        "containers": [_container(rollout, migration, job, profile, volumes)],
    }
    # A Pod that is lost is replaced, and goes on where it was; one that says why it cannot go on is not.
    rules = [
        {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [1, 2]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
    ]
    spec = {"backoffLimit": profile.retries, "podFailurePolicy": {"rules": rules}}
    return _job(rollout, job.name, labels, pod, spec)


def _job(
    rollout: SessionRollout, name: str, labels: dict[str, str], pod: dict[str, Any], spec: dict[str, Any]
) -> dict[str, Any]:
    """A Job that belongs to a rollout and whose Pod may do nothing but its work."""
    confined = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": rollout.namespace,
            "labels": labels,
            "ownerReferences": [owner_of(rollout)],
        },
        "spec": {**spec, "template": {"metadata": {"labels": labels}, "spec": {**confined, **pod}}},
    }


def _secret(name: str, reference: SecretKeyRef) -> dict[str, Any]:
    return {"name": name, "secret": {"secretName": reference.name, "items": [{"key": reference.key, "path": "url"}]}}


def _data_volumes(database: Database) -> list[dict[str, Any]]:
    return [_secret("data-dsn", database.data_secret_key_ref)] if database.data_secret_key_ref else []


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
        f"--duty={profile.copy_duty_cycle}",
        f"--brake-latency={profile.pause_on_read_latency}",
        f"--brake-lag={profile.pause_on_replica_lag}",
        *((f"--free-space-query={profile.free_space_query}",) if profile.free_space_query else ()),
    )


def check_body(rollout: SessionRollout, check: StartCheck, profile: CheckProfile) -> dict[str, Any]:
    """The Job of a check: what the admin's profile says, and nothing from the custom resource but its name."""
    labels = {LABEL: rollout.name, CHECK_LABEL: check.profile, **MANAGED}
    container = {
        "name": "check",
        "image": profile.image,
        "imagePullPolicy": profile.image_pull_policy,
        **({"command": list(profile.command)} if profile.command else {}),
        "args": list(profile.args),
        "env": [{"name": "SESSION_ROLLOUT_NAMESPACE", "value": rollout.namespace}],
        "resources": profile.resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": max(round(duration(profile.timeout).total_seconds()), 1),
        "ttlSecondsAfterFinished": SECONDS_KEPT,
    }
    return _job(rollout, check.name, labels, {"serviceAccountName": profile.service_account, "containers": [container]}, spec)


class KubernetesJobs:
    """Creates and watches the Jobs."""

    def __init__(self, api: ApiServer, settings: Settings) -> None:
        self._api = api
        self._profiles = settings.profiles
        self._checks = settings.checks
        self._user = {} if settings.run_as_user is None else {"runAsUser": settings.run_as_user}

    async def start_check(self, rollout: SessionRollout, check: StartCheck) -> None:
        """See `JobRunner.start_check`."""
        profile = self._checks.get(check.profile)
        if profile is None:
            allowed = ", ".join(self._checks) or "none"
            raise SpecError(f"`job.profile` is {check.profile}, which is no check of the configuration; allowed are {allowed}")
        await self._create(rollout, check_body(rollout, check, profile))

    async def inspect(self, rollout: SessionRollout, name: str, migration: str, operation: Operation) -> None:
        """See `JobRunner.inspect`."""
        body = job_body(rollout, StartJob(name, migration, operation, 0), self._profile(rollout))
        body["spec"] |= {"backoffLimit": 0, "ttlSecondsAfterFinished": SECONDS_KEPT}
        await self._create(rollout, body)

    async def start(self, rollout: SessionRollout, job: StartJob) -> None:
        """See `JobRunner.start`."""
        await self._create(rollout, job_body(rollout, job, self._profile(rollout)))

    def _profile(self, rollout: SessionRollout) -> Profile:
        name = rollout.spec.database.profile if rollout.spec.database else ""
        profile = self._profiles.get(name)
        if profile is None:
            raise SpecError(f"`database.profile` is {name}; allowed are {', '.join(self._profiles) or 'none'}")
        return profile

    async def _create(self, rollout: SessionRollout, body: dict[str, Any]) -> None:
        body["spec"]["template"]["spec"]["securityContext"] |= self._user
        try:
            await self._api.request("POST", _jobs(rollout.namespace), body)
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

    async def words(self, rollout: SessionRollout, name: str) -> str:
        """See `JobRunner.words`."""
        return redact(_raw_words(await self._pods(rollout.namespace, name)))

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

    async def running(self, namespace: str, rollout: str) -> tuple[str, ...]:
        """See `JobRunner.running`."""
        found = await self._api.request("GET", _jobs(namespace), query={"labelSelector": f"{LABEL}={rollout}"})
        return tuple(job["metadata"]["name"] for job in found["items"] if job.get("status", {}).get("active"))


def _parsed(text: str) -> Progress | None:
    """A line that a migration wrote; None when it is something else."""
    try:
        said = Progress.model_validate_json(text.strip() or "null")
    except ValueError:
        return None
    return said.model_copy(update={"message": redact(said.message), "waiting": redact(said.waiting)})


def _ends(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        status["state"]["terminated"]
        for pod in pods
        for status in pod.get("status", {}).get("containerStatuses", [])
        if "terminated" in status.get("state", {})
    ]


def _raw_words(pods: list[dict[str, Any]]) -> str:
    """The newest termination message as it is."""
    ends = _ends(pods)
    return str(ends[-1].get("message") or "") if ends else ""


def _last_words(pods: list[dict[str, Any]]) -> Progress:
    """The newest termination message; what a check printed last, or the exit code, when it is not a migration's."""
    ends = _ends(pods)
    if not ends:
        return Progress()
    text = redact(_raw_words(pods)).strip()
    tail = f": {text.splitlines()[-1]}" if text else " and without a message"
    silent = Progress(message=clipped(f"its Pod ended with exit code {ends[-1].get('exitCode')}{tail}"))
    return _parsed(text) or silent


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
