"""Rollouts that the tests of the operator apply, and what they wait for."""

from typing import Any

from lab.kube import Object
from lab.lab import Lab

ALPHA: dict[str, Any] = {"name": "alpha", "features": ["alpha"]}
ACTIONS = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrolloutactions"


def rollout(name: str, steps: list[Object], **spec: Any) -> Object:
    """An object with one phase."""
    whole = {
        "flagSet": name,
        "checkInterval": "1s",
        "propagation": "0s",
        "features": [{"name": "alpha"}],
        "metrics": [{"name": "errors", "query": "lab_errors"}],
        "phases": [{**ALPHA, "steps": steps, "criteria": [{"name": "errors", "metric": "errors", "below": "1%"}]}],
        **spec,
    }
    return {
        "apiVersion": "sessionrollout.dev/v1alpha1",
        "kind": "SessionRollout",
        "metadata": {"name": name, "namespace": "default"},
        "spec": whole,
    }


LONG = [{"percent": 50, "groups": ["staff"], "hold": "1h"}]
SHORT = [{"percent": 50, "hold": "1s"}, {"percent": 100, "hold": "1s"}]


def holding(lab: Lab, name: str, seconds: float = 30) -> Object:
    """The rollout, once its hold has begun."""
    lab.until(lambda: lab.rollout(name).get("status", {}).get("current", {}).get("holdUntil"), seconds, f"{name} holding")
    return lab.rollout(name)


def decided(lab: Lab, name: str, reason: str) -> Object:
    """Status, once its decision has this reason."""
    reached = lambda: lab.rollout(name).get("status", {}).get("decision", {}).get("reason") == reason  # noqa: E731
    lab.until(reached, 30, f"{name} with the reason {reason}")
    return dict(lab.rollout(name)["status"])


def flags(lab: Lab, name: str) -> Object:
    """The flags of the published document."""
    return dict(lab.document(name)["flags"])


def answer(lab: Lab, name: str) -> Object:
    """Status of an action, once it has one."""
    return dict(lab.until(lambda: lab.kube.get(f"{ACTIONS}/{name}").get("status"), 60, "an answer"))


def events(lab: Lab, name: str) -> list[str]:
    """Events in the history of a rollout."""
    return [entry["event"] for entry in lab.rollout(name)["status"]["history"]]
