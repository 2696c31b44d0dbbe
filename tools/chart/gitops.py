"""`examples/gitops/argocd/argocd-cm.yaml`: the Lua of the health check and the actions, as Argo CD's configuration has it."""

from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
ARGOCD: Final = ROOT / "examples" / "gitops" / "argocd"
LUA: Final = ARGOCD / "resource_customizations" / "sessionrollout.dev" / "SessionRollout"
KEY: Final = "resource.customizations.{what}.sessionrollout.dev_SessionRollout"
ACTIONS: Final = ("approve", "pause", "resume", "abort", "emergency-disable")


def argocd_configuration() -> str:
    """A patch of the ConfigMap `argocd-cm`."""
    lines = [
        "# Written from resource_customizations/ by `make chart`: merge it into Argo CD's own ConfigMap.",
        "apiVersion: v1",
        "kind: ConfigMap",
        "metadata:",
        "  name: argocd-cm",
        "  namespace: argocd",
        "data:",
        f"  {KEY.format(what='health')}: |",
        *_indented(LUA / "health.lua", 4),
        f"  {KEY.format(what='actions')}: |",
        "    discovery.lua: |",
        *_indented(LUA / "actions" / "discovery.lua", 6),
        "    definitions:",
    ]
    for name in ACTIONS:
        lines += [f"    - name: {name}", "      action.lua: |", *_indented(LUA / "actions" / name / "action.lua", 8)]
    return "\n".join(lines) + "\n"


def _indented(path: Path, by: int) -> list[Any]:
    return [" " * by + line if line else "" for line in path.read_text().splitlines()]
