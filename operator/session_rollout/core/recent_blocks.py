"""Whether the latest blocks of a comparison are evidence about the audience that users have.

A block that cannot be read is time without evidence, and harm may be the cause: where failures of a feature are retried, there are more
bad events than events. Without a rule, such a block would take the harm out of the evidence, and the harmless rest would pass.
So there is no evidence for as long as one of the last ten blocks cannot be read. A single one, as of a Pod that restarts, costs a
hold ten blocks. A period without events of a group is none of these: applications have quiet minutes, and the share of users with
the feature is tested. A comparison that would tolerate any rate is no evidence, either: nothing could fail. The same is true of bad
events that no counter counts, such as those of a selector with a spelling error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from session_rollout.api.enums import CheckReason, Verdict
from session_rollout.core.blocks import BlockProblem, CohortBlock
from session_rollout.core.comparison import Comparison

RECENT_BLOCKS: Final = 10  # of which each can be read; a guard that failed has to pass as often
QUIET_BLOCKS: Final = 3  # as many at the end without events say that there are none


@dataclass(frozen=True)
class Unusable:
    """Why there is no evidence in the latest blocks."""

    verdict: Verdict
    reason: CheckReason
    text: str


def unusable(comparison: Comparison, blocks: Sequence[CohortBlock]) -> Unusable | None:
    """Why the latest of these blocks, which are all about the audience that users have, are no evidence; None if they are."""
    if not blocks:
        return Unusable(
            Verdict.NOT_EVALUATED, CheckReason.AWAITING_RESULT, "waiting for the first block of events about this audience"
        )
    problems = [comparison.problem_of(block) for block in blocks[-RECENT_BLOCKS:]]
    unreadable = [problem for problem in problems if problem is not None and problem is not BlockProblem.NO_EVENTS]
    last = problems[-1]
    if last is not None and None not in problems[-QUIET_BLOCKS:]:
        return _no_data(last, "")
    if unreadable:
        return _no_data(unreadable[-1], f"{len(unreadable)} of the last {len(problems)} blocks are no evidence: ")
    if comparison.tolerates_everything:
        return Unusable(Verdict.INCONCLUSIVE, CheckReason.ANY_RATE_TOLERATED, _ANY_RATE)
    events = comparison.test.events
    if not (events.on_bad + events.off_bad or any(block.counts_bad for block in blocks[-RECENT_BLOCKS:])):
        return Unusable(Verdict.NO_DATA, CheckReason.NO_BAD_COUNTER, _NO_BAD_COUNTER)
    return None


def _no_data(problem: BlockProblem, prefix: str) -> Unusable:
    reason = CheckReason(problem.value)
    return Unusable(Verdict.NO_DATA, reason, prefix + _TEXTS[reason])


_ANY_RATE: Final = (
    "any rate is tolerated, because nearly every event without the feature is bad, or because of a bound of 100%; check what counts as"
    " bad: a histogram needs a bucket that ends at `over`"
)
_NO_BAD_COUNTER: Final = (
    "no series counts bad events (or sums up values), of anybody, so that nobody knows whether there are none; check the selector, and let"
    " the application export the counter with 0 from its start"
)
_TEXTS: Final = {
    CheckReason.NO_VARIANTS: "no series has the label `variant` with the value `on` or `off`",
    CheckReason.NO_EVENTS: "the users with the feature, or those without it, have no events",
    CheckReason.UNEVEN_CELLS: "some series have the label `cell` (a sixteenth of all users) and others have not, or it has over 64 values",
    CheckReason.NO_CELLS: "no series has the label `cell`, from which it is known how much the values vary between users",
    CheckReason.IMPOSSIBLE_COUNTS: "there are more bad events than events, or events without a sum of their values; select both from the"
    " same series",
    CheckReason.NOT_A_COUNT: "a count is negative, infinite or not a number",
}
