"""R15: failures in a row are answered by longer and longer pauses, never all at the same moment."""

from datetime import timedelta

import pytest

from session_rollout.controller.backoff import (
    EARLY_FAILURES,
    EARLY_SECONDS,
    FIRST_SECONDS,
    LONGEST_SECONDS,
    URGENT_SECONDS,
    at_most_urgent,
    delay,
)

FAILURES = range(1, 40)


@pytest.mark.parametrize("failures", FAILURES)
def test_pause_is_bounded(failures: int) -> None:
    longest = EARLY_SECONDS if failures <= EARLY_FAILURES else LONGEST_SECONDS
    pauses = [delay(failures) for _ in range(200)]
    assert min(pauses) >= FIRST_SECONDS / 2
    assert max(pauses) <= longest
    assert len(set(pauses)) > 100, "jitter: not all at once"


def test_pauses_grow() -> None:
    means = [sum(delay(failures) for _ in range(2000)) / 2000 for failures in (1, 3, 5, 6, 9)]
    assert means == sorted(means)
    assert means[0] < 0.5
    assert means[-1] > 10


def test_server_is_not_asked_before_it_wants_to() -> None:
    assert delay(1, timedelta(seconds=7)) == 7
    assert delay(30, timedelta(0)) <= LONGEST_SECONDS
    assert delay(1, timedelta(minutes=5)) == LONGEST_SECONDS


def test_what_is_urgent_is_tried_again_in_a_moment() -> None:
    pauses = [at_most_urgent(30) for _ in range(200)]
    assert max(pauses) <= URGENT_SECONDS
    assert len(set(pauses)) > 100, "jitter: not all at once"
    assert at_most_urgent(0.01) == 0.01
