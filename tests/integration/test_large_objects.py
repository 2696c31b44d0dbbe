"""Objects as large as annotations allow, many of them, in one namespace: the operator of all namespaces starts, lists and watches."""

import psutil

from lab.fault_scenarios import LONG, act, look, rollout
from lab.fault_site import FaultSite

OBJECTS = 140
ANNOTATION = 250_000  # of the 256 KiB that the API server allows
MEGABYTES = 300  # of the 512 that the chart allows
HEALTHY, LARGE = "beside-large", "large"


def test_large_annotations_of_one_namespace_keep_nobody_from_being_protected(fault_site: FaultSite) -> None:
    """Together they are larger than any answer that is read; the process neither ends nor keeps them."""
    for namespace in (HEALTHY, LARGE):
        fault_site.namespace(namespace)
    fault_site.lab.apply(rollout(HEALTHY, LONG))
    path = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{LARGE}/sessionrollouts"
    for number in range(OBJECTS):
        made = rollout(LARGE, LONG)
        name = f"r{number}"
        made["metadata"] |= {"name": name, "annotations": {"example.com/notes": "x" * ANNOTATION}}
        made["spec"] |= {"flagSet": name, "suspend": True}
        fault_site.lab.kube.create(path, made)
    operator = fault_site.operators["A"]
    assert operator.process is not None
    operator.process.stop()
    fault_site.keep_running()
    fault_site.lab.until(lambda: fault_site.leads(operator), 60, "the Lease")
    pid = operator.process.popen.pid
    act(fault_site, HEALTHY, "EmergencyDisable")
    fault_site.lab.until(lambda: look(fault_site, HEALTHY)["disabled"], 20, "the emergency")
    last = f"{path}/r{OBJECTS - 1}"
    fault_site.lab.until(lambda: "status" in fault_site.lab.kube.get(last), 120, "the status of the last one")
    assert psutil.Process(pid).memory_info().rss / 2**20 < MEGABYTES
    fault_site.keep_running()
    assert operator.process.popen.pid == pid
    assert "larger" not in operator.process.log.read_text()
