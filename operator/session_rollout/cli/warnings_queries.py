"""Warnings of `validate` about queries that say little about an audience, and bounds that every value is within."""

import re
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from typing import Final

from session_rollout.api.checks import Check, ComparedTo, Gate
from session_rollout.api.metrics import Metric
from session_rollout.api.quantities import bound, duration, unit_of
from session_rollout.api.rollout import RolloutSpec
from session_rollout.cli.admission import Path, Problem

LENGTH_IN_NAME: Final = re.compile(r"(?:[_:]|rate|ratio|increase|avg|max|min|sum|count)([0-9]{1,6}(?:ms|[smhdw]))$")
MOST_TIMES: Final = Decimal(10)  # a rise by more than this is no regression, but an outage
WHOLE: Final = Decimal(1)


class WarnQuery(StrEnum):
    """What a warning is about."""

    NO_WINDOW = "NoWindow"
    NO_SELECTOR = "NoSelector"
    FIXED_TIME = "FixedTime"
    ZERO_WITHOUT_SERIES = "ZeroWithoutSeries"
    INEFFECTIVE_BOUND = "IneffectiveBound"
    ZERO_BASELINE = "ZeroBaseline"
    UNSEASONED = "Unseasoned"


def query_warnings(spec: RolloutSpec, readable: frozenset[str]) -> Iterator[Problem]:
    """Every such warning about a valid spec; `readable` are the metrics whose queries are valid."""
    for index, metric in enumerate(spec.metrics):
        if metric.name in readable:
            yield from _about_metric(metric, ("metrics", index))
    for path, check in _checks_of(spec):
        measured = spec.metric(check.metric or "")
        if measured is not None and measured.name in readable and not (isinstance(check, Check) and check.dry_run):
            yield from _about_check(check, measured, path)


def _warning(path: Path, about: WarnQuery, message: str) -> Problem:
    return Problem(("spec", *path), message, rule=about)


def _checks_of(spec: RolloutSpec) -> Iterator[tuple[Path, Check | Gate]]:
    """Every criterion, guard and gate with a metric, with its place."""
    lists: list[tuple[Path, tuple[Check | Gate, ...]]] = [(("guards",), spec.guards), (("preflight",), spec.preflight)]
    for number, phase in enumerate(spec.phases):
        lists += [(("phases", number, "criteria"), phase.criteria), (("phases", number, "verification"), phase.verification)]
    lists.append((("rollback", "verification"), spec.rollback.verification))
    return (((*path, index), check) for path, checks in lists for index, check in enumerate(checks) if check.metric)


# --- queries


def _about_metric(metric: Metric, path: Path) -> Iterator[Problem]:
    from session_rollout.adapters.promql import has_fixed_time, parse, queries_of
    from session_rollout.adapters.promql_values import series_of

    field: Path = (*path, "query" if metric.query is not None else "cohorts")
    for query in queries_of(metric):
        try:
            parse(query)
        except ValueError:
            return  # a newer server may know it
        series = series_of(query)
        if not series:
            message = f"{metric.name} selects no series, so that it is never about users; name the series that it measures"
            yield _warning(field, WarnQuery.NO_SELECTOR, message)
            return
        if has_fixed_time(query):
            # Not refused: a value of before the rollout is a reference that an author may want to compare with.
            message = (
                f"a part of {metric.name} is about a fixed time (`@`), and never about the audience of a step; remove `@`, unless"
                " that part is what the present value is compared with"
            )
            yield _warning(field, WarnQuery.FIXED_TIME, message)
            return
    yield from _window(metric, path, tuple(name for query in queries_of(metric) for name in series_of(query)))


def _window(metric: Metric, path: Path, series: tuple[str, ...]) -> Iterator[Problem]:
    """The series of a recording rule does not say in PromQL how much time one sample covers."""
    for name in series:
        named = LENGTH_IN_NAME.search(name)
        if named is None and (":" not in name or metric.window is not None):
            continue
        wanted = named[1] if named is not None else "5m"
        if metric.window is not None and duration(metric.window) >= duration(wanted):
            continue
        known = f"`window` is {metric.window}" if metric.window is not None else "it has no `window`"
        message = (
            f"{metric.name} reads {name}, the series of a recording rule, and {known}: the warm-up after a publish would be too short,"
            f" and evidence be about the time before. Write `window: {wanted}`"
        ) + ("" if named is not None else ", or what the rule has in brackets")
        yield _warning((*path, "window" if metric.window is not None else "query"), WarnQuery.NO_WINDOW, message)
        return


