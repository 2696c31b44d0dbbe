"""Invalid and valid objects: what the API server must reject, with the field and what is allowed, and what it must accept.

Each invalid object is a valid one with one mistake: (name, the mistake, words that the message must contain).
"""

import copy
from collections.abc import Callable
from typing import Any

import yaml

Object = dict[str, Any]
Mistake = Callable[[Object], object]

GOOD: Object = yaml.safe_load("""
flagSet: shop
checkInterval: 30s
workload: {kind: Deployment, name: web}
database: {secretKeyRef: {name: db, key: url}}
features:
- {name: alpha, initial: "On"}
- {name: beta}
- {name: gamma, dependsOn: [beta]}
metrics:
- {name: errors, query: errors}
- name: recovery
  cohorts: {good: 'good{variant="$cohort"}', total: 'total{variant="$cohort"}'}
preflight:
- {name: calm, metric: errors, below: 1%}
- {name: signed, approval: {}}
phases:
- name: one
  features: [alpha]
  migrations: {before: [tables], after: [rows]}
  steps: [{percent: 100, hold: 1d}]
  criteria: [{name: errors, metric: errors, below: 1%}]
- name: two
  features: [beta, gamma]
  steps:
  - {percent: 10, groups: [staff], hold: 1d}
  - {ramp: {to: 50, over: 7d, increments: 4}, groups: [staff]}
  - {percent: 100, groups: [staff, friends], hold: 1d, approval: Required}
  criteria:
  - {name: errors, metric: errors, below: 1%}
  - {name: no-worse, metric: errors, comparedTo: Baseline, maxIncrease: 5%}
  - {name: recovery, metric: recovery, comparedTo: Control, maxDecrease: 1%}
  deadline: 1d
  verification: [{name: still-calm, metric: errors, below: 1%}]
guards:
- {name: errors, metric: errors, below: 5%, for: 2m, onBreach: Rollback}
migrations:
- {name: tables, bundle: shop/schema}
- {name: rows, configMapRef: {name: sql}}
rollback: {scope: Phase, migrations: Keep}
bake: 1d
windows: [{days: [Mon, Tue], from: "09:00", to: "16:00", timeZone: Europe/Berlin}]
deletionPolicy: Retain
""")


def put(path: str, value: Any) -> Mistake:
    """Set a field; `phases.0.steps.1.hold` walks lists by number."""

    def mistake(spec: Object) -> None:
        *way, last = path.split(".")
        node: Any = spec
        for part in way:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value

    return mistake


def drop(path: str) -> Mistake:
    """Remove a field."""

    def mistake(spec: Object) -> None:
        *way, last = path.split(".")
        node: Any = spec
        for part in way:
            node = node[int(part)] if isinstance(node, list) else node[part]
        del node[int(last) if isinstance(node, list) else last]

    return mistake


def both(*mistakes: Mistake) -> Mistake:
    """Several changes that together are one mistake."""

    def mistake(spec: Object) -> None:
        for change in mistakes:
            change(spec)

    return mistake


def spoiled(mistake: Mistake) -> Object:
    """The good spec with a mistake."""
    spec = copy.deepcopy(GOOD)
    mistake(spec)
    return spec


