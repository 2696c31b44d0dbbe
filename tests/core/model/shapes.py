"""The rollouts that live, and how people edit them and their flag document."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from core.model.replica import known
from session_rollout.api.metrics import Metric
from session_rollout.api.rollout import RolloutSpec


def _criteria(metric: str = "errors") -> list[dict[str, Any]]:
    return [{"name": metric, "metric": metric, "below": "1%"}]


def _steps(*percents: int, hold: str = "20s", **fields: Any) -> list[dict[str, Any]]:
    return [{"percent": percent, "hold": hold, **fields} for percent in percents]


def _shape(**changes: Any) -> dict[str, Any]:
    """Two phases, one criterion and one guard; with top-level fields replaced."""
    return {
        "flagSet": "shop",
        "checkInterval": "10s",
        "features": [{"name": "alpha"}, {"name": "beta", "dependsOn": ["alpha"]}],
        "metrics": [{"name": "errors", "query": "rate(errors[10s])"}, {"name": "slow", "query": "rate(slow[20s])"}],
        "phases": [
            {"name": "one", "features": ["alpha"], "steps": _steps(10, 60), "criteria": _criteria()},
            {"name": "two", "features": ["beta"], "steps": _steps(100, approval="Required"), "criteria": _criteria()},
        ],
        "guards": [{"name": "errors", "metric": "errors", "below": "5%", "for": "10s"}],
        "rollback": {"scope": "Phase"},
        **known(RolloutSpec, propagation="0s"),
        **changes,
    }


def _one_phase(**changes: Any) -> dict[str, Any]:
    phase = {"name": "one", "features": ["alpha"], "steps": _steps(10, 100), **changes.pop("phase", {})}
    return _shape(features=[{"name": "alpha"}], phases=[phase], **changes)


def _guard(metric: str = "slow", **fields: Any) -> dict[str, Any]:
    return {"name": metric, "metric": metric, "below": "5%", **fields}


def _migrated() -> list[dict[str, Any]]:
    """Its second phase waits for a baseline before it publishes anything."""
    baseline = [{"name": "slow", "metric": "slow", "comparedTo": "Baseline", "maxIncrease": "10%"}]
    phases: list[dict[str, Any]] = _shape()["phases"]
    phases[1] |= {"criteria": baseline, "steps": _steps(100)}
    return phases


SHAPES: dict[str, dict[str, Any]] = {
    "plain": _shape(),
    "step scope": _shape(rollback={"scope": "Step"}, guards=[_guard("errors", **{"for": "20s"})]),
    "all scope": _shape(rollback={"scope": "All"}, bake="20s"),
    "guard of its own": _shape(guards=[_guard(), _guard("errors", **{"for": "10s"})], bake="20s"),
    "guard alone": _one_phase(guards=[_guard()]),
    "long range": _one_phase(
        metrics=[{"name": "slow", "query": "rate(slow[5m])"}], guards=[_guard()], phase={"steps": _steps(10, 50, 100)}
    ),
    "recorded": _one_phase(
        metrics=[{"name": "errors", "query": "job:errors:ratio", **known(Metric, window="20s")}],
        phase={"criteria": _criteria()},
    ),
    "long hold": _one_phase(phase={"steps": _steps(10, 100, hold="100s"), "criteria": _criteria()}, guards=[]),
    "patient guard": _one_phase(phase={"steps": _steps(50, hold="300s")}, guards=[_guard("errors", **{"for": "40s"})]),
    "deadline": _one_phase(phase={"criteria": _criteria(), "deadline": "60s", "onDeadline": "Rollback"}, guards=[]),
    "stalls": _one_phase(phase={"criteria": _criteria(), "deadline": "30s"}, guards=[_guard(onBreach="Pause")]),
    "approvals": _one_phase(
        phase={"steps": _steps(10, 50, 100, approval="Required"), "criteria": _criteria()},
        guards=[_guard("errors", onBreach="Pause")],
    ),
    "baseline": _shape(phases=_migrated()),
    "seasons": _shape(
        phases=_migrated(),
        metrics=[
            {"name": "errors", "query": "rate(errors[10s])"},
            {"name": "slow", "query": "rate(slow[20s])", "baseline": {"window": "1m"}},
        ],
    ),
    "sixteen guards": _one_phase(guards=[{**_guard("errors"), "name": f"guard-{number}"} for number in range(16)]),
    "turned off": _one_phase(phase={"criteria": _criteria()}, deletionPolicy="Off"),
    "fast": _one_phase(checkInterval="1s", guards=[_guard("errors")]),
    "placebo": _shape(
        phases=[
            {
                "name": "one",
                "features": ["alpha"],
                "steps": [*_steps(20, placebo=True), *_steps(10, 60)],
                "criteria": _criteria(),
            },
            {"name": "two", "features": ["beta"], "steps": [*_steps(50, placebo=True), *_steps(100)], "criteria": _criteria()},
        ]
    ),
    "held back": _shape(
        phases=[
            {
                "name": "one",
                "features": ["alpha"],
                "steps": [*_steps(10, groups=["staff"]), *_steps(100, groups=["staff"])],
                "criteria": _criteria(),
            },
            {"name": "two", "features": ["beta"], "steps": _steps(60, 100), "criteria": _criteria()},
        ],
        control={"holdback": "2%"},
        bake="20s",
    ),
    "groups": _shape(
        phases=[
            {
                "name": "one",
                "features": ["alpha", "beta"],
                "steps": [
                    {"groups": ["staff"], "hold": "20s"},
                    {"groups": ["staff"], "hold": "20s", "percent": 50},
                    {"groups": ["staff"], "ramp": {"to": 100, "over": "60s", "increments": 2}, "approval": "Required"},
                ],
                "criteria": _criteria(),
            }
        ]
    ),
}


def _replace_feature(spec: dict[str, Any]) -> None:
    spec["features"] = [*spec["features"][1:], {"name": "gamma"}]
    spec["features"] = [{"name": feature["name"]} for feature in spec["features"]]
    spec["phases"][0]["features"] = ["gamma", *spec["phases"][0]["features"][1:]]


def _add_feature(spec: dict[str, Any]) -> None:
    spec["features"] = [*spec["features"], {"name": "gamma"}]
    spec["phases"][0]["features"] = [*spec["phases"][0]["features"], "gamma"]


def _add_phase(spec: dict[str, Any]) -> None:
    spec["features"] = [*spec["features"], {"name": "gamma"}]
    spec["phases"] = [*spec["phases"], {"name": "three", "features": ["gamma"], "steps": _steps(30)}]


def _remove_phase(spec: dict[str, Any]) -> None:
    gone = spec["phases"].pop(0)
    spec["features"] = [{"name": known["name"]} for known in spec["features"] if known["name"] not in gone["features"]]


def _lower_last(spec: dict[str, Any]) -> None:
    spec["phases"][-1]["steps"] = _steps(5)


def _extend_last(spec: dict[str, Any]) -> None:
    steps = spec["phases"][-1]["steps"]
    if steps[-1].get("percent") not in {None, "100"}:
        steps.append(_steps(100)[0])


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bake": lambda spec: spec.update(bake="20s" if spec.get("bake", "0s") == "0s" else "0s"),
    "suspend": lambda spec: spec.update(suspend=True),
    "continue": lambda spec: spec.update(suspend=False),
    "scope": lambda spec: spec.update(rollback={"scope": "Step"}),
    "replace feature": _replace_feature,
    "add feature": _add_feature,
    "add phase": _add_phase,
    "remove phase": _remove_phase,
    "lower": _lower_last,
    "extend": _extend_last,
}


def _more(document: dict[str, Any]) -> None:
    for flag in document["flags"].values():
        if "targeting" in flag and "if" in flag["targeting"]:
            flag["targeting"]["if"][-1] = "on"


def _off(document: dict[str, Any]) -> None:
    flag = document["flags"].get("alpha", {})
    flag.pop("targeting", None)


def _off_as_the_operator_does(document: dict[str, Any]) -> None:
    _off(document)
    document["flags"].get("alpha", {})["metadata"] = {"emergencyDisabled": True, "reason": "by hand"}


def _last_off(document: dict[str, Any]) -> None:
    document["flags"].get("beta", {}).pop("targeting", None)


BY_HAND: dict[str, Callable[[dict[str, Any]], Any]] = {
    "more": _more,
    "off": _off,
    "off as the operator does": _off_as_the_operator_does,
    "last off": _last_off,
    "nothing": lambda _: None,
}


def applicable(spec: RolloutSpec, change: str) -> RolloutSpec | None:
    """The spec after an edit; None when the edit makes no sense for it."""
    data = deepcopy(spec.to_wire())
    EDITS[change](data)
    names = [feature["name"] for feature in data["features"]]
    phases = [phase["name"] for phase in data["phases"]]
    used = [name for phase in data["phases"] for name in phase["features"]]
    if not phases or not names or len(set(used)) < len(used) or len(set(phases)) < len(phases) or set(used) - set(names):
        return None
    return RolloutSpec.model_validate(data) if len(set(names)) == len(names) else None
