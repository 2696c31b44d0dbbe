"""Warnings of `validate`: objects that the API server accepts, but that probably do not do what their author expects."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import StrEnum
from typing import Final

from session_rollout.api.checks import Check
from session_rollout.api.metrics import DEFAULT_CONTROL
from session_rollout.api.migration import Change
from session_rollout.api.phases import Phase
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.rollback import OnWorkload, RollbackScope
from session_rollout.api.rollout import OnOff, RolloutSpec
from session_rollout.cli.admission import Path, Problem
from session_rollout.cli.warnings_evidence import evidence_warnings
from session_rollout.cli.warnings_queries import query_warnings
from session_rollout.core.steps import increments, planned_time

Ranges = dict[str, timedelta]
WHOLE: Final = 100
LEAST_INTERVAL: Final = timedelta(seconds=5)  # a reconciliation may take a few seconds while the API server is slow


class Warn(StrEnum):
    """What a warning is about."""

    INVALID_QUERY = "InvalidQuery"
    UNUSED_FEATURE = "UnusedFeature"
    UNUSED_METRIC = "UnusedMetric"
    UNUSED_MIGRATION = "UnusedMigration"
    EARLY_CONTRACT = "EarlyContract"
    NO_CANARY = "NoCanary"
    PARTIAL_AUDIENCE = "PartialAudience"
    NO_CRITERIA = "NoCriteria"
    NO_GUARDS = "NoGuards"
    NO_DEADLINE = "NoDeadline"
    RANGE_LONGER_THAN_HOLD = "RangeLongerThanHold"
    INTERVAL_NOT_KEPT = "IntervalNotKept"
    INEFFECTIVE_GUARD = "IneffectiveGuard"
    EMPTY_RATIO = "EmptyRatio"
    ZERO_WITHOUT_TRAFFIC = "ZeroWithoutTraffic"
    NO_MINIMUM = "NoMinimum"
    SUSPENDED = "Suspended"
    UNDO_WITH_GITOPS = "UndoWithGitOps"


def warnings_of(spec: RolloutSpec) -> tuple[Problem, ...]:
    """Every warning about a valid spec."""
    problems, ranges = _parse_queries(spec)
    for rule in _RULES:
        problems += rule(spec, ranges)
    return (*problems, *evidence_warnings(spec), *query_warnings(spec, frozenset(ranges)))


def _warning(path: Path, about: Warn, message: str) -> Problem:
    return Problem(("spec", *path), message, rule=about)


def _parse_queries(spec: RolloutSpec) -> tuple[list[Problem], Ranges]:
    """The largest range of each metric's queries; a warning for queries that do not parse."""
    from session_rollout.adapters.cohort_metrics import uncounted
    from session_rollout.adapters.promql import Intervals, effective_range, problem_of, queries_of

    problems: list[Problem] = []
    ranges: Ranges = {}
    for index, metric in enumerate(spec.metrics):
        faults = [problem_of(query, patiently=True) for query in queries_of(metric)]
        faults.append(uncounted(metric, DEFAULT_CONTROL, Intervals()))  # how often is scraped is not known here
        if fault := next((fault for fault in faults if fault is not None), None):
            message = f"the rollout will stall, because the PromQL is invalid: {fault}"
            field = "query" if metric.query is not None else "cohorts" if metric.cohorts is not None else "counts"
            problems.append(_warning(("metrics", index, field), Warn.INVALID_QUERY, message))
        else:
            ranges[metric.name] = effective_range(metric, control=spec.control)
    return problems, ranges


def _empty_ratios(spec: RolloutSpec, ranges: Ranges) -> Iterator[Problem]:
    """Queries that are empty while nothing has failed yet: a healthy application then has no evidence."""
    from session_rollout.adapters.promql_ratios import is_zero_without_traffic, ratios

    for index, metric in enumerate(spec.metrics):
        if metric.query is None or metric.name not in ranges:
            continue  # it cannot be parsed
        path: Path = ("metrics", index, "query")
        for ratio in ratios(metric.query):
            if ratio.can_be_absent:
                message = (
                    f"{metric.name} has no data while {ratio.numerator} matches no series, as on a service that never had such an"
                    f" event; the hold waits and guards see nothing. Write `query: {ratio.rewritten}`"
                )
                yield _warning(path, Warn.EMPTY_RATIO, message)
        if is_zero_without_traffic(metric.query):
            message = (
                f"{metric.name} is a number also when there are no requests at all, so that a step without traffic can pass;"
                " put `or vector(0)` into the upper half of the division only"
            )
            yield _warning(path, Warn.ZERO_WITHOUT_TRAFFIC, message)


