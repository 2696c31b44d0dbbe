"""The rollout of the deployment guide on the lab, and the user who types the guide's counterparts."""

import shlex
from dataclasses import dataclass
from typing import Any

import yaml

from cli.plugin import Done, inside
from lab.kube import Object
from lab.lab import IMAGE, ROOT, Lab
from lab.session_persistence import NAME, NAMESPACE, DeployedApplication, example

RANGE = "4s"


def configuration() -> Object:
    """The example configuration for the servers of the lab: Jobs that print their name, no sinks."""
    document = yaml.safe_load((ROOT / "examples" / "operator-configuration.yaml").read_text())
    wanted = yaml.safe_load(document["data"]["operator.yaml"].replace("[5m]", f"[{RANGE}]"))
    checks = {
        name: {"image": IMAGE, "command": ["python", "-c"], "args": [f"print('{name} done')"], "timeout": "60s"}
        for name in wanted["checks"]
    }
    return {"checks": checks, "diagnostics": wanted["diagnostics"], "alerts": wanted["alerts"]}


def guide_rollout(port: int) -> Object:
    """The large example with short ranges and the checks of the guide; its holds stay long, so steps are promoted by hand."""
    document = example("session-persistence.yaml")
    spec = document["spec"]
    spec["checkInterval"] = "1s"
    spec["propagation"] = "0s"
    for metric in spec["metrics"]:
        metric["query"] = metric["query"].replace("[5m]", f"[{RANGE}]")
    web = {"service": "analy-ticket-web", "port": port, "path": "/health"}
    spec["preflight"] = [
        {"name": "application", "builtin": "Health"},
        {"name": "health", "http": web},
        {"name": "alerts", "builtin": "Alerts"},
        *({"name": name, "job": {"profile": name}} for name in ("smoke-tests", "session-smoke-tests", "user-journeys")),
    ]
    spec["rollback"]["verification"] = [{"name": "healthy-again", "http": web}]
    return document


@dataclass
class World:
    """The rollout on the lab, and who types."""

    lab: Lab
    application: DeployedApplication

    @property
    def dsn(self) -> str:
        """The database."""
        assert self.lab.postgres is not None
        return self.lab.postgres.url

    @property
    def status(self) -> Object:
        """Of the rollout."""
        return dict(self.lab.rollout(NAME, NAMESPACE).get("status", {}))

    def sro(self, counterpart: str) -> Done:
        """A line of the table, as a user would type it in the namespace."""
        kubectl, plugin, *argv = shlex.split(counterpart)
        assert (kubectl, plugin) == ("kubectl", "sessionrollout")
        done = inside(self.lab, *argv, "-n", NAMESPACE)
        assert done.code == 0, done
        return done

    def data(self, counterpart: str) -> Any:
        """The same, with what it prints as data."""
        return self.sro(f"{counterpart} -o json").data

    def row(self, counterpart: str, name: str, key: str = "name") -> Object:
        """The row of that name in the data that a command prints."""
        [row] = [dict(row) for row in self.data(counterpart) if row[key] == name]
        return row

    def actions(self) -> list[Object]:
        """Every action in the namespace."""
        path = f"/apis/sessionrollout.dev/v1alpha1/namespaces/{NAMESPACE}/sessionrolloutactions"
        return list(self.lab.kube.get(path)["items"])

    def promote(self, phase: str, step: int) -> None:
        """On to a place, past the holds."""

        def there() -> bool:
            here = self.status["current"]
            if (here.get("phase"), here.get("step")) == (phase, step):
                return bool(here.get("publishedTime"))
            if here.get("stage") == "Step":
                inside(self.lab, "promote", "-y", "-r", "the guide is walked", "-n", NAMESPACE)
            return False

        try:
            self.lab.until(there, 240, f"{phase} step {step} being published")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.status['decision']}, {self.status['migrations']}") from error

    def rows(self) -> Object:
        """Record of the migration that moves rows."""
        return next(dict(record) for record in self.status["migrations"] if record["name"] == "legacy-sessions")

    def idle(self) -> None:
        """Until no Job of a migration runs."""
        running = {"Running", "Reverting"}
        self.lab.until(lambda: not {record["state"] for record in self.status["migrations"]} & running, 60, "the Job")

    def share(self, feature: str) -> float:
        """Of users who have it, as the application evaluates it."""
        return self.application.share(feature, 200)
