"""Jobs: what their Pods may do, and what becomes of what they report. Real Jobs run in tests/integration."""

import asyncio
import json
from typing import Any

import pytest

from adapters.api import Api
from core.world import World, spec
from session_rollout.adapters.jobs import KubernetesJobs
from session_rollout.api.migration_enums import Operation
from session_rollout.api.rollout import SessionRollout
from session_rollout.core.observed import JobObservation, JobState, StartCheck, StartJob
from session_rollout.errors import SpecError
from session_rollout.settings import Settings

JOBS = "/apis/batch/v1/namespaces/default/jobs"
PODS = "/api/v1/namespaces/default/pods"
MIGRATING: dict[str, Any] = {
    "database": {"secretKeyRef": {"name": "db"}},
    "migrations": [
        {"name": "extra", "configMapRef": {"name": "sql"}},
        {"name": "tables", "bundle": "session-persistence/schema"},
    ],
}
SETTINGS: dict[str, Any] = {"profiles": {"default": {"image": "operator:1"}}, "checks": {"smoke": {"image": "smoke:1"}}}
START = StartJob("shop-extra-up-1", "extra", Operation.UP, 1)


def rollout(**changes: Any) -> SessionRollout:
    return World(spec(**{**MIGRATING, **changes})).rollout()


def jobs(api: Api, **settings: Any) -> KubernetesJobs:
    return KubernetesJobs(api, Settings.model_validate({**SETTINGS, **settings}))


def created(api: Api) -> Any:
    """The only Job."""
    [job] = [item for path, item in api.objects.items() if path.startswith(JOBS)]
    return job


def pod_of(job: Any) -> Any:
    return job["spec"]["template"]["spec"]


def test_job_is_created_once() -> None:
    """A crash between the creation and the next status finds it."""
    api = Api()
    for _ in range(2):
        asyncio.run(jobs(api).start(rollout(), START))
    job = created(api)
    assert job["metadata"]["name"] == START.name
    assert [owner["uid"] for owner in job["metadata"]["ownerReferences"]] == [rollout().uid]


