"""Where a rollout is in its phases: the steps of a phase as increments, a ramp being several of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final

from session_rollout.api.phases import Phase, Step, StepApproval
from session_rollout.api.quantities import duration
from session_rollout.api.rollout import RolloutSpec
from session_rollout.api.status import Current

WHOLE: Final = 100  # percent


@dataclass(frozen=True)
class Increment:
    """One audience that is published and held: a step, or one increment of a ramp."""

    step: int  # counted from 1
    index: int  # in its ramp, counted from 1; 0 in a step without a ramp
    percent: Decimal  # of users who have the features
    groups: tuple[str, ...]
    hold: timedelta
    last_of_step: bool
    approval: bool
    placebo: Decimal = Decimal(0)  # percentage with the variant of the features alone: nobody has them

    @property
    def audience(self) -> str:
        """Percentage and groups, such as `20%+beta`; `5% placebo` of a placebo step."""
        return audience_text(percent_text(self.percent), self.groups, placebo_text(self.placebo))


def percent_text(percent: Decimal) -> str:
    """`30`, `0.5`: how a percentage is written in status and YAML."""
    return f"{percent.quantize(Decimal('0.1')).normalize():f}"


def placebo_text(percent: Decimal) -> str | None:
    """The percentage of a placebo step in a status; None of any other step."""
    return percent_text(percent) if percent else None


def audience_text(percent: str, groups: Iterable[str], placebo: str | None = None, held_back: str = "0") -> str:
    """`20%+beta`: who has a feature, as messages show it; `5% placebo` if nobody has it, and 5% have its variant.

    `100% (2% held back)` where that makes a difference: a smaller percentage without groups reaches none of these users.
    """
    if placebo:
        return f"{placebo}% placebo"
    named = tuple(groups)
    differs = bool(named) or Decimal(percent) + Decimal(held_back) > WHOLE
    except_for = f" ({held_back}% held back)" if Decimal(held_back) and differs else ""
    return f"{percent}%" + "".join(f"+{group}" for group in named) + except_for


def increments(phase: Phase) -> tuple[Increment, ...]:
    """The audiences of a phase in order."""
    return _increments(phase.steps)


def planned_time(phases: Iterable[Phase]) -> timedelta:
    """The holds of all audiences of these phases. Warm-ups, approvals and windows make a phase longer."""
    return sum((increment.hold for phase in phases for increment in increments(phase)), timedelta(0))


@lru_cache(maxsize=1024)  # each decision reads those of the whole spec
def _increments(steps: tuple[Step, ...]) -> tuple[Increment, ...]:
    result: list[Increment] = []
    percent = Decimal(0)
    for number, step in enumerate(steps, start=1):
        result += _of_step(number, step, percent)
        percent = result[-1].percent
    return tuple(result)


def _of_step(number: int, step: Step, before: Decimal) -> list[Increment]:
    approval = step.approval is StepApproval.REQUIRED
    if step.ramp is None:
        percent, hold = Decimal(step.percent or "0"), duration(step.hold or "0s")
        given, placebo = (Decimal(0), percent) if step.placebo else (percent, Decimal(0))
        return [Increment(number, 0, given, step.groups, hold, last_of_step=True, approval=approval, placebo=placebo)]
    count, top = step.ramp.increments, Decimal(step.ramp.to)
    hold = duration(step.ramp.over) / count
    return [
        Increment(
            step=number,
            index=index,
            percent=(before + (top - before) * index / count).quantize(Decimal("0.1")) if index < count else top,
            groups=step.groups,
            hold=hold,
            last_of_step=index == count,
            approval=approval,
        )
        for index in range(1, count + 1)
    ]


def increment_at(phase: Phase, current: Current) -> Increment | None:
    """The increment that is running; None when the phase no longer has such a step."""
    place = (current.step, current.increment)
    return next((increment for increment in increments(phase) if (increment.step, increment.index) == place), None)


def increment_with(phase: Phase, percent: Decimal, groups: Iterable[str], placebo: Decimal = Decimal(0)) -> Increment | None:
    """The first increment of the phase that has exactly this audience; None when there is none."""
    wanted = (percent, set(groups), placebo)
    candidates = ((each, (each.percent, set(each.groups), each.placebo)) for each in increments(phase))
    return next((increment for increment, audience in candidates if audience == wanted), None)


def is_last(phase: Phase, percent: Decimal, groups: Iterable[str]) -> bool:
    """Whether the phase ends with exactly this audience."""
    last = increments(phase)[-1]
    return (percent, set(groups)) == (last.percent, set(last.groups))


def increment_from(phase: Phase, percent: Decimal, groups: Iterable[str]) -> Increment | None:
    """The first increment of the phase that takes nothing away from this audience; None when there is none."""
    users = set(groups)
    return next(
        (candidate for candidate in increments(phase) if candidate.percent >= percent and users <= set(candidate.groups)), None
    )


def increment_after(phase: Phase, increment: Increment, *, skip_step: bool = False) -> Increment | None:
    """The next increment of the phase, None after the last; with `skip_step` the first of the next step, or the end of this ramp."""
    later = increments(phase)
    later = later[later.index(increment) + 1 :]
    if skip_step and later:
        return next((candidate for candidate in later if candidate.step > increment.step), later[-1])
    return next(iter(later), None)


def increments_before(phase: Phase, increment: Increment) -> tuple[Increment, ...]:
    """The increments of the phase that come before this one, in order."""
    place = (increment.step, increment.index)
    return tuple(known for known in increments(phase) if (known.step, known.index) < place)


def phase_named(spec: RolloutSpec, name: str | None) -> Phase | None:
    """The phase of that name."""
    return next((phase for phase in spec.phases if phase.name == name), None)
