"""Jobs of migrations and checks (port `JobRunner`): built from a profile of the configuration, and never deleted.

A Job is created once under a deterministic name. Its Pod reads the connection string from a file, because the operator has
no permission to read Secrets.
"""

from typing import Any, Final

from session_rollout.adapters.api_server import MERGE, ApiServer, owner_of, owner_uids
from session_rollout.adapters.flags import LABEL
from session_rollout.adapters.labels import recommended
from session_rollout.adapters.logs import redact
from session_rollout.api import GROUP
from session_rollout.api.migration import Database, Migration, SecretKeyRef
from session_rollout.api.migration_enums import Operation
from session_rollout.api.progress import Progress
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.observed import JobObservation, JobState, StartCheck, StartJob
from session_rollout.errors import Conflict, NotFound, RolloutError, SpecError
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
    """The Job, with its Pod, of one attempt of one migration. Raises SpecError when the rollout has no such migration or no database."""
    migration = next((known for known in rollout.spec.migrations if known.name == job.migration), None)
    database = rollout.spec.database
    if migration is None or database is None:
        raise SpecError(f"migration {job.migration} is not in the spec, or `database` is missing")
    labels = {LABEL: rollout.name, MIGRATION_LABEL: migration.name, OPERATION_LABEL: job.operation, **recommended("migration")}
    volumes = [_secret("dsn", database.secret_key_ref), *_data_volumes(database), *_sql_volumes(migration)]
    pod = {
        "serviceAccountName": profile.service_account,
        "volumes": volumes,
        "containers": [_container(rollout, migration, job, profile, volumes)],
    }
    # A Pod that is lost is replaced and resumes where it stopped. One that reports a failure (exit code 1 or 2) is not.
    rules = [
        {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [1, 2]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
    ]
    spec = {"backoffLimit": profile.retries, "podFailurePolicy": {"rules": rules}}
    return _job(rollout, job.name, labels, pod, spec)


def _job(
    rollout: SessionRollout, name: str, labels: dict[str, str], pod: dict[str, Any], spec: dict[str, Any]
) -> dict[str, Any]:
    """A Job that belongs to a rollout, with a confined Pod."""
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
    # A bundle of the image is the same for all rollouts. SQL from a ConfigMap must not share a ledger entry with that of
    # another rollout that uses the same name.
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
    """Arguments of `session-rollout-migrate` for the timeouts and throttles of a profile."""
    return (
        f"--lock-timeout={profile.lock_timeout}",
        f"--lock-deadline={profile.lock_deadline}",
        f"--statement-timeout={profile.statement_timeout}",
        f"--copy-duty-cycle={profile.copy_duty_cycle}",
        f"--pause-on-read-latency={profile.pause_on_read_latency}",
        f"--pause-on-replica-lag={profile.pause_on_replica_lag}",
        *((f"--free-space-query={profile.free_space_query}",) if profile.free_space_query else ()),
    )


def check_body(rollout: SessionRollout, check: StartCheck, profile: CheckProfile) -> dict[str, Any]:
    """The Job of a check: everything comes from the profile, and only its name comes from the custom resource."""
    labels = {LABEL: rollout.name, CHECK_LABEL: check.profile, **recommended("check")}
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
    """Creates and observes the Jobs."""

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
            raise SpecError(
                f"`job.profile` is {check.profile}, which is not in `checks` of the operator's configuration; allowed: {allowed}"
            )
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
            allowed = ", ".join(self._profiles) or "none"
            message = (
                f"`database.profile` is {name}, which is not in `profiles` of the operator's configuration; allowed: {allowed}"
            )
            raise SpecError(message)
        return profile

    async def _create(self, rollout: SessionRollout, body: dict[str, Any]) -> None:
        body["spec"]["template"]["spec"]["securityContext"] |= self._user
        try:
            await self._api.request("POST", _jobs(rollout.namespace), body)
        except Conflict:
            return  # it exists; `observe` tells whether it belongs to this rollout

    async def observe(self, rollout: SessionRollout, name: str) -> JobObservation:
        """See `JobRunner.observe`."""
        job = await self._api.find(f"{_jobs(rollout.namespace)}/{name}")
        if job is None:
            return JobObservation(JobState.MISSING)
        if rollout.uid not in owner_uids(job):
            message = f"Job {name} exists and does not belong to this rollout"
            return JobObservation(JobState.FOREIGN, Progress(reason=JobState.FOREIGN, message=message))
        return await self._state(rollout.namespace, name, job)

    async def _state(self, namespace: str, name: str, job: dict[str, Any]) -> JobObservation:
        true = {item["type"]: item for item in job.get("status", {}).get("conditions", []) if item["status"] == "True"}
        pods = await self._pods(namespace, name)
        if "Complete" in true:
            return JobObservation(JobState.SUCCEEDED, _final_progress(pods))
        if "Failed" not in true:
            suspended = bool(job["spec"].get("suspend"))
            stopped = suspended and "Suspended" in true and not _living(pods)
            return JobObservation(JobState.ACTIVE, await self._running_progress(namespace, pods), suspended, stopped)
        progress = _final_progress(pods)
        if not progress.message:
            # No Pod ended by itself: the Job's deadline passed, or its Pods were deleted.
            progress = Progress(reason=true["Failed"].get("reason"), message=true["Failed"].get("message", ""))
        return JobObservation(JobState.FAILED, progress)

    async def termination_message(self, rollout: SessionRollout, name: str) -> str:
        """See `JobRunner.termination_message`."""
        return redact(_termination_message(await self._pods(rollout.namespace, name)))

    async def _pods(self, namespace: str, job: str) -> list[dict[str, Any]]:
        """The Job's Pods, oldest first; not those that somebody has made from one of them, which have its labels."""
        selector = f"batch.kubernetes.io/job-name={job}"
        listed = await self._api.request("GET", f"/api/v1/namespaces/{namespace}/pods", query={"labelSelector": selector})
        own = (pod for pod in listed["items"] if _is_pod_of(pod, job))
        return sorted(own, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    async def _running_progress(self, namespace: str, pods: list[dict[str, Any]]) -> Progress:
        """The last line in the log of the running Pod, or why none is running."""
        running = [pod for pod in pods if pod.get("status", {}).get("phase") == "Running"]
        if not running:
            return _waiting_progress(pods)
        path = f"/api/v1/namespaces/{namespace}/pods/{running[-1]['metadata']['name']}/log"
        try:
            text = await self._api.text("GET", path, query={"tailLines": 1, "limitBytes": LOG_BYTES})
        except (RolloutError, ValueError):
            return Progress()  # progress is best effort; the result comes in the termination message
        return _parsed(text) or Progress()

    async def suspend(self, rollout: SessionRollout, name: str, *, suspend: bool) -> None:
        """See `JobRunner.suspend`."""
        patch = {"spec": {"suspend": suspend}}
        try:
            await self._api.request("PATCH", f"{_jobs(rollout.namespace)}/{name}", patch, content=MERGE)
        except NotFound:
            return

    async def running(self, rollout: SessionRollout) -> tuple[str, ...]:
        """See `JobRunner.running`."""
        listed = await self._api.request("GET", _jobs(rollout.namespace), query={"labelSelector": f"{LABEL}={rollout.name}"})
        own = (job for job in listed["items"] if rollout.uid in owner_uids(job))
        return tuple(job["metadata"]["name"] for job in own if job.get("status", {}).get("active"))


def _is_pod_of(pod: dict[str, Any], job: str) -> bool:
    return any((owner["kind"], owner["name"]) == ("Job", job) for owner in pod["metadata"].get("ownerReferences", []))


def _parsed(text: str) -> Progress | None:
    """A line that a migration wrote; None when it is something else."""
    try:
        progress = Progress.model_validate_json(text.strip() or "null")
    except ValueError:
        return None
    return progress.updated(message=redact(progress.message), waiting=redact(progress.waiting))


def _living(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [pod for pod in pods if pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}]


def _terminated(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How the containers of the Pods ended, oldest first."""
    return [
        status["state"]["terminated"]
        for pod in pods
        for status in pod.get("status", {}).get("containerStatuses", [])
        if "terminated" in status.get("state", {})
    ]


def _termination_message(pods: list[dict[str, Any]]) -> str:
    """The newest termination message as it is."""
    terminated = _terminated(pods)
    return str(terminated[-1].get("message") or "") if terminated else ""


def _final_progress(pods: list[dict[str, Any]]) -> Progress:
    """The newest termination message; of a Pod that is not a migration's, its last line and the exit code."""
    terminated = _terminated(pods)
    if not terminated:
        return Progress()
    text = redact(_termination_message(pods)).strip()
    if (progress := _parsed(text)) is not None:
        return progress
    tail = f": {text.splitlines()[-1]}" if text else ", without a message"
    last = terminated[-1]
    return Progress(reason=last.get("reason"), message=f"its Pod ended with exit code {last.get('exitCode')}{tail}")


def _waiting_progress(pods: list[dict[str, Any]]) -> Progress:
    """What keeps the newest Pod from running: no image, no node, no Secret."""
    status = pods[-1].get("status", {}) if pods else {}
    states = [container.get("state", {}) for container in status.get("containerStatuses", [])]
    causes = [state["waiting"] for state in states if "waiting" in state]
    causes += [item for item in status.get("conditions", []) if item["type"] == "PodScheduled" and item["status"] == "False"]
    if not causes:
        return Progress()
    text = ": ".join(str(causes[0][key]) for key in ("reason", "message") if causes[0].get(key))
    return Progress(reason=causes[0].get("reason"), waiting=f"its Pod is not running: {text}"[:WAITING_LENGTH])


def _jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"