BAD: list[tuple[str, Mistake, tuple[str, ...]]] = [
    # flagSet
    ("flagSet missing", drop("flagSet"), ("spec.flagSet", "Required")),
    ("flagSet upper case", put("flagSet", "Shop"), ("spec.flagSet", "a-z0-9")),
    ("flagSet too long", put("flagSet", "s" * 58), ("spec.flagSet", "57")),
    ("flagSet empty", put("flagSet", ""), ("spec.flagSet", "a-z0-9")),
    ("flagSet number", put("flagSet", 7), ("spec.flagSet", "string")),
    # scalars of the top level
    ("suspend text", put("suspend", "yes"), ("spec.suspend", "boolean")),
    ("prometheus url", put("prometheus", "http://prometheus:9090"), ("spec.prometheus", "a-z0-9")),
    ("interval without unit", put("checkInterval", "30"), ("spec.checkInterval", "must be a duration")),
    ("interval with a unit twice", put("checkInterval", "1h1h"), ("spec.checkInterval", "at most once and in this order")),
    ("interval with units that rise", put("checkInterval", "30m1h"), ("spec.checkInterval", "at most once and in this order")),
    ("interval with a fraction", put("checkInterval", "1.5h"), ("spec.checkInterval", "whole numbers")),
    ("interval with a blank", put("checkInterval", "1h 30m"), ("spec.checkInterval", "must be a duration")),
    ("interval in upper case", put("checkInterval", "1H"), ("spec.checkInterval", "must be a duration")),
    ("interval of a unit alone", put("checkInterval", "ms"), ("spec.checkInterval", "must be a duration")),
    ("interval empty", put("checkInterval", ""), ("spec.checkInterval", "at least 2 chars")),
    ("interval too long a text", put("checkInterval", "1w1d1h1m1s1ms" * 2), ("spec.checkInterval", "20")),
    ("interval of nine digits", put("checkInterval", "100000000s"), ("spec.checkInterval", "from 1ms to 365d")),
    ("interval too short", put("checkInterval", "500ms"), ("checkInterval", "at least `1s`; found 500ms")),
    ("interval zero", put("checkInterval", "0s"), ("spec.checkInterval", "from 1ms to 365d")),
    ("interval of zeros", put("checkInterval", "0h0m0s"), ("spec.checkInterval", "from 1ms to 365d")),
    ("interval number", put("checkInterval", 30), ("spec.checkInterval", "string")),
    ("bake in years", put("bake", "1y"), ("spec.bake", "w, d, h, m, s and ms")),
    ("bake of ages", put("bake", "999999w"), ("spec.bake", "from 0s to 365d")),
    ("bake of a year and a moment", put("bake", "365d1ms"), ("spec.bake", "from 0s to 365d")),
    ("bake of many units", put("bake", "53w1h"), ("spec.bake", "from 0s to 365d")),
    ("bake negative", put("bake", "-1d"), ("spec.bake", "must be a duration")),
    ("deletion policy unknown", put("deletionPolicy", "Delete"), ("spec.deletionPolicy", '"Retain", "Off"')),
    # workload and database
    ("workload kind", put("workload.kind", "StatefulSet"), ("spec.workload.kind", '"Deployment"')),
    ("workload without name", drop("workload.name"), ("spec.workload.name", "Required")),
    ("workload in another namespace name", put("workload.name", "other/web"), ("spec.workload.name", "a-z0-9")),
    ("secretKeyRef missing", drop("database.secretKeyRef"), ("spec.database.secretKeyRef", "Required")),
    ("secret key with slash", put("database.secretKeyRef.key", "a/b"), ("spec.database.secretKeyRef.key", "a-zA-Z0-9")),
    ("profile path", put("database.profile", "../x"), ("spec.database.profile", "a-z0-9")),
    ("migrations without database", drop("database"), ("migrations", "`database`")),
    # features
    ("features missing", drop("features"), ("spec.features", "Required")),
    ("features empty", put("features", []), ("spec.features", "at least 1")),
    ("feature name with space", put("features.1.name", "be ta"), ("spec.features[1].name", "A-Za-z")),
    ("feature name starts with digit", put("features.1.name", "1beta"), ("spec.features[1].name", "A-Za-z")),
    ("feature name too long", put("features.1.name", "b" * 45), ("spec.features[1].name", "44")),
    ("feature twice", put("features.1.name", "alpha"), ("spec.features[1]", "Duplicate")),
    ("initial boolean", put("features.0.initial", value=True), ("spec.features[0].initial", "string")),
    ("initial lower case", put("features.0.initial", "on"), ("spec.features[0].initial", '"On", "Off"')),
    ("too many features", lambda s: s["features"].extend({"name": f"f{n}"} for n in range(40)), ("spec.features", "40")),
    ("depends on unknown", put("features.2.dependsOn", ["delta"]), ("dependsOn", "names of other entries of `features`")),
    (
        "depends on later phase",
        both(drop("features.2.dependsOn"), put("features.0.dependsOn", ["beta"])),
        ("dependsOn", "same phase or an earlier one"),
    ),
    (
        "depends on half a phase",
        both(put("features.2.dependsOn", ["alpha"]), drop("features.0.initial"), put("phases.0.steps.0.percent", 50)),
        ("later phases depend on", "`percent: 100`"),
    ),
    ("too many dependencies", put("features.2.dependsOn", ["a", "b", "c", "d", "e"]), ("spec.features[2].dependsOn", "4")),
    ("dependency twice", put("features.2.dependsOn", ["beta", "beta"]), ("spec.features[2].dependsOn", "Duplicate")),
    ("initial on and first step below 100", put("phases.0.steps.0.percent", 50), ("initial: On", "percent: 100")),
    # metrics
    ("metric without query", drop("metrics.0.query"), ("spec.metrics[0]", "exactly one of `query` and `cohorts`")),
    ("metric with both", put("metrics.1.query", "x"), ("spec.metrics[1]", "exactly one of `query` and `cohorts`")),
    ("metric query empty", put("metrics.0.query", ""), ("spec.metrics[0].query", "at least 1")),
    ("metric query too long", put("metrics.0.query", "x" * 2049), ("spec.metrics[0].query", "2048")),
    ("metric with url", put("metrics.0.address", "http://x"), ("spec.metrics[0].address", "unknown field")),
    ("metric twice", put("metrics.1.name", "errors"), ("spec.metrics[1]", "Duplicate")),
    ("cohorts without placeholder", put("metrics.1.cohorts.good", "good"), ("spec.metrics[1]", "`$cohort`")),
    ("cohorts without total", drop("metrics.1.cohorts.total"), ("spec.metrics[1].cohorts.total", "Required")),
    # gates
    (
        "gate without anything",
        put("preflight.0", {"name": "calm"}),
        ("spec.preflight[0]", "exactly one of `metric`, `http`"),
    ),
    ("gate with both", put("preflight.0.approval", {}), ("spec.preflight[0]", "exactly one of `metric`, `http`")),
    ("gate without bound", drop("preflight.0.below"), ("spec.preflight[0]", "exactly one of `above` and `below`")),
    ("gate with two bounds", put("preflight.0.above", "1"), ("spec.preflight[0]", "exactly one of `above` and `below`")),
    ("gate approval with bound", put("preflight.1.below", "1"), ("spec.preflight[1]", "any other gate neither")),
    ("gate with metric and http", put("preflight.0.http", {"service": "web"}), ("spec.preflight[0]", "exactly one of")),
    ("http without service", put("preflight.1", {"name": "up", "http": {}}), ("preflight[1].http.service", "Required")),
    (
        "http with a host",
        put("preflight.1", {"name": "up", "http": {"service": "web.other"}}),
        ("preflight[1].http.service", "a-z0-9"),
    ),
    (
        "http with a url",
        put("preflight.1", {"name": "up", "http": {"service": "web", "path": "http://x/"}}),
        ("preflight[1].http.path", "in body should match"),
    ),
    (
        "http port zero",
        put("preflight.1", {"name": "up", "http": {"service": "web", "port": 0}}),
        ("preflight[1].http.port", "greater than or equal to 1"),
    ),
    (
        "http status of none",
        put("preflight.1", {"name": "up", "http": {"service": "web", "expectStatus": 99}}),
        ("preflight[1].http.expectStatus", "100"),
    ),
    ("job without profile", put("preflight.1", {"name": "smoke", "job": {}}), ("preflight[1].job.profile", "Required")),
    (
        "job with an image",
        put("preflight.1", {"name": "smoke", "job": {"profile": "smoke", "image": "x"}}),
        ("preflight[1].job.image", "unknown field"),
    ),
    (
        "built-in check that is none",
        put("preflight.1", {"name": "all", "builtin": "Everything"}),
        ("preflight[1].builtin", '"FlagStore"'),
    ),
    (
        "approval after a rollback",
        put("rollback.verification", [{"name": "ok", "approval": {}}]),
        ("`rollback.verification`", "must not contain `approval`"),
    ),
    (
        "unknown metric after a rollback",
        put("rollback.verification", [{"name": "calm", "metric": "latency", "below": "1"}]),
        ("rollback.verification[].metric", "a name from `metrics`"),
    ),
    (
        "undo without a workload",
        both(drop("workload"), put("rollback.workload", "Undo")),
        ("`rollback.workload: Undo`", "`workload`"),
    ),
    ("undo unknown", put("rollback.workload", "Redo"), ("spec.rollback.workload", '"Keep", "Undo"')),
    (
        "sink with a url",
        put("notifications", [{"sink": "https://x", "events": ["Promoted"]}]),
        ("notifications[0].sink", "a-z0-9"),
    ),
    ("sink of nothing", put("notifications", [{"sink": "chat", "events": []}]), ("notifications[0].events", "at least 1")),
    (
        "event unknown",
        put("notifications", [{"sink": "chat", "events": ["Everything"]}]),
        ("notifications[0].events[0]", '"Promoted"'),
    ),
    ("gate with unknown metric", put("preflight.0.metric", "latency"), ("preflight[].metric", "a name from `metrics`")),
    ("gate twice", put("preflight.1.name", "calm"), ("spec.preflight[1]", "Duplicate")),
    (
        "verification with unknown metric",
        put("phases.1.verification.0.metric", "latency"),
        ("verification[].metric", "a name from `metrics`"),
    ),
    # phases
    ("phases missing", drop("phases"), ("spec.phases", "Required")),
    ("phases empty", put("phases", []), ("spec.phases", "at least 1")),
    ("phase name twice", put("phases.1.name", "one"), ("spec.phases[1]", "Duplicate")),
    ("phase name upper case", put("phases.0.name", "One"), ("spec.phases[0].name", "a-z0-9")),
    ("phase without features", put("phases.0.features", []), ("spec.phases[0].features", "at least 1")),
    (
        "phase with unknown feature",
        put("phases.0.features", ["delta"]),
        ("phases[].features", "names from `features`; found delta"),
    ),
    (
        "feature in two phases",
        put("phases.1.features", ["alpha", "beta", "gamma"]),
        ("one phase only; found alpha", "`phases[].features`"),
    ),
    ("phase without steps", put("phases.0.steps", []), ("spec.phases[0].steps", "at least 1")),
    ("too many steps", put("phases.0.steps", [{"percent": 100, "hold": "1d"}] * 17), ("spec.phases[0].steps", "16")),
    ("deadline without unit", put("phases.1.deadline", "10"), ("spec.phases[1].deadline", "must be a duration")),
    ("deadline action unknown", put("phases.1.onDeadline", "Abort"), ("spec.phases[1].onDeadline", '"Stall", "Rollback"')),
    ("traffic weight", put("phases.0.weight", 5), ("spec.phases[0].weight", "unknown field")),
    # steps
    ("percent above 100", put("phases.1.steps.0.percent", 101), ("spec.phases[1].steps[0].percent", "100")),
    ("percent negative", put("phases.1.steps.0.percent", -1), ("spec.phases[1].steps[0].percent", "0")),
    ("percent float", put("phases.1.steps.0.percent", 0.5), ("spec.phases[1].steps[0].percent", "integer,string")),
    ("percent text", put("phases.1.steps.0.percent", "ten"), ("spec.phases[1].steps[0].percent", "[0-9]")),
    ("percent with sign", put("phases.1.steps.0.percent", "10%"), ("spec.phases[1].steps[0].percent", "[0-9]")),
    ("percent with two decimals", put("phases.1.steps.0.percent", "0.25"), ("spec.phases[1].steps[0].percent", "[0-9]")),
    ("percent text above 100", put("phases.1.steps.0.percent", "150"), ("spec.phases[1].steps[0].percent", "100")),
    ("percentages fall", put("phases.1.steps.2.percent", 40), ("spec.phases[1]", "must not be less than in the step before")),
    ("ramp falls", put("phases.1.steps.1.ramp.to", 5), ("spec.phases[1]", "must not be less than in the step before")),
    (
        "groups disappear",
        put("phases.1.steps.2.groups", ["friends"]),
        ("spec.phases[1]", "contain all groups of the step before"),
    ),
    ("groups gone", drop("phases.1.steps.2.groups"), ("spec.phases[1]", "contain all groups of the step before")),
    ("group twice", put("phases.1.steps.0.groups", ["staff", "staff"]), ("steps[0].groups", "Duplicate")),
    ("group upper case", put("phases.1.steps.0.groups", ["Staff"]), ("steps[0].groups[0]", "a-z0-9")),
    ("step with nothing", put("phases.0.steps.0", {"hold": "1d"}), ("spec.phases[0].steps[0]", "`percent` or `groups`")),
    ("step without hold", drop("phases.0.steps.0.hold"), ("spec.phases[0].steps[0]", "`hold`")),
    ("ramp with hold", put("phases.1.steps.1.hold", "1d"), ("spec.phases[1].steps[1]", "`ramp` without `percent` and `hold`")),
    (
        "ramp with percent",
        put("phases.1.steps.1.percent", 20),
        ("spec.phases[1].steps[1]", "`ramp` without `percent` and `hold`"),
    ),
    ("ramp of no increments", put("phases.1.steps.1.ramp.increments", 0), ("ramp.increments", "greater than or equal to 1")),
    ("ramp of many increments", put("phases.1.steps.1.ramp.increments", 101), ("ramp.increments", "less than or equal to 100")),
    ("ramp without increments", drop("phases.1.steps.1.ramp.increments"), ("ramp.increments", "Required")),
    ("ramp without time", drop("phases.1.steps.1.ramp.over"), ("ramp.over", "Required")),
    (
        "ramp faster than checks",
        put("phases.1.steps.1.ramp.over", "1m"),
        ("ramp.over", "at least `increments` times `checkInterval`"),
    ),
    (
        "compound ramp faster than checks",
        put("phases.1.steps.1.ramp.over", "1m59s999ms"),
        ("ramp.over", "at least `increments` times `checkInterval`"),
    ),
    ("hold below interval", put("phases.0.steps.0.hold", "10s"), ("hold", "at least `checkInterval`")),
    ("hold without unit", put("phases.0.steps.0.hold", "7"), ("steps[0].hold", "at least 2 chars")),
    ("hold zero", put("phases.0.steps.0.hold", "0s"), ("steps[0].hold", "from 1ms to 365d")),
    ("hold of two years", put("phases.0.steps.0.hold", "104w"), ("steps[0].hold", "from 1ms to 365d")),
    ("compound hold below interval", put("phases.0.steps.0.hold", "29s999ms"), ("hold", "at least `checkInterval`")),
    (
        "hold below a compound interval",
        both(put("checkInterval", "1d12h"), put("bake", "0s")),
        ("hold", "at least `checkInterval`"),
    ),
    ("approval boolean", put("phases.1.steps.2.approval", value=True), ("steps[2].approval", "string")),
    ("approval unknown", put("phases.1.steps.2.approval", "Yes"), ("steps[2].approval", '"Required", "NotRequired"')),
    # criteria
    (
        "criterion without bound",
        put("phases.0.criteria.0", {"name": "errors", "metric": "errors"}),
        ("spec.phases[0].criteria[0]", "exactly one of `above`, `below`"),
    ),
    (
        "criterion with two bounds",
        put("phases.0.criteria.0.above", "0"),
        ("spec.phases[0].criteria[0]", "exactly one of `above`, `below`"),
    ),
    ("criterion bound number", put("phases.0.criteria.0.below", 1), ("criteria[0].below", "string")),
    ("criterion bound text", put("phases.0.criteria.0.below", "low"), ("criteria[0].below", "%|ms|s")),
    ("criterion bound unit", put("phases.0.criteria.0.below", "5MB"), ("criteria[0].below", "%|ms|s")),
    ("criterion unknown metric", put("phases.0.criteria.0.metric", "latency"), ("criteria[].metric", "a name from `metrics`")),
    ("criterion without metric", drop("phases.0.criteria.0.metric"), ("criteria[0].metric", "Required")),
    (
        "criterion compared without bound",
        put("phases.0.criteria.0.comparedTo", "Baseline"),
        ("criteria[0]", "`comparedTo` requires"),
    ),
    (
        "criterion increase without comparison",
        drop("phases.1.criteria.1.comparedTo"),
        ("criteria[1]", "`comparedTo: Baseline` or `Control`"),
    ),
    (
        "criterion compared to yesterday",
        put("phases.1.criteria.1.comparedTo", "Yesterday"),
        ("comparedTo", '"Baseline", "Control"'),
    ),
    ("criteria of one name", put("phases.1.criteria.1.name", "errors"), ("spec.phases[1].criteria[1]", "Duplicate")),
    ("criterion without a name", drop("phases.1.criteria.1.name"), ("spec.phases[1].criteria[1].name", "Required")),
    ("negative increase", put("phases.1.criteria.1.maxIncrease", "-1%"), ("criteria[1].maxIncrease", "use `minIncrease`")),
    ("negative decrease", put("phases.1.criteria.2.maxDecrease", "-1%"), ("criteria[2].maxDecrease", "must not be negative")),
    (
        "negative rise",
        both(drop("phases.1.criteria.1.maxIncrease"), put("phases.1.criteria.1.minIncrease", "-0.5")),
        ("criteria[1].minIncrease", "must not be negative"),
    ),
    (
        "rise and fall",
        put("phases.1.criteria.1.minIncrease", "1%"),
        ("criteria[1]", "exactly one of `above`, `below`, `maxIncrease`"),
    ),
    (
        "rise without comparison",
        put("phases.0.criteria.0", {"name": "errors", "metric": "errors", "minIncrease": "1%"}),
        ("criteria[0]", "requires `comparedTo"),
    ),
    (
        "criterion with expression",
        put("phases.0.criteria.0.successCondition", "result < 1"),
        ("successCondition", "unknown field"),
    ),
    # guards
    ("guard unknown metric", put("guards.0.metric", "latency"), ("guards[].metric", "a name from `metrics`")),
    (
        "guard compared to off",
        put("guards.0", {"name": "recovery", "metric": "recovery", "comparedTo": "Control", "maxDecrease": "1%"}),
        ("spec.guards[0]", "must be `Baseline`"),
    ),
    ("guard action unknown", put("guards.0.onBreach", "Abort"), ("spec.guards[0].onBreach", '"Rollback", "Pause", "Warn"')),
    ("guard for without unit", put("guards.0.for", "20"), ("spec.guards[0].for", "must be a duration")),
    (
        "guards of one name",
        lambda s: s["guards"].append({"name": "errors", "metric": "errors", "below": "9%"}),
        ("spec.guards[1]", "Duplicate"),
    ),
    # migrations
    (
        "migration without source",
        drop("migrations.0.bundle"),
        ("spec.migrations[0]", "exactly one of `bundle` and `configMapRef`"),
    ),
    (
        "migration with both",
        put("migrations.0.configMapRef", {"name": "x"}),
        ("spec.migrations[0]", "exactly one of `bundle` and `configMapRef`"),
    ),
    ("migration bundle path", put("migrations.0.bundle", "../../etc/passwd"), ("spec.migrations[0].bundle", "a-z0-9-")),
    ("migration with image", put("migrations.0.image", "evil"), ("spec.migrations[0].image", "unknown field")),
    ("migration unknown", put("phases.0.migrations.before", ["other"]), ("phases[].migrations", "names from `migrations`")),
    ("migration that changes in another way", put("migrations.0.change", "Drop"), ("spec.migrations[0].change", '"Contract"')),
    (
        "point of no return zero",
        put("migrations.0.pointOfNoReturn", 0),
        ("spec.migrations[0].pointOfNoReturn", "greater than or"),
    ),
    ("point of no return as text", put("migrations.0.pointOfNoReturn", "3"), ("spec.migrations[0].pointOfNoReturn", "integer")),
    ("backup as text", put("migrations.0.backup", "yes"), ("spec.migrations[0].backup", "boolean")),
    (
        "contract before a phase",
        put("migrations.0.change", "Contract"),
        ("`change: Contract`", "`migrations.after` of a phase"),
    ),
    (
        "contract before expand",
        lambda s: [
            s["migrations"][1].update(change="Contract"),
            s["migrations"].append({"name": "late", "bundle": "shop/late"}),
            s["phases"][1].update(migrations={"before": ["late"]}),
        ],
        ("first expand, then migrate, then contract",),
    ),
    ("restore without a backup", put("rollback.restoreData", value=True), ("`rollback.restoreData: true`", "`backup: true`")),
    (
        "data Secret without a name",
        put("database.dataSecretKeyRef", {"key": "url"}),
        ("spec.database.dataSecretKeyRef.name", "Required"),
    ),
    (
        "migration in two places",
        put("phases.1.migrations", {"after": ["tables"]}),
        ("`phases[].migrations`", "only once, in one phase"),
    ),
    # rollback and windows
    ("rollback scope unknown", put("rollback.scope", "Everything"), ("spec.rollback.scope", '"Step", "Phase", "All"')),
    ("rollback migrations unknown", put("rollback.migrations", "Up"), ("spec.rollback.migrations", '"Keep", "Down"')),
    ("window day unknown", put("windows.0.days", ["Montag"]), ("spec.windows[0].days[0]", '"Mon"')),
    ("window without days", put("windows.0.days", []), ("spec.windows[0].days", "at least 1")),
    ("window at 25 o'clock", put("windows.0.to", "25:00"), ("spec.windows[0].to", "[01][0-9]")),
    ("window ends before it begins", put("windows.0.to", "08:00"), ("spec.windows[0]", "found 09:00 to 08:00")),
    ("window zone with blank", put("windows.0.timeZone", "Europe / Berlin"), ("spec.windows[0].timeZone", "A-Za-z0-9_")),
    ("unknown top field", put("canary", {}), ("spec.canary", "unknown field")),
]

