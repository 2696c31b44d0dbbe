"""Sessions that fail by chance, as the application of `make demo SIZE=...` counts them (`lab.counting`).

Not here: what the operator makes of the counters (tests/integration/test_cohorts.py), the demo application (test_demo_application.py).
"""

import pytest

from lab.counting import RandomFailures


def test_the_same_sessions_fail_whenever_they_are_counted() -> None:
    """So that a seed means something, although no scrape comes at the same time twice."""
    often, seldom = RandomFailures("7 on 3"), RandomFailures("7 on 3")
    counts = [often.among(sessions, 0.3) for sessions in range(200)]
    assert [seldom.among(sessions, 0.3) for sessions in (50, 199)] == [counts[50], counts[199]]
    assert counts == sorted(counts)
    assert RandomFailures("8 on 3").among(199, 0.3) != counts[199] or RandomFailures("9 on 3").among(199, 0.3) != counts[199]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_share_of_sessions_that_fail(share: float) -> None:
    assert RandomFailures("1").among(20_000, share) == pytest.approx(20_000 * share, rel=0.1)


def test_another_share_is_about_new_sessions() -> None:
    """What has failed has failed."""
    failures = RandomFailures("1")
    assert failures.among(100, 1.0) == 100
    assert failures.among(100, 0.0) == 100
    assert failures.among(200, 0.0) == 100
