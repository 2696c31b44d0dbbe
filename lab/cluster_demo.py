"""`make cluster-demo`: the chart on a real node, as a platform team would use it.

helm installs it with its default values into a namespace that enforces PodSecurity `restricted`; `helm test`; the minimal
example and then the whole rollout are promoted by an operator that runs as a Pod, with migrations in containers;
`helm uninstall` leaves the flags. Does its own set-up on a bare Debian machine as root; every command is shown.
`make cluster-demo > docs/recordings/cluster-demo.txt` records it.
"""

import json
import subprocess
import sys
import time
from typing import Any

import yaml
from rich.console import Console

from lab import images, sources
from lab.demo import Demo
from lab.kube import Object
from lab.lab import OPERATOR_NAMESPACE, ROOT, Lab, ended_by_signals
from lab.processes import StartFailed
from lab.session_persistence import NAME, NAMESPACE, example, scaled

RELEASE = "session-rollout"
SHOP = "shop"
EARLIER = "0.0.9"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


class ClusterDemo(Demo):
    """The demo with everything in Pods."""

    def prepare(self) -> None:
        """Images on the node, namespaces that enforce, and Prometheus where the chart expects it."""
        assert self.lab.real_node is not None
        assert self.lab.prometheus is not None
        for image in (images.operator(), images.application()):
            self.lab.real_node.load(image)
        for namespace in (OPERATOR_NAMESPACE, NAMESPACE, SHOP, "monitoring"):
            metadata = {"name": namespace, "labels": RESTRICTED}
            self.lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        ports = {"web": (9090, self.lab.prometheus.port, "TCP")}
        self.lab.real_node.service("monitoring", "prometheus-operated", ports)

    def install(self) -> None:
        """The project, by helm, under its earlier version."""
        self.helm("install", RELEASE, self._earlier_chart(), "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "120s")
        self.show("get", "pods", "--namespace", OPERATOR_NAMESPACE, "-o", "wide")
        self.helm("test", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--logs")
        self.prove_restricted()
        self.lab.targets["operator"] = (
            self.lab.pod_address(OPERATOR_NAMESPACE, "app.kubernetes.io/component=operator") + ":8080"
        )

    def _earlier_chart(self) -> str:
        """The chart under an earlier version: what a team has before it upgrades to the one of this checkout."""
        self.helm("package", "charts/session-rollout", "--version", EARLIER, "--destination", str(self.lab.directory))
        return str(self.lab.directory / f"session-rollout-{EARLIER}.tgz")

    def helm(self, *argv: str) -> str:
        """Run helm as the administrator and show it; raises TimeoutError when it fails."""
        self._print(f"\n$ helm {' '.join(argv)}")
        command = [str(sources.helm()), "--kubeconfig", str(self.lab.kubeconfig), *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        self._print((done.stdout + done.stderr).strip())
        if done.returncode:
            raise TimeoutError(f"helm {argv[0]} failed")
        return done.stdout

    def _print(self, text: str) -> None:
        self.console.print(text.replace(str(self.lab.directory), "$LAB"), soft_wrap=True)

    def show(self, *argv: str) -> str:
        """Run kubectl as the administrator and show it."""
        self.console.print(f"\n$ kubectl {' '.join(argv)}", soft_wrap=True)
        text = self.lab.kubectl(*argv).stdout
        self.console.print(text.strip(), soft_wrap=True)
        return text

    def prove_restricted(self) -> None:
        """The operator is a Pod under its own ServiceAccount, where a Pod that is not restricted is refused."""
        accounts = {pod["spec"]["serviceAccountName"] for pod in self._operators()}
        self.proof.check(accounts == {RELEASE}, f"the operator runs as Pod under the ServiceAccount {', '.join(accounts)}")
        loose = {"containers": [{"name": "loose", "image": images.OPERATOR}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose"}, "spec": loose}
        refused = self.lab.kubectl("-n", OPERATOR_NAMESPACE, "create", "-f", "-", stdin=json.dumps(body), check=False)
        self.proof.check("violates PodSecurity" in refused.stderr, "a Pod that is not restricted is refused there")

    def _operators(self) -> list[Object]:
        """The operator's Pods, those included that are about to end."""
        ours = "app.kubernetes.io/component=operator"
        pods: list[Object] = self.lab.kube.get(f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods", labelSelector=ours)["items"]
        return pods

    def uninstall(self, release: str = RELEASE) -> str:
        """Output of helm; returns when the Pods have ended, too, for which helm does not wait."""
        output = self.helm("uninstall", release, "--namespace", OPERATOR_NAMESPACE, "--wait")
        self.lab.until(lambda: not self._operators(), 25, "the operator's Pods being gone, before they are killed")
        return output

    def minimal(self) -> None:
        """The minimal example with its times divided, promoted by the operator in the cluster."""
        document = scaled(example("minimal.yaml"))
        document["spec"]["phases"][0]["steps"][0]["hold"] = "15s"
        self.lab.kubectl("-n", SHOP, "apply", "-f", "-", stdin=yaml.safe_dump(document))
        self._upgrade_in_a_hold()
        self.show("-n", SHOP, "wait", "--for=jsonpath={.status.outcome}=Promoted", "sro/minimal", "--timeout=120s")
        self.show("-n", SHOP, "get", "sro", "minimal", "-o", "wide")
        outcome = self.lab.rollout("minimal", SHOP)["status"]["outcome"]
        self.proof.check(outcome == "Promoted", f"the minimal example: {outcome}")

    def _upgrade_in_a_hold(self) -> None:
        """From the earlier chart to this one while the first step holds: it resumes where it was, and the hold is not shorter."""

        def current() -> Object:
            return dict(self.lab.rollout("minimal", SHOP).get("status", {}).get("current", {}))

        self.lab.until(lambda: current().get("holdUntil"), 60, "a hold")
        before = current()
        self.helm(
            "upgrade", RELEASE, "charts/session-rollout", "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", "120s"
        )
        after = current()
        same = (after["step"], after["percent"], after["stageStartTime"]) == (
            before["step"],
            before["percent"],
            before["stageStartTime"],
        )
        text = f"helm upgrade from {EARLIER} in a hold: step {after['step']} at {after['percent']}% continues, until {after['holdUntil']}"
        self.proof.check(same and after["holdUntil"] >= before["holdUntil"], f"{text} (before: {before['holdUntil']})")

    def whole(self) -> None:
        """Install, the minimal example, the rollout, and removal."""
        self.prepare()
        self.set_up()
        self.promote(600)
        self.minimal()
        self._prove_jobs_were_containers()
        self._prove_removal()

    def _prove_jobs_were_containers(self) -> None:
        pods = self.lab.kube.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector="sessionrollout.dev/migration")["items"]
        runtimes = {
            container["containerID"].split(":")[0] for pod in pods for container in pod["status"].get("containerStatuses", [])
        }
        tokens = [volume for pod in pods for volume in pod["spec"].get("volumes", []) if "projected" in volume]
        self.proof.check(
            runtimes == {"containerd"} and not tokens,
            f"{len(pods)} migration Pods ran in {', '.join(runtimes)}, none with a token",
        )

    def _prove_removal(self) -> None:
        before = self._documents()
        self.proof.check("kept due to the resource policy" in self.uninstall(), "helm uninstall reports that the CRDs are kept")
        self.proof.check(before == self._documents() and len(before) == 2, f"{len(before)} flag documents are as they were")
        kept = [self.lab.rollout(*place)["status"]["outcome"] for place in ((NAME, NAMESPACE), ("minimal", SHOP))]
        self.proof.check(kept == ["Promoted", "Promoted"], f"both rollouts are there: {', '.join(kept)}")
        names = [feature["name"] for feature in self.object["spec"]["features"]]
        on = [name for name in names if self.application.share(name, 50) == 1]
        self.proof.check(on == names, f"the application still has {len(on)} of {len(names)} features on for all users")
        self.show("get", "configmaps", "-A", "-l", "sessionrollout.dev/rollout")

    def _documents(self) -> dict[str, Any]:
        config_maps: list[Object] = self.lab.kube.get("/api/v1/configmaps", labelSelector="sessionrollout.dev/rollout")["items"]
        return {item["metadata"]["name"]: item["data"] for item in config_maps if item["metadata"]["name"].endswith("-flags")}


def main() -> None:
    """Entry point."""
    console = Console(highlight=False, width=200)
    begun = time.monotonic()
    with ended_by_signals():
        try:
            with Lab(real_node=True) as lab:
                demo = ClusterDemo(lab, console, seed=1)
                demo.whole()
                demo.recorder.stop()
        except (StartFailed, TimeoutError) as error:
            sys.exit(f"cluster-demo: {error}")
    sys.exit(demo.proof.report(console, f"{time.monotonic() - begun:.0f} s"))


if __name__ == "__main__":
    main()
