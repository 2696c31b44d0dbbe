"""R13: a reconciliation that takes longer than the interval is no absence; one that hangs is."""

from dataclasses import replace
from datetime import timedelta

import pytest

from core.world import World, spec
from session_rollout.core.context import LONGEST_WORK, DecisionContext

INTERVAL = timedelta(seconds=1)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@pytest.mark.parametrize(
    ("away", "busy", "unobserved"),
    [
        (1, 0, 0),
        (2, 0, 0),
        (2.1, 0, 2.1),
        (3.5, 2, 0),  # each reconciliation takes two seconds
        (12, 10, 0),
        (12.1, 11, 12.1),  # more than that is not work
        (3600, 3600, 3600),  # the process was frozen while it reconciled
        (3600, 0, 3600),
    ],
)
def test_time_of_the_reconciliation_itself_is_observed_within_bounds(away: float, busy: float, unobserved: float) -> None:
    world = World(spec(checkInterval="1s"))
    observed = replace(world.observed(), last_reconcile=world.now - seconds(away), busy=seconds(busy))
    context = DecisionContext(observed, world.now, observed.rollout.status)
    assert context.interval == INTERVAL
    assert context.unobserved == seconds(unobserved)
    assert seconds(10) == LONGEST_WORK


def test_long_interval_hides_no_absence() -> None:
    """A rollout is reconciled every 30 s at least, however seldom its checks are evaluated."""
    world = World(spec(checkInterval="1h"))
    observed = replace(world.observed(), last_reconcile=world.now - seconds(61))
    assert DecisionContext(observed, world.now, observed.rollout.status).unobserved == seconds(61)
