"""When guards would have acted in the past: for every start of a phase, without a decision for each recorded value.

A verdict is a function of one value, and of the baseline for a guard that is compared with it. The operator's own `evaluate`
gives it, once for each value, or once for the largest or smallest value that passes. What follows from verdicts is counted here, by the
rules of `core.failures`; the tests replay a sample of starts with the operator's own decisions.

A start is a moment at which every guard passes. The operator publishes while none fails; one without data says nothing of the start.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from itertools import groupby, islice
from typing import Final, Self

from session_rollout.api.checks import Check
from session_rollout.api.enums import Verdict
from session_rollout.api.quantities import duration
from session_rollout.core.evaluation import evaluate, input_of, tolerance_of
from session_rollout.core.seasons import Season
from session_rollout.simulation.history import STRETCH, History

Run = tuple[Verdict, int, int]  # a verdict, the number of its first value, and the number after its last one
EVIDENCE: Final = (Verdict.PASS, Verdict.FAIL)
Histories = Mapping[str, History]


@dataclass(frozen=True)
class Replay(ABC):
    """One guard over its history."""

    check: Check
    history: History
    counted: History | None  # of the metric in `minimum`

    @classmethod
    def of(cls, check: Check, histories: Histories) -> Self:
        """The replay of a check."""
        return cls(check, histories[check.metric], histories[check.minimum.metric] if check.minimum is not None else None)

    @abstractmethod
    def allows(self, number: int) -> bool:
        """Whether a phase can start at this value: whether the guard passes there."""

    @abstractmethod
    def breach(self, first: int, end: int) -> float | None:
        """When the guard acts if a phase starts at value `first` and ends before value `end`: in intervals of the history; or None."""

    @property
    def passing(self) -> float | None:
        """The share of results that pass, of those with a verdict of Pass or Fail; None if it depends on the start, or without one."""
        return None

    def is_unseasoned(self, number: int) -> bool:  # noqa: ARG002 - of one kind alone
        """Whether a phase that starts at this value has too few earlier seasons, and is compared with the value instead."""
        return False

    def verdict(self, number: int, compared: Season | None = None) -> Verdict:
        """What the operator says about a value when it is new, if it is compared so."""
        time, compared = self.history.measurement(number).time, compared or Season(self.history.measurement(number))
        given = input_of(
            self.check,
            measurement=compared.measurement,
            not_before=time,
            stale_after=timedelta.max,
            now=time,
            baseline=compared.baseline,
        )
        beside = None
        if self.counted is not None:
            beside = replace(self.counted.measurement(self.counted.number(self.history.time(number))), time=time)
        return evaluate(replace(given, minimum=self.check.minimum, counted=beside)).verdict


def breaches(check: Check, interval: timedelta, runs: Iterable[Run]) -> Iterator[float]:
    """When the check fails by its own rule, by `for` or `outOf`, in intervals from value 0."""
    return _often(check.quota, runs) if check.quota is not None else _long(duration(check.for_) / interval, runs)


def _often(quota: tuple[int, int], runs: Iterable[Run]) -> Iterator[float]:
    """A value at which so many of the last results fail. Values without a verdict of Pass or Fail do not count."""
    failures, results = quota
    last: deque[bool] = deque(maxlen=results)
    for verdict, first, end in runs:
        for number in range(first, end) if verdict in EVIDENCE else ():
            last.append(verdict is Verdict.FAIL)
            if verdict is Verdict.FAIL and sum(last) >= failures:
                yield number


def _long(length: float, runs: Iterable[Run]) -> Iterator[float]:
    """The moment in which a failure has lasted for `length`, without its gaps. A pass that comes in that moment ends it."""
    left = length
    for verdict, first, end in runs:
        if verdict is Verdict.PASS:
            left = length
        elif verdict is Verdict.FAIL:
            if first + left < end or left <= 0:
                yield first + max(left, 0)
                left = math.inf  # until it passes again
            left -= end - first


@dataclass(frozen=True)
class FixedReplay(Replay):
    """A guard whose verdicts do not depend on the start."""

    def allows(self, number: int) -> bool:
        """See `Replay.allows`."""
        return self.verdicts[number] is Verdict.PASS

    def breach(self, first: int, end: int) -> float | None:
        """See `Replay.breach`."""
        full = self._full(first)
        early = next(breaches(self.check, self.history.interval, runs_of(self.verdicts[first:full], first)), None)
        later = self._breaches[bisect_left(self._breaches, full) :][:1]
        return next((time for time in ([early] if early is not None else later) if time < end), None)

    @property
    def passing(self) -> float | None:
        """See `Replay.passing`."""
        return share_of_passes(self.verdicts)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdict of each value."""
        return [self.verdict(number) for number in range(len(self.history.values))]

    @cached_property
    def _breaches(self) -> list[float]:
        """Each moment in which the guard acts in a phase that started long before."""
        return list(breaches(self.check, self.history.interval, runs_of(self.verdicts)))

    def _full(self, first: int) -> int:
        """From which value on the start makes no difference: `outOf` counts only results since then."""
        if self.check.quota is None:
            return first  # a pass ends what failed before
        evidence = (number for number in range(first, len(self.verdicts)) if self.verdicts[number] in EVIDENCE)
        return next(islice(evidence, self.check.quota[1], None), len(self.verdicts))


