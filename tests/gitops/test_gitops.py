"""Argo CD's Lua, Flux' CEL and kstatus' rules over every kind of status that the demo's three scenarios produced."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cel import Context, evaluate
from lupa.lua51 import LuaError, LuaRuntime, lua_type

from lab.kube import ApiError
from lab.lab import ROOT, Lab
from tools.chart import GENERATED, gitops

LUA = gitops.LUA
STATUSES = Path(__file__).parent / "statuses"
SCENARIOS = ("promoted", "rolled-back", "outage")
Object = dict[str, Any]


def recorded(scenario: str) -> list[Object]:
    return list(json.loads((STATUSES / f"{scenario}.json").read_text()))


def every() -> list[Object]:
    return [rollout for scenario in SCENARIOS for rollout in recorded(scenario)]


def conditions(rollout: Object) -> dict[str, str]:
    return {each["type"]: each["status"] for each in rollout["status"].get("conditions", [])}


def awaited(rollout: Object) -> bool:
    return bool(rollout["status"].get("decision", {}).get("approvals"))


def expected(rollout: Object) -> str:
    """Argo CD's word for a status, by what the API says of outcome and conditions."""
    have, outcome = conditions(rollout), rollout["status"].get("outcome")
    if rollout["status"].get("observedGeneration") != rollout["metadata"]["generation"]:
        return "Progressing"
    if outcome == "Promoted":
        return "Healthy"
    if (
        outcome in {"RolledBack", "Aborted"}
        or have.get("Stalled") == "True"
        or rollout["status"]["decision"]["action"] == "RollBack"
    ):
        return "Degraded"
    return "Suspended" if have.get("Paused") == "True" or awaited(rollout) else "Progressing"


# Argo CD gives scripts of its configuration Lua 5.1 with the libraries base, table and package. `os` is not a global: `require("os")`
# returns one with these two functions. No `string`, unless `useOpenLibs` is set, which applies to health and not to actions.
CLOSED = """
getmetatable("").__index = nil
local safe = { date = os.date, time = os.time }
function require(name) if name == "os" then return safe end error("attempt to load " .. name) end
io, debug, string, math, coroutine, package, module, dofile, loadfile, os = nil
"""


def ran(script: str, rollout: Object) -> Any:
    """What a script of Argo CD returns for an object, which it knows as `obj`."""
    lua = LuaRuntime(register_eval=False, attribute_filter=None)
    lua.execute(CLOSED)
    lua.globals().obj = lua.table_from(rollout, recursive=True)
    return plain(lua.execute(script))


def plain(value: Any) -> Any:
    """A Lua table as Python has it: a list where its keys are 1 to n."""
    if lua_type(value) != "table":
        return value
    items = {key: plain(inner) for key, inner in value.items()}
    return list(items.values()) if items and list(items) == list(range(1, len(items) + 1)) else items


def health(rollout: Object) -> Object:
    return dict(ran((LUA / "health.lua").read_text(), rollout))


def enabled(rollout: Object) -> set[str]:
    result = ran((LUA / "actions" / "discovery.lua").read_text(), rollout)
    return {name for name, says in result.items() if not says["disabled"]}


def asked(name: str, rollout: Object) -> Object:
    (impact,) = ran((LUA / "actions" / name / "action.lua").read_text(), rollout)
    assert impact["operation"] == "create"
    return dict(impact["resource"])


@pytest.mark.parametrize(
    "script",
    [
        'return ("x"):len()',
        'return string.sub("x", 1, 1)',
        "return os.date()",
        'return require("os").getenv("HOME")',
        'require("io")',
    ],
)
def test_what_argocd_does_not_open_is_closed_here(script: str) -> None:
    with pytest.raises(LuaError, match="attempt to"):
        ran(script, {})


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_health_of_every_recorded_status(scenario: str) -> None:
    seen = set()
    for rollout in recorded(scenario):
        result = health(rollout)
        assert result["status"] == expected(rollout), rollout["status"]
        assert result["message"], "it says why"
        seen.add(result["status"])
    last = health(recorded(scenario)[-1])["status"]
    assert {"promoted": "Healthy", "rolled-back": "Degraded", "outage": "Progressing"}[scenario] == last
    assert "Progressing" in seen


