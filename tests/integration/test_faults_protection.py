"""Flags go off within two seconds of the answer that shows a breach, and of an emergency, whatever else is refused.

FAULT_SECONDS=600 refuses for ten minutes. Not here: every write with every fault (test_faults.py, `make faults`).
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.fault_proxy import HANGS, Fault
from lab.fault_scenarios import (
    ACTIONS,
    BREACH,
    DELETE,
    GOOD,
    LONG,
    NAME,
    Run,
    act,
    hold,
    look,
    off_since,
    on_again,
    play,
    promised,
    rollout,
    shares,
)
from lab.fault_site import FLAG_SET, FaultSite
from lab.kube import ApiError, Object
from session_rollout.api.rollout import RolloutSpec

REFUSED_SECONDS = float(os.environ.get("FAULT_SECONDS", "6"))
MOST_GUARDS = RolloutSpec.model_json_schema(by_alias=True)["properties"]["guards"]["maxItems"]
READING = {"apiGroups": ["sessionrollout.dev"], "resources": ["sessionrollouts", "sessionrolloutactions"]}
CONFIG_MAPS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "create", "update", "patch"]}


def holding(site: FaultSite, *namespaces: str, **spec: object) -> None:
    """Rollouts that hold 50%, each in a namespace of its own."""
    for namespace in namespaces:
        site.namespace(namespace)
        site.prometheus.set(namespace, GOOD)
        site.lab.apply(rollout(namespace, LONG, **spec))  # type: ignore[arg-type]
    for namespace in namespaces:
        hold(site, namespace)


def breach(site: FaultSite, namespace: str) -> float:
    """Break the metric: what part of the promised time passes from the first answer that shows it to the features being off."""
    begun = time.monotonic()
    site.prometheus.set(namespace, BREACH)
    off = off_since(site, namespace, begun)
    return (off - site.prometheus.answered(namespace, BREACH)) / promised(site, namespace)


def emergency(site: FaultSite, namespace: str) -> float:
    """Create an EmergencyDisable: what part of the promised time passes until the features are off."""
    begun = time.monotonic()
    act(site, namespace, "EmergencyDisable")
    return (off_since(site, namespace, begun) - begun) / promised(site, namespace)


def recorded(site: FaultSite, *, rolled_back: str = "", disabled: str = "") -> None:
    """Wait until status and answers say what the documents have said before."""
    if rolled_back:
        site.lab.until(lambda: look(site, rolled_back)["outcome"] == "RolledBack", 60, "the rollback in status")
    if disabled:
        told = {"disabled": ["alpha", "beta"], "answers": [("EmergencyDisable", True, "Accepted")]}
        site.lab.until(lambda: told.items() <= look(site, disabled).items(), 60, "the emergency in status")


@contextmanager
def reading_alone(site: FaultSite) -> Iterator[None]:
    """Every right taken away but reading rollouts and actions, the Lease and ConfigMaps."""
    site.grant({**READING, "verbs": ["get", "list", "watch"]}, CONFIG_MAPS)
    try:
        yield
    finally:
        site.grant(*site.shipped())


@pytest.mark.parametrize("guards", sorted({9, 16, MOST_GUARDS}))
def test_all_guards_in_breach_at_once(fault_site: FaultSite, guards: int) -> None:
    """R1: every status that a decision gives is accepted by the API server, and nothing waits for it."""
    namespace = f"guards-{guards}"
    holding(fault_site, namespace, guards=guards)
    assert breach(fault_site, namespace) < 1
    recorded(fault_site, rolled_back=namespace)
    assert set(look(fault_site, namespace)["features"].values()) == {0.0}


def test_status_writes_refused(fault_site: FaultSite) -> None:
    """R12: at the beginning, in the middle and at the end of the refusal; status learns of it afterwards."""
    breaches, emergencies = ([f"refused-{kind}-{number}" for number in range(3)] for kind in ("breach", "emergency"))
    holding(fault_site, *breaches, *emergencies)
    begun, off = time.monotonic(), dict[str, float]()
    with fault_site.proxy.refuse("status") as refusal:
        for number in range(3):
            fault_site.lab.until(
                lambda number=number: time.monotonic() - begun >= number * REFUSED_SECONDS / 2, REFUSED_SECONDS, "the time"
            )
            assert breach(fault_site, breaches[number]) < 1
            off[breaches[number]] = time.monotonic()
            assert emergency(fault_site, emergencies[number]) < 1
            off[emergencies[number]] = time.monotonic()
        assert refusal.count > 0
    for rolled_back, disabled in zip(breaches, emergencies, strict=True):
        recorded(fault_site, rolled_back=rolled_back, disabled=disabled)
    again = {namespace: on_again(fault_site, namespace, since) for namespace, since in off.items()}
    assert {namespace: documents for namespace, documents in again.items() if documents} == {}


def test_every_right_taken_away(fault_site: FaultSite) -> None:
    """R12: neither a status, nor an answer, an Event or a Job can be written."""
    holding(fault_site, "rightless-breach", "rightless-emergency")
    with reading_alone(fault_site):
        assert breach(fault_site, "rightless-breach") < 1
        assert emergency(fault_site, "rightless-emergency") < 1
    recorded(fault_site, rolled_back="rightless-breach", disabled="rightless-emergency")


def test_answers_events_and_records_that_hang(fault_site: FaultSite) -> None:
    """R6, R7: an admission webhook that does not respond; each of these writes would otherwise take ten seconds."""
    holding(fault_site, "hanging-breach", "hanging-emergency")
    with fault_site.proxy.refuse("answer", "event", "record", code=HANGS) as hanging:
        for rejected in ("Resume", "Adopt", "Reset"):
            act(fault_site, "hanging-breach", rejected)
        fault_site.lab.until(lambda: hanging.count > 0, 30, "a write that hangs")
        assert breach(fault_site, "hanging-breach") < 1
        assert emergency(fault_site, "hanging-emergency") < 1
    recorded(fault_site, rolled_back="hanging-breach", disabled="hanging-emergency")


def test_a_refused_release_is_tried_again(fault_site: FaultSite) -> None:
    """R3: `deletionPolicy: Off` switches off, although the first write of the document is refused."""
    runs = [Run(DELETE, (Fault("document", 1, "before", code),)) for code in ("403", "409", "422", "429", "500", "503")]
    play(fault_site, runs, {}, seconds=30)
    assert {str(run): run.problems for run in runs if run.problems} == {}


def test_giving_up_a_release_is_an_event(fault_site: FaultSite) -> None:
    """R3: the rollout is gone in bounded time, and an Event says that its flags were left on."""
    holding(fault_site, "given-up", deletionPolicy="Off")
    with fault_site.proxy.refuse("document", namespace="given-up"):
        fault_site.lab.kubectl("delete", "sro", NAME, "-n", "given-up", "--timeout=180s")
    assert set(shares(fault_site.lab.document(FLAG_SET, "given-up")).values()) == {50.0}
    events = fault_site.lab.kube.get("/api/v1/namespaces/given-up/events")["items"]
    assert ("FlagsNotReleased", "Warning") in {(event["reason"], event["type"]) for event in events}


def policy(expression: str, group: str, resource: str) -> tuple[Object, Object]:
    """A ValidatingAdmissionPolicy about updates of one resource, and its binding."""
    kind, metadata = "ValidatingAdmissionPolicy", {"name": "faults"}
    rule = {"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": expression}]}
    version = {"apiVersion": "admissionregistration.k8s.io/v1"}
    binding = {"policyName": "faults", "validationActions": ["Deny"]}
    return (
        {**version, "kind": kind, "metadata": metadata, "spec": spec},
        {**version, "kind": f"{kind}Binding", "metadata": metadata, "spec": binding},
    )


@contextmanager
def answers_denied(site: FaultSite, namespace: str) -> Iterator[None]:
    """A real policy denies the answers of the actions of a namespace; in force once it denies that of a probe."""
    objects = policy(f"object.metadata.namespace != '{namespace}'", "sessionrollout.dev", "sessionrolloutactions/status")
    for each in objects:
        site.lab.apply(each)
    act(site, namespace, "Pause")
    probe = f"{ACTIONS.format(namespace)}/pause"
    try:
        site.lab.until(lambda: _refused(site, f"{probe}/status?dryRun=All"), 20, "the policy in force")
        site.lab.kube.delete(probe)
        yield
    finally:
        for each in objects:
            site.lab.kube.delete(site.lab.path_of(each))


def _refused(site: FaultSite, path: str) -> bool:
    try:
        site.lab.kube.merge(path, {"status": {"message": "probe"}})
    except ApiError as error:
        return error.code == 422
    return False


def test_a_refused_answer_keeps_nothing_back(fault_site: FaultSite) -> None:
    """R7: the Job of the next gate starts, an emergency has its effect, and the answers come when they may."""
    gates = [{"name": "go", "approval": {}}]
    namespace = "unanswered"
    fault_site.namespace(namespace)
    fault_site.prometheus.set(namespace, GOOD)
    phase = {"name": "one", "features": ["alpha", "beta"], "steps": LONG}
    spec = rollout(namespace, preflight=gates, phases=[phase], guards=0)
    spec["spec"]["preflight"].append({"name": "smoke", "job": {"profile": "smoke"}})
    site = fault_site
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    with answers_denied(site, namespace):
        site.lab.apply(spec)
        act(site, namespace, "Approve", check="go", generation=1)
        site.lab.until(lambda: site.lab.kube.get(jobs)["items"], 20, "the Job of the gate")
        hold(site, namespace)
        assert emergency(site, namespace) < 1
        refusals = site.lab.within(lambda: look(site, namespace)["refusals"], 60, "the refusal in status")
        assert {each["resource"] for each in refusals} == {"sessionrolloutactions/status"}
    answered = lambda: all(accepted for _, accepted, _ in look(site, namespace)["answers"])  # noqa: E731
    site.lab.until(answered, 60, "both answers")
    site.lab.until(lambda: not look(site, namespace)["refusals"], 60, "no refusal any more")


def test_a_document_write_that_arrives_late_changes_nothing(fault_site: FaultSite) -> None:
    """R8: the write carries the version that was read; what was published meanwhile stays."""
    site, namespace = fault_site, "late"
    site.namespace(namespace)
    site.prometheus.set(namespace, GOOD)
    site.proxy.arm("A", namespace, [Fault("document", 2, "before", "late")])
    site.lab.apply(rollout(namespace))
    hold(site, namespace)
    begun = time.monotonic()
    act(site, namespace, "EmergencyDisable")
    off_since(site, namespace, begun)
    site.lab.until(lambda: site.proxy.late, 20, "the late write")
    assert site.proxy.late.pop() == 409
    assert on_again(site, namespace, begun) == []
    recorded(site, disabled=namespace)


def test_a_full_quota_is_in_status_within_a_minute(fault_site: FaultSite) -> None:
    """R11: verb, resource, namespace, the server's words and since when; the rollout is Stalled until there is room."""
    site, namespace = fault_site, "full"
    site.namespace(namespace)
    site.prometheus.set(namespace, GOOD)
    maps, quota = f"/api/v1/namespaces/{namespace}/configmaps", f"/api/v1/namespaces/{namespace}/resourcequotas/full"
    site.lab.until(lambda: site.lab.kube.get(maps)["items"], 20, "the ConfigMap that each namespace has")
    limit = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "full"},
        "spec": {"hard": {"count/configmaps": "1"}},
    }
    site.lab.kube.apply(quota, limit)
    site.lab.until(lambda: site.lab.kube.get(quota).get("status", {}).get("used"), 20, "the quota in force")
    site.lab.apply(rollout(namespace))
    seen = site.lab.within(lambda: (found := look(site, namespace))["refusals"] and found, 60, "the refusal in status")
    refusal = next(each for each in seen["refusals"] if each["resource"] == "configmaps")
    assert refusal["namespace"] == namespace
    assert refusal["verb"] in {"create", "patch", "update"}
    assert "exceeded quota" in refusal["message"]
    assert refusal["since"]
    assert (seen["conditions"]["Stalled"], seen["conditions"]["Ready"]) == ("True", "False")
    site.lab.kube.delete(quota)
    hold(site, namespace)
    site.lab.until(lambda: not look(site, namespace)["refusals"], 30, "no refusal any more")
    assert look(site, namespace)["conditions"]["Stalled"] == "False"


