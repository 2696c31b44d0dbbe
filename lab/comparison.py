"""A rollout whose guard and criterion compare users with a feature and users without it, and what is read of it.

The application is that of `lab.counting`. Next to the comparison, a guard reads the share of failures of everybody.
"""

import json
import urllib.parse
import urllib.request
from typing import Any, Final

from lab.kube import Object
from lab.lab import Lab

BLOCK_SECONDS: Final = 5.0  # the shortest that an interval of scrapes of one second allows
COMPARED: Final = {"name": "failures", "metric": "failures", "comparedTo": "Control"}
OF_EVERYBODY: Final = "of-everybody"


def of_everybody(name: str, seconds: int = 10) -> str:
    """The share of sessions of all users that failed in the last seconds: failures of counters that are new count, too."""
    failures, sessions = (f'sessions_total{{job="{name}"{more}}}' for more in (',result="failure"', ""))
    return f"({_more(failures, seconds)}) / ({_more(sessions, seconds)})"


def _more(counter: str, seconds: int) -> str:
    return f"(sum({counter}) or vector(0)) - (sum({counter} offset {seconds}s) or vector(0))"


def compared(
    name: str, steps: list[Object], guard: Object, *, feature: str = "alpha", seconds: int = 10, **phase: Any
) -> Object:
    """The rollout. `guard` has the bound of the guard on everybody, which reads the failures of so many seconds."""
    counters = {
        "feature": feature,
        "bad": f'sessions_total{{job="{name}",result="failure"}}',
        "total": f'sessions_total{{job="{name}"}}',
    }
    spec = {
        "flagSet": name,
        "checkInterval": "1s",
        "propagation": "2s",
        "control": {"block": f"{BLOCK_SECONDS:.0f}s", "lag": "1s"},
        "features": [{"name": feature}],
        "metrics": [
            {"name": "failures", "cohorts": counters},
            {"name": OF_EVERYBODY, "query": of_everybody(name, seconds)},
        ],
        "phases": [{"name": feature.lower(), "features": [feature], "steps": steps, "criteria": [COMPARED], **phase}],
        "guards": [COMPARED, {"name": OF_EVERYBODY, "metric": OF_EVERYBODY, **guard}],
    }
    return {
        "apiVersion": "sessionrollout.dev/v1alpha1",
        "kind": "SessionRollout",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def value(lab: Lab, query: str, moment: float | None = None) -> float:
    """The result of a query at a moment, or now; 0 without one."""
    assert lab.prometheus is not None
    options = {"query": query, **({} if moment is None else {"time": moment})}
    address = f"{lab.prometheus.url}/api/v1/query?{urllib.parse.urlencode(options)}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        result = json.loads(answer.read())["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def check(status: Object, kind: str, name: str = "failures") -> Object:
    """The record of a check; empty without one."""
    return next((dict(each) for each in status.get("checks", ()) if (each["kind"], each["name"]) == (kind, name)), {})


def evidence(status: Object, kind: str = "Guard") -> Object:
    """The evidence of the guard or the criterion; empty while it has no block."""
    records = [each for each in status.get("evidence", ()) if each["kind"] == kind and each.get("blocks")]
    return dict(records[0]) if records else {}
