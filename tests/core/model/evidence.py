"""What the model's world has shown so far, counted from what was fed in: judged time, breaches, and time spent waiting.

Two counts where the exact moment is the operator's to choose: `strict` is the least that anybody must have seen, and decides
what must have happened; `lenient` is the most that anybody can have seen, and decides what may have happened.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from core.model.cluster import Cluster
from core.model.replica import LOOK_BACK, RULE, SCRAPE, Reading
from session_rollout.api.checks import Check, Guard, OnBreach
from session_rollout.api.enums import Verdict
from session_rollout.api.phases import OnDeadline, Phase
from session_rollout.api.quantities import bound, duration
from session_rollout.api.rollout import RolloutSpec

INTERVALS_OF_A_GAP = 2  # between two reconciliations at most this much counts as observed
FRESH = timedelta(minutes=3)  # an older sample says nothing about now
FAILING_SHARE = Decimal("0.05")
NOTHING = timedelta(0)
RANGE = re.compile(r"\[(\w+)\]")


def passes(check: Check, reading: Reading) -> bool | None:
    """Whether a reading is within the bound of a check; None when it says nothing."""
    value = reading.value
    if isinstance(value, Verdict) or reading.age > FRESH:
        return None
    if check.below is not None:
        return value < bound(check.below)
    return check.above is None or value > bound(check.above)  # a comparison is taken for passing


def reach(spec: RolloutSpec, name: str) -> timedelta:
    """How long after a change a metric speaks of the time before it: its range, or its own `window`, and what comes late.

    The data of a range is one scrape old, that of a rule one scrape and one evaluation; a query without either has the look-back.
    """
    metric = next(metric for metric in spec.metrics if metric.name == name)
    ranges = [duration(text) + SCRAPE for text in RANGE.findall(metric.query or "")]
    windows = [duration(metric.window) + SCRAPE + RULE] if metric.window else []
    return max([*ranges, *windows] or [LOOK_BACK])


def interval(spec: RolloutSpec) -> timedelta:
    """How often the rollout is checked."""
    return duration(spec.check_interval)


@dataclass
class Breach:
    """How long a guard has been in breach; a gap neither counts nor resets."""

    strict: timedelta = NOTHING
    lenient: timedelta = NOTHING
    last: bool | None = None  # whether the last reading passed

    warm: bool = False  # whether the last reading was of data that counts

    def add(self, passing: bool | None, counted: timedelta, surely: timedelta, *, warm: bool) -> None:
        """The next reading, after a time of which this much may count as observed, and this much must."""
        if self.last is False:
            self.lenient += counted
            self.strict += surely if passing is False and self.warm else NOTHING
        if passing:
            self.strict = self.lenient = NOTHING
        self.last, self.warm = passing, warm


@dataclass
class Evidence:
    """The counts for the audience that was published last."""

    cluster: Cluster
    phase: str | None = None  # of the audience that grew last
    exposed: datetime | None = None  # since when data about this audience alone can be read
    guards_from: datetime | None = None  # since when guards count
    stopped: bool = False  # paused, suspended, or in an emergency
    judged: list[tuple[timedelta, bool]] = field(default_factory=list)
    waited: timedelta = NOTHING  # not passing, or not for long enough, with a provider that responds
    surely_waited: timedelta = NOTHING  # not passing, without an absence that the operator may leave out
    away: bool = False  # nobody watched since the last reconciliation, or nobody can know
    silent: timedelta = (
        NOTHING  # of that, results were on their way for so long: the rest of the time was work, which is no absence
    )
    baked: timedelta = NOTHING  # every guard had a value since all phases were complete
    breaches: dict[str, Breach] = field(default_factory=dict)
    last: datetime | None = None
    counting: bool = False
    passing: bool = False
    waiting: bool = False
    delayed: bool = False
    guarded: bool = False

    # --- what is read now

    def criteria(self) -> tuple[Check, ...]:
        """The criteria of the running phase."""
        return next((phase.criteria for phase in self.cluster.spec.phases if phase.name == self.phase), ())

    def reading(self, check: Check) -> bool | None:
        """What a check says now."""
        return passes(check, self.cluster.readings[check.metric])

    def all_judged(self) -> bool:
        """Whether every criterion and every guard has a value now."""
        return all(self.reading(check) is not None for check in (*self.criteria(), *self.cluster.spec.guards))

    def guards_judged(self) -> bool:
        """Whether every guard has a value now."""
        return all(self.reading(guard) is not None for guard in self.cluster.spec.guards)

    def all_passing(self) -> bool:
        """Whether every criterion passes now."""
        return all(self.reading(check) for check in self.criteria())

    def breached(self) -> tuple[Guard, ...]:
        """Guards whose reading is out of bounds now, but those that only warn."""
        guards = (guard for guard in self.cluster.spec.guards if guard.on_breach is not OnBreach.WARN)
        return tuple(guard for guard in guards if self.reading(guard) is False)

    def all_guards_passing(self) -> bool:
        """Whether each guard that counts has a value within its bound now: in a gap of a failure, nothing grows."""
        guards = (guard for guard in self.cluster.spec.guards if guard.on_breach is not OnBreach.WARN)
        return all(self.reading(guard) is True for guard in guards)

    def provider_fails(self) -> bool:
        """Whether a metric of the running phase cannot be queried."""
        checks = (*self.criteria(), *self.cluster.spec.guards)
        return any(self.cluster.readings[check.metric].value is Verdict.PROVIDER_ERROR for check in checks)

    # --- time passes

    def account(self) -> None:
        """Count the time since the last reconciliation, by what was read then."""
        cluster, now = self.cluster, self.cluster.time
        if cluster.server.unread:
            self.left_alone()
        if cluster.raw is None or not cluster.evaluating:
            return
        away = max(now - self.last, NOTHING) if self.last else NOTHING
        gap = INTERVALS_OF_A_GAP * interval(cluster.spec) + (max(away - self.silent, NOTHING) if self.silent else NOTHING)
        counted = min(away, gap) if self.away else away
        surely = away if away <= gap and not self.away else NOTHING
        if self.counting and self.all_judged():  # a time counts with evidence at both of its ends
            self.judged.append((counted, self.passing))
        self.waited += counted if self.delayed else NOTHING
        self.surely_waited += surely if self.waiting else NOTHING
        self.baked += counted if self.guarded and self.guards_judged() else NOTHING
        self._account_guards(counted, surely)
        self.last, self.away, self.silent = now, False, NOTHING
        self.look()

    def _account_guards(self, counted: timedelta, surely: timedelta) -> None:
        spec = self.cluster.spec
        for guard in spec.guards:
            start = (self.guards_from or self.cluster.time) + reach(spec, guard.metric)
            warm = self.cluster.time >= start
            self.breaches.setdefault(guard.name, Breach()).add(self.reading(guard), counted, surely, warm=warm)

    def look(self) -> None:
        """What counts from now on until the next reconciliation."""
        ready = self.exposed is not None and self.cluster.time >= self.exposed and not self.stopped
        self.counting = ready and self.all_judged()
        self.passing = self.all_passing()
        self.waiting = not self.stopped and not self.passing and not self.provider_fails()
        failed = any(not passing for _, passing in self.judged)  # a criterion that passes again must pass for long enough
        self.delayed = self.waiting or (failed and not self.stopped and not self.provider_fails())
        self.guarded = not self.stopped and self.guards_judged()

    def said(self) -> None:
        """A reading changed: nobody can know that before the next reconciliation, so the time until then may count as it began."""
        counting, guarded = self.counting, self.guarded
        self.look()
        self.counting, self.guarded = self.counting or counting, self.guarded or guarded

    # --- what starts again

    def grown(self, phase: str) -> None:
        """Another audience is published."""
        self.phase = phase
        self.restart()
        spec = self.cluster.spec
        metrics = {check.metric for check in (*self.criteria(), *spec.guards)}
        propagation = duration(getattr(spec, "propagation", "0s"))
        self.exposed = self.cluster.time + propagation + max((reach(spec, name) for name in metrics), default=NOTHING)
        self.look()

    def restart(self) -> None:
        """Nothing that was judged counts any more."""
        self.judged, self.waited, self.surely_waited, self.baked, self.counting = [], NOTHING, NOTHING, NOTHING, False

    def left_alone(self) -> None:
        """The operator was away, or its clock was set."""
        self.away, self.silent, self.surely_waited = True, NOTHING, NOTHING

    def kept_waiting(self, length: timedelta) -> None:
        """The operator had no results."""
        self.silent = self.silent + length if self.silent or not self.away else NOTHING
        self.away, self.surely_waited = True, NOTHING

    def doubt_guards(self) -> None:
        """An edit: guards may begin with data from now on, and those that were evaluated before it do not."""
        self.guards_from = self.cluster.time
        for breach in self.breaches.values():
            breach.strict, breach.warm = NOTHING, False

    def restart_guards(self) -> None:
        """Guards begin with data from now on."""
        self.guards_from, self.breaches = self.cluster.time, {}

    # --- sums

    def held(self) -> timedelta:
        """Exposed and judged time."""
        return sum((counted for counted, _ in self.judged), NOTHING)

    def failing(self, hold: timedelta) -> timedelta:
        """Time in the last `hold` of judged time in which a criterion did not pass."""
        left, failing = hold, NOTHING
        for counted, passing in reversed(self.judged):
            failing += NOTHING if passing else min(counted, left)
            left -= min(counted, left)
        return failing

    def too_much_failed(self, hold: timedelta) -> bool:
        """Whether more than the allowed share of the hold failed, and one interval for the moment at which it is counted."""
        return self.failing(hold) > hold * float(FAILING_SHARE) + interval(self.cluster.spec)

    def lasting(self, *, strict: bool) -> tuple[Guard, ...]:
        """Guards in breach for as long as their `for` allows."""
        zero = Breach()
        return tuple(
            guard
            for guard in self.breached()
            for breach in (self.breaches.get(guard.name, zero),)
            if (breach.strict if strict else breach.lenient) >= duration(guard.for_) and (breach.warm or not strict)
        )

    def deadline(self, phase: Phase, hold: timedelta, *, strict: bool) -> bool:
        """Whether the deadline of a phase must have been (or may have been) reached."""
        if phase.deadline is None:
            return False
        slack = hold + 4 * interval(self.cluster.spec) + max(reach(self.cluster.spec, check.metric) for check in phase.criteria)
        limit = duration(phase.deadline)
        if strict:
            return self.surely_waited >= limit + slack
        return self.waited >= limit and phase.on_deadline is OnDeadline.ROLLBACK
