"""Running the plugin against the lab, and the rollout that most tests of commands use."""

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from integration.receivers import PYTHON
from integration.rollouts import holding
from lab import reasons_only
from lab.kube import Object
from lab.lab import IMAGE, Lab
from session_rollout.cli.app import app
from session_rollout.cli.command import Exit, code_of

SHOP = "shop"
DOCUMENTED = {int(code) for code in Exit}
ACTIONS = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrolloutactions"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def environment(lab: Lab, **more: str) -> dict[str, str]:
    """The plugin's environment, with kubectl and the kubeconfig of the lab."""
    where = {"KUBECONFIG": str(lab.kubeconfig), "KUBECTL": lab.kubectl_path, "PYTHONPATH": f"operator{os.pathsep}."}
    return {**os.environ, **where, **more}


def run(lab: Lab, *argv: str, **more: str) -> Done:
    """The plugin as users run it: a process of its own."""
    done = subprocess.run(
        reasons_only.python_module("session_rollout.cli.app", *argv),
        env=environment(lab, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in DOCUMENTED, done
    return Done(done.returncode, done.stdout, done.stderr)


def inside(lab: Lab, *argv: str, **more: str) -> Done:
    """The same in this process, for tables of many commands: to start Python takes longer than what most of them do."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(lab, **more)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = code_of(app, argv)
    assert code in DOCUMENTED, (argv, code)
    return Done(code, out.getvalue(), err.getvalue())


def fine(lab: Lab, *argv: str) -> Done:
    """A command that must succeed."""
    done = run(lab, *argv)
    assert done.code == Exit.DONE, done
    return done


def data(lab: Lab, *argv: str) -> Any:
    """JSON that a command prints; it must succeed."""
    return fine(lab, *argv, "-o", "json").data


def refused(lab: Lab, *argv: str, code: Exit = Exit.REFUSED, command: Callable[..., Done] = run) -> Done:
    """A command that must end with this code, and create no action."""
    before = actions(lab)
    done = command(lab, *argv)
    assert done.code == code, done
    assert actions(lab) == before
    return done


def actions(lab: Lab, rollout: str | None = None) -> list[Object]:
    """Specs of the actions, oldest first."""
    items = lab.kube.get(ACTIONS)["items"]
    ordered = sorted(items, key=lambda item: (item["metadata"]["creationTimestamp"], int(item["metadata"]["resourceVersion"])))
    return [item["spec"] for item in ordered if rollout in (None, item["spec"]["rollout"])]


def status(lab: Lab, name: str) -> Object:
    """Status of a rollout."""
    return dict(lab.rollout(name).get("status", {}))


def shop(name: str = SHOP) -> Object:
    """Two features, three steps, a long hold, a migration, a workload, a gate."""
    spec = {
        "flagSet": name,
        "checkInterval": "1s",
        "propagation": "0s",
        "workload": {"kind": "Deployment", "name": f"{name}-web"},
        "database": {"secretKeyRef": {"name": "db"}},
        "features": [{"name": "alpha"}, {"name": "beta", "dependsOn": ["alpha"]}],
        "metrics": [{"name": "errors", "query": "lab_errors"}],
        "migrations": [{"name": "tables", "configMapRef": {"name": f"{name}-tables"}}],
        "phases": [
            {
                "name": "one",
                "features": ["alpha"],
                "migrations": {"before": ["tables"]},
                "steps": [
                    {"percent": 10, "groups": ["staff"], "hold": "1h"},
                    {"percent": 50, "groups": ["staff"], "hold": "1h", "approval": "Required"},
                    {"percent": 100, "groups": ["staff"], "hold": "1h"},
                ],
                "criteria": [{"name": "errors", "metric": "errors", "below": "1%"}],
                "verification": [{"name": "store", "builtin": "FlagStore"}],
            },
            {"name": "two", "features": ["beta"], "steps": [{"percent": 50, "hold": "1h"}]},
        ],
        "guards": [{"name": "errors", "metric": "errors", "below": "20%", "for": "1m"}],
    }
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "sessionrollout.dev/v1alpha1", "kind": "SessionRollout", "metadata": metadata, "spec": spec}


def web(name: str) -> Object:
    """A Deployment that is available at once."""
    labels = {"app": name}
    container = {"name": "web", "image": IMAGE, "command": PYTHON, "args": ["import time; time.sleep(3600)"]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def begin(lab: Lab, name: str) -> None:
    """A rollout in the hold of its first step, with everything that it needs."""
    assert lab.postgres is not None
    lab.database_secret("db", lab.postgres.url)
    bundle = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-tables", "namespace": "default"}}
    steps = {"0001_it.up.sql": f'CREATE TABLE "{name}" (id int);', "0001_it.down.sql": f'DROP TABLE "{name}";'}
    lab.apply({**bundle, "data": steps})
    lab.apply(web(f"{name}-web"))
    lab.apply(shop(name))
    holding(lab, name)
