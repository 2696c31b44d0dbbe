"""What the API server takes and experience does not: legal objects that will not do what their author hopes."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from session_rollout.api.quantities import duration
from session_rollout.api.rollout import OnWorkload, Phase, RolloutSpec
from session_rollout.cli.validation import Path, Problem
from session_rollout.core.steps import increments

Ranges = dict[str, timedelta]


def advise(spec: RolloutSpec) -> tuple[Problem, ...]:
    """Every warning about a valid programme."""
    from session_rollout.adapters.promql import largest_range, queries_of

    problems: list[Problem] = []
    ranges: Ranges = {}
    for index, metric in enumerate(spec.metrics):
        try:
            ranges[metric.name] = max(largest_range(query) for query in queries_of(metric))
        except ValueError as error:
            said = str(error).splitlines()[0]
            problems.append(
                Problem(("spec", "metrics", index, "query"), f"its PromQL does not parse, the rollout will stall: {said}")
            )
    for rule in _RULES:
        problems += rule(spec, ranges)
    return tuple(problems)


def _unused_metrics(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    used = {check.metric for check in spec.guards} | {check.metric for phase in spec.phases for check in phase.criteria}
    gates = [*spec.preflight, *spec.rollback.verification, *(gate for phase in spec.phases for gate in phase.verification)]
    used |= {gate.metric for gate in gates if gate.metric is not None}
    for index, metric in enumerate(spec.metrics):
        if metric.name not in used:
            yield Problem(("spec", "metrics", index, "name"), f"{metric.name} is used by no criterion, guard or gate")


def _unused_migrations(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    used = {name for phase in spec.phases for name in (*phase.migrations.before, *phase.migrations.after)}
    for index, migration in enumerate(spec.migrations):
        if migration.name not in used:
            yield Problem(("spec", "migrations", index, "name"), f"{migration.name} is run by no phase")


def _orphans(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    placed = {feature for phase in spec.phases for feature in phase.features}
    for index, feature in enumerate(spec.features):
        if feature.name not in placed:
            yield Problem(("spec", "features", index, "name"), f"{feature.name} is in no phase: it stays {feature.initial}")


def _ranges_and_holds(spec: RolloutSpec, ranges: Ranges) -> Iterator[Problem]:
    for number, phase in enumerate(spec.phases):
        shortest = min(increment.hold for increment in increments(phase))
        for index, check in enumerate(phase.criteria):
            reach = ranges.get(check.metric, timedelta(0))
            if reach > shortest:
                path: Path = ("spec", "phases", number, "criteria", index, "metric")
                yield Problem(
                    path,
                    f"{check.metric} looks back {_short(reach)}, longer than the shortest hold of {_short(shortest)}:"
                    " each step warms up for longer than it holds",
                )


def _steps_without_evidence(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    for number, phase in enumerate(spec.phases):
        if phase.criteria or _only_approved(phase):
            continue
        what = "nothing but guards judges" if spec.guards else "nothing judges"
        yield Problem(
            ("spec", "phases", number, "steps"),
            f"phase {phase.name} has no criteria: {what} its steps, time alone promotes them",
        )


def _only_approved(phase: Phase) -> bool:
    return all(increment.approval for increment in increments(phase) if increment.last_of_step)


def _guards_that_cannot_fire(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    whole = sum((increment.hold for phase in spec.phases for increment in increments(phase)), duration(spec.bake))
    for index, guard in enumerate(spec.guards):
        if duration(guard.for_) >= whole:
            path: Path = ("spec", "guards", index, "for")
            yield Problem(
                path, f"the guard can never fire: a breach must last {guard.for_}, and the whole programme is {_short(whole)}"
            )
    if not spec.guards:
        yield Problem(("spec",), "there are no `guards`: nothing will roll back by itself")


def _first_step_for_all(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    initial = {feature.name for feature in spec.features if feature.initial == "On"}
    for number, phase in enumerate(spec.phases):
        if increments(phase)[0].percent == 100 and not set(phase.features) <= initial:  # noqa: PLR2004 - percent
            yield Problem(
                ("spec", "phases", number, "steps", 0),
                f"phase {phase.name} begins with everybody: nothing is learned from a few",
            )


def _ends_below_everybody(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    for number, phase in enumerate(spec.phases):
        last = increments(phase)[-1].percent
        if last < 100:  # noqa: PLR2004 - percent
            yield Problem(
                ("spec", "phases", number, "steps"), f"phase {phase.name} ends at {last:f}%: the others never get its features"
            )


def _deadlines(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    for number, phase in enumerate(spec.phases):
        if phase.criteria and phase.deadline is None:
            yield Problem(
                ("spec", "phases", number), f"phase {phase.name} has criteria and no `deadline`: failing ones keep it for ever"
            )


def _undo_of_nothing(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    if spec.rollback.workload is OnWorkload.UNDO:
        yield Problem(
            ("spec", "rollback", "workload"),
            "a GitOps tool that owns the Deployment will bring the new revision back: pause its sync, or revert in Git",
        )


_RULES: Final[tuple[Callable[[RolloutSpec, Ranges], Iterator[Problem]], ...]] = (
    _orphans,
    _unused_metrics,
    _unused_migrations,
    _first_step_for_all,
    _ends_below_everybody,
    _steps_without_evidence,
    _ranges_and_holds,
    _deadlines,
    _guards_that_cannot_fire,
    _undo_of_nothing,
)


def _short(length: timedelta) -> str:
    from session_rollout.cli.render.status import left

    return left(length)
