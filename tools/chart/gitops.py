"""Configuration of Argo CD for rollouts: the Lua of its actions, its ConfigMap with health check and actions, and its permissions.

`health.lua` and `actions/discovery.lua` are written by hand; everything else is derived from the table of actions here.
"""

from pathlib import Path
from typing import Any, Final

from tools.chart import GENERATED

ROOT: Final = Path(__file__).parents[2]
ARGOCD: Final = ROOT / "examples" / "gitops" / "argocd"
LUA: Final = ARGOCD / "resource_customizations" / "sessionrollout.dev" / "SessionRollout"
KEY: Final = "resource.customizations.{what}.sessionrollout.dev_SessionRollout"
# The action of Argo CD: the action of a SessionRolloutAction, and Lua that completes its spec.
ACTIONS: Final = {
    "approve": (
        "Approve",
        """\
-- The approval names what is awaited now: a step of a phase, or the check of a gate. Of several gates, it names the first.
action.spec.generation = obj.status.observedGeneration
for key, value in pairs(obj.status.decision.approvals[1]) do
  action.spec[key] = value
end
""",
    ),
    "pause": ("Pause", ""),
    "resume": ("Resume", ""),
    "abort": ("Abort", ""),
    "retry": ("Retry", "action.spec.generation = obj.status.observedGeneration\n"),
    "adopt": ("Adopt", ""),
    "reset": ("Reset", ""),
    # Without `features`, both apply to all features of the rollout.
    "emergency-disable-all": ("EmergencyDisable", ""),
    "emergency-enable": ("EmergencyEnable", ""),
}
SCRIPT: Final = """\
-- {generated}
-- Creates a SessionRolloutAction. The operator writes the response into its status, and the object remains as a record of the request.
local os = require("os")  -- Argo CD's own, with date and time only; there is no global one
local action = {{
  apiVersion = "sessionrollout.dev/v1alpha1",
  kind = "SessionRolloutAction",
  metadata = {{
    name = obj.metadata.name .. "-{name}-" .. os.date("!%Y%m%d%H%M%S"),
    namespace = obj.metadata.namespace,
  }},
  spec = {{ rollout = obj.metadata.name, action = "{action}", reason = "requested in Argo CD" }},
}}
{completion}return {{ {{ operation = "create", resource = action }} }}
"""
PERMISSIONS: Final = """\
# {generated}
# Argo CD creates SessionRolloutActions as its service account argocd-server, whose own ClusterRole has no `create`.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: argocd-server-session-rollout
rules:
- apiGroups: [sessionrollout.dev]
  resources: [sessionrolloutactions]
  verbs: [{verbs}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: argocd-server-session-rollout
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: argocd-server-session-rollout
subjects:
- kind: ServiceAccount
  name: argocd-server
  namespace: argocd
"""


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    scripts = {name: _script(name, action, completion) for name, (action, completion) in ACTIONS.items()}
    return {
        **{LUA / "actions" / name / "action.lua": text for name, text in scripts.items()},
        ARGOCD / "argocd-cm.yaml": _configuration(scripts),
        ARGOCD / "argocd-server-role.yaml": _permissions(),
    }


def _script(name: str, action: str, completion: str) -> str:
    return SCRIPT.format(generated=GENERATED, name=name, action=action, completion=completion)


def _configuration(scripts: dict[str, str]) -> str:
    """A patch of the ConfigMap `argocd-cm`."""
    lines = [
        f"# {GENERATED}",
        "# Merge it into the ConfigMap of Argo CD.",
        "apiVersion: v1",
        "kind: ConfigMap",
        "metadata:",
        "  name: argocd-cm",
        "  namespace: argocd",
        "data:",
        f"  {KEY.format(what='health')}: |",
        *_indented((LUA / "health.lua").read_text(), 4),
        f"  {KEY.format(what='actions')}: |",
        "    discovery.lua: |",
        *_indented((LUA / "actions" / "discovery.lua").read_text(), 6),
        "    definitions:",
    ]
    for name, script in scripts.items():
        lines += [f"    - name: {name}", "      action.lua: |", *_indented(script, 8)]
    return "\n".join(lines) + "\n"


def _permissions() -> str:
    """What argocd-server needs to create the actions: the chart's admission policy checks the verb of each action."""
    verbs = ", ".join(["create", *(action.lower() for action, _ in ACTIONS.values())])
    return PERMISSIONS.format(generated=GENERATED, verbs=verbs)


def _indented(text: str, by: int) -> list[Any]:
    return [" " * by + line if line else "" for line in text.splitlines()]
