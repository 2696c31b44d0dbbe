"""When a guard would have acted that is compared with earlier seasons, for every start of a phase.

What a value is compared with depends on the start only by how many seasons lie between: the latest season of the baseline is the latest
one before the start. So the verdicts of all values are known once for each number of seasons. They are the operator's own, by
`core.seasons` and `core.evaluation`. Where the start has too few seasons, the guard is Unseasoned, as `BaselineReplay` has it.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from operator import itemgetter
from statistics import median

from session_rollout.api.checks import Check, ComparedTo
from session_rollout.api.enums import Verdict
from session_rollout.api.metrics import SEASONS_NEEDED
from session_rollout.core.evaluation import Tolerance, tolerance_of
from session_rollout.core.observed import Seasons
from session_rollout.core.seasons import seasonal
from session_rollout.simulation.history import SeasonalHistory
from session_rollout.simulation.replay import (
    BaselineReplay,
    FixedReplay,
    Histories,
    Replay,
    Run,
    breaches,
    runs_of,
    share_of_passes,
)


def replay_of(check: Check, histories: Histories) -> Replay:
    """The replay of a check with a fixed bound or a baseline."""
    if check.compared_to is not ComparedTo.BASELINE:
        return FixedReplay.of(check, histories)
    return (BaselineReplay if histories[check.metric].seasons is None else SeasonalReplay).of(check, histories)


@dataclass(frozen=True)
class SeasonalReplay(Replay):
    """A guard that is compared with earlier seasons, where there are enough at the start."""

    _known: dict[int, list[Run]] = field(default_factory=dict)

    def is_unseasoned(self, number: int) -> bool:
        """See `Replay.is_unseasoned`."""
        return len(self._seasons.earlier(self.history.time(number))) < SEASONS_NEEDED

    def allows(self, number: int) -> bool:
        """See `Replay.allows`."""
        if self.is_unseasoned(number):
            return self._without_seasons.allows(number)
        return self._verdict_after(number, 1) is Verdict.PASS

    def breach(self, first: int, end: int) -> float | None:
        """See `Replay.breach`."""
        if self.is_unseasoned(first):
            return self._without_seasons.breach(first, end)
        runs = chain.from_iterable(self._part(*part) for part in self._parts(first, end))
        return next((time for time in breaches(self.check, self.history.interval, runs) if time < end), None)

    @property
    def passing(self) -> float | None:
        """See `Replay.passing`: of the results in the first season of a phase."""
        numbers = (number for number in range(len(self.history.values)) if not self.is_unseasoned(number))
        return share_of_passes(self._verdict_after(number, 1) for number in numbers)

    @cached_property
    def _without_seasons(self) -> BaselineReplay:
        return BaselineReplay(self.check, self.history, self.counted)

    @property
    def _seasons(self) -> SeasonalHistory:
        assert self.history.seasons is not None, "`replay_of` takes this class only then"
        return self.history.seasons

    def _parts(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """How many seasons the latest one before the start is away, and the first value and the end of this part of the phase."""
        latest, begin = 1, first
        while begin < end:
            until = min(first + latest * self._seasons.season // self.history.interval + 1, end)
            yield latest, begin, until
            latest, begin = latest + 1, until

    def _part(self, latest: int, first: int, end: int) -> Iterator[Run]:
        """The runs of verdicts between two values."""
        if latest not in self._known:
            self._known[latest] = list(
                runs_of(self._verdict_after(number, latest) for number in range(len(self.history.values)))
            )
        runs = self._known[latest]
        for verdict, begin, until in islice(runs, bisect_right(runs, first, key=itemgetter(2)), None):
            if begin >= end:
                return
            yield verdict, max(begin, first), min(until, end)

    @cached_property
    def _tolerance(self) -> Tolerance:
        tolerance = tolerance_of(self.check)
        assert tolerance is not None, "a rule of the CRD demands one for every comparison"
        return tolerance

    def _compared(self, seasons: Seasons) -> Verdict | None:
        """The verdict of a mean with a baseline, by the tolerance alone; None where `evaluate` has more to say."""
        if seasons.mean is None or not seasons.earlier:
            return None
        baseline = median(seasons.earlier)
        if self._tolerance.allows(seasons.mean - baseline, self._tolerance.limit(baseline)):
            return Verdict.PASS
        return None if self._tolerance.says_nothing(baseline) else Verdict.FAIL

    def _verdict_after(self, number: int, latest: int) -> Verdict:
        """The verdict of a value, if the latest season before the start is so many before it."""
        measurement = self.history.measurement(number)
        seasons = self._seasons.seasons(measurement.time, latest)
        if self.counted is None and measurement.value is not None and (verdict := self._compared(seasons)) is not None:
            return verdict  # without a message, which takes most of the time
        return self.verdict(number, seasonal(replace(measurement, seasons=seasons)))
