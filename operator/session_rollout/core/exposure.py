"""Whether the users who should have a feature have it: a comparison says something only about an application that applies the flag.

The events that are compared are counted since the audience was published. The hold begins when enough of them have the feature, and
while their share is the published one, within what `core.statistics.ratio` tolerates.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Final

from session_rollout.api.enums import CheckReason
from session_rollout.api.quantities import estimate_text
from session_rollout.core.statistics.ratio import RatioTest

LONGEST: Final = timedelta(days=365)


@dataclass(frozen=True)
class Exposure:
    """The events of users with a feature and of those without it, who were not chosen, since the audience was published."""

    on: float
    off: float
    percent: float  # that is published, above 0 and below 100
    inflation: float
    needed: int  # events with the feature
    elapsed: timedelta  # in which the events were counted

    @cached_property
    def problem(self) -> CheckReason | None:
        """Why nothing is evaluated yet: another share than the published one is shown, or there are too few events."""
        if RatioTest().add(self.on, self.off, self.percent).rejects(self.inflation):
            return CheckReason.NOT_APPLIED
        return CheckReason.NOT_EXPOSED if self.on < self.needed else None

    @property
    def text(self) -> str:
        """The numbers, and what they mean."""
        total, published = self.on + self.off, f"{self.percent:g}% is published"
        if self.on < 1:
            seen = f"0 of {total:,.0f} events have the feature, and {published}"
            return f"{seen}: either no user has received it, or those who have it are not counted"
        share = f"{self.on:,.0f} of {total:,.0f} events have the feature ({self.on / total:.1%})"
        if self.problem is CheckReason.NOT_APPLIED:
            return (
                f"{share}, and {published}: other users have it, events are counted twice, or the feature changes their number"
            )
        wait = self.elapsed * ((self.needed - self.on) / self.on)
        soon = f", in about {estimate_text(wait)}" if timedelta(0) < wait < LONGEST else ""
        return f"{share}; {self.needed:,} with it are needed before a step can end{soon}"