def test_the_scenarios_hold_every_health() -> None:
    assert {health(rollout)["status"] for rollout in every()} == {"Progressing", "Suspended", "Healthy", "Degraded"}


def test_health_survives_anything_missing() -> None:
    """Each part taken out of each recorded status, and objects with next to nothing: never an error, always a word."""
    for rollout in [{"metadata": {"generation": 1}}, {"metadata": {"generation": 1}, "status": {}}]:
        assert health(rollout)["status"] == "Progressing"
        assert enabled(rollout) == set()
    for rollout in every():
        for part in rollout["status"]:
            less = {**rollout, "status": {key: value for key, value in rollout["status"].items() if key != part}}
            assert health(less)["status"] in {"Progressing", "Suspended", "Healthy", "Degraded"}
            enabled(less)


def test_what_is_known_of_an_older_generation_says_nothing() -> None:
    for rollout in every():
        newer = {**rollout, "metadata": {**rollout["metadata"], "generation": 2}}
        assert health(newer)["status"] == "Progressing"


def test_actions_fit_what_is_going_on() -> None:
    for rollout in every():
        running = rollout["status"].get("outcome") is None
        paused = conditions(rollout).get("Paused") == "True"
        wanted = {"emergency-disable-all"} | ({"abort"} if running else set()) | ({"approve"} if awaited(rollout) else set())
        wanted |= {"resume"} if paused else {"pause"} if running else set()
        wanted |= {"emergency-enable"} if rollout["status"].get("flags", {}).get("disabled") else set()
        wanted |= {"retry"} if retryable(rollout["status"]) else set()
        assert enabled(rollout) == wanted
    assert any("approve" in enabled(rollout) for rollout in every())
    assert any("retry" in enabled(rollout) for rollout in every())


def retryable(status: Object) -> bool:
    failed = any(record["state"] == "Failed" for record in status.get("migrations", []))
    failed |= any("job" in record and record["verdict"] == "Fail" for record in status.get("checks", []))
    return failed or status.get("outcome") in {"RolledBack", "Aborted"}


@pytest.mark.parametrize(
    ("action", "part", "value"),
    [
        ("emergency-enable", "flags", {"disabled": [{"feature": "alpha"}]}),
        ("adopt", "flags", {"adoptionRequired": True}),
        ("reset", "flags", {"adoptionRequired": True}),
        ("retry", "outcome", "Aborted"),
        ("retry", "migrations", [{"name": "rows", "state": "Succeeded"}, {"name": "tables", "state": "Failed"}]),
        ("retry", "checks", [{"name": "smoke", "kind": "Preflight", "verdict": "Fail", "job": "smoke-1"}]),
    ],
)
def test_an_action_is_offered_when_it_applies(action: str, part: str, value: Any) -> None:
    status = {"observedGeneration": 1}
    assert action not in enabled({"metadata": {"generation": 1}, "status": status})
    assert action in enabled({"metadata": {"generation": 1}, "status": {**status, part: value}})


def test_a_failed_check_without_a_job_cannot_be_retried() -> None:
    status = {"observedGeneration": 1, "checks": [{"name": "errors", "kind": "Guard", "verdict": "Fail"}]}
    assert "retry" not in enabled({"metadata": {"generation": 1}, "status": status})


def test_every_action_is_accepted_by_the_api_server(lab: Lab) -> None:
    """A dry run of what each script makes, for each status in which it is offered."""
    path = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrolloutactions"
    seen: set[str] = set()
    for rollout in every():
        here = {**rollout, "metadata": {**rollout["metadata"], "namespace": "default"}}
        for name in enabled(here) | ({"resume", "emergency-enable", "adopt", "reset"} if not seen else set()):
            made = asked(name, here)
            lab.kube.create(path, made, dryRun="All", fieldValidation="Strict")
            seen.add(name)
    assert seen == set(gitops.ACTIONS)


