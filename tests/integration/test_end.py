"""The end of a process whose Prometheus and sink hang: within five seconds, with the Lease released."""

import signal
import time

from integration.rollouts import LONG, rollout
from lab.lab import LEASE, Lab
from misbehaving_api import misbehaving_api

END_SECONDS = 5.0


def test_signal_ends_a_leader_whose_provider_and_sink_hang(lab: Lab) -> None:
    """Their threads wait for answers that do not come; a thread cannot be cancelled."""
    with misbehaving_api() as prometheus, misbehaving_api() as sink:
        prometheus.hangs = sink.hangs = True
        provider = {"url": f"http://127.0.0.1:{prometheus.server_port}", "timeout": "30s"}
        hook = {"webhook": {"url": f"http://127.0.0.1:{sink.server_port}/hook"}, "timeout": "30s"}
        process = lab.start_operator(prometheus={"default": provider}, sinks={"hook": hook})
        try:
            notifications = [{"sink": "hook", "events": ["StepPublished"]}]
            lab.apply(rollout("ending", LONG, notifications=notifications))
            lab.until(lambda: prometheus.waiting and sink.waiting, 60, "a query and a notification that hang")
            begun = time.monotonic()
            process.send(signal.SIGTERM)
            process.popen.wait(END_SECONDS)
            assert time.monotonic() - begun < END_SECONDS
            assert process.popen.returncode == 0
            assert lab.kube.get(LEASE)["spec"].get("holderIdentity", "") == ""
        finally:
            process.kill()
            lab.configure()
            lab.kube.delete("/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrollouts/ending")
