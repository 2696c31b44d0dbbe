"""Whether the users who should have a feature have it: a comparison says something only about an application that applies the flag.

The events that are compared are counted since the audience was published. The hold begins when enough of them have the feature, and
while their share is the published one, within what `core.statistics.ratio` tolerates.
"""

from dataclasses import dataclass

from session_rollout.api.enums import CheckReason
from session_rollout.core.statistics.ratio import TOLERATED, RatioTest


@dataclass(frozen=True)
class Exposure:
    """The events of users with a feature and of those without it, who were not chosen, since the audience was published."""

    on: float
    off: float
    percent: float  # that is published, above 0 and below 100
    inflation: float
    needed: int  # events with the feature

    @property
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
            return f"no user has received the feature: none of {total:,.0f} events has it, and {published}"
        share = f"{self.on:,.0f} of {total:,.0f} events have the feature ({self.on / total:.2%})"
        if self.problem is CheckReason.NOT_APPLIED:
            return f"{share}, and {published}: the odds must be within {TOLERATED:.0%}"
        return f"{share}; {self.needed:,} with it are needed before anything is evaluated"