# --- bounds


def _about_check(check: Check | Gate, metric: Metric, path: Path) -> Iterator[Problem]:
    from session_rollout.adapters.promql_values import can_be_negative, is_there_without_series

    queries = (metric.query,) if metric.query is not None else ()
    try:
        signed = any(can_be_negative(query) for query in queries)
        always = any(is_there_without_series(query) for query in queries)
    except ValueError:
        return  # a newer server may know it
    if isinstance(check, Check) and check.minimum is None and always and _allows_zero(check):
        message = (
            f"{check.name} passes on 0 when nothing is exported at all, because of the `or` in {metric.name}. Write a metric"
            " `requests` that counts all events and has no `or`, and, in the check,"
            ' `minimum: {metric: requests, above: "20"}`; or remove the `or`'
        )
        yield _warning(path, WarnQuery.ZERO_WITHOUT_SERIES, message)
    if isinstance(check, Check) and check.compared_to is ComparedTo.BASELINE:
        yield from _about_baseline(check, metric, path)
    for field, why in _ineffective(check, signed=signed):
        yield _warning((*path, field), WarnQuery.INEFFECTIVE_BOUND, f"{check.name} never fails: {why}")


def _about_baseline(check: Check, metric: Metric, path: Path) -> Iterator[Problem]:
    """What would make the baseline useless. Whether there are earlier seasons is known to Prometheus alone."""
    from session_rollout.adapters.promql_seasons import query_of_seasons
    from session_rollout.adapters.promql_values import is_zero_when_quiet

    tolerance = check.max_increase or check.max_decrease
    if metric.query is not None and tolerance is not None and unit_of(tolerance) == "%" and is_zero_when_quiet(metric.query):
        message = (
            f"{check.name} is compared with a baseline that is 0 while nothing happens, and each percentage of 0 is 0: a first event"
            ' is then Inconclusive. Write a tolerance without %, such as `"0.001"`, and `minimum: {metric: requests, above: "500"}`'
        )
        yield _warning(path, WarnQuery.ZERO_BASELINE, message)
    if metric.baseline is not None and metric.seasonal is not None and query_of_seasons(metric, ()) is None:
        message = (
            f"{check.name} is Unseasoned: {metric.name} has a value where nothing was measured, as with `or vector(0)`, or a fixed time"
            " (`@`), so that earlier weeks say nothing. Rewrite the query, or remove `baseline`"
        )
        yield _warning(path, WarnQuery.UNSEASONED, message)


def _allows_zero(check: Check) -> bool:
    if check.below is not None:
        return bound(check.below) > 0
    if check.above is not None:
        return bound(check.above) < 0
    if check.between is not None:
        return bound(check.between[0]) < 0 < bound(check.between[1])
    return check.max_increase is not None  # a rise from anything to 0 is none


def _ineffective(check: Check | Gate, *, signed: bool) -> Iterator[tuple[str, str]]:
    """Bounds that every value is within, with their fields."""
    if check.above is not None and bound(check.above) < 0 and not signed:
        yield "above", f"its metric is not below 0, so that it is always above {check.above}"
    if not isinstance(check, Check):
        return
    if check.minimum is not None and bound(check.minimum.above) < 0:
        yield "minimum", f'any number of events is above {check.minimum.above}; write a number such as `above: "20"`'
    for field, text in (("maxIncrease", check.max_increase), ("maxDecrease", check.max_decrease)):
        if text is not None and unit_of(text) == "%" and bound(text) >= _most(check, field):
            yield field, f"a change by {text} is more than any regression; write what you would roll back for, such as `20%`"


def _most(check: Check, field: str) -> Decimal:
    """From which tolerance on no change is too large: a share of the control, and a fall, are at most 100%."""
    return MOST_TIMES if check.compared_to is ComparedTo.BASELINE and field == "maxIncrease" else WHOLE