@pytest.mark.parametrize("kind", ["migration", "check", "inspection"])
def test_pods_are_confined(kind: str) -> None:
    """Pod Security `restricted` but for the user, which the configuration sets."""
    api = Api()
    match kind:
        case "migration":
            asyncio.run(jobs(api).start(rollout(), START))
        case "check":
            asyncio.run(jobs(api).start_check(rollout(), StartCheck("shop-smoke-1", "smoke")))
        case "inspection":
            asyncio.run(jobs(api).inspect(rollout(), "shop-extra-status-1", "extra", Operation.STATUS))
    pod = pod_of(created(api))
    assert pod["automountServiceAccountToken"] is False
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 10001}
    [container] = pod["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_cluster_may_choose_the_user() -> None:
    """As OpenShift does."""
    api = Api()
    asyncio.run(jobs(api, runAsUser=None).start(rollout(), START))
    assert "runAsUser" not in pod_of(created(api))["securityContext"]


def test_sql_of_two_rollouts_never_shares_a_ledger_entry() -> None:
    """A bundle of the image does: it is the same for all."""
    names = {}
    for migration in ("extra", "tables"):
        api = Api()
        asyncio.run(jobs(api).start(rollout(), StartJob("job", migration, Operation.UP, 1)))
        args = pod_of(created(api))["containers"][0]["args"]
        [names[migration]] = [argument for argument in args if argument.startswith("--name=")]
    assert names == {"extra": "--name=default/shop/extra", "tables": "--name=session-persistence/schema"}


def test_lost_pod_is_replaced_and_a_failure_is_not() -> None:
    api = Api()
    asyncio.run(jobs(api).start(rollout(), START))
    rules = created(api)["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["FailJob", "Ignore"]
    assert rules[0]["onExitCodes"]["values"] == [1, 2]
    assert created(api)["spec"]["backoffLimit"] == 10


@pytest.mark.parametrize(
    ("changes", "settings"),
    [({"migrations": []}, {}), ({"database": None, "migrations": []}, {}), ({}, {"profiles": {}})],
)
def test_job_that_cannot_be_built_is_a_problem_of_the_spec(changes: dict[str, Any], settings: dict[str, Any]) -> None:
    api = Api()
    with pytest.raises(SpecError):
        asyncio.run(jobs(api, **settings).start(rollout(**changes), START))
    assert api.requests == []


def test_unknown_check_profile() -> None:
    api = Api()
    with pytest.raises(SpecError):
        asyncio.run(jobs(api).start_check(rollout(), StartCheck("job", "unknown")))
    assert api.requests == []


# --- what is observed


def observe(api: Api) -> JobObservation:
    return asyncio.run(jobs(api).observe(rollout(), START.name))


def job(api: Api, *conditions: str, uid: str = "uid-1", **fields: Any) -> None:
    """A Job with these conditions."""
    states = [{"type": kind, "status": "True", "reason": "DeadlineExceeded", "message": "too slow"} for kind in conditions]
    status = {"conditions": [*states, {"type": "Suspended", "status": "False"}]}
    owners = [{"uid": uid}]
    api.put(f"{JOBS}/{START.name}", {"metadata": {"ownerReferences": owners}, "spec": fields, "status": status})


def pod(api: Api, name: str, second: int, phase: str, owner: str = START.name, **state: Any) -> None:
    """A Pod of the Job."""
    owners = [{"kind": "Job", "name": owner, "uid": f"uid-of-{owner}"}]
    metadata = {"name": name, "creationTimestamp": f"2026-01-05T10:00:{second:02}Z", "ownerReferences": owners}
    status = {"phase": phase, "containerStatuses": [{"state": state}] if state else []}
    api.put(f"{PODS}/{name}", {"metadata": metadata, "status": status})


def terminated(message: str, code: int = 1) -> dict[str, Any]:
    return {"exitCode": code, "reason": "Error", "message": message}


def test_missing_and_foreign_jobs() -> None:
    api = Api()
    assert observe(api).state is JobState.MISSING
    job(api, "Complete", uid="another")
    assert observe(api).state is JobState.FOREIGN


def test_running_pod_reports_its_progress_in_the_log() -> None:
    api = Api()
    job(api, suspend=True)
    pod(api, "one", 1, "Failed", terminated=terminated("lost"))
    pod(api, "two", 2, "Running", running={})
    api.texts[f"{PODS}/two/log"] = json.dumps({"message": "copying", "done": 10, "total": 20})
    observed = observe(api)
    assert (observed.state, observed.suspended) == (JobState.ACTIVE, True)
    assert (observed.progress.done, observed.progress.total) == (10, 20)


@pytest.mark.parametrize(
    ("phase", "suspended", "stopped"),
    [("Running", True, False), ("Pending", True, False), ("Failed", True, True), (None, True, True), (None, False, False)],
)
def test_suspended_job_is_stopped_without_a_living_pod(phase: str | None, *, suspended: bool, stopped: bool) -> None:
    """Kubernetes says so when it has ended the Pods: they have half a minute for that."""
    api = Api()
    job(api, *(["Suspended"] if suspended else []), suspend=True)
    if phase is not None:
        pod(api, "one", 1, phase)
    assert observe(api).stopped is stopped


@pytest.mark.parametrize("text", [None, "", "starting...", '{"done": "lots"}'])
def test_log_without_progress_is_not_an_error(text: str | None) -> None:
    api = Api()
    job(api)
    pod(api, "one", 1, "Running", running={})
    if text is not None:
        api.texts[f"{PODS}/one/log"] = text
    observed = observe(api)
    assert (observed.state, observed.progress.done) == (JobState.ACTIVE, None)


def test_pod_that_waits_has_kubernetes_reason() -> None:
    api = Api()
    job(api)
    assert observe(api).progress.reason is None
    pod(api, "one", 1, "Pending", waiting={"reason": "ImagePullBackOff", "message": "no such image"})
    assert observe(api).progress.reason == "ImagePullBackOff"
    api.objects[f"{PODS}/one"]["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}],
    }
    assert observe(api).progress.reason == "Unschedulable"


def test_termination_message_of_the_newest_pod_is_the_result() -> None:
    api = Api()
    job(api, "Complete")
    pod(api, "two", 2, "Succeeded", terminated=terminated(json.dumps({"message": "done", "checksum": "sha256:x"}), 0))
    pod(api, "one", 1, "Failed", terminated=terminated(json.dumps({"message": "lost"})))
    observed = observe(api)
    assert (observed.state, observed.progress.checksum) == (JobState.SUCCEEDED, "sha256:x")


@pytest.mark.usefixtures("prose")
def test_failed_check_reports_its_last_line_and_kubernetes_reason() -> None:
    api = Api()
    job(api, "Failed")
    pod(api, "one", 1, "Failed", terminated=terminated("checking\nlogin is broken", 3))
    observed = observe(api)
    assert (observed.state, observed.progress.reason) == (JobState.FAILED, "Error")
    assert "login is broken" in observed.message
    assert "checking" not in observed.message


def test_job_without_a_pod_fails_for_its_own_reason() -> None:
    api = Api()
    job(api, "Failed")
    assert observe(api).progress.reason == "DeadlineExceeded"


@pytest.mark.usefixtures("prose")
def test_no_secret_leaves_a_pod() -> None:
    api = Api()
    secret = json.dumps({"message": "cannot connect to postgres://app:hunter2@db/shop", "waiting": "password=hunter2"})
    job(api, "Failed")
    pod(api, "one", 1, "Failed", terminated=terminated(secret))
    observed = observe(api)
    assert "hunter2" not in observed.message + observed.progress.waiting
    assert "hunter2" not in asyncio.run(jobs(api).termination_message(rollout(), START.name))


def test_running_jobs_have_active_pods() -> None:
    """Only those that the rollout owns: garbage collection ends no other one, so a deletion does not wait for it."""
    api = Api()
    own: dict[str, Any] = {"metadata": {"ownerReferences": [{"uid": "uid-1"}]}}
    api.put(f"{JOBS}/one", own | {"status": {"active": 1}})
    api.put(f"{JOBS}/two", own | {"status": {"succeeded": 1}})
    api.put(f"{JOBS}/copy", {"status": {"active": 1}})
    api.put(f"{JOBS}/other", {"metadata": {"ownerReferences": [{"uid": "uid-2"}]}, "status": {"active": 1}})
    assert asyncio.run(jobs(api).running(rollout())) == ("one",)


@pytest.mark.parametrize("phase", ["Running", "Failed"])
def test_pod_that_is_not_the_jobs_own_says_nothing(phase: str) -> None:
    """Somebody looks into a migration with a copy of its Pod, which has its labels: the result is that of the Job."""
    api = Api()
    job(api, "Failed")
    pod(api, "one", 1, "Failed", terminated=terminated(json.dumps({"message": "the lock", "reason": "Locked"})))
    expected = observe(api)
    pod(api, "copy", 2, phase, owner="", terminated=terminated(json.dumps({"message": "a guess", "reason": "Other"})))
    assert observe(api) == expected
    assert expected.progress.message == "the lock"
    job(api, suspend=True)
    api.objects[f"{JOBS}/{START.name}"]["status"]["conditions"] = [{"type": "Suspended", "status": "True"}]
    assert observe(api).stopped


def test_suspending_a_job_that_is_gone_changes_nothing() -> None:
    api = Api()
    asyncio.run(jobs(api).suspend(rollout(), "gone", suspend=True))
    job(api)
    asyncio.run(jobs(api).suspend(rollout(), START.name, suspend=True))
    assert created(api)["spec"]["suspend"] is True