def test_an_approval_of_a_gate_names_its_check(lab: Lab) -> None:
    rollout = {
        "metadata": {"name": "x", "namespace": "default", "generation": 1},
        "status": {"observedGeneration": 1, "decision": {"approvals": [{"check": "tests-green"}]}},
    }
    made = asked("approve", rollout)
    assert made["spec"]["check"] == "tests-green"
    assert "phase" not in made["spec"]
    path = "/apis/sessionrollout.dev/v1alpha1/namespaces/default/sessionrolloutactions"
    lab.kube.create(path, made, dryRun="All")
    with pytest.raises(ApiError):
        lab.kube.create(path, {**made, "spec": {**made["spec"], "check": None}}, dryRun="All")


def test_generated_scripts_say_so() -> None:
    for path, text in gitops.files().items():
        assert path.read_text() == text, f"make chart: {path.name}"
        assert text.splitlines()[0].endswith(GENERATED)


def test_argocd_configuration_holds_the_scripts() -> None:
    data = yaml.safe_load((gitops.ARGOCD / "argocd-cm.yaml").read_text())["data"]
    assert data[gitops.KEY.format(what="health")] == (LUA / "health.lua").read_text()
    actions = yaml.safe_load(data[gitops.KEY.format(what="actions")])
    assert actions["discovery.lua"] == (LUA / "actions" / "discovery.lua").read_text()
    result = {action["name"]: action["action.lua"] for action in actions["definitions"]}
    assert result == {name: (LUA / "actions" / name / "action.lua").read_text() for name in gitops.ACTIONS}


def test_argocd_may_create_every_action_of_its_scripts() -> None:
    """The admission policy of the chart checks the verb of the action; `create` alone is not enough."""
    role, binding = yaml.safe_load_all((gitops.ARGOCD / "argocd-server-role.yaml").read_text())
    (rule,) = role["rules"]
    assert (rule["apiGroups"], rule["resources"]) == (["sessionrollout.dev"], ["sessionrolloutactions"])
    assert rule["verbs"] == ["create", *(action.lower() for action, _ in gitops.ACTIONS.values())]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    scripts = [(LUA / "actions" / name / "action.lua").read_text() for name in gitops.ACTIONS]
    assert all(any(f'action = "{action}"' in script for script in scripts) for action, _ in gitops.ACTIONS.values())


def flux() -> dict[str, str]:
    """The health expressions; a second Kustomization would own the same objects."""
    kustomization = yaml.safe_load((ROOT / "examples" / "gitops" / "flux" / "kustomization.yaml").read_text())
    (expressions,) = kustomization["spec"]["healthCheckExprs"]
    return {key: expressions[key] for key in ("inProgress", "failed", "current")}


def holds(expression: str, rollout: Object) -> bool:
    context = Context()
    for name in ("metadata", "status"):
        context.add_variable(name, rollout[name])
    return bool(evaluate(expression, context))


def flux_health(rollout: Object) -> str:
    """In the order of Flux: in progress, failed, current; nothing: in progress."""
    for key, expression in flux().items():
        if holds(expression, rollout):
            return key
    return "inProgress"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_flux_accepted(scenario: str) -> None:
    for rollout in recorded(scenario):
        valid = conditions(rollout).get("SpecValid")
        result = flux_health(rollout)
        assert result == {"True": "current", "False": "failed"}.get(valid or "", "inProgress")
    assert flux_health(recorded(scenario)[-1]) == "current"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kstatus(scenario: str) -> None:
    """Generic tools read three conditions: never working and stuck at once, done only when promoted."""
    for rollout in recorded(scenario):
        have = conditions(rollout)
        assert not (have.get("Reconciling") == "True" and have.get("Stalled") == "True")
        if have.get("Ready") == "True":
            assert have.get("Reconciling") != "True"
            assert rollout["status"]["outcome"] == "Promoted"
        assert isinstance(rollout["status"].get("observedGeneration", 0), int)


@pytest.mark.parametrize("environment", ["base", "staging", "production"])
def test_the_example_repository_is_accepted(lab: Lab, environment: str) -> None:
    made = lab.kubectl("kustomize", str(ROOT / "examples" / "gitops" / "repository" / environment)).stdout
    for namespace in ("shop", "shop-staging"):
        lab.namespace(namespace)
    lab.kubectl(
        "apply",
        "--server-side",
        "--dry-run=server",
        "-n",
        "shop" if environment != "staging" else "shop-staging",
        "-f",
        "-",
        stdin=made,
    )
