"""Checks: a measurement held against a bound gives one of six verdicts and a sentence with both numbers.

Each rule below is a small function that either gives a verdict or passes the question on; their order in `_CHAIN` is the
order in which a reader should think. "Could not measure" is a verdict here, never an exception and never a pass.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from session_rollout.api.checks import Check, ComparedTo, Gate
from session_rollout.api.enums import Verdict
from session_rollout.api.quantities import bound, show, spell, unit_of
from session_rollout.core.observed import Counts, Measurement

CONFIDENCE_Z: Final = 1.96  # two-sided 95 %
MINIMUM_EVENTS: Final = 50  # per cohort; below, the normal approximation says nothing


@dataclass(frozen=True)
class Question:
    """All that one assessment depends on."""

    title: str
    metric: str
    measurement: Measurement | None
    not_before: datetime | None  # data from before would judge the audience before; None: nothing to judge yet
    stale_after: timedelta
    now: datetime
    above: str | None = None
    below: str | None = None
    compared_to: ComparedTo | None = None
    max_increase: str | None = None
    max_decrease: str | None = None
    min_increase: str | None = None
    baseline: Decimal | None = None


@dataclass(frozen=True)
class Finding:
    """A verdict, the number it rests on and the sentence for people."""

    verdict: Verdict
    message: str
    value: str | None = None
    bound: str | None = None


def ask(check: Check | Gate, **context: object) -> Question:
    """The question a check or a gate of the spec puts."""
    comparison = (
        {
            "compared_to": check.compared_to,
            "max_increase": check.max_increase,
            "max_decrease": check.max_decrease,
            "min_increase": check.min_increase,
        }
        if isinstance(check, Check)
        else {}
    )
    title = check.name
    return Question(
        title=title,
        metric=check.metric or title,
        above=check.above,
        below=check.below,
        **comparison,  # type: ignore[arg-type]
        **context,  # type: ignore[arg-type]
    )


def assess(question: Question) -> Finding:
    """The verdict of the first rule that has one."""
    return next(finding for rule in _CHAIN if (finding := rule(question)) is not None)


def _warming_up(question: Question) -> Finding | None:
    start = question.not_before
    if start is None or question.now >= start:
        return None
    return Finding(Verdict.NOT_EVALUATED, f"{question.title}: warms up until {start:%H:%M:%S}, its window holds older data")


def _unanswered(question: Question) -> Finding | None:
    measurement, start = question.measurement, question.not_before
    if measurement is None or start is None or measurement.time < start:
        return Finding(Verdict.NOT_EVALUATED, f"{question.title}: no answer to judge yet")
    return None


def _stale(question: Question) -> Finding | None:
    age = question.now - question.measurement.time if question.measurement else timedelta(0)
    if age > question.stale_after:
        return Finding(Verdict.NO_DATA, f"{question.title}: the last answer is older than {spell(question.stale_after)}")
    return None


def _no_number(question: Question) -> Finding | None:
    measurement = question.measurement
    if measurement is not None and measurement.problem is not None:
        return Finding(measurement.problem, f"{question.title}: {measurement.message}")
    return None


def _against_bound(question: Question) -> Finding | None:
    if question.above is None and question.below is None:
        return None
    holds, shown, bound_text = held(_value(question), question.above, question.below)
    return _finding(question, holds=holds, shown=shown, bound_text=bound_text, sentence=f"{shown} {{}} {bound_text}")


def held(value: Decimal, above: str | None, below: str | None) -> tuple[bool, str, str]:
    """Whether a value keeps the one bound that is given; the value in the bound's unit, and the bound in words."""
    text, word = (above, "above") if above is not None else (below, "below")
    assert text is not None
    holds = value > bound(text) if word == "above" else value < bound(text)
    return holds, show(value, unit_of(text)), f"{word} {text}"