def _minimums(spec: RolloutSpec, ranges: Ranges) -> Iterator[Problem]:
    """Ratios of events that are judged however few events there are."""
    from session_rollout.adapters.promql_ratios import ratios

    events = {
        metric.name: next((ratio.events for ratio in ratios(metric.query) if ratio.events), None)
        for metric in spec.metrics
        if metric.query is not None and metric.name in ranges
    }
    for path, check in _checks_of(spec):
        if (query := events.get(check.metric)) and check.minimum is None and not check.dry_run:
            message = (
                f"{check.name} is judged on any number of events: one failure of two requests is 50%. Write the metric"
                f" `{{name: requests, query: '{query}'}}` and, in the check, `minimum: {{metric: requests, above: \"20\"}}`"
            )
            yield _warning(path, Warn.NO_MINIMUM, message)


def _checks_of(spec: RolloutSpec) -> Iterator[tuple[Path, Check]]:
    """Every criterion and guard, with its place."""
    for number, phase in enumerate(spec.phases):
        for index, criterion in enumerate(phase.criteria):
            yield ("phases", number, "criteria", index), criterion
    for index, guard in enumerate(spec.guards):
        yield ("guards", index), guard


def _empty_cohorts(spec: RolloutSpec, ranges: Ranges) -> Iterator[Problem]:
    """The same for metrics with two queries."""
    from session_rollout.adapters.promql_ratios import ZERO, needs_default

    for index, metric in enumerate(spec.metrics):
        good, total = (metric.cohorts.good, metric.cohorts.total) if metric.cohorts is not None else (None, None)
        if good is None or total is None or metric.name not in ranges:
            continue
        if needs_default(good, total):
            message = (
                f"{metric.name} has no data while a cohort has no good event, although all of its events failed."
                f" Write `good: {good} {ZERO}`"
            )
            yield _warning(("metrics", index, "cohorts", "good"), Warn.EMPTY_RATIO, message)


