"""A Pod of the process node: its volumes, and the process of its one container.

It does what a Job's or a small Deployment's Pod needs: command, args, env with valueFrom, Secret, ConfigMap and emptyDir
volumes, termination message, logs, exit codes, HTTP readiness, SIGTERM then SIGKILL, restart of `Always` containers. Paths
under a volume's mountPath and the termination log exist under the Pod's own directory; where they occur in args and env,
they are replaced by where they really are.
"""

import base64
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from lab import reasons_only
from lab.kube import ApiError, Kube, Object
from lab.processes import die_with_parent

if TYPE_CHECKING:
    from lab.node import Node

TICK = 0.05
TERMINATION_LOG = "/dev/termination-log"
MESSAGE_BYTES = 4096


def now() -> str:
    """The API server's time format."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Volume:
    """One mounted volume; ConfigMaps are swapped atomically by a `..data` link, as a kubelet does."""

    def __init__(self, kube: Kube, namespace: str, spec: Object, directory: Path) -> None:
        self.kube, self.namespace, self.spec, self.directory = kube, namespace, spec, directory
        self.generation = 0
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def config_map(self) -> str | None:
        """The ConfigMap it shows."""
        name: str | None = self.spec.get("configMap", {}).get("name")
        return name

    def load(self) -> bool:
        """Fill it; false when something required does not exist yet."""
        if source := self.spec.get("configMap"):
            config_map = self.kube.find(f"/api/v1/namespaces/{self.namespace}/configmaps/{source['name']}")
            return (
                self._show({} if config_map is None else _texts(config_map), source)
                if config_map or source.get("optional")
                else False
            )
        if source := self.spec.get("secret"):
            secret = self.kube.find(f"/api/v1/namespaces/{self.namespace}/secrets/{source['secretName']}")
            if secret is None:
                return bool(source.get("optional"))
            return self._show({key: base64.b64decode(value) for key, value in secret.get("data", {}).items()}, source)
        return True

    def _show(self, files: dict[str, bytes], source: Object) -> bool:
        wanted = {item["key"]: item["path"] for item in source.get("items", [])}
        if any(key not in files for key in wanted):
            return False
        self.generation += 1
        data = self.directory / f"..{self.generation}"
        data.mkdir()
        for key, content in files.items():
            if not wanted or key in wanted:
                (data / wanted.get(key, key)).write_bytes(content)
        link = self.directory / "..new"
        link.symlink_to(data.name)
        link.rename(self.directory / "..data")
        for path in data.iterdir():
            visible = self.directory / path.name
            if not visible.is_symlink():
                visible.symlink_to(Path("..data", path.name))
        return True

    def changed(self, config_map: Object) -> None:
        """Show the new content of the ConfigMap."""
        self._show(_texts(config_map), self.spec["configMap"])


def _texts(config_map: Object) -> dict[str, bytes]:
    return {key: value.encode() for key, value in (config_map.get("data") or {}).items()}


class Pod:
    """One Pod and the process of its single container."""

    def __init__(self, node: "Node", pod: Object) -> None:
        self.node, self.kube = node, node.kube
        self.namespace, self.name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self.uid, self.object = pod["metadata"]["uid"], pod
        self.spec, self.container = pod["spec"], pod["spec"]["containers"][0]
        self.directory = node.directory / self.uid
        self.directory.mkdir(parents=True)
        self.log = node.directory / f"{self.name}.log"
        self.message = self.directory / "termination-log"
        self.volumes = {
            volume["name"]: Volume(self.kube, self.namespace, volume, self.directory / "volumes" / volume["name"])
            for volume in self.spec.get("volumes", [])
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.deleted = threading.Event()
        self.restarts = 0
        self.grace = 30.0

    @property
    def path(self) -> str:
        """Its URL path."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def run(self) -> None:
        """From bound to ended; runs in a thread of its own."""
        try:
            time.sleep(self.node.start_delay)
            if self._mount():
                self._live()
        except (ApiError, requests.RequestException) as error:
            print(f"process node: {self.name}: {error}", file=sys.stderr)
        finally:
            self._end_process()
            if self.deleted.is_set():
                with contextlib.suppress(ApiError, requests.RequestException):
                    self.kube.delete(self.path, gracePeriodSeconds=0)
            self.node.forget(self)
            shutil.rmtree(self.directory, ignore_errors=True)

    def _mount(self) -> bool:
        while not all(volume.load() for volume in self.volumes.values()):
            if self.deleted.wait(0.5):
                return False
        return True

    def _live(self) -> None:
        while not self.deleted.is_set():
            started = self._start()
            ready = False
            while self.process and self.process.poll() is None and not self.deleted.wait(TICK):
                if not ready and self._probe():
                    ready = True
                    self._report("Running", {"running": {"startedAt": started}}, ready=True)
            code = self._end_process()
            if self.deleted.is_set() or not self._ended(code, started):
                return

    def _ended(self, code: int, started: str) -> bool:
        """Report the end; true when it has to be started again."""
        text = self.message.read_bytes()[-MESSAGE_BYTES:].decode(errors="replace") if self.message.exists() else ""
        if not text and code and self.container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            text = self.log.read_bytes()[-2048:].decode(errors="replace")
        state = {
            "exitCode": 128 - code if code < 0 else code,
            "signal": -code if code < 0 else 0,
            "reason": "Completed" if code == 0 else "Error",
            "message": text,
            "startedAt": started,
            "finishedAt": now(),
        }
        if self.spec.get("restartPolicy", "Always") == "Always":
            self.restarts += 1
            self._report("Running", {"waiting": {"reason": "CrashLoopBackOff"}}, ready=False)
            return not self.deleted.wait(0.5)
        self._report("Succeeded" if code == 0 else "Failed", {"terminated": state}, ready=False)
        return False

    def _start(self) -> str:
        argv = reasons_only.installed_program([*self.container.get("command", []), *self.container.get("args", [])])
        program = Path(sys.executable).parent / argv[0]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **{entry["name"]: self._translate(self._value(entry)) for entry in self.container.get("env", [])},
        }
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                [
                    str(program if program.exists() else argv[0]),
                    *(_expand(self._translate(part), environment) for part in argv[1:]),
                ],
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=self.directory,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call, no locks taken
            )
        started = now()
        has_probe = "readinessProbe" in self.container
        self._report("Running", {"running": {"startedAt": started}}, ready=not has_probe)
        return started

    def _translate(self, text: str) -> str:
        text = text.replace(self.container.get("terminationMessagePath", TERMINATION_LOG), str(self.message))
        for mount in self.container.get("volumeMounts", []):
            text = text.replace(mount["mountPath"], str(self.volumes[mount["name"]].directory))
        return text

    def _value(self, entry: Object) -> str:
        match entry.get("valueFrom"):
            case {"fieldRef": {"fieldPath": str(path)}}:
                value: object = self.object
                for name, key in re.findall(r"\.?(\w+)|\['([^']+)'\]", path):
                    value = value[name or key]  # type: ignore[index]
                return str(value)
            case {"secretKeyRef": {"name": name, "key": key}}:
                secret = self.kube.get(f"/api/v1/namespaces/{self.namespace}/secrets/{name}")
                return base64.b64decode(secret["data"][key]).decode()
            case {"configMapKeyRef": {"name": name, "key": key}}:
                return str(self.kube.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")["data"][key])
        return str(entry.get("value", ""))

    def _probe(self) -> bool:
        probe = self.container.get("readinessProbe", {}).get("httpGet")
        if probe is None:
            return False
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{probe['port']}{probe['path']}", timeout=0.5):
                return True
        except OSError:
            return False

    def _end_process(self) -> int:
        if self.process is None:
            return 0
        for number, grace in ((signal.SIGTERM, self.grace), (signal.SIGKILL, 5.0)):
            if self.process.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        return self.process.wait()

    def kill(self) -> None:
        """SIGKILL its process, as the kernel would."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def _report(self, phase: str, state: Object, *, ready: bool) -> None:
        moment = now()
        conditions = [
            {"type": kind, "status": "True" if ready or kind == "PodScheduled" else "False", "lastTransitionTime": moment}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        container = {
            "name": self.container["name"],
            "image": self.container["image"],
            "imageID": "process",
            "ready": ready,
            "restartCount": self.restarts,
            "started": "running" in state,
            "state": state,
        }
        status = {
            "phase": phase,
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "hostIP": "127.0.0.1",
            "startTime": moment,
            "conditions": conditions,
            "containerStatuses": [container],
        }
        while not self.node.vanished.is_set():
            try:
                self.kube.merge(f"{self.path}/status", {"status": status})
            except ApiError as error:
                if error.code in {404, 409}:
                    return
                raise
            except requests.ConnectionError:
                time.sleep(0.2)
            else:
                return


def _expand(text: str, environment: dict[str, str]) -> str:
    """`$(NAME)` in args, as Kubernetes replaces it."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda match: environment.get(match[1], match[0]), text)
