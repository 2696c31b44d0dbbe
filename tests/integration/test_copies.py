"""A copy of a flag document has its labels and changes nothing: the real watch delivers it as it delivers the document.

Not here: the sweep, and copies of Jobs and records (tests/controller/test_copies.py, tests/adapters, tests/records).
"""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lab.fault_scenarios import BREACH, GOOD, LONG, NAME, ROLLOUTS, look, off_since, promised, rollout
from lab.fault_site import FLAG_SET, FaultSite
from lab.kube import Kube, Object
from lab.recorder import KEY

NAMESPACE, ELSEWHERE = "copied", "copied-elsewhere"
CONFIG_MAPS = "/api/v1/namespaces/{}/configmaps"
COPY = f"{CONFIG_MAPS}/{FLAG_SET}-flags-off".format(NAMESPACE)


def copied(config_map: Object, name: str) -> Object:
    """The ConfigMap under another name, in which each feature is off for everybody, as in an emergency."""
    document = json.loads(config_map["data"][KEY])
    for feature in ("alpha", "beta"):
        document["flags"][feature].pop("targeting")
    metadata = {"name": name, "labels": config_map["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: json.dumps(document)}}


def evaluated(site: FaultSite, times: int) -> None:
    """Let the operator measure, and so decide, with values that are all good."""
    for number in range(times):
        value = f"{GOOD}{number}"
        site.prometheus.set(NAMESPACE, value)
        site.lab.until(lambda value=value: site.prometheus.answered(NAMESPACE, value), 20, "a measurement")


@contextmanager
def touched(site: FaultSite) -> Iterator[None]:
    """Somebody changes an annotation of the copy, without a pause."""
    stopped, kube = threading.Event(), Kube(site.lab.kubeconfig)

    def touch() -> None:
        for number in itertools.takewhile(lambda _: not stopped.is_set(), itertools.count()):
            kube.merge(COPY, {"metadata": {"annotations": {"touched": str(number)}}})

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def holding(site: FaultSite, namespace: str, flag_set: str) -> Object:
    """The document of a rollout that holds 50%."""
    site.namespace(namespace)
    site.prometheus.set(namespace, GOOD)
    site.lab.apply(rollout(namespace, LONG, flagSet=flag_set))
    path = f"{ROLLOUTS.format(namespace)}/{NAME}"
    site.lab.until(lambda: site.lab.kube.get(path).get("status", {}).get("current", {}).get("holdUntil"), 60, "the hold")
    return site.lab.kube.get(f"{CONFIG_MAPS.format(namespace)}/{flag_set}-flags")


def untouched(site: FaultSite, document: Object) -> None:
    """It is as it was, and its rollout says nothing of an edit."""
    namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
    status = site.lab.kube.get(f"{ROLLOUTS.format(namespace)}/{NAME}")["status"]
    assert site.lab.kube.get(f"{CONFIG_MAPS.format(namespace)}/{name}") == document
    assert status["flags"].get("disabled", []) == []
    assert not {"FlagsDisabled", "FlagDrift"} & {entry["event"] for entry in status["history"]}


def test_copy_turns_nothing_off_and_delays_no_rollback(fault_site: FaultSite) -> None:
    """Somebody prepares the edit for an emergency; a tool mirrors it into another namespace with a rollout of this name."""
    kube, prometheus = fault_site.lab.kube, fault_site.prometheus
    document, other = holding(fault_site, NAMESPACE, FLAG_SET), holding(fault_site, ELSEWHERE, "other")
    kube.create(CONFIG_MAPS.format(NAMESPACE), copied(document, f"{FLAG_SET}-flags-off"))
    kube.create(CONFIG_MAPS.format(ELSEWHERE), copied(document, f"{FLAG_SET}-flags"))
    evaluated(fault_site, 4)
    untouched(fault_site, document)
    untouched(fault_site, other)
    with touched(fault_site):
        evaluated(fault_site, 2)
        begun = time.monotonic()
        prometheus.set(NAMESPACE, BREACH)
        off = off_since(fault_site, NAMESPACE, begun)
        assert off - prometheus.answered(NAMESPACE, BREACH) < promised(fault_site, NAMESPACE)
    fault_site.lab.until(lambda: look(fault_site, NAMESPACE)["outcome"] == "RolledBack", 60, "the rollback in status")
    untouched(fault_site, other)