def _suspended(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    if spec.suspend:
        message = (
            "while suspended, guards are not heard: users keep what is published, also in a breach. To keep the audience and"
            " the guards, use `kubectl sessionrollout pause` instead"
        )
        yield _warning(("suspend",), Warn.SUSPENDED, message)


def _unused_features(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    used = {feature for phase in spec.phases for feature in phase.features}
    for index, feature in enumerate(spec.features):
        if feature.name not in used:
            message = f"{feature.name} is not in a phase, so it keeps its initial value {feature.initial}"
            yield _warning(("features", index, "name"), Warn.UNUSED_FEATURE, message)


def _unused_metrics(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    checks = spec.all_checks()
    used = {name for check in checks for name in check.metrics} | {gate.metric for gate in spec.all_gates()}
    for index, metric in enumerate(spec.metrics):
        if metric.name not in used:
            message = f"{metric.name} is not used by a criterion, guard or gate"
            yield _warning(("metrics", index, "name"), Warn.UNUSED_METRIC, message)


def _unused_migrations(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    used = {name for phase in spec.phases for name in phase.migrations.names}
    for index, migration in enumerate(spec.migrations):
        if migration.name not in used:
            message = f"{migration.name} does not run in a phase; add it to `migrations` of a phase"
            yield _warning(("migrations", index, "name"), Warn.UNUSED_MIGRATION, message)


def _contracts(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    for index, migration in enumerate(spec.migrations):
        reasons = tuple(_after_contract(spec, migration.name)) if migration.change is Change.CONTRACT else ()
        if reasons:
            message = (
                f"{migration.name} removes what a rollback still needs, because {' and '.join(reasons)}; run it in a rollout of"
                " its own, after this one is promoted and the flags are removed from the code"
            )
            yield _warning(("migrations", index, "change"), Warn.EARLY_CONTRACT, message)


def _after_contract(spec: RolloutSpec, name: str) -> Iterator[str]:
    """What makes a rollback possible after a migration in `after` of a phase has run, or still needs the source of a copy."""
    if duration(spec.bake):
        yield f"the bake of {format_duration(duration(spec.bake))} follows it"
    if spec.rollback.scope is RollbackScope.ALL and name not in spec.phases[-1].migrations.after:
        yield "a later phase with `rollback.scope: All` follows it"
    for migration in spec.migrations:
        if migration.backup or migration.change is Change.MIGRATE:
            yield f"{migration.name} copies data in the same rollout"


def _first_steps(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    initial = {feature.name for feature in spec.features if feature.initial is OnOff.ON}
    for number, phase in enumerate(spec.phases):
        if increments(phase)[0].percent == WHOLE and not set(phase.features) <= initial:
            message = f"phase {phase.name} starts at 100% without a canary step"
            yield _warning(("phases", number, "steps", 0), Warn.NO_CANARY, message)


def _last_steps(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    for number, phase in enumerate(spec.phases):
        last = increments(phase)[-1].percent
        if last < WHOLE:
            message = f"phase {phase.name} ends at {last:f}%, so the remaining users never get its features"
            yield _warning(("phases", number, "steps"), Warn.PARTIAL_AUDIENCE, message)


def _criteria(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    for number, phase in enumerate(spec.phases):
        if not phase.criteria and not _needs_approval_everywhere(phase):
            message = f"phase {phase.name} has no criteria, so its steps are promoted when their hold is complete"
            yield _warning(("phases", number, "steps"), Warn.NO_CRITERIA, message)


def _needs_approval_everywhere(phase: Phase) -> bool:
    return all(increment.approval for increment in increments(phase) if increment.last_of_step)


def _deadlines(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    for number, phase in enumerate(spec.phases):
        if phase.criteria and phase.deadline is None:
            message = f"phase {phase.name} has criteria but no `deadline`, so failing criteria delay it without limit"
            yield _warning(("phases", number), Warn.NO_DEADLINE, message)


def _warm_ups(spec: RolloutSpec, ranges: Ranges) -> Iterator[Problem]:
    """Checks that are not about an audience before its hold could have ended: the step takes longer, never shorter."""
    shortest = {number: min(increment.hold for increment in increments(phase)) for number, phase in enumerate(spec.phases)}
    for number, phase in enumerate(spec.phases):
        for index, criterion in enumerate(phase.criteria):
            yield from _warm_up(spec, ranges, criterion, shortest[number], ("phases", number, "criteria", index, "metric"))
    for index, guard in enumerate(spec.guards):
        yield from _warm_up(spec, ranges, guard, min(shortest.values()), ("guards", index, "metric"))


def _warm_up(spec: RolloutSpec, ranges: Ranges, check: Check, hold: timedelta, path: Path) -> Iterator[Problem]:
    reach = max((ranges.get(name, timedelta(0)) for name in check.metrics), default=timedelta(0))
    propagation = duration(spec.propagation)
    if check.dry_run or reach + propagation <= hold:
        return
    covers = f"a range of {format_duration(reach)}" if reach else "no range"
    advice = (
        "use a shorter range in its `query`"
        if reach > propagation
        else "write a shorter `propagation`, such as `propagation: 30s`"
    )
    message = (
        f"{check.metric} has {covers}, and `propagation` is {format_duration(propagation)}: together longer than the shortest"
        f" hold of {format_duration(hold)}, so that step takes at least {format_duration(reach + propagation + hold)}; {advice},"
        f" or a longer hold, such as `hold: {_whole_minutes(reach + propagation)}`"
    )
    yield _warning(path, Warn.RANGE_LONGER_THAN_HOLD, message)


def _whole_minutes(length: timedelta) -> str:
    return f"{-(-length // timedelta(minutes=1))}m"


def _intervals(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    """Intervals that the operator does not keep, or not always."""
    shortest = duration(spec.check_interval)
    if shortest < LEAST_INTERVAL:
        message = (
            f"{format_duration(shortest)} is not kept while a reconciliation takes longer, as it does when the API server responds"
            " slowly; the metric `sessionrollout_interval_overrun_seconds` shows by how much. Prometheus rarely has new samples"
            f" that soon; write `checkInterval: {LEAST_INTERVAL.seconds}s` or more"
        )
        yield _warning(("checkInterval",), Warn.INTERVAL_NOT_KEPT, message)
    for index, metric in enumerate(spec.metrics):
        if metric.interval is not None and duration(metric.interval) < shortest:
            message = (
                f"{metric.name} is queried every {format_duration(shortest)}, because `checkInterval` is the shortest interval"
            )
            yield _warning(("metrics", index, "interval"), Warn.INTERVAL_NOT_KEPT, message)


def _guards(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    whole = planned_time(spec.phases) + duration(spec.bake)
    for index, guard in enumerate(spec.guards):
        if duration(guard.for_) >= whole:
            message = (
                f"the guard never takes effect, because a breach must last {format_duration(duration(guard.for_))},"
                f" but the whole rollout takes {format_duration(whole)}"
            )
            yield _warning(("guards", index, "for"), Warn.INEFFECTIVE_GUARD, message)
    if not spec.guards:
        yield _warning((), Warn.NO_GUARDS, "the spec has no `guards`, so nothing rolls back automatically")


def _undo(spec: RolloutSpec, _: Ranges) -> Iterator[Problem]:
    if spec.rollback.workload is OnWorkload.UNDO:
        message = (
            "a GitOps tool that manages the Deployment restores the new revision; pause its sync, or revert the change in Git"
        )
        yield _warning(("rollback", "workload"), Warn.UNDO_WITH_GITOPS, message)


_RULES: Final[tuple[Callable[[RolloutSpec, Ranges], Iterator[Problem]], ...]] = (
    _unused_features,
    _unused_metrics,
    _unused_migrations,
    _contracts,
    _first_steps,
    _last_steps,
    _criteria,
    _warm_ups,
    _intervals,
    _deadlines,
    _guards,
    _empty_ratios,
    _empty_cohorts,
    _minimums,
    _suspended,
    _undo,
)
