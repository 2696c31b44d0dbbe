"""The plan of a spec: what is rolled out, to whom, and what judges it. What was rolled back once is not tried again by an edit.

An edit starts a rolled-back rollout again only if it can be a fix. Another spelling of the same spec is none, and neither is a field
that changes nothing of what failed: a formatter, or two tools that fight over `checkInterval`, must not turn a faulty feature on.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from session_rollout.api.base import MAP_BY_NAME, SET, Model
from session_rollout.api.metrics import DEFAULT_BASELINE, Metric
from session_rollout.api.protection import Protection
from session_rollout.api.quantities import bound, duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import ROLLED_BACK_PLANS_LENGTH, RolloutStatus
from session_rollout.api.status_records import RolledBackPlan
from session_rollout.core.context import DecisionContext
from session_rollout.core.identity import TOLERANCES, fingerprint, tolerance_text

# Fields of the spec that are no part of the plan.
OTHER: Final = frozenset(
    {"suspend", "check_interval", "propagation", "control", "rollback", "bake", "windows", "notifications", "deletion_policy"}
)
# Of a metric: how often it is asked, as `check_interval`, which it defaults to.
OTHER_OF_METRICS: Final = frozenset({"interval"})
LENGTHS: Final = frozenset({"hold", "over", "deadline", "for_", "window", "season"})
# What a field that is unset means, where the schema has no default for it.
UNSET: Final[dict[str, Callable[[Any], Any]]] = {
    "percent": lambda _: "0",
    "baseline": lambda _: DEFAULT_BASELINE,
    "data_secret_key_ref": lambda database: database.secret_key_ref,
}
NUMBERS: Final = frozenset({"above", "below", "between", "percent", "to", "pass_share", "times", "plus"})


def plan_of(spec: RolloutSpec, queries: Mapping[str, str]) -> str:
    """Fingerprint of the plan, however it is written; `queries` are the queries of the metrics in one spelling."""
    metrics = sorted((_metric(metric, queries) for metric in spec.metrics), key=_text)
    return fingerprint(_text(_normal(spec, without=OTHER) | {"metrics": metrics}))


def _metric(metric: Metric, queries: Mapping[str, str]) -> dict[str, Any]:
    written = _normal(metric, without=OTHER_OF_METRICS)
    return written if metric.name not in queries else {**written, "query": queries[metric.name], "cohorts": None}


def _normal(model: Model, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Its fields in one spelling, without those that have their default: a later version may add fields."""
    fields = {}
    for name in type(model).model_fields.keys() - without:
        field = type(model).model_fields[name]
        value = _value(name, getattr(model, name))
        defaults = [field.default, *(meant(model) for meant in (UNSET.get(name),) if meant)]
        if field.is_required() or all(value != _value(name, default) for default in defaults):
            unordered = field.json_schema_extra in (SET, MAP_BY_NAME) and name != "phases"
            fields[name] = sorted(value, key=_text) if unordered else value
    return fields


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _value(name: str, value: Any) -> Any:
    if isinstance(value, Model):
        return _normal(value)
    if isinstance(value, tuple):
        return [_value(name, item) for item in value]
    if not isinstance(value, str):
        return value
    if name in LENGTHS:
        return str(duration(value))
    if name in NUMBERS:
        return str(bound(value).normalize())
    return tolerance_text(value) if name in TOLERANCES else str(value)


# --- what was rolled back


def note_plan(context: DecisionContext) -> None:
    """Keep the plan of a generation that an earlier version has adopted."""
    status = context.status
    if status.observed_plan is None and status.observed_generation == context.observed.rollout.generation:
        context.change(observed_plan=plan_of(context.spec, context.observed.queries))


def note_rolled_back(context: DecisionContext) -> None:
    """The plan of this generation was rolled back: no edit tries it again, until the rollout is promoted."""
    _note(context, context.status.observed_generation, context.status.observed_plan)


def note_other_plan(context: DecisionContext, rollback: Protection) -> None:
    """The same of a plan whose rollback the document knows: the status never had it, or is of an earlier one."""
    if rollback.generation != context.status.observed_generation:
        _note(context, rollback.generation, rollback.plan)


def _note(context: DecisionContext, generation: int, plan: str | None) -> None:
    if plan is not None:
        others = (known for known in context.status.rolled_back_plans if known.plan != plan)
        record = RolledBackPlan(generation=generation, plan=plan)
        context.change(rolled_back_plans=(*others, record)[-ROLLED_BACK_PLANS_LENGTH:])


def rolled_back_before(status: RolloutStatus, plan: str | None) -> RolledBackPlan | None:
    """The record of a plan that was rolled back; None when it was not."""
    return next((known for known in status.rolled_back_plans if known.plan == plan), None)


def kept_off_text(status: RolloutStatus) -> str | None:
    """Why the last edit did not start the rollout again; None when there was none since the rollback."""
    known = rolled_back_before(status, status.observed_plan)
    if known is None or known.generation == status.observed_generation:
        return None
    return f"generation {status.observed_generation} has the plan of generation {known.generation}, which was rolled back"
