"""Valid objects that the API server must accept, invalid actions, and how one mistake is made in a valid object."""

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


COMPARED: Object = yaml.safe_load("""
metrics:
- {name: failures, cohorts: {feature: beta, bad: 'sessions_total{result="failure"}', total: sessions_total}}
- {name: slow, cohorts: {feature: gamma, histogram: load_seconds, over: 500ms}}
criteria:
- {name: failures, metric: failures, comparedTo: Control}
guards:
- {name: failures, metric: failures, comparedTo: Control}
- {name: slow, metric: slow, comparedTo: Control, tolerate: {times: "1.1", plus: "1%"}, onBreach: Pause}
""")


def compared(spec: Object) -> None:
    """Add comparisons with the users without a feature."""
    added = copy.deepcopy(COMPARED)
    spec["control"] = {"falseRollback": "0.5%", "block": "30s", "lag": "15s"}
    spec["metrics"] += added["metrics"]
    spec["phases"][1]["criteria"] += added["criteria"]
    spec["guards"] += added["guards"]


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


FINE: list[tuple[str, Mistake]] = [
    ("as it is", lambda _: None),
    ("comparisons", compared),
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
    (
        "phase that ends early after a contract",
        lambda s: [s["migrations"][1].update(change="Contract"), s["phases"][-1]["steps"][-1].update(percent=60)],
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
    ("adopt without reason", {"action": "Adopt"}, ("`reason` is required", "override")),
    ("reset without reason", {"action": "Reset"}, ("`reason` is required", "override")),
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
