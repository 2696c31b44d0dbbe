"""How a duration is shown to people: one form everywhere, in at most two units."""

from datetime import timedelta

import pytest

from session_rollout.api.quantities import format_duration

ROWS = [
    (0, "0 s"),
    (-3, "0 s"),
    (0.25, "250 ms"),
    (3.75, "3.8 s"),
    (59.97, "1 min"),
    (90, "1 min 30 s"),
    (5_401, "1 h 30 min"),
    (86_400, "1 d"),
    (129_600, "1 d 12 h"),
    (604_800, "7 d"),
]


@pytest.mark.parametrize(("seconds", "text"), ROWS, ids=[row[1] for row in ROWS])
def test_duration_for_people(seconds: float, text: str) -> None:
    """The two largest units."""
    assert format_duration(timedelta(seconds=seconds)) == text
