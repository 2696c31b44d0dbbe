"""A real node: containerd, kubelet, kube-proxy, kube-scheduler and CoreDNS, as processes beside the control plane.

`LAB_NODE=containerd` takes it instead of the process node. It needs root on Linux and Debian's packages; one at a time
runs on a machine, for the kubelet's cgroups and the rules of iptables are the machine's own.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import yaml

from lab import images, sources
from lab.cluster import Cluster
from lab.kube import Kube
from lab.processes import Process, Processes, free_port

BRIDGE: Final = "lab0"
ADDRESS: Final = "10.244.0.1"
PODS: Final = "10.244.0.0/24"
DNS: Final = "10.96.0.10"
NAME: Final = "lab-node"
PACKAGES: Final = ("containerd", "runc", "containernetworking-plugins", "iptables", "conntrack", "podman", "iproute2")


@dataclass(frozen=True)
class Pod:
    """A Pod on the node, as the process node has them: it can be killed."""

    name: str
    namespace: str
    containers: tuple[str, ...]
    node: "RealNode"

    def kill(self) -> None:
        """SIGKILL of its containers."""
        for container in self.containers:
            self.node.ctr("tasks", "kill", "--signal", "SIGKILL", container)


class RealNode:
    """One node; `prepare` before the control plane starts, `start` after."""

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.directory, self.processes = directory, processes
        self.socket = directory / "containerd.sock"
        self._lock: IO[str] | None = None
        self._rules = ""

    # --- before

    def prepare(self) -> None:
        """Packages, images, and the bridge whose address every server listens on."""
        if os.geteuid() != 0:
            raise SystemExit("lab: LAB_NODE=containerd needs root")
        sources.packages(*PACKAGES)
        self._lock = (sources.cache() / "node.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("lab: another real node runs on this machine") from None
        self._rules = self._run("iptables-save")
        self._remove_bridge()
        for command in (
            f"ip link add {BRIDGE} type bridge",
            f"ip addr add {ADDRESS}/24 dev {BRIDGE}",
            f"ip link set {BRIDGE} up",
            "sysctl -qw net.ipv4.ip_forward=1 fs.inotify.max_user_instances=1024",
            "iptables -P FORWARD ACCEPT",
        ):
            self._run(*command.split())

    def _run(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise SystemExit(f"lab: {' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    # --- after

    def start(self, cluster: Cluster) -> None:
        """Everything a node runs, until it is Ready."""
        self.kube = Kube(cluster.kubeconfig)
        binaries = sources.node(cluster.binaries)
        self._containerd()
        self.load(images.pause())
        kubeconfig = f"--kubeconfig={cluster.kubeconfig}"
        self.processes.start(
            "kube-scheduler",
            [
                binaries / "kube-scheduler",
                kubeconfig,
                "--leader-elect=false",
                f"--cert-dir={self.directory}",
                f"--secure-port={free_port()}",
            ],
        )
        kubelet = self._kubelet(binaries, cluster)
        self._proxy(binaries, cluster)
        self._dns(cluster)
        self.processes.wait(kubelet, self._ready)

    def _containerd(self) -> None:
        config = self.directory / "containerd.toml"
        cni = self.directory / "cni"
        cni.mkdir()
        plugins: list[dict[str, Any]] = [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(self.directory / "ipam"),
                    "ranges": [[{"subnet": PODS, "rangeStart": "10.244.0.10"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ]
        (cni / "10-lab.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": plugins}))
        config.write_text(_CONTAINERD.format(directory=self.directory, socket=self.socket, pause=images.PAUSE, cni=cni))
        self.containerd = self.processes.start(
            "containerd", ["unshare", "--mount", "--propagation", "shared", "containerd", "--config", str(config)]
        )
        self.processes.wait(self.containerd, self.socket.exists)

    def _kubelet(self, binaries: Path, cluster: Cluster) -> Process:
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "port": free_port(),
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(cluster.credentials.ca)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "50Mi"},
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "maxOpenFiles": 20000,
            "nodeStatusUpdateFrequency": "2s",
            "oomScoreAdj": 0,
            "resolvConf": "",
            "staticPodPath": "",
            "syncFrequency": "1s",
            "configMapAndSecretChangeDetectionStrategy": "Watch",
        }
        path = self.directory / "kubelet.yaml"
        path.write_text(yaml.safe_dump(config))
        inside = ["nsenter", "--target", str(self.containerd.popen.pid), "--mount"]
        return self.processes.start(
            "kubelet",
            [
                *inside,
                str(binaries / "kubelet"),
                f"--config={path}",
                f"--kubeconfig={cluster.kubeconfig}",
                f"--root-dir={self.directory / 'kubelet'}",
                f"--cert-dir={self.directory / 'kubelet-pki'}",
                f"--hostname-override={NAME}",
                f"--node-ip={ADDRESS}",
            ],
        )

    def _proxy(self, binaries: Path, cluster: Cluster) -> None:
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(cluster.kubeconfig)},
            "clusterCIDR": PODS,
            "hostnameOverride": NAME,
            "mode": "iptables",
            "bindAddress": ADDRESS,
            "healthzBindAddress": f"{ADDRESS}:{free_port()}",
            "metricsBindAddress": f"{ADDRESS}:{free_port()}",
            "conntrack": {"maxPerCore": 0},
        }
        path = self.directory / "kube-proxy.yaml"
        path.write_text(yaml.safe_dump(config))
        self.processes.start("kube-proxy", [binaries / "kube-proxy", f"--config={path}"])

    def _dns(self, cluster: Cluster) -> None:
        port = free_port()
        corefile = self.directory / "Corefile"
        corefile.write_text(
            f".:{port} {{\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {cluster.kubeconfig} lab\n  }}\n}}\n"
        )
        self.processes.start("coredns", [sources.coredns(), "-conf", str(corefile)])
        self.service("kube-system", "kube-dns", {"dns": (53, port, "UDP"), "dns-tcp": (53, port, "TCP")}, cluster_ip=DNS)

    def service(self, namespace: str, name: str, ports: dict[str, tuple[int, int, str]], cluster_ip: str = "") -> None:
        """A Service of something that runs on the machine: port of the Service, port of the machine, protocol."""
        spec: dict[str, Any] = {
            "ports": [{"name": key, "port": numbers[0], "protocol": numbers[2]} for key, numbers in ports.items()]
        }
        if cluster_ip:
            spec["clusterIP"] = cluster_ip
        root = f"/api/v1/namespaces/{namespace}/services/{name}"
        self.kube.apply(root, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
        endpoints = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-lab", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
            "ports": [{"name": key, "port": numbers[1], "protocol": numbers[2]} for key, numbers in ports.items()],
        }
        self.kube.apply(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}-lab", endpoints)

    def _ready(self) -> bool:
        node = self.kube.find(f"/api/v1/nodes/{NAME}")
        return any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in (node or {}).get("status", {}).get("conditions", [])
        )

    # --- what callers use

    def ctr(self, *argv: str, check: bool = False) -> str:
        """Run containerd's client in Kubernetes' namespace."""
        return self._run("ctr", "--address", str(self.socket), "--namespace", "k8s.io", *argv, check=check)

    def load(self, image: str) -> None:
        """Bring an image from podman to the node."""
        archive = images.save(image, self.directory / "image.tar")
        self.ctr("images", "import", str(archive), check=True)
        archive.unlink()

    @property
    def pods(self) -> dict[str, Pod]:
        """The Pods of the node by namespace and name, with the containers that run."""
        pods = {}
        for pod in self.kube.get("/api/v1/pods")["items"]:
            states = pod.get("status", {}).get("containerStatuses", [])
            running = tuple(state["containerID"].rsplit("/", 1)[-1] for state in states if "running" in state.get("state", {}))
            name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
            pods[f"{namespace}/{name}"] = Pod(name, namespace, running, self)
        return pods

    # --- the end

    def stop(self) -> None:
        """End every container, and leave the machine's network and cgroups as they were."""
        if self.socket.exists():
            with contextlib.suppress(SystemExit):
                for container in self.ctr("tasks", "list", "--quiet").split():
                    self.ctr("tasks", "kill", "--all", "--signal", "SIGKILL", container)
                time.sleep(0.5)
                for container in self.ctr("tasks", "list", "--quiet").split():
                    self.ctr("tasks", "delete", "--force", container)

    def clean(self) -> None:
        """After the processes ended."""
        self._remove_bridge()
        if self._rules:
            subprocess.run(["iptables-restore"], input=self._rules, text=True, check=False)
        self._remove_chains()
        for root in Path("/sys/fs/cgroup").glob("*/kubepods"):
            for path in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    path.rmdir()
            with contextlib.suppress(OSError):
                root.rmdir()
        for path in Path("/run/netns").glob("cni-*"):
            with contextlib.suppress(OSError):
                path.unlink()
        if self._lock is not None:
            self._lock.close()

    def _remove_chains(self) -> None:
        """Kubernetes' own chains of iptables that the restored rules know nothing of."""
        table = ""
        for line in self._run("iptables-save").splitlines():
            table = line[1:] if line.startswith("*") else table
            if line.startswith(":KUBE-") and line not in self._rules:
                for what in ("--flush", "--delete-chain"):
                    self._run("iptables", "--table", table, what, line[1:].split()[0], check=False)

    def _remove_bridge(self) -> None:
        self._run("ip", "link", "delete", BRIDGE, check=False)


_CONTAINERD = """version = 2
root = "{directory}/containerd"
state = "{directory}/state"
oom_score = 0
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"""