def test_a_missing_right_is_in_status_within_a_minute(fault_site: FaultSite) -> None:
    """R11: as the API server words it."""
    site, namespace = fault_site, "forbidden"
    rules = [rule for rule in site.shipped() if "configmaps" not in rule["resources"]]
    holding(site, namespace)
    site.grant(*rules, {**CONFIG_MAPS, "verbs": ["get", "list", "watch"]})
    try:
        act(site, namespace, "EmergencyDisable")
        refusals = site.lab.within(lambda: look(site, namespace)["refusals"], 60, "the refusal in status")
        assert any("forbidden" in each["message"] and each["resource"] == "configmaps" for each in refusals)
    finally:
        site.grant(*site.shipped())
    recorded(site, disabled=namespace)
    assert set(look(site, namespace)["features"].values()) == {-1.0}


def take_away(site: FaultSite, verbs: set[str], *plurals: str) -> None:
    """Take these verbs of these resources away."""
    rules = [{**rule, "resources": [plural]} for rule in site.shipped() for plural in rule["resources"]]
    site.grant(
        *(
            {**rule, "verbs": [verb for verb in rule["verbs"] if verb not in verbs]}
            if rule["resources"][0] in plurals
            else rule
            for rule in rules
        )
    )


def test_watch_that_is_refused_for_a_minute_is_in_status(fault_site: FaultSite) -> None:
    """R11: actions are still listed, so that an emergency takes seconds longer; it ends when they may be watched."""
    site, namespace = fault_site, "unwatched"
    holding(site, namespace)
    take_away(site, {"watch"}, "sessionrolloutactions")
    try:
        site.lab.until(lambda: site.proxy.disturb("sessionrolloutactions", "cut"), 20, "an open watch")
        # One minute, the pause before the next attempt, and a slow list.
        [refusal] = site.lab.until(lambda: look(site, namespace)["refusals"], 100, "the refusal in status")
        assert (refusal["effect"], refusal["verb"], refusal["resource"]) == ("WatchActions", "watch", "sessionrolloutactions")
        assert "forbidden" in refusal["message"]
        assert look(site, namespace)["conditions"]["Stalled"] == "True"
        act(site, namespace, "EmergencyDisable")
        site.lab.within(lambda: look(site, namespace)["disabled"], 40, "the emergency")
    finally:
        site.grant(*site.shipped())
    site.lab.until(lambda: not look(site, namespace)["refusals"], 40, "no refusal any more")