FINE: list[tuple[str, Mistake]] = [
    ("as it is", lambda _: None),
    ("http check", put("preflight.1", {"name": "up", "http": {"service": "web", "port": 8080, "path": "/health?deep=1"}})),
    ("job check", put("preflight.1", {"name": "smoke", "job": {"profile": "smoke-tests"}})),
    ("built-in check", put("preflight.1", {"name": "store", "builtin": "FlagStore"})),
    ("check after a rollback", put("rollback.verification", [{"name": "calm", "metric": "errors", "below": "1%"}])),
    ("undo of the workload", put("rollback.workload", "Undo")),
    ("notifications", put("notifications", [{"sink": "chat", "events": ["Promoted", "ApprovalNeeded", "Stalled"]}])),
    (
        "only what is required",
        lambda s: (
            [
                s.pop(k)
                for k in (
                    "workload",
                    "database",
                    "preflight",
                    "guards",
                    "migrations",
                    "rollback",
                    "bake",
                    "windows",
                    "deletionPolicy",
                    "checkInterval",
                )
            ]
            + [s["phases"][0].pop("migrations")]
        ),
    ),
    ("suspended", put("suspend", value=True)),
    ("half a percent", put("phases.1.steps.0.percent", "0.5")),
    ("percent as text", put("phases.1.steps.0.percent", "10")),
    ("zero percent with a group", put("phases.1.steps.0.percent", 0)),
    ("groups only", drop("phases.1.steps.0.percent")),
    ("steady percentage", put("phases.1.steps.0.percent", 50)),
    ("ramp of one increment", put("phases.1.steps.1.ramp.increments", 1)),
    ("ramp to a decimal", put("phases.1.steps.1.ramp.to", "49.5")),
    ("ramp first", drop("phases.1.steps.0")),
    ("rollout that ends at half", drop("phases.1.steps.2")),
    ("milliseconds", put("checkInterval", "1500ms")),
    ("weeks", put("phases.1.steps.0.hold", "2w")),
    ("compound hold", put("phases.1.steps.0.hold", "1d12h")),
    ("every unit", put("phases.1.steps.0.hold", "1w1d1h1m1s1ms")),
    ("as Go writes it", put("phases.1.steps.0.hold", "1h0m0s")),
    ("leading zeros", put("phases.1.steps.0.hold", "007d")),
    ("a year", put("bake", "365d")),
    ("a year in weeks and days", put("bake", "52w1d")),
    ("no bake", put("bake", "0s")),
    ("no bake in another unit", put("bake", "0d")),
    ("breach that counts at once", put("guards.0.for", "0s")),
    ("breach that must last", put("guards.0.for", "2m30s")),
    ("no patience", put("phases.1.deadline", "0s")),
    ("compound interval", both(put("checkInterval", "1m30s"), put("phases.0.steps.0.hold", "90s"))),
    ("compound ramp", put("phases.1.steps.1.ramp.over", "1d12h")),
    ("ramp as fast as the checks", put("phases.1.steps.1.ramp.over", "2m")),
    ("hold of one interval", put("phases.0.steps.0.hold", "30s")),
    ("bound in milliseconds", put("phases.0.criteria.0.below", "500ms")),
    ("bound in seconds", put("phases.0.criteria.0.below", "5s")),
    ("large bound", put("phases.0.criteria.0.below", "10737418240")),
    ("negative bound", put("phases.0.criteria.0.below", "-1%")),
    ("no rise", put("phases.1.criteria.1.maxIncrease", "0")),
    (
        "must rise",
        both(drop("phases.1.criteria.1.maxIncrease"), put("phases.1.criteria.1.minIncrease", "1%")),
    ),
    ("no criteria", drop("phases.0.criteria")),
    ("guard that pauses", put("guards.0.onBreach", "Pause")),
    (
        "guard against the baseline",
        put("guards.0", {"name": "errors", "metric": "errors", "comparedTo": "Baseline", "maxIncrease": "20%"}),
    ),
    ("two guards with names", lambda s: s["guards"].append({"name": "second", "metric": "errors", "below": "9%"})),
    ("dependency in an earlier phase", put("features.2.dependsOn", ["alpha"])),
    ("feature without a phase", lambda s: s["features"].append({"name": "delta"})),
    ("rollback of everything", put("rollback", {"scope": "All", "migrations": "Down"})),
    ("two windows", lambda s: s["windows"].append({"days": ["Sat"], "from": "10:00", "to": "12:00"})),
    ("turned off at deletion", put("deletionPolicy", "Off")),
    ("deadline that rolls back", put("phases.1.onDeadline", "Rollback")),
    (
        "twenty phases",
        lambda s: [
            s["features"].append({"name": f"f{n}"})
            or s["phases"].append({"name": f"p{n}", "features": [f"f{n}"], "steps": [{"percent": 100, "hold": "1d"}]})
            for n in range(18)
        ],
    ),
    ("another provider", put("prometheus", "eu-west")),
    ("expand, migrate, contract", lambda s: s["migrations"][1].update(change="Contract")),
    (
        "contract after a later phase",
        lambda s: [
            s["migrations"].append({"name": "gone", "bundle": "shop/gone", "change": "Contract"}),
            s["phases"][1].update(migrations={"after": ["gone"]}),
        ],
    ),
    ("snapshot and restore", lambda s: [s["migrations"][1].update(backup=True), s["rollback"].update(restoreData=True)]),
    ("point of no return", put("migrations.0.pointOfNoReturn", 3)),
    ("two roles", put("database.dataSecretKeyRef", {"name": "mover"})),
    ("data may be lost", put("rollback", {"migrations": "Down", "allowDataLoss": True})),
]

