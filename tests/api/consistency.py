"""Makes a drafted spec true to the CEL rules of the whole rollout: names that exist, audiences that grow, holds long enough.

What a rule demands that is not known here is met by leaving out the optional fields that the rule names. `accepted` is the
strategy that everything generated comes from; whether the API server agrees is asked in tests/integration.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any, Final

from hypothesis import assume
from hypothesis import strategies as st

from api.strategies import ROLLOUT, Draw, Maker, Object, action_specs, broken, distinct, drafts
from session_rollout.api.quantities import LONGEST, duration
from session_rollout.cli.admission import check

API: Final = "sessionrollout.dev/v1alpha1"
SPEC: Final = ROLLOUT["properties"]["spec"]
FIELDS: Final = SPEC["properties"]
MOST_FEATURES: Final = FIELDS["features"]["maxItems"]
ROUNDS: Final = 6


def everywhere(node: Any) -> Iterator[Object]:
    """Every object in a value."""
    if isinstance(node, dict):
        yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from everywhere(child)


def audiences(spec: Object) -> None:
    """Percentages rise, groups are added, in every phase."""
    starts_on = {feature["name"] for feature in spec["features"] if feature.get("initial") == "On"}
    contracts = any(migration.get("change") == "Contract" for migration in spec.get("migrations", ()))
    used_later = {name for feature in spec["features"] for name in feature.get("dependsOn", ())}
    for phase in spec["phases"]:
        steps = phase["steps"]
        if starts_on & set(phase["features"]):
            for step in steps:
                whole(step)
            steps[0].pop("ramp", None)
            steps[0].update(percent=100, hold=steps[0].get("hold", LONGEST))
        elif contracts or used_later & set(phase["features"]):
            whole(steps[-1])
        steps.sort(key=share)
        nest_groups(steps)
        placebos(steps)


def placebos(steps: list[Object]) -> None:
    """Only the first step may divide users without giving them anything, if others follow."""
    first, *others = steps
    for step in others if 0 < share(first) < 100 and others and "ramp" not in first else steps:
        step.pop("placebo", None)
    if first.get("placebo"):
        first.pop("groups", None)


def share(step: Object) -> float:
    """Percentage at the end of a step."""
    return float(step["ramp"]["to"] if "ramp" in step else step.get("percent", 0))


def whole(step: Object) -> None:
    """The step ends at 100 %."""
    if "ramp" in step:
        step["ramp"]["to"] = 100
    else:
        step["percent"] = 100


def nest_groups(steps: list[Object]) -> None:
    """Each step has the groups of the one before."""
    names = list(dict.fromkeys(group for step in steps for group in step.get("groups", ())))[:8]
    size = 0
    for step in steps:
        size = max(size, min(len(step.get("groups", ())), len(names)))
        step["groups"] = names[:size]
        if not step["groups"] and "percent" not in step and "ramp" not in step:
            step["percent"] = 0
        if not step["groups"]:
            del step["groups"]


def features(spec: Object) -> None:
    """Each phase has features of its own, and dependencies point backwards, or at themselves."""
    pool = spec["features"]
    while len(pool) < min(len(spec["phases"]), MOST_FEATURES):
        pool.append({"name": f"more.{len(pool)}"})
    names = [feature["name"] for feature in pool]
    free = iter(names)
    spare = len(names) - len(spec["phases"])
    for phase in spec["phases"]:
        extra = min(len(phase["features"]) - 1, spare)
        spare -= extra
        phase["features"] = list(itertools.islice(free, 1 + extra))
    earlier: list[str] = []
    for phase in spec["phases"]:
        earlier += phase["features"]
        dependencies(pool, phase["features"], earlier)
    dependencies(pool, list(free), names)


def dependencies(pool: list[Object], of: list[str], known: list[str]) -> None:
    """As many as were drawn, of the last ones that may be named."""
    on = {feature["name"] for feature in pool if feature.get("initial") == "On"}
    for feature in pool:
        if feature["name"] in of and "dependsOn" in feature:
            allowed = [name for name in known if name in on] if feature["name"] in on else known
            feature["dependsOn"] = allowed[-len(feature["dependsOn"]) :] if feature["dependsOn"] else []


def migrations(spec: Object, maker: Maker) -> None:
    """Each runs once; Contract after all others; a database where there is one."""
    known = spec.get("migrations", [])
    plain = iter([migration["name"] for migration in known if migration.get("change") != "Contract"])
    contract = [migration["name"] for migration in known if migration.get("change") == "Contract"]
    for phase in spec["phases"]:
        places = phase.get("migrations", {})
        for place, names in places.items():
            places[place] = list(itertools.islice(plain, len(names)))
    if contract:
        last = spec["phases"][-1].setdefault("migrations", {})
        last["after"] = [*last.get("after", []), *contract][:8]
    if known and "database" not in spec:
        spec["database"] = maker.value(FIELDS["database"], ".database")


def held_back(spec: Object) -> None:
    """Nobody is held back from what all users have, or needs what is removed."""
    has_all = any(feature.get("initial") == "On" for feature in spec["features"])
    if has_all or any(migration.get("change") == "Contract" for migration in spec.get("migrations", ())):
        spec.get("control", {}).pop("holdback", None)


def rollback(spec: Object, maker: Maker) -> None:
    """It restores what has a backup, undoes a workload that is named and nothing under users, and waits for nobody."""
    wanted = spec.get("rollback", {})
    for gate in wanted.get("verification", []):
        if gate.pop("approval", None) is not None:
            gate["builtin"] = "FlagStore"
    if wanted.get("scope") == "Step":
        for undoing in ("migrations", "restoreData", "workload"):
            wanted.pop(undoing, None)
    if wanted.get("workload") == "Undo" and "workload" not in spec:
        spec["workload"] = maker.value(FIELDS["workload"], ".workload")
    if wanted.get("restoreData"):
        wanted["restoreData"] = bool(spec.get("migrations"))
        for migration in spec.get("migrations", []):
            migration["backup"] = True


def holds(spec: Object) -> None:
    """None is shorter than the interval in which checks are evaluated, which is a second at least."""
    if duration(spec.get("checkInterval", "30s")) < duration("1s"):
        spec["checkInterval"] = "1s"
    interval = duration(spec.get("checkInterval", "30s"))
    for phase in spec["phases"]:
        for step in phase["steps"]:
            if "hold" in step and duration(step["hold"]) < interval:
                step["hold"] = spec.get("checkInterval", "30s")
            ramp = step.get("ramp", {})
            if ramp and duration(ramp["over"]) < ramp["increments"] * interval:
                ramp["over"] = LONGEST
                ramp["increments"] = max(1, min(ramp["increments"], int(duration(LONGEST) / interval)))


def names_of_metrics(spec: Object, maker: Maker) -> None:
    """Whatever names a metric names one of the spec."""
    users = [node for node in everywhere({**spec, "metrics": []}) if isinstance(node.get("metric"), str)]
    if users and not spec.get("metrics"):
        spec["metrics"] = [maker.value(FIELDS["metrics"]["items"], ".metrics[]")]
    for number, node in enumerate(users):
        node["metric"] = spec["metrics"][number % len(spec["metrics"])]["name"]


CHANGES: Final = ("maxIncrease", "maxDecrease", "minIncrease")
BOUNDS: Final = ("above", "below", "between", *CHANGES)
FORMS: Final = {
    "bad": ("feature", "bad", "total"),
    "histogram": ("feature", "histogram", "over"),
    "sum": ("feature", "sum", "count"),
    "good": ("good", "total"),
}
FILLED: Final = {
    "bad": "bad_total",
    "total": "all_total",
    "histogram": "seconds",
    "over": "1s",
    "sum": "seconds_sum",
    "count": "seconds_count",
}


def comparisons(spec: Object) -> None:
    """A metric that is counted by cohort is compared, one of all users has a bound in percent, and nothing else uses them."""
    feature = spec["phases"][0]["features"][0]
    forms(spec, feature)
    counted = {metric["name"] for metric in spec.get("metrics", ()) if "feature" in metric.get("cohorts", {})}
    means = {metric["name"] for metric in spec.get("metrics", ()) if "sum" in metric.get("cohorts", {})}
    bounded = {metric["name"] for metric in spec.get("metrics", ()) if "counts" in metric}
    plain = [metric["name"] for metric in spec.get("metrics", ()) if metric["name"] not in counted | bounded]
    checks = [*spec.get("guards", ()), *(check for phase in spec["phases"] for check in phase.get("criteria", ()))]
    if counted | bounded and not plain:
        spec["metrics"] = [*spec["metrics"][:-1], {"name": spec["metrics"][-1]["name"], "query": "up"}]
        comparisons(spec)
        return
    for each in checks:
        compare(each, counted, bounded, is_guard=each in spec.get("guards", ()))
        if each["metric"] in means:
            each.pop("harmBudget", None)
    for phase in spec["phases"][1:]:
        for each in phase.get("criteria", ()):
            if each["metric"] in counted:  # which is about a feature of the first phase
                each["metric"] = plain[0]
                compare(each, counted, bounded, is_guard=False)
    kept = [id(each) for each in checks]
    for node in everywhere({**spec, "metrics": []}):
        if node.get("metric") in counted | bounded and id(node) not in kept:
            node["metric"] = plain[0]


def forms(spec: Object, feature: str) -> None:
    """Cohorts and counts have one form each."""
    for metric in spec.get("metrics", ()):
        if "counts" in metric:
            form = "histogram" if "histogram" in metric["counts"] else "bad"
            metric["counts"] = {name: metric["counts"].get(name, FILLED[name]) for name in FORMS[form][1:]}
        if "cohorts" in metric:
            drawn = metric["cohorts"]
            form = next((name for name in FORMS if name in drawn), "bad")
            filled = {**FILLED, "feature": feature}
            metric["cohorts"] = {
                name: filled["feature"] if name == "feature" else drawn.get(name, filled.get(name)) for name in FORMS[form]
            }
            if form == "good":
                metric["cohorts"] = dict.fromkeys(FORMS[form], 'a{v="$cohort"}')


def compare(check: Object, counted: set[str], bounded: set[str], *, is_guard: bool) -> None:
    """The bound of a check is one that its metric allows."""
    if check["metric"] in bounded:
        for name in (*BOUNDS, "for", "outOf", "comparedTo", "tolerate", "harmBudget"):
            check.pop(name, None)
        check["below"] = "1%"
        return
    changed = [name for name in CHANGES if name in check]
    if check["metric"] in counted:
        for name in (*BOUNDS, "for", "outOf"):
            check.pop(name, None)
        check["comparedTo"] = "Control"
        return
    check.pop("tolerate", None)
    if check.get("comparedTo") == "Control" and (is_guard or not changed):
        check.pop("comparedTo")
        for name in BOUNDS:
            check.pop(name, None)
        check["below"] = "1%"


def times_of_day(spec: Object) -> None:
    """Windows open before they close."""
    for window in spec.get("windows", ()):
        window["from"], window["to"] = sorted((window["from"], window["to"]))
        if window["from"] == window["to"]:
            window.update({"from": "00:00", "to": "23:59"})


def consistent(spec: Object, maker: Maker) -> None:
    """All of it."""
    distinct(spec["phases"], "name", 63)
    features(spec)
    audiences(spec)
    migrations(spec, maker)
    held_back(spec)
    rollback(spec, maker)
    names_of_metrics(spec, maker)
    comparisons(spec)
    times_of_day(spec)
    holds(spec)
    for _ in range(ROUNDS):
        if not (failing := broken(spec, SPEC)):
            return
        leave_out(spec, failing[0])


def leave_out(spec: Object, rule: str) -> None:
    """Drop the first optional field that a rule names and that the spec has, wherever it is."""
    for name in re.findall(r"has\(\w+(?:\.\w+)*\.(\w+)\)", rule):
        holders = [node for node in everywhere(spec) if name in node]
        for node in holders:
            del node[name]
        if holders:
            return


def body(kind: str, name: str, spec: Object) -> Object:
    """An object."""
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


PROMQL: Final = ("up", "sum(rate(a[5m])) / sum(rate(b[5m]))", "a[365d]", "a offset -5m")


def tamed(spec: Object) -> None:
    """The same without what stops every rollout before its first step: suspension, queries and time zones that are none."""
    spec.pop("suspend", None)
    for metric in spec.get("metrics", ()):
        if "query" in metric:
            metric["query"] = metric["query"] if metric["query"] in PROMQL else PROMQL[0]
        elif "counts" in metric:
            metric["counts"] |= {name: text for name, text in FILLED.items() if name in metric["counts"] and name != "over"}
        elif "feature" in metric["cohorts"]:
            metric["cohorts"] |= {name: text for name, text in FILLED.items() if name in metric["cohorts"] and name != "over"}
        else:
            metric["cohorts"] = dict.fromkeys(("good", "total"), 'a{v="$cohort"}')
    for window in spec.get("windows", ()):
        window["timeZone"] = window.get("timeZone") if window.get("timeZone") == "Europe/Berlin" else "UTC"


NAMES: Final = ("s", "shop", "0-9", "a" * 63, "x" + "-" * 61 + "0")


@st.composite
def candidates(draw: Draw) -> Object:
    """A SessionRollout that should be accepted."""
    spec, maker = draw(drafts())
    consistent(spec, maker)
    if draw(st.integers(0, 3)):
        tamed(spec)
    return body("SessionRollout", draw(st.sampled_from(NAMES)), spec)


@st.composite
def accepted(draw: Draw) -> Object:
    """A SessionRollout that `validate` accepts; what it refuses is given up."""
    candidate: Object = draw(candidates())
    assume(not check(candidate))
    return candidate


@st.composite
def accepted_actions(draw: Draw) -> Object:
    """The same for a SessionRolloutAction."""
    candidate = body("SessionRolloutAction", "a", draw(action_specs()))
    assume(not check(candidate))
    return candidate
