"""Which lives are drawn, as strategies of Hypothesis; `random_life` draws the same without it."""

import random
from typing import Any, Final

from hypothesis import strategies as st

from core.model.lives import REFUSALS, VALUES, WRITES, Event
from core.model.shapes import BY_HAND, EDITS, SHAPES
from session_rollout.api.enums import ActionType

METRICS: Final = ("errors", "errors", "slow")
ACTIONS: Final = tuple(
    action
    for action in (
        "Approve",
        "Promote",
        "Pause",
        "Resume",
        "Abort",
        "Retry",
        "EmergencyDisable",
        "EmergencyEnable",
        "Adopt",
        "Reset",
    )
    if action in {known.value for known in ActionType}
)
Choices = tuple[tuple[Any, ...], ...]
# Each row is an event: what may stand at each place, and how often it is drawn.
EVENTS: Final[tuple[tuple[int, Choices], ...]] = (
    (5, (("wait",), (10, 10, 20, 30, 60))),
    (1, (("wait",), (120,), (10, 20, 30))),
    (4, (("proceed",), ("step", "step", "stage", "phase", "end"))),
    (4, (("say",), METRICS, tuple(VALUES))),
    (2, (("say",), METRICS, ("bad", "breach"))),
    (1, (("say",), METRICS, ("good",), (86400,))),
    (2, (("repeat",), METRICS, ("breach", "bad"), ("breach", "bad", "good"), ("breach", "good", "no data"), tuple(VALUES))),
    (1, (("silence",), (10, 90))),
    (3, (("edit",), tuple(EDITS))),
    (5, (("act",), ACTIONS)),
    (1, (("disable",), ("alpha", "beta"))),
    (1, (("disable",), ("alpha", "beta"), ("typo",))),
    (1, (("enable",), ("alpha", "beta"))),
    (1, (("act again",), ACTIONS)),
    (1, (("act then edit",), ACTIONS, tuple(EDITS))),
    (2, (("act and edit",), ("Approve", "Promote", "EmergencyDisable"), ("bake", "bake", "scope", "suspend"))),
    (1, (("say and act",), METRICS, ("breach", "breach", "no data"), ("Promote", "Promote", "Approve", "Retry"))),
    (1, (("rest",), (20, 60))),
    (1, (("by hand",), tuple(BY_HAND))),
    (1, (("copy",), tuple(BY_HAND))),
    (1, (("recreate",),)),
    (1, (("restore",),)),
    (1, (("delete",), tuple(REFUSALS))),
    (2, (("refuse",), WRITES, tuple(REFUSALS))),
    (2, (("accept",),)),
    (1, (("lose",), WRITES)),
    (1, (("delay",), WRITES, (True, False))),
    (2, (("overtake",), (*WRITES, "document status", "status document"), (True, False), ("", "", "status", "document"))),
    (1, (("alone",),)),
    (1, (("land",),)),
    (1, (("unread",),)),
    (2, (("crash",), (*WRITES, "known", "unknown", "without its Lease"))),
    (1, (("jump",), (-3600, -60, 60, 3600))),
    (1, (("calm",),)),
)
LENGTHS: Final = (3, 11)
ROWS: Final = [row for weight, row in EVENTS for _ in range(weight)]

# Most lives begin with some time: before the first data counts, little can go wrong.
BEGINNINGS: Final[tuple[Event, ...]] = (("wait", 10), ("wait", 20), ("wait", 30), ("proceed", "step"), ("accept",))

EVENT: Final = st.sampled_from(ROWS).flatmap(lambda row: st.tuples(*(st.sampled_from(choices) for choices in row)))
LIVES: Final = st.tuples(
    st.sampled_from(list(SHAPES)),
    st.tuples(st.sampled_from(BEGINNINGS), st.lists(EVENT, min_size=LENGTHS[0], max_size=LENGTHS[1])).map(
        lambda parts: [parts[0], *parts[1]]
    ),
)


def random_life(source: random.Random) -> tuple[str, list[Event]]:
    """A shape and its events, drawn without Hypothesis: many times faster, and never made smaller."""
    rows = source.choices(ROWS, k=source.randint(*LENGTHS))
    events: list[Event] = [tuple(source.choice(choices) for choices in row) for row in rows]
    return source.choice(list(SHAPES)), [source.choice(BEGINNINGS), *events]