def share_of_passes(verdicts: Iterable[Verdict]) -> float | None:
    """Of the verdicts of Pass or Fail; None without one."""
    counted = [verdict is Verdict.PASS for verdict in verdicts if verdict in EVIDENCE]
    return sum(counted) / len(counted) if counted else None


def runs_of(verdicts: Iterable[Verdict], first: int = 0) -> Iterator[Run]:
    """Equal verdicts together; `first` is the number of the first one."""
    for verdict, group in groupby(verdicts):
        end = first + sum(1 for _ in group)
        yield verdict, first, end
        first = end


@dataclass(frozen=True)
class BaselineReplay(Replay):
    """A guard that is compared with the value at the start."""

    def allows(self, number: int) -> bool:
        """See `Replay.allows`."""
        own = self.history.measurement(number)
        return own.value is not None and self.verdict(number, Season(own, own.value)) is Verdict.PASS

    def breach(self, first: int, end: int) -> float | None:
        """See `Replay.breach`."""
        runs = self._runs(first, end, *self._bounds(first))
        return next((time for time in breaches(self.check, self.history.interval, runs) if time < end), None)

    def _runs(self, first: int, end: int, low: float, high: float) -> Iterator[Run]:
        """Runs, of which two may have the same verdict. A stretch that is within the bounds is one of them."""
        values, number = self.history.values, first
        while number < end:
            stretch, until = number // STRETCH, min((number // STRETCH + 1) * STRETCH, end)
            known = self.history.stretches[stretch] if self.counted is None else None
            if known is not None and low <= known[0] and known[1] <= high:
                yield Verdict.PASS, number, until
            else:
                verdicts = (self._apart[each] or _within(values[each], low, high) for each in range(number, until))
                yield from runs_of(verdicts, number)
            number = until

    @cached_property
    def _apart(self) -> list[Verdict | None]:
        """The verdicts that no baseline changes: without a value, or with too few events. None for the others."""
        apart: list[Verdict | None] = []
        for number, value in enumerate(self.history.values):
            own = self.history.measurement(number)
            verdict = self.verdict(number, Season(own, own.value))
            apart.append(None if math.isfinite(value) and verdict in EVIDENCE else verdict)
        return apart

    def _bounds(self, first: int) -> tuple[float, float]:
        """The smallest and the largest value that pass, if the phase starts at this value; one of them is infinite."""
        baseline, tolerance = self.history.measurement(first).value, tolerance_of(self.check)
        assert baseline is not None, "a guard passes at the start"
        assert tolerance is not None, "a rule of the CRD demands one for every comparison"
        if tolerance.says_nothing(baseline):
            return -math.inf, math.inf  # Inconclusive is no failure
        limit = tolerance.limit(baseline)

        def passes(value: float) -> bool:
            return tolerance.allows(Decimal(repr(value)) - baseline, limit)

        if self.check.max_increase is not None:
            return -math.inf, _last(float(baseline + limit), math.inf, passes)
        edge = baseline - limit if self.check.max_decrease is not None else baseline + limit
        return _last(float(edge), -math.inf, passes), math.inf


def _within(value: float, low: float, high: float) -> Verdict:
    return Verdict.PASS if low <= value <= high else Verdict.FAIL


def _last(near: float, toward: float, passes: Callable[[float], bool]) -> float:
    """The last number in a direction that passes, from one that is near it: decimal and binary fractions differ by a little."""
    while not passes(near):
        near = math.nextafter(near, -toward)
    while passes(following := math.nextafter(near, toward)):
        near = following
    return near