ACTION: Object = {"rollout": "shop", "action": "Pause"}
BAD_ACTIONS: list[tuple[str, Object, tuple[str, ...]]] = [
    ("unknown action", {"action": "Delete"}, ("spec.action", '"Approve"')),
    ("no rollout", {"rollout": None}, ("spec.rollout", "Required")),
    (
        "promote without reason",
        {"action": "Promote", "generation": 1, "phase": "one", "step": 1},
        ("`reason` is required", "override"),
    ),
    ("abort without reason", {"action": "Abort"}, ("`reason` is required", "override")),
    ("emergency without reason", {"action": "EmergencyDisable"}, ("`reason` is required", "override")),
    ("approve without generation", {"action": "Approve", "phase": "one", "step": 1}, ("`generation`", "is required")),
    ("approve without step", {"action": "Approve", "generation": 1}, ("`phase` and `step`", "are required")),
    ("retry without generation", {"action": "Retry"}, ("`generation`", "is required")),
    ("check with pause", {"check": "signed"}, ("`check`", "only for Approve and Verify")),
    ("features with pause", {"features": ["alpha"]}, ("`features`", "only for EmergencyDisable and EmergencyEnable")),
    (
        "step zero",
        {"action": "Approve", "generation": 1, "phase": "one", "step": 0},
        ("spec.step", "greater than or equal to 1"),
    ),
    ("restore without migration", {"action": "RestoreData", "reason": "x"}, ("`migration`", "is required")),
    ("restore without reason", {"action": "RestoreData", "migration": "rows"}, ("`reason` is required", "override")),
    ("retry of no migration", {"action": "RetryMigration"}, ("`migration`", "is required")),
    ("migration with pause", {"migration": "rows"}, ("`migration`", "only for these")),
    ("user with pause", {"user": "u-1"}, ("`user`", "only for RestoreData")),
    (
        "user with a space",
        {"action": "RestoreData", "migration": "rows", "reason": "x", "user": "a b"},
        ("spec.user", "A-Za-z0-9"),
    ),
    (
        "time that is none",
        {"action": "RestoreData", "migration": "rows", "reason": "x", "at": "yesterday"},
        ("spec.at", "date-time"),
    ),
    ("restart without reason", {"action": "RestartWorkload"}, ("`reason` is required", "affect users")),
    ("undo without reason", {"action": "UndoWorkload"}, ("`reason` is required", "affect users")),
    ("down without reason", {"action": "MigrateDown", "migration": "rows"}, ("`reason` is required", "override")),
    ("backup of no migration", {"action": "BackupData"}, ("`migration`", "is required")),
    ("recovery of no migration", {"action": "RepairData"}, ("`migration`", "is required")),
    ("diagnosis without topic", {"action": "Diagnose"}, ("`topic`", "is required for Diagnose")),
    ("topic with pause", {"topic": "memory"}, ("`topic`", "allowed only for it")),
    ("inspection without operation", {"action": "InspectMigration", "migration": "rows"}, ("`operation`", "is required")),
    (
        "inspection that changes something",
        {"action": "InspectMigration", "migration": "rows", "operation": "down"},
        ("spec.operation", '"plan", "status", "verify"'),
    ),
    ("operation with pause", {"operation": "plan"}, ("`operation`", "allowed only for it")),
    ("ttl without unit", {"ttl": "30"}, ("spec.ttl", "must be a duration")),
]