def test_what_cannot_be_listed_is_in_status_within_a_minute(fault_site: FaultSite) -> None:
    """R11: an operator that may not list actions and documents says so; it ends when it may."""
    site, namespace = fault_site, "deaf"
    unlisted = {"sessionrolloutactions": "ListActions", "configmaps": "ListDocuments"}
    holding(site, namespace)
    take_away(site, {"list", "watch"}, *unlisted)

    def refusals() -> dict[str, tuple[str, str]]:
        """But of watches: one may end meanwhile."""
        found = look(site, namespace)["refusals"]
        return {each["effect"]: (each["verb"], each["resource"]) for each in found if each["verb"] == "list"}

    try:
        site.lab.within(lambda: len(refusals()) == 2, 70, "the refusals in status")
        assert refusals() == {effect: ("list", resource) for resource, effect in unlisted.items()}
        seen = look(site, namespace)
        assert all("forbidden" in each["message"] and each["since"] and each["remedy"] for each in seen["refusals"])
        assert seen["conditions"]["Stalled"] == "True"
        assert set(shares(site.lab.document(FLAG_SET, namespace)).values()) == {50.0}
    finally:
        site.grant(*site.shipped())
    site.lab.until(lambda: not look(site, namespace)["refusals"], 40, "no refusal any more")
    assert look(site, namespace)["conditions"]["Stalled"] == "False"


@pytest.mark.parametrize(
    ("plural", "do"), [("sessionrollouts", "garbage"), ("sessionrolloutactions", "error"), ("configmaps", "cut")]
)
def test_a_broken_watch_costs_seconds(fault_site: FaultSite, plural: str, do: str) -> None:
    """R15: a new watch, whatever came instead of an event."""
    namespace = f"watch-{plural.removeprefix('sessionrollout')}-{do}"
    holding(fault_site, namespace)
    operator = fault_site.operators["A"]
    assert operator.process is not None
    before = len(operator.process.log.read_text())
    fault_site.lab.until(lambda: fault_site.proxy.disturb(plural, do), 20, "an open watch")
    begun = time.monotonic()
    act(fault_site, namespace, "EmergencyDisable")

    def disabled() -> bool:
        fault_site.keep_running()
        return bool(look(fault_site, namespace)["disabled"])

    fault_site.lab.within(disabled, 15, "the emergency")
    off_since(fault_site, namespace, begun)
    lines = operator.process.log.read_text()[before:].splitlines()
    assert [line for line in lines if not line.startswith("{")] == []