def _against_baseline(question: Question) -> Finding | None:
    if question.compared_to is not ComparedTo.BASELINE:
        return None
    if question.baseline is None:
        return Finding(Verdict.NOT_EVALUATED, f"{question.title}: its baseline is not measured yet")
    text, word, sign = _limit(question)
    value, change = _value(question), (_value(question) - question.baseline) * sign
    relative = unit_of(text) == "%"
    limit = bound(text) * (abs(question.baseline) if relative else 1)
    return _finding(
        question,
        holds=change <= limit,
        shown=show(value, ""),
        bound_text=_change(word, text),
        sentence=f"{show(value, '')} {{}} {_within(word, text)} the baseline {show(question.baseline, '')}",
    )


def _change(word: str, text: str) -> str:
    """`increase of at most 5%`; a decrease of at most -1 % is, for people, an increase of at least 1 %."""
    opposite = {"increase": "decrease", "decrease": "increase"}
    return f"{opposite[word]} of at least {text[1:]}" if text.startswith("-") else f"{word} of at most {text}"


def _within(word: str, text: str) -> str:
    change = _change(word, text)
    article = "an" if change.startswith("i") else "a"
    return f"{article} {change} from" if text.startswith("-") else f"within {article} {word} of {text} of"


def _against_control(question: Question) -> Finding | None:
    measurement = question.measurement
    assert measurement is not None
    if measurement.on is None or measurement.off is None:
        return Finding(Verdict.INCONCLUSIVE, f"{question.title}: its metric has no cohorts to compare")
    text, word, sign = _limit(question)
    smallest = min(measurement.on.total, measurement.off.total)
    if smallest < MINIMUM_EVENTS:
        return Finding(
            Verdict.INCONCLUSIVE, f"{question.title}: {smallest:.0f} events in a cohort, at least {MINIMUM_EVENTS} are needed"
        )
    low, high = _difference(measurement.on, measurement.off, sign)
    limit = float(bound(text))
    verdict = Verdict.PASS if high <= limit else Verdict.FAIL if low > limit else Verdict.INCONCLUSIVE
    spread = f"{100 * low:.2f} to {100 * high:.2f} points"
    words = {Verdict.PASS: "is within", Verdict.FAIL: "is beyond", Verdict.INCONCLUSIVE: "may or may not be within"}
    return Finding(
        verdict,
        f"{question.title}: the {word} against users without the feature, {spread}, {words[verdict]} {text}",
        value=spread,
        bound=_change(word, text),
    )


_CHAIN: Final[tuple[Callable[[Question], Finding | None], ...]] = (
    _warming_up,  # the window still holds data of another audience
    _unanswered,  # nothing asked, or the answer is on its way
    _stale,  # the source has fallen silent
    _no_number,  # empty, NaN, refused, several series ...
    _against_bound,
    _against_baseline,
    _against_control,
)


def _value(question: Question) -> Decimal:
    assert question.measurement is not None
    assert question.measurement.value is not None
    return question.measurement.value


def _limit(question: Question) -> tuple[str, str, int]:
    if question.max_increase is not None:
        return question.max_increase, "increase", 1
    assert question.max_decrease is not None
    return question.max_decrease, "decrease", -1


def _finding(question: Question, *, holds: bool, shown: str, bound_text: str, sentence: str) -> Finding:
    return Finding(
        Verdict.PASS if holds else Verdict.FAIL,
        f"{question.title} {sentence.format('is' if holds else 'is not')}",
        value=shown,
        bound=bound_text,
    )


def _difference(on: Counts, off: Counts, sign: int) -> tuple[float, float]:
    """95 % interval of the change of the good share from off to on (Wald, unpooled), a rise counted by `sign`."""
    rate_on, rate_off = float(on.good / on.total), float(off.good / off.total)
    spread = CONFIDENCE_Z * math.sqrt(rate_on * (1 - rate_on) / float(on.total) + rate_off * (1 - rate_off) / float(off.total))
    change = (rate_on - rate_off) * sign
    return change - spread, change + spread
