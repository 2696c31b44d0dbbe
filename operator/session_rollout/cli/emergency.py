"""An emergency in force, in one sentence: the plugin shows it whatever the state of the rollout is.

A rollout that is Promoted, suspended, stalled or rolled back keeps features off until somebody ends the emergency.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from session_rollout.api.status import RolloutStatus

CONDITION: Final = "EmergencyActive"
NAMES_SHOWN: Final = 6


def emergency(status: "RolloutStatus") -> str | None:
    """What the condition says; without it, as an older operator leaves it, the features that are disabled. None: no emergency."""
    message = next((known.message for known in status.conditions if (known.type, known.status) == (CONDITION, "True")), None)
    disabled = status.flags.disabled
    if message or not disabled:
        return message
    names = [record.feature for record in disabled]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names[:NAMES_SHOWN])}{more} {verb} off for all users: {disabled[0].reason} ({disabled[0].by})"
