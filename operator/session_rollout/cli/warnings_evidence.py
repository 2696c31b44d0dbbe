"""Warnings of `validate` about criteria that pass on little evidence, or on none."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Final

from session_rollout.api.checks import ComparedTo, Criterion, OnNoData
from session_rollout.api.phases import Phase
from session_rollout.api.quantities import duration, format_duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.admission import Path, Problem
from session_rollout.core.evidence import metric_of
from session_rollout.core.failures import TRAILING_CHECKS
from session_rollout.core.holdback import given_percent
from session_rollout.core.steps import increments, percent_text

_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


class WarnEvidence(StrEnum):
    """What a warning is about."""

    FEW_EVALUATIONS = "FewEvaluations"
    TOLERATED_FAILURES = "ToleratedFailures"
    INEFFECTIVE_CRITERION = "IneffectiveCriterion"
    NEVER_COMPARED = "NeverCompared"
    UNPROVEN_PLACEBO = "UnprovenPlacebo"
    UNUSED_HOLDBACK = "UnusedHoldback"
    PERCENT_HELD_BACK = "PercentHeldBack"


def evidence_warnings(spec: RolloutSpec) -> Iterator[Problem]:
    """Every such warning about a valid spec."""
    for number, phase in enumerate(spec.phases):
        shortest = min(increment.hold for increment in increments(phase))
        for index, criterion in enumerate(phase.criteria):
            path: Path = ("phases", number, "criteria", index)
            if not criterion.dry_run:
                yield from _ineffective(criterion, shortest, path)
                yield from _few_evaluations(spec, criterion, shortest, path)
                yield from _tolerated(spec, criterion, path)
                yield from _never_compared(spec, phase, criterion, path)
        if phase.criteria and all(each.dry_run or each.on_no_data is OnNoData.PASS for each in phase.criteria):
            message = (
                f"every criterion of phase {phase.name} is a dry run or passes without data, so that its steps can be promoted without"
                " any evidence; write a criterion that has neither `dryRun` nor `onNoData: Pass`"
            )
            yield _warning(("phases", number, "criteria"), WarnEvidence.INEFFECTIVE_CRITERION, message)
        yield from _unproven(spec, phase, number)
        yield from _never_reached(spec, phase, number)
    yield from _unused_holdback(spec)


def _warning(path: Path, about: WarnEvidence, message: str) -> Problem:
    return Problem(("spec", *path), message, rule=about)


def _ineffective(criterion: Criterion, hold: timedelta, path: Path) -> Iterator[Problem]:
    if duration(criterion.for_) >= hold:
        message = (
            f"{criterion.name} may fail for the whole hold of {format_duration(hold)}, because a failure counts only after"
            f" {format_duration(duration(criterion.for_))}; write a `for` that is shorter than the hold"
        )
        yield _warning((*path, "for"), WarnEvidence.INEFFECTIVE_CRITERION, message)


def _never_compared(spec: RolloutSpec, phase: Phase, criterion: Criterion, path: Path) -> Iterator[Problem]:
    metric = metric_of(spec, criterion)
    if metric is None:
        return
    if all(given_percent(spec, increment) in {0, 100} for increment in increments(phase)):
        message = (
            f"{criterion.name} never passes: no step of phase {phase.name} leaves users without the feature to compare with; begin with"
            " a smaller percentage"
        )
        yield _warning(path, WarnEvidence.NEVER_COMPARED, message)


def _unproven(spec: RolloutSpec, phase: Phase, number: int) -> Iterator[Problem]:
    """Placebo steps of a phase without a comparison that could fail."""
    checks = (
        check for check in (*phase.criteria, *spec.guards) if check.compared_to is ComparedTo.CONTROL and not check.dry_run
    )
    metrics = (spec.metric(check.metric) for check in checks)
    features = {metric.cohorts.feature for metric in metrics if metric is not None and metric.cohorts is not None}
    if features & {None, *phase.features}:  # the old form does not name its feature
        return
    for index, step in enumerate(phase.steps):
        if step.placebo:
            message = (
                f"this placebo step proves nothing, because no guard and no criterion compares a feature of phase {phase.name} to Control;"
                " write one, or remove the step"
            )
            yield _warning(("phases", number, "steps", index, "placebo"), WarnEvidence.UNPROVEN_PLACEBO, message)


def _never_reached(spec: RolloutSpec, phase: Phase, number: int) -> Iterator[Problem]:
    """Steps with a percentage that includes some of the users who are held back, and not all users."""
    most = 100 - spec.control.held_back
    for index, step in enumerate(phase.steps):
        field, text = ("percent", step.percent) if step.ramp is None else ("ramp", step.ramp.to)
        if text is not None and most < Decimal(text) < 100:  # noqa: PLR2004 - percent
            message = (
                f"this step gives the features to {percent_text(most)}% of users, because `control.holdback` is {spec.control.holdback}; write"
                f" {percent_text(most)}, or 100, which also includes users without a user ID"
            )
            yield _warning(("phases", number, "steps", index, field), WarnEvidence.PERCENT_HELD_BACK, message)


def _unused_holdback(spec: RolloutSpec) -> Iterator[Problem]:
    """Users are held back, and nothing compares the others with them."""
    checks = spec.all_checks()
    compared = any(check.compared_to is ComparedTo.CONTROL and not check.dry_run for check in checks)
    if spec.control.held_back and not compared:
        message = (
            f"`control.holdback` is {spec.control.holdback}, and no guard and no criterion is compared to Control, so that users get the features"
            " late for nothing; write a comparison, or remove `holdback`"
        )
        yield _warning(("control", "holdback"), WarnEvidence.UNUSED_HOLDBACK, message)


def _few_evaluations(spec: RolloutSpec, criterion: Criterion, hold: timedelta, path: Path) -> Iterator[Problem]:
    interval = spec.interval_of(criterion.metric)
    if hold >= TRAILING_CHECKS * interval:
        return
    message = (
        f"{criterion.name} is evaluated every {format_duration(interval)}, so that fewer than {TRAILING_CHECKS} results decide about a"
        f" hold of {format_duration(hold)}; write a longer hold, such as `hold: {_yaml(TRAILING_CHECKS * interval)}`, or a shorter"
        " `interval` of its metric"
    )
    yield _warning((*path, "metric"), WarnEvidence.FEW_EVALUATIONS, message)


def _tolerated(spec: RolloutSpec, criterion: Criterion, path: Path) -> Iterator[Problem]:
    """`for` and `outOf` that tolerate more failures than `passShare` allows."""
    share = _guaranteed(spec, criterion)
    promised = Fraction(Decimal(criterion.pass_share.removesuffix("%"))) / 100
    if share >= promised:
        return
    field, percent = ("outOf" if criterion.quota else "for"), int(share * 100)
    message = (
        f"{criterion.name} passes with as few as {percent}% of its evaluations, because what `{field}` tolerates does not count for"
        f" `passShare`, which is {criterion.pass_share}; write `passShare: {percent}%`, or remove `{field}`"
    )
    yield _warning((*path, field), WarnEvidence.TOLERATED_FAILURES, message)


def _guaranteed(spec: RolloutSpec, criterion: Criterion) -> Fraction:
    """The least share of evaluations that pass when every failure is tolerated."""
    if criterion.quota:
        failures, evaluations = criterion.quota
        return 1 - Fraction(failures - 1, evaluations)
    tolerated = -(-duration(criterion.for_) // spec.interval_of(criterion.metric)) - 1  # failures in a row
    return Fraction(1, 1 + max(tolerated, 0))


def _yaml(length: timedelta) -> str:
    """A duration as one writes it."""
    seconds = -(-length // timedelta(seconds=1))
    unit = next(unit for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"
